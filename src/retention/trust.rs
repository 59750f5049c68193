//! Which snapshots' clocks can be believed.
//!
//! Snapshots are committed in the order of their numbers, so good clocks never
//! go back. Of those that aren't in the future the longest sequence that never
//! goes back is believed, and every other snapshot whose clock is not far from
//! its place in it. So one bad clock is disbelieved, not all that it contradicts:
//! neither a clock in 1970 nor one that was a year ahead makes the others
//! doubtful. Between sequences of one length, that which begins with the lower
//! numbers is believed. Where the wrong clocks are the more, the right ones are
//! doubted: their snapshots are kept, and only space is lost by it.
//!
//! A snapshot's stored time is just after that of a predecessor whose clock was
//! later than its own. Where no snapshot has that clock any more, the one that
//! had it is gone, yet still counts as a witness: forgetting a snapshot doesn't
//! make the clock believable that it had shown to be behind.
//!
//! Nothing here depends on the policy.

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
}

/// One verdict for each snapshot; they are in the order of their numbers.
pub(super) fn judge(snapshots: &[Dated<'_>], now: Timestamp) -> Vec<Verdict> {
    let latest = now.as_nanos().saturating_add(TOLERANCE);
    let mut witnesses = witnesses(snapshots);
    witnesses.retain(|witness| witness.clock <= latest);
    let clocks: Vec<i64> = witnesses.iter().map(|witness| witness.clock).collect();
    let believed = longest(&clocks);

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

/// The clocks of the snapshots, and before each that is the first to be later than its clock for a snapshot that is
/// gone, the clock of that.
fn witnesses(snapshots: &[Dated<'_>]) -> Vec<Witness> {
    let mut witnesses = Vec::with_capacity(snapshots.len());
    let mut seen = i64::MIN;
    for (at, snapshot) in snapshots.iter().enumerate() {
        let (clock, time) = (snapshot.clock.as_nanos(), snapshot.time.as_nanos());
        if time > clock.max(seen).saturating_add(TOLERANCE) {
            // Each snapshot since then added a nanosecond, and there were no more of them than its number says.
            let since = i64::try_from(snapshot.number).unwrap_or(i64::MAX);
            seen = seen.max(time.saturating_sub(since));
            witnesses.push(Witness { clock: seen, snapshot: None });
        }
        witnesses.push(Witness { clock, snapshot: Some(at) });
        seen = seen.max(clock);
    }
    witnesses
}

/// Which of the clocks make up the longest sequence that never goes back; of several, that which begins first.
fn longest(clocks: &[i64]) -> Vec<bool> {
    let lengths = lengths(clocks);
    let mut wanted = lengths.iter().copied().max().unwrap_or(0);
    let mut previous = i64::MIN;
    let mut take = |(length, clock): (&usize, &i64)| {
        let taken = *length == wanted && *clock >= previous;
        if taken {
            wanted -= 1;
            previous = *clock;
        }
        taken
    };
    lengths.iter().zip(clocks).map(&mut take).collect()
}

/// For each clock, how long the longest sequence is that begins with it and never goes back.
fn lengths(clocks: &[i64]) -> Vec<usize> {
    // At place n, the latest clock with which a sequence of n + 1 can begin: so they never rise.
    let mut heads: Vec<i64> = Vec::new();
    let mut lengths = vec![0; clocks.len()];
    for (clock, length) in clocks.iter().zip(&mut lengths).rev() {
        let following = heads.partition_point(|head| head >= clock);
        match heads.get_mut(following) {
            Some(head) => *head = *clock,
            None => heads.push(*clock),
        }
        *length = following + 1;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
                snapshots.push(Dated { number: at as u64, time, clock, tags: &tags, complete: true });
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
            // More believe the 1970s than don't. All that is lost by it is space: the one that is right is kept.
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
        // One from the far future is gone: the times of all later ones still are there.
        assert_eq!(judged(&hours(&[900, 100, 101]), &[0], now), "..");
    }

    #[test]
    fn extremes_are_judged() {
        let clocks = [i64::MIN, i64::MAX, 0, i64::MIN, i64::MAX];
        assert_eq!(judged(&clocks, &[], i64::MAX), "..BB.");
        assert_eq!(judged(&clocks, &[], i64::MIN), ".FF.F");
    }

    /// The longest sequence by trying all.
    fn tried(clocks: &[i64]) -> usize {
        let chosen =
            |set: u32| clocks.iter().enumerate().filter(move |(at, _)| set >> at & 1 == 1).map(|(_, clock)| clock);
        (0..1_u32 << clocks.len()).filter(|set| chosen(*set).is_sorted()).map(u32::count_ones).max().unwrap() as usize
    }

    proptest! {
        #[test]
        fn the_longest_sequence_is_found(clocks in prop::collection::vec(0..6_i64, 0..10)) {
            let taken = longest(&clocks);
            let sequence: Vec<i64> = clocks.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(clock, _)| *clock).collect();
            prop_assert!(sequence.is_sorted());
            prop_assert_eq!(sequence.len(), tried(&clocks));
        }
    }
}
