//! What the library logs, on standard error and above the progress bar.

use std::io::{self, Write};

use tracing_subscriber::filter::LevelFilter;

use crate::arguments::Global;
use crate::progress;

/// Shows warnings, with `--verbose` also what the library does.
pub(crate) fn start(global: &Global) {
    let level = if global.verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(|| AboveTheBar)
        .init();
}

/// Writes lines that a progress bar doesn't overwrite.
struct AboveTheBar;

impl Write for AboveTheBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
