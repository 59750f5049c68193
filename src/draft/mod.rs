//! Changes on top of a tree that aren't committed yet; what a writer and a feed have in common.
//!
//! Owns the overlay of pending changes, its application to the tree in
//! portions, reading through both, and moving the changes onto another
//! snapshot. Knows no registration and doesn't commit.
//!
//! ```text
//! put, remove, remove_prefix ──> pending ──apply──> root (nodes: fresh until they are flushed, and handed to blobs)
//! ```
//! Later calls win: what is pending over what was applied, and within it each
//! call over those before. Invariant: at any moment the state is the base with
//! all calls so far applied in order, so that its root doesn't depend on when
//! portions were applied.
//!
//! - `pending`: the overlay. `fresh`: nodes that can't be read from the repository yet.
//! - `intake`: from contents and metadata to entries. `merge`: the overlay over the tree.
//! - `rebase`: onto what another writer committed. `secured`: committing what a collection may have come upon.

mod fresh;
mod intake;
mod merge;
mod pending;
mod rebase;
mod secured;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::Stream;

pub(crate) use fresh::FreshNodes;
pub(crate) use intake::{Intake, Taken, inline};
pub(crate) use secured::{commit, overtaken, secure_tree};

use crate::blobs::{BlobWriter, NodeSender, Treatment, WriteStats};
use crate::cpu;
use crate::draft::merge::merged;
use crate::draft::pending::Pending;
use crate::error::Result;
use crate::pack::BlockKind;
use crate::repository::Repository;
use crate::snapshot::{Snapshot, SnapshotStats};
use crate::tree::{self, Edit, Entry, Key, Root, Span, Splitter, Tally, TreeBuilder};

/// When what is pending comes to this many bytes, it should be applied: edits are cheaper the more there are.
pub(crate) const PORTION: usize = 8 << 20;

/// Leaves read ahead where all entries are wanted.
const READ_AHEAD: usize = 8;

/// Changes on top of a snapshot's tree, or of nothing.
pub(crate) struct Draft {
    repository: Repository,
    /// The tree that the changes began with; none if it was empty.
    base: Option<Root>,
    /// The tree with what was applied; none while there is none.
    root: Option<Root>,
    nodes: FreshNodes,
    pending: Pending,
    tally: Tally,
    /// The changes as they were before they were moved.
    moved: Option<Moved>,
}

/// Where the changes of a draft that was moved came from, and where they came to lie.
#[derive(Clone, Copy)]
struct Moved {
    base: Option<Root>,
    root: Root,
    now: Root,
}

impl Draft {
    /// No changes yet to the tree of `parent`, or to the empty tree.
    pub(crate) fn new(repository: &Repository, parent: Option<&Snapshot>) -> Self {
        if let Some(parent) = parent {
            repository.reader_of(parent);
        }
        Self::on(repository, parent.map(root_of), FreshNodes::new(repository.reader()))
    }

    fn on(repository: &Repository, base: Option<Root>, nodes: FreshNodes) -> Self {
        Self {
            repository: repository.clone(),
            base,
            root: base,
            nodes,
            pending: Pending::default(),
            tally: Tally::default(),
            moved: None,
        }
    }

    /// Puts an entry at `key`, in place of what is there. What lies below it stays.
    ///
    /// # Errors
    /// `Invalid` for an entry that a tree can't hold; nothing changes then.
    pub(crate) fn put(&mut self, key: Key, entry: Entry) -> Result<()> {
        let length = tree::check(&key, &entry)?;
        self.pending.put(key, entry, length);
        Ok(())
    }

    /// Removes the entry at `key`, if there is one. What lies below it stays.
    pub(crate) fn remove(&mut self, key: Key) {
        self.pending.remove(key);
    }

    /// Removes what is at and below `key`.
    pub(crate) fn remove_prefix(&mut self, key: Key) {
        self.pending.remove_prefix(key);
    }

    /// What the pending changes take up, roughly. From [`PORTION`] on they should be applied.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// The entry at `key` as of this call.
    pub(crate) fn entry(&self, key: &Key) -> impl Future<Output = Result<Option<Entry>>> + Send + use<> {
        let (pending, nodes, root, key) = (self.pending.get(key), self.nodes.clone(), self.root, key.clone());
        async move {
            match (pending, root) {
                (Some(decided), _) => Ok(decided),
                (None, None) => Ok(None),
                (None, Some(root)) => tree::get(&nodes, &root.id, &key).await,
            }
        }
    }

    /// The entries as of this call, or those at and below `prefix`, in the order of their keys.
    pub(crate) fn entries(&self, prefix: Option<&Key>) -> impl Stream<Item = Result<(Key, Entry)>> + Send + use<> {
        let span = Span::of(prefix);
        let view = self.pending.view(prefix);
        // What was removed altogether need not be read.
        let root = self.root.filter(|_| !prefix.is_some_and(|prefix| self.pending.removes(prefix)));
        let tree = root.map(|root| tree::range(self.nodes.clone(), &root.id, span, READ_AHEAD));
        merged(tree, view)
    }

    /// Moves what is at and below `from` to `to`; how many entries that is.
    ///
    /// # Errors
    /// `Invalid` if a key would be too long, or one of the two lies in the other; `Conflict` if
    /// something is at or below `to`. Nothing changes then.
    pub(crate) async fn rename_prefix(&mut self, from: &Key, to: &Key, blobs: &mut BlobWriter) -> Result<u64> {
        merge::rename_prefix(self, from, to, blobs).await
    }

    /// Applies what is pending; the root of the tree so far, whose nodes have been handed to `blobs`.
    ///
    /// They aren't flushed. On an error the draft is as it was, but `blobs` can't be relied on any more.
    pub(crate) async fn apply(&mut self, blobs: &mut BlobWriter) -> Result<Root> {
        if let Some(root) = self.root
            && self.pending.is_empty()
        {
            return Ok(root);
        }
        let (mut out, mut nodes) = NodeSender::new(Arc::clone(self.repository.keyring()));
        let (edits, splitter) = (self.pending.edits(), self.repository.splitter().clone());
        let (reader, before) = (self.nodes.clone(), self.root);
        // Nodes are stored while others are made.
        let editing = cpu::drive(async move {
            let made = match before {
                Some(root) => {
                    let edited = tree::edit(&reader, &mut out, &splitter, &root.id, edits).await?;
                    (edited.root, edited.tally)
                }
                None => build(splitter, edits, &mut out)?,
            };
            out.finish().map(|()| made)
        });
        let storing = async {
            while let Some(nodes) = nodes.recv().await {
                for (id, node) in nodes {
                    self.nodes.insert(id, node.clone());
                    blobs.add(BlockKind::Nodes, id, node, Treatment::Compress).await?;
                }
            }
            Ok(())
        };
        let ((root, tally), ()) = futures::try_join!(editing, storing)?;
        if self.nodes.is_large() {
            blobs.make_readable().await?;
            self.nodes.clear();
        }
        self.root = Some(root);
        self.tally.added += tally.added;
        self.tally.changed += tally.changed;
        self.pending.applied();
        Ok(root)
    }

    /// Moves the changes onto `onto`, another snapshot of the series, or onto the empty tree.
    ///
    /// The keys at which both changed something, each its own way, are returned, the first few of them, and then
    /// nothing changed; so is a key that `onto` changed at or below a prefix that was removed here. If there are none
    /// the base is now `onto`, whose packs `blobs` has adopted.
    ///
    /// # Errors
    /// As of [`Self::apply`].
    pub(crate) async fn rebase(&mut self, onto: Option<&Snapshot>, blobs: &mut BlobWriter) -> Result<Vec<Key>> {
        rebase::rebase(self, onto, blobs).await
    }

    /// What a snapshot with everything applied so far holds, and what storing it took.
    ///
    /// Entries changed again after a portion was applied count again.
    pub(crate) fn stats(&self, written: WriteStats) -> SnapshotStats {
        let (before, now) = (entries(self.base), entries(self.root));
        SnapshotStats {
            files: now,
            added: self.tally.added,
            changed: self.tally.changed,
            removed: before.saturating_add(self.tally.added).saturating_sub(now),
            new_blobs: written.new_blobs,
            new_bytes: written.new_bytes,
            stored_bytes: written.stored_bytes,
            ..SnapshotStats::default()
        }
    }
}

/// The root of a snapshot's tree.
fn root_of(snapshot: &Snapshot) -> Root {
    Root { id: snapshot.root, entries: snapshot.entries }
}

/// A tree of nothing but what edits put.
fn build(splitter: Splitter, edits: Vec<(Key, Edit)>, out: &mut NodeSender) -> Result<(Root, Tally)> {
    let mut builder = TreeBuilder::new(splitter);
    for (key, edit) in edits {
        if let Edit::Put(entry) | Edit::Replace(entry) = edit {
            builder.push(&key, &entry, out)?;
        }
    }
    let root = builder.finish(out)?;
    Ok((root, Tally { added: root.entries, changed: 0 }))
}

fn entries(root: Option<Root>) -> u64 {
    root.map_or(0, |root| root.entries)
}
