//! Thousands of cases; each is the same in every run; and planted faults are found.

use super::sabotage::with;
use super::*;

/// Threads that run cases.
const THREADS: u64 = 2;

/// Cases that are run; all take some two minutes on two cores.
const CASES: u64 = 1000;

/// Lines of the trace that are shown of a case that failed.
const LAST: usize = 40;

/// So many cases find each of the planted faults.
const CASES_PLANTED: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_appears_unasked() {
    let only = number("SIM_SEED");
    let seeds = only.map_or(0..number("SIM_CASES").unwrap_or(CASES), |seed| seed..seed + 1);
    let cases = seeds.end - seeds.start;
    let sum = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let seeds = seeds.clone().filter(move |seed| seed % THREADS == thread);
                scope.spawn(move || run_all(seeds, only.is_some()))
            })
            .collect();
        threads.into_iter().fold(Tally::default(), |sum, thread| match thread.join() {
            Ok(tally) => sum.and(tally),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    eprintln!("{sum:?}");
    if cases >= 200 {
        // What never happened wasn't tested.
        let often = [sum.commits, sum.acknowledged, sum.read];
        let rarely = [sum.rebased, sum.overlaps, sum.unheard, sum.failed, sum.lives_lost, sum.packs_deleted];
        let collecting = [sum.forgotten, sum.records_deleted, sum.collected, sum.rescued, sum.fenced, sum.undeleted];
        assert!(often.iter().all(|count| *count > cases), "{sum:?}");
        assert!(rarely.iter().all(|count| *count > cases / 20), "{sum:?}");
        assert!(collecting.iter().all(|count| *count > 0), "{sum:?}");
    }
}

/// Runs cases on this thread; each by itself is the same wherever it runs.
fn run_all(seeds: impl Iterator<Item = u64>, show: bool) -> Tally {
    let mut sum = Tally::default();
    for seed in seeds {
        let Ran { trace, outcome } = run(seed);
        if show {
            eprintln!("{}", trace.join("\n"));
        }
        match outcome {
            Ok(tally) => sum = sum.and(tally),
            Err(panic) => {
                let last = trace.len().saturating_sub(LAST);
                eprintln!("{}\nthe case of SIM_SEED={seed} failed; the last calls are above", trace[last..].join("\n"));
                std::panic::resume_unwind(panic)
            }
        }
    }
    sum
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    let mut lines = 0;
    for seed in 0..30 {
        let (one, other) = (run(seed), run(seed));
        let differs = one.trace.iter().zip(&other.trace).position(|(one, other)| one != other);
        if let Some(at) = differs {
            let context = at.saturating_sub(5);
            panic!(
                "seed {seed}, line {at}:\n{}\n--- or ---\n{}",
                one.trace[context..=at].join("\n"),
                other.trace[context..=at].join("\n")
            );
        }
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
        lines += one.trace.len();
    }
    assert!(lines > 1000);
}

#[test]
fn faults_in_the_library_are_found() {
    let bugs =
        [Bug::ExistsMeansOurs, Bug::UnknownMeansFailed, Bug::DeletesUncopied, Bug::MarksOnce, Bug::WaitsForNobody];
    let found = bugs.map(|bug| (bug, with(bug, || (0..CASES_PLANTED).find(|seed| run(*seed).outcome.is_err()))));
    eprintln!("{found:?}");
    assert!(found.iter().all(|(_, seed)| seed.is_some()), "{found:?}");
}
