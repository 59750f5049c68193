//! Removes whatever stands at a name, with everything below it.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::apply::Restorer;
use super::folder::Folder;
use super::place::Place;
use crate::error::{Error, Result};
use crate::tree::EntryKind;

/// A folder that is being emptied.
struct Frame {
    parent: Arc<Folder>,
    name: CString,
    folder: Arc<Folder>,
    names: std::vec::IntoIter<CString>,
}

/// Removes `name` in `folder`, which has this `path`, and tells how many things that were.
///
/// A symlink is removed, not followed. Depth is bounded by nothing but the disk, hence no recursion.
pub(super) fn remove(folder: Arc<OwnedFd>, name: &[u8], path: &Path, restorer: &Restorer) -> Result<u64> {
    let mut frames: Vec<Frame> = Vec::new();
    let fail = |frames: &[Frame], name: Option<&CStr>, error: io::Error| {
        let names = frames.iter().map(|frame| frame.name.as_c_str()).chain(name);
        let path: PathBuf =
            std::iter::once(path.as_os_str()).chain(names.map(|n| OsStr::from_bytes(n.to_bytes()))).collect();
        Error::file("remove", path, error)
    };
    let first = CString::new(name).map_err(|error| fail(&[], None, error.into()))?;
    let (unlinked, frame) = unlink(&Folder::base(folder), &first, restorer).map_err(|e| fail(&[], Some(&first), e))?;
    let mut removed = u64::from(unlinked);
    frames.extend(frame);
    while let Some(frame) = frames.last_mut() {
        if let Some(name) = frame.names.next() {
            let outcome = unlink(&frame.folder, &name, restorer);
            let (unlinked, frame) = outcome.map_err(|error| fail(&frames, Some(&name), error))?;
            removed += u64::from(unlinked);
            frames.extend(frame);
        } else {
            let outcome = remove_empty(frame);
            removed += u64::from(outcome.map_err(|error| fail(&frames, None, error))?);
            frames.pop();
        }
    }
    Ok(removed)
}

/// Removes a name at once if it isn't a folder's, and otherwise lists the folder.
fn unlink(parent: &Arc<Folder>, name: &CStr, restorer: &Restorer) -> io::Result<(bool, Option<Frame>)> {
    let handle = parent.handle()?;
    let error = match rustix::fs::unlinkat(&handle, name, AtFlags::empty()) {
        Ok(()) => return Ok((true, None)),
        Err(Errno::NOENT) => return Ok((false, None)),
        Err(error) => error,
    };
    let stat = parent.stat(name, false)?;
    if stat.kind != EntryKind::Folder {
        return Err(error.into());
    }
    if !restorer.is_root() && stat.mode & 0o700 != 0o700 {
        // If this fails, listing the folder tells why.
        Place::named(&handle, name.to_bytes()).set_mode(stat.mode | 0o700).ok();
    }
    let folder = Folder::child(parent, name.to_bytes(), &stat, false);
    let names = folder.list()?.into_iter();
    Ok((false, Some(Frame { parent: parent.clone(), name: name.to_owned(), folder, names })))
}

fn remove_empty(frame: &Frame) -> io::Result<bool> {
    match rustix::fs::unlinkat(frame.parent.handle()?, &*frame.name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
