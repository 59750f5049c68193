//! The index: blob id -> pack, block, place in the block.
//!
//! Owns the segments' layout, their caching and lookups over all of them. A
//! segment is immutable; which ones there are is what `index/` lists.
//!
//! ```text
//!    0  header (object.rs), kind Index
//!   46  message 0, part Footer: number of entries u64, number of packs u32
//!   74  entry pages, messages 1..=e, part Page: 256 entries each but the last
//!       then pack pages, messages e+1.., part PackTable: 128 rows each but the last
//! entry  0 blob id 20 | 20 pack row u32 | 24 block number u32 | 28 block offset u32 | 32 stored length u32
//!       36 block's plain length u32 | 40 offset in the block u32 | 44 length u32 | 48 flags u8 (1: nodes, 2: zstd)
//! row    0 pack id 32 | 32 key generation u32 | 36 salt 32
//! ```
//! Entries are sorted by blob id, each id once. Ids are uniform, so a page is
//! found by arithmetic and read alone; a row of the pack table lets one range
//! read of a pack open a block without the pack's header.
//!
//! A small commit writes no segment: its record names its packs, whose footers
//! are the index until a segment describes them (recent.rs).
//!
//! Invariant: a page counts only after its AEAD has passed, which covers its
//! number; the counts are covered by message 0.

mod arriving;
mod build;
mod entry;
mod recent;
mod segment;
mod set;
#[cfg(test)]
mod tests;

pub(crate) use build::SegmentBuilder;
pub(crate) use entry::{Location, PackRow};
pub(crate) use recent::{PackRef, RecentPack};
pub(crate) use segment::Segment;
pub(crate) use set::{Index, Want};
