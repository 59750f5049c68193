//! `backup`.

use backstop::{BackupOptions, BackupReport, Phase, SnapshotStats};

use crate::arguments::{BackupArguments, Global};
use crate::commands::Done;
use crate::interrupt::unless_interrupted;
use crate::output::Output;
use crate::progress::Watch;
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn backup(global: &Global, arguments: &BackupArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let watch = Watch::start(global);
    let options = options(arguments).with_estimate(watch.is_shown());
    let operation = async {
        match &arguments.stdin {
            Some(name) => repository.backup_stream(name, tokio::io::stdin(), &options, watch.progress()).await,
            None => repository.backup(&arguments.paths, &options, watch.progress()).await,
        }
    };
    let left = || match watch.phase() {
        Some(Phase::Committing) => "the snapshot may have been committed; `backstop snapshots` tells".to_owned(),
        _ => "nothing was committed".to_owned(),
    };
    let report = unless_interrupted(operation, left).await?;
    drop(watch);
    output.summary(|| json::backup(&report), || describe(&report, global.verbose))?;
    Ok(if report.failures.is_empty() { Done::Complete } else { Done::Partial })
}

fn options(arguments: &BackupArguments) -> BackupOptions {
    let mut options = BackupOptions::default().with_series(&arguments.series).with_dry_run(arguments.dry_run);
    options.host = arguments.host.clone().unwrap_or_else(host);
    options.tags = arguments.tags.iter().cloned().collect();
    options.excludes.clone_from(&arguments.exclude);
    options.exclude_files.clone_from(&arguments.exclude_file);
    options.one_file_system = arguments.one_file_system;
    options.compression_level = arguments.compression_level.unwrap_or(options.compression_level);
    options.read_all = arguments.read_all;
    options.heal = arguments.heal;
    options.readers = arguments.readers;
    options
}

/// This machine's name.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn describe(report: &BackupReport, verbose: bool) -> String {
    let stats = &report.stats;
    let mut text = match &report.snapshot {
        Some(snapshot) => format!("snapshot {}", human::visible(&snapshot.to_string())),
        None => "dry run, nothing was stored".to_owned(),
    };
    text.push_str(&format!(
        ": {}, {}; {} added, {} changed, {} removed; read {}, stored {}",
        human::counted(stats.files, "file", "files"),
        human::bytes(stats.bytes),
        human::count(stats.added),
        human::count(stats.changed),
        human::count(stats.removed),
        human::bytes(stats.bytes_read),
        human::bytes(stats.stored_bytes),
    ));
    if verbose {
        text.push_str(&details(stats));
    }
    if !report.failures.is_empty() {
        let failures = human::counted(report.failures.len() as u64, "path", "paths");
        text.push_str(&format!("\npartial: {failures} could not be read, see the warnings"));
    }
    text
}

fn details(stats: &SnapshotStats) -> String {
    format!(
        "\n  {}, {}\n  {} of {} before compression",
        human::counted(stats.folders, "folder", "folders"),
        human::counted(stats.others, "link or special file", "links and special files"),
        human::counted(stats.new_blobs, "new blob", "new blobs"),
        human::bytes(stats.new_bytes),
    )
}
