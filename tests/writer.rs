//! The writer: changes by call, what is read through it, and commits beside other writers'.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use backstop::{
    CheckOptions, CommitOptions, CreateOptions, Error, FileTime, Key, Metadata, OpenOptions, Repository, Result,
    Selector, Snapshot, Start, Writer, WriterOptions,
};
use common::{CountingStore, Fault, FaultyStore, Kind, Random, Reply};
use futures::TryStreamExt;
use helpers::{contents, create, memory, names, open, quiet, read, running, secret};
use object_store::ObjectStore;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

const SERIES: &str = "accounts";

type Model = BTreeMap<Key, Vec<u8>>;

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

fn plain() -> Metadata {
    Metadata::default()
}

async fn writer(repository: &Repository) -> Writer {
    repository.writer(SERIES, WriterOptions::default()).await.unwrap()
}

async fn starting(repository: &Repository, start: impl Into<Start>) -> Writer {
    repository.writer(SERIES, WriterOptions::default().with_start(start)).await.unwrap()
}

async fn commit(writer: Writer) -> Snapshot {
    writer.commit(CommitOptions::default()).await.unwrap()
}

async fn put(writer: &Writer, path: &str, content: &str) {
    writer.put(&key(path), content.to_owned(), &plain()).await.unwrap();
}

async fn get(writer: &Writer, path: &str) -> Option<Vec<u8>> {
    let mut file = match writer.read_file(&key(path)).await {
        Err(error) if error.is_not_found() => return None,
        other => other.unwrap(),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).await.unwrap();
    Some(bytes)
}

/// Everything that a writer shows.
async fn seen(writer: &Writer) -> Model {
    let entries: Vec<_> = writer.entries(None).try_collect().await.unwrap();
    let mut model = Model::new();
    for (key, _) in entries {
        let bytes = get(writer, &key.to_string()).await.unwrap();
        model.insert(key, bytes);
    }
    model
}

fn model(entries: &[(&str, &str)]) -> Model {
    entries.iter().map(|(path, content)| (key(path), content.as_bytes().to_vec())).collect()
}

/// A snapshot of these entries, and nothing else.
async fn filled(repository: &Repository, entries: &[(&str, &str)]) -> Snapshot {
    let writer = starting(repository, Start::Nothing).await;
    for (path, content) in entries {
        put(&writer, path, content).await;
    }
    commit(writer).await
}

/// Checks every byte of a repository, and that a tree of the same entries has the same root however it was made.
async fn assert_sound(repository: &Repository, snapshot: &Snapshot) {
    let report = repository.check(&CheckOptions::default().with_read_data(1.0), quiet()).await.unwrap();
    assert!(report.is_sound(), "{:#?}", report.findings);
    let writer = repository.writer("built from nothing", WriterOptions::default().with_start(Start::Nothing));
    let writer = writer.await.unwrap();
    let entries: Vec<_> = repository.entries(snapshot, None).try_collect().await.unwrap();
    assert_eq!(entries.len() as u64, snapshot.entries);
    for (key, entry) in entries.iter().rev() {
        let metadata = repository.metadata(entry).await.unwrap();
        writer.put(key, read(repository, snapshot, key).await, &metadata).await.unwrap();
    }
    assert_eq!(commit(writer).await.root, snapshot.root);
}

#[tokio::test]
async fn what_is_put_is_read_through_the_writer_and_then_by_all() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = Repository::create(folder.path(), &secret(), CreateOptions::default()).await.unwrap();
    for repository in [create(&memory()).await, on_disk] {
        let before = filled(&repository, &[("ana/1", "old"), ("ana/2", "stays"), ("ben/1", "goes")]).await;
        let writer = writer(&repository).await;
        assert_eq!(writer.parent(), Some(&before));
        let large = Random::new(1).bytes(700_000);
        let text = Random::new(2).text(300_000);
        let rich = plain()
            .with_content_type("image/heif")
            .with_modified(FileTime { seconds: 7, nanos: 8 })
            .with_attribute("thumbnail", Random::new(3).bytes(5_000));
        put(&writer, "ana/1", "new").await;
        writer.put(&key("ana/photo"), large.clone(), &rich).await.unwrap();
        assert_eq!(writer.put_reader(&key("ana/text"), &text[..], &plain()).await.unwrap(), 300_000);
        writer.remove(&key("ben/1")).await.unwrap();
        let expected = {
            let mut expected = model(&[("ana/1", "new"), ("ana/2", "stays")]);
            expected.insert(key("ana/photo"), large);
            expected.insert(key("ana/text"), text);
            expected
        };
        assert_eq!(seen(&writer).await, expected);
        let photo = writer.entry(&key("ana/photo")).await.unwrap().unwrap();
        assert_eq!(writer.metadata(&photo).await.unwrap(), rich);
        assert_eq!(get(&writer, "ben/1").await, None);
        // Nothing of it shows before the commit.
        let latest = repository.find(&Selector::LatestOf { series: SERIES.to_owned() }).await.unwrap();
        assert_eq!(latest, before);
        let snapshot = commit(writer).await;
        assert_eq!(contents(&repository, &snapshot).await, expected);
        assert_eq!(contents(&repository, &before).await.len(), 3);
        assert_eq!((snapshot.number, snapshot.parent, snapshot.entries), (2, Some(1), 4));
        let stats = snapshot.stats;
        assert_eq!((stats.files, stats.added, stats.changed, stats.removed), (4, 2, 1, 1));
        let entry = repository.entry(&snapshot, &key("ana/photo")).await.unwrap().unwrap();
        assert_eq!(repository.metadata(&entry).await.unwrap(), rich);
        assert_sound(&repository, &snapshot).await;
    }
}

#[tokio::test]
async fn prefixes_are_removed_and_put_below_again() {
    let repository = create(&memory()).await;
    filled(&repository, &[("a", "0"), ("a/1", "1"), ("a/1/x", "2"), ("a/2", "3"), ("a!", "4"), ("ab/1", "5")]).await;
    let writer = writer(&repository).await;
    put(&writer, "a/3", "goes as well").await;
    writer.remove_prefix(&key("a")).await.unwrap();
    assert_eq!(seen(&writer).await, model(&[("a!", "4"), ("ab/1", "5")]));
    put(&writer, "a/1", "new").await;
    writer.remove(&key("a/1/x")).await.unwrap();
    writer.remove(&key("never was")).await.unwrap();
    writer.remove_prefix(&key("never/was")).await.unwrap();
    let expected = model(&[("a!", "4"), ("a/1", "new"), ("ab/1", "5")]);
    assert_eq!(seen(&writer).await, expected);
    let below: Vec<_> = writer.entries(Some(&key("a"))).try_collect().await.unwrap();
    assert_eq!(below.len(), 1);
    let snapshot = commit(writer).await;
    assert_eq!(contents(&repository, &snapshot).await, expected);
    let stats = snapshot.stats;
    assert_eq!((stats.files, stats.added, stats.changed, stats.removed), (3, 0, 1, 3));
    assert_sound(&repository, &snapshot).await;
}

#[tokio::test]
async fn prefixes_are_renamed() {
    let repository = create(&memory()).await;
    filled(&repository, &[("a", "0"), ("a/1", "1"), ("a/1/x", "2"), ("a/2", "3"), ("ab", "4"), ("b/1", "5")]).await;
    let writer = writer(&repository).await;
    let photo = Random::new(4).bytes(200_000);
    writer.put(&key("a/2"), photo.clone(), &plain()).await.unwrap();
    writer.remove(&key("a/1/x")).await.unwrap();
    for (from, to) in [("a", "a"), ("a", "a/1"), ("a/1", "a"), ("a", "a/9/9")] {
        let refused = writer.rename_prefix(&key(from), &key(to)).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{from} to {to}: {refused:?}");
    }
    for to in ["b", "b/1", "ab"] {
        assert!(writer.rename_prefix(&key("a"), &key(to)).await.unwrap_err().is_conflict(), "{to}");
    }
    let too_long = key(&"x".repeat(Key::MAX_LEN - 1));
    assert!(matches!(writer.rename_prefix(&key("a"), &too_long).await, Err(Error::Invalid { .. })));
    assert_eq!(seen(&writer).await.len(), 5, "nothing has moved");
    assert_eq!(writer.rename_prefix(&key("a"), &key("c/d")).await.unwrap(), 3);
    assert_eq!(writer.rename_prefix(&key("nothing"), &key("here")).await.unwrap(), 0);
    put(&writer, "a/1", "again").await;
    let mut expected = model(&[("c/d", "0"), ("c/d/1", "1"), ("ab", "4"), ("b/1", "5"), ("a/1", "again")]);
    expected.insert(key("c/d/2"), photo);
    assert_eq!(seen(&writer).await, expected);
    let snapshot = commit(writer).await;
    assert_eq!(contents(&repository, &snapshot).await, expected);
    assert_sound(&repository, &snapshot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_put_at_once() {
    let repository = create(&memory()).await;
    let writer = Arc::new(writer(&repository).await);
    let tasks = (0..16u64).map(|task| {
        let writer = Arc::clone(&writer);
        tokio::spawn(async move {
            let (mut random, mut put) = (Random::new(task), Model::new());
            for number in 0..60 {
                let path = key(&format!("{}/{task}/{number}", number % 5));
                let length = [3, 300, 2_000, 90_000][random.below(4) as usize];
                let content = if random.chance(0.5) { random.text(length) } else { random.bytes(length) };
                if random.chance(0.5) {
                    writer.put(&path, content.clone(), &plain()).await.unwrap();
                } else {
                    writer.put_reader(&path, &content[..], &plain()).await.unwrap();
                }
                let shown = get(&writer, &path.to_string()).await;
                assert!(shown.as_ref() == Some(&content), "{path}");
                put.insert(path, content);
            }
            put
        })
    });
    let mut expected = Model::new();
    for task in tasks.collect::<Vec<_>>() {
        expected.extend(task.await.unwrap());
    }
    let snapshot = commit(Arc::into_inner(writer).unwrap()).await;
    assert!(contents(&repository, &snapshot).await == expected);
    assert_sound(&repository, &snapshot).await;
}

#[tokio::test]
async fn a_large_content_is_stored_while_it_is_read() {
    const LENGTH: usize = 50_000_000;
    let counting = CountingStore::new(memory());
    let repository = create(&counting.shared()).await;
    let writer = writer(&repository).await;
    counting.take();
    let noise = Random::new(5).bytes(LENGTH);
    assert_eq!(writer.put_reader(&key("large"), &noise[..], &plain()).await.unwrap(), LENGTH as u64);
    // It is on its way, and little of it waits: less than a pack, and those that are being uploaded.
    let before = counting.take();
    assert!(before.under(Kind::Put, "packs/") >= 1 && before.bytes_written < LENGTH as u64, "{before:?}");
    let snapshot = commit(writer).await;
    let after = counting.take();
    assert_eq!(after.under(Kind::Put, "commits/"), 1);
    let written = before.bytes_written + after.bytes_written;
    assert!(written > LENGTH as u64 && written < LENGTH as u64 + LENGTH as u64 / 50, "{written} bytes");
    assert!(contents(&repository, &snapshot).await[&key("large")] == noise);

    // The same again takes no more than a look at the index, and a list of the chunks.
    let writer = self::writer(&open(&counting.shared()).await).await;
    counting.take();
    writer.put_reader(&key("again"), &noise[..], &plain()).await.unwrap();
    let snapshot = commit(writer).await;
    let counts = counting.take();
    assert!(counts.bytes_written < 50_000, "{}", counts.bytes_written);
    assert_eq!(snapshot.stats.added, 1);
    assert_sound(&repository, &snapshot).await;
}

#[tokio::test]
async fn a_stream_that_fails_leaves_what_was_there() {
    let repository = create(&memory()).await;
    let writer = writer(&repository).await;
    put(&writer, "a", "before").await;
    let broken = Random::new(6).bytes(900_000);
    let broken = broken.chain(broken_stream());
    let failed = writer.put_reader(&key("a"), broken, &plain()).await;
    assert!(matches!(failed, Err(Error::File { .. })), "{failed:?}");
    put(&writer, "b", "after").await;
    let snapshot = commit(writer).await;
    assert_eq!(contents(&repository, &snapshot).await, model(&[("a", "before"), ("b", "after")]));
    assert_sound(&repository, &snapshot).await;
}

/// A stream that only fails.
fn broken_stream() -> impl AsyncRead + Send + Unpin {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Err(std::io::Error::other("the client has gone")))
        }
    }
    Broken
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_at_once() {
    let repository = create(&memory()).await;
    let refused = repository.writer("a#b", WriterOptions::default()).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })));
    let refused = repository.writer(SERIES, WriterOptions::default().with_compression_level(99)).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })));
    let writer = writer(&repository).await;
    let nameless = plain().with_attribute("", "x");
    assert!(matches!(writer.put(&key("a"), "a", &nameless).await, Err(Error::Invalid { .. })));
    put(&writer, "a", "fine").await;
    assert_eq!(contents(&repository, &commit(writer).await).await, model(&[("a", "fine")]));
}

#[tokio::test]
async fn a_writer_that_is_given_up_leaves_nothing_visible() {
    let store = memory();
    let repository = create(&store).await;
    let before = filled(&repository, &[("a", "1")]).await;
    for abandon in [false, true] {
        let writer = writer(&repository).await;
        put(&writer, "b", "2").await;
        writer.put(&key("c"), Random::new(7).bytes(20_000_000), &plain()).await.unwrap();
        writer.remove_prefix(&key("a")).await.unwrap();
        if abandon {
            writer.abandon().await
        } else {
            drop(writer)
        }
        assert_eq!(repository.snapshots(None).await.unwrap(), std::slice::from_ref(&before));
    }
    assert_eq!(running(&store).await.len(), 1, "the dropped one's registration");
    assert_sound(&open(&store).await, &before).await;
}

#[tokio::test]
async fn a_dropped_call_takes_effect_or_not_and_harms_nothing() {
    let repository = create(&memory()).await;
    let writer = writer(&repository).await;
    let mut random = Random::new(8);
    let mut possible = BTreeMap::new();
    for polls in 0..60 {
        let path = key(&format!("{polls}"));
        let content = random.bytes([500, 3_000, 2_000_000][polls % 3]);
        let metadata = plain();
        let mut call = Box::pin(writer.put(&path, content.clone(), &metadata));
        for _ in 0..polls / 3 {
            if futures::poll!(&mut call).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        possible.insert(path, content);
    }
    put(&writer, "last", "x").await;
    let snapshot = commit(writer).await;
    for (path, content) in contents(&repository, &snapshot).await {
        assert!(path == key("last") || possible[&path] == content, "{path}");
    }
    assert_sound(&repository, &snapshot).await;
}

#[tokio::test]
async fn two_writers_whose_changes_do_not_overlap_both_come_in() {
    let repository = create(&memory()).await;
    for seed in 0..12u64 {
        let mut random = Random::new(seed);
        let base: Model = (0..200).map(|number| (key(&format!("{}/{number}", number % 7)), random.text(20))).collect();
        let first = starting(&repository, Start::Nothing).await;
        for (path, content) in &base {
            first.put(path, content.clone(), &plain()).await.unwrap();
        }
        commit(first).await;
        let (one, other) = (writer(&repository).await, writer(&repository).await);
        let mut expected = base.clone();
        // The one has the even numbers and folder 0, the other the odd ones elsewhere.
        for (number, (path, _)) in base.iter().enumerate() {
            let owner = if path.starts_with(&key("0")) || number % 2 == 0 { &one } else { &other };
            match random.below(4) {
                0 => {
                    let content = random.text(30);
                    owner.put(path, content.clone(), &plain()).await.unwrap();
                    expected.insert(path.clone(), content);
                }
                1 => {
                    owner.remove(path).await.unwrap();
                    expected.remove(path);
                }
                _ => {}
            }
        }
        if seed % 3 == 0 {
            one.remove_prefix(&key("0")).await.unwrap();
            expected.retain(|path, _| !path.starts_with(&key("0")));
        }
        if seed % 2 == 0 {
            // What both did alike is no conflict.
            put(&one, "9/both", "alike").await;
            put(&other, "9/both", "alike").await;
            expected.insert(key("9/both"), b"alike".to_vec());
        }
        let first = commit(one).await;
        let second = commit(other).await;
        assert_eq!((second.number, second.parent), (first.number + 1, Some(first.number)));
        assert!(contents(&repository, &second).await == expected, "seed {seed}");
        if seed == 0 {
            assert_sound(&repository, &second).await;
        }
    }
}

#[tokio::test]
async fn changes_that_overlap_are_refused_and_named() {
    let repository = create(&memory()).await;
    type Changes = fn(&Writer) -> futures::future::BoxFuture<'_, ()>;
    let cases: [(Changes, Changes, &[&str]); 6] = [
        (|w| Box::pin(put(w, "a/1", "x")), |w| Box::pin(put(w, "a/1", "y")), &["a/1"]),
        (|w| Box::pin(put(w, "new", "x")), |w| Box::pin(put(w, "new", "y")), &["new"]),
        (|w| Box::pin(put(w, "a/1", "x")), |w| Box::pin(async { w.remove(&key("a/1")).await.unwrap() }), &["a/1"]),
        (
            |w| Box::pin(put(w, "a/new", "x")),
            |w| Box::pin(async { w.remove_prefix(&key("a")).await.unwrap() }),
            &["a/new"],
        ),
        (|w| Box::pin(async { w.remove_prefix(&key("a")).await.unwrap() }), |w| Box::pin(put(w, "a/2", "y")), &["a/2"]),
        (
            |w| {
                Box::pin(async {
                    put(w, "a/1", "x").await;
                    put(w, "a/3", "x").await
                })
            },
            |w| Box::pin(async { assert_eq!(w.rename_prefix(&key("a"), &key("c")).await.unwrap(), 2) }),
            &["a/1", "a/3"],
        ),
    ];
    for (number, (wins, loses, paths)) in cases.into_iter().enumerate() {
        filled(&repository, &[("a/1", "1"), ("a/2", "2"), ("b", "3")]).await;
        let (one, other) = (writer(&repository).await, writer(&repository).await);
        wins(&one).await;
        loses(&other).await;
        let won = commit(one).await;
        let error = other.commit(CommitOptions::default()).await.unwrap_err();
        assert!(error.is_conflict() && !error.is_retryable());
        match error {
            Error::Overlap { series, number: winner, paths: named } => {
                assert_eq!((series.as_str(), winner, &named[..]), (SERIES, won.number, &paths.map_owned()[..]));
            }
            error => panic!("case {number}: {error}"),
        }
        let latest = repository.find(&Selector::LatestOf { series: SERIES.to_owned() }).await.unwrap();
        assert_eq!(latest, won, "nothing was committed");
        // The way out that the error names.
        let again = writer(&repository).await;
        assert_eq!(again.parent(), Some(&won));
        put(&again, "b", "again").await;
        commit(again).await;
    }
    assert!(repository.stats().await.unwrap().writers.objects == 0);
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_several_series_at_once() {
    let store = memory();
    create(&store).await;
    let tasks = (0..9u64).map(|task| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let repository = open(&store).await;
            let series = format!("series {}", task % 3);
            for round in 0..4 {
                let writer = repository.writer(&series, WriterOptions::default()).await.unwrap();
                for number in 0..5 {
                    let path = key(&format!("{task}/{round}/{number}"));
                    writer.put(&path, format!("{series} {path}"), &plain()).await.unwrap();
                }
                commit(writer).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let repository = open(&store).await;
    for number in 0..3u64 {
        let series = format!("series {number}");
        let latest = repository.find(&Selector::LatestOf { series: series.clone() }).await.unwrap();
        assert_eq!((latest.number, latest.entries), (12, 60));
        for (path, content) in contents(&repository, &latest).await {
            assert_eq!(content, format!("{series} {path}").into_bytes());
        }
        assert_sound(&repository, &latest).await;
    }
}

#[tokio::test]
async fn a_writer_begins_where_it_is_told() {
    let repository = create(&memory()).await;
    let first = filled(&repository, &[("a", "1"), ("b", "1")]).await;
    let second = filled(&repository, &[("a", "1"), ("b", "2"), ("c", "2")]).await;
    assert_eq!((first.parent, second.parent), (None, None));

    // From an older snapshot, with what was changed since where it doesn't overlap.
    let older = starting(&repository, first.clone()).await;
    assert_eq!(older.parent(), Some(&first));
    assert_eq!(seen(&older).await, model(&[("a", "1"), ("b", "1")]));
    put(&older, "a", "3").await;
    let third = commit(older).await;
    assert_eq!(contents(&repository, &third).await, model(&[("a", "3"), ("b", "2"), ("c", "2")]));
    assert_eq!(third.parent, Some(2));
    let older = starting(&repository, first.clone()).await;
    put(&older, "b", "3").await;
    let error = older.commit(CommitOptions::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Overlap { number: 3, paths, .. } if paths == &["b"]), "{error}");

    // From nothing, whatever is committed meanwhile.
    let nothing = starting(&repository, Start::Nothing).await;
    assert!(nothing.parent().is_none() && seen(&nothing).await.is_empty());
    put(&nothing, "d", "4").await;
    let meanwhile = writer(&repository).await;
    put(&meanwhile, "a", "meanwhile").await;
    commit(meanwhile).await;
    let all = commit(nothing).await;
    assert_eq!(contents(&repository, &all).await, model(&[("d", "4")]));
    let emptied = commit(starting(&repository, Start::Nothing).await).await;
    assert_eq!((emptied.entries, emptied.stats.removed), (0, 0));
    assert_eq!(contents(&repository, &emptied).await, Model::new());
    put(&writer(&repository).await, "never", "committed").await;

    // Not from what isn't of the series.
    let elsewhere = repository.writer("another", WriterOptions::default().with_start(first)).await;
    assert!(matches!(elsewhere, Err(Error::Invalid { .. })), "{elsewhere:?}");
    let mut ahead = emptied.clone();
    ahead.number += 1;
    let ahead = repository.writer(SERIES, WriterOptions::default().with_start(ahead)).await;
    assert!(matches!(ahead, Err(Error::Invalid { .. })));
    assert_sound(&repository, &emptied).await;
}

#[tokio::test]
async fn a_commit_carries_tags_and_a_position() {
    let repository = create(&memory()).await;
    let options = CommitOptions::default().with_tag("kind", "full").with_position(*b"\0lsn 1");
    let first = repository.writer(SERIES, WriterOptions::default().with_host("mail-3")).await.unwrap();
    let first = first.commit(options).await.unwrap();
    assert_eq!((first.entries, first.host.as_str(), &first.tags["kind"]), (0, "mail-3", &"full".to_owned()));
    assert_eq!(first.position.as_deref(), Some(&b"\0lsn 1"[..]));

    // An empty commit can carry a new position; without one the last stays.
    let second = writer(&repository).await.commit(CommitOptions::default().with_position("lsn 2")).await.unwrap();
    assert_eq!((second.root, second.position.as_deref()), (first.root, Some(&b"lsn 2"[..])));
    let older = starting(&repository, first).await;
    put(&older, "a", "1").await;
    let third = commit(older).await;
    assert_eq!(third.position.as_deref(), Some(&b"lsn 2"[..]), "of the snapshot that it was made on");
    let fresh = commit(starting(&repository, Start::Nothing).await).await;
    assert_eq!(fresh.position, None);
    let found = repository.find(&Selector::Number { series: SERIES.to_owned(), number: 3 }).await.unwrap();
    assert_eq!(found, third);
}

/// What a writer of a few changes asks of the store, with a repository that has read the nodes before.
#[tokio::test]
async fn a_small_commit_is_a_pack_and_a_record() {
    let counting = CountingStore::new(memory());
    let repository = create(&counting.shared()).await;
    let first = writer(&repository).await;
    for number in 0..3_000 {
        put(&first, &format!("{:03}/{number}", number % 100), &format!("BEGIN:VCARD {number}")).await;
    }
    commit(first).await;
    counting.take();
    let second = writer(&repository).await;
    let begun = counting.take();
    assert_eq!((begun.of(Kind::Get), begun.under(Kind::Put, "writers/")), (1, 2), "{:?}", begun.log);
    for number in 0..10 {
        put(&second, &format!("{:03}/{number}", number * 9), "changed").await;
    }
    commit(second).await;
    let counts = counting.take();
    assert_eq!(counts.under(Kind::Put, "packs/"), 1);
    assert_eq!(counts.under(Kind::Put, "commits/"), 1);
    assert_eq!((counts.under(Kind::Put, "writers/"), counts.of(Kind::Delete)), (1, 0));
    assert_eq!(counts.total(), 3, "{:?}", counts.log);
}

/// Each seed has a store of its own, and all are at work at once: most of the time is spent in pauses between attempts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_calls_never_leave_half_a_snapshot() {
    let cases = futures::future::join_all((0..60).map(|seed| tokio::spawn(on_a_failing_store(seed)))).await;
    let (succeeded, refused) = cases.into_iter().fold((0, 0), |(succeeded, refused), case| {
        let counts = case.unwrap();
        (succeeded + counts.0, refused + counts.1)
    });
    assert!(succeeded > 20 && refused > 20, "{succeeded} succeeded, {refused} didn't");
}

/// Several commits in a row while calls fail; how many succeeded, and how many left nothing.
async fn on_a_failing_store(seed: u64) -> (u64, u64) {
    let inner = memory();
    create(&inner).await;
    let mut expected: Vec<(Snapshot, Model)> = Vec::new();
    let (mut succeeded, mut refused) = (0, 0);
    let mut random = Random::new(seed);
    for round in 0..4 {
        let faulty = FaultyStore::seeded(Arc::clone(&inner), seed * 4 + round, 0.45).shared();
        let Ok(repository) = Repository::open(faulty, &secret(), OpenOptions::default()).await else { continue };
        let mut model = expected.last().map(|(_, model)| model.clone()).unwrap_or_default();
        let outcome = attempt(&repository, &mut random, &mut model).await;
        let landed = open(&inner).await.snapshots(None).await.unwrap();
        assert!(landed.len() - expected.len() <= 1);
        let new = landed.get(expected.len()).cloned();
        match outcome {
            Ok(snapshot) => {
                succeeded += 1;
                assert_eq!(new.as_ref(), Some(&snapshot), "seed {seed}");
            }
            // Its outcome stayed unknown.
            Err(error) if new.is_some() => assert!(error.is_retryable(), "seed {seed}: {error}"),
            Err(error) => {
                refused += 1;
                assert!(error.is_retryable() || matches!(error, Error::Invalid { .. }), "seed {seed}: {error}");
            }
        }
        if let Some(snapshot) = new {
            expected.push((snapshot, model));
        }
    }
    let repository = open(&inner).await;
    for (snapshot, model) in &expected {
        assert!(contents(&repository, snapshot).await == *model, "seed {seed}, {snapshot}");
    }
    if let Some((snapshot, _)) = expected.last() {
        assert_sound(&repository, snapshot).await;
    }
    (succeeded, refused)
}

async fn attempt(repository: &Repository, random: &mut Random, model: &mut Model) -> Result<Snapshot> {
    let writer = repository.writer(SERIES, WriterOptions::default()).await?;
    for _ in 0..10 {
        let path = key(&format!("{}/{}", random.below(4), random.below(20)));
        match random.below(5) {
            0 => {
                writer.remove(&path).await?;
                model.remove(&path);
            }
            1 => {
                let length = random.below(60_000) as usize;
                let content = random.bytes(length);
                writer.put_reader(&path, &content[..], &plain()).await?;
                model.insert(path, content);
            }
            _ => {
                let content = random.text(100);
                writer.put(&path, content.clone(), &plain()).await?;
                model.insert(path, content);
            }
        }
    }
    writer.commit(CommitOptions::default()).await
}

/// Pauses between attempts take no time.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_said_to_exist_and_does_not_may_be_free_later() {
    let inner = memory();
    create(&inner).await;
    let faulty = FaultyStore::new(Arc::clone(&inner), |call| {
        let pack = call.kind == Kind::Put && call.name.starts_with("packs/");
        pack.then_some(Fault { done: false, reply: Reply::Exists })
    });
    let writer = writer(&open(&faulty.shared()).await).await;
    put(&writer, "a", "1").await;
    let error = writer.commit(CommitOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_writer_on_which_storing_failed_does_not_commit() {
    let inner = memory();
    create(&inner).await;
    // Once; afterwards all would go well, but for what was lost.
    let denied = Fault { done: false, reply: Reply::Denied };
    let faulty = FaultyStore::nth(Arc::clone(&inner), Kind::Put, "packs/", 0, denied);
    let repository = open(&faulty.shared()).await;
    let writer = writer(&repository).await;
    writer.put(&key("large"), Random::new(9).bytes(100_000), &plain()).await.unwrap();
    // To be read it must be uploaded, and that is refused.
    assert!(matches!(writer.read_file(&key("large")).await, Err(Error::Store { .. })));
    assert!(matches!(writer.put(&key("small"), "x", &plain()).await, Err(Error::Invalid { .. })));
    assert!(matches!(writer.commit(CommitOptions::default()).await, Err(Error::Invalid { .. })));
    assert!(names(&inner, "commits").await.is_empty());
    assert!(running(&inner).await.is_empty());
}

#[tokio::test]
async fn what_a_writer_made_is_backed_up_over_and_restored() {
    let store: Arc<dyn ObjectStore> = memory();
    let repository = create(&store).await;
    let snapshot = filled(&repository, &[("users/ana/1.vcf", "card"), ("users/ana/2.vcf", "other")]).await;
    let to = tempfile::tempdir().unwrap();
    let options = backstop::RestoreOptions::default();
    let report = repository.restore(&snapshot, Some(&key("users/ana")), to.path(), &options, quiet()).await.unwrap();
    assert_eq!((report.files, report.failure_count), (2, 0));
    assert_eq!(std::fs::read(to.path().join("1.vcf")).unwrap(), b"card");
}
