//! The small worlds that are checked. Each holds with all rules; the tests leave rules out of them, one at a time.

use crate::model::Protocol;
use crate::store::Store;
use crate::writer::Task;

const A: u8 = 1;
const B: u8 = 2;
const C: u8 = 4;

/// Two writers of one series and one of another, and answers that get lost.
pub(crate) fn contention() -> Protocol {
    let store = Store::new().pack(A).commit(0, A);
    Protocol {
        writers: vec![
            Task::commit(0, &[B]).registering(2),
            Task::commit(0, &[C]).registering(2),
        ],
        answers_are_lost: true,
        ..Protocol::new(store)
    }
}

/// A writer, two collectors that take over from one another, and a blob that nothing needs until the writer does.
pub(crate) fn collection() -> Protocol {
    let store = Store::new().pack(A).pack(B).commit(0, A);
    Protocol {
        writers: vec![Task::commit(0, &[B]).registering(2)],
        collectors: 2,
        collections: 1,
        fences: true,
        ..Protocol::new(store)
    }
}
