//! The overlay: what was called since the last portion was applied.
//!
//! Invariant: no removed prefix lies below another, and no point at or below
//! one is a removal, which would say nothing. So each key is decided by its
//! point, else by the one removed prefix that it may lie under, else not here.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Edit, Entry, Key};

/// What a point costs beside its key and entry, roughly.
const OVERHEAD: usize = 160;

/// A new entry, or that there is none.
#[derive(Clone, Debug)]
struct Point {
    entry: Option<Entry>,
    bytes: usize,
}

/// Changes in no order but that of their keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    points: BTreeMap<Key, Point>,
    removed: BTreeSet<Key>,
    bytes: usize,
    /// Removed prefixes of this overlay and of those applied before, none below another.
    ever_removed: BTreeSet<Key>,
}

impl Pending {
    /// Puts an entry that is `length` bytes long when encoded.
    pub(super) fn put(&mut self, key: Key, entry: Entry, length: usize) {
        self.insert(key, Some(entry), length);
    }

    pub(super) fn remove(&mut self, key: Key) {
        if covering(&self.removed, &key).is_some() {
            self.forget(&key);
        } else {
            self.insert(key, None, 0);
        }
    }

    pub(super) fn remove_prefix(&mut self, prefix: Key) {
        for key in below(&self.points, &prefix) {
            self.forget(&key);
        }
        if add_prefix(&mut self.removed, &prefix) {
            self.bytes += prefix.as_encoded().len() + OVERHEAD;
        }
        add_prefix(&mut self.ever_removed, &prefix);
    }

    fn insert(&mut self, key: Key, entry: Option<Entry>, length: usize) {
        let bytes = key.as_encoded().len() + length + OVERHEAD;
        self.bytes += bytes;
        if let Some(before) = self.points.insert(key, Point { entry, bytes }) {
            self.bytes -= before.bytes;
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(point) = self.points.remove(key) {
            self.bytes -= point.bytes;
        }
    }

    /// What is decided here of `key`.
    pub(super) fn get(&self, key: &Key) -> Option<Option<Entry>> {
        match self.points.get(key) {
            Some(point) => Some(point.entry.clone()),
            None => covering(&self.removed, key).map(|_| None),
        }
    }

    /// Whether everything at and below `prefix` was removed, but for points.
    pub(super) fn removes(&self, prefix: &Key) -> bool {
        covering(&self.removed, prefix).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.removed.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it as edits, in order.
    pub(super) fn edits(&self) -> Vec<(Key, Edit)> {
        let mut edits = Vec::with_capacity(self.points.len() + self.removed.len());
        let mut removed = self.removed.iter().peekable();
        for (key, point) in &self.points {
            while let Some(prefix) = removed.next_if(|prefix| *prefix < key) {
                edits.push((prefix.clone(), Edit::RemovePrefix));
            }
            let replaces = removed.next_if(|prefix| *prefix == key).is_some();
            let edit = match point.entry.clone() {
                Some(entry) if replaces => Edit::Replace(entry),
                Some(entry) => Edit::Put(entry),
                None => Edit::Remove,
            };
            edits.push((key.clone(), edit));
        }
        edits.extend(removed.map(|prefix| (prefix.clone(), Edit::RemovePrefix)));
        edits
    }

    /// All of it has become part of the tree.
    pub(super) fn applied(&mut self) {
        let ever_removed = std::mem::take(&mut self.ever_removed);
        *self = Self { ever_removed, ..Self::default() };
    }

    /// The prefixes that were removed, now or before a portion was applied.
    pub(super) fn ever_removed(&self) -> &BTreeSet<Key> {
        &self.ever_removed
    }

    /// Takes over which prefixes were removed before.
    pub(super) fn set_ever_removed(&mut self, prefixes: BTreeSet<Key>) {
        self.ever_removed = prefixes;
    }

    /// What it says of the keys at and below `prefix`, or of all.
    pub(super) fn view(&self, prefix: Option<&Key>) -> View {
        let within = |key: &Key| prefix.is_none_or(|prefix| key.starts_with(prefix));
        let points = match prefix {
            Some(prefix) => below(&self.points, prefix),
            None => self.points.keys().cloned().collect(),
        };
        let points: Vec<_> = points
            .into_iter()
            .filter_map(|key| self.points.get(&key).map(|point| (key, point.entry.clone())))
            .collect();
        View { points, removed: self.removed.iter().filter(|key| within(key)).cloned().collect() }
    }
}

/// A copy of a part of the overlay.
pub(super) struct View {
    /// In order.
    pub(super) points: Vec<(Key, Option<Entry>)>,
    removed: BTreeSet<Key>,
}

impl View {
    /// Whether an entry of the tree that no point is about is gone.
    pub(super) fn removes(&self, key: &Key) -> bool {
        covering(&self.removed, key).is_some()
    }
}

/// The prefix in a set of such that don't lie below another, that `key` is or lies below.
pub(super) fn covering<'a>(prefixes: &'a BTreeSet<Key>, key: &Key) -> Option<&'a Key> {
    // A prefix of the key comes before it, and what comes between the two would lie below the prefix.
    prefixes.range(..=key).next_back().filter(|prefix| key.starts_with(prefix))
}

/// Adds a prefix in place of those below it; whether none covered it.
fn add_prefix(prefixes: &mut BTreeSet<Key>, prefix: &Key) -> bool {
    if covering(prefixes, prefix).is_some() {
        return false;
    }
    let covered: Vec<_> = prefixes.range(prefix..).take_while(|key| key.starts_with(prefix)).cloned().collect();
    for key in &covered {
        prefixes.remove(key);
    }
    prefixes.insert(prefix.clone())
}

/// The keys at and below a prefix.
fn below(points: &BTreeMap<Key, Point>, prefix: &Key) -> Vec<Key> {
    let points = points.range(prefix..).map(|(key, _)| key);
    points.take_while(|key| key.starts_with(prefix)).cloned().collect()
}
