//! Packs and index segments, byte by byte (section 7).

use super::forge::{INDEX, Id, Keys, PACK, Value, hash, hex, pad};

/// A block before it is sealed: what the footer says of it, and what is stored.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) nodes: u64,
    pub(crate) encoding: u64,
    pub(crate) plain_len: u64,
    pub(crate) blobs: Vec<(Id, u64)>,
    pub(crate) stored: Vec<u8>,
    /// What the footer says of the sealed message's length, where it lies.
    pub(crate) stated_len: Option<u64>,
}

impl Block {
    /// A raw block of these chunks.
    pub(crate) fn chunks(keys: &Keys, chunks: &[&[u8]]) -> Self {
        let blobs = chunks.iter().map(|chunk| (keys.chunk(chunk), chunk.len() as u64)).collect();
        let stored = chunks.concat();
        Self { nodes: 0, encoding: 0, plain_len: stored.len() as u64, blobs, stored, stated_len: None }
    }

    /// A raw block of these nodes, with these hints.
    pub(crate) fn nodes(keys: &Keys, nodes: &[Vec<u8>], hints: &Value) -> Self {
        let blobs = nodes.iter().map(|node| (keys.node(node), node.len() as u64)).collect();
        let stored = [nodes.concat(), hints.0.clone(), (hints.0.len() as u32).to_le_bytes().to_vec()].concat();
        Self { nodes: 1, encoding: 0, plain_len: stored.len() as u64, blobs, stored, stated_len: None }
    }

    /// The same, compressed.
    pub(crate) fn compressed(self) -> Self {
        let stored = zstd::bulk::compress(&self.stored, 3).unwrap();
        Self { encoding: 1, stored, ..self }
    }

    /// The same, with something else stored.
    pub(crate) fn stored(self, stored: Vec<u8>) -> Self {
        Self { stored, ..self }
    }
}

/// Hints that say nothing.
pub(crate) fn no_hints() -> Value {
    Value::new().numbers([0, 0, 0])
}

/// A pack before it is sealed, and the ways in which it may be wrong.
#[derive(Clone)]
pub(crate) struct Pack {
    pub(crate) keys: Keys,
    pub(crate) writer: [u8; 16],
    pub(crate) blocks: Vec<Block>,
    /// The number of blocks that the trailer states, where it lies.
    pub(crate) stated_blocks: Option<u32>,
    /// The length of the footer that the trailer states, where it lies.
    pub(crate) stated_footer: Option<u32>,
    /// The name in the footer's associated data, where it isn't the registration's.
    pub(crate) footer_name: Option<String>,
    /// The part under which data is sealed, where it is a wrong one.
    pub(crate) part: Option<u8>,
    /// By how much the messages' numbers are too high.
    pub(crate) shift: u32,
    /// What follows the footer's value instead of its padding.
    pub(crate) padding: Option<Vec<u8>>,
    /// The footer's value, where it isn't that of the blocks.
    pub(crate) footer: Option<Vec<u8>>,
}

/// A sealed pack, and where its blocks lie.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) footer_len: u64,
    pub(crate) generation: u32,
    pub(crate) salt: [u8; 32],
    pub(crate) blocks: Vec<(u64, u64, Block)>,
}

impl Pack {
    pub(crate) fn new(keys: &Keys, writer: [u8; 16], blocks: Vec<Block>) -> Self {
        Self {
            keys: keys.clone(),
            writer,
            blocks,
            stated_blocks: None,
            stated_footer: None,
            footer_name: None,
            part: None,
            shift: 0,
            padding: None,
            footer: None,
        }
    }

    pub(crate) fn footer_value(&self) -> Value {
        Value::new().list(&self.blocks, |value, block| {
            let stored = block.stated_len.unwrap_or(block.stored.len() as u64 + 16);
            value
                .numbers([block.nodes, block.encoding, stored, block.plain_len])
                .list(&block.blobs, |value, (id, length)| value.raw(id).n(*length))
        })
    }

    pub(crate) fn seal(&self) -> Sealed {
        let footer = self.footer.clone().map_or_else(|| self.footer_value(), Value);
        let what = [&footer.0[..], &self.writer, &hash(&format!("{:?}", self.blocks).into_bytes())].concat();
        let sealer = self.keys.sealer(PACK, &what);
        let mut bytes = [sealer.header(), self.writer.to_vec()].concat();
        let mut blocks = Vec::new();
        for (number, block) in (1..).zip(&self.blocks) {
            let part = self.part.unwrap_or(1 + block.nodes.min(1) as u8);
            let message = sealer.seal(number + self.shift, part, "", &block.stored);
            blocks.push((bytes.len() as u64, message.len() as u64, block.clone()));
            bytes.extend_from_slice(&message);
        }
        let beside = bytes.len() + 16 + 24;
        let plain = match &self.padding {
            Some(padding) => [footer.0, padding.clone()].concat(),
            None if beside + footer.0.len() < 1 << 20 => pad(footer.0, beside),
            None => footer.0,
        };
        let count = self.stated_blocks.unwrap_or(self.blocks.len() as u32);
        let name = self.footer_name.clone().unwrap_or(hex(&self.writer));
        let footer = sealer.seal(count.wrapping_add(1), 3, &name, &plain);
        let footer_len = footer.len() as u64;
        let stated = self.stated_footer.unwrap_or(footer_len as u32);
        let trailer = sealer.seal(0, 6, "", &[stated.to_le_bytes(), count.to_le_bytes()].concat());
        bytes.extend(footer.into_iter().chain(trailer));
        Sealed { bytes, footer_len, generation: sealer.generation, salt: sealer.salt, blocks }
    }
}

impl Sealed {
    pub(crate) fn id(&self) -> [u8; 32] {
        hash(&self.bytes)
    }

    pub(crate) fn name(&self) -> String {
        pack_name(&self.id())
    }

    /// What a record says of it.
    pub(crate) fn named(&self) -> ([u8; 32], u64, u64) {
        (self.id(), self.bytes.len() as u64, self.footer_len)
    }

    /// Its row in a segment.
    pub(crate) fn row(&self) -> Vec<u8> {
        [&self.id()[..], &self.generation.to_le_bytes(), &self.salt].concat()
    }

    /// Its blobs' entries in a segment in which it has this row.
    pub(crate) fn entries(&self, row: u32) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (number, (offset, stored, block)) in (0..).zip(&self.blocks) {
            let (mut at, flags) = (0, (block.nodes | block.encoding << 1) as u8);
            for (id, length) in &block.blobs {
                let numbers = [row, number, *offset as u32, *stored as u32, block.plain_len as u32, at, *length as u32];
                entries.push(Entry { id: *id, numbers, flags });
                at += *length as u32;
            }
        }
        entries
    }
}

pub(crate) fn pack_name(id: &[u8; 32]) -> String {
    format!("packs/{:02x}/{}", id[0], hex(id))
}

/// Where a segment says that a blob is: row, block, offset, stored_len, plain_len, at, length.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    pub(crate) numbers: [u32; 7],
    pub(crate) flags: u8,
}

impl Entry {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let numbers = self.numbers.map(u32::to_le_bytes).concat();
        [&self.id[..], &numbers, &[self.flags]].concat()
    }
}

/// A segment with these entries as they are, and what it says of how many there are.
pub(crate) fn segment(keys: &Keys, entries: &[Entry], rows: &[Vec<u8>], counts: (u64, u32)) -> Vec<u8> {
    segment_of_bytes(keys, &entries.iter().map(Entry::bytes).collect::<Vec<_>>(), rows, counts)
}

/// The same, with entries byte by byte.
pub(crate) fn segment_of_bytes(keys: &Keys, entries: &[Vec<u8>], rows: &[Vec<u8>], counts: (u64, u32)) -> Vec<u8> {
    let what = [entries.concat(), rows.concat(), counts.0.to_le_bytes().to_vec()].concat();
    let sealer = keys.sealer(INDEX, &what);
    let counts = [&counts.0.to_le_bytes()[..], &counts.1.to_le_bytes()].concat();
    let mut bytes = [sealer.header(), sealer.seal(0, 3, "", &counts)].concat();
    let pages = entries.chunks(256).map(|page| (4, page)).chain(rows.chunks(128).map(|page| (5, page)));
    for (number, (part, page)) in (1..).zip(pages) {
        bytes.extend(sealer.seal(number, part, "", &page.concat()));
    }
    bytes
}

/// A segment of all that is in these packs.
pub(crate) fn segment_of(keys: &Keys, packs: &[&Sealed]) -> Vec<u8> {
    let entries = sorted_entries(packs);
    let rows: Vec<_> = packs.iter().map(|pack| pack.row()).collect();
    segment(keys, &entries, &rows, (entries.len() as u64, rows.len() as u32))
}

pub(crate) fn sorted_entries(packs: &[&Sealed]) -> Vec<Entry> {
    let mut entries: Vec<_> = (0..).zip(packs).flat_map(|(row, pack)| pack.entries(row)).collect();
    entries.sort_by_key(|entry| entry.id);
    entries.dedup_by_key(|entry| entry.id);
    entries
}
