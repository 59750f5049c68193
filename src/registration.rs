//! Writers: registering, and committing a snapshot under its number.
//!
//! Owns the order of steps on which safety rests (rules 1 to 4 of
//! docs/format.md, "Writers and commits"). Two facts of the store carry it:
//! create-if-absent picks one winner for a name, and a listing or read shows
//! what was written before it began. No clock is trusted.
//!
//! ```text
//! list the series ──> register for number n ──> read gc/, kept/, the parent ──> store blobs ──> create n ──> end
//!                          ^                                                                      │ lost
//!                          └──────── register anew for the number after the winner's <────────────┘
//! ```
//! A registration whose commit was issued is only removed once the number is
//! seen to be decided, since a put that was given up can still land. One that
//! is left behind by a crash is removed by a later collection.

use std::sync::Arc;

use bytes::Bytes;

use crate::blobs::Parts;
use crate::clock::Timestamp;
use crate::codec::{Decode, Encode};
use crate::crypto::Kind;
use crate::error::{Error, Result};
use crate::id::{SeriesTag, WriterId};
use crate::layout::{self, Name, SnapshotName};
use crate::object;
use crate::snapshot::{Body, Content, Placed, Record, Snapshot, Timelines, open_record, validate_series};
use crate::store::Created;

/// How far a predecessor's time may lie after this machine's clock before a commit is refused, in seconds.
const AHEAD_MAX: i64 = 24 * 60 * 60;

/// How many numbers a commit contends for before it gives up.
const CONTESTS: u32 = 16;

/// What a registration says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RegistrationRecord {
    pub(crate) series: String,
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
    pub(crate) host: String,
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
    host: String,
    mode: WriterMode,
    id: WriterId,
    target: SnapshotName,
    predecessor: Option<Placed>,
}

impl Registration {
    /// Registers for the number after the series' newest, then reads what the writer may rely on.
    pub(crate) async fn begin(parts: Parts, series: &str, host: &str, mode: WriterMode) -> Result<Self> {
        validate_series(series)?;
        let timelines = Timelines::new(parts.store.clone(), Arc::clone(&parts.keyring));
        let tag = parts.keyring.series_tag(series);
        let mut writer = Self {
            id: WriterId::new(parts.surroundings.random()),
            parts,
            timelines,
            series: series.to_owned(),
            host: host.to_owned(),
            mode,
            target: SnapshotName::first(tag),
            predecessor: None,
        };
        writer.register(tag).await?;
        Ok(writer)
    }

    /// The id that the writer's packs carry.
    pub(crate) fn id(&self) -> WriterId {
        self.id
    }

    /// The newest snapshot of the series when the writer registered.
    pub(crate) fn parent(&self) -> Option<Snapshot> {
        self.predecessor.clone().and_then(Placed::into_snapshot)
    }

    async fn register(&mut self, tag: SeriesTag) -> Result<()> {
        let tip = self.timelines.tip(&tag).await?;
        let number = tip.map_or(Some(1), |tip| tip.next_number());
        let number =
            number.ok_or_else(|| Error::invalid(format!("series {:?}", self.series), "its numbers have run out"))?;
        self.write_registration(number).await?;

        let read = self.read_after_registering(tag, tip).await;
        if read.is_err() {
            // No commit was issued yet, so nothing can land late.
            self.end().await;
        }
        read
    }

    async fn write_registration(&self, number: u64) -> Result<()> {
        let name = Name::Writer(self.id).to_string();
        let time = self.parts.surroundings.clock.now();
        let record = RegistrationRecord { series: self.series.clone(), number, time, host: self.host.clone() };
        let sealed =
            object::seal_record(&record, Kind::Registration, &name, &self.parts.keyring, &self.parts.surroundings)?;
        let sealed = Bytes::from(sealed);
        if self.parts.store.create(&name, sealed.clone()).await? == Created::Theirs {
            return Err(Error::conflict(name, "another writer registered under the same random name"));
        }
        if self.mode == WriterMode::Shared {
            let verdict = test_semantics(&self.parts, &name, sealed).await;
            if verdict.is_err() {
                self.end().await;
            }
            verdict?;
        }
        Ok(())
    }

    /// Reads the collections, then what still counts, then the parent: in this order, after registering.
    async fn read_after_registering(&mut self, tag: SeriesTag, tip: Option<SnapshotName>) -> Result<()> {
        for prefix in [layout::COLLECTIONS.to_owned(), layout::kept_prefix(&tag)] {
            if let Some(found) = self.parts.store.list(&prefix).await?.first() {
                return Err(Error::unsupported(
                    &found.name,
                    "this build doesn't know what was collected; use a newer one",
                ));
            }
        }
        let Some(tip) = tip else {
            self.target = SnapshotName::first(tag);
            self.predecessor = None;
            return Ok(());
        };
        let predecessor = self.timelines.read(&tip).await?;
        let ahead = predecessor.record.time.seconds_since(self.parts.surroundings.clock.now());
        if ahead > AHEAD_MAX {
            return Err(Error::invalid(
                format!("{}#{}", self.series, tip.number),
                format!(
                    "it was committed {ahead} seconds after now; set this machine's clock right, or continue under \
                     another series if it was the other writer's that was wrong"
                ),
            ));
        }
        self.target = tip.next(predecessor.record.time).ok_or_else(|| Error::worker("snapshot numbers ran out"))?;
        self.predecessor = Some(predecessor);
        Ok(())
    }

    /// Creates the snapshot under its number, or under a later one when another writer takes it first.
    ///
    /// All blobs that `content` needs are stored. Consumes the registration: afterwards it is ended, or
    /// left for a collection where the outcome is unknown.
    pub(crate) async fn commit(mut self, content: Content) -> Result<Snapshot> {
        for _ in 0..CONTESTS {
            if let Some(snapshot) = self.contend(&content).await? {
                self.end().await;
                return Ok(snapshot);
            }
            self.renew().await?;
        }
        self.end().await;
        let series = format!("series {:?}", self.series);
        Err(Error::conflict(series, format!("other writers took {CONTESTS} numbers in a row; run it again")))
    }

    /// One attempt at one number: the snapshot if it is ours, nothing if it is another's.
    async fn contend(&self, content: &Content) -> Result<Option<Snapshot>> {
        let clock = self.parts.surroundings.clock.now();
        let previous = self.predecessor.as_ref().map(|placed| placed.record.time);
        let record = Record {
            series: self.series.clone(),
            number: self.target.number,
            time: previous.map_or(Timestamp::EPOCH, |time| time).next().max(clock),
            clock,
            predecessor: self.predecessor.as_ref().map(|placed| placed.hash),
            body: Body::Snapshot(content.clone()),
        };
        let name = Name::Snapshot(self.target).to_string();
        let sealed =
            match object::seal_record(&record, Kind::Snapshot, &name, &self.parts.keyring, &self.parts.surroundings) {
                Ok(sealed) if sealed.len() as u64 <= object::RECORD_MAX => Bytes::from(sealed),
                other => {
                    // No put was issued, so nothing can land late.
                    self.end().await;
                    let too_long = Error::invalid("the snapshot's record", "its paths and tags come to over 16 MiB");
                    return Err(other.err().unwrap_or(too_long));
                }
            };
        match self.parts.store.create(&name, sealed.clone()).await? {
            Created::Ours => Ok(open_record(&sealed, &self.target, &self.parts.keyring)?.into_snapshot()),
            Created::Theirs => Ok(None),
        }
    }

    /// Registers for the next number, checks what is relied on under it, and only then ends the old registration,
    /// whose number is decided.
    async fn renew(&mut self) -> Result<()> {
        let old = self.id;
        self.id = WriterId::new(self.parts.surroundings.random());
        let renewed = self.register(self.target.tag).await;
        self.remove(&old).await;
        renewed
    }

    /// Ends a registration under which no commit is undecided.
    pub(crate) async fn end(&self) {
        self.remove(&self.id).await;
    }

    /// Removes a registration. One that stays only delays a collection, so a failure here is not the writer's.
    async fn remove(&self, id: &WriterId) {
        if let Err(error) = self.parts.store.delete(&Name::Writer(*id).to_string()).await {
            tracing::warn!(%error, "could not end a registration; a later collection will");
        }
    }
}

/// Refuses a store that lets a name be created twice, as seen by creating `name` with the `body` that it has.
pub(crate) async fn test_semantics(parts: &Parts, name: &str, body: Bytes) -> Result<()> {
    let unsafe_store =
        |reason: &str| Error::UnsafeStore { store: parts.store.description().to_owned(), reason: reason.to_owned() };
    if parts.store.is_shared_file_system() {
        return Err(unsafe_store("it is on a network file system, whose clients can see each other's files late"));
    }
    if parts.store.refuses_to_overwrite(name, body).await? {
        Ok(())
    } else {
        Err(unsafe_store("it let the same name be created twice"))
    }
}

#[cfg(test)]
mod tests;
