//! What a repository takes up.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::id::WriterId;
use crate::layout::{self, Name};
use crate::repository::Repository;

/// Objects of one kind together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// How many there are.
    pub objects: u64,
    /// Their length together, in bytes.
    pub bytes: u64,
}

impl Usage {
    fn add(&mut self, length: u64) {
        self.objects += 1;
        self.bytes += length;
    }
}

/// What a repository takes up in its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryStats {
    /// Packs: data and nodes.
    pub packs: Usage,
    /// Index segments.
    pub index: Usage,
    /// Snapshot records.
    pub snapshots: Usage,
    /// Registrations of writers that run, or were cut off.
    pub writers: Usage,
    /// Key slots, the config, which snapshots count, what collections say of themselves, and probes of rights.
    pub others: Usage,
    /// Objects whose names aren't the repository's; nothing here made them.
    pub foreign: Usage,
    /// Series.
    pub series: u64,
}

impl RepositoryStats {
    /// All bytes of the repository.
    pub fn bytes(&self) -> u64 {
        let Self { packs, index, snapshots, writers, others, .. } = self;
        [packs, index, snapshots, writers, others].iter().map(|usage| usage.bytes).sum()
    }
}

impl Repository {
    /// Counts the objects of the repository by listing them; reads none.
    pub async fn stats(&self) -> Result<RepositoryStats> {
        let mut stats = RepositoryStats::default();
        for prefix in layout::PREFIXES {
            let listed = self.store().list(prefix).await?;
            let ended: BTreeSet<_> = listed.iter().filter_map(|listed| ended_writer(&listed.name)).collect();
            for listed in listed {
                let usage = match Name::parse(&listed.name) {
                    Some(Name::Pack(_)) => &mut stats.packs,
                    Some(Name::Index(_)) => &mut stats.index,
                    Some(Name::Commit(_)) => &mut stats.snapshots,
                    Some(Name::Writer(id)) if !ended.contains(&id) => &mut stats.writers,
                    Some(
                        Name::Key(_)
                        | Name::Roster(..)
                        | Name::Config
                        | Name::Writer(_)
                        | Name::WriterEnd(_)
                        | Name::Probe(_)
                        | Name::Kept(..)
                        | Name::Collection(_)
                        | Name::CollectionEnd(_),
                    ) => &mut stats.others,
                    None => &mut stats.foreign,
                };
                usage.add(listed.length);
            }
        }
        stats.others.add(self.store().length(layout::CONFIG).await?);
        stats.series = self.timelines().tags().await?.len() as u64;
        Ok(stats)
    }
}

/// The registration that an object of this name ends.
fn ended_writer(name: &str) -> Option<WriterId> {
    match Name::parse(name) {
        Some(Name::WriterEnd(id)) => Some(id),
        _ => None,
    }
}
