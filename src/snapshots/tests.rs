//! What finding a snapshot costs in a series of thousands, whose records are made here without backups.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::blobs::Stored;
use crate::crypto::{Kind, Secret};
use crate::id::{BlobId, RecordHash};
use crate::layout::{Name, SnapshotName};
use crate::object::seal_record;
use crate::repository::{CreateOptions, OpenOptions};
use crate::snapshot::{Body, Content, Record, SnapshotStats};
use crate::testing::stores::{CountingStore, Kind as Call};

/// How many snapshots the series has: two full buckets and a half.
const SNAPSHOTS: u64 = 2_500;

/// Snapshot `number` is committed at this time.
fn at(number: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000 * number as i64)
}

fn content() -> Content {
    Content {
        host: String::new(),
        tags: BTreeMap::new(),
        paths: Vec::new(),
        position: None,
        root: BlobId::new([0; 20]),
        entries: 0,
        parent: None,
        stats: SnapshotStats::default(),
        failures: Vec::new(),
        failure_count: 0,
        stored: Stored::default(),
    }
}

/// Writes the records of a series; numbers in `fenced` are tombstones.
async fn write_series(repository: &Repository, series: &str, fenced: &[u64]) {
    let (keyring, surroundings) = (repository.keyring(), repository.surroundings());
    let mut name = SnapshotName::first(keyring.series_tag(series));
    let mut predecessor = None;
    for number in 1..=SNAPSHOTS {
        let body = if fenced.contains(&number) { Body::Tombstone } else { Body::Snapshot(content()) };
        let record =
            Record { series: series.to_owned(), number, time: at(number), clock: at(number), predecessor, body };
        let text = Name::Snapshot(name).to_string();
        let sealed = seal_record(&record, Kind::Snapshot, &text, keyring, surroundings).unwrap();
        predecessor = Some(RecordHash::new(*blake3::hash(&sealed).as_bytes()));
        repository.store().create(&text, sealed.into()).await.unwrap();
        name = name.next(at(number)).unwrap();
    }
}

async fn filled(fenced: &[u64]) -> (CountingStore, Repository) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let secret = Secret::key([7; 32]);
    let repository = Repository::create(Arc::clone(&inner), &secret, CreateOptions::default()).await.unwrap();
    write_series(&repository, "many", fenced).await;
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
async fn a_snapshot_among_thousands_is_two_listings_and_a_read_away() {
    let (counting, repository) = filled(&[]).await;
    // The buckets of the series, the names in one, the record.
    for number in [1, 2, 999, 1000, 1001, 1999, 2000, 2499, 2500] {
        let by_number = Selector::Number { series: many(), number };
        assert_eq!(find(&counting, &repository, by_number).await, (Some(number), 2, 1));
        assert_eq!(find(&counting, &repository, until(at(number))).await, (Some(number), 2, 1));
        // A little later, and the next one must be looked at too: its name has only its predecessor's time.
        let expected = match number {
            SNAPSHOTS => (Some(number), 2, 1),
            999 | 1999 => (Some(number), 3, 2), // it is in the next bucket
            _ => (Some(number), 2, 2),
        };
        assert_eq!(find(&counting, &repository, until(at(number).next())).await, expected);
    }
    assert_eq!(find(&counting, &repository, Selector::LatestOf { series: many() }).await, (Some(2500), 2, 1));
    // One listing more for all series.
    assert_eq!(find(&counting, &repository, Selector::Latest).await, (Some(2500), 3, 1));
    for absent in [0, 2501, 10_000, u64::MAX] {
        let (found, lists, gets) =
            find(&counting, &repository, Selector::Number { series: many(), number: absent }).await;
        assert!(found.is_none() && lists <= 2 && gets == 0, "{absent}");
    }
    assert_eq!(find(&counting, &repository, until(just_before(at(1)))).await, (None, 2, 1));
    assert_eq!(find(&counting, &repository, until(Timestamp::EPOCH)).await, (None, 1, 0));
    let other = Selector::LatestOf { series: "other".to_owned() };
    assert_eq!(find(&counting, &repository, other).await, (None, 1, 0));
}

#[tokio::test]
async fn what_was_fenced_is_passed_over() {
    let (counting, repository) = filled(&[1000, 2000, 2499, 2500]).await;
    let latest = Selector::LatestOf { series: many() };
    assert_eq!(find(&counting, &repository, latest).await, (Some(2498), 2, 3));
    assert_eq!(find(&counting, &repository, until(at(2000))).await, (Some(1999), 3, 2));
    assert_eq!(find(&counting, &repository, Selector::Number { series: many(), number: 1000 }).await, (None, 2, 1));
    assert_eq!(repository.snapshots(Some("many")).await.unwrap().len(), 2496);
}
