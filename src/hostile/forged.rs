//! By the holder of an append-only secret, who seals what he likes, and can delete nothing.

use super::*;
use crate::check::FindingKind;
use crate::codec::{Encode, Extensions};
use crate::collection::{CollectionBody, CollectionRecord, Ended, Plan};
use crate::crypto::{Keyring, Kind};
use crate::id::{BlobId, RecordHash, WriterId};
use crate::index::{RecentPack, SegmentBuilder};
use crate::kept::{Kept, KeptRecord};
use crate::layout::{self, NUMBER_MAX};
use crate::merge::lengths;
use crate::object;
use crate::registration::RegistrationRecord;
use crate::roster::{Member, Roster};
use crate::snapshot::{Body, Record};
use crate::testing::series;
use crate::testing::stores::{Fault, FaultyStore, Kind as Call, Reply};

impl World {
    /// Stores a record that opens.
    pub(super) async fn seal(&self, name: Name, kind: Kind, value: &impl Encode) {
        let attacker = self.server().await;
        let text = name.to_string();
        let sealed = object::seal_record(value, kind, &text, attacker.keyring(), attacker.surroundings()).unwrap();
        self.put(name, sealed).await;
    }

    /// Stores a record of the series that shows what its newest one shows, at any number and time.
    pub(super) async fn forge(&self, number: u64, time: Timestamp, change: impl FnOnce(&mut Record)) {
        let attacker = self.server().await;
        let (tip, _) = attacker.timelines().tip(&self.tag).await.unwrap();
        let placed = attacker.timelines().read(&tip.unwrap()).await.unwrap();
        let predecessor = (number > 1).then_some(placed.hash);
        let mut record = Record { number, time, clock: time, predecessor, ..placed.record };
        change(&mut record);
        self.seal(self.commit_name(number), Kind::Snapshot, &record).await;
    }

    pub(super) async fn register(&self, id: u8, series: &str, number: u64, time: Timestamp) {
        let record = RegistrationRecord {
            series: series.to_owned(),
            number,
            time,
            host: "\u{1b}[31m".to_owned(),
            seen: 0,
            ending: RecordHash::new([id; 32]),
            extensions: Extensions::default(),
        };
        self.seal(Name::Writer(WriterId::new([id; 16])), Kind::Registration, &record).await;
    }

    /// All goes on: the server's feed, other writers, forgetting and collecting; what was acknowledged is there.
    pub(super) async fn assert_all_goes_on(&self, feed: Feed, forget: u64, what: &str) {
        self.put_by(&feed, 954).await.unwrap();
        self.commit(SERIES, 960).await.unwrap();
        self.commit(OTHER, 961).await.unwrap();
        self.put_by(&feed, 955).await.unwrap();
        self.assert_all_there(what).await;
        feed.close().await.unwrap();
        self.on_day(20);
        self.forget(SERIES, &[forget]).await.unwrap();
        for _ in 0..2 {
            let report = self.collect().await.unwrap();
            assert!(report.finished, "{what}: {report:?}");
        }
        assert!(!self.exists(self.commit_name(forget)).await, "{what}: {forget} was collected");
        self.assert_all_there(what).await;
    }
}

fn years_ahead() -> Timestamp {
    Timestamp::from_nanos(START + 36_500 * DAY)
}

#[tokio::test]
async fn a_record_of_the_far_future_is_forgotten_by_name_and_writers_go_on() {
    let world = World::new().await;
    let feed = world.feed().await;
    world.put_by(&feed, 50).await.unwrap();
    world.forge(8, years_ahead(), |_| ()).await;
    for refused in [world.put_by(&feed, 51).await, world.commit(SERIES, 52).await] {
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("accounts#8") && said.contains("forget that snapshot"), "{said}");
    }
    world.commit(OTHER, 53).await.unwrap();
    // No time that was is any different.
    let selector =
        Selector::AtOrBefore { series: Some(SERIES.to_owned()), time: Timestamp::from_nanos(START + 7 * DAY) };
    assert_eq!(world.administrator().await.find(&selector).await.unwrap().number, 7);
    assert!(world.collect().await.unwrap().waiting.len() <= 1, "collections go on");

    world.forget(SERIES, &[8]).await.unwrap();
    assert_eq!(world.put_by(&feed, 54).await.unwrap(), 9);
    world.assert_all_goes_on(feed, 4, "a record of the far future").await;
    world.assert_nothing_lost("a record of the far future").await;
    world.assert_sound("a record of the far future").await;
    let found = world.administrator().await.find(&Selector::LatestOf { series: SERIES.to_owned() }).await.unwrap();
    assert!(found.time < Timestamp::from_nanos(START + 21 * DAY), "{:?}", found.time);
}

#[tokio::test]
async fn a_record_at_the_last_number_ends_no_series() {
    let world = World::new().await;
    let feed = world.feed().await;
    world.put_by(&feed, 50).await.unwrap();
    let now = Timestamp::from_nanos(START + 6 * DAY);
    world.forge(NUMBER_MAX, now, |_| ()).await;
    assert_eq!(world.put_by(&feed, 51).await.unwrap(), 8);
    assert_eq!(world.commit(SERIES, 52).await.unwrap(), 9);
    assert_eq!(world.numbers().await, (3..=9).collect::<Vec<_>>());
    world.assert_nothing_lost("a record at the last number").await;
    let report = world.repair(&RepairOptions::default()).await.unwrap();
    assert!(report.forgotten.is_empty() && report.undone[0].advice.contains("accept the loss"), "{report:?}");
    assert!(world.exists(world.commit_name(NUMBER_MAX)).await, "it can be read, so consent is needed");

    let administrator = world.administrator().await;
    let accept = RepairOptions::default().with_accept_loss(true);
    let plan = administrator.plan_repair(&accept, Arc::new(NoProgress)).await.unwrap();
    world.put_by(&feed, 53).await.unwrap();
    let report = administrator.repair(plan, Arc::new(NoProgress)).await.unwrap();
    assert!(report.is_complete() && report.forgotten.is_empty(), "{report:?}");
    assert!(!world.exists(world.commit_name(NUMBER_MAX)).await);
    world.assert_all_goes_on(feed, 4, "a record at the last number").await;
    world.assert_nothing_lost("a record at the last number").await;
    world.assert_sound("a record at the last number").await;
}

#[tokio::test]
async fn records_that_run_ahead_cost_numbers_and_nothing_else() {
    let world = World::new().await;
    let feed = world.feed().await;
    world.put_by(&feed, 50).await.unwrap();
    let now = Timestamp::from_nanos(START + 6 * DAY);
    // One at a number that was collected, some right ahead, and one in each thousand after that.
    for number in [1, 9, 10, 1500, 2500] {
        world.forge(number, now, |_| ()).await;
    }
    for seed in 60..63 {
        world.put_by(&feed, seed).await.unwrap();
    }
    world.commit(SERIES, 63).await.unwrap();
    world.assert_all_there("records that run ahead").await;
    assert!(!world.numbers().await.contains(&1), "what was forgotten never counts again");
    // What was committed just before one isn't in it, as if it had been removed again, and that shows.
    let findings = world.check().await.findings;
    let said = |number| findings.iter().any(|one| one.object == world.commit_name(number).to_string());
    assert!(said(9) && said(2500), "{findings:#?}");
    let report = world.repair(&RepairOptions::default()).await.unwrap();
    assert!(report.forgotten.is_empty() && !report.is_complete(), "{report:?}");
    world.put_by(&feed, 64).await.unwrap();
    world.assert_all_there("records that run ahead").await;

    // With consent the gaps are given up, and what is committed into one meanwhile isn't.
    let administrator = world.administrator().await;
    let accept = RepairOptions::default().with_accept_loss(true);
    let plan = administrator.plan_repair(&accept, Arc::new(NoProgress)).await.unwrap();
    world.put_by(&feed, 65).await.unwrap();
    drop(administrator.repair(plan, Arc::new(NoProgress)).await);
    world.put_by(&feed, 66).await.unwrap();
    world.assert_all_there("with consent").await;
    world.assert_all_goes_on(feed, 4, "records that run ahead").await;
}

#[tokio::test]
async fn registrations_that_lie_hold_nobody_up_for_long() {
    let world = World::new().await;
    let feed = world.feed().await;
    world.put_by(&feed, 50).await.unwrap();
    for (id, series) in [(1, SERIES), (2, "made up"), (3, "a#b"), (4, ""), (5, "two\nlines")] {
        world.register(id, series, 1, Timestamp::EPOCH).await;
    }
    // Those that can be fenced are; the others can't be anybody's, and are removed with consent.
    world.on_day(20);
    let report = world.collect().await.unwrap();
    assert!(!report.finished && report.waiting.iter().all(|one| one.since.is_none()), "{report:?}");
    let undone = world.repair(&RepairOptions::default()).await.unwrap().undone;
    assert_eq!(
        undone.iter().filter(|step| step.advice.contains("allow damaged registrations")).count(),
        3,
        "{undone:?}"
    );
    world.put_by(&feed, 51).await.unwrap();
    world.repair(&RepairOptions::default().with_remove_damaged_writers(true)).await.unwrap();
    world.put_by(&feed, 52).await.unwrap();
    let report = world.collect().await.unwrap();
    assert!(report.finished, "{report:?}");
    world.put_by(&feed, 53).await.unwrap();
    feed.close().await.unwrap();
    world.assert_nothing_lost("registrations that lie").await;
    world.assert_sound("registrations that lie").await;
    // Their numbers stay for good, but no more than their records: what was in them is collected.
    let packs = world.names("packs").await.len();
    world.on_day(40);
    world.forget(SERIES, &[3, 4, 5]).await.unwrap();
    assert!(world.collect().await.unwrap().finished && world.collect().await.unwrap().finished);
    assert!(world.names("packs").await.len() < packs, "{packs}");
    assert_eq!(world.names("writers").await, [""; 0]);
    world.assert_nothing_lost("registrations that lie").await;
}

/// A registration that says 1 could keep every record of its series: but it wasn't there when the last collection began.
#[tokio::test]
async fn a_registration_that_lies_keeps_no_records() {
    let world = World::new().await;
    world.register(1, SERIES, 1, Timestamp::EPOCH).await;
    world.forget(SERIES, &[3, 4]).await.unwrap();
    world.on_day(20);
    for _ in 0..3 {
        assert!(world.collect().await.unwrap().finished);
    }
    assert!(!world.exists(world.commit_name(3)).await && !world.exists(world.commit_name(4)).await);
}

#[tokio::test]
async fn what_another_signed_is_in_nobodys_way() {
    for number in [2, NUMBER_MAX] {
        let world = World::new().await;
        let feed = world.feed().await;
        world.put_by(&feed, 50).await.unwrap();
        let server = world.server().await;
        let (keyring, surroundings) = (server.keyring(), server.surroundings());
        let (forger, time) = (Keyring::generate(surroundings), Timestamp::EPOCH);
        // All of it forgotten, and every pack condemned.
        let kept = Kept::default().give_up(&(1..=7).collect(), 7);
        let (series, extensions) = (SERIES.to_owned(), Extensions::default());
        let list = KeptRecord { series, number, time, kept, extensions: extensions.clone() };
        let name = Name::Kept(world.tag, number);
        let text = name.to_string();
        world.put(name, object::forge_signed(&list, Kind::Kept, &text, keyring, &forger, surroundings)).await;
        let mut packs: Vec<_> =
            world.names("packs").await.iter().map(|name| layout::parse_pack(name).unwrap()).collect();
        packs.sort_unstable();
        let begun = CollectionBody::Begun(Plan { packs, ..Plan::default() });
        for (name, body) in
            [(Name::Collection(number), begun), (Name::CollectionEnd(number), CollectionBody::Ended(Ended::default()))]
        {
            let record = CollectionRecord { number, time, body, extensions: extensions.clone() };
            let text = name.to_string();
            world
                .put(name, object::forge_signed(&record, Kind::Collection, &text, keyring, &forger, surroundings))
                .await;
        }
        let member = Member { slot: server.slot(), append_only: false, public: server.slot_key().public().unwrap() };
        let roster = Roster::new(server.id(), number - 1, vec![member], &forger, surroundings).unwrap();
        let roster_name = roster.name(&forger).unwrap();
        world.put(roster_name, roster.seal(&forger).unwrap()).await;
        let report = world.check().await;
        for name in [Name::Kept(world.tag, number), Name::Collection(number), Name::CollectionEnd(number), roster_name]
        {
            let found: Vec<_> = report.findings.iter().filter(|one| one.object == name.to_string()).collect();
            assert!(found.len() == 1 && found[0].kind == FindingKind::Unsigned, "{name}: {found:?}");
            assert!(found[0].problem.contains("delete it"), "{found:?}");
        }
        assert!(report.is_sound() && FindingKind::Unsigned.is_informational());
        assert_eq!(world.numbers().await, [3, 4, 5, 6, 7]);
        let report = world.repair(&RepairOptions::default().with_accept_loss(true)).await.unwrap();
        assert!(report.forgotten.is_empty() && report.is_complete(), "{report:?}");
        world.assert_all_goes_on(feed, 4, "what another signed").await;
        world.assert_nothing_lost("what another signed").await;
        world.assert_sound("what another signed").await;
    }
}

/// A writer that relies on a pack which no snapshot needs any more, and that hasn't committed yet.
pub(super) struct Relying {
    pub(super) world: World,
    pub(super) writer: crate::Writer,
    pub(super) content: Vec<u8>,
}

impl Relying {
    pub(super) async fn new() -> Self {
        let world = World::empty().await;
        let content = Random::new(900).bytes(3_000_000);
        for content in [content.clone(), Random::new(901).bytes(10_000)] {
            let writer = world.server().await.writer("old", WriterOptions::default()).await.unwrap();
            writer.put_reader(&key("f"), &content[..], &Metadata::default()).await.unwrap();
            writer.commit(CommitOptions::default()).await.unwrap();
        }
        let administrator = world.administrator().await;
        let mut builder = SegmentBuilder::default();
        for (id, length) in lengths(administrator.store().list(layout::PACKS).await.unwrap(), layout::parse_pack) {
            let pack = RecentPack::read(id, length, administrator.store(), administrator.keyring()).await.unwrap();
            builder.add_pack(pack.row, &pack.footer).unwrap();
        }
        administrator.index().publish(builder, administrator.surroundings()).await.unwrap();
        world.forget("old", &[1]).await.unwrap();
        let packs = world.names("packs").await.len();
        let writer = world.server().await.writer(SERIES, WriterOptions::default()).await.unwrap();
        writer.put_reader(&key("f"), &content[..], &Metadata::default()).await.unwrap();
        assert_eq!(world.names("packs").await.len(), packs, "it stored nothing anew");
        Self { world, writer, content }
    }

    /// What is acknowledged is whole; that something was taken away is said instead.
    async fn commits_or_is_told(self, is_fenced: bool, what: &str) {
        let committed = self.writer.commit(CommitOptions::default()).await;
        let snapshot = match committed {
            Err(error) => {
                let told = matches!(&error, crate::Error::Conflict { reason, .. } if reason.contains("run it again"));
                return assert!(is_fenced && told, "{what}: {error}");
            }
            Ok(snapshot) => snapshot,
        };
        let bytes = read(&self.world.administrator().await, &snapshot, "f").await;
        assert!(bytes == self.content, "{what}");
        self.world.assert_sound(what).await;
    }
}

#[tokio::test]
async fn only_its_writer_ends_a_registration() {
    for patience in [None, Some(Duration::ZERO)] {
        let relying = Relying::new().await;
        let Name::Writer(writer) = relying.world.running().await else { panic!() };
        // A token that isn't the writer's.
        relying.world.seal(Name::WriterEnd(writer), Kind::RegistrationEnd, &([9_u8; 32], Extensions::default())).await;
        let report = relying.world.check().await;
        let end = Name::WriterEnd(writer).to_string();
        let found: Vec<_> = report.findings.iter().filter(|one| one.object == end).collect();
        assert!(found.len() == 1 && found[0].kind == FindingKind::Unsigned && report.is_sound(), "{report:?}");
        relying.world.on_day(1);
        let options = GcOptions::default().with_wait(Duration::ZERO);
        let options = patience.map_or(options.clone(), |age| options.with_fence_after(age));
        for _ in 0..2 {
            let report = relying.world.collect_with(&options).await.unwrap();
            // It is waited for, or fenced in the open; never is it taken for gone.
            match patience {
                None => {
                    assert!(!report.finished && report.packs_deleted == 0, "{report:?}");
                    assert_eq!(report.waiting[0].registration, Name::Writer(writer).to_string());
                }
                Some(_) => assert!(report.finished, "{report:?}"),
            }
        }
        if patience.is_none() {
            assert!(relying.world.exists(Name::Writer(writer)).await);
        }
        relying.commits_or_is_told(patience.is_some(), "an end that isn't the writer's").await;
    }
}

#[tokio::test]
async fn who_may_only_add_needs_no_deletion_and_no_overwriting() {
    let world = World::new().await;
    let faulty = FaultyStore::new(Arc::clone(&world.store), |call| {
        let denied =
            call.kind == Call::Delete || call.kind == Call::Copy || (call.kind == Call::Put && call.overwrites);
        denied.then_some(Fault { done: false, reply: Reply::Denied })
    });
    let server = Repository::open(faulty.shared(), &Secret::key([8; 32]), world.options()).await.unwrap();
    let feed = server.feed(SERIES, FeedOptions::default()).await.unwrap();
    for seed in 50..53 {
        world.put_by(&feed, seed).await.unwrap();
    }
    feed.close().await.unwrap();
    let writer = server.writer(SERIES, WriterOptions::default()).await.unwrap();
    writer.put(&key("x"), "x", &Metadata::default()).await.unwrap();
    writer.commit(CommitOptions::default()).await.unwrap();
    server.writer(SERIES, WriterOptions::default()).await.unwrap().abandon().await;
    // All have ended: nobody is waited for, and all that was added for it is cleared away.
    world.forget(SERIES, &[3]).await.unwrap();
    let report = world.collect().await.unwrap();
    assert!(report.finished && report.registrations_cleared > 0, "{report:?}");
    assert_eq!(world.names("writers").await, [""; 0]);
    world.assert_nothing_lost("with no right to delete").await;
    world.assert_sound("with no right to delete").await;
}

/// A record that shows another tree than the number's own can't be put beside it: the number alone is the name.
#[tokio::test]
async fn a_number_has_one_record() {
    let world = World::new().await;
    let attacker = world.server().await;
    let name = world.commit_name(5);
    let placed = attacker.timelines().read(&crate::layout::CommitName { tag: world.tag, number: 5 }).await.unwrap();
    let Body::Snapshot(_) = placed.record.body else { panic!() };
    let record = Record { body: series::snapshot(BlobId::new([0; 20])), ..placed.record };
    let text = name.to_string();
    let sealed =
        object::seal_record(&record, Kind::Snapshot, &text, attacker.keyring(), attacker.surroundings()).unwrap();
    let created = attacker.store().create(&text, sealed.into()).await.unwrap();
    assert_eq!(created, crate::store::Created::Theirs);
    // Nor under the names that records had once, or in another folder.
    for other in [format!("{text}-0000000000000000"), text.replace("/000000000000/", "/000000000001/")] {
        world.put(other, "x").await;
    }
    assert_eq!(world.numbers().await, [3, 4, 5, 6]);
    world.assert_nothing_lost("a second record").await;
}
