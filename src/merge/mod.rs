//! Merging: many small packs and index segments into few large ones.
//!
//! ```text
//! plan ──> copy small packs' blobs ──> merge segments ──> begin gc/n ──> delete what is told twice ──> end gc/n
//! ```
//! A feed makes a small pack with every commit, and a small segment now and then.
//! Left alone they would make opening, reading and collecting cost more and more.
//! They are merged by tiers: when enough of about one size have come together,
//! they become one of the next size, so that a blob is copied a bounded number
//! of times.
//!
//! Merging copies; only a collection deletes. The collection that a merge begins
//! condemns what is told twice, and nothing else: a pack all of whose blobs lie
//! in packs that stay, a segment all of whose entries stand in segments that stay.
//! Each is verified against a fresh listing before it is deleted (`sweep`). So
//! nothing that could be read before can't be read afterwards, whatever writers
//! and readers run beside it, and whoever finds it unfinished may finish it.
//!
//! What lies on the store is believed only as far as it was read: a pack is copied
//! if its bytes have its name, and goes by its whole name; of two copies of a blob
//! one is deleted only after the other was read, or was written by this very merge.
//!
//! - `copy`, `segments`, `sweep`: the three steps. `salvage`: what can be read of a damaged pack. `damaged`: finishing
//!   a collection of such.

mod copy;
mod damaged;
mod salvage;
mod segments;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use copy::Copied;
pub(crate) use salvage::{Examined, Salvaged, examine_pack, open_block};

use crate::collection::{Authority, Collections, Plan, State};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::layout;
use crate::repository::Repository;
use crate::store::Listed;

/// Packs from this length on are left as they are.
const PACK_LARGE: u64 = 8 << 20;

/// So many packs of a tier are merged.
const PACKS_MIN: usize = 32;

/// So many segments of a tier are merged.
const SEGMENTS_MIN: usize = 8;

/// Segments from this length on are left as they are: a merge holds what it merges in memory.
const SEGMENT_LARGE: u64 = 32 << 20;

/// What one merge copies at most, in bytes of packs: it holds all nodes with children in memory.
const COPY_MAX: u64 = 64 << 20;

/// What could be merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergePlan {
    /// Small packs whose blobs would be copied together.
    pub packs: u64,
    /// Their length, in bytes.
    pub pack_bytes: u64,
    /// Index segments that would become one.
    pub segments: u64,
    /// Their length, in bytes.
    pub segment_bytes: u64,
    /// Whether a merge was cut off before it had deleted what it merged; the next one goes on with it.
    pub unfinished: bool,
    chosen_packs: Vec<(ObjectId, u64)>,
    chosen_segments: Vec<(ObjectId, u64)>,
}

impl MergePlan {
    /// Whether there is something to do.
    pub fn is_due(&self) -> bool {
        self.packs > 0 || self.segments > 0 || self.unfinished
    }
}

/// What a merge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeReport {
    /// Packs that were written.
    pub packs_written: u64,
    /// Their length, in bytes.
    pub bytes_written: u64,
    /// Packs that were deleted, since everything in them is elsewhere.
    pub packs_deleted: u64,
    /// Index segments that were deleted, since others say the same.
    pub segments_deleted: u64,
    /// Packs and segments that could not be deleted, because the store refuses or they can't be read. As long as there
    /// are any, later merges only try to delete them.
    pub left: u64,
}

impl Repository {
    /// Looks what there is to merge: two or three listings.
    pub async fn plan_merge(&self) -> Result<MergePlan> {
        self.plan_merge_of(PACKS_MIN, SEGMENTS_MIN).await
    }

    /// The same where a tier is merged from so many packs, or so many segments, on.
    pub(crate) async fn plan_merge_of(&self, packs_min: usize, segments_min: usize) -> Result<MergePlan> {
        let collections = Collections::new(self.parts().clone());
        let unfinished = collections.standing().await?.open().is_some_and(|plan| plan.authority != Authority::Unneeded);
        let (index, packs) = futures::try_join!(self.store().list(layout::INDEX), self.store().list(layout::PACKS))?;
        let (packs, segments) = (lengths(packs, layout::parse_pack), lengths(index, layout::parse_segment));
        let chosen_packs = choose(packs, PACK_LARGE, packs_min, COPY_MAX);
        // Small segments say mostly where the blobs of small packs are.
        let least = if chosen_packs.is_empty() { segments_min } else { 1 };
        let chosen_segments = choose(segments, SEGMENT_LARGE, least, 2 * SEGMENT_LARGE);
        Ok(MergePlan {
            packs: chosen_packs.len() as u64,
            pack_bytes: chosen_packs.iter().map(|(_, length)| length).sum(),
            segments: chosen_segments.len() as u64,
            segment_bytes: chosen_segments.iter().map(|(_, length)| length).sum(),
            unfinished,
            chosen_packs,
            chosen_segments,
        })
    }

    /// Merges small packs and index segments, and deletes those whose content is elsewhere now.
    ///
    /// May run beside readers and writers of other processes, and may be dropped: what it copied stays, and the next
    /// merge goes on. If another merge runs at the same time, one of them deletes; while a collection is under way
    /// nothing is merged.
    ///
    /// # Errors
    /// [`crate::Error::AppendOnly`] if the repository was opened with a secret that may not delete.
    ///
    /// ```
    /// # use backstop::*; async fn f(repository: &Repository) -> Result<()> {
    /// let plan = repository.plan_merge().await?;
    /// if plan.is_due() {
    ///     let report = repository.merge(&plan).await?;
    ///     println!("{} packs became {}", report.packs_deleted, report.packs_written);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn merge(&self, plan: &MergePlan) -> Result<MergeReport> {
        self.require_administrator("merge")?;
        let collections = Collections::new(self.parts().clone());
        let mut report = MergeReport::default();
        let (before, inherited) = loop {
            let standing = collections.standing().await?;
            match &standing.state {
                State::Idle(ended) => break (standing.clone(), ended.clone()),
                // It merges as well, and who runs it finishes it.
                State::Open(plan) if plan.authority == Authority::Unneeded => return Ok(report),
                State::Open(plan) => {
                    Box::pin(self.finish(&collections, standing.number, plan, &mut report)).await?;
                    if report.left > 0 {
                        return Ok(report);
                    }
                }
            }
        };
        let copied = self.copy_packs(&plan.chosen_packs, Arc::new(|_| Ok(true)), &mut report).await?;
        let merged = self.merge_segments(&plan.chosen_segments, &copied.packs).await?;
        if copied.packs.is_empty() && merged.is_empty() {
            return Ok(report);
        }
        let (packs, segments) = (copied.packs.iter().copied().collect(), merged.into_iter().collect());
        let condemned = Plan { packs, segments, inherited, ..Plan::default() };
        if let Some(number) = collections.begin(&before, condemned.clone()).await? {
            // On the heap, since it is large and callers' stacks needn't be.
            Box::pin(self.sweep(&collections, number, &condemned, copied, &mut report)).await?;
        }
        Ok(report)
    }

    /// Carries out a collection for which no writer need be waited: of what was copied, or of what is damaged.
    pub(crate) async fn finish(
        &self,
        collections: &Collections,
        number: u64,
        plan: &Plan,
        report: &mut MergeReport,
    ) -> Result<()> {
        match plan.authority {
            Authority::Copied => self.sweep(collections, number, plan, Copied::default(), report).await,
            Authority::Damaged => self.sweep_damaged(collections, number, plan, report).await,
            Authority::Unneeded => Err(Error::worker("a collection was to be finished that must wait for writers")),
        }
    }
}

/// The objects of a listing that have such a name, with their lengths.
pub(crate) fn lengths(
    listed: Vec<Listed>,
    parse: fn(&str) -> Option<ObjectId>,
) -> impl Iterator<Item = (ObjectId, u64)> {
    listed.into_iter().filter_map(move |listed| Some((parse(&listed.name)?, listed.length)))
}

/// Which packs are small enough, and enough of them, to be merged.
pub(crate) fn choose_packs(packs: impl Iterator<Item = (ObjectId, u64)>) -> Vec<(ObjectId, u64)> {
    choose(packs, PACK_LARGE, PACKS_MIN, u64::MAX)
}

/// The same of index segments.
pub(crate) fn choose_segments(segments: impl Iterator<Item = (ObjectId, u64)>) -> Vec<(ObjectId, u64)> {
    choose(segments, SEGMENT_LARGE, SEGMENTS_MIN, u64::MAX)
}

/// Those of a tier that holds enough of them, up to `most` bytes together. A tier is a factor of eight in length.
fn choose(listed: impl Iterator<Item = (ObjectId, u64)>, large: u64, least: usize, most: u64) -> Vec<(ObjectId, u64)> {
    let mut tiers = BTreeMap::<u32, BTreeSet<(u64, ObjectId)>>::new();
    for (id, length) in listed.filter(|(_, length)| *length < large) {
        tiers.entry(length.max(1).ilog2() / 3).or_default().insert((length, id));
    }
    let mut chosen = Vec::new();
    let mut bytes = 0;
    // A tier takes in those below it, which would soon follow.
    let mut smaller = Vec::new();
    for tier in tiers.into_values() {
        smaller.extend(tier);
        if smaller.len() >= least {
            for (length, id) in smaller.drain(..) {
                if length <= most.saturating_sub(bytes) {
                    bytes += length;
                    chosen.push((id, length));
                }
            }
        }
    }
    chosen
}
