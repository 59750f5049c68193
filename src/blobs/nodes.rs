//! Tree nodes as blobs.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::blobs::BlobReader;
use crate::crypto::Keyring;
use crate::error::{Error, Result};
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

/// Nodes that are handed on at a time.
const TOGETHER: usize = 32;

/// Hands nodes on as a tree writes them, with their ids, so that they are stored while the tree goes on.
#[derive(Debug)]
pub(crate) struct NodeSender {
    keyring: Arc<Keyring>,
    nodes: Vec<(BlobId, Bytes)>,
    sender: mpsc::UnboundedSender<Vec<(BlobId, Bytes)>>,
}

impl NodeSender {
    /// Hands nodes to whoever has the receiver.
    pub(crate) fn new(keyring: Arc<Keyring>) -> (Self, mpsc::UnboundedReceiver<Vec<(BlobId, Bytes)>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { keyring, nodes: Vec::new(), sender }, receiver)
    }

    /// Hands on what is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.hand_on()
    }

    fn hand_on(&mut self) -> Result<()> {
        let sent = self.sender.send(std::mem::take(&mut self.nodes));
        sent.map_err(|_| Error::worker("nobody takes the nodes of a tree any more"))
    }
}

impl WriteNode for NodeSender {
    fn write_node(&mut self, node: Vec<u8>) -> Result<BlobId> {
        let id = self.keyring.node_id().id(&node);
        self.nodes.push((id, node.into()));
        if self.nodes.len() >= TOGETHER {
            self.hand_on()?;
        }
        Ok(id)
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
