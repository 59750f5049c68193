//! By whoever can add objects, and has no key: bytes that are nothing, under names that mean something.

use super::*;
use crate::id::{ObjectId, RosterTag, WriterId};
use crate::layout::NUMBER_MAX;
use crate::object;

/// Who can't go on until the garbage is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    Nobody,
    /// Those who write to the series that is attacked, and collections.
    SeriesAndCollections,
    /// Those who forget and those who collect.
    Deletions,
    /// All who write, and collections.
    WritersAndCollections,
    /// Collections wait.
    Collections,
}

struct Case {
    what: &'static str,
    name: Name,
    stops: Stops,
    /// Whether a repair needs consent to a loss, since it may be a commit that was acknowledged.
    needs_consent: bool,
}

fn cases(world: &World, running: Name) -> Vec<Case> {
    let tag = world.tag;
    let Name::Writer(writer) = running else { panic!("{running:?}") };
    let case = |what, name, stops| Case { what, name, stops, needs_consent: false };
    vec![
        Case { needs_consent: true, ..case("the next number", world.commit_name(8), Stops::SeriesAndCollections) },
        case("a number some way ahead", world.commit_name(900), Stops::SeriesAndCollections),
        case("a number far ahead", world.commit_name(50_000), Stops::Nobody),
        case("the last number", world.commit_name(NUMBER_MAX), Stops::Nobody),
        case("a number that was collected", world.commit_name(1), Stops::Nobody),
        case("the next list", Name::Kept(tag, 2), Stops::Deletions),
        case("a list some way ahead", Name::Kept(tag, 101), Stops::Nobody),
        case("the last list", Name::Kept(tag, NUMBER_MAX), Stops::Nobody),
        case("the next collection", Name::Collection(2), Stops::WritersAndCollections),
        case("its end", Name::CollectionEnd(2), Stops::WritersAndCollections),
        case("the last collection", Name::Collection(NUMBER_MAX), Stops::Nobody),
        case("its end", Name::CollectionEnd(NUMBER_MAX), Stops::Nobody),
        case("a segment", Name::Index(ObjectId::new([9; 32])), Stops::Nobody),
        case("a pack", Name::Pack(ObjectId::new([9; 32])), Stops::Nobody),
        case("a key slot", Name::Key(ObjectId::new([9; 32])), Stops::Nobody),
        case("a roster", Name::Roster(9, RosterTag::new([9; 16])), Stops::Nobody),
        case("a registration", Name::Writer(WriterId::new([9; 16])), Stops::Collections),
        case("the end of a registration that isn't", Name::WriterEnd(WriterId::new([9; 16])), Stops::Nobody),
        case("the end of a writer that runs", Name::WriterEnd(writer), Stops::Nobody),
    ]
}

/// A server that has committed number 7 and goes on, and garbage under one name.
struct Attacked {
    world: World,
    feed: Feed,
    case: Case,
    before: Vec<String>,
}

impl Attacked {
    async fn new(at: usize, bytes: &'static [u8]) -> Option<Self> {
        let world = World::new().await;
        let feed = world.feed().await;
        assert_eq!(world.put_by(&feed, 50).await.unwrap(), 7);
        let mut cases = cases(&world, world.running().await);
        let case = (at < cases.len()).then(|| cases.swap_remove(at))?;
        let before = world.names("").await;
        world.put(case.name, bytes).await;
        Some(Self { world, feed, case, before })
    }

    fn what(&self) -> String {
        format!("{} ({})", self.case.what, self.case.name)
    }

    /// Whoever reads goes on, and is told of what is in the way.
    async fn readers_go_on(&self) {
        let (what, reader) = (self.what(), self.world.administrator().await);
        let series = SERIES.to_owned();
        let time = Timestamp::from_nanos(START + 4 * DAY - 1);
        for (selector, expected) in [
            (Selector::Latest, 7),
            (Selector::LatestOf { series: series.clone() }, 7),
            (Selector::Number { series: series.clone(), number: 4 }, 4),
            (Selector::AtOrBefore { series: Some(series), time }, 4),
            (Selector::AtOrBefore { series: None, time }, 4),
        ] {
            let found = reader.find(&selector).await.unwrap_or_else(|error| panic!("{what}: {selector:?}: {error}"));
            assert_eq!((found.series.as_str(), found.number), (SERIES, expected), "{what}: {selector:?}");
        }
        let listed: Vec<u64> = reader.snapshots(Some(SERIES)).await.unwrap().iter().map(|one| one.number).collect();
        assert_eq!(listed, [3, 4, 5, 6, 7], "{what}");
        assert_eq!(reader.snapshots(None).await.unwrap().len(), 6, "{what}");
        let collected = self.case.name == self.world.commit_name(1);
        if matches!(self.case.name, Name::Commit(_) | Name::Kept(..)) && !collected {
            let aside = reader.put_aside();
            assert!(aside.iter().any(|one| one.object == self.case.name.to_string()), "{what}: {aside:?}");
        }
        self.world.assert_nothing_lost(&what).await;
    }

    /// Those who need what the garbage may be stop, name it and say what to do; nobody else does.
    async fn who_stops_says_so(&self) {
        let (world, stops) = (&self.world, self.case.stops);
        let all = stops == Stops::WritersAndCollections;
        self.expect("another series", all, world.commit(OTHER, 11).await.map(drop));
        self.expect(
            "the series",
            all || stops == Stops::SeriesAndCollections,
            world.commit(SERIES, 10).await.map(drop),
        );
        self.expect("forgetting", stops == Stops::Deletions, world.forget(SERIES, &[3]).await);
        let collecting = world.administrator().await.plan_gc(&GcOptions::default()).await.map(drop);
        self.expect("collecting", !matches!(stops, Stops::Nobody | Stops::Collections), collecting);
        if stops == Stops::Collections {
            let report = world.collect().await.unwrap();
            assert!(!report.finished, "{}", self.what());
            assert!(report.waiting.iter().any(|one| one.registration == self.case.name.to_string()), "{report:?}");
        }
        // What its server acknowledges is kept, and what it doesn't may be tried again.
        drop(world.put_by(&self.feed, 51).await);
        world.assert_nothing_lost(&self.what()).await;
    }

    fn expect(&self, who: &str, stops: bool, outcome: Result<()>) {
        match outcome {
            Ok(()) => assert!(!stops, "{}: {who} goes on", self.what()),
            Err(error) => {
                let said = error.to_string();
                let useful = said.contains(&self.case.name.to_string()) && said.contains("repair");
                assert!(stops && useful, "{}: {who}: {said}", self.what());
            }
        }
    }

    /// A repair that is planned and carried out while the server goes on.
    async fn repair(&self, options: &RepairOptions) -> RepairReport {
        let administrator = self.world.administrator().await;
        let plan = administrator.plan_repair(options, Arc::new(NoProgress)).await.unwrap();
        drop(self.world.put_by(&self.feed, 52).await);
        let report = administrator.repair(plan, Arc::new(NoProgress)).await.unwrap();
        drop(self.world.put_by(&self.feed, 53).await);
        report
    }

    async fn is_cured(&self) {
        let (world, what) = (&self.world, self.what());
        let mut report = self.repair(&RepairOptions::default()).await;
        assert_eq!(report.forgotten, [], "{what}: nobody consented");
        let (needs, options) = match self.case.stops {
            Stops::Collections => {
                ("allow damaged registrations", RepairOptions::default().with_remove_damaged_writers(true))
            }
            _ if self.case.needs_consent => ("accept the loss", RepairOptions::default().with_accept_loss(true)),
            _ => ("", RepairOptions::default()),
        };
        if !needs.is_empty() {
            let step = report.undone.iter().find(|step| step.object == self.case.name.to_string());
            assert!(step.is_some_and(|step| step.advice.contains(needs)), "{what}: {report:?}");
            report = self.repair(&options).await;
        }
        assert!(report.is_complete(), "{what}: {report:?}");
        let after = world.names("").await;
        let gone: Vec<_> = self.before.iter().filter(|name| !after.contains(name)).collect();
        // A collection that was published in the garbage's place replaces the one before.
        let gone: Vec<_> = gone.into_iter().filter(|name| !name.starts_with("gc/")).collect();
        assert!(gone.is_empty(), "{what}: {gone:?}");
    }

    async fn all_goes_on(self) {
        let what = self.what();
        let world = self.world;
        world.put_by(&self.feed, 54).await.unwrap();
        world.commit(SERIES, 60).await.unwrap();
        world.commit(OTHER, 61).await.unwrap();
        world.put_by(&self.feed, 55).await.unwrap();
        world.assert_nothing_lost(&what).await;
        self.feed.close().await.unwrap();
        world.on_day(20);
        world.forget(SERIES, &[4]).await.unwrap();
        assert!(world.collect().await.unwrap().finished, "{what}");
        assert!(world.collect().await.unwrap().finished, "{what}");
        world.assert_nothing_lost(&what).await;
        world.assert_sound(&what).await;
    }
}

/// Longer than any record or slot may be.
static TOO_LONG: [u8; (object::RECORD_MAX + 1) as usize] = [0; (object::RECORD_MAX + 1) as usize];

#[tokio::test]
async fn garbage_costs_nothing_and_a_repair_beside_writers_ends_it() {
    for bytes in [&b""[..], b"?", &TOO_LONG] {
        for at in 0.. {
            let Some(attacked) = Attacked::new(at, bytes).await else { break };
            attacked.readers_go_on().await;
            attacked.who_stops_says_so().await;
            attacked.is_cured().await;
            attacked.all_goes_on().await;
        }
    }
}

/// The worst that was found once: a repair took the names of garbage for numbers that the series had come to, and forgot
/// everything up to them, also what was still to be committed.
#[tokio::test]
async fn several_at_once_make_a_repair_forget_nothing() {
    for accept in [false, true] {
        let world = World::new().await;
        let feed = world.feed().await;
        world.put_by(&feed, 50).await.unwrap();
        for number in [12, 50, 999, 1000, 1999, 7_000, NUMBER_MAX] {
            world.put(world.commit_name(number), "x").await;
        }
        for number in [2, 3, 9, NUMBER_MAX] {
            world.put(Name::Kept(world.tag, number), "x").await;
            world.put(Name::Collection(number), "x").await;
            world.put(Name::CollectionEnd(number), "x").await;
        }
        let options = RepairOptions::default().with_accept_loss(accept);
        let administrator = world.administrator().await;
        let plan = administrator.plan_repair(&options, Arc::new(NoProgress)).await.unwrap();
        for seed in 60..63 {
            world.put_by(&feed, seed).await.unwrap();
        }
        let report = administrator.repair(plan, Arc::new(NoProgress)).await.unwrap();
        assert!(report.is_complete() && report.forgotten.is_empty(), "{report:#?}");
        for seed in 63..66 {
            world.put_by(&feed, seed).await.unwrap();
        }
        assert_eq!(world.numbers().await, (3..=13).collect::<Vec<_>>());
        feed.close().await.unwrap();
        world.forget(SERIES, &[4]).await.unwrap();
        world.on_day(20);
        assert!(world.collect().await.unwrap().finished && world.collect().await.unwrap().finished);
        world.assert_nothing_lost("repaired").await;
        world.assert_sound("repaired").await;
    }
}

/// What a collection has condemned is neither forgotten nor deleted because somebody says that it has ended.
#[tokio::test]
async fn an_end_that_is_none_of_a_collection_under_way_costs_nothing() {
    for name in [Name::CollectionEnd(2), Name::Collection(3), Name::CollectionEnd(3)] {
        let world = World::new().await;
        let feed = world.feed().await;
        world.put_by(&feed, 50).await.unwrap();
        world.forget(SERIES, &[3, 4]).await.unwrap();
        let report = world.collect().await.unwrap();
        assert!(report.number == 2 && !report.finished, "it waits for the feed: {report:?}");
        world.put(name, "?").await;
        world.assert_nothing_lost("under way").await;
        let said = world.collect().await.unwrap_err().to_string();
        assert!(said.contains(&name.to_string()) && said.contains("repair"), "{said}");
        drop(world.put_by(&feed, 51).await);
        let report = world.repair(&RepairOptions::default()).await.unwrap();
        assert!(report.is_complete() && report.forgotten.is_empty(), "{report:?}");
        world.put_by(&feed, 52).await.unwrap();
        world.commit(SERIES, 53).await.unwrap();
        feed.close().await.unwrap();
        world.on_day(20);
        world.forget(SERIES, &[5]).await.unwrap();
        for _ in 0..2 {
            assert!(world.collect().await.unwrap().finished, "{name}");
        }
        world.assert_nothing_lost("repaired").await;
        world.assert_sound("repaired").await;
    }
}

/// Names that no build makes are nobody's, wherever they are: they stop nothing, and nothing touches them.
#[tokio::test]
async fn names_that_mean_nothing_are_left_alone() {
    let world = World::new().await;
    let feed = world.feed().await;
    world.put_by(&feed, 50).await.unwrap();
    let tag = world.tag;
    let strange = [
        "config/x".to_owned(),
        "gc/2".to_owned(),
        "gc/000000000000002-ended-ended".to_owned(),
        "gc/000000000000002/x".to_owned(),
        "gc/1000000000000000".to_owned(),
        "index/x".to_owned(),
        "keys/roster-1-x".to_owned(),
        "keys/roster-000000000000001".to_owned(),
        "packs/x".to_owned(),
        format!("packs/00/{}", "9".repeat(64)),
        "probes/x".to_owned(),
        "writers/-ended".to_owned(),
        format!("writers/{}-ended-ended", "9".repeat(32)),
        format!("commits/{tag}/000000000000/8"),
        format!("commits/{tag}/000000000001/000000000000008"),
        format!("commits/{tag}/000000000000/000000000000000"),
        format!("commits/{tag}/000000000000/000000000000008/x"),
        format!("commits/{tag}/999999999999999/x"),
        "commits/not-a-tag/000000000000/000000000000001".to_owned(),
        format!("kept/{tag}/2"),
        format!("kept/{tag}/000000000000000"),
        format!("kept/{tag}/000000000000002-ended"),
    ];
    for name in &strange {
        world.put(name, "?").await;
    }
    assert_eq!(world.put_by(&feed, 51).await.unwrap(), 8);
    assert_eq!(world.commit(SERIES, 52).await.unwrap(), 9);
    assert_eq!(world.numbers().await, (3..=9).collect::<Vec<_>>());
    let options = RepairOptions::default().with_accept_loss(true).with_remove_damaged_writers(true);
    let report = world.repair(&options.with_remove_nameless(true)).await.unwrap();
    assert!(report.deleted == 0 && report.forgotten.is_empty(), "{report:?}");
    feed.close().await.unwrap();
    world.forget(SERIES, &[4]).await.unwrap();
    world.on_day(20);
    for _ in 0..2 {
        assert!(world.collect().await.unwrap().finished);
    }
    for name in &strange {
        assert!(world.exists(name).await, "{name}");
    }
    world.assert_nothing_lost("strange names").await;
}
