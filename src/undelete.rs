//! Bringing a forgotten snapshot back: its tree is committed again under a new number.
//!
//! A number that was forgotten never counts again, so undeleting is a writer's
//! work like any other: it registers, and makes sure that everything it relies on
//! is there to stay.

use crate::blobs::WriteOptions;
use crate::draft::{commit, secure_tree};
use crate::error::{Error, Result};
use crate::registration::Registration;
use crate::repository::Repository;
use crate::snapshot::{Content, Origin, Snapshot, validate_series};

impl Repository {
    /// Commits the content of a snapshot that was forgotten as the next one of its series.
    ///
    /// The new snapshot says which one it gives back ([`Snapshot::origin`]), and stands in its place: it doesn't become
    /// the series' latest unless that one was, and writers don't go on from it. A collection may run meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`] if its record or some of its data was collected already; [`Error::Invalid`] if it wasn't
    /// forgotten.
    pub async fn undelete(&self, series: &str, number: u64) -> Result<Snapshot> {
        validate_series(series)?;
        let registration = Registration::begin(self.parts().clone(), series, "", self.mode()).await?;
        // Only now: a collection that begins from here on waits for this writer.
        let content = match self.content_to_undelete(&registration, series, number).await {
            Ok(content) => content,
            Err(error) => {
                registration.end().await;
                return Err(error);
            }
        };
        commit(self, registration, content, WriteOptions::default()).await
    }

    async fn content_to_undelete(&self, registration: &Registration, series: &str, number: u64) -> Result<Content> {
        let tag = self.keyring().series_tag(series);
        let what = || format!("snapshot {series}#{number}");
        let kept = self.timelines().kept(&tag).await?.kept;
        if kept.counts(number) {
            return match self.timelines().recorded(&tag, number).await? {
                Some(_) => Err(Error::invalid(what(), "it wasn't forgotten")),
                None => Err(Error::not_found(what())),
            };
        }
        let Some(snapshot) = self.timelines().recorded(&tag, number).await? else {
            return Err(Error::not_found(format!("{} (it was collected)", what())));
        };
        // The record may be another's, put there after the one that was forgotten had been collected.
        if !kept.forgotten(number).is_some_and(|forgotten| forgotten.is_of(&snapshot.hash)) {
            return Err(Error::not_found(format!("{} (the time for which it could be undeleted is over)", what())));
        }
        self.reader_of(&snapshot);
        let secured = secure_tree(self, registration, &snapshot.root, WriteOptions::default()).await;
        let stored = secured.map_err(|error| match error {
            Error::Corrupt { reason, .. } | Error::NotFound { object: reason } => {
                Error::not_found(format!("some of the data of {} ({reason}): it was collected, and", what()))
            }
            other => other,
        })?;
        let Snapshot { host, tags, paths, position, root, entries, origin, stats, .. } = snapshot;
        Ok(Content {
            host,
            tags,
            paths,
            position,
            root,
            entries,
            parent: registration.parent().map(|parent| parent.number),
            // Of one that was undeleted before, the first.
            origin: origin.or(Some(Origin { number, time: snapshot.time })),
            stats,
            failures: snapshot.failures,
            failure_count: snapshot.failure_count,
            stored,
        })
    }
}
