//! What a backup reads, stores and reports.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use backstop::{BackupOptions, EntryKind, Error, Key, Payload, Progress, Selector};
use common::Random;
use futures::TryStreamExt;
use helpers::{
    Folder, backup, backup_with, contents, create, dump, keys, memory, names, open, quiet, read, running, series,
    snapshot,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, ReadBuf};

/// A dozen files of several sizes.
fn filled() -> Folder {
    let (folder, mut random) = (Folder::new(), Random::new(1));
    for number in 0..10 {
        folder.write(format!("small/{number}"), format!("file {number}"));
    }
    folder.write("text", random.text(300_000));
    folder.write("noise", random.bytes(700_000));
    folder
}

#[tokio::test]
async fn a_snapshot_holds_what_was_there() {
    let (folder, repository) = (filled(), create(&memory()).await);
    let options = series("host:/srv").with_host("mail-3").with_tag("app", "sync");
    let report = backup_with(&repository, &folder, &options).await;
    let snapshot = report.snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).await, folder.files());
    assert_eq!((snapshot.series.as_str(), snapshot.number, snapshot.host.as_str()), ("host:/srv", 1, "mail-3"));
    assert_eq!(snapshot.tags["app"], "sync");
    assert_eq!(snapshot.paths, [folder.path().to_str().unwrap()]);
    assert_eq!((snapshot.parent, snapshot.predecessor, snapshot.is_partial()), (None, None, false));
    let stats = snapshot.stats;
    assert_eq!(stats, report.stats);
    assert_eq!((stats.files, stats.folders, stats.others), (12, 2, 0));
    assert_eq!((stats.added, stats.changed, stats.removed), (14, 0, 0));
    assert_eq!(stats.bytes, folder.files().values().map(|file| file.len() as u64).sum::<u64>());
    assert_eq!(stats.bytes_read, stats.bytes);
    assert_eq!(snapshot.entries, 14);
}

#[tokio::test]
async fn what_is_unchanged_is_not_read_again() {
    let (folder, store) = (filled(), memory());
    let first = snapshot(&create(&store).await, &folder).await;
    let repository = open(&store).await;
    let report = backup(&repository, &folder).await;
    let second = report.snapshot.unwrap();
    let stats = second.stats;
    assert_eq!((stats.bytes_read, stats.new_blobs, stats.stored_bytes), (0, 0, 0));
    assert_eq!((stats.added, stats.changed, stats.removed), (0, 0, 0));
    assert_eq!((stats.files, stats.folders, stats.bytes), (12, 2, first.stats.bytes));
    assert_eq!((second.number, second.parent, second.predecessor), (2, Some(1), Some(first.hash)));
    assert_eq!((second.root, second.entries), (first.root, first.entries));
    assert!(second.time > first.time);
}

#[tokio::test]
async fn all_is_read_where_that_is_asked_for() {
    let (folder, repository) = (filled(), create(&memory()).await);
    let first = snapshot(&repository, &folder).await;
    let mut options = BackupOptions::default();
    options.read_all = true;
    let second = backup_with(&repository, &folder, &options).await;
    assert_eq!((second.stats.bytes_read, second.stats.new_blobs), (first.stats.bytes, 0));
    assert_eq!(second.snapshot.unwrap().root, first.root);
}

#[tokio::test]
async fn what_changed_is_counted_and_only_that_is_read() {
    let (folder, repository) = (filled(), create(&memory()).await);
    snapshot(&repository, &folder).await;
    folder.write("small/3", "now it is longer");
    folder.write("small/new folder/new", "new");
    folder.remove("small/5");
    fs::remove_file(folder.path().join("text")).unwrap();
    fs::create_dir(folder.path().join("text")).unwrap();
    let report = backup(&repository, &folder).await;
    let stats = report.stats;
    // Both folders have changed with the names in them, and the text has become a folder.
    assert_eq!((stats.added, stats.changed, stats.removed), (2, 4, 1));
    assert_eq!(stats.bytes_read, "now it is longer".len() as u64 + "new".len() as u64);
    let snapshot = report.snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).await, folder.files());
    assert!(keys(&repository, &snapshot).await.contains(&folder.key("text").to_string()));
    assert_eq!(snapshot.entries, 15);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_removed_with_all_that_was_in_it() {
    let (folder, repository) = (filled(), create(&memory()).await);
    snapshot(&repository, &folder).await;
    fs::remove_dir_all(folder.path().join("small")).unwrap();
    let report = backup(&repository, &folder).await;
    assert_eq!((report.stats.removed, report.stats.changed), (11, 1));
    assert_eq!(contents(&repository, &report.snapshot.unwrap()).await, folder.files());
}

/// Does something once, when the first file or the first bytes are done.
struct Once<F>(AtomicBool, bool, F);

impl<F: Fn() + Send + Sync> Once<F> {
    fn after_file(act: F) -> Arc<dyn Progress>
    where
        F: 'static,
    {
        Arc::new(Self(AtomicBool::new(false), true, act))
    }

    fn after_bytes(act: F) -> Arc<dyn Progress>
    where
        F: 'static,
    {
        Arc::new(Self(AtomicBool::new(false), false, act))
    }
}

impl<F: Fn() + Send + Sync> Progress for Once<F> {
    fn advance(&self, files: u64, bytes: u64) {
        let now = if self.1 { files > 0 } else { bytes > 0 };
        if now && !self.0.swap(true, Ordering::SeqCst) {
            (self.2)();
        }
    }
}

#[tokio::test]
async fn a_file_that_vanishes_is_reported() {
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    folder.write("a", "a");
    let doomed = folder.write("z", "z");
    snapshot(&repository, &folder).await;
    folder.write("a", "another a");
    folder.write("z", "another z");
    // All files of so small a folder are found before the first is read.
    let path = doomed.clone();
    let progress = Once::after_file(move || fs::remove_file(&path).unwrap());
    let mut options = BackupOptions::default();
    options.readers = Some(1);
    let report = repository.backup(&[folder.path().to_owned()], &options, progress).await.unwrap();
    assert_eq!(report.failures.len(), 1, "{report:?}");
    assert_eq!(report.failures[0].path, doomed.to_str().unwrap());
    assert!(report.failures[0].reason.contains("No such file"), "{report:?}");
    assert_eq!((report.stats.changed, report.stats.removed), (1, 1));
    let snapshot = report.snapshot.unwrap();
    assert!(snapshot.is_partial());
    assert_eq!((snapshot.failure_count, &snapshot.failures), (1, &report.failures));
    assert_eq!(contents(&repository, &snapshot).await, folder.files());
    assert_eq!(snapshot.entries, 2);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_reported() {
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    let restless = folder.write("restless", vec![b'x'; 100_000]);
    let path = restless.clone();
    let progress = Once::after_bytes(move || {
        File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    });
    let paths = [folder.path().to_owned()];
    let report = repository.backup(&paths, &BackupOptions::default(), progress).await.unwrap();
    assert_eq!(report.failures.len(), 1, "{report:?}");
    assert_eq!(report.failures[0].path, restless.to_str().unwrap());
    assert!(report.failures[0].reason.contains("it changed while it was read"), "{report:?}");
    let partial = report.snapshot.unwrap();
    assert!(partial.is_partial());
    assert_eq!(read(&repository, &partial, &folder.key("restless")).await, vec![b'x'; 100_000]);
    // The next backup notices what this one missed.
    let whole = snapshot(&repository, &folder).await;
    assert!(!whole.is_partial());
    assert_eq!(contents(&repository, &whole).await, folder.files());
}

#[tokio::test]
async fn what_is_excluded_is_left_out() {
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    for name in ["a.o", "keep.o", "src/b.o", "src/b.c", "target/x", "src/target/y", "cache/z", "src/cache"] {
        folder.write(name, name);
    }
    let rules = folder.write("rules", "# objects\n*.o\n!keep.o\n");
    let mut options = BackupOptions::default().with_exclude("/target").with_exclude("cache/").with_exclude("rules");
    options.exclude_files.push(rules);
    let report = backup_with(&repository, &folder, &options).await;
    let found: Vec<_> = contents(&repository, &report.snapshot.unwrap()).await.into_keys().collect();
    let expected = ["keep.o", "src/b.c", "src/cache", "src/target/y"].map(|name| folder.key(name));
    assert_eq!(found, expected);
    // What is excluded from now on is gone from the next snapshot.
    let report = backup_with(&repository, &folder, &options.with_exclude("src")).await;
    assert_eq!((report.stats.files, report.stats.removed), (1, 5));
}

#[tokio::test]
async fn several_roots_lie_side_by_side() {
    let (a, b, repository) = (filled(), Folder::new(), create(&memory()).await);
    b.write("only", "b");
    let paths = [a.path().to_owned(), b.path().join("only"), a.path().join("small")];
    let report = repository.backup(&paths, &BackupOptions::default(), quiet()).await.unwrap();
    let mut expected = a.files();
    expected.extend(b.files());
    assert_eq!(contents(&repository, &report.snapshot.unwrap()).await, expected);

    let absolute = repository.backup(&[a.absolute()], &BackupOptions::default(), quiet()).await.unwrap();
    let stored = a.absolute().join("noise").strip_prefix("/").unwrap().to_owned();
    let key = Key::from_path(stored.as_os_str().as_bytes()).unwrap();
    let bytes = read(&repository, &absolute.snapshot.unwrap(), &key).await;
    assert!(bytes == fs::read(a.path().join("noise")).unwrap());
}

#[tokio::test]
async fn a_root_that_is_not_there_is_an_error_and_registers_nothing() {
    let (folder, store) = (filled(), memory());
    let repository = create(&store).await;
    for paths in [vec![folder.path().join("nothing")], vec![], vec![PathBuf::from("../x")], vec![PathBuf::new()]] {
        repository.backup(&paths, &BackupOptions::default(), quiet()).await.unwrap_err();
    }
    for series in ["", "a#1", "a@b"] {
        let options = helpers::series(series);
        let refused = repository.backup(&[folder.path().to_owned()], &options, quiet()).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{series:?}");
    }
    let mut options = BackupOptions::default();
    options.compression_level = 20;
    let refused = repository.backup(&[folder.path().to_owned()], &options, quiet()).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })));
    assert!(running(&store).await.is_empty() && names(&store, "commits").await.is_empty());
}

#[tokio::test]
async fn other_file_systems_are_left_out_where_that_is_asked_for() {
    let device = |path: &str| fs::metadata(path).map(|metadata| std::os::unix::fs::MetadataExt::dev(&metadata)).ok();
    if device("/dev/shm").is_none() || device("/dev/shm") == device("/dev") {
        println!("not tested: /dev/shm is no file system of its own");
        return;
    }
    let repository = create(&memory()).await;
    let inside = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::write(inside.path().join("file"), "elsewhere").unwrap();
    let mut options = BackupOptions::default();
    options.one_file_system = true;
    let report = repository.backup(&[PathBuf::from("/dev")], &options, quiet()).await.unwrap();
    let below: Vec<_> = repository
        .entries(&report.snapshot.unwrap(), Some(&Key::from_path("dev/shm").unwrap()))
        .try_collect()
        .await
        .unwrap();
    assert!(below.len() == 1 && below[0].1.kind == EntryKind::Folder, "{below:?}");
    let report = repository.backup(&[inside.path().to_owned()], &options, quiet()).await.unwrap();
    assert_eq!(report.stats.files, 1);
}

#[tokio::test]
async fn a_stream_becomes_a_file() {
    let repository = create(&memory()).await;
    let name = Key::from_path("dumps/accounts.sql").unwrap();
    for bytes in [Vec::new(), b"short".to_vec(), Random::new(3).text(9_000_000)] {
        let report = repository.backup_stream(&name, bytes.as_slice(), &series("dumps"), quiet()).await.unwrap();
        assert_eq!((report.stats.files, report.stats.bytes_read), (1, bytes.len() as u64));
        assert!(read(&repository, &report.snapshot.unwrap(), &name).await == bytes);
    }
    assert_eq!(repository.snapshots(Some("dumps")).await.unwrap().len(), 3);
}

/// Yields zeros, then fails.
struct Failing(usize);

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(std::io::Error::other("the dump was interrupted")));
        }
        let length = buffer.remaining().min(self.0);
        buffer.initialize_unfilled_to(length).fill(0);
        buffer.advance(length);
        self.0 -= length;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn half_a_stream_is_no_backup() {
    let store = memory();
    let repository = create(&store).await;
    let name = Key::from_path("dump").unwrap();
    for length in [0, 1000, 20_000_000] {
        let failed = repository.backup_stream(&name, Failing(length), &BackupOptions::default(), quiet()).await;
        let error = failed.unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("interrupted"), "{error}");
    }
    assert!(names(&store, "commits").await.is_empty() && running(&store).await.is_empty());
    assert!(repository.find(&Selector::Latest).await.unwrap_err().is_not_found());
    repository.backup_stream(&name, &b"whole"[..], &BackupOptions::default(), quiet()).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let (folder, store) = (filled(), memory());
    let repository = create(&store).await;
    let dry = BackupOptions::default().with_dry_run(true);
    for round in 0..2 {
        let before = dump(&store).await;
        let report = backup_with(&repository, &folder, &dry).await;
        assert_eq!(report.snapshot, None);
        assert_eq!(report.stats.files, 12);
        assert_eq!(report.stats.bytes_read > 0, round == 0, "what is unchanged isn't read");
        let name = Key::from_path("stream").unwrap();
        let report = repository.backup_stream(&name, &b"from a stream"[..], &dry, quiet()).await.unwrap();
        assert!(report.snapshot.is_none() && report.stats.bytes == 13);
        assert_eq!(dump(&store).await, before);
        snapshot(&repository, &folder).await;
    }
}

#[tokio::test]
async fn what_is_stored_once_is_not_stored_again() {
    let (folder, store) = (Folder::new(), memory());
    let repository = create(&store).await;
    let noise = Random::new(4).bytes(3_000_000);
    folder.write("original", &noise);
    let first = backup(&repository, &folder).await.stats;
    folder.write("copy", &noise);
    folder.write("shifted", [&b"a few bytes in front"[..], &noise].concat());
    let second = backup(&repository, &folder).await.stats;
    assert!(first.stored_bytes >= 3_000_000);
    assert!(second.stored_bytes < 400_000, "{second:?}");
    // In another series, by another process.
    let third = backup_with(&open(&store).await, &folder, &series("another")).await.stats;
    assert_eq!((third.bytes_read, third.new_blobs, third.stored_bytes), (9_000_020, 0, 0));
}

#[tokio::test]
async fn noise_is_stored_as_it_is_and_text_compressed() {
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    folder.write("photo", Random::new(5).bytes(8_000_000));
    let noise = backup(&repository, &folder).await.stats;
    assert!((8_000_000..8_020_000).contains(&noise.stored_bytes), "{noise:?}");
    folder.write("text", Random::new(6).text(2_000_000));
    let text = backup(&repository, &folder).await.stats;
    assert!(text.stored_bytes < 1_000_000, "{text:?}");
    folder.write("zeros", vec![0; 8_000_000]);
    let zeros = backup(&repository, &folder).await.stats;
    assert!(zeros.stored_bytes < 10_000, "{zeros:?}");
}

#[tokio::test]
async fn a_large_folder_is_no_special_case() {
    let entries = if cfg!(debug_assertions) { 5_000 } else { 100_000 };
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    for number in 0..entries {
        folder.write(format!("{number}"), "");
    }
    let first = backup(&repository, &folder).await;
    assert_eq!((first.stats.files, first.stats.folders), (entries, 1));
    folder.write(format!("{}", entries / 2), "changed");
    let second = backup(&repository, &folder).await;
    assert_eq!((second.stats.changed, second.stats.bytes_read), (1, 7));
    // One path through the tree, not the folder.
    assert!(second.stats.new_bytes < 40_000, "{:?}", second.stats);
    let snapshot = second.snapshot.unwrap();
    assert_eq!(keys(&repository, &snapshot).await.len() as u64, entries + 1);
    let key = folder.key(format!("{}", entries / 2));
    assert_eq!(read(&repository, &snapshot, &key).await, b"changed");
}

#[tokio::test]
async fn names_are_bytes() {
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    for name in [&b"\xff\xfe"[..], b"\x80/\xc3(/x", b"new\nline", b"-rf", b"..a", b"*"] {
        folder.write(Path::new(OsStr::from_bytes(name)), name);
    }
    let snapshot = snapshot(&repository, &folder).await;
    assert_eq!(contents(&repository, &snapshot).await, folder.files());
}

#[tokio::test]
async fn a_huge_hole_takes_no_time() {
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    let path = folder.write("disk image", "at the start");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"at the end", (1 << 40) - 10).unwrap();
    let mut middle = file;
    middle.seek(SeekFrom::Start(1 << 39)).unwrap();
    middle.write_all(b"in the middle").unwrap();
    let backup = tokio::time::timeout(Duration::from_secs(20), backup(&repository, &folder));
    let report = backup.await.expect("a hole of a terabyte is passed over");
    assert_eq!(report.stats.bytes, 1 << 40);
    assert!(report.stats.bytes_read < 1 << 20 && report.stats.stored_bytes < 20_000, "{:?}", report.stats);
    let snapshot = report.snapshot.unwrap();
    let entry = repository.entry(&snapshot, &folder.key("disk image")).await.unwrap().unwrap();
    assert!(matches!(entry.content, Payload::Pieces(_)), "{entry:?}");
    let mut reader = repository.read_file(&snapshot, &folder.key("disk image")).await.unwrap();
    for (at, expected) in [((1 << 40) - 12, &b"\0\0at the end"[..]), ((1 << 39) - 1, b"\0in the middle\0"), (0, b"at")]
    {
        let mut bytes = vec![1; expected.len()];
        reader.seek(SeekFrom::Start(at)).await.unwrap();
        reader.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, expected);
    }
}
