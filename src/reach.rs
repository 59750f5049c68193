//! Everything that a tree reaches: its nodes, the nodes of its large payloads, and chunks.
//!
//! Owns the walk, and storing again what a writer may not rely on. What else is
//! done with the blobs, and which are left out, is the visitor's business.

use std::collections::BTreeSet;

use crate::blobs::{BlobReader, BlobWriter, Treatment};
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::index::Index;
use crate::pack::{BlockKind, Encoding};
use crate::tree::{Entry, Key, Payload, Piece, ReadNode, SequenceVisitor, Span, Visitor, visit_nodes, visit_sequence};

/// Nodes read at a time.
const READ_AHEAD: usize = 16;

/// What a walk over all blobs of a tree is told.
pub(crate) trait BlobVisitor: Send {
    /// A node comes next; false to leave out it and all below it, as when it was seen before.
    fn node(&mut self, id: &BlobId) -> Result<bool>;

    /// Chunks come next, each of them once.
    fn chunks(&mut self, ids: Vec<BlobId>) -> impl Future<Output = Result<()>> + Send;

    /// A node can't be had; an error ends the walk with it. `span` are the keys of which nothing is known then.
    fn failed(&mut self, id: &BlobId, span: &Span, error: Error) -> Result<()>;

    /// An entry is of a kind that isn't known, so that what it refers to isn't known either; an error ends the walk.
    fn unknown(&mut self, error: Error) -> Result<()> {
        Err(error)
    }
}

/// Walks over all blobs of the tree under `root`.
pub(crate) async fn visit_blobs(reader: &impl ReadNode, root: &BlobId, visitor: &mut impl BlobVisitor) -> Result<()> {
    let mut walk = Walk { reader, visitor, refused: None };
    visit_nodes(reader, root, READ_AHEAD, &mut walk).await?;
    walk.refused.map_or(Ok(()), Err)
}

struct Walk<'a, R, V> {
    reader: &'a R,
    visitor: &'a mut V,
    /// Why a node wasn't entered, where that was an error.
    refused: Option<Error>,
}

impl<R, V: BlobVisitor> Walk<'_, R, V> {
    fn enter_node(&mut self, id: &BlobId) -> bool {
        if self.refused.is_some() {
            return false;
        }
        self.visitor.node(id).unwrap_or_else(|error| {
            self.refused = Some(error);
            false
        })
    }
}

impl<R: ReadNode, V: BlobVisitor> Visitor for Walk<'_, R, V> {
    fn enter(&mut self, id: &BlobId) -> bool {
        self.enter_node(id)
    }

    async fn leaf(&mut self, _: &BlobId, entries: Vec<(Key, Entry)>) -> Result<()> {
        for (key, entry) in &entries {
            entry.require_known(key).or_else(|error| self.visitor.unknown(error))?;
        }
        let mut chunks = BTreeSet::new();
        for payload in entries.iter().flat_map(|(_, entry)| [&entry.content, &entry.metadata]) {
            match payload {
                Payload::Inline(_) => {}
                Payload::Pieces(pieces) => chunks.extend(pieces.iter().filter_map(chunk)),
                Payload::Sequence(root) => {
                    let reader = self.reader;
                    visit_sequence(reader, root, READ_AHEAD, &mut Sequence(self)).await?;
                }
            }
        }
        self.visitor.chunks(chunks.into_iter().collect()).await
    }

    fn failed(&mut self, id: &BlobId, span: &Span, error: Error) -> Result<()> {
        self.visitor.failed(id, span, error)
    }
}

/// The same walk through one sequence.
struct Sequence<'a, 'b, R, V>(&'a mut Walk<'b, R, V>);

impl<R: ReadNode, V: BlobVisitor> SequenceVisitor for Sequence<'_, '_, R, V> {
    fn enter(&mut self, id: &BlobId) -> bool {
        self.0.enter_node(id)
    }

    async fn pieces(&mut self, pieces: Vec<Piece>) -> Result<()> {
        let chunks: BTreeSet<_> = pieces.iter().filter_map(chunk).collect();
        self.0.visitor.chunks(chunks.into_iter().collect()).await
    }

    fn failed(&mut self, id: &BlobId, error: Error) -> Result<()> {
        self.0.visitor.failed(id, &Span::all(), error)
    }
}

fn chunk(piece: &Piece) -> Option<BlobId> {
    match piece {
        Piece::Chunk { id, .. } => Some(*id),
        Piece::Hole { .. } => None,
    }
}

/// Stores a blob again, as it was: read from wherever it is.
pub(crate) async fn store_again(
    reader: &BlobReader,
    index: &Index,
    kind: BlockKind,
    id: &BlobId,
    writer: &mut BlobWriter,
) -> Result<()> {
    let treatment = match index.find_local(id)? {
        Some(location) if location.place.encoding == Encoding::Raw => Treatment::Raw,
        _ => Treatment::Compress,
    };
    let blob = reader.read(kind, id).await?;
    writer.add(kind, *id, blob, treatment).await?;
    if treatment == Treatment::Raw { writer.end_file().await } else { Ok(()) }
}

/// Makes sure that a writer may rely on every blob of a tree, under the registration that it writes under now: what it
/// may not is stored again.
///
/// # Errors
/// What can't be read any more.
pub(crate) async fn secure(reader: &BlobReader, index: &Index, root: &BlobId, writer: &mut BlobWriter) -> Result<()> {
    let mut securing = Securing { reader, index, writer, seen: BTreeSet::new() };
    visit_blobs(reader, root, &mut securing).await?;
    let Securing { seen, writer, .. } = securing;
    for id in seen {
        if !writer.may_rely_on(&id).await? {
            store_again(reader, index, BlockKind::Nodes, &id, writer).await?;
        }
    }
    Ok(())
}

struct Securing<'a> {
    reader: &'a BlobReader,
    index: &'a Index,
    writer: &'a mut BlobWriter,
    /// The nodes; they are stored after the walk.
    seen: BTreeSet<BlobId>,
}

impl BlobVisitor for Securing<'_> {
    fn node(&mut self, id: &BlobId) -> Result<bool> {
        Ok(self.seen.insert(*id))
    }

    async fn chunks(&mut self, ids: Vec<BlobId>) -> Result<()> {
        for id in ids {
            if !self.writer.may_rely_on(&id).await? {
                store_again(self.reader, self.index, BlockKind::Data, &id, self.writer).await?;
            }
        }
        Ok(())
    }

    fn failed(&mut self, _: &BlobId, _: &Span, error: Error) -> Result<()> {
        Err(error)
    }
}
