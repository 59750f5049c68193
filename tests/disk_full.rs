//! The `backstop` example on a disk that fills up: it says so, loses nothing, and goes on once there is room.
//!
//! The disk is a small tmpfs, which only root may mount; elsewhere these tests say so and end.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]
#![cfg(target_os = "linux")]

mod command;
mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use command::{Setting, dump, expect, of_type};
use common::{Random, compare_trees};

/// A tmpfs, unmounted in the end.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one; nothing where that isn't permitted.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let said = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &at);
        let reason = String::from_utf8_lossy(&said.stderr).to_lowercase();
        // Root in a container may be forbidden to.
        let forbidden = ["permission denied", "not permitted", "superuser", "must be root"];
        if said.status.success() {
            return Some(Self(at));
        }
        if !rustix::process::geteuid().is_root() || forbidden.iter().any(|words| reason.contains(words)) {
            eprintln!("left out: mounting a tmpfs isn't permitted here: {}", reason.trim());
            return None;
        }
        panic!("mounting a tmpfs failed: {reason}");
    }

    fn resize(&self, size: &str) {
        let said = mount(&["-o", &format!("remount,size={size}")], &self.0);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    /// Takes all that is left, but for so many bytes.
    fn fill(&self, but: u64) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        loop {
            match file.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(but)).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status();
        assert!(std::thread::panicking() || status.unwrap().success());
    }
}

fn mount(arguments: &[&str], at: &Path) -> Output {
    Command::new("mount").args(arguments).arg(at).env("LC_ALL", "C").output().unwrap()
}

/// A small disk with a repository that holds two snapshots: `default#1`, and `default#2` with a megabyte more.
struct Full {
    /// Before the folder that it is mounted in, so that it goes first.
    disk: Disk,
    setting: Setting,
    random: Random,
}

impl Full {
    fn new() -> Option<Self> {
        let setting = Setting::new();
        let disk = Disk::mount(setting.path("repository"), "10m")?;
        // A filler beside it isn't one of its objects, and a repository takes up all of its folder.
        fs::create_dir(setting.path("repository/inner")).unwrap();
        let mut full = Self { disk, setting, random: Random::new(1) };
        full.succeed(&["init"]);
        full.add("noise", 1 << 20);
        full.succeed(&["backup", "source"]);
        full.add("more", 1 << 20);
        full.succeed(&["backup", "source"]);
        Some(full)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.setting.command(arguments);
        command.env("BACKSTOP_REPOSITORY", self.setting.path("repository/inner")).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        expect(&self.run(arguments), 0).0
    }

    fn fail(&self, arguments: &[&str]) -> String {
        expect(&self.run(arguments), 1).1
    }

    /// Adds a file that nothing compresses.
    fn add(&mut self, name: &str, length: usize) {
        fs::write(self.setting.path("source").join(name), self.random.bytes(length)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.setting.path("source").join(name)).unwrap();
    }

    fn snapshots(&self) -> Vec<String> {
        let lines = command::objects(&self.succeed(&["--json", "snapshots"]));
        lines.iter().map(|line| line["snapshot"].as_str().unwrap().to_owned()).collect()
    }

    /// Nothing but whole objects is there, and all of them are sound.
    fn is_sound(&self) {
        let files = dump(&self.setting.path("repository/inner"));
        assert!(files.keys().all(|path| !path.to_string_lossy().contains('#')), "no upload left its file behind");
        assert!(self.succeed(&["check", "--read-data"]).contains("no damage found"));
    }
}

#[test]
fn a_backup_to_a_full_disk_says_so_and_loses_nothing() {
    let Some(mut full) = Full::new() else { return };
    full.add("huge", 14 << 20);
    let said = full.fail(&["backup", "source"]);
    assert!(said.contains("it is full; nothing committed is lost, free some space and run it again"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(full.snapshots(), ["default#1", "default#2"]);
    full.is_sound();
    // The registration may not have ended: there was no room for that.

    full.disk.resize("32m");
    assert!(full.succeed(&["backup", "source"]).contains("snapshot default#3: 6 files"));
    full.succeed(&["restore", "default#3:source", "out"]);
    assert_eq!(compare_trees(&full.setting.path("source"), &full.setting.path("out")), [""; 0]);
}

#[test]
fn a_few_kilobytes_are_enough_to_forget_and_collect() {
    let Some(mut full) = Full::new() else { return };
    full.remove("more");
    // A part of what a pack holds is needed still, so that there would be something to copy.
    full.add("kept", 1 << 20);
    full.add("dropped", 1 << 20);
    full.succeed(&["backup", "source"]);
    full.remove("dropped");
    full.succeed(&["backup", "source"]);

    // To the last byte: all can be read and nothing changed.
    full.disk.fill(0);
    for line in [&["backup", "source"][..], &["forget", "--keep-last", "1"]] {
        assert!(full.fail(line).contains("it is full; nothing committed is lost, free some space"));
    }
    assert_eq!(full.snapshots().len(), 4);
    full.is_sound();

    full.disk.fill(32 << 10);
    full.succeed(&["forget", "--keep-last", "1", "--undelete-for", "0"]);
    full.disk.fill(32 << 10);
    let said = full.fail(&["gc", "--waste", "0"]);
    assert!(said.contains("it is full") && said.contains("hint: what is needed is copied before"), "{said}");
    full.is_sound();
    full.disk.fill(0);
    assert!(full.fail(&["gc", "--waste", "100"]).contains("it is full; nothing committed is lost"));
    // It copies nothing, and then there is room for the other.
    full.disk.fill(32 << 10);
    let said = full.succeed(&["gc", "--waste", "100"]);
    assert!(said.contains("wrote 0 packs"), "{said}");
    let is_due = |full: &Full| {
        let plan = command::objects(&full.succeed(&["--json", "gc", "--waste", "0", "-n"]));
        of_type(&plan, "gc_plan")[0]["due"] == true
    };
    assert!(is_due(&full), "what is needed in part is left");
    full.is_sound();
    full.disk.empty();
    full.succeed(&["gc", "--waste", "0"]);
    assert!(!is_due(&full));
    full.add("new", 2 << 20);
    full.succeed(&["backup", "source"]);
    full.succeed(&["restore", "default@latest:source", "out"]);
    assert_eq!(compare_trees(&full.setting.path("source"), &full.setting.path("out")), [""; 0]);
    full.is_sound();
}

#[test]
fn a_restore_to_a_full_disk_names_what_lacks_and_goes_on() {
    let setting = Setting::created();
    let Some(disk) = Disk::mount(setting.path("out"), "3m") else { return };
    let mut random = Random::new(2);
    for number in 0..6 {
        fs::write(setting.path("source").join(format!("noise {number}")), random.bytes(700_000)).unwrap();
    }
    setting.back_up();
    let before = dump(&setting.path("repository"));

    let (said, warned) = expect(&setting.run(&["restore", "latest:source", "out"]), 3);
    assert!(said.contains("could not be restored, see the warnings; run it again to go on"), "{said}");
    let full: Vec<_> = warned.lines().filter(|line| line.contains("No space left on device")).collect();
    assert!(!full.is_empty() && full.iter().all(|line| line.contains("out/")), "each names its path: {warned}");
    let differing = compare_trees(&setting.path("source"), &setting.path("out"));
    assert!(!differing.is_empty() && differing.len() < 8, "{differing:?}");
    assert!(differing.iter().all(|line| line.ends_with("is missing")), "what is there is whole: {differing:?}");
    assert!(dump(&setting.path("repository")) == before, "the repository is as it was");

    disk.resize("16m");
    let said = setting.succeed(&["restore", "latest:source", "out"]);
    assert!(!said.contains(" 0 unchanged"), "what was there isn't written again: {said}");
    assert_eq!(compare_trees(&setting.path("source"), &setting.path("out")), [""; 0]);
}
