//! Deletes what a collection condemned, as far as it is there twice.
//!
//! What segments say of copies could have been written by whoever can add. So a
//! pack goes only after the copies of its blobs were read, or if they were written
//! by this very process; and a segment only if others say of each pack the very
//! same, or the pack's footer contradicts it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;

use crate::blobs::{Condemned, list_packs};
use crate::collection::{Collections, Ended, Plan};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{Location, RecentPack, SegmentBuilder, Want};
use crate::layout::{self, Name};
use crate::merge::{Copied, MergeReport, lengths};
use crate::repository::Repository;

/// Footers read at a time.
const FOOTERS: usize = 16;

/// Copies read at a time.
const READS: usize = 16;

/// What came of deleting index segments.
pub(crate) struct Swept {
    pub(crate) deleted: u64,
    pub(crate) left: Vec<ObjectId>,
}

/// What stays, and what is known of it.
struct Ground {
    /// Segments that go, and what they say with them.
    segments: HashSet<ObjectId>,
    /// Packs that stay.
    there: HashSet<ObjectId>,
    /// Blobs that this process has stored again in packs that stay.
    own: HashSet<BlobId>,
}

impl Ground {
    fn take_in(&mut self, copied: Copied) {
        if copied.written.iter().all(|pack| self.there.contains(pack)) {
            self.own.extend(copied.blobs);
        }
    }
}

impl Repository {
    /// Carries out collection `number`, which was begun here or elsewhere, and ends it; `copied` is what was stored again
    /// for it by this process.
    ///
    /// What it condemned is looked at anew: what has become the only place of something is copied first. As long as
    /// something that was condemned is there the collection doesn't end, so that nobody ever relies on that again.
    pub(crate) async fn sweep(
        &self,
        collections: &Collections,
        number: u64,
        plan: &Plan,
        copied: Copied,
        report: &mut MergeReport,
    ) -> Result<()> {
        let condemned = Condemned::new(plan.packs.clone());
        // A segment describes packs that were there before it, so the segments are listed first.
        self.index().refresh(Want::Bulk).await?;
        self.index().require_known()?;
        let listed = self.store().list(layout::PACKS).await?;
        let (mut doomed, kept): (Vec<_>, Vec<_>) =
            lengths(listed, layout::parse_pack).partition(|(id, _)| condemned.contains(id));
        // In the order in which they were copied, so that the copies are read one after the other.
        doomed.sort_unstable_by_key(|(id, length)| (*length, *id));
        let mut ground = Ground {
            segments: plan.segments.iter().copied().collect(),
            there: kept.into_iter().map(|(id, _)| id).collect(),
            own: HashSet::new(),
        };
        ground.take_in(copied);

        let mut gone = Vec::new();
        // What was condemned and stays: nothing relies on it, but what describes it stays as well.
        let mut stays = HashSet::new();
        let mut footers = futures::stream::iter(doomed).map(|(id, length)| self.blobs_of(id, length)).buffered(FOOTERS);
        while let Some((id, length, blobs)) = footers.next().await.transpose()? {
            let elsewhere = match blobs {
                Some(blobs) => self.are_elsewhere((id, length), blobs, &mut ground, report).await?,
                None => false,
            };
            if elsewhere && self.delete(Name::Pack(id)).await? {
                gone.push(id);
                report.packs_deleted += 1;
            } else {
                stays.insert(id);
            }
        }
        drop(footers);
        self.index().forget_gone(gone);
        let swept = self.sweep_segments(&plan.segments, &ground.there, &stays).await?;
        report.segments_deleted += swept.deleted;
        report.left = (stays.len() + swept.left.len()) as u64;
        if report.left == 0 {
            collections.end(number, Ended { fenced: Vec::new(), ..plan.inherited.clone() }).await?;
        }
        Ok(())
    }

    /// Deletes index segments that were merged, unless something that one says of the packs that are `there` is said
    /// nowhere else. What describes a pack that was condemned and `stays` is kept with it.
    pub(crate) async fn sweep_segments(
        &self,
        condemned: &[ObjectId],
        there: &HashSet<ObjectId>,
        stays: &HashSet<ObjectId>,
    ) -> Result<Swept> {
        let segments: HashSet<ObjectId> = condemned.iter().copied().collect();
        let described: HashSet<ObjectId> = there.union(stays).copied().collect();
        let (mut merged, mut left) = (Vec::new(), Vec::new());
        for id in condemned {
            let entries = match self.index().entries_of_segment(id, &described).await {
                Ok(Some(entries)) => entries,
                Ok(None) => continue,
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                    tracing::warn!(segment = %id, %error, "an index segment was merged and can't be read any more");
                    left.push(*id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_needed = entries.iter().any(|(_, location)| stays.contains(&location.pack.id));
            if !is_needed && self.is_said_again(entries, &segments).await? && self.delete(Name::Index(*id)).await? {
                merged.push(*id);
            } else {
                left.push(*id);
            }
        }
        self.index().forget_segments(&merged);
        Ok(Swept { deleted: merged.len() as u64, left })
    }

    /// Whether segments that stay say each of these, which are sorted; what the packs themselves confirm is said again
    /// where none does.
    async fn is_said_again(&self, entries: Vec<(BlobId, Location)>, segments: &HashSet<ObjectId>) -> Result<bool> {
        let mut unsaid = BTreeMap::<ObjectId, Vec<(BlobId, Location)>>::new();
        for (id, location) in self.index().unsaid(entries, segments).await? {
            unsaid.entry(location.pack.id).or_default().push((id, location));
        }
        let mut builder = SegmentBuilder::default();
        for (pack, entries) in unsaid {
            let length = match self.store().length(&Name::Pack(pack).to_string()).await {
                Err(error) if error.is_not_found() => continue,
                other => other?,
            };
            // What can't be read can't be contradicted.
            let Some(footer) = self.footer_of(pack, length).await? else { return Ok(false) };
            for (id, location) in entries {
                if footer.has(&id, &location) {
                    builder.add_blob(id, &location)?;
                }
            }
        }
        self.index().publish(builder, self.surroundings()).await?;
        Ok(true)
    }

    /// Whether all blobs of a condemned pack are in packs that stay; if not, they are copied.
    async fn are_elsewhere(
        &self,
        pack: (ObjectId, u64),
        blobs: Vec<BlobId>,
        ground: &mut Ground,
        report: &mut MergeReport,
    ) -> Result<bool> {
        #[cfg(test)]
        if crate::simulation::has(crate::simulation::Bug::DeletesUncopied) {
            return Ok(true);
        }
        let blobs: Arc<[BlobId]> = blobs.into();
        if self.have_copies(&blobs, ground).await? {
            return Ok(true);
        }
        let copied = Box::pin(self.copy_packs(&[pack], Arc::new(|_| Ok(true)), report)).await?;
        let there = list_packs(self.store()).await?;
        ground.there.extend(copied.written.iter().filter(|pack| there.contains(pack)));
        ground.take_in(copied);
        self.have_copies(&blobs, ground).await
    }

    /// Whether each of some blobs, which are sorted, can be found in a pack that stays, and was read there or put there.
    async fn have_copies(&self, blobs: &Arc<[BlobId]>, ground: &Ground) -> Result<bool> {
        let mut places = self.index().places_of(Arc::clone(blobs), &ground.segments).await?;
        places.retain(|(_, location)| ground.there.contains(&location.pack.id));
        let mut found: HashSet<BlobId> = places.iter().map(|(id, _)| *id).collect();
        found.retain(|id| ground.own.contains(id));
        places.retain(|(id, _)| !found.contains(id));
        // Neighbours come from one block, which is fetched once.
        places.sort_unstable_by_key(|(_, location)| (location.pack.id, location.place.offset, location.at));
        let read = |(id, location): (BlobId, Location)| async move {
            (id, self.reader().read_at(location.place.kind, &id, &location).await)
        };
        let mut reading = futures::stream::iter(places).map(read).buffered(READS);
        while let Some((id, copy)) = reading.next().await {
            match copy {
                Ok(_) => {
                    found.insert(id);
                }
                Err(error @ Error::Store { .. }) => return Err(error),
                Err(error) => tracing::warn!(%id, %error, "a copy of what was merged can't be read"),
            }
        }
        Ok(blobs.iter().all(|id| found.contains(id)))
    }

    /// The blobs of a pack; nothing if it can't be read, which is no reason to delete it.
    async fn blobs_of(&self, id: ObjectId, length: u64) -> Result<(ObjectId, u64, Option<Vec<BlobId>>)> {
        Ok((id, length, self.footer_of(id, length).await?.map(|pack| pack.ids())))
    }

    async fn footer_of(&self, id: ObjectId, length: u64) -> Result<Option<RecentPack>> {
        match RecentPack::read(id, length, self.store(), self.keyring()).await {
            Ok(pack) => Ok(Some(pack)),
            Err(error @ Error::Store { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(pack = %id, %error, "a pack can't be read any more");
                Ok(None)
            }
        }
    }

    /// Deletes an object; false where the store doesn't allow it.
    pub(crate) async fn delete(&self, name: Name) -> Result<bool> {
        match self.store().delete(&name.to_string()).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_retryable() => Err(error),
            Err(error) => {
                tracing::warn!(%name, %error, "an object that was merged can't be deleted");
                Ok(false)
            }
        }
    }
}
