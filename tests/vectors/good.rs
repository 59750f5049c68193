//! One complete small repository with all kinds of objects, and the parts of which it is made.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::forge::{
    COLLECTION, Keys, LIST, REGISTRATION, REGISTRATION_END, SNAPSHOT, Slot, Unlock, Value, grant, hash, hex, noise,
    random, trailed,
};
use super::pack::{Block, Pack, Sealed, no_hints, segment_of};
use super::tree::{
    CHARACTER_DEVICE, CHUNK, FAN_OUT, FIFO, FILE, FOLDER, Gathered, INLINE_MAX, LEAF_MEAN, PIECES_MAX, Payload, Piece,
    SEQUENCE_MEAN, SOCKET, SYMLINK, entry, inline, key, pieces, small,
};

/// When the repository was created, in nanoseconds since 1970.
pub(crate) const CREATED: i64 = 1_700_000_000_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000_000_000;

pub(crate) const ADMINISTRATOR: [u8; 32] = *b"the raw key of the administrator";
pub(crate) const REMOVED: [u8; 32] = *b"a raw key that has been removed ";
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

pub(crate) type Objects = BTreeMap<String, Vec<u8>>;

/// The repository, and what is needed to make other objects for it.
pub(crate) struct Good {
    /// With both generations, sealing under the first.
    pub(crate) keys: Keys,
    pub(crate) objects: Objects,
    pub(crate) config: Config,
    pub(crate) slots: Vec<Slot>,
    /// The newest records of the series.
    pub(crate) newest: BTreeMap<&'static str, Snapshot>,
    pub(crate) data: Sealed,
    pub(crate) nodes: Sealed,
    /// What a walk through `photos#5` finds.
    pub(crate) photos: Json,
}

/// The config's value, before it is sealed.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) administrator: [u8; 32],
    pub(crate) first_slot: [u8; 32],
    pub(crate) to_read: Vec<&'static str>,
    pub(crate) to_write: Vec<&'static str>,
    pub(crate) optional: Vec<&'static str>,
    pub(crate) extensions: Vec<(u64, &'static str)>,
}

impl Config {
    pub(crate) fn value(&self) -> Value {
        let [min, mean, max] = CHUNK.map(|size| size as u64);
        let tree = [LEAF_MEAN, 8192, FAN_OUT, 16384, INLINE_MAX as u64, PIECES_MAX as u64, SEQUENCE_MEAN as u64];
        let value = Value::new().raw(random::<16>("repository")).i(CREATED).raw(self.administrator);
        let value = value.raw(self.first_slot).numbers([min, mean, max]).numbers(tree);
        let features = [&self.to_read, &self.to_write, &self.optional];
        features.into_iter().fold(value, |value, list| value.list(list, Value::bytes)).extensions(&self.extensions)
    }

    pub(crate) fn object(&self, keys: &Keys) -> Vec<u8> {
        config_of(&self.value(), keys)
    }
}

/// A config of this value, signed and authenticated.
pub(crate) fn config_of(value: &Value, keys: &Keys) -> Vec<u8> {
    let said = [b"backstop\x01\x01", &value.0[..]].concat();
    let said = [&said[..], &keys.sign(1, "config", &said)].concat();
    trailed([&said[..], &keys.mac(&said)].concat())
}

/// A roster: its name and its bytes.
#[derive(Clone)]
pub(crate) struct Roster {
    pub(crate) repository: [u8; 16],
    pub(crate) number: u64,
    pub(crate) members: Vec<Slot>,
    pub(crate) sorted: bool,
    pub(crate) extensions: Vec<(u64, &'static str)>,
    pub(crate) version: u8,
}

impl Roster {
    pub(crate) fn new(number: u64, members: &[&Slot]) -> Self {
        let members = members.iter().map(|slot| (*slot).clone()).collect();
        Self { repository: random("repository"), number, members, sorted: true, extensions: Vec::new(), version: 1 }
    }

    pub(crate) fn name(&self, keys: &Keys) -> String {
        format!("keys/roster-{:015}-{}", self.number, keys.roster_tag(self.number))
    }

    /// Grants the newest of the generations of `keys`.
    pub(crate) fn object(&self, keys: &Keys) -> Vec<u8> {
        let (generation, secret) = keys.sealing.last().unwrap();
        let context = [&random::<16>("repository")[..], &generation.to_le_bytes()].concat();
        let mut members = self.members.clone();
        members.sort_by_key(Slot::id);
        if !self.sorted {
            members.reverse();
        }
        let value = Value::new().raw(self.repository).n(self.number).i(CREATED).n(u64::from(*generation));
        let value = value.list(members, |value, slot| {
            let granted = grant(secret, &slot.public(), &[&context[..], &slot.id()].concat());
            value.raw(slot.id()).n(u64::from(slot.append_only)).raw(slot.public()).raw(granted)
        });
        let value = value.bytes(keys.history(&context)).extensions(&self.extensions);
        self.sealed(keys, &value)
    }

    pub(crate) fn sealed(&self, keys: &Keys, value: &Value) -> Vec<u8> {
        let said = [b"backstop", &[self.version, 10][..], &value.0].concat();
        let signature = keys.sign(10, &self.name(keys), &said);
        trailed([said, signature].concat())
    }
}

/// A snapshot record's value, before it is sealed.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) series: String,
    pub(crate) number: u64,
    pub(crate) time: i64,
    pub(crate) predecessor: Option<[u8; 32]>,
    /// None in a tombstone.
    pub(crate) root: Option<[u8; 20]>,
    pub(crate) entries: u64,
    pub(crate) tags: Vec<(&'static str, &'static str)>,
    pub(crate) origin: Option<(u64, i64)>,
    pub(crate) packs: Vec<([u8; 32], u64, u64)>,
    pub(crate) root_at: Option<Value>,
    pub(crate) extensions: Vec<(u64, &'static str)>,
}

impl Snapshot {
    pub(crate) fn new(series: &str, number: u64, hour: i64, root: Option<[u8; 20]>, entries: u64) -> Self {
        Self {
            series: series.to_owned(),
            number,
            time: CREATED + hour * HOUR,
            predecessor: (number > 1).then_some([0; 32]),
            root,
            entries,
            tags: Vec::new(),
            origin: None,
            packs: Vec::new(),
            root_at: None,
            extensions: Vec::new(),
        }
    }

    pub(crate) fn value(&self) -> Value {
        let value = Value::new().bytes(&self.series).n(self.number).i(self.time).i(self.time - 5);
        let value = value.option(self.predecessor, Value::raw);
        let Some(root) = self.root else { return value.n(0).extensions(&self.extensions) };
        let value = value.n(1).bytes("a host").list(&self.tags, |value, (key, tag)| value.bytes(key).bytes(tag));
        let value = value.list(["/srv"], Value::bytes).option(Some([1, 2]), Value::bytes).raw(root).n(self.entries);
        let parent = self.number.checked_sub(1).filter(|parent| *parent > 0);
        let value = value.option(parent, Value::n).option(self.origin, |value, (number, time)| value.n(number).i(time));
        let value = value.numbers([self.entries, 0, 0, 0, self.entries, 0, 0, 0, 0, 0, 0]);
        let value =
            value.list([("/srv/locked", "permission denied")], |value, (path, why)| value.bytes(path).bytes(why));
        let value = value.n(1).list(&self.packs, |value, (id, length, footer)| value.raw(id).n(*length).n(*footer));
        value.option(self.root_at.as_ref(), |value, at| value.raw(&at.0)).extensions(&self.extensions)
    }

    pub(crate) fn name(&self, keys: &Keys) -> String {
        commit(keys, &self.series, self.number)
    }

    pub(crate) fn object(&self, keys: &Keys) -> Vec<u8> {
        keys.record(SNAPSHOT, &self.name(keys), &self.value())
    }
}

pub(crate) fn commit(keys: &Keys, series: &str, number: u64) -> String {
    format!("commits/{}/{:012}/{number:015}", keys.tag(series), number / 1000)
}

/// A list's value, before it is signed.
#[derive(Clone)]
pub(crate) struct List {
    pub(crate) series: &'static str,
    pub(crate) number: u64,
    pub(crate) through: u64,
    pub(crate) runs: Vec<(u64, u64)>,
    /// What was forgotten at once, with the beginning of each record's hash.
    pub(crate) forgotten: Vec<Vec<(u64, [u8; 16])>>,
    pub(crate) extensions: Vec<(u64, &'static str)>,
}

impl List {
    pub(crate) fn value(&self) -> Value {
        let value = Value::new().bytes(self.series).n(self.number).i(CREATED + 50 * HOUR).n(self.through);
        let snapshots = |value: Value, snapshots: &Vec<(u64, [u8; 16])>| {
            value.list(snapshots, |value, (number, hash)| value.n(*number).raw(hash))
        };
        let value = value.pairs(&self.runs).list(&self.forgotten, |value, forgotten| {
            snapshots(value.i(CREATED + 50 * HOUR).i(CREATED + 100 * HOUR), forgotten)
        });
        value.extensions(&self.extensions)
    }

    pub(crate) fn name(&self, keys: &Keys) -> String {
        format!("kept/{}/{:015}", keys.tag(self.series), self.number)
    }

    pub(crate) fn object(&self, keys: &Keys) -> Vec<u8> {
        keys.signed(LIST, &self.name(keys), &self.value())
    }
}

/// The metadata of a file.
pub(crate) fn posix(links: Option<(u64, u64)>, extended: &[(&str, &str)]) -> Value {
    posix_of(0o640, 1000, 7, links, extended)
}

/// The same, with a mode, an owner, and nanoseconds.
pub(crate) fn posix_of(
    mode: u64,
    uid: u64,
    nanoseconds: u64,
    links: Option<(u64, u64)>,
    extended: &[(&str, &str)],
) -> Value {
    let value = Value::new().n(1).numbers([mode, uid, 100]).option(Some("ana"), Value::bytes).n(0);
    let value = value.i(1_600_000_000).n(nanoseconds).i(0).n(0).n(77);
    let value = value.option(links, |value, (device, inode)| value.n(device).n(inode));
    let value = value.list(extended, |value, (name, bytes)| value.bytes(name).bytes(bytes));
    value.numbers([0, 0, 0]).extensions(&[])
}

/// An entry, and what a walk says of it.
struct Item {
    path: &'static str,
    entry: Value,
    kind: &'static str,
    content: Vec<u8>,
}

impl Item {
    fn json(&self) -> Json {
        let Item { path, kind, content, .. } = self;
        json!({"path": path, "kind": kind, "size": content.len(), "blake3": hex(&hash(content))})
    }
}

/// Every kind of entry, and every form of content.
fn photos(gathered: &mut Gathered) -> Vec<Item> {
    let plain = inline(posix(None, &[]).0);
    let linked = inline(posix(Some((1, 77)), &[]).0);
    let attributed = inline(posix(None, &[("user.comment", "a walk"), ("user.rating", "5")]).0);
    let long = posix(None, &[("user.comment", &"a long story ".repeat(50))]);
    let record = Value::new().n(0).option(Some(1), |value, _: i64| value.i(1_650_000_000).n(1));
    let record = record.option(Some("text/calendar"), Value::bytes);
    let record = record.list([("etag", "17")], |value, (name, bytes)| value.bytes(name).bytes(bytes));
    let record = inline(record.extensions(&[(3, "of a later version")]).0);
    let [one, large, island] = [("one", 1500), ("large", 30_000), ("island", 700)].map(|(what, n)| noise(what, n));
    let hole = vec![0; 5000];
    let long = gathered.file(&[&long.0]);
    let file = |gathered: &mut Gathered, path, bytes: &[u8], metadata: &Payload| {
        let content = gathered.file(&[bytes]);
        Item { path, entry: entry(FILE, &content, metadata), kind: "file", content: bytes.to_vec() }
    };
    let other = |path, kind, name, content: &str, metadata: &Payload| {
        let entry = entry(kind, &inline(content), metadata);
        Item { path, entry, kind: name, content: content.as_bytes().to_vec() }
    };
    let device = Value::new().n(CHARACTER_DEVICE).numbers([1, 3, 0]).raw(&inline("").0.0).raw(&plain.0.0);
    let sparse = gathered.file(&[&island, &hole, &island]);
    let repeated = pieces(&[match gathered.chunk(b"again and again ") {
        Piece::Chunk(id, length, _) => Piece::Chunk(id, length, 20),
        hole @ Piece::Hole(_) => hole,
    }]);
    let mut items = vec![
        other("album", FOLDER, "folder", "", &plain),
        file(gathered, "album/caption.txt", b"a walk in the woods", &attributed),
        file(gathered, "album/large.tif", &large, &plain),
        file(gathered, "album/one.jpg", &one, &linked),
        file(gathered, "album/story.txt", b"see the attribute", &long),
        file(gathered, "album/two.jpg", &one, &linked),
        // A record of an application: no folder is stored for it.
        file(gathered, "calendar/17.ics", b"BEGIN:VEVENT", &record),
        Item { path: "device", entry: device, kind: "character device", content: Vec::new() },
        file(gathered, "empty", b"", &plain),
        other("link", SYMLINK, "symlink", "album/one.jpg", &plain),
        other("pipe", FIFO, "fifo", "", &plain),
        Item {
            path: "repeated",
            entry: entry(FILE, &repeated, &plain),
            kind: "file",
            content: b"again and again ".repeat(20),
        },
        other("socket", SOCKET, "socket", "", &plain),
        Item {
            path: "sparse",
            entry: entry(FILE, &sparse, &plain),
            kind: "file",
            content: [&island[..], &hole, &island].concat(),
        },
    ];
    const MANY: [&str; 20] = [
        "z/01", "z/02", "z/03", "z/04", "z/05", "z/06", "z/07", "z/08", "z/09", "z/10", "z/11", "z/12", "z/13", "z/14",
        "z/15", "z/16", "z/17", "z/18", "z/19", "z/20",
    ];
    items.extend(MANY.map(|path| file(gathered, path, path.as_bytes(), &inline(""))));
    items
}

impl Good {
    pub(crate) fn new() -> Self {
        let keys = Keys::new(2);
        let first = Keys { sealing: keys.sealing[..1].to_vec(), ..keys.clone() };
        let raw = Slot::new(&first, "administrator", false, Unlock::Raw(ADMINISTRATOR));
        let phrase = Slot::new(&first, "phone", true, Unlock::Passphrase(PASSPHRASE, 8, 1, 1));
        let removed = Slot::new(&first, "lost laptop", false, Unlock::Raw(REMOVED));
        let config = Config {
            administrator: keys.administrator(),
            first_slot: raw.id(),
            to_read: Vec::new(),
            to_write: Vec::new(),
            optional: vec!["test-vectors"],
            extensions: vec![(1, "of a later version")],
        };
        let mut objects = Objects::new();
        objects.insert("config".to_owned(), config.object(&keys));
        for slot in [&raw, &phrase, &removed] {
            objects.insert(slot.name(), slot.object());
        }
        for (roster, keys) in
            [(Roster::new(1, &[&raw, &phrase, &removed]), &first), (Roster::new(2, &[&raw, &phrase]), &keys)]
        {
            objects.insert(roster.name(keys), roster.object(keys));
        }
        let none = Pack::new(&keys, [0; 16], Vec::new()).seal();
        let (newest, photos, slots) = (BTreeMap::new(), Json::Null, vec![raw, phrase, removed]);
        let (data, nodes) = (none.clone(), none);
        let mut good = Self { keys, objects, config, slots, newest, data, nodes, photos };
        good.add_snapshots();
        good.add_fed();
        good.add_records();
        good
    }

    pub(crate) fn put(&mut self, name: String, bytes: Vec<u8>) {
        assert!(self.objects.insert(name, bytes).is_none(), "names are given once");
    }

    /// Adds a record whose predecessor is the newest of its series.
    fn commit(&mut self, mut snapshot: Snapshot, series: &'static str, generation: u32) {
        let before = (snapshot.number > 1).then(|| commit(&self.keys, series, snapshot.number - 1));
        snapshot.predecessor = before.map(|before| hash(&self.objects[&before]));
        self.put(snapshot.name(&self.keys), snapshot.object(&self.keys.under(generation)));
        self.newest.insert(series, snapshot);
    }

    /// Two series whose packs a segment describes.
    fn add_snapshots(&mut self) {
        let keys = self.keys.clone();
        let mut gathered = Gathered::new(&keys);
        let notes: Vec<_> = ["to buy: milk", "to buy: nothing"]
            .map(|note| gathered.tree(&[(key("note"), small(note))]))
            .into_iter()
            .collect();
        let empty = gathered.node(vec![0, 0]);
        let two = gathered.tree(&[(key("album"), entry(FOLDER, &inline(""), &inline(""))), (key("empty"), small(""))]);
        let items = photos(&mut gathered);
        let entries: Vec<_> = items.iter().map(|item| (key(item.path), item.entry.clone())).collect();
        let root = gathered.tree(&entries);
        self.photos = items.iter().map(Item::json).collect();

        let writer = random("the writer that has ended");
        let chunks: Vec<&[u8]> = gathered.chunks.iter().map(Vec::as_slice).collect();
        let (text, noise): (Vec<&[u8]>, Vec<&[u8]>) =
            chunks.into_iter().partition(|chunk| chunk.windows(5).any(|five| five == b"again" || five == b"story"));
        let blocks = vec![Block::chunks(&keys, &noise), Block::chunks(&keys, &text).compressed()];
        self.data = Pack::new(&keys, writer, blocks).seal();
        let nodes = Block::nodes(&keys, &gathered.nodes, &gathered.hints()).compressed();
        self.nodes = Pack::new(&keys.under(1), writer, vec![nodes]).seal();
        let (data, nodes) = (self.data.clone(), self.nodes.clone());
        self.put(data.name(), data.bytes.clone());
        self.put(nodes.name(), nodes.bytes.clone());
        let segment = segment_of(&keys, &[&data, &nodes]);
        self.put(format!("index/{}", hex(&hash(&segment))), segment);

        self.commit(Snapshot::new("photos", 1, 1, Some(empty), 0), "photos", 0);
        self.commit(Snapshot::new("photos", 2, 2, Some(two), 2), "photos", 0);
        self.commit(Snapshot::new("photos", 3, 3, None, 0), "photos", 0);
        let origin = Some((2, CREATED + 2 * HOUR));
        self.commit(Snapshot { origin, ..Snapshot::new("photos", 4, 4, Some(two), 2) }, "photos", 1);
        let count = entries.len() as u64;
        let tags = vec![("kind", "walk"), ("place", "woods")];
        let last = Snapshot { tags, extensions: vec![(1, "new")], ..Snapshot::new("photos", 5, 5, Some(root), count) };
        self.commit(last, "photos", 1);

        self.commit(Snapshot::new("notes", 1, 10, Some(notes[0]), 1), "notes", 0);
        self.commit(Snapshot::new("notes", 2, 20, Some(notes[1]), 1), "notes", 0);
        let origin = Some((1, CREATED + 10 * HOUR));
        self.commit(Snapshot { origin, ..Snapshot::new("notes", 3, 30, Some(notes[0]), 1) }, "notes", 0);
    }

    /// A snapshot of a feed: its pack holds both kinds of blocks, and its record alone says so.
    fn add_fed(&mut self) {
        let keys = self.keys.under(1);
        let mut gathered = Gathered::new(&keys);
        let message = "a message, longer than what stands in an entry ".repeat(8);
        let content = gathered.file(&[message.as_bytes()]);
        let root = gathered.tree(&[(key("inbox/1"), entry(FILE, &content, &inline("")))]);
        let chunks: Vec<&[u8]> = gathered.chunks.iter().map(Vec::as_slice).collect();
        let nodes = Block::nodes(&keys, &gathered.nodes, &no_hints());
        let pack = Pack::new(&keys, random("the writer that runs"), vec![Block::chunks(&keys, &chunks), nodes]).seal();
        self.put(pack.name(), pack.bytes.clone());
        let (offset, stored, block) = pack.blocks[1].clone();
        let at = Value::new().raw(pack.id()).numbers([1, 0, 1, offset, stored, block.plain_len, 0, block.blobs[0].1]);
        let snapshot = Snapshot::new("fed", 1, 40, Some(root), 1);
        self.commit(Snapshot { packs: vec![pack.named()], root_at: Some(at), ..snapshot }, "fed", 1);
    }

    /// Lists, a collection, registrations, and a test of the store's rights.
    fn add_records(&mut self) {
        let keys = self.keys.clone();
        for list in [self.list(1, 2, &[(1, 1)], &[2]), self.list(2, 4, &[(1, 1), (3, 4)], &[2])] {
            self.put(list.name(&keys), list.object(&keys));
        }
        for (name, value) in [("gc/000000000000001", self.begun(1)), ("gc/000000000000001-ended", self.ended(1))] {
            self.put(name.to_owned(), keys.signed(COLLECTION, name, &value));
        }
        let token = random::<32>("a token");
        for (what, ending) in [("the writer that has ended", hash(&token)), ("the writer that runs", [5; 32])] {
            let name = writer(what);
            let value = registration("fed", 2, ending);
            self.put(name.clone(), keys.under(1).record(REGISTRATION, &name, &value.extensions(&[])));
        }
        let end = format!("{}-ended", writer("the writer that has ended"));
        self.put(end.clone(), keys.record(REGISTRATION_END, &end, &Value::new().raw(token).extensions(&[])));
        self.put(format!("probes/{}", hex(&random::<16>("probe"))), b"a test of the store".to_vec());
    }

    /// A list of the series `photos`.
    pub(crate) fn list(&self, number: u64, through: u64, runs: &[(u64, u64)], forgotten: &[u64]) -> List {
        let forgotten = if forgotten.is_empty() { Vec::new() } else { vec![self.hashed(forgotten)] };
        let (runs, extensions) = (runs.to_vec(), Vec::new());
        List { series: "photos", number, through, runs, forgotten, extensions }
    }

    /// Numbers of the series `photos` with the beginnings of their records' hashes, or of zeros where there is none.
    pub(crate) fn hashed(&self, numbers: &[u64]) -> Vec<(u64, [u8; 16])> {
        let beginning = |number: &u64| {
            let record = self.objects.get(&commit(&self.keys, "photos", *number)).map(|record| hash(record));
            (*number, record.map_or([0; 16], |hash| hash[..16].try_into().unwrap()))
        };
        numbers.iter().map(beginning).collect()
    }

    /// The beginning of a collection.
    pub(crate) fn begun(&self, number: u64) -> Value {
        let tag = unhex(&self.keys.tag("photos"));
        let value = Value::new().n(number).i(CREATED + 45 * HOUR).n(0).n(0);
        let value = value.list([[3; 32], [4; 32]], Value::raw).list([[9; 32]], Value::raw).n(0);
        let value = value.list([2], |value, number| value.raw(&tag).n(number));
        let registered = |value: Value, writers: [[u8; 16]; 2]| value.list(writers, |value, id| value.raw(id).n(3));
        value.option(Some([[6; 16], [7; 16]]), registered).n(0).n(0).extensions(&[])
    }

    /// The end of a collection.
    pub(crate) fn ended(&self, number: u64) -> Value {
        let tag = unhex(&self.keys.tag("photos"));
        let value = Value::new().n(number).i(CREATED + 46 * HOUR).n(1);
        let value = value.list([(3, 3)], |value, run| value.raw(&tag).pairs(&[run]));
        value.list([[1; 16]], Value::raw).extensions(&[])
    }
}

pub(crate) fn registration(series: &str, number: u64, ending: [u8; 32]) -> Value {
    Value::new().bytes(series).n(number).i(CREATED + 41 * HOUR).bytes("a host").n(1).raw(ending)
}

pub(crate) fn writer(what: &str) -> String {
    format!("writers/{}", hex(&random::<16>(what)))
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
