//! Which snapshots still count: what forgetting publishes.
//!
//! ```text
//! kept/<series tag>/<k>      a signed record (object.rs), k counts from 1; the highest holds
//! ```
//! A list says of the numbers up to the highest that it looked at which of them
//! count; numbers after that count all. Create-if-absent picks one winner for
//! each k, and each list is a subset of the one before: a number that was
//! forgotten never counts again, whatever is stored under its name later.
//!
//! Owns the record, its order and its reading. What to forget is decided by
//! `retention`; when the data goes, by a collection.
//!
//! Invariant: a list that the administrator didn't sign counts for nothing, and
//! nor does one that doesn't open: it is put aside, and the newest that does holds.
//! Who is about to delete something or to publish a list stops instead, since a
//! lost list makes snapshots count again whose data may be gone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::clock::{Surroundings, Timestamp};
use crate::codec::{Decode, Encode, Extended, Extensions};
use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::{RecordHash, SeriesTag};
use crate::layout::{self, Name};
use crate::object;
use crate::store::{Created, Store};

/// How often a list is looked for anew when it is tidied away before it is read.
const ATTEMPTS: usize = 5;

/// What a list says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Kept {
    /// The highest number that it says something of.
    pub(crate) through: u64,
    /// Those up to it that count, as runs from a first to a last one, ascending.
    runs: Vec<(u64, u64)>,
    /// Those that don't and whose data may still be there, by when they were forgotten.
    forgotten: Vec<Forgetting>,
}

/// Snapshots that were forgotten at once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Forgetting {
    time: Timestamp,
    until: Timestamp,
    /// Ascending, each with what tells its record from one that somebody puts in its place once it is gone.
    snapshots: Vec<(u64, Digest)>,
}

/// The first half of a record's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Digest([u8; 16]);

impl Digest {
    fn of(hash: &RecordHash) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        Self(half)
    }
}

/// A snapshot that was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// When it was.
    pub(crate) time: Timestamp,
    /// Until then its data is kept, so that it can be undeleted.
    pub(crate) until: Timestamp,
    record: Digest,
}

impl Forgotten {
    /// Whether a record is the one that was forgotten.
    pub(crate) fn is_of(&self, hash: &RecordHash) -> bool {
        self.record == Digest::of(hash)
    }
}

/// A list as stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct KeptRecord {
    pub(crate) series: String,
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
    pub(crate) kept: Kept,
    pub(crate) extensions: Extensions,
}

impl Extended for KeptRecord {
    fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

/// The newest list of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    /// Its number; 0 if there is none, and all snapshots count.
    pub(crate) number: u64,
    /// The number that the next list contends for: the first after it that nothing has.
    ///
    /// Names beyond a free one are made up: whoever publishes takes the first that is free.
    pub(crate) next: u64,
    /// A list after it that can't be read, where there is such.
    pub(crate) unreadable: Option<Unreadable>,
    pub(crate) kept: Kept,
}

/// A list that can't be read, and that may be newer than the newest that can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    number: u64,
    reason: String,
    /// Whether a newer version can read it.
    is_unsupported: bool,
}

impl Newest {
    /// The list `number`, where these numbers are taken, in ascending order.
    pub(crate) fn of(number: u64, kept: Kept, taken: &[u64]) -> Self {
        let mut next = number + 1;
        for number in taken {
            next += u64::from(*number == next);
        }
        Self { number, next, unreadable: None, kept }
    }

    /// The list, unless one that may be newer can't be read.
    pub(crate) fn sound(&self, tag: &SeriesTag) -> Result<&Kept> {
        let Some(Unreadable { number, reason, is_unsupported }) = &self.unreadable else { return Ok(&self.kept) };
        let name = Name::Kept(*tag, *number);
        if *is_unsupported {
            return Err(Error::unsupported(name, reason));
        }
        let reason = format!("{reason}; it may say that snapshots were forgotten, so repair the repository first");
        Err(Error::corrupt(name, reason))
    }
}

impl Default for Newest {
    fn default() -> Self {
        Self::of(0, Kept::default(), &[])
    }
}

impl Kept {
    /// The last bucket that the series reaches, of those that are there, in ascending order.
    ///
    /// Numbers are handed out without gaps, so there can't be a bucket after one that isn't there, unless a list says that
    /// what was between was forgotten. Whoever makes numbers up has to make up one in each thousand.
    pub(crate) fn reach(&self, buckets: &[u64]) -> u64 {
        let base = self.through.saturating_add(1) / layout::BUCKET;
        // Where everything lies beyond, the lists are lost, and the first that is there is as good as known.
        let mut reached = buckets.first().map_or(base, |first| base.max(*first));
        while buckets.binary_search(&reached).is_ok() && buckets.binary_search(&(reached + 1)).is_ok() {
            reached += 1;
        }
        reached
    }

    /// Whether a number counts.
    pub(crate) fn counts(&self, number: u64) -> bool {
        if number > self.through {
            return true;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).is_some_and(|at| self.runs[at].1 >= number)
    }

    /// The numbers that count up to `highest`, as runs.
    pub(crate) fn counting(&self, highest: u64) -> Vec<(u64, u64)> {
        let after = (self.through < highest).then_some((self.through + 1, highest));
        let within = self.runs.iter().map(|(first, last)| (*first, highest.min(*last)));
        within.chain(after).filter(|(first, last)| first <= last).collect()
    }

    /// What is known of a number that was forgotten, while its data may still be there.
    pub(crate) fn forgotten(&self, number: u64) -> Option<Forgotten> {
        self.forgotten.iter().find_map(|Forgetting { time, until, snapshots }| {
            let at = snapshots.binary_search_by_key(&number, |(number, _)| *number).ok()?;
            Some(Forgotten { time: *time, until: *until, record: snapshots[at].1 })
        })
    }

    /// Whether the data of a number must be kept: it counts, or may yet be undeleted.
    pub(crate) fn is_root(&self, number: u64, now: Timestamp) -> bool {
        self.counts(number) || self.forgotten(number).is_some_and(|forgotten| now < forgotten.until)
    }

    /// The list after this one: these snapshots, each with its record's hash, don't count any more, of which up to
    /// `through` something is said.
    ///
    /// What was forgotten before is mentioned as long as its data is kept, and `is_there` says that its record is.
    pub(crate) fn forget(
        &self,
        snapshots: &[(u64, RecordHash)],
        through: u64,
        (time, until): (Timestamp, Timestamp),
        is_there: impl Fn(u64) -> bool,
    ) -> Self {
        let hashes: BTreeMap<u64, RecordHash> = snapshots.iter().copied().collect();
        let (mut next, gone) = self.leave_out(hashes.keys().copied(), through);
        next.forgotten.retain_mut(|forgetting| {
            forgetting.snapshots.retain(|(number, _)| is_there(*number));
            time < forgetting.until && !forgetting.snapshots.is_empty()
        });
        let snapshots: Vec<_> = gone.iter().map(|number| (*number, Digest::of(&hashes[number]))).collect();
        if !snapshots.is_empty() {
            next.forgotten.push(Forgetting { time, until, snapshots });
        }
        next
    }

    /// The list after this one: these numbers don't count any more, and nobody knows what their records were, so that
    /// they can't be undeleted. Of those up to `through` something is said.
    pub(crate) fn give_up(&self, numbers: &BTreeSet<u64>, through: u64) -> Self {
        self.leave_out(numbers.iter().copied(), through).0
    }

    /// The list without some numbers, and which of these it had.
    fn leave_out(&self, numbers: impl Iterator<Item = u64>, through: u64) -> (Self, Vec<u64>) {
        let through = self.through.max(through);
        let mut runs = self.runs.clone();
        if through > self.through {
            runs.push((self.through + 1, through));
        }
        let gone: Vec<u64> = numbers.filter(|number| *number <= through && self.counts(*number)).collect();
        (Self { through, runs: without(runs, &gone), forgotten: self.forgotten.clone() }, gone)
    }

    fn is_sound(&self) -> bool {
        let runs = self.runs.iter().all(|(first, last)| (1..=*last).contains(first) && *last <= self.through);
        let apart = self.runs.is_sorted_by(|(_, last), (first, _)| last.saturating_add(1) < *first);
        self.through <= layout::NUMBER_MAX && runs && apart && self.forgets_soundly()
    }

    /// Whether what was forgotten is in order, doesn't count, and was forgotten once.
    fn forgets_soundly(&self) -> bool {
        let mut seen = BTreeSet::new();
        self.forgotten.iter().all(|Forgetting { snapshots, .. }| {
            let sorted = snapshots.is_sorted_by(|(a, _), (b, _)| a < b) && !snapshots.is_empty();
            sorted && snapshots.iter().all(|(number, _)| *number > 0 && !self.counts(*number) && seen.insert(*number))
        })
    }
}

/// Runs without some numbers, which are sorted; neighbours joined.
fn without(runs: Vec<(u64, u64)>, gone: &[u64]) -> Vec<(u64, u64)> {
    let mut left: Vec<(u64, u64)> = Vec::with_capacity(runs.len());
    let mut push = |first: u64, last: u64| match left.last_mut() {
        Some(before) if before.1 + 1 == first => before.1 = last,
        _ => left.push((first, last)),
    };
    for (mut first, last) in runs {
        let begin = gone.partition_point(|number| *number < first);
        for number in gone[begin..].iter().take_while(|number| **number <= last) {
            if first < *number {
                push(first, number - 1);
            }
            first = number + 1;
        }
        if first <= last {
            push(first, last);
        }
    }
    left
}

/// The newest list of a series: one listing, and one read where there is one.
pub(crate) async fn newest(store: &Store, keyring: &Keyring, tag: &SeriesTag) -> Result<Newest> {
    for _ in 0..ATTEMPTS {
        let listed = store.list(&layout::kept_prefix(tag)).await?;
        let numbers = listed.iter().filter_map(|listed| Some(parse(&listed.name)?.1)).collect();
        if let Some(found) = authentic(store, keyring, tag, numbers).await? {
            return Ok(found);
        }
    }
    Err(Error::corrupt(layout::kept_prefix(tag), "it lists names that can't be read"))
}

/// The newest lists of all series that have one: one listing, and one read for each.
pub(crate) async fn newest_of_all(store: &Store, keyring: &Keyring) -> Result<BTreeMap<SeriesTag, Newest>> {
    let mut series = BTreeMap::<SeriesTag, Vec<u64>>::new();
    for (tag, number) in store.list(layout::KEPT).await?.iter().filter_map(|listed| parse(&listed.name)) {
        series.entry(tag).or_default().push(number);
    }
    let mut lists = BTreeMap::new();
    for (tag, numbers) in series {
        let found = match authentic(store, keyring, &tag, numbers).await? {
            Some(found) => found,
            None => newest(store, keyring, &tag).await?,
        };
        lists.insert(tag, found);
    }
    Ok(lists)
}

/// The list of the highest of these numbers that is the administrator's; nothing if one is gone.
async fn authentic(store: &Store, keyring: &Keyring, tag: &SeriesTag, mut numbers: Vec<u64>) -> Result<Option<Newest>> {
    numbers.sort_unstable();
    let mut unreadable = Vec::new();
    let (mut held, mut kept) = (0, Kept::default());
    for number in numbers.iter().rev().copied() {
        match read(store, keyring, tag, number).await {
            Ok(Some(found)) => {
                (held, kept) = (number, found);
                break;
            }
            Ok(None) => {
                tracing::warn!(name = %Name::Kept(*tag, number), "it isn't the administrator's, and is ignored");
            }
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error @ Error::Store { .. }) => return Err(error),
            Err(error) => unreadable.push((number, error)),
        }
    }
    let mut newest = Newest::of(held, kept, &numbers);
    for (number, error) in unreadable {
        // Those before the newest are tidied away, so where none can be read any of them may be it.
        if number < newest.next || held == 0 {
            let (reason, is_unsupported) = (why(&error), error.is_unsupported());
            newest.unreadable.get_or_insert(Unreadable { number, reason, is_unsupported });
        }
        store.put_aside(Name::Kept(*tag, number), error);
    }
    Ok(Some(newest))
}

/// What an error says is wrong with a list.
fn why(error: &Error) -> String {
    match error {
        Error::Corrupt { reason, .. } | Error::Unsupported { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

/// One list; nothing if the administrator didn't sign it.
pub(crate) async fn read(store: &Store, keyring: &Keyring, tag: &SeriesTag, number: u64) -> Result<Option<Kept>> {
    let name = Name::Kept(*tag, number).to_string();
    let bytes = store.get(&name, object::RECORD_MAX).await?;
    open(&bytes, keyring, tag, number)
}

/// Opens a list from its bytes; nothing if the administrator didn't sign it.
pub(crate) fn open(bytes: &[u8], keyring: &Keyring, tag: &SeriesTag, number: u64) -> Result<Option<Kept>> {
    let name = Name::Kept(*tag, number).to_string();
    let Some(record) = object::open_signed::<KeptRecord>(bytes, Kind::Kept, &name, keyring)? else { return Ok(None) };
    let KeptRecord { series, number: own, kept, .. } = record;
    if own == number && keyring.series_tag(&series) == *tag && kept.is_sound() {
        Ok(Some(kept))
    } else {
        Err(Error::corrupt(name, "it says something else than its name"))
    }
}

/// Publishes a list after `before`; false if someone else was faster.
pub(crate) async fn publish(
    store: &Store,
    keyring: &Keyring,
    surroundings: &Surroundings,
    series: &str,
    before: &Newest,
    kept: Kept,
) -> Result<bool> {
    before.sound(&keyring.series_tag(series))?;
    let number = before.next;
    if number > layout::NUMBER_MAX {
        return Err(Error::invalid(format!("series {series:?}"), "the numbers of its lists have run out"));
    }
    let name = Name::Kept(keyring.series_tag(series), number).to_string();
    let (time, extensions) = (surroundings.clock.now(), Extensions::default());
    let record = KeptRecord { series: series.to_owned(), number, time, kept, extensions };
    let sealed = object::seal_signed(&record, Kind::Kept, &name, keyring, surroundings)?;
    if sealed.len() as u64 > object::RECORD_MAX {
        return Err(Error::invalid(
            format!("series {series:?}"),
            "too many single snapshots are forgotten; collect first",
        ));
    }
    if store.create(&name, Bytes::from(sealed)).await? == Created::Theirs {
        return Ok(false);
    }
    // The name may have been free because it was tidied away. Then there is a higher one, which holds.
    let now = newest(store, keyring, &keyring.series_tag(series)).await?;
    Ok(now.number == number)
}

fn parse(name: &str) -> Option<(SeriesTag, u64)> {
    match Name::parse(name) {
        Some(Name::Kept(tag, number)) => Some((tag, number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
