//! One file for each command, or for a few that belong together.

mod backup;
mod check;
mod diff;
mod forget;
mod gc;
mod history;
mod init;
mod key;
mod list;
mod merge;
mod probe;
mod read;
mod repair;
mod restore;
mod stats;

pub(crate) use backup::backup;
pub(crate) use check::check;
pub(crate) use diff::{Difference, change_line, diff};
pub(crate) use forget::{forget, undelete};
pub(crate) use gc::gc;
pub(crate) use history::history;
pub(crate) use init::init;
pub(crate) use key::{key_add, key_list, key_remove, key_rotate};
pub(crate) use list::{ls, snapshots};
pub(crate) use merge::merge;
pub(crate) use probe::probe;
pub(crate) use read::cat;
pub(crate) use repair::repair;
pub(crate) use restore::restore;
pub(crate) use stats::stats;

/// How a command that didn't fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// All was done.
    Complete,
    /// Something was left out, and has been told.
    Partial,
    /// A check found something that matters.
    Found,
}

impl Done {
    /// Where objects had to be put aside, what was done may lack what they stood for.
    pub(crate) fn or_partial(self) -> Self {
        if self == Done::Complete { Done::Partial } else { self }
    }
}
