//! What else a process does: forget, collect, and bring back.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::forget::ForgetOptions;
use crate::gc::GcOptions;
use crate::progress::NoProgress;
use crate::simulation::actors::Actor;

impl Actor {
    /// Forgets some snapshots of a series, for good or for a while.
    pub(super) async fn forget(&mut self) -> Result<()> {
        let (series, name) = self.series();
        let window =
            if self.random.chance(0.7) { Duration::ZERO } else { Duration::from_secs(self.random.below(7200)) };
        let mut options = ForgetOptions::default().with_undelete_for(window);
        let counting = self.world.history().counting(series);
        let chosen: Vec<_> = counting.iter().map(|seen| seen.0.number).filter(|_| self.random.chance(0.4)).collect();
        if chosen.is_empty() {
            return Ok(());
        }
        for number in &chosen {
            options = options.with_snapshot(&name, *number);
        }
        let repository = self.repository.clone();
        let plan = match repository.plan_forget(&options).await {
            // Another has forgotten it meanwhile.
            Err(error) if error.is_not_found() && chosen.iter().any(|one| self.vanishes(series, *one)) => return Ok(()),
            other => other?,
        };
        self.world.network.note(format_args!("{} forgets {chosen:?} of {name}", self.link));
        chosen.iter().for_each(|number| self.world.history().forget(series, *number));
        self.impatiently(async move { repository.forget(&plan).await }).await.transpose().map(drop)
    }

    /// Collects what isn't needed, or goes on where another stopped.
    pub(super) async fn collect(&mut self) -> Result<()> {
        let waste = [0.0, 0.3, 1.0][self.random.below(3) as usize];
        let mut options = GcOptions::default().with_waste_max(waste);
        options = options.with_wait(Duration::from_millis(self.random.below(8_000)));
        if self.world.ruthless && self.random.chance(0.7) {
            options = options.with_fence_after(Duration::ZERO);
        }
        let repository = self.repository.clone();
        let collecting = async move {
            let plan = repository.plan_gc(&options).await?;
            repository.gc(plan, Arc::new(NoProgress)).await
        };
        if let Some(report) = self.impatiently(collecting).await.transpose()? {
            let tally = &mut self.world.history().tally;
            tally.collected += report.packs_deleted;
            tally.records_deleted += report.records_deleted;
            tally.rescued += report.rescued_blobs;
            tally.fenced += report.fenced.len() as u64;
        }
        Ok(())
    }

    /// Brings a snapshot back that was forgotten, if there is still time.
    pub(super) async fn undelete(&mut self) -> Result<()> {
        let (series, name) = self.series();
        let forgotten = self.world.history().forgotten(series);
        let Some(number) = self.one_of(&forgotten).copied() else { return Ok(()) };
        let wish = self.world.history().ask_undelete(series, number);
        let repository = self.repository.clone();
        match self.impatiently(async move { repository.undelete(&name, number).await }).await {
            Some(Ok(made)) => self.world.history().undeleted(wish, made),
            // It isn't forgotten yet, or was collected.
            Some(Err(error)) if error.is_not_found() || matches!(error, crate::error::Error::Invalid { .. }) => {}
            Some(Err(error)) => return Err(error),
            None => {}
        }
        Ok(())
    }
}
