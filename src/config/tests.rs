//! The config's golden bytes, and all that is refused.

use super::*;
use crate::testing::{NOW, assert_golden, each_damage, each_flip, keyring, stranger};

fn config() -> Config {
    Config {
        repository: RepositoryId::new(*b"a repository's i"),
        created: NOW,
        chunker: ChunkerParameters::default(),
        tree: TreeParameters::default(),
    }
}

#[test]
fn golden_bytes() {
    let sealed = config().seal(&keyring());
    assert_golden("config", &sealed);
    assert_eq!(Config::parse(&sealed).unwrap(), config());
    assert!(Config::is_authentic(&sealed, &keyring()));
}

#[test]
fn damage_shows_without_a_key() {
    each_damage(&config().seal(&keyring()), |what, damaged| {
        assert!(Config::parse(damaged).is_err(), "{what}");
        assert!(!Config::is_authentic(damaged, &keyring()), "{what}");
    });
}

#[test]
fn a_forgery_shows_with_the_key() {
    let sealed = config().seal(&keyring());
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
    for kind in [2, 3, 4, 5, 6, 7] {
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
        assert!(Config::parse(&config.seal(&keyring())).unwrap_err().is_corrupt(), "{config:?}");
    }
}
