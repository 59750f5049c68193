//! Reads one regular file from start to end, holes told apart from data.
//!
//! What is read is what a file held when it was opened: no byte beyond its
//! length then, so that a file that grows as fast as it is read comes to an
//! end. [`FileSource::finish`] tells whether it held still.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::attributes;
use super::metadata::Metadata;
use super::owners::Owners;
use super::place::Place;
use super::stat::Stat;
use crate::error::{Error, Result};
use crate::tree::EntryKind;

/// Files from this length on are worth telling the system that they are read in order.
const ADVISE_MIN: u64 = 1 << 20;

/// What stands next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// So many bytes, now in the buffer.
    Data(usize),
    /// So many zeros that take no room on the disk.
    Hole(u64),
    /// Nothing.
    End,
}

/// A regular file that is being read.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: OwnedFd,
    path: PathBuf,
    before: Stat,
    position: u64,
    /// Nothing is read from here on: the length at opening, or less once the file turned out to be cut short.
    end: u64,
    /// Up to here there is data, as far as is known.
    data_end: u64,
}

impl FileSource {
    /// Opens a name in an open folder, which must be a regular file and no symlink to one.
    pub(super) fn open(folder: impl AsFd, name: &[u8], path: PathBuf) -> Result<Self> {
        // A fifo that took the file's place must not make us wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fail = |error: io::Error| Error::file("open", &path, error);
        let file = open_unnoticed(folder, name, flags).map_err(|error| fail(error.into()))?;
        let before = Stat::from(rustix::fs::fstat(&file).map_err(|error| fail(error.into()))?);
        if before.kind != EntryKind::File {
            return Err(fail(io::Error::other("it is no longer a regular file")));
        }
        if before.size >= ADVISE_MIN {
            advise(&file, before.size);
        }
        let data_end = if before.may_have_holes() { 0 } else { before.size };
        Ok(Self { file, path, position: 0, end: before.size, data_end, before })
    }

    /// The file's state when it was opened; it may be another file than the walk saw.
    pub(crate) fn stat(&self) -> &Stat {
        &self.before
    }

    /// All metadata as of opening, with a warning for each part that can't be read and is left out.
    pub(crate) fn metadata(&self, owners: &Owners) -> (Metadata, Vec<Error>) {
        let mut posix = self.before.posix(owners);
        let mut problems = Vec::new();
        posix.extended = attributes::read(&Place::open(&self.file), &mut problems);
        let warn = |error| Error::file("read the extended attributes of", &self.path, error);
        (Metadata::of_file(posix), problems.into_iter().map(warn).collect())
    }

    /// Reads on into `buffer`, which isn't empty, or passes a hole.
    ///
    /// Data ends short of the buffer's end at a hole and at the file's end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<Segment> {
        if self.position >= self.end {
            return Ok(Segment::End);
        }
        if self.position >= self.data_end {
            let hole = self.find_data();
            if hole > 0 {
                self.position += hole;
                return Ok(Segment::Hole(hole));
            }
        }
        let wanted = usize::try_from(self.data_end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let length = read_full(&self.file, buffer, self.position);
        let length = length.map_err(|error| Error::file("read", &self.path, error))?;
        if length < wanted {
            self.end = self.position + length as u64;
        }
        self.position += length as u64;
        Ok(if length == 0 { Segment::End } else { Segment::Data(length) })
    }

    /// Finds where data goes on, and how long it goes on there; gives the length of the hole before it.
    fn find_data(&mut self) -> u64 {
        let (from, size) = (self.position, self.end);
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(data) => data.clamp(from, size),
            Err(Errno::NXIO) => size, // nothing but a hole up to the end
            Err(_) => {
                self.data_end = size; // no such question on this file system
                return 0;
            }
        };
        self.data_end = match rustix::fs::seek(&self.file, SeekFrom::Hole(data)) {
            Ok(end) if end > data => end.min(size),
            _ => size,
        };
        data - from
    }

    /// Whether the file is as it was when it was opened, so that what was read is one state of it.
    pub(crate) fn finish(self) -> Result<bool> {
        let fail = |error| Error::file("read", &self.path, error);
        let after = Stat::from(rustix::fs::fstat(&self.file).map_err(fail)?);
        Ok(after.is_unchanged_since(&self.before))
    }
}

/// Opens without leaving a time of access, where the system permits that.
#[cfg(target_os = "linux")]
fn open_unnoticed(folder: impl AsFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(folder.as_fd(), name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(folder, name, flags, Mode::empty()),
        outcome => outcome,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_unnoticed(folder: impl AsFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

#[cfg(target_os = "linux")]
fn advise(file: &OwnedFd, size: u64) {
    // Only advice: reading works without.
    rustix::fs::fadvise(file, 0, std::num::NonZeroU64::new(size), rustix::fs::Advice::Sequential).ok();
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &OwnedFd, _: u64) {}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(length)
}
