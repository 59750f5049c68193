//! Sealing to a key slot's public key, so that a new key generation reaches a slot without its secret.
//!
//! HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Base mode says nothing of who
//! sealed: what is granted stands in a roster, which the administrator signs.

use std::convert::Infallible;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::clock::Surroundings;
use crate::codec::{Decode, Encode};
use crate::error::{Error, Result};

const INFO: &[u8] = b"backstop v1 key generation";

type Suite = X25519HkdfSha256;
type PrivateKey = <Suite as Kem>::PrivateKey;

/// A slot's X25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SlotPublic([u8; 32]);

/// A slot's X25519 private key, which its secret gives.
#[derive(Clone, ZeroizeOnDrop)]
pub(crate) struct SlotKey([u8; 32]);

impl SlotKey {
    /// Length in bytes.
    pub(super) const LEN: usize = 32;

    /// A new random one; every 32 bytes are one.
    pub(crate) fn generate(surroundings: &Surroundings) -> Self {
        Self(*surroundings.random_secret::<32>())
    }

    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    pub(crate) fn public(&self) -> Result<SlotPublic> {
        let mut public = [0; 32];
        Suite::sk_to_pk(&self.private()?).write_exact(&mut public);
        Ok(SlotPublic(public))
    }

    fn private(&self) -> Result<PrivateKey> {
        PrivateKey::from_bytes(&self.0).map_err(|error| Error::worker(format!("an X25519 key: {error}")))
    }
}

/// A secret of 32 bytes, sealed to a slot's public key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Grant {
    encapsulated: [u8; 32],
    sealed: [u8; 48],
}

impl Grant {
    /// Seals `secret` to `public`; `context` is authenticated with it.
    pub(crate) fn seal(
        secret: &[u8; 32],
        public: &SlotPublic,
        context: &[u8],
        surroundings: &Surroundings,
    ) -> Result<Self> {
        let failed = |error: hpke::HpkeError| Error::worker(format!("HPKE refused to seal a key: {error}"));
        let public = <Suite as Kem>::PublicKey::from_bytes(&public.0).map_err(failed)?;
        let mode = OpModeS::<Suite>::Base;
        let (key, message) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, Suite>(
            &mode,
            &public,
            INFO,
            secret,
            context,
            &mut Random(surroundings),
        )
        .map_err(failed)?;
        let mut encapsulated = [0; 32];
        key.write_exact(&mut encapsulated);
        let sealed = message.try_into().map_err(|_| Error::worker("HPKE sealed a key to another length"))?;
        Ok(Self { encapsulated, sealed })
    }

    /// Opens the secret; nothing if it was sealed to another key or is damaged.
    pub(crate) fn open(&self, key: &SlotKey, context: &[u8]) -> Result<Option<Zeroizing<[u8; 32]>>> {
        let Ok(encapsulated) = <Suite as Kem>::EncappedKey::from_bytes(&self.encapsulated) else { return Ok(None) };
        let opened = single_shot_open::<AesGcm256, HkdfSha256, Suite>(
            &OpModeR::Base,
            &key.private()?,
            &encapsulated,
            INFO,
            &self.sealed,
            context,
        );
        let opened = opened.map(Zeroizing::new).ok();
        Ok(opened.and_then(|secret| <[u8; 32]>::try_from(secret.as_slice()).ok()).map(Zeroizing::new))
    }
}

/// The surroundings' randomness, as HPKE wants it.
struct Random<'a>(&'a Surroundings);

impl TryRng for Random<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.0.random()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.0.random()))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Infallible> {
        self.0.entropy.fill(buffer);
        Ok(())
    }
}

impl TryCryptoRng for Random<'_> {}
