//! Series of any length, whose records are made without backups.

use std::collections::BTreeMap;

use crate::blobs::{BlobWriter, NodeBuffer, Stored, Treatment};
use crate::clock::Timestamp;
use crate::crypto::Kind;
use crate::id::{BlobId, RecordHash};
use crate::layout::{CommitName, Name};
use crate::object::seal_record;
use crate::pack::BlockKind;
use crate::registration::Registration;
use crate::repository::Repository;
use crate::snapshot::{Body, Content, Record, Snapshot, SnapshotStats};
use crate::tree::{Entry, EntryKind, Key, Payload, TreeBuilder};

/// Record `number` of a series is committed at this time.
pub(crate) fn at(number: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000 * number as i64)
}

/// A snapshot of the tree under `root`.
pub(crate) fn snapshot(root: BlobId) -> Body {
    Body::Snapshot(content(root, 0, Stored::default()))
}

fn content(root: BlobId, entries: u64, stored: Stored) -> Content {
    Content {
        host: String::new(),
        tags: BTreeMap::new(),
        paths: Vec::new(),
        position: None,
        root,
        entries,
        parent: None,
        origin: None,
        stats: SnapshotStats::default(),
        failures: Vec::new(),
        failure_count: 0,
        stored,
    }
}

/// Commits files of any payloads, as no writer of this library would; `nodes` may hold what these refer to.
pub(crate) async fn commit_files(
    repository: &Repository,
    mut registration: Registration,
    mut writer: BlobWriter,
    mut nodes: NodeBuffer,
    payloads: impl IntoIterator<Item = Payload>,
) -> Snapshot {
    let mut builder = TreeBuilder::new(repository.splitter().clone());
    for (number, payload) in payloads.into_iter().enumerate() {
        let entry = Entry::new(EntryKind::File, payload, Payload::default());
        builder.push(&Key::from_path(format!("file{number:03}")).unwrap(), &entry, &mut nodes).unwrap();
    }
    let tree = builder.finish(&mut nodes).unwrap();
    for (id, node) in nodes.take() {
        writer.add(BlockKind::Nodes, id, node, Treatment::Compress).await.unwrap();
    }
    let stored = writer.settle(&tree.id).await.unwrap();
    let snapshot = registration.contend(&content(tree.id, tree.entries, stored)).await.unwrap().unwrap();
    registration.end().await;
    snapshot
}

/// Creates records 1 to `count` of a series; those that `body` says nothing for can't be read, and only have names.
pub(crate) async fn write(repository: &Repository, series: &str, count: u64, body: impl Fn(u64) -> Option<Body>) {
    let (keyring, surroundings) = (repository.keyring(), repository.surroundings());
    let mut name = CommitName::first(keyring.series_tag(series));
    for number in 1..=count {
        let text = Name::Commit(name).to_string();
        let sealed = body(number).map(|body| {
            let predecessor = (number > 1).then(|| RecordHash::new([7; 32]));
            let record = Record {
                series: series.to_owned(),
                number,
                time: at(number),
                clock: at(number),
                predecessor,
                body,
                extensions: Default::default(),
            };
            seal_record(&record, Kind::Snapshot, &text, keyring, surroundings).unwrap()
        });
        repository.store().create(&text, sealed.unwrap_or_default().into()).await.unwrap();
        name = name.next().unwrap();
    }
}
