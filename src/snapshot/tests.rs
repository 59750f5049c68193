//! The snapshot record's golden bytes, and all that is refused.

use super::*;
use crate::id::ObjectId;
use crate::index::PackRef;
use crate::pack::{BlockKind, Encoding, Hint, Place};
use crate::testing::{NOW, assert_golden, each_damage, each_flip, fixed, keyring, stranger};

fn name() -> CommitName {
    CommitName { tag: keyring().series_tag("accounts"), number: 41 }
}

fn stored() -> Stored {
    let place = Place {
        kind: BlockKind::Nodes,
        encoding: Encoding::Zstd,
        number: 2,
        offset: 70_000,
        stored_len: 300,
        plain_len: 1000,
    };
    let pack = PackRef { id: ObjectId::new([0xe1; 32]), length: 100_000, footer_len: 300 };
    Stored { packs: vec![pack], root_at: Some(Hint { pack: pack.id, place, at: 17, length: 600 }) }
}

fn content() -> Content {
    Content {
        host: "mail-3".to_owned(),
        tags: BTreeMap::from([("app".to_owned(), "sync".to_owned()), ("run".to_owned(), "7".to_owned())]),
        paths: vec!["/srv/accounts".to_owned()],
        position: Some(b"0/16B3748".to_vec()),
        root: BlobId::new([0x5a; 20]),
        entries: 1_000_000,
        parent: Some(40),
        origin: None,
        stats: SnapshotStats { files: 1, folders: 2, bytes: 3, stored_bytes: 1 << 40, ..SnapshotStats::default() },
        failures: vec![Failure { path: "/srv/accounts/x".to_owned(), reason: "it vanished".to_owned() }],
        failure_count: 2,
        stored: stored(),
    }
}

fn record(body: Body) -> Record {
    Record {
        series: "accounts".to_owned(),
        number: 41,
        time: NOW,
        clock: Timestamp::from_nanos(NOW.as_nanos() - 5),
        predecessor: Some(RecordHash::new([0xc3; 32])),
        body,
        extensions: Default::default(),
    }
}

fn seal(record: &Record) -> Vec<u8> {
    let name = Name::Commit(name()).to_string();
    object::seal_record(record, Kind::Snapshot, &name, &keyring(), &fixed()).unwrap()
}

#[test]
fn golden_bytes() {
    let sealed = seal(&record(Body::Snapshot(content())));
    assert_golden("snapshot", &sealed);
    let placed = open_record(&sealed, &name(), &keyring()).unwrap();
    assert_eq!(placed.record, record(Body::Snapshot(content())));
    assert_eq!(placed.hash.as_bytes(), blake3::hash(&sealed).as_bytes());
    let snapshot = placed.into_snapshot().unwrap();
    assert!(snapshot.is_partial());
    assert_eq!(
        (snapshot.to_string().as_str(), snapshot.entries, snapshot.parent),
        ("accounts#41", 1_000_000, Some(40))
    );

    let tombstone = seal(&record(Body::Tombstone));
    assert_golden("snapshot-tombstone", &tombstone);
    assert_eq!(open_record(&tombstone, &name(), &keyring()).unwrap().into_snapshot(), None);
}

#[test]
fn damage_and_forgery_are_refused() {
    let sealed = seal(&record(Body::Snapshot(content())));
    each_damage(&sealed, |what, damaged| assert!(open_record(damaged, &name(), &keyring()).is_err(), "{what}"));
    each_flip(&sealed[..sealed.len() - object::TRAILER_LEN], |what, forged| {
        let mut forged = forged.to_vec();
        object::write_trailer(&mut forged);
        assert!(open_record(&forged, &name(), &keyring()).is_err(), "{what}, with a hash that fits");
    });
    assert!(open_record(&sealed, &name(), &stranger()).unwrap_err().is_corrupt());
}

#[test]
fn a_record_belongs_to_one_name() {
    let sealed = seal(&record(Body::Snapshot(content())));
    for moved in [CommitName { number: 42, ..name() }, CommitName { tag: keyring().series_tag("photos"), ..name() }] {
        assert!(open_record(&sealed, &moved, &keyring()).unwrap_err().is_corrupt(), "{moved:?}");
    }
}

#[test]
fn a_record_says_what_its_name_says() {
    let sound = record(Body::Snapshot(content()));
    assert!(open_record(&seal(&sound), &name(), &keyring()).is_ok());
    for (what, wrong) in [
        ("another number", Record { number: 42, ..sound.clone() }),
        ("another series", Record { series: "photos".to_owned(), ..sound.clone() }),
        ("a series that there can't be", Record { series: "a@b".to_owned(), ..sound.clone() }),
        ("no predecessor", Record { predecessor: None, ..sound.clone() }),
    ] {
        assert!(open_record(&seal(&wrong), &name(), &keyring()).unwrap_err().is_corrupt(), "{what}");
    }
}

/// Seals `value`, which needn't be what it says it is, as the record.
fn seal_message(value: &impl Encode) -> Vec<u8> {
    let name = Name::Commit(name()).to_string();
    object::seal_record(value, Kind::Snapshot, &name, &keyring(), &fixed()).unwrap()
}

#[test]
fn lengths_that_lie_and_unsorted_tags_are_refused_even_from_a_holder_of_the_keys() {
    /// Encodes as the bytes that it holds.
    struct Raw(Vec<u8>);
    impl Encode for Raw {
        fn encode<E: crate::codec::Encoder>(&self, encoder: &mut E) -> Result<(), crate::codec::EncodeError> {
            self.0.iter().try_for_each(|byte| byte.encode(encoder))
        }
    }
    let encoded = crate::codec::encode(&record(Body::Snapshot(content())));
    let open = |bytes: Vec<u8>| open_record(&seal_message(&Raw(bytes)), &name(), &keyring());
    assert!(open(encoded.clone()).is_ok());

    let tags = crate::codec::encode(&content().tags);
    let at = encoded.windows(tags.len()).position(|window| window == tags).unwrap();
    let with_tags = |tags: &[u8], rest: usize| [&encoded[..at], tags, &encoded[at + rest..]].concat();
    let swapped = [&[2][..], &tags[9..], &tags[1..9]].concat();
    assert_eq!(swapped.len(), tags.len());
    assert!(open(with_tags(&swapped, tags.len())).unwrap_err().is_corrupt(), "unsorted");
    for length in [&[251, 2, 0][..], &[3], &[250], &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
        assert!(open(with_tags(length, 1)).unwrap_err().is_corrupt(), "{length:?}");
    }
    assert!(open([&encoded[..], &[1]].concat()).unwrap_err().is_corrupt(), "padding that isn't zeros");
    assert!(open([&encoded[..], &[0; 400]].concat()).unwrap_err().is_corrupt(), "more padding than Padmé adds");
}

#[test]
fn series_names_have_bounds() {
    for sound in ["a", "host:/srv", "über", &"x".repeat(1024)] {
        validate_series(sound).unwrap();
    }
    for wrong in ["", "a#1", "a@latest", "two\nlines", "nul\0", &"x".repeat(1025)] {
        assert!(matches!(validate_series(wrong), Err(Error::Invalid { .. })), "{wrong:?}");
    }
}
