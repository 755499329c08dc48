//! That what waits or is active ends as it should: a node that is deleted or lost, clocks that jump, what costs a retry.

use sluice_api::{CATCH_UP_DEFAULT, RUN_TASKS_MAX, ScheduleCreate, TickQuery};
use sluice_model::{Overlap, TickOutcome};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn pools(size: u32) -> TaskLimits {
    TaskLimits {
        pools: BTreeMap::from([("gpu".to_owned(), size)]),
        ..TaskLimits::default()
    }
}

impl World {
    /// The wall clock is set, and time goes on.
    fn set_clock(&mut self, unix: i64) {
        self.now.unix = UnixMs(unix);
        self.pass(Duration::from_secs(1));
    }

    /// A node goes away, and comes to count as lost.
    fn lose(&mut self, machine: &Machine) {
        self.handle(Input::Closed { conn: machine.conn });
        self.pass(Duration::from_secs(61));
    }

    fn delete_node(&mut self, name: &str) {
        self.call(ApiCall::DeleteNode(name.parse().unwrap()))
            .unwrap();
    }

    /// The oldest first.
    fn tick_outcomes(&mut self, schedule: &str) -> Vec<TickOutcome> {
        let query = TickQuery {
            limit: None,
            cursor: None,
        };
        match self
            .call(ApiCall::Ticks(schedule.parse().unwrap(), query))
            .unwrap()
        {
            Reply::Ticks(page) => page.items.iter().rev().map(|tick| tick.outcome).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn end_of(&mut self, run: RunId) -> (RunState, Option<FailReason>) {
        let run = self.run(run);
        (run.state, run.tasks[0].reason_code)
    }
}

#[test]
fn what_waits_for_a_deleted_node_ends_with_it_and_its_schedule_goes_on() {
    let mut world = calm(TaskLimits::default());
    world.edge("e1", 1);
    world.deploy(&batch("a", ""));
    world
        .call(ApiCall::CreateSchedule(ScheduleCreate {
            name: "s".parse().unwrap(),
            job: "a".parse().unwrap(),
            cron: None,
            tz: None,
            every: Some("1h".to_owned()),
            overlap: Overlap::Skip,
            catch_up: CATCH_UP_DEFAULT,
            jitter: None,
            params: BTreeMap::new(),
            nodes: vec!["e1".parse().unwrap(), "e1".parse().unwrap()],
        }))
        .unwrap();
    world.pass(HOUR);
    world.pass(HOUR);
    assert_eq!(
        world.tick_outcomes("s"),
        [TickOutcome::Launched, TickOutcome::Skipped],
        "the first run waits for e1"
    );
    let run = world.runs()[0].id;
    world.waits_for(run, "e1 could take it and is not connected");
    world.delete_node("e1");
    assert_eq!(
        world.end_of(run),
        (RunState::Failed, Some(FailReason::Lost))
    );
    let reason = world.run(run).tasks[0].reason.clone().unwrap();
    assert!(
        reason.contains("launched for the node e1, which was deleted"),
        "{reason}"
    );
    assert_eq!(world.core.store_mut().open_tasks().unwrap(), 0);
    // Another machine under the name.
    let mut e1 = Machine::connect(&mut world, "e1", 2);
    world.pass(HOUR);
    assert_eq!(world.tick_outcomes("s")[2], TickOutcome::Launched);
    let execution = world.the_active().execution.unwrap();
    e1.completes(&mut world, execution);
}

#[test]
fn a_try_that_was_to_be_repeated_on_a_deleted_node_is_not_waited_for() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.deploy(&batch("a", "retries = 3\nidempotent = true"));
    let (later, active) = (world.launch_on("a", "e1"), world.launch_on("a", "e1"));
    let first = world.tasks(later.id)[0].execution.unwrap();
    e1.fails(&mut world, first, FailReason::Fatal);
    world.handle(Input::Closed { conn: e1.conn });
    world.waits_for(later.id, "its last try failed");
    world.delete_node("e1");
    // The other one was active, and is taken back to nowhere.
    for run in [later.id, active.id] {
        assert_eq!(
            world.end_of(run),
            (RunState::Failed, Some(FailReason::Lost))
        );
    }
}

#[test]
fn what_a_revoked_node_could_take_says_that_it_must_be_let_back_in() {
    let mut world = calm(TaskLimits::default());
    world.edge("e1", 1);
    world.edge("e2", 2);
    world.deploy(&batch("a", ""));
    let run = world.launch_on("a", "e1");
    world
        .call(ApiCall::RevokeNode("e1".parse().unwrap()))
        .unwrap();
    world.waits_for(run.id, "it was revoked");
    let next = world.run(run.id).tasks[0].next_action.clone().unwrap();
    assert!(next.starts_with("when that node is let back in"), "{next}");
}

#[test]
fn a_clock_that_jumps_ends_no_task_and_keeps_none_running() {
    let mut world = calm(TaskLimits::default());
    let _e1 = Machine::connect(&mut world, "e1", 1);
    world.deploy(&batch("a", "timeout = \"10m\""));
    world.launch(&["a"]);
    let start = world.now.unix.0;
    for jumped in [start + 3_600_000, start - 900_000] {
        world.set_clock(jumped);
        assert_eq!(world.the_active().stopping, None);
    }
    // A process that did not see it begin goes by the store: no more is left than the whole.
    let store = world.core.store_mut().fork().unwrap();
    let mut world = world.restart(store);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.the_active().stopping, None);
    world.pass(LONG);
    assert_eq!(
        world.the_active().stopping,
        Some(sluice_scheduler::Stopping::TimedOut),
        "by the clock it would have a quarter of an hour more"
    );
}

#[test]
fn a_retry_does_not_wait_for_a_clock_that_was_ahead() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.deploy(&batch("a", "retries = 1"));
    let run = world.launch(&["a"]);
    let start = world.now.unix.0;
    world.set_clock(start + 3_600_000);
    let execution = world.the_active().execution.unwrap();
    e1.fails(&mut world, execution, FailReason::Fatal);
    world.waits_for(run.id, "its last try failed");
    world.set_clock(start);
    assert_eq!(world.the_active().attempt, Attempt(2));
}

#[test]
fn a_refusal_costs_no_retry() {
    let mut world = calm(TaskLimits::default());
    let mut machines = [
        Machine::connect(&mut world, "e1", 1),
        Machine::connect(&mut world, "e2", 2),
    ];
    world.deploy(&batch("a", "retries = 1"));
    let run = world.launch(&["a"]);
    for (attempt, fail) in [
        (1, FailReason::Rejected),
        (2, FailReason::Fatal),
        (3, FailReason::Fatal),
    ] {
        let task = world.the_active();
        assert_eq!(task.attempt, Attempt(attempt));
        let machine = machines.iter_mut().find(|it| it.is_of(&task)).unwrap();
        machine.fails(&mut world, task.execution.unwrap(), fail);
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(
        world.end_of(run.id),
        (RunState::Failed, Some(FailReason::Fatal))
    );
}

#[test]
fn a_launch_names_each_node_once_and_no_more_than_it_has_tasks() {
    let mut world = calm(TaskLimits::default());
    for n in 1..=3 {
        world.edge(&format!("e{n}"), n);
    }
    world.deploy(&batch("a", ""));
    let on = |nodes: Vec<String>| RunLaunch {
        nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
        ..launch_of(&["a"])
    };
    let named = ["e3", "e1", "e3", "e2", "e1"].map(str::to_owned).to_vec();
    let run = the_run(world.call(ApiCall::Launch(on(named), None, None)).unwrap());
    let nodes: Vec<String> = run
        .tasks
        .iter()
        .map(|task| task.node.clone().unwrap().to_string())
        .collect();
    assert_eq!(nodes, ["e3", "e1", "e2"]);
    let repeated = vec!["e1".to_owned(); RUN_TASKS_MAX + 1];
    let run = the_run(
        world
            .call(ApiCall::Launch(on(repeated), None, None))
            .unwrap(),
    );
    assert_eq!(run.tasks.len(), 1);
    let many = (0..=RUN_TASKS_MAX).map(|n| format!("x{n}")).collect();
    // Before any is looked up: none of them is known.
    let error = world
        .call(ApiCall::Launch(on(many), None, None))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(
        error
            .message
            .contains("at most 1000 nodes, this one names 1001"),
        "{}",
        error.message
    );
}

#[test]
fn a_run_that_has_ended_is_not_called_off() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.deploy(&batch("a", ""));
    let run = world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    e1.completes(&mut world, execution);
    let error = world.call(ApiCall::CancelRun(run.id)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(
        error
            .message
            .ends_with("had ended already, it is completed"),
        "{}",
        error.message
    );
    world.handle(Input::Closed { conn: e1.conn });
    let run = world.launch(&["a"]);
    // The answer may have been lost: asked again, it is given again.
    for _ in 0..2 {
        let cancelled = the_run(world.call(ApiCall::CancelRun(run.id)).unwrap());
        assert_eq!(cancelled.state, RunState::Cancelled);
    }
}

#[test]
fn a_stopped_task_holds_its_places_until_its_node_says_so_or_is_lost() {
    let mut world = calm(pools(1));
    let e1 = Machine::connect(&mut world, "e1", 1);
    e1.ack(&mut world);
    world.deploy(&batch("a", "pool = \"gpu\""));
    let first = world.launch(&["a"]);
    world.handle(Input::Closed { conn: e1.conn });
    let _e2 = Machine::connect(&mut world, "e2", 2);
    let second = world.launch(&["a"]);
    let stopping = the_run(world.call(ApiCall::CancelRun(first.id)).unwrap());
    assert_eq!(stopping.state, RunState::Running, "it may run on e1");
    let next = stopping.tasks[0].next_action.clone().unwrap();
    assert!(next.contains("or counts as lost"), "{next}");
    world.pass(Duration::from_secs(31));
    world.waits_for(second.id, "the pool `gpu` has its 1 tasks");
    world.pass(Duration::from_secs(31));
    assert_eq!(world.run(first.id).state, RunState::Cancelled);
    assert_eq!(world.the_active().run, second.id);
}

#[test]
fn case_41_a_node_that_is_gone_for_good_loses_only_what_may_not_run_twice() {
    for idempotent in [false, true] {
        let mut world = calm(TaskLimits::default());
        world.deploy(&batch("a", &format!("idempotent = {idempotent}")));
        let e1 = Machine::connect(&mut world, "e1", 1);
        let run = world.launch(&["a"]);
        assert!(e1.is_of(&world.the_active()));
        let mut e2 = Machine::connect(&mut world, "e2", 2);
        world.lose(&e1);
        if !idempotent {
            assert_eq!(
                world.end_of(run.id),
                (RunState::Failed, Some(FailReason::Indeterminate))
            );
            let reason = world.run(run.id).tasks[0].reason.clone().unwrap();
            assert!(reason.contains("it is not idempotent"), "{reason}");
            continue;
        }
        let task = world.the_active();
        assert!(e2.is_of(&task));
        e2.completes(&mut world, task.execution.unwrap());
        let run = world.run(run.id);
        assert_eq!(
            (run.state, run.tasks[0].attempt),
            (RunState::Completed, Attempt(2))
        );
    }
}

#[test]
fn claims_name_a_life_and_not_a_process_only() {
    let mut world = calm(TaskLimits::default());
    let _e1 = Machine::connect(&mut world, "e1", 1);
    world.deploy(&batch("a", ""));
    let run = world.launch(&["a"]);
    let life = world.core.life();
    let claimed_by = world.run(run.id).claimed_by.unwrap();
    assert_eq!(claimed_by, format!("test, life {life}"));
}

#[test]
fn what_became_of_runs_and_tasks_is_counted() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.edge("e2", 2);
    world.deploy(&batch("a", "retries = 1"));
    world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    e1.fails(&mut world, execution, FailReason::Fatal);
    world.pass(Duration::from_secs(2));
    let execution = world.the_active().execution.unwrap();
    e1.completes(&mut world, execution);
    let waits = world.launch_on("a", "e2");
    world.launch(&["a"]);
    world.pass(Duration::from_secs(1));
    let tally = world.core.tally();
    let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    assert_eq!(
        (read(&tally.runs_launched), read(&tally.tasks_launched)),
        (3, 3)
    );
    assert_eq!((read(&tally.tasks_open), read(&tally.tasks_active)), (2, 1));
    assert_eq!(
        (read(&tally.tasks_again), read(&tally.tasks_completed)),
        (1, 1)
    );
    world.call(ApiCall::CancelRun(waits.id)).unwrap();
    assert_eq!(read(&tally.tasks_cancelled), 1);
    world.deploy(&batch("b", ""));
    world.launch_on("b", "e2");
    world.delete_node("e2");
    assert_eq!(read(&tally.tasks_failed), 1);
    let store = world.core.store_mut().fork().unwrap();
    let world = world.restart(store);
    assert_eq!(read(&world.core.tally().claims_taken_over), 1);
}

#[test]
fn status_and_explain_tell_of_every_run_that_waits_and_not_of_the_last_alone() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.edge("e2", 2);
    world.deploy(&batch("a", ""));
    let (first, _) = (world.launch_on("a", "e2"), world.launch_on("a", "e2"));
    let last = world.launch_on("a", "e1");
    let execution = world.the_active().execution.unwrap();
    e1.completes(&mut world, execution);
    assert_eq!(world.run(last.id).state, RunState::Completed);
    let Reply::Status(status) = world.call(ApiCall::Status).unwrap() else {
        panic!("no status");
    };
    assert_eq!((status.tasks_waiting, status.waiting_tasks.len()), (2, 1));
    let waits = &status.waiting_tasks[0];
    assert_eq!((waits.count, waits.run), (2, first.id));
    assert!(waits.reason.contains("e2"), "{}", waits.reason);
    assert_eq!(waits.next_action, "when e2 connects");
    let Reply::Explain(explain) = world.call(ApiCall::Explain("a".parse().unwrap())).unwrap()
    else {
        panic!("not explained");
    };
    let why = explain.why;
    assert!(
        why.contains("of its other runs 2 tasks wait; 2 since e2"),
        "{why}"
    );
    assert!(why.contains(&first.id.to_string()), "{why}");
}

#[test]
fn an_older_run_that_backs_off_on_its_node_is_explained_behind_one_that_has_ended() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", ""));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let older = world.launch(&["a"]);
    let waiting = world.the_active().execution.unwrap();
    e1.waits(&mut world, waiting, "cannot open /nowhere");
    let newer = world.launch(&["a"]);
    let active = world.core.store_mut().active_tasks().unwrap();
    let its = active.iter().find(|task| task.run == newer.id).unwrap();
    e1.completes(&mut world, its.execution.unwrap());
    assert_eq!(world.run(newer.id).state, RunState::Completed);
    let Reply::Explain(explain) = world.call(ApiCall::Explain("a".parse().unwrap())).unwrap()
    else {
        panic!("not explained");
    };
    let said = format!("its run {} waits on e1: cannot open /nowhere", older.id);
    assert!(explain.why.contains(&said), "{}", explain.why);
}

#[test]
fn a_task_that_timed_out_while_it_waited_says_what_for_and_its_job_does_not_run() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.deploy(&batch("a", "timeout = \"10m\""));
    let run = world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    assert_eq!(world.job_state("a"), JobState::Deploying);
    e1.waits(&mut world, execution, "cannot open \"orders.csv\"");
    let Reply::Status(status) = world.call(ApiCall::Status).unwrap() else {
        panic!("no status");
    };
    let job = &status.jobs[0];
    assert_eq!(
        (job.state, job.running, job.waiting),
        (JobState::Degraded, 0, 1)
    );
    world.pass(LONG);
    let late = "ran past its timeout of 600s while in backoff: cannot open \"orders.csv\"";
    let shown = world.run(run.id);
    let reason = shown.tasks[0].reason.as_deref().unwrap();
    assert_eq!(reason, format!("it is being stopped on e1: {late}"));
    e1.report(&mut world, execution, ObservedPhase::Stopped);
    assert_eq!(
        world.end_of(run.id),
        (RunState::TimedOut, Some(FailReason::TimedOut))
    );
    let shown = world.run(run.id);
    assert_eq!(shown.tasks[0].reason.as_deref(), Some(late));
    let Reply::Explain(explain) = world.call(ApiCall::Explain("a".parse().unwrap())).unwrap()
    else {
        panic!("not explained");
    };
    assert!(explain.why.contains(late), "{}", explain.why);
    assert_eq!(world.job_state("a"), JobState::Failed);
}

#[test]
fn who_called_a_task_off_is_told_also_where_it_ran() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.deploy(&batch("a", ""));
    let run = world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    e1.report(&mut world, execution, ObservedPhase::Running);
    assert_eq!(world.job_state("a"), JobState::Running);
    world.call(ApiCall::StopJob("a".parse().unwrap())).unwrap();
    world.pass(Duration::from_secs(1));
    e1.report(&mut world, execution, ObservedPhase::Stopped);
    let shown = world.run(run.id);
    assert_eq!(
        shown.tasks[0].reason.as_deref(),
        Some("its job was stopped")
    );
}

#[test]
fn old_tries_of_an_earlier_process_go_with_the_first_tick() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.deploy(&batch("a", ""));
    for _ in 0..8 {
        world.launch(&["a"]);
    }
    for _ in 0..8 {
        let execution = world.active()[0].execution.unwrap();
        e1.completes(&mut world, execution);
    }
    let kept = |world: &mut World| {
        let job = world.core.store_mut().jobs(false).unwrap().remove(0);
        let tries = world.core.store_mut().executions_of_job(job.id).unwrap();
        let wanted = |it: &&crate::store::ExecutionRecord| it.desired != Desired::Purge;
        tries.iter().filter(wanted).count()
    };
    assert_eq!(kept(&mut world), 8, "they go with the next tick");
    let store = world.core.store_mut().fork().unwrap();
    let mut world = world.restart(store);
    world.pass(Duration::from_secs(1));
    assert_eq!(kept(&mut world), crate::core::runs::TRIES_KEPT);
}

/// Looking costs what is shown, however much waits.
#[test]
fn a_long_queue_is_not_read_to_show_it() {
    let [few, many] = [20, 1_000].map(|launches| {
        let mut world = calm(TaskLimits::default());
        let _e1 = Machine::connect(&mut world, "e1", 1);
        world.deploy(&batch("a", "concurrency = 1"));
        for _ in 0..launches {
            world.launch(&["a"]);
        }
        let before = world.core.store_mut().work();
        let Reply::Status(status) = world.call(ApiCall::Status).unwrap() else {
            panic!("no status");
        };
        assert_eq!(status.tasks_waiting, launches - 1);
        assert_eq!(status.waiting_tasks[0].count, launches - 1);
        let explain = ApiCall::Explain("a".parse().unwrap());
        let Reply::Explain(explain) = world.call(explain).unwrap() else {
            panic!("not explained");
        };
        let others = format!("of its other runs {} tasks wait", launches - 2);
        assert!(explain.why.contains(&others), "{}", explain.why);
        world.core.store_mut().work() - before
    });
    assert!(
        many <= few + few / 10,
        "{many} instructions for a long queue, {few} for a short one"
    );
}
