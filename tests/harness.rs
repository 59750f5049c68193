//! The test harness, tested: a store that lies about what it counts, or a
//! comparison that overlooks something, would make every other test worthless.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{
    CountingStore, Fault, FaultyStore, Kind, OverwritingStore, Reply, S3Server, SlowStore, TracingStore, compare_trees,
    make_tree,
};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path as Name;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

async fn create(store: &dyn ObjectStore, name: &str, content: &str) -> object_store::Result<()> {
    let payload = PutPayload::from(content.to_owned());
    store.put_opts(&Name::from(name), payload, PutMode::Create.into()).await.map(drop)
}

async fn content(store: &dyn ObjectStore, name: &str) -> Vec<u8> {
    store.get(&Name::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

#[tokio::test]
async fn the_s3_server_creates_once_reads_lists_and_deletes() {
    let server = S3Server::start();
    let store = server.store();
    create(&store, "folder/a", "first").await.unwrap();
    let again = create(&store, "folder/a", "second").await.unwrap_err();
    assert!(matches!(again, Error::AlreadyExists { .. }), "{again}");
    assert_eq!(content(&store, "folder/a").await, b"first");
    assert_eq!(store.get_range(&Name::from("folder/a"), 1..4).await.unwrap(), "irs");
    create(&store, "folder/b/c", &"x".repeat(3_000_000)).await.unwrap();
    assert_eq!(store.head(&Name::from("folder/b/c")).await.unwrap().size, 3_000_000);

    let list =
        |prefix: &str| store.list(Some(&Name::from(prefix))).map_ok(|meta| meta.location.to_string()).try_collect();
    let mut names: Vec<String> = list("folder").await.unwrap();
    names.sort();
    assert_eq!(names, ["folder/a", "folder/b/c"]);
    let listed = store.list_with_delimiter(Some(&Name::from("folder"))).await.unwrap();
    assert_eq!((listed.objects.len(), listed.common_prefixes), (1, vec![Name::from("folder/b")]));

    store.delete(&Name::from("folder/a")).await.unwrap();
    let gone = store.get(&Name::from("folder/a")).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound { .. }), "{gone}");
    create(&store, "folder/a", "third").await.unwrap();

    let forged = server.store_as(S3Server::ACCESS_KEY, "wrong");
    let refused = forged.get(&Name::from("folder/a")).await.unwrap_err();
    assert!(matches!(refused, Error::PermissionDenied { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_that_create_one_name_on_the_s3_server_one_wins() {
    let server = S3Server::start();
    let store = server.store();
    for round in 0..3 {
        let name = format!("race/{round}");
        let race = (0..50).map(|racer| {
            let (store, name) = (Arc::clone(&store), name.clone());
            tokio::spawn(async move { create(&store, &name, &racer.to_string()).await })
        });
        let mut winners = Vec::new();
        for (number, racer) in race.collect::<Vec<_>>().into_iter().enumerate() {
            match racer.await.unwrap() {
                Ok(()) => winners.push(number),
                Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(content(&store, &name).await, winners[0].to_string().into_bytes());
    }
}

#[tokio::test]
async fn calls_and_bytes_are_counted() {
    let store = CountingStore::new(memory());
    let shared = store.shared();
    create(&shared, "a/1", "12345").await.unwrap();
    create(&shared, "a/1", "12345").await.unwrap_err();
    content(&shared, "a/1").await;
    shared.get_range(&Name::from("a/1"), 0..2).await.unwrap();
    shared.get_ranges(&Name::from("a/1"), &[0..1, 2..3]).await.unwrap();
    shared.head(&Name::from("a/1")).await.unwrap();
    shared.list(None).try_collect::<Vec<_>>().await.unwrap();
    shared.delete(&Name::from("a/1")).await.unwrap();
    let counts = store.take();
    let of = [Kind::Put, Kind::Get, Kind::Head, Kind::List, Kind::Delete, Kind::Copy].map(|kind| counts.of(kind));
    assert_eq!(of, [2, 3, 1, 1, 1, 0]);
    assert_eq!((counts.bytes_written, counts.bytes_read), (10, 5 + 2 + 3));
    assert_eq!(counts.under(Kind::Put, "a/"), 2);
    assert_eq!(store.take().total(), 0);

    for number in 0..2001 {
        create(&shared, &format!("b/{number}"), "").await.unwrap();
    }
    store.take();
    assert_eq!(shared.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 2001);
    assert_eq!(store.take().of(Kind::List), 3, "one request for each thousand");
}

#[tokio::test]
async fn faults_come_before_or_after_the_deed() {
    let inner = memory();
    let unknown = |result: object_store::Result<()>| matches!(result, Err(Error::Generic { .. }));
    let store = FaultyStore::nth(Arc::clone(&inner), Kind::Put, "a/", 1, Fault::BEFORE);
    create(&store, "a/0", "").await.unwrap();
    create(&store, "b/0", "").await.unwrap();
    assert!(unknown(create(&store, "a/1", "").await));
    create(&store, "a/1", "").await.unwrap();
    assert_eq!(store.injected(), 1);

    let store = FaultyStore::nth(Arc::clone(&inner), Kind::Put, "", 0, Fault::AFTER);
    assert!(unknown(create(&store, "a/2", "done").await));
    assert_eq!(content(&store, "a/2").await, b"done");

    let exists = Fault { done: false, reply: Reply::Exists };
    let store = FaultyStore::nth(Arc::clone(&inner), Kind::Put, "", 0, exists);
    assert!(matches!(create(&store, "a/3", "").await, Err(Error::AlreadyExists { .. })));
    create(&store, "a/3", "").await.unwrap();

    let store = FaultyStore::nth(Arc::clone(&inner), Kind::List, "", 0, Fault::BEFORE);
    assert!(store.list(None).try_collect::<Vec<_>>().await.is_err());
    assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 5);

    let store = FaultyStore::nth(Arc::clone(&inner), Kind::Delete, "a/3", 0, Fault::HANG);
    store.delete(&Name::from("a/2")).await.unwrap();
    tokio::time::timeout(Duration::from_millis(20), store.delete(&Name::from("a/3"))).await.unwrap_err();

    let store = FaultyStore::dead_after(inner, 1);
    create(&store, "c", "").await.unwrap();
    assert!(matches!(store.get(&Name::from("c")).await, Err(Error::PermissionDenied { .. })));
}

#[tokio::test]
async fn seeded_faults_are_the_same_in_every_run() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let store = FaultyStore::seeded(memory(), seed, 0.3);
        let mut failed = Vec::new();
        for number in 0..200 {
            failed.push(create(&store, &number.to_string(), "").await.is_err());
        }
        assert!((30..90).contains(&store.injected()), "{}", store.injected());
        runs.push(failed);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn the_overwriting_store_overwrites() {
    let store = OverwritingStore::new(memory());
    create(&store, "a", "first").await.unwrap();
    create(&store, "a", "second").await.unwrap();
    assert_eq!(content(&store, "a").await, b"second");
}

#[tokio::test(start_paused = true)]
async fn the_slow_store_tells_how_many_requests_follow_one_another() {
    let store = SlowStore::new(memory(), Duration::from_millis(50));
    let begin = tokio::time::Instant::now();
    create(&store, "a", "").await.unwrap();
    let (one, two) = futures::join!(create(&store, "b", ""), create(&store, "c", ""));
    one.and(two).unwrap();
    assert_eq!(begin.elapsed().as_millis() / 50, 2);
}

#[tokio::test(start_paused = true)]
async fn the_tracing_store_tells_the_longest_chain() {
    let latency = Duration::from_millis(50);
    let store = TracingStore::new(memory(), latency);
    create(&store, "a/0", "12345").await.unwrap();
    // Three at once, of which one goes on twice: first with a failure, then with a listing of one page.
    let long = async {
        create(&store, "a/1", "x").await.unwrap();
        create(&store, "a/1", "y").await.unwrap_err();
        store.list(None).try_collect::<Vec<_>>().await.unwrap();
    };
    futures::join!(long, get(&store), get(&store));
    let trace = store.take();
    assert_eq!((trace.round_trips(), trace.elapsed), (4, 4 * latency));
    let chain: Vec<_> = trace.chain.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(chain.len(), 4, "{chain:?}");
    assert_eq!((chain[0], chain[3]), (Kind::Put, Kind::List));
    assert_eq!((trace.counts.total(), trace.counts.bytes_written, trace.counts.bytes_read), (6, 7, 10));
    assert!(trace.took.len() == 6 && trace.took.iter().all(|(_, took)| *took == latency), "{:?}", trace.took);
    assert_eq!((store.take().counts.total(), store.take().chain.len()), (0, 0));

    // Half a round trip apart: the chain goes by what was over, the time by what was waited for.
    let late = async {
        tokio::time::sleep(latency / 2).await;
        store.head(&Name::from("a/0")).await.unwrap();
        store.head(&Name::from("a/1")).await.unwrap();
    };
    futures::join!(late, get(&store), get(&store));
    let trace = store.take();
    assert_eq!((trace.chain.len(), trace.elapsed), (2, latency * 5 / 2));

    // A call that is given up is over; each page of a listing is a round trip.
    tokio::time::timeout(latency / 2, store.head(&Name::from("a/0"))).await.unwrap_err();
    store.head(&Name::from("a/0")).await.unwrap();
    assert_eq!(store.take().chain.len(), 2);
    for number in 0..1_500 {
        create(&store, &format!("b/{number}"), "").await.unwrap();
    }
    assert_eq!(store.take().chain.len(), 1_500);
    store.list(Some(&Name::from("b"))).try_collect::<Vec<_>>().await.unwrap();
    let trace = store.take();
    assert_eq!((trace.chain.len(), trace.round_trips()), (2, 2));
}

async fn get(store: &TracingStore) {
    content(store, "a/0").await;
}

/// Makes one tree twice, changes the second by `change`, and returns the differences.
fn differences(change: impl FnOnce(&Path)) -> Vec<String> {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_tree(a.path(), 7);
    make_tree(b.path(), 7);
    change(b.path());
    compare_trees(a.path(), b.path())
}

#[test]
fn a_tree_is_made_the_same_twice_and_left_out_is_said() {
    assert_eq!(differences(|_| ()), Vec::<String>::new());
    let folder = tempfile::tempdir().unwrap();
    let left_out = make_tree(folder.path(), 7);
    if rustix::process::geteuid().is_root() {
        println!("left out: {left_out:?}");
        assert!(
            left_out.iter().all(|what| !what.contains("access list") || what.contains("not supported")),
            "{left_out:?}"
        );
    }
}

#[test]
fn every_change_in_a_tree_is_noticed() {
    let found = differences(|root| {
        let keep_time = |name: &str, change: &dyn Fn(&Path)| {
            let path = root.join(name);
            let time = fs::symlink_metadata(&path).unwrap().modified().unwrap();
            change(&path);
            if let Ok(file) = fs::File::open(&path) {
                file.set_modified(time).unwrap();
            }
        };
        keep_time("files/small.txt", &|path| fs::write(path, "A small file\n").unwrap());
        keep_time("files/one byte", &|path| fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).unwrap());
        keep_time("sparse/islands", &|path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, bytes).unwrap();
        });
        let nothing = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(root.join("attributes/file"), "user.text", b"other text", nothing).unwrap();
        rustix::fs::lremovexattr(root.join("attributes/file"), "user.empty").unwrap();
        fs::File::open(root.join("files/empty")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::write(root.join("files/new"), "").unwrap();
        fs::remove_file(root.join("files/zeros")).unwrap();
        fs::remove_file(root.join("links/dangling")).unwrap();
        symlink("elsewhere", root.join("links/dangling")).unwrap();
        fs::remove_file(root.join("links/hard/second")).unwrap();
        fs::copy(root.join("links/hard/first"), root.join("links/hard/second")).unwrap();
    });
    let expected = [
        "files/small.txt: content was",
        "files/one byte: mode was",
        "sparse/islands: took",
        "attributes/file: attribute user.text was some text, is other text",
        "attributes/file: attribute user.empty was , is nothing",
        "files/empty: modified was",
        "files/new: is new",
        "files/zeros: is missing",
        "links/dangling: target was nowhere/at all, is elsewhere",
        "links/hard/second: hard link was",
    ];
    for text in expected {
        assert!(found.iter().any(|line| line.starts_with(text)), "{text} is not in {found:#?}");
    }
}
