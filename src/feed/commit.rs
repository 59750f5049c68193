//! The task that commits: gathers, applies, stores, contends, acknowledges.
//!
//! ```text
//! gather ──> store: apply to the parent, flush ──> contend for the number ──> acknowledge
//!               ^                                     │ lost
//!               └────────────── renew <───────────────┘
//! ```
//! Owns the registration and the order of these steps. Each is tried again while
//! the store fails in a way that may pass and somebody still waits for the
//! outcome; else the changes fail, and the next begin anew from the parent.
//!
//! Invariant: once a record's put was issued, nothing else is done until it is
//! known whether it landed, however long that takes. So a change that is told
//! to have failed isn't committed, and none is committed twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::blobs::{BlobWriter, Evidence, Stored, WriteStats};
use crate::collection;
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::feed::failure::{causes, failure, unsettled};
use crate::feed::queue::{Op, Submission};
use crate::feed::suspects::Ground;
use crate::feed::tidy::Tidy;
use crate::feed::{Ending, News, Receipt, Shared};
use crate::id::BlobId;
use crate::index::PackRef;
use crate::registration::Registration;
use crate::snapshot::{Content, Snapshot};

/// The pause before a step is tried again; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Commits for one feed.
pub(super) struct Committer {
    shared: Arc<Shared>,
    registration: Registration,
    evidence: Arc<Evidence>,
    /// Whether another writer took the number, so that the registration must be renewed first.
    superseded: bool,
    /// Packs with chunks that no record names yet.
    unnamed: Vec<PackRef>,
    /// What failed first since the feed was closed.
    failed: Option<Arc<Error>>,
    tidy: Tidy,
    /// When to look for rotations and collections next.
    next_look: Instant,
}

/// Chunks that were stored.
#[derive(Default)]
struct Flushed {
    packs: Vec<PackRef>,
    written: WriteStats,
}

/// What is to be done next for a commit.
enum Step {
    Store,
    Contend(Box<Content>),
    Renew,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, registration: Registration, evidence: Arc<Evidence>) -> Self {
        let tidy = Tidy::new(&shared.repository, shared.options.merge_every);
        let next_look = Instant::now() + shared.options.look_every;
        Self { shared, registration, evidence, superseded: false, unnamed: Vec::new(), failed: None, tidy, next_look }
    }

    /// Commits until the feed is closed and nothing waits any more.
    pub(super) async fn run(mut self) {
        // Whatever ends this task, nobody waits for it for ever.
        let ending = Ending(Arc::clone(&self.shared));
        while let Some(mut batch) = self.gather().await {
            let outcome = self.commit(&mut batch).await;
            self.answer(batch, outcome);
            if self.registration.is_undecided() {
                // Closed, and out of time: nothing may follow what isn't settled.
                break;
            }
        }
        self.registration.end().await;
        ending.done(self.failed);
    }

    /// The next batch; meanwhile looks for rotations and collections now and then.
    async fn gather(&mut self) -> Option<Vec<Submission>> {
        loop {
            let now = Instant::now();
            if now >= self.next_look {
                self.next_look = now + self.shared.options.look_every;
                self.heed_rotations().await;
                self.heed_collections().await;
            }
            tokio::select! {
                biased;
                batch = self.shared.queue.gather() => return batch,
                () = tokio::time::sleep_until(self.next_look) => {}
            }
        }
    }

    /// Goes on under the newest keys. Comes first: a collection that was begun since is sealed under them.
    async fn heed_rotations(&self) {
        if let Err(error) = self.shared.repository.follow_rotations().await {
            let series = &self.shared.series;
            tracing::warn!(series, %error, "a feed goes on with the keys that it knows; it will look for newer ones again");
        }
    }

    /// Renews the registration if a collection was begun since: it waits for those that may not know it.
    async fn heed_collections(&mut self) {
        let (series, seen) = (&self.shared.series, self.registration.collection());
        let repository = &self.shared.repository;
        match collection::newest(repository.store(), repository.keyring(), seen).await {
            Ok(newest) if newest > seen && !self.registration.is_undecided() => {
                if let Err(error) = self.renew().await {
                    tracing::warn!(series = self.shared.series, %error, "a feed could not renew its registration yet");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(series, %error, "a feed could not look for collections; it will try again"),
        }
    }

    /// Commits a batch; those whose contents are lost are told and taken out of it on the way.
    async fn commit(&mut self, batch: &mut Vec<Submission>) -> Result<Snapshot, Arc<Error>> {
        let mut needs_chunks = batch.iter().any(|submission| submission.chunks.is_some());
        let mut step = if self.superseded { Step::Renew } else { Step::Store };
        let mut pause = FIRST_PAUSE;
        loop {
            // Once they are in a record's content it is too late.
            if !matches!(step, Step::Contend(_)) && self.shed_lost(batch) && batch.is_empty() {
                return Err(Arc::new(self.shared.chunks.loss()));
            }
            let done = match &step {
                Step::Store => {
                    self.store(batch, &mut needs_chunks).await.map(|content| Step::Contend(Box::new(content)))
                }
                Step::Contend(content) => match self.registration.contend(content).await {
                    Ok(Some(snapshot)) => return Ok(snapshot),
                    Ok(None) => {
                        self.superseded = true;
                        Ok(Step::Renew)
                    }
                    Err(error) => Err(Arc::new(error)),
                },
                Step::Renew => self.renew().await.map(|()| Step::Store),
            };
            let error = match done {
                Ok(next) => {
                    (step, pause) = (next, FIRST_PAUSE);
                    continue;
                }
                Err(error) => error,
            };
            // What can do without the contents that were lost is tried again at once.
            if matches!(step, Step::Store) && batch.iter().any(|submission| self.is_lost(submission)) {
                continue;
            }
            if !self.goes_on(&error, batch) {
                return Err(error);
            }
            tracing::warn!(series = self.shared.series, %error, "a commit of a feed waits for the store");
            self.shared.news().trouble = Some(error);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether a failed step is tried again.
    fn goes_on(&self, error: &Error, batch: &[Submission]) -> bool {
        if self.registration.is_undecided() {
            let deadline = self.shared.options.deadline;
            return self.shared.queue.closed().is_none_or(|closed| Instant::now() < closed + deadline);
        }
        error.is_retryable() && batch.iter().any(Submission::is_awaited)
    }

    async fn renew(&mut self) -> Result<(), Arc<Error>> {
        let collection = self.registration.collection();
        // Another's record need not name what the last one here did, and contents that wait may be in there.
        if let Some(parent) = self.registration.parent() {
            let index = self.shared.repository.index();
            let new = |pack: &&PackRef| !self.unnamed.contains(pack) && !index.is_gone(&pack.id);
            let new: Vec<_> = parent.stored.packs.iter().filter(new).copied().collect();
            self.unnamed.extend(new);
        }
        self.shared.repository.renew(&mut self.registration).await?;
        self.superseded = false;
        self.evidence = Evidence::new(self.registration.condemned());
        let (chunks, evidence) = (&self.shared.chunks, Arc::clone(&self.evidence));
        chunks.renew(self.registration.id(), evidence);
        if self.registration.collection() != collection {
            // What was found stored under the old registration may be about to be deleted, or is.
            chunks.suspect_all().await;
        }
        self.shared.news().latest = self.registration.parent().map(Arc::new);
        Ok(())
    }

    /// Applies a batch to the parent's tree and stores what comes of it, beside the chunks that it needs, unless that
    /// was done at an earlier attempt.
    ///
    /// Chunks have a writer of their own, so that a failure of one part doesn't take the other along.
    async fn store(&mut self, batch: &mut Vec<Submission>, needs_chunks: &mut bool) -> Result<Content, Arc<Error>> {
        let suspects = batch.iter().any(|submission| self.is_suspect(submission));
        let flush = async { if *needs_chunks { self.flush_chunks().await } else { Ok(Flushed::default()) } };
        let (flushed, content) = match suspects {
            false => tokio::join!(flush, self.apply(batch)),
            true => (flush.await, Err(Error::worker("contents were not looked for"))),
        };
        let Flushed { packs, written } = flushed?;
        self.unnamed.extend(packs);
        // While this waited for the writer of chunks, another content may have failed on it and taken it along.
        if batch.iter().any(|submission| self.is_lost(submission)) {
            return Err(Arc::new(self.shared.chunks.loss()));
        }
        *needs_chunks = false;
        let mut content = if suspects {
            self.look_again(batch).await?;
            self.apply(batch).await?
        } else {
            content?
        };
        let Stored { packs: named, .. } = &mut content.stored;
        for pack in &self.unnamed {
            if !named.contains(pack) {
                named.push(*pack);
            }
        }
        content.stats.new_blobs += written.new_blobs;
        content.stats.new_bytes += written.new_bytes;
        content.stats.stored_bytes += written.stored_bytes;
        Ok(content)
    }

    /// Looks for the chunks of contents that were begun before a collection and the registration of now, tells those
    /// that lack some, and takes them out of the batch.
    async fn look_again(&mut self, batch: &mut Vec<Submission>) -> Result<()> {
        let ground = Ground::look(&self.shared.repository, self.registration.condemned()).await?;
        let (mut packs, mut lost) = (Vec::new(), Vec::new());
        for (at, submission) in batch.iter().enumerate().filter(|(_, submission)| self.is_suspect(submission)) {
            match ground.find(submission).await? {
                Some(found) => packs.extend(found),
                None => lost.push(at),
            }
        }
        self.unnamed.extend(packs);
        let reason = "the repository was tidied up while it was stored, and a part of it is gone; put it again";
        let error = || Error::conflict("a content", reason);
        for at in lost.into_iter().rev() {
            batch.remove(at).answer(Err(error()));
        }
        if batch.is_empty() { Err(error()) } else { Ok(()) }
    }

    fn is_suspect(&self, submission: &Submission) -> bool {
        submission.chunks.is_some_and(|first| self.shared.chunks.is_suspect(first))
    }

    /// Stores the chunks that were added so far. A writer that is taken must be flushed here and now, or be lost:
    /// contents that aren't in this commit have chunks in it, too.
    async fn flush_chunks(&self) -> Result<Flushed, Arc<Error>> {
        let chunks = &self.shared.chunks;
        let Some((mut writer, epoch)) = chunks.take().await else { return Ok(Flushed::default()) };
        match writer.settle(&BlobId::new([0; BlobId::LEN])).await {
            Ok(stored) => Ok(Flushed { packs: stored.packs, written: writer.stats() }),
            Err(error) => Err(chunks.lose(epoch, error)),
        }
    }

    async fn apply(&self, batch: &[Submission]) -> Result<Content> {
        let shared = &self.shared;
        let parent = self.registration.parent();
        let parts = shared.repository.parts().clone();
        let (id, evidence) = (self.registration.id(), Arc::clone(&self.evidence));
        let mut writer = BlobWriter::new(parts, id, evidence, shared.options.node_options());
        if let Some(parent) = &parent {
            shared.repository.reader_of(parent);
            writer.adopt(&parent.stored.packs);
        }
        let mut draft = Draft::new(&shared.repository, parent.as_ref());
        for op in batch.iter().flat_map(|submission| &submission.ops) {
            match op.clone() {
                Op::Put(key, entry) => draft.put(key, entry)?,
                Op::Remove(key) => draft.remove(key),
                Op::RemovePrefix(key) => draft.remove_prefix(key),
            }
        }
        let root = draft.apply(&mut writer).await?;
        let stored = writer.settle(&root.id).await?;
        let position = batch.iter().rev().find_map(|submission| submission.position.as_ref());
        let position = position.map(|position| position.to_vec());
        Ok(Content {
            host: shared.options.host.clone(),
            tags: shared.options.tags.clone(),
            paths: Vec::new(),
            position: position.or_else(|| parent.as_ref().and_then(|parent| parent.position.clone())),
            root: root.id,
            entries: root.entries,
            parent: parent.as_ref().map(|parent| parent.number),
            origin: None,
            stats: draft.stats(writer.stats()),
            failures: Vec::new(),
            failure_count: 0,
            stored,
        })
    }

    /// Tells those whose contents are lost, and takes them out of the batch; whether there were any.
    fn shed_lost(&self, batch: &mut Vec<Submission>) -> bool {
        let before = batch.len();
        for lost in batch.extract_if(.., |submission| self.is_lost(submission)) {
            lost.answer(Err(self.shared.chunks.loss()));
        }
        batch.len() < before
    }

    fn is_lost(&self, submission: &Submission) -> bool {
        submission.chunks.is_some_and(|first| self.shared.chunks.is_lost(first))
    }

    fn answer(&mut self, batch: Vec<Submission>, outcome: Result<Snapshot, Arc<Error>>) {
        let snapshot = match outcome {
            Ok(snapshot) => snapshot,
            Err(cause) => {
                let error = match self.registration.is_undecided() {
                    true => Arc::new(unsettled(&self.shared.series, causes(&cause))),
                    false => cause,
                };
                tracing::warn!(series = self.shared.series, %error, "changes of a feed were not committed");
                self.shared.news().trouble = Some(Arc::clone(&error));
                for submission in batch {
                    submission.answer(Err(failure(&error)));
                }
                if self.shared.queue.closed().is_some() {
                    self.failed.get_or_insert(error);
                }
                return;
            }
        };
        self.unnamed.clear();
        let receipt = Receipt { number: snapshot.number, hash: snapshot.hash, time: snapshot.time };
        *self.shared.news() = News { latest: Some(Arc::new(snapshot)), trouble: None };
        for submission in batch {
            submission.answer(Ok(receipt));
        }
        self.tidy.committed();
    }
}
