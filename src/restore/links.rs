//! What comes last: further names of files, then the metadata of folders.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::restore::arrange::{Complete, Link};
use crate::restore::session::Session;

/// Gives files their further names. Those that are there already, as names of the same file, stay.
pub(super) fn link(session: &Session, links: Vec<Link>) -> Result<()> {
    for link in links {
        session.go_on()?;
        if let Err(error) = link_one(session, &link) {
            session.failed(&link.name, &error);
        }
        session.progress.advance(u64::from(link.is_file), 0);
    }
    Ok(())
}

fn link_one(session: &Session, link: &Link) -> Result<()> {
    if session.is_lost(&link.group) {
        let reason = format!("it is the same file as {}, which could not be restored", link.to);
        return Err(Error::corrupt(&link.name, reason));
    }
    if session.dry_run && !session.has_destination() {
        return Ok(());
    }
    let destination = session.destination()?;
    // In a dry run what stands above may be of the wrong kind still.
    if session.dry_run && destination.blocked_by(&link.key)?.is_some() {
        return Ok(());
    }
    let there = destination.inspect(&link.key)?;
    if let Some(there) = &there
        && destination.inspect(&link.to)?.is_some_and(|first| first.is_same_file(there))
    {
        session.unchanged.add(u64::from(link.is_file));
        return Ok(());
    }
    if session.dry_run {
        return Ok(());
    }
    if there.is_some() {
        session.destination()?.remove(&link.key)?;
    }
    destination.hard_link(&link.to, &link.key)
}

/// Gives folders their metadata, the innermost first.
pub(super) fn complete(session: &Arc<Session>, folders: Vec<Complete>) -> Result<()> {
    if session.dry_run {
        return Ok(());
    }
    let destination = session.destination()?;
    for Complete { key, name, metadata, new } in folders {
        session.go_on()?;
        let Some(name) = name else { continue };
        let kind = crate::tree::EntryKind::Folder;
        let applied = match &key {
            None => destination.set_root_metadata(&metadata),
            Some(key) if !new && destination.matches(key, kind, &metadata).unwrap_or_default() => continue,
            Some(key) => destination.set_metadata(key, kind, &metadata),
        };
        match applied {
            Ok(warnings) => warnings.iter().for_each(|warning| session.failed(&name, warning)),
            Err(error) => session.failed(&name, &error),
        }
    }
    Ok(())
}
