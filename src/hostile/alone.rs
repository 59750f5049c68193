//! By time: what rots once a collection has tidied away all that was before it, so that it alone says how far a sequence
//! has come, and by whoever's clock was wrong.

use super::*;

impl World {
    /// A second list and a second collection, and none before them.
    async fn tidied() -> Self {
        let world = Self::new().await;
        world.forget(SERIES, &[3]).await.unwrap();
        world.on_day(7);
        assert!(world.collect().await.unwrap().finished);
        assert_eq!(world.names("kept").await, [Name::Kept(world.tag, 2).to_string()]);
        assert_eq!(world.names("gc").await, ["gc/000000000000002", "gc/000000000000002-ended"]);
        world
    }

    async fn damage(&self, name: impl ToString) {
        let mut bytes = self.get(name.to_string()).await;
        bytes[60] ^= 1;
        self.put(name, bytes).await;
    }
}

#[tokio::test]
async fn the_only_list_stops_whoever_publishes_or_deletes_and_a_repair_publishes_another() {
    for with_copy in [false, true] {
        let world = World::tidied().await;
        let (feed, copy, list) = (world.feed().await, world.copy().await, Name::Kept(world.tag, 2));
        let sound = world.get(list).await;
        world.damage(list).await;
        world.put_by(&feed, 50).await.unwrap();
        world.commit(SERIES, 51).await.unwrap();
        let collecting = world.administrator().await.plan_gc(&GcOptions::default()).await.map(drop);
        for refused in [world.forget(SERIES, &[4]).await, collecting] {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains(&list.to_string()) && said.contains("repair"), "{said}");
        }
        let mut options = RepairOptions::default();
        if with_copy {
            options = options.with_other(copy.administrator().await);
        }
        let report = world.repair(&options).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        if with_copy {
            assert!(world.get(list).await == sound);
        }
        assert_eq!(world.numbers().await, (4..=8).collect::<Vec<_>>());
        world.assert_all_goes_on(feed, 4, "the only list").await;
        world.assert_nothing_lost("the only list").await;
        world.assert_sound("the only list").await;
    }
}

#[tokio::test]
async fn the_only_collection_stops_all_writers_and_a_repair_begins_another_after_it() {
    let (begun, ended) = (Name::Collection(2), Name::CollectionEnd(2));
    for damaged in [&[ended][..], &[begun, ended]] {
        let world = World::tidied().await;
        let feed = world.feed().await;
        for name in damaged {
            world.damage(name).await;
        }
        let collecting = world.administrator().await.plan_gc(&GcOptions::default()).await.map(drop);
        for refused in [world.commit(OTHER, 50).await.map(drop), collecting] {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains("gc/000000000000002") && said.contains("repair"), "{said}");
        }
        world.put_by(&feed, 51).await.unwrap();
        let report = world.repair(&RepairOptions::default()).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(world.names("gc").await, ["gc/000000000000003", "gc/000000000000003-ended"]);
        // The feed hasn't seen what is begun now, and is waited for.
        world.forget(SERIES, &[4]).await.unwrap();
        let report = world.collect().await.unwrap();
        assert!(report.number == 4 && !report.finished && report.waiting.len() == 1, "{report:?}");
        world.put_by(&feed, 52).await.unwrap();
        world.commit(OTHER, 53).await.unwrap();
        feed.close().await.unwrap();
        world.forget(SERIES, &[5]).await.unwrap();
        for _ in 0..2 {
            assert!(world.collect().await.unwrap().finished);
        }
        world.assert_nothing_lost("the only collection").await;
        world.assert_sound("the only collection").await;
    }
}

/// Garbage far ahead, where there never was a collection or a list, is what a repair ends, and takes no numbers.
#[tokio::test]
async fn garbage_where_nothing_is_known_uses_up_no_numbers() {
    let last = crate::layout::NUMBER_MAX;
    for name in [
        Name::Collection(last),
        Name::CollectionEnd(last - 1),
        Name::Collection(7),
        Name::Kept(World::empty().await.tag, last),
    ] {
        let world = World::empty().await;
        let name = match name {
            Name::Kept(_, number) => Name::Kept(world.tag, number),
            name => name,
        };
        for seed in 0..3 {
            world.commit(SERIES, seed).await.unwrap();
        }
        world.put(name, "?").await;
        assert!(world.collect().await.unwrap_err().to_string().contains(&name.to_string()));
        let report = world.repair(&RepairOptions::default()).await.unwrap();
        assert!(report.is_complete() && report.forgotten.is_empty() && !world.exists(name).await, "{name}: {report:?}");
        for seed in 3..6 {
            world.commit(SERIES, seed).await.unwrap();
            world.forget(SERIES, &[seed - 2]).await.unwrap();
            world.on_day(10 * seed as i64);
            assert!(world.collect().await.unwrap().finished);
        }
        world.assert_nothing_lost("far ahead").await;
        world.assert_sound("far ahead").await;
    }
}

/// What lies beyond thousands of missing numbers may be made up, or all of these are lost: then it is all there is.
#[tokio::test]
async fn records_beyond_lost_ones_lose_nothing_to_a_collection() {
    let world = World::new().await;
    world.commit(SERIES, 50).await.unwrap();
    for number in [1500, 2500] {
        world.forge(number, Timestamp::from_nanos(START + 6 * DAY + number as i64), |_| ()).await;
    }
    world.store.delete(&world.commit_name(1500).to_string().into()).await.unwrap();
    let refused = world.collect().await.unwrap_err().to_string();
    assert!(refused.contains(&world.commit_name(2500).to_string()) && refused.contains("repair"), "{refused}");
    world.commit(SERIES, 51).await.unwrap();
    let report = world.repair(&RepairOptions::default().with_accept_loss(true)).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert!(world.collect().await.unwrap().finished);
    world.assert_nothing_lost("beyond lost ones").await;
    world.assert_sound("beyond lost ones").await;
}

/// Whoever is fenced after a snapshot of the far future leaves a tombstone there.
#[tokio::test]
async fn a_fence_after_a_record_of_the_far_future_hides_nothing_once_that_is_forgotten() {
    for buried in [false, true] {
        let world = World::new().await;
        world.commit(SERIES, 50).await.unwrap();
        world.forge(8, Timestamp::from_nanos(START + 36_500 * DAY), |_| ()).await;
        if buried {
            world.forget(SERIES, &[8]).await.unwrap();
            world.put(world.commit_name(9), "?").await;
            world.repair(&RepairOptions::default().with_accept_loss(true)).await.unwrap();
        } else {
            world.register(9, SERIES, 9, Timestamp::from_nanos(START)).await;
            assert_eq!(world.collect().await.unwrap().fenced, [(SERIES.to_owned(), 9)]);
            world.forget(SERIES, &[8]).await.unwrap();
        }
        assert!(world.exists(world.commit_name(9)).await);
        for seed in 51..60 {
            world.commit(SERIES, seed).await.unwrap();
        }
        let administrator = world.administrator().await;
        let snapshots = administrator.snapshots(Some(SERIES)).await.unwrap();
        assert_eq!(snapshots.last().unwrap().number, 18);
        for snapshot in snapshots {
            let selector = Selector::AtOrBefore { series: Some(SERIES.to_owned()), time: snapshot.time };
            let found = administrator.find(&selector).await.unwrap();
            assert_eq!(found, snapshot, "buried: {buried}");
        }
        world.assert_sound("a fence").await;
    }
}

/// Under another config a repair would take all that is there for damaged.
#[tokio::test]
async fn nothing_is_created_where_only_the_config_is_gone() {
    let world = World::new().await;
    let config = world.get("config").await;
    world.store.delete(&"config".into()).await.unwrap();
    let before = world.names("").await;
    let options = CreateOptions::default().with_open(world.options());
    let refused = Repository::create(Arc::clone(&world.store), &Secret::key([9; 32]), options).await.err().unwrap();
    assert!(refused.to_string().contains("`config` isn't"), "{refused}");
    assert_eq!(world.names("").await, before);
    world.put("config", config).await;
    world.assert_nothing_lost("the config is back").await;
}

/// The same where somebody else's config and key slots have taken its place.
#[tokio::test]
async fn a_repair_deletes_nothing_under_another_config() {
    let (world, other) = (World::new().await, World::empty().await);
    for prefix in ["config", "keys"] {
        for name in world.names(prefix).await.into_iter().chain([prefix.to_owned()]) {
            drop(world.store.delete(&name.as_str().into()).await);
        }
        for name in other.names(prefix).await {
            world.put(&name, other.get(&name).await).await;
        }
    }
    world.put("config", other.get("config").await).await;
    let before = world.names("packs").await;
    let repaired = world.administrator().await.plan_repair(&RepairOptions::default(), Arc::new(NoProgress)).await;
    let error = repaired.err().unwrap();
    assert!(error.to_string().contains("config"), "{error}");
    assert_eq!(world.names("packs").await, before);
}
