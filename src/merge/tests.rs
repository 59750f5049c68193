//! Which packs are chosen; what can mislead a merge, and doesn't.

mod hostile;

use super::*;

fn listed(lengths: &[u64]) -> impl Iterator<Item = (ObjectId, u64)> {
    lengths.iter().zip(0u8..).map(|(length, number)| (ObjectId::new([number; 32]), *length))
}

fn chosen(lengths: &[u64]) -> usize {
    choose(listed(lengths), 1 << 20, 4, 2 << 20).len()
}

#[test]
fn a_tier_is_merged_when_it_is_full_and_takes_in_those_below() {
    assert_eq!(chosen(&[]), 0);
    assert_eq!(chosen(&[100, 100, 100]), 0);
    assert_eq!(chosen(&[100, 100, 100, 100]), 4);
    assert_eq!(chosen(&[100_000; 4]), 4);
    assert_eq!(chosen(&[100, 100_000, 100_000, 100_000, 100_000]), 5, "what is smaller comes along");
    assert_eq!(chosen(&[100, 100, 100, 100, 100_000]), 4, "what is larger stays");
    assert_eq!(chosen(&[1 << 20; 9]), 0, "large ones stay");
    assert_eq!(chosen(&[900_000; 9]), 2, "no more than can be copied at a time");
}
