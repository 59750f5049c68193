//! The registration record's golden bytes, and all that is refused.

mod contend;

use super::*;
use crate::crypto::Keyring;
use crate::testing::{NOW, assert_golden, each_damage, fixed, keyring, stranger};

const NAME: &str = "writers/00112233445566778899aabbccddeeff";

fn record() -> RegistrationRecord {
    let ending = EndToken::new([0xe5; 32]).hash();
    RegistrationRecord {
        series: "accounts".to_owned(),
        number: 41,
        time: NOW,
        host: "mail-3".to_owned(),
        seen: 7,
        ending,
        extensions: Default::default(),
    }
}

fn sealed() -> Vec<u8> {
    object::seal_record(&record(), Kind::Registration, NAME, &keyring(), &fixed()).unwrap()
}

fn open(bytes: &[u8], kind: Kind, name: &str, keyring: &Keyring) -> Result<RegistrationRecord> {
    object::open_record(bytes, kind, name, keyring)
}

#[test]
fn golden_bytes() {
    assert_golden("registration", &sealed());
    assert_eq!(open(&sealed(), Kind::Registration, NAME, &keyring()).unwrap(), record());
}

#[test]
fn golden_bytes_of_an_end() {
    let name = format!("{NAME}-ended");
    let (token, keyring) = (EndToken::new([0xe5; 32]), keyring());
    let end = EndRecord { token, extensions: Default::default() };
    let sealed = object::seal_record(&end, Kind::RegistrationEnd, &name, &keyring, &fixed()).unwrap();
    assert_golden("registration-end", &sealed);
    let opened: EndRecord = object::open_record(&sealed, Kind::RegistrationEnd, &name, &keyring).unwrap();
    assert_eq!(opened.token.hash(), record().ending);
    assert!(object::open_record::<EndRecord>(&sealed, Kind::Registration, &name, &keyring).is_err());
}

#[test]
fn damage_a_new_name_and_other_keys_are_refused() {
    each_damage(&sealed(), |what, damaged| {
        assert!(open(damaged, Kind::Registration, NAME, &keyring()).is_err(), "{what}");
    });
    let renamed = NAME.replace("00", "01");
    assert!(open(&sealed(), Kind::Registration, &renamed, &keyring()).unwrap_err().is_corrupt());
    assert!(open(&sealed(), Kind::Snapshot, NAME, &keyring()).unwrap_err().is_corrupt());
    assert!(open(&sealed(), Kind::Registration, NAME, &stranger()).unwrap_err().is_corrupt());
}

#[test]
fn a_record_of_another_kind_with_its_number_changed_is_refused() {
    let mut record = object::seal_record(&record(), Kind::Snapshot, NAME, &keyring(), &fixed()).unwrap();
    record.truncate(record.len() - object::TRAILER_LEN);
    record[9] = Kind::Registration as u8;
    object::write_trailer(&mut record);
    assert!(open(&record, Kind::Registration, NAME, &keyring()).unwrap_err().is_corrupt());
}
