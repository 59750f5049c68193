//! Everything that writers, feeds and readers do, at random, against a `BTreeMap` for each snapshot.
//!
//! A case is a repository in memory, opened several times, some of its stores failing now and then. Steps are drawn
//! from a seed: writers begin, put, remove, rename, are read through, commit and are dropped; feeds take changes, some of
//! which nobody waits for; small packs are merged; snapshots are found by time, compared and read. After each step every
//! new snapshot must be explained by what was asked for: its tag names its writer or feed, and its content must be the
//! snapshot before it with that one's changes. So an outcome that the caller never learned is checked like any other.
//!
//! `MODEL_SEED` runs one case, `MODEL_CASES` so many.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod expected;
mod feeds;
mod look;
mod world;
mod writers;

#[path = "../common/mod.rs"]
mod common;
#[path = "../helpers/mod.rs"]
mod helpers;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstop::{Key, OpenOptions, Repository};
use common::{Call, Fault, FaultyStore, Kind, Random, Reply};
use futures::{FutureExt, StreamExt};
use helpers::{create, memory, open, secret};
use object_store::ObjectStore;
use world::{Series, World};

/// Cases that are run; all take about a minute on two cores.
const CASES: u64 = 1500;

/// Threads that run them.
const THREADS: u64 = 2;

/// Cases under way at once on each, of which some wait for a pause between two attempts.
const AT_ONCE: usize = 24;

#[test]
fn every_snapshot_is_what_was_asked_for() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MODEL_CASES").unwrap_or(CASES),
    };
    let seen = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let seeds = seeds.clone();
                    move || run_all(seeds.filter(|seed| seed % THREADS == thread))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Seen::default(), Seen::and)
    });
    eprintln!("{seen:?}");
    if seeds.end - seeds.start >= 200 {
        // What never happened wasn't tested.
        let Seen { commits, merged, overlaps, unknown, failed, acknowledged, unawaited, past, packs } = seen;
        let cases = seeds.end - seeds.start;
        assert!(
            commits > 2 * cases && merged > cases / 10 && overlaps > cases / 20 && acknowledged > cases,
            "{seen:?}"
        );
        assert!(unknown > 0 && failed > 0 && unawaited > 0 && packs > 0 && past > cases, "{seen:?}");
    }
}

/// Runs cases on one thread.
fn run_all(seeds: impl Iterator<Item = u64>) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = futures::stream::iter(seeds).map(|seed| async move {
        match AssertUnwindSafe(run(seed)).catch_unwind().await {
            Ok(seen) => seen,
            Err(panic) => {
                eprintln!("the case of MODEL_SEED={seed} failed");
                std::panic::resume_unwind(panic)
            }
        }
    });
    runtime.block_on(cases.buffer_unordered(AT_ONCE).fold(Seen::default(), async |sum, seen| sum.and(seen)))
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Commits of writers.
    commits: u64,
    /// Of these, on top of what others had committed meanwhile.
    merged: u64,
    overlaps: u64,
    /// Commits that landed though they were said to have failed, or nobody asked any more.
    unknown: u64,
    /// Calls that failed.
    failed: u64,
    /// Changes that feeds acknowledged.
    acknowledged: u64,
    /// Changes that were committed though nobody waited for it.
    unawaited: u64,
    /// Reads of snapshots by time.
    past: u64,
    /// Packs that merges deleted.
    packs: u64,
}

impl Seen {
    fn and(self, other: Seen) -> Seen {
        Seen {
            commits: self.commits + other.commits,
            merged: self.merged + other.merged,
            overlaps: self.overlaps + other.overlaps,
            unknown: self.unknown + other.unknown,
            failed: self.failed + other.failed,
            acknowledged: self.acknowledged + other.acknowledged,
            unawaited: self.unawaited + other.unawaited,
            past: self.past + other.past,
            packs: self.packs + other.packs,
        }
    }
}

/// The store of a client that fails now and then while `failing` is set: for one call, or for some in a row, which may
/// be more than anything tries.
fn failing_store(inner: &Arc<dyn ObjectStore>, seed: u64, failing: Arc<AtomicBool>) -> Arc<dyn ObjectStore> {
    let state = std::sync::Mutex::new((Random::new(seed), 0u64));
    let plan = move |call: &Call| {
        let (random, outage) = &mut *state.lock().unwrap();
        if !failing.load(Ordering::SeqCst) {
            return None;
        }
        // Where most depends on it.
        let put = call.kind == Kind::Put && !call.name.starts_with("writers/");
        if *outage == 0 && random.chance(if put { 0.15 } else { 0.03 }) {
            *outage = if random.chance(0.5) { 1 } else { 1 + random.below(12) };
        }
        if *outage == 0 {
            return None;
        }
        *outage -= 1;
        let reply = if call.kind == Kind::Put && random.chance(0.3) { Reply::Exists } else { Reply::Unknown };
        Some(Fault { done: random.chance(0.5), reply })
    };
    FaultyStore::new(Arc::clone(inner), plan).shared()
}

async fn run(seed: u64) -> Seen {
    let mut random = Random::new(seed);
    let inner = memory();
    let clean = create(&inner).await;
    let failing = Arc::new(AtomicBool::new(false));
    let mut clients = vec![(clean.clone(), false), (open(&inner).await, false)];
    if random.chance(0.3) {
        let store = failing_store(&inner, seed, Arc::clone(&failing));
        clients.push((Repository::open(store, &secret(), OpenOptions::default()).await.unwrap(), true));
        failing.store(true, Ordering::SeqCst);
    }
    let wide = random.chance(0.1);
    let keys = if wide { wide_keys() } else { few_keys() };
    let series = (0..1 + random.below(2)).map(|number| Series { name: format!("series {number}"), snapshots: vec![] });
    let series = series.collect();
    let mut world = World {
        inner,
        clean,
        clients,
        series,
        writers: Vec::new(),
        feeds: Vec::new(),
        pending: Vec::new(),
        next_id: 0,
        keys,
        seen: Seen::default(),
        random,
    };
    if wide {
        world.fill().await;
    }
    // Now and then there are so many commits that their packs are merged.
    let long = world.random.chance(0.02);
    for _ in 0..if long { 250 } else { 12 + world.random.below(24) } {
        world.step(long).await;
    }
    world.finish(seed).await;
    world.seen
}

/// Keys that nest and collide.
fn few_keys() -> Vec<Key> {
    let names = ["a", "b", "a!", "ab"];
    let mut keys = Vec::new();
    for one in names {
        keys.push(Key::new([one]).unwrap());
        for two in names {
            keys.push(Key::new([one, two]).unwrap());
            keys.push(Key::new([one, two, "a"]).unwrap());
        }
    }
    keys
}

/// So many that trees have several levels.
fn wide_keys() -> Vec<Key> {
    (0..400).map(|number| Key::new([format!("{:02}", number % 17), format!("{number:04}")]).unwrap()).collect()
}
