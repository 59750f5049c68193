//! A reader: has an index in hand, tries the locations that it tells, and reads the index anew while that tells more.

use crate::model::{Protocol, State};
use crate::rules::Clause;
use crate::store::{Blobs, Packs, bit, members};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    #[default]
    Absent,
    Reads {
        /// Locations that it has yet to try, and those it tried in vain.
        untried: Packs,
        tried: Packs,
        /// How often it read the index, as far as that matters.
        index: Index,
    },
    /// Gave up on a blob that a snapshot which counts needs.
    GaveUp,
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Index {
    Unread,
    Read,
    Refreshed,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self::Reads { untried: 0, tried: 0, index: Index::Unread }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Index,
    Try(u8),
    /// Nothing is left to try.
    GiveUp,
}

/// The blob it reads.
const BLOB: Blobs = 1;

pub(crate) fn actions(protocol: &Protocol, state: &State, push: &mut impl FnMut(Read)) {
    let Reader::Reads { untried, tried, index } = state.reader else { return };
    members(untried).for_each(|pack| push(Read::Try(pack)));
    if untried != 0 {
        return;
    }
    let reads_again = match index {
        Index::Unread => true,
        Index::Read => protocol.holds(Clause::Refresh),
        Index::Refreshed => protocol.holds(Clause::RefreshAgain) && known(state) & !tried != 0,
    };
    push(if reads_again { Read::Index } else { Read::GiveUp });
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, read: Read) {
    let Reader::Reads { untried, tried, index } = state.reader else { return };
    state.reader = match read {
        Read::Index => Reader::Reads {
            untried: known(state) & !tried,
            tried,
            index: if index == Index::Unread { Index::Read } else { Index::Refreshed },
        },
        Read::Try(pack) if state.store.packs & bit(pack) != 0 => Reader::Finished,
        Read::Try(pack) if protocol.holds(Clause::EveryLocation) => {
            Reader::Reads { untried: untried & !bit(pack), tried: tried | bit(pack), index }
        }
        Read::Try(_) => Reader::Reads { untried: 0, tried: tried | untried, index },
        Read::GiveUp if state.store.counted() & BLOB != 0 => Reader::GaveUp,
        Read::GiveUp => Reader::Finished,
    };
}

/// Where the index has the blob.
fn known(state: &State) -> Packs {
    let known = members(state.store.packs).filter(|pack| state.store.blobs(bit(*pack)) & BLOB != 0);
    known.fold(0, |packs, pack| packs | bit(pack))
}
