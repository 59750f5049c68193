//! From a plan to `gc/n`: what is needed is copied first, and that it is safe is looked at once more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};

use crate::blobs::list_packs;
use crate::collection::{Authority, Collections, Ended, Plan, Standing, State};
use crate::error::{Error, Result};
use crate::gc::marks::Marks;
use crate::gc::survey::Survey;
use crate::gc::{GcReport, PackFate, PackReason};
use crate::id::{BlobId, ObjectId};
use crate::index::{PackRef, RecentPack};
use crate::merge::{Copied, MergeReport};
use crate::repository::Repository;

/// What is copied at a time, in bytes of packs: nodes with children are held in memory meanwhile.
const BATCH: u64 = 64 << 20;

/// Packs that one segment describes for the first time.
const DESCRIBED: usize = 512;

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
        let Survey { fates, old, segments, records, marked, registered, marks, undescribed, listed, .. } = survey;
        // What a writer has stored since may be named by no record in the end, so that nobody would find it there.
        let mut listed = Arc::new(listed);
        let mut going: HashSet<ObjectId> = fates.iter().map(|fate| fate.pack).collect();
        let rewritten = fates.iter().filter(|fate| fate.reason != PackReason::Unneeded);
        let rewritten: Vec<_> = rewritten.map(|fate| (fate.pack, fate.bytes)).collect();
        let mut own = HashSet::new();
        for batch in batches(rewritten) {
            let copied = self.copy_needed(&batch, &marks, (&listed, &going), report).await?;
            Arc::make_mut(&mut listed).extend(copied.written.iter().copied());
            own.extend(copied.written);
            // What can't be read is no reason to delete it.
            batch.iter().filter(|(pack, _)| !copied.packs.contains(pack)).for_each(|(pack, _)| {
                going.remove(pack);
            });
        }
        let relied = self.spare_what_is_needed(&marks, (&listed, &own), &mut going, fates).await?;

        // What is needed of them may have been elsewhere as well, and only there so that it could be found.
        let undescribed = undescribed.into_iter().map(|pack| (pack.id, pack)).chain(relied);
        let stay: BTreeMap<_, _> = undescribed.filter(|(id, _)| !going.contains(id)).collect();
        let stay: Vec<_> = stay.into_values().collect();
        for group in stay.chunks(DESCRIBED) {
            self.index().describe(group, self.surroundings()).await?;
        }

        let gone: BTreeSet<ObjectId> = going.iter().copied().collect();
        let mut merged = BTreeSet::new();
        for batch in batches(segments) {
            merged.extend(self.merge_segments(&batch, &gone).await?);
        }
        report.count_old(&old, &gone, &merged);
        let packs = gone.into_iter().collect();
        let inherited = match &before.state {
            State::Idle(ended) => Ended { fenced: Vec::new(), ..ended.clone() },
            State::Open(_) => return Err(Error::worker("a collection was planned while another was open")),
        };
        let segments = merged.into_iter().collect();
        let authority = Authority::Unneeded;
        let plan = Plan { authority, packs, segments, records, marked, registered, inherited };
        match Collections::new(self.parts().clone()).begin(&before, plan.clone()).await? {
            Some(number) => Ok((number, plan, marks)),
            None => Err(Error::conflict("the collection", "another one was begun since it was planned; plan anew")),
        }
    }

    /// Copies what is needed of some packs and isn't in one that stays.
    async fn copy_needed(
        &self,
        packs: &[(ObjectId, u64)],
        marks: &Arc<Marks>,
        (listed, going): (&Arc<HashSet<ObjectId>>, &HashSet<ObjectId>),
        report: &mut GcReport,
    ) -> Result<Copied> {
        let (there, listed) = (list_packs(self.store()).await?, Arc::clone(listed));
        let (marks, going, index) = (Arc::clone(marks), going.clone(), Arc::clone(self.index()));
        let is_wanted = move |id: &BlobId| {
            let stays = |pack: &ObjectId| listed.contains(pack) && there.contains(pack) && !going.contains(pack);
            Ok(marks.is_needed(id)? && index.find_in(id, stays)?.is_none())
        };
        let mut written = MergeReport::default();
        let copied = self.copy_packs(packs, Arc::new(is_wanted), &mut written).await?;
        report.add_written(written);
        Ok(copied)
    }

    /// Takes packs off those that go unless everything that is needed of them is in one that stays.
    ///
    /// What is in them their footers say, and the copies are read, unless they were made just now: what segments say of
    /// either could have been written by whoever can add. Packs with copies that no segment tells of are returned: some
    /// record names them, which others don't read.
    async fn spare_what_is_needed(
        &self,
        marks: &Marks,
        (listed, own): (&HashSet<ObjectId>, &HashSet<ObjectId>),
        going: &mut HashSet<ObjectId>,
        fates: Vec<PackFate>,
    ) -> Result<BTreeMap<ObjectId, PackRef>> {
        let mut there = list_packs(self.store()).await?;
        there.retain(|pack| listed.contains(pack));
        let ground = Ground { marks, own, there: &there, going: &*going, relied: Mutex::default() };
        let fates = fates.into_iter().filter(|fate| ground.going.contains(&fate.pack));
        let mut looked = futures::stream::iter(fates).map(|fate| self.may_go(fate, &ground)).buffer_unordered(READS);
        let mut spared = Vec::new();
        while let Some((pack, may_go)) = looked.try_next().await? {
            if !may_go {
                spared.push(pack);
            }
        }
        drop(looked);
        let relied = ground.relied.into_inner().unwrap_or_else(PoisonError::into_inner);
        spared.iter().for_each(|pack| {
            going.remove(pack);
        });
        Ok(relied)
    }

    async fn may_go(&self, fate: PackFate, ground: &Ground<'_>) -> Result<(ObjectId, bool)> {
        let PackFate { pack, bytes, .. } = fate;
        let footer = match RecentPack::read(pack, bytes, self.store(), self.keyring()).await {
            Ok(footer) => footer,
            Err(error @ Error::Store { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(%pack, %error, "a pack that isn't needed can't be read, and is left alone");
                return Ok((pack, false));
            }
        };
        for id in footer.ids() {
            if ground.marks.is_needed(&id)? && !self.has_copy(&id, ground).await? {
                tracing::warn!(%pack, %id, "a pack is kept, since a copy of what is in it isn't what it should be");
                return Ok((pack, false));
            }
        }
        Ok((pack, true))
    }

    /// Whether a blob is in a pack that stays.
    async fn has_copy(&self, id: &BlobId, ground: &Ground<'_>) -> Result<bool> {
        // What is told by segments, or will be, comes first.
        let mut places = ground.marks.places(id)?;
        let told = places.clone();
        places.extend(self.index().places(id)?);
        if places.iter().any(|location| ground.own.contains(&location.pack.id)) {
            return Ok(true);
        }
        places.retain(|location| ground.stays(&location.pack.id));
        for location in places {
            match self.reader().read_at(location.place.kind, id, &location).await {
                Ok(_) => {
                    if !told.contains(&location)
                        && let Some(pack) = self.index().recent(&location.pack.id)
                    {
                        ground.relied.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.id, pack);
                    }
                    return Ok(true);
                }
                Err(error @ Error::Store { .. }) => return Err(error),
                Err(error) => tracing::warn!(%id, pack = %location.pack.id, %error, "a copy can't be read"),
            }
        }
        Ok(false)
    }
}

/// Which packs stay.
struct Ground<'a> {
    marks: &'a Marks,
    /// Packs that this collection has written.
    own: &'a HashSet<ObjectId>,
    /// Those that the survey saw and that are still there.
    there: &'a HashSet<ObjectId>,
    going: &'a HashSet<ObjectId>,
    /// Packs that stay, and whose copies count though no segment tells of them.
    relied: Mutex<BTreeMap<ObjectId, PackRef>>,
}

impl Ground<'_> {
    fn stays(&self, pack: &ObjectId) -> bool {
        self.there.contains(pack) && !self.going.contains(pack)
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
