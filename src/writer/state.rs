//! What the calls on a writer share, one at a time.

use crate::blobs::{BlobWriter, Evidence, Stored, WriteOptions};
use crate::cutter::Cut;
use crate::draft::{Draft, PORTION, overtaken};
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::index::Want;
use crate::reach::secure;
use crate::registration::{CONTESTS, Registration};
use crate::repository::Repository;
use crate::snapshot::{Content, Snapshot};
use crate::tree::{Key, Root};
use crate::writer::CommitOptions;

/// A writer's registration, its changes, and what it stores.
pub(super) struct State {
    repository: Repository,
    series: String,
    host: String,
    registration: Registration,
    /// What the changes are made to; none where they are all there is.
    base: Option<Snapshot>,
    /// Whether what others commit meanwhile is replaced.
    replaces: bool,
    pub(super) draft: Draft,
    /// On loan while something is stored. Who doesn't finish with it, for an error or because it was cut off, doesn't
    /// bring it back: blobs are missing then that it takes for stored.
    blobs: Option<BlobWriter>,
    /// Whether there are chunks that can't be read yet.
    unsettled: bool,
    /// Whether the index is at hand, to find what is stored already.
    indexed: bool,
    options: WriteOptions,
    /// Whether a collection was begun since what the changes rely on was looked for.
    suspect: bool,
}

impl State {
    pub(super) fn new(
        repository: &Repository,
        series: &str,
        host: &str,
        registration: Registration,
        options: WriteOptions,
        base: Option<Snapshot>,
        replaces: bool,
    ) -> Self {
        let evidence = Evidence::new(registration.condemned());
        let mut blobs = BlobWriter::new(repository.parts().clone(), registration.id(), evidence, options);
        if let Some(base) = &base {
            blobs.adopt(&base.stored.packs);
        }
        Self {
            draft: Draft::new(repository, base.as_ref()),
            repository: repository.clone(),
            series: series.to_owned(),
            host: host.to_owned(),
            registration,
            base,
            replaces,
            blobs: Some(blobs),
            unsettled: false,
            indexed: false,
            options,
            suspect: false,
        }
    }

    fn take_blobs(&mut self) -> Result<BlobWriter> {
        self.blobs.take().ok_or_else(|| self.broken())
    }

    fn broken(&self) -> Error {
        let reason = "an earlier call on it failed, so it may lack what was put; take a new writer and begin again";
        Error::invalid(format!("the writer of series {:?}", self.series), reason)
    }

    /// Refuses a change to what can't be committed any more.
    pub(super) fn check(&self) -> Result<()> {
        if self.blobs.is_some() { Ok(()) } else { Err(self.broken()) }
    }

    /// Whether so much is pending that it should be applied.
    pub(super) fn is_full(&self) -> bool {
        self.draft.pending_bytes() >= PORTION
    }

    /// Stores blobs of one content.
    pub(super) async fn store(&mut self, cuts: Vec<Cut>) -> Result<()> {
        if !self.indexed {
            self.repository.index().refresh(Want::All).await?;
            self.repository.index().load_recent().await?;
            self.indexed = true;
        }
        let mut blobs = self.take_blobs()?;
        self.unsettled = true;
        for cut in cuts {
            cut.store(&mut blobs).await?;
        }
        // Chunks that aren't compressed share blocks only with their own content's, and the next may be another's.
        blobs.end_file().await?;
        self.blobs = Some(blobs);
        Ok(())
    }

    /// Makes pending changes part of the tree.
    pub(super) async fn apply(&mut self) -> Result<Root> {
        let mut blobs = self.take_blobs()?;
        let root = self.draft.apply(&mut blobs).await?;
        self.blobs = Some(blobs);
        Ok(root)
    }

    pub(super) async fn rename_prefix(&mut self, from: &Key, to: &Key) -> Result<u64> {
        let mut blobs = self.take_blobs()?;
        let renamed = self.draft.rename_prefix(from, to, &mut blobs).await;
        if matches!(renamed, Ok(_) | Err(Error::Invalid { .. } | Error::Conflict { .. })) {
            self.blobs = Some(blobs);
        }
        renamed
    }

    /// Uploads what was put, so that it can be read.
    pub(super) async fn settle(&mut self) -> Result<()> {
        if self.unsettled {
            let root = self.base.as_ref().map_or(BlobId::new([0; BlobId::LEN]), |base| base.root);
            self.settle_under(&root).await?;
        }
        Ok(())
    }

    async fn settle_under(&mut self, root: &BlobId) -> Result<Stored> {
        let mut blobs = self.take_blobs()?;
        // Who goes on from this commit takes over what it names, also where the changes don't build on the parent.
        if let Some(parent) = self.registration.parent() {
            blobs.adopt(&parent.stored.packs);
        }
        let stored = blobs.settle(root).await?;
        self.unsettled = false;
        self.blobs = Some(blobs);
        Ok(stored)
    }

    /// Commits the changes as the next snapshot of the series, on top of what others committed meanwhile.
    pub(super) async fn commit(&mut self, options: CommitOptions) -> Result<Snapshot> {
        for _ in 0..CONTESTS {
            self.catch_up().await?;
            let content = self.content(&options).await?;
            if let Some(snapshot) = self.registration.contend(&content).await? {
                return Ok(snapshot);
            }
            let collection = self.registration.collection();
            self.repository.renew(&mut self.registration).await?;
            if self.registration.collection() != collection {
                self.look_again().await?;
            }
        }
        let series = format!("series {:?}", self.series);
        Err(Error::conflict(series, format!("other writers took {CONTESTS} numbers in a row; commit less often")))
    }

    /// From here on relies on nothing that was found stored under the old registration: it may be about to be deleted.
    async fn look_again(&mut self) -> Result<()> {
        let mut before = self.take_blobs()?;
        before.make_readable().await?;
        let (evidence, id) = (Evidence::new(self.registration.condemned()), self.registration.id());
        let mut blobs = BlobWriter::new(self.repository.parts().clone(), id, evidence, self.options);
        blobs.continue_from(&before);
        self.repository.index().refresh(Want::All).await?;
        self.blobs = Some(blobs);
        (self.indexed, self.suspect) = (true, true);
        Ok(())
    }

    /// Moves the changes onto the latest snapshot, unless they replace it.
    async fn catch_up(&mut self) -> Result<()> {
        let newest = self.registration.parent();
        if self.replaces || newest.as_ref().map(|newest| newest.number) == self.base.as_ref().map(|base| base.number) {
            return Ok(());
        }
        let mut blobs = self.take_blobs()?;
        let overlap = self.draft.rebase(newest.as_ref(), &mut blobs).await?;
        self.blobs = Some(blobs);
        match newest {
            Some(newest) if !overlap.is_empty() => Err(Error::Overlap {
                series: self.series.clone(),
                number: newest.number,
                paths: overlap.iter().map(Key::to_string).collect(),
            }),
            newest => {
                self.base = newest;
                Ok(())
            }
        }
    }

    /// Stores all that the commit needs; what its record says.
    async fn content(&mut self, options: &CommitOptions) -> Result<Content> {
        let root = self.apply().await?;
        if self.suspect {
            let mut blobs = self.take_blobs()?;
            blobs.make_readable().await?;
            self.repository.index().load_recent().await?;
            let (reader, index) = (self.repository.reader(), self.repository.index());
            let secured = secure(reader, index, &root.id, &mut blobs).await;
            secured.map_err(|error| overtaken(&self.series, error))?;
            self.blobs = Some(blobs);
            self.suspect = false;
        }
        let stored = self.settle_under(&root.id).await?;
        let written = self.blobs.as_ref().map(BlobWriter::stats).unwrap_or_default();
        let position = options.position.clone();
        Ok(Content {
            host: self.host.clone(),
            tags: options.tags.clone(),
            paths: Vec::new(),
            position: position.or_else(|| self.base.as_ref().and_then(|base| base.position.clone())),
            root: root.id,
            entries: root.entries,
            parent: self.base.as_ref().map(|base| base.number),
            origin: None,
            stats: self.draft.stats(written),
            failures: Vec::new(),
            failure_count: 0,
            stored,
        })
    }

    /// Ends the registration, unless a commit under it is undecided.
    pub(super) async fn end(&mut self) {
        self.registration.end().await;
    }
}
