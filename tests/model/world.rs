//! A case: its repository, what is open, and the steps that are drawn.

use std::sync::Arc;

use backstop::{Error, Feed, Key, Metadata, Repository, Snapshot, Writer, WriterOptions};
use object_store::ObjectStore;

use crate::Seen;
use crate::common::Random;
use crate::expected::{Draft, Map, Pending};
use crate::helpers::open;

pub(crate) struct OpenWriter {
    pub(crate) id: u64,
    pub(crate) writer: Arc<Writer>,
    pub(crate) draft: Draft,
    /// Whether its store fails now and then.
    pub(crate) fails: bool,
    /// What was put last.
    pub(crate) last: Option<Key>,
}

pub(crate) struct OpenFeed {
    pub(crate) id: u64,
    pub(crate) feed: Feed,
    pub(crate) series: usize,
    pub(crate) fails: bool,
}

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) snapshots: Vec<(Snapshot, Map)>,
}

impl Series {
    pub(crate) fn latest(&self) -> Map {
        self.snapshots.last().map(|(_, map)| map.clone()).unwrap_or_default()
    }
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) inner: Arc<dyn ObjectStore>,
    /// Never fails.
    pub(crate) clean: Repository,
    /// The handles, and whether their stores fail.
    pub(crate) clients: Vec<(Repository, bool)>,
    pub(crate) series: Vec<Series>,
    pub(crate) writers: Vec<OpenWriter>,
    pub(crate) feeds: Vec<OpenFeed>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) next_id: u64,
    pub(crate) keys: Vec<Key>,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn key(&mut self) -> Key {
        let at = self.random.below(self.keys.len() as u64) as usize;
        self.keys[at].clone()
    }

    /// A key, or the start of one.
    pub(crate) fn prefix(&mut self) -> Key {
        let key = self.key();
        if self.random.chance(0.5) { key.parent().unwrap_or(key) } else { key }
    }

    /// Mostly what stands in the tree, now and then what is cut to chunks.
    pub(crate) fn content(&mut self) -> Vec<u8> {
        let length = match self.random.below(20) {
            0 => 1_000 + self.random.below(3_000),
            1 => 0,
            2 => 20_000 + self.random.below(40_000),
            _ => 1 + self.random.below(60),
        };
        if self.random.chance(0.3) {
            // The same again, somewhere else or later.
            return vec![length as u8; length as usize];
        }
        self.random.bytes(length as usize)
    }

    pub(crate) fn client(&mut self) -> (Repository, bool) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        self.clients[at].clone()
    }

    pub(crate) fn pick_series(&mut self) -> usize {
        self.random.below(self.series.len() as u64) as usize
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A snapshot of many entries to begin with.
    pub(crate) async fn fill(&mut self) {
        let (id, name) = (self.id(), self.series[0].name.clone());
        let writer = self.clean.writer(&name, WriterOptions::default()).await.unwrap();
        let mut draft = self.draft_of(0, None, false);
        for key in self.keys.clone() {
            let length = 60 + self.random.below(200) as usize;
            let content = self.random.bytes(length);
            writer.put(&key, content.clone(), &Metadata::default()).await.unwrap();
            draft.map.insert(key, content);
        }
        let open = OpenWriter { id, writer: Arc::new(writer), draft, fails: false, last: None };
        self.writers.push(open);
        self.commit(0).await;
        self.observe().await;
    }

    pub(crate) fn draft_of(&self, series: usize, parent: Option<&Snapshot>, replaces: bool) -> Draft {
        let snapshots = &self.series[series].snapshots;
        let from = parent.map(|parent| &snapshots[parent.number as usize - 1]);
        let map = from.map(|(_, map)| map.clone()).unwrap_or_default();
        let began = from.map(|(snapshot, _)| (snapshot.number, snapshot.position.clone()));
        Draft { series, base: map.clone(), began, map, removed: Vec::new(), replaces }
    }

    pub(crate) async fn step(&mut self, long: bool) {
        let few_writers = self.writers.len() < 3;
        match self.random.below(if long { 60 } else { 36 }) {
            0..3 if few_writers => self.begin().await,
            3..16 if !self.writers.is_empty() => self.change().await,
            16..18 if !self.writers.is_empty() => self.read_through().await,
            18..21 if !self.writers.is_empty() => {
                let at = self.random.below(self.writers.len() as u64) as usize;
                self.commit(at).await;
            }
            21 if !self.writers.is_empty() => {
                let at = self.random.below(self.writers.len() as u64) as usize;
                let open = self.writers.swap_remove(at);
                if self.random.chance(0.5) {
                    Arc::into_inner(open.writer).unwrap().abandon().await;
                }
            }
            22 if self.feeds.len() < 2 => self.begin_feed().await,
            23..26 | 36.. if !self.feeds.is_empty() => self.feed_changes().await,
            26..28 => self.at_once().await,
            28..31 => self.read_past().await,
            31 => self.compare().await,
            32 if !self.feeds.is_empty() => self.end_feed().await,
            33 => self.tidy_up().await,
            34 => {
                // As after a restart.
                let inner = Arc::clone(&self.inner);
                self.clients[1].0 = open(&inner).await;
            }
            _ if few_writers => self.begin().await,
            _ => self.read_past().await,
        }
        // Else there can be nothing new; in the end all is looked at.
        if !self.pending.is_empty() {
            self.observe().await;
        }
    }

    /// Only what runs on a store that fails may fail, and only because of it.
    pub(crate) fn failed(&mut self, fails: bool, error: &Error) {
        self.seen.failed += 1;
        // A dropped call may have failed, which its writer says at the next one.
        let expected = error.is_retryable() || matches!(error, Error::Invalid { .. });
        assert!(fails && expected, "{error:?}");
    }
}
