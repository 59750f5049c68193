//! Merging small packs and segments: nothing that could be read before can't be read afterwards, wherever it is cut off
//! and whatever runs beside it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::collections::BTreeMap;
use std::sync::Arc;

use backstop::{CheckOptions, Key, Repository, Snapshot};
use common::{Fault, FaultyStore, Kind, Random, Reply};
use helpers::{Folder, backup, contents, create, dump, memory, names, open, quiet, snapshot};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

/// Backups that each store a pack and a segment of their own; enough of them that they are merged.
const BACKUPS: usize = 40;

type Contents = BTreeMap<Key, Vec<u8>>;

/// A repository of many small backups, and what each snapshot holds.
async fn fragmented(store: &Arc<dyn ObjectStore>) -> (Folder, Vec<(Snapshot, Contents)>) {
    let (folder, repository, mut random) = (Folder::new(), create(store).await, Random::new(5));
    let mut snapshots = Vec::new();
    for number in 0..BACKUPS {
        let length = 1500 + number;
        folder.write(format!("folder/{}", number % 10), random.bytes(length));
        let snapshot = snapshot(&repository, &folder).await;
        snapshots.push((snapshot, folder.files()));
    }
    (folder, snapshots)
}

async fn copy(store: &Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let copied = InMemory::new();
    for (name, bytes) in dump(store).await {
        copied.put(&name.into(), bytes.into()).await.unwrap();
    }
    Arc::new(copied)
}

async fn assert_whole(repository: &Repository, snapshots: &[(Snapshot, Contents)], what: &str) {
    for (snapshot, expected) in snapshots {
        assert_eq!(&contents(repository, snapshot).await, expected, "{snapshot}, {what}");
    }
}

async fn assert_sound(repository: &Repository, what: &str) {
    let report = repository.check(&CheckOptions::default().with_read_data(100.0), quiet()).await.unwrap();
    assert!(report.is_sound(), "{what}: {:#?}", report.findings);
}

async fn merge(repository: &Repository) -> backstop::MergeReport {
    let plan = repository.plan_merge().await.unwrap();
    repository.merge(&plan).await.unwrap()
}

#[tokio::test]
async fn small_packs_and_segments_become_few() {
    let store = memory();
    let (folder, mut snapshots) = fragmented(&store).await;
    let before = open(&store).await;
    // A reader that knows the old segments and has read some of the old packs.
    assert_whole(&before, &snapshots[..1], "before").await;

    let repository = open(&store).await;
    let plan = repository.plan_merge().await.unwrap();
    assert!(plan.is_due() && plan.packs >= BACKUPS as u64 && plan.segments >= BACKUPS as u64, "{plan:?}");
    let report = repository.merge(&plan).await.unwrap();
    assert_eq!((report.packs_deleted, report.segments_deleted, report.left), (plan.packs, plan.segments, 0));
    assert!(names(&store, "packs").await.len() <= 2 && names(&store, "index").await.len() <= 2);
    assert!(!repository.plan_merge().await.unwrap().is_due());

    assert_whole(&before, &snapshots, "by who opened it before").await;
    assert_whole(&repository, &snapshots, "by who merged it").await;
    assert_whole(&open(&store).await, &snapshots, "by who opened it afterwards").await;
    assert_sound(&repository, "afterwards").await;

    // A backup finds everything that it needs.
    let report = backup(&before, &folder).await;
    assert_eq!(report.stats.new_blobs, 0);
    snapshots.push((report.snapshot.unwrap(), folder.files()));
    assert_whole(&open(&store).await, &snapshots, "after one more backup").await;
    assert_sound(&before, "after one more backup").await;
}

#[tokio::test]
async fn few_small_packs_are_left_alone() {
    let (store, folder) = (memory(), Folder::new());
    let repository = create(&store).await;
    folder.write("a", b"a");
    backup(&repository, &folder).await;
    let plan = repository.plan_merge().await.unwrap();
    assert!(!plan.is_due(), "{plan:?}");
    assert_eq!(repository.merge(&plan).await.unwrap(), backstop::MergeReport::default());
    assert!(names(&store, "gc").await.is_empty());
}

#[tokio::test]
async fn a_merge_may_be_cut_off_anywhere() {
    let original = memory();
    let (_folder, snapshots) = fragmented(&original).await;
    let some: Vec<_> = snapshots.iter().step_by(13).cloned().collect();
    let mut finished = false;
    // The merge makes some 250 calls; the first and the last of them are where things happen.
    for k in (0..60).chain((60..400).step_by(11)) {
        let store = copy(&original).await;
        let dying = FaultyStore::dead_after(Arc::clone(&store), k).shared();
        if let Ok(repository) = Repository::open(dying, &helpers::secret(), backstop::OpenOptions::default()).await
            && let Ok(plan) = repository.plan_merge().await
        {
            finished |= repository.merge(&plan).await.is_ok_and(|report| report.left == 0 && report.packs_deleted > 0);
        }
        let repository = open(&store).await;
        assert_whole(&repository, &some, &format!("cut off at call {k}")).await;
        assert_sound(&repository, &format!("cut off at call {k}")).await;
        while repository.plan_merge().await.unwrap().is_due() {
            assert_eq!(merge(&repository).await.left, 0, "cut off at call {k}");
        }
        assert!(names(&store, "packs").await.len() <= 4, "cut off at call {k}");
        assert_whole(&repository, &some, &format!("merged after call {k}")).await;
    }
    assert!(finished, "no merge was allowed to finish");
}

#[tokio::test]
async fn two_merges_and_a_writer_run_at_once() {
    for seed in 0..4 {
        let store = memory();
        let (folder, mut snapshots) = fragmented(&store).await;
        let slow: Arc<dyn ObjectStore> =
            common::SlowStore::new(Arc::clone(&store), std::time::Duration::from_millis(seed)).shared();
        let (one, other, writer) = (open(&slow).await, open(&slow).await, open(&slow).await);
        folder.write("folder/new", b"new");
        // What is there again has to be found, wherever it lies at that moment.
        folder.write("folder/0", &snapshots[0].1[&folder.key("folder/0")]);
        let (first, second, report) = tokio::join!(merge(&one), merge(&other), backup(&writer, &folder));
        assert!(first.packs_deleted + second.packs_deleted > 0, "{first:?} {second:?}");
        snapshots.push((report.snapshot.unwrap(), folder.files()));
        let repository = open(&store).await;
        assert_whole(&repository, &snapshots, "after all of them").await;
        while repository.plan_merge().await.unwrap().is_due() {
            merge(&repository).await;
        }
        assert_whole(&open(&store).await, &snapshots, "after one more merge").await;
        assert_sound(&repository, "after one more merge").await;
    }
}

#[tokio::test]
async fn a_store_that_refuses_to_delete_loses_nothing_and_is_not_filled() {
    let store = memory();
    let (_folder, snapshots) = fragmented(&store).await;
    let locked = FaultyStore::new(Arc::clone(&store), |call| {
        let object = call.name.starts_with("packs/") || call.name.starts_with("index/");
        (call.kind == Kind::Delete && object).then_some(Fault { done: false, reply: Reply::Denied })
    });
    let repository = open(&locked.shared()).await;
    let first = merge(&repository).await;
    assert!(first.packs_written > 0 && first.packs_deleted == 0 && first.left > 0, "{first:?}");
    let packs = names(&store, "packs").await;
    let second = merge(&repository).await;
    assert_eq!((second.packs_written, second.left), (0, first.left), "nothing is copied twice");
    assert_eq!(names(&store, "packs").await, packs);
    assert_whole(&repository, &snapshots, "locked").await;
    assert_sound(&repository, "locked").await;

    // Once the lock is off, it goes on.
    let repository = open(&store).await;
    assert_eq!(merge(&repository).await.left, 0);
    assert_whole(&repository, &snapshots, "unlocked").await;
    assert!(names(&store, "packs").await.len() <= 2);
}

#[tokio::test]
async fn a_damaged_pack_is_not_merged_and_not_deleted() {
    let store = memory();
    let (_folder, snapshots) = fragmented(&store).await;
    let damaged = names(&store, "packs").await.swap_remove(7);
    let mut bytes = store.get(&damaged.as_str().into()).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[100] ^= 1;
    store.put(&damaged.as_str().into(), bytes.into()).await.unwrap();
    let repository = open(&store).await;
    assert_eq!(merge(&repository).await.left, 0);
    let left = names(&store, "packs").await;
    assert!(left.contains(&damaged) && left.len() <= 3, "{left:?}");
    // What isn't damaged in it can still be found.
    let report = repository.check(&CheckOptions::default(), quiet()).await.unwrap();
    assert!(report.findings.iter().all(|finding| finding.object.contains(&damaged)), "{:#?}", report.findings);
    let mut whole = 0;
    for (snapshot, _) in &snapshots {
        let entries: Vec<_> =
            futures::TryStreamExt::try_collect(repository.entries(snapshot, None)).await.unwrap_or_default();
        whole += usize::from(!entries.is_empty());
    }
    assert!(whole > BACKUPS / 2, "{whole}");
}
