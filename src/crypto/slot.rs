//! Wrapping a slot's private key and the keyring for one secret.
//!
//! A passphrase is stretched with Argon2id (RFC 9106), a raw key is only mixed
//! with the slot's salt; the result is the AES-256-GCM key for one message. The
//! salt is fresh for every slot, so the nonce can be zero.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{Aad, LessSafeKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::codec::{self, Decode, Encode};
use crate::crypto::grant::SlotKey;
use crate::crypto::keyring::Keyring;
use crate::crypto::seal::{TAG_LEN, once_key, zero_nonce};
use crate::error::{Error, Result};

/// Argon2id memory in KiB, passes and lanes for new slots (RFC 9106's second recommendation).
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;

/// More lanes than any slot has.
const LANES_MAX: u32 = 64;

/// The number of a way to stretch a secret.
const ARGON2ID: u32 = 0;
const KEYED: u32 = 1;

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

/// What stretching a passphrase may cost at most: a slot's parameters are used before its secret has proven anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Argon2Limit {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
}

impl Default for Argon2Limit {
    /// What this build's own slots cost.
    fn default() -> Self {
        Self { memory_kib: MEMORY_KIB, passes: PASSES }
    }
}

/// KiB that Argon2id writes over all passes; 0 for a raw key.
pub(crate) type Cost = u64;

/// How a secret becomes a wrapping key. A number that isn't known is some later build's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Kdf {
    number: u32,
    parameters: Vec<u8>,
}

/// The parameters of Argon2id, version 0x13, over the passphrase's UTF-8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Argon2id {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

/// A secret, stretched for one slot.
pub(crate) struct Stretched(LessSafeKey);

/// Bytes by which what [`Stretched::wrap`] returns is longer than the keyring.
pub(crate) const PRIVATE_OVERHEAD: usize = SlotKey::LEN + TAG_LEN;

impl Kdf {
    /// How this build stretches a secret.
    pub(crate) fn for_secret(secret: &Secret) -> Self {
        match secret.0 {
            Inner::Passphrase(_) => Self::argon2id(Argon2id { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES }),
            Inner::Key(_) => Self { number: KEYED, parameters: Vec::new() },
        }
    }

    pub(crate) fn argon2id(parameters: Argon2id) -> Self {
        Self { number: ARGON2ID, parameters: codec::encode(&parameters) }
    }

    /// Whether it takes a passphrase; nothing if this build doesn't know.
    pub(crate) fn takes_passphrase(&self) -> Option<bool> {
        match self.number {
            ARGON2ID => Some(true),
            KEYED => Some(false),
            _ => None,
        }
    }

    /// What it costs to stretch a secret, or why this build doesn't do it; `object` names the slot.
    pub(crate) fn cost(&self, limit: &Argon2Limit, object: &str) -> Result<Cost> {
        match self.number {
            ARGON2ID => {
                let Argon2id { memory_kib, passes, lanes } = codec::decode(&self.parameters, object)?;
                let written = |memory, passes| u64::from(memory) * u64::from(passes);
                let cost = written(memory_kib, passes);
                if memory_kib > limit.memory_kib || cost > written(limit.memory_kib, limit.passes) || lanes > LANES_MAX
                {
                    let reason = format!(
                        "its Argon2id takes {} MiB, {passes} passes and {lanes} lanes, which is more than this build \
                         spends unless told to: allow more when opening, if you trust the repository",
                        memory_kib >> 10
                    );
                    return Err(Error::unsupported(object, reason));
                }
                Ok(cost)
            }
            KEYED if self.parameters.is_empty() => Ok(0),
            KEYED => Err(Error::corrupt(object, "a raw key takes no parameters")),
            number => {
                let reason = format!(
                    "it needs a newer version: it stretches its secret in a way (number {number}) \
                     that this build doesn't know"
                );
                Err(Error::unsupported(object, reason))
            }
        }
    }

    /// Stretches `secret` for the slot with `salt`; nothing if the slot takes another kind of secret.
    ///
    /// Takes a tenth of a second and 64 MiB for a passphrase: call it on a thread that may be busy.
    pub(crate) fn stretch(
        &self,
        secret: &Secret,
        salt: &[u8; 32],
        limit: &Argon2Limit,
        object: &str,
    ) -> Result<Option<Stretched>> {
        if self.takes_passphrase() == Some(!secret.is_passphrase()) {
            return Ok(None);
        }
        self.cost(limit, object)?;
        let mut key = Zeroizing::new([0; 32]);
        match &secret.0 {
            Inner::Passphrase(passphrase) => {
                let Argon2id { memory_kib, passes, lanes } = codec::decode(&self.parameters, object)?;
                Params::new(memory_kib, passes, lanes, Some(key.len()))
                    .map(|parameters| Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters))
                    .and_then(|argon| argon.hash_password_into(passphrase.as_bytes(), salt, key.as_mut()))
                    .map_err(|error| Error::unsupported(object, format!("Argon2id failed: {error}")))?;
            }
            Inner::Key(raw) => {
                let context = Zeroizing::new(blake3::derive_key(RAW_KEY, raw));
                *key = *blake3::keyed_hash(&context, salt).as_bytes();
            }
        }
        Ok(Some(Stretched(once_key(&key))))
    }
}

impl Stretched {
    /// Wraps a slot's private key and the keyring; `context` (what the slot says of itself) is authenticated with them.
    pub(crate) fn wrap(&self, private: &SlotKey, keyring: &Keyring, context: &[u8]) -> Result<Vec<u8>> {
        let keyring = keyring.to_bytes();
        let mut message = Vec::with_capacity(keyring.len() + PRIVATE_OVERHEAD);
        message.extend_from_slice(private.as_bytes());
        message.extend_from_slice(&keyring);
        self.0
            .seal_in_place_append_tag(zero_nonce(), Aad::from(context), &mut message)
            .map_err(|_| Error::worker("AES-GCM refused to seal the keyring"))?;
        Ok(message)
    }

    /// Opens both, or returns nothing if the slot is another secret's; `object` names the slot in errors.
    pub(crate) fn unwrap(&self, sealed: &[u8], context: &[u8], object: &str) -> Result<Option<(SlotKey, Keyring)>> {
        let mut message = Zeroizing::new(sealed.to_vec());
        let Ok(plain) = self.0.open_in_place(zero_nonce(), Aad::from(context), &mut message) else { return Ok(None) };
        let (private, keyring) = plain
            .split_first_chunk::<{ SlotKey::LEN }>()
            .ok_or_else(|| Error::corrupt(object, "what it seals ends too early"))?;
        Ok(Some((SlotKey::from_bytes(*private), Keyring::from_bytes(keyring, object)?)))
    }
}
