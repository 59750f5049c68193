//! What holds of every policy and series.

use std::time::Duration;

use backstop::{Decision, Period, Reason, RetentionPolicy};
use proptest::prelude::*;

use crate::oracle::kept_by;
use crate::series::{Series, nanos};

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
const NOW: &str = "2026-11-24T12:00:00Z";

fn policies() -> impl Strategy<Value = RetentionPolicy> {
    let count = || prop::option::of(0..5_u32);
    let within = prop::option::of((0..2_000_u64).prop_map(|hours| Duration::from_secs(hours * 3_600)));
    let counts = (count(), count(), count(), count(), count(), count());
    (counts, within, prop::bool::ANY, -64_800..64_800_i32).prop_map(|(counts, within, tagged, offset)| {
        let mut policy = RetentionPolicy::default().with_utc_offset_seconds(offset);
        (policy.last, policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly) = counts;
        policy.within = within;
        if tagged { policy.with_tag("keep", "yes") } else { policy }
    })
}

/// How long after the snapshot before, in minutes: often a little, at times a lot.
fn gaps() -> impl Strategy<Value = i64> {
    prop_oneof![0..5_i64, 0..120_i64, 0..4_000_i64, 0..60_000_i64]
}

/// A clock that is off: by how many minutes.
fn faults() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        10 => Just(None),
        1 => (-4..4_i64).prop_map(Some),
        1 => (-5_000..5_000_i64).prop_map(Some),
        1 => Just(Some(-29_000_000)),
        1 => Just(Some(40_000_000)),
    ]
}

/// Series whose last true time is [`NOW`], with faults in some clocks.
fn series(faults: impl Strategy<Value = Option<i64>>) -> impl Strategy<Value = Series> {
    let snapshot = (gaps(), faults, prop::bool::weighted(0.7), prop::bool::weighted(0.1));
    prop::collection::vec(snapshot, 0..40).prop_map(|snapshots| {
        let mut before: i64 = snapshots.iter().map(|(gap, ..)| gap * MINUTE).sum();
        let mut series = Series::default();
        for (gap, fault, complete, tagged) in snapshots {
            before -= gap * MINUTE;
            let made = series.add(nanos(NOW) - before + fault.unwrap_or(0) * MINUTE);
            made.complete = complete;
            if tagged {
                made.tags.insert("keep".to_owned(), "yes".to_owned());
            }
        }
        series
    })
}

fn good() -> impl Strategy<Value = Series> {
    series(Just(None))
}

fn is_doubtful(decision: &Decision) -> bool {
    let doubts = |reason: &Reason| matches!(reason, Reason::Future | Reason::Behind | Reason::Ahead);
    decision.reasons.iter().any(doubts)
}

/// The rules that keep a snapshot, labels aside.
fn rules(decision: &Decision) -> Vec<&'static str> {
    let rule = |reason: &Reason| match reason {
        Reason::Last(_) => Some("last"),
        Reason::Period(Period::Hour { .. }) => Some("hour"),
        Reason::Period(Period::Day { .. }) => Some("day"),
        Reason::Period(Period::Week { .. }) => Some("week"),
        Reason::Period(Period::Month { .. }) => Some("month"),
        Reason::Period(Period::Year { .. }) => Some("year"),
        Reason::Within(_) => Some("within"),
        _ => None,
    };
    decision.reasons.iter().filter_map(rule).collect()
}

/// The policies that keep one more by one rule.
fn larger(policy: &RetentionPolicy) -> Vec<RetentionPolicy> {
    let more = |count: Option<u32>| count.unwrap_or(0) + 1;
    let base = || policy.clone();
    vec![
        base().with_last(more(policy.last)),
        base().with_hourly(more(policy.hourly)),
        base().with_daily(more(policy.daily)),
        base().with_weekly(more(policy.weekly)),
        base().with_monthly(more(policy.monthly)),
        base().with_yearly(more(policy.yearly)),
        base().with_within(policy.within.unwrap_or_default() + Duration::from_secs(3_600)),
        base().with_tag("keep", "yes"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_rule_keeps_what_its_words_say(policy in policies(), series in good()) {
        let decisions = series.decide(&policy, nanos(NOW));
        prop_assert!(!decisions.iter().any(is_doubtful));
        let found: Vec<_> = decisions.iter().map(rules).collect();
        prop_assert_eq!(found, kept_by(&policy, &series));
    }

    #[test]
    fn doubtful_clocks_change_nothing_for_the_others(policy in policies(), series in series(faults())) {
        let decisions = series.decide(&policy, nanos(NOW));
        let both = series.0.iter().zip(&decisions);
        let (doubtful, believed): (Vec<_>, Vec<_>) = both.partition(|(_, decision)| is_doubtful(decision));
        prop_assert!(doubtful.iter().all(|(_, decision)| decision.keep && rules(decision).is_empty()));

        let mut others = Series(believed.iter().map(|(made, _)| (*made).clone()).collect());
        let found: Vec<_> = believed.iter().map(|(_, decision)| rules(decision)).collect();
        prop_assert_eq!(&found, &kept_by(&policy, &others));
        // Nor would it be otherwise had there never been any.
        for (number, made) in (1..).zip(&mut others.0) {
            (made.number, made.time) = (number, made.clock);
        }
        let alone: Vec<_> = others.decide(&policy, nanos(NOW)).iter().map(rules).collect();
        prop_assert_eq!(found, alone);
    }

    #[test]
    fn just_the_bad_clocks_are_doubted(
        gaps in prop::collection::vec(6..4_000_i64, 10..30),
        bad in prop::collection::vec((4..10_usize, prop::bool::ANY), 0..4),
    ) {
        let mut before: i64 = gaps.iter().sum();
        let mut series = Series::default();
        let mut expected = Vec::new();
        for (at, gap) in gaps.iter().enumerate() {
            for (_, future) in bad.iter().filter(|(place, _)| *place == at) {
                series.add(nanos(if *future { "2100-01-01T00:00:00Z" } else { "1970-01-01T00:00:09Z" }));
                expected.push(true);
            }
            before -= gap;
            series.add(nanos(NOW) - before * MINUTE);
            expected.push(false);
        }
        let decisions = series.decide(&RetentionPolicy::default().with_last(1), nanos(NOW));
        prop_assert_eq!(decisions.iter().map(is_doubtful).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_larger_number_never_keeps_less(policy in policies(), series in series(faults())) {
        let decisions = series.decide(&policy, nanos(NOW));
        for larger in larger(&policy) {
            for (more, less) in series.decide(&larger, nanos(NOW)).iter().zip(&decisions) {
                prop_assert!(more.keep || !less.keep, "{larger:?} forgets {}", more.number);
            }
        }
    }

    #[test]
    fn the_ends_and_the_labelled_are_kept(policy in policies(), series in series(faults())) {
        let decisions = series.decide(&policy, nanos(NOW));
        for (made, decision) in series.0.iter().zip(&decisions) {
            prop_assert_eq!(made.number, decision.number);
            prop_assert_eq!(decision.keep, decision.reasons != [Reason::NoRule]);
            prop_assert!(decision.keep || policy.tags.is_empty() || made.tags.is_empty());
        }
        if let Some(at) = series.0.iter().rposition(|made| made.complete) {
            prop_assert!(decisions[at].reasons.contains(&Reason::LastComplete));
        }
        prop_assert!(decisions.last().is_none_or(|newest| newest.keep));
    }

    #[test]
    fn deciding_again_keeps_what_was_kept(policy in policies(), series in good(), later in 0..100_000_i64) {
        let kept = series.after(&series.decide(&policy, nanos(NOW)));
        let again = kept.decide(&policy, nanos(NOW) + later * HOUR);
        prop_assert!(again.iter().all(|decision| decision.keep), "{again:?}");
    }

    #[test]
    fn clocks_that_were_behind_are_doubted_still_when_others_are_forgotten(
        policy in policies(), series in good(), place in any::<prop::sample::Index>(), count in 1..5_usize,
    ) {
        prop_assume!(series.0.len() > count);
        // No more of them than there were before.
        let behind = count + place.index(series.0.len() - count);
        let mut with = Series::default();
        for (at, made) in series.0.iter().enumerate() {
            for hour in (0..5).take(if at == behind { count } else { 0 }) {
                with.add(hour * HOUR).tags.insert("bad".to_owned(), String::new());
            }
            // A snapshot whose clock isn't later than all before tells nothing once it is gone.
            with.add(made.clock + 1_000 * at as i64).complete = made.complete;
        }
        let kept = with.after(&with.decide(&policy, nanos(NOW)));
        for (made, decision) in kept.0.iter().zip(kept.decide(&policy, nanos(NOW))) {
            prop_assert!(decision.keep);
            prop_assert_eq!(is_doubtful(&decision), made.tags.contains_key("bad"));
        }
    }

    #[test]
    fn nothing_is_out_of_range(
        clocks in prop::collection::vec((any::<i64>(), any::<i64>()), 1..12),
        ends in prop::collection::vec(prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0)], 0..6),
        now in any::<i64>(),
        offset in any::<i32>(),
        mut policy in policies(),
    ) {
        policy.utc_offset_seconds = offset;
        policy.within = Some(Duration::MAX);
        let mut series = Series::default();
        for (clock, time) in clocks.into_iter().chain(ends.into_iter().map(|end| (end, end))) {
            series.add(clock).time = time;
        }
        let decisions = series.decide(&policy, now);
        prop_assert_eq!(decisions.len(), series.0.len());
        // Believed or not, everything is within all time.
        prop_assert!(decisions.iter().all(|decision| decision.keep));
    }
}
