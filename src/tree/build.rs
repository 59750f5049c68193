//! A tree from sorted entries, in one pass.
//!
//! Memory holds one run a level. The other way to a tree, [`super::edit`], uses
//! [`Levels`] for what grows above the old root.

use super::entry::Entry;
use super::key::Key;
use super::node::{LEVEL_MAX, NODE_MAX, NodeRef, WriteNode, encode_node};
use super::split::{Run, Splitter};
use crate::codec::{Encode, encode_into};
use crate::error::{Error, Result};
use crate::id::BlobId;

/// An entry, its key included, may take up half of what a node may.
pub(super) const ENTRY_MAX: usize = NODE_MAX / 2;

/// A stored tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// The root's node; all that a reader needs.
    pub(crate) id: BlobId,
    /// The number of entries.
    pub(crate) entries: u64,
}

/// Builds a tree from entries that come in the order of their keys.
pub(crate) struct TreeBuilder {
    levels: Levels,
    last: Option<Key>,
}

impl TreeBuilder {
    /// Begins an empty tree.
    pub(crate) fn new(splitter: Splitter) -> Self {
        Self { levels: Levels::new(splitter, 0), last: None }
    }

    /// Adds an entry, whose key must come after all before it.
    pub(crate) fn push(&mut self, key: &Key, entry: &Entry, out: &mut impl WriteNode) -> Result<()> {
        if self.last.as_ref().is_some_and(|last| last >= key) {
            return Err(Error::invalid(format_args!("entry '{key}'"), "entries must come in the order of their keys"));
        }
        check_entry(key, entry)?;
        self.last = Some(key.clone());
        let size = self.levels.push(0, key, 1, |encoded| encode_item(key, entry, encoded), out)?;
        check_size(key, size)
    }

    /// Stores what is left and names the root.
    pub(crate) fn finish(self, out: &mut impl WriteNode) -> Result<Root> {
        match self.levels.finish(out)? {
            Some(top) => Ok(Root { id: top.id, entries: top.entries }),
            None => empty_root(out),
        }
    }
}

/// Stores the root of the empty tree.
pub(super) fn empty_root(out: &mut impl WriteNode) -> Result<Root> {
    Ok(Root { id: out.write_node(encode_node(0, 0, &[]))?, entries: 0 })
}

/// Refuses an entry that no reader would accept.
pub(super) fn check_entry(key: &Key, entry: &Entry) -> Result<()> {
    entry.problem().map_or(Ok(()), |problem| Err(Error::invalid(format_args!("entry '{key}'"), problem)))
}

/// Refuses an entry that doesn't fit a node.
pub(super) fn check_size(key: &Key, size: usize) -> Result<()> {
    if size > ENTRY_MAX {
        let reason = format_args!("{size} bytes are too many to stand in a tree; store its content in chunks");
        return Err(Error::invalid(format_args!("entry '{key}'"), reason));
    }
    Ok(())
}

/// The length of an entry as it stands in a leaf, or why it can't stand in one.
pub(crate) fn check(key: &Key, entry: &Entry) -> Result<usize> {
    check_entry(key, entry)?;
    let mut encoded = Vec::new();
    encode_item(key, entry, &mut encoded);
    check_size(key, encoded.len())?;
    Ok(encoded.len())
}

/// Encodes an item of a node.
pub(super) fn encode_item(key: &Key, value: &impl Encode, encoded: &mut Vec<u8>) {
    encode_into(key, encoded);
    encode_into(value, encoded);
}

/// The levels of a growing tree, from `base` up.
pub(super) struct Levels {
    splitter: Splitter,
    base: u8,
    runs: Vec<Level>,
}

struct Level {
    run: Run,
    nodes: u64,
    last: Option<NodeRef>,
}

impl Levels {
    /// Begins with no items on level `base`.
    pub(super) fn new(splitter: Splitter, base: u8) -> Self {
        Self { splitter, base, runs: Vec::new() }
    }

    /// Adds a reference on level `base`.
    pub(super) fn push_ref(&mut self, child: &NodeRef, out: &mut impl WriteNode) -> Result<()> {
        self.push(0, &child.first, child.entries, |encoded| encode_into(child, encoded), out).map(drop)
    }

    /// Adds an item on the level `index` above `base`; the length of its encoding.
    fn push(
        &mut self,
        index: usize,
        key: &Key,
        entries: u64,
        encode: impl FnOnce(&mut Vec<u8>),
        out: &mut impl WriteNode,
    ) -> Result<usize> {
        let level = self.level(index)?;
        if index == self.runs.len() {
            self.runs.push(Level { run: Run::new(level), nodes: 0, last: None });
        }
        let hash = self.splitter.hash_key(level, key);
        if self.splitter.begins_run(level, hash) && !self.runs[index].run.is_empty() {
            self.end_run(index, out)?;
        }
        Ok(self.runs[index].run.push(hash, key, entries, encode))
    }

    fn level(&self, index: usize) -> Result<u8> {
        let level = u8::try_from(index).ok().and_then(|index| index.checked_add(self.base));
        level
            .filter(|level| *level <= LEVEL_MAX)
            .ok_or_else(|| Error::invalid("tree parameters", "they make the tree too high"))
    }

    /// Stores the nodes of a run, and refers to them one level up.
    fn end_run(&mut self, index: usize, out: &mut impl WriteNode) -> Result<()> {
        for cut in self.runs[index].run.cut(&self.splitter) {
            let child = NodeRef { first: cut.first, id: out.write_node(cut.node)?, entries: cut.entries };
            let first = child.first.clone();
            self.push(index + 1, &first, child.entries, |encoded| encode_into(&child, encoded), out)?;
            self.runs[index].nodes += 1;
            self.runs[index].last = Some(child);
        }
        Ok(())
    }

    /// Stores what is left; the one node of the first level that has only one, if there are any items.
    pub(super) fn finish(mut self, out: &mut impl WriteNode) -> Result<Option<NodeRef>> {
        let mut index = 0;
        while index < self.runs.len() {
            self.end_run(index, out)?;
            if self.runs[index].nodes == 1 {
                return Ok(self.runs[index].last.take());
            }
            index += 1;
        }
        Ok(None)
    }
}
