//! Backup and restore of generated files, over a store in memory: `cargo bench --bench end_to_end`.

#![allow(clippy::unwrap_used, reason = "a bench stops where it fails")]
#![allow(missing_docs, reason = "criterion's macros document nothing")]

#[path = "../tests/common/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod random;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop::{BackupOptions, CreateOptions, NoProgress, Repository, RestoreOptions, Secret, Snapshot};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use random::Random;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Many small files of text and a few large ones that don't compress, about 64 MiB. Returns their bytes.
fn generate(root: &Path) -> u64 {
    let mut random = Random::new(1);
    let mut bytes = 0;
    for number in 0..3000 {
        let folder = root.join(format!("source/{}", number / 100));
        fs::create_dir_all(&folder).unwrap();
        let len = 1000 + random.below(30_000) as usize;
        fs::write(folder.join(format!("{number}.c")), random.text(len)).unwrap();
        bytes += len as u64;
    }
    fs::create_dir_all(root.join("photos")).unwrap();
    for number in 0..8 {
        fs::write(root.join(format!("photos/{number}.jpg")), random.bytes(2 << 20)).unwrap();
        bytes += 2 << 20;
    }
    bytes
}

/// A folder in memory where there is one, so that no disk is measured.
fn folder() -> TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared).unwrap() } else { tempfile::tempdir().unwrap() }
}

async fn create() -> Repository {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    Repository::create(store, &Secret::key([7; 32]), CreateOptions::default()).await.unwrap()
}

async fn backup(repository: &Repository, paths: &[PathBuf]) -> Snapshot {
    let report = repository.backup(paths, &BackupOptions::default(), Arc::new(NoProgress)).await.unwrap();
    report.snapshot.unwrap()
}

async fn restore(repository: &Repository, snapshot: &Snapshot, to: &Path) {
    let options = RestoreOptions::default();
    repository.restore(snapshot, None, to, &options, Arc::new(NoProgress)).await.unwrap();
}

fn end_to_end(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let source = folder();
    let bytes = generate(source.path());
    let paths = [source.path().to_owned()];
    let mut group = c.benchmark_group("end to end");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));

    group.bench_function("first backup", |b| {
        let new = || runtime.block_on(create());
        b.iter_batched(new, |repository| runtime.block_on(backup(&repository, &paths)), BatchSize::PerIteration);
    });

    let repository = runtime.block_on(create());
    let snapshot = runtime.block_on(backup(&repository, &paths));
    group.bench_function("backup of what is unchanged", |b| b.iter(|| runtime.block_on(backup(&repository, &paths))));

    group.bench_function("restore to an empty folder", |b| {
        let restore = |to: TempDir| {
            runtime.block_on(restore(&repository, &snapshot, to.path()));
            to
        };
        b.iter_batched(folder, restore, BatchSize::PerIteration);
    });
    let to = folder();
    runtime.block_on(restore(&repository, &snapshot, to.path()));
    group.bench_function("restore of what is there already", |b| {
        b.iter(|| runtime.block_on(restore(&repository, &snapshot, to.path())));
    });
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
