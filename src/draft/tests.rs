//! Drafts against plain maps: whatever is called in whatever order, and whenever portions are applied.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::blobs::WriteOptions;
use crate::crypto::Secret;
use crate::files::Metadata;
use crate::id::{RecordHash, WriterId};
use crate::repository::CreateOptions;
use crate::snapshot::{Body, Content, Placed, Record};
use crate::testing::{NOW, Random};
use crate::tree::{EntryKind, Payload};

type Model = BTreeMap<Key, Entry>;

#[derive(Clone, Debug)]
enum Call {
    Put(Key, u8),
    Remove(Key),
    RemovePrefix(Key),
    Rename(Key, Key),
    Apply,
}

fn keys() -> impl Strategy<Value = Key> {
    prop::collection::vec("[abc]|a!", 1..4).prop_map(|parts| Key::new(parts).unwrap())
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        8 => (keys(), 0u8..4).prop_map(|(key, content)| Call::Put(key, content)),
        3 => keys().prop_map(Call::Remove),
        2 => keys().prop_map(Call::RemovePrefix),
        1 => (keys(), keys()).prop_map(|(from, to)| Call::Rename(from, to)),
        1 => Just(Call::Apply),
    ];
    prop::collection::vec(call, 0..40)
}

fn entry(content: u8) -> Entry {
    Entry::new(EntryKind::File, Bytes::from(vec![content; 3]).into(), Payload::default())
}

fn apply_to(model: &mut Model, call: &Call) -> bool {
    let below = |model: &Model, prefix: &Key| -> Model {
        let found = model.iter().filter(|(key, _)| key.starts_with(prefix));
        found.map(|(key, entry)| (key.clone(), entry.clone())).collect()
    };
    match call {
        Call::Put(key, content) => drop(model.insert(key.clone(), entry(*content))),
        Call::Remove(key) => drop(model.remove(key)),
        Call::RemovePrefix(prefix) => model.retain(|key, _| !key.starts_with(prefix)),
        Call::Rename(from, to) => {
            if from.starts_with(to) || to.starts_with(from) || !below(model, to).is_empty() {
                return false;
            }
            for (key, entry) in below(model, from) {
                model.remove(&key);
                let rest: Vec<_> = key.components().skip(from.depth()).map(<[u8]>::to_vec).collect();
                let key = rest.iter().fold(to.clone(), |key, part| key.join(part).unwrap());
                model.insert(key, entry);
            }
        }
        Call::Apply => {}
    }
    true
}

struct Bed {
    runtime: Runtime,
    repository: Repository,
}

impl Bed {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
        let secret = Secret::key([7; 32]);
        let repository = runtime.block_on(Repository::create(store, &secret, CreateOptions::default())).unwrap();
        Self { runtime, repository }
    }

    fn blobs(&self) -> BlobWriter {
        BlobWriter::new(
            self.repository.parts().clone(),
            WriterId::new([1; 16]),
            Arc::default(),
            WriteOptions::default(),
        )
    }

    async fn make(&self, draft: &mut Draft, blobs: &mut BlobWriter, call: &Call) -> Result<()> {
        match call.clone() {
            Call::Put(key, content) => draft.put(key, entry(content))?,
            Call::Remove(key) => draft.remove(key),
            Call::RemovePrefix(key) => draft.remove_prefix(key),
            Call::Rename(from, to) => drop(draft.rename_prefix(&from, &to, blobs).await?),
            Call::Apply => drop(draft.apply(blobs).await?),
        }
        Ok(())
    }

    /// The tree of a model, built from nothing and stored, as a snapshot.
    async fn snapshot(&self, model: &Model) -> Snapshot {
        let (mut draft, mut blobs) = (Draft::new(&self.repository, None), self.blobs());
        for (key, entry) in model {
            draft.put(key.clone(), entry.clone()).unwrap();
        }
        let root = draft.apply(&mut blobs).await.unwrap();
        blobs.flush().await.unwrap();
        snapshot(root)
    }
}

fn snapshot(root: Root) -> Snapshot {
    let content = Content { root: root.id, entries: root.entries, ..content() };
    let record = Record {
        series: "s".to_owned(),
        number: 1,
        time: NOW,
        clock: NOW,
        predecessor: None,
        body: Body::Snapshot(content),
        extensions: Default::default(),
    };
    Placed { hash: RecordHash::new([0; 32]), record }.into_snapshot().unwrap()
}

fn content() -> Content {
    Content {
        host: String::new(),
        tags: BTreeMap::new(),
        paths: Vec::new(),
        position: None,
        root: crate::id::BlobId::new([0; 20]),
        entries: 0,
        parent: None,
        origin: None,
        stats: SnapshotStats::default(),
        failures: Vec::new(),
        failure_count: 0,
        stored: crate::blobs::Stored::default(),
    }
}

async fn all(draft: &Draft, prefix: Option<&Key>) -> Vec<(Key, Entry)> {
    draft.entries(prefix).try_collect().await.unwrap()
}

fn owned<'a>(entries: impl Iterator<Item = (&'a Key, &'a Entry)>) -> Vec<(Key, Entry)> {
    entries.map(|(key, entry)| (key.clone(), entry.clone())).collect()
}

/// The keys at which two maps differ.
fn differences(a: &Model, b: &Model) -> Vec<Key> {
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    keys.into_iter().filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
}

#[test]
fn a_draft_is_its_calls_in_order() {
    let bed = Bed::new();
    proptest!(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }, |(
        before in calls(), calls in calls(), probe in keys()
    )| {
        bed.runtime.block_on(async {
            let mut model = Model::new();
            before.iter().for_each(|call| { apply_to(&mut model, call); });
            let base = model.clone();
            let parent = bed.snapshot(&model).await;
            let parent = (!before.is_empty()).then_some(&parent);
            let (mut draft, mut blobs) = (Draft::new(&bed.repository, parent), bed.blobs());
            let mut portions = 0;
            for call in &calls {
                let sound = apply_to(&mut model, call);
                prop_assert_eq!(bed.make(&mut draft, &mut blobs, call).await.is_ok(), sound);
                portions += usize::from(matches!(call, Call::Apply));
            }
            prop_assert_eq!(all(&draft, None).await, owned(model.iter()));
            let below = owned(model.iter().filter(|(key, _)| key.starts_with(&probe)));
            prop_assert_eq!(all(&draft, Some(&probe)).await, below);
            for key in model.keys().chain([&probe]) {
                prop_assert_eq!(&draft.entry(key).await.unwrap(), &model.get(key).cloned());
            }
            let root = draft.apply(&mut blobs).await.unwrap();
            let whole = bed.snapshot(&model).await;
            prop_assert_eq!((root.id, root.entries), (whole.root, whole.entries));
            if portions == 0 {
                let stats = draft.stats(blobs.stats());
                let differing = differences(&base, &model);
                let added = differing.iter().filter(|key| !base.contains_key(*key)).count() as u64;
                let removed = differing.iter().filter(|key| !model.contains_key(*key)).count() as u64;
                prop_assert_eq!((stats.added, stats.removed), (added, removed));
                prop_assert_eq!(stats.changed, differing.len() as u64 - added - removed);
                prop_assert_eq!(stats.files, model.len() as u64);
            }
            Ok(())
        })?;
    });
}

#[test]
fn a_rebase_merges_what_does_not_overlap_and_names_what_does() {
    let bed = Bed::new();
    let merged = std::cell::Cell::new(0);
    proptest!(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }, |(
        before in calls(), ours in calls(), theirs in calls(), few in 0usize..6, from_nothing in prop::bool::weighted(0.2)
    )| {
        bed.runtime.block_on(async {
            let mut base = Model::new();
            if !from_nothing {
                before.iter().for_each(|call| { apply_to(&mut base, call); });
            }
            let parent = bed.snapshot(&base).await;
            let parent = (!from_nothing).then_some(&parent);
            let (ours, theirs) = (&ours[..ours.len().min(few)], &theirs[..theirs.len().min(few)]);
            let (mut our, mut their) = (base.clone(), base.clone());
            let (mut draft, mut blobs) = (Draft::new(&bed.repository, parent), bed.blobs());
            let mut removed = Vec::new();
            for call in ours {
                let sound = apply_to(&mut our, call);
                prop_assert_eq!(bed.make(&mut draft, &mut blobs, call).await.is_ok(), sound);
                match call {
                    Call::RemovePrefix(prefix) => removed.push(prefix.clone()),
                    Call::Rename(from, _) if sound => removed.push(from.clone()),
                    _ => {}
                }
            }
            theirs.iter().for_each(|call| { apply_to(&mut their, call); });
            let onto = bed.snapshot(&their).await;
            let (changed, changes) = (differences(&base, &our), differences(&base, &their));
            let overlap: Vec<_> = changes
                .iter()
                .filter(|key| our.get(*key) != their.get(*key))
                .filter(|key| changed.contains(key) || removed.iter().any(|prefix| key.starts_with(prefix)))
                .cloned()
                .collect();
            let found = draft.rebase(Some(&onto), &mut blobs).await.unwrap();
            prop_assert_eq!(&found[..], &overlap[..overlap.len().min(10)]);
            if !found.is_empty() {
                // Nothing changed.
                prop_assert_eq!(all(&draft, None).await, owned(our.iter()));
                return Ok(());
            }
            let mut both = their.clone();
            for key in &changed {
                match our.get(key) {
                    Some(entry) => drop(both.insert(key.clone(), entry.clone())),
                    None => drop(both.remove(key)),
                }
            }
            merged.set(merged.get() + usize::from(!changed.is_empty() && !changes.is_empty()));
            let root = draft.apply(&mut blobs).await.unwrap();
            let whole = bed.snapshot(&both).await;
            prop_assert_eq!((root.id, root.entries), (whole.root, whole.entries));
            // Prefixes removed before are still guarded, and the new base is the other's.
            prop_assert_eq!(draft.stats(blobs.stats()).files, both.len() as u64);
            let again = draft.rebase(Some(&onto), &mut blobs).await.unwrap();
            prop_assert!(again.is_empty());
            Ok(())
        })?;
    });
    assert!(merged.get() > 20, "{} cases were merged", merged.get());
}

#[test]
fn changes_that_are_moved_twice_overlap_as_they_were_made() {
    let bed = Bed::new();
    let key = |path: &str| Key::from_path(path).unwrap();
    bed.runtime.block_on(async {
        let base = Model::from([(key("a"), entry(1)), (key("b"), entry(1))]);
        let parent = bed.snapshot(&base).await;
        let (mut draft, mut blobs) = (Draft::new(&bed.repository, Some(&parent)), bed.blobs());
        draft.put(key("a"), entry(2)).unwrap();
        // First the other writer changes it alike, then otherwise.
        let alike = bed.snapshot(&Model::from([(key("a"), entry(2)), (key("b"), entry(2))])).await;
        assert_eq!(draft.rebase(Some(&alike), &mut blobs).await.unwrap(), []);
        let otherwise = bed.snapshot(&Model::from([(key("a"), entry(3)), (key("b"), entry(2))])).await;
        assert_eq!(draft.rebase(Some(&otherwise), &mut blobs).await.unwrap(), [key("a")]);
        let elsewhere = bed.snapshot(&Model::from([(key("a"), entry(1)), (key("b"), entry(3))])).await;
        assert_eq!(draft.rebase(Some(&elsewhere), &mut blobs).await.unwrap(), []);
        assert_eq!(all(&draft, None).await, [(key("a"), entry(2)), (key("b"), entry(3))]);
    });
}

#[test]
fn portions_of_many_puts_make_the_same_tree() {
    let bed = Bed::new();
    bed.runtime.block_on(async {
        let (mut draft, mut blobs) = (Draft::new(&bed.repository, None), bed.blobs());
        let (mut model, mut random) = (Model::new(), Random::new(3));
        let mut portions = 0;
        for _ in 0..30_000 {
            let key = Key::from_path(format!("{:03}/{:05}", random.below(500), random.below(40_000))).unwrap();
            let entry = Entry::new(EntryKind::File, random.bytes(700).into(), Payload::default());
            model.insert(key.clone(), entry.clone());
            draft.put(key, entry).unwrap();
            if draft.pending_bytes() >= PORTION {
                draft.apply(&mut blobs).await.unwrap();
                portions += 1;
                assert_eq!(draft.pending_bytes(), 0);
            }
        }
        assert!(portions >= 2, "{portions}");
        let root = draft.apply(&mut blobs).await.unwrap();
        let whole = bed.snapshot(&model).await;
        assert_eq!((root.id, root.entries), (whole.root, whole.entries));
    });
}

#[test]
fn what_pending_changes_take_up_is_accounted_for() {
    let (mut pending, mut random) = (pending::Pending::default(), Random::new(5));
    for _ in 0..5_000 {
        let parts = (0..=random.below(3)).map(|_| random.below(4).to_string());
        let key = Key::new(parts).unwrap();
        match random.below(6) {
            0 => pending.remove(key),
            1 => pending.remove_prefix(key),
            length => pending.put(key, entry(0), length as usize),
        }
        assert!(pending.is_empty() || pending.bytes() > 0);
    }
    assert!(pending.bytes() < 100 * 1024, "{} bytes of at most 84 points", pending.bytes());
    pending.remove_prefix(Key::from_path("0").unwrap());
    pending.applied();
    assert_eq!((pending.bytes(), pending.is_empty()), (0, true));
}

#[tokio::test]
async fn contents_become_entries() {
    let store: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
    let repository = Repository::create(store, &Secret::key([7; 32]), CreateOptions::default()).await.unwrap();
    let metadata = Metadata::default().with_content_type("text/plain");
    let small = inline(&repository, b"buy milk", &metadata).unwrap().unwrap();
    assert_eq!((small.size, small.kind), (8, EntryKind::File));
    assert!(inline(&repository, &[0; 1025], &metadata).unwrap().is_none());
    let long = Metadata::default().with_attribute("notes", vec![1; 5000]);
    assert!(inline(&repository, b"", &long).unwrap().is_none());
    // By either way the same content has the same entry, so that it has the same tree.
    for (length, metadata) in [(8, &metadata), (1024, &metadata), (1025, &long), (900_000, &metadata)] {
        let bytes = Random::new(9).bytes(length);
        let mut entries = Vec::new();
        for step in [7_000, 100_000_000] {
            let reader = tokio::io::BufReader::with_capacity(step.min(length + 1), &bytes[..]);
            let mut intake = Intake::new(&repository, "content", reader, metadata).unwrap();
            let mut chunks = 0;
            entries.push(loop {
                match intake.next().await.unwrap() {
                    Taken::Cuts(cuts) => chunks += cuts.len(),
                    Taken::Entry(entry) => break entry,
                }
            });
            assert_eq!(chunks > 0, length > 1024);
        }
        assert_eq!(entries[0], entries[1]);
        assert_eq!(entries[0].size, length as u64);
        if let Some(small) = inline(&repository, &bytes, metadata).unwrap() {
            assert_eq!(small, entries[0]);
        }
    }
}
