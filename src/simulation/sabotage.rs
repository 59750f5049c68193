//! Faults planted in the library, one at a time: a simulation that doesn't find them would find nothing else.

use std::cell::Cell;

/// What is wrong with the library on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A store that says that a name exists is believed to mean the writer's own object.
    ExistsMeansOurs,
    /// A commit whose outcome isn't known is taken for one that failed.
    UnknownMeansFailed,
    /// A merge deletes what it hasn't copied, and doesn't look whether it is elsewhere.
    DeletesUncopied,
    /// A collection doesn't mark what was committed since its first mark.
    MarksOnce,
    /// A collection waits for no writer and fences none.
    WaitsForNobody,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether the library has this fault on this thread.
pub(crate) fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Runs `work` with a fault in the library.
pub(super) fn with<T>(bug: Bug, work: impl FnOnce() -> T) -> T {
    struct Mended;
    impl Drop for Mended {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(bug));
    let _mended = Mended;
    work()
}
