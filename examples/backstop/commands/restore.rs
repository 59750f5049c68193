//! `restore`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use backstop::{RestoreOptions, RestoreReport, Snapshot};

use crate::arguments::{Global, RestoreArguments};
use crate::commands::Done;
use crate::interrupt::unless_interrupted;
use crate::output::Output;
use crate::progress::Watch;
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn restore(
    global: &Global,
    arguments: &RestoreArguments,
    output: &mut Output,
) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let snapshot = repository.find(&arguments.target.snapshot).await?;
    let options = options(arguments);
    let watch = Watch::start(global);
    let (path, destination) = (arguments.target.path.as_ref(), &arguments.destination);
    let operation = repository.restore(&snapshot, path, destination, &options, watch.progress());
    let left = || "the destination is restored in part; run the same command again to go on".to_owned();
    let report = unless_interrupted(operation, left).await?;
    drop(watch);
    output.summary(
        || json::restore(&report, &snapshot, arguments.dry_run),
        || describe(&report, &snapshot, arguments, global.verbose),
    )?;
    Ok(if report.is_partial() { Done::Partial } else { Done::Complete })
}

fn options(arguments: &RestoreArguments) -> RestoreOptions {
    RestoreOptions::default()
        .with_delete(arguments.delete)
        .with_dry_run(arguments.dry_run)
        .with_owners(!arguments.no_owners)
        .with_special_files(!arguments.no_special)
        .with_set_id(!arguments.no_set_id)
        .with_extended_attributes(!arguments.no_xattrs)
}

fn describe(report: &RestoreReport, snapshot: &Snapshot, arguments: &RestoreArguments, verbose: bool) -> String {
    let destination = &arguments.destination;
    let single = report.folders == 0 && report.files + report.others == 1;
    let place = match arguments.target.path.as_ref().filter(|_| single) {
        Some(path) => destination.join(OsStr::from_bytes(path.file_name())),
        None => destination.clone(),
    };
    let mut text = format!(
        "{} {} to {}: {}, {}; {} written, {} unchanged, {} removed",
        if arguments.dry_run { "dry run, would restore" } else { "restored" },
        human::visible(&snapshot.to_string()),
        human::visible(&place.display().to_string()),
        human::counted(report.files, "file", "files"),
        human::bytes(report.bytes),
        human::bytes(report.bytes_written),
        human::count(report.unchanged),
        human::count(report.deleted),
    );
    if verbose {
        let folders = human::counted(report.folders, "folder", "folders");
        let others = human::counted(report.others, "link or special file", "links and special files");
        text.push_str(&format!("\n  {folders}, {others}"));
    }
    if report.left_out > 0 {
        let left_out = human::counted(report.left_out, "special file was", "special files were");
        text.push_str(&format!("\n{left_out} left out, as asked for"));
    }
    if report.is_partial() {
        let failures = human::counted(report.failure_count, "path", "paths");
        text.push_str(&format!("\npartial: {failures} could not be restored, see the warnings; run it again to go on"));
    }
    text
}
