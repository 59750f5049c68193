//! Places in a series, and finding the number that was the newest at a time.
//!
//! The times of the snapshots that count increase with their numbers, so a time is
//! searched for as in a sorted list. Which numbers count is known from the list of
//! the series alone, and a number is a name, so nothing needs to be listed: each
//! round reads a few records at once, evenly spaced among those that are left.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};

use super::{Body, Placed, Record, Timelines};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::SeriesTag;
use crate::kept::Kept;
use crate::layout::{CommitName, Name};

/// The most records that are read at once in order to find a time.
const PROBES: u64 = 64;

/// The most that are read at once where two rounds find it.
const PROBES_OF_TWO: u64 = 24;

/// A place in a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// A snapshot's number.
    Number(u64),
    /// A time.
    Time(Timestamp),
}

impl Moment {
    /// How a record lies to this moment.
    pub(crate) fn compare(self, number: u64, time: Timestamp) -> Ordering {
        match self {
            Moment::Number(own) => number.cmp(&own),
            Moment::Time(own) => time.cmp(&own),
        }
    }
}

impl From<u64> for Moment {
    fn from(number: u64) -> Self {
        Moment::Number(number)
    }
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        Moment::Time(time)
    }
}

impl Timelines {
    /// The newest record that counts at or before `time`.
    ///
    /// `buckets` are those of the series, in order. One listing, and up to three rounds of reads that are made at once:
    /// two of ten for 120 snapshots, three of 46 for 100,000.
    pub(super) async fn newest_at(
        &self,
        tag: &SeriesTag,
        buckets: &[u64],
        kept: &Kept,
        time: Timestamp,
    ) -> Result<Option<Placed>> {
        let mut highest = 0;
        for bucket in buckets.iter().rev() {
            highest = self.names_in(tag, *bucket).await?.last().map_or(0, |name| name.number);
            if highest > 0 {
                break;
            }
        }
        let mut liars = BTreeSet::new();
        loop {
            let mut search = Search::new(kept.counting(highest));
            liars.iter().for_each(|number| search.learn(*number, None));
            let mut read = self.search_for(tag, &mut search, time).await?;
            let Some(newest) = read.remove(&search.found) else { return Ok(None) };
            // Whoever commits takes a time after those before: one that lies about it isn't what was there at that time.
            let is_snapshot = |placed: &&Placed| matches!(placed.record.body, Body::Snapshot(_));
            let mut before = read.range(..search.found).map(|(_, placed)| placed).filter(is_snapshot);
            if before.all(|before| before.record.time < newest.record.time) {
                return Ok(Some(newest));
            }
            let name = Name::Commit(CommitName { tag: *tag, number: search.found });
            self.store.put_aside(name, Error::corrupt(name, "its time isn't after that of the snapshots before it"));
            liars.insert(search.found);
        }
    }

    /// Searches for the newest record at or before `time`; those that were read on the way, by number.
    async fn search_for(&self, tag: &SeriesTag, search: &mut Search, time: Timestamp) -> Result<BTreeMap<u64, Placed>> {
        let mut known = BTreeMap::new();
        while let Some(numbers) = search.probe() {
            let read = |number| async move {
                let placed = self.read_if_usable(&CommitName { tag: *tag, number }).await?;
                Ok::<_, Error>((number, placed))
            };
            let read: Vec<_> = futures::stream::iter(numbers).map(read).buffered(PROBES as usize).try_collect().await?;
            for (number, placed) in read {
                search.learn(number, placed.as_ref().and_then(|placed| is_at_or_before(&placed.record, time)));
                known.extend(placed.map(|placed| (number, placed)));
            }
            if search.is_blind && !search.is_restricted {
                // Numbers that should have records have none: go by those that do.
                let lines = self.lines(Some(tag)).await?;
                search.restrict(&lines.names.iter().map(|name| name.number).collect::<Vec<_>>());
            }
        }
        Ok(known)
    }
}

/// Whether a record is of a time up to `time`, as those before it then are, and those after it otherwise aren't.
///
/// A tombstone's time is just after that of the snapshot before it, which may have been one of the far future and have
/// been forgotten since: so a late one says nothing of those after it.
fn is_at_or_before(record: &Record, time: Timestamp) -> Option<bool> {
    let is_before = record.time <= time;
    (is_before || matches!(record.body, Body::Snapshot(_))).then_some(is_before)
}

/// A search for the last of some numbers for which something holds that holds for all before it.
#[derive(Debug)]
struct Search {
    /// Runs of the numbers that are left, ascending.
    left: Vec<(u64, u64)>,
    /// The last for which it is known to hold, or 0.
    found: u64,
    /// How many are looked at in a round.
    width: u64,
    /// Whether the last round found nothing that it could use.
    is_blind: bool,
    /// Whether only numbers are left that have records.
    is_restricted: bool,
}

impl Search {
    /// Among the numbers of some runs, which are ascending and apart.
    fn new(left: Vec<(u64, u64)>) -> Self {
        let count = count(&left);
        // As many as find one in two rounds if those are few, or in three if that isn't too many at once.
        let in_two = (1..PROBES_OF_TWO).find(|width| (width + 1).pow(2) > count);
        let in_three = || (1..PROBES).find(|width| (width + 1).pow(3) > count);
        let width = in_two.or_else(in_three).unwrap_or(PROBES);
        Self { left, found: 0, width, is_blind: false, is_restricted: false }
    }

    /// The numbers to look at next, evenly spaced. Returns `None` when nothing is left to be looked at.
    fn probe(&mut self) -> Option<Vec<u64>> {
        let count = count(&self.left);
        self.is_blind = true;
        let numbers: BTreeSet<u64> = if count <= self.width {
            self.left.iter().flat_map(|(first, last)| *first..=*last).collect()
        } else {
            let place = |at: u64| u128::from(count) * u128::from(at) / u128::from(self.width + 1);
            (1..=self.width).filter_map(|at| self.nth(u64::try_from(place(at)).ok()?)).collect()
        };
        (!numbers.is_empty()).then(|| numbers.into_iter().collect())
    }

    /// The number at a place among those that are left, from 0.
    fn nth(&self, mut place: u64) -> Option<u64> {
        for (first, last) in &self.left {
            let length = last - first + 1;
            if place < length {
                return Some(first + place);
            }
            place -= length;
        }
        None
    }

    /// Takes in whether it holds for a number, or that nothing is known of that.
    fn learn(&mut self, number: u64, holds: Option<bool>) {
        self.is_blind &= holds.is_none();
        let runs = std::mem::take(&mut self.left);
        let parts = runs.into_iter().flat_map(|(first, last)| match holds {
            Some(true) => [(first.max(number + 1), last), (1, 0)],
            Some(false) => [(first, last.min(number - 1)), (1, 0)],
            None if (first..=last).contains(&number) => [(first, number - 1), (number + 1, last)],
            None => [(first, last), (1, 0)],
        });
        self.left = parts.filter(|(first, last)| first <= last).collect();
        if holds == Some(true) {
            self.found = self.found.max(number);
        }
    }

    /// Goes on among these numbers alone, which are ascending.
    fn restrict(&mut self, numbers: &[u64]) {
        self.is_restricted = true;
        let left = std::mem::take(&mut self.left);
        let is_left = |number: &&u64| left.iter().any(|(first, last)| (*first..=*last).contains(*number));
        self.left = numbers.iter().filter(is_left).map(|number| (*number, *number)).collect();
    }
}

/// How many numbers some runs have.
fn count(runs: &[(u64, u64)]) -> u64 {
    runs.iter().map(|(first, last)| last - first + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Looks for the last of `numbers` up to `wanted`, where those in `unusable` say nothing; what is found, and in how
    /// many rounds.
    fn find(runs: &[(u64, u64)], wanted: u64, unusable: &BTreeSet<u64>) -> (u64, u32) {
        let (mut search, mut rounds) = (Search::new(runs.to_vec()), 0);
        while let Some(numbers) = search.probe() {
            assert!(numbers.len() as u64 <= PROBES);
            rounds += 1;
            for number in numbers {
                search.learn(number, (!unusable.contains(&number)).then_some(number <= wanted));
            }
        }
        (search.found, rounds)
    }

    #[test]
    fn a_hundred_thousand_take_three_rounds() {
        for wanted in [0, 1, 2, 499, 50_000, 99_999, 100_000] {
            let (found, rounds) = find(&[(1, 100_000)], wanted, &BTreeSet::new());
            assert!(found == wanted && rounds <= 3, "{wanted}: {found} in {rounds}");
        }
        assert_eq!(find(&[], 5, &BTreeSet::new()), (0, 0));
        assert_eq!(find(&[(7, 7)], 6, &BTreeSet::new()), (0, 1));
    }

    proptest! {
        #[test]
        fn what_is_found_is_the_last_that_can_be_used(
            gaps in prop::collection::vec((1u64..50, 0u64..80), 0..20),
            wanted in 0u64..3000,
            unusable: BTreeSet<u8>,
        ) {
            let (mut at, mut runs) = (0, Vec::new());
            for (gap, length) in gaps {
                runs.push((at + gap + 1, at + gap + 1 + length));
                at += gap + 1 + length;
            }
            let unusable: BTreeSet<u64> = unusable.into_iter().map(|number| u64::from(number) * 7).collect();
            let usable = runs.iter().flat_map(|(first, last)| *first..=*last).filter(|number| !unusable.contains(number));
            let expected = usable.filter(|number| *number <= wanted).max().unwrap_or(0);
            prop_assert_eq!(find(&runs, wanted, &unusable).0, expected);
        }
    }
}
