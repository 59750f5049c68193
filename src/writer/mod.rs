//! The writer: changes to a series' latest snapshot, made call by call and committed together.
//!
//! Owns the order of concurrent calls and what becomes of one that is dropped
//! or fails. The changes themselves are a [`crate::draft`], the commit is a
//! [`crate::registration`]'s.
//!
//! Invariant: what was put is in the snapshot that the commit makes, or there
//! is no commit. Storing isn't interrupted when its caller is dropped, and a
//! writer on which storing has failed refuses to commit.

mod options;
mod state;

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::io::AsyncRead;
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use options::{CommitOptions, Start, WriterOptions};

use crate::content::FileReader;
use crate::cpu;
use crate::draft::{Intake, Taken, inline};
use crate::error::{Error, Result};
use crate::files::Metadata;
use crate::registration::Registration;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::tree::{Entry, EntryKind, Key, Payload};
use crate::writer::state::State;

/// Changes to a series, to be committed together as its next snapshot.
///
/// All calls but the last take `&self` and may run at once. Of calls on the same paths those that begin later win.
/// Memory is bounded, however much is put. What a call has put can be read through the writer at once, and by others
/// once [`Writer::commit`] has returned. Dropping a writer leaves nothing visible.
///
/// Contents of up to a KiB stand in the tree beside their metadata. Larger ones are cut to chunks, and chunks that the
/// repository has already aren't stored again; to know them the first such content loads the index.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use backstop::*;
/// # let repository = Repository::create("memory:", &Secret::key([7; 32]), CreateOptions::default()).await?;
/// let writer = repository.writer("accounts", WriterOptions::default()).await?;
/// let card = Metadata::default().with_content_type("text/vcard");
/// writer.put(&Key::from_path("ana/contacts/7.vcf")?, "BEGIN:VCARD", &card).await?;
/// writer.remove_prefix(&Key::from_path("ben")?).await?;
/// let snapshot = writer.commit(CommitOptions::default().with_position("lsn 0/16B3748")).await?;
/// # assert_eq!((snapshot.entries, snapshot.position.as_deref()), (1, Some(&b"lsn 0/16B3748"[..])));
/// # Ok(()) }
/// ```
///
/// A store that fails for good fails the call, and after it all others: take a new writer and begin again. A dropped
/// call may take effect all the same.
pub struct Writer {
    repository: Repository,
    series: String,
    parent: Option<Snapshot>,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parent = self.parent.as_ref().map(|parent| parent.number);
        f.debug_struct("Writer").field("series", &self.series).field("parent", &parent).finish_non_exhaustive()
    }
}

impl Repository {
    /// Begins changes to the latest snapshot of a series, or to what the options name.
    ///
    /// Any number of writers may be at work, on one series too: a commit takes over what others committed meanwhile if
    /// the changes don't overlap, and says so if they do, see [`Writer::commit`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a start that isn't a snapshot of the series; [`Error::UnsafeStore`].
    pub async fn writer(&self, series: &str, options: WriterOptions) -> Result<Writer> {
        options.validate()?;
        let registration = Registration::begin(self.parts().clone(), series, &options.host, self.mode()).await?;
        let (parent, replaces) = match begin_from(series, &options.start, registration.parent()) {
            Ok(from) => from,
            Err(error) => {
                registration.end().await;
                return Err(error);
            }
        };
        let (host, write_options) = (&options.host, options.write_options());
        let state = State::new(self, series, host, registration, write_options, parent.clone(), replaces);
        let state = Arc::new(Mutex::new(state));
        Ok(Writer { repository: self.clone(), series: series.to_owned(), parent, state })
    }
}

/// What the changes are made to, and whether they replace what others commit.
fn begin_from(series: &str, start: &Start, latest: Option<Snapshot>) -> Result<(Option<Snapshot>, bool)> {
    match start {
        Start::Latest => Ok((latest, false)),
        Start::Nothing => Ok((None, true)),
        Start::Snapshot(snapshot) => {
            let known = latest.is_some_and(|latest| snapshot.number <= latest.number);
            if snapshot.series != series || !known {
                return Err(Error::invalid(snapshot, format!("it is not a snapshot of series {series:?}")));
            }
            Ok((Some(Snapshot::clone(snapshot)), false))
        }
    }
}

impl Writer {
    /// The snapshot that the changes are made to; none if there was none, or the writer began with nothing.
    pub fn parent(&self) -> Option<&Snapshot> {
        self.parent.as_ref()
    }

    /// Puts `content` at `path`, in place of what is there; what lies below it stays.
    pub async fn put(&self, path: &Key, content: impl Into<Bytes>, metadata: &Metadata) -> Result<()> {
        let content = content.into();
        match inline(&self.repository, &content, metadata)? {
            Some(entry) => self.put_entry(path, entry).await,
            None => self.put_reader(path, std::io::Cursor::new(content), metadata).await.map(drop),
        }
    }

    /// Puts what `content` yields at `path`, like [`Writer::put`]; its length in bytes.
    ///
    /// Nothing is put before the end: an error of the stream leaves what was there.
    ///
    /// ```
    /// # use backstop::*; async fn f(writer: &Writer, upload: impl tokio::io::AsyncRead + Send + Unpin) -> Result<()> {
    /// let photo = Metadata::default().with_content_type("image/heif");
    /// let length = writer.put_reader(&Key::from_path("ana/photos/0042.heic")?, upload, &photo).await?;
    /// # Ok(()) }
    /// ```
    pub async fn put_reader(
        &self,
        path: &Key,
        content: impl AsyncRead + Send + Unpin,
        metadata: &Metadata,
    ) -> Result<u64> {
        let mut intake = Intake::new(&self.repository, path, content, metadata)?;
        let entry = loop {
            match intake.next().await? {
                Taken::Cuts(cuts) => {
                    let mut state = self.lock().await;
                    cpu::to_the_end(async move { state.store(cuts).await }).await?;
                }
                Taken::Entry(entry) => break entry,
            }
        };
        let length = entry.size;
        self.put_entry(path, entry).await?;
        Ok(length)
    }

    /// Puts an entry as it is.
    pub(crate) async fn put_entry(&self, path: &Key, entry: Entry) -> Result<()> {
        let mut state = self.lock().await;
        state.check()?;
        state.draft.put(path.clone(), entry)?;
        make_room(state).await
    }

    /// Removes what is at `path`, if something is; what lies below it stays.
    pub async fn remove(&self, path: &Key) -> Result<()> {
        let mut state = self.lock().await;
        state.check()?;
        state.draft.remove(path.clone());
        make_room(state).await
    }

    /// Removes what is at `path` and everything below it, at a cost that doesn't depend on how much that is.
    pub async fn remove_prefix(&self, path: &Key) -> Result<()> {
        let mut state = self.lock().await;
        state.check()?;
        state.draft.remove_prefix(path.clone());
        make_room(state).await
    }

    /// Moves what is at `from` and everything below it to `to`; how many entries that is.
    ///
    /// Contents aren't touched; the cost is that of the entries.
    ///
    /// # Errors
    /// [`Error::Conflict`] if something is at or below `to`, and [`Error::Invalid`] if one of the two is or lies below
    /// the other, or a path would become too long. Nothing is moved then.
    pub async fn rename_prefix(&self, from: &Key, to: &Key) -> Result<u64> {
        let (mut state, from, to) = (self.lock().await, from.clone(), to.clone());
        cpu::to_the_end(async move { state.rename_prefix(&from, &to).await }).await
    }

    /// The entry at `path` with all changes so far, if there is one.
    pub async fn entry(&self, path: &Key) -> Result<Option<Entry>> {
        let lookup = self.lock().await.draft.entry(path);
        lookup.await
    }

    /// The entries with all changes so far in the order of their paths, or those at and below `prefix`.
    ///
    /// Changes made while the stream is read don't show in it.
    pub fn entries(&self, prefix: Option<&Key>) -> impl Stream<Item = Result<(Key, Entry)>> + Send + use<> {
        let (state, prefix) = (Arc::clone(&self.state), prefix.cloned());
        let opened = async move { Ok::<_, Error>(state.lock().await.draft.entries(prefix.as_ref()).boxed()) };
        stream::once(opened).try_flatten()
    }

    /// The metadata of an entry of this writer.
    pub async fn metadata(&self, entry: &Entry) -> Result<Metadata> {
        self.settle(&entry.metadata).await?;
        self.repository.metadata(entry).await
    }

    /// Opens a file with all changes so far for reading and seeking.
    ///
    /// A file that was just put is uploaded for it, if it doesn't stand in the tree.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] if there is something else than a file.
    pub async fn read_file(&self, path: &Key) -> Result<FileReader> {
        let what = || format!("{path} in a writer of series {:?}", self.series);
        let entry = self.entry(path).await?.ok_or_else(|| Error::not_found(what()))?;
        if entry.kind != EntryKind::File {
            return Err(Error::invalid(what(), "it is not a file"));
        }
        self.settle(&entry.content).await?;
        Ok(FileReader::new(Arc::clone(self.repository.reader()), entry.content))
    }

    /// Makes sure that a payload can be read.
    async fn settle(&self, payload: &Payload) -> Result<()> {
        if matches!(payload, Payload::Inline(_)) {
            return Ok(());
        }
        let mut state = self.lock().await;
        cpu::to_the_end(async move { state.settle().await }).await
    }

    /// Commits the changes as the next snapshot of the series; there need not be any.
    ///
    /// If others have committed since the writer began, the changes are made to the latest snapshot, as long as they
    /// don't overlap with what the others changed. Two changes overlap if they are about the same path and differ, or
    /// if one is about what [`Writer::remove_prefix`] or [`Writer::rename_prefix`] took away here. A writer that
    /// began with [`Start::Nothing`] replaces all that the others committed.
    ///
    /// # Errors
    /// [`Error::Overlap`] names the snapshot and the first of the paths: take a new writer, which starts from it, and
    /// make the changes again. After any other error the snapshot may or may not have been made; look for it with
    /// [`Repository::find`], by its position or its tags.
    pub async fn commit(self, options: CommitOptions) -> Result<Snapshot> {
        let mut state = self.lock().await;
        let outcome = state.commit(options).await;
        state.end().await;
        outcome
    }

    /// Gives the changes up.
    ///
    /// Dropping the writer does the same, but leaves its registration behind, which would hold up a later collection.
    pub async fn abandon(self) {
        self.lock().await.end().await;
    }

    async fn lock(&self) -> OwnedMutexGuard<State> {
        Arc::clone(&self.state).lock_owned().await
    }
}

/// Applies what is pending where it has become much.
async fn make_room(mut state: OwnedMutexGuard<State>) -> Result<()> {
    if !state.is_full() {
        return Ok(());
    }
    cpu::to_the_end(async move { state.apply().await.map(drop) }).await
}
