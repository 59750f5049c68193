//! A repository, opened: owns the parts that the operations work on, and names none of them.

mod rotation;
mod slots;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::blobs::{BlobReader, NodeMemory, Parts};
use crate::chunker::{Chunker, ChunkerParameters};
use crate::clock::Surroundings;
use crate::codec::Extensions;
use crate::config::{CONFIG_MAX, Config, Features, Fingerprint};
use crate::cpu;
use crate::crypto::{Argon2Limit, Keyring, Secret, SlotKey};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::index::Index;
use crate::layout::{self, Name};
use crate::registration::{WriterMode, test_semantics};
use crate::repository::slots::{CONCURRENCY, OpenSlot, Trial, read_slot, remember, remembered};
use crate::roster::{self, Standing};
use crate::slot::Slot;
use crate::snapshot::{Snapshot, Timelines};
use crate::store::{Created, Intent, Listed, Location, PutAside, Store};
use crate::tree::{Splitter, TreeParameters};

/// Bytes of tree nodes that are kept in memory unless asked otherwise.
const NODE_MEMORY: u64 = 32 << 20;

/// Key slots that are looked at to list them, or to tidy up; those that count come first.
const SHOWN_MAX: usize = 1024;

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
    /// The fingerprint that the repository must have.
    pub fingerprint: Option<Fingerprint>,
    /// The most memory in KiB, and the most passes over it, that trying a passphrase on one key slot may take.
    ///
    /// 65536 and 3, which is what this library's own slots take. At most 64 slots are tried.
    pub argon2_limit: (u32, u32),
    /// The clock and the source of randomness.
    pub surroundings: Surroundings,
}

impl Default for OpenOptions {
    fn default() -> Self {
        let argon2 = Argon2Limit::default();
        Self {
            cache: None,
            mode: WriterMode::default(),
            node_memory: NODE_MEMORY,
            fingerprint: None,
            argon2_limit: (argon2.memory_kib, argon2.passes),
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

    /// Opens no repository but the one with this fingerprint, so that nobody who can write to the store can put another
    /// in its place.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// Lets trying a passphrase on one key slot take this much memory and this many passes over it, for slots that
    /// another program made dearer than this library's own.
    #[must_use]
    pub fn with_argon2_limit(mut self, memory_kib: u32, passes: u32) -> Self {
        self.argon2_limit = (memory_kib, passes);
        self
    }

    /// Takes time and randomness from elsewhere, say in a simulation.
    #[must_use]
    pub fn with_surroundings(mut self, surroundings: Surroundings) -> Self {
        self.surroundings = surroundings;
        self
    }
}

impl OpenOptions {
    fn limit(&self) -> Argon2Limit {
        let (memory_kib, passes) = self.argon2_limit;
        Argon2Limit { memory_kib, passes }
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
    config_bytes: Bytes,
    slot: ObjectId,
    /// The slot's private key, to which new key generations are sealed.
    slot_key: SlotKey,
    argon2_limit: Argon2Limit,
    mode: WriterMode,
    reader: Arc<BlobReader>,
    chunker: Arc<Chunker>,
    splitter: Splitter,
    timelines: Timelines,
    /// The rosters that were listed when all of them had been heeded last.
    rosters: Mutex<Option<Vec<Name>>>,
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
        let keyring = Keyring::generate(&surroundings);
        let id = RepositoryId::new(surroundings.random());
        let (secret, label, for_slot) = (secret.clone(), options.label.clone(), surroundings.clone());
        let (keyring, slot, private) = cpu::block(move || {
            let (slot, private) = Slot::wrap(&keyring, &secret, id, &label, &for_slot)?;
            Ok((keyring, slot, private))
        })
        .await?;
        let (slot_id, slot) = slot.to_object();
        let config = Config {
            repository: id,
            created: surroundings.clock.now(),
            administrator: *keyring.administrator_public(),
            first_slot: slot_id,
            chunker: options.chunker,
            tree: TreeParameters::default(),
            features: Features::default(),
            extensions: Extensions::default(),
        };
        let config_bytes = Bytes::from(config.seal(&keyring)?);
        store.create(&Name::Key(slot_id).to_string(), slot.into()).await?;
        if let Err(error) = require_unused(&store).await {
            drop(store.delete(&Name::Key(slot_id).to_string()).await);
            return Err(error);
        }

        let opened = OpenSlot { id: slot_id, keyring, private };
        let repository = Self::assemble(store, opened, config, config_bytes, options.open);
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
        let bytes = self.config_bytes().clone();
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
    /// [`Error::NotFound`] where there is none; [`Error::WrongSecret`]; [`Error::OtherRepository`] if its fingerprint
    /// isn't the one that was asked for; [`Error::Unsupported`] for a newer format, and for what needs a feature that
    /// this build doesn't have.
    pub async fn open(at: impl Into<Location>, secret: &Secret, options: OpenOptions) -> Result<Self> {
        let mut store = Store::connect(&at.into(), Intent::Open)?;
        let (bytes, listed) = futures::join!(store.get(layout::CONFIG, CONFIG_MAX), store.list(layout::KEYS));
        let bytes = match bytes {
            Err(error) if error.is_not_found() => {
                return Err(Error::not_found(format!("a repository at {}", store.description())));
            }
            other => other?,
        };
        let config = Config::parse(&bytes)?;
        config.require_fingerprint(options.fingerprint, store.description())?;
        if let Some(feature) = config.needed_to_write() {
            store = store.read_only(
                layout::CONFIG,
                format!("changing the repository needs {feature}; use a version that has it"),
            );
        }
        let Config { repository, administrator, first_slot, .. } = &config;
        let standing = roster::standing(&store, &listed?, *repository, administrator, *first_slot).await?;
        let trial = Trial {
            secret: secret.clone(),
            limit: options.limit(),
            config: config.clone(),
            config_bytes: bytes.clone(),
        };
        let last = remembered(options.cache.as_ref(), *repository).await;
        let opened = trial.open(&store, &standing.slots(), last).await?;
        standing.teach(&opened.keyring, &opened.id, &opened.private)?;
        if last != Some(opened.id) {
            remember(options.cache.as_ref(), *repository, opened.id).await;
        }
        Ok(Self::assemble(store, opened, config, bytes, options))
    }

    fn assemble(store: Store, opened: OpenSlot, config: Config, config_bytes: Bytes, options: OpenOptions) -> Self {
        let argon2_limit = options.limit();
        let OpenOptions { cache, mode, node_memory, surroundings, .. } = options;
        let OpenSlot { id: slot, keyring, private: slot_key } = opened;
        let keyring = Arc::new(keyring);
        let cache = cache.map(|folder| folder.join(config.repository.to_string()));
        let index = Arc::new(Index::new(store.clone(), Arc::clone(&keyring), cache));
        let memory = Arc::new(NodeMemory::new(node_memory));
        let (index_of, memory_of) = (Arc::clone(&index), Arc::clone(&memory));
        let reader = Arc::new(BlobReader::new(store.clone(), Arc::clone(&keyring), index_of, memory_of));
        let chunker = Arc::new(Chunker::new(config.chunker, keyring.gear_table()));
        let splitter = Splitter::new(config.tree.clone(), *keyring.tree_cuts());
        let timelines = Timelines::new(store.clone(), Arc::clone(&keyring));
        let parts = Parts { store, keyring, index, memory, surroundings };
        Self(Arc::new(Inner {
            parts,
            config,
            config_bytes,
            slot,
            slot_key,
            argon2_limit,
            mode,
            reader,
            chunker,
            splitter,
            timelines,
            rosters: Mutex::default(),
        }))
    }

    /// The repository's random identity.
    pub fn id(&self) -> RepositoryId {
        self.0.config.repository
    }

    /// What a person compares, or pins with [`OpenOptions::with_fingerprint`], to know that it is this repository.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.config.fingerprint()
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

    /// The private key of the slot that the repository was opened with.
    pub(crate) fn slot_key(&self) -> &SlotKey {
        &self.0.slot_key
    }

    /// Refuses what takes the administrator's key, or a build that knows more, where either is missing.
    pub(crate) fn require_administrator(&self, operation: &'static str) -> Result<()> {
        self.keyring().require_administrator(operation)?;
        self.store().require_writable()
    }

    /// All slots that can be read, and whether the administrator vouches for each; and what holds.
    pub(crate) async fn slots(&self) -> Result<(Standing, Vec<(ObjectId, Slot)>)> {
        let listed = self.store().list(layout::KEYS).await?;
        let standing = self.standing_of(&listed).await?;
        let members = standing.slots();
        let mut ids: Vec<_> = listed.iter().filter_map(|listed| key_id(&listed.name)).collect();
        ids.sort_unstable_by_key(|id| (!members.contains(id), *id));
        if ids.len() > SHOWN_MAX {
            tracing::warn!(slots = ids.len(), "only {SHOWN_MAX} key slots are looked at");
            ids.truncate(SHOWN_MAX);
        }
        let read = futures::stream::iter(ids).map(|id| read_slot(self.store(), id)).buffered(CONCURRENCY);
        let slots: Vec<_> = read.try_filter_map(async |slot| Ok(slot.ok())).try_collect().await?;
        Ok((standing, slots))
    }

    /// What holds of the key slots now.
    pub(crate) async fn standing(&self) -> Result<Standing> {
        let listed = self.store().list(layout::KEYS).await?;
        self.standing_of(&listed).await
    }

    async fn standing_of(&self, listed: &[Listed]) -> Result<Standing> {
        let Config { repository, administrator, first_slot, .. } = self.config();
        roster::standing(self.store(), listed, *repository, administrator, *first_slot).await
    }

    /// What it takes to try another secret on this repository's slots.
    pub(crate) fn trial(&self, secret: &Secret) -> Trial {
        Trial {
            secret: secret.clone(),
            limit: self.0.argon2_limit,
            config: self.0.config.clone(),
            config_bytes: self.0.config_bytes.clone(),
        }
    }

    /// What the config object says.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// The config object as stored.
    pub(crate) fn config_bytes(&self) -> &Bytes {
        &self.0.config_bytes
    }
}

/// Why a config wasn't published, and whether it is certain that it isn't there: as long as it may be, its slot stays,
/// or nothing could ever open it.
struct Unpublished {
    error: Error,
    absent: bool,
}

/// Refuses a place with snapshots or packs: its config was lost, and under another one all of them would seem to be damaged.
async fn require_unused(store: &Store) -> Result<()> {
    let (commits, packs) = futures::try_join!(store.list(layout::COMMITS), store.list(layout::PACKS))?;
    let Some(one) = commits.iter().chain(&packs).next() else { return Ok(()) };
    let reason = format!(
        "there was one: {} is there, and `config` isn't; put that back from a copy of the repository, or choose another place",
        one.name
    );
    Err(Error::conflict(format!("a repository at {}", store.description()), reason))
}

fn exists(store: &Store) -> Error {
    Error::conflict(
        format!("a repository at {}", store.description()),
        "there is one already; open it, or choose another place",
    )
}

fn key_id(name: &str) -> Option<ObjectId> {
    match Name::parse(name) {
        Some(Name::Key(id)) => Some(id),
        _ => None,
    }
}
