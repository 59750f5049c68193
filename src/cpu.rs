//! Runs work apart from the future that wants it: on threads that may be busy, or as a task of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::Handle;
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
    on_cpu_thread(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        // Nobody listens any more: the operation was dropped.
        drop(sender.send(outcome));
    });
    async move { receiver.await.unwrap_or_else(|_| Err(Error::worker("a CPU thread ended early"))) }
}

fn on_cpu_thread(work: impl FnOnce() + Send + 'static) {
    #[cfg(test)]
    if inline::is_on() {
        return work();
    }
    rayon::spawn(work);
}

/// Runs `work`, which may block, on a thread of its own.
pub(crate) async fn block<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    #[cfg(test)]
    if inline::is_on() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => Err(panicked(&*error.into_panic())),
        Err(error) => Err(Error::worker(error)),
    }
}

/// Runs `work`, which takes much of a CPU between its awaits, on a thread of its own; the waiting is the runtime's.
pub(crate) async fn drive<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    #[cfg(test)]
    if inline::is_on() {
        return work.await;
    }
    let runtime = Handle::current();
    block(move || runtime.block_on(work)).await
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

/// A switch, for each thread, that makes work run where it is asked for: then nothing depends on other threads.
#[cfg(test)]
pub(crate) mod inline {
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether this thread's work runs on it.
    pub(crate) fn is_on() -> bool {
        ON.get()
    }

    /// From now on it does, or doesn't.
    pub(crate) fn switch(on: bool) {
        ON.set(on);
    }
}
