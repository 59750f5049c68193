//! The config object: what must be known before any key is.
//!
//! ```text
//!   0  magic "backstop", format version, kind Config (10 bytes)
//!  10  the encoded `Config`
//! -64  keyed BLAKE3 of everything before it, under a key that only the keyring gives
//! -32  BLAKE3 of everything before it
//! ```
//! It is written once, last of all when a repository is created: a repository
//! exists when its config does.

use crate::chunker::ChunkerParameters;
use crate::clock::Timestamp;
use crate::codec::{self, Decode, Encode};
use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::RepositoryId;
use crate::layout;
use crate::object::{read_magic, strip_trailer, too_short, write_magic, write_trailer};
use crate::tree::TreeParameters;

/// No config is longer.
pub(crate) const CONFIG_MAX: u64 = 64 << 10;

const MAC_LEN: usize = 32;

/// What never changes in a repository's life.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Config {
    pub(crate) repository: RepositoryId,
    pub(crate) created: Timestamp,
    pub(crate) chunker: ChunkerParameters,
    pub(crate) tree: TreeParameters,
}

impl Config {
    /// The object's bytes.
    pub(crate) fn seal(&self, keyring: &Keyring) -> Vec<u8> {
        let mut out = Vec::new();
        write_magic(Kind::Config, &mut out);
        codec::encode_into(self, &mut out);
        let mac = keyring.config_mac(&out);
        out.extend_from_slice(mac.as_bytes());
        write_trailer(&mut out);
        out
    }

    /// Reads the object without vouching for it; see [`Config::is_authentic`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let body = strip_trailer(bytes, layout::CONFIG)?;
        let (body, _mac) = body.split_last_chunk::<MAC_LEN>().ok_or_else(|| too_short(layout::CONFIG))?;
        let config: Self = codec::decode(read_magic(body, Kind::Config, layout::CONFIG)?, layout::CONFIG)?;
        let sound = config.chunker.validate(layout::CONFIG).and_then(|()| config.tree.check());
        sound.map_err(|error| Error::corrupt(layout::CONFIG, error))?;
        Ok(config)
    }

    /// Whether whoever wrote the object held the keyring.
    pub(crate) fn is_authentic(bytes: &[u8], keyring: &Keyring) -> bool {
        let unsealed = strip_trailer(bytes, layout::CONFIG).ok().and_then(<[u8]>::split_last_chunk::<MAC_LEN>);
        // blake3's comparison takes the same time whatever differs.
        unsealed.is_some_and(|(body, mac)| keyring.config_mac(body) == *mac)
    }
}

#[cfg(test)]
mod tests;
