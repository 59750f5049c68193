//! Writers beside one another, writers cut off, stores that fail, and clocks that are wrong.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use backstop::{BackupOptions, CreateOptions, Error, Key, OpenOptions, Repository, Selector, Snapshot, Timestamp};
use common::{Call, CountingStore, Fault, FaultyStore, Hook, HookedStore, Random, Reply};
use helpers::{
    Folder, SetClock, backup, contents, create, dump, memory, names, open, quiet, running, secret, series, snapshot,
};
use object_store::{ObjectStore, ObjectStoreExt};

/// Checks that a repository's series are what they must be, and each snapshot what was `committed` under its number.
async fn assert_sound(repository: &Repository, committed: &[Snapshot]) {
    let all = repository.snapshots(None).await.unwrap();
    for series in all.chunk_by(|a, b| a.series == b.series) {
        let mut before: Option<&Snapshot> = None;
        for (number, snapshot) in (1..).zip(series) {
            assert_eq!(snapshot.number, number, "numbers have no gaps");
            assert_eq!(snapshot.predecessor, before.map(|before| before.hash), "records are chained");
            assert!(before.is_none_or(|before| before.time < snapshot.time), "times increase");
            before = Some(snapshot);
        }
    }
    for snapshot in committed {
        let selector = Selector::Number { series: snapshot.series.clone(), number: snapshot.number };
        assert_eq!(repository.find(&selector).await.unwrap(), *snapshot, "what was acknowledged stays");
        contents(repository, snapshot).await;
    }
}

/// A folder with a file that is `name`'s own, and others that all of these folders share.
fn folder_of(name: &str) -> Folder {
    let folder = Folder::new();
    folder.write("own", format!("{name}'s own").repeat(300));
    folder.write("shared/text", Random::new(1).text(200_000));
    folder.write("shared/noise", Random::new(2).bytes(400_000));
    folder
}

/// Several backups at once, each from a handle of its own.
async fn race(store: &Arc<dyn ObjectStore>, writers: Vec<(String, Arc<Folder>)>) -> Vec<(Snapshot, Arc<Folder>)> {
    let tasks = writers.into_iter().map(|(series, folder)| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let repository = open(&store).await;
            let options = helpers::series(&series);
            let report = repository.backup(&[folder.path().to_owned()], &options, quiet()).await.unwrap();
            (report.snapshot.unwrap(), folder)
        })
    });
    let mut done = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        done.push(task.await.unwrap());
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_writers_of_one_series_both_commit() {
    let store = memory();
    create(&store).await;
    let mut committed = Vec::new();
    for _ in 0..5 {
        let writers = ["a", "b"].map(|name| ("shared".to_owned(), Arc::new(folder_of(name))));
        for (snapshot, folder) in race(&store, writers.into()).await {
            assert_eq!(contents(&open(&store).await, &snapshot).await, folder.files());
            committed.push(snapshot);
        }
    }
    let mut numbers: Vec<_> = committed.iter().map(|snapshot| snapshot.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    assert_sound(&open(&store).await, &committed).await;
    assert!(running(&store).await.is_empty(), "every registration was ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_of_several_series_do_not_mind_each_other() {
    let store = memory();
    create(&store).await;
    let folders: Vec<_> = (0..8).map(|number| Arc::new(folder_of(&number.to_string()))).collect();
    let mut committed = Vec::new();
    for _ in 0..2 {
        let writers = folders.iter().enumerate().map(|(at, folder)| (format!("series {}", at % 3), Arc::clone(folder)));
        for (snapshot, folder) in race(&store, writers.collect()).await {
            assert_eq!(contents(&open(&store).await, &snapshot).await, folder.files());
            committed.push(snapshot);
        }
    }
    assert_eq!(committed.len(), 16);
    assert_sound(&open(&store).await, &committed).await;
    let repository = open(&store).await;
    for (series, expected) in [("series 0", 6), ("series 1", 6), ("series 2", 4)] {
        assert_eq!(repository.snapshots(Some(series)).await.unwrap().len(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clones_of_one_handle_write_at_once() {
    let repository = create(&memory()).await;
    let tasks = (0..4).map(|number| {
        let repository = repository.clone();
        tokio::spawn(async move {
            let folder = folder_of(&number.to_string());
            let snapshot = snapshot(&repository, &folder).await;
            (contents(&repository, &snapshot).await == folder.files()).then_some(snapshot)
        })
    });
    let mut committed = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        committed.push(task.await.unwrap().expect("a snapshot holds what its writer saw"));
    }
    assert_sound(&repository, &committed).await;
}

/// Gives way before and after every call, so that a future can be dropped there.
#[derive(Debug)]
struct Yielding;

#[async_trait]
impl Hook for Yielding {
    async fn before(&self, _: &Call) -> object_store::Result<()> {
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn after(&self, _: &Call) -> object_store::Result<()> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Drops `future` when it has been polled so often, unless it is ready before.
async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
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
async fn a_backup_dropped_at_any_await_leaves_the_repository_as_it_was() {
    let inner = memory();
    let store = HookedStore::with_hook(Arc::clone(&inner), Yielding).shared();
    let folder = folder_of("a");
    create(&inner).await;
    let mut committed = vec![snapshot(&open(&inner).await, &folder).await];
    let mut random = Random::new(7);
    let rounds = if cfg!(debug_assertions) { 60 } else { 300 };
    let mut dropped = 0;
    for round in 0..rounds {
        folder.write("own", format!("round {round} ").repeat(500));
        folder.write(format!("new {}", round % 3), random.bytes(50_000));
        // Opened anew, or with what an earlier round left in its index.
        let repository = open(&store).await;
        let polls = if round < 40 { round } else { random.below(120) as usize };
        let paths = [folder.path().to_owned()];
        match drop_after(polls, repository.backup(&paths, &BackupOptions::default(), quiet())).await {
            None => dropped += 1,
            Some(report) => committed.push(report.unwrap().snapshot.unwrap()),
        }
        if round % 4 == 0 {
            let report = backup(&repository, &folder).await;
            let snapshot = report.snapshot.unwrap();
            assert_eq!(contents(&open(&inner).await, &snapshot).await, folder.files());
            committed.push(snapshot);
        }
    }
    assert!(dropped > rounds / 4, "{dropped} of {rounds} were dropped");
    assert_sound(&open(&inner).await, &committed).await;
}

#[tokio::test]
async fn reads_are_dropped_and_begun_again() {
    let inner = memory();
    let folder = folder_of("a");
    let snapshot = snapshot(&create(&inner).await, &folder).await;
    let repository = open(&HookedStore::with_hook(Arc::clone(&inner), Yielding).shared()).await;
    for polls in 0..60 {
        drop(drop_after(polls, contents(&repository, &snapshot)).await);
    }
    assert_eq!(contents(&repository, &snapshot).await, folder.files());
}

/// How many calls a backup of `folder` makes on a store like `inner`.
async fn calls_of_a_backup(inner: &Arc<dyn ObjectStore>, folder: &Folder) -> u64 {
    let counting = CountingStore::new(copy_of(inner).await);
    let repository = open(&counting.shared()).await;
    counting.take();
    backup(&repository, folder).await;
    counting.take().total()
}

/// A store with the same objects.
async fn copy_of(store: &Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let copy = memory();
    for (name, bytes) in dump(store).await {
        copy.put(&name.into(), bytes.into()).await.unwrap();
    }
    copy
}

/// The `k`-th call of any kind, but for those that open the repository, goes wrong.
fn nth_call(inner: Arc<dyn ObjectStore>, k: u64, fault: Fault) -> FaultyStore {
    let seen = std::sync::atomic::AtomicU64::new(0);
    FaultyStore::new(inner, move |call| {
        let opening = call.name == "config" || call.name.starts_with("keys");
        let number = if opening { u64::MAX } else { seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) };
        (number == k).then_some(fault)
    })
}

const FAULTS: [Fault; 5] = [
    Fault::BEFORE,
    Fault::AFTER,
    Fault { done: false, reply: Reply::Exists },
    Fault { done: true, reply: Reply::Exists },
    Fault { done: false, reply: Reply::Denied },
];

/// The clock stands still but for pauses between attempts, which then take no time.
#[tokio::test(start_paused = true)]
async fn each_call_may_fail_once() {
    let (pristine, folder) = (memory(), folder_of("a"));
    create(&pristine).await;
    let first = snapshot(&open(&pristine).await, &folder).await;
    folder.write("own", "changed".repeat(1000));
    let calls = calls_of_a_backup(&pristine, &folder).await;
    for fault in FAULTS {
        for k in 0..calls {
            let inner = copy_of(&pristine).await;
            let faulty = nth_call(Arc::clone(&inner), k, fault);
            let repository = open(&faulty.shared()).await;
            let outcome = repository.backup(&[folder.path().to_owned()], &BackupOptions::default(), quiet()).await;
            assert_eq!(faulty.injected(), 1, "call {k} of {calls}");
            let mut committed = vec![first.clone()];
            match outcome {
                Ok(report) => committed.push(report.snapshot.unwrap()),
                // Only a refusal that no repetition changes stops a backup, or a create that is said to be there.
                Err(Error::Store { .. }) => assert_ne!(fault.reply, Reply::Unknown, "{fault:?} at {k}"),
                Err(error) => panic!("{fault:?} at {k}: {error}"),
            }
            committed.push(snapshot(&open(&inner).await, &folder).await);
            let repository = open(&inner).await;
            assert_sound(&repository, &committed).await;
            assert_eq!(repository.snapshots(None).await.unwrap().len(), committed.len(), "{fault:?} at {k}");
            assert_eq!(contents(&repository, committed.last().unwrap()).await, folder.files());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_cut_off_at_any_call_loses_nothing() {
    let (pristine, folder) = (memory(), folder_of("a"));
    create(&pristine).await;
    let first = snapshot(&open(&pristine).await, &folder).await;
    folder.write("own", "changed".repeat(1000));
    let calls = calls_of_a_backup(&pristine, &folder).await;
    for k in 0..=calls {
        let inner = copy_of(&pristine).await;
        let opening = 3;
        let repository = open(&FaultyStore::dead_after(Arc::clone(&inner), k + opening).shared()).await;
        let outcome = repository.backup(&[folder.path().to_owned()], &BackupOptions::default(), quiet()).await;
        let mut committed = vec![first.clone()];
        match outcome {
            Ok(report) => committed.push(report.snapshot.unwrap()),
            Err(error) => assert!(matches!(error, Error::Store { .. }), "{k}: {error}"),
        }
        let again = snapshot(&open(&inner).await, &folder).await;
        committed.push(again.clone());
        assert_sound(&open(&inner).await, &committed).await;
        assert_eq!(open(&inner).await.snapshots(None).await.unwrap().len(), committed.len(), "cut off at {k}");
        assert_eq!(contents(&open(&inner).await, &again).await, folder.files());
    }
}

#[tokio::test(start_paused = true)]
async fn many_calls_may_fail() {
    let (inner, folder) = (memory(), folder_of("a"));
    create(&inner).await;
    let (mut committed, mut failed) = (Vec::new(), 0);
    for seed in 0..30 {
        folder.write("own", format!("round {seed} ").repeat(500));
        let faulty = FaultyStore::seeded(Arc::clone(&inner), seed, 0.25).shared();
        let Ok(repository) = Repository::open(Arc::clone(&faulty), &secret(), OpenOptions::default()).await else {
            continue;
        };
        let before = open(&inner).await.snapshots(None).await.unwrap().len();
        match repository.backup(&[folder.path().to_owned()], &BackupOptions::default(), quiet()).await {
            Ok(report) => committed.push(report.snapshot.unwrap()),
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                failed += 1;
                // A commit whose outcome stayed unknown may have landed.
                let landed = open(&inner).await.snapshots(None).await.unwrap();
                assert!(landed.len() - before <= 1);
                committed.extend(landed.into_iter().skip(before));
            }
        }
    }
    assert!(committed.len() > 10, "{} committed, {failed} failed", committed.len());
    assert_sound(&open(&inner).await, &committed).await;
    let last = snapshot(&open(&inner).await, &folder).await;
    assert_eq!(contents(&open(&inner).await, &last).await, folder.files());
}

#[tokio::test(start_paused = true)]
async fn creating_may_go_wrong_anywhere() {
    for fault in FAULTS {
        for k in 0..6 {
            let inner = memory();
            let seen = std::sync::atomic::AtomicU64::new(0);
            let faulty = FaultyStore::new(Arc::clone(&inner), move |_| {
                (seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == k).then_some(fault)
            });
            let created = Repository::create(faulty.shared(), &secret(), CreateOptions::default()).await;
            match created {
                Ok(repository) => assert_eq!(open(&inner).await.id(), repository.id(), "{fault:?} at {k}"),
                // Either nothing was made and it can be made, or it was made and can be opened.
                Err(error) => {
                    assert_ne!(fault.reply, Reply::Unknown, "{fault:?} at {k}: {error}");
                    match Repository::create(Arc::clone(&inner), &secret(), CreateOptions::default()).await {
                        Ok(_) => {}
                        Err(error) => assert!(error.is_conflict(), "{fault:?} at {k}: {error}"),
                    }
                }
            }
            snapshot(&open(&inner).await, &folder_of("a")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn creating_may_be_cut_off_anywhere() {
    for k in 0..6 {
        let inner = memory();
        let dead = FaultyStore::dead_after(Arc::clone(&inner), k).shared();
        if Repository::create(dead, &secret(), CreateOptions::default()).await.is_err()
            && let Err(error) = Repository::create(Arc::clone(&inner), &secret(), CreateOptions::default()).await
        {
            assert!(error.is_conflict(), "{k}: {error}");
        }
        snapshot(&open(&inner).await, &folder_of("a")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_repository_whose_making_failed_can_be_opened_or_made_anew() {
    for seed in 0..300 {
        let inner = memory();
        let faulty = FaultyStore::seeded(Arc::clone(&inner), seed, 0.6).shared();
        if Repository::create(faulty, &secret(), CreateOptions::default()).await.is_err()
            && let Err(error) = Repository::create(Arc::clone(&inner), &secret(), CreateOptions::default()).await
        {
            assert!(error.is_conflict(), "seed {seed}: {error}");
        }
        let opened = Repository::open(inner, &secret(), OpenOptions::default()).await;
        assert!(opened.is_ok(), "seed {seed}: {opened:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_create_one_repository_one_wins() {
    for _ in 0..5 {
        let store = memory();
        let tasks = (0..8).map(|_| {
            let store = HookedStore::with_hook(Arc::clone(&store), Yielding).shared();
            tokio::spawn(async move { Repository::create(store, &secret(), CreateOptions::default()).await })
        });
        let mut won = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            match task.await.unwrap() {
                Ok(repository) => won.push(repository.id()),
                Err(error) => assert!(error.is_conflict(), "{error}"),
            }
        }
        assert_eq!(won.len(), 1);
        assert_eq!(open(&store).await.id(), won[0]);
        assert_eq!(names(&store, "keys").await.len(), 1, "losers take their slots away");
    }
}

#[tokio::test]
async fn time_goes_on_where_a_clock_goes_back() {
    let (store, clock, folder) = (memory(), SetClock::at(1_000_000), folder_of("a"));
    let options = CreateOptions::default().with_open(clock.options());
    let repository = Repository::create(store, &secret(), options).await.unwrap();
    let first = snapshot(&repository, &folder).await;
    assert_eq!((first.time, first.clock), (Timestamp::from_nanos(1_000_000_000_000_000), first.time));
    clock.set(999_000);
    let second = snapshot(&repository, &folder).await;
    assert_eq!(second.time, first.time.next());
    assert_eq!(second.clock, Timestamp::from_nanos(999_000_000_000_000));
    clock.set(1_000_001);
    let third = snapshot(&repository, &folder).await;
    assert_eq!(third.time, third.clock);
    assert_sound(&repository, &[first, second, third]).await;
}

#[tokio::test]
async fn a_predecessor_far_ahead_is_not_built_upon() {
    let (store, clock, folder) = (memory(), SetClock::at(1_000_000_000), folder_of("a"));
    let options = CreateOptions::default().with_open(clock.options());
    let repository = Repository::create(Arc::clone(&store), &secret(), options).await.unwrap();
    let ahead = snapshot(&repository, &folder).await;
    clock.set(1_000_000_000 - 24 * 60 * 60 - 2);
    let refused = repository.backup(&[folder.path().to_owned()], &BackupOptions::default(), quiet()).await;
    assert!(matches!(&refused, Err(Error::Invalid { what, .. }) if what == "default#1"), "{refused:?}");
    assert!(running(&store).await.is_empty());
    // Another series isn't concerned, and a day is no matter.
    repository.backup(&[folder.path().to_owned()], &series("another"), quiet()).await.unwrap();
    clock.set(1_000_000_000 - 24 * 60 * 60);
    let next = snapshot(&repository, &folder).await;
    assert_sound(&repository, &[ahead, next]).await;
}

#[tokio::test]
async fn many_streams_into_one_series_at_once() {
    let store = memory();
    create(&store).await;
    let streams = (0..6).map(|number| {
        let store = Arc::clone(&store);
        async move {
            let (repository, name) = (open(&store).await, Key::from_path("stream").unwrap());
            let bytes = Random::new(number).bytes(100_000);
            let options = series("streams");
            let report = repository.backup_stream(&name, bytes.as_slice(), &options, quiet()).await.unwrap();
            (report.snapshot.unwrap(), bytes)
        }
    });
    let done = futures::future::join_all(streams).await;
    let repository = open(&store).await;
    for (snapshot, bytes) in &done {
        let expected = BTreeMap::from([(Key::from_path("stream").unwrap(), bytes.clone())]);
        assert!(contents(&repository, snapshot).await == expected);
    }
    let committed: Vec<_> = done.into_iter().map(|(snapshot, _)| snapshot).collect();
    assert_sound(&repository, &committed).await;
}
