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

mod common;
mod helpers;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstop::{
    Batch, Change, CheckOptions, CommitOptions, Entry, Error, Feed, FeedOptions, Key, Metadata, OpenOptions, Payload,
    Receipt, Repository, Result, Selector, Snapshot, Start, Timestamp, Writer, WriterOptions,
};
use common::{Call, Fault, FaultyStore, Kind, Random, Reply};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use helpers::{create, memory, open, quiet, secret};
use object_store::ObjectStore;
use tokio::io::AsyncReadExt;

/// Cases that are run; all take about a minute on two cores.
const CASES: u64 = 1500;

/// Threads that run them.
const THREADS: u64 = 2;

/// Cases under way at once on each, of which some wait for a pause between two attempts.
const AT_ONCE: usize = 24;

type Map = BTreeMap<Key, Vec<u8>>;

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

/// One change, as the model makes it.
#[derive(Clone, Debug)]
enum Op {
    Put(Key, Vec<u8>),
    Remove(Key),
    RemovePrefix(Key),
}

impl Op {
    fn apply(&self, map: &mut Map) {
        match self {
            Op::Put(key, content) => drop(map.insert(key.clone(), content.clone())),
            Op::Remove(key) => drop(map.remove(key)),
            Op::RemovePrefix(prefix) => map.retain(|key, _| !key.starts_with(prefix)),
        }
    }

    fn key(&self) -> &Key {
        match self {
            Op::Put(key, _) | Op::Remove(key) | Op::RemovePrefix(key) => key,
        }
    }
}

/// The keys at which two maps differ.
fn differing(a: &Map, b: &Map) -> BTreeSet<Key> {
    a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
}

/// What a writer holds.
#[derive(Clone, Debug)]
struct Draft {
    series: usize,
    base: Map,
    /// The number of the snapshot that it began with, and its position.
    began: Option<(u64, Option<Vec<u8>>)>,
    map: Map,
    /// Prefixes that were removed, or renamed.
    removed: Vec<Key>,
    replaces: bool,
}

impl Draft {
    /// The keys at which its changes overlap with what lies between its base and `theirs`.
    fn overlap(&self, theirs: &Map) -> Vec<Key> {
        let ours = differing(&self.base, &self.map);
        let at_odds = |key: &&Key| self.map.get(*key) != theirs.get(*key);
        let touched = |key: &&Key| ours.contains(*key) || self.removed.iter().any(|prefix| key.starts_with(prefix));
        differing(&self.base, theirs).iter().filter(at_odds).filter(touched).cloned().collect()
    }

    /// Its changes on top of `theirs`.
    fn on(&self, theirs: &Map) -> Map {
        if self.replaces {
            return self.map.clone();
        }
        let mut map = theirs.clone();
        for key in differing(&self.base, &self.map) {
            match self.map.get(&key) {
                Some(content) => drop(map.insert(key, content.clone())),
                None => drop(map.remove(&key)),
            }
        }
        map
    }
}

struct OpenWriter {
    id: u64,
    writer: Arc<Writer>,
    draft: Draft,
    /// Whether its store fails now and then.
    fails: bool,
    /// What was put last.
    last: Option<Key>,
}

struct OpenFeed {
    id: u64,
    feed: Feed,
    series: usize,
    fails: bool,
}

/// What may or must show in a snapshot to come.
enum Pending {
    Commit {
        id: u64,
        draft: Draft,
        position: Option<Vec<u8>>,
        made: Option<Box<Snapshot>>,
    },
    /// Refused because of what this snapshot has changed; looked at once that has been seen.
    Overlapping {
        id: u64,
        draft: Draft,
        number: u64,
        paths: Vec<String>,
    },
    /// Acknowledged as part of this snapshot.
    Acknowledged {
        id: u64,
        receipt: Receipt,
        ops: Vec<Op>,
        position: Option<Vec<u8>>,
    },
    /// Nobody waited for it.
    Unawaited {
        id: u64,
        op: Op,
    },
}

impl Pending {
    fn id(&self) -> u64 {
        match self {
            Pending::Commit { id, .. }
            | Pending::Overlapping { id, .. }
            | Pending::Acknowledged { id, .. }
            | Pending::Unawaited { id, .. } => *id,
        }
    }
}

struct Series {
    name: String,
    snapshots: Vec<(Snapshot, Map)>,
}

impl Series {
    fn latest(&self) -> Map {
        self.snapshots.last().map(|(_, map)| map.clone()).unwrap_or_default()
    }
}

struct World {
    random: Random,
    inner: Arc<dyn ObjectStore>,
    /// Never fails.
    clean: Repository,
    /// The handles, and whether their stores fail.
    clients: Vec<(Repository, bool)>,
    series: Vec<Series>,
    writers: Vec<OpenWriter>,
    feeds: Vec<OpenFeed>,
    pending: Vec<Pending>,
    next_id: u64,
    keys: Vec<Key>,
    seen: Seen,
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
        // That a name exists which doesn't is said once: said again and again it would be believed.
        let alone = *outage == 1 && call.kind == Kind::Put;
        *outage -= 1;
        let reply = if alone && random.chance(0.3) { Reply::Exists } else { Reply::Unknown };
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

impl World {
    fn key(&mut self) -> Key {
        let at = self.random.below(self.keys.len() as u64) as usize;
        self.keys[at].clone()
    }

    /// A key, or the start of one.
    fn prefix(&mut self) -> Key {
        let key = self.key();
        if self.random.chance(0.5) { key.parent().unwrap_or(key) } else { key }
    }

    /// Mostly what stands in the tree, now and then what is cut to chunks.
    fn content(&mut self) -> Vec<u8> {
        let length = match self.random.below(20) {
            0 => 1_000 + self.random.below(3_000),
            1 => 0,
            2 => 20_000 + self.random.below(40_000),
            _ => 1 + self.random.below(60),
        };
        if self.random.chance(0.3) {
            // The same again, somewhere else or later.
            return vec![length as u8; length as usize];
        }
        self.random.bytes(length as usize)
    }

    fn client(&mut self) -> (Repository, bool) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        self.clients[at].clone()
    }

    fn pick_series(&mut self) -> usize {
        self.random.below(self.series.len() as u64) as usize
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A snapshot of many entries to begin with.
    async fn fill(&mut self) {
        let (id, name) = (self.id(), self.series[0].name.clone());
        let writer = self.clean.writer(&name, WriterOptions::default()).await.unwrap();
        let mut draft = self.draft_of(0, None, false);
        for key in self.keys.clone() {
            let length = 60 + self.random.below(200) as usize;
            let content = self.random.bytes(length);
            writer.put(&key, content.clone(), &Metadata::default()).await.unwrap();
            draft.map.insert(key, content);
        }
        let open = OpenWriter { id, writer: Arc::new(writer), draft, fails: false, last: None };
        self.writers.push(open);
        self.commit(0).await;
        self.observe().await;
    }

    fn draft_of(&self, series: usize, parent: Option<&Snapshot>, replaces: bool) -> Draft {
        let snapshots = &self.series[series].snapshots;
        let from = parent.map(|parent| &snapshots[parent.number as usize - 1]);
        let map = from.map(|(_, map)| map.clone()).unwrap_or_default();
        let began = from.map(|(snapshot, _)| (snapshot.number, snapshot.position.clone()));
        Draft { series, base: map.clone(), began, map, removed: Vec::new(), replaces }
    }

    async fn step(&mut self, long: bool) {
        let few_writers = self.writers.len() < 3;
        match self.random.below(if long { 60 } else { 36 }) {
            0..3 if few_writers => self.begin().await,
            3..16 if !self.writers.is_empty() => self.change().await,
            16..18 if !self.writers.is_empty() => self.read_through().await,
            18..21 if !self.writers.is_empty() => {
                let at = self.random.below(self.writers.len() as u64) as usize;
                self.commit(at).await;
            }
            21 if !self.writers.is_empty() => {
                let at = self.random.below(self.writers.len() as u64) as usize;
                let open = self.writers.swap_remove(at);
                if self.random.chance(0.5) {
                    Arc::into_inner(open.writer).unwrap().abandon().await;
                }
            }
            22 if self.feeds.len() < 2 => self.begin_feed().await,
            23..26 | 36.. if !self.feeds.is_empty() => self.feed_changes().await,
            26..28 => self.at_once().await,
            28..31 => self.read_past().await,
            31 => self.compare().await,
            32 if !self.feeds.is_empty() => self.end_feed().await,
            33 => self.tidy_up().await,
            34 => {
                // As after a restart.
                let inner = Arc::clone(&self.inner);
                self.clients[1].0 = open(&inner).await;
            }
            _ if few_writers => self.begin().await,
            _ => self.read_past().await,
        }
        // Else there can be nothing new; in the end all is looked at.
        if !self.pending.is_empty() {
            self.observe().await;
        }
    }

    async fn begin(&mut self) {
        let (repository, fails) = self.client();
        let (series, id) = (self.pick_series(), self.id());
        let snapshots = &self.series[series].snapshots;
        let start = match self.random.below(12) {
            0 => Start::Nothing,
            1..4 if !snapshots.is_empty() => {
                let at = self.random.below(snapshots.len() as u64) as usize;
                Start::from(snapshots[at].0.clone())
            }
            _ => Start::Latest,
        };
        let options = WriterOptions::default().with_start(start.clone()).with_host(id.to_string());
        match repository.writer(&self.series[series].name, options).await {
            Ok(writer) => {
                let known = self.series[series].snapshots.len();
                // Changes of a feed that nobody waited for may have come in meanwhile.
                self.observe().await;
                let draft = self.draft_of(series, writer.parent(), matches!(start, Start::Nothing));
                let latest = self.series[series].snapshots.len();
                match (&start, writer.parent()) {
                    (Start::Latest, None) => assert_eq!(known, 0),
                    (Start::Latest, Some(parent)) => assert!((known..=latest).contains(&(parent.number as usize))),
                    (Start::Snapshot(from), parent) => assert_eq!(parent, Some(&**from)),
                    (_, parent) => assert_eq!(parent, None),
                }
                self.writers.push(OpenWriter { id, writer: Arc::new(writer), draft, fails, last: None });
            }
            Err(error) => self.failed(fails, &error),
        }
    }

    /// Only what runs on a store that fails may fail, and only because of it.
    fn failed(&mut self, fails: bool, error: &Error) {
        self.seen.failed += 1;
        // A dropped call may have failed, which its writer says at the next one.
        let expected = error.is_retryable() || matches!(error, Error::Invalid { .. });
        assert!(fails && expected, "{error:?}");
    }

    /// A change by a writer.
    async fn change(&mut self) {
        let at = self.random.below(self.writers.len() as u64) as usize;
        let (key, prefix, to, content) = (self.key(), self.prefix(), self.prefix(), self.content());
        let (kind, metadata) = (self.random.below(20), Metadata::default());
        let polls = self.random.chance(0.1).then(|| self.random.below(4));
        let open = &mut self.writers[at];
        let (writer, before) = (Arc::clone(&open.writer), open.draft.map.get(&key).cloned());
        let outcome = match kind {
            0..11 => {
                open.last = Some(key.clone());
                let op = Op::Put(key.clone(), content.clone());
                let put: BoxFuture<'_, Result<()>> = if kind < 8 {
                    writer.put(&key, content, &metadata).boxed()
                } else {
                    async { writer.put_reader(&key, &content[..], &metadata).await.map(drop) }.boxed()
                };
                let outcome = match polls {
                    Some(polls) => give_up_after(polls, put).await,
                    None => Some(put.await),
                };
                match outcome {
                    Some(Ok(())) => op.apply(&mut open.draft.map),
                    Some(Err(_)) => {}
                    // Either it took effect or not, and reading through the writer tells.
                    None => {
                        let Op::Put(_, content) = &op else { return };
                        match read_through(&writer, &key).await {
                            Ok(now) if now.as_ref() == Some(content) => op.apply(&mut open.draft.map),
                            Ok(now) => assert_eq!(now, before, "a dropped call did something else"),
                            Err(_) => drop(self.writers.swap_remove(at)),
                        }
                        return;
                    }
                }
                outcome.unwrap_or(Ok(()))
            }
            11..14 => {
                Op::Remove(key.clone()).apply(&mut open.draft.map);
                writer.remove(&key).await
            }
            14..17 => {
                Op::RemovePrefix(prefix.clone()).apply(&mut open.draft.map);
                open.draft.removed.push(prefix.clone());
                writer.remove_prefix(&prefix).await
            }
            _ => {
                let outcome = writer.rename_prefix(&prefix, &to).await;
                let nested = prefix.starts_with(&to) || to.starts_with(&prefix);
                let taken = open.draft.map.keys().any(|key| key.starts_with(&to));
                match outcome {
                    Ok(moved) => {
                        assert!(!nested && !taken);
                        assert_eq!(moved, rename(&mut open.draft.map, &prefix, &to));
                        open.draft.removed.push(prefix);
                        Ok(())
                    }
                    Err(Error::Invalid { .. }) if nested => Ok(()),
                    Err(Error::Conflict { .. }) if taken && !nested => Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = outcome {
            let fails = open.fails;
            self.failed(fails, &error);
            // What was moved isn't known. Other calls that fail do nothing, and then the commit does nothing or all.
            if kind > 16 {
                self.writers.swap_remove(at);
            }
        }
    }

    /// What a writer shows of its changes.
    async fn read_through(&mut self) {
        let at = self.random.below(self.writers.len() as u64) as usize;
        let (key, prefix, kind) = (self.key(), self.prefix(), self.random.below(4));
        let OpenWriter { writer, draft, fails, last, .. } = &self.writers[at];
        let key = last.clone().filter(|_| kind == 3).unwrap_or(key);
        let outcome = match kind {
            0 | 3 => {
                read_through(writer, &key).await.map(|found| assert_eq!(found.as_ref(), draft.map.get(&key), "{key}"))
            }
            _ => {
                let prefix = (kind == 1).then_some(&prefix);
                let entries: Result<Vec<_>> = writer.entries(prefix).try_collect().await;
                entries.map(|entries| assert_keys(&entries, &draft.map, prefix))
            }
        };
        if let Err(error) = outcome {
            let fails = *fails;
            self.failed(fails, &error);
        }
    }

    /// Commits a writer, or gives up on the way.
    async fn commit(&mut self, at: usize) {
        let open = self.writers.swap_remove(at);
        let polls = self.random.chance(0.1).then(|| self.random.below(40));
        let (position, commit) = self.commit_of(open);
        let outcome = match polls {
            Some(polls) => give_up_after(polls, commit).await,
            None => Some(commit.await),
        };
        self.committed(position, outcome);
    }

    /// The commit of a writer, and how to expect it.
    fn commit_of(&mut self, open: OpenWriter) -> ((Pending, bool), BoxFuture<'static, Result<Snapshot>>) {
        let position = self.random.chance(0.5).then(|| self.random.bytes(5));
        let mut options = CommitOptions::default().with_tag("id", open.id.to_string());
        options.position.clone_from(&position);
        let writer = Arc::into_inner(open.writer).unwrap();
        let pending = Pending::Commit { id: open.id, draft: open.draft, position, made: None };
        ((pending, open.fails), async move { writer.commit(options).await }.boxed())
    }

    /// What came of a commit.
    fn committed(&mut self, (pending, fails): (Pending, bool), outcome: Option<Result<Snapshot>>) {
        let Pending::Commit { id, draft, position, .. } = pending else { return };
        let made = match outcome {
            Some(Ok(snapshot)) => {
                self.seen.commits += 1;
                Some(Box::new(snapshot))
            }
            Some(Err(Error::Overlap { series, number, paths })) => {
                self.seen.overlaps += 1;
                assert_eq!(series, self.series[draft.series].name);
                self.pending.push(Pending::Overlapping { id, draft, number, paths });
                return;
            }
            Some(Err(error)) => {
                // A merge begun meanwhile makes a writer that lost its number begin again.
                if !error.is_conflict() {
                    self.failed(fails, &error);
                }
                None
            }
            None => None,
        };
        self.pending.push(Pending::Commit { id, draft, position, made });
    }

    async fn begin_feed(&mut self) {
        let (repository, fails) = self.client();
        let (series, id) = (self.pick_series(), self.id());
        let interval = Duration::from_millis(self.random.below(3));
        let options = FeedOptions::default().with_interval(interval).with_tag("id", id.to_string());
        match repository.feed(&self.series[series].name, options).await {
            Ok(feed) => self.feeds.push(OpenFeed { id, feed, series, fails }),
            Err(error) => self.failed(fails, &error),
        }
    }

    /// Some changes of a feed at once, about different keys, or one batch.
    async fn feed_changes(&mut self) {
        let at = self.random.below(self.feeds.len() as u64) as usize;
        let (id, feed, fails) = (self.feeds[at].id, self.feeds[at].feed.clone(), self.feeds[at].fails);
        if self.random.chance(0.4) {
            let ops: Vec<_> = (0..1 + self.random.below(4)).map(|_| self.op(true)).collect();
            let mut batch = Batch::new();
            for op in &ops {
                match op {
                    Op::Put(key, content) => batch.put(key, content.clone(), &Metadata::default()),
                    Op::Remove(key) => batch.remove(key),
                    Op::RemovePrefix(key) => batch.remove_prefix(key),
                };
            }
            let position = self.random.chance(0.5).then(|| self.random.bytes(4));
            if let Some(position) = &position {
                batch.at_position(position.clone());
            }
            let outcome = feed.apply(batch).await;
            self.acknowledged(id, fails, ops, position, outcome);
            return;
        }
        let ops = self.distinct_ops();
        let unawaited = self.random.chance(0.15).then(|| self.random.below(3));
        let calls = ops.iter().map(|op| call(&feed, op));
        match unawaited {
            Some(polls) => {
                let outcome = give_up_after(polls, futures::future::join_all(calls).boxed()).await;
                match outcome {
                    Some(outcomes) => {
                        for (op, outcome) in ops.into_iter().zip(outcomes) {
                            self.acknowledged(id, fails, vec![op], None, outcome);
                        }
                    }
                    None => self.pending.extend(ops.into_iter().map(|op| Pending::Unawaited { id, op })),
                }
            }
            None => {
                let outcomes = futures::future::join_all(calls).await;
                for (op, outcome) in ops.into_iter().zip(outcomes) {
                    self.acknowledged(id, fails, vec![op], None, outcome);
                }
            }
        }
    }

    fn op(&mut self, prefixes: bool) -> Op {
        match self.random.below(8) {
            0 | 1 => Op::Remove(self.key()),
            2 if prefixes => Op::RemovePrefix(self.prefix()),
            _ => Op::Put(self.key(), self.content()),
        }
    }

    /// Changes whose order doesn't matter.
    fn distinct_ops(&mut self) -> Vec<Op> {
        let mut keys = BTreeSet::new();
        let ops: Vec<_> = (0..1 + self.random.below(4)).map(|_| self.op(false)).collect();
        ops.into_iter().filter(|op| keys.insert(op.key().clone())).collect()
    }

    fn acknowledged(
        &mut self,
        id: u64,
        fails: bool,
        ops: Vec<Op>,
        position: Option<Vec<u8>>,
        outcome: Result<Receipt>,
    ) {
        match outcome {
            Ok(receipt) => {
                self.seen.acknowledged += 1;
                self.pending.push(Pending::Acknowledged { id, receipt, ops, position });
            }
            // Told to have failed: it must not show, and nothing will expect it.
            Err(Error::Conflict { .. }) => {}
            Err(error) => self.failed(fails, &error),
        }
    }

    async fn end_feed(&mut self) {
        let at = self.random.below(self.feeds.len() as u64) as usize;
        let OpenFeed { id, feed, series, fails } = self.feeds.swap_remove(at);
        let open = self.pending.iter().any(|pending| pending.id() == id);
        if !open && self.random.chance(0.3) {
            // Nothing is under way that could still come.
            return;
        }
        match feed.close().await {
            Ok(latest) => {
                self.observe().await;
                let latest = latest.map_or(0, |latest| latest.number);
                assert!(latest <= self.series[series].snapshots.len() as u64);
            }
            Err(error) => self.failed(fails, &error),
        }
        // What it hasn't committed by now never comes.
        self.pending.retain(|pending| pending.id() != id);
    }

    /// Several commits and changes of feeds at the same time.
    async fn at_once(&mut self) {
        let (mut commits, mut expected) = (Vec::new(), Vec::new());
        while !self.writers.is_empty() && commits.len() < 3 {
            let open = self.writers.swap_remove(0);
            let (pending, commit) = self.commit_of(open);
            commits.push(commit);
            expected.push(pending);
        }
        let mut changes = Vec::new();
        let feeds: Vec<_> = self.feeds.iter().map(|open| (open.id, open.feed.clone(), open.fails)).collect();
        for (id, feed, fails) in feeds {
            changes.extend(self.distinct_ops().into_iter().map(|op| (id, feed.clone(), fails, op)));
        }
        let calls = changes.iter().map(|(_, feed, _, op)| call(feed, op));
        let (outcomes, receipts) = futures::join!(futures::future::join_all(commits), futures::future::join_all(calls));
        for (pending, outcome) in expected.into_iter().zip(outcomes) {
            self.committed(pending, Some(outcome));
        }
        let receipts: Vec<_> =
            changes.iter().map(|(id, _, fails, op)| (*id, *fails, op.clone())).zip(receipts).collect();
        for ((id, fails, op), receipt) in receipts {
            self.acknowledged(id, fails, vec![op], None, receipt);
        }
    }

    async fn tidy_up(&mut self) {
        let (repository, fails) = self.client();
        let merge = async {
            let plan = repository.plan_merge().await?;
            if plan.is_due() { repository.merge(&plan).await.map(|report| report.packs_deleted) } else { Ok(0) }
        };
        match merge.await {
            Ok(packs) => self.seen.packs += packs,
            Err(error) if error.is_conflict() => {}
            Err(error) => self.failed(fails, &error),
        }
    }

    /// Explains every snapshot that is new, and what was acknowledged or made must be among them.
    async fn observe(&mut self) {
        for series in 0..self.series.len() {
            while let Some(snapshot) = self.next_snapshot(series).await {
                self.explain(series, snapshot).await;
            }
        }
        for pending in &self.pending {
            match pending {
                Pending::Commit { made: Some(snapshot), .. } => panic!("{snapshot} was made and isn't there"),
                Pending::Acknowledged { receipt, .. } => panic!("{receipt:?} was given and isn't there"),
                Pending::Overlapping { draft, number, paths, .. } => {
                    let (_, theirs) = &self.series[draft.series].snapshots[*number as usize - 1];
                    let overlap = draft.overlap(theirs);
                    let named = overlap.iter().take(10).map(Key::to_string);
                    assert!(!draft.replaces && !paths.is_empty() && named.eq(paths.iter().cloned()), "{paths:?}");
                }
                _ => {}
            }
        }
        // A commit that hasn't landed by now was dropped or has failed for good.
        self.pending.retain(|pending| matches!(pending, Pending::Unawaited { .. }));
    }

    async fn next_snapshot(&self, series: usize) -> Option<Snapshot> {
        let Series { name, snapshots } = &self.series[series];
        let number = snapshots.len() as u64 + 1;
        match self.clean.find(&Selector::Number { series: name.clone(), number }).await {
            Ok(snapshot) => Some(snapshot),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn explain(&mut self, series: usize, snapshot: Snapshot) {
        let id: u64 = snapshot.tags["id"].parse().unwrap();
        let before = self.series[series].latest();
        let previous = self.series[series].snapshots.last().map(|(snapshot, _)| snapshot.clone());
        let found = contents(&self.clean, &snapshot).await;
        let commit = self
            .pending
            .iter()
            .position(|pending| matches!(pending, Pending::Commit { id: other, .. } if *other == id));
        let (expected, position, parent) = if let Some(commit) = commit {
            let Pending::Commit { draft, position, made, .. } = self.pending.swap_remove(commit) else { return };
            match made {
                Some(made) => assert_eq!(*made, snapshot),
                None => self.seen.unknown += 1,
            }
            let (mut parent, mut carried) = (draft.began.as_ref().map(|(number, _)| *number), None);
            if let Some((_, position)) = &draft.began {
                carried.clone_from(position);
            }
            if !draft.replaces && parent != previous.as_ref().map(|previous| previous.number) {
                assert_eq!(draft.overlap(&before), [], "{snapshot} was made over changes that overlap");
                self.seen.merged += 1;
                parent = previous.as_ref().map(|previous| previous.number);
                carried = previous.as_ref().and_then(|previous| previous.position.clone());
            }
            (draft.on(&before), position.or(carried), parent)
        } else {
            let mut expected = before.clone();
            let mut position = previous.as_ref().and_then(|previous| previous.position.clone());
            for pending in self.pending.extract_if(.., |pending| match pending {
                Pending::Acknowledged { id: other, receipt, .. } => *other == id && receipt.number == snapshot.number,
                _ => false,
            }) {
                let Pending::Acknowledged { receipt, ops, position: carried, .. } = pending else { continue };
                position = carried.or(position);
                assert_eq!((receipt.hash, receipt.time), (snapshot.hash, snapshot.time));
                ops.iter().for_each(|op| op.apply(&mut expected));
            }
            // What nobody waited for may be there as well, each once.
            let unawaited = self.pending.extract_if(.., |pending| {
                let Pending::Unawaited { id: other, op } = pending else { return false };
                let mut with = expected.clone();
                op.apply(&mut with);
                let shows = *other == id && found.get(op.key()) == with.get(op.key()) && with != expected;
                if shows {
                    expected = with;
                }
                shows
            });
            self.seen.unawaited += unawaited.count() as u64;
            (expected, position, previous.as_ref().map(|previous| previous.number))
        };
        assert!(found == expected, "{snapshot}: {}", describe(&found, &expected));
        assert_eq!((snapshot.position.clone(), snapshot.parent), (position, parent), "{snapshot}");
        assert_eq!((snapshot.entries, snapshot.stats.files), (expected.len() as u64, expected.len() as u64));
        assert_eq!(snapshot.predecessor, previous.as_ref().map(|previous| previous.hash));
        assert!(previous.is_none_or(|previous| previous.time < snapshot.time));
        self.series[series].snapshots.push((snapshot, expected));
    }

    /// A random moment of a series, by a random client.
    async fn read_past(&mut self) {
        let (repository, fails) = self.client();
        let series = self.pick_series();
        let (key, prefix, kind) = (self.key(), self.prefix(), self.random.below(3));
        let Series { name, snapshots } = &self.series[series];
        let Some((earliest, _)) = snapshots.first() else { return };
        let (latest, _) = snapshots.last().unwrap();
        let (from, to) = (earliest.time.as_nanos() - 2, latest.time.as_nanos() + 2);
        let time = match self.random.below(3) {
            // At, just before and just after one.
            0 => {
                let at = self.random.below(snapshots.len() as u64) as usize;
                snapshots[at].0.time.as_nanos() - 1 + self.random.below(3) as i64
            }
            _ => from + self.random.below((to - from) as u64) as i64,
        };
        let time = Timestamp::from_nanos(time);
        let expected = snapshots.iter().rev().find(|(snapshot, _)| snapshot.time <= time);
        let selector = Selector::AtOrBefore { series: Some(name.clone()), time };
        let read = async {
            let snapshot = match repository.find(&selector).await {
                Err(error) if error.is_not_found() => {
                    assert!(expected.is_none(), "at {time:?}: {error}");
                    return Ok(());
                }
                other => other?,
            };
            let (found, map) = expected.unwrap();
            assert_eq!(snapshot, *found);
            match kind {
                0 => {
                    let entry = repository.entry(&snapshot, &key).await?;
                    assert_eq!(entry.is_some(), map.contains_key(&key), "{key} in {snapshot}");
                    if let Some(entry) = entry {
                        assert_eq!(content_of(&repository, &snapshot, &key, &entry).await?, map[&key]);
                    }
                }
                _ => {
                    let prefix = (kind == 1).then_some(&prefix);
                    let entries: Vec<_> = repository.entries(&snapshot, prefix).try_collect().await?;
                    assert_keys(&entries, map, prefix);
                }
            }
            Ok(())
        };
        let outcome = read.await;
        self.seen.past += 1;
        if let Err(error) = outcome {
            self.failed(fails, &error);
        }
    }

    /// The differences of two snapshots.
    async fn compare(&mut self) {
        let (repository, fails) = self.client();
        let series = self.pick_series();
        let prefix = self.random.chance(0.5).then(|| self.prefix());
        let snapshots = &self.series[series].snapshots;
        if snapshots.is_empty() {
            return;
        }
        let (old, old_map) = &snapshots[self.random.below(snapshots.len() as u64) as usize];
        let (new, new_map) = &snapshots[self.random.below(snapshots.len() as u64) as usize];
        let changes: Result<Vec<Change>> = repository.diff(old, new, prefix.as_ref()).try_collect().await;
        match changes {
            Ok(changes) => {
                let mut expected = differing(old_map, new_map);
                expected.retain(|key| prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix)));
                assert!(changes.iter().map(|change| &change.key).eq(&expected), "{old} to {new}");
                for change in &changes {
                    assert_eq!(change.old.is_some(), old_map.contains_key(&change.key));
                    assert_eq!(change.new.is_some(), new_map.contains_key(&change.key));
                }
            }
            Err(error) => self.failed(fails, &error),
        }
    }

    /// Ends everything and looks at all of it once more, with a handle that has seen nothing.
    async fn finish(&mut self, seed: u64) {
        while !self.feeds.is_empty() {
            self.end_feed().await;
        }
        self.writers.clear();
        self.observe().await;
        let fresh = open(&self.inner).await;
        for Series { name, snapshots } in &self.series {
            let listed = fresh.snapshots(Some(name)).await.unwrap();
            assert!(listed.iter().eq(snapshots.iter().map(|(snapshot, _)| snapshot)));
            for (snapshot, map) in snapshots.iter().rev().take(8) {
                assert!(contents(&fresh, snapshot).await == *map, "{snapshot}");
            }
        }
        if seed.is_multiple_of(4) {
            let report = fresh.check(&CheckOptions::default().with_read_data(1.0), quiet()).await.unwrap();
            assert!(report.is_sound(), "{:#?}", report.findings);
        }
        if seed.is_multiple_of(5)
            && let Some((snapshot, map)) = self.series[0].snapshots.last()
        {
            let start = WriterOptions::default().with_start(Start::Nothing);
            let writer = fresh.writer("from nothing", start).await.unwrap();
            for (key, content) in map {
                writer.put(key, content.clone(), &Metadata::default()).await.unwrap();
            }
            let anew = writer.commit(CommitOptions::default()).await.unwrap();
            assert_eq!(anew.root, snapshot.root, "one content has one root");
        }
    }
}

/// Polls a future so often, with a short pause after each, and drops it then.
async fn give_up_after<T>(polls: u64, mut future: BoxFuture<'_, T>) -> Option<T> {
    for _ in 0..=polls {
        if let std::task::Poll::Ready(done) = futures::poll!(&mut future) {
            return Some(done);
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    None
}

async fn call(feed: &Feed, op: &Op) -> Result<Receipt> {
    match op {
        Op::Put(key, content) => feed.put(key, content.clone(), &Metadata::default()).await,
        Op::Remove(key) => feed.remove(key).await,
        Op::RemovePrefix(key) => feed.remove_prefix(key).await,
    }
}

/// Moves what is at and below a prefix; how many entries that is.
fn rename(map: &mut Map, from: &Key, to: &Key) -> u64 {
    let moved: Vec<_> = map.extract_if(.., |key, _| key.starts_with(from)).collect();
    let count = moved.len() as u64;
    for (key, content) in moved {
        let rest: Vec<_> = key.components().skip(from.depth()).collect();
        map.insert(Key::new(to.components().chain(rest)).unwrap(), content);
    }
    count
}

/// The content at a key as a writer shows it.
async fn read_through(writer: &Writer, key: &Key) -> Result<Option<Vec<u8>>> {
    let mut file = match writer.read_file(key).await {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    match file.read_to_end(&mut bytes).await {
        Ok(_) => Ok(Some(bytes)),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}

async fn content_of(repository: &Repository, snapshot: &Snapshot, key: &Key, entry: &Entry) -> Result<Vec<u8>> {
    if let Payload::Inline(bytes) = &entry.content {
        return Ok(bytes.to_vec());
    }
    let mut bytes = Vec::new();
    match repository.read_file(snapshot, key).await?.read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}

/// The content of every entry of a snapshot.
async fn contents(repository: &Repository, snapshot: &Snapshot) -> Map {
    let entries: Vec<_> = repository.entries(snapshot, None).try_collect().await.unwrap();
    let mut map = Map::new();
    for (key, entry) in entries {
        let content = content_of(repository, snapshot, &key, &entry).await.unwrap();
        map.insert(key, content);
    }
    map
}

/// Entries must be those of a map at and below a prefix, in order and with the right lengths.
fn assert_keys(entries: &[(Key, Entry)], map: &Map, prefix: Option<&Key>) {
    let expected = map.iter().filter(|(key, _)| prefix.is_none_or(|prefix| key.starts_with(prefix)));
    let expected = expected.map(|(key, content)| (key, content.len() as u64));
    assert!(entries.iter().map(|(key, entry)| (key, entry.size)).eq(expected), "below {prefix:?}");
    for (key, entry) in entries {
        if let Payload::Inline(bytes) = &entry.content {
            assert_eq!(bytes[..], map[key][..], "{key}");
        }
    }
}

/// Where a snapshot isn't what it should be.
fn describe(found: &Map, expected: &Map) -> String {
    let length = |map: &Map, key: &Key| map.get(key).map(Vec::len);
    let differing = differing(found, expected);
    let lines = differing
        .iter()
        .map(|key| format!("{key}: {:?} bytes, expected {:?}", length(found, key), length(expected, key)));
    lines.collect::<Vec<_>>().join("\n")
}
