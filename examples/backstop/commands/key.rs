//! `key list`, `key add` and `key remove`.

use backstop::KeySlot;

use crate::arguments::{Global, KeyAddArguments, KeyRemoveArguments};
use crate::commands::Done;
use crate::output::{Align, Output, Table};
use crate::trouble::Trouble;
use crate::{connection, human, json, secret};

/// Digits of an id that are shown; `key remove` takes as few as are unique.
const SHOWN: usize = 12;

pub(crate) async fn key_list(global: &Global, output: &mut Output) -> Result<Done, Trouble> {
    let keys = connection::open(global).await?.keys().await?;
    let columns = ["ID", "KIND", "MAY", "CREATED", "", "LABEL"].map(|title| (title, Align::Left));
    let mut table = Table::new(columns);
    for key in &keys {
        table.row([
            short(key),
            json::key_kind(key.kind).to_owned(),
            if key.append_only { "only add" } else { "do all" }.to_owned(),
            human::time(key.created),
            if key.current { "in use".to_owned() } else { String::new() },
            human::visible(&key.label),
        ]);
    }
    output.table(&table, keys.iter().map(json::key))?;
    Ok(Done::Complete)
}

pub(crate) async fn key_add(
    global: &Global,
    arguments: &KeyAddArguments,
    output: &mut Output,
) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let secret = secret::added(arguments).await?;
    let key = match arguments.append_only {
        true => repository.add_append_only_key(&secret, &arguments.label).await?,
        false => repository.add_key(&secret, &arguments.label).await?,
    };
    let kind = if key.append_only { "append-only key" } else { "key" };
    output.summary(|| json::key(&key), || format!("added {kind} {}", short(&key)))?;
    Ok(Done::Complete)
}

pub(crate) async fn key_remove(
    global: &Global,
    arguments: &KeyRemoveArguments,
    output: &mut Output,
) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let keys = repository.keys().await?;
    let key = the_one(&keys, &arguments.id)?;
    repository.remove_key(&key.id).await?;
    output.summary(|| json::key_removed(key), || format!("removed key {}", short(key)))?;
    Ok(Done::Complete)
}

/// The one key whose id begins so.
fn the_one<'a>(keys: &'a [KeySlot], beginning: &str) -> Result<&'a KeySlot, Trouble> {
    let mut fitting = keys.iter().filter(|key| key.id.to_string().starts_with(beginning));
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        (Some(_), Some(_)) => {
            Err(Trouble::new(format!("several keys begin with {beginning}")).hint("give more digits"))
        }
        (None, _) => {
            Err(Trouble::new(format!("no key begins with {beginning}")).hint("`backstop key list` lists them"))
        }
    }
}

fn short(key: &KeySlot) -> String {
    key.id.to_string().chars().take(SHOWN).collect()
}
