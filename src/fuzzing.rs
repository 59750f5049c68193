//! Doors for the fuzzers in `fuzz/`: each takes bytes from anywhere and must neither panic nor use memory without bound.
//!
//! Present only where the compiler is told `--cfg fuzzing`. What lies behind a
//! seal is fuzzed twice: as the sealed bytes, and as plaintext that is sealed
//! here with a fixed key, as if it came from someone who holds the keys.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::clock::{Entropy, Surroundings, SystemClock, Timestamp};
use crate::codec::{self, Extensions};
use crate::collection::{self, CollectionRecord};
use crate::config::Config;
use crate::crypto::{Keyring, Kind, Part, Sealer, SlotKey, TAG_LEN};
use crate::files::Metadata;
use crate::fuzzing::forge::seal_plain;
use crate::id::{BlobId, ObjectId, RepositoryId, SeriesTag, WriterId};
use crate::index::Segment;
use crate::kept::{self, KeptRecord};
use crate::layout::{self, CommitName, NUMBER_MAX, Name};
use crate::object::{Header, object_id, pad, seal_record, seal_signed, sign_clear, write_magic, write_trailer};
use crate::pack::{
    BLOCKS_START, BlockKind, Encoding, Hints, PLAIN_MAX, Place, TRAILER_LEN, parse_pack, split_hints, trailer,
};
use crate::registration::{EndRecord, EndToken, open_end, open_registration};
use crate::roster::{Roster, Standing};
use crate::slot::Slot;
use crate::snapshot::{Record, open_record};

pub mod forge;
pub mod trees;

/// The same bytes each time, so that a finding can be replayed.
#[derive(Debug)]
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(self.0);
    }
}

static SURROUNDINGS: LazyLock<Surroundings> =
    LazyLock::new(|| Surroundings { clock: std::sync::Arc::new(SystemClock), entropy: std::sync::Arc::new(Fixed(7)) });
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

/// A key slot, and what its value decodes from; nothing is stretched.
pub fn key_slot(data: &[u8]) {
    drop(Slot::parse(data, &object_id(data)));
    let mut object = Vec::new();
    write_magic(Kind::KeySlot, &mut object);
    object.extend_from_slice(data);
    if let Ok(slot) = Slot::parse(&object, &object_id(&object)) {
        assert_eq!(slot.to_object().1, object, "a slot has one form");
    }
}

/// A keyring: one that decodes comes back, lets an object be opened that it sealed, and none that it didn't.
pub fn keyring(data: &[u8]) {
    let Ok(keyring) = Keyring::from_bytes(data, "a keyring") else { return };
    assert_eq!(*keyring.to_bytes(), data, "a keyring has one form");
    let (name, weak) = ("a record", keyring.append_only());
    let sealed = seal_plain(Kind::Snapshot, name, b"text", &keyring, &SURROUNDINGS);
    let (header, body) = match Header::read(&sealed, Kind::Snapshot, name) {
        Ok((header, rest)) => (header, rest[..rest.len() - 32].to_vec()),
        Err(error) => panic!("what was sealed has no header: {error}"),
    };
    for reader in [&keyring, &weak] {
        let opener = header.opener(reader, name);
        let opened = opener.and_then(|opener| opener.open(0, Part::Body, name, &mut body.clone(), name));
        assert!(opened.is_ok(), "what a keyring sealed it opens");
    }
    assert!(weak.sign(data).is_err(), "an append-only keyring signs nothing");
    if let Ok(signature) = keyring.sign(data) {
        let _: bool = keyring.is_signed(data, &signature);
    }
    let copy = keyring.copy();
    if copy.rotate(&SURROUNDINGS).is_some() {
        let context = b"context";
        if let Ok(history) = copy.seal_history(context) {
            let learnt = keyring.learn(copy.generation(), &copy.newest_secret(), &history, context, "a roster");
            assert!(learnt.is_ok(), "an older keyring learns a newer generation");
            assert_eq!(keyring.generation(), copy.generation(), "and has it then");
        }
    }
}

/// A roster: its bytes, these as what the administrator signed, and the value of them.
pub fn roster(data: &[u8]) {
    let repository = RepositoryId::new([0; RepositoryId::LEN]);
    let Ok(tag) = KEYRING.roster_tag(1) else { return };
    let (name, public) = (Name::Roster(1, tag), KEYRING.administrator_public());
    drop(Roster::open(data, name, repository, public));
    let mut object = Vec::new();
    write_magic(Kind::Roster, &mut object);
    object.extend_from_slice(data);
    drop(sign_clear(&mut object, Kind::Roster, &name.to_string(), &KEYRING));
    write_trailer(&mut object);
    if let Ok(Some(roster)) = Roster::open(&object, name, repository, public) {
        assert_eq!(roster.seal(&KEYRING).ok(), Some(object), "a roster has one form");
        assert!(!roster.members().is_empty(), "a roster has slots");
    }
    if let Ok(roster) = codec::decode::<Roster>(data, "a roster")
        && let (Ok(name), Ok(sealed)) = (roster.name(&KEYRING), roster.seal(&KEYRING))
        && let Ok(Some(read)) = Roster::open(&sealed, name, repository, public)
    {
        assert_eq!(read, roster, "a roster has one form");
        let slots = Standing::Roster(Box::new(read.clone())).slots();
        for slot in slots.iter().take(2) {
            let standing = Standing::Roster(Box::new(read.clone()));
            drop(standing.teach(&KEYRING.copy(), slot, &SlotKey::generate(&SURROUNDINGS)));
        }
    }
}

/// A registration and its end: their bytes, these as plaintext, and the values of them.
pub fn registration(data: &[u8]) {
    let id = WriterId::new([5; WriterId::LEN]);
    let (name, end) = (Name::Writer(id).to_string(), Name::WriterEnd(id).to_string());
    drop(open_registration(data, id, &KEYRING));
    let sealed = seal_plain(Kind::Registration, &name, data, &KEYRING, &SURROUNDINGS);
    if let Ok(record) = open_registration(&sealed, id, &KEYRING) {
        let again = seal_record(&record, Kind::Registration, &name, &KEYRING, &SURROUNDINGS);
        assert!(again.is_ok_and(|again| again == sealed), "a registration has one form");
        let other = WriterId::new([6; WriterId::LEN]);
        assert!(open_registration(&sealed, other, &KEYRING).is_err(), "a registration can't be moved");
    }
    drop(open_end(data, id, &KEYRING));
    let sealed = seal_plain(Kind::RegistrationEnd, &end, data, &KEYRING, &SURROUNDINGS);
    if open_end(&sealed, id, &KEYRING).is_ok() {
        let as_record = seal_plain(Kind::Registration, &end, data, &KEYRING, &SURROUNDINGS);
        assert!(open_end(&as_record, id, &KEYRING).is_err(), "a registration is no end");
    }
    for value in [b"token".as_slice(), data] {
        let token = EndToken::new(*blake3::hash(value).as_bytes());
        let record = EndRecord { token, extensions: Extensions::default() };
        let sealed = seal_record(&record, Kind::RegistrationEnd, &end, &KEYRING, &SURROUNDINGS);
        let opened = sealed.and_then(|sealed| open_end(&sealed, id, &KEYRING));
        assert_eq!(opened.ok(), Some(token.hash()), "an end comes back");
    }
}

/// Names as a listing gives them, one a line: each has one spelling, a neighbour is another, and those of one series sort
/// as its numbers do.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut commits = Vec::new();
    for (number, line) in text.lines().take(16).enumerate() {
        if let Some(tag) = layout::parse_series_prefix(line) {
            assert_eq!(layout::series_prefix(&tag), line, "a series' folder has one spelling");
        }
        if let Some(tag) = line.get(..40).and_then(layout::parse_series_prefix)
            && let Some(bucket) = layout::parse_bucket_prefix(&tag, line)
        {
            assert_eq!(layout::bucket_prefix(&tag, bucket), line, "a bucket's folder has one spelling");
        }
        let _: Option<ObjectId> = ObjectId::parse(line);
        let Some(name) = Name::parse(line) else { continue };
        assert_eq!(name.to_string(), line, "a name has one spelling");
        // Neighbours of one name in a listing tell as much as those of all.
        let near = if number == data.len() % 16 { line.len() } else { 0 };
        for at in 0..near {
            for with in ["0", "a", "A", "/", "-", ""] {
                let mut near = line.to_owned();
                near.replace_range(at..=at, with);
                if let Some(other) = Name::parse(&near) {
                    assert_eq!(other.to_string(), near, "a name has one spelling");
                    assert_eq!(other == name, near == line, "another spelling is another name");
                }
            }
        }
        if let Name::Commit(commit) = name {
            commits.push((commit, line));
        }
    }
    for ((one, first), (other, second)) in commits.iter().zip(commits.iter().skip(1)) {
        if one.tag == other.tag {
            assert_eq!(one.number.cmp(&other.number), first.cmp(second), "names sort as numbers do");
        }
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

/// An index segment; then one whose pages have these bytes as plaintext, over and over where there are many entries.
pub fn index_segment(data: &[u8]) {
    look_up(data.to_vec());
    let Some(([entries @ .., rows, form], rest)) = data.split_first_chunk::<4>() else { return };
    // Up to five pages of entries, and up to two of rows.
    let (entries, rows) = (usize::from(u16::from_le_bytes(*entries)) % 1200, usize::from(*rows));
    let (mut sealer, mut object) = sealer(Kind::Index);
    let mut counts = (entries as u64).to_le_bytes().to_vec();
    counts.extend_from_slice(&(rows as u32).to_le_bytes());
    let mut bytes: Vec<u8> =
        rest.iter().copied().cycle().take(if rest.is_empty() { 0 } else { entries * 49 }).collect();
    bytes.resize(entries * 49, 0);
    // Ids in order, as no cycle of bytes has them; and fields that pass, but for those that the input says.
    for (number, entry) in bytes.as_chunks_mut::<49>().0.iter_mut().enumerate() {
        if form & 1 == 0 {
            let id = ((number as u64) << 32) * (u64::from(u32::MAX) / 1200);
            entry[..8].copy_from_slice(&id.to_be_bytes());
        }
        if form & 2 == 0 && number != usize::from(form >> 2) * 19 {
            let row = number as u32 % (rows as u32).max(1);
            let fields =
                [row, number as u32 % 5, 62 + number as u32, 116, 100, number as u32 % 50, 1 + number as u32 % 50];
            for (field, at) in fields.into_iter().zip((20..48).step_by(4)) {
                entry[at..at + 4].copy_from_slice(&field.to_le_bytes());
            }
            entry[48] &= 1;
        }
    }
    let mut table: Vec<u8> = rest.to_vec();
    table.resize(rows * 68, 0);
    let rows_of: Vec<_> = table
        .chunks_mut(68)
        .enumerate()
        .flat_map(|(number, row)| {
            if form & 2 == 0 {
                row[32..36].fill(0)
            }
            row[0] ^= number as u8;
            row.to_vec()
        })
        .collect();
    let pages = bytes.chunks(256 * 49).map(|page| (Part::Page, page.to_vec()));
    let tables = rows_of.chunks(128 * 68).map(|page| (Part::PackTable, page.to_vec()));
    for (part, mut message) in std::iter::once((Part::Footer, counts)).chain(pages).chain(tables) {
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
    trees::node(data);
    drop(Metadata::decode(data, "metadata"));
}

/// A snapshot record; then one with these bytes as plaintext, and one of their value.
pub fn snapshot_record(data: &[u8]) {
    let name = CommitName::first(SeriesTag::new([3; SeriesTag::LEN]));
    drop(open_record(data, &name, &KEYRING));
    let sealed = seal_plain(Kind::Snapshot, &Name::Commit(name).to_string(), data, &KEYRING, &SURROUNDINGS);
    drop(open_record(&sealed, &name, &KEYRING));
    // Names that these fit are few, so the value is put under the one that it says.
    if let Ok(record) = codec::decode::<Record>(data, "a record")
        && (1..=NUMBER_MAX).contains(&record.number)
    {
        let name = CommitName { tag: KEYRING.series_tag(&record.series), number: record.number };
        let text = Name::Commit(name).to_string();
        let sealed = seal_record(&record, Kind::Snapshot, &text, &KEYRING, &SURROUNDINGS);
        if let Ok(placed) = sealed.and_then(|sealed| open_record(&sealed, &name, &KEYRING)) {
            assert_eq!(placed.record, record, "what was sealed comes back");
            assert!(placed.into_snapshot().is_none_or(|snapshot| snapshot.place() > 0 || snapshot.origin.is_some()));
        }
    }
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
            let next = kept.give_up(&[1, 2, kept.through].into(), kept.through);
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
