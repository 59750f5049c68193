//! Restoring through the public interface: round trips, over what is there,
//! parts, links, holes, damage, and a restore that was stopped.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop::{
    BackupOptions, ChunkerParameters, CreateOptions, Error, Key, NoProgress, Progress, Repository, RestoreOptions,
    RestoreReport, Secret, Snapshot,
};
use common::{Random, compare_trees, make_tree};
use tempfile::TempDir;

/// A repository and a source folder to fill.
struct Fixture {
    dir: TempDir,
    repository: Repository,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(CreateOptions::default()).await
    }

    async fn with(options: CreateOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        let repository = Repository::create(dir.path().join("repository"), &secret(), options).await.unwrap();
        Self { dir, repository }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.at("source").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The key of a path in the source, as absolute paths are stored.
    fn key(&self, path: &str) -> Key {
        let path = self.at("source").join(path);
        Key::from_path(path.to_str().unwrap().trim_start_matches('/').trim_end_matches('/')).unwrap()
    }

    /// Where a path of the source is restored to.
    fn target_of(&self, path: &str) -> PathBuf {
        self.at("target").join(path)
    }

    async fn backup(&self) -> Snapshot {
        let report = self
            .repository
            .backup(&[self.at("source")], &BackupOptions::default(), Arc::new(NoProgress))
            .await
            .unwrap();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        report.snapshot.unwrap()
    }

    async fn try_restore(
        &self,
        snapshot: &Snapshot,
        path: &str,
        options: RestoreOptions,
    ) -> Result<RestoreReport, Error> {
        let key = self.key(path);
        self.repository.restore(snapshot, Some(&key), &self.at("target"), &options, Arc::new(NoProgress)).await
    }

    /// Restores the source, which must go without failures.
    async fn restore(&self, snapshot: &Snapshot, options: RestoreOptions) -> RestoreReport {
        let report = self.try_restore(snapshot, "", options).await.unwrap();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        report
    }

    fn assert_same(&self) {
        let differences = compare_trees(&self.at("source"), &self.at("target"));
        assert!(differences.is_empty(), "{differences:#?}");
    }
}

fn secret() -> Secret {
    Secret::key([7; 32])
}

fn plain() -> RestoreOptions {
    RestoreOptions::default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_file_comes_back_with_its_metadata() {
    let fixture = Fixture::new().await;
    let left_out = make_tree(&fixture.at("source"), 1);
    fs::set_permissions(fixture.at("source"), fs::Permissions::from_mode(0o751)).unwrap();
    let snapshot = fixture.backup().await;

    let report = fixture.restore(&snapshot, plain()).await;
    fixture.assert_same();
    assert_eq!(fs::metadata(fixture.at("target")).unwrap().mode() & 0o7777, 0o751, "the folder's own mode");
    assert_eq!(report.unchanged, 0);
    assert_eq!((report.files, report.bytes), (snapshot.stats.files, snapshot.stats.bytes));
    // The snapshot also has the folders on the way to the source.
    assert_eq!(report.folders, snapshot.stats.folders - (fixture.key("").depth() as u64 - 1));
    assert_eq!(report.others, snapshot.stats.others);

    // Once more: all is there, nothing is written, nothing is touched.
    let changed = |path: &str| fs::metadata(fixture.at("target").join(path)).unwrap().ctime_nsec();
    let before = ["files/large.c", "links/hard", "modes/0000", ""].map(changed);
    let again = fixture.restore(&snapshot, plain()).await;
    fixture.assert_same();
    assert_eq!(again.bytes_written, 0);
    assert_eq!(again.unchanged, again.files, "{left_out:?}");
    assert_eq!(before[..3], ["files/large.c", "links/hard", "modes/0000"].map(changed));

    // The whole snapshot keeps the path from the root.
    let whole = fixture.at("whole");
    fixture.repository.restore(&snapshot, None, &whole, &plain(), Arc::new(NoProgress)).await.unwrap();
    let inside = whole.join(fixture.at("source").strip_prefix("/").unwrap());
    assert_eq!(compare_trees(&fixture.at("source"), &inside), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn over_an_existing_tree_only_what_differs_is_written() {
    let fixture = Fixture::new().await;
    make_tree(&fixture.at("source"), 2);
    let snapshot = fixture.backup().await;
    fixture.restore(&snapshot, plain()).await;

    let target = |path: &str| fixture.at("target").join(path);
    // One byte in the middle, with the time set back so that nothing but the content tells.
    let photo = fs::File::options().write(true).open(target("files/photo.jpg")).unwrap();
    let time = fs::metadata(target("files/photo.jpg")).unwrap().modified().unwrap();
    photo.write_all_at(b"?", 2_500_000).unwrap();
    photo.set_modified(time).unwrap();
    let report = fixture.restore(&snapshot, plain()).await;
    fixture.assert_same();
    assert!((1..=256 << 10).contains(&report.bytes_written), "{}", report.bytes_written);
    assert_eq!(report.unchanged, report.files - 1);

    fs::write(target("files/small.txt"), "a small FILE\n").unwrap();
    fs::File::options().write(true).open(target("files/large.c")).unwrap().set_len(1_700_000).unwrap();
    let mut longer = fs::read(target("files/sizes/65536")).unwrap();
    longer.extend_from_slice(b"and more");
    fs::write(target("files/sizes/65536"), longer).unwrap();
    fs::File::options().write(true).open(target("sparse/islands")).unwrap().write_all_at(b"no hole", 20 << 20).unwrap();
    fs::remove_file(target("files/zeros")).unwrap();
    fs::create_dir_all(target("files/zeros/in/the way")).unwrap();
    fs::remove_dir_all(target("folders/many")).unwrap();
    fs::write(target("folders/many"), "a file").unwrap();
    fs::remove_file(target("links/relative")).unwrap();
    symlink("elsewhere", target("links/relative")).unwrap();
    fs::remove_file(target("links/dangling")).unwrap();
    fs::write(target("links/dangling"), "").unwrap();
    fs::set_permissions(target("files/empty"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(target("links/hard/second")).unwrap();
    fs::copy(target("links/hard/first"), target("links/hard/second")).unwrap();
    fs::remove_file(target("links/hard/stranger")).unwrap();
    fs::hard_link(target("links/hard/first"), target("links/hard/stranger")).unwrap();

    let dry = fixture.restore(&snapshot, plain().with_dry_run(true)).await;
    assert!(!compare_trees(&fixture.at("source"), &fixture.at("target")).is_empty());
    let report = fixture.restore(&snapshot, plain()).await;
    fixture.assert_same();
    assert!(report.bytes_written > 1_300_000 + 1_500_000, "{}", report.bytes_written);
    assert!(report.bytes_written < 5_000_000, "{}", report.bytes_written);
    assert_eq!(dry.bytes_written, report.bytes_written);
    assert_eq!(dry.deleted, report.deleted);
    assert_eq!(dry.unchanged, report.unchanged);
    assert_eq!(report.deleted, 3 + 1 + 1, "what stood in the way");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_snapshot_lacks_is_removed_on_request_alone() {
    let fixture = Fixture::new().await;
    for name in ["a/one", "a/two", "b", "c/d/e", "ab"] {
        fixture.write(name, name);
    }
    let snapshot = fixture.backup().await;
    fixture.restore(&snapshot, plain()).await;
    let target = |path: &str| fixture.at("target").join(path);
    for name in ["a/extra", "a/0", "zz/deep/er", "c/d/e2", "a!"] {
        fs::create_dir_all(target(name).parent().unwrap()).unwrap();
        fs::write(target(name), "extra").unwrap();
    }
    symlink("/etc", target("c/etc")).unwrap();

    let report = fixture.restore(&snapshot, plain()).await;
    assert_eq!(report.deleted, 0);
    assert!(target("zz/deep/er").exists());
    let dry = fixture.restore(&snapshot, plain().with_delete(true).with_dry_run(true)).await;
    assert_eq!(dry.deleted, 8);
    assert!(target("zz/deep/er").exists());
    let one = fixture.try_restore(&snapshot, "b", plain().with_delete(true)).await.unwrap();
    assert_eq!((one.files, one.deleted), (1, 0), "one file says nothing of its neighbours");
    let report = fixture.restore(&snapshot, plain().with_delete(true)).await;
    assert_eq!(report.deleted, 8);
    fixture.assert_same();
    assert!(Path::new("/etc").is_dir());

    let nowhere = fixture.at("nowhere");
    let options = plain().with_dry_run(true).with_delete(true);
    let report = fixture.repository.restore(&snapshot, None, &nowhere, &options, Arc::new(NoProgress)).await.unwrap();
    assert_eq!((report.files, report.bytes_written, report.deleted), (5, report.bytes, 0));
    assert!(!nowhere.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_snapshot_are_restored_alone() {
    let fixture = Fixture::new().await;
    fixture.write("folder/sub/file", "content");
    fixture.write("folder/other", "other");
    symlink("other", fixture.at("source/folder/link")).unwrap();
    let snapshot = fixture.backup().await;
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(fixture.at("target")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };

    fixture.try_restore(&snapshot, "folder/sub/file", plain()).await.unwrap();
    assert_eq!(names(), ["file"]);
    fixture.try_restore(&snapshot, "folder/link", plain()).await.unwrap();
    assert_eq!(names(), ["file", "link"]);
    fixture.try_restore(&snapshot, "folder", plain().with_delete(true)).await.unwrap();
    assert_eq!(names(), ["link", "other", "sub"]);
    assert_eq!(compare_trees(&fixture.at("source/folder"), &fixture.at("target")), Vec::<String>::new());

    // A path that is only on the way to entries.
    let on_the_way = Key::from_path("tmp").unwrap();
    if fixture.at("").starts_with("/tmp") {
        let report = fixture
            .repository
            .restore(&snapshot, Some(&on_the_way), &fixture.at("way"), &plain(), Arc::new(NoProgress))
            .await
            .unwrap();
        assert_eq!(report.files, 2);
    }
    for absent in ["folder/nothing", "fold", "folder/other/below"] {
        fs::remove_dir_all(fixture.at("target")).ok();
        let error = fixture.try_restore(&snapshot, absent, plain()).await.unwrap_err();
        assert!(error.is_not_found(), "{absent}: {error}");
        assert!(!fixture.at("target").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinks_on_the_way_are_replaced_and_never_followed() {
    let fixture = Fixture::new().await;
    fixture.write("folder/sub/victim", "restored");
    fixture.write("file", "restored");
    let snapshot = fixture.backup().await;
    let outside = fixture.at("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("sub/victim"), "safe").unwrap();
    fs::create_dir(fixture.at("target")).unwrap();
    symlink(&outside, fixture.at("target/folder")).unwrap();
    symlink(outside.join("sub/victim"), fixture.at("target/file")).unwrap();
    let dry = fixture.restore(&snapshot, plain().with_dry_run(true).with_delete(true)).await;
    assert_eq!((dry.deleted, dry.bytes_written), (2, 16));
    fixture.restore(&snapshot, plain().with_delete(true)).await;
    fixture.assert_same();
    assert_eq!(fs::read(outside.join("sub/victim")).unwrap(), b"safe");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pack_costs_the_files_in_it_and_no_others() {
    let fixture = Fixture::new().await;
    let mut random = Random::new(3);
    for n in 0..10 {
        fixture.write(&format!("lost/{n}"), random.bytes(300_000));
    }
    fs::hard_link(fixture.at("source/lost/3"), fixture.at("source/lost/three")).unwrap();
    fixture.backup().await;
    let packs = || {
        let mut found = Vec::new();
        for folder in fs::read_dir(fixture.at("repository/packs")).unwrap() {
            found.extend(fs::read_dir(folder.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
        }
        found
    };
    let old = packs();
    for n in 0..10 {
        fixture.write(&format!("kept/{n}"), random.bytes(300_000));
        fixture.write(&format!("kept/small {n}"), "small");
    }
    let snapshot = fixture.backup().await;
    fixture.restore(&snapshot, plain()).await;
    // An old state of one file stands there, and a good one of another.
    fs::remove_dir_all(fixture.at("target/kept")).unwrap();
    for n in 0..9 {
        fs::remove_file(fixture.at(&format!("target/lost/{n}"))).unwrap();
    }
    fs::remove_file(fixture.at("target/lost/three")).unwrap();
    let damaged = old.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(damaged).unwrap();
    // Behind the nodes, which stand at the beginning.
    for at in (50_000..bytes.len() - 10_000).step_by(50_000) {
        bytes[at] ^= 1;
    }
    fs::set_permissions(damaged, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(damaged, bytes).unwrap();

    let repository =
        Repository::open(fixture.at("repository"), &secret(), backstop::OpenOptions::default()).await.unwrap();
    let key = fixture.key("");
    let report =
        repository.restore(&snapshot, Some(&key), &fixture.at("target"), &plain(), Arc::new(NoProgress)).await.unwrap();
    assert!(report.is_partial());
    assert_eq!(report.failure_count, 10, "{:#?}", report.failures);
    let name = damaged.file_name().unwrap().to_str().unwrap();
    for failure in &report.failures {
        assert!(failure.path.contains("/lost/"), "{failure:?}");
        assert!(failure.reason.contains(name) || failure.path.ends_with("three"), "{failure:?}");
    }
    assert_eq!(
        compare_trees(&fixture.at("source/kept"), &fixture.at("target/kept")),
        Vec::<String>::new(),
        "the others are whole"
    );
    let left: Vec<_> = fs::read_dir(fixture.at("target/lost")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["9"], "what can't be completed isn't left behind");
    assert_eq!(fs::read(fixture.at("target/lost/9")).unwrap(), fs::read(fixture.at("source/lost/9")).unwrap());

    // With the pack gone altogether it is the same.
    fs::remove_file(damaged).unwrap();
    let report =
        repository.restore(&snapshot, Some(&key), &fixture.at("target"), &plain(), Arc::new(NoProgress)).await.unwrap();
    assert_eq!((report.failure_count, report.bytes_written), (10, 0), "{:#?}", report.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_with_thousands_of_chunks_are_restored_in_portions() {
    let chunker = ChunkerParameters { min: 256, mean: 512, max: 2048 };
    let fixture = Fixture::with(CreateOptions::default().with_chunker(chunker)).await;
    let mut content = Random::new(4).bytes(12 << 20);
    let part = content[..1 << 20].to_vec();
    content.extend_from_slice(&part);
    content.extend_from_slice(&[0; 1 << 20]);
    fixture.write("huge", &content);
    fixture.write("huge too", &content);
    fixture.write("small", "small");
    let snapshot = fixture.backup().await;
    let report = fixture.restore(&snapshot, plain()).await;
    fixture.assert_same();
    assert_eq!(report.bytes_written, report.bytes);

    let huge = fs::File::options().write(true).open(fixture.at("target/huge")).unwrap();
    for at in [0, 5_000_000, 11 << 20] {
        huge.write_all_at(b"xyz", at).unwrap();
    }
    huge.set_len(13 << 20).unwrap();
    let report = fixture.restore(&snapshot, plain()).await;
    fixture.assert_same();
    // The zeros at the end are there again as soon as the file has its length.
    assert!((9..10_000).contains(&report.bytes_written), "{}", report.bytes_written);
    assert_eq!(report.unchanged, 2);
    // A file with other names is replaced, not written through.
    fs::hard_link(fixture.at("target/huge"), fixture.at("elsewhere")).unwrap();
    huge.write_all_at(b"xyz", 7_000_000).unwrap();
    let report = fixture.restore(&snapshot, plain()).await;
    fixture.assert_same();
    assert_eq!(report.bytes_written, content.len() as u64);
    assert_eq!(&fs::read(fixture.at("elsewhere")).unwrap()[7_000_000..7_000_003], b"xyz");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_sparse_file_takes_no_room() {
    let fixture = Fixture::new().await;
    let file = fs::File::create(fixture.at("source/sparse")).unwrap();
    file.write_all_at(&[7; 5000], 1 << 30).unwrap();
    file.set_len(1 << 40).unwrap();
    let snapshot = fixture.backup().await;
    for _ in 0..2 {
        let report = fixture.restore(&snapshot, plain()).await;
        fixture.assert_same_sparse();
        assert!(report.bytes_written <= 64 << 10, "{}", report.bytes_written);
    }
}

impl Fixture {
    /// Comparing a tebibyte byte by byte would take too long.
    fn assert_same_sparse(&self) {
        let restored = fs::File::open(self.at("target/sparse")).unwrap();
        let metadata = restored.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 40);
        assert!(metadata.blocks() * 512 < 1 << 20);
        let mut bytes = vec![0; 5002];
        restored.read_exact_at(&mut bytes, (1 << 30) - 1).unwrap();
        assert_eq!((bytes[0], bytes[5001]), (0, 0));
        assert!(bytes[1..5001].iter().all(|byte| *byte == 7));
    }
}

/// Ends the restore after so many bytes, by way of a signal to the test.
struct Until {
    bytes: AtomicU64,
    limit: u64,
    reached: tokio::sync::Notify,
}

impl Progress for Until {
    fn advance(&self, _: u64, bytes: u64) {
        if self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes >= self.limit {
            self.reached.notify_one();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_stopped_is_continued() {
    let fixture = Fixture::new().await;
    let mut random = Random::new(5);
    for n in 0..300 {
        fixture.write(&format!("{}/{n}", n % 7), random.bytes(100_000));
    }
    let snapshot = fixture.backup().await;
    let key = fixture.key("");
    let target = fixture.at("target");
    for limit in [1, 5_000_000, 15_000_000] {
        let until = Arc::new(Until { bytes: AtomicU64::new(0), limit, reached: tokio::sync::Notify::new() });
        let (options, progress) = (plain(), Arc::clone(&until));
        let restore = fixture.repository.restore(&snapshot, Some(&key), &target, &options, progress);
        tokio::select! {
            report = restore => drop(report.unwrap()),
            () = until.reached.notified() => {}
        }
        // Threads end their last file.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let report = fixture.restore(&snapshot, plain()).await;
    fixture.assert_same();
    assert!(report.bytes_written < report.bytes, "{} of {}", report.bytes_written, report.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_very_many_entries_comes_back() {
    let count = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let fixture = Fixture::new().await;
    for n in 0..count {
        fixture.write(&format!("many/{n}"), if n % 3 == 0 { n.to_string() } else { String::new() });
    }
    let snapshot = fixture.backup().await;
    let report = fixture.restore(&snapshot, plain()).await;
    assert_eq!(report.files, count);
    fixture.assert_same();
    fs::write(fixture.at("target/many/extra"), "").unwrap();
    fs::remove_file(fixture.at("target/many/777")).unwrap();
    let report = fixture.restore(&snapshot, plain().with_delete(true)).await;
    assert_eq!((report.deleted, report.bytes_written, report.unchanged), (1, 3, count - 1));
    fixture.assert_same();
}

/// A user that is nobody here.
const STRANGER: u32 = 65_534;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("what concerns owners is skipped: only root can give files away");
    }
    is_root
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn whoever_holds_an_old_file_open_neither_reads_nor_changes_what_is_restored() {
    let fixture = Fixture::new().await;
    let long = |fill: &str| fill.repeat(300_000);
    for (name, content) in [("short", "secret".to_owned()), ("long", long("s"))] {
        fixture.write(name, &content);
        set_mode(fixture.at("source").join(name), 0o600);
    }
    let snapshot = fixture.backup().await;
    for name in ["short", "long"] {
        let content = fs::read(fixture.at("source").join(name)).unwrap();
        let other = vec![b'o'; content.len()];
        // The content that stands there, its mode, whether a stranger owns it, and whether it may stay the same file.
        let cases =
            [(&other, 0o666, false), (&content, 0o666, false), (&content, 0o620, false), (&other, 0o640, false)];
        let with_owner = [(&other, 0o600, true), (&content, 0o600, true)];
        for (before, mode, strange) in cases.into_iter().chain(with_owner) {
            if strange && !is_root() {
                continue;
            }
            let path = fixture.target_of(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, before).unwrap();
            set_mode(&path, mode);
            if strange {
                chown(&path, Some(STRANGER), None).unwrap();
            }
            let held = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let inode = held.metadata().unwrap().ino();
            fixture.restore(&snapshot, plain()).await;
            let case = format!("{name}, mode {mode:o}, same content: {}, a stranger's: {strange}", before == &content);
            assert_ne!(fs::metadata(&path).unwrap().ino(), inode, "{case}");
            held.write_all_at(b"overwritten", 0).unwrap();
            assert!(fs::read(&path).unwrap() == content, "{case}");
            let mut seen = vec![0; content.len()];
            held.read_at(&mut seen, 0).unwrap();
            assert!(before == &content || !seen.ends_with(&content[11.min(content.len() - 1)..]), "{case}");
            fixture.assert_same();
        }
    }
    // What was only readable by others, and is the same, isn't written once more.
    let path = fixture.target_of("long");
    set_mode(&path, 0o644);
    let inode = fs::metadata(&path).unwrap().ino();
    let report = fixture.restore(&snapshot, plain()).await;
    assert_eq!((report.bytes_written, fs::metadata(&path).unwrap().ino()), (0, inode));
    fixture.assert_same();
    assert_eq!(fixture.restore(&snapshot, plain()).await.unchanged, 2);
}

/// Looks at a folder whenever something was written.
#[derive(Debug)]
struct Watcher {
    folder: PathBuf,
    seen: std::sync::Mutex<Vec<(u32, u32)>>,
}

impl Progress for Watcher {
    fn advance(&self, _: u64, bytes: u64) {
        if bytes > 0 {
            let stat = fs::metadata(&self.folder).unwrap();
            self.seen.lock().unwrap().push((stat.uid(), stat.mode() & 0o777));
        }
    }
}

#[tokio::test]
async fn root_takes_over_a_folder_that_others_can_write_to_while_it_restores_into_it() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new().await;
    fixture.write("sub/file", "content");
    set_mode(fixture.at("source/sub"), 0o755);
    let snapshot = fixture.backup().await;
    for (owner, mode) in [(STRANGER, 0o755), (0, 0o777)] {
        let folder = fixture.target_of("sub");
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        set_mode(&folder, mode);
        chown(&folder, Some(owner), Some(owner)).unwrap();
        let watcher = Arc::new(Watcher { folder, seen: std::sync::Mutex::default() });
        let progress = Arc::clone(&watcher) as Arc<dyn Progress>;
        let to = fixture.at("target");
        fixture.repository.restore(&snapshot, Some(&fixture.key("")), &to, &plain(), progress).await.unwrap();
        assert_eq!(*watcher.seen.lock().unwrap(), [(0, 0o700)], "owner {owner}, mode {mode:o}");
        fixture.assert_same();
    }
}

#[tokio::test]
async fn what_could_give_rights_here_can_be_left_out() {
    let fixture = Fixture::new().await;
    fixture.write("program", "#!/bin/sh");
    let path = fixture.at("source/program");
    if is_root() {
        chown(&path, Some(STRANGER), Some(STRANGER)).unwrap();
    }
    set_mode(&path, 0o6755);
    let flags = rustix::fs::XattrFlags::empty();
    let labelled = rustix::fs::setxattr(&path, "user.label", b"x", flags).is_ok();
    rustix::fs::mkfifoat(rustix::fs::CWD, fixture.at("source/fifo"), rustix::fs::Mode::RUSR).unwrap();
    let snapshot = fixture.backup().await;

    let options =
        plain().with_owners(false).with_set_id(false).with_special_files(false).with_extended_attributes(false);
    for round in 0..2 {
        let report = fixture.restore(&snapshot, options.clone()).await;
        assert_eq!((report.others, report.left_out, report.unchanged), (1, 1, round));
        let restored = fixture.target_of("program");
        let stat = fs::metadata(&restored).unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o7777), (rustix::process::geteuid().as_raw(), 0o755));
        assert!(rustix::fs::getxattr(&restored, "user.label", &mut [0; 8]).is_err());
        assert!(!fixture.target_of("fifo").exists());
    }
    let report = fixture.restore(&snapshot, plain()).await;
    assert_eq!(report.left_out, 0);
    fixture.assert_same();
    let stat = fs::metadata(fixture.target_of("program")).unwrap();
    assert_eq!(stat.mode() & 0o7777, 0o6755);
    assert_eq!(rustix::fs::getxattr(fixture.target_of("program"), "user.label", &mut [0; 8]).is_ok(), labelled);
}
