//! Reading snapshots, as everyone does it, and finding out what is there in the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use tokio::io::AsyncReadExt;

use crate::check::CheckOptions;
use crate::error::{Error, Result};
use crate::gc::GcOptions;
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
            let Some(Name::Commit(name)) = Name::parse(&name) else { panic!("{name} is no record's name") };
            let number = name.number;
            let series = self.history().series.clone();
            let at = series.iter().position(|series| self.clean.keyring().series_tag(series) == name.tag).unwrap();
            let known = self.history().seen[at].len() as u64;
            if number <= known {
                // A put that came late to a name that a collection had freed.
                assert!(self.history().is_over(at, number), "{}#{number} was there before", series[at]);
                continue;
            }
            assert_eq!(known + 1, number, "{} leaves out a number", series[at]);
            let selector = Selector::Number { series: series[at].clone(), number };
            let found = match self.clean.find(&selector).await {
                Ok(snapshot) => {
                    let found = contents(&self.clean, &snapshot).await;
                    let found = found.unwrap_or_else(|error| panic!("{snapshot}: {error:?}"));
                    Some(Arc::new((snapshot, found)))
                }
                Err(error) if error.is_not_found() => None,
                Err(error) => panic!("{}#{number}: {error:?}", series[at]),
            };
            self.network.note(format_args!("{}#{number} is there", series[at]));
            self.history().seen[at].push(found);
        }
    }

    /// Looks at everything in the end, before and after a last collection, with handles that have seen nothing.
    pub(super) async fn judge(&self) -> Tally {
        self.history().explain();
        let fresh = self.open(self.network.objects(), &mut Random::new(0)).await.unwrap();
        self.look_through(&fresh).await;
        let all = GcOptions::default().with_waste_max(0.0).with_wait(Duration::ZERO).with_fence_after(Duration::ZERO);
        for _ in 0..3 {
            let plan = fresh.plan_gc(&all).await.unwrap();
            self.network.note(format_args!(
                "a last plan: {} {} {} {:?}",
                plan.is_due(),
                plan.segments,
                plan.spared_packs,
                plan.packs
            ));
            let report = fresh.gc(plan, Arc::new(NoProgress)).await.unwrap();
            self.network.note(format_args!("a last collection: {report:?}"));
            // A registration that says to be of the future isn't fenced.
            assert!(report.finished || !report.waiting.is_empty(), "{report:?}");
        }
        let fresh = self.open(self.network.objects(), &mut Random::new(1)).await.unwrap();
        self.look_through(&fresh).await;
        let everything = CheckOptions::default().with_read_data(100.0);
        let report = fresh.check(&everything, Arc::new(NoProgress)).await.unwrap();
        assert!(report.is_sound(), "{:#?}", report.findings);
        self.history().tally
    }

    /// All that counts must be there, and nothing else may be.
    async fn look_through(&self, repository: &Repository) {
        let series = self.history().series.clone();
        for (at, series) in series.iter().enumerate() {
            let seen = self.history().snapshots(at);
            let counting = self.history().counting(at);
            let listed = repository.snapshots(Some(series)).await.unwrap();
            let is_known = |snapshot: &Snapshot| seen.iter().any(|seen| seen.0 == *snapshot);
            assert!(listed.iter().all(is_known), "{series} holds what nobody made: {listed:?}");
            for (snapshot, map) in counting.iter().map(|seen| &**seen) {
                assert!(listed.contains(snapshot), "{snapshot} has gone");
                let found =
                    contents(repository, snapshot).await.unwrap_or_else(|error| panic!("{snapshot}: {error:?}"));
                assert!(found == *map, "{snapshot} has changed");
            }
        }
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
