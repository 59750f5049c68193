//! Backstop: a content-addressed, deduplicating, encrypted backup engine.

mod clock;
mod codec;
mod error;
mod id;
mod progress;

pub use clock::{Clock, Entropy, Surroundings, SystemClock, SystemEntropy, Timestamp};
pub use error::{Error, Result};
pub use id::{BlobId, ObjectId, RecordHash, RepositoryId, SeriesTag, WriterId};
pub use progress::{NoProgress, Phase, Progress};
