//! Segments as they come from a store that anybody may have added to: nothing is allocated by what it says.

use std::path::Path;

use super::*;
use crate::backup::BackupOptions;
use crate::check::CheckOptions;
use crate::crypto::Secret;
use crate::gc::GcOptions;
use crate::progress::NoProgress;
use crate::repair::RepairOptions;
use crate::repository::{CreateOptions, Repository};

/// A segment that is fetched in several parts, of entries and of rows.
fn long() -> (Bytes, Vec<BlobId>) {
    let ids = random_ids(140_000, 3);
    let mut builder = SegmentBuilder::default();
    for (number, id) in ids.iter().enumerate() {
        let place = Place {
            kind: BlockKind::Data,
            encoding: Encoding::Raw,
            number: 0,
            offset: 62,
            stored_len: 116,
            plain_len: 100,
        };
        builder.add_blob(*id, &Location { pack: pack_row(number / 3), place, at: 0, length: 100 }).unwrap();
    }
    (builder.seal(&keyring(), &fixed()).unwrap().into(), ids)
}

fn index(store: &Store, cache: Option<&Path>) -> Arc<Index> {
    Arc::new(Index::new(store.clone(), Arc::new(keyring()), cache.map(Path::to_owned)))
}

#[tokio::test]
async fn a_long_segment_comes_in_parts_and_is_the_same() {
    let (bytes, ids) = long();
    let (counting, store) = on_store(&bytes).await;
    let folder = tempfile::tempdir().unwrap();
    for cache in [None, Some(folder.path())] {
        counting.take();
        let index = index(&store, cache);
        let segment = index.fetch(segment_id(&bytes), bytes.len() as u64).await.unwrap();
        // The head; 547 pages of entries and 365 of rows, 256 at a time.
        assert_eq!(counting.take().of(Call::Get), 1 + 3 + 2);
        assert_eq!(segment.len() as usize, ids.len());
        for id in ids.iter().step_by(997) {
            assert!(segment.find_local(id).unwrap().is_some());
        }
    }
    let cached = folder.path().join(segment_id(&bytes).to_string());
    assert_eq!(std::fs::read(cached).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
}

#[tokio::test]
async fn a_long_segment_that_fails_is_put_aside_and_leaves_nothing() {
    let (bytes, _) = long();
    let small = build(&random_ids(3, 1)).0;
    let pages = HEAD_LEN + PAGE_STORED * 300;
    let wrong = |at: usize| {
        let mut wrong = bytes.to_vec();
        wrong[at] ^= 1;
        wrong
    };
    for (what, wrong) in [
        ("a wrong head", wrong(HEAD_LEN - 1)),
        ("a wrong page", wrong(pages)),
        ("a wrong row", wrong(bytes.len() - 1)),
        ("longer than it says", [&bytes[..], &[0]].concat()),
        ("shorter than it says", bytes[..bytes.len() - 1].to_vec()),
        ("nothing but zeros", vec![0; bytes.len()]),
        ("another's name", bytes.to_vec()),
    ] {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let name = if what == "another's name" { ObjectId::new([7; 32]) } else { segment_id(&bytes) };
        inner.put(&Name::Index(name).to_string().into(), wrong.into()).await.unwrap();
        inner.put(&Name::Index(segment_id(&small)).to_string().into(), small.clone().into()).await.unwrap();
        let store = Store::connect(&inner.into(), Intent::Open).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let index = index(&store, Some(folder.path()));
        index.refresh(Want::All).await.unwrap();
        let known: Vec<_> = index.segments().iter().map(|segment| *segment.id()).collect();
        assert_eq!(known, [segment_id(&small)], "{what}");
        assert!(index.broken().unwrap().is_corrupt(), "{what}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{what} is left in the cache");
    }
}

#[tokio::test]
async fn a_segment_of_enormous_length_is_put_aside() {
    let (folder, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = Secret::key([7; 32]);
    let repository = Repository::create(folder.path(), &secret, CreateOptions::default()).await.unwrap();
    let hostile = folder.path().join(Name::Index(ObjectId::new([0xab; 32])).to_string());
    std::fs::create_dir_all(hostile.parent().unwrap()).unwrap();
    std::fs::File::create(&hostile).unwrap().set_len(64 << 30).unwrap();
    std::fs::write(folder.path().join(Name::Index(ObjectId::new([0xcd; 32])).to_string()), b"x").unwrap();
    std::fs::write(source.path().join("file"), Random::new(1).bytes(50_000)).unwrap();

    let sources = [source.path().to_owned()];
    let backup = repository.backup(&sources, &BackupOptions::default(), Arc::new(NoProgress)).await.unwrap();
    assert!(backup.snapshot.is_some());
    let writer = repository.writer("written", crate::WriterOptions::default()).await.unwrap();
    let key = crate::Key::from_path("f").unwrap();
    writer.put(&key, vec![3; 50_000], &crate::Metadata::default()).await.unwrap();
    writer.commit(crate::CommitOptions::default()).await.unwrap();

    let check = repository.check(&CheckOptions::default(), Arc::new(NoProgress)).await.unwrap();
    let found: Vec<_> = check.findings.iter().map(|finding| finding.object.as_str()).collect();
    assert_eq!(found.iter().filter(|object| object.starts_with("index/")).count(), 2, "{found:?}");
    let plan = repository.plan_gc(&GcOptions::default()).await.unwrap();
    repository.gc(plan, Arc::new(NoProgress)).await.unwrap();
    let plan = repository.plan_merge().await.unwrap();
    repository.merge(&plan).await.unwrap();
    let plan = repository.plan_repair(&RepairOptions::default(), Arc::new(NoProgress)).await.unwrap();
    repository.repair(plan, Arc::new(NoProgress)).await.unwrap();
    assert!(!hostile.exists());
    assert!(repository.check(&CheckOptions::default(), Arc::new(NoProgress)).await.unwrap().is_sound());
}

#[tokio::test]
async fn lengths_that_no_pack_can_have_are_not_asked_for() {
    let (counting, store) = on_store(&Bytes::new()).await;
    let refs = [(u32::MAX, 1 << 20), (1 << 28, 65 << 20), ((1 << 28) + 1, 100), (100, 200), (u32::MAX, u32::MAX)];
    let packs: Vec<_> = (0u8..)
        .zip(refs)
        .map(|(id, (length, footer_len))| PackRef { id: ObjectId::new([id; 32]), length, footer_len })
        .collect();
    let index = index(&store, None);
    index.name_recent(&packs);
    counting.take();
    index.load_recent().await.unwrap();
    assert_eq!(counting.take().of(Call::Get), 0);
    for pack in packs {
        assert!(RecentPack::fetch(pack, &store, &keyring()).await.unwrap_err().is_corrupt());
    }
}
