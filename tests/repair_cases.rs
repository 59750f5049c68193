//! Cases of repair that a matrix of damaged objects doesn't come by.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
#[path = "helpers/mod.rs"]
mod helpers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backstop::{
    BackupOptions, CheckOptions, ChunkerParameters, CommitOptions, CreateOptions, Error, GcOptions, Key, Metadata,
    OpenOptions, RepairAction, RepairOptions, RepairReport, Repository, Secret, Snapshot, WriterOptions,
};
use bytes::Bytes;
use common::{Fault, FaultyStore, Kind, Random, Reply};
use futures::TryStreamExt;
use helpers::{Folder, create, memory, names, open, quiet, secret, settle};
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;

type Store = Arc<dyn ObjectStore>;

async fn load(store: &Store) -> BTreeMap<String, Bytes> {
    let mut objects = BTreeMap::new();
    for meta in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        objects.insert(meta.location.to_string(), store.get(&meta.location).await.unwrap().bytes().await.unwrap());
    }
    objects
}

async fn copy(store: &Store) -> Store {
    let copy = memory();
    for (name, bytes) in load(store).await {
        put(&copy, &name, bytes).await;
    }
    copy
}

async fn put(store: &Store, name: &str, bytes: impl Into<Bytes>) {
    store.put(&name.into(), bytes.into().into()).await.unwrap();
}

async fn repair(store: &Store, options: &RepairOptions) -> (Vec<(RepairAction, String)>, RepairReport) {
    let repository = open(store).await;
    let plan = repository.plan_repair(options, quiet()).await.unwrap();
    let steps = plan.steps.iter().map(|step| (step.action, step.to_string())).collect();
    (steps, repository.repair(plan, quiet()).await.unwrap())
}

async fn is_sound(store: &Store) -> bool {
    let options = CheckOptions::default().with_read_data(100.0);
    let report = open(store).await.check(&options, quiet()).await.unwrap();
    if !report.is_sound() {
        println!("{:#?}", report.findings);
    }
    report.is_sound()
}

async fn back_up(store: &Store, folder: &Folder, options: &BackupOptions) -> Snapshot {
    let paths = [PathBuf::from(folder.path())];
    open(store).await.backup(&paths, options, quiet()).await.unwrap().snapshot.unwrap()
}

/// A folder whose backup fills several blocks, and the repository that has it.
async fn backed_up() -> (Store, Folder, Snapshot) {
    let store = memory();
    let chunker = ChunkerParameters { min: 1 << 10, mean: 4 << 10, max: 16 << 10 };
    let options = CreateOptions::default().with_chunker(chunker);
    Repository::create(Arc::clone(&store), &secret(), options).await.unwrap();
    let folder = Folder::new();
    for number in 0..12 {
        folder.write(format!("photo {number}"), Random::new(number).bytes(20_000));
        folder.write(format!("text {number}"), format!("line {number}\n").repeat(500));
    }
    settle();
    let snapshot = back_up(&store, &folder, &BackupOptions::default()).await;
    (store, folder, snapshot)
}

/// The paths of a snapshot that can't be read.
async fn unreadable(store: &Store, snapshot: &Snapshot, folder: &Folder) -> BTreeSet<String> {
    let repository = open(store).await;
    let mut lost = BTreeSet::new();
    for (key, content) in folder.files() {
        match read(&repository, snapshot, &key).await {
            Some(found) => assert!(found == content, "{key} was read otherwise"),
            None => drop(lost.insert(key.to_string())),
        }
    }
    lost
}

async fn read(repository: &Repository, snapshot: &Snapshot, key: &Key) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    repository.read_file(snapshot, key).await.ok()?.read_to_end(&mut content).await.ok()?;
    Some(content)
}

fn lost_of(report: &RepairReport) -> BTreeSet<String> {
    report.lost.iter().flat_map(|loss| &loss.paths).map(|failure| failure.path.clone()).collect()
}

#[tokio::test]
async fn of_a_damaged_pack_all_is_saved_but_the_block_that_is_hit() {
    let (store, folder, snapshot) = backed_up().await;
    let packs = names(&store, "packs/").await;
    assert_eq!(packs.len(), 1);
    let pack = load(&store).await[&packs[0]].clone();
    let (mut whole, mut some) = (0, 0);
    for at in (0..pack.len()).step_by(pack.len() / 40).chain([9, 12, 20, 50, pack.len() - 1, pack.len() - 40]) {
        let damaged = copy(&store).await;
        let mut bytes = pack.to_vec();
        bytes[at] ^= 1;
        put(&damaged, &packs[0], bytes).await;
        let before = unreadable(&damaged, &snapshot, &folder).await;
        let (steps, report) = repair(&damaged, &RepairOptions::default()).await;
        let after = unreadable(&damaged, &snapshot, &folder).await;
        assert!(after.is_subset(&before), "byte {at}: {steps:#?}");
        assert!(!names(&damaged, "packs/").await.contains(&packs[0]), "byte {at}");
        let ranges = lost_of(&report).iter().any(|path| path.starts_with("everything"));
        assert!(ranges || lost_of(&report) == after, "byte {at}: {report:#?}, {after:?}");
        assert_eq!(is_sound(&damaged).await, after.is_empty(), "byte {at}");
        whole += usize::from(after.is_empty());
        some += usize::from(!ranges && !after.is_empty() && after.len() < folder.files().len() / 2);
    }
    assert!(whole >= 6, "what isn't a block can be done without: {whole}");
    assert!(some >= 20, "{some}");
}

#[tokio::test]
async fn what_a_repair_found_lost_is_stored_again_by_a_backup_that_heals() {
    let (store, folder, snapshot) = backed_up().await;
    let packs = names(&store, "packs/").await;
    let nothing_lost = store_of_backup(&copy(&store).await, &folder, true).await.unwrap();
    assert_eq!((nothing_lost.stats.bytes_read, nothing_lost.root), (0, snapshot.root));
    // All chunks and nodes are lost, or a few chunks.
    for whole in [true, false] {
        let store = copy(&store).await;
        let mut bytes = load(&store).await[&packs[0]].to_vec();
        if whole {
            bytes.clear();
        } else {
            bytes[100] ^= 1;
        }
        put(&store, &packs[0], bytes).await;
        let (_, report) = repair(&store, &RepairOptions::default()).await;
        assert!(!report.lost.is_empty() && !report.is_complete() && !is_sound(&store).await);

        let plain = store_of_backup(&store, &folder, false).await;
        assert!(plain.is_err() || !is_sound(&store).await, "what looks unchanged isn't read");
        let healed = store_of_backup(&store, &folder, true).await.unwrap();
        assert!(unreadable(&store, &healed, &folder).await.is_empty());
        assert!(unreadable(&store, &snapshot, &folder).await.is_empty(), "the old snapshot is whole again");
        assert!(is_sound(&store).await);
        let plan = open(&store).await.plan_repair(&RepairOptions::default(), quiet()).await.unwrap();
        assert!(plan.is_sound(), "{:#?}", plan.steps);
    }
}

async fn store_of_backup(store: &Store, folder: &Folder, heal: bool) -> backstop::Result<Snapshot> {
    let options = BackupOptions::default().with_heal(heal);
    let paths = [PathBuf::from(folder.path())];
    Ok(open(store).await.backup(&paths, &options, quiet()).await?.snapshot.unwrap())
}

#[tokio::test]
async fn blobs_are_taken_from_a_copy_that_has_them_in_other_packs() {
    let store = memory();
    let repository = create(&store).await;
    let mut contents = BTreeMap::new();
    for number in 0..40u8 {
        let writer = repository.writer("notes", WriterOptions::default()).await.unwrap();
        let (key, content) =
            (Key::from_path(format!("note {number}")).unwrap(), Random::new(number.into()).bytes(3000));
        writer.put(&key, content.clone(), &Metadata::default()).await.unwrap();
        writer.commit(CommitOptions::default()).await.unwrap();
        contents.insert(key, content);
    }
    let other = copy(&store).await;
    let there = open(&other).await;
    let merged = there.merge(&there.plan_merge().await.unwrap()).await.unwrap();
    assert!(merged.packs_deleted >= 32);

    for name in names(&store, "packs/").await.iter().step_by(3) {
        store.delete(&name.as_str().into()).await.unwrap();
    }
    let options = RepairOptions::default().with_other(open(&other).await);
    let (steps, report) = repair(&store, &options).await;
    assert!(steps.iter().any(|(action, _)| *action == RepairAction::CopyBlobs), "{steps:#?}");
    assert!(report.blobs_copied > 10 && report.is_complete(), "{report:#?}");
    assert!(is_sound(&store).await);
    let repository = open(&store).await;
    for snapshot in repository.snapshots(None).await.unwrap() {
        for (key, content) in &contents {
            if let Some(found) = read(&repository, &snapshot, key).await {
                assert!(found == *content);
            }
        }
        assert_eq!(
            repository.entries(&snapshot, None).try_collect::<Vec<_>>().await.unwrap().len() as u64,
            snapshot.entries
        );
    }
}

#[tokio::test]
async fn only_a_copy_of_the_same_repository_is_taken_from_and_only_by_an_administrator() {
    let (store, ..) = backed_up().await;
    let stranger = memory();
    create(&stranger).await;
    let options = RepairOptions::default().with_other(open(&stranger).await);
    let error = open(&store).await.plan_repair(&options, quiet()).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid { .. }) && error.to_string().contains("isn't a copy"), "{error}");

    open(&store).await.add_append_only_key(&Secret::key([9; 32]), "server").await.unwrap();
    let server = Repository::open(Arc::clone(&store), &Secret::key([9; 32]), OpenOptions::default()).await.unwrap();
    let plan = server.plan_repair(&RepairOptions::default(), quiet()).await.unwrap();
    assert!(matches!(server.repair(plan, quiet()).await, Err(Error::AppendOnly { .. })));
}

#[tokio::test]
async fn a_series_whose_name_nothing_tells_needs_to_be_given_it() {
    let (store, folder, snapshot) = backed_up().await;
    let record = names(&store, "commits/").await.pop().unwrap();
    put(&store, &record, "nothing of it").await;
    for name in names(&store, "writers/").await {
        store.delete(&name.into()).await.unwrap();
    }
    let accept = RepairOptions::default().with_accept_loss(true);
    let (steps, report) = repair(&store, &RepairOptions::default().with_series(&snapshot.series)).await;
    assert!(!report.is_complete() && report.undone[0].advice.contains("accept the loss"), "{steps:#?}");
    assert!(store_of_backup(&store, &folder, false).await.is_err());

    let (steps, report) = repair(&store, &accept.with_series(snapshot.series)).await;
    assert_eq!(steps[0].0, RepairAction::Tombstone);
    assert!(report.is_complete() && is_sound(&store).await);
    let next = store_of_backup(&store, &folder, false).await.unwrap();
    assert_eq!((next.number, next.predecessor.is_some()), (2, true));
    assert!(is_sound(&store).await);
}

#[tokio::test]
async fn what_a_repair_could_not_delete_is_deleted_by_whoever_finds_it() {
    for finisher in ["repair", "merge", "gc"] {
        let (store, folder, _) = backed_up().await;
        let packs = names(&store, "packs/").await;
        let mut bytes = load(&store).await[&packs[0]].to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        put(&store, &packs[0], bytes).await;
        let denied = Fault { done: false, reply: Reply::Denied };
        let faulty = FaultyStore::nth(Arc::clone(&store), Kind::Delete, "packs/", 0, denied).shared();
        let (_, report) = repair(&faulty, &RepairOptions::default()).await;
        assert!(report.left == 1 && !report.is_complete(), "{report:#?}");
        assert!(names(&store, "packs/").await.contains(&packs[0]));

        let repository = open(&store).await;
        match finisher {
            "repair" => drop(repair(&store, &RepairOptions::default()).await),
            "merge" => {
                let plan = repository.plan_merge().await.unwrap();
                assert!(plan.is_due() && repository.merge(&plan).await.unwrap().packs_deleted > 0);
            }
            _ => {
                let options = GcOptions::default().with_wait(Duration::ZERO);
                let plan = repository.plan_gc(&options).await.unwrap();
                assert!(plan.unfinished.is_some());
                assert!(repository.gc(plan, quiet()).await.unwrap().finished);
            }
        }
        assert!(!names(&store, "packs/").await.contains(&packs[0]), "{finisher}");
        assert!(is_sound(&store).await, "{finisher}");
        back_up(&store, &folder, &BackupOptions::default()).await;
    }
}

#[tokio::test]
async fn what_lies_under_the_tag_of_no_series_goes_by_consent() {
    let (store, folder, _) = backed_up().await;
    let tag = "0123456789abcdef0123456789abcdef";
    for name in [format!("commits/{tag}/000000000000/000000000000001"), format!("kept/{tag}/000000000000001")] {
        put(&store, &name, "nothing of it").await;
    }
    let repository = open(&store).await;
    assert!(repository.plan_gc(&GcOptions::default()).await.is_err(), "it may have been a series");
    let (steps, report) = repair(&store, &RepairOptions::default()).await;
    assert!(!report.is_complete() && report.undone.len() == 2, "{steps:#?}");
    let (steps, report) = repair(&store, &RepairOptions::default().with_remove_nameless(true)).await;
    assert!(report.is_complete() && is_sound(&store).await, "{steps:#?}");
    repository.plan_gc(&GcOptions::default()).await.unwrap();
    assert_eq!(store_of_backup(&store, &folder, false).await.unwrap().number, 2);
}
