//! Reader threads' work: from a path to an entry, its chunks cut and hashed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tokio::sync::mpsc;

use crate::backup::scan::ScanTotals;
use crate::blobs::{NodeBuffer, Treatment};
use crate::chunker::Chunker;
use crate::clock::Clock;
use crate::compress;
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::files::{FileSource, FileTime, Found, Metadata, Owners, Segment};
use crate::id::BlobId;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshot::Failure;
use crate::tree::{Entry, EntryKind, Key, Payload, Piece, SequenceBuilder, Splitter};

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
    Chunk(BlobId, Bytes, Treatment),
    Node(BlobId, Bytes),
    EndOfFile,
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
        if let Item::Chunk(_, bytes, _) = &item {
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
                out.push(Item::EndOfFile)?;
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

/// Takes the items that a [`Cutter`] makes.
pub(super) trait Sink {
    /// Why it may take no more.
    type Stop: From<Error>;

    /// Takes the next item.
    fn push(&mut self, item: Item) -> Result<(), Self::Stop>;
}

impl Sink for Outbox {
    type Stop = Stop;

    fn push(&mut self, item: Item) -> Result<(), Stop> {
        Ok(Outbox::push(self, item)?)
    }
}

impl Sink for Vec<Item> {
    type Stop = Error;

    fn push(&mut self, item: Item) -> Result<()> {
        Vec::push(self, item);
        Ok(())
    }
}

/// Cuts a stream of bytes and holes to chunks, gives them their ids and lists them as a payload.
pub(super) struct Cutter {
    chunker: Arc<Chunker>,
    keyring: Arc<Keyring>,
    sequence: SequenceBuilder,
    nodes: NodeBuffer,
    inline_max: usize,
    /// Whether all cores hash together.
    together: bool,
    buffer: Vec<u8>,
    length: usize,
    /// Whether anything was handed on, so that the payload can no longer be inline.
    begun: bool,
}

impl Cutter {
    pub(super) fn new(chunker: &Arc<Chunker>, keyring: &Arc<Keyring>, splitter: &Splitter, together: bool) -> Self {
        Self {
            chunker: Arc::clone(chunker),
            keyring: Arc::clone(keyring),
            sequence: SequenceBuilder::new(splitter.clone()),
            nodes: NodeBuffer::new(Arc::clone(keyring)),
            inline_max: splitter.parameters().inline_max as usize,
            together,
            buffer: Vec::new(),
            length: 0,
            begun: false,
        }
    }

    /// Room for the next bytes, at the end of those not yet cut.
    pub(super) fn room(&mut self, capacity: usize) -> &mut [u8] {
        let wanted = capacity.max(self.length + 1);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        &mut self.buffer[self.length..]
    }

    /// So many bytes of the room are now filled.
    pub(super) fn filled<S: Sink>(&mut self, length: usize, out: &mut S) -> Result<(), S::Stop> {
        self.length += length;
        // A small file is cut once, when its end is known.
        if self.length < self.buffer.len() { Ok(()) } else { self.cut(false, out) }
    }

    /// Zeros that take up no room follow.
    fn hole<S: Sink>(&mut self, length: u64, out: &mut S) -> Result<(), S::Stop> {
        self.cut(true, out)?;
        self.begun = true;
        self.list(Piece::Hole { length }, out)
    }

    /// The payload of all that was taken.
    pub(super) fn finish<S: Sink>(mut self, out: &mut S) -> Result<Payload, S::Stop> {
        if !self.begun && self.length <= self.inline_max {
            self.buffer.truncate(self.length);
            self.buffer.shrink_to_fit();
            return Ok(Payload::Inline(self.buffer.into()));
        }
        self.cut(true, out)?;
        let payload = self.sequence.finish(&mut self.nodes)?;
        hand_on_nodes(&mut self.nodes, out)?;
        out.push(Item::EndOfFile)?;
        Ok(payload)
    }

    /// Cuts what is in the buffer; without `end`, what may yet grow into a longer chunk stays.
    fn cut<S: Sink>(&mut self, end: bool, out: &mut S) -> Result<(), S::Stop> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.truncate(self.length);
        let bytes = Bytes::from(buffer);
        let (mut chunks, mut start) = (Vec::new(), 0);
        while let Some(length) = self.chunker.cut(&bytes[start..], end) {
            chunks.push(bytes.slice(start..start + length));
            start += length;
        }
        self.buffer = bytes[start..].to_vec();
        self.length = self.buffer.len();
        let prepare = |chunk: &Bytes| {
            let compressible = compress::is_compressible(chunk);
            (self.keyring.chunk_id().id(chunk), if compressible { Treatment::Compress } else { Treatment::Raw })
        };
        let prepared: Vec<_> =
            if self.together { chunks.par_iter().map(prepare).collect() } else { chunks.iter().map(prepare).collect() };
        for (chunk, (id, treatment)) in chunks.into_iter().zip(prepared) {
            self.begun = true;
            #[expect(clippy::cast_possible_truncation, reason = "the chunker's parameters bound it")]
            let piece = Piece::Chunk { id, length: chunk.len() as u32, repeat: 1 };
            out.push(Item::Chunk(id, chunk, treatment))?;
            self.list(piece, out)?;
        }
        Ok(())
    }

    fn list<S: Sink>(&mut self, piece: Piece, out: &mut S) -> Result<(), S::Stop> {
        self.sequence.push(piece, &mut self.nodes)?;
        hand_on_nodes(&mut self.nodes, out)
    }
}

fn hand_on_nodes<S: Sink>(nodes: &mut NodeBuffer, out: &mut S) -> Result<(), S::Stop> {
    nodes.take().into_iter().try_for_each(|(id, node)| out.push(Item::Node(id, node)))
}
