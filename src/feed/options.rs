//! How a feed gathers, waits and gives up.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::blobs::{LookUp, WriteOptions};
use crate::compress;
use crate::error::{Error, Result};

/// Level 1 of zstd takes half the time of level 3, for a few percent more bytes.
const LEVEL: i32 = 1;

/// How a feed commits.
///
/// The defaults suit a server that answers its clients once their changes are committed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FeedOptions {
    /// The machine's name, kept in each snapshot.
    pub host: String,
    /// Labels kept in each snapshot.
    pub tags: BTreeMap<String, String>,
    /// How long the first change of a commit waits for others to join it.
    pub interval: Duration,
    /// A commit begins at once when this many changes wait, and takes no more of them; a batch is never divided.
    pub changes_max: usize,
    /// A commit begins at once when changes of this many bytes wait, and takes no more of them.
    pub bytes_max: usize,
    /// Bytes of changes that may be under way; calls wait for room. What is cut to chunks counts by its list of chunks.
    pub queue_max: usize,
    /// How long a call waits for its change to be committed.
    pub deadline: Duration,
    /// zstd level, -7 to 19; 1, since a busy feed spends most of its time compressing.
    pub compression_level: i32,
    /// After so many commits the feed looks whether the repository has many small packs and index segments, and merges
    /// them beside its commits, see [`crate::Repository::merge`]; 0 to leave that to others.
    pub merge_every: u64,
    /// How often the feed looks whether a collection was begun, which waits until it has, and whether the keys were
    /// rotated; 30 seconds.
    pub look_every: Duration,
}

impl Default for FeedOptions {
    fn default() -> Self {
        Self {
            host: String::new(),
            tags: BTreeMap::new(),
            interval: Duration::from_millis(20),
            changes_max: 16 << 10,
            bytes_max: 8 << 20,
            queue_max: 64 << 20,
            deadline: Duration::from_secs(60),
            compression_level: LEVEL,
            merge_every: 512,
            look_every: Duration::from_secs(30),
        }
    }
}

impl FeedOptions {
    /// Names the machine.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Adds a label to each snapshot.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Lets the first change of a commit wait this long for others.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Bounds a commit, in changes and in bytes.
    #[must_use]
    pub fn with_commit_max(mut self, changes: usize, bytes: usize) -> Self {
        self.changes_max = changes;
        self.bytes_max = bytes;
        self
    }

    /// Bounds the bytes of changes that may be under way.
    #[must_use]
    pub fn with_queue_max(mut self, bytes: usize) -> Self {
        self.queue_max = bytes;
        self
    }

    /// Gives calls this long.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Compresses at this zstd level.
    #[must_use]
    pub fn with_compression_level(mut self, level: i32) -> Self {
        self.compression_level = level;
        self
    }

    /// Looks for small packs to merge after so many commits, or never.
    #[must_use]
    pub fn with_merge_every(mut self, commits: u64) -> Self {
        self.merge_every = commits;
        self
    }

    /// Looks this often whether a collection was begun, and whether the keys were rotated.
    #[must_use]
    pub fn with_look_every(mut self, time: Duration) -> Self {
        self.look_every = time;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        compress::check_level(self.compression_level)?;
        if self.look_every.is_zero() {
            return Err(Error::invalid("look_every", "it would look all the time; give it some seconds"));
        }
        if self.queue_max == 0 {
            return Err(Error::invalid("queue_max", "nothing could ever be under way; give it some MiB"));
        }
        Ok(())
    }

    /// How chunks are stored: they are at hand only once, so that an upload is tried again for as long as a call waits.
    pub(super) fn chunk_options(&self) -> WriteOptions {
        WriteOptions { level: self.compression_level, patience: self.deadline, ..WriteOptions::default() }
    }

    /// How nodes are stored: they are made anew when an upload fails, are hardly ever there before, and are about to
    /// be changed again.
    pub(super) fn node_options(&self) -> WriteOptions {
        let level = self.compression_level;
        WriteOptions { level, look_up: LookUp::Chunks, keep_nodes: true, ..WriteOptions::default() }
    }
}
