//! The segment's golden bytes, all that is refused, and lookups through every kind of source.

#![allow(clippy::big_endian_bytes, reason = "so that the ids made here sort as their numbers do")]

mod arriving;

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::entry::{ENTRY_LEN, PAGE_ENTRIES, PAGE_ROWS, PAGE_STORED, ROW_LEN};
use super::segment::{HEAD_LEN, Remote, Source};
use super::*;
use crate::crypto::{Keyring, Kind, Part, TAG_LEN};
use crate::error::Result;
use crate::id::{BlobId, ObjectId};
use crate::layout::Name;
use crate::object::{self, Header};
use crate::pack::{BlockEntry, BlockKind, Encoding, Footer, Place};
use crate::store::{Intent, Store};
use crate::testing::stores::{CountingStore, Kind as Call};
use crate::testing::{Random, assert_golden, each_damage, fixed, keyring, stranger};

/// Blobs to a pack, so that large segments name many packs.
const PER_PACK: usize = 20;

fn pack_row(number: usize) -> PackRow {
    PackRow { id: object::object_id(&number.to_le_bytes()), generation: number as u32, salt: [number as u8; 32] }
}

/// A segment that knows `ids`, each in a block of its own, and where each of them is.
fn build(ids: &[BlobId]) -> (Bytes, BTreeMap<BlobId, Location>) {
    let (mut builder, mut expected) = (SegmentBuilder::default(), BTreeMap::new());
    for (number, ids) in ids.chunks(PER_PACK).enumerate() {
        // Before each stands one byte that is the same in all blocks.
        let entry = |(at, id): (usize, &BlobId)| BlockEntry {
            kind: if at % 3 == 0 { BlockKind::Nodes } else { BlockKind::Data },
            encoding: if at % 2 == 0 { Encoding::Zstd } else { Encoding::Raw },
            stored_len: 116,
            plain_len: 100,
            blobs: vec![(BlobId::new([0; 20]), 1), (*id, 99)],
        };
        let footer = Footer { blocks: ids.iter().enumerate().map(entry).collect() };
        for (place, entry) in footer.places() {
            let id = entry.blobs[1].0;
            expected.insert(id, Location { pack: pack_row(number), place, at: 1, length: 99 });
        }
        builder.add_pack(pack_row(number), &footer).unwrap();
    }
    (builder.seal(&keyring(), &fixed()).unwrap().into(), expected)
}

fn random_ids(count: usize, seed: u64) -> Vec<BlobId> {
    let mut random = Random::new(seed);
    (0..count).map(|_| BlobId::new(random.bytes(20).try_into().unwrap())).collect()
}

/// Ids that differ in their last bytes alone, but for a few far away: as bad for a search by proportion as can be.
fn clustered_ids(count: usize) -> Vec<BlobId> {
    let id = |number: usize| {
        let mut id = [0x42; 20];
        id[12..].copy_from_slice(&(number as u64).to_be_bytes());
        BlobId::new(id)
    };
    let mut ids: Vec<_> = (0..count.saturating_sub(2)).map(id).collect();
    ids.extend([BlobId::new([0x01; 20]), BlobId::new([0xff; 20])]);
    ids
}

/// Ids that grow by a factor, so that every guess is far off.
fn exponential_ids(count: usize) -> Vec<BlobId> {
    let id = |number: usize| {
        let mut id = [0; 20];
        let bits = number * 63 / count;
        let prefix = (1u64 << bits) | (number as u64 & ((1 << bits) - 1));
        id[..8].copy_from_slice(&prefix.to_be_bytes());
        id[12..].copy_from_slice(&(number as u64).to_be_bytes());
        BlobId::new(id)
    };
    (1..=count).map(id).collect()
}

fn segment_id(bytes: &[u8]) -> ObjectId {
    object::object_id(bytes)
}

fn in_memory(bytes: &Bytes) -> Segment {
    Segment::from_bytes(segment_id(bytes), bytes.clone(), &keyring()).unwrap()
}

fn in_file(bytes: &Bytes) -> Segment {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let source = Source::File(file, "segment".into());
    let head = &bytes[..HEAD_LEN];
    let mut segment = Segment::open(segment_id(bytes), head, bytes.len() as u64, source, &keyring()).unwrap();
    segment.build_filter().unwrap();
    segment
}

/// A segment on a store that counts.
async fn on_store(bytes: &Bytes) -> (CountingStore, Store) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let name = Name::Index(segment_id(bytes)).to_string();
    inner.put(&name.into(), bytes.clone().into()).await.unwrap();
    let counting = CountingStore::new(inner);
    let store = Store::connect(&counting.shared().into(), Intent::Open).unwrap();
    (counting, store)
}

fn remote(bytes: &Bytes, store: &Store) -> Segment {
    let source = Source::Remote(Remote { store: store.clone(), tail: Bytes::new(), pages: Mutex::default() });
    Segment::open(segment_id(bytes), &bytes[..HEAD_LEN], bytes.len() as u64, source, &keyring()).unwrap()
}

#[tokio::test]
async fn every_id_is_found_and_no_other() {
    let sizes = [0, 1, 2, 255, 256, 257, 511, 512, 513, 5000];
    let random = sizes.iter().map(|size| random_ids(*size, *size as u64));
    let clustered = sizes.iter().filter(|size| **size > 2).map(|size| clustered_ids(*size));
    let exponential = sizes.iter().filter(|size| **size > 2).map(|size| exponential_ids(*size));
    for ids in random.chain(clustered).chain(exponential) {
        let (bytes, expected) = build(&ids);
        let (_, store) = on_store(&bytes).await;
        let (memory, file, remote) = (in_memory(&bytes), in_file(&bytes), remote(&bytes, &store));
        assert!(memory.len() as usize >= expected.len());
        let step = (ids.len() / 300).max(1);
        for (id, location) in expected.iter().step_by(step) {
            assert_eq!(memory.find_local(id).unwrap(), Some(*location));
            assert_eq!(file.find_local(id).unwrap(), Some(*location));
            assert_eq!(file.find(id).await.unwrap(), Some(*location));
            assert_eq!(remote.find(id).await.unwrap(), Some(*location));
        }
        let mut absent = random_ids(100, 999);
        absent.extend([BlobId::new([0xfe; 20]), BlobId::new([0x42; 20]), BlobId::new([0x02; 20])]);
        absent.extend(expected.keys().take(50).map(|id| {
            let mut near = *id.as_bytes();
            near[19] ^= 0x80;
            BlobId::new(near)
        }));
        for id in absent.iter().filter(|id| !expected.contains_key(id)) {
            assert_eq!(memory.find_local(id).unwrap(), None);
            assert_eq!(file.find_local(id).unwrap(), None);
            assert_eq!(remote.find(id).await.unwrap(), None);
        }
        let listed: Vec<_> = memory.entries().collect::<Result<_>>().unwrap();
        assert!(listed.is_sorted_by(|(a, _), (b, _)| a < b));
        assert_eq!(listed.iter().filter(|(id, _)| expected.contains_key(id)).count(), expected.len());
    }
}

/// Reads that lookups of `ids` take, each from a cold segment.
async fn reads(bytes: &Bytes, ids: &[BlobId]) -> Vec<u64> {
    let (counting, store) = on_store(bytes).await;
    let mut reads = Vec::new();
    for id in ids {
        counting.take();
        remote(bytes, &store).find(id).await.unwrap();
        reads.push(counting.take().of(Call::Get));
    }
    reads.sort_unstable();
    reads
}

#[tokio::test]
async fn a_cold_lookup_reads_few_pages() {
    let ids = random_ids(20_000, 5);
    let (bytes, _) = build(&ids);
    let of_known = reads(&bytes, &ids[..300]).await;
    // A page of entries and a page of packs; a third where the first guess was a page off.
    assert_eq!(of_known[150], 2, "{of_known:?}");
    assert!(of_known[280] <= 3 && of_known[299] <= 4, "{of_known:?}");
    let of_unknown = reads(&bytes, &random_ids(300, 6)).await;
    assert!(of_unknown[150] <= 2 && of_unknown[299] <= 3, "{of_unknown:?}");
    for hostile in [clustered_ids(20_000), exponential_ids(20_000)] {
        let (bytes, _) = build(&hostile);
        let step = hostile.iter().copied().step_by(67).collect::<Vec<_>>();
        let reads = reads(&bytes, &step).await;
        // Three guesses by proportion, then halving 79 pages, then a page of packs.
        assert!(*reads.last().unwrap() <= 3 + 7 + 1, "{reads:?}");
    }
}

#[test]
fn golden_bytes() {
    let (bytes, expected) = build(&random_ids(300, 1));
    let (head, pages) = bytes.split_at(HEAD_LEN + ENTRY_LEN);
    assert_golden("index-segment-head", head);
    assert_golden("index-segment-hash", blake3::hash(pages).as_bytes());
    assert_eq!(in_memory(&bytes).entries().count(), expected.len() + 1, "and the one that stands before each");
    let small = build(&random_ids(2, 1)).0;
    assert_golden("index-segment", &small);
}

#[test]
fn entries_and_rows_have_known_bytes() {
    let place = Place {
        kind: BlockKind::Nodes,
        encoding: Encoding::Zstd,
        number: 0x0102,
        offset: 0x0304,
        stored_len: 0x50,
        plain_len: 0x60,
    };
    let entry = super::entry::Entry { id: BlobId::new([0xaa; 20]), row: 7, place, at: 0x10, length: 0x20 };
    let mut bytes = Vec::new();
    entry.write(&mut bytes);
    let numbers = [7u32, 0x0102, 0x0304, 0x50, 0x60, 0x10, 0x20].map(u32::to_le_bytes).concat();
    assert_eq!(bytes, [&[0xaa; 20][..], &numbers, &[3]].concat());
    let read = |bytes: &[u8]| super::entry::Entry::read(bytes.try_into().unwrap(), "it");
    assert_eq!(read(&bytes).unwrap(), entry);
    let mut flags = bytes.clone();
    for unknown in [4, 8, 0x80, 0xff] {
        flags[48] = unknown;
        assert!(read(&flags).unwrap_err().is_corrupt(), "flags {unknown}");
    }
    // (row, number, offset, stored length, plain length, at, length) that no entry has
    for wrong in [
        [7, 0, 0, 16, 16, 0, 1],
        [7, 0, 0, 0x50, 0, 0, 0],
        [7, 0, 0, 0x50, 0x60, 0x10, 0],
        [7, 0, 0, 0x50, 0x60, 0x41, 0x20],
        [7, 0, 0, 0x50, 0x60, u32::MAX, 1],
        [7, 0, 0, 0x50, 0x60, 1, u32::MAX],
        [7, 0, 0, 0x50, u32::MAX, 1, 1],
        [7, 0, 0, u32::MAX, u32::MAX, 1, 1],
        [7, 0, u32::MAX, 0x50, 0x60, 1, 1],
        [7, 0, 0, 0x60 + 17, 0x60, 1, 1],
        [7, 0, 0, 3 << 20, 3 << 20, 0, (1 << 20) + 1],
    ] {
        let bytes = [&[0xaa; 20][..], &wrong.map(u32::to_le_bytes).concat(), &[3]].concat();
        assert!(read(&bytes).unwrap_err().is_corrupt(), "{wrong:?}");
    }
    let mut row = Vec::new();
    pack_row(5).write(&mut row);
    assert_eq!(row, [&pack_row(5).id.as_bytes()[..], &[5, 0, 0, 0], &[5; 32]].concat());
    assert_eq!(PackRow::read(row.as_slice().try_into().unwrap()), pack_row(5));
}

/// Reads all that there is in a segment whose name needn't fit.
fn read_all(bytes: &[u8], keyring: &Keyring) -> Result<Vec<(BlobId, Location)>> {
    let (bytes, id) = (Bytes::copy_from_slice(bytes), ObjectId::new([0; 32]));
    Segment::open(id, &bytes.clone(), bytes.len() as u64, Source::Memory(bytes), keyring)?.entries().collect()
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let (bytes, _) = build(&random_ids(2, 1));
    assert!(read_all(&bytes, &keyring()).is_ok());
    each_damage(&bytes, |what, damaged| {
        assert!(read_all(damaged, &keyring()).is_err(), "{what}");
        let named = Segment::from_bytes(segment_id(&bytes), Bytes::copy_from_slice(damaged), &keyring());
        assert!(named.unwrap_err().is_corrupt(), "{what}");
    });
    assert!(read_all(&bytes, &stranger()).is_err());
}

#[test]
fn pages_cannot_change_places() {
    let (bytes, _) = build(&random_ids(3 * PAGE_ENTRIES, 1));
    let page =
        |number: usize| -> Range<usize> { HEAD_LEN + number * PAGE_STORED..HEAD_LEN + (number + 1) * PAGE_STORED };
    let mut swapped = bytes.to_vec();
    let first = bytes[page(0)].to_vec();
    swapped.copy_within(page(1), page(0).start);
    swapped[page(1)].copy_from_slice(&first);
    assert!(read_all(&swapped, &keyring()).unwrap_err().is_corrupt());
}

/// A segment whose maker holds the keys and lies.
fn forge(entries: u64, rows: u32, pages: &[(Part, Vec<u8>)]) -> Vec<u8> {
    let (keyring, surroundings) = (keyring(), fixed());
    let mut sealer = keyring.sealer(Kind::Index, &surroundings);
    let mut out = Vec::new();
    Header::of(&sealer).write(&mut out);
    let mut counts = [&entries.to_le_bytes()[..], &rows.to_le_bytes()].concat();
    sealer.seal(Part::Footer, "", &mut counts).unwrap();
    out.extend(counts);
    for (part, page) in pages {
        let mut page = page.clone();
        sealer.seal(*part, "", &mut page).unwrap();
        out.extend(page);
    }
    out
}

fn entry_bytes(id: u8, row: u32) -> Vec<u8> {
    let numbers = [row, 0, 62, 116, 100, 0, 100].map(u32::to_le_bytes).concat();
    [&[id; 20][..], &numbers, &[0]].concat()
}

#[test]
fn a_segment_that_lies_is_refused() {
    let row = || (Part::PackTable, vec![0; ROW_LEN]);
    let page = |entries: &[Vec<u8>]| (Part::Page, entries.concat());
    let sound = forge(2, 1, &[page(&[entry_bytes(1, 0), entry_bytes(2, 0)]), row()]);
    assert_eq!(read_all(&sound, &keyring()).unwrap().len(), 2);
    let two = || page(&[entry_bytes(1, 0), entry_bytes(2, 0)]);
    for (what, lie) in [
        ("more entries than there are", forge(3, 1, &[two(), row()])),
        ("fewer entries", forge(1, 1, &[two(), row()])),
        ("more packs", forge(2, 2, &[two(), row()])),
        ("no packs", forge(2, 0, &[two(), row()])),
        ("all the entries in the world", forge(u64::MAX, 1, &[two(), row()])),
        ("so many that lengths wrap", forge(u64::MAX / ENTRY_LEN as u64 + 1, 1, &[two(), row()])),
        ("all the packs in the world", forge(2, u32::MAX, &[two(), row()])),
        ("unsorted", forge(2, 1, &[page(&[entry_bytes(2, 0), entry_bytes(1, 0)]), row()])),
        ("an id twice", forge(2, 1, &[page(&[entry_bytes(1, 0), entry_bytes(1, 0)]), row()])),
        ("a pack that isn't there", forge(2, 1, &[page(&[entry_bytes(1, 0), entry_bytes(2, 1)]), row()])),
        ("a table where a page should be", forge(2, 1, &[(Part::PackTable, two().1), row()])),
        ("a page where the table should be", forge(2, 1, &[two(), (Part::Page, vec![0; ROW_LEN])])),
    ] {
        assert!(read_all(&lie, &keyring()).unwrap_err().is_corrupt(), "{what}");
    }
    assert!(read_all(&forge(0, 0, &[]), &keyring()).unwrap().is_empty(), "an empty segment is sound");
}

#[test]
fn no_filter_is_built_over_disorder() {
    // The first and the last are the same and don't meet, which filters are not made for.
    let entries = [entry_bytes(2, 0), entry_bytes(1, 0), entry_bytes(2, 0)].concat();
    let lie = Bytes::from(forge(3, 1, &[(Part::Page, entries), (Part::PackTable, vec![0; ROW_LEN])]));
    assert!(in_memory(&lie).build_filter().unwrap_err().is_corrupt());
}

#[test]
fn a_lie_does_not_mislead_a_lookup() {
    // Pages that are each sound but overlap: a search ends, and finds the id or doesn't.
    let full = |first: u8| {
        let entries = (0..PAGE_ENTRIES).map(|at| {
            let mut entry = entry_bytes(first, 0);
            entry[19] = at as u8;
            entry
        });
        (Part::Page, entries.collect::<Vec<_>>().concat())
    };
    let pages = [full(9), full(3), full(200), full(1), (Part::PackTable, vec![0; ROW_LEN])];
    let bytes = Bytes::from(forge(4 * PAGE_ENTRIES as u64, 1, &pages));
    let segment = in_memory(&bytes);
    for first in 0..=255 {
        if let Some(location) = segment.find_local(&BlobId::new([first; 20])).unwrap() {
            assert_eq!(location.length, 100);
        }
    }
    assert!(segment.entries().any(|entry| entry.is_err()));
}

#[test]
fn lengths_are_what_the_layout_says() {
    assert_eq!((ENTRY_LEN, ROW_LEN, PAGE_ENTRIES, PAGE_ROWS, TAG_LEN), (49, 68, 256, 128, 16));
    let length = |count: usize| build(&random_ids(count, 1)).0.len();
    // Each of these ids brings the one blob that stands before all of them.
    assert_eq!(length(1), 74 + 2 * 49 + 16 + 68 + 16);
    assert_eq!(length(255), 74 + 256 * 49 + 16 + 13 * 68 + 16);
    assert_eq!(length(256), 74 + 257 * 49 + 32 + 13 * 68 + 16);
}
