//! Backstop: a content-addressed, deduplicating, encrypted backup engine.

mod chunker;
mod clock;
mod codec;
mod compress;
mod cpu;
mod crypto;
mod error;
mod id;
mod layout;
mod object;
mod pack;
mod progress;
mod store;

pub use chunker::ChunkerParameters;
pub use clock::{Clock, Entropy, Surroundings, SystemClock, SystemEntropy, Timestamp};
pub use crypto::Secret;
pub use error::{Error, Result};
pub use id::{BlobId, ObjectId, RecordHash, RepositoryId, SeriesTag, WriterId};
pub use progress::{NoProgress, Phase, Progress};
pub use store::Location;
