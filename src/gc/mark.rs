//! The first mark: everything that snapshots need.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cpu;
use crate::error::{Error, Result};
use crate::gc::marks::{Mark, Marks};
use crate::id::BlobId;
use crate::pack::BlockKind;
use crate::reach::{BlobVisitor, visit_blobs};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::tree::Span;

/// Whether a snapshot that lacks something stops the collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// It counts: what can't be read might be all that tells what it needs.
    Strict,
    /// It was forgotten: what is there of it is kept as long as it can be undeleted.
    Lenient,
}

impl Repository {
    /// Marks everything that a snapshot needs and that isn't marked yet.
    pub(super) async fn mark(&self, marks: &Arc<Marks>, snapshot: &Snapshot, strictness: Strictness) -> Result<()> {
        let reader = self.reader_of(snapshot);
        let (entered, is_cut_off) = (HashSet::new(), false);
        let mut marker = Marker { marks: Arc::clone(marks), snapshot, strictness, entered, is_cut_off };
        visit_blobs(reader, &snapshot.root, &mut marker).await.map_err(|error| not_understood(snapshot, error))?;
        if marker.is_cut_off {
            marks.doubt(marker.entered)
        } else {
            marks.trust(&marker.entered)
        }
        Ok(())
    }
}

/// Names the snapshot that has something which can't be understood.
pub(super) fn not_understood(snapshot: &Snapshot, error: Error) -> Error {
    match error {
        Error::Unsupported { object, reason } => Error::unsupported(format!("{object} of snapshot {snapshot}"), reason),
        other => other,
    }
}

struct Marker<'a> {
    marks: Arc<Marks>,
    snapshot: &'a Snapshot,
    strictness: Strictness,
    /// The nodes that this walk came by, where it may go on past what it can't read.
    entered: HashSet<BlobId>,
    /// Whether there was a node that it couldn't read, or that isn't what its parent says: another parent may say it.
    is_cut_off: bool,
}

impl Marker<'_> {
    /// Whether a walk goes below a node: not if that is known to be marked with all that is below it.
    fn enter(&mut self, id: &BlobId, is_new: bool) -> bool {
        if self.strictness == Strictness::Strict {
            return is_new;
        }
        (is_new || self.marks.is_doubtful(id)) && self.entered.insert(*id)
    }

    fn lacking(&self, id: &BlobId, reason: impl std::fmt::Display) -> Result<()> {
        let snapshot = self.snapshot;
        if self.strictness == Strictness::Lenient {
            tracing::warn!(%snapshot, %id, %reason, "a snapshot that was forgotten lacks something");
            return Ok(());
        }
        let reason = format!("{reason}; snapshot {snapshot} needs it, so repair or forget that first");
        Err(Error::corrupt(format!("blob {id}"), reason))
    }
}

impl BlobVisitor for Marker<'_> {
    fn node(&mut self, id: &BlobId) -> Result<bool> {
        match self.marks.mark(BlockKind::Nodes, id)? {
            Mark::New => Ok(self.enter(id, true)),
            Mark::Known => Ok(self.enter(id, false)),
            Mark::Unknown => {
                self.is_cut_off = true;
                self.lacking(id, "no index segment says where it is").map(|()| false)
            }
        }
    }

    async fn chunks(&mut self, ids: Vec<BlobId>) -> Result<()> {
        let marks = Arc::clone(&self.marks);
        let unknown = cpu::start(move || {
            let mut unknown = None;
            for id in ids {
                if marks.mark(BlockKind::Data, &id)? == Mark::Unknown {
                    unknown = Some(id);
                }
            }
            Ok(unknown)
        });
        match unknown.await? {
            Some(id) => self.lacking(&id, "no index segment says where it is"),
            None => Ok(()),
        }
    }

    fn failed(&mut self, id: &BlobId, _: &Span, error: Error) -> Result<()> {
        match error {
            error @ (Error::Corrupt { .. } | Error::NotFound { .. }) => {
                self.is_cut_off = true;
                self.lacking(id, error)
            }
            // It says nothing of what is stored.
            error => Err(error),
        }
    }
}
