//! What a check finds, by the object that it concerns.

use std::collections::BTreeMap;
use std::collections::btree_map;

use crate::check::CheckReport;
use crate::error::{Error, Result};

/// How many findings are listed.
const FINDINGS_MAX: usize = 10_000;

/// How many different problems of one object are told.
const PROBLEMS_MAX: usize = 5;

/// How many affected snapshots and paths are named for one object.
const AFFECTED_MAX: usize = 20;

/// What a finding means for whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// An object's bytes aren't what they should be: restore it from a copy of the repository.
    Damaged,
    /// Something that others refer to isn't there: restore it from a copy of the repository.
    Missing,
    /// Objects that are sound by themselves contradict each other.
    Inconsistent,
    /// A sound pack that snapshots need and no index segment describes: what is in it can be read, and a repair describes it.
    /// A copy that was made file by file beside a merge has such.
    Undescribed,
    /// It is sound and needs a newer version of this library, so that what it holds wasn't checked. No damage.
    Unsupported,
    /// Informational: nothing refers to it. An interrupted writer leaves such things, and a running one has them.
    Leftover,
    /// Informational: it has a right name and isn't by whom it should be: a list, collection or roster that this repository's
    /// administrator didn't sign, or an end of a registration that isn't its writer's. It counts for nothing, but somebody who
    /// can write to the store put it there: find out who, and delete it.
    Unsigned,
    /// Informational: the name is none that this build gives.
    Foreign,
}

impl FindingKind {
    /// Whether nothing is wrong, and nothing was left unchecked.
    pub fn is_informational(self) -> bool {
        matches!(self, FindingKind::Leftover | FindingKind::Unsigned | FindingKind::Foreign)
    }

    /// Whether something is wrong.
    pub fn is_defect(self) -> bool {
        !self.is_informational() && self != FindingKind::Unsupported
    }
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it means.
    pub kind: FindingKind,
    /// The stored object's name; `blob …` or `node …` where no object is known that should hold it.
    pub object: String,
    /// What was expected and what was found.
    pub problem: String,
    /// The snapshots, as `series#number`, and the paths in them that can't be restored, as `series#number:path`; at
    /// most twenty.
    pub affected: Vec<String>,
    /// How many there are in all.
    pub affected_count: u64,
}

/// Something wrong, before it is known what it affects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: FindingKind,
    pub(super) object: String,
    /// Empty where the object's finding already says it.
    pub(super) problem: String,
}

impl Trouble {
    pub(super) fn new(kind: FindingKind, object: impl ToString, problem: impl ToString) -> Self {
        Self { kind, object: object.to_string(), problem: problem.to_string() }
    }

    /// What an error says of stored objects; one that says nothing of them is returned.
    pub(super) fn of(error: Error) -> Result<Self> {
        match error {
            Error::NotFound { object } => Ok(Self::new(FindingKind::Missing, object, "it does not exist")),
            Error::Corrupt { object, reason } => Ok(Self::new(FindingKind::Damaged, object, reason)),
            Error::Unsupported { object, reason } => Ok(Self::new(FindingKind::Unsupported, object, reason)),
            other => Err(other),
        }
    }
}

/// Findings under way, one for an object.
#[derive(Debug, Default)]
pub(super) struct Findings {
    by_object: BTreeMap<String, Found>,
    /// The lowest number of each series that can't be restored in full.
    broken: BTreeMap<String, u64>,
    left_out: u64,
    defects_left_out: u64,
    unsupported_left_out: u64,
}

#[derive(Debug)]
struct Found {
    kind: FindingKind,
    problems: Vec<String>,
    affected: Vec<String>,
    affected_count: u64,
}

impl Findings {
    /// Adds something wrong, to what is known of its object.
    pub(super) fn add(&mut self, trouble: Trouble) {
        let full = self.by_object.len() >= FINDINGS_MAX;
        let found = match self.by_object.entry(trouble.object) {
            btree_map::Entry::Occupied(found) => found.into_mut(),
            btree_map::Entry::Vacant(_) if full => {
                self.left_out += 1;
                self.defects_left_out += u64::from(trouble.kind.is_defect());
                self.unsupported_left_out += u64::from(trouble.kind == FindingKind::Unsupported);
                return;
            }
            btree_map::Entry::Vacant(place) => place.insert(Found {
                kind: trouble.kind,
                problems: Vec::new(),
                affected: Vec::new(),
                affected_count: 0,
            }),
        };
        found.kind = found.kind.min(trouble.kind);
        let told = trouble.problem.is_empty() || found.problems.contains(&trouble.problem);
        if !told && found.problems.len() < PROBLEMS_MAX {
            found.problems.push(trouble.problem);
        }
    }

    /// Adds what an error says of stored objects; an error that says nothing of them is returned.
    pub(super) fn add_error(&mut self, error: Error) -> Result<()> {
        self.add(Trouble::of(error)?);
        Ok(())
    }

    /// Adds something of a kind.
    pub(super) fn add_new(&mut self, kind: FindingKind, object: impl ToString, problem: impl ToString) {
        self.add(Trouble::new(kind, object, problem));
    }

    /// Notes what the trouble with an object affects.
    pub(super) fn affect(&mut self, object: &str, what: &str) {
        if let Some(found) = self.by_object.get_mut(object) {
            if found.kind.is_defect()
                && found.kind != FindingKind::Undescribed
                && let Some((series, number)) = labelled(what)
            {
                let lowest = self.broken.entry(series.to_owned()).or_insert(number);
                *lowest = number.min(*lowest);
            }
            found.affected_count += 1;
            if found.affected.len() < AFFECTED_MAX {
                found.affected.push(what.to_owned());
            }
        }
    }

    /// The lowest number of each series that can't be restored in full, or isn't there.
    pub(super) fn broken(&self) -> &BTreeMap<String, u64> {
        &self.broken
    }

    /// Whether anything was found about an object.
    pub(super) fn concern(&self, object: &str) -> bool {
        self.by_object.contains_key(object)
    }

    /// Whether anything is wrong, or isn't understood.
    pub(super) fn have_defects(&self) -> bool {
        self.by_object.values().any(|found| !found.kind.is_informational())
    }

    /// Puts the findings into the report, the worst first.
    pub(super) fn finish(self, report: &mut CheckReport) {
        let mut findings: Vec<_> = self.by_object.into_iter().map(|(object, found)| found.finish(object)).collect();
        findings.sort_by_key(|finding| finding.kind);
        let count = |is: fn(FindingKind) -> bool| findings.iter().filter(|finding| is(finding.kind)).count() as u64;
        report.defects = count(FindingKind::is_defect) + self.defects_left_out;
        report.unsupported = count(|kind| kind == FindingKind::Unsupported) + self.unsupported_left_out;
        report.left_out = self.left_out;
        report.findings = findings;
    }
}

/// The snapshot of something that is affected: `series#number`, with or without `:path`.
fn labelled(what: &str) -> Option<(&str, u64)> {
    let (series, rest) = what.split_once('#')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((series, rest[..digits].parse().ok()?))
}

impl Found {
    fn finish(self, object: String) -> Finding {
        let Self { kind, problems, affected, affected_count } = self;
        Finding { kind, object, problem: problems.join("; "), affected, affected_count }
    }
}
