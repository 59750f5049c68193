//! Reads the entries that are restored, a bounded number at a time.
//!
//! A window holds so many entries and pieces of files at most. A file whose
//! pieces don't fit goes on in the next window, so no file is too large.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};

use crate::blobs::BlobReader;
use crate::content::read_whole;
use crate::error::{Error, Result};
use crate::files::Metadata;
use crate::id::BlobId;
use crate::tree::{self, Entry, EntryKind, Key, Payload, Piece, Span};

/// Entries to a window.
const ENTRIES: usize = 8 << 10;

/// Pieces of files to a window.
const PIECES: usize = 16 << 10;

/// Leaves of the tree read ahead.
const LEAVES_AHEAD: usize = 8;

/// Nodes of a large file's sequence read ahead.
const NODES_AHEAD: usize = 4;

/// Metadata and targets of symlinks that are read at a time, where they are stored as chunks.
const CONCURRENCY: usize = 16;

/// The longest metadata that is read.
const METADATA_MAX: u64 = 1 << 20;

/// The longest target that a symlink may have.
const LINK_MAX: u64 = 64 << 10;

/// What a window holds, in the order of keys.
pub(super) enum Item {
    Entry(Box<Listed>),
    /// More of the large file that came last.
    Pieces {
        pieces: Vec<(u64, Piece)>,
        last: bool,
    },
    /// The large file that came last goes no further.
    Broken(Error),
    /// Entries after this key can't be read.
    Damaged(Option<Key>, Error),
}

/// An entry, with what is small of it at hand.
pub(super) struct Listed {
    /// Its path in the snapshot.
    pub(super) name: Key,
    pub(super) kind: EntryKind,
    pub(super) size: u64,
    pub(super) content: Content,
    pub(super) metadata: Result<Metadata>,
}

/// The bytes of an entry.
pub(super) enum Content {
    /// These.
    Bytes(bytes::Bytes),
    /// Those of these chunks and holes.
    Pieces(Vec<(u64, Piece)>),
    /// Pieces follow as items of their own; the id names them all.
    Later(BlobId),
    /// They can't be read.
    Broken(Error),
}

/// Reads windows.
pub(super) struct EntryReader {
    reader: Arc<BlobReader>,
    entries: BoxStream<'static, Result<(Key, Entry)>>,
    /// The pieces of a large file, as far as they haven't been read.
    large: Option<BoxStream<'static, Result<(u64, Piece)>>>,
    last: Option<Key>,
}

impl EntryReader {
    /// Reads what lies in `span` of the tree under `root`.
    pub(super) fn new(reader: &Arc<BlobReader>, root: &BlobId, span: Span) -> Self {
        let entries = tree::range(Arc::clone(reader), root, span, LEAVES_AHEAD).boxed();
        Self { reader: Arc::clone(reader), entries, large: None, last: None }
    }

    /// The next window; nothing after the last. A tree of which nothing can be read is an error.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Item>>> {
        let (mut items, mut unread) = (Vec::new(), Vec::new());
        let mut pieces = 0;
        while items.len() < ENTRIES && pieces < PIECES {
            if self.large.is_some() {
                let item = self.more(PIECES - pieces).await;
                if let Item::Pieces { pieces: more, .. } = &item {
                    pieces += more.len();
                }
                items.push(item);
                continue;
            }
            match self.entries.next().await {
                None => break,
                Some(Err(error @ (Error::Corrupt { .. } | Error::NotFound { .. } | Error::Unsupported { .. }))) => {
                    items.push(Item::Damaged(self.last.clone(), error));
                }
                Some(Err(error)) => return Err(error),
                Some(Ok((key, entry))) => {
                    self.last = Some(key.clone());
                    unread.extend(unread_parts(items.len(), &entry));
                    let item = self.item(key, entry);
                    if let Content::Pieces(list) = &item.content {
                        pieces += list.len();
                    }
                    items.push(Item::Entry(Box::new(item)));
                }
            }
        }
        if self.last.is_none()
            && let Some(Item::Damaged(_, error)) = items.pop_if(|item| matches!(item, Item::Damaged(..)))
        {
            return Err(error);
        }
        self.read_small(&mut items, unread).await;
        Ok(if items.is_empty() { None } else { Some(items) })
    }

    fn item(&mut self, name: Key, entry: Entry) -> Listed {
        let Entry { kind, size, content, metadata } = entry;
        let metadata = match &metadata {
            Payload::Inline(bytes) => decode(bytes),
            _ => Ok(Metadata::default()), // replaced by `read_small`
        };
        let content = match content {
            Payload::Inline(bytes) => Content::Bytes(bytes),
            _ if kind == EntryKind::Symlink => Content::Bytes(bytes::Bytes::new()), // likewise
            Payload::Pieces(pieces) => Content::Pieces(with_offsets(pieces)),
            Payload::Sequence(root) => {
                let pieces = tree::pieces(Arc::clone(&self.reader), &Payload::Sequence(root), 0, NODES_AHEAD);
                self.large = Some(pieces.boxed());
                Content::Later(root.root)
            }
        };
        Listed { name, kind, size, content, metadata }
    }

    /// Reads no more of the large file that came last, which can't be restored: its pieces end here.
    pub(super) fn leave_large(&mut self) {
        if self.large.is_some() {
            self.large = Some(stream::empty().boxed());
        }
    }

    /// Up to `limit` more pieces of the large file.
    async fn more(&mut self, limit: usize) -> Item {
        let mut pieces = Vec::new();
        while let Some(large) = &mut self.large {
            if pieces.len() >= limit {
                return Item::Pieces { pieces, last: false };
            }
            match large.next().await {
                Some(Ok(piece)) => pieces.push(piece),
                None => self.large = None,
                Some(Err(error)) => {
                    self.large = None;
                    return Item::Broken(error);
                }
            }
        }
        Item::Pieces { pieces, last: true }
    }

    /// Reads metadata and targets of symlinks that are too long to stand in their entries.
    async fn read_small(&self, items: &mut [Item], unread: Vec<(usize, Part, Payload)>) {
        let read = |(index, part, payload): (usize, Part, Payload)| async move {
            let (limit, what) = match part {
                Part::Metadata => (METADATA_MAX, "an entry's metadata"),
                Part::Target => (LINK_MAX, "a symlink"),
            };
            (index, part, read_whole(&self.reader, &payload, limit, what).await)
        };
        let mut parts = stream::iter(unread).map(read).buffer_unordered(CONCURRENCY);
        while let Some((index, part, bytes)) = parts.next().await {
            let Some(Item::Entry(listed)) = items.get_mut(index) else { continue };
            match part {
                Part::Metadata => listed.metadata = bytes.and_then(|bytes| decode(&bytes)),
                Part::Target => listed.content = bytes.map_or_else(Content::Broken, Content::Bytes),
            }
        }
    }
}

/// A part of an entry that is small and yet stored as chunks.
enum Part {
    Metadata,
    Target,
}

fn unread_parts(index: usize, entry: &Entry) -> impl Iterator<Item = (usize, Part, Payload)> + use<> {
    let is_apart = |payload: &Payload| !matches!(payload, Payload::Inline(_));
    let metadata = is_apart(&entry.metadata).then(|| (index, Part::Metadata, entry.metadata.clone()));
    let is_target = entry.kind == EntryKind::Symlink && is_apart(&entry.content);
    metadata.into_iter().chain(is_target.then(|| (index, Part::Target, entry.content.clone())))
}

fn decode(bytes: &[u8]) -> Result<Metadata> {
    if bytes.is_empty() { Ok(Metadata::default()) } else { Metadata::decode(bytes, "an entry's metadata") }
}

fn with_offsets(pieces: Vec<Piece>) -> Vec<(u64, Piece)> {
    let mut start = 0u64;
    let place = |piece: Piece| {
        let end = start.saturating_add(piece.length());
        (std::mem::replace(&mut start, end), piece)
    };
    pieces.into_iter().map(place).collect()
}
