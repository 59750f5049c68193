//! What finding a snapshot costs in a series of thousands, whose records are made here without backups.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::crypto::Secret;
use crate::id::BlobId;
use crate::kept;
use crate::layout::{CommitName, Name};
use crate::repository::{CreateOptions, OpenOptions};
use crate::snapshot::Body;
use crate::testing::series::{self, at};
use crate::testing::stores::{self, CountingStore, Hook, HookedStore, Kind as Call, SlowStore};

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
async fn a_snapshot_among_thousands_is_a_few_requests_away() {
    let (counting, repository) = filled(&[]).await;
    for number in [1, 2, 999, 1000, 1001, 1999, 2000, 2499, 2500] {
        // What counts, and the record under its number.
        let by_number = Selector::Number { series: many(), number };
        assert_eq!(find(&counting, &repository, by_number).await, (Some(number), 1, 1));
        for time in [at(number), at(number).next(), just_before(at(number + 1))] {
            let (found, lists, gets) = find(&counting, &repository, until(time)).await;
            assert!(found == Some(number) && lists <= 4 && gets <= 3 * 13, "{number}: {found:?}, {lists}, {gets}");
        }
    }
    // The buckets of the series, what counts, the names in one bucket, the record.
    assert_eq!(find(&counting, &repository, Selector::LatestOf { series: many() }).await, (Some(2500), 3, 1));
    // One listing more for all series.
    assert_eq!(find(&counting, &repository, Selector::Latest).await, (Some(2500), 4, 1));
    for absent in [0, 2501, 10_000, u64::MAX] {
        let (found, lists, gets) =
            find(&counting, &repository, Selector::Number { series: many(), number: absent }).await;
        assert!(found.is_none() && lists == 1 && gets <= 1, "{absent}: {lists} listings, {gets} reads");
    }
    assert_eq!(find(&counting, &repository, until(just_before(at(1)))).await.0, None);
    assert_eq!(find(&counting, &repository, until(Timestamp::EPOCH)).await.0, None);
    let other = Selector::LatestOf { series: "other".to_owned() };
    assert_eq!(find(&counting, &repository, other).await, (None, 2, 0));
}

#[tokio::test]
async fn what_was_fenced_is_passed_over() {
    let (counting, repository) = filled(&[1000, 2000, 2499, 2500]).await;
    let latest = Selector::LatestOf { series: many() };
    assert_eq!(find(&counting, &repository, latest).await, (Some(2498), 3, 3));
    assert_eq!(find(&counting, &repository, until(at(2000))).await.0, Some(1999));
    assert_eq!(find(&counting, &repository, Selector::Number { series: many(), number: 1000 }).await, (None, 1, 1));
    assert_eq!(repository.snapshots(Some("many")).await.unwrap().len(), 2496);
}

#[tokio::test]
async fn what_cannot_be_read_is_put_aside_and_hides_nothing_else() {
    let broken = [1, 2, 3, 1000, 1249, 1250, 1251, 2500];
    let body = |number: u64| (!broken.contains(&number)).then(|| series::snapshot(BlobId::new([0; 20])));
    let (counting, repository) = filled_with(SNAPSHOTS, body).await;
    assert_eq!(find(&counting, &repository, Selector::LatestOf { series: many() }).await.0, Some(2499));
    assert_eq!(repository.put_aside().len(), 1);
    for (time, expected) in [(3, None), (4, Some(4)), (1000, Some(999)), (1251, Some(1248)), (1252, Some(1252))] {
        assert_eq!(find(&counting, &repository, until(at(time))).await.0, expected, "{time}");
    }
    let wanted = Selector::Number { series: many(), number: 1000 };
    assert!(repository.find(&wanted).await.unwrap_err().is_corrupt(), "whoever needs it is told");
    assert_eq!(repository.snapshots(None).await.unwrap().len() as u64, SNAPSHOTS - broken.len() as u64);
    assert_eq!(repository.put_aside().len(), broken.len());
}

#[tokio::test]
async fn made_up_numbers_are_nobodys_latest() {
    let (counting, repository) = filled_with(5, |_| Some(series::snapshot(BlobId::new([0; 20])))).await;
    let tag = repository.keyring().series_tag("many");
    for number in [2_000, 7_000, 999_999_999_999_999] {
        let name = Name::Commit(CommitName { tag, number }).to_string();
        repository.store().create(&name, bytes::Bytes::from_static(b"made up")).await.unwrap();
    }
    counting.take();
    // One listing more, as the list of the series may have been published meanwhile.
    assert_eq!(find(&counting, &repository, Selector::LatestOf { series: many() }).await, (Some(5), 4, 1));
    assert_eq!(find(&counting, &repository, until(at(900))).await.0, Some(5));
    assert_eq!(repository.snapshots(None).await.unwrap().len(), 5);
    assert!(
        repository.put_aside().iter().all(|aside| aside.reason.contains("made up")),
        "{:?}",
        repository.put_aside()
    );
}

/// Publishes that snapshots don't count any more, and deletes their records.
async fn collect(repository: &Repository, gone: std::ops::RangeInclusive<u64>) {
    let (store, keyring, tag) = (repository.store(), repository.keyring(), repository.keyring().series_tag("many"));
    let none = kept::Newest::default();
    let list = none.kept.give_up(&gone.clone().collect(), *gone.end());
    assert!(kept::publish(store, keyring, repository.surroundings(), "many", &none, list).await.unwrap());
    for number in gone {
        store.delete(&Name::Commit(CommitName { tag, number }).to_string()).await.unwrap();
    }
}

/// A tombstone that followed a snapshot of the far future, which was then forgotten, hides nothing.
#[tokio::test]
async fn a_tombstone_of_the_far_future_hides_none_of_those_after_it() {
    let body = |number: u64| match number {
        51 => Some(Body::Tombstone),
        _ => Some(series::snapshot(BlobId::new([0; 20]))),
    };
    let (counting, repository) = filled_with(100, body).await;
    let name = CommitName { tag: repository.keyring().series_tag("many"), number: 51 };
    let placed = repository.timelines().read(&name).await.unwrap();
    let text = Name::Commit(name).to_string();
    let late = crate::snapshot::Record { time: Timestamp::from_nanos(i64::MAX), ..placed.record };
    let (keyring, surroundings) = (repository.keyring(), repository.surroundings());
    let sealed =
        crate::object::seal_record(&late, crate::crypto::Kind::Snapshot, &text, keyring, surroundings).unwrap();
    counting.shared().put(&text.into(), sealed.into()).await.unwrap();
    counting.take();
    for number in 1..=100 {
        let expected = if number == 51 { 50 } else { number };
        assert_eq!(find(&counting, &repository, until(at(number))).await.0, Some(expected), "{number}");
    }
}

/// What was forgotten doesn't count, whatever became of its record.
#[tokio::test]
async fn a_damaged_record_that_was_forgotten_is_no_snapshot() {
    let body = |number: u64| (number != 3).then(|| series::snapshot(BlobId::new([0; 20])));
    let (_, repository) = filled_with(5, body).await;
    let selector = Selector::Number { series: many(), number: 3 };
    assert!(repository.find(&selector).await.unwrap_err().is_corrupt());
    let none = kept::Newest::default();
    let list = none.kept.give_up(&[3].into(), 3);
    let (store, keyring) = (repository.store(), repository.keyring());
    assert!(kept::publish(store, keyring, repository.surroundings(), "many", &none, list).await.unwrap());
    assert!(repository.find(&selector).await.unwrap_err().is_not_found());
}

/// A list that is damaged may be what says that thousands of numbers were forgotten: nobody goes on before those.
#[tokio::test]
async fn where_a_damaged_list_may_say_that_thousands_were_forgotten_writers_stop() {
    let (counting, repository) = filled_with(2_005, |_| Some(series::snapshot(BlobId::new([0; 20])))).await;
    collect(&repository, 900..=2_000).await;
    counting.take();
    let latest = Selector::LatestOf { series: many() };
    assert_eq!(find(&counting, &repository, latest.clone()).await.0, Some(2_005));
    let list = Name::Kept(repository.keyring().series_tag("many"), 1).to_string();
    counting.shared().put(&list.as_str().into(), "damaged".into()).await.unwrap();
    let refused = repository.writer("many", Default::default()).await.err().unwrap();
    assert!(refused.is_corrupt() && refused.to_string().contains(&list), "{refused}");
    // Nor are these deleted for being made up.
    let accept = crate::repair::RepairOptions::default().with_accept_loss(true);
    let progress = Arc::new(crate::progress::NoProgress);
    let plan = repository.plan_repair(&accept, Arc::clone(&progress) as _).await.unwrap();
    let newest = Name::Commit(CommitName { tag: repository.keyring().series_tag("many"), number: 2_005 }).to_string();
    let step = plan.steps.iter().find(|step| step.object == newest).unwrap();
    assert!(step.action == crate::repair::RepairAction::None && step.advice.contains("list"), "{step:?}");
}

/// Forgets and deletes while names are listed that were asked for before.
#[derive(Debug)]
struct Overtakes(Repository, AtomicBool);

#[async_trait::async_trait]
impl Hook for Overtakes {
    async fn before(&self, call: &stores::Call) -> object_store::Result<()> {
        if call.kind == Call::List && call.name.starts_with("commits") && !self.1.swap(true, Ordering::SeqCst) {
            // Whatever else was asked for at the same time is answered first.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            collect(&self.0, 900..=2_000).await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_is_forgotten_while_names_are_listed_hides_nothing_that_follows() {
    for all in [false, true] {
        let (counting, inner) = filled_with(2_005, |_| Some(series::snapshot(BlobId::new([0; 20])))).await;
        let hook = Overtakes(inner, AtomicBool::new(false));
        let overtaken = HookedStore::with_hook(counting.shared(), hook).shared();
        let repository = Repository::open(overtaken, &Secret::key([7; 32]), OpenOptions::default()).await.unwrap();
        let newest = match all {
            true => repository.snapshots(Some("many")).await.unwrap().pop().unwrap(),
            false => repository.find(&Selector::LatestOf { series: many() }).await.unwrap(),
        };
        assert_eq!((newest.number, repository.put_aside()), (2_005, Vec::new()));
    }
}

/// One request takes this long, so that the time which passes counts those that wait for another.
const LATENCY: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_time_among_a_hundred_thousand_is_six_requests_in_a_row_away() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let secret = Secret::key([7; 32]);
    let repository = Repository::create(Arc::clone(&inner), &secret, CreateOptions::default()).await.unwrap();
    series::write(&repository, "many", 100_000, |_| Some(series::snapshot(BlobId::new([0; 20])))).await;
    let slow =
        Repository::open(SlowStore::new(inner, LATENCY).shared(), &secret, OpenOptions::default()).await.unwrap();
    let rounds = async |selector: Selector| {
        let begin = tokio::time::Instant::now();
        let found = slow.find(&selector).await.unwrap().number;
        (found, begin.elapsed().div_duration_f64(LATENCY).round() as u64)
    };
    for wanted in [1, 999, 1000, 50_000, 99_999, 100_000] {
        let (found, rounds) = rounds(until(at(wanted))).await;
        assert!(found == wanted && rounds <= 5, "{wanted}: {found} after {rounds}");
    }
    assert_eq!(rounds(Selector::Number { series: many(), number: 31_415 }).await, (31_415, 1));
    assert_eq!(rounds(Selector::LatestOf { series: many() }).await, (100_000, 3));

    // Most of them are forgotten, and their records gone.
    let (tag, newest) = (repository.keyring().series_tag("many"), kept::Newest::default());
    let stays = |number: u64| number.is_multiple_of(997) || number > 99_990;
    let gone: BTreeSet<u64> = (1..=100_000).filter(|number| !stays(*number)).collect();
    let list = newest.kept.give_up(&gone, 99_990);
    let (store, keyring) = (repository.store(), repository.keyring());
    assert!(kept::publish(store, keyring, repository.surroundings(), "many", &newest, list).await.unwrap());
    for number in gone {
        store.delete(&Name::Commit(CommitName { tag, number }).to_string()).await.unwrap();
    }
    for (wanted, expected) in [(997, 997), (50_000, 49_850), (99_993, 99_993), (99_700, 99_700), (99_989, 99_700)] {
        let (found, rounds) = rounds(until(at(wanted))).await;
        assert!(found == expected && rounds <= 6, "{wanted}: {found} after {rounds}");
    }
    assert_eq!(rounds(Selector::LatestOf { series: many() }).await.0, 100_000);
}
