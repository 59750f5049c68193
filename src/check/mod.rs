//! Checking: whether everything that the snapshots need is there, and is what it should be.
//!
//! ```text
//! records ──> index segments ──> packs (footers, or all of the bytes) ──> trees ──> affected paths
//! ```
//! Owns the findings and what is looked at; how each object is verified is the
//! business of the module that reads it. What is wrong is data, not an error:
//! a check goes on past it, and fails only when the store does.
//!
//! Where something is wrong and a collection ran meanwhile, all is looked at again.
//!
//! Records are listed before the index and the index before the packs, the
//! reverse of the order in which a writer stores them, so that a backup that
//! runs beside a check doesn't look like damage.
//!
//! Memory: a small record for each pack and each snapshot, 21 bytes and a hash
//! table's overhead for each distinct node, the index as a writer has it (in the
//! cache folder where there is one), and four packs where data is read.

mod data;
mod findings;
mod packs;
mod records;
mod segments;
mod survey;
mod trees;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use findings::{Finding, FindingKind};

use crate::check::findings::Findings;
use crate::check::records::Root;
use crate::check::survey::Survey;
use crate::check::trees::Trees;
use crate::collection::{Collections, Numbers};
use crate::error::{Error, Result};
use crate::layout::Name;
use crate::progress::{Phase, Progress};
use crate::repository::Repository;

/// How often a check is made when collections run beside it.
const ATTEMPTS: usize = 3;

/// How thoroughly a repository is checked.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CheckOptions {
    /// How much of the packs to read and verify byte by byte, in percent of their length: above 0, at most 100.
    ///
    /// Nothing for none: then records, index, footers and nodes are verified, and that the chunks are where they
    /// should be, but not their bytes. Which packs are read is left to chance, so that repeated checks come by all.
    pub read_data_percent: Option<f64>,
}

impl CheckOptions {
    /// Reads this many percent of the stored data.
    #[must_use]
    pub fn with_read_data(mut self, percent: f64) -> Self {
        self.read_data_percent = Some(percent);
        self
    }

    fn validate(&self) -> Result<()> {
        match self.read_data_percent {
            Some(percent) if !(percent > 0.0 && percent <= 100.0) => {
                Err(Error::invalid(format!("reading {percent} % of the data"), "it must be above 0 and at most 100"))
            }
            _ => Ok(()),
        }
    }
}

/// What a check looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// What was found, worst first; those left out are the last.
    pub findings: Vec<Finding>,
    /// Findings beyond the ten thousand that are listed.
    pub left_out: u64,
    /// Findings of what is wrong, left out or not.
    pub defects: u64,
    /// Findings of what needs a newer version and so wasn't checked, left out or not.
    pub unsupported: u64,
    /// The series that have snapshots, by name.
    pub series: Vec<SeriesCheck>,
    /// Snapshots whose trees were walked.
    pub snapshots: u64,
    /// Distinct nodes that were read.
    pub nodes: u64,
    /// Entries of the leaves among them.
    pub entries: u64,
    /// Index segments that were verified.
    pub segments: u64,
    /// Packs that are there.
    pub packs: u64,
    /// Their length together, in bytes.
    pub pack_bytes: u64,
    /// Blobs that their footers describe.
    pub blobs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Their length together, in bytes: the share of the data that was verified byte by byte.
    pub bytes_read: u64,
}

/// How far one series can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeriesCheck {
    /// Its name.
    pub series: String,
    /// The number of its newest snapshot that counts and whose record can be read.
    pub latest: u64,
    /// Every snapshot up to this number that counts is there and can be restored in full; 0 if the first can't. Where a
    /// store was copied while it was written to, or a copy was cut off, this is how much of it the copy has.
    pub whole_through: u64,
}

impl SeriesCheck {
    fn new(series: String, latest: u64, broken: &BTreeMap<String, u64>) -> Self {
        let whole_through = broken.get(&series).map_or(latest, |number| latest.min(number - 1));
        Self { series, latest, whole_through }
    }
}

impl CheckReport {
    /// Whether nothing is wrong and nothing was left unchecked: every finding, if there are any, is informational.
    pub fn is_sound(&self) -> bool {
        self.defects == 0 && self.unsupported == 0
    }
}

impl Repository {
    /// Verifies that every snapshot that counts can be restored, and names what is damaged or missing and the paths that it hits.
    ///
    /// Reads every record, index segment, pack footer and distinct tree node, and looks up every chunk; with
    /// [`CheckOptions::with_read_data`] also the data itself. Changes nothing and may run beside writers.
    ///
    /// Two things can't be seen from a store alone: that newest records of a series are gone, or a key slot. For
    /// the first, keep the number and [`crate::Snapshot::hash`] of the last snapshot and compare.
    ///
    /// # Errors
    /// Those of the store, and [`Error::Invalid`] for impossible options. What is wrong with the repository is no
    /// error but a finding.
    pub async fn check(&self, options: &CheckOptions, progress: Arc<dyn Progress>) -> Result<CheckReport> {
        options.validate()?;
        let collections = Collections::new(self.parts().clone());
        for _ in 1..ATTEMPTS {
            // What lies under gc/ and isn't known, or is damaged, is a finding, not a failure.
            let standing = async || match collections.standing().await {
                Err(Error::Unsupported { .. } | Error::Corrupt { .. }) => Ok(None),
                other => other.map(Some),
            };
            let before = standing().await?;
            let report = self.check_once(options, &progress).await?;
            let is_idle = before.as_ref().is_none_or(|before| before.open().is_none());
            let quiet = is_idle && standing().await? == before;
            if report.is_sound() || quiet {
                return Ok(report);
            }
            // What was merged and deleted meanwhile may be what is missing.
        }
        self.check_once(options, &progress).await
    }

    /// Tells a copy that was made while a collection ran: it has snapshots that count and that the collection took for
    /// forgotten, since they were copied before that was said, and what they need was deleted before it was copied.
    async fn find_late_copies(&self, snapshots: &[Root], findings: &mut Findings) -> Result<()> {
        let begun = match Collections::new(self.parts().clone()).last_begun().await {
            Err(Error::Unsupported { .. } | Error::Corrupt { .. } | Error::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        let Some((number, plan)) = begun else { return Ok(()) };
        let late = snapshots
            .iter()
            .filter(|snapshot| snapshot.counts)
            .filter(|snapshot| Numbers::contain(&plan.records, &snapshot.record.tag, snapshot.record.number));
        for snapshot in late {
            let record = Name::Commit(snapshot.record).to_string();
            let problem = format!(
                "collection {number} took it for forgotten, and here it counts: this is a copy that was made while that \
                 collection ran, so copy it again; or a list of what counts is missing"
            );
            findings.add_new(FindingKind::Inconsistent, &record, problem);
            findings.affect(&record, &snapshot.label);
        }
        Ok(())
    }

    async fn check_once(&self, options: &CheckOptions, progress: &Arc<dyn Progress>) -> Result<CheckReport> {
        progress.phase(Phase::CheckingStructure);
        let (mut findings, mut report) = (Findings::default(), CheckReport::default());
        self.check_config(&mut findings).await?;
        self.check_keys(&mut findings).await?;
        let lists = self.check_signed(&mut findings).await?;
        let snapshots = self.check_snapshots(&lists, &mut findings).await?;
        self.check_writers(&mut findings).await?;
        self.find_late_copies(&snapshots, &mut findings).await?;
        let mut latest = BTreeMap::<String, u64>::new();
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.counts) {
            let number = latest.entry(snapshot.series.clone()).or_default();
            *number = snapshot.record.number.max(*number);
        }

        let segments = Arc::new(self.check_segments(&mut findings).await?);
        let named = snapshots.iter().flat_map(|snapshot| snapshot.packs.iter().copied()).collect();
        let packs = self.check_packs(&segments, &named, options, &mut findings, &mut report, progress).await?;
        progress.phase(Phase::CheckingStructure);
        report.snapshots = snapshots.len() as u64;
        report.segments = segments.list.len() as u64;
        let unindexed = packs.unindexed.clone();
        let survey = Arc::new(Survey::new(self, segments, packs, named));

        let mut trees = Trees::new(survey, &snapshots, findings, Arc::clone(progress));
        trees.walk(&mut report).await?;
        trees.name_leftovers(&unindexed);
        trees.attribute().await?;
        let findings = trees.into_findings();
        report.series =
            latest.into_iter().map(|(name, latest)| SeriesCheck::new(name, latest, findings.broken())).collect();
        findings.finish(&mut report);
        Ok(report)
    }
}
