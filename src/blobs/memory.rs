//! What is remembered of nodes: their bytes, and where others lay.
//!
//! Shared by readers and writers of a repository. Both are caches: what isn't
//! in them is read, and looked up in the index.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::id::{BlobId, ObjectId};
use crate::pack::{Hint, Hints, Place};
use crate::tree;

/// The mean length of nodes, by which the cache is laid out.
const NODE_MEAN: u64 = 4 << 10;

/// How many places of nodes are remembered, at some hundred bytes each.
const HINTS: usize = 1 << 17;

/// Verified nodes, and hints at the places of others.
pub(crate) struct NodeMemory {
    nodes: Cache<BlobId, Bytes, ByLength>,
    hints: Cache<BlobId, Hint>,
}

impl std::fmt::Debug for NodeMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeMemory").field("nodes", &self.nodes.len()).field("hints", &self.hints.len()).finish()
    }
}

#[derive(Clone)]
struct ByLength;

impl Weighter<BlobId, Bytes> for ByLength {
    fn weight(&self, _: &BlobId, node: &Bytes) -> u64 {
        node.len() as u64 + 64
    }
}

impl NodeMemory {
    /// Keeps up to `bytes` of nodes.
    pub(crate) fn new(bytes: u64) -> Self {
        let expected = usize::try_from(bytes / NODE_MEAN).unwrap_or(usize::MAX).max(16);
        Self { nodes: Cache::with_weighter(expected, bytes, ByLength), hints: Cache::new(HINTS) }
    }

    /// A node that was verified before.
    pub(crate) fn node(&self, id: &BlobId) -> Option<Bytes> {
        self.nodes.get(id)
    }

    /// Keeps a node that has this id.
    pub(crate) fn keep_node(&self, id: BlobId, node: &[u8]) {
        // A copy, so that it doesn't keep the whole block that it was cut from.
        self.nodes.insert(id, Bytes::copy_from_slice(node));
    }

    /// Where a node may lie.
    pub(crate) fn hint(&self, id: &BlobId) -> Option<Hint> {
        self.hints.get(id)
    }

    /// Remembers where a node lies.
    pub(crate) fn keep_hint(&self, id: BlobId, hint: Hint) {
        self.hints.insert(id, hint);
    }

    /// Forgets where a node was said to lie.
    pub(crate) fn forget_hint(&self, id: &BlobId) {
        self.hints.remove(id);
    }

    /// Remembers where the children of an inner node lay, by the hints in its block.
    ///
    /// `node` begins at `at` in the block, whose hints are `hints`. Hints that can't be read are as good as none.
    pub(super) fn keep_children(&self, node: &[u8], at: u32, hints: &[u8], pack: &ObjectId, place: &Place) {
        if !tree::has_children(node) {
            return;
        }
        let (Ok(children), Ok(hints)) = (tree::children(node), Hints::decode(hints, "a block")) else { return };
        for (child, hint) in children.into_iter().zip(hints.children(at, pack, place)) {
            if let Some(hint) = hint {
                self.hints.insert(child, hint);
            }
        }
    }
}
