//! Trees and sequences whose parents say nearly what is true of their children.
//!
//! Bytes alone hardly ever make a parent and a child that fit, so these are built
//! from the bottom up, with what each parent says put out of true here and there.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Runtime;

use crate::codec;
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::tree::{
    Entry, EntryKind, Key, Node, NodeRef, Payload, Piece, ReadNode, SequenceRef, SequenceRoot, SequenceVisitor, Span,
    Visitor, decode_node, diff, get, list, pieces, range, visit_nodes, visit_sequence,
};

/// More nodes show nothing that these can't.
const NODES_MAX: usize = 48;

/// How much of what a tree claims to hold is read.
const READ_MAX: usize = 3000;

/// The bit that says that a node is of a sequence.
const SEQUENCE: u8 = 0x80;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| match tokio::runtime::Builder::new_current_thread().build() {
    Ok(runtime) => runtime,
    Err(error) => panic!("no runtime: {error}"),
});

/// Takes choices from bytes; zeros once they are used up.
struct Draw<'a>(&'a [u8]);

impl Draw<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit.max(1)
    }

    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ ..=250 => u64::from(small),
            251 => u64::from(u32::MAX),
            252 => u64::MAX / 2,
            253 => u64::MAX,
            _ => u64::from(self.byte()) << 8,
        }
    }

    fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// Nodes by number, which their ids repeat.
#[derive(Default)]
struct Nodes {
    nodes: Vec<Bytes>,
    /// Of each, what is true of it: level, total and first key.
    facts: Vec<(u8, u64, Option<Key>)>,
}

impl Nodes {
    fn id(number: usize) -> BlobId {
        let mut id = [0; BlobId::LEN];
        id[..8].copy_from_slice(&(number as u64).to_le_bytes());
        BlobId::new(id)
    }

    fn number(id: &BlobId) -> Option<usize> {
        let number = u64::from_le_bytes(*id.as_bytes().first_chunk()?);
        usize::try_from(number).ok()
    }

    fn push(&mut self, form: u8, items: &[u8], total: u64, first: Option<Key>) {
        self.nodes.push([&[form], items].concat().into());
        self.facts.push((form & !SEQUENCE, total, first));
    }

    /// A node of a level, or any.
    fn pick(&self, draw: &mut Draw<'_>, level: u8) -> Option<usize> {
        let fitting: Vec<_> = (0..self.nodes.len()).filter(|number| self.facts[*number].0 == level).collect();
        match draw.byte() {
            any @ 251.. if !self.nodes.is_empty() => Some(usize::from(any - 250) % self.nodes.len()),
            _ => fitting.get(draw.below(fitting.len())).copied(),
        }
    }
}

impl ReadNode for Nodes {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        let node = Self::number(id).and_then(|number| self.nodes.get(number));
        node.cloned().ok_or_else(|| Error::not_found(format!("node {id}")))
    }
}

/// A little off, now and then.
fn off(draw: &mut Draw<'_>, number: u64) -> u64 {
    match draw.byte() {
        ..=240 => number,
        by => number.wrapping_add(u64::from(by)).wrapping_sub(248),
    }
}

#[derive(Default)]
struct Count {
    seen: HashSet<BlobId>,
    told: usize,
    failed: usize,
}

impl SequenceVisitor for Count {
    fn enter(&mut self, id: &BlobId) -> bool {
        self.seen.insert(*id)
    }

    fn piece(&mut self, piece: &Piece) {
        assert!(piece.length() > 0, "a piece has bytes");
        self.told += 1;
    }

    fn failed(&mut self, _id: &BlobId, _error: Error) -> Result<()> {
        self.failed += 1;
        Ok(())
    }
}

impl Visitor for Count {
    fn enter(&mut self, id: &BlobId) -> bool {
        self.seen.insert(*id)
    }

    fn entry(&mut self, _key: &Key, _entry: &Entry) {
        self.told += 1;
    }

    fn failed(&mut self, _id: &BlobId, _span: &Span, _error: Error) -> Result<()> {
        self.failed += 1;
        Ok(())
    }
}

/// A sequence of pieces, nearly sound: read from several places, and walked.
pub fn sequence(data: &[u8]) {
    let mut draw = Draw(data);
    let mut nodes = Nodes::default();
    while !draw.is_done() && nodes.nodes.len() < NODES_MAX {
        add_lengths(&mut nodes, &mut draw);
    }
    let Some((height, total, _)) = nodes.facts.last().cloned() else { return };
    let root = SequenceRoot { root: Nodes::id(nodes.nodes.len() - 1), length: off(&mut draw, total), height };
    RUNTIME.block_on(async {
        let payload = Payload::Sequence(root);
        for offset in [0, 1, total / 2, total.saturating_sub(1), total, u64::MAX] {
            let mut read = pieces(&nodes, &payload, offset, 4).take(READ_MAX);
            let mut end = None;
            while let Some(Ok((start, piece))) = read.next().await {
                assert!(end.is_none_or(|end| end == start), "pieces follow one another");
                assert!(start.saturating_add(piece.length()) > offset, "only pieces from the offset on are read");
                end = Some(start.saturating_add(piece.length()));
                assert!(end <= Some(root.length), "no piece lies beyond the end");
            }
        }
        let mut count = Count::default();
        assert!(visit_sequence(&nodes, &root, 4, &mut count).await.is_ok(), "no failure is passed on");
        assert!(count.told + count.failed > 0, "something is told of each root");
    });
}

fn add_lengths(nodes: &mut Nodes, draw: &mut Draw<'_>) {
    let (level, count) = (draw.below(5) as u8, 1 + draw.below(5));
    if level == 0 {
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(match draw.byte() {
                kind @ ..=200 => Piece::Chunk {
                    id: BlobId::new([kind; BlobId::LEN]),
                    length: u32::try_from(draw.number()).unwrap_or(u32::MAX),
                    repeat: 1 + draw.below(3) as u32,
                },
                _ => Piece::Hole { length: draw.number() },
            });
        }
        let total = items.iter().fold(0, |sum: u64, piece| sum.wrapping_add(piece.length()));
        nodes.push(SEQUENCE, &codec::encode(&items), total, None);
        return;
    }
    let mut items = Vec::new();
    for _ in 0..count {
        let Some(child) = nodes.pick(draw, level - 1) else { continue };
        items.push(SequenceRef { id: Nodes::id(child), length: off(draw, nodes.facts[child].1) });
    }
    if !items.is_empty() {
        let total = items.iter().fold(0, |sum: u64, child| sum.wrapping_add(child.length));
        nodes.push(SEQUENCE | level, &codec::encode(&items), total, None);
    }
}

/// A snapshot's tree, nearly sound: read in several ways, walked, and compared with another.
pub fn tree(data: &[u8]) {
    let mut draw = Draw(data);
    let mut nodes = Nodes::default();
    let mut next = 0;
    while !draw.is_done() && nodes.nodes.len() < NODES_MAX {
        add_entries(&mut nodes, &mut draw, &mut next);
    }
    let Some(last) = nodes.nodes.len().checked_sub(1) else { return };
    RUNTIME.block_on(async {
        let root = Nodes::id(last);
        let whole = read_range(&nodes, &root, Span::all()).await;
        if let Some(found) = &whole {
            let total = decode_node(&nodes.nodes[last], "the root").map(|node| node.total());
            assert_eq!(total.ok(), Some(found.len() as u64), "a tree that reads has as many entries as it says");
            for (key, entry) in found.iter().take(16) {
                assert_eq!(get(&nodes, &root, key).await.ok().flatten().as_ref(), Some(entry), "what is read is found");
            }
        }
        for key in [key(next / 2), key(next)].into_iter().flatten() {
            let below = read_range(&nodes, &root, Span::subtree(&key)).await;
            if let (Some(whole), Some(below)) = (&whole, below) {
                let expected = whole.iter().filter(|(other, _)| other.starts_with(&key)).count();
                assert_eq!(below.len(), expected, "a subtree is what lies below its key");
            }
            let _: Vec<_> = list(&nodes, &root, Some(&key)).take(READ_MAX).collect().await;
        }
        let mut count = Count::default();
        drop(visit_nodes(&nodes, &root, 4, &mut count).await);
        for other in 0..last.min(4) {
            let _: Vec<_> = diff(&nodes, &Nodes::id(other), &root, Span::all()).take(READ_MAX).collect().await;
        }
    });
}

/// All entries of a part of a tree, unless one can't be read or there are very many.
async fn read_range(nodes: &Nodes, root: &BlobId, span: Span) -> Option<BTreeMap<Key, Entry>> {
    let mut read = range(nodes, root, span.clone(), 4).take(READ_MAX);
    let mut found = BTreeMap::<Key, Entry>::new();
    while let Some(next) = read.next().await {
        let (key, entry) = next.ok()?;
        assert!(span.contains(&key), "only the span is read");
        assert!(found.last_key_value().is_none_or(|(last, _)| *last < key), "keys ascend");
        found.insert(key, entry);
    }
    (found.len() < READ_MAX).then_some(found)
}

/// The key with this number: some stand below others.
fn key(number: u32) -> Option<Key> {
    let folder = format!("{:04x}", number / 3);
    let below = format!("{:x}", number % 3);
    if number.is_multiple_of(3) { Key::new([folder]) } else { Key::new([folder, below]) }.ok()
}

fn add_entries(nodes: &mut Nodes, draw: &mut Draw<'_>, next: &mut u32) {
    let (level, count) = (draw.below(5) as u8, 1 + draw.below(5));
    if level == 0 {
        let mut items = Vec::new();
        for _ in 0..count {
            let step = draw.byte();
            // Nearly always on, and seldom back.
            *next = if step > 250 { next.saturating_sub(2) } else { *next + 1 + u32::from(step & 3) };
            let content = vec![step; draw.below(4)];
            let entry = Entry::new(EntryKind::File, Payload::from(content), Payload::default());
            items.extend(key(*next).map(|key| (key, entry)));
        }
        let (total, first) = (items.len() as u64, items.first().map(|(key, _)| key.clone()));
        nodes.push(0, &codec::encode(&items), total, first);
        return;
    }
    // Mostly neighbours in order, so that what they hold is in order as well.
    let Some(start) = nodes.pick(draw, level - 1) else { return };
    let fitting = (start..nodes.nodes.len()).filter(|number| nodes.facts[*number].0 == level - 1);
    let mut items = Vec::new();
    for child in fitting.take(count) {
        let (_, total, first) = &nodes.facts[child];
        let first = if draw.byte() > 250 { key(draw.byte().into()) } else { first.clone() };
        items.extend(first.map(|first| NodeRef { first, id: Nodes::id(child), entries: off(draw, *total) }));
    }
    if let Some(first) = items.first().map(|child| child.first.clone()) {
        let total = items.iter().fold(0, |sum: u64, child| sum.wrapping_add(child.entries));
        nodes.push(level, &codec::encode(&items), total, Some(first));
    }
}

/// What bytes say as a node comes back from their value.
pub fn node(data: &[u8]) {
    let Ok(node) = decode_node(data, "a node") else { return };
    let items = match &node {
        Node::Leaf(entries) => codec::encode(entries),
        Node::Inner { children, .. } => codec::encode(children),
        Node::Pieces(pieces) => codec::encode(pieces),
        Node::Lengths { children, .. } => codec::encode(children),
    };
    assert_eq!(data.get(1..), Some(&items[..]), "a node has one form");
}
