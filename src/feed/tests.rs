//! What happens to a feed from inside the repository: fences, and collections that come between.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::*;
use crate::collection::{Collections, Ended, Plan};
use crate::crypto::{Kind, Secret};
use crate::layout::{self, CommitName, Name};
use crate::object;
use crate::repository::{CreateOptions, OpenOptions};
use crate::snapshot::{Body, Record};
use crate::store::Created;
use crate::testing::stores::{Fault, FaultyStore, Kind as Call, Reply};

const SERIES: &str = "accounts";

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

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

async fn put(feed: &Feed, path: &str, content: &str) -> Result<Receipt> {
    feed.put(&key(path), content.to_owned(), &Metadata::default()).await
}

/// Puts a tombstone at the series' next number, as whoever shuts a writer out does.
async fn fence(repository: &Repository) -> u64 {
    let (tag, timelines) = (repository.keyring().series_tag(SERIES), repository.timelines());
    let tip = match timelines.tip(&tag).await.unwrap().0 {
        Some(name) => Some((name, timelines.read(&name).await.unwrap())),
        None => None,
    };
    let target = match &tip {
        Some((name, _)) => name.next().unwrap(),
        None => CommitName::first(tag),
    };
    let time = tip.as_ref().map_or(Timestamp::EPOCH, |(_, placed)| placed.record.time).next();
    let record = Record {
        series: SERIES.to_owned(),
        number: target.number,
        time,
        clock: time,
        predecessor: tip.map(|(_, placed)| placed.hash),
        body: Body::Tombstone,
        extensions: Default::default(),
    };
    let name = Name::Commit(target).to_string();
    let (keyring, surroundings) = (repository.keyring(), repository.surroundings());
    let sealed = object::seal_record(&record, Kind::Snapshot, &name, keyring, surroundings).unwrap();
    assert_eq!(repository.store().create(&name, sealed.into()).await.unwrap(), Created::Ours);
    target.number
}

/// The paths of the latest snapshot, as a stranger sees it.
async fn paths(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let repository = open(store).await;
    let tag = repository.keyring().series_tag(SERIES);
    let latest = repository.timelines().latest(&tag, None).await.unwrap().unwrap();
    let reader = Arc::clone(repository.reader_of(&latest));
    let entries = crate::tree::range(reader, &latest.root, crate::tree::Span::of(None), 1);
    entries.map_ok(|(key, _)| key.to_string()).try_collect().await.unwrap()
}

async fn writers(repository: &Repository) -> usize {
    let registered = crate::registration::registered(repository.store(), repository.keyring()).await.unwrap();
    registered.iter().filter(|writer| !writer.has_ended).count()
}

/// A store that denies puts under `prefix` while it is told to.
fn denying(inner: &Arc<dyn ObjectStore>, prefix: &'static str) -> (Arc<dyn ObjectStore>, Arc<AtomicBool>) {
    let denied = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&denied);
    let faulty = FaultyStore::new(Arc::clone(inner), move |call| {
        let hit = call.kind == Call::Put && call.name.starts_with(prefix);
        (hit && switch.load(Ordering::SeqCst)).then_some(Fault { done: false, reply: Reply::Denied })
    });
    (faulty.shared(), denied)
}

/// Begins to put a content, so that chunks of it are with the next writer; it ends when the stream is dropped.
async fn put_slowly(feed: &Feed, path: &'static str) -> (DuplexStream, JoinHandle<Result<Receipt>>) {
    let (mut sender, receiver) = tokio::io::duplex(1 << 20);
    let feed_of_task = feed.clone();
    let put = tokio::spawn(async move { feed_of_task.put_reader(&key(path), receiver, &Metadata::default()).await });
    let mut noise = vec![0; 1 << 20];
    blake3::Hasher::new().update(path.as_bytes()).finalize_xof().fill(&mut noise);
    sender.write_all(&noise).await.unwrap();
    while feed.shared().chunks.is_empty().await {
        tokio::task::yield_now().await;
    }
    (sender, put)
}

async fn assert_sound(store: &Arc<dyn ObjectStore>) {
    let (options, progress) = (crate::check::CheckOptions::default(), Arc::new(crate::progress::NoProgress));
    let report = open(store).await.check(&options, progress).await.unwrap();
    assert_eq!(report.defects, 0, "{:?}", report.findings);
}

#[tokio::test]
async fn a_feed_that_is_shut_out_registers_anew_and_loses_nothing() {
    let store = memory();
    let repository = create(&store).await;
    let feed = repository.feed(SERIES, FeedOptions::default()).await.unwrap();
    assert_eq!(fence(&repository).await, 1);
    let mut batch = Batch::new();
    batch.put(&key("a"), "a", &Metadata::default()).at_position("1");
    assert_eq!(feed.apply(batch).await.unwrap().number, 2);
    for (fences, path) in [(1, "b"), (3, "c")] {
        for _ in 0..fences {
            fence(&repository).await;
        }
        put(&feed, path, path).await.unwrap();
        assert_eq!(writers(&repository).await, 1);
    }
    let last = feed.close().await.unwrap().unwrap();
    assert_eq!((last.number, last.entries, last.parent), (8, 3, Some(4)));
    assert_eq!(last.position.as_deref(), Some(b"1".as_slice()));
    assert_eq!((paths(&store).await, writers(&repository).await), (["a", "b", "c"].map(str::to_owned).to_vec(), 0));
}

#[tokio::test]
async fn a_fence_settles_a_commit_whose_outcome_is_not_known() {
    let store = memory();
    let repository = create(&store).await;
    // From the second record on they fail, and nobody is told whether they are there.
    let (failing, puts) = (Arc::new(AtomicBool::new(true)), AtomicU64::new(0));
    let switch = Arc::clone(&failing);
    let faulty = FaultyStore::new(Arc::clone(&store), move |call| {
        let record = call.kind == Call::Put && call.name.starts_with("commits/");
        let later = record && puts.fetch_add(1, Ordering::SeqCst) > 0;
        (later && switch.load(Ordering::SeqCst)).then_some(Fault::BEFORE)
    });
    let faulty_store = faulty.shared();
    let options = FeedOptions::default().with_interval(Duration::ZERO);
    let feed = open(&faulty_store).await.feed(SERIES, options).await.unwrap();
    assert_eq!(put(&feed, "a", "x").await.unwrap().number, 1);
    let pending = tokio::spawn({
        let feed = feed.clone();
        async move { put(&feed, "b", "x").await }
    });
    while faulty.injected() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fence(&repository).await, 2);
    failing.store(false, Ordering::SeqCst);
    assert_eq!(pending.await.unwrap().unwrap().number, 3);
    feed.close().await.unwrap();
    assert_eq!(paths(&store).await, ["a", "b"]);
}

#[tokio::test]
async fn contents_begun_before_a_collection_are_looked_for_under_a_new_registration() {
    let store = memory();
    let repository = create(&store).await;
    let feed = repository.feed(SERIES, FeedOptions::default()).await.unwrap();
    // Something that the next content is found to be stored with.
    let (sender, first) = put_slowly(&feed, "twice").await;
    drop(sender);
    first.await.unwrap().unwrap();
    let collections = Collections::new(repository.parts().clone());
    let mut packs = repository.store().list(layout::PACKS).await.unwrap();
    for (number, path, condemned) in [(1, "new", false), (2, "twice", true), (3, "twice", false)] {
        let (sender, slow) = put_slowly(&feed, path).await;
        // One that is open, or has ended.
        let mut plan = Plan::default();
        if condemned {
            let ids = packs.drain(..).filter_map(|listed| match Name::parse(&listed.name) {
                Some(Name::Pack(id)) => Some(id),
                _ => None,
            });
            plan.packs = ids.collect();
            plan.packs.sort_unstable();
        }
        let before = collections.standing().await.unwrap();
        assert_eq!(collections.begin(&before, plan).await.unwrap(), Some(number));
        if !condemned {
            collections.end(number, Ended::default()).await.unwrap();
        }
        fence(&repository).await;
        put(&feed, "renews", path).await.unwrap();
        drop(sender);
        let slow = slow.await.unwrap();
        assert_eq!(slow.as_ref().is_err_and(Error::is_conflict), condemned, "{number}: {slow:?}");
        if condemned {
            collections.end(number, Ended::default()).await.unwrap();
        }
    }
    feed.close().await.unwrap();
    assert_eq!(paths(&store).await, ["new", "renews", "twice"]);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_registration_that_cannot_be_renewed_costs_no_content_that_is_on_its_way() {
    let store = memory();
    let repository = create(&store).await;
    let (faulty, denied) = denying(&store, "writers/");
    let feed = open(&faulty).await.feed(SERIES, FeedOptions::default()).await.unwrap();
    let (sender, slow) = put_slowly(&feed, "slow").await;
    denied.store(true, Ordering::SeqCst);
    fence(&repository).await;
    assert!(put(&feed, "a", "x").await.is_err());
    assert!(put(&feed, "large", &"x".repeat(100_000)).await.is_err());
    denied.store(false, Ordering::SeqCst);
    drop(sender);
    slow.await.unwrap().unwrap();
    feed.close().await.unwrap();
    assert_eq!(paths(&store).await, ["slow"]);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_content_some_of_which_was_lost_is_not_committed() {
    let store = memory();
    create(&store).await;
    let (faulty, denied) = denying(&store, "packs/");
    let options = FeedOptions::default().with_interval(Duration::from_millis(200));
    let feed = open(&faulty).await.feed(SERIES, options).await.unwrap();
    let (sender, slow) = put_slowly(&feed, "slow").await;
    denied.store(true, Ordering::SeqCst);
    let large = "x".repeat(100_000);
    let together = futures::join!(put(&feed, "large", &large), put(&feed, "small", "x"));
    assert!(together.0.is_err() && together.1.is_err());
    denied.store(false, Ordering::SeqCst);
    drop(sender);
    let error = slow.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("not applied"), "{error}");
    let (after, late) = futures::join!(put(&feed, "after", &large), put(&feed, "late", "x"));
    assert_eq!(after.unwrap(), late.unwrap());
    feed.close().await.unwrap();
    assert_eq!(paths(&store).await, ["after", "late"]);
    assert_sound(&store).await;
}

/// What is in the place of a folder or mount that has gone is no repository: nothing that is put there is acknowledged.
#[tokio::test]
async fn where_the_repository_has_gone_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, elsewhere) = (dir.path().join("repository"), dir.path().join("unmounted"));
    let repository = Repository::create(folder.as_path(), &secret(), CreateOptions::default()).await.unwrap();
    let feed = Arc::new(repository.feed(SERIES, FeedOptions::default()).await.unwrap());
    put(&feed, "ana", "one").await.unwrap();

    std::fs::rename(&folder, &elsewhere).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let mut waiting = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { put(&feed, "ben", "two").await }
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "it waits for the store");
    std::fs::remove_dir(&folder).expect("nothing was put there");
    std::fs::rename(&elsewhere, &folder).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().number, 2);
}

mod rotation;
