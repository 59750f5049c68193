//! Extended attributes, all of a file's at once; POSIX ACLs are among them.

use std::io;

use rustix::io::Errno;

use super::place::Place;

/// The attributes of one file: names and values, sorted by name.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// No more bytes of attributes are kept of one file, so that its record can be read back.
const TOTAL_MAX: usize = 16 << 20;

/// Buffers to try, in bytes; Linux allows 64 KiB for a value or a list of names.
const BUFFERS: [usize; 4] = [256, 4 << 10, 64 << 10, TOTAL_MAX];

/// The beginning of the names of access control lists.
pub(crate) const LISTS: &[u8] = b"system.posix_acl_";

/// The access control list of a path itself.
pub(crate) const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// The access control list of what stands at `place`, where it has one that can be read.
pub(crate) fn access_list(place: &Place<'_>) -> Option<Vec<u8>> {
    if place.has_attributes() { grow(|buffer| place.attribute(ACCESS_LIST, buffer)).ok() } else { None }
}

/// Reads all attributes. What can't be read is left out and told in `problems`.
pub(crate) fn read(place: &Place<'_>, problems: &mut Vec<io::Error>) -> Attributes {
    if !place.has_attributes() {
        return Attributes::new();
    }
    let names = match grow(|buffer| place.attribute_names(buffer)) {
        Ok(names) => names,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Attributes::new(),
        Err(error) => {
            problems.push(error.into());
            return Attributes::new();
        }
    };
    let mut attributes = Attributes::new();
    let mut total = names.len();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match grow(|buffer| place.attribute(name, buffer)) {
            Ok(value) if total.saturating_add(value.len()) > TOTAL_MAX => {
                problems.push(explain(name, Errno::TOOBIG));
            }
            Ok(value) => {
                total += value.len();
                attributes.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {} // removed since it was listed
            Err(error) => problems.push(explain(name, error)),
        }
    }
    attributes.sort_unstable();
    attributes.dedup_by(|a, b| a.0 == b.0);
    attributes
}

/// What has to be done to turn the attributes of a file into those wanted.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    set: Vec<(&'a [u8], &'a [u8])>,
    remove: Vec<&'a [u8]>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(current: &'a Attributes, wanted: &'a Attributes) -> Self {
        let set = wanted.iter().filter(|attribute| current.binary_search(attribute).is_err());
        let lacks = |name: &Vec<u8>| wanted.binary_search_by(|(wanted, _)| wanted.cmp(name)).is_err();
        let remove = current.iter().filter(|(name, _)| is_removable(name) && lacks(name));
        Self {
            set: set.map(|(name, value)| (name.as_slice(), value.as_slice())).collect(),
            remove: remove.map(|(name, _)| name.as_slice()).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// The changes to access control lists, and the others.
    ///
    /// Lists are set after the mode, whose group bits mean something else beside one.
    pub(crate) fn split_lists(self) -> (Self, Self) {
        let is_list = |name: &[u8]| name.starts_with(b"system.");
        let (set_lists, set) = self.set.into_iter().partition(|(name, _)| is_list(name));
        let (remove_lists, remove) = self.remove.into_iter().partition(|name| is_list(name));
        (Self { set: set_lists, remove: remove_lists }, Self { set, remove })
    }

    /// Does it; what can't be done is told in `problems`.
    pub(crate) fn apply(&self, place: &Place<'_>, problems: &mut Vec<io::Error>) {
        for name in &self.remove {
            match place.remove_attribute(name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(error) => problems.push(explain(name, error)),
            }
        }
        for (name, value) in &self.set {
            if let Err(error) = place.set_attribute(name, value) {
                problems.push(explain(name, error));
            }
        }
    }
}

/// Whether an attribute that a snapshot lacks is removed; labels that the system gives of itself aren't.
fn is_removable(name: &[u8]) -> bool {
    const OURS: [&[u8]; 4] = [b"user.", b"trusted.", b"system.posix_acl_", b"security.capability"];
    OURS.iter().any(|prefix| name.starts_with(prefix))
}

/// Calls with larger and larger buffers until one suffices.
fn grow(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    for size in BUFFERS {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::TOOBIG)
}

/// The error with the attribute's name in front.
fn explain(name: &[u8], error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(name)))
}
