//! Reading snapshots, as everyone does it, and finding out what is there in the end.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use tokio::io::AsyncReadExt;

use crate::check::CheckOptions;
use crate::error::{Error, Result};
use crate::layout::Name;
use crate::progress::NoProgress;
use crate::repository::Repository;
use crate::simulation::World;
use crate::simulation::expected::{Map, Tally};
use crate::snapshot::Snapshot;
use crate::snapshots::Selector;
use crate::testing::Random;
use crate::tree::{Entry, Key, Payload};

impl World {
    /// Reads every snapshot when its record has come to be there: it must be whole from the first moment on.
    pub(super) async fn watch(&self) {
        loop {
            let name = self.network.next_landed().await;
            let Some(Name::Snapshot(name)) = Name::parse(&name) else { panic!("{name} is no record's name") };
            let number = name.number;
            let series = self.history().series.clone();
            let at = series.iter().position(|series| self.clean.keyring().series_tag(series) == name.tag).unwrap();
            let selector = Selector::Number { series: series[at].clone(), number };
            let snapshot = self.clean.find(&selector).await.unwrap();
            let found = contents(&self.clean, &snapshot).await.unwrap_or_else(|error| panic!("{snapshot}: {error:?}"));
            self.network.note(format_args!("{snapshot} is there"));
            let seen = &mut self.history().seen[at];
            assert_eq!(seen.len() as u64 + 1, number, "{snapshot} leaves out a number");
            seen.push(Arc::new((snapshot, found)));
        }
    }

    /// Looks at everything in the end, with a handle that has seen nothing.
    pub(super) async fn judge(&self) -> Tally {
        self.history().explain();
        let fresh = self.open(self.network.objects(), &mut Random::new(0)).await.unwrap();
        let seen: Vec<_> = {
            let history = self.history();
            history.series.iter().cloned().zip(history.seen.iter().cloned()).collect()
        };
        for (series, seen) in &seen {
            let listed = fresh.snapshots(Some(series)).await.unwrap();
            assert!(listed.iter().eq(seen.iter().map(|seen| &seen.0)), "{series} isn't what it was");
            for (snapshot, map) in seen.iter().rev().take(2).map(|seen| &**seen) {
                let found = contents(&fresh, snapshot).await.unwrap_or_else(|error| panic!("{snapshot}: {error:?}"));
                assert!(found == *map, "{snapshot} has changed");
            }
        }
        let everything = CheckOptions::default().with_read_data(100.0);
        let report = fresh.check(&everything, Arc::new(NoProgress)).await.unwrap();
        assert!(report.is_sound(), "{:#?}", report.findings);
        self.history().tally
    }
}

/// The content of every entry of a snapshot.
pub(super) async fn contents(repository: &Repository, snapshot: &Snapshot) -> Result<Map> {
    let entries: Vec<_> = repository.entries(snapshot, None).try_collect().await?;
    let mut map = Map::new();
    for (key, entry) in entries {
        let content = content(repository, snapshot, &key, &entry).await?;
        map.insert(key, content);
    }
    Ok(map)
}

/// The content of one entry.
pub(super) async fn content(repository: &Repository, of: &Snapshot, key: &Key, entry: &Entry) -> Result<Bytes> {
    if let Payload::Inline(bytes) = &entry.content {
        return Ok(bytes.clone());
    }
    let mut bytes = Vec::new();
    match repository.read_file(of, key).await?.read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes.into()),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}
