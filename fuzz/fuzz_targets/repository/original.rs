//! The sound repository that every run begins with, and its surroundings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use backstop::fuzzing::forge::Forger;
use backstop::{
    BackupOptions, ChunkerParameters, Clock, CommitOptions, CreateOptions, Entropy, ForgetOptions, GcOptions, Key,
    Metadata, NoProgress, OpenOptions, Repository, Secret, Snapshot, Surroundings, Timestamp, WriterOptions,
};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use crate::play::{Files, read};

pub type Objects = BTreeMap<String, Bytes>;

pub const SERIES: [&str; 3] = ["folder", "stream", "log"];

/// A sound repository, and what is in each of its snapshots.
pub struct Original {
    pub objects: Objects,
    pub snapshots: Vec<(Snapshot, Files)>,
    pub forger: Forger,
}

/// Its clock is paused: nobody waits for repeated attempts.
pub static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap());

pub static ORIGINAL: LazyLock<Original> = LazyLock::new(|| RUNTIME.block_on(original()));

/// Time that passes by a second a look, and numbers that are the same in every run, so that a finding can be repeated.
#[derive(Debug)]
pub struct Repeatable {
    stream: u8,
    seconds: AtomicI64,
    drawn: AtomicU64,
}

impl Repeatable {
    pub fn new(stream: u8, seconds: i64) -> Arc<Self> {
        Arc::new(Self { stream, seconds: AtomicI64::new(seconds), drawn: AtomicU64::new(0) })
    }

    pub fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn surroundings(self: &Arc<Self>) -> Surroundings {
        Surroundings { clock: self.clone(), entropy: self.clone() }
    }
}

impl Clock for Repeatable {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.seconds.fetch_add(1, Ordering::SeqCst) * 1_000_000_000)
    }
}

impl Entropy for Repeatable {
    fn fill(&self, buffer: &mut [u8]) {
        let number = self.drawn.fetch_add(1, Ordering::SeqCst);
        blake3::Hasher::new().update(&[self.stream]).update(&number.to_le_bytes()).finalize_xof().fill(buffer);
    }
}

/// When a run begins; the original was made before.
pub const BEGIN: i64 = 1_700_000_000;

pub fn administrator() -> Secret {
    Secret::key([7; 32])
}

/// What honest writers hold, and one of the attackers.
pub fn append_only() -> Secret {
    Secret::key([8; 32])
}

async fn original() -> Original {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // Chunks so small that a few files make many, and a large one a sequence of them.
    let mut chunker = ChunkerParameters::default();
    (chunker.min, chunker.mean, chunker.max) = (64, 256, 1024);
    let repeatable = Repeatable::new(0, BEGIN - 30 * 86_400);
    let open = OpenOptions::default().with_surroundings(repeatable.surroundings());
    let options = CreateOptions::default().with_chunker(chunker).with_open(open);
    let repository = Repository::create(Arc::clone(&store), &administrator(), options).await.unwrap();
    repository.add_append_only_key(&append_only(), "server").await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let mut options = BackupOptions::default();
    options.series = SERIES[0].to_owned();
    let paths = [folder.path().to_owned()];
    for round in 0..2 {
        fill(folder.path(), round);
        repository.backup(&paths, &options, Arc::new(NoProgress)).await.unwrap();
    }
    options.series = SERIES[1].to_owned();
    let name = Key::from_path("a/stream").unwrap();
    repository.backup_stream(&name, &noise(9, 1500)[..], &options, Arc::new(NoProgress)).await.unwrap();
    for round in 0..4 {
        commit(&repository, SERIES[2], round).await.unwrap();
    }
    // One is gone with its data, and one can be undeleted.
    forget(&repository, 1, Duration::ZERO).await;
    let options = GcOptions::default().with_waste_max(0.0);
    let plan = repository.plan_gc(&options).await.unwrap();
    assert!(repository.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
    forget(&repository, 2, Duration::from_secs(90 * 86_400)).await;

    let mut snapshots = Vec::new();
    for snapshot in repository.snapshots(None).await.unwrap() {
        let files = read(&repository, &snapshot).await.unwrap();
        snapshots.push((snapshot, files));
    }
    assert_eq!(snapshots.len(), 5);
    let mut forger_at = OpenOptions::default();
    forger_at = forger_at.with_surroundings(Repeatable::new(1, BEGIN).surroundings());
    let for_forger = Repository::open(Arc::clone(&store), &append_only(), forger_at).await.unwrap();
    Original { objects: load(&store).await, snapshots, forger: Forger::new(&for_forger) }
}

async fn forget(repository: &Repository, number: u64, undelete_for: Duration) {
    let options = ForgetOptions::default().with_snapshot(SERIES[2], number).with_undelete_for(undelete_for);
    let plan = repository.plan_forget(&options).await.unwrap();
    assert_eq!(repository.forget(&plan).await.unwrap().forgotten.len(), 1);
}

/// What an honest writer does: a file that changes, one that is new, and one that stays.
pub async fn commit(repository: &Repository, series: &str, round: u8) -> backstop::Result<Snapshot> {
    let writer = repository.writer(series, WriterOptions::default()).await?;
    let (changes, stays) = (Key::from_path("log/changes")?, Key::from_path("log/stays")?);
    let new = Key::from_path(format!("log/new {round}"))?;
    writer.put(&changes, noise(round.into(), 600), &Metadata::default()).await?;
    writer.put(&new, noise(100 + u64::from(round), 300), &Metadata::default()).await?;
    writer.put(&stays, noise(8, 900), &Metadata::default()).await?;
    writer.commit(CommitOptions::default()).await
}

/// Some files of each kind of content; a later `round` changes one, adds one and removes one.
fn fill(folder: &Path, round: u64) {
    std::fs::create_dir_all(folder.join("inner/empty")).unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::write(folder.join("small"), format!("round {round}")).unwrap();
    std::fs::write(folder.join("noise"), noise(1, 2500)).unwrap();
    std::fs::write(folder.join("inner/text"), "the same words again and again\n".repeat(40)).unwrap();
    std::fs::write(folder.join(format!("inner/of {round}")), noise(round, 700)).unwrap();
    if round == 0 {
        std::os::unix::fs::symlink("small", folder.join("link")).unwrap();
    } else {
        std::fs::remove_file(folder.join("inner/of 0")).unwrap();
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"noise").update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub async fn load(store: &Arc<dyn ObjectStore>) -> Objects {
    let mut objects = Objects::new();
    for meta in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        objects.insert(meta.location.to_string(), store.get(&meta.location).await.unwrap().bytes().await.unwrap());
    }
    objects
}
