//! Merges index segments.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::blobs::list_packs;
use crate::cpu;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::index::{Location, SegmentBuilder};
use crate::repository::Repository;

impl Repository {
    /// Stores one segment that says what `segments` say of packs that are there and weren't copied; those merged.
    pub(crate) async fn merge_segments(
        &self,
        segments: &[(ObjectId, u64)],
        copied: &BTreeSet<ObjectId>,
    ) -> Result<BTreeSet<ObjectId>> {
        let (mut builder, mut merged) = (SegmentBuilder::default(), BTreeSet::new());
        if segments.is_empty() {
            return Ok(merged);
        }
        // A pack that a segment describes was there before the segment was, so one that isn't listed now is gone.
        let there = Arc::new(list_packs(self.store()).await?);
        for (id, length) in segments {
            let segment = match self.index().fetch(*id, *length).await {
                Ok(segment) => segment,
                Err(error @ (Error::NotFound { .. } | Error::Corrupt { .. })) => {
                    tracing::warn!(segment = %id, %error, "an index segment can't be merged");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (there, copied) = (Arc::clone(&there), copied.clone());
            let (continued, sound) = cpu::start(move || {
                let stays =
                    |location: &Location| there.contains(&location.pack.id) && !copied.contains(&location.pack.id);
                let entries: Result<Vec<_>> = segment.entries().collect();
                let Ok(entries) = entries else { return Ok((builder, false)) };
                for (id, location) in entries.iter().filter(|(_, location)| stays(location)) {
                    builder.add_blob(*id, location)?;
                }
                Ok((builder, true))
            })
            .await?;
            builder = continued;
            if sound {
                merged.insert(*id);
            }
        }
        self.index().publish(builder, self.surroundings()).await?;
        Ok(merged)
    }
}
