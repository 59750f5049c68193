//! One regular file on its way back.
//!
//! Threads write to it whatever they have of it, in any order; whoever brings
//! the last part gives it its metadata. It is open only while someone writes,
//! so any number of files can be under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::files::{LinkGroup, Metadata, RestoredFile};
use crate::restore::session::Session;
use crate::tree::Key;

/// A file that is being restored.
#[derive(Debug)]
pub(super) struct FileJob {
    /// Its path in the destination.
    pub(super) key: Key,
    /// Its path in the snapshot.
    pub(super) name: Key,
    pub(super) size: u64,
    pub(super) metadata: Metadata,
    /// Whether its end may be a hole, so that its length has to be set.
    pub(super) hollow: bool,
    /// Present where further names are to be linked to it.
    leads: Option<LinkGroup>,
    state: Mutex<State>,
}

/// Verified bytes and where in a file they go, or why they can't be had.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) offset: u64,
    /// How often they follow themselves; at least once.
    pub(super) repeat: u32,
    pub(super) bytes: Result<Bytes, Arc<Error>>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing was there, so it has to be created and all of it written.
    new: bool,
    /// It was created by this restore.
    created: bool,
    /// Its content was changed.
    touched: bool,
    failed: bool,
    /// Parts that are yet to be written.
    pending: u64,
    /// Whether all of its parts are known.
    planned: bool,
    /// Which file it is, by the numbers of the file system and the file, once it was opened.
    identity: Option<(u64, u64)>,
}

impl State {
    /// Makes sure that a file that was opened once more is the same: who may write to its folder could have put
    /// another in its place.
    fn recognise(&mut self, file: &RestoredFile) -> Result<()> {
        let found = identity(file)?;
        if file.is_new() || *self.identity.get_or_insert(found) != found { Err(taken(file)) } else { Ok(()) }
    }
}

fn identity(file: &RestoredFile) -> Result<(u64, u64)> {
    let stat = file.stat()?;
    Ok((stat.device, stat.inode))
}

pub(super) fn taken(file: &RestoredFile) -> Error {
    Error::file("write", file.path(), std::io::Error::other("something else has taken its place"))
}

impl FileJob {
    /// A file to be restored where, unless it is `new`, a regular file stands.
    pub(super) fn new(
        key: Key,
        name: Key,
        size: u64,
        metadata: Metadata,
        hollow: bool,
        new: bool,
        leads: Option<LinkGroup>,
    ) -> Self {
        let state = Mutex::new(State { new, ..State::default() });
        Self { key, name, size, metadata, hollow, leads, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is nothing to compare with.
    pub(super) fn is_new(&self) -> bool {
        self.state().new
    }

    /// Whether it has been given up.
    pub(super) fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// It was opened to be compared; whoever opens it from now on has to find the same file.
    pub(super) fn opened(&self, file: &RestoredFile) -> Result<()> {
        self.state().recognise(file)
    }

    /// What stood there was replaced by an empty file, so all of it has to be written.
    pub(super) fn replaced(&self, file: &RestoredFile) -> Result<()> {
        let mut state = self.state();
        (state.new, state.created) = (true, true);
        state.identity = Some(identity(file)?);
        if self.hollow { file.set_len(self.size) } else { Ok(()) }
    }

    /// Its content was changed, beside what is written through [`FileJob::write`].
    pub(super) fn touch(&self) {
        self.state().touched = true;
    }

    /// Gives it up; only the first reason is reported.
    pub(super) fn fail(&self, session: &Session, error: &Error) {
        let first = !std::mem::replace(&mut self.state().failed, true);
        if first {
            session.failed(&self.name, error);
            if let Some(group) = self.leads {
                session.lose(group);
            }
        }
    }

    /// One more part of it will be written.
    pub(super) fn expect_part(&self) {
        self.state().pending += 1;
    }

    /// No further parts will be expected.
    pub(super) fn all_planned(&self, session: &Session) {
        let due = {
            let mut state = self.state();
            state.planned = true;
            state.pending == 0
        };
        if due {
            self.finish(session, None);
        }
    }

    /// Writes a part.
    pub(super) fn write_part(self: &Arc<Self>, session: &Session, parts: &[Chunk]) {
        let file = if self.has_failed() { None } else { self.try_write(session, parts) };
        let due = {
            let mut state = self.state();
            state.pending = state.pending.saturating_sub(1);
            state.planned && state.pending == 0
        };
        if due {
            self.finish(session, file.as_ref());
        }
    }

    fn try_write(&self, session: &Session, parts: &[Chunk]) -> Option<RestoredFile> {
        if let Some(error) = parts.iter().find_map(|part| part.bytes.as_ref().err()) {
            self.fail(session, error);
            return None;
        }
        let bytes = parts.iter().filter_map(|part| Some((part.offset, part.repeat, part.bytes.as_ref().ok()?)));
        match self.write(session, bytes) {
            Ok(file) => Some(file),
            Err(error) => {
                self.fail(session, &error);
                None
            }
        }
    }

    /// Writes verified bytes, each with its offset and how often it follows itself.
    pub(super) fn write<'b>(
        &self,
        session: &Session,
        parts: impl Iterator<Item = (u64, u32, &'b Bytes)>,
    ) -> Result<RestoredFile> {
        let file = self.open(session)?;
        for (offset, repeat, bytes) in parts {
            let mut at = offset;
            for _ in 0..repeat {
                session.go_on()?;
                file.write_at(at, bytes)?;
                at = at.saturating_add(bytes.len() as u64);
                session.written.add(bytes.len() as u64);
                session.progress.advance(0, bytes.len() as u64);
            }
        }
        Ok(file)
    }

    /// Opens it to be written; creates it if it is new.
    fn open(&self, session: &Session) -> Result<RestoredFile> {
        let destination = session.destination()?;
        let mut state = self.state();
        state.touched = true;
        if !state.new || state.created {
            let file = destination.reopen_file(&self.key)?;
            state.recognise(&file)?;
            return Ok(file);
        }
        let file = destination.create_file(&self.key)?;
        state.created = true;
        state.identity = Some(identity(&file)?);
        if self.hollow {
            file.set_len(self.size)?;
        }
        Ok(file)
    }

    /// Gives it its metadata once its content is right, or takes it away if it was created and can't be completed.
    pub(super) fn finish(&self, session: &Session, file: Option<&RestoredFile>) {
        session.progress.advance(1, 0);
        if session.dry_run {
            self.count_if_unchanged(session, file);
            return;
        }
        if !self.has_failed()
            && let Err(error) = self.complete(session, file)
        {
            self.fail(session, &error);
        }
        let state = self.state();
        if state.failed && state.created {
            // If this fails too, the file is still private and without its time: nothing that looks right.
            drop(session.destination().and_then(|destination| match destination.inspect(&self.key)? {
                Some(stat) if state.identity == Some((stat.device, stat.inode)) => destination.remove(&self.key),
                _ => Ok(0), // what has taken its place isn't ours
            }));
        }
    }

    /// All that finishing comes to in a dry run.
    fn count_if_unchanged(&self, session: &Session, file: Option<&RestoredFile>) {
        let changed = {
            let state = self.state();
            state.new || state.touched || state.failed
        };
        if !changed && file.is_none_or(|file| file.matches(&self.metadata).unwrap_or_default()) {
            session.unchanged.add(1);
        }
    }

    fn complete(&self, session: &Session, file: Option<&RestoredFile>) -> Result<()> {
        let (missing, touched) = {
            let state = self.state();
            (state.new && !state.created, state.touched)
        };
        let opened;
        let file = match file {
            Some(file) => file,
            None if missing => {
                opened = self.open(session)?;
                &opened
            }
            None => {
                opened = session.destination()?.open_file(&self.key)?;
                self.state().recognise(&opened)?;
                &opened
            }
        };
        if !self.state().created && file.is_exposed(&self.metadata)? {
            return Err(taken(file));
        }
        if !touched && !missing && file.matches(&self.metadata)? {
            session.unchanged.add(1);
            return Ok(());
        }
        for warning in file.set_metadata(&self.metadata)? {
            session.failed(&self.name, &warning);
        }
        Ok(())
    }
}
