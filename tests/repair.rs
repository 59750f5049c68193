//! Damages each kind of object in every way that a disk, a store or a person does it, repairs, and looks at what is
//! there then: with another copy everything, without one everything but exactly what the repair names.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstop::{
    BackupOptions, CheckOptions, CheckReport, ChunkerParameters, CommitOptions, CreateOptions, EntryKind, Error,
    ForgetOptions, GcOptions, Key, Metadata, NoProgress, OpenOptions, RepairOptions, RepairReport, Repository, Secret,
    Selector, Snapshot, WriterOptions,
};
use bytes::Bytes;
use common::{Fault, FaultyStore, Kind, Random, Reply};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;

type Objects = BTreeMap<String, Bytes>;
type Files = BTreeMap<String, Vec<u8>>;

/// The secret that the repository is opened with, and that of its other slot.
const OURS: [u8; 32] = [7; 32];
const OTHER: [u8; 32] = [8; 32];

/// A sound repository and what is in it.
struct Original {
    objects: Objects,
    /// The objects that are damaged, by what they are.
    victims: BTreeMap<&'static str, String>,
    snapshots: Vec<(Snapshot, Files)>,
}

async fn open_with(store: &Arc<dyn ObjectStore>, secret: [u8; 32]) -> backstop::Result<Repository> {
    Repository::open(Arc::clone(store), &Secret::key(secret), OpenOptions::default()).await
}

/// Opens it with whichever secret still does.
async fn open(store: &Arc<dyn ObjectStore>) -> Repository {
    match open_with(store, OURS).await {
        Ok(repository) => repository,
        Err(_) => open_with(store, OTHER).await.unwrap(),
    }
}

/// A repository with every kind of object; `large` if packs of chunks and of nodes are wanted.
async fn original(large: bool) -> Original {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let chunker = ChunkerParameters { min: 16 << 10, mean: 64 << 10, max: 256 << 10 };
    let options = CreateOptions::default().with_chunker(chunker);
    let repository = Repository::create(Arc::clone(&store), &Secret::key(OURS), options).await.unwrap();
    let mut victims = BTreeMap::from([("config", "config".to_owned())]);
    victims.insert("slot in use", format!("keys/{}", repository.keys().await.unwrap()[0].id));
    victims.insert("slot", format!("keys/{}", repository.add_key(&Secret::key(OTHER), "another").await.unwrap().id));

    let folder = tempfile::tempdir().unwrap();
    // Two rounds go, and two collections pass: what the second left is what is there.
    for round in 0..5 {
        fill(folder.path(), round, 40_000);
        back_up(&repository, folder.path(), "photos").await;
        if round < 2 {
            let options = ForgetOptions::default().with_snapshot("photos", round + 1).with_undelete_for(Duration::ZERO);
            let plan = repository.plan_forget(&options).await.unwrap();
            repository.forget(&plan).await.unwrap();
            if round == 0 {
                continue;
            }
            let plan = repository.plan_gc(&GcOptions::default()).await.unwrap();
            assert!(repository.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
        }
    }
    let before: BTreeSet<_> = load(&store).await.into_keys().collect();
    let options = ForgetOptions::default().with_snapshot("photos", 3);
    let plan = repository.plan_forget(&options).await.unwrap();
    repository.forget(&plan).await.unwrap();
    let new = |objects: &Objects, prefix: &str, before: &BTreeSet<String>| -> Vec<String> {
        objects.keys().filter(|name| name.starts_with(prefix) && !before.contains(*name)).cloned().collect()
    };
    let objects = load(&store).await;
    victims.insert("kept", new(&objects, "kept/", &before)[0].clone());

    if large {
        let before: BTreeSet<_> = objects.into_keys().collect();
        let big = tempfile::tempdir().unwrap();
        fill(big.path(), 20, 4_500_000);
        back_up(&repository, big.path(), "films").await;
        let objects = load(&store).await;
        let mut packs = new(&objects, "packs/", &before);
        packs.sort_by_key(|name| objects[name].len());
        assert_eq!(packs.len(), 2);
        victims.insert("pack of nodes", packs[0].clone());
        victims.insert("pack of chunks", packs[1].clone());
    }
    let before: BTreeSet<_> = load(&store).await.into_keys().collect();
    let writer = repository.writer("notes", WriterOptions::default()).await.unwrap();
    let file = Metadata::default();
    writer.put(&Key::from_path("ana/long").unwrap(), Random::new(90).bytes(60_000), &file).await.unwrap();
    writer.put(&Key::from_path("ana/short").unwrap(), "short", &file).await.unwrap();
    writer.commit(CommitOptions::default()).await.unwrap();
    victims.insert("pack that a record names", new(&load(&store).await, "packs/", &before)[0].clone());

    // The last writer is cut off before it ends its registration.
    let denied = Fault { done: false, reply: Reply::Denied };
    let faulty = FaultyStore::nth(Arc::clone(&store), Kind::Put, "writers/", 2, denied);
    let cut_off = Repository::open(faulty.shared(), &Secret::key(OURS), OpenOptions::default()).await.unwrap();
    fill(folder.path(), 9, 40_000);
    let before: BTreeSet<_> = load(&store).await.into_keys().collect();
    back_up(&cut_off, folder.path(), "texts").await;
    let objects = load(&store).await;
    victims.insert("segment", new(&objects, "index/", &before)[0].clone());
    victims.insert("registration", new(&objects, "writers/", &before)[0].clone());
    victims.insert("small pack", new(&objects, "packs/", &before)[0].clone());

    let mut snapshots = Vec::new();
    for snapshot in repository.snapshots(None).await.unwrap() {
        let files = readable(&repository, &snapshot).await;
        assert!(files.len() > 1);
        snapshots.push((snapshot, files));
    }
    let record = |number| {
        let (snapshot, _) = snapshots.iter().find(|(it, _)| it.series == "photos" && it.number == number).unwrap();
        let is_it = |(_, bytes): &(&String, &Bytes)| *blake3::hash(bytes).as_bytes() == *snapshot.hash.as_bytes();
        objects.iter().find(is_it).unwrap().0.clone()
    };
    victims.insert("middle record", record(4));
    victims.insert("highest record", record(5));
    let collections: Vec<_> = objects.keys().filter(|name| name.starts_with("gc/")).cloned().collect();
    assert_eq!(collections.len(), 2, "{collections:?}");
    victims.insert("collection", collections[0].clone());
    victims.insert("collection's end", collections[1].clone());
    Original { objects, victims, snapshots }
}

fn fill(folder: &Path, round: u64, length: usize) {
    std::fs::create_dir_all(folder.join("inner")).unwrap();
    let write = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content).unwrap();
    write("empty", b"");
    write("small", format!("round {round}").as_bytes());
    write("photo", &Random::new(1).bytes(30_000));
    write("inner/long", &Random::new(2 + round).bytes(length));
    write("inner/text", format!("the same words in round {round}\n").repeat(1000).as_bytes());
    write(&format!("inner/of {round}"), &Random::new(50 + round).bytes(3000));
}

async fn back_up(repository: &Repository, folder: &Path, series: &str) {
    let options = BackupOptions::default().with_series(series);
    repository.backup(&[folder.to_owned()], &options, Arc::new(NoProgress)).await.unwrap();
}

/// The files of a snapshot that can be read.
async fn readable(repository: &Repository, snapshot: &Snapshot) -> Files {
    let mut files = Files::new();
    // A lost node ends the listing of its part; what is known by name from elsewhere is read by name.
    let mut entries = repository.entries(snapshot, None);
    while let Ok(Some((key, entry))) = entries.try_next().await {
        if entry.kind == EntryKind::File
            && let Ok(content) = read(repository, snapshot, &key).await
        {
            files.insert(key.to_string(), content);
        }
    }
    files
}

async fn read(repository: &Repository, snapshot: &Snapshot, key: &Key) -> backstop::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = repository.read_file(snapshot, key).await?.read_to_end(&mut content).await;
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

#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Truncated,
    Emptied,
    Flipped,
    Missing,
    /// By another of its kind, or the older one where it has a number.
    Swapped,
}

const DAMAGES: [Damage; 5] = [Damage::Truncated, Damage::Emptied, Damage::Flipped, Damage::Missing, Damage::Swapped];

impl Damage {
    /// False if there is nothing to swap with.
    async fn apply(self, store: &Arc<dyn ObjectStore>, name: &str, objects: &Objects) -> bool {
        let mut bytes = objects[name].to_vec();
        match self {
            Damage::Truncated => bytes.truncate(bytes.len() / 2),
            Damage::Emptied => bytes.clear(),
            Damage::Flipped => {
                let at = bytes.len() / 2;
                bytes[at] ^= 4;
            }
            Damage::Missing => {
                store.delete(&name.into()).await.unwrap();
                return true;
            }
            Damage::Swapped => {
                let folder = |name: &str| name.split('/').next().unwrap().to_owned();
                let other = objects.keys().find(|other| folder(other) == folder(name) && *other != name);
                let Some(other) = other else { return false };
                bytes = objects[other].to_vec();
            }
        }
        store.put(&name.into(), bytes.into()).await.unwrap();
        true
    }
}

async fn check(repository: &Repository) -> CheckReport {
    let options = CheckOptions::default().with_read_data(100.0);
    repository.check(&options, Arc::new(NoProgress)).await.unwrap()
}

async fn repair(repository: &Repository, options: &RepairOptions) -> (Vec<String>, RepairReport) {
    let plan = repository.plan_repair(options, Arc::new(NoProgress)).await.unwrap();
    let steps = plan.steps.iter().map(ToString::to_string).collect();
    (steps, repository.repair(plan, Arc::new(NoProgress)).await.unwrap())
}

/// A repository that was opened before an object of it was damaged.
async fn damaged(original: &Original, what: &str, damage: Damage) -> Option<(Arc<dyn ObjectStore>, Repository)> {
    let store = stored(&original.objects).await;
    let repository = open(&store).await;
    let done = damage.apply(&store, &original.victims[what], &original.objects).await;
    done.then_some((store, repository))
}

/// Every snapshot that there was is there, with every file.
async fn assert_whole(store: &Arc<dyn ObjectStore>, original: &Original, case: &str) {
    let repository = open(store).await;
    for (snapshot, files) in &original.snapshots {
        let selector = Selector::Number { series: snapshot.series.clone(), number: snapshot.number };
        assert_eq!(repository.find(&selector).await.unwrap(), *snapshot, "{case}");
        assert!(readable(&repository, snapshot).await == *files, "{case}: {snapshot}");
    }
}

/// A backup and a collection go well, and leave everything sound.
async fn assert_useful(store: &Arc<dyn ObjectStore>, case: &str) {
    let repository = open(store).await;
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 30, 50_000);
    for series in ["photos", "texts", "notes"] {
        back_up(&repository, folder.path(), series).await;
    }
    let options = GcOptions::default().with_wait(Duration::ZERO).with_fence_after(Duration::ZERO).with_waste_max(0.0);
    let plan = repository.plan_gc(&options).await.unwrap();
    let report = repository.gc(plan, Arc::new(NoProgress)).await.unwrap();
    assert!(report.finished, "{case}: {report:#?}");
    let report = check(&open(store).await).await;
    assert!(report.is_sound(), "{case}: {:#?}", report.findings);
}

#[tokio::test]
async fn a_sound_repository_needs_no_repair() {
    let original = original(false).await;
    let store = stored(&original.objects).await;
    let copy = open(&stored(&original.objects).await).await;
    let options = RepairOptions::default().with_other(copy).with_accept_loss(true).with_remove_damaged_writers(true);
    let plan = open(&store).await.plan_repair(&options, Arc::new(NoProgress)).await.unwrap();
    assert!(plan.is_sound() && !plan.is_due(), "{:#?}", plan.steps);
    let report = open(&store).await.repair(plan, Arc::new(NoProgress)).await.unwrap();
    assert_eq!(report, RepairReport::default());
    assert!(load(&store).await == original.objects);
}

#[tokio::test]
async fn with_another_copy_everything_is_back_byte_for_byte() {
    let original = original(true).await;
    for what in original.victims.keys() {
        for damage in DAMAGES {
            let case = format!("{what}, {damage:?}");
            let Some((store, repository)) = damaged(&original, what, damage).await else { continue };
            let copy = open(&stored(&original.objects).await).await;
            let options = RepairOptions::default().with_other(copy).with_remove_damaged_writers(true);
            let (steps, report) = repair(&repository, &options).await;
            assert!(report.lost.is_empty() && report.is_complete(), "{case}: {steps:#?}, {report:#?}");

            let mut expected = original.objects.clone();
            let unlike = matches!(damage, Damage::Emptied | Damage::Swapped);
            match *what {
                // It looks like one that ended.
                "registration" => drop(expected.remove(&original.victims[what])),
                // Another list says the same. Of one that can't be told from others, or is gone, there is no more to say.
                "kept" | "collection" | "collection's end"
                    if unlike || damage == Damage::Missing || *what == "kept" =>
                {
                    let found = load(&store).await;
                    let victim = &original.victims[what];
                    assert!(unlike || damage == Damage::Missing || found[victim] == expected[victim], "{case}");
                    expected.retain(|name, _| !name.starts_with("kept/") && !name.starts_with("gc/"));
                    let lists =
                        found.into_iter().filter(|(name, _)| name.starts_with("kept/") || name.starts_with("gc/"));
                    expected.extend(lists);
                }
                _ => {}
            }
            let found = load(&store).await;
            let names = |objects: &Objects| objects.keys().cloned().collect::<BTreeSet<_>>();
            let (now, then) = (names(&found), names(&expected));
            assert!(found == expected, "{case}: {:#?} {steps:#?}", now.symmetric_difference(&then));

            let report = check(&open(&store).await).await;
            assert!(report.is_sound(), "{case}: {:#?}", report.findings);
            assert_whole(&store, &original, &case).await;
            let plan = open(&store).await.plan_repair(&options, Arc::new(NoProgress)).await.unwrap();
            assert!(plan.is_sound(), "{case}: {:#?}", plan.steps);
            assert_useful(&store, &case).await;
            assert_whole(&store, &original, &case).await;
        }
    }
}

/// What of each snapshot that there was can be read, whatever its number is now.
async fn what_is_left(store: &Arc<dyn ObjectStore>) -> BTreeMap<(String, u64), Files> {
    let repository = open(store).await;
    let mut left = BTreeMap::new();
    for snapshot in repository.snapshots(None).await.unwrap_or_default() {
        let number = snapshot.origin.map_or(snapshot.number, |origin| origin.number);
        let files = readable(&repository, &snapshot).await;
        let before = left.insert((snapshot.series.clone(), number), files);
        assert!(before.is_none(), "{snapshot} is there twice");
    }
    left
}

/// Whether a path is the one that a repair names, or lies in the range that it names.
fn names_path(named: &str, path: &str) -> bool {
    let Some(range) = named.strip_prefix("everything") else { return named == path };
    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (from, before) = match range.split_once("before ") {
        Some((from, before)) => (from.trim_end().trim_end_matches(" to"), Some(before)),
        None => (range, None),
    };
    let from = from.trim().strip_prefix("from ").unwrap_or("");
    let path = parts(path);
    (from.is_empty() || parts(from) <= path) && before.is_none_or(|before| path < parts(before))
}

/// What gives a snapshot back says what it lacks, and what it is.
async fn assert_failures(
    store: &Arc<dyn ObjectStore>,
    (series, number): &(String, u64),
    loss: Option<&backstop::SnapshotLoss>,
    case: &str,
) {
    let Some(loss) = loss.filter(|loss| !loss.forgotten) else { return };
    let repository = open(store).await;
    let snapshots = repository.snapshots(Some(series)).await.unwrap();
    let back = snapshots.iter().find(|it| it.origin.is_some_and(|origin| origin.number == *number)).unwrap();
    assert!(back.is_partial() && back.failure_count == loss.paths.len() as u64, "{case}");
    assert_eq!(back.failures, loss.paths, "{case}");
    let forgotten = repository.forgotten(Some(series)).await.unwrap();
    assert!(forgotten.iter().any(|old| old.snapshot.number == *number), "{case}: what is left of it is kept a while");
}

#[tokio::test]
async fn without_one_exactly_what_is_named_is_lost() {
    let original = original(true).await;
    let mut named = BTreeSet::new();
    for what in original.victims.keys() {
        for damage in DAMAGES {
            let case = format!("{what}, {damage:?}");
            let Some((store, repository)) = damaged(&original, what, damage).await else { continue };
            let options = RepairOptions::default().with_remove_damaged_writers(true);
            let (steps, report) = repair(&repository, &options).await;
            assert!(report.given_up.is_empty() && report.rewritten.is_empty(), "{case}");
            let found = check(&open(&store).await).await;
            assert_eq!(found.is_sound(), report.is_complete(), "{case}: {:#?} {report:#?}", found.findings);
            if !report.lost.is_empty() {
                named.insert(*what);
            }

            // A writer can't continue a series whose newest record can't be read, so far; all else is as before.
            let accept = options.with_accept_loss(true);
            let (accepted, given_up) = repair(&open(&store).await, &accept).await;
            let slot_in_use = *what == "slot in use";
            let found = check(&open(&store).await).await;
            assert!(found.is_sound(), "{case}: {:#?} {accepted:#?}", found.findings);
            assert!(given_up.is_complete() || slot_in_use, "{case}: {given_up:#?}");
            let left = what_is_left(&store).await;
            for (snapshot, files) in &original.snapshots {
                let identity = (snapshot.series.clone(), snapshot.number);
                let record = ["middle record", "highest record"].contains(what);
                let Some(left) = left.get(&identity) else {
                    let gone = record && original.victims[what].contains(&format!("/{:015}", snapshot.number));
                    assert!(gone, "{case}: {snapshot} is gone: {steps:#?} {accepted:#?}");
                    continue;
                };
                let is_it = |loss: &&backstop::SnapshotLoss| (&loss.series, &loss.number) == (&identity.0, &identity.1);
                let loss = report.lost.iter().find(is_it);
                let paths: BTreeSet<_> = loss.into_iter().flat_map(|loss| &loss.paths).map(|it| &it.path).collect();
                for (path, content) in files {
                    let is_named = paths.iter().any(|named| names_path(named, path));
                    match left.get(path) {
                        Some(found) => {
                            assert!(found == content, "{case}: {path} of {snapshot} is another");
                            assert!(!is_named, "{case}: {path} of {snapshot} is there");
                        }
                        None => assert!(is_named, "{case}: {path} of {snapshot}: {report:#?}"),
                    }
                }
                let given_up = given_up.given_up.iter().find(is_it);
                assert_eq!(given_up.map(|loss| &loss.paths), loss.map(|loss| &loss.paths), "{case}");
                assert_failures(&store, &identity, loss, &case).await;
                assert!(left.keys().all(|path| files.contains_key(path)), "{case}");
            }
            assert_useful(&store, &case).await;
        }
    }
    let expected = ["pack of chunks", "pack of nodes", "pack that a record names", "small pack"];
    assert_eq!(named, BTreeSet::from(expected));
}

/// What there is, but for names that are drawn anew each time.
async fn state(store: &Arc<dyn ObjectStore>) -> (bool, BTreeMap<(String, u64), Files>, Vec<String>) {
    let repository = open(store).await;
    let series: BTreeSet<_> = repository.snapshots(None).await.unwrap().into_iter().map(|it| it.series).collect();
    let mut latest = Vec::new();
    for series in series {
        let found = repository.find(&Selector::LatestOf { series: series.clone() }).await.unwrap();
        let number = found.origin.map_or(found.number, |origin| origin.number);
        let failures: Vec<_> = found.failures.iter().map(|failure| &failure.path).collect();
        latest.push(format!("{series}: what was {number}, without {failures:?}"));
    }
    (check(&repository).await.is_sound(), what_is_left(store).await, latest)
}

/// Repairs until nothing is due, however often; a collection that is under way is finished in between.
async fn repair_all(store: &Arc<dyn ObjectStore>, options: &RepairOptions) {
    let mut steps = Vec::new();
    for _ in 0..4 {
        let repository = open(store).await;
        let plan = repository.plan_repair(options, Arc::new(NoProgress)).await.unwrap();
        if !plan.is_due() {
            return;
        }
        steps.push(plan.steps.iter().map(ToString::to_string).chain([format!("{:#?}", plan.lost)]).collect::<Vec<_>>());
        let report = repository.repair(plan, Arc::new(NoProgress)).await;
        let report = report.unwrap_or_else(|error| panic!("{error}: {steps:#?}"));
        if report.undone.iter().any(|step| step.object.starts_with("gc/")) {
            let options = GcOptions::default().with_wait(Duration::ZERO).with_fence_after(Duration::ZERO);
            let repository = open(store).await;
            let plan =
                repository.plan_gc(&options).await.unwrap_or_else(|error| panic!("{error}: {steps:#?} {report:#?}"));
            let report = repository.gc(plan, Arc::new(NoProgress)).await.unwrap();
            assert!(report.finished, "{report:#?}");
        }
    }
    panic!("a repair always leaves something to repair: {steps:#?}");
}

/// Cuts a repair off at each of its calls, and repairs again.
async fn cut_off_anywhere(original: &Original, victims: &[(&str, Damage)], copy: Option<Repository>) {
    let damage = async || {
        let store = stored(&original.objects).await;
        for (what, damage) in victims {
            assert!(damage.apply(&store, &original.victims[what], &original.objects).await);
        }
        store
    };
    let mut options = RepairOptions::default().with_accept_loss(true).with_remove_damaged_writers(true);
    options.other = copy;
    let store = damage().await;
    repair_all(&store, &options).await;
    let expected = state(&store).await;
    assert!(expected.0, "{:#?}", check(&open(&store).await).await.findings);

    let mut cut_off = 0;
    for k in 0.. {
        let store = damage().await;
        let faulty = FaultyStore::dead_after(Arc::clone(&store), k);
        let Ok(repository) = open_with(&faulty.shared(), OURS).await else { continue };
        let done = async {
            let plan = repository.plan_repair(&options, Arc::new(NoProgress)).await?;
            repository.repair(plan, Arc::new(NoProgress)).await
        };
        let done = done.await.is_ok();
        let injected = faulty.injected();
        drop(repository);
        repair_all(&store, &options).await;
        let found = state(&store).await;
        assert!(found == expected, "cut off at call {k}: {:?} instead of {:?}", found.2, expected.2);
        if done && injected == 0 {
            break;
        }
        cut_off += 1;
    }
    assert!(cut_off > 50, "{cut_off}");
}

#[tokio::test]
async fn a_repair_that_is_cut_off_is_begun_again() {
    let original = original(false).await;
    let victims = [
        ("small pack", Damage::Truncated),
        ("pack that a record names", Damage::Missing),
        ("segment", Damage::Flipped),
        ("middle record", Damage::Emptied),
        ("kept", Damage::Flipped),
        ("collection's end", Damage::Swapped),
        ("registration", Damage::Truncated),
    ];
    cut_off_anywhere(&original, &victims, None).await;
    let copy = open(&stored(&original.objects).await).await;
    cut_off_anywhere(&original, &victims, Some(copy)).await;
}

#[tokio::test]
async fn a_rewriting_that_is_cut_off_makes_no_snapshot_twice_and_ends_with_the_latest() {
    let original = original(false).await;
    // The chunks of "photo" are in the oldest pack, and so every snapshot of the series loses it; one more doesn't.
    let store = stored(&original.objects).await;
    let repository = open(&store).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("alone"), Random::new(77).bytes(30_000)).unwrap();
    back_up(&repository, folder.path(), "photos").await;
    let mut original = Original { objects: load(&store).await, ..original };
    let with_it: Vec<_> = original.snapshots.iter().filter(|(snapshot, _)| snapshot.series == "photos").collect();
    assert_eq!(with_it.len(), 2);
    // Of all packs, the one whose loss hits both.
    let mut shared = None;
    for name in original.objects.keys().filter(|name| name.starts_with("packs/")) {
        let store = stored(&original.objects).await;
        store.delete(&name.as_str().into()).await.unwrap();
        let options = RepairOptions::default();
        let plan = open(&store).await.plan_repair(&options, Arc::new(NoProgress)).await.unwrap();
        let hit: Vec<_> = plan.lost.iter().filter(|loss| !loss.forgotten && loss.series == "photos").collect();
        let everything = |loss: &&backstop::SnapshotLoss| loss.paths.iter().any(|it| it.path.starts_with("everything"));
        if hit.len() == 2 && !hit.iter().any(everything) {
            shared = Some(name.clone());
        }
    }
    original.victims.insert("shared pack", shared.unwrap());
    cut_off_anywhere(&original, &[("shared pack", Damage::Missing)], None).await;

    let store = stored(&original.objects).await;
    Damage::Missing.apply(&store, &original.victims["shared pack"], &original.objects).await;
    let (_, report) = repair(&open(&store).await, &RepairOptions::default().with_accept_loss(true)).await;
    let photos = |number, now| ("photos".to_owned(), number, now);
    let rewritten: Vec<_> = report.rewritten.iter().filter(|it| it.0 == "photos").cloned().collect();
    assert_eq!(rewritten, [photos(4, 7), photos(5, 8)], "{report:#?}");
    let latest = open(&store).await.find(&Selector::LatestOf { series: "photos".to_owned() }).await.unwrap();
    // What was rewritten stands in the place of what it gives back, before the one that lacks nothing.
    assert!(latest.number == 6 && !latest.is_partial() && readable(&open(&store).await, &latest).await.len() == 1);
}

#[tokio::test]
async fn many_objects_are_damaged_at_once() {
    let original = original(false).await;
    let copy = open(&stored(&original.objects).await).await;
    for seed in 0..80u64 {
        let mut random = Random::new(1000 + seed);
        let store = stored(&original.objects).await;
        let mut hit = Vec::new();
        for name in original.objects.keys().filter(|name| **name != original.victims["slot in use"]) {
            if *name != "config" && random.chance(0.25) {
                let damage = DAMAGES[random.below(DAMAGES.len() as u64) as usize];
                damage.apply(&store, name, &original.objects).await;
                hit.push(format!("{name}, {damage:?}"));
            }
        }
        let mut options = RepairOptions::default().with_remove_damaged_writers(true);
        for series in ["photos", "texts", "notes"] {
            options = options.with_series(series);
        }
        let damaged = load(&store).await;
        repair_all(&store, &options.clone().with_other(copy.clone())).await;
        let report = check(&open(&store).await).await;
        assert!(report.is_sound(), "{seed}, {hit:#?}: {:#?}", report.findings);
        assert_whole(&store, &original, &format!("{seed}, {hit:#?}")).await;

        let store = stored(&damaged).await;
        repair_all(&store, &options.with_accept_loss(true)).await;
        let report = check(&open(&store).await).await;
        assert!(report.is_sound(), "{seed}, {hit:#?}: {:#?}", report.findings);
        for ((series, number), files) in what_is_left(&store).await {
            let before = original.snapshots.iter().find(|(it, _)| it.series == series && it.number == number);
            // One that was forgotten may count again, if what forgot it is lost.
            let Some((_, before)) = before else { continue };
            assert!(files.iter().all(|(path, content)| before.get(path) == Some(content)), "{seed}: {hit:#?}");
        }
        assert_useful(&store, &format!("{seed}, {hit:#?}")).await;
    }
}
