//! What writers do.

use std::sync::Arc;
use std::time::Duration;

use backstop::{CommitOptions, Error, Key, Metadata, Result, Snapshot, Start, Writer, WriterOptions};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use tokio::io::AsyncReadExt;

use crate::expected::{Op, Pending, rename};
use crate::look::assert_keys;
use crate::world::{OpenWriter, World};

impl World {
    pub(crate) async fn begin(&mut self) {
        let (repository, fails) = self.client();
        let (series, id) = (self.pick_series(), self.id());
        let snapshots = &self.series[series].snapshots;
        let start = match self.random.below(12) {
            0 => Start::Nothing,
            1..4 if !snapshots.is_empty() => {
                let at = self.random.below(snapshots.len() as u64) as usize;
                Start::from(snapshots[at].0.clone())
            }
            _ => Start::Latest,
        };
        let options = WriterOptions::default().with_start(start.clone()).with_host(id.to_string());
        match repository.writer(&self.series[series].name, options).await {
            Ok(writer) => {
                let known = self.series[series].snapshots.len();
                // Changes of a feed that nobody waited for may have come in meanwhile.
                self.observe().await;
                let draft = self.draft_of(series, writer.parent(), matches!(start, Start::Nothing));
                let latest = self.series[series].snapshots.len();
                match (&start, writer.parent()) {
                    (Start::Latest, None) => assert_eq!(known, 0),
                    (Start::Latest, Some(parent)) => assert!((known..=latest).contains(&(parent.number as usize))),
                    (Start::Snapshot(from), parent) => assert_eq!(parent, Some(&**from)),
                    (_, parent) => assert_eq!(parent, None),
                }
                self.writers.push(OpenWriter { id, writer: Arc::new(writer), draft, fails, last: None });
            }
            Err(error) => self.failed(fails, &error),
        }
    }

    /// A change by a writer.
    pub(crate) async fn change(&mut self) {
        let at = self.random.below(self.writers.len() as u64) as usize;
        let (key, prefix, to, content) = (self.key(), self.prefix(), self.prefix(), self.content());
        let (kind, metadata) = (self.random.below(20), Metadata::default());
        let polls = self.random.chance(0.1).then(|| self.random.below(4));
        let open = &mut self.writers[at];
        let (writer, before) = (Arc::clone(&open.writer), open.draft.map.get(&key).cloned());
        let outcome = match kind {
            0..11 => {
                open.last = Some(key.clone());
                let op = Op::Put(key.clone(), content.clone());
                let put: BoxFuture<'_, Result<()>> = if kind < 8 {
                    writer.put(&key, content, &metadata).boxed()
                } else {
                    async { writer.put_reader(&key, &content[..], &metadata).await.map(drop) }.boxed()
                };
                let outcome = match polls {
                    Some(polls) => give_up_after(polls, put).await,
                    None => Some(put.await),
                };
                match outcome {
                    Some(Ok(())) => op.apply(&mut open.draft.map),
                    Some(Err(_)) => {}
                    // Either it took effect or not, and reading through the writer tells.
                    None => {
                        let Op::Put(_, content) = &op else { return };
                        match read_through(&writer, &key).await {
                            Ok(now) if now.as_ref() == Some(content) => op.apply(&mut open.draft.map),
                            Ok(now) => assert_eq!(now, before, "a dropped call did something else"),
                            Err(_) => drop(self.writers.swap_remove(at)),
                        }
                        return;
                    }
                }
                outcome.unwrap_or(Ok(()))
            }
            11..14 => {
                Op::Remove(key.clone()).apply(&mut open.draft.map);
                writer.remove(&key).await
            }
            14..17 => {
                Op::RemovePrefix(prefix.clone()).apply(&mut open.draft.map);
                open.draft.removed.push(prefix.clone());
                writer.remove_prefix(&prefix).await
            }
            _ => {
                let outcome = writer.rename_prefix(&prefix, &to).await;
                let nested = prefix.starts_with(&to) || to.starts_with(&prefix);
                let taken = open.draft.map.keys().any(|key| key.starts_with(&to));
                match outcome {
                    Ok(moved) => {
                        assert!(!nested && !taken);
                        assert_eq!(moved, rename(&mut open.draft.map, &prefix, &to));
                        open.draft.removed.push(prefix);
                        Ok(())
                    }
                    Err(Error::Invalid { .. }) if nested => Ok(()),
                    Err(Error::Conflict { .. }) if taken && !nested => Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = outcome {
            let fails = open.fails;
            self.failed(fails, &error);
            // What was moved isn't known. Other calls that fail do nothing, and then the commit does nothing or all.
            if kind > 16 {
                self.writers.swap_remove(at);
            }
        }
    }

    /// What a writer shows of its changes.
    pub(crate) async fn read_through(&mut self) {
        let at = self.random.below(self.writers.len() as u64) as usize;
        let (key, prefix, kind) = (self.key(), self.prefix(), self.random.below(4));
        let OpenWriter { writer, draft, fails, last, .. } = &self.writers[at];
        let key = last.clone().filter(|_| kind == 3).unwrap_or(key);
        let outcome = match kind {
            0 | 3 => {
                read_through(writer, &key).await.map(|found| assert_eq!(found.as_ref(), draft.map.get(&key), "{key}"))
            }
            _ => {
                let prefix = (kind == 1).then_some(&prefix);
                let entries: Result<Vec<_>> = writer.entries(prefix).try_collect().await;
                entries.map(|entries| assert_keys(&entries, &draft.map, prefix))
            }
        };
        if let Err(error) = outcome {
            let fails = *fails;
            self.failed(fails, &error);
        }
    }

    /// Commits a writer, or gives up on the way.
    pub(crate) async fn commit(&mut self, at: usize) {
        let open = self.writers.swap_remove(at);
        let polls = self.random.chance(0.1).then(|| self.random.below(40));
        let (position, commit) = self.commit_of(open);
        let outcome = match polls {
            Some(polls) => give_up_after(polls, commit).await,
            None => Some(commit.await),
        };
        self.committed(position, outcome);
    }

    /// The commit of a writer, and how to expect it.
    pub(crate) fn commit_of(&mut self, open: OpenWriter) -> ((Pending, bool), BoxFuture<'static, Result<Snapshot>>) {
        let position = self.random.chance(0.5).then(|| self.random.bytes(5));
        let mut options = CommitOptions::default().with_tag("id", open.id.to_string());
        options.position.clone_from(&position);
        let writer = Arc::into_inner(open.writer).unwrap();
        let pending = Pending::Commit { id: open.id, draft: open.draft, position, made: None };
        ((pending, open.fails), async move { writer.commit(options).await }.boxed())
    }

    /// What came of a commit.
    pub(crate) fn committed(&mut self, (pending, fails): (Pending, bool), outcome: Option<Result<Snapshot>>) {
        let Pending::Commit { id, draft, position, .. } = pending else { return };
        let made = match outcome {
            Some(Ok(snapshot)) => {
                self.seen.commits += 1;
                Some(Box::new(snapshot))
            }
            Some(Err(Error::Overlap { series, number, paths })) => {
                self.seen.overlaps += 1;
                assert_eq!(series, self.series[draft.series].name);
                self.pending.push(Pending::Overlapping { id, draft, number, paths });
                return;
            }
            Some(Err(error)) => {
                // A merge begun meanwhile makes a writer that lost its number begin again.
                if !error.is_conflict() {
                    self.failed(fails, &error);
                }
                None
            }
            None => None,
        };
        self.pending.push(Pending::Commit { id, draft, position, made });
    }
}

/// Polls a future so often, with a short pause after each, and drops it then.
pub(crate) async fn give_up_after<T>(polls: u64, mut future: BoxFuture<'_, T>) -> Option<T> {
    for _ in 0..=polls {
        if let std::task::Poll::Ready(done) = futures::poll!(&mut future) {
            return Some(done);
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    None
}

/// The content at a key as a writer shows it.
async fn read_through(writer: &Writer, key: &Key) -> Result<Option<Vec<u8>>> {
    let mut file = match writer.read_file(key).await {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    match file.read_to_end(&mut bytes).await {
        Ok(_) => Ok(Some(bytes)),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}
