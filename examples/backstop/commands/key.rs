//! `key list`, `key add`, `key remove` and `key rotate`.

use backstop::{KeySlot, Location};

use crate::arguments::{Global, KeyAddArguments, KeyRemoveArguments};
use crate::commands::Done;
use crate::output::{Align, Output, Table};
use crate::trouble::Trouble;
use crate::{connection, human, json, secret};

/// Digits of an id that are shown; `key remove` takes as few as are unique.
const SHOWN: usize = 12;

pub(crate) async fn key_list(global: &Global, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let keys = repository.keys().await?;
    let columns = ["ID", "KIND", "MAY", "CREATED", "", "LABEL"].map(|title| (title, Align::Left));
    let mut table = Table::new(columns);
    for key in &keys {
        table.row([
            short(key),
            json::key_kind(key.kind).to_owned(),
            match (key.authentic, key.append_only) {
                (false, _) => "do nothing",
                (true, true) => "only add",
                (true, false) => "do all",
            }
            .to_owned(),
            human::time(key.created),
            match (key.authentic, key.current) {
                (false, _) => "not authentic",
                (true, true) => "in use",
                (true, false) => "",
            }
            .to_owned(),
            human::visible(&key.label),
        ]);
    }
    output.table(&table, keys.iter().map(json::key))?;
    // Without credentials that may stand in it.
    let location = Location::from(connection::location(global)).to_string();
    output.summary(
        || json::created(&repository, &location),
        || format!("the repository's fingerprint is {}", repository.fingerprint()),
    )?;
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
    let text = || {
        let id = short(key);
        format!("removed key {id}\nif somebody may have kept what it opens, run `backstop key rotate` next")
    };
    output.summary(|| json::key_removed(key), text)?;
    Ok(Done::Complete)
}

pub(crate) async fn key_rotate(global: &Global, output: &mut Output) -> Result<Done, Trouble> {
    let rotation = connection::open(global).await?.rotate_keys().await?;
    let text = || {
        let (generation, keys) = (rotation.generation, rotation.keys.len());
        format!(
            "what is written from now on is sealed under key generation {generation}, which {keys} keys open\n\
             programs that have the repository open go on under an older one until they are started anew or refresh it\n\
             `backstop gc --rewrite-old-keys` next rewrites what was written before, so that older keys don't open it"
        )
    };
    output.summary(|| json::keys_rotated(&rotation), text)?;
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
