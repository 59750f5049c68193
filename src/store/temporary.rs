//! Temporary files of a local store, which a crash leaves behind.
//!
//! An object is written to `name#1` (or a higher number) and then given its
//! name. What is left of one isn't listed and can't be addressed, so the folder
//! itself is looked through.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::clock::Timestamp;
use crate::cpu;
use crate::error::{Error, Result};
use crate::layout;
use crate::store::Store;

/// A file that was last written to so many seconds ago is no upload any more.
const OLD: i64 = 3600;

impl Store {
    /// Deletes temporary files that nobody has written to for an hour; how many.
    ///
    /// If that took one away that is in use after all, the upload fails, and nothing that is stored is touched.
    pub(crate) async fn sweep_temporary(&self, now: Timestamp) -> Result<u64> {
        let Some(folder) = self.folder.clone() else { return Ok(0) };
        cpu::block(move || {
            let mut swept = sweep(&folder, now, false)?;
            for prefix in layout::PREFIXES {
                swept += sweep(&folder.join(prefix), now, true)?;
            }
            Ok(swept)
        })
        .await
    }
}

fn sweep(folder: &Path, now: Timestamp, deeply: bool) -> Result<u64> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::file("list", folder, error)),
    };
    let mut swept = 0;
    for entry in listing {
        let entry = entry.map_err(|error| Error::file("list", folder, error))?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && deeply {
            swept += sweep(&entry.path(), now, deeply)?;
        } else if !is_folder && is_temporary(&entry.file_name().to_string_lossy()) && is_old(&entry, now) {
            swept += u64::from(remove(entry.path()));
        }
    }
    Ok(swept)
}

/// Whether a file has the name of an upload under way.
pub(super) fn is_temporary(name: &str) -> bool {
    let number = name.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

fn is_old(entry: &std::fs::DirEntry, now: Timestamp) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
    let nanos = modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_nanos());
    let modified = nanos.and_then(|nanos| i64::try_from(nanos).ok()).map(Timestamp::from_nanos);
    modified.is_some_and(|modified| now.seconds_since(modified) >= OLD)
}

fn remove(path: PathBuf) -> bool {
    match std::fs::remove_file(&path) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "could not sweep a temporary file");
            false
        }
    }
}
