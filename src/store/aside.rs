//! What was found in the store and couldn't be used, and was gone around.
//!
//! An object that doesn't open proves nothing: it is neither believed nor built
//! upon, and it stops nobody who can do without it. That it is there is remembered
//! here, once for each name, so that whoever went around it can say so.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Names that are remembered; beyond them only the log tells.
const NAMES_MAX: usize = 1000;

/// An object that couldn't be used, and that what was asked for could do without.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutAside {
    /// The object's name.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for PutAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.reason)
    }
}

/// The objects that were put aside through one repository handle and its clones.
#[derive(Debug, Default)]
pub(super) struct Aside(Mutex<BTreeMap<String, String>>);

impl Aside {
    /// Remembers an object, and says in the log that it was put aside, once for each that is remembered.
    pub(super) fn add(&self, object: &str, reason: String) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(object) {
            return;
        }
        tracing::warn!(object, reason, "an object can't be used and is put aside");
        if known.len() < NAMES_MAX {
            known.insert(object.to_owned(), reason);
        }
    }

    /// Everything that was put aside so far, by name.
    pub(super) fn list(&self) -> Vec<PutAside> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(object, reason)| PutAside { object: object.clone(), reason: reason.clone() }).collect()
    }
}

/// What an error says is wrong with an object, without the name of the object.
pub(super) fn reason(error: Error) -> String {
    match error {
        Error::Corrupt { reason, .. } | Error::Unsupported { reason, .. } => reason,
        other => other.to_string(),
    }
}
