//! Known answers for every derived key, a second implementation of sealing, and messages out of their place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::codec;
use crate::error::{Error, Result};
use crate::testing::{assert_golden, each_damage, fixed, keyring, stranger};

const KINDS: [Kind; 10] = [
    Kind::Config,
    Kind::KeySlot,
    Kind::Pack,
    Kind::Index,
    Kind::Registration,
    Kind::Snapshot,
    Kind::Collection,
    Kind::Kept,
    Kind::RegistrationEnd,
    Kind::Roster,
];
const PARTS: [Part; 6] = [Part::Body, Part::Data, Part::Nodes, Part::Footer, Part::Page, Part::PackTable];

/// The first two buffers of the fixed surroundings, which are the keyring's secrets.
fn secrets() -> [[u8; 32]; 2] {
    let surroundings = fixed();
    [surroundings.random(), surroundings.random()]
}

#[test]
fn derived_keys_have_known_answers() {
    let keyring = keyring();
    let gear = keyring.gear_table().iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<_>>();
    let answers = [
        keyring.to_bytes().to_vec(),
        keyring.chunk_id().id(b"").as_bytes().to_vec(),
        keyring.chunk_id().id(b"a chunk").as_bytes().to_vec(),
        keyring.node_id().id(b"a node").as_bytes().to_vec(),
        gear[..32].to_vec(),
        blake3::hash(&gear).as_bytes().to_vec(),
        keyring.tree_cuts().to_vec(),
        keyring.series_tag("default").as_bytes().to_vec(),
        keyring.config_mac(b"a config").as_bytes().to_vec(),
    ];
    assert_golden("derived-keys", &answers.concat());
}

/// What follows the generations in the keyring: the seed, if it is there, and the public key.
fn administrator() -> Vec<u8> {
    let surroundings = fixed();
    let [_, _, seed]: [[u8; 32]; 3] = [surroundings.random(), surroundings.random(), surroundings.random()];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    [&[1][..], &seed, pair.public_key().as_ref()].concat()
}

#[test]
fn only_the_administrator_signs_and_everyone_can_tell() {
    let (keyring, other) = (keyring(), stranger());
    let append_only = keyring.append_only();
    assert!(!keyring.is_append_only() && append_only.is_append_only());
    let signature = keyring.sign(b"a list").unwrap();
    for holder in [&keyring, &append_only] {
        assert!(holder.is_signed(b"a list", &signature));
        assert!(!holder.is_signed(b"a lisp", &signature) && !holder.is_signed(b"a list", &[0; 64]));
        assert!(!holder.is_signed(b"a list", &other.sign(b"a list").unwrap()));
    }
    assert!(matches!(append_only.sign(b"a list"), Err(Error::AppendOnly { .. })));
    assert!(append_only.require_administrator("forget").is_err() && keyring.require_administrator("forget").is_ok());
    // It seals and opens like the other.
    assert_eq!(append_only.chunk_id().id(b"x"), keyring.chunk_id().id(b"x"));
    let read = Keyring::from_bytes(&append_only.to_bytes(), "it").unwrap();
    assert!(read.is_append_only() && read.is_signed(b"a list", &signature));
}

/// The derivations again, from their description alone.
#[test]
fn derived_keys_are_what_the_format_says() {
    let (keyring, [identity, sealing]) = (keyring(), secrets());
    let administrator = administrator();
    assert_eq!(keyring.to_bytes().to_vec(), [&identity[..], &[1, 0], &sealing, &administrator].concat());
    let append_only = [&identity[..], &[1, 0], &sealing, &[0], &administrator[33..]].concat();
    assert_eq!(keyring.append_only().to_bytes().to_vec(), append_only);
    let keyed = |context: &str, message: &[u8]| blake3::keyed_hash(&blake3::derive_key(context, &identity), message);
    assert_eq!(keyring.chunk_id().id(b"x").as_bytes()[..], keyed("backstop v1 chunk id", b"x").as_bytes()[..20]);
    assert_eq!(keyring.node_id().id(b"x").as_bytes()[..], keyed("backstop v1 node id", b"x").as_bytes()[..20]);
    assert_eq!(keyring.series_tag("s").as_bytes()[..], keyed("backstop v1 series tag", b"s").as_bytes()[..16]);
    assert_eq!(keyring.config_mac(b"c"), keyed("backstop v1 config authentication", b"c"));
    assert_eq!(*keyring.tree_cuts(), blake3::derive_key("backstop v1 tree cuts", &identity));
    let mut gear = [0; 2048];
    let context = "backstop v1 chunker gear table";
    blake3::Hasher::new_derive_key(context).update(&identity).finalize_xof().fill(&mut gear);
    let entries: Vec<u64> = gear.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
    assert_eq!(keyring.gear_table().as_slice(), entries);
}

/// Seals as the format is described, with nothing of this module but its numbers.
fn seal_by_hand(kind: u8, part: u8, number: u32, name: &str, salt: &Salt, plain: &[u8]) -> Vec<u8> {
    let context = if matches!(kind, 3 | 4) { "backstop v1 seal data" } else { "backstop v1 seal records" };
    let domain = blake3::derive_key(context, &secrets()[1]);
    let key = blake3::keyed_hash(&domain, &[&salt[..], &[kind]].concat());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).unwrap());
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&number.to_le_bytes());
    let mut message = plain.to_vec();
    let aad = Aad::from([&[kind, part], name.as_bytes()].concat());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut message).unwrap();
    message
}

#[test]
fn messages_are_sealed_as_the_format_says() {
    let (keyring, surroundings) = (keyring(), fixed());
    for kind in KINDS {
        let mut sealer = keyring.sealer(kind, &surroundings);
        let (salt, generation) = (*sealer.salt(), sealer.generation());
        assert_eq!(generation, 0);
        for (expected, part) in (0..).zip(PARTS) {
            let mut message = b"a message".to_vec();
            let number = sealer.seal(part, "its/name", &mut message).unwrap();
            assert_eq!(number, expected);
            assert_eq!(message, seal_by_hand(kind as u8, part as u8, number, "its/name", &salt, b"a message"));
            let opener = keyring.opener(kind, generation, &salt, "it").unwrap();
            opener.open(number, part, "its/name", &mut message, "it").unwrap();
            assert_eq!(message, b"a message");
        }
    }
}

#[test]
fn no_two_objects_share_a_key() {
    let (keyring, surroundings) = (keyring(), fixed());
    let seal = |kind| {
        let mut message = vec![0; 16];
        keyring.sealer(kind, &surroundings).seal(Part::Body, "", &mut message).unwrap();
        message
    };
    assert_ne!(seal(Kind::Pack), seal(Kind::Pack), "each has a fresh salt");
}

#[test]
fn a_message_opens_in_its_place_alone() {
    let (keyring, surroundings) = (keyring(), fixed());
    let mut sealer = keyring.sealer(Kind::Pack, &surroundings);
    let salt = *sealer.salt();
    let mut messages = Vec::new();
    for plain in [&b"zero"[..], b"one"] {
        let mut message = plain.to_vec();
        sealer.seal(Part::Data, "name", &mut message).unwrap();
        messages.push(message);
    }
    let open = |keyring: &Keyring, kind, salt: &Salt, number, part, name: &str, message: &[u8]| -> Result<Vec<u8>> {
        let mut message = message.to_vec();
        keyring.opener(kind, 0, salt, "it")?.open(number, part, name, &mut message, "it").map(|()| message)
    };
    assert_eq!(open(&keyring, Kind::Pack, &salt, 1, Part::Data, "name", &messages[1]).unwrap(), b"one");
    let mut other_salt = salt;
    other_salt[31] ^= 1;
    for (what, outcome) in [
        ("another's number", open(&keyring, Kind::Pack, &salt, 0, Part::Data, "name", &messages[1])),
        ("a number of its own", open(&keyring, Kind::Pack, &salt, 257, Part::Data, "name", &messages[1])),
        ("another part", open(&keyring, Kind::Pack, &salt, 1, Part::Nodes, "name", &messages[1])),
        ("another name", open(&keyring, Kind::Pack, &salt, 1, Part::Data, "nam", &messages[1])),
        ("no name", open(&keyring, Kind::Pack, &salt, 1, Part::Data, "", &messages[1])),
        ("another kind", open(&keyring, Kind::Index, &salt, 1, Part::Data, "name", &messages[1])),
        ("another salt", open(&keyring, Kind::Pack, &other_salt, 1, Part::Data, "name", &messages[1])),
        ("another keyring", open(&stranger(), Kind::Pack, &salt, 1, Part::Data, "name", &messages[1])),
    ] {
        assert!(outcome.unwrap_err().is_corrupt(), "{what}");
    }
    each_damage(&messages[1], |what, damaged| {
        let outcome = open(&keyring, Kind::Pack, &salt, 1, Part::Data, "name", damaged);
        assert!(outcome.unwrap_err().is_corrupt(), "{what}");
    });
}

#[test]
fn generations_are_told_apart() {
    let [identity, first] = secrets();
    let encoded = [&identity[..], &[2, 0], &first, &[1], &[9; 32], &administrator()].concat();
    let rotated = Keyring::from_bytes(&encoded, "it").unwrap();
    let surroundings = fixed();
    let mut sealer = rotated.sealer(Kind::Snapshot, &surroundings);
    let (salt, generation) = (*sealer.salt(), sealer.generation());
    assert_eq!(generation, 1, "the newest seals");
    let mut message = b"new".to_vec();
    sealer.seal(Part::Body, "", &mut message).unwrap();
    let old = rotated.opener(Kind::Snapshot, 0, &salt, "it").unwrap();
    assert!(old.open(0, Part::Body, "", &mut message.clone(), "it").unwrap_err().is_corrupt());
    rotated.opener(Kind::Snapshot, 1, &salt, "it").unwrap().open(0, Part::Body, "", &mut message, "it").unwrap();
    assert_eq!(message, b"new");
    assert_eq!(rotated.chunk_id().id(b"x"), keyring().chunk_id().id(b"x"), "names outlive a rotation");
    for generation in [2, u32::MAX] {
        let refused = rotated.opener(Kind::Snapshot, generation, &salt, "it").err().unwrap();
        assert!(matches!(&refused, Error::Unsupported { reason, .. } if reason.contains(&generation.to_string())));
    }
}

#[test]
fn keyrings_are_decoded_with_care() {
    let sound = keyring().to_bytes();
    for length in 0..sound.len() {
        assert!(Keyring::from_bytes(&sound[..length], "it").unwrap_err().is_corrupt(), "cut to {length}");
    }
    assert!(Keyring::from_bytes(&[&sound[..], &[0]].concat(), "it").is_err());
    let of = |generations: &[u32]| {
        let generations: Vec<_> = generations.iter().map(|generation| (*generation, [0u8; 32])).collect();
        let bytes = [&[0; 32][..], &codec::encode(&generations), &administrator()].concat();
        Keyring::from_bytes(&bytes, "it").map(|keyring| (keyring.to_bytes().len(), bytes.len()))
    };
    assert!(of(&[]).is_err(), "no generation");
    assert!(of(&[0, 0]).is_err() && of(&[1, 0]).is_err(), "out of order");
    assert!(of(&[0, 2]).is_ok(), "one isn't known");
    let most: Vec<u32> = (u32::MAX - 1023..=u32::MAX).collect();
    assert!(of(&most).unwrap().0 <= KEYRING_MAX, "as long as it gets");
    assert!(of(&[&[0], &most[..]].concat()).is_err(), "too many generations");
    let mut two = sound.to_vec();
    *two.last_mut().unwrap() ^= 1;
    assert!(Keyring::from_bytes(&two, "it").is_err(), "the public half is another's");
}

#[test]
fn kinds_have_numbers() {
    for (number, kind) in (1..).zip(KINDS) {
        assert_eq!(kind as u8, number);
        assert_eq!(Kind::from_number(number), Some(kind));
    }
    assert!([0, 11, 255].iter().all(|number| Kind::from_number(*number).is_none()));
    assert_eq!(PARTS.map(|part| part as u8), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(format!("{:?}", Secret::passphrase("swordfish")), "Secret::passphrase(..)");
    assert_eq!(format!("{:?}", Secret::key([7; 32])), "Secret::key(..)");
    assert!(!format!("{:?}", keyring()).contains(|c: char| c.is_ascii_digit() && c != '0'));
}

#[test]
fn a_new_generation_is_learnt_with_those_before_it() {
    let surroundings = fixed();
    let (keyring, reader) = (keyring(), keyring().append_only());
    let message = |keyring: &Keyring| {
        let mut sealer = keyring.sealer(Kind::Snapshot, &surroundings);
        let mut message = b"new".to_vec();
        sealer.seal(Part::Body, "", &mut message).unwrap();
        (*sealer.salt(), sealer.generation(), message)
    };
    for expected in 1..4 {
        assert_eq!(keyring.rotate(&surroundings), Some(expected));
    }
    let (salt, generation, mut sealed) = message(&keyring);
    assert_eq!(generation, 3);
    let history = keyring.seal_history(b"context").unwrap();
    let secret = keyring.newest_secret();
    each_damage(&history, |what, damaged| {
        assert!(reader.learn(3, &secret, damaged, b"context", "it").is_err(), "{what}");
    });
    assert!(reader.learn(3, &secret, &history, b"other", "it").is_err());
    assert!(reader.learn(3, &[0; 32], &history, b"context", "it").is_err());
    assert!(reader.learn(1, &secret, &history, b"context", "it").is_err(), "older than its own history");
    assert!(reader.learn(2, &secret, &history, b"context", "it").is_err(), "generation 2 has another secret");
    assert_eq!(reader.generation(), 0, "nothing was learnt");
    assert!(matches!(reader.opener(Kind::Snapshot, 3, &salt, "it"), Err(Error::Unsupported { .. })));
    reader.learn(3, &secret, &history, b"context", "it").unwrap();
    reader.learn(3, &secret, &history, b"context", "it").unwrap();
    reader.opener(Kind::Snapshot, 3, &salt, "it").unwrap().open(0, Part::Body, "", &mut sealed, "it").unwrap();
    assert_eq!(message(&reader).1, 3, "and seals under it");
    assert_eq!(reader.to_bytes(), keyring.append_only().to_bytes());

    let full = Keyring::generate(&surroundings);
    for _ in 1..1024 {
        full.rotate(&surroundings).unwrap();
    }
    assert_eq!(full.rotate(&surroundings), None, "there is an end to it");
}

#[test]
fn a_grant_opens_with_its_key_and_context_alone() {
    let surroundings = fixed();
    let (key, other) = (SlotKey::generate(&surroundings), SlotKey::generate(&surroundings));
    let grant = Grant::seal(&[9; 32], &key.public().unwrap(), b"context", &surroundings).unwrap();
    assert_eq!(**grant.open(&key, b"context").unwrap().as_ref().unwrap(), [9; 32]);
    assert!(grant.open(&other, b"context").unwrap().is_none() && grant.open(&key, b"").unwrap().is_none());
    let encoded = codec::encode(&grant);
    assert_eq!(encoded.len(), 80);
    crate::testing::each_flip(&encoded, |what, damaged| {
        let opened = codec::decode::<Grant>(damaged, "it").unwrap().open(&key, b"context").unwrap();
        // The highest bit of an X25519 public key doesn't count, but HPKE binds it all the same.
        assert!(opened.is_none(), "{what}");
    });
    let again = Grant::seal(&[9; 32], &key.public().unwrap(), b"context", &surroundings).unwrap();
    assert_ne!(grant, again, "each is sealed under a key of its own");
}

/// Of two who learn something at once neither forgets what the other has learned.
#[test]
fn what_is_learned_at_once_is_all_known() {
    let first = keyring();
    let rotated = |times: u32| {
        let copy = first.copy();
        (0..times).for_each(|_| assert!(copy.rotate(&fixed()).is_some()));
        copy
    };
    let copies: Vec<_> = (1..=9).map(rotated).collect();
    for _ in 0..200 {
        let shared = first.copy();
        std::thread::scope(|scope| {
            for copy in &copies {
                scope.spawn(|| shared.adopt(copy));
            }
        });
        for generation in 0..=9 {
            shared.opener(Kind::Pack, generation, &[0; SALT_LEN], "a pack").unwrap();
        }
    }
}
