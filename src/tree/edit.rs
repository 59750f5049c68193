//! A tree from another and a list of edits.
//!
//! Works level by level, from the leaves up. On a level, an edit can move cuts
//! only within its run, and within the run before if it takes away the key that
//! divides them. So the runs that edits fall into are read, merged with the edits
//! and cut anew; what differs from the nodes that were there is written, and makes
//! the edits of the level above. Where no level differs any more, the old nodes
//! stay. The result is the tree that [`super::TreeBuilder`] makes of the same map.
//!
//! A removed subtree is a span that is taken out of every level, and nodes that
//! lie within it aren't read.

use std::collections::VecDeque;

use bytes::Bytes;

use super::build::{Levels, Root, check_entry, check_size, empty_root, encode_item};
use super::cursor::Cursor;
use super::entry::Entry;
use super::key::Key;
use super::node::{Child, Node, NodeRef, ReadNode, WriteNode, read_root};
use super::span::Span;
use super::split::{Run, Splitter};
use super::warm::Warm;
use crate::codec::encode_into;
use crate::error::{Error, Result};
use crate::id::BlobId;

/// What happens to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// The key gets this entry, whether it had one or not. What lies below it stays.
    Put(Entry),
    /// The key loses its entry, if it has one. What lies below it stays.
    Remove,
    /// The key and everything below it go, but for what other edits of the same list put there.
    RemovePrefix,
    /// Like `RemovePrefix`, and then the key gets this entry.
    Replace(Entry),
}

/// A tree that edits have made of another, and what they changed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    pub(crate) root: Root,
    pub(crate) tally: Tally,
}

/// How many entries edits changed. What was removed is what is missing from the number of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Entries at keys that had none.
    pub(crate) added: u64,
    /// Entries that took the place of a different one.
    pub(crate) changed: u64,
}

/// The edits whose nodes are read ahead at a time.
const WINDOW: usize = 512;

/// Applies edits, sorted by their distinct keys, to the tree under `root`.
pub(crate) async fn edit(
    reader: &impl ReadNode,
    out: &mut (impl WriteNode + Send),
    splitter: &Splitter,
    root: &BlobId,
    edits: Vec<(Key, Edit)>,
) -> Result<Edited> {
    let changes = Changes::of(edits)?;
    let warm = Warm::new(reader);
    let Some((old, _)) = read_root(&warm, root).await? else {
        let mut levels = super::TreeBuilder::new(splitter.clone());
        let mut tally = Tally::default();
        for (key, entry) in changes.points {
            tally.added += u64::from(entry.is_some());
            entry.map_or(Ok(()), |entry| levels.push(&key, &entry, out))?;
        }
        return Ok(Edited { root: levels.finish(out)?, tally });
    };
    let mut pass = Pass::open(&warm, out, splitter, &old, 0, changes).await?;
    pass.run().await?;
    let (mut changes, mut top, tally) = (pass.above(), pass.fresh, pass.tally);
    let unchanged = Edited { root: Root { id: *root, entries: old.entries }, tally };
    for level in 1..=old.level {
        if changes.is_empty() {
            return Ok(unchanged);
        }
        let mut pass = Pass::open(&warm, out, splitter, &old, level, changes).await?;
        pass.run().await?;
        (changes, top) = (pass.above(), pass.fresh);
    }
    if changes.is_empty() {
        return Ok(unchanged);
    }
    let root = finish(&warm, out, splitter, old.level, top).await?;
    Ok(Edited { root, tally })
}

/// Makes one root of the nodes of the old root's level.
async fn finish(
    warm: &Warm<'_, impl ReadNode>,
    out: &mut (impl WriteNode + Send),
    splitter: &Splitter,
    level: u8,
    top: Vec<NodeRef>,
) -> Result<Root> {
    let mut root = match <[NodeRef; 1]>::try_from(top) {
        Ok([root]) => root,
        Err(top) => {
            let mut levels = Levels::new(splitter.clone(), level.saturating_add(1));
            top.iter().try_for_each(|child| levels.push_ref(child, out))?;
            return match levels.finish(out)? {
                Some(root) => Ok(Root { id: root.id, entries: root.entries }),
                None => empty_root(out),
            };
        }
    };
    // The one node of a level is the root, so a root of one child isn't one.
    for level in (1..=level).rev() {
        if warm.has_written_several(&root.id) {
            break;
        }
        let (NodeRef { first, id, entries }, upper) = (root.clone(), None);
        match (Child { id, level, first, upper, entries }).read(warm).await? {
            Node::Inner { mut children, .. } if children.len() == 1 => root = children.remove(0),
            _ => break,
        }
    }
    Ok(Root { id: root.id, entries: root.entries })
}

/// The edits of one level.
struct Changes<T> {
    /// Sorted by key: a new value, or none to remove it.
    points: Vec<(Key, Option<T>)>,
    /// Sorted and apart: all old items that lie here go, unless a point says otherwise.
    removed: Vec<Span>,
}

impl Changes<Entry> {
    fn of(edits: Vec<(Key, Edit)>) -> Result<Self> {
        if !edits.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(Error::invalid("edits", "they must be sorted by their keys, one for each key"));
        }
        let mut changes = Self { points: Vec::with_capacity(edits.len()), removed: Vec::new() };
        for (key, edit) in edits {
            let prefix = matches!(edit, Edit::RemovePrefix | Edit::Replace(_));
            if prefix && !changes.removed.last().is_some_and(|span| span.contains(&key)) {
                changes.removed.push(Span::subtree(&key));
            }
            match edit {
                Edit::Put(entry) | Edit::Replace(entry) => {
                    check_entry(&key, &entry)?;
                    changes.points.push((key, Some(entry)));
                }
                Edit::Remove => changes.points.push((key, None)),
                Edit::RemovePrefix => {}
            }
        }
        Ok(changes)
    }
}

impl<T> Changes<T> {
    fn is_empty(&self) -> bool {
        self.points.is_empty() && self.removed.is_empty()
    }

    /// The removed span that `key` lies in.
    fn span_of(&self, key: &Key) -> Option<&Span> {
        let index = self.removed.partition_point(|span| span.start <= key.as_encoded()).checked_sub(1)?;
        self.removed.get(index).filter(|span| span.contains(key))
    }

    /// Whether an old item with this key wouldn't be there any more, under any value.
    fn takes_away(&self, key: &Key) -> bool {
        match self.points.binary_search_by(|(other, _)| other.cmp(key)) {
            Ok(index) => self.points.get(index).is_some_and(|(_, value)| value.is_none()),
            Err(_) => self.span_of(key).is_some(),
        }
    }
}

/// What a level maps keys to.
trait Item: Sized + PartialEq + Send + Sync {
    fn entries(&self) -> u64;
    fn encode(&self, key: &Key, encoded: &mut Vec<u8>);
    fn items(node: Node) -> Vec<(Key, Self)>;
}

impl Item for Entry {
    fn entries(&self) -> u64 {
        1
    }

    fn encode(&self, key: &Key, encoded: &mut Vec<u8>) {
        encode_item(key, self, encoded);
    }

    fn items(node: Node) -> Vec<(Key, Self)> {
        if let Node::Leaf(entries) = node { entries } else { Vec::new() }
    }
}

impl Item for NodeRef {
    fn entries(&self) -> u64 {
        self.entries
    }

    fn encode(&self, _: &Key, encoded: &mut Vec<u8>) {
        encode_into(self, encoded);
    }

    fn items(node: Node) -> Vec<(Key, Self)> {
        let Node::Inner { children, .. } = node else { return Vec::new() };
        children.into_iter().map(|child| (child.first.clone(), child)).collect()
    }
}

/// The work on one level.
struct Pass<'a, R, W, T> {
    warm: &'a Warm<'a, R>,
    out: &'a mut W,
    splitter: &'a Splitter,
    level: u8,
    root: BlobId,
    cursor: Cursor<&'a Warm<'a, R>>,
    changes: Changes<T>,
    /// The points that were merged already.
    done: usize,
    /// The points whose nodes were read ahead.
    warmed: usize,
    /// The run that is being put together.
    run: Run,
    /// The old nodes of the runs being worked on that no new node has come up to.
    old: VecDeque<(NodeRef, Bytes)>,
    /// All nodes of the last runs worked on.
    fresh: Vec<NodeRef>,
    /// The edits of the level above.
    points_above: Vec<(Key, Option<NodeRef>)>,
    /// What the points have changed so far on this level.
    tally: Tally,
}

impl<'a, R: ReadNode, W: WriteNode + Send, T: Item> Pass<'a, R, W, T> {
    async fn open(
        warm: &'a Warm<'a, R>,
        out: &'a mut W,
        splitter: &'a Splitter,
        root: &Child,
        level: u8,
        changes: Changes<T>,
    ) -> Result<Self> {
        let cursor = Cursor::open(warm, &root.id, level).await?;
        Ok(Self {
            warm,
            out,
            splitter,
            level,
            root: root.id,
            cursor: cursor.ok_or_else(|| Error::worker("a tree lost its root"))?,
            changes,
            done: 0,
            warmed: 0,
            run: Run::new(level),
            old: VecDeque::new(),
            fresh: Vec::new(),
            points_above: Vec::new(),
            tally: Tally::default(),
        })
    }

    /// The edits of the level above, after the run.
    fn above(&mut self) -> Changes<NodeRef> {
        Changes { points: std::mem::take(&mut self.points_above), removed: std::mem::take(&mut self.changes.removed) }
    }

    async fn run(&mut self) -> Result<()> {
        let mut position = Bytes::new();
        while let Some(start) = self.next_change(&position) {
            self.read_ahead().await?;
            match self.rework(&start).await? {
                Some(upper) => position = Bytes::copy_from_slice(upper.as_encoded()),
                None => break,
            }
        }
        Ok(())
    }

    /// Where the first edit at or after `position` begins; all points before it are merged.
    fn next_change(&self, position: &Bytes) -> Option<Bytes> {
        let point = self.changes.points.get(self.done).map(|(key, _)| Bytes::copy_from_slice(key.as_encoded()));
        let index = self.changes.removed.partition_point(|span| span.end.as_ref().is_some_and(|end| end <= position));
        let span = self.changes.removed.get(index).map(|span| span.start.clone().max(position.clone()));
        point.into_iter().chain(span).min()
    }

    /// Reads the leaves of the next edits, many at a time.
    async fn read_ahead(&mut self) -> Result<()> {
        if self.level > 0 || self.done < self.warmed || self.warmed == self.changes.points.len() {
            return Ok(());
        }
        self.warmed = self.changes.points.len().min(self.done.saturating_add(WINDOW));
        let points = self.changes.points.get(self.done..self.warmed).unwrap_or_default();
        let positions: Vec<_> = points.iter().map(|(key, _)| key.as_encoded()).collect();
        self.warm.read_ahead(&self.root, &positions, self.splitter).await
    }

    /// Whether the cuts before and after this key have nothing to do with each other, before and after the edits.
    fn divides(&self, key: &Key) -> bool {
        self.splitter.begins_run_at(self.level, key) && !self.changes.takes_away(key)
    }

    /// Makes the runs anew that the edit at `start` falls into; where they end.
    async fn rework(&mut self, start: &[u8]) -> Result<Option<Key>> {
        self.cursor.seek(start).await?;
        while !self.divides(&self.cursor.child()?.first) && self.cursor.prev().await? {}
        self.fresh.clear();
        let upper = loop {
            let child = self.cursor.child()?.clone();
            let beyond = self.beyond(&child);
            if beyond.is_none() {
                let bytes = self.warm.read_node(&child.id).await?;
                let items = T::items(child.decode(&bytes)?);
                self.old.push_back((child.to_ref(), bytes));
                self.merge(items, child.upper.as_ref())?;
            }
            let moved = match beyond {
                Some(beyond) => self.cursor.seek(&beyond).await.map(|()| true)?,
                None => self.cursor.next().await?,
            };
            let next = self.cursor.child()?;
            if !moved {
                break None;
            }
            if self.divides(&next.first) {
                break Some(next.first.clone());
            }
        };
        self.merge_points(upper.as_ref())?;
        self.end_run()?;
        while let Some((old, _)) = self.old.pop_front() {
            self.points_above.push((old.first, None));
        }
        Ok(upper)
    }

    /// Where to go on if all of a node goes and nothing is put in its range.
    fn beyond(&self, child: &Child) -> Option<Bytes> {
        let upper = child.upper.as_ref()?;
        let span = self.changes.span_of(&child.first).filter(|span| span.covers(child))?;
        let points = &self.changes.points;
        let next = points.get(points.partition_point(|(key, _)| *key < child.first)).map(|(key, _)| key);
        match (next, &span.end) {
            (Some(next), _) if next < upper => None,
            (Some(next), Some(end)) if next.as_encoded() < &end[..] => Some(Bytes::copy_from_slice(next.as_encoded())),
            (_, end) => end.clone(),
        }
    }

    /// Adds old items, and the points that come before `upper`.
    fn merge(&mut self, items: Vec<(Key, T)>, upper: Option<&Key>) -> Result<()> {
        for (key, item) in items {
            self.merge_points(Some(&key))?;
            let point = self.changes.points.get_mut(self.done).filter(|(other, _)| *other == key);
            if let Some((_, value)) = point {
                let value = value.take();
                self.done += 1;
                if let Some(value) = value {
                    self.tally.changed += u64::from(value != item);
                    self.add(&key, &value)?;
                }
            } else if self.changes.span_of(&key).is_none() {
                self.add(&key, &item)?;
            }
        }
        self.merge_points(upper)
    }

    /// Adds the points that come before `upper`.
    fn merge_points(&mut self, upper: Option<&Key>) -> Result<()> {
        while let Some((key, value)) = self.changes.points.get_mut(self.done) {
            if upper.is_some_and(|upper| *key >= *upper) {
                break;
            }
            let (key, value) = (key.clone(), value.take());
            self.done += 1;
            if let Some(value) = value {
                self.tally.added += 1;
                self.add(&key, &value)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, key: &Key, item: &T) -> Result<()> {
        let hash = self.splitter.hash_key(self.level, key);
        if self.splitter.begins_run(self.level, hash) {
            self.end_run()?;
        }
        let size = self.run.push(hash, key, item.entries(), |encoded| item.encode(key, encoded));
        check_size(key, size)
    }

    /// Cuts the run, and writes what wasn't there before.
    fn end_run(&mut self) -> Result<()> {
        for cut in self.run.cut(self.splitter) {
            while self.old.front().is_some_and(|(old, _)| old.first < cut.first) {
                let gone = self.old.pop_front().map(|(old, _)| (old.first, None));
                self.points_above.extend(gone);
            }
            let same = self.old.pop_front_if(|(old, _)| old.first == cut.first);
            let kept = same.filter(|(_, bytes)| *bytes == cut.node).map(|(old, _)| old);
            // In a removed span, what stays must be said.
            let said = kept.is_none() || self.changes.span_of(&cut.first).is_some();
            let node = match kept {
                Some(old) => old,
                None => {
                    let id = self.warm.write(self.out, cut.node, cut.items)?;
                    NodeRef { first: cut.first, id, entries: cut.entries }
                }
            };
            if said {
                self.points_above.push((node.first.clone(), Some(node.clone())));
            }
            self.fresh.push(node);
        }
        Ok(())
    }
}
