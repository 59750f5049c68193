//! Counting the source beside a backup, so that its progress has an end to show.
//!
//! A walk of its own: the backup's is held back by the readers, and knows the
//! total only when it is nearly done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backup::scan::spawn;
use crate::error::Result;
use crate::files::Walk;
use crate::progress::Progress;
use crate::tree::EntryKind;

/// A count under way; dropping it ends it.
pub(super) struct Estimate(Arc<AtomicBool>);

impl Estimate {
    /// Starts a thread that tells `progress` what to expect when it has seen everything.
    pub(super) fn start(walk: Walk, progress: Arc<dyn Progress>) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let estimate = Self(Arc::clone(&ended));
        spawn("backstop-estimate", move || {
            let (mut files, mut bytes) = (0u64, 0u64);
            // What can't be read is the backup's to report.
            for found in walk.flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                files += u64::from(found.kind() == EntryKind::File);
                bytes = bytes.saturating_add(found.size());
            }
            progress.expect(files, bytes);
        })?;
        Ok(estimate)
    }
}

impl Drop for Estimate {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
