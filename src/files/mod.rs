//! Everything that backup and restore need of the local file system.
//!
//! Owns paths, file descriptors and metadata; knows nothing of chunks, packs or
//! stores. All calls block: they belong on worker threads. [`Walk`] finds what
//! to back up, [`FileSource`] reads it, [`Destination`] puts it back.
//!
//! Invariant: nothing here follows a symlink that it wasn't told to follow, and
//! no path is resolved whole: each step is relative to a folder held open.

mod metadata;

#[cfg(unix)]
mod apply;
#[cfg(unix)]
mod attributes;
#[cfg(unix)]
mod destination;
#[cfg(unix)]
mod excludes;
#[cfg(unix)]
mod folder;
#[cfg(unix)]
mod found;
#[cfg(unix)]
mod owners;
#[cfg(unix)]
mod parents;
#[cfg(unix)]
mod place;
#[cfg(unix)]
mod remove;
#[cfg(unix)]
mod restored;
#[cfg(unix)]
mod roots;
#[cfg(unix)]
mod source;
#[cfg(unix)]
mod stat;
#[cfg(unix)]
mod walk;

#[cfg(test)]
#[cfg(unix)]
mod tests;

pub use metadata::{FileTime, LinkGroup, Metadata, Posix};

#[cfg(unix)]
pub(crate) use self::{
    destination::Destination,
    found::Found,
    owners::Owners,
    restored::RestoredFile,
    source::{FileSource, Segment},
    walk::{Unreadable, Walk, WalkOptions},
};
