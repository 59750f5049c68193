//! Entries: what a snapshot knows of one path.
//!
//! The tree gives no meaning to metadata; the layer above encodes it into a
//! payload. A payload has one form for one content (see [`check_pieces`]), so
//! that equal files have equal entries.
//!
//! ```text
//! entry      kind, size, content payload, metadata payload;
//!            or a kind above 6 and bytes that only who knows that kind understands
//! kind       0 file, 1 folder, 2 symbolic link, 3 pipe, 4 socket,
//!            5 character device and 6 block device with their major and minor numbers
//! payload    0 and bytes, 1 and a list of pieces, or 2 and a sequence's root, length and height
//! piece      0, chunk id, length, repetitions; or 1, length of a hole
//! ```
//! So a reader skips an entry of a kind that it doesn't know, and its neighbours
//! stay readable; a writer keeps it as it is. A new form of payload or piece
//! comes with a new kind of entry.

use bytes::Bytes;

use super::key::Key;
use super::node::LEVEL_MAX;
use crate::codec::{Decode, DecodeError, Decoder, Encode, EncodeError, Encoder, impl_borrow_decode};
use crate::error::{Error, Result as CrateResult};
use crate::id::BlobId;

/// No chunk is longer, whatever the repository's parameters.
pub(super) const CHUNK_MAX: u32 = 1 << 20;

/// No symlink's target is longer, in bytes.
const LINK_MAX: u64 = 64 << 10;

/// What is stored at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of thing it is.
    pub kind: EntryKind,
    /// The length of its content in bytes.
    pub size: u64,
    /// Its bytes: those of a file, or the target of a symbolic link.
    pub content: Payload,
    /// Owner, mode, times and so on, in a form that the tree doesn't know.
    pub metadata: Payload,
}

impl Entry {
    /// An entry whose size is that of its content.
    pub fn new(kind: EntryKind, content: Payload, metadata: Payload) -> Self {
        Self { kind, size: content.length(), content, metadata }
    }

    /// Refuses an entry that this build doesn't understand, which is at `key`.
    pub(crate) fn require_known(&self, key: &Key) -> CrateResult<()> {
        self.kind.require_known(key)
    }

    /// What makes this entry too large, though its parts may be sound.
    pub(super) fn excess(&self) -> Option<&'static str> {
        (self.kind == EntryKind::Symlink && self.size > LINK_MAX).then_some("a symlink's target is longer than 64 KiB")
    }

    /// What makes this entry impossible.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if let EntryKind::Unknown { number } = self.kind {
            let is_opaque = matches!(self.content, Payload::Inline(_)) && self.metadata == Payload::default();
            if number <= KNOWN_MAX || !is_opaque {
                return Some("an entry of unknown kind is made up");
            }
        }
        let problem = self.content.problem().or_else(|| self.metadata.problem()).or_else(|| self.excess());
        problem.or_else(|| (self.size != self.content.length()).then_some("an entry's size is not that of its content"))
    }
}

/// The highest number of a kind that this build knows.
const KNOWN_MAX: u32 = 6;

/// What kind of thing an entry describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file, or a record.
    File,
    /// A folder.
    Folder,
    /// A symbolic link; its content is the target.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice {
        /// The driver.
        major: u32,
        /// The device.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The driver.
        major: u32,
        /// The device.
        minor: u32,
    },
    /// Something that needs a newer version of this library; its content is all of its stored form.
    Unknown {
        /// The number of its kind, which this build doesn't know.
        number: u32,
    },
}

impl EntryKind {
    /// Refuses a kind that this build doesn't know, of an entry at `key`.
    pub(crate) fn require_known(self, key: &Key) -> CrateResult<()> {
        match self {
            EntryKind::Unknown { number } => {
                let reason = format!("it is an entry of unknown kind {number}, and needs a newer version");
                Err(Error::unsupported(key, reason))
            }
            _ => Ok(()),
        }
    }

    /// Its number, and the numbers of a device.
    fn numbers(self) -> (u32, Option<(u32, u32)>) {
        match self {
            EntryKind::File => (0, None),
            EntryKind::Folder => (1, None),
            EntryKind::Symlink => (2, None),
            EntryKind::Fifo => (3, None),
            EntryKind::Socket => (4, None),
            EntryKind::CharDevice { major, minor } => (5, Some((major, minor))),
            EntryKind::BlockDevice { major, minor } => (6, Some((major, minor))),
            EntryKind::Unknown { number } => (number, None),
        }
    }

    fn decode<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(match u32::decode(decoder)? {
            0 => EntryKind::File,
            1 => EntryKind::Folder,
            2 => EntryKind::Symlink,
            3 => EntryKind::Fifo,
            4 => EntryKind::Socket,
            5 => EntryKind::CharDevice { major: u32::decode(decoder)?, minor: u32::decode(decoder)? },
            6 => EntryKind::BlockDevice { major: u32::decode(decoder)?, minor: u32::decode(decoder)? },
            number => EntryKind::Unknown { number },
        })
    }
}

/// Where bytes that belong to an entry are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Here; also the one form of no bytes at all.
    Inline(Bytes),
    /// In these chunks and holes, in order.
    Pieces(Vec<Piece>),
    /// In more chunks and holes than an entry should carry, listed by a tree.
    Sequence(SequenceRoot),
}

impl Payload {
    /// The length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Pieces(pieces) => pieces.iter().fold(0, |sum: u64, piece| sum.saturating_add(piece.length())),
            Payload::Sequence(root) => root.length,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length() == 0
    }

    /// What makes this payload impossible, or not the one form of its content.
    fn problem(&self) -> Option<&'static str> {
        match self {
            Payload::Inline(_) => None,
            Payload::Pieces(pieces) if pieces.is_empty() => Some("a payload has no pieces"),
            Payload::Pieces(pieces) => check_pieces(pieces).err(),
            Payload::Sequence(root) if root.length == 0 => Some("a sequence is empty"),
            Payload::Sequence(root) if root.height > LEVEL_MAX => Some("a sequence is too high"),
            Payload::Sequence(_) => None,
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Payload::Inline(Bytes::new())
    }
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        Payload::Inline(bytes.into())
    }
}

/// The root of a tree that lists the pieces of a large payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SequenceRoot {
    /// Its node.
    pub root: BlobId,
    /// The number of bytes that it describes.
    pub length: u64,
    /// The level of its root; 0 is a list of pieces.
    pub height: u8,
}

/// A part of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Piece {
    /// One chunk, or several equal ones in a row.
    Chunk {
        /// Which chunk.
        id: BlobId,
        /// Its length in bytes.
        length: u32,
        /// How often it follows itself; at least once.
        repeat: u32,
    },
    /// Zeros that nothing is stored for.
    Hole {
        /// How many.
        length: u64,
    },
}

impl Piece {
    /// The number of bytes that it describes, repetitions included.
    pub fn length(&self) -> u64 {
        match self {
            // Two 32-bit factors can't overflow.
            Piece::Chunk { length, repeat, .. } => u64::from(*length) * u64::from(*repeat),
            Piece::Hole { length } => *length,
        }
    }

    /// Takes in `next` where both can be said as one; what is left of `next` otherwise.
    ///
    /// A count that is full stays full and the rest starts anew, so there is one form for any number.
    pub(super) fn absorb(&mut self, next: Piece) -> Option<Piece> {
        match (self, next) {
            (
                Piece::Chunk { id, length, repeat },
                Piece::Chunk { id: next_id, length: next_length, repeat: next_repeat },
            ) if *id == next_id && *length == next_length => {
                let taken = next_repeat.min(u32::MAX - *repeat);
                *repeat += taken;
                let repeat = next_repeat - taken;
                (repeat > 0).then_some(Piece::Chunk { id: next_id, length: next_length, repeat })
            }
            (Piece::Hole { length }, Piece::Hole { length: next_length }) => {
                let taken = next_length.min(u64::MAX - *length);
                *length += taken;
                let length = next_length - taken;
                (length > 0).then_some(Piece::Hole { length })
            }
            (_, next) => Some(next),
        }
    }

    fn could_absorb(&self, next: &Piece) -> bool {
        let mut merged = *self;
        merged.absorb(*next) != Some(*next)
    }
}

/// Checks that pieces are in the one form of their content; their length in all.
///
/// No piece is empty, no chunk longer than there are, none could be said as one with the next, the sum doesn't overflow.
pub(super) fn check_pieces(pieces: &[Piece]) -> Result<u64, &'static str> {
    let mut sum: u64 = 0;
    let mut last: Option<&Piece> = None;
    for piece in pieces {
        if piece.length() == 0 {
            return Err("a piece is empty");
        }
        if matches!(piece, Piece::Chunk { length, .. } if *length > CHUNK_MAX) {
            return Err("a chunk is longer than 1 MiB");
        }
        if last.is_some_and(|last| last.could_absorb(piece)) {
            return Err("two pieces should be one");
        }
        sum = sum.checked_add(piece.length()).ok_or("the lengths of the pieces overflow")?;
        last = Some(piece);
    }
    Ok(sum)
}

impl Encode for Payload {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self {
            Payload::Inline(bytes) => {
                0u32.encode(encoder)?;
                bytes.as_ref().encode(encoder)
            }
            Payload::Pieces(pieces) => {
                1u32.encode(encoder)?;
                pieces.encode(encoder)
            }
            Payload::Sequence(root) => {
                2u32.encode(encoder)?;
                root.encode(encoder)
            }
        }
    }
}

impl<Context> Decode<Context> for Payload {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let payload = match u32::decode(decoder)? {
            0 => Payload::Inline(Bytes::from(Vec::<u8>::decode(decoder)?)),
            1 => Payload::Pieces(Vec::decode(decoder)?),
            2 => Payload::Sequence(SequenceRoot::decode(decoder)?),
            _ => return Err(DecodeError::Other("a payload of unknown form")),
        };
        match payload.problem() {
            Some(problem) => Err(DecodeError::Other(problem)),
            None => Ok(payload),
        }
    }
}

impl_borrow_decode!(Payload);

impl Encode for Entry {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let (number, device) = self.kind.numbers();
        number.encode(encoder)?;
        if let (EntryKind::Unknown { .. }, Payload::Inline(bytes)) = (self.kind, &self.content) {
            return bytes.as_ref().encode(encoder);
        }
        if let Some((major, minor)) = device {
            major.encode(encoder)?;
            minor.encode(encoder)?;
        }
        self.size.encode(encoder)?;
        self.content.encode(encoder)?;
        self.metadata.encode(encoder)
    }
}

impl<Context> Decode<Context> for Entry {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let kind = EntryKind::decode(decoder)?;
        if matches!(kind, EntryKind::Unknown { .. }) {
            return Ok(Self::new(kind, Payload::Inline(Bytes::from(Vec::<u8>::decode(decoder)?)), Payload::default()));
        }
        let size = u64::decode(decoder)?;
        let content = Payload::decode(decoder)?;
        let metadata = Payload::decode(decoder)?;
        if size != content.length() {
            return Err(DecodeError::Other("an entry's size is not that of its content"));
        }
        Ok(Self { kind, size, content, metadata })
    }
}

impl_borrow_decode!(Entry);
