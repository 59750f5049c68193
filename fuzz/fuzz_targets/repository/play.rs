//! One run: attacks and commands in order, and what must hold throughout.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use backstop::{
    CheckOptions, EntryKind, ForgetOptions, GcOptions, Key, NoProgress, OpenOptions, RecordHash, RepairOptions,
    Repository, RestoreOptions, RetentionPolicy, Secret, Selector, Snapshot,
};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;

use crate::Step;
use crate::original::{BEGIN, ORIGINAL, Repeatable, SERIES, administrator, append_only, commit, load};

/// Made-up files that say to be longer aren't read.
const FILE_MAX: u64 = 1 << 20;

pub type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an administrator or an honest writer does.
#[derive(Arbitrary, Debug)]
pub enum Command {
    Check,
    Repair { accept_loss: bool, remove_damaged_writers: bool },
    Gc { waste: u8, patient: bool },
    Merge,
    ForgetByName { series: u8, number: u8, keep: bool },
    ForgetByPolicy { last: u8, daily: u8 },
    Undelete { series: u8, number: u8 },
    Commit { series: u8, round: u8 },
    Stream { series: u8, round: u8 },
    Restore { snapshot: u8 },
    RotateKeys,
    Wait { days: u8 },
}

/// A snapshot that must read.
struct Promised {
    hash: RecordHash,
    files: Files,
}

struct Play {
    store: Arc<dyn ObjectStore>,
    repeatable: Arc<Repeatable>,
    /// By series and number.
    promised: BTreeMap<(String, u64), Promised>,
    /// Whether something was damaged since what is promised was last read, so that it may have become unreadable.
    excused: bool,
    /// Whether commits may be broken from the start: something was damaged, or lies were told.
    tainted: bool,
    /// Whether anything was ever damaged.
    damaged: bool,
}

pub async fn run(steps: &[Step]) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (name, bytes) in &ORIGINAL.objects {
        store.put(&name.clone().into(), bytes.clone().into()).await.unwrap();
    }
    let promise = |(snapshot, files): &(Snapshot, Files)| {
        ((snapshot.series.clone(), snapshot.number), Promised { hash: snapshot.hash, files: files.clone() })
    };
    let promised = ORIGINAL.snapshots.iter().map(promise).collect();
    let mut play =
        Play { store, repeatable: Repeatable::new(2, BEGIN), promised, excused: false, tainted: false, damaged: false };
    let mut opened = None;
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Attack(edit) => {
                play.attack(edit).await;
                // What was only added makes nothing unreadable, which is seen at the end as well.
                if play.excused && matches!(steps.get(number + 1), Some(Step::Command(_))) {
                    play.verify(steps).await;
                }
            }
            Step::Command(command) => {
                // One handle goes on through attacks, but what can't be opened any more is at its end.
                if opened.is_none() {
                    opened = play.open(&administrator()).await;
                }
                let Some(repository) = &opened else { return };
                play.command(repository, command).await;
            }
        }
    }
    play.verify(steps).await;
    play.verify_check().await;
}

impl Play {
    async fn open(&self, secret: &Secret) -> Option<Repository> {
        let options = OpenOptions::default().with_surroundings(self.repeatable.surroundings());
        let opened = Repository::open(Arc::clone(&self.store), secret, options).await;
        if let (false, Err(error)) = (self.damaged, &opened) {
            panic!("nothing was damaged, and it doesn't open: {error}");
        }
        opened.ok()
    }

    async fn attack(&mut self, edit: &crate::attack::Edit) {
        let before = load(&self.store).await;
        let mut after = before.clone();
        edit.apply(&mut after);
        self.tainted |= edit.is_lie();
        for (name, bytes) in &before {
            match after.get(name) {
                Some(now) if now == bytes => continue,
                Some(_) => {}
                None => self.store.delete(&name.clone().into()).await.unwrap(),
            }
            (self.excused, self.tainted, self.damaged) = (true, true, true);
        }
        for (name, bytes) in after {
            if before.get(&name) != Some(&bytes) {
                // A name that a store can't have is none that an attacker can make.
                let Ok(path) = object_store::path::Path::parse(&name) else { continue };
                self.store.put(&path, bytes.into()).await.unwrap();
            }
        }
    }

    async fn command(&mut self, repository: &Repository, command: &Command) {
        let series = |number: &u8| SERIES[usize::from(*number) % SERIES.len()];
        match command {
            Command::Check => drop(check(repository).await),
            Command::Repair { accept_loss, remove_damaged_writers } => {
                let mut options = RepairOptions::default().with_accept_loss(*accept_loss);
                options = options.with_remove_damaged_writers(*remove_damaged_writers);
                if let Ok(plan) = repository.plan_repair(&options, Arc::new(NoProgress)).await {
                    drop(repository.repair(plan, Arc::new(NoProgress)).await);
                }
            }
            Command::Gc { waste, patient } => {
                let mut options = GcOptions::default().with_waste_max(f64::from(*waste % 4) / 3.0);
                if !patient {
                    options = options.with_wait(Duration::ZERO).with_fence_after(Duration::ZERO);
                }
                if let Ok(plan) = repository.plan_gc(&options).await {
                    drop(repository.gc(plan, Arc::new(NoProgress)).await);
                }
            }
            Command::Merge => {
                if let Ok(plan) = repository.plan_merge().await {
                    drop(repository.merge(&plan).await);
                }
            }
            Command::ForgetByName { series: of, number, keep } => {
                let time = if *keep { Duration::from_secs(20 * 86_400) } else { Duration::ZERO };
                let options = ForgetOptions::default().with_snapshot(series(of), u64::from(number % 8) + 1);
                self.forget(repository, options.with_undelete_for(time)).await;
            }
            Command::ForgetByPolicy { last, daily } => {
                let mut policy = RetentionPolicy::default().with_last(u32::from(last % 4) + 1);
                if daily % 4 > 0 {
                    policy = policy.with_daily((daily % 4).into());
                }
                self.forget(repository, ForgetOptions::default().with_policy(policy)).await;
            }
            Command::Undelete { series: of, number } => {
                let made = repository.undelete(series(of), u64::from(number % 8) + 1).await;
                self.promise(made).await;
            }
            Command::Commit { series: of, round } => {
                let Some(writer) = self.open(&append_only()).await else { return };
                let made = commit(&writer, series(of), *round).await;
                self.promise(made).await;
            }
            Command::Stream { series: of, round } => {
                let mut options = backstop::BackupOptions::default();
                options.series = series(of).to_owned();
                let Ok(name) = Key::from_path("a/stream") else { return };
                let content = [*round; 3000];
                let made = repository.backup_stream(&name, &content[..], &options, Arc::new(NoProgress)).await;
                if let Ok(report) = made
                    && let Some(snapshot) = report.snapshot
                {
                    self.promise(Ok(snapshot)).await;
                }
            }
            Command::Restore { snapshot } => self.restore(repository, *snapshot).await,
            Command::RotateKeys => drop(repository.rotate_keys().await),
            Command::Wait { days } => self.repeatable.pass(i64::from(*days % 40) * 86_400),
        }
    }

    /// What a person is shown and agrees to isn't promised any more.
    async fn forget(&mut self, repository: &Repository, options: ForgetOptions) {
        let Ok(plan) = repository.plan_forget(&options).await else { return };
        for snapshot in plan.forgotten() {
            self.promised.remove(&(snapshot.series.clone(), snapshot.number));
        }
        drop(repository.forget(&plan).await);
    }

    /// A writer was acknowledged. What it wrote upon lies may be broken, but what reads now does so from now on.
    async fn promise(&mut self, made: backstop::Result<Snapshot>) {
        let Ok(snapshot) = made else { return };
        let Some(reader) = self.open(&append_only()).await else { return };
        match read(&reader, &snapshot).await {
            Ok(files) => {
                let promised = Promised { hash: snapshot.hash, files };
                self.promised.insert((snapshot.series, snapshot.number), promised);
            }
            Err(error) => {
                assert!(self.tainted, "nobody lied, and {snapshot} was acknowledged and can't be read: {error}")
            }
        }
    }

    /// Everything that is promised reads, or was damaged just now.
    async fn verify(&mut self, steps: &[Step]) {
        let Some(repository) = self.open(&append_only()).await else {
            // The only excuse is damage, and then nothing more can be seen.
            self.promised.clear();
            return;
        };
        let mut lost = Vec::new();
        for ((series, number), promised) in &self.promised {
            if let Err(problem) = verify(&repository, series, *number, promised).await {
                assert!(self.excused, "{series}#{number} {problem}, after {steps:#?}");
                lost.push((series.clone(), *number));
            }
        }
        for lost in lost {
            self.promised.remove(&lost);
        }
        self.excused = false;
    }

    /// Where a check finds nothing, everything reads.
    async fn verify_check(&self) {
        let Some(repository) = self.open(&administrator()).await else { return };
        if !check(&repository).await {
            return;
        }
        let snapshots = match repository.snapshots(None).await {
            Ok(snapshots) => snapshots,
            Err(error) => panic!("a check found nothing, but the snapshots can't be listed: {error}"),
        };
        // What is promised was read just now.
        let key = |snapshot: &Snapshot| (snapshot.series.clone(), snapshot.number);
        for snapshot in snapshots.iter().filter(|snapshot| !self.promised.contains_key(&key(snapshot))) {
            if let Err(error) = read(&repository, snapshot).await {
                panic!("a check found nothing, but a file of {snapshot} can't be read: {error}");
            }
        }
    }

    /// Restores a snapshot: what isn't reported as failed must be there as it was.
    async fn restore(&self, repository: &Repository, number: u8) {
        let index = usize::from(number) % self.promised.len().max(1);
        let Some(((series, number), promised)) = self.promised.iter().nth(index) else { return };
        let selector = Selector::Number { series: series.clone(), number: *number };
        let Ok(snapshot) = repository.find(&selector).await else { return };
        let in_memory = Path::new("/dev/shm");
        let base = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
        let to = tempfile::tempdir_in(base).unwrap();
        let options = RestoreOptions::default();
        let Ok(report) = repository.restore(&snapshot, None, to.path(), &options, Arc::new(NoProgress)).await else {
            return;
        };
        for (path, content) in &promised.files {
            let path = String::from_utf8_lossy(path).into_owned();
            let told = |failed: &str| failed.contains(&path) || path.starts_with(failed);
            if report.failures.iter().any(|failure| told(&failure.path)) {
                continue;
            }
            let found = std::fs::read(to.path().join(&path));
            assert!(found.is_ok_and(|found| found == *content), "{path} was restored otherwise and not reported");
        }
    }
}

/// Whether a check finds nothing wrong.
async fn check(repository: &Repository) -> bool {
    let mut options = CheckOptions::default();
    options.read_data_percent = Some(100.0);
    repository.check(&options, Arc::new(NoProgress)).await.is_ok_and(|report| report.is_sound())
}

/// What is wrong with a snapshot that was promised.
async fn verify(repository: &Repository, series: &str, number: u64, promised: &Promised) -> Result<(), String> {
    let found = repository.find(&Selector::Number { series: series.to_owned(), number }).await;
    let snapshot = found.map_err(|error| format!("isn't found: {error}"))?;
    if snapshot.hash != promised.hash {
        return Err("is another snapshot than was committed".to_owned());
    }
    let files = read(repository, &snapshot).await.map_err(|error| format!("can't be read: {error}"))?;
    if files == promised.files { Ok(()) } else { Err("reads otherwise".to_owned()) }
}

/// All regular files of a snapshot by path, if all of them can be read.
pub async fn read(repository: &Repository, snapshot: &Snapshot) -> backstop::Result<Files> {
    let entries: Vec<_> = repository.entries(snapshot, None).take(1000).try_collect().await?;
    let mut files = Files::new();
    for (key, entry) in entries {
        if matches!(entry.kind, EntryKind::File) && entry.size <= FILE_MAX {
            let mut content = Vec::new();
            repository.read_file(snapshot, &key).await?.read_to_end(&mut content).await.map_err(io_error)?;
            files.insert(key.as_path_bytes(), content);
        }
    }
    Ok(files)
}

/// The library's error that an i/o error carries.
fn io_error(error: std::io::Error) -> backstop::Error {
    error.downcast().expect("a reader's error is the library's own")
}
