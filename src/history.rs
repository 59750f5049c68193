//! What happened to a path: the snapshots of a series that changed it.
//!
//! Consecutive snapshots are compared at the path, the newest first. A comparison
//! goes down only where their nodes differ, so a snapshot that left the path alone
//! costs its record and the nodes on the way that it rewrote for other reasons.
//!
//! Records and comparisons run ahead of what was asked for, by no more than was
//! looked at before and never by more than [`AHEAD`]; where a number of snapshots
//! is wanted, only for those that aren't found yet.

use std::pin::Pin;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesOrdered, Peekable};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};

use crate::error::Result;
use crate::repository::Repository;
use crate::snapshot::{Moment, Snapshot, Walk, validate_series};
use crate::tree::{self, Change, Key, Span};

/// Snapshots compared at a time, and records read ahead of that.
const AHEAD: usize = 32;

/// Changes in one revision.
const CHANGES_MAX: usize = 1000;

/// Leaves read ahead in a snapshot that isn't compared with another.
const LEAVES_AHEAD: usize = 4;

/// Which part of a history is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryOptions {
    /// Where it begins: this snapshot, or the first of this time or later, is the oldest.
    pub from: Option<Moment>,
    /// Where it ends: this snapshot, or the last of this time or earlier, is the newest.
    pub until: Option<Moment>,
    /// How many of the newest snapshots that changed the path.
    pub limit: Option<usize>,
}

impl HistoryOptions {
    /// Begins with this snapshot, or at this time.
    #[must_use]
    pub fn with_from(mut self, from: impl Into<Moment>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Ends with this snapshot, or at this time.
    #[must_use]
    pub fn with_until(mut self, until: impl Into<Moment>) -> Self {
        self.until = Some(until.into());
        self
    }

    /// Stops after so many snapshots that changed the path.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// What one snapshot changed at a path and below it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revision {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The differences to the snapshot before it, in the order of their keys; never empty, and at most a thousand.
    pub changes: Vec<Change>,
    /// Whether the next revision goes on with the same snapshot, which changed more than fits in this one.
    pub more: bool,
}

impl Repository {
    /// What the snapshots of a series changed at `path` and below it, the newest first.
    ///
    /// Each snapshot is compared with the one before it in the series, the first with nothing; those that changed
    /// nothing there don't appear. Costs a record for each snapshot that is looked at and what differs on the way to
    /// the path. Nothing older is read than what is taken from the stream needs, but for a bounded number of records
    /// and comparisons that run ahead; with [`HistoryOptions::limit`] not even these once enough was found.
    ///
    /// ```
    /// # use backstop::*; async fn f(repository: &Repository) -> Result<()> {
    /// use futures::TryStreamExt;
    ///
    /// let card = Key::from_path("users/ana/contacts/17.vcf")?;
    /// let newest = HistoryOptions::default().with_limit(10);
    /// let mut history = std::pin::pin!(repository.history("accounts", &card, &newest));
    /// while let Some(revision) = history.try_next().await? {
    ///     for change in &revision.changes {
    ///         println!("{} {}: {:?}", revision.snapshot, change.key, change.new.as_ref().map(|entry| entry.size));
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn history(
        &self,
        series: &str,
        path: &Key,
        options: &HistoryOptions,
    ) -> impl Stream<Item = Result<Revision>> + Send + use<> {
        let history = validate_series(series).map(|()| {
            let tag = self.keyring().series_tag(series);
            let walk = self.timelines().walk(&tag, options.until, options.from);
            History::new(self.clone(), walk, Span::subtree(path), options)
        });
        stream::once(std::future::ready(history))
            .map_ok(|history| {
                stream::try_unfold(history, async |mut history| Ok(history.next().await?.map(|item| (item, history))))
            })
            .try_flatten()
    }
}

/// A history under way.
struct History {
    repository: Repository,
    walk: Walk,
    span: Span,
    from: Option<Moment>,
    /// How many snapshots are still to be found.
    left: Option<usize>,
    /// A snapshot that waits for the one before it.
    newer: Option<Snapshot>,
    /// Whether all snapshots that are wanted have been read.
    read_all: bool,
    comparing: FuturesOrdered<BoxFuture<'static, Result<Option<Found>>>>,
    found: Option<Found>,
    /// How many comparisons were seen to end.
    seen: usize,
    /// How many of the last found nothing.
    in_vain: usize,
}

impl History {
    fn new(repository: Repository, walk: Walk, span: Span, options: &HistoryOptions) -> Self {
        Self {
            repository,
            walk,
            span,
            from: options.from,
            left: options.limit,
            newer: None,
            read_all: false,
            comparing: FuturesOrdered::new(),
            found: None,
            seen: 0,
            in_vain: 0,
        }
    }

    async fn next(&mut self) -> Result<Option<Revision>> {
        loop {
            if let Some(found) = self.found.take() {
                let (revision, rest) = found.next().await?;
                self.found = rest;
                return Ok(Some(revision));
            }
            if self.left == Some(0) {
                return Ok(None);
            }
            self.fill().await?;
            let Some(found) = self.comparing.try_next().await? else { return Ok(None) };
            self.seen += 1;
            match found {
                Some(found) => {
                    self.in_vain = 0;
                    self.left = self.left.map(|left| left - 1);
                    self.found = Some(found);
                }
                None => self.in_vain += 1,
            }
        }
    }

    /// How many more comparisons are worth beginning.
    fn ahead(&self) -> usize {
        // As many as could all be wanted, or as were in vain before: then more will be, and to wait for each takes long.
        let wanted = self.left.map_or(AHEAD, |left| left.saturating_sub(self.comparing.len()));
        wanted.max(self.in_vain).min((self.seen + 1).saturating_sub(self.comparing.len())).min(AHEAD)
    }

    /// Begins comparisons.
    async fn fill(&mut self) -> Result<()> {
        while !self.read_all && self.comparing.len() < AHEAD {
            let ahead = self.ahead();
            if ahead == 0 {
                break;
            }
            // The first comparison needs two records, each further one another.
            let older = self.next_snapshot(ahead + usize::from(self.newer.is_none())).await?;
            if let Some(newer) = self.newer.take() {
                let comparison = self.compare(newer, older.as_ref());
                self.comparing.push_back(comparison);
            }
            let is_before =
                |older: &Snapshot| self.from.is_some_and(|from| from.compare(older.number, older.time).is_lt());
            self.newer = older.filter(|older| !is_before(older));
            self.read_all = self.newer.is_none();
        }
        Ok(())
    }

    /// What `newer` changed on `older`, or on nothing.
    fn compare(&self, newer: Snapshot, older: Option<&Snapshot>) -> BoxFuture<'static, Result<Option<Found>>> {
        if older.is_some_and(|older| older.root == newer.root) {
            return std::future::ready(Ok(None)).boxed();
        }
        let rest = match older {
            Some(older) => {
                self.repository.reader_of(older);
                let reader = Arc::clone(self.repository.reader_of(&newer));
                tree::diff(reader, &older.root, &newer.root, self.span.clone())
            }
            None => {
                let reader = Arc::clone(self.repository.reader_of(&newer));
                let entries = tree::range(reader, &newer.root, self.span.clone(), LEAVES_AHEAD);
                entries.map_ok(|(key, entry)| Change { key, old: None, new: Some(entry) }).boxed()
            }
        };
        let mut found = Found { snapshot: newer, read: Vec::new(), rest: rest.peekable() };
        async move {
            found.read().await?;
            Ok((!found.read.is_empty()).then_some(found))
        }
        .boxed()
    }

    /// The next older snapshot, with up to `ahead` records being read.
    async fn next_snapshot(&mut self, ahead: usize) -> Result<Option<Snapshot>> {
        while let Some(placed) = self.walk.next(ahead).await? {
            if let Some(snapshot) = placed.into_snapshot() {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }
}

/// A snapshot that changed something, with the first changes read.
struct Found {
    snapshot: Snapshot,
    read: Vec<Change>,
    rest: Peekable<BoxStream<'static, Result<Change>>>,
}

impl Found {
    /// Reads as many changes as a revision holds.
    async fn read(&mut self) -> Result<()> {
        while self.read.len() < CHANGES_MAX
            && let Some(change) = self.rest.try_next().await?
        {
            self.read.push(change);
        }
        Ok(())
    }

    async fn next(mut self) -> Result<(Revision, Option<Self>)> {
        self.read().await?;
        let more = Pin::new(&mut self.rest).peek().await.is_some();
        let changes = std::mem::take(&mut self.read);
        let revision = Revision { snapshot: self.snapshot.clone(), changes, more };
        Ok((revision, more.then_some(self)))
    }
}

#[cfg(test)]
mod tests;
