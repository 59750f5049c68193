//! Entries of unknown kinds, and metadata with unknown extensions.

use super::*;
use crate::codec::{self, Extensions};
use crate::restore::RestoreOptions;
use crate::tree::{Entry, EntryKind, Payload};

/// What this build doesn't know, and some bytes.
fn unknown() -> Entry {
    Entry::new(EntryKind::Unknown { number: 7 }, Payload::from(Random::new(5).bytes(60)), Payload::default())
}

/// A record whose metadata has these extensions.
fn record(extensions: Extensions) -> Entry {
    let metadata = Metadata { extensions, ..Metadata::default() }.with_content_type("text/plain");
    Entry::new(EntryKind::File, Payload::from("content"), Payload::from(metadata.encode().unwrap()))
}

impl World {
    /// Commits entries as they are.
    async fn commit_entries(&self, entries: &[(&str, Entry)]) -> Snapshot {
        let writer = self.repository.writer(SERIES, WriterOptions::default()).await.unwrap();
        for (path, entry) in entries {
            writer.put_entry(&key(path), entry.clone()).await.unwrap();
        }
        writer.commit(CommitOptions::default()).await.unwrap()
    }

    async fn entry(&self, snapshot: &Snapshot, path: &str) -> Entry {
        open(&self.store).await.entry(snapshot, &key(path)).await.unwrap().unwrap()
    }

    /// The paths that a restore fails at, and why.
    async fn restore(&self, snapshot: &Snapshot, to: &std::path::Path) -> Vec<(String, String)> {
        let options = RestoreOptions::default().with_delete(true);
        let restored = open(&self.store).await.restore(snapshot, None, to, &options, Arc::new(NoProgress)).await;
        restored.unwrap().failures.into_iter().map(|failure| (failure.path, failure.reason)).collect()
    }
}

#[test]
fn the_stored_form_of_entries_holds_still() {
    let bytes = |entry: &Entry| codec::encode(entry);
    let odd = Entry::new(EntryKind::Unknown { number: 300 }, Payload::from("xyz"), Payload::default());
    assert_eq!(bytes(&odd), [251, 44, 1, 3, b'x', b'y', b'z']);
    assert_eq!(codec::decode::<Entry>(&bytes(&odd), "e").unwrap(), odd);
    // What is known costs no more than it did.
    let file = Entry::new(EntryKind::File, Payload::from("ab"), Payload::from("m"));
    assert_eq!(bytes(&file), [0, 2, 0, 2, b'a', b'b', 0, 1, b'm']);
    let device = Entry::new(EntryKind::BlockDevice { major: 8, minor: 1 }, Payload::default(), Payload::default());
    assert_eq!(bytes(&device), [6, 8, 1, 0, 0, 0, 0, 0]);
    for entry in [file, device] {
        assert_eq!(codec::decode::<Entry>(&bytes(&entry), "e").unwrap(), entry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unknown_entry_leaves_its_neighbours_readable() {
    let world = World::new().await;
    let entries = [("ana/1b", unknown()), ("ana/1c", record(Extensions::default()))];
    let snapshot = world.commit_entries(&entries).await;
    world.is_left_alone("an entry", "unknown kind 7").await;
    world.stops_collections("an entry", "unknown kind 7").await;
    world.reads(snapshot.number, &["ana/1b"]).await;

    let repository = open(&world.store).await;
    assert_eq!(world.entry(&snapshot, "ana/1b").await, unknown());
    let error = repository.read_file(&snapshot, &key("ana/1b")).await.err().unwrap();
    assert!(error.is_unsupported() && error.to_string().contains("unknown kind 7"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let failed = world.restore(&snapshot, folder.path()).await;
    assert!(failed.len() == 1 && failed[0].0 == "ana/1b" && failed[0].1.contains("unknown kind 7"), "{failed:?}");
    assert_eq!(std::fs::read(folder.path().join("ana/1c")).unwrap(), b"content");
    // What stands in its place stays, though the snapshot lacks it as far as this build knows.
    std::fs::write(folder.path().join("ana/1b"), "restored by a later version").unwrap();
    assert_eq!(world.restore(&snapshot, folder.path()).await.len(), 1);
    assert_eq!(std::fs::read(folder.path().join("ana/1b")).unwrap(), b"restored by a later version");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_merges_and_feeds_keep_what_they_do_not_know() {
    let world = World::new().await;
    let odd = record(Extensions::default().with(1, b"new").with(77, []));
    world.commit_entries(&[("ana/1b", unknown()), ("ana/1c", odd.clone())]).await;
    let written = world.commit(9).await;
    let feed = open(&world.store).await.feed(SERIES, Default::default()).await.unwrap();
    feed.put(&key("ana/1a"), "beside them", &Metadata::default()).await.unwrap();
    let fed = feed.close().await.unwrap().unwrap();
    // Two writers that start from the same snapshot: the second carries its changes over.
    let [first, second] = ["x", "y"].map(|name| (name, open(&world.store)));
    let (first, second) = ((first.0, first.1.await), (second.0, second.1.await));
    let slow = second.1.writer(SERIES, WriterOptions::default()).await.unwrap();
    slow.put(&key(second.0), "y", &Metadata::default()).await.unwrap();
    let fast = first.1.writer(SERIES, WriterOptions::default()).await.unwrap();
    fast.put(&key(first.0), "x", &Metadata::default()).await.unwrap();
    fast.commit(CommitOptions::default()).await.unwrap();
    let merged = slow.commit(CommitOptions::default()).await.unwrap();
    world.merge().await.unwrap();
    for snapshot in [written, fed, merged] {
        assert_eq!(world.entry(&snapshot, "ana/1b").await, unknown(), "{snapshot}");
        assert_eq!(world.entry(&snapshot, "ana/1c").await, odd, "{snapshot}");
    }
    let metadata = open(&world.store).await.metadata(&odd).await.unwrap();
    assert_eq!(
        metadata.encode().unwrap(),
        match &odd.metadata {
            Payload::Inline(bytes) => bytes.to_vec(),
            _ => vec![],
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_must_be_understood_fails_alone() {
    let world = World::new().await;
    let needing = record(Extensions::default().with(1, []).with(2, b"new"));
    let snapshot = world.commit_entries(&[("ana/1b", needing.clone())]).await;
    let report = world.check().await;
    assert!(report.defects == 0 && report.unsupported == 1, "{:#?}", report.findings);
    assert!(report.findings[0].problem.contains("ana/1b") && report.findings[0].problem.contains("extension 2"));
    let error = open(&world.store).await.metadata(&needing).await.unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("extension 2"), "{error}");
    world.reads(snapshot.number, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let failed = world.restore(&snapshot, folder.path()).await;
    assert!(failed.len() == 1 && failed[0].0 == "ana/1b" && failed[0].1.contains("extension 2"), "{failed:?}");
    assert_eq!(std::fs::read(folder.path().join("ana/1b")).unwrap(), b"content");
    // It refers to nothing that a collection would have to know.
    world.collect().await.unwrap();
    assert_eq!(world.entry(&snapshot, "ana/1b").await, needing);
}
