use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::{CWD, FileType, Mode};
use tempfile::tempdir;

use super::super::{Destination, FileTime, Metadata};
use super::*;
use crate::tree::EntryKind;

/// Restores what was found, without content.
fn restore(destination: &Destination, all: &[(Key, Found)]) {
    for (key, found) in all {
        match found.kind() {
            EntryKind::File => drop(destination.create_file(key).unwrap()),
            EntryKind::Folder => assert!(destination.create_folder(key, None).unwrap()),
            EntryKind::Symlink => destination.create_symlink(key, &found.read_link().unwrap()).unwrap(),
            special => destination.create_special(key, special).unwrap(),
        }
    }
    for (key, found) in all.iter().rev() {
        let (metadata, _) = found.metadata(&Owners::default());
        let warnings = destination.set_metadata(key, found.kind(), &metadata).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert!(destination.matches(key, found.kind(), &metadata).unwrap(), "{key:?}");
    }
}

#[test]
fn every_kind_comes_back_with_all_its_metadata() {
    let (source, target) = (tempdir().unwrap(), tempdir().unwrap());
    let at = |name: &str| source.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder/file"), "").unwrap();
    fs::write(at("\u{e9}\n"), "").unwrap();
    fs::write(source.path().join(os(b"\xff")), "").unwrap();
    symlink("../somewhere/else", at("link")).unwrap();
    let special = |name: &str, kind, device| rustix::fs::mknodat(CWD, at(name), kind, Mode::RUSR, device);
    special("fifo", FileType::Fifo, 0).unwrap();
    special("socket", FileType::Socket, 0).unwrap();
    if is_root() {
        special("char", FileType::CharacterDevice, rustix::fs::makedev(1, 3)).unwrap();
        special("block", FileType::BlockDevice, rustix::fs::makedev(700, 70_000)).unwrap();
        for (n, name) in ["folder/file", "link", "fifo", "char", "folder"].iter().enumerate() {
            std::os::unix::fs::lchown(at(name), Some(3_000_000 + n as u32), Some(12345)).unwrap();
        }
        let net_raw = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        set_attribute(&at("folder/file"), "security.capability", &net_raw);
        set_attribute(&at("link"), "trusted.on-a-symlink", b"1");
        set_attribute(&at("fifo"), "trusted.on-a-fifo", b"1");
    }
    set_attribute(&at("folder/file"), "user.zero", b"\0\xff");
    set_attribute(&at("folder/file"), "user.empty", b"");
    set_attribute(&at("folder/file"), "user.large", &[7; 3000]);
    set_attribute(&at("folder"), "user.a", b"1");
    fs::set_permissions(at("folder/file"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::set_permissions(at("\u{e9}\n"), fs::Permissions::from_mode(0o000)).unwrap();
    set_attribute(&at("folder"), "system.posix_acl_default", &access_list());
    set_attribute(&at("folder/file"), "system.posix_acl_access", &access_list());
    fs::set_permissions(at("folder"), fs::Permissions::from_mode(0o1750)).unwrap();
    let mut nanos = 0;
    for (_, found) in found_below(source.path(), &WalkOptions::default()) {
        nanos += 111_111_111;
        let folder = found.folder.handle().unwrap();
        let place = super::super::place::Place::named(&folder, found.key.file_name());
        place.set_modified(FileTime { seconds: 1_000_000_000 - nanos as i64, nanos: nanos % 1_000_000_000 }).unwrap();
    }

    let all = found_below(source.path(), &WalkOptions::default());
    restore(&Destination::open(target.path()).unwrap(), &all);
    let again = found_below(target.path(), &WalkOptions::default());
    assert_eq!(again.len(), all.len());
    for ((old_key, old), (new_key, new)) in all.iter().zip(&again) {
        assert_eq!((old_key, old.kind()), (new_key, new.kind()));
        assert_eq!(lasting(old), lasting(new), "{old_key:?}");
        if old.kind() == EntryKind::Symlink {
            assert_eq!(old.read_link().unwrap(), new.read_link().unwrap());
        }
    }
}

#[test]
fn overwriting_takes_away_what_the_snapshot_lacks() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("parent")).unwrap();
    let inherits = set_attribute(&dir.path().join("parent"), "system.posix_acl_default", &access_list());
    let destination = Destination::open(dir.path()).unwrap();
    let file = destination.create_file(&key("parent/file")).unwrap();
    let path = dir.path().join("parent/file");
    assert_eq!(file.path(), path);
    set_attribute(&path, "user.old", b"1");
    set_attribute(&path, "user.kept", b"old");
    let list = |path: &Path| {
        let found = walk(&[path], &WalkOptions::default()).pop().unwrap().unwrap();
        found.metadata(&Owners::default()).0.posix.unwrap().extended
    };
    assert!(!inherits || list(&path).iter().any(|(name, _)| name == b"system.posix_acl_access"));
    let mut metadata = walk(&[&path], &WalkOptions::default()).pop().unwrap().unwrap().metadata(&Owners::default()).0;
    let posix = metadata.posix.as_mut().unwrap();
    posix.mode = 0o644;
    posix.extended.retain_mut(|(name, value)| {
        *value = b"new".to_vec();
        name == b"user.kept"
    });
    let wanted = posix.extended.clone();
    assert!(!destination.matches(&key("parent/file"), EntryKind::File, &metadata).unwrap());
    assert!(file.set_metadata(&metadata).unwrap().is_empty());
    assert!(destination.matches(&key("parent/file"), EntryKind::File, &metadata).unwrap());
    assert_eq!(list(&path), wanted);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    // A record that never was a file asks for nothing.
    let record = Metadata::default();
    assert!(destination.set_metadata(&key("parent/file"), EntryKind::File, &record).unwrap().is_empty());
    assert!(destination.matches(&key("parent/file"), EntryKind::File, &record).unwrap());
    assert!(!destination.matches(&key("parent/file"), EntryKind::Fifo, &record).unwrap());
    assert!(destination.set_metadata(&key("parent/file"), EntryKind::Folder, &metadata).is_err());
}

#[test]
fn nothing_leaves_through_a_symlink() {
    let dir = tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "safe").unwrap();
    let destination = Destination::create(&root).unwrap();
    symlink(&outside, root.join("link")).unwrap();
    symlink(outside.join("victim"), root.join("file")).unwrap();
    let metadata = walk(&[&outside.join("victim")], &WalkOptions::default()).pop().unwrap().unwrap();
    let (mut metadata, _) = metadata.metadata(&Owners::default());
    metadata.posix.as_mut().unwrap().mode = 0o7777;
    metadata.posix.as_mut().unwrap().extended = vec![(b"user.planted".to_vec(), vec![])];

    for below in ["link/x", "link/victim", "link/deep/er"].map(key) {
        assert!(destination.create_file(&below).is_err());
        assert!(destination.update_file(&below, &Metadata::default()).is_err());
        assert!(destination.open_file(&below).is_err());
        assert!(destination.create_folder(&below, None).is_err());
        assert!(folders_above(&destination, &key("link/deep/er")).is_err());
        assert!(destination.create_symlink(&below, b"/").is_err());
        assert!(destination.create_special(&below, EntryKind::Fifo).is_err());
        assert!(destination.hard_link(&below, &key("stolen")).is_err());
        assert!(destination.hard_link(&key("file"), &below).is_err());
        assert!(destination.remove(&below).is_err());
        assert!(destination.set_metadata(&below, EntryKind::File, &metadata).is_err());
        assert!(destination.inspect(&below).is_err());
        assert_eq!(destination.blocked_by(&below).unwrap(), Some(key("link")));
    }
    assert!(destination.list(Some(&key("link"))).is_err());
    assert!(destination.create_folder(&key("link"), None).is_err());
    for file in ["file"].map(key) {
        assert!(destination.open_file(&file).is_err());
        assert!(destination.update_file(&file, &Metadata::default()).is_err());
        assert!(destination.create_file(&file).is_err());
        assert!(destination.set_metadata(&file, EntryKind::File, &metadata).is_err());
        destination.set_metadata(&file, EntryKind::Symlink, &metadata).unwrap();
        assert_eq!(destination.inspect(&file).unwrap().unwrap().kind, EntryKind::Symlink);
    }
    let victim = fs::metadata(outside.join("victim")).unwrap();
    assert_ne!(victim.mode() & 0o7777, 0o7777);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"safe");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(
        walk(&[&outside.join("victim")], &WalkOptions::default())
            .pop()
            .unwrap()
            .is_ok_and(|f| lasting(&f).extended.is_empty())
    );
    // A folder that was open when a symlink took its place isn't believed to be there.
    destination.create_folder(&key("folder"), None).unwrap();
    destination.create_file(&key("folder/file")).unwrap();
    assert_eq!(destination.remove(&key("folder")).unwrap(), 2);
    destination.create_symlink(&key("folder"), outside.as_os_str().as_encoded_bytes()).unwrap();
    assert!(destination.create_file(&key("folder/file")).is_err());
    assert_eq!(destination.read_link(&key("folder")).unwrap(), outside.as_os_str().as_encoded_bytes());
}

#[test]
fn removal_takes_everything_and_follows_nothing() {
    let dir = tempdir().unwrap();
    let root = dir.path().join("root");
    let keep = dir.path().join("keep");
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(&keep).unwrap();
    fs::write(keep.join("file"), "").unwrap();
    symlink(&keep, root.join("a/b/link")).unwrap();
    for n in 0..100 {
        fs::create_dir(root.join(format!("a/b/{n}"))).unwrap();
        fs::write(root.join(format!("a/b/{n}/f")), "").unwrap();
    }
    fs::set_permissions(root.join("a/b/c"), fs::Permissions::from_mode(0o000)).unwrap();
    let destination = Destination::open(&root).unwrap();
    assert_eq!(destination.list(None).unwrap(), [b"a"]);
    assert_eq!(destination.list(Some(&key("a/b"))).unwrap().len(), 102);
    assert_eq!(destination.remove(&key("a")).unwrap(), 204);
    assert_eq!(destination.remove(&key("a")).unwrap(), 0);
    // Folders that were open before are not mistaken for those that take their place.
    for _ in 0..2 {
        folders_above(&destination, &key("a/b/file")).unwrap();
        destination.create_file(&key("a/b/file")).unwrap();
        assert!(root.join("a/b/file").exists());
        assert_eq!(destination.remove(&key("a")).unwrap(), 3);
    }
    assert_eq!(destination.remove(&key("a/b")).unwrap(), 0);
    assert!(destination.inspect(&key("a/b")).unwrap().is_none());
    assert!(keep.join("file").exists());
}

#[test]
fn files_are_written_in_place_unless_they_have_other_names() {
    let dir = tempdir().unwrap();
    let destination = Destination::create(&dir.path().join("not/yet/there")).unwrap();
    let (file, other) = (key("folder/file"), key("folder/other"));
    folders_above(&destination, &file).unwrap();
    let new = destination.create_file(&file).unwrap();
    assert!(new.is_new());
    new.write_at(100_000, b"end").unwrap();
    new.zero(0, 100_000).unwrap();
    new.set_len(200_000).unwrap();
    let mut buffer = [1; 8];
    assert_eq!(new.read_at(99_998, &mut buffer).unwrap(), 8);
    assert_eq!(&buffer, b"\0\0end\0\0\0");
    assert_eq!(new.read_at(199_999, &mut buffer).unwrap(), 1);
    assert!(new.stat().unwrap().may_have_holes());
    assert!(destination.create_file(&file).is_err(), "it is there");

    let same = destination.update_file(&file, &Metadata::default()).unwrap();
    assert!(!same.is_new());
    same.write_at(0, &[9; 200_000]).unwrap();
    same.zero(4096, 100_000).unwrap();
    same.zero(190_000, u64::MAX).unwrap();
    assert_eq!(same.stat().unwrap().size, 200_000, "zeros lengthen nothing");
    assert_eq!(new.read_at(4092, &mut buffer).unwrap(), 8);
    assert_eq!(buffer, [9, 9, 9, 9, 0, 0, 0, 0]);
    assert_eq!(new.read_at(189_996, &mut buffer).unwrap(), 8);
    assert_eq!(buffer, [9, 9, 9, 9, 0, 0, 0, 0]);

    destination.hard_link(&file, &other).unwrap();
    assert!(destination.inspect(&file).unwrap().unwrap().is_same_file(&destination.inspect(&other).unwrap().unwrap()));
    let replaced = destination.update_file(&file, &Metadata::default()).unwrap();
    assert!(replaced.is_new());
    replaced.write_at(0, b"new").unwrap();
    let untouched = destination.open_file(&other).unwrap();
    assert_eq!(untouched.stat().unwrap().size, 200_000);
    assert!(untouched.write_at(0, b"x").is_err(), "opened to compare");
    destination.sync().unwrap();
}

#[test]
fn hard_links_carry_one_group() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("a"), "").unwrap();
    fs::write(dir.path().join("single"), "").unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::hard_link(dir.path().join("a"), dir.path().join("sub/b")).unwrap();
    let found = found_below(dir.path(), &WalkOptions::default());
    let links: Vec<_> = found.iter().map(|(_, f)| f.metadata(&Owners::default()).0.posix.unwrap().links).collect();
    assert!(links[0].is_some());
    assert_eq!(links, [links[0], None, None, links[0]]);
}

#[test]
fn long_paths_and_many_folders_are_reached() {
    let dir = tempdir().unwrap();
    let destination = Destination::open(dir.path()).unwrap();
    let deep = Key::new(std::iter::repeat_n("n".repeat(200), 20)).unwrap();
    folders_above(&destination, &deep).unwrap();
    destination.create_file(&deep).unwrap();
    assert!(destination.inspect(&deep).unwrap().is_some());
    let folders: Vec<Key> = (0..300).map(|n| key(&format!("f{n}"))).collect();
    for _ in 0..2 {
        for folder in &folders {
            destination.create_folder(folder, None).unwrap();
            destination.create_folder(&folder.join("x").unwrap(), None).unwrap();
        }
    }
    assert_eq!(destination.list(None).unwrap().len(), 301);
    assert_eq!(destination.remove(&key(&"n".repeat(200))).unwrap(), 20);
}

/// Makes the folders on the way to `key`.
fn folders_above(destination: &Destination, key: &Key) -> crate::error::Result<()> {
    let mut above: Vec<Key> = std::iter::successors(key.parent(), Key::parent).collect();
    above.reverse();
    above.iter().try_for_each(|folder| destination.create_folder(folder, None).map(drop))
}
