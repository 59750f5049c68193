//! The pieces of large payloads.
//!
//! A few pieces stand in the entry. More stand in a tree of nodes that hold
//! lengths but no offsets, so that bytes inserted near the start of a file change
//! a path, not all that follows. A node ends before a piece whose keyed hash lies
//! under a threshold, but not before it has a quarter of the mean number of pieces,
//! and at the latest when it has four times as many. A sequence is always built
//! from its start, so a limit that counts from the left does no harm here: equal
//! sequences have equal roots, and nodes agree again soon after a difference.

use std::collections::HashSet;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::task::coop::consume_budget;

use super::entry::{Payload, Piece, SequenceRoot};
use super::node::{LEVEL_MAX, Node, ReadNode, SEQUENCE, SequenceRef, WriteNode, decode_node, encode_node};
use super::split::Splitter;
use crate::codec::{Encode, encode_into};
use crate::error::{Error, Result};
use crate::id::BlobId;

/// Inner nodes that are read ahead on each level.
const INNER_AHEAD: usize = 2;

/// Makes the payload of a file from its pieces, in order.
pub(crate) struct SequenceBuilder {
    splitter: Splitter,
    length: u64,
    /// May grow as long as equal pieces follow.
    last: Option<Piece>,
    /// As long as an entry can hold them.
    pieces: Vec<Piece>,
    /// Afterwards; from the pieces up.
    levels: Vec<Level>,
}

/// The node of one level that is being filled.
#[derive(Default)]
struct Level {
    items: usize,
    length: u64,
    encoded: Vec<u8>,
    nodes: u64,
    last: Option<SequenceRef>,
}

impl SequenceBuilder {
    /// Begins an empty payload.
    pub(crate) fn new(splitter: Splitter) -> Self {
        Self { splitter, length: 0, last: None, pieces: Vec::new(), levels: Vec::new() }
    }

    /// Adds a piece, which mustn't be empty.
    pub(crate) fn push(&mut self, piece: Piece, out: &mut impl WriteNode) -> Result<()> {
        let length = self.length.checked_add(piece.length()).filter(|_| piece.length() > 0);
        self.length = length.ok_or_else(|| Error::invalid("piece", "it is empty, or makes its file too long"))?;
        let Some(mut last) = self.last else {
            self.last = Some(piece);
            return Ok(());
        };
        let rest = last.absorb(piece);
        self.last = Some(rest.unwrap_or(last));
        if rest.is_some() { self.settle(last, out) } else { Ok(()) }
    }

    /// Stores what is left; the payload that an entry carries.
    pub(crate) fn finish(mut self, out: &mut impl WriteNode) -> Result<Payload> {
        if let Some(last) = self.last.take() {
            self.settle(last, out)?;
        }
        if self.length == 0 {
            return Ok(Payload::default());
        }
        if self.levels.is_empty() {
            return Ok(Payload::Pieces(self.pieces));
        }
        let mut height = 0;
        loop {
            self.end_node(height, out)?;
            let level = self.levels.get(usize::from(height)).filter(|level| level.nodes == 1);
            if let Some(SequenceRef { id, length }) = level.and_then(|level| level.last) {
                return Ok(Payload::Sequence(SequenceRoot { root: id, length, height }));
            }
            height += 1;
        }
    }

    /// Takes a piece that won't grow any more.
    fn settle(&mut self, piece: Piece, out: &mut impl WriteNode) -> Result<()> {
        if self.levels.is_empty() {
            self.pieces.push(piece);
            if self.pieces.len() > self.splitter.parameters().pieces_max as usize {
                for piece in std::mem::take(&mut self.pieces) {
                    self.add_piece(&piece, out)?;
                }
            }
            return Ok(());
        }
        self.add_piece(&piece, out)
    }

    fn add_piece(&mut self, piece: &Piece, out: &mut impl WriteNode) -> Result<()> {
        match piece {
            Piece::Chunk { id, .. } => self.add(0, id.as_bytes(), piece.length(), piece, out),
            Piece::Hole { length } => self.add(0, &length.to_le_bytes(), *length, piece, out),
        }
    }

    /// Adds an item of a level, before which a node ends if `content` says so.
    fn add(
        &mut self,
        level: u8,
        content: &[u8],
        length: u64,
        item: &impl Encode,
        out: &mut impl WriteNode,
    ) -> Result<()> {
        let index = usize::from(level);
        if index == self.levels.len() {
            if level > LEVEL_MAX {
                return Err(Error::invalid("tree parameters", "they make a sequence too high"));
            }
            self.levels.push(Level::default());
        }
        if self.splitter.ends_sequence_node(SEQUENCE | level, content, self.levels[index].items) {
            self.end_node(level, out)?;
        }
        let level = &mut self.levels[index];
        encode_into(item, &mut level.encoded);
        level.items += 1;
        level.length += length;
        Ok(())
    }

    /// Stores the node that is being filled, and refers to it one level up.
    fn end_node(&mut self, level: u8, out: &mut impl WriteNode) -> Result<()> {
        let Some(open) = self.levels.get_mut(usize::from(level)).filter(|open| open.items > 0) else { return Ok(()) };
        let id = out.write_node(encode_node(SEQUENCE | level, open.items, &open.encoded))?;
        let node = SequenceRef { id, length: open.length };
        (open.items, open.length) = (0, 0);
        open.encoded.clear();
        open.nodes += 1;
        open.last = Some(node);
        self.add(level + 1, id.as_bytes(), node.length, &node, out)
    }
}

/// A node of a sequence that hasn't been read.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: BlobId,
    level: u8,
    offset: u64,
    length: u64,
}

/// What a node of a sequence holds, with offsets.
enum Content {
    Pieces(Vec<(u64, Piece)>),
    Places(Vec<Place>),
}

impl Place {
    fn root(root: &SequenceRoot) -> Self {
        Self { id: root.root, level: root.height, offset: 0, length: root.length }
    }

    /// Reads the node, and checks that it is what its parent says.
    async fn read(self, reader: &impl ReadNode) -> Result<Content> {
        self.decode(&reader.read_node(&self.id).await?)
    }

    fn decode(self, bytes: &Bytes) -> Result<Content> {
        let object = format_args!("node {}", self.id);
        let node = decode_node(bytes, object)?;
        if node.form() != SEQUENCE | self.level || node.total() != self.length {
            return Err(Error::corrupt(object, "its level or length is not the one its parent says"));
        }
        // The sum of the lengths is that of this node, and no offset and length of a node overflow.
        let mut offset = self.offset;
        let mut advance = |length: u64| {
            let start = offset;
            offset = offset.saturating_add(length);
            start
        };
        Ok(match node {
            Node::Pieces(pieces) => {
                Content::Pieces(pieces.into_iter().map(|piece| (advance(piece.length()), piece)).collect())
            }
            Node::Lengths { level, children } => {
                let places = children.into_iter().map(|SequenceRef { id, length }| {
                    let offset = advance(length);
                    Place { id, level: level.saturating_sub(1), offset, length }
                });
                Content::Places(places.collect())
            }
            Node::Leaf(_) | Node::Inner { .. } => return Err(Error::corrupt(object, "it is not of a sequence")),
        })
    }

    fn ends_after(&self, offset: u64) -> bool {
        self.offset.saturating_add(self.length) > offset
    }
}

/// The pieces of a payload from the one in which `offset` lies, each with the offset at which it begins.
///
/// Pieces are whole, so the first may begin before `offset`. Nothing before it is
/// read, and up to `read_ahead` nodes at a time after it. Inline payloads have none.
pub(crate) fn pieces<'a, R: ReadNode + 'a>(
    reader: R,
    payload: &Payload,
    offset: u64,
    read_ahead: usize,
) -> BoxStream<'a, Result<(u64, Piece)>> {
    match payload {
        Payload::Inline(_) => stream::empty().boxed(),
        Payload::Pieces(pieces) => {
            let mut start = 0u64;
            let pieces = pieces.iter().map(|piece| {
                let end = start.saturating_add(piece.length());
                (std::mem::replace(&mut start, end), *piece)
            });
            stream::iter(from_offset(pieces.collect(), offset)).boxed()
        }
        Payload::Sequence(root) => pieces_under(reader, Place::root(root), offset, read_ahead.max(1)),
    }
}

/// One stage a level, as in [`super::read::range`].
fn pieces_under<'a, R: ReadNode + 'a>(
    reader: R,
    root: Place,
    offset: u64,
    read_ahead: usize,
) -> BoxStream<'a, Result<(u64, Piece)>> {
    let reader = std::sync::Arc::new(reader);
    let mut places: BoxStream<'a, Result<Place>> = stream::iter(root.ends_after(offset).then_some(Ok(root))).boxed();
    for level in (1..=root.level.min(LEVEL_MAX)).rev() {
        let reader = reader.clone();
        let ahead = if level == 1 { read_ahead.min(INNER_AHEAD) } else { INNER_AHEAD };
        let nodes = places.map(move |place| read_place(reader.clone(), place)).buffered(ahead);
        let below = nodes.map_ok(move |content| {
            let places = if let Content::Places(places) = content { places } else { Vec::new() };
            stream::iter(places.into_iter().filter(move |place| place.ends_after(offset)).map(Ok))
        });
        places = below.try_flatten().boxed();
    }
    let leaves = places.map(move |place| read_place(reader.clone(), place)).buffered(read_ahead);
    let pieces = leaves.map_ok(move |content| match content {
        Content::Pieces(pieces) => stream::iter(from_offset(pieces, offset)),
        Content::Places(_) => stream::iter(Vec::new()),
    });
    pieces.try_flatten().boxed()
}

async fn read_place<R: ReadNode>(reader: R, place: Result<Place>) -> Result<Content> {
    place?.read(&reader).await
}

fn from_offset(mut pieces: Vec<(u64, Piece)>, offset: u64) -> Vec<Result<(u64, Piece)>> {
    let first = pieces.partition_point(|(start, piece)| start.saturating_add(piece.length()) <= offset);
    pieces.drain(..first.min(pieces.len()));
    pieces.into_iter().map(Ok).collect()
}

/// What a walk over all nodes of a sequence is told.
pub(crate) trait SequenceVisitor {
    /// A node comes next; false to leave out it and all below it, as when it was seen before.
    fn enter(&mut self, id: &BlobId) -> bool;

    /// A piece of a node that was entered.
    fn piece(&mut self, _piece: &Piece) {}

    /// All pieces of a node that was entered; by default they are told one by one.
    fn pieces(&mut self, pieces: Vec<Piece>) -> impl Future<Output = Result<()>> + Send {
        pieces.iter().for_each(|piece| self.piece(piece));
        std::future::ready(Ok(()))
    }

    /// A node can't be had, or isn't what its parent says. An error ends the walk with it.
    fn failed(&mut self, id: &BlobId, error: Error) -> Result<()>;
}

/// Walks a sequence depth-first, up to `read_ahead` nodes being read at a time.
///
/// A node that stands in it several times is told once: a few hundred stored bytes can stand for any number of pieces.
pub(crate) async fn visit_sequence(
    reader: &impl ReadNode,
    root: &SequenceRoot,
    read_ahead: usize,
    visitor: &mut impl SequenceVisitor,
) -> Result<()> {
    let mut open = vec![vec![Place::root(root)]];
    // What the parents say counts as well: a node may be right under one and wrong under another.
    let mut seen = HashSet::new();
    while let Some(siblings) = open.pop() {
        let is_new = |place: &Place| seen.insert((place.id, place.level, place.length));
        let entered: Vec<_> = siblings.into_iter().filter(is_new).filter(|place| visitor.enter(&place.id)).collect();
        let read = |place: Place| async move { (place.id, place.read(reader).await) };
        let mut nodes = stream::iter(entered).map(read).buffered(read_ahead.max(1));
        while let Some((id, content)) = nodes.next().await {
            // Nodes may all be at hand, and others want to go on, or to be told that nobody waits any more.
            consume_budget().await;
            match content {
                Ok(Content::Pieces(pieces)) => {
                    visitor.pieces(pieces.into_iter().map(|(_, piece)| piece).collect()).await?;
                }
                Ok(Content::Places(places)) => open.push(places),
                Err(error) => visitor.failed(&id, error)?,
            }
        }
    }
    Ok(())
}
