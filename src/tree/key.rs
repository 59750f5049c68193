//! Keys: where an entry stands in a snapshot.
//!
//! A key is a path of at least one component. It is stored with one NUL byte
//! between its components, which no component contains, so that comparing the
//! stored bytes compares component by component, and a key and everything below
//! it are neighbours: `a`, `a NUL b`, `a NUL b NUL c`, and only then `a!` and `ab`.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::codec::{Decode, DecodeError, Decoder, Encode, EncodeError, Encoder, impl_borrow_decode};
use crate::error::{Error, Result};

/// Stands between two components.
const SEPARATOR: u8 = 0;

/// The path of an entry within a snapshot: a non-empty list of non-empty names.
///
/// Names are bytes without NUL and `/`, and neither `.` nor `..`, so that a key
/// never leads out of the folder that it is restored to. Keys are ordered
/// component by component: a folder comes before what it holds, and nothing else
/// stands between the two. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The greatest length of a key in bytes, one byte between two components included.
    pub const MAX_LEN: usize = 4096;

    /// A key of these components, outermost first.
    pub fn new<C: AsRef<[u8]>>(components: impl IntoIterator<Item = C>) -> Result<Self> {
        let mut encoded = Vec::new();
        for (index, component) in components.into_iter().enumerate() {
            if index > 0 {
                encoded.push(SEPARATOR);
            }
            // An embedded separator must be seen here: afterwards it would pass for one of ours.
            let component = component.as_ref();
            if component.contains(&SEPARATOR) {
                return Err(invalid(component, "a component contains NUL"));
            }
            encoded.extend_from_slice(component);
        }
        Self::from_encoded(encoded)
    }

    /// A key from a path separated by `/`, without one at its start or end.
    pub fn from_path(path: impl AsRef<[u8]>) -> Result<Self> {
        Self::new(path.as_ref().split(|byte| *byte == b'/'))
    }

    fn from_encoded(encoded: Vec<u8>) -> Result<Self> {
        match problem(&encoded) {
            Some(problem) => Err(invalid(&encoded, problem)),
            None => Ok(Self(Bytes::from(encoded))),
        }
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == SEPARATOR)
    }

    /// The number of components.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The last component.
    pub fn file_name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// The key without its last component, if any is left.
    pub fn parent(&self) -> Option<Key> {
        let end = self.0.iter().rposition(|byte| *byte == SEPARATOR)?;
        Some(Self(self.0.slice(..end)))
    }

    /// The key with one more component.
    pub fn join(&self, component: impl AsRef<[u8]>) -> Result<Key> {
        let component = component.as_ref();
        if component.contains(&SEPARATOR) {
            return Err(invalid(component, "a component contains NUL"));
        }
        let mut encoded = Vec::with_capacity(self.0.len() + 1 + component.len());
        encoded.extend_from_slice(&self.0);
        encoded.push(SEPARATOR);
        encoded.extend_from_slice(component);
        Self::from_encoded(encoded)
    }

    /// Whether this is `prefix` or lies below it.
    pub fn starts_with(&self, prefix: &Key) -> bool {
        match self.0.strip_prefix(prefix.as_encoded()) {
            Some(rest) => rest.first().is_none_or(|byte| *byte == SEPARATOR),
            None => false,
        }
    }

    /// What follows `prefix`, if this key lies below it.
    pub fn strip_prefix(&self, prefix: &Key) -> Option<Key> {
        let rest = self.0.strip_prefix(prefix.as_encoded())?.strip_prefix(&[SEPARATOR])?;
        Some(Self(self.0.slice_ref(rest)))
    }

    /// The components with `/` between them.
    pub fn as_path_bytes(&self) -> Vec<u8> {
        self.0.iter().map(|byte| if *byte == SEPARATOR { b'/' } else { *byte }).collect()
    }

    /// The stored form, whose byte order is the order of keys.
    pub(crate) fn as_encoded(&self) -> &[u8] {
        &self.0
    }

    /// The first position below this key: after it, and not after any key under it.
    pub(crate) fn position_below(&self) -> Bytes {
        self.with_last(SEPARATOR)
    }

    /// The first position after this key and everything below it.
    pub(crate) fn position_beyond(&self) -> Bytes {
        self.with_last(SEPARATOR + 1)
    }

    fn with_last(&self, byte: u8) -> Bytes {
        let mut position = Vec::with_capacity(self.0.len() + 1);
        position.extend_from_slice(&self.0);
        position.push(byte);
        Bytes::from(position)
    }
}

/// What is wrong with a stored key.
fn problem(encoded: &[u8]) -> Option<&'static str> {
    if encoded.len() > Key::MAX_LEN {
        return Some("a key is at most 4096 bytes long");
    }
    encoded.split(|byte| *byte == SEPARATOR).find_map(|component| match component {
        b"" => Some("a component is empty"),
        b"." | b".." => Some("a component is '.' or '..'"),
        _ if component.contains(&b'/') => Some("a component contains '/'"),
        _ => None,
    })
}

fn invalid(encoded: &[u8], problem: &str) -> Error {
    let shown = encoded.get(..80).unwrap_or(encoded);
    Error::invalid(format!("key '{}'", shown.escape_ascii()), problem)
}

impl FromStr for Key {
    type Err = Error;

    /// Like [`Key::from_path`].
    fn from_str(path: &str) -> Result<Self> {
        Self::from_path(path)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.as_path_bytes()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(\"{}\")", self.as_path_bytes().escape_ascii())
    }
}

impl Encode for Key {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_encoded().encode(encoder)
    }
}

impl<Context> Decode<Context> for Key {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let encoded = Vec::<u8>::decode(decoder)?;
        match problem(&encoded) {
            Some(problem) => Err(DecodeError::Other(problem)),
            None => Ok(Self(Bytes::from(encoded))),
        }
    }
}

impl_borrow_decode!(Key);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        Key::from_path(path).unwrap()
    }

    #[test]
    fn a_key_is_a_list_of_sound_components() {
        let long = "x".repeat(Key::MAX_LEN);
        assert_eq!(key(&long).depth(), 1);
        let too_long = format!("{long}x");
        for wrong in ["", "/", "a/", "/a", "a//b", ".", "a/..", "../a", "a\0b", &too_long] {
            assert!(Key::from_path(wrong).is_err(), "{wrong:?}");
        }
        assert!(Key::new(["a/b"]).is_err());
        assert!(Key::new(["a\0b"]).is_err());
        assert!(Key::new(Vec::<&[u8]>::new()).is_err());
        assert!(key("a").join("b\0c").is_err());
        assert!(key("a").join("..").is_err());
        assert_eq!(Key::new(["...", "a b", ".x"]).unwrap().to_string(), ".../a b/.x");
    }

    #[test]
    fn parts_fit_together() {
        let path = key("a/b/c");
        assert_eq!(path.components().collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(path.file_name(), b"c");
        assert_eq!(path.parent(), Some(key("a/b")));
        assert_eq!(path.parent().unwrap().join("c").unwrap(), path);
        assert_eq!(key("a").parent(), None);
        assert!(path.starts_with(&key("a/b")) && path.starts_with(&path));
        assert!(!key("ab").starts_with(&key("a")) && !key("a").starts_with(&key("a/b")));
        assert_eq!(path.strip_prefix(&key("a")), Some(key("b/c")));
        assert_eq!(path.strip_prefix(&path), None);
        assert_eq!(key("ab/c").strip_prefix(&key("a")), None);
        assert_eq!(path.as_path_bytes(), b"a/b/c");
    }

    #[test]
    fn a_folder_and_what_it_holds_are_neighbours() {
        let sorted = ["a", "a/b", "a/b/c", "a/c", "a\u{1}", "a!", "a!/b", "a.b", "ab", "b"];
        assert!(sorted.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        for path in sorted {
            let inside = key(path) >= key("a") && key(path).as_encoded() < &key("a").position_beyond()[..];
            assert_eq!(inside, key(path).starts_with(&key("a")), "{path}");
        }
    }

    #[test]
    fn only_sound_keys_are_decoded() {
        let bytes = crate::codec::encode(&key("a/b"));
        assert_eq!(bytes, b"\x03a\0b");
        assert_eq!(crate::codec::decode::<Key>(&bytes, "key").unwrap(), key("a/b"));
        for wrong in [&b"\x00"[..], b"\x01\0", b"\x02a\0", b"\x02..", b"\x03a/b", b"\x04a\0\0b", b"\x03ab"] {
            assert!(crate::codec::decode::<Key>(wrong, "key").is_err(), "{wrong:?}");
        }
    }
}
