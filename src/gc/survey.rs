//! What each pack holds, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::clock::Timestamp;
use crate::collection::{Numbers, Standing, State};
use crate::cpu;
use crate::error::{Error, Result};
use crate::gc::generations::OldKeys;
use crate::gc::mark::Strictness;
use crate::gc::marks::{Marks, Place};
use crate::gc::{GcOptions, PackFate, PackReason};
use crate::id::{ObjectId, SeriesTag, WriterId};
use crate::index::{Location, PackRef, RecentPack, Segment, SegmentBuilder, Want};
use crate::kept::Newest;
use crate::layout::{self, CommitName, Name};
use crate::merge::{choose_packs, choose_segments, lengths};
use crate::object::object_id;
use crate::pack::{BLOCKS_START, parse_header};
use crate::repository::Repository;
use crate::snapshot::{Lines, Placed};

/// Records, footers and headers read at a time.
const CONCURRENCY: usize = 16;

/// Packs that one collection condemns at most: 12 of the 16 MiB that its record may have.
const PACKS_MAX: usize = (12 << 20) / ObjectId::LEN;

/// Blobs of packs that no segment describes are gathered to a table when they come to this many.
const SPARE_BLOBS: usize = 1 << 19;

/// A segment is rewritten if more than one in so many of its entries are about packs that are gone or go,
const STALE_SHARE: u64 = 5;

/// or if any is and it has no more entries than this.
const SMALL_SEGMENT: u64 = 20_000;

/// What a collection is decided on.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) snapshots: u64,
    pub(super) undeletable: u64,
    pub(super) needed_blobs: u64,
    pub(super) unneeded_blobs: u64,
    pub(super) pack_bytes: u64,
    pub(super) spared: u64,
    pub(super) leftovers: u64,
    pub(super) fates: Vec<PackFate>,
    /// What is sealed under older keys, whether it goes or not.
    pub(super) old: OldKeys,
    /// Packs that no segment describes and whose content is known.
    pub(super) undescribed: Vec<PackRef>,
    /// Index segments to rewrite, with their lengths.
    pub(super) segments: Vec<(ObjectId, u64)>,
    /// Records that go.
    pub(super) records: Vec<Numbers>,
    /// The number of each series up to which every snapshot that counts was looked at.
    pub(super) marked: Vec<(SeriesTag, u64)>,
    /// From which number on each writer that runs contends at the earliest.
    pub(super) registered: Option<Vec<(WriterId, u64)>>,
    pub(super) marks: Arc<Marks>,
    /// The packs that were there: each is described by a segment, or will be if it stays.
    pub(super) listed: HashSet<ObjectId>,
}

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Marks").finish_non_exhaustive()
    }
}

/// The number of each series up to which none is missing that counts.
///
/// A listing need not show what is committed while it is made, and may show a later one: what it left out must be among
/// those that are marked again.
fn marked(lines: &Lines) -> BTreeMap<SeriesTag, u64> {
    let mut marked = BTreeMap::new();
    for names in lines.names.chunk_by(|a, b| a.tag == b.tag) {
        let tag = names[0].tag;
        let mut reached = 0;
        for name in names {
            if (reached + 1..name.number).any(|number| lines.counts(&CommitName { tag, number })) {
                break;
            }
            reached = name.number;
        }
        marked.insert(tag, reached);
    }
    marked
}

/// The records that go: forgotten for good, not the highest of their series, and not such that a writer that was fenced
/// could yet put its own there.
fn condemned(lines: &Lines, pinned: &[Numbers], now: Timestamp) -> Vec<Numbers> {
    let highest = lines.highest();
    let goes = |name: &&CommitName| {
        let is_highest = highest.get(&name.tag) == Some(&name.number);
        !lines.is_root(name, now) && !is_highest && !Numbers::contain(pinned, &name.tag, name.number)
    };
    Numbers::gather(lines.names.iter().filter(goes).map(|name| (name.tag, name.number)))
}

/// How much of a pack is needed, by the lengths of its blobs as stored.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    length: u64,
    total: u64,
    /// Of what is nowhere else.
    sole: u64,
    /// Of what is elsewhere, too.
    shared: u64,
    /// What it must be kept for.
    needed: u64,
}

type Uses = BTreeMap<ObjectId, Use>;

/// How much of its pack a blob takes up, roughly.
fn weight(location: &Location) -> u64 {
    let Location { place, length, .. } = location;
    (u64::from(place.stored_len) * u64::from(*length)).div_ceil(u64::from(place.plain_len).max(1))
}

impl Repository {
    /// Marks what all snapshots need, and weighs the packs.
    pub(super) async fn survey_packs(&self, before: &Standing, options: &GcOptions) -> Result<Survey> {
        let (lines, now) = (self.timelines().lines(None).await?, self.surroundings().clock.now());
        lines.require_lists()?;
        self.timelines().require_reached(&lines).await?;
        let running = self.unaware_writers(u64::MAX).await?;
        let registered = self.earliest_numbers(before, &running).await?;
        let (overdue, spared): (Vec<_>, Vec<_>) = running.iter().partition(|writer| self.is_overdue(writer, options));
        // The packs of the others are about to be needed.
        let writers: BTreeSet<WriterId> = spared.into_iter().map(|writer| writer.id).collect();
        self.index().refresh(Want::All).await?;
        self.index().require_known()?;
        let listed: Vec<_> = lengths(self.store().list(layout::PACKS).await?, layout::parse_pack).collect();
        let (tables, undescribed) = self.tables(&listed).await?;
        let marks = Arc::new(Marks::new(tables));

        let snapshots = self.mark_roots(&marks, (&lines, now), Strictness::Strict).await?;
        self.require_packs(&marks, &listed).await?;
        let undeletable = self.mark_roots(&marks, (&lines, now), Strictness::Lenient).await?;

        let pinned = match &before.state {
            State::Idle(ended) => ended.pinned.clone(),
            State::Open(plan) => plan.inherited.pinned.clone(),
        };
        let mut survey = Survey {
            snapshots,
            undeletable,
            needed_blobs: 0,
            unneeded_blobs: 0,
            pack_bytes: listed.iter().map(|(_, length)| length).sum(),
            spared: 0,
            leftovers: self.leftovers(&lines.kept, before.number).await? + overdue.len() as u64,
            fates: Vec::new(),
            old: self.old_keys(&marks, &listed).await?,
            undescribed,
            segments: Vec::new(),
            records: condemned(&lines, &pinned, now),
            marked: marked(&lines).into_iter().collect(),
            registered,
            marks: Arc::clone(&marks),
            listed: listed.iter().map(|(id, _)| *id).collect(),
        };
        let (uses, needed, unneeded) = cpu::block(move || weigh(&marks, &listed)).await?;
        // A writer that runs describes its own, or names them.
        survey.undescribed.retain(|pack| uses.get(&pack.id).is_some_and(|used| used.sole + used.shared > 0));
        (survey.needed_blobs, survey.unneeded_blobs) = (needed, unneeded);
        self.decide(&mut survey, &uses, &writers, options).await?;
        self.choose_segments(&mut survey, options).await?;
        Ok(survey)
    }

    /// The segments, and further ones of packs that none of them describes, with these.
    async fn tables(&self, listed: &[(ObjectId, u64)]) -> Result<(Vec<Arc<Segment>>, Vec<PackRef>)> {
        let mut tables = self.index().segments();
        let mut described = HashSet::new();
        for segment in &tables {
            described.extend(segment.packs()?);
        }
        let undescribed: Vec<_> = listed.iter().filter(|(id, _)| !described.contains(id)).copied().collect();
        let (store, keyring) = (self.store().clone(), Arc::clone(self.keyring()));
        let read = |(id, length): (ObjectId, u64)| {
            let (store, keyring) = (store.clone(), Arc::clone(&keyring));
            async move { (id, RecentPack::read(id, length, &store, &keyring).await) }
        };
        let mut footers = futures::stream::iter(undescribed).map(read).buffered(CONCURRENCY);
        let (mut builder, mut blobs, mut known) = (SegmentBuilder::default(), 0, Vec::new());
        while let Some((id, footer)) = footers.next().await {
            match footer {
                Ok(pack) => {
                    builder.add_pack(pack.row, &pack.footer)?;
                    blobs += pack.len();
                    known.push(pack.pack);
                }
                // One of a later version may need what this build takes for garbage.
                Err(error @ (Error::Store { .. } | Error::Unsupported { .. })) => return Err(error),
                // It is no reason to delete the pack: nobody knows what is in it.
                Err(error) => tracing::warn!(pack = %id, %error, "a pack that no segment describes can't be read"),
            }
            if blobs >= SPARE_BLOBS {
                self.add_tables(std::mem::take(&mut builder), &mut tables).await?;
                blobs = 0;
            }
        }
        self.add_tables(builder, &mut tables).await?;
        Ok((tables, known))
    }

    async fn add_tables(&self, mut builder: SegmentBuilder, tables: &mut Vec<Arc<Segment>>) -> Result<()> {
        while !builder.is_empty() {
            let doubled = builder.split_doubled()?;
            tables.push(self.table(std::mem::replace(&mut builder, doubled)).await?);
        }
        Ok(())
    }

    async fn table(&self, builder: SegmentBuilder) -> Result<Arc<Segment>> {
        let (keyring, surroundings) = (Arc::clone(self.keyring()), self.surroundings().clone());
        let table = cpu::start(move || {
            let bytes = Bytes::from(builder.seal(&keyring, &surroundings)?);
            let mut segment = Segment::from_bytes(object_id(&bytes), bytes, &keyring)?;
            segment.build_filter()?;
            Ok(segment)
        });
        table.await.map(Arc::new)
    }

    /// Marks what the snapshots need that count, or those that were forgotten and can be undeleted; how many there are.
    async fn mark_roots(
        &self,
        marks: &Arc<Marks>,
        (lines, now): (&Lines, Timestamp),
        strictness: Strictness,
    ) -> Result<u64> {
        let is_strict = strictness == Strictness::Strict;
        let roots = lines.names.iter().filter(|name| lines.is_root(name, now) && lines.counts(name) == is_strict);
        // By value, or the future could not be sent to another thread.
        let roots: Vec<_> = roots.copied().collect();
        let read = |name: CommitName| async move { (name, self.timelines().read_needed(&name, now).await) };
        let mut reading = futures::stream::iter(roots).map(read).buffered(CONCURRENCY);
        let mut count = 0;
        while let Some((name, placed)) = reading.next().await {
            match placed {
                Ok(placed) => {
                    if let Some(snapshot) = placed.and_then(Placed::into_snapshot) {
                        self.mark(marks, &snapshot, strictness).await?;
                        count += 1;
                    }
                }
                Err(error) if is_strict || !error.is_corrupt() => return Err(error),
                Err(error) => {
                    tracing::warn!(name = %Name::Commit(name), %error, "a record that was forgotten can't be read");
                }
            }
        }
        Ok(count)
    }

    /// Makes sure that everything that is marked is in a pack that is there.
    async fn require_packs(&self, marks: &Arc<Marks>, listed: &[(ObjectId, u64)]) -> Result<()> {
        let marks = Arc::clone(marks);
        let there: HashSet<ObjectId> = listed.iter().map(|(id, _)| *id).collect();
        let missing = cpu::block(move || {
            let mut missing = None;
            marks.for_each(|id, is_needed, places| {
                if is_needed && !places.iter().any(|place| there.contains(&place.location.pack.id)) {
                    missing = places.first().map(|place| (*id, place.location.pack.id));
                }
                Ok(())
            })?;
            Ok(missing)
        });
        match missing.await? {
            None => Ok(()),
            Some((id, pack)) => {
                let reason =
                    format!("it is gone, and snapshots need blob {id} of it; check and repair before collecting");
                Err(Error::corrupt(Name::Pack(pack), reason))
            }
        }
    }

    /// How many lists and collections are replaced by newer ones.
    async fn leftovers(&self, kept: &BTreeMap<SeriesTag, Newest>, last: u64) -> Result<u64> {
        let (lists, collections) =
            futures::try_join!(self.store().list(layout::KEPT), self.store().list(layout::COLLECTIONS))?;
        let is_old = |name: Name| match name {
            Name::Kept(tag, number) => kept.get(&tag).is_some_and(|newest| number < newest.number),
            Name::Collection(number) | Name::CollectionEnd(number) => number < last,
            _ => false,
        };
        let listed = lists.iter().chain(&collections);
        Ok(listed.filter_map(|listed| Name::parse(&listed.name)).filter(|name| is_old(*name)).count() as u64)
    }

    /// Decides what becomes of each pack.
    async fn decide(
        &self,
        survey: &mut Survey,
        uses: &Uses,
        writers: &BTreeSet<WriterId>,
        options: &GcOptions,
    ) -> Result<()> {
        let mut fates = Vec::new();
        let mut small = Vec::new();
        for (pack, used) in uses {
            let fate = |reason| PackFate { pack: *pack, reason, bytes: used.length, needed_bytes: used.needed };
            #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
            let waste = 1.0 - used.needed as f64 / used.total.max(1) as f64;
            if used.needed == 0 {
                fates.push(fate(PackReason::Unneeded));
            } else if options.rewrite_old_keys && survey.old.packs.contains_key(pack) {
                fates.push(fate(PackReason::OldKeys));
            } else if waste > options.waste_max {
                fates.push(fate(PackReason::Sparse));
            } else {
                small.push((*pack, used.length));
            }
        }
        for (pack, length) in choose_packs(small.into_iter()) {
            let needed_bytes = uses.get(&pack).map_or(0, |used| used.needed);
            fates.push(PackFate { pack, reason: PackReason::Small, bytes: length, needed_bytes });
        }
        let going = fates.len();
        let mut fates = self.without_those_of(writers, fates).await?;
        survey.spared = (going - fates.len()) as u64;
        fates.sort_unstable_by_key(|fate| (std::cmp::Reverse(fate.bytes), fate.pack));
        // The others go at the next collection: a record names each of them.
        fates.truncate(PACKS_MAX);
        survey.fates = fates;
        Ok(())
    }

    /// Leaves out the packs that writers made which still run: they are about to be needed.
    async fn without_those_of(&self, writers: &BTreeSet<WriterId>, fates: Vec<PackFate>) -> Result<Vec<PackFate>> {
        if writers.is_empty() {
            return Ok(fates);
        }
        let look = |fate: PackFate| async move {
            let name = Name::Pack(fate.pack).to_string();
            let head = self.store().get_range(&name, 0..BLOCKS_START as u64).await;
            match head.and_then(|head| parse_header(&head, &name)) {
                Ok((_, writer)) => Ok((!writers.contains(&writer)).then_some(fate)),
                Err(error @ (Error::Store { .. } | Error::Unsupported { .. })) => Err(error),
                Err(_) => Ok(Some(fate)),
            }
        };
        let looked: Vec<_> = futures::stream::iter(fates).map(look).buffered(CONCURRENCY).try_collect().await?;
        Ok(looked.into_iter().flatten().collect())
    }

    /// Chooses the index segments that are worth rewriting.
    async fn choose_segments(&self, survey: &mut Survey, options: &GcOptions) -> Result<()> {
        let listed: Vec<_> = lengths(self.store().list(layout::INDEX).await?, layout::parse_segment).collect();
        let packs = crate::blobs::list_packs(self.store()).await?;
        let going: HashSet<ObjectId> = survey.fates.iter().map(|fate| fate.pack).collect();
        let marks = Arc::clone(&survey.marks);
        let stale = cpu::block(move || {
            let mut stale = HashSet::new();
            for segment in marks.segments() {
                let mut count = 0;
                for entry in segment.entries() {
                    let pack = entry?.1.pack.id;
                    count += u64::from(!packs.contains(&pack) || going.contains(&pack));
                }
                if count * STALE_SHARE > segment.len() || (count > 0 && segment.len() <= SMALL_SEGMENT) {
                    stale.insert(*segment.id());
                }
            }
            Ok(stale)
        });
        let mut stale = stale.await?;
        if options.rewrite_old_keys {
            stale.extend(&survey.old.segments);
        }
        let mut chosen: BTreeMap<ObjectId, u64> = choose_segments(listed.iter().copied()).into_iter().collect();
        chosen.extend(listed.into_iter().filter(|(id, _)| stale.contains(id)));
        survey.segments = chosen.into_iter().collect();
        Ok(())
    }
}

/// Weighs each pack whose content is known; how many blobs are needed, and how many aren't.
fn weigh(marks: &Marks, listed: &[(ObjectId, u64)]) -> Result<(Uses, u64, u64)> {
    let lengths: HashMap<ObjectId, u64> = listed.iter().copied().collect();
    let mut uses = Uses::new();
    let (mut needed, mut unneeded) = (0, 0);
    marks.for_each(|_, is_needed, places| {
        *(if is_needed { &mut needed } else { &mut unneeded }) += 1;
        let there = in_packs(places, &lengths);
        for location in &there {
            let length = lengths.get(&location.pack.id).copied().unwrap_or(0);
            let used = uses.entry(location.pack.id).or_insert(Use { length, ..Use::default() });
            let weight = weight(location);
            used.total += weight;
            if is_needed {
                *(if there.len() == 1 { &mut used.sole } else { &mut used.shared }) += weight;
            }
        }
        Ok(())
    })?;
    let before: Uses = uses.clone();
    let rank = |pack: &ObjectId| before.get(pack).map(|used| (used.sole, used.shared, *pack));
    marks.for_each(|_, is_needed, places| {
        let there = in_packs(places, &lengths);
        // Of several copies, that in the pack which is needed most anyway is kept.
        let kept = there.iter().max_by_key(|location| rank(&location.pack.id));
        if is_needed
            && let Some(location) = kept
            && let Some(used) = uses.get_mut(&location.pack.id)
        {
            used.needed += weight(location);
        }
        Ok(())
    })?;
    Ok((uses, needed, unneeded))
}

/// Where a blob is, by packs that are there; each once.
fn in_packs(places: &[Place], there: &HashMap<ObjectId, u64>) -> Vec<Location> {
    let mut found: Vec<Location> = Vec::new();
    for Place { location, .. } in places {
        let known = found.iter().any(|other| other.pack.id == location.pack.id);
        if !known && there.contains_key(&location.pack.id) {
            found.push(*location);
        }
    }
    found
}
