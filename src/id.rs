//! Fixed-length identifiers, each its own type.
//!
//! A name never travels as a bare byte array: a pack's name can't be passed
//! where a blob's id is meant. The types own nothing but their bytes; how they
//! are derived is the business of [`crate::crypto`], how they become object
//! names that of [`crate::layout`].

use std::fmt;

/// Writes `bytes` as lower-case hexadecimal.
fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads exactly `N` bytes of lower-case hexadecimal, or nothing.
///
/// Upper case is refused so that every name has one spelling.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    fn digit(c: u8) -> Option<u8> {
        match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        }
    }
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! define_ids {
    ($($(#[$doc:meta])* $name:ident: $len:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes of an id that was computed or read elsewhere.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Parses the lower-case hexadecimal form that `Display` writes.
            pub fn parse(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                write_hex(&self.0[..4], f)?;
                f.write_str("..)")
            }
        }
    )*};
}

define_ids! {
    /// The keyed hash of a chunk's or a node's plaintext.
    BlobId: 20;
    /// The BLAKE3 hash of a whole stored object, which is also its name.
    ObjectId: 32;
    /// The random identity of a repository.
    RepositoryId: 16;
    /// The random identity of one registration of a writer.
    WriterId: 16;
    /// The random identity of one test of what a store allows.
    ProbeId: 16;
    /// A keyed hash of a series' name; names its folder in the store.
    SeriesTag: 16;
    /// The BLAKE3 hash of a stored snapshot record, for chaining and comparing.
    RecordHash: 32;
}

/// The part of a roster's name that only an administrator can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RosterTag([u8; 16]);

impl RosterTag {
    pub(crate) const LEN: usize = 16;

    pub(crate) const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for RosterTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl BlobId {
    /// The first eight bytes as a number, uniform over all blobs of a repository.
    #[expect(clippy::big_endian_bytes, reason = "so that prefixes sort as ids do")]
    pub(crate) fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_has_one_spelling() {
        let id = RepositoryId::new(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\xff\xfe\xfd\xfc\xfb");
        let text = id.to_string();
        assert_eq!(text, "000102030405060708090afffefdfcfb");
        assert_eq!(RepositoryId::parse(&text), Some(id));
        for wrong in ["", "00", &text.to_uppercase(), &text[1..], &format!("{text}00"), &text.replace('f', "g")] {
            assert_eq!(RepositoryId::parse(wrong), None, "{wrong}");
        }
    }
}
