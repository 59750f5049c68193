//! Everything that backup and restore need of the local file system.
//!
//! Owns paths, file descriptors and metadata; knows nothing of chunks, packs or
//! stores. All calls block: they belong on worker threads. [`Walk`] finds what
//! to back up, [`FileSource`] reads it, [`Destination`] puts it back.
//!
//! Invariant: nothing here follows a symlink that it wasn't told to follow, and
//! no path is resolved whole: each step is relative to a folder held open.

mod apply;
mod attributes;
mod destination;
mod excludes;
mod folder;
mod found;
mod metadata;
mod owners;
mod parents;
mod place;
mod remove;
mod restored;
mod roots;
mod scratch;
mod source;
mod stat;
mod walk;

#[cfg(test)]
mod tests;

pub use metadata::{FileTime, LinkGroup, Metadata, Posix};

pub(crate) use self::{
    apply::Scope,
    destination::Destination,
    found::Found,
    owners::Owners,
    restored::RestoredFile,
    scratch::{Range, Scratch},
    source::{FileSource, Segment},
    stat::Stat,
    walk::{Unreadable, Walk, WalkOptions},
};
