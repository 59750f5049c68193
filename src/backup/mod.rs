//! Backing up: folders or a stream into a new snapshot of a series.
//!
//! ```text
//! scan thread ──batches──> reader threads ──items, in order──> this task ──> blobs (CPU threads, uploads)
//! walk, compare            read, cut, hash                     assemble      compress, seal, upload
//! with the parent                                              the tree
//! ```
//! The threads share bounded queues: each stage waits for the next, so memory
//! has a bound. Dropping the future closes the queues, which ends the threads;
//! nothing is visible before the commit.

mod assemble;
mod estimate;
mod heal;
mod prepare;
mod scan;
mod stream;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backup::assemble::Assembly;
use crate::backup::estimate::Estimate;
use crate::backup::heal::Lost;
use crate::backup::scan::{Scan, ScanTotals};
use crate::blobs::{BlobWriter, Evidence, Stored, WriteOptions};
use crate::compress;
use crate::cpu;
use crate::draft::commit;
use crate::error::{Error, Result};
use crate::files::{Walk, WalkOptions};
use crate::id::WriterId;
use crate::index::Want;
use crate::progress::{Phase, Progress};
use crate::registration::Registration;
use crate::repository::Repository;
use crate::snapshot::{Content, FAILURES_MAX, Failure, Snapshot, SnapshotStats, validate_series};

/// What is backed up, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupOptions {
    /// The series that the snapshot continues.
    pub series: String,
    /// The machine's name, kept in the snapshot.
    pub host: String,
    /// Labels kept in the snapshot.
    pub tags: BTreeMap<String, String>,
    /// Patterns of what to leave out, by gitignore's rules, relative to each path that is backed up.
    pub excludes: Vec<String>,
    /// Files with such a pattern a line.
    pub exclude_files: Vec<PathBuf>,
    /// Don't enter other file systems.
    pub one_file_system: bool,
    /// Go through everything and store nothing.
    pub dry_run: bool,
    /// zstd level, -7 to 19.
    pub compression_level: i32,
    /// Read every file, whether or not it looks unchanged since the series' last snapshot.
    pub read_all: bool,
    /// Read files that look unchanged, too, if some of their content is in no pack that is there, as after a repair that
    /// found it lost: it is stored again, and older snapshots that need the same are whole again. Walks the last
    /// snapshot's tree first.
    pub heal: bool,
    /// Count the source beside the backup, so that the progress can tell what to expect: a second walk.
    pub estimate: bool,
    /// Threads that read files; nothing for as many as there are cores, but at least four.
    pub readers: Option<usize>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            series: "default".to_owned(),
            host: String::new(),
            tags: BTreeMap::new(),
            excludes: Vec::new(),
            exclude_files: Vec::new(),
            one_file_system: false,
            dry_run: false,
            compression_level: WriteOptions::default().level,
            read_all: false,
            heal: false,
            estimate: false,
            readers: None,
        }
    }
}

impl BackupOptions {
    /// Continues this series.
    #[must_use]
    pub fn with_series(mut self, series: impl Into<String>) -> Self {
        self.series = series.into();
        self
    }

    /// Names the machine.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Leaves out what a pattern matches.
    #[must_use]
    pub fn with_exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excludes.push(pattern.into());
        self
    }

    /// Goes through everything and stores nothing.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Reads files again whose stored content is lost.
    #[must_use]
    pub fn with_heal(mut self, heal: bool) -> Self {
        self.heal = heal;
        self
    }

    /// Counts the source beside the backup, so that the progress can tell what to expect.
    #[must_use]
    pub fn with_estimate(mut self, estimate: bool) -> Self {
        self.estimate = estimate;
        self
    }

    fn validate(&self) -> Result<()> {
        validate_series(&self.series)?;
        compress::check_level(self.compression_level)
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions { level: self.compression_level, dry_run: self.dry_run, ..WriteOptions::default() }
    }
}

/// What a backup did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The new snapshot; none in a dry run.
    pub snapshot: Option<Snapshot>,
    /// What the snapshot holds and what it took.
    pub stats: SnapshotStats,
    /// What could not be read, or only in part.
    pub failures: Vec<Failure>,
}

/// A backup under way: where it writes, and on what it builds.
struct Session {
    registration: Option<Registration>,
    parent: Option<Snapshot>,
    writer: BlobWriter,
}

impl Session {
    /// Registers and reads what the backup starts from; a dry run only reads.
    async fn begin(repository: &Repository, options: &BackupOptions, progress: &Arc<dyn Progress>) -> Result<Self> {
        progress.phase(Phase::Preparing);
        options.validate()?;
        let parts = repository.parts().clone();
        let (registration, parent) = if options.dry_run {
            let tag = repository.keyring().series_tag(&options.series);
            (None, repository.timelines().latest(&tag, None).await?)
        } else {
            let (series, host) = (&options.series, &options.host);
            let registration = Registration::begin(parts.clone(), series, host, repository.mode()).await?;
            let parent = registration.parent();
            (Some(registration), parent)
        };
        let id = registration.as_ref().map_or(WriterId::new([0; WriterId::LEN]), Registration::id);
        let condemned = registration.as_ref().map(Registration::condemned).unwrap_or_default();
        let mut writer = BlobWriter::new(parts, id, Evidence::new(condemned), options.write_options());
        if let Some(parent) = &parent {
            repository.reader_of(parent);
            writer.adopt(&parent.stored.packs);
        }
        let session = Self { registration, parent, writer };
        match repository.index().refresh(Want::All).await {
            Ok(()) => Ok(session),
            Err(error) => Err(session.abandon(error).await),
        }
    }

    /// Ends the registration of a backup that failed before its commit.
    async fn abandon(self, error: Error) -> Error {
        if let Some(registration) = &self.registration {
            registration.end().await;
        }
        error
    }

    /// Publishes what was stored as the next snapshot of the series.
    async fn commit(
        self,
        repository: &Repository,
        content: Content,
        options: &BackupOptions,
        progress: &Arc<dyn Progress>,
    ) -> Result<BackupReport> {
        progress.phase(Phase::Committing);
        let (stats, failures) = (content.stats, content.failures.clone());
        let snapshot = match self.registration {
            Some(registration) => Some(commit(repository, registration, content, options.write_options()).await?),
            None => None,
        };
        Ok(BackupReport { snapshot, stats, failures })
    }
}

impl Repository {
    /// Backs up files and folders as the next snapshot of a series.
    ///
    /// What is unchanged since the series' latest snapshot isn't read. Absolute paths are stored without their
    /// leading `/`, relative ones as given. What can't be read is reported and left out, and the snapshot says that
    /// it is partial; only a failure of the repository, or a path in `paths` that doesn't exist, is an error.
    ///
    /// Dropping the future stops the backup: the repository is as before, but for packs that nothing refers to.
    pub async fn backup(
        &self,
        paths: &[PathBuf],
        options: &BackupOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<BackupReport> {
        options.validate()?;
        let (roots, walk_options) = (paths.to_vec(), options.walk_options());
        let counted = options.estimate;
        let (walk, count) = cpu::block(move || {
            let count = counted.then(|| Walk::new(&roots, &walk_options)).transpose()?;
            Ok((Walk::new(&roots, &walk_options)?, count))
        })
        .await?;
        let mut session = Session::begin(self, options, &progress).await?;
        progress.phase(Phase::BackingUp);
        // Without a thread for it the backup does without.
        let estimate = count.and_then(|walk| Estimate::start(walk, Arc::clone(&progress)).ok());
        let content = match self.store_files(walk, paths, options, &mut session, &progress).await {
            Ok(content) => content,
            Err(error) => return Err(session.abandon(error).await),
        };
        drop(estimate);
        session.commit(self, content, options, &progress).await
    }

    async fn store_files(
        &self,
        walk: Walk,
        paths: &[PathBuf],
        options: &BackupOptions,
        session: &mut Session,
        progress: &Arc<dyn Progress>,
    ) -> Result<Content> {
        let lost = if options.heal {
            let condemned = session.registration.as_ref().map(Registration::condemned).unwrap_or_default();
            self.lost(session.parent.clone(), condemned).await?
        } else {
            Lost::default()
        };
        // Edits take over nodes, so with one that is lost the tree is built anew: equal content gives equal nodes.
        let compared = session.parent.clone().filter(|_| !lost.nodes);
        let mut assembly = Assembly::new(self, compared.as_ref().map(|parent| parent.root));
        let mut scan = Scan::start(self, walk, compared.as_ref(), lost.chunks, options, Arc::clone(progress))?;
        while let Some(items) = scan.next().await? {
            assembly.take(items, &mut session.writer).await?;
        }
        let totals = scan.finish()?;
        let (root, failures) = assembly.finish(&mut session.writer).await?;
        session.writer.flush().await?;
        let stats = statistics(&totals, session.writer.stats());
        let paths = paths.iter().map(|path| path.display().to_string()).collect();
        let parent = compared.map(|parent| parent.number);
        let stored = session.writer.stored(&root.id);
        Ok(content(options, paths, root, stored, parent, stats, failures))
    }
}

impl BackupOptions {
    fn walk_options(&self) -> WalkOptions {
        WalkOptions {
            excludes: self.excludes.clone(),
            exclude_files: self.exclude_files.clone(),
            one_file_system: self.one_file_system,
        }
    }
}

fn statistics(totals: &ScanTotals, written: crate::blobs::WriteStats) -> SnapshotStats {
    SnapshotStats {
        new_blobs: written.new_blobs,
        new_bytes: written.new_bytes,
        stored_bytes: written.stored_bytes,
        ..totals.stats()
    }
}

fn content(
    options: &BackupOptions,
    paths: Vec<String>,
    root: crate::tree::Root,
    stored: Stored,
    parent: Option<u64>,
    stats: SnapshotStats,
    mut failures: Vec<Failure>,
) -> Content {
    let failure_count = failures.len() as u64;
    failures.truncate(FAILURES_MAX);
    Content {
        host: options.host.clone(),
        tags: options.tags.clone(),
        paths,
        position: None,
        root: root.id,
        entries: root.entries,
        parent,
        origin: None,
        stats,
        failures,
        failure_count,
        stored,
    }
}
