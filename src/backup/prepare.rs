//! Reader threads' work: from a path to an entry, its chunks cut and hashed.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::backup::scan::ScanTotals;
use crate::chunker::Chunker;
use crate::clock::Clock;
use crate::crypto::Keyring;
use crate::cutter::{Cut, Cutter, Sink};
use crate::error::{Error, Result};
use crate::files::{FileSource, FileTime, Found, Metadata, Owners, Segment};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshot::Failure;
use crate::tree::{Entry, EntryKind, Key, Payload, Splitter};

/// Items are handed on when their bytes come to this much.
const HAND_ON: usize = 1 << 20;

/// The most that is read of a file at a time.
const BUFFER: usize = 4 << 20;

/// Files from this length on are hashed by all cores.
const HASH_TOGETHER: u64 = 8 << 20;

/// Nanoseconds between two stamps that a file system tells apart: kernels take them from a timer of 100 Hz or
/// faster, some file systems keep only every other second.
const FINE_TICK: i64 = 20_000_000;
const COARSE_TICK: i64 = 2_000_000_000;

/// What the reader threads hand on, in the order of paths.
#[derive(Debug)]
pub(super) enum Item {
    Cut(Cut),
    Entry(Key, Box<Entry>),
    Removed(Key),
    Failed(Failure),
}

/// The way from a thread to the assembling task, with back pressure.
pub(super) struct Outbox {
    sender: mpsc::Sender<Result<Vec<Item>>>,
    items: Vec<Item>,
    bytes: usize,
}

/// The assembling task is gone: the backup was dropped or has failed.
#[derive(Debug)]
pub(super) struct Gone;

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<Result<Vec<Item>>>) -> Self {
        Self { sender, items: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, item: Item) -> Result<(), Gone> {
        if let Item::Cut(Cut::Chunk(_, bytes, _)) = &item {
            self.bytes += bytes.len();
        }
        self.items.push(item);
        if self.bytes >= HAND_ON { self.hand_on() } else { Ok(()) }
    }

    pub(super) fn hand_on(&mut self) -> Result<(), Gone> {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        self.sender.blocking_send(Ok(items)).map_err(|_| Gone)
    }

    pub(super) fn fail(&mut self, error: Error) {
        // If nobody listens any more, nobody needs the error.
        drop(self.sender.blocking_send(Err(error)));
    }
}

/// Why a file's content could not be prepared.
pub(super) enum Stop {
    Failed(Error),
    Gone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Stop::Gone
    }
}

/// Turns paths into entries; each reader thread has one.
pub(super) struct Preparer {
    chunker: Arc<Chunker>,
    keyring: Arc<Keyring>,
    splitter: Splitter,
    owners: Owners,
    clock: Arc<dyn Clock>,
    totals: Arc<ScanTotals>,
    progress: Arc<dyn Progress>,
}

impl Preparer {
    pub(super) fn new(repository: &Repository, totals: Arc<ScanTotals>, progress: Arc<dyn Progress>) -> Self {
        Self {
            chunker: Arc::clone(repository.chunker()),
            keyring: Arc::clone(repository.keyring()),
            splitter: repository.splitter().clone(),
            owners: Owners::default(),
            clock: Arc::clone(&repository.surroundings().clock),
            totals,
            progress,
        }
    }

    /// Prepares one path; `known` is the parent's entry for it, which a failure takes away.
    pub(super) fn prepare(&mut self, found: &Found, known: Option<&Entry>, out: &mut Outbox) -> Result<(), Gone> {
        match self.entry(found, out) {
            Ok(entry) => {
                self.totals.count_present(found.kind(), entry.size);
                self.progress.advance(u64::from(found.kind() == EntryKind::File), 0);
                if known == Some(&entry) {
                    return Ok(());
                }
                self.totals.count_difference(known.is_some());
                out.push(Item::Entry(found.key.clone(), Box::new(entry)))
            }
            Err(Stop::Failed(error)) => {
                self.report(&found.path(), &error, out)?;
                // Its chunks so far must not share a block with the next file's.
                out.push(Item::Cut(Cut::EndOfFile))?;
                if known.is_some() {
                    self.totals.count_removed();
                    out.push(Item::Removed(found.key.clone()))?;
                }
                Ok(())
            }
            Err(Stop::Gone) => Err(Gone),
        }
    }

    fn report(&self, path: &Path, error: &Error, out: &mut Outbox) -> Result<(), Gone> {
        self.progress.failed(path, error);
        out.push(Item::Failed(Failure::new(path.display(), error)))
    }

    fn entry(&mut self, found: &Found, out: &mut Outbox) -> Result<Entry, Stop> {
        let (content, metadata, warnings) = match found.kind() {
            EntryKind::File => {
                let mut source = found.open()?;
                let (mut metadata, warnings) = source.metadata(&self.owners);
                self.distrust_fresh(&mut metadata);
                let content = self.file(&mut source, out)?;
                if !source.finish()? {
                    let changed =
                        Error::file("read all of", found.path(), std::io::Error::other("it changed while it was read"));
                    self.report(&found.path(), &changed, out)?;
                }
                (content, metadata, warnings)
            }
            EntryKind::Symlink => {
                let target = found.read_link()?;
                let (metadata, warnings) = found.metadata(&self.owners);
                (self.bytes(target, out)?, metadata, warnings)
            }
            _ => {
                let (metadata, warnings) = found.metadata(&self.owners);
                (Payload::default(), metadata, warnings)
            }
        };
        for warning in &warnings {
            self.report(&found.path(), warning, out)?;
        }
        let metadata = self.bytes(metadata.encode()?, out)?;
        Ok(Entry::new(found.kind(), content, metadata))
    }

    /// Takes the time of change from a file that changed just now.
    ///
    /// A further change within the same tick of the file system's clock would leave no trace, so the next backup
    /// must not take the file for unchanged.
    fn distrust_fresh(&self, metadata: &mut Metadata) {
        if let Some(posix) = &mut metadata.posix {
            let FileTime { seconds, nanos } = posix.changed;
            let tick = if nanos == 0 { COARSE_TICK } else { FINE_TICK };
            let changed = seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos));
            if self.clock.now().as_nanos().saturating_sub(changed) < tick {
                posix.changed = FileTime::default();
            }
        }
    }

    /// Reads a file to its end.
    fn file(&self, source: &mut FileSource, out: &mut Outbox) -> Result<Payload, Stop> {
        let size = source.stat().size;
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the buffer's length")]
        let capacity = (size.saturating_add(1)).clamp(64, BUFFER as u64) as usize;
        let mut cutter = Cutter::new(&self.chunker, &self.keyring, &self.splitter, size >= HASH_TOGETHER);
        loop {
            let buffer = cutter.room(capacity);
            match source.read(buffer)? {
                Segment::Data(length) => {
                    self.progress.advance(0, length as u64);
                    self.totals.count_read(length as u64);
                    cutter.filled(length, out)?;
                }
                Segment::Hole(length) => {
                    self.progress.advance(0, length);
                    cutter.hole(length, out)?;
                }
                Segment::End => return cutter.finish(out),
            }
        }
    }

    /// Stores bytes that are at hand.
    fn bytes(&self, bytes: Vec<u8>, out: &mut Outbox) -> Result<Payload, Stop> {
        if bytes.len() <= self.splitter.parameters().inline_max as usize {
            return Ok(Payload::Inline(bytes.into()));
        }
        let mut cutter = Cutter::new(&self.chunker, &self.keyring, &self.splitter, false);
        let length = bytes.len();
        cutter.room(length).copy_from_slice(&bytes);
        cutter.filled(length, out)?;
        cutter.finish(out)
    }
}

impl Sink for Outbox {
    type Stop = Stop;

    fn push(&mut self, cut: Cut) -> Result<(), Stop> {
        Ok(Outbox::push(self, Item::Cut(cut))?)
    }
}
