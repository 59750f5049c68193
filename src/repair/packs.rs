//! Index segments and packs: which are whole, here or in the copy, and what is done about the others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::collection::{Authority, Collections};
use crate::cpu;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{Location, RecentPack, Segment, SegmentBuilder, Want};
use crate::layout::{self, Name};
use crate::merge::{Examined, Salvaged, examine_pack};
use crate::object::object_id;
use crate::pack::{BlockKind, PACK_MAX};
use crate::progress::{Phase, Progress};
use crate::repair::records::Root;
use crate::repair::view::{Needed, State, Table, View};
use crate::repair::{RepairAction, RepairOptions, Steps, said, said_there};
use crate::repository::Repository;

/// Segments read at a time.
const SEGMENTS: usize = 4;

/// Whole packs in memory at a time.
const WHOLE: usize = 4;

/// Footers read at a time.
const FOOTERS: usize = 8;

/// Blobs that no segment tells of are gathered to a table when they come to this many.
const TABLE_BLOBS: usize = 1 << 19;

/// What is to be done with packs and segments.
#[derive(Debug, Default)]
pub(super) struct PackWork {
    pub(super) read: u64,
    pub(super) bytes_read: u64,
    /// Packs that are taken from the copy.
    pub(super) copied: BTreeSet<ObjectId>,
    /// Segments that are.
    pub(super) segments_copied: BTreeSet<ObjectId>,
    /// What can be read of damaged packs and is nowhere else.
    pub(super) salvage: BTreeMap<ObjectId, Vec<Salvaged>>,
    /// Blobs that are taken from the copy one by one.
    pub(super) fetch: BTreeMap<BlobId, BlockKind>,
    /// Packs to describe, with their lengths.
    pub(super) describe: BTreeMap<ObjectId, u64>,
    /// Packs and segments that go.
    pub(super) packs_gone: BTreeSet<ObjectId>,
    pub(super) segments_gone: BTreeSet<ObjectId>,
}

/// How many blobs a segment, by its place in the list, knows in a pack.
type Naming = HashMap<ObjectId, Vec<(usize, u64)>>;

impl Repository {
    /// Looks at every segment and every pack.
    pub(super) async fn plan_packs(
        &self,
        options: &RepairOptions,
        roots: &[Root],
        steps: &mut Steps,
        progress: &Arc<dyn Progress>,
    ) -> Result<(PackWork, View)> {
        let other = options.other.as_ref();
        if let Some(other) = other {
            other.prepare_to_be_read(roots).await?;
        }
        let (mut work, mut view) = (PackWork::default(), View::new(self, other));
        let naming = self.plan_segments(&mut view, &mut work, steps).await?;
        let examined = self.examine_packs(&mut view, &mut work, &naming, steps, progress).await?;
        require_own(&view, &examined)?;
        self.compare_packs(&mut view, &naming, roots).await?;
        self.plan_missing(&mut view, &mut work, &naming, roots, steps).await?;
        plan_salvage(&mut view, &mut work, examined, steps)?;
        plan_gone(&view, &mut work, &naming, steps)?;
        self.plan_collection(&work, steps).await?;
        Ok((work, view))
    }

    /// Makes what records name known to the index of the copy.
    async fn prepare_to_be_read(&self, roots: &[Root]) -> Result<()> {
        self.index().refresh(Want::Bulk).await?;
        for root in roots {
            self.index().name_recent(&root.packs);
        }
        for snapshot in self.timelines().all(None).await.or_else(|error| said_there(error).map(|_| Vec::new()))? {
            self.reader_of(&snapshot);
        }
        Ok(())
    }

    async fn plan_segments(&self, view: &mut View, work: &mut PackWork, steps: &mut Steps) -> Result<Naming> {
        let listed = self.known(layout::INDEX).await?;
        let fetch = |(name, length)| async move {
            let Name::Index(id) = name else { return Ok(None) };
            let read = match self.index().fetch(id, length).await {
                Ok(segment) => count(segment).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(counted) => Ok(Some((id, Ok(counted)))),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Ok::<_, Error>(Some((id, Err(error)))),
            }
        };
        let mut naming = Naming::new();
        let mut fetched = futures::stream::iter(listed).map(fetch).buffered(SEGMENTS);
        while let Some(found) = fetched.try_next().await? {
            let Some((id, read)) = found else { continue };
            let counted = match read {
                Ok(counted) => counted,
                Err(error) if error.is_unsupported() => {
                    steps.leave(Name::Index(id), error);
                    continue;
                }
                Err(error) => match segment_of(view.other.as_ref(), id).await? {
                    Some(counted) => {
                        steps.add(Name::Index(id), said(error)?, RepairAction::CopyObject);
                        work.segments_copied.insert(id);
                        counted
                    }
                    None => {
                        steps.advise(
                            Name::Index(id),
                            said(error)?,
                            RepairAction::Delete,
                            "packs say themselves what it said",
                        );
                        work.segments_gone.insert(id);
                        continue;
                    }
                },
            };
            let (segment, counts) = counted;
            let place = view.segments.len();
            view.segments.push(segment);
            for (pack, blobs) in counts {
                naming.entry(pack).or_default().push((place, blobs));
            }
        }
        Ok(naming)
    }

    /// Reads every pack; what is left of those that are damaged here and in the copy.
    async fn examine_packs(
        &self,
        view: &mut View,
        work: &mut PackWork,
        naming: &Naming,
        steps: &mut Steps,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<(Examined, String)>> {
        let listed: Vec<_> = self.known(layout::PACKS).await?.into_iter().filter_map(pack).collect();
        progress.phase(Phase::CheckingData);
        progress.expect(listed.len() as u64, listed.iter().map(|(_, length)| length).sum());
        let segments: Arc<[Arc<Segment>]> = view.segments.clone().into();
        let examine = |(id, length): (ObjectId, u64)| {
            let naming: Vec<usize> = naming.get(&id).into_iter().flatten().map(|(segment, _)| *segment).collect();
            let telling: Vec<_> = naming.into_iter().map(|at| Arc::clone(&segments[at])).collect();
            async move { (id, length, self.examine(id, telling).await) }
        };
        let mut examined = futures::stream::iter(listed).map(examine).buffer_unordered(WHOLE);
        let mut damaged = Vec::new();
        while let Some((id, length, found)) = examined.next().await {
            work.read += 1;
            work.bytes_read += length;
            progress.advance(1, length);
            let found = match found {
                Err(error) if error.is_unsupported() => {
                    steps.leave(Name::Pack(id), error);
                    continue;
                }
                found => found?,
            };
            let Some(examined) = found else { continue };
            let (id, Some(problem)) = (examined.id, examined.problem.clone()) else {
                view.states.insert(examined.id, State::Whole);
                view.lengths.insert(examined.id, length);
                continue;
            };
            match whole_length(view.other.as_ref(), id).await? {
                Some(length) => {
                    steps.add(Name::Pack(id), problem, RepairAction::CopyObject);
                    work.copied.insert(id);
                    view.states.insert(id, State::Copied);
                    view.lengths.insert(id, length);
                }
                None => {
                    view.states.insert(id, State::Damaged);
                    damaged.push((examined, problem));
                }
            }
        }
        damaged.sort_by_key(|(examined, _)| examined.id);
        Ok(damaged)
    }

    /// Reads all of a pack; nothing if it is gone by now.
    async fn examine(&self, id: ObjectId, telling: Vec<Arc<Segment>>) -> Result<Option<Examined>> {
        let bytes = match self.store().get(&Name::Pack(id).to_string(), PACK_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => {
                let problem = Some(said(error)?);
                return Ok(Some(Examined { id, is_as_written: false, problem, blocks: Vec::new(), lost: 0 }));
            }
        };
        let keyring = Arc::clone(self.keyring());
        let look = move || {
            let examined = examine_pack(id, &bytes, &keyring, &[])?;
            if examined.problem.is_none() || !examined.blocks.is_empty() {
                return Ok(examined);
            }
            let mut told = Vec::new();
            for segment in telling {
                for entry in segment.entries() {
                    let (blob, location) = entry?;
                    if location.pack.id == id {
                        told.push((blob, location));
                    }
                }
            }
            examine_pack(id, &bytes, &keyring, &told)
        };
        cpu::start(look).await.map(Some)
    }

    /// Compares what whole packs say of themselves with what segments say of them.
    async fn compare_packs(&self, view: &mut View, naming: &Naming, roots: &[Root]) -> Result<()> {
        let named: HashSet<ObjectId> = roots.iter().flat_map(|root| &root.packs).map(|pack| pack.id).collect();
        let mut packs: Vec<_> = view.lengths.iter().map(|(id, length)| (*id, *length)).collect();
        packs.sort_unstable();
        let mut tables = [Tables::new(Table::Named), Tables::new(Table::Untold)];
        let mut footers = self.footers(view, packs);
        while let Some(pack) = footers.try_next().await? {
            let (unknown, contradicted) = compare(view, naming, &pack)?;
            view.contradicted.extend(contradicted.into_iter().map(|segment| (segment, pack.row.id)));
            if unknown {
                let [of_named, of_untold] = &mut tables;
                let table = if named.contains(&pack.row.id) { of_named } else { of_untold };
                table.add(self, &pack).await?;
            }
        }
        drop(footers);
        for table in tables {
            view.tables.extend(table.finish(self).await?);
        }
        Ok(())
    }

    /// Reads the footers of packs that are whole here or in the copy.
    fn footers(
        &self,
        view: &View,
        packs: Vec<(ObjectId, u64)>,
    ) -> futures::stream::BoxStream<'static, Result<RecentPack>> {
        let (own, other) = (self.clone(), view.other.clone());
        let states: HashMap<ObjectId, State> =
            packs.iter().filter_map(|(id, _)| Some((*id, *view.states.get(id)?))).collect();
        let read = move |(id, length): (ObjectId, u64)| {
            let there = states.get(&id) == Some(&State::Copied);
            let repository = other.as_ref().filter(|_| there).unwrap_or(&own).clone();
            async move { RecentPack::read(id, length, repository.store(), repository.keyring()).await }
        };
        futures::stream::iter(packs).map(read).buffered(FOOTERS).boxed()
    }

    /// Packs that are missing here, as far as segments or records name them.
    async fn plan_missing(
        &self,
        view: &mut View,
        work: &mut PackWork,
        naming: &Naming,
        roots: &[Root],
        steps: &mut Steps,
    ) -> Result<()> {
        let of_records = roots.iter().flat_map(|root| &root.packs).map(|pack| pack.id);
        let mut missing: BTreeSet<ObjectId> = naming.keys().copied().chain(of_records).collect();
        missing.retain(|id| !view.states.contains_key(id));
        let Some(other) = view.other.clone() else { return Ok(()) };
        for id in missing {
            // Most that old records name were merged, in the copy as well.
            let footer = async {
                let length = other.store().length(&Name::Pack(id).to_string()).await?;
                RecentPack::read(id, length, other.store(), other.keyring()).await
            };
            let pack = match footer.await {
                Ok(pack) => pack,
                Err(error) => {
                    said_there(error)?;
                    continue;
                }
            };
            let mut wanted = false;
            for blob in pack.ids() {
                wanted |= view.find_whole(&blob)?.is_none();
            }
            if wanted && let Some(length) = whole_length(Some(&other), id).await? {
                steps.add(Name::Pack(id), "it does not exist", RepairAction::CopyObject);
                work.copied.insert(id);
                view.states.insert(id, State::Copied);
                view.lengths.insert(id, length);
                let (unknown, contradicted) = compare(view, naming, &pack)?;
                view.contradicted.extend(contradicted.into_iter().map(|segment| (segment, id)));
                if unknown {
                    let named = roots.iter().flat_map(|root| &root.packs).any(|pack| pack.id == id);
                    let mut table = Tables::new(if named { Table::Named } else { Table::Untold });
                    table.add(self, &pack).await?;
                    view.tables.extend(table.finish(self).await?);
                }
            }
        }
        Ok(())
    }

    /// An unfinished collection, where something is to be deleted.
    async fn plan_collection(&self, work: &PackWork, steps: &mut Steps) -> Result<()> {
        let standing = match Collections::new(self.parts().clone()).standing().await {
            // It was planned for by itself.
            Err(error) => return said_there(error).map(drop),
            Ok(standing) => standing,
        };
        let Some(open) = standing.open() else { return Ok(()) };
        let name = Name::Collection(standing.number);
        let something_goes = !work.packs_gone.is_empty() || !work.segments_gone.is_empty();
        match open.authority {
            Authority::Damaged => steps.add(name, "a repair was cut off", RepairAction::FinishCollection),
            Authority::Copied if something_goes => {
                steps.add(name, "a merge was cut off", RepairAction::FinishCollection);
            }
            Authority::Unneeded if something_goes => {
                let advice = "finish it with `gc`, then repair again: until then what is damaged stays";
                steps.advise(name, "a collection is under way", RepairAction::None, advice);
            }
            _ => {}
        }
        Ok(())
    }
}

fn pack((name, length): (Name, u64)) -> Option<(ObjectId, u64)> {
    match name {
        Name::Pack(id) => Some((id, length)),
        _ => None,
    }
}

/// Looks at every entry, and counts the blobs in each pack.
async fn count(segment: Arc<Segment>) -> Result<(Arc<Segment>, HashMap<ObjectId, u64>)> {
    let counting = cpu::start(move || {
        let mut counts = HashMap::new();
        for entry in segment.entries() {
            *counts.entry(entry?.1.pack.id).or_default() += 1;
        }
        Ok((segment, counts))
    });
    counting.await
}

/// A segment of the copy, if it is sound there.
async fn segment_of(
    other: Option<&Repository>,
    id: ObjectId,
) -> Result<Option<(Arc<Segment>, HashMap<ObjectId, u64>)>> {
    let Some(other) = other else { return Ok(None) };
    let read = async {
        let length = other.store().length(&Name::Index(id).to_string()).await?;
        count(other.index().fetch(id, length).await?).await
    };
    match read.await {
        Ok(counted) => Ok(Some(counted)),
        Err(error) => said_there(error).map(|_| None),
    }
}

/// The length of a pack in the copy, if it is whole there.
async fn whole_length(other: Option<&Repository>, id: ObjectId) -> Result<Option<u64>> {
    let Some(other) = other else { return Ok(None) };
    let bytes = match other.store().get(&Name::Pack(id).to_string(), PACK_MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return said_there(error).map(|_| None),
    };
    let (length, keyring) = (bytes.len() as u64, Arc::clone(other.keyring()));
    match cpu::start(move || examine_pack(id, &bytes, &keyring, &[])).await {
        Ok(examined) => Ok(examined.problem.is_none().then_some(length)),
        Err(error) => said_there(error).map(|_| None),
    }
}

/// Whether a pack has blobs that no segment tells of, and which segments say something wrong of it.
fn compare(view: &View, naming: &Naming, pack: &RecentPack) -> Result<(bool, Vec<usize>)> {
    let naming = naming.get(&pack.row.id).map(Vec::as_slice).unwrap_or_default();
    let mut agreed = vec![0; naming.len()];
    let mut unknown = false;
    for (place, entry) in pack.footer.places() {
        let mut at = 0u32;
        for (id, length) in &entry.blobs {
            let expected = Location { pack: pack.row, place, at, length: *length };
            let mut known = false;
            for ((segment, _), agreed) in naming.iter().zip(&mut agreed) {
                if view.segments[*segment].find_local(id)? == Some(expected) {
                    *agreed += 1;
                    known = true;
                }
            }
            if !known && !is_elsewhere(view, id, &pack.row.id)? {
                unknown = true;
            }
            at = at.saturating_add(*length);
        }
    }
    let wrong = naming.iter().zip(agreed).filter(|((_, said), agreed)| agreed != said);
    Ok((unknown, wrong.map(|((segment, _), _)| *segment).collect()))
}

/// Refuses to go on where no pack opens and all are as they were written: the keys are another repository's, not the packs
/// damaged.
fn require_own(view: &View, damaged: &[(Examined, String)]) -> Result<()> {
    let is_foreign = |(examined, _): &(Examined, String)| examined.is_as_written && examined.blocks.is_empty();
    let none_opens = view.states.values().all(|state| matches!(state, State::Damaged));
    if damaged.is_empty() || !none_opens || !damaged.iter().all(is_foreign) {
        return Ok(());
    }
    let reason = format!(
        "none of the {} packs opens, and none is damaged: they were written under another config; put that back from a copy",
        damaged.len()
    );
    Err(Error::corrupt(layout::CONFIG, reason))
}

fn is_elsewhere(view: &View, id: &BlobId, pack: &ObjectId) -> Result<bool> {
    for segment in &view.segments {
        let found = segment.find_local(id)?;
        if found.is_some_and(|location| location.pack.id != *pack && view.is_whole(&location.pack.id)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What can be read of damaged packs and is in no whole one.
fn plan_salvage(
    view: &mut View,
    work: &mut PackWork,
    damaged: Vec<(Examined, String)>,
    steps: &mut Steps,
) -> Result<()> {
    let mut builder = SegmentBuilder::default();
    let mut taken = HashSet::new();
    for (Examined { id, blocks, lost, .. }, problem) in damaged {
        let mut wanted = Vec::new();
        for mut block in blocks {
            let mut blobs = Vec::new();
            for (blob, location) in block.locations() {
                if view.find_whole(&blob)?.is_none() && taken.insert(blob) {
                    builder.add_blob(blob, &location)?;
                    blobs.push((blob, location.at, location.length));
                }
            }
            block.blobs = blobs;
            if !block.blobs.is_empty() {
                wanted.push(block);
            }
        }
        let blobs: usize = wanted.iter().map(|block| block.blobs.len()).sum();
        let advice = format!("{blobs} blobs of it are only here, {lost} can't be read");
        let action = if wanted.is_empty() { RepairAction::Delete } else { RepairAction::Salvage };
        steps.advise(Name::Pack(id), problem, action, advice);
        if !wanted.is_empty() {
            work.salvage.insert(id, wanted);
        }
        work.packs_gone.insert(id);
    }
    if !builder.is_empty() {
        view.tables.push((Table::Salvaged, table(&view.own, builder)?));
    }
    Ok(())
}

/// Segments that say where blobs are that aren't there, and what they say of others.
fn plan_gone(view: &View, work: &mut PackWork, naming: &Naming, steps: &mut Steps) -> Result<()> {
    let mut wrong = BTreeMap::<usize, BTreeSet<ObjectId>>::new();
    for (segment, pack) in &view.contradicted {
        wrong.entry(*segment).or_default().insert(*pack);
    }
    for (pack, segments) in naming {
        match view.states.get(pack) {
            Some(State::Whole | State::Copied) => {}
            Some(State::Damaged) => segments.iter().for_each(|(segment, _)| {
                wrong.entry(*segment).or_default().insert(*pack);
            }),
            // It was merged, if all that was in it is elsewhere.
            None => {
                for (segment, _) in segments {
                    if has_lost(view, *segment, pack)? {
                        wrong.entry(*segment).or_default().insert(*pack);
                    }
                }
            }
        }
    }
    for (place, packs) in wrong {
        let id = *view.segments[place].id();
        let first = packs.first().map(|pack| Name::Pack(*pack).to_string()).unwrap_or_default();
        let problem = match packs.len() {
            1 => format!("it says where blobs are in {first}, and they aren't there"),
            more => format!("it says where blobs are in {first} and {} other packs, and they aren't there", more - 1),
        };
        steps.advise(Name::Index(id), problem, RepairAction::Delete, "what else it says is told again");
        work.segments_gone.insert(id);
        // One that was to be put back from the copy would say the same.
        work.segments_copied.remove(&id);
        for (pack, segments) in naming {
            if view.is_whole(pack) && segments.iter().any(|(segment, _)| *segment == place) {
                work.describe.insert(*pack, view.lengths.get(pack).copied().unwrap_or(0));
            }
        }
    }
    Ok(())
}

/// Whether something that a segment says is in a pack that is missing is nowhere else.
fn has_lost(view: &View, segment: usize, pack: &ObjectId) -> Result<bool> {
    for entry in view.segments[segment].entries() {
        let (id, location) = entry?;
        if location.pack.id == *pack && view.find_whole(&id)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn table(repository: &Repository, builder: SegmentBuilder) -> Result<Segment> {
    let bytes = Bytes::from(builder.seal(repository.keyring(), repository.surroundings())?);
    let mut segment = Segment::from_bytes(object_id(&bytes), bytes, repository.keyring())?;
    segment.build_filter()?;
    Ok(segment)
}

/// Gathers what packs say of themselves, as segments that are never stored.
struct Tables {
    table: Table,
    builder: SegmentBuilder,
    blobs: usize,
    sealed: Vec<Segment>,
}

impl Tables {
    fn new(table: Table) -> Self {
        Self { table, builder: SegmentBuilder::default(), blobs: 0, sealed: Vec::new() }
    }

    async fn add(&mut self, repository: &Repository, pack: &RecentPack) -> Result<()> {
        self.builder.add_pack(pack.row, &pack.footer)?;
        self.blobs += pack.len();
        if self.blobs >= TABLE_BLOBS { self.seal(repository).await } else { Ok(()) }
    }

    async fn seal(&mut self, repository: &Repository) -> Result<()> {
        if !self.builder.is_empty() {
            self.blobs = 0;
            let (builder, repository) = (std::mem::take(&mut self.builder), repository.clone());
            self.sealed.push(cpu::start(move || table(&repository, builder)).await?);
        }
        Ok(())
    }

    async fn finish(mut self, repository: &Repository) -> Result<Vec<(Table, Segment)>> {
        self.seal(repository).await?;
        let table = self.table;
        Ok(self.sealed.into_iter().map(|segment| (table, segment)).collect())
    }
}

impl View {
    /// Adds what the walk over the trees found: packs to describe, and blobs to take from the copy.
    pub(super) async fn conclude(&self, work: &mut PackWork, steps: &mut Steps) -> Result<()> {
        let Needed { mut untold, there: fetch, hinted } = self.take_found();
        self.add_hinted(hinted, work, steps);
        untold.retain(|pack| !work.describe.contains_key(pack));
        for pack in &untold {
            let problem = "no index segment says where its blobs are, though snapshots need them";
            steps.add(Name::Pack(*pack), problem, RepairAction::Describe);
            work.describe.insert(*pack, self.lengths.get(pack).copied().unwrap_or(0));
        }
        self.find_segments_there(work, steps).await?;
        if !fetch.is_empty() {
            let what = format!("{} blobs", fetch.len());
            steps.add(what, "no pack here has them, and the other repository does", RepairAction::CopyBlobs);
        }
        work.fetch = fetch;
        Ok(())
    }

    /// Nodes of damaged packs that hints led to are saved, too.
    fn add_hinted(&self, hinted: BTreeMap<BlobId, Location>, work: &mut PackWork, steps: &mut Steps) {
        for (id, Location { pack, place, at, length }) in hinted {
            let block = Salvaged { row: pack, place, blobs: vec![(id, at, length)] };
            work.salvage.entry(pack.id).or_default().push(block);
            let object = Name::Pack(pack.id).to_string();
            if let Some(step) = steps.0.iter_mut().find(|step| step.object == object) {
                step.action = RepairAction::Salvage;
                "nodes of it can be read from where others say that they lie".clone_into(&mut step.advice);
            }
        }
    }

    /// Segments of the copy that say nothing but what is to be told again are taken as they are.
    async fn find_segments_there(&self, work: &mut PackWork, steps: &mut Steps) -> Result<()> {
        let Some(other) = &self.other else { return Ok(()) };
        if work.describe.is_empty() {
            return Ok(());
        }
        for (name, _) in other.known(layout::INDEX).await? {
            let Name::Index(id) = name else { continue };
            let is_here = self.segments.iter().any(|segment| *segment.id() == id);
            if is_here || work.segments_gone.contains(&id) {
                continue;
            }
            let Some((segment, counts)) = segment_of(Some(other), id).await? else { continue };
            let fits = counts.keys().all(|pack| self.is_whole(pack));
            let tells: Vec<ObjectId> = counts.keys().filter(|pack| work.describe.contains_key(pack)).copied().collect();
            if !fits || tells.is_empty() {
                continue;
            }
            let packs = tells.iter().map(|pack| (*pack, self.lengths.get(pack).copied().unwrap_or(0))).collect();
            let mut footers = self.own.footers(self, packs);
            let mut told = Vec::new();
            while let Some(pack) = footers.try_next().await? {
                if tells_all(self, &segment, &pack)? {
                    told.push(pack.row.id);
                }
            }
            if told.len() == tells.len() {
                steps.add(name, "it does not exist", RepairAction::CopyObject);
                work.segments_copied.insert(id);
                work.describe.retain(|pack, _| !told.contains(pack));
            }
        }
        Ok(())
    }
}

/// Whether a segment says where each blob of a pack is that isn't told elsewhere, and nothing else of the pack.
fn tells_all(view: &View, segment: &Arc<Segment>, pack: &RecentPack) -> Result<bool> {
    for (place, entry) in pack.footer.places() {
        let mut at = 0u32;
        for (id, length) in &entry.blobs {
            let expected = Location { pack: pack.row, place, at, length: *length };
            match segment.find_local(id)? {
                Some(found) if found == expected => {}
                Some(found) if found.pack.id == pack.row.id => return Ok(false),
                _ if is_elsewhere(view, id, &pack.row.id)? => {}
                _ => return Ok(false),
            }
            at = at.saturating_add(*length);
        }
    }
    Ok(true)
}
