//! Key slots: each holds the keyring, wrapped for one secret.
//!
//! ```text
//!   0  magic "backstop", format version, kind KeySlot (10 bytes)
//!  10  the encoded `Slot`
//! ```
//! A slot's name is the BLAKE3 of its bytes. Its label and time are in the
//! clear, so that slots can be told apart, and authenticated with the keyring.

use crate::clock::{Surroundings, Timestamp};
use crate::codec::{self, Decode, Encode};
use crate::crypto::{Kdf, Keyring, Kind, Secret, WrappedKeyring};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::layout::Name;
use crate::object::{object_id, read_magic, verify_id, write_magic};

/// No slot is longer.
pub(crate) const SLOT_MAX: u64 = 1 << 20;

/// The longest label, in bytes.
const LABEL_MAX: usize = 256;

/// What a key slot opens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// A passphrase, by way of Argon2id.
    Passphrase,
    /// A 32-byte key.
    RawKey,
}

/// One way to open a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySlot {
    /// The slot's name in the store.
    pub id: ObjectId,
    /// What it opens with.
    pub kind: KeyKind,
    /// What it was called when it was added; readable by anyone who can read the store.
    pub label: String,
    /// When it was added.
    pub created: Timestamp,
    /// Whether it lets back up and restore, and neither forget nor delete.
    pub append_only: bool,
    /// Whether the repository was opened with it.
    pub current: bool,
}

/// A slot as stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Slot {
    about: About,
    wrapped: WrappedKeyring,
}

/// What is authenticated with the keyring.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct About {
    repository: RepositoryId,
    label: String,
    created: Timestamp,
    append_only: bool,
}

impl Slot {
    /// Wraps `keyring` for `secret`. Busy for a tenth of a second for a passphrase.
    pub(crate) fn wrap(
        keyring: &Keyring,
        secret: &Secret,
        repository: RepositoryId,
        label: &str,
        surroundings: &Surroundings,
    ) -> Result<Self> {
        if label.len() > LABEL_MAX || label.contains('\n') {
            return Err(Error::invalid(
                format!("label {label:?}"),
                format!("it must be one line of at most {LABEL_MAX} bytes"),
            ));
        }
        let (label, created) = (label.to_owned(), surroundings.clock.now());
        let about = About { repository, label, created, append_only: keyring.is_append_only() };
        let wrapped = WrappedKeyring::wrap(keyring, secret, &codec::encode(&about), surroundings)?;
        Ok(Self { about, wrapped })
    }

    /// The keyring, unless `secret` is another slot's. Busy for a tenth of a second for a passphrase.
    pub(crate) fn unwrap(&self, secret: &Secret, id: &ObjectId) -> Result<Option<Keyring>> {
        let name = Name::Key(*id).to_string();
        let keyring = self.wrapped.unwrap(secret, &codec::encode(&self.about), &name)?;
        match keyring {
            Some(keyring) if keyring.is_append_only() != self.about.append_only => {
                Err(Error::corrupt(name, "its keyring allows something else than it says"))
            }
            keyring => Ok(keyring),
        }
    }

    /// The object's bytes and the name they give it.
    pub(crate) fn to_object(&self) -> (ObjectId, Vec<u8>) {
        let mut out = Vec::new();
        write_magic(Kind::KeySlot, &mut out);
        codec::encode_into(self, &mut out);
        (object_id(&out), out)
    }

    /// Reads the object named `id`.
    pub(crate) fn parse(bytes: &[u8], id: &ObjectId) -> Result<Self> {
        let name = Name::Key(*id).to_string();
        verify_id(bytes, id, &name)?;
        codec::decode(read_magic(bytes, Kind::KeySlot, &name)?, &name)
    }

    /// The repository that it says it belongs to.
    pub(crate) fn repository(&self) -> RepositoryId {
        self.about.repository
    }

    /// What a list of keys shows.
    pub(crate) fn describe(&self, id: ObjectId, current: bool) -> KeySlot {
        let kind = match self.wrapped.kdf {
            Kdf::Argon2id { .. } => KeyKind::Passphrase,
            Kdf::RawKey => KeyKind::RawKey,
        };
        let About { label, created, append_only, .. } = self.about.clone();
        KeySlot { id, kind, label, created, append_only, current }
    }
}

#[cfg(test)]
mod tests;
