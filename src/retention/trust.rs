//! Which snapshots' clocks can be believed.
//!
//! Snapshots are committed in the order of their numbers, so good clocks never
//! go back. Of those that aren't in the future the sequence that never goes back
//! and has the most snapshots is believed, and every other snapshot whose clock
//! is not far from its place in it. So one bad clock is disbelieved, not all that
//! it contradicts: neither a clock in 1970 nor one that was a year ahead makes
//! the others doubtful. Between sequences of equal weight, that which begins with
//! the lower numbers is believed.
//!
//! Snapshots that are gone still count, so that forgetting what a policy allows
//! doesn't turn the verdict on what is left. How many they are is told by the
//! numbers that are missing. Where their clocks stood is told by the stored time
//! of the next one: it is just after the latest clock before it if that is later
//! than its own. If a gone snapshot had that clock, all that are gone there speak
//! for it, otherwise for the next one.
//!
//! Nothing here depends on the policy.

use std::collections::BTreeMap;

use super::Dated;
use crate::clock::Timestamp;

/// How far clocks may disagree without one being wrong, in nanoseconds: 5 minutes.
const TOLERANCE: i64 = 300_000_000_000;

/// What to think of a snapshot's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be right.
    Believed,
    /// It said a time that is still to come.
    Future,
    /// It was behind those of earlier snapshots.
    Behind,
    /// It was ahead of those of later snapshots.
    Ahead,
}

/// A clock that isn't in the future.
struct Witness {
    clock: i64,
    /// Where its snapshot is; `None` if that is gone.
    snapshot: Option<usize>,
    /// For how many snapshots it speaks.
    weight: u64,
}

/// One verdict for each snapshot; they are in the order of their numbers.
pub(super) fn judge(snapshots: &[Dated<'_>], now: Timestamp) -> Vec<Verdict> {
    let latest = now.as_nanos().saturating_add(TOLERANCE);
    let mut witnesses = witnesses(snapshots);
    witnesses.retain(|witness| witness.clock <= latest);
    let believed = heaviest(&witnesses);

    let mut verdicts = vec![Verdict::Future; snapshots.len()];
    let mut floor = i64::MIN;
    for (witness, believed) in witnesses.iter().zip(&believed) {
        if *believed {
            floor = witness.clock;
        }
        let behind = witness.clock < floor.saturating_sub(TOLERANCE);
        if let Some(at) = witness.snapshot {
            verdicts[at] = if behind { Verdict::Behind } else { Verdict::Believed };
        }
    }
    let mut ceiling = i64::MAX;
    for (witness, believed) in witnesses.iter().zip(&believed).rev() {
        if *believed {
            ceiling = witness.clock;
        }
        if let Some(at) = witness.snapshot
            && witness.clock > ceiling.saturating_add(TOLERANCE)
        {
            verdicts[at] = Verdict::Ahead;
        }
    }
    verdicts
}

/// The clocks of the snapshots and those that can be told of snapshots that are gone.
fn witnesses(snapshots: &[Dated<'_>]) -> Vec<Witness> {
    let mut witnesses = Vec::with_capacity(snapshots.len());
    let (mut number_before, mut time_before) = (0, i64::MIN);
    for (at, snapshot) in snapshots.iter().enumerate() {
        let (clock, time) = (snapshot.clock.as_nanos(), snapshot.time.as_nanos());
        let gone = snapshot.number.saturating_sub(number_before).saturating_sub(1);
        let nanos = i64::try_from(gone).unwrap_or(i64::MAX);
        // Each snapshot that is behind the latest clock before it adds a nanosecond to the time before it.
        let first_gone = time.saturating_sub(nanos);
        let is_behind_gone = gone > 0 && first_gone > time_before.saturating_add(1);
        if is_behind_gone && time > clock.saturating_add(TOLERANCE) {
            witnesses.push(Witness { clock: first_gone, snapshot: None, weight: gone });
            witnesses.push(Witness { clock, snapshot: Some(at), weight: 1 });
        } else {
            witnesses.push(Witness { clock, snapshot: Some(at), weight: gone.saturating_add(1) });
        }
        (number_before, time_before) = (snapshot.number, time);
    }
    witnesses
}

/// Which of the witnesses make up the heaviest sequence that never goes back; of several, that which begins first.
fn heaviest(witnesses: &[Witness]) -> Vec<bool> {
    let weights = weights(witnesses);
    let mut wanted = weights.iter().copied().max().unwrap_or(0);
    let mut previous = i64::MIN;
    let mut take = |(weight, witness): (&u64, &Witness)| {
        let taken = wanted > 0 && *weight == wanted && witness.clock >= previous;
        if taken {
            wanted = wanted.saturating_sub(witness.weight);
            previous = witness.clock;
        }
        taken
    };
    weights.iter().zip(witnesses).map(&mut take).collect()
}

/// For each witness, the weight of the heaviest sequence that begins with it and never goes back.
fn weights(witnesses: &[Witness]) -> Vec<u64> {
    // The clocks that sequences found so far begin with, and their weights: the later a clock the less, as one that is
    // neither later nor heavier than another is of no use.
    let mut heads: BTreeMap<i64, u64> = BTreeMap::new();
    let mut weights = vec![0; witnesses.len()];
    for (witness, weight) in witnesses.iter().zip(&mut weights).rev() {
        let following = heads.range(witness.clock..).next().map_or(0, |(_, weight)| *weight);
        *weight = witness.weight.saturating_add(following);
        while let Some((clock, _)) = heads.range(..=witness.clock).next_back().filter(|(_, head)| *head <= weight) {
            let clock = *clock;
            heads.remove(&clock);
        }
        heads.insert(witness.clock, *weight);
    }
    weights
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000_000_000;
    const MINUTE: i64 = HOUR / 60;

    /// What is thought of clocks, of which those in `gone` have no snapshot any more, one letter for each other one.
    fn judged(clocks: &[i64], gone: &[usize], now: i64) -> String {
        let tags = BTreeMap::new();
        let mut time = i64::MIN;
        let mut snapshots = Vec::new();
        for (at, clock) in clocks.iter().enumerate() {
            time = time.saturating_add(1).max(*clock);
            if !gone.contains(&at) {
                let (time, clock) = (Timestamp::from_nanos(time), Timestamp::from_nanos(*clock));
                snapshots.push(Dated { number: 1 + at as u64, time, clock, tags: &tags, complete: true });
            }
        }
        let letter = |verdict| match verdict {
            Verdict::Believed => '.',
            Verdict::Future => 'F',
            Verdict::Behind => 'B',
            Verdict::Ahead => 'A',
        };
        judge(&snapshots, Timestamp::from_nanos(now)).into_iter().map(letter).collect()
    }

    fn hours(hours: &[i64]) -> Vec<i64> {
        hours.iter().map(|hour| hour * HOUR).collect()
    }

    #[test]
    fn one_bad_clock_does_not_make_others_doubtful() {
        let now = 110 * HOUR;
        for (clocks, expected) in [
            (&[100, 101, 102, 103][..], "...."),
            (&[100, 0, 101, 102], ".B.."),
            (&[100, 101, 0, 1, 102], "..BB."),
            // More speak for 1970 than against it.
            (&[100, 0, 1, 101], "A..."),
            (&[100, 900, 101, 102], ".F.."),
            (&[100, 109, 101, 102], ".A.."),
            (&[900, 100, 0, 101], "F.B."),
            // Two that contradict each other: the earlier is believed.
            (&[100, 99], ".B"),
            // Nothing was before it, so it may be right.
            (&[0, 100, 101], "..."),
            (&[900, 901], "FF"),
            (&[], ""),
        ] {
            assert_eq!(judged(&hours(clocks), &[], now), expected, "{clocks:?}");
        }
    }

    #[test]
    fn small_differences_are_no_reason_for_doubt() {
        let now = HOUR;
        assert_eq!(judged(&[HOUR + 5 * MINUTE], &[], now), ".");
        assert_eq!(judged(&[HOUR + 5 * MINUTE + 1], &[], now), "F");
        assert_eq!(judged(&[10 * MINUTE, 5 * MINUTE, 20 * MINUTE], &[], now), "...");
        assert_eq!(judged(&[10 * MINUTE, 5 * MINUTE - 1, 20 * MINUTE], &[], now), ".B.");
    }

    #[test]
    fn a_snapshot_that_is_gone_is_still_a_witness() {
        let now = 110 * HOUR;
        // The first showed that the second was behind, and is forgotten.
        assert_eq!(judged(&hours(&[100, 0, 101]), &[0], now), "B.");
        // So it is where the third's clock said the same as that of the first.
        assert_eq!(judged(&hours(&[100, 0, 100, 101]), &[0], now), "B..");
        // One that was ahead of four is gone as well; they stay believed.
        assert_eq!(judged(&hours(&[109, 100, 101, 102, 103]), &[0], now), "....");
        // Most that showed others to be ahead or behind are gone.
        assert_eq!(judged(&hours(&[108, 109, 100, 101, 102, 103]), &[2, 3, 4], now), "AA.");
        assert_eq!(judged(&hours(&[97, 98, 99, 100, 0, 1, 101]), &[0, 1, 3], now), ".BB.");
        // One from the far future is gone: the times of all later ones still are there.
        assert_eq!(judged(&hours(&[900, 100, 101]), &[0], now), "..");
    }

    #[test]
    fn extremes_are_judged() {
        let clocks = [i64::MIN, i64::MAX, 0, i64::MIN, i64::MAX];
        assert_eq!(judged(&clocks, &[], i64::MAX), "..BB.");
        assert_eq!(judged(&clocks, &[], i64::MIN), ".FF.F");
    }

    /// The weight of the heaviest sequence by trying all.
    fn tried(witnesses: &[(i64, u64)]) -> u64 {
        let chosen = |set: u32| {
            let sequence =
                witnesses.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, witness)| *witness);
            sequence.collect::<Vec<_>>()
        };
        let sequences = (0..1_u32 << witnesses.len()).map(chosen);
        let rising = sequences.filter(|sequence| sequence.is_sorted_by_key(|(clock, _)| *clock));
        rising.map(|sequence| sequence.iter().map(|(_, weight)| weight).sum()).max().unwrap()
    }

    proptest! {
        #[test]
        fn the_heaviest_sequence_is_found(pairs in prop::collection::vec((0..6_i64, 1..4_u64), 0..10)) {
            let witness = |(clock, weight): &(i64, u64)| Witness { clock: *clock, snapshot: None, weight: *weight };
            let taken = heaviest(&pairs.iter().map(witness).collect::<Vec<_>>());
            let sequence: Vec<_> = pairs.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(pair, _)| *pair).collect();
            prop_assert!(sequence.is_sorted_by_key(|(clock, _)| *clock));
            prop_assert_eq!(sequence.iter().map(|(_, weight)| weight).sum::<u64>(), tried(&pairs));
        }
    }
}
