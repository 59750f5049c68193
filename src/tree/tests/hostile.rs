//! Golden bytes, and nodes that are refused.

use futures::TryStreamExt;

use super::super::node::{Child, NodeRef, SequenceRef};
use super::*;
use crate::codec::{Encode, decode, encode};

fn node(form: u8, items: impl Encode) -> Vec<u8> {
    let mut node = vec![form];
    node.extend(encode(&items));
    node
}

fn leaf(paths: &[&str]) -> Vec<u8> {
    node(0, paths.iter().map(|path| (key(path), file(b"x"))).collect::<Vec<_>>())
}

fn inner(level: u8, children: &[(&str, &[u8], u64)]) -> Vec<u8> {
    let child =
        |(first, node, entries): &(&str, &[u8], u64)| NodeRef { first: key(first), id: id_of(node), entries: *entries };
    node(level, children.iter().map(child).collect::<Vec<_>>())
}

#[test]
fn nodes_have_these_bytes() {
    let metadata: Payload = Bytes::from_static(b"m").into();
    let id = BlobId::new([0x11; 20]);
    let pieces = vec![Piece::Chunk { id, length: 300, repeat: 2 }, Piece::Hole { length: 5 }];
    let entries = vec![
        (key("a"), Entry::new(EntryKind::Folder, Payload::default(), metadata)),
        (key("a/b"), Entry::new(EntryKind::File, Payload::Pieces(pieces.clone()), Payload::default())),
        (key("d"), Entry::new(EntryKind::CharDevice { major: 1, minor: 2 }, Payload::default(), Payload::default())),
    ];
    let ids = "\x11".repeat(20);
    let ids = ids.as_bytes();
    let expected = [
        b"\x00\x03",
        b"\x01a\x01\x00\x00\x00\x00\x01m".as_slice(),
        b"\x03a\x00b\x00\xfb\x5d\x02\x01\x02\x00",
        ids,
        b"\xfb\x2c\x01\x02\x01\x05\x00\x00",
        b"\x01d\x05\x01\x02\x00\x00\x00\x00\x00",
    ];
    let bytes = expected.concat();
    assert_eq!(node(0, &entries), bytes);
    assert_eq!(decode_node(&bytes, "node").unwrap(), Node::Leaf(entries));

    let children = vec![NodeRef { first: key("a/b"), id, entries: 7 }];
    let bytes = [b"\x02\x01\x03a\x00b".as_slice(), ids, b"\x07"].concat();
    assert_eq!(node(2, &children), bytes);
    assert_eq!(decode_node(&bytes, "node").unwrap(), Node::Inner { level: 2, children });

    let bytes = [b"\x80\x02\x00".as_slice(), ids, b"\xfb\x2c\x01\x02\x01\x05"].concat();
    assert_eq!(node(0x80, &pieces), bytes);
    assert_eq!(decode_node(&bytes, "node").unwrap(), Node::Pieces(pieces));

    let children = vec![SequenceRef { id, length: 605 }];
    let bytes = [b"\x81\x01".as_slice(), ids, b"\xfb\x5d\x02"].concat();
    assert_eq!(node(0x81, &children), bytes);
    assert_eq!(decode_node(&bytes, "node").unwrap(), Node::Lengths { level: 1, children });
}

#[test]
fn trees_have_these_roots() {
    // If these change, every stored tree is cut anew.
    let nodes = Nodes::default();
    let model: Model = (0..1000).map(|i| (key(&format!("k/{i}")), file(&[i as u8; 100]))).collect();
    let root = build(&nodes, &normal(), &model).id;
    assert_eq!(root.to_string(), "4912e680697fb4fa4c4ccc4eb1bd0d3b3a0bd3ae");
    let mut builder = SequenceBuilder::new(normal());
    for i in 0..2000u32 {
        let id = BlobId::new(std::array::from_fn(|place| (i >> (place % 4 * 8)) as u8));
        builder.push(Piece::Chunk { id, length: 1 + i, repeat: 1 }, &mut &nodes).unwrap();
    }
    let Payload::Sequence(root) = builder.finish(&mut &nodes).unwrap() else { panic!("not a sequence") };
    assert_eq!(root.root.to_string(), "dff8ebfd8293b8aecc3cd21a0bfe7f310915c7a7");
}

#[test]
fn unsound_nodes_are_refused() {
    let id = BlobId::new([1; 20]);
    let chunk = |length, repeat| Piece::Chunk { id, length, repeat };
    let hole = |length| Piece::Hole { length };
    let child = |length| SequenceRef { id, length };
    let mut trailing = leaf(&["a"]);
    trailing.push(0);
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("no count", vec![0]),
        ("a level too high", vec![32, 0]),
        ("a level too high", vec![0xa0, 0]),
        ("more than it has", vec![0, 1]),
        ("a count beyond memory", vec![0, 253, 255, 255, 255, 255, 255, 255, 255, 127]),
        ("a count in a long spelling", vec![0, 251, 0, 0]),
        ("trailing bytes", trailing),
        ("too long", vec![0; (1 << 20) + 1]),
        ("keys out of order", leaf(&["b", "a"])),
        ("a key twice", leaf(&["a", "a"])),
        ("an unsound key", node(0, vec![(vec![b'.', b'.'], file(b""))])),
        ("no children", vec![1, 0]),
        ("children out of order", inner(1, &[("b", b"", 1), ("a", b"", 1)])),
        ("a child of nothing", inner(1, &[("a", b"", 0)])),
        ("counts that overflow", inner(1, &[("a", b"", u64::MAX), ("b", b"", 1)])),
        ("no pieces", vec![0x80, 0]),
        ("an empty piece", node(0x80, vec![chunk(0, 1)])),
        ("a piece that isn't there", node(0x80, vec![chunk(1, 0)])),
        ("an empty hole", node(0x80, vec![hole(0)])),
        ("two pieces for one", node(0x80, vec![chunk(1, 1), chunk(1, 1)])),
        ("two holes for one", node(0x80, vec![hole(1), hole(1)])),
        ("lengths that overflow", node(0x80, vec![hole(u64::MAX), chunk(1, 1)])),
        ("an empty child", node(0x81, vec![child(0)])),
        ("lengths that overflow", node(0x81, vec![child(u64::MAX), child(1)])),
    ];
    for (what, bytes) in wrong {
        let error = decode_node(&bytes, "node 7").unwrap_err();
        assert!(error.is_corrupt() && error.to_string().starts_with("node 7"), "{what}: {error}");
    }
}

#[test]
fn unsound_entries_are_refused() {
    let empty = SequenceRoot { root: BlobId::new([1; 20]), length: 0, height: 0 };
    let high = SequenceRoot { length: 1, height: 32, ..empty };
    for payload in [Payload::Pieces(vec![]), Payload::Sequence(empty), Payload::Sequence(high)] {
        assert!(decode::<Payload>(&encode(&payload), "payload").is_err());
        let entry = Entry::new(EntryKind::File, payload, Payload::default());
        assert!(TreeBuilder::new(small()).push(&key("a"), &entry, &mut Pending::default()).is_err());
    }
    let entry = Entry { size: 2, ..file(b"x") };
    assert!(decode::<Entry>(&encode(&entry), "entry").is_err());
}

#[test]
fn limits_hold_whatever_the_parameters() {
    let id = BlobId::new([1; 20]);
    let chunk = |length| Piece::Chunk { id, length, repeat: 1 };
    let with = |kind, content| vec![(key("a"), Entry::new(kind, content, Payload::default()))];
    let one = |length| with(EntryKind::File, Payload::Pieces(vec![chunk(length)]));
    let inline = |kind, length| with(kind, Bytes::from(vec![0; length]).into());
    // Around them stand the count, the key, the kind, the size and the lengths: 20 bytes in all.
    let most = 512 * 1024 - 20;
    let target = |length| inline(EntryKind::Symlink, length);
    for (what, sound, wrong) in [
        ("a chunk in an entry", node(0, one(1 << 20)), node(0, one((1 << 20) + 1))),
        ("a chunk in a sequence", node(0x80, vec![chunk(1 << 20)]), node(0x80, vec![chunk((1 << 20) + 1)])),
        ("an entry", node(0, inline(EntryKind::File, most)), node(0, inline(EntryKind::File, most + 20))),
        ("a symlink's target", node(0, target(64 << 10)), node(0, target((64 << 10) + 1))),
        (
            "a key",
            [&[0, 1, 251, 0, 16][..], &vec![b'k'; 4096], &[0, 0, 0, 0, 0, 0]].concat(),
            [&[0, 1, 251, 1, 16][..], &vec![b'k'; 4097], &[0, 0, 0, 0, 0, 0]].concat(),
        ),
        (
            "a level",
            node(31, vec![NodeRef { first: key("a"), id, entries: 1 }]),
            node(32, vec![NodeRef { first: key("a"), id, entries: 1 }]),
        ),
    ] {
        decode_node(&sound, "node").unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(decode_node(&wrong, "node").unwrap_err().is_corrupt(), "{what}");
    }
    // Nor does a writer make such.
    assert!(check(&key("a"), &target(64 << 10)[0].1).is_ok());
    assert!(check(&key("a"), &target((64 << 10) + 1)[0].1).is_err());
    assert_eq!(super::super::entry::CHUNK_MAX, crate::chunker::ChunkerParameters::MAX);
    assert_eq!(super::super::entry::CHUNK_MAX, crate::pack::BLOB_MAX);
}

#[test]
fn a_node_must_be_what_its_parent_says() {
    let (a, c) = (leaf(&["a", "b"]), leaf(&["c"]));
    let low = inner(1, &[("a", &a, 2)]);
    let sound = inner(1, &[("a", &a, 2), ("c", &c, 1)]);
    let pieces = node(0x80, vec![Piece::Hole { length: 2 }]);
    let empty = leaf(&[]);
    let wrong = [
        ("another first key", inner(1, &[("A", &a, 2), ("c", &c, 1)])),
        ("keys of the next node", inner(1, &[("a", &a, 2), ("b", &leaf(&["b"]), 1)])),
        ("too few entries", inner(1, &[("a", &a, 3), ("c", &c, 1)])),
        ("a level too low", inner(2, &[("a", &a, 2), ("c", &c, 1)])),
        ("a level too high", inner(1, &[("a", &low, 2), ("c", &c, 1)])),
        ("a sequence", inner(1, &[("a", &pieces, 2), ("c", &c, 1)])),
        ("an empty leaf", inner(1, &[("a", &empty, 2), ("c", &c, 1)])),
        ("keys beyond a bound further up", inner(2, &[("a", &sound, 3), ("b", &inner(1, &[("b", &c, 1)]), 1)])),
    ];
    let nodes = Nodes::default();
    for good in [&a, &c, &low, &sound, &pieces, &empty, &leaf(&["b"]), &inner(1, &[("b", &c, 1)])] {
        nodes.put(good.clone());
    }
    let read = |root: Vec<u8>| -> Result<Vec<(Key, Entry)>> {
        let root = nodes.put(root);
        let ranged = block_on(range(&nodes, &root, Span::all(), 2).try_collect());
        let sought = block_on(get(&nodes, &root, &key("a")));
        let edited = block_on(edit(&nodes, &mut &nodes, &small(), &root, vec![(key("a0"), Edit::Remove)]));
        let other = build(&nodes, &small(), &Model::new());
        let compared: Result<Vec<_>> = block_on(diff(&nodes, &root, &other.id, Span::all()).try_collect());
        assert_eq!(ranged.is_ok(), compared.is_ok());
        assert!(ranged.is_err() || (sought.is_ok() && edited.is_ok()));
        ranged
    };
    assert_eq!(read(sound.clone()).unwrap().len(), 3);
    for (what, root) in wrong {
        let error = read(root).unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains("node "), "{what}: {error}");
    }
    assert!(read(pieces.clone()).is_err());
}

#[test]
fn a_deep_chain_ends() {
    let nodes = Nodes::default();
    let mut bytes = leaf(&["a"]);
    for level in 1..=31 {
        nodes.put(bytes.clone());
        bytes = inner(level, &[("a", &bytes, 1)]);
    }
    let root = nodes.put(bytes.clone());
    assert!(block_on(get(&nodes, &root, &key("a"))).unwrap().is_some());
    // The one entry's tree is a leaf, so an edit also mends the shape.
    let edits = vec![(key("b"), Edit::Put(file(b"x")))];
    let mended = apply(&nodes, &normal(), &Root { id: root, entries: 1 }, edits);
    assert_eq!(mended.id, id_of(&leaf(&["a", "b"])));
    let higher = nodes.put(inner(32, &[("a", &bytes, 1)]));
    assert!(block_on(get(&nodes, &higher, &key("a"))).unwrap_err().is_corrupt());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn entries_survive_encoding(model in models(20)) {
        let entries: Vec<_> = model.into_iter().collect();
        let bytes = node(0, &entries);
        prop_assert_eq!(decode_node(&bytes, "node").unwrap(), Node::Leaf(entries));
    }

    #[test]
    fn damaged_nodes_never_panic(
        model in models(40), which in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), byte: u8
    ) {
        let nodes = Nodes::default();
        let root = build(&nodes, &small(), &model).id;
        let mut ids: Vec<_> = nodes.nodes.lock().unwrap().keys().copied().collect();
        ids.sort();
        let id = ids[which.index(ids.len())];
        let mut bytes = nodes.bytes(&id).to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        nodes.nodes.lock().unwrap().insert(id, bytes.into());
        // A changed node may be sound; what comes back is in order in any case.
        let found: Result<Vec<_>> = block_on(range(&nodes, &root, Span::all(), 2).try_collect());
        if let Ok(found) = found {
            prop_assert!(found.is_sorted_by(|(a, _), (b, _)| a < b));
        }
        let edits = model.keys().map(|key| (key.clone(), Edit::Remove)).collect();
        let _ = block_on(edit(&nodes, &mut &nodes, &small(), &root, edits));
        let _: Result<Vec<_>> = block_on(list(&nodes, &root, None).try_collect());
    }

    #[test]
    fn any_bytes_decode_to_what_encodes_to_them(bytes in prop::collection::vec(any::<u8>(), 0..200), form in 0u8..4) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = [0, 1, 0x80, 0x81][usize::from(form)];
        }
        if let Ok(decoded) = decode_node(&bytes, "node") {
            let again = match &decoded {
                Node::Leaf(items) => node(0, items),
                Node::Inner { level, children } => node(*level, children),
                Node::Pieces(items) => node(0x80, items),
                Node::Lengths { level, children } => node(0x80 | level, children),
            };
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn a_child_names_its_node_in_errors() {
    let child = Child { id: BlobId::new([0xab; 20]), level: 0, first: key("a"), upper: None, entries: 1 };
    assert!(child.decode(b"garbage").unwrap_err().to_string().starts_with("node abab"));
}
