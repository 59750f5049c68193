//! Nodes: the stored form of both trees, and what is checked of it.
//!
//! ```text
//! form      u8       the level, 0 to 31; plus 0x80 in the tree of a sequence
//! items     list     snapshot tree, level 0:  (key, entry)
//!                    snapshot tree, above:    (first key, id, number of entries below)
//!                    sequence, level 0:       piece
//!                    sequence, above:         (id, number of bytes below)
//! ```
//!
//! A node's id is computed by whoever stores it, and verified by whoever reads
//! it. What is verified here is that the node is what its parent says: level,
//! first key, upper bound, count. So a forged node can't make a reader loop,
//! overflow, or return keys out of order.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::build::{ENTRY_MAX, encode_item};
use super::entry::{Entry, Piece, check_pieces};
use super::key::Key;
use super::span::Span;
use crate::codec::{Decode, Encode, decode, encode_into};
use crate::error::{Error, Result};
use crate::id::BlobId;

/// The highest level of a node. A tree of sound parameters never comes near it.
pub(super) const LEVEL_MAX: u8 = 31;

/// No node is longer, whatever the parameters.
pub(crate) const NODE_MAX: usize = 1 << 20;

/// Set in the first byte of a node of a sequence.
pub(super) const SEQUENCE: u8 = 0x80;

/// Fetches nodes by their ids; what comes back has been verified against the id.
pub(crate) trait ReadNode: Send + Sync {
    /// The node's bytes.
    fn read_node(&self, id: &BlobId) -> impl Future<Output = Result<Bytes>> + Send;
}

impl<R: ReadNode> ReadNode for &R {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        R::read_node(self, id).await
    }
}

impl<R: ReadNode> ReadNode for Arc<R> {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        R::read_node(self, id).await
    }
}

/// Takes nodes to be stored.
pub(crate) trait WriteNode {
    /// Takes one node and says under which id it will be found. The same node may come again.
    fn write_node(&mut self, node: Vec<u8>) -> Result<BlobId>;
}

impl<W: WriteNode + ?Sized> WriteNode for &mut W {
    fn write_node(&mut self, node: Vec<u8>) -> Result<BlobId> {
        W::write_node(self, node)
    }
}

/// An inner node's reference to a node one level below.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct NodeRef {
    /// The smallest key in or below the node.
    pub(crate) first: Key,
    /// The node.
    pub(crate) id: BlobId,
    /// The number of entries in or below the node.
    pub(crate) entries: u64,
}

/// A reference to a node of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SequenceRef {
    /// The node.
    pub(crate) id: BlobId,
    /// The number of bytes that it describes.
    pub(crate) length: u64,
}

/// A decoded node, sound by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// Level 0 of a snapshot's tree.
    Leaf(Vec<(Key, Entry)>),
    /// A level above.
    Inner {
        /// From 1.
        level: u8,
        /// At least one.
        children: Vec<NodeRef>,
    },
    /// Level 0 of a sequence.
    Pieces(Vec<Piece>),
    /// A level above.
    Lengths {
        /// From 1.
        level: u8,
        /// At least one.
        children: Vec<SequenceRef>,
    },
}

/// Decodes a node and checks all that can be seen from it alone; `object` names it in errors.
///
/// Never panics, and needs memory in proportion to `bytes`, which may come from anywhere.
pub(crate) fn decode_node(bytes: &[u8], object: impl fmt::Display) -> Result<Node> {
    if bytes.len() > NODE_MAX {
        return Err(Error::corrupt(object, format!("a node of {} bytes is too long", bytes.len())));
    }
    let Some((&form, items)) = bytes.split_first() else {
        return Err(Error::corrupt(object, "a node of no bytes"));
    };
    let level = form & !SEQUENCE;
    if level > LEVEL_MAX {
        return Err(Error::corrupt(object, format!("a node of level {level}")));
    }
    let node = match (form & SEQUENCE == 0, level) {
        (true, 0) => Node::Leaf(decode(items, &object)?),
        (true, _) => Node::Inner { level, children: decode(items, &object)? },
        (false, 0) => Node::Pieces(decode(items, &object)?),
        (false, _) => Node::Lengths { level, children: decode(items, &object)? },
    };
    let excess = match &node {
        // Only such a node has room for too long an entry.
        Node::Leaf(entries) if bytes.len() > ENTRY_MAX => {
            let is_long = |(key, entry): &(Key, Entry)| {
                let mut encoded = Vec::new();
                encode_item(key, entry, &mut encoded);
                encoded.len() > ENTRY_MAX
            };
            entries.iter().any(is_long).then_some("an entry is longer than 512 KiB")
        }
        _ => None,
    };
    match node.problem().or(excess) {
        Some(problem) => Err(Error::corrupt(object, problem)),
        None => Ok(node),
    }
}

/// Whether these bytes are a node of a snapshot's tree that refers to others.
pub(crate) fn has_children(node: &[u8]) -> bool {
    node.first().is_some_and(|form| (1..=LEVEL_MAX).contains(form))
}

/// The nodes that an inner node of a snapshot's tree refers to, in order; none for any other.
pub(crate) fn children(node: &[u8]) -> Result<Vec<BlobId>> {
    match decode_node(node, "a node")? {
        Node::Inner { children, .. } => Ok(children.into_iter().map(|child| child.id).collect()),
        _ => Ok(Vec::new()),
    }
}

/// Puts a node together from its already encoded items.
pub(super) fn encode_node(form: u8, count: usize, items: &[u8]) -> Vec<u8> {
    let mut node = Vec::with_capacity(items.len() + 10);
    node.push(form);
    encode_into(&(count as u64), &mut node);
    node.extend_from_slice(items);
    node
}

impl Node {
    fn problem(&self) -> Option<&'static str> {
        match self {
            // Empty is right for the root of an empty tree; see `Child::check`.
            Node::Leaf(entries) if !entries.is_sorted_by(|(a, _), (b, _)| a < b) => Some("its keys are not in order"),
            Node::Leaf(entries) => entries.iter().find_map(|(_, entry)| entry.excess()),
            Node::Inner { children, .. } => {
                let total = children.iter().try_fold(0, |sum: u64, child| sum.checked_add(child.entries));
                if children.is_empty() || children.iter().any(|child| child.entries == 0) {
                    Some("it has no children, or one of no entries")
                } else if !children.is_sorted_by(|a, b| a.first < b.first) {
                    Some("its keys are not in order")
                } else {
                    total.is_none().then_some("its numbers of entries overflow")
                }
            }
            Node::Pieces(pieces) if pieces.is_empty() => Some("it has no pieces"),
            Node::Pieces(pieces) => check_pieces(pieces).err(),
            Node::Lengths { children, .. } => {
                let total = children.iter().try_fold(0, |sum: u64, child| sum.checked_add(child.length));
                if children.is_empty() || children.iter().any(|child| child.length == 0) {
                    Some("it has no children, or an empty one")
                } else {
                    total.is_none().then_some("its lengths overflow")
                }
            }
        }
    }

    /// The first byte of its stored form.
    pub(super) fn form(&self) -> u8 {
        match self {
            Node::Leaf(_) => 0,
            Node::Inner { level, .. } => *level,
            Node::Pieces(_) => SEQUENCE,
            Node::Lengths { level, .. } => SEQUENCE | level,
        }
    }

    /// The number of entries, or of bytes in a sequence, in or below it.
    pub(crate) fn total(&self) -> u64 {
        // The sums were seen not to overflow when the node was decoded.
        match self {
            Node::Leaf(entries) => entries.len() as u64,
            Node::Inner { children, .. } => children.iter().map(|child| child.entries).sum(),
            Node::Pieces(pieces) => pieces.iter().map(Piece::length).sum(),
            Node::Lengths { children, .. } => children.iter().map(|child| child.length).sum(),
        }
    }

    /// Its first and last key; none in an empty leaf and in a sequence.
    fn ends(&self) -> Option<(&Key, &Key)> {
        match self {
            Node::Leaf(entries) => Some((&entries.first()?.0, &entries.last()?.0)),
            Node::Inner { children, .. } => Some((&children.first()?.first, &children.last()?.first)),
            Node::Pieces(_) | Node::Lengths { .. } => None,
        }
    }
}

/// A node of a snapshot's tree that hasn't been read, and all that is known of it.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) id: BlobId,
    pub(super) level: u8,
    pub(super) first: Key,
    /// The first key of the next node of its level, if there is one.
    pub(super) upper: Option<Key>,
    pub(super) entries: u64,
}

impl Child {
    /// Decodes the node, and checks that it is what its parent says.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Node> {
        let object = format_args!("node {}", self.id);
        let node = decode_node(bytes, object)?;
        let (first, last) = node.ends().ok_or_else(|| Error::corrupt(object, "it is empty, or not of this tree"))?;
        let problem = if node.form() != self.level {
            "its level is not the one its parent says"
        } else if *first != self.first {
            "its first key is not the one its parent says"
        } else if self.upper.as_ref().is_some_and(|upper| last >= upper) {
            "its last key lies in the next node's range"
        } else if node.total() != self.entries {
            "its number of entries is not the one its parent says"
        } else {
            return Ok(node);
        };
        Err(Error::corrupt(object, problem))
    }

    pub(super) async fn read(&self, reader: &impl ReadNode) -> Result<Node> {
        self.decode(&reader.read_node(&self.id).await?)
    }

    /// The keys that may stand in or below the node.
    pub(super) fn span(&self) -> Span {
        let position = |key: &Key| Bytes::copy_from_slice(key.as_encoded());
        Span { start: position(&self.first), end: self.upper.as_ref().map(position) }
    }

    /// The reference that a parent holds.
    pub(super) fn to_ref(&self) -> NodeRef {
        NodeRef { first: self.first.clone(), id: self.id, entries: self.entries }
    }

    /// The children of `self`, which `node` is the content of; none if it is a leaf.
    pub(super) fn children(&self, node: Node) -> Vec<Child> {
        let Node::Inner { level, children } = node else { return Vec::new() };
        let uppers: Vec<_> = children.iter().skip(1).map(|next| next.first.clone()).collect();
        let uppers = uppers.into_iter().map(Some).chain([self.upper.clone()]);
        let children = children.into_iter().zip(uppers).map(|(child, upper)| Child {
            id: child.id,
            level: level.saturating_sub(1),
            first: child.first,
            upper,
            entries: child.entries,
        });
        children.collect()
    }
}

/// Reads the root of a snapshot's tree; none if the tree is empty.
pub(super) async fn read_root(reader: &impl ReadNode, root: &BlobId) -> Result<Option<(Child, Node)>> {
    let node = decode_node(&reader.read_node(root).await?, format_args!("node {root}"))?;
    match (&node, node.ends()) {
        (Node::Leaf(_), None) => Ok(None),
        (_, None) => Err(Error::corrupt(format_args!("node {root}"), "it belongs to a sequence")),
        (_, Some((first, _))) => {
            let (level, first, entries) = (node.form(), first.clone(), node.total());
            Ok(Some((Child { id: *root, level, first, upper: None, entries }, node)))
        }
    }
}
