//! Tasks that find no input: how long they wait for it, and how they end.

use sluice_agent::TRIES_MAX;
use sluice_host::store::{RunStore as _, TaskRecord};
use sluice_model::{ExecutionState, FailReason, OnLost, TaskState};
use sluice_tests::sim::{Batch, Content, MISSING, Order, Placing, World, play};

const ONE: &[(&str, &str)] = &[("e1", "a")];

/// Three attempts of five minutes each, and what is between them.
const GIVES_UP_WITHIN_MS: u64 = 1_200_000;

/// Launches one task and waits until it has ended.
fn launch(world: &mut World, content: Content, idempotent: bool, retries: u32) -> TaskRecord {
    let key = begin(world, content, idempotent, retries);
    await_end(world, &key)
}

fn begin(world: &mut World, content: Content, idempotent: bool, retries: u32) -> String {
    let batch = Batch {
        count: 1,
        idempotent,
        retries,
        on_lost: OnLost::Fail,
        timeout_s: 24 * 3600,
        ..Batch::once(1)
    };
    world.deploy_placed("job", content, "", Placing::Batch(batch));
    world.launch("job", &[])
}

fn await_end(world: &mut World, key: &str) -> TaskRecord {
    world.run_until("the task ends", GIVES_UP_WITHIN_MS, |world| {
        world.runs.runs.contains_key(key)
            && world.orchestrator.look(|store| store.open_tasks()).unwrap() == 0
    });
    let run = world.runs.runs[key];
    let tasks = world.orchestrator.look(|store| store.tasks_of_run(run));
    tasks.unwrap().remove(0)
}

fn openings(world: &World) -> u64 {
    world.checks.openings.values().sum()
}

#[test]
fn a_task_whose_input_is_not_there_has_failed_in_the_end_and_names_it() {
    for idempotent in [false, true] {
        play(ONE, |world| {
            let task = launch(world, Content::Missing(u8::MAX), idempotent, 0);
            assert_eq!(task.end, Some(TaskState::Failed), "{task:?}");
            assert_eq!(task.fail, Some(FailReason::Retries));
            assert_eq!(task.attempt.0, 1);
            assert!(task.reason.starts_with(MISSING), "{}", task.reason);
            assert!(
                task.reason.contains("10 times within 300 s"),
                "{}",
                task.reason
            );
            assert_eq!(openings(world), TRIES_MAX);
        });
    }
}

#[test]
fn its_retries_are_attempts_with_tries_of_their_own() {
    play(ONE, |world| {
        let task = launch(world, Content::Missing(u8::MAX), true, 2);
        assert_eq!(task.end, Some(TaskState::Failed), "{task:?}");
        assert_eq!((task.attempt.0, task.failures), (3, 2));
        assert_eq!(world.checks.openings.len(), 3, "an execution each");
        assert_eq!(openings(world), 3 * TRIES_MAX);
    });
}

#[test]
fn what_appears_in_time_is_read() {
    play(ONE, |world| {
        let task = launch(world, Content::Missing(3), false, 0);
        assert_eq!(task.end, Some(TaskState::Completed), "{task:?}");
        assert_eq!((task.attempt.0, openings(world)), (1, 4));
    });
}

#[test]
fn restarts_of_its_edge_give_it_no_tries_anew() {
    play(ONE, |world| {
        let key = begin(world, Content::Missing(u8::MAX), true, 0);
        for _ in 0..4 {
            world.run_for(20_000);
            world.crash_edge(0, "somebody pulled the plug", Some(1_000));
        }
        let task = await_end(world, &key);
        assert_eq!(task.end, Some(TaskState::Failed), "{task:?}");
        // It died while it waited: every try was on its disk.
        assert_eq!(openings(world), TRIES_MAX);
    });
}

#[test]
fn a_daemon_waits_for_its_input_for_ever() {
    play(ONE, |world| {
        world.deploy("job", Content::Missing(40), "");
        world.run_for(2 * 3600 * 1000);
        assert!(openings(world) > 20, "{}", openings(world));
        let execution = world.execution("job", 0).unwrap();
        assert_eq!(execution.state, ExecutionState::Pending);
        world.give("job", Order::Delete);
    });
}
