//! Where each blob will be once all that can be done is done; nothing is changed for it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::blobs::{BlobReader, NodeMemory};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{Location, PackRow, Segment};
use crate::layout::Name;
use crate::object::in_part;
use crate::pack::{BLOCKS_START, BlockKind, Hint, parse_header};
use crate::repair::records::Root;
use crate::repository::Repository;
use crate::tree::ReadNode;

/// What becomes of a pack that is there, or in the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is whole here.
    Whole,
    /// It is missing or damaged here, and whole in the copy.
    Copied,
    /// It can't be read whole anywhere.
    Damaged,
}

/// Why a table lists blobs that no segment here tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// They are in packs that records name.
    Named,
    /// They are in packs that nothing names.
    Untold,
    /// They are in damaged packs, and can be read.
    Salvaged,
}

/// Where blobs will be.
pub(super) struct View {
    pub(super) own: Repository,
    pub(super) other: Option<Repository>,
    /// They read with caches of their own, so that what was read before doesn't count.
    own_reader: BlobReader,
    other_reader: Option<BlobReader>,
    pub(super) segments: Vec<Arc<Segment>>,
    /// What segments, by their places in the list, say of packs and isn't so.
    pub(super) contradicted: HashSet<(usize, ObjectId)>,
    pub(super) states: HashMap<ObjectId, State>,
    pub(super) lengths: HashMap<ObjectId, u64>,
    pub(super) tables: Vec<(Table, Segment)>,
    found: Mutex<Found>,
}

/// What a walk over all trees found.
#[derive(Debug, Default)]
struct Found {
    /// Packs that nothing tells of and that are needed.
    untold: BTreeSet<ObjectId>,
    /// Blobs that are in no pack here and that the copy has.
    there: BTreeMap<BlobId, BlockKind>,
    /// Nodes that only hints lead to: in damaged packs of which neither footer nor segment tells.
    hinted: BTreeMap<BlobId, Location>,
}

/// What a walk over all trees found, to be done.
pub(super) struct Needed {
    pub(super) untold: BTreeSet<ObjectId>,
    pub(super) there: BTreeMap<BlobId, BlockKind>,
    pub(super) hinted: BTreeMap<BlobId, Location>,
}

impl View {
    pub(super) fn new(own: &Repository, other: Option<&Repository>) -> Self {
        Self {
            own_reader: reader(own),
            other_reader: other.map(reader),
            own: own.clone(),
            other: other.cloned(),
            segments: Vec::new(),
            contradicted: HashSet::new(),
            states: HashMap::new(),
            lengths: HashMap::new(),
            tables: Vec::new(),
            found: Mutex::default(),
        }
    }

    /// Whether all of a pack will be there.
    pub(super) fn is_whole(&self, pack: &ObjectId) -> bool {
        matches!(self.states.get(pack), Some(State::Whole | State::Copied))
    }

    /// Where a blob is, in a pack that will be whole.
    pub(super) fn find_whole(&self, id: &BlobId) -> Result<Option<(Location, Option<Table>)>> {
        for (at, segment) in self.segments.iter().enumerate() {
            if let Some(location) = segment.find_local(id)?
                && self.is_whole(&location.pack.id)
                && !self.contradicted.contains(&(at, location.pack.id))
            {
                return Ok(Some((location, None)));
            }
        }
        self.find_in_tables(id, |table| table != Table::Salvaged)
    }

    /// Where a blob is, be it in a damaged pack.
    fn find(&self, id: &BlobId) -> Result<Option<(Location, Option<Table>)>> {
        match self.find_whole(id)? {
            None => self.find_in_tables(id, |table| table == Table::Salvaged),
            found => Ok(found),
        }
    }

    fn find_in_tables(&self, id: &BlobId, wanted: impl Fn(Table) -> bool) -> Result<Option<(Location, Option<Table>)>> {
        for (table, segment) in self.tables.iter().filter(|(table, _)| wanted(*table)) {
            if let Some(location) = segment.find_local(id)? {
                return Ok(Some((location, Some(*table))));
            }
        }
        Ok(None)
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self, location: &Location, table: Option<Table>) {
        if table == Some(Table::Untold) {
            self.found().untold.insert(location.pack.id);
        }
    }

    /// Whether a chunk of this length will be there.
    pub(super) fn has_chunk(&self, id: &BlobId, length: u32) -> Result<bool> {
        match self.find(id)? {
            Some((location, table)) if location.place.kind == BlockKind::Data && location.length == length => {
                self.took(&location, table);
                Ok(true)
            }
            _ => Ok(self.found().there.contains_key(id)),
        }
    }

    /// Looks for a chunk in the copy.
    pub(super) async fn look_there(&self, kind: BlockKind, id: &BlobId) -> Result<Option<Bytes>> {
        let Some(other) = &self.other_reader else { return Ok(None) };
        match other.read(kind, id).await {
            Ok(blob) => {
                self.found().there.insert(*id, kind);
                Ok(Some(blob))
            }
            Err(error @ Error::Store { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Takes note of where snapshots' records say that the roots of their trees lie.
    pub(super) fn learn_roots(&self, roots: &[Root]) {
        for root in roots {
            if let Some(hint) = root.root_at {
                self.own_reader.memory().keep_hint(root.root, hint);
            }
        }
    }

    /// Reads a node of a damaged pack from where a record or its parent says that it lies.
    async fn read_hinted(&self, id: &BlobId) -> Result<Option<Bytes>> {
        let Some(hint) = self.own_reader.memory().hint(id) else { return Ok(None) };
        if self.states.get(&hint.pack) != Some(&State::Damaged) {
            return Ok(None);
        }
        let Hint { pack, place, at, length } = hint;
        let name = Name::Pack(pack).to_string();
        let read = async {
            place.validate(&name)?;
            let head = self.own.store().get_range(&name, 0..BLOCKS_START as u64).await?;
            let (header, _) = parse_header(&head, &name).map_err(in_part)?;
            let row = PackRow { id: pack, generation: header.generation, salt: header.salt };
            let location = Location { pack: row, place, at, length };
            Ok((location, self.own_reader.read_at(BlockKind::Nodes, id, &location).await?))
        };
        match read.await {
            Ok((location, node)) => {
                self.found().hinted.insert(*id, location);
                Ok(Some(node))
            }
            Err(error @ Error::Store { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// What the walk over all trees found.
    pub(super) fn take_found(&self) -> Needed {
        let Found { untold, there, hinted } = std::mem::take(&mut *self.found());
        Needed { untold, there, hinted }
    }
}

fn reader(repository: &Repository) -> BlobReader {
    let (store, keyring) = (repository.store().clone(), Arc::clone(repository.keyring()));
    BlobReader::new(store, keyring, Arc::clone(repository.index()), Arc::new(NodeMemory::new(0)))
}

/// Reads nodes from where they will be.
#[derive(Clone)]
pub(super) struct Nodes(pub(super) Arc<View>);

impl ReadNode for Nodes {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        let view = &self.0;
        let mut failure = None;
        if let Some((location, table)) = view.find(id)? {
            let copied = table != Some(Table::Salvaged) && view.states.get(&location.pack.id) == Some(&State::Copied);
            let reader = if copied { view.other_reader.as_ref().unwrap_or(&view.own_reader) } else { &view.own_reader };
            match reader.read_at(BlockKind::Nodes, id, &location).await {
                Ok(node) => {
                    view.took(&location, table);
                    return Ok(node);
                }
                Err(error @ Error::Store { .. }) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(node) = view.look_there(BlockKind::Nodes, id).await? {
            return Ok(node);
        }
        match view.read_hinted(id).await? {
            Some(node) => Ok(node),
            None => Err(failure.unwrap_or_else(|| Error::corrupt(format!("node {id}"), "no pack has it"))),
        }
    }
}
