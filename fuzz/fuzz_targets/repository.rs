//! Damages a small repository in any way that someone with access to the store could, short of knowing its keys, then
//! opens it, checks it, reads every file of every snapshot and restores the newest.
//!
//! Anything may be refused. What must never happen: a panic, memory without bound, and a wrong answer, that is bytes or
//! names other than those that were backed up, or a check without findings where something can't be read back.

#![no_main]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use backstop::{
    BackupOptions, CheckOptions, Clock, CreateOptions, Entropy, Key, NoProgress, OpenOptions, Repository, RestoreOptions,
    Secret, Snapshot, Surroundings, Timestamp,
};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

libfuzzer_sys::fuzz_target!(|edits: Vec<Edit>| RUNTIME.block_on(run(edits)));

/// More edits add nothing that a few can't show.
const EDITS_MAX: usize = 12;

/// One thing done to the store. Objects are chosen by number, in the order of their names.
#[derive(Arbitrary, Debug)]
enum Edit {
    Flip { object: u8, at: Place, mask: u8 },
    Truncate { object: u8, at: Place },
    Extend { object: u8, with: Vec<u8> },
    Replace { object: u8, with: Vec<u8> },
    Overwrite { object: u8, at: Place, with: Vec<u8> },
    Delete { object: u8 },
    Swap { one: u8, other: u8 },
    Copy { from: u8, to: u8 },
    /// Makes the plain hash at the object's end right again.
    Rehash { object: u8 },
    /// Moves an object that is named by its hash to the name that its bytes have now.
    Rename { object: u8 },
}

/// A place in an object, from its beginning or its end.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    FromStart(u16),
    FromEnd(u16),
}

impl Place {
    fn within(self, len: usize) -> usize {
        match self {
            Place::FromStart(at) => usize::from(at).min(len),
            Place::FromEnd(at) => len.saturating_sub(usize::from(at)),
        }
    }
}

type Objects = BTreeMap<String, Bytes>;

/// What a sound repository holds, and what was put into each of its snapshots.
struct Original {
    objects: Objects,
    /// Names and contents of each snapshot's files, by series and number.
    contents: BTreeMap<(String, u64), BTreeMap<Vec<u8>, Vec<u8>>>,
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap());

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| RUNTIME.block_on(original()));
