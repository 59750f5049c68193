//! What is expected: changes and drafts as maps, and what has been asked for and not seen yet.

use std::collections::{BTreeMap, BTreeSet};

use backstop::{Key, Receipt, Snapshot};

pub(crate) type Map = BTreeMap<Key, Vec<u8>>;

/// One change, as the model makes it.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(Key, Vec<u8>),
    Remove(Key),
    RemovePrefix(Key),
}

impl Op {
    pub(crate) fn apply(&self, map: &mut Map) {
        match self {
            Op::Put(key, content) => drop(map.insert(key.clone(), content.clone())),
            Op::Remove(key) => drop(map.remove(key)),
            Op::RemovePrefix(prefix) => map.retain(|key, _| !key.starts_with(prefix)),
        }
    }

    pub(crate) fn key(&self) -> &Key {
        match self {
            Op::Put(key, _) | Op::Remove(key) | Op::RemovePrefix(key) => key,
        }
    }
}

/// The keys at which two maps differ.
pub(crate) fn differing(a: &Map, b: &Map) -> BTreeSet<Key> {
    a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
}

/// What a writer holds.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) series: usize,
    pub(crate) base: Map,
    /// The number of the snapshot that it began with, and its position.
    pub(crate) began: Option<(u64, Option<Vec<u8>>)>,
    pub(crate) map: Map,
    /// Prefixes that were removed, or renamed.
    pub(crate) removed: Vec<Key>,
    pub(crate) replaces: bool,
}

impl Draft {
    /// The keys at which its changes overlap with what lies between its base and `theirs`.
    pub(crate) fn overlap(&self, theirs: &Map) -> Vec<Key> {
        let ours = differing(&self.base, &self.map);
        let at_odds = |key: &&Key| self.map.get(*key) != theirs.get(*key);
        let touched = |key: &&Key| ours.contains(*key) || self.removed.iter().any(|prefix| key.starts_with(prefix));
        differing(&self.base, theirs).iter().filter(at_odds).filter(touched).cloned().collect()
    }

    /// Its changes on top of `theirs`.
    pub(crate) fn on(&self, theirs: &Map) -> Map {
        if self.replaces {
            return self.map.clone();
        }
        let mut map = theirs.clone();
        for key in differing(&self.base, &self.map) {
            match self.map.get(&key) {
                Some(content) => drop(map.insert(key, content.clone())),
                None => drop(map.remove(&key)),
            }
        }
        map
    }
}

/// What may or must show in a snapshot to come.
pub(crate) enum Pending {
    Commit {
        id: u64,
        draft: Draft,
        position: Option<Vec<u8>>,
        made: Option<Box<Snapshot>>,
    },
    /// Refused because of what this snapshot has changed; looked at once that has been seen.
    Overlapping {
        id: u64,
        draft: Draft,
        number: u64,
        paths: Vec<String>,
    },
    /// Acknowledged as part of this snapshot.
    Acknowledged {
        id: u64,
        receipt: Receipt,
        ops: Vec<Op>,
        position: Option<Vec<u8>>,
    },
    /// Nobody waited for it.
    Unawaited {
        id: u64,
        op: Op,
    },
}

impl Pending {
    pub(crate) fn id(&self) -> u64 {
        match self {
            Pending::Commit { id, .. }
            | Pending::Overlapping { id, .. }
            | Pending::Acknowledged { id, .. }
            | Pending::Unawaited { id, .. } => *id,
        }
    }
}

/// Moves what is at and below a prefix; how many entries that is.
pub(crate) fn rename(map: &mut Map, from: &Key, to: &Key) -> u64 {
    let moved: Vec<_> = map.extract_if(.., |key, _| key.starts_with(from)).collect();
    let count = moved.len() as u64;
    for (key, content) in moved {
        let rest: Vec<_> = key.components().skip(from.depth()).collect();
        map.insert(Key::new(to.components().chain(rest)).unwrap(), content);
    }
    count
}

/// Where a snapshot isn't what it should be.
pub(crate) fn describe(found: &Map, expected: &Map) -> String {
    let length = |map: &Map, key: &Key| map.get(key).map(Vec::len);
    let differing = differing(found, expected);
    let lines = differing
        .iter()
        .map(|key| format!("{key}: {:?} bytes, expected {:?}", length(found, key), length(expected, key)));
    lines.collect::<Vec<_>>().join("\n")
}
