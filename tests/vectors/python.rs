//! Runs the second reader, docs/reader.py.
//!
//! It takes Python and four packages. Where they aren't there they are fetched into the target folder; where that can't be done
//! either, CI fails, and elsewhere the tests say so and are left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use backstop::{BackupOptions, CreateOptions, NoProgress, Repository, Secret};

const PACKAGES: &str = "import argon2, blake3, cryptography, zstandard";

fn python(arguments: &[&str], packages: &Path) -> Output {
    let command = Command::new("python3")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(arguments)
        .output();
    command.unwrap_or_else(|error| {
        let (status, stderr) = (std::os::unix::process::ExitStatusExt::from_raw(127 << 8), error.to_string());
        Output { status, stdout: Vec::new(), stderr: stderr.into_bytes() }
    })
}

/// Where the packages are, or None if they can't be had.
fn packages() -> Option<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        if python(&["-c", PACKAGES], &folder).status.success() {
            return Ok(folder);
        }
        let to = folder.to_str().unwrap();
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target", to];
        let fetched = python(&[&install[..], &["-r", "tests/vectors/requirements.txt"]].concat(), &folder);
        let works = python(&["-c", PACKAGES], &folder);
        if works.status.success() {
            return Ok(folder);
        }
        let said = [fetched.stderr, works.stderr].concat();
        Err(String::from_utf8_lossy(&said).into_owned())
    });
    match found {
        Ok(folder) => Some(folder.clone()),
        Err(why) if std::env::var_os("CI").is_some() => panic!("the second reader can't be run:\n{why}"),
        Err(why) => {
            eprintln!("left out, since the second reader can't be run here:\n{why}");
            None
        }
    }
}

/// Runs a script that must succeed and say that it ran so many vectors.
pub(crate) fn run(arguments: &[&str], count: usize) {
    let Some(packages) = packages() else { return };
    let output = python(arguments, &packages);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with(&format!("{count} vectors\n")), "{said}");
}

/// The status, and what was printed.
fn reader(packages: &Path, repository: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let repository = repository.to_str().unwrap();
    let secret = format!("key:{repository}/../key");
    let output = python(&[&["docs/reader.py", repository, &secret], arguments].concat(), packages);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Backs up a folder several times, and restores it with the second reader; then beside garbage.
pub(crate) async fn reads_what_the_library_writes() {
    let Some(packages) = packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("source/deep/er")).unwrap();
    fs::write(at("source/deep/er/noise"), super::forge::noise("a large file", 3_000_000)).unwrap();
    fs::write(at("source/text"), "the same again and again\n".repeat(60_000)).unwrap();
    fs::write(at("source/empty"), "").unwrap();
    fs::hard_link(at("source/text"), at("source/deep/same text")).unwrap();
    std::os::unix::fs::symlink("deep/er", at("source/link")).unwrap();
    fs::write(at("key"), [7; 32]).unwrap();
    let secret = Secret::key([7; 32]);
    let created = Repository::create(at("repository").to_str().unwrap(), &secret, CreateOptions::default()).await;
    let repository = created.unwrap();
    for round in 1..=3 {
        fs::write(at("source/deep/round"), format!("{round}")).unwrap();
        let options = BackupOptions::default().with_series("home");
        let report = repository.backup(&[at("source")], &options, Arc::new(NoProgress)).await.unwrap();
        assert_eq!(report.snapshot.unwrap().number, round);
    }
    let stored = at("repository");
    let (status, listed) = reader(&packages, &stored, &["snapshots"]);
    assert!(status == Some(0) && listed.lines().count() == 3, "{listed}");
    let (status, verified) = reader(&packages, &stored, &["verify"]);
    assert!(status == Some(0) && verified.is_empty(), "{verified}");
    let to = at("restored");
    let (status, said) = reader(&packages, &stored, &["extract", "home", "latest", to.to_str().unwrap()]);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    // What is backed up by an absolute path is stored under it.
    let restored = to.join(at("source").strip_prefix("/").unwrap());
    for name in ["deep/er/noise", "text", "empty", "deep/same text", "deep/round"] {
        assert!(fs::read(restored.join(name)).unwrap() == fs::read(at("source").join(name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_link(restored.join("link")).unwrap(), Path::new("deep/er"));
    for (which, round) in [("2", "2"), ("latest", "3")] {
        let (status, listed) = reader(&packages, &stored, &["ls", "home", which]);
        assert!(status == Some(0) && listed.lines().count() >= 8 && listed.contains("deep/round"), "{round}: {listed}");
    }
    let (status, said) = reader(&packages, &stored, &["ls", "home", "@5"]);
    assert!(status == Some(1) && said.contains("missing"), "{said}");
    // The next number is taken by garbage: the reader goes around it, and says so.
    let newest = find(&stored.join("commits"), "000000000000003");
    fs::write(newest.with_file_name("000000000000004"), "garbage").unwrap();
    let (status, said) = reader(&packages, &stored, &["ls", "home", "latest"]);
    assert!(status == Some(3) && said.contains("000000000000004 is put aside"), "{said}");
    let (status, said) = reader(&packages, &stored, &["ls", "home", "4"]);
    assert!(status == Some(1) && said.contains("damaged"), "{said}");
}

/// The file of this name somewhere below a folder.
fn find(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    if path.is_file() {
        return path;
    }
    let below = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    find(&below.unwrap(), name)
}
