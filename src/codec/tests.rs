//! The canonical form: its golden bytes, and every other spelling refused.

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;

use super::*;

fn rejected<T: Encode + Decode<()> + Debug>(bytes: &[u8], why: &str) {
    match decode::<T>(bytes, "the value") {
        Ok(value) => panic!("{why}: {bytes:02x?} was taken for {value:?}"),
        Err(error) => assert!(error.is_corrupt(), "{why}: {error}"),
    }
}

fn golden<T: Encode + Decode<()> + Debug + PartialEq>(value: T, bytes: &[u8]) {
    assert_eq!(encode(&value), bytes, "{value:?}");
    assert_eq!(decode::<T>(bytes, "the value").unwrap(), value);
    for length in 0..bytes.len() {
        rejected::<T>(&bytes[..length], "cut short");
    }
    rejected::<T>(&[bytes, &[0]].concat(), "extended");
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
enum Shape {
    Nothing,
    Named { text: String, map: BTreeMap<String, u32> },
    Ids(Vec<BlobId>, Option<Timestamp>),
}

#[test]
fn golden_bytes() {
    golden(0u64, &[0]);
    golden(250u64, &[250]);
    golden(251u64, &[251, 251, 0]);
    golden(0xffffu32, &[251, 0xff, 0xff]);
    golden(0x1_0000u32, &[252, 0, 0, 1, 0]);
    golden(0x1_0000_0000u64, &[253, 0, 0, 0, 0, 1, 0, 0, 0]);
    golden(u64::MAX, &[253, 255, 255, 255, 255, 255, 255, 255, 255]);
    golden(-1i64, &[1]);
    golden(1i64, &[2]);
    golden(i64::MIN, &[253, 255, 255, 255, 255, 255, 255, 255, 255]);
    golden(7u8, &[7]);
    golden(255u8, &[255]);
    golden(true, &[1]);
    golden("é".to_owned(), &[2, 0xc3, 0xa9]);
    golden(vec![1u8, 2, 3], &[3, 1, 2, 3]);
    golden(Some(5u32), &[1, 5]);
    golden(None::<u32>, &[0]);
    golden(Timestamp::from_nanos(-1), &[1]);
    golden(BlobId::new([9; 20]), &[9; 20]);
    golden(Shape::Nothing, &[0]);
    let map = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
    golden(Shape::Named { text: "x".to_owned(), map }, &[1, 1, b'x', 2, 1, b'a', 1, 1, b'b', 2]);
    let ids = Shape::Ids(vec![BlobId::new([1; 20])], Some(Timestamp::from_nanos(3)));
    golden(ids, &[&[2, 1][..], &[1; 20], &[1, 6]].concat());
}

#[test]
fn numbers_have_one_spelling() {
    for wrong in [
        &[251, 250, 0][..],
        &[251, 0, 0],
        &[252, 0xff, 0xff, 0, 0],
        &[253, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[254, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[255],
    ] {
        rejected::<u64>(wrong, "not the shortest form");
        rejected::<i64>(wrong, "not the shortest form");
        rejected::<Vec<u8>>(wrong, "a length that isn't in the shortest form");
        rejected::<Shape>(wrong, "a variant that isn't in the shortest form");
    }
    rejected::<u32>(&[253, 0, 0, 0, 0, 1, 0, 0, 0], "too large for its type");
}

#[test]
fn maps_are_sorted_and_say_each_key_once() {
    type Map = BTreeMap<String, u32>;
    golden(Map::from([("a".to_owned(), 1), ("b".to_owned(), 2)]), &[2, 1, b'a', 1, 1, b'b', 2]);
    rejected::<Map>(&[2, 1, b'b', 2, 1, b'a', 1], "unsorted");
    rejected::<Map>(&[2, 1, b'a', 1, 1, b'a', 1], "said twice");
    rejected::<Map>(&[2, 1, b'a', 1, 1, b'a', 2], "said twice, differently");
}

#[test]
fn what_no_value_can_be_is_refused() {
    rejected::<bool>(&[2], "a bool of 2");
    rejected::<Option<u32>>(&[2, 0], "an option of 2");
    rejected::<String>(&[2, 0xff, 0xfe], "not UTF-8");
    rejected::<Shape>(&[3], "an unknown variant");
    rejected::<u64>(&[], "nothing");
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    let lengths: [&[u8]; 4] = [
        &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[253, 0, 0, 0, 0, 1, 0, 0, 0],
        &[252, 1, 0, 0, 4], // one byte more than DECODED_MAX
    ];
    for length in lengths {
        let bytes = [length, &[0; 64]].concat();
        rejected::<Vec<u8>>(&bytes, "bytes");
        rejected::<String>(&bytes, "text");
        rejected::<Vec<BlobId>>(&bytes, "ids");
        rejected::<Vec<Vec<String>>>(&bytes, "lists");
        rejected::<BTreeMap<String, u32>>(&bytes, "a map");
    }
}

#[test]
fn a_prefix_leaves_what_follows() {
    let (value, rest) = decode_prefix::<u64>(&[251, 251, 0, 9, 9], "it").unwrap();
    assert_eq!((value, rest), (251, &[9, 9][..]));
    assert!(decode_prefix::<u64>(&[251, 1, 0, 9, 9], "it").is_err());
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Nothing),
        (any::<String>(), any::<BTreeMap<String, u32>>()).prop_map(|(text, map)| Shape::Named { text, map }),
        (prop::collection::vec(any::<[u8; 20]>(), 0..20), any::<Option<i64>>()).prop_map(|(ids, time)| {
            Shape::Ids(ids.into_iter().map(BlobId::new).collect(), time.map(Timestamp::from_nanos))
        }),
    ]
}

proptest! {
    #[test]
    fn values_round_trip_and_their_damage_is_another_value_or_none(shape in shapes(), flip: prop::sample::Index, bit in 0u8..8) {
        let bytes = encode(&shape);
        prop_assert_eq!(decode::<Shape>(&bytes, "it").unwrap(), shape.clone());
        let mut damaged = bytes.clone();
        let at = flip.index(bytes.len());
        damaged[at] ^= 1 << bit;
        if let Ok(other) = decode::<Shape>(&damaged, "it") {
            prop_assert_ne!(&other, &shape);
            prop_assert_eq!(encode(&other), damaged);
        }
    }

    #[test]
    fn whatever_decodes_encodes_to_its_bytes(bytes: Vec<u8>) {
        if let Ok(shape) = decode::<Shape>(&bytes, "it") {
            prop_assert_eq!(encode(&shape), bytes);
        }
    }
}
