//! Writers: registering, and committing a snapshot under its number.
//!
//! Owns the order of steps on which safety rests (rules 1 to 4 of
//! docs/format.md, "Writers and commits"). Two facts of the store carry it:
//! create-if-absent picks one winner for a name, and a listing or read shows
//! what was written before it began. No clock is trusted.
//!
//! ```text
//! list the series ──> register for number n ──> read gc/, kept/, the parent ──> store blobs ──> create n ──> end
//!                          ^                              ^                                         │  │ lost
//!                          │                              └─────────── go on with n + 1 <── won ────┘  │
//!                          └──────── register anew for the number after the winner's <────────────────┘
//! ```
//! Having registered, it lists the series once more: if its number is taken
//! already, it begins again.
//!
//! A registration stands for its number and, while it lives, for those after
//! it: its writer commits again and again at one request each. To fence it, put
//! a tombstone at the series' next number: the writer notices when it loses it.
//!
//! A registration whose commit was issued is only removed once the number is
//! seen to be decided, since a put that was given up can still land. One that
//! is left behind by a crash stays until a collection fences it.
//!
//! A collection waits for the registrations that may not know it. A writer that
//! lives long renews when it sees that one was begun, and its new registration
//! says which it has seen.

use std::sync::Arc;

use bytes::Bytes;

use crate::blobs::{Condemned, Parts};
use crate::clock::Timestamp;
use crate::codec::{Decode, Encode};
use crate::collection;
use crate::crypto::Kind;
use crate::error::{Error, Result};
use crate::id::{RecordHash, SeriesTag, WriterId};
use crate::layout::{Name, SnapshotName};
use crate::object;
use crate::snapshot::{Body, Content, Record, Snapshot, Timelines, open_record, validate_series};
use crate::store::Created;

/// How far a predecessor's time may lie after this machine's clock before a commit is refused, in seconds.
const AHEAD_MAX: i64 = 24 * 60 * 60;

/// How many numbers a commit contends for before it gives up.
pub(crate) const CONTESTS: u32 = 16;

/// How often a store may let a name be created twice before it is refused.
const SEMANTICS_TRIED: u32 = 3;

/// How many numbers a fence contends for before it gives up.
const FENCES: u32 = 64;

/// What a registration says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RegistrationRecord {
    pub(crate) series: String,
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
    pub(crate) host: String,
    /// The last collection that the writer had read before it registered; 0 if it hadn't looked.
    pub(crate) seen: u64,
}

/// Whether several writers may run at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriterMode {
    /// Any number of writers; the store must refuse to create a name twice.
    #[default]
    Shared,
    /// The caller sees to it that only one writer runs at a time, on a store that can't.
    Single,
}

/// A registered writer of one series.
pub(crate) struct Registration {
    parts: Parts,
    timelines: Timelines,
    series: String,
    tag: SeriesTag,
    host: String,
    mode: WriterMode,
    id: WriterId,
    /// The record before the number that is contended for.
    tip: Option<Tip>,
    /// The newest snapshot at or before the tip.
    parent: Option<Snapshot>,
    /// A commit that was issued and isn't known to have landed or to have lost.
    issued: Option<(SnapshotName, Bytes)>,
    /// The last collection, as read after registering.
    collection: u64,
    /// The last one that was read before.
    seen: u64,
    /// What it has condemned, if it is open.
    condemned: Condemned,
    /// Whether another writer took the number, so that nothing may be created before a renewal.
    lost: bool,
}

/// What a record says to the one after it.
#[derive(Clone, Copy, Debug)]
struct Tip {
    name: SnapshotName,
    time: Timestamp,
    hash: RecordHash,
}

impl Registration {
    /// Registers for the number after the series' newest, then reads what the writer may rely on.
    pub(crate) async fn begin(parts: Parts, series: &str, host: &str, mode: WriterMode) -> Result<Self> {
        validate_series(series)?;
        parts.store.require_writable()?;
        let mut writer = Self {
            timelines: Timelines::new(parts.store.clone(), Arc::clone(&parts.keyring)),
            series: series.to_owned(),
            tag: parts.keyring.series_tag(series),
            host: host.to_owned(),
            mode,
            id: WriterId::new(parts.surroundings.random()),
            parts,
            tip: None,
            parent: None,
            issued: None,
            collection: 0,
            seen: 0,
            condemned: Condemned::default(),
            lost: false,
        };
        writer.register().await?;
        Ok(writer)
    }

    /// The id that the writer's packs carry.
    pub(crate) fn id(&self) -> WriterId {
        self.id
    }

    /// The series that it writes to.
    pub(crate) fn series(&self) -> &str {
        &self.series
    }

    /// The newest snapshot of the series when the writer registered, renewed or last committed.
    pub(crate) fn parent(&self) -> Option<Snapshot> {
        self.parent.clone()
    }

    /// Packs that may be about to be deleted, so that nothing in them may be relied on.
    pub(crate) fn condemned(&self) -> Condemned {
        self.condemned.clone()
    }

    /// The number of the last collection that was begun when it registered. While it stays the same from one
    /// registration to the next, what could be relied on under the one can be under the other.
    pub(crate) fn collection(&self) -> u64 {
        self.collection
    }

    /// Whether a commit was issued and isn't settled: until it is, the registration stays and nothing else is committed.
    pub(crate) fn is_undecided(&self) -> bool {
        self.issued.is_some()
    }

    async fn register(&mut self) -> Result<()> {
        for _ in 0..CONTESTS {
            let tip = self.timelines.tip(&self.tag).await?;
            let number = tip.map_or(Some(1), |tip| tip.next_number());
            let number = number.ok_or_else(|| self.out_of_numbers())?;
            self.write_registration(number).await?;
            let read = self.read_after_registering(tip, number).await;
            if matches!(read, Ok(true)) {
                return Ok(());
            }
            // Nothing was issued under it, so nothing can land late.
            self.remove(&self.id).await;
            self.id = WriterId::new(self.parts.surroundings.random());
            match read {
                // The record that was the newest isn't any more, and was collected before it was read.
                Err(error) if error.is_not_found() => {}
                other => other.map(drop)?,
            }
        }
        let reason = format!("other writers took {CONTESTS} numbers in a row; run it again");
        Err(Error::conflict(format!("series {:?}", self.series), reason))
    }

    fn out_of_numbers(&self) -> Error {
        Error::invalid(format!("series {:?}", self.series), "its numbers have run out")
    }

    async fn write_registration(&self, number: u64) -> Result<()> {
        let name = Name::Writer(self.id).to_string();
        let time = self.parts.surroundings.clock.now();
        let (series, host, seen) = (self.series.clone(), self.host.clone(), self.seen);
        let record = RegistrationRecord { series, number, time, host, seen };
        let sealed =
            object::seal_record(&record, Kind::Registration, &name, &self.parts.keyring, &self.parts.surroundings)?;
        let sealed = Bytes::from(sealed);
        if self.parts.store.create(&name, sealed.clone()).await? == Created::Theirs {
            return Err(Error::conflict(name, "another writer registered under the same random name"));
        }
        if self.mode == WriterMode::Shared {
            let verdict = test_semantics(&self.parts, &name, sealed).await;
            if verdict.is_err() {
                self.remove(&self.id).await;
            }
            verdict?;
        }
        Ok(())
    }

    /// Reads the collections, then what still counts, then the parent: in this order, after registering.
    ///
    /// False if the number was taken before the registration: it may have been forgotten since, and be about to be
    /// freed, so that it could be won and not count. The highest number never is, so that it shows.
    async fn read_after_registering(&mut self, tip: Option<SnapshotName>, number: u64) -> Result<bool> {
        let (store, keyring) = (&self.parts.store, &self.parts.keyring);
        let collected = async {
            let collected = collection::condemned(store, keyring).await?;
            Ok((collected, self.timelines.kept(&self.tag).await?.kept))
        };
        let ((collected, kept), now) = futures::try_join!(collected, self.timelines.tip(&self.tag))?;
        if now.is_some_and(|now| now.number >= number) {
            return Ok(false);
        }
        let Some(name) = tip else {
            (self.collection, self.condemned) = collected;
            (self.tip, self.parent, self.lost) = (None, None, false);
            return Ok(true);
        };
        let newest = self.timelines.read(&name).await?;
        let time = newest.record.time;
        let ahead = time.seconds_since(self.parts.surroundings.clock.now());
        if ahead > AHEAD_MAX {
            return Err(Error::invalid(
                format!("{}#{}", self.series, name.number),
                format!(
                    "it was committed {ahead} seconds after now; set this machine's clock right, or continue under \
                     another series if it was the other writer's that was wrong"
                ),
            ));
        }
        let tip = Tip { name, time, hash: newest.hash };
        let goes_on = |snapshot: &Snapshot| kept.counts(name.number) && snapshot.origin.is_none();
        let parent = match newest.into_snapshot().filter(goes_on) {
            Some(snapshot) => Some(snapshot),
            // A tombstone changed nothing, what was forgotten may be about to go, and what gives an older one back is no
            // newer than that.
            None => self.timelines.latest(&self.tag, Some(time)).await?,
        };
        // Only now, so that who tries again after a failure still sees that a collection came between.
        (self.collection, self.condemned) = collected;
        (self.tip, self.parent, self.lost) = (Some(tip), parent, false);
        Ok(true)
    }

    /// One attempt at the next number, at one request: the snapshot if it is ours, nothing if another took it.
    ///
    /// All blobs that `content` needs are stored. After a success the registration goes on with the number after it,
    /// and the snapshot is the parent; after a loss nothing is created before [`Self::renew`].
    ///
    /// # Errors
    /// Nothing is known to be lost. Where [`Self::is_undecided`], the commit may have landed or land yet: the next
    /// call settles it, by creating the very same bytes again, and returns that snapshot, whatever `content` says.
    pub(crate) async fn contend(&mut self, content: &Content) -> Result<Option<Snapshot>> {
        if self.lost {
            return Ok(None);
        }
        let (target, sealed) = match &self.issued {
            Some(issued) => issued.clone(),
            None => self.seal(content)?,
        };
        // Kept from before the put on: this future may be dropped at any time, and the put lands all the same.
        self.issued = Some((target, sealed.clone()));
        #[cfg(test)]
        if crate::simulation::has(crate::simulation::Bug::UnknownMeansFailed) {
            self.issued = None;
        }
        let created = self.parts.store.create(&Name::Snapshot(target).to_string(), sealed.clone()).await?;
        self.issued = None;
        if created == Created::Theirs {
            self.lost = true;
            return Ok(None);
        }
        let placed = open_record(&sealed, &target, &self.parts.keyring)?;
        self.tip = Some(Tip { name: target, time: placed.record.time, hash: placed.hash });
        self.parent = placed.into_snapshot();
        Ok(self.parent.clone())
    }

    /// The record that makes `content` the snapshot after the tip, and its name.
    fn seal(&self, content: &Content) -> Result<(SnapshotName, Bytes)> {
        let target = match &self.tip {
            None => SnapshotName::first(self.tag),
            Some(tip) => tip.name.next(tip.time).ok_or_else(|| self.out_of_numbers())?,
        };
        let clock = self.parts.surroundings.clock.now();
        let record = Record {
            series: self.series.clone(),
            number: target.number,
            time: self.tip.map_or(Timestamp::EPOCH, |tip| tip.time).next().max(clock),
            clock,
            predecessor: self.tip.map(|tip| tip.hash),
            body: Body::Snapshot(content.clone()),
        };
        let name = Name::Snapshot(target).to_string();
        let sealed =
            object::seal_record(&record, Kind::Snapshot, &name, &self.parts.keyring, &self.parts.surroundings)?;
        if sealed.len() as u64 > object::RECORD_MAX {
            return Err(Error::invalid("the snapshot's record", "its paths and tags come to over 16 MiB"));
        }
        Ok((target, sealed.into()))
    }

    /// Registers for the next number, checks what is relied on under it, and only then ends the old registration,
    /// whose number is decided.
    pub(crate) async fn renew(&mut self) -> Result<()> {
        if self.is_undecided() {
            return Err(Error::worker("a registration was to be renewed whose commit is undecided"));
        }
        (self.seen, _) = collection::condemned(&self.parts.store, &self.parts.keyring).await?;
        let old = self.id;
        // Until the new one is good, there is none to commit under.
        self.lost = true;
        self.id = WriterId::new(self.parts.surroundings.random());
        let renewed = self.register().await;
        self.remove(&old).await;
        renewed
    }

    /// Ends the registration, unless a commit under it is undecided.
    pub(crate) async fn end(&self) {
        if !self.is_undecided() {
            self.remove(&self.id).await;
        }
    }

    /// Removes a registration. One that stays only delays a collection, so a failure here is not the writer's.
    async fn remove(&self, id: &WriterId) {
        if let Err(error) = self.parts.store.delete(&Name::Writer(*id).to_string()).await {
            tracing::warn!(%error, "could not end a registration; it stays until a collection takes it away");
        }
    }
}

/// Keeps a registration's writer from committing: puts a tombstone at its series' next number, which that is returned.
///
/// Every number before is decided, and the writer loses this one, however late its put comes.
pub(crate) async fn fence(parts: &Parts, registration: &RegistrationRecord) -> Result<u64> {
    let RegistrationRecord { series, .. } = registration;
    let tag = parts.keyring.series_tag(series);
    let timelines = Timelines::new(parts.store.clone(), Arc::clone(&parts.keyring));
    for _ in 0..FENCES {
        let before = match timelines.tip(&tag).await? {
            Some(name) => Some((name, timelines.read(&name).await?)),
            None => None,
        };
        let clock = parts.surroundings.clock.now();
        let (target, time, predecessor) = match &before {
            None => (Some(SnapshotName::first(tag)), Timestamp::EPOCH, None),
            Some((name, placed)) => (name.next(placed.record.time), placed.record.time, Some(placed.hash)),
        };
        let out_of_numbers = || Error::invalid(format!("series {series:?}"), "its numbers have run out");
        let target = target.ok_or_else(out_of_numbers)?;
        // Not the clock's time: it may be wrong, and a tombstone must not push those after it into the future.
        let (number, time) = (target.number, time.next());
        let record = Record { series: series.clone(), number, time, clock, predecessor, body: Body::Tombstone };
        let name = Name::Snapshot(target).to_string();
        let sealed = object::seal_record(&record, Kind::Snapshot, &name, &parts.keyring, &parts.surroundings)?;
        if parts.store.create(&name, sealed.into()).await? == Created::Ours {
            return Ok(number);
        }
    }
    Err(Error::conflict(
        format!("series {series:?}"),
        format!("its writers took {FENCES} numbers in a row; run it again"),
    ))
}

/// Refuses a store that lets a name be created twice, as seen by creating `name` with the `body` that it has.
pub(crate) async fn test_semantics(parts: &Parts, name: &str, body: Bytes) -> Result<()> {
    let unsafe_store =
        |reason: &str| Error::UnsafeStore { store: parts.store.description().to_owned(), reason: reason.to_owned() };
    if parts.store.is_shared_file_system() {
        return Err(unsafe_store("it is on a network file system, whose clients can see each other's files late"));
    }
    // A collection that fences this very writer may have taken it away in between, but not every time.
    for _ in 0..SEMANTICS_TRIED {
        if parts.store.refuses_to_overwrite(name, body.clone()).await? {
            return Ok(());
        }
    }
    Err(unsafe_store("it let the same name be created twice"))
}

#[cfg(test)]
mod tests;
