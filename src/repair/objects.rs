//! What stands by itself: the config, key slots, lists of what counts, collections, registrations.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::collection::{self, Collections, Numbers};
use crate::config::{CONFIG_MAX, Config};
use crate::error::{Error, Result};
use crate::id::{ObjectId, SeriesTag};
use crate::kept::{self, Kept, Newest};
use crate::layout::{self, CommitName, Name};
use crate::object::{self, HEADER_LEN};
use crate::registration::{open_registration, read_end, registered};
use crate::repair::records::GAP_MAX;
use crate::repair::{RepairAction, RepairOptions, Steps, said, said_there};
use crate::repository::Repository;
use crate::roster::{ROSTER_MAX, Roster};
use crate::slot::{SLOT_MAX, Slot};

/// Something to be done with one small object.
#[derive(Debug)]
pub(super) enum Task {
    /// These bytes belong under the name; what is there is damaged.
    Put(Name, Bytes),
    Delete(Name),
    /// A key slot that is lost goes from the roster as well.
    RemoveKey(ObjectId),
    /// A list of what counts follows a damaged one, which is then deleted, or replaced by the copy's bytes.
    Publish(Publication),
    /// An empty collection follows damaged ones.
    Supersede,
}

/// A list that is published after damaged ones.
#[derive(Debug)]
pub(super) struct Publication {
    tag: SeriesTag,
    /// The newest list that could be read, which must still be that.
    after: u64,
    kept: Kept,
    /// Numbers that have no record and don't count any more by this list.
    gone: BTreeSet<u64>,
    /// The damaged list, and what it was according to the copy.
    damaged: u64,
    bytes: Option<Bytes>,
}

impl Task {
    /// The series whose list it is about.
    fn list(&self) -> Option<SeriesTag> {
        match self {
            Task::Publish(Publication { tag, .. })
            | Task::Put(Name::Kept(tag, _), _)
            | Task::Delete(Name::Kept(tag, _)) => Some(*tag),
            _ => None,
        }
    }
}

/// What is to be done with small objects, in order.
#[derive(Debug, Default)]
pub(super) struct Small {
    pub(super) tasks: Vec<Task>,
    /// Names of series, by their tags, as far as they are known.
    pub(super) series: BTreeMap<SeriesTag, String>,
}

impl Small {
    /// Leaves out what can't be done because the name of a series isn't known, or deletes it, if that may be.
    pub(super) fn without_nameless(&mut self, options: &RepairOptions, names: &BTreeMap<SeriesTag, String>) {
        self.series = names.clone();
        let nameless = |tag: &SeriesTag| !names.contains_key(tag);
        for task in self.tasks.iter_mut().filter(|_| options.remove_nameless) {
            if let Task::Publish(Publication { tag, damaged, .. }) = task
                && nameless(tag)
            {
                *task = Task::Delete(Name::Kept(*tag, *damaged));
            }
        }
        let publishes = |task: &Task| matches!(task, Task::Publish(list) if nameless(&list.tag));
        let waiting: BTreeSet<SeriesTag> =
            self.tasks.iter().filter(|task| publishes(task)).filter_map(Task::list).collect();
        // Nor is a list deleted that the one to be published was to replace.
        self.tasks.retain(|task| task.list().is_none_or(|tag| !waiting.contains(&tag)));
    }
}

/// The lists of what counts as they will be.
pub(super) type Lists = BTreeMap<SeriesTag, Newest>;

/// How many bytes of two salts must agree for two objects to be one, of which one is damaged. Salts are random.
const SALT_ALIKE: usize = 24;

/// Whether a damaged object was the sound one once: whether they have the same salt, nearly.
///
/// A name of a sequence may mean another thing in another repository; a salt is drawn once.
fn was_once(damaged: &[u8], sound: &[u8]) -> bool {
    let salt = |bytes: &[u8]| bytes.get(14..HEADER_LEN).map(<[u8]>::to_vec);
    let (Some(a), Some(b)) = (salt(damaged), salt(sound)) else { return false };
    a.iter().zip(&b).filter(|(a, b)| a == b).count() >= SALT_ALIKE
}

impl Repository {
    /// What is to be done with small objects, and which snapshots will count.
    pub(super) async fn plan_small(&self, options: &RepairOptions, steps: &mut Steps) -> Result<(Small, Lists)> {
        let mut small = Small::default();
        for series in &options.series {
            small.series.insert(self.keyring().series_tag(series), series.clone());
        }
        self.plan_config(&mut small, steps).await?;
        self.plan_keys(options, &mut small, steps).await?;
        self.plan_writers(options, &mut small, steps).await?;
        self.plan_collections(options, &mut small, steps).await?;
        let lists = self.plan_lists(options, &mut small, steps).await?;
        Ok((small, lists))
    }

    /// The names under a prefix that are ours.
    pub(super) async fn known(&self, prefix: &str) -> Result<Vec<(Name, u64)>> {
        let listed = self.store().list(prefix).await?;
        let mut known: Vec<_> =
            listed.into_iter().filter_map(|listed| Some((Name::parse(&listed.name)?, listed.length))).collect();
        known.sort_unstable();
        Ok(known)
    }

    async fn plan_config(&self, small: &mut Small, steps: &mut Steps) -> Result<()> {
        let wanted = self.config_bytes().clone();
        let problem = match self.store().get(layout::CONFIG, CONFIG_MAX).await {
            Ok(bytes) if bytes == wanted => return Ok(()),
            Ok(bytes) => match Config::parse(&bytes) {
                Ok(_) => "it isn't the one that the repository was opened with".to_owned(),
                Err(error) if error.is_unsupported() => {
                    steps.leave(layout::CONFIG, error);
                    return Ok(());
                }
                Err(error) => said(error)?,
            },
            Err(error) => said(error)?,
        };
        steps.add(layout::CONFIG, problem, RepairAction::SealAgain);
        small.tasks.push(Task::Put(Name::Config, wanted));
        Ok(())
    }

    /// A damaged roster is copied, or goes: then the one before it holds.
    async fn plan_roster(
        &self,
        name: Name,
        options: &RepairOptions,
        small: &mut Small,
        steps: &mut Steps,
    ) -> Result<()> {
        let open = |bytes: &[u8]| Roster::open(bytes, name, self.id(), self.keyring().administrator_public());
        let problem = match self.store().get(&name.to_string(), ROSTER_MAX).await.and_then(|bytes| open(&bytes)) {
            Err(Error::Corrupt { reason, .. }) => reason,
            Err(error @ Error::Store { .. }) => return Err(error),
            // What is newer, or isn't the administrator's, does no harm.
            _ => return Ok(()),
        };
        let is_sound = |bytes: &[u8]| match open(bytes)? {
            Some(_) => Ok(()),
            None => Err(Error::corrupt(name, "it isn't the administrator's")),
        };
        let there = match &options.other {
            Some(other) => other.sound_bytes(&name, ROSTER_MAX, is_sound).await?,
            None => None,
        };
        match there {
            Some(bytes) => {
                steps.add(name, problem, RepairAction::CopyObject);
                small.tasks.push(Task::Put(name, bytes));
            }
            None => {
                let advice =
                    "the change of keys that it was is undone if it was the last: look at `key list`, and rotate";
                steps.advise(name, problem, RepairAction::Delete, advice);
                small.tasks.push(Task::Delete(name));
            }
        }
        Ok(())
    }

    async fn plan_keys(&self, options: &RepairOptions, small: &mut Small, steps: &mut Steps) -> Result<()> {
        let mut damaged = Vec::new();
        let mut own_is_sound = false;
        let mut missing: BTreeSet<_> = self.standing().await?.slots().into_iter().collect();
        for (name, _) in self.known(layout::KEYS).await? {
            let Name::Key(id) = name else {
                self.plan_roster(name, options, small, steps).await?;
                continue;
            };
            missing.remove(&id);
            let read = self.store().get(&name.to_string(), SLOT_MAX).await;
            match read.and_then(|bytes| Slot::parse(&bytes, &id)) {
                // It opens nothing here, and isn't ours to delete.
                Ok(slot) if slot.repository() != self.id() => {}
                Ok(_) => own_is_sound |= id == self.slot(),
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_unsupported() => steps.leave(name, error),
                Err(error) => damaged.push((id, said(error)?)),
            }
        }
        damaged.extend(missing.into_iter().map(|id| (id, "it does not exist".to_owned())));
        for (id, problem) in damaged {
            let name = Name::Key(id);
            let there = match &options.other {
                Some(other) => other.sound_bytes(&name, SLOT_MAX, |bytes| Slot::parse(bytes, &id).map(drop)).await?,
                None => None,
            };
            match there {
                Some(bytes) => {
                    steps.add(name, problem, RepairAction::CopyObject);
                    own_is_sound |= id == self.slot();
                    small.tasks.push(Task::Put(name, bytes));
                }
                None if own_is_sound || id != self.slot() => {
                    let advice = "its secret opens the repository no more";
                    steps.advise(name, problem, RepairAction::Delete, advice);
                    small.tasks.push(Task::RemoveKey(id));
                }
                None => {
                    let advice = "it is the one in use: add its secret again with `key add` before anything is closed";
                    steps.advise(name, problem, RepairAction::None, advice);
                }
            }
        }
        Ok(())
    }

    async fn plan_writers(&self, options: &RepairOptions, small: &mut Small, steps: &mut Steps) -> Result<()> {
        for (name, _) in self.known(layout::WRITERS).await? {
            let Name::WriterEnd(id) = name else { continue };
            match read_end(self.store(), self.keyring(), id).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_unsupported() => steps.leave(name, error),
                Err(error) => {
                    let advice = "its writer then seems to run, until a collection fences it";
                    steps.advise(name, said(error)?, RepairAction::Delete, advice);
                    small.tasks.push(Task::Delete(name));
                }
            }
        }
        for writer in registered(self.store(), self.keyring()).await? {
            let name = Name::Writer(writer.id);
            match writer.record {
                Ok(record) => {
                    small.series.insert(self.keyring().series_tag(&record.series), record.series);
                }
                Err(error) if error.is_unsupported() => steps.leave(name, error),
                Err(error) if options.remove_damaged_writers => {
                    steps.add(name, said(error)?, RepairAction::Delete);
                    small.tasks.push(Task::Delete(name));
                }
                Err(error) => {
                    let advice = "its writer may run; once none does, allow damaged registrations to be removed";
                    steps.advise(name, said(error)?, RepairAction::None, advice);
                }
            }
        }
        Ok(())
    }

    async fn plan_collections(&self, options: &RepairOptions, small: &mut Small, steps: &mut Steps) -> Result<()> {
        let (mut damaged, mut newest, mut taken) = (Vec::new(), 0, BTreeSet::new());
        for (name, _) in self.known(layout::COLLECTIONS).await? {
            let (Name::Collection(number) | Name::CollectionEnd(number)) = name else { continue };
            taken.insert(number);
            match collection::is_authentic(self.store(), self.keyring(), name).await {
                Ok(true) => newest = newest.max(number),
                Ok(false) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_unsupported() => steps.leave(name, error),
                Err(error) => damaged.push((number, name, said(error)?)),
            }
        }
        damaged.sort_unstable();
        // Beyond the first free number there can't be one, unless none can be read: those before the last are tidied away.
        let free = (newest + 1..).find(|number| !taken.contains(number)).unwrap_or(u64::MAX);
        let (mut supersede, mut superseded) = (false, Vec::new());
        for (number, name, problem) in damaged {
            if number < newest || number > free && newest > 0 {
                steps.add(name, problem, RepairAction::Delete);
                small.tasks.push(Task::Delete(name));
            } else if let Some(bytes) = self.once_there(options, name).await? {
                steps.add(name, problem, RepairAction::CopyObject);
                small.tasks.push(Task::Put(name, bytes));
            } else {
                let advice = "see to it that no collection runs; records of snapshots forgotten so far are then kept";
                steps.advise(name, problem, RepairAction::Supersede, advice);
                supersede = true;
                // The end of the collection that supersedes the others tidies away what comes before it, and no more.
                superseded.extend((number > free).then_some(Task::Delete(name)));
            }
        }
        if supersede {
            small.tasks.push(Task::Supersede);
            small.tasks.append(&mut superseded);
        }
        Ok(())
    }

    /// A signed object as the other copy has it, if that is what the damaged one was.
    async fn once_there(&self, options: &RepairOptions, name: Name) -> Result<Option<Bytes>> {
        let Some(other) = &options.other else { return Ok(None) };
        let text = name.to_string();
        let signed = match name {
            Name::Kept(tag, number) => {
                kept::read(other.store(), other.keyring(), &tag, number).await.map(|it| it.is_some())
            }
            name => collection::is_authentic(other.store(), other.keyring(), name).await,
        };
        match signed {
            Ok(true) => {}
            Err(error @ Error::Store { .. }) => return Err(error),
            _ => return Ok(None),
        }
        let sound = other.store().get(&text, object::RECORD_MAX).await?;
        let damaged = match self.store().get(&text, object::RECORD_MAX).await {
            Ok(damaged) => damaged,
            Err(error @ Error::Store { .. }) => return Err(error),
            Err(_) => return Ok(None),
        };
        Ok(was_once(&damaged, &sound).then_some(sound))
    }

    async fn plan_lists(&self, options: &RepairOptions, small: &mut Small, steps: &mut Steps) -> Result<Lists> {
        let mut numbers = BTreeMap::<SeriesTag, BTreeSet<u64>>::new();
        for (name, _) in self.known(layout::KEPT).await? {
            if let Name::Kept(tag, number) = name {
                numbers.entry(tag).or_default().insert(number);
            }
        }
        let mut lists = Lists::new();
        for (tag, numbers) in numbers {
            let numbers: Vec<u64> = numbers.into_iter().collect();
            let (mut newest, mut damaged) = (Newest::of(0, Kept::default(), &numbers), Vec::new());
            for number in &numbers {
                match kept::read(self.store(), self.keyring(), &tag, *number).await {
                    Ok(Some(kept)) => newest = Newest::of(*number, kept, &numbers),
                    Ok(None) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) if error.is_unsupported() => steps.leave(Name::Kept(tag, *number), error),
                    Err(error) => damaged.push((*number, said(error)?)),
                }
            }
            self.plan_damaged_lists(options, tag, damaged, &mut newest, small, steps).await?;
            lists.insert(tag, newest);
        }
        self.add_newer_lists(options, &mut lists, small, steps).await?;
        Ok(lists)
    }

    /// What is done about the damaged lists of a series, given the newest that is sound.
    async fn plan_damaged_lists(
        &self,
        options: &RepairOptions,
        tag: SeriesTag,
        damaged: Vec<(u64, String)>,
        newest: &mut Newest,
        small: &mut Small,
        steps: &mut Steps,
    ) -> Result<()> {
        let (sound, next) = (newest.number, newest.next);
        let mut lists = Vec::new();
        for (number, problem) in damaged {
            // Where none can be read any may be the last: those before it are tidied away.
            if number < next || sound == 0 {
                lists.push((number, problem, self.list_once_there(options, tag, number).await?));
            } else {
                let advice = "the lists before it are missing, so that it can't be one";
                steps.advise(Name::Kept(tag, number), problem, RepairAction::Delete, advice);
                small.tasks.push(Task::Delete(Name::Kept(tag, number)));
            }
        }
        // The newest that is known, here or from the copy, holds; and what says so must come after all of them.
        for (number, _, there) in &lists {
            if let Some((_, kept)) = there.as_ref().filter(|_| *number > newest.number) {
                *newest = Newest { number: *number, next, unreadable: None, kept: kept.clone() };
            }
        }
        let known = newest.number;
        let lost = lists.iter().filter(|(number, _, there)| there.is_none() && *number > known);
        let mut gone = BTreeSet::new();
        let published = match lost.map(|(number, ..)| *number).max() {
            Some(number) => {
                (newest.kept, gone) = self.without_gone(options, &tag, newest).await?;
                Some(number)
            }
            // While the name is free, what the list forgot would count again: so another says the same before.
            None => (known > sound).then_some(known),
        };
        if published.is_some() {
            (newest.number, newest.next) = (next, next + 1);
        }
        // What is published comes first: the others may go then.
        lists.sort_by_key(|(number, ..)| published != Some(*number));
        for (number, problem, there) in lists {
            let (name, bytes) = (Name::Kept(tag, number), there.map(|(bytes, _)| bytes));
            let (action, advice) = match &bytes {
                Some(_) => (RepairAction::CopyObject, ""),
                None if number > known => {
                    let advice = "snapshots that it alone forgot count again, as far as their records are there";
                    (RepairAction::PublishList, advice)
                }
                None => (RepairAction::Delete, ""),
            };
            steps.advise(name, problem, action, advice);
            small.tasks.push(match bytes {
                bytes if published == Some(number) => {
                    let (kept, gone) = (newest.kept.clone(), std::mem::take(&mut gone));
                    Task::Publish(Publication { tag, after: sound, kept, gone, damaged: number, bytes })
                }
                Some(bytes) => Task::Put(name, bytes),
                None => Task::Delete(name),
            });
        }
        Ok(())
    }

    /// A list as the copy has it, if that is what the damaged one was.
    async fn list_once_there(
        &self,
        options: &RepairOptions,
        tag: SeriesTag,
        number: u64,
    ) -> Result<Option<(Bytes, Kept)>> {
        let Some(other) = &options.other else { return Ok(None) };
        let Some(bytes) = self.once_there(options, Name::Kept(tag, number)).await? else { return Ok(None) };
        Ok(kept::read(other.store(), other.keyring(), &tag, number).await?.map(|kept| (bytes, kept)))
    }

    /// A list after this one, by which the numbers that have no record any more don't count, and these numbers.
    ///
    /// Only of numbers before one whose record can be read: no other name says that they were come to.
    async fn without_gone(
        &self,
        options: &RepairOptions,
        tag: &SeriesTag,
        newest: &Newest,
    ) -> Result<(Kept, BTreeSet<u64>)> {
        let lines = self.timelines().lines(Some(tag)).await?;
        let mut there: BTreeSet<u64> = lines.names.iter().map(|name| name.number).collect();
        if let Some(other) = &options.other {
            // What is missing here is put back from there.
            there.extend(other.timelines().lines(Some(tag)).await?.names.iter().map(|name| name.number));
        }
        let mut highest = 0;
        for number in there.iter().rev() {
            if self.timelines().read_if_usable(&CommitName { tag: *tag, number: *number }).await?.is_some() {
                highest = *number;
                break;
            }
        }
        // No more numbers than can be looked at one by one; a series has as many records, but for those that were forgotten.
        let highest = highest.min(there.len() as u64 + newest.kept.through + GAP_MAX);
        let is_gone = |number: &u64| newest.kept.counts(*number) && !there.contains(number);
        let gone: BTreeSet<u64> = (1..=highest).filter(is_gone).collect();
        Ok((newest.kept.give_up(&gone, highest), gone))
    }

    /// The newest lists of the copy, as far as they can be read.
    pub(super) async fn lists_there(&self, options: &RepairOptions) -> Result<Lists> {
        let Some(other) = &options.other else { return Ok(Lists::new()) };
        match other.timelines().kept_of(None).await {
            Err(error) => said_there(error).map(|_| Lists::new()),
            theirs => theirs,
        }
    }

    /// Takes lists from the other copy that are newer and forget nothing that is still here: ours are lost then, and
    /// what they forgot was collected.
    ///
    /// Others are left: a copy may keep less than this repository.
    async fn add_newer_lists(
        &self,
        options: &RepairOptions,
        lists: &mut Lists,
        small: &mut Small,
        steps: &mut Steps,
    ) -> Result<()> {
        let Some(other) = &options.other else { return Ok(()) };
        let theirs = self.lists_there(options).await?;
        for (tag, newer) in theirs {
            let own = lists.entry(tag).or_default();
            if newer.number < own.next {
                continue;
            }
            let names = self.timelines().lines(Some(&tag)).await?.names;
            let counts_only_here = |number: u64| own.kept.counts(number) && !newer.kept.counts(number);
            let here = names.iter().any(|name| counts_only_here(name.number));
            if here || !(1..=newer.kept.through).any(counts_only_here) {
                continue;
            }
            let name = Name::Kept(tag, newer.number);
            let bytes = other.store().get(&name.to_string(), object::RECORD_MAX).await?;
            steps.add(name, "it does not exist, and all that it forgot is gone", RepairAction::CopyObject);
            small.tasks.push(Task::Put(name, bytes));
            *own = Newest::of(newer.number, newer.kept, &[]);
        }
        Ok(())
    }

    /// The bytes of an object, if `verify` has nothing against them.
    pub(super) async fn sound_bytes(
        &self,
        name: &Name,
        limit: u64,
        verify: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<Option<Bytes>> {
        match self.store().get(&name.to_string(), limit).await {
            Ok(bytes) => Ok(verify(&bytes).is_ok().then_some(bytes)),
            Err(error @ Error::Store { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Carries out what is to be done with small objects; how many were copied, and how many deleted.
    pub(super) async fn repair_small(&self, small: Small) -> Result<(u64, u64)> {
        let (mut copied, mut deleted) = (0, 0);
        for task in small.tasks {
            match task {
                Task::Put(name, bytes) => {
                    self.replace(name, bytes).await?;
                    copied += u64::from(name != Name::Config);
                }
                Task::Delete(name) => deleted += u64::from(self.delete_unreadable(name).await?),
                Task::RemoveKey(id) => deleted += u64::from(self.remove_unreadable_key(&id).await?),
                Task::Publish(list) => {
                    let (name, bytes) = (Name::Kept(list.tag, list.damaged), list.bytes.clone());
                    self.publish_after(&small.series, list).await?;
                    match bytes {
                        Some(bytes) => {
                            self.replace(name, bytes).await?;
                            copied += 1;
                        }
                        None => deleted += u64::from(self.delete_unreadable(name).await?),
                    }
                }
                Task::Supersede => {
                    // Whatever number a fenced writer may yet put at, it is one of these.
                    let highest = self.timelines().lines(None).await?.highest();
                    let pinned = highest.into_iter().map(|(tag, number)| Numbers { tag, runs: vec![(1, number)] });
                    Collections::new(self.parts().clone()).supersede(pinned.collect()).await?;
                }
            }
        }
        Ok((copied, deleted))
    }

    /// Puts bytes where something else is, or nothing.
    ///
    /// The one place where something is deleted before its replacement is created, since nothing is ever overwritten:
    /// what is there is damaged, and its replacement is durable in the other copy, or can be made again from memory.
    pub(super) async fn replace(&self, name: Name, bytes: Bytes) -> Result<()> {
        let text = name.to_string();
        match self.store().get(&text, bytes.len() as u64).await {
            Ok(found) if found == bytes => return Ok(()),
            Err(error @ Error::Store { .. }) => return Err(error),
            Err(error) if error.is_not_found() => {}
            _ => drop(self.delete_unreadable(name).await?),
        }
        match self.store().create(&text, bytes).await? {
            crate::store::Created::Ours => Ok(()),
            crate::store::Created::Theirs => {
                Err(Error::conflict(text, "something else was put there meanwhile; plan anew"))
            }
        }
    }

    /// Deletes an object that can't be read, unless it can by now; whether there was one.
    pub(super) async fn delete_unreadable(&self, name: Name) -> Result<bool> {
        match self.look_again(name).await {
            Ok(()) => Err(Error::conflict(name, "it can be read again, so nothing was deleted; plan anew")),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => {
                said(error)?;
                self.store().delete(&name.to_string()).await?;
                Ok(true)
            }
        }
    }

    /// What is wrong with an object by now. One that isn't the administrator's has nothing wrong with it.
    async fn look_again(&self, name: Name) -> Result<()> {
        let get = |limit| {
            let name = name.to_string();
            async move { self.store().get(&name, limit).await }
        };
        match name {
            Name::Commit(name) => self.timelines().read(&name).await.map(drop),
            Name::Kept(tag, number) => kept::read(self.store(), self.keyring(), &tag, number).await.map(drop),
            Name::Collection(_) | Name::CollectionEnd(_) => {
                collection::is_authentic(self.store(), self.keyring(), name).await.map(drop)
            }
            Name::Writer(id) => {
                let bytes = get(object::RECORD_MAX).await?;
                open_registration(&bytes, id, self.keyring()).map(drop)
            }
            Name::WriterEnd(id) => read_end(self.store(), self.keyring(), id).await.map(drop),
            Name::Key(id) => Slot::parse(&get(SLOT_MAX).await?, &id).map(drop),
            Name::Roster(..) => {
                let bytes = get(ROSTER_MAX).await?;
                Roster::open(&bytes, name, self.id(), self.keyring().administrator_public()).map(drop)
            }
            // There is one config that is right. What is named by its hash and isn't what was to be put there is damaged.
            Name::Config | Name::Pack(_) | Name::Index(_) | Name::Probe(_) => Err(Error::corrupt(name, "")),
        }
    }

    /// Takes a key slot that can't be read out of the roster, unless it can by now.
    async fn remove_unreadable_key(&self, id: &ObjectId) -> Result<bool> {
        let name = Name::Key(*id);
        match self.look_again(name).await {
            Ok(()) => return Err(Error::conflict(name, "it can be read again, so nothing was removed; plan anew")),
            Err(error) => drop(said(error)?),
        }
        match self.remove_key(id).await {
            Err(error) if error.is_not_found() => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// Publishes a list after damaged ones; first it takes the numbers that are gone by it, so that none of them is
    /// committed meanwhile.
    async fn publish_after(&self, series: &BTreeMap<SeriesTag, String>, list: Publication) -> Result<()> {
        let name = self.series_name(series, &list.tag)?;
        let changed = || Error::conflict(format!("series {name:?}"), "a list was published meanwhile; plan anew");
        let newest = self.timelines().kept(&list.tag).await?;
        if newest.number != list.after {
            return Err(changed());
        }
        self.close_holes(&name, list.tag, &list.gone).await?;
        let before = Newest { unreadable: None, ..newest };
        if kept::publish(self.store(), self.keyring(), self.surroundings(), &name, &before, list.kept).await? {
            Ok(())
        } else {
            Err(changed())
        }
    }

    /// The name of a series.
    pub(super) fn series_name(&self, known: &BTreeMap<SeriesTag, String>, tag: &SeriesTag) -> Result<String> {
        known.get(tag).cloned().ok_or_else(|| {
            Error::invalid(layout::series_prefix(tag), "no sound record tells the name of this series; give it")
        })
    }
}
