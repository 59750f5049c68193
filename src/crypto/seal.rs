//! AES-256-GCM over numbered messages of one object.
//!
//! ```text
//! key    BLAKE3 keyed hash of salt ‖ kind, under the domain's key (see keyring)
//! nonce  the message's number, 12 bytes little-endian
//! AAD    kind (1 byte) ‖ part (1 byte) ‖ the object's full name where that is not its hash
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::error::{Error, Result};

/// Length of an object's salt in bytes.
pub(crate) const SALT_LEN: usize = 32;

/// Bytes by which a sealed message is longer than its plaintext.
pub(crate) const TAG_LEN: usize = 16;

/// What makes an object's key its own.
pub(crate) type Salt = [u8; SALT_LEN];

/// The kinds of stored object; the number stands in the object's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Config = 1,
    KeySlot = 2,
    Pack = 3,
    Index = 4,
    Registration = 5,
    Snapshot = 6,
    Collection = 7,
    Kept = 8,
    RegistrationEnd = 9,
    Roster = 10,
}

impl Kind {
    /// The kind with this number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        let kinds = [
            Self::Config,
            Self::KeySlot,
            Self::Pack,
            Self::Index,
            Self::Registration,
            Self::Snapshot,
            Self::Collection,
            Self::Kept,
            Self::RegistrationEnd,
            Self::Roster,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What a message is within its object, so that one can't stand in for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    /// The only message of a record or key slot.
    Body = 0,
    /// A block of chunks.
    Data = 1,
    /// A block of tree nodes.
    Nodes = 2,
    /// A pack's or segment's description of itself.
    Footer = 3,
    /// A page of an index segment.
    Page = 4,
    /// A page of an index segment's table of packs.
    PackTable = 5,
    /// A pack's end, which says where its footer is.
    Trailer = 6,
}

/// Seals the messages of one object, each under the next number.
pub(crate) struct Sealer {
    kind: Kind,
    generation: u32,
    salt: Salt,
    key: LessSafeKey,
    next: u32,
}

impl Sealer {
    pub(super) fn new(kind: Kind, generation: u32, salt: Salt, key: &[u8; 32]) -> Self {
        Self { kind, generation, salt, key: aead_key(key), next: 0 }
    }

    /// The kind of object being sealed.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The generation of keys in use.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The salt that the object must carry.
    pub(crate) fn salt(&self) -> &Salt {
        &self.salt
    }

    /// Encrypts `message` in place, appends the tag and returns the message's number.
    pub(crate) fn seal(&mut self, part: Part, name: &str, message: &mut Vec<u8>) -> Result<u32> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or_else(|| Error::worker("an object has too many messages"))?;
        self.key
            .seal_in_place_append_tag(nonce(number), aad(self.kind, part, name), message)
            .map_err(|_| Error::worker("AES-GCM refused to seal a message"))?;
        Ok(number)
    }
}

/// Opens the messages of one object.
pub(crate) struct Opener {
    kind: Kind,
    key: LessSafeKey,
}

impl Opener {
    pub(super) fn new(kind: Kind, key: &[u8; 32]) -> Self {
        Self { kind, key: aead_key(key) }
    }

    /// Decrypts message `number` in place and cuts the tag off; `object` names it in errors.
    ///
    /// A message that was damaged, moved, or sealed with another key is [`Error::Corrupt`],
    /// and `message` holds nothing of use afterwards.
    pub(crate) fn open(&self, number: u32, part: Part, name: &str, message: &mut Vec<u8>, object: &str) -> Result<()> {
        let opened = self
            .key
            .open_in_place(nonce(number), aad(self.kind, part, name), message)
            .map(|plain| plain.len())
            .map_err(|_| Error::corrupt(object, format!("message {number} fails authentication")))?;
        message.truncate(opened);
        Ok(())
    }
}

#[expect(clippy::expect_used, reason = "the length of the key is fixed by its type")]
fn aead_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a 32-byte key"))
}

/// A key for one message alone, sealed under [`zero_nonce`].
pub(super) fn once_key(key: &[u8; 32]) -> LessSafeKey {
    aead_key(key)
}

/// The nonce of a key's only message.
pub(super) fn zero_nonce() -> Nonce {
    nonce(0)
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn aad(kind: Kind, part: Part, name: &str) -> Aad<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2 + name.len());
    bytes.extend_from_slice(&[kind as u8, part as u8]);
    bytes.extend_from_slice(name.as_bytes());
    Aad::from(bytes)
}
