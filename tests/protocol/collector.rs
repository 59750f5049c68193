//! A collector: first mark, plan, publish, list writers, wait or fence, second mark, delete, end, tidy.
//!
//! Whoever is idle while a collection isn't finished can take it over, from "list writers"; whoever was at it before may
//! go on all the same.

use crate::model::{Protocol, State};
use crate::rules::Clause;
use crate::store::{
    Blobs, Kept, NUMBERS, Numbers, Packs, Plan, Record, Registrations, SERIES, Store, bit, has, members,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    #[default]
    Idle,
    /// Has marked the roots; packs come next.
    Marked,
    /// Has chosen what to condemn, and has to copy what is live in it.
    Sparse,
    /// Has a plan.
    Planned,
    /// Acts on `gc/<n>`.
    ListsWriters,
    Waits,
    /// A tombstone is on its way to the number it aims at.
    Fences,
    /// Sent a tombstone and has no answer.
    FencesUnsure,
    SecondMark,
    Rescues,
    DeletesPacks,
    DeletesRecords,
    Ends,
    Tidies,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Collector {
    pub(crate) phase: Phase,
    n: u8,
    plan: Plan,
    live: Blobs,
    /// What is still to be copied.
    copy: Blobs,
    listed: Registrations,
    fenced: Registrations,
    /// Registrations that it takes for done because their numbers are taken; only without the clause against it.
    decided: Registrations,
    pins: [Numbers; SERIES],
    /// The registration being fenced, and the number its tombstone is for.
    fencing: u8,
    aim: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collect {
    TakeOver,
    MarkRecords,
    /// Condemns the packs in which nothing is live, and perhaps one more after copying what is.
    PlanPacks(Option<u8>),
    CopyLive,
    Publish,
    ListWriters,
    /// Aims a tombstone at the number after the tip of a registration's series.
    AimAt(u8),
    PutTombstone,
    LoseAnswer,
    ReadBackTombstone,
    /// All listed are gone or fenced.
    StopWaiting,
    MarkAgain,
    CopyNeeded,
    DeletePacks,
    DeleteRecords,
    End,
    Tidy,
}

pub(crate) fn actions(protocol: &Protocol, state: &State, id: u8, push: &mut impl FnMut(Collect)) {
    let at = state.collectors[usize::from(id)];
    let gc = state.store.gc;
    match at.phase {
        Phase::Idle => {
            if !gc.ended && !gc.plan.merge {
                push(Collect::TakeOver);
            }
            let may_plan = gc.ended || !protocol.holds(Clause::PlannedAfterPrevious);
            if may_plan && gc.n < protocol.collections {
                push(Collect::MarkRecords);
            }
        }
        Phase::Marked => {
            push(Collect::PlanPacks(None));
            if protocol.condemns_sparse {
                members(state.store.packs).for_each(|pack| push(Collect::PlanPacks(Some(pack))));
            }
        }
        Phase::Sparse => push(Collect::CopyLive),
        Phase::Planned if gc.ended || at.n <= gc.n => push(Collect::Publish),
        Phase::Planned => {}
        Phase::ListsWriters => push(Collect::ListWriters),
        Phase::Waits => {
            let waits_for = at.waits_for(&state.store);
            if waits_for == 0 || !protocol.holds(Clause::WritersAreWaitedFor) {
                push(Collect::StopWaiting);
            }
            if protocol.fences {
                members(waits_for).for_each(|registration| push(Collect::AimAt(registration)));
            }
        }
        Phase::Fences => {
            push(Collect::PutTombstone);
            if protocol.answers_are_lost {
                push(Collect::LoseAnswer);
            }
        }
        Phase::FencesUnsure => push(Collect::ReadBackTombstone),
        Phase::SecondMark => push(Collect::MarkAgain),
        Phase::Rescues => push(Collect::CopyNeeded),
        Phase::DeletesPacks => push(Collect::DeletePacks),
        Phase::DeletesRecords => push(Collect::DeleteRecords),
        Phase::Ends => push(Collect::End),
        Phase::Tidies => push(Collect::Tidy),
    }
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, id: u8, collect: Collect) {
    let mut at = state.collectors[usize::from(id)];
    let store = &mut state.store;
    match collect {
        Collect::TakeOver => at.take_over(protocol, store),
        Collect::MarkRecords => at.mark_records(protocol, store),
        Collect::PlanPacks(sparse) => at.plan_packs(protocol, store, sparse),
        Collect::CopyLive => at.copy_to(store, Phase::Planned),
        Collect::Publish => at.publish(protocol, store),
        Collect::ListWriters => at.list_writers(protocol, store),
        Collect::AimAt(registration) => at.aim_at(protocol, store, registration),
        Collect::PutTombstone => at.put_tombstone(protocol, store),
        Collect::LoseAnswer => at.lose_answer(protocol),
        Collect::ReadBackTombstone => at.read_back_tombstone(store),
        Collect::StopWaiting => at.stop_waiting(protocol, store),
        Collect::MarkAgain => at.mark_again(protocol, store),
        Collect::CopyNeeded => at.copy_to(store, Phase::DeletesPacks),
        Collect::DeletePacks => {
            store.packs &= !at.plan.condemned;
            at.phase = if protocol.holds(Clause::RecordsDeletedLast) { Phase::DeletesRecords } else { Phase::Ends };
        }
        Collect::DeleteRecords => at.delete_records(protocol, store),
        Collect::End => at.end(protocol, store),
        Collect::Tidy => at.tidy(protocol, store),
    }
    state.collectors[usize::from(id)] = at;
}

impl Collector {
    /// One that had listed the writers of the collection under way when there were none.
    pub(crate) fn ahead(store: &Store) -> Self {
        Self { phase: Phase::Waits, n: store.gc.n, plan: store.gc.plan, ..Self::default() }
    }

    fn take_over(&mut self, protocol: &Protocol, store: &Store) {
        self.n = store.gc.n;
        self.plan = store.gc.plan;
        self.phase = match protocol.holds(Clause::TakeOverMarksInFull) {
            true => Phase::ListsWriters,
            false => Phase::DeletesPacks,
        };
    }

    /// The first mark: what is a root, how far the series go, and which records nobody needs any more.
    fn mark_records(&mut self, protocol: &Protocol, store: &Store) {
        self.n = store.gc.n + 1;
        for (index, series) in store.series.iter().enumerate() {
            let delay = protocol.holds(Clause::DelayIsHonoured);
            self.live |= series.needed(|number| series.counts(number) || delay && series.is_kept_back(number));
            self.plan.through[index] = series.tip();
            self.plan.delete[index] = deletable(protocol, store, index);
        }
        if !protocol.holds(Clause::WritersListedAfterPublishing) {
            self.listed = store.registered(|_| true);
        }
        self.phase = Phase::Marked;
    }

    fn plan_packs(&mut self, protocol: &Protocol, store: &Store, sparse: Option<u8>) {
        let dead = members(store.packs).filter(|pack| store.blobs(bit(*pack)) & self.live == 0);
        let sparse = sparse.map_or(0, bit);
        self.plan.condemned = dead.fold(sparse, |packs, pack| packs | bit(pack));
        let kept = if !protocol.holds(Clause::LiveResolvesToKept) {
            // Taken for kept: another pack that holds the blob, condemned or not.
            self.plan.condemned |= duplicates(store);
            store.packs & !sparse
        } else if !protocol.holds(Clause::LiveResolvesToExisting) {
            store.told_packs() & !self.plan.condemned
        } else {
            store.packs & !self.plan.condemned
        };
        self.copy = self.live & store.blobs(self.plan.condemned & sparse) & !store.blobs(kept);
        self.live = 0;
        self.phase = if self.copy == 0 { Phase::Planned } else { Phase::Sparse };
    }

    /// Copies what it has to and can still read; what is gone another collector has copied.
    fn copy_to(&mut self, store: &mut Store, next: Phase) {
        let there = self.copy & store.blobs(store.packs);
        if there != 0 {
            store.upload(there);
        }
        self.copy = 0;
        self.phase = next;
    }

    /// Creates `gc/<n>`. A name below the highest is free once that has finished, since older ones are deleted.
    fn publish(&mut self, protocol: &Protocol, store: &mut Store) {
        let gc = &mut store.gc;
        if self.n > gc.n || self.n == gc.n && !protocol.holds(Clause::OneGc) {
            gc.n = self.n;
            gc.plan = self.plan;
            gc.ended = false;
            gc.fenced = 0;
            self.go_to_writers(protocol);
        } else if self.n == gc.n && !protocol.holds(Clause::GcReadBack)
            || self.n < gc.n && !protocol.holds(Clause::OnlyHighestIsActedOn)
        {
            self.go_to_writers(protocol);
        } else if !protocol.holds(Clause::LoserPlansAnew) {
            self.n = gc.n + 1;
        } else {
            *self = Self::default();
        }
    }

    fn go_to_writers(&mut self, protocol: &Protocol) {
        self.phase = match protocol.holds(Clause::RecordsDeletedLast) {
            true => Phase::ListsWriters,
            false => Phase::DeletesRecords,
        };
    }

    fn list_writers(&mut self, protocol: &Protocol, store: &Store) {
        if protocol.holds(Clause::WritersListedAfterPublishing) {
            self.listed = store.registered(|registration| registration.seen < self.n);
        }
        if !protocol.holds(Clause::DecidedIsFenced) {
            self.decided = store.registered(|each| store.series[usize::from(each.series)].taken(each.number));
        }
        self.phase = Phase::Waits;
    }

    /// The listed registrations that are neither gone nor fenced.
    fn waits_for(&self, store: &Store) -> Registrations {
        self.listed & !self.fenced & !self.decided & store.registered(|_| true)
    }

    /// Each registration is gone or fenced. One that is gone has ended by itself only if the collection isn't finished:
    /// another collector removes those it fenced once it is, and pinned numbers which this one doesn't know.
    fn stop_waiting(&mut self, protocol: &Protocol, store: &Store) {
        let finished = store.gc.n != self.n || store.gc.ended;
        if finished && protocol.holds(Clause::StopsWhereEnded) {
            *self = Self::default();
        } else if protocol.holds(Clause::SecondMark) {
            self.phase = Phase::SecondMark;
        } else {
            self.phase = Phase::DeletesPacks;
        }
    }

    fn aim_at(&mut self, protocol: &Protocol, store: &mut Store, id: u8) {
        let registration = store.registrations[usize::from(id)];
        if !protocol.holds(Clause::FenceIsATombstone) {
            store.unregister(bit(id));
            return;
        }
        self.fencing = id;
        self.aim = store.series[usize::from(registration.series)].tip() + 1;
        self.phase = Phase::Fences;
    }

    /// Creates a tombstone; where that loses, a commit won, and the next number is tried.
    fn put_tombstone(&mut self, protocol: &Protocol, store: &mut Store) {
        let registration = store.registrations[usize::from(self.fencing)];
        let gone = registration.number == 0;
        let series = &mut store.series[usize::from(registration.series)];
        if gone {
            self.stop_fencing();
        } else if !series.taken(self.aim) {
            series.put(self.aim, Record::Tombstone);
            self.fenced(store);
        } else if protocol.holds(Clause::FenceUntilItLands) {
            self.aim += 1;
        } else {
            self.fenced(store);
        }
    }

    /// The number aimed at is taken: no put for a number of this registration can win any more.
    fn fenced(&mut self, store: &Store) {
        let registration = store.registrations[usize::from(self.fencing)];
        self.fenced |= bit(self.fencing);
        let numbers = (registration.number..=self.aim).filter(|number| *number < NUMBERS);
        self.pins[usize::from(registration.series)] |= numbers.fold(0, |set, number| set | bit(number));
        self.stop_fencing();
    }

    fn stop_fencing(&mut self) {
        (self.fencing, self.aim) = (0, 0);
        self.phase = Phase::Waits;
    }

    /// A tombstone that was sent and isn't there yet; where it lands later, that is the same put tried again.
    fn lose_answer(&mut self, protocol: &Protocol) {
        if protocol.holds(Clause::TombstoneReadBack) {
            self.phase = Phase::FencesUnsure;
        } else {
            self.fenced |= bit(self.fencing);
            self.stop_fencing();
        }
    }

    fn read_back_tombstone(&mut self, store: &Store) {
        let registration = store.registrations[usize::from(self.fencing)];
        let series = &store.series[usize::from(registration.series)];
        match series.records[usize::from(self.aim)] {
            Record::Tombstone => self.fenced(store),
            Record::Free | Record::Commit(..) => self.phase = Phase::Fences,
        }
    }

    /// The second mark: what the records need that the first mark didn't see, and that is in condemned packs alone.
    fn mark_again(&mut self, protocol: &Protocol, store: &Store) {
        let mut needed = 0;
        for (series, through) in store.series.iter().zip(self.plan.through) {
            if through == 0 && !protocol.holds(Clause::SecondMarkCoversNewSeries) {
                continue;
            }
            let all = protocol.holds(Clause::SecondMarkCoversForgotten);
            needed |= series.needed(|number| number > through && (all || series.counts(number)));
        }
        self.copy = needed & store.blobs(store.packs) & !store.blobs(store.packs & !self.plan.condemned);
        if !protocol.holds(Clause::CondemnationIsFinal) {
            let spared = members(self.plan.condemned).filter(|pack| store.blobs(bit(*pack)) & self.copy != 0);
            self.plan.condemned &= !spared.fold(0, |packs, pack| packs | bit(pack));
            self.copy = 0;
        }
        self.phase = if self.copy == 0 { Phase::DeletesPacks } else { Phase::Rescues };
    }

    fn delete_records(&mut self, protocol: &Protocol, store: &mut Store) {
        for index in 0..SERIES {
            let planned = match protocol.holds(Clause::ForgottenAtFirstMark) {
                true => self.plan.delete[index],
                false => deletable(protocol, store, index),
            };
            let pinned = if protocol.holds(Clause::FencedNumbersStay) { self.pins[index] } else { 0 };
            for number in members(planned & !pinned) {
                store.series[index].put(number, Record::Free);
            }
        }
        self.phase = if protocol.holds(Clause::RecordsDeletedLast) { Phase::Ends } else { Phase::ListsWriters };
    }

    /// Creates `gc/<n>-ended`, which names what was fenced and pins its numbers.
    fn end(&mut self, protocol: &Protocol, store: &mut Store) {
        let gc = &mut store.gc;
        if gc.n == self.n && !gc.ended {
            gc.ended = true;
            gc.fenced = self.fenced;
            for (pinned, own) in gc.pins.iter_mut().zip(self.pins) {
                *pinned |= if protocol.holds(Clause::PinsAreCarried) { own } else { 0 };
            }
        }
        let own = self.fenced | self.decided;
        *self = Self { phase: Phase::Tidies, n: self.n, ..Self::default() };
        if !protocol.holds(Clause::OnlyNamedAreRemoved) || !protocol.holds(Clause::DecidedIsFenced) {
            self.fenced = own;
        }
    }

    fn tidy(&mut self, protocol: &Protocol, store: &mut Store) {
        let named = if store.gc.n == self.n { store.gc.fenced } else { 0 };
        store.unregister(named | self.fenced);
        if !protocol.holds(Clause::HighestGcStays) && store.gc.n == self.n {
            store.gc.n = 0;
        }
        if !protocol.holds(Clause::HighestKeptStays) {
            for series in &mut store.series {
                series.kept = Kept { k: 0, through: 0, set: 0 };
            }
        }
        *self = Self::default();
    }
}

/// The packs that share all they hold with others.
fn duplicates(store: &Store) -> Packs {
    members(store.packs)
        .filter(|pack| store.blobs(bit(*pack)) & !store.blobs(store.packs & !bit(*pack)) == 0)
        .fold(0, |packs, pack| packs | bit(pack))
}

/// The records that a first mark finds forgotten and expired, but for those that must stay.
fn deletable(protocol: &Protocol, store: &Store, index: usize) -> Numbers {
    let series = &store.series[index];
    let pins = if protocol.holds(Clause::FencedNumbersStay) { store.gc.pins[index] } else { 0 };
    series.numbers(|number| {
        let gone = match series.records[usize::from(number)] {
            Record::Free => false,
            Record::Tombstone => !protocol.holds(Clause::TombstonesStay),
            Record::Commit(..) => !series.counts(number) && !series.is_kept_back(number),
        };
        let highest = number == series.tip() && protocol.holds(Clause::HighestNumberStays);
        gone && !highest && !has(pins, number)
    })
}
