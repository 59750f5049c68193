//! By the holder of an append-only secret, in ways that go around what was made against the others.

use super::*;
use crate::retention::RetentionPolicy;
use crate::snapshot::{Body, Origin};

/// The numbers that a policy of one snapshot a day forgets.
async fn forgets_daily(world: &World) -> Vec<u64> {
    let policy = RetentionPolicy::default().with_daily(30);
    let options = ForgetOptions::default().with_policy(policy).with_series(SERIES);
    let plan = world.administrator().await.plan_forget(&options).await.unwrap();
    plan.forgotten().map(|snapshot| snapshot.number).collect()
}

/// What gives another snapshot back is as old as that: so records that only say so would be the last of days long past.
#[tokio::test]
async fn who_says_that_he_gives_back_others_displaces_none_of_them() {
    let world = World::new().await;
    for (number, of) in (7..).zip(3..=6) {
        let time = Timestamp::from_nanos(START + (of - 1) * DAY + DAY / 2);
        let now = Timestamp::from_nanos(START + 6 * DAY + number);
        world
            .forge(number as u64, now, |record| {
                let Body::Snapshot(content) = &mut record.body else { panic!() };
                content.origin = Some(Origin { number: of as u64, time });
            })
            .await;
    }
    let forgotten = forgets_daily(&world).await;
    assert!(forgotten.iter().all(|number| *number > 6), "{forgotten:?}");
}

/// The same by records whose times go back.
#[tokio::test]
async fn who_says_that_he_was_there_before_displaces_nobody() {
    let world = World::new().await;
    for (number, day) in (7..).zip(2..6) {
        world.forge(number, Timestamp::from_nanos(START + day * DAY + DAY / 2), |_| ()).await;
    }
    let forgotten = forgets_daily(&world).await;
    assert!(forgotten.iter().all(|number| *number > 6), "{forgotten:?}");
}

/// A record whose time goes back isn't what was there at that time.
#[tokio::test]
async fn who_says_that_he_was_there_before_is_not_found_there() {
    let world = World::new().await;
    world.forge(7, Timestamp::from_nanos(START + 3 * DAY + DAY / 2), |_| ()).await;
    world.forge(8, Timestamp::from_nanos(START + 3 * DAY + DAY / 2 + 1), |_| ()).await;
    world.commit(SERIES, 70).await.unwrap();
    for day in 3..5 {
        let time = Timestamp::from_nanos(START + (day + 1) * DAY - 1);
        let selector = Selector::AtOrBefore { series: Some(SERIES.to_owned()), time };
        let found = world.administrator().await.find(&selector).await.unwrap();
        assert_eq!(found.number, day as u64 + 1);
    }
}

#[tokio::test]
async fn who_says_that_he_was_there_before_is_named_by_a_check_and_forgotten() {
    let world = World::new().await;
    let feed = world.feed().await;
    world.put_by(&feed, 50).await.unwrap();
    world.forge(8, Timestamp::from_nanos(START + 3 * DAY + DAY / 2), |_| ()).await;
    let findings = world.check().await.findings;
    let name = world.commit_name(8).to_string();
    assert!(findings.iter().any(|one| one.object == name && !one.kind.is_informational()), "{findings:#?}");
    world.forget(SERIES, &[8]).await.unwrap();
    let time = Timestamp::from_nanos(START + 5 * DAY - 1);
    let selector = Selector::AtOrBefore { series: Some(SERIES.to_owned()), time };
    assert_eq!(world.administrator().await.find(&selector).await.unwrap().number, 5);
    world.assert_all_goes_on(feed, 4, "a time that goes back").await;
    world.assert_nothing_lost("a time that goes back").await;
}

/// Nobody's arithmetic goes astray at the ends of time.
#[tokio::test]
async fn the_ends_of_time_are_times() {
    for nanos in [i64::MIN, i64::MIN + 1, -1, i64::MAX - 1, i64::MAX] {
        let (world, time) = (World::new().await, Timestamp::from_nanos(nanos));
        let feed = world.feed().await;
        world.put_by(&feed, 50).await.unwrap();
        world.register(9, SERIES, 8, time).await;
        world
            .forge(8, time, |record| {
                let Body::Snapshot(content) = &mut record.body else { panic!() };
                content.origin = Some(Origin { number: u64::MAX, time });
            })
            .await;
        drop(world.put_by(&feed, 51).await);
        drop(world.commit(SERIES, 52).await);
        assert!(world.administrator().await.snapshots(None).await.unwrap().len() >= 6);
        drop(forgets_daily(&world).await);
        drop(world.repair(&RepairOptions::default()).await.unwrap());
        assert!(!world.check().await.findings.is_empty());
        world.forget(SERIES, &[8]).await.unwrap();
        world.assert_all_goes_on(feed, 4, &nanos.to_string()).await;
    }
}

/// A registration from a time to come would never be old enough to be fenced.
#[tokio::test]
async fn a_registration_of_the_far_future_is_fenced() {
    let world = World::new().await;
    let feed = world.feed().await;
    world.put_by(&feed, 50).await.unwrap();
    world.register(9, SERIES, 8, Timestamp::from_nanos(START + 36_500 * DAY)).await;
    world.assert_all_goes_on(feed, 4, "a registration of the far future").await;
    world.assert_nothing_lost("a registration of the far future").await;
    world.assert_sound("a registration of the far future").await;
}

/// One byte under the tag of a series that nobody has would hold up collections for good: no name is the right one.
#[tokio::test]
async fn what_is_of_no_series_is_removed_by_consent() {
    let tag = SeriesTag::new([9; 16]);
    for name in [Name::Kept(tag, 1), Name::Commit(CommitName { tag, number: 1 })] {
        let world = World::new().await;
        let feed = world.feed().await;
        world.put_by(&feed, 50).await.unwrap();
        world.put(name, "?").await;
        world.commit(SERIES, 51).await.unwrap();
        world.assert_nothing_lost("of no series").await;
        assert!(world.collect().await.unwrap_err().to_string().contains(&name.to_string()));
        let report = world.repair(&RepairOptions::default().with_accept_loss(true)).await.unwrap();
        assert!(report.undone[0].advice.contains("remove what is nameless"), "{report:?}");
        assert!(world.exists(name).await);
        let report = world.repair(&RepairOptions::default().with_remove_nameless(true)).await.unwrap();
        assert!(report.is_complete() && report.forgotten.is_empty() && report.deleted == 1, "{report:?}");
        assert!(!world.exists(name).await);
        world.assert_all_goes_on(feed, 4, "of no series").await;
        world.assert_nothing_lost("of no series").await;
        world.assert_sound("of no series").await;
    }
}

/// A number whose record was collected can be given another, which doesn't count; nor is it what is undeleted.
#[tokio::test]
async fn what_was_collected_is_not_undeleted_from_a_forgery() {
    let world = World::new().await;
    world.forge(2, Timestamp::from_nanos(START + DAY), |_| ()).await;
    assert_eq!(world.numbers().await, [3, 4, 5, 6]);
    let administrator = world.administrator().await;
    assert!(administrator.forgotten(Some(SERIES)).await.unwrap().is_empty());
    assert!(administrator.undelete(SERIES, 2).await.is_err());
}
