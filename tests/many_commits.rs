//! Thousands of small commits: packs, segments and the cost of opening and reading stay bounded, since a feed merges
//! beside its commits; and every moment can still be read.
//!
//! `COMMITS` in the environment sets how many; ten thousand by default where the library is optimised.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstop::{Batch, FeedOptions, Key, Metadata, Repository, Selector};
use common::{CountingStore, Random};
use futures::TryStreamExt;
use helpers::{create, memory, names, open, running};
use object_store::ObjectStore;

/// Changes to a commit.
const CHANGES: u64 = 10;

/// Different records.
const RECORDS: u64 = 3_000;

fn commits() -> u64 {
    let set = std::env::var("COMMITS").ok().map(|commits| commits.parse().unwrap());
    set.unwrap_or(if cfg!(debug_assertions) { 1_500 } else { 10_000 })
}

fn key(record: u64) -> Key {
    Key::from_path(format!("users/{:04}/contacts/{record:08}", record / 20)).unwrap()
}

/// What it takes to open the repository and read one record: requests, and bytes.
async fn cost_of_reading(store: &Arc<dyn ObjectStore>, number: u64, record: u64) -> (u64, u64) {
    let counting = CountingStore::new(Arc::clone(store));
    let repository = open(&counting.shared()).await;
    let snapshot = repository.find(&Selector::Number { series: "s".to_owned(), number }).await.unwrap();
    repository.entry(&snapshot, &key(record)).await.unwrap().unwrap();
    let counts = counting.take();
    (counts.total(), counts.bytes_read)
}

async fn records(repository: &Repository, number: u64) -> BTreeMap<Key, Vec<u8>> {
    let snapshot = repository.find(&Selector::Number { series: "s".to_owned(), number }).await.unwrap();
    let entries = repository.entries(&snapshot, None).map_ok(|(key, entry)| match entry.content {
        backstop::Payload::Inline(bytes) => (key, bytes.to_vec()),
        other => panic!("{key} isn't inline: {other:?}"),
    });
    entries.try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_commits_stay_healthy() {
    let (store, mut random, commits) = (memory(), Random::new(11), commits());
    let repository = create(&store).await;
    let options = FeedOptions::default().with_interval(Duration::ZERO).with_merge_every(64);
    let feed = repository.feed("s", options).await.unwrap();
    let (mut now, mut kept) = (BTreeMap::new(), BTreeMap::new());
    let mut fill = Batch::new();
    for record in 0..RECORDS {
        let content = random.text(120);
        fill.put(&key(record), content.clone(), &Metadata::default());
        now.insert(key(record), content);
    }
    feed.apply(fill).await.unwrap();
    let (mut most_packs, mut most_segments) = (0, 0);
    for commit in 1..=commits {
        let mut batch = Batch::new();
        for _ in 0..CHANGES {
            let (record, content) = (random.below(RECORDS), random.text(120));
            batch.put(&key(record), content.clone(), &Metadata::default());
            now.insert(key(record), content);
        }
        let receipt = feed.apply(batch).await.unwrap();
        if commit % (commits / 12) == 5 {
            kept.insert(receipt.number, now.clone());
        }
        if commit % 50 == 0 {
            most_packs = most_packs.max(names(&store, "packs").await.len());
            most_segments = most_segments.max(names(&store, "index").await.len());
        }
    }
    let last = feed.close().await.unwrap().unwrap();
    assert_eq!((last.number, last.entries), (commits + 1, RECORDS));

    // What a look every 64 commits leaves, and what is being merged meanwhile.
    assert!(most_packs <= 500, "{most_packs} packs");
    assert!(most_segments <= 40, "{most_segments} segments");
    assert!(names(&store, "gc").await.len() <= 3, "collections are tidied away");
    assert_eq!(running(&store).await, [""; 0]);
    let plan = repository.plan_merge().await.unwrap();
    repository.merge(&plan).await.unwrap();
    let small = repository.plan_merge().await.unwrap();
    assert!(!small.is_due(), "{small:?}");
    println!("{commits} commits: at most {most_packs} packs and {most_segments} segments");

    for (number, expected) in kept {
        assert_eq!(records(&open(&store).await, number).await, expected, "snapshot {number}");
        let (requests, bytes) = cost_of_reading(&store, number, random.below(RECORDS)).await;
        assert!(requests <= 24 && bytes <= 1 << 20, "snapshot {number}: {requests} requests, {bytes} bytes");
    }
    let (requests, bytes) = cost_of_reading(&store, last.number, 7).await;
    println!("the latest: {requests} requests, {bytes} bytes");
    assert!(requests <= 16 && bytes <= 512 << 10, "the latest: {requests} requests, {bytes} bytes");
    assert_eq!(records(&open(&store).await, last.number).await, now);
}
