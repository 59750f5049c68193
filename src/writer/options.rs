//! How a writer begins and what its commit says.

use std::collections::BTreeMap;

use crate::blobs::{LookUp, WriteOptions};
use crate::compress;
use crate::error::Result;
use crate::snapshot::Snapshot;

/// What a writer's changes are made to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Start {
    /// The series' latest snapshot; nothing if there is none yet.
    #[default]
    Latest,
    /// Nothing: the commit replaces all that the series held, whatever others commit meanwhile.
    Nothing,
    /// A snapshot of the series that need not be its latest.
    ///
    /// What later snapshots changed stays, so that going back to this one takes more than a commit without changes.
    Snapshot(Box<Snapshot>),
}

impl From<Snapshot> for Start {
    fn from(snapshot: Snapshot) -> Self {
        Start::Snapshot(Box::new(snapshot))
    }
}

/// How a [`crate::Writer`] writes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriterOptions {
    /// The machine's name, kept in the snapshot.
    pub host: String,
    /// zstd level, -7 to 19.
    pub compression_level: i32,
    /// What the changes are made to.
    pub start: Start,
}

impl Default for WriterOptions {
    fn default() -> Self {
        let compression_level = WriteOptions::default().level;
        Self { host: String::new(), compression_level, start: Start::default() }
    }
}

impl WriterOptions {
    /// Names the machine.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Compresses at this zstd level, -7 to 19.
    #[must_use]
    pub fn with_compression_level(mut self, level: i32) -> Self {
        self.compression_level = level;
        self
    }

    /// Makes the changes to something else than the latest snapshot.
    #[must_use]
    pub fn with_start(mut self, start: impl Into<Start>) -> Self {
        self.start = start.into();
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        compress::check_level(self.compression_level)
    }

    pub(super) fn write_options(&self) -> WriteOptions {
        WriteOptions {
            level: self.compression_level,
            // A tree that is made of another has new nodes; one that is built from nothing may be an old one.
            look_up: if matches!(self.start, Start::Nothing) { LookUp::All } else { LookUp::Chunks },
            keep_nodes: true,
            ..WriteOptions::default()
        }
    }
}

/// What a commit says beside the changes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CommitOptions {
    /// Labels kept in the snapshot.
    pub tags: BTreeMap<String, String>,
    /// The application's own position, say a log sequence number; nothing to keep that of the snapshot before.
    pub position: Option<Vec<u8>>,
}

impl CommitOptions {
    /// Adds a label.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Says which position of the application the snapshot holds.
    #[must_use]
    pub fn with_position(mut self, position: impl Into<Vec<u8>>) -> Self {
        self.position = Some(position.into());
        self
    }
}
