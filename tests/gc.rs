//! Forgetting and collecting: what is needed stays, what isn't goes, whatever runs beside it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstop::{
    CheckOptions, Error, FeedOptions, ForgetOptions, GcOptions, GcReport, Key, Metadata, OpenOptions, PackReason,
    Repository, RetentionPolicy, Secret, Snapshot, StoreRights, WriterOptions,
};
use common::{Fault, FaultyStore, Kind, Random, Reply, RestrainedStore};
use helpers::{
    Folder, SetClock, backup, backup_with, contents, create, dump, memory, names, open, quiet, read, running, series,
    snapshot,
};
use object_store::ObjectStoreExt;

type Contents = BTreeMap<Key, Vec<u8>>;

/// Doesn't wait for writers, and fences none.
fn hasty() -> GcOptions {
    GcOptions::default().with_wait(Duration::ZERO)
}

/// Fences every writer at once.
fn ruthless() -> GcOptions {
    hasty().with_fence_after(Duration::ZERO)
}

async fn collect_with(repository: &Repository, options: &GcOptions) -> GcReport {
    let plan = repository.plan_gc(options).await.unwrap();
    repository.gc(plan, quiet()).await.unwrap()
}

/// Collects until nothing is left to do.
async fn collect(repository: &Repository) -> GcReport {
    let report = collect_with(repository, &hasty()).await;
    assert!(report.finished, "{report:?}");
    report
}

/// Forgets snapshots of the default series, so that their data isn't kept any longer.
async fn forget(repository: &Repository, numbers: &[u64]) {
    let mut options = ForgetOptions::default().with_undelete_for(Duration::ZERO);
    for number in numbers {
        options = options.with_snapshot("default", *number);
    }
    let plan = repository.plan_forget(&options).await.unwrap();
    let report = repository.forget(&plan).await.unwrap();
    assert_eq!(report.forgotten.len(), numbers.len());
}

async fn assert_whole(repository: &Repository, snapshots: &[(Snapshot, Contents)], what: &str) {
    for (snapshot, expected) in snapshots {
        assert_eq!(&contents(repository, snapshot).await, expected, "{snapshot}, {what}");
    }
    let report = repository.check(&CheckOptions::default().with_read_data(100.0), quiet()).await.unwrap();
    assert!(report.is_sound(), "{what}: {:#?}", report.findings);
}

async fn pack_bytes(repository: &Repository) -> u64 {
    repository.stats().await.unwrap().packs.bytes
}

/// Some snapshots of a folder of which a part changes from one to the next.
async fn life(repository: &Repository, rounds: u64) -> (Folder, Vec<(Snapshot, Contents)>) {
    let (folder, mut random) = (Folder::new(), Random::new(11));
    let mut snapshots = Vec::new();
    folder.write("stays/photo", random.bytes(200_000));
    for round in 0..rounds {
        folder.write("changes/photo", random.bytes(150_000));
        folder.write(format!("changes/{}", round % 3), random.text(30_000));
        folder.write(format!("new/{round}"), format!("round {round}"));
        let snapshot = snapshot(repository, &folder).await;
        snapshots.push((snapshot, folder.files()));
    }
    (folder, snapshots)
}

#[tokio::test]
async fn what_no_snapshot_needs_goes_and_the_rest_stays() {
    let store = memory();
    let repository = create(&store).await;
    let (folder, mut snapshots) = life(&repository, 6).await;
    let before = pack_bytes(&repository).await;
    let plan = repository.plan_gc(&hasty()).await.unwrap();
    assert_eq!((plan.snapshots, plan.forgotten, plan.freed_bytes()), (6, 0, 0), "{plan:?}");

    forget(&repository, &[1, 2, 4]).await;
    snapshots.retain(|(snapshot, _)| ![1, 2, 4].contains(&snapshot.number));
    let shown: Vec<_> = repository.snapshots(None).await.unwrap().iter().map(|snapshot| snapshot.number).collect();
    assert_eq!(shown, [3, 5, 6]);
    let untouched = dump(&store).await;
    let plan = repository.plan_gc(&hasty()).await.unwrap();
    assert_eq!((plan.snapshots, plan.undeletable, plan.forgotten), (3, 0, 3));
    assert!(plan.freed_bytes() > 300_000 && plan.packs.len() >= 2, "{plan:?}");
    assert_eq!(dump(&store).await, untouched, "a plan changes nothing");
    let report = repository.gc(plan, quiet()).await.unwrap();
    assert!(report.finished && report.packs_deleted >= 2 && report.records_deleted == 3, "{report:?}");
    assert!(pack_bytes(&repository).await + 300_000 < before);
    assert_whole(&open(&store).await, &snapshots, "collected").await;
    assert_eq!(names(&store, "commits").await.len(), 3);
    assert_eq!(running(&store).await.len(), 0);

    let plan = repository.plan_gc(&hasty()).await.unwrap();
    assert!(!plan.is_due(), "a second one has nothing to do: {plan:?}");
    let report = backup(&open(&store).await, &folder).await;
    assert_eq!((report.stats.new_blobs, report.stats.bytes_read), (0, 0), "what is there is found");
    assert_eq!(report.snapshot.unwrap().number, 7);
}

#[tokio::test]
async fn sparse_packs_are_rewritten() {
    let store = memory();
    let repository = create(&store).await;
    let (folder, mut random) = (Folder::new(), Random::new(3));
    for number in 0..20 {
        folder.write(format!("{number}"), random.bytes(40_000));
    }
    snapshot(&repository, &folder).await;
    (4..20).for_each(|number| folder.remove(format!("{number}")));
    let kept = (snapshot(&repository, &folder).await, folder.files());
    forget(&repository, &[1]).await;

    let lenient = repository.plan_gc(&hasty().with_waste_max(1.0)).await.unwrap();
    assert!(lenient.packs.is_empty(), "{lenient:?}");
    let plan = repository.plan_gc(&hasty()).await.unwrap();
    let sparse: Vec<_> = plan.packs.iter().filter(|fate| fate.reason == PackReason::Sparse).collect();
    assert!(sparse.len() == 1 && sparse[0].needed_bytes < sparse[0].bytes / 3, "{plan:?}");
    let freed = plan.freed_bytes();
    let before = pack_bytes(&repository).await;
    let report = repository.gc(plan, quiet()).await.unwrap();
    assert!(report.finished && report.packs_written > 0 && report.bytes_written < report.bytes_deleted);
    let after = pack_bytes(&repository).await;
    assert!(before - after > freed / 10 * 9, "{before} - {after}, {freed} promised");
    assert_whole(&open(&store).await, &[kept], "rewritten").await;
}

#[tokio::test]
async fn what_was_forgotten_can_be_undeleted_for_a_while() {
    let (store, clock) = (memory(), SetClock::at(1_000_000));
    create(&store).await;
    let open_at = |clock: &Arc<SetClock>| {
        let (store, options) = (Arc::clone(&store), clock.options());
        async move { Repository::open(store, &helpers::secret(), options).await.unwrap() }
    };
    let repository = open_at(&clock).await;
    let (_folder, snapshots) = life(&repository, 4).await;
    let day = Duration::from_secs(24 * 3600);
    let options = ForgetOptions::default().with_undelete_for(day);
    let options = options.with_snapshot("default", 1).with_snapshot("default", 2).with_snapshot("default", 4);
    repository.forget(&repository.plan_forget(&options).await.unwrap()).await.unwrap();
    let forgotten = repository.forgotten(None).await.unwrap();
    assert_eq!(forgotten.iter().map(|one| one.snapshot.number).collect::<Vec<_>>(), [1, 2, 4]);
    assert!(repository.find(&backstop::Selector::Latest).await.unwrap().number == 3);

    clock.set(1_000_000 + 23 * 3600);
    let plan = repository.plan_gc(&hasty()).await.unwrap();
    assert_eq!((plan.snapshots, plan.undeletable, plan.forgotten), (1, 3, 0));
    repository.gc(plan, quiet()).await.unwrap();
    assert!(matches!(repository.undelete("default", 3).await, Err(Error::Invalid { .. })), "it wasn't forgotten");
    assert!(repository.undelete("default", 9).await.unwrap_err().is_not_found());
    let back = repository.undelete("default", 2).await.unwrap();
    assert_eq!((back.number, back.origin.unwrap().number, back.origin.unwrap().time), (5, 2, snapshots[1].0.time));
    assert_eq!(contents(&open(&store).await, &back).await, snapshots[1].1);
    // It stands where it stood: the latest is another, and that is what is gone on from.
    assert_eq!((back.place(), repository.find(&backstop::Selector::Latest).await.unwrap().number), (2, 3));
    let writer = repository.writer("default", WriterOptions::default()).await.unwrap();
    assert_eq!(writer.parent().map(|parent| parent.number), Some(3));
    writer.abandon().await;

    clock.set(1_000_000 + 25 * 3600);
    let plan = repository.plan_gc(&hasty()).await.unwrap();
    assert_eq!((plan.snapshots, plan.undeletable, plan.forgotten), (2, 0, 3), "its highest number was 5 by then");
    assert!(repository.gc(plan, quiet()).await.unwrap().finished);
    let gone = repository.undelete("default", 1).await.unwrap_err();
    assert!(gone.is_not_found() && gone.to_string().contains("collected"), "{gone}");
    let kept = [(snapshots[2].0.clone(), snapshots[2].1.clone()), (back, snapshots[1].1.clone())];
    assert_whole(&open(&store).await, &kept, "after the day").await;
    assert!(repository.forgotten(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_policy_decides_for_each_series_and_spares_its_last_complete_snapshot() {
    let (store, clock) = (memory(), SetClock::at(0));
    create(&store).await;
    let repository = Repository::open(Arc::clone(&store), &helpers::secret(), clock.options()).await.unwrap();
    let folder = Folder::new();
    for day in 1..=10 {
        clock.set(day * 24 * 3600);
        folder.write("day", day.to_string());
        for name in ["a", "b"] {
            backup_with(&repository, &folder, &series(name)).await;
        }
    }
    let policy = RetentionPolicy::default().with_last(2).with_weekly(2);
    let options = ForgetOptions::default().with_policy(policy.clone()).with_series("a");
    let plan = repository.plan_forget(&options).await.unwrap();
    assert_eq!(plan.decisions.len(), 10);
    let reasons =
        |number: usize| plan.decisions[number - 1].reasons.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(reasons(10).iter().any(|reason| reason.contains("last 2")), "{:?}", reasons(10));
    assert_eq!(reasons(5), ["covered by no rule"]);
    let forgotten = plan.forgotten().count();
    repository.forget(&plan).await.unwrap();
    assert_eq!(repository.snapshots(Some("a")).await.unwrap().len(), 10 - forgotten);
    assert_eq!(repository.snapshots(Some("b")).await.unwrap().len(), 10);

    // What a plan relies on must still count when it is carried out.
    let one = RetentionPolicy::default().with_last(1);
    let stale = repository.plan_forget(&ForgetOptions::default().with_policy(one).with_series("b")).await.unwrap();
    let by_name = ForgetOptions::default().with_snapshot("b", 10);
    repository.forget(&repository.plan_forget(&by_name).await.unwrap()).await.unwrap();
    assert!(repository.forget(&stale).await.unwrap_err().is_conflict());
    assert_eq!(repository.snapshots(Some("b")).await.unwrap().len(), 9);
    let missing = ForgetOptions::default().with_snapshot("b", 10);
    assert!(repository.plan_forget(&missing).await.unwrap_err().is_not_found());
    assert!(matches!(repository.plan_forget(&ForgetOptions::default()).await, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn a_series_goes_on_after_all_of_it_was_forgotten() {
    let store = memory();
    let repository = create(&store).await;
    let (folder, _) = life(&repository, 3).await;
    forget(&repository, &[1, 2, 3]).await;
    assert!(repository.find(&backstop::Selector::Latest).await.unwrap_err().is_not_found());
    collect(&repository).await;
    assert_eq!(names(&store, "packs").await.len(), 0);
    assert_eq!(names(&store, "commits").await.len(), 1, "the highest number is never free again");
    let snapshot = (snapshot(&open(&store).await, &folder).await, folder.files());
    assert_eq!((snapshot.0.number, snapshot.0.parent), (4, None));
    assert_whole(&open(&store).await, &[snapshot], "begun anew").await;
}

#[tokio::test]
async fn a_writer_that_registered_before_is_waited_for_and_loses_nothing() {
    let store = memory();
    let repository = create(&store).await;
    let (folder, snapshots) = life(&repository, 2).await;
    // Takes over what is forgotten below, without a look at it.
    let writer = open(&store).await.writer("default", WriterOptions::default()).await.unwrap();
    writer.put(&Key::from_path("more").unwrap(), "more", &Metadata::default()).await.unwrap();
    forget(&repository, &[1, 2]).await;
    let report = collect_with(&repository, &hasty()).await;
    assert!(!report.finished && report.waiting.len() == 1 && report.packs_deleted == 0, "{report:?}");
    assert_eq!(report.waiting[0].series, "default");

    // What one that comes now finds stored is about to go, so it stores it again.
    let same = Folder::new();
    same.write("photo", &snapshots[1].1[&folder.key("changes/photo")]);
    let late = backup_with(&open(&store).await, &same, &series("late")).await;
    assert!(late.stats.stored_bytes > 140_000, "{:?}", late.stats);

    let committed = writer.commit(backstop::CommitOptions::default()).await.unwrap();
    // Whoever comes by finishes it, and copies what is needed after all.
    let report = collect_with(&open(&store).await, &hasty()).await;
    assert!(report.finished && report.rescued_blobs > 0 && report.packs_deleted > 0, "{report:?}");
    let mut expected = snapshots[1].1.clone();
    expected.insert(Key::from_path("more").unwrap(), b"more".to_vec());
    let all = [(committed, expected), (late.snapshot.unwrap(), same.files())];
    assert_whole(&open(&store).await, &all, "afterwards").await;
    collect(&repository).await;
    assert_whole(&open(&store).await, &all, "collected once more").await;
}

#[tokio::test]
async fn a_writer_that_is_fenced_wakes_up_and_commits_all_the_same() {
    let store = memory();
    let repository = create(&store).await;
    let (folder, snapshots) = life(&repository, 2).await;
    let sleeper = open(&store).await.writer("default", WriterOptions::default()).await.unwrap();
    sleeper.put(&Key::from_path("more").unwrap(), "more", &Metadata::default()).await.unwrap();
    // Found stored, in a pack that goes.
    let found = Key::from_path("found").unwrap();
    let bytes = snapshots[0].1[&folder.key("changes/photo")].clone();
    sleeper.put(&found, bytes.clone(), &Metadata::default()).await.unwrap();
    forget(&repository, &[1]).await;
    let report = collect_with(&repository, &ruthless()).await;
    assert!(report.finished && report.fenced == [("default".to_owned(), 3)], "{report:?}");
    assert_eq!(running(&store).await.len(), 0);

    let woken = sleeper.commit(backstop::CommitOptions::default()).await;
    let kept = (snapshots[1].0.clone(), snapshots[1].1.clone());
    match woken {
        Ok(snapshot) => {
            assert_eq!(snapshot.number, 4);
            let mut expected = snapshots[1].1.clone();
            expected.insert(Key::from_path("more").unwrap(), b"more".to_vec());
            expected.insert(found, bytes);
            assert_whole(&open(&store).await, &[kept, (snapshot, expected)], "woken").await;
        }
        // What it found stored is gone, and it has no other copy.
        Err(error) => {
            assert!(error.is_conflict(), "{error}");
            assert_whole(&open(&store).await, &[kept], "woken").await;
        }
    }
    // The tombstone's number is never free again.
    forget(&repository, &[2]).await;
    collect_with(&repository, &ruthless()).await;
    assert!(names(&store, "commits").await.iter().any(|name| name.ends_with("/000000000000003")));
}

#[tokio::test]
async fn a_feed_renews_when_a_collection_waits_for_it() {
    let store = memory();
    let repository = create(&store).await;
    let (_folder, _) = life(&repository, 3).await;
    let options = FeedOptions::default().with_look_every(Duration::from_millis(20));
    let feed = open(&store).await.feed("accounts", options).await.unwrap();
    let card = |number: u32| Key::from_path(format!("ana/{number}")).unwrap();
    let photo = Random::new(9).bytes(100_000);
    feed.put(&card(1), photo.clone(), &Metadata::default()).await.unwrap();
    forget(&repository, &[1, 2]).await;
    let report = collect_with(&repository, &GcOptions::default().with_wait(Duration::from_secs(60))).await;
    assert!(report.finished && report.fenced.is_empty(), "{report:?}");
    feed.put(&card(2), "BEGIN:VCARD", &Metadata::default()).await.unwrap();
    let last = feed.close().await.unwrap().unwrap();
    let repository = open(&store).await;
    assert_eq!(read(&repository, &last, &card(1)).await, photo);
    assert_whole(&repository, &[], "with a feed").await;
    assert_eq!(running(&store).await.len(), 0);
}

#[tokio::test]
async fn two_collectors_one_of_which_dies_are_one() {
    let store = memory();
    let repository = create(&store).await;
    let (_folder, mut snapshots) = life(&repository, 5).await;
    forget(&repository, &[1, 2, 3]).await;
    snapshots.drain(..3);
    let (one, other) = (open(&store).await, open(&store).await);
    let (first, second) = (one.plan_gc(&hasty()).await.unwrap(), other.plan_gc(&hasty()).await.unwrap());
    let (first, second) = tokio::join!(one.gc(first, quiet()), other.gc(second, quiet()));
    let conflicts = [&first, &second].into_iter().filter(|outcome| outcome.as_ref().is_err_and(Error::is_conflict));
    assert!(conflicts.count() <= 1 && (first.is_ok() || second.is_ok()), "{first:?} {second:?}");
    collect(&repository).await;
    assert_whole(&open(&store).await, &snapshots, "two at once").await;
}

#[tokio::test]
async fn a_store_that_refuses_to_delete_is_reported_and_nothing_breaks() {
    let store = memory();
    let repository = create(&store).await;
    let (folder, mut snapshots) = life(&repository, 4).await;
    let locked = FaultyStore::new(Arc::clone(&store), |call| {
        let object = call.name.starts_with("packs/") || call.name.starts_with("commits/");
        (call.kind == Kind::Delete && object).then_some(Fault { done: false, reply: Reply::Denied })
    });
    let behind = open(&locked.shared()).await;
    forget(&behind, &[1, 2, 3]).await;
    snapshots.drain(..3);
    let report = collect_with(&behind, &hasty()).await;
    assert!(!report.finished && report.packs_deleted == 0 && !report.left.is_empty(), "{report:?}");
    assert!(report.left.iter().all(|name| name.starts_with("packs/")));
    assert_whole(&behind, &snapshots, "locked").await;
    // Nobody relies on what is condemned, and a second attempt writes nothing.
    let packs = names(&store, "packs").await;
    let report = collect_with(&behind, &hasty()).await;
    assert!(!report.finished && report.packs_written == 0, "{report:?}");
    assert_eq!(names(&store, "packs").await, packs);
    let again = backup_with(&behind, &folder, &series("again")).await;
    snapshots.push((again.snapshot.unwrap(), folder.files()));
    assert_whole(&behind, &snapshots, "written to").await;

    let report = collect(&open(&store).await).await;
    assert!(report.packs_deleted > 0, "{report:?}");
    collect(&open(&store).await).await;
    assert_whole(&open(&store).await, &snapshots, "unlocked").await;
}

#[tokio::test]
async fn an_append_only_secret_backs_up_and_restores_and_can_do_no_harm() {
    let store = memory();
    let repository = create(&store).await;
    let secret = Secret::key([9; 32]);
    assert!(repository.add_append_only_key(&secret, "server").await.unwrap().append_only);
    let server = Repository::open(Arc::clone(&store), &secret, OpenOptions::default()).await.unwrap();
    assert!(server.is_append_only() && !repository.is_append_only());
    let (_folder, snapshots) = life(&server, 3).await;
    assert_whole(&server, &snapshots, "by who can only add").await;

    let refused = |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::AppendOnly { .. })), "{outcome:?}");
    let options = ForgetOptions::default().with_snapshot("default", 1).with_undelete_for(Duration::ZERO);
    let plan = server.plan_forget(&options).await.unwrap();
    refused(server.forget(&plan).await.map(drop));
    repository.forget(&plan).await.unwrap();
    refused(server.gc(server.plan_gc(&hasty()).await.unwrap(), quiet()).await.map(drop));
    refused(server.merge(&server.plan_merge().await.unwrap()).await.map(drop));
    let slot = repository.keys().await.unwrap().into_iter().find(|key| !key.append_only).unwrap();
    refused(server.remove_key(&slot.id).await);
    refused(server.add_key(&Secret::key([10; 32]), "").await.map(drop));
    refused(server.rotate_keys().await.map(drop));
    collect(&repository).await;
    assert_whole(&server, &snapshots[1..], "collected by the administrator").await;
    server.undelete("default", 1).await.unwrap_err();
}

#[tokio::test]
async fn a_damaged_snapshot_stops_the_collection_until_it_is_forgotten() {
    let store = memory();
    let repository = create(&store).await;
    let (_folder, snapshots) = life(&repository, 3).await;
    forget(&repository, &[1]).await;
    let pack = names(&store, "packs").await.into_iter().next_back().unwrap();
    store.delete(&pack.as_str().into()).await.unwrap();
    let before = dump(&store).await;
    let repository = open(&store).await;
    let refused = repository.plan_gc(&hasty()).await.unwrap_err();
    assert!(refused.is_corrupt() && refused.to_string().contains("repair"), "{refused}");
    assert_eq!(dump(&store).await, before, "nothing was touched");
    let damaged: Vec<u64> = {
        let mut damaged = Vec::new();
        for (snapshot, _) in &snapshots[1..] {
            let listed: Result<Vec<_>, _> =
                futures::TryStreamExt::try_collect(repository.entries(snapshot, None)).await;
            let mut whole = listed.is_ok();
            for (key, entry) in listed.unwrap_or_default() {
                if entry.kind == backstop::EntryKind::File {
                    let mut bytes = Vec::new();
                    let mut file = repository.read_file(snapshot, &key).await.unwrap();
                    whole &= tokio::io::AsyncReadExt::read_to_end(&mut file, &mut bytes).await.is_ok();
                }
            }
            if !whole {
                damaged.push(snapshot.number);
            }
        }
        damaged
    };
    assert!(!damaged.is_empty());
    let mut options = ForgetOptions::default();
    for number in &damaged {
        options = options.with_snapshot("default", *number);
    }
    repository.forget(&repository.plan_forget(&options).await.unwrap()).await.unwrap();
    let repository = open(&store).await;
    assert!(collect_with(&repository, &hasty()).await.finished, "what was forgotten may lack something");
    let sound: Vec<_> = snapshots.into_iter().skip(1).filter(|(one, _)| !damaged.contains(&one.number)).collect();
    for (snapshot, expected) in &sound {
        assert_eq!(&contents(&repository, snapshot).await, expected);
    }
}

#[tokio::test]
async fn operations_can_be_spawned() {
    let store = memory();
    let repository = create(&store).await;
    life(&repository, 2).await;
    let life = tokio::spawn(async move {
        let options = ForgetOptions::default().with_snapshot("default", 1);
        repository.forget(&repository.plan_forget(&options).await?).await?;
        repository.undelete("default", 1).await?;
        repository.forgotten(None).await?;
        let plan = repository.plan_gc(&hasty()).await?;
        repository.gc(plan, quiet()).await
    });
    assert!(life.await.unwrap().unwrap().finished);
}

#[tokio::test]
async fn what_probes_left_behind_is_tidied() {
    let store = memory();
    let repository = create(&store).await;
    let rights =
        StoreRights::probe(RestrainedStore::append_only(std::sync::Arc::clone(&store)).shared()).await.unwrap();
    assert_eq!(names(&store, "probes").await, [rights.left.unwrap()]);
    let checked = repository.check(&CheckOptions::default(), quiet()).await.unwrap();
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
    assert_eq!(repository.stats().await.unwrap().foreign.objects, 0);
    let (_folder, _) = life(&repository, 2).await;
    forget(&repository, &[1]).await;
    collect(&repository).await;
    assert!(names(&store, "probes").await.is_empty());
}
