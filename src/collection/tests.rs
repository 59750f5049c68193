//! The collection record's golden bytes, what is refused, and the order of the sequence.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::crypto::Secret;
use crate::repository::{CreateOptions, Repository};
use crate::testing::{NOW, assert_golden, each_damage, fixed, keyring};

/// The last collection and what it has condemned, as a writer sees it that knows of none.
async fn condemned(store: &Store, keyring: &Keyring) -> Result<(u64, Condemned)> {
    let known = look_at(store, keyring, &Known::default()).await?;
    Ok((known.number, known.condemned))
}

fn plan() -> Plan {
    Plan {
        authority: Authority::Unneeded,
        packs: [1, 2, 0xff].map(|byte| ObjectId::new([byte; 32])).to_vec(),
        segments: vec![ObjectId::new([3; 32]), ObjectId::new([4; 32])],
        records: Numbers::gather([3, 4, 5, 9].map(|number| (SeriesTag::new([5; 16]), number))),
        marked: vec![(SeriesTag::new([5; 16]), 12)],
        registered: Some(vec![(WriterId::new([6; 16]), 11)]),
        inherited: ended(),
    }
}

fn ended() -> Ended {
    Ended {
        pinned: vec![Numbers { tag: SeriesTag::new([6; 16]), runs: vec![(10, 12)] }],
        fenced: vec![WriterId::new([8; 16])],
    }
}

#[test]
fn golden_bytes() {
    for (file, name, body) in [
        ("collection", Name::Collection(7), CollectionBody::Begun(plan())),
        (
            "collection-damaged",
            Name::Collection(7),
            CollectionBody::Begun(Plan { authority: Authority::Damaged, ..plan() }),
        ),
        ("collection-ended", Name::CollectionEnd(7), CollectionBody::Ended(ended())),
    ] {
        let record = CollectionRecord { number: 7, time: NOW, body, extensions: Default::default() };
        let name = name.to_string();
        let sealed = object::seal_signed(&record, Kind::Collection, &name, &keyring(), &fixed()).unwrap();
        assert_golden(file, &sealed);
        let open = |bytes: &[u8]| object::open_signed::<CollectionRecord>(bytes, Kind::Collection, &name, &keyring());
        assert_eq!(open(&sealed).unwrap(), Some(record));
        each_damage(&sealed, |what, damaged| assert!(open(damaged).is_err(), "{what}"));
    }
}

#[test]
fn numbers_are_runs() {
    let (one, other) = (SeriesTag::new([1; 16]), SeriesTag::new([2; 16]));
    let mut list = Numbers::gather([(other, 4), (one, 7), (one, 5), (one, 6), (one, 9)]);
    assert_eq!(list[0], Numbers { tag: one, runs: vec![(5, 7), (9, 9)] });
    assert_eq!(Numbers::count(&list), 5);
    assert!(
        Numbers::contain(&list, &one, 6) && !Numbers::contain(&list, &one, 8) && !Numbers::contain(&list, &other, 6)
    );
    Numbers::add(&mut list, other, (8, 10));
    assert!(Numbers::contain(&list, &other, 4) && Numbers::contain(&list, &other, 9));
    for run in [(12, 20), (11, 11), (1, 2), (13, 15)] {
        Numbers::add(&mut list, other, run);
    }
    assert_eq!(list[1], Numbers { tag: other, runs: vec![(1, 2), (4, 4), (8, 20)] });
}

async fn repository() -> Repository {
    let store: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
    Repository::create(store, &Secret::key([7; 32]), CreateOptions::default()).await.unwrap()
}

#[tokio::test]
async fn one_is_begun_and_ended_after_the_other() {
    let repository = repository().await;
    let parts = repository.parts();
    let collections = Collections::new(parts.clone());
    let condemned = || condemned(&parts.store, &parts.keyring);
    let none = collections.standing().await.unwrap();
    assert_eq!((none.number, none.next, none.open()), (0, 1, None));

    assert_eq!(collections.begin(&none, plan()).await.unwrap(), Some(1));
    let first = collections.standing().await.unwrap();
    assert_eq!((first.number, first.open()), (1, Some(&plan())));
    assert_eq!(collections.begin(&none, Plan::default()).await.unwrap(), None, "there is one winner");
    let mut id = [1; 32];
    assert!(condemned().await.unwrap().1.contains(&ObjectId::new(id)));
    id[7] = 0;
    assert!(!condemned().await.unwrap().1.contains(&ObjectId::new(id)));

    collections.end(1, ended()).await.unwrap();
    collections.end(1, ended()).await.unwrap();
    let idle = collections.standing().await.unwrap();
    assert_eq!((idle.number, &idle.state), (1, &State::Idle(ended())));
    assert!(!condemned().await.unwrap().1.contains(&ObjectId::new([1; 32])));
    assert_eq!(collections.begin(&none, plan()).await.unwrap(), None, "a name is never free again");

    assert_eq!(collections.begin(&idle, Plan::default()).await.unwrap(), Some(2));
    collections.end(2, Ended::default()).await.unwrap();
    assert_eq!(collections.standing().await.unwrap().number, 2);
    let left = parts.store.list(layout::COLLECTIONS).await.unwrap();
    assert_eq!(left.len(), 2, "only the highest is kept");
}

#[tokio::test]
async fn what_the_administrator_did_not_sign_counts_for_nothing() {
    let repository = repository().await;
    let Parts { store, keyring, surroundings, .. } = repository.parts();
    let collections = Collections::new(repository.parts().clone());
    let none = collections.standing().await.unwrap();
    assert_eq!(collections.begin(&none, plan()).await.unwrap(), Some(1));

    let stranger = Keyring::generate(surroundings);
    for (name, number, body) in [
        (Name::CollectionEnd(1), 1, CollectionBody::Ended(Ended::default())),
        (Name::Collection(2), 2, CollectionBody::Begun(Plan::default())),
        (Name::CollectionEnd(2), 2, CollectionBody::Ended(Ended::default())),
    ] {
        let record = CollectionRecord { number, time: NOW, body, extensions: Default::default() };
        let text = name.to_string();
        let forged = object::forge_signed(&record, Kind::Collection, &text, keyring, &stranger, surroundings);
        store.create(&text, forged.into()).await.unwrap();
        assert!(!is_authentic(store, keyring, name).await.unwrap());
    }
    let standing = collections.standing().await.unwrap();
    assert_eq!((standing.number, standing.open()), (1, Some(&plan())), "it hasn't ended");
    collections.end(1, ended()).await.unwrap();
    let standing = collections.standing().await.unwrap();
    assert_eq!((standing.number, standing.next), (1, 3));
    assert_eq!(collections.begin(&standing, Plan::default()).await.unwrap(), Some(3));
}

#[tokio::test]
async fn what_cannot_be_a_collection_stops_nobody() {
    let repository = repository().await;
    let parts = repository.parts();
    let collections = Collections::new(parts.clone());
    let none = collections.standing().await.unwrap();
    assert_eq!(collections.begin(&none, Plan::default()).await.unwrap(), Some(1));
    let names = ["gc/something-new", "gc/1000000000000000", "gc/999999999999999", "gc/000000000000004"];
    for name in names {
        parts.store.create(name, Bytes::from_static(b"?")).await.unwrap();
    }
    let (number, _) = condemned(&parts.store, &parts.keyring).await.unwrap();
    assert_eq!((number, newest(&parts.store, &parts.keyring, 0).await.unwrap(), parts.store.aside().len()), (1, 1, 4));
    collections.end(1, Ended::default()).await.unwrap();
    let first = collections.standing().await.unwrap();
    assert_eq!(collections.begin(&first, Plan::default()).await.unwrap(), Some(2));
    // But this one comes right after the last, and may have been the newest.
    parts.store.create("gc/000000000000003", Bytes::from_static(b"?")).await.unwrap();
    assert!(condemned(&parts.store, &parts.keyring).await.unwrap_err().is_corrupt());
}

/// Those before the last are tidied away, so what is left of the last alone says how far the sequence has come.
#[tokio::test]
async fn the_last_that_is_damaged_does_not_begin_the_sequence_anew() {
    for damaged in [&["gc/000000000000002-ended"][..], &["gc/000000000000002-ended", "gc/000000000000002"]] {
        let memory = Arc::new(InMemory::new());
        let store: Arc<dyn object_store::ObjectStore> = Arc::clone(&memory) as _;
        let repository = Repository::create(store, &Secret::key([7; 32]), CreateOptions::default()).await.unwrap();
        let (collections, parts) = (Collections::new(repository.parts().clone()), repository.parts());
        for number in [1, 2] {
            let before = collections.standing().await.unwrap();
            assert_eq!(collections.begin(&before, plan()).await.unwrap(), Some(number));
            collections.end(number, ended()).await.unwrap();
        }
        for name in damaged {
            object_store::ObjectStoreExt::put(&*memory, &(*name).into(), "?".into()).await.unwrap();
        }
        let error = condemned(&parts.store, &parts.keyring).await.unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains("repair the repository"), "{error}");
        collections.supersede(Vec::new()).await.unwrap();
        let standing = collections.standing().await.unwrap();
        assert_eq!((standing.number, standing.open()), (3, None), "{damaged:?}");
    }
}

/// Another collector of the same collection may know a key generation, or an extension, that this one doesn't.
#[tokio::test]
async fn an_end_that_needs_newer_keys_is_not_replaced() {
    let repository = repository().await;
    let parts = repository.parts();
    let collections = Collections::new(parts.clone());
    let none = collections.standing().await.unwrap();
    assert_eq!(collections.begin(&none, plan()).await.unwrap(), Some(1));
    let newer = parts.keyring.copy();
    newer.rotate(&parts.surroundings).unwrap();
    let others = Collections::new(Parts { keyring: Arc::new(newer), ..parts.clone() });
    others.end(1, ended()).await.unwrap();
    assert!(collections.end(1, Ended::default()).await.unwrap_err().is_unsupported());
    assert_eq!(others.standing().await.unwrap().state, State::Idle(ended()));
}

#[tokio::test]
async fn a_record_out_of_order_is_refused() {
    let repository = repository().await;
    let collections = Collections::new(repository.parts().clone());
    let none = collections.standing().await.unwrap();
    let wrong = Plan { packs: [2, 1].map(|byte| ObjectId::new([byte; 32])).to_vec(), ..Plan::default() };
    assert!(collections.begin(&none, wrong).await.unwrap_err().is_corrupt());
    assert!(collections.standing().await.unwrap_err().is_corrupt());
}
