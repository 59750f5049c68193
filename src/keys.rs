//! Adding, listing, removing and rotating the secrets that open a repository. No data is rewritten.
//!
//! Each change is the next roster, which one of several who change the keys at a time gets to create; the others look
//! again and begin anew. A change starts from the newest roster, and from the key generations that it grants, however
//! long ago the repository was opened.

use std::sync::Arc;

use crate::cpu;
use crate::crypto::{Keyring, Secret};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::layout::{self, Name};
use crate::repository::Repository;
use crate::roster::{self, MEMBERS_MAX, Member, Roster, Standing};
use crate::slot::{KeySlot, Slot};

/// How often a change is begun anew because others changed the keys meanwhile.
const CONTESTS: u32 = 16;

/// What a rotation of keys did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyRotation {
    /// The new key generation: what is written from now on is sealed under it.
    pub generation: u32,
    /// The keys that it was sealed to.
    pub keys: Vec<ObjectId>,
}

/// The slots that open the repository, as a change finds them.
struct Found {
    /// The newest roster's number.
    number: u64,
    members: Vec<Member>,
}

impl Repository {
    /// The secrets that open this repository, by their labels; not the secrets themselves. Slots that no administrator
    /// vouches for are among them, and [`KeySlot::authentic`] tells them apart.
    pub async fn keys(&self) -> Result<Vec<KeySlot>> {
        let (standing, slots) = self.slots().await?;
        let members = standing.slots();
        let describe = |(id, slot): (ObjectId, Slot)| slot.describe(id, id == self.slot(), members.contains(&id));
        let mut keys: Vec<_> = slots.into_iter().map(describe).collect();
        keys.sort_by_key(|key| (!key.authentic, key.created, key.id));
        Ok(keys)
    }

    /// Lets another secret open this repository, with all that an administrator may. `label` is stored in the clear.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the secret opens the repository already; [`Error::AppendOnly`]; [`Error::Invalid`] for a
    /// label that is too long, and where there are 64 keys already.
    pub async fn add_key(&self, secret: &Secret, label: &str) -> Result<KeySlot> {
        self.add_slot(secret, label, false).await
    }

    /// Lets another secret back up to this repository and restore from it, and neither forget nor delete anything, nor
    /// change keys: what it gives lacks the key that vouches for any of these. `label` is stored in the clear.
    ///
    /// That is of use as far as whoever has the secret can't delete or overwrite the store's objects by other means: give
    /// them credentials that allow neither, which nothing that they may do needs, and test these with
    /// [`crate::StoreRights::probe`].
    ///
    /// ```
    /// # use backstop::*; use std::sync::Arc;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// # let store: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    /// # let repository = Repository::create(Arc::clone(&store), &Secret::key([7; 32]), CreateOptions::default()).await?;
    /// let for_the_server = Secret::key([8; 32]);
    /// repository.add_append_only_key(&for_the_server, "sync server 1").await?;
    /// let opened = Repository::open(store, &for_the_server, OpenOptions::default()).await?;
    /// assert!(opened.is_append_only());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Repository::add_key`].
    pub async fn add_append_only_key(&self, secret: &Secret, label: &str) -> Result<KeySlot> {
        self.add_slot(secret, label, true).await
    }

    /// Takes a slot away, so that its secret no longer opens this repository.
    ///
    /// Whoever opened the repository with it before may have kept the keys that it wraps: removing a slot shuts
    /// out a secret that leaked, not a person who held it. For that, [rotate](Repository::rotate_keys) afterwards.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for the slot that the repository was opened with, so that one always
    /// stays that an administrator opened it with; and if that slot was removed itself meanwhile; [`Error::AppendOnly`].
    pub async fn remove_key(&self, id: &ObjectId) -> Result<()> {
        self.require_administrator("remove a key")?;
        if *id == self.slot() {
            let reason = "the repository was opened with this key; open it with another one to remove this one";
            return Err(Error::invalid(Name::Key(*id), reason));
        }
        let name = Name::Key(*id).to_string();
        for _ in 0..CONTESTS {
            let Found { number, mut members } = self.look_at_keys().await?;
            let before = members.len();
            members.retain(|member| member.slot != *id);
            if members.len() == before {
                // It opens nothing: it was planted, or is left over.
                self.store().length(&name).await?;
                return self.store().delete(&name).await;
            }
            if self.publish_roster(number, members, self.keyring()).await? {
                return self.store().delete(&name).await;
            }
        }
        Err(contested())
    }

    /// Starts a new key generation, sealed to each remaining key without its secret being needed. What is written from
    /// now on can't be read by whoever was removed before, even if they kept the keys, and even if a slot that was
    /// removed is put back. What was written before still can.
    ///
    /// To have that rewritten, [collect](Repository::gc) with [`crate::GcOptions::with_rewrite_old_keys`] next.
    ///
    /// This handle goes on under the new generation. Another that is open elsewhere goes on under the one that it
    /// knows until it is opened anew or [refreshed](Repository::refresh_keys), which a feed does by itself.
    ///
    /// # Errors
    /// [`Error::AppendOnly`]; [`Error::Invalid`] once there have been 1024 generations, or if the slot that the
    /// repository was opened with has been removed.
    pub async fn rotate_keys(&self) -> Result<KeyRotation> {
        self.require_administrator("rotate the keys")?;
        for _ in 0..CONTESTS {
            let Found { number, members } = self.look_at_keys().await?;
            let keys = members.iter().map(|member| member.slot).collect();
            let next = self.keyring().copy();
            let generation = next.rotate(self.surroundings()).ok_or_else(|| {
                Error::invalid(layout::KEYS, "its key generations have run out; start a new repository")
            })?;
            // Nothing may be sealed under it before it is certain that others get it.
            if self.publish_roster(number, members, &next).await? {
                self.keyring().adopt(&next);
                return Ok(KeyRotation { generation, keys });
            }
        }
        Err(contested())
    }

    /// Learns the key generations that have been started since the repository was opened, and returns the newest. What
    /// is written from then on is sealed under that. Long-lived programs call it now and then, say once an hour, so
    /// that they needn't be restarted after a rotation; a feed does by itself, see [`crate::FeedOptions::look_every`], and a
    /// writer where it has to register anew. It lists the key objects and reads at most one.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the slot that the repository was opened with has been removed.
    pub async fn refresh_keys(&self) -> Result<u32> {
        let standing = self.standing().await?;
        self.learn(&standing)?;
        Ok(self.keyring().generation())
    }

    /// What opens the repository now.
    async fn look_at_keys(&self) -> Result<Found> {
        self.found(&self.standing().await?)
    }

    fn found(&self, standing: &Standing) -> Result<Found> {
        self.learn(standing)?;
        let members = match standing {
            Standing::Roster(roster) => roster.members(),
            Standing::First(slot) => {
                vec![Member { slot: *slot, append_only: self.is_append_only(), public: self.slot_key().public()? }]
            }
        };
        Ok(Found { number: standing.number(), members })
    }

    /// Whether the roster after `number` became this one; otherwise the keys have been changed by others.
    async fn publish_roster(&self, number: u64, members: Vec<Member>, keyring: &Keyring) -> Result<bool> {
        let roster = Roster::new(self.id(), number, members, keyring, self.surroundings())?;
        if roster::publish(self.store(), &roster, keyring).await? {
            return Ok(true);
        }
        if self.standing().await?.number() <= number {
            let reason = "it is in the way of the next roster and can't be read";
            return Err(Error::corrupt(roster.name(keyring)?, reason));
        }
        Ok(false)
    }

    async fn add_slot(&self, secret: &Secret, label: &str, append_only: bool) -> Result<KeySlot> {
        self.require_administrator("add a key")?;
        let mut tried = Vec::new();
        for _ in 0..CONTESTS {
            let Found { number, mut members } = self.look_at_keys().await?;
            let untried: Vec<_> = members.iter().map(|it| it.slot).filter(|slot| !tried.contains(slot)).collect();
            if let Some(slot) = self.trial(secret).opens_any(self.store(), &untried).await? {
                let reason =
                    "this secret opens the repository already, with that key; remove it first, or take another";
                return Err(Error::conflict(Name::Key(slot), reason));
            }
            tried.extend(untried);
            if members.len() >= MEMBERS_MAX {
                let reason = format!("it has {MEMBERS_MAX} keys, which is as many as there can be; remove one first");
                return Err(Error::invalid(layout::KEYS, reason));
            }
            // Another one each time: see `needless_slots`.
            let (id, slot) = self.create_slot(secret, label, append_only).await?;
            members.push(Member { slot: id, append_only, public: slot.public() });
            if self.publish_roster(number, members, self.keyring()).await? {
                return Ok(slot.describe(id, false, true));
            }
            self.store().delete(&Name::Key(id).to_string()).await?;
        }
        Err(contested())
    }

    /// Slots that open nothing and that nobody is about to add, so that they may be deleted.
    ///
    /// Who adds a slot looks at the newest roster, creates the slot, and makes the next roster. So once a roster is
    /// made after a listing, no slot that is in the listing and in no roster can come into one.
    pub(crate) async fn needless_slots(&self) -> Result<Vec<ObjectId>> {
        let (standing, slots) = self.slots().await?;
        let members = standing.slots();
        let mut needless: Vec<_> = slots.into_iter().map(|(id, _)| id).filter(|id| !members.contains(id)).collect();
        if needless.is_empty() || !members.contains(&self.slot()) {
            return Ok(Vec::new());
        }
        let Found { number, members } = self.found(&standing)?;
        if !self.publish_roster(number, members, self.keyring()).await? {
            // Others change the keys: the next time.
            needless.clear();
        }
        Ok(needless)
    }

    async fn create_slot(&self, secret: &Secret, label: &str, append_only: bool) -> Result<(ObjectId, Slot)> {
        let (secret, label) = (secret.clone(), label.to_owned());
        let (repository, surroundings) = (self.id(), self.surroundings().clone());
        let keyring = if append_only { Arc::new(self.keyring().append_only()) } else { Arc::clone(self.keyring()) };
        let wrap = move || Slot::wrap(&keyring, &secret, repository, &label, &surroundings);
        let (slot, _) = cpu::block(wrap).await?;
        let (id, bytes) = slot.to_object();
        self.store().create(&Name::Key(id).to_string(), bytes.into()).await?;
        Ok((id, slot))
    }
}

fn contested() -> Error {
    Error::conflict(layout::KEYS, "others kept changing the keys meanwhile; try again")
}

#[cfg(test)]
mod tests;
