//! Collections: the only authority by which packs and index segments are deleted.
//!
//! ```text
//! gc/<n>          what collection n has condemned
//! gc/<n>-ended    nothing of that is there any more
//! ```
//! Numbers are handed out without gaps: `gc/n` is planned from listings that
//! began after `gc/n-1` had ended, and create-if-absent picks one of those who
//! plan it. Who finds one that hasn't ended may carry it out. Both objects are
//! records (object.rs).
//!
//! Owns the records and their order. Doesn't know what may be condemned.

use std::sync::Arc;

use bytes::Bytes;

use crate::blobs::{Condemned, Parts};
use crate::clock::Timestamp;
use crate::codec::{Decode, Encode};
use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::layout::{self, Name};
use crate::object;
use crate::store::{Created, Store};

/// What a collection's record says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct CollectionRecord {
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
    pub(crate) body: CollectionBody,
}

/// Whether it begins a collection or ends one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum CollectionBody {
    /// These are condemned.
    Begun(Plan),
    Ended,
}

/// What is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Plan {
    /// The beginnings of packs' ids, ascending. A pack that happens to begin like a condemned one is taken for one:
    /// it isn't relied on, which costs an upload, and isn't deleted, since that is decided by what is in it.
    pub(crate) packs: Vec<[u8; Condemned::PREFIX]>,
    /// Index segments, ascending.
    pub(crate) segments: Vec<ObjectId>,
}

/// Where the sequence of collections stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// All that were begun have ended; the number of the last, or 0.
    Idle(u64),
    /// One was begun and hasn't ended.
    Open(u64),
}

/// Reads and writes the sequence of collections.
#[derive(Clone, Debug)]
pub(crate) struct Collections {
    parts: Parts,
}

impl Collections {
    /// Those of a repository.
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Where the sequence stands: one listing.
    pub(crate) async fn standing(&self) -> Result<Standing> {
        standing(&self.parts.store).await
    }

    /// What a collection that was begun has condemned.
    pub(crate) async fn read(&self, number: u64) -> Result<Plan> {
        read(&self.parts.store, &self.parts.keyring, number).await
    }

    /// Begins collection `number`, unless someone else did.
    pub(crate) async fn begin(&self, number: u64, plan: Plan) -> Result<bool> {
        if number > layout::NUMBER_MAX {
            return Err(Error::invalid("a collection", "the numbers have run out"));
        }
        if !self.create(Name::Collection(number), number, CollectionBody::Begun(plan)).await? {
            return Ok(false);
        }
        // A create that comes late may find a name free that was tidied away. Then there is a higher one.
        Ok(self.standing().await? == Standing::Open(number))
    }

    /// Says that a collection has ended, and tidies away those before it, which nobody reads any more.
    ///
    /// The highest of the sequence stays: its name must never be free again.
    pub(crate) async fn end(&self, number: u64) -> Result<()> {
        self.create(Name::CollectionEnd(number), number, CollectionBody::Ended).await?;
        for listed in self.parts.store.list(layout::COLLECTIONS).await? {
            if let Some(name @ (Name::Collection(older) | Name::CollectionEnd(older))) = Name::parse(&listed.name)
                && older < number
                && let Err(error) = self.parts.store.delete(&name.to_string()).await
            {
                tracing::warn!(%error, "could not tidy away an old collection; a later one will");
            }
        }
        Ok(())
    }

    async fn create(&self, name: Name, number: u64, body: CollectionBody) -> Result<bool> {
        let name = name.to_string();
        let Parts { store, keyring, surroundings, .. } = &self.parts;
        let record = CollectionRecord { number, time: surroundings.clock.now(), body };
        let sealed = object::seal_record(&record, Kind::Collection, &name, keyring, surroundings)?;
        if sealed.len() as u64 > object::RECORD_MAX {
            return Err(Error::invalid("a collection", "it would condemn too many packs at a time"));
        }
        Ok(store.create(&name, Bytes::from(sealed)).await? == Created::Ours)
    }
}

/// The number of the last collection, and what a writer that has registered must not rely on: one listing, and one read
/// while a collection is open.
pub(crate) async fn condemned(store: &Store, keyring: &Arc<Keyring>) -> Result<(u64, Condemned)> {
    match standing(store).await? {
        Standing::Idle(number) => Ok((number, Condemned::default())),
        Standing::Open(number) => match read(store, keyring, number).await {
            Ok(plan) => Ok((number, Condemned::new(plan.packs))),
            // It ended, and a later one tidied it away: what it condemned is gone, and isn't listed any more.
            Err(error) if error.is_not_found() => Ok((number, Condemned::default())),
            Err(error) => Err(error),
        },
    }
}

async fn standing(store: &Store) -> Result<Standing> {
    let (mut begun, mut ended) = (0, 0);
    for listed in store.list(layout::COLLECTIONS).await? {
        match Name::parse(&listed.name) {
            Some(Name::Collection(number)) => begun = begun.max(number),
            Some(Name::CollectionEnd(number)) => ended = ended.max(number),
            _ => {
                return Err(Error::unsupported(&listed.name, "this build doesn't know what it means; use a newer one"));
            }
        }
    }
    Ok(if begun > ended { Standing::Open(begun) } else { Standing::Idle(ended) })
}

async fn read(store: &Store, keyring: &Keyring, number: u64) -> Result<Plan> {
    let name = Name::Collection(number).to_string();
    let bytes = store.get(&name, object::RECORD_MAX).await?;
    let record: CollectionRecord = object::open_record(&bytes, Kind::Collection, &name, keyring)?;
    match record.body {
        CollectionBody::Begun(plan)
            if record.number == number
                && plan.packs.is_sorted_by(|a, b| a < b)
                && plan.segments.is_sorted_by(|a, b| a < b) =>
        {
            Ok(plan)
        }
        _ => Err(Error::corrupt(name, "it says something else than its name")),
    }
}

#[cfg(test)]
mod tests;
