//! What a writer may take for stored.
//!
//! A hit in the index counts only if its pack was seen to exist after the
//! writer registered, and isn't condemned by a collection. What a writer has
//! uploaded under its registration it has seen.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::id::ObjectId;
use crate::layout;
use crate::store::Store;

/// How many of its own packs a writer remembers: a feed makes them without end.
const OWN_MAX: usize = 4096;

/// The packs that a collection has condemned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condemned(Arc<[ObjectId]>);

impl Condemned {
    /// These packs; sorted. Whole ids are compared: whoever can add can make a name that begins like any other.
    pub(crate) fn new(packs: Vec<ObjectId>) -> Self {
        Self(packs.into())
    }

    /// These, and some more packs.
    #[must_use]
    pub(crate) fn with<'a>(&self, packs: impl IntoIterator<Item = &'a ObjectId>) -> Self {
        let mut all = self.0.to_vec();
        all.extend(packs);
        all.sort_unstable();
        Self::new(all)
    }

    /// Whether a pack may be deleted.
    pub(crate) fn contains(&self, pack: &ObjectId) -> bool {
        self.0.binary_search(pack).is_ok()
    }
}

/// The packs that the writers of one registration may rely on.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    condemned: Condemned,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    own: HashSet<ObjectId>,
    order: VecDeque<ObjectId>,
    /// Listed when the first hit needs it.
    listed: Option<Arc<HashSet<ObjectId>>>,
}

impl Evidence {
    /// None so far, under a registration after which these were seen to be condemned.
    pub(crate) fn new(condemned: Condemned) -> Arc<Self> {
        Arc::new(Self { condemned, seen: Mutex::default() })
    }

    /// A pack was uploaded under the registration.
    pub(super) fn uploaded(&self, pack: ObjectId) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.own.insert(pack) {
            seen.order.push_back(pack);
        }
        if seen.order.len() > OWN_MAX
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.own.remove(&oldest);
        }
    }

    /// Whether what lies in a pack is there to stay for as long as the registration.
    pub(super) async fn vouches_for(&self, pack: &ObjectId, store: &Store) -> Result<bool> {
        if self.condemned.contains(pack) {
            return Ok(false);
        }
        let known = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.own.contains(pack) {
                return Ok(true);
            }
            seen.listed.clone()
        };
        if let Some(listed) = known {
            return Ok(listed.contains(pack));
        }
        let listed = Arc::new(list_packs(store).await?);
        let found = listed.contains(pack);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).listed = Some(listed);
        Ok(found)
    }
}

/// The packs that are there now.
pub(crate) async fn list_packs(store: &Store) -> Result<HashSet<ObjectId>> {
    let listed = store.list(layout::PACKS).await?;
    Ok(listed.iter().filter_map(|listed| layout::parse_pack(&listed.name)).collect())
}
