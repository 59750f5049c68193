//! From a plan to `gc/n`: what is needed is copied first, and that it is safe is looked at once more.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::blobs::{Condemned, list_packs};
use crate::collection::{Authority, Collections, Plan, Standing, State};
use crate::cpu;
use crate::error::{Error, Result};
use crate::gc::marks::Marks;
use crate::gc::survey::{Doubled, Survey, kept_places};
use crate::gc::{GcReport, PackReason};
use crate::id::{BlobId, ObjectId};
use crate::merge::MergeReport;
use crate::repository::Repository;

/// What is copied at a time, in bytes of packs: nodes with children are held in memory meanwhile.
const BATCH: u64 = 64 << 20;

/// Copies read at a time.
const READS: usize = 16;

impl Repository {
    /// Copies what is needed out of packs that are rewritten, and publishes what goes.
    pub(super) async fn condemn(
        &self,
        before: Standing,
        survey: Survey,
        report: &mut GcReport,
    ) -> Result<(u64, Plan, Arc<Marks>)> {
        let Survey { fates, segments, records, marked, marks, .. } = survey;
        let mut going: HashSet<ObjectId> = fates.iter().map(|fate| fate.pack).collect();
        let rewritten = fates.iter().filter(|fate| fate.reason != PackReason::Unneeded);
        let rewritten: Vec<_> = rewritten.map(|fate| (fate.pack, fate.bytes)).collect();
        for batch in batches(rewritten) {
            let copied = self.copy_needed(&batch, &marks, &going, report).await?;
            // What can't be read is no reason to delete it.
            batch.iter().filter(|(pack, _)| !copied.contains(pack)).for_each(|(pack, _)| {
                going.remove(pack);
            });
        }
        self.spare_what_is_needed(&marks, &mut going).await?;

        let gone: BTreeSet<ObjectId> = going.iter().copied().collect();
        let mut merged = BTreeSet::new();
        for batch in batches(segments) {
            merged.extend(self.merge_segments(&batch, &gone).await?);
        }
        let mut packs: Vec<_> = going.iter().map(Condemned::prefix).collect();
        packs.sort_unstable();
        packs.dedup();
        let inherited = match &before.state {
            State::Idle(ended) => ended.clone(),
            State::Open(_) => return Err(Error::worker("a collection was planned while another was open")),
        };
        let segments = merged.into_iter().collect();
        let plan = Plan { authority: Authority::Unneeded, packs, segments, records, marked, inherited };
        match Collections::new(self.parts().clone()).begin(&before, plan.clone()).await? {
            Some(number) => Ok((number, plan, marks)),
            None => Err(Error::conflict("the collection", "another one was begun since it was planned; plan anew")),
        }
    }

    /// Copies what is needed of some packs and isn't in one that stays; the packs that were read.
    async fn copy_needed(
        &self,
        packs: &[(ObjectId, u64)],
        marks: &Arc<Marks>,
        going: &HashSet<ObjectId>,
        report: &mut GcReport,
    ) -> Result<BTreeSet<ObjectId>> {
        let there = list_packs(self.store()).await?;
        let (marks, going, index) = (Arc::clone(marks), going.clone(), Arc::clone(self.index()));
        let is_wanted = move |id: &BlobId| {
            let stays = |pack: &ObjectId| there.contains(pack) && !going.contains(pack);
            Ok(marks.is_marked(id)? && index.find_in(id, stays)?.is_none())
        };
        let mut written = MergeReport::default();
        let copied = self.copy_packs(packs, Arc::new(is_wanted), &mut written).await?;
        report.add_written(written);
        Ok(copied)
    }

    /// Takes packs off the list of those that go unless everything that is needed of them is in one that stays.
    ///
    /// What a segment says of the other copy isn't believed: it is read. Whoever can add could have written it.
    async fn spare_what_is_needed(&self, marks: &Arc<Marks>, going: &mut HashSet<ObjectId>) -> Result<()> {
        let there = list_packs(self.store()).await?;
        let (marks, index, doomed) = (Arc::clone(marks), Arc::clone(self.index()), going.clone());
        let looked = cpu::block(move || {
            let (mut spared, mut doubled) = (HashSet::new(), Vec::new());
            marks.for_each(|id, is_needed, places| {
                if !is_needed {
                    return Ok(());
                }
                let (stay, go) = kept_places(places, &there, &doomed);
                let go: Vec<_> = go.into_iter().map(|location| location.pack.id).collect();
                if go.is_empty() {
                    return Ok(());
                }
                // One that was copied just now was verified when its pack was sealed.
                let stays = |pack: &ObjectId| there.contains(pack) && !doomed.contains(pack);
                if !stay.is_empty() {
                    doubled.push(Doubled { id: *id, stay, go });
                } else if index.find_in(id, stays)?.is_none() {
                    spared.extend(go);
                }
                Ok(())
            })?;
            Ok((spared, doubled))
        });
        let (mut spared, doubled) = looked.await?;
        let mut read = futures::stream::iter(doubled).map(|doubled| self.lacks_copy(doubled)).buffer_unordered(READS);
        while let Some(lacking) = read.try_next().await? {
            spared.extend(lacking);
        }
        going.retain(|pack| !spared.contains(pack));
        Ok(())
    }

    /// Reads the copies of a blob that stay until one is sound; if none is, the packs that must not go.
    async fn lacks_copy(&self, doubled: Doubled) -> Result<Vec<ObjectId>> {
        let Doubled { id, stay, go } = doubled;
        for location in stay {
            match self.reader().read_at(location.place.kind, &id, &location).await {
                Ok(_) => return Ok(Vec::new()),
                Err(error @ Error::Store { .. }) => return Err(error),
                Err(error) => tracing::warn!(%id, pack = %location.pack.id, %error, "a copy isn't what it should be"),
            }
        }
        Ok(go)
    }
}

/// Objects with their lengths, in groups.
fn batches(objects: Vec<(ObjectId, u64)>) -> Vec<Vec<(ObjectId, u64)>> {
    let (mut batches, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for (id, length) in objects {
        match batches.last_mut() {
            Some(batch) if bytes + length <= BATCH => {
                batch.push((id, length));
                bytes += length;
            }
            _ => {
                batches.push(vec![(id, length)]);
                bytes = length;
            }
        }
    }
    batches
}
