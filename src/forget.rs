//! Forgetting snapshots: which, by policy or by name, and publishing that they don't count any more.
//!
//! ```text
//! plan: read the series ──> decide (retention) ──> look ──> forget: publish kept/<series>/<k>
//! ```
//! Nothing is deleted here. A collection deletes what no snapshot needs once the
//! time has passed for which the data of forgotten ones is kept; until then
//! [`Repository::undelete`] brings one back.
//!
//! Invariant: by policy alone a series' last complete snapshot is never
//! forgotten, also not when two forget at once: what a plan keeps must still
//! count when it is carried out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::RecordHash;
use crate::kept;
use crate::repository::Repository;
use crate::retention::{Dated, Reason, RetentionPolicy};
use crate::snapshot::{Placed, Snapshot, validate_series};

/// How often a list is contended for before it is given up.
const CONTESTS: u32 = 16;

/// For how long the data of forgotten snapshots is kept unless asked otherwise.
const UNDELETE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgetOptions {
    /// Forgets what no rule of it keeps.
    pub policy: Option<RetentionPolicy>,
    /// The series that the policy is applied to, each by itself; empty for all.
    pub series: Vec<String>,
    /// Snapshots to forget whatever the policy says, by series and number. This way a series' last one goes, too.
    pub snapshots: Vec<(String, u64)>,
    /// For how long the data of what is forgotten is kept, so that it can be undeleted. A week.
    pub undelete_for: Duration,
}

impl Default for ForgetOptions {
    fn default() -> Self {
        Self { policy: None, series: Vec::new(), snapshots: Vec::new(), undelete_for: UNDELETE_FOR }
    }
}

impl ForgetOptions {
    /// Forgets what no rule of the policy keeps.
    #[must_use]
    pub fn with_policy(mut self, policy: RetentionPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Applies the policy to this series, and others that are named this way, alone.
    #[must_use]
    pub fn with_series(mut self, series: impl Into<String>) -> Self {
        self.series.push(series.into());
        self
    }

    /// Forgets this snapshot, whatever the policy says.
    #[must_use]
    pub fn with_snapshot(mut self, series: impl Into<String>, number: u64) -> Self {
        self.snapshots.push((series.into(), number));
        self
    }

    /// Keeps the data of what is forgotten for so long.
    #[must_use]
    pub fn with_undelete_for(mut self, time: Duration) -> Self {
        self.undelete_for = time;
        self
    }

    fn validate(&self) -> Result<()> {
        let named = self.snapshots.iter().map(|(series, _)| series);
        self.series.iter().chain(named).try_for_each(|series| validate_series(series))?;
        match &self.policy {
            Some(policy) => policy.validate(),
            None if self.snapshots.is_empty() => {
                Err(Error::invalid("forgetting", "give a policy, or name the snapshots"))
            }
            None => Ok(()),
        }
    }
}

/// What becomes of one snapshot, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotDecision {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Whether it is kept.
    pub keep: bool,
    /// Why; never empty.
    pub reasons: Vec<Reason>,
}

/// What would be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgetPlan {
    /// Every snapshot of the series that were looked at: by series, oldest first.
    pub decisions: Vec<SnapshotDecision>,
    /// For how long the data of what is forgotten is kept.
    pub undelete_for: Duration,
}

impl ForgetPlan {
    /// The snapshots that would be forgotten.
    pub fn forgotten(&self) -> impl Iterator<Item = &Snapshot> {
        self.decisions.iter().filter(|decision| !decision.keep).map(|decision| &decision.snapshot)
    }
}

/// What was forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgetReport {
    /// Snapshots that don't count any more, by series and number.
    pub forgotten: Vec<(String, u64)>,
    /// Until when they can be undeleted; nothing if none was forgotten.
    pub until: Option<Timestamp>,
}

/// A snapshot that was forgotten and whose record is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgottenSnapshot {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// When it was forgotten.
    pub forgotten: Timestamp,
    /// Until when its data is certainly kept.
    pub until: Timestamp,
}

impl Repository {
    /// Looks what would be forgotten: reads the records of the series, and changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a snapshot that is named and doesn't exist; [`Error::Invalid`] for a policy without rules.
    pub async fn plan_forget(&self, options: &ForgetOptions) -> Result<ForgetPlan> {
        options.validate()?;
        let mut by_series = BTreeMap::<String, Vec<Snapshot>>::new();
        for snapshot in self.snapshots_for(options).await? {
            by_series.entry(snapshot.series.clone()).or_default().push(snapshot);
        }
        let now = self.surroundings().clock.now();
        let mut decisions = Vec::new();
        for (series, snapshots) in by_series {
            let tag = self.keyring().series_tag(&series);
            self.timelines().kept(&tag).await?.sound(&tag)?;
            let mut decided = decide(options, &series, snapshots, now);
            for (_, number) in options.snapshots.iter().filter(|(named, _)| *named == series) {
                let found = decided.iter_mut().find(|decision| decision.snapshot.number == *number);
                let found = found.ok_or_else(|| Error::not_found(format!("snapshot {series}#{number}")))?;
                (found.keep, found.reasons) = (false, vec![Reason::Named]);
            }
            decisions.extend(decided);
        }
        let looked_at = |series: &str| decisions.iter().any(|decision| decision.snapshot.series == series);
        if let Some((series, number)) = options.snapshots.iter().find(|(series, _)| !looked_at(series)) {
            return Err(Error::not_found(format!("snapshot {series}#{number}")));
        }
        Ok(ForgetPlan { decisions, undelete_for: options.undelete_for })
    }

    /// The snapshots of the series that the policy or a name is about.
    async fn snapshots_for(&self, options: &ForgetOptions) -> Result<Vec<Snapshot>> {
        if options.policy.is_some() && options.series.is_empty() {
            return self.snapshots(None).await;
        }
        let mut series: Vec<String> = options.snapshots.iter().map(|(series, _)| series.clone()).collect();
        if options.policy.is_some() {
            series.extend(options.series.iter().cloned());
        }
        series.sort_unstable();
        series.dedup();
        let mut snapshots = Vec::new();
        for series in series {
            snapshots.extend(self.snapshots(Some(&series)).await?);
        }
        Ok(snapshots)
    }

    /// Forgets what a plan says: it isn't shown any more, and a collection deletes its data after the time for which it
    /// can be undeleted.
    ///
    /// ```
    /// # use backstop::*; async fn f(repository: &Repository) -> Result<()> {
    /// let policy = RetentionPolicy::default().with_daily(14).with_monthly(12);
    /// let plan = repository.plan_forget(&ForgetOptions::default().with_policy(policy)).await?;
    /// for decision in &plan.decisions {
    ///     println!("{} {}: {}", if decision.keep { "keep" } else { "forget" }, decision.snapshot, decision.reasons[0]);
    /// }
    /// repository.forget(&plan).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Conflict`] if something that the plan keeps was forgotten since: plan anew. [`Error::AppendOnly`] if the
    /// repository was opened with a secret that may not forget.
    pub async fn forget(&self, plan: &ForgetPlan) -> Result<ForgetReport> {
        self.require_administrator("forget snapshots")?;
        let time = self.surroundings().clock.now();
        let window = i64::try_from(plan.undelete_for.as_nanos()).unwrap_or(i64::MAX);
        let until = Timestamp::from_nanos(time.as_nanos().saturating_add(window));
        let mut report = ForgetReport::default();
        for decisions in plan.decisions.chunk_by(|a, b| a.snapshot.series == b.snapshot.series) {
            let gone: Vec<_> = decisions.iter().filter(|decision| !decision.keep).collect();
            let Some(first) = gone.first() else { continue };
            let kept: Vec<u64> = decisions.iter().filter(|one| one.keep).map(|one| one.snapshot.number).collect();
            let gone: Vec<_> = gone.iter().map(|one| (one.snapshot.number, one.snapshot.hash)).collect();
            self.publish_kept(&first.snapshot.series, &kept, &gone, (time, until)).await?;
            report.forgotten.extend(gone.into_iter().map(|(number, _)| (first.snapshot.series.clone(), number)));
            report.until = Some(until);
        }
        Ok(report)
    }

    async fn publish_kept(
        &self,
        series: &str,
        kept: &[u64],
        gone: &[(u64, RecordHash)],
        times: (Timestamp, Timestamp),
    ) -> Result<()> {
        let tag = self.keyring().series_tag(series);
        for _ in 0..CONTESTS {
            let lines = self.timelines().lines(Some(&tag)).await?;
            let newest = lines.newest(&tag);
            if let Some(number) = kept.iter().find(|number| !newest.kept.counts(**number)) {
                let reason = "it was forgotten since this was planned; plan anew";
                return Err(Error::conflict(format!("{series}#{number}"), reason));
            }
            let through = gone.iter().map(|(number, _)| *number).max().unwrap_or(0);
            let next = newest.kept.forget(gone, through, times, |number| lines.is_there(tag, number));
            if next == newest.kept
                || kept::publish(self.store(), self.keyring(), self.surroundings(), series, &newest, next).await?
            {
                return Ok(());
            }
        }
        let reason = format!("others forgot snapshots {CONTESTS} times in a row; run it again");
        Err(Error::conflict(format!("series {series:?}"), reason))
    }

    /// Snapshots that were forgotten and whose records are still there, of one series or of all: by series, oldest first.
    pub async fn forgotten(&self, series: Option<&str>) -> Result<Vec<ForgottenSnapshot>> {
        let tag = match series {
            Some(series) => {
                validate_series(series)?;
                Some(self.keyring().series_tag(series))
            }
            None => None,
        };
        let lines = self.timelines().lines(tag.as_ref()).await?;
        let mut found = Vec::new();
        for name in &lines.names {
            let Some(forgotten) = lines.kept.get(&name.tag).and_then(|newest| newest.kept.forgotten(name.number))
            else {
                continue;
            };
            let placed = self.timelines().read_if_usable(name).await?;
            let snapshot = placed.and_then(Placed::into_snapshot);
            if let Some(snapshot) = snapshot.filter(|snapshot| forgotten.is_of(&snapshot.hash)) {
                found.push(ForgottenSnapshot { snapshot, forgotten: forgotten.time, until: forgotten.until });
            }
        }
        found.sort_by(|a, b| (&a.snapshot.series, a.snapshot.number).cmp(&(&b.snapshot.series, b.snapshot.number)));
        Ok(found)
    }
}

/// Decides over one series, which may be one that the policy isn't about.
fn decide(options: &ForgetOptions, series: &str, snapshots: Vec<Snapshot>, now: Timestamp) -> Vec<SnapshotDecision> {
    let concerns = options.series.is_empty() || options.series.iter().any(|named| named == series);
    let policy = options.policy.as_ref().filter(|_| concerns);
    let Some(policy) = policy else {
        let kept = |snapshot| SnapshotDecision { snapshot, keep: true, reasons: vec![Reason::NotNamed] };
        return snapshots.into_iter().map(kept).collect();
    };
    let dated: Vec<_> = snapshots
        .iter()
        .map(|snapshot| Dated {
            number: snapshot.number,
            // What gives another back is as old as that.
            time: snapshot.origin.map_or(snapshot.time, |origin| origin.time),
            clock: snapshot.origin.map_or(snapshot.clock, |origin| origin.time),
            tags: &snapshot.tags,
            complete: !snapshot.is_partial(),
        })
        .collect();
    let decisions = policy.decide(&dated, now);
    let decided = snapshots.into_iter().zip(decisions);
    decided
        .map(|(snapshot, decision)| SnapshotDecision { snapshot, keep: decision.keep, reasons: decision.reasons })
        .collect()
}
