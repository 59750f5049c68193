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
use crate::snapshot::Snapshot;
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
        let mut search = Search::new(&ground, first);
        // Those that count come first: what they need must be had.
        let (counting, forgotten): (Vec<_>, Vec<_>) = snapshots.iter().partition(|(_, counts)| *counts);
        let mut rescued = Vec::new();
        for (snapshot, counts) in counting.into_iter().chain(forgotten) {
            search.excused = !counts;
            visit_blobs(self.reader(), &snapshot.root, &mut search).await.map_err(|error| said_of(snapshot, error))?;
            rescued.extend(search.found().into_iter().map(|blob| (blob, snapshot)));
        }
        self.store_rescued(rescued, report).await
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
            // As long as this collection is open nobody deletes any of them, whatever was forgotten since.
            let read = match self.timelines().read(&name).await {
                Err(error) if error.is_not_found() => self.timelines().read(&name).await,
                read => read,
            };
            match read {
                Ok(placed) => Ok(placed.into_snapshot().map(|snapshot| (name, snapshot))),
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

    /// Stores blobs again; each comes with the snapshot that needs it.
    async fn store_rescued(&self, blobs: Vec<(Unsafe, &Snapshot)>, report: &mut GcReport) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        report.rescued_blobs += blobs.len() as u64;
        // Nobody relies on the copies before the originals are gone, and no other collection is begun before.
        let id = WriterId::new(self.surroundings().random());
        let options = WriteOptions { look_up: LookUp::Nothing, ..WriteOptions::default() };
        let mut writer = BlobWriter::new(self.parts().clone(), id, Evidence::new(Condemned::default()), options);
        for (Unsafe { kind, id, excused }, snapshot) in blobs {
            match store_again(self.reader(), self.index(), kind, &id, &mut writer).await {
                Err(error @ (Error::Corrupt { .. } | Error::NotFound { .. })) if excused => {
                    tracing::warn!(%id, %error, "a snapshot that was forgotten lacks something");
                }
                other => other.map_err(|error| said_of(snapshot, error))?,
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
    /// The nodes below which there is nothing more to be found.
    seen: HashSet<BlobId>,
    /// Those of them that this snapshot came by.
    entered: Vec<BlobId>,
    /// What isn't safe, as what it is needed: whoever can add can have a node's id be needed as a chunk.
    known: HashSet<(BlobId, BlockKind)>,
    unsafe_blobs: Vec<Unsafe>,
    /// Whether the snapshot was forgotten, so that it may lack something.
    excused: bool,
    /// Whether it lacks a node, or has one that isn't what its parent says: another parent may say it.
    is_cut_off: bool,
}

impl<'a> Search<'a> {
    fn new(ground: &'a Ground, first: Option<&'a Marks>) -> Self {
        Self {
            ground,
            first,
            seen: HashSet::new(),
            entered: Vec::new(),
            known: HashSet::new(),
            unsafe_blobs: Vec::new(),
            excused: false,
            is_cut_off: false,
        }
    }

    fn look_at(&mut self, kind: BlockKind, id: BlobId) -> Result<()> {
        if !self.ground.is_safe(&id)? && self.known.insert((id, kind)) {
            self.unsafe_blobs.push(Unsafe { kind, id, excused: self.excused });
        }
        Ok(())
    }

    /// What isn't safe of the snapshot that was looked at, and not of one before.
    fn found(&mut self) -> Vec<Unsafe> {
        let entered = std::mem::take(&mut self.entered);
        if std::mem::take(&mut self.is_cut_off) {
            entered.iter().for_each(|id| {
                self.seen.remove(id);
            });
        }
        std::mem::take(&mut self.unsafe_blobs)
    }
}

impl BlobVisitor for Search<'_> {
    fn node(&mut self, id: &BlobId) -> Result<bool> {
        let is_marked = self.first.map_or(Ok(false), |first| first.is_whole(id))?;
        if is_marked || !self.seen.insert(*id) {
            return Ok(false);
        }
        self.entered.push(*id);
        self.look_at(BlockKind::Nodes, *id)?;
        Ok(true)
    }

    async fn chunks(&mut self, ids: Vec<BlobId>) -> Result<()> {
        for id in ids {
            if !self.first.map_or(Ok(false), |first| first.is_marked(BlockKind::Data, &id))? {
                self.look_at(BlockKind::Data, id)?;
            }
        }
        Ok(())
    }

    fn failed(&mut self, _: &BlobId, _: &Span, error: Error) -> Result<()> {
        self.is_cut_off = true;
        let is_lack = matches!(error, Error::Corrupt { .. } | Error::NotFound { .. });
        if self.excused && is_lack { Ok(()) } else { Err(error) }
    }
}
