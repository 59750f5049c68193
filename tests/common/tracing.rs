//! A store some way off that remembers what was asked of it, and in what order.
//!
//! How many requests an operation makes one after the other decides how long
//! it takes on a store with slow round trips, and can be told in two ways. On
//! tokio's paused clock it is the time that passed, divided by the latency.
//! On any clock it is at most the longest chain: the longest sequence of calls
//! in which each began after the one before it had ended. Calls that follow one
//! another by chance count there as if one had waited for the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use object_store::{ObjectStore, Result};
use tokio::time::Instant;

use super::stores::{Call, Counts, Hook, HookedStore, Kind};

/// A store some way off that remembers its calls.
pub type TracingStore = HookedStore<Tracer>;

/// Waits before every call, and remembers when each began and ended.
#[derive(Debug)]
pub struct Tracer {
    latency: Duration,
    calls: Mutex<Calls>,
}

#[derive(Debug)]
struct Calls {
    since: Instant,
    counts: Counts,
    /// Beginnings and ends, numbered in the order in which they happened.
    events: u64,
    /// When calls under way began, by their numbers.
    open: BTreeMap<u64, (u64, Instant)>,
    /// When calls that are over began and ended.
    over: Vec<Interval>,
}

#[derive(Debug)]
struct Interval {
    begin: u64,
    end: u64,
    took: Duration,
    kind: Kind,
    name: String,
}

impl Calls {
    fn new() -> Self {
        Self { since: Instant::now(), counts: Counts::default(), events: 0, open: BTreeMap::new(), over: Vec::new() }
    }

    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// A call ends, or one page of it.
    fn close(&mut self, call: &Call) {
        if let Some((begin, since)) = self.open.remove(&call.number) {
            let (end, took) = (self.event(), since.elapsed());
            self.over.push(Interval { begin, end, took, kind: call.kind, name: call.name.clone() });
        }
    }
}

/// What was asked of a store for a while.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The calls and their bytes.
    pub counts: Counts,
    /// How long the while was.
    pub elapsed: Duration,
    /// How long each call that is over took.
    pub took: Vec<(Kind, Duration)>,
    /// The longest sequence of calls in which each began after the one before it had ended.
    pub chain: Vec<(Kind, String)>,
    latency: Duration,
}

impl Trace {
    /// The time that passed, in round trips: how many followed one another, if the clock is tokio's paused one.
    pub fn round_trips(&self) -> u128 {
        self.elapsed.as_nanos() / self.latency.as_nanos().max(1)
    }
}

impl TracingStore {
    /// Every call on `inner` takes this much longer; that may be nothing.
    pub fn new(inner: Arc<dyn ObjectStore>, latency: Duration) -> Self {
        Self::with_hook(inner, Tracer { latency, calls: Mutex::new(Calls::new()) })
    }

    /// What was asked since the last take or the beginning; calls still under way count among those begun.
    pub fn take(&self) -> Trace {
        let mut calls = self.hook().calls.lock().unwrap();
        let Calls { since, counts, over, .. } = &mut *calls;
        let elapsed = since.elapsed();
        *since = Instant::now();
        let (counts, over) = (std::mem::take(counts), std::mem::take(over));
        let took = over.iter().map(|call| (call.kind, call.took)).collect();
        Trace { counts, elapsed, took, chain: longest_chain(over), latency: self.hook().latency }
    }
}

/// The most calls of which no two overlap: again and again the one that ends first of those that begin after the last.
fn longest_chain(mut calls: Vec<Interval>) -> Vec<(Kind, String)> {
    calls.sort_by_key(|call| call.end);
    let (mut chain, mut free) = (Vec::new(), 0);
    for call in calls {
        if call.begin > free {
            free = call.end;
            chain.push((call.kind, call.name));
        }
    }
    chain
}

#[async_trait]
impl Hook for Tracer {
    async fn before(&self, call: &Call) -> Result<()> {
        {
            let mut calls = self.calls.lock().unwrap();
            calls.close(call);
            let begin = calls.event();
            calls.open.insert(call.number, (begin, Instant::now()));
            calls.counts.count(call);
        }
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        Ok(())
    }

    fn ended(&self, call: &Call) {
        self.calls.lock().unwrap().close(call);
    }

    fn bytes_read(&self, bytes: u64) {
        self.calls.lock().unwrap().counts.bytes_read += bytes;
    }
}
