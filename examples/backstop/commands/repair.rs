//! `repair`.

use backstop::{RepairOptions, RepairPlan, RepairReport, SnapshotLoss};

use crate::arguments::{Global, RepairArguments};
use crate::commands::Done;
use crate::interrupt::unless_interrupted;
use crate::output::Output;
use crate::progress::Watch;
use crate::trouble::Trouble;
use crate::{connection, human, json};

/// How many lost paths of one snapshot people are shown; scripts get them all.
const PATHS_MAX: usize = 20;

pub(crate) async fn repair(global: &Global, arguments: &RepairArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let mut options = RepairOptions::default()
        .with_accept_loss(arguments.accept_loss)
        .with_remove_damaged_writers(arguments.remove_damaged_writers)
        .with_remove_nameless(arguments.remove_nameless);
    options.series.clone_from(&arguments.series);
    if let Some(other) = &arguments.other {
        options = options.with_other(connection::open_other(global, other).await?);
    }
    let watch = Watch::start(global);
    let operation = repository.plan_repair(&options, watch.progress());
    let plan = unless_interrupted(operation, || "nothing was changed".to_owned()).await?;
    drop(watch);
    for step in &plan.steps {
        output.item(|| json::repair_step(step), || human::visible(&step.to_string()))?;
    }
    for loss in &plan.lost {
        output.item(|| json::loss(loss), || describe_loss(loss))?;
    }
    if arguments.dry_run || !plan.is_due() {
        output.summary(|| json::repair_plan(&plan), || describe_plan(&plan))?;
        return Ok(match plan.has_damage() {
            true => Done::Found,
            false if plan.is_sound() => Done::Complete,
            false => Done::Partial,
        });
    }
    let watch = Watch::start(global);
    let operation = repository.repair(plan, watch.progress());
    let report = unless_interrupted(operation, || "the repair is not complete; run it again".to_owned()).await?;
    drop(watch);
    output.summary(|| json::repair_report(&report), || describe(&report))?;
    Ok(if report.is_complete() { Done::Complete } else { Done::Partial })
}

fn describe_loss(loss: &SnapshotLoss) -> String {
    let forgotten = if loss.forgotten { ", which was forgotten," } else { "" };
    let paths = human::counted(loss.paths.len() as u64, "path", "paths");
    let mut text = format!("{}#{}{forgotten} lacks {paths}", human::visible(&loss.series), loss.number);
    for failure in loss.paths.iter().take(PATHS_MAX) {
        let (path, reason) = (human::visible(&failure.path), human::visible(&failure.reason));
        text.push_str(&format!("\n  {path}: {reason}"));
    }
    let more = loss.paths.len().saturating_sub(PATHS_MAX) as u64;
    if more > 0 {
        text.push_str(&format!("\n  and {} more; --json lists them all", human::count(more)));
    }
    text
}

fn describe_plan(plan: &RepairPlan) -> String {
    let read = format!("{} in {}", human::bytes(plan.bytes_read), human::counted(plan.packs_read, "pack", "packs"));
    if plan.is_sound() {
        return format!("read {read}; nothing to repair");
    }
    let steps = plan.steps.iter().filter(|step| step.action != backstop::RepairAction::None).count() as u64;
    let for_people = plan.steps.len() as u64 - steps;
    let steps = human::counted(steps, "step", "steps");
    format!("read {read}; {steps} to take, {} that need more than this repair may do", human::count(for_people))
}

fn describe(report: &RepairReport) -> String {
    let mut text = format!(
        "copied {}, saved {} out of damaged packs, wrote {}, deleted {}",
        human::counted(report.objects_copied, "object", "objects"),
        human::counted(report.blobs_salvaged + report.blobs_copied, "blob", "blobs"),
        human::counted(report.packs_written + report.segments_written, "new object", "new objects"),
        human::counted(report.deleted, "object", "objects"),
    );
    for (series, old, new) in &report.rewritten {
        let series = human::visible(series);
        text.push_str(&format!("\nwhat is left of {series}#{old} is {series}#{new} now"));
    }
    let lost = report.lost.iter().filter(|loss| !loss.forgotten).count() as u64;
    if lost > 0 {
        text.push_str(&format!("\n{} lost something for good", human::counted(lost, "snapshot", "snapshots")));
    }
    if report.is_complete() {
        text.push_str("\neverything that is there can be restored");
    } else {
        text.push_str("\nsomething is left to be done; `repair --dry-run` tells");
    }
    text
}
