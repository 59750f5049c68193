//! What whoever can only add puts on the store doesn't lead a merge to delete what isn't elsewhere, whoever finishes it.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::blobs::list_packs;
use crate::crypto::Secret;
use crate::gc::GcOptions;
use crate::index::{Location, RecentPack, SegmentBuilder, Want};
use crate::layout::Name;
use crate::pack::{BlockKind, Place};
use crate::progress::NoProgress;
use crate::repair::RepairOptions;
use crate::repository::{CreateOptions, OpenOptions};
use crate::snapshot::Snapshot;
use crate::testing::{Random, packs};
use crate::tree::Key;
use crate::writer::{CommitOptions, WriterOptions};

struct World {
    store: Arc<dyn ObjectStore>,
    /// The pack that is wanted, and one that isn't.
    good: Arc<RecentPack>,
    bait: Arc<RecentPack>,
    snapshot: Snapshot,
    content: Vec<u8>,
}

async fn put(store: &Arc<dyn ObjectStore>, series: &str, content: &[u8]) -> (Snapshot, Arc<RecentPack>) {
    let repository = open(store, 7).await;
    let before = list_packs(repository.store()).await.unwrap();
    let writer = repository.writer(series, WriterOptions::default()).await.unwrap();
    writer.put(&Key::from_path("f").unwrap(), content.to_vec(), &crate::Metadata::default()).await.unwrap();
    let snapshot = writer.commit(CommitOptions::default()).await.unwrap();
    let mut new = packs(&repository).await.into_iter().filter(|pack| !before.contains(&pack.row.id));
    let pack = new.next().unwrap();
    assert!(new.next().is_none());
    (snapshot, pack)
}

async fn open(store: &Arc<dyn ObjectStore>, key: u8) -> Repository {
    Repository::open(Arc::clone(store), &Secret::key([key; 32]), OpenOptions::default()).await.unwrap()
}

impl World {
    /// Two commits, each with a pack of its own that a segment describes, and a segment that lies.
    async fn new() -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let administrator =
            Repository::create(Arc::clone(&store), &Secret::key([7; 32]), CreateOptions::default()).await.unwrap();
        administrator.add_append_only_key(&Secret::key([8; 32]), "").await.unwrap();
        let content = Random::new(1).bytes(300_000);
        let (snapshot, good) = put(&store, "photos", &content).await;
        let (_, bait) = put(&store, "bait", &Random::new(2).bytes(400_000)).await;
        let world = Self { store, good, bait, snapshot, content };
        let described = [world.good.pack, world.bait.pack];
        administrator.index().describe(&described, administrator.surroundings()).await.unwrap();
        world
    }

    /// Says that everything of the good pack is in the bait.
    async fn lie(&self) {
        let mut builder = SegmentBuilder::default();
        for id in self.good.ids() {
            builder.add_blob(id, &self.wrong()).unwrap();
        }
        let adder = open(&self.store, 8).await;
        adder.index().publish(builder, adder.surroundings()).await.unwrap();
    }

    /// A place in the bait.
    fn wrong(&self) -> Location {
        let (place, entry) = self.bait.footer.places().find(|(place, _)| place.kind == BlockKind::Data).unwrap();
        Location { pack: self.bait.row, place, at: 0, length: entry.blobs[0].1 }
    }

    async fn bytes(&self, pack: &RecentPack) -> Vec<u8> {
        let name = Name::Pack(pack.row.id).to_string();
        self.store.get(&name.into()).await.unwrap().bytes().await.unwrap().to_vec()
    }

    /// A name that begins like the good pack's.
    fn false_name(&self) -> ObjectId {
        let mut id = *self.good.row.id.as_bytes();
        id[31] ^= 1;
        ObjectId::new(id)
    }

    async fn is_there(&self, pack: ObjectId) -> bool {
        list_packs(open(&self.store, 7).await.store()).await.unwrap().contains(&pack)
    }

    /// Reads the snapshot, and looks whether all that it needs can be found by the index alone.
    async fn assert_whole(&self, what: &str) {
        use tokio::io::AsyncReadExt;
        let repository = open(&self.store, 7).await;
        let (mut bytes, key) = (Vec::new(), Key::from_path("f").unwrap());
        let mut file = repository.read_file(&self.snapshot, &key).await.expect(what);
        file.read_to_end(&mut bytes).await.expect(what);
        assert!(bytes == self.content, "{what}");
        let fresh = open(&self.store, 7).await;
        for (kind, id) in self.blobs() {
            fresh.reader().read(kind, &id).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }

    fn blobs(&self) -> Vec<(BlockKind, crate::id::BlobId)> {
        let blocks = &self.good.footer.blocks;
        blocks.iter().flat_map(|block| block.blobs.iter().map(|(id, _)| (block.kind, *id))).collect()
    }

    /// Begins a collection that another process was to carry out.
    async fn begin(&self, plan: Plan) {
        let collections = Collections::new(open(&self.store, 7).await.parts().clone());
        let before = collections.standing().await.unwrap();
        assert!(collections.begin(&before, plan).await.unwrap().is_some());
    }

    async fn is_open(&self) -> bool {
        let collections = Collections::new(open(&self.store, 7).await.parts().clone());
        collections.standing().await.unwrap().open().is_some()
    }

    async fn finish(&self, finisher: &str) {
        let repository = open(&self.store, 7).await;
        match finisher {
            "merge" => {
                let plan = repository.plan_merge().await.unwrap();
                assert!(plan.unfinished);
                repository.merge(&plan).await.unwrap();
            }
            "gc" => {
                let plan = repository.plan_gc(&GcOptions::default().with_wait(Duration::ZERO)).await.unwrap();
                assert!(repository.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
            }
            _ => {
                // Something must be damaged, or it leaves merges alone.
                let garbage = Name::Pack(ObjectId::new([0x77; 32])).to_string();
                self.store.put(&garbage.as_str().into(), "garbage".into()).await.unwrap();
                let plan = repository.plan_repair(&RepairOptions::default(), Arc::new(NoProgress)).await.unwrap();
                repository.repair(plan, Arc::new(NoProgress)).await.unwrap();
            }
        }
        assert!(!self.is_open().await, "{finisher}");
    }
}

#[tokio::test]
async fn a_sound_pack_under_a_false_name_condemns_nothing() {
    for is_chosen in [true, false] {
        let world = World::new().await;
        let bytes = world.bytes(&world.bait).await;
        let (length, false_name) = (bytes.len() as u64, world.false_name());
        world.store.put(&Name::Pack(false_name).to_string().into(), bytes.into()).await.unwrap();
        world.lie().await;
        let mut chosen = vec![(world.bait.row.id, length)];
        if is_chosen {
            chosen.push((false_name, length));
        }
        let repository = open(&world.store, 7).await;
        let plan = MergePlan { packs: 1, chosen_packs: chosen, ..MergePlan::default() };
        let report = repository.merge(&plan).await.unwrap();
        assert_eq!((report.packs_deleted, report.left), (1, 0), "the bait alone, and it ends");
        assert!(world.is_there(world.good.row.id).await && world.is_there(false_name).await);
        assert!(!world.is_there(world.bait.row.id).await && !world.is_open().await);
        world.assert_whole("merged").await;
    }
}

#[tokio::test]
async fn a_pack_is_copied_though_a_segment_says_that_copies_are_elsewhere() {
    for finisher in ["merge", "gc", "repair"] {
        let world = World::new().await;
        world.lie().await;
        world.begin(Plan { packs: vec![world.good.row.id], ..Plan::default() }).await;
        world.finish(finisher).await;
        assert!(!world.is_there(world.good.row.id).await, "{finisher}");
        world.assert_whole(finisher).await;
    }
}

#[tokio::test]
async fn a_name_that_begins_alike_is_neither_deleted_nor_waited_for() {
    for finisher in ["merge", "gc", "repair"] {
        let world = World::new().await;
        let false_name = world.false_name();
        world.begin(Plan { packs: vec![false_name], ..Plan::default() }).await;
        world.lie().await;
        world.finish(finisher).await;
        assert!(world.is_there(world.good.row.id).await, "{finisher}");
        world.assert_whole(finisher).await;
    }
}

#[tokio::test]
async fn a_segment_goes_only_if_another_says_the_same() {
    for finisher in ["merge", "gc", "repair"] {
        let world = World::new().await;
        let repository = open(&world.store, 7).await;
        let segments: Vec<_> =
            lengths(repository.store().list(layout::INDEX).await.unwrap(), layout::parse_segment).collect();
        assert_eq!(segments.len(), 1);
        world.lie().await;
        world.begin(Plan { segments: vec![segments[0].0], ..Plan::default() }).await;
        world.finish(finisher).await;
        let repository = open(&world.store, 7).await;
        repository.index().refresh(Want::All).await.unwrap();
        assert!(repository.index().segments().iter().all(|segment| *segment.id() != segments[0].0), "{finisher}");
        for (_, id) in world.blobs() {
            let places = repository.index().places(&id).unwrap();
            assert!(places.iter().any(|place| world.good.has(&id, place)), "{finisher}: {id} can't be found");
        }
        world.assert_whole(finisher).await;
    }
}

#[tokio::test]
async fn a_segment_of_what_comes_later_does_not_hold_up_a_merge() {
    let world = World::new().await;
    // It says that something is in a pack that comes to be there only when it has been merged.
    let later = ObjectId::new([0x99; 32]);
    let mut builder = SegmentBuilder::default();
    let mut place = world.wrong();
    place.pack.id = later;
    builder.add_blob(world.good.ids()[0], &place).unwrap();
    let adder = open(&world.store, 8).await;
    adder.index().publish(builder, adder.surroundings()).await.unwrap();
    let repository = open(&world.store, 7).await;
    let segments: Vec<_> =
        lengths(repository.store().list(layout::INDEX).await.unwrap(), layout::parse_segment).collect();
    let merged = repository.merge_segments(&segments, &BTreeSet::new()).await.unwrap();
    world.begin(Plan { segments: merged.into_iter().collect(), ..Plan::default() }).await;
    let bait = world.bytes(&world.bait).await;
    world.store.put(&Name::Pack(later).to_string().into(), bait.into()).await.unwrap();
    world.finish("merge").await;
    world.assert_whole("merged").await;
}

#[tokio::test]
async fn a_copy_counts_only_at_the_place_that_is_told() {
    // A block that was opened by right words doesn't vouch for wrong ones.
    let world = World::new().await;
    let repository = open(&world.store, 7).await;
    let (place, entry) = world.good.footer.places().find(|(place, _)| place.kind == BlockKind::Data).unwrap();
    let right = Location { pack: world.good.row, place, at: 0, length: entry.blobs[0].1 };
    let id = entry.blobs[0].0;
    let mut salted = right;
    salted.pack.salt[0] ^= 1;
    let moved = Location { place: Place { offset: place.offset + 1, ..place }, ..right };
    for _ in 0..2 {
        assert!(repository.reader().read_at(BlockKind::Data, &id, &salted).await.is_err());
        assert!(repository.reader().read_at(BlockKind::Data, &id, &moved).await.is_err());
        repository.reader().read_at(BlockKind::Data, &id, &right).await.unwrap();
    }
}

#[tokio::test]
async fn no_entry_is_dropped_when_segments_are_merged() {
    // Two wrong entries for a blob in the very pack where it is, in segments of their own: whichever comes first, the
    // right one stays.
    let world = World::new().await;
    let adder = open(&world.store, 8).await;
    for change in [1, 2] {
        let mut builder = SegmentBuilder::default();
        for (place, entry) in world.good.footer.places() {
            let mut row = world.good.row;
            row.salt[0] ^= change;
            let mut at = 0;
            for (id, length) in &entry.blobs {
                builder.add_blob(*id, &Location { pack: row, place, at, length: *length }).unwrap();
                at += length;
            }
        }
        adder.index().publish(builder, adder.surroundings()).await.unwrap();
    }
    let repository = open(&world.store, 7).await;
    let mut plan = repository.plan_merge_of(usize::MAX, 1).await.unwrap();
    for turned in [false, true] {
        if turned {
            plan = repository.plan_merge_of(usize::MAX, 1).await.unwrap();
            plan.chosen_segments.reverse();
        }
        let report = repository.merge(&plan).await.unwrap();
        assert_eq!((report.segments_deleted, report.left), (3, 0));
        let segments: Vec<_> = world.store.list(Some(&"index".into())).try_collect().await.unwrap();
        assert_eq!(segments.len(), 3, "one for each of the three");
        world.assert_whole("merged").await;
    }
}
