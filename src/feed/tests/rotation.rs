//! A feed and writers that run while the keys are rotated.

use super::*;
use crate::crypto::Keyring;
use crate::gc::GcOptions;
use crate::index::RecentPack;
use crate::merge::lengths;
use crate::progress::NoProgress;
use crate::writer::{CommitOptions, WriterOptions};

/// Looks often.
fn watchful() -> FeedOptions {
    FeedOptions::default().with_interval(Duration::ZERO).with_look_every(Duration::from_millis(20))
}

/// An administrator, and a server's handle; a second secret's keys, as whoever had it has kept them.
async fn before_rotation(
    store: &Arc<dyn ObjectStore>,
    at: &Arc<dyn ObjectStore>,
) -> (Repository, Repository, Repository) {
    let administrator = create(store).await;
    administrator.add_key(&Secret::key([8; 32]), "to be removed").await.unwrap();
    let kept = Repository::open(Arc::clone(store), &Secret::key([8; 32]), OpenOptions::default()).await.unwrap();
    (administrator, open(at).await, kept)
}

async fn remove_and_rotate(administrator: &Repository, kept: &Repository) {
    administrator.remove_key(&kept.slot()).await.unwrap();
    assert_eq!(administrator.rotate_keys().await.unwrap().generation, 1);
}

/// How many packs there are that a keyring opens, and that it doesn't.
async fn opened_by(repository: &Repository, keyring: &Keyring) -> (usize, usize) {
    let (mut opened, mut sealed) = (0, 0);
    for (id, length) in lengths(repository.store().list(layout::PACKS).await.unwrap(), layout::parse_pack) {
        match RecentPack::read(id, length, repository.store(), keyring).await {
            Ok(_) => opened += 1,
            Err(_) => sealed += 1,
        }
    }
    (opened, sealed)
}

/// Waits until a feed seals under generation 1; it commits all the while.
async fn until_it_knows(feed: &Feed, server: &Repository) {
    for round in 0.. {
        put(feed, &format!("meanwhile/{round}"), "x").await.unwrap();
        if server.keyring().generation() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(round < 2000, "it never looks");
    }
}

#[tokio::test]
async fn a_feed_learns_of_a_rotation_by_itself() {
    let store = memory();
    let (administrator, server, kept) = before_rotation(&store, &store).await;
    let feed = server.feed(SERIES, watchful()).await.unwrap();
    put(&feed, "a", "before").await.unwrap();
    let (sender, slow) = put_slowly(&feed, "slow").await;
    remove_and_rotate(&administrator, &kept).await;
    until_it_knows(&feed, &server).await;
    // A commit may have been sealed while it looked.
    put(&feed, "b", "after").await.unwrap();
    let (opened, _) = opened_by(&administrator, kept.keyring()).await;
    assert!(opened > 0);
    drop(sender);
    slow.await.unwrap().unwrap();
    for round in 0..5 {
        put(&feed, &format!("c/{round}"), &"after".repeat(10_000)).await.unwrap();
    }
    feed.close().await.unwrap();
    let (still_opened, sealed) = opened_by(&administrator, kept.keyring()).await;
    assert!(still_opened == opened && sealed >= 6, "{still_opened} of {opened} and {sealed}");
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_look_that_fails_is_made_again_and_fails_no_commit() {
    let store = memory();
    let looks = Arc::new(AtomicU64::new(0));
    let (failing, count) = (Arc::new(AtomicBool::new(false)), Arc::clone(&looks));
    let switch = Arc::clone(&failing);
    let faulty = FaultyStore::new(Arc::clone(&store), move |call| {
        let fails = call.kind != Call::Put && call.name.starts_with("keys") && switch.load(Ordering::SeqCst);
        fails.then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            Fault { done: false, reply: Reply::Denied }
        })
    });
    let faulty = faulty.shared();
    let (administrator, server, kept) = before_rotation(&store, &faulty).await;
    let feed = server.feed(SERIES, watchful()).await.unwrap();
    failing.store(true, Ordering::SeqCst);
    remove_and_rotate(&administrator, &kept).await;
    let mut round = 0;
    while looks.load(Ordering::SeqCst) < 3 {
        put(&feed, &format!("denied/{round}"), "x").await.unwrap();
        round += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.keyring().generation(), 0);
    failing.store(false, Ordering::SeqCst);
    until_it_knows(&feed, &server).await;
    feed.close().await.unwrap();
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_feed_whose_own_secret_was_removed_goes_on_with_what_it_knows() {
    let store = memory();
    let (administrator, server, kept) = before_rotation(&store, &store).await;
    let feed = kept.feed(SERIES, watchful()).await.unwrap();
    remove_and_rotate(&administrator, &kept).await;
    for round in 0..20 {
        put(&feed, &format!("{round}"), "x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    feed.close().await.unwrap();
    assert_eq!((kept.keyring().generation(), paths(&store).await.len()), (0, 20));
    drop(server);
}

#[tokio::test]
async fn who_loses_a_number_to_a_writer_with_newer_keys_goes_on() {
    let store = memory();
    let (administrator, server, kept) = before_rotation(&store, &store).await;
    let feed = server.feed(SERIES, FeedOptions::default()).await.unwrap();
    put(&feed, "a", "x").await.unwrap();
    let another = open(&store).await;
    let writer = another.writer(SERIES, WriterOptions::default()).await.unwrap();
    writer.put(&key("w"), "x", &Metadata::default()).await.unwrap();
    remove_and_rotate(&administrator, &kept).await;
    fence(&administrator).await;
    assert_eq!(put(&feed, "b", "x").await.unwrap().number, 3);
    assert_eq!(writer.commit(CommitOptions::default()).await.unwrap().number, 4);
    assert_eq!((server.keyring().generation(), another.keyring().generation()), (1, 1));
    feed.close().await.unwrap();
    assert_eq!(paths(&store).await, ["a", "b", "w"]);
}

#[tokio::test]
async fn what_was_written_before_is_rewritten_beside_a_feed_and_nothing_is_lost() {
    let store = memory();
    let (administrator, server, kept) = before_rotation(&store, &store).await;
    // What another feed left goes, and this one builds upon it.
    let earlier = server.feed(SERIES, watchful()).await.unwrap();
    for path in ["a", "b"] {
        put(&earlier, path, &path.repeat(100_000)).await.unwrap();
    }
    earlier.close().await.unwrap();
    let feed = server.feed(SERIES, watchful()).await.unwrap();
    put(&feed, "before", &"before".repeat(1000)).await.unwrap();
    remove_and_rotate(&administrator, &kept).await;
    let commits = tokio::spawn({
        let feed = feed.clone();
        async move {
            for round in 0..400 {
                put(&feed, &format!("c/{round}"), &"beside".repeat(1000)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let options = GcOptions::default().with_rewrite_old_keys(true);
    for _ in 0..2 {
        let plan = administrator.plan_gc(&options).await.unwrap();
        let report = administrator.gc(plan, Arc::new(NoProgress)).await.unwrap();
        assert!(report.finished && report.old_packs > 0, "{report:?}");
    }
    assert!(!commits.is_finished(), "it was to run beside");
    commits.await.unwrap();
    feed.close().await.unwrap();
    let plan = administrator.plan_gc(&options).await.unwrap();
    assert!(administrator.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
    assert_eq!(opened_by(&administrator, kept.keyring()).await.0, 0);
    assert_eq!(paths(&store).await.len(), 403);
    let options = crate::check::CheckOptions::default().with_read_data(100.0);
    let report = open(&store).await.check(&options, Arc::new(NoProgress)).await.unwrap();
    assert!(report.is_sound(), "{:#?}", report.findings);
}
