//! All segments of a repository, and the local folder that keeps them.
//!
//! A writer has every segment at hand: in its cache folder, sealed as on the
//! store and read by position, or in memory where there is none. A reader reads
//! small segments whole and single pages of large ones.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::clock::Surroundings;
use crate::cpu;
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::arriving::Arriving;
use crate::index::build::SegmentBuilder;
use crate::index::entry::Location;
use crate::index::recent::{PackRef, Recent, RecentPack};
use crate::index::segment::{HEAD_LEN, Pages, Remote, Segment, Shared, Source};
use crate::layout::{self, Name};
use crate::object;
use crate::store::{Created, Listed, Store};

/// A reader fetches segments up to this length whole: one request instead of several.
const WHOLE_MAX: u64 = 128 << 10;

/// What is read of the end of a segment of which single pages are fetched: which packs some hundred rows name.
const TAIL: u64 = 16 << 10;

/// A reader of very much fetches all segments whole if they come to this much together.
const BULK_MAX: u64 = 64 << 20;

/// Segments fetched at a time.
const CONCURRENCY: usize = 8;

/// Parts of a long segment fetched at a time.
const PARTS: usize = 2;

/// How often segments are listed again when some of them are gone before they could be read.
const LISTINGS: usize = 5;

/// Footers read at a time.
const FOOTERS: usize = 32;

/// What footers that are read at a time come to, in bytes.
const FOOTER_BYTES: u64 = 64 << 20;

/// Ids looked up at a time in a segment of which single pages are fetched.
const LOOKUPS: usize = 32;

/// How completely segments are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Wholly, with filters, for whoever takes what it doesn't find for not stored.
    All,
    /// Wholly if they come to a bounded length together, and otherwise whatever is cheapest; for a reader of very much.
    Bulk,
    /// Whatever is cheapest, for a reader.
    Pages,
}

/// The segments of a repository as last listed.
#[derive(Debug)]
pub(crate) struct Index {
    store: Store,
    keyring: Arc<Keyring>,
    cache: Option<PathBuf>,
    segments: RwLock<BTreeMap<ObjectId, (Want, Shared)>>,
    /// A segment that is listed and can't be used, and why.
    broken: Mutex<Option<Unusable>>,
    /// A pack whose footer can't be used, likewise.
    broken_footer: Mutex<Option<Unusable>>,
    /// Segments in which something was found that no segment may say: the packs that they name are looked into.
    distrusted: Seen,
    /// A segment that is listed and that a newer version can use, and what it needs.
    unknown: Mutex<Option<(String, String)>>,
    /// Set once the segments have been listed.
    listed: AtomicBool,
    /// Held while listing, so that it happens once at a time.
    listing: tokio::sync::Mutex<()>,
    /// Packs that no segment describes.
    recent: RwLock<Recent>,
    /// Held while footers are read, likewise.
    loading: tokio::sync::Mutex<()>,
    /// Packs that were looked at though nothing told of them.
    strays_seen: Seen,
}

/// Packs, each of which is looked at once.
#[derive(Debug, Default)]
struct Seen(Mutex<HashSet<ObjectId>>);

impl Seen {
    fn insert(&self, id: ObjectId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn contains(&self, id: &ObjectId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

/// An object that is there and can't be used.
#[derive(Clone, Debug)]
struct Unusable {
    object: String,
    reason: String,
    is_unsupported: bool,
}

impl Unusable {
    /// What an error says of an object; nothing if it says nothing of one that is there.
    fn of(error: &Error) -> Option<Self> {
        let (object, reason) = match error {
            Error::Corrupt { object, reason } | Error::Unsupported { object, reason } => (object, reason),
            _ => return None,
        };
        Some(Self { object: object.clone(), reason: reason.clone(), is_unsupported: error.is_unsupported() })
    }

    fn error(&self) -> Error {
        let Self { object, reason, is_unsupported } = self;
        if *is_unsupported { Error::unsupported(object, reason) } else { Error::corrupt(object, reason) }
    }
}

impl Index {
    /// An index that has read nothing yet; `cache` is a folder for this repository's segments.
    pub(crate) fn new(store: Store, keyring: Arc<Keyring>, cache: Option<PathBuf>) -> Self {
        Self {
            store,
            keyring,
            cache,
            segments: RwLock::default(),
            broken: Mutex::default(),
            broken_footer: Mutex::default(),
            distrusted: Seen::default(),
            unknown: Mutex::default(),
            listed: AtomicBool::new(false),
            listing: tokio::sync::Mutex::default(),
            recent: RwLock::default(),
            loading: tokio::sync::Mutex::default(),
            strays_seen: Seen::default(),
        }
    }

    /// Takes note of packs that a snapshot's record names, to be read when something isn't found otherwise.
    pub(crate) fn name_recent(&self, packs: &[PackRef]) {
        if !packs.is_empty() {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            packs.iter().for_each(|pack| recent.name(*pack));
        }
    }

    /// Makes a pack known by its footer, until a segment describes it.
    pub(crate) fn add_recent(&self, pack: Arc<RecentPack>) {
        self.recent.write().unwrap_or_else(PoisonError::into_inner).add(pack);
    }

    /// Where a blob is, by the packs that no segment describes and whose footers were read.
    pub(crate) fn find_recent(&self, id: &BlobId) -> Option<Location> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).find(id)
    }

    /// Everywhere where a blob is, by the packs that no segment describes and whose footers were read.
    pub(crate) fn recent_places(&self, id: &BlobId) -> Vec<Location> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).find_all(id)
    }

    fn unread(&self) -> Vec<PackRef> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).unread()
    }

    /// Reads the footers of all packs that were named. One that is gone was merged since.
    pub(crate) async fn load_recent(self: &Arc<Self>) -> Result<()> {
        if self.unread().is_empty() {
            return Ok(());
        }
        let index = Arc::clone(self);
        // Apart, since whoever else comes waits for the lock.
        cpu::apart(async move {
            let _loading = index.loading.lock().await;
            let fetch = |pack: PackRef| {
                let index = &index;
                async move { (pack, RecentPack::fetch(pack, &index.store, &index.keyring).await) }
            };
            for wave in waves(index.unread()) {
                let mut fetched = futures::stream::iter(wave).map(fetch).buffer_unordered(FOOTERS);
                while let Some((pack, found)) = fetched.next().await {
                    match found {
                        Ok(found) => index.add_recent(Arc::new(found)),
                        Err(error @ Error::Store { .. }) => return Err(error),
                        Err(error) if error.is_not_found() => index.forget_gone([pack.id]),
                        Err(error) => {
                            index.put_footer_aside(&error);
                            index.forget_recent([pack.id]);
                        }
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Reads the footers of packs that neither a segment nor a record told of, each once.
    ///
    /// There are such where a segment is lost, or where a repository was copied file by file beside a merge: the packs
    /// are there then, and the segment that describes them came too late to be copied.
    pub(crate) async fn load_strays(self: &Arc<Self>) -> Result<()> {
        self.refresh(Want::All).await?;
        let index = Arc::clone(self);
        cpu::apart(async move {
            let _loading = index.loading.lock().await;
            let mut known = HashSet::new();
            for segment in index.segments().iter().filter(|segment| !index.distrusted.contains(segment.id())) {
                known.extend(segment.packs().unwrap_or_default());
            }
            let listed = index.store.list(layout::PACKS).await?;
            let packs = listed.iter().filter_map(|listed| Some((layout::parse_pack(&listed.name)?, listed.length)));
            let strays: Vec<_> =
                packs.filter(|(id, _)| !known.contains(id) && !index.strays_seen.contains(id)).collect();
            let index = &index;
            let read = |(id, length): (ObjectId, u64)| async move {
                (id, RecentPack::read(id, length, &index.store, &index.keyring).await)
            };
            let mut reading = futures::stream::iter(strays).map(read).buffer_unordered(FOOTERS);
            while let Some((id, found)) = reading.next().await {
                match found {
                    Ok(found) => index.add_recent(Arc::new(found)),
                    // Those that weren't read are looked at the next time.
                    Err(error @ Error::Store { .. }) => return Err(error),
                    Err(error) => index.put_footer_aside(&error),
                }
                index.strays_seen.insert(id);
            }
            Ok(())
        })
        .await
    }

    /// Writes a segment that describes `packs`, which a record names, and makes it known in their place.
    pub(crate) async fn describe(self: &Arc<Self>, packs: &[PackRef], surroundings: &Surroundings) -> Result<()> {
        self.name_recent(packs);
        self.load_recent().await?;
        let mut builder = SegmentBuilder::default();
        for pack in packs {
            let known = self.recent.read().unwrap_or_else(PoisonError::into_inner).get(&pack.id);
            let found = match known {
                Some(found) => found,
                None => match RecentPack::fetch(*pack, &self.store, &self.keyring).await {
                    Ok(found) => Arc::new(found),
                    // It was merged since: a segment describes what was in it.
                    Err(error) if error.is_not_found() => continue,
                    // Nobody can describe it, and what can be described must not wait for that.
                    Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                        tracing::warn!(pack = %pack.id, %error, "a pack's footer can't be used");
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            builder.add_pack(found.row, &found.footer)?;
        }
        self.publish(builder, surroundings).await?;
        self.forget_recent(packs.iter().map(|pack| pack.id));
        Ok(())
    }

    /// Forgets the footers of packs that a segment describes.
    pub(crate) fn forget_recent(&self, packs: impl IntoIterator<Item = ObjectId>) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        packs.into_iter().for_each(|pack| recent.remove(&pack));
    }

    /// Forgets packs that were merged, wherever they are named.
    pub(crate) fn forget_gone(&self, packs: impl IntoIterator<Item = ObjectId>) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        packs.into_iter().for_each(|pack| recent.gone(pack));
    }

    /// How a record names a pack that no segment describes and whose footer was read.
    pub(crate) fn recent(&self, pack: &ObjectId) -> Option<PackRef> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner).get(pack);
        recent.map(|recent| recent.pack)
    }

    /// Whether a pack was merged, as far as is known here.
    pub(crate) fn is_gone(&self, pack: &ObjectId) -> bool {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).is_gone(pack)
    }

    /// Stores a segment, unless it would be empty, and makes it known; one more where blobs are in several packs.
    pub(crate) async fn publish(&self, mut builder: SegmentBuilder, surroundings: &Surroundings) -> Result<()> {
        while !builder.is_empty() {
            let doubled = builder.split_doubled()?;
            self.publish_one(std::mem::replace(&mut builder, doubled), surroundings).await?;
        }
        Ok(())
    }

    async fn publish_one(&self, builder: SegmentBuilder, surroundings: &Surroundings) -> Result<()> {
        let (keyring, surroundings) = (Arc::clone(&self.keyring), surroundings.clone());
        let bytes = Bytes::from(cpu::start(move || builder.seal(&keyring, &surroundings)).await?);
        let id = object::object_id(&bytes);
        let name = Name::Index(id).to_string();
        match self.store.create(&name, bytes.clone()).await? {
            Created::Ours => self.add(id, bytes).await,
            Created::Theirs => Err(Error::corrupt(name, "other bytes lie under the name of a new index segment")),
        }
    }

    /// Where `id` is according to the segments and footers at hand; see [`Index::refresh`].
    pub(crate) fn find_local(&self, id: &BlobId) -> Result<Option<Location>> {
        if let Some(location) = self.find_recent(id) {
            return Ok(Some(location));
        }
        for segment in self.segments().iter().filter(|segment| !segment.is_remote()) {
            if let Some(location) = segment.find_local(id)? {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    /// The same, but only in packs that are `sound`.
    pub(crate) fn find_in(&self, id: &BlobId, sound: impl Fn(&ObjectId) -> bool) -> Result<Option<Location>> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner).find_in(id, &sound);
        if recent.is_some() {
            return Ok(recent);
        }
        for segment in self.segments().iter().filter(|segment| !segment.is_remote()) {
            let found = segment.find_local(id)?;
            if found.as_ref().is_some_and(|location| sound(&location.pack.id)) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Everywhere where `id` is according to the segments and footers at hand.
    pub(crate) fn places(&self, id: &BlobId) -> Result<Vec<Location>> {
        let mut places = self.recent_places(id);
        for segment in self.segments().iter().filter(|segment| !segment.is_remote()) {
            places.extend(segment.find_local(id)?);
        }
        Ok(places)
    }

    /// Where each of `ids`, which are sorted, is according to the first segment that knows it.
    ///
    /// Much cheaper than as many lookups: each page is opened once.
    pub(crate) async fn find_sorted(self: &Arc<Self>, ids: Arc<[BlobId]>) -> Result<HashMap<BlobId, Location>> {
        self.ensure_listed().await?;
        self.load_recent().await?;
        let mut found = HashMap::with_capacity(ids.len());
        found.extend(ids.iter().filter_map(|id| Some((*id, self.find_recent(id)?))));
        let mut left: Arc<[BlobId]> = ids.iter().filter(|id| !found.contains_key(*id)).copied().collect();
        for _ in 0..LISTINGS {
            let mut gone = false;
            let (remote, local): (Vec<_>, Vec<_>) = self.segments().into_iter().partition(|one| one.is_remote());
            // Those at hand one after the other, since each finds some; of the others a round trip is what counts.
            let waves = local.into_iter().map(|one| vec![one]).chain([remote]);
            for wave in waves {
                let looked = futures::future::join_all(wave.iter().map(|one| find_in(one, Arc::clone(&left)))).await;
                for hits in looked {
                    match hits {
                        Ok(hits) => found.extend(hits),
                        Err(error @ Error::Corrupt { .. }) => {
                            *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Unusable::of(&error);
                        }
                        Err(Error::NotFound { .. }) => gone = true,
                        Err(error) => return Err(error),
                    }
                }
                left = left.iter().filter(|id| !found.contains_key(*id)).copied().collect();
                if left.is_empty() {
                    return Ok(found);
                }
            }
            if !gone {
                break;
            }
            self.refresh(Want::Bulk).await?;
        }
        Ok(found)
    }

    /// Everywhere where `id` is according to the segments, and the gravest of the errors met on the way.
    pub(crate) async fn locate(self: &Arc<Self>, id: &BlobId) -> Result<(Vec<Location>, Option<Error>)> {
        self.ensure_listed().await?;
        let segments = self.segments();
        let looked = futures::future::join_all(segments.iter().map(|segment| async { segment.find(id).await })).await;
        let (mut locations, mut failure) = (Vec::new(), None);
        for (segment, found) in segments.iter().zip(looked) {
            match found {
                Ok(found) => locations.extend(found),
                Err(error) => {
                    if let Some(unusable) = Unusable::of(&error) {
                        self.store.put_aside(Name::Index(*segment.id()), unusable.error());
                        self.distrusted.insert(*segment.id());
                    }
                    failure = Some(Error::graver(failure, error));
                }
            }
        }
        Ok((locations, failure))
    }

    /// Everywhere where `ids`, which are sorted, are according to segments other than those to `leave_out`.
    pub(crate) async fn places_of(
        self: &Arc<Self>,
        ids: Arc<[BlobId]>,
        leave_out: &HashSet<ObjectId>,
    ) -> Result<Vec<(BlobId, Location)>> {
        self.ensure_listed().await?;
        let mut places = Vec::new();
        for segment in self.segments().iter().filter(|segment| !leave_out.contains(segment.id())) {
            places.extend(find_if_sound(segment, Arc::clone(&ids)).await?);
        }
        Ok(places)
    }

    /// What none of the segments but those to `leave_out` says, of `entries`, which are sorted.
    pub(crate) async fn unsaid(
        self: &Arc<Self>,
        mut entries: Vec<(BlobId, Location)>,
        leave_out: &HashSet<ObjectId>,
    ) -> Result<Vec<(BlobId, Location)>> {
        self.ensure_listed().await?;
        for segment in self.segments().iter().filter(|segment| !leave_out.contains(segment.id())) {
            if entries.is_empty() {
                break;
            }
            let ids: Vec<_> = entries.iter().map(|(id, _)| *id).collect();
            let said: HashMap<_, _> = find_if_sound(segment, ids.into()).await?.into_iter().collect();
            entries.retain(|(id, location)| said.get(id) != Some(location));
        }
        Ok(entries)
    }

    /// What a segment says of packs that are `there`, sorted; nothing if it isn't known any more.
    pub(crate) async fn entries_of_segment(
        self: &Arc<Self>,
        id: &ObjectId,
        there: &HashSet<ObjectId>,
    ) -> Result<Option<Vec<(BlobId, Location)>>> {
        let name = Name::Index(*id).to_string();
        let length = match self.store.length(&name).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let segment = match self.fetch(*id, length).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let there = there.clone();
        let entries = cpu::start(move || {
            let entries = segment.entries().filter(|entry| match entry {
                Ok((_, location)) => there.contains(&location.pack.id),
                Err(_) => true,
            });
            entries.collect::<Result<Vec<_>>>()
        });
        entries.await.map(Some)
    }

    /// Forgets segments that were merged, in the cache as well.
    pub(crate) fn forget_segments(&self, ids: &[ObjectId]) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            segments.remove(id);
            if let Some(cache) = &self.cache {
                // A copy that stays takes up room and does no harm.
                drop(std::fs::remove_file(cache.join(id.to_string())));
            }
        }
    }

    /// The segments opened so far.
    pub(crate) fn segments(&self) -> Vec<Shared> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().map(|(_, segment)| Arc::clone(segment)).collect()
    }

    /// Why a blob may be found nowhere: a segment, or a pack's footer, that can't be used. What the others know can still
    /// be read.
    pub(crate) fn broken(&self) -> Option<Error> {
        let look = |broken: &Mutex<Option<Unusable>>| {
            broken.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Unusable::error)
        };
        look(&self.broken).or_else(|| look(&self.broken_footer))
    }

    /// Goes around a pack whose footer can't be used.
    fn put_footer_aside(&self, error: &Error) {
        if let Some(unusable) = Unusable::of(error) {
            self.store.put_aside(&unusable.object, unusable.error());
            self.broken_footer.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(unusable);
        }
    }

    /// Refuses to go on where a segment needs a newer version, for whoever is about to delete what it may describe.
    pub(crate) fn require_known(&self) -> Result<()> {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.as_ref().map_or(Ok(()), |(segment, reason)| Err(Error::unsupported(segment, reason)))
    }

    /// Lists the segments if they haven't been yet.
    pub(crate) async fn ensure_listed(self: &Arc<Self>) -> Result<()> {
        if self.listed.load(Ordering::Acquire) {
            return Ok(());
        }
        let index = Arc::clone(self);
        // Apart, since whoever else comes waits for the lock.
        cpu::apart(async move {
            let _listing = index.listing.lock().await;
            if index.listed.load(Ordering::Acquire) { Ok(()) } else { index.load(Want::Pages).await }
        })
        .await
    }

    /// Lists the segments again, opens those that are new and forgets those that are gone.
    ///
    /// One that can't be used is put aside with a warning, see [`Index::broken`]: whoever can add could have put it
    /// there. What it alone knows is stored again by writers, and read by the packs' footers by a collection.
    pub(crate) async fn refresh(self: &Arc<Self>, want: Want) -> Result<()> {
        let index = Arc::clone(self);
        cpu::apart(async move {
            let _listing = index.listing.lock().await;
            index.load(want).await
        })
        .await
    }

    async fn load(&self, want: Want) -> Result<()> {
        for _ in 1..LISTINGS {
            match self.load_once(want).await {
                // It was merged with others since it was listed.
                Err(error) if error.is_not_found() => {}
                other => return other,
            }
        }
        self.load_once(want).await
    }

    async fn load_once(&self, want: Want) -> Result<()> {
        let mut wanted = BTreeMap::new();
        // What is published while this lists may not be listed, and stays.
        let before: HashSet<ObjectId> = self.segments().iter().map(|segment| *segment.id()).collect();
        for Listed { name, length } in self.store.list(layout::INDEX).await? {
            if let Some(id) = layout::parse_segment(&name) {
                wanted.insert(id, length);
            }
        }
        let want = match want {
            Want::Bulk if wanted.values().fold(0, |sum: u64, length| sum.saturating_add(*length)) <= BULK_MAX => {
                Want::All
            }
            Want::Bulk => Want::Pages,
            other => other,
        };
        let missing: Vec<_> = {
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            segments.retain(|id, _| wanted.contains_key(id) || !before.contains(id));
            let enough =
                |id: &ObjectId| segments.get(id).is_some_and(|(have, _)| *have == Want::All || want == Want::Pages);
            wanted.into_iter().filter(|(id, _)| !enough(id)).collect()
        };
        let mut opening = futures::stream::iter(missing)
            .map(|(id, length)| self.open_segment(id, length, want))
            .buffer_unordered(CONCURRENCY);
        let (mut broken, mut unknown) = (None, None);
        while let Some(opened) = opening.next().await {
            match opened {
                Ok((id, want, segment)) => self.insert(id, want, segment),
                Err(Error::Corrupt { object, reason }) => {
                    self.store.put_aside(&object, Error::corrupt(&object, &reason));
                    broken = Some(Unusable { object, reason, is_unsupported: false });
                }
                Err(Error::Unsupported { object, reason }) => {
                    self.store.put_aside(&object, Error::unsupported(&object, &reason));
                    unknown = Some((object.clone(), reason.clone()));
                    broken = Some(Unusable { object, reason, is_unsupported: true });
                }
                Err(error) => return Err(error),
            }
        }
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = broken;
        *self.unknown.lock().unwrap_or_else(PoisonError::into_inner) = unknown;
        self.listed.store(true, Ordering::Release);
        Ok(())
    }

    fn insert(&self, id: ObjectId, want: Want, segment: Segment) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(id, (want, Arc::new(segment)));
    }

    /// Makes a segment known that was just written.
    pub(crate) async fn add(&self, id: ObjectId, bytes: Bytes) -> Result<()> {
        let (keyring, cache) = (Arc::clone(&self.keyring), self.cache.clone());
        let segment = cpu::block(move || open_whole(id, bytes, cache.as_deref(), &keyring)).await?;
        self.insert(id, Want::All, segment);
        Ok(())
    }

    /// Reads a segment from the store whatever is at hand, for checks: wholly verified, and not made known.
    pub(crate) async fn fetch(&self, id: ObjectId, length: u64) -> Result<Shared> {
        self.download(id, length).await.map(Arc::new)
    }

    async fn open_segment(&self, id: ObjectId, length: u64, want: Want) -> Result<(ObjectId, Want, Segment)> {
        let keyring = Arc::clone(&self.keyring);
        if let Some(cache) = self.cache.clone() {
            let cached = cpu::block(move || open_cached(id, length, &cache, &keyring)).await?;
            if let Some(segment) = cached {
                return Ok((id, Want::All, segment));
            }
        }
        let (name, keyring) = (Name::Index(id).to_string(), Arc::clone(&self.keyring));
        if want == Want::Pages && length > WHOLE_MAX {
            let head = self.store.get_range(&name, 0..HEAD_LEN as u64);
            let tail = self.store.get_range(&name, length.saturating_sub(TAIL)..length);
            let (head, tail) = futures::try_join!(head, tail)?;
            let source = Source::Remote(Remote { store: self.store.clone(), tail, pages: Mutex::default() });
            let segment = Segment::open(id, &head, length, source, &keyring).map_err(object::in_part)?;
            return Ok((id, want, segment));
        }
        Ok((id, Want::All, self.download(id, length).await?))
    }

    /// Reads a segment whole. A long one comes in parts, each of which is authenticated before the next is asked for:
    /// the length that a listing shows is nobody's word.
    async fn download(&self, id: ObjectId, length: u64) -> Result<Segment> {
        let name = Name::Index(id).to_string();
        let (keyring, cache) = (Arc::clone(&self.keyring), self.cache.clone());
        if length <= WHOLE_MAX {
            let bytes = self.store.get(&name, length).await?;
            return cpu::block(move || open_whole(id, bytes, cache.as_deref(), &keyring)).await;
        }
        let head = self.store.get_range(&name, 0..HEAD_LEN as u64).await?;
        let source = Source::Remote(Remote { store: self.store.clone(), tail: Bytes::new(), pages: Mutex::default() });
        let segment = Arc::new(Segment::open(id, &head, length, source, &keyring)?);
        let mut arriving = cpu::block(move || Arriving::begin(id, &head, cache.as_deref())).await?;
        let fetch = |pages: Pages| {
            let (store, name, range) = (&self.store, &name, segment.range_of(&pages));
            async move { Ok::<_, Error>((pages, store.get_range(name, range).await?)) }
        };
        let mut parts = futures::stream::iter(segment.parts()).map(fetch).buffered(PARTS);
        while let Some((pages, bytes)) = parts.try_next().await? {
            let segment = Arc::clone(&segment);
            let taken = cpu::block(move || {
                segment.authenticate(&pages, &bytes)?;
                arriving.push(&bytes)?;
                Ok(arriving)
            });
            arriving = taken.await?;
        }
        drop(parts);
        cpu::block(move || arriving.finish(id, length, &keyring)).await
    }
}

/// Packs whose footers together are no longer than what may be under way at a time.
fn waves(packs: Vec<PackRef>) -> Vec<Vec<PackRef>> {
    let (mut waves, mut bytes) = (Vec::<Vec<PackRef>>::new(), 0);
    for pack in packs {
        let length = u64::from(pack.footer_len);
        match waves.last_mut() {
            Some(wave) if bytes + length <= FOOTER_BYTES => wave.push(pack),
            _ => {
                waves.push(vec![pack]);
                bytes = 0;
            }
        }
        bytes += length;
    }
    waves
}

/// Where those of `ids` are that a segment knows.
async fn find_in(segment: &Shared, ids: Arc<[BlobId]>) -> Result<Vec<(BlobId, Location)>> {
    if !segment.is_remote() {
        let segment = Arc::clone(segment);
        return cpu::start(move || segment.find_sorted(&ids)).await;
    }
    let find = |id: BlobId| async move { Ok::<_, Error>(segment.find(&id).await?.map(|location| (id, location))) };
    let found: Vec<_> = futures::stream::iter(ids.to_vec()).map(find).buffered(LOOKUPS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// The same; nothing of a segment that can't be used, or is gone.
async fn find_if_sound(segment: &Shared, ids: Arc<[BlobId]>) -> Result<Vec<(BlobId, Location)>> {
    match find_in(segment, ids).await {
        Err(Error::Corrupt { .. } | Error::Unsupported { .. } | Error::NotFound { .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// Opens a segment from all of its bytes, by way of the cache where there is one.
fn open_whole(id: ObjectId, bytes: Bytes, cache: Option<&Path>, keyring: &Keyring) -> Result<Segment> {
    object::verify_id(&bytes, &id, &Name::Index(id).to_string())?;
    let length = bytes.len() as u64;
    Arriving::begin(id, &bytes, cache)?.finish(id, length, keyring)
}

/// Opens a segment from the cache if it is there and sound; what isn't is fetched anew.
fn open_cached(id: ObjectId, length: u64, cache: &Path, keyring: &Keyring) -> Result<Option<Segment>> {
    let path = cache.join(id.to_string());
    let Ok(file) = File::open(&path) else { return Ok(None) };
    if file.metadata().map(|metadata| metadata.len()).ok() != Some(length) {
        return Ok(None);
    }
    let mut head = [0; HEAD_LEN];
    if std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 0).is_err() {
        return Ok(None);
    }
    let opened = Segment::open(id, &head, length, Source::File(file, path), keyring)
        .and_then(|mut segment| segment.build_filter().map(|()| segment));
    // Building the filter authenticates every page, so that a damaged copy shows here and is fetched anew.
    Ok(opened.ok())
}
