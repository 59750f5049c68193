//! What operations ask of the store: requests cost money and a round trip each, so every one is accounted for.
//!
//! The numbers are what was measured, with no slack: an operation that comes to ask for more, or for less, fails here
//! and has to say why. What finding one of thousands of snapshots costs is tested beside `Repository::find`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::sync::Arc;

use backstop::{Repository, RestoreOptions, Snapshot};
use common::{CountingStore, Counts, Kind, Random};
use helpers::{Folder, backup, create, memory, open, quiet, read};
use object_store::ObjectStore;

/// Checks the calls that were made, as kind and beginning of the name, in any order.
#[track_caller]
fn assert_calls(counts: &Counts, expected: &[(Kind, &str, u64)]) {
    let mut wrong = Vec::new();
    for (kind, prefix, times) in expected {
        let found = counts.under(*kind, prefix);
        if found != *times {
            wrong.push(format!("{kind:?} {prefix}: {found}, not {times}"));
        }
    }
    let all: u64 = expected.iter().map(|(.., times)| times).sum();
    assert!(
        wrong.is_empty() && counts.total() == all,
        "{wrong:?}, {} calls, not {all}: {:#?}",
        counts.total(),
        counts.log
    );
}

/// A repository with one snapshot of a few hundred files.
async fn filled() -> (Arc<dyn ObjectStore>, Folder, Snapshot) {
    let (store, folder, mut random) = (memory(), Folder::new(), Random::new(1));
    for number in 0..300 {
        folder.write(format!("folder {}/{number}", number % 7), random.text(2_000));
    }
    folder.write("large", random.bytes(3_000_000));
    let report = backup(&create(&store).await, &folder).await;
    (store, folder, report.snapshot.unwrap())
}

async fn counted(store: Arc<dyn ObjectStore>) -> (CountingStore, Repository) {
    let counting = CountingStore::new(store);
    let repository = open(&counting.shared()).await;
    (counting, repository)
}

/// The config, the names of the slots, the slot.
const OPEN: [(Kind, &str, u64); 3] = [(Kind::Get, "config", 1), (Kind::List, "keys", 1), (Kind::Get, "keys/", 1)];

#[tokio::test]
async fn a_cold_open() {
    let (store, ..) = filled().await;
    let (counting, _repository) = counted(store).await;
    assert_calls(&counting.take(), &OPEN);
}

#[tokio::test]
async fn an_unchanged_backup() {
    let (store, folder, _) = filled().await;
    let (counting, repository) = counted(store).await;
    counting.take();
    let report = backup(&repository, &folder).await;
    assert_eq!(report.stats.new_blobs, 0);
    assert_calls(
        &counting.take(),
        &[
            (Kind::List, "commits/", 2), // the series' buckets and the names in the newest
            (Kind::Put, "writers/", 3),  // the registration, and again to see it refused; its end
            (Kind::Head, "commits/", 1), // whether the number was taken before
            (Kind::List, "gc", 2),       // what was collected, before registering and after
            (Kind::List, "kept/", 1),    // what still counts
            (Kind::Get, "commits/", 1),  // the parent
            (Kind::List, "index", 1),
            (Kind::Get, "index/", 1),   // the one segment, whole
            (Kind::Get, "packs/", 1),   // the parent's nodes, which share a block
            (Kind::Put, "commits/", 1), // the commit
        ],
    );
}

#[tokio::test]
async fn a_backup_of_one_changed_file() {
    let (store, folder, _) = filled().await;
    let (counting, repository) = counted(store).await;
    counting.take();
    folder.write("folder 3/3", "changed");
    backup(&repository, &folder).await;
    assert_calls(
        &counting.take(),
        &[
            // As if unchanged:
            (Kind::List, "commits/", 2),
            (Kind::Put, "writers/", 3),
            (Kind::Head, "commits/", 1),
            (Kind::List, "gc", 2),
            (Kind::List, "kept/", 1),
            (Kind::Get, "commits/", 1),
            (Kind::List, "index", 1),
            (Kind::Get, "index/", 1),
            (Kind::Get, "packs/", 1),
            (Kind::Put, "commits/", 1),
            // And what is new: data and nodes in one pack, and where it is.
            (Kind::Put, "packs/", 1),
            (Kind::Put, "index/", 1),
        ],
    );
}

/// The index, which is small and fetched whole; the block of the tree's nodes; the block of the file's bytes.
const ONE_FILE: [(Kind, &str, u64); 3] = [(Kind::List, "index", 1), (Kind::Get, "index/", 1), (Kind::Get, "packs/", 2)];

#[tokio::test]
async fn a_cold_read_of_one_file() {
    let (store, folder, snapshot) = filled().await;
    let (counting, repository) = counted(store).await;
    counting.take();
    read(&repository, &snapshot, &folder.key("folder 3/3")).await;
    assert_calls(&counting.take(), &ONE_FILE);
}

#[tokio::test]
async fn a_cold_restore_of_one_file() {
    let (store, folder, snapshot) = filled().await;
    let (counting, repository) = counted(store).await;
    counting.take();
    let (to, options) = (tempfile::tempdir().unwrap(), RestoreOptions::default());
    let key = folder.key("folder 3/3");
    repository.restore(&snapshot, Some(&key), to.path(), &options, quiet()).await.unwrap();
    assert_calls(&counting.take(), &ONE_FILE);
}
