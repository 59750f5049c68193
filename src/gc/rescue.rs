//! The second mark: what snapshots need that were made meanwhile is copied out of condemned packs.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;

use crate::blobs::{BlobWriter, Condemned, Evidence, LookUp, WriteOptions, list_packs};
use crate::collection::Plan;
use crate::error::{Error, Result};
use crate::gc::GcReport;
use crate::gc::mark::not_understood;
use crate::gc::marks::Marks;
use crate::id::{BlobId, ObjectId, WriterId};
use crate::index::{Index, Want};
use crate::layout::{CommitName, Name};
use crate::pack::BlockKind;
use crate::reach::{BlobVisitor, store_again, visit_blobs};
use crate::repository::Repository;
use crate::snapshot::{Placed, Snapshot};
use crate::tree::Span;

/// Records read at a time.
const RECORDS: usize = 16;

impl Repository {
    /// Marks the snapshots that were committed after the first mark, and stores what they need and isn't safe again.
    ///
    /// All of them, whether or not they were forgotten since: what one of them needs another may have taken over.
    pub(super) async fn rescue(&self, plan: &Plan, first: Option<&Marks>, report: &mut GcReport) -> Result<()> {
        #[cfg(test)]
        if crate::simulation::has(crate::simulation::Bug::MarksOnce) {
            return Ok(());
        }
        let snapshots = self.committed_since(plan).await?;
        if snapshots.is_empty() {
            return Ok(());
        }
        // The records were listed first, so what describes their blobs is there by now.
        // What a damaged segment alone tells of isn't safe, and is stored again if it can be read at all.
        self.index().refresh(Want::All).await?;
        self.index().require_known()?;
        for (snapshot, _) in &snapshots {
            self.reader_of(snapshot);
        }
        self.index().load_recent().await?;
        let ground = Ground {
            index: Arc::clone(self.index()),
            there: list_packs(self.store()).await?,
            condemned: Condemned::new(plan.packs.clone()),
        };
        let mut search =
            Search { ground: &ground, first, seen: HashSet::new(), unsafe_blobs: Vec::new(), excused: false };
        // Those that count come first: what they need must be had.
        let (counting, forgotten): (Vec<_>, Vec<_>) = snapshots.iter().partition(|(_, counts)| *counts);
        for (snapshot, counts) in counting.into_iter().chain(forgotten) {
            search.excused = !counts;
            visit_blobs(self.reader(), &snapshot.root, &mut search).await.map_err(|error| said_of(snapshot, error))?;
        }
        self.store_rescued(search.unsafe_blobs, report).await
    }

    /// The snapshots after those that were marked first, and whether they count.
    async fn committed_since(&self, plan: &Plan) -> Result<Vec<(Snapshot, bool)>> {
        let lines = self.timelines().lines(None).await?;
        lines.require_lists()?;
        self.timelines().require_reached(&lines).await?;
        let is_new = |name: &CommitName| {
            let at = plan.marked.binary_search_by_key(&name.tag, |(tag, _)| *tag);
            at.map_or(true, |at| name.number > plan.marked[at].1)
        };
        let read = |name: CommitName| async move {
            match self.timelines().read_if_there(&name).await {
                Ok(placed) => Ok(placed.and_then(Placed::into_snapshot).map(|snapshot| (name, snapshot))),
                Err(error) => Err((name, error)),
            }
        };
        let new: Vec<_> = lines.names.iter().filter(|name| is_new(name)).copied().collect();
        let mut found = Vec::new();
        let mut reading = futures::stream::iter(new).map(read).buffered(RECORDS);
        while let Some(read) = reading.next().await {
            match read {
                Ok(None) => {}
                Ok(Some((name, snapshot))) => found.push((snapshot, lines.counts(&name))),
                // Nobody can restore it, and it was told to go.
                Err((name, error)) if error.is_corrupt() && !lines.counts(&name) => {
                    tracing::warn!(name = %Name::Commit(name), %error, "a record that was forgotten can't be read");
                }
                Err((_, error)) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn store_rescued(&self, blobs: Vec<Unsafe>, report: &mut GcReport) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        report.rescued_blobs += blobs.len() as u64;
        // Nobody relies on the copies before the originals are gone, and no other collection is begun before.
        let id = WriterId::new(self.surroundings().random());
        let options = WriteOptions { look_up: LookUp::Nothing, ..WriteOptions::default() };
        let mut writer = BlobWriter::new(self.parts().clone(), id, Evidence::new(Condemned::default()), options);
        for Unsafe { kind, id, excused } in blobs {
            match store_again(self.reader(), self.index(), kind, &id, &mut writer).await {
                Err(error @ (Error::Corrupt { .. } | Error::NotFound { .. })) if excused => {
                    tracing::warn!(%id, %error, "a snapshot that was forgotten lacks something");
                }
                other => other?,
            }
        }
        writer.flush().await?;
        let written = writer.stats();
        report.packs_written += written.packs;
        report.bytes_written += written.stored_bytes;
        Ok(())
    }
}

fn said_of(snapshot: &Snapshot, error: Error) -> Error {
    match error {
        Error::Corrupt { object, reason } => {
            let reason = format!("{reason}; snapshot {snapshot} needs it, so repair or forget that first");
            Error::Corrupt { object, reason }
        }
        other => not_understood(snapshot, other),
    }
}

/// A blob that isn't safe.
struct Unsafe {
    kind: BlockKind,
    id: BlobId,
    /// Whether only snapshots that were forgotten need it, so that it may be missing.
    excused: bool,
}

/// What is safe.
struct Ground {
    index: Arc<Index>,
    there: HashSet<ObjectId>,
    condemned: Condemned,
}

impl Ground {
    /// Whether a blob is in packs that stay and in none that goes. Where it is in both it is stored again: what a
    /// segment says of the one that stays isn't believed.
    fn is_safe(&self, id: &BlobId) -> Result<bool> {
        let mut places = self.index.places(id)?;
        places.retain(|location| self.there.contains(&location.pack.id));
        Ok(!places.is_empty() && !places.iter().any(|location| self.condemned.contains(&location.pack.id)))
    }
}

struct Search<'a> {
    ground: &'a Ground,
    /// What the first mark found needed is in packs that stay, and all below it.
    first: Option<&'a Marks>,
    seen: HashSet<BlobId>,
    unsafe_blobs: Vec<Unsafe>,
    /// Whether the snapshot was forgotten, so that it may lack something.
    excused: bool,
}

impl BlobVisitor for Search<'_> {
    fn node(&mut self, id: &BlobId) -> Result<bool> {
        if !self.seen.insert(*id) || self.first.is_some_and(|first| first.is_marked(id).unwrap_or(false)) {
            return Ok(false);
        }
        if !self.ground.is_safe(id)? {
            self.unsafe_blobs.push(Unsafe { kind: BlockKind::Nodes, id: *id, excused: self.excused });
        }
        Ok(true)
    }

    async fn chunks(&mut self, ids: Vec<BlobId>) -> Result<()> {
        for id in ids {
            let marked = self.first.is_some_and(|first| first.is_marked(&id).unwrap_or(false));
            if !marked && !self.ground.is_safe(&id)? && self.seen.insert(id) {
                self.unsafe_blobs.push(Unsafe { kind: BlockKind::Data, id, excused: self.excused });
            }
        }
        Ok(())
    }

    fn failed(&mut self, _: &BlobId, _: &Span, error: Error) -> Result<()> {
        let stops = matches!(error, Error::Store { .. } | Error::Unsupported { .. });
        if self.excused && !stops { Ok(()) } else { Err(error) }
    }
}
