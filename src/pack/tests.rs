//! The pack's golden bytes, and all that is refused: damage, and what a holder of the keys could forge.

use super::*;
use crate::clock::Surroundings;
use crate::codec;
use crate::crypto::{Keyring, Kind, Part, TAG_LEN};
use crate::error::Result;
use crate::id::{BlobId, ObjectId, WriterId};
use crate::object::{self, Header};
use crate::testing::{assert_golden, each_damage, fixed, keyring, stranger};

const WRITER: WriterId = WriterId::new(*b"a writer's own i");

/// A zstd frame of one run: `length` times the letter a. Written out, so that no compressor decides its bytes.
fn frame(length: u8) -> Vec<u8> {
    let block = u32::from(length) << 3 | 0b011;
    let [a, b, c, _] = block.to_le_bytes();
    vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, length, a, b, c, b'a']
}

fn blobs(kind: BlockKind, plain: &[&[u8]]) -> Vec<(BlobId, u32)> {
    let keyring = keyring();
    plain.iter().map(|blob| (kind.id_key(&keyring).id(blob), blob.len() as u32)).collect()
}

/// A block of two runs of the letter a under one frame, one of raw data and one of nodes.
fn blocks() -> Vec<CompressedBlock> {
    let runs = blobs(BlockKind::Data, &[&[b'a'; 60], &[b'a'; 40]]);
    let raw = |kind, plain: &[&[u8]]| CompressedBlock {
        kind,
        encoding: Encoding::Raw,
        plain_len: plain.concat().len() as u32,
        blobs: blobs(kind, plain),
        stored: plain.concat(),
    };
    let zstd = CompressedBlock {
        kind: BlockKind::Data,
        encoding: Encoding::Zstd,
        plain_len: 100,
        blobs: runs,
        stored: frame(100),
    };
    vec![zstd, raw(BlockKind::Data, &[b"one chunk", b"another chunk"]), nodes()]
}

/// Places for hints to point at.
fn places() -> [Place; 2] {
    let place = |number: u32| Place {
        kind: BlockKind::Nodes,
        encoding: if number.is_multiple_of(2) { Encoding::Raw } else { Encoding::Zstd },
        number,
        offset: 1000 * number,
        stored_len: 300,
        plain_len: 300 + number,
    };
    [place(4), place(7)]
}

/// A leaf, and a node whose children are in every kind of place.
fn children() -> Vec<Option<ChildSpot>> {
    let [near, far] = places();
    let (pack, other) = (ObjectId::new([0xaa; 32]), ObjectId::new([0xbb; 32]));
    let spots = [Spot::Here, Spot::Nearby(near), Spot::Away(pack, far), Spot::Away(pack, near), Spot::Away(other, far)];
    let known = spots.into_iter().zip(0u32..).map(|(spot, at)| Some(ChildSpot { spot, at, length: 6 + at }));
    known.chain([None, Some(ChildSpot { spot: Spot::Away(pack, far), at: 70, length: 71 })]).collect()
}

/// A block of two nodes, one with children.
fn nodes() -> CompressedBlock {
    let keyring = keyring();
    let id = |node: &[u8]| BlockKind::Nodes.id_key(&keyring).id(node);
    let mut block = Block::new(BlockKind::Nodes);
    block.push(id(b"a leaf"), b"a leaf");
    block.push_node(id(b"a node"), b"a node", &children());
    block.compress(None).unwrap()
}

fn seal(keyring: &Keyring, surroundings: &Surroundings) -> SealedPack {
    seal_pack(blocks(), &WRITER, keyring, surroundings).unwrap()
}

/// Reads all that there is in a pack.
fn open(pack: &[u8], keyring: &Keyring) -> Result<Footer> {
    let (opener, _, footer) = parse_pack(pack, keyring, "the pack")?;
    for (place, entry) in footer.places() {
        verify_block(pack, &place, entry, &opener, keyring, "the pack")?;
    }
    Ok(footer)
}

#[test]
fn golden_bytes() {
    let pack = seal(&keyring(), &fixed());
    assert_golden("pack", &pack.bytes);
    assert_eq!(pack.id, object::object_id(&pack.bytes));
    assert_eq!(open(&pack.bytes, &keyring()).unwrap(), pack.footer);
    let (header, writer) = parse_header(&pack.bytes, "the pack").unwrap();
    assert_eq!((header, writer), (pack.header, WRITER));
    let (opener, ..) = parse_pack(&pack.bytes, &keyring(), "the pack").unwrap();
    let plain = pack.footer.places().map(|(place, _)| {
        let range = place.range();
        place.open(&opener, pack.bytes[range.start as usize..range.end as usize].to_vec(), "the pack").unwrap()
    });
    let plain: Vec<_> = plain.collect();
    assert_eq!(plain[..2], [vec![b'a'; 100], b"one chunkanother chunk".to_vec()]);
    assert_eq!(split_hints(&plain[2], "it").unwrap().0, b"a leafa node");
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let pack = seal(&keyring(), &fixed());
    each_damage(&pack.bytes, |what, damaged| assert!(open(damaged, &keyring()).is_err(), "{what}"));
    assert!(open(&pack.bytes, &stranger()).unwrap_err().is_corrupt());
}

#[test]
fn hints_say_where_children_are() {
    let block = nodes();
    let (_, hints) = split_hints(&block.stored, "it").unwrap();
    let hints = Hints::decode(hints, "it").unwrap();
    let (own, [place, _]) = (ObjectId::new([0xcc; 32]), places());
    let told = hints.children(6, &own, &place);
    let expected: Vec<_> = children()
        .into_iter()
        .map(|child| {
            child.map(|ChildSpot { spot, at, length }| {
                let (pack, place) = match spot {
                    Spot::Here => (own, place),
                    Spot::Nearby(place) => (own, place),
                    Spot::Away(pack, place) => (pack, place),
                };
                Hint { pack, place, at, length }
            })
        })
        .collect();
    assert_eq!(told, expected);
    assert_eq!(hints.children(0, &own, &place), [], "a leaf has no children");
    // What several children share is said once.
    assert!(block.stored.len() < 12 + 2 * 32 + 4 * 12 + 7 * 3 + 12, "{} bytes", block.stored.len());
}

#[test]
fn hints_that_point_nowhere_are_refused() {
    let keyring = keyring();
    let nodes = nodes();
    let (plain, hints) = split_hints(&nodes.stored, "it").unwrap();
    for (at, byte) in hints.iter().enumerate() {
        for value in [0, 1, byte ^ 1, 8, 250, 251, 253, 255] {
            let mut lie = hints.to_vec();
            lie[at] = value;
            if let Ok(hints) = Hints::decode(&lie, "it") {
                hints.children(6, &ObjectId::new([0; 32]), &places()[0]);
            }
        }
    }
    let with = |stored: Vec<u8>| {
        let block =
            CompressedBlock { plain_len: stored.len() as u32, blobs: nodes.blobs.clone(), stored, ..self::nodes() };
        seal_pack(vec![block], &WRITER, &keyring, &fixed())
    };
    assert!(with(nodes.stored.clone()).is_ok());
    let length = |length: u32| length.to_le_bytes().to_vec();
    let all = hints.len() as u32;
    for (what, stored) in [
        ("no hints at all", plain.to_vec()),
        ("hints longer than the block", [plain, hints, &length(all + 100)].concat()),
        ("hints that begin in a node", [plain, hints, &length(all + 1)].concat()),
        ("hints that begin late", [plain, hints, &length(all - 1)].concat()),
        ("more than hints", [plain, b"x", hints, &length(all)].concat()),
    ] {
        assert!(with(stored).unwrap_err().is_corrupt(), "{what}");
    }
}

#[test]
fn blocks_cannot_change_places() {
    let pack = seal(&keyring(), &fixed());
    let (opener, ..) = parse_pack(&pack.bytes, &keyring(), "it").unwrap();
    let places: Vec<_> = pack.footer.places().map(|(place, _)| place).collect();
    let message = |place: &Place| pack.bytes[place.range().start as usize..place.range().end as usize].to_vec();
    assert!(places[1].open(&opener, message(&places[1]), "it").is_ok());
    let moved = Place { number: 2, ..places[1] };
    assert!(moved.open(&opener, message(&places[1]), "it").unwrap_err().is_corrupt());
    let retyped = Place { kind: BlockKind::Nodes, ..places[1] };
    assert!(retyped.open(&opener, message(&places[1]), "it").unwrap_err().is_corrupt());
    let relabelled = Place { encoding: Encoding::Zstd, ..places[1] };
    assert!(relabelled.open(&opener, message(&places[1]), "it").unwrap_err().is_corrupt());
}

/// A pack whose maker holds the keys and lies: `change` may alter the footer, the footer's number, and the pack.
fn forge(change: impl FnOnce(&mut Footer, &mut u32)) -> Vec<u8> {
    let (keyring, surroundings) = (keyring(), fixed());
    let mut sealer = keyring.sealer(Kind::Pack, &surroundings);
    let mut bytes = Vec::new();
    Header::of(&sealer).write(&mut bytes);
    bytes.extend_from_slice(WRITER.as_bytes());
    let mut footer = Footer::default();
    for CompressedBlock { kind, encoding, plain_len, blobs, stored } in blocks() {
        let stored_len = (stored.len() + TAG_LEN) as u32;
        footer.blocks.push(BlockEntry { kind, encoding, stored_len, plain_len, blobs });
    }
    let mut number = footer.blocks.len() as u32;
    change(&mut footer, &mut number);
    let start = BLOCKS_START + blocks().iter().map(|block| block.stored.len() + TAG_LEN).sum::<usize>();
    let mut message = footer.message(start);
    let mut end = trailer((message.len() + TAG_LEN) as u32, number);
    sealer.seal(Part::Trailer, "", &mut end).unwrap();
    for CompressedBlock { kind, mut stored, .. } in blocks() {
        sealer.seal(kind.part(), "", &mut stored).unwrap();
        bytes.extend_from_slice(&stored);
    }
    // Messages are numbered in order, so a lie about the number is sealed under it.
    for _ in sealer_steps(number) {
        sealer.seal(Part::Footer, "", &mut Vec::new()).unwrap();
    }
    sealer.seal(Part::Footer, &WRITER.to_string(), &mut message).unwrap();
    bytes.extend_from_slice(&message);
    bytes.extend_from_slice(&end);
    bytes
}

fn sealer_steps(number: u32) -> std::ops::Range<u32> {
    3..number
}

#[test]
fn a_footer_that_lies_is_refused() {
    assert!(open(&forge(|_, _| ()), &keyring()).is_ok());
    type Lie = fn(&mut Footer, &mut u32);
    let lies: [(&str, Lie); 18] = [
        ("a block less", |footer, _| drop(footer.blocks.pop())),
        ("a block more", |footer, _| footer.blocks.push(footer.blocks[2].clone())),
        ("another number of blocks", |_, number| *number = 5),
        ("blocks in another order", |footer, _| footer.blocks.swap(0, 1)),
        ("a stored length too long", |footer, _| footer.blocks[1].stored_len += 1),
        ("a stored length too short", |footer, _| footer.blocks[1].stored_len -= 1),
        ("stored lengths shifted", |footer, _| {
            footer.blocks[0].stored_len -= 1;
            footer.blocks[1].stored_len += 1;
        }),
        ("a stored length of nothing", |footer, _| footer.blocks[1].stored_len = 0),
        ("a huge stored length", |footer, _| footer.blocks[1].stored_len = u32::MAX),
        ("a plain length too long", |footer, _| footer.blocks[0].plain_len = 101),
        ("a huge plain length", |footer, _| {
            footer.blocks[0].plain_len = u32::MAX;
            footer.blocks[0].blobs[0].1 = u32::MAX - 40;
        }),
        ("a bomb", |footer, _| {
            footer.blocks[0].plain_len = 50;
            footer.blocks[0].blobs.pop();
            footer.blocks[0].blobs[0].1 = 50;
        }),
        ("a blob longer than there are", |footer, _| {
            footer.blocks[0].plain_len = (1 << 20) + 1;
            footer.blocks[0].blobs.pop();
            footer.blocks[0].blobs[0].1 = (1 << 20) + 1;
        }),
        ("an empty blob", |footer, _| footer.blocks[0].blobs.push((BlobId::new([0; 20]), 0))),
        ("blobs that overlap", |footer, _| footer.blocks[0].blobs[1].1 = 41),
        ("blobs cut elsewhere", |footer, _| {
            footer.blocks[0].blobs[0].1 = 59;
            footer.blocks[0].blobs[1].1 = 41;
        }),
        ("another id", |footer, _| footer.blocks[2].blobs[0].0 = BlobId::new([1; 20])),
        ("an id of the other domain", |footer, _| {
            footer.blocks[2].blobs[0].0 = keyring().chunk_id().id(b"a node");
        }),
    ];
    for (what, lie) in lies {
        assert!(open(&forge(lie), &keyring()).unwrap_err().is_corrupt(), "{what}");
    }
}

#[test]
fn the_trailer_is_checked_before_it_is_used() {
    let keyring = keyring();
    let trailer = |length: u32, number: u32| {
        let mut message = trailer(length, number);
        keyring.sealer(Kind::Pack, &fixed()).seal(Part::Trailer, "", &mut message).unwrap();
        <[u8; TRAILER_LEN]>::try_from(message).unwrap()
    };
    let opener = Header::of(&keyring.sealer(Kind::Pack, &fixed())).opener(&keyring, "it").unwrap();
    let least = (BLOCKS_START + TAG_LEN + 1 + TRAILER_LEN) as u64;
    let range = footer_range(least, &trailer(TAG_LEN as u32 + 1, 0), &opener, "it").unwrap().range;
    assert_eq!(range, BLOCKS_START as u64..BLOCKS_START as u64 + 17);
    for (length, message) in [
        (0, 0),
        (0, 17),
        (7, 17),
        (8, 17),
        (least, 16),
        (least, 18),
        (least, u32::MAX),
        (PACK_MAX, FOOTER_MAX as u32 + 1),
        (PACK_MAX + 1, 17),
        (u64::MAX, 17),
    ] {
        let refused = footer_range(length, &trailer(message, 0), &opener, "it");
        assert!(refused.unwrap_err().is_corrupt(), "{message} of {length}");
    }
}

#[test]
fn what_is_damaged_before_it_leaves_is_not_sealed() {
    let mut wrong = blocks();
    wrong[1].stored[0] ^= 1;
    let refused = seal_pack(wrong, &WRITER, &keyring(), &fixed());
    assert!(refused.unwrap_err().is_corrupt(), "a byte that changed after it was hashed");
}

#[test]
fn blocks_compress_where_it_pays() {
    let block = |plain: Vec<u8>| {
        let mut block = Block::new(BlockKind::Data);
        block.push(keyring().chunk_id().id(&plain), &plain);
        block
    };
    let noise = crate::testing::Random::new(1).bytes(10_000);
    assert_eq!(block(noise.clone()).compress(Some(3)).unwrap().encoding, Encoding::Raw, "no gain");
    assert_eq!(block(vec![0; 10_000]).compress(None).unwrap().encoding, Encoding::Raw, "not asked for");
    let zeros = block(vec![0; 10_000]).compress(Some(3)).unwrap();
    assert!(zeros.encoding == Encoding::Zstd && zeros.stored.len() < 100);
    assert!(block(vec![0; PLAIN_MAX as usize + 1]).compress(Some(3)).is_err(), "too much for one block");
}

#[test]
fn small_packs_have_few_lengths() {
    for length in [100, 5000, 70_000] {
        let pack = pack_of(length, 1, &fixed());
        assert_eq!(object::padded_length(pack.bytes.len() as u64), pack.bytes.len() as u64);
    }
}

/// A pack of so many bytes of content, in so many blocks.
fn pack_of(length: usize, blocks: usize, surroundings: &Surroundings) -> SealedPack {
    let plain = crate::testing::Random::new(length as u64).bytes(length);
    let block = |plain: &[u8]| {
        let mut block = Block::new(BlockKind::Data);
        block.push(keyring().chunk_id().id(plain), plain);
        block.compress(None).unwrap()
    };
    let blocks = plain.chunks(length.div_ceil(blocks)).map(block).collect();
    seal_pack(blocks, &WRITER, &keyring(), surroundings).unwrap()
}

#[test]
fn the_length_of_content_does_not_show_within_a_class() {
    let surroundings = fixed();
    let mut classes = std::collections::BTreeMap::<usize, Vec<Vec<u8>>>::new();
    for length in 20_000..22_000 {
        let pack = pack_of(length, 1, &surroundings).bytes;
        classes.entry(pack.len()).or_default().push(pack);
    }
    for length in classes.keys() {
        assert_eq!(object::padded_length(*length as u64), *length as u64);
    }
    // Padmé has one class for each 1024 bytes of such lengths.
    assert!(classes.len() <= 3, "{:?}", classes.keys());
    for blocks in [2, 3] {
        let pack = pack_of(20_500, blocks, &surroundings).bytes;
        classes.get_mut(&pack.len()).unwrap().push(pack);
    }
    for (length, packs) in classes {
        assert!(packs.len() > 100 || length < 21_000, "{length}: {}", packs.len());
        // In the clear stands the same in all of them, but for the salt.
        let clear = |pack: &[u8]| [&pack[..14], &pack[46..BLOCKS_START]].concat();
        assert!(packs.iter().all(|pack| clear(pack) == clear(&packs[0])));
        // Behind that each byte has any value as often as any other, as ciphertext has: a number that goes with the
        // length of the content has bytes that are mostly the same.
        for at in (BLOCKS_START..BLOCKS_START + 64).chain(length - 64..length) {
            let mut seen = [0u32; 256];
            packs.iter().for_each(|pack| seen[usize::from(pack[at])] += 1);
            let most = seen.iter().max().copied().unwrap_or_default();
            assert!((most as usize) < 10 + packs.len() / 20, "{length}: byte {at} is one value {most} times");
        }
    }
}

#[test]
fn nothing_behind_the_head_is_in_the_clear() {
    let (one, other) = (pack_of(20_000, 1, &fixed()), pack_of(20_000, 3, &fixed()));
    for (pack, blocks) in [(&one, 1), (&other, 3)] {
        let clear = trailer(pack.footer_len, blocks);
        let end = &pack.bytes[pack.bytes.len() - TRAILER_LEN..];
        assert!(!pack.bytes.windows(8).any(|bytes| bytes == clear), "the trailer stands in the clear");
        assert_ne!(end[..4], pack.footer_len.to_le_bytes());
        assert!(footer_range(pack.bytes.len() as u64, end.try_into().unwrap(), &opener_of(pack), "it").is_ok());
    }
}

fn opener_of(pack: &SealedPack) -> crate::crypto::Opener {
    pack.header.opener(&keyring(), "it").unwrap()
}

#[test]
fn a_footer_is_found_by_its_encoding_alone() {
    let footer = seal(&keyring(), &fixed()).footer;
    let encoded = codec::encode(&footer);
    assert_eq!(codec::decode::<Footer>(&encoded, "it").unwrap(), footer);
    for length in [&[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[252, 0xff, 0xff, 0xff, 0x0f], &[250]] {
        let lying = [length, &encoded[1..]].concat();
        assert!(codec::decode::<Footer>(&lying, "it").unwrap_err().is_corrupt(), "{length:?}");
    }
}
