//! Backstop: a content-addressed, deduplicating, encrypted backup engine.

mod clock;
mod codec;
mod error;
#[allow(dead_code, unused_imports, reason = "the layers that use it come next")]
mod files;
mod id;
mod progress;
#[allow(dead_code, unused_imports, reason = "the layers that use it come next")]
mod tree;

pub use clock::{Clock, Entropy, Surroundings, SystemClock, SystemEntropy, Timestamp};
pub use error::{Error, Result};
pub use files::{FileTime, LinkGroup, Metadata, Posix};
pub use id::{BlobId, ObjectId, RecordHash, RepositoryId, SeriesTag, WriterId};
pub use progress::{NoProgress, Phase, Progress};
pub use tree::{Change, Entry, EntryKind, Key, Payload, Piece, SequenceRoot};
