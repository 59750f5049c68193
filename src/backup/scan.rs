//! Walks the source in key order beside the parent's tree, and hands what needs reading to threads.

use std::collections::HashSet;
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};

use futures::stream::{BoxStream, ReadyChunks};
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::backup::BackupOptions;
use crate::backup::prepare::{Gone, Item, Outbox, Preparer};
use crate::blobs::BlobReader;
use crate::content::read_whole;
use crate::cpu;
use crate::error::{Error, Result};
use crate::files::{Found, Metadata, Unreadable, Walk};
use crate::id::BlobId;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshot::{Failure, Snapshot, SnapshotStats};
use crate::tree::{self, Entry, EntryKind, Key, Payload, Piece, Span};

/// A batch of paths for one thread ends at so many paths or bytes.
const BATCH_PATHS: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;

/// How many messages of one batch may wait to be taken.
const WAITING: usize = 2;

/// Leaves of the parent's tree read ahead.
const READ_AHEAD: usize = 8;

/// Entries of the parent taken at a time.
const PARENT_CHUNK: usize = 512;

/// Metadata longer than this is compared as if it had changed.
const METADATA_MAX: u64 = 1 << 20;

type ItemReceiver = mpsc::Receiver<Result<Vec<Item>>>;

/// One path to be dealt with, in order.
enum Task {
    /// A path to be read; `known` is the parent's entry for it.
    Read {
        found: Box<Found>,
        known: Option<Box<Entry>>,
    },
    Remove(Key),
    Report(Failure),
}

/// Counts that several threads add to.
#[derive(Debug, Default)]
pub(super) struct ScanTotals {
    files: AtomicU64,
    folders: AtomicU64,
    others: AtomicU64,
    bytes: AtomicU64,
    added: AtomicU64,
    changed: AtomicU64,
    removed: AtomicU64,
    bytes_read: AtomicU64,
}

impl ScanTotals {
    /// An entry is in the snapshot.
    pub(super) fn count_present(&self, kind: EntryKind, size: u64) {
        let counter = match kind {
            EntryKind::File => &self.files,
            EntryKind::Folder => &self.folders,
            _ => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if kind == EntryKind::File {
            self.bytes.fetch_add(size, Ordering::Relaxed);
        }
    }

    /// An entry differs from the parent's (`known`), or the parent lacks it.
    pub(super) fn count_difference(&self, known: bool) {
        let counter = if known { &self.changed } else { &self.added };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_removed(&self) {
        self.removed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counts as a snapshot carries them.
    pub(super) fn stats(&self) -> SnapshotStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SnapshotStats {
            files: read(&self.files),
            folders: read(&self.folders),
            others: read(&self.others),
            bytes: read(&self.bytes),
            added: read(&self.added),
            changed: read(&self.changed),
            removed: read(&self.removed),
            bytes_read: read(&self.bytes_read),
            ..SnapshotStats::default()
        }
    }
}

/// The threads at work, seen from the assembling task.
pub(super) struct Scan {
    /// The batches' items, batches in order; the scan's own failure comes here too.
    batches: mpsc::Receiver<Result<ItemReceiver>>,
    current: Option<ItemReceiver>,
    totals: Arc<ScanTotals>,
    complete: bool,
}

impl Scan {
    /// Starts the threads.
    pub(super) fn start(
        repository: &Repository,
        walk: Walk,
        parent: Option<&Snapshot>,
        lost: HashSet<BlobId>,
        options: &BackupOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Self> {
        let readers = options.readers.unwrap_or_else(|| rayon::current_num_threads().max(4)).max(1);
        let totals = Arc::new(ScanTotals::default());
        let (work, queue) = std_mpsc::sync_channel(readers);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..readers {
            let preparer = Preparer::new(repository, Arc::clone(&totals), Arc::clone(&progress));
            let queue = Arc::clone(&queue);
            spawn(&format!("backstop-read-{number}"), move || read(&queue, preparer))?;
        }
        let (batches_in, batches) = mpsc::channel(2 * readers);
        let mut scanner = Scanner {
            parent: parent.map(|parent| Parent::new(repository, parent)),
            read_all: options.read_all,
            lost,
            totals: Arc::clone(&totals),
            progress,
            work,
            batches: batches_in,
            tasks: Vec::new(),
            bytes: 0,
        };
        spawn("backstop-scan", move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| scanner.run(walk)));
            let failure = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(ScanStop::Failed(error))) => Some(error),
                Ok(Err(ScanStop::Gone)) => return,
                Err(panic) => Some(cpu::panicked(&*panic)),
            };
            // An empty batch says that the scan came to its end.
            let last = failure.map_or_else(|| Ok(mpsc::channel(1).1), Err);
            drop(scanner.batches.blocking_send(last));
        })?;
        Ok(Self { batches, current: None, totals, complete: false })
    }

    /// The next items in the order of paths, or nothing after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Item>>> {
        loop {
            if let Some(current) = &mut self.current {
                self.complete = false;
                if let Some(items) = current.recv().await {
                    return items.map(Some);
                }
                self.complete = true;
            }
            match self.batches.recv().await {
                Some(batch) => self.current = Some(batch?),
                None => return Ok(None),
            }
        }
    }

    /// What was found, once there is no more.
    pub(super) fn finish(self) -> Result<Arc<ScanTotals>> {
        if self.complete { Ok(self.totals) } else { Err(Error::worker("the scan of the source ended early")) }
    }
}

pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Error::worker(format!("no thread could be started: {error}")))
}

type Batch = (Vec<Task>, mpsc::Sender<Result<Vec<Item>>>);

/// A reader thread: takes batches until there are no more.
fn read(queue: &Mutex<std_mpsc::Receiver<Batch>>, mut preparer: Preparer) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((tasks, sender)) = next else { return };
        let mut out = Outbox::new(sender);
        let outcome = catch_unwind(AssertUnwindSafe(|| read_batch(tasks, &mut preparer, &mut out)));
        match outcome {
            // Whoever listened is gone; further batches will find the same, until the queue closes.
            Ok(Ok(()) | Err(Gone)) => {}
            Err(panic) => out.fail(cpu::panicked(&*panic)),
        }
    }
}

fn read_batch(tasks: Vec<Task>, preparer: &mut Preparer, out: &mut Outbox) -> Result<(), Gone> {
    for task in tasks {
        match task {
            Task::Read { found, known } => preparer.prepare(&found, known.as_deref(), out)?,
            Task::Remove(key) => out.push(Item::Removed(key))?,
            Task::Report(failure) => out.push(Item::Failed(failure))?,
        }
    }
    out.hand_on()
}

enum ScanStop {
    Failed(Error),
    Gone,
}

impl From<Error> for ScanStop {
    fn from(error: Error) -> Self {
        ScanStop::Failed(error)
    }
}

/// The scan thread.
struct Scanner {
    parent: Option<Parent>,
    read_all: bool,
    /// Chunks that are in no pack that is there.
    lost: HashSet<BlobId>,
    totals: Arc<ScanTotals>,
    progress: Arc<dyn Progress>,
    work: std_mpsc::SyncSender<Batch>,
    batches: mpsc::Sender<Result<ItemReceiver>>,
    tasks: Vec<Task>,
    bytes: u64,
}

impl Scanner {
    fn run(&mut self, walk: Walk) -> Result<(), ScanStop> {
        for step in walk {
            match step {
                Ok(found) => self.found(found)?,
                Err(Unreadable { path, error, .. }) => {
                    self.progress.failed(&path, &error);
                    self.push(Task::Report(Failure::new(path.display(), &error)), 0)?;
                }
            }
        }
        while let Some((key, _)) = self.parent_entry(None)? {
            self.removed(key)?;
        }
        self.hand_on()
    }

    /// Compares a path with the parent's entry of the same key, after dealing with those before it.
    fn found(&mut self, found: Found) -> Result<(), ScanStop> {
        let mut known = None;
        while let Some((key, entry)) = self.parent_entry(Some(&found.key))? {
            if key == found.key {
                known = Some(entry);
                break;
            }
            self.removed(key)?;
        }
        if let (Some(entry), Some(parent), false) = (&known, &self.parent, self.read_all)
            && parent.is_unchanged(entry, &found)
            && !parent.needs(entry, &self.lost)
        {
            self.totals.count_present(found.kind(), entry.size);
            self.progress.advance(u64::from(found.kind() == EntryKind::File), found.size());
            return Ok(());
        }
        let size = found.size();
        self.push(Task::Read { found: Box::new(found), known: known.map(Box::new) }, size)
    }

    fn removed(&mut self, key: Key) -> Result<(), ScanStop> {
        self.totals.count_removed();
        self.push(Task::Remove(key), 0)
    }

    /// The parent's next entry, if its key isn't beyond `until`.
    fn parent_entry(&mut self, until: Option<&Key>) -> Result<Option<(Key, Entry)>> {
        match &mut self.parent {
            Some(parent) => parent.next_until(until),
            None => Ok(None),
        }
    }

    fn push(&mut self, task: Task, size: u64) -> Result<(), ScanStop> {
        self.tasks.push(task);
        self.bytes = self.bytes.saturating_add(size);
        if self.tasks.len() >= BATCH_PATHS || self.bytes >= BATCH_BYTES { self.hand_on() } else { Ok(()) }
    }

    /// Queues the tasks so far: their results' place in the order first, then the work.
    fn hand_on(&mut self) -> Result<(), ScanStop> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let (sender, receiver) = mpsc::channel(WAITING);
        self.batches.blocking_send(Ok(receiver)).map_err(|_| ScanStop::Gone)?;
        self.work.send((std::mem::take(&mut self.tasks), sender)).map_err(|_| ScanStop::Gone)
    }
}

/// The entries of the parent's tree, read from the scan thread.
struct Parent {
    runtime: Handle,
    reader: Arc<BlobReader>,
    stream: ReadyChunks<BoxStream<'static, Result<(Key, Entry)>>>,
    chunk: Peekable<std::vec::IntoIter<Result<(Key, Entry)>>>,
}

impl Parent {
    fn new(repository: &Repository, parent: &Snapshot) -> Self {
        let reader = Arc::clone(repository.reader());
        let entries: BoxStream<'static, _> =
            tree::range(Arc::clone(&reader), &parent.root, Span::all(), READ_AHEAD).boxed();
        Self {
            runtime: Handle::current(),
            reader,
            stream: entries.ready_chunks(PARENT_CHUNK),
            chunk: Vec::new().into_iter().peekable(),
        }
    }

    fn next_until(&mut self, until: Option<&Key>) -> Result<Option<(Key, Entry)>> {
        if self.chunk.peek().is_none() {
            let chunk = self.runtime.block_on(self.stream.next());
            self.chunk = chunk.unwrap_or_default().into_iter().peekable();
        }
        let due = |next: &Result<(Key, Entry)>| match (next, until) {
            (Ok((key, _)), Some(until)) => key <= until,
            _ => true,
        };
        self.chunk.next_if(due).transpose()
    }

    /// Whether an entry needs one of some chunks, or it isn't known which it needs.
    fn needs(&self, entry: &Entry, chunks: &HashSet<BlobId>) -> bool {
        if chunks.is_empty() {
            return false;
        }
        let payloads = [&entry.content, &entry.metadata].into_iter();
        payloads.filter(|payload| !matches!(payload, Payload::Inline(_))).any(|payload| {
            let pieces = tree::pieces(Arc::clone(&self.reader), payload, 0, READ_AHEAD);
            let is_wanted = |piece: Piece| matches!(piece, Piece::Chunk { id, .. } if chunks.contains(&id));
            let wanted = pieces.try_any(|(_, piece)| std::future::ready(is_wanted(piece)));
            self.runtime.block_on(wanted).unwrap_or(true)
        })
    }

    /// Whether a path is as the parent has it, so that it needn't be read.
    fn is_unchanged(&self, entry: &Entry, found: &Found) -> bool {
        let metadata = self.runtime.block_on(read_whole(&self.reader, &entry.metadata, METADATA_MAX, "metadata"));
        // What can't be read back is stored anew.
        metadata
            .and_then(|bytes| Metadata::decode(&bytes, "metadata"))
            .is_ok_and(|metadata| metadata.is_unchanged(entry.kind, entry.size, found))
    }
}
