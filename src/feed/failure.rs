//! What callers are told of what failed for several of them.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::snapshot::Failure;

/// The error for one change of those that `cause` kept from being committed: none of it is applied.
pub(super) fn failure(cause: &Arc<Error>) -> Error {
    match &**cause {
        Error::NotFound { object } => Error::not_found(object),
        Error::Conflict { object, reason } => Error::conflict(object, reason),
        Error::Corrupt { object, reason } => Error::corrupt(object, reason),
        Error::Store { retryable, .. } => Error::Store {
            operation: "take in",
            object: "a change of a feed".to_owned(),
            advice: "; it was not applied",
            retryable: *retryable,
            source: Box::new(Arc::clone(cause)),
        },
        Error::UnsafeStore { store, reason } => Error::UnsafeStore { store: store.clone(), reason: reason.clone() },
        Error::Invalid { what, reason } => Error::invalid(what, reason),
        Error::Unsupported { object, reason } => Error::unsupported(object, reason),
        Error::Unsettled { series, reason } => unsettled(series, reason),
        other => Error::worker(causes(other)),
    }
}

/// The error for a change that never got into the queue.
pub(super) fn no_room(waited: Duration, trouble: Option<String>) -> Error {
    let trouble = trouble.unwrap_or_else(|| "more changes came than could be committed".to_owned());
    Error::Store {
        operation: "take in",
        object: "a change of a feed".to_owned(),
        advice: "; it was not applied, others still wait to be",
        retryable: true,
        source: format!("there was no room within {waited:?}: {trouble}").into(),
    }
}

/// The error for a change whose outcome isn't known.
pub(super) fn unsettled(series: &str, reason: impl Into<String>) -> Error {
    Error::Unsettled { series: series.to_owned(), reason: reason.into() }
}

/// An error and everything that caused it, in one line.
pub(super) fn causes(error: &Error) -> String {
    Failure::new("", error).reason
}
