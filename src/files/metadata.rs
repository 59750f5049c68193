//! What a snapshot keeps of a path beside its kind and its bytes.
//!
//! Owns the stored form of metadata and the rules it must obey. Knows nothing
//! of how metadata is read from or written to a file system ([`super::Found`],
//! [`super::Destination`]).
//!
//! Layout: `Metadata` is [`Posix`] (absent for records that never were files,
//! so that these cost five bytes), then what belongs to the application and
//! what later versions add ([`Extensions`]).
//! Invariant: lists are sorted by name without repetition, nanoseconds are
//! below 10^9, mode has permission bits alone, and numbers that the system
//! reserves don't occur. [`Metadata::decode`] refuses everything else.

use crate::codec::{self, Decode, Encode, Extensions};
use crate::error::{Error, Result};

/// The bits of a mode that are stored: permissions, set-user-id, set-group-id, sticky.
const MODE_BITS: u32 = 0o7777;

/// The owner number that means "leave it alone" in system calls, and so never owns a file.
const NOBODY: u32 = u32::MAX;

/// A file's time stamp, with the range and precision of the file system's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct FileTime {
    /// Seconds since 1970-01-01T00:00:00Z; negative before it.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 10^9.
    pub nanos: u32,
}

/// What identifies a file with several names: all its names in a snapshot carry the same group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LinkGroup {
    /// The number of the file system when the file was read.
    pub device: u64,
    /// The file's number on it.
    pub inode: u64,
}

/// What a POSIX file system knows of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub struct Posix {
    /// Permission bits, set-user-id, set-group-id and sticky bit.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The owner's name, where the system knew it.
    pub user: Option<String>,
    /// The group's name, where the system knew it.
    pub group: Option<String>,
    /// When the content was last modified.
    pub modified: FileTime,
    /// When content or metadata last changed; can't be set, so it tells whether a file needs to be read.
    pub changed: FileTime,
    /// The file's number, to recognise it at the next backup.
    pub inode: u64,
    /// Present where the file has more than one name.
    pub links: Option<LinkGroup>,
    /// Extended attributes, POSIX ACLs among them (as `system.posix_acl_access` and `_default`), by name.
    pub extended: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything beside kind and content that a snapshot keeps of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub struct Metadata {
    /// Present where the path came from a file system.
    pub posix: Option<Posix>,
    /// When the application last modified a record; of a file, [`Posix::modified`] says it.
    pub modified: Option<FileTime>,
    /// The media type of the content, as the application names it.
    pub content_type: Option<String>,
    /// What else the application keeps with a record, by name.
    pub attributes: Vec<(String, Vec<u8>)>,
    /// What later versions add; kept as it is.
    pub(crate) extensions: Extensions,
}

impl Metadata {
    /// With the time at which the application last modified the record.
    #[must_use]
    pub fn with_modified(mut self, modified: FileTime) -> Self {
        self.modified = Some(modified);
        self
    }

    /// With the media type of the content.
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// With one more attribute of the application; takes the place of one of the same name.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.attributes.binary_search_by(|(other, _)| other.cmp(&name)) {
            Ok(at) => self.attributes[at].1 = value,
            Err(at) => self.attributes.insert(at, (name, value)),
        }
        self
    }

    /// Of a path on a file system.
    pub(crate) fn of_file(posix: Posix) -> Self {
        Self { posix: Some(posix), ..Self::default() }
    }

    /// The stored form, or why this metadata can't be stored.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        self.validate().map_err(|reason| Error::invalid("metadata", reason))?;
        Ok(codec::encode(self))
    }

    /// Reads the stored form; `object` names it in errors.
    pub(crate) fn decode(bytes: &[u8], object: impl std::fmt::Display) -> Result<Self> {
        let metadata: Self = codec::decode(bytes, &object)?;
        metadata.validate().map_err(|reason| Error::corrupt(&object, reason))?;
        metadata.extensions.require_known(&object)?;
        Ok(metadata)
    }

    /// Which rule of the stored form is broken, if one is.
    ///
    /// What passes can be handed to system calls: no name holds a NUL, no number has a second meaning.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if let Some(posix) = &self.posix {
            posix.validate()?;
        }
        if self.modified.is_some_and(|time| time.nanos >= 1_000_000_000) {
            return Err("nanoseconds are a second or more");
        }
        ascending(&self.attributes, |name| !name.is_empty())
            .then_some(())
            .ok_or("its attributes are not in order of their names")
    }
}

impl Posix {
    fn validate(&self) -> Result<(), &'static str> {
        let has_nul = |name: &Option<String>| name.as_ref().is_some_and(|name| name.contains('\0'));
        if self.mode & !MODE_BITS != 0 {
            Err("its mode has bits that aren't permissions")
        } else if self.uid == NOBODY || self.gid == NOBODY {
            Err("its owner can't own files")
        } else if has_nul(&self.user) || has_nul(&self.group) {
            Err("its owner's name holds a NUL")
        } else if [self.modified, self.changed].iter().any(|time| time.nanos >= 1_000_000_000) {
            Err("its time has too many nanoseconds")
        } else if !ascending(&self.extended, |name| !name.is_empty() && !name.contains(&0)) {
            Err("its extended attributes are not in order of their names")
        } else {
            Ok(())
        }
    }
}

/// Whether names ascend strictly and each is `good`.
fn ascending<K: Ord, V>(list: &[(K, V)], good: impl Fn(&K) -> bool) -> bool {
    list.iter().all(|(name, _)| good(name)) && list.is_sorted_by(|(a, _), (b, _)| a < b)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn full() -> Metadata {
        Metadata {
            posix: Some(Posix {
                mode: 0o4755,
                uid: 1000,
                gid: 0,
                user: Some("ana".into()),
                group: None,
                modified: FileTime { seconds: -1, nanos: 999_999_999 },
                changed: FileTime { seconds: 1 << 40, nanos: 1 },
                inode: 7,
                links: Some(LinkGroup { device: 1, inode: 7 }),
                extended: vec![(b"user.a".to_vec(), vec![]), (b"user.\xff".to_vec(), vec![0, 255])],
            }),
            modified: Some(FileTime { seconds: 5, nanos: 6 }),
            content_type: Some("text/vcard".into()),
            attributes: vec![("etag".into(), b"\"1\"".to_vec()), ("uid".into(), vec![])],
            extensions: Extensions::default(),
        }
    }

    #[test]
    fn records_round_trip_and_one_without_files_is_five_bytes() {
        for metadata in [Metadata::default(), full()] {
            let bytes = metadata.encode().unwrap();
            assert_eq!(Metadata::decode(&bytes, "m").unwrap(), metadata);
        }
        assert_eq!(Metadata::default().encode().unwrap(), [0, 0, 0, 0, 0]);
        let record = Metadata { posix: None, ..full() };
        let built = Metadata::default()
            .with_attribute("uid", [])
            .with_attribute("etag", "")
            .with_content_type("text/vcard")
            .with_modified(FileTime { seconds: 5, nanos: 6 });
        assert_eq!(built.with_attribute("etag", "\"1\""), record);
    }

    #[test]
    fn the_stored_form_holds_still() {
        let mut golden = vec![1, 251, 0xed, 0x09, 251, 0xe8, 3, 0, 1, 3];
        golden.extend(b"ana");
        golden.extend([0, 1, 252, 0xff, 0xc9, 0x9a, 0x3b, 253, 0, 0, 0, 0, 0, 2, 0, 0, 1, 7, 1, 1, 7, 2, 6]);
        golden.extend(
            b"user.a\x00\x06user.\xff\x02\x00\xff\x01\x0a\x06\x01\x0atext/vcard\x02\x04etag\x03\"1\"\x03uid\x00\x00",
        );
        assert_eq!(full().encode().unwrap(), golden);
    }

    #[test]
    fn broken_rules_are_refused_in_both_directions() {
        type Edit = fn(&mut Posix);
        let edits: [Edit; 10] = [
            |p| p.mode |= 0o100_000,
            |p| p.uid = u32::MAX,
            |p| p.gid = u32::MAX,
            |p| p.user = Some("a\0b".into()),
            |p| p.group = Some("\0".into()),
            |p| p.modified.nanos = 1_000_000_000,
            |p| p.changed.nanos = u32::MAX,
            |p| p.extended.reverse(),
            |p| p.extended[1] = p.extended[0].clone(),
            |p| p.extended[0].0.clear(),
        ];
        for (n, edit) in edits.iter().enumerate() {
            let mut metadata = full();
            edit(metadata.posix.as_mut().unwrap());
            assert!(metadata.encode().is_err(), "edit {n}");
            assert!(Metadata::decode(&codec::encode(&metadata), "m").unwrap_err().is_corrupt(), "edit {n}");
        }
        let mut metadata = full();
        metadata.modified = Some(FileTime { seconds: 0, nanos: 1_000_000_000 });
        assert!(metadata.encode().is_err());
        assert!(Metadata::decode(&codec::encode(&metadata), "m").unwrap_err().is_corrupt());
        let mut metadata = full();
        metadata.attributes.swap(0, 1);
        assert!(Metadata::decode(&codec::encode(&metadata), "m").unwrap_err().is_corrupt());
    }

    #[test]
    fn an_extension_is_kept_unless_it_must_be_understood() {
        let odd = Metadata { extensions: Extensions::default().with(1, b"new").with(7, []), ..full() };
        let bytes = odd.encode().unwrap();
        assert_eq!(Metadata::decode(&bytes, "m").unwrap(), odd);
        let changed = Metadata::decode(&bytes, "m").unwrap().with_attribute("etag", "\"2\"");
        assert_eq!(Metadata::decode(&changed.encode().unwrap(), "m").unwrap().extensions, odd.extensions);
        let even = Metadata { extensions: Extensions::default().with(1, []).with(2, []), ..full() };
        let error = Metadata::decode(&even.encode().unwrap(), "m").unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains("needs extension 2"), "{error}");
    }

    #[test]
    fn no_damage_panics_or_passes_for_the_original() {
        let bytes = full().encode().unwrap();
        for at in 0..bytes.len() {
            assert!(Metadata::decode(&bytes[..at], "m").is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                if let Ok(metadata) = Metadata::decode(&bytes, "m") {
                    assert_ne!(metadata, full());
                    assert_eq!(metadata.encode().unwrap(), bytes);
                }
            }
        }
        assert!(Metadata::decode(&[bytes, vec![0]].concat(), "m").is_err());
    }
}
