//! What is there: each new snapshot explained, and old ones read.

use backstop::{
    Change, CheckOptions, CommitOptions, Entry, Error, Key, Metadata, Payload, Repository, Result, Selector, Snapshot,
    Start, Timestamp, WriterOptions,
};
use futures::TryStreamExt;
use tokio::io::AsyncReadExt;

use crate::expected::{Map, Pending, describe, differing};
use crate::helpers::{open, quiet};
use crate::world::{Series, World};

impl World {
    /// Explains every snapshot that is new, and what was acknowledged or made must be among them.
    pub(crate) async fn observe(&mut self) {
        for series in 0..self.series.len() {
            while let Some(snapshot) = self.next_snapshot(series).await {
                self.explain(series, snapshot).await;
            }
        }
        for pending in &self.pending {
            match pending {
                Pending::Commit { made: Some(snapshot), .. } => panic!("{snapshot} was made and isn't there"),
                Pending::Acknowledged { receipt, .. } => panic!("{receipt:?} was given and isn't there"),
                Pending::Overlapping { draft, number, paths, .. } => {
                    let (_, theirs) = &self.series[draft.series].snapshots[*number as usize - 1];
                    let overlap = draft.overlap(theirs);
                    let named = overlap.iter().take(10).map(Key::to_string);
                    assert!(!draft.replaces && !paths.is_empty() && named.eq(paths.iter().cloned()), "{paths:?}");
                }
                _ => {}
            }
        }
        // A commit that hasn't landed by now was dropped or has failed for good.
        self.pending.retain(|pending| matches!(pending, Pending::Unawaited { .. }));
    }

    pub(crate) async fn next_snapshot(&self, series: usize) -> Option<Snapshot> {
        let Series { name, snapshots } = &self.series[series];
        let number = snapshots.len() as u64 + 1;
        match self.clean.find(&Selector::Number { series: name.clone(), number }).await {
            Ok(snapshot) => Some(snapshot),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    pub(crate) async fn explain(&mut self, series: usize, snapshot: Snapshot) {
        let id: u64 = snapshot.tags["id"].parse().unwrap();
        let before = self.series[series].latest();
        let previous = self.series[series].snapshots.last().map(|(snapshot, _)| snapshot.clone());
        let found = contents(&self.clean, &snapshot).await;
        let commit = self
            .pending
            .iter()
            .position(|pending| matches!(pending, Pending::Commit { id: other, .. } if *other == id));
        let (expected, position, parent) = if let Some(commit) = commit {
            let Pending::Commit { draft, position, made, .. } = self.pending.swap_remove(commit) else { return };
            match made {
                Some(made) => assert_eq!(*made, snapshot),
                None => self.seen.unknown += 1,
            }
            let (mut parent, mut carried) = (draft.began.as_ref().map(|(number, _)| *number), None);
            if let Some((_, position)) = &draft.began {
                carried.clone_from(position);
            }
            if !draft.replaces && parent != previous.as_ref().map(|previous| previous.number) {
                assert_eq!(draft.overlap(&before), [], "{snapshot} was made over changes that overlap");
                self.seen.merged += 1;
                parent = previous.as_ref().map(|previous| previous.number);
                carried = previous.as_ref().and_then(|previous| previous.position.clone());
            }
            (draft.on(&before), position.or(carried), parent)
        } else {
            let mut expected = before.clone();
            let mut position = previous.as_ref().and_then(|previous| previous.position.clone());
            for pending in self.pending.extract_if(.., |pending| match pending {
                Pending::Acknowledged { id: other, receipt, .. } => *other == id && receipt.number == snapshot.number,
                _ => false,
            }) {
                let Pending::Acknowledged { receipt, ops, position: carried, .. } = pending else { continue };
                position = carried.or(position);
                assert_eq!((receipt.hash, receipt.time), (snapshot.hash, snapshot.time));
                ops.iter().for_each(|op| op.apply(&mut expected));
            }
            // What nobody waited for may be there as well, each once.
            let unawaited = self.pending.extract_if(.., |pending| {
                let Pending::Unawaited { id: other, op } = pending else { return false };
                let mut with = expected.clone();
                op.apply(&mut with);
                let shows = *other == id && found.get(op.key()) == with.get(op.key()) && with != expected;
                if shows {
                    expected = with;
                }
                shows
            });
            self.seen.unawaited += unawaited.count() as u64;
            (expected, position, previous.as_ref().map(|previous| previous.number))
        };
        assert!(found == expected, "{snapshot}: {}", describe(&found, &expected));
        assert_eq!((snapshot.position.clone(), snapshot.parent), (position, parent), "{snapshot}");
        assert_eq!((snapshot.entries, snapshot.stats.files), (expected.len() as u64, expected.len() as u64));
        assert_eq!(snapshot.predecessor, previous.as_ref().map(|previous| previous.hash));
        assert!(previous.is_none_or(|previous| previous.time < snapshot.time));
        self.series[series].snapshots.push((snapshot, expected));
    }

    /// A random moment of a series, by a random client.
    pub(crate) async fn read_past(&mut self) {
        let (repository, fails) = self.client();
        let series = self.pick_series();
        let (key, prefix, kind) = (self.key(), self.prefix(), self.random.below(3));
        let Series { name, snapshots } = &self.series[series];
        let Some((earliest, _)) = snapshots.first() else { return };
        let (latest, _) = snapshots.last().unwrap();
        let (from, to) = (earliest.time.as_nanos() - 2, latest.time.as_nanos() + 2);
        let time = match self.random.below(3) {
            // At, just before and just after one.
            0 => {
                let at = self.random.below(snapshots.len() as u64) as usize;
                snapshots[at].0.time.as_nanos() - 1 + self.random.below(3) as i64
            }
            _ => from + self.random.below((to - from) as u64) as i64,
        };
        let time = Timestamp::from_nanos(time);
        let expected = snapshots.iter().rev().find(|(snapshot, _)| snapshot.time <= time);
        let selector = Selector::AtOrBefore { series: Some(name.clone()), time };
        let read = async {
            let snapshot = match repository.find(&selector).await {
                Err(error) if error.is_not_found() => {
                    assert!(expected.is_none(), "at {time:?}: {error}");
                    return Ok(());
                }
                other => other?,
            };
            let (found, map) = expected.unwrap();
            assert_eq!(snapshot, *found);
            match kind {
                0 => {
                    let entry = repository.entry(&snapshot, &key).await?;
                    assert_eq!(entry.is_some(), map.contains_key(&key), "{key} in {snapshot}");
                    if let Some(entry) = entry {
                        assert_eq!(content_of(&repository, &snapshot, &key, &entry).await?, map[&key]);
                    }
                }
                _ => {
                    let prefix = (kind == 1).then_some(&prefix);
                    let entries: Vec<_> = repository.entries(&snapshot, prefix).try_collect().await?;
                    assert_keys(&entries, map, prefix);
                }
            }
            Ok(())
        };
        let outcome = read.await;
        self.seen.past += 1;
        if let Err(error) = outcome {
            self.failed(fails, &error);
        }
    }

    /// The differences of two snapshots.
    pub(crate) async fn compare(&mut self) {
        let (repository, fails) = self.client();
        let series = self.pick_series();
        let prefix = self.random.chance(0.5).then(|| self.prefix());
        let snapshots = &self.series[series].snapshots;
        if snapshots.is_empty() {
            return;
        }
        let (old, old_map) = &snapshots[self.random.below(snapshots.len() as u64) as usize];
        let (new, new_map) = &snapshots[self.random.below(snapshots.len() as u64) as usize];
        let changes: Result<Vec<Change>> = repository.diff(old, new, prefix.as_ref()).try_collect().await;
        match changes {
            Ok(changes) => {
                let mut expected = differing(old_map, new_map);
                expected.retain(|key| prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix)));
                assert!(changes.iter().map(|change| &change.key).eq(&expected), "{old} to {new}");
                for change in &changes {
                    assert_eq!(change.old.is_some(), old_map.contains_key(&change.key));
                    assert_eq!(change.new.is_some(), new_map.contains_key(&change.key));
                }
            }
            Err(error) => self.failed(fails, &error),
        }
    }

    /// Ends everything and looks at all of it once more, with a handle that has seen nothing.
    pub(crate) async fn finish(&mut self, seed: u64) {
        while !self.feeds.is_empty() {
            self.end_feed().await;
        }
        self.writers.clear();
        self.observe().await;
        let fresh = open(&self.inner).await;
        for Series { name, snapshots } in &self.series {
            let listed = fresh.snapshots(Some(name)).await.unwrap();
            assert!(listed.iter().eq(snapshots.iter().map(|(snapshot, _)| snapshot)));
            for (snapshot, map) in snapshots.iter().rev().take(8) {
                assert!(contents(&fresh, snapshot).await == *map, "{snapshot}");
            }
        }
        if seed.is_multiple_of(4) {
            let report = fresh.check(&CheckOptions::default().with_read_data(1.0), quiet()).await.unwrap();
            assert!(report.is_sound(), "{:#?}", report.findings);
        }
        if seed.is_multiple_of(5)
            && let Some((snapshot, map)) = self.series[0].snapshots.last()
        {
            let start = WriterOptions::default().with_start(Start::Nothing);
            let writer = fresh.writer("from nothing", start).await.unwrap();
            for (key, content) in map {
                writer.put(key, content.clone(), &Metadata::default()).await.unwrap();
            }
            let anew = writer.commit(CommitOptions::default()).await.unwrap();
            assert_eq!(anew.root, snapshot.root, "one content has one root");
        }
    }
}

async fn content_of(repository: &Repository, snapshot: &Snapshot, key: &Key, entry: &Entry) -> Result<Vec<u8>> {
    if let Payload::Inline(bytes) = &entry.content {
        return Ok(bytes.to_vec());
    }
    let mut bytes = Vec::new();
    match repository.read_file(snapshot, key).await?.read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}

/// The content of every entry of a snapshot.
async fn contents(repository: &Repository, snapshot: &Snapshot) -> Map {
    let entries: Vec<_> = repository.entries(snapshot, None).try_collect().await.unwrap();
    let mut map = Map::new();
    for (key, entry) in entries {
        let content = content_of(repository, snapshot, &key, &entry).await.unwrap();
        map.insert(key, content);
    }
    map
}

/// Entries must be those of a map at and below a prefix, in order and with the right lengths.
pub(crate) fn assert_keys(entries: &[(Key, Entry)], map: &Map, prefix: Option<&Key>) {
    let expected = map.iter().filter(|(key, _)| prefix.is_none_or(|prefix| key.starts_with(prefix)));
    let expected = expected.map(|(key, content)| (key, content.len() as u64));
    assert!(entries.iter().map(|(key, entry)| (key, entry.size)).eq(expected), "below {prefix:?}");
    for (key, entry) in entries {
        if let Payload::Inline(bytes) = &entry.content {
            assert_eq!(bytes[..], map[key][..], "{key}");
        }
    }
}
