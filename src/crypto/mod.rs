//! Keys: how every key derives from the keyring, how messages are sealed and
//! signed, how the keyring is wrapped for a secret.
//!
//! Owns key derivation, AES-256-GCM, Ed25519, HPKE and Argon2id. Knows no object's layout.
//!
//! Invariant: a (key, nonce) pair seals at most one message. Each object has a
//! key of its own, derived from a fresh 32-byte salt that [`Sealer`] consumes,
//! and the sealer numbers its messages; there is no way to seal a number twice.

mod grant;
mod keyring;
mod seal;
mod sign;
mod slot;
#[cfg(test)]
mod tests;

pub(crate) use grant::{Grant, SlotKey, SlotPublic};
pub(crate) use keyring::{IdKey, KEYRING_MAX, Keyring};
pub(crate) use seal::{Kind, Opener, Part, SALT_LEN, Salt, Sealer, TAG_LEN};
pub(crate) use sign::{PublicKey, Signature, is_signed};
#[cfg(test)]
pub(crate) use slot::Argon2id;
pub use slot::Secret;
pub(crate) use slot::{Argon2Limit, Cost, Kdf, PRIVATE_OVERHEAD};
