//! What was asked for, what came of it, and whether the one explains the other.
//!
//! Every snapshot's tag names who asked for it. What it must hold follows from
//! the snapshot before it and from what was asked, as a map; outcomes that
//! nobody learned may show or not, but only whole and once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::feed::Receipt;
use crate::snapshot::Snapshot;
use crate::tree::Key;

pub(super) type Map = BTreeMap<Key, Bytes>;

/// A snapshot and what it holds.
pub(super) type Seen = Arc<(Snapshot, Map)>;

/// The tag that says by whom a snapshot was asked for.
pub(super) const TAG: &str = "asked";

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(Key, Bytes),
    Remove(Key),
    RemovePrefix(Key),
}

impl Op {
    fn apply(&self, map: &mut Map) {
        match self {
            Op::Put(key, content) => drop(map.insert(key.clone(), content.clone())),
            Op::Remove(key) => drop(map.remove(key)),
            Op::RemovePrefix(prefix) => map.retain(|key, _| !key.starts_with(prefix)),
        }
    }
}

/// A commit that a writer was asked for.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) series: usize,
    /// The number of the snapshot that it began with.
    pub(super) base: Option<u64>,
    pub(super) replaces: bool,
    pub(super) ops: Vec<Op>,
    pub(super) outcome: Outcome,
}

/// What a writer was told of its commit.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It failed in a way that leaves it open, or nobody heard.
    Unknown,
    Made(Box<Snapshot>),
    /// Refused because of what this snapshot changed.
    Overlaps(u64),
}

/// Changes of a feed that stand or fall together.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) ops: Vec<Op>,
    pub(super) told: Told,
}

/// What a caller of a feed was told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    Nothing,
    Committed(Receipt),
    /// It won't ever show.
    Failed,
}

/// What somebody asked for.
#[derive(Clone, Debug)]
enum Asked {
    Commit(Commit),
    /// The changes of each of a feed's callers, in order; each changes what lies below its own of [`TOPS`].
    Feed(Vec<Vec<Change>>),
}

/// What somebody asked to be given back.
#[derive(Clone, Debug)]
struct Undelete {
    series: usize,
    /// The number that the content had first.
    origin: u64,
    made: Option<Snapshot>,
}

/// Everything that happened in a case.
pub(super) struct History {
    pub(super) series: Vec<String>,
    asked: BTreeMap<String, Asked>,
    /// What was found under each number of each series when it had come to be there; nothing for a tombstone.
    pub(super) seen: Vec<Vec<Option<Seen>>>,
    /// Snapshots that somebody asked to be forgotten: they may vanish at any time.
    forgotten: BTreeSet<(usize, u64)>,
    undeleted: Vec<Undelete>,
    pub(super) tally: Tally,
}

/// How often what was to be tried has happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) commits: u64,
    pub(super) rebased: u64,
    pub(super) overlaps: u64,
    pub(super) acknowledged: u64,
    /// Commits and changes that show though nobody was told.
    pub(super) unheard: u64,
    /// Calls that failed.
    pub(super) failed: u64,
    pub(super) lives_lost: u64,
    pub(super) read: u64,
    pub(super) packs_deleted: u64,
    pub(super) forgotten: u64,
    /// Records that collections deleted.
    pub(super) records_deleted: u64,
    pub(super) collected: u64,
    pub(super) rescued: u64,
    pub(super) fenced: u64,
    pub(super) undeleted: u64,
}

impl Tally {
    pub(super) fn and(self, other: Tally) -> Tally {
        Tally {
            commits: self.commits + other.commits,
            rebased: self.rebased + other.rebased,
            overlaps: self.overlaps + other.overlaps,
            acknowledged: self.acknowledged + other.acknowledged,
            unheard: self.unheard + other.unheard,
            failed: self.failed + other.failed,
            lives_lost: self.lives_lost + other.lives_lost,
            read: self.read + other.read,
            packs_deleted: self.packs_deleted + other.packs_deleted,
            forgotten: self.forgotten + other.forgotten,
            records_deleted: self.records_deleted + other.records_deleted,
            collected: self.collected + other.collected,
            rescued: self.rescued + other.rescued,
            fenced: self.fenced + other.fenced,
            undeleted: self.undeleted + other.undeleted,
        }
    }
}

impl History {
    pub(super) fn new(series: Vec<String>) -> Self {
        let seen = vec![Vec::new(); series.len()];
        let (forgotten, undeleted) = (BTreeSet::new(), Vec::new());
        Self { series, asked: BTreeMap::new(), seen, forgotten, undeleted, tally: Tally::default() }
    }

    /// The snapshots of a series so far, those that were forgotten too.
    pub(super) fn snapshots(&self, series: usize) -> Vec<Seen> {
        self.seen[series].iter().flatten().cloned().collect()
    }

    /// Those that must be there.
    pub(super) fn counting(&self, series: usize) -> Vec<Seen> {
        let mut snapshots = self.snapshots(series);
        snapshots.retain(|seen| !self.may_vanish(series, seen.0.number));
        snapshots
    }

    /// Takes note that a snapshot is about to be forgotten.
    pub(super) fn forget(&mut self, series: usize, number: u64) {
        self.tally.forgotten += u64::from(self.forgotten.insert((series, number)));
    }

    /// Whether somebody asked for a snapshot to be forgotten.
    pub(super) fn may_vanish(&self, series: usize, number: u64) -> bool {
        self.forgotten.contains(&(series, number))
    }

    /// Whether a number never counts again.
    pub(super) fn is_over(&self, series: usize, number: u64) -> bool {
        self.may_vanish(series, number) || self.seen[series][number as usize - 1].is_none()
    }

    /// Those of a series that somebody asked to be forgotten.
    pub(super) fn forgotten(&self, series: usize) -> Vec<u64> {
        self.forgotten.iter().filter(|(other, _)| *other == series).map(|(_, number)| *number).collect()
    }

    /// Takes note that a snapshot is about to be given back; the number of this wish.
    pub(super) fn ask_undelete(&mut self, series: usize, number: u64) -> usize {
        let origin = self.at(series, number).0.origin.map_or(number, |origin| origin.number);
        self.undeleted.push(Undelete { series, origin, made: None });
        self.undeleted.len() - 1
    }

    /// Takes note that it was.
    pub(super) fn undeleted(&mut self, wish: usize, made: Snapshot) {
        self.tally.undeleted += 1;
        self.undeleted[wish].made = Some(made);
    }

    fn at(&self, series: usize, number: u64) -> &(Snapshot, Map) {
        self.seen[series][number as usize - 1].as_ref().unwrap_or_else(|| panic!("{number} is a tombstone"))
    }

    /// Takes note of a commit that is about to be asked for; its tag.
    pub(super) fn ask_commit(&mut self, commit: Commit) -> String {
        self.ask(Asked::Commit(commit))
    }

    /// Takes note of a feed with so many callers; its tag.
    pub(super) fn ask_feed(&mut self, callers: usize) -> String {
        self.ask(Asked::Feed(vec![Vec::new(); callers]))
    }

    fn ask(&mut self, asked: Asked) -> String {
        let tag = self.asked.len().to_string();
        self.asked.insert(tag.clone(), asked);
        tag
    }

    /// Takes note of what came of a commit.
    pub(super) fn committed(&mut self, tag: &str, outcome: Outcome) {
        match (self.asked.get_mut(tag), &outcome) {
            (Some(Asked::Commit(commit)), Outcome::Made(_)) => {
                self.tally.commits += 1;
                commit.outcome = outcome;
            }
            (Some(Asked::Commit(commit)), _) => commit.outcome = outcome,
            _ => panic!("no commit was asked for as {tag}"),
        }
    }

    /// Takes note of a change that a caller of a feed asks for; its number among this caller's.
    pub(super) fn change(&mut self, tag: &str, caller: usize, ops: Vec<Op>) -> usize {
        let changes = self.changes(tag, caller);
        changes.push(Change { ops, told: Told::Nothing });
        changes.len() - 1
    }

    /// Takes note of what he was told.
    pub(super) fn told(&mut self, tag: &str, caller: usize, change: usize, told: Told) {
        self.tally.acknowledged += u64::from(matches!(told, Told::Committed(_)));
        self.changes(tag, caller)[change].told = told;
    }

    fn changes(&mut self, tag: &str, caller: usize) -> &mut Vec<Change> {
        match self.asked.get_mut(tag) {
            Some(Asked::Feed(callers)) => &mut callers[caller],
            _ => panic!("no feed was asked for as {tag}"),
        }
    }

    /// Checks that what was seen is what was asked for, and that all that was acknowledged was seen.
    pub(super) fn explain(&mut self) {
        let mut asked = std::mem::take(&mut self.asked);
        for series in 0..self.series.len() {
            for at in 0..self.seen[series].len() {
                self.explain_one(series, at, &mut asked);
            }
        }
        for (tag, asked) in asked {
            self.judge_left(&tag, asked);
        }
        let left: Vec<_> = self.undeleted.iter().filter_map(|wish| wish.made.as_ref()).collect();
        assert!(left.is_empty(), "{left:?} was given back and isn't there");
    }

    fn explain_one(&mut self, series: usize, at: usize, asked: &mut BTreeMap<String, Asked>) {
        let Some(seen) = self.seen[series][at].clone() else { return };
        let (snapshot, found) = &*seen;
        if let Some(Some(previous)) = at.checked_sub(1).map(|before| &self.seen[series][before]) {
            assert_eq!(snapshot.predecessor, Some(previous.0.hash), "{snapshot}");
        }
        // What may have been forgotten when it was made says nothing of its time.
        let lasting = (1..snapshot.number).rev().filter(|number| !self.may_vanish(series, *number));
        let before = lasting.filter_map(|number| self.seen[series][number as usize - 1].as_ref()).next();
        assert!(before.is_none_or(|before| before.0.time < snapshot.time), "{snapshot} is too early");
        assert_eq!(snapshot.entries, found.len() as u64, "{snapshot}");
        if let Some(origin) = snapshot.origin {
            let made = self.undeleted.iter().position(|wish| wish.made.as_ref() == Some(snapshot));
            let is_open =
                |wish: &Undelete| wish.made.is_none() && (wish.series, wish.origin) == (series, origin.number);
            let wish = made.or_else(|| self.undeleted.iter().position(is_open));
            let wish = wish.unwrap_or_else(|| panic!("nobody asked for {snapshot} to be given back"));
            self.undeleted.swap_remove(wish);
            assert!(*found == self.at(series, origin.number).1, "{snapshot} isn't what was forgotten");
            return;
        }
        let before = snapshot.parent.map(|parent| self.at(series, parent).1.clone()).unwrap_or_default();
        let tag = &snapshot.tags[TAG];
        let replaces = matches!(asked.get(tag), Some(Asked::Commit(Commit { replaces: true, .. })));
        let place = |number: u64| self.seen[series][number as usize - 1].as_ref().map_or(0, |seen| seen.0.place());
        let last = (1..snapshot.number).filter(|number| !self.may_vanish(series, *number)).map(place).max();
        assert!(
            replaces || last.unwrap_or(0) <= snapshot.parent.map_or(0, place),
            "{snapshot} isn't made of the last one"
        );
        let expected = match asked.get_mut(tag) {
            Some(Asked::Commit(commit)) => {
                assert_eq!(commit.series, series, "{snapshot}");
                match &commit.outcome {
                    Outcome::Made(made) => assert_eq!(**made, *snapshot),
                    Outcome::Unknown => self.tally.unheard += 1,
                    Outcome::Overlaps(with) => panic!("{snapshot} was made and refused because of {with}"),
                }
                let (map, rebased) = self.outcome_of(commit, &before, snapshot);
                self.tally.rebased += u64::from(rebased);
                asked.remove(tag);
                map
            }
            Some(Asked::Feed(callers)) => {
                let (mut expected, mut unheard) = (before, 0);
                for (top, changes) in TOPS.iter().zip(callers) {
                    unheard += apply(top, changes, snapshot, &mut expected, found);
                }
                self.tally.unheard += unheard;
                expected
            }
            None => panic!("nobody asked for {snapshot}, or it is there twice"),
        };
        assert!(*found == expected, "{snapshot}: {}", differences(found, &expected));
    }

    /// What a commit makes of the snapshot before it, and whether it was moved onto that.
    fn outcome_of(&self, commit: &Commit, before: &Map, snapshot: &Snapshot) -> (Map, bool) {
        let (base, ours) = self.draft(commit);
        if commit.replaces || commit.base == snapshot.parent {
            return (ours, false);
        }
        let overlap = overlap(commit, &base, &ours, before);
        assert!(overlap.is_empty(), "{snapshot} was made over changes that overlap: {overlap:?}");
        let mut map = before.clone();
        for key in differing(&base, &ours) {
            match ours.get(&key) {
                Some(content) => drop(map.insert(key, content.clone())),
                None => drop(map.remove(&key)),
            }
        }
        (map, true)
    }

    /// What a commit began with, and what it made of it.
    fn draft(&self, commit: &Commit) -> (Map, Map) {
        let base = commit.base.map(|number| self.at(commit.series, number).1.clone());
        let base = base.unwrap_or_default();
        let mut ours = base.clone();
        commit.ops.iter().for_each(|op| op.apply(&mut ours));
        (base, ours)
    }

    /// What was asked for and hasn't shown must not have been acknowledged, and what was refused must have been at
    /// odds.
    fn judge_left(&mut self, tag: &str, asked: Asked) {
        match asked {
            Asked::Commit(commit) => match commit.outcome {
                Outcome::Unknown => {}
                Outcome::Made(snapshot) => panic!("{snapshot} was acknowledged to {tag} and isn't there"),
                Outcome::Overlaps(number) => {
                    self.tally.overlaps += 1;
                    let theirs = &self.at(commit.series, number).1;
                    let (base, ours) = self.draft(&commit);
                    assert!(!overlap(&commit, &base, &ours, theirs).is_empty(), "{tag} was refused for no reason");
                }
            },
            Asked::Feed(callers) => {
                for change in callers.iter().flatten() {
                    assert!(!matches!(change.told, Told::Committed(_)), "{change:?} of {tag} isn't there");
                }
            }
        }
    }
}

/// Applies those of a caller's changes that a snapshot holds, and takes them out: all that were acknowledged as part of
/// it, and as many as needed of those that nobody heard of; how many these are.
fn apply(top: &str, changes: &mut Vec<Change>, snapshot: &Snapshot, map: &mut Map, found: &Map) -> u64 {
    let is_here =
        |change: &Change| matches!(change.told, Told::Committed(receipt) if receipt.number == snapshot.number);
    for receipt in changes.iter().filter(|change| is_here(change)) {
        let Told::Committed(receipt) = receipt.told else { continue };
        assert_eq!((receipt.hash, receipt.time), (snapshot.hash, snapshot.time), "{snapshot}");
    }
    let open: Vec<_> = (0..changes.len()).filter(|at| matches!(changes[*at].told, Told::Nothing)).collect();
    let is_own = |key: &Key| key.components().next() == Some(top.as_bytes());
    let part = |map: &Map| -> Map {
        map.iter().filter(|(key, _)| is_own(key)).map(|(key, content)| (key.clone(), content.clone())).collect()
    };
    let (before, after) = (part(map), part(found));
    for chosen in 0u64..1 << open.len() {
        let is_chosen =
            |at: usize| open.iter().position(|other| *other == at).is_some_and(|bit| chosen >> bit & 1 == 1);
        let mut with = before.clone();
        let here = changes.iter().enumerate().filter(|(at, change)| is_here(change) || is_chosen(*at));
        here.flat_map(|(_, change)| &change.ops).for_each(|op| op.apply(&mut with));
        if with == after {
            map.retain(|key, _| !is_own(key));
            map.extend(with);
            let mut at = 0..;
            changes.retain(|change| !at.next().is_some_and(|at| is_here(change) || is_chosen(at)));
            return u64::from(chosen.count_ones());
        }
    }
    // The caller shows in what the two differ.
    changes.iter().filter(|change| is_here(change)).flat_map(|change| &change.ops).for_each(|op| op.apply(map));
    0
}

/// The first components of keys, one for each caller of a feed.
pub(super) const TOPS: [&str; 4] = ["a", "b", "a!", "ab"];

/// The keys at which two maps differ.
fn differing(a: &Map, b: &Map) -> BTreeSet<Key> {
    a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
}

/// The keys at which a commit's changes are at odds with what lies between its base and `theirs`.
fn overlap(commit: &Commit, base: &Map, ours: &Map, theirs: &Map) -> Vec<Key> {
    let changed = differing(base, ours);
    let removed =
        |key: &Key| commit.ops.iter().any(|op| matches!(op, Op::RemovePrefix(prefix) if key.starts_with(prefix)));
    let mut keys = differing(base, theirs);
    keys.retain(|key| ours.get(key) != theirs.get(key) && (changed.contains(key) || removed(key)));
    keys.into_iter().collect()
}

/// Where a snapshot isn't what it should be.
fn differences(found: &Map, expected: &Map) -> String {
    let length = |map: &Map, key: &Key| map.get(key).map(Bytes::len);
    let lines = differing(found, expected).into_iter();
    let lines =
        lines.map(|key| format!("{key}: {:?} bytes, expected {:?}", length(found, &key), length(expected, &key)));
    lines.collect::<Vec<_>>().join("\n")
}
