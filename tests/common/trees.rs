//! A tree of files with every kind of entry and every trait that a backup must
//! bring back, the same for a seed but for what this machine can't make.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::Random;

/// Fills the empty folder `root`, and says what this machine or user could not make.
pub fn make_tree(root: &Path, seed: u64) -> Vec<String> {
    let mut maker = Maker { root: root.to_owned(), random: Random::new(seed), left_out: Vec::new() };
    maker.regular_files().unwrap();
    maker.odd_names().unwrap();
    maker.folders().unwrap();
    maker.links().unwrap();
    maker.sparse_files().unwrap();
    maker.special_files();
    maker.owners();
    maker.modes().unwrap();
    maker.attributes();
    maker.access_lists();
    stamp(root, &mut maker.random).unwrap();
    maker.left_out
}

struct Maker {
    root: PathBuf,
    random: Random,
    left_out: Vec<String>,
}

impl Maker {
    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root.join(Path::new(name.as_ref()))
    }

    fn file(&self, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap())?;
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Notes that something could not be made here; the rest of the tree is still worth testing.
    fn attempt(&mut self, what: &str, result: rustix::io::Result<()>) {
        if let Err(error) = result {
            self.left_out.push(format!("{what}: {error}"));
        }
    }

    fn regular_files(&mut self) -> io::Result<()> {
        self.file("files/empty", "")?;
        self.file("files/one byte", "x")?;
        self.file("files/small.txt", "a small file\n")?;
        for len in [1023, 1024, 1025, 16 << 10, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 256 << 10] {
            let text = self.random.text(len);
            self.file(format!("files/sizes/{len}"), text)?;
        }
        let text = self.random.text(3_000_000);
        self.file("files/large.c", &text)?;
        self.file("files/large copy.c", &text)?;
        let mut edited = text;
        edited.splice(1_000_000..1_000_000, *b"/* a few words more */");
        self.file("files/large edited.c", edited)?;
        let noise = self.random.bytes(5_000_000);
        self.file("files/photo.jpg", noise)?;
        self.file("files/zeros", vec![0; 1_500_000])?;
        Ok(())
    }

    fn odd_names(&mut self) -> io::Result<()> {
        let long = "n".repeat(255);
        let names: [&[u8]; 22] = [
            b"\xff\xfe not UTF-8",
            b"\x80",
            b"caf\xc3\xa9",
            b"cafe\xcc\x81",
            b"new\nline",
            b"tab\tand\rreturn",
            b"\x01\x1b[31mred",
            b"-rf",
            b"--",
            b"...",
            b"..a",
            b".hidden",
            b" leading and trailing ",
            b"back\\slash",
            b"[a-z]*?.{c,h}",
            b"!not",
            b"#hash",
            b"a:b",
            b"latest@x#1:y",
            b"%2e%2e",
            "\u{1f4be}".as_bytes(),
            long.as_bytes(),
        ];
        for name in names {
            let mut path = b"names/".to_vec();
            path.extend_from_slice(name);
            self.file(OsStr::from_bytes(&path), name)?;
        }
        // As text these sort otherwise than by component.
        for name in ["order/a", "order/a-b", "order/a.b/x", "order/a b", "order/ab/x"] {
            self.file(name, name)?;
        }
        fs::create_dir(self.path("order/b"))?;
        self.file("order/b/x", "")?;
        self.file("order/b!", "")?;
        self.file(OsStr::from_bytes(b"folders/\xf0\x28\x8c\x28/inside"), "in a folder that isn't UTF-8")?;
        Ok(())
    }

    fn folders(&mut self) -> io::Result<()> {
        fs::create_dir_all(self.path("folders/empty"))?;
        let deep = (0..60).map(|level| format!("level {level}")).collect::<Vec<_>>().join("/");
        self.file(format!("folders/{deep}/bottom"), "deep down")?;
        for number in 0..400 {
            self.file(format!("folders/many/{number}"), format!("{number}"))?;
        }
        Ok(())
    }

    fn links(&mut self) -> io::Result<()> {
        fs::create_dir(self.path("links"))?;
        symlink("../files/small.txt", self.path("links/relative"))?;
        symlink("/etc/hostname", self.path("links/absolute"))?;
        symlink("nowhere/at all", self.path("links/dangling"))?;
        symlink("loop", self.path("links/loop"))?;
        symlink("../folders", self.path("links/to a folder"))?;
        symlink("..", self.path("links/up"))?;
        symlink(OsStr::from_bytes(b"\xff\xfe target"), self.path("links/not UTF-8"))?;
        symlink("t/".repeat(2000), self.path("links/long"))?;

        self.file("links/hard/first", "one content, three names")?;
        fs::create_dir(self.path("links/hard/other"))?;
        fs::hard_link(self.path("links/hard/first"), self.path("links/hard/second"))?;
        fs::hard_link(self.path("links/hard/first"), self.path("links/hard/other/third"))?;
        // Equal in everything but identity.
        self.file("links/hard/stranger", "one content, three names")?;
        self.file("links/hard/empty", "")?;
        fs::hard_link(self.path("links/hard/empty"), self.path("links/hard/empty too"))?;
        let large = self.random.bytes(400_000);
        self.file("a large file", large)?;
        fs::hard_link(self.path("a large file"), self.path("links/hard/large"))?;
        fs::hard_link(self.path("links/relative"), self.path("links/hard/symlink"))?;
        Ok(())
    }

    fn sparse_files(&mut self) -> io::Result<()> {
        fs::create_dir(self.path("sparse"))?;
        let all_hole = File::create(self.path("sparse/only a hole"))?;
        all_hole.set_len(20 << 20)?;
        let mut islands = File::create(self.path("sparse/islands"))?;
        for offset in [4 << 20, 9 << 20, (9 << 20) + (256 << 10)] {
            islands.seek(SeekFrom::Start(offset))?;
            islands.write_all(&self.random.text(70_000))?;
        }
        islands.set_len(30 << 20)?;
        let mut begins = File::create(self.path("sparse/begins with data"))?;
        begins.write_all(&self.random.bytes(100_001))?;
        begins.set_len((8 << 20) + 1)?;
        Ok(())
    }

    fn special_files(&mut self) {
        fs::create_dir_all(self.path("special")).unwrap();
        let kinds = [
            ("fifo", FileType::Fifo, 0, 0),
            ("socket", FileType::Socket, 0, 0),
            ("null", FileType::CharacterDevice, 1, 3),
            ("large numbers", FileType::CharacterDevice, 4000, 1_000_000),
            ("disk", FileType::BlockDevice, 7, 200),
        ];
        for (name, kind, major, minor) in kinds {
            let device = rustix::fs::makedev(major, minor);
            let made =
                rustix::fs::mknodat(CWD, self.path("special").join(name), kind, Mode::from_raw_mode(0o640), device);
            self.attempt(name, made);
        }
        if fs::hard_link(self.path("special/fifo"), self.path("special/fifo too")).is_err() {
            self.left_out.push("a hard link to a fifo".to_owned());
        }
    }

    /// Before the modes and attributes: a change of owner clears set-id bits and capabilities.
    fn owners(&mut self) {
        fs::create_dir_all(self.path("owners/folder")).unwrap();
        let owners =
            [("by number", 12_345, 54_321), ("large", 4_000_000_000, 4_000_000_001), ("nobody", 65_534, 65_534)];
        for (name, user, group) in owners {
            let path = self.file(format!("owners/{name}"), name).unwrap();
            let changed = chown(&path, user, group);
            self.attempt(&format!("owner {user}:{group}"), changed);
        }
        symlink("by number", self.path("owners/link")).unwrap();
        for name in ["link", "folder", "set-id"] {
            if name == "set-id" {
                self.file("owners/set-id", "runs as another").unwrap();
            }
            let changed = chown(&self.path("owners").join(name), 12_345, 54_321);
            self.attempt(&format!("owner of the {name}"), changed);
        }
    }

    fn modes(&mut self) -> io::Result<()> {
        for mode in [0o000, 0o400, 0o444, 0o600, 0o640, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777] {
            let path = self.file(format!("modes/{mode:04o}"), format!("{mode:o}"))?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        for mode in [0o500, 0o700, 0o1777, 0o2775] {
            let path = self.path(format!("modes/folder {mode:04o}"));
            fs::create_dir(&path)?;
            fs::write(path.join("inside"), "inside")?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        fs::set_permissions(self.path("owners/set-id"), fs::Permissions::from_mode(0o6755))
    }

    fn attributes(&mut self) {
        let file = self.file("attributes/file", "has attributes").unwrap();
        let folder = self.path("attributes/folder");
        fs::create_dir(&folder).unwrap();
        let link = self.path("attributes/link");
        symlink("file", &link).unwrap();
        let read_only = self.file("attributes/read-only", "has attributes too").unwrap();
        let empty = self.file("attributes/empty file", "").unwrap();

        let large = self.random.bytes(2000);
        let mut set = vec![
            (&file, "user.text", b"some text".to_vec()),
            (&file, "user.empty", Vec::new()),
            (&file, "user.binary", vec![0, 255, 10, 0, 1]),
            (&folder, "user.large", large),
            (&empty, "user.\u{e9}", b"named in UTF-8".to_vec()),
            (&read_only, "user.on read-only", b"yes".to_vec()),
        ];
        // cap_net_bind_service+ep, which a later change of owner or content would clear.
        let capability =
            [0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let privileged = [
            (&file, "trusted.test", b"root's".to_vec()),
            (&link, "trusted.on a link", b"the link's own".to_vec()),
            (&read_only, "security.capability", capability),
        ];
        if rustix::process::geteuid().is_root() {
            set.extend(privileged);
        }
        for (path, name, value) in set {
            let done = rustix::fs::lsetxattr(path, name, &value, XattrFlags::empty());
            self.attempt(name, done);
        }
        fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).unwrap();
    }

    fn access_lists(&mut self) {
        let file = self.file("access/file", "shared with user 1000").unwrap();
        let folder = self.path("access/folder");
        fs::create_dir(&folder).unwrap();
        let list = access_list(&[
            (0x01, 6, NOBODY),
            (0x02, 6, 1000),
            (0x04, 4, NOBODY),
            (0x08, 5, 2000),
            (0x10, 6, NOBODY),
            (0x20, 0, NOBODY),
        ]);
        let done = rustix::fs::lsetxattr(&file, "system.posix_acl_access", &list, XattrFlags::empty());
        self.attempt("access list", done);
        let done = rustix::fs::lsetxattr(&folder, "system.posix_acl_access", &list, XattrFlags::empty());
        self.attempt("access list of a folder", done);
        // Made before the default list, so it has none of its own: a restore must not let it inherit one.
        fs::write(folder.join("before"), "no list").unwrap();
        fs::create_dir(folder.join("inner")).unwrap();
        let done = rustix::fs::lsetxattr(&folder, "system.posix_acl_default", &list, XattrFlags::empty());
        self.attempt("default access list", done);
        fs::write(folder.join("after"), "inherits").unwrap();
    }
}

fn chown(path: &Path, user: u32, group: u32) -> rustix::io::Result<()> {
    rustix::fs::chownat(CWD, path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)
}

/// The id in an entry of an access list that names nobody.
const NOBODY: u32 = u32::MAX;

/// The kernel's form of an access list: version 2, then tag, permissions and id of each entry.
fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// Gives everything under `path` a time of its own, to the nanosecond; children first, so that folders keep theirs.
fn stamp(path: &Path, random: &mut Random) -> io::Result<()> {
    let mut names: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
    names.sort_by_key(|entry| entry.file_name());
    for (number, entry) in names.iter().enumerate() {
        if entry.file_type()?.is_dir() {
            stamp(&entry.path(), random)?;
        }
        let seconds = match number % 11 {
            3 => -86_400 * 365 * 20, // before 1970
            5 => 86_400 * 365 * 80,  // after 2038
            7 => 0,
            _ => 1_000_000_000 + random.below(700_000_000) as i64,
        };
        let time = Timespec { tv_sec: seconds, tv_nsec: random.below(1_000_000_000) as _ };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
