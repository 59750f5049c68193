//! Takes things out of the destination, or counts what would be taken.

use crate::error::Result;
use crate::files::Destination;
use crate::restore::session::Session;
use crate::tree::{EntryKind, Key};

/// Removes what stands at `key` with everything below it; a dry run only counts it.
pub(super) fn remove(session: &Session, key: &Key) -> Result<()> {
    let destination = session.destination()?;
    let removed = if session.dry_run { count(destination, key)? } else { destination.remove(key)? };
    session.deleted.add(removed);
    Ok(())
}

fn count(destination: &Destination, key: &Key) -> Result<u64> {
    let mut found = 0;
    let mut open = vec![key.clone()];
    while let Some(key) = open.pop() {
        let Some(stat) = destination.inspect(&key)? else { continue };
        found += 1;
        if stat.kind == EntryKind::Folder {
            for name in destination.list(Some(&key))? {
                open.push(key.join(name)?);
            }
        }
    }
    Ok(found)
}
