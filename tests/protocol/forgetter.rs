//! Whoever forgets snapshots, and time, which ends the delay in which they can be undeleted.

use crate::model::{Protocol, State};
use crate::rules::Clause;
use crate::store::{Kept, Numbers, Record, bit, members};

/// Has read the highest `kept/` and the series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Forgetter {
    reading: bool,
    kept: (u8, Numbers),
    delayed: Numbers,
    tip: u8,
    forgotten: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forget {
    Read,
    /// Creates `kept/<k+1>` without a number.
    Publish(u8),
    /// Creates it with a number that it found forgotten; only without the clause against it.
    Restore(u8),
    Expire(u8),
}

/// The series that is forgotten of.
const SERIES: usize = 0;

pub(crate) fn actions(protocol: &Protocol, state: &State, id: u8, push: &mut impl FnMut(Forget)) {
    let at = state.forgetters[usize::from(id)];
    let series = &state.store.series[SERIES];
    if at.reading {
        members(at.kept.1).for_each(|number| push(Forget::Publish(number)));
        members(at.delayed).for_each(|number| push(Forget::Restore(number)));
    } else if at.forgotten < protocol.forgets && series.tip() > 0 {
        push(Forget::Read);
    }
    let delayed = series.numbers(|number| id == 0 && series.is_kept_back(number));
    members(delayed).for_each(|number| push(Forget::Expire(number)));
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, id: u8, forget: Forget) {
    let at = &mut state.forgetters[usize::from(id)];
    let series = &mut state.store.series[SERIES];
    match forget {
        Forget::Read => {
            at.reading = true;
            at.kept = (series.kept.k, series.numbers(|number| series.counts(number)));
            at.tip = series.tip();
            if !protocol.holds(Clause::UndeleteCommitsAnew) {
                at.delayed = series.numbers(|number| series.is_kept_back(number));
            }
        }
        Forget::Publish(number) => {
            let forgotten = at.forgotten + 1;
            let (k, set) = at.kept;
            if k == series.kept.k || !protocol.holds(Clause::OneKept) {
                series.kept = Kept { k: k + 1, through: at.tip, set: set & !bit(number) };
                series.forgotten |= bit(number);
                if !protocol.holds(Clause::ForgetOnlyPublishes) && number < series.tip() {
                    series.put(number, Record::Free);
                }
            }
            *at = Forgetter { forgotten, ..Forgetter::default() };
        }
        Forget::Restore(number) => {
            let forgotten = at.forgotten + 1;
            let (k, set) = at.kept;
            if k == series.kept.k {
                series.kept = Kept { k: k + 1, through: at.tip, set: set | bit(number) };
                series.forgotten &= !bit(number);
            }
            *at = Forgetter { forgotten, ..Forgetter::default() };
        }
        Forget::Expire(number) => series.expired |= bit(number),
    }
}
