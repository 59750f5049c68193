//! What the tests share: object stores that count, fail, wait or lie, an S3
//! server in the process, and trees of every kind of file.
//!
//! Nothing in here knows the library: it makes what the library is tested on.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test target uses its own part of this")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod compare;
mod random;
pub mod records;
mod s3;
mod stores;
mod tracing;
mod trees;

pub use compare::{compare_trees, describe_tree};
pub use random::Random;
pub use s3::S3Server;
pub use stores::{
    Call, CountingStore, Counts, Fault, FaultyStore, Hook, HookedStore, Kind, OverwritingStore, Reply, RestrainedStore,
    SlowStore,
};
pub use tracing::{Trace, TracingStore};
pub use trees::make_tree;
