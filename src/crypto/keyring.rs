//! The repository's secrets and everything derived from them.
//!
//! ```text
//! identity      names things: blob ids, chunk boundaries, tree cuts, series tags; lives as long as the repository
//! sealing[g]    encrypts things under key generation g; rotation appends one, and an open keyring can learn it
//! administrator signs what allows to forget and to delete; an append-only keyring has only its public half
//! ```
//! Each use derives its own key with BLAKE3's `derive_key` and a context string
//! of its own, so that no two uses share a key.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use aws_lc_rs::aead::{Aad, LessSafeKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::clock::Surroundings;
use crate::codec::{self, Decode, Encode};
use crate::crypto::seal::{Kind, Opener, Salt, Sealer, TAG_LEN, once_key, zero_nonce};
use crate::crypto::sign::{self, PublicKey, Signature, Signer};
use crate::error::{Error, Result};
use crate::id::{BlobId, RosterTag, SeriesTag};

const CHUNK_ID: &str = "backstop v1 chunk id";
const NODE_ID: &str = "backstop v1 node id";
const GEAR_TABLE: &str = "backstop v1 chunker gear table";
const TREE_CUTS: &str = "backstop v1 tree cuts";
const SERIES_TAG: &str = "backstop v1 series tag";
const CONFIG_MAC: &str = "backstop v1 config authentication";
const SEAL_DATA: &str = "backstop v1 seal data";
const SEAL_RECORDS: &str = "backstop v1 seal records";
const HISTORY: &str = "backstop v1 key history";
const ROSTER_NAME: &str = "backstop v1 roster name";

/// The most key generations that a keyring can hold, so that a slot stays small.
pub(crate) const GENERATIONS_MAX: usize = 1024;

/// The longest encoded keyring: 1024 generations of at most 37 bytes, and the rest.
pub(crate) const KEYRING_MAX: usize = GENERATIONS_MAX * 37 + 128;

/// What objects of one key generation are sealed with.
type Generation = (u32, [u8; 32]);

/// The secrets that a key slot wraps.
#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
struct Secrets {
    identity: [u8; 32],
    /// By generation, ascending; never empty.
    sealing: Vec<Generation>,
    /// The seed of the administrator's key; an append-only keyring lacks it.
    administrator: Option<[u8; 32]>,
    administrator_public: [u8; 32],
}

/// The repository's secrets, opened.
pub(crate) struct Keyring {
    /// Only ever gains generations.
    secrets: RwLock<Secrets>,
    administrator_public: PublicKey,
    chunk_id: IdKey,
    node_id: IdKey,
    signer: Option<Signer>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("generation", &self.generation())
            .field("append_only", &self.is_append_only())
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// New random secrets, one generation.
    pub(crate) fn generate(surroundings: &Surroundings) -> Self {
        let identity = surroundings.random_secret::<32>();
        let sealing = surroundings.random_secret::<32>();
        let seed = surroundings.random_secret::<32>();
        let signer = Signer::new(&seed);
        let secrets = Secrets {
            identity: *identity,
            sealing: vec![(0, *sealing)],
            administrator: Some(*seed),
            administrator_public: signer.public(),
        };
        Self::from_secrets(secrets, Some(signer))
    }

    fn from_secrets(secrets: Secrets, signer: Option<Signer>) -> Self {
        let chunk_id = IdKey::derive(CHUNK_ID, &secrets.identity);
        let node_id = IdKey::derive(NODE_ID, &secrets.identity);
        let administrator_public = secrets.administrator_public;
        Self { secrets: RwLock::new(secrets), administrator_public, chunk_id, node_id, signer }
    }

    /// The same without the administrator's key: it can read and add, and vouch for no deletion.
    pub(crate) fn append_only(&self) -> Self {
        let mut secrets = self.secrets().clone();
        secrets.administrator.zeroize();
        secrets.administrator = None;
        Self::from_secrets(secrets, None)
    }

    /// Whether the administrator's key is missing.
    pub(crate) fn is_append_only(&self) -> bool {
        self.signer.is_none()
    }

    /// Refuses what takes the administrator's key where that is missing.
    pub(crate) fn require_administrator(&self, operation: &'static str) -> Result<()> {
        if self.is_append_only() { Err(Error::AppendOnly { operation }) } else { Ok(()) }
    }

    /// Signs as the administrator.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Signature> {
        let signer = self.signer.as_ref().ok_or(Error::AppendOnly { operation: "sign a record" })?;
        Ok(signer.sign(message))
    }

    /// Whether the administrator signed a message.
    pub(crate) fn is_signed(&self, message: &[u8], signature: &Signature) -> bool {
        sign::is_signed(self.administrator_public(), message, signature)
    }

    /// What the administrator's signatures are checked with.
    pub(crate) fn administrator_public(&self) -> &PublicKey {
        &self.administrator_public
    }

    fn secrets(&self) -> RwLockReadGuard<'_, Secrets> {
        // What a panicking thread left behind is whole: generations are swapped in at once.
        self.secrets.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The secrets as a key slot wraps them.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Growing would leave copies behind that nothing erases.
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEYRING_MAX));
        codec::encode_into(&*self.secrets(), &mut bytes);
        bytes
    }

    /// Reads what [`Keyring::to_bytes`] wrote; `object` names the slot in errors.
    pub(crate) fn from_bytes(bytes: &[u8], object: &str) -> Result<Self> {
        let secrets: Secrets = codec::decode(bytes, object)?;
        if !are_generations(&secrets.sealing) {
            return Err(Error::corrupt(object, "its keyring has impossible generations"));
        }
        let signer = secrets.administrator.as_ref().map(Signer::new);
        if signer.as_ref().is_some_and(|signer| signer.public() != secrets.administrator_public) {
            return Err(Error::corrupt(object, "its keyring has two administrator's keys"));
        }
        Ok(Self::from_secrets(secrets, signer))
    }

    /// Gives chunks their ids.
    pub(crate) fn chunk_id(&self) -> &IdKey {
        &self.chunk_id
    }

    /// Gives tree nodes their ids.
    pub(crate) fn node_id(&self) -> &IdKey {
        &self.node_id
    }

    /// The chunker's 256-entry table, so that boundaries depend on the key.
    pub(crate) fn gear_table(&self) -> Box<[u64; 256]> {
        let mut bytes = Zeroizing::new([0; 256 * 8]);
        let mut hasher = blake3::Hasher::new_derive_key(GEAR_TABLE);
        hasher.update(&self.secrets().identity);
        let mut extended = hasher.finalize_xof();
        extended.fill(bytes.as_mut());
        extended.zeroize();
        hasher.zeroize();
        let mut table = Box::new([0; 256]);
        for (entry, eight) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *entry = u64::from_le_bytes(*eight);
        }
        table
    }

    /// The key under which tree keys are hashed to place cuts.
    pub(crate) fn tree_cuts(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(TREE_CUTS, &self.secrets().identity))
    }

    /// The folder name of a series: tells an onlooker only whether two are the same.
    pub(crate) fn series_tag(&self, series: &str) -> SeriesTag {
        let key = Zeroizing::new(blake3::derive_key(SERIES_TAG, &self.secrets().identity));
        SeriesTag::new(keyed_16(&key, series.as_bytes()))
    }

    /// Authenticates the config object, which is readable before any key is known.
    pub(crate) fn config_mac(&self, config: &[u8]) -> blake3::Hash {
        let key = Zeroizing::new(blake3::derive_key(CONFIG_MAC, &self.secrets().identity));
        blake3::keyed_hash(&key, config)
    }

    /// The newest key generation that is known.
    pub(crate) fn generation(&self) -> u32 {
        self.secrets().newest().0
    }

    /// Seals a new object under the newest generation with a fresh salt.
    pub(crate) fn sealer(&self, kind: Kind, surroundings: &Surroundings) -> Sealer {
        let salt: Salt = surroundings.random();
        let secrets = self.secrets();
        let (generation, secret) = secrets.newest();
        let key = object_key(kind, secret, &salt);
        Sealer::new(kind, *generation, salt, &key)
    }

    /// Opens the messages of an object that was sealed under `generation` with `salt`.
    ///
    /// A generation that isn't known is [`Error::Unsupported`]: the object may be sound, and another secret opens it.
    pub(crate) fn opener(&self, kind: Kind, generation: u32, salt: &Salt, object: &str) -> Result<Opener> {
        let secrets = self.secrets();
        let secret = secrets.of(generation).ok_or_else(|| {
            let reason = format!(
                "it is sealed under key generation {generation}, which this secret doesn't have; open the repository \
                 anew, with a current secret"
            );
            Error::unsupported(object, reason)
        })?;
        Ok(Opener::new(kind, &object_key(kind, secret, salt)))
    }

    /// The same, to be changed apart.
    pub(crate) fn copy(&self) -> Self {
        let secrets = self.secrets().clone();
        let signer = secrets.administrator.as_ref().map(Signer::new);
        Self::from_secrets(secrets, signer)
    }

    /// Appends a new random generation, and returns its number; nothing if there is no room for another.
    pub(crate) fn rotate(&self, surroundings: &Surroundings) -> Option<u32> {
        let secret = surroundings.random_secret::<32>();
        let mut secrets = self.secrets_to_change();
        let generation = secrets.newest().0.checked_add(1)?;
        (secrets.sealing.len() < GENERATIONS_MAX).then_some(())?;
        let mut next = secrets.with_room(1);
        next.sealing.push((generation, *secret));
        *secrets = next;
        Some(generation)
    }

    /// Takes the generation that a copy has appended.
    pub(crate) fn adopt(&self, copy: &Self) {
        let newest = Zeroizing::new(*copy.secrets().newest());
        let mut secrets = self.secrets_to_change();
        if secrets.of(newest.0).is_none() {
            let mut next = secrets.with_room(1);
            next.sealing.push(*newest);
            next.sealing.sort_unstable_by_key(|(generation, _)| *generation);
            *secrets = next;
        }
    }

    /// The newest generation's secret, to be sealed to a slot.
    pub(crate) fn newest_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secrets().newest().1)
    }

    /// The older generations, sealed so that the newest one's secret opens them.
    pub(crate) fn seal_history(&self, context: &[u8]) -> Result<Vec<u8>> {
        let secrets = self.secrets();
        let older = Zeroizing::new(secrets.sealing[..secrets.sealing.len() - 1].to_vec());
        let mut message = Vec::with_capacity(KEYRING_MAX + TAG_LEN);
        codec::encode_into(&*older, &mut message);
        history_key(&secrets.newest().1)
            .seal_in_place_append_tag(zero_nonce(), Aad::from(context), &mut message)
            .map_err(|_| Error::worker("AES-GCM refused to seal the key history"))?;
        Ok(message)
    }

    /// Learns `generation` and, from the `history` that it opens, those before it.
    pub(crate) fn learn(
        &self,
        generation: u32,
        secret: &[u8; 32],
        history: &[u8],
        context: &[u8],
        object: &str,
    ) -> Result<()> {
        let mut message = Zeroizing::new(history.to_vec());
        let plain = history_key(secret)
            .open_in_place(zero_nonce(), Aad::from(context), &mut message)
            .map_err(|_| Error::corrupt(object, "its key history fails authentication"))?;
        let older: Zeroizing<Vec<Generation>> = Zeroizing::new(codec::decode(plain, object)?);
        let newest = Zeroizing::new((generation, *secret));
        let in_order = older.is_empty() || are_generations(&older) && older.iter().all(|older| older.0 < generation);
        let mut secrets = self.secrets_to_change();
        let mut next = secrets.with_room(older.len() + 1);
        for (generation, secret) in older.iter().chain([&*newest]) {
            match secrets.of(*generation) {
                Some(known) if known != secret => {
                    let reason = format!("it has another secret for key generation {generation} than the key slot");
                    return Err(Error::corrupt(object, reason));
                }
                Some(_) => {}
                None => next.sealing.push((*generation, *secret)),
            }
        }
        next.sealing.sort_unstable_by_key(|(generation, _)| *generation);
        if !in_order || !are_generations(&next.sealing) {
            return Err(Error::corrupt(object, "its key history has impossible generations"));
        }
        *secrets = next;
        Ok(())
    }

    /// Held from looking to writing, so that of two who learn something neither forgets what the other has learned.
    fn secrets_to_change(&self) -> RwLockWriteGuard<'_, Secrets> {
        self.secrets.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of a roster's name that only an administrator knows before it is there, so that nobody takes it first.
    pub(crate) fn roster_tag(&self, number: u64) -> Result<RosterTag> {
        let secrets = self.secrets();
        let seed = secrets.administrator.as_ref().ok_or(Error::AppendOnly { operation: "change the keys" })?;
        let key = Zeroizing::new(blake3::derive_key(ROSTER_NAME, seed));
        Ok(RosterTag::new(keyed_16(&key, &number.to_le_bytes())))
    }
}

impl Secrets {
    #[expect(clippy::expect_used, reason = "there is one in every keyring, and none is ever taken away")]
    fn newest(&self) -> &Generation {
        self.sealing.last().expect("a key generation")
    }

    /// A copy to which so many generations can be added in place: growing would leave copies behind that nothing erases.
    fn with_room(&self, more: usize) -> Self {
        let mut sealing = Vec::with_capacity(self.sealing.len() + more);
        sealing.extend_from_slice(&self.sealing);
        let Self { identity, administrator, administrator_public, .. } = self;
        Self {
            identity: *identity,
            sealing,
            administrator: *administrator,
            administrator_public: *administrator_public,
        }
    }

    fn of(&self, generation: u32) -> Option<&[u8; 32]> {
        let at = self.sealing.binary_search_by_key(&generation, |(known, _)| *known).ok()?;
        Some(&self.sealing[at].1)
    }
}

/// Whether there are some, not too many, and in order.
fn are_generations(sealing: &[Generation]) -> bool {
    (1..=GENERATIONS_MAX).contains(&sealing.len()) && sealing.is_sorted_by(|a, b| a.0 < b.0)
}

/// The first 16 bytes of a keyed hash.
fn keyed_16(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    let hash = blake3::keyed_hash(key, message);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    first
}

fn history_key(secret: &[u8; 32]) -> LessSafeKey {
    once_key(&Zeroizing::new(blake3::derive_key(HISTORY, secret)))
}

fn object_key(kind: Kind, secret: &[u8; 32], salt: &Salt) -> Zeroizing<[u8; 32]> {
    let context = match kind {
        Kind::Pack | Kind::Index => SEAL_DATA,
        Kind::Config
        | Kind::KeySlot
        | Kind::Roster
        | Kind::Registration
        | Kind::RegistrationEnd
        | Kind::Snapshot
        | Kind::Collection
        | Kind::Kept => SEAL_RECORDS,
    };
    let domain = Zeroizing::new(blake3::derive_key(context, secret));
    let mut hasher = blake3::Hasher::new_keyed(&domain);
    hasher.update(salt).update(&[kind as u8]);
    let key = Zeroizing::new(*hasher.finalize().as_bytes());
    hasher.zeroize();
    key
}

/// A key that turns plaintext into blob ids of one domain.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct IdKey([u8; 32]);

impl IdKey {
    fn derive(context: &str, secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key(context, secret))
    }

    /// The id of `plaintext`.
    pub(crate) fn id(&self, plaintext: &[u8]) -> BlobId {
        let hash = blake3::keyed_hash(&self.0, plaintext);
        let mut id = [0; BlobId::LEN];
        id.copy_from_slice(&hash.as_bytes()[..BlobId::LEN]);
        BlobId::new(id)
    }
}
