//! Gets blobs back, verified.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::cpu;
use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{Index, Location, PackRow, Segment, Want};
use crate::layout::Name;
use crate::object::too_short;
use crate::pack::{BlockKind, Place};
use crate::store::Store;

/// Opened blocks kept, in bytes.
const CACHE_BYTES: u64 = 32 << 20;

/// How many blocks the cache is laid out for.
const CACHE_BLOCKS: usize = 512;

/// Reads blobs; cheap to share.
pub(crate) struct BlobReader {
    store: Store,
    keyring: Arc<Keyring>,
    index: Arc<Index>,
    blocks: Arc<Cache<(ObjectId, u32), Bytes, ByLength>>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader").field("store", &self.store).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct ByLength;

impl Weighter<(ObjectId, u32), Bytes> for ByLength {
    fn weight(&self, _: &(ObjectId, u32), block: &Bytes) -> u64 {
        block.len() as u64 + 64
    }
}

impl BlobReader {
    /// A reader with an empty cache.
    pub(crate) fn new(store: Store, keyring: Arc<Keyring>, index: Arc<Index>) -> Self {
        let blocks = Arc::new(Cache::with_weighter(CACHE_BLOCKS, CACHE_BYTES, ByLength));
        Self { store, keyring, index, blocks }
    }

    /// Reads one blob: tries every place where the index knows it, and asks the store for newer segments once
    /// before it gives up.
    pub(crate) async fn read(&self, kind: BlockKind, id: &BlobId) -> Result<Bytes> {
        let mut failure = None;
        for refresh in [false, true] {
            if refresh {
                self.index.refresh(Want::Pages).await?;
            }
            for segment in self.index.known().await? {
                match self.read_from(&segment, kind, id).await {
                    Ok(Some(blob)) => return Ok(blob),
                    Ok(None) => {}
                    Err(error) => failure = Some(error),
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.unknown(id)))
    }

    async fn read_from(&self, segment: &Segment, kind: BlockKind, id: &BlobId) -> Result<Option<Bytes>> {
        match segment.find(id).await? {
            Some(location) => self.read_at(kind, id, &location).await.map(Some),
            None => Ok(None),
        }
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
        let block = self.block(&location.pack, &location.place).await?;
        self.slice(&block, id, location, &name)
    }

    /// Cuts a blob out of its opened block and checks its id.
    pub(crate) fn slice(&self, block: &Bytes, id: &BlobId, location: &Location, object: &str) -> Result<Bytes> {
        let (start, end) = (location.at as usize, location.at as usize + location.length as usize);
        if end > block.len() {
            return Err(too_short(object));
        }
        let blob = block.slice(start..end);
        if location.place.kind.id_key(&self.keyring).id(&blob) != *id {
            return Err(Error::corrupt(object, format!("blob {id} has other content than its id says")));
        }
        Ok(blob)
    }

    /// Opens a block, or finds it among those opened lately; concurrent callers fetch it once.
    ///
    /// The fetch is a task of its own: one begun by a future that isn't polled, as a stream that reads ahead may not
    /// be, would hold up everyone else who wants the block.
    async fn block(&self, pack: &PackRow, place: &Place) -> Result<Bytes> {
        let key = (pack.id, place.number);
        if let Some(block) = self.blocks.get(&key) {
            return Ok(block);
        }
        let (blocks, store, keyring) = (Arc::clone(&self.blocks), self.store.clone(), Arc::clone(&self.keyring));
        let (pack, place) = (*pack, *place);
        cpu::apart(async move {
            let fetch = async {
                let stored = store.get_range(&Name::Pack(pack.id).to_string(), place.range()).await?;
                open_block(keyring, pack, place, stored).await
            };
            blocks.get_or_insert_async(&key, fetch).await
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
