//! The names of stored objects: built and parsed here and nowhere else.
//!
//! ```text
//! commits/<32 hex>/<b>/<n>               n in 15 digits; b: n / 1000 in 12 digits
//! config
//! gc/<n>, gc/<n>-ended                   n in 15 digits
//! index/<64 hex>
//! kept/<32 hex>/<k>                      k in 15 digits
//! keys/<64 hex>
//! keys/roster-<n>-<32 hex>               n in 15 digits
//! packs/<2 hex>/<64 hex>                 the two digits repeat the id's first byte
//! probes/<32 hex>
//! writers/<32 hex>, writers/<32 hex>-ended
//! ```
//! The number alone is a commit's name, so create-if-absent picks one winner for
//! each number of a series, whatever anybody believes of the numbers before.
//!
//! Alphabetical order is the order to copy in: commits come first and packs after
//! all that names them, so that a copy made name by name beside writers has
//! everything that its commits need.
//!
//! Digits are padded so that names sort as numbers do. Each object has exactly
//! one spelling: what doesn't parse is not ours.
//!
//! To add a kind of object, add its prefix to [`PREFIXES`], a variant to [`Name`]
//! with both directions of its spelling, and a line to `docs/format.md`, section 2.
//! Choose a prefix that keeps the order to copy in. What a collector that doesn't
//! know the kind could harm needs a feature in the config as well.

use std::fmt;

use crate::id::{ObjectId, ProbeId, RosterTag, SeriesTag, WriterId};

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
/// The prefix of what tests of a store's rights write; nothing reads it.
pub(crate) const PROBES: &str = "probes";
/// The prefix of snapshot records.
pub(crate) const COMMITS: &str = "commits";
/// The prefix of lists of snapshots that still count.
pub(crate) const KEPT: &str = "kept";
/// The prefix of collections.
pub(crate) const COLLECTIONS: &str = "gc";

/// Every prefix; the config alone has none.
pub(crate) const PREFIXES: [&str; 8] = [COMMITS, COLLECTIONS, INDEX, KEPT, KEYS, PACKS, PROBES, WRITERS];

/// What the names of a collection's and of a registration's end end with.
const ENDED: &str = "-ended";

/// What the name of a roster begins with.
const ROSTER: &str = "roster-";

/// An object of the repository, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Name {
    Config,
    Key(ObjectId),
    /// Which key slots open the repository.
    Roster(u64, RosterTag),
    Pack(ObjectId),
    Index(ObjectId),
    Writer(WriterId),
    /// That a registration has ended.
    WriterEnd(WriterId),
    Probe(ProbeId),
    Commit(CommitName),
    /// Which snapshots of a series still count.
    Kept(SeriesTag, u64),
    /// What a collection is about to delete.
    Collection(u64),
    /// That it has done so.
    CollectionEnd(u64),
}

/// Where a snapshot record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CommitName {
    pub(crate) tag: SeriesTag,
    pub(crate) number: u64,
}

impl CommitName {
    /// The name of a series' first snapshot.
    pub(crate) fn first(tag: SeriesTag) -> Self {
        Self { tag, number: 1 }
    }

    /// The name of the next snapshot. Returns `None` when the numbers have run out.
    pub(crate) fn next(&self) -> Option<Self> {
        let number = self.number.checked_add(1).filter(|number| *number <= NUMBER_MAX)?;
        Some(Self { tag: self.tag, number })
    }
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
            (KEYS, Some(name)) => match name.strip_prefix(ROSTER) {
                Some(roster) => {
                    let (number, tag) = roster.split_once('-')?;
                    Name::Roster(parse_number(number)?, RosterTag::parse(tag)?)
                }
                None => Name::Key(ObjectId::parse(name)?),
            },
            (PACKS, Some(_)) => Name::Pack(ObjectId::parse(parts.next()?)?),
            (INDEX, Some(id)) => Name::Index(ObjectId::parse(id)?),
            (WRITERS, Some(id)) => match id.strip_suffix(ENDED) {
                Some(id) => Name::WriterEnd(WriterId::parse(id)?),
                None => Name::Writer(WriterId::parse(id)?),
            },
            (PROBES, Some(id)) => Name::Probe(ProbeId::parse(id)?),
            (KEPT, Some(tag)) => Name::Kept(SeriesTag::parse(tag)?, parse_number(parts.next()?)?),
            (COLLECTIONS, Some(number)) => match number.strip_suffix(ENDED) {
                Some(number) => Name::CollectionEnd(parse_number(number)?),
                None => Name::Collection(parse_number(number)?),
            },
            (COMMITS, Some(tag)) => {
                parts.next()?;
                Name::Commit(CommitName { tag: SeriesTag::parse(tag)?, number: parse_number(parts.next()?)? })
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
            Name::Roster(number, tag) => write!(f, "{KEYS}/{ROSTER}{number:015}-{tag}"),
            Name::Pack(id) => write!(f, "{PACKS}/{:02x}/{id}", id.as_bytes()[0]),
            Name::Index(id) => write!(f, "{INDEX}/{id}"),
            Name::Writer(id) => write!(f, "{WRITERS}/{id}"),
            Name::WriterEnd(id) => write!(f, "{WRITERS}/{id}{ENDED}"),
            Name::Probe(id) => write!(f, "{PROBES}/{id}"),
            Name::Kept(tag, number) => write!(f, "{}/{number:015}", kept_prefix(tag)),
            Name::Collection(number) => write!(f, "{COLLECTIONS}/{number:015}"),
            Name::CollectionEnd(number) => write!(f, "{COLLECTIONS}/{number:015}{ENDED}"),
            Name::Commit(CommitName { tag, number }) => {
                write!(f, "{}/{number:015}", bucket_prefix(tag, number / BUCKET))
            }
        }
    }
}

/// The pack that an object of this name is.
pub(crate) fn parse_pack(text: &str) -> Option<ObjectId> {
    match Name::parse(text) {
        Some(Name::Pack(id)) => Some(id),
        _ => None,
    }
}

/// The index segment that an object of this name is.
pub(crate) fn parse_segment(text: &str) -> Option<ObjectId> {
    match Name::parse(text) {
        Some(Name::Index(id)) => Some(id),
        _ => None,
    }
}

/// The snapshot record that an object of this name is.
pub(crate) fn parse_commit(text: &str) -> Option<CommitName> {
    match Name::parse(text) {
        Some(Name::Commit(name)) => Some(name),
        _ => None,
    }
}

/// Reads the number of a sequence, however many digits it has.
fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number))
}

/// The folder of a series' snapshots.
pub(crate) fn series_prefix(tag: &SeriesTag) -> String {
    format!("{COMMITS}/{tag}")
}

/// The folder of a series' snapshots from `1000 * bucket` on.
pub(crate) fn bucket_prefix(tag: &SeriesTag, bucket: u64) -> String {
    format!("{COMMITS}/{tag}/{bucket:012}")
}

/// The series that a folder directly under [`COMMITS`] belongs to.
pub(crate) fn parse_series_prefix(text: &str) -> Option<SeriesTag> {
    SeriesTag::parse(text.strip_prefix(COMMITS)?.strip_prefix('/')?)
}

/// The bucket that a folder directly under a series' folder is.
pub(crate) fn parse_bucket_prefix(tag: &SeriesTag, text: &str) -> Option<u64> {
    let bucket = text.strip_prefix(&series_prefix(tag))?.strip_prefix('/')?.parse().ok()?;
    (bucket_prefix(tag, bucket) == text && bucket <= NUMBER_MAX / BUCKET).then_some(bucket)
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
            (1..=NUMBER_MAX, any::<[u8; 16]>()).prop_map(|(number, tag)| Name::Roster(number, RosterTag::new(tag))),
            id.clone().prop_map(Name::Pack),
            id.prop_map(Name::Index),
            any::<[u8; 16]>().prop_map(|id| Name::Writer(WriterId::new(id))),
            any::<[u8; 16]>().prop_map(|id| Name::Probe(ProbeId::new(id))),
            (any::<[u8; 16]>(), 1..=NUMBER_MAX).prop_map(|(tag, number)| Name::Kept(SeriesTag::new(tag), number)),
            (1..=NUMBER_MAX).prop_map(Name::Collection),
            (1..=NUMBER_MAX).prop_map(Name::CollectionEnd),
            any::<[u8; 16]>().prop_map(|id| Name::WriterEnd(WriterId::new(id))),
            (any::<[u8; 16]>(), 1..=NUMBER_MAX)
                .prop_map(|(tag, number)| Name::Commit(CommitName { tag: SeriesTag::new(tag), number })),
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
        fn commits_sort_by_number(a in 1..=NUMBER_MAX, b in 1..=NUMBER_MAX) {
            let name = |number| Name::Commit(CommitName { number, tag: SeriesTag::new([1; 16]) }).to_string();
            prop_assert_eq!(a.cmp(&b), name(a).cmp(&name(b)));
        }
    }

    #[test]
    fn what_names_others_is_copied_before_them() {
        assert!(PREFIXES.is_sorted(), "a plain copier goes by the alphabet");
        let place = |prefix| PREFIXES.iter().position(|other| *other == prefix).unwrap();
        assert!(place(COMMITS) == 0 && place(COMMITS) < place(INDEX) && place(INDEX) < place(PACKS));
    }

    #[test]
    fn garbage_is_refused() {
        let pack = Name::Pack(ObjectId::new([0xab; 32])).to_string();
        for wrong in [
            "",
            "Config",
            "config/",
            "config/x",
            "keys/roster-000000000000000-00000000000000000000000000000000",
            "keys/roster-1-00000000000000000000000000000000",
            "keys/roster-000000000000001",
            "packs",
            "commits/00/1",
            &pack.replacen("ab/", "ac/", 1),
            &pack.to_uppercase(),
            &format!("{pack}/x"),
            &format!("/{pack}"),
            "gc/000000000000000",
            "kept/00000000000000000000000000000000/000000000000000",
            "kept/000000000000001",
            "gc/1",
            "gc/000000000000001-",
            "gc/000000000000001-ended-ended",
            "commits/00000000000000000000000000000000/000000000000/000000000000000",
            "commits/00000000000000000000000000000000/000000000000/00000000000001",
            "commits/00000000000000000000000000000000/000000000001/000000000000001",
            "commits/00000000000000000000000000000000/000000000000/000000000001000",
            "commits/00000000000000000000000000000000/000000000000/000000000000001-0000000000000000",
            "commits/00000000000000000000000000000000/000000000000000001/000000000000001",
            "writers/00000000000000000000000000000000-",
            "writers/00000000000000000000000000000000-ended-ended",
        ] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
    }
}
