//! The `backstop` example, killed at random moments on real files: what was committed stays, and it goes on.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]
#![cfg(unix)]

mod command;
mod common;
mod helpers;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use backstop::{OpenOptions, Repository, Snapshot};
use command::{Setting, dump, expect};
use common::Random;
use helpers::{contents, secret};

const ROUNDS: u64 = 50;

/// So many snapshots are left by each `forget`.
const KEPT: usize = 4;

/// What a command is called with that collects all it can, whoever was killed before.
const GC: [&str; 7] = ["gc", "--waste", "0", "--wait", "0s", "--fence-after", "0s"];

/// Paths in a snapshot, and bytes.
type Tree = BTreeMap<String, Vec<u8>>;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Backup,
    Forget,
    Collect,
    Restore,
}

struct Life {
    setting: Setting,
    random: Random,
    /// The files as they are.
    source: Tree,
    /// What every snapshot that counts must give back, by its number.
    expected: BTreeMap<u64, Tree>,
    /// How long each action takes when it isn't killed, as far as that is known.
    lengths: BTreeMap<Action, Duration>,
    /// How many of each were cut off.
    killed: BTreeMap<Action, u64>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let setting = Setting::created();
        fs::remove_dir_all(setting.path("source")).unwrap();
        let mut life = Self {
            setting,
            random: Random::new(seed),
            source: Tree::new(),
            expected: BTreeMap::new(),
            lengths: [Action::Backup, Action::Forget, Action::Collect, Action::Restore]
                .map(|action| (action, Duration::from_millis(200)))
                .into(),
            killed: BTreeMap::new(),
        };
        (0..24).for_each(|number| life.write(number));
        life.setting.succeed(&["backup", "source"]);
        life.expected.insert(1, life.source.clone());
        life
    }

    /// Gives a file new content, of the first a quarter of a megabyte.
    fn write(&mut self, number: u64) {
        let length = if number == 0 { 256 << 10 } else { self.random.below(16 << 10) as usize };
        let content = if number.is_multiple_of(2) { self.random.bytes(length) } else { self.random.text(length) };
        let name = format!("source/{}/{number}", number % 5);
        let path = self.setting.path(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &content).unwrap();
        self.source.insert(name, content);
    }

    /// Changes some of the files, and removes one now and then.
    fn change(&mut self) {
        for _ in 0..1 + self.random.below(6) {
            let number = self.random.below(30);
            self.write(number);
        }
        if self.random.chance(0.5) {
            let at = self.random.below(self.source.len() as u64) as usize;
            let name = self.source.keys().nth(at).unwrap().clone();
            fs::remove_file(self.setting.path(&name)).unwrap();
            self.source.remove(&name);
        }
    }

    /// One of the snapshots.
    fn any(&mut self) -> u64 {
        let at = self.random.below(self.expected.len() as u64) as usize;
        *self.expected.keys().nth(at).unwrap()
    }

    /// Starts a command and kills it at some moment of its usual length; tells whether it was cut off.
    fn kill(&mut self, action: Action, line: &[&str]) -> (bool, Output) {
        let length = self.lengths[&action].as_micros() as u64;
        let moment = Duration::from_micros(self.random.below(length + length / 8));
        let mut command = self.setting.command(line);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let cut_off = output.status.signal().is_some();
        if cut_off {
            println!("  {action:?} was cut off after {moment:?}");
            *self.killed.entry(action).or_default() += 1;
        } else {
            expect(&output, 0);
        }
        (cut_off, output)
    }

    /// Runs to the end what was killed, and learns how long it takes.
    #[expect(clippy::disallowed_methods, reason = "moments of kills are chosen from how long a command takes")]
    fn run(&mut self, action: Action, line: &[&str]) {
        let begun = std::time::Instant::now();
        println!("  {}", self.setting.succeed(line).trim_end().replace('\n', "\n  "));
        let length = self.lengths.get_mut(&action).unwrap();
        *length = (*length * 3 + begun.elapsed()) / 4;
    }

    async fn repository(&self) -> Repository {
        Repository::open(self.setting.path("repository"), &secret(), OpenOptions::default()).await.unwrap()
    }

    async fn round(&mut self) -> Action {
        self.change();
        let action = match self.random.below(10) {
            0..5 => Action::Backup,
            5..8 => Action::Collect,
            _ => Action::Restore,
        };
        match action {
            Action::Backup => self.back_up().await,
            Action::Forget | Action::Collect => self.collect(),
            Action::Restore => self.restore(),
        }
        self.look().await;
        action
    }

    async fn back_up(&mut self) {
        let (_, output) = self.kill(Action::Backup, &["backup", "source"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = said.strip_prefix("snapshot default#").and_then(|rest| rest.split(':').next()?.parse().ok());
        let listed = self.repository().await.snapshots(None).await.unwrap();
        let new: Vec<u64> =
            listed.iter().map(|one| one.number).filter(|number| !self.expected.contains_key(number)).collect();
        assert!(new.len() <= 1 && (told.is_none() || new.first() == told.as_ref()), "{new:?}, and it said: {said}");
        // Committed, whether or not it could say so.
        for number in new {
            self.expected.insert(number, self.source.clone());
        }
        self.run(Action::Backup, &["backup", "source"]);
        let listed = self.repository().await.snapshots(None).await.unwrap();
        self.expected.insert(listed.last().unwrap().number, self.source.clone());
    }

    /// Forgets the oldest, so that there is something to collect, and collects.
    fn collect(&mut self) {
        self.add();
        let last = KEPT.min(self.expected.len() - 1);
        let number = last.to_string();
        let forget = ["forget", "--keep-last", &number, "--undelete-for", "0"];
        self.kill(Action::Forget, &forget);
        self.run(Action::Forget, &forget);
        while self.expected.len() > last {
            self.expected.pop_first();
        }
        self.kill(Action::Collect, &GC);
        // Past the registrations of writers that were killed, too.
        self.run(Action::Collect, &GC);
    }

    /// One more snapshot.
    fn add(&mut self) {
        let said = self.setting.succeed(&["backup", "source"]);
        let number = said.strip_prefix("snapshot default#").and_then(|rest| rest.split(':').next()).unwrap();
        self.expected.insert(number.parse().unwrap(), self.source.clone());
    }

    fn restore(&mut self) {
        let name = format!("default#{}", self.any());
        let line = ["restore", &name, "out", "--delete"];
        self.kill(Action::Restore, &line);
        self.run(Action::Restore, &line);
        let number = name.strip_prefix("default#").unwrap().parse().unwrap();
        assert!(tree_of(&self.setting.path("out")) == self.expected[&number], "{name} is restored, and nothing else");
    }

    /// All that was committed and not forgotten is listed, one of it is as it was, and a check finds nothing.
    async fn look(&mut self) {
        let any = self.any();
        let repository = self.repository().await;
        let listed = repository.snapshots(None).await.unwrap();
        let numbers: Vec<_> = listed.iter().map(|snapshot| snapshot.number).collect();
        assert_eq!(numbers, self.expected.keys().copied().collect::<Vec<_>>());
        let held = read(&repository, listed.iter().find(|snapshot| snapshot.number == any).unwrap()).await;
        assert!(held == self.expected[&any], "default#{any} isn't what was backed up");
        let report = repository.check(&backstop::CheckOptions::default(), helpers::quiet()).await.unwrap();
        assert_eq!(report.defects, 0, "{:?}", report.findings);
    }
}

async fn read(repository: &Repository, snapshot: &Snapshot) -> Tree {
    contents(repository, snapshot).await.into_iter().map(|(key, bytes)| (key.to_string(), bytes)).collect()
}

/// The files under a folder by their paths in it.
fn tree_of(folder: &Path) -> Tree {
    let name = |path: PathBuf| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    dump(folder).into_iter().map(|(path, bytes)| (name(path), bytes)).collect()
}

/// What uploads left that were cut off.
fn temporary_files(repository: &Path) -> Vec<PathBuf> {
    dump(repository).into_keys().filter(|path| path.to_str().unwrap().contains('#')).collect()
}

fn size(repository: &Path) -> usize {
    dump(repository).values().map(Vec::len).sum()
}

#[tokio::test]
async fn commands_that_are_killed_lose_nothing_and_leave_no_garbage() {
    let seed = std::env::var("KILLS_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut life = Life::new(seed);
    for round in 0..ROUNDS {
        let action = life.round().await;
        println!("round {round}: {action:?}, of {} snapshots", life.expected.len());
    }
    println!("cut off: {:?}", life.killed);
    assert!(life.killed.len() == 4 && life.killed.values().sum::<u64>() > ROUNDS / 2, "few were cut off in the middle");
    all_is_restored(&life);
    temporary_files_are_swept(&mut life);
    no_garbage_is_left(&life);
}

fn all_is_restored(life: &Life) {
    for (number, expected) in &life.expected {
        let out = format!("out {number}");
        life.setting.succeed(&["restore", &format!("default#{number}"), &out]);
        assert!(tree_of(&life.setting.path(&out)) == *expected, "default#{number}");
    }
    let said = life.setting.succeed(&["check", "--read-data"]);
    assert!(said.contains("no damage found"), "{said}");
}

/// Those that nobody wrote to for an hour, and no others.
fn temporary_files_are_swept(life: &mut Life) {
    let repository = life.setting.path("repository");
    let mut old = temporary_files(&repository);
    println!("{} temporary files were left", old.len());
    let pack = dump(&repository.join("packs")).into_keys().find(|path| !old.contains(path)).unwrap();
    let beside = |end: &str| PathBuf::from(format!("{}{end}", pack.to_str().unwrap()));
    old.push(beside("#7"));
    let young = beside("#8");
    fs::write(old.last().unwrap(), "cut off").unwrap();
    fs::write(&young, "under way").unwrap();
    #[expect(clippy::disallowed_methods, reason = "the age of a file is told by the system's clock")]
    let long_ago = SystemTime::now() - Duration::from_secs(3700);
    for path in &old {
        File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    life.collect_once();
    assert_eq!(temporary_files(&repository), std::slice::from_ref(&young));
    fs::remove_file(young).unwrap();
}

impl Life {
    /// A collection that has something to do.
    fn collect_once(&mut self) {
        self.add();
        let (first, _) = self.expected.pop_first().unwrap();
        self.setting.succeed(&["forget", &format!("default#{first}"), "--undelete-for", "0"]);
        let said = self.setting.succeed(&GC);
        assert!(said.contains("swept"), "{said}");
    }
}

/// The repository is about as large as a new one with the same snapshots.
fn no_garbage_is_left(life: &Life) {
    let said = life.setting.succeed(&GC);
    assert!(said.contains("nothing to collect"), "{said}");
    let stats = &life.setting.objects(&["stats"])[0];
    assert_eq!((&stats["writers"]["objects"], &stats["foreign"]["objects"]), (&0.into(), &0.into()), "{stats}");
    let fresh = Setting::created();
    for tree in life.expected.values() {
        drop(fs::remove_dir_all(fresh.path("source")));
        for (name, bytes) in tree {
            let path = fresh.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fresh.succeed(&["backup", "source"]);
    }
    let (old, new) = (size(&life.setting.path("repository")), size(&fresh.path("repository")));
    println!("{old} bytes, {new} in a new repository");
    assert!(old < new + new / 10 + 20_000, "{old} bytes, {new} in a new repository");
}
