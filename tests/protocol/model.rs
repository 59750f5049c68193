//! The model: who takes part, what can happen next, and what must always hold.

use std::hash::{Hash, Hasher};

use stateright::{Model, Property};

use crate::collector::{self, Collect, Collector};
use crate::forgetter::{self, Forget, Forgetter};
use crate::intruder::{self, Forge};
use crate::merger::{self, Merge, Merger};
use crate::reader::{self, Read, Reader};
use crate::rules::Clause;
use crate::store::{NUMBERS, Record, Store, bit};
use crate::writer::{self, Task, Write, Writer};

/// A small world: what it starts with and who takes part.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    /// The clauses left out.
    pub(crate) without: &'static [Clause],
    pub(crate) store: Store,
    pub(crate) writers: Vec<Task>,
    /// What happened while the writers that are asleep slept.
    pub(crate) meanwhile: fn(Store) -> Store,
    pub(crate) collectors: u8,
    /// Whether the first collector has listed the writers before those that are asleep came.
    pub(crate) ahead: bool,
    /// How many collections there may be, those before the start included.
    pub(crate) collections: u8,
    /// Whether packs in which something is live are condemned as well, after copying.
    pub(crate) condemns_sparse: bool,
    /// Whether collectors may lose their patience.
    pub(crate) fences: bool,
    pub(crate) answers_are_lost: bool,
    pub(crate) forgetters: u8,
    /// How many numbers each of them may forget.
    pub(crate) forgets: u8,
    pub(crate) mergers: u8,
    /// How many merges each of them may make.
    pub(crate) merges: u8,
    pub(crate) reader: bool,
}

impl Protocol {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            without: &[],
            store,
            writers: Vec::new(),
            meanwhile: |store| store,
            collectors: 0,
            ahead: false,
            collections: 0,
            condemns_sparse: false,
            fences: false,
            answers_are_lost: false,
            forgetters: 0,
            forgets: 0,
            mergers: 0,
            merges: 0,
            reader: false,
        }
    }

    /// Whether the writers and the reader are done, and the collections that there may be.
    fn is_finished(&self, state: &State) -> bool {
        let gc = state.store.gc;
        state.writers.iter().all(|writer| *writer == Writer::default())
            && matches!(state.reader, Reader::Absent | Reader::Finished)
            && gc.ended
            && gc.n == self.collections
    }

    pub(crate) fn holds(&self, clause: Clause) -> bool {
        !self.without.contains(&clause)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) writers: Vec<Writer>,
    pub(crate) collectors: Vec<Collector>,
    pub(crate) forgetters: Vec<Forgetter>,
    pub(crate) mergers: Vec<Merger>,
    pub(crate) reader: Reader,
    /// A writer was told that its commit is durable, and it isn't there or is another's.
    pub(crate) lied: bool,
}

impl State {
    /// A writer hears that its commit is durable.
    pub(crate) fn acknowledge(&mut self, series: usize, number: u8, writer: u8) {
        let series = &mut self.store.series[series];
        match series.records[usize::from(number)] {
            Record::Commit(_, by) if by == writer => series.acknowledged |= bit(number),
            _ => self.lied = true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Writer(u8, Write),
    Collector(u8, Collect),
    Forgetter(u8, Forget),
    Merger(u8, Merge),
    Reader(Read),
    Intruder(Forge),
}

pub(crate) const COUNTED: &str = "every blob of a snapshot that counts can be found";
pub(crate) const DELAYED: &str = "every blob of a snapshot that can be undeleted can be found";
pub(crate) const ACKNOWLEDGED: &str = "what was acknowledged stays, unless it was forgotten";
pub(crate) const FINISHED: &str = "everybody can finish";
pub(crate) const READ: &str = "a reader finds what is there";

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            store: self.store.clone(),
            writers: vec![Writer::new(); self.writers.len()],
            collectors: vec![Collector::default(); usize::from(self.collectors)],
            forgetters: vec![Forgetter::default(); usize::from(self.forgetters)],
            mergers: vec![Merger::default(); usize::from(self.mergers)],
            reader: if self.reader { Reader::new() } else { Reader::Absent },
            lied: false,
        };
        for (id, task) in (0..).zip(&self.writers) {
            if task.asleep {
                Writer::asleep(self, &mut state, id);
            }
        }
        state.store = (self.meanwhile)(state.store);
        if self.ahead {
            state.collectors[0] = Collector::ahead(&state.store);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for id in 0..self.writers.len() as u8 {
            writer::actions(self, state, id, &mut |write| actions.push(Action::Writer(id, write)));
        }
        for id in 0..self.collectors {
            collector::actions(self, state, id, &mut |collect| actions.push(Action::Collector(id, collect)));
        }
        for id in 0..self.forgetters {
            forgetter::actions(self, state, id, &mut |forget| actions.push(Action::Forgetter(id, forget)));
        }
        for id in 0..self.mergers {
            merger::actions(self, state, id, &mut |merge| actions.push(Action::Merger(id, merge)));
        }
        reader::actions(self, state, &mut |read| actions.push(Action::Reader(read)));
        intruder::actions(self, &mut |forge| actions.push(Action::Intruder(forge)));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Writer(id, write) => writer::apply(self, &mut state, id, write),
            Action::Collector(id, collect) => collector::apply(self, &mut state, id, collect),
            Action::Forgetter(id, forget) => forgetter::apply(self, &mut state, id, forget),
            Action::Merger(id, merge) => merger::apply(self, &mut state, id, merge),
            Action::Reader(read) => reader::apply(self, &mut state, read),
            Action::Intruder(forge) => intruder::apply(&mut state, forge),
        }
        // They are alike, so that which is which doesn't matter.
        state.collectors.sort_unstable();
        state.mergers.sort_unstable();
        (state != *last).then_some(state)
    }

    /// Runs end where a series has used up its numbers: collectors that take over may fence a sleeper again and again.
    fn within_boundary(&self, state: &State) -> bool {
        state.store.series.iter().all(|series| series.tip() < NUMBERS - 1)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(COUNTED, |_, state: &State| {
                let store = &state.store;
                store.counted() & !store.blobs(store.packs) == 0
            }),
            Property::always(DELAYED, |_, state: &State| {
                let store = &state.store;
                let mut series = store.series.iter();
                series.all(|each| each.needed(|number| each.is_kept_back(number)) & !store.blobs(store.packs) == 0)
            }),
            Property::always(ACKNOWLEDGED, |_, state: &State| {
                let mut series = state.store.series.iter();
                let lost = |number, each: &crate::store::Series| {
                    each.acknowledged & !each.forgotten & bit(number) != 0 && !each.counts(number)
                };
                !state.lied && series.all(|each| each.numbers(|number| lost(number, each)) == 0)
            }),
            Property::always(READ, |_, state: &State| state.reader != Reader::GaveUp),
            Property::sometimes(FINISHED, Self::is_finished),
        ]
    }
}

/// Collects the bytes of a state, so that the checker hashes one run of them.
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn write_u8(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// A variant's index or a length: all are small here.
    fn write_usize(&mut self, value: usize) {
        self.0.push(value as u8);
    }

    fn write_isize(&mut self, value: isize) {
        self.0.push(value as u8);
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut bytes = Bytes(Vec::with_capacity(256));
        self.store.hash(&mut bytes);
        self.writers.hash(&mut bytes);
        self.collectors.hash(&mut bytes);
        self.forgetters.hash(&mut bytes);
        self.mergers.hash(&mut bytes);
        self.reader.hash(&mut bytes);
        bytes.write_u8(u8::from(self.lied));
        hasher.write(&bytes.0);
    }
}
