//! A segment whose bytes arrive part by part: in a file of the cache where there is one, otherwise in memory.
//!
//! Invariant: what lies in the cache under a segment's name was whole and had that
//! name when it was put there.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::index::segment::{HEAD_LEN, Segment, Source};
use crate::layout::Name;

/// What has arrived of a segment.
pub(super) struct Arriving {
    hasher: blake3::Hasher,
    head: Vec<u8>,
    length: u64,
    kept: Kept,
}

enum Kept {
    Memory(Vec<u8>),
    File(New),
}

/// A file of the cache that hasn't its name yet; it is removed unless it gets it.
struct New {
    file: File,
    path: PathBuf,
    new: PathBuf,
}

impl Drop for New {
    fn drop(&mut self) {
        // Once it has its name there is none of this name.
        drop(std::fs::remove_file(&self.new));
    }
}

impl New {
    fn create(id: ObjectId, cache: &Path) -> Result<Self> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let attempt = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let (path, new) = (cache.join(id.to_string()), cache.join(format!("{id}.{}-{attempt}", std::process::id())));
        let file = std::fs::create_dir_all(cache)
            .and_then(|()| File::options().read(true).write(true).create_new(true).open(&new))
            .map_err(|error| Error::file("write the index cache", &path, error))?;
        Ok(Self { file, path, new })
    }

    /// Puts the file under its name.
    fn name(self) -> Result<Source> {
        let failed = |error| Error::file("write the index cache", &self.path, error);
        std::fs::rename(&self.new, &self.path).map_err(failed)?;
        let file = self.file.try_clone().map_err(failed)?;
        Ok(Source::File(file, self.path.clone()))
    }

    /// Reads what was written before the last bytes, whose writing failed, and adds these.
    fn take_back(&self, written: u64, last: &[u8]) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        File::open(&self.new)
            .and_then(|file| file.take(written).read_to_end(&mut all))
            .map_err(|error| Error::file("read the index cache", &self.path, error))?;
        all.extend_from_slice(last);
        Ok(all)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::file("write the index cache", &self.path, error))
    }
}

impl Arriving {
    /// Takes the first bytes, at least a segment's head.
    pub(super) fn begin(id: ObjectId, bytes: &[u8], cache: Option<&Path>) -> Result<Self> {
        let kept = match cache.map(|cache| New::create(id, cache)) {
            None => Kept::Memory(Vec::new()),
            Some(Ok(new)) => Kept::File(new),
            Some(Err(error)) => {
                warn(&error);
                Kept::Memory(Vec::new())
            }
        };
        let head = bytes.get(..HEAD_LEN).unwrap_or(bytes).to_vec();
        let mut arriving = Self { hasher: blake3::Hasher::new(), head, length: 0, kept };
        arriving.push(bytes)?;
        Ok(arriving)
    }

    /// Takes what comes next.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        match &mut self.kept {
            Kept::Memory(all) => all.extend_from_slice(bytes),
            Kept::File(new) => {
                if let Err(error) = new.push(bytes) {
                    warn(&error);
                    self.kept = Kept::Memory(new.take_back(self.length, bytes)?);
                }
            }
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Opens the segment, of which everything has arrived.
    pub(super) fn finish(self, id: ObjectId, length: u64, keyring: &Keyring) -> Result<Segment> {
        let Self { hasher, head, kept, .. } = self;
        if hasher.finalize().as_bytes() != id.as_bytes() {
            return Err(Error::corrupt(Name::Index(id), "its bytes don't hash to its name"));
        }
        let source = match kept {
            Kept::Memory(all) => Source::Memory(Bytes::from(all)),
            Kept::File(new) => new.name()?,
        };
        let mut segment = Segment::open(id, &head, length, source, keyring)?;
        segment.build_filter()?;
        Ok(segment)
    }
}

fn warn(error: &Error) {
    // A full or read-only cache costs time, not correctness.
    tracing::warn!(%error, "could not keep an index segment in the cache");
}
