//! Ctrl-C: the operation's future is dropped, which the library allows at any moment.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::trouble::Trouble;

/// Runs an operation until it is done or the process is told to stop; `left` says then what has been left behind.
pub(crate) async fn unless_interrupted<T>(
    operation: impl Future<Output = backstop::Result<T>>,
    left: impl FnOnce() -> String,
) -> Result<T, Trouble> {
    let listen = |kind| signal(kind).map_err(|error| Trouble::new("could not listen for signals").caused_by(error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let kind = tokio::select! {
        result = operation => return Ok(result?),
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
    };
    // As shells count: 128 and the signal's number, 130 for Ctrl-C.
    let status = u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX);
    Err(Trouble::new(format!("interrupted: {}", left())).with_status(status))
}
