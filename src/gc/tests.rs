//! What whoever can only add puts on the store doesn't mislead a collection, and marks are what they say.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::marks::{Mark, Marks};
use super::*;
use crate::crypto::{Kind, Secret};
use crate::forget::ForgetOptions;
use crate::id::{BlobId, RecordHash, WriterId};
use crate::index::{Location, RecentPack, Segment, SegmentBuilder};
use crate::layout::{self, Name};
use crate::merge::lengths;
use crate::object::{self, object_id};
use crate::pack::{BlockKind, Encoding, Place};
use crate::progress::NoProgress;
use crate::registration::RegistrationRecord;
use crate::repository::{CreateOptions, OpenOptions};
use crate::snapshot::Snapshot;
use crate::testing::stores::RestrainedStore;
use crate::testing::{Random, fixed, keyring, packs};
use crate::tree::Key;
use crate::writer::{CommitOptions, WriterOptions};

async fn open(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Arc::clone(store), &Secret::key([7; 32]), OpenOptions::default()).await.unwrap()
}

async fn put(store: &Arc<dyn ObjectStore>, series: &str, contents: &[(&str, &[u8])]) -> Snapshot {
    let writer = open(store).await.writer(series, WriterOptions::default()).await.unwrap();
    for (path, content) in contents {
        writer.put(&Key::from_path(*path).unwrap(), content.to_vec(), &crate::Metadata::default()).await.unwrap();
    }
    writer.commit(CommitOptions::default()).await.unwrap()
}

async fn read(store: &Arc<dyn ObjectStore>, snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    let repository = open(store).await;
    let entries: Vec<_> = repository.entries(snapshot, None).try_collect().await.unwrap();
    let mut contents = BTreeMap::new();
    for (key, _) in entries {
        let mut bytes = Vec::new();
        repository.read_file(snapshot, &key).await.unwrap().read_to_end(&mut bytes).await.unwrap();
        contents.insert(key.to_string(), bytes);
    }
    contents
}

/// A place in a pack for a blob that isn't there.
fn lie(pack: &RecentPack) -> Location {
    let (place, entry) = pack.footer.places().next().unwrap();
    Location { pack: pack.row, place, at: 0, length: entry.blobs[0].1 }
}

#[tokio::test]
async fn claims_that_a_copy_is_elsewhere_are_not_believed() {
    for hidden in [false, true] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let administrator =
            Repository::create(Arc::clone(&store), &Secret::key([7; 32]), CreateOptions::default()).await.unwrap();
        let photo = Random::new(1).bytes(300_000);
        let kept = put(&store, "photos", &[("ana/1", &photo)]).await;
        let expected = read(&store, &kept).await;
        let real = packs(&administrator).await;
        if !hidden {
            let named: Vec<_> = real.iter().map(|pack| pack.pack).collect();
            administrator.index().describe(&named, administrator.surroundings()).await.unwrap();
        }
        let bait = put(&store, "bait", &[("x", &Random::new(2).bytes(500_000))]).await;
        let others: Vec<_> =
            packs(&administrator).await.into_iter().filter(|pack| real.iter().all(|one| one.row != pack.row)).collect();

        // All of it, says a segment, is in the bait's pack; and where nothing else describes the real pack, that there
        // is nothing else in it.
        let mut builder = SegmentBuilder::default();
        for id in real.iter().flat_map(|pack| pack.ids()) {
            builder.add_blob(id, &lie(&others[0])).unwrap();
        }
        if hidden {
            builder.add_blob(BlobId::new([9; 20]), &lie(&real[0])).unwrap();
        }
        administrator.add_append_only_key(&Secret::key([8; 32]), "").await.unwrap();
        let adder = Repository::open(Arc::clone(&store), &Secret::key([8; 32]), OpenOptions::default()).await.unwrap();
        adder.index().publish(builder, adder.surroundings()).await.unwrap();

        for waste_max in [0.9, 0.0] {
            let options = GcOptions::default().with_wait(Duration::ZERO).with_waste_max(waste_max);
            let repository = open(&store).await;
            // It may refuse, which does no harm.
            if let Ok(plan) = repository.plan_gc(&options).await {
                repository.gc(plan, Arc::new(NoProgress)).await.unwrap();
            }
            assert_eq!(read(&store, &kept).await, expected, "hidden: {hidden}, waste: {waste_max}");
        }
        let merged = open(&store).await;
        merged.merge(&merged.plan_merge().await.unwrap()).await.unwrap();
        assert_eq!(read(&store, &kept).await, expected);
        assert_eq!(read(&store, &bait).await.len(), 1);
    }
}

#[tokio::test]
async fn what_a_fenced_writer_may_yet_write_is_never_free() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository =
        Repository::create(Arc::clone(&store), &Secret::key([7; 32]), CreateOptions::default()).await.unwrap();
    for number in 0..3 {
        put(&store, "a", &[("x", format!("{number}").repeat(3000).as_bytes())]).await;
    }
    // Registered for number 4, and then dead.
    drop(open(&store).await.writer("a", WriterOptions::default()).await.unwrap());
    for number in 3..6 {
        put(&store, "a", &[("x", format!("{number}").repeat(3000).as_bytes())]).await;
    }
    let forget = async |numbers: std::ops::RangeInclusive<u64>| {
        let options = ForgetOptions::default().with_undelete_for(Duration::ZERO);
        let options = numbers.fold(options, |options, number| options.with_snapshot("a", number));
        repository.forget(&repository.plan_forget(&options).await.unwrap()).await.unwrap();
    };
    let numbers = async || {
        let tag = repository.keyring().series_tag("a");
        let lines = repository.timelines().lines(Some(&tag)).await.unwrap();
        lines.names.iter().map(|name| name.number).collect::<Vec<_>>()
    };
    let options = GcOptions::default().with_wait(Duration::ZERO).with_fence_after(Duration::ZERO);
    forget(1..=2).await;
    let report = repository.gc(repository.plan_gc(&options).await.unwrap(), Arc::new(NoProgress)).await.unwrap();
    assert_eq!((report.finished, report.fenced), (true, vec![("a".to_owned(), 7)]));
    assert_eq!(numbers().await, [3, 4, 5, 6, 7], "those before it contended for any of them");
    put(&store, "a", &[("x", b"8")]).await;
    // Its put for 4, 5, 6 or 7 may still land: none of these names is ever free, however often it is collected.
    for _ in 0..2 {
        if numbers().await.contains(&3) {
            forget(3..=6).await;
        }
        put(&store, "b", &[("x", Random::new(5).bytes(20_000).as_slice())]).await;
        let plan = repository.plan_gc(&options).await.unwrap();
        assert!(repository.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
        assert_eq!(numbers().await, [4, 5, 6, 7, 8]);
    }
}

/// What this process takes up, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
#[ignore = "a measurement"]
async fn memory_of_marks() {
    const SEGMENTS: u64 = 40;
    const BLOBS: u64 = 500_000;
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = CreateOptions::default().with_open(OpenOptions::default().with_cache(cache.path()));
    let repository = Repository::create(folder.path(), &Secret::key([7; 32]), options).await.unwrap();
    let place = Place {
        kind: BlockKind::Data,
        encoding: Encoding::Raw,
        number: 0,
        offset: 62,
        stored_len: 116,
        plain_len: 100,
    };
    let blob = |number: u64| {
        let mut id = [0; 20];
        id.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..20]);
        BlobId::new(id)
    };
    let before = resident();
    for segment in 0..SEGMENTS {
        let mut builder = SegmentBuilder::default();
        for number in segment * BLOBS..(segment + 1) * BLOBS {
            let id = ObjectId::new(*blake3::hash(&(number / 1000).to_le_bytes()).as_bytes());
            let pack = crate::index::PackRow { id, generation: 0, salt: [0; 32] };
            builder.add_blob(blob(number), &Location { pack, place, at: 0, length: 10 }).unwrap();
        }
        repository.index().publish(builder, repository.surroundings()).await.unwrap();
    }
    let indexed = resident();
    let marks = Marks::new(repository.index().segments());
    let begin = tokio::time::Instant::now();
    for number in (0..SEGMENTS * BLOBS).step_by(20) {
        assert_eq!(marks.mark(BlockKind::Data, &blob(number)).unwrap(), Mark::New);
    }
    let (marked, begun) = (begin.elapsed(), tokio::time::Instant::now());
    let mut needed = 0;
    marks
        .for_each(|_, is_needed, _| {
            needed += u64::from(is_needed);
            Ok(())
        })
        .unwrap();
    assert_eq!(needed, SEGMENTS * BLOBS / 20);
    eprintln!(
        "{} blobs: {} MiB with the filters, {} MiB with the marks; {:?} for {needed} marks, {:?} to go through all",
        SEGMENTS * BLOBS,
        (indexed - before) >> 20,
        (resident() - before) >> 20,
        marked,
        begun.elapsed()
    );
}

/// A segment that knows these blobs.
fn segment(ids: &[u8]) -> Arc<Segment> {
    let mut builder = SegmentBuilder::default();
    for id in ids {
        let place = Place {
            kind: BlockKind::Data,
            encoding: Encoding::Raw,
            number: 0,
            offset: 62,
            stored_len: 116,
            plain_len: 100,
        };
        let pack = crate::index::PackRow { id: ObjectId::new([*id / 8; 32]), generation: 0, salt: [0; 32] };
        builder.add_blob(BlobId::new([*id; 20]), &Location { pack, place, at: 0, length: 10 }).unwrap();
    }
    let bytes = builder.seal(&keyring(), &fixed()).unwrap();
    let mut segment = Segment::from_bytes(object_id(&bytes), bytes.into(), &keyring()).unwrap();
    segment.build_filter().unwrap();
    Arc::new(segment)
}

proptest! {
    #[test]
    fn marks_are_a_set(
        segments in prop::collection::vec(prop::collection::btree_set(any::<u8>(), 1..40), 1..4),
        marked in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let marks = Marks::new(segments.iter().map(|ids| segment(&ids.iter().copied().collect::<Vec<_>>())).collect());
        let mut model = BTreeMap::<u8, (bool, usize)>::new();
        for id in segments.iter().flatten() {
            model.entry(*id).or_default().1 += 1;
        }
        for id in marked {
            let expected = match model.get_mut(&id) {
                None => Mark::Unknown,
                Some((known, _)) => if std::mem::replace(known, true) { Mark::Known } else { Mark::New },
            };
            prop_assert_eq!(marks.mark(BlockKind::Data, &BlobId::new([id; 20])).unwrap(), expected);
            prop_assert_eq!(marks.is_marked(BlockKind::Data, &BlobId::new([id; 20])).unwrap(), expected != Mark::Unknown);
        }
        let mut told = BTreeMap::new();
        marks.for_each(|id, is_needed, places| {
            told.insert(id.as_bytes()[0], (is_needed, places.len()));
            Ok(())
        }).unwrap();
        prop_assert_eq!(told, model);
    }
}

/// Of a clock that is wrong, or made up: nobody could wait for it.
#[tokio::test]
async fn a_registration_of_the_far_future_or_past_is_fenced() {
    let day = 24 * 3600 * 1_000_000_000;
    for (ahead, fenced) in [(365 * day, true), (3 * day, true), (day, false), (-day, false), (-3 * day, true)] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let options = CreateOptions::default();
        let repository = Repository::create(Arc::clone(&store), &Secret::key([7; 32]), options).await.unwrap();
        for content in ["one", "two"] {
            put(&store, "a", &[("x", content.repeat(3000).as_bytes())]).await;
        }
        let name = Name::Writer(WriterId::new([9; 16])).to_string();
        let (keyring, surroundings) = (repository.keyring(), repository.surroundings());
        let time = Timestamp::from_nanos(surroundings.clock.now().as_nanos() + ahead);
        let (series, host, ending) = ("a".to_owned(), String::new(), RecordHash::new([1; 32]));
        let record =
            RegistrationRecord { series, number: 3, time, host, seen: 0, ending, extensions: Default::default() };
        let sealed = object::seal_record(&record, Kind::Registration, &name, keyring, surroundings).unwrap();
        repository.store().create(&name, sealed.into()).await.unwrap();
        let options = ForgetOptions::default().with_snapshot("a", 1).with_undelete_for(Duration::ZERO);
        repository.forget(&repository.plan_forget(&options).await.unwrap()).await.unwrap();
        let plan = repository.plan_gc(&GcOptions::default().with_wait(Duration::ZERO)).await.unwrap();
        let report = repository.gc(plan, Arc::new(NoProgress)).await.unwrap();
        assert_eq!((report.finished, report.fenced.len() == 1), (fenced, fenced), "{ahead}: {report:?}");
    }
}

#[tokio::test]
async fn who_would_wait_for_ever_need_not_where_nobody_runs() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository =
        Repository::create(Arc::clone(&store), &Secret::key([7; 32]), CreateOptions::default()).await.unwrap();
    for content in ["one", "two"] {
        put(&store, "a", &[("x", content.repeat(3000).as_bytes())]).await;
    }
    let options = ForgetOptions::default().with_snapshot("a", 1).with_undelete_for(Duration::ZERO);
    repository.forget(&repository.plan_forget(&options).await.unwrap()).await.unwrap();
    let plan = repository.plan_gc(&GcOptions::default().with_wait(Duration::MAX)).await.unwrap();
    assert!(repository.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
}

/// A store that lets nothing be deleted, say because it locks objects, doesn't keep a collection from looking.
#[tokio::test]
async fn registrations_that_cannot_be_deleted_stop_nobody() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    drop(Repository::create(Arc::clone(&store), &Secret::key([7; 32]), CreateOptions::default()).await.unwrap());
    put(&store, "photos", &[("ana/1", b"one")]).await;
    let restrained = open(&RestrainedStore::without_deletes(Arc::clone(&store)).shared()).await;
    let plan = restrained.plan_gc(&GcOptions::default()).await.unwrap();
    let report = restrained.gc(plan, Arc::new(NoProgress)).await.unwrap();
    assert_eq!(report.registrations_cleared, 0);
    let plan = open(&store).await.plan_gc(&GcOptions::default()).await.unwrap();
    assert_eq!(open(&store).await.gc(plan, Arc::new(NoProgress)).await.unwrap().registrations_cleared, 2);
}

/// A server that starts while a collection waits, and backups that overlap, could hold it up for ever.
#[tokio::test]
async fn who_begins_beside_a_collection_does_not_hold_it_up() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    drop(Repository::create(Arc::clone(&store), &Secret::key([7; 32]), CreateOptions::default()).await.unwrap());
    for content in ["one", "two"] {
        put(&store, "a", &[("x", content.repeat(3000).as_bytes())]).await;
    }
    let repository = open(&store).await;
    let options = ForgetOptions::default().with_snapshot("a", 1).with_undelete_for(Duration::ZERO);
    repository.forget(&repository.plan_forget(&options).await.unwrap()).await.unwrap();
    let collect = async || {
        let plan = repository.plan_gc(&GcOptions::default().with_wait(Duration::ZERO)).await.unwrap();
        repository.gc(plan, Arc::new(NoProgress)).await.unwrap()
    };
    let writer = async |series| open(&store).await.writer(series, WriterOptions::default()).await.unwrap();
    let before = writer("b").await;
    let report = collect().await;
    assert!(!report.finished && report.waiting.len() == 1, "{report:?}");
    let (feed, during) =
        (open(&store).await.feed("c", crate::feed::FeedOptions::default()).await.unwrap(), writer("d").await);
    assert_eq!(collect().await.waiting, report.waiting);
    before.commit(CommitOptions::default()).await.unwrap();
    let report = collect().await;
    assert!(report.finished && report.packs_deleted > 0, "{report:?}");
    // What was condemned they store anew.
    let (path, again) = (Key::from_path("y").unwrap(), "one".repeat(3000).into_bytes());
    let metadata = crate::Metadata::default();
    feed.put(&path, again.clone(), &metadata).await.unwrap();
    during.put(&path, again.clone(), &metadata).await.unwrap();
    during.commit(CommitOptions::default()).await.unwrap();
    for series in ["c", "d"] {
        let latest = crate::snapshots::Selector::LatestOf { series: series.to_owned() };
        let snapshot = repository.find(&latest).await.unwrap();
        assert_eq!(read(&store, &snapshot).await, BTreeMap::from([("y".to_owned(), again.clone())]));
    }
}

mod rotation;
