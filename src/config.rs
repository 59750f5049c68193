//! The config object: what must be known before any key is.
//!
//! ```text
//!   0  magic "backstop", format version, kind Config (10 bytes)
//!  10  the encoded `Config`
//! -128 the administrator's signature of everything before it
//! -64  keyed BLAKE3 of everything before it, under a key that only the keyring gives
//! -32  BLAKE3 of everything before it
//! ```
//! It is written once, last of all when a repository is created: a repository
//! exists when its config does. The signature keeps a holder of an append-only
//! secret from making another config that passes; the keyed hash ties it to the
//! keyring. It names the first key slot; which slots open the repository once
//! keys have changed is in rosters.

mod fingerprint;

use crate::chunker::ChunkerParameters;
use crate::clock::Timestamp;
use crate::codec::{self, Decode, Encode, Extended, Extensions};
use crate::crypto::{Keyring, Kind, PublicKey};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::layout;
use crate::object::{open_clear, read_magic, sign_clear, strip_trailer, too_short, write_magic, write_trailer};
use crate::tree::TreeParameters;

pub use fingerprint::Fingerprint;

/// No config is longer.
pub(crate) const CONFIG_MAX: u64 = 64 << 10;

const MAC_LEN: usize = 32;

/// The longest name of a feature.
const FEATURE_MAX: usize = 32;

/// The features that this build knows: so far there are none.
const KNOWN: [&str; 0] = [];

/// What never changes in a repository's life.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Config {
    pub(crate) repository: RepositoryId,
    pub(crate) created: Timestamp,
    /// What the administrator's signatures are checked with.
    pub(crate) administrator: PublicKey,
    /// The slot that the repository was created with.
    pub(crate) first_slot: ObjectId,
    pub(crate) chunker: ChunkerParameters,
    pub(crate) tree: TreeParameters,
    pub(crate) features: Features,
    /// What later builds add: an even number is critical, an odd one can be ignored.
    pub(crate) extensions: Extensions,
}

impl Extended for Config {
    fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

/// Names of what a repository makes use of beyond what every build knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Features {
    /// Who doesn't know these can't read.
    pub(crate) to_read: Vec<String>,
    /// Who doesn't know these can read, and may change nothing.
    pub(crate) to_write: Vec<String>,
    /// Of no matter to who doesn't know them.
    pub(crate) optional: Vec<String>,
}

impl Features {
    fn are_sound(&self) -> bool {
        let sound = |name: &String| {
            (1..=FEATURE_MAX).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        [&self.to_read, &self.to_write, &self.optional]
            .into_iter()
            .all(|list| list.iter().all(sound) && list.is_sorted_by(|a, b| a < b))
    }
}

impl Config {
    /// The object's bytes. Takes the administrator's key.
    pub(crate) fn seal(&self, keyring: &Keyring) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        write_magic(Kind::Config, &mut out);
        codec::encode_into(self, &mut out);
        sign_clear(&mut out, Kind::Config, layout::CONFIG, keyring)?;
        let mac = keyring.config_mac(&out);
        out.extend_from_slice(mac.as_bytes());
        write_trailer(&mut out);
        Ok(out)
    }

    /// Reads the object without vouching for it, but that whoever holds the administrator's key that it names wrote it;
    /// see [`Config::is_authentic`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is sound, and of another version, or needs a feature that this build doesn't know.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let body = strip_trailer(bytes, layout::CONFIG)?;
        let (body, _mac) = body.split_last_chunk::<MAC_LEN>().ok_or_else(|| too_short(layout::CONFIG))?;
        let (said, _signature) = body.split_last_chunk::<64>().ok_or_else(|| too_short(layout::CONFIG))?;
        let config: Self = codec::decode(read_magic(said, Kind::Config, layout::CONFIG)?, layout::CONFIG)?;
        if open_clear(body, Kind::Config, layout::CONFIG, &config.administrator).is_none() {
            return Err(Error::corrupt(layout::CONFIG, "its administrator's signature doesn't fit"));
        }
        if !config.features.are_sound() {
            return Err(Error::corrupt(layout::CONFIG, "its features are no short names in order"));
        }
        config.extensions().require_known(layout::CONFIG)?;
        if let Some(feature) = unknown(&config.features.to_read) {
            return Err(Error::unsupported(layout::CONFIG, format!("it needs {feature}; use a version that has it")));
        }
        let sound = config.chunker.validate(layout::CONFIG).and_then(|()| config.tree.check());
        sound.map_err(|error| Error::corrupt(layout::CONFIG, error))?;
        Ok(config)
    }

    /// Whether whoever wrote the object held the keyring.
    pub(crate) fn is_authentic(bytes: &[u8], keyring: &Keyring) -> bool {
        let unsealed = strip_trailer(bytes, layout::CONFIG).ok().and_then(<[u8]>::split_last_chunk::<MAC_LEN>);
        // blake3's comparison takes the same time whatever differs.
        unsealed.is_some_and(|(body, mac)| {
            keyring.config_mac(body) == *mac
                && open_clear(body, Kind::Config, layout::CONFIG, keyring.administrator_public()).is_some()
        })
    }

    /// What this build would have to know to change the repository, and doesn't.
    pub(crate) fn needed_to_write(&self) -> Option<&str> {
        unknown(&self.features.to_write)
    }

    /// Refuses a repository that isn't the one asked for; `at` says where it is.
    pub(crate) fn require_fingerprint(&self, wanted: Option<Fingerprint>, at: &str) -> Result<()> {
        let found = self.fingerprint();
        match wanted {
            Some(wanted) if wanted != found => Err(Error::OtherRepository {
                location: at.to_owned(),
                found: found.to_string(),
                wanted: wanted.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// What a person compares to know that it is the right repository.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(self.repository, &self.administrator)
    }
}

fn unknown(features: &[String]) -> Option<&str> {
    features.iter().map(String::as_str).find(|feature| !KNOWN.contains(feature))
}

#[cfg(test)]
mod tests;
