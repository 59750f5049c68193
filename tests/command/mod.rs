//! What tests of the `backstop` example share: the binary, a place to run it in, and its answers.

#![allow(dead_code, unreachable_pub, reason = "each test target uses its own part of this")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The example, built as this test was, and up to date also where this test alone is run.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().and_then(Path::parent).unwrap();
        if let Some(cargo) = std::env::var_os("CARGO") {
            let target = folder.parent().unwrap();
            // A profile's folder has its name, but for those that share "debug".
            let profile = folder.file_name().filter(|name| *name != "debug").unwrap_or("test".as_ref());
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--example", "backstop"]);
            build.arg("--profile").arg(profile).arg("--target-dir").arg(target);
            let features = [
                ("aws", cfg!(feature = "aws")),
                ("gcp", cfg!(feature = "gcp")),
                ("azure", cfg!(feature = "azure")),
                ("bench", cfg!(feature = "bench")),
            ];
            for (feature, _) in features.iter().filter(|(_, on)| *on) {
                build.args(["--features", feature]);
            }
            assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        }
        folder.join("examples/backstop")
    })
}

/// A repository, its key and a tree, in a folder that goes away.
pub struct Setting {
    folder: TempDir,
}

impl Setting {
    /// Without a repository.
    pub fn new() -> Self {
        let setting = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(setting.path("key"), [7; 32]).unwrap();
        fs::set_permissions(setting.path("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let source = setting.path("source");
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("a"), "hello\n").unwrap();
        fs::write(source.join("sub/b"), "world\n").unwrap();
        fs::write(source.join("sub/big"), (0..300_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).unwrap();
        symlink("a", source.join("link")).unwrap();
        setting
    }

    /// With a repository in place.
    pub fn created() -> Self {
        let setting = Self::new();
        setting.succeed(&["init"]);
        setting
    }

    /// Where something in the folder is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Runs in the folder, with the key and the repository given by the environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).env_remove("BACKSTOP_PASSPHRASE");
        command.env("BACKSTOP_REPOSITORY", self.path("repository")).env("BACKSTOP_KEY_FILE", self.path("key"));
        command.env("XDG_CACHE_HOME", self.path("cache")).env("TZ", "UTC");
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that must end with 0 writes to standard output.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        expect(&self.run(arguments), 0).0
    }

    /// Backs the tree up once it has settled: what was just written isn't relied on, and would differ in the next backup.
    pub fn back_up(&self) {
        std::thread::sleep(std::time::Duration::from_millis(25));
        self.succeed(&["backup", "source"]);
    }

    /// What a command that must fail writes to standard error.
    pub fn fail(&self, arguments: &[&str], status: i32) -> String {
        expect(&self.run(arguments), status).1
    }

    /// The objects that a command prints.
    pub fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        objects(&self.succeed(&[&["--json"], arguments].concat()))
    }
}

/// Standard output and standard error of a command that must end with `status`.
pub fn expect(output: &Output, status: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "stdout: {out}\nstderr: {err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

/// JSON objects, one a line.
pub fn objects(lines: &str) -> Vec<Value> {
    let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(objects.iter().all(|object| object["type"].is_string()), "{objects:?}");
    objects
}

/// Those of one type.
pub fn of_type<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["type"] == kind).collect()
}

/// A file's text.
pub fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// Every file under a folder with its bytes.
pub fn dump(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut folders, mut files) = (vec![folder.to_owned()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(files.insert(path.clone(), fs::read(path).unwrap())),
            }
        }
    }
    files
}
