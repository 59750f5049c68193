//! Snapshot records: what they say, and how a series' timeline is read.
//!
//! Owns the record's value and the reading of series. Committing is the
//! business of `registration`.
//!
//! A record is sealed as `object` describes, under its own name, so that no
//! record can be moved to another number or series. It holds the hash of its
//! predecessor's stored bytes: the newest record vouches for all before it.
//!
//! Invariant: numbers are handed out without gaps, and the times of those that
//! count increase with them, however the clocks of the writers stand. Which of them
//! still count says `kept`: the others aren't shown, and a collection deletes their
//! records.
//!
//! A record that doesn't open is put aside by whoever can do without it, and stops
//! the writers of its series, which would have to build upon it.

mod lines;
mod moment;
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
use crate::kept::{self, Kept, Newest};
use crate::layout::{self, CommitName, Name};
use crate::object;
use crate::store::Store;

pub(crate) use lines::{Lines, UNREACHED};
pub use moment::Moment;
pub(crate) use walk::Walk;

/// Records read at a time.
const CONCURRENCY: usize = 16;

/// So many made-up folders of a series are named; there may be any number.
const BEYOND_TOLD: usize = 8;

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
pub(crate) fn open_record(bytes: &[u8], name: &CommitName, keyring: &Keyring) -> Result<Placed> {
    let text = Name::Commit(*name).to_string();
    let record: Record = object::open_record(bytes, Kind::Snapshot, &text, keyring)?;
    let fits = record.number == name.number
        && validate_series(&record.series).is_ok()
        && keyring.series_tag(&record.series) == name.tag
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
        let folders = self.store.list_folders(layout::COMMITS).await?;
        let mut tags: Vec<_> = folders.iter().filter_map(|folder| layout::parse_series_prefix(folder)).collect();
        tags.sort_unstable();
        Ok(tags)
    }

    /// The name of a series' newest record, and what still counts: three listings, two of them at once.
    ///
    /// # Errors
    /// That of a list which can't be read, if it may be what says that numbers are missing before the newest.
    pub(crate) async fn tip(&self, tag: &SeriesTag) -> Result<(Option<CommitName>, Newest)> {
        let Reached { buckets, newest, is_cut } = self.reached(tag).await?;
        if is_cut {
            newest.sound(tag)?;
        }
        Ok((self.last_of(tag, buckets).await?, newest))
    }

    /// The newest name of a series: two listings one after the other, where nothing is missing between its buckets.
    ///
    /// A list that says that there must be more isn't looked at.
    pub(crate) async fn tip_of_dense(&self, tag: &SeriesTag) -> Result<Option<CommitName>> {
        let buckets = self.buckets(tag).await?;
        if !buckets.is_sorted_by(|bucket, next| bucket + 1 == *next) {
            return Ok(self.tip(tag).await?.0);
        }
        self.last_of(tag, buckets).await
    }

    async fn last_of(&self, tag: &SeriesTag, buckets: Vec<u64>) -> Result<Option<CommitName>> {
        for bucket in buckets.into_iter().rev() {
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
    /// tombstones or such are in the way, or snapshots were forgotten. A time takes three or four rounds of reads more.
    pub(crate) async fn latest(&self, tag: &SeriesTag, time: Option<Timestamp>) -> Result<Option<Snapshot>> {
        let (_, latest) = self.newest_and_latest(tag, time.map(Moment::Time)).await?;
        Ok(latest)
    }

    /// The newest snapshot of a series that counts, and the one of the highest place, from which its writers go on.
    pub(crate) async fn newest_and_latest(
        &self,
        tag: &SeriesTag,
        until: Option<Moment>,
    ) -> Result<(Option<Snapshot>, Option<Snapshot>)> {
        let mut walk = self.walk(tag, until, None);
        let (mut newest, mut latest) = (None, None::<Snapshot>);
        while let Some(placed) = walk.next(1).await? {
            let place = latest.as_ref().map_or(0, Snapshot::place);
            if placed.record.number < place {
                break;
            }
            let Some(snapshot) = placed.into_snapshot() else { continue };
            newest.get_or_insert_with(|| snapshot.clone());
            // What gives another back is no later than that.
            if snapshot.origin.is_none() && snapshot.number >= place {
                return Ok((newest, Some(snapshot)));
            }
            if latest.is_none() || snapshot.place() > place {
                latest = Some(snapshot);
            }
        }
        Ok((newest, latest))
    }

    /// When the newest snapshot was committed that counts, given the newest record of its series; 0 if there is none.
    pub(crate) async fn newest_time(&self, tip: Placed, kept: &Kept) -> Result<Timestamp> {
        let (tag, number) = (self.keyring.series_tag(&tip.record.series), tip.record.number);
        if let Some(snapshot) = tip.into_snapshot().filter(|_| kept.counts(number)) {
            return Ok(snapshot.time);
        }
        let (newest, _) = self.newest_and_latest(&tag, Some(Moment::Number(number))).await?;
        Ok(newest.map_or(Timestamp::EPOCH, |newest| newest.time))
    }

    /// Whether a number has a record, or anything else under its name.
    pub(crate) async fn is_taken(&self, name: &CommitName) -> Result<bool> {
        match self.store.length(&Name::Commit(*name).to_string()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Goes back through a series from `until`, or from its end, in order to stop once it has come to `from`.
    pub(crate) fn walk(&self, tag: &SeriesTag, until: Option<Moment>, from: Option<Moment>) -> Walk {
        Walk::new(self.clone(), *tag, until, from)
    }

    /// Snapshot `number` of a series, if it counts: one listing and one read, at once.
    pub(crate) async fn numbered(&self, tag: &SeriesTag, number: u64) -> Result<Option<Snapshot>> {
        let (kept, found) = futures::join!(self.kept(tag), self.recorded(tag, number));
        if kept?.kept.counts(number) { found } else { Ok(None) }
    }

    /// Snapshot `number` of a series, whether it counts or not.
    pub(crate) async fn recorded(&self, tag: &SeriesTag, number: u64) -> Result<Option<Snapshot>> {
        if !(1..=layout::NUMBER_MAX).contains(&number) {
            return Ok(None);
        }
        let name = CommitName { tag: *tag, number };
        Ok(self.read_if_there(&name).await?.and_then(Placed::into_snapshot))
    }

    /// The names of all records of a series, or of all series, in no order.
    async fn listed(&self, tag: Option<&SeriesTag>) -> Result<Vec<CommitName>> {
        let prefix = tag.map_or_else(|| layout::COMMITS.to_owned(), layout::series_prefix);
        let listed = self.store.list(&prefix).await?;
        Ok(listed.iter().filter_map(|listed| layout::parse_commit(&listed.name)).collect())
    }

    /// All snapshots of a series that count, or of all series, oldest first within each.
    pub(crate) async fn all(&self, tag: Option<&SeriesTag>) -> Result<Vec<Snapshot>> {
        let lines = self.lines(tag).await?;
        let counting: Vec<_> = lines.names.iter().filter(|name| lines.counts(name)).copied().collect();
        let placed: Vec<Option<Placed>> = futures::stream::iter(counting)
            .map(|name| async move { self.read_if_usable(&name).await })
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
    pub(crate) async fn read_if_there(&self, name: &CommitName) -> Result<Option<Placed>> {
        match self.read(name).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Reads one record that was listed; nothing if it isn't needed by now: neither does it count, nor can it be undeleted.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is needed and isn't there. A store may say so once of what is there, or it is lost; that
    /// it was deleted only a list can say.
    pub(crate) async fn read_needed(&self, name: &CommitName, now: Timestamp) -> Result<Option<Placed>> {
        match self.read(name).await {
            Err(error) if error.is_not_found() => {}
            other => return other.map(Some),
        }
        if self.kept(&name.tag).await?.kept.is_root(name.number, now) {
            return self.read(name).await.map(Some);
        }
        Ok(None)
    }

    /// Reads one record; nothing if it isn't there, or can't be used and is put aside.
    pub(crate) async fn read_if_usable(&self, name: &CommitName) -> Result<Option<Placed>> {
        match self.read_if_there(name).await {
            Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                self.store.put_aside(Name::Commit(*name), error);
                Ok(None)
            }
            other => other,
        }
    }

    /// Reads one record.
    pub(crate) async fn read(&self, name: &CommitName) -> Result<Placed> {
        let bytes = self.store.get(&Name::Commit(*name).to_string(), object::RECORD_MAX).await?;
        open_record(&bytes, name, &self.keyring)
    }

    /// The buckets of a series as far as its numbers reach, and what counts: two listings at once, and a read of the list.
    async fn reached(&self, tag: &SeriesTag) -> Result<Reached> {
        let (mut buckets, mut newest) = futures::try_join!(self.buckets(tag), self.kept(tag))?;
        let mut reached = newest.kept.reach(&buckets);
        if buckets.last().is_some_and(|last| *last > reached) {
            // What seems to be made up may follow what was forgotten and deleted while the folders were listed.
            newest = self.kept(tag).await?;
            reached = newest.kept.reach(&buckets);
        }
        let beyond = buckets.split_off(buckets.partition_point(|bucket| *bucket <= reached));
        let mut is_cut = false;
        for bucket in beyond.into_iter().take(BEYOND_TOLD) {
            if !self.store.keeps_empty_folders() || !self.names_in(tag, bucket).await?.is_empty() {
                let folder = layout::bucket_prefix(tag, bucket);
                self.store.put_aside(&folder, Error::corrupt(&folder, UNREACHED));
                is_cut = true;
            }
        }
        Ok(Reached { buckets, newest, is_cut })
    }

    /// The buckets of a series that are there, in order.
    async fn buckets(&self, tag: &SeriesTag) -> Result<Vec<u64>> {
        let folders = self.store.list_folders(&layout::series_prefix(tag)).await?;
        let mut buckets: Vec<_> =
            folders.iter().filter_map(|folder| layout::parse_bucket_prefix(tag, folder)).collect();
        buckets.sort_unstable();
        Ok(buckets)
    }

    /// The names in one bucket in order.
    async fn names_in(&self, tag: &SeriesTag, bucket: u64) -> Result<Vec<CommitName>> {
        let listed = self.store.list(&layout::bucket_prefix(tag, bucket)).await?;
        let mut names: Vec<_> = listed.iter().filter_map(|listed| layout::parse_commit(&listed.name)).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// How far a series goes.
struct Reached {
    /// The folders of its records, in order.
    buckets: Vec<u64>,
    newest: Newest,
    /// Whether there are others, beyond.
    is_cut: bool,
}

#[cfg(test)]
mod tests;
