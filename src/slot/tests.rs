//! The key slot's golden bytes, and all that doesn't open.

use super::*;
use crate::testing::{assert_golden, each_damage, fixed, keyring, read_golden, stranger};

fn secret() -> Secret {
    Secret::key([7; 32])
}

fn wrap(keyring: &Keyring, secret: &Secret) -> (ObjectId, Vec<u8>) {
    let repository = RepositoryId::new(*b"a repository's i");
    Slot::wrap(keyring, secret, repository, "in the safe", &fixed()).unwrap().to_object()
}

#[test]
fn golden_bytes() {
    let (id, bytes) = wrap(&keyring(), &secret());
    assert_golden("key-slot-raw", &bytes);
    let slot = Slot::parse(&bytes, &id).unwrap();
    let opened = slot.unwrap(&secret(), &id).unwrap().unwrap();
    assert_eq!(opened.to_bytes(), keyring().to_bytes());
    let shown = slot.describe(id, true);
    assert_eq!((shown.kind, shown.label.as_str(), shown.current), (KeyKind::RawKey, "in the safe", true));
}

/// Argon2id is slow without optimisation, so all that needs it is in one place.
#[test]
fn golden_bytes_of_a_passphrase() {
    let passphrase = Secret::passphrase("correct horse battery staple");
    if std::env::var_os("BLESS_GOLDEN").is_some() {
        assert_golden("key-slot-passphrase", &wrap(&keyring(), &passphrase).1);
    }
    let bytes = read_golden("key-slot-passphrase");
    let id = object_id(&bytes);
    let slot = Slot::parse(&bytes, &id).unwrap();
    let opened = slot.unwrap(&passphrase, &id).unwrap().unwrap();
    assert_eq!(opened.to_bytes(), keyring().to_bytes());
    assert_eq!(slot.describe(id, false).kind, KeyKind::Passphrase);
    // A secret of the other kind costs nothing to refuse.
    assert!(slot.unwrap(&secret(), &id).unwrap().is_none());
    let (id, bytes) = wrap(&keyring(), &secret());
    assert!(Slot::parse(&bytes, &id).unwrap().unwrap(&passphrase, &id).unwrap().is_none());
}

#[test]
fn damage_shows_in_the_name() {
    let (id, bytes) = wrap(&keyring(), &secret());
    each_damage(&bytes, |what, damaged| assert!(Slot::parse(damaged, &id).unwrap_err().is_corrupt(), "{what}"));
}

#[test]
fn a_slot_that_was_changed_and_renamed_opens_nothing() {
    let (_, bytes) = wrap(&keyring(), &secret());
    each_damage(&bytes, |what, forged| {
        let id = object_id(forged);
        let opened = Slot::parse(forged, &id).and_then(|slot| slot.unwrap(&secret(), &id));
        assert!(!matches!(opened, Ok(Some(_))), "{what}");
    });
}

#[test]
fn only_its_own_secret_opens_it() {
    let (id, bytes) = wrap(&keyring(), &secret());
    let slot = Slot::parse(&bytes, &id).unwrap();
    for other in [Secret::key([0; 32]), Secret::key([8; 32]), Secret::passphrase("\x07".repeat(32))] {
        assert!(slot.unwrap(&other, &id).unwrap().is_none(), "{other:?}");
    }
    let (_, strange) = wrap(&stranger(), &secret());
    let strange = Slot::parse(&strange, &object_id(&strange)).unwrap();
    assert_ne!(strange.unwrap(&secret(), &id).unwrap().unwrap().to_bytes(), keyring().to_bytes());
}

/// The encoded slot, with the parameters of Argon2id and the length of the sealed keyring as given.
fn lying(kdf: &[u8], sealed: &[u8]) -> Result<Slot> {
    let about = About {
        repository: RepositoryId::new([0; 16]),
        label: String::new(),
        created: Timestamp::EPOCH,
        append_only: false,
    };
    let bytes = [b"backstop\x01\x02", &codec::encode(&about)[..], kdf, &[0; 32], sealed].concat();
    Slot::parse(&bytes, &object_id(&bytes))
}

#[test]
fn what_would_cost_too_much_is_refused_before_it_is_spent() {
    let id = ObjectId::new([0; 32]);
    let parameters =
        |memory: u32, passes: u32, lanes: u32| codec::encode(&Kdf::Argon2id { memory_kib: memory, passes, lanes });
    for (memory, passes, lanes) in
        [((1 << 20) + 1, 3, 4), (u32::MAX, 1, 1), (1 << 20, 5, 1), (1 << 10, 3, 65), (0, 0, 0), (8, 1, 4)]
    {
        let slot = lying(&parameters(memory, passes, lanes), &[0]).unwrap();
        let refused = slot.unwrap(&Secret::passphrase("x"), &id);
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{memory} {passes} {lanes}");
    }
    assert!(lying(&[2], &[0]).unwrap_err().is_corrupt(), "an unknown way to stretch a secret");
    for length in [&[5][..], &[251, 5, 0], &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[251, 250, 0]] {
        assert!(lying(&[1], length).unwrap_err().is_corrupt(), "{length:?}");
    }
    assert!(lying(&[1], &[0]).unwrap().unwrap(&secret(), &id).unwrap().is_none(), "nothing sealed");
}

#[test]
fn a_label_is_one_short_line() {
    let wrap = |label: &str| Slot::wrap(&keyring(), &secret(), RepositoryId::new([0; 16]), label, &fixed());
    assert!(wrap(&"x".repeat(256)).is_ok());
    assert!(matches!(wrap(&"x".repeat(257)), Err(Error::Invalid { .. })));
    assert!(matches!(wrap("two\nlines"), Err(Error::Invalid { .. })));
}
