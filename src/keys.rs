//! Adding, listing and removing the secrets that open a repository. No data is rewritten.

use std::sync::Arc;

use crate::cpu;
use crate::crypto::Secret;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::layout::Name;
use crate::repository::Repository;
use crate::slot::{KeySlot, Slot};

impl Repository {
    /// The secrets that open this repository, by their labels; not the secrets themselves.
    pub async fn keys(&self) -> Result<Vec<KeySlot>> {
        let mut keys: Vec<_> =
            self.slots().await?.into_iter().map(|(id, slot)| slot.describe(id, id == self.slot())).collect();
        keys.sort_by_key(|key| (key.created, key.id));
        Ok(keys)
    }

    /// Lets another secret open this repository. `label` is stored in the clear.
    pub async fn add_key(&self, secret: &Secret, label: &str) -> Result<KeySlot> {
        let (keyring, secret, label) = (Arc::clone(self.keyring()), secret.clone(), label.to_owned());
        let (repository, surroundings) = (self.id(), self.surroundings().clone());
        let slot = cpu::block(move || Slot::wrap(&keyring, &secret, repository, &label, &surroundings)).await?;
        let (id, bytes) = slot.to_object();
        self.store().create(&Name::Key(id).to_string(), bytes.into()).await?;
        Ok(slot.describe(id, false))
    }

    /// Takes a slot away, so that its secret no longer opens this repository.
    ///
    /// Whoever opened the repository with it before may have kept the keys that it wraps: removing a slot shuts
    /// out a secret that leaked, not a person who held it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for the slot that the repository was opened with: opening it with
    /// another one first shows that another one opens it.
    pub async fn remove_key(&self, id: &ObjectId) -> Result<()> {
        if *id == self.slot() {
            let reason = "the repository was opened with this key; open it with another one to remove this one";
            return Err(Error::invalid(Name::Key(*id), reason));
        }
        self.store().length(&Name::Key(*id).to_string()).await?;
        self.store().delete(&Name::Key(*id).to_string()).await
    }
}
