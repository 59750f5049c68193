//! Comparing two trees at the cost of their difference.
//!
//! Both trees are walked together, each as a row of subtrees and entries not yet
//! compared. Equal subtrees at the front of both rows are dropped unread; otherwise
//! the one that begins earlier, or is higher, is replaced by its children. Nodes
//! that will have to be opened soon are read with it.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use futures::future::try_join;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::entry::Entry;
use super::key::Key;
use super::node::{Child, Node, ReadNode, read_root};
use super::span::Span;
use crate::error::{Error, Result};
use crate::id::BlobId;

/// Nodes of each tree that are read at a time.
const AHEAD: usize = 8;

/// A key at which two snapshots differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Where.
    pub key: Key,
    /// The older snapshot's entry; none if it was added.
    pub old: Option<Entry>,
    /// The newer snapshot's entry; none if it was removed.
    pub new: Option<Entry>,
}

/// The differences within `span` between the trees under `old` and `new`, in the order of their keys.
pub(crate) fn diff<'a, R: ReadNode + 'a>(
    reader: R,
    old: &BlobId,
    new: &BlobId,
    span: Span,
) -> BoxStream<'a, Result<Change>> {
    let differ = Differ { reader, span, read: HashMap::new(), old: Row::new(*old), new: Row::new(*new) };
    stream::try_unfold(differ, async |mut differ| Ok(differ.next().await?.map(|change| (change, differ)))).boxed()
}

/// A part of a tree that hasn't been compared.
enum Part {
    Tree(Child),
    Entry(Key, Entry),
}

impl Part {
    fn first(&self) -> &Key {
        match self {
            Part::Tree(child) => &child.first,
            Part::Entry(key, _) => key,
        }
    }

    fn id(&self) -> Option<BlobId> {
        match self {
            Part::Tree(child) => Some(child.id),
            Part::Entry(..) => None,
        }
    }

    /// Higher for what is to be opened first; entries never are.
    fn height(&self) -> u8 {
        match self {
            Part::Tree(child) => child.level.saturating_add(1),
            Part::Entry(..) => 0,
        }
    }
}

/// What is left of one tree, in order.
struct Row {
    /// Until the tree is opened.
    root: Option<BlobId>,
    parts: VecDeque<Part>,
}

impl Row {
    fn new(root: BlobId) -> Self {
        Self { root: Some(root), parts: VecDeque::new() }
    }

    async fn open(&mut self, reader: &impl ReadNode, span: &Span) -> Result<()> {
        if let Some(root) = self.root.take()
            && let Some((root, _)) = read_root(reader, &root).await?
            && span.touches(&root)
        {
            self.parts.push_back(Part::Tree(root));
        }
        Ok(())
    }

    /// Nodes from the front on that aren't in `other` and will be opened, if all goes on as it looks.
    fn upcoming(&self, other: &Row) -> Vec<BlobId> {
        let Some(height) = self.parts.front().map(Part::height) else { return Vec::new() };
        let others: HashSet<_> = other.parts.iter().filter_map(Part::id).collect();
        // Below a higher subtree of the other tree may be any of what comes later.
        let bound = other.parts.iter().find(|part| part.height() > height).map(Part::first);
        let sure = self.parts.iter().take_while(|part| bound.is_none_or(|bound| part.first() < bound));
        sure.filter_map(Part::id).filter(|id| !others.contains(id)).take(AHEAD).collect()
    }

    /// Replaces the subtree at the front, which has been read, by its children.
    fn expand(&mut self, read: &mut HashMap<BlobId, Bytes>, span: &Span) -> Result<()> {
        let Some(Part::Tree(child)) = self.parts.front() else { return Ok(()) };
        let Some(bytes) = read.remove(&child.id) else { return Err(Error::worker("a comparison lost a node")) };
        let child = child.clone();
        let node = child.decode(&bytes)?;
        self.parts.pop_front();
        let parts: Vec<_> = match node {
            Node::Leaf(entries) => {
                let entries = entries.into_iter().filter(|(key, _)| span.contains(key));
                entries.map(|(key, entry)| Part::Entry(key, entry)).collect()
            }
            node => child.children(node).into_iter().filter(|child| span.touches(child)).map(Part::Tree).collect(),
        };
        parts.into_iter().rev().for_each(|part| self.parts.push_front(part));
        Ok(())
    }

    fn pop_entry(&mut self) -> Option<(Key, Entry)> {
        match self.parts.pop_front()? {
            Part::Entry(key, entry) => Some((key, entry)),
            Part::Tree(_) => None,
        }
    }
}

/// What is to be done with the fronts of both rows.
enum Step {
    Drop,
    Expand { old: bool, new: bool },
    Take { old: bool, new: bool },
}

struct Differ<R> {
    reader: R,
    span: Span,
    /// Nodes that were read ahead.
    read: HashMap<BlobId, Bytes>,
    old: Row,
    new: Row,
}

impl<R: ReadNode> Differ<R> {
    async fn next(&mut self) -> Result<Option<Change>> {
        if self.old.root == self.new.root && self.old.root.is_some() {
            return Ok(None);
        }
        try_join(self.old.open(&self.reader, &self.span), self.new.open(&self.reader, &self.span)).await?;
        while let Some(step) = self.step() {
            match step {
                Step::Drop => {
                    let dropped = self.old.parts.pop_front().and_then(|part| part.id());
                    dropped.map(|id| self.read.remove(&id));
                    self.new.parts.pop_front();
                }
                Step::Expand { old, new } => {
                    self.read_ahead(old, new).await?;
                    if old {
                        self.old.expand(&mut self.read, &self.span)?;
                    }
                    if new {
                        self.new.expand(&mut self.read, &self.span)?;
                    }
                }
                Step::Take { old, new } => {
                    let old = if old { self.old.pop_entry() } else { None };
                    let new = if new { self.new.pop_entry() } else { None };
                    let key = old.as_ref().or(new.as_ref()).map(|(key, _)| key.clone());
                    let (old, new) = (old.map(|(_, entry)| entry), new.map(|(_, entry)| entry));
                    if old != new {
                        return Ok(key.map(|key| Change { key, old, new }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads the nodes at the front that are to be opened, and with them those that come soon.
    async fn read_ahead(&mut self, old: bool, new: bool) -> Result<()> {
        let front = |wanted: bool, row: &Row| row.parts.front().filter(|_| wanted).and_then(Part::id);
        let fronts: BTreeSet<_> = front(old, &self.old).into_iter().chain(front(new, &self.new)).collect();
        if fronts.iter().all(|id| self.read.contains_key(id)) {
            return Ok(());
        }
        let mut wanted = fronts;
        wanted.extend(self.old.upcoming(&self.new));
        wanted.extend(self.new.upcoming(&self.old));
        wanted.retain(|id| !self.read.contains_key(id));
        let reader = &self.reader;
        let read = |id: BlobId| async move { Ok::<_, Error>((id, reader.read_node(&id).await?)) };
        let nodes: Vec<_> = stream::iter(wanted).map(read).buffer_unordered(2 * AHEAD + 2).try_collect().await?;
        self.read.extend(nodes);
        Ok(())
    }

    /// None when both rows are at their end.
    fn step(&self) -> Option<Step> {
        let (old, new) = match (self.old.parts.front(), self.new.parts.front()) {
            (None, None) => return None,
            (Some(old), None) => return Some(only(old, true)),
            (None, Some(new)) => return Some(only(new, false)),
            (Some(old), Some(new)) => (old, new),
        };
        if let (Part::Tree(old), Part::Tree(new)) = (old, new)
            && old.id == new.id
        {
            return Some(Step::Drop);
        }
        Some(match old.first().cmp(new.first()) {
            Ordering::Less => only(old, true),
            Ordering::Greater => only(new, false),
            Ordering::Equal => match old.height().cmp(&new.height()) {
                Ordering::Greater => Step::Expand { old: true, new: false },
                Ordering::Less => Step::Expand { old: false, new: true },
                Ordering::Equal if old.height() == 0 => Step::Take { old: true, new: true },
                Ordering::Equal => Step::Expand { old: true, new: true },
            },
        })
    }
}

/// The step for a part that comes before anything in the other tree.
fn only(part: &Part, old: bool) -> Step {
    match part {
        Part::Tree(_) => Step::Expand { old, new: !old },
        Part::Entry(..) => Step::Take { old, new: !old },
    }
}
