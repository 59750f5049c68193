//! Tree nodes as blobs.

use std::sync::Arc;

use bytes::Bytes;

use crate::blobs::BlobReader;
use crate::crypto::Keyring;
use crate::error::Result;
use crate::id::BlobId;
use crate::pack::BlockKind;
use crate::tree::{ReadNode, WriteNode};

impl ReadNode for BlobReader {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        if let Some(node) = self.memory().node(id) {
            return Ok(node);
        }
        let node = self.read(BlockKind::Nodes, id).await?;
        self.memory().keep_node(*id, &node);
        Ok(node)
    }
}

/// Collects nodes that a tree writes, with their ids, until they are handed to a [`crate::blobs::BlobWriter`].
#[derive(Debug)]
pub(crate) struct NodeBuffer {
    keyring: Arc<Keyring>,
    nodes: Vec<(BlobId, Bytes)>,
}

impl NodeBuffer {
    /// An empty buffer.
    pub(crate) fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring, nodes: Vec::new() }
    }

    /// Takes out what was collected, children before their parents.
    pub(crate) fn take(&mut self) -> Vec<(BlobId, Bytes)> {
        std::mem::take(&mut self.nodes)
    }
}

impl WriteNode for NodeBuffer {
    fn write_node(&mut self, node: Vec<u8>) -> Result<BlobId> {
        let id = self.keyring.node_id().id(&node);
        self.nodes.push((id, node.into()));
        Ok(id)
    }
}
