//! Snapshot records: what they say, and how a series' timeline is read.
//!
//! Owns the record's value and the reading of series. Committing is the
//! business of `registration`.
//!
//! A record is sealed as `object` describes, under its own name, so that no
//! record can be moved to another number or series. It holds the hash of its
//! predecessor's stored bytes: the newest record vouches for all before it.
//!
//! Invariant: numbers are handed out without gaps, and times increase with
//! them, however the clocks of the writers stand. Which of them still count says
//! `kept`: the others aren't shown, and a collection deletes their records.

mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::blobs::Stored;
use crate::clock::Timestamp;
use crate::codec::{Decode, Encode, Extended, Extensions};
use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::{BlobId, RecordHash, SeriesTag};
use crate::kept::{self, Newest};
use crate::layout::{self, Name, SnapshotName};
use crate::object;
use crate::store::Store;

pub use walk::Moment;
pub(crate) use walk::Walk;

/// Records read at a time.
const CONCURRENCY: usize = 16;

/// How many failures a record names; beyond them it only counts.
pub(crate) const FAILURES_MAX: usize = 1000;

/// The longest name of a series, in bytes.
const SERIES_MAX: usize = 1024;

/// What could not be backed up or restored, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub struct Failure {
    /// The path, with bytes that aren't UTF-8 replaced.
    pub path: String,
    /// The error, with its causes.
    pub reason: String,
}

impl Failure {
    /// Describes `error` and everything that caused it.
    pub(crate) fn new(path: impl fmt::Display, error: &dyn std::error::Error) -> Self {
        let causes: Vec<String> =
            std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect();
        Self { path: path.to_string(), reason: causes.join(": ") }
    }
}

/// What a snapshot holds and what making it took.
///
/// A [`crate::Writer`] and a [`crate::Feed`] look at nothing but what changes: in their snapshots all entries count as
/// files, `bytes` and `bytes_read` are 0, and an entry that is put several times in a commit of many MiB may count as
/// often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub struct SnapshotStats {
    /// Regular files in the snapshot.
    pub files: u64,
    /// Folders in the snapshot.
    pub folders: u64,
    /// Symlinks, fifos, sockets and device nodes in the snapshot.
    pub others: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Entries that the parent doesn't have.
    pub added: u64,
    /// Entries that differ from the parent's.
    pub changed: u64,
    /// Entries of the parent that are gone.
    pub removed: u64,
    /// Bytes that were read from the source.
    pub bytes_read: u64,
    /// Blobs that weren't in the repository before.
    pub new_blobs: u64,
    /// Their length before compression.
    pub new_bytes: u64,
    /// What they take up in the store.
    pub stored_bytes: u64,
}

/// The snapshot that another gives back: one that was undeleted, or what a repair could save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub struct Origin {
    /// Its number in the same series.
    pub number: u64,
    /// When it was committed.
    pub time: Timestamp,
}

/// A point in time of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The series it belongs to.
    pub series: String,
    /// Its number in the series, from 1.
    pub number: u64,
    /// When it was committed: the writer's clock, or just after the predecessor if that is later.
    pub time: Timestamp,
    /// What the writer's clock said.
    pub clock: Timestamp,
    /// The hash of its stored record; keep it to notice when a store hides newer records.
    pub hash: RecordHash,
    /// The hash of the record before it.
    pub predecessor: Option<RecordHash>,
    /// The machine that made it.
    pub host: String,
    /// The application's labels.
    pub tags: BTreeMap<String, String>,
    /// The paths that were backed up.
    pub paths: Vec<String>,
    /// The application's own position in what it backs up, say a log sequence number.
    pub position: Option<Vec<u8>>,
    /// The root of its tree.
    pub root: BlobId,
    /// Number of entries in its tree.
    pub entries: u64,
    /// The number of the snapshot it was compared with.
    pub parent: Option<u64>,
    /// The snapshot that it gives back, if it was made for that.
    pub origin: Option<Origin>,
    /// What it holds and what it took.
    pub stats: SnapshotStats,
    /// What could not be read; at most a thousand are named.
    pub failures: Vec<Failure>,
    /// How many could not be read in all.
    pub failure_count: u64,
    /// Where its blobs are, as far as no index segment says it.
    pub(crate) stored: Stored,
}

impl Snapshot {
    /// Where it stands in the series: its number, or that of the snapshot which it gives back. The latest of a series,
    /// from which its writers go on, is the one of the highest place.
    pub fn place(&self) -> u64 {
        self.origin.map_or(self.number, |origin| origin.number)
    }

    /// Whether something could not be read, so that the snapshot lacks it.
    pub fn is_partial(&self) -> bool {
        self.failure_count > 0
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.series, self.number)
    }
}

/// A record as stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Record {
    pub(crate) series: String,
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
    pub(crate) clock: Timestamp,
    pub(crate) predecessor: Option<RecordHash>,
    pub(crate) body: Body,
    pub(crate) extensions: Extensions,
}

impl Extended for Record {
    fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

/// What a number was used for.
#[expect(clippy::large_enum_variant, reason = "most are the large one")]
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Body {
    /// Nothing: whoever contended for the number has been fenced.
    Tombstone,
    Snapshot(Content),
}

/// What a snapshot says beside its place in the series.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Content {
    pub(crate) host: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) paths: Vec<String>,
    pub(crate) position: Option<Vec<u8>>,
    pub(crate) root: BlobId,
    pub(crate) entries: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) origin: Option<Origin>,
    pub(crate) stats: SnapshotStats,
    pub(crate) failures: Vec<Failure>,
    pub(crate) failure_count: u64,
    pub(crate) stored: Stored,
}

/// A record with its place in the store.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) hash: RecordHash,
    pub(crate) record: Record,
}

impl Placed {
    /// The snapshot, unless the number was only fenced.
    pub(crate) fn into_snapshot(self) -> Option<Snapshot> {
        let Record { series, number, time, clock, predecessor, body, .. } = self.record;
        let Body::Snapshot(content) = body else { return None };
        let (failures, failure_count, stored) = (content.failures, content.failure_count, content.stored);
        let Content { host, tags, paths, position, root, entries, parent, origin, stats, .. } = content;
        let hash = self.hash;
        Some(Snapshot {
            series,
            number,
            time,
            clock,
            hash,
            predecessor,
            host,
            tags,
            paths,
            position,
            root,
            entries,
            parent,
            origin,
            stats,
            failures,
            failure_count,
            stored,
        })
    }
}

/// Refuses names that no series can have.
pub(crate) fn validate_series(series: &str) -> Result<()> {
    let sound = !series.is_empty() && series.len() <= SERIES_MAX && !series.contains(['#', '@', '\0', '\n']);
    if sound {
        Ok(())
    } else {
        Err(Error::invalid(
            format!("series {series:?}"),
            format!("a name has 1 to {SERIES_MAX} bytes and none of '#', '@', line breaks and NUL"),
        ))
    }
}

/// Opens a record and checks that it says what its name says.
pub(crate) fn open_record(bytes: &[u8], name: &SnapshotName, keyring: &Keyring) -> Result<Placed> {
    let text = Name::Snapshot(*name).to_string();
    let record: Record = object::open_record(bytes, Kind::Snapshot, &text, keyring)?;
    let fits = record.number == name.number
        && keyring.series_tag(&record.series) == name.tag
        && record.time > name.previous
        && record.predecessor.is_some() == (record.number > 1);
    if !fits {
        return Err(Error::corrupt(text, "it says something else than its name"));
    }
    Ok(Placed { hash: RecordHash::new(*blake3::hash(bytes).as_bytes()), record })
}

/// Reads the series of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Timelines {
    store: Store,
    keyring: Arc<Keyring>,
}

impl Timelines {
    /// Over all series of a repository.
    pub(crate) fn new(store: Store, keyring: Arc<Keyring>) -> Self {
        Self { store, keyring }
    }

    /// The folders of all series.
    pub(crate) async fn tags(&self) -> Result<Vec<SeriesTag>> {
        let folders = self.store.list_folders(layout::SNAPSHOTS).await?;
        let mut tags: Vec<_> = folders.iter().filter_map(|folder| layout::parse_series_prefix(folder)).collect();
        tags.sort_unstable();
        Ok(tags)
    }

    /// The name of a series' newest record: two listings.
    pub(crate) async fn tip(&self, tag: &SeriesTag) -> Result<Option<SnapshotName>> {
        for bucket in self.buckets(tag).await?.into_iter().rev() {
            if let Some(name) = self.names_in(tag, bucket).await?.pop() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Which snapshots of a series still count.
    pub(crate) async fn kept(&self, tag: &SeriesTag) -> Result<Newest> {
        kept::newest(&self.store, &self.keyring, tag).await
    }

    /// The newest snapshot of a series that counts, at or before `time` or of all times.
    ///
    /// What gives another back stands in that one's place. Three listings, two of them at once, and one read, unless
    /// tombstones or such are in the way, or snapshots were forgotten.
    pub(crate) async fn latest(&self, tag: &SeriesTag, time: Option<Timestamp>) -> Result<Option<Snapshot>> {
        let mut walk = self.walk(tag, time.map(Moment::Time), None);
        let mut latest: Option<Snapshot> = None;
        while let Some(placed) = walk.next(1).await? {
            let place = latest.as_ref().map_or(0, Snapshot::place);
            if placed.record.number < place {
                break;
            }
            latest = match placed.into_snapshot() {
                // What gives another back is no later than that.
                Some(snapshot) if snapshot.origin.is_none() && snapshot.number >= place => return Ok(Some(snapshot)),
                Some(snapshot) if latest.is_none() || snapshot.place() > place => Some(snapshot),
                _ => latest,
            };
        }
        Ok(latest)
    }

    /// Goes back through a series from `until`, or from its end, in order to stop once it has come to `from`.
    pub(crate) fn walk(&self, tag: &SeriesTag, until: Option<Moment>, from: Option<Moment>) -> Walk {
        Walk::new(self.clone(), *tag, until, from)
    }

    /// Snapshot `number` of a series, if it counts.
    pub(crate) async fn numbered(&self, tag: &SeriesTag, number: u64) -> Result<Option<Snapshot>> {
        let (kept, found) = futures::try_join!(self.kept(tag), self.recorded(tag, number))?;
        Ok(found.filter(|_| kept.kept.counts(number)))
    }

    /// Snapshot `number` of a series, whether it counts or not.
    pub(crate) async fn recorded(&self, tag: &SeriesTag, number: u64) -> Result<Option<Snapshot>> {
        let wanted = number / layout::BUCKET;
        for bucket in self.buckets(tag).await?.into_iter().filter(|(bucket, _)| *bucket == wanted) {
            if let Some(name) = self.names_in(tag, bucket).await?.into_iter().find(|name| name.number == number) {
                return Ok(self.read_if_there(&name).await?.and_then(Placed::into_snapshot));
            }
        }
        Ok(None)
    }

    /// The names of all records of a series, or of all series, by tag and number.
    pub(crate) async fn names(&self, tag: Option<&SeriesTag>) -> Result<Vec<SnapshotName>> {
        let prefix = tag.map_or_else(|| layout::SNAPSHOTS.to_owned(), layout::series_prefix);
        let listed = self.store.list(&prefix).await?;
        let mut names: Vec<_> = listed.iter().filter_map(|listed| parse_snapshot(&listed.name)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// All snapshots of a series that count, or of all series, oldest first within each.
    pub(crate) async fn all(&self, tag: Option<&SeriesTag>) -> Result<Vec<Snapshot>> {
        let (names, kept) = futures::try_join!(self.names(tag), self.kept_of(tag))?;
        let counts = |name: &SnapshotName| kept.get(&name.tag).is_none_or(|newest| newest.kept.counts(name.number));
        let placed: Vec<Option<Placed>> = futures::stream::iter(names.into_iter().filter(counts))
            .map(|name| async move { self.read_if_there(&name).await })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(placed.into_iter().flatten().filter_map(Placed::into_snapshot).collect())
    }

    /// Which snapshots of a series, or of all, still count.
    pub(crate) async fn kept_of(&self, tag: Option<&SeriesTag>) -> Result<BTreeMap<SeriesTag, Newest>> {
        match tag {
            Some(tag) => Ok(BTreeMap::from([(*tag, self.kept(tag).await?)])),
            None => kept::newest_of_all(&self.store, &self.keyring).await,
        }
    }

    /// Reads one record, unless it was deleted since it was listed: then it didn't count any more.
    pub(crate) async fn read_if_there(&self, name: &SnapshotName) -> Result<Option<Placed>> {
        match self.read(name).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Reads one record.
    pub(crate) async fn read(&self, name: &SnapshotName) -> Result<Placed> {
        let bytes = self.store.get(&Name::Snapshot(*name).to_string(), object::RECORD_MAX).await?;
        open_record(&bytes, name, &self.keyring)
    }

    /// The buckets of a series in order, each with the time of the snapshot before it.
    async fn buckets(&self, tag: &SeriesTag) -> Result<Vec<(u64, Timestamp)>> {
        let folders = self.store.list_folders(&layout::series_prefix(tag)).await?;
        let mut buckets: Vec<_> =
            folders.iter().filter_map(|folder| layout::parse_bucket_prefix(tag, folder)).collect();
        buckets.sort_unstable();
        Ok(buckets)
    }

    /// The names in one bucket in order.
    async fn names_in(&self, tag: &SeriesTag, (bucket, before): (u64, Timestamp)) -> Result<Vec<SnapshotName>> {
        let listed = self.store.list(&layout::bucket_prefix(tag, bucket, before)).await?;
        let mut names: Vec<_> = listed.iter().filter_map(|listed| parse_snapshot(&listed.name)).collect();
        names.sort_unstable_by_key(|name| name.number);
        Ok(names)
    }
}

fn parse_snapshot(name: &str) -> Option<SnapshotName> {
    match Name::parse(name) {
        Some(Name::Snapshot(name)) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
