//! Going back through a series, from a moment or its end, record by record that counts.
//!
//! A bucket's names are listed when the walk gets there, and no more records
//! are read ahead than the caller asks for: what the newest few cost doesn't
//! depend on the length of the series. A time is searched for first.
//! Records that can't be used are put aside.

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, TryStreamExt};

use super::{Moment, Placed, Reached, Timelines};
use crate::error::Result;
use crate::id::SeriesTag;
use crate::kept::Kept;
use crate::layout::{BUCKET, CommitName};

/// Goes back through a series.
pub(crate) struct Walk {
    timelines: Timelines,
    tag: SeriesTag,
    /// What comes after isn't shown.
    until: Option<Moment>,
    /// What comes before is shown, but not read ahead.
    from: Option<Moment>,
    /// The buckets that weren't listed yet, the newest last; none before the series was.
    buckets: Option<Vec<u64>>,
    /// The highest number that is shown, once the series was listed.
    highest: u64,
    /// Which of them count.
    kept: Kept,
    /// The names in the bucket at hand whose records weren't begun, the newest last.
    names: Vec<CommitName>,
    /// Whether a record before `from` was shown.
    is_past: bool,
    reading: FuturesOrdered<BoxFuture<'static, Result<Option<Placed>>>>,
}

impl Walk {
    pub(super) fn new(timelines: Timelines, tag: SeriesTag, until: Option<Moment>, from: Option<Moment>) -> Self {
        let (buckets, names, kept, reading) = (None, Vec::new(), Kept::default(), FuturesOrdered::new());
        Self { timelines, tag, until, from, buckets, highest: u64::MAX, kept, names, is_past: false, reading }
    }

    /// The next older record that counts, tombstones included; up to `ahead` of them are being read at a time.
    pub(crate) async fn next(&mut self, ahead: usize) -> Result<Option<Placed>> {
        loop {
            if self.names.is_empty() && self.reading.is_empty() && !self.list().await? {
                return Ok(None);
            }
            self.begin(ahead.max(1));
            if let Some(Some(placed)) = self.reading.try_next().await? {
                let (number, time) = (placed.record.number, placed.record.time);
                self.is_past |= self.from.is_some_and(|from| from.compare(number, time).is_lt());
                return Ok(Some(placed));
            }
        }
    }

    /// Begins to read records of the bucket at hand.
    fn begin(&mut self, ahead: usize) {
        let ahead = if self.is_past { 1 } else { ahead };
        while self.reading.len() < ahead
            && let Some(name) = self.names.last().copied()
        {
            let is_before = matches!(self.from, Some(Moment::Number(from)) if name.number < from);
            if is_before && !self.reading.is_empty() {
                break;
            }
            self.names.pop();
            let timelines = self.timelines.clone();
            self.reading.push_back(async move { timelines.read_if_usable(&name).await }.boxed());
        }
    }

    /// Lists the next older bucket; false if there is none.
    async fn list(&mut self) -> Result<bool> {
        if self.buckets.is_none() {
            let Reached { mut buckets, newest, .. } = self.timelines.reached(&self.tag).await?;
            self.highest = match self.until {
                None => u64::MAX,
                Some(Moment::Number(number)) => number,
                Some(Moment::Time(time)) => {
                    // Boxed: few come here, and every walk would be as large.
                    let search = self.timelines.newest_at(&self.tag, &buckets, &newest.kept, time);
                    let first = search.boxed().await?;
                    let before = first.as_ref().map_or(0, |first| first.record.number - 1);
                    self.reading.extend(first.map(|first| std::future::ready(Ok(Some(first))).boxed()));
                    before
                }
            };
            buckets.retain(|bucket| *bucket <= self.highest / BUCKET);
            (self.kept, self.buckets) = (newest.kept, Some(buckets));
            if !self.reading.is_empty() {
                return Ok(true);
            }
        }
        let Some(bucket) = self.buckets.as_mut().and_then(Vec::pop) else { return Ok(false) };
        self.names = self.timelines.names_in(&self.tag, bucket).await?;
        self.names.retain(|name| name.number <= self.highest && self.kept.counts(name.number));
        Ok(true)
    }
}
