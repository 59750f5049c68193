//! All records of series by their names, with what says which of them count.

use std::collections::BTreeMap;

use futures::StreamExt;

use super::{CONCURRENCY, Timelines};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::SeriesTag;
use crate::kept::Newest;
use crate::layout::{self, CommitName, Name};

/// The records of series as a listing shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    /// The names of the records, by tag and number.
    pub(crate) names: Vec<CommitName>,
    /// Names with made-up numbers: thousands before them are missing, and no list says that they were forgotten.
    pub(crate) unreached: Vec<CommitName>,
    /// The newest lists of the series that have one.
    pub(crate) kept: BTreeMap<SeriesTag, Newest>,
}

impl Lines {
    /// Sorts names out by what the lists say.
    pub(crate) fn new(mut listed: Vec<CommitName>, kept: BTreeMap<SeriesTag, Newest>) -> Self {
        listed.sort_unstable();
        let mut lines = Self { kept, ..Self::default() };
        for names in listed.chunk_by(|a, b| a.tag == b.tag) {
            let mut buckets: Vec<u64> = names.iter().map(|name| name.number / layout::BUCKET).collect();
            buckets.dedup();
            let reached = lines.newest(&names[0].tag).kept.reach(&buckets);
            let (names, beyond): (Vec<_>, Vec<_>) =
                names.iter().copied().partition(|name| name.number / layout::BUCKET <= reached);
            lines.names.extend(names);
            lines.unreached.extend(beyond);
        }
        lines
    }

    /// The newest list of a series, which may be that of none.
    pub(crate) fn newest(&self, tag: &SeriesTag) -> Newest {
        self.kept.get(tag).cloned().unwrap_or_default()
    }

    /// Whether a snapshot counts, if it is one.
    pub(crate) fn counts(&self, name: &CommitName) -> bool {
        self.kept.get(&name.tag).is_none_or(|newest| newest.kept.counts(name.number))
    }

    /// Whether the data of a snapshot must be kept.
    pub(crate) fn is_root(&self, name: &CommitName, now: Timestamp) -> bool {
        self.kept.get(&name.tag).is_none_or(|newest| newest.kept.is_root(name.number, now))
    }

    /// The highest number of each series.
    pub(crate) fn highest(&self) -> BTreeMap<SeriesTag, u64> {
        self.names.iter().map(|name| (name.tag, name.number)).collect()
    }

    /// Whether a number of a series has a record.
    pub(crate) fn is_there(&self, tag: SeriesTag, number: u64) -> bool {
        self.names.binary_search(&CommitName { tag, number }).is_ok()
    }

    /// An error if a list can't be read: it may say that snapshots were forgotten.
    pub(crate) fn require_lists(&self) -> Result<()> {
        self.kept.iter().try_for_each(|(tag, newest)| newest.sound(tag).map(drop))
    }
}

impl Timelines {
    /// All records of a series, or of all, with what counts: two listings at once, and a read for each list.
    pub(crate) async fn lines(&self, tag: Option<&SeriesTag>) -> Result<Lines> {
        let (names, kept) = futures::try_join!(self.listed(tag), self.kept_of(tag))?;
        let mut lines = Lines::new(names, kept);
        if !lines.unreached.is_empty() {
            // What seems to be made up may follow what was forgotten and deleted while the names were listed.
            let names = lines.names.into_iter().chain(lines.unreached).collect();
            lines = Lines::new(names, self.kept_of(tag).await?);
        }
        for name in &lines.unreached {
            self.store.put_aside(Name::Commit(*name), Error::corrupt(Name::Commit(*name), UNREACHED));
        }
        Ok(lines)
    }
}

impl Timelines {
    /// An error if a record can be read that lies beyond thousands which aren't there: those may be lost, and not it be
    /// made up, so nothing that it needs may be deleted.
    pub(crate) async fn require_reached(&self, lines: &Lines) -> Result<()> {
        let read = |name: CommitName| async move { (name, self.read_if_there(&name).await) };
        let mut reading = futures::stream::iter(lines.unreached.iter().copied()).map(read).buffered(CONCURRENCY);
        while let Some((name, read)) = reading.next().await {
            match read {
                Ok(None) | Err(Error::Corrupt { .. }) => {}
                Ok(Some(_)) => {
                    let reason =
                        "it can be read, but thousands of numbers before it have no record; repair the repository";
                    return Err(Error::corrupt(Name::Commit(name), reason));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What is wrong with a name with a made-up number.
pub(crate) const UNREACHED: &str = "its number is made up: thousands of numbers before it have no record";
