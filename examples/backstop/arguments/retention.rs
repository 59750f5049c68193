//! The arguments of `forget`, `gc` and `undelete`.

use std::time::Duration;

use backstop::RetentionPolicy;
use clap::Args;
use jiff::Zoned;

use super::parse_tag;
use crate::selector;

#[derive(Debug, Args)]
pub(crate) struct ForgetArguments {
    /// Snapshots to forget whatever the rules say, as SERIES#NUMBER
    #[arg(value_name = "SNAPSHOT", value_parser = selector::parse_numbered, required_unless_present = "rules")]
    pub(crate) snapshots: Vec<(String, u64)>,

    /// Applies the rules to this series alone; may be repeated [default: to each series]
    #[arg(long, value_name = "NAME", requires = "rules")]
    pub(crate) series: Vec<String>,

    #[command(flatten)]
    pub(crate) rules: Rules,

    /// By how much the time in which hours to years begin is ahead of UTC [default: as the system's is now]
    #[arg(long, value_name = "±HH:MM", value_parser = parse_offset, allow_hyphen_values = true, requires = "rules")]
    pub(crate) utc_offset: Option<i32>,

    /// For how long what is forgotten can be undeleted, as 14d, 36h or 2w
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "7d")]
    pub(crate) undelete_for: Duration,

    /// Only tells what would be forgotten
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// What is kept: a snapshot is forgotten if none of these keeps it.
#[derive(Debug, Args)]
#[group(id = "rules", multiple = true)]
pub(crate) struct Rules {
    /// Keeps so many of the newest snapshots
    #[arg(long, value_name = "NUMBER")]
    keep_last: Option<u32>,

    /// Keeps one snapshot of each of so many hours that have any
    #[arg(long, value_name = "NUMBER")]
    keep_hourly: Option<u32>,

    /// Likewise of days
    #[arg(long, value_name = "NUMBER")]
    keep_daily: Option<u32>,

    /// Likewise of weeks, which begin on Monday
    #[arg(long, value_name = "NUMBER")]
    keep_weekly: Option<u32>,

    /// Likewise of months
    #[arg(long, value_name = "NUMBER")]
    keep_monthly: Option<u32>,

    /// Likewise of years
    #[arg(long, value_name = "NUMBER")]
    keep_yearly: Option<u32>,

    /// Keeps what is at most so much older than the newest snapshot, as 14d, 36h or 2w
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_within: Option<Duration>,

    /// Keeps what carries this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    keep_tag: Vec<(String, String)>,
}

impl ForgetArguments {
    /// The rules, unless none was given.
    pub(crate) fn policy(&self) -> Option<RetentionPolicy> {
        let Rules { keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, .. } = self.rules;
        let mut policy = RetentionPolicy::default();
        (policy.last, policy.hourly, policy.daily) = (keep_last, keep_hourly, keep_daily);
        (policy.weekly, policy.monthly, policy.yearly) = (keep_weekly, keep_monthly, keep_yearly);
        policy.within = self.rules.keep_within;
        policy.tags.clone_from(&self.rules.keep_tag);
        (policy != RetentionPolicy::default())
            .then(|| policy.with_utc_offset_seconds(self.utc_offset.unwrap_or_else(|| Zoned::now().offset().seconds())))
    }
}

#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Rewrites packs of which more than this share isn't needed [default: 33.3]
    #[arg(long, value_name = "PERCENT", value_parser = parse_share)]
    pub(crate) waste: Option<f64>,

    /// Waits so long for writers that may rely on what goes, as 90s or 10m [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) wait: Option<Duration>,

    /// Fences writers that registered longer ago than this: their next commit fails [default: 2d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) fence_after: Option<Duration>,

    /// Rewrites all that is sealed under older keys than the newest, after `key rotate`
    #[arg(long)]
    pub(crate) rewrite_old_keys: bool,

    /// Only tells what would be done
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UndeleteArguments {
    /// The snapshot that was forgotten, as SERIES#NUMBER
    #[arg(value_name = "SNAPSHOT", value_parser = selector::parse_numbered)]
    pub(crate) snapshot: (String, u64),

    /// Only tells whether it can be undeleted
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// Reads a number and a unit, or 0 alone.
fn parse_duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write it as 90s, 90m, 36h, 14d or 2w";
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| FORM.to_owned())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        "" if number == 0 => 1,
        _ => return Err(FORM.to_owned()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "it is too long".to_owned())
}

/// Reads `+01:00`, `-03:30` or `Z` as seconds.
fn parse_offset(text: &str) -> Result<i32, String> {
    const FORM: &str = "write it as +01:00 or -03:30, at most 18 hours";
    if text == "Z" {
        return Ok(0);
    }
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        _ => return Err(FORM.to_owned()),
    };
    let two =
        |text: &str| (text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit())).then(|| text.parse::<i32>());
    match digits.split_once(':').map(|(hours, minutes)| (two(hours), two(minutes))) {
        Some((Some(Ok(hours)), Some(Ok(minutes)))) if minutes < 60 && hours * 60 + minutes <= 18 * 60 => {
            Ok(sign * (hours * 60 + minutes) * 60)
        }
        _ => Err(FORM.to_owned()),
    }
}

/// Reads a percentage as a share of 1.
fn parse_share(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("it must be at least 0 and at most 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;

    #[test]
    fn durations_have_a_unit() {
        let read = ["90s", "90m", "36h", "14d", "2w", "0", "0d"].map(|text| parse_duration(text).unwrap().as_secs());
        assert_eq!(read, [90, 5_400, 129_600, 1_209_600, 1_209_600, 0, 0]);
        for wrong in ["", "14", "d", "-1d", "1.5d", "14 d", "1y", "99999999999999999999s", "99999999999999999w"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn offsets_have_a_sign() {
        let read = ["Z", "+00:00", "+01:00", "-03:30", "+18:00"].map(|text| parse_offset(text).unwrap());
        assert_eq!(read, [0, 0, 3_600, -12_600, 64_800]);
        for wrong in ["", "1:00", "01:00", "+1:00", "+01", "+0100", "+01:60", "+18:01", "+-1:00", "\u{e9}01:00"] {
            assert!(parse_offset(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!((parse_share("0"), parse_share("25%"), parse_share("100")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        assert!(["-1", "101", "NaN", ""].iter().all(|wrong| parse_share(wrong).is_err()));
    }

    #[test]
    fn rules_or_snapshots_are_wanted() {
        let forget = |line: &[&str]| {
            let line = ["backstop", "forget"].iter().chain(line);
            Arguments::try_parse_from(line).map(|arguments| match arguments.command {
                Command::Forget(forget) => forget,
                _ => panic!("another command"),
            })
        };
        let policy = |line: &[&str]| forget(line).unwrap().policy();
        assert_eq!(policy(&["a#1"]), None);
        let utc = ["--utc-offset", "Z"];
        let expected = RetentionPolicy::default().with_daily(7).with_tag("a", "b");
        assert_eq!(policy(&[&["--keep-daily", "7", "--keep-tag", "a=b"], &utc[..]].concat()), Some(expected));
        let west = policy(&["--keep-within", "2w", "--utc-offset", "-05:00", "a#1"]).unwrap();
        assert_eq!((west.utc_offset_seconds, west.within), (-18_000, Some(Duration::from_secs(14 * 86_400))));
        for wrong in [&[][..], &["a"], &["a@latest"], &["--series", "a", "b#1"], &["--series", "a"], &utc] {
            assert!(forget(wrong).is_err(), "{wrong:?}");
        }
    }
}
