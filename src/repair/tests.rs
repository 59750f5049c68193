//! A few hundred stored bytes that stand for more pieces than anybody can walk through.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::time::timeout;

use crate::blobs::{BlobWriter, Condemned, Evidence, NodeBuffer, Treatment, WriteOptions};
use crate::check::CheckOptions;
use crate::crypto::Secret;
use crate::id::BlobId;
use crate::pack::BlockKind;
use crate::progress::NoProgress;
use crate::registration::Registration;
use crate::repair::RepairOptions;
use crate::repository::{CreateOptions, Repository};
use crate::restore::RestoreOptions;
use crate::snapshot::Snapshot;
use crate::testing::series::commit_files;
use crate::tree::{Payload, Piece, SequenceRoot, WriteNode};

/// References to a node.
const TIMES: u64 = 30_000;

/// Levels of such nodes.
const LEVELS: u8 = 3;

/// Commits files each of which is a sequence of 30,000 times 30,000 times 30,000 pieces.
async fn bomb(repository: &Repository, files: u32, is_stored: bool) -> Snapshot {
    let parts = repository.parts().clone();
    let registration = Registration::begin(parts.clone(), "bomb", "", repository.mode()).await.unwrap();
    let evidence = Evidence::new(Condemned::default());
    let mut writer = BlobWriter::new(parts, registration.id(), evidence, WriteOptions::default());
    let chunk = repository.keyring().chunk_id().id(b"x");
    if is_stored {
        writer.add(BlockKind::Data, chunk, "x".into(), Treatment::Compress).await.unwrap();
    }
    let mut nodes = NodeBuffer::new(Arc::clone(repository.keyring()));
    let hole = BlobId::new([0; 20]);
    // Pieces that can't be said as one: chunks and holes by turns.
    let pieces: Vec<_> = (0..TIMES)
        .map(
            |at| if at % 2 == 0 { Piece::Chunk { id: chunk, length: 1, repeat: 1 } } else { Piece::Hole { length: 1 } },
        )
        .collect();
    let (mut root, mut length) = (hole, TIMES);
    for level in 0..LEVELS {
        let mut node = vec![0x80 | level];
        if level == 0 {
            crate::codec::encode_into(&pieces, &mut node);
        } else {
            crate::codec::encode_into(&vec![(root, length); TIMES as usize], &mut node);
            length *= TIMES;
        }
        root = nodes.write_node(node).unwrap();
    }
    let payload = Payload::Sequence(SequenceRoot { root, length, height: LEVELS - 1 });
    let payloads = std::iter::repeat_n(payload, files as usize);
    commit_files(repository, registration, writer, nodes, payloads).await
}

async fn repository() -> Repository {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    Repository::create(store, &Secret::key([7; 32]), CreateOptions::default()).await.unwrap()
}

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn nodes_that_repeat_are_looked_at_once() {
    for is_stored in [true, false] {
        let repository = repository().await;
        bomb(&repository, 200, is_stored).await;
        let options = CheckOptions::default();
        let check = repository.check(&options, Arc::new(NoProgress));
        assert_eq!(timeout(PATIENCE, check).await.unwrap().unwrap().is_sound(), is_stored);
        let options = RepairOptions::default().with_accept_loss(true);
        let plan = repository.plan_repair(&options, Arc::new(NoProgress));
        let plan = timeout(PATIENCE, plan).await.unwrap().unwrap();
        assert_eq!(plan.is_sound(), is_stored);
        timeout(PATIENCE, repository.repair(plan, Arc::new(NoProgress))).await.unwrap().unwrap();
        assert!(repository.check(&CheckOptions::default(), Arc::new(NoProgress)).await.unwrap().is_sound());
    }
}

#[tokio::test]
async fn a_file_that_failed_is_not_read_on() {
    let repository = repository().await;
    let snapshot = bomb(&repository, 3, false).await;
    let (folder, options) = (tempfile::tempdir().unwrap(), RestoreOptions::default());
    let restore = repository.restore(&snapshot, None, folder.path(), &options, Arc::new(NoProgress));
    let report = timeout(PATIENCE, restore).await.unwrap().unwrap();
    assert_eq!(report.failure_count, 3);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
