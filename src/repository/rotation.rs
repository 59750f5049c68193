//! Keeping up with rotations of keys while a repository is open.

use std::sync::PoisonError;

use crate::error::Result;
use crate::layout::{self, Name};
use crate::registration::Registration;
use crate::repository::Repository;
use crate::roster::{self, Standing};

impl Repository {
    /// Learns the key generations that a standing grants to the slot that the repository was opened with.
    pub(crate) fn learn(&self, standing: &Standing) -> Result<()> {
        if !standing.slots().contains(&self.slot()) {
            return Err(roster::removed(&self.slot()));
        }
        standing.teach(self.keyring(), &self.slot(), self.slot_key())
    }

    /// Learns the key generations that have been started since, for who looks again and again: one listing, and a read
    /// only if there are other rosters than when this succeeded last.
    pub(crate) async fn follow_rotations(&self) -> Result<()> {
        let listed = self.store().list(layout::KEYS).await?;
        let mut rosters: Vec<_> = listed.iter().filter_map(|listed| Name::parse(&listed.name)).collect();
        rosters.retain(|name| matches!(name, Name::Roster(..)));
        rosters.sort_unstable();
        if self.0.rosters.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&rosters) {
            return Ok(());
        }
        let before = self.keyring().generation();
        self.learn(&self.standing_of(&listed).await?)?;
        let generation = self.keyring().generation();
        if generation != before {
            tracing::info!(
                generation,
                "the keys were rotated; what is written from now on is sealed under the new ones"
            );
        }
        *self.0.rosters.lock().unwrap_or_else(PoisonError::into_inner) = Some(rosters);
        Ok(())
    }

    /// Renews a registration, after looking whether the keys were rotated: what others have written since may be sealed
    /// under newer ones. That this can't be looked at keeps nobody from writing.
    pub(crate) async fn renew(&self, registration: &mut Registration) -> Result<()> {
        if let Err(error) = self.follow_rotations().await {
            let series = registration.series();
            tracing::warn!(series, %error, "a writer goes on with the keys that it knows");
        }
        registration.renew().await
    }
}
