//! Real guests on the pool's threads: bad neighbours cost nobody their records.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sluice_record::Batch;
use sluice_sandbox::{
    ChainHandle, ChainOutput, GuestPool, InProcessChain, OnRetry, StageLimits, StageSpec,
};

use crate::guests::{Lines, engine, hostile, limits, poisoned, spec};

fn add(pool: &GuestPool, stages: Vec<StageSpec>) -> ChainHandle {
    let chain = InProcessChain::new(engine(), stages, Arc::new(Lines::default())).unwrap();
    pool.add(Box::new(chain))
}

#[test]
fn neighbours_of_a_chain_full_of_poison_run_on() {
    let pool = GuestPool::new(1).unwrap();
    // At one turn a batch, this would hold the one thread for seconds.
    let slow = StageLimits {
        deadline: Duration::from_millis(30),
        ..limits()
    };
    let mut bad = add(&pool, vec![spec("hostile", r#"{"do":"spin"}"#, slow)]);
    let mut good = add(&pool, vec![hostile("uppercase")]);
    thread::scope(|scope| {
        let bad = scope.spawn(move || {
            let all: Vec<usize> = (0..32).collect();
            let done =
                bad.process_blocking(poisoned(32, &all), ChainOutput::new(), OnRetry::Report);
            (done.result, done.output.dead_letters.len())
        });
        let (mut input, mut output) = (poisoned(8, &[]), ChainOutput::new());
        let mut batches = 0;
        while !bad.is_finished() {
            let done = good.process_blocking(input, output, OnRetry::Report);
            done.result.unwrap();
            assert!(done.output.view(&done.input).records().next().unwrap() == b"R0");
            (input, output) = (done.input, done.output);
            batches += 1;
        }
        assert_eq!(bad.join().unwrap(), (Ok(()), 32));
        assert!(
            batches >= 10,
            "only {batches} batches of the neighbour passed meanwhile"
        );
    });
}

#[test]
fn many_chains_share_few_threads_and_each_keeps_its_order() {
    let pool = GuestPool::new(2).unwrap();
    let handles: Vec<_> = (0..40)
        .map(|_| add(&pool, vec![hostile("stateful-counter")]))
        .collect();
    thread::scope(|scope| {
        for mut handle in handles {
            scope.spawn(move || {
                let (mut input, mut output) = (poisoned(3, &[]), ChainOutput::new());
                for round in 0..20u32 {
                    let done = handle.process_blocking(input, output, OnRetry::Report);
                    done.result.unwrap();
                    let numbers: Vec<String> = (1..=3)
                        .map(|number| (round * 3 + number).to_string())
                        .collect();
                    let mut passed = Batch::new();
                    done.output.view(&done.input).append_to(&mut passed);
                    assert!(
                        passed
                            .iter()
                            .eq(numbers.iter().map(|number| number.as_bytes()))
                    );
                    (input, output) = (done.input, done.output);
                }
            });
        }
    });
}
