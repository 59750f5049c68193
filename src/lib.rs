//! Backstop: a content-addressed, deduplicating, encrypted backup engine to embed in servers.
//!
//! A [`Repository`] lies on an object store and is opened with a [`Secret`]. A backup adds a [`Snapshot`] to a
//! named series; a restore gives a snapshot back, or a part of it.
//!
//! ```standalone_crate
//! # use std::{path::Path, sync::Arc};
//! # use backstop::{BackupOptions, CreateOptions, NoProgress, Repository, RestoreOptions, Secret};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?; std::fs::write(folder.path().join("note"), "buy milk")?;
//! # std::env::set_current_dir(&folder)?;
//! let secret = Secret::passphrase("correct horse battery staple");
//! let repository = Repository::create("backup", &secret, CreateOptions::default()).await?;
//! let report = repository.backup(&["note".into()], &BackupOptions::default(), Arc::new(NoProgress)).await?;
//! let snapshot = report.snapshot.ok_or("a dry run makes no snapshot")?;
//! repository.restore(&snapshot, None, Path::new("restored"), &RestoreOptions::default(), Arc::new(NoProgress)).await?;
//! # assert_eq!(std::fs::read("restored/note")?, b"buy milk");
//! # Ok(()) }
//! ```
//!
//! A server that runs hands each change to a [`Feed`] and awaits that it is committed: see [`embedding`], the guide.
//!
//! Operations are futures on a Tokio runtime. Dropping one stops it; nothing of it is visible before its commit.
//! They report to a [`Progress`], and what goes wrong with single files is in their reports, not an [`Error`].
//! Cloud stores are behind the cargo features `aws`, `gcp` and `azure`.
//!
//! # The map
//!
//! A module uses only what lies below it; a test holds that.
//!
//! ```text
//! operations   backup restore writer feed forget undelete gc check repair history keys read snapshots stats: each an
//!              `impl Repository`, over draft, merge
//! repository   repository: opens and creates, owns the parts       over roster, over config, slot
//! structures   registration, over snapshot and collection, over content, cutter and reach, over blobs, over index and
//!              files, over kept, pack and tree
//! objects      object: headers, records, padding                   over store: create, read, list, delete
//! transforms   chunker compress crypto layout retention            over codec; bytes in, bytes out
//! words        id error progress clock cpu
//! ```
//!
//! Every stored byte, and what an onlooker can learn, are described in `docs/format.md`; `docs/reader.py` is an
//! independent reader of it. What may run beside what, and why that is safe, is in `docs/concurrency.md`; what holds
//! against whom, and what can't be prevented, in `docs/security.md`.

#[doc = include_str!("../docs/embedding.md")]
pub mod embedding {}

mod backup;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod blobs;
mod check;
mod chunker;
mod clock;
mod codec;
mod collection;
mod compress;
mod config;
mod content;
mod cpu;
mod crypto;
mod cutter;
mod draft;
mod error;
mod feed;
mod files;
mod forget;
#[cfg(test)]
mod future;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod history;
#[cfg(test)]
mod hostile;
mod id;
mod index;
mod kept;
mod keys;
mod layout;
mod merge;
mod object;
mod pack;
mod progress;
mod reach;
mod read;
mod registration;
mod repair;
mod repository;
mod restore;
mod retention;
mod roster;
#[cfg(test)]
mod simulation;
mod slot;
mod snapshot;
mod snapshots;
mod stats;
mod store;
#[cfg(test)]
#[allow(dead_code, unreachable_pub, reason = "each module's tests use their own part of this")]
mod testing;
#[allow(dead_code, unused_imports, reason = "check, the feed and the fuzz targets use the rest")]
mod tree;
mod undelete;
mod writer;

pub use backup::{BackupOptions, BackupReport};
pub use check::{CheckOptions, CheckReport, Finding, FindingKind, SeriesCheck};
pub use chunker::ChunkerParameters;
pub use clock::{Clock, Entropy, Surroundings, SystemClock, SystemEntropy, Timestamp};
pub use config::Fingerprint;
pub use content::FileReader;
pub use crypto::Secret;
pub use error::{Error, Result};
pub use feed::{Batch, Feed, FeedOptions, Receipt};
pub use files::{FileTime, LinkGroup, Metadata, Posix};
pub use forget::{ForgetOptions, ForgetPlan, ForgetReport, ForgottenSnapshot, SnapshotDecision};
pub use gc::{GcOptions, GcPlan, GcReport, PackFate, PackReason, WaitingFor};
pub use history::{HistoryOptions, Revision};
pub use id::{BlobId, ObjectId, ProbeId, RecordHash, RepositoryId, SeriesTag, WriterId};
pub use keys::KeyRotation;
pub use merge::{MergePlan, MergeReport};
pub use progress::{NoProgress, Phase, Progress};
pub use registration::WriterMode;
pub use repair::{RepairAction, RepairOptions, RepairPlan, RepairReport, RepairStep, SnapshotLoss};
pub use repository::{CreateOptions, OpenOptions, Repository};
pub use restore::{RestoreOptions, RestoreReport};
pub use retention::{Dated, Decision, Period, Reason, RetentionPolicy};
pub use slot::{KeyKind, KeySlot};
pub use snapshot::{Failure, Moment, Origin, Snapshot, SnapshotStats};
pub use snapshots::Selector;
pub use stats::{RepositoryStats, Usage};
pub use store::{Location, Mismatch, PutAside, Right, StoreAccess, StoreOperation, StoreRights};
pub use tree::{Change, Entry, EntryKind, Key, Payload, Piece, SequenceRoot};
pub use writer::{CommitOptions, Start, Writer, WriterOptions};
