//! Committing under a registration that may have to be renewed on the way.
//!
//! What a writer relies on was seen under the registration that it wrote under.
//! If a collection was begun before the next one, all of it is looked at again.

use crate::blobs::{BlobWriter, Evidence, Stored, WriteOptions};
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::index::Want;
use crate::reach::secure;
use crate::registration::{CONTESTS, Registration};
use crate::repository::Repository;
use crate::snapshot::{Content, Snapshot};

/// Creates the snapshot under its number, or under a later one when another writer takes it first.
///
/// All blobs that `content` needs are stored. Consumes the registration: afterwards it is ended, or left for a
/// collection where the outcome is unknown.
pub(crate) async fn commit(
    repository: &Repository,
    mut registration: Registration,
    content: Content,
    options: WriteOptions,
) -> Result<Snapshot> {
    let outcome = commit_at_some_number(repository, &mut registration, content, options).await;
    registration.end().await;
    outcome
}

async fn commit_at_some_number(
    repository: &Repository,
    registration: &mut Registration,
    mut content: Content,
    options: WriteOptions,
) -> Result<Snapshot> {
    for _ in 0..CONTESTS {
        if let Some(snapshot) = registration.contend(&content).await? {
            return Ok(snapshot);
        }
        let collection = registration.collection();
        repository.renew(registration).await?;
        if registration.collection() != collection {
            let secured = secure_tree(repository, registration, &content.root, options).await;
            content.stored = secured.map_err(|error| overtaken(registration.series(), error))?;
        }
    }
    let series = format!("series {:?}", registration.series());
    Err(Error::conflict(series, format!("other writers took {CONTESTS} numbers in a row; run it again")))
}

/// Says that a collection has taken away what a writer relied on that it had fenced.
pub(crate) fn overtaken(series: &str, error: Error) -> Error {
    match error {
        Error::Corrupt { reason, .. } | Error::NotFound { object: reason } => {
            let reason = format!(
                "it was away for so long that a collection took away what it relied on ({reason}); run it again"
            );
            Error::conflict(format!("the writer of series {series:?}"), reason)
        }
        other => other,
    }
}

/// Makes sure that a commit under this registration may rely on every blob of a tree; what its record must say.
pub(crate) async fn secure_tree(
    repository: &Repository,
    registration: &Registration,
    root: &BlobId,
    options: WriteOptions,
) -> Result<Stored> {
    repository.index().refresh(Want::All).await?;
    let evidence = Evidence::new(registration.condemned());
    let mut writer = BlobWriter::new(repository.parts().clone(), registration.id(), evidence, options);
    // Who goes on from this commit takes over what it names.
    if let Some(parent) = registration.parent() {
        writer.adopt(&parent.stored.packs);
    }
    repository.index().load_recent().await?;
    secure(repository.reader(), repository.index(), root, &mut writer).await?;
    writer.flush().await?;
    Ok(writer.stored(root))
}
