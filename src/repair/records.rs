//! Series: records that are damaged or missing, and what can be done about each.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{BlobId, RecordHash, SeriesTag};
use crate::index::PackRef;
use crate::kept::{self, Kept};
use crate::layout::{self, CommitName, Name};
use crate::object;
use crate::pack::Hint;
use crate::repair::objects::Lists;
use crate::repair::rewrite::Rewrite;
use crate::repair::{RepairAction, RepairOptions, Steps, said};
use crate::repository::Repository;
use crate::snapshot::{Body, Lines, Origin, Placed, Record, UNREACHED, open_record};

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
    pub(super) name: CommitName,
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

/// What is to be done with series.
#[derive(Debug, Default)]
pub(super) struct SeriesWork {
    pub(super) names: BTreeMap<SeriesTag, String>,
    put: Vec<(Name, Bytes)>,
    /// What goes, and whether it does though it can be read, since its number is made up.
    delete: Vec<(Name, bool)>,
    /// What can't be read.
    damaged: BTreeSet<CommitName>,
    /// Numbers that a tombstone takes, ascending.
    bury: Vec<CommitName>,
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
    /// The numbers that the copy has.
    theirs: BTreeSet<u64>,
    /// What is sound, by number.
    sound: BTreeMap<u64, Placed>,
    /// What can't be read, and why.
    damaged: BTreeMap<u64, String>,
    /// What a newer version may read.
    unknown: BTreeSet<u64>,
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
        let lines = self.timelines().lines(None).await?;
        let mut series = by_series(&lines.names);
        let mut theirs = match &options.other {
            Some(other) => by_series(&other.timelines().lines(None).await?.names),
            None => BTreeMap::new(),
        };
        for tag in theirs.keys() {
            series.entry(*tag).or_default();
        }
        let (mut work, mut roots, now) = (SeriesWork::default(), Vec::new(), self.surroundings().clock.now());
        self.plan_unreached(options, &lines, &mut work, steps).await?;
        for (tag, numbers) in series {
            let kept_of = |lists: &Lists| lists.get(&tag).map(|newest| newest.kept.clone()).unwrap_or_default();
            let (kept, kept_there) = (kept_of(lists), kept_of(lists_there));
            let theirs = theirs.remove(&tag).unwrap_or_default();
            let (sound, damaged, unknown) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
            let (work, steps) = (&mut work, &mut *steps);
            let mut line = Line { tag, kept, kept_there, options, theirs, sound, damaged, unknown, work, steps };
            self.plan_series(&mut line, numbers).await?;
            let Line { kept, sound, .. } = line;
            let name = |number| CommitName { tag, number };
            roots.extend(sound.into_iter().filter_map(|(number, placed)| root(&kept, now, name(number), placed)));
        }
        Ok((work, roots))
    }

    /// Names with made-up numbers. They are no evidence of anything: what doesn't open goes, what does only by consent.
    async fn plan_unreached(
        &self,
        options: &RepairOptions,
        lines: &Lines,
        work: &mut SeriesWork,
        steps: &mut Steps,
    ) -> Result<()> {
        for name in &lines.unreached {
            let has_list = lines.newest(&name.tag).sound(&name.tag).is_ok();
            let read = self.read_twice(name).await;
            let opens = read.is_ok();
            let may_go = match read {
                Ok(_) => options.accept_loss && has_list,
                Err(error) if error.is_not_found() => continue,
                Err(error) if error.is_unsupported() => {
                    steps.leave(Name::Commit(*name), error);
                    continue;
                }
                Err(error) => said(error).map(|_| true)?,
            };
            let advice = match has_list {
                true => {
                    "whoever put it there has a secret, or all that came before it is lost; to delete it, accept the loss"
                }
                false => {
                    "the list that can't be read may say that what came before it was forgotten: restore that first"
                }
            };
            let (action, advice) = if may_go { (RepairAction::Delete, "") } else { (RepairAction::None, advice) };
            steps.advise(Name::Commit(*name), UNREACHED, action, advice);
            if may_go {
                work.delete.push((Name::Commit(*name), opens));
            }
        }
        Ok(())
    }

    /// Reads a record, and again where it seems to be damaged: the first time may have been the store's or the wire's fault.
    async fn read_twice(&self, name: &CommitName) -> Result<Placed> {
        match self.timelines().read(name).await {
            Err(error) if error.is_corrupt() => self.timelines().read(name).await,
            read => read,
        }
    }

    async fn plan_series(&self, line: &mut Line<'_>, numbers: BTreeSet<u64>) -> Result<()> {
        let tag = line.tag;
        let read = |number: u64| async move { (number, self.read_twice(&CommitName { tag, number }).await) };
        let read: Vec<_> = futures::stream::iter(numbers).map(read).buffered(CONCURRENCY).collect().await;
        for (number, record) in read {
            match record {
                Ok(placed) => line.take(number, placed),
                Err(error) if error.is_unsupported() => {
                    line.steps.leave(line.name(number), error);
                    line.unknown.insert(number);
                }
                Err(error) => drop(line.damaged.insert(number, said(error)?)),
            }
        }
        for number in line.damaged.keys().copied().collect::<Vec<_>>() {
            if let Some((bytes, placed)) = line.theirs_of(number).await?
                && let Some(problem) = line.damaged.remove(&number)
            {
                line.restore(number, problem, bytes, placed);
            }
        }
        let highest = line.highest();
        line.plan_damaged(highest);
        self.plan_gaps(line, highest).await?;
        self.continue_line(line, highest).await?;
        line.check_order();
        Ok(())
    }

    /// The numbers before the highest that can be read which have no record.
    async fn plan_gaps(&self, line: &mut Line<'_>, highest: u64) -> Result<()> {
        let known = (line.sound.len() + line.damaged.len() + line.unknown.len()) as u64;
        if highest.saturating_sub(known) > GAP_MAX && line.kept.through + GAP_MAX < highest {
            let (object, problem) = (layout::series_prefix(&line.tag), "too many numbers before its last are missing");
            let advice = "restore the series from a copy of the repository";
            line.steps.advise(object, problem, RepairAction::None, advice);
            return Ok(());
        }
        let missing: Vec<u64> =
            (1..highest).filter(|number| line.kept.counts(*number)).filter(|number| !line.has(*number)).collect();
        for number in missing {
            match line.theirs_of(number).await? {
                Some((bytes, placed)) => line.restore(number, MISSING.to_owned(), bytes, placed),
                None => line.give_up(number, MISSING.to_owned()),
            }
        }
        Ok(())
    }

    /// Takes over what the copy has after the last record here, as far as it follows from that.
    async fn continue_line(&self, line: &mut Line<'_>, highest: u64) -> Result<()> {
        if highest == 0 && line.damaged.is_empty() {
            for number in line.theirs.clone() {
                if let Some((bytes, placed)) = line.theirs_of(number).await? {
                    line.restore(number, "its series does not exist".to_owned(), bytes, placed);
                }
            }
            return Ok(());
        }
        let mut tip = highest;
        while let Some(placed) = line.sound.get(&tip) {
            let (next, hash) = (tip + 1, placed.hash);
            let Some((bytes, placed)) = (if line.has(next) { None } else { line.theirs_of(next).await? }) else {
                break;
            };
            if placed.record.predecessor != Some(hash) {
                break;
            }
            line.restore(next, "it does not exist, and follows from the last that does".to_owned(), bytes, placed);
            tip = next;
        }
        Ok(())
    }
}

/// What is wrong with a number that has no record.
const MISSING: &str = "it does not exist";

impl Line<'_> {
    fn name(&self, number: u64) -> Name {
        Name::Commit(CommitName { tag: self.tag, number })
    }

    /// The highest number whose record can be read. No other name says how far the series goes.
    fn highest(&self) -> u64 {
        let sound = self.sound.last_key_value().map_or(0, |(number, _)| *number);
        self.unknown.last().map_or(sound, |number| sound.max(*number))
    }

    /// Whether something is under the name of a number.
    fn has(&self, number: u64) -> bool {
        self.sound.contains_key(&number) || self.damaged.contains_key(&number) || self.unknown.contains(&number)
    }

    fn take(&mut self, number: u64, placed: Placed) {
        self.work.names.insert(self.tag, placed.record.series.clone());
        self.sound.insert(number, placed);
    }

    fn restore(&mut self, number: u64, problem: String, bytes: Bytes, placed: Placed) {
        self.steps.add(self.name(number), problem, RepairAction::CopyObject);
        self.work.put.push((self.name(number), bytes));
        self.take(number, placed);
    }

    /// The record of a number in the copy, if it is sound there.
    async fn theirs_of(&self, number: u64) -> Result<Option<(Bytes, Placed)>> {
        let Some(other) = self.options.other.as_ref().filter(|_| self.theirs.contains(&number)) else {
            return Ok(None);
        };
        let (name, keyring) = (CommitName { tag: self.tag, number }, other.keyring());
        let verify = |bytes: &[u8]| open_record(bytes, &name, keyring).map(drop);
        let Some(bytes) = other.sound_bytes(&Name::Commit(name), object::RECORD_MAX, verify).await? else {
            return Ok(None);
        };
        let placed = open_record(&bytes, &name, keyring)?;
        Ok(Some((bytes, placed)))
    }

    /// Records that can't be read and that no copy has.
    fn plan_damaged(&mut self, highest: u64) {
        let mut next = highest + 1;
        self.work.damaged.extend(self.damaged.keys().map(|number| CommitName { tag: self.tag, number: *number }));
        for (number, problem) in self.damaged.clone() {
            if number < highest {
                if self.kept.counts(number) {
                    self.give_up(number, problem);
                }
            } else if number == next {
                // It may have been committed. Every writer reads it, so that as it is nobody can continue the series.
                self.plan_grave(number, problem);
                next += 1;
            } else {
                let advice = "no writer has come to its number";
                self.steps.advise(self.name(number), problem, RepairAction::Delete, advice);
                self.work.delete.push((self.name(number), false));
            }
        }
    }

    /// A snapshot whose record can't be had: with consent it doesn't count any more, or if the copy says that it didn't.
    fn give_up(&mut self, number: u64, problem: String) {
        let was_forgotten = !self.kept_there.counts(number);
        if self.options.accept_loss || was_forgotten {
            let advice = if was_forgotten { "the other repository says that it was" } else { "" };
            self.steps.advise(self.name(number), problem, RepairAction::Forget, advice);
            self.work.forget.entry(self.tag).or_default().insert(number);
        } else {
            let advice = "a copy of the repository may have it; to forget it, accept the loss";
            self.steps.advise(self.name(number), problem, RepairAction::None, advice);
        }
    }

    fn plan_grave(&mut self, number: u64, problem: String) {
        if self.kept.counts(number) && !self.options.accept_loss {
            let advice = "nobody can continue the series; give a copy of the repository, or accept the loss";
            self.steps.advise(self.name(number), problem, RepairAction::None, advice);
            return;
        }
        let advice = "a writer whose commit this was and that waits for it loses the number, and takes the next";
        self.steps.advise(self.name(number), problem, RepairAction::Tombstone, advice);
        self.work.bury.push(CommitName { tag: self.tag, number });
    }

    /// Tells of records that don't follow from those before them.
    fn check_order(&mut self) {
        let follows = |(number, placed): &(&u64, &Placed)| {
            let before = self.sound.get(&(**number - 1));
            let is_known = before.filter(|_| self.kept.counts(**number - 1));
            is_known.is_none_or(|before| placed.record.predecessor == Some(before.hash))
        };
        let wrong: Vec<u64> = self.sound.iter().filter(|it| !follows(it)).map(|(number, _)| *number).collect();
        for number in wrong {
            let advice = "compare the hashes that you kept: a record was replaced by whoever has a secret";
            let problem = "it doesn't follow from the record before it";
            self.steps.advise(self.name(number), problem, RepairAction::None, advice);
        }
    }
}

fn by_series(names: &[CommitName]) -> BTreeMap<SeriesTag, BTreeSet<u64>> {
    let mut series = BTreeMap::<SeriesTag, BTreeSet<u64>>::new();
    for name in names {
        series.entry(name.tag).or_default().insert(name.number);
    }
    series
}

fn root(kept: &Kept, now: Timestamp, name: CommitName, placed: Placed) -> Option<Root> {
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
    /// Leaves out what can't be done because the name of a series isn't known, or deletes it, if that may be.
    pub(super) fn without_nameless(
        &mut self,
        options: &RepairOptions,
        names: &BTreeMap<SeriesTag, String>,
        steps: &mut Steps,
    ) {
        for (tag, name) in names {
            self.names.entry(*tag).or_insert_with(|| name.clone());
        }
        let names = &self.names;
        if options.remove_nameless {
            let nameless = self.damaged.iter().filter(|name| !names.contains_key(&name.tag));
            self.delete.extend(nameless.map(|name| (Name::Commit(*name), false)));
            self.delete.sort_unstable();
            self.delete.dedup();
        }
        self.bury.retain(|name| names.contains_key(&name.tag));
        self.forget.retain(|tag, _| names.contains_key(tag));
        for step in &mut steps.0 {
            let (tag, is_damaged) = match Name::parse(&step.object) {
                Some(Name::Commit(name)) => (name.tag, self.damaged.contains(&name)),
                Some(Name::Kept(tag, _)) => (tag, step.action == RepairAction::PublishList),
                _ => continue,
            };
            let needs =
                matches!(step.action, RepairAction::Tombstone | RepairAction::Forget | RepairAction::PublishList);
            if names.contains_key(&tag) {
                continue;
            } else if options.remove_nameless && is_damaged {
                (step.action, step.advice) = (RepairAction::Delete, String::new());
            } else if needs {
                step.action = RepairAction::None;
                let advice =
                    "no sound record tells the name of its series: give it, or have it remove what is nameless";
                advice.clone_into(&mut step.advice);
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
        for (name, opens) in std::mem::take(&mut work.delete) {
            let is_made_up = opens && self.is_made_up(name).await?;
            if is_made_up {
                self.store().delete(&name.to_string()).await?;
            }
            deleted += u64::from(is_made_up || self.delete_unreadable(name).await?);
        }
        for name in std::mem::take(&mut work.bury) {
            let series = self.series_name(&work.names, &name.tag)?;
            self.bury(&series, name).await?;
            forgotten.push((series, name.number));
        }
        // Of those whose record can't be read there is nothing to undelete.
        let lost = std::mem::take(&mut work.forget).into_iter().map(|of| (of, None));
        let again = std::mem::take(&mut work.forget_again).into_iter().map(|of| (of, Some(window)));
        for ((tag, numbers), window) in lost.chain(again) {
            let series = self.series_name(&work.names, &tag)?;
            self.close_holes(&series, tag, &numbers).await?;
            self.stop_counting(&series, &numbers, window).await?;
            forgotten.extend(numbers.into_iter().map(|number| (series.clone(), number)));
        }
        Ok((copied, deleted, forgotten))
    }

    /// Whether a record's series still hasn't come to its number.
    async fn is_made_up(&self, name: Name) -> Result<bool> {
        let Name::Commit(name) = name else { return Ok(false) };
        let lines = self.timelines().lines(Some(&name.tag)).await?;
        Ok(lines.unreached.contains(&name))
    }

    /// Publishes that snapshots don't count any more; when they are forgotten and until when they can be undeleted, if
    /// they can.
    pub(super) async fn stop_counting(
        &self,
        series: &str,
        numbers: &BTreeSet<u64>,
        window: Option<(Timestamp, Timestamp)>,
    ) -> Result<()> {
        let tag = self.keyring().series_tag(series);
        let through = numbers.last().copied().unwrap_or(0);
        let hashes = if window.is_some() { self.hashes(&tag, numbers).await? } else { Vec::new() };
        for _ in 0..CONTESTS {
            let lines = self.timelines().lines(Some(&tag)).await?;
            let newest = lines.newest(&tag);
            let next = match window {
                Some(times) => newest.kept.forget(&hashes, through, times, |number| lines.is_there(tag, number)),
                None => newest.kept.clone(),
            };
            let next = next.give_up(numbers, through);
            if next == newest.kept
                || kept::publish(self.store(), self.keyring(), self.surroundings(), series, &newest, next).await?
            {
                return Ok(());
            }
        }
        Err(Error::conflict(format!("series {series:?}"), "others forgot snapshots again and again; run it again"))
    }

    /// The hashes of the records of a series that are there and can be read.
    async fn hashes(&self, tag: &SeriesTag, numbers: &BTreeSet<u64>) -> Result<Vec<(u64, RecordHash)>> {
        let mut hashes = Vec::new();
        for number in numbers {
            if let Some(placed) = self.timelines().read_if_usable(&CommitName { tag: *tag, number: *number }).await? {
                hashes.push((*number, placed.hash));
            }
        }
        Ok(hashes)
    }
}
