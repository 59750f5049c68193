//! Which snapshots of a series are kept and which may be forgotten, each with the reason.
//!
//! Owns the rules, the calendar that they follow ([`Period`]) and the judgement
//! of which clocks to believe (`trust`). Forgets nothing itself and reads
//! nothing: it is handed the dates and answers with decisions.
//!
//! A rule keeps what it names whatever the others do; what no rule names may be
//! forgotten. Invariants, whatever the policy:
//!
//! - the last complete snapshot and the newest one are kept;
//! - a snapshot whose clock isn't believed is kept, and changes nothing about
//!   what the rules keep of the others;
//! - a larger number in a rule never keeps less.

mod period;
mod reason;
mod trust;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, Result};

pub use period::Period;
pub use reason::Reason;

use period::{Calendar, OFFSET_MAX, Unit};
use trust::Verdict;

/// Which snapshots of a series are kept.
///
/// Each rule is applied on its own, and a snapshot is kept if any rule keeps it. The rules for hours to years keep one
/// snapshot each of so many of the newest periods that have any; periods without snapshots don't count. Of a period
/// the newest complete snapshot is kept, or the newest partial one if it has no complete one. A partial snapshot counts
/// as any other for [`last`](Self::last), [`within`](Self::within) and [`tags`](Self::tags).
///
/// A period is that of the writer's clock. A snapshot whose clock can't be believed is kept, and counts for no rule:
/// see [`Reason::Future`], [`Reason::Behind`] and [`Reason::Ahead`].
///
/// ```
/// # use backstop::*;
/// let policy = RetentionPolicy::default().with_last(3).with_daily(7).with_weekly(5).with_utc_offset_seconds(3600);
/// policy.validate()?;
/// # assert!(RetentionPolicy::default().with_daily(0).validate().is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionPolicy {
    /// How many of the newest snapshots are kept.
    pub last: Option<u32>,
    /// Of how many hours that have snapshots one is kept.
    pub hourly: Option<u32>,
    /// Of how many days that have snapshots one is kept.
    pub daily: Option<u32>,
    /// Of how many weeks that have snapshots one is kept. Weeks are those of ISO 8601 and begin on Monday.
    pub weekly: Option<u32>,
    /// Of how many months that have snapshots one is kept.
    pub monthly: Option<u32>,
    /// Of how many years that have snapshots one is kept.
    pub yearly: Option<u32>,
    /// How much older than the newest a snapshot may be to be kept. The newest is the measure and not the present
    /// time, so that nothing goes only because no backup was made for a while.
    pub within: Option<Duration>,
    /// Labels: a snapshot that carries one of them is kept.
    pub tags: Vec<(String, String)>,
    /// By how much local time, in which hours to years begin, is ahead of UTC. The same all year round.
    pub utc_offset_seconds: i32,
}

impl RetentionPolicy {
    /// Keeps so many of the newest snapshots.
    #[must_use]
    pub fn with_last(mut self, count: u32) -> Self {
        self.last = Some(count);
        self
    }

    /// Keeps one snapshot of each of so many hours.
    #[must_use]
    pub fn with_hourly(mut self, count: u32) -> Self {
        self.hourly = Some(count);
        self
    }

    /// Keeps one snapshot of each of so many days.
    #[must_use]
    pub fn with_daily(mut self, count: u32) -> Self {
        self.daily = Some(count);
        self
    }

    /// Keeps one snapshot of each of so many weeks.
    #[must_use]
    pub fn with_weekly(mut self, count: u32) -> Self {
        self.weekly = Some(count);
        self
    }

    /// Keeps one snapshot of each of so many months.
    #[must_use]
    pub fn with_monthly(mut self, count: u32) -> Self {
        self.monthly = Some(count);
        self
    }

    /// Keeps one snapshot of each of so many years.
    #[must_use]
    pub fn with_yearly(mut self, count: u32) -> Self {
        self.yearly = Some(count);
        self
    }

    /// Keeps all snapshots that are at most so much older than the newest.
    #[must_use]
    pub fn with_within(mut self, age: Duration) -> Self {
        self.within = Some(age);
        self
    }

    /// Keeps all snapshots that carry this label, besides those of labels given before.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Begins hours to years by a local time that is so far ahead of UTC.
    #[must_use]
    pub fn with_utc_offset_seconds(mut self, seconds: i32) -> Self {
        self.utc_offset_seconds = seconds;
        self
    }

    /// Refuses a policy without a rule that keeps anything, and a local time that exists nowhere.
    pub fn validate(&self) -> Result<()> {
        let invalid =
            |reason: &str| Err(Error::Invalid { what: "retention policy".to_owned(), reason: reason.to_owned() });
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        let counted = counts.into_iter().flatten().any(|count| count > 0);
        if !counted && self.age().is_none() && self.tags.is_empty() {
            return invalid("it would forget everything but the last snapshot; say what to keep");
        }
        if self.utc_offset_seconds.unsigned_abs() > OFFSET_MAX.unsigned_abs() {
            return invalid("its local time is more than 18 hours from UTC; give the difference in seconds");
        }
        Ok(())
    }

    /// Decides over all snapshots of one series, given in the order of their numbers, and answers in that order.
    ///
    /// Where all clocks are believed, deciding again over what was kept keeps all of it. A clock that was behind stays
    /// doubted when those before it are forgotten; one that was ahead, or in a future that has come, is doubted for as
    /// long as what is left shows it.
    ///
    /// A policy should be [valid](Self::validate); one that has no rule keeps the last complete snapshot and the newest.
    pub fn decide(&self, snapshots: &[Dated<'_>], now: Timestamp) -> Vec<Decision> {
        let verdicts = trust::judge(snapshots, now);
        let mut kept = Kept::new(snapshots, &verdicts);
        kept.last(self.last.unwrap_or(0));
        let calendar = Calendar::new(self.utc_offset_seconds);
        for (unit, count) in self.units() {
            kept.periods(&calendar, unit, count.unwrap_or(0));
        }
        if let Some(age) = self.age() {
            kept.within(age);
        }
        kept.labelled(&self.tags);
        kept.ends();
        kept.doubtful(&verdicts);
        kept.decisions()
    }

    fn units(&self) -> [(Unit, Option<u32>); 5] {
        [
            (Unit::Hour, self.hourly),
            (Unit::Day, self.daily),
            (Unit::Week, self.weekly),
            (Unit::Month, self.monthly),
            (Unit::Year, self.yearly),
        ]
    }

    fn age(&self) -> Option<Duration> {
        self.within.filter(|age| !age.is_zero())
    }
}

/// What a decision about a snapshot rests on.
#[derive(Clone, Copy, Debug)]
pub struct Dated<'a> {
    /// Its number in the series.
    pub number: u64,
    /// Its time: the writer's clock, or just after its predecessor's time if that is later.
    pub time: Timestamp,
    /// What the writer's clock said.
    pub clock: Timestamp,
    /// Its labels.
    pub tags: &'a BTreeMap<String, String>,
    /// Whether nothing failed to be read for it.
    pub complete: bool,
}

/// What becomes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// Its number in the series.
    pub number: u64,
    /// Whether it is kept.
    pub keep: bool,
    /// Why; never empty. One that isn't kept has the reason [`Reason::NoRule`] alone.
    pub reasons: Vec<Reason>,
}

/// The reasons found so far.
struct Kept<'a> {
    snapshots: &'a [Dated<'a>],
    /// Which of them the rules count, oldest first.
    counted: Vec<usize>,
    /// One list for each snapshot.
    reasons: Vec<Vec<Reason>>,
}

impl<'a> Kept<'a> {
    fn new(snapshots: &'a [Dated<'a>], verdicts: &[Verdict]) -> Self {
        let counted = (0..snapshots.len()).filter(|at| verdicts.get(*at) == Some(&Verdict::Believed)).collect();
        Self { snapshots, counted, reasons: vec![Vec::new(); snapshots.len()] }
    }

    fn last(&mut self, count: u32) {
        for at in self.counted.iter().rev().take(count as usize) {
            self.reasons[*at].push(Reason::Last(count));
        }
    }

    fn periods(&mut self, calendar: &Calendar, unit: Unit, count: u32) {
        let mut chosen: BTreeMap<Period, usize> = BTreeMap::new();
        for &at in &self.counted {
            let best = chosen.entry(calendar.period(unit, self.snapshots[at].clock)).or_insert(at);
            if self.snapshots[at].complete || !self.snapshots[*best].complete {
                *best = at;
            }
        }
        for (period, at) in chosen.into_iter().rev().take(count as usize) {
            self.reasons[at].push(Reason::Period(period));
        }
    }

    fn within(&mut self, age: Duration) {
        let nanos = |at: usize| i128::from(self.snapshots[at].clock.as_nanos());
        let newest = self.counted.iter().map(|at| nanos(*at)).max().unwrap_or(0);
        for &at in &self.counted {
            if (newest - nanos(at)).unsigned_abs() <= age.as_nanos() {
                self.reasons[at].push(Reason::Within(age));
            }
        }
    }

    fn labelled(&mut self, labels: &[(String, String)]) {
        for (snapshot, reasons) in self.snapshots.iter().zip(&mut self.reasons) {
            let carried = labels.iter().filter(|(key, value)| snapshot.tags.get(key) == Some(value));
            reasons.extend(carried.map(|(key, value)| Reason::Label { key: key.clone(), value: value.clone() }));
        }
    }

    /// Keeps the last complete snapshot, and the newest if that is partial: what was just backed up isn't forgotten
    /// because one file couldn't be read.
    fn ends(&mut self) {
        if let Some(at) = self.snapshots.iter().rposition(|snapshot| snapshot.complete) {
            self.reasons[at].push(Reason::LastComplete);
        }
        if let Some((newest, reasons)) = self.snapshots.last().zip(self.reasons.last_mut())
            && !newest.complete
        {
            reasons.push(Reason::Newest);
        }
    }

    fn doubtful(&mut self, verdicts: &[Verdict]) {
        for (verdict, reasons) in verdicts.iter().zip(&mut self.reasons) {
            reasons.extend(match verdict {
                Verdict::Believed => None,
                Verdict::Future => Some(Reason::Future),
                Verdict::Behind => Some(Reason::Behind),
                Verdict::Ahead => Some(Reason::Ahead),
            });
        }
    }

    fn decisions(self) -> Vec<Decision> {
        let decide = |(snapshot, mut reasons): (&Dated<'_>, Vec<Reason>)| {
            let keep = !reasons.is_empty();
            if !keep {
                reasons.push(Reason::NoRule);
            }
            Decision { number: snapshot.number, keep, reasons }
        };
        self.snapshots.iter().zip(self.reasons).map(decide).collect()
    }
}
