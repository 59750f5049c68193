//! Copies made by plain means, file by file in the order of names, while the repository is written to.
//!
//! A feed commits as fast as it can, and merges; another test collects. Whatever
//! the copier meets, the copy's latest snapshot restores, the series goes on from
//! it, and a check says how far it is whole.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;
mod helpers;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstop::{
    CheckOptions, CommitOptions, CreateOptions, FeedOptions, Finding, FindingKind, ForgetOptions, GcOptions, Key,
    Metadata, OpenOptions, RepairOptions, Repository, Selector, WriterOptions,
};
use common::Random;
use helpers::{contents, quiet, secret};

const SERIES: &str = "accounts";

/// How often the repository is copied.
const ROUNDS: usize = 50;

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

async fn open(folder: &Path) -> Repository {
    Repository::open(folder, &secret(), OpenOptions::default()).await.unwrap()
}

/// Copies a folder file by file, in the order of names, each folder listed when its turn comes, as rsync does. What is gone
/// by then is left out.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut names: Vec<_> = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        listed => listed.unwrap().map(|entry| entry.unwrap().file_name()).collect(),
    };
    names.sort();
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        match fs::symlink_metadata(&from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            meta if meta.as_ref().unwrap().is_dir() => copy(&from, &to),
            _ if name.to_string_lossy().contains('#') => {}
            _ => match fs::copy(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(fs::remove_file(&to)),
                copied => drop(copied.unwrap()),
            },
        }
    }
}

/// Puts cards into a feed without a pause until it is told to stop; the number of the last that was acknowledged.
async fn feed_all_the_time(repository: Repository, options: FeedOptions, stop: Arc<AtomicBool>) -> u64 {
    let feed = repository.feed(SERIES, options).await.unwrap();
    let (mut random, mut number) = (Random::new(7), 0);
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let card = format!("BEGIN:VCARD\nUID:{number}\nNOTE:{}\n", random.below(1 << 30));
        feed.put(&key(&format!("{}/{}", number % 40, number % 400)), card, &Metadata::default()).await.unwrap();
    }
    feed.close().await.unwrap();
    number
}

/// What must be true of a copy; the number of its latest snapshot, and whether it needed a repair of the index.
async fn examine(folder: &Path, round: usize, merges: bool) -> (u64, bool) {
    let copy = open(folder).await;
    let latest = copy.find(&Selector::LatestOf { series: SERIES.to_owned() }).await;
    let latest = latest.unwrap_or_else(|error| panic!("round {round}: {error}"));
    let found = contents(&copy, &latest).await;
    assert_eq!(found.len() as u64, latest.entries, "round {round}");

    let report = copy.check(&CheckOptions::default(), quiet()).await.unwrap();
    let checked = report.series.iter().find(|checked| checked.series == SERIES).unwrap();
    assert_eq!(checked.latest, latest.number, "round {round}");
    let undescribed = report.findings.iter().any(|finding| finding.kind == FindingKind::Undescribed);
    let wrong: Vec<_> = report.findings.iter().filter(|finding| finding.kind.is_defect()).collect();
    // A record that came while its folder was listed can be missing before one that is there.
    let gaps = wrong.iter().filter(|finding| finding.kind != FindingKind::Undescribed);
    // Packs that were merged after the segments and before the packs were copied lack to older snapshots.
    let moved =
        |finding: &Finding| merges && finding.kind == FindingKind::Missing && finding.object.starts_with("packs/");
    let known = |finding: &Finding| finding.problem.contains("gap") || moved(finding);
    assert!(gaps.clone().all(|finding| known(finding)), "round {round}: {wrong:#?}");
    assert_eq!(checked.whole_through == latest.number, gaps.count() == 0, "round {round}: {wrong:#?}");

    // It goes on from there.
    let writer = copy.writer(SERIES, WriterOptions::default()).await.unwrap();
    writer.put(&key("new"), "of the copy", &Metadata::default()).await.unwrap();
    let next = writer.commit(CommitOptions::default()).await.unwrap();
    assert_eq!((next.number, next.predecessor), (latest.number + 1, Some(latest.hash)), "round {round}");
    assert_eq!(contents(&open(folder).await, &next).await.len(), found.len() + 1, "round {round}");
    (latest.number, undescribed)
}

/// Copies the packs once more while the latest snapshot can't be read: a merge may have put its pack where packs had been
/// copied already, and deleted the old ones where they hadn't.
async fn complete(from: &Path, to: &Path) {
    for _ in 0..10 {
        let at = to.to_owned();
        let read = tokio::spawn(async move {
            let copied = open(&at).await;
            let latest = copied.find(&Selector::LatestOf { series: SERIES.to_owned() }).await.unwrap();
            contents(&copied, &latest).await
        });
        if read.await.is_ok() {
            return;
        }
        copy(&from.join("packs"), &to.join("packs"));
    }
}

async fn copied_beside_a_feed(merge_every: u64, rounds: usize) -> usize {
    let options = FeedOptions::default().with_merge_every(merge_every);
    let (folder, stop) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
    let at = folder.path().join("repository");
    let repository = Repository::create(at.clone(), &secret(), CreateOptions::default()).await.unwrap();
    let feeding = tokio::spawn(feed_all_the_time(repository, options, Arc::clone(&stop)));
    while !fs::exists(at.join("commits")).unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (mut last, mut undescribed) = (0, 0);
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let to = folder.path().join("copy");
        let (from, into) = (at.clone(), to.clone());
        tokio::task::spawn_blocking(move || copy(&from, &into)).await.unwrap();
        complete(&at, &to).await;
        let (latest, needs_repair) = examine(&to, round, merge_every > 0).await;
        assert!(latest >= last, "round {round}");
        if needs_repair {
            undescribed += 1;
            let repaired = open(&to).await;
            let plan = repaired.plan_repair(&RepairOptions::default(), quiet()).await.unwrap();
            repaired.repair(plan, quiet()).await.unwrap();
            let report = repaired.check(&CheckOptions::default(), quiet()).await.unwrap();
            assert!(!report.findings.iter().any(|finding| finding.kind == FindingKind::Undescribed), "round {round}");
        }
        last = latest;
        fs::remove_dir_all(&to).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    feeding.await.unwrap();
    undescribed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_beside_a_feed_is_whole() {
    let undescribed = copied_beside_a_feed(0, ROUNDS).await;
    assert_eq!(undescribed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_beside_merges_restores() {
    copied_beside_a_feed(20, ROUNDS).await;
}

/// The packs came to be copied only after a collection had deleted some that a snapshot needs which was copied before.
#[tokio::test]
async fn a_copy_made_beside_a_collection_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let (at, to) = (folder.path().join("repository"), folder.path().join("copy"));
    let repository = Repository::create(at.clone(), &secret(), CreateOptions::default()).await.unwrap();
    for round in 0..3 {
        let writer = repository.writer(SERIES, WriterOptions::default()).await.unwrap();
        writer.put(&key("photo"), Random::new(round).bytes(200_000), &Metadata::default()).await.unwrap();
        writer.commit(CommitOptions::default()).await.unwrap();
    }
    for name in ["commits", "config"] {
        let (from, to) = (at.join(name), to.join(name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
    let options = ForgetOptions::default().with_snapshot(SERIES, 1).with_undelete_for(Duration::ZERO);
    // The lists are copied before snapshots are forgotten, and the rest after the collection.
    copy(&at.join("kept"), &to.join("kept"));
    repository.forget(&repository.plan_forget(&options).await.unwrap()).await.unwrap();
    let plan = repository.plan_gc(&GcOptions::default()).await.unwrap();
    assert!(repository.gc(plan, quiet()).await.unwrap().packs_deleted > 0);
    for name in ["gc", "index", "keys", "packs", "writers"] {
        copy(&at.join(name), &to.join(name));
    }

    let copied = open(&to).await;
    let report = copied.check(&CheckOptions::default(), quiet()).await.unwrap();
    let found = report.findings.iter().find(|finding| finding.problem.contains("copy that was made while"));
    assert!(found.is_some_and(|finding| finding.kind == FindingKind::Inconsistent), "{:#?}", report.findings);
    assert_eq!((report.series[0].latest, report.series[0].whole_through), (3, 0), "{:#?}", report.series);
    let latest = copied.find(&Selector::LatestOf { series: SERIES.to_owned() }).await.unwrap();
    assert_eq!(contents(&copied, &latest).await.len(), 1, "what the collection left is whole");
}
