//! The history of paths, against what comparing all snapshots in full says.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]
#![cfg(unix)]

mod common;
mod helpers;

use std::collections::BTreeMap;

use backstop::{BackupOptions, Entry, HistoryOptions, Key, Moment, Repository, Revision, Snapshot, Timestamp};
use common::{CountingStore, Kind, Random};
use futures::TryStreamExt;
use helpers::{Folder, SetClock, backup, create, memory, open, secret, snapshot};

/// A path, what stood there before and what stood there after.
type Difference = (Key, Option<Entry>, Option<Entry>);

async fn revisions(repository: &Repository, path: &Key, options: &HistoryOptions) -> Vec<Revision> {
    repository.history("default", path, options).try_collect().await.unwrap()
}

async fn numbers(repository: &Repository, path: &Key, options: &HistoryOptions) -> Vec<u64> {
    revisions(repository, path, options).await.iter().map(|revision| revision.snapshot.number).collect()
}

fn all() -> HistoryOptions {
    HistoryOptions::default()
}

fn flat(revisions: Vec<Revision>) -> Vec<(u64, Vec<Difference>)> {
    let differences = |revision: &Revision| {
        revision.changes.iter().map(|change| (change.key.clone(), change.old.clone(), change.new.clone())).collect()
    };
    revisions.iter().map(|revision| (revision.snapshot.number, differences(revision))).collect()
}

/// What every snapshot changed at a path and below it, from listings of everything, the newest first.
async fn compared(repository: &Repository, snapshots: &[Snapshot], path: &Key) -> Vec<(u64, Vec<Difference>)> {
    let mut expected = Vec::new();
    let mut before = BTreeMap::<Key, Entry>::new();
    for snapshot in snapshots {
        let entries: Vec<_> = repository.entries(snapshot, None).try_collect().await.unwrap();
        let after: BTreeMap<_, _> = entries.into_iter().filter(|(key, _)| key.starts_with(path)).collect();
        let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let difference = |key: &Key| (key.clone(), before.get(key).cloned(), after.get(key).cloned());
        let changed: Vec<_> = keys.into_iter().map(difference).filter(|(_, old, new)| old != new).collect();
        if !changed.is_empty() {
            expected.push((snapshot.number, changed));
        }
        before = after;
    }
    expected.reverse();
    expected
}

#[tokio::test]
async fn histories_are_what_comparing_everything_says() {
    for seed in 0..4 {
        let (store, folder, mut random) = (memory(), Folder::new(), Random::new(seed));
        let repository = create(&store).await;
        let name = |random: &mut Random| format!("{}/{}", random.below(6), random.below(8));
        let mut snapshots = Vec::new();
        for _ in 0..25 {
            for _ in 0..random.below(4) {
                let name = name(&mut random);
                let there = folder.path().join(&name).exists();
                match random.below(3) {
                    0 if there => folder.remove(&name),
                    _ => {
                        let len = 1 + random.below(2000) as usize;
                        folder.write(&name, random.text(len));
                    }
                }
            }
            snapshots.push(snapshot(&repository, &folder).await);
        }
        // Cold, so that nothing comes from what the backups left in memory.
        let repository = open(&store).await;
        let everything = folder.key("0").parent().unwrap();
        let paths = (0..6).flat_map(|a| (0..8).map(move |b| format!("{a}/{b}"))).chain((0..6).map(|a| a.to_string()));
        for path in paths.map(|path| folder.key(path)).chain([everything]) {
            let expected = compared(&repository, &snapshots, &path).await;
            assert_eq!(flat(revisions(&repository, &path, &all()).await), expected, "seed {seed}, {path}");

            let limit = random.below(5) as usize;
            let found = flat(revisions(&repository, &path, &all().with_limit(limit)).await);
            assert_eq!(found, expected[..limit.min(expected.len())], "seed {seed}, {path}, the newest {limit}");

            let (from, until) = (random.below(27), random.below(27));
            let part: Vec<_> = expected.iter().filter(|(number, _)| (from..=until).contains(number)).cloned().collect();
            let options = all().with_from(from).with_until(until);
            assert_eq!(flat(revisions(&repository, &path, &options).await), part, "seed {seed}, {path}, {options:?}");
        }
    }
}

#[tokio::test]
async fn a_part_is_chosen_by_time() {
    let (store, folder, clock) = (memory(), Folder::new(), SetClock::at(0));
    create(&store).await;
    let repository = Repository::open(store, &secret(), clock.options()).await.unwrap();
    for number in 1..=5 {
        clock.set(10 * number);
        folder.write("a", number.to_string());
        backup(&repository, &folder).await;
    }
    let (path, second) = (folder.key("a"), |second: i64| Timestamp::from_nanos(second * 1_000_000_000));
    let found = async |options: HistoryOptions| numbers(&repository, &path, &options).await;
    assert_eq!(found(all().with_from(second(20)).with_until(second(40))).await, [4, 3, 2]);
    assert_eq!(found(all().with_from(second(21)).with_until(second(39))).await, [3]);
    assert_eq!(found(all().with_from(second(21)).with_until(4)).await, [4, 3]);
    assert_eq!(found(all().with_from(2).with_until(second(35)).with_limit(1)).await, [3]);
    assert!(found(all().with_from(second(51))).await.is_empty());
    assert!(found(all().with_until(second(9))).await.is_empty());
    assert!(found(all().with_from(Moment::Number(4)).with_until(second(35))).await.is_empty());
    assert!(found(all().with_until(0)).await.is_empty());
    assert!(found(all().with_limit(0)).await.is_empty());
}

#[tokio::test]
async fn a_snapshot_that_changed_much_comes_in_parts() {
    let (store, folder) = (memory(), Folder::new());
    let repository = create(&store).await;
    for number in 0..2_300 {
        folder.write(format!("many/{number}"), "");
    }
    folder.write("other", "");
    backup(&repository, &folder).await;
    for number in 0..1_000 {
        folder.write(format!("many/{number}"), "x");
    }
    backup(&repository, &folder).await;
    let found = revisions(&repository, &folder.key("many"), &all()).await;
    let parts: Vec<_> =
        found.iter().map(|revision| (revision.snapshot.number, revision.changes.len(), revision.more)).collect();
    // With the folder itself, whose times change with what is put into it only at first.
    assert_eq!(parts, [(2, 1000, false), (1, 1000, true), (1, 1000, true), (1, 301, false)]);
    assert!(found[1].changes.last().unwrap().key < found[2].changes[0].key);
    assert_eq!(numbers(&repository, &folder.key("many"), &all().with_limit(1)).await, [2]);
}

#[tokio::test]
async fn what_others_changed_costs_the_nodes_above_alone() {
    const BACKUPS: u64 = 40;
    let (store, folder, mut random) = (memory(), Folder::new(), Random::new(1));
    let repository = create(&store).await;
    for number in 0..400 {
        folder.write(format!("{:02}/{}", number / 10, number % 10), random.text(700));
    }
    backup(&repository, &folder).await;
    for number in 1..BACKUPS {
        folder.write(format!("{:02}/3", number % 20), random.text(700));
        backup(&repository, &folder).await;
    }
    let counting = CountingStore::new(store);
    let repository = open(&counting.shared()).await;
    counting.take();
    // Far from what is changed again and again.
    assert_eq!(numbers(&repository, &folder.key("35"), &all()).await, [1]);
    let counts = counting.take();
    assert_eq!(counts.under(Kind::List, "commits"), 2);
    assert_eq!(counts.under(Kind::Get, "commits/"), BACKUPS);
    // Of each backup's pack the one block that holds its root and the other nodes that it wrote; those of the first,
    // which wrote all, lie in several.
    let packs = counts.under(Kind::Get, "packs/");
    assert!((BACKUPS..=BACKUPS + 2).contains(&packs), "{packs}");
    // And where they are.
    let index = counts.under(Kind::List, "index") + counts.under(Kind::Get, "index/");
    assert_eq!(counts.under(Kind::List, "kept/"), 1);
    assert_eq!(counts.total(), 3 + BACKUPS + packs + index);
}

#[tokio::test]
async fn a_series_of_others_is_not_looked_at() {
    let (store, folder) = (memory(), Folder::new());
    let repository = create(&store).await;
    folder.write("a", "1");
    backup(&repository, &folder).await;
    let other = BackupOptions::default().with_series("other");
    folder.write("a", "2");
    helpers::backup_with(&repository, &folder, &other).await;
    folder.write("a", "3");
    backup(&repository, &folder).await;
    assert_eq!(numbers(&repository, &folder.key("a"), &all()).await, [2, 1]);
    let unknown: Vec<_> = repository.history("unknown", &folder.key("a"), &all()).try_collect().await.unwrap();
    assert!(unknown.is_empty());
}
