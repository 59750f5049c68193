//! A stolen append-only writer: it can create any record, but can't sign those of an administrator.
//!
//! Where the rule holds its records are passed over, as if they weren't there: then it has nothing to do.

use crate::model::{Protocol, State};
use crate::rules::Clause;
use crate::store::{Gc, Kept, Plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forge {
    Kept,
    Gc,
}

pub(crate) fn actions(protocol: &Protocol, push: &mut impl FnMut(Forge)) {
    if !protocol.holds(Clause::KeptIsAuthenticated) {
        push(Forge::Kept);
    }
    if !protocol.holds(Clause::GcIsAuthenticated) {
        push(Forge::Gc);
    }
}

pub(crate) fn apply(state: &mut State, forge: Forge) {
    let store = &mut state.store;
    match forge {
        Forge::Kept => {
            for series in &mut store.series {
                series.kept = Kept { k: series.kept.k + 1, through: series.tip(), set: 0 };
            }
        }
        Forge::Gc => {
            let through = [store.series[0].tip(), store.series[1].tip()];
            let plan = Plan { condemned: store.packs, through, ..Plan::default() };
            store.gc = Gc { n: store.gc.n + 1, plan, ended: false, ..store.gc };
        }
    }
}
