//! Lists as sets, their golden bytes, and which of several counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::crypto::Secret;
use crate::repository::{CreateOptions, Repository};
use crate::testing::{NOW, assert_golden, each_damage, fixed, keyring};

const UNTIL: Timestamp = Timestamp::from_nanos(NOW.as_nanos() + 1);

/// Some numbers, each with the hash of a record.
fn hashed(numbers: &[u64]) -> Vec<(u64, RecordHash)> {
    numbers.iter().map(|number| (*number, hash(*number))).collect()
}

fn hash(number: u64) -> RecordHash {
    RecordHash::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

#[test]
fn golden_bytes() {
    let kept = Kept::default().forget(&hashed(&[2, 7]), 8, (NOW, UNTIL), |_| true);
    let kept = kept.forget(&hashed(&[3]), 9, (NOW, UNTIL), |_| true);
    let tag = keyring().series_tag("photos");
    let name = Name::Kept(tag, 4).to_string();
    let record = KeptRecord {
        series: "photos".to_owned(),
        number: 4,
        time: NOW,
        kept: kept.clone(),
        extensions: Default::default(),
    };
    let sealed = object::seal_signed(&record, Kind::Kept, &name, &keyring(), &fixed()).unwrap();
    assert_golden("kept", &sealed);
    assert_eq!(open(&sealed, &keyring(), &tag, 4).unwrap(), Some(kept));
    assert!(open(&sealed, &keyring(), &tag, 5).is_err(), "renamed");
    each_damage(&sealed, |what, damaged| assert!(open(damaged, &keyring(), &tag, 4).is_err(), "{what}"));
}

proptest! {
    #[test]
    fn a_list_is_a_set_that_only_shrinks(rounds in prop::collection::vec((prop::collection::vec(1u64..40, 0..12), 0u64..40), 0..6)) {
        let (mut kept, mut model, mut through) = (Kept::default(), BTreeSet::new(), 0);
        for (numbers, looked_at) in rounds {
            model.extend(through + 1..=looked_at);
            through = through.max(looked_at);
            let before: BTreeSet<u64> = (1..60).filter(|number| kept.counts(*number)).collect();
            kept = kept.forget(&hashed(&numbers), looked_at, (NOW, UNTIL), |number| number % 5 != 0);
            numbers.iter().for_each(|number| { model.remove(number); });
            prop_assert!(kept.is_sound(), "{:?}", kept);
            for number in 1..60 {
                prop_assert_eq!(kept.counts(number), number > through || model.contains(&number), "{} of {:?}", number, kept);
                prop_assert!(!kept.counts(number) || before.contains(&number), "{} counts again", number);
                prop_assert!(!kept.is_root(number, UNTIL) || kept.counts(number));
            }
            for number in numbers.iter().filter(|number| **number <= looked_at && before.contains(number)) {
                prop_assert!(kept.is_root(*number, NOW) && !kept.counts(*number));
                let forgotten = kept.forgotten(*number).unwrap();
                prop_assert!(forgotten.is_of(&hash(*number)) && !forgotten.is_of(&hash(number + 1)));
            }
        }
    }
}

#[test]
fn what_no_list_can_say_is_refused() {
    let forgotten = |numbers: &[u64]| Forgetting {
        time: NOW,
        until: UNTIL,
        snapshots: numbers.iter().map(|number| (*number, Digest::of(&hash(*number)))).collect(),
    };
    let sound = Kept { through: 9, runs: vec![(1, 2), (6, 9)], forgotten: vec![forgotten(&[4, 5]), forgotten(&[3])] };
    assert!(sound.is_sound());
    for (runs, gone) in [
        (vec![(1, 10)], vec![]),
        (vec![(0, 3)], vec![]),
        (vec![(1, 3), (0, 9)], vec![]),
        (vec![(1, u64::MAX), (5, 9)], vec![]),
        (vec![(3, 2)], vec![]),
        (vec![(1, 3), (4, 9)], vec![]),
        (vec![(5, 9), (1, 3)], vec![]),
        (vec![(1, 3), (5, 9)], vec![forgotten(&[5])]),
        (vec![(1, 3), (5, 9)], vec![forgotten(&[10])]),
        (vec![], vec![forgotten(&[5]), forgotten(&[5])]),
        (vec![], vec![forgotten(&[5, 5])]),
        (vec![], vec![forgotten(&[6, 5])]),
        (vec![], vec![forgotten(&[0])]),
        (vec![], vec![forgotten(&[])]),
    ] {
        let wrong = Kept { through: 9, runs, forgotten: gone };
        assert!(!wrong.is_sound(), "{wrong:?}");
    }
}

#[tokio::test]
async fn only_the_administrators_count_and_each_number_has_one_winner() {
    let store: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let repository = Repository::create(store, &Secret::key([7; 32]), CreateOptions::default()).await.unwrap();
    let (store, keyring, surroundings) = (repository.store(), repository.keyring(), repository.surroundings());
    let tag = keyring.series_tag("photos");
    let none = newest(store, keyring, &tag).await.unwrap();
    assert_eq!(none, Newest::default());

    let forgets = |numbers: &[u64]| none.kept.forget(&hashed(numbers), 3, (NOW, UNTIL), |_| true);
    assert!(publish(store, keyring, surroundings, "photos", &none, forgets(&[1])).await.unwrap());
    assert!(!publish(store, keyring, surroundings, "photos", &none, forgets(&[2])).await.unwrap(), "one wins");
    let first = newest(store, keyring, &tag).await.unwrap();
    assert_eq!((first.number, first.kept.counts(1), first.kept.counts(2)), (1, false, true));

    // Whoever can only add forges one that brings 1 back and forgets the others.
    let stranger = Keyring::generate(surroundings);
    let name = Name::Kept(tag, 2).to_string();
    let record = KeptRecord {
        series: "photos".to_owned(),
        number: 2,
        time: NOW,
        kept: forgets(&[2, 3]),
        extensions: Default::default(),
    };
    let refused = object::seal_signed(&record, Kind::Kept, &name, &keyring.append_only(), surroundings);
    assert!(matches!(refused, Err(Error::AppendOnly { .. })));
    let signed_by_another = object::forge_signed(&record, Kind::Kept, &name, keyring, &stranger, surroundings);
    store.create(&name, signed_by_another.into()).await.unwrap();
    let after = newest(store, keyring, &tag).await.unwrap();
    assert_eq!((after.number, after.next), (1, 3));
    assert_eq!(after.kept, first.kept);
    let forgets_two = after.kept.forget(&hashed(&[2]), 3, (NOW, UNTIL), |_| true);
    assert!(publish(store, keyring, surroundings, "photos", &after, forgets_two).await.unwrap());
    assert_eq!(newest_of_all(store, keyring).await.unwrap()[&tag].number, 3);

    // One beyond a free number can't be a list, and is in nobody's way.
    for number in [5, layout::NUMBER_MAX] {
        store.create(&Name::Kept(tag, number).to_string(), Bytes::from_static(b"made up")).await.unwrap();
    }
    let before = newest(store, keyring, &tag).await.unwrap();
    assert_eq!((before.number, before.next, before.unreadable.is_none()), (3, 4, true));
    // What is damaged may have been one: who reads goes on without it, who publishes doesn't.
    store.create(&Name::Kept(tag, 4).to_string(), Bytes::from_static(b"damaged")).await.unwrap();
    let after = newest(store, keyring, &tag).await.unwrap();
    assert_eq!((after.number, after.kept == before.kept, after.next), (3, true, 6));
    assert!(after.sound(&tag).unwrap_err().is_corrupt());
    let forgets_three = after.kept.forget(&hashed(&[3]), 3, (NOW, UNTIL), |_| true);
    assert!(publish(store, keyring, surroundings, "photos", &after, forgets_three).await.unwrap_err().is_corrupt());
    assert_eq!(store.aside().len(), 3, "{:?}", store.aside());
}
