//! Objects of later versions, of unknown kinds, under unknown key generations, and with unknown extensions.

use super::*;
use crate::codec::Extensions;
use crate::collection::{CollectionBody, CollectionRecord, Ended};
use crate::crypto::Kind;
use crate::id::{ObjectId, RecordHash, SeriesTag, WriterId};
use crate::kept::{Kept, KeptRecord};
use crate::layout::{self, CommitName, Name};
use crate::object::{TRAILER_LEN, object_id, seal_record, seal_signed, write_trailer};
use crate::registration::RegistrationRecord;
use crate::snapshot::Record;

/// What a later version does to the first bytes of an object.
#[derive(Clone, Copy, Debug)]
enum Change {
    Version,
    Kind,
    Generation,
}

impl Change {
    const ALL: [Change; 3] = [Change::Version, Change::Kind, Change::Generation];

    fn make(self, bytes: &mut [u8]) {
        match self {
            Change::Version => bytes[8] = 2,
            Change::Kind => bytes[9] = 200,
            Change::Generation => bytes[10] = 1,
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Change::Version => "format version 2",
            Change::Kind => "kind 200",
            Change::Generation => "key generation 1",
        }
    }
}

/// An object that is named by its hash; its new name with `name`.
fn renamed(change: Change, mut bytes: Vec<u8>, name: fn(ObjectId) -> Name) -> (Name, Vec<u8>) {
    change.make(&mut bytes);
    (name(object_id(&bytes)), bytes)
}

/// An object that ends in its hash.
fn retold(change: Change, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - TRAILER_LEN);
    change.make(&mut bytes);
    write_trailer(&mut bytes);
    bytes
}

fn needed() -> Extensions {
    Extensions::default().with(1, b"may be ignored").with(2, b"must be understood")
}

fn ignorable() -> Extensions {
    Extensions::default().with(1, b"may be ignored").with(99, [])
}

impl World {
    fn tag(&self) -> SeriesTag {
        self.repository.keyring().series_tag(SERIES)
    }

    /// The newest record's name, and the one after it.
    async fn tip(&self) -> (CommitName, CommitName) {
        let tip = self.repository.timelines().tip(&self.tag()).await.unwrap().0.unwrap();
        (tip, tip.next().unwrap())
    }

    /// The next record of the series, with these extensions; its number.
    async fn commit_with(&self, extensions: Extensions) -> u64 {
        let (tip, next) = self.tip().await;
        let before = self.repository.timelines().read(&tip).await.unwrap();
        let (number, time) = (next.number, before.record.time.next());
        let predecessor = Some(before.hash);
        let record = Record { number, time, predecessor, extensions, ..before.record };
        let name = Name::Commit(next).to_string();
        let (keyring, surroundings) = (self.repository.keyring(), self.repository.surroundings());
        self.put(&name, seal_record(&record, Kind::Snapshot, &name, keyring, surroundings).unwrap()).await;
        number
    }

    async fn register_with(&self, extensions: Extensions) -> Name {
        let name = Name::Writer(WriterId::new([3; 16]));
        let (keyring, surroundings) = (self.repository.keyring(), self.repository.surroundings());
        let (series, host, time) = (SERIES.to_owned(), "new".to_owned(), surroundings.clock.now());
        let ending = RecordHash::new([7; 32]);
        let record = RegistrationRecord { series, number: 9, time, host, seen: 0, ending, extensions };
        let sealed = seal_record(&record, Kind::Registration, &name.to_string(), keyring, surroundings).unwrap();
        self.put(name, sealed).await;
        name
    }

    async fn publish_with(&self, extensions: Extensions) {
        let newest = self.repository.timelines().kept(&self.tag()).await.unwrap();
        let (keyring, surroundings) = (self.repository.keyring(), self.repository.surroundings());
        let name = Name::Kept(self.tag(), newest.number + 1).to_string();
        let (series, number, time) = (SERIES.to_owned(), newest.number + 1, surroundings.clock.now());
        let kept: Kept = newest.kept;
        let record = KeptRecord { series, number, time, kept, extensions };
        self.put(&name, seal_signed(&record, Kind::Kept, &name, keyring, surroundings).unwrap()).await;
    }

    async fn end_with(&self, extensions: Extensions) {
        let (keyring, surroundings) = (self.repository.keyring(), self.repository.surroundings());
        let number = 1 + crate::collection::newest(self.repository.store(), keyring, 0).await.unwrap();
        let name = Name::CollectionEnd(number).to_string();
        let (time, body) = (surroundings.clock.now(), CollectionBody::Ended(Ended::default()));
        let record = CollectionRecord { number, time, body, extensions };
        self.put(&name, seal_signed(&record, Kind::Collection, &name, keyring, surroundings).unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_packs_and_segments_stop_whoever_deletes() {
    for change in Change::ALL {
        for (prefix, name) in [(layout::PACKS, Name::Pack as fn(ObjectId) -> Name), (layout::INDEX, Name::Index)] {
            let (world, what) = (World::with_everything().await, format!("{change:?} of {prefix}"));
            let (_, bytes) = world.first(prefix).await;
            let (newer, bytes) = renamed(change, bytes, name);
            world.put(newer, bytes).await;
            world.is_left_alone(&what, change.needs()).await;
            world.stops_collections(&what, change.needs()).await;
            let error = world.merge().await.unwrap_err();
            assert!(error.is_unsupported() && error.to_string().contains(change.needs()), "{what}: {error}");
            assert!(world.objects().await.contains_key(&newer.to_string()), "{what}");
            world.reads(3, &[]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_records_stop_whoever_builds_upon_them_and_nobody_else() {
    for change in Change::ALL {
        let (world, what) = (World::with_everything().await, format!("{change:?} of a record"));
        let (tip, next) = world.tip().await;
        let bytes = retold(change, world.get(Name::Commit(tip)).await);
        world.put(Name::Commit(next), bytes).await;
        world.stops_the_series(&what, change.needs()).await;
    }
    let world = World::with_everything().await;
    world.commit_with(needed()).await;
    world.stops_the_series("an extension of a record", "extension 2").await;
}

impl World {
    async fn stops_the_series(&self, what: &str, needs: &str) {
        self.is_left_alone(what, needs).await;
        self.stops_collections(what, needs).await;
        let repository = open(&self.store).await;
        let latest = repository.find(&Selector::LatestOf { series: SERIES.to_owned() }).await.unwrap();
        let aside = repository.put_aside();
        assert!(latest.number == 3 && aside.len() == 1 && aside[0].reason.contains(needs), "{what}: {aside:?}");
        let refused = repository.writer(SERIES, WriterOptions::default()).await.err().unwrap();
        assert!(refused.is_unsupported() && refused.to_string().contains(needs), "{what}: {refused}");
        self.reads(3, &[]).await;
        let other = repository.writer("notes", WriterOptions::default()).await.unwrap();
        other.put(&key("a"), "a", &Metadata::default()).await.unwrap();
        other.commit(CommitOptions::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_registrations_are_neither_fenced_nor_removed() {
    for change in Change::ALL {
        let world = World::with_everything().await;
        let name = world.register_with(Extensions::default()).await;
        let bytes = retold(change, world.get(name).await);
        world.put(name, bytes).await;
        let what = format!("{change:?} of a registration");
        world.is_left_alone(&what, change.needs()).await;
        world.stops_collections(&what, change.needs()).await;
        world.reads(3, &[]).await;
    }
    let world = World::with_everything().await;
    world.register_with(needed()).await;
    world.is_left_alone("an extension of a registration", "extension 2").await;
    world.stops_collections("an extension of a registration", "extension 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_lists_stop_whoever_forgets_or_deletes() {
    for change in Change::ALL.map(Some).into_iter().chain([None]) {
        let (world, what) = (World::with_everything().await, format!("{change:?} of a list"));
        world.publish_with(if change.is_some() { Extensions::default() } else { needed() }).await;
        let needs = change.map_or("extension 2", Change::needs);
        if let Some(change) = change {
            let newest = world.objects().await.into_keys().filter(|name| name.starts_with(layout::KEPT)).max().unwrap();
            let bytes = retold(change, world.get(&newest).await);
            world.put(&newest, bytes).await;
        }
        world.is_left_alone(&what, needs).await;
        world.stops_collections(&what, needs).await;
        let forget = crate::forget::ForgetOptions::default().with_snapshot(SERIES, 2);
        let error = open(&world.store).await.plan_forget(&forget).await.unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(needs), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_collections_stop_whoever_writes_or_deletes() {
    for change in Change::ALL.map(Some).into_iter().chain([None]) {
        let (world, what) = (World::with_everything().await, format!("{change:?} of a collection"));
        world.end_with(if change.is_some() { Extensions::default() } else { needed() }).await;
        let needs = change.map_or("extension 2", Change::needs);
        if let Some(change) = change {
            let newest = world.objects().await.into_keys().filter(|name| name.starts_with(layout::COLLECTIONS)).max();
            let newest = newest.unwrap();
            let bytes = retold(change, world.get(&newest).await);
            world.put(&newest, bytes).await;
        }
        world.is_left_alone(&what, needs).await;
        world.stops_collections(&what, needs).await;
        assert!(world.merge().await.unwrap_err().is_unsupported(), "{what}");
        let refused = open(&world.store).await.writer(SERIES, WriterOptions::default()).await.err().unwrap();
        assert!(refused.is_unsupported() && refused.to_string().contains(needs), "{what}: {refused}");
        world.reads(3, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_key_slots_are_left_alone_and_hold_nothing_up() {
    for change in [Change::Version, Change::Kind] {
        let (world, what) = (World::with_everything().await, format!("{change:?} of a key slot"));
        let (_, bytes) = world.first(layout::KEYS).await;
        let (newer, bytes) = renamed(change, bytes, Name::Key);
        world.put(newer, bytes).await;
        world.is_left_alone(&what, change.needs()).await;
        world.commit(9).await;
        world.collect().await.unwrap();
        world.merge().await.unwrap();
        world.reads(3, &[]).await;
        // Beside it what is damaged is repaired.
        let (segment, mut bytes) = world.first(layout::INDEX).await;
        bytes[100] ^= 1;
        world.put(&segment, bytes).await;
        let plan = world.plan_repair().await;
        assert!(plan.is_due(), "{what}: {plan:#?}");
        open(&world.store).await.repair(plan, Arc::new(NoProgress)).await.unwrap();
        assert!(!world.plan_repair().await.is_due(), "{what}");
        assert!(world.objects().await.contains_key(&newer.to_string()), "{what}");
        world.reads(3, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_ignored_holds_nothing_up() {
    let world = World::with_everything().await;
    let number = world.commit_with(ignorable()).await;
    let writer = world.register_with(ignorable()).await;
    world.publish_with(ignorable()).await;
    world.end_with(ignorable()).await;
    let report = world.check().await;
    assert!(report.is_sound() && world.plan_repair().await.is_sound(), "{:#?}", report.findings);
    world.collect().await.unwrap();
    assert!(!world.objects().await.contains_key(&writer.to_string()), "it is fenced, as any that is too old");
    world.reads(number, &[]).await;
    world.commit(9).await;
}

/// Damage that makes an object look newer is damage, since its hash tells.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_newer_is_damaged() {
    let sound = World::with_everything().await;
    sound.register_with(Extensions::default()).await;
    let objects = sound.objects().await;
    for change in Change::ALL {
        for (name, bytes) in &objects {
            let is_plain = name.starts_with(layout::KEYS) || name == layout::CONFIG;
            if is_plain && matches!(change, Change::Generation) {
                continue;
            }
            let (mut damaged, what) = (bytes.clone(), format!("{change:?} of {name}"));
            change.make(&mut damaged);
            let repository = open(&sound.store).await;
            sound.put(name, damaged).await;
            let options = CheckOptions::default().with_read_data(100.0);
            let report = repository.check(&options, Arc::new(NoProgress)).await.unwrap();
            let found = report.findings.iter().find(|finding| finding.object == *name);
            let kind = found.map(|found| found.kind);
            assert_eq!(kind, Some(crate::check::FindingKind::Damaged), "{what}: {:#?}", report.findings);
            assert_eq!(report.unsupported, 0, "{what}: {:#?}", report.findings);
            let plan = repository.plan_repair(&RepairOptions::default(), Arc::new(NoProgress)).await.unwrap();
            let step = plan.steps.iter().find(|step| step.object == *name);
            assert!(step.is_some_and(|step| !step.unsupported), "{what}: {:#?}", plan.steps);
            sound.put(name, bytes.clone()).await;
        }
    }
}

/// Who reads a part of a pack can't tell, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_part_says_that_it_may_be_damage() {
    let world = World::new().await;
    let (name, mut bytes) = world.first(layout::PACKS).await;
    Change::Version.make(&mut bytes);
    world.put(&name, bytes).await;
    let part = open(&world.store).await.check(&CheckOptions::default(), Arc::new(NoProgress)).await.unwrap();
    let found = part.findings.iter().find(|finding| finding.object == name).unwrap();
    assert_eq!(found.kind, crate::check::FindingKind::Unsupported);
    assert!(found.problem.contains("format version 2") && found.problem.contains("unless it is damaged"), "{found:?}");
    let whole = world.check().await;
    let found = whole.findings.iter().find(|finding| finding.object == name).unwrap();
    assert_eq!(found.kind, crate::check::FindingKind::Damaged);
}
