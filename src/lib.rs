//! Backstop: a content-addressed, deduplicating, encrypted backup engine.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod blobs;
mod chunker;
mod clock;
mod codec;
mod compress;
mod cpu;
mod crypto;
mod error;
mod id;
mod index;
mod layout;
mod object;
mod pack;
mod progress;
mod registration;
mod snapshot;
mod store;

pub use chunker::ChunkerParameters;
pub use clock::{Clock, Entropy, Surroundings, SystemClock, SystemEntropy, Timestamp};
pub use crypto::Secret;
pub use error::{Error, Result};
pub use id::{BlobId, ObjectId, RecordHash, RepositoryId, SeriesTag, WriterId};
pub use progress::{NoProgress, Phase, Progress};
pub use registration::WriterMode;
pub use snapshot::{Failure, Snapshot, SnapshotStats};
pub use store::Location;
