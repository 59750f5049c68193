//! The names of stored objects: built and parsed here and nowhere else.
//!
//! ```text
//! config
//! keys/<64 hex>
//! packs/<2 hex>/<64 hex>                 the two digits repeat the id's first byte
//! index/<64 hex>
//! writers/<32 hex>
//! snapshots/<32 hex>/<b>/<n>-<t>         b: n / 1000 in 12 digits; n in 15 digits; t: the time of n-1 in 16 hex digits
//! ```
//! A snapshot's name carries its predecessor's time, so that one listing of a
//! bucket of a thousand is a timeline. Every contender for number n knows the
//! one record n-1, and so makes the same name.
//!
//! Digits are padded so that names sort as numbers do. Each object has exactly
//! one spelling: what doesn't parse is not ours.

use std::fmt;

use crate::clock::Timestamp;
use crate::id::{ObjectId, SeriesTag, WriterId};

/// How many snapshots share a folder.
pub(crate) const BUCKET: u64 = 1000;

/// The largest snapshot number that a name can hold.
pub(crate) const NUMBER_MAX: u64 = 999_999_999_999_999;

/// The name of the config object.
pub(crate) const CONFIG: &str = "config";
/// The prefix of key slots.
pub(crate) const KEYS: &str = "keys";
/// The prefix of packs.
pub(crate) const PACKS: &str = "packs";
/// The prefix of index segments.
pub(crate) const INDEX: &str = "index";
/// The prefix of registrations.
pub(crate) const WRITERS: &str = "writers";
/// The prefix of snapshot records.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// The prefix of lists of snapshots that still count.
pub(crate) const KEPT: &str = "kept";
/// The prefix of collections.
pub(crate) const COLLECTIONS: &str = "gc";

/// An object of the repository, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Name {
    Config,
    Key(ObjectId),
    Pack(ObjectId),
    Index(ObjectId),
    Writer(WriterId),
    Snapshot { tag: SeriesTag, number: u64, previous: Timestamp },
}

impl Name {
    /// Reads a name back; nothing if it is not exactly one that [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = Self::parse_loosely(text)?;
        (name.to_string() == text).then_some(name)
    }

    fn parse_loosely(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let name = match (parts.next()?, parts.next()) {
            (CONFIG, None) => Name::Config,
            (KEYS, Some(id)) => Name::Key(ObjectId::parse(id)?),
            (PACKS, Some(_)) => Name::Pack(ObjectId::parse(parts.next()?)?),
            (INDEX, Some(id)) => Name::Index(ObjectId::parse(id)?),
            (WRITERS, Some(id)) => Name::Writer(WriterId::parse(id)?),
            (SNAPSHOTS, Some(tag)) => {
                let (_bucket, record) = (parts.next()?, parts.next()?);
                let (number, previous) = record.split_once('-')?;
                let previous = i64::try_from(u64::from_str_radix(previous, 16).ok()?).ok()?;
                let number = number.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number))?;
                Name::Snapshot { tag: SeriesTag::parse(tag)?, number, previous: Timestamp::from_nanos(previous) }
            }
            _ => return None,
        };
        parts.next().is_none().then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Config => f.write_str(CONFIG),
            Name::Key(id) => write!(f, "{KEYS}/{id}"),
            Name::Pack(id) => write!(f, "{PACKS}/{:02x}/{id}", id.as_bytes()[0]),
            Name::Index(id) => write!(f, "{INDEX}/{id}"),
            Name::Writer(id) => write!(f, "{WRITERS}/{id}"),
            Name::Snapshot { tag, number, previous } => {
                write!(f, "{}/{number:015}-{:016x}", bucket_prefix(tag, *number), previous.as_nanos())
            }
        }
    }
}

/// The folder of a series' snapshots.
pub(crate) fn series_prefix(tag: &SeriesTag) -> String {
    format!("{SNAPSHOTS}/{tag}")
}

/// The folder that holds snapshot `number` of a series.
pub(crate) fn bucket_prefix(tag: &SeriesTag, number: u64) -> String {
    format!("{SNAPSHOTS}/{tag}/{:012}", number / BUCKET)
}

/// The series that a folder directly under [`SNAPSHOTS`] belongs to.
pub(crate) fn parse_series_prefix(text: &str) -> Option<SeriesTag> {
    SeriesTag::parse(text.strip_prefix(SNAPSHOTS)?.strip_prefix('/')?)
}

/// The bucket number of a folder directly under a series' folder.
pub(crate) fn parse_bucket_prefix(tag: &SeriesTag, text: &str) -> Option<u64> {
    let digits = text.strip_prefix(&series_prefix(tag))?.strip_prefix('/')?;
    let bucket: u64 = digits.parse().ok().filter(|bucket| *bucket <= NUMBER_MAX / BUCKET)?;
    (format!("{bucket:012}") == digits).then_some(bucket)
}

/// The folder of a series' lists of what still counts.
pub(crate) fn kept_prefix(tag: &SeriesTag) -> String {
    format!("{KEPT}/{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> impl Strategy<Value = Name> {
        let id = any::<[u8; 32]>().prop_map(ObjectId::new);
        prop_oneof![
            Just(Name::Config),
            id.clone().prop_map(Name::Key),
            id.clone().prop_map(Name::Pack),
            id.prop_map(Name::Index),
            any::<[u8; 16]>().prop_map(|id| Name::Writer(WriterId::new(id))),
            (any::<[u8; 16]>(), 1..=NUMBER_MAX, 0..=i64::MAX).prop_map(|(tag, number, nanos)| Name::Snapshot {
                tag: SeriesTag::new(tag),
                number,
                previous: Timestamp::from_nanos(nanos),
            }),
        ]
    }

    proptest! {
        #[test]
        fn names_round_trip(name in names()) {
            prop_assert_eq!(Name::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn whatever_parses_is_spelt_the_one_way(text in "[a-z0-9/#-]{0,120}") {
            if let Some(name) = Name::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn one_changed_character_is_another_name_or_none(name in names(), at: proptest::sample::Index, to in "[a-zA-Z0-9/ +_-]") {
            let mut text = name.to_string();
            let at = at.index(text.len());
            text.replace_range(at..=at, &to);
            if let Some(other) = Name::parse(&text) {
                prop_assert_eq!(other == name, text == name.to_string());
            }
        }

        #[test]
        fn snapshots_sort_by_number(a in 1..=NUMBER_MAX, b in 1..=NUMBER_MAX) {
            let name = |number| Name::Snapshot { tag: SeriesTag::new([1; 16]), number, previous: Timestamp::EPOCH }.to_string();
            prop_assert_eq!(a.cmp(&b), name(a).cmp(&name(b)));
        }
    }

    #[test]
    fn garbage_is_refused() {
        let pack = Name::Pack(ObjectId::new([0xab; 32])).to_string();
        for wrong in [
            "",
            "Config",
            "config/",
            "config/x",
            "packs",
            "snapshots/00/1",
            &pack.replacen("ab/", "ac/", 1),
            &pack.to_uppercase(),
            &format!("{pack}/x"),
            &format!("/{pack}"),
            "snapshots/00000000000000000000000000000000/000000000000/000000000000000-0000000000000000",
            "snapshots/00000000000000000000000000000000/000000000000/00000000000001-0000000000000000",
            "snapshots/00000000000000000000000000000000/000000000001/000000000000001-0000000000000000",
            "snapshots/00000000000000000000000000000000/000000000000/000000000000001-ffffffffffffffff",
        ] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
    }
}
