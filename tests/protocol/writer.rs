//! A writer: registers, reads, looks up, uploads, commits, and renews where it lost or a newer collection began.
//!
//! A crash needs no step of its own: an actor that isn't scheduled any more has crashed, and every run holds all places
//! where that can happen. What it had under way lands or doesn't.

use crate::model::{Protocol, State};
use crate::rules::Clause;
use crate::store::{Blobs, Packs, Record, Registration, Registrations, bit};

/// What a writer is there for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) series: u8,
    /// What each of its commits adds to its parent's tree. More than one make a feed.
    pub(crate) wants: &'static [Blobs],
    /// The number whose root is committed again, instead; 0 for none.
    pub(crate) undelete: u8,
    /// How many times it may register.
    pub(crate) registrations: u8,
    /// Whether it fell asleep before the run, registered and about to send its put.
    pub(crate) asleep: bool,
}

impl Task {
    pub(crate) fn commit(series: u8, want: &'static [Blobs]) -> Self {
        Self { series, wants: want, undelete: 0, registrations: 1, asleep: false }
    }

    pub(crate) fn undelete(series: u8, number: u8) -> Self {
        Self { series, wants: &[0], undelete: number, registrations: 1, asleep: false }
    }

    pub(crate) fn asleep(self) -> Self {
        Self { asleep: true, ..self }
    }

    pub(crate) fn registering(self, times: u8) -> Self {
        Self { registrations: times, ..self }
    }
}

/// The steps up to the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Do {
    ListTip,
    Register,
    ReadGc,
    ReadParent,
    ListPacks,
    Upload,
    EndOld,
    Send,
}

/// The protocol's order, and what becomes of it without a clause about order.
fn order(without: &[Clause]) -> [Do; 8] {
    use Do::{EndOld, ListPacks, ListTip, ReadGc, ReadParent, Register, Send, Upload};
    match without.iter().find(|clause| is_about_order(**clause)) {
        Some(Clause::RegisterBeforeGc) => [ListTip, ReadGc, Register, ReadParent, ListPacks, Upload, EndOld, Send],
        Some(Clause::RegisterBeforeParent) => [ListTip, ReadParent, Register, ReadGc, ListPacks, Upload, EndOld, Send],
        Some(Clause::SeenAfterRegistering) => [ListTip, ListPacks, Register, ReadGc, ReadParent, Upload, EndOld, Send],
        Some(Clause::SeenAfterGc) => [ListTip, Register, ListPacks, ReadGc, ReadParent, Upload, EndOld, Send],
        Some(Clause::OldEndsLast) => [ListTip, EndOld, Register, ReadGc, ReadParent, ListPacks, Upload, Send],
        _ => [ListTip, Register, ReadGc, ReadParent, ListPacks, Upload, EndOld, Send],
    }
}

fn is_about_order(clause: Clause) -> bool {
    use Clause::{OldEndsLast, RegisterBeforeGc, RegisterBeforeParent, SeenAfterGc, SeenAfterRegistering};
    matches!(clause, RegisterBeforeGc | RegisterBeforeParent | SeenAfterRegistering | SeenAfterGc | OldEndsLast)
}

/// A feed that renews knows its number already.
const AFTER_LIST_TIP: u8 = 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// The step of its order that comes next.
    Next(u8),
    /// Its put is under way and nothing was heard yet.
    Waiting,
    /// The answer was lost.
    Unsure,
    /// To end its registration.
    Ending,
    #[default]
    Finished,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    #[default]
    None,
    Created,
    Exists,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) phase: Phase,
    number: u8,
    /// How many times it has registered.
    registered: u8,
    /// The registrations it has to end: the current one, and those it renewed.
    current: Registrations,
    old: Registrations,
    /// The highest collection that it read before it registers next.
    seen: u8,
    /// The highest collection it knows and what that condemned.
    gc: u8,
    condemned: Packs,
    parent: Blobs,
    /// What the next commit adds.
    want: Blobs,
    /// The packs that it saw.
    packs: Packs,
    /// Whether it checked what it wants, once.
    checked: bool,
    commits: u8,
    /// The number that a put under way is for; 0 if none is.
    air: u8,
    answer: Answer,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Next(0), ..Self::default() }
    }

    /// One that came as far as its put before the run began.
    pub(crate) fn asleep(protocol: &Protocol, state: &mut State, id: u8) {
        let writer = |state: &State| state.writers[usize::from(id)].phase;
        while let Phase::Next(next) = writer(state)
            && order(&[])[usize::from(next)] != Do::Send
        {
            apply(protocol, state, id, Write::Step(order(&[])[usize::from(next)]));
        }
    }
}

/// What happens to a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Step(Do),
    /// It hears of a newer collection and renews.
    Renew,
    /// The store carries its put out.
    Land,
    Hear,
    LoseAnswer,
    ReadBack,
    GiveUp,
    End,
}

/// A writer in a state, with what it is there for.
struct At<'a> {
    protocol: &'a Protocol,
    id: u8,
    task: Task,
}

pub(crate) fn actions(protocol: &Protocol, state: &State, id: u8, push: &mut impl FnMut(Write)) {
    let writer = state.writers[usize::from(id)];
    let task = protocol.writers[usize::from(id)];
    if writer.air != 0 {
        push(Write::Land);
    }
    match writer.phase {
        Phase::Next(step) => {
            push(Write::Step(order(protocol.without)[usize::from(step)]));
            let registered = writer.old == 0 && writer.current != 0 && writer.registered < task.registrations;
            if registered && task.wants.len() > 1 && state.store.gc.n > writer.gc {
                push(Write::Renew);
            }
        }
        Phase::Waiting => {
            if writer.answer != Answer::None {
                push(Write::Hear);
            }
            if protocol.answers_are_lost {
                push(Write::LoseAnswer);
            }
            if !protocol.holds(Clause::GivingUpLeaves) {
                push(Write::GiveUp);
            }
        }
        Phase::Unsure => push(Write::ReadBack),
        Phase::Ending => push(Write::End),
        Phase::Finished => {}
    }
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, id: u8, write: Write) {
    let at = At { protocol, id, task: protocol.writers[usize::from(id)] };
    match write {
        Write::Step(step) => at.step(state, step),
        Write::Renew => at.renew(state),
        Write::Land => at.land(state),
        Write::Hear => at.hear(state),
        Write::LoseAnswer => at.lose_answer(state),
        Write::ReadBack => at.read_back(state),
        Write::GiveUp => {
            let current = at.writer(state).current;
            state.store.unregister(current);
            at.finish(state);
        }
        Write::End => {
            let writer = *at.writer(state);
            state.store.unregister(writer.current | writer.old);
            at.finish(state);
        }
    }
}

impl At<'_> {
    fn writer<'s>(&self, state: &'s mut State) -> &'s mut Writer {
        &mut state.writers[usize::from(self.id)]
    }

    fn series(&self) -> usize {
        usize::from(self.task.series)
    }

    /// Forgets all but what is still under way and what that will write.
    fn finish(&self, state: &mut State) {
        let writer = self.writer(state);
        let (air, parent, want) = (writer.air, writer.parent, writer.want);
        *writer = Writer { air, ..Writer::default() };
        if air != 0 {
            (writer.parent, writer.want) = (parent, want);
        }
    }

    fn step(&self, state: &mut State, step: Do) {
        match step {
            Do::ListTip => self.list_tip(state),
            Do::Register => self.register(state),
            Do::ReadGc => {
                let (gc, condemned) = (state.store.gc.n, state.store.condemned());
                let writer = self.writer(state);
                (writer.gc, writer.condemned) = (gc, condemned);
            }
            Do::ReadParent => self.read_parent(state),
            Do::ListPacks => {
                let seen = self.protocol.holds(Clause::HitIsSeen);
                self.writer(state).packs = if seen { state.store.packs } else { state.store.told_packs() };
            }
            Do::Upload => self.upload(state),
            Do::EndOld => {
                let old = std::mem::take(&mut self.writer(state).old);
                state.store.unregister(old);
            }
            Do::Send => {
                let writer = self.writer(state);
                writer.air = writer.number;
                writer.phase = Phase::Waiting;
            }
        }
        if let Phase::Next(at) = self.writer(state).phase
            && order(self.protocol.without)[usize::from(at)] == step
        {
            self.advance(state, at + 1);
        }
    }

    /// Goes on to a step, or the first after it that there is something to do in.
    fn advance(&self, state: &mut State, mut at: u8) {
        let protocol = self.protocol;
        let writer = self.writer(state);
        while match order(protocol.without)[usize::from(at)] {
            Do::EndOld => writer.old == 0,
            Do::ListPacks | Do::Upload => {
                writer.checked && !protocol.holds(Clause::CheckedAgain)
                    || self.task.undelete != 0 && !protocol.holds(Clause::UndeleteChecks)
            }
            Do::ReadParent => writer.checked && !protocol.holds(Clause::ParentAgain),
            Do::Register => {
                self.task.undelete != 0 && !protocol.holds(Clause::UndeleteRegisters)
                    || !protocol.holds(Clause::Registers)
            }
            Do::ListTip | Do::ReadGc | Do::Send => false,
        } {
            at += 1;
        }
        writer.phase = Phase::Next(at);
    }

    fn list_tip(&self, state: &mut State) {
        let series = &state.store.series[self.series()];
        let (tip, undelete) = (series.tip(), self.task.undelete);
        let (root, there) = (series.root(undelete), series.is_kept_back(undelete));
        let commits = self.writer(state).commits;
        if undelete != 0 && !there {
            self.writer(state).phase = Phase::Ending;
            return;
        }
        let writer = self.writer(state);
        writer.number = tip + 1;
        writer.want = if undelete == 0 { self.task.wants[usize::from(commits)] } else { root };
    }

    fn register(&self, state: &mut State) {
        let first: u8 = self.protocol.writers[..usize::from(self.id)].iter().map(|task| task.registrations).sum();
        let writer = self.writer(state);
        let slot = first + writer.registered;
        writer.registered += 1;
        writer.current = bit(slot);
        let registration = Registration { series: self.task.series, number: writer.number, seen: writer.seen };
        state.store.registrations[usize::from(slot)] = registration;
    }

    fn read_parent(&self, state: &mut State) {
        let series = &state.store.series[self.series()];
        let number = state.writers[usize::from(self.id)].number;
        if series.tip() >= number && self.protocol.holds(Clause::NumberIsAboveTip) {
            self.lose(state);
            return;
        }
        let parent = if self.protocol.holds(Clause::ParentCounts) {
            series.newest_below(number)
        } else {
            (1..number).rev().find(|number| series.is_commit(*number)).unwrap_or(0)
        };
        let root = if self.task.undelete == 0 { series.root(parent) } else { 0 };
        self.writer(state).parent = root;
    }

    fn upload(&self, state: &mut State) {
        let writer = *self.writer(state);
        let condemned = if self.protocol.holds(Clause::HitIsNotCondemned) { writer.condemned } else { 0 };
        let missing = writer.want & !state.store.blobs(writer.packs & !condemned);
        if self.task.undelete != 0 && missing & !state.store.blobs(state.store.packs) != 0 {
            // Too late: there is nothing left to copy.
            self.writer(state).phase = Phase::Ending;
            return;
        }
        if missing != 0 {
            state.store.upload(missing);
        }
        let remember = !self.protocol.holds(Clause::CheckedAgain) || !self.protocol.holds(Clause::ParentAgain);
        let writer = self.writer(state);
        writer.packs = 0;
        writer.checked = remember;
    }

    fn renew(&self, state: &mut State) {
        let gc = state.store.gc.n;
        let writer = self.writer(state);
        writer.old |= std::mem::take(&mut writer.current);
        writer.seen = gc;
        self.advance(state, AFTER_LIST_TIP);
    }

    /// Its number is somebody else's: it registers anew if it may, and else ends.
    fn lose(&self, state: &mut State) {
        let again = self.task.registrations;
        let writer = self.writer(state);
        writer.answer = Answer::None;
        if writer.registered < again && writer.air == 0 {
            writer.old |= std::mem::take(&mut writer.current);
            writer.seen = 0;
            writer.phase = Phase::Next(0);
        } else {
            writer.phase = Phase::Ending;
        }
    }

    fn land(&self, state: &mut State) {
        let writer = self.writer(state);
        let number = std::mem::take(&mut writer.air);
        let root = writer.parent | writer.want;
        let waits = writer.phase == Phase::Waiting;
        let free = !state.store.series[self.series()].taken(number);
        let created = free || !self.protocol.holds(Clause::OneWinner);
        if created {
            state.store.series[self.series()].put(number, Record::Commit(root, self.id));
        }
        let writer = self.writer(state);
        if waits {
            writer.answer = if created { Answer::Created } else { Answer::Exists };
        } else if writer.phase == Phase::Finished {
            *writer = Writer::default();
        }
    }

    fn hear(&self, state: &mut State) {
        match self.writer(state).answer {
            Answer::Exists if self.protocol.holds(Clause::ExistsIsNotSuccess) => self.lose(state),
            _ => self.win(state),
        }
    }

    fn lose_answer(&self, state: &mut State) {
        self.writer(state).answer = Answer::None;
        if !self.protocol.holds(Clause::UnknownIsNotSuccess) {
            self.win(state);
        } else if !self.protocol.holds(Clause::UnknownIsNotFailure) {
            self.writer(state).phase = Phase::Ending;
        } else {
            self.writer(state).phase = Phase::Unsure;
        }
    }

    /// Whose the number is decides; while it is nobody's the put is tried again, which is what is under way already.
    fn read_back(&self, state: &mut State) {
        let number = self.writer(state).number;
        match state.store.series[self.series()].records[usize::from(number)] {
            Record::Free => {}
            Record::Commit(_, by) if by == self.id && self.protocol.holds(Clause::ExistsIsNotFailure) => {
                self.win(state);
            }
            Record::Commit(..) | Record::Tombstone => self.lose(state),
        }
    }

    /// The caller is told that its commit is durable.
    fn win(&self, state: &mut State) {
        let (number, series) = (self.writer(state).number, self.series());
        state.acknowledge(series, number, self.id);
        let wants = self.task.wants;
        let writer = self.writer(state);
        writer.answer = Answer::None;
        writer.checked = false;
        writer.commits += 1;
        if usize::from(writer.commits) < wants.len() {
            writer.parent |= writer.want;
            writer.want = wants[usize::from(writer.commits)];
            writer.number += 1;
            let next = order(self.protocol.without).iter().position(|step| *step == Do::ListPacks).unwrap_or(0);
            self.advance(state, next as u8);
        } else {
            writer.phase = Phase::Ending;
        }
    }
}
