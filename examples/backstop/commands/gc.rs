//! `gc`.

use backstop::{GcOptions, GcPlan, GcReport, PackReason, Repository, WaitingFor};

use crate::arguments::{GcArguments, Global};
use crate::commands::Done;
use crate::interrupt::unless_interrupted;
use crate::output::Output;
use crate::progress::Watch;
use crate::trouble::{Trouble, is_storage_full};
use crate::{connection, human, json};

/// How many objects that could not be deleted are named.
const NAMED: usize = 10;

pub(crate) async fn gc(global: &Global, arguments: &GcArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let options = options(arguments);
    let mut done = Done::Complete;
    loop {
        let plan = repository.plan_gc(&options);
        let plan = unless_interrupted(plan, || "nothing was changed".to_owned()).await?;
        tell(&plan, global, output)?;
        if arguments.dry_run {
            return Ok(Done::Complete);
        }
        // It may take its time.
        output.flush()?;
        // One that was cut off is finished first, and then there is a plan to be made.
        let is_last = plan.unfinished.is_none();
        let is_due = plan.is_due();
        let report = collect(&repository, plan, global).await?;
        if is_due || output.is_json() {
            output.summary(|| json::gc_report(&report), || describe(&report, arguments.rewrite_old_keys))?;
        }
        if !report.finished || !report.left.is_empty() {
            done = Done::Partial;
        }
        if is_last || !report.finished {
            return Ok(done);
        }
    }
}

fn options(arguments: &GcArguments) -> GcOptions {
    let mut options = GcOptions::default();
    options.waste_max = arguments.waste.unwrap_or(options.waste_max);
    options.wait = arguments.wait.unwrap_or(options.wait);
    options.fence_after = arguments.fence_after.unwrap_or(options.fence_after);
    options.rewrite_old_keys = arguments.rewrite_old_keys;
    options
}

async fn collect(repository: &Repository, plan: GcPlan, global: &Global) -> Result<GcReport, Trouble> {
    let watch = Watch::start(global);
    let left = || "the collection is not complete; the next `backstop gc` goes on with it".to_owned();
    let collection = async { Ok(repository.gc(plan, watch.progress()).await) };
    unless_interrupted(collection, left).await?.map_err(|error| match is_storage_full(&error) {
        true => Trouble::from(error).hint(
            "what is needed is copied before anything is deleted: free some space elsewhere, \
             or try `backstop gc --waste 100` without --rewrite-old-keys, which copies least",
        ),
        false => error.into(),
    })
}

fn tell(plan: &GcPlan, global: &Global, output: &mut Output) -> std::io::Result<()> {
    if output.is_json() || global.verbose {
        for fate in &plan.packs {
            let text = || {
                let (bytes, needed) = (human::bytes(fate.bytes), human::bytes(fate.needed_bytes));
                let needed =
                    if fate.reason == PackReason::Unneeded { String::new() } else { format!(", {needed} needed") };
                format!("pack {}: {}, {bytes}{needed}", fate.pack, json::pack_reason(fate.reason))
            };
            output.item(|| json::pack_fate(fate), text)?;
        }
    }
    output.summary(|| json::gc_plan(plan), || describe_plan(plan))
}

fn describe_plan(plan: &GcPlan) -> String {
    if let Some(number) = plan.unfinished {
        return format!("collection {number} was begun and hasn't ended; it is finished first");
    }
    let mut text = human::counted(plan.snapshots, "snapshot counts", "snapshots count");
    let mut tell = |number: u64, one: &str, many: &str| {
        if number > 0 {
            text.push_str(&format!(", {}", human::counted(number, one, many)));
        }
    };
    tell(plan.undeletable, "forgotten one can still be undeleted", "forgotten ones can still be undeleted");
    tell(plan.forgotten, "forgotten one goes", "forgotten ones go");
    text.push_str(&format!(
        "\n{} needed, {} not; packs take up {}",
        human::counted(plan.needed_blobs, "blob is", "blobs are"),
        human::count(plan.unneeded_blobs),
        human::bytes(plan.pack_bytes),
    ));
    if !plan.is_due() {
        text.push_str("\nnothing to collect");
    }
    if !plan.packs.is_empty() {
        text.push_str(&describe_packs(plan));
    }
    if plan.segments > 0 {
        let segments = human::counted(plan.segments, "index segment is", "index segments are");
        text.push_str(&format!("\n{segments} rewritten"));
    }
    if plan.spared_packs > 0 {
        let packs = human::counted(plan.spared_packs, "pack is", "packs are");
        text.push_str(&format!("\n{packs} spared, since the writers that made them run"));
    }
    text.push_str(&describe_old(plan));
    text
}

/// What is sealed under older keys.
fn describe_old(plan: &GcPlan) -> String {
    let packs = human::counted(plan.old_packs, "pack", "packs");
    let bytes = human::bytes(plan.old_pack_bytes);
    let segments = human::counted(plan.old_segments, "index segment", "index segments");
    match plan.old_packs + plan.old_segments {
        0 => String::new(),
        _ => format!("\n{packs} of {bytes} and {segments} are sealed under older keys than the newest"),
    }
}

fn describe_packs(plan: &GcPlan) -> String {
    let of = |reason| plan.packs.iter().filter(move |fate| fate.reason == reason).count() as u64;
    let copied: u64 = plan.packs.iter().map(|fate| fate.needed_bytes).sum();
    format!(
        "\n{}, which frees {}: {} unneeded, {} sparse and {} small{}; {} of them is needed and copied",
        human::counted(plan.packs.len() as u64, "pack goes", "packs go"),
        human::bytes(plan.freed_bytes()),
        human::count(of(PackReason::Unneeded)),
        human::count(of(PackReason::Sparse)),
        human::count(of(PackReason::Small)),
        match of(PackReason::OldKeys) {
            0 => String::new(),
            old => format!(", {} under older keys", human::count(old)),
        },
        human::bytes(copied),
    )
}

fn describe(report: &GcReport, rewrites: bool) -> String {
    let mut text = format!(
        "collection {}: deleted {} of {}, {} and {}; wrote {} of {}",
        report.number,
        human::counted(report.packs_deleted, "pack", "packs"),
        human::bytes(report.bytes_deleted),
        human::counted(report.segments_deleted, "index segment", "index segments"),
        human::counted(report.records_deleted, "snapshot's record", "snapshots' records"),
        human::counted(report.packs_written, "pack", "packs"),
        human::bytes(report.bytes_written),
    );
    if report.rescued_blobs > 0 {
        let blobs = human::counted(report.rescued_blobs, "blob", "blobs");
        text.push_str(&format!("\nkept {blobs} that snapshots need which were made meanwhile"));
    }
    if report.temporary_files > 0 {
        let files = human::counted(report.temporary_files, "file", "files");
        text.push_str(&format!("\nswept {files} that uploads left which were cut off"));
    }
    for (series, number) in &report.fenced {
        let series = human::visible(series);
        text.push_str(&format!("\na writer of {series} was fenced at #{number}: if it still runs, it begins anew"));
    }
    if report.old_packs + report.old_segments > 0 {
        let packs = human::counted(report.old_packs, "pack", "packs");
        let bytes = human::bytes(report.old_pack_bytes);
        let segments = human::counted(report.old_segments, "index segment", "index segments");
        text.push_str(&format!("\n{packs} of {bytes} and {segments} of these were sealed under older keys"));
    }
    text.push_str(&describe_left(report, rewrites));
    text
}

/// Why it isn't complete, and what to do.
fn describe_left(report: &GcReport, rewrites: bool) -> String {
    let mut text = String::new();
    if !report.finished {
        text.push_str("\npartial: the collection hasn't ended, and the next `backstop gc` goes on with it");
    }
    if rewrites && report.old_packs_left > 0 {
        let packs = human::counted(report.old_packs_left, "pack is", "packs are");
        text.push_str(&format!(
            "\n{packs} left under older keys: `backstop gc --rewrite-old-keys` goes on with them once the writers that \
             made them have ended; what can't be read takes a check"
        ));
    }
    for writer in &report.waiting {
        text.push_str(&format!("\n  it waits for {}", describe_writer(writer)));
    }
    if !report.waiting.is_empty() {
        text.push_str("\n  let them end, or fence those that are gone: --fence-after 1h takes all that are older");
    }
    for object in report.left.iter().take(NAMED) {
        text.push_str(&format!("\n  {} could not be deleted", human::visible(object)));
    }
    if report.left.len() > NAMED {
        text.push_str(&format!("\n  and {} more", human::count((report.left.len() - NAMED) as u64)));
    }
    if !report.left.is_empty() {
        text.push_str("\n  the store holds on to them: a lock on its objects, or missing rights");
    }
    text
}

fn describe_writer(writer: &WaitingFor) -> String {
    let WaitingFor { since, .. } = writer;
    let [registration, series, host] =
        [&writer.registration, &writer.series, &writer.host].map(|name| human::visible(name));
    match since {
        Some(since) if host.is_empty() => {
            format!("a writer of {series} since {} ({registration})", human::time(*since))
        }
        Some(since) => format!("a writer of {series} on {host} since {} ({registration})", human::time(*since)),
        None => format!("{registration}, which is damaged: delete it once no writer runs"),
    }
}
