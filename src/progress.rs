//! How a long operation tells its caller where it stands.
//!
//! One trait with methods that do nothing by default, called from any thread.
//! An implementation must be quick: it is called once a file.

use std::fmt;
use std::path::Path;

use crate::error::Error;

/// What an operation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Reading the index and the records that the operation starts from.
    Preparing,
    /// Reading the source and storing what is new.
    BackingUp,
    /// Publishing the snapshot.
    Committing,
    /// Comparing the destination with the snapshot.
    Comparing,
    /// Writing files.
    Restoring,
    /// Verifying records, nodes, index and footers.
    CheckingStructure,
    /// Reading and verifying stored data.
    CheckingData,
    /// Copying what is needed out of packs that go.
    Copying,
    /// Waiting for writers to end.
    Waiting,
    /// Deleting what isn't needed any more.
    Deleting,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Preparing => "preparing",
            Phase::BackingUp => "backing up",
            Phase::Committing => "committing",
            Phase::Comparing => "comparing",
            Phase::Restoring => "restoring",
            Phase::CheckingStructure => "checking structure",
            Phase::CheckingData => "checking data",
            Phase::Copying => "copying",
            Phase::Waiting => "waiting for writers",
            Phase::Deleting => "deleting",
        })
    }
}

/// Receives the progress of one operation.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use backstop::Progress;
///
/// #[derive(Default)]
/// struct Bytes(AtomicU64);
///
/// impl Progress for Bytes {
///     fn advance(&self, _files: u64, bytes: u64) {
///         self.0.fetch_add(bytes, Ordering::Relaxed);
///     }
/// }
/// ```
pub trait Progress: Send + Sync {
    /// The operation entered a phase.
    fn phase(&self, _phase: Phase) {}

    /// The phase is now expected to come to this many files and bytes in all; may be called again as more is known.
    fn expect(&self, _files: u64, _bytes: u64) {}

    /// This many more files (or objects) and bytes are done.
    fn advance(&self, _files: u64, _bytes: u64) {}

    /// A path could not be handled and the operation goes on without it.
    fn failed(&self, _path: &Path, _error: &Error) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
