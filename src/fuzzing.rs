//! Doors for the fuzzers in `fuzz/`: each takes bytes from anywhere and must neither panic nor use memory without bound.
//!
//! Present only where the compiler is told `--cfg fuzzing`. What lies behind a
//! seal is fuzzed twice: as the sealed bytes, and as plaintext that is sealed
//! here with a fixed key, as if it came from someone who holds the keys.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::clock::{Entropy, Surroundings, SystemClock, Timestamp};
use crate::codec;
use crate::collection::{self, CollectionRecord};
use crate::config::Config;
use crate::crypto::{Keyring, Kind, Part, Sealer, SlotKey, TAG_LEN};
use crate::files::Metadata;
use crate::id::{BlobId, ObjectId, RepositoryId, SeriesTag, WriterId};
use crate::index::Segment;
use crate::kept::{self, KeptRecord};
use crate::layout::{CommitName, Name};
use crate::object::{Header, object_id, pad, seal_signed, write_magic, write_trailer};
use crate::pack::{
    BLOCKS_START, BlockKind, Encoding, Hints, PLAIN_MAX, Place, TRAILER_LEN, parse_pack, split_hints, trailer,
};
use crate::roster::{Roster, Standing};
use crate::slot::Slot;
use crate::snapshot::open_record;
use crate::tree::decode_node;

/// The same bytes each time, so that a finding can be replayed.
#[derive(Debug)]
struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

static SURROUNDINGS: LazyLock<Surroundings> =
    LazyLock::new(|| Surroundings { clock: std::sync::Arc::new(SystemClock), entropy: std::sync::Arc::new(NoEntropy) });
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::generate(&SURROUNDINGS));

fn sealer(kind: Kind) -> (Sealer, Vec<u8>) {
    let sealer = KEYRING.sealer(kind, &SURROUNDINGS);
    let mut out = Vec::new();
    Header::of(&sealer).write(&mut out);
    (sealer, out)
}

/// The config object; then one of this value, as the administrator would seal it.
pub fn config(data: &[u8]) {
    drop(Config::parse(data));
    if let Ok(mut config) = codec::decode::<Config>(data, "a config") {
        config.administrator = *KEYRING.administrator_public();
        if let Ok(read) = config.seal(&KEYRING).and_then(|sealed| Config::parse(&sealed)) {
            assert_eq!(read, config, "a config has one form");
        }
    }
}

/// A key slot, and what its value decodes from; nothing is stretched. Then a keyring, and a roster as the administrator
/// would sign it.
pub fn key_slot(data: &[u8]) {
    drop(Slot::parse(data, &object_id(data)));
    let mut object = Vec::new();
    write_magic(Kind::KeySlot, &mut object);
    object.extend_from_slice(data);
    if let Ok(slot) = Slot::parse(&object, &object_id(&object)) {
        assert_eq!(slot.to_object().1, object, "a slot has one form");
    }
    if let Ok(keyring) = Keyring::from_bytes(data, "a keyring") {
        assert_eq!(*keyring.to_bytes(), data, "a keyring has one form");
    }
    let repository = RepositoryId::new([0; RepositoryId::LEN]);
    if let Ok(roster) = codec::decode::<Roster>(data, "a roster")
        && let (Ok(name), Ok(sealed)) = (roster.name(&KEYRING), roster.seal(&KEYRING))
        && let Ok(Some(read)) = Roster::open(&sealed, name, repository, KEYRING.administrator_public())
    {
        assert_eq!(read, roster, "a roster has one form");
        drop(Standing::Roster(Box::new(read)).teach(
            &KEYRING,
            &ObjectId::new([0; 32]),
            &SlotKey::generate(&SURROUNDINGS),
        ));
    }
}

/// A pack's header, trailer and footer; then a footer of these bytes in a pack of as many blocks as the first byte says.
pub fn pack(data: &[u8]) {
    drop(parse_pack(data, &KEYRING, "a pack"));
    let Some(([blocks, length @ ..], footer)) = data.split_first_chunk::<3>() else { return };
    let (mut sealer, mut object) = sealer(Kind::Pack);
    let writer = WriterId::new([1; WriterId::LEN]);
    object.extend_from_slice(writer.as_bytes());
    object.resize(BLOCKS_START + usize::from(u16::from_le_bytes(*length)), 0);
    let mut message = footer.to_vec();
    // Padded as a writer would, or hardly any footer would get past its padding.
    let length = object.len() + message.len() + TAG_LEN + TRAILER_LEN;
    pad(&mut message, length);
    let Ok(footer_len) = u32::try_from(message.len() + TAG_LEN) else { return };
    let mut end = trailer(footer_len, u32::from(*blocks));
    drop(sealer.seal(Part::Trailer, "", &mut end));
    for _ in 0..*blocks {
        drop(sealer.seal(Part::Data, "", &mut Vec::new()));
    }
    drop(sealer.seal(Part::Footer, &writer.to_string(), &mut message));
    object.extend_from_slice(&message);
    object.extend_from_slice(&end);
    if let Ok((_, _, footer)) = parse_pack(&object, &KEYRING, "a pack") {
        let end = footer.places().last().map_or(BLOCKS_START as u64, |(place, _)| place.range().end);
        assert!(end <= object.len() as u64, "blocks lie in their pack");
    }
}

/// A block: an encoding, a stated length, and the bytes under the seal.
pub fn block(data: &[u8]) {
    let Some(([encoding, kind, length @ ..], message)) = data.split_first_chunk::<6>() else { return };
    let (mut sealer, _) = sealer(Kind::Pack);
    let kind = if kind & 1 == 0 { BlockKind::Data } else { BlockKind::Nodes };
    let mut message = message.to_vec();
    let message_len = message.len();
    // The number 0 is the trailer's, so the first block has 1.
    drop(sealer.seal(Part::Trailer, "", &mut Vec::new()));
    drop(sealer.seal(kind.part(), "", &mut message));
    let place = Place {
        kind,
        encoding: if encoding & 1 == 0 { Encoding::Raw } else { Encoding::Zstd },
        number: 0,
        offset: BLOCKS_START as u32,
        stored_len: u32::try_from(message.len()).unwrap_or(u32::MAX),
        plain_len: u32::from_le_bytes(*length) % (PLAIN_MAX + 2),
    };
    if place.validate("a block").is_err() {
        return;
    }
    let opener = KEYRING.opener(Kind::Pack, sealer.generation(), sealer.salt(), "a block");
    if let Ok(plain) = opener.and_then(|opener| place.open(&opener, message, "a block")) {
        assert_eq!(plain.len(), place.plain_len as usize, "a block is as long as stated");
        if let Ok((nodes, hints)) = split_hints(&plain, "a block") {
            look_at_hints(nodes.len(), hints, &place);
        }
    }
    look_at_hints(message_len, &data[6..], &place);
}

/// What the hints of a block say of nodes at its beginning.
fn look_at_hints(nodes_len: usize, hints: &[u8], place: &Place) {
    let Ok(hints) = Hints::decode(hints, "a block") else { return };
    for at in 0..u32::try_from(nodes_len.min(64)).unwrap_or_default() {
        for hint in hints.children(at, &ObjectId::new([2; ObjectId::LEN]), place).into_iter().flatten() {
            drop(hint.place.validate("a hint"));
        }
    }
}

/// An index segment; then one whose pages have these bytes as plaintext.
pub fn index_segment(data: &[u8]) {
    look_up(data.to_vec());
    let Some(([entries, rows], rest)) = data.split_first_chunk::<2>() else { return };
    let (mut sealer, mut object) = sealer(Kind::Index);
    let mut counts = u64::from(*entries).to_le_bytes().to_vec();
    counts.extend_from_slice(&u32::from(*rows).to_le_bytes());
    let page_len = usize::from(*entries) * 49;
    let page = rest.get(..page_len).unwrap_or(rest).to_vec();
    let mut table = rest.get(page_len..).unwrap_or_default().to_vec();
    table.resize(usize::from(*rows) * 68, 0);
    for (part, mut message) in [(Part::Footer, counts), (Part::Page, page), (Part::PackTable, table)] {
        if message.is_empty() {
            continue;
        }
        drop(sealer.seal(part, "", &mut message));
        object.extend_from_slice(&message);
    }
    look_up(object);
}

fn look_up(object: Vec<u8>) {
    let id = object_id(&object);
    let Ok(mut segment) = Segment::from_bytes(id, Bytes::from(object), &KEYRING) else { return };
    let known: Vec<_> = segment.entries().collect();
    drop(segment.build_filter());
    let sound = known.iter().all(Result::is_ok);
    for (id, location) in known.into_iter().flatten() {
        if sound {
            assert_eq!(segment.find_local(&id).ok().flatten(), Some(location), "what is there is found");
        }
    }
    drop(segment.find_local(&BlobId::new([0x55; BlobId::LEN])));
}

/// A tree node of any kind, and an entry's metadata.
pub fn tree_node(data: &[u8]) {
    drop(decode_node(data, "a node"));
    drop(Metadata::decode(data, "metadata"));
}

/// A snapshot record; then one with these bytes as plaintext. Names are fuzzed with it.
pub fn snapshot_record(data: &[u8]) {
    let name = CommitName::first(SeriesTag::new([3; SeriesTag::LEN]));
    drop(open_record(data, &name, &KEYRING));
    let (mut sealer, mut object) = sealer(Kind::Snapshot);
    let mut message = data.to_vec();
    drop(sealer.seal(Part::Body, &Name::Commit(name).to_string(), &mut message));
    object.extend_from_slice(&message);
    write_trailer(&mut object);
    drop(open_record(&object, &name, &KEYRING));
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(name) = Name::parse(text)
    {
        assert_eq!(name.to_string(), text, "a name has one spelling");
    }
    let _: Option<ObjectId> = std::str::from_utf8(data).ok().and_then(ObjectId::parse);
}

/// A list of what counts and the objects of a collection: their bytes, and their values where these bytes are some,
/// sealed and signed.
pub fn signed_record(data: &[u8]) {
    const SERIES: &str = "fuzzed";
    let tag = KEYRING.series_tag(SERIES);
    drop(kept::open(data, &KEYRING, &tag, 1));
    if let Ok(mut record) = codec::decode::<KeptRecord>(data, "a list") {
        (record.series, record.number) = (SERIES.to_owned(), 1);
        let name = Name::Kept(tag, 1).to_string();
        if let Ok(sealed) = seal_signed(&record, Kind::Kept, &name, &KEYRING, &SURROUNDINGS)
            && let Ok(kept) = kept::open(&sealed, &KEYRING, &tag, 1)
        {
            let kept = kept.unwrap_or_default();
            assert_eq!(kept, record.kept, "what was signed comes back");
            let next = kept.forget(&[1, 2, kept.through], kept.through, (Timestamp::EPOCH, Timestamp::EPOCH), |_| true);
            assert!(!next.counts(kept.through.max(1)) || kept.through == 0, "what is forgotten doesn't count");
        }
    }
    for name in [Name::Collection(1), Name::CollectionEnd(1)] {
        drop(collection::open(data, &KEYRING, name, 1));
        if let Ok(mut record) = codec::decode::<CollectionRecord>(data, "a collection") {
            record.number = 1;
            let sealed = seal_signed(&record, Kind::Collection, &name.to_string(), &KEYRING, &SURROUNDINGS);
            if let Ok(Some(body)) = sealed.and_then(|sealed| collection::open(&sealed, &KEYRING, name, 1)) {
                assert_eq!(body, record.body, "what was signed comes back");
            }
        }
    }
}
