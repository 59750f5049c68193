//! Damages a small repository in any way that someone with access to the store could, short of knowing its keys; then
//! opens it, checks it, reads every file of every snapshot and restores one.
//!
//! Anything may be refused. What must never happen: a panic, memory without bound, or a wrong answer, which is bytes or
//! names other than those that were backed up, or a check without findings where something can't be read back.

#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use backstop::{
    BackupOptions, CheckOptions, ChunkerParameters, Clock, CreateOptions, Entropy, EntryKind, Key, NoProgress,
    OpenOptions, RecordHash, Repository, RestoreOptions, Secret, Snapshot, Surroundings, Timestamp,
};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

libfuzzer_sys::fuzz_target!(|edits: Vec<Edit>| {
    LazyLock::force(&ORIGINAL);
    RUNTIME.block_on(run(&edits));
});

/// More edits show nothing that a few can't.
const EDITS_MAX: usize = 12;

/// One thing done to the store. An object is chosen by its number in order of folder and length.
#[derive(Arbitrary, Debug)]
enum Edit {
    Flip {
        object: u8,
        at: Place,
        mask: u8,
    },
    Overwrite {
        object: u8,
        at: Place,
        with: [u8; 8],
    },
    Truncate {
        object: u8,
        at: Place,
    },
    Extend {
        object: u8,
        with: Vec<u8>,
    },
    Replace {
        object: u8,
        with: Vec<u8>,
    },
    Delete {
        object: u8,
    },
    Swap {
        one: u8,
        other: u8,
    },
    Copy {
        from: u8,
        to: u8,
    },
    /// Makes the plain hash that ends an object right again.
    Rehash {
        object: u8,
    },
    /// Moves an object that is named by its hash to the name that its bytes have now.
    Rename {
        object: u8,
    },
}

/// A place in an object, from its beginning or its end.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    FromStart(u16),
    FromEnd(u16),
}

impl Place {
    fn within(self, len: usize) -> usize {
        match self {
            Place::FromStart(at) => usize::from(at).min(len),
            Place::FromEnd(at) => len.saturating_sub(usize::from(at)),
        }
    }
}

type Objects = BTreeMap<String, Bytes>;
type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// A sound repository, and what is in each of its snapshots.
struct Original {
    objects: Objects,
    snapshots: BTreeMap<(String, u64), (RecordHash, Files)>,
}

/// Its clock is paused: nobody waits for repeated attempts.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
});

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| RUNTIME.block_on(original()));

/// Time that passes by a second a look and numbers that are the same in every run, so that a finding can be repeated.
#[derive(Debug, Default)]
struct Repeatable {
    seconds: AtomicI64,
    drawn: AtomicU64,
}

impl Clock for Repeatable {
    fn now(&self) -> Timestamp {
        let seconds = 1_700_000_000 + self.seconds.fetch_add(1, Ordering::SeqCst);
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }
}

impl Entropy for Repeatable {
    fn fill(&self, buffer: &mut [u8]) {
        let number = self.drawn.fetch_add(1, Ordering::SeqCst);
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(buffer);
    }
}

fn surroundings() -> Surroundings {
    let repeatable = Arc::new(Repeatable::default());
    let clock: Arc<dyn Clock> = repeatable.clone();
    Surroundings { clock, entropy: repeatable }
}

fn secret() -> Secret {
    Secret::key([7; 32])
}

async fn original() -> Original {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // Chunks so small that a few files make many, and a large one a sequence of them.
    let mut chunker = ChunkerParameters::default();
    (chunker.min, chunker.mean, chunker.max) = (64, 256, 1024);
    let open = OpenOptions::default().with_surroundings(surroundings());
    let options = CreateOptions::default().with_chunker(chunker).with_open(open);
    let repository = Repository::create(Arc::clone(&store), &secret(), options).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0);
    let mut options = BackupOptions::default();
    options.series = "folder".to_owned();
    let paths = [folder.path().to_owned()];
    repository.backup(&paths, &options, Arc::new(NoProgress)).await.unwrap();
    fill(folder.path(), 1);
    repository.backup(&paths, &options, Arc::new(NoProgress)).await.unwrap();
    options.series = "stream".to_owned();
    let name = Key::from_path("a/stream").unwrap();
    repository.backup_stream(&name, &noise(9, 3000)[..], &options, Arc::new(NoProgress)).await.unwrap();

    let mut snapshots = BTreeMap::new();
    for snapshot in repository.snapshots(None).await.unwrap() {
        let files = read(&repository, &snapshot).await.unwrap();
        snapshots.insert((snapshot.series.clone(), snapshot.number), (snapshot.hash, files));
    }
    assert_eq!(snapshots.len(), 3);
    Original { objects: load(&store).await, snapshots }
}

/// Some files of each kind of content; a later `round` changes one, adds one and removes one.
fn fill(folder: &Path, round: u64) {
    std::fs::create_dir_all(folder.join("inner/empty")).unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::write(folder.join("small"), format!("round {round}")).unwrap();
    std::fs::write(folder.join("noise"), noise(1, 5000)).unwrap();
    std::fs::write(folder.join("inner/text"), "the same words again and again\n".repeat(200)).unwrap();
    std::fs::write(folder.join(format!("inner/of {round}")), noise(round, 2000)).unwrap();
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

async fn load(store: &Arc<dyn ObjectStore>) -> Objects {
    let mut objects = Objects::new();
    for meta in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        objects.insert(meta.location.to_string(), store.get(&meta.location).await.unwrap().bytes().await.unwrap());
    }
    objects
}

/// All regular files of a snapshot by path, if all of them can be read.
async fn read(repository: &Repository, snapshot: &Snapshot) -> backstop::Result<Files> {
    let entries: Vec<_> = repository.entries(snapshot, None).try_collect().await?;
    let mut files = Files::new();
    for (key, entry) in entries {
        if matches!(entry.kind, EntryKind::File) {
            let mut content = Vec::new();
            repository.read_file(snapshot, &key).await?.read_to_end(&mut content).await.map_err(io_error)?;
            files.insert(key.as_path_bytes(), content);
        }
    }
    Ok(files)
}

/// The library's error that an i/o error carries.
fn io_error(error: std::io::Error) -> backstop::Error {
    error.downcast().expect("a reader's error is the library's own")
}

fn damage(mut objects: Objects, edits: &[Edit]) -> Objects {
    for edit in edits.iter().take(EDITS_MAX) {
        let mut order: Vec<_> =
            objects.iter().map(|(name, body)| (folder(name).to_owned(), body.len(), name.clone())).collect();
        order.sort();
        if order.is_empty() {
            return objects;
        }
        let name = |number: u8| order[usize::from(number) % order.len()].2.clone();
        let mut change = |number: u8, change: &dyn Fn(&mut Vec<u8>)| {
            let body = objects.get_mut(&name(number)).unwrap();
            let mut bytes = body.to_vec();
            change(&mut bytes);
            *body = bytes.into();
        };
        match edit {
            Edit::Flip { object, at, mask } => change(*object, &|bytes| {
                let at = at.within(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }),
            Edit::Overwrite { object, at, with } => change(*object, &|bytes| {
                let at = at.within(bytes.len());
                bytes.iter_mut().skip(at).zip(with).for_each(|(byte, with)| *byte = *with);
            }),
            Edit::Truncate { object, at } => change(*object, &|bytes| bytes.truncate(at.within(bytes.len()))),
            Edit::Extend { object, with } => change(*object, &|bytes| bytes.extend_from_slice(with)),
            Edit::Replace { object, with } => change(*object, &|bytes| bytes.clone_from(with)),
            Edit::Rehash { object } => change(*object, &|bytes| {
                if let Some((body, trailer)) = bytes.split_last_chunk_mut::<32>() {
                    *trailer = *blake3::hash(body).as_bytes();
                }
            }),
            Edit::Delete { object } => drop(objects.remove(&name(*object))),
            Edit::Swap { one, other } => {
                let (one, other) = (name(*one), name(*other));
                let (first, second) = (objects[&one].clone(), objects[&other].clone());
                objects.extend([(one, second), (other, first)]);
            }
            Edit::Copy { from, to } => drop(objects.insert(name(*to), objects[&name(*from)].clone())),
            Edit::Rename { object } => {
                let name = name(*object);
                let hash = blake3::hash(&objects[&name]).to_hex();
                let renamed = match folder(&name) {
                    "packs" => format!("packs/{}/{hash}", &hash[..2]),
                    folder @ ("index" | "keys") => format!("{folder}/{hash}"),
                    _ => continue,
                };
                let body = objects.remove(&name).unwrap();
                objects.insert(renamed, body);
            }
        }
    }
    objects
}

fn folder(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

async fn run(edits: &[Edit]) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (name, body) in damage(ORIGINAL.objects.clone(), edits) {
        store.put(&name.into(), body.into()).await.unwrap();
    }
    let options = OpenOptions::default().with_surroundings(surroundings());
    let Ok(repository) = Repository::open(store, &secret(), options).await else { return };

    let mut options = CheckOptions::default();
    options.read_data_percent = Some(100.0);
    let checked = repository.check(&options, Arc::new(NoProgress)).await;
    let clean = checked.is_ok_and(|report| report.findings.is_empty());

    let snapshots = match repository.snapshots(None).await {
        Ok(snapshots) => snapshots,
        Err(error) => {
            assert!(!clean, "a check found nothing, but the snapshots can't be listed: {error}");
            return;
        }
    };
    for snapshot in &snapshots {
        let (hash, files) = &ORIGINAL.snapshots[&(snapshot.series.clone(), snapshot.number)];
        assert_eq!(*hash, snapshot.hash, "another snapshot than was committed");
        match read(&repository, snapshot).await {
            Ok(found) => assert!(found == *files, "{}#{} reads otherwise", snapshot.series, snapshot.number),
            Err(error) => assert!(!clean, "a check found nothing, but a file can't be read: {error}"),
        }
    }
    if let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.series == "folder") {
        restore(&repository, snapshot, clean).await;
    }
}

/// Restores a snapshot: what isn't reported as failed must be there as it was.
async fn restore(repository: &Repository, snapshot: &Snapshot, clean: bool) {
    let in_memory = Path::new("/dev/shm");
    let base = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
    let to = tempfile::tempdir_in(base).unwrap();
    let restored =
        repository.restore(snapshot, None, to.path(), &RestoreOptions::default(), Arc::new(NoProgress)).await;
    let failures = match restored {
        Ok(report) => report.failures,
        Err(error) => {
            assert!(!clean, "a check found nothing, but a restore failed: {error}");
            return;
        }
    };
    assert!(!clean || failures.is_empty(), "a check found nothing, but a restore failed: {failures:?}");
    for (path, content) in &ORIGINAL.snapshots[&(snapshot.series.clone(), snapshot.number)].1 {
        let path = String::from_utf8_lossy(path).into_owned();
        if failures.iter().any(|failure| failure.path.contains(&path) || path.starts_with(&failure.path)) {
            continue;
        }
        let found = std::fs::read(to.path().join(&path));
        assert!(found.is_ok_and(|found| found == *content), "{path} was restored otherwise and not reported");
    }
}
