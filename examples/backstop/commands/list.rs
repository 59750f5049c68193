//! `snapshots` and `ls`.

use backstop::{Entry, EntryKind, Key, Metadata, Posix, Repository, Snapshot};
use futures::TryStreamExt;

use crate::arguments::{Global, LsArguments, SnapshotsArguments};
use crate::commands::Done;
use crate::output::{Align, Output, Table};
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn snapshots(
    global: &Global,
    arguments: &SnapshotsArguments,
    output: &mut Output,
) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    if arguments.forgotten {
        return forgotten(&repository, arguments, output).await;
    }
    let snapshots = repository.snapshots(arguments.series.as_deref()).await?;
    let mut table = Table::new([
        ("SNAPSHOT", Align::Left),
        ("TIME", Align::Left),
        ("HOST", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("STORED", Align::Right),
        ("PATHS", Align::Left),
    ]);
    for snapshot in &snapshots {
        table.row([
            human::visible(&snapshot.to_string()),
            human::time(snapshot.time),
            human::visible(&snapshot.host),
            human::count(snapshot.stats.files),
            human::bytes(snapshot.stats.bytes),
            human::bytes(snapshot.stats.stored_bytes),
            remarks(snapshot),
        ]);
    }
    output.table(&table, snapshots.iter().map(json::snapshot))?;
    Ok(Done::Complete)
}

/// What was forgotten and has a record still.
async fn forgotten(
    repository: &Repository,
    arguments: &SnapshotsArguments,
    output: &mut Output,
) -> Result<Done, Trouble> {
    let forgotten = repository.forgotten(arguments.series.as_deref()).await?;
    let titles = ["SNAPSHOT", "TIME", "FORGOTTEN", "UNTIL", "HOST", "PATHS"];
    let mut table = Table::new(titles.map(|title| (title, Align::Left)));
    for one in &forgotten {
        table.row([
            human::visible(&one.snapshot.to_string()),
            human::time(one.snapshot.time),
            human::time(one.forgotten),
            human::time(one.until),
            human::visible(&one.snapshot.host),
            remarks(&one.snapshot),
        ]);
    }
    output.table(&table, forgotten.iter().map(json::forgotten))?;
    Ok(Done::Complete)
}

/// The paths, then the tags, then the application's position, then what it gives back, then what is missing.
fn remarks(snapshot: &Snapshot) -> String {
    let tags = snapshot.tags.iter().map(|(key, value)| format!("[{key}={value}]"));
    let position = snapshot.position.as_deref().map(|position| format!("(at {})", human::opaque(position)));
    let origin = snapshot.origin.map(|origin| format!("(of #{})", origin.number));
    let partial =
        (snapshot.is_partial()).then(|| format!("(partial: {} failed)", human::count(snapshot.failure_count)));
    human::visible(
        &snapshot
            .paths
            .iter()
            .cloned()
            .chain(tags)
            .chain(position)
            .chain(origin)
            .chain(partial)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

pub(crate) async fn ls(global: &Global, arguments: &LsArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let snapshot = repository.find(&arguments.target.snapshot).await?;
    let prefix = arguments.target.path.as_ref();
    let mut entries = std::pin::pin!(repository.entries(&snapshot, prefix));
    let mut columns = Columns::default();
    let mut any = false;
    while let Some((key, entry)) = entries.try_next().await? {
        let line = Line::read(&repository, key, entry).await?;
        output.item(|| line.to_json(), || columns.line(&line))?;
        any = true;
    }
    match prefix {
        Some(path) if !any => Err(Trouble::new(format!("{path} does not exist in {snapshot}"))
            .hint(format!("`backstop ls {snapshot}` lists all that there is"))),
        _ => Ok(Done::Complete),
    }
}

/// An entry with all that is shown of it.
struct Line {
    key: Key,
    entry: Entry,
    metadata: Metadata,
    target: Option<Vec<u8>>,
    /// What this build lacks in order to understand it.
    needs: Option<String>,
}

impl Line {
    async fn read(repository: &Repository, key: Key, entry: Entry) -> backstop::Result<Self> {
        let (metadata, needs) = match repository.metadata(&entry).await {
            Err(error) if error.is_unsupported() => (Metadata::default(), Some(error.to_string())),
            metadata => (metadata?, None),
        };
        let needs = match entry.kind {
            EntryKind::Unknown { number } => Some(format!("unknown kind {number}, needs a newer version")),
            _ => needs,
        };
        let target = match entry.kind {
            EntryKind::Symlink => Some(repository.link_target(&entry).await?),
            _ => None,
        };
        Ok(Self { key, entry, metadata, target, needs })
    }

    fn to_json(&self) -> serde_json::Value {
        json::entry(&self.key, &self.entry, &self.metadata, self.target.as_deref())
    }

    fn owner(posix: &Posix) -> String {
        let name = |name: &Option<String>, number: u32| name.clone().unwrap_or_else(|| number.to_string());
        human::visible(&format!("{}:{}", name(&posix.user, posix.uid), name(&posix.group, posix.gid)))
    }

    fn size(&self) -> String {
        match self.entry.kind {
            EntryKind::File => human::bytes(self.entry.size),
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                format!("{major}, {minor}")
            }
            _ => String::new(),
        }
    }
}

/// Widths that grow with what is listed, since nothing is held back to measure it.
struct Columns {
    owner: usize,
}

impl Default for Columns {
    fn default() -> Self {
        Self { owner: "root:root".len() }
    }
}

impl Columns {
    fn line(&mut self, line: &Line) -> String {
        let posix = line.metadata.posix.as_ref();
        let mode = mode(line.entry.kind, posix.map_or(0, |posix| posix.mode));
        let owner = posix.map_or_else(|| "-".to_owned(), Line::owner);
        let time = posix.map_or_else(|| "-".to_owned(), |posix| human::file_time(posix.modified.seconds));
        self.owner = self.owner.max(owner.chars().count());
        let mut text = format!(
            "{mode}  {owner:<width$}  {:>9}  {time:<19}  {}",
            line.size(),
            human::path(&line.key),
            width = self.owner
        );
        if let Some(target) = &line.target {
            text.push_str(&format!(" -> {}", human::visible(&String::from_utf8_lossy(target))));
        }
        if let Some(needs) = &line.needs {
            text.push_str(&format!("  ({needs})"));
        }
        text
    }
}

/// As `ls -l` shows it: `drwxr-sr-t`.
fn mode(kind: EntryKind, mode: u32) -> String {
    let first = match kind {
        EntryKind::File => '-',
        EntryKind::Folder => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
        _ => '?',
    };
    let class = |shift: u32, special: u32, set: char, unset: char| {
        let bits = mode >> shift;
        let execute = match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        };
        [if bits & 4 != 0 { 'r' } else { '-' }, if bits & 2 != 0 { 'w' } else { '-' }, execute]
    };
    let classes = [class(6, 0o4000, 's', 'S'), class(3, 0o2000, 's', 'S'), class(0, 0o1000, 't', 'T')];
    std::iter::once(first).chain(classes.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_ls_shows_them() {
        assert_eq!(mode(EntryKind::File, 0o644), "-rw-r--r--");
        assert_eq!(mode(EntryKind::Folder, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(EntryKind::Symlink, 0o777), "lrwxrwxrwx");
        assert_eq!(mode(EntryKind::File, 0o6750), "-rwsr-s---");
        assert_eq!(mode(EntryKind::Fifo, 0o7000), "p--S--S--T");
    }
}
