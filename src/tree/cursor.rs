//! A position among the nodes of one level.

use super::key::Key;
use super::node::{Child, Node, ReadNode, read_root};
use crate::error::{Error, Result};
use crate::id::BlobId;

/// The children of one node, and which of them is meant.
struct Frame {
    children: Vec<Child>,
    index: usize,
}

/// Stands at a node of one level; moves to its neighbours and to any key.
///
/// Keeps the inner nodes on the way to it, so a move reads only what isn't on the
/// way to both places.
pub(super) struct Cursor<R> {
    reader: R,
    level: u8,
    /// From the root, which stands alone in the first frame, to the nodes of `level`.
    frames: Vec<Frame>,
}

impl<R: ReadNode> Cursor<R> {
    /// Stands at the first node of `level`, or at the root if that is lower; none if the tree is empty.
    pub(super) async fn open(reader: R, root: &BlobId, level: u8) -> Result<Option<Self>> {
        let Some((root, node)) = read_root(&reader, root).await? else { return Ok(None) };
        let mut frames = vec![Frame { children: vec![root.clone()], index: 0 }];
        if root.level > level {
            frames.push(Frame { children: root.children(node), index: 0 });
        }
        let mut cursor = Self { reader, level, frames };
        cursor.descend(|_| 0).await?;
        Ok(Some(cursor))
    }

    /// The node it stands at.
    pub(super) fn child(&self) -> Result<&Child> {
        // There is always a frame, and its index is always in range.
        let child = self.frames.last().and_then(|frame| frame.children.get(frame.index));
        child.ok_or_else(|| Error::worker("a cursor lost its place"))
    }

    /// Reads the node it stands at.
    pub(super) async fn load(&self) -> Result<Node> {
        self.child()?.read(&self.reader).await
    }

    /// Moves to the next node; false, and stays, if there is none.
    pub(super) async fn next(&mut self) -> Result<bool> {
        let Some(depth) = self.frames.iter().rposition(|frame| frame.index + 1 < frame.children.len()) else {
            return Ok(false);
        };
        self.frames.truncate(depth + 1);
        self.frames[depth].index += 1;
        self.descend(|_| 0).await?;
        Ok(true)
    }

    /// Moves to the node before; false, and stays, if there is none.
    pub(super) async fn prev(&mut self) -> Result<bool> {
        let Some(depth) = self.frames.iter().rposition(|frame| frame.index > 0) else { return Ok(false) };
        self.frames.truncate(depth + 1);
        self.frames[depth].index -= 1;
        self.descend(|children| children.len().saturating_sub(1)).await?;
        Ok(true)
    }

    /// Moves to the node in whose range `position` lies; the first if it lies before all.
    pub(super) async fn seek(&mut self, position: &[u8]) -> Result<()> {
        let first = self.frames.first().and_then(|frame| frame.children.first()).map(|root| root.first.clone());
        let position = first.as_ref().map_or(position, |first| position.max(first.as_encoded()));
        let holds = |frame: &Frame| {
            let first = frame.children.first().is_some_and(|child| child.first.as_encoded() <= position);
            let upper = frame.children.last().and_then(|child| child.upper.as_ref());
            first && upper.is_none_or(|upper| upper.as_encoded() > position)
        };
        let depth = self.frames.iter().rposition(holds).unwrap_or(0);
        self.frames.truncate(depth + 1);
        let place = |children: &[Child]| place(children, position);
        if let Some(frame) = self.frames.last_mut() {
            frame.index = place(&frame.children);
        }
        self.descend(place).await
    }

    /// Goes down to its level, at each node to the child that `choose` names.
    async fn descend(&mut self, choose: impl Fn(&[Child]) -> usize) -> Result<()> {
        while self.child()?.level > self.level {
            let child = self.child()?;
            let children = child.children(child.read(&self.reader).await?);
            let index = choose(&children);
            self.frames.push(Frame { children, index });
        }
        Ok(())
    }
}

/// The index of the child in whose range `position` lies; the first if it lies before all.
pub(super) fn place(children: &[Child], position: &[u8]) -> usize {
    children.partition_point(|child| child.first.as_encoded() <= position).saturating_sub(1)
}

/// The index of the first entry at or after `position`.
pub(super) fn entry_at<T>(entries: &[(Key, T)], position: &[u8]) -> usize {
    entries.partition_point(|(key, _)| key.as_encoded() < position)
}
