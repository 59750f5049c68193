//! Entries, nodes and contents, byte by byte (sections 9, 11 and 12).

use super::forge::{Id, Keys, Value};

pub(crate) const FILE: u64 = 0;
pub(crate) const FOLDER: u64 = 1;
pub(crate) const SYMLINK: u64 = 2;
pub(crate) const FIFO: u64 = 3;
pub(crate) const SOCKET: u64 = 4;
pub(crate) const CHARACTER_DEVICE: u64 = 5;

/// The parameters of the config: few of anything, so that small contents have all forms.
pub(crate) const CHUNK: [usize; 3] = [256, 1024, 4096];
pub(crate) const LEAF_MEAN: u64 = 8;
pub(crate) const FAN_OUT: u64 = 4;
pub(crate) const INLINE_MAX: usize = 200;
pub(crate) const PIECES_MAX: usize = 4;
pub(crate) const SEQUENCE_MEAN: usize = 4;

/// The masks of the chunker for a mean of 2^10, and of one bit more and less.
const STRICT: u64 = 0x0000_d900_0353_0000;
const LOOSE: u64 = 0x0000_0190_0035_3000;

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Piece {
    Chunk(Id, u64, u64),
    Hole(u64),
}

impl Piece {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Piece::Chunk(_, length, repeat) => length.wrapping_mul(*repeat),
            Piece::Hole(length) => *length,
        }
    }

    fn put(value: Value, piece: &Self) -> Value {
        match piece {
            Piece::Chunk(id, length, repeat) => value.n(0).raw(id).n(*length).n(*repeat),
            Piece::Hole(length) => value.n(1).n(*length),
        }
    }
}

/// A payload, and its length.
#[derive(Clone, Debug)]
pub(crate) struct Payload(pub(crate) Value, pub(crate) u64);

pub(crate) fn inline(bytes: impl AsRef<[u8]>) -> Payload {
    Payload(Value::new().n(0).bytes(bytes.as_ref()), bytes.as_ref().len() as u64)
}

pub(crate) fn pieces(pieces: &[Piece]) -> Payload {
    let length = pieces.iter().fold(0u64, |sum, piece| sum.wrapping_add(piece.length()));
    Payload(Value::new().n(1).list(pieces, Piece::put), length)
}

pub(crate) fn sequence(root: Id, length: u64, height: u8) -> Payload {
    Payload(Value::new().n(2).raw(root).n(length).raw([height]), length)
}

/// An entry of a kind without numbers of a device.
pub(crate) fn entry(kind: u64, content: &Payload, metadata: &Payload) -> Value {
    entry_of(kind, content.1, content, metadata)
}

/// One that states this size.
pub(crate) fn entry_of(kind: u64, size: u64, content: &Payload, metadata: &Payload) -> Value {
    Value::new().n(kind).n(size).raw(&content.0.0).raw(&metadata.0.0)
}

/// A file of these few bytes, without metadata.
pub(crate) fn small(bytes: &str) -> Value {
    entry(FILE, &inline(bytes), &inline(""))
}

pub(crate) fn key(path: &str) -> Vec<u8> {
    path.replace('/', "\0").into_bytes()
}

pub(crate) fn leaf(items: &[(Vec<u8>, Value)]) -> Vec<u8> {
    Value::new().raw([0]).list(items, |value, (key, entry)| value.bytes(key).raw(&entry.0)).0
}

pub(crate) fn inner(level: u8, items: &[(Vec<u8>, Id, u64)]) -> Vec<u8> {
    Value::new().raw([level]).list(items, |value, (key, id, count)| value.bytes(key).raw(id).n(*count)).0
}

pub(crate) fn pieces_node(pieces: &[Piece]) -> Vec<u8> {
    Value::new().raw([128]).list(pieces, Piece::put).0
}

pub(crate) fn lengths_node(level: u8, items: &[(Id, u64)]) -> Vec<u8> {
    Value::new().raw([128 | level]).list(items, |value, (id, length)| value.raw(id).n(*length)).0
}

/// Gathers what a snapshot refers to.
pub(crate) struct Gathered {
    keys: Keys,
    pub(crate) chunks: Vec<Vec<u8>>,
    pub(crate) nodes: Vec<Vec<u8>>,
}

impl Gathered {
    pub(crate) fn new(keys: &Keys) -> Self {
        Self { keys: keys.clone(), chunks: Vec::new(), nodes: Vec::new() }
    }

    /// A chunk, once.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> Piece {
        if !self.chunks.iter().any(|chunk| chunk == bytes) {
            self.chunks.push(bytes.to_vec());
        }
        Piece::Chunk(self.keys.chunk(bytes), bytes.len() as u64, 1)
    }

    pub(crate) fn node(&mut self, node: Vec<u8>) -> Id {
        let id = self.keys.node(&node);
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
        id
    }

    /// A file of these parts, of which an odd one is a hole, as a writer stores it.
    pub(crate) fn file(&mut self, parts: &[&[u8]]) -> Payload {
        if let [whole] = parts
            && whole.len() <= INLINE_MAX
        {
            return inline(whole);
        }
        let mut all: Vec<Piece> = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            if number % 2 == 1 {
                all.push(Piece::Hole(part.len() as u64));
                continue;
            }
            let mut rest = *part;
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(self.cut(rest));
                rest = after;
                let piece = self.chunk(chunk);
                match (all.last_mut(), piece) {
                    (Some(Piece::Chunk(id, _, repeat)), Piece::Chunk(next, ..)) if *id == next => *repeat += 1,
                    _ => all.push(piece),
                }
            }
        }
        if all.len() <= PIECES_MAX { pieces(&all) } else { self.sequence(&all) }
    }

    /// The next cut of section 11.
    fn cut(&self, data: &[u8]) -> usize {
        let [min, mean, max] = CHUNK;
        if data.len() <= min {
            return data.len();
        }
        let gear = self.gear();
        let (n, center) = (data.len().min(max), mean.min(data.len()));
        let mut h = 0u64;
        for a in (min..).step_by(2).take_while(|a| a / 2 < n / 2) {
            let mask = if a / 2 < center / 2 { STRICT } else { LOOSE };
            h = (h << 2).wrapping_add(gear[usize::from(data[a])] << 1);
            if h & (mask << 1) == 0 {
                return a;
            }
            h = h.wrapping_add(gear[usize::from(data[a + 1])]);
            if h & mask == 0 {
                return a + 1;
            }
        }
        n
    }

    fn gear(&self) -> Vec<u64> {
        let mut bytes = vec![0; 2048];
        let mut hasher = blake3::Hasher::new_derive_key("backstop v1 chunker gear table");
        hasher.update(&self.keys.identity).finalize_xof().fill(&mut bytes);
        bytes.as_chunks::<8>().0.iter().map(|eight| u64::from_le_bytes(*eight)).collect()
    }

    /// A sequence, cut as section 12 says.
    fn sequence(&mut self, all: &[Piece]) -> Payload {
        let length = all.iter().map(Piece::length).sum();
        let content = |piece: &Piece| match piece {
            Piece::Chunk(id, ..) => id.to_vec(),
            Piece::Hole(length) => length.to_le_bytes().to_vec(),
        };
        let runs = self.runs(0, all, content);
        let mut level = Vec::new();
        for run in runs {
            let length = run.iter().map(Piece::length).sum();
            level.push((self.node(pieces_node(&run)), length));
        }
        let mut height = 0;
        while level.len() > 1 {
            height += 1;
            let runs = self.runs(height, &level, |(id, _): &(Id, u64)| id.to_vec());
            level.clear();
            for run in runs {
                let length = run.iter().map(|(_, length)| length).sum();
                level.push((self.node(lengths_node(height, &run)), length));
            }
        }
        sequence(level[0].0, length, height)
    }

    fn runs<T: Clone>(&self, level: u8, items: &[T], content: impl Fn(&T) -> Vec<u8>) -> Vec<Vec<T>> {
        let (m, few) = (SEQUENCE_MEAN, SEQUENCE_MEAN / 4);
        let mut runs: Vec<Vec<T>> = vec![Vec::new()];
        for item in items {
            let have = runs.last().unwrap().len();
            let ends = have >= few && self.keys.cut(128 + level, &content(item)) < u64::MAX / (m - few) as u64;
            if have == 4 * m || ends {
                runs.push(Vec::new());
            }
            runs.last_mut().unwrap().push(item.clone());
        }
        runs
    }

    /// The tree of these entries, cut as section 12 says; its root.
    pub(crate) fn tree(&mut self, entries: &[(Vec<u8>, Value)]) -> Id {
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "keys are in order");
        let mut level: Vec<(Vec<u8>, Id, u64)> = Vec::new();
        for run in self.cut_level(0, LEAF_MEAN, entries, |(key, _)| key) {
            let id = self.node(leaf(&run));
            level.push((run[0].0.clone(), id, run.len() as u64));
        }
        let mut number = 0;
        while level.len() > 1 {
            number += 1;
            let runs = self.cut_level(number, FAN_OUT, &level, |(key, ..)| key);
            level.clear();
            for run in runs {
                let id = self.node(inner(number, &run));
                level.push((run[0].0.clone(), id, run.iter().map(|(_, _, count)| count).sum()));
            }
        }
        level[0].1
    }

    fn cut_level<T: Clone>(&self, level: u8, mean: u64, items: &[T], key: impl Fn(&T) -> &Vec<u8>) -> Vec<Vec<T>> {
        let mut runs: Vec<Vec<T>> = Vec::new();
        for item in items {
            if runs.is_empty() || self.keys.cut(level, key(item)) < u64::MAX / mean {
                runs.push(Vec::new());
            }
            runs.last_mut().unwrap().push(item.clone());
        }
        runs
    }

    /// Hints for the nodes, which lie in one block in this order.
    pub(crate) fn hints(&self) -> Value {
        let place = |id: &[u8]| {
            let mut at = 0;
            for node in &self.nodes {
                if self.keys.node(node) == id {
                    return Some((at, node.len() as u64));
                }
                at += node.len() as u64;
            }
            None
        };
        let (mut at, mut nodes) = (0, Vec::new());
        for node in &self.nodes {
            if (1..=31).contains(&node[0]) {
                let children: Vec<_> = children(node).into_iter().map(|id| place(&id).unwrap()).collect();
                nodes.push((at, children));
            }
            at += node.len() as u64;
        }
        Value::new().numbers([0, 0]).list(nodes, |value, (at, children)| {
            value.n(at).list(children, |value, (at, length)| value.numbers([1, at, length]))
        })
    }
}

/// The ids in an inner node, whose keys and numbers are short.
fn children(node: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut ids) = (&node[2..], Vec::new());
    while let Some((length, after)) = rest.split_first() {
        let after = &after[usize::from(*length)..];
        ids.push(after[..20].to_vec());
        rest = &after[21..];
    }
    ids
}
