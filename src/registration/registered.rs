//! Registrations as others see them: which are there, which have ended, and clearing away those that have.
//!
//! ```text
//! writers/<id>           a sealed record (object.rs): the series, the number, and the hash of a token
//! writers/<id>-ended     a sealed record: the token, which only the writer knew
//! ```
//! A registration ends by adding an object, so that a writer needs no right to
//! delete anything, and nobody else can end it: every holder of a secret can read
//! the hash, and none can find what it is the hash of.
//!
//! Only collections clear registrations away: those that have ended, and those
//! that they fenced.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};

use crate::blobs::Parts;
use crate::clock::Timestamp;
use crate::codec::{Decode, Encode, Extended, Extensions};
use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::{RecordHash, WriterId};
use crate::layout::{self, Name};
use crate::object;
use crate::snapshot::validate_series;
use crate::store::Store;

/// Registrations read at a time.
const CONCURRENCY: usize = 16;

/// What a registration says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RegistrationRecord {
    pub(crate) series: String,
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
    pub(crate) host: String,
    /// The last collection that the writer had read before it registered; 0 if it hadn't looked.
    pub(crate) seen: u64,
    /// The hash of the token that ends it.
    pub(crate) ending: RecordHash,
    pub(crate) extensions: Extensions,
}

impl Extended for RegistrationRecord {
    fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

/// What ends a registration.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct EndRecord {
    pub(crate) token: EndToken,
    pub(crate) extensions: Extensions,
}

impl Extended for EndRecord {
    fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

/// Whoever made a registration is the only one who knows it, until it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct EndToken([u8; 32]);

impl EndToken {
    /// From random bytes.
    pub(crate) fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// What a registration says of the token that ends it.
    pub(crate) fn hash(&self) -> RecordHash {
        RecordHash::new(*blake3::hash(&self.0).as_bytes())
    }
}

/// A registration that is there.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) id: WriterId,
    /// What it says, unless it can't be read.
    pub(crate) record: Result<RegistrationRecord>,
    pub(crate) has_ended: bool,
}

impl Registered {
    /// Whether it may be sound, and only a newer version can read it.
    pub(crate) fn needs_newer_version(&self) -> bool {
        self.record.as_ref().is_err_and(Error::is_unsupported)
    }
}

/// Opens a registration.
pub(crate) fn open_registration(bytes: &[u8], id: WriterId, keyring: &Keyring) -> Result<RegistrationRecord> {
    let name = Name::Writer(id).to_string();
    let record: RegistrationRecord = object::open_record(bytes, Kind::Registration, &name, keyring)?;
    match validate_series(&record.series) {
        Ok(()) => Ok(record),
        Err(_) => Err(Error::corrupt(name, "it names a series that there can't be")),
    }
}

/// All registrations: one listing, and one or two reads each, several at once.
pub(crate) async fn registered(store: &Store, keyring: &Keyring) -> Result<Vec<Registered>> {
    let Listed { begun, ended } = list(store).await?;
    let read = |id: WriterId| {
        let may_have_ended = ended.contains(&id);
        async move { look(store, keyring, id, may_have_ended).await }
    };
    let found: Vec<_> = futures::stream::iter(begun).map(read).buffered(CONCURRENCY).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Which of some registrations, with what they say, haven't ended yet.
pub(crate) async fn still_running(store: &Store, keyring: &Keyring, ids: &[WriterId]) -> Result<BTreeSet<WriterId>> {
    let Listed { begun, ended } = list(store).await?;
    let mut running = BTreeSet::new();
    for id in ids.iter().filter(|id| begun.contains(id)) {
        if !ended.contains(id) || look(store, keyring, *id, true).await?.is_some_and(|found| !found.has_ended) {
            running.insert(*id);
        }
    }
    Ok(running)
}

/// Deletes registrations that have ended, and what is left of some that were deleted; how many objects.
///
/// The registration goes first: without it its end says nothing, and without its end it would seem to run.
pub(crate) async fn clear_ended(parts: &Parts) -> Result<u64> {
    let Parts { store, keyring, .. } = parts;
    let mut deleted = 0;
    for id in list(store).await?.ended {
        let found = look(store, keyring, id, true).await?;
        if found.as_ref().is_some_and(|found| !found.has_ended) {
            continue;
        }
        for name in found.map(|_| Name::Writer(id)).into_iter().chain([Name::WriterEnd(id)]) {
            if !clear(store, name).await? {
                break;
            }
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// Deletes what does no harm where it stays; whether the store allows it.
async fn clear(store: &Store, name: Name) -> Result<bool> {
    match store.delete(&name.to_string()).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_retryable() => Err(error),
        Err(error) => {
            tracing::warn!(%name, %error, "what is left of a writer that has ended can't be deleted");
            Ok(false)
        }
    }
}

struct Listed {
    begun: BTreeSet<WriterId>,
    ended: BTreeSet<WriterId>,
}

async fn list(store: &Store) -> Result<Listed> {
    let (mut begun, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for listed in store.list(layout::WRITERS).await? {
        match Name::parse(&listed.name) {
            Some(Name::Writer(id)) => drop(begun.insert(id)),
            Some(Name::WriterEnd(id)) => drop(ended.insert(id)),
            _ => {}
        }
    }
    Ok(Listed { begun, ended })
}

/// One registration; nothing if it was cleared away since it was listed, so that it isn't listed any more.
async fn look(store: &Store, keyring: &Keyring, id: WriterId, may_have_ended: bool) -> Result<Option<Registered>> {
    let mut record = read(store, keyring, id).await;
    if record.as_ref().is_err_and(Error::is_not_found) {
        if !list(store).await?.begun.contains(&id) {
            return Ok(None);
        }
        record = read(store, keyring, id).await;
    }
    if let Err(error @ (Error::Store { .. } | Error::NotFound { .. })) = record {
        return Err(error);
    }
    let has_ended = match &record {
        Ok(record) if may_have_ended => ends(store, keyring, id, record).await?,
        _ => false,
    };
    Ok(Some(Registered { id, record, has_ended }))
}

async fn read(store: &Store, keyring: &Keyring, id: WriterId) -> Result<RegistrationRecord> {
    let bytes = store.get(&Name::Writer(id).to_string(), object::RECORD_MAX).await?;
    open_registration(&bytes, id, keyring)
}

/// Opens a registration's end; the hash of its token.
pub(crate) fn open_end(bytes: &[u8], id: WriterId, keyring: &Keyring) -> Result<RecordHash> {
    let name = Name::WriterEnd(id).to_string();
    let end: EndRecord = object::open_record(bytes, Kind::RegistrationEnd, &name, keyring)?;
    Ok(end.token.hash())
}

/// The hash of the token that stands under the name of a registration's end.
pub(crate) async fn read_end(store: &Store, keyring: &Keyring, id: WriterId) -> Result<RecordHash> {
    let name = Name::WriterEnd(id).to_string();
    let bytes = store.get(&name, object::RECORD_MAX).await?;
    open_end(&bytes, id, keyring)
}

/// Whether what stands under the name of a registration's end is its writer's word.
async fn ends(store: &Store, keyring: &Keyring, id: WriterId, record: &RegistrationRecord) -> Result<bool> {
    match read_end(store, keyring, id).await {
        Ok(hash) => Ok(hash == record.ending),
        Err(error @ Error::Store { .. }) => Err(error),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => {
            store.put_aside(Name::WriterEnd(id), error);
            Ok(false)
        }
    }
}
