//! Two trees compared in content and in all metadata that a backup keeps.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Space that a file may take beyond the original's before it counts as less sparse.
const SPARSE_SLACK: u64 = 256 << 10;

/// Where what lies under `b` differs from what lies under `a`, one line for each difference.
///
/// The two folders themselves are not compared, nor are times of access and change, nor what the file system decides (inode
/// numbers, the size of a folder).
pub fn compare_trees(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (describe_tree(a), describe_tree(b));
    let mut differences = Vec::new();
    for (path, before) in &a {
        match b.get(path) {
            None => differences.push(format!("{}: is missing", path.display())),
            Some(after) => {
                let changed = before.differences(after);
                differences.extend(changed.into_iter().map(|change| format!("{}: {change}", path.display())));
            }
        }
    }
    differences
        .extend(b.keys().filter(|path| !a.contains_key(*path)).map(|path| format!("{}: is new", path.display())));
    differences
}

/// All that is compared of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    fields: BTreeMap<String, String>,
    /// Length and space taken.
    space: Option<(u64, u64)>,
}

impl Description {
    fn differences(&self, other: &Description) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.fields.keys().chain(other.fields.keys()).collect();
        let absent = "nothing".to_owned();
        let mut differences = Vec::new();
        for name in names {
            let (before, after) = (self.fields.get(name).unwrap_or(&absent), other.fields.get(name).unwrap_or(&absent));
            if before != after {
                differences.push(format!("{name} was {before}, is {after}"));
            }
        }
        if let (Some((len, taken)), Some((_, takes))) = (self.space, other.space)
            && taken + SPARSE_SLACK < len
            && takes > taken + SPARSE_SLACK
        {
            differences.push(format!("took {taken} bytes of space, takes {takes}"));
        }
        differences
    }
}

/// Describes everything under `root` by its path from there.
pub fn describe_tree(root: &Path) -> BTreeMap<PathBuf, Description> {
    let mut found = BTreeMap::new();
    walk(root, Path::new(""), &mut found).unwrap();
    // A name that shares its file with others is described by the first of them.
    let mut first = BTreeMap::new();
    for (path, metadata) in &found {
        first.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.clone());
    }
    let describe = |(path, metadata): (PathBuf, Metadata)| {
        let mut description = describe(&root.join(&path), &metadata).unwrap();
        if !metadata.is_dir() {
            let same = &first[&(metadata.dev(), metadata.ino())];
            description.fields.insert("hard link".to_owned(), format!("{:?}", same));
        }
        (path, description)
    };
    found.into_iter().map(describe).collect()
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Metadata>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        let metadata = fs::symlink_metadata(root.join(&path))?;
        if metadata.is_dir() {
            walk(root, &path, found)?;
        }
        found.insert(path, metadata);
    }
    Ok(())
}

fn describe(path: &Path, metadata: &Metadata) -> io::Result<Description> {
    let mut fields = BTreeMap::new();
    let mut set = |name: &str, value: String| fields.insert(name.to_owned(), value);
    let kind = metadata.file_type();
    let mut space = None;
    if kind.is_file() {
        set("kind", "file".to_owned());
        set("length", metadata.len().to_string());
        set("content", hash(path)?);
        space = Some((metadata.len(), metadata.blocks() * 512));
    } else if kind.is_dir() {
        set("kind", "folder".to_owned());
    } else if kind.is_symlink() {
        set("kind", "symlink".to_owned());
        set("target", fs::read_link(path)?.into_os_string().into_vec().escape_ascii().to_string());
    } else if kind.is_fifo() {
        set("kind", "fifo".to_owned());
    } else if kind.is_socket() {
        set("kind", "socket".to_owned());
    } else {
        set("kind", if kind.is_block_device() { "block device" } else { "character device" }.to_owned());
        set("device", format!("{}:{}", rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())));
    }
    if !kind.is_symlink() {
        set("mode", format!("{:04o}", metadata.mode() & 0o7777));
    }
    set("owner", format!("{}:{}", metadata.uid(), metadata.gid()));
    set("modified", format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()));
    for (name, value) in attributes(path)? {
        set(&format!("attribute {}", name.escape_ascii()), value.escape_ascii().to_string());
    }
    Ok(Description { fields, space })
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            len => hasher.update(&buffer[..len]),
        };
    }
}

/// Extended attributes of the entry itself, access lists among them; none where the file system has none.
fn attributes(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; 64 << 10];
    let len = match rustix::fs::llistxattr(path, list.as_mut_slice()) {
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut attributes = BTreeMap::new();
    for name in list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), value.as_mut_slice())?;
        value.truncate(len);
        attributes.insert(name.to_vec(), value);
    }
    Ok(attributes)
}
