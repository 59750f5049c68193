//! One suite over every kind of store, and the stores that are refused.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::io::SeekFrom;
use std::sync::Arc;

use backstop::{
    BackupOptions, CheckOptions, CreateOptions, Entry, Error, Key, KeyKind, Location, OpenOptions, Repository,
    RestoreOptions, Secret, Selector, Timestamp,
};
use common::{OverwritingStore, Random, S3Server, compare_trees};
use futures::TryStreamExt;
use helpers::{Folder, backup_with, contents, create, memory, names, open, quiet, running, secret, series};
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Everything that a repository is asked for, at `location`, where nothing is yet.
async fn suite(location: Location) {
    let (folder, mut random) = (Folder::new(), Random::new(1));
    folder.write("text", random.text(200_000));
    folder.write("noise", random.bytes(900_000));
    folder.write("small/file", "a small file");

    let missing = Repository::open(location.clone(), &secret(), OpenOptions::default()).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let options = CreateOptions::default().with_label("in the safe");
    let made = Repository::create(location.clone(), &secret(), options).await.unwrap();
    let again = Repository::create(location.clone(), &secret(), CreateOptions::default()).await.unwrap_err();
    assert!(again.is_conflict(), "{again}");
    let wrong = Repository::open(location.clone(), &Secret::key([8; 32]), OpenOptions::default()).await;
    assert!(matches!(wrong, Err(Error::WrongSecret { slots: 1 })), "{wrong:?}");

    let repository = Repository::open(location.clone(), &secret(), OpenOptions::default()).await.unwrap();
    assert_eq!(repository.id(), made.id());
    secrets(&repository, &location).await;
    let first = backup_with(&repository, &folder, &series("a")).await.snapshot.unwrap();
    let before = folder.files();
    folder.write("small/file", "a small file, changed");
    folder.write("small/new", "new");
    folder.remove("text");
    let options = series("a").with_host("here").with_tag("key", "value");
    let second = backup_with(&repository, &folder, &options).await.snapshot.unwrap();
    let other = backup_with(&repository, &folder, &series("b")).await.snapshot.unwrap();
    assert_eq!(other.stats.stored_bytes, 0);

    let reopened = Repository::open(location, &secret(), OpenOptions::default()).await.unwrap();
    assert_eq!(contents(&reopened, &first).await, before);
    assert_eq!(contents(&reopened, &second).await, folder.files());
    finding(&reopened, [&first, &second, &other]).await;
    differing(&reopened, &folder, &first, &second).await;
    let mut reader = reopened.read_file(&second, &folder.key("noise")).await.unwrap();
    reader.seek(SeekFrom::End(-100_000)).await.unwrap();
    let mut tail = Vec::new();
    reader.read_to_end(&mut tail).await.unwrap();
    assert!(tail == folder.files()[&folder.key("noise")][800_000..]);

    let to = tempfile::tempdir().unwrap();
    let prefix = Key::from_path(folder.path().to_str().unwrap()).unwrap();
    let restored = reopened.restore(&second, Some(&prefix), to.path(), &RestoreOptions::default(), quiet()).await;
    assert!(restored.unwrap().failures.is_empty());
    assert_eq!(compare_trees(folder.path(), to.path()), Vec::<String>::new());
    let checked = reopened.check(&CheckOptions::default().with_read_data(100.0), quiet()).await.unwrap();
    assert!(checked.is_sound(), "{:?}", checked.findings);
    assert_eq!(checked.snapshots, 3);
    let stats = reopened.stats().await.unwrap();
    assert_eq!((stats.snapshots.objects, stats.series, stats.writers.objects, stats.foreign.objects), (3, 2, 0, 0));
}

/// Adds, lists and removes keys.
async fn secrets(repository: &Repository, location: &Location) {
    let opens = async |secret: &Secret| Repository::open(location.clone(), secret, OpenOptions::default()).await;
    let passphrase = Secret::passphrase("correct horse");
    let added = repository.add_key(&passphrase, "for people").await.unwrap();
    assert_eq!((added.kind, added.label.as_str()), (KeyKind::Passphrase, "for people"));
    let third = repository.add_key(&Secret::key([9; 32]), "spare").await.unwrap();
    let listed = repository.keys().await.unwrap();
    let labels: Vec<_> = listed.iter().map(|key| (key.label.as_str(), key.current)).collect();
    assert_eq!(labels, [("in the safe", true), ("for people", false), ("spare", false)]);

    let by_passphrase = opens(&passphrase).await.unwrap();
    assert_eq!(by_passphrase.id(), repository.id());
    let current = by_passphrase.keys().await.unwrap().into_iter().find(|key| key.current).unwrap();
    assert_eq!(current.id, added.id);
    assert!(matches!(opens(&Secret::passphrase("wrong")).await, Err(Error::WrongSecret { slots: 3 })));
    repository.remove_key(&added.id).await.unwrap();
    repository.remove_key(&third.id).await.unwrap();
    assert!(matches!(opens(&passphrase).await, Err(Error::WrongSecret { slots: 1 })));
    assert!(repository.remove_key(&added.id).await.unwrap_err().is_not_found());
    let last = &repository.keys().await.unwrap()[0];
    assert!(matches!(repository.remove_key(&last.id).await, Err(Error::Invalid { .. })));
    opens(&secret()).await.unwrap();
}

/// Finds snapshots by every selector.
async fn finding(repository: &Repository, [first, second, other]: [&backstop::Snapshot; 3]) {
    let of = |series: &str| series.to_owned();
    let before = |time: Timestamp| Timestamp::from_nanos(time.as_nanos() - 1);
    for (selector, expected) in [
        (Selector::Latest, Some(other)),
        (Selector::LatestOf { series: of("a") }, Some(second)),
        (Selector::LatestOf { series: of("b") }, Some(other)),
        (Selector::LatestOf { series: of("c") }, None),
        (Selector::Number { series: of("a"), number: 1 }, Some(first)),
        (Selector::Number { series: of("a"), number: 2 }, Some(second)),
        (Selector::Number { series: of("a"), number: 3 }, None),
        (Selector::Number { series: of("a"), number: 0 }, None),
        (Selector::AtOrBefore { series: Some(of("a")), time: other.time }, Some(second)),
        (Selector::AtOrBefore { series: Some(of("a")), time: before(second.time) }, Some(first)),
        (Selector::AtOrBefore { series: Some(of("a")), time: before(first.time) }, None),
        (Selector::AtOrBefore { series: None, time: before(other.time) }, Some(second)),
        (Selector::AtOrBefore { series: None, time: first.time }, Some(first)),
        (Selector::AtOrBefore { series: None, time: Timestamp::EPOCH }, None),
    ] {
        let found = repository.find(&selector).await;
        match expected {
            Some(snapshot) => assert_eq!(found.unwrap(), *snapshot, "{selector:?}"),
            None => assert!(found.unwrap_err().is_not_found(), "{selector:?}"),
        }
    }
    let all = repository.snapshots(None).await.unwrap();
    assert_eq!(all.iter().collect::<Vec<_>>(), [first, second, other]);
    assert_eq!(repository.snapshots(Some("b")).await.unwrap(), *std::slice::from_ref(other));
    assert!(repository.snapshots(Some("c")).await.unwrap().is_empty());
}

/// Compares two snapshots.
async fn differing(repository: &Repository, folder: &Folder, old: &backstop::Snapshot, new: &backstop::Snapshot) {
    let changes: Vec<_> = repository.diff(old, new, None).try_collect().await.unwrap();
    let is = |entry: &Option<Entry>| entry.is_some();
    let found: Vec<_> = changes.iter().map(|change| (change.key.clone(), is(&change.old), is(&change.new))).collect();
    let key = |name: &str| folder.key(name);
    let root = Key::from_path(folder.path().to_str().unwrap()).unwrap();
    let expected = [
        (root, true, true),
        (key("small"), true, true),
        (key("small/file"), true, true),
        (key("small/new"), false, true),
        (key("text"), true, false),
    ];
    assert_eq!(found, expected);
    let below: Vec<_> = repository.diff(new, old, Some(&key("small/new"))).try_collect().await.unwrap();
    assert!(below.len() == 1 && below[0].new.is_none());
    assert!(repository.diff(new, new, None).try_collect::<Vec<_>>().await.unwrap().is_empty());
}

#[tokio::test]
async fn in_memory() {
    suite(memory().into()).await;
}

#[tokio::test]
async fn in_a_local_folder() {
    let folder = tempfile::tempdir().unwrap();
    suite(folder.path().join("not/there/yet").into()).await;
    let by_url = format!("file://{}/by url", folder.path().display());
    Repository::create(by_url, &secret(), CreateOptions::default()).await.unwrap();
    assert!(folder.path().join("by url/config").is_file());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_s3() {
    let server = S3Server::start();
    suite(server.store().into()).await;
    let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(server.store(), "under/a/prefix"));
    let repository = create(&prefixed).await;
    assert_ne!(open(&server.store()).await.id(), repository.id());
    let forged = server.store_as(S3Server::ACCESS_KEY, "wrong");
    let refused = Repository::open(forged, &secret(), OpenOptions::default()).await;
    assert!(matches!(&refused, Err(error @ Error::Store { .. }) if !error.is_retryable()), "{refused:?}");
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused_unless_asked_for_by_name() {
    let inner = memory();
    let store = OverwritingStore::new(Arc::clone(&inner)).shared();
    let refused = Repository::create(Arc::clone(&store), &secret(), CreateOptions::default()).await;
    let error = refused.unwrap_err();
    assert!(matches!(&error, Error::UnsafeStore { .. }), "{error}");
    assert!(error.to_string().contains("single-writer mode"), "{error}");
    assert!(names(&inner, "").await.is_empty(), "nothing stays behind");

    let single = OpenOptions::default().with_single_writer();
    let options = CreateOptions::default().with_open(single.clone());
    let repository = Repository::create(Arc::clone(&store), &secret(), options).await.unwrap();
    let folder = Folder::new();
    folder.write("file", "content");
    let snapshot = helpers::snapshot(&repository, &folder).await;
    // Reading is safe on any store, writing is not.
    let shared = open(&store).await;
    assert_eq!(contents(&shared, &snapshot).await, folder.files());
    let refused = shared.backup(&[folder.path().to_owned()], &BackupOptions::default(), quiet()).await;
    assert!(matches!(refused, Err(Error::UnsafeStore { .. })), "{refused:?}");
    assert!(running(&inner).await.is_empty());
    let repository = Repository::open(store, &secret(), single).await.unwrap();
    assert_eq!(helpers::snapshot(&repository, &folder).await.number, 2);
}

#[tokio::test]
async fn places_that_are_none_are_refused_with_advice() {
    let open = async |url: &str| Repository::open(url, &secret(), OpenOptions::default()).await.unwrap_err();
    for (url, feature, off) in [
        ("s3://bucket/path", "`aws`", !cfg!(feature = "aws")),
        ("gs://bucket/path", "`gcp`", !cfg!(feature = "gcp")),
        ("az://container/path", "`azure`", !cfg!(feature = "azure")),
    ] {
        if off {
            let error = open(url).await;
            assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(feature), "{error}");
            let created = Repository::create(url, &secret(), CreateOptions::default()).await.unwrap_err();
            assert!(matches!(created, Error::Unsupported { .. }), "{created}");
        }
    }
    for url in ["ftp://host/path", "sftp://host/path", "nonsense://x"] {
        let error = open(url).await;
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("s3://"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let nothing = open(folder.path().join("nothing").to_str().unwrap()).await;
    assert!(nothing.is_not_found(), "{nothing}");
    assert!(!folder.path().join("nothing").exists(), "opening makes no folder");
    let empty = open(folder.path().to_str().unwrap()).await;
    assert!(matches!(&empty, Error::NotFound { object } if object.contains("a repository at")), "{empty}");
    std::fs::write(folder.path().join("config"), "not a repository's").unwrap();
    assert!(open(folder.path().to_str().unwrap()).await.is_corrupt());
    let error = Repository::create(folder.path(), &secret(), CreateOptions::default()).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    Repository::create("memory:", &secret(), CreateOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_cache_is_used_shared_and_healed() {
    let (store, folder, cache) = (memory(), Folder::new(), tempfile::tempdir().unwrap());
    folder.write("file", Random::new(1).bytes(300_000));
    let cached = OpenOptions::default().with_cache(cache.path());
    create(&store).await;
    let repository = Repository::open(Arc::clone(&store), &secret(), cached.clone()).await.unwrap();
    let snapshot = helpers::snapshot(&repository, &folder).await;
    let kept = cache.path().join(repository.id().to_string());
    let segments: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(segments.len(), 1);
    let sound = std::fs::read(&segments[0]).unwrap();
    let mut flipped = sound.clone();
    flipped[100] ^= 1;
    for damaged in [&b""[..], &sound[..sound.len() - 1], &flipped, &vec![0; sound.len()]] {
        std::fs::write(&segments[0], damaged).unwrap();
        let repository = Repository::open(Arc::clone(&store), &secret(), cached.clone()).await.unwrap();
        assert_eq!(contents(&repository, &snapshot).await, folder.files());
        let report = backup_with(&repository, &folder, &series("other")).await;
        assert_eq!(report.stats.new_blobs, 0);
        assert!(std::fs::read(&segments[0]).unwrap() == sound, "what was damaged is fetched anew");
    }
}
