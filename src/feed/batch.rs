//! Several changes that stand or fall together.

use bytes::Bytes;

use crate::files::Metadata;
use crate::tree::Key;

/// Changes that come into one snapshot, in order, all or none of them.
///
/// ```
/// # use backstop::*; async fn f(feed: &Feed) -> Result<()> {
/// let mut batch = Batch::new();
/// batch.remove_prefix(&Key::from_path("ana/contacts/group")?);
/// batch.put(&Key::from_path("ana/contacts/7.vcf")?, "BEGIN:VCARD", &Metadata::default());
/// batch.at_position("lsn 0/16B3748");
/// let receipt = feed.apply(batch).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) position: Option<Bytes>,
}

/// What one call asked for.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put { path: Key, content: Bytes, metadata: Box<Metadata> },
    Remove(Key),
    RemovePrefix(Key),
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `content` at `path`, whether there is something or not; what lies below it stays.
    pub fn put(&mut self, path: &Key, content: impl Into<Bytes>, metadata: &Metadata) -> &mut Self {
        let metadata = Box::new(metadata.clone());
        self.changes.push(Change::Put { path: path.clone(), content: content.into(), metadata });
        self
    }

    /// Removes what is at `path`, if something is; what lies below it stays.
    pub fn remove(&mut self, path: &Key) -> &mut Self {
        self.changes.push(Change::Remove(path.clone()));
        self
    }

    /// Removes what is at `path` and everything below it.
    pub fn remove_prefix(&mut self, path: &Key) -> &mut Self {
        self.changes.push(Change::RemovePrefix(path.clone()));
        self
    }

    /// Says up to where in its own history the application is with these changes, say a database's log position.
    ///
    /// The snapshot carries the position of the last batch in it that has one, and its successors go on carrying
    /// it until another comes.
    pub fn at_position(&mut self, position: impl Into<Bytes>) -> &mut Self {
        self.position = Some(position.into());
        self
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
