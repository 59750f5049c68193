use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use tempfile::tempdir;

use super::super::{FileSource, Segment};
use super::*;

fn found(path: &Path) -> Found {
    walk(&[path], &WalkOptions::default()).pop().unwrap().unwrap()
}

/// Everything in a file, neighbours merged: data as bytes, holes as lengths.
fn read_all(source: &mut FileSource) -> (Vec<u8>, Vec<Segment>) {
    let (mut bytes, mut segments) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 10_000];
    loop {
        let segment = source.read(&mut buffer).unwrap();
        match segment {
            Segment::Data(length) => bytes.extend(&buffer[..length]),
            Segment::Hole(length) => bytes.resize(bytes.len() + length as usize, 0),
            Segment::End => return (bytes, segments),
        }
        match (segments.last_mut(), segment) {
            (Some(Segment::Data(sum)), Segment::Data(length)) => *sum += length,
            _ => segments.push(segment),
        }
    }
}

#[test]
fn holes_are_told_from_data() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(&[1; 70_000], 1 << 20).unwrap();
    file.write_all_at(&[2; 10], 4 << 20).unwrap();
    file.set_len(8 << 20).unwrap();
    let mut source = found(&path).open().unwrap();
    if !source.stat().may_have_holes() {
        return println!("not tested: no holes on this file system");
    }
    let (bytes, segments) = read_all(&mut source);
    assert_eq!(bytes, fs::read(&path).unwrap());
    assert!(
        matches!(
            segments[..],
            [
                Segment::Hole(0x100000),
                Segment::Data(70_000..100_000),
                Segment::Hole(_),
                Segment::Data(_),
                Segment::Hole(_)
            ]
        ),
        "{segments:?}"
    );
    assert!(source.finish().unwrap());
    // Nothing but a hole, and nothing at all.
    file.set_len(0).unwrap();
    assert_eq!(read_all(&mut found(&path).open().unwrap()).1, []);
    file.set_len(5_000).unwrap();
    assert_eq!(read_all(&mut found(&path).open().unwrap()).1, [Segment::Hole(5_000)]);
}

#[test]
fn a_file_that_changes_while_it_is_read_comes_to_an_end_and_is_told() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("file");
    let content: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
    let mut buffer = vec![0; 20_000];

    fs::write(&path, &content).unwrap();
    let mut source = found(&path).open().unwrap();
    assert_eq!(source.read(&mut buffer).unwrap(), Segment::Data(20_000));
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&content).unwrap();
    assert_eq!(read_all(&mut source).0, content[20_000..]);
    assert!(!source.finish().unwrap(), "grown");

    fs::write(&path, &content).unwrap();
    let mut source = found(&path).open().unwrap();
    assert_eq!(source.read(&mut buffer).unwrap(), Segment::Data(20_000));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(30_000).unwrap();
    assert_eq!(read_all(&mut source).0, content[20_000..30_000]);
    assert!(!source.finish().unwrap(), "cut");

    fs::write(&path, &content).unwrap();
    let mut source = found(&path).open().unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(40_000)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20)); // the system's time stamps are that coarse
    file.write_all(b"changed").unwrap();
    read_all(&mut source);
    assert!(!source.finish().unwrap(), "written to");
}

#[test]
fn only_what_is_a_regular_file_when_it_is_opened_is_read() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "secret").unwrap();
    let seen = found(&path);
    let other = dir.path().join("other");
    fs::rename(&path, &other).unwrap();
    assert!(seen.open().unwrap_err().is_not_found());
    std::os::unix::fs::symlink(&other, &path).unwrap();
    assert!(seen.open().is_err());
    fs::remove_file(&path).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(seen.open().unwrap_err().to_string().contains("file"), "without waiting for a writer");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(seen.open().is_err());
}

#[test]
fn an_unchanged_file_is_recognised_and_a_changed_one_too() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "content").unwrap();
    let before = found(&path);
    let (stored, _) = before.open().unwrap().metadata(&Owners::default());
    let unchanged = |path: &Path| {
        let found = found(path);
        stored.is_unchanged(before.kind(), before.size(), &found)
    };
    assert!(unchanged(&path));
    assert!(!super::super::Metadata::default().is_unchanged(before.kind(), before.size(), &before));
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(!unchanged(&path), "its metadata changed");
    fs::write(&path, "more content").unwrap();
    assert!(!unchanged(&path), "its content changed");
}
