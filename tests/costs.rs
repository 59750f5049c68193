//! What changes and lookups cost in a large snapshot: requests and bytes, which must not grow with it.
//!
//! Times are measured by `benches/feed`, which also makes the snapshots that are too large for a test.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]
#![cfg(unix)]

mod common;
mod helpers;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstop::{
    CommitOptions, CreateOptions, Entropy, HistoryOptions, Key, Metadata, OpenOptions, Repository, RestoreOptions,
    Selector, Snapshot, Surroundings, SystemClock, WriterOptions,
};
use common::{CountingStore, Counts, Kind, Random, TracingStore, records};
use futures::TryStreamExt;
use helpers::{memory, open, quiet, read, secret};
use object_store::ObjectStore;

const SERIES: &str = "accounts";

/// Changes in a commit.
const CHANGES: u64 = 10;

/// What a change may upload, in bytes, records and nodes and all.
const CHANGE_MAX: u64 = 16 << 10;

/// The length of a photo in bytes.
const PHOTO: usize = 300_000;

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

/// Randomness that is the same in every run.
#[derive(Debug)]
struct Seeded(Mutex<Random>);

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0.lock().unwrap().bytes(buffer.len()));
    }
}

/// A repository with a snapshot of so many records.
async fn filled(count: u64) -> Arc<dyn ObjectStore> {
    let store = memory();
    // The keys decide where nodes are cut: with the same keys every run makes the same tree.
    let entropy = Arc::new(Seeded(Mutex::new(Random::new(5))));
    let surroundings = Surroundings { clock: Arc::new(SystemClock), entropy };
    let open = OpenOptions::default().with_surroundings(surroundings);
    let repository =
        Repository::create(Arc::clone(&store), &secret(), CreateOptions::default().with_open(open)).await.unwrap();
    let writer = repository.writer(SERIES, WriterOptions::default()).await.unwrap();
    for number in 0..count {
        let content = records::content(number, 0);
        writer.put(&key(&records::path(number)), content, &Metadata::default()).await.unwrap();
    }
    let snapshot = writer.commit(CommitOptions::default()).await.unwrap();
    assert_eq!(snapshot.entries, count);
    store
}

/// Commits new versions of records; what making the writer took, and what the rest did.
async fn change(store: &CountingStore, repository: &Repository, numbers: &[u64], version: u64) -> (Counts, Counts) {
    store.take();
    let writer = repository.writer(SERIES, WriterOptions::default()).await.unwrap();
    let opening = store.take();
    for number in numbers {
        let content = records::content(*number, version);
        writer.put(&key(&records::path(*number)), content, &Metadata::default()).await.unwrap();
    }
    writer.commit(CommitOptions::default()).await.unwrap();
    (opening, store.take())
}

fn scattered(random: &mut Random, count: u64) -> Vec<u64> {
    (0..CHANGES).map(|_| random.below(count)).collect()
}

/// The calls of each kind that changes the store, or reads it.
fn calls(counts: &Counts) -> [(Kind, u64); 5] {
    [Kind::Put, Kind::Delete, Kind::Get, Kind::Head, Kind::List].map(|kind| (kind, counts.of(kind)))
}

/// The median length of what commits of ten scattered changes upload to a snapshot of so many records.
async fn upload(count: u64) -> u64 {
    let counting = CountingStore::new(filled(count).await);
    let repository = open(&counting.shared()).await;
    let mut random = Random::new(1);
    let rounds: Vec<_> = (0..15).map(|_| scattered(&mut random, count)).collect();
    for numbers in &rounds {
        change(&counting, &repository, numbers, 1).await;
    }
    // The nodes around these records are in memory now.
    let mut uploads = Vec::new();
    for numbers in &rounds {
        let (opening, rest) = change(&counting, &repository, numbers, 2).await;
        // The registration, created twice to see the second refused; the listings for the number, for what was
        // collected and for what still counts, before and after; whether the number was taken; the parent's record.
        let expected = [(Kind::Put, 2), (Kind::Delete, 0), (Kind::Get, 1), (Kind::Head, 1), (Kind::List, 5)];
        assert_eq!(calls(&opening), expected, "{:#?}", opening.log);
        // A pack and the record that names it; the registration ends.
        let mut expected = [(Kind::Put, 3), (Kind::Delete, 0), (Kind::Get, 0), (Kind::Head, 0), (Kind::List, 0)];
        if rest.under(Kind::Put, "index/") == 1 {
            expected[0].1 = 4; // once in a while a segment describes the packs of the last commits
        }
        assert_eq!(calls(&rest), expected, "{:#?}", rest.log);
        assert!(rest.bytes_written <= CHANGES * CHANGE_MAX, "{} bytes", rest.bytes_written);
        uploads.push(rest.bytes_written);
    }
    uploads.sort_unstable();
    uploads[uploads.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_costs_its_changes_whatever_the_size_of_the_snapshot() {
    let (small, large) = (upload(12_500).await, upload(50_000).await);
    // Changes share fewer of the nodes above them where there are more.
    assert!(2 * large <= 3 * small, "{small} bytes, {large} bytes of four times as many records");
}

/// A repository that many commits made: the snapshots, and a user with a photo that the middle one has.
async fn committed_often(count: u64, commits: u64) -> (Arc<dyn ObjectStore>, Vec<Snapshot>, u64) {
    let store = filled(count).await;
    let repository = open(&store).await;
    let (mut random, mut snapshots) = (Random::new(2), Vec::new());
    let user = count / records::PER_USER / 3;
    for commit in 1..=commits {
        let writer = repository.writer(SERIES, WriterOptions::default()).await.unwrap();
        for number in scattered(&mut random, count) {
            // The user's own records are left alone but for one, so that it is known what changed them.
            if number / records::PER_USER != user {
                let content = records::content(number, commit);
                writer.put(&key(&records::path(number)), content, &Metadata::default()).await.unwrap();
            }
        }
        if commit % 20 == 7 {
            let path = records::path(user * records::PER_USER + 3);
            writer.put(&key(&path), format!("in commit {commit}"), &Metadata::default()).await.unwrap();
        }
        if commit == commits / 2 {
            let path = key(&format!("{}/photos/1.jpg", records::user(user)));
            writer.put(&path, random.bytes(PHOTO), &Metadata::default()).await.unwrap();
        }
        snapshots.push(writer.commit(CommitOptions::default()).await.unwrap());
    }
    (store, snapshots, user)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_is_restored_from_a_slow_store_in_a_few_round_trips() {
    let (store, snapshots, user) = committed_often(20_000, 120).await;
    // Long against what a processor takes between two calls, so that calls made at once overlap.
    let tracing = TracingStore::new(store, Duration::from_millis(20));
    let path = key(&records::user(user));
    for snapshot in [&snapshots[60], &snapshots[119]] {
        for whole in [true, false] {
            tracing.take();
            let options = OpenOptions::default();
            let repository = Repository::open(tracing.shared(), &secret(), options).await.unwrap();
            let selector = Selector::AtOrBefore { series: Some(SERIES.to_owned()), time: snapshot.time };
            let found = repository.find(&selector).await.unwrap();
            assert_eq!(found, *snapshot);
            let files = if whole {
                let (to, options) = (tempfile::tempdir().unwrap(), RestoreOptions::default());
                repository.restore(&found, Some(&path), to.path(), &options, quiet()).await.unwrap().files
            } else {
                let entries: Vec<_> = repository.entries(&found, Some(&path)).try_collect().await.unwrap();
                let reads = entries.iter().map(|(path, _)| read(&repository, &found, path));
                let contents = futures::future::join_all(reads).await;
                contents.iter().filter(|content| !content.is_empty()).count() as u64
            };
            assert_eq!(files, records::PER_USER + 1);
            let trace = tracing.take();
            assert!(trace.chain.len() <= 15, "{:#?}", trace.chain);
            assert!(trace.counts.bytes_read <= 2 << 20, "{} bytes", trace.counts.bytes_read);
            // Two for each pack that no segment describes yet, which the record names: thirty-two at most.
            assert!(trace.counts.total() <= 2 * 32 + 40, "{:#?}", trace.counts.log);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_of_a_user_reads_what_changed_on_the_way() {
    const COMMITS: u64 = 120;
    let (store, _, user) = committed_often(20_000, COMMITS).await;
    let counting = CountingStore::new(store);
    let repository = open(&counting.shared()).await;
    counting.take();
    let path = key(&records::user(user));
    let numbers = async |options: &HistoryOptions| -> Vec<u64> {
        let revisions = repository.history(SERIES, &path, options);
        revisions.map_ok(|revision| revision.snapshot.number).try_collect().await.unwrap()
    };
    // The first snapshot is the initial one.
    let changed: Vec<u64> = (1..=COMMITS).filter(|commit| commit % 20 == 7 || *commit == COMMITS / 2).collect();
    let expected: Vec<u64> = changed.iter().rev().map(|commit| commit + 1).chain([1]).collect();
    assert_eq!(numbers(&HistoryOptions::default()).await, expected);
    let counts = counting.take();
    assert_eq!(counts.under(Kind::Get, "commits/"), COMMITS + 1);
    assert_eq!(counts.under(Kind::List, "commits"), 2);
    // What a commit wrote is in one pack, of which the header and one block are read.
    let packs: BTreeSet<_> = counts.log.iter().filter(|(_, name)| name.starts_with("packs/")).collect();
    assert!(packs.len() as u64 <= COMMITS + 1, "{}", packs.len());
    assert!(counts.under(Kind::Get, "packs/") <= 2 * (COMMITS + 1) + 30, "{}", counts.under(Kind::Get, "packs/"));
    assert!(counts.bytes_read <= COMMITS * (64 << 10), "{} bytes", counts.bytes_read);

    // The newest few stop where they are found.
    assert_eq!(numbers(&HistoryOptions::default().with_limit(2)).await, expected[..2]);
    let (counts, looked_at) = (counting.take(), COMMITS + 1 - expected[1]);
    let records = counts.under(Kind::Get, "commits/");
    assert!((looked_at..=2 * looked_at).contains(&records), "{records} records, {looked_at} were needed");
}
