//! Runs work that keeps a core busy, away from the async executor's threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

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

/// What a panic said, as an error.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::worker(format!("it panicked: {}", said.unwrap_or("for no stated reason")))
}
