//! What finding a snapshot costs in a series of thousands, whose records are made here without backups.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::crypto::Secret;
use crate::id::BlobId;
use crate::repository::{CreateOptions, OpenOptions};
use crate::snapshot::Body;
use crate::testing::series::{self, at};
use crate::testing::stores::{CountingStore, Kind as Call};

/// How many snapshots the series has: two full buckets and a half.
const SNAPSHOTS: u64 = 2_500;

/// A repository with a series; numbers in `fenced` are tombstones.
async fn filled(fenced: &[u64]) -> (CountingStore, Repository) {
    let body = |number: u64| {
        Some(if fenced.contains(&number) { Body::Tombstone } else { series::snapshot(BlobId::new([0; 20])) })
    };
    filled_with(SNAPSHOTS, body).await
}

async fn filled_with(count: u64, body: impl Fn(u64) -> Option<Body>) -> (CountingStore, Repository) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let secret = Secret::key([7; 32]);
    let repository = Repository::create(Arc::clone(&inner), &secret, CreateOptions::default()).await.unwrap();
    series::write(&repository, "many", count, body).await;
    let counting = CountingStore::new(inner);
    let repository = Repository::open(counting.shared(), &secret, OpenOptions::default()).await.unwrap();
    counting.take();
    (counting, repository)
}

/// Finds `selector` and says which number it was, and how many listings and reads that took.
async fn find(counting: &CountingStore, repository: &Repository, selector: Selector) -> (Option<u64>, u64, u64) {
    let found = match repository.find(&selector).await {
        Ok(snapshot) => Some(snapshot.number),
        Err(error) => {
            assert!(error.is_not_found(), "{selector:?}: {error}");
            None
        }
    };
    let counts = counting.take();
    let (lists, gets) = (counts.of(Call::List), counts.of(Call::Get));
    assert_eq!(counts.total(), lists + gets);
    (found, lists, gets)
}

fn many() -> String {
    "many".to_owned()
}

fn until(time: Timestamp) -> Selector {
    Selector::AtOrBefore { series: Some(many()), time }
}

fn just_before(time: Timestamp) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos() - 1)
}

#[tokio::test]
async fn a_snapshot_among_thousands_is_three_listings_and_a_read_away() {
    let (counting, repository) = filled(&[]).await;
    // The buckets of the series, the names in one, the record.
    for number in [1, 2, 999, 1000, 1001, 1999, 2000, 2499, 2500] {
        let by_number = Selector::Number { series: many(), number };
        assert_eq!(find(&counting, &repository, by_number).await, (Some(number), 3, 1));
        assert_eq!(find(&counting, &repository, until(at(number))).await, (Some(number), 3, 1));
        // A little later, and the next one must be looked at too: its name has only its predecessor's time.
        let expected = match number {
            SNAPSHOTS => (Some(number), 3, 1),
            999 | 1999 => (Some(number), 4, 2), // it is in the next bucket
            _ => (Some(number), 3, 2),
        };
        assert_eq!(find(&counting, &repository, until(at(number).next())).await, expected);
    }
    assert_eq!(find(&counting, &repository, Selector::LatestOf { series: many() }).await, (Some(2500), 3, 1));
    // One listing more for all series.
    assert_eq!(find(&counting, &repository, Selector::Latest).await, (Some(2500), 4, 1));
    for absent in [0, 2501, 10_000, u64::MAX] {
        let (found, lists, gets) =
            find(&counting, &repository, Selector::Number { series: many(), number: absent }).await;
        assert!(found.is_none() && lists <= 3 && gets == 0, "{absent}");
    }
    assert_eq!(find(&counting, &repository, until(just_before(at(1)))).await, (None, 3, 1));
    assert_eq!(find(&counting, &repository, until(Timestamp::EPOCH)).await, (None, 2, 0));
    let other = Selector::LatestOf { series: "other".to_owned() };
    assert_eq!(find(&counting, &repository, other).await, (None, 2, 0));
}

#[tokio::test]
async fn what_was_fenced_is_passed_over() {
    let (counting, repository) = filled(&[1000, 2000, 2499, 2500]).await;
    let latest = Selector::LatestOf { series: many() };
    assert_eq!(find(&counting, &repository, latest).await, (Some(2498), 3, 3));
    assert_eq!(find(&counting, &repository, until(at(2000))).await, (Some(1999), 4, 2));
    assert_eq!(find(&counting, &repository, Selector::Number { series: many(), number: 1000 }).await, (None, 3, 1));
    assert_eq!(repository.snapshots(Some("many")).await.unwrap().len(), 2496);
}

#[tokio::test]
async fn a_hundred_thousand_cost_no_more_than_a_few() {
    let wanted = [1, 999, 1000, 1001, 50_000, 98_999, 99_999, 100_000];
    // The others can't be read: whoever needs them fails.
    let readable = |number: u64| wanted.iter().any(|wanted| number == *wanted || number == wanted + 1);
    let body = |number: u64| readable(number).then(|| series::snapshot(BlobId::new([0; 20])));
    let (counting, repository) = filled_with(100_000, body).await;
    for number in wanted {
        let by_number = Selector::Number { series: many(), number };
        assert_eq!(find(&counting, &repository, by_number).await, (Some(number), 3, 1));
        assert_eq!(find(&counting, &repository, until(at(number))).await, (Some(number), 3, 1));
        // At most one listing and one read more, for the snapshot after that time.
        let (found, lists, gets) = find(&counting, &repository, until(at(number).next())).await;
        assert!(found == Some(number) && lists <= 4 && gets <= 2, "{number}: {lists} listings, {gets} reads");
    }
    assert_eq!(find(&counting, &repository, Selector::LatestOf { series: many() }).await, (Some(100_000), 3, 1));
}
