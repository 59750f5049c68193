//! Payloads as bytes: whole, or as a seekable reader.
//!
//! Owns the way from a payload's pieces to bytes and the read-ahead on it.
//! Knows neither paths nor snapshots.

use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesOrdered};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::blobs::BlobReader;
use crate::error::{Error, Result};
use crate::pack::BlockKind;
use crate::tree::{Payload, Piece, pieces};

/// Pieces fetched ahead by a reader that reads on and on; it begins with one.
const AHEAD_MAX: usize = 16;

/// Nodes of a sequence read ahead.
const NODES_AHEAD: usize = 4;

/// Reads all of a payload that should be small, such as metadata or a symlink's target.
pub(crate) async fn read_whole(reader: &Arc<BlobReader>, payload: &Payload, limit: u64, object: &str) -> Result<Bytes> {
    if let Payload::Inline(bytes) = payload {
        return Ok(bytes.clone());
    }
    if payload.length() > limit {
        return Err(Error::corrupt(
            object,
            format!("it is {} bytes long, at most {limit} are possible", payload.length()),
        ));
    }
    let mut whole = Vec::new();
    let mut list = pieces(Arc::clone(reader), payload, 0, NODES_AHEAD).boxed();
    while let Some((_, piece)) = list.try_next().await? {
        match fetch(reader, piece).await? {
            Segment::Data { bytes, repeat } => (0..repeat).for_each(|_| whole.extend_from_slice(&bytes)),
            #[expect(clippy::cast_possible_truncation, reason = "the payload's length was checked")]
            Segment::Zeros { length } => whole.resize(whole.len() + length as usize, 0),
        }
    }
    Ok(whole.into())
}

/// Part of a payload, fetched.
#[derive(Clone, Debug)]
enum Segment {
    Data { bytes: Bytes, repeat: u32 },
    Zeros { length: u64 },
}

impl Segment {
    fn length(&self) -> u64 {
        match self {
            Segment::Data { bytes, repeat } => bytes.len() as u64 * u64::from(*repeat),
            Segment::Zeros { length } => *length,
        }
    }

    /// Copies what lies at `at` into `buffer`, as much as fits and lies together.
    fn copy(&self, at: u64, buffer: &mut ReadBuf<'_>) -> u64 {
        let before = buffer.filled().len();
        #[expect(clippy::cast_possible_truncation, reason = "remainders of lengths in memory")]
        match self {
            Segment::Data { bytes, .. } => {
                let from = (at % bytes.len().max(1) as u64) as usize;
                let length = buffer.remaining().min(bytes.len() - from);
                buffer.put_slice(&bytes[from..from + length]);
            }
            Segment::Zeros { length } => {
                let length = (length - at).min(buffer.remaining() as u64) as usize;
                buffer.initialize_unfilled_to(length).fill(0);
                buffer.advance(length);
            }
        }
        (buffer.filled().len() - before) as u64
    }
}

async fn fetch(reader: &BlobReader, piece: Piece) -> Result<Segment> {
    match piece {
        Piece::Chunk { id, length, repeat } => {
            let bytes = reader.read(BlockKind::Data, &id).await?;
            if bytes.len() != length as usize {
                return Err(Error::corrupt(format!("blob {id}"), "it has another length than its file says"));
            }
            Ok(Segment::Data { bytes, repeat })
        }
        Piece::Hole { length } => Ok(Segment::Zeros { length }),
    }
}

/// A file of a snapshot, opened: reads and seeks, and fetches only the blocks that hold what is asked for.
///
/// Reading on and on makes it fetch ahead; a seek ends that.
pub struct FileReader {
    reader: Arc<BlobReader>,
    payload: Payload,
    position: u64,
    /// The segment last fetched and where it begins.
    current: Option<(u64, Segment)>,
    plan: Option<BoxStream<'static, Result<(u64, Piece)>>>,
    fetching: FuturesOrdered<BoxFuture<'static, Result<(u64, Segment)>>>,
    ahead: usize,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("length", &self.len()).field("position", &self.position).finish()
    }
}

impl FileReader {
    pub(crate) fn new(reader: Arc<BlobReader>, payload: Payload) -> Self {
        let current = match &payload {
            Payload::Inline(bytes) => Some((0, Segment::Data { bytes: bytes.clone(), repeat: 1 })),
            _ => None,
        };
        Self { reader, payload, position: 0, current, plan: None, fetching: FuturesOrdered::new(), ahead: 1 }
    }

    /// The file's length in bytes.
    pub fn len(&self) -> u64 {
        self.payload.length()
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn current_holds(&self, position: u64) -> bool {
        self.current.as_ref().is_some_and(|(start, segment)| position >= *start && position - start < segment.length())
    }

    /// Starts fetches until as many are under way as may be.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let (reader, payload, position) = (&self.reader, &self.payload, self.position);
        let plan = self.plan.get_or_insert_with(|| pieces(Arc::clone(reader), payload, position, NODES_AHEAD).boxed());
        while self.fetching.len() < self.ahead {
            match plan.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok((start, piece)))) => {
                    let reader = Arc::clone(&self.reader);
                    self.fetching.push_back(Box::pin(async move { Ok((start, fetch(&reader, piece).await?)) }));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => break,
                Poll::Pending if self.fetching.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_segment(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.fill(cx))?;
        match ready!(Pin::new(&mut self.fetching).poll_next(cx)) {
            Some(fetched) => {
                self.current = Some(fetched?);
                self.ahead = (self.ahead * 2).min(AHEAD_MAX);
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(Error::corrupt("a file", "its pieces end before its length"))),
        }
    }
}

impl AsyncRead for FileReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.position >= this.len() || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some((start, segment)) = &this.current
                && this.current_holds(this.position)
            {
                this.position += segment.copy(this.position - start, buffer);
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_segment(cx))?;
        }
    }
}

impl AsyncSeek for FileReader {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let this = self.get_mut();
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => this.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => this.position.checked_add_signed(offset),
        };
        let target =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek before the start of the file"))?;
        // Within the current segment what was fetched ahead stays good: it follows that segment.
        if target != this.position && !this.current_holds(target) {
            if !matches!(this.payload, Payload::Inline(_)) {
                this.current = None;
            }
            this.plan = None;
            this.fetching = FuturesOrdered::new();
            this.ahead = 1;
        }
        this.position = target;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}
