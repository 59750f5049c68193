//! The change feed: a running server's tasks put changes and await that they are committed.
//!
//! ```text
//! put ──> cut to chunks, if large ──> queue ──> gather ──> apply, store ──> contend ──> acknowledge
//!         callers' tasks             bounded    the committer: one task, one commit at a time
//! ```
//! Owns grouping changes to commits, their order, the bounds on what is under
//! way, and what each caller is told. How changes become a tree is the business
//! of `draft`, how a number is won that of `registration`.
//!
//! - `queue`: what waits, in order. `chunks`: large contents. `suspects`: contents that
//!   a collection came upon. `commit`: the committer.
//! - `tidy`: merging beside the commits.
//! - `options`, `batch`, `failure`: what goes in, and what comes out when it goes wrong.
//!
//! Invariants: a change is acknowledged only once a record that holds it is
//! known to be in the store. A change that is told to have failed isn't in any
//! snapshot and won't be; where neither is known, the error says so. Changes are
//! applied in the order in which the queue took them, each at most once, the
//! changes of a batch in one snapshot.

mod batch;
mod chunks;
mod commit;
mod failure;
mod options;
mod queue;
mod suspects;
mod tidy;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use batch::Batch;
pub use options::FeedOptions;

use crate::blobs::Evidence;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::feed::batch::Change;
use crate::feed::chunks::{Chunks, Epoch};
use crate::feed::commit::Committer;
use crate::feed::failure::{causes, failure, no_room, unsettled};
use crate::feed::queue::{Limits, Op, Queue, Submission};
use crate::files::Metadata;
use crate::id::RecordHash;
use crate::registration::Registration;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::tree::Key;

/// Takes changes from any number of tasks and commits them in groups; cheap to clone.
///
/// Each call that changes something returns when the change is in a committed snapshot of the feed's series: what
/// was acknowledged is there after a crash. Calls that are made while a commit is under way go into the next one,
/// so it pays to have many tasks wait at once. Dropping a call leaves open whether its change is applied; never is
/// half of a [`Batch`].
///
/// A change is in order when its call has handed its content over, so order between two changes is certain if the
/// second call is made after the first has returned, or if both are in one batch.
///
/// ```
/// # use backstop::*; use std::sync::Arc;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// # let store: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
/// # let repository = Repository::create(store, &Secret::key([7; 32]), CreateOptions::default()).await?;
/// let feed = repository.feed("accounts", FeedOptions::default()).await?;
/// let card = Key::from_path("ana/contacts/7.vcf")?;
/// let receipt = feed.put(&card, "BEGIN:VCARD\r\n", &Metadata::default()).await?;
/// // Now it is safe to answer the client.
/// assert_eq!(receipt.number, 1);
/// feed.remove(&card).await?;
/// let last = feed.close().await?;
/// assert_eq!(last.map(|snapshot| snapshot.entries), Some(0));
/// # Ok(()) }
/// ```
///
/// # Errors
/// Every call that changes something fails with
/// - [`Error::Unsettled`] if its deadline passes while the change is under way: it may be committed yet;
/// - [`Error::Store`] if the store failed or there was no room in time, [`Error::Corrupt`] if something that the
///   commit needs is damaged: the change isn't applied, and won't be;
/// - [`Error::Invalid`] if the change itself can't be stored, or the feed was closed.
#[derive(Clone)]
pub struct Feed(Arc<Handle>);

/// What all clones of a feed share; its drop lets the committer finish.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("series", &self.shared().series).finish_non_exhaustive()
    }
}

/// Says which snapshot holds a change.
///
/// Who keeps the number and hash of the last one notices when a store hides newer records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The snapshot's number in the series.
    pub number: u64,
    /// The hash of its record.
    pub hash: RecordHash,
    /// When it was committed.
    pub time: Timestamp,
}

/// What the callers and the committer share.
struct Shared {
    repository: Repository,
    series: String,
    options: FeedOptions,
    queue: Queue,
    chunks: Chunks,
    news: Mutex<News>,
    /// How the committer ended.
    ended: watch::Sender<Option<Result<(), Arc<Error>>>>,
}

/// What the committer tells everyone.
#[derive(Default)]
struct News {
    latest: Option<Arc<Snapshot>>,
    /// What went wrong since the last commit.
    trouble: Option<Arc<Error>>,
}

impl Shared {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> Option<String> {
        let trouble = self.news().trouble.clone();
        trouble.map(|error| causes(&error))
    }

    fn closed(&self) -> Error {
        Error::invalid(format!("the feed of series {:?}", self.series), "it was closed; open another")
    }
}

/// Tells everyone how the committer ended, whatever ended it.
struct Ending(Arc<Shared>);

impl Ending {
    fn done(self, failed: Option<Arc<Error>>) {
        self.0.ended.send_replace(Some(failed.map_or(Ok(()), Err)));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.queue.clear();
        self.0.ended.send_if_modified(|ended| {
            let early = ended.is_none();
            ended.get_or_insert_with(|| Err(Arc::new(Error::worker("the task of a feed ended early"))));
            early
        });
    }
}

impl Repository {
    /// Opens a feed that continues a series from its latest snapshot, or begins it.
    ///
    /// It registers as a writer and runs a task of its own until it is closed or its last clone is dropped. Close
    /// it where you can: [`Feed::close`] waits for what is pending.
    ///
    /// # Errors
    /// As those of a backup: [`Error::UnsafeStore`], [`Error::Invalid`] for options or a name that can't be.
    pub async fn feed(&self, series: &str, options: FeedOptions) -> Result<Feed> {
        options.validate()?;
        let registration = Registration::begin(self.parts().clone(), series, &options.host, self.mode()).await?;
        let limits = Limits {
            interval: options.interval,
            changes_max: options.changes_max,
            bytes_max: options.bytes_max,
            queue_max: options.queue_max,
        };
        let evidence = Evidence::new(registration.condemned());
        let news = News { latest: registration.parent().map(Arc::new), trouble: None };
        let shared = Arc::new(Shared {
            repository: self.clone(),
            series: series.to_owned(),
            queue: Queue::new(limits),
            chunks: Chunks::new(self.clone(), registration.id(), Arc::clone(&evidence), options.chunk_options()),
            news: Mutex::new(news),
            ended: watch::Sender::new(None),
            options,
        });
        tokio::spawn(Committer::new(Arc::clone(&shared), registration, evidence).run());
        Ok(Feed(Arc::new(Handle(shared))))
    }
}

impl Feed {
    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Puts `content` at `path`, whether there is something or not; what lies below `path` stays.
    pub async fn put(&self, path: &Key, content: impl Into<Bytes>, metadata: &Metadata) -> Result<Receipt> {
        let (content, mut first) = (content.into(), None);
        let entry = self.shared().chunks.entry(path, &content, metadata, &mut first).await?;
        drop(content);
        self.submit(vec![Op::Put(path.clone(), entry)], None, first).await
    }

    /// Puts what `content` yields at `path`.
    ///
    /// The change takes its place in the order when the content has ended; the deadline begins then. An error of the
    /// reader fails the call, and nothing is put. Each call holds up to half a MiB of its content.
    pub async fn put_reader(
        &self,
        path: &Key,
        content: impl AsyncRead + Send + Unpin,
        metadata: &Metadata,
    ) -> Result<Receipt> {
        let mut first = None;
        let entry = self.shared().chunks.read(path, content, metadata, &mut first).await?;
        self.submit(vec![Op::Put(path.clone(), entry)], None, first).await
    }

    /// Removes what is at `path`, if something is; what lies below it stays.
    pub async fn remove(&self, path: &Key) -> Result<Receipt> {
        self.submit(vec![Op::Remove(path.clone())], None, None).await
    }

    /// Removes what is at `path` and everything below it.
    pub async fn remove_prefix(&self, path: &Key) -> Result<Receipt> {
        self.submit(vec![Op::RemovePrefix(path.clone())], None, None).await
    }

    /// Makes the changes of a batch, in order, all in one snapshot.
    pub async fn apply(&self, batch: Batch) -> Result<Receipt> {
        let Batch { changes, position } = batch;
        let (mut ops, mut first) = (Vec::with_capacity(changes.len()), None);
        for change in changes {
            ops.push(match change {
                Change::Put { path, content, metadata } => {
                    let entry = self.shared().chunks.entry(&path, &content, &metadata, &mut first).await?;
                    Op::Put(path, entry)
                }
                Change::Remove(path) => Op::Remove(path),
                Change::RemovePrefix(path) => Op::RemovePrefix(path),
            });
        }
        self.submit(ops, position, first).await
    }

    /// The latest snapshot of the series that this feed knows: the last it committed, or found another writer's to be.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let latest = self.shared().news().latest.clone();
        latest.map(Arc::unwrap_or_clone)
    }

    /// Commits what is pending, and ends the feed; its latest snapshot.
    ///
    /// Calls that are under way on clones get their answers; later ones fail with [`Error::Invalid`]. Dropping all
    /// clones without closing does the same but tells nobody.
    ///
    /// # Errors
    /// What kept pending changes from being committed; [`Error::Unsettled`] if the deadline passes before that is
    /// known.
    pub async fn close(self) -> Result<Option<Snapshot>> {
        let shared = self.shared();
        let deadline = Instant::now() + shared.options.deadline;
        shared.queue.close();
        let mut ended = shared.ended.subscribe();
        let outcome = match timeout_at(deadline, ended.wait_for(Option::is_some)).await {
            Ok(outcome) => outcome.ok().and_then(|outcome| outcome.clone()),
            Err(_) => None,
        };
        match outcome {
            Some(Ok(())) => Ok(self.snapshot()),
            Some(Err(error)) => Err(failure(&error)),
            None => Err(self.overdue()),
        }
    }

    /// Queues changes and waits until they are committed.
    async fn submit(&self, ops: Vec<Op>, position: Option<Bytes>, chunks: Option<Epoch>) -> Result<Receipt> {
        let shared = self.shared();
        let waited = shared.options.deadline;
        let deadline = Instant::now() + waited;
        let bytes = ops.iter().map(Op::bytes).sum::<usize>() + position.as_ref().map_or(0, Bytes::len);
        let room = match timeout_at(deadline, shared.queue.reserve(bytes)).await {
            Ok(room) => room.ok_or_else(|| shared.closed())?,
            Err(_) => return Err(no_room(waited, shared.trouble())),
        };
        let (submission, answer) = Submission::new(ops, position, chunks, room);
        shared.queue.push(submission).ok_or_else(|| shared.closed())?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unsettled(&shared.series, "the feed ended early")),
            Err(_) => Err(self.overdue()),
        }
    }

    fn overdue(&self) -> Error {
        let shared = self.shared();
        let trouble = shared.trouble().unwrap_or_else(|| "the store takes its time".to_owned());
        unsettled(&shared.series, format!("not within {:?}: {trouble}", shared.options.deadline))
    }
}

#[cfg(test)]
mod tests;
