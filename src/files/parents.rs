//! The folders of a destination, opened step by step and kept for a while.
//!
//! Each step opens one name in the folder before it and refuses symlinks, so
//! nothing that is reached from the root lies outside of it. Restores work in
//! key order, so the folder that is wanted is nearly always open already.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::folder::REACH;
use crate::tree::Key;

/// How many folders stay open.
const OPEN_MAX: usize = 128;

/// Opens the folders below one root.
#[derive(Debug)]
pub(super) struct Parents {
    root: Arc<OwnedFd>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// When each was last used, in uses.
    open: HashMap<Key, (Arc<OwnedFd>, u64)>,
    uses: u64,
    /// Counts what was forgotten, so that a folder opened before isn't kept after.
    generation: u64,
}

impl Parents {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), cache: Mutex::default() }
    }

    /// The folder at `key`, or the root.
    pub(super) fn folder(&self, key: Option<&Key>) -> io::Result<Arc<OwnedFd>> {
        let (generation, mut missing, mut folder) = self.nearest(key);
        while let Some(key) = missing.pop() {
            let name = plain(key.file_name())?;
            let next = Arc::new(rustix::fs::openat(&folder, name, REACH | OFlags::NOFOLLOW, Mode::empty())?);
            self.keep(key, next.clone(), generation);
            folder = next;
        }
        Ok(folder)
    }

    /// The nearest open folder at or above `key`, and the keys from there on, innermost first.
    fn nearest(&self, key: Option<&Key>) -> (u64, Vec<Key>, Arc<OwnedFd>) {
        let mut cache = self.lock();
        cache.uses += 1;
        let (uses, generation) = (cache.uses, cache.generation);
        let mut missing = Vec::new();
        let mut at = key.cloned();
        while let Some(key) = at {
            if let Some((folder, used)) = cache.open.get_mut(&key) {
                *used = uses;
                return (generation, missing, folder.clone());
            }
            at = key.parent();
            missing.push(key);
        }
        (generation, missing, self.root.clone())
    }

    fn keep(&self, key: Key, folder: Arc<OwnedFd>, generation: u64) {
        let mut cache = self.lock();
        if cache.generation != generation {
            return;
        }
        if cache.open.len() >= OPEN_MAX {
            let oldest = cache.open.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| cache.open.remove(&key));
        }
        let uses = cache.uses;
        cache.open.insert(key, (folder, uses));
    }

    /// Closes what is at and below `key`, which is about to be removed.
    pub(super) fn forget(&self, key: &Key) {
        let mut cache = self.lock();
        cache.generation += 1;
        cache.open.retain(|open, _| !open.starts_with(key));
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that stays in its folder. Keys hold no others; this is the last gate before the system.
pub(super) fn plain(name: &[u8]) -> io::Result<&[u8]> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    Ok(name)
}
