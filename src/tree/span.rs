//! A contiguous part of the order of keys.

use std::fmt;

use bytes::Bytes;

use super::key::Key;
use super::node::Child;

/// The keys from a start up to an end. Neither needs to be a key itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first position in the span; the empty one lies before all keys.
    pub(super) start: Bytes,
    /// The first position after it; none if it has no end.
    pub(super) end: Option<Bytes>,
}

impl Span {
    /// All keys.
    pub(crate) fn all() -> Self {
        Self::default()
    }

    /// `key` and everything below it.
    pub(crate) fn subtree(key: &Key) -> Self {
        Self { start: Bytes::copy_from_slice(key.as_encoded()), end: Some(key.position_beyond()) }
    }

    /// The subtree of `prefix`, or all keys.
    pub(crate) fn of(prefix: Option<&Key>) -> Self {
        prefix.map_or_else(Self::all, Self::subtree)
    }

    /// What is below `folder` without itself, or all keys.
    pub(crate) fn below(folder: Option<&Key>) -> Self {
        match folder {
            Some(key) => Self { start: key.position_below(), end: Some(key.position_beyond()) },
            None => Self::all(),
        }
    }

    /// The part of this span that comes after `key`.
    #[must_use]
    pub(crate) fn after(self, key: &Key) -> Self {
        Self { start: self.start.max(key.position_below()), end: self.end }
    }

    /// The part of this span that comes after `key` and everything below it.
    #[must_use]
    pub(crate) fn beyond(self, key: &Key) -> Self {
        Self { start: self.start.max(key.position_beyond()), end: self.end }
    }

    /// Whether `key` lies in the span.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        key.as_encoded() >= &self.start[..] && !self.ends_before(key)
    }

    /// Whether all of another span lies in this one.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let ends = match (&self.end, &other.end) {
            (None, _) => true,
            (Some(end), Some(other)) => other <= end,
            (Some(_), None) => false,
        };
        ends && self.start <= other.start
    }

    /// Whether `key` lies after the span.
    pub(super) fn ends_before(&self, key: &Key) -> bool {
        self.end.as_ref().is_some_and(|end| key.as_encoded() >= &end[..])
    }

    /// Whether the range of a node shares a position with the span.
    pub(super) fn touches(&self, child: &Child) -> bool {
        let before = child.upper.as_ref().is_some_and(|upper| upper.as_encoded() <= &self.start[..]);
        !before && !self.ends_before(&child.first)
    }

    /// Whether the whole range of a node lies in the span.
    pub(super) fn covers(&self, child: &Child) -> bool {
        let ends = match (&self.end, &child.upper) {
            (None, _) => true,
            (Some(end), Some(upper)) => upper.as_encoded() <= &end[..],
            (Some(_), None) => false,
        };
        ends && child.first.as_encoded() >= &self.start[..]
    }
}

/// For people: which paths it is about.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |position: &Bytes| String::from_utf8_lossy(position).replace('\0', "/");
        match (&self.end, self.start.is_empty()) {
            (None, true) => f.write_str("everything"),
            (None, false) => write!(f, "everything from {}", path(&self.start)),
            (Some(end), true) => write!(f, "everything before {}", path(end)),
            (Some(end), false) => write!(f, "everything from {} to before {}", path(&self.start), path(end)),
        }
    }
}
