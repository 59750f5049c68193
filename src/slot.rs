//! Key slots: each holds a private key and the keyring, wrapped for one secret.
//!
//! ```text
//!   0  magic "backstop", format version, kind KeySlot (10 bytes)
//!  10  the encoded `Slot`
//! ```
//! A slot's name is the BLAKE3 of its bytes. Its label and time are in the
//! clear, so that slots can be told apart. A slot counts only if the roster (or
//! the config, of the first one) names it: so the administrator vouches for
//! each byte of it. Slots never change: what comes later, a new key generation,
//! stands in the roster, sealed to the slot's public key.

use crate::clock::{Surroundings, Timestamp};
use crate::codec::{self, Decode, Encode, Extended, Extensions};
use crate::crypto::{
    Argon2Limit, Cost, KEYRING_MAX, Kdf, Keyring, Kind, PRIVATE_OVERHEAD, Secret, SlotKey, SlotPublic,
};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::layout::Name;
use crate::object::{object_id, read_magic, verify_id, write_magic};

/// No slot is longer: the longest keyring, and 1 KiB for all else.
pub(crate) const SLOT_MAX: u64 = (KEYRING_MAX + PRIVATE_OVERHEAD + (1 << 10)) as u64;

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
    /// Something that only a newer version of this library knows.
    Newer,
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
    /// Whether an administrator vouches for it. One that isn't authentic opens nothing, and what it says of itself
    /// means nothing: it was removed, or its addition was cut off, or whoever can write to the store put it there.
    pub authentic: bool,
}

/// A slot as stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Slot {
    about: About,
    sealed: Vec<u8>,
}

impl Extended for Slot {
    fn extensions(&self) -> &Extensions {
        &self.about.extensions
    }
}

/// What is authenticated with the keyring.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct About {
    repository: RepositoryId,
    label: String,
    created: Timestamp,
    append_only: bool,
    public: SlotPublic,
    kdf: Kdf,
    salt: [u8; 32],
    /// What later builds add: an even number is critical, an odd one can be ignored.
    extensions: Extensions,
}

impl Slot {
    /// Wraps `keyring` for `secret`. Busy for a tenth of a second for a passphrase.
    pub(crate) fn wrap(
        keyring: &Keyring,
        secret: &Secret,
        repository: RepositoryId,
        label: &str,
        surroundings: &Surroundings,
    ) -> Result<(Self, SlotKey)> {
        if label.len() > LABEL_MAX || label.contains('\n') {
            return Err(Error::invalid(
                format!("label {label:?}"),
                format!("it must be one line of at most {LABEL_MAX} bytes"),
            ));
        }
        let private = SlotKey::generate(surroundings);
        let about = About {
            repository,
            label: label.to_owned(),
            created: surroundings.clock.now(),
            append_only: keyring.is_append_only(),
            public: private.public()?,
            kdf: Kdf::for_secret(secret),
            salt: surroundings.random(),
            extensions: Extensions::default(),
        };
        let limit = Argon2Limit::default();
        let stretched = about.kdf.stretch(secret, &about.salt, &limit, "the new key slot")?;
        let stretched = stretched.ok_or_else(|| Error::worker("a secret doesn't fit its own slot"))?;
        let sealed = stretched.wrap(&private, keyring, &codec::encode(&about))?;
        Ok((Self { about, sealed }, private))
    }

    /// A slot for tests, with all that it says of itself in order, but for these.
    #[cfg(test)]
    pub(crate) fn lying(repository: RepositoryId, kdf: Kdf, sealed: &[u8]) -> Self {
        let about = About {
            repository,
            label: String::new(),
            created: Timestamp::EPOCH,
            append_only: false,
            public: SlotKey::generate(&crate::testing::fixed()).public().unwrap(),
            kdf,
            salt: [0; 32],
            extensions: Extensions::default(),
        };
        Self { about, sealed: sealed.to_vec() }
    }

    /// Its private key and the keyring, unless `secret` is another slot's. Busy for a tenth of a second for a
    /// passphrase. What can't be tried, by this build or within `limit`, is [`Error::Unsupported`].
    pub(crate) fn unwrap(
        &self,
        secret: &Secret,
        limit: &Argon2Limit,
        id: &ObjectId,
    ) -> Result<Option<(SlotKey, Keyring)>> {
        let name = Name::Key(*id).to_string();
        self.extensions().require_known(&name)?;
        let Some(stretched) = self.about.kdf.stretch(secret, &self.about.salt, limit, &name)? else { return Ok(None) };
        let opened = stretched.unwrap(&self.sealed, &codec::encode(&self.about), &name)?;
        let Some((private, keyring)) = opened else { return Ok(None) };
        if keyring.is_append_only() != self.about.append_only {
            return Err(Error::corrupt(name, "its keyring allows something else than it says"));
        }
        if private.public()? != self.about.public {
            return Err(Error::corrupt(name, "its private key isn't that of its public key"));
        }
        Ok(Some((private, keyring)))
    }

    /// What it costs to try a secret.
    pub(crate) fn cost(&self, limit: &Argon2Limit, id: &ObjectId) -> Result<Cost> {
        self.about.kdf.cost(limit, &Name::Key(*id).to_string())
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

    /// Whether it says that its keyring lacks the administrator's key.
    pub(crate) fn is_append_only(&self) -> bool {
        self.about.append_only
    }

    /// What new key generations are sealed to.
    pub(crate) fn public(&self) -> SlotPublic {
        self.about.public
    }

    /// What a list of keys shows.
    pub(crate) fn describe(&self, id: ObjectId, current: bool, authentic: bool) -> KeySlot {
        let kind = match self.about.kdf.takes_passphrase() {
            Some(true) => KeyKind::Passphrase,
            Some(false) => KeyKind::RawKey,
            None => KeyKind::Newer,
        };
        let About { label, created, append_only, .. } = self.about.clone();
        KeySlot { id, kind, label, created, append_only, current, authentic }
    }
}

#[cfg(test)]
mod tests;
