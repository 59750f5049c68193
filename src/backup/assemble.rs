//! Puts prepared entries together to a tree, and hands blobs to the writer.

use std::sync::Arc;

use crate::backup::prepare::Item;
use crate::blobs::{BlobWriter, NodeBuffer, Treatment};
use crate::cpu;
use crate::crypto::Keyring;
use crate::draft::FreshNodes;
use crate::error::Result;
use crate::id::BlobId;
use crate::pack::BlockKind;
use crate::repository::Repository;
use crate::snapshot::Failure;
use crate::tree::{Edit, Key, Root, Splitter, TreeBuilder, edit};

/// Edits applied at a time.
const EDITS: usize = 16 << 10;

/// The tree so far.
enum Stage {
    /// There is no parent: the tree is built from nothing.
    Build(TreeBuilder),
    /// The parent's tree, with the edits so far applied.
    Edit { root: BlobId, entries: Option<u64> },
}

/// Collects edits in the order of their keys and applies them in portions.
pub(super) struct Assembly {
    keyring: Arc<Keyring>,
    splitter: Splitter,
    overlay: FreshNodes,
    stage: Option<Stage>,
    edits: Vec<(Key, Edit)>,
    failures: Vec<Failure>,
}

impl Assembly {
    /// Starts from the tree under `parent`, or from nothing.
    pub(super) fn new(repository: &Repository, parent: Option<BlobId>) -> Self {
        let splitter = repository.splitter().clone();
        let stage = match parent {
            Some(root) => Stage::Edit { root, entries: None },
            None => Stage::Build(TreeBuilder::new(splitter.clone())),
        };
        Self {
            keyring: Arc::clone(repository.keyring()),
            splitter,
            overlay: FreshNodes::new(repository.reader()),
            stage: Some(stage),
            edits: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Takes items in order.
    pub(super) async fn take(&mut self, items: Vec<Item>, writer: &mut BlobWriter) -> Result<()> {
        for item in items {
            match item {
                Item::Cut(cut) => cut.store(writer).await?,
                Item::Entry(key, entry) => self.edits.push((key, Edit::Put(*entry))),
                Item::Removed(key) => self.edits.push((key, Edit::Remove)),
                Item::Failed(failure) => self.failures.push(failure),
            }
        }
        if self.edits.len() >= EDITS { self.apply(writer).await } else { Ok(()) }
    }

    /// The root of the whole tree, whose nodes have been handed to the writer, and what failed.
    pub(super) async fn finish(mut self, writer: &mut BlobWriter) -> Result<(Root, Vec<Failure>)> {
        if !self.edits.is_empty() || matches!(self.stage, Some(Stage::Edit { .. })) {
            self.apply(writer).await?;
        }
        let mut nodes = NodeBuffer::new(Arc::clone(&self.keyring));
        let root = match self.stage.take() {
            Some(Stage::Build(builder)) => {
                let finished = cpu::start(move || builder.finish(&mut nodes).map(|root| (root, nodes))).await?;
                nodes = finished.1;
                finished.0
            }
            Some(Stage::Edit { root, entries }) => Root { id: root, entries: entries.unwrap_or_default() },
            None => return Err(crate::error::Error::worker("the tree was lost")),
        };
        self.store(nodes, writer).await?;
        Ok((root, self.failures))
    }

    async fn apply(&mut self, writer: &mut BlobWriter) -> Result<()> {
        let edits = std::mem::take(&mut self.edits);
        let nodes = NodeBuffer::new(Arc::clone(&self.keyring));
        let (stage, nodes) = match self.stage.take() {
            Some(Stage::Build(builder)) => cpu::start(move || build(builder, edits, nodes)).await?,
            Some(Stage::Edit { root, .. }) => self.edit(root, edits, nodes).await?,
            None => return Err(crate::error::Error::worker("the tree was lost")),
        };
        self.stage = Some(stage);
        self.store(nodes, writer).await
    }

    /// Applies edits on a thread of its own.
    async fn edit(&self, root: BlobId, edits: Vec<(Key, Edit)>, mut nodes: NodeBuffer) -> Result<(Stage, NodeBuffer)> {
        let (overlay, splitter) = (self.overlay.clone(), self.splitter.clone());
        cpu::drive(async move {
            let root = edit(&overlay, &mut nodes, &splitter, &root, edits).await?.root;
            Ok((Stage::Edit { root: root.id, entries: Some(root.entries) }, nodes))
        })
        .await
    }

    /// Hands nodes to the writer, and keeps them at hand for further edits.
    async fn store(&mut self, mut nodes: NodeBuffer, writer: &mut BlobWriter) -> Result<()> {
        let keep = matches!(self.stage, Some(Stage::Edit { .. }));
        for (id, node) in nodes.take() {
            if keep {
                self.overlay.insert(id, node.clone());
            }
            writer.add(BlockKind::Nodes, id, node, Treatment::Compress).await?;
        }
        if self.overlay.is_large() && !writer.is_dry_run() {
            writer.make_readable().await?;
            self.overlay.clear();
        }
        Ok(())
    }
}

fn build(mut builder: TreeBuilder, edits: Vec<(Key, Edit)>, mut nodes: NodeBuffer) -> Result<(Stage, NodeBuffer)> {
    for (key, edit) in edits {
        if let Edit::Put(entry) = edit {
            builder.push(&key, &entry, &mut nodes)?;
        }
    }
    Ok((Stage::Build(builder), nodes))
}
