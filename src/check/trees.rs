//! Walks the trees of all snapshots, each distinct node once, and looks up every chunk.
//!
//! Where something is wrong, a second walk says which snapshots and paths it
//! hits. It goes through every snapshot, but leaves out leaves that the first
//! walk found to be sound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::check::CheckReport;
use crate::check::findings::{FindingKind, Findings, Trouble};
use crate::check::records::Root;
use crate::check::survey::{Nodes, Survey};
use crate::cpu;
use crate::error::{Error, Result};
use crate::files::Metadata;
use crate::id::{BlobId, ObjectId};
use crate::layout::Name;
use crate::progress::Progress;
use crate::tree::{
    Entry, Key, Payload, Piece, ReadNode, SequenceRoot, SequenceVisitor, Span, Visitor, decode_node, visit_nodes,
    visit_sequence,
};

/// Nodes read at a time.
const READ_AHEAD: usize = 16;

/// What is said before what only snapshots that were forgotten lack.
const FORGOTTEN: &str = "only snapshots that were forgotten need it: ";

/// What is wrong, by object.
type Troubles = BTreeMap<String, Trouble>;

/// The walks over all trees.
pub(super) struct Trees<'a> {
    survey: Arc<Survey>,
    snapshots: &'a [Root],
    /// The nodes that were seen; true for a leaf in which nothing is wrong.
    nodes: HashMap<BlobId, bool>,
    findings: Findings,
    progress: Arc<dyn Progress>,
}

impl<'a> Trees<'a> {
    pub(super) fn new(
        survey: Arc<Survey>,
        snapshots: &'a [Root],
        findings: Findings,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self { survey, snapshots, nodes: HashMap::new(), findings, progress }
    }

    pub(super) fn into_findings(self) -> Findings {
        self.findings
    }

    /// Verifies every node and every reference.
    pub(super) async fn walk(&mut self, report: &mut CheckReport) -> Result<()> {
        let nodes = Nodes { survey: Arc::clone(&self.survey), spare: true };
        for snapshot in self.snapshots {
            let mut walk = Walk { trees: self, nodes: nodes.clone(), entries: 0, counts: snapshot.counts };
            visit_nodes(&nodes, &snapshot.root, READ_AHEAD, &mut walk).await?;
            report.entries += walk.entries;
            self.check_count(snapshot, &nodes).await?;
        }
        report.nodes = self.nodes.len() as u64;
        self.survey.needed().into_iter().for_each(|trouble| self.findings.add(trouble));
        Ok(())
    }

    /// Compares the number of entries that the record states with what the root says.
    async fn check_count(&mut self, snapshot: &Root, nodes: &Nodes) -> Result<()> {
        let bytes = match nodes.read_node(&snapshot.root).await {
            Ok(bytes) => bytes,
            // That was reported by the walk.
            Err(error) if error.tells_of_objects() => return Ok(()),
            Err(error) => return Err(error),
        };
        if decode_node(&bytes, "a root").is_ok_and(|root| root.total() != snapshot.entries) {
            let record = Name::Commit(snapshot.record).to_string();
            let problem = "it states another number of entries than its tree has";
            self.findings.add_new(FindingKind::Inconsistent, &record, problem);
            self.findings.affect(&record, &snapshot.label);
        }
        Ok(())
    }

    /// Names the packs that neither the index nor a snapshot knows.
    pub(super) fn name_leftovers(&mut self, unindexed: &[ObjectId]) {
        for id in unindexed {
            let name = Name::Pack(*id).to_string();
            if !self.survey.is_named(id) && !self.findings.concern(&name) {
                let problem = "no index segment knows all of its blobs, and no snapshot needs the others";
                self.findings.add_new(FindingKind::Leftover, name, problem);
            }
        }
    }

    /// Says which snapshots and paths are affected by what is wrong.
    pub(super) async fn attribute(&mut self) -> Result<()> {
        if !self.findings.have_defects() {
            return Ok(());
        }
        let nodes = Nodes { survey: Arc::clone(&self.survey), spare: false };
        let mut sequences = HashMap::new();
        for snapshot in self.snapshots {
            let mut walk =
                Attribution { trees: self, nodes: nodes.clone(), label: &snapshot.label, sequences: &mut sequences };
            visit_nodes(&nodes, &snapshot.root, READ_AHEAD, &mut walk).await?;
        }
        Ok(())
    }
}

/// The first walk.
struct Walk<'a, 'b> {
    trees: &'a mut Trees<'b>,
    nodes: Nodes,
    entries: u64,
    /// Whether the snapshot counts.
    counts: bool,
}

impl Walk<'_, '_> {
    /// Adds something wrong. Nobody relies on a snapshot that was forgotten: it may lack something.
    fn add(&mut self, mut trouble: Trouble) {
        if !self.counts && trouble.kind != FindingKind::Unsupported {
            trouble.kind = FindingKind::Leftover;
            if !trouble.problem.is_empty() {
                trouble.problem = format!("{FORGOTTEN}{}", trouble.problem);
            }
        }
        self.trees.findings.add(trouble);
    }
}

impl Visitor for Walk<'_, '_> {
    fn enter(&mut self, id: &BlobId) -> bool {
        enter_once(&mut self.trees.nodes, id)
    }

    async fn leaf(&mut self, id: &BlobId, entries: Vec<(Key, Entry)>) -> Result<()> {
        self.entries += entries.len() as u64;
        self.trees.progress.advance(entries.len() as u64, 0);
        let mut sequences = Vec::new();
        for (_, entry) in &entries {
            sequences.extend(sequences_of(entry));
        }
        // A sequence may be unsound in a part that was seen before, so its leaf is looked at again.
        let mut sound = sequences.is_empty();
        for root in sequences {
            let seen = Some(&mut self.trees.nodes);
            let mut walk = SequenceWalk { survey: &self.nodes.survey, seen, troubles: Troubles::new() };
            visit_sequence(&self.nodes, &root, READ_AHEAD, &mut walk).await?;
            let troubles = walk.troubles;
            troubles.into_values().for_each(|trouble| self.add(trouble));
        }
        let (survey, leaf) = (Arc::clone(&self.nodes.survey), *id);
        for (_, troubles) in cpu::start(move || judge(&survey, &leaf, &entries)).await? {
            sound = false;
            troubles.into_values().for_each(|trouble| self.add(trouble));
        }
        self.trees.nodes.insert(*id, sound);
        Ok(())
    }

    fn failed(&mut self, _id: &BlobId, _span: &Span, error: Error) -> Result<()> {
        self.add(Trouble::of(error)?);
        Ok(())
    }
}

/// The second walk, through one snapshot.
struct Attribution<'a, 'b> {
    trees: &'a mut Trees<'b>,
    nodes: Nodes,
    label: &'a str,
    /// What is wrong with sequences, by their roots.
    sequences: &'a mut HashMap<BlobId, Vec<String>>,
}

impl Attribution<'_, '_> {
    /// The objects because of which a sequence can't be read.
    async fn sequence(&mut self, root: &SequenceRoot) -> Result<Vec<String>> {
        if let Some(objects) = self.sequences.get(&root.root) {
            return Ok(objects.clone());
        }
        let mut walk = SequenceWalk { survey: &self.nodes.survey, seen: None, troubles: Troubles::new() };
        visit_sequence(&self.nodes, root, READ_AHEAD, &mut walk).await?;
        let objects: Vec<_> = walk.troubles.into_keys().collect();
        self.sequences.insert(root.root, objects.clone());
        Ok(objects)
    }
}

impl Visitor for Attribution<'_, '_> {
    fn enter(&mut self, id: &BlobId) -> bool {
        !self.trees.nodes.get(id).copied().unwrap_or(false)
    }

    async fn leaf(&mut self, id: &BlobId, entries: Vec<(Key, Entry)>) -> Result<()> {
        let mut affected = BTreeMap::<Key, Vec<String>>::new();
        for (key, entry) in &entries {
            for root in sequences_of(entry) {
                let objects = self.sequence(&root).await?;
                affected.entry(key.clone()).or_default().extend(objects);
            }
        }
        let (survey, leaf) = (Arc::clone(&self.nodes.survey), *id);
        for (key, troubles) in cpu::start(move || judge(&survey, &leaf, &entries)).await? {
            affected.entry(key).or_default().extend(troubles.into_keys());
        }
        for (key, mut objects) in affected {
            objects.sort_unstable();
            objects.dedup();
            let path = format!("{}:{key}", self.label);
            objects.iter().for_each(|object| self.trees.findings.affect(object, &path));
        }
        Ok(())
    }

    fn failed(&mut self, _id: &BlobId, span: &Span, error: Error) -> Result<()> {
        let object = Trouble::of(error)?.object;
        self.trees.findings.affect(&object, &format!("{}: {span}", self.label));
        Ok(())
    }
}

/// Through the nodes of one sequence.
struct SequenceWalk<'a> {
    survey: &'a Arc<Survey>,
    /// Nodes to leave out, and to add to.
    seen: Option<&'a mut HashMap<BlobId, bool>>,
    troubles: Troubles,
}

impl SequenceVisitor for SequenceWalk<'_> {
    fn enter(&mut self, id: &BlobId) -> bool {
        self.seen.as_mut().is_none_or(|seen| enter_once(seen, id))
    }

    async fn pieces(&mut self, pieces: Vec<Piece>) -> Result<()> {
        let survey = Arc::clone(self.survey);
        let found = cpu::start(move || {
            let mut troubles = Troubles::new();
            judge_pieces(&survey, &pieces, &mut troubles).map(|()| troubles)
        });
        self.troubles.extend(found.await?);
        Ok(())
    }

    fn failed(&mut self, _id: &BlobId, error: Error) -> Result<()> {
        let trouble = Trouble::of(error)?;
        self.troubles.insert(trouble.object.clone(), trouble);
        Ok(())
    }
}

fn enter_once(seen: &mut HashMap<BlobId, bool>, id: &BlobId) -> bool {
    let new = !seen.contains_key(id);
    if new {
        seen.insert(*id, false);
    }
    new
}

fn sequences_of(entry: &Entry) -> impl Iterator<Item = SequenceRoot> {
    [&entry.content, &entry.metadata].into_iter().filter_map(|payload| match payload {
        Payload::Sequence(root) => Some(*root),
        _ => None,
    })
}

/// What is wrong with the entries of a leaf, sequences left out.
fn judge(survey: &Survey, leaf: &BlobId, entries: &[(Key, Entry)]) -> Result<Vec<(Key, Troubles)>> {
    let mut wrong = Vec::new();
    for (key, entry) in entries {
        let mut troubles = Troubles::new();
        if let Err(Error::Unsupported { object, reason }) = entry.require_known(key) {
            let trouble =
                Trouble::new(FindingKind::Unsupported, format_args!("node {leaf}"), format!("{object}: {reason}"));
            troubles.insert(trouble.object.clone(), trouble);
        }
        for payload in [&entry.content, &entry.metadata] {
            if let Payload::Pieces(pieces) = payload {
                judge_pieces(survey, pieces, &mut troubles)?;
            }
        }
        if let Payload::Inline(bytes) = &entry.metadata
            && !bytes.is_empty()
            && let Err(error) = Metadata::decode(bytes, format_args!("node {leaf}"))
        {
            let mut trouble = Trouble::of(error)?;
            trouble.problem = format!("the metadata of {key}: {}", trouble.problem);
            troubles.insert(trouble.object.clone(), trouble);
        }
        if !troubles.is_empty() {
            wrong.push((key.clone(), troubles));
        }
    }
    Ok(wrong)
}

fn judge_pieces(survey: &Survey, pieces: &[Piece], troubles: &mut Troubles) -> Result<()> {
    for piece in pieces {
        if let Piece::Chunk { id, length, .. } = piece
            && let Some(trouble) = survey.judge_chunk(id, *length)?
        {
            troubles.entry(trouble.object.clone()).or_insert(trouble);
        }
    }
    Ok(())
}
