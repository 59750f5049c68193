//! Packs, their blocks and footers, and index segments.

use serde_json::{Value as Json, json};

use super::{Cases, Changes, nothing, object, walk};
use crate::forge::{Keys, Value, hash, hex, noise, random};
use crate::good::Snapshot;
use crate::pack::{Block, Entry, Pack, Sealed, no_hints, pack_name, segment, sorted_entries};
use crate::tree::{FILE, Piece, entry, inline, inner, key, leaf, pieces, small};

const SERIES: &str = "bad";

/// A snapshot of one file of two chunks, in two packs that its record alone names.
struct Planted {
    keys: Keys,
    chunks: [Vec<u8>; 2],
    root: [u8; 20],
    nodes: Sealed,
}

impl Planted {
    fn new(keys: &Keys) -> Self {
        let chunks = [vec![b'a'; 600], b"a chunk that can be compressed well ".repeat(20)];
        let listed: Vec<_> =
            chunks.iter().map(|chunk| Piece::Chunk(keys.chunk(chunk), chunk.len() as u64, 1)).collect();
        let node = leaf(&[(key("file"), entry(FILE, &pieces(&listed), &inline("")))]);
        let root = keys.node(&node);
        let nodes = Pack::new(keys, [1; 16], vec![Block::nodes(keys, &[node], &no_hints())]).seal();
        Self { keys: keys.clone(), chunks, root, nodes }
    }

    fn block(&self) -> Block {
        Block::chunks(&self.keys, &[&self.chunks[0], &self.chunks[1]])
    }

    fn pack(&self, block: Block) -> Pack {
        Pack::new(&self.keys, [1; 16], vec![block])
    }

    /// What is added, with this pack of data, of which the record says so.
    fn changes(&self, data: &Sealed, named: ([u8; 32], u64, u64)) -> Changes {
        let packs = vec![self.nodes.named(), named];
        let record = Snapshot { packs, ..Snapshot::new(SERIES, 1, 60, Some(self.root), 1) };
        let changes = Changes::put(data.name(), data.bytes.clone());
        changes.and(self.nodes.name(), self.nodes.bytes.clone()).and(record.name(&self.keys), record.object(&self.keys))
    }
}

fn found(problem: &str) -> Json {
    json!({"entries": 1, "problems": {"file": problem}})
}

/// A zstd frame with this header behind its magic number, of one raw block.
fn frame(header: &[u8], plain: &[u8]) -> Vec<u8> {
    let block = ((plain.len() as u32) << 3 | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd], header, &block[..3], plain].concat()
}

impl Cases {
    /// A pack of data, read by a snapshot, and looked at by itself.
    fn pack(&mut self, what: &str, rule: &str, data: &Sealed, walked: &str, itself: &str) {
        let planted = Planted::new(&self.good.keys);
        let changes = planted.changes(data, data.named());
        let expect = if walked == "fine" { json!({"entries": 1, "problems": {}}) } else { found(walked) };
        self.add((what, rule), changes.clone(), walk(SERIES), walked, expect);
        self.add((&format!("{what}, by itself"), rule), changes, object(&data.name()), itself, nothing());
    }

    pub(super) fn add_packs(&mut self) {
        self.add_footers();
        self.add_frames();
        self.add_blocks();
        self.add_hints();
        self.add_stale_hints();
        self.add_segments();
        self.add_places();
    }

    fn add_footers(&mut self) {
        let planted = Planted::new(&self.good.keys);
        let base = planted.pack(planted.block());
        self.pack("pack: one that a record names", "R22", &base.seal(), "fine", "fine");
        let bad = |change: &dyn Fn(&mut Pack)| {
            let mut pack = base.clone();
            change(&mut pack);
            pack.seal()
        };
        let count = bad(&|pack| pack.stated_blocks = Some(2));
        self.pack("footer: the trailer counts a block more", "R19", &count, "damaged", "damaged");
        let count = bad(&|pack| pack.stated_blocks = Some(u32::MAX));
        self.pack("footer: the trailer counts all blocks that a number can count", "R19", &count, "damaged", "damaged");
        let short = bad(&|pack| pack.stated_footer = Some(16));
        self.pack("footer: the trailer states no more than a tag", "R19", &short, "damaged", "damaged");
        let long = bad(&|pack| pack.stated_footer = Some(u32::MAX));
        self.pack("footer: the trailer states more than there is", "R19", &long, "damaged", "damaged");
        let name = bad(&|pack| pack.footer_name = Some(hex(&[2; 16])));
        self.pack("footer: sealed under another registration's id", "R19", &name, "damaged", "damaged");
        let none = bad(&|pack| pack.padding = Some(Vec::new()));
        self.pack("footer: no padding", "R6", &none, "damaged", "damaged");
        let more = bad(&|pack| pack.padding = Some(vec![0; 1000]));
        self.pack("footer: too much padding", "R6", &more, "damaged", "damaged");
        let block = |change: &dyn Fn(&mut Block)| {
            let mut block = planted.block();
            change(&mut block);
            planted.pack(block).seal()
        };
        for (what, sealed) in [
            ("footer: an unknown kind of block", block(&|block| block.nodes = 2)),
            ("footer: an unknown encoding", block(&|block| block.encoding = 2)),
            ("footer: a block longer than it is", block(&|block| block.stated_len = Some(5000))),
            ("footer: a block shorter than it is", block(&|block| block.stated_len = Some(17))),
            ("footer: a block of no bytes", block(&|block| block.stated_len = Some(16))),
            ("footer: a raw block of another length", block(&|block| block.plain_len += 1)),
            ("footer: a plaintext over 4 MiB", block(&|block| (block.encoding, block.plain_len) = (1, (4 << 20) + 1))),
            ("footer: a blob of no bytes", block(&|block| block.blobs.push(([1; 20], 0)))),
            ("footer: blobs longer than their block", block(&|block| block.blobs.push(([1; 20], 10)))),
            ("footer: blobs shorter than their block", block(&|block| block.blobs.truncate(1))),
        ] {
            self.pack(what, "R20", &sealed, "damaged", "damaged");
        }
        let sound = base.seal();
        let (id, length, footer) = sound.named();
        for (what, named) in [
            ("pack: the record states another length", (id, length + 1, footer)),
            ("pack: the record states another footer", (id, length, footer + 1)),
        ] {
            let expect = json!({"entries": 1, "problems": {}, "aside": [sound.name()]});
            self.add((what, "R22"), planted.changes(&sound, named), walk(SERIES), "put aside", expect);
        }
        let mut bytes = sound.bytes.clone();
        bytes[70] ^= 1;
        let flipped = planted.changes(&sound, sound.named()).and(sound.name(), bytes);
        self.add(("pack: a bit has flipped", "R9"), flipped.clone(), walk(SERIES), "damaged", found("damaged"));
        let what = ("pack: a bit has flipped, by itself", "R9");
        self.add(what, flipped, object(&sound.name()), "damaged", nothing());
        let gone = planted.changes(&sound, sound.named()).without(sound.name());
        self.add(("pack: missing", "R45"), gone, walk(SERIES), "missing", found("missing"));
        let mut bytes = sound.bytes.clone();
        bytes[8] = 2;
        let newer = Sealed { bytes, ..sound.clone() };
        self.pack("pack: another version", "R9", &newer, "unsupported", "unsupported");
        let mut bytes = sound.bytes.clone();
        bytes[10] = 9;
        let newer = Sealed { bytes, ..sound.clone() };
        self.pack("pack: an unknown generation", "R8", &newer, "unsupported", "unsupported");
        let changes = Changes::put(format!("packs/00/{}", hex(&id)), sound.bytes.clone());
        let misplaced = format!("packs/00/{}", hex(&id));
        self.add(("pack: in another's folder", "R1"), changes, object(&misplaced), "foreign", nothing());
        let other = pack_name(&[0xab; 32]);
        let changes = Changes::put(&other, sound.bytes);
        self.add(("pack: under a name that isn't its hash", "R9"), changes, object(&other), "damaged", nothing());
    }

    fn add_frames(&mut self) {
        let planted = Planted::new(&self.good.keys);
        let plain = planted.chunks.concat();
        let size = (plain.len() as u16 - 256).to_le_bytes();
        let whole = zstd::bulk::compress(&plain, 3).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
        // Descriptor: bits 6 and 7 the size of the content size, 5 a single segment, 2 a checksum, 0 and 1 a dictionary.
        let single = |descriptor: u8| [&[descriptor | 0x60][..], &size].concat();
        let windowed = |exponent: u8| vec![0, (exponent - 10) << 3];
        let (front, back) = plain.split_at(500);
        let mut checked = frame(&single(4), &plain);
        let sum = xxh64(&plain) as u32;
        checked.extend_from_slice(&sum.to_le_bytes());
        let mut wrong = checked.clone();
        *wrong.last_mut().unwrap() ^= 1;
        for (what, stored, verdict) in [
            ("frame: as writers make it", whole.clone(), "fine"),
            ("frame: with a checksum", checked, "fine"),
            ("frame: with a wrong checksum", wrong, "damaged"),
            ("frame: without its content's size", frame(&windowed(11), &plain), "fine"),
            ("frame: a window of 8 MiB", frame(&windowed(23), &plain), "fine"),
            ("frame: a window of 9 MiB", frame(&[0, (13 << 3) | 1], &plain), "damaged"),
            ("frame: a window of 1 GiB", frame(&windowed(30), &plain), "damaged"),
            ("frame: a dictionary", frame(&[&[0x61, 9][..], &size].concat(), &plain), "damaged"),
            ("frame: two of them", [frame(&[0x20, 0], &[]), whole.clone()].concat(), "damaged"),
            (
                "frame: the content in two of them",
                { [frame(&windowed(11), front), frame(&windowed(11), back)].concat() },
                "damaged",
            ),
            ("frame: a skippable one in front", [skippable.clone(), whole.clone()].concat(), "damaged"),
            ("frame: a skippable one behind", [whole.clone(), skippable].concat(), "damaged"),
            ("frame: bytes behind it", [&whole[..], &[0]].concat(), "damaged"),
            ("frame: cut short", whole[..whole.len() - 1].to_vec(), "damaged"),
            ("frame: of a longer content", frame(&[0xa0, 0, 0, 1, 0], &plain), "damaged"),
            ("frame: a shorter content without a size", frame(&windowed(11), front), "damaged"),
            ("frame: a longer content without a size", frame(&windowed(12), &[&plain[..], b"!"].concat()), "damaged"),
            ("frame: none", noise("no frame", 40), "damaged"),
        ] {
            let block = Block { encoding: 1, ..planted.block() }.stored(stored);
            if block.stored.len() as u64 > block.plain_len {
                // The footer can't describe it: more content, so that it can.
                continue;
            }
            self.pack(what, "R21", &planted.pack(block).seal(), verdict, verdict);
        }
    }

    fn add_blocks(&mut self) {
        let planted = Planted::new(&self.good.keys);
        let base = planted.pack(planted.block());
        let swapped = Pack { part: Some(2), ..base.clone() };
        self.pack("block: chunks sealed as nodes", "R32", &swapped.seal(), "damaged", "damaged");
        let shifted = Pack { shift: 1, ..base.clone() };
        self.pack("block: sealed under the next one's number", "R10", &shifted.seal(), "damaged", "damaged");
        let mut block = planted.block();
        block.stored[3] = b'b';
        self.pack("block: another chunk than its id says", "R32", &planted.pack(block).seal(), "damaged", "damaged");
        let mut block = planted.block();
        block.blobs[0].1 -= 1;
        block.blobs[1].1 += 1;
        self.pack("block: chunks cut elsewhere", "R32", &planted.pack(block).seal(), "damaged", "damaged");
        let mut other = planted.block();
        other.stored[700] ^= 1;
        // One of two packs is damaged, and both are named.
        let (wrong, right) = (planted.pack(other).seal(), base.seal());
        let record = Snapshot {
            packs: vec![planted.nodes.named(), right.named(), wrong.named()],
            ..Snapshot::new(SERIES, 1, 60, Some(planted.root), 1)
        };
        let changes = planted.changes(&right, right.named()).and(wrong.name(), wrong.bytes.clone());
        let changes = changes.and(record.name(&planted.keys), record.object(&planted.keys));
        let expect = json!({"entries": 1, "problems": {}});
        self.add(("block: damaged in one pack of two", "R33"), changes, walk(SERIES), "fine", expect);
    }

    fn add_hints(&mut self) {
        let planted = Planted::new(&self.good.keys);
        let keys = planted.keys.clone();
        let data = planted.pack(planted.block()).seal();
        let node = planted.nodes.blocks[0].2.stored.clone();
        let node = node[..node.len() - 7].to_vec();
        assert_eq!(keys.node(&node), planted.root);
        let mut check = |what: &str, hints: Vec<u8>, verdict: &str| {
            let mut block = Block::nodes(&keys, std::slice::from_ref(&node), &no_hints());
            block.stored = [&node[..], &hints].concat();
            block.plain_len = block.stored.len() as u64;
            let nodes = Pack::new(&keys, [1; 16], vec![block]).seal();
            let changed = Planted { nodes: nodes.clone(), ..Planted::new(&keys) };
            let changes = changed.changes(&data, data.named());
            let expect = json!({"entries": 1, "problems": {}});
            self.add((what, "R23"), changes.clone(), walk(SERIES), "fine", expect);
            self.add((&format!("{what}, by themselves"), "R23"), changes, object(&nodes.name()), verdict, nothing());
        };
        let with = |value: Value| [value.0.clone(), (value.0.len() as u32).to_le_bytes().to_vec()].concat();
        let none = no_hints();
        check("hints: of a node without children", with(Value::new().numbers([0, 0, 1, 0, 0])), "fine");
        check("hints: a length that lies", [&none.0[..], &[9, 9, 9, 9]].concat(), "damaged");
        check("hints: no more than three bytes", vec![0, 0, 0], "damaged");
        check("hints: a byte too many", with(none.clone().raw([0])), "damaged");
        check("hints: ends too early", with(Value::new().numbers([0, 0])), "damaged");
        let order = Value::new().numbers([0, 0, 2, 9, 0, 3, 0]);
        check("hints: nodes out of order", with(order), "damaged");
        let pack = Value::new().n(0).n(1).numbers([1, 0, 0, 62, 100, 84, 0]);
        check("hints: a pack that isn't listed", with(pack), "damaged");
        let block = Value::new().numbers([0, 0, 1, 0, 1, 2, 0, 10]);
        check("hints: a block that isn't listed", with(block), "damaged");
        let away = Value::new().list([[9u8; 32]], Value::raw).n(1).numbers([1, 0, 0, 62, 100, 84]);
        check("hints: a pack that is gone", with(away.numbers([1, 0, 1, 2, 0, 10])), "fine");
    }

    /// Hints that lead nowhere, of a root with two children and of the record.
    fn add_stale_hints(&mut self) {
        let keys = self.good.keys.under(1);
        let leaves = [leaf(&[(key("a"), small("1"))]), leaf(&[(key("b"), small("2"))])];
        let children = [(key("a"), keys.node(&leaves[0]), 1), (key("b"), keys.node(&leaves[1]), 1)];
        let root = inner(1, &children);
        let (id, nodes) = (keys.node(&root), [&leaves[..], &[root]].concat());
        let [first, second] = leaves.each_ref().map(|node| node.len() as u64);
        let at = first + second;
        let hint = |children: &[[u64; 3]]| {
            let value = Value::new().numbers([0, 0, 1, at]);
            value.list(children, |value, child| value.numbers(*child))
        };
        let (one, two) = ([1, 0, first], [1, first, second]);
        let away = Value::new().list([[9u8; 32]], Value::raw).n(1).numbers([1, 0, 0, 62, 100, 84]);
        let long = Value::new().n(0).n(1).numbers([0, 1, 0, 62, u64::from(u32::MAX), u64::from(u32::MAX)]);
        let right = |change: fn(&mut [u64; 8])| {
            let mut numbers = [1, 0, 0, 62, 0, 0, at, 0];
            change(&mut numbers);
            numbers
        };
        for (what, hints, root_at) in [
            ("hints: where the children are", hint(&[one, two]), None),
            ("hints: the other child", hint(&[two, one]), None),
            ("hints: fewer than there are children", hint(&[one]), None),
            ("hints: more than there are children", hint(&[one, two, one]), None),
            ("hints: nothing is known of a child", hint(&[one, [0, 0, 0]]), None),
            ("hints: beyond the block", hint(&[one, [1, 5000, second]]), None),
            ("hints: a child longer than any node", hint(&[one, [1, first, u64::from(u32::MAX)]]), None),
            ("hints: children in a pack that is gone", away.numbers([1, at, 2, 2, 0, first, 2, first, second]), None),
            ("hints: children in a block of 4 GiB", long.numbers([1, at, 2, 2, 0, first, 2, first, second]), None),
            ("root_at: where the root is", no_hints(), Some(right(|_| ()))),
            ("root_at: another node", no_hints(), Some(right(|at| at[6] = 0))),
            ("root_at: in a block of data", no_hints(), Some(right(|at| at[0] = 0))),
            ("root_at: in the pack's header", no_hints(), Some(right(|at| at[3] = 10))),
            ("root_at: beyond the pack", no_hints(), Some(right(|at| at[3] = 1 << 27))),
            ("root_at: under another number", no_hints(), Some(right(|at| at[2] = u64::from(u32::MAX)))),
            ("root_at: in a block of 4 GiB", no_hints(), Some(right(|at| at[4] = u64::from(u32::MAX)))),
        ] {
            let pack = Pack::new(&keys, [1; 16], vec![Block::nodes(&keys, &nodes, &hints)]).seal();
            let root_at = root_at.map(|mut numbers: [u64; 8]| {
                let (_, stored, block) = &pack.blocks[0];
                let unless_set = |number: &mut u64, right: u64| *number = if *number == 0 { right } else { *number };
                unless_set(&mut numbers[4], *stored);
                numbers[5] = block.plain_len.max(numbers[4] - 16);
                numbers[7] = block.blobs[2].1;
                Value::new().raw(pack.id()).numbers(numbers)
            });
            let packs = vec![pack.named()];
            let record = Snapshot { packs, root_at, ..Snapshot::new(SERIES, 1, 60, Some(id), 2) };
            let changes = Changes::put(pack.name(), pack.bytes).and(record.name(&keys), record.object(&keys));
            self.add((what, "R24"), changes, walk(SERIES), "fine", json!({"entries": 2, "problems": {}}));
        }
    }

    /// A segment in place of the good one.
    fn segment(&mut self, what: &str, rule: &str, bytes: Vec<u8>, verdict: &str) {
        let (sound, _) = self.first("index/");
        let name = format!("index/{}", hex(&hash(&bytes)));
        let changes = Changes::remove(sound).and(&name, bytes);
        self.add((&format!("{what}, by itself"), rule), changes.clone(), object(&name), verdict, nothing());
        let expect = json!({"entries": self.good.photos.as_array().unwrap().len(), "problems": {}, "aside": [name]});
        if verdict != "fine" {
            self.add((what, "R27"), changes, walk("photos"), "put aside", expect);
        }
    }

    fn add_segments(&mut self) {
        let keys = self.good.keys.clone();
        let (data, nodes) = (self.good.data.clone(), self.good.nodes.clone());
        let entries = sorted_entries(&[&data, &nodes]);
        let rows = vec![data.row(), nodes.row()];
        let counts = (entries.len() as u64, 2);
        let sound = segment(&keys, &entries, &rows, counts);
        let with = |change: &dyn Fn(&mut Vec<Entry>)| {
            let mut entries = entries.clone();
            change(&mut entries);
            segment(&keys, &entries, &rows, (entries.len() as u64, 2))
        };
        self.segment("segment: as it is", "R26", sound.clone(), "fine");
        let mut many = entries.clone();
        many.extend((0..250u32).map(|n| {
            let numbers = [2 + n % 128, n, 62 + n, 100, 84, 0, 84];
            Entry { id: random(format!("blob {n}")), numbers, flags: (n % 2) as u8 }
        }));
        many.sort_by_key(|entry| entry.id);
        let elsewhere = (0..128u32).map(|n| [&random::<32>(format!("pack {n}"))[..], &[0; 4], &[7; 32]].concat());
        let long: Vec<_> = rows.iter().cloned().chain(elsewhere).collect();
        let long = segment(&keys, &many, &long, (many.len() as u64, 130));
        let name = format!("index/{}", hex(&hash(&long)));
        let changes = Changes::remove(self.first("index/").0).and(name, long);
        let all = json!({"entries": self.good.photos.as_array().unwrap().len(), "problems": {}});
        self.add(("segment: several pages of entries and of packs", "R25"), changes, walk("photos"), "fine", all);
        self.segment(
            "segment: counts an entry more",
            "R25",
            segment(&keys, &entries, &rows, (counts.0 + 1, 2)),
            "damaged",
        );
        self.segment("segment: counts a pack less", "R25", segment(&keys, &entries, &rows, (counts.0, 1)), "damaged");
        self.segment(
            "segment: counts as many as can be",
            "R25",
            segment(&keys, &entries, &rows, (u64::MAX, 2)),
            "damaged",
        );
        for (what, bytes) in [
            ("segment: entries out of order", with(&|entries| entries.swap(1, 2))),
            ("segment: an entry twice", with(&|entries| entries[1] = entries[0].clone())),
            ("segment: a row that isn't there", with(&|entries| entries[0].numbers[0] = 2)),
            ("segment: an unknown flag", with(&|entries| entries[0].flags |= 4)),
            ("segment: a blob beyond its block", with(&|entries| entries[0].numbers[5] = 4 << 20)),
            ("segment: a blob of no bytes", with(&|entries| entries[0].numbers[6] = 0)),
            ("segment: a block over 4 MiB", with(&|entries| entries[0].numbers[4] = (4 << 20) + 1)),
            ("segment: a block of no bytes", with(&|entries| entries[0].numbers[3] = 16)),
        ] {
            self.segment(what, "R26", bytes, "damaged");
        }
        let mut newer = sound.clone();
        newer[8] = 2;
        self.segment("segment: another version", "R9", newer, "unsupported");
        let mut newer = sound.clone();
        newer[10] = 9;
        self.segment("segment: an unknown generation", "R8", newer, "unsupported");
        self.segment("segment: cut short", "R25", sound[..70].to_vec(), "damaged");
        let (name, mut bytes) = self.first("index/");
        bytes[200] ^= 1;
        let changes = Changes::put(&name, bytes);
        self.add(("segment: a bit has flipped, by itself", "R9"), changes, object(&name), "damaged", nothing());
        let expect = json!({"entries": self.good.photos.as_array().unwrap().len(), "problems": {}});
        self.add(("segment: missing", "R27"), Changes::remove(&name), walk("photos"), "fine", expect);
    }

    /// A segment that sends a reader elsewhere.
    fn add_places(&mut self) {
        let keys = self.good.keys.clone();
        let planted = Planted::new(&keys);
        let data = planted.pack(planted.block()).seal();
        let entry = data.entries(0).remove(0);
        let lying = |change: &dyn Fn(&mut Entry), row: Vec<u8>| {
            let mut entry = entry.clone();
            change(&mut entry);
            segment(&keys, &[entry], &[row], (1, 1))
        };
        let gone = [&[7; 32][..], &0u32.to_le_bytes(), &random::<32>("no salt")].concat();
        for (what, bytes) in [
            ("place: a segment names another blob's place", lying(&|entry| entry.numbers[5] = 1, data.row())),
            ("place: a segment names a pack that isn't there", lying(&|_| (), gone)),
            ("place: a segment names bytes beyond the pack", lying(&|entry| entry.numbers[2] = 1 << 20, data.row())),
        ] {
            let changes = planted.changes(&data, data.named()).and(format!("index/{}", hex(&hash(&bytes))), bytes);
            let expect = json!({"entries": 1, "problems": {}});
            self.add((what, "R33"), changes, walk(SERIES), "fine", expect);
        }
    }
}

/// The checksum of zstd frames, for inputs of at least 32 bytes.
fn xxh64(data: &[u8]) -> u64 {
    const P: [u64; 5] = [
        0x9e37_79b1_85eb_ca87,
        0xc2b2_ae3d_27d4_eb4f,
        0x1656_67b1_9e37_79f9,
        0x85eb_ca77_c2b2_ae63,
        0x27d4_eb2f_1656_67c5,
    ];
    let round = |acc: u64, word: u64| acc.wrapping_add(word.wrapping_mul(P[1])).rotate_left(31).wrapping_mul(P[0]);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let mut lanes = [P[0].wrapping_add(P[1]), P[1], 0, P[0].wrapping_neg()];
    let (stripes, mut rest) = data.split_at(data.len() / 32 * 32);
    for stripe in stripes.chunks(32) {
        for (lane, eight) in lanes.iter_mut().zip(stripe.chunks(8)) {
            *lane = round(*lane, word(eight));
        }
    }
    let turned = lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
    let mut h = turned.fold(0u64, u64::wrapping_add);
    for lane in lanes {
        h = (h ^ round(0, lane)).wrapping_mul(P[0]).wrapping_add(P[3]);
    }
    h = h.wrapping_add(data.len() as u64);
    while rest.len() >= 8 {
        h = (h ^ round(0, word(&rest[..8]))).rotate_left(27).wrapping_mul(P[0]).wrapping_add(P[3]);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        let four = u64::from(u32::from_le_bytes(rest[..4].try_into().unwrap()));
        h = (h ^ four.wrapping_mul(P[0])).rotate_left(23).wrapping_mul(P[1]).wrapping_add(P[2]);
        rest = &rest[4..];
    }
    for byte in rest {
        h = (h ^ u64::from(*byte).wrapping_mul(P[4])).rotate_left(11).wrapping_mul(P[0]);
    }
    h = (h ^ (h >> 33)).wrapping_mul(P[1]);
    h = (h ^ (h >> 29)).wrapping_mul(P[2]);
    h ^ (h >> 32)
}
