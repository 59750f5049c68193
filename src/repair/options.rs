//! What a repair may do, and what it says of it.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::snapshot::{Failure, validate_series};
use crate::tree::Span;

/// For how long the data of a snapshot that was rewritten is kept unless asked otherwise.
const UNDELETE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a repair may do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairOptions {
    /// Another copy of the same repository, to take missing and damaged objects from.
    pub other: Option<Repository>,
    /// Rewrite snapshots without what can't be restored any more, and forget records that can't be read.
    pub accept_loss: bool,
    /// Delete registrations that can't be read. A writer of which one is may run.
    pub remove_damaged_writers: bool,
    /// Delete records and lists that can't be read of series whose names nothing tells.
    pub remove_nameless: bool,
    /// Names of series; needed where no sound record tells the name of one.
    pub series: Vec<String>,
    /// For how long what is left of a rewritten snapshot's data is kept. A week.
    pub undelete_for: Duration,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            other: None,
            accept_loss: false,
            remove_damaged_writers: false,
            remove_nameless: false,
            series: Vec::new(),
            undelete_for: UNDELETE_FOR,
        }
    }
}

impl RepairOptions {
    /// Takes what is missing or damaged from another copy of the same repository.
    #[must_use]
    pub fn with_other(mut self, other: Repository) -> Self {
        self.other = Some(other);
        self
    }

    /// Gives up what can't be restored: snapshots are rewritten without it.
    #[must_use]
    pub fn with_accept_loss(mut self, accept: bool) -> Self {
        self.accept_loss = accept;
        self
    }

    /// Deletes registrations that can't be read.
    ///
    /// See to it that no writer runs: one whose registration is gone isn't waited for by a collection.
    #[must_use]
    pub fn with_remove_damaged_writers(mut self, remove: bool) -> Self {
        self.remove_damaged_writers = remove;
        self
    }

    /// Deletes records and lists that can't be read of series whose names nothing tells: of which no record can be read,
    /// which no writer is registered for, and which [`Self::with_series`] doesn't name. Most likely there was never such.
    #[must_use]
    pub fn with_remove_nameless(mut self, remove: bool) -> Self {
        self.remove_nameless = remove;
        self
    }

    /// Tells the name of a series.
    #[must_use]
    pub fn with_series(mut self, series: impl Into<String>) -> Self {
        self.series.push(series.into());
        self
    }

    /// Keeps what is left of a rewritten snapshot's data for so long.
    #[must_use]
    pub fn with_undelete_for(mut self, time: Duration) -> Self {
        self.undelete_for = time;
        self
    }

    pub(super) fn validate(&self, repository: &Repository) -> Result<()> {
        self.series.iter().try_for_each(|series| validate_series(series))?;
        let Some(other) = &self.other else { return Ok(()) };
        let same_keys = other.keyring().tree_cuts() == repository.keyring().tree_cuts();
        if other.id() != repository.id() || !same_keys {
            let what = format!("the other repository at {}", other.store().description());
            let (own, found) = (repository.id(), other.id());
            let reason = format!("it isn't a copy of this one: it is repository {found}, not {own}");
            return Err(Error::invalid(what, reason));
        }
        Ok(())
    }
}

/// What a repair does about something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RepairAction {
    /// The object is taken from the other copy, byte for byte.
    CopyObject,
    /// Blobs that are in no pack here are taken from the other copy into new packs.
    CopyBlobs,
    /// It is written again from what is in memory.
    SealAgain,
    /// It is deleted: nothing needs it, or all that it says is said elsewhere.
    Delete,
    /// What can be read of a pack is copied to a new one, and the pack is deleted.
    Salvage,
    /// An index segment is written that says what is missing.
    Describe,
    /// A new list of what counts is published in its place.
    PublishList,
    /// An empty collection follows, so that it doesn't matter any more.
    Supersede,
    /// A collection that was begun is finished.
    FinishCollection,
    /// Snapshots whose records can't be read don't count any more.
    Forget,
    /// A record that says that nothing was committed takes its place, so that its series can go on.
    Tombstone,
    /// A snapshot is committed again without what is lost, and forgotten.
    Rewrite,
    /// Nothing, unless the options allow more, or a person does something.
    None,
}

impl fmt::Display for RepairAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RepairAction::CopyObject => "copy it from the other repository",
            RepairAction::CopyBlobs => "copy what was in it from the other repository",
            RepairAction::SealAgain => "write it again",
            RepairAction::Delete => "delete it",
            RepairAction::Salvage => "copy what can be read, and delete it",
            RepairAction::Describe => "write an index segment that describes it",
            RepairAction::PublishList => "publish a new list in its place",
            RepairAction::Supersede => "begin and end an empty collection after it",
            RepairAction::FinishCollection => "finish it",
            RepairAction::Forget => "forget it",
            RepairAction::Tombstone => "put a tombstone in its place",
            RepairAction::Rewrite => "commit it again without what is lost",
            RepairAction::None => "nothing",
        })
    }
}

/// Something that is wrong, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairStep {
    /// The stored object's name; `blob …` where no object is known that should hold it.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// What is done.
    pub action: RepairAction,
    /// What a person has to do or to know; mostly empty.
    pub advice: String,
    /// Whether nothing is wrong with it, but it needs a newer version of this library, so that it is left alone.
    pub unsupported: bool,
}

impl fmt::Display for RepairStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.problem, self.action)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

/// What can't be restored of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotLoss {
    /// Its series.
    pub series: String,
    /// Its number.
    pub number: u64,
    /// Whether it was forgotten, so that nothing needs to be done about it.
    pub forgotten: bool,
    /// Every path that can't be restored, and why. Where a node of the tree is lost, the range of the paths that were
    /// in it.
    pub paths: Vec<Failure>,
    /// Those ranges.
    pub(super) spans: Vec<Span>,
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// Objects that were taken from the other copy.
    pub objects_copied: u64,
    /// Blobs that were copied out of damaged packs.
    pub blobs_salvaged: u64,
    /// Blobs that were taken from the other copy one by one.
    pub blobs_copied: u64,
    /// Packs that were written.
    pub packs_written: u64,
    /// Index segments that were written.
    pub segments_written: u64,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Snapshots that were committed again: series, the number that it had, and the number that it has.
    pub rewritten: Vec<(String, u64, u64)>,
    /// Snapshots that don't count any more, by series and number.
    pub forgotten: Vec<(String, u64)>,
    /// What can't be restored and was given up.
    pub given_up: Vec<SnapshotLoss>,
    /// What can't be restored and wasn't given up: a copy, or a backup that heals, may yet bring it back.
    pub lost: Vec<SnapshotLoss>,
    /// Steps that weren't taken, and what a person has to do.
    pub undone: Vec<RepairStep>,
    /// Objects that the store didn't let be deleted.
    pub left: u64,
}

impl RepairReport {
    /// Whether nothing is left to be done.
    pub fn is_complete(&self) -> bool {
        self.undone.is_empty() && self.left == 0 && self.lost.iter().all(|loss| loss.forgotten)
    }
}
