//! Where a level is cut into nodes.
//!
//! A level is an ordered list of items. It is cut before each item whose keyed
//! hash lies under a threshold; what stands between two such cuts is a run. A run
//! longer than a node may be is cut again before the item of smallest hash (the
//! first item doesn't count), and so each of its parts. So the cuts are a function
//! of the items alone, an edit moves cuts only within its run, and nodes are more
//! even than if the threshold alone decided.

use std::ops::Range;

use zeroize::Zeroizing;

use super::key::Key;
use super::node::{NODE_MAX, encode_node};
use crate::codec::{Decode, Encode};
use crate::error::{Error, Result};

/// The shape of trees; stored in a repository's configuration and never changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct TreeParameters {
    /// The mean number of entries in a run of leaves.
    pub(crate) leaf_mean: u32,
    /// The greatest length of a leaf's entries in bytes, unless one alone is longer.
    pub(crate) leaf_cap: u32,
    /// The mean number of references in a run of inner nodes.
    pub(crate) fan_out: u32,
    /// The greatest length of an inner node's references in bytes.
    pub(crate) inner_cap: u32,
    /// The greatest length of a payload that is stored in its entry.
    pub(crate) inline_max: u32,
    /// The greatest number of pieces that an entry lists; more become a sequence.
    pub(crate) pieces_max: u32,
    /// The mean number of pieces, and of references, in a node of a sequence.
    pub(crate) sequence_mean: u32,
}

/// Leaves of about 4 KiB. Measured on 40,000 entries of 100 and of 300 bytes: leaves of 3652 and 4219 bytes on
/// average, and the leaf in which a random byte lies is 1.41 and 1.31 times as long. A longer mean makes leaves
/// hardly more even (1.34 at 128) and runs longer, of which an edit reads one; a shorter one makes them less even
/// (1.72 at 24).
impl Default for TreeParameters {
    fn default() -> Self {
        Self {
            leaf_mean: 56,
            leaf_cap: 8 << 10,
            fan_out: 64,
            inner_cap: 16 << 10,
            inline_max: 1 << 10,
            pieces_max: 32,
            sequence_mean: 128,
        }
    }
}

impl TreeParameters {
    /// Refuses parameters from which no sound tree could be built.
    pub(crate) fn check(&self) -> Result<()> {
        let means = [self.leaf_mean, self.fan_out, self.sequence_mean];
        let caps = [self.leaf_cap, self.inner_cap];
        // An inner node must have room for two references with the longest of keys, or a level could be as
        // long as the one below it. A sequence's node is up to four times its mean, at 40 bytes a piece at most.
        let sound = means.iter().all(|mean| (4..=4096).contains(mean))
            && caps.iter().all(|cap| (512..=NODE_MAX as u32 / 2).contains(cap))
            && self.inner_cap as usize >= 3 * Key::MAX_LEN
            && self.inline_max <= 64 << 10
            && (1..=4096).contains(&self.pieces_max);
        if sound { Ok(()) } else { Err(Error::invalid("tree parameters", format!("{self:?} are out of bounds"))) }
    }
}

/// Decides where trees are cut. The key keeps others from choosing names that make a bad tree.
#[derive(Clone)]
pub(crate) struct Splitter {
    pub(super) parameters: TreeParameters,
    key: Zeroizing<[u8; 32]>,
}

impl Splitter {
    /// Cuts by these parameters under the repository's secret split key.
    pub(crate) fn new(parameters: TreeParameters, key: [u8; 32]) -> Self {
        Self { parameters, key: Zeroizing::new(key) }
    }

    /// The shape of the trees.
    pub(crate) fn parameters(&self) -> &TreeParameters {
        &self.parameters
    }

    fn hash(&self, form: u8, bytes: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[form]).update(bytes);
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first)
    }

    /// The hash of a key on a level.
    pub(super) fn hash_key(&self, level: u8, key: &Key) -> u64 {
        self.hash(level, key.as_encoded())
    }

    /// Whether a node of a sequence that has so many items ends before an item of this content.
    pub(super) fn ends_sequence_node(&self, form: u8, content: &[u8], items: usize) -> bool {
        let mean = u64::from(self.parameters.sequence_mean.max(4));
        let items = items as u64;
        // A quarter of the mean, then three quarters until the threshold is met.
        items >= 4 * mean || (items >= mean / 4 && self.hash(form, content) < u64::MAX / (mean - mean / 4))
    }

    /// Whether a run begins at an item of this hash.
    pub(super) fn begins_run(&self, level: u8, hash: u64) -> bool {
        let mean = if level == 0 { self.parameters.leaf_mean } else { self.parameters.fan_out };
        hash < u64::MAX / u64::from(mean.max(1))
    }

    /// Whether a run begins at this key.
    pub(super) fn begins_run_at(&self, level: u8, key: &Key) -> bool {
        self.begins_run(level, self.hash_key(level, key))
    }

    fn cap(&self, level: u8) -> usize {
        (if level == 0 { self.parameters.leaf_cap } else { self.parameters.inner_cap }) as usize
    }
}

/// An item of a run, its encoding in the run's buffer.
#[derive(Debug)]
struct Item {
    hash: u64,
    start: usize,
    key: Key,
    entries: u64,
}

/// A node cut from a run.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) first: Key,
    pub(super) entries: u64,
    /// The number of items in it.
    pub(super) items: usize,
    pub(super) node: Vec<u8>,
}

/// The items of one run of one level, encoded.
#[derive(Debug, Default)]
pub(super) struct Run {
    level: u8,
    items: Vec<Item>,
    encoded: Vec<u8>,
}

impl Run {
    pub(super) fn new(level: u8) -> Self {
        Self { level, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an item that stands for `entries` entries; `encode` writes it.
    pub(super) fn push(&mut self, hash: u64, key: &Key, entries: u64, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.encoded.len();
        encode(&mut self.encoded);
        self.items.push(Item { hash, start, key: key.clone(), entries });
        self.encoded.len() - start
    }

    /// Ends the run: cuts it into nodes and leaves it empty.
    pub(super) fn cut(&mut self, splitter: &Splitter) -> Vec<Cut> {
        let cuts = self.ranges(splitter.cap(self.level)).into_iter().map(|range| self.node(range)).collect();
        self.items.clear();
        self.encoded.clear();
        cuts
    }

    fn end(&self, index: usize) -> usize {
        self.items.get(index + 1).map_or(self.encoded.len(), |next| next.start)
    }

    fn bytes(&self, range: &Range<usize>) -> Range<usize> {
        if range.is_empty() { 0..0 } else { self.items[range.start].start..self.end(range.end - 1) }
    }

    fn node(&self, range: Range<usize>) -> Cut {
        let node = encode_node(self.level, range.len(), &self.encoded[self.bytes(&range)]);
        let entries = self.items[range.clone()].iter().map(|item| item.entries).sum();
        Cut { first: self.items[range.start].key.clone(), entries, items: range.len(), node }
    }

    /// The ranges of items that become nodes, in order.
    fn ranges(&self, cap: usize) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut open = Vec::new();
        if !self.items.is_empty() {
            open.push(0..self.items.len());
        }
        while let Some(range) = open.pop() {
            let smallest = (range.start + 1..range.end).min_by_key(|index| self.items[*index].hash);
            match smallest {
                Some(middle) if self.bytes(&range).len() > cap => {
                    open.push(middle..range.end);
                    open.push(range.start..middle);
                }
                _ => ranges.push(range),
            }
        }
        ranges
    }
}
