//! Backing up what a stream yields, as one file.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::backup::assemble::Assembly;
use crate::backup::prepare::Item;
use crate::backup::{BackupOptions, BackupReport, Session, content};
use crate::cutter::{CutStream, Cutter, Step};
use crate::error::Result;
use crate::progress::{Phase, Progress};
use crate::repository::Repository;
use crate::snapshot::{Content, SnapshotStats};
use crate::tree::{Entry, EntryKind, Key, Payload};

/// The most that is taken from the stream before it is cut, in bytes.
const BUFFER: usize = 4 << 20;

impl Repository {
    /// Backs up what `reader` yields as the file `name`, alone in the next snapshot of the series.
    ///
    /// An error of the stream fails the backup: half a stream is not a backup of it.
    pub async fn backup_stream(
        &self,
        name: &Key,
        reader: impl AsyncRead + Send + Unpin,
        options: &BackupOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<BackupReport> {
        let mut session = Session::begin(self, options, &progress).await?;
        progress.phase(Phase::BackingUp);
        let content = match self.store_stream(name, reader, options, &mut session, &progress).await {
            Ok(content) => content,
            Err(error) => return Err(session.abandon(error).await),
        };
        session.commit(self, content, options, &progress).await
    }

    async fn store_stream(
        &self,
        name: &Key,
        reader: impl AsyncRead + Send + Unpin,
        options: &BackupOptions,
        session: &mut Session,
        progress: &Arc<dyn Progress>,
    ) -> Result<Content> {
        let mut assembly = Assembly::new(self, None);
        let cutter = Cutter::new(self.chunker(), self.keyring(), self.splitter(), true);
        let mut stream = CutStream::new(reader, name, cutter, BUFFER);
        let payload = loop {
            let mut cuts = Vec::new();
            let step = stream.next(&mut cuts).await?;
            assembly.take(cuts.into_iter().map(Item::Cut).collect(), &mut session.writer).await?;
            match step {
                Step::Read(length) => progress.advance(0, length),
                Step::End(payload) => break payload,
            }
        };
        let length = stream.length();
        let entry = Entry::new(EntryKind::File, payload, Payload::default());
        assembly.take(vec![Item::Entry(name.clone(), Box::new(entry))], &mut session.writer).await?;
        let (root, failures) = assembly.finish(&mut session.writer).await?;
        session.writer.flush().await?;
        progress.advance(1, 0);
        let written = session.writer.stats();
        let stats = SnapshotStats {
            files: 1,
            bytes: length,
            added: 1,
            bytes_read: length,
            new_blobs: written.new_blobs,
            new_bytes: written.new_bytes,
            stored_bytes: written.stored_bytes,
            ..SnapshotStats::default()
        };
        let stored = session.writer.stored(&root.id);
        Ok(content(options, vec![name.to_string()], root, stored, None, stats, failures))
    }
}
