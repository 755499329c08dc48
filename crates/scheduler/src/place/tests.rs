//! Where replicas go, who stays and who goes.

use proptest::prelude::*;
use sluice_model::{Attempt, Desired, OnLost, Version};

use super::*;
use crate::plan::tests::{apply, execution, id, job, node};
use crate::plan::{Change, Plan, Snapshot, plan};

fn replicas_job(count: u32) -> JobFacts {
    JobFacts {
        kind: Kind::Replicas { count },
        on_lost: OnLost::Replace,
        ..job(2)
    }
}

fn snapshot(count: u32, nodes: u8) -> Snapshot {
    Snapshot {
        job: replicas_job(count),
        nodes: (1..=nodes).map(|byte| node(byte, "a")).collect(),
        executions: Vec::new(),
    }
}

fn settle(snapshot: &mut Snapshot) -> Vec<Change> {
    let first = plan(snapshot);
    apply(snapshot, &first);
    assert_eq!(plan(snapshot), Plan::default(), "I7");
    first.changes
}

/// The nodes whose replicas count, by number.
fn placed(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes: Vec<u8> = snapshot
        .executions
        .iter()
        .filter(|it| it.desired == Desired::Run && !it.replaced)
        .map(|it| it.node.to_bytes()[0])
        .collect();
    bytes.sort_unstable();
    bytes
}

fn number(snapshot: &Snapshot, byte: u8) -> usize {
    snapshot
        .nodes
        .iter()
        .position(|node| node.id == id(byte))
        .expect("it is there")
}

fn at(snapshot: &mut Snapshot, byte: u8) -> &mut ExecutionFacts {
    snapshot
        .executions
        .iter_mut()
        .find(|it| it.node == id(byte))
        .expect("it is there")
}

fn lose(snapshot: &mut Snapshot, byte: u8, lost: bool) {
    let index = number(snapshot, byte);
    snapshot.nodes[index].lost = lost;
}

#[test]
fn replicas_take_distinct_nodes_with_the_fewest_executions() {
    let mut world = snapshot(2, 4);
    for (byte, executions) in [(1, 5), (2, 1), (3, 9), (4, 2)] {
        let index = number(&world, byte);
        world.nodes[index].executions = executions;
    }
    settle(&mut world);
    assert_eq!(placed(&world), [2, 4]);
}

#[test]
fn ties_are_broken_by_job_and_node_and_always_in_the_same_way() {
    let choose = |job_byte: u8| {
        let mut world = snapshot(3, 9);
        world.job.id = sluice_model::JobId::from_random([job_byte; 16]);
        settle(&mut world);
        placed(&world)
    };
    assert_eq!(choose(1), choose(1));
    let choices: std::collections::BTreeSet<Vec<u8>> = (1..20).map(choose).collect();
    assert!(
        choices.len() > 5,
        "jobs are spread over the nodes: {choices:?}"
    );
}

#[test]
fn nothing_moves_because_a_node_joined_and_what_is_missing_waits_for_it() {
    let mut world = snapshot(3, 2);
    settle(&mut world);
    assert_eq!(placed(&world), [1, 2], "never two on one node");
    world.nodes.push(node(3, "a"));
    assert_eq!(settle(&mut world).len(), 1);
    assert_eq!(placed(&world), [1, 2, 3]);
    world.nodes.push(node(4, "a"));
    assert_eq!(settle(&mut world), []);
}

#[test]
fn scaling_down_stops_what_does_not_run_and_then_the_newest() {
    let mut world = snapshot(4, 4);
    settle(&mut world);
    for (byte, running, created) in [(1, true, 40), (2, false, 10), (3, true, 20), (4, true, 30)] {
        let it = at(&mut world, byte);
        (it.seen_running, it.created_at) = (running, UnixMs(created));
    }
    world.job.kind = Kind::Replicas { count: 3 };
    settle(&mut world);
    assert_eq!(placed(&world), [1, 3, 4]);
    world.job.kind = Kind::Replicas { count: 2 };
    settle(&mut world);
    assert_eq!(placed(&world), [3, 4]);
    world.job.kind = Kind::Replicas { count: 4 };
    settle(&mut world);
    assert_eq!(placed(&world), [1, 2, 3, 4]);
    assert_eq!(at(&mut world, 1).attempt, Attempt(2), "it runs again anew");
}

#[test]
fn case_05_a_lost_node_is_treated_as_the_job_says() {
    for (on_lost, replaced) in [
        (OnLost::Wait, false),
        (OnLost::Fail, false),
        (OnLost::Replace, true),
    ] {
        let mut world = snapshot(1, 1);
        world.job.on_lost = on_lost;
        settle(&mut world);
        world.nodes.push(node(2, "a"));
        lose(&mut world, 1, true);
        settle(&mut world);
        assert_eq!(at(&mut world, 1).desired, Desired::Run, "its row stays");
        assert_eq!(at(&mut world, 1).replaced, replaced);
        assert_eq!(placed(&world), [if replaced { 2 } else { 1 }]);
    }
}

#[test]
fn case_05_without_another_node_the_place_stays_empty_and_is_its_own_again() {
    let mut world = snapshot(1, 1);
    settle(&mut world);
    lose(&mut world, 1, true);
    settle(&mut world);
    assert_eq!(placed(&world), Vec::<u8>::new());
    lose(&mut world, 1, false);
    assert_eq!(
        settle(&mut world),
        [Change::Adopt {
            execution: at(&mut world, 1).id
        }]
    );
}

#[test]
fn case_66_a_revoked_nodes_replica_goes_to_another_node() {
    let mut world = snapshot(1, 1);
    settle(&mut world);
    world.nodes.push(node(2, "a"));
    world.nodes[0].revoked = true;
    settle(&mut world);
    assert_eq!(placed(&world), [2]);
    world.job.kind = Kind::Replicas { count: 2 };
    settle(&mut world);
    assert_eq!(placed(&world), [2], "nothing new goes there");
}

#[test]
fn case_16_who_returns_is_adopted_until_its_replacement_runs() {
    for replacement_runs in [false, true] {
        let mut world = snapshot(1, 1);
        settle(&mut world);
        at(&mut world, 1).seen_running = true;
        world.nodes.push(node(2, "a"));
        lose(&mut world, 1, true);
        settle(&mut world);
        assert_eq!(placed(&world), [2]);
        at(&mut world, 2).seen_running = replacement_runs;
        lose(&mut world, 1, false);
        settle(&mut world);
        let (stays, goes) = if replacement_runs { (2, 1) } else { (1, 2) };
        assert_eq!(placed(&world), [stays]);
        assert_eq!(at(&mut world, goes).desired, Desired::Stop);
        assert_eq!(at(&mut world, stays).attempt, Attempt(1), "no restart");
    }
}

#[test]
fn case_16_who_returns_with_an_old_version_goes() {
    let mut world = snapshot(1, 2);
    world.executions.push(ExecutionFacts {
        seen_running: true,
        ..execution(1, 2, 1, Desired::Run)
    });
    lose(&mut world, 1, true);
    settle(&mut world);
    world.job.version = Version(3);
    settle(&mut world);
    assert_eq!(at(&mut world, 1).version, Version(2), "nobody hears of it");
    lose(&mut world, 1, false);
    settle(&mut world);
    assert_eq!(placed(&world), [2]);
}

#[test]
fn case_90_drained_and_cordoned_nodes() {
    let mut world = snapshot(2, 3);
    settle(&mut world);
    let first = placed(&world)[0];
    let index = number(&world, first);
    world.nodes[index].cordoned = true;
    assert_eq!(settle(&mut world), [], "a cordon leaves what runs");
    world.nodes[index].draining = true;
    settle(&mut world);
    assert_eq!(placed(&world).len(), 2);
    assert!(!placed(&world).contains(&first));
    // Nowhere to go: it waits, and comes back when it may.
    world.job.kind = Kind::Replicas { count: 3 };
    settle(&mut world);
    assert_eq!(placed(&world).len(), 2);
    world.nodes[index].draining = false;
    world.nodes[index].cordoned = false;
    settle(&mut world);
    assert_eq!(placed(&world), [1, 2, 3]);
}

#[test]
fn a_daemon_stays_off_cordoned_and_leaves_drained_nodes() {
    let mut world = Snapshot {
        job: job(2),
        nodes: vec![node(1, "a"), node(2, "a")],
        executions: vec![execution(1, 1, 1, Desired::Run)],
    };
    for node in &mut world.nodes {
        node.cordoned = true;
    }
    settle(&mut world);
    assert_eq!(placed(&world), [1]);
    assert_eq!(
        at(&mut world, 1).version,
        Version(2),
        "what runs is updated"
    );
    for node in &mut world.nodes {
        node.draining = true;
    }
    settle(&mut world);
    assert_eq!(placed(&world), Vec::<u8>::new());
}

#[test]
fn a_misfit_takes_nothing_new_and_keeps_what_no_other_node_can_take() {
    let mut world = snapshot(1, 2);
    world.nodes[0].lacks = Some("connector:input.file".to_owned());
    world.executions.push(ExecutionFacts {
        seen_running: true,
        ..execution(1, 2, 1, Desired::Run)
    });
    world.nodes[1].cordoned = true;
    assert_eq!(settle(&mut world), [], "better the old version than none");
    world.nodes[1].cordoned = false;
    settle(&mut world);
    assert_eq!(placed(&world), [2]);
}

#[test]
fn what_has_ended_keeps_its_place_wherever_its_node_is() {
    let mut world = snapshot(1, 2);
    world.executions.push(ExecutionFacts {
        ended: true,
        ..execution(1, 2, 1, Desired::Run)
    });
    lose(&mut world, 1, true);
    assert_eq!(settle(&mut world), []);
    world.nodes[0].draining = true;
    assert_eq!(settle(&mut world), [], "nothing is left to stop");
}

#[test]
fn a_held_node_whose_place_was_given_away_takes_none_from_the_others() {
    let mut world = snapshot(2, 3);
    for (node, replaced) in [(1, true), (2, false)] {
        world.executions.push(ExecutionFacts {
            replaced,
            ..execution(node, 2, 1, Desired::Run)
        });
    }
    world.nodes[0].held = true;
    settle(&mut world);
    assert_eq!(placed(&world), [2, 3]);
}

/// One node: does it match, and cordoned, draining, lost, held, misfit; and its execution.
type Drawn = ([bool; 6], Option<(u64, u64, usize, bool, bool, bool)>, u64);

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let row = (
        1u64..4,
        1u64..3,
        0usize..3,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    proptest::collection::vec(
        (any::<[bool; 6]>(), proptest::option::of(row), 0u64..4),
        0..9,
    )
}

proptest! {
    #[test]
    fn planning_twice_plans_nothing_and_never_places_more_than_asked(
        count in 1u32..6,
        on_lost in 0usize..3,
        (stopped, deleted) in (any::<bool>(), any::<bool>()),
        nodes in drawn(),
    ) {
        let on_lost = [OnLost::Wait, OnLost::Replace, OnLost::Fail][on_lost];
        let mut world = snapshot(count, 0);
        world.job.on_lost = on_lost;
        (world.job.stopped, world.job.deleted, world.job.version) = (stopped, deleted, Version(3));
        for (index, (flags, row, executions)) in nodes.into_iter().enumerate() {
            let byte = u8::try_from(index).expect("nine nodes") + 1;
            let [matches, cordoned, draining, lost, held, misfit] = flags;
            world.nodes.push(NodeFacts {
                held,
                cordoned,
                draining: draining && cordoned,
                lost,
                executions,
                lacks: misfit.then(|| "something".to_owned()),
                ..node(byte, if matches { "a" } else { "b" })
            });
            if let Some((version, attempt, desired, replaced, seen_running, ended)) = row {
                let desired = [Desired::Run, Desired::Stop, Desired::Purge][desired];
                world.executions.push(ExecutionFacts {
                    replaced: replaced && desired == Desired::Run,
                    seen_running,
                    ended,
                    created_at: UnixMs(i64::from(byte % 3)),
                    ..execution(byte, version, attempt, desired)
                });
            }
        }
        let before = world.clone();
        settle(&mut world);
        let free = |node: &&NodeFacts| {
            let untouched = !node.held && !node.cordoned && !node.draining && !node.lost;
            untouched && node.lacks.is_none() && mismatch(&world.job.select, node).is_none()
        };
        let fit = world.nodes.iter().filter(free).count();
        let runs = placed(&world).len();
        let held = before.executions.iter().filter(|it| {
            let node = before.nodes.iter().find(|node| node.id == it.node);
            it.desired == Desired::Run && node.is_some_and(|node| node.held)
        }).count();
        let count = usize::try_from(count).expect("small");
        if stopped || deleted {
            prop_assert!(runs <= held);
        } else {
            prop_assert!(runs <= count.max(held), "{runs} of {count}, {held} held: {world:?}");
            prop_assert!(runs >= count.min(fit), "{runs} of {count}, {fit} fit: {world:?}");
        }
        for old in &before.executions {
            let new = world.executions.iter().find(|row| row.id == old.id).expect("rows stay");
            prop_assert!((new.version, new.attempt) >= (old.version, old.attempt));
        }
    }
}
