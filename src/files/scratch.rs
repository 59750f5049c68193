//! Bytes that are kept for the time of one operation, most of them outside of
//! memory: in a file that has no name, and so is gone with the process.
//!
//! What was added is never changed. The last of it is in memory until there is
//! enough to be written; where no such file can be made all of it is.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};

use super::source::read_full;

/// Bytes that are held back.
const HELD: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Where a file may be made.
    folder: PathBuf,
    file: Option<OwnedFd>,
    /// Whether it is of no use to try to make one.
    in_memory: bool,
    /// How much the file holds.
    written: u64,
    held: Vec<u8>,
}

/// Where bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    offset: u64,
    length: u32,
}

impl Scratch {
    /// Begins empty; what doesn't fit into memory goes to the file system of `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, file: None, in_memory: false, written: 0, held: Vec::new() }
    }

    /// Keeps `bytes`.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> io::Result<Range> {
        if self.held.len() >= HELD && !self.in_memory {
            self.write_out()?;
        }
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let range = Range { offset: self.written + self.held.len() as u64, length };
        self.held.extend_from_slice(bytes);
        Ok(range)
    }

    /// The bytes that were kept at `range`.
    pub(crate) fn get(&self, range: Range) -> io::Result<Vec<u8>> {
        let length = range.length as usize;
        if let Some(start) = range.offset.checked_sub(self.written) {
            let start = usize::try_from(start).map_err(|_| io::ErrorKind::InvalidInput)?;
            let held = self.held.get(start..).and_then(|held| held.get(..length));
            return held.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        match &self.file {
            Some(file) if read_full(file, &mut bytes, range.offset)? == length => Ok(bytes),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_out(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = unnamed(&self.folder).or_else(|_| unnamed(&std::env::temp_dir())).ok();
        }
        let Some(file) = &self.file else {
            self.in_memory = true;
            return Ok(());
        };
        let mut rest = self.held.as_slice();
        let mut offset = self.written;
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, rest, offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            rest = rest.get(written..).unwrap_or_default();
        }
        self.written = offset;
        self.held.clear();
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn unnamed(folder: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR)?)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &std::path::Path) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(scratch: &mut Scratch) {
        let text = |number: usize| format!("{number}/{}", "x".repeat(number % 4000));
        let ranges: Vec<_> = (0..3000).map(|number| scratch.add(text(number).as_bytes()).unwrap()).collect();
        for (number, range) in ranges.into_iter().enumerate() {
            assert_eq!(scratch.get(range).unwrap(), text(number).as_bytes());
        }
        assert!(scratch.get(Range { offset: scratch.written + scratch.held.len() as u64, length: 1 }).is_err());
    }

    #[test]
    fn what_is_kept_comes_back_and_takes_bounded_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::new(dir.path().to_owned());
        fill(&mut scratch);
        assert!(scratch.in_memory || scratch.held.capacity() <= 4 * HELD && scratch.written > 2 * HELD as u64);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn without_a_file_memory_serves() {
        let mut scratch = Scratch::new("/nowhere".into());
        scratch.in_memory = true;
        fill(&mut scratch);
        assert_eq!(scratch.written, 0);
    }
}
