//! What can't be restored even when all is done that can be.
//!
//! One walk over all trees, each distinct node once, tells whether anything is
//! lost. If so a second one says which paths of which snapshots.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::pack::BlockKind;
use crate::repair::Steps;
use crate::repair::options::SnapshotLoss;
use crate::repair::records::Root;
use crate::repair::view::{Nodes, View};
use crate::snapshot::Failure;
use crate::tree::{
    Entry, Key, Payload, Piece, SequenceRoot, SequenceVisitor, Span, Visitor, visit_nodes, visit_sequence,
};

/// Nodes read at a time.
const READ_AHEAD: usize = 16;

impl View {
    /// What can't be restored, of each snapshot that lacks something.
    pub(super) async fn losses(view: &Arc<Self>, roots: &[Root], steps: &mut Steps) -> Result<Vec<SnapshotLoss>> {
        view.learn_roots(roots);
        let nodes = Nodes(Arc::clone(view));
        let (mut seen, mut lost, mut sequences) = (HashMap::new(), false, Sequences::new());
        for root in roots {
            let (seen, sequences, unknown) = (&mut seen, &mut sequences, Vec::new());
            let mut walk = First { nodes: &nodes, seen, sequences, lost: false, unknown };
            visit_nodes(&nodes, &root.root, READ_AHEAD, &mut walk).await?;
            for (what, error) in walk.unknown {
                steps.leave(format!("{}#{}:{what}", root.series, root.name.number), error);
            }
            lost |= walk.lost;
        }
        if !lost || steps.1 {
            return Ok(Vec::new());
        }
        let mut losses = Vec::new();
        for root in roots {
            let sequences = &mut sequences;
            let mut walk = Second { nodes: &nodes, sound: &seen, sequences, paths: Vec::new(), spans: Vec::new() };
            visit_nodes(&nodes, &root.root, READ_AHEAD, &mut walk).await?;
            if !walk.paths.is_empty() {
                let (series, number) = (root.series.clone(), root.name.number);
                let (paths, spans) = (walk.paths, walk.spans);
                losses.push(SnapshotLoss { series, number, forgotten: !root.counts, paths, spans });
            }
        }
        Ok(losses)
    }
}

/// Why sequences can't be restored, by their roots; nothing for those that can. Many entries may have the same.
pub(super) type Sequences = HashMap<SequenceRoot, Option<String>>;

/// Why an entry can't be restored; nothing if it can.
async fn lost_of(nodes: &Nodes, entry: &Entry, sequences: &mut Sequences) -> Result<Option<String>> {
    for payload in [&entry.content, &entry.metadata] {
        let lost = match payload {
            Payload::Inline(_) => None,
            Payload::Pieces(pieces) => lost_piece(nodes, pieces).await?,
            Payload::Sequence(root) => match sequences.get(root) {
                Some(lost) => lost.clone(),
                None => {
                    let lost = lost_in_sequence(nodes, root).await?;
                    sequences.insert(*root, lost.clone());
                    lost
                }
            },
        };
        if lost.is_some() {
            return Ok(lost);
        }
    }
    Ok(None)
}

async fn lost_piece(nodes: &Nodes, pieces: &[Piece]) -> Result<Option<String>> {
    for piece in pieces {
        if let Piece::Chunk { id, length, .. } = piece
            && !nodes.0.has_chunk(id, *length)?
            && nodes.0.look_there(BlockKind::Data, id).await?.is_none()
        {
            return Ok(Some(format!("blob {id} is lost")));
        }
    }
    Ok(None)
}

async fn lost_in_sequence(nodes: &Nodes, root: &SequenceRoot) -> Result<Option<String>> {
    let mut walk = InSequence { nodes, lost: None };
    visit_sequence(nodes, root, READ_AHEAD, &mut walk).await?;
    Ok(walk.lost)
}

struct InSequence<'a> {
    nodes: &'a Nodes,
    lost: Option<String>,
}

impl SequenceVisitor for InSequence<'_> {
    fn enter(&mut self, _: &BlobId) -> bool {
        self.lost.is_none()
    }

    async fn pieces(&mut self, pieces: Vec<Piece>) -> Result<()> {
        if let Some(lost) = lost_piece(self.nodes, &pieces).await? {
            self.lost = Some(lost);
        }
        Ok(())
    }

    fn failed(&mut self, id: &BlobId, error: Error) -> Result<()> {
        self.lost = Some(lost_node(id, error)?);
        Ok(())
    }
}

/// What is said of a node that can't be had; an error that says nothing of stored objects is returned.
pub(super) fn lost_node(id: &BlobId, error: Error) -> Result<String> {
    match error {
        Error::Store { .. } | Error::Worker { .. } | Error::File { .. } | Error::Unsupported { .. } => Err(error),
        _ => Ok(format!("node {id} is lost")),
    }
}

/// Each distinct node once.
struct First<'a> {
    nodes: &'a Nodes,
    /// The nodes that were seen; true for a leaf in which nothing is lost.
    seen: &'a mut HashMap<BlobId, bool>,
    sequences: &'a mut Sequences,
    lost: bool,
    /// What needs a newer version: paths, or ranges of them.
    unknown: Vec<(String, Error)>,
}

impl Visitor for First<'_> {
    fn enter(&mut self, id: &BlobId) -> bool {
        match self.seen.get(id) {
            Some(_) => false,
            None => {
                self.seen.insert(*id, false);
                true
            }
        }
    }

    async fn leaf(&mut self, id: &BlobId, entries: Vec<(Key, Entry)>) -> Result<()> {
        let mut sound = true;
        for (key, entry) in &entries {
            if let Err(error) = entry.require_known(key) {
                self.unknown.push((key.to_string(), error));
            }
            sound &= lost_of(self.nodes, entry, self.sequences).await?.is_none();
        }
        self.lost |= !sound;
        self.seen.insert(*id, sound);
        Ok(())
    }

    fn failed(&mut self, id: &BlobId, span: &Span, error: Error) -> Result<()> {
        if error.is_unsupported() {
            self.unknown.push((span.to_string(), error));
            return Ok(());
        }
        lost_node(id, error)?;
        self.lost = true;
        Ok(())
    }
}

/// All nodes of one snapshot but the leaves that are known to be sound.
struct Second<'a> {
    nodes: &'a Nodes,
    sound: &'a HashMap<BlobId, bool>,
    sequences: &'a mut Sequences,
    paths: Vec<Failure>,
    spans: Vec<Span>,
}

impl Visitor for Second<'_> {
    fn enter(&mut self, id: &BlobId) -> bool {
        !self.sound.get(id).copied().unwrap_or(false)
    }

    async fn leaf(&mut self, _: &BlobId, entries: Vec<(Key, Entry)>) -> Result<()> {
        for (key, entry) in &entries {
            if let Some(reason) = lost_of(self.nodes, entry, self.sequences).await? {
                self.paths.push(Failure { path: key.to_string(), reason });
            }
        }
        Ok(())
    }

    fn failed(&mut self, id: &BlobId, span: &Span, error: Error) -> Result<()> {
        self.paths.push(Failure { path: span.to_string(), reason: lost_node(id, error)? });
        self.spans.push(span.clone());
        Ok(())
    }
}
