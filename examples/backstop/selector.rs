//! Reading `SNAPSHOT` and `SNAPSHOT:PATH`.
//!
//! A series' name, a time and a path may all hold colons. The shortest beginning
//! that reads as a snapshot and ends at a colon is taken for it, and what follows
//! for the path: `host:/srv#3:/etc` is `/etc` in number 3 of `host:/srv`. A time
//! takes as many colons as still make a time: `10:00:30` is not the file `30`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use backstop::{Key, Moment, Selector, Timestamp};
use jiff::tz::TimeZone;
use jiff::{Span, Zoned, civil};

const FORMS: &str = "write a snapshot as latest, SERIES@latest, SERIES#NUMBER or [SERIES@]TIME, \
                     with TIME such as 2026-11-22, 2026-11-22T10:00 or 2026-11-22T10:00:00Z";

/// A snapshot, and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) snapshot: Selector,
    /// Nothing for all of the snapshot.
    pub(crate) path: Option<Key>,
}

impl Target {
    /// Reads `SNAPSHOT[:PATH]`.
    pub(crate) fn parse(text: OsString) -> Result<Self, String> {
        let text = text.into_vec();
        let (snapshot, rest) = split(&text).ok_or(FORMS)?;
        Ok(Self { snapshot, path: key(rest)? })
    }

    /// Reads `SNAPSHOT:PATH`.
    pub(crate) fn parse_file(text: OsString) -> Result<Self, String> {
        let target = Self::parse(text)?;
        if target.path.is_none() {
            return Err("say which file, as SNAPSHOT:PATH".to_owned());
        }
        Ok(target)
    }

    /// Reads `SNAPSHOT`.
    pub(crate) fn parse_snapshot(text: OsString) -> Result<Self, String> {
        let target = Self::parse(text)?;
        if target.path.is_some() {
            return Err("a snapshot alone is wanted here, without a path".to_owned());
        }
        Ok(target)
    }
}

/// Reads `SERIES#NUMBER`.
pub(crate) fn parse_numbered(text: &str) -> Result<(String, u64), String> {
    match selector(text) {
        Some(Selector::Number { series, number }) => Ok((series, number)),
        _ => Err("name it by its number, as SERIES#NUMBER".to_owned()),
    }
}

/// Reads a path as snapshots store it: `/` at its ends, and parts that lead nowhere, don't count.
pub(crate) fn parse_path(text: OsString) -> Result<Key, String> {
    key(&text.into_vec())?.ok_or_else(|| "it names nothing".to_owned())
}

/// Reads a snapshot's number, or a time of which the first moment is meant.
pub(crate) fn parse_from(text: &str) -> Result<Moment, String> {
    parse_moment(text, |text| moment(text).and_then(|time| timestamp(&time)))
}

/// Reads a snapshot's number, or a time of which the last moment is meant.
pub(crate) fn parse_until(text: &str) -> Result<Moment, String> {
    parse_moment(text, last_moment)
}

fn parse_moment(text: &str, time: impl Fn(&str) -> Option<Timestamp>) -> Result<Moment, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Moment::Number).map_err(|_| "no snapshot has so high a number".to_owned());
    }
    time(text).map(Moment::Time).ok_or_else(|| {
        "write a snapshot's number, or a time such as 2026-11-22, 2026-11-22T10:00 or 2026-11-22T10:00:00Z".to_owned()
    })
}

fn key(path: &[u8]) -> Result<Option<Key>, String> {
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).peekable();
    if names.peek().is_none() {
        return Ok(None);
    }
    Key::new(names).map(Some).map_err(|error| error.to_string())
}

/// The snapshot that `text` begins with, and the path after it.
fn split(text: &[u8]) -> Option<(Selector, &[u8])> {
    let colons = text.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    let mut found: Option<(Selector, &[u8])> = None;
    for end in colons.chain([text.len()]) {
        let (head, rest) = text.split_at_checked(end)?;
        let selector = std::str::from_utf8(head).ok().and_then(selector);
        let timed = matches!(selector, Some(Selector::AtOrBefore { .. }));
        match (selector, &found) {
            (Some(selector), None) => found = Some((selector, rest)),
            // A longer reading counts only where both are times.
            (Some(selector), Some(_)) if timed => found = Some((selector, rest)),
            _ => {}
        }
        if found.as_ref().is_some_and(|(selector, _)| !matches!(selector, Selector::AtOrBefore { .. })) {
            break;
        }
    }
    let (selector, rest) = found?;
    Some((selector, rest.strip_prefix(b":").unwrap_or(rest)))
}

/// Reads all of `text` as a snapshot.
fn selector(text: &str) -> Option<Selector> {
    if text == "latest" {
        return Some(Selector::Latest);
    }
    if let Some((series, number)) = text.rsplit_once('#') {
        let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
        return named(series).map(|series| Selector::Number { series, number });
    }
    match text.rsplit_once('@') {
        Some((series, "latest")) => named(series).map(|series| Selector::LatestOf { series }),
        Some((series, time)) => Some(Selector::AtOrBefore { series: Some(named(series)?), time: last_moment(time)? }),
        None => Some(Selector::AtOrBefore { series: None, time: last_moment(text)? }),
    }
}

/// The series' name, unless what stands there can't be one.
fn named(series: &str) -> Option<String> {
    (!series.is_empty() && !series.contains(['#', '@'])).then(|| series.to_owned())
}

/// The last moment of the day, hour, minute or second that `text` names.
fn last_moment(text: &str) -> Option<Timestamp> {
    let begins = moment(text)?;
    let next = match unit(text)? {
        Unit::Day => begins.tomorrow().ok()?,
        Unit::Span(span) => begins.checked_add(span).ok()?,
        Unit::Instant => return timestamp(&begins),
    };
    timestamp(&next).map(|next| Timestamp::from_nanos(next.as_nanos() - 1))
}

/// Reads a time with an offset, with a zone in brackets, or in the system's time zone.
fn moment(text: &str) -> Option<Zoned> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(instant.to_zoned(TimeZone::UTC));
    }
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Some(zoned);
    }
    text.parse::<civil::DateTime>().ok()?.to_zoned(TimeZone::system()).ok()
}

fn timestamp(time: &Zoned) -> Option<Timestamp> {
    i64::try_from(time.timestamp().as_nanosecond()).ok().map(Timestamp::from_nanos)
}

/// How precisely a time is given.
enum Unit {
    Day,
    Span(Span),
    Instant,
}

/// Counts the digits of the time of day, in a text that is known to be a time.
fn unit(text: &str) -> Option<Unit> {
    let Some((_, time)) = text.split_once(['T', 't', ' ']) else { return Some(Unit::Day) };
    let end = time.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(time.len());
    let (time, rest) = time.split_at_checked(end)?;
    if rest.starts_with(['.', ',']) {
        return Some(Unit::Instant);
    }
    Some(Unit::Span(match time.bytes().filter(u8::is_ascii_digit).count() {
        0..=2 => Span::new().hours(1),
        3..=4 => Span::new().minutes(1),
        _ => Span::new().seconds(1),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text.into()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn at(series: Option<&str>, instant: &str) -> Selector {
        let time = instant.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
        Selector::AtOrBefore {
            series: series.map(str::to_owned),
            time: Timestamp::from_nanos(i64::try_from(time).unwrap()),
        }
    }

    fn check(text: &str, snapshot: &Selector, path: Option<&str>) {
        let expected = Target { snapshot: snapshot.clone(), path: path.map(|path| Key::from_path(path).unwrap()) };
        assert_eq!(target(text), expected, "{text}");
    }

    fn number(series: &str, number: u64) -> Selector {
        Selector::Number { series: series.to_owned(), number }
    }

    fn latest_of(series: &str) -> Selector {
        Selector::LatestOf { series: series.to_owned() }
    }

    #[test]
    fn names_and_numbers() {
        check("latest", &Selector::Latest, None);
        check("accounts@latest", &latest_of("accounts"), None);
        check("accounts#41", &number("accounts", 41), None);
        check("latest@latest", &latest_of("latest"), None);
        check("host:/srv#3", &number("host:/srv", 3), None);
        check("host:/srv@latest", &latest_of("host:/srv"), None);
        check("2026@latest", &latest_of("2026"), None);
    }

    #[test]
    fn times_mean_the_end_of_what_they_name() {
        check("2026-11-22T10:00:00.5Z", &at(None, "2026-11-22T10:00:00.5Z"), None);
        check("2026-11-22T10:00:00Z", &at(None, "2026-11-22T10:00:00.999999999Z"), None);
        check("2026-11-22T10:00Z", &at(None, "2026-11-22T10:00:59.999999999Z"), None);
        check("2026-11-22 10:00:00+01:00", &at(None, "2026-11-22T09:00:00.999999999Z"), None);
        check("a@2026-11-22T10:00[Europe/Paris]", &at(Some("a"), "2026-11-22T09:00:59.999999999Z"), None);
        let zoned = |text: &str| Zoned::new(text.parse().unwrap(), TimeZone::system());
        let midnight = civil::date(2026, 11, 23).to_zoned(TimeZone::system()).unwrap();
        check("2026-11-22", &at(None, &(midnight.timestamp() - Span::new().nanoseconds(1)).to_string()), None);
        assert_eq!(zoned("1970-01-01T00:00:00Z").timestamp().as_nanosecond(), 0);
        let ten = civil::date(2026, 11, 22).at(10, 0, 59, 999_999_999).to_zoned(TimeZone::system()).unwrap();
        check("host:/srv@2026-11-22T10:00", &at(Some("host:/srv"), &ten.timestamp().to_string()), None);
    }

    #[test]
    fn paths_follow_a_colon() {
        check("latest:/tmp/x/src", &Selector::Latest, Some("tmp/x/src"));
        check("latest:a/./b//", &Selector::Latest, Some("a/b"));
        check("latest:", &Selector::Latest, None);
        check("latest:/", &Selector::Latest, None);
        check("latest:.", &Selector::Latest, None);
        check("latest:...", &Selector::Latest, Some("..."));
        check("latest:a@latest", &Selector::Latest, Some("a@latest"));
        check("latest:mail#3", &Selector::Latest, Some("mail#3"));
        check("latest:2026-11-22", &Selector::Latest, Some("2026-11-22"));
        check("a#1:b:c", &number("a", 1), Some("b:c"));
        check("host:/srv#3:/etc", &number("host:/srv", 3), Some("etc"));
        check("a@2026-11-22T10:00Z:/etc", &at(Some("a"), "2026-11-22T10:00:59.999999999Z"), Some("etc"));
        check("2026-11-22T10:00:30Z:x:y", &at(None, "2026-11-22T10:00:30.999999999Z"), Some("x:y"));
        let half = civil::date(2026, 11, 22).at(10, 0, 30, 999_999_999).to_zoned(TimeZone::system()).unwrap();
        check("2026-11-22T10:00:30:30", &at(None, &half.timestamp().to_string()), Some("30"));
        let raw = OsString::from_vec(b"latest:caf\xe9/x".to_vec());
        assert_eq!(Target::parse(raw).unwrap().path, Some(Key::new([&b"caf\xe9"[..], b"x"]).unwrap()));
    }

    #[test]
    fn a_part_of_a_history_has_whole_days() {
        let nanos = |instant: &str| {
            let time = instant.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
            Ok(Moment::Time(Timestamp::from_nanos(i64::try_from(time).unwrap())))
        };
        assert_eq!(parse_from("2026-11-22T10:00Z"), nanos("2026-11-22T10:00:00Z"));
        assert_eq!(parse_until("2026-11-22T10:00Z"), nanos("2026-11-22T10:00:59.999999999Z"));
        assert_eq!(parse_from("41"), Ok(Moment::Number(41)));
        assert_eq!(parse_until("20261122"), Ok(Moment::Number(20_261_122)));
        let day = |moment: Result<Moment, String>| match moment.unwrap() {
            Moment::Time(time) => time.as_nanos(),
            other => panic!("{other:?}"),
        };
        let length = day(parse_until("2026-11-22")) - day(parse_from("2026-11-22"));
        assert_eq!(length, 86_400_000_000_000 - 1);
        for wrong in ["", "x", "-1", "#1", "99999999999999999999", "2026-13-01"] {
            assert!(parse_from(wrong).is_err() && parse_until(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_names_no_snapshot_is_refused() {
        for wrong in ["", ":", "accounts", "accounts:x", "#1", "a#", "a#x", "a#-1", "a#+1", "@latest", "a@", "a@now"] {
            assert!(Target::parse(wrong.into()).is_err(), "{wrong}");
        }
        for wrong in ["2026-13-01", "10:00", "a@2026-11-22T25:00", "9999-12-31", "a#99999999999999999999"] {
            assert!(Target::parse(wrong.into()).is_err(), "{wrong}");
        }
        assert!(Target::parse("latest:../x".into()).is_err());
        assert!(Target::parse("latest:..".into()).is_err());
        assert!(Target::parse_file("latest:/".into()).is_err());
        assert!(Target::parse_snapshot("latest:x".into()).is_err());
        assert_eq!(parse_numbered("host:/srv#3"), Ok(("host:/srv".to_owned(), 3)));
        for wrong in ["", "a", "latest", "a@latest", "a#", "a#1:x", "2026-11-22"] {
            assert!(parse_numbered(wrong).is_err(), "{wrong}");
        }
    }
}
