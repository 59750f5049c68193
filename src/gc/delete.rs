//! The deletions, and the end.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};

use crate::blobs::{Condemned, list_packs};
use crate::collection::{Collections, Ended, Numbers, Plan};
use crate::error::{Error, Result};
use crate::gc::GcReport;
use crate::gc::writers::Fence;
use crate::layout::{self, Name};
use crate::merge::lengths;
use crate::repository::Repository;

/// Deletions at a time.
const DELETIONS: usize = 16;

impl Repository {
    /// Deletes what collection `number` has condemned, and ends it unless something of that stays.
    pub(super) async fn delete_condemned(
        &self,
        collections: &Collections,
        number: u64,
        plan: Plan,
        fences: Vec<Fence>,
        report: &mut GcReport,
    ) -> Result<()> {
        // Who ended it meanwhile has removed the registrations that he fenced, which then seemed to have ended by
        // themselves: where their records may yet be put only his word says.
        if !collections.is_open(number).await? {
            report.finished = true;
            return Ok(());
        }
        self.delete_packs(&plan, report).await?;
        if !report.left.is_empty() {
            // As long as it is there nobody may rely on it, so the collection stays open.
            return Ok(());
        }
        self.delete_segments(&plan, report).await?;
        if !report.left.is_empty() {
            return Ok(());
        }
        let mut ended = plan.inherited.clone();
        ended.fenced = fences.iter().map(|fence| fence.writer).collect();
        ended.fenced.sort_unstable();
        for Fence { tag, run, .. } in fences {
            Numbers::add(&mut ended.pinned, tag, run);
        }
        self.delete_records(&plan, &ended, report).await?;
        self.tidy_lists(report).await?;
        self.tidy_slots(report).await?;
        self.tidy_probes(report).await?;
        report.temporary_files = self.store().sweep_temporary(self.surroundings().clock.now()).await?;
        let ended = collections.end(number, ended).await?;
        // Only now, and only those of which it is written down where their records may yet be put.
        for writer in ended.fenced {
            self.remove(Name::Writer(writer), report).await?;
        }
        report.finished = true;
        Ok(())
    }

    async fn delete_packs(&self, plan: &Plan, report: &mut GcReport) -> Result<()> {
        let condemned = Condemned::new(plan.packs.clone());
        let listed = self.store().list(layout::PACKS).await?;
        let doomed: Vec<_> = lengths(listed, layout::parse_pack).filter(|(id, _)| condemned.contains(id)).collect();
        let delete = |(id, length)| async move { Ok::<_, Error>((id, length, self.delete(Name::Pack(id)).await?)) };
        let mut deleting = futures::stream::iter(doomed).map(delete).buffer_unordered(DELETIONS);
        let mut gone = Vec::new();
        while let Some((id, length, deleted)) = deleting.try_next().await? {
            if deleted {
                gone.push(id);
                report.packs_deleted += 1;
                report.bytes_deleted += length;
            } else {
                report.left.push(Name::Pack(id).to_string());
            }
        }
        drop(deleting);
        self.index().forget_gone(gone);
        Ok(())
    }

    async fn delete_segments(&self, plan: &Plan, report: &mut GcReport) -> Result<()> {
        let there = list_packs(self.store()).await?;
        let swept = self.sweep_segments(&plan.segments, &there, &HashSet::new()).await?;
        report.segments_deleted += swept.deleted;
        report.left.extend(swept.left.into_iter().map(|id| Name::Index(id).to_string()));
        Ok(())
    }

    /// Deletes the records of snapshots that were forgotten, but for those whose place a fenced writer may yet take.
    async fn delete_records(&self, plan: &Plan, ended: &Ended, report: &mut GcReport) -> Result<()> {
        for name in self.timelines().lines(None).await?.names {
            let is_condemned = Numbers::contain(&plan.records, &name.tag, name.number);
            if is_condemned && !Numbers::contain(&ended.pinned, &name.tag, name.number) {
                report.records_deleted += u64::from(self.remove(Name::Commit(name), report).await?);
            }
        }
        Ok(())
    }

    /// Deletes lists of what counts that newer ones replace.
    async fn tidy_lists(&self, report: &mut GcReport) -> Result<()> {
        let newest = self.timelines().kept_of(None).await?;
        for listed in self.store().list(layout::KEPT).await? {
            if let Some(name @ Name::Kept(tag, number)) = Name::parse(&listed.name)
                && newest.get(&tag).is_some_and(|newest| number < newest.number)
            {
                self.remove(name, report).await?;
            }
        }
        Ok(())
    }

    /// Deletes key slots that open nothing: a creation or an addition that was cut off leaves one behind.
    async fn tidy_slots(&self, report: &mut GcReport) -> Result<()> {
        for id in self.needless_slots().await? {
            self.remove(Name::Key(id), report).await?;
        }
        Ok(())
    }

    /// Deletes what tests of the store's rights left behind; one that runs is told that its object is gone, no more.
    async fn tidy_probes(&self, report: &mut GcReport) -> Result<()> {
        for listed in self.store().list(layout::PROBES).await? {
            if let Some(name @ Name::Probe(_)) = Name::parse(&listed.name) {
                self.remove(name, report).await?;
            }
        }
        Ok(())
    }

    /// Deletes an object that does no harm where it stays; says so if the store doesn't allow it.
    async fn remove(&self, name: Name, report: &mut GcReport) -> Result<bool> {
        let deleted = self.delete(name).await?;
        if !deleted {
            report.left.push(name.to_string());
        }
        Ok(deleted)
    }
}
