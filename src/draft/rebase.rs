//! Moving changes onto what another writer committed meanwhile.
//!
//! What was changed here and what was changed there are two comparisons with
//! the same base, streamed side by side in the order of keys. So the cost is
//! that of the changes.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use futures::stream::BoxStream;

use crate::blobs::{BlobWriter, NodeBuffer};
use crate::draft::pending::covering;
use crate::draft::{Draft, Moved, PORTION, root_of};
use crate::error::Result;
use crate::id::BlobId;
use crate::snapshot::Snapshot;
use crate::tree::{self, Change, Key, Root, Span, TreeBuilder};

/// How many of the keys at which both changed something are named.
const NAMED: usize = 10;

/// See [`Draft::rebase`].
pub(super) async fn rebase(draft: &mut Draft, onto: Option<&Snapshot>, blobs: &mut BlobWriter) -> Result<Vec<Key>> {
    if let Some(snapshot) = onto {
        draft.repository.reader_of(snapshot);
        blobs.adopt(&snapshot.stored.packs);
    }
    let onto = onto.map(root_of);
    let ours = draft.apply(blobs).await?;
    if onto == draft.base {
        return Ok(Vec::new());
    }
    // Changes that are moved again are compared as they were made: what was the same as another's at the first move is
    // still a change.
    let moved = draft.moved.filter(|moved| moved.now == ours);
    let (from, ours) = moved.map_or((draft.base, ours), |moved| (moved.base, moved.root));
    let (base, theirs) = (draft.id_of(from)?, draft.id_of(onto)?);
    let changes = |root: BlobId| tree::diff(draft.nodes.clone(), &base, &root, Span::all());
    let overlap = overlap(changes(ours.id), changes(theirs), draft.pending.ever_removed()).await?;
    if !overlap.is_empty() {
        return Ok(overlap);
    }
    let mut moved = Draft::on(&draft.repository, onto, draft.nodes.clone());
    let mut again = changes(ours.id);
    while let Some(Change { key, new, .. }) = again.try_next().await? {
        match new {
            Some(entry) => moved.put(key, entry)?,
            None => moved.remove(key),
        }
        if moved.pending_bytes() >= PORTION {
            moved.apply(blobs).await?;
        }
    }
    let now = moved.apply(blobs).await?;
    moved.moved = Some(Moved { base: from, root: ours, now });
    moved.pending.set_ever_removed(draft.pending.ever_removed().clone());
    *draft = moved;
    Ok(Vec::new())
}

impl Draft {
    /// The root's node; that of the empty tree is at hand from now on.
    fn id_of(&self, root: Option<Root>) -> Result<BlobId> {
        if let Some(root) = root {
            return Ok(root.id);
        }
        let mut nodes = NodeBuffer::new(Arc::clone(self.repository.keyring()));
        let empty = TreeBuilder::new(self.repository.splitter().clone()).finish(&mut nodes)?;
        nodes.take().into_iter().for_each(|(id, node)| self.nodes.insert(id, node));
        Ok(empty.id)
    }
}

/// The first keys at which both sides differ from the base and from each other, or that the other side changed at or
/// below a prefix that this one removed.
async fn overlap(
    mut ours: BoxStream<'_, Result<Change>>,
    mut theirs: BoxStream<'_, Result<Change>>,
    removed: &BTreeSet<Key>,
) -> Result<Vec<Key>> {
    let mut found = Vec::new();
    let (mut our, mut their) = (ours.try_next().await?, theirs.try_next().await?);
    while let Some(change) = &their
        && found.len() < NAMED
    {
        let order = our.as_ref().map_or(Ordering::Greater, |our| our.key.cmp(&change.key));
        if order == Ordering::Less {
            our = ours.try_next().await?;
            continue;
        }
        let alike = order == Ordering::Equal && our.as_ref().is_some_and(|our| our.new == change.new);
        if !alike && (order == Ordering::Equal || covering(removed, &change.key).is_some()) {
            found.push(change.key.clone());
        }
        their = theirs.try_next().await?;
    }
    Ok(found)
}
