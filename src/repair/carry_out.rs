//! The steps of a plan, in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::blobs::{BlobWriter, Condemned, Evidence, LookUp, Treatment, WriteOptions};
use crate::clock::Timestamp;
use crate::collection::{Authority, Collections, Plan, State};
use crate::cpu;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId, WriterId};
use crate::index::{RecentPack, SegmentBuilder, Want};
use crate::layout::Name;
use crate::merge::{MergeReport, Salvaged, open_block};
use crate::object::verify_id;
use crate::pack::{BlockKind, Encoding, PACK_MAX};
use crate::progress::{Phase, Progress};
use crate::repair::packs::PackWork;
use crate::repair::{RepairAction, RepairPlan, RepairReport};
use crate::repository::Repository;

/// A segment that describes packs is written when it has so many blobs.
const SEGMENT_BLOBS: usize = 1 << 19;

impl Repository {
    pub(super) async fn carry_out(&self, plan: RepairPlan, progress: Arc<dyn Progress>) -> Result<RepairReport> {
        if !plan.is_due() {
            return Ok(RepairReport { undone: plan.steps, lost: plan.lost, ..RepairReport::default() });
        }
        let RepairPlan { steps, lost, options, small, mut series, packs, .. } = plan;
        let mut report = RepairReport::default();
        progress.phase(Phase::Copying);
        let (copied, deleted) = self.repair_small(small).await?;
        (report.objects_copied, report.deleted) = (copied, deleted);
        let collections = Collections::new(self.parts().clone());
        let collection = collections.standing().await?.number;
        if let Some(other) = &options.other {
            self.copy_objects(other, &packs, &mut report).await?;
        }
        self.copy_blobs(options.other.as_ref(), &packs, &mut report).await?;
        self.describe_packs(&packs, &mut report).await?;

        // Only now: whoever reads a record finds what it needs.
        let (copied, deleted, forgotten) = self.repair_records(&mut series, self.window(options.undelete_for)).await?;
        report.objects_copied += copied;
        report.deleted += deleted;
        report.forgotten = forgotten;

        progress.phase(Phase::Deleting);
        self.delete_damaged(&packs, collection, &mut report).await?;
        progress.phase(Phase::Committing);
        // What is damaged may still be there: a collection is under way, or the store doesn't let it be deleted.
        for rewrite in std::mem::take(&mut series.rewrites) {
            let window = self.window(options.undelete_for);
            self.rewrite_series(rewrite, &packs.packs_gone, window, &mut report).await?;
        }
        report.undone = steps.into_iter().filter(|step| step.action == RepairAction::None).collect();
        let given_up = |series: &str, number| report.forgotten.iter().any(|it| it.0 == series && it.1 == number);
        (report.given_up, report.lost) = lost.into_iter().partition(|loss| given_up(&loss.series, loss.number));
        Ok(report)
    }

    fn window(&self, time: Duration) -> (Timestamp, Timestamp) {
        let now = self.surroundings().clock.now();
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        (now, Timestamp::from_nanos(now.as_nanos().saturating_add(nanos)))
    }

    /// Takes packs and segments from the copy, under their names.
    async fn copy_objects(&self, other: &Repository, work: &PackWork, report: &mut RepairReport) -> Result<()> {
        let packs = work.copied.iter().map(|id| (Name::Pack(*id), *id));
        let segments = work.segments_copied.iter().map(|id| (Name::Index(*id), *id));
        for (name, id) in packs.chain(segments) {
            let text = name.to_string();
            let limit = other.store().length(&text).await?;
            let bytes = other.store().get(&text, limit).await?;
            verify_id(&bytes, &id, &text)?;
            self.replace(name, bytes).await?;
            report.objects_copied += 1;
        }
        self.index().refresh(Want::Bulk).await
    }

    /// Stores what can be read of damaged packs, and what only the copy has, in new packs that a segment describes.
    async fn copy_blobs(&self, other: Option<&Repository>, work: &PackWork, report: &mut RepairReport) -> Result<()> {
        if work.salvage.is_empty() && work.fetch.is_empty() {
            return Ok(());
        }
        // No writer relies on the copies before they are described, and no collection is begun before they are.
        let id = WriterId::new(self.surroundings().random());
        let options = WriteOptions { look_up: LookUp::Nothing, held_max: usize::MAX, ..WriteOptions::default() };
        let evidence = Evidence::new(Condemned::default());
        let mut writer = BlobWriter::new(self.parts().clone(), id, evidence, options);
        for (pack, blocks) in &work.salvage {
            report.blobs_salvaged += self.salvage(*pack, blocks, &mut writer).await?;
        }
        if let Some(other) = other {
            for (id, kind) in &work.fetch {
                let blob = other.reader().read(*kind, id).await?;
                writer.add(*kind, *id, blob, Treatment::Compress).await?;
                report.blobs_copied += 1;
            }
        }
        writer.flush().await?;
        report.packs_written += writer.stats().packs;
        report.segments_written += 1;
        Ok(())
    }

    /// Stores the blobs of some blocks of a damaged pack.
    async fn salvage(&self, pack: ObjectId, blocks: &[Salvaged], writer: &mut BlobWriter) -> Result<u64> {
        let bytes = self.store().get(&Name::Pack(pack).to_string(), PACK_MAX).await?;
        let mut blobs = 0;
        for block in blocks {
            for (id, blob) in self.open_salvaged(&bytes, block).await? {
                let raw = block.place.encoding == Encoding::Raw && block.place.kind == BlockKind::Data;
                let treatment = if raw { Treatment::Raw } else { Treatment::Compress };
                writer.add(block.place.kind, id, blob, treatment).await?;
                blobs += 1;
            }
            writer.end_file().await?;
        }
        Ok(blobs)
    }

    async fn open_salvaged(&self, pack: &Bytes, block: &Salvaged) -> Result<Vec<(BlobId, Bytes)>> {
        let (pack, wanted, keyring) = (pack.clone(), block.clone(), Arc::clone(self.keyring()));
        let opened = cpu::start(move || open_block(&pack, &wanted, &keyring)).await?;
        if opened.len() == block.blobs.len() {
            Ok(opened)
        } else {
            // What was planned to be copied must be, or it would be lost with its pack.
            let reason = "more of it is damaged than when this was planned; plan anew";
            Err(Error::conflict(Name::Pack(block.row.id), reason))
        }
    }

    async fn describe_packs(&self, work: &PackWork, report: &mut RepairReport) -> Result<()> {
        let (mut builder, mut blobs) = (SegmentBuilder::default(), 0);
        for (id, length) in &work.describe {
            let pack = RecentPack::read(*id, *length, self.store(), self.keyring()).await?;
            builder.add_pack(pack.row, &pack.footer)?;
            blobs += pack.len();
            if blobs >= SEGMENT_BLOBS {
                self.index().publish(std::mem::take(&mut builder), self.surroundings()).await?;
                report.segments_written += 1;
                blobs = 0;
            }
        }
        if !builder.is_empty() {
            self.index().publish(builder, self.surroundings()).await?;
            report.segments_written += 1;
        }
        Ok(())
    }

    /// Deletes damaged packs, and segments that are damaged or point into such, by a collection after number `last`.
    async fn delete_damaged(&self, work: &PackWork, last: u64, report: &mut RepairReport) -> Result<()> {
        let collections = Collections::new(self.parts().clone());
        let something_goes = !work.packs_gone.is_empty() || !work.segments_gone.is_empty();
        let before = loop {
            let standing = collections.standing().await?;
            match &standing.state {
                State::Idle(_) => break standing,
                State::Open(plan) if self.delete_condemned_already(plan, work, report).await? => {}
                State::Open(plan) if plan.authority == Authority::Unneeded => return Ok(()),
                State::Open(plan) if plan.authority == Authority::Copied && !something_goes => return Ok(()),
                State::Open(plan) => {
                    if !self.finish_counted(&collections, standing.number, plan, report).await? {
                        return Ok(());
                    }
                }
            }
        };
        if !something_goes {
            return Ok(());
        }
        if before.number != last {
            // What was copied may have seemed unneeded to it, as long as the damaged packs are there.
            let reason = "one was begun while this repair copied; plan anew";
            return Err(Error::conflict("the collection", reason));
        }
        let inherited = match &before.state {
            State::Idle(ended) => ended.clone(),
            State::Open(plan) => plan.inherited.clone(),
        };
        let packs = work.packs_gone.iter().copied().collect();
        let segments = work.segments_gone.iter().copied().collect();
        let plan = Plan { authority: Authority::Damaged, packs, segments, inherited, ..Plan::default() };
        let Some(number) = collections.begin(&before, plan.clone()).await? else {
            return Err(Error::conflict("the collection", "another one was begun since this was planned; plan anew"));
        };
        self.finish_counted(&collections, number, &plan, report).await.map(drop)
    }

    /// Deletes what is damaged and was condemned before it was found to be, so that it doesn't keep its collection from
    /// coming to an end; whether there was anything.
    async fn delete_condemned_already(&self, open: &Plan, work: &PackWork, report: &mut RepairReport) -> Result<bool> {
        let condemned = Condemned::new(open.packs.clone());
        let packs = work.packs_gone.iter().filter(|pack| condemned.contains(pack)).map(|id| Name::Pack(*id));
        let segments = work.segments_gone.iter().filter(|id| open.segments.contains(id)).map(|id| Name::Index(*id));
        let mut any = false;
        for name in packs.chain(segments) {
            match self.store().length(&name.to_string()).await {
                Err(error) if error.is_not_found() => continue,
                other => other.map(drop)?,
            }
            if self.delete(name).await? {
                report.deleted += 1;
                any = true;
            }
        }
        Ok(any)
    }

    async fn finish_counted(
        &self,
        collections: &Collections,
        number: u64,
        plan: &Plan,
        report: &mut RepairReport,
    ) -> Result<bool> {
        let mut swept = MergeReport::default();
        self.finish(collections, number, plan, &mut swept).await?;
        report.deleted += swept.packs_deleted + swept.segments_deleted;
        report.packs_written += swept.packs_written;
        report.left += swept.left;
        Ok(swept.left == 0)
    }
}
