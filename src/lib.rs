//! Backstop: a content-addressed, deduplicating, encrypted backup engine.

mod backup;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod blobs;
mod chunker;
mod clock;
mod codec;
mod compress;
mod config;
mod content;
mod cpu;
mod crypto;
mod error;
mod files;
mod id;
mod index;
mod keys;
mod layout;
mod object;
mod pack;
mod progress;
mod read;
mod registration;
mod repository;
mod restore;
mod slot;
mod snapshot;
mod snapshots;
mod stats;
mod store;
mod tree;

pub use backup::{BackupOptions, BackupReport};
pub use chunker::ChunkerParameters;
pub use clock::{Clock, Entropy, Surroundings, SystemClock, SystemEntropy, Timestamp};
pub use content::FileReader;
pub use crypto::Secret;
pub use error::{Error, Result};
pub use files::{FileTime, LinkGroup, Metadata, Posix};
pub use id::{BlobId, ObjectId, RecordHash, RepositoryId, SeriesTag, WriterId};
pub use progress::{NoProgress, Phase, Progress};
pub use registration::WriterMode;
pub use repository::{CreateOptions, OpenOptions, Repository};
pub use restore::{RestoreOptions, RestoreReport};
pub use slot::{KeyKind, KeySlot};
pub use snapshot::{Failure, Snapshot, SnapshotStats};
pub use snapshots::Selector;
pub use stats::{RepositoryStats, Usage};
pub use store::Location;
pub use tree::{Change, Entry, EntryKind, Key, Payload, Piece, SequenceRoot};
