//! What a passing failure shows isn't taken for damage, and nothing is deleted that is sound when its turn comes.

use super::*;
use crate::error::Error;
use crate::index::{Location, SegmentBuilder, Want};
use crate::layout::{self, NUMBER_MAX};
use crate::pack::BlockKind;
use crate::repair::RepairPlan;
use crate::testing::stores::{Fault, FaultyStore, Kind as Call, Reply};

impl World {
    async fn plan(&self, options: &RepairOptions) -> RepairPlan {
        self.administrator().await.plan_repair(options, Arc::new(NoProgress)).await.unwrap()
    }

    async fn carry_out(&self, plan: RepairPlan) -> Result<RepairReport> {
        self.administrator().await.repair(plan, Arc::new(NoProgress)).await
    }

    /// Plans a repair while an object is damaged that isn't any more when the plan is carried out.
    async fn repair_what_was_damaged(&self, name: &str, options: &RepairOptions) {
        let sound = self.get(name).await;
        self.put(name, sound[..sound.len() - 1].to_vec()).await;
        let plan = self.plan(options).await;
        assert!(plan.is_due(), "{name}: {plan:?}");
        self.put(name, sound.clone()).await;
        assert!(matches!(self.carry_out(plan).await, Err(Error::Conflict { .. })), "{name}");
        assert_eq!(self.get(name).await, sound, "{name}");
    }
}

#[tokio::test]
async fn what_is_sound_again_is_not_deleted() {
    let world = World::new().await;
    let administrator = world.administrator().await;
    world.forge(NUMBER_MAX, Timestamp::from_nanos(START + 6 * DAY), |_| ()).await;
    let keys = administrator.keys().await.unwrap();
    let server = keys.iter().find(|key| !key.current).unwrap();
    let rosters: Vec<_> = world.names("keys").await.into_iter().filter(|name| name.contains("roster")).collect();
    let names = [Name::Key(server.id).to_string(), rosters.last().unwrap().clone()];
    let names = names.into_iter().chain([world.commit_name(NUMBER_MAX).to_string()]);
    for name in names {
        world.repair_what_was_damaged(&name, &RepairOptions::default()).await;
        world.commit(SERIES, 71).await.unwrap();
        world.assert_nothing_lost(&name).await;
    }
}

#[tokio::test]
async fn what_was_committed_or_forgotten_since_is_not_replaced_from_a_copy() {
    // A record and a list that are missing here, and that the copy has.
    for forgets in [false, true] {
        let world = World::new().await;
        let lost = if forgets {
            let before = Name::Kept(world.tag, 1).to_string();
            let list = world.get(&before).await;
            world.forget(SERIES, &[3]).await.unwrap();
            world.on_day(20);
            world.collect().await.unwrap();
            // As it was before that, but for what was deleted.
            world.put(before, list).await;
            Name::Kept(world.tag, 2)
        } else {
            world.commit(SERIES, 70).await.unwrap();
            world.commit_name(7)
        };
        let copy = world.copy().await.administrator().await;
        world.store.delete(&lost.to_string().into()).await.unwrap();
        let plan = world.plan(&RepairOptions::default().with_other(copy)).await;
        assert!(plan.steps.iter().any(|step| step.object == lost.to_string()), "{plan:#?}");
        if forgets {
            world.forget(SERIES, &[4]).await.unwrap();
        } else {
            world.acknowledged.lock().unwrap().remove(&(SERIES.to_owned(), 7));
            assert_eq!(world.commit(SERIES, 71).await.unwrap(), 7);
        }
        let there = world.get(&lost.to_string()).await;
        assert!(matches!(world.carry_out(plan).await, Err(Error::Conflict { .. })));
        assert_eq!(world.get(&lost.to_string()).await, there, "{lost}");
        world.assert_nothing_lost("repaired").await;
    }
}

#[tokio::test]
async fn a_pack_that_nothing_tells_of_is_looked_into_again_where_the_store_failed() {
    let world = World::empty().await;
    world.commit(SERIES, 0).await.unwrap();
    let packs = packs(&world.server().await).await;
    let block = packs[0].footer.blocks.iter().find(|block| block.kind == BlockKind::Data).unwrap();
    let id = block.blobs[0].0;
    let failure = Fault { done: false, reply: Reply::Denied };
    let faulty = FaultyStore::nth(Arc::clone(&world.store), Call::Get, "packs/", 0, failure);
    // It has read no record, which would tell.
    let reading = Repository::open(faulty.shared(), &Secret::key([8; 32]), world.options()).await.unwrap();
    let failed = reading.reader().read(BlockKind::Data, &id).await;
    assert!(matches!(failed, Err(Error::Store { .. })), "{failed:?}");
    reading.reader().read(BlockKind::Data, &id).await.unwrap();
}

#[tokio::test]
async fn a_failure_of_the_store_beats_what_other_places_say() {
    let world = World::new().await;
    let server = world.server().await;
    let packs = packs(&server).await;
    let blocks = packs.iter().flat_map(|pack| pack.footer.places().map(move |(place, entry)| (pack.row, place, entry)));
    let blocks: Vec<_> = blocks.filter(|(_, place, _)| place.kind == BlockKind::Data).collect();
    let (pack, place, entry) = blocks[0];
    let id = entry.blobs[0].0;
    let (other, elsewhere, _) = *blocks.iter().find(|(other, ..)| other.id != pack.id).unwrap();
    let at = |pack, place| Location { pack, place, at: 0, length: entry.blobs[0].1 };
    // Wherever the right place comes in the order, lies come after it.
    let mut salted = other;
    for salt in 0..8 {
        salted.salt[0] ^= salt;
        let mut builder = SegmentBuilder::default();
        builder.add_blob(id, &at(salted, elsewhere)).unwrap();
        server.index().publish(builder, server.surroundings()).await.unwrap();
    }
    let mut builder = SegmentBuilder::default();
    builder.add_blob(id, &at(pack, place)).unwrap();
    server.index().publish(builder, server.surroundings()).await.unwrap();

    let name = Name::Pack(pack.id).to_string();
    let faulty = FaultyStore::new(Arc::clone(&world.store), move |call| {
        let fails = call.kind == Call::Get && call.name == name;
        fails.then_some(Fault { done: false, reply: Reply::Denied })
    });
    let reading = Repository::open(faulty.shared(), &Secret::key([8; 32]), world.options()).await.unwrap();
    reading.index().refresh(Want::All).await.unwrap();
    let found = reading.reader().read(BlockKind::Data, &id).await;
    assert!(matches!(found, Err(Error::Store { .. })), "{found:?}");
}

/// What an administrator does, which may delete.
#[derive(Clone, Copy, Debug)]
enum Act {
    Collect,
    Merge,
    Repair,
    Undelete,
}

impl Act {
    async fn run(self, repository: &Repository) -> Result<()> {
        let quiet = || Arc::new(NoProgress);
        match self {
            Self::Collect => {
                let plan = repository.plan_gc(&GcOptions::default().with_wait(Duration::ZERO)).await?;
                repository.gc(plan, quiet()).await.map(drop)
            }
            Self::Merge => repository.merge(&repository.plan_merge().await?).await.map(drop),
            Self::Repair => {
                let plan = repository.plan_repair(&RepairOptions::default(), quiet()).await?;
                repository.repair(plan, quiet()).await.map(drop)
            }
            Self::Undelete => repository.undelete(SERIES, 4).await.map(drop),
        }
    }
}

/// A repository with something to collect, something that can be undeleted, and what is stored twice.
async fn eventful() -> World {
    let world = World::new().await;
    let options = ForgetOptions::default().with_snapshot(SERIES, 4).with_snapshot(OTHER, 1);
    let administrator = world.administrator().await;
    administrator.forget(&administrator.plan_forget(&options).await.unwrap()).await.unwrap();
    for forgotten in [(SERIES, 4), (OTHER, 1)] {
        world.acknowledged.lock().unwrap().remove(&(forgotten.0.to_owned(), forgotten.1));
    }
    let content = Random::new(80).bytes(300_000);
    let (one, another) = (world.server().await, world.server().await);
    let both = [(one, SERIES), (another, OTHER)];
    let mut writers = Vec::new();
    for (server, series) in &both {
        writers.push(server.writer(series, WriterOptions::default()).await.unwrap());
    }
    for (writer, (_, series)) in writers.into_iter().zip(&both) {
        writer.put(&key("twice"), content.clone(), &Metadata::default()).await.unwrap();
        let number = writer.commit(CommitOptions::default()).await.unwrap().number;
        let stored = ("twice".to_owned(), content.clone());
        world.acknowledged.lock().unwrap().insert(((*series).to_owned(), number), stored);
    }
    world.forget(SERIES, &[5]).await.unwrap();
    world.on_day(8);
    world.commit(SERIES, 81).await.unwrap();
    world
}

/// Whatever single request is answered by "not found": nothing that counts or can be undeleted is lost.
async fn survives(act: Act) {
    let original = eventful().await;
    for k in 0.. {
        let world = original.copy().await;
        world.acknowledged.lock().unwrap().clone_from(&original.acknowledged.lock().unwrap());
        let seen = std::sync::atomic::AtomicU64::new(0);
        let asked = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&asked);
        let faulty = FaultyStore::new(Arc::clone(&world.store), move |call| {
            let reads = matches!(call.kind, Call::Get | Call::Head);
            let hit = reads && call.name != layout::CONFIG && seen.fetch_add(1, Ordering::SeqCst) == k;
            hit.then(|| call.name.clone_into(&mut told.lock().unwrap()));
            hit.then_some(Fault { done: false, reply: Reply::Missing })
        });
        let what = || format!("{act:?}, request {k} for {}", asked.lock().unwrap());
        if let Ok(misled) = Repository::open(faulty.shared(), &Secret::key([7; 32]), world.options()).await {
            drop(act.run(&misled).await);
        }
        if faulty.injected() == 0 {
            assert!(k > 4, "{act:?} asks for {k} objects");
            return;
        }
        world.assert_nothing_lost(&what()).await;
        let collected = world.collect().await.unwrap_or_else(|error| panic!("{}: {error}", what()));
        assert!(collected.finished, "{}: {collected:?}", what());
        let administrator = world.administrator().await;
        for (series, number) in [(SERIES, 4), (OTHER, 1)] {
            let undeleted = administrator.undelete(series, number).await;
            let undeleted = undeleted.unwrap_or_else(|error| panic!("{}: {series}#{number}: {error}", what()));
            let seed = if series == OTHER { 100 } else { number - 1 };
            let content = read(&administrator, &undeleted, &format!("file/{seed}")).await;
            assert!(content == Random::new(seed).bytes(5000), "{}: {series}#{number}", what());
        }
        world.assert_nothing_lost(&what()).await;
        world.assert_sound(&what()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_survives_any_answer_that_nothing_is_there() {
    survives(Act::Collect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_survives_any_answer_that_nothing_is_there() {
    survives(Act::Merge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_survives_any_answer_that_nothing_is_there() {
    survives(Act::Repair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undelete_survives_any_answer_that_nothing_is_there() {
    survives(Act::Undelete).await;
}
