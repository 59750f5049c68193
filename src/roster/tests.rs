//! The roster's golden bytes, and all that doesn't hold.

use super::*;
use crate::testing::{assert_golden, each_damage, each_flip, fixed, keyring, stranger};

const REPOSITORY: RepositoryId = RepositoryId::new(*b"a repository's i");

fn key(number: u8) -> SlotKey {
    let surroundings = fixed();
    (0..number).for_each(|_| drop(surroundings.random_secret::<32>()));
    SlotKey::generate(&surroundings)
}

fn members() -> Vec<Member> {
    let member = |number: u8| Member {
        slot: ObjectId::new([9 - number; 32]),
        append_only: number == 1,
        public: key(number).public().unwrap(),
    };
    vec![member(1), member(2)]
}

/// A keyring that was rotated, and its roster.
fn rotated() -> (Keyring, Roster) {
    let keyring = keyring();
    keyring.rotate(&fixed()).unwrap();
    let roster = Roster::new(REPOSITORY, 6, members(), &keyring, &fixed()).unwrap();
    (keyring, roster)
}

fn open(bytes: &[u8], name: Name) -> Result<Option<Roster>> {
    Roster::open(bytes, name, REPOSITORY, keyring().administrator_public())
}

#[test]
fn golden_bytes() {
    let (keyring, roster) = rotated();
    let bytes = roster.seal(&keyring).unwrap();
    assert_golden("roster", &bytes);
    let name = roster.name(&keyring).unwrap();
    assert!(matches!(name, Name::Roster(7, _)));
    let read = open(&bytes, name).unwrap().unwrap();
    assert_eq!(read, roster);
    assert_eq!(Standing::Roster(Box::new(read)).slots(), [ObjectId::new([7; 32]), ObjectId::new([8; 32])]);
}

#[test]
fn each_member_learns_the_new_generation_with_its_own_key_alone() {
    let (rotated, roster) = rotated();
    for (number, slot) in [(1, 8), (2, 7)] {
        let reader = keyring().append_only();
        let slot = ObjectId::new([slot; 32]);
        assert!(roster.teach(&reader, &slot, &key(3 - number)).unwrap_err().is_corrupt());
        assert_eq!(reader.generation(), 0);
        roster.teach(&reader, &slot, &key(number)).unwrap();
        assert_eq!(reader.to_bytes(), rotated.append_only().to_bytes());
    }
    let outsider = roster.teach(&keyring(), &ObjectId::new([1; 32]), &key(1)).unwrap_err();
    assert!(matches!(outsider, Error::Invalid { .. }), "{outsider}");
}

#[test]
fn damage_shows_without_a_key_and_forgery_with_the_public_one() {
    let (keyring, roster) = rotated();
    let (name, bytes) = (roster.name(&keyring).unwrap(), roster.seal(&keyring).unwrap());
    each_damage(&bytes, |what, damaged| assert!(open(damaged, name).unwrap_err().is_corrupt(), "{what}"));
    each_flip(&bytes[..bytes.len() - 32], |what, forged| {
        let mut forged = forged.to_vec();
        write_trailer(&mut forged);
        assert_eq!(open(&forged, name).unwrap(), None, "{what}");
    });
    let by = |signer: &Keyring| {
        let mut out = Vec::new();
        write_magic(Kind::Roster, &mut out);
        codec::encode_into(&roster, &mut out);
        sign_clear(&mut out, Kind::Roster, &name.to_string(), signer).unwrap();
        write_trailer(&mut out);
        out
    };
    assert_eq!(by(&keyring), bytes);
    assert_eq!(open(&by(&stranger()), name).unwrap(), None, "another's");
    let Name::Roster(_, tag) = name else { panic!() };
    assert_eq!(open(&bytes, Name::Roster(8, tag)).unwrap(), None, "renamed");
    let other = RepositoryId::new([0; 16]);
    assert_eq!(Roster::open(&bytes, name, other, keyring.administrator_public()).unwrap(), None);
    assert!(matches!(roster.seal(&keyring.append_only()), Err(Error::AppendOnly { .. })));
}

#[test]
fn a_signed_one_of_a_later_version_is_not_passed_over() {
    let (keyring, roster) = rotated();
    let name = roster.name(&keyring).unwrap();
    let sealed = |version: u8, roster: &Roster| {
        let mut out = Vec::new();
        write_magic(Kind::Roster, &mut out);
        out[8] = version;
        codec::encode_into(roster, &mut out);
        sign_clear(&mut out, Kind::Roster, &name.to_string(), &keyring).unwrap();
        write_trailer(&mut out);
        out
    };
    assert!(matches!(open(&sealed(2, &roster), name), Err(Error::Unsupported { .. })));
    let extended = |number| Roster { extensions: Extensions::default().with(number, [1]), ..roster.clone() };
    assert!(matches!(open(&sealed(1, &extended(8)), name), Err(Error::Unsupported { .. })));
    assert!(open(&sealed(1, &extended(9)), name).unwrap().is_some());
    let mut reversed = roster.clone();
    reversed.entries.reverse();
    for wrong in [reversed, Roster { entries: Vec::new(), ..roster.clone() }, Roster { number: 8, ..roster.clone() }] {
        assert!(open(&sealed(1, &wrong), name).unwrap_err().is_corrupt(), "{wrong:?}");
    }
}

#[test]
fn names_can_be_told_by_administrators_alone() {
    let (keyring, roster) = rotated();
    assert_eq!(roster.name(&keyring).unwrap(), roster.name(&keyring).unwrap());
    assert_ne!(roster.name(&keyring).unwrap(), roster.name(&stranger()).unwrap());
    assert!(matches!(roster.name(&keyring.append_only()), Err(Error::AppendOnly { .. })));
}

#[test]
fn the_largest_is_within_its_limit() {
    let keyring = keyring();
    for _ in 1..1024 {
        keyring.rotate(&fixed()).unwrap();
    }
    let member = |number: u8| Member { slot: ObjectId::new([number; 32]), ..members()[0] };
    let roster = Roster::new(REPOSITORY, 6, (0..64).map(member).collect(), &keyring, &fixed()).unwrap();
    assert!((roster.seal(&keyring).unwrap().len() as u64) < ROSTER_MAX / 2);
}
