//! The collection record's golden bytes, what is refused, and the order of the sequence.

use object_store::memory::InMemory;

use super::*;
use crate::crypto::Secret;
use crate::repository::{CreateOptions, Repository};
use crate::testing::{NOW, assert_golden, each_damage, fixed, keyring};

fn plan() -> Plan {
    Plan { packs: vec![[1; 8], [2; 8], [0xff; 8]], segments: vec![ObjectId::new([3; 32]), ObjectId::new([4; 32])] }
}

#[test]
fn golden_bytes() {
    for (file, name, body) in [
        ("collection", Name::Collection(7), CollectionBody::Begun(plan())),
        ("collection-ended", Name::CollectionEnd(7), CollectionBody::Ended),
    ] {
        let record = CollectionRecord { number: 7, time: NOW, body };
        let name = name.to_string();
        let sealed = object::seal_record(&record, Kind::Collection, &name, &keyring(), &fixed()).unwrap();
        assert_golden(file, &sealed);
        let open = |bytes: &[u8]| object::open_record::<CollectionRecord>(bytes, Kind::Collection, &name, &keyring());
        assert_eq!(open(&sealed).unwrap(), record);
        each_damage(&sealed, |what, damaged| assert!(open(damaged).is_err(), "{what}"));
    }
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
    assert_eq!(collections.standing().await.unwrap(), Standing::Idle(0));

    assert!(collections.begin(1, plan()).await.unwrap());
    assert_eq!(collections.standing().await.unwrap(), Standing::Open(1));
    assert!(!collections.begin(1, Plan::default()).await.unwrap(), "there is one winner");
    assert_eq!(collections.read(1).await.unwrap(), plan());
    let mut id = [1; 32];
    assert!(condemned().await.unwrap().1.contains(&ObjectId::new(id)));
    id[7] = 0;
    assert!(!condemned().await.unwrap().1.contains(&ObjectId::new(id)));

    collections.end(1).await.unwrap();
    collections.end(1).await.unwrap();
    assert_eq!(collections.standing().await.unwrap(), Standing::Idle(1));
    assert!(!condemned().await.unwrap().1.contains(&ObjectId::new([1; 32])));
    assert!(!collections.begin(1, plan()).await.unwrap(), "a name is never free again");

    assert!(collections.begin(2, Plan::default()).await.unwrap());
    collections.end(2).await.unwrap();
    assert_eq!(collections.standing().await.unwrap(), Standing::Idle(2));
    let left = parts.store.list(layout::COLLECTIONS).await.unwrap();
    assert_eq!(left.len(), 2, "only the highest is kept");
}

#[tokio::test]
async fn what_is_not_known_stops_a_writer() {
    let repository = repository().await;
    let parts = repository.parts();
    parts.store.create("gc/something-new", Bytes::from_static(b"?")).await.unwrap();
    let refused = condemned(&parts.store, &parts.keyring).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
}

#[tokio::test]
async fn a_record_out_of_order_is_refused() {
    let repository = repository().await;
    let collections = Collections::new(repository.parts().clone());
    let wrong = Plan { packs: vec![[2; 8], [1; 8]], segments: Vec::new() };
    collections.begin(1, wrong).await.unwrap();
    assert!(collections.read(1).await.unwrap_err().is_corrupt());
}
