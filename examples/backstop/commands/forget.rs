//! `forget` and `undelete`.

use backstop::{ForgetOptions, ForgetPlan, ForgetReport, Repository, Snapshot};

use crate::arguments::{ForgetArguments, Global, UndeleteArguments};
use crate::commands::Done;
use crate::interrupt::unless_interrupted;
use crate::output::{Align, Output, Table};
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn forget(global: &Global, arguments: &ForgetArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let plan = repository.plan_forget(&options(arguments)).await?;
    // What would be forgotten is a result; what was is told to those who didn't ask for quiet.
    if output.is_json() || arguments.dry_run || !global.quiet {
        output.table(&table(&plan), plan.decisions.iter().map(json::decision))?;
    }
    let report = match arguments.dry_run {
        true => None,
        false => Some(repository.forget(&plan).await?),
    };
    output.summary(|| json::forget(&plan, report.as_ref()), || describe(&plan, report.as_ref()))?;
    Ok(Done::Complete)
}

fn options(arguments: &ForgetArguments) -> ForgetOptions {
    let mut options = ForgetOptions::default().with_undelete_for(arguments.undelete_for);
    options.policy = arguments.policy();
    options.series.clone_from(&arguments.series);
    options.snapshots.clone_from(&arguments.snapshots);
    options
}

fn table(plan: &ForgetPlan) -> Table {
    let mut table = Table::new(["", "SNAPSHOT", "TIME", "REASONS"].map(|title| (title, Align::Left)));
    for decision in &plan.decisions {
        let reasons: Vec<_> = decision.reasons.iter().map(ToString::to_string).collect();
        table.row([
            if decision.keep { "keep" } else { "forget" }.to_owned(),
            human::visible(&decision.snapshot.to_string()),
            human::time(decision.snapshot.time),
            human::visible(&reasons.join(", ")),
        ]);
    }
    table
}

fn describe(plan: &ForgetPlan, report: Option<&ForgetReport>) -> String {
    let gone = plan.forgotten().count() as u64;
    let kept = plan.decisions.len() as u64 - gone;
    let kept = human::counted(kept, "snapshot", "snapshots");
    let Some(report) = report else {
        return format!("dry run, would keep {kept} and forget {}", human::count(gone));
    };
    let mut text = format!("{kept} kept, {} forgotten", human::count(gone));
    if let Some(until) = report.until {
        text.push_str(&match plan.undelete_for.is_zero() {
            true => "; `backstop gc` frees their space".to_owned(),
            false => format!(
                "\nuntil {} `backstop undelete` brings them back, after that `backstop gc` frees their space",
                human::time(until)
            ),
        });
    }
    text
}

pub(crate) async fn undelete(
    global: &Global,
    arguments: &UndeleteArguments,
    output: &mut Output,
) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let (series, number) = &arguments.snapshot;
    if arguments.dry_run {
        let forgotten = forgotten(&repository, series, *number).await?;
        let text = || {
            let name = human::visible(&forgotten.to_string());
            format!("dry run, would give {name} back: {}", held(&forgotten))
        };
        output.summary(|| json::undelete(None, &forgotten.to_string()), text)?;
        return Ok(Done::Complete);
    }
    let left = || "the snapshot may be back; `backstop snapshots` tells".to_owned();
    let snapshot = unless_interrupted(repository.undelete(series, *number), left).await?;
    let name = format!("{series}#{number}");
    let text = || format!("snapshot {snapshot} gives {name} back: {}", held(&snapshot));
    output.summary(|| json::undelete(Some(&snapshot), &name), || human::visible(&text()))?;
    Ok(Done::Complete)
}

/// What can be undeleted under this name.
async fn forgotten(repository: &Repository, series: &str, number: u64) -> Result<Snapshot, Trouble> {
    let all = repository.forgotten(Some(series)).await?;
    let found = all.into_iter().map(|one| one.snapshot).find(|snapshot| snapshot.number == number);
    found.ok_or_else(|| {
        Trouble::new(format!("{series}#{number} can't be undeleted"))
            .hint("`backstop snapshots --forgotten` lists what can be")
    })
}

fn held(snapshot: &Snapshot) -> String {
    let files = human::counted(snapshot.stats.files, "file", "files");
    format!("{files}, {}", human::bytes(snapshot.stats.bytes))
}
