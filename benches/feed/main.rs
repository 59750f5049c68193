//! What changes cost in large snapshots: `cargo bench --bench feed -- [cost|cold_user|feed] [--records N,N] …`.
//! [`Settings::read`] has all options.
//!
//! - `cost`: a commit of ten scattered changes against making the snapshot anew, for several sizes.
//! - `cold_user`: one user's records and a photo, at a time, from a slow store that nothing is known of.
//! - `feed`: acknowledged changes a second.
//!
//! Repositories lie in folders under `$TMPDIR`. Figures are printed, not judged; what has a bound is held by
//! `tests/costs.rs`. Without a name all run; as a test (`cargo test --benches`) they run with little.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a bench stops where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

mod cold_user;
mod cost;
mod measure;
mod throughput;

use std::time::Duration;

/// What is measured, and on how much.
#[derive(Clone, Debug)]
struct Settings {
    /// Which benches; all if there are none.
    names: Vec<String>,
    /// Records in a snapshot.
    records: Vec<u64>,
    /// Commits of ten changes that made the repository of `cold_user`.
    commits: u64,
    /// After so many of them it is asked whether small packs are to be merged; never, if zero.
    merge_every: u64,
    /// What a call to the store of `cold_user` takes.
    latency: Duration,
    /// Bytes of nodes that are kept in memory, but for `cold_user`.
    node_memory: u64,
    /// Whether the calls of a longest chain are named.
    chain: bool,
    /// Tasks that change something in `feed`.
    tasks: usize,
    /// How long they do.
    duration: Duration,
}

impl Settings {
    fn full() -> Self {
        Self {
            names: Vec::new(),
            records: vec![1_000_000, 10_000_000],
            commits: 2_000,
            merge_every: 100,
            latency: Duration::from_millis(50),
            node_memory: 256 << 20,
            chain: false,
            tasks: 1_000,
            duration: Duration::from_secs(10),
        }
    }

    /// As little as shows that the benches still work.
    fn small() -> Self {
        Self {
            records: vec![1_000, 4_000],
            commits: 20,
            latency: Duration::from_millis(1),
            tasks: 20,
            duration: Duration::from_millis(200),
            ..Self::full()
        }
    }

    /// Reads the command line; cargo adds `--bench` when it runs benches.
    fn read(arguments: impl IntoIterator<Item = String>) -> Self {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let as_bench = arguments.iter().any(|argument| argument == "--bench");
        let mut settings = if as_bench { Self::full() } else { Self::small() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut numbers = || -> Vec<u64> {
                let text = arguments.next().unwrap_or_else(|| panic!("{argument} needs a number"));
                text.split(',').map(|number| number.parse().unwrap_or_else(|_| panic!("{number}: a number"))).collect()
            };
            match argument.as_str() {
                "--bench" | "--test" => {}
                "--chain" => settings.chain = true,
                "--records" => settings.records = numbers(),
                "--commits" => settings.commits = numbers()[0],
                "--merge-every" => settings.merge_every = numbers()[0],
                "--latency-ms" => settings.latency = Duration::from_millis(numbers()[0]),
                "--node-memory-mib" => settings.node_memory = numbers()[0] << 20,
                "--tasks" => settings.tasks = numbers()[0] as usize,
                "--seconds" => settings.duration = Duration::from_secs(numbers()[0]),
                name if !name.starts_with('-') => settings.names.push(name.to_owned()),
                other => panic!("{other}: unknown option"),
            }
        }
        settings
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }
}

fn main() {
    let settings = Settings::read(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if settings.wants("cost") {
            cost::run(&settings).await;
        }
        if settings.wants("cold_user") {
            cold_user::run(&settings).await;
        }
        if settings.wants("feed") {
            throughput::run(&settings).await;
        }
    });
}
