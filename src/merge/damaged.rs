//! Carries out a collection of what is damaged.

use crate::blobs::{Condemned, list_packs};
use crate::collection::{Collections, Plan};
use crate::cpu;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::index::Want;
use crate::layout::{self, Name};
use crate::merge::{MergeReport, examine_pack, lengths};
use crate::pack::PACK_MAX;
use crate::repository::Repository;

impl Repository {
    /// Deletes the packs that collection `number` condemned and that still can't be read whole, and the segments that
    /// can't be read or say nothing that others don't; and ends it.
    ///
    /// What is sound stays: it was put back from a copy since, or only begins like what was condemned.
    pub(crate) async fn sweep_damaged(
        &self,
        collections: &Collections,
        number: u64,
        plan: &Plan,
        report: &mut MergeReport,
    ) -> Result<()> {
        let condemned = Condemned::new(plan.packs.clone());
        let listed = self.store().list(layout::PACKS).await?;
        let mut gone = Vec::new();
        for (id, _) in lengths(listed, layout::parse_pack).filter(|(id, _)| condemned.contains(id)) {
            if self.is_whole(id).await? {
                continue;
            }
            if self.delete(Name::Pack(id)).await? {
                gone.push(id);
                report.packs_deleted += 1;
            } else {
                report.left += 1;
            }
        }
        self.index().forget_gone(gone);
        self.sweep_damaged_segments(plan, report).await?;
        if report.left == 0 {
            collections.end(number, plan.inherited.clone()).await?;
        }
        Ok(())
    }

    async fn is_whole(&self, id: ObjectId) -> Result<bool> {
        let keyring = self.keyring().clone();
        match self.store().get(&Name::Pack(id).to_string(), PACK_MAX).await {
            Ok(bytes) => {
                match cpu::start(move || examine_pack(id, &bytes, &keyring, &[])).await {
                    // It is another that begins like what was condemned.
                    Err(error) if error.is_unsupported() => Ok(true),
                    examined => examined.map(|it| it.problem.is_none()),
                }
            }
            Err(error @ Error::Store { .. }) => Err(error),
            Err(_) => Ok(false),
        }
    }

    async fn sweep_damaged_segments(&self, plan: &Plan, report: &mut MergeReport) -> Result<()> {
        self.index().refresh(Want::Bulk).await?;
        self.index().require_known()?;
        let there = list_packs(self.store()).await?;
        let swept = self.sweep_segments(&plan.segments, &there, &Default::default()).await?;
        report.segments_deleted += swept.deleted;
        for id in swept.left {
            let name = Name::Index(id).to_string();
            let length = self.store().length(&name).await?;
            match self.index().fetch(id, length).await {
                // It says what no other does of packs that are there: it was put back since.
                Ok(_) => {}
                Err(error @ (Error::Store { .. } | Error::Unsupported { .. })) => return Err(error),
                Err(error) if error.is_not_found() => {}
                Err(_) if self.delete(Name::Index(id)).await? => {
                    report.segments_deleted += 1;
                    self.index().forget_segments(&[id]);
                }
                Err(_) => report.left += 1,
            }
        }
        Ok(())
    }
}
