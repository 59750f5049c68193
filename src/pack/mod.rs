//! Packs: immutable runs of sealed blocks with a footer that describes them.
//!
//! ```text
//!   0  header (object.rs), kind Pack
//!  46  id of the registration that made the pack, 16 bytes in the clear
//!  62  blocks, back to back; block i is one message under number i + 1, part Data or Nodes
//!   f  footer: one message under number b + 1 (b blocks), part Footer, named by the registration's hexadecimal
//!      id: the encoded `Footer`; in packs under 1 MiB followed by zeros up to a length that Padmé allows
//! -24  trailer: one message under number 0, part Trailer: length of the footer message, u32; number of blocks b, u32
//! ```
//! Nothing after the registration's id is in the clear, so that the length of a
//! pack tells no more than its padding lets it.
//! A block of data is its blobs, joined; a block of nodes goes on with hints
//! (hints.rs): the encoded `Hints`, then their length, u32. A pack's name is the
//! BLAKE3 of all its bytes. Blocks carry no offsets: they follow one another, and
//! the footer must begin where the last one ends.
//!
//! Owns the pack's layout, and blocks as units of compression. Doesn't know
//! what blobs mean, nor where packs are kept.
//!
//! Invariant: a [`SealedPack`] has been opened again from its final bytes, and
//! every blob's id checked.

mod block;
mod footer;
mod hints;
mod seal;
#[cfg(test)]
mod tests;

pub(crate) use block::{BLOB_MAX, Block, BlockKind, CompressedBlock, Encoding, PLAIN_MAX, Place};
#[cfg(any(test, fuzzing))]
pub(crate) use footer::BlockEntry;
#[cfg(any(test, fuzzing))]
pub(crate) use footer::trailer;
pub(crate) use footer::{Footer, footer_range, parse_footer, parse_header, parse_pack};
pub(crate) use hints::{ChildSpot, Hint, Hints, Spot, split_hints};
pub(crate) use seal::{SealedPack, seal_pack, verify_block};

/// Where the blocks begin.
pub(crate) const BLOCKS_START: usize = crate::object::HEADER_LEN + crate::id::WriterId::LEN;

/// Length of the trailer's message, which stands after the footer's.
pub(crate) const TRAILER_LEN: usize = 8 + crate::crypto::TAG_LEN;

/// No footer's message is longer: what it decodes to has a bound as well.
pub(crate) const FOOTER_MAX: u64 = 64 << 20;

/// No pack is longer; offsets fit a u32 with room to spare.
pub(crate) const PACK_MAX: u64 = 256 << 20;
