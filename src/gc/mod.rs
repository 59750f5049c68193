//! Collecting garbage: what no snapshot needs any more is deleted, beside writers and readers.
//!
//! ```text
//! plan      list what counts ──> mark what it needs ──> weigh each pack
//! execute   copy out of sparse packs ──> begin gc/n ──> wait for writers, or fence them ──> mark what is new, copy
//!           what it needs out of condemned packs ──> delete packs, segments, records ──> end gc/n
//! ```
//! Owns what is condemned and the order of the steps; the rules are those of
//! docs/concurrency.md. It can stop anywhere: who finds a collection unfinished
//! goes on with its writers.
//!
//! - `marks`: a bit for each blob. `mark`: setting them. `survey`: what each pack holds, and what becomes of it.
//! - `generations`: what is sealed under older keys.
//! - `condemn`: from a plan to `gc/n`. `writers`: waiting and fencing. `rescue`: the second mark. `delete`: the rest.
//!
//! Invariants: no blob that a snapshot needs is ever only in packs that are
//! condemned, but between the publication and the second mark, for snapshots whose
//! writers registered before it. What writers put on the store is believed only
//! as far as it can't lead to a loss: of two copies of a blob, one is deleted only
//! after the other was read.

mod condemn;
mod delete;
mod generations;
mod mark;
mod marks;
mod rescue;
mod survey;
#[cfg(test)]
mod tests;
mod writers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::collection::{Authority, Collections, Standing};
use crate::error::{Error, Result};
use crate::gc::generations::OldKeys;
use crate::gc::survey::Survey;
use crate::id::ObjectId;
use crate::merge::MergeReport;
use crate::progress::{Phase, Progress};
use crate::registration::clear_ended;
use crate::repository::Repository;

/// What is collected, and how patiently.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GcOptions {
    /// A pack of which more than this share isn't needed is rewritten: 0 for every such pack, 1 for none. A third.
    pub waste_max: f64,
    /// How long to wait for writers that may rely on what is condemned; a minute. If some are left then, the collection
    /// goes on at the next call.
    pub wait: Duration,
    /// Writers that registered longer ago than this, or more than a day from now, aren't waited for but fenced: their next commit loses, and they
    /// begin anew. Two days.
    pub fence_after: Duration,
    /// Whether everything that is sealed under an older key generation than the newest is rewritten under the newest. No.
    pub rewrite_old_keys: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            waste_max: 1.0 / 3.0,
            wait: Duration::from_secs(60),
            fence_after: Duration::from_secs(2 * 24 * 3600),
            rewrite_old_keys: false,
        }
    }
}

impl GcOptions {
    /// Rewrites packs of which more than this share isn't needed.
    #[must_use]
    pub fn with_waste_max(mut self, share: f64) -> Self {
        self.waste_max = share;
        self
    }

    /// Waits this long for writers.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Fences writers that registered longer ago than this.
    #[must_use]
    pub fn with_fence_after(mut self, age: Duration) -> Self {
        self.fence_after = age;
        self
    }

    /// Rewrites all packs and index segments that are sealed under older keys than the newest, as is worth its cost after
    /// [`Repository::rotate_keys`]: once they are gone, old keys open no content and no path below a snapshot any more. What
    /// they open still is in `docs/security.md`, above all the records of older snapshots.
    ///
    /// Packs of writers that run are left for the next collection. What is needed of them is copied before any of them goes, so the store needs room for as much again.
    #[must_use]
    pub fn with_rewrite_old_keys(mut self, rewrite: bool) -> Self {
        self.rewrite_old_keys = rewrite;
        self
    }

    fn validate(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.waste_max) {
            Ok(())
        } else {
            Err(Error::invalid(format!("a waste of {}", self.waste_max), "it must be at least 0 and at most 1"))
        }
    }
}

/// Why a pack goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackReason {
    /// Nothing in it is needed, or all that is needed is elsewhere, too.
    Unneeded,
    /// Too much of it isn't needed: what is needed is copied.
    Sparse,
    /// It is small, and is merged with others.
    Small,
    /// It is sealed under an older key generation than the newest: what is needed is copied under the newest.
    OldKeys,
}

/// A pack that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackFate {
    /// The pack.
    pub pack: ObjectId,
    /// Why it goes.
    pub reason: PackReason,
    /// Its length, in bytes.
    pub bytes: u64,
    /// How much of it is needed and is copied, in bytes as stored, roughly.
    pub needed_bytes: u64,
}

/// What a collection would do.
#[derive(Debug)]
#[non_exhaustive]
pub struct GcPlan {
    /// The number of a collection that was begun and hasn't ended: it is finished first, and nothing else is planned.
    pub unfinished: Option<u64>,
    /// Snapshots that count.
    pub snapshots: u64,
    /// Snapshots that were forgotten and can still be undeleted, so that their data is kept.
    pub undeletable: u64,
    /// Forgotten snapshots whose records go.
    pub forgotten: u64,
    /// Distinct blobs that are needed.
    pub needed_blobs: u64,
    /// Distinct blobs that aren't.
    pub unneeded_blobs: u64,
    /// What all packs take up, in bytes.
    pub pack_bytes: u64,
    /// The packs that go, the largest first.
    pub packs: Vec<PackFate>,
    /// Packs that would go if their writers didn't run.
    pub spared_packs: u64,
    /// Index segments that are rewritten.
    pub segments: u64,
    /// Packs that are sealed under an older key generation than the newest, whether they go or not.
    pub old_packs: u64,
    /// Their length, in bytes.
    pub old_pack_bytes: u64,
    /// Index segments that are.
    pub old_segments: u64,
    /// Registrations of writers that would be fenced, and lists of what counts and collections that newer ones replace.
    pub leftovers: u64,
    options: GcOptions,
    before: Standing,
    survey: Option<Survey>,
}

impl GcPlan {
    /// What is freed, in bytes: the packs that go, less what is copied out of them.
    pub fn freed_bytes(&self) -> u64 {
        self.packs.iter().map(|fate| fate.bytes.saturating_sub(fate.needed_bytes)).sum()
    }

    /// Whether there is something to do.
    pub fn is_due(&self) -> bool {
        self.unfinished.is_some() || !self.packs.is_empty() || self.segments + self.forgotten + self.leftovers > 0
    }
}

/// A writer that a collection waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingFor {
    /// The registration's name.
    pub registration: String,
    /// Its series; empty where the registration is damaged.
    pub series: String,
    /// The machine that it runs on, as it says.
    pub host: String,
    /// When it registered, by its clock.
    pub since: Option<Timestamp>,
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Its number; 0 if there was nothing to do.
    pub number: u64,
    /// Whether it has ended. If not, `waiting` or `left` say why, and the next call goes on.
    pub finished: bool,
    /// Packs that were written.
    pub packs_written: u64,
    /// Their length, in bytes.
    pub bytes_written: u64,
    /// Packs that were deleted.
    pub packs_deleted: u64,
    /// Their length, in bytes.
    pub bytes_deleted: u64,
    /// Index segments that were deleted.
    pub segments_deleted: u64,
    /// Records of forgotten snapshots that were deleted.
    pub records_deleted: u64,
    /// Of the packs that it condemned, those that are sealed under an older key generation than the newest.
    pub old_packs: u64,
    /// Their length, in bytes.
    pub old_pack_bytes: u64,
    /// Of the index segments that it condemned, those that are.
    pub old_segments: u64,
    /// Packs under older key generations that it didn't condemn; 0 where it goes on with one that was begun before.
    pub old_packs_left: u64,
    /// Blobs that were condemned and that a snapshot needed which was made meanwhile.
    pub rescued_blobs: u64,
    /// Writers that were fenced, as `series` and number.
    pub fenced: Vec<(String, u64)>,
    /// Writers that have to end first.
    pub waiting: Vec<WaitingFor>,
    /// Objects that were left of writers that have ended, and were deleted.
    pub registrations_cleared: u64,
    /// Objects that the store didn't let be deleted.
    pub left: Vec<String>,
    /// Temporary files of a local store that were swept.
    pub temporary_files: u64,
}

impl GcReport {
    fn add_written(&mut self, copied: MergeReport) {
        self.packs_written += copied.packs_written;
        self.bytes_written += copied.bytes_written;
    }

    /// Counts what goes of what is sealed under older keys.
    fn count_old(&mut self, old: &OldKeys, packs: &BTreeSet<ObjectId>, segments: &BTreeSet<ObjectId>) {
        let going = old.packs.iter().filter(|(pack, _)| packs.contains(pack));
        (self.old_packs, self.old_pack_bytes) =
            going.fold((0, 0), |(packs, bytes), (_, length)| (packs + 1, bytes + length));
        self.old_packs_left = old.packs.len() as u64 - self.old_packs;
        self.old_segments = old.segments.iter().filter(|segment| segments.contains(segment)).count() as u64;
    }
}

impl Repository {
    /// Looks what a collection would do: reads every record, the index and all distinct nodes, and changes nothing.
    ///
    /// Memory: two bits and a filter for each blob, and some 100 bytes for each pack; the index itself stays in the
    /// cache folder, if the repository was opened with one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a snapshot that counts lacks something: it has to be repaired or forgotten first.
    /// [`Error::Conflict`] if a merge or another collection comes in between: plan anew.
    pub async fn plan_gc(&self, options: &GcOptions) -> Result<GcPlan> {
        options.validate()?;
        self.learn_keys(options).await?;
        let before = Collections::new(self.parts().clone()).standing().await?;
        if before.open().is_some() {
            return Ok(GcPlan::to_finish(before, options.clone()));
        }
        match self.survey_packs(&before, options).await {
            Ok(survey) => Ok(GcPlan::of(survey, before, options.clone())),
            Err(error) if error.is_corrupt() => {
                let now = Collections::new(self.parts().clone()).standing().await?;
                if now.number == before.number {
                    return Err(error);
                }
                // What seems to be missing may have been moved.
                let reason = "another collection or a merge was begun while this one was planned; plan anew";
                Err(Error::conflict("the collection", reason))
            }
            Err(error) => Err(error),
        }
    }

    /// Collects what a plan says.
    ///
    /// May run beside readers and writers of other processes, and may be dropped: whoever calls this next goes on. If
    /// another collection was begun since the plan was made this fails with [`Error::Conflict`], and is planned anew.
    ///
    /// ```
    /// # use backstop::*; use std::sync::Arc; async fn f(repository: &Repository) -> Result<()> {
    /// let plan = repository.plan_gc(&GcOptions::default()).await?;
    /// println!("{} bytes would be freed", plan.freed_bytes());
    /// let report = repository.gc(plan, Arc::new(NoProgress)).await?;
    /// if !report.finished {
    ///     println!("to be continued: {} writers run, {} objects are locked", report.waiting.len(), report.left.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::AppendOnly`] if the repository was opened with a secret that may not delete.
    pub async fn gc(&self, plan: GcPlan, progress: Arc<dyn Progress>) -> Result<GcReport> {
        self.require_administrator("collect garbage")?;
        self.learn_keys(&plan.options).await?;
        // What a writer added in order to end has no further use, whatever else there is to do.
        let registrations_cleared = clear_ended(self.parts()).await?;
        let mut report = GcReport { registrations_cleared, ..GcReport::default() };
        if !plan.is_due() {
            report.finished = true;
            return Ok(report);
        }
        let GcPlan { options, before, survey, .. } = plan;
        let (number, condemned, marks) = match survey {
            Some(survey) => {
                progress.phase(Phase::Copying);
                let (number, condemned, marks) = self.condemn(before, survey, &mut report).await?;
                (number, condemned, Some(marks))
            }
            None => {
                let number = before.number;
                let condemned = before.open().cloned().ok_or_else(|| Error::worker("a collection was lost"))?;
                (number, condemned, None)
            }
        };
        report.number = number;
        let collections = Collections::new(self.parts().clone());
        if condemned.authority != Authority::Unneeded {
            let mut merged = MergeReport::default();
            self.finish(&collections, number, &condemned, &mut merged).await?;
            report.add_written(merged);
            report.packs_deleted += merged.packs_deleted;
            report.segments_deleted += merged.segments_deleted;
            report.finished = merged.left == 0;
            return Ok(report);
        }
        progress.phase(Phase::Waiting);
        let Some(fences) = self.settle_writers((number, &condemned), &options, &mut report).await? else {
            return Ok(report);
        };
        progress.phase(Phase::Copying);
        if let Err(error) = self.rescue(&condemned, marks.as_deref(), &mut report).await {
            // What it looked for may have gone with the collections after this one, if another process has ended it.
            if matches!(error, Error::Store { .. }) || collections.is_open(number).await? {
                return Err(error);
            }
            report.finished = true;
            return Ok(report);
        }
        progress.phase(Phase::Deleting);
        self.delete_condemned(&collections, number, condemned, fences, &mut report).await?;
        Ok(report)
    }

    /// Learns of rotations since the repository was opened: what is copied is to be sealed under the newest keys, and what
    /// others have sealed under them is to be read.
    async fn learn_keys(&self, options: &GcOptions) -> Result<()> {
        match self.refresh_keys().await {
            Err(error) if !options.rewrite_old_keys => {
                tracing::warn!(%error, "a collection goes on with the keys that it knows");
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

impl GcPlan {
    fn to_finish(before: Standing, options: GcOptions) -> Self {
        Self {
            unfinished: Some(before.number),
            snapshots: 0,
            undeletable: 0,
            forgotten: 0,
            needed_blobs: 0,
            unneeded_blobs: 0,
            pack_bytes: 0,
            packs: Vec::new(),
            spared_packs: 0,
            segments: 0,
            old_packs: 0,
            old_pack_bytes: 0,
            old_segments: 0,
            leftovers: 0,
            options,
            before,
            survey: None,
        }
    }

    fn of(survey: Survey, before: Standing, options: GcOptions) -> Self {
        Self {
            unfinished: None,
            snapshots: survey.snapshots,
            undeletable: survey.undeletable,
            forgotten: crate::collection::Numbers::count(&survey.records),
            needed_blobs: survey.needed_blobs,
            unneeded_blobs: survey.unneeded_blobs,
            pack_bytes: survey.pack_bytes,
            packs: survey.fates.clone(),
            spared_packs: survey.spared,
            segments: survey.segments.len() as u64,
            old_packs: survey.old.packs.len() as u64,
            old_pack_bytes: survey.old.bytes(),
            old_segments: survey.old.segments.len() as u64,
            leftovers: survey.leftovers,
            options,
            before,
            survey: Some(survey),
        }
    }
}
