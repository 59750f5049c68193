//! Runs vectors through the library.

use std::path::Path;
use std::sync::Arc;

use backstop::{
    CheckOptions, Entry, EntryKind, Error, FindingKind, Key, NoProgress, OpenOptions, Repository, RestoreOptions,
    Secret, Selector, Snapshot, Timestamp,
};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Map, Value as Json, json};
use tokio::io::AsyncReadExt;

use super::forge::{hash, hex};
use super::good::{ADMINISTRATOR, Objects, unhex};

/// What came of a vector.
pub(crate) struct Outcome {
    pub(crate) verdict: String,
    pub(crate) found: Json,
    why: String,
}

impl Outcome {
    /// In what it isn't as expected, if so.
    pub(crate) fn differs(&self, name: &str, vector: &Json) -> Option<String> {
        let expected = vector["expect"].as_object().unwrap();
        let same = expected.iter().all(|(what, value)| self.found[what] == *value);
        let right = vector["verdict"] == *self.verdict && same;
        let Self { verdict, found, why } = self;
        (!right).then(|| {
            format!("{name}: {} {}, not {verdict} {found} ({why})", vector["verdict"], Json::Object(expected.clone()))
        })
    }
}

fn verdict(error: &Error) -> String {
    let name = match error {
        // What is lost is an error of the repository, as damage is; what was asked for and isn't there is none.
        Error::Corrupt { reason, .. } if reason.contains("no index segment says where it is") => "missing",
        Error::Corrupt { .. } => "damaged",
        Error::Unsupported { .. } => "unsupported",
        Error::NotFound { .. } => "missing",
        Error::WrongSecret { .. } => "wrong secret",
        other => return format!("{other:?}"),
    };
    name.to_owned()
}

async fn store_of(objects: &Objects) -> Arc<dyn ObjectStore> {
    let store = InMemory::new();
    for (name, bytes) in objects {
        store.put(&name.as_str().into(), bytes.clone().into()).await.unwrap();
    }
    Arc::new(store)
}

fn secret(name: &str) -> Secret {
    let secrets = super::secrets();
    match &secrets[name]["key"] {
        Json::String(key) => Secret::key(unhex(key).try_into().unwrap()),
        _ => Secret::passphrase(secrets[name]["passphrase"].as_str().unwrap()),
    }
}

/// Does what a vector says in a repository of these objects.
pub(crate) async fn run(objects: &Objects, vector: &Json) -> Outcome {
    let store = store_of(objects).await;
    let opened = Repository::open(store, &secret(vector["secret"].as_str().unwrap()), OpenOptions::default()).await;
    let repository = match opened {
        Ok(repository) => repository,
        Err(error) => return Outcome { verdict: verdict(&error), found: Json::Null, why: error.to_string() },
    };
    let mut found = Map::new();
    let done = carry_out(&repository, vector, &mut found).await;
    let aside = repository.put_aside();
    let names: Vec<_> = aside.iter().map(|aside| aside.object.clone()).collect();
    found.insert("aside".to_owned(), json!(names));
    let (verdict, why) = match done {
        Ok(worst) if worst != "fine" => (worst, format!("{aside:?}")),
        Ok(_) if !aside.is_empty() => ("put aside".to_owned(), format!("{aside:?}")),
        Ok(_) => ("fine".to_owned(), String::new()),
        Err(error) => (verdict(&error), error.to_string()),
    };
    Outcome { verdict, found: Json::Object(found), why }
}

/// The worst that was met on the way, or what ended it.
async fn carry_out(repository: &Repository, vector: &Json, found: &mut Map<String, Json>) -> Result<String, Error> {
    let fine = Ok("fine".to_owned());
    match vector["do"].as_str().unwrap() {
        "open" => fine,
        "list" => {
            let snapshots = repository.snapshots(None).await?;
            let names: Vec<_> = snapshots.iter().map(ToString::to_string).collect();
            found.insert("snapshots".to_owned(), json!(names));
            fine
        }
        "find" => {
            found.insert("number".to_owned(), json!(find(repository, vector).await?.number));
            fine
        }
        "walk" => {
            let snapshot = find(repository, vector).await?;
            let (entries, problems) = walk(repository, &snapshot).await?;
            let worst = problems.first().map_or("fine".to_owned(), |(_, problem)| problem.clone());
            let problems: Map<String, Json> = problems.into_iter().map(|(path, why)| (path, json!(why))).collect();
            found.insert("entries".to_owned(), json!(entries));
            found.insert("problems".to_owned(), Json::Object(problems));
            Ok(worst)
        }
        "restore" => restore(repository, &find(repository, vector).await?, found).await,
        "object" => {
            let seen = look(repository, vector["object"].as_str().unwrap()).await?;
            // A check doesn't look where none of the repository's objects are.
            let is_ignored = seen == "fine" && vector["verdict"] == "foreign";
            Ok(if is_ignored { "foreign".to_owned() } else { seen })
        }
        other => panic!("a vector wants {other}"),
    }
}

async fn find(repository: &Repository, vector: &Json) -> Result<Snapshot, Error> {
    let series = vector["series"].as_str().unwrap().to_owned();
    let which = vector["which"].as_str().unwrap();
    let selector = match which.strip_prefix('@') {
        Some(time) => {
            let time = Timestamp::from_nanos(time.parse().unwrap());
            Selector::AtOrBefore { series: Some(series), time }
        }
        None if which == "latest" => Selector::LatestOf { series },
        None => Selector::Number { series, number: which.parse().unwrap() },
    };
    repository.find(&selector).await
}

/// Longer contents aren't read: a few stored bytes can stand for any number.
const READ_MAX: u64 = 16 << 20;

/// Reads everything; how many entries there are, and what is the matter with single ones.
async fn walk(repository: &Repository, snapshot: &Snapshot) -> Result<(u64, Vec<(String, String)>), Error> {
    let entries: Vec<(Key, Entry)> = repository.entries(snapshot, None).try_collect().await?;
    let mut problems = Vec::new();
    for (key, entry) in &entries {
        let mut read = content(repository, snapshot, key, entry).await.map(drop);
        if read.is_ok() {
            read = repository.metadata(entry).await.map(drop);
        }
        problems.extend(read.err().map(|error| (key.to_string(), verdict(&error))));
    }
    Ok((entries.len() as u64, problems))
}

async fn content(repository: &Repository, snapshot: &Snapshot, key: &Key, entry: &Entry) -> Result<Vec<u8>, Error> {
    match entry.kind {
        EntryKind::Unknown { .. } => repository.read_file(snapshot, key).await.map(|_| Vec::new()),
        EntryKind::Symlink => repository.link_target(entry).await,
        EntryKind::File if entry.size <= READ_MAX => {
            let mut bytes = Vec::new();
            let read = repository.read_file(snapshot, key).await?.read_to_end(&mut bytes).await;
            read.map(|_| bytes).map_err(|error| *error.into_inner().unwrap().downcast::<Error>().unwrap())
        }
        _ => Ok(Vec::new()),
    }
}

/// Restores everything that this test may, and says what stands there then.
async fn restore(repository: &Repository, snapshot: &Snapshot, found: &mut Map<String, Json>) -> Result<String, Error> {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("restored");
    let options = RestoreOptions::default().with_owners(false).with_extended_attributes(false);
    let report = repository.restore(snapshot, None, &to, &options, Arc::new(NoProgress)).await?;
    let mut refused: Vec<_> = report.failures.iter().map(|failure| failure.path.clone()).collect();
    refused.sort();
    refused.dedup();
    let mut restored = Vec::new();
    describe(&to, "", &mut restored);
    let verdict = if refused.is_empty() { "fine" } else { "in part" };
    found.insert("refused".to_owned(), json!(refused));
    found.insert("restored".to_owned(), json!(restored));
    Ok(verdict.to_owned())
}

fn describe(folder: &Path, prefix: &str, lines: &mut Vec<String>) {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_symlink() {
            lines.push(format!("{name} -> {}", path.read_link().unwrap().display()));
        } else if path.is_dir() {
            lines.push(format!("{name}/"));
            describe(&path, &format!("{name}/"), lines);
        } else {
            lines.push(format!("{name}: {}", std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// What a full check says of one object.
async fn look(repository: &Repository, object: &str) -> Result<String, Error> {
    let options = CheckOptions::default().with_read_data(100.0);
    let report = repository.check(&options, Arc::new(NoProgress)).await?;
    let kind = report.findings.iter().find(|finding| finding.object == object).map(|finding| finding.kind);
    let verdict = match kind {
        None | Some(FindingKind::Leftover) => "fine",
        Some(FindingKind::Damaged | FindingKind::Inconsistent) => "damaged",
        Some(FindingKind::Unsupported) => "unsupported",
        Some(FindingKind::Missing) => "missing",
        Some(FindingKind::Unsigned) => "unsigned",
        Some(_) => "foreign",
    };
    Ok(verdict.to_owned())
}

async fn open_good(objects: &Objects) -> Repository {
    Repository::open(store_of(objects).await, &Secret::key(ADMINISTRATOR), OpenOptions::default()).await.unwrap()
}

/// All that a snapshot holds.
pub(crate) async fn listing(objects: &Objects, series: &str, number: u64) -> Json {
    let repository = open_good(objects).await;
    let snapshot = repository.find(&Selector::Number { series: series.to_owned(), number }).await.unwrap();
    let entries: Vec<(Key, Entry)> = repository.entries(&snapshot, None).try_collect().await.unwrap();
    let mut listing = Vec::new();
    for (key, entry) in &entries {
        let kind = match entry.kind {
            EntryKind::File => "file",
            EntryKind::Folder => "folder",
            EntryKind::Symlink => "symlink",
            EntryKind::Fifo => "fifo",
            EntryKind::Socket => "socket",
            EntryKind::CharDevice { .. } => "character device",
            EntryKind::BlockDevice { .. } => "block device",
            _ => "unknown",
        };
        let bytes = content(&repository, &snapshot, key, entry).await.unwrap();
        let path = key.to_string();
        listing.push(json!({"path": path, "kind": kind, "size": entry.size, "blake3": hex(&hash(&bytes))}));
    }
    Json::Array(listing)
}

/// A full check finds nothing, and writers can go on.
pub(crate) async fn is_whole(objects: &Objects) {
    let repository = open_good(objects).await;
    let options = CheckOptions::default().with_read_data(100.0);
    let report = repository.check(&options, Arc::new(NoProgress)).await.unwrap();
    let wrong: Vec<_> = report.findings.iter().filter(|finding| !finding.kind.is_informational()).collect();
    assert!(report.is_sound() && wrong.is_empty(), "{wrong:#?}");
    let writer = repository.writer("photos", backstop::WriterOptions::default()).await.unwrap();
    let key = Key::from_path("z/21").unwrap();
    writer.put(&key, "new", &backstop::Metadata::default()).await.unwrap();
    let snapshot = writer.commit(backstop::CommitOptions::default()).await.unwrap();
    assert_eq!(snapshot.number, 6);
}
