//! Merging beside a feed: its many small packs and segments become few.
//!
//! A task of its own, so that no commit waits for it; it ends with the feed,
//! wherever it is, and the next one goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::error::Result;
use crate::repository::Repository;

/// Merges now and then.
pub(super) struct Tidy {
    repository: Repository,
    /// How many commits there are from one look to the next; never if 0.
    every: u64,
    commits: u64,
    running: JoinSet<()>,
    /// Set once something could not be deleted: merging on would only copy.
    useless: Arc<AtomicBool>,
}

impl Tidy {
    pub(super) fn new(repository: &Repository, every: u64) -> Self {
        // Who may not delete can't merge: an administrator's collection does.
        let useless = Arc::new(AtomicBool::new(repository.is_append_only()));
        Self { repository: repository.clone(), every, commits: 0, running: JoinSet::new(), useless }
    }

    /// Takes note of a commit, and looks whether there is something to merge if it is time.
    pub(super) fn committed(&mut self) {
        self.commits += 1;
        while self.running.try_join_next().is_some() {}
        let due = self.every > 0 && self.commits >= self.every;
        if !due || !self.running.is_empty() || self.useless.load(Ordering::Relaxed) {
            return;
        }
        self.commits = 0;
        let (repository, useless) = (self.repository.clone(), Arc::clone(&self.useless));
        self.running.spawn(async move {
            match merge(&repository).await {
                Ok(left) => useless.store(left > 0, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "a feed could not merge small packs; it will try again"),
            }
        });
    }
}

async fn merge(repository: &Repository) -> Result<u64> {
    let plan = repository.plan_merge().await?;
    if !plan.is_due() {
        return Ok(0);
    }
    Ok(repository.merge(&plan).await?.left)
}
