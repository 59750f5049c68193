//! One error type, its variants told apart by what a caller would do differently.
//!
//! Messages are lower case, name the object or path, and say what to do where
//! something can be done. A source is never repeated in the message: print the
//! chain. What `check` finds is data ([`crate::Finding`]), not an error.

use std::path::{Path, PathBuf};

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Everything that can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A named object, snapshot or path does not exist.
    #[error("{object} does not exist")]
    NotFound {
        /// What was looked for.
        object: String,
    },

    /// Something exists that was to be created, or another writer won.
    #[error("{object}: {reason}")]
    Conflict {
        /// What was contended for.
        object: String,
        /// Who won, and what to do.
        reason: String,
    },

    /// Another writer committed first and changed some of the same paths.
    #[error(
        "{series}#{number} was committed meanwhile and changed some of the same paths ({}); take a new writer, which \
         starts from it, and make the changes again",
        paths.join(", ")
    )]
    Overlap {
        /// The series.
        series: String,
        /// The number of the snapshot that is there.
        number: u64,
        /// The first of the paths.
        paths: Vec<String>,
    },

    /// A change was handed over, and whether it is committed is not known: it may be, now or later.
    #[error(
        "whether a change to series {series:?} is committed is not known: {reason}; it may be or come to be, \
         so read it back later or make it again"
    )]
    Unsettled {
        /// The series.
        series: String,
        /// What is known of it.
        reason: String,
    },

    /// Stored bytes are not what they should be: damaged, cut short, or forged.
    #[error("{object} is damaged: {reason}; run a check, and repair it, from a copy of the repository if there is one")]
    Corrupt {
        /// The object or blob.
        object: String,
        /// What was expected and what was found.
        reason: String,
    },

    /// The object store failed.
    #[error("the object store failed to {operation} {object}{advice}")]
    Store {
        /// What was attempted.
        operation: &'static str,
        /// On which object or prefix.
        object: String,
        /// What to do about it, where that is known; begins with a colon, or is empty.
        advice: &'static str,
        /// Whether trying again may help.
        retryable: bool,
        /// What the store said.
        #[source]
        source: Source,
    },

    /// A local file or folder could not be read or written.
    #[error("could not {operation} {}", path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// The repository was opened with a secret that only lets add to it.
    #[error("can't {operation}: the repository was opened with an append-only secret; open it with an administrator's")]
    AppendOnly {
        /// What was to be done.
        operation: &'static str,
    },

    /// No key slot opens with the secret that was given.
    #[error("the secret is wrong: it opens none of the repository's {slots} key slots")]
    WrongSecret {
        /// How many slots were tried.
        slots: usize,
    },

    /// The repository isn't the one whose fingerprint was given.
    #[error(
        "the repository at {location} has the fingerprint {found}, not {wanted}: it is another one, or somebody has put \
         another in its place; don't give it a secret or data before you know which"
    )]
    OtherRepository {
        /// Where it is.
        location: String,
        /// Its fingerprint.
        found: String,
        /// The fingerprint that was asked for.
        wanted: String,
    },

    /// The store lets a name be created twice, so two writers could destroy each other's work.
    #[error(
        "{store} can't be written to safely: {reason}; use a store that supports conditional puts, \
         or, if only one writer will ever run at a time, open it in single-writer mode"
    )]
    UnsafeStore {
        /// The store.
        store: String,
        /// What it did wrong.
        reason: String,
    },

    /// Something the caller passed can't be used.
    #[error("{what}: {reason}")]
    Invalid {
        /// The argument.
        what: String,
        /// Why not, and what would do.
        reason: String,
    },

    /// The object is sound but asks for something this build does not have.
    #[error("{object} can't be used by this build: {reason}")]
    Unsupported {
        /// The object or feature.
        object: String,
        /// What is missing.
        reason: String,
    },

    /// A worker of this library failed; a bug or an exhausted system.
    #[error("a worker stopped unexpectedly: {reason}")]
    Worker {
        /// What is known of it.
        reason: String,
    },
}

impl Error {
    /// Of two failures to get at one thing, the one that is told: as long as it isn't known what the store has, nothing is
    /// damaged or missing.
    pub(crate) fn graver(before: Option<Self>, after: Self) -> Self {
        match before {
            Some(before) if !before.tells_of_objects() => before,
            _ => after,
        }
    }

    /// Whether it says something of stored objects, rather than that they couldn't be looked at.
    pub(crate) fn tells_of_objects(&self) -> bool {
        matches!(self, Error::NotFound { .. } | Error::Corrupt { .. } | Error::Unsupported { .. })
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Error::NotFound { .. } => true,
            Error::File { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether another writer won; beginning again from the newest state may succeed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict { .. } | Error::Overlap { .. })
    }

    /// Whether it is open if a change was or will be committed.
    pub fn is_unsettled(&self) -> bool {
        matches!(self, Error::Unsettled { .. })
    }

    /// Whether stored bytes are damaged; another copy is needed.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }

    /// Whether what was met is sound and needs a newer version of this library.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Error::Unsupported { .. })
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Store { retryable: true, .. })
    }

    pub(crate) fn not_found(object: impl ToString) -> Self {
        Error::NotFound { object: object.to_string() }
    }

    pub(crate) fn conflict(object: impl ToString, reason: impl ToString) -> Self {
        Error::Conflict { object: object.to_string(), reason: reason.to_string() }
    }

    pub(crate) fn corrupt(object: impl ToString, reason: impl ToString) -> Self {
        Error::Corrupt { object: object.to_string(), reason: reason.to_string() }
    }

    pub(crate) fn invalid(what: impl ToString, reason: impl ToString) -> Self {
        Error::Invalid { what: what.to_string(), reason: reason.to_string() }
    }

    pub(crate) fn unsupported(object: impl ToString, reason: impl ToString) -> Self {
        Error::Unsupported { object: object.to_string(), reason: reason.to_string() }
    }

    pub(crate) fn worker(reason: impl ToString) -> Self {
        Error::Worker { reason: reason.to_string() }
    }

    pub(crate) fn file(operation: &'static str, path: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Self {
        Error::File { operation, path: path.as_ref().to_owned(), source: source.into() }
    }
}

/// For the `AsyncRead` and `AsyncSeek` surface: keeps the kind where there is one.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::Corrupt { .. } => ErrorKind::InvalidData,
            Error::Invalid { .. } => ErrorKind::InvalidInput,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::File { source, .. } => source.kind(),
            _ => ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}
