//! Contents that were begun before a collection, under a registration that has ended since.
//!
//! A chunk that was found stored then may be about to be deleted now, or be
//! deleted: what a commit relies on must be seen under the registration that it
//! is made under. So every blob of such a content is looked for again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::blobs::{Condemned, list_packs};
use crate::error::{Error, Result};
use crate::feed::queue::{Op, Submission};
use crate::id::{BlobId, ObjectId};
use crate::index::{PackRef, Want};
use crate::repository::Repository;
use crate::tree::{Payload, Piece, SequenceVisitor, visit_sequence};

/// Nodes of a sequence read at a time.
const NODES_AHEAD: usize = 4;

/// The packs that can be relied on.
pub(super) struct Ground<'a> {
    repository: &'a Repository,
    listed: HashSet<ObjectId>,
    condemned: Condemned,
}

impl<'a> Ground<'a> {
    /// As seen now, under a registration after which `condemned` was read.
    pub(super) async fn look(repository: &'a Repository, condemned: Condemned) -> Result<Self> {
        // What was merged is described before it goes.
        let listed = list_packs(repository.store()).await?;
        repository.index().refresh(Want::All).await?;
        Ok(Self { repository, listed, condemned })
    }

    /// Looks for all blobs of a submission; the packs with some of them that a record must name, or nothing if one of
    /// the blobs is nowhere.
    pub(super) async fn find(&self, submission: &Submission) -> Result<Option<Vec<PackRef>>> {
        let mut blobs = Blobs::default();
        for op in &submission.ops {
            let Op::Put(_, entry) = op else { continue };
            for payload in [&entry.content, &entry.metadata] {
                match blobs.add(self.repository, payload).await {
                    Err(error) if !error.is_retryable() => return Ok(None),
                    other => other?,
                }
            }
        }
        let index = Arc::clone(self.repository.index());
        let mut named = Vec::new();
        for id in blobs.ids {
            let Some(found) = index.find_in(&id, |pack| self.is_sound(pack))? else { return Ok(None) };
            named.extend(index.recent(&found.pack.id).filter(|pack| !named.contains(pack)));
        }
        Ok(Some(named))
    }

    fn is_sound(&self, pack: &ObjectId) -> bool {
        self.listed.contains(pack) && !self.condemned.contains(pack)
    }
}

/// The blobs of payloads.
#[derive(Default)]
struct Blobs {
    /// In order, so that their packs are named in the same order in every run.
    ids: BTreeSet<BlobId>,
}

impl Blobs {
    async fn add(&mut self, repository: &Repository, payload: &Payload) -> Result<()> {
        match payload {
            Payload::Inline(_) => Ok(()),
            Payload::Pieces(pieces) => {
                pieces.iter().for_each(|piece| self.piece(piece));
                Ok(())
            }
            Payload::Sequence(root) => visit_sequence(repository.reader(), root, NODES_AHEAD, self).await,
        }
    }
}

impl SequenceVisitor for Blobs {
    fn enter(&mut self, id: &BlobId) -> bool {
        self.ids.insert(*id)
    }

    fn piece(&mut self, piece: &Piece) {
        if let Piece::Chunk { id, .. } = piece {
            self.ids.insert(*id);
        }
    }

    fn failed(&mut self, _: &BlobId, error: Error) -> Result<()> {
        Err(error)
    }
}
