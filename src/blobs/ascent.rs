//! From leaves to the root: where the nodes of a writer came to lie.
//!
//! Nodes that have children are held back until their children are in blocks
//! that are compressed, or in the block that is being gathered; then it is known
//! where the children lie, and the block says so in its hints. Of a pack that is
//! still open the place of each block is known, but not the id; of one that is
//! closed the id is known once it is sealed, long before it is uploaded.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::blobs::{NodeMemory, Parts};
use crate::crypto::TAG_LEN;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::RecentPack;
use crate::pack::{BLOCKS_START, Block, BlockKind, ChildSpot, CompressedBlock, Hint, Place, Spot};

/// Where nodes lie that aren't uploaded yet, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Ascent {
    /// Nodes with children, by their level.
    held: BTreeMap<u8, Vec<(BlobId, Bytes)>>,
    held_bytes: usize,
    /// Nodes that are in a block: its number, where they begin, and their length.
    gathered: HashMap<BlobId, (u32, u32, u32)>,
    /// The number of the block that is being gathered.
    block: u32,
    /// Blocks that are in a pack: its number, and their place.
    blocks: HashMap<u32, (u32, Place)>,
    /// The number of the pack that is open.
    pack: u32,
    /// Packs that were closed.
    packs: HashMap<u32, Sealing>,
    under_way: bool,
}

#[derive(Debug)]
enum Sealing {
    UnderWay(oneshot::Receiver<ObjectId>),
    Sealed(ObjectId),
}

impl Ascent {
    /// Holds back a node that has children.
    pub(super) fn hold(&mut self, id: BlobId, node: Bytes) {
        self.held_bytes += node.len();
        self.held.entry(node.first().copied().unwrap_or_default()).or_default().push((id, node));
    }

    /// The length of what is held back.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// What was held back, children before their parents.
    pub(super) fn take_held(&mut self) -> impl Iterator<Item = (BlobId, Bytes)> + use<> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held).into_values().flatten()
    }

    /// From here to the end, what is gathered may point into the pack that is open.
    pub(super) fn begin(&mut self) {
        self.under_way = true;
    }

    /// All that was held back is in a pack.
    pub(super) fn end(&mut self) {
        self.under_way = false;
    }

    /// Whether the pack that is open must stay open.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// A node is about to be added to the block that is being gathered.
    pub(super) fn gathered(&mut self, id: BlobId, block: &Block, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.gathered.insert(id, (self.block, block.end(), length));
    }

    /// The block that is being gathered is full; its number.
    pub(super) fn end_block(&mut self) -> u32 {
        self.block += 1;
        self.block - 1
    }

    /// A block goes behind those that are in the pack that is open.
    pub(super) fn placed(&mut self, number: u32, before: &[CompressedBlock], block: &CompressedBlock) {
        let stored_len = |block: &CompressedBlock| block.stored.len() + TAG_LEN;
        let offset = BLOCKS_START + before.iter().map(stored_len).sum::<usize>();
        #[expect(clippy::cast_possible_truncation, reason = "numbers and offsets in a pack, which has a bound")]
        let place = Place {
            kind: BlockKind::Nodes,
            encoding: block.encoding,
            number: before.len() as u32,
            offset: offset as u32,
            stored_len: stored_len(block) as u32,
            plain_len: block.plain_len,
        };
        self.blocks.insert(number, (self.pack, place));
    }

    /// The pack that is open is closed; who seals it tells its id.
    pub(super) fn end_pack(&mut self) -> oneshot::Sender<ObjectId> {
        let (tell, told) = oneshot::channel();
        self.packs.insert(self.pack, Sealing::UnderWay(told));
        self.pack += 1;
        tell
    }

    /// Whether a node is in a block that is full and not in a pack yet.
    pub(super) fn is_compressing(&self, id: &BlobId) -> bool {
        self.gathered.get(id).is_some_and(|(block, ..)| *block != self.block && !self.blocks.contains_key(block))
    }

    /// Where a node lies, as seen from the block that is being gathered; nothing where that isn't known.
    ///
    /// It must not be in a block that is being compressed.
    pub(super) async fn spot(&mut self, id: &BlobId, parts: &Parts) -> Result<Option<ChildSpot>> {
        let Some((block, at, length)) = self.gathered.get(id).copied() else {
            let hint = match parts.memory.hint(id) {
                Some(hint) => Some(hint),
                None => parts
                    .index
                    .find_local(id)?
                    .filter(|found| found.place.kind == BlockKind::Nodes)
                    .map(|found| Hint { pack: found.pack.id, place: found.place, at: found.at, length: found.length }),
            };
            return Ok(hint.map(|Hint { pack, place, at, length }| ChildSpot {
                spot: Spot::Away(pack, place),
                at,
                length,
            }));
        };
        if block == self.block {
            return Ok(Some(ChildSpot { spot: Spot::Here, at, length }));
        }
        let Some((pack, place)) = self.blocks.get(&block).copied() else { return Ok(None) };
        let spot = if pack == self.pack { Spot::Nearby(place) } else { Spot::Away(self.sealed(pack).await?, place) };
        Ok(Some(ChildSpot { spot, at, length }))
    }

    /// The id of a pack that was closed.
    async fn sealed(&mut self, number: u32) -> Result<ObjectId> {
        let pack = self.packs.get_mut(&number).ok_or_else(|| Error::worker("a pack was lost"))?;
        if let Sealing::UnderWay(told) = pack {
            let id = told.await.map_err(|_| Error::worker("a pack was not sealed"))?;
            *pack = Sealing::Sealed(id);
        }
        match pack {
            Sealing::Sealed(id) => Ok(*id),
            Sealing::UnderWay(_) => Err(Error::worker("a pack was not sealed")),
        }
    }

    /// Everything was uploaded.
    pub(super) fn clear(&mut self) {
        self.gathered.clear();
        self.blocks.clear();
        self.packs.clear();
    }

    /// A pack was uploaded: whoever looks for its nodes finds them by the memory.
    pub(super) fn uploaded(&mut self, pack: &RecentPack, memory: &NodeMemory) {
        for (place, entry) in pack.footer.places().filter(|(place, _)| place.kind == BlockKind::Nodes) {
            let mut at = 0u32;
            for (id, length) in &entry.blobs {
                memory.keep_hint(*id, Hint { pack: pack.pack.id, place, at, length: *length });
                self.gathered.remove(id);
                at = at.saturating_add(*length);
            }
        }
    }
}
