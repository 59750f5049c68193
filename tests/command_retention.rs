//! Forgetting, collecting and bringing back with the `backstop` example, and the key that may do neither.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]
#![cfg(unix)]

mod command;

use std::fs;
use std::process::Stdio;

use command::{Setting, dump, expect, objects, of_type, read};
use serde_json::Value;

/// A setting with so many snapshots, each with bytes of its own; what `cat` must give for each stays in `source/a`.
fn with_snapshots(count: u32) -> Setting {
    let setting = Setting::created();
    for number in 1..=count {
        fs::write(setting.path("source/a"), format!("version {number}\n")).unwrap();
        // Nothing compresses it, so that its loss shows in the repository's size.
        let noise: Vec<_> = (0..6000u32)
            .flat_map(|at| blake3::hash(&[number, at].map(u32::to_le_bytes).concat()).as_bytes().to_vec())
            .collect();
        fs::write(setting.path("source/sub/b"), noise).unwrap();
        setting.back_up();
    }
    setting
}

fn names(objects: &[Value]) -> Vec<&str> {
    objects.iter().map(|object| object["snapshot"].as_str().unwrap()).collect()
}

fn has_fields(object: &Value, fields: &[&str]) {
    let found: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).filter(|name| *name != "type").collect();
    let mut fields = fields.to_vec();
    fields.sort_unstable();
    assert_eq!(found, fields, "the fields that the documentation names: {object}");
}

#[test]
fn snapshots_are_forgotten_brought_back_and_collected() {
    let setting = with_snapshots(5);
    setting.succeed(&["backup", "key", "--series", "other"]);
    let repository = setting.path("repository");
    let before = dump(&repository);

    let table = setting.succeed(&["forget", "--keep-last", "2", "--series", "default", "--dry-run"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 7, "{table}");
    assert!(lines[1].starts_with("forget  default#1  20") && lines[1].ends_with("covered by no rule"), "{table}");
    assert!(
        lines[5].starts_with("keep    default#5") && lines[5].contains("one of the last 2, the series'"),
        "{table}"
    );
    assert_eq!(lines[6], "dry run, would keep 2 snapshots and forget 3");
    assert!(setting.succeed(&["gc", "-n"]).contains("nothing to collect"));
    assert!(dump(&repository) == before, "dry runs change nothing");

    let said = setting.succeed(&["forget", "--keep-last", "2", "--series", "default"]);
    assert!(said.contains("2 snapshots kept, 3 forgotten\nuntil 20") && said.contains("`backstop undelete`"), "{said}");
    assert_eq!(names(&setting.objects(&["snapshots"])), ["default#4", "default#5", "other#1"]);
    assert!(setting.fail(&["cat", "default#3:source/a"], 1).contains("--forgotten"));
    let lines = setting.succeed(&["snapshots", "--forgotten"]);
    assert!(lines.lines().count() == 4 && lines.contains("UNTIL") && lines.contains("default#3"), "{lines}");
    assert_eq!(setting.succeed(&["snapshots", "--forgotten", "--series", "other"]), "");

    let before = dump(&repository);
    let said = setting.succeed(&["undelete", "default#2", "-n"]);
    assert!(said.starts_with("dry run, would give default#2 back: 3 files"), "{said}");
    assert!(setting.fail(&["undelete", "default#5", "-n"], 1).contains("can't be undeleted"));
    assert!(dump(&repository) == before, "a dry run changes nothing");
    assert!(setting.fail(&["undelete", "default#5"], 1).contains("wasn't forgotten"));
    assert!(setting.fail(&["undelete", "default#9"], 1).contains("does not exist"));
    let said = setting.succeed(&["undelete", "default#2"]);
    assert!(said.starts_with("snapshot default#6 gives default#2 back: 3 files"), "{said}");
    assert_eq!(setting.succeed(&["cat", "default#6:source/a"]), "version 2\n");
    assert!(setting.succeed(&["snapshots"]).contains("(of #2)"));

    // What can be undeleted is kept by a collection.
    setting.succeed(&["gc", "--waste", "0"]);
    assert_eq!(setting.succeed(&["snapshots", "--forgotten"]).lines().count(), 4);
    // The record with the highest number stays, so that nobody takes it again.
    let said = setting.succeed(&["forget", "default#6", "default#5", "--undelete-for", "0"]);
    assert!(said.contains("forget  default#6") && said.contains("named to be forgotten"), "{said}");
    assert!(said.contains("keep    default#4") && said.contains("not named"), "{said}");
    assert!(said.ends_with("`backstop gc` frees their space\n"), "{said}");

    let size = || setting.objects(&["stats"])[0]["packs"]["bytes"].as_u64().unwrap();
    let (before, dumped) = (size(), dump(&repository));
    let plan = setting.succeed(&["-v", "gc", "--waste", "0", "--dry-run"]);
    assert!(
        plan.contains("2 snapshots count, 3 forgotten ones can still be undeleted, 1 forgotten one goes"),
        "{plan}"
    );
    assert!(plan.lines().any(|line| line.starts_with("pack ")) && plan.contains("which frees"), "{plan}");
    assert!(dump(&repository) == dumped, "a dry run changes nothing");
    let said = setting.succeed(&["gc", "--waste", "0"]);
    assert!(said.contains("collection 1: deleted") && said.contains("1 snapshot's record;"), "{said}");
    assert!(size() + 150_000 < before, "{} bytes of packs, {before} before", size());
    assert!(setting.fail(&["undelete", "default#5"], 1).contains("it was collected"));

    assert_eq!(names(&setting.objects(&["snapshots"])), ["default#4", "other#1"]);
    setting.succeed(&["restore", "default#4", "out"]);
    assert_eq!(read(setting.path("out/source/a")), "version 4\n");
    let said = setting.succeed(&["undelete", "default#1"]);
    assert!(said.starts_with("snapshot default#7 gives default#1 back"), "{said}");
    assert_eq!(setting.succeed(&["cat", "default#7:source/a"]), "version 1\n");
    // It stands where it stood, and the latest is what it was.
    assert_eq!(setting.succeed(&["cat", "default@latest:source/a"]), "version 4\n");
    assert!(setting.succeed(&["check", "--read-data"]).contains("no damage found"));
}

#[test]
fn rules_follow_the_calendar_and_keep_what_must_be_kept() {
    let setting = with_snapshots(2);
    fs::write(setting.path("source/a"), "labelled").unwrap();
    setting.succeed(&["backup", "source", "--tag", "keep=ever"]);
    setting.back_up();
    let reasons = |line: &[&str]| -> Vec<String> {
        let objects = setting.objects(&[&["forget", "-n", "--undelete-for", "2w"], line].concat());
        let decisions = of_type(&objects, "decision");
        decisions.iter().map(|decision| decision["reasons"].to_string()).collect()
    };
    let year = reasons(&["--keep-yearly", "1", "--keep-tag", "keep=ever", "--utc-offset", "+14:00"]);
    assert_eq!(year[..2], [r#"["covered by no rule"]"#, r#"["covered by no rule"]"#], "{year:?}");
    assert_eq!(year[2], r#"["carries the label keep=ever"]"#);
    assert!(year[3].contains("the last of 20") && year[3].contains("last complete snapshot"), "{year:?}");
    assert!(reasons(&["--keep-within", "36h"]).iter().all(|reason| reason.contains("within 36 hours of the newest")));
    assert!(
        reasons(&["--keep-hourly", "1", "--keep-daily", "1", "--keep-weekly", "1", "--keep-monthly", "1"])[3]
            .contains("week")
    );
    let none = setting.fail(&["forget", "--keep-last", "0"], 1);
    assert!(none.contains("it would forget everything but the last snapshot"), "{none}");
    assert!(setting.fail(&["forget", "default#9"], 1).contains("default#9 does not exist"));
    assert_eq!(setting.succeed(&["-q", "forget", "default#1"]), "");
    assert_eq!(names(&setting.objects(&["snapshots"])), ["default#2", "default#3", "default#4"]);
}

#[test]
fn json_has_the_fields_that_are_documented() {
    let setting = with_snapshots(3);
    let would = setting.objects(&["forget", "--keep-last", "1", "-n"]);
    has_fields(&would[0], &["snapshot", "series", "number", "time", "keep", "reasons"]);
    assert_eq!((&would[0]["type"], &would[0]["keep"]), (&"decision".into(), &false.into()));
    has_fields(&would[3], &["dry_run", "kept", "forgotten", "until"]);
    assert_eq!(
        (&would[3]["dry_run"], &would[3]["until"], &would[3]["forgotten"]),
        (&true.into(), &Value::Null, &2.into())
    );
    let done = setting.objects(&["forget", "--keep-last", "1", "--undelete-for", "1h"]);
    assert_eq!((&done[3]["type"], &done[3]["dry_run"], &done[3]["kept"]), (&"forget".into(), &false.into(), &1.into()));

    let forgotten = setting.objects(&["snapshots", "--forgotten"]);
    assert_eq!(names(&forgotten), ["default#1", "default#2"]);
    assert_eq!((&forgotten[0]["type"], &forgotten[0]["until"]), (&"snapshot".into(), &done[3]["until"]));
    assert!(forgotten[0]["forgotten"].as_str() < forgotten[0]["until"].as_str());

    let would = setting.objects(&["undelete", "default#2", "-n"]);
    has_fields(&would[0], &["snapshot", "time", "hash", "undeleted", "dry_run"]);
    assert_eq!((&would[0]["snapshot"], &would[0]["dry_run"]), (&Value::Null, &true.into()));
    let back = setting.objects(&["undelete", "default#2"]);
    assert_eq!((&back[0]["snapshot"], &back[0]["undeleted"]), (&"default#4".into(), &"default#2".into()));
    let shown = setting.objects(&["snapshots"]);
    assert_eq!((&shown[1]["hash"], &shown[1]["origin"]["number"]), (&back[0]["hash"], &2.into()));
    assert_eq!((&shown[1]["origin"]["time"], &shown[0]["origin"]), (&forgotten[1]["time"], &Value::Null));

    setting.objects(&["forget", "default#3", "--undelete-for", "0s"]);
    let counts = ["snapshots", "undeletable", "forgotten", "needed_blobs", "unneeded_blobs", "pack_bytes", "packs"];
    let plan = setting.objects(&["gc", "--waste", "0", "-n"]);
    let told = of_type(&plan, "gc_plan")[0];
    let old = ["old_packs", "old_pack_bytes", "old_segments"];
    let rest = ["unfinished", "due", "freed_bytes", "spared_packs", "segments"];
    has_fields(told, &[&rest[..], &counts, &old].concat());
    let pack = of_type(&plan, "gc_pack")[0];
    has_fields(pack, &["pack", "reason", "bytes", "needed_bytes"]);
    assert_eq!(told["packs"], of_type(&plan, "gc_pack").len());
    let ran = setting.objects(&["gc", "--waste", "0"]);
    let report = of_type(&ran, "gc")[0];
    let done =
        ["packs_written", "bytes_written", "packs_deleted", "bytes_deleted", "segments_deleted", "records_deleted"];
    let rest =
        ["number", "finished", "old_packs_left", "rescued_blobs", "temporary_files", "fenced", "waiting", "left"];
    has_fields(report, &[&done[..], &rest, &old].concat());
    assert_eq!((&report["finished"], &report["number"]), (&true.into(), &1.into()));
    let again = setting.objects(&["gc", "--waste", "1"]);
    assert_eq!((&again[0]["due"], &again[1]["number"]), (&false.into(), &Value::Null), "{again:?}");
}

#[test]
fn a_collection_waits_for_a_writer_or_fences_it() {
    let setting = with_snapshots(3);
    let mut backup = setting.command(&["backup", "--stdin", "slow", "--series", "slow", "--host", "here"]);
    let mut backup = backup.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while fs::read_dir(setting.path("repository/writers")).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    setting.succeed(&["forget", "--keep-last", "1", "--undelete-for", "0"]);
    let said = expect(&setting.run(&["gc", "--waste", "0", "--wait", "0s"]), 3).0;
    assert!(said.contains("partial: the collection hasn't ended, and the next `backstop gc` goes on"), "{said}");
    assert!(said.contains("it waits for a writer of slow") && said.contains("--fence-after"), "{said}");
    let told = objects(&expect(&setting.run(&["--json", "gc", "--wait", "0s"]), 3).0);
    let (plan, report) = (of_type(&told, "gc_plan")[0], of_type(&told, "gc")[0]);
    assert_eq!((&plan["unfinished"], &plan["snapshots"]), (&1.into(), &Value::Null));
    assert_eq!((&report["finished"], &report["waiting"][0]["series"]), (&false.into(), &"slow".into()));
    has_fields(&report["waiting"][0], &["registration", "series", "host", "since"]);

    let said = setting.succeed(&["gc", "--wait", "0s", "--fence-after", "0s"]);
    assert!(said.contains("collection 1 was begun and hasn't ended; it is finished first"), "{said}");
    assert!(said.contains("a writer of slow was fenced at #1") && said.contains("nothing to collect"), "{said}");
    drop(backup.stdin.take());
    let said = expect(&backup.wait_with_output().unwrap(), 0).0;
    assert!(said.starts_with("snapshot slow#2: 1 file"), "it begins anew by itself: {said}");
    assert!(setting.succeed(&["check", "--read-data"]).contains("no damage found"));
}

#[test]
fn an_append_only_key_adds_and_takes_nothing_away() {
    let setting = with_snapshots(2);
    fs::write(setting.path("server"), [9; 32]).unwrap();
    let said = setting.succeed(&["key", "add", "--new-key-file", "server", "--append-only", "--label", "server"]);
    assert!(said.starts_with("added append-only key "), "{said}");
    let keys = setting.objects(&["key", "list"]);
    assert_eq!((&keys[0]["append_only"], &keys[1]["append_only"]), (&false.into(), &true.into()));
    let lines = setting.succeed(&["key", "list"]);
    assert!(lines.lines().any(|line| line.contains("only add") && line.ends_with("server")), "{lines}");
    assert!(lines.lines().any(|line| line.contains("do all") && line.contains("in use")), "{lines}");

    let before = dump(&setting.path("repository"));
    let id = keys[0]["id"].as_str().unwrap();
    let refused: [&[&str]; 5] =
        [&["forget", "--keep-last", "1"], &["forget", "default#1"], &["gc"], &["merge"], &["key", "remove", id]];
    for line in refused {
        let said = setting.fail(&[&["--key-file", "server"], line].concat(), 1);
        assert!(
            said.contains("opened with an append-only secret; open it with an administrator's"),
            "{line:?}: {said}"
        );
    }
    assert!(dump(&setting.path("repository")) == before, "nothing changed");
    let plan = setting.succeed(&["--key-file", "server", "forget", "--keep-last", "1", "-n"]);
    assert!(plan.contains("would keep 1 snapshot and forget 1"), "{plan}");

    setting.succeed(&["--key-file", "server", "backup", "source"]);
    setting.succeed(&["--key-file", "server", "restore", "default#3", "out"]);
    assert_eq!(read(setting.path("out/source/a")), "version 2\n");
    fs::write(setting.path("next"), [10; 32]).unwrap();
    setting.fail(&["--key-file", "server", "key", "add", "--new-key-file", "next"], 1);
    assert_eq!(of_type(&setting.objects(&["key", "list"]), "key").len(), 2, "it lets nobody in");
}

#[test]
fn what_older_keys_open_is_rewritten_if_asked() {
    let setting = with_snapshots(2);
    setting.succeed(&["gc"]);
    let said = setting.succeed(&["key", "rotate"]);
    assert!(said.contains("`backstop gc --rewrite-old-keys` next"), "{said}");
    let packs = || dump(&setting.path("repository/packs"));
    let before = packs();
    let plan = setting.succeed(&["gc", "-n"]);
    assert!(plan.contains("nothing to collect") && plan.contains("sealed under older keys than the newest"), "{plan}");
    setting.succeed(&["gc"]);
    assert!(packs() == before, "nothing is rewritten unasked");

    let told = setting.objects(&["gc", "--rewrite-old-keys"]);
    assert_eq!(of_type(&told, "gc_pack")[0]["reason"], "old_keys");
    let (plan, report) = (of_type(&told, "gc_plan")[0], of_type(&told, "gc")[0]);
    assert_eq!((&report["old_packs"], &report["old_packs_left"]), (&plan["old_packs"], &0.into()));
    assert!(packs().keys().all(|pack| !before.contains_key(pack)));
    assert!(!setting.succeed(&["gc", "-n"]).contains("older keys"));

    setting.succeed(&["key", "rotate"]);
    let said = setting.succeed(&["-v", "gc", "--rewrite-old-keys"]);
    assert!(said.contains("under older keys;") && said.contains("of these were sealed under older keys"), "{said}");
    assert!(setting.succeed(&["check", "--read-data"]).contains("no damage found"));
}

#[test]
fn a_check_shows_what_somebody_put_there() {
    let (setting, other) = (with_snapshots(1), with_snapshots(1));
    other.succeed(&["key", "rotate"]);
    let rosters = dump(&other.path("repository/keys"));
    let (roster, bytes) = rosters.iter().find(|(path, _)| path.to_string_lossy().contains("roster-")).unwrap();
    let name = roster.file_name().unwrap().to_str().unwrap();
    fs::write(setting.path("repository/keys").join(name), bytes).unwrap();
    let said = setting.succeed(&["check"]);
    assert!(said.contains(&format!("unsigned: keys/{name}: ")) && said.contains("no damage found"), "{said}");
    let told = setting.objects(&["check"]);
    let finding = of_type(&told, "finding").into_iter().find(|finding| finding["kind"] == "unsigned").unwrap();
    assert_eq!(finding["informational"], true);
}
