//! System calls on one path that never follow a symlink there.
//!
//! Owner, mode, times and extended attributes of whatever stands at a place:
//! an open file, or a name in an open folder. For the latter Linux offers no
//! call on extended attributes, nor (before 6.6) one that sets a mode without
//! following; both are reached through `/proc/self/fd`. Where that isn't
//! mounted, attributes are left alone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};

use super::metadata::FileTime;
use super::stat::Stat;

/// Something on a file system.
#[derive(Clone, Debug)]
pub(crate) enum Place<'a> {
    /// An open file or folder.
    Open(BorrowedFd<'a>),
    /// A name in an open folder.
    Named { folder: BorrowedFd<'a>, name: &'a [u8] },
}

impl<'a> Place<'a> {
    pub(crate) fn open(file: &'a impl AsFd) -> Self {
        Place::Open(file.as_fd())
    }

    pub(crate) fn named(folder: &'a impl AsFd, name: &'a [u8]) -> Self {
        Place::Named { folder: folder.as_fd(), name }
    }

    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Ok(match self {
            Place::Open(file) => rustix::fs::fstat(file)?.into(),
            Place::Named { folder, name } => rustix::fs::statat(folder, *name, AtFlags::SYMLINK_NOFOLLOW)?.into(),
        })
    }

    /// Sets owner and group; neither number is the reserved one.
    pub(crate) fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw_unchecked(uid)), Some(Gid::from_raw_unchecked(gid)));
        let outcome = match self {
            Place::Open(file) => rustix::fs::fchown(file, uid, gid),
            Place::Named { folder, name } => rustix::fs::chownat(folder, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        };
        Ok(outcome?)
    }

    /// Sets the mode of anything but a symlink.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
        match self {
            Place::Open(file) => Ok(rustix::fs::fchmod(file, mode)?),
            Place::Named { folder, name } => set_named_mode(folder, name, mode),
        }
    }

    /// Sets the time of last modification, and leaves that of the last access alone.
    pub(crate) fn set_modified(&self, time: FileTime) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() },
        };
        let outcome = match self {
            Place::Open(file) => rustix::fs::futimens(file, &times),
            Place::Named { folder, name } => rustix::fs::utimensat(folder, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        };
        Ok(outcome?)
    }
}

#[cfg(target_os = "linux")]
fn set_named_mode(folder: &BorrowedFd<'_>, name: &[u8], mode: Mode) -> io::Result<()> {
    use crate::tree::EntryKind;
    use rustix::fs::{CWD, OFlags};
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    if Stat::from(rustix::fs::fstat(&handle)?).kind == EntryKind::Symlink {
        return Err(rustix::io::Errno::LOOP.into());
    }
    Ok(rustix::fs::chmodat(CWD, via_proc(&handle, b""), mode, AtFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn set_named_mode(folder: &BorrowedFd<'_>, name: &[u8], mode: Mode) -> io::Result<()> {
    Ok(rustix::fs::chmodat(folder, name, mode, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The path that leads to an open file, or to a name in an open folder.
#[cfg(target_os = "linux")]
fn via_proc(handle: &impl AsFd, name: &[u8]) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    let mut path = std::path::PathBuf::from(format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd()));
    if !name.is_empty() {
        path.push(std::ffi::OsStr::from_bytes(name));
    }
    path
}

/// Extended attributes, raw.
#[cfg(target_os = "linux")]
impl Place<'_> {
    /// Whether attributes of what stands here can be reached at all.
    pub(crate) fn has_attributes(&self) -> bool {
        use std::sync::LazyLock;
        static MOUNTED: LazyLock<bool> =
            LazyLock::new(|| rustix::fs::statat(rustix::fs::CWD, c"/proc/self/fd", AtFlags::empty()).is_ok());
        matches!(self, Place::Open(_)) || *MOUNTED
    }

    pub(crate) fn attribute_names(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Place::Open(file) => rustix::fs::flistxattr(file, buffer),
            Place::Named { folder, name } => rustix::fs::llistxattr(via_proc(folder, name), buffer),
        }
    }

    pub(crate) fn attribute(&self, attribute: &[u8], buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Place::Open(file) => rustix::fs::fgetxattr(file, attribute, buffer),
            Place::Named { folder, name } => rustix::fs::lgetxattr(via_proc(folder, name), attribute, buffer),
        }
    }

    pub(crate) fn set_attribute(&self, attribute: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        let flags = rustix::fs::XattrFlags::empty();
        match self {
            Place::Open(file) => rustix::fs::fsetxattr(file, attribute, value, flags),
            Place::Named { folder, name } => rustix::fs::lsetxattr(via_proc(folder, name), attribute, value, flags),
        }
    }

    pub(crate) fn remove_attribute(&self, attribute: &[u8]) -> rustix::io::Result<()> {
        match self {
            Place::Open(file) => rustix::fs::fremovexattr(file, attribute),
            Place::Named { folder, name } => rustix::fs::lremovexattr(via_proc(folder, name), attribute),
        }
    }
}

/// Extended attributes on systems where they aren't supported yet.
#[cfg(not(target_os = "linux"))]
impl Place<'_> {
    pub(crate) fn has_attributes(&self) -> bool {
        false
    }

    pub(crate) fn attribute_names(&self, _: &mut [u8]) -> rustix::io::Result<usize> {
        Ok(0)
    }

    pub(crate) fn attribute(&self, _: &[u8], _: &mut [u8]) -> rustix::io::Result<usize> {
        Err(rustix::io::Errno::NOTSUP)
    }

    pub(crate) fn set_attribute(&self, _: &[u8], _: &[u8]) -> rustix::io::Result<()> {
        Err(rustix::io::Errno::NOTSUP)
    }

    pub(crate) fn remove_attribute(&self, _: &[u8]) -> rustix::io::Result<()> {
        Err(rustix::io::Errno::NOTSUP)
    }
}
