//! From contents and metadata to entries, the large ones cut to chunks on the way.

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::cutter::{Cut, CutStream, Cutter, Step};
use crate::error::Result;
use crate::files::Metadata;
use crate::repository::Repository;
use crate::tree::{Entry, EntryKind, Payload};

/// The most that is buffered of one content, in bytes, unless the largest chunk asks for more.
const BUFFER: usize = 512 << 10;

/// What [`Intake::next`] has made.
#[derive(Debug)]
pub(crate) enum Taken {
    /// To be stored, in this order; all of them belong to one content.
    Cuts(Vec<Cut>),
    /// All was cut, and everything before this belongs to the entry.
    Entry(Entry),
}

/// A content on its way into a draft.
pub(crate) struct Intake<R> {
    stream: CutStream<R>,
    metadata: Payload,
    cuts: Vec<Cut>,
    /// Once the stream has ended.
    content: Option<Payload>,
}

/// The entry of a content and metadata that are small enough to stand in it; nothing if they aren't.
///
/// # Errors
/// `Invalid` for metadata that can't be stored.
pub(crate) fn inline(repository: &Repository, content: &[u8], metadata: &Metadata) -> Result<Option<Entry>> {
    let metadata = metadata.encode()?;
    let inline_max = repository.splitter().parameters().inline_max as usize;
    if content.len() > inline_max || metadata.len() > inline_max {
        return Ok(None);
    }
    // A copy, since the caller's bytes may be part of a large buffer.
    let (content, metadata) = (Payload::from(Bytes::copy_from_slice(content)), Payload::from(metadata));
    Ok(Some(Entry::new(EntryKind::File, content, metadata)))
}

impl<R: AsyncRead + Send + Unpin> Intake<R> {
    /// Takes what `content` yields; `name` is what errors call it.
    ///
    /// # Errors
    /// `Invalid` for metadata that can't be stored.
    pub(crate) fn new(repository: &Repository, name: impl ToString, content: R, metadata: &Metadata) -> Result<Self> {
        let cutter = || Cutter::new(repository.chunker(), repository.keyring(), repository.splitter(), false);
        let encoded = metadata.encode()?;
        let mut cuts = Vec::new();
        let metadata = if encoded.len() <= repository.splitter().parameters().inline_max as usize {
            Payload::from(encoded)
        } else {
            let mut cutter = cutter();
            cutter.room(encoded.len()).copy_from_slice(&encoded);
            cutter.filled(encoded.len(), &mut cuts)?;
            cutter.finish(&mut cuts)?
        };
        let buffer = BUFFER.max(2 * repository.chunker_parameters().max as usize);
        Ok(Self { stream: CutStream::new(content, name, cutter(), buffer), metadata, cuts, content: None })
    }

    /// Reads on; after the entry there is nothing more.
    pub(crate) async fn next(&mut self) -> Result<Taken> {
        loop {
            if !self.cuts.is_empty() {
                return Ok(Taken::Cuts(std::mem::take(&mut self.cuts)));
            }
            if let Some(content) = self.content.take() {
                let metadata = std::mem::take(&mut self.metadata);
                return Ok(Taken::Entry(Entry::new(EntryKind::File, content, metadata)));
            }
            if let Step::End(payload) = self.stream.next(&mut self.cuts).await? {
                self.content = Some(payload);
            }
        }
    }
}
