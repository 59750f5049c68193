//! From chunks that files need to requests that fetch them.
//!
//! Each block is fetched once a window, however many files need it; blocks
//! that lie close together in a pack come with one request.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blobs::BlobReader;
use crate::cpu;
use crate::error::Result;
use crate::id::{BlobId, ObjectId};
use crate::index::{Location, PackRow};
use crate::pack::Place;
use crate::restore::compare::{Wanted, Wish};
use crate::restore::file::FileJob;
use crate::restore::session::Session;

/// Bytes that nobody needs may lie between two blocks of a request, up to this many.
const GAP: u64 = 128 << 10;

/// The most that one request fetches, unless a single block is longer.
const REQUEST_STORED: u64 = 4 << 20;

/// The most that the blocks of one request decompress to, likewise.
const REQUEST_PLAIN: u64 = 8 << 20;

/// Blocks of one pack that are fetched together.
pub(super) struct Request {
    pub(super) pack: PackRow,
    pub(super) blocks: Vec<PlannedBlock>,
}

/// A block and all that is needed of it.
pub(super) struct PlannedBlock {
    pub(super) place: Place,
    pub(super) uses: Vec<Use>,
}

/// A chunk and where it goes.
pub(super) struct Use {
    /// The file's number in the window, so that what goes to one file stands together.
    number: usize,
    pub(super) file: Arc<FileJob>,
    pub(super) chunk: Wanted,
    /// Where it is; unknown where no segment at hand knows it.
    pub(super) location: Option<Location>,
}

/// What a window needs of the store.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) requests: Vec<Request>,
    /// Chunks that the index doesn't know, or knows as something else; each is a part of its file by itself.
    pub(super) unknown: Vec<Use>,
}

/// Looks up where everything is and plans how to fetch it.
pub(super) async fn plan(session: &Arc<Session>, reader: &BlobReader, wishes: Vec<Wish>) -> Result<Plan> {
    let ids = wishes.iter().flat_map(|wish| wish.chunks.iter().map(|chunk| chunk.id)).collect::<Vec<_>>();
    let found = if ids.is_empty() { HashMap::new() } else { reader.locate_chunks(ids).await? };
    let session = Arc::clone(session);
    cpu::block(move || Ok(group(&session, wishes, &found))).await
}

fn group(session: &Session, wishes: Vec<Wish>, found: &HashMap<BlobId, Location>) -> Plan {
    let mut blocks: HashMap<(ObjectId, u32), (PackRow, PlannedBlock)> = HashMap::new();
    let mut unknown = Vec::new();
    let mut complete = Vec::new();
    for (number, wish) in wishes.into_iter().enumerate() {
        for chunk in wish.chunks {
            let location = found.get(&chunk.id).filter(|location| location.length == chunk.length).copied();
            let one = Use { number, file: Arc::clone(&wish.file), chunk, location };
            let Some(location) = location else {
                unknown.push(one);
                continue;
            };
            let key = (location.pack.id, location.place.number);
            let new = || (location.pack, PlannedBlock { place: location.place, uses: Vec::new() });
            blocks.entry(key).or_insert_with(new).1.uses.push(one);
        }
        if wish.last {
            complete.push(wish.file);
        }
    }
    let blocks: Vec<_> = blocks.into_values().collect();
    for (_, block) in &blocks {
        block.uses.chunk_by(Use::is_same_file).filter_map(<[Use]>::first).for_each(|one| one.file.expect_part());
    }
    unknown.iter().for_each(|one| one.file.expect_part());
    for file in complete {
        file.all_planned(session);
    }
    Plan { requests: coalesce(blocks), unknown }
}

/// Joins neighbours, and puts the requests in the order in which files need them first.
fn coalesce(mut blocks: Vec<(PackRow, PlannedBlock)>) -> Vec<Request> {
    blocks.sort_unstable_by_key(|(pack, block)| (pack.id, block.place.offset));
    let mut requests: Vec<Request> = Vec::new();
    let (mut stored_end, mut stored_start, mut plain) = (0, 0, 0);
    for (pack, block) in blocks {
        let (range, length) = (block.place.range(), u64::from(block.place.plain_len));
        match requests.last_mut() {
            Some(request)
                if request.pack == pack
                    && range.start >= stored_end
                    && range.start - stored_end <= GAP
                    && range.end - stored_start <= REQUEST_STORED
                    && plain + length <= REQUEST_PLAIN =>
            {
                request.blocks.push(block);
                plain += length;
            }
            _ => {
                requests.push(Request { pack, blocks: vec![block] });
                (stored_start, plain) = (range.start, length);
            }
        }
        stored_end = range.end;
    }
    requests.sort_by_key(|request| request.blocks.iter().flat_map(|block| &block.uses).map(|one| one.number).min());
    requests
}

impl Use {
    /// Whether two go to the same file.
    pub(super) fn is_same_file(&self, other: &Use) -> bool {
        self.number == other.number
    }
}
