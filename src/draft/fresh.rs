//! Nodes that were just written, kept at hand until the repository can give them back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::blobs::BlobReader;
use crate::error::Result;
use crate::id::BlobId;
use crate::tree::ReadNode;

/// When the nodes since the last flush come to this, they should be flushed, and are then read back where needed.
const LARGE: usize = 32 << 20;

/// Reads nodes that were just written before it asks the repository; clones share them.
#[derive(Clone)]
pub(crate) struct FreshNodes {
    reader: Arc<BlobReader>,
    fresh: Arc<Mutex<Fresh>>,
}

#[derive(Default)]
struct Fresh {
    nodes: HashMap<BlobId, Bytes>,
    bytes: usize,
}

impl FreshNodes {
    /// None yet, before those of a repository.
    pub(crate) fn new(reader: &Arc<BlobReader>) -> Self {
        Self { reader: Arc::clone(reader), fresh: Arc::default() }
    }

    fn fresh(&self) -> MutexGuard<'_, Fresh> {
        // Nothing that can panic runs under the lock.
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a node.
    pub(crate) fn insert(&self, id: BlobId, node: Bytes) {
        let mut fresh = self.fresh();
        fresh.bytes += node.len();
        fresh.nodes.insert(id, node);
    }

    /// Whether it is time to flush them and [`Self::clear`].
    pub(crate) fn is_large(&self) -> bool {
        self.fresh().bytes >= LARGE
    }

    /// Forgets them: they have been flushed.
    pub(crate) fn clear(&self) {
        *self.fresh() = Fresh::default();
    }
}

impl ReadNode for FreshNodes {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        let fresh = self.fresh().nodes.get(id).cloned();
        match fresh {
            Some(node) => Ok(node),
            None => self.reader.read_node(id).await,
        }
    }
}
