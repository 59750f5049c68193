//! Restoring a snapshot, a part of it or one file into a folder.
//!
//! ```text
//! entries ──windows──> arrange ──works──> compare ──wishes──> plan ──requests──> fetch ──> link, complete
//! tree, pieces         folders, order     what is there       by pack            write     names, folders
//! async                one thread         many threads        by block           many threads
//! ```
//! A window is a bounded number of entries and pieces in the order of paths,
//! which is also that of the blocks in packs. While one window is fetched the
//! next is made ready, so memory has a bound whatever the snapshot's size (but
//! for 100 bytes a file with several names, whose path is kept in a file that
//! has no name). Nothing is recorded on the side:
//! what stands in the destination is compared, so a restore that was stopped is
//! continued by doing it again.
//!
//! Invariants: only bytes that have passed the AEAD and their blob's id are
//! written. A file that can't be completed doesn't stay behind looking right:
//! one that was created is removed, any other keeps no metadata of the snapshot.
//! Nothing is reached through a symlink ([`crate::files`]).

mod arrange;
mod compare;
mod entries;
mod fetch;
mod file;
mod links;
mod plan;
mod remove;
mod session;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::cpu;
use crate::error::{Error, Result};
use crate::files::{Destination, Scope};
use crate::index::Want;
use crate::progress::{Phase, Progress};
use crate::repository::Repository;
use crate::restore::arrange::{Arranged, Arranger, Complete, Counts, Link, Selection};
use crate::restore::compare::{Wish, Work, compare};
use crate::restore::entries::EntryReader;
use crate::restore::fetch::fetch;
use crate::restore::plan::{Plan, plan};
use crate::restore::session::Session;
use crate::snapshot::{Failure, Snapshot};
use crate::tree::{self, EntryKind, Key, Span};

/// Works to a batch that one thread compares.
const BATCH_WORKS: usize = 256;

/// So many entries are read to see what is at a path, and so many leaves at a time: of one person's records they are
/// all, and need not be waited for again.
const SELECTED: usize = 64;
const SELECTED_AHEAD: usize = 4;

/// Bytes to such a batch.
const BATCH_BYTES: u64 = 16 << 20;

/// Batches compared at a time.
const BATCHES: usize = 8;

/// How a snapshot is restored.
///
/// By default everything that a snapshot holds comes back as it was, as far as this process may. Root may all: where
/// it restores what others had backed up, leave out what could give them rights here, and mount the destination with
/// `nosuid,nodev`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Remove what the snapshot lacks from the folders that are restored.
    pub delete: bool,
    /// Compare and report, and change nothing.
    pub dry_run: bool,
    /// Give files and folders their owners and groups; otherwise what is restored belongs to whoever restores.
    pub owners: bool,
    /// Restore fifos, sockets and device nodes.
    pub special_files: bool,
    /// Restore set-user-id, set-group-id and capabilities of files.
    pub set_id: bool,
    /// Restore extended attributes. Access control lists always are restored, as the mode means something else
    /// without them.
    pub extended_attributes: bool,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            delete: false,
            dry_run: false,
            owners: true,
            special_files: true,
            set_id: true,
            extended_attributes: true,
        }
    }
}

impl RestoreOptions {
    /// Removes what the snapshot lacks from the folders that are restored.
    #[must_use]
    pub fn with_delete(mut self, delete: bool) -> Self {
        self.delete = delete;
        self
    }

    /// Compares and reports, and changes nothing.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Gives files and folders their owners and groups, or leaves them to whoever restores.
    #[must_use]
    pub fn with_owners(mut self, owners: bool) -> Self {
        self.owners = owners;
        self
    }

    /// Restores fifos, sockets and device nodes, or leaves them out.
    #[must_use]
    pub fn with_special_files(mut self, special_files: bool) -> Self {
        self.special_files = special_files;
        self
    }

    /// Restores set-user-id, set-group-id and capabilities of files, or leaves them out.
    #[must_use]
    pub fn with_set_id(mut self, set_id: bool) -> Self {
        self.set_id = set_id;
        self
    }

    /// Restores extended attributes, or leaves out all but access control lists.
    #[must_use]
    pub fn with_extended_attributes(mut self, extended_attributes: bool) -> Self {
        self.extended_attributes = extended_attributes;
        self
    }

    fn scope(&self) -> Scope {
        Scope { owners: self.owners, set_id: self.set_id, attributes: self.extended_attributes }
    }
}

/// What a restore did, or, in a dry run, would have done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RestoreReport {
    /// Regular files in what was to be restored, counted once for each name.
    pub files: u64,
    /// Folders in it.
    pub folders: u64,
    /// Symlinks, fifos, sockets and device nodes in it.
    pub others: u64,
    /// Of these, fifos, sockets and device nodes that were left out by choice.
    pub left_out: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that were written to files because they weren't there.
    pub bytes_written: u64,
    /// Files that were found to be right in content and metadata.
    pub unchanged: u64,
    /// Things that were removed: because the snapshot lacks them, or because they stood in the way.
    pub deleted: u64,
    /// What could not be restored, or not wholly; the first thousand.
    pub failures: Vec<Failure>,
    /// How much that is in all.
    pub failure_count: u64,
}

impl RestoreReport {
    /// Whether something could not be restored.
    pub fn is_partial(&self) -> bool {
        self.failure_count > 0
    }
}

impl Repository {
    /// Restores a snapshot, or what is at and below `path` in it, into the folder `to`, which need not exist.
    ///
    /// The children of a folder at `path` go into `to`, which also gets the folder's metadata; anything else at `path`
    /// goes into `to` under its own name. What is there already is read and compared, and only what differs is
    /// written, so a restore that was stopped is continued by doing it again. What is there and the snapshot lacks
    /// stays, unless [`RestoreOptions::delete`] is set; what is of another kind than in the snapshot is removed. A file
    /// is made anew if somebody may hold it open who must not write to it, or, where its content changes, not read it.
    /// Root takes a folder that others can write to over before anything goes into it, and gives it its owner when all
    /// is in it. Let nobody else write to `to` itself.
    ///
    /// A file that can't be restored is reported, and the others are. Dropping the future stops the restore: files
    /// that were begun are incomplete, and readable by their owner alone.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is nothing at `path`; failures of the repository as a whole, or of `to` itself.
    pub async fn restore(
        &self,
        snapshot: &Snapshot,
        path: Option<&Key>,
        to: &Path,
        options: &RestoreOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<RestoreReport> {
        progress.phase(Phase::Preparing);
        let (selection, span) = if path.is_some() {
            // What it fails with shows again when something is looked up, if that comes to pass.
            let (selected, _) = futures::join!(self.select(snapshot, path), self.reader_of(snapshot).prepare());
            selected?
        } else {
            self.index().refresh(Want::Bulk).await?;
            self.select(snapshot, path).await?
        };
        let (folder, dry_run, scope) = (to.to_owned(), options.dry_run, options.scope());
        let destination = cpu::block(move || open(&folder, dry_run)).await?;
        let destination = destination.map(|destination| destination.with_scope(scope));
        progress.phase(if options.dry_run { Phase::Comparing } else { Phase::Restoring });
        if path.is_none() {
            progress.expect(snapshot.stats.files, snapshot.stats.bytes);
        }
        let session = Arc::new(Session::new(destination, self.keyring(), options, progress));
        let _guard = Guard(Arc::clone(&session));
        let entries = EntryReader::new(self.reader_of(snapshot), &snapshot.root, span);
        let arranging = Arc::clone(&session);
        let arranger = cpu::block(move || Arranger::new(&arranging, selection)).await?;
        let mut restore = Restore { repository: self, session, entries, arranger: Some(arranger) };
        let counts = restore.run().await?;
        Ok(restore.report(counts))
    }

    /// What `path` names.
    async fn select(&self, snapshot: &Snapshot, path: Option<&Key>) -> Result<(Selection, Span)> {
        let Some(path) = path else { return Ok((Selection::All, Span::all())) };
        let span = Span::subtree(path);
        // What is at the path comes first of what is at and below it; it may have no entry and yet be on the way to some.
        let reader = Arc::clone(self.reader_of(snapshot));
        let entries = tree::range(reader, &snapshot.root, span.clone(), SELECTED_AHEAD).take(SELECTED);
        let Some(first) = entries.collect::<Vec<_>>().await.into_iter().next() else {
            return Err(Error::not_found(format!("{path} in {snapshot}")));
        };
        let (key, entry) = first?;
        if key == *path && entry.kind != EntryKind::Folder {
            return Ok((Selection::Alone, span));
        }
        Ok((Selection::Below(path.clone()), span))
    }
}

/// Opens the destination; a dry run doesn't create it.
fn open(path: &Path, dry_run: bool) -> Result<Option<Destination>> {
    if !dry_run {
        return Destination::create(path).map(Some);
    }
    match Destination::open(path) {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

/// Stops the threads when the restore ends, however it does.
struct Guard(Arc<Session>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A restore under way.
struct Restore<'a> {
    repository: &'a Repository,
    session: Arc<Session>,
    entries: EntryReader,
    /// On loan to a thread while a window is arranged; nothing once the last one was.
    arranger: Option<Arranger>,
}

/// A window of which only the contents of files, links and the metadata of folders are left to do.
#[derive(Default)]
struct Ready {
    plan: Plan,
    links: Vec<Link>,
    complete: Vec<Complete>,
}

impl Restore<'_> {
    /// Restores window by window; the next is made ready while one is fetched.
    async fn run(&mut self) -> Result<Counts> {
        let (repository, session) = (self.repository, Arc::clone(&self.session));
        let mut counts = Counts::default();
        let mut ready = Ready::default();
        while self.arranger.is_some() {
            let carry_out = carry_out(repository, &session, ready);
            let (next, ()) = futures::future::try_join(self.prepare(&mut counts), carry_out).await?;
            ready = next;
        }
        carry_out(repository, &session, ready).await?;
        if !session.dry_run {
            let session = Arc::clone(&session);
            cpu::block(move || session.destination()?.sync()).await?;
        }
        Ok(counts)
    }

    /// Makes the next window ready, or what comes after the last.
    async fn prepare(&mut self, counts: &mut Counts) -> Result<Ready> {
        if self.arranger.as_ref().is_some_and(|arranger| !arranger.follows_large()) {
            self.entries.leave_large();
        }
        let window = self.entries.next().await?;
        let Some(mut arranger) = self.arranger.take() else { return Ok(Ready::default()) };
        let (arranger, arranged) = cpu::block(move || {
            let mut arranged = Arranged::default();
            let more = window.is_some();
            match window {
                Some(items) => arranged = arranger.arrange(items)?,
                None => arranger.finish(&mut arranged),
            }
            Ok((if more { Ok(arranger) } else { Err(arranger.counts) }, arranged))
        })
        .await?;
        match arranger {
            Ok(arranger) => self.arranger = Some(arranger),
            Err(all) => *counts = all,
        }
        let Arranged { works, links, complete } = arranged;
        let wishes = self.compare(works).await?;
        if self.session.dry_run {
            pretend(&self.session, wishes);
            return Ok(Ready { plan: Plan::default(), links, complete });
        }
        let plan = plan(&self.session, self.repository.reader(), wishes).await?;
        Ok(Ready { plan, links, complete })
    }

    async fn compare(&self, works: Vec<Work>) -> Result<Vec<Wish>> {
        let batches = stream::iter(batches(works)).map(|batch| {
            let session = Arc::clone(&self.session);
            cpu::block(move || compare(&session, batch))
        });
        let wishes: Vec<Vec<Wish>> = batches.buffered(BATCHES).try_collect().await?;
        Ok(wishes.into_iter().flatten().collect())
    }

    fn report(self, counts: Counts) -> RestoreReport {
        let Counts { files, folders, others, bytes, left_out } = counts;
        let (failures, failure_count) = self.session.take_failures();
        RestoreReport {
            files,
            folders,
            others,
            left_out,
            bytes,
            bytes_written: self.session.written.get(),
            unchanged: self.session.unchanged.get(),
            deleted: self.session.deleted.get(),
            failures,
            failure_count,
        }
    }
}

/// Does the rest of a window.
async fn carry_out(repository: &Repository, session: &Arc<Session>, ready: Ready) -> Result<()> {
    let Ready { plan, links, complete } = ready;
    fetch(session, repository.reader(), plan).await?;
    if links.is_empty() && complete.is_empty() {
        return Ok(());
    }
    let session = Arc::clone(session);
    cpu::block(move || {
        links::link(&session, links)?;
        links::complete(&session, complete)
    })
    .await
}

/// Counts what would be written.
fn pretend(session: &Session, wishes: Vec<Wish>) {
    for wish in wishes {
        for chunk in &wish.chunks {
            let length = u64::from(chunk.length) * u64::from(chunk.repeat);
            session.written.add(length);
            session.progress.advance(0, length);
        }
        if wish.last {
            wish.file.finish(session, None);
        }
    }
}

/// Cuts works to batches of about the same effort.
fn batches(works: Vec<Work>) -> Vec<Vec<Work>> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0u64);
    for work in works {
        bytes = bytes.saturating_add(work.weight());
        batch.push(work);
        if batch.len() >= BATCH_WORKS || bytes >= BATCH_BYTES {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}
