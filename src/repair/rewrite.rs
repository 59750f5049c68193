//! Snapshots without what is lost: committed again at the end of their series, and then the old ones are forgotten.
//!
//! What gives another back stands in that one's place, so all keep their order
//! and writers go on from what was the latest. The old ones are forgotten at once,
//! after all of that: a repair that is cut off before goes on where it was.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::blobs::{BlobReader, BlobWriter, Condemned, Evidence, NodeBuffer, Treatment, WriteOptions, list_packs};
use crate::clock::Timestamp;
use crate::draft::commit;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId, SeriesTag};
use crate::index::{Index, Want};
use crate::pack::BlockKind;
use crate::reach::secure;
use crate::registration::Registration;
use crate::repair::losses::{Sequences, lost_node};
use crate::repair::objects::Lists;
use crate::repair::options::SnapshotLoss;
use crate::repair::records::{Root, SeriesWork};
use crate::repair::{RepairAction, RepairOptions, RepairReport, Steps};
use crate::repository::Repository;
use crate::snapshot::{Content, FAILURES_MAX, Failure, Origin, Snapshot, SnapshotStats};
use crate::tree::{
    Entry, EntryKind, Key, Payload, Piece, Root as TreeRoot, SequenceVisitor, Span, TreeBuilder, Visitor, visit_nodes,
    visit_sequence,
};

/// Nodes read at a time.
const READ_AHEAD: usize = 16;

/// What is known to be lost of a snapshot.
#[derive(Debug, Default)]
struct Known {
    paths: BTreeSet<String>,
    ranges: Vec<Span>,
}

impl Known {
    fn of(loss: &SnapshotLoss) -> Self {
        Self { paths: loss.paths.iter().map(|failure| failure.path.clone()).collect(), ranges: loss.spans.clone() }
    }

    /// Whether something that is lost was known to be; a part of a range may turn out to be there.
    fn includes(&self, missing: &Missing, failure: &Failure) -> bool {
        self.paths.contains(&failure.path)
            || self.ranges.iter().any(|range| match missing {
                Missing::Entry(key) => range.contains(key),
                Missing::Range(span) => range.includes(span),
            })
    }
}

/// What is left out.
enum Missing {
    Entry(Key),
    Range(Span),
}

/// What is rewritten of one series.
#[derive(Debug)]
pub(super) struct Rewrite {
    series: String,
    tag: SeriesTag,
    /// In order: the number, and what is known to be lost.
    targets: Vec<(u64, Known)>,
    /// What is forgotten in the end.
    forget: BTreeSet<u64>,
}

impl SeriesWork {
    /// Adds what becomes of snapshots that lack something; `theirs` are the newest lists of the copy.
    ///
    /// One of which nothing is left and that the copy's list forgot counts here only because the list that said so is
    /// lost: it was collected. Of one of which something is left that isn't certain, since a copy may forget by itself.
    pub(super) fn with_losses(
        mut self,
        options: &RepairOptions,
        roots: &[Root],
        theirs: &Lists,
        lost: &mut [SnapshotLoss],
        steps: &mut Steps,
    ) -> Self {
        let tag = |loss: &SnapshotLoss| Some(roots.iter().find(|root| root.series == loss.series)?.name.tag);
        for loss in lost.iter_mut().filter(|loss| !loss.forgotten) {
            let Some(tag) = tag(loss) else { continue };
            let object = format!("{}#{}", loss.series, loss.number);
            let problem = format!("{} paths in it can't be restored", loss.paths.len());
            let nothing_is_left = matches!(&loss.paths[..], [all] if all.path == Span::all().to_string());
            if nothing_is_left && theirs.get(&tag).is_some_and(|newest| !newest.kept.counts(loss.number)) {
                let advice = "the other repository says that it was, and nothing of it is left";
                steps.advise(object, problem, RepairAction::Forget, advice);
                self.forget_again.entry(tag).or_default().insert(loss.number);
                loss.forgotten = true;
            } else if options.accept_loss {
                steps.add(object, problem, RepairAction::Rewrite);
            } else {
                let advice = "a copy of the repository or `backup --heal` may bring them back; or accept the loss";
                steps.advise(object, problem, RepairAction::None, advice);
            }
        }
        if options.accept_loss {
            let series: BTreeSet<&str> =
                lost.iter().filter(|loss| !loss.forgotten).map(|loss| loss.series.as_str()).collect();
            let again = |root: &&Root| {
                self.forget_again.get(&root.name.tag).is_some_and(|numbers| numbers.contains(&root.name.number))
            };
            let counting: Vec<&Root> = roots.iter().filter(|root| root.counts && !again(root)).collect();
            let rewrites = series.into_iter().filter_map(|series| rewrite(series, lost, &counting));
            self.rewrites = rewrites.collect();
        }
        self
    }
}

/// What is rewritten of a series, given what snapshots lack and which count.
fn rewrite(series: &str, lost: &[SnapshotLoss], counting: &[&Root]) -> Option<Rewrite> {
    let of_series = lost.iter().filter(|loss| loss.series == series && !loss.forgotten);
    let lossy: BTreeMap<u64, &SnapshotLoss> = of_series.map(|loss| (loss.number, loss)).collect();
    let counting: Vec<&Root> = counting.iter().filter(|root| root.series == series).copied().collect();
    let is_lossy = |root: &Root| lossy.contains_key(&root.name.number);
    // A repair that was cut off may have committed some already.
    let gives_back = |root: &Root, old: &Root| {
        root.name.number > old.name.number && !is_lossy(root) && root.origin == Some(old.as_origin())
    };
    let old = counting.iter().filter(|root| is_lossy(root));
    let (mut targets, mut forget) = (Vec::new(), BTreeSet::new());
    for old in old {
        let number = old.name.number;
        forget.insert(number);
        if !counting.iter().any(|root| gives_back(root, old)) {
            targets.push((number, lossy.get(&number).map(|loss| Known::of(loss)).unwrap_or_default()));
        }
    }
    Some(Rewrite { series: series.to_owned(), tag: counting.first()?.name.tag, targets, forget })
}

impl Repository {
    /// Commits what is left of snapshots, and forgets the old ones.
    pub(super) async fn rewrite_series(
        &self,
        rewrite: Rewrite,
        damaged: &BTreeSet<ObjectId>,
        times: (Timestamp, Timestamp),
        report: &mut RepairReport,
    ) -> Result<()> {
        let Rewrite { series, tag, targets, forget } = rewrite;
        for (number, lost) in targets {
            let Some(old) = self.timelines().numbered(&tag, number).await? else {
                let reason = "it was forgotten since this was planned; plan anew";
                return Err(Error::conflict(format!("{series}#{number}"), reason));
            };
            let snapshot = self.rewrite(&old, &lost, damaged).await?;
            report.rewritten.push((series.clone(), number, snapshot.number));
        }
        self.stop_counting(&series, &forget, Some(times)).await?;
        report.forgotten.extend(forget.into_iter().map(|number| (series.clone(), number)));
        Ok(())
    }

    async fn rewrite(&self, old: &Snapshot, lost: &Known, damaged: &BTreeSet<ObjectId>) -> Result<Snapshot> {
        let registration = Registration::begin(self.parts().clone(), &old.series, &old.host, self.mode()).await?;
        match self.content_of_rest(&registration, old, lost, damaged).await {
            Ok(content) => commit(self, registration, content, WriteOptions::default()).await,
            Err(error) => {
                registration.end().await;
                Err(error)
            }
        }
    }

    async fn content_of_rest(
        &self,
        registration: &Registration,
        old: &Snapshot,
        lost: &Known,
        damaged: &BTreeSet<ObjectId>,
    ) -> Result<Content> {
        self.index().refresh(Want::All).await?;
        self.reader_of(old);
        let condemned = registration.condemned().with(damaged);
        let evidence = Evidence::new(condemned.clone());
        let mut writer = BlobWriter::new(self.parts().clone(), registration.id(), evidence, WriteOptions::default());
        if let Some(parent) = registration.parent() {
            writer.adopt(&parent.stored.packs);
        }
        self.index().load_recent().await?;
        let there = list_packs(self.store()).await?;
        let ground = Ground { reader: self.reader(), index: self.index(), there, condemned };
        let (builder, nodes) = (TreeBuilder::new(self.splitter().clone()), NodeBuffer::new(Arc::clone(self.keyring())));
        let mut rest = Rest {
            sequences: Sequences::new(),
            ground: &ground,
            builder,
            nodes,
            writer: &mut writer,
            failures: Vec::new(),
            stats: SnapshotStats::default(),
        };
        visit_nodes(&**self.reader(), &old.root, READ_AHEAD, &mut rest).await?;
        let (root, failures, stats) = rest.finish().await?;
        if let Some((_, failure)) = failures.iter().find(|(missing, failure)| !lost.includes(missing, failure)) {
            let reason = format!("{} can't be read either ({}); plan anew", failure.path, failure.reason);
            return Err(Error::conflict(old, reason));
        }
        let failures = failures.into_iter().map(|(_, failure)| failure).collect();
        writer.flush().await?;
        secure(self.reader(), self.index(), &root.id, &mut writer).await?;
        writer.flush().await?;
        let stored = writer.stored(&root.id);
        Ok(content(old.clone(), registration, root, failures, stats, stored))
    }
}

fn content(
    old: Snapshot,
    registration: &Registration,
    root: TreeRoot,
    mut failures: Vec<Failure>,
    counted: SnapshotStats,
    stored: crate::blobs::Stored,
) -> Content {
    let failure_count = old.failure_count.saturating_add(failures.len() as u64);
    failures.extend(old.failures);
    failures.truncate(FAILURES_MAX);
    let SnapshotStats { files, folders, others, bytes, .. } = counted;
    Content {
        host: old.host,
        tags: old.tags,
        paths: old.paths,
        position: old.position,
        root: root.id,
        entries: root.entries,
        parent: registration.parent().map(|parent| parent.number),
        origin: old.origin.or(Some(Origin { number: old.number, time: old.time })),
        stats: SnapshotStats { files, folders, others, bytes, ..old.stats },
        failures,
        failure_count,
        stored,
    }
}

/// What may be relied on.
struct Ground<'a> {
    reader: &'a Arc<BlobReader>,
    index: &'a Arc<Index>,
    there: HashSet<ObjectId>,
    condemned: Condemned,
}

impl Ground<'_> {
    /// Why an entry can't be restored; nothing if it can.
    async fn lost_of(&self, entry: &Entry, sequences: &mut Sequences) -> Result<Option<String>> {
        for payload in [&entry.content, &entry.metadata] {
            let lost = match payload {
                Payload::Inline(_) => None,
                Payload::Pieces(pieces) => self.lost_piece(pieces)?,
                Payload::Sequence(root) => match sequences.get(root) {
                    Some(lost) => lost.clone(),
                    None => {
                        let mut walk = InSequence { ground: self, lost: None };
                        visit_sequence(&**self.reader, root, READ_AHEAD, &mut walk).await?;
                        sequences.insert(*root, walk.lost.clone());
                        walk.lost
                    }
                },
            };
            if lost.is_some() {
                return Ok(lost);
            }
        }
        Ok(None)
    }

    fn lost_piece(&self, pieces: &[Piece]) -> Result<Option<String>> {
        let stays = |pack: &ObjectId| self.there.contains(pack) && !self.condemned.contains(pack);
        for piece in pieces {
            if let Piece::Chunk { id, .. } = piece
                && self.index.find_in(id, stays)?.is_none()
            {
                return Ok(Some(format!("blob {id} is lost")));
            }
        }
        Ok(None)
    }
}

struct InSequence<'a> {
    ground: &'a Ground<'a>,
    lost: Option<String>,
}

impl SequenceVisitor for InSequence<'_> {
    fn enter(&mut self, _: &BlobId) -> bool {
        self.lost.is_none()
    }

    async fn pieces(&mut self, pieces: Vec<Piece>) -> Result<()> {
        if let Some(lost) = self.ground.lost_piece(&pieces)? {
            self.lost = Some(lost);
        }
        Ok(())
    }

    fn failed(&mut self, id: &BlobId, error: Error) -> Result<()> {
        self.lost = Some(lost_node(id, error)?);
        Ok(())
    }
}

/// Hands the nodes of a tree on.
async fn store(nodes: &mut NodeBuffer, writer: &mut BlobWriter) -> Result<()> {
    for (id, node) in nodes.take() {
        writer.add(BlockKind::Nodes, id, node, Treatment::Compress).await?;
    }
    Ok(())
}

/// Builds a tree of what can be restored: the walk comes by the entries in the order of their keys.
struct Rest<'a> {
    ground: &'a Ground<'a>,
    sequences: Sequences,
    builder: TreeBuilder,
    nodes: NodeBuffer,
    writer: &'a mut BlobWriter,
    failures: Vec<(Missing, Failure)>,
    stats: SnapshotStats,
}

impl Rest<'_> {
    fn count(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::File => {
                self.stats.files += 1;
                self.stats.bytes = self.stats.bytes.saturating_add(entry.size);
            }
            EntryKind::Folder => self.stats.folders += 1,
            _ => self.stats.others += 1,
        }
    }

    async fn finish(self) -> Result<(TreeRoot, Vec<(Missing, Failure)>, SnapshotStats)> {
        let Self { builder, mut nodes, writer, failures, stats, .. } = self;
        let root = builder.finish(&mut nodes)?;
        store(&mut nodes, writer).await?;
        Ok((root, failures, stats))
    }
}

impl Visitor for Rest<'_> {
    fn enter(&mut self, _: &BlobId) -> bool {
        true
    }

    async fn leaf(&mut self, _: &BlobId, entries: Vec<(Key, Entry)>) -> Result<()> {
        for (key, entry) in entries {
            match self.ground.lost_of(&entry, &mut self.sequences).await? {
                Some(reason) => {
                    let failure = Failure { path: key.to_string(), reason };
                    self.failures.push((Missing::Entry(key), failure));
                }
                None => {
                    self.count(&entry);
                    self.builder.push(&key, &entry, &mut self.nodes)?;
                }
            }
        }
        store(&mut self.nodes, self.writer).await
    }

    fn failed(&mut self, id: &BlobId, span: &Span, error: Error) -> Result<()> {
        let failure = Failure { path: span.to_string(), reason: lost_node(id, error)? };
        self.failures.push((Missing::Range(span.clone()), failure));
        Ok(())
    }
}
