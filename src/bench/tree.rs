//! A snapshot's tree over nodes in memory.

use std::collections::HashMap;

use bytes::Bytes;

use crate::clock::Surroundings;
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::tree::{
    Edit, Entry, EntryKind, Key, Payload, ReadNode, Splitter, TreeBuilder, TreeParameters, WriteNode, edit, get,
};

/// A tree of numbered entries, each about as large as a contact card.
pub struct Tree {
    nodes: Nodes,
    splitter: Splitter,
    root: BlobId,
}

impl Tree {
    /// Builds a tree of this many entries.
    pub fn build(entries: u64) -> Result<Self> {
        let keyring = Keyring::generate(&Surroundings::default());
        let splitter = Splitter::new(TreeParameters::default(), *keyring.tree_cuts());
        let mut nodes = Nodes { keyring, stored: HashMap::new() };
        let mut builder = TreeBuilder::new(splitter.clone());
        for number in 0..entries {
            builder.push(&key(number)?, &card(number, 0), &mut nodes)?;
        }
        let root = builder.finish(&mut nodes)?.id;
        Ok(Self { nodes, splitter, root })
    }

    /// Bytes of all nodes.
    pub fn bytes(&self) -> u64 {
        self.nodes.stored.values().map(|node| node.len() as u64).sum()
    }

    /// Changes the entries with these numbers, sorted; returns how many nodes and bytes that wrote.
    pub async fn edit(&self, numbers: &[u64]) -> Result<(usize, u64)> {
        let change = |number: &u64| Ok((key(*number)?, Edit::Put(card(*number, 1))));
        let edits = numbers.iter().map(change).collect::<Result<_>>()?;
        let mut written = Written { nodes: &self.nodes, count: 0, bytes: 0 };
        edit(&self.nodes, &mut written, &self.splitter, &self.root, edits).await?;
        Ok((written.count, written.bytes))
    }

    /// Whether there is an entry with this number.
    pub async fn lookup(&self, number: u64) -> Result<bool> {
        Ok(get(&self.nodes, &self.root, &key(number)?).await?.is_some())
    }
}

/// The path of an entry: a hundred to a folder.
fn key(number: u64) -> Result<Key> {
    Key::from_path(format!("users/{:08}/contacts/{number:010}.vcf", number / 100))
}

fn card(number: u64, version: u64) -> Entry {
    let card = format!("BEGIN:VCARD\nFN:Person {number}\nTEL:+{}\nREV:{version}\nEND:VCARD\n", number * 7919);
    Entry::new(EntryKind::File, Payload::from(card), Payload::default())
}

struct Nodes {
    keyring: Keyring,
    stored: HashMap<BlobId, Bytes>,
}

impl ReadNode for Nodes {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        self.stored.get(id).cloned().ok_or_else(|| Error::not_found(id))
    }
}

impl WriteNode for Nodes {
    fn write_node(&mut self, node: Vec<u8>) -> Result<BlobId> {
        let id = self.keyring.node_id().id(&node);
        self.stored.insert(id, node.into());
        Ok(id)
    }
}

/// Counts new nodes and forgets them, so that every edit begins from the same tree.
struct Written<'a> {
    nodes: &'a Nodes,
    count: usize,
    bytes: u64,
}

impl WriteNode for Written<'_> {
    fn write_node(&mut self, node: Vec<u8>) -> Result<BlobId> {
        let id = self.nodes.keyring.node_id().id(&node);
        self.count += 1;
        self.bytes += node.len() as u64;
        Ok(id)
    }
}
