//! What a history costs in long series, whose records are made here without backups.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::backup::BackupOptions;
use crate::crypto::Secret;
use crate::id::BlobId;
use crate::progress::NoProgress;
use crate::repository::{CreateOptions, OpenOptions};
use crate::snapshot::Body;
use crate::testing::series;
use crate::testing::stores::{CountingStore, Counts, Kind, SlowStore};

/// A repository, a store that counts, and two trees that differ in the file `1/b`.
struct Setting {
    counting: CountingStore,
    repository: Repository,
    /// Makes series without being counted.
    maker: Repository,
    folder: Key,
    roots: [BlobId; 2],
}

impl Setting {
    async fn new() -> Self {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let secret = Secret::key([7; 32]);
        let maker = Repository::create(Arc::clone(&inner), &secret, CreateOptions::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Long enough that the files don't share a leaf.
        let text = "contact ".repeat(120);
        for name in ["0/a", "1/b", "2/c", "3/d", "4/e", "5/f", "6/g", "7/h", "8/i", "9/j"] {
            for number in 0..5 {
                write(&folder.path().join(format!("{name}{number}")), &format!("{text}{name}{number}"));
            }
            write(&folder.path().join(name), &text);
        }
        let first = back_up(&maker, folder.path()).await;
        write(&folder.path().join("1/b"), "changed");
        let second = back_up(&maker, folder.path()).await;
        // Every call waits, so that what is read ahead is begun.
        let counting = CountingStore::new(SlowStore::new(inner, Duration::from_millis(1)).shared());
        let repository = Repository::open(counting.shared(), &secret, OpenOptions::default()).await.unwrap();
        let path = folder.path().to_str().unwrap().trim_start_matches('/');
        let folder = Key::from_path(path).unwrap();
        Self { counting, repository, maker, folder, roots: [first, second] }
    }

    /// A series in which each snapshot has the other tree than the one before; tombstones between them don't count.
    async fn alternate(&self, count: u64, fenced: impl Fn(u64) -> bool, readable: impl Fn(u64) -> bool) {
        let mut turn = BTreeMap::new();
        for number in (1..=count).filter(|number| !fenced(*number)) {
            turn.insert(number, turn.len() % 2);
        }
        let body = |number: u64| match turn.get(&number) {
            Some(turn) => series::snapshot(self.roots[*turn]),
            None => Body::Tombstone,
        };
        series::write(&self.maker, "many", count, |number| readable(number).then(|| body(number))).await;
    }

    fn path(&self, path: &str) -> Key {
        Key::from_path(format!("{}/{path}", self.folder)).unwrap()
    }

    /// The numbers of the snapshots that changed a path, and the calls that finding them took.
    async fn history(&self, path: &str, options: &HistoryOptions) -> (Vec<u64>, Counts) {
        self.counting.take();
        let revisions = self.repository.history("many", &self.path(path), options);
        let numbers = revisions.map_ok(|revision| revision.snapshot.number).try_collect().await.unwrap();
        (numbers, self.counting.take())
    }
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

async fn back_up(repository: &Repository, folder: &Path) -> BlobId {
    // What was just written isn't relied on yet, and would differ in the next backup.
    std::thread::sleep(Duration::from_millis(25));
    let options = BackupOptions::default().with_series("source");
    let report = repository.backup(&[folder.to_owned()], &options, Arc::new(NoProgress)).await.unwrap();
    report.snapshot.unwrap().root
}

/// Listings and reads of records, and reads of packs.
fn calls(counts: &Counts) -> (u64, u64, u64) {
    let of = |kind, prefix| counts.under(kind, prefix);
    (of(Kind::List, "commits"), of(Kind::Get, "commits/"), of(Kind::Get, "packs/"))
}

#[tokio::test]
async fn the_newest_few_of_many_read_no_more_than_they_need() {
    let setting = Setting::new().await;
    // Whoever needs an older record fails.
    setting.alternate(100_000, |_| false, |number| number > 99_989).await;
    let ten = HistoryOptions::default().with_limit(10);
    let (found, counts) = setting.history("1/b", &ten).await;
    assert_eq!(found, (99_991..=100_000).rev().collect::<Vec<_>>());
    // The buckets, the newest with one record, the one before it; the ten and what the last is compared with; the
    // nodes of both trees, which share a block in each pack.
    assert_eq!(calls(&counts), (3, 11, 2));

    let setting = Setting::new().await;
    setting.alternate(5_000, |_| false, |number| (3_500..=3_601).contains(&number)).await;
    let part = HistoryOptions::default().with_from(3_501).with_until(3_600);
    let (found, counts) = setting.history("1/b", &part).await;
    assert_eq!(found, (3_501..=3_600).rev().collect::<Vec<_>>());
    assert_eq!(calls(&counts), (2, 101, 2));
    // A time is looked for first, and what comes before a time isn't known before it is read.
    let setting = Setting::new().await;
    setting.alternate(5_000, |_| false, |_| true).await;
    for (from, until) in [(3_501, 3_600), (3_500, 3_600)] {
        let from = if from == 3_500 { series::at(from).next() } else { series::at(from) };
        let by_time = HistoryOptions::default().with_from(Moment::Time(from)).with_until(series::at(until).next());
        let (again, counts) = setting.history("1/b", &by_time).await;
        let (lists, records, _) = calls(&counts);
        assert!(again == found && lists <= 3 && records <= 101 + 16 + 4 * 17, "{lists} listings, {records} records");
    }
}

#[tokio::test]
async fn a_path_that_did_not_change_costs_the_records() {
    let setting = Setting::new().await;
    setting.alternate(2_500, |_| false, |_| true).await;
    let (found, counts) = setting.history("8/i3", &HistoryOptions::default()).await;
    assert_eq!(found, [1], "the first snapshot added it");
    // The series, its three buckets, every record, and of each tree one block of nodes.
    assert_eq!(calls(&counts), (4, 2_500, 2));
    let (found, counts) = setting.history("8/nothing", &HistoryOptions::default().with_from(2).with_limit(1)).await;
    assert!(found.is_empty());
    assert_eq!(calls(&counts), (4, 2_500, 0));
}

#[tokio::test]
async fn what_was_fenced_changed_nothing() {
    let setting = Setting::new().await;
    let fenced = |number: u64| number == 1 || number.is_multiple_of(3) || (995..1005).contains(&number);
    setting.alternate(1_100, fenced, |_| true).await;
    let (found, _) = setting.history("1/b", &HistoryOptions::default()).await;
    assert_eq!(found, (1..=1_100).rev().filter(|number| !fenced(*number)).collect::<Vec<_>>());
    // The snapshot before the first that is wanted lies before tombstones.
    let (found, counts) = setting.history("1/b", &HistoryOptions::default().with_from(1_005).with_until(1_007)).await;
    assert_eq!(found, [1_007, 1_006, 1_005].iter().copied().filter(|number| !fenced(*number)).collect::<Vec<_>>());
    assert_eq!(calls(&counts).1, 1_007 - 994 + 1);
}

#[tokio::test]
async fn a_series_without_snapshots_has_no_history() {
    let setting = Setting::new().await;
    assert!(setting.history("1/b", &HistoryOptions::default()).await.0.is_empty());
    setting.alternate(5, |_| true, |_| true).await;
    assert!(setting.history("1/b", &HistoryOptions::default()).await.0.is_empty());
    let wrong = setting.repository.history("a#b", &setting.path("1/b"), &HistoryOptions::default());
    assert!(wrong.try_collect::<Vec<_>>().await.is_err());
}
