//! By the holder of an append-only secret, in ways that go around what was made against the others.

use super::*;
use crate::codec::Extensions;
use crate::crypto::Kind;
use crate::id::{RecordHash, WriterId};
use crate::registration::RegistrationRecord;
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
    world.commit(SERIES, 70).await.unwrap();
    for day in 3..5 {
        let time = Timestamp::from_nanos(START + (day + 1) * DAY - 1);
        let selector = Selector::AtOrBefore { series: Some(SERIES.to_owned()), time };
        let found = world.administrator().await.find(&selector).await.unwrap();
        assert_eq!(found.number, day as u64 + 1);
    }
}

/// A registration from a time to come would never be old enough to be fenced.
#[tokio::test]
async fn a_registration_of_the_far_future_is_fenced() {
    let world = World::new().await;
    let feed = world.feed().await;
    world.put_by(&feed, 50).await.unwrap();
    let record = RegistrationRecord {
        series: SERIES.to_owned(),
        number: 8,
        time: Timestamp::from_nanos(START + 36_500 * DAY),
        host: String::new(),
        seen: 0,
        ending: RecordHash::new([9; 32]),
        extensions: Extensions::default(),
    };
    world.seal(Name::Writer(WriterId::new([9; 16])), Kind::Registration, &record).await;
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
