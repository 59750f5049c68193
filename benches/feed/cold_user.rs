//! One user's records and a photo, at a time, from a slow store that nothing is known of.

use std::sync::Arc;

use backstop::{
    CommitOptions, EntryKind, HistoryOptions, Metadata, NoProgress, OpenOptions, Repository, RestoreOptions, Selector,
    Snapshot, WriterOptions,
};
use futures::TryStreamExt;
use tokio::io::AsyncReadExt;

use crate::Settings;
use crate::common::{Kind, Random, Trace, TracingStore, records};
use crate::measure::{Place, SERIES, Watch, fill, key, mib, open, secret};

/// Changes in a commit.
const CHANGES: u64 = 10;

/// The length of a photo in bytes.
const PHOTO: usize = 300_000;

/// One commit in so many adds a photo.
const PHOTO_EVERY: u64 = 20;

pub(crate) async fn run(settings: &Settings) {
    for records in &settings.records {
        measure(settings, *records).await;
    }
}

async fn measure(settings: &Settings, count: u64) {
    let place = Place::new();
    fill(place.store(), count).await;
    let watch = Watch::start();
    let (snapshots, photos) = commit_often(settings, &place, count).await;
    let (elapsed, _) = watch.read();
    println!(
        "  {count} records, then {} commits of {CHANGES} changes in {:.1} s, some with a photo of {PHOTO} bytes; \
         {:.1} MiB stored; a call takes {} ms",
        settings.commits,
        elapsed.as_secs_f64(),
        mib(place.bytes()),
        settings.latency.as_millis()
    );
    // At a moment in the middle, a user whose photo was added before it.
    let middle = snapshots.len() / 2;
    let (_, user) = photos.iter().copied().rfind(|(commit, _)| *commit <= middle).unwrap_or((0, 0));
    let snapshot = &snapshots[middle];
    let store = TracingStore::new(place.store(), settings.latency);

    let watch = Watch::start();
    let (repository, found) = find(&store, snapshot).await;
    let to = tempfile::tempdir().unwrap();
    let path = key(&records::user(user));
    let report = repository
        .restore(&found, Some(&path), to.path(), &RestoreOptions::default(), Arc::new(NoProgress))
        .await
        .unwrap();
    tell("restored to a folder", report.files, report.bytes, settings, &store.take(), &watch);

    let watch = Watch::start();
    let (repository, found) = find(&store, snapshot).await;
    let (files, bytes) = read_all(&repository, &found, user).await;
    tell("read in place", files, bytes, settings, &store.take(), &watch);

    for (how, limit) in [("newest five of its history", 5), ("its whole history", usize::MAX)] {
        store.take();
        let watch = Watch::start();
        let repository = Repository::open(store.shared(), &secret(), OpenOptions::default()).await.unwrap();
        let options = HistoryOptions::default().with_limit(limit);
        let revisions: Vec<_> = repository.history(SERIES, &path, &options).try_collect().await.unwrap();
        let changes = revisions.iter().map(|revision| revision.changes.len() as u64).sum();
        tell(how, changes, 0, settings, &store.take(), &watch);
    }
}

/// Many small commits, as a feed makes them; the photos that they add, by commit and user.
async fn commit_often(settings: &Settings, place: &Place, count: u64) -> (Vec<Snapshot>, Vec<(usize, u64)>) {
    let repository = open(place.store(), settings.node_memory).await;
    let mut random = Random::new(count);
    let (mut snapshots, mut photos) = (Vec::new(), Vec::new());
    for commit in 1..=settings.commits {
        let writer = repository.writer(SERIES, WriterOptions::default()).await.unwrap();
        for _ in 0..CHANGES {
            let number = random.below(count);
            let content = records::content(number, commit);
            writer.put(&key(&records::path(number)), content, &Metadata::default()).await.unwrap();
        }
        if commit % PHOTO_EVERY == 1 {
            let user = random.below(count.div_ceil(records::PER_USER));
            let path = key(&format!("{}/photos/{commit:06}.jpg", records::user(user)));
            writer.put(&path, random.bytes(PHOTO), &Metadata::default()).await.unwrap();
            photos.push((snapshots.len(), user));
        }
        snapshots.push(writer.commit(CommitOptions::default()).await.unwrap());
        if settings.merge_every > 0 && commit % settings.merge_every == 0 {
            let plan = repository.plan_merge().await.unwrap();
            if plan.is_due() {
                repository.merge(&plan).await.unwrap();
            }
        }
    }
    let stats = repository.stats().await.unwrap();
    println!("cold_user: {} packs and {} index segments", stats.packs.objects, stats.index.objects);
    (snapshots, photos)
}

/// Opens the repository as a process does that knows nothing yet, and finds the snapshot at a time.
async fn find(store: &TracingStore, snapshot: &Snapshot) -> (Repository, Snapshot) {
    store.take();
    let repository = Repository::open(store.shared(), &secret(), OpenOptions::default()).await.unwrap();
    let selector = Selector::AtOrBefore { series: Some(SERIES.to_owned()), time: snapshot.time };
    let found = repository.find(&selector).await.unwrap();
    assert_eq!(found, *snapshot);
    (repository, found)
}

async fn read_all(repository: &Repository, snapshot: &Snapshot, user: u64) -> (u64, u64) {
    let entries: Vec<_> = repository.entries(snapshot, Some(&key(&records::user(user)))).try_collect().await.unwrap();
    let read = entries.iter().filter(|(_, entry)| entry.kind == EntryKind::File).map(|(path, _)| async move {
        let mut bytes = Vec::new();
        repository.read_file(snapshot, path).await.unwrap().read_to_end(&mut bytes).await.unwrap();
        bytes.len() as u64
    });
    let lengths = futures::future::join_all(read).await;
    (lengths.len() as u64, lengths.iter().sum())
}

fn tell(how: &str, files: u64, bytes: u64, settings: &Settings, trace: &Trace, watch: &Watch) {
    let (elapsed, processor) = watch.read();
    println!(
        "  {how}: {files} entries, {bytes} bytes in {:.2} s, {:.0} ms of processor time",
        elapsed.as_secs_f64(),
        processor.as_secs_f64() * 1e3
    );
    println!(
        "    {} requests ({} for records, {} for packs), {} of them one after another, {:.2} MiB read",
        trace.counts.total(),
        trace.counts.under(Kind::Get, "commits/"),
        trace.counts.under(Kind::Get, "packs/"),
        trace.chain.len(),
        mib(trace.counts.bytes_read)
    );
    for (kind, name) in trace.chain.iter().filter(|_| settings.chain) {
        println!("      {kind:?} {name}");
    }
}
