//! Acknowledged changes a second.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstop::{Feed, FeedOptions, Metadata};
use tokio::time::Instant;

use crate::Settings;
use crate::common::{Kind, Random, TracingStore, records};
use crate::measure::{Place, SERIES, Watch, fill, key, median, open, peak_memory};

pub(crate) async fn run(settings: &Settings) {
    // What a disk takes to make a file last shows in the difference to a folder in memory.
    let folders = [std::env::temp_dir(), Path::new("/dev/shm").to_owned()];
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        measure(settings, folder).await;
    }
}

async fn measure(settings: &Settings, folder: &Path) {
    let place = Place::below(folder);
    let count = settings.records.first().copied().unwrap_or(1);
    fill(place.store(), count).await;
    let store = TracingStore::new(place.lasting_store(), Duration::ZERO);
    let repository = open(store.shared(), settings.node_memory).await;
    let options = FeedOptions::default();
    let interval = options.interval;
    let feed = repository.feed(SERIES, options).await.unwrap();
    let first = feed.snapshot().map_or(0, |snapshot| snapshot.number);
    let before = place.bytes();
    store.take();

    let watch = Watch::start();
    let end = Instant::now() + settings.duration;
    let tasks: Vec<_> = (0..settings.tasks as u64)
        .map(|task| tokio::spawn(change_records(feed.clone(), Random::new(task), count, end)))
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    let (elapsed, processor) = watch.read();
    let trace = store.take();
    let last = feed.close().await.unwrap().unwrap();

    let changes = waits.len() as u64;
    let commits = (last.number - first).max(1);
    let half = median(&mut waits);
    let slow = waits[waits.len() * 99 / 100];
    let mut puts: Vec<_> = trace.took.iter().filter(|(kind, _)| *kind == Kind::Put).map(|(_, took)| *took).collect();
    let put = median(&mut puts);
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!(
        "feed: {} tasks change {count} records of {} bytes in {} for {:.1} s",
        settings.tasks,
        records::LENGTH,
        folder.display(),
        elapsed.as_secs_f64()
    );
    println!(
        "  {:.0} acknowledged changes a second, {:.0} a commit; {:.1} s of processor time, {} MiB of memory at most",
        changes as f64 / elapsed.as_secs_f64(),
        changes as f64 / commits as f64,
        processor.as_secs_f64(),
        peak_memory()
    );
    println!(
        "  wait: median {:.1} ms, of a hundred the slowest {:.1} ms; {:.1} ms are gathered, a put takes {:.1} ms: \
         three round trips and the interval are {:.1} ms",
        ms(half),
        ms(slow),
        ms(interval),
        ms(put),
        ms(3 * put + interval)
    );
    println!(
        "  {:.0} bytes stored a change; {:.1} puts and {:.1} reads a commit",
        (place.bytes() - before) as f64 / changes as f64,
        trace.counts.of(Kind::Put) as f64 / commits as f64,
        trace.counts.of(Kind::Get) as f64 / commits as f64
    );
}

/// Changes one record after the other, each once the one before is acknowledged; how long each took.
async fn change_records(feed: Feed, mut random: Random, count: u64, end: Instant) -> Vec<Duration> {
    let (mut waits, metadata) = (Vec::new(), Arc::new(Metadata::default()));
    while Instant::now() < end {
        let number = random.below(count);
        let content = records::content(number, 1 + random.below(1 << 15));
        let path = key(&records::path(number));
        let begun = Instant::now();
        feed.put(&path, content, &metadata).await.unwrap();
        waits.push(begun.elapsed());
    }
    waits
}
