//! What a process does: write, feed, merge, read, each at random and beside the others.
//!
//! An actor notes what it asks for before it asks, and what it was told when it
//! hears. It is dropped with its process at any moment, and so are its calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result};
use crate::feed::{Batch, Feed, FeedOptions, Receipt};
use crate::files::Metadata;
use crate::history::HistoryOptions;
use crate::repository::Repository;
use crate::simulation::World;
use crate::simulation::expected::{Commit, Map, Op, Outcome, Seen, TAG, TOPS, Told};
use crate::simulation::look::{content, contents};
use crate::simulation::store::Link;
use crate::snapshots::Selector;
use crate::testing::Random;
use crate::tree::Key;
use crate::writer::{CommitOptions, Start, Writer, WriterOptions};

/// The second components of keys.
const BELOW: [&str; 3] = ["a", "b", "a!"];

/// After so many changes of which he heard nothing a caller of a feed gives up.
const UNHEARD: u32 = 8;

/// What an actor does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Write,
    Feed,
    Merge,
    Read,
    Forget,
    Collect,
    Undelete,
}

impl Role {
    pub(super) fn pick(random: &mut Random) -> Self {
        match random.below(14) {
            0..4 => Role::Write,
            4..7 => Role::Feed,
            7 => Role::Merge,
            8 | 9 => Role::Forget,
            10 | 11 => Role::Collect,
            12 => Role::Undelete,
            _ => Role::Read,
        }
    }
}

/// Uses the library in one role.
pub(super) struct Actor {
    pub(super) world: Arc<World>,
    pub(super) repository: Repository,
    pub(super) link: Link,
    pub(super) random: Random,
    /// Whether its store fails now and then.
    pub(super) trouble: bool,
}

impl Actor {
    pub(super) async fn run(mut self, role: Role) {
        for _ in 0..1 + self.random.below(2) {
            self.pause(3_000).await;
            let done = match role {
                Role::Write => self.write().await,
                Role::Feed => self.feed().await,
                Role::Merge => self.merge().await,
                Role::Read => self.read().await,
                Role::Forget => self.forget().await,
                Role::Collect => self.collect().await,
                Role::Undelete => self.undelete().await,
            };
            self.world.network.note(format_args!("{} {role:?}: {}", self.link, said(&done)));
            if let Err(error) = done {
                self.failed(&error);
            }
        }
    }

    async fn pause(&mut self, most: u64) {
        sleep(Duration::from_millis(self.random.below(most))).await;
    }

    /// Only what runs on a store that fails may fail, and only because of it; a collection and others' commits may make
    /// anyone begin again.
    fn failed(&self, error: &Error) {
        self.world.history().tally.failed += 1;
        let may_be = error.is_conflict() || error.is_unsettled();
        // A writer that failed says so at each later call.
        let may_be = may_be || self.trouble && (error.is_retryable() || matches!(error, Error::Invalid { .. }));
        // Who is fenced may lose what he relied on.
        let may_be = may_be || self.world.ruthless && (error.is_corrupt() || error.is_not_found());
        assert!(may_be, "{}: {error:?}", self.link);
    }

    /// Waits for a call, or drops it after a while.
    pub(super) async fn impatiently<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        if self.random.chance(0.85) {
            return Some(call.await);
        }
        timeout(Duration::from_millis(1 + self.random.below(600)), call).await.ok()
    }

    /// A writer that begins, changes something and commits or gives up.
    async fn write(&mut self) -> Result<()> {
        let (series, name) = self.series();
        let replaces = self.random.chance(0.1);
        let start = if replaces { Start::Nothing } else { Start::Latest };
        let beginning = self.repository.clone();
        let beginning = async move { beginning.writer(&name, WriterOptions::default().with_start(start)).await };
        let Some(writer) = self.impatiently(beginning).await.transpose()? else { return Ok(()) };
        let base = writer.parent().map(|parent| parent.number);
        let mut ops = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            self.pause(200).await;
            let op = self.op(None);
            // What was dropped or failed took effect or not, so that nothing can be expected of a commit.
            let Some(()) = self.impatiently(change(&writer, &op)).await.transpose()? else { return Ok(()) };
            ops.push(op);
        }
        if self.random.chance(0.1) {
            writer.abandon().await;
            return Ok(());
        }
        let commit = Commit { series, base, replaces, ops, outcome: Outcome::Unknown };
        let tag = self.world.history().ask_commit(commit);
        let options = CommitOptions::default().with_tag(TAG, &*tag);
        match self.impatiently(writer.commit(options)).await {
            Some(Ok(snapshot)) => self.world.history().committed(&tag, Outcome::Made(Box::new(snapshot))),
            Some(Err(Error::Overlap { number, .. })) => {
                self.world.history().committed(&tag, Outcome::Overlaps(number));
            }
            Some(Err(error)) => return Err(error),
            None => {}
        }
        Ok(())
    }

    /// A feed with some callers at once.
    async fn feed(&mut self) -> Result<()> {
        let (_, name) = self.series();
        let callers = 1 + self.random.below(3) as usize;
        let tag = self.world.history().ask_feed(callers);
        let options = FeedOptions::default()
            .with_tag(TAG, &*tag)
            .with_interval(Duration::from_millis(self.random.below(50)))
            .with_deadline(Duration::from_millis(500 + self.random.below(60_000)))
            .with_merge_every(self.random.below(3));
        let feed = self.repository.feed(&name, options).await?;
        let calls = (0..callers).map(|caller| {
            let random = Random::new(self.random.next());
            let (world, repository, link) = (Arc::clone(&self.world), self.repository.clone(), self.link.clone());
            let actor = Actor { world, repository, link, random, trouble: self.trouble };
            actor.call(&feed, &tag, caller)
        });
        join_all(calls.collect::<Vec<_>>()).await;
        if self.random.chance(0.3) {
            return Ok(());
        }
        feed.close().await.map(drop)
    }

    /// One caller of a feed, who makes one change after the other.
    async fn call(mut self, feed: &Feed, tag: &str, caller: usize) {
        // Few at most times, so that there are many cases; now and then more than go without an index segment.
        let changes = [4, 4, 4, 4, 4, 4, 4, 12, 12, 60][self.random.below(10) as usize];
        // What nobody heard of may show in any later snapshot: more of that than a few can't be told apart.
        let mut unheard = 0;
        for _ in 0..1 + self.random.below(changes) {
            if unheard == UNHEARD {
                return;
            }
            self.pause(400).await;
            let batch = self.random.chance(0.3);
            let ops: Vec<_> =
                (0..if batch { 1 + self.random.below(3) } else { 1 }).map(|_| self.op(Some(caller))).collect();
            let change = self.world.history().change(tag, caller, ops.clone());
            let told = match self.impatiently(submit(feed, ops, batch)).await {
                Some(Ok(receipt)) => Told::Committed(receipt),
                Some(Err(error)) => {
                    self.failed(&error);
                    if error.is_unsettled() { Told::Nothing } else { Told::Failed }
                }
                None => Told::Nothing,
            };
            unheard += u32::from(matches!(told, Told::Nothing));
            self.world.history().told(tag, caller, change, told);
        }
    }

    /// Merges whatever is small, which here is everything.
    async fn merge(&mut self) -> Result<()> {
        let (packs, segments) = (1 + self.random.below(5) as usize, 1 + self.random.below(4) as usize);
        let repository = self.repository.clone();
        let merging = async move {
            let plan = repository.plan_merge_of(packs, segments).await?;
            if plan.is_due() { repository.merge(&plan).await.map(|report| report.packs_deleted) } else { Ok(0) }
        };
        let deleted = self.impatiently(merging).await.transpose()?.unwrap_or_default();
        self.world.history().tally.packs_deleted += deleted;
        Ok(())
    }

    /// Reads something that is known to be there.
    async fn read(&mut self) -> Result<()> {
        let (series, name) = self.series();
        if self.random.chance(0.5) {
            self.repository = self.world.open(self.link.shared(), &mut self.random).await?;
        }
        for _ in 0..1 + self.random.below(4) {
            self.pause(1_000).await;
            let counting = self.world.history().counting(series);
            let Some(seen) = self.one_of(&counting).cloned() else { continue };
            self.world.history().tally.read += 1;
            let looked = self.look_at(series, &name, &seen).await;
            let vanishing = self.vanishes(series, seen.0.number);
            match looked {
                Err(error) if vanishing && (error.is_not_found() || error.is_corrupt()) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Reads a snapshot that counted a moment ago in one of several ways.
    async fn look_at(&mut self, series: usize, name: &str, seen: &Seen) -> Result<()> {
        let (snapshot, map) = &**seen;
        let key = self.key(None);
        match self.random.below(5) {
            0 => {
                let found = contents(&self.repository, snapshot).await?;
                assert!(found == *map, "{}: {snapshot} reads differently", self.link);
            }
            1 => {
                let found = match self.repository.entry(snapshot, &key).await? {
                    Some(entry) => Some(content(&self.repository, snapshot, &key, &entry).await?),
                    None => None,
                };
                assert!(found.as_ref() == map.get(&key), "{}: {key} in {snapshot} reads differently", self.link);
            }
            2 => {
                let latest = self.repository.find(&Selector::LatestOf { series: name.to_owned() }).await?;
                assert!(
                    latest.place() >= snapshot.place() || self.vanishes(series, snapshot.number),
                    "{} finds {latest}, not {snapshot}",
                    self.link
                );
            }
            3 => {
                let selector = Selector::AtOrBefore { series: Some(name.to_owned()), time: snapshot.time };
                let found = self.repository.find(&selector).await?;
                // What gives another back stands where that stood.
                let is_later = found.place() > snapshot.place() && found.number < snapshot.number;
                assert!(
                    found == *snapshot || is_later || self.vanishes(series, snapshot.number),
                    "{} finds {found}, not {snapshot}",
                    self.link
                );
            }
            _ => self.history(series, name, snapshot.number, &key).await?,
        }
        Ok(())
    }

    /// What happened to a key, up to a snapshot.
    async fn history(&self, at: usize, series: &str, until: u64, key: &Key) -> Result<()> {
        let options = HistoryOptions::default().with_until(until);
        let revisions: Vec<_> = self.repository.history(series, key, &options).try_collect().await?;
        let below = |map: &Map| -> Map {
            map.iter()
                .filter(|(other, _)| other.starts_with(key))
                .map(|(key, content)| (key.clone(), content.clone()))
                .collect()
        };
        let seen = self.world.history().snapshots(at);
        let mut before = Map::new();
        let mut expected = Vec::new();
        for (snapshot, map) in seen.iter().map(|seen| &**seen).filter(|(snapshot, _)| snapshot.number <= until) {
            let now = below(map);
            if now != before {
                expected.push(snapshot.number);
            }
            before = now;
        }
        if !self.world.history().forgotten(at).is_empty() {
            // Which of these were compared isn't known.
            return Ok(());
        }
        let found = revisions.iter().rev().map(|revision| revision.snapshot.number);
        assert!(found.eq(expected.iter().copied()), "{}: the history of {key} in {series} up to {until}", self.link);
        Ok(())
    }

    /// Whether a snapshot may vanish at any time.
    pub(super) fn vanishes(&self, series: usize, number: u64) -> bool {
        self.world.history().may_vanish(series, number)
    }

    pub(super) fn one_of<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.random.below(of.len().max(1) as u64) as usize)
    }

    pub(super) fn series(&mut self) -> (usize, String) {
        let series = self.world.history().series.clone();
        let at = self.random.below(series.len() as u64) as usize;
        (at, series[at].clone())
    }

    /// A key, for a caller of a feed one of its own.
    fn key(&mut self, caller: Option<usize>) -> Key {
        let top = TOPS[caller.unwrap_or_else(|| self.random.below(TOPS.len() as u64) as usize)];
        let below = BELOW[self.random.below(BELOW.len() as u64) as usize];
        let key = Key::new([top]).unwrap();
        match self.random.below(5) {
            0 => key,
            1..4 => key.join(below).unwrap(),
            _ => key.join(below).unwrap().join("a").unwrap(),
        }
    }

    fn op(&mut self, caller: Option<usize>) -> Op {
        match self.random.below(9) {
            0 | 1 => Op::Remove(self.key(caller)),
            2 => Op::RemovePrefix(self.key(caller)),
            _ => Op::Put(self.key(caller), self.content()),
        }
    }

    /// Mostly what stands in the tree, now and then what is cut to chunks, and of that some that others put, too.
    fn content(&mut self) -> Bytes {
        let bytes = match self.random.below(10) {
            0 | 1 => Random::new(self.random.below(6)).bytes(1_500),
            2 => {
                let length = 1_100 + self.random.below(20_000) as usize;
                self.random.bytes(length)
            }
            3 | 4 => {
                let length = 500 + self.random.below(500) as usize;
                self.random.bytes(length)
            }
            _ => self.random.bytes(12),
        };
        bytes.into()
    }
}

async fn change(writer: &Writer, op: &Op) -> Result<()> {
    match op {
        Op::Put(key, content) if content.len() % 2 == 1 => {
            writer.put_reader(key, &content[..], &Metadata::default()).await.map(drop)
        }
        Op::Put(key, content) => writer.put(key, content.clone(), &Metadata::default()).await,
        Op::Remove(key) => writer.remove(key).await,
        Op::RemovePrefix(key) => writer.remove_prefix(key).await,
    }
}

async fn submit(feed: &Feed, ops: Vec<Op>, batch: bool) -> Result<Receipt> {
    if batch {
        let mut batch = Batch::new();
        for op in &ops {
            match op {
                Op::Put(key, content) => batch.put(key, content.clone(), &Metadata::default()),
                Op::Remove(key) => batch.remove(key),
                Op::RemovePrefix(key) => batch.remove_prefix(key),
            };
        }
        return feed.apply(batch).await;
    }
    match &ops[0] {
        Op::Put(key, content) => feed.put(key, content.clone(), &Metadata::default()).await,
        Op::Remove(key) => feed.remove(key).await,
        Op::RemovePrefix(key) => feed.remove_prefix(key).await,
    }
}

fn said(done: &Result<()>) -> String {
    done.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned())
}
