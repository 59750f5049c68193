//! Made-up series of snapshots.

use std::collections::BTreeMap;

use backstop::{Dated, Decision, RetentionPolicy, Timestamp};

/// A snapshot as far as retention cares.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) number: u64,
    pub(crate) time: i64,
    pub(crate) clock: i64,
    pub(crate) complete: bool,
    pub(crate) tags: BTreeMap<String, String>,
}

/// Snapshots in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(pub(crate) Vec<Made>);

impl Series {
    /// Snapshots as a list has them: the clock, and then `partial` or a label for each that has one.
    pub(crate) fn listed(list: &str) -> Self {
        let mut series = Self::default();
        for line in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split(' ');
            let made = series.add(nanos(words.next().unwrap()));
            for word in words {
                match word.split_once('=') {
                    Some((key, value)) => drop(made.tags.insert(key.to_owned(), value.to_owned())),
                    None => made.complete = word != "partial",
                }
            }
        }
        series
    }

    /// So many snapshots, each the same time after the one before.
    pub(crate) fn regular(first: &str, hours: i64, count: i64) -> Self {
        let mut series = Self::default();
        for step in 0..count {
            series.add(nanos(first) + step * hours * 3_600_000_000_000);
        }
        series
    }

    /// Adds a snapshot with the time that a writer with this clock gives it.
    pub(crate) fn add(&mut self, clock: i64) -> &mut Made {
        let time = self.0.last().map_or(clock, |last| clock.max(last.time.saturating_add(1)));
        let number = self.0.last().map_or(1, |last| last.number + 1);
        self.0.push(Made { number, time, clock, complete: true, tags: BTreeMap::new() });
        self.0.last_mut().unwrap()
    }

    pub(crate) fn decide<'a>(&'a self, policy: &RetentionPolicy, now: i64) -> Vec<Decision> {
        let dated = |made: &'a Made| -> Dated<'a> {
            let Made { number, time, clock, complete, tags } = made;
            let (time, clock) = (Timestamp::from_nanos(*time), Timestamp::from_nanos(*clock));
            Dated { number: *number, time, clock, tags, complete: *complete }
        };
        let dated: Vec<Dated<'_>> = self.0.iter().map(dated).collect();
        policy.decide(&dated, Timestamp::from_nanos(now))
    }

    /// The series after the decisions were carried out.
    pub(crate) fn after(&self, decisions: &[Decision]) -> Self {
        let kept = self.0.iter().zip(decisions).filter(|(_, decision)| decision.keep);
        Self(kept.map(|(made, _)| made.clone()).collect())
    }
}

pub(crate) fn nanos(moment: &str) -> i64 {
    i64::try_from(moment.parse::<jiff::Timestamp>().unwrap().as_nanosecond()).unwrap()
}

pub(crate) fn told(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap().to_string()
}
