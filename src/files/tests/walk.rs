use std::fs;
use std::os::unix::fs::symlink;

use tempfile::tempdir;

use super::*;
use crate::tree::EntryKind;

fn excluding(patterns: &[&str]) -> WalkOptions {
    WalkOptions { excludes: patterns.iter().map(|pattern| pattern.to_string()).collect(), ..Default::default() }
}

#[test]
fn the_order_is_that_of_keys_whatever_the_names() {
    let dir = tempdir().unwrap();
    let long = [b'x'; 255];
    let names: [&[u8]; 12] =
        [b"a", b"a!", b"a-b", b"a b", b"\xff\xfe", b"new\nline", b"\x01", b"A", b"~", "é".as_bytes(), b"-rf", &long];
    for name in names {
        let folder = dir.path().join(os(name));
        fs::create_dir(&folder).unwrap();
        for inner in [b"b".as_slice(), b"!", b"\xff"] {
            fs::write(folder.join(os(inner)), inner).unwrap();
        }
    }
    fs::write(dir.path().join("a.txt"), "").unwrap();
    let found = found_below(dir.path(), &WalkOptions::default());
    assert!(found.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(found.len(), 12 * 4 + 1);
    for (_, found) in found {
        assert!(found.path().symlink_metadata().is_ok(), "{:?}", found.path());
        assert_eq!(key_of(&found.path()), found.key);
    }
}

#[test]
fn excludes_follow_the_rules_of_gitignore() {
    let dir = tempdir().unwrap();
    for path in ["a.o", "keep.o", "src/b.o", "src/target/x", "target/y", "cache/z", "src/cache", "deep/er/log.1"] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let list = dir.path().join("list");
    fs::write(&list, "# a comment\n\n*.o\r\n/list\n").unwrap();
    let mut options = excluding(&["!keep.o", "/target", "cache/", "deep/**/log.*"]);
    options.exclude_files = vec![list];
    let names = names_below(dir.path(), &options);
    assert_eq!(names, ["deep", "deep/er", "keep.o", "src", "src/cache", "src/target", "src/target/x"]);
    // A root isn't left out, and one below an excluded folder is found all the same.
    let options = excluding(&["src", "target", "deep"]);
    let roots = [dir.path(), &dir.path().join("src/target")];
    let found: Vec<_> = walk(&roots, &options).into_iter().map(Result::unwrap).collect();
    let prefix = key_of(dir.path());
    let names: Vec<_> = found.iter().filter_map(|found| Some(text(&found.key.strip_prefix(&prefix)?))).collect();
    assert_eq!(names, ["a.o", "cache", "cache/z", "keep.o", "list", "src", "src/target", "src/target/x"]);
}

#[test]
fn excludes_that_make_no_sense_are_refused() {
    let error = Walk::new(&["/".into()], &excluding(&["a{b"])).unwrap_err();
    assert!(error.to_string().contains("a{b"), "{error}");
    let options = WalkOptions { exclude_files: vec!["/no such file".into()], ..Default::default() };
    assert!(Walk::new(&["/".into()], &options).unwrap_err().is_not_found());
}

#[test]
fn what_leads_to_a_root_is_found_once_and_nothing_beside_it() {
    let dir = tempdir().unwrap();
    for path in ["m/one/x", "m/one/y", "m/two/z", "m/beside", "other"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    let below = |roots: &[&str]| {
        let roots: Vec<_> = roots.iter().map(|root| dir.path().join(root)).collect();
        let roots: Vec<_> = roots.iter().map(PathBuf::as_path).collect();
        let found: Vec<_> = walk(&roots, &WalkOptions::default()).into_iter().map(Result::unwrap).collect();
        assert!(found.is_sorted_by(|a, b| a.key < b.key));
        // Everything above the temporary folder leads there, and comes first.
        let prefix = key_of(dir.path());
        let (above, below): (Vec<_>, Vec<_>) = found.iter().partition(|found| prefix.starts_with(&found.key));
        assert_eq!(above.len(), prefix.depth());
        assert!(above.iter().all(|found| found.kind() == EntryKind::Folder));
        below.iter().map(|found| text(&found.key.strip_prefix(&prefix).unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(below(&["m/two", "m/one/y"]), ["m", "m/one", "m/one/y", "m/two", "m/two/z"]);
    let all_of_m = ["m", "m/beside", "m/one", "m/one/x", "m/one/y", "m/two", "m/two/z"];
    assert_eq!(below(&["m/one/x", "m", "m", "m/./two/"]), all_of_m);
    assert_eq!(below(&["m/one", "m/one/x"]), ["m", "m/one", "m/one/x", "m/one/y"]);
}

#[test]
fn relative_roots_start_at_the_working_folder() {
    // Tests run in the folder of the package.
    let names = |root: &str, patterns: &[&str]| {
        let found = walk(&[Path::new(root)], &excluding(patterns)).into_iter().map(Result::unwrap);
        found.map(|found| text(&found.key)).collect::<Vec<_>>()
    };
    let files = ["src", "src/files", "src/files/tests", "src/files/tests/walk.rs"];
    assert_eq!(names("./src/files//tests/walk.rs", &[]), files);
    let found = names(".", &["/*", "!/src", "/src/*", "!/src/files", "/src/files/*.rs", "/src/files/tests/[!w]*"]);
    assert_eq!(found, files);
}

#[test]
fn roots_that_can_not_be_stored_are_refused_before_anything_is_read() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let refused = |roots: &[PathBuf]| Walk::new(roots, &WalkOptions::default()).unwrap_err();
    assert!(refused(&["src/../src".into()]).to_string().contains("use an absolute path"));
    assert!(refused(&[dir.path().into(), dir.path().join("missing")]).is_not_found());
    assert!(matches!(refused(&[dir.path().join("file/")]), Error::File { .. }));
    assert!(matches!(refused(&[]), Error::Invalid { .. }));
    assert!(matches!(refused(&["".into()]), Error::Invalid { .. }));
    // `/` and `.` would both give the top, `/tmp` lies where `.` might have one.
    assert!(matches!(refused(&["/".into(), ".".into()]), Error::Invalid { .. }));
    assert!(matches!(refused(&[".".into(), "/tmp".into()]), Error::Invalid { .. }));
    assert!(matches!(refused(&["/tmp".into(), ".".into()]), Error::Invalid { .. }));
    use crate::error::Error;
}

#[test]
fn symlinks_are_found_not_followed() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/file"), "").unwrap();
    symlink(".", dir.path().join("loop")).unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    symlink("nowhere\u{1F4A5}", dir.path().join("broken")).unwrap();
    let found = found_below(dir.path(), &WalkOptions::default());
    let names: Vec<_> = found.iter().map(|(key, _)| text(key)).collect();
    assert_eq!(names, ["broken", "link", "loop", "real", "real/file"]);
    assert_eq!(found[0].1.read_link().unwrap(), "nowhere\u{1F4A5}".as_bytes());
    assert_eq!(found[1].1.kind(), EntryKind::Symlink);
    // As a root a symlink is itself, unless a slash follows it or something below it is a root.
    let link = dir.path().join("link");
    let kinds = |roots: &[PathBuf]| {
        let found = Walk::new(roots, &WalkOptions::default()).unwrap().map(Result::unwrap);
        found.skip(key_of(dir.path()).depth()).map(|found| (found.kind(), text(&found.key))).collect::<Vec<_>>()
    };
    let last = |kinds: &[(EntryKind, String)]| kinds.last().unwrap().1.ends_with("link/file");
    assert_eq!(kinds(std::slice::from_ref(&link))[0].0, EntryKind::Symlink);
    for roots in [vec![dir.path().join("link/")], vec![link.clone(), link.join("file")], vec![link.join("file")]] {
        let kinds = kinds(&roots);
        assert_eq!((kinds[0].0, kinds.len()), (EntryKind::Folder, 2), "{kinds:?}");
        assert!(last(&kinds));
    }
}

#[test]
fn what_vanishes_is_reported_and_the_walk_goes_on() {
    let dir = tempdir().unwrap();
    for path in ["a", "b", "c/inner", "d"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    let depth = key_of(dir.path()).depth();
    let mut walk = Walk::new(&[dir.path().into()], &WalkOptions::default()).unwrap().skip(depth);
    assert!(walk.next().unwrap().is_ok());
    fs::remove_dir(dir.path().join("b")).unwrap();
    let gone = walk.next().unwrap().unwrap_err();
    assert_eq!(gone.path, dir.path().join("b"));
    assert!(gone.error.is_not_found());
    let folder = walk.next().unwrap().unwrap();
    // Moved, not removed, or the file system might give its number to the new one.
    let elsewhere = tempdir().unwrap();
    fs::rename(dir.path().join("c"), elsewhere.path().join("c")).unwrap();
    fs::create_dir_all(dir.path().join("c/planted")).unwrap();
    let gone = walk.next().unwrap().unwrap_err();
    assert_eq!(gone.path, folder.path());
    assert!(walk.next().unwrap().unwrap().key.as_path_bytes().ends_with(b"/d"));
    assert!(walk.next().is_none());
}

#[test]
fn deep_folders_are_walked_with_few_open_files() {
    let dir = tempdir().unwrap();
    let depth = 600;
    let mut at = dir.path().to_owned();
    for _ in 0..depth {
        at.push("d");
        fs::create_dir(&at).unwrap();
        fs::write(at.with_file_name("z"), "").unwrap(); // met on the way back
    }
    let open_here = || {
        let open = fs::read_dir("/proc/self/fd").into_iter().flatten();
        open.filter(|file| fs::read_link(file.as_ref().unwrap().path()).is_ok_and(|to| to.starts_with(dir.path())))
            .count()
    };
    let prefix = key_of(dir.path());
    let mut found = Vec::new();
    for outcome in Walk::new(&[dir.path().into()], &WalkOptions::default()).unwrap() {
        let outcome = outcome.unwrap();
        let below = outcome.key.strip_prefix(&prefix);
        found.extend(below.map(|key| (key, outcome)));
        assert!(found.len() % 100 != 0 || open_here() < 70, "{} open", open_here());
    }
    assert_eq!(found.len(), 2 * depth);
    assert!(open_here() < 70);
    assert!(found.is_sorted_by(|(a, _), (b, _)| a < b));
    // Reading works from other threads, long after.
    let deepest = found.iter().rev().find(|(key, _)| text(key).ends_with("d/d/z")).unwrap();
    std::thread::scope(|scope| scope.spawn(|| deepest.1.open().unwrap()).join().unwrap());
}

#[test]
fn paths_too_long_for_a_key_are_reported_by_name() {
    let dir = tempdir().unwrap();
    let name = "n".repeat(200);
    let mut folder = rustix::fs::open(dir.path(), super::super::folder::REACH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..600 {
        rustix::fs::mkdirat(&folder, &*name, rustix::fs::Mode::RWXU).unwrap();
        let flags = super::super::folder::REACH;
        folder = rustix::fs::openat(&folder, &*name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    fs::write(dir.path().join("z"), "").unwrap();
    let outcomes = walk(&[dir.path()], &WalkOptions::default());
    let failures: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(failures.len(), 1);
    assert!(failures[0].path.starts_with(dir.path().join(&name)));
    assert_eq!(failures[0].path.file_name().unwrap(), &*name);
    assert!(outcomes.last().unwrap().as_ref().unwrap().key.as_path_bytes().ends_with(b"/z"));
    // The way to remove what no path reaches.
    let destination = super::super::Destination::open(dir.path()).unwrap();
    assert_eq!(destination.remove(&key(&name)).unwrap(), 600);
}

#[test]
fn other_file_systems_can_be_left_out() {
    let options =
        WalkOptions { one_file_system: true, excludes: vec!["/*".into(), "!/dev".into()], ..Default::default() };
    let device = |path: &str| rustix::fs::stat(path).map(|stat| stat.st_dev);
    if device("/dev") == device("/") || device("/dev").is_err() {
        return println!("not tested: nothing is mounted on /dev");
    }
    let names: Vec<_> = walk(&[Path::new("/")], &options).into_iter().map(|found| text(&found.unwrap().key)).collect();
    assert_eq!(names, ["dev"]);
    let options = WalkOptions { one_file_system: false, ..options };
    assert_eq!(Walk::new(&["/".into()], &options).unwrap().take(2).count(), 2);
    // What was asked for by name is there all the same.
    let options = WalkOptions { one_file_system: true, ..options };
    let names: Vec<_> = walk(&[Path::new("/"), Path::new("/dev/null")], &options);
    assert_eq!(names.len(), 2);
}
