//! Giving up numbers of a series so that nobody's commit is given up with them.
//!
//! A number that has no record may yet be won by a writer that runs, and then its
//! commit is acknowledged. So a number isn't declared lost but taken: a tombstone
//! at it makes every contender lose. Where many in a row are missing, only the
//! first can be contended for, since the one before it is the last that a writer
//! can have seen.

use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::crypto::Kind;
use crate::error::{Error, Result};
use crate::id::{RecordHash, SeriesTag};
use crate::layout::{CommitName, Name};
use crate::object;
use crate::repair::said;
use crate::repository::Repository;
use crate::snapshot::{Body, Moment, Record};
use crate::store::Created;

/// The most gaps of a series that are closed by tombstones.
pub(super) const HOLES_MAX: usize = 4096;

/// Those of `numbers` that a writer can contend for, given those that are there: the others come after one that is missing.
pub(super) fn holes(numbers: &BTreeSet<u64>, there: &BTreeSet<u64>) -> Vec<u64> {
    let open = |number: &&u64| !there.contains(number) && (**number == 1 || there.contains(&(**number - 1)));
    numbers.iter().filter(open).copied().collect()
}

impl Repository {
    /// Takes every number of some that a writer could still win, so that none of them can be committed any more.
    ///
    /// # Errors
    /// [`Error::Conflict`] if one has been committed since they were found to be missing.
    pub(super) async fn close_holes(&self, series: &str, tag: SeriesTag, numbers: &BTreeSet<u64>) -> Result<()> {
        let lines = self.timelines().lines(Some(&tag)).await?;
        let there: BTreeSet<u64> = lines.names.iter().map(|name| name.number).collect();
        let holes = holes(numbers, &there);
        if holes.len() > HOLES_MAX {
            let reason = format!("records are missing in more than {HOLES_MAX} places; restore it from a copy");
            return Err(Error::invalid(format!("series {series:?}"), reason));
        }
        for number in holes {
            let name = CommitName { tag, number };
            if self.put_tombstone(series, name).await? == Created::Theirs {
                let reason = "it was committed since it was found to be missing; plan anew";
                return Err(Error::conflict(format!("{series}#{number}"), reason));
            }
        }
        Ok(())
    }

    /// Replaces a record that still can't be read by a tombstone, so that its series can go on.
    ///
    /// Between the two the name is free. A put of the record itself that comes so late brings it back, sound; it can
    /// only be that one's, since every other writer takes the name for taken. Afterwards such a put is refused, its
    /// writer has lost the number, and commits under the next.
    pub(super) async fn bury(&self, series: &str, name: CommitName) -> Result<()> {
        match self.timelines().read(&name).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                said(error)?;
                self.store().delete(&Name::Commit(name).to_string()).await?;
            }
        }
        match self.put_tombstone(series, name).await? {
            Created::Ours => Ok(()),
            Created::Theirs => self.timelines().read(&name).await.map(drop),
        }
    }

    async fn put_tombstone(&self, series: &str, name: CommitName) -> Result<Created> {
        let before = match name.number {
            1 => None,
            number => self.timelines().read_if_usable(&CommitName { number: number - 1, ..name }).await?,
        };
        let hash = before.map_or(RecordHash::new([0; RecordHash::LEN]), |placed| placed.hash);
        // The record before it may be one that was forgotten, or damaged: neither says anything of the time.
        let until = Some(Moment::Number(name.number - 1));
        let (newest, _) = self.timelines().newest_and_latest(&name.tag, until).await?;
        let record = Record {
            series: series.to_owned(),
            number: name.number,
            // Not later than the next can be.
            time: newest.map_or(Timestamp::EPOCH, |newest| newest.time).next(),
            clock: self.surroundings().clock.now(),
            // Of one that is gone nobody knows the hash, and nobody checks it.
            predecessor: (name.number > 1).then_some(hash),
            body: Body::Tombstone,
            extensions: Default::default(),
        };
        let text = Name::Commit(name).to_string();
        let sealed = object::seal_record(&record, Kind::Snapshot, &text, self.keyring(), self.surroundings())?;
        self.store().create(&text, sealed.into()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_missing_numbers_can_be_contended_for() {
        let set = |numbers: &[u64]| numbers.iter().copied().collect::<BTreeSet<u64>>();
        assert_eq!(holes(&set(&[1, 2, 5, 6, 9]), &set(&[3, 4, 7, 8])), [1, 5, 9]);
        assert_eq!(holes(&set(&[2, 3]), &set(&[1, 2, 4])), [3]);
        assert!(holes(&set(&[2]), &set(&[2])).is_empty() && holes(&set(&[]), &set(&[1])).is_empty());
    }
}
