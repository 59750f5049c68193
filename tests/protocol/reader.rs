//! A reader: has an index in hand, tries the locations that it tells, and refreshes it once.

use crate::model::{Protocol, State};
use crate::rules::Clause;
use crate::store::{Blobs, Packs, bit, members};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    #[default]
    Absent,
    /// Has yet to open its index.
    Opens,
    /// Locations that it has yet to try, and whether it refreshed.
    Tries(Packs, bool),
    /// Gave up on a blob that a snapshot which counts needs.
    GaveUp,
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Open,
    Try(u8),
    Refresh,
    GiveUp,
}

/// The blob it reads.
pub(crate) const BLOB: Blobs = 1;

pub(crate) fn actions(protocol: &Protocol, state: &State, push: &mut impl FnMut(Read)) {
    match state.reader {
        Reader::Opens => push(Read::Open),
        Reader::Tries(0, false) if protocol.holds(Clause::RefreshOnce) => push(Read::Refresh),
        Reader::Tries(0, _) => push(Read::GiveUp),
        Reader::Tries(packs, _) => members(packs).for_each(|pack| push(Read::Try(pack))),
        Reader::Absent | Reader::GaveUp | Reader::Finished => {}
    }
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, read: Read) {
    let store = &state.store;
    let known = members(store.packs).filter(|pack| store.blobs(bit(*pack)) & BLOB != 0);
    let known = known.fold(0, |packs, pack| packs | bit(pack));
    state.reader = match (read, state.reader) {
        (Read::Open, _) => Reader::Tries(known, false),
        (Read::Refresh, _) => Reader::Tries(known, true),
        (Read::Try(pack), _) if store.packs & bit(pack) != 0 => Reader::Finished,
        (Read::Try(pack), Reader::Tries(packs, refreshed)) => {
            Reader::Tries(if protocol.holds(Clause::EveryLocation) { packs & !bit(pack) } else { 0 }, refreshed)
        }
        (Read::Try(_) | Read::GiveUp, _) if state.store.counted() & BLOB != 0 => Reader::GaveUp,
        (Read::Try(_) | Read::GiveUp, _) => Reader::Finished,
    };
}
