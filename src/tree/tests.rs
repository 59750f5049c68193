//! Property tests of the trees against plain maps, and what is refused.

mod hostile;
mod map;
mod sequences;
mod shape;

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::build::Root;
use super::*;
use crate::error::{Error, Result};
use crate::id::BlobId;

/// Nodes in memory, and how many were read and written.
#[derive(Default)]
struct Nodes {
    nodes: Mutex<HashMap<BlobId, Bytes>>,
    reads: AtomicUsize,
    written: AtomicUsize,
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

fn id_of(node: &[u8]) -> BlobId {
    let mut id = [0; BlobId::LEN];
    id.copy_from_slice(&blake3::hash(node).as_bytes()[..BlobId::LEN]);
    BlobId::new(id)
}

impl Nodes {
    fn put(&self, node: impl Into<Bytes>) -> BlobId {
        let node = node.into();
        let id = id_of(&node);
        self.nodes.lock().unwrap().insert(id, node);
        id
    }

    fn bytes(&self, id: &BlobId) -> Bytes {
        self.nodes.lock().unwrap()[id].clone()
    }

    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::Relaxed)
    }

    fn written(&self) -> usize {
        self.written.swap(0, Ordering::Relaxed)
    }
}

impl ReadNode for Nodes {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let node = self.nodes.lock().unwrap().get(id).cloned();
        node.ok_or_else(|| Error::not_found(id))
    }
}

impl WriteNode for &Nodes {
    fn write_node(&mut self, node: Vec<u8>) -> Result<BlobId> {
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(self.put(node))
    }
}

/// Written nodes can't be read before the edit is over, as in a pack that isn't stored yet.
#[derive(Default)]
struct Pending(Vec<Vec<u8>>);

impl WriteNode for Pending {
    fn write_node(&mut self, node: Vec<u8>) -> Result<BlobId> {
        let id = id_of(&node);
        self.0.push(node);
        Ok(id)
    }
}

type Model = BTreeMap<Key, Entry>;

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

fn file(content: &[u8]) -> Entry {
    Entry::new(EntryKind::File, Bytes::copy_from_slice(content).into(), Payload::default())
}

/// Small nodes, so that small trees are high.
fn small() -> Splitter {
    let parameters = TreeParameters {
        leaf_mean: 6,
        leaf_cap: 150,
        fan_out: 4,
        inner_cap: 300,
        sequence_mean: 8,
        pieces_max: 5,
        ..TreeParameters::default()
    };
    Splitter::new(parameters, [7; 32])
}

fn normal() -> Splitter {
    Splitter::new(TreeParameters::default(), [7; 32])
}

fn build(nodes: &Nodes, splitter: &Splitter, model: &Model) -> Root {
    let mut builder = TreeBuilder::new(splitter.clone());
    model.iter().for_each(|(key, entry)| builder.push(key, entry, &mut &*nodes).unwrap());
    builder.finish(&mut &*nodes).unwrap()
}

fn apply(nodes: &Nodes, splitter: &Splitter, root: &Root, edits: Vec<(Key, Edit)>) -> Root {
    apply_counted(nodes, splitter, root, edits).0
}

fn apply_counted(nodes: &Nodes, splitter: &Splitter, root: &Root, edits: Vec<(Key, Edit)>) -> (Root, Tally) {
    let mut out = Pending::default();
    let edited = block_on(edit(nodes, &mut out, splitter, &root.id, edits)).unwrap();
    out.0.into_iter().for_each(|node| drop(WriteNode::write_node(&mut &*nodes, node)));
    (edited.root, edited.tally)
}

/// A few folders, so that keys nest and collide.
fn keys() -> impl Strategy<Value = Key> {
    prop::collection::vec("[abc!]{1,2}|[a-z]{3}", 1..4).prop_map(|parts| Key::new(parts).unwrap())
}

fn entries() -> impl Strategy<Value = Entry> {
    let folder = Entry::new(EntryKind::Folder, Payload::default(), Payload::default());
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|content| file(&content)),
        1 => Just(file(&[9; 400])),
        1 => Just(folder),
    ]
}

fn models(size: usize) -> impl Strategy<Value = Model> {
    prop::collection::btree_map(keys(), entries(), 0..size)
}
