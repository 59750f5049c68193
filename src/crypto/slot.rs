//! Wrapping the keyring for one secret.
//!
//! A passphrase is stretched with Argon2id (RFC 9106), a raw key is only mixed
//! with the slot's salt; the result is the AES-256-GCM key for one message, the
//! keyring. The salt is fresh for every slot, so the nonce can be zero.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::clock::Surroundings;
use crate::codec::{Decode, Encode};
use crate::crypto::keyring::Keyring;
use crate::error::{Error, Result};

/// Argon2id memory in KiB, passes and lanes for new slots (RFC 9106's second recommendation).
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;

/// What a hostile slot may make us spend at most, since its parameters are used before anything vouches for them:
/// 1 GiB, and 4 GiB written over all passes.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const WRITTEN_KIB_MAX: u64 = 4 << 20;
const LANES_MAX: u32 = 64;

const RAW_KEY: &str = "backstop v1 raw key slot";

/// What opens a repository: a passphrase or a 32-byte key.
///
/// Erased from memory when dropped.
///
/// ```
/// use backstop::Secret;
///
/// let for_people = Secret::passphrase("correct horse battery staple");
/// let for_servers = Secret::key([7; 32]);
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Inner);

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
enum Inner {
    Passphrase(String),
    Key([u8; 32]),
}

impl Secret {
    /// A passphrase; stretched with Argon2id, which takes 64 MiB and some 0.1 s.
    pub fn passphrase(passphrase: impl Into<String>) -> Self {
        Self(Inner::Passphrase(passphrase.into()))
    }

    /// A key of 32 random bytes, say from a key management service.
    pub fn key(key: [u8; 32]) -> Self {
        Self(Inner::Key(key))
    }

    /// Whether it is a passphrase.
    pub(crate) fn is_passphrase(&self) -> bool {
        matches!(self.0, Inner::Passphrase(_))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_passphrase() { "Secret::passphrase(..)" } else { "Secret::key(..)" })
    }
}

/// How a secret becomes a wrapping key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Kdf {
    /// Argon2id, version 0x13, over the passphrase's UTF-8 bytes.
    Argon2id { memory_kib: u32, passes: u32, lanes: u32 },
    /// BLAKE3 over the raw key.
    RawKey,
}

/// A keyring sealed for one secret.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct WrappedKeyring {
    pub(crate) kdf: Kdf,
    salt: [u8; 32],
    sealed: Vec<u8>,
}

impl WrappedKeyring {
    /// Wraps `keyring` for `secret`; `context` (what the slot belongs to and says of itself) is authenticated with it.
    ///
    /// Takes a tenth of a second and 64 MiB for a passphrase: call it on a thread that may be busy.
    pub(crate) fn wrap(
        keyring: &Keyring,
        secret: &Secret,
        context: &[u8],
        surroundings: &Surroundings,
    ) -> Result<Self> {
        let kdf = match secret.0 {
            Inner::Passphrase(_) => Kdf::Argon2id { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES },
            Inner::Key(_) => Kdf::RawKey,
        };
        let salt = surroundings.random();
        let key = kdf.stretch(secret, &salt, "the new key slot")?;
        let mut sealed = keyring.to_bytes().to_vec();
        key.seal_in_place_append_tag(zero_nonce(), Aad::from(context), &mut sealed)
            .map_err(|_| Error::worker("AES-GCM refused to seal the keyring"))?;
        Ok(Self { kdf, salt, sealed })
    }

    /// Opens the keyring, or returns nothing if `secret` is not this slot's; `object` names the slot in errors.
    pub(crate) fn unwrap(&self, secret: &Secret, context: &[u8], object: &str) -> Result<Option<Keyring>> {
        if secret.is_passphrase() != matches!(self.kdf, Kdf::Argon2id { .. }) {
            return Ok(None);
        }
        let key = self.kdf.stretch(secret, &self.salt, object)?;
        let mut message = Zeroizing::new(self.sealed.clone());
        match key.open_in_place(zero_nonce(), Aad::from(context), &mut message) {
            Ok(plain) => Keyring::from_bytes(plain, object).map(Some),
            Err(_) => Ok(None),
        }
    }
}

impl Kdf {
    fn stretch(&self, secret: &Secret, salt: &[u8; 32], object: &str) -> Result<LessSafeKey> {
        let mut key = Zeroizing::new([0; 32]);
        match (self, &secret.0) {
            (Kdf::Argon2id { memory_kib, passes, lanes }, Inner::Passphrase(passphrase)) => {
                let written_kib = u64::from(*memory_kib) * u64::from(*passes);
                if *memory_kib > MEMORY_KIB_MAX || written_kib > WRITTEN_KIB_MAX || *lanes > LANES_MAX {
                    let reason = "its Argon2id parameters are beyond 1 GiB, 4 GiB over all passes, or 64 lanes";
                    return Err(Error::unsupported(object, reason));
                }
                Params::new(*memory_kib, *passes, *lanes, Some(key.len()))
                    .map(|parameters| Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters))
                    .and_then(|argon| argon.hash_password_into(passphrase.as_bytes(), salt, key.as_mut()))
                    .map_err(|error| Error::unsupported(object, format!("Argon2id failed: {error}")))?;
            }
            (Kdf::RawKey, Inner::Key(raw)) => {
                let context = Zeroizing::new(blake3::derive_key(RAW_KEY, raw));
                *key = *blake3::keyed_hash(&context, salt).as_bytes();
            }
            _ => return Err(Error::worker("a secret was tried on a slot of another kind")),
        }
        #[expect(clippy::expect_used, reason = "the length of the key is fixed by its type")]
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("a 32-byte key")))
    }
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
