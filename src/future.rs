//! What a later version may write, as this one meets it: it says what is needed, touches nothing, calls nothing damaged,
//! and reads everything else.
//!
//! Builds repositories "from the future" by forging objects whose hashes fit: newer versions and kinds, key generations
//! that the secret doesn't give, extensions, entries of unknown kinds. In here since it takes the keyring.

mod entries;
mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;

use crate::check::{CheckOptions, CheckReport};
use crate::crypto::Secret;
use crate::error::Result;
use crate::files::Metadata;
use crate::gc::GcOptions;
use crate::progress::NoProgress;
use crate::repair::{RepairOptions, RepairPlan};
use crate::repository::{CreateOptions, OpenOptions, Repository};
use crate::snapshot::Snapshot;
use crate::snapshots::Selector;
use crate::testing::Random;
use crate::tree::Key;
use crate::writer::{CommitOptions, WriterOptions};

const SERIES: &str = "photos";

/// A repository of this version, to which what a later one may write is added.
struct World {
    store: Arc<dyn ObjectStore>,
    repository: Repository,
}

impl World {
    async fn new() -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let created = Repository::create(Arc::clone(&store), &Secret::key([7; 32]), CreateOptions::default()).await;
        created.unwrap();
        let world = Self { repository: open(&store).await, store };
        for number in 0..3 {
            world.commit(number).await;
        }
        world
    }

    /// One to which a list, a collection that has ended, and a segment were added.
    async fn with_everything() -> Self {
        let world = Self::new().await;
        let forget =
            crate::forget::ForgetOptions::default().with_snapshot(SERIES, 1).with_undelete_for(Default::default());
        let plan = world.repository.plan_forget(&forget).await.unwrap();
        world.repository.forget(&plan).await.unwrap();
        world.collect().await.unwrap();
        for prefix in ["keys/", "packs/", "index/", "kept/", "gc/"] {
            assert!(world.objects().await.keys().any(|name| name.starts_with(prefix)), "{prefix}");
        }
        world
    }

    async fn commit(&self, number: u64) -> Snapshot {
        let writer = self.repository.writer(SERIES, WriterOptions::default()).await.unwrap();
        let content = Random::new(number).bytes(50_000);
        writer.put(&key(&format!("ana/{number}")), content, &Metadata::default()).await.unwrap();
        writer.put(&key("latest"), number.to_string(), &Metadata::default()).await.unwrap();
        writer.commit(CommitOptions::default()).await.unwrap()
    }

    async fn put(&self, name: impl ToString, bytes: Vec<u8>) {
        self.store.put(&name.to_string().into(), Bytes::from(bytes).into()).await.unwrap();
    }

    async fn get(&self, name: impl ToString) -> Vec<u8> {
        self.store.get(&name.to_string().into()).await.unwrap().bytes().await.unwrap().to_vec()
    }

    async fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let listed: Vec<_> = self.store.list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for object in listed {
            objects.insert(object.location.to_string(), self.get(object.location).await);
        }
        objects
    }

    /// The first object under a prefix, by name.
    async fn first(&self, prefix: &str) -> (String, Vec<u8>) {
        let mut objects = self.objects().await.into_iter();
        objects.find(|(name, _)| name.starts_with(prefix)).unwrap()
    }

    async fn check(&self) -> CheckReport {
        let options = CheckOptions::default().with_read_data(100.0);
        open(&self.store).await.check(&options, Arc::new(NoProgress)).await.unwrap()
    }

    /// A plan that may do all that a repair may.
    async fn plan_repair(&self) -> RepairPlan {
        let options = RepairOptions::default().with_accept_loss(true).with_remove_damaged_writers(true);
        open(&self.store).await.plan_repair(&options, Arc::new(NoProgress)).await.unwrap()
    }

    async fn collect(&self) -> Result<()> {
        let administrator = open(&self.store).await;
        let options = GcOptions::default().with_fence_after(Default::default());
        let plan = administrator.plan_gc(&options).await?;
        administrator.gc(plan, Arc::new(NoProgress)).await.map(drop)
    }

    async fn merge(&self) -> Result<()> {
        let administrator = open(&self.store).await;
        let plan = administrator.plan_merge_of(1, 1).await?;
        administrator.merge(&plan).await.map(drop)
    }

    /// Checks, plans a repair and carries it out: nothing is called damaged, something is said to need `needs`, and
    /// nothing is touched.
    async fn is_left_alone(&self, what: &str, needs: &str) {
        let before = self.objects().await;
        let report = self.check().await;
        assert_eq!(report.defects, 0, "{what}: {:#?}", report.findings);
        assert!(report.unsupported > 0 && !report.is_sound(), "{what}: {:#?}", report.findings);
        let said = report.findings.iter().any(|finding| finding.problem.contains(needs));
        assert!(said, "{what}: {:#?}", report.findings);
        let plan = self.plan_repair().await;
        assert!(!plan.is_due() && !plan.is_sound() && plan.lost.is_empty(), "{what}: {plan:#?}");
        assert!(plan.steps.iter().all(|step| step.unsupported), "{what}: {:#?}", plan.steps);
        assert!(plan.steps.iter().any(|step| step.problem.contains(needs)), "{what}: {:#?}", plan.steps);
        let repaired = open(&self.store).await.repair(plan, Arc::new(NoProgress)).await.unwrap();
        assert!(!repaired.is_complete(), "{what}: {repaired:#?}");
        assert!(self.objects().await == before, "{what}: something was touched");
    }

    /// A collection stops, says why, and touches nothing.
    async fn stops_collections(&self, what: &str, needs: &str) {
        let before = self.objects().await;
        let error = self.collect().await.unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(needs), "{what}: {error}");
        assert!(self.objects().await == before, "{what}: something was touched");
    }

    /// Everything of snapshot `number` is read but what is left out.
    async fn reads(&self, number: u64, leave_out: &[&str]) {
        let repository = open(&self.store).await;
        let snapshot = repository.find(&Selector::Number { series: SERIES.to_owned(), number }).await.unwrap();
        let entries: Vec<_> = repository.entries(&snapshot, None).try_collect().await.unwrap();
        let names = entries.into_iter().map(|(key, _)| key.to_string());
        let files: Vec<_> = names.filter(|name| !leave_out.contains(&name.as_str())).collect();
        assert!(files.iter().any(|file| file == "latest") && files.iter().any(|file| file == "ana/2"), "{files:?}");
        for file in files {
            let mut bytes = Vec::new();
            repository.read_file(&snapshot, &key(&file)).await.unwrap().read_to_end(&mut bytes).await.unwrap();
        }
    }
}

async fn open(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Arc::clone(store), &Secret::key([7; 32]), OpenOptions::default()).await.unwrap()
}

fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}
