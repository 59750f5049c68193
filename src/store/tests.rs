//! What a store that answers badly is taken to have said.

use std::sync::atomic::{AtomicU32, Ordering};

use object_store::memory::InMemory;

use super::*;
use crate::testing::stores::{Call, Hook, HookedStore, Kind};

/// Ends reads early, so many times.
#[derive(Debug)]
struct Cuts(AtomicU32);

impl Hook for Cuts {
    fn is_cut(&self, call: &Call) -> bool {
        let less = |left: u32| left.checked_sub(1);
        call.kind == Kind::Get && self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }
}

async fn cutting(times: u32) -> Store {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    inner.put(&path("gc/x"), PutPayload::from_static(b"a sound object")).await.unwrap();
    let store = HookedStore::with_hook(inner, Cuts(AtomicU32::new(times))).shared();
    Store::connect(&Location::from(store), Intent::Open).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_early_is_no_damage() {
    assert_eq!(cutting(2).await.get("gc/x", 100).await.unwrap(), "a sound object");
    assert_eq!(cutting(2).await.get_range("gc/x", 2..7).await.unwrap(), "sound");
    for error in [
        cutting(99).await.get("gc/x", 100).await.unwrap_err(),
        cutting(99).await.get_range("gc/x", 2..7).await.unwrap_err(),
    ] {
        assert!(error.is_retryable() && !error.is_corrupt(), "{error:?}");
    }
    // Where the object does end earlier, it is damaged.
    for range in [2..15, 14..15, 20..30] {
        assert!(cutting(0).await.get_range("gc/x", range).await.unwrap_err().is_corrupt());
    }
}

/// One's own object that comes back in part isn't another's.
#[tokio::test(start_paused = true)]
async fn what_is_ours_is_ours_though_it_is_read_in_part() {
    let store = cutting(1).await;
    assert_eq!(store.create("gc/x", Bytes::from_static(b"a sound object")).await.unwrap(), Created::Ours);
    assert_eq!(store.create("gc/x", Bytes::from_static(b"something else")).await.unwrap(), Created::Theirs);
}

/// An empty folder in the place of a repository's isn't one, though it is a place to write to.
#[tokio::test(start_paused = true)]
async fn where_a_local_store_has_gone_nothing_is_created_and_nothing_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, elsewhere) = (dir.path().join("repository"), dir.path().join("unmounted"));
    let store = Store::connect(&Location::from(folder.as_path()), Intent::Create).unwrap();
    for name in ["keys/x", "config", "gc/x"] {
        assert_eq!(store.create(name, Bytes::from_static(b"x")).await.unwrap(), Created::Ours);
    }
    assert!(store.list("kept").await.unwrap().is_empty());
    assert!(store.get("gc/y", 9).await.unwrap_err().is_not_found());

    std::fs::rename(&folder, &elsewhere).unwrap();
    for is_there in [false, true] {
        if is_there {
            std::fs::create_dir(&folder).unwrap();
        }
        for error in [
            store.create("gc/z", Bytes::from_static(b"z")).await.unwrap_err(),
            store.refuses_to_overwrite("gc/x", Bytes::from_static(b"x")).await.unwrap_err(),
            store.list("gc").await.unwrap_err(),
            store.list("keys").await.unwrap_err(),
            store.list_folders("gc").await.unwrap_err(),
            store.get("gc/x", 9).await.unwrap_err(),
            store.get_range("gc/x", 0..1).await.unwrap_err(),
            store.length("gc/x").await.unwrap_err(),
        ] {
            assert!(error.is_retryable() && !error.is_not_found(), "{error:?}");
        }
    }
    assert!(std::fs::read_dir(&folder).unwrap().next().is_none());
    std::fs::remove_dir(&folder).unwrap();
    std::fs::rename(&elsewhere, &folder).unwrap();
    assert_eq!(store.create("gc/z", Bytes::from_static(b"z")).await.unwrap(), Created::Ours);
    assert_eq!(store.list("gc").await.unwrap().len(), 2);
}
