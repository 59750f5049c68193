//! Runs work apart from the future that wants it: on threads that may be busy, or as a task of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::error::{Error, Result};

/// Starts `work` on the CPU threads at once; the returned future only waits for it.
///
/// Dropping the future doesn't stop the work, which must not block. A panic
/// becomes [`Error::Worker`].
pub(crate) fn start<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send + 'static {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        // Nobody listens any more: the operation was dropped.
        drop(sender.send(outcome));
    });
    async move { receiver.await.unwrap_or_else(|_| Err(Error::worker("a CPU thread ended early"))) }
}

/// Runs `work`, which may block, on a thread of its own.
pub(crate) async fn block<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => Err(panicked(&*error.into_panic())),
        Err(error) => Err(Error::worker(error)),
    }
}

/// Runs `work` as a task of its own, which goes on while nobody polls the caller, and ends when the caller is dropped.
///
/// For what others wait for, such as a lock that is held across an await: futures that are read ahead aren't polled
/// while their consumer does something else, and that may be to wait for the very thing that one of them holds.
pub(crate) async fn apart<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let mut task = JoinSet::new();
    task.spawn(work);
    match task.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) if error.is_panic() => Err(panicked(&*error.into_panic())),
        Some(Err(error)) => Err(Error::worker(error)),
        None => Err(Error::worker("a task was lost")),
    }
}

/// Runs `work` as a task of its own, which goes on to its end even if the caller is dropped.
///
/// For what may not be left half done, such as a step on state that outlives the call.
pub(crate) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => Err(panicked(&*error.into_panic())),
        Err(error) => Err(Error::worker(error)),
    }
}

/// What a panic said, as an error.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::worker(format!("it panicked: {}", said.unwrap_or("for no stated reason")))
}
