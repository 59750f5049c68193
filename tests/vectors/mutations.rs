//! Values changed at random and sealed as if they were right: the library and the second reader must agree on each.

use std::fs;

use serde_json::{Map, Value as Json};

use super::forge::{COLLECTION, Keys, LIST, REGISTRATION, SNAPSHOT, Slot, Unlock, Value, hash, hex, noise, random};
use super::good::{Good, PASSPHRASE, Roster, Snapshot, commit, config_of, posix, registration, writer};
use super::make::{Cases, Changes, find, nothing, object, open, walk};
use super::pack::{Block, Entry, Pack, no_hints, segment_of_bytes, sorted_entries};
use super::tree::{
    FILE, FOLDER, Piece, SYMLINK, entry, inline, inner, key, leaf, lengths_node, pieces, pieces_node, sequence, small,
};
use super::{library, python};

/// Mutations of each kind of value.
const EACH: u64 = 25;

/// Numbers that are the same in every run.
struct Dice(String, u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.1 += 1;
        let bytes: [u8; 8] = random(format!("{} {}", self.0, self.1));
        (u64::from_le_bytes(bytes) % bound as u64) as usize
    }

    /// The bytes with one to three of them changed, put in or taken out.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let byte = [0, 1, 2, 3, 6, 7, 127, 128, 250, 251, 252, 253, 254, 255][self.below(14)];
            match self.below(4) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = byte,
                2 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        bytes
    }
}

/// Makes one kind of value anew from mutated bytes.
type Make<'a> = Box<dyn Fn(Vec<u8>) -> (Changes, Json) + 'a>;

/// What is mutated, by what it is called.
fn targets(good: &Good) -> Vec<(&'static str, Vec<u8>, Make<'_>)> {
    let keys = good.keys.under(1);
    let mut all: Vec<(&'static str, Vec<u8>, Make<'_>)> = Vec::new();
    all.extend(records(good, &keys));
    all.extend(keyed(good, &keys));
    all.extend(nodes(&keys));
    all.extend(packs(good, &keys));
    all
}

fn records<'a>(good: &'a Good, keys: &Keys) -> Vec<(&'static str, Vec<u8>, Make<'a>)> {
    let predecessor = Some(hash(&good.objects[&commit(keys, "photos", 5)]));
    let newest = &good.newest["photos"];
    let packs = vec![([1; 32], 5000, 300)];
    let base = Snapshot::new("photos", 6, 6, newest.root, newest.entries);
    let six = Snapshot { predecessor, packs, origin: Some((2, 9)), tags: newest.tags.clone(), ..base };
    let list = good.list(3, 5, &[(1, 1), (4, 5)], &[2, 3]);
    let (record_name, list_name) = (six.name(keys), list.name(keys));
    let (gc, running) = ("gc/000000000000002", writer("the writer that runs"));
    let sealed = |kind: u8, name: String, operation: Json| -> Make<'a> {
        let keys = keys.clone();
        Box::new(move |value| {
            let value = Value(value);
            let bytes = match kind {
                SNAPSHOT | REGISTRATION => keys.record(kind, &name, &value),
                _ => keys.signed(kind, &name, &value),
            };
            (Changes::put(&name, bytes), operation.clone())
        })
    };
    let registered = registration("photos", 6, [5; 32]).extensions(&[(1, "new")]);
    vec![
        ("record", six.value().0, sealed(SNAPSHOT, record_name.clone(), find("photos", "6"))),
        ("record as the latest", six.value().0, sealed(SNAPSHOT, record_name, find("photos", "latest"))),
        ("list", list.value().0, sealed(LIST, list_name, find("photos", "latest"))),
        ("collection", good.begun(2).0, sealed(COLLECTION, gc.to_owned(), object(gc))),
        ("registration", registered.0, sealed(REGISTRATION, running.clone(), object(&running))),
    ]
}

fn keyed<'a>(good: &'a Good, keys: &Keys) -> Vec<(&'static str, Vec<u8>, Make<'a>)> {
    let roster = Roster::new(3, &[&good.slots[0], &good.slots[1]]);
    let bytes = roster.object(keys);
    let roster_value = bytes[10..bytes.len() - 96].to_vec();
    let slot = Slot::new(keys, "laptop", true, Unlock::Passphrase(PASSPHRASE, 8, 1, 1));
    // What the parameters of the chunker and of trees must be is the writers' business.
    let config = good.config.value().0;
    let (fixed, rest) = config.split_at(config.len() - 37);
    let fixed = fixed.to_vec();
    let (for_config, for_roster, for_slot) = (keys.clone(), keys.clone(), keys.clone());
    vec![
        (
            "config",
            rest.to_vec(),
            Box::new(move |value| {
                let value = Value([fixed.clone(), value].concat());
                (Changes::put("config", config_of(&value, &for_config)), open("phone"))
            }),
        ),
        (
            "roster",
            roster_value,
            Box::new(move |value| {
                let name = roster.name(&for_roster);
                (Changes::put(name, roster.sealed(&for_roster, &Value(value))), open("phone"))
            }),
        ),
        (
            "keyring",
            slot.keyring.0.clone(),
            Box::new(move |value| {
                let slot = Slot { keyring: Value(value), ..slot.clone() };
                let roster = Roster::new(3, &[&good.slots[0], &slot]);
                let changes = Changes::put(roster.name(&for_slot), roster.object(&for_slot));
                (changes.and(slot.name(), slot.object()), open("phone"))
            }),
        ),
    ]
}

fn nodes<'a>(keys: &Keys) -> Vec<(&'static str, Vec<u8>, Make<'a>)> {
    let chunk = noise("a chunk", 90);
    let piece = Piece::Chunk(keys.chunk(&chunk), 90, 2);
    let metadata = posix(Some((1, 2)), &[("user.a", "1"), ("user.b", "")]).0;
    let items = [
        ("a", entry(FOLDER, &inline(""), &inline(""))),
        ("a/b", entry(FILE, &pieces(&[piece, Piece::Hole(300)]), &inline(&metadata))),
        ("l", entry(SYMLINK, &inline("a/b"), &inline(""))),
        ("odd", Value::new().n(9).bytes("new")),
        ("z", small("inline")),
    ];
    let full = leaf(&items.map(|(path, entry)| (key(path), entry)));
    let low = [leaf(&[(key("a"), small("1")), (key("b"), small("2"))]), leaf(&[(key("c"), small("3"))])];
    let [l, h] = low.each_ref().map(|node| keys.node(node));
    let high = inner(1, &[(key("a"), l, 2), (key("c"), h, 1)]);
    let parts = pieces_node(&[piece, Piece::Hole(300)]);
    let lengths = lengths_node(1, &[(keys.node(&parts), 480), (keys.node(&parts), 480)]);
    // The nodes below, what is mutated, and the nodes above it.
    let tree = |below: Vec<Vec<u8>>, above: fn(&Keys, &[u8]) -> Option<Vec<u8>>, entries: u64| -> Make<'a> {
        let (keys, chunk) = (keys.clone(), chunk.clone());
        Box::new(move |node| {
            let above = above(&keys, &node);
            let nodes: Vec<_> = below.iter().cloned().chain([node]).chain(above).collect();
            let root = keys.node(nodes.last().unwrap());
            let blocks = vec![Block::nodes(&keys, &nodes, &no_hints()), Block::chunks(&keys, &[&chunk])];
            let pack = Pack::new(&keys, [1; 16], blocks).seal();
            let record = Snapshot::new("bad", 1, 60, Some(root), entries);
            let record = Snapshot { packs: vec![pack.named()], ..record };
            let changes = Changes::put(pack.name(), pack.bytes).and(record.name(&keys), record.object(&keys));
            (changes, walk("bad"))
        })
    };
    vec![
        ("leaf", full, tree(Vec::new(), |_, _| None, 5)),
        ("inner node", high, tree(low.to_vec(), |_, _| None, 3)),
        ("pieces", parts.clone(), tree(Vec::new(), |keys, node| above(keys, node, 480, 0), 1)),
        ("lengths", lengths, tree(vec![parts], |keys, node| above(keys, node, 960, 1), 1)),
        ("metadata", metadata, tree_of_metadata(keys)),
    ]
}

fn packs<'a>(good: &'a Good, keys: &Keys) -> Vec<(&'static str, Vec<u8>, Make<'a>)> {
    let chunks = [noise("one", 90), noise("another", 50)];
    let listed = chunks.each_ref().map(|chunk| Piece::Chunk(keys.chunk(chunk), chunk.len() as u64, 1));
    let node = leaf(&[(key("a"), entry(FILE, &pieces(&listed), &inline("")))]);
    let planted = |pack: &Pack| {
        let (pack, root) = (pack.seal(), pack.blocks[0].blobs[0].0);
        let record = Snapshot::new("bad", 1, 60, Some(root), 1);
        let record = Snapshot { packs: vec![pack.named()], ..record };
        let changes = Changes::put(pack.name(), pack.bytes.clone());
        (changes.and(record.name(&pack_keys(good)), record.object(&pack_keys(good))), pack.name())
    };
    let nodes = std::slice::from_ref(&node);
    let [one, another] = chunks.each_ref().map(Vec::as_slice);
    let blocks = vec![Block::nodes(keys, nodes, &no_hints()), Block::chunks(keys, &[one, another])];
    let base = Pack::new(keys, [1; 16], blocks);
    let hints = Value::new().list([[9u8; 32]], Value::raw).n(1).numbers([1, 0, 0, 62, 100, 84, 1, 0, 1, 2, 0, 10]);
    let entries = sorted_entries(&[&good.data, &good.nodes]);
    let rows = vec![good.data.row(), good.nodes.row()];
    let counts = (entries.len() as u64, 2);
    let bytes = entries.iter().flat_map(Entry::bytes).collect();
    let (for_hints, for_segment, footer, data) =
        (node.clone(), keys.clone(), base.footer_value().0, base.blocks[1].clone());
    let walked = base.clone();
    let hinted = keys.clone();
    vec![
        (
            "footer",
            footer.clone(),
            Box::new(move |value| (planted(&Pack { footer: Some(value), ..walked.clone() }).0, walk("bad"))),
        ),
        (
            "footer by itself",
            footer,
            Box::new(move |value| {
                let (changes, name) = planted(&Pack { footer: Some(value), ..base.clone() });
                (changes, object(&name))
            }),
        ),
        (
            "hints",
            hints.0,
            Box::new(move |value| {
                let block = Block::nodes(&hinted, std::slice::from_ref(&for_hints), &Value(value));
                let (changes, name) = planted(&Pack::new(&hinted, [1; 16], vec![block, data.clone()]));
                (changes, object(&name))
            }),
        ),
        (
            "segment",
            bytes,
            Box::new(move |value| {
                let bytes = segment_of_bytes(&for_segment, &[value], &rows, counts);
                let name = format!("index/{}", hex(&hash(&bytes)));
                (Changes::put(&name, bytes), object(&name))
            }),
        ),
    ]
}

fn pack_keys(good: &Good) -> Keys {
    good.keys.under(1)
}

/// The leaf above a sequence.
fn above(keys: &Keys, node: &[u8], length: u64, height: u8) -> Option<Vec<u8>> {
    let content = sequence(keys.node(node), length, height);
    Some(leaf(&[(key("a"), entry(FILE, &content, &inline("")))]))
}

fn tree_of_metadata<'a>(keys: &Keys) -> Make<'a> {
    let keys = keys.clone();
    Box::new(move |metadata| {
        let node = leaf(&[(key("a"), entry(FILE, &inline("content"), &inline(metadata)))]);
        let pack =
            Pack::new(&keys, [1; 16], vec![Block::nodes(&keys, std::slice::from_ref(&node), &no_hints())]).seal();
        let record = Snapshot::new("bad", 1, 60, Some(keys.node(&node)), 1);
        let record = Snapshot { packs: vec![pack.named()], ..record };
        let changes = Changes::put(pack.name(), pack.bytes).and(record.name(&keys), record.object(&keys));
        (changes, walk("bad"))
    })
}

/// Vectors of which it isn't known what must come of them.
fn vectors() -> Cases {
    let mut cases = Cases { good: Good::new(), all: Vec::new() };
    let good = Good::new();
    for (name, bytes, make) in targets(&good) {
        for round in 0..EACH {
            let mutated = Dice(format!("{name} {round}"), 0).mutate(&bytes);
            let (changes, operation) = make(mutated);
            cases.add((&format!("{name} {round}"), "R3"), changes, operation, "", nothing());
        }
    }
    cases
}

/// The library says what comes of each, and the second reader must say the same.
pub(crate) async fn agree() {
    let cases = vectors();
    let folder = tempfile::tempdir().unwrap();
    let mut fine = 0;
    for (name, mut vector) in cases.all.clone() {
        let outcome = library::run(&super::changed(&cases.good.objects, &vector), &vector).await;
        let ended = matches!(outcome.verdict.as_str(), "fine" | "put aside") || !outcome.found["entries"].is_null();
        let found = outcome.found.as_object().filter(|_| ended).cloned().unwrap_or_default();
        fine += u64::from(outcome.verdict == "fine");
        vector["verdict"] = outcome.verdict.into();
        vector["expect"] = Json::Object(found.into_iter().collect::<Map<_, _>>());
        fs::write(folder.path().join(format!("{name}.json")), vector.to_string()).unwrap();
    }
    let all = cases.all.len();
    assert!((fine as usize) > all / 50 && (fine as usize) < all / 2, "{fine} of {all} are fine");
    python::run(&["tests/vectors/run.py", "--cases", folder.path().to_str().unwrap()], all);
}
