//! `stats`.

use backstop::{RepositoryStats, Usage};

use crate::arguments::Global;
use crate::commands::Done;
use crate::output::{Align, Output, Table};
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn stats(global: &Global, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let stats = repository.stats().await?;
    output.table(&table(&stats), [json::stats(&repository, &stats)])?;
    if !output.is_json() {
        let series = format!("{} series, repository {}", human::count(stats.series), repository.id());
        output.summary(|| serde_json::Value::Null, || series)?;
    }
    Ok(Done::Complete)
}

fn table(stats: &RepositoryStats) -> Table {
    let mut table = Table::new([("", Align::Left), ("OBJECTS", Align::Right), ("SIZE", Align::Right)]);
    let mut row = |name: &str, usage: Usage| {
        table.row([name.to_owned(), human::count(usage.objects), human::bytes(usage.bytes)]);
    };
    row("packs", stats.packs);
    row("index", stats.index);
    row("snapshots", stats.snapshots);
    row("writers", stats.writers);
    row("keys and config", stats.others);
    if stats.foreign.objects > 0 {
        row("foreign", stats.foreign);
    }
    let usages = [stats.packs, stats.index, stats.snapshots, stats.writers, stats.others];
    table.row([
        "all".to_owned(),
        human::count(usages.iter().map(|usage| usage.objects).sum()),
        human::bytes(stats.bytes()),
    ]);
    table
}
