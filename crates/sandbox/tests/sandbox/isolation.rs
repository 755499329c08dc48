//! Poison records are found, their neighbours pass in order, and the search ends.

use std::time::Duration;

use sluice_sandbox::{OnRetry, StageLimits};

use crate::guests::{Rig, hostile, hostile_with, limits, poisoned, spec};

fn neighbours(count: usize, places: &[usize]) -> Vec<String> {
    (0..count)
        .filter(|index| !places.contains(index))
        .map(|index| format!("r{index}"))
        .collect()
}

#[test]
fn one_poison_record_dies_alone_wherever_it_is() {
    let mut rig = Rig::new(vec![hostile("trap-on")]);
    for place in [0, 1, 100, 128, 255] {
        let input = poisoned(256, &[place]);
        assert_eq!(rig.run(&input).unwrap(), neighbours(256, &[place]));
        assert_eq!(rig.dead_brief(), [(place as u32, 0, "trap")]);
        assert_eq!(
            rig.dead()[0].attempts,
            10,
            "twice as a whole, then eight times halved"
        );
        assert_eq!(rig.origins(&input).len(), 255);
        assert!(!rig.origins(&input).contains(&(place as u32)));
    }
}

#[test]
fn several_die_and_the_rest_passes_in_order() {
    let places = [0, 7, 8, 64, 200, 201, 255];
    let mut rig = Rig::new(vec![hostile("trap-on")]);
    assert_eq!(
        rig.run(&poisoned(256, &places)).unwrap(),
        neighbours(256, &places)
    );
    let dead: Vec<usize> = rig
        .dead()
        .iter()
        .map(|letter| letter.index as usize)
        .collect();
    assert_eq!(dead, places);
}

#[test]
fn all_may_die() {
    let all: Vec<usize> = (0..256).collect();
    let mut rig = Rig::new(vec![hostile("trap-on")]);
    assert!(rig.run(&poisoned(256, &all)).unwrap().is_empty());
    assert_eq!(rig.dead().len(), 256);
    assert!(rig.dead().iter().map(|letter| letter.index).eq(0..256));
    assert_eq!(rig.run(&poisoned(2, &[])).unwrap(), ["r0", "r1"]);
}

#[test]
fn batches_of_every_small_size_end() {
    let mut rig = Rig::new(vec![hostile("trap-on")]);
    for count in 1..=9 {
        for mask in 0u32..1 << count {
            let places: Vec<usize> = (0..count)
                .filter(|&index| mask & (1 << index) != 0)
                .collect();
            assert_eq!(
                rig.run(&poisoned(count, &places)).unwrap(),
                neighbours(count, &places),
                "{count} {places:?}"
            );
            assert_eq!(rig.dead().len(), places.len());
        }
    }
}

#[test]
fn deadline_poison_is_found_and_others_get_turns() {
    let quick = StageLimits {
        deadline: Duration::from_millis(30),
        ..limits()
    };
    let mut rig = Rig::new(vec![spec("hostile", r#"{"do":"spin"}"#, quick)]);
    assert_eq!(
        rig.run(&poisoned(256, &[77])).unwrap(),
        neighbours(256, &[77])
    );
    assert_eq!(rig.dead_brief(), [(77, 0, "deadline")]);
    assert!(
        rig.turns >= 8,
        "{} turns: a turn must end after a deadline was spent",
        rig.turns
    );
}

#[test]
fn a_batch_of_deadline_poison_does_not_take_a_deadline_each() {
    let deadline = Duration::from_millis(60);
    let limits = StageLimits {
        deadline,
        ..limits()
    };
    let mut rig = Rig::new(vec![spec("hostile", r#"{"do":"spin"}"#, limits)]);
    let all: Vec<usize> = (0..64).collect();
    let before = thread_cpu();
    assert!(rig.run(&poisoned(64, &all)).unwrap().is_empty());
    let used = thread_cpu() - before;
    assert_eq!(rig.dead().len(), 64);
    assert!(
        rig.dead()
            .iter()
            .all(|letter| letter.kind.as_str() == "deadline")
    );
    // 128 calls. 32 of them may take the whole deadline, the others a sixteenth, which two ticks of 5 ms make a sixth.
    assert!(
        used < deadline * 96,
        "{used:?} is more than 96 deadlines of {deadline:?}"
    );
}

#[test]
fn poison_in_a_later_stage_maps_to_the_chains_input() {
    // Every record twice, then poison trapped: both copies of the record die, each with its input's index.
    let mut rig = Rig::new(vec![hostile("duplicate"), hostile("trap-on")]);
    let input = poisoned(4, &[2]);
    assert_eq!(
        rig.run(&input).unwrap(),
        ["r0", "r0", "r1", "r1", "r3", "r3"]
    );
    assert_eq!(rig.origins(&input), [0, 0, 1, 1, 3, 3]);
    assert_eq!(rig.dead_brief(), [(2, 1, "trap"), (2, 1, "trap")]);
}

#[test]
fn a_stage_that_replaces_is_put_together_again() {
    // Upper-cases everything, in parts; poison makes it return what nobody may return.
    let mut rig = Rig::new(vec![
        hostile_with(r#"{"do":"select-out-of-range","when":"poison"}"#),
        hostile("uppercase"),
    ]);
    let input = poisoned(64, &[10, 40]);
    let expected: Vec<String> = neighbours(64, &[10, 40])
        .iter()
        .map(|record| record.to_uppercase())
        .collect();
    assert_eq!(rig.run(&input).unwrap(), expected);
    assert_eq!(
        rig.dead_brief(),
        [(10, 0, "invalid-output"), (40, 0, "invalid-output")]
    );
    let origins: Vec<u32> = (0..64).filter(|index| ![10, 40].contains(index)).collect();
    assert_eq!(rig.origins(&input), origins);
}

#[test]
fn retry_is_isolated_only_when_the_caller_has_had_enough() {
    let config = r#"{"do":"retry","count":1000000,"when":"poison"}"#;
    let mut rig = Rig::new(vec![hostile_with(config)]);
    let input = poisoned(16, &[3]);
    rig.run_with(&input, OnRetry::Report).unwrap_err();
    assert_eq!(
        rig.run_with(&input, OnRetry::Isolate).unwrap(),
        neighbours(16, &[3])
    );
    assert_eq!(rig.dead_brief(), [(3, 0, "retry")]);
    assert!(rig.dead()[0].reason.contains("as asked"));
    assert_eq!(
        rig.dead()[0].attempts,
        5,
        "as a whole once, then four times halved"
    );
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
