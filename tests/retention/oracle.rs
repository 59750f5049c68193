//! What each rule keeps, from its words alone: every snapshot is compared with every other, and the calendar is
//! counted off day by day.

use backstop::RetentionPolicy;

use crate::series::{Made, Series};

/// The rules, in the order of their reasons.
pub(crate) const RULES: [&str; 7] = ["last", "hour", "day", "week", "month", "year", "within"];

/// Which rules keep each snapshot of a series whose clocks are all good.
pub(crate) fn kept_by(policy: &RetentionPolicy, series: &Series) -> Vec<Vec<&'static str>> {
    let rules = |at| RULES.into_iter().filter(|rule| keeps(policy, rule, &series.0, at)).collect();
    (0..series.0.len()).map(rules).collect()
}

fn keeps(policy: &RetentionPolicy, rule: &str, all: &[Made], at: usize) -> bool {
    let count = match rule {
        "within" => {
            let age = policy.within.unwrap_or_default().as_nanos();
            let newest = all.iter().map(|made| made.clock).max().unwrap();
            return age > 0 && u128::from(newest.abs_diff(all[at].clock)) <= age;
        }
        "last" => policy.last,
        "hour" => policy.hourly,
        "day" => policy.daily,
        "week" => policy.weekly,
        "month" => policy.monthly,
        _ => policy.yearly,
    };
    let count = count.unwrap_or(0) as usize;
    if rule == "last" {
        return all.len() - at <= count;
    }
    let periods: Vec<i64> = all.iter().map(|made| period(rule, made.clock, policy.utc_offset_seconds)).collect();
    let mut later: Vec<i64> = periods.iter().copied().filter(|period| *period > periods[at]).collect();
    later.sort_unstable();
    later.dedup();
    let better = |other: usize| match (all[at].complete, all[other].complete) {
        (true, false) => false,
        (false, true) => true,
        _ => other > at,
    };
    later.len() < count && !(0..all.len()).any(|other| periods[other] == periods[at] && better(other))
}

/// A number for each period, rising with time.
fn period(rule: &str, clock: i64, offset: i32) -> i64 {
    let seconds = clock.div_euclid(1_000_000_000) + i64::from(offset);
    let day = seconds.div_euclid(86_400);
    match rule {
        "hour" => seconds.div_euclid(3_600),
        "day" => day,
        // 1970-01-01 was a Thursday.
        "week" => (day + 3).div_euclid(7),
        "month" => month(day),
        _ => month(day).div_euclid(12),
    }
}

/// Months since January 1970 on a day since then, or on the last days of 1969.
fn month(mut day: i64) -> i64 {
    let mut months = 0;
    if day < 0 {
        return -1;
    }
    loop {
        let year = 1970 + months / 12;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match months % 12 {
            1 => 28 + i64::from(leap),
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        };
        if day < length {
            return months;
        }
        day -= length;
        months += 1;
    }
}
