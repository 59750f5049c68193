//! Series: records that are damaged or missing, and what can be done about each.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::clock::Timestamp;
use crate::crypto::Kind;
use crate::error::{Error, Result};
use crate::id::{BlobId, RecordHash, SeriesTag};
use crate::index::PackRef;
use crate::kept::{self, Kept};
use crate::layout::{self, Name, SnapshotName};
use crate::object;
use crate::pack::Hint;
use crate::repair::objects::Lists;
use crate::repair::rewrite::Rewrite;
use crate::repair::{RepairAction, RepairOptions, Steps, said};
use crate::repository::Repository;
use crate::snapshot::{Body, Origin, Placed, Record, open_record};
use crate::store::Created;

/// Records read at a time.
const CONCURRENCY: usize = 16;

/// More numbers of a series than these aren't looked for one by one.
pub(super) const GAP_MAX: u64 = 1 << 20;

/// How often a list is contended for before it is given up.
const CONTESTS: u32 = 16;

/// A snapshot whose record is sound, here or in the copy, and whose data is kept.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) series: String,
    pub(super) name: SnapshotName,
    pub(super) time: Timestamp,
    pub(super) root: BlobId,
    pub(super) packs: Vec<PackRef>,
    /// Where the root lies, as the record says.
    pub(super) root_at: Option<Hint>,
    pub(super) origin: Option<Origin>,
    /// Whether it counts; otherwise it was forgotten and can be undeleted.
    pub(super) counts: bool,
}

impl Root {
    /// What a snapshot that gives this one back says of where it comes from.
    pub(super) fn as_origin(&self) -> Origin {
        self.origin.unwrap_or(Origin { number: self.name.number, time: self.time })
    }
}

/// A number whose record can't be read and that is the highest of its series.
#[derive(Debug)]
pub(super) struct Grave {
    name: SnapshotName,
    predecessor: Option<RecordHash>,
}

/// What is to be done with series.
#[derive(Debug, Default)]
pub(super) struct SeriesWork {
    pub(super) names: BTreeMap<SeriesTag, String>,
    put: Vec<(Name, Bytes)>,
    delete: Vec<Name>,
    graves: Vec<Grave>,
    /// Numbers that don't count any more.
    forget: BTreeMap<SeriesTag, BTreeSet<u64>>,
    /// Numbers that count only because a list is lost.
    pub(super) forget_again: BTreeMap<SeriesTag, BTreeSet<u64>>,
    pub(super) rewrites: Vec<Rewrite>,
}

/// One series as it is looked at.
struct Line<'a> {
    tag: SeriesTag,
    kept: Kept,
    /// What counts according to the copy.
    kept_there: Kept,
    options: &'a RepairOptions,
    /// The names in the copy.
    theirs: BTreeMap<u64, Vec<SnapshotName>>,
    /// What is sound, by number.
    sound: BTreeMap<u64, (SnapshotName, Placed)>,
    work: &'a mut SeriesWork,
    steps: &'a mut Steps,
}

impl Repository {
    /// What is to be done with records, and the snapshots that count or can be undeleted.
    pub(super) async fn plan_records(
        &self,
        options: &RepairOptions,
        (lists, lists_there): (&Lists, &Lists),
        steps: &mut Steps,
    ) -> Result<(SeriesWork, Vec<Root>)> {
        let mut series = by_series(self.timelines().names(None).await?);
        let mut theirs = match &options.other {
            Some(other) => by_series(other.timelines().names(None).await?),
            None => BTreeMap::new(),
        };
        for tag in theirs.keys() {
            series.entry(*tag).or_default();
        }
        let (mut work, mut roots, now) = (SeriesWork::default(), Vec::new(), self.surroundings().clock.now());
        for (tag, names) in series {
            let kept_of = |lists: &Lists| lists.get(&tag).map(|newest| newest.kept.clone()).unwrap_or_default();
            let (kept, kept_there) = (kept_of(lists), kept_of(lists_there));
            let mut there = BTreeMap::<u64, Vec<SnapshotName>>::new();
            for name in theirs.remove(&tag).unwrap_or_default() {
                there.entry(name.number).or_default().push(name);
            }
            let (sound, work, steps) = (BTreeMap::new(), &mut work, &mut *steps);
            let mut line = Line { tag, kept, kept_there, options, theirs: there, sound, work, steps };
            self.plan_series(&mut line, names).await?;
            let Line { kept, sound, .. } = line;
            roots.extend(sound.into_values().filter_map(|(name, placed)| root(&kept, now, name, placed)));
        }
        Ok((work, roots))
    }

    async fn plan_series(&self, line: &mut Line<'_>, names: Vec<SnapshotName>) -> Result<()> {
        let read = |name: SnapshotName| async move {
            match self.timelines().read(&name).await {
                Ok(placed) => Ok((name, Ok(placed))),
                Err(error) if error.is_unsupported() => Ok((name, Err(error))),
                Err(error) => Ok::<_, Error>((name, Err(Error::corrupt(Name::Snapshot(name), said(error)?)))),
            }
        };
        let read: Vec<_> = futures::stream::iter(names).map(read).buffered(CONCURRENCY).try_collect().await?;
        let highest = read.last().map_or(0, |(name, _)| name.number);
        let mut damaged = Vec::new();
        for (name, record) in read {
            match record {
                Ok(placed) => line.take(name, placed),
                Err(error) if error.is_unsupported() => line.steps.leave(Name::Snapshot(name), error),
                Err(error) => damaged.push((name, said(error)?)),
            }
        }
        // The highest comes last: what replaces it says what the one before it is.
        let (last, damaged): (Vec<_>, Vec<_>) = damaged.into_iter().partition(|(name, _)| name.number == highest);
        for (name, problem) in damaged {
            self.plan_record(line, name, problem, highest).await?;
        }
        self.plan_gaps(line, highest).await?;
        for (name, problem) in last {
            self.plan_record(line, name, problem, highest).await?;
        }
        self.continue_line(line, highest).await?;
        line.check_order();
        Ok(())
    }

    /// A record that can't be read.
    async fn plan_record(&self, line: &mut Line<'_>, name: SnapshotName, problem: String, highest: u64) -> Result<()> {
        let (object, number) = (Name::Snapshot(name), name.number);
        if line.sound.contains_key(&number) {
            line.steps.advise(object, problem, RepairAction::Delete, "another record has its number, and is sound");
            line.work.delete.push(object);
        } else if let Some((bytes, placed)) = line.theirs_of(&name).await? {
            line.steps.add(object, problem, RepairAction::CopyObject);
            line.restore(name, bytes, placed);
        } else if number == highest {
            // Every writer reads it, so that as it is nobody can continue the series.
            line.plan_grave(name, problem);
        } else if line.kept.counts(number) {
            line.give_up(object, number, problem);
        }
        Ok(())
    }

    /// The numbers before the highest that have no record.
    async fn plan_gaps(&self, line: &mut Line<'_>, highest: u64) -> Result<()> {
        let known = line.sound.len() as u64;
        if highest.saturating_sub(known) > GAP_MAX {
            let (object, problem) = (layout::series_prefix(&line.tag), "too many numbers before its last are missing");
            let advice = "whoever put the last record there made its number up; move that away";
            line.steps.advise(object, problem, RepairAction::None, advice);
            return Ok(());
        }
        for number in 1..highest {
            let is_here = line.sound.contains_key(&number) || line.is_dealt_with(number);
            if line.kept.counts(number) && !is_here {
                self.plan_gap(line, number).await?;
            }
        }
        Ok(())
    }

    /// A number that counts and has no record.
    async fn plan_gap(&self, line: &mut Line<'_>, number: u64) -> Result<()> {
        let expected = line.sound.get(&(number - 1)).and_then(|(name, placed)| name.next(placed.record.time));
        let expected = if number == 1 { Some(SnapshotName::first(line.tag)) } else { expected };
        let candidates = line.theirs.get(&number).cloned().unwrap_or_default();
        for name in candidates.into_iter().filter(|name| expected.is_none_or(|expected| expected == *name)) {
            if let Some((bytes, placed)) = line.theirs_of(&name).await? {
                line.steps.add(Name::Snapshot(name), "it does not exist", RepairAction::CopyObject);
                line.restore(name, bytes, placed);
                return Ok(());
            }
        }
        let object = expected.map_or_else(
            || format!("{}, number {number}", layout::series_prefix(&line.tag)),
            |name| Name::Snapshot(name).to_string(),
        );
        line.give_up(object, number, "it does not exist".to_owned());
        Ok(())
    }

    /// Takes over what the copy has after the last record here, as far as it follows from that.
    async fn continue_line(&self, line: &mut Line<'_>, highest: u64) -> Result<()> {
        if highest == 0 {
            let all: Vec<_> = line.theirs.values().flatten().copied().collect();
            for name in all {
                if let Some((bytes, placed)) = line.theirs_of(&name).await? {
                    line.steps.add(Name::Snapshot(name), "its series does not exist", RepairAction::CopyObject);
                    line.restore(name, bytes, placed);
                }
            }
            return Ok(());
        }
        let mut tip = highest;
        while let Some((name, placed)) = line.sound.get(&tip) {
            let (next, hash) = (name.next(placed.record.time), placed.hash);
            let Some(next) = next.filter(|next| line.theirs.get(&next.number).is_some_and(|it| it.contains(next)))
            else {
                break;
            };
            let Some((bytes, placed)) = line.theirs_of(&next).await? else { break };
            if placed.record.predecessor != Some(hash) {
                break;
            }
            let problem = "it does not exist, and follows from the last that does";
            line.steps.add(Name::Snapshot(next), problem, RepairAction::CopyObject);
            line.restore(next, bytes, placed);
            tip = next.number;
        }
        Ok(())
    }
}

impl Line<'_> {
    fn take(&mut self, name: SnapshotName, placed: Placed) {
        self.work.names.insert(self.tag, placed.record.series.clone());
        if let Some((other, _)) = self.sound.get(&name.number) {
            let (other, advice) = (Name::Snapshot(*other), "keep the one whose hash you know, and move the other away");
            let problem = format!("{other} has the same number");
            self.steps.advise(Name::Snapshot(name), problem, RepairAction::None, advice);
            return;
        }
        self.sound.insert(name.number, (name, placed));
    }

    fn restore(&mut self, name: SnapshotName, bytes: Bytes, placed: Placed) {
        self.work.put.push((Name::Snapshot(name), bytes));
        self.take(name, placed);
    }

    fn is_dealt_with(&self, number: u64) -> bool {
        self.work.forget.get(&self.tag).is_some_and(|numbers| numbers.contains(&number))
            || self.steps.0.iter().any(|step| match Name::parse(&step.object) {
                Some(Name::Snapshot(name)) => name.tag == self.tag && name.number == number,
                _ => false,
            })
    }

    /// The record of a name in the copy, if it is sound there.
    async fn theirs_of(&self, name: &SnapshotName) -> Result<Option<(Bytes, Placed)>> {
        let Some(other) = &self.options.other else { return Ok(None) };
        let object = Name::Snapshot(*name);
        let keyring = other.keyring();
        let verify = |bytes: &[u8]| open_record(bytes, name, keyring).map(drop);
        let Some(bytes) = other.sound_bytes(&object, object::RECORD_MAX, verify).await? else { return Ok(None) };
        let placed = open_record(&bytes, name, keyring)?;
        Ok(Some((bytes, placed)))
    }

    /// A snapshot whose record can't be had: with consent it doesn't count any more, or if the copy says that it didn't.
    fn give_up(&mut self, object: impl ToString, number: u64, problem: String) {
        let was_forgotten = !self.kept_there.counts(number);
        if self.options.accept_loss || was_forgotten {
            let advice = if was_forgotten { "the other repository says that it was" } else { "" };
            self.steps.advise(object, problem, RepairAction::Forget, advice);
            self.work.forget.entry(self.tag).or_default().insert(number);
        } else {
            let advice = "a copy of the repository may have it; to forget it, accept the loss";
            self.steps.advise(object, problem, RepairAction::None, advice);
        }
    }

    fn plan_grave(&mut self, name: SnapshotName, problem: String) {
        if self.kept.counts(name.number) && !self.options.accept_loss {
            let advice = "nobody can continue the series; give a copy of the repository, or accept the loss";
            self.steps.advise(Name::Snapshot(name), problem, RepairAction::None, advice);
            return;
        }
        let advice = "a writer whose commit this was and that waits for it loses the number, and takes the next";
        self.steps.advise(Name::Snapshot(name), problem, RepairAction::Tombstone, advice);
        let before = self.sound.get(&(name.number - 1)).map(|(_, placed)| placed.hash);
        // Of one that is gone nobody knows the hash, and nobody checks it.
        let predecessor = (name.number > 1).then(|| before.unwrap_or(RecordHash::new([0; RecordHash::LEN])));
        self.work.graves.push(Grave { name, predecessor });
    }

    /// Tells of records that don't follow from those before them.
    fn check_order(&mut self) {
        let mut wrong = Vec::new();
        for (number, (name, placed)) in &self.sound {
            if let Some((before_name, before)) = self.sound.get(&(number - 1))
                && (before_name.next(before.record.time) != Some(*name)
                    || placed.record.predecessor != Some(before.hash))
            {
                wrong.push(*name);
            }
        }
        for name in wrong {
            let advice = "compare the hashes that you kept: a record was replaced by whoever has a secret";
            let problem = "it doesn't follow from the record before it";
            self.steps.advise(Name::Snapshot(name), problem, RepairAction::None, advice);
        }
    }
}

fn by_series(names: Vec<SnapshotName>) -> BTreeMap<SeriesTag, Vec<SnapshotName>> {
    let mut series = BTreeMap::<SeriesTag, Vec<SnapshotName>>::new();
    names.into_iter().for_each(|name| series.entry(name.tag).or_default().push(name));
    series
}

fn root(kept: &Kept, now: Timestamp, name: SnapshotName, placed: Placed) -> Option<Root> {
    let Record { series, time, body, .. } = placed.record;
    let Body::Snapshot(content) = body else { return None };
    let counts = kept.counts(name.number);
    kept.is_root(name.number, now).then_some(Root {
        series,
        name,
        time,
        root: content.root,
        packs: content.stored.packs,
        root_at: content.stored.root_at,
        origin: content.origin,
        counts,
    })
}

impl SeriesWork {
    /// Leaves out what can't be done because the name of a series isn't known.
    pub(super) fn without_nameless(&mut self, names: &BTreeMap<SeriesTag, String>, steps: &mut Steps) {
        for (tag, name) in names {
            self.names.entry(*tag).or_insert_with(|| name.clone());
        }
        let names = &self.names;
        self.graves.retain(|grave| names.contains_key(&grave.name.tag));
        self.forget.retain(|tag, _| names.contains_key(tag));
        for step in &mut steps.0 {
            let tag = match Name::parse(&step.object) {
                Some(Name::Snapshot(name)) => name.tag,
                Some(Name::Kept(tag, _)) => tag,
                _ => continue,
            };
            let needs =
                matches!(step.action, RepairAction::Tombstone | RepairAction::Forget | RepairAction::PublishList);
            if needs && !names.contains_key(&tag) {
                step.action = RepairAction::None;
                "no sound record tells the name of its series: give it".clone_into(&mut step.advice);
            }
        }
    }
}

impl Repository {
    /// Puts records right; how many were copied, how many deleted, and the snapshots that don't count any more.
    pub(super) async fn repair_records(
        &self,
        work: &mut SeriesWork,
        window: (Timestamp, Timestamp),
    ) -> Result<(u64, u64, Vec<(String, u64)>)> {
        let (mut copied, mut deleted, mut forgotten) = (0, 0, Vec::new());
        for (name, bytes) in std::mem::take(&mut work.put) {
            self.replace(name, bytes).await?;
            copied += 1;
        }
        for name in std::mem::take(&mut work.delete) {
            self.store().delete(&name.to_string()).await?;
            deleted += 1;
        }
        for grave in std::mem::take(&mut work.graves) {
            let series = self.series_name(&work.names, &grave.name.tag)?;
            self.bury(&series, &grave).await?;
            forgotten.push((series, grave.name.number));
        }
        // Of those whose record can't be read there is nothing to undelete.
        let lost = std::mem::take(&mut work.forget).into_iter().map(|of| (of, (window.0, window.0)));
        let again = std::mem::take(&mut work.forget_again).into_iter().map(|of| (of, window));
        for ((tag, numbers), times) in lost.chain(again) {
            let series = self.series_name(&work.names, &tag)?;
            self.stop_counting(&series, &numbers, times).await?;
            forgotten.extend(numbers.into_iter().map(|number| (series.clone(), number)));
        }
        Ok((copied, deleted, forgotten))
    }

    /// Replaces a record that can't be read by a tombstone under the same name, so that its series can go on.
    ///
    /// Between the two the name is free. A put of the record itself that comes so late brings it back, sound; it can
    /// only be that one's, since every other writer takes the name for taken. Afterwards such a put is refused, its
    /// writer has lost the number, and commits under the next.
    async fn bury(&self, series: &str, grave: &Grave) -> Result<()> {
        let name = Name::Snapshot(grave.name).to_string();
        let time = grave.name.previous.next();
        let record = Record {
            series: series.to_owned(),
            number: grave.name.number,
            time,
            clock: self.surroundings().clock.now(),
            predecessor: grave.predecessor,
            body: Body::Tombstone,
            extensions: Default::default(),
        };
        let sealed = object::seal_record(&record, Kind::Snapshot, &name, self.keyring(), self.surroundings())?;
        self.store().delete(&name).await?;
        match self.store().create(&name, sealed.into()).await? {
            Created::Ours => Ok(()),
            Created::Theirs => self.timelines().read(&grave.name).await.map(drop),
        }
    }

    /// Publishes that snapshots don't count any more.
    pub(super) async fn stop_counting(
        &self,
        series: &str,
        numbers: &BTreeSet<u64>,
        times: (Timestamp, Timestamp),
    ) -> Result<()> {
        let tag = self.keyring().series_tag(series);
        let numbers: Vec<u64> = numbers.iter().copied().collect();
        let through = numbers.last().copied().unwrap_or(0);
        for _ in 0..CONTESTS {
            let (newest, names) = futures::try_join!(self.timelines().kept(&tag), self.timelines().names(Some(&tag)))?;
            let is_there = |number| names.binary_search_by_key(&number, |name| name.number).is_ok();
            let next = newest.kept.forget(&numbers, through, times, is_there);
            if next == newest.kept
                || kept::publish(self.store(), self.keyring(), self.surroundings(), series, &newest, next).await?
            {
                return Ok(());
            }
        }
        Err(Error::conflict(format!("series {series:?}"), "others forgot snapshots again and again; run it again"))
    }
}
