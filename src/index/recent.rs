//! Packs that no segment describes yet: a small commit writes none, its record names its packs instead.
//!
//! Their footers are the index meanwhile. Who reads a snapshot names the packs
//! that its record names; they are read when something isn't found otherwise.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::codec::{Decode, Encode};
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::entry::{Location, PackRow};
use crate::layout::Name;
use crate::object;
use crate::pack::{
    BLOCKS_START, FOOTER_MAX, Footer, PACK_MAX, Place, TRAILER_LEN, footer_range, parse_footer, parse_header,
};
use crate::store::Store;

/// How many packs are known at a time; the oldest are forgotten, and named again by whoever needs them.
const PACKS_MAX: usize = 4096;

/// How many blobs of them are.
const BLOBS_MAX: usize = 1 << 19;

/// What is read of a pack's end where the footer's length isn't known: most footers fit.
const TAIL: u64 = 64 << 10;

/// A pack that a snapshot's record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct PackRef {
    pub(crate) id: ObjectId,
    /// The pack's length in bytes.
    pub(crate) length: u32,
    /// The length of its footer's message in bytes.
    pub(crate) footer_len: u32,
}

impl PackRef {
    /// Where its footer's message and trailer are; `object` names it.
    ///
    /// Whoever can add can say anything here, so it is held against what can be before anything is fetched.
    pub(super) fn tail(&self, object: &str) -> Result<Range<u64>> {
        let (length, footer) = (u64::from(self.length), u64::from(self.footer_len));
        let start = length.checked_sub(footer + TRAILER_LEN as u64).filter(|start| *start >= BLOCKS_START as u64);
        match start {
            Some(start) if length <= PACK_MAX && footer <= FOOTER_MAX => Ok(start..length),
            _ => Err(Error::corrupt(object, "a snapshot names it with an impossible length")),
        }
    }

    /// How many blobs are in it, judging by the length of its footer: at most so many.
    pub(crate) fn blobs(&self) -> usize {
        self.footer_len as usize / (BlobId::LEN + 1)
    }
}

/// A pack whose footer was read.
#[derive(Debug)]
pub(crate) struct RecentPack {
    pub(crate) pack: PackRef,
    pub(crate) row: PackRow,
    pub(crate) footer: Footer,
    places: Vec<Place>,
    /// By id: the block's number, where the blob begins in it, and its length.
    blobs: Vec<(BlobId, u32, u32, u32)>,
}

impl RecentPack {
    /// Makes a footer searchable.
    pub(crate) fn new(pack: PackRef, row: PackRow, footer: Footer) -> Self {
        let (mut places, mut blobs) = (Vec::with_capacity(footer.blocks.len()), Vec::new());
        for (place, entry) in footer.places() {
            let mut at = 0u32;
            for (id, length) in &entry.blobs {
                blobs.push((*id, place.number, at, *length));
                at = at.saturating_add(*length);
            }
            places.push(place);
        }
        blobs.sort_unstable();
        Self { pack, row, footer, places, blobs }
    }

    /// Reads a pack's header and footer, in one round trip.
    pub(crate) async fn fetch(pack: PackRef, store: &Store, keyring: &Keyring) -> Result<Self> {
        let name = Name::Pack(pack.id).to_string();
        let Range { start, end: length } = pack.tail(&name)?;
        let (head, tail) =
            futures::try_join!(store.get_range(&name, 0..BLOCKS_START as u64), store.get_range(&name, start..length))?;
        let (header, writer) = parse_header(&head, &name).map_err(object::in_part)?;
        let opener = header.opener(keyring, &name).map_err(object::in_part)?;
        let trailer = tail.last_chunk::<TRAILER_LEN>().ok_or_else(|| object::too_short(&name))?;
        let at = footer_range(length, trailer, &opener, &name)?;
        if at.range.start != start {
            return Err(Error::corrupt(&name, "its footer is not where a snapshot says"));
        }
        let message = tail[..tail.len() - TRAILER_LEN].to_vec();
        let footer = parse_footer(&at, message, &opener, &writer, &name)?;
        let row = PackRow { id: pack.id, generation: header.generation, salt: header.salt };
        Ok(Self::new(pack, row, footer))
    }

    /// Reads the header and footer of a pack of which only the length is known: one round trip at most times.
    pub(crate) async fn read(id: ObjectId, length: u64, store: &Store, keyring: &Keyring) -> Result<Self> {
        let name = Name::Pack(id).to_string();
        let tail_start = length.saturating_sub(TAIL);
        let head = store.get_range(&name, 0..length.min(BLOCKS_START as u64));
        let tail = store.get_range(&name, tail_start..length);
        let (head, tail) = futures::try_join!(head, tail)?;
        let (header, writer) = parse_header(&head, &name).map_err(object::in_part)?;
        let opener = header.opener(keyring, &name).map_err(object::in_part)?;
        let trailer = tail.last_chunk::<TRAILER_LEN>().ok_or_else(|| object::too_short(&name))?;
        let at = footer_range(length, trailer, &opener, &name)?;
        let message = if at.range.start >= tail_start {
            #[expect(clippy::cast_possible_truncation, reason = "within the tail")]
            let (start, end) = ((at.range.start - tail_start) as usize, (at.range.end - tail_start) as usize);
            tail.slice(start..end)
        } else {
            store.get_range(&name, at.range.clone()).await?
        };
        #[expect(clippy::cast_possible_truncation, reason = "footer_range checked that it is at most PACK_MAX")]
        let pack = PackRef { id, length: length as u32, footer_len: (at.range.end - at.range.start) as u32 };
        let footer = parse_footer(&at, message.into(), &opener, &writer, &name)?;
        Ok(Self::new(pack, PackRow { id, generation: header.generation, salt: header.salt }, footer))
    }

    /// The ids of its blobs, sorted.
    pub(crate) fn ids(&self) -> Vec<BlobId> {
        self.blobs.iter().map(|(id, ..)| *id).collect()
    }

    /// The number of blobs in it.
    pub(crate) fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Whether a blob lies at this very place of the pack.
    pub(crate) fn has(&self, id: &BlobId, location: &Location) -> bool {
        self.places_of(id).any(|place| place == *location)
    }

    fn places_of(&self, id: &BlobId) -> impl Iterator<Item = Location> {
        let first = self.blobs.partition_point(|(other, ..)| other < id);
        let same = self.blobs[first..].iter().take_while(move |(other, ..)| other == id);
        same.filter_map(|(_, block, at, length)| {
            let place = *self.places.get(*block as usize)?;
            Some(Location { pack: self.row, place, at: *at, length: *length })
        })
    }

    fn find(&self, id: &BlobId) -> Option<Location> {
        let index = self.blobs.binary_search_by(|(other, ..)| other.cmp(id)).ok()?;
        let (_, block, at, length) = self.blobs[index];
        let place = *self.places.get(block as usize)?;
        Some(Location { pack: self.row, place, at, length })
    }
}

/// The packs that are known without a segment, in the order in which they became known.
#[derive(Debug, Default)]
pub(super) struct Recent {
    order: VecDeque<ObjectId>,
    packs: BTreeMap<ObjectId, State>,
    /// Blobs of those that were read.
    blobs: usize,
}

#[derive(Clone, Debug)]
enum State {
    Named(PackRef),
    Read(Arc<RecentPack>),
    /// It was merged, and is not to be looked for.
    Gone,
}

impl Recent {
    /// Takes note of a pack.
    pub(super) fn name(&mut self, pack: PackRef) {
        if !self.packs.contains_key(&pack.id) {
            self.insert(pack.id, State::Named(pack));
        }
    }

    /// Takes in a pack whose footer is at hand.
    pub(super) fn add(&mut self, pack: Arc<RecentPack>) {
        let id = pack.pack.id;
        self.blobs += pack.len();
        match self.packs.get_mut(&id) {
            Some(known) => {
                if let State::Read(before) = std::mem::replace(known, State::Read(pack)) {
                    self.blobs -= before.len();
                }
            }
            None => self.insert(id, State::Read(pack)),
        }
        self.shrink(&id);
    }

    /// Lets go of footers where there are too many blobs in them: they are read again if need be.
    fn shrink(&mut self, newest: &ObjectId) {
        for id in self.order.iter().filter(|id| *id != newest) {
            if self.blobs <= BLOBS_MAX {
                break;
            }
            if let Some(state) = self.packs.get_mut(id)
                && let State::Read(pack) = state
            {
                self.blobs -= pack.len();
                *state = State::Named(pack.pack);
            }
        }
    }

    fn insert(&mut self, id: ObjectId, state: State) {
        self.packs.insert(id, state);
        self.order.push_back(id);
        while self.order.len() > PACKS_MAX {
            let Some(oldest) = self.order.front().copied() else { break };
            self.remove(&oldest);
        }
    }

    /// Forgets a pack, say because a segment describes it.
    pub(super) fn remove(&mut self, id: &ObjectId) {
        if let Some(State::Read(pack)) = self.packs.remove(id) {
            self.blobs -= pack.len();
        }
        self.order.retain(|other| other != id);
    }

    /// Takes note that a pack was merged: records may go on naming it.
    pub(super) fn gone(&mut self, id: ObjectId) {
        self.remove(&id);
        self.insert(id, State::Gone);
    }

    /// Whether a pack was merged, as far as that is known.
    pub(super) fn is_gone(&self, id: &ObjectId) -> bool {
        matches!(self.packs.get(id), Some(State::Gone))
    }

    /// The packs whose footers haven't been read.
    pub(super) fn unread(&self) -> Vec<PackRef> {
        let named = self.order.iter().filter_map(|id| match self.packs.get(id) {
            Some(State::Named(pack)) => Some(*pack),
            _ => None,
        });
        named.collect()
    }

    /// A pack whose footer has been read.
    pub(super) fn get(&self, id: &ObjectId) -> Option<Arc<RecentPack>> {
        match self.packs.get(id) {
            Some(State::Read(pack)) => Some(Arc::clone(pack)),
            _ => None,
        }
    }

    /// Where a blob is, by the footers that have been read; the newest pack first.
    pub(super) fn find(&self, id: &BlobId) -> Option<Location> {
        self.find_in(id, &|_| true)
    }

    /// Everywhere where a blob is, by the footers that have been read.
    pub(super) fn find_all(&self, id: &BlobId) -> Vec<Location> {
        let read = self.packs.values().filter_map(|state| match state {
            State::Read(pack) => Some(pack),
            _ => None,
        });
        read.flat_map(|pack| pack.places_of(id)).collect()
    }

    /// The same, but only in packs that are `sound`.
    pub(super) fn find_in(&self, id: &BlobId, sound: &impl Fn(&ObjectId) -> bool) -> Option<Location> {
        self.order.iter().rev().filter(|pack| sound(pack)).find_map(|pack| match self.packs.get(pack) {
            Some(State::Read(pack)) => pack.find(id),
            _ => None,
        })
    }
}
