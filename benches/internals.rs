//! The speed of each step that data takes: `cargo bench --features bench --bench internals`.

#![allow(clippy::unwrap_used, reason = "a bench stops where it fails")]
#![allow(missing_docs, reason = "criterion's macros document nothing")]

#[path = "../tests/common/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod random;

use std::hint::black_box;

use backstop::ChunkerParameters;
use backstop::bench::{Transforms, Tree, compress, decompress, is_compressible};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use random::Random;

const MIB: usize = 1 << 20;

fn transforms() -> Transforms {
    Transforms::new(ChunkerParameters::default())
}

fn chunking(c: &mut Criterion) {
    let (transforms, mut random) = (transforms(), Random::new(1));
    let mut group = c.benchmark_group("chunking");
    group.throughput(Throughput::Bytes(16 * MIB as u64));
    for (name, data) in [("text", random.text(16 * MIB)), ("noise", random.bytes(16 * MIB))] {
        group.bench_function(name, |b| b.iter(|| transforms.cut(black_box(&data))));
    }
}

fn hashing(c: &mut Criterion) {
    let (transforms, data) = (transforms(), Random::new(2).bytes(256 << 10));
    let mut group = c.benchmark_group("hashing");
    for len in [4 << 10, 64 << 10, 256 << 10] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{} KiB", len >> 10), |b| b.iter(|| transforms.id(black_box(&data[..len]))));
    }
}

fn compression(c: &mut Criterion) {
    let mut random = Random::new(3);
    let (text, noise) = (random.text(MIB), random.bytes(MIB));
    let mut group = c.benchmark_group("block compression");
    group.throughput(Throughput::Bytes(MIB as u64));
    for level in [-1, 1, 3] {
        group.bench_function(format!("level {level}"), |b| b.iter(|| compress(black_box(&text), level).unwrap()));
    }
    let frame = compress(&text, 3).unwrap();
    group.bench_function("decompression", |b| b.iter(|| decompress(black_box(&frame), MIB).unwrap()));
    group.bench_function("probe of text", |b| b.iter(|| is_compressible(black_box(&text))));
    group.bench_function("probe of noise", |b| b.iter(|| is_compressible(black_box(&noise))));
}

fn sealing(c: &mut Criterion) {
    let (transforms, mut random) = (transforms(), Random::new(4));
    let mut group = c.benchmark_group("sealing");
    group.throughput(Throughput::Bytes(16 * MIB as u64));
    let messages: Vec<_> = (0..16).map(|_| random.bytes(MIB)).collect();
    group.bench_function("16 messages of 1 MiB", |b| {
        let seal = |mut messages: Vec<Vec<u8>>| transforms.seal(&mut messages).map(|()| messages).unwrap();
        // With room for the tag, as the pipeline makes them.
        let prepare = || messages.iter().map(|message| with_room(message)).collect();
        b.iter_batched(prepare, seal, BatchSize::LargeInput);
    });
    let blocks: Vec<Vec<Bytes>> = (0..16)
        .map(|_| {
            let block = Bytes::from(random.text(MIB));
            (0..16).map(|chunk| block.slice(chunk * MIB / 16..(chunk + 1) * MIB / 16)).collect()
        })
        .collect();
    group.sample_size(10);
    group.bench_function("a pack, from chunks to checked", |b| b.iter(|| transforms.pack(&blocks, 3).unwrap()));
}

fn with_room(message: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(message.len() + 16);
    copy.extend_from_slice(message);
    copy
}

fn tree(c: &mut Criterion) {
    const ENTRIES: u64 = 200_000;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = c.benchmark_group("tree");
    group.sample_size(10).throughput(Throughput::Elements(ENTRIES));
    group.bench_function("build of 200,000 entries", |b| b.iter(|| Tree::build(ENTRIES).unwrap()));
    let tree = Tree::build(ENTRIES).unwrap();
    let mut random = Random::new(5);
    for edits in [1, 10, 1000] {
        let mut numbers: Vec<_> = (0..edits).map(|_| random.below(ENTRIES)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        group.throughput(Throughput::Elements(edits));
        let (nodes, bytes) = runtime.block_on(tree.edit(&numbers)).unwrap();
        println!("{edits} scattered edits write {nodes} nodes, {bytes} bytes of {}", tree.bytes());
        group.bench_function(format!("{edits} scattered edits"), |b| {
            b.iter(|| runtime.block_on(tree.edit(black_box(&numbers))).unwrap());
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("lookup", |b| {
        b.iter(|| assert!(runtime.block_on(tree.lookup(random.below(ENTRIES))).unwrap()));
    });
}

criterion_group!(benches, chunking, hashing, compression, sealing, tree);
criterion_main!(benches);
