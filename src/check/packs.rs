//! Verifies packs against their footers, their names and the index.
//!
//! Without reading data, a pack's header and footer are fetched, in two small
//! requests at most times, and compared with what the index says of the pack in
//! both directions. What reading all of a pack adds is in `data`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::check::data::{choose, verify_pack};
use crate::check::findings::{FindingKind, Findings, Trouble};
use crate::check::segments::Segments;
use crate::check::{CheckOptions, CheckReport};
use crate::clock::Surroundings;
use crate::cpu;
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{Location, PackRow, RecentPack, Segment, SegmentBuilder};
use crate::layout::{self, Name};
use crate::object;
use crate::pack::{Footer, PACK_MAX};
use crate::progress::{Phase, Progress};
use crate::repository::Repository;
use crate::store::Store;

/// Footers read at a time.
const FOOTERS: usize = 8;

/// Whole packs in memory at a time.
const WHOLE: usize = 4;

/// Blobs of packs that the index doesn't know are gathered to a segment when they come to this many.
const SPARE_BLOBS: u64 = 1 << 19;

/// Whether what lies in a pack can be relied on.
#[derive(Debug)]
pub(super) enum PackState {
    Sound,
    /// All but these blobs.
    SoundBut(HashSet<BlobId>),
    /// Nothing in it can be relied on.
    Unsound,
}

/// What is known of all packs.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// The packs that are there.
    pub(super) states: HashMap<ObjectId, PackState>,
    /// Packs some of whose blobs no segment knows.
    pub(super) unindexed: Vec<ObjectId>,
    /// Where those blobs are, by their packs' footers; first by those of packs that records name.
    pub(super) spare: Vec<Segment>,
}

/// A pack's description of itself.
pub(super) struct Description {
    pub(super) row: PackRow,
    pub(super) footer: Footer,
}

/// What was seen of one pack.
pub(super) struct Seen {
    pub(super) id: ObjectId,
    pub(super) length: u64,
    pub(super) description: Option<Description>,
    /// Blobs that are damaged.
    pub(super) bad: HashSet<BlobId>,
    pub(super) troubles: Vec<Trouble>,
    /// Blobs that no segment knows.
    unknown: u64,
    /// The index contradicts it.
    contradicted: bool,
}

impl Seen {
    pub(super) fn new(id: ObjectId, length: u64) -> Self {
        Self {
            id,
            length,
            description: None,
            bad: HashSet::new(),
            troubles: Vec::new(),
            unknown: 0,
            contradicted: false,
        }
    }

    /// Takes a description, or why there is none.
    pub(super) fn describe(&mut self, description: Result<Description>) -> Result<()> {
        match description {
            Ok(description) => self.description = Some(description),
            Err(error) => self.troubles.push(Trouble::of(error)?),
        }
        Ok(())
    }

    /// Compares the description with what the segments say.
    fn compare(mut self, segments: &Segments) -> Result<Self> {
        let Some(Description { row, footer }) = &self.description else { return Ok(self) };
        let naming = segments.naming.get(&self.id).map(Vec::as_slice).unwrap_or_default();
        let mut agreed = vec![0; naming.len()];
        for (place, entry) in footer.places() {
            let mut at = 0u32;
            for (id, length) in &entry.blobs {
                let expected = Location { pack: *row, place, at, length: *length };
                let mut known = false;
                for ((segment, _), agreed) in naming.iter().zip(&mut agreed) {
                    if segments.list[*segment].find_local(id)? == Some(expected) {
                        *agreed += 1;
                        known = true;
                    }
                }
                if !known && !is_known_elsewhere(segments, id, &self.id)? {
                    self.unknown += 1;
                }
                at = at.saturating_add(*length);
            }
        }
        for ((segment, said), agreed) in naming.iter().zip(agreed) {
            if agreed != *said {
                let (pack, segment) = (Name::Pack(self.id), Name::Index(*segments.list[*segment].id()));
                let problem = format!("it isn't the pack that {segment} describes: of {said} blobs it has {agreed}");
                self.troubles.push(Trouble::new(FindingKind::Inconsistent, pack, problem));
                self.contradicted = true;
            }
        }
        Ok(self)
    }

    fn state(&self) -> PackState {
        if self.description.is_none() || self.contradicted {
            PackState::Unsound
        } else if self.bad.is_empty() {
            PackState::Sound
        } else {
            PackState::SoundBut(self.bad.clone())
        }
    }
}

fn is_known_elsewhere(segments: &Segments, id: &BlobId, pack: &ObjectId) -> Result<bool> {
    for segment in &segments.list {
        if segment.find_local(id)?.is_some_and(|location| location.pack.id != *pack) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Repository {
    /// Verifies every pack that is listed, and that those which the index names are.
    pub(super) async fn check_packs(
        &self,
        segments: &Arc<Segments>,
        named: &HashSet<ObjectId>,
        options: &CheckOptions,
        findings: &mut Findings,
        report: &mut CheckReport,
        progress: &Arc<dyn Progress>,
    ) -> Result<Packs> {
        let listed = self.list_known(layout::PACKS, findings).await?;
        let listed: Vec<_> = listed.into_iter().filter_map(pack).collect();
        let seed = self.surroundings().random();
        let whole = options.read_data_percent.map(|percent| choose(&listed, percent, &seed)).unwrap_or_default();
        let (whole, footers): (Vec<_>, Vec<_>) = listed.iter().partition(|(id, _)| whole.contains(id));
        report.pack_bytes = listed.iter().map(|(_, length)| length).sum();

        let (packs, spare) = (Packs::default(), [Spare::new(self), Spare::new(self)]);
        let mut collect = Collect { segments, named, findings, report, progress, packs, spare };
        progress.expect(footers.len() as u64, 0);
        let seen = |(id, length)| footer_seen(self.store().clone(), Arc::clone(self.keyring()), id, length);
        let mut seen = futures::stream::iter(footers).map(seen).buffer_unordered(FOOTERS);
        while let Some(seen) = seen.try_next().await? {
            collect.take(seen, false).await?;
        }
        if !whole.is_empty() {
            progress.phase(Phase::CheckingData);
            progress.expect(whole.len() as u64, whole.iter().map(|(_, length)| length).sum());
        }
        let seen = |(id, length)| whole_seen(self.store().clone(), Arc::clone(self.keyring()), id, length);
        let mut seen = futures::stream::iter(whole).map(seen).buffer_unordered(WHOLE);
        while let Some(seen) = seen.try_next().await? {
            collect.take(seen, true).await?;
        }
        let mut packs = collect.finish()?;
        packs.unindexed.sort_unstable();
        let segments = Arc::clone(segments);
        let mut missing = std::mem::take(findings);
        let (packs, missing) = cpu::start(move || {
            name_missing(&segments, &packs, &mut missing)?;
            Ok((packs, missing))
        })
        .await?;
        *findings = missing;
        Ok(packs)
    }
}

fn pack((name, length): (Name, u64)) -> Option<(ObjectId, u64)> {
    match name {
        Name::Pack(id) => Some((id, length)),
        _ => None,
    }
}

/// Names the packs that the index knows and the store doesn't.
///
/// It is no defect if everything that was in them is elsewhere: they were merged, and the segments will be. Nor if no
/// snapshot needs the rest: they were collected. Who needs something of one makes it a defect.
fn name_missing(segments: &Segments, packs: &Packs, findings: &mut Findings) -> Result<()> {
    let missing: HashMap<_, _> = segments.naming.iter().filter(|(pack, _)| !packs.states.contains_key(pack)).collect();
    let naming: BTreeSet<_> = missing.values().flat_map(|naming| naming.iter().map(|(segment, _)| *segment)).collect();
    let mut lost = HashSet::new();
    for segment in naming {
        for entry in segments.list[segment].entries() {
            let (id, location) = entry?;
            let pack = location.pack.id;
            if missing.contains_key(&pack) && !lost.contains(&pack) && !is_elsewhere(segments, packs, &id)? {
                lost.insert(pack);
            }
        }
    }
    for (pack, naming) in missing {
        let blobs: u64 = naming.iter().map(|(_, blobs)| blobs).sum();
        let (kind, problem) = if lost.contains(pack) {
            (FindingKind::Leftover, format!("it does not exist, and the index says that {blobs} blobs are in it"))
        } else {
            (FindingKind::Leftover, format!("it was merged; the index still names it for {blobs} blobs"))
        };
        findings.add_new(kind, Name::Pack(*pack), problem);
    }
    Ok(())
}

/// Whether a blob is in a pack that is there.
fn is_elsewhere(segments: &Segments, packs: &Packs, id: &BlobId) -> Result<bool> {
    for segment in segments.list.iter().map(AsRef::as_ref).chain(&packs.spare) {
        if segment.find_local(id)?.is_some_and(|location| packs.states.contains_key(&location.pack.id)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes in what is seen of packs.
struct Collect<'a> {
    segments: &'a Arc<Segments>,
    named: &'a HashSet<ObjectId>,
    findings: &'a mut Findings,
    report: &'a mut CheckReport,
    progress: &'a Arc<dyn Progress>,
    packs: Packs,
    /// Of packs that records name, and of others.
    spare: [Spare; 2],
}

impl Collect<'_> {
    async fn take(&mut self, seen: Seen, whole: bool) -> Result<()> {
        let segments = Arc::clone(self.segments);
        let seen = cpu::start(move || seen.compare(&segments)).await?;
        self.report.packs += 1;
        if whole {
            self.report.packs_read += 1;
            self.report.bytes_read += seen.length;
        }
        self.progress.advance(1, if whole { seen.length } else { 0 });
        self.packs.states.insert(seen.id, seen.state());
        seen.troubles.into_iter().for_each(|trouble| self.findings.add(trouble));
        if let Some(Description { row, footer }) = seen.description {
            let blobs = footer.blocks.iter().map(|block| block.blobs.len() as u64).sum();
            self.report.blobs += blobs;
            if seen.unknown > 0 {
                self.packs.unindexed.push(seen.id);
                let [of_named, of_others] = &mut self.spare;
                let spare = if self.named.contains(&seen.id) { of_named } else { of_others };
                spare.add(row, &footer, blobs)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Packs> {
        // A commit that failed leaves packs that have blobs in common with those of one that was made.
        for mut spare in self.spare {
            spare.seal()?;
            self.packs.spare.append(&mut spare.segments);
        }
        Ok(self.packs)
    }
}

/// Builds segments for packs that the index doesn't know; they are never stored.
struct Spare {
    keyring: Arc<Keyring>,
    surroundings: Surroundings,
    builder: SegmentBuilder,
    blobs: u64,
    segments: Vec<Segment>,
}

impl Spare {
    fn new(repository: &Repository) -> Self {
        Self {
            keyring: Arc::clone(repository.keyring()),
            surroundings: repository.surroundings().clone(),
            builder: SegmentBuilder::default(),
            blobs: 0,
            segments: Vec::new(),
        }
    }

    fn add(&mut self, row: PackRow, footer: &Footer, blobs: u64) -> Result<()> {
        self.builder.add_pack(row, footer)?;
        self.blobs += blobs;
        if self.blobs >= SPARE_BLOBS { self.seal() } else { Ok(()) }
    }

    fn seal(&mut self) -> Result<()> {
        self.blobs = 0;
        let mut builder = std::mem::take(&mut self.builder);
        // Of two packs that say to have a blob either may lie.
        while !builder.is_empty() {
            let doubled = builder.split_doubled()?;
            let sealed = std::mem::replace(&mut builder, doubled).seal(&self.keyring, &self.surroundings)?;
            let mut segment = Segment::from_bytes(object::object_id(&sealed), sealed.into(), &self.keyring)?;
            segment.build_filter()?;
            self.segments.push(segment);
        }
        Ok(())
    }
}

/// Reads a pack's header and footer.
async fn footer_seen(store: Store, keyring: Arc<Keyring>, id: ObjectId, length: u64) -> Result<Seen> {
    let mut seen = Seen::new(id, length);
    let read = RecentPack::read(id, length, &store, &keyring).await;
    seen.describe(read.map(|RecentPack { row, footer, .. }| Description { row, footer }))?;
    Ok(seen)
}

/// Reads all of a pack and verifies every byte.
async fn whole_seen(store: Store, keyring: Arc<Keyring>, id: ObjectId, length: u64) -> Result<Seen> {
    match store.get(&Name::Pack(id).to_string(), PACK_MAX).await {
        Ok(bytes) => cpu::start(move || verify_pack(id, &bytes, &keyring)).await,
        Err(error @ (Error::Corrupt { .. } | Error::NotFound { .. })) => {
            let mut seen = Seen::new(id, length);
            seen.describe(Err(error))?;
            Ok(seen)
        }
        Err(error) => Err(error),
    }
}
