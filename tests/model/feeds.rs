//! What feeds do, and what is done at once.

use std::collections::BTreeSet;
use std::time::Duration;

use backstop::{Batch, Error, Feed, FeedOptions, Metadata, Receipt, Result};
use futures::FutureExt;

use crate::expected::{Op, Pending};
use crate::world::{OpenFeed, World};
use crate::writers::give_up_after;

impl World {
    pub(crate) async fn begin_feed(&mut self) {
        let (repository, fails) = self.client();
        let (series, id) = (self.pick_series(), self.id());
        let interval = Duration::from_millis(self.random.below(3));
        let options = FeedOptions::default().with_interval(interval).with_tag("id", id.to_string());
        match repository.feed(&self.series[series].name, options).await {
            Ok(feed) => self.feeds.push(OpenFeed { id, feed, series, fails }),
            Err(error) => self.failed(fails, &error),
        }
    }

    /// Some changes of a feed at once, about different keys, or one batch.
    pub(crate) async fn feed_changes(&mut self) {
        let at = self.random.below(self.feeds.len() as u64) as usize;
        let (id, feed, fails) = (self.feeds[at].id, self.feeds[at].feed.clone(), self.feeds[at].fails);
        if self.random.chance(0.4) {
            let ops: Vec<_> = (0..1 + self.random.below(4)).map(|_| self.op(true)).collect();
            let mut batch = Batch::new();
            for op in &ops {
                match op {
                    Op::Put(key, content) => batch.put(key, content.clone(), &Metadata::default()),
                    Op::Remove(key) => batch.remove(key),
                    Op::RemovePrefix(key) => batch.remove_prefix(key),
                };
            }
            let position = self.random.chance(0.5).then(|| self.random.bytes(4));
            if let Some(position) = &position {
                batch.at_position(position.clone());
            }
            let outcome = feed.apply(batch).await;
            self.acknowledged(id, fails, ops, position, outcome);
            return;
        }
        let ops = self.distinct_ops();
        let unawaited = self.random.chance(0.15).then(|| self.random.below(3));
        let calls = ops.iter().map(|op| call(&feed, op));
        match unawaited {
            Some(polls) => {
                let outcome = give_up_after(polls, futures::future::join_all(calls).boxed()).await;
                match outcome {
                    Some(outcomes) => {
                        for (op, outcome) in ops.into_iter().zip(outcomes) {
                            self.acknowledged(id, fails, vec![op], None, outcome);
                        }
                    }
                    None => self.pending.extend(ops.into_iter().map(|op| Pending::Unawaited { id, op })),
                }
            }
            None => {
                let outcomes = futures::future::join_all(calls).await;
                for (op, outcome) in ops.into_iter().zip(outcomes) {
                    self.acknowledged(id, fails, vec![op], None, outcome);
                }
            }
        }
    }

    pub(crate) fn op(&mut self, prefixes: bool) -> Op {
        match self.random.below(8) {
            0 | 1 => Op::Remove(self.key()),
            2 if prefixes => Op::RemovePrefix(self.prefix()),
            _ => Op::Put(self.key(), self.content()),
        }
    }

    /// Changes whose order doesn't matter.
    pub(crate) fn distinct_ops(&mut self) -> Vec<Op> {
        let mut keys = BTreeSet::new();
        let ops: Vec<_> = (0..1 + self.random.below(4)).map(|_| self.op(false)).collect();
        ops.into_iter().filter(|op| keys.insert(op.key().clone())).collect()
    }

    pub(crate) fn acknowledged(
        &mut self,
        id: u64,
        fails: bool,
        ops: Vec<Op>,
        position: Option<Vec<u8>>,
        outcome: Result<Receipt>,
    ) {
        match outcome {
            Ok(receipt) => {
                self.seen.acknowledged += 1;
                self.pending.push(Pending::Acknowledged { id, receipt, ops, position });
            }
            // Told to have failed: it must not show, and nothing will expect it.
            Err(Error::Conflict { .. }) => {}
            Err(error) => self.failed(fails, &error),
        }
    }

    pub(crate) async fn end_feed(&mut self) {
        let at = self.random.below(self.feeds.len() as u64) as usize;
        let OpenFeed { id, feed, series, fails } = self.feeds.swap_remove(at);
        let open = self.pending.iter().any(|pending| pending.id() == id);
        if !open && self.random.chance(0.3) {
            // Nothing is under way that could still come.
            return;
        }
        match feed.close().await {
            Ok(latest) => {
                self.observe().await;
                let latest = latest.map_or(0, |latest| latest.number);
                assert!(latest <= self.series[series].snapshots.len() as u64);
            }
            Err(error) => self.failed(fails, &error),
        }
        // What it hasn't committed by now never comes.
        self.pending.retain(|pending| pending.id() != id);
    }

    /// Several commits and changes of feeds at the same time.
    pub(crate) async fn at_once(&mut self) {
        let (mut commits, mut expected) = (Vec::new(), Vec::new());
        while !self.writers.is_empty() && commits.len() < 3 {
            let open = self.writers.swap_remove(0);
            let (pending, commit) = self.commit_of(open);
            commits.push(commit);
            expected.push(pending);
        }
        let mut changes = Vec::new();
        let feeds: Vec<_> = self.feeds.iter().map(|open| (open.id, open.feed.clone(), open.fails)).collect();
        for (id, feed, fails) in feeds {
            changes.extend(self.distinct_ops().into_iter().map(|op| (id, feed.clone(), fails, op)));
        }
        let calls = changes.iter().map(|(_, feed, _, op)| call(feed, op));
        let (outcomes, receipts) = futures::join!(futures::future::join_all(commits), futures::future::join_all(calls));
        for (pending, outcome) in expected.into_iter().zip(outcomes) {
            self.committed(pending, Some(outcome));
        }
        let receipts: Vec<_> =
            changes.iter().map(|(id, _, fails, op)| (*id, *fails, op.clone())).zip(receipts).collect();
        for ((id, fails, op), receipt) in receipts {
            self.acknowledged(id, fails, vec![op], None, receipt);
        }
    }

    pub(crate) async fn tidy_up(&mut self) {
        let (repository, fails) = self.client();
        let merge = async {
            let plan = repository.plan_merge().await?;
            if plan.is_due() { repository.merge(&plan).await.map(|report| report.packs_deleted) } else { Ok(0) }
        };
        match merge.await {
            Ok(packs) => self.seen.packs += packs,
            Err(error) if error.is_conflict() => {}
            Err(error) => self.failed(fails, &error),
        }
    }
}

async fn call(feed: &Feed, op: &Op) -> Result<Receipt> {
    match op {
        Op::Put(key, content) => feed.put(key, content.clone(), &Metadata::default()).await,
        Op::Remove(key) => feed.remove(key).await,
        Op::RemovePrefix(key) => feed.remove_prefix(key).await,
    }
}
