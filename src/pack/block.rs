//! Blocks: several blobs compressed together and sealed as one message.

use crate::codec::{Decode, Encode};
use crate::compress;
use crate::crypto::{IdKey, Keyring, Opener, Part, TAG_LEN};
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::pack::hints::{ChildSpot, HintsBuilder};

/// No block holds more plaintext.
pub(crate) const PLAIN_MAX: u32 = 4 << 20;

/// Under which number a block of a pack is sealed, and after the last one the footer: 0 is the trailer's.
pub(super) fn message_number(block: u32, object: &str) -> Result<u32> {
    block.checked_add(1).ok_or_else(|| Error::corrupt(object, "it has more blocks than there can be"))
}

/// No blob is longer, whatever the repository's parameters.
pub(crate) const BLOB_MAX: u32 = 1 << 20;

/// What a block's blobs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub(crate) enum BlockKind {
    /// Chunks of files.
    Data,
    /// Nodes of trees.
    Nodes,
}

impl BlockKind {
    /// The part that its messages are sealed as.
    pub(crate) fn part(self) -> Part {
        match self {
            BlockKind::Data => Part::Data,
            BlockKind::Nodes => Part::Nodes,
        }
    }

    /// The key that gives its blobs their ids.
    pub(crate) fn id_key(self, keyring: &Keyring) -> &IdKey {
        match self {
            BlockKind::Data => keyring.chunk_id(),
            BlockKind::Nodes => keyring.node_id(),
        }
    }
}

/// How a block's plaintext is stored under the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) enum Encoding {
    /// As it is.
    Raw,
    /// As one zstd frame.
    Zstd,
}

/// Blobs gathered to be compressed together.
#[derive(Debug)]
pub(crate) struct Block {
    kind: BlockKind,
    blobs: Vec<(BlobId, u32)>,
    plain: Vec<u8>,
    hints: HintsBuilder,
}

impl Block {
    /// An empty block.
    pub(crate) fn new(kind: BlockKind) -> Self {
        Self { kind, blobs: Vec::new(), plain: Vec::new(), hints: HintsBuilder::default() }
    }

    /// What its blobs are.
    pub(crate) fn kind(&self) -> BlockKind {
        self.kind
    }

    /// Adds a blob at the end. Copies it, so that a small part of a file doesn't keep the whole of it in memory.
    pub(crate) fn push(&mut self, id: BlobId, plain: &[u8]) {
        self.plain.extend_from_slice(plain);
        self.blobs.push((id, u32::try_from(plain.len()).unwrap_or(u32::MAX)));
    }

    /// Adds a node that has children, and where these are as far as that is known.
    pub(crate) fn push_node(&mut self, id: BlobId, plain: &[u8], children: &[Option<ChildSpot>]) {
        self.hints.push(self.end(), children);
        self.push(id, plain);
    }

    /// Where the next blob will begin.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.plain.len()).unwrap_or(u32::MAX)
    }

    /// Length of its blobs together.
    pub(crate) fn len(&self) -> usize {
        self.plain.len()
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Compresses at `level`, or keeps the bytes as they are where there is no level or no gain.
    pub(crate) fn compress(self, level: Option<i32>) -> Result<CompressedBlock> {
        let Self { kind, blobs, mut plain, hints } = self;
        if kind == BlockKind::Nodes {
            hints.finish(&mut plain);
        }
        let plain_len = u32::try_from(plain.len()).ok().filter(|len| *len <= PLAIN_MAX);
        let plain_len = plain_len.ok_or_else(|| Error::worker("a block grew beyond its bound"))?;
        let frame = level.map(|level| compress::compress(&plain, level, TAG_LEN)).transpose()?;
        let (encoding, stored) = match frame {
            Some(frame) if frame.len() < plain.len() => (Encoding::Zstd, frame),
            _ => (Encoding::Raw, plain),
        };
        Ok(CompressedBlock { kind, encoding, plain_len, blobs, stored })
    }
}

/// A block ready to be sealed.
#[derive(Debug)]
pub(crate) struct CompressedBlock {
    pub(crate) kind: BlockKind,
    pub(crate) encoding: Encoding,
    pub(crate) plain_len: u32,
    pub(crate) blobs: Vec<(BlobId, u32)>,
    pub(crate) stored: Vec<u8>,
}

/// Where a block lies in its pack and how to open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Place {
    pub(crate) kind: BlockKind,
    pub(crate) encoding: Encoding,
    /// Its number in the pack.
    pub(crate) number: u32,
    /// Where its message begins.
    pub(crate) offset: u32,
    /// Length of its message, tag included.
    pub(crate) stored_len: u32,
    /// Length of its plaintext.
    pub(crate) plain_len: u32,
}

impl Place {
    /// The bytes of the pack that hold it.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.stored_len)
    }

    /// Refuses lengths and numbers that no block can have; `object` names where they stand.
    pub(crate) fn validate(&self, object: &str) -> Result<()> {
        let message_min = TAG_LEN as u32 + 1;
        let raw_fits = self.encoding != Encoding::Raw || self.stored_len.wrapping_sub(TAG_LEN as u32) == self.plain_len;
        let sound = self.stored_len >= message_min
            && (1..=PLAIN_MAX).contains(&self.plain_len)
            && self.stored_len <= self.plain_len.saturating_add(TAG_LEN as u32)
            && raw_fits
            && self.range().end <= super::PACK_MAX;
        if sound { Ok(()) } else { Err(Error::corrupt(object, "it describes a block that can't be")) }
    }

    /// Opens the block from its message as stored; `object` names its pack.
    pub(crate) fn open(&self, opener: &Opener, mut message: Vec<u8>, object: &str) -> Result<Vec<u8>> {
        let number = message_number(self.number, object)?;
        opener.open(number, self.kind.part(), "", &mut message, object)?;
        match self.encoding {
            Encoding::Zstd => compress::decompress(&message, self.plain_len as usize, object),
            Encoding::Raw if message.len() == self.plain_len as usize => Ok(message),
            Encoding::Raw => {
                Err(Error::corrupt(object, format!("block {} has another length than stated", self.number)))
            }
        }
    }
}
