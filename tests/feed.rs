//! The change feed: what it acknowledges, in what order, and what it says and does when the store fails.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
#[path = "../examples/change_feed.rs"]
#[allow(dead_code, reason = "its main function isn't run")]
mod example;
mod helpers;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use backstop::{
    Batch, CheckOptions, Error, Feed, FeedOptions, Key, Metadata, OpenOptions, Receipt, Repository, Result, Selector,
    Snapshot,
};
use common::{CountingStore, Fault, FaultyStore, Kind, Random, Reply};
use helpers::{contents, create, memory, names, open, quiet, read, running, secret};
use object_store::ObjectStore;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

const SERIES: &str = "accounts";

fn key(path: impl AsRef<str>) -> Key {
    Key::from_path(path.as_ref()).unwrap()
}

fn plain() -> Metadata {
    Metadata::default()
}

async fn feed(repository: &Repository) -> Feed {
    repository.feed(SERIES, FeedOptions::default()).await.unwrap()
}

async fn put(feed: &Feed, path: impl AsRef<str>, content: impl AsRef<[u8]>) -> Result<Receipt> {
    feed.put(&key(path), content.as_ref().to_vec(), &plain()).await
}

/// The snapshot that a receipt names.
async fn snapshot_of(repository: &Repository, receipt: &Receipt) -> Snapshot {
    let selector = Selector::Number { series: SERIES.to_owned(), number: receipt.number };
    let snapshot = repository.find(&selector).await.unwrap();
    assert_eq!((snapshot.hash, snapshot.time), (receipt.hash, receipt.time));
    snapshot
}

type Model = BTreeMap<String, Vec<u8>>;

/// All that a snapshot holds.
async fn all(repository: &Repository, snapshot: &Snapshot) -> Model {
    let files = contents(repository, snapshot).await;
    files.into_iter().map(|(key, bytes)| (key.to_string(), bytes)).collect()
}

/// All that the latest snapshot in a store holds, as a stranger reads it; nothing where there is none.
async fn latest(store: &Arc<dyn ObjectStore>) -> Model {
    let repository = open(store).await;
    match repository.find(&Selector::LatestOf { series: SERIES.to_owned() }).await {
        Ok(snapshot) => all(&repository, &snapshot).await,
        Err(error) if error.is_not_found() => Model::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Checks that nothing in the store is damaged or missing, and that the series is one chain; its snapshots.
async fn assert_sound(store: &Arc<dyn ObjectStore>) -> Vec<Snapshot> {
    let repository = open(store).await;
    let report = repository.check(&CheckOptions::default().with_read_data(100.0), quiet()).await.unwrap();
    assert_eq!(report.defects, 0, "{:?}", report.findings);
    let snapshots = repository.snapshots(Some(SERIES)).await.unwrap();
    for (number, pair) in (2..).zip(snapshots.windows(2)) {
        assert_eq!(pair[1].number, number, "numbers have no gaps");
        assert_eq!(pair[1].predecessor, Some(pair[0].hash), "records are chained");
        assert!(pair[0].time < pair[1].time, "times increase");
    }
    snapshots
}

fn model<const N: usize>(entries: [(&str, &str); N]) -> Model {
    entries.into_iter().map(|(path, content)| (path.to_owned(), content.into())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_acknowledged_is_there_for_everyone() {
    let store = memory();
    let feed = feed(&create(&store).await).await;
    let tasks = (0..24).map(|task| {
        let (feed, store) = (feed.clone(), Arc::clone(&store));
        tokio::spawn(async move {
            let (stranger, mut random, mut own) = (open(&store).await, Random::new(task), Model::new());
            for round in 0..12 {
                let path = format!("user {task}/{}", random.below(5));
                let receipt = if random.chance(0.25) {
                    own.remove(&path);
                    feed.remove(&key(&path)).await.unwrap()
                } else {
                    let length = if round % 5 == 4 { 20_000 } else { random.below(400) as usize };
                    let content = random.text(length);
                    own.insert(path.clone(), content.clone());
                    put(&feed, &path, content).await.unwrap()
                };
                let snapshot = snapshot_of(&stranger, &receipt).await;
                match own.get(&path) {
                    Some(content) => assert_eq!(&read(&stranger, &snapshot, &key(&path)).await, content),
                    None => assert_eq!(stranger.entry(&snapshot, &key(&path)).await.unwrap(), None),
                }
            }
            own
        })
    });
    let mut expected = Model::new();
    for task in tasks.collect::<Vec<_>>() {
        expected.extend(task.await.unwrap());
    }
    let last = feed.close().await.unwrap().unwrap();
    assert_eq!(latest(&store).await, expected);
    let snapshots = assert_sound(&store).await;
    assert_eq!(snapshots.last(), Some(&last));
    assert!(snapshots.len() <= 24 * 12 / 2, "{} snapshots: changes are committed together", snapshots.len());
    assert!(running(&store).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_are_committed_together() {
    pace();
    let store = memory();
    let repository = create(&store).await;
    let feed = feed(&repository).await;
    let paths: Vec<_> = (0..500).map(|number| format!("{}/{number}", number % 7)).collect();
    let receipts = futures::future::join_all(paths.iter().map(|path| put(&feed, path, path))).await;
    let first = receipts[0].as_ref().unwrap();
    assert!(receipts.iter().all(|receipt| receipt.as_ref().unwrap() == first), "one snapshot holds them all");
    assert_eq!(first.number, 1);
    let expected: Model = paths.iter().map(|path| (path.clone(), path.clone().into())).collect();
    assert_eq!(latest(&store).await, expected);
    let snapshot = feed.snapshot().unwrap();
    assert_eq!((snapshot.number, snapshot.entries, snapshot.stats.added), (1, 500, 500));

    let removed = key("3");
    let (gone, put) = futures::join!(feed.remove_prefix(&removed), put(&feed, "4/4", "new"));
    assert_eq!(gone.unwrap(), put.unwrap());
    let snapshot = feed.close().await.unwrap().unwrap();
    let stats = snapshot.stats;
    assert_eq!((snapshot.number, stats.added, stats.changed, stats.removed), (2, 0, 1, 71));
    assert_eq!((snapshot.parent, snapshot.entries), (Some(1), 429));
    assert_sound(&store).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_takes_no_more_than_it_may() {
    pace();
    let store = memory();
    let repository = create(&store).await;
    let options = FeedOptions::default().with_commit_max(10, 1 << 20);
    let feed = repository.feed(SERIES, options).await.unwrap();
    let start = Instant::now();
    let puts = (0..35).map(|number| put(&feed, format!("{number}"), "content"));
    // The last ones aren't enough to begin at once: they wait for the interval.
    let puts = futures::future::join_all(puts).await;
    assert!(start.elapsed() >= FeedOptions::default().interval);
    let numbers: Vec<_> = puts.into_iter().map(|receipt| receipt.unwrap().number).collect();
    let expected: Vec<u64> = (0..35).map(|number| number / 10 + 1).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_is_in_one_snapshot_and_in_order() {
    let store = memory();
    let feed = feed(&create(&store).await).await;
    let tasks = (0..8u64).map(|task| {
        let feed = feed.clone();
        tokio::spawn(async move {
            for round in 0..15u64 {
                let (mut batch, value) = (Batch::new(), format!("{task} {round}"));
                // All tasks write the same paths, and what was there before goes.
                batch.put(&key("shared/gone"), value.clone(), &plain());
                batch.remove_prefix(&key("shared"));
                for part in 0..4 {
                    let large = if part == 3 { value.repeat(1000) } else { value.clone() };
                    batch.put(&key(format!("shared/{part}/x")), large, &plain());
                }
                batch.put(&key(format!("shared/of {task}")), value.clone(), &plain());
                batch.put(&key(format!("shared/{value}")), "x", &plain());
                batch.remove(&key(format!("shared/{value}")));
                feed.apply(batch).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    feed.close().await.unwrap();
    let repository = open(&store).await;
    for snapshot in assert_sound(&store).await {
        let held = all(&repository, &snapshot).await;
        let value = String::from_utf8(held["shared/0/x"].clone()).unwrap();
        let task = value.split(' ').next().unwrap();
        let mut expected = Model::new();
        for part in 0..4 {
            let content = if part == 3 { value.repeat(1000) } else { value.clone() };
            expected.insert(format!("shared/{part}/x"), content.into());
        }
        expected.insert(format!("shared/of {task}"), value.clone().into());
        assert_eq!(held, expected, "{snapshot}");
    }
}

#[tokio::test]
async fn a_task_that_waits_for_each_of_its_changes_finds_them_in_order() {
    let store = memory();
    let repository = create(&store).await;
    let options = FeedOptions::default().with_interval(Duration::ZERO);
    let feed = repository.feed(SERIES, options).await.unwrap();
    let mut numbers = Vec::new();
    for value in ["one", "two", "three"] {
        numbers.push(put(&feed, "a", value).await.unwrap().number);
    }
    assert_eq!(numbers, [1, 2, 3]);
    for (number, value) in numbers.into_iter().zip(["one", "two", "three"]) {
        let selector = Selector::Number { series: SERIES.to_owned(), number };
        let snapshot = repository.find(&selector).await.unwrap();
        assert_eq!(all(&repository, &snapshot).await, model([("a", value)]));
    }
}

#[tokio::test]
async fn a_feed_goes_on_where_another_ended() {
    let store = memory();
    let repository = create(&store).await;
    for round in 0..4u64 {
        let feed = feed(&open(&store).await).await;
        assert_eq!(feed.snapshot().map(|snapshot| snapshot.number), (round > 0).then_some(round));
        let receipt = put(&feed, format!("{round}"), "x").await.unwrap();
        assert_eq!(receipt.number, round + 1);
        feed.close().await.unwrap();
    }
    assert_eq!(latest(&store).await, model([("0", "x"), ("1", "x"), ("2", "x"), ("3", "x")]));
    drop(repository);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_of_all_sizes_from_bytes_and_readers() {
    let store = memory();
    let feed = feed(&create(&store).await).await;
    let (mut random, mut expected) = (Random::new(3), Model::new());
    let sizes = [0, 1, 1023, 1024, 1025, 5_000, 128 << 10, 300_000, 1_500_000];
    for size in sizes {
        for kind in ["text", "noise"] {
            let content = if kind == "text" { random.text(size) } else { random.bytes(size) };
            for way in ["bytes", "reader"] {
                expected.insert(format!("{way}/{kind} {size}"), content.clone());
            }
        }
    }
    let large = Metadata::default().with_attribute("notes", random.bytes(3_000)).with_content_type("image/jpeg");
    let puts = expected.iter().map(|(path, content)| {
        let (feed, large) = (&feed, &large);
        async move {
            if path.starts_with("bytes") {
                feed.put(&key(path), content.clone(), large).await.unwrap()
            } else {
                feed.put_reader(&key(path), content.as_slice(), large).await.unwrap()
            }
        }
    });
    futures::future::join_all(puts).await;
    feed.close().await.unwrap();
    assert_eq!(latest(&store).await, expected);
    let repository = open(&store).await;
    let snapshot = assert_sound(&store).await.pop().unwrap();
    for way in ["bytes", "reader"] {
        let entry = repository.entry(&snapshot, &key(format!("{way}/noise 300000"))).await.unwrap().unwrap();
        assert_eq!(repository.metadata(&entry).await.unwrap(), large);
    }
    let entry = |way: &str| {
        let path = key(format!("{way}/noise 1500000"));
        let (repository, snapshot) = (&repository, &snapshot);
        async move { repository.entry(snapshot, &path).await.unwrap().unwrap() }
    };
    assert_eq!(entry("bytes").await, entry("reader").await, "both ways come to the same");
}

#[tokio::test]
async fn what_cannot_be_stored_fails_alone() {
    let store = memory();
    let feed = feed(&create(&store).await).await;
    let mut wrong = Metadata::default();
    wrong.attributes = vec![("b".to_owned(), Vec::new()), ("a".to_owned(), Vec::new())];
    let mut batch = Batch::new();
    batch.put(&key("batch/1"), "x", &plain()).put(&key("batch/2"), "x", &wrong);
    let noise = Random::new(5).bytes(700_000);
    let broken = tokio::io::AsyncReadExt::chain(noise.as_slice(), Failing);
    let (wrong_put, right, wrong_batch, unreadable) = futures::join!(
        async { feed.put(&key("wrong"), "x", &wrong).await },
        put(&feed, "right", "x"),
        feed.apply(batch),
        async { feed.put_reader(&key("unreadable"), broken, &plain()).await }
    );
    assert!(matches!(wrong_put, Err(Error::Invalid { .. })), "{wrong_put:?}");
    assert!(matches!(wrong_batch, Err(Error::Invalid { .. })), "{wrong_batch:?}");
    assert!(matches!(unreadable, Err(Error::File { .. })), "{unreadable:?}");
    right.unwrap();
    feed.close().await.unwrap();
    assert_eq!(latest(&store).await, model([("right", "x")]));
    assert_sound(&store).await;
}

/// A reader that can't be read.
struct Failing;

impl AsyncRead for Failing {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::Error::other("the client went away")))
    }
}

#[tokio::test]
async fn options_that_cannot_be_are_refused() {
    let repository = create(&memory()).await;
    for options in [FeedOptions::default().with_compression_level(30), FeedOptions::default().with_queue_max(0)] {
        assert!(matches!(repository.feed(SERIES, options).await, Err(Error::Invalid { .. })));
    }
    assert!(matches!(repository.feed("a#1", FeedOptions::default()).await, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn closing_commits_what_is_pending_and_ends_it_for_all() {
    let store = memory();
    let repository = create(&store).await;
    let options =
        FeedOptions::default().with_interval(Duration::from_secs(3600)).with_host("mail-3").with_tag("a", "b");
    let feed = repository.feed(SERIES, options).await.unwrap();
    let puts = (0..10).map(|number| {
        let feed = feed.clone();
        tokio::spawn(async move { put(&feed, format!("{number}"), "x").await.unwrap() })
    });
    let puts: Vec<_> = puts.collect();
    tokio::task::yield_now().await;
    let clone = feed.clone();
    let last = feed.close().await.unwrap().unwrap();
    assert_eq!((last.number, last.entries, last.host.as_str(), last.tags["a"].as_str()), (1, 10, "mail-3", "b"));
    for put in puts {
        assert_eq!(put.await.unwrap().hash, last.hash);
    }
    assert!(matches!(put(&clone, "late", "x").await, Err(Error::Invalid { .. })));
    assert!(matches!(clone.apply(Batch::new()).await, Err(Error::Invalid { .. })));
    assert_eq!(clone.snapshot(), Some(last.clone()));
    assert_eq!(clone.close().await.unwrap(), Some(last));
    assert!(running(&store).await.is_empty(), "the registration was ended");
    assert_eq!(assert_sound(&store).await.len(), 1);
}

#[tokio::test]
async fn a_feed_that_did_nothing_leaves_nothing() {
    let store = memory();
    let repository = create(&store).await;
    assert_eq!(running(&store).await.len(), 0);
    let idle = feed(&repository).await;
    assert_eq!(running(&store).await.len(), 1);
    assert_eq!(idle.close().await.unwrap(), None);
    assert!(running(&store).await.is_empty() && names(&store, "packs").await.is_empty());

    drop(feed(&repository).await);
    while !running(&store).await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(assert_sound(&store).await.is_empty());
}

/// Lets the paused clock go on no faster than this machine works: left to itself it would jump to the next deadline
/// whenever all tasks wait for a thread that compresses.
fn pace() {
    tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            std::thread::sleep(Duration::from_micros(100));
        }
    });
}

/// Options of a feed that never gives up, as far as a test is concerned.
fn patient() -> FeedOptions {
    FeedOptions::default().with_deadline(Duration::from_secs(100_000))
}

/// A store that fails when it is switched to, on names that begin with `prefix`.
fn switched(inner: &Arc<dyn ObjectStore>, prefix: &'static str, fault: Fault) -> (FaultyStore, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&on);
    let faulty = FaultyStore::new(Arc::clone(inner), move |call| {
        (switch.load(Ordering::SeqCst) && call.name.starts_with(prefix)).then_some(fault)
    });
    (faulty, on)
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_ends_in_time_is_waited_out() {
    pace();
    for fault in [Fault::BEFORE, Fault::AFTER] {
        for prefix in ["", "packs", "commits"] {
            let store = memory();
            create(&store).await;
            let (faulty, outage) = switched(&store, prefix, fault);
            let feed = feed(&open(&faulty.shared()).await).await;
            put(&feed, "before", "x").await.unwrap();
            outage.store(true, Ordering::SeqCst);
            let noise = Random::new(1).bytes(100_000);
            let puts = ["a", "b", "large"].map(|path| {
                let (feed, noise) = (feed.clone(), noise.clone());
                tokio::spawn(async move {
                    let content = if path == "large" { noise } else { path.into() };
                    put(&feed, path, content).await
                })
            });
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(faulty.injected() > 3, "it goes on trying");
            assert!(puts.iter().all(|put| !put.is_finished()), "{fault:?} {prefix}: nothing is said too soon");
            outage.store(false, Ordering::SeqCst);
            for put in puts {
                put.await.unwrap().unwrap();
            }
            feed.close().await.unwrap();
            let mut expected = model([("before", "x"), ("a", "a"), ("b", "b")]);
            expected.insert("large".to_owned(), noise);
            assert_eq!(latest(&store).await, expected);
            assert_sound(&store).await;
            assert!(running(&store).await.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_is_reported_and_gone_once_it_is_over() {
    pace();
    for fault in [Fault::BEFORE, Fault::AFTER, Fault { done: true, reply: Reply::Denied }] {
        for prefix in ["", "packs", "commits"] {
            let store = memory();
            create(&store).await;
            let (faulty, outage) = switched(&store, prefix, fault);
            let repository = open(&faulty.shared()).await;
            let options = FeedOptions::default().with_deadline(Duration::from_secs(10));
            let feed = repository.feed(SERIES, options).await.unwrap();
            put(&feed, "a", "0").await.unwrap();
            outage.store(true, Ordering::SeqCst);
            let (mut open_values, mut sent) = (BTreeSet::from([0]), 0);
            for _ in 0..4 {
                sent += 1;
                let start = Instant::now();
                let error = put(&feed, "a", sent.to_string()).await.unwrap_err();
                assert!(start.elapsed() < Duration::from_secs(11), "a call ends at its deadline");
                match &error {
                    Error::Unsettled { reason, .. } => {
                        assert!(reason.contains("injected"), "it says what is wrong: {reason}");
                        open_values.insert(sent);
                    }
                    Error::Store { .. } => assert!(error.to_string().contains("not applied"), "{error}"),
                    other => panic!("{other}"),
                }
            }
            outage.store(false, Ordering::SeqCst);
            let receipt = put(&feed, "b", "after").await.unwrap();
            let repository = open(&store).await;
            let held = all(&repository, &snapshot_of(&repository, &receipt).await).await;
            let settled: u64 = std::str::from_utf8(&held["a"]).unwrap().parse().unwrap();
            assert!(open_values.contains(&settled), "{settled} was said to have failed");
            // What is settled stays so.
            put(&feed, "c", "later").await.unwrap();
            feed.close().await.unwrap();
            let last = latest(&store).await;
            assert_eq!((&last["a"], last.len()), (&held["a"], 3));
            // No value came back after a later one.
            let mut seen = Vec::new();
            for snapshot in assert_sound(&store).await {
                let held = all(&repository, &snapshot).await;
                seen.push(std::str::from_utf8(&held["a"]).unwrap().parse::<u64>().unwrap());
            }
            assert!(seen.is_sorted(), "{seen:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closing_during_an_outage_ends_in_time() {
    pace();
    for prefix in ["packs", "commits"] {
        let store = memory();
        create(&store).await;
        let (faulty, outage) = switched(&store, prefix, Fault::AFTER);
        let options = FeedOptions::default().with_deadline(Duration::from_secs(10));
        let feed = open(&faulty.shared()).await.feed(SERIES, options).await.unwrap();
        outage.store(true, Ordering::SeqCst);
        let clone = feed.clone();
        let pending = tokio::spawn(async move { put(&clone, "a", "x").await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        let closed = feed.close().await;
        assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
        assert!(closed.is_err());
        assert!(pending.await.unwrap().is_err());
        // The last attempt, begun before the deadline, comes to its end.
        tokio::time::sleep(Duration::from_secs(20)).await;
        outage.store(false, Ordering::SeqCst);
        // What may have landed keeps its registration; nothing else does.
        let landed = !names(&store, "commits").await.is_empty();
        assert_eq!(landed, prefix == "commits");
        assert_eq!(running(&store).await.len(), usize::from(landed));
        assert_sound(&store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_fills_the_queue_and_no_more() {
    pace();
    let store = memory();
    create(&store).await;
    let (hanging, hang) = switched(&store, "packs", Fault::HANG);
    let (queue_max, length) = (64 << 10, 1000);
    let options = FeedOptions::default().with_deadline(Duration::from_secs(20)).with_queue_max(queue_max);
    let feed = open(&hanging.shared()).await.feed(SERIES, options).await.unwrap();
    hang.store(true, Ordering::SeqCst);
    let puts = (0..300).map(|number| put(&feed, format!("{number}"), vec![b'x'; length]));
    let start = Instant::now();
    let (mut taken, mut refused) = (0, 0);
    for outcome in futures::future::join_all(puts).await {
        match outcome.unwrap_err() {
            Error::Unsettled { .. } => taken += 1,
            error @ Error::Store { retryable: true, .. } => {
                assert!(error.to_string().contains("not applied"), "{error}");
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(start.elapsed() < Duration::from_secs(21));
    assert!(taken * length <= queue_max && taken * length > queue_max / 2, "{taken} were taken");
    assert_eq!(taken + refused, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_changes_than_have_room_wait_and_are_all_committed() {
    let store = memory();
    let options = FeedOptions::default().with_queue_max(8 << 10).with_interval(Duration::from_millis(1));
    let feed = create(&store).await.feed(SERIES, options).await.unwrap();
    let mut expected = Model::new();
    for number in 0..300 {
        // Now and then one that is larger than all the room.
        let content = if number % 50 == 49 { 20 } else { 1 };
        expected.insert(format!("{number}"), vec![b'x'; content * 600]);
    }
    let puts = expected.iter().map(|(path, content)| put(&feed, path, content));
    for outcome in futures::future::join_all(puts).await {
        outcome.unwrap();
    }
    feed.close().await.unwrap();
    assert_eq!(latest(&store).await, expected);
    assert!(assert_sound(&store).await.len() >= 20);
}

/// Changes that stand or fall together: for each a path and what is put there, removed for nothing, with all below for
/// a path that ends in a slash.
type Step = Vec<(String, Option<Vec<u8>>)>;

fn make(step: &Step, model: &mut Model) {
    for (path, content) in step {
        match (content, path.strip_suffix('/')) {
            (Some(content), _) => drop(model.insert(path.clone(), content.clone())),
            (None, None) => drop(model.remove(path)),
            (None, Some(prefix)) => model.retain(|key, _| key != prefix && !key.starts_with(path.as_str())),
        }
    }
}

async fn submit(feed: &Feed, step: &Step) -> Result<Receipt> {
    if let [(path, content)] = &step[..] {
        return match (content, path.strip_suffix('/')) {
            (Some(content), _) if content.len() > 10_000 => {
                feed.put_reader(&key(path), content.as_slice(), &plain()).await
            }
            (Some(content), _) => put(feed, path, content).await,
            (None, None) => feed.remove(&key(path)).await,
            (None, Some(prefix)) => feed.remove_prefix(&key(prefix)).await,
        };
    }
    let mut batch = Batch::new();
    for (path, content) in step {
        match (content, path.strip_suffix('/')) {
            (Some(content), _) => batch.put(&key(path), content.clone(), &plain()),
            (None, None) => batch.remove(&key(path)),
            (None, Some(prefix)) => batch.remove_prefix(&key(prefix)),
        };
    }
    feed.apply(batch).await
}

/// A step on paths below `home`, unlike any other of this `stamp`.
fn step(random: &mut Random, home: &str, stamp: &str) -> Step {
    let one = |random: &mut Random| {
        let path = format!("{home}/{}/{}", random.below(3), random.below(4));
        match random.below(12) {
            0 => (path, None),
            1 => (format!("{home}/{}/", random.below(3)), None),
            2 => {
                let seed = random.next();
                (path, Some(Random::new(seed).bytes(15_000 + (seed % 60_000) as usize)))
            }
            _ => (path, Some(format!("{stamp} {}", random.next()).into_bytes())),
        }
    };
    let length = if random.chance(0.3) { 1 + random.below(5) } else { 1 };
    (0..length).map(|_| one(random)).collect()
}

/// What one task knows of its part of a series, and what it can't know.
#[derive(Default)]
struct Ledger {
    known: Model,
    /// Steps that may have been made since: each may be or not, in this order.
    open: Vec<Step>,
}

impl Ledger {
    fn unknown(&mut self, step: Step) {
        self.open.push(step);
    }

    /// Checks that `held` is what is known, with some of the open steps, and then `last`. Nothing is open after that.
    fn settle(&mut self, held: Model, last: Option<&Step>) {
        let choices = 1u32 << self.open.len();
        let possible = (0..choices).any(|choice| {
            let mut model = self.known.clone();
            for (at, step) in self.open.iter().enumerate() {
                if choice >> at & 1 == 1 {
                    make(step, &mut model);
                }
            }
            last.into_iter().for_each(|step| make(step, &mut model));
            model == held
        });
        assert!(possible, "{} steps were open; {last:?} was acknowledged", self.open.len());
        self.known = held;
        self.open.clear();
    }
}

/// The part of a snapshot that belongs to one task.
async fn part(repository: &Repository, snapshot: &Snapshot, home: &str) -> Model {
    let mut held = all(repository, snapshot).await;
    held.retain(|path, _| path.starts_with(&format!("{home}/")));
    held
}

/// Makes random steps one after the other and checks each that is acknowledged, as `reader` sees it.
async fn work(feed: &Feed, reader: &Repository, home: &str, seed: u64, steps: u64) -> Ledger {
    let (mut random, mut ledger) = (Random::new(seed ^ 0xfeed), Ledger::default());
    for number in 0..steps {
        let step = step(&mut random, home, &format!("{home} {number}"));
        match submit(feed, &step).await {
            Ok(receipt) => {
                let snapshot = snapshot_of(reader, &receipt).await;
                ledger.settle(part(reader, &snapshot, home).await, Some(&step));
            }
            Err(error) if error.is_unsettled() => ledger.unknown(step),
            Err(Error::Store { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    ledger
}

/// Registers in spite of failures.
async fn feed_in_the_end(store: &Arc<dyn ObjectStore>, options: &FeedOptions) -> Feed {
    loop {
        let Ok(repository) = Repository::open(Arc::clone(store), &secret(), OpenOptions::default()).await else {
            continue;
        };
        if let Ok(feed) = repository.feed(SERIES, options.clone()).await {
            return feed;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn over_many_seeds_what_a_failing_store_holds_is_what_was_said() {
    let seeds = std::env::var("FEED_SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    pace();
    let (mut failed, mut open_steps) = (0, 0);
    for seed in 0..seeds {
        let store = memory();
        create(&store).await;
        let probability = [0.05, 0.2, 0.4, 0.6][(seed % 4) as usize];
        let faulty = FaultyStore::seeded(Arc::clone(&store), seed, probability);
        let deadline = Duration::from_secs([3, 20, 100_000][(seed % 3) as usize]);
        let options = FeedOptions::default().with_deadline(deadline);
        let feed = feed_in_the_end(&faulty.shared(), &options).await;
        let reader = open(&store).await;
        let homes = ["ana", "ben", "eva"];
        let tasks = homes.iter().zip(1..).map(|(home, task)| work(&feed, &reader, home, seed * 100 + task, 12));
        let ledgers = futures::future::join_all(tasks).await;
        failed += usize::from(feed.close().await.is_err());
        let held = latest(&store).await;
        for (home, mut ledger) in homes.iter().zip(ledgers) {
            open_steps += ledger.open.len();
            let mut held = held.clone();
            held.retain(|path, _| path.starts_with(&format!("{home}/")));
            ledger.settle(held, None);
        }
        assert_sound(&store).await;
        println!("seed {seed}: {} calls failed", faulty.injected());
    }
    println!("{failed} closings failed, {open_steps} steps stayed open");
}

const FAULTS: [Fault; 5] = [
    Fault::BEFORE,
    Fault::AFTER,
    Fault { done: false, reply: Reply::Exists },
    Fault { done: true, reply: Reply::Exists },
    Fault { done: false, reply: Reply::Denied },
];

#[tokio::test(start_paused = true)]
async fn each_call_may_fail_once() {
    pace();
    for fault in FAULTS {
        let mut k = 0;
        loop {
            let store = memory();
            create(&store).await;
            let (seen, armed) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
            let arm = Arc::clone(&armed);
            let faulty = FaultyStore::new(Arc::clone(&store), move |_| {
                (arm.load(Ordering::SeqCst) && seen.fetch_add(1, Ordering::SeqCst) == k).then_some(fault)
            });
            let repository = open(&faulty.shared()).await;
            armed.store(true, Ordering::SeqCst);
            let options = patient();
            let feed = match repository.feed(SERIES, options.clone()).await {
                Ok(feed) => feed,
                Err(error) => {
                    assert!(matches!(error, Error::Store { .. }), "{fault:?} at {k}: {error}");
                    repository.feed(SERIES, options).await.unwrap()
                }
            };
            let ledger = work(&feed, &open(&store).await, "ana", 4, 8).await;
            let closed = feed.close().await;
            assert!(closed.is_ok(), "{fault:?} at {k}: {closed:?}");
            assert!(ledger.open.is_empty(), "{fault:?} at {k}: one failure leaves nothing open");
            assert_eq!(latest(&store).await, ledger.known, "{fault:?} at {k}");
            assert_sound(&store).await;
            if faulty.injected() == 0 {
                break;
            }
            k += 1;
        }
        assert!(k > 20, "{k} calls were made");
    }
}

/// Drops `future` when it has been polled so often, unless it is ready before.
async fn drop_after<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

#[tokio::test]
async fn calls_that_are_dropped_leave_no_half_of_anything() {
    let store = memory();
    let repository = create(&store).await;
    let options = patient().with_interval(Duration::ZERO);
    let feed = repository.feed(SERIES, options).await.unwrap();
    let (mut random, mut ledger, mut dropped) = (Random::new(11), Ledger::default(), 0);
    for round in 0..120 {
        let next = step(&mut random, "ana", &round.to_string());
        let polls = random.below(7);
        match drop_after(polls, submit(&feed, &next)).await {
            None => {
                dropped += 1;
                ledger.unknown(next);
            }
            Some(outcome) => {
                let snapshot = snapshot_of(&repository, &outcome.unwrap()).await;
                ledger.settle(all(&repository, &snapshot).await, Some(&next));
            }
        }
        if ledger.open.len() > 5 {
            let next = step(&mut random, "ana", &format!("{round} settled"));
            let receipt = submit(&feed, &next).await.unwrap();
            ledger.settle(all(&repository, &snapshot_of(&repository, &receipt).await).await, Some(&next));
        }
    }
    feed.close().await.unwrap();
    ledger.settle(latest(&store).await, None);
    assert!((20..110).contains(&dropped), "{dropped} were dropped");
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_feed_that_is_dropped_ends_by_itself() {
    let store = memory();
    let repository = create(&store).await;
    for round in 0..20u64 {
        let feed = repository.feed(SERIES, patient()).await.unwrap();
        assert!(drop_after(1, put(&feed, format!("{round}"), "x")).await.is_none());
        drop(feed);
        while !running(&store).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let held = latest(&store).await;
    assert_eq!(held.len(), 20, "what was taken is committed");
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn feeds_of_two_series_do_not_mind_each_other() {
    let store = memory();
    create(&store).await;
    let tasks = ["one", "two"].map(|series| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let feed = open(&store).await.feed(series, FeedOptions::default()).await.unwrap();
            let puts = (0..50).map(|number| {
                let feed = feed.clone();
                tokio::spawn(async move { put(&feed, format!("{number}"), series).await.unwrap() })
            });
            for put in puts.collect::<Vec<_>>() {
                put.await.unwrap();
            }
            feed.close().await.unwrap().unwrap()
        })
    });
    let repository = open(&store).await;
    for task in tasks {
        let snapshot = task.await.unwrap();
        let held = contents(&repository, &snapshot).await;
        assert_eq!(held.len(), 50);
        assert!(held.values().all(|content| content == snapshot.series.as_bytes()));
    }
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_feeds_of_one_series_lose_nothing_of_each_other() {
    let store = memory();
    create(&store).await;
    let tasks = (0..2u64).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let repository = open(&store).await;
            let feed = repository.feed(SERIES, FeedOptions::default()).await.unwrap();
            let homes: Vec<_> = (0..3).map(|home| format!("{number} {home}")).collect();
            let works = homes.iter().zip(number * 10..).map(|(home, seed)| work(&feed, &repository, home, seed, 10));
            let ledgers = futures::future::join_all(works).await;
            let shared = put(&feed, "shared", number.to_string()).await.unwrap();
            feed.close().await.unwrap();
            (ledgers, shared.number)
        })
    });
    let (mut expected, mut last) = (Model::new(), 0);
    for (task, number) in tasks.collect::<Vec<_>>().into_iter().zip(["0", "1"]) {
        let (ledgers, committed) = task.await.unwrap();
        for ledger in ledgers {
            assert!(ledger.open.is_empty());
            expected.extend(ledger.known);
        }
        if committed > last {
            expected.insert("shared".to_owned(), number.into());
            last = committed;
        }
    }
    assert_eq!(latest(&store).await, expected, "both are there, and of what both changed the later");
    assert_sound(&store).await;
    assert!(running(&store).await.is_empty());
}

#[tokio::test]
async fn a_commit_asks_for_little() {
    let store = memory();
    create(&store).await;
    let counting = CountingStore::new(Arc::clone(&store));
    let feed = feed(&open(&counting.shared()).await).await;
    let many: Vec<_> = (0..3000).map(|number| format!("{}/{number}", number % 40)).collect();
    for outcome in futures::future::join_all(many.iter().map(|path| put(&feed, path, path.repeat(30)))).await {
        outcome.unwrap();
    }
    counting.take();
    let some = many.iter().step_by(311).map(|path| put(&feed, path, "changed"));
    let receipts = futures::future::join_all(some).await;
    assert!(receipts.len() == 10 && receipts.iter().all(|receipt| receipt.as_ref().unwrap().number > 1));
    let counts = counting.take();
    let (packs, records) = (counts.under(Kind::Put, "packs/"), counts.under(Kind::Put, "commits/"));
    assert_eq!((packs, records, counts.total()), (1, 1, 2), "{:?}", counts.log);
    assert!(counts.bytes_written < 10 * (16 << 10), "{} bytes", counts.bytes_written);
}

#[tokio::test]
async fn the_example_runs_and_goes_on() {
    let place = tempfile::tempdir().unwrap();
    for round in 1..=2 {
        example::run(&place.path().join("repository")).await.unwrap();
        let secret = backstop::Secret::passphrase("only for this example");
        let options = OpenOptions::default();
        let repository = Repository::open(place.path().join("repository"), &secret, options).await.unwrap();
        let last = repository.find(&Selector::LatestOf { series: SERIES.to_owned() }).await.unwrap();
        assert_eq!((last.entries, last.position.as_deref()), (200, Some(b"lsn 0/16B3748".as_slice())));
        assert!(last.number >= 2 * round);
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_carries_the_last_position_that_was_given() {
    pace();
    let store = memory();
    let repository = create(&store).await;
    let feed = feed(&repository).await;
    let at = |path: &str, position: Option<&str>| {
        let (feed, mut batch) = (feed.clone(), Batch::new());
        batch.put(&key(path), "x", &plain());
        if let Some(position) = position {
            batch.at_position(position.to_owned());
        }
        async move { feed.apply(batch).await.unwrap().number }
    };
    let position_of = async |number: u64| {
        let selector = Selector::Number { series: SERIES.to_owned(), number };
        let position = repository.find(&selector).await.unwrap().position;
        position.map(|position| String::from_utf8(position).unwrap())
    };
    assert_eq!(position_of(at("a", None).await).await, None);
    // Of three in one commit, in the order in which they were taken.
    let three = futures::join!(at("b", Some("1")), at("c", Some("2")), at("d", None));
    assert_eq!(three, (2, 2, 2));
    assert_eq!(position_of(2).await.as_deref(), Some("2"));
    assert_eq!(position_of(put(&feed, "e", "x").await.unwrap().number).await.as_deref(), Some("2"));
    let mut position_alone = Batch::new();
    position_alone.at_position("3");
    let receipt = feed.apply(position_alone).await.unwrap();
    assert_eq!(position_of(receipt.number).await.as_deref(), Some("3"));
    feed.close().await.unwrap();
    // Another feed goes on with it.
    let feed = self::feed(&open(&store).await).await;
    assert_eq!(feed.snapshot().unwrap().position.as_deref(), Some(b"3".as_slice()));
    assert_eq!(position_of(put(&feed, "f", "x").await.unwrap().number).await.as_deref(), Some("3"));
    let last = feed.close().await.unwrap().unwrap();
    assert_eq!((last.number, last.entries), (5, 6));
}

#[tokio::test]
async fn a_content_that_is_put_again_is_stored_once_and_found_by_everyone() {
    let store = memory();
    let repository = create(&store).await;
    let (photo, mut random) = (Random::new(4).bytes(3_000_000), Random::new(5));
    // Clones of one handle share what they know, which is more than the records of each series say.
    let options = FeedOptions::default().with_interval(Duration::ZERO);
    let feeds = ["one", "two"].map(|series| {
        let (repository, options) = (repository.clone(), options.clone());
        async move { repository.feed(series, options).await.unwrap() }
    });
    let feeds = futures::future::join_all(feeds).await;
    for round in 0..50 {
        for feed in &feeds {
            put(feed, format!("photo {}", round % 7), &photo).await.unwrap();
            put(feed, format!("other {round}"), random.bytes(2_000)).await.unwrap();
            // Before a segment says of everything where it is.
            if round < 3 {
                let held = contents(&open(&store).await, &feed.snapshot().unwrap()).await;
                assert!(held[&key(format!("photo {round}"))] == photo, "round {round}");
            }
        }
    }
    for feed in feeds {
        let last = feed.close().await.unwrap().unwrap();
        let held = contents(&open(&store).await, &last).await;
        assert_eq!(held.len(), 57);
        assert!((0..7).all(|number| held[&key(format!("photo {number}"))] == photo), "{last}");
    }
    assert_sound(&store).await;
    let stored = repository.stats().await.unwrap().packs.bytes;
    assert!(stored < 8_000_000, "{stored} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn feeds_go_on_while_their_packs_are_merged() {
    let store = memory();
    create(&store).await;
    let done = Arc::new(AtomicBool::new(false));
    let merging = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            let (repository, mut merged) = (open(&store).await, 0);
            while !done.load(Ordering::SeqCst) {
                let plan = repository.plan_merge().await.unwrap();
                if plan.is_due() {
                    merged += repository.merge(&plan).await.unwrap().packs_deleted;
                }
                tokio::task::yield_now().await;
            }
            merged
        }
    });
    let repository = open(&store).await;
    let options = FeedOptions::default().with_interval(Duration::ZERO);
    let feed = repository.feed(SERIES, options.clone()).await.unwrap();
    // Another feed of the series, so that it is registered anew now and then, and contents are begun before that.
    let other = open(&store).await.feed(SERIES, options).await.unwrap();
    let homes = ["ana", "ben", "eva", "kim"];
    let works = homes.iter().zip(1..).map(|(home, seed)| {
        let feed = if seed == 4 { &other } else { &feed };
        work(feed, &repository, home, seed, 80)
    });
    let mut expected = Model::new();
    for ledger in futures::future::join_all(works).await {
        assert!(ledger.open.is_empty());
        expected.extend(ledger.known);
    }
    feed.close().await.unwrap();
    other.close().await.unwrap();
    done.store(true, Ordering::SeqCst);
    let merged = merging.await.unwrap();
    assert!(merged > 32, "{merged} packs were merged");
    assert_eq!(latest(&store).await, expected);
    assert_sound(&store).await;
}
