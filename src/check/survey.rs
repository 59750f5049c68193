//! Where blobs are, and whether what lies there can be relied on.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::blobs::{BlobReader, NodeMemory};
use crate::check::findings::{FindingKind, Trouble};
use crate::check::packs::{PackState, Packs};
use crate::check::segments::Segments;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{Location, Segment};
use crate::layout::Name;
use crate::pack::BlockKind;
use crate::repository::Repository;
use crate::tree::ReadNode;

/// What is said of a pack that snapshots need and the index lacks.
const NOT_INDEXED: &str = "no index segment says where its blobs are, though snapshots need them";

/// What records, index and packs say together.
pub(super) struct Survey {
    /// Reads with a cache of its own, so that what was read before the check doesn't count.
    reader: BlobReader,
    segments: Arc<Segments>,
    spare: Vec<Segment>,
    packs: HashMap<ObjectId, PackState>,
    /// Packs that snapshots' records name, so that the index needn't.
    named: HashSet<ObjectId>,
    /// Packs out of `spare` that were needed.
    needed: Mutex<BTreeSet<ObjectId>>,
}

impl Survey {
    pub(super) fn new(
        repository: &Repository,
        segments: Arc<Segments>,
        packs: Packs,
        named: HashSet<ObjectId>,
    ) -> Self {
        let (store, keyring) = (repository.store().clone(), Arc::clone(repository.keyring()));
        let memory = Arc::new(NodeMemory::new(0));
        let reader = BlobReader::new(store, keyring, Arc::clone(repository.index()), memory);
        Self { reader, segments, spare: packs.spare, packs: packs.states, named, needed: Mutex::default() }
    }

    /// Whether a snapshot's record names a pack.
    pub(super) fn is_named(&self, pack: &ObjectId) -> bool {
        self.named.contains(pack)
    }

    /// What is wrong with a chunk that should be `length` bytes long, if it can be had nowhere.
    pub(super) fn judge_chunk(&self, id: &BlobId, length: u32) -> Result<Option<Trouble>> {
        let mut trouble = None;
        for segment in &self.segments.list {
            if let Some(location) = segment.find_local(id)? {
                match self.trouble_at(id, length, &location) {
                    None => return Ok(None),
                    found => trouble = found,
                }
            }
        }
        for segment in &self.spare {
            if let Some(location) = segment.find_local(id)?
                && self.trouble_at(id, length, &location).is_none()
            {
                let pack = location.pack.id;
                let not_indexed = || Trouble::new(FindingKind::Undescribed, Name::Pack(pack), NOT_INDEXED);
                return Ok((!self.is_named(&pack)).then(not_indexed));
            }
        }
        Ok(trouble.or_else(|| {
            Some(Trouble::new(FindingKind::Missing, format!("blob {id}"), "no index segment says where it is"))
        }))
    }

    /// What keeps a chunk from being read at one place; where it is the whole pack, the pack's own finding says why.
    fn trouble_at(&self, id: &BlobId, length: u32, location: &Location) -> Option<Trouble> {
        let (kind, problem) = match self.packs.get(&location.pack.id) {
            None => (FindingKind::Missing, String::new()),
            Some(PackState::Unsound) => (FindingKind::Inconsistent, String::new()),
            Some(PackState::SoundBut(bad)) if bad.contains(id) => (FindingKind::Inconsistent, String::new()),
            Some(_) if location.place.kind != BlockKind::Data => {
                (FindingKind::Inconsistent, format!("blob {id} should be a chunk"))
            }
            Some(_) if location.length != length => {
                (FindingKind::Inconsistent, format!("blob {id} has another length than its file says"))
            }
            Some(_) => return None,
        };
        Some(Trouble::new(kind, Name::Pack(location.pack.id), problem))
    }

    /// The packs that nodes had to be read from although the index lacks them.
    pub(super) fn needed(&self) -> Vec<Trouble> {
        let needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.iter().map(|pack| Trouble::new(FindingKind::Undescribed, Name::Pack(*pack), NOT_INDEXED)).collect()
    }

    async fn read_node(&self, id: &BlobId, spare: bool) -> Result<Bytes> {
        let mut failure = None;
        for segment in &self.segments.list {
            if let Some(location) = segment.find_local(id)? {
                match self.reader.read_at(BlockKind::Nodes, id, &location).await {
                    Ok(node) => return Ok(node),
                    Err(error) => failure = Some(Error::graver(failure, error)),
                }
            }
        }
        for segment in &self.spare {
            let Some(location) = segment.find_local(id)? else { continue };
            let named = self.is_named(&location.pack.id);
            if !spare && !named {
                return Err(Error::corrupt(Name::Pack(location.pack.id), NOT_INDEXED));
            }
            match self.reader.read_at(BlockKind::Nodes, id, &location).await {
                Ok(node) => {
                    if !named {
                        self.needed.lock().unwrap_or_else(PoisonError::into_inner).insert(location.pack.id);
                    }
                    return Ok(node);
                }
                // The pack has a finding of its own.
                Err(error) if error.tells_of_objects() => {}
                Err(error) => failure = Some(Error::graver(failure, error)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::not_found(format!("blob {id}"))))
    }
}

/// Reads nodes as the survey found them.
#[derive(Clone)]
pub(super) struct Nodes {
    pub(super) survey: Arc<Survey>,
    /// Whether packs that the index lacks are read too.
    pub(super) spare: bool,
}

impl ReadNode for Nodes {
    async fn read_node(&self, id: &BlobId) -> Result<Bytes> {
        self.survey.read_node(id, self.spare).await
    }
}
