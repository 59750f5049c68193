//! A repository's fingerprint: what a person compares, or a server is configured with, to know that it is the right one.

use std::fmt;
use std::str::FromStr;

use crate::crypto::PublicKey;
use crate::error::{Error, Result};
use crate::id::RepositoryId;

const CONTEXT: &str = "backstop v1 fingerprint";

/// The digits: no `i`, `l`, `o` and `u`, which are easily misread.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Bytes of the hash, five at a time to eight digits.
const LEN: usize = 15;

/// Stands for a repository's identity and its administrator's public key: 24 digits in groups of four.
///
/// Whoever can write to the store can put another repository in place of this one. A secret that is given to it then is
/// theirs, and so is what is backed up. A fingerprint that was written down elsewhere shows it: see
/// [`OpenOptions::with_fingerprint`](crate::OpenOptions::with_fingerprint).
///
/// ```
/// use backstop::Fingerprint;
///
/// let fingerprint: Fingerprint = "0123-4567-89ab-cdef-ghjk-mnpq".parse()?;
/// assert_eq!(fingerprint.to_string(), "0123-4567-89ab-cdef-ghjk-mnpq");
/// assert_eq!(fingerprint, "0123456789ABCDEFGHJKMNPQ".parse()?);
/// # Ok::<(), backstop::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; LEN]);

impl Fingerprint {
    pub(super) fn new(repository: RepositoryId, administrator: &PublicKey) -> Self {
        let mut bytes = [0; LEN];
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(repository.as_bytes()).update(administrator).finalize_xof().fill(&mut bytes);
        Self(bytes)
    }

    fn digits(&self) -> String {
        let (fives, _) = self.0.as_chunks::<5>();
        let digits = fives.iter().flat_map(|five| {
            let number = five.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
            (0..8).rev().map(move |place| char::from(DIGITS[(number >> (5 * place)) as usize % 32]))
        });
        digits.collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, digit) in self.digits().chars().enumerate() {
            if at > 0 && at % 4 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    /// Reads what `Display` writes, with or without dashes, in either case.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let reason = "a fingerprint has 24 digits and letters, as 0123-4567-89ab-cdef-ghjk-mnpq";
            Error::invalid(format!("fingerprint {text:?}"), reason)
        };
        let digits = text.bytes().filter(|byte| *byte != b'-').map(|byte| byte.to_ascii_lowercase());
        let values = digits.map(|byte| DIGITS.iter().position(|digit| *digit == byte).ok_or_else(wrong));
        let values: Vec<usize> = values.collect::<Result<_>>()?;
        let (eights, []) = values.as_chunks::<8>() else { return Err(wrong()) };
        let numbers = eights.iter().map(|eight| eight.iter().fold(0u64, |number, value| number << 5 | *value as u64));
        let bytes: Vec<u8> =
            numbers.flat_map(|number| (0..5).rev().map(move |place| (number >> (8 * place)) as u8)).collect();
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}
