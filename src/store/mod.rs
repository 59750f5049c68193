//! The object store as the rest of the library sees it: a plain struct, no trait objects above it.
//!
//! Owns opening a location, retries of what can be retried, the settling of
//! creates whose outcome is unknown, and bounds on what is read. Knows names
//! only as text and bodies only as bytes.
//!
//! Invariant: nothing is ever overwritten. [`Store::create`] creates a name or
//! reports that it exists; there is no other way to write, but for a probe of
//! rights, which tries it on an object of its own.

mod aside;
mod local;
mod location;
mod rights;
mod temporary;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

pub use aside::PutAside;
pub(crate) use location::Intent;
pub use location::Location;
pub use rights::{Mismatch, Right, StoreAccess, StoreOperation, StoreRights};

use crate::error::{Error, Result};
use crate::layout;

/// How often a call that may succeed later is made in all.
const ATTEMPTS: u32 = 4;

/// The pause before the first repetition; each further one waits four times longer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// What came of creating a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object is there and it is ours.
    Ours,
    /// Another object has the name.
    Theirs,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) length: u64,
}

/// A handle on an object store; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    inner: Arc<dyn ObjectStore>,
    description: Arc<str>,
    shared_file_system: bool,
    /// Why nothing may be changed here, where that is so.
    refusal: Option<Arc<Refusal>>,
    /// The folder, where it is a local one.
    folder: Option<Arc<std::path::Path>>,
    aside: Arc<aside::Aside>,
}

/// Why nothing may be changed.
#[derive(Debug)]
struct Refusal {
    object: String,
    reason: String,
}

impl Store {
    /// The same store, on which nothing can be created or deleted: `object` needs, for `reason`, another build to do so.
    pub(crate) fn read_only(self, object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { refusal: Some(Arc::new(Refusal { object: object.into(), reason: reason.into() })), ..self }
    }

    /// Refuses to go on where nothing may be changed.
    pub(crate) fn require_writable(&self) -> Result<()> {
        match &self.refusal {
            Some(refusal) => Err(Error::unsupported(&refusal.object, &refusal.reason)),
            None => Ok(()),
        }
    }

    /// How messages name this store.
    pub(crate) fn description(&self) -> &str {
        &self.description
    }

    /// Goes around an object that can't be used, and remembers that.
    pub(crate) fn put_aside(&self, object: impl ToString, error: Error) {
        self.aside.add(&object.to_string(), aside::reason(error));
    }

    /// Everything that was put aside through this handle and its clones.
    pub(crate) fn aside(&self) -> Vec<PutAside> {
        self.aside.list()
    }

    /// Creates `name` with `body`, which must be unlike what anyone else would write there.
    ///
    /// A failed or refused create may be one's own that landed, so both are settled by
    /// reading the name back: these bytes mean ours, others mean theirs, none means try again.
    pub(crate) async fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        self.require_writable()?;
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            self.require_place_for(name).await?;
            let failure = match self.put_once(name, body.clone()).await {
                Ok(()) => return Ok(Created::Ours),
                Err(failure) => failure,
            };
            #[cfg(test)]
            if crate::simulation::has(crate::simulation::Bug::ExistsMeansOurs)
                && matches!(failure, object_store::Error::AlreadyExists { .. })
            {
                return Ok(Created::Ours);
            }
            let may_have_landed =
                matches!(&failure, object_store::Error::AlreadyExists { .. }) || is_retryable(&failure);
            if !may_have_landed {
                return Err(store_error("create", name, failure));
            }
            match self.get(name, body.len() as u64).await {
                Ok(found) if found == body => return Ok(Created::Ours),
                Ok(_) => return Ok(Created::Theirs),
                // Longer than ours, so not ours.
                Err(error) if error.is_corrupt() => return Ok(Created::Theirs),
                Err(error) if error.is_not_found() && attempt < ATTEMPTS => tokio::time::sleep(pause).await,
                // Whatever the store said, even that the name exists: it isn't so, and may go well later.
                Err(error) if error.is_not_found() => return Err(failed("create", name, failure, true)),
                Err(error) => return Err(error),
            }
            pause *= 4;
        }
        Err(Error::worker("attempts to create an object ran out"))
    }

    /// Whether creating `name`, which exists with `body`, is refused as it must be.
    ///
    /// A store that doesn't refuse overwrites, with the very bytes that are there already.
    pub(crate) async fn refuses_to_overwrite(&self, name: &str, body: Bytes) -> Result<bool> {
        self.require_writable()?;
        self.require_place_for(name).await?;
        self.retry("create", name, || async {
            match self.put_once(name, body.clone()).await {
                Ok(()) => Ok(false),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(true),
                Err(failure) => Err(failure),
            }
        })
        .await
    }

    /// Whether a folder may be listed in which nothing is any more.
    pub(crate) fn keeps_empty_folders(&self) -> bool {
        self.folder.is_some()
    }

    /// Whether this is a network file system, whose clients may see each other's files late.
    pub(crate) fn is_shared_file_system(&self) -> bool {
        self.shared_file_system
    }

    /// Fails where a local store has no config, and so is none: its folder or its mount has gone, and what would be
    /// created would be in what is in its place. A repository's first objects come before its config.
    async fn require_place_for(&self, name: &str) -> Result<()> {
        match &self.folder {
            Some(folder) if !is_under(name, &[layout::CONFIG, layout::KEYS]) => {
                local::require(folder, &[layout::CONFIG]).await
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that what isn't there isn't so since all of a local store has gone.
    async fn unless_gone<T>(&self, name: &str, answer: Result<T>, is_there: impl FnOnce(&T) -> bool) -> Result<T> {
        let is_absent = match &answer {
            Ok(found) => !is_there(found),
            Err(error) => error.is_not_found(),
        };
        match &self.folder {
            Some(folder) if is_absent && !is_under(name, &[layout::CONFIG, layout::PROBES]) => {
                local::require(folder, &[layout::CONFIG, layout::KEYS]).await.and(answer)
            }
            _ => answer,
        }
    }

    async fn put_once(&self, name: &str, body: Bytes) -> object_store::Result<()> {
        self.put_mode(name, body, PutMode::Create).await
    }

    async fn put_mode(&self, name: &str, body: Bytes, mode: PutMode) -> object_store::Result<()> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.inner.put_opts(&path(name), PutPayload::from_bytes(body), options).await.map(drop)
    }

    /// Reads all of `name`, unless it is longer than `limit` bytes.
    pub(crate) async fn get(&self, name: &str, limit: u64) -> Result<Bytes> {
        let path = path(name);
        let read = self.retry("read", name, || async {
            let result = self.inner.get(&path).await?;
            if result.meta.size > limit {
                return Ok(Err(Error::corrupt(
                    name,
                    format!("it is {} bytes long, at most {limit} are possible", result.meta.size),
                )));
            }
            let length = result.meta.size;
            whole(result.bytes().await?, length).map(Ok)
        });
        self.unless_gone(name, read.await.flatten(), |_| true).await
    }

    /// Reads exactly `range` of `name`; a shorter object is damaged.
    pub(crate) async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let path = path(name);
        let read = || async { whole(self.inner.get_range(&path, range.clone()).await?, range.end - range.start) };
        match read().await {
            Err(failure) if is_retryable(&failure) => {
                // Stores cut a range that reaches past the end without a word, and refuse one that begins there like a
                // call that failed.
                let length = self.length(name).await?;
                if length < range.end {
                    let reason = format!("it is {length} bytes long where {} should be", range.end);
                    return Err(Error::corrupt(name, reason));
                }
                self.retry("read", name, read).await
            }
            other => {
                let read = other.map_err(|failure| store_error("read", name, failure));
                self.unless_gone(name, read, |_| true).await
            }
        }
    }

    /// The length of `name` in bytes.
    pub(crate) async fn length(&self, name: &str) -> Result<u64> {
        let path = path(name);
        let meta = self.retry("look up", name, || self.inner.head(&path)).await;
        self.unless_gone(name, meta.map(|meta| meta.size), |_| true).await
    }

    /// Every object under `prefix`, in no order.
    ///
    /// All of them are held in memory, some hundred bytes each.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        if let Some(folder) = &self.folder {
            let listed = local::list(folder, prefix).await;
            return self.unless_gone(prefix, listed, |listed| !listed.is_empty()).await;
        }
        let path = path(prefix);
        self.retry("list", prefix, || {
            self.inner
                .list(Some(&path))
                .map_ok(|meta| Listed { name: meta.location.to_string(), length: meta.size })
                .try_collect::<Vec<_>>()
        })
        .await
    }

    /// The folders directly under `prefix`, as full names, in no order.
    pub(crate) async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        if let Some(folder) = &self.folder {
            let listed = local::list_folders(folder, prefix).await;
            return self.unless_gone(prefix, listed, |listed| !listed.is_empty()).await;
        }
        let path = path(prefix);
        let listed = self.retry("list", prefix, || self.inner.list_with_delimiter(Some(&path))).await?;
        Ok(listed.common_prefixes.iter().map(ToString::to_string).collect())
    }

    /// Deletes `name`; its absence is fine.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.require_writable()?;
        let path = path(name);
        match self.retry("delete", name, || self.inner.delete(&path)).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Makes a call that changes nothing until it succeeds or can't.
    async fn retry<T, F>(&self, operation: &'static str, name: &str, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match call().await {
                Err(failure) if is_retryable(&failure) => {
                    tracing::warn!(operation, name, %failure, "the object store failed, trying again");
                    tokio::time::sleep(pause).await;
                }
                other => return other.map_err(|failure| store_error(operation, name, failure)),
            }
            pause *= 4;
        }
        call().await.map_err(|failure| store_error(operation, name, failure))
    }
}

/// Names are made by `layout` from digits and slashes, so this never changes one.
fn path(name: &str) -> Path {
    Path::from(name)
}

fn is_under(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// The bytes, if they are as many as the store announced: connections end early, which says nothing of the object.
fn whole(bytes: Bytes, expected: u64) -> object_store::Result<Bytes> {
    if bytes.len() as u64 == expected {
        return Ok(bytes);
    }
    let source = format!("{} bytes came back where {expected} should be", bytes.len()).into();
    Err(object_store::Error::Generic { store: "the store", source })
}

fn is_retryable(failure: &object_store::Error) -> bool {
    let may_pass = matches!(failure, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. });
    may_pass && !is_storage_full(failure) && !is_denied(failure)
}

/// Whether the store doesn't let these credentials do what was asked; a local one says so in its own way.
fn is_denied(failure: &object_store::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(failure, object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. })
        || has_io_kind(failure, &[PermissionDenied, ReadOnlyFilesystem])
}

/// Whether an error was caused by a full disk.
fn is_storage_full(error: &(dyn std::error::Error + 'static)) -> bool {
    has_io_kind(error, &[std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded])
}

/// Whether an error was caused by the operating system's answer, of one of these kinds.
fn has_io_kind(error: &(dyn std::error::Error + 'static), kinds: &[std::io::ErrorKind]) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| kinds.contains(&error.kind()))
}

fn store_error(operation: &'static str, name: &str, failure: object_store::Error) -> Error {
    match failure {
        object_store::Error::NotFound { .. } => Error::not_found(name),
        failure => {
            let retryable = is_retryable(&failure);
            failed(operation, name, failure, retryable)
        }
    }
}

fn failed(operation: &'static str, name: &str, failure: object_store::Error, retryable: bool) -> Error {
    Error::Store {
        operation,
        object: name.to_owned(),
        advice: match &failure {
            failure if is_storage_full(failure) => {
                ": it is full; nothing committed is lost, free some space and run it again"
            }
            object_store::Error::InvalidPath { .. } => {
                ": something there has a name that no object can have; delete it with the store's own tools"
            }
            _ => "",
        },
        retryable,
        source: Box::new(failure),
    }
}

#[cfg(test)]
mod tests;
