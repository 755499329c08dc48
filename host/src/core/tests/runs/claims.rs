//! The claiming statement by itself, and claims as they are renewed, taken over and lost.

use super::super::machine::Machine;
use super::placing::calm;
use super::*;

/// So many waiting tasks of each of two jobs, in a world without nodes that could take them, and two nodes.
fn waiting(more: &str, tasks: usize) -> (World, Vec<TaskRecord>, [NodeId; 2]) {
    let mut world = calm(gpus(1));
    let nodes = [world.edge("e1", 1).node, world.edge("e2", 2).node];
    let mut found = Vec::new();
    for job in ["a", "b"] {
        world.deploy(&batch(job, more));
        for _ in 0..tasks {
            let run = world.launch(&[job]);
            found.append(&mut world.tasks(run.id));
        }
    }
    assert!(found.iter().all(|task| task.phase == TaskPhase::Waiting));
    (world, found, nodes)
}

fn gpus(size: u32) -> TaskLimits {
    TaskLimits {
        pools: BTreeMap::from([("gpu".to_owned(), size)]),
        ..TaskLimits::default()
    }
}

/// Claims at the store, as another orchestrator would that has not looked at what is active.
fn claims(world: &mut World, task: &TaskRecord, node: NodeId, limits: &TaskLimits) -> bool {
    let name = "e1".parse().unwrap();
    let claim = TaskClaim {
        seq: task.seq,
        worker: "other",
        now: world.now.unix,
        until: world.now.unix.plus(LEASE),
        node: (node, &name),
        execution: ExecutionId::from_random(u128::from(task.seq).to_be_bytes()),
        exposed: false,
        deadline: None,
        limits,
    };
    let claimed = world.core.store_mut().claim_task(&claim).unwrap();
    let after = world.tasks(task.run).remove(0);
    assert_eq!(claimed.is_some(), after.phase == TaskPhase::Active);
    assert_eq!(claimed.is_some(), after.fence == Fence(1));
    claimed.is_some()
}

#[test]
fn case_30_the_claiming_statement_itself_keeps_every_limit() {
    let roomy = gpus(10);
    // Altogether.
    let (mut world, tasks, [e1, e2]) = waiting("", 1);
    let one = TaskLimits {
        all: 1,
        ..roomy.clone()
    };
    assert!(claims(&mut world, &tasks[0], e1, &one));
    assert!(!claims(&mut world, &tasks[1], e2, &one));
    assert!(claims(&mut world, &tasks[1], e2, &roomy));
    // On one node.
    let (mut world, tasks, [e1, e2]) = waiting("", 2);
    let one = TaskLimits {
        per_node: 1,
        ..roomy.clone()
    };
    assert!(claims(&mut world, &tasks[0], e1, &one));
    assert!(!claims(&mut world, &tasks[1], e1, &one));
    assert!(!claims(&mut world, &tasks[2], e1, &one), "another job's");
    assert!(claims(&mut world, &tasks[1], e2, &one));
    // Of one job.
    let (mut world, tasks, [e1, e2]) = waiting("concurrency = 1", 2);
    assert!(claims(&mut world, &tasks[0], e1, &roomy));
    assert!(!claims(&mut world, &tasks[1], e2, &roomy));
    assert!(claims(&mut world, &tasks[2], e1, &roomy), "another job's");
    // Of one pool.
    let (mut world, tasks, [e1, e2]) = waiting("pool = \"gpu\"", 1);
    assert!(claims(&mut world, &tasks[0], e1, &gpus(1)));
    assert!(!claims(&mut world, &tasks[1], e2, &gpus(1)));
    assert!(claims(&mut world, &tasks[1], e2, &gpus(2)));
    // Of a pool that this orchestrator was started without.
    let (mut world, tasks, [e1, _]) = waiting("pool = \"gpu\"", 1);
    assert!(!claims(&mut world, &tasks[0], e1, &TaskLimits::default()));
    assert!(!claims(&mut world, &tasks[0], e1, &gpus(0)));
    assert!(claims(&mut world, &tasks[0], e1, &gpus(1)));
}

#[test]
fn case_29_what_another_one_claimed_is_left_to_it_until_its_claim_runs_out() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", ""));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let run = world.launch(&["a"]);
    let task = world.the_active();
    assert_eq!(task.fence, Fence(1));
    // Another orchestrator takes it over, for half a minute.
    let until = world.now.unix.plus(LEASE);
    let store = world.core.store_mut();
    let taken = store.reclaim_tasks("other", UnixMs(i64::MAX), until);
    assert_eq!(taken.unwrap(), 1);
    e1.completes(&mut world, task.execution.unwrap());
    world.pass(Duration::from_secs(1));
    assert_eq!(
        world.run(run.id).state,
        RunState::Running,
        "the other decides"
    );
    assert_eq!(world.the_active().claimed_by.as_deref(), Some("other"));
    // It is not heard of again.
    world.pass(Duration::from_secs(31));
    world.pass(Duration::from_secs(31));
    assert_eq!(world.run(run.id).state, RunState::Completed);
    let task = world.tasks(run.id).remove(0);
    assert_eq!((task.fence, task.attempt), (Fence(3), Attempt(1)));
}

#[test]
fn case_28_a_claim_is_renewed_for_as_long_as_its_owner_works() {
    let mut world = calm(TaskLimits::default());
    world.deploy(&batch("a", ""));
    let mut e1 = Machine::connect(&mut world, "e1", 1);
    let run = world.launch(&["a"]);
    e1.ack(&mut world);
    let first = world.the_active();
    let mut until = first.claimed_until.unwrap();
    for _ in 0..20 {
        for _ in 0..11 {
            world.pass(Duration::from_secs(1));
        }
        let task = world.the_active();
        assert_eq!(
            (&task.claimed_by, task.fence),
            (&first.claimed_by, Fence(1))
        );
        let renewed = task.claimed_until.unwrap();
        assert!(renewed > until && renewed > world.now.unix, "{renewed}");
        until = renewed;
    }
    e1.completes(&mut world, first.execution.unwrap());
    assert_eq!(world.run(run.id).state, RunState::Completed);
}
