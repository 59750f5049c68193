//! Finding snapshots by series, number and time.

use futures::{StreamExt, TryStreamExt};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::snapshot::{Snapshot, validate_series};

/// Series looked at concurrently.
const CONCURRENCY: usize = 16;

/// Which snapshot is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// The latest of all series; looks at every series.
    Latest,
    /// The latest of a series.
    LatestOf {
        /// The series' name.
        series: String,
    },
    /// One by its number.
    Number {
        /// The series' name.
        series: String,
        /// The snapshot's number in it, from 1.
        number: u64,
    },
    /// The latest that was committed at a time or before it.
    AtOrBefore {
        /// The series' name, or nothing for all of them.
        series: Option<String>,
        /// The time.
        time: Timestamp,
    },
}

impl Repository {
    /// All snapshots, or those of one series: by series, oldest first.
    ///
    /// Reads every record; to find one, [`Repository::find`] is cheaper.
    pub async fn snapshots(&self, series: Option<&str>) -> Result<Vec<Snapshot>> {
        let tag = match series {
            Some(series) => {
                validate_series(series)?;
                Some(self.keyring().series_tag(series))
            }
            None => None,
        };
        let mut snapshots = self.timelines().all(tag.as_ref()).await?;
        snapshots.sort_by(|a, b| (&a.series, a.number).cmp(&(&b.series, b.number)));
        Ok(snapshots)
    }

    /// Finds one snapshot: two listings and one read for a series, however many snapshots it has.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn find(&self, selector: &Selector) -> Result<Snapshot> {
        let (found, wanted) = match selector {
            Selector::Latest => (self.latest_of_all(None).await?, "a snapshot".to_owned()),
            Selector::LatestOf { series } => (self.latest_of(series, None).await?, format!("a snapshot of {series:?}")),
            Selector::Number { series, number } => {
                validate_series(series)?;
                let tag = self.keyring().series_tag(series);
                (self.timelines().numbered(&tag, *number).await?, format!("snapshot {series}#{number}"))
            }
            Selector::AtOrBefore { series: Some(series), time } => {
                (self.latest_of(series, Some(*time)).await?, format!("a snapshot of {series:?} at or before that time"))
            }
            Selector::AtOrBefore { series: None, time } => {
                (self.latest_of_all(Some(*time)).await?, "a snapshot at or before that time".to_owned())
            }
        };
        found.ok_or_else(|| Error::not_found(wanted))
    }

    async fn latest_of(&self, series: &str, time: Option<Timestamp>) -> Result<Option<Snapshot>> {
        validate_series(series)?;
        self.timelines().latest(&self.keyring().series_tag(series), time).await
    }

    async fn latest_of_all(&self, time: Option<Timestamp>) -> Result<Option<Snapshot>> {
        let tags = self.timelines().tags().await?;
        let latest: Vec<Option<Snapshot>> = futures::stream::iter(tags)
            .map(|tag| async move { self.timelines().latest(&tag, time).await })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(latest.into_iter().flatten().max_by_key(|snapshot| snapshot.time))
    }
}

#[cfg(test)]
mod tests;
