//! Nodes that an edit reads more than once, or ahead.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::cursor::place;
use super::node::{Child, ReadNode, WriteNode, read_root};
use super::split::Splitter;
use crate::error::Result;
use crate::id::BlobId;

/// Nodes that are read at a time.
const CONCURRENT: usize = 16;

/// A reader that keeps inner nodes for as long as the edit lasts, and leaves until others are read ahead.
///
/// Leaves are most of what an edit of many keys reads, so keeping them all would
/// take memory in proportion to the edit times the length of a leaf.
pub(super) struct Warm<'a, R> {
    reader: &'a R,
    nodes: Mutex<Nodes>,
}

#[derive(Default)]
struct Nodes {
    inner: HashMap<BlobId, Bytes>,
    leaves: HashMap<BlobId, Bytes>,
    /// Inner nodes of several children that were written and might not be readable yet.
    written: HashSet<BlobId>,
}

impl<'a, R: ReadNode> Warm<'a, R> {
    pub(super) fn new(reader: &'a R) -> Self {
        Self { reader, nodes: Mutex::default() }
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        // Nothing that can panic runs under the lock, and a cache is never wrong.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a node of so many items, and remembers what `finish` needs to know of it.
    pub(super) fn write(&self, out: &mut impl WriteNode, node: Vec<u8>, items: usize) -> Result<BlobId> {
        let inner = node.first().is_some_and(|form| *form > 0);
        let single = (inner && items == 1).then(|| Bytes::copy_from_slice(&node));
        let id = out.write_node(node)?;
        match single {
            Some(node) => drop(self.nodes().inner.insert(id, node)),
            None if inner => drop(self.nodes().written.insert(id)),
            None => {}
        }
        Ok(id)
    }

    /// Whether this node was written and has several children.
    pub(super) fn has_written_several(&self, id: &BlobId) -> bool {
        self.nodes().written.contains(id)
    }

    /// Reads the leaves in whose ranges the sorted `positions` lie, the rest of their runs, and all on the way.
    pub(super) async fn read_ahead(&self, root: &BlobId, positions: &[&[u8]], splitter: &Splitter) -> Result<()> {
        self.nodes().leaves.clear();
        let mut open: Vec<_> = read_root(self, root).await?.into_iter().collect();
        while open.first().is_some_and(|(child, _)| child.level > 0) {
            let wanted = open.into_iter().flat_map(|(child, node)| {
                let within = within(&child, positions);
                wanted(child.children(node), within, splitter)
            });
            let wanted: Vec<_> = wanted.collect();
            if wanted.first().is_some_and(|child| child.level == 0) {
                return self.read_leaves(wanted).await;
            }
            let read = |child: Child| async move { child.read(self).await.map(|node| (child, node)) };
            open = stream::iter(wanted).map(read).buffered(CONCURRENT).try_collect().await?;
        }
        Ok(())
    }

    async fn read_leaves(&self, leaves: Vec<Child>) -> Result<()> {
        let read = |leaf: Child| async move { self.reader.read_node(&leaf.id).await.map(|bytes| (leaf.id, bytes)) };
        let mut leaves = stream::iter(leaves).map(read).buffer_unordered(CONCURRENT);
        while let Some((id, bytes)) = leaves.try_next().await? {
            self.nodes().leaves.insert(id, bytes);
        }
        Ok(())
    }
}

/// The positions in the range of `child`. Those before all keys are few, and read when needed.
fn within<'p>(child: &Child, positions: &'p [&'p [u8]]) -> &'p [&'p [u8]] {
    let start = positions.partition_point(|position| *position < child.first.as_encoded());
    let upper = child.upper.as_ref().map(|upper| upper.as_encoded());
    let end = upper.map_or(positions.len(), |upper| positions.partition_point(|position| *position < upper));
    positions.get(start..end).unwrap_or_default()
}

/// The children in whose ranges positions lie; of leaves, all those of the same run.
fn wanted(children: Vec<Child>, positions: &[&[u8]], splitter: &Splitter) -> Vec<Child> {
    let mut marked = vec![false; children.len()];
    let begins = |child: &Child| child.level > 0 || splitter.begins_run_at(child.level, &child.first);
    for position in positions {
        let index = place(&children, position);
        if marked.get(index).is_none_or(|marked| *marked) {
            continue;
        }
        let before = (0..=index).rev().find(|index| begins(&children[*index])).unwrap_or(0);
        let after = (index + 1..children.len()).find(|index| begins(&children[*index])).unwrap_or(children.len());
        marked[before..after].fill(true);
    }
    children.into_iter().zip(marked).filter_map(|(child, marked)| marked.then_some(child)).collect()
}

impl<R: ReadNode> ReadNode for Warm<'_, R> {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        let kept = {
            let nodes = self.nodes();
            nodes.inner.get(id).or_else(|| nodes.leaves.get(id)).cloned()
        };
        if let Some(node) = kept {
            return Ok(node);
        }
        let node = self.reader.read_node(id).await?;
        if node.first().is_some_and(|form| *form > 0) {
            self.nodes().inner.insert(*id, node.clone());
        }
        Ok(node)
    }
}
