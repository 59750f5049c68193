//! What a passing failure shows isn't taken for damage, and nothing is deleted that is sound when its turn comes.

use super::*;
use crate::error::Error;
use crate::index::{Location, RecentPack, SegmentBuilder, Want};
use crate::layout::{self, NUMBER_MAX};
use crate::merge::lengths;
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

async fn packs(repository: &Repository) -> Vec<RecentPack> {
    let mut packs = Vec::new();
    for (id, length) in lengths(repository.store().list(layout::PACKS).await.unwrap(), layout::parse_pack) {
        packs.push(RecentPack::read(id, length, repository.store(), repository.keyring()).await.unwrap());
    }
    packs
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
