//! The key slot's golden bytes, and all that doesn't open.

use super::*;
use crate::crypto::Argon2id;
use crate::testing::{assert_golden, each_damage, fixed, keyring, read_golden, stranger};

fn secret() -> Secret {
    Secret::key([7; 32])
}

fn wrap(keyring: &Keyring, secret: &Secret) -> (ObjectId, Vec<u8>) {
    let repository = RepositoryId::new(*b"a repository's i");
    Slot::wrap(keyring, secret, repository, "in the safe", &fixed()).unwrap().0.to_object()
}

fn open(slot: &Slot, secret: &Secret, id: &ObjectId) -> Result<Option<Keyring>> {
    Ok(slot.unwrap(secret, &Argon2Limit::default(), id)?.map(|(_, keyring)| keyring))
}

#[test]
fn golden_bytes() {
    let (id, bytes) = wrap(&keyring(), &secret());
    assert_golden("key-slot-raw", &bytes);
    let slot = Slot::parse(&bytes, &id).unwrap();
    let opened = open(&slot, &secret(), &id).unwrap().unwrap();
    assert_eq!(opened.to_bytes(), keyring().to_bytes());
    let shown = slot.describe(id, true, true);
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
    let opened = open(&slot, &passphrase, &id).unwrap().unwrap();
    assert_eq!(opened.to_bytes(), keyring().to_bytes());
    assert_eq!(slot.describe(id, false, true).kind, KeyKind::Passphrase);
    // A secret of the other kind costs nothing to refuse.
    assert!(open(&slot, &secret(), &id).unwrap().is_none());
    let (id, bytes) = wrap(&keyring(), &secret());
    assert!(open(&Slot::parse(&bytes, &id).unwrap(), &passphrase, &id).unwrap().is_none());
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
        let opened = Slot::parse(forged, &id).and_then(|slot| open(&slot, &secret(), &id));
        assert!(!matches!(opened, Ok(Some(_))), "{what}");
    });
}

#[test]
fn only_its_own_secret_opens_it() {
    let (id, bytes) = wrap(&keyring(), &secret());
    let slot = Slot::parse(&bytes, &id).unwrap();
    for other in [Secret::key([0; 32]), Secret::key([8; 32]), Secret::passphrase("\x07".repeat(32))] {
        assert!(open(&slot, &other, &id).unwrap().is_none(), "{other:?}");
    }
    let (_, strange) = wrap(&stranger(), &secret());
    let strange = Slot::parse(&strange, &object_id(&strange)).unwrap();
    assert_ne!(open(&strange, &secret(), &id).unwrap().unwrap().to_bytes(), keyring().to_bytes());
}

/// A slot with all that it says of itself in order, but for these.
fn lying(kdf: Kdf, extensions: Extensions, sealed: &[u8]) -> Slot {
    let mut slot = Slot::lying(RepositoryId::new([0; 16]), kdf, sealed);
    slot.about.extensions = extensions;
    let (id, bytes) = slot.to_object();
    Slot::parse(&bytes, &id).unwrap()
}

#[test]
fn what_would_cost_too_much_is_refused_before_it_is_spent() {
    let id = ObjectId::new([0; 32]);
    let passphrase = Secret::passphrase("x");
    let dear = |memory_kib, passes, lanes| {
        let kdf = Kdf::argon2id(Argon2id { memory_kib, passes, lanes });
        lying(kdf, Extensions::default(), &[])
    };
    for (memory, passes, lanes) in [
        ((64 << 10) + 1, 1, 4),
        (u32::MAX, 1, 1),
        (1 << 16, 4, 1),
        (1 << 10, 193, 1),
        (1 << 10, 3, 65),
        (0, 0, 0),
        (8, 1, 4),
    ] {
        let refused = open(&dear(memory, passes, lanes), &passphrase, &id);
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{memory} {passes} {lanes}");
        assert!(open(&dear(memory, passes, lanes), &secret(), &id).unwrap().is_none(), "costs a raw key nothing");
    }
    let slot = dear(1 << 10, 193, 1);
    let more = Argon2Limit { memory_kib: 1 << 16, passes: 4 };
    assert!(slot.unwrap(&passphrase, &more, &id).unwrap().is_none(), "the caller allows it");
}

#[test]
fn what_a_later_build_makes_is_skipped_and_not_called_damaged() {
    let id = ObjectId::new([0; 32]);
    // Number 2, and whatever it takes.
    let later: Kdf = codec::decode(&[2, 3, 1, 2, 3], "a kdf").unwrap();
    let slot = lying(later, Extensions::default(), &[1]);
    for secret in [secret(), Secret::passphrase("x")] {
        let refused = open(&slot, &secret, &id).unwrap_err();
        assert!(matches!(&refused, Error::Unsupported { reason, .. } if reason.contains("newer version")), "{refused}");
    }
    assert_eq!(slot.describe(id, false, true).kind, KeyKind::Newer);
    let raw = || Kdf::for_secret(&secret());
    let critical = lying(raw(), Extensions::default().with(6, [1]), &[1]);
    assert!(matches!(open(&critical, &secret(), &id), Err(Error::Unsupported { .. })));
    assert!(open(&lying(raw(), Extensions::default().with(7, [1]), &[1]), &secret(), &id).unwrap().is_none());
    assert!(open(&lying(raw(), Extensions::default(), &[]), &secret(), &id).unwrap().is_none(), "nothing sealed");
    let parameters: Kdf = codec::decode(&[1, 1, 0], "a kdf").unwrap();
    assert!(open(&lying(parameters, Extensions::default(), &[]), &secret(), &id).unwrap_err().is_corrupt());
}

#[test]
fn a_label_is_one_short_line() {
    let wrap = |label: &str| Slot::wrap(&keyring(), &secret(), RepositoryId::new([0; 16]), label, &fixed());
    assert!(wrap(&"x".repeat(256)).is_ok());
    assert!(matches!(wrap(&"x".repeat(257)), Err(Error::Invalid { .. })));
    assert!(matches!(wrap("two\nlines"), Err(Error::Invalid { .. })));
}
