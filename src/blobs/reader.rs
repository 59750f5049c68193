//! Gets blobs back, verified.
//!
//! A node is first looked for where its parent's hints say, which takes neither
//! an index nor more than one round trip; then like every blob in the packs that
//! no segment describes yet, and in the segments.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::blobs::{NodeMemory, Stored};
use crate::cpu;
use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{Index, Location, PackRow, Want};
use crate::layout::Name;
use crate::object::{in_part, too_short};
use crate::pack::{BLOCKS_START, BlockKind, Hint, Place, parse_header, split_hints};
use crate::store::Store;

/// Opened blocks kept, in bytes.
const CACHE_BYTES: u64 = 32 << 20;

/// How many blocks the cache is laid out for.
const CACHE_BLOCKS: usize = 512;

/// How many packs' headers are remembered.
const CACHE_HEADERS: usize = 4096;

/// How often the index is looked at before a reader gives up, if it tells of another place each time.
const REFRESHES: u32 = 64;

/// A block that begins so early in its pack is fetched together with the pack's header.
const NEAR: u32 = 32 << 10;

type Blocks = Cache<(ObjectId, Place), Opened, ByLength>;
type Headers = Cache<ObjectId, PackRow>;

/// Reads blobs; cheap to share.
pub(crate) struct BlobReader {
    store: Store,
    keyring: Arc<Keyring>,
    index: Arc<Index>,
    memory: Arc<NodeMemory>,
    blocks: Arc<Blocks>,
    headers: Arc<Headers>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A block that was opened, and what opened it: who says something else of its pack would not have opened it.
#[derive(Clone)]
struct Opened {
    row: PackRow,
    plain: Bytes,
}

#[derive(Clone)]
struct ByLength;

impl Weighter<(ObjectId, Place), Opened> for ByLength {
    fn weight(&self, _: &(ObjectId, Place), block: &Opened) -> u64 {
        block.plain.len() as u64 + 128
    }
}

impl BlobReader {
    /// A reader with an empty cache.
    pub(crate) fn new(store: Store, keyring: Arc<Keyring>, index: Arc<Index>, memory: Arc<NodeMemory>) -> Self {
        let blocks = Arc::new(Cache::with_weighter(CACHE_BLOCKS, CACHE_BYTES, ByLength));
        Self { store, keyring, index, memory, blocks, headers: Arc::new(Cache::new(CACHE_HEADERS)) }
    }

    /// What is remembered of nodes.
    pub(crate) fn memory(&self) -> &NodeMemory {
        &self.memory
    }

    /// Gets ready to look something up in the index; who does so while it reads nodes by their hints saves round trips.
    pub(crate) async fn prepare(&self) -> Result<()> {
        futures::try_join!(self.index.ensure_listed(), self.index.load_recent()).map(drop)
    }

    /// Takes note of what a snapshot's record says of where its blobs are.
    pub(crate) fn learn(&self, root: &BlobId, stored: &Stored) {
        self.index.name_recent(&stored.packs);
        if let Some(hint) = stored.root_at {
            self.memory.keep_hint(*root, hint);
        }
    }

    /// Reads one blob: tries every place where it may be, and asks the store for newer segments before it gives up, as
    /// long as these tell of other places.
    pub(crate) async fn read(&self, kind: BlockKind, id: &BlobId) -> Result<Bytes> {
        let mut failure = None;
        if kind == BlockKind::Nodes
            && let Some(hint) = self.memory.hint(id)
        {
            match self.read_hinted(id, &hint).await {
                Ok(node) => return Ok(node),
                Err(error) => {
                    tracing::debug!(%id, %error, "a hint leads nowhere");
                    self.memory.forget_hint(id);
                    failure = Some(error);
                }
            }
        }
        let mut tried = HashSet::new();
        for refreshed in 0..REFRESHES {
            if refreshed > 0 {
                self.index.refresh(Want::Pages).await?;
            }
            let before = tried.len();
            let known = self.index.recent_places(id);
            if let Some(blob) = self.read_any(kind, id, known, &mut tried, &mut failure).await {
                return Ok(blob);
            }
            let (locations, missed) = self.index.locate(id).await?;
            if let Some(missed) = missed {
                failure = Some(Error::graver(failure, missed));
            }
            if let Some(blob) = self.read_any(kind, id, locations, &mut tried, &mut failure).await {
                return Ok(blob);
            }
            // Last, since the packs that an old record names are mostly gone.
            self.index.load_recent().await?;
            let loaded = self.index.recent_places(id);
            if let Some(blob) = self.read_any(kind, id, loaded, &mut tried, &mut failure).await {
                return Ok(blob);
            }
            // What was moved once may have been moved again before it was read.
            if refreshed > 0 && tried.len() == before {
                break;
            }
        }
        // As a last resort: packs that nothing tells of.
        self.index.load_strays().boxed().await?;
        let strays = self.index.recent_places(id);
        if let Some(blob) = self.read_any(kind, id, strays, &mut tried, &mut failure).await {
            return Ok(blob);
        }
        Err(failure.filter(|error| !error.is_not_found()).unwrap_or_else(|| self.unknown(id)))
    }

    /// Reads a blob from the first of these places that weren't tried and where it can be had.
    async fn read_any(
        &self,
        kind: BlockKind,
        id: &BlobId,
        locations: Vec<Location>,
        tried: &mut HashSet<Location>,
        failure: &mut Option<Error>,
    ) -> Option<Bytes> {
        for location in locations {
            // A chunk is never taken from among nodes, nor a node from among chunks.
            if location.place.kind != kind || !tried.insert(location) {
                continue;
            }
            match self.read_at(kind, id, &location).await {
                Ok(blob) => return Some(blob),
                Err(error) => *failure = Some(Error::graver(failure.take(), error)),
            }
        }
        None
    }

    /// Reads a node from where it lay when its parent was written.
    async fn read_hinted(&self, id: &BlobId, hint: &Hint) -> Result<Bytes> {
        let name = Name::Pack(hint.pack).to_string();
        hint.place.validate(&name)?;
        let block = self.block(hint.pack, None, &hint.place).await?;
        self.take_node(&block, id, hint, &name)
    }

    /// Cuts a node out of its block, and remembers what the block says of its children.
    fn take_node(&self, block: &Bytes, id: &BlobId, hint: &Hint, name: &str) -> Result<Bytes> {
        let node = self.cut(block, BlockKind::Nodes, id, hint.at, hint.length, name)?;
        // Hints that are damaged cost speed alone.
        if let Ok((_, hints)) = split_hints(block, name) {
            self.memory.keep_children(&node, hint.at, hints, &hint.pack, &hint.place);
        }
        Ok(node)
    }

    /// Where chunks are of which there are many; those that no segment at hand knows are missing from the answer.
    pub(crate) async fn locate_chunks(&self, mut ids: Vec<BlobId>) -> Result<HashMap<BlobId, Location>> {
        ids.sort_unstable();
        ids.dedup();
        let mut found = self.index.find_sorted(ids.into()).await?;
        found.retain(|_, location| location.place.kind == BlockKind::Data);
        Ok(found)
    }

    fn unknown(&self, id: &BlobId) -> Error {
        let unknown = || Error::corrupt(format!("blob {id}"), "no index segment says where it is");
        self.index.broken().unwrap_or_else(unknown)
    }

    /// Reads one blob from one place.
    pub(crate) async fn read_at(&self, kind: BlockKind, id: &BlobId, location: &Location) -> Result<Bytes> {
        let name = Name::Pack(location.pack.id).to_string();
        if location.place.kind != kind {
            return Err(Error::corrupt(name, format!("the index says that blob {id} is of the other kind")));
        }
        let Location { pack, place, at, length } = *location;
        let block = self.block(pack.id, Some(pack), &place).await?;
        match kind {
            BlockKind::Data => self.slice(&block, id, location, &name),
            BlockKind::Nodes => self.take_node(&block, id, &Hint { pack: pack.id, place, at, length }, &name),
        }
    }

    /// Cuts a blob out of its opened block and checks its id.
    pub(crate) fn slice(&self, block: &Bytes, id: &BlobId, location: &Location, object: &str) -> Result<Bytes> {
        self.cut(block, location.place.kind, id, location.at, location.length, object)
    }

    fn cut(&self, block: &Bytes, kind: BlockKind, id: &BlobId, at: u32, length: u32, object: &str) -> Result<Bytes> {
        let (start, end) = (at as usize, at as usize + length as usize);
        if end > block.len() {
            return Err(too_short(object));
        }
        let blob = block.slice(start..end);
        if kind.id_key(&self.keyring).id(&blob) != *id {
            return Err(Error::corrupt(object, format!("blob {id} has other content than its id says")));
        }
        Ok(blob)
    }

    /// Opens a block, or finds it among those opened lately; concurrent callers fetch it once.
    ///
    /// The fetch is a task of its own: one begun by a future that isn't polled, as a stream that reads ahead may not
    /// be, would hold up everyone else who wants the block.
    async fn block(&self, pack: ObjectId, row: Option<PackRow>, place: &Place) -> Result<Bytes> {
        let key = (pack, *place);
        if let Some(block) = self.blocks.get(&key).filter(|block| row.is_none_or(|row| row == block.row)) {
            return Ok(block.plain);
        }
        let (blocks, headers) = (Arc::clone(&self.blocks), Arc::clone(&self.headers));
        let (store, keyring, place) = (self.store.clone(), Arc::clone(&self.keyring), *place);
        cpu::apart(async move {
            // On the heap: a reader is polled deep in the stacks of its callers.
            let open = || {
                async {
                    let row = row.or_else(|| headers.get(&pack));
                    let (row, stored) = fetch_block(&store, pack, row, &place).await?;
                    let plain = open_block(Arc::clone(&keyring), row, place, stored).await?;
                    headers.insert(pack, row);
                    Ok::<_, Error>(Opened { row, plain })
                }
                .boxed()
            };
            let block = blocks.get_or_insert_async(&key, open()).await?;
            match row {
                // Another's word was at hand.
                Some(row) if row != block.row => open().await.map(|block| block.plain),
                _ => Ok(block.plain),
            }
        })
        .await
    }

    /// Reads neighbouring blocks of a pack with one request and opens them; the places are in order of their offsets.
    pub(crate) async fn blocks(&self, pack: &PackRow, places: &[Place]) -> Result<Vec<Bytes>> {
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(Vec::new()) };
        let range = first.range().start..last.range().end;
        let base = range.start;
        let name = Name::Pack(pack.id).to_string();
        let stored = self.store.get_range(&name, range).await?;
        let mut opening = Vec::with_capacity(places.len());
        for place in places {
            let range = place.range();
            #[expect(clippy::cast_possible_truncation, reason = "offsets in a pack")]
            let (start, end) = (range.start.wrapping_sub(base) as usize, range.end.wrapping_sub(base) as usize);
            if start > end || end > stored.len() {
                return Err(too_short(&name));
            }
            opening.push(open_block(Arc::clone(&self.keyring), *pack, *place, stored.slice(start..end)));
        }
        futures::future::try_join_all(opening).await
    }
}

/// A block's bytes as stored, and what opens it: from the pack's header where it isn't known, in the same round trip.
async fn fetch_block(store: &Store, pack: ObjectId, row: Option<PackRow>, place: &Place) -> Result<(PackRow, Bytes)> {
    let name = Name::Pack(pack).to_string();
    let (head, stored) = match row {
        Some(row) => return Ok((row, store.get_range(&name, place.range()).await?)),
        None if place.offset < BLOCKS_START as u32 => return Err(too_short(&name)),
        None if place.offset <= NEAR => {
            let both = store.get_range(&name, 0..place.range().end).await?;
            (both.slice(..BLOCKS_START), both.slice(place.offset as usize..))
        }
        None => {
            let head = store.get_range(&name, 0..BLOCKS_START as u64);
            futures::try_join!(head, store.get_range(&name, place.range()))?
        }
    };
    let (header, _) = parse_header(&head, &name).map_err(in_part)?;
    Ok((PackRow { id: pack, generation: header.generation, salt: header.salt }, stored))
}

/// Opens a block from its bytes as stored, on a CPU thread.
fn open_block(
    keyring: Arc<Keyring>,
    pack: PackRow,
    place: Place,
    stored: Bytes,
) -> impl Future<Output = Result<Bytes>> + Send + 'static {
    cpu::start(move || {
        let name = Name::Pack(pack.id).to_string();
        let opener = keyring.opener(Kind::Pack, pack.generation, &pack.salt, &name)?;
        place.open(&opener, stored.into(), &name).map(Bytes::from)
    })
}
