//! Checks of sound repositories, and of repositories in which something is left over.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backstop::{
    BackupOptions, CheckOptions, CheckReport, ChunkerParameters, CreateOptions, FindingKind, ForgetOptions, Key,
    NoProgress, OpenOptions, Phase, Progress, Repository, Secret,
};
use common::{Fault, FaultyStore, Kind, Random, Reply};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

fn secret() -> Secret {
    Secret::key([7; 32])
}

async fn create(store: &Arc<dyn ObjectStore>) -> Repository {
    let options = CreateOptions::default().with_chunker(ChunkerParameters { min: 64, mean: 256, max: 1024 });
    Repository::create(Arc::clone(store), &secret(), options).await.unwrap()
}

async fn open(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Arc::clone(store), &secret(), OpenOptions::default()).await.unwrap()
}

fn fill(folder: &Path, round: u64) {
    std::fs::create_dir_all(folder.join("photos/empty")).unwrap();
    let mut random = Random::new(round);
    std::fs::write(folder.join(format!("photos/{round}.jpg")), random.bytes(30_000)).unwrap();
    std::fs::write(folder.join("text"), format!("round {round}\n").repeat(300)).unwrap();
    std::fs::write(folder.join("unchanged"), Random::new(99).bytes(5000)).unwrap();
    for number in 0..200 {
        std::fs::write(folder.join(format!("small {number}")), format!("{number}")).unwrap();
    }
    // Many sequences of chunks, whose nodes share blocks with the leaves.
    std::fs::create_dir_all(folder.join("many")).unwrap();
    for number in 0..200 {
        std::fs::write(folder.join(format!("many/{number}")), Random::new(1000 + number).bytes(15_000)).unwrap();
    }
}

async fn backup(repository: &Repository, folder: &Path, options: &BackupOptions) -> backstop::BackupReport {
    repository.backup(&[PathBuf::from(folder)], options, Arc::new(NoProgress)).await.unwrap()
}

async fn check(repository: &Repository, percent: Option<f64>) -> CheckReport {
    let mut options = CheckOptions::default();
    options.read_data_percent = percent;
    // Embedders spawn: the future must be able to move between threads.
    let repository = repository.clone();
    tokio::spawn(async move { repository.check(&options, Arc::new(NoProgress)).await }).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_sound_repository_has_no_findings() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = create(&store).await;
    let report = check(&repository, Some(100.0)).await;
    assert_eq!((report.findings.len(), report.snapshots, report.packs), (0, 0, 0));

    let folder = tempfile::tempdir().unwrap();
    let options = BackupOptions::default().with_series("one");
    for round in 0..3 {
        fill(folder.path(), round);
        backup(&repository, folder.path(), &options).await;
    }
    std::fs::remove_dir_all(folder.path().join("photos")).unwrap();
    backup(&repository, folder.path(), &options).await;
    backup(&repository, folder.path(), &BackupOptions::default().with_series("two")).await;
    backup(&repository, folder.path(), &options.clone().with_dry_run(true)).await;
    let name = Key::from_path("a/dump").unwrap();
    let dump = Random::new(5).bytes(20_000);
    repository.backup_stream(&name, &dump[..], &options, Arc::new(NoProgress)).await.unwrap();
    repository.add_key(&Secret::key([8; 32]), "another").await.unwrap();

    for percent in [None, Some(30.0), Some(100.0)] {
        let report = check(&open(&store).await, percent).await;
        assert_eq!(report.findings, [], "{percent:?}");
        assert!(report.is_sound());
        assert_eq!(report.snapshots, 6);
        assert!(report.nodes > 10 && report.entries > 200 && report.blobs > 100 && report.segments > 3, "{report:?}");
        match percent {
            None => assert_eq!((report.packs_read, report.bytes_read), (0, 0)),
            Some(100.0) => assert_eq!((report.packs_read, report.bytes_read), (report.packs, report.pack_bytes)),
            // Which packs is left to chance; the large one may come last.
            Some(_) => assert!(report.bytes_read * 10 >= report.pack_bytes * 3),
        }
    }
}

#[tokio::test]
async fn a_share_of_several_packs_is_read() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = Repository::create(Arc::clone(&store), &secret(), CreateOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), Random::new(3).bytes(40 << 20)).unwrap();
    backup(&repository, folder.path(), &BackupOptions::default()).await;
    let whole = check(&repository, Some(100.0)).await;
    assert!(whole.is_sound() && whole.packs > 3, "{whole:?}");
    let half = check(&repository, Some(50.0)).await;
    assert!(half.is_sound());
    assert!((1..whole.packs).contains(&half.packs_read) && half.bytes_read * 2 >= whole.bytes_read, "{half:?}");
    assert_eq!(half.blobs, whole.blobs);
}

#[tokio::test]
async fn what_a_failed_backup_leaves_is_no_defect() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0);
    backup(&create(&store).await, folder.path(), &BackupOptions::default()).await;

    // The pack arrives, the index segment doesn't.
    fill(folder.path(), 1);
    let denied = Fault { done: false, reply: Reply::Denied };
    let faulty = FaultyStore::nth(Arc::clone(&store), Kind::Put, "index/", 0, denied);
    let repository = Repository::open(faulty.shared(), &secret(), OpenOptions::default()).await.unwrap();
    let paths = [folder.path().to_owned()];
    repository.backup(&paths, &BackupOptions::default(), Arc::new(NoProgress)).await.unwrap_err();
    let report = check(&open(&store).await, Some(100.0)).await;
    assert!(report.is_sound() && report.findings.len() == 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].kind, FindingKind::Leftover);
    assert!(report.findings[0].object.starts_with("packs/"));

    // Neither does the end of the registration.
    let names = |prefix: &'static str| {
        let store = Arc::clone(&store);
        async move { store.list(Some(&prefix.into())).try_collect::<Vec<_>>().await.unwrap() }
    };
    let faulty = FaultyStore::dead_after(Arc::clone(&store), 12);
    let repository = Repository::open(faulty.shared(), &secret(), OpenOptions::default()).await.unwrap();
    repository.backup(&paths, &BackupOptions::default(), Arc::new(NoProgress)).await.unwrap_err();
    let writers = names("writers").await;
    assert_eq!(writers.iter().filter(|meta| !meta.location.as_ref().ends_with("-ended")).count(), 3);
    store.put(&"keys/notes.txt".into(), "not ours".into()).await.unwrap();
    let report = check(&open(&store).await, None).await;
    assert!(report.is_sound(), "{:?}", report.findings);
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&FindingKind::Foreign) && kinds.contains(&FindingKind::Leftover));
    assert!(report.findings.iter().any(|finding| finding.object.starts_with("writers/")));

    // A later backup goes on, and what it shares with the leftover is stored again.
    backup(&open(&store).await, folder.path(), &BackupOptions::default()).await;
    assert!(check(&open(&store).await, Some(100.0)).await.is_sound());
}

#[tokio::test]
async fn shares_that_are_none_are_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = create(&store).await;
    for percent in [0.0, -1.0, 100.1, f64::NAN] {
        let options = CheckOptions::default().with_read_data(percent);
        assert!(repository.check(&options, Arc::new(NoProgress)).await.is_err(), "{percent}");
    }
}

#[tokio::test]
async fn a_check_tells_where_it_stands_and_may_be_dropped() {
    #[derive(Default)]
    struct Heard {
        phases: Mutex<Vec<Phase>>,
        bytes: AtomicU64,
    }
    impl Progress for Heard {
        fn phase(&self, phase: Phase) {
            self.phases.lock().unwrap().push(phase);
        }
        fn advance(&self, _files: u64, bytes: u64) {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = create(&store).await;
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0);
    backup(&repository, folder.path(), &BackupOptions::default()).await;

    let (options, heard) = (CheckOptions::default().with_read_data(100.0), Arc::new(Heard::default()));
    let report = repository.check(&options, Arc::clone(&heard) as Arc<dyn Progress>).await.unwrap();
    assert_eq!(
        *heard.phases.lock().unwrap(),
        [Phase::CheckingStructure, Phase::CheckingData, Phase::CheckingStructure]
    );
    assert_eq!(heard.bytes.load(Ordering::Relaxed), report.bytes_read);

    for millis in 0..10 {
        let running = repository.check(&options, Arc::new(NoProgress));
        drop(tokio::time::timeout(std::time::Duration::from_millis(millis), running).await);
    }
    assert!(check(&repository, Some(100.0)).await.is_sound());
}

#[tokio::test]
async fn a_store_that_fails_is_an_error_and_no_finding() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = create(&store).await;
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0);
    backup(&repository, folder.path(), &BackupOptions::default()).await;
    let denied = Fault { done: false, reply: Reply::Denied };
    for prefix in ["keys/", "commits/", "index/", "packs/"] {
        // The first read of a key slot opens the repository.
        let nth = u64::from(prefix == "keys/");
        let faulty = FaultyStore::nth(Arc::clone(&store), Kind::Get, prefix, nth, denied);
        let repository = Repository::open(faulty.shared(), &secret(), OpenOptions::default()).await.unwrap();
        let error = repository.check(&CheckOptions::default(), Arc::new(NoProgress)).await.unwrap_err();
        assert!(!error.is_corrupt() && error.to_string().contains(prefix), "{error}");
    }
}

/// Backs up two versions of a file and takes away what only the first needs; false if their trees happen to share a node,
/// as the keys of one repository in some thirty make them.
async fn a_pack_is_gone() -> bool {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = create(&store).await;
    let folder = tempfile::tempdir().unwrap();
    let packs = async || -> Vec<_> {
        store.list(Some(&"packs".into())).map_ok(|meta| meta.location).try_collect().await.unwrap()
    };
    std::fs::write(folder.path().join("file"), Random::new(1).bytes(40_000)).unwrap();
    backup(&repository, folder.path(), &BackupOptions::default()).await;
    let first = packs().await;
    std::fs::write(folder.path().join("file"), Random::new(2).bytes(40_000)).unwrap();
    backup(&repository, folder.path(), &BackupOptions::default()).await;

    // As a collection does that leaves the segments alone which say little that doesn't hold any more.
    for pack in &first {
        store.delete(pack).await.unwrap();
    }
    let report = check(&open(&store).await, None).await;
    assert!(report.defects > 0, "{report:?}");
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::Missing && finding.affected_count > 0));
    let named = ForgetOptions::default().with_snapshot("default", 1).with_undelete_for(std::time::Duration::ZERO);
    repository.forget(&repository.plan_forget(&named).await.unwrap()).await.unwrap();
    let report = check(&open(&store).await, None).await;
    if report.findings.iter().any(|finding| finding.affected.iter().any(|what| what.contains("everything from"))) {
        return false;
    }
    assert!(report.is_sound(), "{:?}", report.findings);
    let told = |finding: &backstop::Finding| (finding.kind, finding.object.clone());
    let expected: Vec<_> = first.iter().map(|pack| (FindingKind::Leftover, pack.to_string())).collect();
    assert_eq!(report.findings.iter().map(told).collect::<Vec<_>>(), expected);
    true
}

#[tokio::test]
async fn a_pack_that_is_gone_is_a_defect_only_where_a_snapshot_needs_it() {
    let mut told = false;
    for _ in 0..6 {
        told = told || a_pack_is_gone().await;
    }
    assert!(told);
}
