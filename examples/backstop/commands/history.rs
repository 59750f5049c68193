//! `history`.

use backstop::{HistoryOptions, Revision};
use futures::TryStreamExt;

use crate::arguments::{Global, HistoryArguments};
use crate::commands::{Difference, Done, change_line};
use crate::output::Output;
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn history(
    global: &Global,
    arguments: &HistoryArguments,
    output: &mut Output,
) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let HistoryArguments { series, path, limit, from, until } = arguments;
    let mut options = HistoryOptions::default();
    (options.from, options.until) = (*from, *until);
    options.limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut revisions = std::pin::pin!(repository.history(series, path, &options));
    let (mut snapshots, mut changes, mut width) = (0u64, 0u64, 0);
    while let Some(Revision { snapshot, changes: list, more, .. }) = revisions.try_next().await? {
        // The newest comes first and has the longest number.
        let name = human::visible(&snapshot.to_string());
        width = width.max(name.chars().count());
        for change in &list {
            let difference = Difference::of(change);
            let line = || {
                let change = change_line(change, difference, global.verbose);
                format!("{}  {name:<width$}  {change}", human::time(snapshot.time))
            };
            output.item(|| json::revision(&snapshot, change, difference), line)?;
        }
        changes += list.len() as u64;
        snapshots += u64::from(!more);
    }
    if snapshots == 0 && from.is_none() && until.is_none() {
        return Err(Trouble::new(format!("{path} exists in no snapshot of {series:?}"))
            .hint("`backstop snapshots` lists all series, `backstop ls SNAPSHOT` what a snapshot holds"));
    }
    if !output.is_json() {
        let (changes, snapshots) =
            (human::counted(changes, "change", "changes"), human::counted(snapshots, "snapshot", "snapshots"));
        output.summary(|| serde_json::Value::Null, || format!("{changes} in {snapshots}"))?;
    }
    Ok(Done::Complete)
}
