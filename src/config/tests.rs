//! The config's golden bytes, and all that is refused.

use super::*;
use crate::testing::{NOW, assert_golden, each_damage, each_flip, keyring, stranger};

fn config() -> Config {
    Config {
        repository: RepositoryId::new(*b"a repository's i"),
        created: NOW,
        administrator: *keyring().administrator_public(),
        first_slot: ObjectId::new([5; 32]),
        chunker: ChunkerParameters::default(),
        tree: TreeParameters::default(),
        features: Features::default(),
        extensions: Extensions::default(),
    }
}

fn sealed(config: &Config) -> Vec<u8> {
    config.seal(&keyring()).unwrap()
}

#[test]
fn golden_bytes() {
    let sealed = sealed(&config());
    assert_golden("config", &sealed);
    assert_eq!(Config::parse(&sealed).unwrap(), config());
    assert!(Config::is_authentic(&sealed, &keyring()));
}

#[test]
fn damage_shows_without_a_key() {
    each_damage(&sealed(&config()), |what, damaged| {
        assert!(Config::parse(damaged).is_err(), "{what}");
        assert!(!Config::is_authentic(damaged, &keyring()), "{what}");
    });
}

#[test]
fn a_forgery_shows_with_the_key() {
    let sealed = sealed(&config());
    each_flip(&sealed[..sealed.len() - 32], |what, forged| {
        let mut forged = forged.to_vec();
        write_trailer(&mut forged);
        assert!(!Config::is_authentic(&forged, &keyring()), "{what}");
    });
    assert!(!Config::is_authentic(&sealed, &stranger()));
}

/// What a config of these `fields` says, where a holder of the keys has sealed it.
fn seal_fields(head: &[u8], fields: &[u8]) -> Vec<u8> {
    let mut out = [head, fields].concat();
    sign_clear(&mut out, Kind::Config, layout::CONFIG, &keyring()).unwrap();
    let mac = keyring().config_mac(&out);
    out.extend_from_slice(mac.as_bytes());
    write_trailer(&mut out);
    out
}

#[test]
fn other_kinds_versions_and_senseless_parameters_are_refused() {
    let fields = codec::encode(&config());
    let parse = |head: &[u8], fields: &[u8]| Config::parse(&seal_fields(head, fields));
    assert_eq!(parse(b"backstop\x01\x01", &fields).unwrap(), config());
    for kind in [2, 3, 4, 5, 6, 7, 8, 9, 10] {
        assert!(parse(&[&b"backstop\x01"[..], &[kind]].concat(), &fields).unwrap_err().is_corrupt(), "kind {kind}");
    }
    for kind in [0, 200, 255] {
        assert!(parse(&[&b"backstop\x01"[..], &[kind]].concat(), &fields).unwrap_err().is_unsupported(), "kind {kind}");
    }
    assert!(matches!(parse(b"backstop\x02\x01", &fields), Err(Error::Unsupported { .. })));
    assert!(parse(b"backstoq\x01\x01", &fields).unwrap_err().is_corrupt());
    assert!(parse(b"backstop\x01\x01", &[&fields[..], &[0]].concat()).unwrap_err().is_corrupt());

    let mut wrong = Vec::new();
    for (min, mean, max) in [(0, 0, 0), (63, 1024, 4096), (4096, 1024, 4096), (256, 1000, 4096), (256, 1024, u32::MAX)]
    {
        wrong.push(Config { chunker: ChunkerParameters { min, mean, max }, ..config() });
    }
    let tree = TreeParameters::default;
    for tree in [
        TreeParameters { leaf_mean: 0, ..tree() },
        TreeParameters { leaf_cap: u32::MAX, ..tree() },
        TreeParameters { fan_out: 1, ..tree() },
        TreeParameters { inner_cap: 0, ..tree() },
        TreeParameters { inline_max: u32::MAX, ..tree() },
        TreeParameters { pieces_max: 0, ..tree() },
        TreeParameters { sequence_mean: u32::MAX, ..tree() },
    ] {
        wrong.push(Config { tree, ..config() });
    }
    for config in wrong {
        assert!(Config::parse(&sealed(&config)).unwrap_err().is_corrupt(), "{config:?}");
    }
}

#[test]
fn another_version_is_not_taken_for_damage_and_damage_not_for_another_version() {
    let mut other = sealed(&config());
    other[8] = 2;
    assert!(Config::parse(&other).unwrap_err().is_corrupt(), "a bit fell over");
    other.truncate(other.len() - 32);
    write_trailer(&mut other);
    assert!(matches!(Config::parse(&other), Err(Error::Unsupported { .. })), "its hash fits");
}

/// A holder of an append-only secret has all that the keyed hash takes.
#[test]
fn only_the_administrator_makes_a_config_that_passes() {
    let holder = keyring().append_only();
    assert!(matches!(config().seal(&holder), Err(Error::AppendOnly { .. })));
    let forge = |administrator: PublicKey, signer: &Keyring| {
        let mut out = Vec::new();
        write_magic(Kind::Config, &mut out);
        let features = Features { to_write: vec!["trap".to_owned()], ..Features::default() };
        codec::encode_into(&Config { administrator, features, ..config() }, &mut out);
        sign_clear(&mut out, Kind::Config, layout::CONFIG, signer).unwrap();
        let mac = holder.config_mac(&out);
        out.extend_from_slice(mac.as_bytes());
        write_trailer(&mut out);
        out
    };
    let others = forge(*stranger().administrator_public(), &stranger());
    assert!(Config::parse(&others).is_ok(), "it is a config");
    assert!(!Config::is_authentic(&others, &keyring()) && !Config::is_authentic(&others, &holder), "and not ours");
    assert!(Config::parse(&forge(*keyring().administrator_public(), &stranger())).unwrap_err().is_corrupt());
}

#[test]
fn what_is_needed_and_not_known_is_named() {
    let with = |features: Features| Config { features, ..config() };
    let some = || vec!["erasure".to_owned(), "rot-13".to_owned()];
    let refused = Config::parse(&sealed(&with(Features { to_read: some(), ..Features::default() }))).unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { reason, .. } if reason.contains("erasure")), "{refused}");
    let read = Config::parse(&sealed(&with(Features { to_write: some(), ..Features::default() }))).unwrap();
    assert_eq!(read.needed_to_write(), Some("erasure"));
    let read = Config::parse(&sealed(&with(Features { optional: some(), ..Features::default() }))).unwrap();
    assert_eq!(read.needed_to_write(), None);
    for wrong in
        [vec!["b", "a"], vec!["a", "a"], vec![""], vec!["A"], vec!["a b"], vec!["\u{e4}"], vec![&*"x".repeat(33)]]
    {
        let features = Features { optional: wrong.iter().map(ToString::to_string).collect(), ..Features::default() };
        assert!(Config::parse(&sealed(&with(features))).unwrap_err().is_corrupt(), "{wrong:?}");
    }
    let extended = |number| Config { extensions: Extensions::default().with(number, [1]), ..config() };
    assert!(Config::parse(&sealed(&extended(3))).is_ok());
    assert!(matches!(Config::parse(&sealed(&extended(4))), Err(Error::Unsupported { .. })));
}

#[test]
fn a_fingerprint_stands_for_the_repository_and_its_administrator() {
    let fingerprint = config().fingerprint();
    let mut hasher = blake3::Hasher::new_derive_key("backstop v1 fingerprint");
    hasher.update(b"a repository's i").update(keyring().administrator_public());
    let hash: u128 = hasher.finalize().as_bytes()[..15].iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
    let digits = b"0123456789abcdefghjkmnpqrstvwxyz";
    let expected: String = (0..24).rev().map(|place| char::from(digits[(hash >> (5 * place)) as usize % 32])).collect();
    assert_eq!(fingerprint.to_string().replace('-', ""), expected);
    assert_eq!(fingerprint.to_string().len(), 29);
    assert_eq!(fingerprint.to_string().to_uppercase().parse::<Fingerprint>().unwrap(), fingerprint);
    assert_eq!(expected.parse::<Fingerprint>().unwrap(), fingerprint);
    for other in
        [Config { repository: RepositoryId::new([0; 16]), ..config() }, Config { administrator: [0; 32], ..config() }]
    {
        assert_ne!(other.fingerprint(), fingerprint);
    }
    for wrong in ["", "0123", &expected[1..], &format!("{expected}0"), &expected.replace(|_: char| true, "u")] {
        assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
    }
    assert!(config().require_fingerprint(None, "here").is_ok());
    assert!(config().require_fingerprint(Some(fingerprint), "here").is_ok());
    let other = Config { administrator: [0; 32], ..config() }.fingerprint();
    assert!(matches!(config().require_fingerprint(Some(other), "here"), Err(Error::OtherRepository { .. })));
}
