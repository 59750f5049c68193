//! The folder that a restore writes into, and can't leave.
//!
//! Every operation takes a key and reaches it folder by folder from the root's
//! handle, following no symlink: neither one that was there nor one that the
//! snapshot itself planted. Where a folder is needed and something else stands,
//! operations fail; it is for the caller to [`Destination::remove`] it first.
//! What is created is private to its owner until it gets its metadata.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::apply::{Exposure, Restorer, Scope};
use super::folder::{REACH, list};
use super::found::path_of;
use super::metadata::Metadata;
use super::parents::{Parents, plain};
use super::place::Place;
use super::remove::remove;
use super::restored::RestoredFile;
use super::stat::Stat;
use crate::error::{Error, Result};
use crate::tree::{EntryKind, Key};

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

/// A folder to restore into. All methods can be called from several threads.
#[derive(Debug)]
pub(crate) struct Destination {
    path: PathBuf,
    parents: Parents,
    restorer: Arc<Restorer>,
}

impl Destination {
    /// Opens the folder at `path`, a symlink to one included.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let root =
            rustix::fs::openat(CWD, path, REACH, Mode::empty()).map_err(|error| Error::file("open", path, error))?;
        let restorer = Arc::new(Restorer::current(Scope::default()));
        Ok(Self { path: path.to_owned(), parents: Parents::new(root), restorer })
    }

    /// Restores as much of the metadata as `scope` says.
    pub(crate) fn with_scope(self, scope: Scope) -> Self {
        Self { restorer: Arc::new(Restorer::current(scope)), ..self }
    }

    /// Opens the folder at `path`, and creates it and those above it where they are missing.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|error| Error::file("create", path, error))?;
        Self::open(path)
    }

    /// The full path of `key`, for people.
    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        path_of(&self.path, key)
    }

    /// The folder that is restored into, for people.
    pub(crate) fn root(&self) -> &Path {
        &self.path
    }

    /// The state of what stands at `key`, if anything does.
    pub(crate) fn inspect(&self, key: &Key) -> Result<Option<Stat>> {
        match self.at(key).and_then(|(folder, name)| Place::named(&folder, name).stat()) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", key, error)),
        }
    }

    /// The outermost key above `key` where something other than a folder stands, if there is one.
    pub(crate) fn blocked_by(&self, key: &Key) -> Result<Option<Key>> {
        let above: Vec<Key> = std::iter::successors(key.parent(), Key::parent).collect();
        for key in above.into_iter().rev() {
            match self.inspect(&key)? {
                None => return Ok(None),
                Some(stat) if stat.kind != EntryKind::Folder => return Ok(Some(key)),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// The names in the folder at `key`, or in the root, sorted by their bytes.
    pub(crate) fn list(&self, key: Option<&Key>) -> Result<Vec<Vec<u8>>> {
        let names = self.parents.folder(key).and_then(list);
        let names = names.map_err(|error| match key {
            Some(key) => self.failed("list", key, error),
            None => Error::file("list", &self.path, error),
        })?;
        Ok(names.into_iter().map(CString::into_bytes).collect())
    }

    /// The target of the symlink at `key`.
    pub(crate) fn read_link(&self, key: &Key) -> Result<Vec<u8>> {
        let target = self.at(key).and_then(|(folder, name)| Ok(rustix::fs::readlinkat(folder, name, Vec::new())?));
        target.map(CString::into_bytes).map_err(|error| self.failed("read the symlink", key, error))
    }

    /// Removes what stands at `key`, with everything below it; tells how many things were removed.
    pub(crate) fn remove(&self, key: &Key) -> Result<u64> {
        self.parents.forget(key);
        let (folder, name) = match self.at(key) {
            Ok(at) => at,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(self.failed("remove", key, error)),
        };
        let above = key.parent().map_or_else(|| self.path.clone(), |parent| self.path(&parent));
        let removed = remove(folder, name, &above, &self.restorer);
        self.parents.forget(key); // whoever looked meanwhile may have opened what is gone now
        removed
    }

    /// Whether somebody else may hold what stands at `key` open to change it, whatever metadata it gets now.
    pub(crate) fn is_exposed(&self, key: &Key, stat: &Stat, metadata: &Metadata) -> Result<bool> {
        let (folder, name) = self.at(key).map_err(|error| self.failed("read", key, error))?;
        let exposure = self.restorer.exposure(&Place::named(&folder, name), stat, metadata.posix.as_ref());
        Ok(exposure == Exposure::Write)
    }

    /// Makes sure that there is a folder at `key` whose content can be changed; tells whether it was created.
    ///
    /// A folder that was there may have to be made writable for that, and is taken from others who could put
    /// something else into it, so give it its metadata afterwards.
    pub(crate) fn create_folder(&self, key: &Key, metadata: Option<&Metadata>) -> Result<bool> {
        let fail = |error| self.failed("create", key, error);
        let (folder, name) = self.at(key).map_err(fail)?;
        match rustix::fs::mkdirat(&folder, name, mode(PRIVATE_FOLDER)) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(fail(error.into())),
        }
        let place = Place::named(&folder, name);
        let stat = place.stat().map_err(fail)?;
        if stat.kind != EntryKind::Folder {
            return Err(fail(Errno::EXIST.into()));
        }
        let posix = metadata.and_then(|metadata| metadata.posix.as_ref());
        self.restorer.take_over(&place, &stat, posix).map_err(fail)?;
        Ok(false)
    }

    /// Likewise for the root, where it stands for a folder of the snapshot.
    pub(crate) fn take_over_root(&self, metadata: &Metadata) -> Result<()> {
        let taken = self.parents.folder(None).and_then(|root| {
            let place = Place::named(&root, b".");
            self.restorer.take_over(&place, &place.stat()?, metadata.posix.as_ref())
        });
        taken.map_err(|error| Error::file("take over", &self.path, error))
    }

    /// Creates a symlink at `key`, where nothing must be.
    pub(crate) fn create_symlink(&self, key: &Key, target: &[u8]) -> Result<()> {
        let create = self.at(key).and_then(|(folder, name)| Ok(rustix::fs::symlinkat(target, folder, name)?));
        create.map_err(|error| self.failed("create the symlink", key, error))
    }

    /// Creates a fifo, socket or device at `key`, where nothing must be.
    pub(crate) fn create_special(&self, key: &Key, kind: EntryKind) -> Result<()> {
        let create = self.at(key).and_then(|(folder, name)| Ok(make_special(&folder, name, kind)?));
        create.map_err(|error| self.failed("create the special file", key, error))
    }

    /// Gives what stands at `existing` another name, where nothing must be.
    pub(crate) fn hard_link(&self, existing: &Key, new: &Key) -> Result<()> {
        let fail = |error| self.failed("create the hard link", new, error);
        let (from, old_name) = self.at(existing).map_err(fail)?;
        let (to, new_name) = self.at(new).map_err(fail)?;
        rustix::fs::linkat(from, old_name, to, new_name, AtFlags::empty()).map_err(|error| fail(error.into()))
    }

    /// Creates an empty file at `key`, where nothing must be.
    pub(crate) fn create_file(&self, key: &Key) -> Result<RestoredFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.at(key).and_then(|(folder, name)| Ok(open(&folder, name, flags)?));
        Ok(self.restored(key, file.map_err(|error| self.failed("create", key, error))?, true))
    }

    /// Opens the regular file at `key` to compare it.
    pub(crate) fn open_file(&self, key: &Key) -> Result<RestoredFile> {
        let fail = |error| self.failed("open", key, error);
        let (folder, name) = self.at(key).map_err(fail)?;
        let file = open_existing(&folder, name, OFlags::RDONLY).map_err(fail)?;
        Ok(self.restored(key, file, false))
    }

    /// Opens the regular file at `key` to change it.
    ///
    /// A file that has other names, or that is being executed, is replaced by a new empty one, so that what is
    /// restored here doesn't change elsewhere; likewise one that somebody else may hold open who may not read or
    /// change what it will hold. Ask [`RestoredFile::is_new`].
    pub(crate) fn update_file(&self, key: &Key, metadata: &Metadata) -> Result<RestoredFile> {
        let fail = |error| self.failed("open", key, error);
        let (folder, name) = self.at(key).map_err(fail)?;
        match open_existing(&folder, name, OFlags::RDWR) {
            Ok(file) => {
                let place = Place::open(&file);
                let stat = place.stat().map_err(fail)?;
                let exposure = self.restorer.exposure(&place, &stat, metadata.posix.as_ref());
                if stat.names <= 1 && exposure == Exposure::None {
                    return Ok(self.restored(key, file, false));
                }
            }
            Err(error) if error.kind() != io::ErrorKind::ExecutableFileBusy => return Err(fail(error)),
            _ => {}
        }
        rustix::fs::unlinkat(&folder, name, AtFlags::empty()).map_err(|error| fail(error.into()))?;
        self.create_file(key)
    }

    /// Opens a file that was created or opened to be changed before, to go on with it.
    pub(crate) fn reopen_file(&self, key: &Key) -> Result<RestoredFile> {
        let opened = self.at(key).and_then(|(folder, name)| open_existing(&folder, name, OFlags::RDWR));
        Ok(self.restored(key, opened.map_err(|error| self.failed("open", key, error))?, false))
    }

    /// Gives what stands at `key` its metadata; each part that can't be given is a warning.
    ///
    /// For folders this comes after everything below them: restoring into a folder changes its times.
    pub(crate) fn set_metadata(&self, key: &Key, kind: EntryKind, metadata: &Metadata) -> Result<Vec<Error>> {
        let Some(posix) = &metadata.posix else { return Ok(Vec::new()) };
        let at = self.at(key).map_err(|error| self.failed("set the metadata of", key, error));
        let (folder, name) = at?;
        self.restorer.apply(&Place::named(&folder, name), kind, posix, &self.path(key))
    }

    /// Whether [`Self::set_metadata`] would change nothing.
    pub(crate) fn matches(&self, key: &Key, kind: EntryKind, metadata: &Metadata) -> Result<bool> {
        let fail = |error| self.failed("read", key, error);
        let (folder, name) = self.at(key).map_err(fail)?;
        let place = Place::named(&folder, name);
        match &metadata.posix {
            None => Ok(place.stat().map_err(fail)?.kind == kind),
            Some(posix) => self.restorer.matches(&place, kind, posix).map_err(fail),
        }
    }

    /// Gives the root itself metadata, where it stands for a folder of the snapshot.
    pub(crate) fn set_root_metadata(&self, metadata: &Metadata) -> Result<Vec<Error>> {
        let Some(posix) = &metadata.posix else { return Ok(Vec::new()) };
        let root = self.parents.folder(None).map_err(|error| Error::file("open", &self.path, error))?;
        self.restorer.apply(&Place::named(&root, b"."), EntryKind::Folder, posix, &self.path)
    }

    /// Brings everything that was restored to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        let root = self.parents.folder(None).and_then(|root| {
            Ok(rustix::fs::openat(root, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        });
        root.and_then(|root| sync_all(&root)).map_err(|error| Error::file("sync", &self.path, error))
    }

    /// The folder that `key` is in, and its name there.
    fn at<'k>(&self, key: &'k Key) -> io::Result<(Arc<OwnedFd>, &'k [u8])> {
        Ok((self.parents.folder(key.parent().as_ref())?, plain(key.file_name())?))
    }

    fn restored(&self, key: &Key, file: OwnedFd, is_new: bool) -> RestoredFile {
        RestoredFile { file, path: self.path(key), is_new, restorer: self.restorer.clone() }
    }

    fn failed(&self, operation: &'static str, key: &Key, error: io::Error) -> Error {
        Error::file(operation, self.path(key), error)
    }
}

fn open(folder: &OwnedFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    // Not blocking: a fifo or device that stands here must be refused, not waited for.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, mode(PRIVATE_FILE))
}

/// Opens a file that was there, and makes it readable and writable first if it is ours and isn't.
fn open_existing(folder: &OwnedFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    // Looked at before it is opened: opening a device alone can do something.
    let place = Place::named(folder, name);
    let stat = place.stat()?;
    if stat.kind != EntryKind::File {
        return Err(not_a_file());
    }
    let file = match open(folder, name, flags) {
        Err(Errno::ACCESS) if place.set_mode(stat.mode | PRIVATE_FILE).is_ok() => open(folder, name, flags)?,
        outcome => outcome?,
    };
    match Place::open(&file).stat()?.kind {
        EntryKind::File => Ok(file),
        _ => Err(not_a_file()),
    }
}

fn not_a_file() -> io::Error {
    io::Error::other("it is not a regular file")
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits as rustix::fs::RawMode)
}

#[cfg(target_os = "linux")]
fn make_special(folder: &OwnedFd, name: &[u8], kind: EntryKind) -> rustix::io::Result<()> {
    use rustix::fs::FileType;
    let (file_type, device) = match kind {
        EntryKind::Fifo => (FileType::Fifo, 0),
        EntryKind::Socket => (FileType::Socket, 0),
        EntryKind::CharDevice { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
        EntryKind::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        EntryKind::File | EntryKind::Folder | EntryKind::Symlink | EntryKind::Unknown { .. } => {
            return Err(Errno::INVAL);
        }
    };
    rustix::fs::mknodat(folder, name, file_type, mode(PRIVATE_FILE), device)
}

#[cfg(not(target_os = "linux"))]
fn make_special(_: &OwnedFd, _: &[u8], _: EntryKind) -> rustix::io::Result<()> {
    Err(Errno::NOTSUP)
}

#[cfg(target_os = "linux")]
fn sync_all(root: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(root)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_all(root: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(root)?)
}
