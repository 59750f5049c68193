//! A path that a walk came upon, and how to read what it holds.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::attributes;
use super::folder::Folder;
use super::metadata::Metadata;
use super::owners::Owners;
use super::place::Place;
use super::roots::Base;
use super::source::FileSource;
use super::stat::Stat;
use crate::error::{Error, Result};
use crate::tree::{EntryKind, Key};

/// A path that exists, with its state when the walk passed it.
///
/// Cheap to hand to another thread: it keeps no file open.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) key: Key,
    pub(crate) stat: Stat,
    pub(super) folder: Arc<Folder>,
    pub(super) base: Base,
    /// Whether a symlink here stands for the folder that it leads to.
    pub(super) follow: bool,
}

impl Found {
    /// The path, for people.
    pub(crate) fn path(&self) -> PathBuf {
        path_of(self.base.prefix(), &self.key)
    }

    pub(crate) fn kind(&self) -> EntryKind {
        self.stat.kind
    }

    /// The length of a regular file; 0 of everything else, a symlink's target among it.
    pub(crate) fn size(&self) -> u64 {
        if self.stat.kind == EntryKind::File { self.stat.size } else { 0 }
    }

    /// Opens a regular file to read it.
    pub(crate) fn open(&self) -> Result<FileSource> {
        let path = self.path();
        let folder = self.folder.handle().map_err(|error| Error::file("open", &path, error))?;
        FileSource::open(&folder, self.key.file_name(), path)
    }

    /// Reads the target of a symlink.
    pub(crate) fn read_link(&self) -> Result<Vec<u8>> {
        let fail = |error: std::io::Error| Error::file("read the symlink", self.path(), error);
        let folder = self.folder.handle().map_err(fail)?;
        let target = rustix::fs::readlinkat(folder, self.key.file_name(), Vec::new());
        Ok(target.map_err(|error| fail(error.into()))?.into_bytes())
    }

    /// All metadata, with a warning for each part that can't be read and is left out.
    ///
    /// Of a regular file that was read, [`FileSource::metadata`] is the better one: it tells of the file that was read.
    pub(crate) fn metadata(&self, owners: &Owners) -> (Metadata, Vec<Error>) {
        let mut posix = self.stat.posix(owners);
        let mut problems = Vec::new();
        let (folder, name): (_, &[u8]) =
            if self.follow { (self.as_folder().handle(), b".") } else { (self.folder.handle(), self.key.file_name()) };
        match folder {
            Ok(folder) => posix.extended = attributes::read(&Place::named(&folder, name), &mut problems),
            Err(error) => problems.push(error),
        }
        let warn = |error| Error::file("read the extended attributes of", self.path(), error);
        (Metadata::of_file(posix), problems.into_iter().map(warn).collect())
    }

    /// The folder that this is, to look into.
    pub(super) fn as_folder(&self) -> Arc<Folder> {
        Folder::child(&self.folder, self.key.file_name(), &self.stat, self.follow)
    }
}

/// The path of a key below `base`.
pub(super) fn path_of(base: impl AsRef<Path>, key: &Key) -> PathBuf {
    let mut path = base.as_ref().to_owned();
    path.extend(key.components().map(OsStr::from_bytes));
    path
}

impl Metadata {
    /// Whether the metadata stored with a kind and size says that `found` is the same file with the same content.
    ///
    /// Kind, size, times of modification and change, and the file's number must all agree. The time of change
    /// can't be set, so nothing short of setting the clock back hides a change that came later.
    pub(crate) fn is_unchanged(&self, kind: EntryKind, size: u64, found: &Found) -> bool {
        let Some(posix) = &self.posix else { return false };
        (kind, posix.inode) == (found.kind(), found.stat.inode)
            && (kind != EntryKind::File || size == found.size())
            && (posix.modified, posix.changed) == (found.stat.modified, found.stat.changed)
    }
}
