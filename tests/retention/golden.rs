//! Whole decisions, kept in `tests/golden/retention` to be read: `BLESS_GOLDEN` rewrites them.
//!
//! Each begins with what was checked by hand.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use backstop::{Decision, RetentionPolicy};

use crate::series::{Series, nanos, told};

const DAY: Duration = Duration::from_secs(86_400);

fn policy() -> RetentionPolicy {
    RetentionPolicy::default()
}

/// The decisions, those of one kind that follow each other and keep nothing in one line.
fn table(series: &Series, decisions: &[Decision]) -> String {
    let mut text = String::new();
    let both: Vec<_> = series.0.iter().zip(decisions).collect();
    for run in both.chunk_by(|(_, a), (_, b)| !a.keep && !b.keep && a.reasons == b.reasons) {
        let ((first, decision), (last, _)) = (run[0], run[run.len() - 1]);
        assert_eq!(first.number, decision.number);
        let numbers =
            if run.len() == 1 { first.number.to_string() } else { format!("{}-{}", first.number, last.number) };
        let marks = if first.complete || run.len() > 1 { "" } else { "partial" };
        let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
        let verb = if decision.keep { "keep" } else { "forget" };
        let line = format!("{numbers:<11} {} {marks:<7} {verb:<6} {}", told(first.clock), reasons.join("; "));
        writeln!(text, "{line}").unwrap();
    }
    text
}

#[track_caller]
fn assert_golden(name: &str, checked: &str, policy: &RetentionPolicy, series: &Series, now: &str) {
    policy.validate().unwrap();
    let mut text = String::new();
    for line in checked.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(text, "# {line}").unwrap();
    }
    text += &table(series, &series.decide(policy, nanos(now)));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/retention").join(format!("{name}.txt"));
    if std::env::var_os("BLESS_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{name}: other decisions than those kept:\n{kept}\nnow:\n{text}");
}

#[test]
fn a_snapshot_each_day() {
    let checked = "
        Each day at 02:00 for three years; last 3, daily 7, weekly 5, monthly 12, yearly 3.
        Tuesday 2026-11-24 is the newest of its day, week (W48), month and year, so it has a slot of each.
        Sundays end ISO weeks: 11-22, 11-15, 11-08 and 11-01 are the other four weeks.
        The twelve months are 2026-11 back to 2025-12, whose last day also ends the year 2025.
        The third year is 2024, of which the last day is kept though no month reaches that far.
    ";
    let series = Series::regular("2023-11-25T02:00:00Z", 24, 1096);
    let policy = policy().with_last(3).with_daily(7).with_weekly(5).with_monthly(12).with_yearly(3);
    assert_golden("daily", checked, &policy, &series, "2026-11-24T12:00:00Z");
}

#[test]
fn a_snapshot_each_hour() {
    let checked = "
        Each hour for three years, 26304 in all; hourly 4, daily 3, monthly 2, yearly 9.
        The newest is of 23:00, so the hours are 23, 22, 21 and 20, and 23:00 is the last of each day.
        Only four years have snapshots: 2023 to 2026. Nine are asked for, so each has one.
    ";
    let series = Series::regular("2023-11-25T00:00:00Z", 1, 26_304);
    let policy = policy().with_hourly(4).with_daily(3).with_monthly(2).with_yearly(9);
    assert_golden("hourly", checked, &policy, &series, "2026-11-25T00:00:00Z");
}

#[test]
fn periods_without_snapshots_do_not_count() {
    let checked = "
        daily 3, weekly 3, within 14 days, label keep=forever.
        The three days are the newest that have snapshots, though weeks lie between them: 11-24, 11-10 and 11-03.
        So are the three weeks: W48, W46 with 11-10, W45 with 11-03.
        14 days before the newest is 11-10T18:00: #9 is just young enough, #8 is a second too old.
        The newest is the measure and not the present time, which is in 2027.
    ";
    let series = Series::listed(
        "
        2024-05-01T08:00:00Z keep=forever
        2024-05-02T08:00:00Z keep=once
        2026-09-30T08:00:00Z
        2026-10-01T08:00:00Z
        2026-11-02T08:00:00Z
        2026-11-03T08:00:00Z
        2026-11-03T09:00:00Z
        2026-11-10T17:59:59Z
        2026-11-10T18:00:00Z
        2026-11-10T18:00:01Z
        2026-11-24T06:00:00Z
        2026-11-24T18:00:00Z
        ",
    );
    let policy = policy().with_daily(3).with_weekly(3).with_within(14 * DAY).with_tag("keep", "forever");
    assert_golden("irregular", checked, &policy, &series, "2027-06-01T00:00:00Z");
}

#[test]
fn periods_are_those_of_local_time() {
    let checked = "
        daily 2, weekly 2, yearly 2, an hour ahead of UTC.
        #2 and #3 are of 2027-01-01 there, which is a Friday of week 53 of 2026; #1 is of 2026-12-31.
        #4, late on Sunday in UTC, is of Monday 2027-01-04, in week 1.
    ";
    let series = Series::listed(
        "
        2026-12-31T22:30:00Z
        2026-12-31T23:30:00Z
        2027-01-01T22:30:00Z
        2027-01-03T23:30:00Z
        ",
    );
    let policy = policy().with_daily(2).with_weekly(2).with_yearly(2).with_utc_offset_seconds(3600);
    assert_golden("local-time", checked, &policy, &series, "2027-01-04T00:00:00Z");
}

#[test]
fn partial_snapshots_take_no_slot_of_a_complete_one() {
    let checked = "
        last 1, daily 4.
        Of 11-21 the complete #2 is kept though the partial #3 is newer; of 11-22 there are only partial ones.
        #6 is complete and newer than the partial #5 of its day.
        #8 is the last complete one, and the last of 11-24; #9, the newest, is partial: it is the one of `last`,
        and would be kept without.
    ";
    let series = Series::listed(
        "
        2026-11-21T01:00:00Z
        2026-11-21T02:00:00Z
        2026-11-21T03:00:00Z partial
        2026-11-22T01:00:00Z partial
        2026-11-23T01:00:00Z partial
        2026-11-23T02:00:00Z
        2026-11-24T01:00:00Z partial
        2026-11-24T02:00:00Z
        2026-11-24T03:00:00Z partial
        ",
    );
    assert_golden("partial", checked, &policy().with_last(1).with_daily(4), &series, "2026-11-24T12:00:00Z");
}

#[test]
fn bad_clocks_take_no_slots() {
    let checked = "
        last 2, daily 3, yearly 2.
        #3 is from 2100 and #5 from 1970: both are kept and take neither a day nor a year from the others.
        The stored times of all after #3 are in 2100; their clocks still tell the days.
        #7's clock was a day ahead; that day is past by now, yet #8 to #10 agree against it.
        #9 is three minutes behind #8, as clocks that are set may be: it counts as any other.
        The last complete one is by number, whatever its clock.
    ";
    let series = Series::listed(
        "
        2025-11-20T01:00:00Z
        2026-11-20T01:00:00Z
        2100-01-01T00:00:00Z
        2026-11-21T01:00:00Z
        1970-01-01T00:00:05Z
        2026-11-22T01:00:00Z
        2026-11-24T02:00:00Z
        2026-11-23T01:00:00Z
        2026-11-23T00:57:00Z
        2026-11-24T01:00:00Z
        1970-01-01T00:00:07Z
        ",
    );
    let policy = policy().with_last(2).with_daily(3).with_yearly(2);
    assert_golden("bad-clocks", checked, &policy, &series, "2026-11-24T12:00:00Z");
}

#[test]
fn a_policy_without_rules_is_refused() {
    let refused = [
        (policy(), "forget everything"),
        (policy().with_last(0).with_yearly(0).with_within(Duration::ZERO), "forget everything"),
        (policy().with_last(1).with_utc_offset_seconds(64_801), "18 hours"),
        (policy().with_last(1).with_utc_offset_seconds(i32::MIN), "18 hours"),
    ];
    for (policy, reason) in refused {
        let message = policy.validate().unwrap_err().to_string();
        assert!(message.contains(reason), "{policy:?}: {message}");
    }
    for valid in [policy().with_tag("a", "b"), policy().with_within(DAY), policy().with_hourly(1).with_daily(0)] {
        valid.with_utc_offset_seconds(-64_800).validate().unwrap();
    }
}
