//! Bytes to blobs: cuts a stream to chunks, names them and lists them as a payload.
//!
//! Shared by everything that stores contents. Owns the order in which blobs
//! are made: chunks, the nodes of a long list of them, the end of the file.
//! Doesn't store them and knows no paths; the caller chooses the threads.

use std::sync::Arc;

use bytes::Bytes;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::blobs::{BlobWriter, NodeBuffer, Treatment};
use crate::chunker::Chunker;
use crate::compress;
use crate::cpu;
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::pack::BlockKind;
use crate::tree::{Payload, Piece, SequenceBuilder, Splitter};

/// Bytes of a stream that are buffered at first.
const BUFFER_MIN: usize = 64 << 10;

/// What becomes of a stream of bytes, in order.
#[derive(Debug)]
pub(crate) enum Cut {
    Chunk(BlobId, Bytes, Treatment),
    Node(BlobId, Bytes),
    EndOfFile,
}

impl Cut {
    /// Hands it to `writer`.
    pub(crate) async fn store(self, writer: &mut BlobWriter) -> Result<()> {
        match self {
            Cut::Chunk(id, bytes, treatment) => writer.add(BlockKind::Data, id, bytes, treatment).await.map(drop),
            Cut::Node(id, bytes) => writer.add(BlockKind::Nodes, id, bytes, Treatment::Compress).await.map(drop),
            Cut::EndOfFile => writer.end_file().await,
        }
    }
}

/// Takes what a [`Cutter`] makes.
pub(crate) trait Sink {
    /// Why it may take no more.
    type Stop: From<Error>;

    /// Takes the next piece.
    fn push(&mut self, cut: Cut) -> Result<(), Self::Stop>;
}

impl Sink for Vec<Cut> {
    type Stop = Error;

    fn push(&mut self, cut: Cut) -> Result<()> {
        Vec::push(self, cut);
        Ok(())
    }
}

/// Cuts a stream of bytes and holes to chunks, gives them their ids and lists them as a payload.
pub(crate) struct Cutter {
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
    pub(crate) fn new(chunker: &Arc<Chunker>, keyring: &Arc<Keyring>, splitter: &Splitter, together: bool) -> Self {
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
    pub(crate) fn room(&mut self, capacity: usize) -> &mut [u8] {
        let wanted = capacity.max(self.length + 1);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        &mut self.buffer[self.length..]
    }

    /// Whether so many bytes more leave room in the buffer, so that taking them costs nothing.
    fn holds(&self, length: usize) -> bool {
        self.length + length < self.buffer.len()
    }

    /// So many bytes of the room are now filled.
    pub(crate) fn filled<S: Sink>(&mut self, length: usize, out: &mut S) -> Result<(), S::Stop> {
        self.length += length;
        // A small file is cut once, when its end is known.
        if self.length < self.buffer.len() { Ok(()) } else { self.cut(false, out) }
    }

    /// Zeros that take up no room follow.
    pub(crate) fn hole<S: Sink>(&mut self, length: u64, out: &mut S) -> Result<(), S::Stop> {
        self.cut(true, out)?;
        self.begun = true;
        self.list(Piece::Hole { length }, out)
    }

    /// The payload of all that was taken.
    pub(crate) fn finish<S: Sink>(mut self, out: &mut S) -> Result<Payload, S::Stop> {
        if !self.begun && self.length <= self.inline_max {
            self.buffer.truncate(self.length);
            self.buffer.shrink_to_fit();
            return Ok(Payload::Inline(self.buffer.into()));
        }
        self.cut(true, out)?;
        let payload = self.sequence.finish(&mut self.nodes)?;
        hand_on_nodes(&mut self.nodes, out)?;
        out.push(Cut::EndOfFile)?;
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
            out.push(Cut::Chunk(id, chunk, treatment))?;
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
    nodes.take().into_iter().try_for_each(|(id, node)| out.push(Cut::Node(id, node)))
}

/// A stream that is cut on the CPU threads, a buffer at a time.
pub(crate) struct CutStream<R> {
    reader: R,
    /// What errors call it.
    name: String,
    /// On loan to a thread while it cuts; nothing once the stream has ended.
    cutter: Option<Cutter>,
    /// How much is read before it is cut, in bytes; grows up to the limit.
    buffer: usize,
    buffer_max: usize,
    length: u64,
}

/// A step of a [`CutStream`].
#[derive(Debug)]
pub(crate) enum Step {
    /// So many bytes more were read.
    Read(u64),
    /// All of it was read and cut.
    End(Payload),
}

impl<R: AsyncRead + Send + Unpin> CutStream<R> {
    /// Cuts what `reader` yields, buffering at most `buffer_max` bytes at a time, and little of a stream that is short.
    pub(crate) fn new(reader: R, name: impl ToString, cutter: Cutter, buffer_max: usize) -> Self {
        let (name, buffer) = (name.to_string(), BUFFER_MIN.min(buffer_max));
        Self { reader, name, cutter: Some(cutter), buffer, buffer_max, length: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads on, and says what became of it; after [`Step::End`] there is nothing more.
    pub(crate) async fn next(&mut self, cuts: &mut Vec<Cut>) -> Result<Step> {
        let Some(cutter) = &mut self.cutter else { return Err(Error::worker("a stream was read past its end")) };
        if self.length >= self.buffer as u64 {
            self.buffer = (self.buffer * 2).min(self.buffer_max);
        }
        let read = self.reader.read(cutter.room(self.buffer)).await;
        let read = read.map_err(|error| Error::file("read the stream", &self.name, error))?;
        if read > 0 && cutter.holds(read) {
            cutter.filled(read, cuts)?;
            self.length += read as u64;
            return Ok(Step::Read(read as u64));
        }
        let Some(cutter) = self.cutter.take() else { return Err(Error::worker("a stream lost its buffer")) };
        let (step, cutter, mut made) = cpu::start(move || take(cutter, read)).await?;
        self.cutter = cutter;
        self.length += read as u64;
        cuts.append(&mut made);
        Ok(step)
    }
}

/// Takes in what was read, or ends where nothing was.
fn take(mut cutter: Cutter, read: usize) -> Result<(Step, Option<Cutter>, Vec<Cut>)> {
    let mut cuts = Vec::new();
    if read == 0 {
        let payload = cutter.finish(&mut cuts)?;
        return Ok((Step::End(payload), None, cuts));
    }
    cutter.filled(read, &mut cuts)?;
    Ok((Step::Read(read as u64), Some(cutter), cuts))
}
