//! Attacks on a repository that is in use: what others put on the store costs nobody what was acknowledged.
//!
//! `garbage`: by whoever can add objects and has no key. `forged`: by the holder of an append-only secret, who seals
//! what he likes. `confused`: what he takes for something else. `beyond`: by those who combine such. `alone`: by rot, and
//! by clocks. `passing`: failures that pass, beside a repair. Each test says what goes on beside the attack, who stops, and
//! what ends it. Merges are attacked in `merge`, keys in `keys`, trees in `tree` and `repair`, padding in `pack`.

mod alone;
mod beyond;
mod confused;
mod forged;
mod garbage;
mod passing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;

use crate::check::{CheckOptions, CheckReport};
use crate::clock::{Clock, Surroundings, SystemEntropy, Timestamp};
use crate::crypto::Secret;
use crate::error::Result;
use crate::feed::{Feed, FeedOptions};
use crate::files::Metadata;
use crate::forget::ForgetOptions;
use crate::gc::{GcOptions, GcReport};
use crate::id::SeriesTag;
use crate::layout::{CommitName, Name};
use crate::progress::NoProgress;
use crate::repair::{RepairOptions, RepairReport};
use crate::repository::{CreateOptions, OpenOptions, Repository};
use crate::snapshot::Snapshot;
use crate::snapshots::Selector;
use crate::testing::{Random, packs};
use crate::tree::Key;
use crate::writer::{CommitOptions, WriterOptions};

/// The series that is attacked, and one beside it.
const SERIES: &str = "accounts";
const OTHER: &str = "photos";

const DAY: i64 = 86_400_000_000_000;
const START: i64 = 1_700_000_000_000_000_000;

/// A clock that is set, and goes on by a millisecond whenever it is looked at.
#[derive(Debug)]
struct Set(AtomicI64);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.fetch_add(1_000_000, Ordering::SeqCst))
    }
}

/// What was acknowledged: series and number, and the content of what was put, by path.
type Acknowledged = BTreeMap<(String, u64), (String, Vec<u8>)>;

/// A repository of an administrator and a server, whose secret is append-only and known to the attacker.
struct World {
    store: Arc<dyn ObjectStore>,
    clock: Arc<Set>,
    acknowledged: Mutex<Acknowledged>,
    tag: SeriesTag,
}

impl World {
    /// Six days of a series, the first two forgotten and collected, and another series.
    async fn new() -> Self {
        let world = Self::empty().await;
        for day in 0..6 {
            world.on_day(day);
            world.commit(SERIES, day as u64).await.unwrap();
        }
        world.commit(OTHER, 100).await.unwrap();
        world.forget(SERIES, &[1, 2]).await.unwrap();
        world.on_day(6);
        assert!(world.collect().await.unwrap().finished);
        assert!(!world.exists(world.commit_name(1)).await && world.exists("gc/000000000000001").await);
        world
    }

    async fn empty() -> Self {
        let (store, clock) = (Arc::new(InMemory::new()), Arc::new(Set(AtomicI64::new(START))));
        let mut world = Self { store, clock, acknowledged: Mutex::default(), tag: SeriesTag::new([0; 16]) };
        let options = CreateOptions::default().with_open(world.options());
        let created = Repository::create(Arc::clone(&world.store), &Secret::key([7; 32]), options).await.unwrap();
        created.add_append_only_key(&Secret::key([8; 32]), "server").await.unwrap();
        world.tag = created.keyring().series_tag(SERIES);
        world
    }

    fn options(&self) -> OpenOptions {
        let surroundings = Surroundings { clock: Arc::clone(&self.clock) as _, entropy: Arc::new(SystemEntropy) };
        OpenOptions::default().with_surroundings(surroundings)
    }

    fn on_day(&self, day: i64) {
        self.clock.0.store(START + day * DAY, Ordering::SeqCst);
    }

    async fn administrator(&self) -> Repository {
        Repository::open(Arc::clone(&self.store), &Secret::key([7; 32]), self.options()).await.unwrap()
    }

    async fn server(&self) -> Repository {
        Repository::open(Arc::clone(&self.store), &Secret::key([8; 32]), self.options()).await.unwrap()
    }

    async fn put(&self, name: impl ToString, bytes: impl Into<Bytes>) {
        self.store.put(&name.to_string().into(), bytes.into().into()).await.unwrap();
    }

    async fn get(&self, name: impl ToString) -> Vec<u8> {
        self.store.get(&name.to_string().into()).await.unwrap().bytes().await.unwrap().to_vec()
    }

    /// The same repository elsewhere.
    async fn copy(&self) -> Self {
        let (store, clock) = (Arc::new(InMemory::new()), Arc::clone(&self.clock));
        let copy = Self { store, clock, acknowledged: Mutex::default(), tag: self.tag };
        for name in self.names("").await {
            let bytes = self.get(&name).await;
            copy.put(name, bytes).await;
        }
        copy
    }

    async fn exists(&self, name: impl ToString) -> bool {
        self.store.head(&name.to_string().into()).await.is_ok()
    }

    async fn names(&self, prefix: &str) -> Vec<String> {
        let listed: Vec<_> = self.store.list(Some(&prefix.into())).try_collect().await.unwrap();
        let mut names: Vec<_> = listed.into_iter().map(|object| object.location.to_string()).collect();
        names.sort();
        names
    }

    /// The one registration of a writer that runs.
    async fn running(&self) -> Name {
        let names = self.names("writers").await;
        let ended = |name: &String| names.contains(&format!("{name}-ended"));
        let running: Vec<_> = names.iter().filter(|name| !name.ends_with("-ended") && !ended(name)).collect();
        assert_eq!(running.len(), 1, "{names:?}");
        Name::parse(running[0]).unwrap()
    }

    /// Commits a file to a series with the server's secret.
    async fn commit(&self, series: &str, seed: u64) -> Result<u64> {
        let (path, content) = (format!("file/{seed}"), Random::new(seed).bytes(5000));
        let server = self.server().await;
        let writer = server.writer(series, WriterOptions::default()).await?;
        writer.put(&key(&path), content.clone(), &Metadata::default()).await?;
        let number = writer.commit(CommitOptions::default()).await?.number;
        self.acknowledged.lock().unwrap().insert((series.to_owned(), number), (path, content));
        Ok(number)
    }

    async fn feed(&self) -> Feed {
        self.server().await.feed(SERIES, FeedOptions::default()).await.unwrap()
    }

    /// Puts a file by a feed that runs.
    async fn put_by(&self, feed: &Feed, seed: u64) -> Result<u64> {
        let (path, content) = (format!("feed/{seed}"), Random::new(seed).bytes(300));
        let number = feed.put(&key(&path), content.clone(), &Metadata::default()).await?.number;
        self.acknowledged.lock().unwrap().insert((SERIES.to_owned(), number), (path, content));
        Ok(number)
    }

    /// Forgets snapshots, which then weren't lost.
    async fn forget(&self, series: &str, numbers: &[u64]) -> Result<()> {
        let options = ForgetOptions::default().with_undelete_for(Duration::ZERO);
        let options = numbers.iter().fold(options, |options, number| options.with_snapshot(series, *number));
        let administrator = self.administrator().await;
        administrator.forget(&administrator.plan_forget(&options).await?).await?;
        self.acknowledged.lock().unwrap().retain(|(of, number), _| of != series || !numbers.contains(number));
        Ok(())
    }

    async fn collect(&self) -> Result<GcReport> {
        self.collect_with(&GcOptions::default().with_wait(Duration::ZERO)).await
    }

    async fn collect_with(&self, options: &GcOptions) -> Result<GcReport> {
        let administrator = self.administrator().await;
        let plan = administrator.plan_gc(options).await?;
        administrator.gc(plan, Arc::new(NoProgress)).await
    }

    async fn repair(&self, options: &RepairOptions) -> Result<RepairReport> {
        let administrator = self.administrator().await;
        let plan = administrator.plan_repair(options, Arc::new(NoProgress)).await?;
        administrator.repair(plan, Arc::new(NoProgress)).await
    }

    async fn check(&self) -> CheckReport {
        let options = CheckOptions::default().with_read_data(100.0);
        self.administrator().await.check(&options, Arc::new(NoProgress)).await.unwrap()
    }

    async fn assert_sound(&self, what: &str) {
        let report = self.check().await;
        let wrong: Vec<_> = report.findings.iter().filter(|finding| !finding.kind.is_informational()).collect();
        assert!(report.is_sound() && wrong.is_empty(), "{what}: {wrong:#?}");
    }

    /// Everything that was acknowledged and that nobody forgot is read back, by its number.
    async fn assert_all_there(&self, what: &str) {
        let administrator = self.administrator().await;
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        for ((series, number), (path, content)) in acknowledged {
            let found = administrator.find(&Selector::Number { series: series.clone(), number }).await;
            let found = found.unwrap_or_else(|error| panic!("{what}: {series}#{number}: {error}"));
            assert!(read(&administrator, &found, &path).await == content, "{what}: {series}#{number}");
        }
    }

    /// That, and all of it is in the latest of its series.
    async fn assert_nothing_lost(&self, what: &str) {
        self.assert_all_there(what).await;
        let administrator = self.administrator().await;
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        for ((series, number), (path, content)) in acknowledged {
            let latest = administrator.find(&Selector::LatestOf { series: series.clone() }).await.unwrap();
            assert!(latest.number >= number, "{what}: the latest of {series} is {latest}");
            assert!(read(&administrator, &latest, &path).await == content, "{what}: {path} in {latest}");
        }
    }

    async fn numbers(&self) -> Vec<u64> {
        self.administrator().await.snapshots(Some(SERIES)).await.unwrap().iter().map(|found| found.number).collect()
    }

    fn commit_name(&self, number: u64) -> Name {
        Name::Commit(CommitName { tag: self.tag, number })
    }
}

async fn read(repository: &Repository, snapshot: &Snapshot, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = repository.read_file(snapshot, &key(path)).await.unwrap();
    file.read_to_end(&mut bytes).await.unwrap();
    bytes
}

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}
