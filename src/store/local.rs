//! Listings of a local store.
//!
//! The client's own end at the first name that it can't express, so one file
//! with a control character in its name would hide whatever comes after it.
//! Here such names are passed over with a warning: no object of a repository
//! has one. So are folders deeper than any name, and symlinks to a folder that
//! another led to before, so that loops have an end. A folder that can't be read is an error: what is in it must not be taken for
//! missing.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::cpu;
use crate::error::{Error, Result};
use crate::store::{Listed, store_error, temporary::is_temporary};

/// No object lies deeper below a prefix.
const DEPTH_MAX: usize = 8;

/// Every object under `prefix`.
pub(super) async fn list(folder: &Path, prefix: &str) -> Result<Vec<Listed>> {
    let (path, prefix) = (folder.join(prefix), prefix.to_owned());
    cpu::block(move || {
        let (mut found, mut linked) = (Vec::new(), HashSet::new());
        let mut open = vec![(path, prefix, 0)];
        while let Some((path, name, depth)) = open.pop() {
            for Child { path, name, length, link } in children(&path, &name)? {
                match length {
                    Some(length) => found.push(Listed { name, length }),
                    None if depth < DEPTH_MAX && link.is_none_or(|target| linked.insert(target)) => {
                        open.push((path, name, depth + 1));
                    }
                    None => tracing::warn!(?path, "a folder that can hold no objects of its own is passed over"),
                }
            }
        }
        Ok(found)
    })
    .await
}

/// The folders directly under `prefix`.
pub(super) async fn list_folders(folder: &Path, prefix: &str) -> Result<Vec<String>> {
    let (path, prefix) = (folder.join(prefix), prefix.to_owned());
    let children = cpu::block(move || children(&path, &prefix)).await?;
    Ok(children.into_iter().filter(|child| child.length.is_none()).map(|child| child.name).collect())
}

/// Fails unless one of these is in the store's folder.
pub(super) async fn require(folder: &Path, one_of: &'static [&'static str]) -> Result<()> {
    let folder = folder.to_owned();
    cpu::block(move || {
        for name in one_of {
            match folder.join(name).try_exists() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(failure("look up", name, error)),
            }
        }
        let gone = format!("{} has gone, or something else is in its place: is it mounted?", folder.display());
        Err(failure("look up", one_of[0], std::io::Error::other(gone)))
    })
    .await
}

/// A file or folder whose name an object could have.
struct Child {
    path: PathBuf,
    /// From the root of the store.
    name: String,
    /// Only files have one.
    length: Option<u64>,
    /// Which folder it is, by the numbers of the file system and the folder, if it is a symlink to one.
    link: Option<(u64, u64)>,
}

/// What is in a folder, symlinks followed; nothing if there is none.
fn children(folder: &Path, name: &str) -> Result<Vec<Child>> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failure("list", name, error)),
    };
    let mut children = Vec::new();
    for entry in listing {
        let path = entry.map_err(|error| failure("list", name, error))?.path();
        let Some(last) = path.file_name().and_then(|last| last.to_str()).filter(|last| is_possible(last)) else {
            tracing::warn!(?path, "a name that no object can have is passed over");
            continue;
        };
        if is_temporary(last) {
            continue;
        }
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            // Deleted meanwhile, or a symlink to nothing or to itself.
            Err(error) if is_gone(&error) || Errno::from_io_error(&error) == Some(Errno::LOOP) => continue,
            Err(error) => return Err(failure("look up", &format!("{name}/{last}"), error)),
        };
        let length = metadata.is_file().then_some(metadata.len());
        if length.is_some() || metadata.is_dir() {
            let name = format!("{name}/{last}");
            let link = (metadata.is_dir() && path.is_symlink()).then(|| (metadata.dev(), metadata.ino()));
            children.push(Child { path, name, length, link });
        }
    }
    Ok(children)
}

/// What the client would have said, so that callers tell a failure of the store that may pass from others.
fn failure(operation: &'static str, name: &str, error: std::io::Error) -> Error {
    store_error(operation, name, object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(error) })
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Whether an object's name can have this part.
fn is_possible(part: &str) -> bool {
    !part.chars().any(|c| c.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::{Intent, Location, Store};

    #[tokio::test]
    async fn a_client_that_stops_at_an_impossible_name_is_told_of_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("gc")).unwrap();
        fs::write(dir.path().join("gc/a\u{1}"), "").unwrap();
        fs::write(dir.path().join("config"), "").unwrap();
        let client = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let client: std::sync::Arc<dyn object_store::ObjectStore> = std::sync::Arc::new(client);
        let error = Store::connect(&Location::from(client), Intent::Open).unwrap().list("gc").await.unwrap_err();
        assert!(error.to_string().contains("delete it with the store's own tools"), "{error}");
        let own = Store::connect(&Location::from(dir.path()), Intent::Open).unwrap();
        assert!(own.list("gc").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_listed_is_a_failure_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let error = list(dir.path(), &"x".repeat(300)).await.unwrap_err();
        assert!(matches!(error, Error::Store { operation: "list", .. }) && error.is_retryable(), "{error:?}");
    }

    #[tokio::test]
    async fn what_is_there_is_listed_and_what_no_object_can_be_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("packs/ab")).unwrap();
        fs::create_dir_all(root.join("elsewhere")).unwrap();
        for (name, content) in
            [("packs/ab/one", "1"), ("packs/two", "22"), ("packs/three#1", ""), ("elsewhere/x", "333")]
        {
            fs::write(root.join(name), content).unwrap();
        }
        fs::write(root.join("packs/a\nb"), "").unwrap();
        fs::write(root.join("packs").join(OsStr::from_bytes(b"\xff")), "").unwrap();
        fs::create_dir(root.join("packs/c\u{1}d")).unwrap();
        symlink("../elsewhere", root.join("packs/linked")).unwrap();
        symlink("nowhere", root.join("packs/broken")).unwrap();
        symlink("self", root.join("packs/self")).unwrap();
        for number in 0..50 {
            symlink("..", root.join(format!("packs/ab/loop{number}"))).unwrap();
        }

        let mut found = list(root, "packs").await.unwrap();
        found.retain(|listed| !listed.name.contains("loop"));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<_> = found.iter().map(|listed| (listed.name.as_str(), listed.length)).collect();
        assert_eq!(found, [("packs/ab/one", 1), ("packs/linked/x", 3), ("packs/two", 2)]);
        let mut folders = list_folders(root, "packs").await.unwrap();
        folders.sort();
        assert_eq!(folders, ["packs/ab", "packs/linked"]);
        assert!(list(root, "not/there").await.unwrap().is_empty());
        assert!(list_folders(root, "not/there").await.unwrap().is_empty());
    }
}
