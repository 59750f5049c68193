//! Writers: registering, and committing a snapshot under its number.
//!
//! Owns the order of steps on which safety rests (rules W1 to W7 of
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
//! Having registered, it looks for its number once more: if that is taken already,
//! or forgotten and freed again, it begins anew.
//!
//! A registration stands for its number and, while it lives, for those after
//! it: its writer commits again and again at one request each. To fence it, put
//! a tombstone at the series' next number: the writer notices when it loses it.
//!
//! A registration whose commit was issued only ends once the number is seen to be
//! decided, since a put that was given up can still land. It ends by adding an
//! object (see [`registered`]); one that is left behind by a crash stays until a
//! collection fences it.
//!
//! A collection waits for the registrations that may not know it. A writer that
//! lives long renews when it sees that one was begun, and its new registration
//! says which it has seen.

mod registered;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

#[cfg(fuzzing)]
pub(crate) use registered::open_end;
pub(crate) use registered::{
    EndRecord, EndToken, Registered, RegistrationRecord, clear_ended, open_registration, read_end, registered,
    still_running,
};

use crate::blobs::{Condemned, Parts};
use crate::clock::Timestamp;
use crate::codec::Extensions;
use crate::collection::{self, Known};
use crate::crypto::Kind;
use crate::error::{Error, Result};
use crate::id::{RecordHash, SeriesTag, WriterId};
use crate::kept::Kept;
use crate::layout::{CommitName, Name};
use crate::object;
use crate::snapshot::{Body, Content, Moment, Placed, Record, Snapshot, Timelines, open_record, validate_series};
use crate::store::Created;

/// How far a predecessor's time may lie after this machine's clock before a commit is refused, in seconds.
pub(crate) const AHEAD_MAX: i64 = 24 * 60 * 60;

/// How many numbers a commit contends for before it gives up.
pub(crate) const CONTESTS: u32 = 16;

/// How often a store may let a name be created twice before it is refused.
const SEMANTICS_TRIED: u32 = 3;

/// How many numbers a fence contends for before it gives up.
const FENCES: u32 = 64;

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
    /// What ends the registration.
    token: EndToken,
    /// The record before the number that is contended for.
    tip: Option<Tip>,
    /// The newest snapshot at or before the tip.
    parent: Option<Snapshot>,
    /// A commit that was issued and isn't known to have landed or to have lost.
    issued: Option<(CommitName, Bytes)>,
    /// The collections, as read after registering.
    known: Known,
    /// Whether another writer took the number, so that nothing may be created before a renewal.
    lost: bool,
}

/// What a record says to the one after it.
#[derive(Clone, Copy, Debug)]
struct Tip {
    name: CommitName,
    hash: RecordHash,
    /// When the newest snapshot that counts was committed, which the next must come after.
    time: Timestamp,
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
            token: EndToken::new(parts.surroundings.random()),
            parts,
            tip: None,
            parent: None,
            issued: None,
            known: Known::default(),
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
        self.known.condemned.clone()
    }

    /// The number of the last collection that was begun when it registered. While it stays the same from one
    /// registration to the next, what could be relied on under the one can be under the other.
    pub(crate) fn collection(&self) -> u64 {
        self.known.number
    }

    /// Whether a commit was issued and isn't settled: until it is, the registration stays and nothing else is committed.
    pub(crate) fn is_undecided(&self) -> bool {
        self.issued.is_some()
    }

    async fn register(&mut self) -> Result<()> {
        for attempt in 0..CONTESTS {
            // Which collection it has seen it says in its registration: one that was begun before needn't wait for it.
            let look = collection::look_at(&self.parts.store, &self.parts.keyring, &self.known);
            let (tip, seen) = futures::try_join!(self.newest_name(attempt == 0), look)?;
            let target = tip.map_or(Some(CommitName::first(self.tag)), |tip| tip.next());
            let target = target.ok_or_else(|| self.out_of_numbers())?;
            self.write_registration(target.number, seen.number).await?;
            let read = self.read_after_registering(tip, target, &seen).await;
            if matches!(read, Ok(true)) {
                return Ok(());
            }
            // Nothing was issued under it, so nothing can land late.
            self.add_end(&self.id, &self.token).await;
            self.draw_identity();
            match read {
                // The record that was the newest isn't any more, and was collected before it was read.
                Err(error) if error.is_not_found() => {}
                other => other.map(drop)?,
            }
        }
        let reason = format!("other writers took {CONTESTS} numbers in a row; run it again");
        Err(Error::conflict(format!("series {:?}", self.series), reason))
    }

    /// The name that the number to contend for follows; whoever finds that taken looks for it more thoroughly.
    async fn newest_name(&self, is_first: bool) -> Result<Option<CommitName>> {
        if is_first { self.timelines.tip_of_dense(&self.tag).await } else { Ok(self.timelines.tip(&self.tag).await?.0) }
    }

    fn draw_identity(&mut self) {
        self.id = WriterId::new(self.parts.surroundings.random());
        self.token = EndToken::new(self.parts.surroundings.random());
    }

    fn out_of_numbers(&self) -> Error {
        Error::invalid(format!("series {:?}", self.series), "its numbers have run out")
    }

    async fn write_registration(&self, number: u64, seen: u64) -> Result<()> {
        let name = Name::Writer(self.id).to_string();
        let time = self.parts.surroundings.clock.now();
        let (series, host) = (self.series.clone(), self.host.clone());
        let (ending, extensions) = (self.token.hash(), Extensions::default());
        let record = RegistrationRecord { series, number, time, host, seen, ending, extensions };
        let sealed =
            object::seal_record(&record, Kind::Registration, &name, &self.parts.keyring, &self.parts.surroundings)?;
        let sealed = Bytes::from(sealed);
        if self.parts.store.create(&name, sealed.clone()).await? == Created::Theirs {
            return Err(Error::conflict(name, "another writer registered under the same random name"));
        }
        if self.mode == WriterMode::Shared {
            let verdict = test_semantics(&self.parts, &name, sealed).await;
            if verdict.is_err() {
                self.add_end(&self.id, &self.token).await;
            }
            verdict?;
        }
        Ok(())
    }

    /// Reads the collections, then what still counts, then the parent: in this order, after registering.
    ///
    /// False if the number was taken before the registration. It may even have been forgotten since and be free again, so
    /// that it could be won and not count; then a list says something of it.
    async fn read_after_registering(
        &mut self,
        tip: Option<CommitName>,
        target: CommitName,
        seen: &Known,
    ) -> Result<bool> {
        let (store, keyring) = (&self.parts.store, &self.parts.keyring);
        let looked = async {
            let known = collection::look_at(store, keyring, seen).await?;
            Ok((known, self.timelines.kept(&self.tag).await?.kept))
        };
        let newest = async {
            match &tip {
                Some(name) => self.timelines.read(name).await.map(Some).map_err(nothing_follows),
                None => Ok(None),
            }
        };
        let taken = self.timelines.is_taken(&target);
        let ((known, kept), newest, is_taken) = futures::try_join!(looked, newest, taken)?;
        if is_taken || kept.through >= target.number {
            return Ok(false);
        }
        let (tip, parent) = match (tip, newest) {
            (Some(name), Some(placed)) => self.tip_and_parent(name, placed, &kept).await?,
            _ => (None, None),
        };
        // Only now, so that who tries again after a failure still sees that a collection came between.
        self.known = known;
        (self.tip, self.parent, self.lost) = (tip, parent, false);
        Ok(true)
    }

    /// What the next record says of the one before it, and the snapshot that it goes on from.
    async fn tip_and_parent(
        &self,
        name: CommitName,
        placed: Placed,
        kept: &Kept,
    ) -> Result<(Option<Tip>, Option<Snapshot>)> {
        let hash = placed.hash;
        let newest = placed.into_snapshot().filter(|_| kept.counts(name.number));
        let (newest, parent) = match newest {
            // What gives an older one back is no newer than that.
            Some(snapshot) if snapshot.origin.is_none() => (Some(snapshot.clone()), Some(snapshot)),
            // A tombstone changed nothing, and what was forgotten may be about to go.
            _ => {
                let looked = self.timelines.newest_and_latest(&self.tag, Some(Moment::Number(name.number)));
                looked.boxed().await?
            }
        };
        if let Some(newest) = &newest {
            self.require_past(newest)?;
        }
        let time = newest.map_or(Timestamp::EPOCH, |newest| newest.time);
        Ok((Some(Tip { name, hash, time }), parent))
    }

    /// Refuses to commit after a snapshot of the far future, which would put all that follow there, too.
    fn require_past(&self, newest: &Snapshot) -> Result<()> {
        let ahead = newest.time.seconds_since(self.parts.surroundings.clock.now());
        if ahead <= AHEAD_MAX {
            return Ok(());
        }
        let reason = format!(
            "it was committed {} hours after now; set this machine's clock right, or, if the other writer's was wrong, \
             forget that snapshot",
            ahead / 3600
        );
        Err(Error::invalid(newest, reason))
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
        let created = self.parts.store.create(&Name::Commit(target).to_string(), sealed.clone()).await?;
        self.issued = None;
        if created == Created::Theirs {
            self.lost = true;
            return Ok(None);
        }
        let placed = open_record(&sealed, &target, &self.parts.keyring)?;
        self.tip = Some(Tip { name: target, hash: placed.hash, time: placed.record.time });
        self.parent = placed.into_snapshot();
        Ok(self.parent.clone())
    }

    /// The record that makes `content` the snapshot after the tip, and its name.
    fn seal(&self, content: &Content) -> Result<(CommitName, Bytes)> {
        let target = match &self.tip {
            None => CommitName::first(self.tag),
            Some(tip) => tip.name.next().ok_or_else(|| self.out_of_numbers())?,
        };
        let clock = self.parts.surroundings.clock.now();
        let record = Record {
            series: self.series.clone(),
            number: target.number,
            time: self.tip.map_or(Timestamp::EPOCH, |tip| tip.time).next().max(clock),
            clock,
            predecessor: self.tip.map(|tip| tip.hash),
            body: Body::Snapshot(content.clone()),
            extensions: Extensions::default(),
        };
        let name = Name::Commit(target).to_string();
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
        let (id, token) = (self.id, self.token);
        // Until the new one is good, there is none to commit under.
        self.lost = true;
        self.draw_identity();
        let renewed = self.register().await;
        self.add_end(&id, &token).await;
        renewed
    }

    /// Ends the registration, unless a commit under it is undecided.
    pub(crate) async fn end(&self) {
        if !self.is_undecided() {
            self.add_end(&self.id, &self.token).await;
        }
    }

    /// Says that a registration has ended. One that doesn't only delays a collection, so a failure here isn't the writer's.
    async fn add_end(&self, id: &WriterId, token: &EndToken) {
        let name = Name::WriterEnd(*id).to_string();
        let Parts { store, keyring, surroundings, .. } = &self.parts;
        let end = EndRecord { token: *token, extensions: Extensions::default() };
        let added = match object::seal_record(&end, Kind::RegistrationEnd, &name, keyring, surroundings) {
            Ok(sealed) => store.create(&name, sealed.into()).await,
            Err(error) => Err(error),
        };
        match added {
            Ok(Created::Ours) => {}
            Ok(Created::Theirs) => {
                tracing::warn!(name, "something else is there; a collection will fence the registration")
            }
            Err(error) => tracing::warn!(%error, "could not end a registration; a collection will fence it"),
        }
    }
}

/// A record that can't be read stops its series: what follows would have to name its hash.
fn nothing_follows(error: Error) -> Error {
    match error {
        Error::Corrupt { object, reason } => Error::Corrupt {
            object,
            reason: format!("{reason}, so that nobody can continue its series before a repair"),
        },
        other => other,
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
        let (tip, newest) = timelines.tip(&tag).await?;
        let out_of_numbers = || Error::invalid(format!("series {series:?}"), "its numbers have run out");
        let (target, predecessor, after) = match tip {
            None => (CommitName::first(tag), None, Timestamp::EPOCH),
            Some(name) => {
                let placed = timelines.read(&name).await?;
                let (hash, after) = (placed.hash, timelines.newest_time(placed, &newest.kept).await?);
                (name.next().ok_or_else(out_of_numbers)?, Some(hash), after)
            }
        };
        // Not the clock's time: it may be wrong, and a tombstone must not push those after it into the future.
        let (number, time, clock) = (target.number, after.next(), parts.surroundings.clock.now());
        let (series, body, extensions) = (series.clone(), Body::Tombstone, Extensions::default());
        let record = Record { series, number, time, clock, predecessor, body, extensions };
        let name = Name::Commit(target).to_string();
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
