//! What of the last snapshot is in no pack that is there, so that files that look unchanged are read again.

use std::collections::HashSet;

use crate::blobs::{Condemned, list_packs};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::Index;
use crate::reach::{BlobVisitor, visit_blobs};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::tree::Span;

/// What a snapshot needs and nobody has.
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) chunks: HashSet<BlobId>,
    /// Whether a node of its tree is among that, so that what it needs isn't known.
    pub(super) nodes: bool,
}

impl Repository {
    /// What of the snapshot that a backup builds on is in no pack that is there and not condemned, as seen after the
    /// backup registered.
    pub(super) async fn lost(&self, parent: Option<Snapshot>, condemned: Condemned) -> Result<Lost> {
        let Some(parent) = parent else { return Ok(Lost::default()) };
        self.index().load_recent().await?;
        let there = list_packs(self.store()).await?;
        let mut search = Search { index: self.index(), there, condemned, seen: HashSet::new(), lost: Lost::default() };
        visit_blobs(&**self.reader(), &parent.root, &mut search).await?;
        let lost = search.lost;
        if lost.nodes || !lost.chunks.is_empty() {
            tracing::warn!(snapshot = %parent, chunks = lost.chunks.len(), nodes = lost.nodes, "content is lost");
        }
        Ok(lost)
    }
}

struct Search<'a> {
    index: &'a Index,
    there: HashSet<ObjectId>,
    condemned: Condemned,
    seen: HashSet<BlobId>,
    lost: Lost,
}

impl Search<'_> {
    fn is_there(&self, id: &BlobId) -> Result<bool> {
        let stays = |pack: &ObjectId| self.there.contains(pack) && !self.condemned.contains(pack);
        Ok(self.index.find_in(id, stays)?.is_some())
    }
}

impl BlobVisitor for Search<'_> {
    fn node(&mut self, id: &BlobId) -> Result<bool> {
        let new = self.seen.insert(*id);
        // One that is at hand may be lost all the same.
        self.lost.nodes |= new && !self.is_there(id)?;
        Ok(new && !self.lost.nodes)
    }

    async fn chunks(&mut self, ids: Vec<BlobId>) -> Result<()> {
        for id in ids {
            if !self.is_there(&id)? {
                self.lost.chunks.insert(id);
            }
        }
        Ok(())
    }

    fn failed(&mut self, _: &BlobId, _: &Span, error: Error) -> Result<()> {
        self.lost.nodes = true;
        match error {
            error @ Error::Store { .. } => Err(error),
            _ => Ok(()),
        }
    }

    fn unknown(&mut self, error: Error) -> Result<()> {
        // Whatever it refers to, a backup doesn't take it from there.
        tracing::debug!(%error, "an entry is passed over");
        Ok(())
    }
}
