//! `merge`.

use crate::arguments::{Global, MergeArguments};
use crate::commands::Done;
use crate::output::Output;
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn merge(global: &Global, arguments: &MergeArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let plan = repository.plan_merge().await?;
    let report = match arguments.dry_run {
        true => None,
        // Where nothing is due this does nothing, but who may not merge is told so.
        false => Some(repository.merge(&plan).await?).filter(|_| plan.is_due()),
    };
    let Some(report) = report else {
        let text = || {
            let (packs, segments) = (human::count(plan.packs), human::count(plan.segments));
            let bytes = human::bytes(plan.pack_bytes + plan.segment_bytes);
            let rest = if plan.unfinished { ", and one merge to finish" } else { "" };
            format!("{packs} small packs and {segments} index segments to merge, {bytes}{rest}")
        };
        output.summary(|| json::merge_plan(&plan), text)?;
        return Ok(Done::Complete);
    };
    let text = || {
        let (packs, segments) = (human::count(report.packs_deleted), human::count(report.segments_deleted));
        let written = human::count(report.packs_written);
        let left = match report.left {
            0 => String::new(),
            left => format!("; {} could not be deleted", human::count(left)),
        };
        format!("{packs} packs became {written}, and {segments} index segments were merged{left}")
    };
    output.summary(|| json::merge_report(&report), text)?;
    Ok(if report.left > 0 { Done::Partial } else { Done::Complete })
}
