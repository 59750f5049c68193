//! Verifies index segments, one at a time, and counts what they say of each pack.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::check::findings::{Findings, Trouble};
use crate::cpu;
use crate::error::Result;
use crate::id::ObjectId;
use crate::index::Segment;
use crate::layout::{self, Name};
use crate::repository::Repository;

/// Segments read at a time.
const CONCURRENCY: usize = 4;

/// The sound segments.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) list: Vec<Arc<Segment>>,
    /// For each pack, which segments (by their place in the list) know how many blobs in it.
    pub(super) naming: HashMap<ObjectId, Vec<(usize, u64)>>,
}

impl Repository {
    /// Reads every segment from the store: name, pages, order and what each entry says.
    pub(super) async fn check_segments(&self, findings: &mut Findings) -> Result<Segments> {
        let listed = self.list_known(layout::INDEX, findings).await?;
        let read = |(name, length)| async move {
            let Name::Index(id) = name else { return Ok(None) };
            let verified = match self.index().fetch(id, length).await {
                Ok(segment) => cpu::start(move || count(segment)).await,
                Err(error) => Err(error),
            };
            match verified {
                Ok(verified) => Ok(Some(Ok(verified))),
                // It was merged since it was listed.
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Trouble::of(error).map(|trouble| Some(Err(trouble))),
            }
        };
        let mut verified = futures::stream::iter(listed).map(read).buffered(CONCURRENCY);
        let mut segments = Segments::default();
        while let Some(verified) = verified.try_next().await? {
            match verified {
                Some(Ok((segment, counts))) => segments.push(segment, counts),
                Some(Err(trouble)) => findings.add(trouble),
                None => {}
            }
        }
        Ok(segments)
    }
}

impl Segments {
    fn push(&mut self, segment: Arc<Segment>, counts: HashMap<ObjectId, u64>) {
        let place = self.list.len();
        self.list.push(segment);
        for (pack, blobs) in counts {
            self.naming.entry(pack).or_default().push((place, blobs));
        }
    }
}

/// Looks at every entry, and counts the blobs in each pack.
fn count(segment: Arc<Segment>) -> Result<(Arc<Segment>, HashMap<ObjectId, u64>)> {
    let mut counts = HashMap::new();
    for entry in segment.entries() {
        *counts.entry(entry?.1.pack.id).or_default() += 1;
    }
    Ok((segment, counts))
}
