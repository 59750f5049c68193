//! What the threads of one restore share: where it goes, and what came of it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::files::{Destination, LinkGroup};
use crate::progress::Progress;
use crate::restore::RestoreOptions;
use crate::snapshot::{FAILURES_MAX, Failure};
use crate::tree::Key;

/// So many requests in a row may fail before the store is taken to be gone.
const STORE_FAILURES_MAX: u64 = 8;

/// One restore under way.
pub(super) struct Session {
    /// Missing only in a dry run into a folder that doesn't exist.
    destination: Option<Destination>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) dry_run: bool,
    pub(super) delete: bool,
    pub(super) special_files: bool,
    pub(super) progress: Arc<dyn Progress>,
    stopped: AtomicBool,
    pub(super) written: Count,
    pub(super) unchanged: Count,
    pub(super) deleted: Count,
    store_failures: Count,
    failures: Mutex<Failures>,
    /// Files with several names whose content could not be restored under the first of them.
    lost: Mutex<HashSet<LinkGroup>>,
}

/// A number that threads add to.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Failures {
    named: Vec<Failure>,
    count: u64,
}

impl Session {
    pub(super) fn new(
        destination: Option<Destination>,
        keyring: &Arc<Keyring>,
        options: &RestoreOptions,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            destination,
            keyring: Arc::clone(keyring),
            dry_run: options.dry_run,
            delete: options.delete,
            special_files: options.special_files,
            progress,
            stopped: AtomicBool::new(false),
            written: Count::default(),
            unchanged: Count::default(),
            deleted: Count::default(),
            store_failures: Count::default(),
            failures: Mutex::default(),
            lost: Mutex::default(),
        }
    }

    /// The folder that is restored into.
    pub(super) fn destination(&self) -> Result<&Destination> {
        self.destination.as_ref().ok_or_else(|| Error::worker("a dry run looked into a folder that doesn't exist"))
    }

    /// Whether there is a folder to look into.
    pub(super) fn has_destination(&self) -> bool {
        self.destination.is_some()
    }

    /// Makes the threads stop at the next file: nobody waits for them any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// An error once the restore was dropped or has failed.
    pub(super) fn go_on(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) { Err(Error::worker("the restore was given up")) } else { Ok(()) }
    }

    /// Reports what could not be restored; `name` is its path in the snapshot.
    pub(super) fn failed(&self, name: &Key, error: &Error) {
        let bytes = name.as_path_bytes();
        self.progress.failed(Path::new(OsStr::from_bytes(&bytes)), error);
        self.note(Failure::new(name, error));
    }

    /// Reports a part of the snapshot that can't be read, whose paths are unknown.
    pub(super) fn failed_part(&self, description: String, error: &Error) {
        self.progress.failed(Path::new(&description), error);
        self.note(Failure::new(description, error));
    }

    fn note(&self, failure: Failure) {
        let mut failures = lock(&self.failures);
        failures.count += 1;
        if failures.named.len() < FAILURES_MAX {
            failures.named.push(failure);
        }
    }

    /// What failed, as far as it is named, and how much in all.
    pub(super) fn take_failures(&self) -> (Vec<Failure>, u64) {
        let mut failures = lock(&self.failures);
        (std::mem::take(&mut failures.named), failures.count)
    }

    /// Notes that a file with several names isn't there to be linked to.
    pub(super) fn lose(&self, group: LinkGroup) {
        lock(&self.lost).insert(group);
    }

    /// Whether [`Session::lose`] was called for this file.
    pub(super) fn is_lost(&self, group: &LinkGroup) -> bool {
        lock(&self.lost).contains(group)
    }

    /// Hands on an error that more than single files suffer from.
    ///
    /// An object that can't be read is the loss of what is in it; a store that answers nothing is the end.
    pub(super) fn check_store(&self, outcome: Option<&Error>) -> Result<()> {
        match outcome {
            Some(Error::Store { operation, object, advice, retryable, source }) => {
                self.store_failures.add(1);
                if self.store_failures.get() < STORE_FAILURES_MAX {
                    return Ok(());
                }
                let source = source.to_string().into();
                Err(Error::Store { operation, object: object.clone(), advice, retryable: *retryable, source })
            }
            Some(_) => Ok(()),
            None => {
                self.store_failures.0.store(0, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
