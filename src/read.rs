//! Looking into snapshots: entries, metadata, files, differences.

use std::sync::Arc;

use futures::Stream;

use crate::content::{FileReader, read_whole};
use crate::error::{Error, Result};
use crate::files::Metadata;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::tree::{self, Change, Entry, EntryKind, Key, Span};

/// Leaves read ahead where all entries are wanted.
const READ_AHEAD: usize = 8;

/// The longest metadata that is read.
pub(crate) const METADATA_MAX: u64 = 32 << 20;

/// The longest target that a symlink may have.
pub(crate) const LINK_MAX: u64 = 64 << 10;

impl Repository {
    /// The entry at `path`, if the snapshot has one: a logarithmic number of small reads.
    pub async fn entry(&self, snapshot: &Snapshot, path: &Key) -> Result<Option<Entry>> {
        tree::get(self.reader_of(snapshot), &snapshot.root, path).await
    }

    /// The entries of a snapshot in the order of their paths, or those at and below `prefix`.
    ///
    /// ```
    /// # use backstop::*; async fn f(repository: &Repository, snapshot: &Snapshot) -> Result<()> {
    /// use futures::TryStreamExt;
    ///
    /// let mut entries = std::pin::pin!(repository.entries(snapshot, Some(&Key::from_path("home/ana")?)));
    /// while let Some((path, entry)) = entries.try_next().await? {
    ///     println!("{:>10} {path}", entry.size);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn entries(
        &self,
        snapshot: &Snapshot,
        prefix: Option<&Key>,
    ) -> impl Stream<Item = Result<(Key, Entry)>> + Send + use<> {
        tree::range(Arc::clone(self.reader_of(snapshot)), &snapshot.root, Span::of(prefix), READ_AHEAD)
    }

    /// What lies directly in `folder`, or at the top; a name that is only on the way to others has no entry.
    pub fn list(
        &self,
        snapshot: &Snapshot,
        folder: Option<&Key>,
    ) -> impl Stream<Item = Result<(Key, Option<Entry>)>> + Send + use<> {
        tree::list(Arc::clone(self.reader_of(snapshot)), &snapshot.root, folder)
    }

    /// The metadata of an entry.
    pub async fn metadata(&self, entry: &Entry) -> Result<Metadata> {
        let bytes = read_whole(self.reader(), &entry.metadata, METADATA_MAX, "an entry's metadata").await?;
        if bytes.is_empty() { Ok(Metadata::default()) } else { Metadata::decode(&bytes, "an entry's metadata") }
    }

    /// The target of a symlink.
    pub async fn link_target(&self, entry: &Entry) -> Result<Vec<u8>> {
        match entry.kind {
            EntryKind::Symlink => Ok(read_whole(self.reader(), &entry.content, LINK_MAX, "a symlink").await?.into()),
            _ => Err(Error::invalid("an entry", "it is not a symlink")),
        }
    }

    /// Opens a file of a snapshot for reading and seeking.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] if there is something else than a file.
    pub async fn read_file(&self, snapshot: &Snapshot, path: &Key) -> Result<FileReader> {
        match self.entry(snapshot, path).await? {
            Some(entry) if entry.kind == EntryKind::File => {
                Ok(FileReader::new(Arc::clone(self.reader()), entry.content))
            }
            Some(entry) => {
                entry.require_known(path)?;
                Err(Error::invalid(format!("{path} in {snapshot}"), "it is not a file"))
            }
            None => Err(Error::not_found(format!("{path} in {snapshot}"))),
        }
    }

    /// The differences between two snapshots, in the order of paths, or those at and below `prefix`.
    ///
    /// Costs what differs: equal subtrees are passed over without being read.
    pub fn diff(
        &self,
        old: &Snapshot,
        new: &Snapshot,
        prefix: Option<&Key>,
    ) -> impl Stream<Item = Result<Change>> + Send + use<> {
        self.reader_of(old);
        tree::diff(Arc::clone(self.reader_of(new)), &old.root, &new.root, Span::of(prefix))
    }
}
