//! A server with a feed, killed at random: what it was told to be committed is there, and nothing that it didn't send.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]
#![cfg(unix)]

mod common;
mod helpers;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backstop::{
    Batch, CheckOptions, CreateOptions, Feed, FeedOptions, Key, Metadata, OpenOptions, Receipt, Repository, Result,
    Selector, Snapshot,
};
use common::Random;
use helpers::{contents, quiet, secret};

const SERIES: &str = "accounts";
const TASKS: u64 = 6;
const ROUNDS: u64 = 30;

/// Tells the child where its repository is, and in which round it is.
const FOLDER: &str = "FEED_KILL_FOLDER";
const ROUND: &str = "FEED_KILL_ROUND";

type Model = BTreeMap<Key, Vec<u8>>;

/// What a task does in a round as its `number`th change: paths and what is put there, or removed for nothing.
///
/// The same in the child and in its parent. Every content tells who put it, and when.
fn change(task: u64, round: u64, number: u64) -> Vec<(Key, Option<Vec<u8>>)> {
    let mut random = Random::new(task << 40 ^ round << 20 ^ number);
    let stamp = format!("task {task}, round {round}, change {number}");
    let path = |random: &mut Random| Key::from_path(format!("task {task}/{}", random.below(8))).unwrap();
    let content = |random: &mut Random| match random.below(12) {
        0 => random.bytes(40_000 + (number % 50_000) as usize),
        _ => stamp.repeat(1 + random.below(8) as usize).into_bytes(),
    };
    match random.below(5) {
        0 => vec![(path(&mut random), None)],
        1 => (0..4).map(|_| (path(&mut random), Some(content(&mut random)))).collect(),
        _ => vec![(path(&mut random), Some(content(&mut random)))],
    }
}

fn make(change: Vec<(Key, Option<Vec<u8>>)>, model: &mut Model) {
    for (path, content) in change {
        match content {
            Some(content) => drop(model.insert(path, content)),
            None => drop(model.remove(&path)),
        }
    }
}

async fn submit(feed: &Feed, mut change: Vec<(Key, Option<Vec<u8>>)>, number: u64) -> Result<Receipt> {
    let metadata = Metadata::default();
    if change.len() == 1 {
        return match change.remove(0) {
            (path, Some(content)) if number.is_multiple_of(2) => {
                feed.put_reader(&path, content.as_slice(), &metadata).await
            }
            (path, Some(content)) => feed.put(&path, content, &metadata).await,
            (path, None) => feed.remove(&path).await,
        };
    }
    let mut batch = Batch::new();
    for (path, content) in change {
        match content {
            Some(content) => batch.put(&path, content, &metadata),
            None => batch.remove(&path),
        };
    }
    feed.apply(batch).await
}

async fn open(folder: &Path) -> Repository {
    Repository::open(folder, &secret(), OpenOptions::default()).await.unwrap()
}

/// The server, where this test's process is started again as one: says each change that was committed, until killed.
#[test]
fn child() {
    let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) else { return };
    let round = round.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let repository = open(Path::new(&folder)).await;
        // Merging may be cut off as well.
        let options = FeedOptions::default().with_interval(Duration::from_millis(2)).with_merge_every(25);
        let feed = repository.feed(SERIES, options).await.unwrap();
        let tasks = (0..TASKS).map(|task| {
            let feed = feed.clone();
            tokio::spawn(async move {
                for number in 0.. {
                    let receipt = submit(&feed, change(task, round, number), number).await.unwrap();
                    let line = format!("committed {task} {number} {}\n", receipt.number);
                    // One call, so that a line is whole; not by `print`, which tests capture.
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            })
        });
        futures::future::join_all(tasks.collect::<Vec<_>>()).await;
    });
}

fn start(folder: &Path, round: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).env(ROUND, round.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// What a round's child said before it was killed, after so many lines and a moment more.
#[derive(Default)]
struct Said {
    /// For each task how many of its changes were committed.
    committed: BTreeMap<u64, u64>,
    /// The last snapshot that was named.
    snapshot: u64,
}

fn run_and_kill(folder: &Path, round: u64, lines: u64, moment: Duration) -> Said {
    let mut child = start(folder, round);
    let (mut said, mut seen) = (Said::default(), 0);
    let output = BufReader::new(child.stdout.take().unwrap());
    for line in output.lines() {
        let line = line.unwrap();
        // The harness has its say before the first, on the same line.
        let Some((_, numbers)) = line.split_once("committed ") else { continue };
        let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        let &[task, number, snapshot] = &numbers[..] else { panic!("{line}") };
        let committed = said.committed.entry(task).or_default();
        assert_eq!(*committed, number, "a task waits for each of its changes");
        *committed += 1;
        said.snapshot = said.snapshot.max(snapshot);
        seen += 1;
        if seen == lines {
            std::thread::sleep(moment);
            child.kill().unwrap();
        }
    }
    // Nothing is killed by a round of no lines but here.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "it ended by itself");
    said
}

async fn latest(repository: &Repository) -> Option<Snapshot> {
    match repository.find(&Selector::LatestOf { series: SERIES.to_owned() }).await {
        Ok(snapshot) => Some(snapshot),
        Err(error) if error.is_not_found() => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_server_that_is_killed_loses_nothing_that_was_acknowledged() {
    let seed = std::env::var("FEED_KILL_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("repository");
    Repository::create(folder.as_path(), &secret(), CreateOptions::default()).await.unwrap();
    let (mut random, mut known, mut acknowledged, mut landed) = (Random::new(seed), Model::new(), 0, 0);
    for round in 0..ROUNDS {
        let (lines, moment) = (1 + random.below(150), Duration::from_micros(random.below(30_000)));
        let said = run_and_kill(&folder, round, lines, moment);
        let repository = open(&folder).await;
        let snapshot = latest(&repository).await.unwrap();
        assert!(snapshot.number >= said.snapshot, "round {round}: snapshots that were named are there");
        let held = contents(&repository, &snapshot).await;
        let mut expected = Model::new();
        for task in 0..TASKS {
            let home = Key::from_path(format!("task {task}")).unwrap();
            let part = |model: &Model| -> Model {
                let part = model.iter().filter(|(path, _)| path.starts_with(&home));
                part.map(|(path, content)| (path.clone(), content.clone())).collect()
            };
            let (mut model, held) = (part(&known), part(&held));
            let committed = said.committed.get(&task).copied().unwrap_or_default();
            (0..committed).for_each(|number| make(change(task, round, number), &mut model));
            if model != held {
                // The one that was under way may be there as well, all of it.
                make(change(task, round, committed), &mut model);
                landed += 1;
                assert!(model == held, "round {round}: task {task} isn't as after {committed} changes, or one more");
            }
            acknowledged += committed;
            expected.extend(model);
        }
        assert!(held == expected, "round {round}: there is something that nobody sent");
        known = held;
        if round % 10 == 9 {
            let options = CheckOptions::default().with_read_data(100.0);
            let report = repository.check(&options, quiet()).await.unwrap();
            assert_eq!(report.defects, 0, "round {round}: {:?}", report.findings);
        }
    }
    println!("{acknowledged} changes were acknowledged, {landed} landed without");
    assert!(acknowledged > ROUNDS * 20, "only {acknowledged} changes were made");
}
