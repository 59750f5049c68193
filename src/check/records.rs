//! Verifies what stands by itself: config, key slots, snapshot records, registrations.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};

use crate::check::findings::{FindingKind, Findings, Trouble};
use crate::clock::Timestamp;
use crate::collection;
use crate::config::{CONFIG_MAX, Config};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId, RecordHash, SeriesTag};
use crate::kept::{self, Kept, Newest};
use crate::layout::{self, CommitName, Name};
use crate::registration::{RegistrationRecord, read_end, registered};
use crate::repository::Repository;
use crate::roster::{ROSTER_MAX, Roster};
use crate::slot::{SLOT_MAX, Slot};
use crate::snapshot::{Body, Content, Lines, Placed, UNREACHED};

/// Records read at a time.
const CONCURRENCY: usize = 16;

/// What is said of a list or a collection that counts for nothing: it takes a secret to seal one.
const UNSIGNED: &str = "this repository's administrator didn't sign it, so it counts for nothing; somebody who has one of \
                        the repository's secrets put it there: find out who, then delete it with the store's tools";

/// What is said of a roster that counts for nothing: it is in the clear.
const UNSIGNED_ROSTER: &str = "this repository's administrator didn't sign it, so it counts for nothing; somebody who can \
                               write to the store put it there: find out who, then delete it with the store's tools";

/// What is said of a registration's end that counts for nothing.
const NOT_THE_WRITERS: &str = "it isn't by the writer that registered, so it ends nothing, and a collection has to fence that \
                               writer; somebody who has one of the repository's secrets put it there: find out who, then \
                               delete it with the store's tools";

/// A snapshot whose record is sound.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// How it is called: `series#number`.
    pub(super) label: String,
    pub(super) series: String,
    pub(super) record: CommitName,
    pub(super) root: BlobId,
    pub(super) entries: u64,
    /// Packs that no segment need describe, since the record names them.
    pub(super) packs: Vec<ObjectId>,
    /// Whether it counts; otherwise it was forgotten and can be undeleted.
    pub(super) counts: bool,
}

/// What a series' line is checked with.
struct Link {
    series: String,
    time: Timestamp,
    hash: RecordHash,
    predecessor: Option<RecordHash>,
    /// Absent in a tombstone.
    content: Option<Content>,
}

impl Link {
    fn of(placed: Placed) -> Self {
        let Placed { record, hash, .. } = placed;
        let content = match record.body {
            Body::Snapshot(content) => Some(content),
            Body::Tombstone => None,
        };
        Self { series: record.series, time: record.time, hash, predecessor: record.predecessor, content }
    }
}

impl Repository {
    /// Lists the objects under a prefix that have one of our names, with their lengths.
    pub(super) async fn list_known(&self, prefix: &str, findings: &mut Findings) -> Result<Vec<(Name, u64)>> {
        let mut known = Vec::new();
        for listed in self.store().list(prefix).await? {
            match Name::parse(&listed.name) {
                Some(name) => known.push((name, listed.length)),
                None => findings.add_new(FindingKind::Foreign, listed.name, "this build gives no such names"),
            }
        }
        known.sort_unstable();
        Ok(known)
    }

    /// Verifies what says which snapshots count and what collections have condemned; the newest lists.
    pub(super) async fn check_signed(&self, findings: &mut Findings) -> Result<BTreeMap<SeriesTag, Newest>> {
        let mut lists = BTreeMap::<SeriesTag, Newest>::new();
        for prefix in [layout::KEPT, layout::COLLECTIONS] {
            for (name, _) in self.list_known(prefix, findings).await? {
                let read = match name {
                    Name::Kept(tag, number) => match kept::read(self.store(), self.keyring(), &tag, number).await {
                        Ok(Some(kept)) => {
                            lists.insert(tag, Newest::of(number, kept, &[]));
                            Ok(true)
                        }
                        other => other.map(|_| false),
                    },
                    name => collection::is_authentic(self.store(), self.keyring(), name).await,
                };
                match read {
                    Ok(true) => {}
                    Ok(false) => findings.add_new(FindingKind::Unsigned, name, UNSIGNED),
                    // It was tidied away since it was listed.
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => findings.add_error(error)?,
                }
            }
        }
        Ok(lists)
    }

    pub(super) async fn check_config(&self, findings: &mut Findings) -> Result<()> {
        let read = self.store().get(layout::CONFIG, CONFIG_MAX).await;
        match read.and_then(|bytes| Ok((Config::parse(&bytes)?, bytes))) {
            Ok((config, bytes)) => {
                if !Config::is_authentic(&bytes, self.keyring()) || config != *self.config() {
                    let problem = "it isn't the one that the repository was opened with";
                    findings.add_new(FindingKind::Inconsistent, layout::CONFIG, problem);
                }
                Ok(())
            }
            Err(error) => findings.add_error(error),
        }
    }

    pub(super) async fn check_keys(&self, findings: &mut Findings) -> Result<()> {
        let mut sound = 0;
        let standing = self.standing().await?;
        let mut missing: BTreeSet<_> = standing.slots().into_iter().collect();
        for (name, _) in self.list_known(layout::KEYS, findings).await? {
            let Name::Key(id) = name else {
                self.check_roster(name, findings).await?;
                continue;
            };
            let named = missing.remove(&id);
            let read = self.store().get(&name.to_string(), SLOT_MAX).await;
            match read.and_then(|bytes| Slot::parse(&bytes, &id)) {
                Ok(slot) if slot.repository() == self.id() && named => sound += 1,
                Ok(slot) if slot.repository() == self.id() => {
                    let problem = "no administrator vouches for it, so it opens nothing: it was removed and put back, \
                                   or planted, or its addition was cut off";
                    findings.add_new(FindingKind::Leftover, name, problem);
                }
                Ok(_) => {
                    let problem = "it belongs to another repository, or to one whose creation was cut off here";
                    findings.add_new(FindingKind::Leftover, name, problem);
                }
                // It was removed since it was listed.
                Err(Error::NotFound { .. }) => {}
                Err(error) => findings.add_error(error)?,
            }
        }
        for id in missing.into_iter().filter(|id| *id != self.slot() || sound > 0) {
            findings.add_new(FindingKind::Missing, Name::Key(id), "a key slot that should open the repository is gone");
        }
        if sound == 0 {
            let problem = "no key slot is left that could open the repository again";
            findings.add_new(FindingKind::Missing, layout::KEYS, problem);
        }
        Ok(())
    }

    async fn check_roster(&self, name: Name, findings: &mut Findings) -> Result<()> {
        let read = self.store().get(&name.to_string(), ROSTER_MAX).await;
        match read.and_then(|bytes| Roster::open(&bytes, name, self.id(), self.keyring().administrator_public())) {
            Ok(Some(_)) => {}
            Ok(None) => findings.add_new(FindingKind::Unsigned, name, UNSIGNED_ROSTER),
            Err(Error::NotFound { .. }) => {}
            Err(error) => findings.add_error(error)?,
        }
        Ok(())
    }

    /// Names the registrations that haven't ended: each is a writer's that runs, or was cut off.
    pub(super) async fn check_writers(&self, findings: &mut Findings) -> Result<()> {
        let mut ends = BTreeMap::new();
        for (name, _) in self.list_known(layout::WRITERS, findings).await? {
            let Name::WriterEnd(id) = name else { continue };
            match read_end(self.store(), self.keyring(), id).await {
                Ok(ending) => drop(ends.insert(id, ending)),
                Err(error) if !error.is_not_found() => findings.add_error(error)?,
                Err(_) => {}
            }
        }
        for writer in registered(self.store(), self.keyring()).await? {
            if let (Ok(record), Some(ending)) = (&writer.record, ends.get(&writer.id))
                && record.ending != *ending
            {
                findings.add_new(FindingKind::Unsigned, Name::WriterEnd(writer.id), NOT_THE_WRITERS);
            }
            match writer.record {
                Ok(_) if writer.has_ended => {}
                Ok(RegistrationRecord { series, number, host, .. }) => {
                    let problem = format!("a writer for {series}#{number} on host {host:?} runs, or was cut off");
                    findings.add_new(FindingKind::Leftover, Name::Writer(writer.id), problem);
                }
                Err(error) => findings.add_error(error)?,
            }
        }
        Ok(())
    }

    /// Verifies every record and that each series is one line without gaps but for what was forgotten; returns the
    /// snapshots that count.
    pub(super) async fn check_snapshots(
        &self,
        lists: &BTreeMap<SeriesTag, Newest>,
        findings: &mut Findings,
    ) -> Result<Vec<Root>> {
        let (all, now) = (Kept::default(), self.surroundings().clock.now());
        let kept = |tag: &SeriesTag| lists.get(tag).map_or(&all, |newest| &newest.kept);
        let listed = self.list_known(layout::COMMITS, findings).await?;
        let names = listed.into_iter().filter_map(|(name, _)| match name {
            Name::Commit(name) => Some(name),
            _ => None,
        });
        let lines = Lines::new(names.collect(), lists.clone());
        for name in &lines.unreached {
            findings.add_new(FindingKind::Inconsistent, Name::Commit(*name), UNREACHED);
        }
        let read = |name: CommitName| async move {
            match self.timelines().read(&name).await {
                Ok(placed) => Ok((name, Ok(Link::of(placed)))),
                Err(error) => Trouble::of(error).map(|trouble| (name, Err(trouble))),
            }
        };
        let mut records = futures::stream::iter(lines.names).map(read).buffered(CONCURRENCY);
        let (mut roots, mut series) = (Vec::new(), Vec::<(CommitName, Result<Link, Trouble>)>::new());
        while let Some((name, record)) = records.try_next().await? {
            if series.last().is_some_and(|(last, _)| last.tag != name.tag) {
                let tag = series[0].0.tag;
                check_series(std::mem::take(&mut series), kept(&tag), &mut roots, findings);
            }
            series.push((name, record));
        }
        if let Some((first, _)) = series.first() {
            let tag = first.tag;
            check_series(series, kept(&tag), &mut roots, findings);
        }
        roots.retain(|root| kept(&root.record.tag).is_root(root.record.number, now));
        // Those that count first, so that what a forgotten one lacks is told apart.
        roots.sort_by_key(|root| !root.counts);
        Ok(roots)
    }
}

/// Follows one series from its first number.
fn check_series(
    records: Vec<(CommitName, Result<Link, Trouble>)>,
    kept: &Kept,
    roots: &mut Vec<Root>,
    findings: &mut Findings,
) {
    let series = records.iter().find_map(|(_, record)| record.as_ref().ok()).map(|link| link.series.clone());
    let label = |number: u64| format!("{}#{number}", series.as_deref().unwrap_or("(an unknown series)"));

    // The number that comes next, the hash that its record must name, and the time that it must come after.
    let (mut number, mut before, mut latest) = (1, None, Timestamp::from_nanos(i64::MIN));
    for (name, record) in records {
        let text = Name::Commit(name).to_string();
        if name.number > number {
            before = None;
        }
        // What was forgotten may be gone.
        if let Some(number) = (number..name.number).find(|number| kept.counts(*number)) {
            let object = Name::Commit(CommitName { number, ..name }).to_string();
            let last = name.number - 1;
            let missing = if last == number { label(number) } else { format!("{} to {}", label(number), label(last)) };
            findings.add_new(FindingKind::Missing, &object, format!("the series has a gap: {missing}"));
            findings.affect(&object, &missing);
        }
        number = name.number + 1;
        let counts = kept.counts(name.number);
        let link = match record {
            Ok(link) => link,
            Err(trouble) => {
                if counts {
                    findings.add(trouble);
                    findings.affect(&text, &label(name.number));
                }
                before = None;
                continue;
            }
        };
        let is_late = counts && link.content.is_some() && link.time <= latest;
        if is_late || before.is_some_and(|hash| link.predecessor != Some(hash)) {
            findings.add_new(FindingKind::Inconsistent, &text, "it doesn't follow from the record before it");
            findings.affect(&text, &label(name.number));
        }
        // What doesn't count may have been given up: a tombstone in its place has another hash.
        before = counts.then_some(link.hash);
        if counts && link.content.is_some() {
            latest = latest.max(link.time);
        }
        roots.extend(link.content.map(|Content { root, entries, stored, .. }| {
            let packs = stored.packs.iter().map(|pack| pack.id).collect();
            let series = link.series.clone();
            Root { label: label(name.number), series, record: name, root, entries, packs, counts }
        }));
    }
}
