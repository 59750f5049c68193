//! A merger: copies one pack's blobs into a new one, and has the old one deleted through a `gc/` record.

use crate::model::{Protocol, State};
use crate::rules::Clause;
use crate::store::{Packs, Plan, Store, bit, members};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    #[default]
    Idle,
    Copied,
    /// Has seen that each blob is told elsewhere.
    Planned,
    Deletes,
    Ends,
    Finished,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Merger {
    pub(crate) phase: Phase,
    n: u8,
    merged: Packs,
    merges: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    TakeOver,
    Copy(u8),
    Plan,
    Publish,
    Delete,
    End,
}

pub(crate) fn actions(protocol: &Protocol, state: &State, id: u8, push: &mut impl FnMut(Merge)) {
    let at = state.mergers[usize::from(id)];
    let gc = state.store.gc;
    if at.merges >= protocol.merges {
        return;
    }
    match at.phase {
        Phase::Idle => {
            if !gc.ended && gc.plan.merge {
                push(Merge::TakeOver);
            }
            members(state.store.packs).for_each(|pack| push(Merge::Copy(pack)));
        }
        Phase::Copied if !protocol.holds(Clause::MergerOnlyCopies) => push(Merge::Delete),
        Phase::Copied if gc.ended => push(Merge::Plan),
        Phase::Planned if gc.ended || at.n <= gc.n => push(Merge::Publish),
        Phase::Deletes => push(Merge::Delete),
        Phase::Ends => push(Merge::End),
        Phase::Copied | Phase::Planned | Phase::Finished => {}
    }
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, id: u8, merge: Merge) {
    let store = &mut state.store;
    let mut at = state.mergers[usize::from(id)];
    match merge {
        Merge::TakeOver => {
            at = Merger { phase: Phase::Deletes, n: store.gc.n, merged: store.gc.plan.condemned, ..at };
        }
        Merge::Copy(pack) => {
            store.upload(store.blobs(bit(pack)));
            at.merged = bit(pack);
            at.phase = Phase::Copied;
        }
        Merge::Plan => {
            at.n = store.gc.n + 1;
            let elsewhere = is_elsewhere(store, at.merged) || !protocol.holds(Clause::MergedIsElsewhere);
            at.phase = if elsewhere { Phase::Planned } else { Phase::Finished };
        }
        Merge::Publish => at.publish(store),
        Merge::Delete => {
            if is_elsewhere(store, at.merged) || !protocol.holds(Clause::MergeVerifiedAgain) {
                store.packs &= !at.merged;
            }
            at.phase = Phase::Ends;
        }
        Merge::End => {
            store.gc.ended |= store.gc.n == at.n && store.gc.plan.merge;
            at = Merger { merges: at.merges + 1, ..Merger::default() };
        }
    }
    state.mergers[usize::from(id)] = at;
}

impl Merger {
    fn publish(&mut self, store: &mut Store) {
        if self.n <= store.gc.n {
            // Somebody was faster: what was seen may be gone.
            self.phase = Phase::Copied;
            return;
        }
        store.gc.n = self.n;
        store.gc.plan = Plan { condemned: self.merged, merge: true, ..Plan::default() };
        store.gc.ended = false;
        store.gc.fenced = 0;
        self.phase = Phase::Deletes;
    }
}

/// Whether each blob of these packs is told in other packs too, which exist and aren't condemned.
fn is_elsewhere(store: &Store, packs: Packs) -> bool {
    store.blobs(packs) & !store.blobs(store.packs & !packs & !store.condemned()) == 0
}
