//! `check`.

use backstop::{CheckOptions, CheckReport, Finding, FindingKind};

use crate::arguments::{CheckArguments, Global};
use crate::commands::Done;
use crate::interrupt::unless_interrupted;
use crate::output::Output;
use crate::progress::Watch;
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn check(global: &Global, arguments: &CheckArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let mut options = CheckOptions::default();
    options.read_data_percent = arguments.read_data;
    let watch = Watch::start(global);
    let operation = repository.check(&options, watch.progress());
    let report = unless_interrupted(operation, || "the check is not complete".to_owned()).await?;
    drop(watch);
    for finding in &report.findings {
        if output.is_json() || global.verbose || is_told(finding) {
            output.item(|| json::finding(finding), || describe_finding(finding))?;
        }
    }
    output.summary(|| json::check(&report), || describe(&report, global.verbose))?;
    Ok(match report.defects {
        0 if report.is_sound() => Done::Complete,
        0 => Done::Partial,
        _ => Done::Found,
    })
}

/// Whether people are told who didn't ask for what is informational. That somebody plants things they should know.
fn is_told(finding: &Finding) -> bool {
    finding.kind == FindingKind::Unsigned || !finding.kind.is_informational()
}

fn describe_finding(finding: &Finding) -> String {
    let (object, problem) = (human::visible(&finding.object), human::visible(&finding.problem));
    let mut text = format!("{}: {object}: {problem}", json::finding_kind(finding.kind));
    for affected in &finding.affected {
        text.push_str(&format!("\n  affects {}", human::visible(affected)));
    }
    let more = finding.affected_count.saturating_sub(finding.affected.len() as u64);
    if more > 0 {
        text.push_str(&format!("\n  and {} more", human::count(more)));
    }
    text
}

fn describe(report: &CheckReport, verbose: bool) -> String {
    let mut text = format!(
        "checked {}, {}, {}, {}",
        human::counted(report.snapshots, "snapshot", "snapshots"),
        human::counted(report.nodes, "node", "nodes"),
        human::counted(report.blobs, "blob", "blobs"),
        human::counted(report.packs, "pack", "packs"),
    );
    match report.bytes_read {
        0 => text.push_str(", no data read (see --read-data)"),
        read => {
            let (read, all) = (human::bytes(read), human::bytes(report.pack_bytes));
            text.push_str(&format!(", {read} of {all} of data read"));
        }
    }
    let informational = report.findings.iter().filter(|finding| !is_told(finding)).count();
    if informational > 0 && !verbose {
        let things =
            human::counted(informational as u64, "object that nothing refers to", "objects that nothing refers to");
        text.push_str(&format!("\n{things}, harmless; -v lists them"));
    }
    if report.left_out > 0 {
        text.push_str(&format!("\n{} more findings are left out", human::count(report.left_out)));
    }
    if report.unsupported > 0 {
        let things = human::counted(report.unsupported, "thing", "things");
        text.push_str(&format!("\n{things} not checked, for lack of a newer version of backstop"));
    }
    for checked in report.series.iter().filter(|checked| checked.whole_through < checked.latest) {
        let (series, latest) = (human::visible(&checked.series), human::count(checked.latest));
        match checked.whole_through {
            0 => text.push_str(&format!("\n{series} is not whole from its beginning; its latest is {latest}")),
            through => {
                text.push_str(&format!("\n{series} is whole up to {}; its latest is {latest}", human::count(through)))
            }
        }
    }
    match report.defects {
        0 => text.push_str("\nno damage found"),
        defects => text.push_str(&format!(
            "\n{} found; what is affected can't be restored in full, all else can",
            human::counted(defects, "defect", "defects")
        )),
    }
    text
}
