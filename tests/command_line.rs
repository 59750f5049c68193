//! The `backstop` example, run as people and scripts run it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]
#![cfg(unix)]

mod command;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstop::{CommitOptions, Key, Metadata, OpenOptions, Repository, Secret, WriterOptions};
use command::{Setting, expect, objects, of_type, read};
use serde_json::Value;

#[test]
fn a_folder_goes_in_and_comes_back() {
    let setting = Setting::new();
    let said = setting.succeed(&["init"]);
    assert!(said.contains("created repository"), "{said}");
    let said = setting.succeed(&["backup", "source", "--tag", "reason=test"]);
    assert!(said.starts_with("snapshot default#1: 3 files, 1.1 MiB; 6 added"), "{said}");

    fs::write(setting.path("source/a"), "hello again\n").unwrap();
    fs::remove_file(setting.path("source/sub/b")).unwrap();
    let said = setting.succeed(&["-q", "backup", "source"]);
    assert_eq!(said, "");

    let changes = setting.succeed(&["diff", "default#1", "latest"]);
    assert!(changes.contains("M  source/a\n") && changes.contains("-  source/sub/b\n"), "{changes}");
    assert!(!changes.contains("big"), "{changes}");
    assert_eq!(setting.succeed(&["cat", "default#1:source/sub/b"]), "world\n");
    assert_eq!(setting.succeed(&["cat", "latest:/source/a"]), "hello again\n");

    setting.succeed(&["restore", "default#1", "all"]);
    assert_eq!(read(setting.path("all/source/a")), "hello\n");
    assert_eq!(fs::read_link(setting.path("all/source/link")).unwrap(), Path::new("a"));
    assert_eq!(fs::read(setting.path("all/source/sub/big")).unwrap().len(), 1_200_000);
    setting.succeed(&["restore", "default#1:source/sub/", "part"]);
    assert_eq!(read(setting.path("part/b")), "world\n");
    let said = setting.succeed(&["restore", "default@latest:source/a", "one"]);
    assert!(said.contains("one/a"), "it says where: {said}");
    assert_eq!(read(setting.path("one/a")), "hello again\n");

    let said = setting.succeed(&["check", "--read-data"]);
    assert!(said.contains("no damage found"), "{said}");
    let said = setting.succeed(&["stats"]);
    assert!(said.contains("packs") && said.contains("1 series"), "{said}");
}

#[test]
fn many_small_packs_are_merged() {
    let setting = Setting::created();
    fs::create_dir_all(setting.path("source")).unwrap();
    for number in 0..33 {
        fs::write(setting.path("source/changing"), format!("{number:2000}")).unwrap();
        setting.succeed(&["backup", "source", "--read-all"]);
    }
    let told = setting.objects(&["merge", "--dry-run"]);
    assert_eq!((&told[0]["type"], &told[0]["packs"]), (&"merge_plan".into(), &32.into()), "{told:?}");
    assert_eq!(setting.objects(&["stats"])[0]["packs"]["objects"], 33, "a dry run changes nothing");
    let said = setting.succeed(&["merge"]);
    assert!(said.contains("32 packs became 1"), "{said}");
    assert_eq!(setting.objects(&["merge"])[0]["type"], "merge_plan", "there is nothing left to merge");
    assert!(setting.succeed(&["check", "--read-data"]).contains("no damage found"));
    assert_eq!(setting.succeed(&["cat", "default#7:source/changing"]), format!("{:2000}", 6));
}

#[test]
fn absolute_paths_are_stored_without_their_slash() {
    let setting = Setting::created();
    let source = setting.text("source");
    setting.succeed(&["backup", &source]);
    setting.succeed(&["restore", &format!("latest:{source}"), "out"]);
    assert_eq!(read(setting.path("out/a")), "hello\n");
}

#[test]
fn listings_show_what_there_is() {
    let setting = Setting::created();
    fs::set_permissions(setting.path("source/a"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(setting.path("source/line\nbreak"), "").unwrap();
    setting.succeed(&["backup", "source", "--series", "host:/srv", "--tag", "k=v", "--host", "here"]);

    let lines = setting.succeed(&["snapshots"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("host:/srv#1") && lines.contains("here") && lines.contains("source [k=v]"), "{lines}");
    assert_eq!(setting.succeed(&["snapshots", "--series", "other"]), "");

    let lines = setting.succeed(&["ls", "host:/srv#1:source"]);
    assert!(lines.lines().any(|line| line.starts_with("-rw-r-----") && line.ends_with("  source/a")), "{lines}");
    assert!(lines.contains("source/link -> a\n") && lines.contains("  source/line\\nbreak\n"), "{lines}");
    assert_eq!(setting.succeed(&["ls", "latest:source/sub"]).lines().count(), 3);

    let snapshots = setting.objects(&["snapshots"]);
    assert_eq!(snapshots[0]["snapshot"], "host:/srv#1");
    assert_eq!(snapshots[0]["tags"]["k"], "v");
    assert_eq!(snapshots[0]["stats"]["files"], 4);
    let entries = setting.objects(&["ls", "latest"]);
    let entry = |path: &str| entries.iter().find(|entry| entry["path"] == path).unwrap();
    assert_eq!((&entry("source/a")["mode"], &entry("source/a")["size"]), (&"0640".into(), &6.into()));
    assert_eq!((&entry("source/link")["kind"], &entry("source/link")["target"]), (&"symlink".into(), &"a".into()));
}

#[test]
fn a_snapshot_shows_the_position_that_its_writer_gave() {
    let setting = Setting::created();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (secret, at) = (Secret::key([7; 32]), setting.path("repository"));
        let repository = Repository::open(at, &secret, OpenOptions::default()).await.unwrap();
        for position in [None, Some("0/16B3748".into()), Some(vec![0xff, 0, 0x41])] {
            let writer = repository.writer("accounts", WriterOptions::default()).await.unwrap();
            let path = Key::from_path("ana/contacts/1").unwrap();
            writer.put(&path, "BEGIN:VCARD", &Metadata::default()).await.unwrap();
            let mut options = CommitOptions::default();
            options.position = position;
            writer.commit(options).await.unwrap();
        }
    });
    let lines = setting.succeed(&["snapshots"]);
    let ends: Vec<_> = lines.lines().skip(1).map(|line| line.split_once("  (").map(|(_, end)| end)).collect();
    assert_eq!(ends, [None, Some("at 0/16B3748)"), Some("at 0xff0041)")], "{lines}");
    let snapshots = setting.objects(&["snapshots"]);
    assert_eq!(snapshots[0]["position"], Value::Null);
    assert_eq!((&snapshots[1]["position"], &snapshots[1]["position_hex"]), (&"0/16B3748".into(), &Value::Null));
    assert_eq!(snapshots[2]["position_hex"], "ff0041");
    assert_eq!(setting.succeed(&["cat", "accounts#2:ana/contacts/1"]), "BEGIN:VCARD");
}

#[test]
fn every_command_speaks_json() {
    let setting = Setting::new();
    assert_eq!(setting.objects(&["init"])[0]["type"], "repository");
    let backup = setting.objects(&["backup", "source"]);
    let done = of_type(&backup, "backup")[0];
    assert_eq!((&done["snapshot"], &done["stats"]["files"]), (&"default#1".into(), &3.into()));
    fs::remove_file(setting.path("source/a")).unwrap();
    setting.objects(&["backup", "source"]);
    let changes = setting.objects(&["diff", "default#1", "default#2"]);
    assert!(changes.iter().any(|change| change["path"] == "source/a" && change["change"] == "removed"), "{changes:?}");
    let restored = setting.objects(&["restore", "default#1", "out"]);
    assert_eq!(of_type(&restored, "restore")[0]["files"], 3);
    let checked = setting.objects(&["check"]);
    assert_eq!(of_type(&checked, "check")[0]["sound"], true);
    assert_eq!(setting.objects(&["key", "list"])[0]["kind"], "key");
    assert_eq!(setting.objects(&["stats"])[0]["series"], 1);

    let failed = setting.run(&["--json", "cat", "latest:nothing"]);
    let (out, err) = expect(&failed, 1);
    assert_eq!(objects(&out)[0]["type"], "error");
    assert!(err.starts_with("error: "), "{err}");
}

#[test]
fn a_rotation_reaches_the_other_key_and_a_fingerprint_is_pinned() {
    let setting = Setting::created();
    fs::write(setting.path("other"), [9; 32]).unwrap();
    setting.succeed(&["key", "add", "--new-key-file", "other", "--append-only"]);
    assert!(setting.fail(&["key", "add", "--new-key-file", "other"], 1).contains("opens the repository already"));
    setting.succeed(&["backup", "source"]);
    let rotated = &setting.objects(&["key", "rotate"])[0];
    assert_eq!((rotated["type"].as_str(), rotated["generation"].as_u64()), (Some("keys_rotated"), Some(1)));
    assert_eq!(rotated["keys"].as_array().unwrap().len(), 2);
    assert!(setting.fail(&["--key-file", "other", "key", "rotate"], 1).contains("append-only"));
    fs::write(setting.path("source/a"), "hello again\n").unwrap();
    setting.succeed(&["--key-file", "other", "backup", "source"]);
    assert_eq!(setting.succeed(&["cat", "latest:source/a"]), "hello again\n");
    assert_eq!(setting.succeed(&["--key-file", "other", "cat", "default#1:source/a"]), "hello\n");

    let keys = setting.objects(&["key", "list"]);
    let fingerprint = of_type(&keys, "repository")[0]["fingerprint"].as_str().unwrap().to_owned();
    assert!(setting.succeed(&["key", "list"]).contains(&fingerprint));
    setting.succeed(&["--fingerprint", &fingerprint, "snapshots"]);
    let other = setting.fail(&["--fingerprint", "0123-4567-89ab-cdef-ghjk-mnpq", "snapshots"], 1);
    assert!(other.contains(&fingerprint), "{other}");
    setting.fail(&["--fingerprint", "0123", "snapshots"], 2);
}

#[test]
fn keys_are_added_listed_and_removed() {
    let setting = Setting::created();
    fs::write(setting.path("phrase"), "correct horse\n").unwrap();
    setting.succeed(&["key", "add", "--new-passphrase-file", "phrase", "--label", "for people"]);
    let objects = setting.objects(&["key", "list"]);
    let keys = of_type(&objects, "key");
    let kinds: Vec<_> = keys.iter().map(|key| key["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["key", "passphrase"]);
    assert!(setting.succeed(&["key", "list"]).contains("for people"));

    let first = keys[0]["id"].as_str().unwrap();
    assert!(setting.fail(&["key", "remove", "x"], 1).contains("key list"));
    setting.succeed(&["--passphrase-file", "phrase", "key", "remove", &first[..10]]);
    assert!(setting.fail(&["snapshots"], 1).contains("the secret is wrong"));
    let mut with_variable = setting.command(&["snapshots"]);
    with_variable.env_remove("BACKSTOP_KEY_FILE").env("BACKSTOP_PASSPHRASE", "correct horse");
    expect(&with_variable.output().unwrap(), 0);
    let last = keys[1]["id"].as_str().unwrap();
    assert!(
        setting.fail(&["--passphrase-file", "phrase", "key", "remove", last], 1).contains("open it with another one")
    );
}

#[test]
fn what_fails_says_why_and_what_to_do() {
    let setting = Setting::created();
    setting.succeed(&["backup", "source"]);
    fs::write(setting.path("other"), [8; 32]).unwrap();
    fs::write(setting.path("short"), [8; 31]).unwrap();
    let wrong = setting.fail(&["--key-file", "other", "snapshots"], 1);
    assert!(wrong.contains("error: the secret is wrong") && wrong.contains("hint: "), "{wrong}");
    assert!(setting.fail(&["--key-file", "short", "snapshots"], 1).contains("31 bytes long; a key has 32"));
    let missing = setting.fail(&["--key-file", "nowhere", "snapshots"], 1);
    assert!(missing.contains("nowhere\n  caused by: No such file"), "{missing}");
    assert!(setting.fail(&["-r", "nowhere", "snapshots"], 1).contains("backstop init"));
    assert!(setting.fail(&["init"], 1).contains("there is one already"));
    assert!(setting.fail(&["ls", "default#9"], 1).contains("backstop snapshots"));
    assert!(setting.fail(&["ls", "latest:nothing"], 1).contains("nothing does not exist"));
    assert!(setting.fail(&["cat", "latest:source"], 1).contains("not a file"));
    assert!(setting.fail(&["restore", "latest:nothing", "out"], 1).contains("does not exist"));
    assert!(setting.fail(&["backup", "nowhere"], 1).contains("nowhere"));
    let mut without = setting.command(&["snapshots"]);
    let said = expect(&without.env_remove("BACKSTOP_KEY_FILE").output().unwrap(), 1).1;
    assert!(said.contains("--passphrase-file"), "{said}");
}

#[test]
fn wrong_usage_ends_with_2() {
    let setting = Setting::new();
    let lines: [&[&str]; 22] = [
        &[],
        &["frobnicate"],
        &["backup"],
        &["ls"],
        &["ls", "nothing"],
        &["cat", "latest"],
        &["diff", "latest", "latest:x"],
        &["diff", "latest", "latest", "/"],
        &["history", "default"],
        &["history", "default", "/"],
        &["history", "default", "a", "--limit", "0"],
        &["history", "default", "a", "--from", "yesterday"],
        &["check", "--read-data=0"],
        &["backup", "source", "--tag", "x"],
        &["forget"],
        &["forget", "latest"],
        &["forget", "--keep-within", "14"],
        &["forget", "--keep-daily", "1", "--utc-offset", "1"],
        &["undelete", "default"],
        &["gc", "--waste", "101"],
        &["gc", "--wait", "-1s"],
        &["--key-file", "key", "--passphrase-file", "key", "stats"],
    ];
    for line in lines {
        setting.fail(line, 2);
    }
    let mut without = setting.command(&["snapshots"]);
    let said = expect(&without.env_remove("BACKSTOP_REPOSITORY").output().unwrap(), 2).1;
    assert!(said.contains("BACKSTOP_REPOSITORY"), "{said}");
    expect(&setting.run(&["--help"]), 0);
    expect(&setting.run(&["--version"]), 0);
}

#[test]
fn a_backup_that_lacks_something_ends_with_3() {
    let setting = Setting::created();
    // Nothing else keeps root out: a path that is longer than paths can be.
    let long = |root: &str| (0..9).fold(setting.path(root), |path, _| path.join("x".repeat(250)));
    fs::create_dir_all(long("source")).unwrap();
    fs::create_dir_all(long("below")).unwrap();
    fs::rename(setting.path("below"), long("source").join("below")).unwrap();

    let (out, err) = expect(&setting.run(&["backup", "source"]), 3);
    assert!(out.contains("partial: 1 path could not be read"), "{out}");
    assert!(err.starts_with("warning: ") && err.lines().count() == 1, "{err}");
    let snapshots = setting.objects(&["snapshots"]);
    assert_eq!((&snapshots[0]["partial"], &snapshots[0]["failures"]), (&true.into(), &1.into()));
    assert!(setting.succeed(&["snapshots"]).contains("(partial: 1 failed)"));
    let again = objects(&expect(&setting.run(&["--json", "backup", "source"]), 3).0);
    assert_eq!(of_type(&again, "failure").len(), 1);
}

#[test]
fn damage_is_found_and_ends_with_1() {
    let setting = Setting::created();
    setting.succeed(&["backup", "source"]);
    let pack = files_below(&setting.path("repository/packs")).pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&pack, bytes).unwrap();
    let (out, _) = expect(&setting.run(&["check", "--read-data"]), 1);
    assert!(out.contains(pack.file_name().unwrap().to_str().unwrap()), "{out}");
    assert!(out.contains("1 defect found"), "{out}");
    let found = objects(&expect(&setting.run(&["--json", "check", "--read-data=100%"]), 1).0);
    assert_eq!(of_type(&found, "check")[0]["sound"], false);
    assert_eq!(of_type(&found, "finding").len(), 1);
}

/// What a later version may have written is no damage, and is told apart from it.
#[test]
fn what_needs_a_newer_version_is_named_and_ends_with_3() {
    let setting = Setting::created();
    setting.succeed(&["backup", "source"]);
    let slot = files_below(&setting.path("repository/keys")).pop().unwrap();
    let mut bytes = fs::read(&slot).unwrap();
    bytes[8] = 2;
    let newer = setting.path("repository/keys").join(blake3::hash(&bytes).to_hex().as_str());
    fs::write(&newer, &bytes).unwrap();
    let (out, _) = expect(&setting.run(&["check"]), 3);
    assert!(out.contains("unsupported: keys/") && out.contains("format version 2"), "{out}");
    assert!(
        out.contains("1 thing not checked, for lack of a newer version") && out.contains("no damage found"),
        "{out}"
    );
    let found = objects(&expect(&setting.run(&["--json", "check"]), 3).0);
    assert_eq!((&found[0]["kind"], &found[0]["informational"]), (&"unsupported".into(), &false.into()));
    assert_eq!(
        (of_type(&found, "check")[0]["defects"].as_u64(), of_type(&found, "check")[0]["unsupported"].as_u64()),
        (Some(0), Some(1))
    );
    for arguments in [&["repair", "--dry-run"][..], &["repair"]] {
        let (out, _) = expect(&setting.run(arguments), 3);
        assert!(out.contains("format version 2") && out.contains("left alone"), "{out}");
    }
    setting.succeed(&["backup", "source"]);
    setting.succeed(&["restore", "latest", "back"]);
    assert_eq!(fs::read(&newer).unwrap(), bytes);
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn standard_input_is_backed_up_under_a_name() {
    let setting = Setting::created();
    let mut child = setting
        .command(&["backup", "--stdin", "/dumps/db.sql", "--series", "db"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"select 1;\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(setting.succeed(&["cat", "db@latest:dumps/db.sql"]), "select 1;\n");
    assert!(setting.succeed(&["ls", "latest"]).contains("dumps/db.sql"));
}

#[test]
fn snapshots_are_found_by_time() {
    let setting = Setting::created();
    setting.succeed(&["backup", "source"]);
    let time = setting.objects(&["snapshots"])[0]["time"].as_str().unwrap().to_owned();
    fs::write(setting.path("source/a"), "later\n").unwrap();
    setting.succeed(&["backup", "source"]);

    assert_eq!(setting.succeed(&["cat", &format!("{time}:source/a")]), "hello\n");
    assert_eq!(setting.succeed(&["cat", &format!("default@{time}:source/a")]), "hello\n");
    let (day, clock) = time.split_once('T').unwrap();
    assert_eq!(setting.succeed(&["cat", &format!("default@{day}:/source/a")]), "later\n");
    assert!(setting.fail(&["ls", "2001-01-01"], 1).contains("at or before"));
    // As `snapshots` shows it: to the second, and the second it names is included.
    let shown = format!("{day} {}", &clock[..8]);
    assert!(setting.succeed(&["snapshots"]).contains(&shown));
    setting.succeed(&["cat", &format!("default@{shown}:source/a")]);
}

#[test]
fn differences_are_shown_for_a_part() {
    let setting = Setting::created();
    setting.back_up();
    fs::write(setting.path("source/a"), "longer than before\n").unwrap();
    fs::write(setting.path("source/sub/new"), "new\n").unwrap();
    fs::remove_file(setting.path("source/sub/b")).unwrap();
    fs::remove_file(setting.path("source/link")).unwrap();
    fs::write(setting.path("source/link"), "").unwrap();
    setting.back_up();

    let lines = setting.succeed(&["-q", "diff", "default#1", "default#2"]);
    let of_sources: Vec<_> = lines.lines().filter(|line| !line.starts_with('m')).collect();
    assert_eq!(of_sources, ["M  source/a", "T  source/link", "-  source/sub/b", "+  source/sub/new"]);
    let lines = setting.succeed(&["-q", "diff", "default#1", "default#2", "/source/sub"]);
    assert_eq!(lines, "m  source/sub\n-  source/sub/b\n+  source/sub/new\n");
    let lines = setting.succeed(&["-v", "diff", "default#1", "default#2", "source/a"]);
    assert!(lines.starts_with("M  source/a  (6 B, now 19 B)\n"), "{lines}");
    let changes = setting.objects(&["diff", "default#2", "default#1", "source/sub/new"]);
    assert_eq!((&changes[0]["change"], &changes[0]["old"]["size"]), (&"removed".into(), &4.into()));
    assert_eq!((changes.len(), &changes[0]["new"]), (1, &Value::Null));

    let same = setting.succeed(&["diff", "default#2", "latest", "source/a"]);
    assert_eq!(same, "default#2 to default#2: no difference\n");
    assert_eq!(setting.objects(&["diff", "default#2", "latest"]), [] as [Value; 0]);
    let missing = setting.fail(&["diff", "default#1", "default#2", "source/nothing"], 1);
    assert!(missing.contains("neither in default#1 nor in default#2"), "{missing}");
}

#[test]
fn the_history_of_a_path_is_shown_newest_first() {
    let setting = Setting::created();
    setting.back_up();
    fs::write(setting.path("source/a"), "again\n").unwrap();
    setting.back_up();
    fs::write(setting.path("source/sub/b"), "other\n").unwrap();
    setting.back_up();
    fs::remove_file(setting.path("source/a")).unwrap();
    setting.back_up();
    let times: Vec<_> = setting.objects(&["snapshots"]).iter().map(|snapshot| snapshot["time"].clone()).collect();

    let lines = setting.succeed(&["-q", "history", "default", "/source/a"]);
    let shown: Vec<_> = lines.lines().map(|line| line.split_at(21).1).collect();
    assert_eq!(shown, ["default#4  -  source/a", "default#2  M  source/a", "default#1  +  source/a"]);
    let day_of = |time: &Value| time.as_str().unwrap().split('T').next().unwrap().to_owned();
    let (first_day, day) = (&day_of(&times[0]), &day_of(&times[3]));
    assert!(lines.lines().all(|line| line.starts_with("20")) && lines.starts_with(day), "{lines}");
    let said = setting.succeed(&["history", "default", "source/sub/b"]);
    assert!(said.ends_with("2 changes in 2 snapshots\n"), "{said}");

    let changes = setting.objects(&["history", "default", "source/a", "--limit", "2"]);
    let told: Vec<_> = changes.iter().map(|change| (&change["number"], &change["change"], &change["time"])).collect();
    assert_eq!(told, [(&4.into(), &"removed".into(), &times[3]), (&2.into(), &"content".into(), &times[1])]);
    assert_eq!((&changes[1]["type"], &changes[1]["snapshot"]), (&"change".into(), &"default#2".into()));
    assert_eq!(changes[1]["new"]["size"], 6);

    let numbers = |part: &[&str]| -> Vec<u64> {
        let changes = setting.objects(&[&["history", "default", "source/a"], part].concat());
        changes.iter().map(|change| change["number"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(&["--from", "2", "--until", "3"]), [2]);
    assert_eq!(numbers(&["--from", times[1].as_str().unwrap()]), [4, 2]);
    assert_eq!(numbers(&["--until", times[2].as_str().unwrap()]), [2, 1]);
    assert_eq!(numbers(&["--from", first_day, "--until", day]), [4, 2, 1]);
    assert!(numbers(&["--from", "3", "--until", "3"]).is_empty());
    assert!(setting.fail(&["history", "default", "source/nothing"], 1).contains("in no snapshot of \"default\""));
    assert!(setting.fail(&["history", "unknown", "source/a"], 1).contains("backstop snapshots"));
    assert!(setting.fail(&["history", "a#b", "source/a"], 1).contains("a name has"));
}

#[test]
fn excludes_dry_runs_and_deletes_do_what_they_say() {
    let setting = Setting::created();
    let said = setting.succeed(&["backup", "source", "--dry-run"]);
    assert!(said.starts_with("dry run, nothing was stored: 3 files"), "{said}");
    assert_eq!(setting.succeed(&["snapshots"]), "");
    fs::write(setting.path("patterns"), "big\n").unwrap();
    setting.succeed(&["backup", "source", "--exclude", "/a", "--exclude-file", "patterns"]);
    let listed = setting.succeed(&["ls", "latest"]);
    assert!(!listed.contains("source/a\n") && !listed.contains("big") && listed.contains("source/sub/b\n"), "{listed}");

    fs::create_dir(setting.path("out")).unwrap();
    fs::write(setting.path("out/extra"), "").unwrap();
    let said = setting.succeed(&["restore", "latest:source", "out", "--delete", "--dry-run"]);
    assert!(said.starts_with("dry run, would restore"), "{said}");
    assert!(setting.path("out/extra").exists() && !setting.path("out/sub").exists());
    setting.succeed(&["restore", "latest:source", "out"]);
    assert!(setting.path("out/extra").exists() && setting.path("out/sub/b").exists());
    setting.succeed(&["restore", "latest:source", "out", "--delete"]);
    assert!(!setting.path("out/extra").exists() && setting.path("out/sub/b").exists());
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let setting = Setting::created();
    setting.succeed(&["backup", "source"]);
    let mut child = setting
        .command(&["cat", "latest:source/sub/big"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    let (_, err) = expect(&output, 0);
    assert_eq!(err, "");
}

#[test]
fn an_interrupted_backup_commits_nothing() {
    let setting = Setting::created();
    let mut child = setting
        .command(&["backup", "--stdin", "endless"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Larger than a pipe holds: once it is written, the backup has begun to read.
    stdin.write_all(&vec![0; 1 << 20]).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (_, err) = expect(&child.wait_with_output().unwrap(), 130);
    assert!(err.contains("nothing was committed"), "{err}");
    assert_eq!(setting.succeed(&["snapshots"]), "");
}

#[test]
fn damage_is_repaired_from_a_copy_or_given_up() {
    let setting = Setting::created();
    setting.back_up();
    assert!(setting.succeed(&["repair", "--dry-run"]).contains("nothing to repair"));
    let copied = Command::new("cp").arg("-r").args([setting.path("repository"), setting.path("copy")]).status();
    assert!(copied.unwrap().success());
    let packs = setting.path("repository/packs");
    let pack = files_below(&packs).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let whole = fs::read(&pack).unwrap();
    let damage = || {
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&pack, &whole[..whole.len() / 2]).unwrap();
    };
    damage();

    let (out, _) = expect(&setting.run(&["repair", "--dry-run"]), 1);
    assert!(out.contains("lacks") && fs::read(&pack).unwrap().len() < whole.len(), "{out}");
    let repaired = setting.objects(&["repair", "--other", &setting.text("copy")]);
    assert_eq!(of_type(&repaired, "repair_step")[0]["action"], "copy_object");
    assert_eq!(of_type(&repaired, "repair")[0]["complete"], true);
    assert_eq!(fs::read(&pack).unwrap(), whole);

    damage();
    let (out, _) = expect(&setting.run(&["--json", "repair"]), 3);
    assert_eq!(of_type(&objects(&out), "loss")[0]["snapshot"], "default#1");
    setting.fail(&["check"], 1);
    let said = setting.succeed(&["repair", "--accept-loss"]);
    assert!(said.contains("default#1 is default#2 now"), "{said}");
    setting.succeed(&["check", "--read-data"]);
    setting.succeed(&["backup", "--heal", "source"]);
}

#[test]
fn rights_are_probed_without_a_secret_and_held_against_what_is_expected() {
    let setting = Setting::new();
    fs::create_dir(setting.path("repository")).unwrap();
    let probe = |arguments: &[&str]| setting.command(arguments).env_remove("BACKSTOP_KEY_FILE").output().unwrap();
    let (out, _) = expect(&probe(&["probe", "--expect", "administrator"]), 0);
    assert!(out.contains("delete                   allowed") && out.contains("as expected"), "{out}");
    let (out, _) = expect(&probe(&["probe", "--expect", "append-only"]), 1);
    assert!(out.contains("allowed  too much") && out.contains("2 rights are not as expected"), "{out}");
    let (out, _) = expect(&probe(&["--json", "probe", "--expect", "append-only"]), 1);
    let told = &objects(&out)[0];
    assert_eq!(told["too_much"], serde_json::json!(["overwrite", "delete"]), "{told}");
    assert_eq!((&told["create_again"], &told["left"]), (&"refused".into(), &Value::Null), "{told}");
    assert_eq!(fs::read_dir(setting.path("repository/probes")).map_or(0, Iterator::count), 0, "nothing is left");
}

#[test]
fn a_name_makes_no_lines_and_no_turns_of_its_own() {
    let setting = Setting::created();
    let name = "a\nno damage found\u{202e}gnp\\n\u{9b}";
    fs::write(setting.path("source").join(name), "x".repeat(5000)).unwrap();
    setting.back_up();
    let is_plain =
        |text: &str| !text.chars().any(|c| matches!(c, '\u{9b}' | '\u{202e}') || c.is_control() && c != '\n');
    let escaped = r"a\nno damage found\u{202e}gnp\\n\u{9b}";
    let listed = setting.succeed(&["ls", "latest"]);
    assert!(listed.contains(escaped) && is_plain(&listed), "{listed}");
    let json = setting.succeed(&["--json", "ls", "latest"]);
    assert!(is_plain(&json), "{json}");
    assert!(objects(&json).iter().any(|entry| entry["path"] == format!("source/{name}")), "{json}");

    for pack in command::dump(&setting.path("repository/packs")).into_keys() {
        fs::remove_file(pack).unwrap();
    }
    for line in [&["check"][..], &["repair", "-n"]] {
        let (out, err) = expect(&setting.run(line), 1);
        assert!(is_plain(&out) && is_plain(&err), "{out}{err}");
        assert!(
            !format!("{out}{err}").lines().any(|line| line.trim_start().starts_with("no damage found")),
            "{out}{err}"
        );
    }
}

#[test]
fn credentials_in_a_url_are_not_shown() {
    let setting = Setting::new();
    for url in ["s3://KEY:SECRET@bucket/x", "az://container/x?sig=SECRET", "s3://KEY:SEC/RET@x", "ftp://KEY:SECRET@x/y"]
    {
        for line in [&["init"][..], &["probe"], &["--json", "stats"], &["--help"]] {
            let mut command = setting.command(line);
            // No cloud is asked: where the feature is on, it is an address at which nothing listens.
            command.env("BACKSTOP_REPOSITORY", url).env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
            if cfg!(any(feature = "aws", feature = "azure")) && line != ["--help"] && !url.starts_with("ftp") {
                continue;
            }
            let output = command.output().unwrap();
            let told =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(!told.contains("SEC") && !told.contains("KEY:"), "{url} {line:?}: {told}");
        }
    }
}

#[test]
fn a_secret_that_others_may_read_is_remarked_on() {
    let setting = Setting::created();
    assert_eq!(expect(&setting.run(&["snapshots"]), 0).1, "");
    fs::set_permissions(setting.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (_, err) = expect(&setting.run(&["snapshots"]), 0);
    assert!(err.contains("others may read the secret in") && err.contains("chmod 600"), "{err}");
}

#[test]
fn names_that_no_object_can_have_stop_nothing() {
    let setting = Setting::created();
    for folder in ["gc", "keys", "index", "packs/00", "kept", "writers", "snapshots"] {
        fs::create_dir_all(setting.path("repository").join(folder)).unwrap();
        for name in ["0\u{1}", "line\nbreak"] {
            fs::write(setting.path("repository").join(folder).join(name), "").unwrap();
        }
    }
    setting.back_up();
    setting.succeed(&["restore", "latest", "out"]);
    setting.succeed(&["check", "--read-data"]);
    setting.succeed(&["gc"]);
    let (_, err) = expect(&setting.run(&["stats"]), 0);
    assert!(err.contains("a name that no object can have is passed over"), "{err}");
}

/// Whether a process may be looked into or dumped shows in `/proc` by whom its files belong to, and by its limits.
#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_the_command_is_not_dumped() {
    let setting = Setting::created();
    let mut child = setting.command(&["backup", "--stdin", "x"]).stdin(Stdio::piped()).spawn().unwrap();
    let limits = format!("/proc/{}/limits", child.id());
    let is_set = || {
        fs::read_to_string(&limits).unwrap().lines().any(|line| {
            line.starts_with("Max core file size")
                && line.split_whitespace().rev().skip(1).take(2).all(|limit| limit == "0")
        })
    };
    let set = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        is_set()
    });
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(set, "the limit of core dumps is not zero");
}

#[test]
fn what_cannot_be_used_is_put_aside_with_a_warning_and_status_3() {
    let setting = Setting::created();
    for _ in 0..2 {
        setting.succeed(&["backup", "source"]);
    }
    let series = fs::read_dir(setting.path("repository/commits")).unwrap().next().unwrap().unwrap().path();
    let bucket = series.join("000000000000");
    let kept = setting.path("repository/kept").join(series.file_name().unwrap());
    fs::create_dir_all(&kept).unwrap();
    fs::write(bucket.join("000000000000003"), "?").unwrap();
    fs::create_dir_all(series.join("999999999999")).unwrap();
    fs::write(series.join("999999999999/999999999999999"), "?").unwrap();
    fs::write(kept.join("000000000000001"), "?").unwrap();

    for (number, line) in [
        &["restore", "default@latest:source", "out"][..],
        &["ls", "default@latest"],
        &["snapshots"],
        &["restore", "default#2:source", "out"],
    ]
    .into_iter()
    .enumerate()
    {
        let said = setting.fail(line, 3);
        assert!(said.contains("can't be used and is put aside") && said.contains("put aside\n"), "{line:?}: {said}");
        assert!(said.contains("kept/") && said.contains("run `backstop check`"), "{line:?}: {said}");
        assert_eq!(said.contains("000000000000003"), number < 3, "{line:?}: {said}");
    }
    assert_eq!(read(setting.path("out/sub/b")), "world\n");
    // The list may be what says that all before the far number was forgotten; without that, the next number stops it.
    let far = series.join("999999999999/999999999999999");
    let said = setting.fail(&["backup", "source"], 1);
    assert!(said.contains("kept/") && said.contains("repair"), "{said}");
    fs::remove_file(&far).unwrap();
    let said = setting.fail(&["backup", "source"], 1);
    assert!(said.contains("000000000000003") && said.contains("repair"), "{said}");
    fs::write(&far, "?").unwrap();
    setting.succeed(&["backup", "source", "--series", "other"]);

    setting.succeed(&["repair", "--accept-loss"]);
    setting.succeed(&["check"]);
    setting.succeed(&["backup", "source"]);
    let numbers: Vec<_> = setting.objects(&["snapshots"]).iter().map(|it| it["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 4, 1]);
}
