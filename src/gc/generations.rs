//! What is sealed under an older key generation than the newest.
//!
//! What opens a pack's blocks is in the rows of the segments that describe it, its key generation too, so that hardly
//! any pack is read for it: only one of which no row tells, or of which two tell different things.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::cpu;
use crate::error::{Error, Result};
use crate::gc::marks::Marks;
use crate::id::ObjectId;
use crate::layout::Name;
use crate::pack::{BLOCKS_START, parse_header};
use crate::repository::Repository;

/// Headers read at a time.
const CONCURRENCY: usize = 16;

/// Packs and index segments that are sealed under an older key generation than the newest.
#[derive(Debug, Default)]
pub(super) struct OldKeys {
    /// With their lengths.
    pub(super) packs: HashMap<ObjectId, u64>,
    pub(super) segments: HashSet<ObjectId>,
}

impl OldKeys {
    /// What the packs take up, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.packs.values().sum()
    }
}

/// What rows say of packs' key generations; nothing where they contradict one another.
type Told = HashMap<ObjectId, Option<u32>>;

impl Repository {
    /// Looks which of the `listed` packs, and which segments, are sealed under older key generations.
    pub(super) async fn old_keys(&self, marks: &Arc<Marks>, listed: &[(ObjectId, u64)]) -> Result<OldKeys> {
        let newest = self.keyring().generation();
        if newest == 0 {
            return Ok(OldKeys::default());
        }
        let marks = Arc::clone(marks);
        let (told, segments) = cpu::block(move || tell(&marks, newest)).await?;
        // By value, or the future could not be sent to another thread.
        let looked = listed.iter().map(|(id, length)| (*id, *length, told.get(id).copied().flatten()));
        let looked: Vec<_> = looked.collect();
        let is_old = async |(id, length, told): (ObjectId, u64, Option<u32>)| {
            let generation = match told {
                Some(generation) => Some(generation),
                None => self.generation_of(&id, length).await?,
            };
            Ok::<_, Error>(generation.is_some_and(|generation| generation < newest).then_some((id, length)))
        };
        let packs = futures::stream::iter(looked).map(is_old).buffered(CONCURRENCY);
        let packs = packs.try_filter_map(async |old| Ok(old)).try_collect().await?;
        Ok(OldKeys { packs, segments })
    }

    /// The key generation that a pack's header names; nothing if that can't be read.
    async fn generation_of(&self, pack: &ObjectId, length: u64) -> Result<Option<u32>> {
        let name = Name::Pack(*pack).to_string();
        let head = self.store().get_range(&name, 0..length.min(BLOCKS_START as u64)).await;
        match head.and_then(|head| parse_header(&head, &name)) {
            Ok((header, _)) => Ok(Some(header.generation)),
            Err(error @ Error::Store { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(%pack, %error, "under which keys a pack is sealed can't be read");
                Ok(None)
            }
        }
    }
}

/// What rows say of packs, and the segments that are sealed under generations before `newest`.
fn tell(marks: &Marks, newest: u32) -> Result<(Told, HashSet<ObjectId>)> {
    let (mut told, mut segments) = (Told::new(), HashSet::new());
    for segment in marks.segments() {
        if segment.generation() < newest {
            segments.insert(*segment.id());
        }
        for row in segment.rows()? {
            let generation = told.entry(row.id).or_insert(Some(row.generation));
            *generation = generation.filter(|known| *known == row.generation);
        }
    }
    Ok((told, segments))
}
