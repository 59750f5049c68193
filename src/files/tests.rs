//! Tests on real folders, and what they share.

mod destination;
mod source;
mod walk;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Found, Owners, Posix, Unreadable, Walk, WalkOptions};
use crate::tree::Key;

/// What a walk yields of `roots`, each of which must be planned without error.
fn walk(roots: &[&Path], options: &WalkOptions) -> Vec<Result<Found, Unreadable>> {
    let roots: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
    Walk::new(&roots, options).unwrap().collect()
}

/// What a walk finds below `root`, with keys relative to it.
fn found_below(root: &Path, options: &WalkOptions) -> Vec<(Key, Found)> {
    let prefix = key_of(root);
    let all = walk(&[root], options).into_iter().map(Result::unwrap);
    all.filter_map(|found| Some((found.key.strip_prefix(&prefix)?, found))).collect()
}

/// The same, keys as text.
fn names_below(root: &Path, options: &WalkOptions) -> Vec<String> {
    found_below(root, options).iter().map(|(key, _)| text(key)).collect()
}

/// The key under which an absolute path is stored.
fn key_of(path: &Path) -> Key {
    Key::from_path(path.strip_prefix("/").unwrap().as_os_str().as_bytes()).unwrap()
}

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

fn text(key: &Key) -> String {
    String::from_utf8_lossy(&key.as_path_bytes()).into_owned()
}

/// What must survive a restore: all but what the system alone decides.
fn lasting(found: &Found) -> Posix {
    let (metadata, warnings) = found.metadata(&Owners::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    let posix = metadata.posix.unwrap();
    Posix { changed: Default::default(), inode: 0, links: None, ..posix }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) -> bool {
    let outcome = rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty());
    if let Err(error) = outcome {
        println!("not tested: {name} can't be set on {}: {error}", path.display());
    }
    outcome.is_ok()
}

/// An access control list as the system stores it: user 1234 may read and write, the mask lets that through.
fn access_list() -> Vec<u8> {
    let mut list = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [(1u16, 6u16, !0u32), (2, 6, 1234), (4, 4, !0), (16, 6, !0), (32, 4, !0)] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

#[test]
fn what_threads_share_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<(Walk, Found, super::FileSource, super::Destination, super::RestoredFile, Owners)>();
}
