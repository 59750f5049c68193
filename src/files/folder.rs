//! Folders held open, so that no path is ever resolved twice.
//!
//! A [`Folder`] knows its parent and its name in it, and opens itself relative
//! to the parent's handle without following symlinks. So a path may be longer
//! than the system's limit, and somebody who swaps a folder for a symlink
//! meanwhile gains nothing. Handles are scarce: a shared [`Handles`] closes
//! the oldest beyond a bound, and a folder that is needed again is opened
//! again and must then be the same one.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::stat::Stat;

/// How many folders one walk or removal keeps open at most, beside those in use at the moment.
const OPEN_MAX: usize = 64;

/// Opens a folder only to reach what is in it, which needs no permission to list it.
#[cfg(target_os = "linux")]
pub(crate) const REACH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
pub(crate) const REACH: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The open folders of one walk, oldest first.
#[derive(Debug, Default)]
struct Handles(Mutex<VecDeque<Weak<Folder>>>);

/// A folder that can be opened whenever it is needed.
#[derive(Debug)]
pub(crate) struct Folder {
    parent: Option<Arc<Folder>>,
    name: Vec<u8>,
    /// Device and inode, once known; a folder that is opened again must still have them.
    identity: Option<(u64, u64)>,
    follow: bool,
    handle: Mutex<Option<Arc<OwnedFd>>>,
    handles: Arc<Handles>,
}

impl Folder {
    /// The folder from which others are reached; its handle stays open as long as it lives.
    pub(crate) fn base(handle: Arc<OwnedFd>) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            name: Vec::new(),
            identity: None,
            follow: false,
            handle: Mutex::new(Some(handle)),
            handles: Arc::default(),
        })
    }

    /// The working folder (`.`) or the root (`/`).
    pub(crate) fn base_at(path: &CStr) -> io::Result<Arc<Self>> {
        Ok(Self::base(Arc::new(rustix::fs::openat(CWD, path, REACH, Mode::empty())?)))
    }

    /// The folder with this name in `parent`, which `stat` told of; a symlink to one only if `follow`.
    pub(crate) fn child(parent: &Arc<Self>, name: &[u8], stat: &Stat, follow: bool) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(parent.clone()),
            name: name.to_owned(),
            identity: Some((stat.device, stat.inode)),
            follow,
            handle: Mutex::default(),
            handles: parent.handles.clone(),
        })
    }

    /// A handle to reach what is in the folder.
    pub(crate) fn handle(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        let mut closed = Vec::new();
        let mut folder = self;
        let mut handle = loop {
            if let Some(handle) = folder.current().clone() {
                break handle;
            }
            closed.push(folder);
            // Only a base has no parent, and a base is always open.
            folder = folder.parent.as_ref().ok_or(Errno::BADF)?;
        };
        for folder in closed.into_iter().rev() {
            handle = folder.open_in(&handle)?;
        }
        Ok(handle)
    }

    fn open_in(self: &Arc<Self>, parent: &OwnedFd) -> io::Result<Arc<OwnedFd>> {
        let follow = if self.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let handle = rustix::fs::openat(parent, self.name.as_slice(), REACH | follow, Mode::empty())?;
        let stat = Stat::from(rustix::fs::fstat(&handle)?);
        if self.identity.is_some_and(|identity| identity != (stat.device, stat.inode)) {
            return Err(io::Error::other("another folder has taken its place"));
        }
        let handle = Arc::new(handle);
        *self.current() = Some(handle.clone());
        self.handles.opened(self);
        Ok(handle)
    }

    /// The state of what has this name in the folder.
    pub(crate) fn stat(self: &Arc<Self>, name: &CStr, follow: bool) -> io::Result<Stat> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        Ok(rustix::fs::statat(self.handle()?, name, flags)?.into())
    }

    /// The names in the folder, sorted by their bytes.
    pub(crate) fn list(self: &Arc<Self>) -> io::Result<Vec<CString>> {
        list(self.handle()?)
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropping the last descendant of a long chain must not recurse through it.
impl Drop for Folder {
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(mut folder) = parent.and_then(Arc::into_inner) {
            parent = folder.parent.take();
        }
    }
}

impl Handles {
    /// Notes that a folder was opened and closes the oldest beyond the bound.
    fn opened(&self, folder: &Arc<Folder>) {
        let oldest = {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.push_back(Arc::downgrade(folder));
            if open.len() > OPEN_MAX { open.pop_front() } else { None }
        };
        if let Some(folder) = oldest.and_then(|folder| folder.upgrade()) {
            folder.current().take();
        }
    }
}

/// The names in an open folder, sorted by their bytes.
pub(crate) fn list(folder: impl AsFd) -> io::Result<Vec<CString>> {
    let listing = rustix::fs::openat(folder, c".", LIST, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(listing)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
