//! Blobs in and out of packs: the pipeline that stores them and the reader that gets them back.
//!
//! Owns deduplication, gathering into blocks and packs, back pressure, and the
//! lookup of blobs through the index with a cache of opened blocks. Doesn't know
//! files, trees or snapshots.
//!
//! Invariants: every byte that [`BlobReader`] returns has passed the AEAD and
//! its blob id. A blob that [`BlobWriter`] holds to be stored already lies in a
//! pack that this writer uploaded, or saw to exist after its registration.

mod ascent;
mod evidence;
mod memory;
mod nodes;
mod reader;
mod writer;

pub(crate) use evidence::{Condemned, Evidence, list_packs};
pub(crate) use memory::NodeMemory;
pub(crate) use nodes::{NodeBuffer, NodeSender};
pub(crate) use reader::BlobReader;
pub(crate) use writer::{BlobWriter, LookUp, Parts, Stored, Treatment, WriteOptions, WriteStats};
