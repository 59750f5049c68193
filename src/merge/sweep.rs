//! Deletes what a collection condemned, as far as it is told twice.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;

use crate::blobs::{Condemned, list_packs};
use crate::collection::{Collections, Ended, Plan};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{RecentPack, Want};
use crate::layout::{self, Name};
use crate::merge::{MergeReport, lengths};
use crate::repository::Repository;

/// Footers read at a time.
const FOOTERS: usize = 16;

/// What came of deleting index segments.
pub(crate) struct Swept {
    pub(crate) deleted: u64,
    pub(crate) left: Vec<ObjectId>,
}

impl Repository {
    /// Carries out collection `number`, which was begun here or elsewhere, and ends it.
    ///
    /// What it condemned is looked at anew: what has become the only place of something is copied first. As long as
    /// something that was condemned is there the collection doesn't end, so that nobody ever relies on that again.
    pub(crate) async fn sweep(
        &self,
        collections: &Collections,
        number: u64,
        plan: &Plan,
        report: &mut MergeReport,
    ) -> Result<()> {
        let condemned = Condemned::new(plan.packs.clone());
        let segments: HashSet<ObjectId> = plan.segments.iter().copied().collect();
        // A segment describes packs that were there before it, so the segments are listed first.
        self.index().refresh(Want::Bulk).await?;
        let listed = self.store().list(layout::PACKS).await?;
        let (doomed, kept): (Vec<_>, Vec<_>) =
            lengths(listed, layout::parse_pack).partition(|(id, _)| condemned.contains(id));
        let mut there: HashSet<ObjectId> = kept.into_iter().map(|(id, _)| id).collect();

        let mut gone = Vec::new();
        let mut left = 0;
        // What was condemned and stays: nothing relies on it, but what describes it stays as well.
        let mut stays = HashSet::new();
        let mut footers = futures::stream::iter(doomed).map(|(id, length)| self.blobs_of(id, length)).buffered(FOOTERS);
        while let Some((id, length, blobs)) = footers.next().await.transpose()? {
            let elsewhere = match blobs {
                Some(blobs) => self.are_elsewhere((id, length), blobs, &segments, &mut there, report).await?,
                None => false,
            };
            if elsewhere && self.delete(Name::Pack(id)).await? {
                gone.push(id);
                report.packs_deleted += 1;
            } else {
                left += 1;
                stays.insert(id);
            }
        }
        self.index().forget_gone(gone);
        let swept = self.sweep_segments(&plan.segments, &there, &stays).await?;
        report.segments_deleted += swept.deleted;
        left += swept.left.len() as u64;
        report.left = left;
        if left == 0 {
            collections.end(number, Ended { fenced: Vec::new(), ..plan.inherited.clone() }).await?;
        }
        Ok(())
    }

    /// Deletes index segments that were merged, unless something that one says of the packs that are `there` is told
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
            let blobs = match self.index().blobs_of_segment(id, &described).await {
                Ok(Some(blobs)) => blobs,
                Ok(None) => continue,
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                    tracing::warn!(segment = %id, %error, "an index segment was merged and can't be read any more");
                    left.push(*id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if self.index().are_told(blobs, &segments, there).await? && self.delete(Name::Index(*id)).await? {
                merged.push(*id);
            } else {
                left.push(*id);
            }
        }
        self.index().forget_segments(&merged);
        Ok(Swept { deleted: merged.len() as u64, left })
    }

    /// Whether all blobs of a condemned pack are in packs that stay; if not, they are copied.
    async fn are_elsewhere(
        &self,
        pack: (ObjectId, u64),
        blobs: Vec<BlobId>,
        segments: &HashSet<ObjectId>,
        there: &mut HashSet<ObjectId>,
        report: &mut MergeReport,
    ) -> Result<bool> {
        #[cfg(test)]
        if crate::simulation::has(crate::simulation::Bug::DeletesUncopied) {
            return Ok(true);
        }
        if self.index().are_told(blobs.clone(), segments, there).await? {
            return Ok(true);
        }
        let before = list_packs(self.store()).await?;
        self.copy_packs(&[pack], Arc::new(|_| Ok(true)), report).await?;
        there.extend(list_packs(self.store()).await?.difference(&before));
        self.index().are_told(blobs, segments, there).await
    }

    /// The blobs of a pack; nothing if it can't be read, which is no reason to delete it.
    async fn blobs_of(&self, id: ObjectId, length: u64) -> Result<(ObjectId, u64, Option<Vec<BlobId>>)> {
        match RecentPack::read(id, length, self.store(), self.keyring()).await {
            Ok(pack) => Ok((id, length, Some(pack.ids()))),
            Err(error @ Error::Store { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(pack = %id, %error, "a pack was merged and can't be read any more");
                Ok((id, length, None))
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
