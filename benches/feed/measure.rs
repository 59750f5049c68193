//! Time, processor time, memory, and repositories to measure them on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstop::{CreateOptions, Key, Metadata, OpenOptions, Repository, Secret, Snapshot, WriterOptions};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::common::records;

/// The series that all changes go to.
pub(crate) const SERIES: &str = "accounts";

/// A stop watch for both kinds of time.
pub(crate) struct Watch {
    started: Instant,
    processor: Duration,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), processor: processor_time() }
    }

    /// Time that passed, and time that all threads were busy.
    pub(crate) fn read(&self) -> (Duration, Duration) {
        (self.started.elapsed(), processor_time() - self.processor)
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most memory that the process has had, in MiB; zero where the system doesn't say it.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

pub(crate) fn secret() -> Secret {
    Secret::key([7; 32])
}

/// A store in a folder that goes away.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    /// Below `$TMPDIR`.
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    pub(crate) fn below(folder: &Path) -> Self {
        Self { folder: tempfile::tempdir_in(folder).unwrap() }
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(LocalFileSystem::new_with_prefix(self.folder.path()).unwrap())
    }

    /// Whose files outlast a loss of power once they are written, as they do in repositories that are named by a path.
    pub(crate) fn lasting_store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(LocalFileSystem::new_with_prefix(self.folder.path()).unwrap().with_fsync(true))
    }

    /// Bytes that lie in it.
    pub(crate) fn bytes(&self) -> u64 {
        fn below(folder: &Path) -> u64 {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
            entries
                .map(|entry| match entry.metadata().unwrap() {
                    found if found.is_dir() => below(&entry.path()),
                    found => found.len(),
                })
                .sum()
        }
        below(self.folder.path())
    }
}

/// Opens what is in a store, with room for `node_memory` bytes of nodes.
pub(crate) async fn open(store: Arc<dyn ObjectStore>, node_memory: u64) -> Repository {
    let options = OpenOptions::default().with_node_memory(node_memory);
    Repository::open(store, &secret(), options).await.unwrap()
}

/// Makes a repository with a first snapshot of `count` records.
pub(crate) async fn fill(store: Arc<dyn ObjectStore>, count: u64) -> Snapshot {
    let repository = Repository::create(store, &secret(), CreateOptions::default()).await.unwrap();
    let writer = repository.writer(SERIES, WriterOptions::default()).await.unwrap();
    for number in 0..count {
        let content = records::content(number, 0);
        writer.put(&key(&records::path(number)), content, &Metadata::default()).await.unwrap();
    }
    writer.commit(Default::default()).await.unwrap()
}

pub(crate) fn key(path: &str) -> Key {
    Key::from_path(path).unwrap()
}

pub(crate) fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}
