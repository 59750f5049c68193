//! Collections: the only authority by which packs, index segments and records are deleted.
//!
//! ```text
//! gc/<n>          what collection n has condemned
//! gc/<n>-ended    nothing of that is there any more
//! ```
//! Both are signed records (object.rs). `gc/n` is planned from listings that
//! began after the one before had ended, and create-if-absent picks one of those
//! who plan it. Who finds one that hasn't ended may carry it out.
//!
//! Owns the records and their order. Doesn't know what may be condemned.
//!
//! Invariant: what the administrator didn't sign counts for nothing, so that
//! whoever can only add can neither condemn anything nor say that a collection
//! has ended whose deletions are still to come.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::blobs::{Condemned, Parts};
use crate::clock::Timestamp;
use crate::codec::{Decode, Encode, Extended, Extensions};
use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::{ObjectId, SeriesTag, WriterId};
use crate::layout::{self, Name};
use crate::object;
use crate::store::{Created, Store};

/// How often the sequence is listed anew when it moves on before it is read.
const ATTEMPTS: usize = 5;

/// What a collection's record says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct CollectionRecord {
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
    pub(crate) body: CollectionBody,
    pub(crate) extensions: Extensions,
}

impl Extended for CollectionRecord {
    fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

/// Whether it begins a collection or ends one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum CollectionBody {
    /// These are condemned.
    Begun(Plan),
    /// Nothing of that is there any more.
    Ended(Ended),
}

/// By what right packs are deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Authority {
    /// All that is in them is in packs that stay; each is looked at again before it is deleted.
    #[default]
    Copied,
    /// No snapshot needed what is only in them, and what those since need is copied.
    Unneeded,
    /// They can't be read whole, and all that can be read of them is copied: no writer need be waited for.
    Damaged,
}

/// What is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Plan {
    pub(crate) authority: Authority,
    /// Packs, ascending.
    pub(crate) packs: Vec<ObjectId>,
    /// Index segments, ascending.
    pub(crate) segments: Vec<ObjectId>,
    /// Records of snapshots that were forgotten and that the first mark left out, by series.
    pub(crate) records: Vec<Numbers>,
    /// The number of each series up to which every snapshot that counts was marked first: those after it are marked again.
    pub(crate) marked: Vec<(SeriesTag, u64)>,
    /// The registrations that were listed after that, ascending, and the number from which on each contends at the
    /// earliest; nothing if there were too many. Those that aren't among them contend for numbers after the marked ones.
    pub(crate) registered: Option<Vec<(WriterId, u64)>>,
    /// What the end of the collection before handed on.
    pub(crate) inherited: Ended,
}

/// What the end of a collection hands on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Ended {
    /// Numbers that a writer that was fenced may yet put its record at, so that none of them is ever freed.
    pub(crate) pinned: Vec<Numbers>,
    /// The registrations that this collection fenced, ascending: these are removed, and no others.
    pub(crate) fenced: Vec<WriterId>,
}

/// Runs of numbers of a series, from a first to a last one, ascending and apart.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Numbers {
    pub(crate) tag: SeriesTag,
    pub(crate) runs: Vec<(u64, u64)>,
}

impl Numbers {
    /// From single ones.
    pub(crate) fn gather(numbers: impl IntoIterator<Item = (SeriesTag, u64)>) -> Vec<Self> {
        let sorted: BTreeSet<_> = numbers.into_iter().collect();
        let mut gathered = BTreeMap::<SeriesTag, Vec<(u64, u64)>>::new();
        for (tag, number) in sorted {
            let runs = gathered.entry(tag).or_default();
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        gathered.into_iter().map(|(tag, runs)| Self { tag, runs }).collect()
    }

    /// Whether a number of a series is among those of a list.
    pub(crate) fn contain(list: &[Self], tag: &SeriesTag, number: u64) -> bool {
        let of_series = list.iter().filter(|numbers| numbers.tag == *tag);
        of_series.flat_map(|numbers| &numbers.runs).any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// How many numbers a list has.
    pub(crate) fn count(list: &[Self]) -> u64 {
        list.iter().flat_map(|numbers| &numbers.runs).map(|(first, last)| last.saturating_sub(*first) + 1).sum()
    }

    /// Adds a run, and joins those that meet: a list that is handed on for ever takes no more room than it must.
    pub(crate) fn add(list: &mut Vec<Self>, tag: SeriesTag, run: (u64, u64)) {
        let Some(numbers) = list.iter_mut().find(|numbers| numbers.tag == tag) else {
            list.push(Self { tag, runs: vec![run] });
            return;
        };
        numbers.runs.push(run);
        numbers.runs.sort_unstable();
        numbers.runs.dedup_by(|next, before| {
            let meets = next.0 <= before.1.saturating_add(1);
            if meets {
                before.1 = before.1.max(next.1);
            }
            meets
        });
    }
}

/// Where the sequence of collections stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The number of the last that was begun, or 0.
    pub(crate) number: u64,
    /// The number that the next collection contends for: the first after it that nothing has.
    pub(crate) next: u64,
    pub(crate) state: State,
}

/// Whether the last collection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has, or none was begun.
    Idle(Ended),
    /// It was begun and hasn't ended.
    Open(Plan),
}

impl Standing {
    /// After collection `number`, where these numbers are taken, in ascending order.
    ///
    /// Names beyond a free one are made up: whoever begins a collection takes the first that is free.
    fn new(number: u64, state: State, taken: impl Iterator<Item = u64>) -> Self {
        let mut next = number + 1;
        for number in taken {
            next += u64::from(number == next);
        }
        Self { number, next, state }
    }

    /// What it has condemned, if it hasn't ended.
    pub(crate) fn open(&self) -> Option<&Plan> {
        match &self.state {
            State::Open(plan) => Some(plan),
            State::Idle(_) => None,
        }
    }
}

/// Reads and writes the sequence of collections.
#[derive(Clone, Debug)]
pub(crate) struct Collections {
    parts: Parts,
}

impl Collections {
    /// Those of a repository.
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Where the sequence stands.
    pub(crate) async fn standing(&self) -> Result<Standing> {
        standing(&self.parts.store, &self.parts.keyring).await
    }

    /// Begins the collection after `before`, unless someone else does; its number.
    pub(crate) async fn begin(&self, before: &Standing, mut plan: Plan) -> Result<Option<u64>> {
        let number = before.next;
        if number > layout::NUMBER_MAX {
            return Err(Error::invalid("a collection", "the numbers have run out"));
        }
        if plan.authority != Authority::Unneeded {
            // It looks at no series; what is known of the writers stays true.
            Plan { marked: plan.marked, registered: plan.registered, .. } = self.known(before.number).await?;
        }
        if self.create(Name::Collection(number), number, CollectionBody::Begun(plan)).await? == Created::Theirs {
            return Ok(None);
        }
        // A create that comes late may find a name free that was tidied away. Then there is a higher one.
        let now = self.standing().await?;
        Ok((now.number == number && now.open().is_some()).then_some(number))
    }

    /// The last collection and what it has condemned, whether it has ended or not.
    pub(crate) async fn last_begun(&self) -> Result<Option<(u64, Plan)>> {
        let number = self.standing().await?.number;
        Ok(self.begun(number).await?.map(|plan| (number, plan)))
    }

    /// What a collection knew that has ended and is the last one; nothing where that can't be read any more.
    pub(crate) async fn known(&self, number: u64) -> Result<Plan> {
        match self.begun(number).await {
            Ok(plan) => Ok(plan.unwrap_or_default()),
            Err(error @ Error::Store { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "what the last collection knew of writers can't be read, so more numbers are pinned");
                Ok(Plan::default())
            }
        }
    }

    /// What a collection condemned, whether it has ended or not; nothing for number 0.
    async fn begun(&self, number: u64) -> Result<Option<Plan>> {
        if number == 0 {
            return Ok(None);
        }
        let Parts { store, keyring, .. } = &self.parts;
        Ok(match read(store, keyring, Name::Collection(number), number).await? {
            Some(CollectionBody::Begun(plan)) => Some(plan),
            _ => None,
        })
    }

    /// Whether a collection hasn't ended yet.
    pub(crate) async fn is_open(&self, number: u64) -> Result<bool> {
        let standing = self.standing().await?;
        Ok(standing.number == number && standing.open().is_some())
    }

    /// Says that a collection has ended, and tidies away those before it, which nobody reads any more; what its end hands
    /// on, which may be another's word.
    ///
    /// The highest of the sequence stays: its name must never be free again.
    pub(crate) async fn end(&self, number: u64, ended: Ended) -> Result<Ended> {
        let (name, body) = (Name::CollectionEnd(number), CollectionBody::Ended(ended.clone()));
        let store = &self.parts.store;
        let mut holds = ended;
        for attempt in 1.. {
            if self.create(name, number, body.clone()).await? == Created::Ours {
                break;
            }
            if let Some(theirs) = self.end_of(number).await? {
                holds = theirs;
                break;
            }
            if attempt == ATTEMPTS {
                let reason = "somebody puts other things there; keep them from it, and run it again";
                return Err(Error::conflict(name, reason));
            }
            // Who can only add has put something there: until it is said, nothing is at an end. Looked at twice, as the
            // first look may have been the wire's fault.
            if self.end_of(number).await?.is_none() {
                store.delete(&name.to_string()).await?;
            }
        }
        for listed in store.list(layout::COLLECTIONS).await? {
            if let Some(name @ (Name::Collection(older) | Name::CollectionEnd(older))) = Name::parse(&listed.name)
                && older < number
                && let Err(error) = store.delete(&name.to_string()).await
            {
                tracing::warn!(%error, "could not tidy away an old collection; a later one will");
            }
        }
        Ok(holds)
    }

    /// What the end of a collection hands on; nothing if there is none, or what is there is certainly no end.
    async fn end_of(&self, number: u64) -> Result<Option<Ended>> {
        let Parts { store, keyring, .. } = &self.parts;
        match read(store, keyring, Name::CollectionEnd(number), number).await {
            Ok(Some(CollectionBody::Ended(ended))) => Ok(Some(ended)),
            Ok(_) | Err(Error::Corrupt { .. } | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts an end to a sequence whose newest records are damaged: begins and ends a collection of nothing after them.
    ///
    /// What they handed on can't be known, so `pinned` must hold every number that a fenced writer may yet put at.
    pub(crate) async fn supersede(&self, pinned: Vec<Numbers>) -> Result<()> {
        let Parts { store, keyring, .. } = &self.parts;
        let numbers = list(store).await?;
        let mut newest = 0;
        let mut inherited = Ended::default();
        'newest: for number in numbers.keys().rev().copied() {
            for name in [Name::CollectionEnd(number), Name::Collection(number)] {
                match read(store, keyring, name, number).await {
                    Ok(Some(CollectionBody::Ended(ended) | CollectionBody::Begun(Plan { inherited: ended, .. }))) => {
                        (newest, inherited) = (number, ended);
                        break 'newest;
                    }
                    Err(error @ Error::Store { .. }) => return Err(error),
                    _ => {}
                }
            }
        }
        if newest == 0 {
            // Where none can be read the sequence must not begin anew: writers state up to which number they have seen it.
            // What is made up far beyond doesn't use its numbers up.
            newest = numbers.keys().copied().filter(|number| *number <= layout::NUMBER_MAX / 2).max().unwrap_or(0);
        }
        let number = Standing::new(newest, State::Idle(Ended::default()), numbers.into_keys()).next;
        for Numbers { tag, runs } in pinned {
            runs.into_iter().for_each(|run| Numbers::add(&mut inherited.pinned, tag, run));
        }
        let plan = Plan { authority: Authority::Damaged, inherited: inherited.clone(), ..Plan::default() };
        if self.create(Name::Collection(number), number, CollectionBody::Begun(plan)).await? == Created::Theirs {
            return Err(Error::conflict("the collection", "another one was begun meanwhile; plan anew"));
        }
        self.end(number, inherited).await.map(drop)
    }

    async fn create(&self, name: Name, number: u64, body: CollectionBody) -> Result<Created> {
        let name = name.to_string();
        let Parts { store, keyring, surroundings, .. } = &self.parts;
        let (time, extensions) = (surroundings.clock.now(), Extensions::default());
        let record = CollectionRecord { number, time, body, extensions };
        let sealed = object::seal_signed(&record, Kind::Collection, &name, keyring, surroundings)?;
        if sealed.len() as u64 > object::RECORD_MAX {
            return Err(Error::invalid("a collection", "it would condemn too many packs at a time"));
        }
        store.create(&name, Bytes::from(sealed)).await
    }
}

/// What a writer knows of the collections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The number of the last one.
    pub(crate) number: u64,
    /// What it has condemned, unless it has ended.
    pub(crate) condemned: Condemned,
    /// The names that were there.
    names: BTreeMap<u64, (bool, bool)>,
}

/// Looks at the collections: one listing, and one or two reads where there ever was one, unless what is there is known.
pub(crate) async fn look_at(store: &Store, keyring: &Keyring, known: &Known) -> Result<Known> {
    let names = list(store).await?;
    // Nothing that has one of these names is ever exchanged.
    if names == known.names {
        return Ok(known.clone());
    }
    let standing = match look(store, keyring, names.clone()).await {
        // It ended, and a later one tidied it away.
        Err(error) if error.is_not_found() => standing(store, keyring).await?,
        other => other?,
    };
    let condemned = standing.open().map(|plan| Condemned::new(plan.packs.clone())).unwrap_or_default();
    Ok(Known { number: standing.number, condemned, names })
}

/// The number of the last collection, given that it was `last` before: one listing, and reads where there is something
/// after that.
pub(crate) async fn newest(store: &Store, keyring: &Keyring, last: u64) -> Result<u64> {
    let numbers = list(store).await?;
    if numbers.last_key_value().is_none_or(|(number, _)| *number <= last) {
        return Ok(last);
    }
    Ok(standing(store, keyring).await?.number.max(last))
}

/// Where the sequence of collections stands, for whoever has no more than the store and the keys.
pub(crate) async fn standing(store: &Store, keyring: &Keyring) -> Result<Standing> {
    for _ in 0..ATTEMPTS {
        match look(store, keyring, list(store).await?).await {
            // It ended, and a later one tidied it away.
            Err(error) if error.is_not_found() => {}
            other => return other,
        }
    }
    look(store, keyring, list(store).await?).await
}

/// The numbers that are taken, and whether by a beginning and by an end.
async fn list(store: &Store) -> Result<BTreeMap<u64, (bool, bool)>> {
    let mut numbers = BTreeMap::<u64, (bool, bool)>::new();
    for listed in store.list(layout::COLLECTIONS).await? {
        match Name::parse(&listed.name) {
            Some(Name::Collection(number)) => numbers.entry(number).or_default().0 = true,
            Some(Name::CollectionEnd(number)) => numbers.entry(number).or_default().1 = true,
            // What a newer build may collect, an older one must know of by a feature in the config, not by a name here.
            _ => store.put_aside(&listed.name, Error::corrupt(&listed.name, "it is no collection's name")),
        }
    }
    Ok(numbers)
}

async fn look(store: &Store, keyring: &Keyring, numbers: BTreeMap<u64, (bool, bool)>) -> Result<Standing> {
    let mut unreadable = Vec::new();
    let (mut last, mut state) = (0, State::Idle(Ended::default()));
    for (number, (begun, ended)) in numbers.iter().rev() {
        match standing_at(store, keyring, *number, (*begun, *ended)).await {
            Ok(Some(found)) => {
                (last, state) = (*number, found);
                break;
            }
            Ok(None) => tracing::warn!(number, "a collection isn't the administrator's, and is ignored"),
            Err(error @ (Error::Store { .. } | Error::NotFound { .. })) => return Err(error),
            // It was begun, whatever the numbers before it say, and whether it has ended isn't known.
            Err(error) if *begun && *ended && is_begun(store, keyring, *number).await? => return Err(not_known(error)),
            Err(error) => unreadable.push((*number, error)),
        }
    }
    let standing = Standing::new(last, state, numbers.into_keys());
    for (number, error) in unreadable {
        // It may have been the last one, and what it condemned isn't known. One beyond a free number can't have been,
        // unless none can be read: those before the last are tidied away.
        if number < standing.next || last == 0 {
            return Err(not_known(error));
        }
        store.put_aside(Name::Collection(number), error);
    }
    Ok(standing)
}

/// Says what to do about a collection that can't be read.
fn not_known(error: Error) -> Error {
    match error {
        Error::Corrupt { object, reason } => {
            let reason = format!("{reason}, so that nobody knows what is being deleted; repair the repository");
            Error::Corrupt { object, reason }
        }
        other => other,
    }
}

/// What the objects of one collection say of where it stands; nothing if they aren't the administrator's.
async fn standing_at(
    store: &Store,
    keyring: &Keyring,
    number: u64,
    (begun, ended): (bool, bool),
) -> Result<Option<State>> {
    if ended
        && let Some(CollectionBody::Ended(ended)) = read(store, keyring, Name::CollectionEnd(number), number).await?
    {
        return Ok(Some(State::Idle(ended)));
    }
    if begun && let Some(CollectionBody::Begun(plan)) = read(store, keyring, Name::Collection(number), number).await? {
        return Ok(Some(State::Open(plan)));
    }
    Ok(None)
}

/// Whether it is certain that a collection was begun, whatever stands under the name of its end.
async fn is_begun(store: &Store, keyring: &Keyring, number: u64) -> Result<bool> {
    match read(store, keyring, Name::Collection(number), number).await {
        Err(error @ (Error::Store { .. } | Error::NotFound { .. })) => Err(error),
        read => Ok(matches!(read, Ok(Some(_)))),
    }
}

/// Whether an object of a collection is the administrator's; an error if it is damaged.
pub(crate) async fn is_authentic(store: &Store, keyring: &Keyring, name: Name) -> Result<bool> {
    match name {
        Name::Collection(number) | Name::CollectionEnd(number) => {
            Ok(read(store, keyring, name, number).await?.is_some())
        }
        _ => Ok(false),
    }
}

/// What one object of a collection says; nothing if the administrator didn't sign it.
///
/// One that seems to be damaged is read twice: the first time may have been the store's or the wire's fault, and what is
/// damaged at a collection's end is deleted.
async fn read(store: &Store, keyring: &Keyring, name: Name, number: u64) -> Result<Option<CollectionBody>> {
    let text = name.to_string();
    let look = async || open(&store.get(&text, object::RECORD_MAX).await?, keyring, name, number);
    match look().await {
        Err(error) if error.is_corrupt() => look().await,
        read => read,
    }
}

/// Opens an object of a collection from its bytes; nothing if the administrator didn't sign it.
pub(crate) fn open(bytes: &[u8], keyring: &Keyring, name: Name, number: u64) -> Result<Option<CollectionBody>> {
    let (name, ends) = (name.to_string(), matches!(name, Name::CollectionEnd(_)));
    let opened = object::open_signed::<CollectionRecord>(bytes, Kind::Collection, &name, keyring)?;
    let Some(record) = opened else { return Ok(None) };
    let sound = match &record.body {
        CollectionBody::Begun(plan) => !ends && plan.is_sound(),
        CollectionBody::Ended(ended) => ends && ended.is_sound(),
    };
    if sound && record.number == number {
        Ok(Some(record.body))
    } else {
        Err(Error::corrupt(name, "it says something else than its name"))
    }
}

impl Plan {
    /// The number of a series from which on a registration contends at the earliest, as far as this collection knows.
    ///
    /// One that was listed after its first mark's records contends for a number that none of these has, since its writer
    /// looked for the number after it had registered. What a registration itself says anybody could write who has a key.
    pub(crate) fn earliest(&self, writer: &WriterId, tag: &SeriesTag) -> u64 {
        let Some(registered) = &self.registered else { return 1 };
        if let Ok(at) = registered.binary_search_by_key(writer, |(id, _)| *id) {
            return registered[at].1;
        }
        let marked = self.marked.binary_search_by_key(tag, |(tag, _)| *tag);
        marked.map_or(1, |at| self.marked[at].1.saturating_add(1))
    }

    fn is_sound(&self) -> bool {
        self.packs.is_sorted_by(|a, b| a < b)
            && self.segments.is_sorted_by(|a, b| a < b)
            && are_sound(&self.records)
            && self.inherited.is_sound()
            && self.marked.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.registered.iter().all(|registered| registered.is_sorted_by(|(a, _), (b, _)| a < b))
    }
}

impl Ended {
    fn is_sound(&self) -> bool {
        are_sound(&self.pinned) && self.fenced.is_sorted_by(|a, b| a < b)
    }
}

fn are_sound(list: &[Numbers]) -> bool {
    list.iter()
        .flat_map(|numbers| &numbers.runs)
        .all(|(first, last)| (1..=*last).contains(first) && *last <= layout::NUMBER_MAX)
}

#[cfg(test)]
mod tests;
