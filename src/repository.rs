//! A repository, opened: owns the parts that the operations work on, and names none of them.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::blobs::{BlobReader, NodeMemory, Parts};
use crate::chunker::{Chunker, ChunkerParameters};
use crate::clock::Surroundings;
use crate::config::{CONFIG_MAX, Config};
use crate::cpu;
use crate::crypto::{Keyring, Secret};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::index::Index;
use crate::layout::{self, Name};
use crate::registration::{WriterMode, test_semantics};
use crate::slot::{SLOT_MAX, Slot};
use crate::snapshot::{Snapshot, Timelines};
use crate::store::{Created, Intent, Listed, Location, PutAside, Store};
use crate::tree::{Splitter, TreeParameters};

/// Key slots read at a time.
const CONCURRENCY: usize = 8;

/// Bytes of tree nodes that are kept in memory unless asked otherwise.
const NODE_MEMORY: u64 = 32 << 20;

/// How a repository is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenOptions {
    /// A local folder where index segments are kept, sealed as they are stored; may be shared by repositories.
    ///
    /// Without one they are held in memory by whatever writes or checks.
    pub cache: Option<PathBuf>,
    /// Whether the store must be fit for several writers.
    pub mode: WriterMode,
    /// How many bytes of tree nodes to keep in memory, so that changes to the same records read nothing; 32 MiB.
    pub node_memory: u64,
    /// The clock and the source of randomness.
    pub surroundings: Surroundings,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            cache: None,
            mode: WriterMode::default(),
            node_memory: NODE_MEMORY,
            surroundings: Surroundings::default(),
        }
    }
}

impl OpenOptions {
    /// Keeps index segments in `folder`.
    #[must_use]
    pub fn with_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Accepts a store that lets a name be created twice: the caller sees to it that there is one writer at a time.
    #[must_use]
    pub fn with_single_writer(mut self) -> Self {
        self.mode = WriterMode::Single;
        self
    }

    /// Keeps up to this many bytes of tree nodes in memory.
    #[must_use]
    pub fn with_node_memory(mut self, bytes: u64) -> Self {
        self.node_memory = bytes;
        self
    }

    /// Takes time and randomness from elsewhere, say in a simulation.
    #[must_use]
    pub fn with_surroundings(mut self, surroundings: Surroundings) -> Self {
        self.surroundings = surroundings;
        self
    }
}

/// How a repository is created.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Chunk sizes.
    pub chunker: ChunkerParameters,
    /// What the first key slot is called; readable by anyone who can read the store.
    pub label: String,
    /// How the new repository is then opened.
    pub open: OpenOptions,
}

impl CreateOptions {
    /// Cuts files to chunks of these sizes.
    #[must_use]
    pub fn with_chunker(mut self, chunker: ChunkerParameters) -> Self {
        self.chunker = chunker;
        self
    }

    /// Calls the first key slot by a name.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Opens the new repository this way.
    #[must_use]
    pub fn with_open(mut self, open: OpenOptions) -> Self {
        self.open = open;
        self
    }
}

/// An opened repository; cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?; std::fs::write(folder.path().join("note.txt"), "buy milk")?;
/// # let (repository, notes, restored) = (folder.path().join("repo"), folder.path().join("note.txt"), folder.path().join("out"));
/// use std::sync::Arc;
/// use backstop::{BackupOptions, CreateOptions, NoProgress, Repository, RestoreOptions, Secret};
///
/// let repository = Repository::create(repository, &Secret::key([7; 32]), CreateOptions::default()).await?;
/// let report = repository.backup(&[notes], &BackupOptions::default(), Arc::new(NoProgress)).await?;
/// let snapshot = report.snapshot.ok_or("a dry run makes no snapshot")?;
/// repository.restore(&snapshot, None, &restored, &RestoreOptions::default(), Arc::new(NoProgress)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    parts: Parts,
    config: Config,
    slot: ObjectId,
    mode: WriterMode,
    reader: Arc<BlobReader>,
    chunker: Arc<Chunker>,
    splitter: Splitter,
    timelines: Timelines,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("id", &self.id()).field("store", &self.store().description()).finish()
    }
}

impl Repository {
    /// Creates a repository that opens with `secret`.
    ///
    /// # Errors
    /// [`Error::Conflict`] where there is one already; [`Error::UnsafeStore`] on a store that lets a name be
    /// created twice, unless single-writer mode is asked for; [`Error::Unsupported`] for a cloud store whose
    /// cargo feature is off.
    pub async fn create(at: impl Into<Location>, secret: &Secret, options: CreateOptions) -> Result<Self> {
        options.chunker.validate("chunker")?;
        let store = Store::connect(&at.into(), Intent::Create)?;
        match store.length(layout::CONFIG).await {
            Ok(_) => return Err(exists(&store)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let surroundings = options.open.surroundings.clone();
        let keyring = Arc::new(Keyring::generate(&surroundings));
        let config = Config {
            repository: RepositoryId::new(surroundings.random()),
            created: surroundings.clock.now(),
            chunker: options.chunker,
            tree: TreeParameters::default(),
        };

        let (secret, id, label) = (secret.clone(), config.repository, options.label.clone());
        let (wrapping, for_slot) = (Arc::clone(&keyring), surroundings.clone());
        let slot = cpu::block(move || Slot::wrap(&wrapping, &secret, id, &label, &for_slot)).await?;
        let (slot_id, slot) = slot.to_object();
        store.create(&Name::Key(slot_id).to_string(), slot.into()).await?;

        let repository = Self::assemble(store, keyring, config, slot_id, options.open);
        match repository.publish_config().await {
            Ok(()) => Ok(repository),
            Err(Unpublished { error, absent }) => {
                if absent {
                    // Nothing refers to the slot, and it opens nothing.
                    drop(repository.store().delete(&Name::Key(slot_id).to_string()).await);
                }
                Err(error)
            }
        }
    }

    /// Creates the config, and makes sure that the store would refuse to create it again.
    async fn publish_config(&self) -> Result<(), Unpublished> {
        let store = self.store();
        let bytes = Bytes::from(self.0.config.seal(self.keyring()));
        match store.create(layout::CONFIG, bytes.clone()).await {
            Ok(Created::Ours) => {}
            Ok(Created::Theirs) => return Err(Unpublished { error: exists(store), absent: true }),
            // It may have landed, or land yet.
            Err(error) => return Err(Unpublished { error, absent: false }),
        }
        if self.0.mode == WriterMode::Shared
            && let Err(error) = test_semantics(&self.0.parts, layout::CONFIG, bytes).await
        {
            let absent = store.delete(layout::CONFIG).await.is_ok();
            return Err(Unpublished { error, absent });
        }
        Ok(())
    }

    /// Opens a repository with any of its secrets.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none; [`Error::WrongSecret`]; [`Error::Unsupported`] for a newer format.
    pub async fn open(at: impl Into<Location>, secret: &Secret, options: OpenOptions) -> Result<Self> {
        let store = Store::connect(&at.into(), Intent::Open)?;
        let (bytes, listed) = futures::join!(store.get(layout::CONFIG, CONFIG_MAX), store.list(layout::KEYS));
        let bytes = match bytes {
            Err(error) if error.is_not_found() => {
                return Err(Error::not_found(format!("a repository at {}", store.description())));
            }
            other => other?,
        };
        let config = Config::parse(&bytes)?;
        let (slots, damage) = read_slots(&store, listed?).await?;
        let (tried, secret) = (slots.len(), secret.clone());
        let opened = cpu::block(move || open_slots(slots, &secret, &bytes)).await?;
        let (keyring, slot) = opened.ok_or_else(|| no_slot_opens(tried, damage))?;
        Ok(Self::assemble(store, Arc::new(keyring), config, slot, options))
    }

    fn assemble(store: Store, keyring: Arc<Keyring>, config: Config, slot: ObjectId, options: OpenOptions) -> Self {
        let OpenOptions { cache, mode, node_memory, surroundings } = options;
        let cache = cache.map(|folder| folder.join(config.repository.to_string()));
        let index = Arc::new(Index::new(store.clone(), Arc::clone(&keyring), cache));
        let memory = Arc::new(NodeMemory::new(node_memory));
        let (index_of, memory_of) = (Arc::clone(&index), Arc::clone(&memory));
        let reader = Arc::new(BlobReader::new(store.clone(), Arc::clone(&keyring), index_of, memory_of));
        let chunker = Arc::new(Chunker::new(config.chunker, keyring.gear_table()));
        let splitter = Splitter::new(config.tree.clone(), keyring.tree_cuts());
        let timelines = Timelines::new(store.clone(), Arc::clone(&keyring));
        let parts = Parts { store, keyring, index, memory, surroundings };
        Self(Arc::new(Inner { parts, config, slot, mode, reader, chunker, splitter, timelines }))
    }

    /// The repository's random identity.
    pub fn id(&self) -> RepositoryId {
        self.0.config.repository
    }

    /// The sizes that files are cut to.
    pub fn chunker_parameters(&self) -> ChunkerParameters {
        self.0.config.chunker
    }

    /// Whether it was opened with a secret that lets back up and restore, and neither forget nor delete.
    pub fn is_append_only(&self) -> bool {
        self.keyring().is_append_only()
    }

    /// Objects that couldn't be used and that operations of this handle and its clones could do without: damaged, made up
    /// by whoever can write to the store, or of a newer build. Whatever was restored or listed in spite of them is sound,
    /// but something newer may be hidden behind them: run a check.
    pub fn put_aside(&self) -> Vec<PutAside> {
        self.store().aside()
    }

    /// What a writer of blobs needs.
    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.parts.store
    }

    pub(crate) fn keyring(&self) -> &Arc<Keyring> {
        &self.0.parts.keyring
    }

    pub(crate) fn index(&self) -> &Arc<Index> {
        &self.0.parts.index
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.0.parts.surroundings
    }

    /// The slot that the repository was opened with.
    pub(crate) fn slot(&self) -> ObjectId {
        self.0.slot
    }

    pub(crate) fn mode(&self) -> WriterMode {
        self.0.mode
    }

    pub(crate) fn reader(&self) -> &Arc<BlobReader> {
        &self.0.reader
    }

    /// The reader, told what a snapshot's record says of where its blobs are.
    pub(crate) fn reader_of(&self, snapshot: &Snapshot) -> &Arc<BlobReader> {
        self.0.reader.learn(&snapshot.root, &snapshot.stored);
        &self.0.reader
    }

    pub(crate) fn chunker(&self) -> &Arc<Chunker> {
        &self.0.chunker
    }

    pub(crate) fn splitter(&self) -> &Splitter {
        &self.0.splitter
    }

    pub(crate) fn timelines(&self) -> &Timelines {
        &self.0.timelines
    }

    /// All key slots; one that is damaged is left out with a warning.
    pub(crate) async fn slots(&self) -> Result<Vec<(ObjectId, Slot)>> {
        let listed = self.store().list(layout::KEYS).await?;
        read_slots(self.store(), listed).await.map(|(slots, _)| slots)
    }

    /// What the config object says.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }
}

/// Why a config wasn't published, and whether it is certain that it isn't there: as long as it may be, its slot stays,
/// or nothing could ever open it.
struct Unpublished {
    error: Error,
    absent: bool,
}

fn exists(store: &Store) -> Error {
    Error::conflict(
        format!("a repository at {}", store.description()),
        "there is one already; open it, or choose another place",
    )
}

/// Why no slot opened, of `tried` sound ones: the secret need not be wrong if its slot is damaged.
fn no_slot_opens(tried: usize, damage: Option<Error>) -> Error {
    match damage {
        Some(Error::Corrupt { object, reason }) => {
            Error::corrupt(object, format!("{reason}, and the secret opens none of the other {tried} key slots"))
        }
        Some(damage) => damage,
        None if tried == 0 => Error::corrupt(layout::KEYS, "no key slot is left"),
        None => Error::WrongSecret { slots: tried },
    }
}

/// Reads the key slots, and says what is wrong with one that can't be used.
///
/// A damaged one must not keep the others from opening the repository.
async fn read_slots(store: &Store, listed: Vec<Listed>) -> Result<(Vec<(ObjectId, Slot)>, Option<Error>)> {
    let mut ids: Vec<_> = listed.iter().filter_map(|listed| key_id(&listed.name)).collect();
    ids.sort_unstable();
    let read = |id: ObjectId| async move {
        let name = Name::Key(id).to_string();
        match store.get(&name, SLOT_MAX).await.and_then(|bytes| Slot::parse(&bytes, &id)) {
            Ok(slot) => Ok(Ok((id, slot))),
            Err(error @ Error::Store { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(name, %error, "a key slot can't be used");
                Ok(Err(error))
            }
        }
    };
    let slots: Vec<_> = futures::stream::iter(ids).map(read).buffered(CONCURRENCY).try_collect().await?;
    let (mut sound, mut damage) = (Vec::new(), None);
    for slot in slots {
        match slot {
            Ok(slot) => sound.push(slot),
            Err(error) => damage = Some(error),
        }
    }
    Ok((sound, damage))
}

fn key_id(name: &str) -> Option<ObjectId> {
    match Name::parse(name) {
        Some(Name::Key(id)) => Some(id),
        _ => None,
    }
}

/// Tries the secret on each slot, until one opens that vouches for the config.
fn open_slots(slots: Vec<(ObjectId, Slot)>, secret: &Secret, config: &[u8]) -> Result<Option<(Keyring, ObjectId)>> {
    let mut failure = None;
    for (id, slot) in slots {
        match slot.unwrap(secret, &id) {
            Ok(Some(keyring)) if Config::is_authentic(config, &keyring) => return Ok(Some((keyring, id))),
            Ok(Some(_)) => {
                failure =
                    Some(Error::corrupt(layout::CONFIG, "it was not written by a holder of this repository's keys"));
            }
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}
