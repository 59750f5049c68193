//! Repairing: what is damaged or missing is put right as far as what is left, or another copy, allows.
//!
//! ```text
//! plan      records, lists, collections ──> segments ──> packs, whole ──> trees: what is lost ──> look
//! execute   small objects ──> packs and segments from the copy ──> salvage into new packs ──> describe ──> records
//!           ──> delete what is damaged, by a collection ──> rewrite what lost something, forget the old
//! ```
//! Owns what is done about each defect, and the order. How an object is
//! verified is the business of the module that reads it.
//!
//! - `objects`: config, keys, lists, collections, registrations. `records`: series. `packs`: segments and packs.
//! - `view`: where blobs will be once all is done. `losses`: what can't be restored even then.
//! - `void`: giving numbers up. `carry_out`: the steps in order. `rewrite`: snapshots without what is lost.
//!
//! Invariants: nothing is deleted before what replaces it is durable, here or in
//! the other copy; what can't be read at all is the exception, and goes only once
//! all that can be read of it is elsewhere. A repair that is cut off can be
//! planned and carried out again at any point. What needs a newer version is no
//! damage: it is left alone, and but for a key slot nothing at all is repaired
//! beside it, since it may tell what is needed.

mod carry_out;
mod losses;
mod objects;
mod options;
mod packs;
mod records;
mod rewrite;
#[cfg(test)]
mod tests;
mod view;
mod void;

use std::sync::Arc;

pub use options::{RepairAction, RepairOptions, RepairReport, RepairStep, SnapshotLoss};

use crate::error::{Error, Result};
use crate::layout::Name;
use crate::progress::{Phase, Progress};
use crate::repair::objects::Small;
use crate::repair::packs::PackWork;
use crate::repair::records::SeriesWork;
use crate::repair::view::View;
use crate::repository::Repository;

/// What a repair would do.
#[derive(Debug)]
#[non_exhaustive]
pub struct RepairPlan {
    /// What is wrong, and what is done about it.
    pub steps: Vec<RepairStep>,
    /// What can't be restored whatever this repair does: final, unless another copy or a backup that heals has it.
    pub lost: Vec<SnapshotLoss>,
    /// Packs that were read.
    pub packs_read: u64,
    /// Their length, in bytes.
    pub bytes_read: u64,
    options: RepairOptions,
    small: Small,
    series: SeriesWork,
    packs: PackWork,
}

impl RepairPlan {
    /// Whether there is something that this repair would do.
    pub fn is_due(&self) -> bool {
        self.steps.iter().any(|step| step.action != RepairAction::None)
    }

    /// Whether something is wrong, rather than only newer than this library.
    pub fn has_damage(&self) -> bool {
        self.steps.iter().any(|step| !step.unsupported) || self.lost.iter().any(|loss| !loss.forgotten)
    }

    /// Whether nothing at all is wrong, and nothing needs a newer version of this library.
    pub fn is_sound(&self) -> bool {
        self.steps.is_empty() && self.lost.iter().all(|loss| loss.forgotten)
    }
}

/// The steps so far.
#[derive(Debug, Default)]
struct Steps(
    Vec<RepairStep>,
    /// Whether something isn't understood that may tell what is needed, so that nothing may be done.
    bool,
);

impl Steps {
    fn add(&mut self, object: impl ToString, problem: impl ToString, action: RepairAction) {
        self.advise(object, problem, action, "");
    }

    fn advise(&mut self, object: impl ToString, problem: impl ToString, action: RepairAction, advice: impl ToString) {
        let (object, problem, advice) = (object.to_string(), problem.to_string(), advice.to_string());
        self.0.push(RepairStep { object, problem, action, advice, unsupported: false });
    }

    /// Leaves something alone that needs a newer version.
    fn leave(&mut self, object: impl ToString, error: Error) {
        let Error::Unsupported { reason, .. } = error else { return };
        let object = object.to_string();
        // A key slot tells nothing of what is needed.
        self.1 |= !matches!(Name::parse(&object), Some(Name::Key(_)));
        let advice = "it is no damage, and is left alone".to_owned();
        self.0.push(RepairStep { object, problem: reason, action: RepairAction::None, advice, unsupported: true });
    }

    /// The steps where nothing may be done.
    fn on_hold(mut self) -> Vec<RepairStep> {
        for step in self.0.iter_mut().filter(|step| step.action != RepairAction::None) {
            step.action = RepairAction::None;
            "nothing is repaired beside what needs a newer version: repair with that".clone_into(&mut step.advice);
        }
        self.0
    }
}

impl Repository {
    /// Looks what is wrong and what can be done about it: reads everything that a check with all data reads, and
    /// changes nothing.
    ///
    /// # Errors
    /// Those of the store; [`Error::Invalid`] if the other repository isn't a copy of this one. What is wrong with the
    /// repository is no error.
    pub async fn plan_repair(&self, options: &RepairOptions, progress: Arc<dyn Progress>) -> Result<RepairPlan> {
        options.validate(self)?;
        progress.phase(Phase::CheckingStructure);
        let mut steps = Steps::default();
        let (mut small, lists) = self.plan_small(options, &mut steps).await?;
        let theirs = self.lists_there(options).await?;
        let (mut series, roots) = self.plan_records(options, (&lists, &theirs), &mut steps).await?;
        series.without_nameless(options, &small.series, &mut steps);
        small.without_nameless(options, &series.names);
        let (mut packs, view) = self.plan_packs(options, &roots, &mut steps, &progress).await?;
        let view = Arc::new(view);
        progress.phase(Phase::CheckingStructure);
        let mut lost = View::losses(&view, &roots, &mut steps).await?;
        view.conclude(&mut packs, &mut steps).await?;
        let series = series.with_losses(options, &roots, &theirs, &mut lost, &mut steps);
        let (packs_read, bytes_read) = (packs.read, packs.bytes_read);
        if steps.1 {
            let (lost, small, series, packs) =
                (Vec::new(), Small::default(), SeriesWork::default(), PackWork::default());
            let (steps, options) = (steps.on_hold(), options.clone());
            return Ok(RepairPlan { steps, lost, packs_read, bytes_read, options, small, series, packs });
        }
        Ok(RepairPlan { steps: steps.0, lost, packs_read, bytes_read, options: options.clone(), small, series, packs })
    }

    /// Repairs what a plan says.
    ///
    /// May run beside readers and writers. May be dropped: plan anew then.
    ///
    /// ```
    /// # use backstop::*; use std::sync::Arc; async fn f(repository: &Repository, copy: Repository) -> Result<()> {
    /// let options = RepairOptions::default().with_other(copy);
    /// let plan = repository.plan_repair(&options, Arc::new(NoProgress)).await?;
    /// for step in &plan.steps {
    ///     println!("{step}");
    /// }
    /// let report = repository.repair(plan, Arc::new(NoProgress)).await?;
    /// for loss in &report.lost {
    ///     println!("{}#{} lacks {} paths", loss.series, loss.number, loss.paths.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::AppendOnly`] if the repository was opened with a secret that may not delete; [`Error::Conflict`] if
    /// something changed since: plan anew.
    pub async fn repair(&self, plan: RepairPlan, progress: Arc<dyn Progress>) -> Result<RepairReport> {
        self.require_administrator("repair")?;
        self.carry_out(plan, progress).await
    }
}

/// What an error says is wrong with stored objects; another is returned, as that something needs a newer version.
fn said(error: Error) -> Result<String> {
    match error {
        Error::Corrupt { reason, .. } => Ok(reason),
        Error::NotFound { .. } => Ok("it does not exist".to_owned()),
        other => Err(other),
    }
}

/// The same of the other copy, where what needs a newer version is as good as missing.
fn said_there(error: Error) -> Result<String> {
    match error {
        Error::Unsupported { reason, .. } => Ok(reason),
        other => said(other),
    }
}
