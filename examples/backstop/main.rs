//! The `backstop` command: backs up and restores from a terminal or a script.
//!
//! Uses the library's public interface alone. What it prints with `--json` is
//! described in `docs/command-line.md`.

mod arguments;
mod commands;
mod connection;
mod human;
mod interrupt;
mod json;
mod log;
mod output;
mod process;
mod progress;
mod secret;
mod selector;
mod trouble;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command, KeyCommand};
use crate::commands::Done;
use crate::output::Output;
use crate::trouble::Trouble;

/// How the process ends.
mod status {
    pub(crate) const DONE: u8 = 0;
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const PARTIAL: u8 = 3;
}

fn main() -> ExitCode {
    process::protect();
    let arguments = Arguments::parse();
    let json = arguments.global.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Trouble::new("could not start the worker threads").caused_by(error).report(json),
    };
    let result = runtime.block_on(run(arguments));
    // What still runs is reading a stream that may never end; nothing of it counts any more.
    runtime.shutdown_background();
    match result {
        Ok(Done::Complete) => ExitCode::from(status::DONE),
        Ok(Done::Partial) => ExitCode::from(status::PARTIAL),
        Ok(Done::Found) => ExitCode::from(status::FAILED),
        // Whoever reads has seen enough, as `head` does.
        Err(trouble) if trouble.is_closed_output() => ExitCode::from(status::DONE),
        Err(trouble) => trouble.report(json),
    }
}

async fn run(arguments: Arguments) -> Result<Done, Trouble> {
    let Arguments { global, command } = arguments;
    log::start(&global);
    let mut output = Output::new(&global);
    // These two look at every object, and tell of each what they make of it.
    let tells_itself = matches!(command, Command::Check(_) | Command::Repair(_));
    let done = match command {
        Command::Init(arguments) => commands::init(&global, &arguments, &mut output).await,
        Command::Backup(arguments) => commands::backup(&global, &arguments, &mut output).await,
        Command::Snapshots(arguments) => commands::snapshots(&global, &arguments, &mut output).await,
        Command::Ls(arguments) => commands::ls(&global, &arguments, &mut output).await,
        Command::Cat(arguments) => commands::cat(&global, &arguments).await,
        Command::Diff(arguments) => commands::diff(&global, &arguments, &mut output).await,
        Command::History(arguments) => commands::history(&global, &arguments, &mut output).await,
        Command::Restore(arguments) => commands::restore(&global, &arguments, &mut output).await,
        Command::Check(arguments) => commands::check(&global, &arguments, &mut output).await,
        Command::Repair(arguments) => commands::repair(&global, &arguments, &mut output).await,
        Command::Key(KeyCommand::List) => commands::key_list(&global, &mut output).await,
        Command::Key(KeyCommand::Add(arguments)) => commands::key_add(&global, &arguments, &mut output).await,
        Command::Key(KeyCommand::Remove(arguments)) => commands::key_remove(&global, &arguments, &mut output).await,
        Command::Key(KeyCommand::Rotate) => commands::key_rotate(&global, &mut output).await,
        Command::Probe(arguments) => commands::probe(&global, &arguments, &mut output).await,
        Command::Stats => commands::stats(&global, &mut output).await,
        Command::Merge(arguments) => commands::merge(&global, &arguments, &mut output).await,
        Command::Forget(arguments) => commands::forget(&global, &arguments, &mut output).await,
        Command::Undelete(arguments) => commands::undelete(&global, &arguments, &mut output).await,
        Command::Gc(arguments) => commands::gc(&global, &arguments, &mut output).await,
    }?;
    output.flush()?;
    Ok(if !tells_itself && connection::tell_put_aside() { done.or_partial() } else { done })
}
