//! What no backup makes: entries that lead out of the destination, or below what isn't a folder.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::arrange::{Arranger, Selection};
use super::compare::compare;
use super::entries::{Content, Item, Listed};
use super::file::{Chunk, FileJob};
use super::session::Session;
use super::{RestoreOptions, links};
use crate::clock::Surroundings;
use crate::crypto::Keyring;
use crate::files::{Destination, LinkGroup, Metadata, Posix};
use crate::progress::NoProgress;
use crate::tree::{EntryKind, Key, Piece};

fn entry(path: &str, kind: EntryKind, content: &str) -> Item {
    Item::Entry(Box::new(Listed {
        name: Key::from_path(path).unwrap(),
        kind,
        size: content.len() as u64,
        content: Content::Bytes(Bytes::copy_from_slice(content.as_bytes())),
        metadata: Ok(Metadata::default()),
    }))
}

/// Restores items that need no chunks, and tells what failed.
fn restore(to: &Path, items: Vec<Item>) -> Vec<String> {
    let keyring = Arc::new(Keyring::generate(&Surroundings::default()));
    let destination = Destination::create(to).unwrap();
    let options = RestoreOptions::default().with_delete(true);
    let session = Arc::new(Session::new(Some(destination), &keyring, &options, Arc::new(NoProgress)));
    let mut arranger = Arranger::new(&session, Selection::All).unwrap();
    let mut arranged = arranger.arrange(items).unwrap();
    arranger.finish(&mut arranged);
    for wish in compare(&session, arranged.works).unwrap() {
        wish.file.all_planned(&session);
    }
    links::link(&session, arranged.links).unwrap();
    links::complete(&session, arranged.complete).unwrap();
    session.take_failures().0.into_iter().map(|failure| failure.path).collect()
}

#[test]
fn nothing_goes_below_what_is_not_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (target, outside) = (dir.path().join("target"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    let link = outside.to_str().unwrap();
    let items = || {
        vec![
            entry("a", EntryKind::Symlink, link),
            entry("a/planted", EntryKind::File, "x"),
            entry("a/sub", EntryKind::Folder, ""),
            entry("a/sub/planted", EntryKind::File, "x"),
            entry("b", EntryKind::File, "file"),
            entry("b/below", EntryKind::Folder, ""),
            entry("c/d/e", EntryKind::File, "folders above it are made"),
            entry("f", EntryKind::Fifo, ""),
            entry("f/below", EntryKind::Symlink, link),
            entry("fine", EntryKind::File, "fine"),
        ]
    };
    for _ in 0..2 {
        let failed = restore(&target, items());
        assert_eq!(failed, ["a/planted", "a/sub", "a/sub/planted", "b/below", "f/below"]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_link(target.join("a")).unwrap(), outside);
        assert_eq!(fs::read(target.join("fine")).unwrap(), b"fine");
        assert_eq!(fs::read(target.join("c/d/e")).unwrap(), b"folders above it are made");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 5);
    }
}

#[test]
fn sizes_that_can_not_be_fail_alone() {
    let dir = tempfile::tempdir().unwrap();
    let hole = |path: &str, length: u64| {
        Item::Entry(Box::new(Listed {
            name: Key::from_path(path).unwrap(),
            kind: EntryKind::File,
            size: length,
            content: Content::Pieces(vec![(0, Piece::Hole { length })]),
            metadata: Ok(Metadata::default()),
        }))
    };
    let failed = restore(dir.path(), vec![hole("huge", u64::MAX), hole("small", 5000)]);
    assert_eq!(failed, ["huge"]);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["small"]);
    assert_eq!(fs::metadata(dir.path().join("small")).unwrap().len(), 5000);
}

#[test]
fn the_names_of_very_many_linked_files_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Arc::new(Keyring::generate(&Surroundings::default()));
    let destination = Destination::create(dir.path()).unwrap();
    let session = Arc::new(Session::new(Some(destination), &keyring, &RestoreOptions::default(), Arc::new(NoProgress)));
    let mut arranger = Arranger::new(&session, Selection::All).unwrap();
    let above = vec!["x".repeat(250); 12].join("/");
    let linked = |name: &str, number: u64| {
        let posix = Posix { links: Some(LinkGroup { device: 1, inode: number }), ..Posix::default() };
        let mut item = entry(&format!("{above}/{name}{number:04}"), EntryKind::File, "same");
        let Item::Entry(listed) = &mut item else { unreachable!() };
        listed.metadata = Ok(Metadata { posix: Some(posix), ..Metadata::default() });
        item
    };
    // Their paths together are longer than what is kept in memory.
    let items = ["a", "b"].iter().flat_map(|name| (0..800).map(|number| linked(name, number)));
    let arranged = arranger.arrange(items.collect()).unwrap();
    assert_eq!((arranged.works.len(), arranged.links.len()), (800, 800));
    for (number, link) in arranged.links.iter().enumerate() {
        assert_eq!(link.to, Key::from_path(format!("{above}/a{number:04}")).unwrap());
    }
    assert_eq!(session.take_failures().1, 0);
}

#[test]
fn what_took_the_place_of_a_file_under_way_is_neither_written_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Arc::new(Keyring::generate(&Surroundings::default()));
    let destination = Destination::create(dir.path()).unwrap();
    let session = Session::new(Some(destination), &keyring, &RestoreOptions::default(), Arc::new(NoProgress));
    let key = Key::from_path("secret").unwrap();
    let job = Arc::new(FileJob::new(key.clone(), key, 12, Metadata::default(), false, true, None));
    (0..2).for_each(|_| job.expect_part());
    let part = |offset, text: &'static [u8]| [Chunk { offset, repeat: 1, bytes: Ok(Bytes::from_static(text)) }];
    job.write_part(&session, &part(0, b"first!"));
    fs::rename(dir.path().join("secret"), dir.path().join("moved")).unwrap();
    fs::write(dir.path().join("secret"), "planted").unwrap();
    job.write_part(&session, &part(6, b"second"));
    job.all_planned(&session);
    assert_eq!(session.take_failures().1, 1);
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"planted");
}
