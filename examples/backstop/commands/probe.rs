//! `probe`.

use backstop::{Mismatch, Right, StoreAccess, StoreOperation, StoreRights};

use crate::arguments::{Expected, Global, ProbeArguments};
use crate::commands::Done;
use crate::output::{Align, Output, Table};
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn probe(global: &Global, arguments: &ProbeArguments, output: &mut Output) -> Result<Done, Trouble> {
    let rights = StoreRights::probe(connection::location(global)).await?;
    let mismatches = arguments.expect.map(|expected| rights.mismatches(access(expected))).unwrap_or_default();
    let mut table = Table::new([("OPERATION", Align::Left), ("RIGHT", Align::Left), ("", Align::Left)]);
    for (operation, right) in rights.all() {
        let mismatch = mismatches.iter().find(|(mismatched, _)| *mismatched == operation);
        let remark = mismatch.map_or("", |(_, mismatch)| describe(*mismatch));
        table.row([operation.to_string(), human::visible(&right.to_string()), remark.to_owned()]);
    }
    output.table(&table, [json::rights(&rights, &mismatches)])?;
    if !output.is_json() {
        output.summary(|| serde_json::Value::Null, || summary(&rights, arguments.expect, &mismatches))?;
    }
    Ok(if mismatches.is_empty() { Done::Complete } else { Done::Found })
}

fn access(expected: Expected) -> StoreAccess {
    match expected {
        Expected::AppendOnly => StoreAccess::AppendOnly,
        Expected::Administrator => StoreAccess::Administrator,
        Expected::ReadOnly => StoreAccess::ReadOnly,
    }
}

fn describe(mismatch: Mismatch) -> &'static str {
    match mismatch {
        Mismatch::TooMuch => "too much: must be refused",
        Mismatch::TooLittle => "too little: must be allowed",
        _ => "must be known",
    }
}

fn summary(rights: &StoreRights, expected: Option<Expected>, mismatches: &[(StoreOperation, Mismatch)]) -> String {
    let mut lines = Vec::new();
    if rights.create_again == Right::Allowed {
        lines.push("conditional writes are not enforced: several writers would destroy each other's work".to_owned());
    }
    if let Some(name) = &rights.left {
        lines.push(format!("{name} is left behind; the next collection deletes it"));
    }
    match (expected, mismatches.len()) {
        (None, _) => lines.push("compare with what a client should be allowed: --expect append-only".to_owned()),
        (Some(_), 0) => lines.push("the rights are as expected".to_owned()),
        (Some(_), more) => {
            let rights = human::counted(more as u64, "right is", "rights are");
            lines.push(format!("{rights} not as expected; change the credentials' policy"));
        }
    }
    lines.join("\n")
}
