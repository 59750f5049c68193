//! Contents too large to stand in the tree: cut by the calling tasks, gathered for the next commit that needs them.
//!
//! Owns the writer that chunks are added to meanwhile. The committer takes it
//! and flushes it, and a fresh one is there for what follows, so that adding
//! goes on. Each writer has a number, its epoch.
//!
//! Invariant: a content whose chunks may have been in a writer that failed is
//! recognised by its first epoch ([`Chunks::is_lost`]) and never committed. A
//! failed upload shows at any later call on the writer, be it another task's,
//! so a writer that failed once is given up with all that was added to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncRead;

use crate::blobs::{BlobWriter, Evidence, WriteOptions};
use crate::cutter::Cut;
use crate::draft::{Intake, Taken, inline};
use crate::error::{Error, Result};
use crate::feed::failure::failure;
use crate::files::Metadata;
use crate::id::WriterId;
use crate::index::Want;
use crate::repository::Repository;
use crate::tree::{Entry, Key};

/// The number of a writer of chunks, from 1.
pub(super) type Epoch = u64;

/// Takes contents for one feed; cheap to clone.
#[derive(Clone)]
pub(super) struct Chunks {
    repository: Repository,
    shared: Arc<Shared>,
}

struct Shared {
    options: WriteOptions,
    registration: Mutex<Registered>,
    gathering: tokio::sync::Mutex<Gathering>,
    lost: Mutex<Lost>,
}

/// What chunks are stored under.
struct Registered {
    id: WriterId,
    evidence: Arc<Evidence>,
}

/// What was given up last, and what is in doubt.
#[derive(Default)]
struct Lost {
    epoch: Epoch,
    cause: Option<Arc<Error>>,
    /// The last epoch before a collection and a new registration.
    suspect: Epoch,
}

/// The writer that chunks are added to.
struct Gathering {
    writer: Option<BlobWriter>,
    epoch: Epoch,
    /// Whether the index is at hand, to find what is stored already.
    indexed: bool,
    /// Whether somebody adds; if nobody holds the lock, he was cut off and the writer may lack a part.
    adding: bool,
}

impl Chunks {
    /// For contents that are stored under the registration `id`.
    pub(super) fn new(repository: Repository, id: WriterId, evidence: Arc<Evidence>, options: WriteOptions) -> Self {
        let gathering = tokio::sync::Mutex::new(Gathering { writer: None, epoch: 1, indexed: false, adding: false });
        let (registration, lost) = (Mutex::new(Registered { id, evidence }), Mutex::default());
        Self { repository, shared: Arc::new(Shared { options, registration, gathering, lost }) }
    }

    /// From now on writers store under this registration.
    pub(super) fn renew(&self, id: WriterId, evidence: Arc<Evidence>) {
        *self.registered() = Registered { id, evidence };
    }

    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.shared.registration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a content that is at hand. What is too large to stand in it is handed to a writer, the first of
    /// whose epochs is noted in `first`.
    pub(super) async fn entry(
        &self,
        path: &Key,
        content: &[u8],
        metadata: &Metadata,
        first: &mut Option<Epoch>,
    ) -> Result<Entry> {
        match inline(&self.repository, content, metadata)? {
            Some(entry) => Ok(entry),
            None => self.read(path, content, metadata, first).await,
        }
    }

    /// The same of a content that a reader yields.
    pub(super) async fn read(
        &self,
        path: &Key,
        content: impl AsyncRead + Send + Unpin,
        metadata: &Metadata,
        first: &mut Option<Epoch>,
    ) -> Result<Entry> {
        let mut intake = Intake::new(&self.repository, path, content, metadata)?;
        loop {
            match intake.next().await? {
                Taken::Cuts(cuts) => {
                    let epoch = self.add(cuts).await?;
                    first.get_or_insert(epoch);
                }
                Taken::Entry(entry) => return Ok(entry),
            }
        }
    }

    /// Adds chunks to the writer of now, as a task of its own: a writer whose caller is dropped halfway would lack
    /// blobs that it holds to be there.
    async fn add(&self, cuts: Vec<Cut>) -> Result<Epoch> {
        let chunks = self.clone();
        let adding = tokio::spawn(async move {
            let mut gathering = chunks.shared.gathering.lock().await;
            chunks.give_up_if_cut_off(&mut gathering);
            if !gathering.indexed && gathering.writer.is_none() {
                match chunks.repository.index().refresh(Want::All).await {
                    Ok(()) => gathering.indexed = true,
                    // Then it may be stored twice, which is better than not at all.
                    Err(error) => tracing::warn!(%error, "a feed does without the index for now"),
                }
            }
            let epoch = gathering.epoch;
            let mut writer = gathering.writer.take().unwrap_or_else(|| chunks.writer());
            gathering.adding = true;
            let added = add_all(&mut writer, cuts).await;
            gathering.adding = false;
            match added {
                Ok(()) => {
                    gathering.writer = Some(writer);
                    Ok(epoch)
                }
                Err(error) => {
                    gathering.epoch += 1;
                    Err(failure(&chunks.lose(epoch, error)))
                }
            }
        });
        adding.await.map_err(Error::worker)?
    }

    fn writer(&self) -> BlobWriter {
        let (parts, registered) = (self.repository.parts().clone(), self.registered());
        BlobWriter::new(parts, registered.id, Arc::clone(&registered.evidence), self.shared.options)
    }

    fn give_up_if_cut_off(&self, gathering: &mut Gathering) {
        if std::mem::take(&mut gathering.adding) {
            self.lose(gathering.epoch, Error::worker("a task that stored a content was cut off"));
            gathering.epoch += 1;
        }
    }

    /// Takes the writer with everything added so far, to be flushed; nothing if nothing was.
    pub(super) async fn take(&self) -> Option<(BlobWriter, Epoch)> {
        let mut gathering = self.shared.gathering.lock().await;
        self.give_up_if_cut_off(&mut gathering);
        let epoch = gathering.epoch;
        let writer = gathering.writer.take()?;
        gathering.epoch += 1;
        Some((writer, epoch))
    }

    /// Whether nothing was added since a writer was taken.
    #[cfg(test)]
    pub(super) async fn is_empty(&self) -> bool {
        self.shared.gathering.lock().await.writer.is_none()
    }

    /// From here on what was added so far must be looked for again before it is committed.
    pub(super) async fn suspect_all(&self) {
        let mut gathering = self.shared.gathering.lock().await;
        gathering.indexed = false;
        self.lost().suspect = gathering.epoch;
    }

    /// Whether chunks of a content that was begun in this epoch must be looked for again.
    pub(super) fn is_suspect(&self, first: Epoch) -> bool {
        first <= self.lost().suspect
    }

    /// Gives up what was added up to an epoch, for this cause.
    pub(super) fn lose(&self, epoch: Epoch, cause: Error) -> Arc<Error> {
        let (mut lost, cause) = (self.lost(), Arc::new(cause));
        lost.epoch = lost.epoch.max(epoch);
        lost.cause = Some(Arc::clone(&cause));
        cause
    }

    /// Whether chunks of a content that was begun in this epoch may be lost.
    pub(super) fn is_lost(&self, first: Epoch) -> bool {
        first <= self.lost().epoch
    }

    /// What is said of contents that are lost.
    pub(super) fn loss(&self) -> Error {
        let cause = self.lost().cause.clone();
        cause.map_or_else(|| Error::worker("a content was given up"), |cause| failure(&cause))
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn add_all(writer: &mut BlobWriter, cuts: Vec<Cut>) -> Result<()> {
    for cut in cuts {
        cut.store(writer).await?;
    }
    Ok(())
}
