//! Names of users and groups, both ways, asked of the system once each.
//!
//! A look-up may go to a directory server, so answers are kept, also the
//! negative ones. Names that the system fails to look up count as unknown:
//! the number is stored beside the name and serves in its place.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Gid, Group, Uid, User};

/// So many answers are kept of each sort; a crafted snapshot may name any number of owners.
const KEPT_MAX: usize = 4096;

/// Looks up users and groups.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    users: Known<u32, String>,
    groups: Known<u32, String>,
    uids: Known<String, u32>,
    gids: Known<String, u32>,
}

impl Owners {
    /// The name of a user.
    pub(crate) fn user(&self, uid: u32) -> Option<String> {
        self.users.get(&uid, |uid| Some(User::from_uid(Uid::from_raw(*uid)).ok()??.name))
    }

    /// The name of a group.
    pub(crate) fn group(&self, gid: u32) -> Option<String> {
        self.groups.get(&gid, |gid| Some(Group::from_gid(Gid::from_raw(*gid)).ok()??.name))
    }

    /// The number here of the user who had this name and number elsewhere.
    pub(crate) fn uid(&self, name: Option<&String>, uid: u32) -> u32 {
        let known = name.and_then(|name| self.uids.get(name, |name| Some(User::from_name(name).ok()??.uid.as_raw())));
        known.unwrap_or(uid)
    }

    /// The number here of the group that had this name and number elsewhere.
    pub(crate) fn gid(&self, name: Option<&String>, gid: u32) -> u32 {
        let known = name.and_then(|name| self.gids.get(name, |name| Some(Group::from_name(name).ok()??.gid.as_raw())));
        known.unwrap_or(gid)
    }
}

/// Answers kept so far.
#[derive(Debug)]
struct Known<K, V>(Mutex<HashMap<K, Option<V>>>);

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Known<K, V> {
    fn get(&self, key: &K, ask: impl FnOnce(&K) -> Option<V>) -> Option<V> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = lock().get(key) {
            return answer.clone();
        }
        let answer = ask(key); // without the lock: it may take seconds
        let mut known = lock();
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        known.insert(key.clone(), answer.clone());
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_or_fall_back() {
        let owners = Owners::default();
        for _ in 0..2 {
            assert_eq!(owners.user(0).as_deref(), Some("root"));
            assert_eq!(owners.user(3_999_999_999), None);
            assert_eq!(owners.group(3_999_999_999), None);
            assert_eq!(owners.uid(Some(&"root".to_owned()), 5), 0);
            assert_eq!(owners.uid(Some(&"no such user".to_owned()), 5), 5);
            assert_eq!(owners.gid(Some(&"a\0b".to_owned()), 6), 6);
            assert_eq!(owners.gid(None, 7), 7);
        }
    }
}
