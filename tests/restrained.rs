//! An append-only client whose credentials allow neither deleting nor overwriting anything.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod helpers;

use std::sync::Arc;
use std::time::Duration;

use backstop::{
    CheckOptions, CommitOptions, Error, FeedOptions, ForgetOptions, GcOptions, Key, Metadata, OpenOptions, Repository,
    RestoreOptions, Secret, Selector, StoreAccess, StoreRights, WriterOptions,
};
use common::{CountingStore, Kind, RestrainedStore};
use helpers::{Folder, backup, contents, create, memory, names, open, quiet, running};

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

fn restrained() -> Secret {
    Secret::key([8; 32])
}

#[tokio::test]
async fn a_client_that_may_only_add_does_all_its_work() {
    let store = memory();
    let administrator = create(&store).await;
    administrator.add_append_only_key(&restrained(), "server").await.unwrap();
    let counting = CountingStore::new(RestrainedStore::append_only(Arc::clone(&store)).shared());
    let rights = StoreRights::probe(counting.shared()).await.unwrap();
    assert!(rights.mismatches(StoreAccess::AppendOnly).is_empty(), "{rights:?}");
    counting.take();

    let client = Repository::open(counting.shared(), &restrained(), OpenOptions::default()).await.unwrap();
    let folder = Folder::new();
    for content in ["one", "two"] {
        folder.write("note", content);
        backup(&client, &folder).await;
    }
    // Two writers of a series: one loses its number, registers anew and commits after the other.
    let (first, second) = (
        client.writer("cards", WriterOptions::default()).await.unwrap(),
        client.writer("cards", WriterOptions::default()).await.unwrap(),
    );
    first.put(&key("ana/1"), "BEGIN:VCARD", &Metadata::default()).await.unwrap();
    second.put(&key("ben/1"), "BEGIN:VCARD", &Metadata::default()).await.unwrap();
    first.commit(CommitOptions::default()).await.unwrap();
    assert_eq!(second.commit(CommitOptions::default()).await.unwrap().number, 2);
    client.writer("cards", WriterOptions::default()).await.unwrap().abandon().await;

    // A feed goes on while the administrator collects.
    let options = FeedOptions::default().with_look_every(Duration::from_millis(20)).with_merge_every(2);
    let feed = client.feed("cards", options).await.unwrap();
    for number in 0..6 {
        feed.put(&key(&format!("eve/{number}")), "BEGIN:VCARD", &Metadata::default()).await.unwrap();
    }
    let forget = ForgetOptions::default().with_snapshot("cards", 1).with_undelete_for(Duration::ZERO);
    administrator.forget(&administrator.plan_forget(&forget).await.unwrap()).await.unwrap();
    let plan = administrator.plan_gc(&GcOptions::default()).await.unwrap();
    let report = administrator.gc(plan, quiet()).await.unwrap();
    assert!(report.finished && report.fenced.is_empty() && report.registrations_cleared > 0, "{report:?}");
    feed.put(&key("eve/last"), "BEGIN:VCARD", &Metadata::default()).await.unwrap();
    let last = feed.close().await.unwrap().unwrap();
    assert_eq!(contents(&open(&store).await, &last).await.len(), 9);

    let to = tempfile::tempdir().unwrap();
    let latest = client.find(&Selector::Latest).await.unwrap();
    client.restore(&latest, None, to.path(), &RestoreOptions::default(), quiet()).await.unwrap();
    assert!(client.check(&CheckOptions::default(), quiet()).await.unwrap().is_sound());

    // It ended all that it registered, and never so much as tried to delete anything.
    assert!(running(&store).await.is_empty());
    assert_eq!(counting.take().of(Kind::Delete), 0);
    let refused = client.plan_gc(&GcOptions::default()).await.unwrap();
    assert!(matches!(client.gc(refused, quiet()).await, Err(Error::AppendOnly { .. })));

    // The administrator's next collection tidies up, whether there is anything else to do or not.
    let administrator = open(&store).await;
    let plan = administrator.plan_gc(&GcOptions::default()).await.unwrap();
    administrator.gc(plan, quiet()).await.unwrap();
    assert!(names(&store, "writers").await.is_empty());
    assert!(administrator.check(&CheckOptions::default(), quiet()).await.unwrap().is_sound());
}
