//! A commit of ten scattered changes against making the snapshot anew.

use std::time::Duration;

use backstop::{CommitOptions, Metadata, Repository, Snapshot, WriterOptions};

use crate::Settings;
use crate::common::{Counts, Kind, Random, TracingStore, records};
use crate::measure::{Place, SERIES, Watch, fill, key, median, mib, open, peak_memory};

/// Changes in a commit.
const CHANGES: u64 = 10;

/// Commits of which the median counts.
const COMMITS: usize = 20;

/// What one commit took.
struct Cost {
    processor: Duration,
    elapsed: Duration,
    /// From the making of the writer to the first change.
    opening: Counts,
    /// From the first change to the committed snapshot.
    committing: Counts,
}

/// The median of what the commits took.
#[derive(Clone, Copy)]
struct Summary {
    processor: Duration,
    bytes: u64,
}

pub(crate) async fn run(settings: &Settings) {
    println!("cost: commits of {CHANGES} changes of {} bytes, half text and half noise", records::LENGTH);
    let mut warm = Vec::new();
    for records in &settings.records {
        warm.push((*records, measure(settings, *records).await));
    }
    if let (Some((fewer, first)), Some((more, last))) = (warm.first(), warm.last())
        && fewer < more
    {
        println!(
            "  {more} against {fewer} records: {:.2} times the bytes, {:.2} times the processor time",
            last.bytes as f64 / first.bytes as f64,
            last.processor.as_secs_f64() / first.processor.as_secs_f64()
        );
    }
}

async fn measure(settings: &Settings, count: u64) -> Summary {
    let place = Place::new();
    let watch = Watch::start();
    fill(place.store(), count).await;
    let (elapsed, building) = watch.read();
    println!("{count} records for {} users:", count.div_ceil(records::PER_USER));
    println!(
        "  built in {:.1} s, {:.1} s of processor time; {:.1} MiB stored, {} MiB of memory at most",
        elapsed.as_secs_f64(),
        building.as_secs_f64(),
        mib(place.bytes()),
        peak_memory()
    );
    let store = TracingStore::new(place.store(), Duration::ZERO);
    let repository = open(store.shared(), settings.node_memory).await;
    // The first round finds nothing in memory, the second finds the same records there.
    let mut random = Random::new(count);
    let rounds: Vec<Vec<u64>> = (0..COMMITS).map(|_| (0..CHANGES).map(|_| random.below(count)).collect()).collect();
    let cold = commits(&store, &repository, &rounds, 1).await;
    tell("cold", cold, building);
    let warm = commits(&store, &repository, &rounds, 2).await;
    tell("warm", warm, building)
}

async fn commits(store: &TracingStore, repository: &Repository, rounds: &[Vec<u64>], version: u64) -> Vec<Cost> {
    let mut costs = Vec::new();
    for numbers in rounds {
        store.take();
        let watch = Watch::start();
        let writer = repository.writer(SERIES, WriterOptions::default()).await.unwrap();
        let opening = store.take().counts;
        for number in numbers {
            let content = records::content(*number, version);
            writer.put(&key(&records::path(*number)), content, &Metadata::default()).await.unwrap();
        }
        let _: Snapshot = writer.commit(CommitOptions::default()).await.unwrap();
        let (elapsed, processor) = watch.read();
        costs.push(Cost { processor, elapsed, opening, committing: store.take().counts });
    }
    costs
}

fn tell(name: &str, costs: Vec<Cost>, building: Duration) -> Summary {
    let of = |kind: Kind, counts: fn(&Cost) -> &Counts| {
        median(&mut costs.iter().map(|cost| counts(cost).of(kind)).collect::<Vec<_>>())
    };
    let calls = |counts: fn(&Cost) -> &Counts| {
        format!(
            "{} puts, {} reads, {} listings, {} deletes",
            of(Kind::Put, counts),
            of(Kind::Get, counts) + of(Kind::Head, counts),
            of(Kind::List, counts),
            of(Kind::Delete, counts)
        )
    };
    let processor = median(&mut costs.iter().map(|cost| cost.processor).collect::<Vec<_>>());
    let elapsed = median(&mut costs.iter().map(|cost| cost.elapsed).collect::<Vec<_>>());
    let bytes = median(&mut costs.iter().map(|cost| cost.committing.bytes_written).collect::<Vec<_>>());
    let read = median(&mut costs.iter().map(|cost| cost.committing.bytes_read).collect::<Vec<_>>());
    println!("  {name}, median of {}:", costs.len());
    println!(
        "    {:.2} ms, {:.2} ms of processor time: 1/{:.0} of building",
        elapsed.as_secs_f64() * 1e3,
        processor.as_secs_f64() * 1e3,
        building.as_secs_f64() / processor.as_secs_f64()
    );
    println!("    making the writer: {}", calls(|cost| &cost.opening));
    println!(
        "    changes and commit: {}; {} bytes written ({} a change), {read} read",
        calls(|cost| &cost.committing),
        bytes,
        bytes / CHANGES
    );
    Summary { processor, bytes }
}
