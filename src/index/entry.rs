//! Entries and rows, byte by byte.

use crate::crypto::{SALT_LEN, Salt, TAG_LEN};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::pack::{BLOB_MAX, BlockKind, Encoding, Place};

/// Length of an entry in bytes.
pub(super) const ENTRY_LEN: usize = 49;
/// Entries to a page.
pub(super) const PAGE_ENTRIES: usize = 256;
/// Length of a row of the pack table in bytes.
pub(super) const ROW_LEN: usize = ObjectId::LEN + 4 + SALT_LEN;
/// Rows to a page.
pub(super) const PAGE_ROWS: usize = 128;
/// Length of a full entry page as stored.
pub(super) const PAGE_STORED: usize = PAGE_ENTRIES * ENTRY_LEN + TAG_LEN;
/// Length of a full page of rows as stored.
pub(super) const ROW_PAGE_STORED: usize = PAGE_ROWS * ROW_LEN + TAG_LEN;

const FLAG_NODES: u8 = 1;
const FLAG_ZSTD: u8 = 2;

/// A pack and what opens its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackRow {
    pub(crate) id: ObjectId,
    pub(crate) generation: u32,
    pub(crate) salt: Salt,
}

impl PackRow {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.salt);
    }

    pub(super) fn read(bytes: &[u8; ROW_LEN]) -> Self {
        let (mut id, mut salt) = ([0; ObjectId::LEN], [0; SALT_LEN]);
        id.copy_from_slice(&bytes[..ObjectId::LEN]);
        salt.copy_from_slice(&bytes[ObjectId::LEN + 4..]);
        Self { id: ObjectId::new(id), generation: u32_at(bytes, ObjectId::LEN), salt }
    }
}

/// Where a blob is: everything that one range read needs to get at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    pub(crate) pack: PackRow,
    pub(crate) place: Place,
    /// Where the blob begins in the block's plaintext.
    pub(crate) at: u32,
    /// The blob's length in bytes.
    pub(crate) length: u32,
}

/// An entry whose pack is a row of its segment's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: BlobId,
    pub(crate) row: u32,
    pub(crate) place: Place,
    pub(crate) at: u32,
    pub(crate) length: u32,
}

impl Entry {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        let Place { number, offset, stored_len, plain_len, kind, encoding } = self.place;
        for field in [self.row, number, offset, stored_len, plain_len, self.at, self.length] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let nodes = if kind == BlockKind::Nodes { FLAG_NODES } else { 0 };
        let zstd = if encoding == Encoding::Zstd { FLAG_ZSTD } else { 0 };
        out.push(nodes | zstd);
    }

    /// Reads an entry and refuses what no entry can say; `object` names the segment.
    pub(super) fn read(bytes: &[u8; ENTRY_LEN], object: &str) -> Result<Self> {
        let flags = bytes[ENTRY_LEN - 1];
        if flags & !(FLAG_NODES | FLAG_ZSTD) != 0 {
            return Err(Error::corrupt(object, format!("an entry has unknown flags {flags:#x}")));
        }
        let place = Place {
            kind: if flags & FLAG_NODES == 0 { BlockKind::Data } else { BlockKind::Nodes },
            encoding: if flags & FLAG_ZSTD == 0 { Encoding::Raw } else { Encoding::Zstd },
            number: u32_at(bytes, 24),
            offset: u32_at(bytes, 28),
            stored_len: u32_at(bytes, 32),
            plain_len: u32_at(bytes, 36),
        };
        let entry =
            Self { id: id_of(bytes), row: u32_at(bytes, 20), place, at: u32_at(bytes, 40), length: u32_at(bytes, 44) };
        entry.place.validate(object)?;
        let end = u64::from(entry.at) + u64::from(entry.length);
        if !(1..=BLOB_MAX).contains(&entry.length) || end > u64::from(entry.place.plain_len) {
            let reason = format!("blob {} lies outside its block, or is longer than there are", entry.id);
            return Err(Error::corrupt(object, reason));
        }
        Ok(entry)
    }
}

/// The id that an entry begins with.
pub(super) fn id_of(entry: &[u8; ENTRY_LEN]) -> BlobId {
    let mut id = [0; BlobId::LEN];
    id.copy_from_slice(&entry[..BlobId::LEN]);
    BlobId::new(id)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}
