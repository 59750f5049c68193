//! A collection after a rotation: what is sealed under older keys goes, if that is asked for.

use super::*;
use crate::check::CheckOptions;
use crate::crypto::Keyring;
use crate::object::{HEADER_LEN, Header};

/// What was stored, to be compared.
type Stored = Vec<(Snapshot, BTreeMap<String, Vec<u8>>)>;

fn rewriting() -> GcOptions {
    GcOptions::default().with_wait(Duration::ZERO).with_rewrite_old_keys(true)
}

async fn created(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::create(Arc::clone(store), &Secret::key([7; 32]), CreateOptions::default()).await.unwrap()
}

/// The generations under which the objects of a prefix are sealed.
async fn generations(repository: &Repository, prefix: &str, kind: Kind) -> Vec<u32> {
    let mut generations = Vec::new();
    for listed in repository.store().list(prefix).await.unwrap() {
        let head = repository.store().get_range(&listed.name, 0..HEADER_LEN as u64).await.unwrap();
        generations.push(Header::read(&head, kind, &listed.name).unwrap().0.generation);
    }
    generations
}

/// The same of packs and segments together.
async fn sealed_under(repository: &Repository) -> Vec<u32> {
    let mut generations = generations(repository, layout::PACKS, Kind::Pack).await;
    generations.extend(self::generations(repository, layout::INDEX, Kind::Index).await);
    generations
}

/// Snapshots that share some of their content, of which the first's packs alone are described by a segment.
async fn life(store: &Arc<dyn ObjectStore>, repository: &Repository) -> Stored {
    let mut stored = Vec::new();
    let (shared, mut random) = (Random::new(1).bytes(300_000), Random::new(2));
    for round in 0..3 {
        let own = random.bytes(100_000);
        let snapshot = put(store, "photos", &[("ana/1", &shared), (&format!("ana/{round}/2"), &own)]).await;
        stored.push((snapshot.clone(), read(store, &snapshot).await));
        if round == 0 {
            describe_all(repository).await;
        }
    }
    stored
}

async fn describe_all(repository: &Repository) {
    let named: Vec<_> = packs(repository).await.iter().map(|pack| pack.pack).collect();
    repository.index().describe(&named, repository.surroundings()).await.unwrap();
}

async fn assert_whole(store: &Arc<dyn ObjectStore>, stored: &Stored) {
    for (snapshot, expected) in stored {
        assert_eq!(&read(store, snapshot).await, expected, "{snapshot}");
    }
    let options = CheckOptions::default().with_read_data(100.0);
    let report = open(store).await.check(&options, Arc::new(NoProgress)).await.unwrap();
    assert!(report.is_sound(), "{:#?}", report.findings);
}

/// How many packs and segments a keyring opens.
async fn opened_by(repository: &Repository, keyring: &Keyring) -> usize {
    let (store, mut opened) = (repository.store(), 0);
    for (id, length) in lengths(store.list(layout::PACKS).await.unwrap(), layout::parse_pack) {
        opened += usize::from(RecentPack::read(id, length, store, keyring).await.is_ok());
    }
    for (id, length) in lengths(store.list(layout::INDEX).await.unwrap(), layout::parse_segment) {
        let bytes = store.get(&Name::Index(id).to_string(), length).await.unwrap();
        opened += usize::from(Segment::from_bytes(id, bytes, keyring).is_ok());
    }
    opened
}

#[tokio::test]
async fn what_was_written_before_a_rotation_is_rewritten_if_that_is_asked_for() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let administrator = created(&store).await;
    let secret = Secret::key([8; 32]);
    let slot = administrator.add_key(&secret, "to be removed").await.unwrap();
    let stored = life(&store, &administrator).await;
    let kept = Repository::open(Arc::clone(&store), &secret, OpenOptions::default()).await.unwrap();
    let before = sealed_under(&administrator).await.len();
    assert_eq!(opened_by(&administrator, kept.keyring()).await, before);

    // The collector has been open since before the rotation.
    let collector = open(&store).await;
    administrator.remove_key(&slot.id).await.unwrap();
    assert_eq!(administrator.rotate_keys().await.unwrap().generation, 1);
    let plan = collector.plan_gc(&rewriting()).await.unwrap();
    let listed = collector.store().list(layout::PACKS).await.unwrap();
    assert_eq!(plan.old_packs, listed.len() as u64);
    assert_eq!(plan.old_pack_bytes, listed.iter().map(|listed| listed.length).sum::<u64>());
    assert_eq!((plan.old_packs + plan.old_segments, plan.packs.len()), (before as u64, listed.len()));
    assert!(plan.old_segments > 0 && plan.packs.iter().any(|fate| fate.reason == PackReason::OldKeys), "{plan:?}");
    let report = collector.gc(plan, Arc::new(NoProgress)).await.unwrap();
    assert!(report.finished && report.old_packs_left == 0, "{report:?}");
    assert_eq!((report.old_packs, report.packs_deleted), (listed.len() as u64, listed.len() as u64));
    assert_eq!((report.old_packs + report.old_segments, report.old_pack_bytes), (before as u64, report.bytes_deleted));

    let after = sealed_under(&collector).await;
    assert!(!after.is_empty() && after.iter().all(|generation| *generation == 1), "{after:?}");
    assert_eq!(opened_by(&collector, kept.keyring()).await, 0, "kept keys open nothing of what holds data");
    assert_whole(&store, &stored).await;
    let again = open(&store).await.plan_gc(&rewriting()).await.unwrap();
    assert!(!again.is_due() && (again.old_packs, again.old_pack_bytes, again.old_segments) == (0, 0, 0), "{again:?}");
    // Records can't be rewritten: their names are taken for ever, and each names the one before by its hash.
    assert_eq!(generations(&collector, layout::COMMITS, Kind::Snapshot).await, [0, 0, 0]);
    assert_eq!(generations(&collector, layout::COLLECTIONS, Kind::Collection).await, [1, 1]);
}

#[tokio::test]
async fn old_keys_alone_are_no_reason_unless_that_is_asked_for() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let administrator = created(&store).await;
    let stored = life(&store, &administrator).await;
    let quiet = GcOptions::default().with_wait(Duration::ZERO);
    let plan = administrator.plan_gc(&quiet).await.unwrap();
    administrator.gc(plan, Arc::new(NoProgress)).await.unwrap();
    let before = sealed_under(&administrator).await.len() as u64;
    administrator.rotate_keys().await.unwrap();

    let plan = administrator.plan_gc(&quiet).await.unwrap();
    assert!(!plan.is_due() && plan.old_packs + plan.old_segments == before, "{plan:?}");
    let report = administrator.gc(plan, Arc::new(NoProgress)).await.unwrap();
    assert_eq!((report.old_packs, report.packs_written, report.number), (0, 0, 0), "{report:?}");
    assert!(sealed_under(&administrator).await.iter().all(|generation| *generation == 0));
    assert_whole(&store, &stored).await;
}

#[tokio::test]
async fn a_row_that_contradicts_another_keeps_no_pack() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let administrator = created(&store).await;
    let stored = life(&store, &administrator).await;
    describe_all(&administrator).await;
    administrator.rotate_keys().await.unwrap();
    let mut builder = SegmentBuilder::default();
    for pack in packs(&administrator).await {
        let (place, entry) = pack.footer.places().next().unwrap();
        let (id, length) = entry.blobs[0];
        let mut row = pack.row;
        row.generation = 1;
        builder.add_blob(id, &Location { pack: row, place, at: 0, length }).unwrap();
    }
    administrator.index().publish(builder, administrator.surroundings()).await.unwrap();

    let collector = open(&store).await;
    let plan = collector.plan_gc(&rewriting()).await.unwrap();
    assert_eq!((plan.old_packs, plan.packs.len() as u64), (plan.packs.len() as u64, plan.old_packs), "{plan:?}");
    assert!(collector.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
    let after = sealed_under(&collector).await;
    assert!(!after.is_empty() && after.iter().all(|generation| *generation == 1), "{after:?}");
    assert_whole(&store, &stored).await;
}

#[tokio::test]
async fn packs_of_writers_that_run_are_left_for_the_next_one() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let administrator = created(&store).await;
    let mut stored = life(&store, &administrator).await;
    let writer = open(&store).await.writer("others", WriterOptions::default()).await.unwrap();
    let (path, photo) = (Key::from_path("ben/1").unwrap(), Random::new(9).bytes(100_000));
    writer.put(&path, photo, &crate::Metadata::default()).await.unwrap();
    // To be read it is uploaded.
    drop(writer.read_file(&path).await.unwrap());
    administrator.rotate_keys().await.unwrap();

    let plan = administrator.plan_gc(&rewriting()).await.unwrap();
    let number = plan.old_packs;
    let report = administrator.gc(plan, Arc::new(NoProgress)).await.unwrap();
    assert!(!report.finished && report.waiting.len() == 1, "{report:?}");
    assert!(report.old_packs_left > 0 && report.old_packs + report.old_packs_left == number, "{report:?}");
    let snapshot = writer.commit(CommitOptions::default()).await.unwrap();
    stored.push((snapshot.clone(), read(&store, &snapshot).await));
    for _ in 0..2 {
        let plan = administrator.plan_gc(&rewriting()).await.unwrap();
        assert!(administrator.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
    }
    assert!(sealed_under(&administrator).await.iter().all(|generation| *generation == 1));
    assert_whole(&store, &stored).await;
}
