//! Nodes, entries, contents and metadata, each as the tree of a snapshot of its own.

use serde_json::{Value as Json, json};

use super::{Cases, Changes, walk};
use crate::forge::{Id, Value};
use crate::good::{Snapshot, posix, posix_of};
use crate::pack::{Block, Pack, no_hints};
use crate::tree::{
    FILE, FOLDER, Payload, Piece, SYMLINK, entry, entry_of, inline, inner, key, leaf, lengths_node, pieces,
    pieces_node, sequence, small,
};

const SERIES: &str = "bad";

/// A snapshot's nodes, the root last, and the chunks that they refer to.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Vec<u8>>,
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) entries: u64,
}

impl Tree {
    pub(super) fn new(nodes: Vec<Vec<u8>>, entries: u64) -> Self {
        Self { nodes, chunks: Vec::new(), entries }
    }

    /// One leaf.
    pub(super) fn leaf(items: &[(&str, Value)]) -> Self {
        let keyed: Vec<_> = items.iter().map(|(path, entry)| (key(path), entry.clone())).collect();
        Self::new(vec![leaf(&keyed)], items.len() as u64)
    }

    pub(super) fn with(self, chunks: &[&[u8]]) -> Self {
        Self { chunks: chunks.iter().map(|chunk| chunk.to_vec()).collect(), ..self }
    }
}

/// A file of this content.
fn file(content: &Payload) -> Value {
    entry(FILE, content, &inline(""))
}

/// A file with this metadata.
fn described(metadata: &Value) -> Value {
    entry(FILE, &inline("content"), &inline(&metadata.0))
}

impl Cases {
    /// The objects of a snapshot of this tree. Blocks of what repeats are compressed, so that long ones stay small.
    pub(super) fn planted(&self, tree: &Tree) -> Changes {
        let keys = self.good.keys.under(1);
        let squeeze = |block: Block| if block.stored.len() > 2000 { block.compressed() } else { block };
        let chunks: Vec<&[u8]> = tree.chunks.iter().map(Vec::as_slice).collect();
        let mut blocks = vec![squeeze(Block::nodes(&keys, &tree.nodes, &no_hints()))];
        if !chunks.is_empty() {
            blocks.push(squeeze(Block::chunks(&keys, &chunks)));
        }
        let pack = Pack::new(&keys, [1; 16], blocks).seal();
        let root = keys.node(tree.nodes.last().unwrap());
        let snapshot = Snapshot::new(SERIES, 1, 60, Some(root), tree.entries);
        let snapshot = Snapshot { packs: vec![pack.named()], ..snapshot };
        Changes::put(pack.name(), pack.bytes.clone()).and(snapshot.name(&keys), snapshot.object(&keys))
    }

    /// A tree that can't be walked through, or can.
    fn tree(&mut self, what: &str, rule: &str, tree: &Tree, verdict: &str) {
        let expect = if verdict == "fine" { json!({"entries": tree.entries, "problems": {}}) } else { json!({}) };
        let changes = self.planted(tree);
        self.add((what, rule), changes, walk(SERIES), verdict, expect);
    }

    /// A tree that can be walked through, with something the matter with one entry.
    fn entry(&mut self, what: &str, rule: &str, tree: &Tree, problems: Json, verdict: &str) {
        let changes = self.planted(tree);
        self.add((what, rule), changes, walk(SERIES), verdict, json!({"entries": tree.entries, "problems": problems}));
    }

    fn node(&self, node: &[u8]) -> Id {
        self.good.keys.node(node)
    }

    fn chunk(&self, bytes: &[u8]) -> Piece {
        Piece::Chunk(self.good.keys.chunk(bytes), bytes.len() as u64, 1)
    }

    pub(super) fn add_trees(&mut self) {
        self.add_nodes();
        self.add_levels();
        self.add_keys();
        self.add_entries();
        self.add_pieces();
        self.add_sequences();
        self.add_contents();
        self.add_metadata();
    }

    fn add_nodes(&mut self) {
        let root = |bytes: Vec<u8>| Tree::new(vec![bytes], 2);
        let two = [(key("a"), small("1")), (key("b"), small("2"))];
        let sound = leaf(&two);
        self.tree("node: a leaf", "R35", &root(sound.clone()), "fine");
        let [a, b] = two.clone();
        self.tree("node: keys out of order", "R35", &root(leaf(&[b, a.clone()])), "damaged");
        self.tree("node: a key twice", "R35", &root(leaf(&[a.clone(), a])), "damaged");
        self.tree("node: a byte behind the items", "R3", &root([&sound[..], &[0]].concat()), "damaged");
        self.tree("node: ends too early", "R3", &root(sound[..sound.len() - 1].to_vec()), "damaged");
        self.tree(
            "node: a count longer than it needs to be",
            "R3",
            &root([&[0, 251, 2, 0], &sound[2..]].concat()),
            "damaged",
        );
        self.tree("node: more items than there are", "R4", &root(Value::new().raw([0]).n(1 << 50).0), "damaged");
        for form in [32, 77, 127, 160, 255] {
            let mut other = sound.clone();
            other[0] = form;
            self.tree(&format!("node: form {form}"), "R35", &root(other), "damaged");
        }
        self.tree("node: of a sequence, as a root", "R35", &root(pieces_node(&[Piece::Hole(5)])), "damaged");
        self.tree("node: inner, without items", "R35", &root(inner(1, &[])), "damaged");
        let many = Tree::new(vec![sound.clone()], 3);
        let changes = self.planted(&many);
        let name = crate::good::commit(&self.good.keys, SERIES, 1);
        let what = ("node: another number of entries than the record states, for a check", "R28");
        self.add(what, changes, super::object(&name), "damaged", json!({}));
        let missing = inner(1, &[(key("a"), [9; 20], 2)]);
        self.tree("node: missing", "R45", &root(missing), "missing");
        let long = leaf(&[(key("a"), small(&"x".repeat(600 << 10))), (key("b"), small(""))]);
        self.tree("node: an entry longer than 512 KiB", "R35", &root(long), "damaged");
        let far = (0..2600).map(|n| (key(&format!("{n:05}{}", "x".repeat(480))), small("")));
        let far = leaf(&far.collect::<Vec<_>>());
        assert!(far.len() > 1 << 20);
        self.tree("node: longer than 1 MiB", "R46", &Tree::new(vec![far], 2600), "damaged");
    }

    fn add_levels(&mut self) {
        let low = leaf(&[(key("a"), small("1")), (key("b"), small("2"))]);
        let high = leaf(&[(key("c"), small("3"))]);
        let (l, h) = (self.node(&low), self.node(&high));
        let over = |root: Vec<u8>| Tree::new(vec![low.clone(), high.clone(), root], 3);
        let two = |a: &str, an: u64, b: &str, bn: u64| inner(1, &[(key(a), l, an), (key(b), h, bn)]);
        self.tree("levels: two", "R35", &over(two("a", 2, "c", 1)), "fine");
        self.tree("levels: a child begins with another key", "R35", &over(two("0", 2, "c", 1)), "damaged");
        self.tree("levels: a child has more entries than stated", "R35", &over(two("a", 1, "c", 2)), "damaged");
        self.tree("levels: a child of no entries", "R35", &over(two("a", 3, "c", 0)), "damaged");
        self.tree("levels: a child reaches into the next one", "R35", &over(two("a", 2, "b", 1)), "damaged");
        self.tree(
            "levels: children out of order",
            "R35",
            &over(inner(1, &[(key("c"), h, 1), (key("a"), l, 2)])),
            "damaged",
        );
        self.tree("levels: counts beyond 64 bits", "R35", &over(two("a", u64::MAX, "c", 2)), "damaged");
        let skipped = inner(2, &[(key("a"), l, 2), (key("c"), h, 1)]);
        self.tree("levels: a level is left out", "R35", &over(skipped), "damaged");
        let same = two("a", 2, "c", 1);
        let upside = inner(1, &[(key("a"), self.node(&same), 3)]);
        let tree = Tree::new(vec![low.clone(), high.clone(), same, upside], 3);
        self.tree("levels: a node of its parent's level", "R35", &tree, "damaged");
        let empty = vec![0, 0];
        let parent = inner(1, &[(key("a"), l, 2), (key("c"), self.node(&empty), 1)]);
        self.tree(
            "levels: an empty leaf below a root",
            "R35",
            &Tree::new(vec![low.clone(), empty, parent], 3),
            "damaged",
        );
        let below = inner(1, &[(key("a"), l, 2), (key("c"), h, 1)]);
        let last = leaf(&[(key("b"), small(""))]);
        let top = inner(2, &[(key("a"), self.node(&below), 3), (key("b"), self.node(&last), 1)]);
        let tree = Tree::new(vec![low, high, below, last, top], 4);
        self.tree("levels: a grandchild reaches into the next child", "R35", &tree, "damaged");
        let pieces = pieces_node(&[Piece::Hole(3)]);
        let parent = inner(1, &[(key("a"), self.node(&pieces), 1)]);
        self.tree("levels: a sequence below a snapshot's node", "R35", &Tree::new(vec![pieces, parent], 1), "damaged");
    }

    fn add_keys(&mut self) {
        let one = |key: &[u8]| Tree::new(vec![leaf(&[(key.to_vec(), small(""))])], 1);
        for (what, bad) in [
            ("key: empty", &b""[..]),
            ("key: one point", b"."),
            ("key: two points", b"a\0.."),
            ("key: a slash", b"a/b"),
            ("key: an empty name", b"a\0\0b"),
            ("key: begins with a separator", b"\0a"),
            ("key: ends with a separator", b"a\0"),
        ] {
            self.tree(what, "R34", &one(bad), "damaged");
        }
        self.tree("key: 4096 bytes", "R34", &one(&vec![b'k'; 4096]), "fine");
        self.tree("key: 4097 bytes", "R34", &one(&vec![b'k'; 4097]), "damaged");
        self.tree("key: not UTF-8", "R34", &one(b"\xff\xfe"), "fine");
    }

    fn add_entries(&mut self) {
        let beside = |entry: Value| Tree::leaf(&[("a", entry), ("b", small("2"))]);
        let none = inline("");
        self.tree(
            "entry: a size that isn't the content's",
            "R36",
            &beside(entry_of(FILE, 5, &inline("four"), &none)),
            "damaged",
        );
        let target = |length: usize| entry(SYMLINK, &inline("t".repeat(length)), &none);
        self.tree("entry: a symlink's target of 64 KiB", "R36", &beside(target(64 << 10)), "fine");
        self.tree("entry: a symlink's target over 64 KiB", "R36", &beside(target((64 << 10) + 1)), "damaged");
        let folder = entry(FOLDER, &inline("ignored"), &none);
        self.tree("entry: a folder with content", "R36", &beside(folder), "fine");
        let odd = Value::new().n(7).bytes("of a later version");
        self.entry("entry: an unknown kind", "R37", &beside(odd), json!({"a": "unsupported"}), "unsupported");
        let odd = Value::new().n(u64::from(u32::MAX)).bytes("");
        self.entry(
            "entry: the last kind that there can be",
            "R37",
            &beside(odd),
            json!({"a": "unsupported"}),
            "unsupported",
        );
        let wide = Value::new().n(1 << 32).bytes("");
        self.tree("entry: a kind beyond 32 bits", "R3", &beside(wide), "damaged");
        let form = Value::new().n(FILE).n(0).n(3).n(0).raw(&none.0.0);
        self.tree("entry: an unknown form of content", "R37", &beside(form), "damaged");
        let piece = Value::new().n(FILE).n(5).numbers([1, 1, 2, 5]).raw(&none.0.0);
        self.tree("entry: an unknown form of piece", "R37", &beside(piece), "damaged");
    }

    fn add_pieces(&mut self) {
        let (chunk, full) = (b"a chunk of twenty-six bytes".as_slice(), (1u64 << 32) - 1);
        let id = self.good.keys.chunk(chunk);
        let n = chunk.len() as u64;
        let of = |content: &Payload| Tree::leaf(&[("a", file(content))]).with(&[chunk]);
        let list = |list: &[Piece]| of(&pieces(list));
        self.tree("pieces: a chunk and a hole", "R38", &list(&[Piece::Chunk(id, n, 2), Piece::Hole(9)]), "fine");
        let raw = |value: Value, length: u64| of(&Payload(value, length));
        self.tree("pieces: none", "R38", &raw(Value::new().n(1).n(0), 0), "damaged");
        self.tree("pieces: a hole of no bytes", "R38", &list(&[Piece::Hole(0)]), "damaged");
        self.tree("pieces: a chunk of no bytes", "R38", &list(&[Piece::Chunk(id, 0, 1)]), "damaged");
        self.tree("pieces: a chunk repeated no time", "R38", &list(&[Piece::Chunk(id, n, 0)]), "damaged");
        let twice = [Piece::Chunk(id, n, 1), Piece::Chunk(id, n, 1)];
        self.tree("pieces: equal chunks that should be one piece", "R38", &list(&twice), "damaged");
        let holes = [Piece::Hole(1), Piece::Hole(2)];
        self.tree("pieces: holes that should be one", "R38", &list(&holes), "damaged");
        self.tree("pieces: a chunk over 1 MiB", "R38", &list(&[Piece::Chunk(id, (1 << 20) + 1, 1)]), "damaged");
        let over = [Piece::Hole(u64::MAX), Piece::Chunk(id, n, 1)];
        self.tree("pieces: lengths beyond 64 bits", "R38", &list(&over), "damaged");
        let wide = Value::new().numbers([1, 1, 0]).raw(id).n(n).n(full + 1);
        self.tree("pieces: a repetition beyond 32 bits", "R3", &raw(wide, n << 32), "damaged");
        self.tree("pieces: a sequence of no bytes", "R38", &of(&sequence(id, 0, 0)), "damaged");
        self.tree("pieces: a sequence too high", "R46", &of(&sequence(id, 5, 32)), "damaged");
    }

    fn add_sequences(&mut self) {
        let (one, two) = (b"the first chunk".as_slice(), b"the second one".as_slice());
        let [first, second] = [one, two].map(|chunk| self.chunk(chunk));
        let leaves = [pieces_node(&[first, Piece::Hole(5)]), pieces_node(&[second])];
        let [l, r] = leaves.each_ref().map(|node| self.node(node));
        let lengths = [first.length() + 5, second.length()];
        let total = lengths[0] + lengths[1];
        let build = |tops: Vec<Vec<u8>>, content: Payload| {
            let root = leaf(&[(key("a"), file(&content)), (key("b"), small("beside it"))]);
            let nodes = leaves.iter().cloned().chain(tops).chain([root]).collect();
            Tree::new(nodes, 2).with(&[one, two])
        };
        let top = lengths_node(1, &[(l, lengths[0]), (r, lengths[1])]);
        let id = self.node(&top);
        self.tree("sequence: two levels", "R35", &build(vec![top.clone()], sequence(id, total, 1)), "fine");
        let again = lengths_node(1, &[(l, lengths[0]), (l, lengths[0])]);
        let tree = build(vec![again.clone()], sequence(self.node(&again), 2 * lengths[0], 1));
        self.tree("sequence: a node twice", "R47", &tree, "fine");
        let mut bad = |what: &str, tops: Vec<Vec<u8>>, content: Payload, verdict: &str| {
            self.entry(what, "R35", &build(tops, content), json!({"a": verdict}), verdict);
        };
        let keys = crate::forge::Keys::new(2);
        bad("sequence: another height than stated", vec![top.clone()], sequence(id, total, 2), "damaged");
        bad("sequence: another length than stated", vec![top.clone()], sequence(id, total + 1, 1), "damaged");
        let wrong = lengths_node(1, &[(l, lengths[0] - 1), (r, lengths[1] + 1)]);
        bad(
            "sequence: a child of another length",
            vec![wrong.clone()],
            sequence(keys.node(&wrong), total, 1),
            "damaged",
        );
        let empty = lengths_node(1, &[(l, lengths[0]), (r, 0)]);
        bad(
            "sequence: a child of no bytes",
            vec![empty.clone()],
            sequence(keys.node(&empty), lengths[0], 1),
            "damaged",
        );
        let none = lengths_node(1, &[]);
        bad("sequence: an inner node without items", vec![none.clone()], sequence(keys.node(&none), 5, 1), "damaged");
        let none = pieces_node(&[]);
        bad("sequence: a leaf without pieces", vec![none.clone()], sequence(keys.node(&none), 5, 0), "damaged");
        let skipped = lengths_node(2, &[(l, lengths[0])]);
        bad(
            "sequence: a level is left out",
            vec![skipped.clone()],
            sequence(keys.node(&skipped), lengths[0], 2),
            "damaged",
        );
        let over = lengths_node(1, &[(l, u64::MAX), (r, lengths[1])]);
        bad("sequence: lengths beyond 64 bits", vec![over.clone()], sequence(keys.node(&over), 14, 1), "damaged");
        let joined = pieces_node(&[Piece::Hole(1), Piece::Hole(2)]);
        bad("sequence: holes that should be one", vec![joined.clone()], sequence(keys.node(&joined), 3, 0), "damaged");
        let tree = leaf(&[(key("x"), small("a file of a tree"))]);
        bad("sequence: a node of a snapshot", vec![tree.clone()], sequence(keys.node(&tree), 16, 0), "damaged");
        bad("sequence: its root is missing", vec![], sequence([9; 20], total, 1), "missing");
        let gone = lengths_node(1, &[(l, lengths[0]), ([9; 20], 5)]);
        let content = sequence(keys.node(&gone), lengths[0] + 5, 1);
        bad("sequence: a node is missing", vec![gone], content, "missing");
    }

    fn add_contents(&mut self) {
        let chunk = b"a chunk, and nothing else".as_slice();
        let id = self.good.keys.chunk(chunk);
        let mut bad = |what: &str, rule: &str, piece: Piece, verdict: &str| {
            let tree = Tree::leaf(&[("a", file(&pieces(&[piece]))), ("b", small("beside it"))]).with(&[chunk]);
            self.entry(what, rule, &tree, json!({"a": verdict}), verdict);
        };
        bad("content: a chunk is longer than stated", "R39", Piece::Chunk(id, chunk.len() as u64 - 1, 1), "damaged");
        bad("content: a chunk is shorter than stated", "R39", Piece::Chunk(id, chunk.len() as u64 + 1, 1), "damaged");
        bad("content: a chunk is missing", "R45", Piece::Chunk([9; 20], 5, 1), "missing");
        let node = self.node(&leaf(&[(key("x"), small(""))]));
        let tree = Tree::leaf(&[("a", file(&pieces(&[Piece::Chunk(node, 9, 1)])))]).with(&[chunk]);
        let tree = Tree { nodes: vec![leaf(&[(key("x"), small(""))]), tree.nodes[0].clone()], ..tree };
        self.entry("content: a node's id where a chunk's should be", "R32", &tree, json!({"a": "missing"}), "missing");
    }

    fn add_metadata(&mut self) {
        let mut check = |what: &str, metadata: &Value, verdict: &str| {
            let tree = Tree::leaf(&[("a", described(metadata)), ("b", small("beside it"))]);
            let problems = if verdict == "fine" { json!({}) } else { json!({"a": verdict}) };
            self.entry(what, "R40", &tree, problems, verdict);
        };
        check("metadata: of a file", &posix(None, &[("user.a", "1"), ("user.b", "")]), "fine");
        check("metadata: a mode with the kind of file", &posix_of(0o100_644, 0, 0, None, &[]), "damaged");
        check("metadata: an owner that can't be", &posix_of(0o644, u64::from(u32::MAX), 0, None, &[]), "damaged");
        check("metadata: a second of nanoseconds", &posix_of(0o644, 0, 1_000_000_000, None, &[]), "damaged");
        check("metadata: attributes out of order", &posix(None, &[("user.b", ""), ("user.a", "")]), "damaged");
        check("metadata: an attribute twice", &posix(None, &[("user.a", ""), ("user.a", "")]), "damaged");
        check("metadata: an attribute without a name", &posix(None, &[("", "")]), "damaged");
        check("metadata: an attribute's name with NUL", &posix(None, &[("a\0b", "")]), "damaged");
        let own =
            |names: &[&str]| Value::new().numbers([0, 0, 0]).list(names, |value, name| value.bytes(name).bytes("1"));
        check("metadata: an application's attributes", &own(&["a", "b"]).extensions(&[]), "fine");
        check("metadata: an application's attributes out of order", &own(&["b", "a"]).extensions(&[]), "damaged");
        check("metadata: an application's attribute without a name", &own(&[""]).extensions(&[]), "damaged");
        check("metadata: an unknown odd extension", &own(&[]).extensions(&[(1, "new")]), "fine");
        check("metadata: an unknown even extension", &own(&[]).extensions(&[(2, "new")]), "unsupported");
        check("metadata: a byte after the value", &own(&[]).extensions(&[]).raw([0]), "damaged");
        check("metadata: ends too early", &own(&[]), "damaged");
        let user = Value::new().n(1).numbers([0o644, 0, 0]).option(Some("a\0b"), Value::bytes).n(0);
        let user = user.numbers([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).extensions(&[]);
        check("metadata: an owner's name with NUL", &user, "damaged");
    }
}
