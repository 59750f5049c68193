//! The library as it is, run by a seed: writers, feeds, merges and readers of several processes, on one thread, in
//! virtual time, over a store that delays, fails, lies and loses.
//!
//! A case is drawn from its seed: machines, each with a process that lives for a while and may be lost at any of its
//! calls, each process with actors that use the library at the same time. Their work runs inline (`cpu::inline`), time
//! is Tokio's paused clock, and clocks and randomness come from the seed, so that a seed is a run, call by call.
//!
//! - `store`: the network and what is behind it. `surroundings`: clocks and randomness.
//! - `actors`, `collectors`: what a process does. `look`: reading, and finding out what is there.
//! - `expected`: what must be there. `sabotage`: faults planted in the library, which must be found.
//!
//! `SIM_SEED` runs one case and prints its trace, `SIM_CASES` so many.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod actors;
mod collectors;
mod expected;
mod look;
mod sabotage;
mod store;
mod surroundings;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use object_store::ObjectStore;
use tokio::time::sleep;

pub(crate) use sabotage::{Bug, has};

use crate::cpu::inline;
use crate::crypto::Secret;
use crate::repository::{CreateOptions, OpenOptions, Repository};
use crate::simulation::actors::{Actor, Role};
use crate::simulation::expected::{History, Tally};
use crate::simulation::store::{Line, Link, Network};
use crate::testing::Random;

/// No case takes so long in virtual time, unless somebody waits for ever.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// After this long everything that was given up has come to its end.
const AFTERMATH: Duration = Duration::from_secs(2 * 60 * 60);

/// What came of a case.
struct Ran {
    trace: Vec<String>,
    outcome: std::thread::Result<Tally>,
}

/// Runs the case of a seed on this thread.
fn run(seed: u64) -> Ran {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            inline::switch(false);
        }
    }
    inline::switch(true);
    let _off = Off;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut random = Random::new(seed);
        let network = Network::new(random.next());
        let case = tokio::time::timeout(LONGEST, case(&network, random));
        let outcome = AssertUnwindSafe(case).catch_unwind().await;
        let outcome = outcome.map(|ended| ended.expect("the case never ends: somebody waits for ever"));
        Ran { trace: network.take_trace(), outcome }
    })
}

async fn case(network: &Arc<Network>, mut random: Random) -> Tally {
    let world = Arc::new(World::new(network, &mut random).await);
    let seeds: Vec<_> = (0..2 + random.below(3)).map(|_| random.next()).collect();
    let machines = (0..).zip(seeds).map(|(number, seed)| world.machine(number, Random::new(seed)));
    let all = async {
        futures::future::join_all(machines).await;
        network.calm_down().await;
        sleep(AFTERMATH).await;
    };
    futures::future::select(std::pin::pin!(all), std::pin::pin!(world.watch())).await;
    world.judge().await
}

/// What the actors of a case share.
struct World {
    network: Arc<Network>,
    history: Mutex<History>,
    /// Sees the store as it is.
    clean: Repository,
    /// Whether writers are fenced that may still run.
    ruthless: bool,
}

impl World {
    async fn new(network: &Arc<Network>, random: &mut Random) -> Self {
        let open = OpenOptions::default().with_surroundings(surroundings::seeded(random, network.begun));
        let options = CreateOptions::default().with_open(open);
        let clean = Repository::create(network.objects(), &secret(), options).await.unwrap();
        let series = (0..1 + random.below(2)).map(|number| format!("series {number}")).collect();
        let (history, ruthless) = (Mutex::new(History::new(series)), random.chance(0.3));
        Self { network: Arc::clone(network), history, clean, ruthless }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the repository anew, as a process that starts does.
    async fn open(&self, store: Arc<dyn ObjectStore>, random: &mut Random) -> crate::error::Result<Repository> {
        let surroundings = surroundings::seeded(random, self.network.begun);
        Repository::open(store, &secret(), OpenOptions::default().with_surroundings(surroundings)).await
    }

    /// One machine: its process does what its actors do, and is started again when it is lost.
    async fn machine(self: &Arc<Self>, number: u64, mut random: Random) {
        let trouble = if random.chance(0.5) { 0.0 } else { 0.02 + random.below(15) as f64 / 100.0 };
        let pace = [5, 20, 60, 400][random.below(4) as usize];
        let lives = if random.chance(0.5) { 1 } else { 2 + random.below(2) };
        for life in 1..=lives {
            sleep(Duration::from_millis(random.below(5_000))).await;
            let calls = (life < lives).then(|| 10 + random.below(300));
            let link = Link::new(&self.network, format!("{number}.{life}"), Line { pace, trouble, calls });
            let process = self.process(&link, trouble > 0.0, &mut random);
            tokio::select! {
                biased;
                () = link.death() => self.history().tally.lives_lost += 1,
                () = process => {}
            }
        }
    }

    /// One life of a machine.
    async fn process(self: &Arc<Self>, link: &Link, trouble: bool, random: &mut Random) {
        let repository = loop {
            match self.open(link.shared(), random).await {
                Ok(repository) => break repository,
                Err(error) => assert!(trouble && error.is_retryable(), "{error:?}"),
            }
        };
        let mut actors = Vec::new();
        for _ in 0..1 + random.below(3) {
            let (role, random) = (Role::pick(random), Random::new(random.next()));
            let (world, repository, link) = (Arc::clone(self), repository.clone(), link.clone());
            actors.push(Actor { world, repository, link, random, trouble }.run(role));
        }
        futures::future::join_all(actors).await;
    }
}

fn secret() -> Secret {
    Secret::key([7; 32])
}
