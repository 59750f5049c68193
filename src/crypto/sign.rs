//! Ed25519 (RFC 8032): by it an administrator vouches for what allows to forget and to delete.
//!
//! Every holder of a secret can seal a record. An append-only one can't sign it,
//! and everyone can check who did.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// The public half of the administrator's key.
pub(crate) type PublicKey = [u8; 32];

/// What the administrator puts under a message.
pub(crate) type Signature = [u8; 64];

/// The administrator's key.
pub(super) struct Signer(Ed25519KeyPair);

impl Signer {
    /// From its seed; every 32 bytes are one.
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "the length of the seed is fixed by its type")]
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("a 32-byte seed"))
    }

    /// What signatures are checked with.
    pub(super) fn public(&self) -> PublicKey {
        copied(self.0.public_key().as_ref())
    }

    /// Signs a message; the same one gets the same signature.
    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        copied(self.0.sign(message).as_ref())
    }
}

/// Whether the holder of a key signed a message.
pub(crate) fn is_signed(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

fn copied<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut copy = [0; N];
    copy.copy_from_slice(bytes);
    copy
}
