//! The small worlds that are checked. Each holds with all rules; the tests leave rules out of them, one at a time.

use crate::model::Protocol;
use crate::store::{Gc, Packs, Plan, Store};
use crate::writer::Task;

const A: u8 = 1;
const B: u8 = 2;
const C: u8 = 4;

/// Two writers of one series and one of another, and answers that get lost.
pub(crate) fn contention() -> Protocol {
    Protocol {
        writers: vec![
            Task::commit(0, &[B]).registering(2),
            Task::commit(0, &[C]).registering(2),
            Task::commit(1, &[A]),
        ],
        answers_are_lost: true,
        ..Protocol::new(Store::new().pack(A).commit(0, A))
    }
}

/// A writer beside two collectors that take over from one another and may fence it. What it wants lies in a pack that
/// nothing needs.
pub(crate) fn collection() -> Protocol {
    Protocol {
        writers: vec![Task::commit(0, &[B]).registering(2)],
        collectors: 2,
        collections: 1,
        fences: true,
        ..Protocol::new(Store::new().pack(A).pack(B).commit(0, A))
    }
}

/// The same with a writer of a series that is new.
pub(crate) fn new_series() -> Protocol {
    Protocol { writers: vec![Task::commit(1, &[B])], ..collection() }
}

/// Two writers of two series beside a collector.
pub(crate) fn two_series() -> Protocol {
    Protocol { writers: vec![Task::commit(0, &[B]), Task::commit(1, &[B])], collectors: 1, ..collection() }
}

/// A writer beside a collector, both of which may not hear what became of a put.
pub(crate) fn lost_answers() -> Protocol {
    Protocol { writers: vec![Task::commit(0, &[B])], collectors: 1, answers_are_lost: true, ..collection() }
}

/// A feed of two commits beside a collector, twice.
pub(crate) fn feed() -> Protocol {
    Protocol {
        writers: vec![Task::commit(0, &[B, C]).registering(3)],
        collectors: 1,
        collections: 2,
        ..Protocol::new(Store::new().pack(A).pack(B | C).commit(0, A))
    }
}

/// A feed that collectors fence.
pub(crate) fn fenced_feed() -> Protocol {
    Protocol { collections: 1, fences: true, ..feed() }
}

/// A writer whose parent may be forgotten, beside a collector that may fence it.
pub(crate) fn forgotten_parent() -> Protocol {
    Protocol {
        writers: vec![Task::commit(0, &[A]).registering(2)],
        collectors: 1,
        collections: 1,
        fences: true,
        forgetters: 1,
        forgets: 1,
        ..Protocol::new(Store::new().pack(A).pack(B).commit(0, A).commit(0, B))
    }
}

/// Two writers, the second of which may build on what the first committed and somebody forgot at once.
pub(crate) fn forgotten_since() -> Protocol {
    Protocol {
        writers: vec![Task::commit(0, &[B]), Task::commit(0, &[A])],
        collectors: 1,
        collections: 1,
        forgetters: 1,
        forgets: 1,
        ..Protocol::new(Store::new().pack(A).pack(B).commit(0, A))
    }
}

/// Writers that contend for numbers which are forgotten and freed.
pub(crate) fn freed_numbers() -> Protocol {
    Protocol {
        writers: vec![Task::commit(0, &[A]), Task::commit(0, &[A, A])],
        collectors: 1,
        collections: 1,
        forgetters: 1,
        forgets: 1,
        ..Protocol::new(Store::new().pack(A).commit(0, A))
    }
}

/// A writer that fell asleep before it sent its put for number 2, which became another's and was forgotten. Collectors
/// fence it, and would like to free the number.
pub(crate) fn fenced_numbers() -> Protocol {
    Protocol {
        writers: vec![Task::commit(0, &[A]).asleep(), Task::commit(0, &[A])],
        meanwhile: |store| store.commit(0, A).forget(0, 2, true),
        collectors: 1,
        collections: 2,
        fences: true,
        answers_are_lost: true,
        ..Protocol::new(Store::new().pack(A).commit(0, A))
    }
}

/// The same with two collectors in the middle of a collection, of which one listed the writers before the other.
pub(crate) fn fenced_by_two() -> Protocol {
    Protocol {
        writers: vec![Task::commit(0, &[A]).asleep()],
        meanwhile: |store| begun(store.commit(0, A).forget(0, 2, true), 0),
        collectors: 2,
        ahead: true,
        ..fenced_numbers()
    }
}

/// Two collectors and a blob that is in two packs.
pub(crate) fn duplicates() -> Protocol {
    Protocol {
        collectors: 2,
        collections: 3,
        condemns_sparse: true,
        ..Protocol::new(Store::new().pack(A).pack(A).commit(0, A))
    }
}

/// A collection that two collectors found begun. Number 2 needs what is condemned, and is forgotten.
pub(crate) fn taken_over() -> Protocol {
    let store = Store::new().pack(A).pack(B | C).pack(C).commit(0, A).commit(0, B).commit(0, C).forget(0, 2, true);
    Protocol {
        meanwhile: |store| begun(store, 0b10),
        writers: vec![Task::commit(0, &[B])],
        collectors: 2,
        collections: 2,
        ..Protocol::new(store)
    }
}

/// Two who forget, beside a collector.
pub(crate) fn two_forget() -> Protocol {
    Protocol {
        collectors: 1,
        collections: 1,
        forgetters: 2,
        forgets: 1,
        ..Protocol::new(Store::new().pack(A).pack(B).commit(0, A).commit(0, B).commit(0, A))
    }
}

/// A snapshot that can still be undeleted, somebody who does, and a collector.
pub(crate) fn undelete() -> Protocol {
    Protocol {
        writers: vec![Task::undelete(0, 1)],
        collectors: 1,
        collections: 1,
        fences: true,
        forgetters: 1,
        forgets: 1,
        ..Protocol::new(Store::new().pack(A).pack(B).commit(0, B).commit(0, A).forget(0, 1, false))
    }
}

/// Two mergers beside a collector.
pub(crate) fn merging() -> Protocol {
    Protocol {
        collectors: 1,
        collections: 2,
        condemns_sparse: true,
        mergers: 2,
        merges: 1,
        ..Protocol::new(Store::new().pack(A | B).commit(0, A))
    }
}

/// A merger and a collector beside a writer, which they don't wait for alike.
pub(crate) fn merging_beside_a_writer() -> Protocol {
    Protocol { writers: vec![Task::commit(0, &[B])], mergers: 1, ..merging() }
}

/// A reader while a merger and a collector move what it reads.
pub(crate) fn reading() -> Protocol {
    Protocol { mergers: 1, merges: 2, reader: true, ..merging() }
}

/// With a collection that has begun when series 0 had one number.
fn begun(mut store: Store, condemned: Packs) -> Store {
    let plan = Plan { condemned, through: [1, 0], ..Plan::default() };
    store.gc = Gc { n: 1, plan, ended: false, ..store.gc };
    store
}
