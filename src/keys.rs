//! Adding, listing and removing the secrets that open a repository. No data is rewritten.

use std::sync::Arc;

use crate::cpu;
use crate::crypto::{Keyring, Secret};
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

    /// Lets another secret open this repository, with all that the secret may which it was opened with. `label` is
    /// stored in the clear.
    pub async fn add_key(&self, secret: &Secret, label: &str) -> Result<KeySlot> {
        self.add_slot(Arc::clone(self.keyring()), secret, label).await
    }

    /// Lets another secret back up to this repository and restore from it, and neither forget nor delete anything: what
    /// it gives lacks the key that vouches for either. `label` is stored in the clear.
    ///
    /// That is of use as far as whoever has the secret can't delete or overwrite the store's objects by other means: give
    /// them credentials that allow neither, and test these with [`crate::StoreRights::probe`].
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
    pub async fn add_append_only_key(&self, secret: &Secret, label: &str) -> Result<KeySlot> {
        self.add_slot(Arc::new(self.keyring().append_only()), secret, label).await
    }

    async fn add_slot(&self, keyring: Arc<Keyring>, secret: &Secret, label: &str) -> Result<KeySlot> {
        let (secret, label) = (secret.clone(), label.to_owned());
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
    /// another one first shows that another one opens it; [`Error::AppendOnly`].
    pub async fn remove_key(&self, id: &ObjectId) -> Result<()> {
        self.keyring().require_administrator("remove a key")?;
        if *id == self.slot() {
            let reason = "the repository was opened with this key; open it with another one to remove this one";
            return Err(Error::invalid(Name::Key(*id), reason));
        }
        self.store().length(&Name::Key(*id).to_string()).await?;
        self.store().delete(&Name::Key(*id).to_string()).await
    }
}
