//! Backing up what a stream yields, as one file.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::backup::assemble::Assembly;
use crate::backup::prepare::{Cutter, Item};
use crate::backup::{BackupOptions, BackupReport, Session, content};
use crate::cpu;
use crate::error::{Error, Result};
use crate::progress::{Phase, Progress};
use crate::repository::Repository;
use crate::snapshot::{Content, SnapshotStats};
use crate::tree::{Entry, EntryKind, Key, Payload};

/// Bytes taken from the stream before they are cut.
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
        session.commit(content, &progress).await
    }

    async fn store_stream(
        &self,
        name: &Key,
        mut reader: impl AsyncRead + Send + Unpin,
        options: &BackupOptions,
        session: &mut Session,
        progress: &Arc<dyn Progress>,
    ) -> Result<Content> {
        let mut assembly = Assembly::new(self, None);
        let mut cutter = Cutter::new(self.chunker(), self.keyring(), self.splitter(), true);
        let mut length = 0u64;
        let payload = loop {
            let read = reader.read(cutter.room(BUFFER)).await;
            let read = read.map_err(|error| Error::file("read the stream", name.to_string(), error))?;
            length += read as u64;
            progress.advance(0, read as u64);
            let (rest, items) = cpu::start(move || take(cutter, read)).await?;
            assembly.take(items, &mut session.writer).await?;
            match rest {
                Rest::More(more) => cutter = more,
                Rest::Payload(payload) => break payload,
            }
        };
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

/// What is left after a read.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Rest {
    More(Cutter),
    Payload(Payload),
}

/// Takes in what was read, or ends where nothing was.
fn take(mut cutter: Cutter, read: usize) -> Result<(Rest, Vec<Item>)> {
    let mut items = Vec::new();
    let rest = if read == 0 {
        Rest::Payload(cutter.finish(&mut items)?)
    } else {
        cutter.filled(read, &mut items)?;
        Rest::More(cutter)
    };
    Ok((rest, items))
}
