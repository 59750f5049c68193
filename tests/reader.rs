//! Reading files of a snapshot: any bytes in any order, and no more fetched than needed.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::fs::File;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backstop::{ChunkerParameters, CreateOptions, Error, FileReader, Key, Payload, Repository, Snapshot};
use common::{CountingStore, Kind, Random, SlowStore};
use futures::TryStreamExt;
use helpers::{Folder, create, memory, open, quiet, secret, series, snapshot};
use object_store::ObjectStore;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// A repository of small chunks, so that files of a test's size have all forms of content.
async fn small_chunks(store: Arc<dyn ObjectStore>) -> Repository {
    let chunker = ChunkerParameters { min: 256, mean: 1024, max: 4096 };
    let options = CreateOptions::default().with_chunker(chunker);
    Repository::create(store, &secret(), options).await.unwrap()
}

/// Files of every form, with their bytes.
fn forms(folder: &Folder, random: &mut Random) -> Vec<(&'static str, Vec<u8>)> {
    let mut sparse = vec![0; 600_000];
    let path = folder.write("sparse", "");
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(600_000).unwrap();
    for at in [0, 100_000, 400_000] {
        let island = random.bytes(9_000);
        file.write_all_at(&island, at).unwrap();
        sparse[at as usize..][..island.len()].copy_from_slice(&island);
    }
    let repeated = [random.bytes(3000), vec![0; 80_000], random.bytes(3000), vec![b'x'; 50_000]].concat();
    let files = vec![
        ("empty", Vec::new()),
        ("inline", random.bytes(1024)),
        ("one piece", random.bytes(1025)),
        ("pieces", random.bytes(15_000)),
        ("sequence", random.text(700_000)),
        ("noise", random.bytes(300_000)),
        ("repeated", repeated),
    ];
    for (name, bytes) in &files {
        folder.write(name, bytes);
    }
    files.into_iter().chain([("sparse", sparse)]).collect()
}

async fn open_file(repository: &Repository, snapshot: &Snapshot, key: &Key) -> FileReader {
    repository.read_file(snapshot, key).await.unwrap()
}

/// Seeks and reads at random, checking each byte against `expected`.
async fn wander(mut reader: FileReader, expected: &[u8], random: &mut Random, steps: usize) {
    let length = expected.len() as u64;
    assert_eq!((reader.len(), reader.is_empty()), (length, length == 0));
    let mut position = 0;
    for _ in 0..steps {
        let target = random.below(length + length / 8 + 10);
        let seek = match random.below(4) {
            0 => SeekFrom::Start(target),
            1 => SeekFrom::Current(target as i64 - position as i64),
            2 => SeekFrom::End(target as i64 - length as i64),
            _ => SeekFrom::Current(0),
        };
        let arrived = reader.seek(seek).await.unwrap();
        position = if matches!(seek, SeekFrom::Current(0)) { position } else { target };
        assert_eq!(arrived, position, "{seek:?}");
        let wanted = match random.below(3) {
            0 => random.below(40),
            1 => random.below(6_000),
            _ => random.below(length + 1),
        };
        let mut bytes = Vec::new();
        (&mut reader).take(wanted).read_to_end(&mut bytes).await.unwrap();
        let start = position.min(length) as usize;
        let end = (position + wanted).min(length).max(start as u64) as usize;
        assert!(bytes == expected[start..end], "{wanted} bytes at {position} of {length}");
        position += bytes.len() as u64;
    }
}

#[tokio::test]
async fn any_bytes_are_read_in_any_order() {
    let (folder, store, mut random) = (Folder::new(), memory(), Random::new(1));
    let repository = small_chunks(Arc::clone(&store)).await;
    let files = forms(&folder, &mut random);
    let snapshot = snapshot(&repository, &folder).await;
    for (name, bytes) in &files {
        let key = folder.key(name);
        let entry = repository.entry(&snapshot, &key).await.unwrap().unwrap();
        let form = matches!(
            (*name, &entry.content),
            ("empty" | "inline", Payload::Inline(_))
                | ("one piece" | "pieces" | "repeated" | "sparse", Payload::Pieces(_))
                | ("sequence" | "noise", Payload::Sequence(_))
        );
        assert!(form, "{name}: {:?}", entry.content);
        // Once with all blocks at hand, once from a cold start.
        wander(open_file(&repository, &snapshot, &key).await, bytes, &mut random, 60).await;
        wander(open_file(&open(&store).await, &snapshot, &key).await, bytes, &mut random, 60).await;
    }
}

/// What one reader fetches ahead is not polled while another is read: neither may wait for the other's.
#[tokio::test]
async fn readers_and_listings_are_used_by_turns() {
    let (folder, store, mut random) = (Folder::new(), memory(), Random::new(5));
    let repository = small_chunks(Arc::clone(&store)).await;
    let files = forms(&folder, &mut random);
    let snapshot = snapshot(&repository, &folder).await;
    let alternate = async {
        for _ in 0..5 {
            // From a cold start and some way off, so that all of them want the same blocks, and wait for them.
            let repository = open(&SlowStore::new(Arc::clone(&store), Duration::from_millis(1)).shared()).await;
            let mut entries = pin!(repository.entries(&snapshot, None));
            let mut readers = Vec::new();
            while let Some((key, entry)) = entries.try_next().await.unwrap() {
                repository.metadata(&entry).await.unwrap();
                let Some((_, bytes)) = files.iter().find(|(name, _)| folder.key(name) == key) else { continue };
                readers.push((open_file(&repository, &snapshot, &key).await, bytes, 0));
            }
            for _ in 0..200 {
                let chosen = random.below(readers.len() as u64) as usize;
                let (reader, bytes, position) = &mut readers[chosen];
                let mut buffer = vec![0; random.below(5_000) as usize];
                let length = reader.read(&mut buffer).await.unwrap();
                assert_eq!(buffer[..length], bytes[*position..*position + length]);
                *position += length;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), alternate).await.expect("readers wait for each other");
}

#[tokio::test]
async fn a_reader_that_rests_keeps_no_other_waiting() {
    let (store, bytes) = (memory(), Random::new(6).bytes(1_500_000));
    let repository = small_chunks(Arc::clone(&store)).await;
    let key = Key::from_path("noise").unwrap();
    let report = repository.backup_stream(&key, bytes.as_slice(), &series("noise"), quiet()).await.unwrap();
    let snapshot = report.snapshot.unwrap();
    let both = async {
        for rest in (1_000..1_000_000).step_by(40_000) {
            let repository = open(&SlowStore::new(Arc::clone(&store), Duration::from_millis(1)).shared()).await;
            let mut resting = open_file(&repository, &snapshot, &key).await;
            resting.read_exact(&mut vec![0; rest]).await.unwrap();
            // What the resting reader fetches ahead lies in blocks that this one needs.
            let mut whole = Vec::new();
            open_file(&repository, &snapshot, &key).await.read_to_end(&mut whole).await.unwrap();
            assert!(whole == bytes);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("a reader waits for one that rests");
}

#[tokio::test]
async fn a_seek_before_the_start_is_refused_and_moves_nothing() {
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    folder.write("file", "0123456789");
    let snapshot = snapshot(&repository, &folder).await;
    let mut reader = open_file(&repository, &snapshot, &folder.key("file")).await;
    reader.seek(SeekFrom::Start(4)).await.unwrap();
    for wrong in [SeekFrom::Current(-5), SeekFrom::End(-11), SeekFrom::Current(i64::MIN), SeekFrom::End(i64::MIN)] {
        assert_eq!(reader.seek(wrong).await.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(reader.read_u8().await.unwrap(), b'4');
    reader.seek(SeekFrom::Start(u64::MAX)).await.unwrap();
    assert_eq!(reader.read(&mut [0; 4]).await.unwrap(), 0);
    assert!(reader.seek(SeekFrom::Current(1)).await.is_err());
    reader.rewind().await.unwrap();
    assert_eq!(reader.read_u8().await.unwrap(), b'0');
}

#[tokio::test]
async fn what_is_no_file_is_not_opened() {
    let (folder, repository) = (Folder::new(), create(&memory()).await);
    folder.write("folder/file", "x");
    std::os::unix::fs::symlink("folder/file", folder.path().join("link")).unwrap();
    let snapshot = snapshot(&repository, &folder).await;
    for name in ["folder", "link"] {
        let refused = repository.read_file(&snapshot, &folder.key(name)).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{name}");
    }
    for name in ["nothing", "folder/nothing", "folder/file/below"] {
        let refused = repository.read_file(&snapshot, &folder.key(name)).await;
        assert!(refused.unwrap_err().is_not_found(), "{name}");
    }
    let link = repository.entry(&snapshot, &folder.key("link")).await.unwrap().unwrap();
    assert_eq!(repository.link_target(&link).await.unwrap(), b"folder/file");
    let file = repository.entry(&snapshot, &folder.key("folder/file")).await.unwrap().unwrap();
    assert!(matches!(repository.link_target(&file).await, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn a_small_read_of_a_large_file_fetches_one_block() {
    let (folder, store) = (Folder::new(), memory());
    let repository = create(&store).await;
    let large = Random::new(3).bytes(40_000_000);
    let key = Key::from_path("large").unwrap();
    let report = repository.backup_stream(&key, large.as_slice(), &series("large"), quiet()).await.unwrap();
    folder.write("beside", "it");
    snapshot(&repository, &folder).await;
    let counting = CountingStore::new(store);
    let repository = open(&counting.shared()).await;
    let mut reader = open_file(&repository, &report.snapshot.unwrap(), &key).await;
    let mut bytes = [0; 100];
    // The first read also opens the index and the file's list of chunks.
    reader.seek(SeekFrom::Start(31_234_567)).await.unwrap();
    reader.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, large[31_234_567..][..100]);
    let first = counting.take();
    assert!(first.bytes_read < 700_000, "{first:?}");
    for at in [5_000_000, 39_999_900, 0] {
        reader.seek(SeekFrom::Start(at)).await.unwrap();
        reader.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, large[at as usize..][..100]);
        let counts = counting.take();
        // A block of what isn't compressed holds at most 256 KiB; a read across two chunks may need two.
        assert!(counts.of(Kind::Get) <= 2 && counts.bytes_read <= 2 * ((256 << 10) + 16), "{counts:?}");
        assert_eq!(counts.total(), counts.of(Kind::Get));
    }
}
