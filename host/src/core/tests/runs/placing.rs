//! Which tasks go, which wait and for what, and that each of them comes to an end.

use sluice_api::NodeOrder;

use super::super::machine::Machine;
use super::*;

mod ends;

const LONG: Duration = Duration::from_secs(600);

/// A world whose sessions need no heartbeats.
pub(super) fn calm(limits: TaskLimits) -> World {
    let mut world = World::new();
    let config = CoreConfig {
        heartbeat: LONG,
        limits,
        ..config()
    };
    let store = SqliteStore::in_memory().unwrap();
    world.core = Core::start(store, config, random(), world.now).unwrap();
    world
}

impl World {
    fn active(&mut self) -> Vec<TaskRecord> {
        self.core.store_mut().active_tasks().unwrap()
    }

    /// The one active task.
    pub(super) fn the_active(&mut self) -> TaskRecord {
        let active = self.active();
        assert_eq!(active.len(), 1, "{active:?}");
        active.into_iter().next().unwrap()
    }

    fn launch_on(&mut self, job: &str, node: &str) -> Run {
        let launch = RunLaunch {
            nodes: vec![node.parse().unwrap()],
            ..launch_of(&[job])
        };
        the_run(self.call(ApiCall::Launch(launch, None, None)).unwrap())
    }

    fn waits_for(&mut self, run: RunId, text: &str) {
        let run = self.run(run);
        let task = run
            .tasks
            .iter()
            .find(|it| it.state == TaskState::Pending)
            .unwrap();
        let reason = task.reason.clone().unwrap();
        assert!(reason.contains(text), "{reason}");
        assert!(task.next_action.is_some());
    }
}

#[test]
fn case_27_each_of_three_tasks_is_executed_once_and_the_run_has_one_state() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", "count = 3"));
    let mut machines: Vec<Machine> = (1..=3)
        .map(|n| Machine::connect(&mut world, &format!("e{n}"), n))
        .collect();
    let run = world.launch(&["a"]);
    let tasks = world.active();
    assert_eq!(tasks.len(), 3);
    for (index, task) in tasks.iter().enumerate() {
        let machine = machines.iter_mut().find(|it| it.is_of(task)).unwrap();
        machine.completes(&mut world, task.execution.unwrap());
        let state = world.run(run.id).state;
        let expected = if index < 2 {
            RunState::Running
        } else {
            RunState::Completed
        };
        assert_eq!(state, expected);
    }
    for _ in 0..3 {
        world.pass(Duration::from_secs(31));
    }
    let run = world.run(run.id);
    assert_eq!(run.state, RunState::Completed);
    assert!(run.ended_at.is_some());
    assert!(run.tasks.iter().all(|it| it.attempt == Attempt(1)));
    assert_eq!(
        world.executions().len(),
        3,
        "one execution for each task, and no more"
    );
    let mut nodes: Vec<_> = run
        .tasks
        .iter()
        .map(|it| it.node.clone().unwrap())
        .collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 3);
    assert_eq!(world.runs().len(), 1);
}

#[test]
fn case_34_mixed_results_make_a_failed_run_that_says_of_each_task_how_it_ended() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", "count = 2"));
    let mut machines: Vec<Machine> = (1..=2)
        .map(|n| Machine::connect(&mut world, &format!("e{n}"), n))
        .collect();
    let run = world.launch(&["a"]);
    let tasks = world.active();
    assert_eq!(tasks.len(), 2);
    for (index, task) in tasks.iter().enumerate() {
        let machine = machines.iter_mut().find(|it| it.is_of(task)).unwrap();
        let execution = task.execution.unwrap();
        match index {
            0 => machine.fails(&mut world, execution, FailReason::Fatal),
            _ => machine.completes(&mut world, execution),
        }
    }
    let run = world.run(run.id);
    assert_eq!(run.state, RunState::Failed);
    assert!(run.ended_at.is_some());
    let of = |index: usize| {
        let shown = run.tasks.iter();
        let mut same = shown.filter(|it| it.execution == tasks[index].execution);
        same.next().unwrap()
    };
    let (bad, good) = (of(0), of(1));
    assert_eq!(
        (bad.state, bad.reason_code),
        (TaskState::Failed, Some(FailReason::Fatal))
    );
    assert!(
        bad.reason.as_ref().unwrap().contains("said fatal"),
        "{bad:?}"
    );
    assert_eq!((good.state, good.reason_code), (TaskState::Completed, None));
}

#[test]
fn what_cannot_be_placed_holds_up_no_later_run_of_its_job() {
    let mut world = calm(TaskLimits::default());
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    world.edge("e2", 2);
    // Its second task has no other node to go to.
    world.deploy(&batch("a", "count = 2\n[select]\nnode = \"e1\""));
    let first = world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    e1.completes(&mut world, execution);
    world.waits_for(first.id, "taken by another task of the run");
    let second = world.launch(&["a"]);
    assert_eq!(world.the_active().run, second.id);
    // One whose node is away.
    world.deploy(&batch("b", ""));
    let away = world.launch_on("b", "e2");
    world.waits_for(away.id, "e2 could take it and is not connected");
    let after = world.launch(&["b"]);
    assert!(world.active().iter().any(|task| task.run == after.id));
    // One that fits nowhere, launched before its job was mended.
    world.deploy(&batch("c", "[select]\nsite = \"none\""));
    let misfit = world.launch(&["c"]);
    world.deploy(&batch("c", ""));
    let fits = world.launch(&["c"]);
    assert!(world.active().iter().any(|task| task.run == fits.id));
    world.waits_for(misfit.id, "outside its selector");
}

#[test]
fn limits_hold_for_a_node_a_pool_and_altogether() {
    let mut world = calm(TaskLimits {
        all: 4,
        per_node: 3,
        pools: BTreeMap::from([("gpu".to_owned(), 1)]),
        ..TaskLimits::default()
    });
    world.deploy(&batch("a", ""));
    world.deploy(&batch("g", "pool = \"gpu\""));
    world.deploy(&batch("h", "pool = \"gpu\""));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let pooled = world.launch(&["g"]);
    let queued = world.launch(&["h"]);
    assert_eq!(world.the_active().run, pooled.id);
    world.waits_for(queued.id, "the pool `gpu` has its 1 tasks");
    let runs: Vec<RunId> = (0..5).map(|_| world.launch(&["a"]).id).collect();
    assert_eq!(world.active().len(), 3, "as many as a node takes");
    world.waits_for(
        runs[4],
        "every connected node that could take it has its 3 tasks",
    );
    e1.ack(&mut world);
    let mut e2 = Machine::connect(&mut world, "e2", 2);
    assert_eq!(world.active().len(), 4, "as many as there may be");
    world.waits_for(runs[4], "the orchestrator has its 4 tasks");
    // Each that ends makes room at once, for the oldest that fits; never for more.
    let mut ended = 0;
    while let Some(task) = world.active().first().cloned() {
        let machine = if e1.is_of(&task) { &mut e1 } else { &mut e2 };
        machine.completes(&mut world, task.execution.unwrap());
        ended += 1;
        let active = world.active();
        assert_eq!(active.len(), 4.min(7 - ended));
        let on_e1 = active.iter().filter(|task| e1.is_of(task)).count();
        assert!(on_e1 <= 3);
        let of_pool = active.iter().filter(|task| task.pool.is_some()).count();
        assert!(of_pool <= 1);
    }
    assert_eq!(ended, 7);
    assert!(
        world
            .runs()
            .iter()
            .all(|run| run.state == RunState::Completed)
    );
}

#[test]
fn what_waits_says_for_what_and_what_ends_that() {
    let mut world = calm(TaskLimits {
        pools: BTreeMap::from([("gpu".to_owned(), 1)]),
        ..TaskLimits::default()
    });
    for n in 1..=7 {
        world.edge(&format!("e{n}"), n);
    }
    world.deploy(&batch("a", ""));
    world.deploy(&batch("g", "pool = \"gpu\""));
    world.deploy(&batch("one", "[select]\nnode = \"e2\""));
    world.deploy(&batch("two", "[select]\nnode = [\"e2\", \"e3\"]"));
    let explained = |world: &mut World, job: &str| match world
        .call(ApiCall::Explain(job.parse().unwrap()))
        .unwrap()
    {
        Reply::Explain(explain) => explain.why,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        explained(&mut world, "a"),
        "queued until it is launched: `sluice run launch a`"
    );
    let away = [
        (
            "one",
            "e2 could take it and is not connected",
            "when e2 connects",
        ),
        (
            "two",
            "e2, e3 could take it, and none is connected",
            "when one of them connects",
        ),
        (
            "a",
            "e1, e2, e3, e4, e5 and 2 more could take it, and none is connected",
            "when one of them connects",
        ),
    ];
    for (job, reason, next) in away {
        let run = world.launch(&[job]);
        let task = &run.tasks[0];
        let said = (task.reason.as_deref(), task.next_action.as_deref());
        assert_eq!(said, (Some(reason), Some(next)), "{job}");
        assert_eq!(task.next_at, None);
        let why = explained(&mut world, job);
        assert!(
            why.ends_with(&format!("; waits since {reason} ({next})")),
            "{why}"
        );
    }
    let pooled = world.launch(&["g"]);
    // Started again without its pool: nothing that ends would make room.
    world.core.config.limits.pools.clear();
    Machine::connect(&mut world, "e8", 8);
    world.waits_for(pooled.id, "was started without the pool `gpu`");
    let next = world.run(pooled.id).tasks[0].next_action.clone().unwrap();
    assert_eq!(next, "when it is started with `--pool gpu=SIZE`");
}

#[test]
fn a_higher_priority_goes_first_and_among_equals_the_older_one() {
    let mut world = calm(TaskLimits {
        all: 1,
        ..TaskLimits::default()
    });
    world.deploy(&batch("low", "priority = -1"));
    world.deploy(&batch("high", "priority = 5"));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let expected = [
        world.launch(&["low"]).id,
        world.launch(&["low"]).id,
        world.launch(&["low"]).id,
    ];
    let high = [world.launch(&["high"]).id, world.launch(&["high"]).id];
    let mut order = Vec::new();
    while let Some(task) = world.active().first().cloned() {
        order.push(task.run);
        e1.completes(&mut world, task.execution.unwrap());
    }
    let [first, second, third] = expected;
    assert_eq!(order, [first, high[0], high[1], second, third]);
}

#[test]
fn a_task_that_runs_past_its_timeout_is_stopped_and_ends_as_that() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", "timeout = \"5s\""));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let run = world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    e1.report(&mut world, execution, ObservedPhase::Running);
    world.pass(Duration::from_secs(4));
    assert_eq!(world.executions()[0].desired, Desired::Run);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.executions()[0].desired, Desired::Stop);
    assert_eq!(
        world.run(run.id).state,
        RunState::Running,
        "it has not stopped yet"
    );
    e1.report(&mut world, execution, ObservedPhase::Stopped);
    let run = world.run(run.id);
    assert_eq!(run.state, RunState::TimedOut);
    assert_eq!(run.tasks[0].reason_code, Some(FailReason::TimedOut));
    // What only waits has no time to run out of.
    world.handle(Input::Closed { conn: e1.conn });
    let waits = world.launch(&["a"]);
    world.pass(Duration::from_secs(50));
    assert_eq!(world.run(waits.id).state, RunState::Pending);
}

#[test]
fn a_failed_try_is_repeated_after_a_wait_each_on_an_execution_of_its_own() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", "retries = 2"));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let run = world.launch(&["a"]);
    let mut tried = BTreeSet::new();
    for wait in [1, 2] {
        let execution = world.the_active().execution.unwrap();
        tried.insert(execution);
        e1.fails(&mut world, execution, FailReason::Fatal);
        assert_eq!(world.active(), []);
        let shown = world.run(run.id);
        assert_eq!(shown.state, RunState::Running);
        let task = &shown.tasks[0];
        assert_eq!(task.state, TaskState::Pending);
        let next_at = world.now.unix.plus(Duration::from_secs(wait));
        assert_eq!(task.next_at, Some(next_at));
        // Another one of the job takes its turn meanwhile.
        let other = world.launch(&["a"]);
        assert_eq!(world.the_active().run, other.id);
        let execution = world.the_active().execution.unwrap();
        e1.completes(&mut world, execution);
        world.pass(Duration::from_secs(wait));
        e1.ack(&mut world);
    }
    let execution = world.the_active().execution.unwrap();
    tried.insert(execution);
    e1.fails(&mut world, execution, FailReason::Fatal);
    let run = world.run(run.id);
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.tasks[0].attempt, Attempt(3));
    assert_eq!(tried.len(), 3);
}

#[test]
fn what_an_edge_refuses_goes_to_another_and_fails_when_none_is_left() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", ""));
    let mut machines = [
        Machine::connect(&mut world, "e1", 1),
        Machine::connect(&mut world, "e2", 2),
    ];
    let run = world.launch(&["a"]);
    let first = world.the_active();
    let machine = machines.iter_mut().find(|it| it.is_of(&first)).unwrap();
    machine.fails(&mut world, first.execution.unwrap(), FailReason::Rejected);
    let second = world.the_active();
    assert_ne!(first.node, second.node);
    assert_eq!(second.attempt, Attempt(2));
    let machine = machines.iter_mut().find(|it| it.is_of(&second)).unwrap();
    machine.fails(&mut world, second.execution.unwrap(), FailReason::Rejected);
    let shown = world.run(run.id);
    assert_eq!(shown.state, RunState::Failed);
    assert_eq!(shown.tasks[0].reason_code, Some(FailReason::Rejected));
    let reason = shown.tasks[0].reason.clone().unwrap();
    let name = &second.node.unwrap().1;
    assert!(
        reason.contains(&format!("{name} refused it: said rejected")),
        "{reason}"
    );
    // Idempotent, it is left where it is refused as well, though its edge may take it later.
    world.deploy(&batch("b", "idempotent = true"));
    let run = world.launch_on("b", "e1");
    let execution = world.the_active().execution.unwrap();
    machines[0].report(&mut world, execution, ObservedPhase::Refused);
    assert_eq!(world.run(run.id).state, RunState::Failed);
    assert_eq!(world.core.store_mut().open_tasks().unwrap(), 0);
}

#[test]
fn what_an_edge_refuses_waits_for_nodes_that_may_be_let_back_in() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", ""));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let mut e2 = Machine::connect(&mut world, "e2", 2);
    let order = |world: &mut World, order| {
        world
            .call(ApiCall::OrderNode("e2".parse().unwrap(), order))
            .unwrap();
    };
    order(&mut world, NodeOrder::Cordon);
    let run = world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    e1.fails(&mut world, execution, FailReason::Rejected);
    world.pass(Duration::from_secs(31));
    world.waits_for(run.id, "1 refused it before");
    world.waits_for(run.id, "it is cordoned");
    world.waits_for(run.id, "e1 refused it: said rejected");
    order(&mut world, NodeOrder::Drain);
    world.pass(Duration::from_secs(31));
    world.waits_for(run.id, "it is being drained");
    order(&mut world, NodeOrder::Uncordon);
    let task = world.the_active();
    assert!(e2.is_of(&task));
    // It may be the task: when its last node refuses it too, it ends.
    e2.fails(&mut world, task.execution.unwrap(), FailReason::Rejected);
    assert_eq!(world.run(run.id).state, RunState::Failed);
    // A revoked node may join again, until it is deleted.
    world
        .call(ApiCall::RevokeNode("e2".parse().unwrap()))
        .unwrap();
    let run = world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    e1.fails(&mut world, execution, FailReason::Rejected);
    world.pass(Duration::from_secs(31));
    world.waits_for(run.id, "it was revoked");
    world
        .call(ApiCall::DeleteNode("e2".parse().unwrap()))
        .unwrap();
    world.pass(Duration::from_secs(1));
    let run = world.run(run.id);
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.tasks[0].reason_code, Some(FailReason::Rejected));
}

#[test]
fn a_task_whose_node_is_deleted_ends_whatever_its_job_says_of_lost_nodes() {
    for on_lost in ["wait", "fail"] {
        let mut world = calm(TaskLimits::default());
        world.deploy(&batch("a", &format!("on_lost = \"{on_lost}\"")));
        let e1 = Machine::connect(&mut world, "e1", 1);
        let run = world.launch(&["a"]);
        e1.ack(&mut world);
        world.handle(Input::Closed { conn: e1.conn });
        assert_eq!(world.run(run.id).tasks[0].attempt, Attempt(1));
        world
            .call(ApiCall::DeleteNode("e1".parse().unwrap()))
            .unwrap();
        let run = world.run(run.id);
        assert_eq!(run.state, RunState::Failed, "{run:?}");
        // It is not idempotent, and nobody can tell whether it has ended there.
        assert_eq!(run.tasks[0].reason_code, Some(FailReason::Indeterminate));
    }
}

#[test]
fn a_deleted_job_s_task_ends_though_its_edge_says_only_that_it_was_purged() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", ""));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let run = world.launch(&["a"]);
    let execution = world.the_active().execution.unwrap();
    e1.report(&mut world, execution, ObservedPhase::Running);
    world
        .call(ApiCall::DeleteJob("a".parse().unwrap()))
        .unwrap();
    assert_eq!(world.executions()[0].desired, Desired::Purge);
    e1.report(&mut world, execution, ObservedPhase::Purged);
    assert_eq!(world.active(), []);
    assert_eq!(world.run(run.id).state, RunState::Cancelled);
}

#[test]
fn a_launch_above_the_bound_of_open_tasks_is_refused_whole_and_taken_when_some_have_ended() {
    let mut world = calm(TaskLimits {
        open: 3,
        ..TaskLimits::default()
    });
    world.deploy(&batch("a", "count = 2"));
    let first = world.launch(&["a"]);
    let refused = world
        .call(ApiCall::Launch(launch_of(&["a"]), None, None))
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(
        refused.message.contains("2 tasks wait or run"),
        "{}",
        refused.message
    );
    assert!(refused.help.is_some());
    assert_eq!(world.runs().len(), 1);
    world.call(ApiCall::CancelRun(first.id)).unwrap();
    world.launch(&["a"]);
    world.call(ApiCall::StopJob("a".parse().unwrap())).unwrap();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.core.store_mut().open_tasks().unwrap(), 0);
}

#[test]
fn case_29_a_claim_that_was_taken_over_lets_its_old_owner_write_nothing() {
    let (mut world, task, edge) = one_task();
    let now = world.now.unix.0;
    let old = claim(&mut world, task.seq, edge.node, "old", now).unwrap();
    let store = world.core.store_mut();
    let until = UnixMs(now + 90_000);
    store
        .reclaim_tasks("new", UnixMs(now + 40_000), until)
        .unwrap();
    let taken = store.tasks_of_run(task.run).unwrap();
    assert_eq!(taken[0].claimed_by.as_deref(), Some("new"));
    // Every write that the old owner could still make.
    store.renew_claims("old", UnixMs(now + 900_000)).unwrap();
    let stopping = sluice_scheduler::Stopping::Cancelled;
    assert!(
        !store
            .set_stopping(task.seq, "old", old.fence, stopping, "")
            .unwrap()
    );
    assert!(
        !store
            .end_try(task.seq, "old", old.fence, &completed(now))
            .unwrap()
    );
    assert!(
        !store.end_waiting(task.seq, &completed(now)).unwrap(),
        "it does not wait"
    );
    assert_eq!(
        store.tasks_of_run(task.run).unwrap(),
        taken,
        "nothing of it was kept"
    );
    // Nor may the new one with the old fence, nor the old one with the new fence.
    let fence = taken[0].fence;
    assert!(
        !store
            .end_try(task.seq, "new", old.fence, &completed(now))
            .unwrap()
    );
    assert!(
        !store
            .end_try(task.seq, "old", fence, &completed(now))
            .unwrap()
    );
    assert!(
        store
            .end_try(task.seq, "new", fence, &completed(now))
            .unwrap()
    );
}

#[test]
fn case_30_of_two_launches_with_limit_1_the_second_waits_and_runs_when_the_first_ends() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", "concurrency = 1"));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let mut e2 = Machine::connect(&mut world, "e2", 2);
    let first = world.launch(&["a"]);
    let second = world.launch(&["a"]);
    let third = world.launch(&["a"]);
    for (run, next) in [(first.id, second.id), (second.id, third.id)] {
        let task = world.the_active();
        assert_eq!(task.run, run, "the older one");
        let full = "a has its 1 tasks that may run at once";
        world.waits_for(next, full);
        match world.call(ApiCall::Explain("a".parse().unwrap())).unwrap() {
            Reply::Explain(explain) => assert!(explain.why.contains(full), "{explain:?}"),
            other => panic!("{other:?}"),
        }
        // Time alone makes no room.
        world.pass(Duration::from_secs(5));
        assert_eq!(world.the_active().seq, task.seq);
        let machine = if e1.is_of(&task) { &mut e1 } else { &mut e2 };
        let execution = task.execution.unwrap();
        machine.report(&mut world, execution, ObservedPhase::Running);
        machine.completes(&mut world, execution);
        assert_eq!(world.run(run).state, RunState::Completed);
        assert_eq!(
            world.the_active().run,
            next,
            "in the transaction that ended the other"
        );
    }
    assert_eq!(world.executions().len(), 3);
}

#[test]
fn of_more_groups_than_are_looked_at_together_the_highest_priority_and_the_oldest_go_first() {
    let mut world = calm(TaskLimits {
        all: 1,
        ..TaskLimits::default()
    });
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    for job in 0..300 {
        world.deploy(&batch(&format!("j{job}"), ""));
    }
    // The newest jobs first: what waits longest is what was deployed last.
    let launched: Vec<RunId> = (0..300)
        .rev()
        .map(|job| world.launch(&[&format!("j{job}")]).id)
        .collect();
    let mut urgent = Vec::new();
    for priority in 1..=3 {
        let name = format!("urgent{priority}");
        world.deploy(&batch(&name, &format!("priority = {priority}")));
        urgent.push(world.launch(&[&name]).id);
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        let task = world.the_active();
        order.push(task.run);
        e1.completes(&mut world, task.execution.unwrap());
    }
    let expected = [
        launched[0],
        urgent[2],
        urgent[1],
        urgent[0],
        launched[1],
        launched[2],
    ];
    assert_eq!(order, expected);
}

/// What keeps the control thread from anything else stays bounded, however much waits.
#[test]
fn a_long_queue_is_not_read_to_place_one_task() {
    let mut world = calm(TaskLimits {
        per_node: 1_000,
        ..TaskLimits::default()
    });
    world.deploy(&batch("a", "concurrency = 1"));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    for _ in 0..1_000 {
        world.launch(&["a"]);
    }
    let work = |world: &mut World, e1: &mut Machine| {
        let execution = world.the_active().execution.unwrap();
        e1.ack(world);
        let before = world.core.store_mut().work();
        e1.completes(world, execution);
        world.core.store_mut().work() - before
    };
    let many = work(&mut world, &mut e1);
    // For one of twenty it takes as many, give or take a tenth.
    world.call(ApiCall::StopJob("a".parse().unwrap())).unwrap();
    world.pass(Duration::from_secs(1));
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", "concurrency = 1"));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    for _ in 0..20 {
        world.launch(&["a"]);
    }
    let few = work(&mut world, &mut e1);
    assert!(
        many <= few + few / 10,
        "{many} instructions for a long queue, {few} for a short one"
    );
}

#[test]
fn looking_at_many_that_cannot_go_comes_to_an_end() {
    let mut world = calm(TaskLimits::default());
    for job in 0..260 {
        let name = format!("j{job}");
        world.deploy(&batch(&name, "[select]\nsite = \"nowhere\"\n"));
        world.launch(&[&name]);
    }
    world.pass(Duration::from_secs(1));
    // Each round asks for the next one at once, until everything was evaluated and looked at.
    let mut rounds = 0;
    loop {
        let outputs = world.core.handle(vec![Input::Tick], world.now);
        if !outputs.iter().any(|it| matches!(it, Output::Again)) {
            break;
        }
        rounds += 1;
        assert!(rounds < 100, "it goes on for ever");
    }
}
