//! Damages each object of a small repository in turn, in every way that a disk or a store does it, and looks at
//! what a check says, what can still be read, and that it is right.
//!
//! What can't be seen from a store alone is stated where it is excepted: see [`Expected`].

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use backstop::{
    BackupOptions, CheckOptions, CheckReport, ChunkerParameters, CreateOptions, Entry, EntryKind, Error, Key,
    NoProgress, OpenOptions, Repository, RestoreOptions, Secret, Selector, Snapshot,
};
use bytes::Bytes;
use common::{Fault, FaultyStore, Kind, Random, Reply};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;

type Objects = BTreeMap<String, Bytes>;

/// The secret that the repository is opened with, and that of its other slot.
const OURS: [u8; 32] = [7; 32];
const OTHER: [u8; 32] = [8; 32];

/// A sound repository and what is in it.
struct Original {
    objects: Objects,
    /// The name of the slot that [`OURS`] opens.
    slot: String,
    snapshots: Vec<(Snapshot, BTreeMap<Key, Vec<u8>>)>,
}

async fn original() -> Original {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let options = CreateOptions::default().with_chunker(ChunkerParameters { min: 64, mean: 256, max: 1024 });
    let repository = Repository::create(Arc::clone(&store), &Secret::key(OURS), options).await.unwrap();
    let slot = format!("keys/{}", repository.keys().await.unwrap()[0].id);
    repository.add_key(&Secret::key(OTHER), "another").await.unwrap();

    // The last writer is cut off before it ends its registration.
    let denied = Fault { done: false, reply: Reply::Denied };
    let faulty = FaultyStore::nth(Arc::clone(&store), Kind::Put, "writers/", 2, denied);
    let cut_off = Repository::open(faulty.shared(), &Secret::key(OURS), OpenOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (round, series, writer) in [(0, "photos", &repository), (1, "photos", &repository), (2, "texts", &cut_off)] {
        fill(folder.path(), round);
        let options = BackupOptions::default().with_series(series);
        let paths = [folder.path().to_owned()];
        writer.backup(&paths, &options, Arc::new(NoProgress)).await.unwrap();
    }

    let mut snapshots = Vec::new();
    for snapshot in repository.snapshots(None).await.unwrap() {
        let mut files = BTreeMap::new();
        for (key, entry) in repository.entries(&snapshot, None).try_collect::<Vec<_>>().await.unwrap() {
            if entry.kind == EntryKind::File {
                files.insert(key.clone(), read(&repository, &snapshot, &key).await.unwrap());
            }
        }
        assert!(files.len() > 3 && files.values().any(|content| content.len() == 20_000));
        snapshots.push((snapshot, files));
    }
    assert_eq!(snapshots.len(), 3);
    Original { objects: load(&store).await, slot, snapshots }
}

/// Photos that don't compress, one of them long enough for a sequence of chunks, and texts that do.
fn fill(folder: &Path, round: u64) {
    std::fs::create_dir_all(folder.join("inner")).unwrap();
    let write = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content).unwrap();
    write("empty", b"");
    write("small", format!("round {round}").as_bytes());
    write("photo", &Random::new(1).bytes(3000));
    write("inner/long", &Random::new(2 + round).bytes(20_000));
    write("inner/text", format!("the same words in round {round}\n").repeat(100).as_bytes());
    write(&format!("inner/of {round}"), &Random::new(10 + round).bytes(2000));
}

async fn read(repository: &Repository, snapshot: &Snapshot, key: &Key) -> backstop::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = repository.read_file(snapshot, key).await?.read_to_end(&mut content).await;
    // A reader's error is the library's own.
    read.map_err(|error| error.downcast::<Error>().unwrap())?;
    Ok(content)
}

async fn load(store: &Arc<dyn ObjectStore>) -> Objects {
    let mut objects = Objects::new();
    for meta in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        objects.insert(meta.location.to_string(), store.get(&meta.location).await.unwrap().bytes().await.unwrap());
    }
    objects
}

async fn stored(objects: &Objects) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (name, bytes) in objects {
        store.put(&name.as_str().into(), bytes.clone().into()).await.unwrap();
    }
    store
}

/// One way to damage an object.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize),
    Truncate(usize),
    Extend,
    Delete,
    /// By another object of its kind.
    Swap(String),
}

impl Damage {
    /// Every way for one object: a bit of each field at the start and the end, and some in between.
    fn all(name: &str, objects: &Objects) -> Vec<Self> {
        let length = objects[name].len();
        let from_start = [0, 8, 9, 10, 13, 14, 45, 46, 61, 62, length / 4, length / 2, length / 4 * 3];
        let from_end = [1, 4, 5, 8, 9, 24, 25, 32, 33, 64, 65];
        let mut flips: Vec<_> =
            from_start.into_iter().chain(from_end.iter().filter_map(|at| length.checked_sub(*at))).collect();
        flips.retain(|at| *at < length);
        flips.sort_unstable();
        flips.dedup();
        let folder = |name: &str| name.split('/').next().unwrap().to_owned();
        let other = objects.keys().find(|other| folder(other) == folder(name) && *other != name);
        let truncated = [0, length / 2, length - 1].map(Self::Truncate);
        let swapped = other.map(|other| Self::Swap(other.clone()));
        flips.into_iter().map(Self::Flip).chain(truncated).chain([Self::Extend, Self::Delete]).chain(swapped).collect()
    }

    fn apply(&self, name: &str, objects: &mut Objects) {
        let mut bytes = objects[name].to_vec();
        match self {
            Self::Flip(at) => bytes[*at] ^= 1 << (at % 8),
            Self::Truncate(length) => bytes.truncate(*length),
            Self::Extend => bytes.push(0),
            Self::Swap(other) => bytes = objects[other].to_vec(),
            Self::Delete => {
                objects.remove(name);
                return;
            }
        }
        objects.insert(name.to_owned(), bytes.into());
    }
}

/// What is to be seen of damage to an object.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// The repository can't be opened, and the error names the object.
    NotOpened,
    /// A finding names the object.
    Finding,
    /// No object says which segments there were, so a finding names the packs that only it knew.
    PacksFound,
    /// Without its roster a slot looks like one that was removed, and without a registration a writer like one that ended.
    Nothing,
    /// The newest record of a series is gone, which can't be seen from the store alone; the number and hash that the
    /// backup returned tell.
    Hidden,
}

impl Expected {
    fn of(name: &str, damage: &Damage, original: &Original) -> Self {
        let deleted = matches!(damage, Damage::Delete);
        let newest = |snapshot: &Snapshot| {
            let later = |(other, _): &(Snapshot, _)| other.series == snapshot.series && other.number > snapshot.number;
            !original.snapshots.iter().any(later)
        };
        match name.split('/').next().unwrap() {
            "config" => Self::NotOpened,
            "keys" if name == original.slot => Self::NotOpened,
            "keys" if deleted && name.contains("roster") => Self::Nothing,
            "writers" if deleted => Self::Nothing,
            "index" if deleted => Self::PacksFound,
            "commits" if deleted && newest(record_of(name, original)) => Self::Hidden,
            _ => Self::Finding,
        }
    }
}

/// The snapshot whose record has a name: by its number, and there are two series, one with one snapshot.
fn record_of<'a>(name: &str, original: &'a Original) -> &'a Snapshot {
    let hash = *blake3::hash(&original.objects[name]).as_bytes();
    let found = original.snapshots.iter().find(|(snapshot, _)| *snapshot.hash.as_bytes() == hash);
    &found.unwrap().0
}

#[tokio::test]
async fn damage_is_found_named_and_never_read_as_right() {
    let original = original().await;
    let kinds: Vec<_> = original.objects.keys().map(|name| name.split('/').next().unwrap()).collect();
    for (kind, count) in [("config", 1), ("index", 3), ("keys", 3), ("packs", 3), ("commits", 3), ("writers", 5)] {
        assert_eq!(kinds.iter().filter(|other| **other == kind).count(), count, "{kind}");
    }
    for name in original.objects.keys() {
        for damage in Damage::all(name, &original.objects) {
            let mut objects = original.objects.clone();
            damage.apply(name, &mut objects);
            let expected = Expected::of(name, &damage, &original);
            examine(&original, &objects, name, expected, &format!("{name}, {damage:?}")).await;
        }
    }
}

async fn examine(original: &Original, objects: &Objects, name: &str, expected: Expected, case: &str) {
    let store = stored(objects).await;
    let opened = Repository::open(Arc::clone(&store), &Secret::key(OURS), OpenOptions::default()).await;
    let repository = match opened {
        Ok(repository) => repository,
        Err(error) => {
            assert_eq!(expected, Expected::NotOpened, "{case}: {error}");
            let gone = name == "config" && error.is_not_found();
            assert!(gone || error.to_string().contains(name), "{case}: {error}");
            return;
        }
    };
    let options = CheckOptions::default().with_read_data(100.0);
    let report = repository.check(&options, Arc::new(NoProgress)).await.unwrap();
    let defects = || report.findings.iter().filter(|finding| !finding.kind.is_informational());
    match expected {
        Expected::Finding => {
            assert!(defects().any(|finding| finding.object == name), "{case}: {:#?}", report.findings);
        }
        Expected::PacksFound => assert!(
            !report.is_sound() && defects().all(|finding| finding.object.starts_with("packs/")),
            "{case}: {:#?}",
            report.findings
        ),
        Expected::Nothing | Expected::Hidden => assert!(report.is_sound(), "{case}: {:#?}", report.findings),
        Expected::NotOpened => panic!("{case}: it was opened"),
    }
    // Without the data, only what a flipped bit in a chunk does is passed over.
    let structure = repository.check(&CheckOptions::default(), Arc::new(NoProgress)).await.unwrap();
    if expected == Expected::Finding && !(name.starts_with("packs/") && case.contains("Flip")) {
        assert!(structure.findings.iter().any(|finding| finding.object == name), "{case}: {:#?}", structure.findings);
    }
    // What is read must not come out of what the check has read.
    let repository = Repository::open(store, &Secret::key(OURS), OpenOptions::default()).await.unwrap();
    for (snapshot, files) in &original.snapshots {
        match repository.find(&Selector::Number { series: snapshot.series.clone(), number: snapshot.number }).await {
            Ok(found) => {
                assert_eq!(found, *snapshot, "{case}");
                read_all(&repository, snapshot, files, &report, case).await;
                restore_all(&repository, snapshot, files, case).await;
            }
            Err(error) => assert!(names_object(&error), "{case}: {error}"),
        }
        let latest = repository.find(&Selector::LatestOf { series: snapshot.series.clone() }).await;
        if let (Expected::Hidden, true) = (expected, name == record_name(snapshot, original)) {
            assert!(latest.is_err() || latest.unwrap().hash != snapshot.hash, "{case}: the kept hash tells");
        }
    }
}

fn record_name<'a>(snapshot: &Snapshot, original: &'a Original) -> &'a str {
    let mut records = original.objects.keys().filter(|name| name.starts_with("commits/"));
    records.find(|name| record_of(name, original).hash == snapshot.hash).unwrap()
}

/// Reads every file: right, or an error that names an object and a finding that names the path.
async fn read_all(
    repository: &Repository,
    snapshot: &Snapshot,
    files: &BTreeMap<Key, Vec<u8>>,
    report: &CheckReport,
    case: &str,
) {
    let listed: backstop::Result<Vec<(Key, Entry)>> = repository.entries(snapshot, None).try_collect().await;
    match listed {
        Ok(listed) => {
            let listed = listed.iter().filter(|(_, entry)| entry.kind == EntryKind::File).map(|(key, _)| key);
            assert!(listed.eq(files.keys()), "{case}: other files in {snapshot}");
        }
        Err(error) => {
            assert!(names_object(&error), "{case}: {error}");
            assert_affected(report, &format!("{snapshot}"), case);
        }
    }
    for (key, content) in files {
        match read(repository, snapshot, key).await {
            Ok(found) => assert!(found == *content, "{case}: {key} of {snapshot} was read otherwise"),
            Err(error) => {
                assert!(names_object(&error), "{case}: {error}");
                assert_affected(report, &format!("{snapshot}:{key}"), case);
            }
        }
    }
}

/// Restores a snapshot: what isn't reported is there as it was, and every report names an object.
async fn restore_all(repository: &Repository, snapshot: &Snapshot, files: &BTreeMap<Key, Vec<u8>>, case: &str) {
    let in_memory = Path::new("/dev/shm");
    let base = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
    let to = tempfile::tempdir_in(base).unwrap();
    let restored =
        repository.restore(snapshot, None, to.path(), &RestoreOptions::default(), Arc::new(NoProgress)).await;
    let report = match restored {
        Ok(report) => report,
        Err(error) => return assert!(names_object(&error), "{case}: {error}"),
    };
    for failure in &report.failures {
        assert!(names_object(&failure.reason), "{case}: {failure:?}");
    }
    let reported = |path: &str| report.failures.iter().any(|failure| failure.path == path);
    // A part of the tree that can't be read is one failure, and its files aren't there.
    let part = report.failures.iter().any(|failure| !files.keys().any(|key| key.to_string() == failure.path));
    for (key, content) in files {
        let path = key.to_string();
        match std::fs::read(to.path().join(&path)) {
            Ok(found) => assert!(found == *content || reported(&path), "{case}: {path} was restored otherwise"),
            Err(_) => assert!(part || reported(&path), "{case}: {path} wasn't restored: {:#?}", report.failures),
        }
    }
}

/// Whether a finding says that something is affected, by itself or with all that is around it.
fn assert_affected(report: &CheckReport, what: &str, case: &str) {
    let snapshot = what.split(':').next().unwrap();
    let around = format!("{snapshot}: everything");
    let affected = || report.findings.iter().flat_map(|finding| &finding.affected);
    let named = affected().any(|affected| affected == what || affected.starts_with(&around))
        || (what == snapshot && affected().any(|affected| affected.starts_with(snapshot)));
    assert!(named, "{case}: {what} can't be read, and no finding says so: {:#?}", report.findings);
}

fn names_object(error: &impl ToString) -> bool {
    let text = error.to_string();
    ["config", "keys/", "index/", "packs/", "commits/", "snapshot ", "blob ", "node "]
        .iter()
        .any(|object| text.contains(object))
}

#[tokio::test]
async fn damage_of_one_pack_is_told_apart_from_what_still_can_be_read() {
    let original = original().await;
    let packs: Vec<_> = original.objects.keys().filter(|name| name.starts_with("packs/")).collect();
    let mut lost = Vec::new();
    for name in packs {
        let mut objects = original.objects.clone();
        Damage::Delete.apply(name, &mut objects);
        let store = stored(&objects).await;
        let repository = Repository::open(store, &Secret::key(OURS), OpenOptions::default()).await.unwrap();
        let report = repository.check(&CheckOptions::default(), Arc::new(NoProgress)).await.unwrap();
        assert_eq!(report.defects, 1, "{:#?}", report.findings);
        let finding = report.findings.iter().find(|finding| finding.object == *name).unwrap();
        let affected = &finding.affected;
        assert!(!affected.is_empty() && finding.affected_count == affected.len() as u64);
        lost.push(["photos#1", "photos#2", "texts#1"].map(|label| affected.iter().any(|path| path.starts_with(label))));
    }
    lost.sort_unstable();
    // Each pack has what is new in its snapshot, of which the later ones still have some.
    assert_eq!(lost, [[false, false, true], [false, true, true], [true, true, true]]);
}

#[tokio::test]
async fn a_damaged_block_affects_exactly_the_paths_that_cannot_be_read() {
    let original = original().await;
    let mut exact = 0;
    for name in original.objects.keys().filter(|name| name.starts_with("packs/")) {
        let pack = &original.objects[name];
        for at in (62..pack.len()).step_by(pack.len() / 20) {
            let mut objects = original.objects.clone();
            Damage::Flip(at).apply(name, &mut objects);
            let store = stored(&objects).await;
            let secret = Secret::key(OURS);
            let repository = Repository::open(Arc::clone(&store), &secret, OpenOptions::default()).await.unwrap();
            let options = CheckOptions::default().with_read_data(100.0);
            let report = repository.check(&options, Arc::new(NoProgress)).await.unwrap();
            let finding = report.findings.iter().find(|finding| finding.object == *name).unwrap();
            let mut affected = finding.affected.clone();
            if affected.iter().any(|affected| affected.contains(": everything")) {
                continue;
            }
            // Without what the check has read.
            let repository = Repository::open(store, &secret, OpenOptions::default()).await.unwrap();
            let mut unreadable = Vec::new();
            for (snapshot, files) in &original.snapshots {
                for key in files.keys() {
                    if read(&repository, snapshot, key).await.is_err() {
                        unreadable.push(format!("{snapshot}:{key}"));
                    }
                }
            }
            // Where the footer begins only the keys tell; it isn't needed for reading what segments know.
            if unreadable.is_empty() {
                break;
            }
            affected.sort_unstable();
            unreadable.sort_unstable();
            assert_eq!(affected, unreadable, "{name}, a bit of byte {at}");
            exact += 1;
        }
    }
    assert!(exact > 10, "{exact}");
}

#[tokio::test]
async fn a_repository_without_a_slot_says_so() {
    let original = original().await;
    let mut objects = original.objects.clone();
    objects.retain(|name, _| !name.starts_with("keys/"));
    let opened = Repository::open(stored(&objects).await, &Secret::key(OURS), OpenOptions::default()).await;
    let error = opened.unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("keys"), "{error}");
}
