//! Hints: where the children of a block's nodes lay when the block was written.
//!
//! A block of nodes ends in them, so that a reader who has a node can go on to
//! its children without an index. They stand outside the nodes and their ids:
//! the same node may carry other hints elsewhere, and one that no longer leads
//! to its blob is passed over. Nothing may rely on them but speed.
//!
//! Several nodes of a block share the packs and blocks that they point into.

use std::collections::HashMap;

use crate::codec::{self, Decode, Encode};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::object;
use crate::pack::block::{BlockKind, Encoding, Place};

/// Length of what says how long the hints are, at the very end.
const LENGTH_LEN: usize = 4;

/// Where a node lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Hint {
    pub(crate) pack: ObjectId,
    pub(crate) place: Place,
    /// Where the node begins in the block's plaintext.
    pub(crate) at: u32,
    /// The node's length in bytes.
    pub(crate) length: u32,
}

/// The block in which a child lies, as seen from the block of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spot {
    /// In the same block.
    Here,
    /// In an earlier block of the same pack, whose id isn't known yet.
    Nearby(Place),
    /// In a pack that is sealed.
    Away(ObjectId, Place),
}

/// Where a child of a node lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChildSpot {
    pub(crate) spot: Spot,
    pub(crate) at: u32,
    pub(crate) length: u32,
}

/// The stored form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Hints {
    packs: Vec<ObjectId>,
    blocks: Vec<BlockHint>,
    nodes: Vec<NodeHints>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct BlockHint {
    /// 0 for the pack in which the hints stand, or one more than an index of `packs`.
    pack: u32,
    encoding: Encoding,
    number: u32,
    offset: u32,
    stored_len: u32,
    plain_len: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct NodeHints {
    /// Where the node begins in this block.
    at: u32,
    /// One for each child, in order.
    children: Vec<ChildHint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct ChildHint {
    /// 0 where nothing is known, 1 for the block in which the hints stand, or two more than an index of `blocks`.
    block: u32,
    at: u32,
    length: u32,
}

/// Gathers the hints of one block.
#[derive(Debug, Default)]
pub(crate) struct HintsBuilder {
    hints: Hints,
    packs: HashMap<ObjectId, u32>,
    blocks: HashMap<Spot, u32>,
}

impl HintsBuilder {
    /// Says where the children of the node at `at` are, in order, as far as that is known.
    pub(super) fn push(&mut self, at: u32, children: &[Option<ChildSpot>]) {
        let children = children.iter().map(|child| self.child(child.as_ref())).collect();
        self.hints.nodes.push(NodeHints { at, children });
    }

    fn child(&mut self, child: Option<&ChildSpot>) -> ChildHint {
        let Some(ChildSpot { spot, at, length }) = child else {
            return ChildHint { block: 0, at: 0, length: 0 };
        };
        let block = match spot {
            Spot::Here => 1,
            Spot::Nearby(place) => self.block(*spot, None, place),
            Spot::Away(pack, place) => self.block(*spot, Some(pack), place),
        };
        ChildHint { block, at: *at, length: *length }
    }

    fn block(&mut self, spot: Spot, pack: Option<&ObjectId>, place: &Place) -> u32 {
        if let Some(block) = self.blocks.get(&spot) {
            return *block;
        }
        let pack = pack.map_or(0, |pack| self.pack(pack));
        let Place { encoding, number, offset, stored_len, plain_len, .. } = *place;
        self.hints.blocks.push(BlockHint { pack, encoding, number, offset, stored_len, plain_len });
        // At most as many as there are children in a block, so both fit.
        let block = u32::try_from(self.hints.blocks.len() + 1).unwrap_or(0);
        self.blocks.insert(spot, block);
        block
    }

    fn pack(&mut self, pack: &ObjectId) -> u32 {
        if let Some(number) = self.packs.get(pack) {
            return *number;
        }
        self.hints.packs.push(*pack);
        let number = u32::try_from(self.hints.packs.len()).unwrap_or(0);
        self.packs.insert(*pack, number);
        number
    }

    /// Appends the hints to the plaintext of their block.
    pub(super) fn finish(self, plain: &mut Vec<u8>) {
        let start = plain.len();
        codec::encode_into(&self.hints, plain);
        let length = u32::try_from(plain.len() - start).unwrap_or(u32::MAX);
        plain.extend_from_slice(&length.to_le_bytes());
    }
}

/// Splits the plaintext of a block of nodes into the nodes and its hints; `object` names its pack.
pub(crate) fn split_hints<'a>(plain: &'a [u8], object: &str) -> Result<(&'a [u8], &'a [u8])> {
    let (rest, length) = plain.split_last_chunk::<LENGTH_LEN>().ok_or_else(|| object::too_short(object))?;
    let length = u32::from_le_bytes(*length) as usize;
    let start = rest.len().checked_sub(length).ok_or_else(|| object::too_short(object))?;
    Ok(rest.split_at(start))
}

impl Hints {
    /// Reads what stands behind the nodes of a block.
    pub(crate) fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        let hints: Self = codec::decode(bytes, object)?;
        let known = |block: u32| block < 2 || (block as usize - 2) < hints.blocks.len();
        let sound = hints.blocks.iter().all(|block| block.pack as usize <= hints.packs.len())
            && hints.nodes.is_sorted_by(|a, b| a.at < b.at)
            && hints.nodes.iter().flat_map(|node| &node.children).all(|child| known(child.block));
        if sound { Ok(hints) } else { Err(Error::corrupt(object, "its hints point nowhere")) }
    }

    /// Where the children of the node at `at` are, in order; `pack` and `place` are where these hints stand.
    pub(crate) fn children(&self, at: u32, pack: &ObjectId, place: &Place) -> Vec<Option<Hint>> {
        let Ok(index) = self.nodes.binary_search_by_key(&at, |node| node.at) else { return Vec::new() };
        let resolve = |child: &ChildHint| {
            let (pack, place) = match child.block {
                0 => return None,
                1 => (*pack, *place),
                block => self.place(self.blocks.get(block as usize - 2)?, pack)?,
            };
            Some(Hint { pack, place, at: child.at, length: child.length })
        };
        self.nodes[index].children.iter().map(resolve).collect()
    }

    fn place(&self, block: &BlockHint, own: &ObjectId) -> Option<(ObjectId, Place)> {
        let BlockHint { pack, encoding, number, offset, stored_len, plain_len } = *block;
        let pack = match pack {
            0 => *own,
            pack => *self.packs.get(pack as usize - 1)?,
        };
        Some((pack, Place { kind: BlockKind::Nodes, encoding, number, offset, stored_len, plain_len }))
    }
}
