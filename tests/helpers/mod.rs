//! What tests of whole repositories share: folders to back up, repositories on any store, and ways to look into both.

#![allow(dead_code, unreachable_pub, reason = "each test target uses its own part of this")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use backstop::{
    BackupOptions, BackupReport, Clock, CreateOptions, EntryKind, Key, NoProgress, OpenOptions, Progress, Repository,
    Secret, Snapshot, Surroundings, SystemEntropy, Timestamp,
};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;

/// A folder of a test's own, removed in the end.
///
/// Its path is relative to a working folder that all of a process's tests share, so that a snapshot of it holds
/// nothing of the folders above, which other tests change.
pub struct Folder(PathBuf);

static WORKING_FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    std::env::set_current_dir(&folder).unwrap();
    folder
});

static FOLDERS: AtomicU64 = AtomicU64::new(0);

impl Folder {
    /// A new, empty folder.
    pub fn new() -> Self {
        LazyLock::force(&WORKING_FOLDER);
        let path = PathBuf::from(FOLDERS.fetch_add(1, Ordering::SeqCst).to_string());
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Its path, to be backed up.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The same from the root of the file system.
    pub fn absolute(&self) -> PathBuf {
        WORKING_FOLDER.join(&self.0)
    }

    /// Writes a file in it, and the folders that lead there.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Removes a file in it.
    pub fn remove(&self, name: impl AsRef<Path>) {
        fs::remove_file(self.0.join(name)).unwrap();
    }

    /// The key of what has this name in it.
    pub fn key(&self, name: impl AsRef<Path>) -> Key {
        Key::from_path(self.0.join(name).as_os_str().as_bytes()).unwrap()
    }

    /// The bytes of every file in it by their keys.
    pub fn files(&self) -> BTreeMap<Key, Vec<u8>> {
        let (mut folders, mut files) = (vec![self.0.clone()], BTreeMap::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap();
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    let key = Key::from_path(path.as_os_str().as_bytes()).unwrap();
                    files.insert(key, fs::read(path).unwrap());
                }
            }
        }
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays lies in the target folder and does no harm.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A store in memory.
pub fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// The secret of all repositories here.
pub fn secret() -> Secret {
    Secret::key([7; 32])
}

/// A new repository.
pub async fn create(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::create(Arc::clone(store), &secret(), CreateOptions::default()).await.unwrap()
}

/// A repository that is there.
pub async fn open(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Arc::clone(store), &secret(), OpenOptions::default()).await.unwrap()
}

/// Tells nobody.
pub fn quiet() -> Arc<dyn Progress> {
    Arc::new(NoProgress)
}

/// The options of a series.
pub fn series(name: &str) -> BackupOptions {
    BackupOptions::default().with_series(name)
}

/// Backs a folder up to the default series.
pub async fn backup(repository: &Repository, folder: &Folder) -> BackupReport {
    backup_with(repository, folder, &BackupOptions::default()).await
}

/// Waits until what was just written has a time of change that a backup relies on.
pub fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(25));
}

/// Backs a folder up, once what was written to it has settled.
pub async fn backup_with(repository: &Repository, folder: &Folder, options: &BackupOptions) -> BackupReport {
    settle();
    repository.backup(&[folder.path().to_owned()], options, quiet()).await.unwrap()
}

/// Backs a folder up to the default series and gives the snapshot.
pub async fn snapshot(repository: &Repository, folder: &Folder) -> Snapshot {
    backup(repository, folder).await.snapshot.unwrap()
}

/// The bytes of a file in a snapshot.
pub async fn read(repository: &Repository, snapshot: &Snapshot, key: &Key) -> Vec<u8> {
    let mut bytes = Vec::new();
    repository.read_file(snapshot, key).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// The bytes of every file in a snapshot.
pub async fn contents(repository: &Repository, snapshot: &Snapshot) -> BTreeMap<Key, Vec<u8>> {
    let entries: Vec<_> = repository.entries(snapshot, None).try_collect().await.unwrap();
    let mut files = BTreeMap::new();
    for (key, entry) in entries {
        if entry.kind == EntryKind::File {
            let bytes = read(repository, snapshot, &key).await;
            files.insert(key, bytes);
        }
    }
    files
}

/// The keys of all entries of a snapshot, as text.
pub async fn keys(repository: &Repository, snapshot: &Snapshot) -> Vec<String> {
    repository.entries(snapshot, None).map_ok(|(key, _)| key.to_string()).try_collect().await.unwrap()
}

/// Everything that a store holds.
pub async fn dump(store: &Arc<dyn ObjectStore>) -> BTreeMap<String, Vec<u8>> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut objects = BTreeMap::new();
    for meta in listed {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        objects.insert(meta.location.to_string(), bytes.to_vec());
    }
    objects
}

/// The names under a prefix of a store, in order.
pub async fn names(store: &Arc<dyn ObjectStore>, prefix: &str) -> Vec<String> {
    let listed = store.list(Some(&prefix.into())).map_ok(|meta| meta.location.to_string());
    let mut names: Vec<_> = listed.try_collect().await.unwrap();
    names.sort();
    names
}

/// The registrations that haven't ended.
#[allow(dead_code, reason = "not every test that shares this file looks at writers")]
pub async fn running(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let names = names(store, "writers").await;
    names
        .iter()
        .filter(|name| !name.ends_with("-ended") && !names.contains(&format!("{name}-ended")))
        .cloned()
        .collect()
}

/// A clock that a test sets.
#[derive(Debug)]
pub struct SetClock(AtomicI64);

impl SetClock {
    /// A clock that shows so many seconds after the epoch.
    pub fn at(seconds: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(seconds * 1_000_000_000)))
    }

    /// Sets it.
    pub fn set(&self, seconds: i64) {
        self.0.store(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    /// Options to open a repository with this clock.
    pub fn options(self: &Arc<Self>) -> OpenOptions {
        let clock: Arc<dyn Clock> = Arc::clone(self) as _;
        OpenOptions::default().with_surroundings(Surroundings { clock, entropy: Arc::new(SystemEntropy) })
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::SeqCst))
    }
}
