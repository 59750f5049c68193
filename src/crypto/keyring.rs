//! The repository's secrets and everything derived from them.
//!
//! ```text
//! identity      names things: blob ids, chunk boundaries, tree cuts, series tags; lives as long as the repository
//! sealing[g]    encrypts things under key generation g; rotation appends one
//! administrator signs what allows to forget and to delete; an append-only keyring has only its public half
//! ```
//! Each use derives its own key with BLAKE3's `derive_key` and a context string
//! of its own, so that no two uses share a key.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::clock::Surroundings;
use crate::codec::{self, Decode, Encode};
use crate::crypto::seal::{Kind, Opener, Salt, Sealer};
use crate::crypto::sign::{self, PublicKey, Signature, Signer};
use crate::error::{Error, Result};
use crate::id::{BlobId, SeriesTag};

const CHUNK_ID: &str = "backstop v1 chunk id";
const NODE_ID: &str = "backstop v1 node id";
const GEAR_TABLE: &str = "backstop v1 chunker gear table";
const TREE_CUTS: &str = "backstop v1 tree cuts";
const SERIES_TAG: &str = "backstop v1 series tag";
const CONFIG_MAC: &str = "backstop v1 config authentication";
const SEAL_DATA: &str = "backstop v1 seal data";
const SEAL_RECORDS: &str = "backstop v1 seal records";

/// More generations than anyone rotates through; a bound for hostile slots.
const GENERATIONS_MAX: usize = 4096;

/// The secrets that a key slot wraps.
#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
struct Secrets {
    identity: [u8; 32],
    sealing: Vec<[u8; 32]>,
    /// The seed of the administrator's key; an append-only keyring lacks it.
    administrator: Option<[u8; 32]>,
    administrator_public: [u8; 32],
}

/// The repository's secrets, opened.
pub(crate) struct Keyring {
    secrets: Secrets,
    chunk_id: IdKey,
    node_id: IdKey,
    signer: Option<Signer>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("generations", &self.secrets.sealing.len())
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
            sealing: vec![*sealing],
            administrator: Some(*seed),
            administrator_public: signer.public(),
        };
        Self::from_secrets(secrets, Some(signer))
    }

    fn from_secrets(secrets: Secrets, signer: Option<Signer>) -> Self {
        let chunk_id = IdKey::derive(CHUNK_ID, &secrets.identity);
        let node_id = IdKey::derive(NODE_ID, &secrets.identity);
        Self { secrets, chunk_id, node_id, signer }
    }

    /// The same without the administrator's key: it can read and add, and vouch for no deletion.
    pub(crate) fn append_only(&self) -> Self {
        let mut secrets = self.secrets.clone();
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

    fn administrator_public(&self) -> &PublicKey {
        &self.secrets.administrator_public
    }

    /// The secrets as a key slot wraps them.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(codec::encode(&self.secrets))
    }

    /// Reads what [`Keyring::to_bytes`] wrote; `object` names the slot in errors.
    pub(crate) fn from_bytes(bytes: &[u8], object: &str) -> Result<Self> {
        let secrets: Secrets = codec::decode(bytes, object)?;
        if secrets.sealing.is_empty() || secrets.sealing.len() > GENERATIONS_MAX {
            return Err(Error::corrupt(object, "its keyring has an impossible number of generations"));
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
        hasher.update(&self.secrets.identity);
        hasher.finalize_xof().fill(bytes.as_mut());
        let mut table = Box::new([0; 256]);
        for (entry, eight) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *entry = u64::from_le_bytes(*eight);
        }
        table
    }

    /// The key under which tree keys are hashed to place cuts.
    pub(crate) fn tree_cuts(&self) -> [u8; 32] {
        blake3::derive_key(TREE_CUTS, &self.secrets.identity)
    }

    /// The folder name of a series: tells an onlooker only whether two are the same.
    pub(crate) fn series_tag(&self, series: &str) -> SeriesTag {
        let key = Zeroizing::new(blake3::derive_key(SERIES_TAG, &self.secrets.identity));
        let mut tag = [0; SeriesTag::LEN];
        blake3::Hasher::new_keyed(&key).update(series.as_bytes()).finalize_xof().fill(&mut tag);
        SeriesTag::new(tag)
    }

    /// Authenticates the config object, which is readable before any key is known.
    pub(crate) fn config_mac(&self, config: &[u8]) -> blake3::Hash {
        let key = Zeroizing::new(blake3::derive_key(CONFIG_MAC, &self.secrets.identity));
        blake3::keyed_hash(&key, config)
    }

    /// Seals a new object under the newest generation with a fresh salt.
    pub(crate) fn sealer(&self, kind: Kind, surroundings: &Surroundings) -> Sealer {
        let newest = self.secrets.sealing.len() - 1;
        let salt: Salt = surroundings.random();
        let key = self.object_key(kind, &self.secrets.sealing[newest], &salt);
        #[expect(clippy::cast_possible_truncation, reason = "at most GENERATIONS_MAX")]
        Sealer::new(kind, newest as u32, salt, &key)
    }

    /// Opens the messages of an object that was sealed under `generation` with `salt`.
    pub(crate) fn opener(&self, kind: Kind, generation: u32, salt: &Salt, object: &str) -> Result<Opener> {
        let secret = self.secrets.sealing.get(generation as usize).ok_or_else(|| {
            let reason =
                format!("it needs key generation {generation}, which this secret doesn't give; use a newer one");
            Error::unsupported(object, reason)
        })?;
        Ok(Opener::new(kind, &self.object_key(kind, secret, salt)))
    }

    fn object_key(&self, kind: Kind, secret: &[u8; 32], salt: &Salt) -> Zeroizing<[u8; 32]> {
        let context = match kind {
            Kind::Pack | Kind::Index => SEAL_DATA,
            Kind::Config
            | Kind::KeySlot
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
