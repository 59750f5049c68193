//! Which key slot a secret opens: owns reading the slots that count, the order in which they are tried, and what is said
//! where none opens.
//!
//! Only slots that the administrator vouches for are read, and at most 64 of them, so that what trying a passphrase
//! costs is bounded: 64 times what one slot may cost. A slot that can't be used never keeps another from opening.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::config::Config;
use crate::cpu;
use crate::crypto::{Argon2Limit, Keyring, Secret, SlotKey};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::layout::{self, Name};
use crate::roster::MEMBERS_MAX;
use crate::slot::{SLOT_MAX, Slot};
use crate::store::Store;

/// Key slots read at a time.
pub(super) const CONCURRENCY: usize = 8;

/// A secret's slot, opened.
pub(crate) struct OpenSlot {
    pub(crate) id: ObjectId,
    pub(crate) keyring: Keyring,
    pub(crate) private: SlotKey,
}

/// What a secret is tried under.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) secret: Secret,
    pub(crate) limit: Argon2Limit,
    /// The repository's config, as read and as stored: a keyring must fit both.
    pub(crate) config: Config,
    pub(crate) config_bytes: Bytes,
}

/// What came of trying.
#[derive(Default)]
struct Tried {
    opened: Option<OpenSlot>,
    slots: usize,
    /// What was wrong with a slot that couldn't be tried, or that opened and is not to be used.
    failure: Option<Error>,
}

impl Trial {
    /// Opens the one of `slots` that the secret is for; of several, one that may do most. `last` is tried before all
    /// others, which then needn't be read.
    pub(crate) async fn open(self, store: &Store, slots: &[ObjectId], last: Option<ObjectId>) -> Result<OpenSlot> {
        let mut tried = Tried::default();
        if let Some(last) = last.filter(|last| slots.contains(last)) {
            tried = self.clone().attempt(store, &[last], tried).await?;
        }
        if tried.opened.is_none() {
            let others: Vec<_> = slots.iter().copied().filter(|slot| Some(*slot) != last).collect();
            tried = self.attempt(store, &others, tried).await?;
        }
        let Tried { opened, slots, failure } = tried;
        opened.ok_or_else(|| no_slot_opens(slots, failure))
    }

    /// Whether the secret opens any of `slots`.
    pub(crate) async fn opens_any(self, store: &Store, slots: &[ObjectId]) -> Result<Option<ObjectId>> {
        Ok(self.attempt(store, slots, Tried::default()).await?.opened.map(|opened| opened.id))
    }

    async fn attempt(self, store: &Store, slots: &[ObjectId], mut tried: Tried) -> Result<Tried> {
        if slots.len() > MEMBERS_MAX {
            tracing::warn!(slots = slots.len(), "only the first {MEMBERS_MAX} key slots are tried");
        }
        let slots = slots.iter().take(MEMBERS_MAX).copied();
        let read: Vec<_> =
            futures::stream::iter(slots).map(|id| read_slot(store, id)).buffered(CONCURRENCY).try_collect().await?;
        let mut sound = Vec::new();
        for slot in read {
            match slot {
                Ok(slot) => sound.push(slot),
                Err(error) => tried.failure = Some(error),
            }
        }
        cpu::block(move || self.try_each(sound, tried)).await
    }

    /// The cheapest first; and once one has opened that can only add, those alone that may do more.
    fn try_each(self, mut slots: Vec<(ObjectId, Slot)>, mut tried: Tried) -> Result<Tried> {
        slots.sort_by_cached_key(|(id, slot)| {
            (slot.cost(&self.limit, id).unwrap_or(u64::MAX), slot.is_append_only(), *id)
        });
        for (id, slot) in slots {
            match &tried.opened {
                Some(opened) if !opened.keyring.is_append_only() => break,
                Some(_) if slot.is_append_only() => continue,
                _ => {}
            }
            tried.slots += 1;
            let unwrapped = slot.unwrap(&self.secret, &self.limit, &id);
            match unwrapped
                .and_then(|opened| opened.map(|(private, keyring)| self.fitting(id, private, keyring)).transpose())
            {
                Ok(Some(opened)) => tried.opened = Some(opened),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(name = %Name::Key(id), %error, "a key slot can't be used");
                    tried.failure = Some(error);
                }
            }
        }
        Ok(tried)
    }

    fn fitting(&self, id: ObjectId, private: SlotKey, keyring: Keyring) -> Result<OpenSlot> {
        if *keyring.administrator_public() != self.config.administrator {
            return Err(Error::corrupt(Name::Key(id), "it has another administrator's key than the config"));
        }
        if !Config::is_authentic(&self.config_bytes, &keyring) {
            let reason = "it was not written by a holder of this repository's keys";
            return Err(Error::corrupt(layout::CONFIG, reason));
        }
        Ok(OpenSlot { id, keyring, private })
    }
}

/// Reads a slot, and says what is wrong with one that can't be used.
pub(crate) async fn read_slot(store: &Store, id: ObjectId) -> Result<Result<(ObjectId, Slot)>> {
    let name = Name::Key(id).to_string();
    match store.get(&name, SLOT_MAX).await.and_then(|bytes| Slot::parse(&bytes, &id)) {
        Ok(slot) => Ok(Ok((id, slot))),
        Err(error @ Error::Store { .. }) => Err(error),
        Err(error) => {
            tracing::warn!(name, %error, "a key slot can't be used");
            Ok(Err(error))
        }
    }
}

/// Why no slot opened, of `tried` sound ones: the secret need not be wrong if its slot can't be used.
fn no_slot_opens(tried: usize, failure: Option<Error>) -> Error {
    let others = format!("and the secret opens none of the other {tried} key slots");
    match failure {
        Some(Error::Corrupt { object, reason }) => Error::corrupt(object, format!("{reason}, {others}")),
        Some(Error::Unsupported { object, reason }) => Error::unsupported(object, format!("{reason}, {others}")),
        Some(Error::NotFound { object }) => Error::corrupt(object, format!("it is missing, {others}")),
        Some(failure) => failure,
        None => Error::WrongSecret { slots: tried },
    }
}

/// Where the slot is remembered that a repository was opened with last: beside its folder of the cache.
fn memory(cache: &Path, repository: RepositoryId) -> PathBuf {
    cache.join(format!("{repository}.slot"))
}

/// The slot that a repository was opened with last.
pub(super) async fn remembered(cache: Option<&PathBuf>, repository: RepositoryId) -> Option<ObjectId> {
    let path = memory(cache?, repository);
    let text = cpu::block(move || Ok(std::fs::read_to_string(path).unwrap_or_default())).await.ok()?;
    ObjectId::parse(&text)
}

/// Remembers the slot; not to have done so costs time, not correctness.
pub(super) async fn remember(cache: Option<&PathBuf>, repository: RepositoryId, slot: ObjectId) {
    let Some(cache) = cache else { return };
    let (folder, path) = (cache.clone(), memory(cache, repository));
    let new = cache.join(format!("{repository}.slot.{}", std::process::id()));
    let written = cpu::block(move || {
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&new, slot.to_string()))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|error| Error::file("remember the key slot in", path, error))
    });
    if let Err(error) = written.await {
        tracing::debug!(%error, "could not remember which key slot opened the repository");
    }
}
