//! Keys under attack and in races: planted and put-back slots, dear ones, administrators who remove each other, rotations
//! beside other changes, another repository in the place of this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::clock::Surroundings;
use crate::codec;
use crate::config::{Config, Features, Fingerprint};
use crate::crypto::{Kind, SlotKey};
use crate::object::{open_record, seal_record, write_trailer};
use crate::repository::{CreateOptions, OpenOptions};
use crate::slot::KeyKind;
use crate::testing::each_flip;
use crate::testing::stores::{Call, Hook, HookedStore};

const FIRST: [u8; 32] = [1; 32];
const SECOND: [u8; 32] = [2; 32];
const SERVER: [u8; 32] = [3; 32];

type Shared = Arc<InMemory>;

/// A repository with two administrators and a server that may only add.
async fn repository() -> (Shared, Repository) {
    let store = Arc::new(InMemory::new());
    let at: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let first = Repository::create(at, &Secret::key(FIRST), CreateOptions::default()).await.unwrap();
    first.add_key(&Secret::key(SECOND), "second").await.unwrap();
    first.add_append_only_key(&Secret::key(SERVER), "server").await.unwrap();
    (store, first)
}

async fn open_as(store: &Shared, secret: &Secret, options: OpenOptions) -> Result<Repository> {
    let at: Arc<dyn ObjectStore> = Arc::clone(store) as _;
    Repository::open(at, secret, options).await
}

async fn open(store: &Shared, key: [u8; 32]) -> Result<Repository> {
    open_as(store, &Secret::key(key), OpenOptions::default()).await
}

async fn get(store: &Shared, name: &str) -> Vec<u8> {
    store.get(&Path::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn put(store: &Shared, name: &str, bytes: Vec<u8>) {
    store.put(&Path::from(name), bytes.into()).await.unwrap();
}

async fn delete(store: &Shared, name: &str) {
    store.delete(&Path::from(name)).await.unwrap();
}

async fn key_names(repository: &Repository) -> Vec<String> {
    let mut names: Vec<_> =
        repository.store().list(layout::KEYS).await.unwrap().into_iter().map(|listed| listed.name).collect();
    names.sort();
    names
}

/// Something that is sealed under the newest generation which `repository` knows.
fn seal(repository: &Repository) -> Vec<u8> {
    seal_record(&vec![7u8], Kind::Snapshot, "x", repository.keyring(), repository.surroundings()).unwrap()
}

fn read(repository: &Repository, sealed: &[u8]) -> Result<u8> {
    Ok(open_record::<Vec<u8>>(sealed, Kind::Snapshot, "x", repository.keyring())?[0])
}

/// A slot of whatever keyring the attacker makes up, for a secret that others use; its id and object.
fn planted(keyring: &Keyring, secret: [u8; 32], repository: &Repository) -> (ObjectId, Vec<u8>) {
    let surroundings = Surroundings::default();
    Slot::wrap(keyring, &Secret::key(secret), repository.id(), "server", &surroundings).unwrap().0.to_object()
}

#[tokio::test]
async fn a_planted_slot_opens_nothing_and_looks_planted() {
    let (store, first) = repository().await;
    let server = open(&store, SERVER).await.unwrap();
    // The same identity and sealing keys, and an administrator's key of the attacker's.
    let mut bytes = server.keyring().to_bytes().to_vec();
    let at = bytes.len() - 32;
    let stranger = Keyring::generate(&Surroundings::default());
    bytes[at..].copy_from_slice(stranger.administrator_public());
    let forged = Keyring::from_bytes(&bytes, "forged").unwrap();
    let own = server.slot();
    let id = loop {
        let (id, object) = planted(&forged, SERVER, &server);
        if id < own {
            put(&store, &Name::Key(id).to_string(), object).await;
            break id;
        }
    };
    let again = open(&store, SERVER).await.unwrap();
    assert_eq!((again.slot(), again.keyring().to_bytes()), (own, server.keyring().to_bytes()));
    let keys = first.keys().await.unwrap();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| key.authentic == (key.id != id)), "{keys:?}");
    assert_eq!(keys.last().unwrap().id, id, "it comes last");
    // Named by a roster of the attacker's, it still isn't the administrator's.
    let member =
        Member { slot: id, append_only: true, public: SlotKey::generate(first.surroundings()).public().unwrap() };
    let roster = Roster::new(first.id(), 98, vec![member], &stranger, first.surroundings()).unwrap();
    put(&store, &roster.name(&stranger).unwrap().to_string(), roster.seal(&stranger).unwrap()).await;
    assert_eq!(open(&store, SERVER).await.unwrap().slot(), own);
    // It can be taken away like any other, and so can the others.
    first.remove_key(&id).await.unwrap();
    assert!(first.keys().await.unwrap().iter().all(|key| key.authentic));
    first.remove_key(&own).await.unwrap();
    assert!(matches!(open(&store, SERVER).await, Err(Error::WrongSecret { slots: 2 })));
}

/// Even if an administrator was brought to vouch for it.
#[tokio::test]
async fn a_slot_with_another_administrators_key_is_refused() {
    let (store, first) = repository().await;
    let mut bytes = first.keyring().append_only().to_bytes().to_vec();
    let at = bytes.len() - 32;
    bytes[at..].copy_from_slice(Keyring::generate(first.surroundings()).administrator_public());
    let forged = Keyring::from_bytes(&bytes, "forged").unwrap();
    let (id, object) = planted(&forged, [9; 32], &first);
    put(&store, &Name::Key(id).to_string(), object).await;
    let Found { number, mut members } = first.look_at_keys().await.unwrap();
    members.push(Member { slot: id, append_only: true, public: members[0].public });
    assert!(first.publish_roster(number, members, first.keyring()).await.unwrap());
    let refused = open(&store, [9; 32]).await.unwrap_err();
    assert!(refused.to_string().contains("another administrator's key"), "{refused}");
    open(&store, FIRST).await.unwrap();
}

#[tokio::test]
async fn dear_slots_cost_nothing_and_are_named() {
    let (store, first) = repository().await;
    let dear = |memory_kib| {
        let kdf = crate::crypto::Argon2id { memory_kib, passes: 4, lanes: 4 };
        Slot::lying(first.id(), crate::crypto::Kdf::argon2id(kdf), &[0; 100])
    };
    // Planted ones aren't even read.
    for number in 0..70 {
        let (id, object) = dear((1 << 20) + number).to_object();
        put(&store, &Name::Key(id).to_string(), object).await;
    }
    let wrong = Secret::passphrase("x");
    assert!(matches!(open_as(&store, &wrong, OpenOptions::default()).await, Err(Error::WrongSecret { slots: 3 })));
    open(&store, SERVER).await.unwrap();
    // One that an administrator vouches for is beyond the limit, and no other secret minds.
    let slot = dear(65);
    let (id, object) = slot.to_object();
    put(&store, &Name::Key(id).to_string(), object).await;
    let Found { number, mut members } = first.look_at_keys().await.unwrap();
    members.push(Member { slot: id, append_only: false, public: slot.public() });
    assert!(first.publish_roster(number, members, first.keyring()).await.unwrap());
    let little = OpenOptions::default().with_argon2_limit(64, 4);
    let refused = open_as(&store, &wrong, little).await.unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { object, .. } if object.contains(&id.to_string())), "{refused}");
    let enough = OpenOptions::default().with_argon2_limit(65, 4);
    assert!(matches!(open_as(&store, &wrong, enough).await, Err(Error::WrongSecret { slots: 4 })));
    open(&store, SERVER).await.unwrap();
}

#[tokio::test]
async fn a_slot_of_a_later_build_keeps_no_other_from_opening_and_is_rotated_too() {
    let (store, first) = repository().await;
    let later: crate::crypto::Kdf = codec::decode(&[9, 3, 1, 2, 3], "a kdf").unwrap();
    let slot = Slot::lying(first.id(), later, &[0; 100]);
    let (id, object) = slot.to_object();
    put(&store, &Name::Key(id).to_string(), object).await;
    let Found { number, mut members } = first.look_at_keys().await.unwrap();
    members.push(Member { slot: id, append_only: false, public: slot.public() });
    assert!(first.publish_roster(number, members, first.keyring()).await.unwrap());
    open(&store, SERVER).await.unwrap();
    let refused = open(&store, [9; 32]).await.unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { reason, .. } if reason.contains("newer version")), "{refused}");
    let kinds: Vec<_> =
        first.keys().await.unwrap().into_iter().filter(|key| key.authentic).map(|key| key.kind).collect();
    assert!(kinds.len() == 4 && kinds.contains(&KeyKind::Newer));
    assert!(first.rotate_keys().await.unwrap().keys.contains(&id));
    assert!(first.add_key(&Secret::key([9; 32]), "").await.is_ok(), "it can't be told whether it opens that one");
}

#[tokio::test]
async fn a_secret_that_opens_the_repository_is_not_added_again() {
    let (_store, first) = repository().await;
    for key in [FIRST, SECOND, SERVER] {
        let before = key_names(&first).await;
        assert!(first.add_key(&Secret::key(key), "").await.unwrap_err().is_conflict());
        assert!(first.add_append_only_key(&Secret::key(key), "").await.unwrap_err().is_conflict());
        assert_eq!(key_names(&first).await, before);
    }
}

/// Two add one secret at a time: the loser of the roster looks again.
#[tokio::test]
async fn of_two_who_add_the_same_secret_one_is_refused() {
    let (store, first) = repository().await;
    let second = open(&store, SECOND).await.unwrap();
    let secret = Secret::key([4; 32]);
    let (one, two) = futures::join!(first.add_key(&secret, "a"), second.add_append_only_key(&secret, "b"));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let keys = first.keys().await.unwrap();
    assert!(keys.len() == 4 && keys.iter().all(|key| key.authentic), "{keys:?}");
}

/// As when two that were added under an older build meet.
#[tokio::test]
async fn of_several_slots_the_one_that_may_do_most_is_taken() {
    let (store, first) = repository().await;
    let secret = [5; 32];
    let Found { number, mut members } = first.look_at_keys().await.unwrap();
    for append_only in [true, false, true] {
        let keyring = if append_only { first.keyring().append_only() } else { first.keyring().copy() };
        let (id, object) = planted(&keyring, secret, &first);
        let public = Slot::parse(&object, &id).unwrap().public();
        put(&store, &Name::Key(id).to_string(), object).await;
        members.push(Member { slot: id, append_only, public });
    }
    assert!(first.publish_roster(number, members, first.keyring()).await.unwrap());
    assert!(!open(&store, secret).await.unwrap().is_append_only());
}

#[tokio::test]
async fn two_administrators_who_remove_each_other_cant_both_succeed() {
    for _ in 0..10 {
        let (store, first) = repository().await;
        let second = open(&store, SECOND).await.unwrap();
        let (a, b) = (first.slot(), second.slot());
        let (one, two) = futures::join!(first.remove_key(&b), second.remove_key(&a));
        assert!(!(one.is_ok() && two.is_ok()), "{one:?} {two:?}");
        let left = [open(&store, FIRST).await, open(&store, SECOND).await];
        assert!(left.iter().flatten().any(|repository| !repository.is_append_only()), "{left:?}");
        // Whoever was removed says so, and changes no key.
        for (repository, outcome) in [(&second, one), (&first, two)] {
            if outcome.is_ok() {
                let server = repository.keys().await.unwrap().into_iter().find(|key| key.append_only).unwrap().id;
                let refused = repository.remove_key(&server).await.unwrap_err();
                assert!(refused.to_string().contains("has been removed"), "{refused}");
                assert!(repository.rotate_keys().await.is_err() && repository.refresh_keys().await.is_err());
            }
        }
    }
}

#[tokio::test]
async fn the_key_in_use_is_not_removed_and_an_append_only_one_changes_nothing() {
    let (store, first) = repository().await;
    assert!(matches!(first.remove_key(&first.slot()).await, Err(Error::Invalid { .. })));
    let server = open(&store, SERVER).await.unwrap();
    let refused = |outcome: Result<()>| assert!(matches!(outcome, Err(Error::AppendOnly { .. })), "{outcome:?}");
    refused(server.remove_key(&first.slot()).await);
    refused(server.add_key(&Secret::key([9; 32]), "").await.map(drop));
    refused(server.add_append_only_key(&Secret::key([9; 32]), "").await.map(drop));
    refused(server.rotate_keys().await.map(drop));
    assert!(first.remove_key(&ObjectId::new([0; 32])).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_rotation_reaches_every_key_that_is_left_and_no_other() {
    let (store, first) = repository().await;
    let removed = open(&store, SERVER).await.unwrap();
    first.add_append_only_key(&Secret::key([4; 32]), "another server").await.unwrap();
    let other = open(&store, [4; 32]).await.unwrap();
    let old = seal(&first);
    let slot = removed.slot();
    let name = Name::Key(slot).to_string();
    let object = get(&store, &name).await;
    let rosters: Vec<_> = key_names(&first).await.into_iter().filter(|name| name.contains("roster")).collect();
    first.remove_key(&slot).await.unwrap();
    let rotation = first.rotate_keys().await.unwrap();
    assert_eq!((rotation.generation, rotation.keys.len()), (1, 3));
    let new = seal(&first);
    for key in [FIRST, SECOND, [4; 32]] {
        let opened = open(&store, key).await.unwrap();
        assert_eq!((read(&opened, &old).unwrap(), read(&opened, &new).unwrap()), (7, 7));
    }
    // One that is open for long learns it when asked to, and seals under it from then on.
    assert!(matches!(read(&other, &new), Err(Error::Unsupported { .. })));
    assert_eq!(other.refresh_keys().await.unwrap(), 1);
    assert_eq!(read(&other, &new).unwrap(), 7);
    assert_eq!(read(&first, &seal(&other)).unwrap(), 7);
    // Who was removed and kept the keys reads what is old, and what is new is not called damaged.
    assert_eq!(read(&removed, &old).unwrap(), 7);
    let refused = read(&removed, &new).unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { reason, .. } if reason.contains("generation 1")), "{refused}");
    assert!(removed.refresh_keys().await.is_err());
    // A slot that is put back opens nothing while a roster is there that doesn't name it ...
    put(&store, &name, object).await;
    assert!(matches!(open(&store, SERVER).await, Err(Error::WrongSecret { .. })));
    assert!(!first.keys().await.unwrap().iter().find(|key| key.id == slot).unwrap().authentic);
    // ... and where the later ones are taken away as well, nothing new.
    for name in key_names(&first).await.into_iter().filter(|name| name.contains("roster") && !rosters.contains(name)) {
        delete(&store, &name).await;
    }
    let back = open(&store, SERVER).await.unwrap();
    assert_eq!(read(&back, &old).unwrap(), 7);
    assert!(matches!(read(&back, &new), Err(Error::Unsupported { .. })));
}

#[tokio::test]
async fn a_later_rotation_does_not_reach_a_slot_that_was_put_back() {
    let (store, first) = repository().await;
    let removed = open(&store, SERVER).await.unwrap();
    let name = Name::Key(removed.slot()).to_string();
    let object = get(&store, &name).await;
    first.remove_key(&removed.slot()).await.unwrap();
    put(&store, &name, object).await;
    for generation in 1..4 {
        let rotation = first.rotate_keys().await.unwrap();
        assert_eq!(rotation.generation, generation);
        assert!(!rotation.keys.contains(&removed.slot()));
    }
    assert!(matches!(open(&store, SERVER).await, Err(Error::WrongSecret { .. })));
    // A key that is added now opens all that was ever written.
    first.add_append_only_key(&Secret::key(SERVER), "again").await.unwrap();
    let opened = open(&store, SERVER).await.unwrap();
    assert_eq!(opened.keyring().to_bytes(), first.keyring().append_only().to_bytes());
}

/// Whoever loses a roster begins anew from the winner's: nobody is missed by a rotation, and nobody removed is reached.
#[tokio::test]
async fn changes_of_keys_at_a_time_are_all_in_force_afterwards() {
    for _ in 0..10 {
        let (store, first) = repository().await;
        let (second, third) = (open(&store, SECOND).await.unwrap(), open(&store, FIRST).await.unwrap());
        let server = open(&store, SERVER).await.unwrap().slot();
        let new = Secret::key([6; 32]);
        let (rotated, added, removed, again) = futures::join!(
            first.rotate_keys(),
            second.add_append_only_key(&new, "new"),
            third.remove_key(&server),
            async { open(&store, SECOND).await.unwrap().rotate_keys().await }
        );
        assert!(added.is_ok() && removed.is_ok(), "{added:?} {removed:?}");
        assert_ne!(rotated.unwrap().generation, again.unwrap().generation, "two rotations are two generations");
        let newest = open(&store, FIRST).await.unwrap();
        assert_eq!(newest.keyring().generation(), 2);
        for key in [SECOND, [6; 32]] {
            let opened = open(&store, key).await.unwrap();
            assert_eq!(read(&opened, &seal(&newest)).unwrap(), 7);
        }
        assert!(matches!(open(&store, SERVER).await, Err(Error::WrongSecret { slots: 3 })));
        let standing = newest.standing().await.unwrap();
        let Standing::Roster(roster) = standing else { panic!("no roster") };
        assert_eq!((roster.number, roster.generation, roster.members().len()), (6, 2, 3));
    }
}

#[tokio::test]
async fn a_damaged_roster_leaves_the_one_before_and_is_not_written_over() {
    let (store, first) = repository().await;
    let last = key_names(&first).await.into_iter().rfind(|name| name.contains("roster")).unwrap();
    let sound = get(&store, &last).await;
    put(&store, &last, sound[..sound.len() - 1].to_vec()).await;
    assert!(matches!(open(&store, SERVER).await, Err(Error::WrongSecret { slots: 2 })));
    let opened = open(&store, SECOND).await.unwrap();
    let refused = opened.rotate_keys().await.unwrap_err();
    assert!(refused.is_corrupt() && refused.to_string().contains(&last), "{refused}");
    assert_eq!(opened.keyring().generation(), 0, "nothing is sealed under what nobody else has");
    put(&store, &last, sound).await;
    open(&store, SERVER).await.unwrap();
    opened.rotate_keys().await.unwrap();
}

/// Says of the newest roster that it isn't there, so many times.
#[derive(Debug)]
struct Hides(String, AtomicU32);

#[async_trait::async_trait]
impl Hook for Hides {
    async fn before(&self, call: &Call) -> object_store::Result<()> {
        let less = |left: u32| left.checked_sub(1);
        if call.name == self.0 && self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            let (path, source) = (call.name.clone(), "hidden".into());
            return Err(object_store::Error::NotFound { path, source });
        }
        Ok(())
    }
}

/// Or what is sealed from then on could be opened by whoever was removed.
#[tokio::test]
async fn a_roster_that_is_listed_and_not_there_is_looked_for_again_and_then_an_error() {
    let (store, first) = repository().await;
    first.rotate_keys().await.unwrap();
    let last = key_names(&first).await.into_iter().rfind(|name| name.contains("roster")).unwrap();
    for (times, is_found) in [(1, true), (99, false)] {
        let hides = Hides(last.clone(), AtomicU32::new(times));
        let hiding = HookedStore::with_hook(Arc::clone(&store) as _, hides).shared();
        match Repository::open(hiding, &Secret::key(SECOND), OpenOptions::default()).await {
            Ok(opened) => assert!(is_found && opened.keyring().generation() == 1),
            Err(error) => assert!(!is_found && error.is_conflict() && error.to_string().contains(&last), "{error}"),
        }
    }
}

#[tokio::test]
async fn another_repository_in_its_place_shows_in_the_fingerprint() {
    let (store, first) = repository().await;
    let pinned = |fingerprint| OpenOptions::default().with_fingerprint(fingerprint);
    let fingerprint: Fingerprint = first.fingerprint().to_string().parse().unwrap();
    open_as(&store, &Secret::key(SERVER), pinned(fingerprint)).await.unwrap();
    let (other, _) = repository().await;
    let refused = open_as(&other, &Secret::key(SERVER), pinned(fingerprint)).await.unwrap_err();
    assert!(
        matches!(&refused, Error::OtherRepository { wanted, .. } if *wanted == fingerprint.to_string()),
        "{refused}"
    );
    // A config with the old id and the attacker's administrator is another one.
    let forger = Keyring::generate(first.surroundings());
    let config = Config { administrator: *forger.administrator_public(), ..first.config().clone() };
    put(&store, layout::CONFIG, config.seal(&forger).unwrap()).await;
    assert!(matches!(
        open_as(&store, &Secret::key(SERVER), pinned(fingerprint)).await,
        Err(Error::OtherRepository { .. })
    ));
    assert!(open(&store, SERVER).await.is_err(), "no slot is this administrator's");
}

/// Puts another config in place, sealed by the administrator, as a later build would have made it.
async fn with_features(store: &Shared, first: &Repository, features: Features) {
    let config = Config { features, ..first.config().clone() };
    put(store, layout::CONFIG, config.seal(first.keyring()).unwrap()).await;
}

#[tokio::test]
async fn a_feature_that_is_needed_to_write_leaves_reading_and_refuses_every_change() {
    let (store, first) = repository().await;
    let features = Features { to_write: vec!["ledger".to_owned()], ..Features::default() };
    with_features(&store, &first, features).await;
    let opened = open(&store, FIRST).await.unwrap();
    let before = names(&store).await;
    let refused = |what: &str, outcome: Result<()>| {
        let named = matches!(&outcome, Err(Error::Unsupported { reason, .. }) if reason.contains("ledger"));
        assert!(named, "{what}: {outcome:?}");
    };
    assert!(opened.snapshots(None).await.unwrap().is_empty() && opened.keys().await.unwrap().len() == 3);
    refused("write", opened.writer("s", crate::WriterOptions::default()).await.map(drop));
    refused("rotate", opened.rotate_keys().await.map(drop));
    refused("add", opened.add_key(&Secret::key([9; 32]), "").await.map(drop));
    refused("remove", opened.remove_key(&ObjectId::new([9; 32])).await);
    let merge = opened.plan_merge().await.unwrap();
    refused("merge", opened.merge(&merge).await.map(drop));
    let gc = opened.plan_gc(&crate::GcOptions::default()).await.unwrap();
    refused("collect", opened.gc(gc, Arc::new(crate::NoProgress)).await.map(drop));
    let policy = crate::RetentionPolicy::default().with_last(1);
    let forget = opened.plan_forget(&crate::ForgetOptions::default().with_policy(policy)).await.unwrap();
    refused("forget", opened.forget(&forget).await.map(drop));
    let repair = opened.plan_repair(&crate::RepairOptions::default(), Arc::new(crate::NoProgress)).await.unwrap();
    refused("repair", opened.repair(repair, Arc::new(crate::NoProgress)).await.map(drop));
    refused("create", opened.store().create("x", vec![1].into()).await.map(drop));
    refused("delete", opened.store().delete("x").await);
    assert_eq!(names(&store).await, before);
}

async fn names(store: &Shared) -> Vec<String> {
    let at: Arc<dyn ObjectStore> = Arc::clone(store) as _;
    let listed: Vec<_> = futures::TryStreamExt::try_collect(at.list(None)).await.unwrap();
    let mut names: Vec<_> =
        listed.into_iter().map(|meta: object_store::ObjectMeta| meta.location.to_string()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_feature_that_is_needed_to_read_stops_at_open() {
    let (store, first) = repository().await;
    with_features(&store, &first, Features { to_read: vec!["ledger".to_owned()], ..Features::default() }).await;
    let refused = open(&store, FIRST).await.unwrap_err();
    assert!(refused.to_string().contains("needs ledger"), "{refused}");
    with_features(&store, &first, Features { optional: vec!["ledger".to_owned()], ..Features::default() }).await;
    open(&store, FIRST).await.unwrap();
}

/// Whoever flips bits of what opens the repository, and sets the hashes right, doesn't get it opened otherwise.
#[tokio::test]
async fn no_flipped_bit_of_config_slot_or_roster_opens_anything_else() {
    let (store, first) = repository().await;
    let server = open(&store, SERVER).await.unwrap();
    let expected = (server.slot(), server.keyring().to_bytes());
    let last = key_names(&first).await.into_iter().rfind(|name| name.contains("roster")).unwrap();
    for (name, trailer) in [(layout::CONFIG, 32), (&Name::Key(server.slot()).to_string(), 0), (&last, 32)] {
        let sound = get(&store, name).await;
        let mut flipped = Vec::new();
        each_flip(&sound[..sound.len() - trailer], |what, damaged| {
            let mut damaged = damaged.to_vec();
            if trailer > 0 {
                write_trailer(&mut damaged);
            }
            flipped.push((what.to_owned(), damaged));
        });
        // Each byte, and not each bit: the bits are flipped where the objects are parsed.
        for (what, damaged) in flipped.into_iter().step_by(7) {
            put(&store, name, damaged).await;
            if let Ok(opened) = open(&store, SERVER).await {
                assert_eq!((opened.slot(), opened.keyring().to_bytes()), expected, "{name}: {what}");
            }
        }
        put(&store, name, sound).await;
    }
    open(&store, SERVER).await.unwrap();
}

#[tokio::test]
async fn the_last_slot_is_remembered_beside_the_cache() {
    let (store, first) = repository().await;
    let folder = tempfile::tempdir().unwrap();
    let cached = || OpenOptions::default().with_cache(folder.path());
    let path = folder.path().join(format!("{}.slot", first.id()));
    let server = open_as(&store, &Secret::key(SERVER), cached()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), server.slot().to_string());
    // Then no other is read.
    for slot in first.keys().await.unwrap().into_iter().filter(|key| key.id != server.slot()) {
        delete(&store, &Name::Key(slot.id).to_string()).await;
    }
    open_as(&store, &Secret::key(SERVER), cached()).await.unwrap();
    for remembered in ["", "nonsense", &ObjectId::new([0; 32]).to_string(), &first.slot().to_string()] {
        std::fs::write(&path, remembered).unwrap();
        let opened = open_as(&store, &Secret::key(SERVER), cached()).await.unwrap();
        assert_eq!(opened.slot(), server.slot(), "{remembered}");
    }
}

#[tokio::test]
async fn there_is_an_end_to_keys_before_any_is_left_untried() {
    let (store, first) = repository().await;
    let Found { number, mut members } = first.look_at_keys().await.unwrap();
    for number in 0..61u8 {
        let (id, object) = planted(&first.keyring().append_only(), [100 + number; 32], &first);
        let public = Slot::parse(&object, &id).unwrap().public();
        put(&store, &Name::Key(id).to_string(), object).await;
        members.push(Member { slot: id, append_only: true, public });
    }
    assert!(first.publish_roster(number, members, first.keyring()).await.unwrap());
    let before = key_names(&first).await;
    assert!(matches!(first.add_key(&Secret::key([9; 32]), "").await, Err(Error::Invalid { .. })));
    assert_eq!(key_names(&first).await, before);
    open(&store, [160; 32]).await.unwrap();
}

#[tokio::test]
async fn slots_that_open_nothing_are_needless_and_none_that_is_being_added_becomes_one() {
    let (store, first) = repository().await;
    let second = open(&store, SECOND).await.unwrap();
    assert!(first.needless_slots().await.unwrap().is_empty());
    assert_eq!(first.standing().await.unwrap().number(), 2, "no roster is made for nothing");
    // One who adds a key has looked at the roster and created the slot, when another looks for needless slots.
    let Found { number, mut members } = second.look_at_keys().await.unwrap();
    let (id, object) = planted(&second.keyring().append_only(), [9; 32], &second);
    let public = Slot::parse(&object, &id).unwrap().public();
    put(&store, &Name::Key(id).to_string(), object).await;
    members.push(Member { slot: id, append_only: true, public });
    assert_eq!(first.needless_slots().await.unwrap(), [id]);
    assert!(!second.publish_roster(number, members.clone(), second.keyring()).await.unwrap(), "it is too late");
    // And when the roster that names it is there, it isn't needless.
    assert!(second.publish_roster(number + 1, members, second.keyring()).await.unwrap());
    assert!(first.needless_slots().await.unwrap().is_empty());
    open(&store, [9; 32]).await.unwrap();
}
