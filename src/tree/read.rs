//! Looking up, ranging, listing and visiting.

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::task::coop::consume_budget;

use super::cursor::{Cursor, entry_at, place};
use super::entry::Entry;
use super::key::Key;
use super::node::{Child, Node, ReadNode, read_root};
use super::span::Span;
use crate::error::{Error, Result};
use crate::id::BlobId;

/// Inner nodes that are read ahead on each level. Each names dozens of nodes below, so few do.
const INNER_AHEAD: usize = 2;

/// The entry at `key`, if there is one.
pub(crate) async fn get(reader: &impl ReadNode, root: &BlobId, key: &Key) -> Result<Option<Entry>> {
    let Some((mut child, mut node)) = read_root(reader, root).await? else { return Ok(None) };
    loop {
        if let Node::Leaf(entries) = &mut node {
            let found = entries.binary_search_by(|(other, _)| other.cmp(key)).ok();
            return Ok(found.map(|index| entries.swap_remove(index).1));
        }
        if *key < child.first {
            return Ok(None);
        }
        let mut children = child.children(node);
        let index = place(&children, key.as_encoded());
        if index >= children.len() {
            return Ok(None);
        }
        child = children.swap_remove(index);
        node = child.read(reader).await?;
    }
}

/// The entries in `span`, in the order of their keys, up to `read_ahead` leaves being read at a time.
///
/// Reads no node outside the span. A damaged node is reported where its entries
/// would have come; the stream goes on with the next node for who wants it.
pub(crate) fn range<'a, R: ReadNode + 'a>(
    reader: R,
    root: &BlobId,
    span: Span,
    read_ahead: usize,
) -> BoxStream<'a, Result<(Key, Entry)>> {
    let root = *root;
    let opened = async move {
        let found = read_root(&reader, &root).await?;
        Ok::<BoxStream<'a, _>, Error>(range_under(reader, found, span, read_ahead.max(1)))
    };
    stream::once(opened).try_flatten().boxed()
}

/// One stage a level: a stage reads the nodes that the one above names, some of them at a time, in order.
fn range_under<'a, R: ReadNode + 'a>(
    reader: R,
    root: Option<(Child, Node)>,
    span: Span,
    read_ahead: usize,
) -> BoxStream<'a, Result<(Key, Entry)>> {
    let Some((root, node)) = root else { return stream::empty().boxed() };
    let reader = std::sync::Arc::new(reader);
    let level = root.level;
    if level == 0 {
        return stream::iter(entries_in(node, &span)).boxed();
    }
    let mut children: BoxStream<'a, Result<Child>> = stream::iter(children_in(&root, node, &span)).boxed();
    for _ in 1..level {
        let (reader, span) = (reader.clone(), span.clone());
        let nodes = children.map(move |child| read_child(reader.clone(), child)).buffered(INNER_AHEAD);
        children =
            nodes.map_ok(move |(child, node)| stream::iter(children_in(&child, node, &span))).try_flatten().boxed();
    }
    let leaves = children.map(move |child| read_child(reader.clone(), child)).buffered(read_ahead);
    leaves.map_ok(move |(_, node)| stream::iter(entries_in(node, &span))).try_flatten().boxed()
}

async fn read_child<R: ReadNode>(reader: R, child: Result<Child>) -> Result<(Child, Node)> {
    let child = child?;
    let node = child.read(&reader).await?;
    Ok((child, node))
}

fn children_in(child: &Child, node: Node, span: &Span) -> Vec<Result<Child>> {
    child.children(node).into_iter().filter(|child| span.touches(child)).map(Ok).collect()
}

fn entries_in(node: Node, span: &Span) -> Vec<Result<(Key, Entry)>> {
    let Node::Leaf(entries) = node else { return Vec::new() };
    entries.into_iter().filter(|(key, _)| span.contains(key)).map(Ok).collect()
}

/// The immediate children of `folder`, or those of the whole tree, in order.
///
/// What lies below a child is stepped over, at a logarithmic cost. A child that
/// has no entry itself, only some below it, comes without one.
pub(crate) fn list<'a, R: ReadNode + 'a>(
    reader: R,
    root: &BlobId,
    folder: Option<&Key>,
) -> BoxStream<'a, Result<(Key, Option<Entry>)>> {
    let span = Span::below(folder);
    let depth = folder.map_or(0, Key::depth) + 1;
    let root = *root;
    let opened = async move {
        let cursor = Cursor::open(reader, &root, 0).await?;
        let listing = cursor.map(|cursor| Listing { cursor, leaf: None, span, depth });
        Ok::<_, Error>(stream::try_unfold(listing, async |listing| match listing {
            Some(mut listing) => Ok(listing.next().await?.map(|found| (found, Some(listing)))),
            None => Ok(None),
        }))
    };
    stream::once(opened).try_flatten().boxed()
}

struct Listing<R> {
    cursor: Cursor<R>,
    leaf: Option<Vec<(Key, Entry)>>,
    /// What hasn't been listed yet.
    span: Span,
    depth: usize,
}

impl<R: ReadNode> Listing<R> {
    async fn next(&mut self) -> Result<Option<(Key, Option<Entry>)>> {
        loop {
            let Some(leaf) = &self.leaf else {
                self.cursor.seek(&self.span.start).await?;
                self.leaf = Some(self.leaf().await?);
                continue;
            };
            if let Some((key, entry)) = leaf.get(entry_at(leaf, &self.span.start)) {
                return Ok(self.span.contains(key).then(|| (key.clone(), entry.clone())).map(|found| self.step(found)));
            }
            let upper = self.cursor.child()?.upper.clone();
            match upper {
                Some(upper) if !self.span.ends_before(&upper) => {
                    self.span.start = self.span.start.clone().max(Bytes::copy_from_slice(upper.as_encoded()));
                    self.leaf = None;
                }
                _ => return Ok(None),
            }
        }
    }

    async fn leaf(&self) -> Result<Vec<(Key, Entry)>> {
        match self.cursor.load().await? {
            Node::Leaf(entries) => Ok(entries),
            _ => Err(Error::worker("a cursor lost its level")),
        }
    }

    /// Goes past the child that `key` is or lies below.
    fn step(&mut self, (key, entry): (Key, Entry)) -> (Key, Option<Entry>) {
        let mut child = key.clone();
        for _ in self.depth..key.depth() {
            child = child.parent().unwrap_or(child);
        }
        self.span.start = child.position_beyond();
        let entry = (child == key).then_some(entry);
        (child, entry)
    }
}

/// What a walk over all nodes is told.
pub(crate) trait Visitor {
    /// A node comes next; false to leave out it and all below it, as when it was seen before.
    fn enter(&mut self, id: &BlobId) -> bool;

    /// An entry of a node that was entered.
    fn entry(&mut self, _key: &Key, _entry: &Entry) {}

    /// All entries of a leaf that was entered; by default they are told one by one.
    fn leaf(&mut self, _id: &BlobId, entries: Vec<(Key, Entry)>) -> impl Future<Output = Result<()>> + Send {
        entries.iter().for_each(|(key, entry)| self.entry(key, entry));
        std::future::ready(Ok(()))
    }

    /// A node can't be had, or isn't what its parent says: what it holds of `span` is lost.
    ///
    /// An error ends the walk with it.
    fn failed(&mut self, id: &BlobId, span: &Span, error: Error) -> Result<()>;
}

/// Walks the tree depth-first, up to `read_ahead` leaves being read at a time.
///
/// A node that the visitor leaves out isn't read, so what a second parent says of it isn't verified.
pub(crate) async fn visit_nodes(
    reader: &impl ReadNode,
    root: &BlobId,
    read_ahead: usize,
    visitor: &mut impl Visitor,
) -> Result<()> {
    if !visitor.enter(root) {
        return Ok(());
    }
    let (root, node) = match read_root(reader, root).await {
        Ok(None) => return Ok(()),
        Ok(Some(found)) => found,
        Err(error) => return visitor.failed(root, &Span::all(), error),
    };
    let mut open = expand(&root, node, visitor).await?;
    while let Some(child) = open.pop() {
        let leaves = open.iter().rev().take_while(|next| child.level == 0 && next.level == 0).count();
        let siblings = open.split_off(open.len() - leaves).into_iter().rev();
        let entered: Vec<_> = std::iter::once(child).chain(siblings).filter(|child| visitor.enter(&child.id)).collect();
        let read = |child: Child| async { (child.read(reader).await, child) };
        let mut nodes = stream::iter(entered).map(read).buffered(read_ahead.max(1));
        while let Some((node, child)) = nodes.next().await {
            consume_budget().await;
            match node {
                Ok(node) => open.extend(expand(&child, node, visitor).await?),
                Err(error) => visitor.failed(&child.id, &child.span(), error)?,
            }
        }
    }
    Ok(())
}

/// Tells of a leaf's entries; an inner node's children, the first one last.
async fn expand(child: &Child, node: Node, visitor: &mut impl Visitor) -> Result<Vec<Child>> {
    if let Node::Leaf(entries) = node {
        visitor.leaf(&child.id, entries).await?;
        return Ok(Vec::new());
    }
    let mut children = child.children(node);
    children.reverse();
    Ok(children)
}
