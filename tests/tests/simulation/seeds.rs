//! Seeds: many at once, one twice, one again.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sluice_tests::sim::{SEED_VARIABLE, SEEDS_VARIABLE, run_seed};

/// Seeds in a normal run: what two cores do in well under a minute.
const SEEDS: u64 = 200;

fn from_environment(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
    )
}

/// Nobody wants to read the panic of a caught failure twice.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

#[test]
fn seeds_keep_every_invariant() {
    let seeds = from_environment(SEEDS_VARIABLE).unwrap_or(SEEDS);
    let first = from_environment("SLUICE_SIM_FIRST").unwrap_or(1);
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    quiet_panics();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + seeds || failures.len() > 3 {
                            return failures;
                        }
                        if let Err(story) = run_seed(seed) {
                            failures.push(story);
                        }
                    }
                })
            })
            .collect();
        running
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    let _ = std::panic::take_hook();
    let took = started.elapsed();
    writeln!(std::io::stderr(), "{seeds} seeds in {took:.1?}").unwrap();
    assert!(
        failures.is_empty(),
        "{} seeds failed\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 11] {
        let (first, second) = (run_seed(seed).unwrap(), run_seed(seed).unwrap());
        assert_eq!((first.hash, first.lines), (second.hash, second.lines));
        assert!(first.lines > 500, "a run of {} lines is none", first.lines);
    }
}

#[test]
fn replay() {
    let seed = from_environment(SEED_VARIABLE).unwrap_or(1);
    match run_seed(seed) {
        Ok(report) => writeln!(std::io::stderr(), "seed {seed} is well: {report:#?}").unwrap(),
        Err(story) => panic!("{story}"),
    }
}
