//! Compares what stands in the destination with the snapshot, and restores
//! whatever needs no chunks. Blocks, so it runs on threads of its own.
//!
//! A file that stands there counts for nothing until each range of it has been
//! hashed: only ranges that differ are fetched and written.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::files::{LinkGroup, Metadata, RestoredFile};
use crate::id::BlobId;
use crate::pack::PLAIN_MAX;
use crate::restore::file::{FileJob, taken};
use crate::restore::session::Session;
use crate::tree::{EntryKind, Key, Piece};

/// What is read at a time to see whether it is zeros.
const ZEROS_LEN: usize = 256 << 10;

/// One thing to restore.
pub(super) enum Work {
    /// A file, or as much of it as a window holds.
    Part(Part),
    /// A file whose bytes are at hand.
    Inline(Arc<FileJob>, Bytes),
    /// Anything that is neither a file nor a folder.
    Special(Box<Special>),
}

/// A symlink, fifo, socket or device.
pub(super) struct Special {
    pub(super) key: Key,
    /// Its path in the snapshot.
    pub(super) name: Key,
    pub(super) kind: EntryKind,
    /// Where a symlink leads.
    pub(super) target: Bytes,
    pub(super) metadata: Metadata,
    /// Whether a thing of its kind stands there.
    pub(super) there: bool,
    /// Present where further names are to be linked to it.
    pub(super) leads: Option<LinkGroup>,
}

/// Pieces of a file.
pub(super) struct Part {
    pub(super) file: Arc<FileJob>,
    pub(super) pieces: Vec<(u64, Piece)>,
    pub(super) first: bool,
    pub(super) last: bool,
}

impl Part {
    fn is_whole(&self) -> bool {
        self.first && self.last
    }
}

impl Work {
    /// The bytes that may have to be read for it.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Work::Part(part) if part.file.is_new() => 0,
            Work::Part(part) => part.pieces.iter().fold(0, |sum, (_, piece)| piece.length().saturating_add(sum)),
            Work::Inline(_, bytes) => bytes.len() as u64,
            Work::Special(_) => 0,
        }
    }
}

/// A file and the chunks that it still needs.
pub(super) struct Wish {
    pub(super) file: Arc<FileJob>,
    pub(super) chunks: Vec<Wanted>,
    /// Whether no more of it will be wished for.
    pub(super) last: bool,
}

/// A chunk, and where in a file it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) id: BlobId,
    pub(super) length: u32,
    pub(super) offset: u64,
    pub(super) repeat: u32,
}

/// Compares a batch and restores what can be restored at once; the rest comes back.
pub(super) fn compare(session: &Session, works: Vec<Work>) -> Result<Vec<Wish>> {
    let mut wishes = Vec::new();
    for work in works {
        session.go_on()?;
        match work {
            Work::Part(part) => wishes.extend(compare_part(session, part)),
            Work::Inline(file, bytes) => inline(session, &file, &bytes),
            Work::Special(special) => {
                if let Err(error) = restore_special(session, &special) {
                    session.failed(&special.name, &error);
                    special.leads.into_iter().for_each(|group| session.lose(group));
                }
            }
        }
    }
    Ok(wishes)
}

fn compare_part(session: &Session, part: Part) -> Option<Wish> {
    let file = Arc::clone(&part.file);
    let (last, whole) = (part.last, part.is_whole());
    let chunks = if file.has_failed() {
        Vec::new()
    } else if file.is_new() {
        all_chunks(&part)
    } else {
        match differences(session, &part) {
            Ok(Differences::Wanted(chunks)) => chunks,
            Ok(Differences::None(open)) if whole => {
                file.finish(session, Some(&open));
                return None;
            }
            Ok(Differences::None(_)) => Vec::new(),
            Err(error) => {
                file.fail(session, &error);
                Vec::new()
            }
        }
    };
    Some(Wish { file, chunks, last })
}

fn all_chunks(part: &Part) -> Vec<Wanted> {
    let chunk = |(offset, piece): &(u64, Piece)| match *piece {
        Piece::Chunk { id, length, repeat } => Some(Wanted { id, length, offset: *offset, repeat }),
        Piece::Hole { .. } => None,
    };
    part.pieces.iter().filter_map(chunk).collect()
}

enum Differences {
    None(RestoredFile),
    Wanted(Vec<Wanted>),
}

/// Finds what differs of a file that stands there; zeroes what should be a hole and sets the length.
fn differences(session: &Session, part: &Part) -> Result<Differences> {
    let (job, destination) = (&part.file, session.destination()?);
    // A file that goes on in the next window must not be replaced once part of it was found right.
    let ahead = !part.is_whole() && !session.dry_run;
    let file =
        if ahead { destination.update_file(&job.key, &job.metadata)? } else { destination.open_file(&job.key)? };
    if file.is_new() && !part.first {
        return Err(taken(&file)); // what was found right or written before is gone
    }
    if file.is_new() {
        job.replaced(&file)?;
        return Ok(Differences::Wanted(all_chunks(part)));
    }
    job.opened(&file)?;
    let length = file.stat()?.size;
    let (mut wanted, mut zeroed, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for (offset, piece) in &part.pieces {
        session.go_on()?;
        match *piece {
            Piece::Chunk { id, length: chunk, repeat } => {
                let all = Wanted { id, length: chunk, offset: *offset, repeat };
                compare_chunk(session, &file, length, all, &mut buffer, &mut wanted)?;
            }
            Piece::Hole { length: hole } => {
                let end = offset.saturating_add(hole).min(length);
                if !is_zero(&file, *offset, end, &mut buffer)? {
                    zeroed.push((*offset, hole));
                }
                session.progress.advance(0, hole);
            }
        }
    }
    if wanted.is_empty() && zeroed.is_empty() && length == job.size {
        return Ok(Differences::None(file));
    }
    if session.dry_run {
        job.touch();
        return Ok(Differences::Wanted(wanted));
    }
    let file = if ahead { file } else { destination.update_file(&job.key, &job.metadata)? };
    if file.is_new() {
        job.replaced(&file)?;
        return Ok(Differences::Wanted(all_chunks(part)));
    }
    job.touch();
    if length != job.size {
        file.set_len(job.size)?;
    }
    zeroed.iter().try_for_each(|(offset, length)| file.zero(*offset, *length))?;
    Ok(Differences::Wanted(wanted))
}

/// Compares each repetition of a chunk with what stands in its place.
fn compare_chunk(
    session: &Session,
    file: &RestoredFile,
    length: u64,
    all: Wanted,
    buffer: &mut Vec<u8>,
    wanted: &mut Vec<Wanted>,
) -> Result<()> {
    let step = u64::from(all.length);
    let mut missing: Option<Wanted> = None;
    for number in 0..all.repeat {
        let offset = all.offset.saturating_add(step * u64::from(number));
        let end = offset.saturating_add(step);
        if end > length || all.length > PLAIN_MAX {
            // It and all that follow lie beyond the end, or can't be at all.
            let rest = all.repeat - number;
            match &mut missing {
                Some(missing) => missing.repeat += rest,
                None => missing = Some(Wanted { offset, repeat: rest, ..all }),
            }
            break;
        }
        buffer.resize(all.length as usize, 0);
        let read = file.read_at(offset, buffer)?;
        if read == buffer.len() && session.keyring.chunk_id().id(buffer) == all.id {
            wanted.extend(missing.take());
            session.progress.advance(0, step);
        } else if let Some(missing) = &mut missing {
            missing.repeat += 1;
        } else {
            missing = Some(Wanted { offset, repeat: 1, ..all });
        }
    }
    wanted.extend(missing);
    Ok(())
}

fn is_zero(file: &RestoredFile, mut offset: u64, end: u64, buffer: &mut Vec<u8>) -> Result<bool> {
    while offset < end {
        offset = match file.data_after(offset)? {
            Some(data) if data < end => data,
            _ => return Ok(true),
        };
        buffer.resize(ZEROS_LEN.min(usize::try_from(end - offset).unwrap_or(ZEROS_LEN)), 0);
        let read = file.read_at(offset, buffer)?;
        if read == 0 || buffer.iter().take(read).any(|byte| *byte != 0) {
            return Ok(read == 0);
        }
        offset += read as u64;
    }
    Ok(true)
}

/// Restores a file whose bytes are at hand.
fn inline(session: &Session, file: &FileJob, bytes: &Bytes) {
    if let Err(error) = try_inline(session, file, bytes) {
        file.fail(session, &error);
        file.finish(session, None);
    }
}

fn try_inline(session: &Session, job: &FileJob, bytes: &Bytes) -> Result<()> {
    let length = bytes.len() as u64;
    if !job.is_new() {
        let destination = session.destination()?;
        let file = destination.open_file(&job.key)?;
        job.opened(&file)?;
        // One byte more shows whether the file is longer.
        let mut buffer = vec![0; bytes.len() + 1];
        let read = file.read_at(0, &mut buffer)?;
        if buffer.get(..read) == Some(&bytes[..]) {
            session.progress.advance(0, length);
            job.finish(session, Some(&file));
            return Ok(());
        }
        job.touch();
        if !session.dry_run {
            let file = destination.update_file(&job.key, &job.metadata)?;
            if file.is_new() { job.replaced(&file)? } else { file.set_len(length)? }
        }
    }
    if session.dry_run {
        session.written.add(length);
        job.finish(session, None);
        return Ok(());
    }
    let parts = (!bytes.is_empty()).then_some((0, 1, bytes));
    let file = job.write(session, parts.into_iter())?;
    job.finish(session, Some(&file));
    Ok(())
}

/// Restores a symlink, fifo, socket or device.
fn restore_special(session: &Session, special: &Special) -> Result<()> {
    if session.dry_run {
        return Ok(());
    }
    let Special { key, kind, metadata, .. } = special;
    let destination = session.destination()?;
    let mut there = special.there;
    if there && *kind == EntryKind::Symlink && destination.read_link(key)? != special.target {
        destination.remove(key)?;
        there = false;
    }
    if there && destination.matches(key, *kind, metadata)? {
        return Ok(());
    }
    match kind {
        _ if there => {}
        EntryKind::Symlink => destination.create_symlink(key, &special.target)?,
        _ => destination.create_special(key, *kind)?,
    }
    for warning in destination.set_metadata(key, *kind, metadata)? {
        session.failed(&special.name, &warning);
    }
    Ok(())
}
