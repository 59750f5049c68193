//! One registration that commits again and again: what it asks of the store, losing, and outcomes that aren't known.

use std::collections::BTreeMap;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::super::*;
use crate::blobs::{Stored, WriteOptions};
use crate::crypto::Secret;
use crate::id::BlobId;
use crate::repository::{CreateOptions, OpenOptions, Repository};
use crate::snapshot::SnapshotStats;
use crate::testing::stores::{CountingStore, Fault, FaultyStore, Kind as Call, Reply};

const SERIES: &str = "accounts";

/// Content that tells one commit from another.
fn content(number: u64) -> Content {
    Content {
        host: String::new(),
        tags: BTreeMap::from([("commit".to_owned(), number.to_string())]),
        paths: Vec::new(),
        position: None,
        root: BlobId::new([0; 20]),
        entries: number,
        parent: None,
        origin: None,
        stats: SnapshotStats::default(),
        failures: Vec::new(),
        failure_count: 0,
        stored: Stored::default(),
    }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn secret() -> Secret {
    Secret::key([7; 32])
}

async fn create(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::create(Arc::clone(store), &secret(), CreateOptions::default()).await.unwrap()
}

async fn open(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Arc::clone(store), &secret(), OpenOptions::default()).await.unwrap()
}

async fn register(repository: &Repository) -> Registration {
    Registration::begin(repository.parts().clone(), SERIES, "mail-3", WriterMode::Shared).await.unwrap()
}

/// The entry counts of the series' snapshots, and a check that they form one chain.
/// Commits at whatever number can be had, and ends the registration.
async fn commit(repository: &Repository, writer: Registration, content: Content) -> Result<Snapshot> {
    crate::draft::commit(repository, writer, content, WriteOptions::default()).await
}

async fn committed(repository: &Repository) -> Vec<u64> {
    let tag = repository.keyring().series_tag(SERIES);
    let snapshots = repository.timelines().all(Some(&tag)).await.unwrap();
    for pair in snapshots.windows(2) {
        if pair[0].number + 1 == pair[1].number {
            assert_eq!(pair[1].predecessor, Some(pair[0].hash), "{}", pair[1]);
        }
        assert!(pair[0].time < pair[1].time);
    }
    snapshots.iter().map(|snapshot| snapshot.entries).collect()
}

async fn writers(repository: &Repository) -> usize {
    let registered = crate::registration::registered(repository.store(), repository.keyring()).await.unwrap();
    registered.iter().filter(|writer| !writer.has_ended).count()
}

/// Puts a tombstone at the series' next number.
async fn fence(repository: &Repository) {
    let mut fencer = register(repository).await;
    let (target, _) = fencer.seal(&content(0)).unwrap();
    let tip = fencer.tip.as_ref().unwrap();
    let record = Record {
        series: SERIES.to_owned(),
        number: target.number,
        time: tip.time.next(),
        clock: tip.time,
        predecessor: Some(tip.hash),
        body: Body::Tombstone,
        extensions: Default::default(),
    };
    let name = Name::Commit(target).to_string();
    let (keyring, surroundings) = (repository.keyring(), repository.surroundings());
    let sealed = object::seal_record(&record, Kind::Snapshot, &name, keyring, surroundings).unwrap();
    assert_eq!(repository.store().create(&name, sealed.into()).await.unwrap(), Created::Ours);
    fencer.lost = true;
    fencer.end().await;
}

#[tokio::test]
async fn one_registration_commits_again_and_again_at_one_put_each() {
    let counting = CountingStore::new(memory());
    let repository = create(&counting.shared()).await;
    let mut writer = register(&repository).await;
    assert_eq!(writer.parent(), None);
    let id = writer.id();
    for number in 1..=20 {
        counting.take();
        let snapshot = writer.contend(&content(number)).await.unwrap().unwrap();
        let counts = counting.take();
        assert_eq!((counts.total(), counts.under(Call::Put, "commits/")), (1, 1), "{:?}", counts.log);
        assert_eq!((snapshot.number, snapshot.entries), (number, number));
        assert_eq!(writer.parent(), Some(snapshot));
    }
    assert_eq!((writer.id(), writers(&repository).await), (id, 1));
    writer.end().await;
    assert_eq!(writers(&repository).await, 0);
    assert_eq!(committed(&repository).await, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lost_number_is_noticed_and_nothing_is_created_before_a_renewal() {
    let counting = CountingStore::new(memory());
    let repository = create(&counting.shared()).await;
    let (mut one, mut other) = (register(&repository).await, register(&repository).await);
    let id = one.id();
    one.contend(&content(1)).await.unwrap().unwrap();
    let second = one.contend(&content(2)).await.unwrap().unwrap();
    assert_eq!(other.contend(&content(3)).await.unwrap(), None);
    assert!(!other.is_undecided());
    counting.take();
    assert_eq!(other.contend(&content(3)).await.unwrap(), None);
    assert_eq!(counting.take().total(), 0);
    other.renew().await.unwrap();
    assert_eq!(other.parent(), Some(second));
    assert_eq!(other.contend(&content(3)).await.unwrap().map(|snapshot| snapshot.number), Some(3));
    assert_eq!(one.contend(&content(4)).await.unwrap(), None);
    one.renew().await.unwrap();
    assert_ne!(one.id(), id);
    assert_eq!(writers(&repository).await, 2);
    commit(&repository, one, content(4)).await.unwrap();
    commit(&repository, other, content(5)).await.unwrap();
    assert_eq!(writers(&repository).await, 0);
    assert_eq!(committed(&repository).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_renewal_that_fails_is_made_again() {
    let inner = memory();
    let repository = create(&inner).await;
    let mut other = register(&repository).await;
    let denied = Fault { done: false, reply: Reply::Denied };
    // The record is read when it is found in the way, and then as the parent.
    let faulty = FaultyStore::nth(Arc::clone(&inner), Call::Get, "commits/", 1, denied);
    let mut writer = register(&open(&faulty.shared()).await).await;
    other.contend(&content(1)).await.unwrap().unwrap();
    assert_eq!(writer.contend(&content(2)).await.unwrap(), None);
    assert!(writer.renew().await.is_err());
    assert_eq!(writer.contend(&content(2)).await.unwrap(), None, "there is no registration to commit under");
    writer.renew().await.unwrap();
    assert_eq!(writer.contend(&content(2)).await.unwrap().map(|snapshot| snapshot.number), Some(2));
    writer.end().await;
    other.end().await;
    assert_eq!(writers(&repository).await, 0);
}

/// On tokio's paused clock, pauses between attempts take no time.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_settled_by_the_next_call() {
    for done in [false, true] {
        let inner = memory();
        let repository = create(&inner).await;
        let down = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_down = Arc::clone(&down);
        // Puts land or don't; nobody learns it while the store is down, since nothing can be read back either.
        let faulty = FaultyStore::new(Arc::clone(&inner), move |call| {
            let hit = is_down.load(std::sync::atomic::Ordering::SeqCst) && call.name.starts_with("commits/");
            hit.then_some(Fault { done, reply: Reply::Unknown })
        });
        let mut writer = register(&open(&faulty.shared()).await).await;
        writer.contend(&content(1)).await.unwrap().unwrap();
        down.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(writer.contend(&content(2)).await.unwrap_err().is_retryable());
        assert!(writer.is_undecided());
        assert!(writer.renew().await.is_err());
        writer.end().await;
        assert_eq!(writers(&repository).await, 1, "it stays while it is undecided");
        assert!(writer.contend(&content(3)).await.is_err());
        down.store(false, std::sync::atomic::Ordering::SeqCst);
        let settled = writer.contend(&content(3)).await.unwrap().unwrap();
        assert_eq!((settled.number, settled.entries), (2, 2), "the content that was issued, not the new one");
        assert!(!writer.is_undecided());
        writer.contend(&content(3)).await.unwrap().unwrap();
        writer.end().await;
        assert_eq!(committed(&repository).await, [1, 2, 3], "landed: {done}");
        assert_eq!(writers(&repository).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_may_turn_out_as_lost() {
    let inner = memory();
    let repository = create(&inner).await;
    let seen = std::sync::atomic::AtomicU64::new(0);
    // The first put and all that settles it come to nothing.
    let faulty = FaultyStore::new(Arc::clone(&inner), move |call| {
        let hit = call.kind == Call::Put && call.name.starts_with("commits/");
        (hit && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 4).then_some(Fault::BEFORE)
    });
    let mut writer = register(&open(&faulty.shared()).await).await;
    assert!(writer.contend(&content(1)).await.is_err());
    let mut other = register(&repository).await;
    other.contend(&content(2)).await.unwrap().unwrap();
    assert_eq!(writer.contend(&content(1)).await.unwrap(), None);
    assert!(!writer.is_undecided());
    writer.renew().await.unwrap();
    writer.contend(&content(1)).await.unwrap().unwrap();
    assert_eq!(committed(&repository).await, [2, 1]);
}

#[tokio::test]
async fn a_commit_that_was_dropped_is_settled() {
    let inner = memory();
    let repository = create(&inner).await;
    let hang = Fault { done: true, reply: Reply::Silence };
    let faulty = FaultyStore::nth(Arc::clone(&inner), Call::Put, "commits/", 0, hang);
    let mut writer = register(&open(&faulty.shared()).await).await;
    let first = content(1);
    assert!(futures::FutureExt::now_or_never(writer.contend(&first)).is_none());
    assert!(writer.is_undecided());
    assert_eq!(writer.contend(&content(2)).await.unwrap().map(|snapshot| snapshot.entries), Some(1));
    assert_eq!(committed(&repository).await, [1]);
}

#[tokio::test]
async fn a_tombstone_takes_the_number_and_changes_nothing() {
    let repository = create(&memory()).await;
    let mut writer = register(&repository).await;
    let first = writer.contend(&content(1)).await.unwrap().unwrap();
    fence(&repository).await;
    fence(&repository).await;
    assert_eq!(writer.contend(&content(2)).await.unwrap(), None);
    writer.renew().await.unwrap();
    assert_eq!(writer.parent(), Some(first.clone()));
    assert_eq!(register(&repository).await.parent(), Some(first));
    assert_eq!(writer.contend(&content(2)).await.unwrap().map(|snapshot| snapshot.number), Some(4));
    assert_eq!(committed(&repository).await, [1, 2]);
}

#[tokio::test]
async fn what_can_never_be_committed_is_not_undecided() {
    let repository = create(&memory()).await;
    let mut writer = register(&repository).await;
    let mut long = content(1);
    long.paths = vec!["x".repeat(17 << 20)];
    assert!(matches!(writer.contend(&long).await, Err(Error::Invalid { .. })));
    assert!(!writer.is_undecided());
    assert!(commit(&repository, writer, long).await.is_err());
    assert_eq!(writers(&repository).await, 0);
}
