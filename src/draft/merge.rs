//! The overlay over the tree, as one ordered stream.

use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use crate::blobs::BlobWriter;
use crate::draft::pending::View;
use crate::draft::{Draft, PORTION};
use crate::error::{Error, Result};
use crate::tree::{self, Entry, Key};

type Points = std::iter::Peekable<std::vec::IntoIter<(Key, Option<Entry>)>>;

/// A tree's entries with an overlay's points in their places.
pub(super) fn merged(
    tree: Option<BoxStream<'static, Result<(Key, Entry)>>>,
    mut view: View,
) -> impl Stream<Item = Result<(Key, Entry)>> + Send {
    let points = std::mem::take(&mut view.points).into_iter().peekable();
    let tree = tree.unwrap_or_else(|| stream::empty().boxed());
    let merge = Merge { tree, next: None, ended: false, points, view };
    stream::try_unfold(merge, async |mut merge| Ok(merge.next().await?.map(|found| (found, merge))))
}

struct Merge {
    tree: BoxStream<'static, Result<(Key, Entry)>>,
    /// The tree's next entry, where it was read already.
    next: Option<(Key, Entry)>,
    ended: bool,
    points: Points,
    view: View,
}

impl Merge {
    async fn next(&mut self) -> Result<Option<(Key, Entry)>> {
        loop {
            if self.next.is_none() && !self.ended {
                self.next = self.tree.try_next().await?;
                self.ended = self.next.is_none();
            }
            let due = self.points.next_if(|(key, _)| self.next.as_ref().is_none_or(|(next, _)| key <= next));
            let Some((key, point)) = due else {
                match self.next.take() {
                    Some((key, _)) if self.view.removes(&key) => continue,
                    found => return Ok(found),
                }
            };
            if self.next.as_ref().is_some_and(|(next, _)| *next == key) {
                self.next = None;
            }
            if let Some(entry) = point {
                return Ok(Some((key, entry)));
            }
        }
    }
}

/// See [`Draft::rename_prefix`].
pub(super) async fn rename_prefix(draft: &mut Draft, from: &Key, to: &Key, blobs: &mut BlobWriter) -> Result<u64> {
    let what = || format!("renaming '{from}' to '{to}'");
    if from.starts_with(to) || to.starts_with(from) {
        return Err(Error::invalid(what(), "one lies in the other"));
    }
    if Box::pin(draft.entries(Some(to))).try_next().await?.is_some() {
        return Err(Error::conflict(what(), "there is something at or below the new path; remove it first"));
    }
    if to.as_encoded().len() > from.as_encoded().len() {
        // Before anything is moved all of it must be known to fit.
        let mut entries = Box::pin(draft.entries(Some(from)));
        while let Some((key, entry)) = entries.try_next().await? {
            tree::check(&moved(&key, from, to)?, &entry)?;
        }
    }
    let mut count = 0;
    let mut entries = Box::pin(draft.entries(Some(from)));
    while let Some((key, entry)) = entries.try_next().await? {
        draft.put(moved(&key, from, to)?, entry)?;
        count += 1;
        if draft.pending_bytes() >= PORTION {
            draft.apply(blobs).await?;
        }
    }
    draft.remove_prefix(from.clone());
    Ok(count)
}

/// The key with one prefix in place of another.
fn moved(key: &Key, from: &Key, to: &Key) -> Result<Key> {
    match key.strip_prefix(from) {
        Some(rest) => Key::new(to.components().chain(rest.components())),
        None => Ok(to.clone()),
    }
}
