//! A repository's life, cut off at every call to its store: failing before the call is carried out, failing after it,
//! and dying there.
//!
//! After each, the repository opens and is sound, what was committed is there byte for byte, the operation that was cut
//! off succeeds when it is run again, the life goes on, and a collection in the end leaves nothing that isn't needed.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backstop::{
    CheckOptions, CommitOptions, CreateOptions, Error, FeedOptions, ForgetOptions, GcOptions, Key, Metadata,
    OpenOptions, Repository, Result, Secret, Snapshot, WriterOptions,
};
use common::{Fault, FaultyStore, Random, Reply};
use futures::StreamExt;
use helpers::{contents, memory, names, open, quiet, secret};
use object_store::{ObjectStore, ObjectStoreExt};

type Contents = BTreeMap<Key, Vec<u8>>;

/// Cases at a time.
const AT_ONCE: usize = 4;

/// How the call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    FailsBefore,
    FailsAfter,
    /// It and all that follow are never made.
    Dies,
}

/// An operation of the life, as it is run by a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    /// A commit of a writer; what is put depends on the number.
    Write(u64),
    /// Three commits of a feed.
    Feed(u64),
    CopyKey,
    Forget(u64),
    Undelete(u64),
    Collect,
    Merge,
}

const LIFE: &[Step] = &[
    Step::Create,
    Step::Write(1),
    Step::Write(2),
    Step::CopyKey,
    Step::Feed(3),
    Step::Forget(1),
    Step::Collect,
    Step::Write(4),
    Step::Forget(2),
    Step::Undelete(2),
    Step::Forget(4),
    Step::Collect,
    Step::Write(5),
];

/// Of a repository that is there and has many small packs, most of which are of snapshots that were forgotten.
const LATER_LIFE: &[Step] =
    &[Step::Merge, Step::Write(3), Step::Forget(COMMITS), Step::Collect, Step::Merge, Step::Write(5)];

/// Commits of a feed before that.
const COMMITS: u64 = 40;

/// The series of all steps.
const SERIES: &str = "accounts";

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

/// What a writer puts: some of it is the same each time, and some of it large.
fn puts(number: u64) -> Contents {
    let mut random = Random::new(number);
    BTreeMap::from([
        (key("same"), Random::new(99).bytes(30_000)),
        (key("photo"), random.bytes(40_000)),
        (key(&format!("card {number}")), random.text(300)),
        (key(&format!("old {}", number % 2)), Random::new(number % 2).bytes(20_000)),
    ])
}

fn options() -> GcOptions {
    GcOptions::default().with_wait(Duration::ZERO).with_fence_after(Duration::ZERO)
}

async fn run(step: Step, store: &Arc<dyn ObjectStore>) -> Result<()> {
    let opened = async || Repository::open(Arc::clone(store), &secret(), OpenOptions::default()).await;
    match step {
        Step::Create => match Repository::create(Arc::clone(store), &secret(), CreateOptions::default()).await {
            // A creation that was cut off may have come to its end.
            Err(error) if error.is_conflict() => opened().await.map(drop),
            other => other.map(drop),
        },
        Step::Write(number) => {
            let writer = opened().await?.writer(SERIES, WriterOptions::default()).await?;
            for (key, content) in puts(number) {
                writer.put(&key, content, &Metadata::default()).await?;
            }
            writer.commit(CommitOptions::default()).await.map(drop)
        }
        Step::Feed(number) => {
            let options = FeedOptions::default().with_interval(Duration::ZERO).with_deadline(Duration::from_secs(5));
            let feed = opened().await?.feed(SERIES, options).await?;
            for (key, content) in puts(number).into_iter().take(3) {
                feed.put(&key, content, &Metadata::default()).await?;
            }
            feed.close().await.map(drop)
        }
        Step::CopyKey => {
            let repository = opened().await?;
            match repository.add_append_only_key(&Secret::key([8; 32]), "a copy").await {
                // It was added before the crash.
                Err(Error::Conflict { .. }) => Ok(()),
                outcome => outcome.map(drop),
            }
        }
        Step::Forget(number) => {
            let repository = opened().await?;
            if !repository.snapshots(Some(SERIES)).await?.iter().any(|snapshot| snapshot.number == number) {
                return Ok(());
            }
            let options = ForgetOptions::default().with_undelete_for(window(number)).with_snapshot(SERIES, number);
            repository.forget(&repository.plan_forget(&options).await?).await.map(drop)
        }
        Step::Undelete(number) => opened().await?.undelete(SERIES, number).await.map(drop),
        Step::Collect => {
            let repository = opened().await?;
            for _ in 0..3 {
                let plan = repository.plan_gc(&options()).await?;
                let resumed = plan.unfinished.is_some();
                let report = repository.gc(plan, quiet()).await?;
                if !report.finished {
                    let reason = format!("{report:?}");
                    return Err(Error::Conflict { object: "the collection".to_owned(), reason });
                }
                if !resumed {
                    break;
                }
            }
            Ok(())
        }
        Step::Merge => {
            let repository = opened().await?;
            let plan = repository.plan_merge().await?;
            repository.merge(&plan).await.map(drop)
        }
    }
}

/// The one that is undeleted is kept for that long.
fn window(number: u64) -> Duration {
    if number == 2 { Duration::from_secs(3600) } else { Duration::ZERO }
}

/// What the snapshots of a series must hold, by what was put on top of what.
#[derive(Clone, Default)]
struct Expected {
    /// By number; more than one where it isn't known what was committed.
    known: BTreeMap<u64, Contents>,
}

impl Expected {
    /// Takes note of what is there, and checks that what was known is still there unless it was forgotten.
    async fn observe(&mut self, repository: &Repository, forgotten: &[u64], what: &str) -> Vec<Snapshot> {
        let snapshots = repository.snapshots(Some(SERIES)).await.unwrap();
        for number in self.known.keys().filter(|number| !forgotten.contains(number)) {
            assert!(snapshots.iter().any(|snapshot| snapshot.number == *number), "{what}: #{number} is gone");
        }
        for snapshot in &snapshots {
            let found = contents(repository, snapshot).await;
            let known = self.known.entry(snapshot.number).or_insert_with(|| found.clone());
            assert_eq!(&found, known, "{what}: {snapshot}");
        }
        snapshots
    }
}

async fn assert_sound(repository: &Repository, what: &str) {
    let report = repository.check(&CheckOptions::default().with_read_data(100.0), quiet()).await.unwrap();
    assert!(report.is_sound(), "{what}: {:#?}", report.findings);
}

/// Everything that a store holds.
type Objects = Arc<BTreeMap<String, Vec<u8>>>;

/// A repository with many small packs.
async fn fragmented() -> Objects {
    let store = memory();
    let repository = helpers::create(&store).await;
    let options = FeedOptions::default().with_interval(Duration::ZERO);
    let feed = repository.feed(SERIES, options).await.unwrap();
    for number in 1..=COMMITS {
        let content = Random::new(number).bytes(3_000);
        feed.put(&key(&format!("photo {}", number % 7)), content, &Metadata::default()).await.unwrap();
    }
    feed.close().await.unwrap();
    let forgets = (1..COMMITS - 1).fold(ForgetOptions::default(), |all, number| all.with_snapshot(SERIES, number));
    let plan = repository.plan_forget(&forgets.with_undelete_for(Duration::ZERO)).await.unwrap();
    repository.forget(&plan).await.unwrap();
    assert!(repository.plan_merge().await.unwrap().is_due());
    Arc::new(helpers::dump(&store).await)
}

/// Lives through it all, the `k`-th call going wrong; whether there were so many.
async fn live(life: &[Step], begin: Objects, k: u64, crash: Option<Crash>) -> bool {
    let what = format!("call {k}, {crash:?}");
    let inner = memory();
    for (name, bytes) in begin.iter() {
        inner.put(&name.as_str().into(), bytes.clone().into()).await.unwrap();
    }
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let faulty = FaultyStore::new(Arc::clone(&inner), move |_| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        match crash? {
            Crash::FailsBefore => (number == k).then_some(Fault::BEFORE),
            Crash::FailsAfter => (number == k).then_some(Fault::AFTER),
            Crash::Dies => (number >= k).then_some(Fault { done: false, reply: Reply::Denied }),
        }
    });
    let (mut expected, mut forgotten, mut store) = (Expected::default(), Vec::new(), faulty.shared());
    let mut hit = false;
    for step in life {
        if let Step::Forget(number) = step {
            forgotten.push(*number);
        }
        let before = calls.load(Ordering::SeqCst);
        let outcome = run(*step, &store).await;
        let was_hit = !hit && crash.is_some() && calls.load(Ordering::SeqCst) > k && before <= k;
        if !was_hit {
            outcome.unwrap_or_else(|error| panic!("{what}, {step:?}: {error:?}"));
            continue;
        }
        hit = true;
        let what = format!("{what}, in {step:?} ({:?})", outcome.as_ref().err().map(ToString::to_string));
        if crash != Some(Crash::Dies) {
            // What a client can't tell from a short outage it tries again by itself.
            assert!(outcome.is_ok() || matches!(step, Step::Create), "{what}");
        }
        store = Arc::clone(&inner);
        if outcome.is_err() && *step == Step::Create {
            run(*step, &store).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
        }
        let repository = open(&store).await;
        expected.observe(&repository, &forgotten, &what).await;
        assert_sound(&repository, &what).await;
        if outcome.is_err() && *step != Step::Create {
            run(*step, &store).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
        }
        assert_sound(&open(&store).await, &format!("{what}, made good")).await;
    }
    let repository = open(&inner).await;
    let snapshots = expected.observe(&repository, &forgotten, &what).await;
    assert!(
        snapshots.last().is_some_and(|last| expected.known[&last.number][&key("card 5")] == puts(5)[&key("card 5")])
    );
    run(Step::Collect, &inner).await.unwrap();
    assert_clean(&inner, &what).await;
    expected.observe(&open(&inner).await, &forgotten, &what).await;
    hit
}

/// Nothing is there that isn't needed.
async fn assert_clean(store: &Arc<dyn ObjectStore>, what: &str) {
    let repository = open(store).await;
    let plan = repository.plan_gc(&options().with_waste_max(1.0)).await.unwrap();
    assert!(plan.packs.is_empty() && plan.unfinished.is_none() && plan.forgotten == 0, "{what}: {plan:?}");
    let report = repository.check(&CheckOptions::default(), quiet()).await.unwrap();
    assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
    for (prefix, most) in [("writers", 2), ("gc", 2), ("kept", 1)] {
        let left = names(store, prefix).await;
        assert!(left.len() <= most, "{what}: {left:?}");
    }
}

async fn at_every_call(life: &'static [Step], begin: Objects, crash: Crash) {
    live(life, Arc::clone(&begin), 0, None).await;
    let mut cases = futures::stream::iter(0u64..)
        .map(|k| {
            let begin = Arc::clone(&begin);
            tokio::spawn(async move { (k, live(life, begin, k, Some(crash)).await) })
        })
        .buffered(AT_ONCE);
    let mut last = 0;
    while let Some(case) = cases.next().await {
        let (k, hit) = case.unwrap();
        if !hit {
            last = k;
            break;
        }
    }
    assert!(last > 100, "the life makes {last} calls");
}

async fn at_every_call_of_all(crash: Crash) {
    at_every_call(LIFE, Objects::default(), crash).await;
    at_every_call(LATER_LIFE, fragmented().await, crash).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_before_it_is_done() {
    at_every_call_of_all(Crash::FailsBefore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_after_it_was_done() {
    at_every_call_of_all(Crash::FailsAfter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_there() {
    at_every_call_of_all(Crash::Dies).await;
}
