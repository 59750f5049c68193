//! `diff`.

use backstop::{Change, Entry, Key, Repository, Snapshot};
use futures::TryStreamExt;

use crate::arguments::{DiffArguments, Global};
use crate::commands::Done;
use crate::output::Output;
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn diff(global: &Global, arguments: &DiffArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let old = repository.find(&arguments.old.snapshot).await?;
    let new = repository.find(&arguments.new.snapshot).await?;
    let path = arguments.path.as_ref();
    let mut changes = std::pin::pin!(repository.diff(&old, &new, path));
    let mut counts = [0u64; Difference::ALL.len()];
    while let Some(change) = changes.try_next().await? {
        let difference = Difference::of(&change);
        counts[difference as usize] += 1;
        output.item(|| json::change(&change, difference), || change_line(&change, difference, global.verbose))?;
    }
    if let Some(path) = path
        && counts.iter().all(|count| *count == 0)
        && !(exists(&repository, &old, path).await? || exists(&repository, &new, path).await?)
    {
        return Err(Trouble::new(format!("{path} exists neither in {old} nor in {new}"))
            .hint(format!("`backstop ls {new}` lists all that there is")));
    }
    if !output.is_json() {
        output.summary(|| serde_json::Value::Null, || format!("{old} to {new}: {}", describe(counts)))?;
    }
    Ok(Done::Complete)
}

/// Whether a snapshot has anything at a path or below it.
async fn exists(repository: &Repository, snapshot: &Snapshot, path: &Key) -> backstop::Result<bool> {
    let mut entries = std::pin::pin!(repository.entries(snapshot, Some(path)));
    Ok(entries.try_next().await?.is_some())
}

/// A sign and a path, and on request the sizes.
pub(crate) fn change_line(change: &Change, difference: Difference, verbose: bool) -> String {
    let text = format!("{}  {}", difference.sign(), human::path(&change.key));
    if !verbose {
        return text;
    }
    let size = |entry: &Entry| human::bytes(entry.size);
    match (change.old.as_ref().map(size), change.new.as_ref().map(size)) {
        (Some(old), Some(new)) if old != new => format!("{text}  ({old}, now {new})"),
        (Some(size), _) | (None, Some(size)) => format!("{text}  ({size})"),
        (None, None) => text,
    }
}

fn describe(counts: [u64; Difference::ALL.len()]) -> String {
    let told = Difference::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
    let told: Vec<_> =
        told.map(|(difference, count)| format!("{} {}", human::count(count), difference.words())).collect();
    if told.is_empty() { "no difference".to_owned() } else { told.join(", ") }
}

/// In what an entry differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    Added,
    Removed,
    /// Another kind of thing stands there.
    Kind,
    Content,
    /// Owner, mode, times and so on alone.
    Metadata,
}

impl Difference {
    const ALL: [Self; 5] = [Self::Added, Self::Removed, Self::Kind, Self::Content, Self::Metadata];

    pub(crate) fn of(change: &Change) -> Self {
        match (&change.old, &change.new) {
            (None, _) => Self::Added,
            (_, None) => Self::Removed,
            (Some(old), Some(new)) if old.kind != new.kind => Self::Kind,
            (Some(old), Some(new)) if old.content != new.content => Self::Content,
            (Some(_), Some(_)) => Self::Metadata,
        }
    }

    /// As JSON has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Metadata => "metadata",
        }
    }

    fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Kind => 'T',
            Self::Content => 'M',
            Self::Metadata => 'm',
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Added => "added (+)",
            Self::Removed => "removed (-)",
            Self::Kind => "of another kind (T)",
            Self::Content => "changed (M)",
            Self::Metadata => "in metadata alone (m)",
        }
    }
}
