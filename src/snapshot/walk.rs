//! Going back through a series, from a moment or its end, record by record that counts.
//!
//! A bucket's names are listed when the walk gets there, and no more records
//! are read ahead than the caller asks for: what the newest few cost doesn't
//! depend on the length of the series.

use std::cmp::Ordering;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, TryStreamExt};

use super::{Placed, Timelines};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::SeriesTag;
use crate::kept::Kept;
use crate::layout::{BUCKET, SnapshotName};

/// A place in a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// A snapshot's number.
    Number(u64),
    /// A time.
    Time(Timestamp),
}

impl Moment {
    /// How a record lies to this moment.
    pub(crate) fn compare(self, number: u64, time: Timestamp) -> Ordering {
        match self {
            Moment::Number(own) => number.cmp(&own),
            Moment::Time(own) => time.cmp(&own),
        }
    }
}

impl From<u64> for Moment {
    fn from(number: u64) -> Self {
        Moment::Number(number)
    }
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        Moment::Time(time)
    }
}

/// Goes back through a series.
pub(crate) struct Walk {
    timelines: Timelines,
    tag: SeriesTag,
    /// What comes after isn't shown.
    until: Option<Moment>,
    /// What comes before is shown, but not read ahead.
    from: Option<Moment>,
    /// The buckets that weren't listed yet, the newest last; none before the series was.
    buckets: Option<Vec<(u64, Timestamp)>>,
    /// Which of them count.
    kept: Kept,
    /// The names in the bucket at hand whose records weren't begun, the newest last.
    names: Vec<SnapshotName>,
    /// The time of the record before the one begun last.
    previous: Option<Timestamp>,
    reading: FuturesOrdered<BoxFuture<'static, Result<Option<Placed>>>>,
}

impl Walk {
    pub(super) fn new(timelines: Timelines, tag: SeriesTag, until: Option<Moment>, from: Option<Moment>) -> Self {
        let (buckets, names, previous, reading) = (None, Vec::new(), None, FuturesOrdered::new());
        Self { timelines, tag, until, from, buckets, kept: Kept::default(), names, previous, reading }
    }

    /// The next older record that counts, tombstones included; up to `ahead` of them are being read at a time.
    pub(crate) async fn next(&mut self, ahead: usize) -> Result<Option<Placed>> {
        loop {
            if self.names.is_empty() && self.reading.is_empty() && !self.list().await? {
                return Ok(None);
            }
            self.begin(ahead.max(1));
            match self.reading.try_next().await? {
                Some(Some(placed)) if self.is_shown(&placed) => return Ok(Some(placed)),
                _ => {}
            }
        }
    }

    /// A name says when its predecessor was made, not when its own record was.
    fn is_shown(&self, placed: &Placed) -> bool {
        self.until.is_none_or(|until| until.compare(placed.record.number, placed.record.time).is_le())
    }

    /// Begins to read records of the bucket at hand.
    fn begin(&mut self, ahead: usize) {
        while self.reading.len() < ahead
            && let Some(name) = self.names.last().copied()
        {
            let time = self.previous.unwrap_or(Timestamp::from_nanos(i64::MAX));
            let is_before = self.from.is_some_and(|from| from.compare(name.number, time).is_lt());
            if is_before && !self.reading.is_empty() {
                break;
            }
            self.names.pop();
            self.previous = Some(name.previous);
            let timelines = self.timelines.clone();
            self.reading.push_back(async move { timelines.read_if_there(&name).await }.boxed());
        }
    }

    /// Lists the next older bucket; false if there is none.
    async fn list(&mut self) -> Result<bool> {
        if self.buckets.is_none() {
            let (mut buckets, kept) =
                futures::try_join!(self.timelines.buckets(&self.tag), self.timelines.kept(&self.tag))?;
            self.kept = kept.kept;
            buckets.retain(|(bucket, before)| match self.until {
                None => true,
                Some(Moment::Number(number)) => *bucket <= number / BUCKET,
                // A bucket's first record is later than the one before the bucket, whose time the bucket's name gives.
                Some(Moment::Time(time)) => *before < time,
            });
            self.buckets = Some(buckets);
        }
        let Some(bucket) = self.buckets.as_ref().and_then(|buckets| buckets.last().copied()) else { return Ok(false) };
        self.names = self.timelines.names_in(&self.tag, bucket).await?;
        self.names.retain(|name| self.kept.counts(name.number));
        self.names.retain(|name| match self.until {
            None => true,
            Some(Moment::Number(number)) => name.number <= number,
            // Likewise a record whose predecessor isn't before the limit lies after it.
            Some(Moment::Time(time)) => name.previous < time,
        });
        self.buckets.as_mut().map(Vec::pop);
        Ok(true)
    }
}
