//! Which blobs are needed: a bit for each entry of each index segment.
//!
//! Segments are sorted by blob id and stay where they are, so a mark takes a bit
//! and not an id: at 10^8 blobs 12.5 MB, beside the segments' filters.
//!
//! A blob is marked as what it is needed as: whoever can add can have a snapshot need a node's id as a chunk, and a node
//! that was marked for that would be left out together with all that is below it.
//!
//! Invariants: a blob that several segments know as of its kind is marked in all of them. All that is below a node which
//! is marked is marked as well once the walks are over, unless it is among the doubtful.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::id::BlobId;
use crate::index::{Location, Segment};
use crate::pack::BlockKind;

/// What came of marking a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It wasn't marked before.
    New,
    Known,
    /// No segment knows such a blob.
    Unknown,
}

/// Marks over some segments, all of which are at hand.
pub(super) struct Marks {
    tables: Vec<Table>,
    /// Nodes that are marked, and below which something may not be: a walk that came by them couldn't be finished.
    doubtful: Mutex<HashSet<BlobId>>,
}

struct Table {
    segment: Arc<Segment>,
    bits: Vec<AtomicU64>,
}

impl Table {
    /// At which place an id stands as a blob of this kind.
    fn position(&self, kind: BlockKind, id: &BlobId) -> Result<Option<u64>> {
        let found = self.segment.position(id)?;
        Ok(found.filter(|(_, said)| *said == kind).map(|(position, _)| position))
    }

    fn is_set(&self, position: u64) -> bool {
        let word = self.bits.get((position / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & bit(position) != 0)
    }

    /// Sets a bit; whether it was set before.
    fn set(&self, position: u64) -> bool {
        let word = self.bits.get((position / 64) as usize);
        word.is_some_and(|word| word.fetch_or(bit(position), Ordering::Relaxed) & bit(position) != 0)
    }
}

fn bit(position: u64) -> u64 {
    1 << (position % 64)
}

/// Where one of a group of equal ids is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) location: Location,
}

impl Marks {
    /// None are set yet.
    pub(super) fn new(segments: Vec<Arc<Segment>>) -> Self {
        let table = |segment: Arc<Segment>| {
            let words = segment.len().div_ceil(64);
            Table { bits: (0..words).map(|_| AtomicU64::new(0)).collect(), segment }
        };
        Self { tables: segments.into_iter().map(table).collect(), doubtful: Mutex::default() }
    }

    /// The segments, by their numbers.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.tables.iter().map(|table| &table.segment)
    }

    /// Marks a blob as needed.
    pub(super) fn mark(&self, kind: BlockKind, id: &BlobId) -> Result<Mark> {
        let mut mark = Mark::Unknown;
        for table in &self.tables {
            if let Some(position) = table.position(kind, id)? {
                let known = table.set(position);
                if mark == Mark::Unknown {
                    mark = if known { Mark::Known } else { Mark::New };
                }
            }
        }
        Ok(mark)
    }

    /// Whether a blob is needed as what it is said to be.
    pub(super) fn is_marked(&self, kind: BlockKind, id: &BlobId) -> Result<bool> {
        for table in &self.tables {
            if let Some(position) = table.position(kind, id)? {
                return Ok(table.is_set(position));
            }
        }
        Ok(false)
    }

    /// Whether a blob is needed, be it as a chunk or as a node.
    pub(super) fn is_needed(&self, id: &BlobId) -> Result<bool> {
        Ok(self.is_marked(BlockKind::Nodes, id)? || self.is_marked(BlockKind::Data, id)?)
    }

    /// Whether a node is marked, and all that is below it.
    pub(super) fn is_whole(&self, id: &BlobId) -> Result<bool> {
        Ok(self.is_marked(BlockKind::Nodes, id)? && !self.is_doubtful(id))
    }

    /// Takes note of nodes below which something may not be marked.
    pub(super) fn doubt(&self, nodes: impl IntoIterator<Item = BlobId>) {
        self.doubtful().extend(nodes);
    }

    /// Takes note of nodes below which a walk has been to the end.
    pub(super) fn trust(&self, nodes: &HashSet<BlobId>) {
        self.doubtful().retain(|node| !nodes.contains(node));
    }

    /// Whether something below a node may not be marked.
    pub(super) fn is_doubtful(&self, id: &BlobId) -> bool {
        self.doubtful().contains(id)
    }

    fn doubtful(&self) -> MutexGuard<'_, HashSet<BlobId>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everywhere where a blob is.
    pub(super) fn places(&self, id: &BlobId) -> Result<Vec<Location>> {
        let mut places = Vec::new();
        for table in &self.tables {
            places.extend(table.segment.find_local(id)?);
        }
        Ok(places)
    }

    /// Tells of every blob once, in the order of ids: whether it is needed, and everywhere where it is.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&BlobId, bool, &[Place]) -> Result<()>) -> Result<()> {
        let mut lists: Vec<_> = self.tables.iter().map(|table| table.segment.entries().zip(0u64..)).collect();
        let mut heads = BinaryHeap::new();
        let mut pending: Vec<Option<(Location, u64)>> = vec![None; lists.len()];
        for (table, list) in lists.iter_mut().enumerate() {
            advance(list, table, &mut heads, &mut pending)?;
        }
        let mut places = Vec::new();
        while let Some(Reverse((id, first))) = heads.pop() {
            let mut is_needed = false;
            places.clear();
            let mut table = first;
            loop {
                if let Some((location, position)) = pending[table].take() {
                    is_needed |= self.tables[table].is_set(position);
                    places.push(Place { location });
                }
                advance(&mut lists[table], table, &mut heads, &mut pending)?;
                match heads.peek() {
                    Some(Reverse((next, _))) if *next == id => {}
                    _ => break,
                }
                let Some(Reverse((_, next))) = heads.pop() else { break };
                table = next;
            }
            visit(&id, is_needed, &places)?;
        }
        Ok(())
    }
}

/// Takes the next entry of one list.
fn advance(
    list: &mut impl Iterator<Item = (Result<(BlobId, Location)>, u64)>,
    table: usize,
    heads: &mut BinaryHeap<Reverse<(BlobId, usize)>>,
    pending: &mut [Option<(Location, u64)>],
) -> Result<()> {
    if let Some((entry, position)) = list.next() {
        let (id, location) = entry?;
        heads.push(Reverse((id, table)));
        pending[table] = Some((location, position));
    }
    Ok(())
}
