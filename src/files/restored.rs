//! A regular file that is being restored or compared.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::apply::{Exposure, Restorer};
use super::metadata::Metadata;
use super::place::Place;
use super::source::read_full;
use super::stat::Stat;
use crate::error::{Error, Result};
use crate::tree::EntryKind;

/// An open file of a destination. Positions are absolute, so threads can share it.
#[derive(Debug)]
pub(crate) struct RestoredFile {
    pub(super) file: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) is_new: bool,
    pub(super) restorer: Arc<Restorer>,
}

impl RestoredFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was created empty just now, so that all of its content has to be written.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn stat(&self) -> Result<Stat> {
        Place::open(&self.file).stat().map_err(|error| self.failed("read", error))
    }

    /// Reads until the buffer is full or the file ends.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_full(&self.file, buffer, offset).map_err(|error| self.failed("read", error))
    }

    /// Writes all of `bytes`; what lies between the file's end and `offset` becomes a hole.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write(offset, bytes).map_err(|error| self.failed("write", error))
    }

    fn write(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.file, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    offset = offset.saturating_add(length as u64);
                    bytes = bytes.get(length..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Turns a part of the file that hasn't been written through this handle into zeros, a hole where that is
    /// possible. Never makes the file longer: [`Self::set_len`] does.
    pub(crate) fn zero(&self, offset: u64, length: u64) -> Result<()> {
        if self.is_new || length == 0 {
            return Ok(()); // never written, so a hole already
        }
        let end = offset.saturating_add(length).min(self.stat()?.size);
        if offset >= end {
            return Ok(());
        }
        match punch(&self.file, offset, end - offset) {
            Err(Errno::NOTSUP | Errno::NOSYS) => self.write_zeros(offset, end),
            outcome => outcome.map_err(|error| self.failed("write", error.into())),
        }
    }

    fn write_zeros(&self, mut offset: u64, end: u64) -> Result<()> {
        const ZEROS: &[u8] = &[0; 64 << 10];
        while offset < end {
            let length = (end - offset).min(ZEROS.len() as u64);
            self.write_at(offset, ZEROS.get(..length as usize).unwrap_or(ZEROS))?;
            offset += length;
        }
        Ok(())
    }

    /// Cuts the file, or lengthens it by a hole.
    pub(crate) fn set_len(&self, length: u64) -> Result<()> {
        rustix::fs::ftruncate(&self.file, length).map_err(|error| self.failed("set the length of", error.into()))
    }

    /// Gives the file its metadata, after which nothing may be written; each part that can't be given is a warning.
    pub(crate) fn set_metadata(&self, metadata: &Metadata) -> Result<Vec<Error>> {
        match &metadata.posix {
            None => Ok(Vec::new()),
            Some(posix) => self.restorer.apply(&Place::open(&self.file), EntryKind::File, posix, &self.path),
        }
    }

    /// Whether somebody else may hold it open to change it, whatever metadata it gets now.
    pub(crate) fn is_exposed(&self, metadata: &Metadata) -> Result<bool> {
        let exposure = self.restorer.exposure(&Place::open(&self.file), &self.stat()?, metadata.posix.as_ref());
        Ok(!self.is_new && exposure == Exposure::Write)
    }

    /// Whether [`Self::set_metadata`] would change nothing.
    pub(crate) fn matches(&self, metadata: &Metadata) -> Result<bool> {
        let Some(posix) = &metadata.posix else { return Ok(true) };
        let matches = self.restorer.matches(&Place::open(&self.file), EntryKind::File, posix);
        matches.map_err(|error| self.failed("read", error))
    }

    /// Where data begins at or after `offset`, as far as the file system tells; nothing if only a hole follows.
    pub(crate) fn data_after(&self, offset: u64) -> Result<Option<u64>> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found.max(offset))),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(Some(offset)),
            Err(error) => Err(self.failed("read", error.into())),
        }
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> Error {
        Error::file(operation, &self.path, error)
    }
}

#[cfg(target_os = "linux")]
fn punch(file: &OwnedFd, offset: u64, length: u64) -> rustix::io::Result<()> {
    use rustix::fs::FallocateFlags;
    rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
}

#[cfg(not(target_os = "linux"))]
fn punch(_: &OwnedFd, _: u64, _: u64) -> rustix::io::Result<()> {
    Err(Errno::NOTSUP)
}
