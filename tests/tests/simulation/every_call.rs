//! Case 98: the process dies, or its disk fails, at every single call of its store; everything else stays as it was.

use std::collections::BTreeSet;

use sluice_host::store::{RunStore as _, RunsOf, Store as _};
use sluice_model::{CatchUp, Overlap, RolloutPhase, TaskState};
use sluice_tests::sim::{Batch, Content, Fault, Order, Placing, World, play};

/// Calls tried of each side in a normal run; `SLUICE_SIM_EVERY_CALL=1` tries them all, `SLUICE_SIM_FIRST` others.
const CALLS: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Orchestrator,
    Edge,
}

/// A job's whole life. An order that is refused or lost is given again, so a fault anywhere must not matter.
fn live(world: &mut World) {
    let deploy = |content| Order::Deploy {
        content,
        select: String::new(),
        placing: Placing::Daemon,
    };
    for order in [
        deploy(Content::Steady(0)),
        deploy(Content::Steady(1)),
        Order::Stop,
        Order::Start,
        deploy(Content::Ends(2)),
        deploy(Content::Fails(0)),
        Order::Delete,
    ] {
        world.order("job", order);
        world.settle();
    }
}

/// A good version, a bad one that is undone, and a good one again, each by a rollout.
fn roll_out(world: &mut World) {
    let select = "[rollout]\ncanary = 1\nmax_parallel = 1\nmin_healthy = \"1s\"";
    for content in [
        Content::Steady(0),
        Content::Misconfigured(1),
        Content::Steady(2),
    ] {
        let select = format!("site = \"a\"\n{select}");
        world.order(
            "job",
            Order::Deploy {
                content,
                select,
                placing: Placing::Daemon,
            },
        );
        world.settle();
        let undone = matches!(content, Content::Misconfigured(_));
        let good = if undone { Content::Steady(0) } else { content };
        for edge in 0..2 {
            assert_eq!(world.running(edge, "job"), Some(good));
        }
        let id = world.operators.jobs["job"].id;
        let (rollout, rows) = world
            .orchestrator
            .look(|store| Ok((store.rollout(id)?, store.executions_of_job(id)?)))
            .unwrap();
        let rollout = rollout.unwrap();
        let first = rows.iter().filter(|row| row.version.0 == 1).count();
        if undone {
            // Only the canary ever had it: the other one kept its very first version.
            assert_eq!(rollout.phase, RolloutPhase::RolledBack, "{rollout:?}");
            assert_eq!(rollout.failures.len(), 1, "{rollout:?}");
            assert_eq!((first, rows.len()), (1, 2), "{rows:?}");
        } else {
            assert_eq!(rollout.phase, RolloutPhase::Done, "{rollout:?}");
            let newest = rows.iter().all(|row| row.version == rollout.candidate);
            assert!(newest, "{rows:?}");
        }
    }
}

/// Two launches of what must not be done twice, one of them on a named node, and one that is called off.
fn launch(world: &mut World) {
    let order = Order::Deploy {
        content: Content::Ends(0),
        select: String::new(),
        placing: Placing::Batch(Batch::once(2)),
    };
    world.order("once", order);
    world.settle();
    world.launch("once", &[]);
    world.await_runs();
    world.launch("once", &[0]);
    world.await_runs();
    let key = world.launch("once", &[]);
    world.run_until("it is answered", 60_000, |world| {
        world.runs.runs.contains_key(&key)
    });
    let last = world.runs.runs[&key];
    world.call_off(last);
    world.await_runs();
}

/// As [`launch`], where only the orchestrator may fail: what was launched is executed, once.
fn launch_and_complete(world: &mut World) {
    launch(world);
    let runs = world.orchestrator.look(|store| store.runs(RunsOf::All, 10));
    let runs = runs.unwrap();
    assert_eq!(runs.len(), 3, "one run for each launch");
    let mut completed = 0;
    for run in runs {
        let tasks = world.orchestrator.look(|store| store.tasks_of_run(run.id));
        for task in tasks.unwrap() {
            let called_off = task.end == Some(TaskState::Cancelled);
            let well = task.end == Some(TaskState::Completed) && task.attempt.0 == 1;
            assert!(well || called_off, "{task:?}");
            completed += u64::from(well);
        }
    }
    assert!(
        completed >= 3,
        "the last one may have been too fast to be called off"
    );
    let starts = world.starts(0, "once") + world.starts(1, "once");
    assert!((completed..=5).contains(&starts), "{starts} starts");
}

/// A job of two tasks that a schedule launches, and each tick's run is executed, once.
fn tick_and_complete(world: &mut World) {
    let order = Order::Deploy {
        content: Content::Ends(0),
        select: String::new(),
        placing: Placing::Batch(Batch::once(2)),
    };
    world.order("once", order);
    world.settle();
    world.create_schedule("once", 10, Overlap::Queue, CatchUp::All);
    world.run_for(30_000);
    world.settle();
    let runs = world.ticked_runs();
    assert!(runs.len() >= 4, "{} runs", runs.len());
    let mut starts = 0;
    for run in runs {
        let tasks = world.orchestrator.look(|store| store.tasks_of_run(run.id));
        let tasks = tasks.unwrap();
        assert_eq!(tasks.len(), 2);
        starts += 2;
        for task in tasks {
            let is_well = task.end == Some(TaskState::Completed) && task.attempt.0 == 1;
            assert!(is_well, "{task:?}");
        }
    }
    assert_eq!(world.starts(0, "once") + world.starts(1, "once"), starts);
}

/// Lives with a fault at this call; the calls that there were, the calls' names, and where it was.
fn live_with(
    edges: &[(&str, &str)],
    live: fn(&mut World),
    side: Side,
    fault: Option<(u64, Fault)>,
) -> (u64, BTreeSet<&'static str>) {
    let mut seen = (0, BTreeSet::new());
    play(edges, |world| {
        let faults = match side {
            Side::Orchestrator => world.orchestrator.faults.clone(),
            Side::Edge => world.edges[0].faults.clone(),
        };
        let before = faults.calls();
        if let Some((after, fault)) = fault {
            faults.arm(after, fault);
        }
        live(world);
        seen = (faults.calls() - before, faults.points());
        assert_eq!(
            faults.hits(),
            u64::from(fault.is_some()),
            "the fault has happened"
        );
    });
    seen
}

fn every_call(edges: &[(&str, &str)], live: fn(&mut World), side: Side) {
    let (calls, points) = live_with(edges, live, side, None);
    assert!(calls > 100 && points.len() > 8, "{calls} calls, {points:?}");
    let all = std::env::var_os("SLUICE_SIM_EVERY_CALL").is_some();
    let stride = if all { 1 } else { (calls / CALLS).max(1) };
    let faults = [
        Fault::Crash,
        Fault::Full { calls: 3 },
        Fault::Error,
        Fault::Broken,
    ];
    let mut tried = 0;
    // Another first seed tries other calls.
    let first = std::env::var("SLUICE_SIM_FIRST").ok();
    let first = first.and_then(|first| first.parse().ok()).unwrap_or(0_u64);
    let mut at = first % stride;
    while at < calls {
        if all {
            for fault in faults {
                live_with(edges, live, side, Some((at, fault)));
            }
        } else {
            // Most of them crashes; the others take turns.
            let turn = usize::try_from(tried % 6).unwrap();
            live_with(
                edges,
                live,
                side,
                Some((at, *faults.get(turn).unwrap_or(&Fault::Crash))),
            );
        }
        tried += 1;
        at += stride;
    }
    assert!(tried >= CALLS.min(calls));
}

#[test]
fn case_98_a_fault_at_every_store_call_of_the_orchestrator() {
    every_call(&[("e1", "a")], live, Side::Orchestrator);
}

#[test]
fn case_98_a_fault_at_every_store_call_of_an_edge() {
    every_call(&[("e1", "a")], live, Side::Edge);
}

#[test]
fn case_98_a_fault_at_every_store_call_of_a_rollout_changes_nothing_about_its_end() {
    let edges = [("e1", "a"), ("e2", "a")];
    every_call(&edges, roll_out, Side::Orchestrator);
}

#[test]
fn case_25_31_98_a_fault_at_every_store_call_of_a_launch_leaves_each_task_executed_once() {
    let edges = [("e1", "a"), ("e2", "a")];
    every_call(&edges, launch_and_complete, Side::Orchestrator);
}

#[test]
fn case_33_98_a_fault_at_every_store_call_of_a_schedule_leaves_each_tick_its_one_run() {
    let edges = [("e1", "a"), ("e2", "a")];
    every_call(&edges, tick_and_complete, Side::Orchestrator);
}

#[test]
fn case_41_98_a_fault_at_every_store_call_of_an_edge_with_tasks_executes_none_twice() {
    let edges = [("e1", "a"), ("e2", "a")];
    every_call(&edges, launch, Side::Edge);
}
