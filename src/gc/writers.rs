//! Waiting for the writers that may rely on what is condemned, and fencing those that are waited for too long.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::collection::{Collections, Plan, Standing};
use crate::error::Result;
use crate::gc::{GcOptions, GcReport, WaitingFor};
use crate::id::{SeriesTag, WriterId};
use crate::layout::Name;
use crate::registration::{AHEAD_MAX, Registered, RegistrationRecord, fence, registered, still_running};
use crate::repository::Repository;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Registrations of which a collection's record says from which number on they contend.
const REGISTERED_MAX: usize = 1 << 16;

/// A writer that was fenced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fence {
    pub(super) writer: WriterId,
    pub(super) tag: SeriesTag,
    /// The numbers at which its record may yet be put: from what it contended for to the tombstone's.
    pub(super) run: (u64, u64),
}

impl Repository {
    /// Waits until each writer that doesn't know collection `number` has ended, or fences it; nothing if some run on.
    pub(super) async fn settle_writers(
        &self,
        (number, plan): (u64, &Plan),
        options: &GcOptions,
        report: &mut GcReport,
    ) -> Result<Option<Vec<Fence>>> {
        #[cfg(test)]
        if crate::simulation::has(crate::simulation::Bug::WaitsForNobody) {
            return Ok(Some(Vec::new()));
        }
        let mut waiting = self.unaware_writers(number).await?;
        // None where that is longer than there is time.
        let deadline = Instant::now().checked_add(options.wait);
        let has_time = || deadline.is_none_or(|deadline| Instant::now() < deadline);
        // Nobody waits for those that will be fenced.
        while waiting.iter().any(|writer| !self.is_overdue(writer, options)) && has_time() {
            sleep(PAUSE.min(options.wait)).await;
            let ids: Vec<_> = waiting.iter().map(|writer| writer.id).collect();
            let running = still_running(self.store(), self.keyring(), &ids).await?;
            waiting.retain(|writer| running.contains(&writer.id));
        }
        let (overdue, running): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|writer| self.is_overdue(writer, options));
        if !running.is_empty() {
            report.waiting = running.into_iter().map(describe).collect();
            return Ok(None);
        }
        let mut fences = Vec::new();
        for Registered { id, record, .. } in overdue {
            let Ok(record) = record else { continue };
            let tombstone = fence(self.parts(), &record).await?;
            tracing::warn!(series = record.series, host = record.host, tombstone, "a writer was fenced");
            let tag = self.keyring().series_tag(&record.series);
            let first = record.number.max(plan.earliest(&id, &tag)).clamp(1, tombstone);
            fences.push(Fence { writer: id, tag, run: (first, tombstone) });
            report.fenced.push((record.series, tombstone));
        }
        Ok(Some(fences))
    }

    /// From which number on each of these writers contends at the earliest; nothing if there are too many of them, or one
    /// can't be read.
    ///
    /// The records of all series must have been listed before the writers were.
    pub(super) async fn earliest_numbers(
        &self,
        before: &Standing,
        writers: &[Registered],
    ) -> Result<Option<Vec<(WriterId, u64)>>> {
        let known = Collections::new(self.parts().clone()).known(before.number).await?;
        let mut numbers = Vec::new();
        for Registered { id, record, .. } in writers {
            // One that can't be read may be read next time, and would then seem to have come later.
            let Ok(RegistrationRecord { series, number, .. }) = record else { return Ok(None) };
            let tag = self.keyring().series_tag(series);
            numbers.push((*id, (*number).max(known.earliest(id, &tag))));
        }
        numbers.sort_unstable();
        Ok((numbers.len() <= REGISTERED_MAX).then_some(numbers))
    }

    /// The writers that run, as far as anybody can tell, and may have registered before collection `number` was begun.
    pub(super) async fn unaware_writers(&self, number: u64) -> Result<Vec<Registered>> {
        let mut writers = registered(self.store(), self.keyring()).await?;
        if let Some(unknown) = writers.extract_if(.., |writer| writer.needs_newer_version()).next() {
            return unknown.record.map(|_| Vec::new());
        }
        // Of one that can't be read nobody knows whose it is, and so it can't be fenced.
        let is_unaware = |writer: &Registered| writer.record.as_ref().map_or(true, |record| record.seen < number);
        writers.retain(|writer| !writer.has_ended && is_unaware(writer));
        Ok(writers)
    }

    /// Whether a writer registered so long ago that it would be fenced.
    pub(super) fn is_overdue(&self, writer: &Registered, options: &GcOptions) -> bool {
        let Ok(record) = &writer.record else { return false };
        let age = self.surroundings().clock.now().seconds_since(record.time);
        // One from a time to come would never be; its clock is wrong, or it lies.
        u64::try_from(age).map_or(age < -AHEAD_MAX, |age| age >= options.fence_after.as_secs())
    }
}

fn describe(writer: Registered) -> WaitingFor {
    let registration = Name::Writer(writer.id).to_string();
    let since = writer.record.as_ref().ok().map(|record| record.time);
    let (series, host) = writer.record.map(|record| (record.series, record.host)).unwrap_or_default();
    WaitingFor { registration, series, host, since }
}
