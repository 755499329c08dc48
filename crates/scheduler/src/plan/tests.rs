//! Snapshots and the plans that come of them, and that a plan carried out leaves nothing to plan.

use proptest::prelude::*;

use super::*;

pub(crate) fn id(byte: u8) -> NodeId {
    NodeId::from_random([byte; 16])
}

pub(crate) fn execution_id(node: u8) -> ExecutionId {
    ExecutionId::from_random([node; 16])
}

pub(crate) fn node(byte: u8, site: &str) -> NodeFacts {
    NodeFacts {
        id: id(byte),
        name: format!("e{byte}").parse().expect("a name"),
        labels: [("site".to_owned(), site.to_owned())].into(),
        held: false,
        cordoned: false,
        draining: false,
        lost: false,
        revoked: false,
        executions: 0,
        lacks: None,
    }
}

pub(crate) fn job(version: u64) -> JobFacts {
    JobFacts {
        id: JobId::from_random([9; 16]),
        version: Version(version),
        stopped: false,
        deleted: false,
        kind: Kind::Daemon,
        on_lost: OnLost::Wait,
        select: Select([("site".to_owned(), vec!["a".to_owned()])].into()),
        turn: None,
    }
}

pub(crate) fn execution(byte: u8, version: u64, attempt: u64, desired: Desired) -> ExecutionFacts {
    ExecutionFacts {
        id: execution_id(byte),
        node: id(byte),
        slot: Slot::ZERO,
        version: Version(version),
        attempt: Attempt(attempt),
        desired,
        replaced: false,
        seen_running: false,
        ended: false,
        created_at: UnixMs(0),
    }
}

pub(crate) fn apply(snapshot: &mut Snapshot, plan: &Plan) {
    for change in &plan.changes {
        match change {
            Change::Create {
                node,
                slot,
                version,
            } => snapshot.executions.push(ExecutionFacts {
                id: ExecutionId::from_random(node.to_bytes()),
                node: *node,
                slot: *slot,
                version: *version,
                attempt: Attempt(1),
                desired: Desired::Run,
                replaced: false,
                seen_running: false,
                ended: false,
                created_at: UnixMs(1),
            }),
            Change::Update {
                execution,
                version,
                attempt,
                desired,
            } => {
                let row = snapshot
                    .executions
                    .iter_mut()
                    .find(|row| row.id == *execution)
                    .expect("a plan names what is there");
                (row.version, row.attempt, row.desired) = (*version, *attempt, *desired);
                row.replaced = false;
            }
            Change::Replace { execution } | Change::Adopt { execution } => {
                let row = snapshot
                    .executions
                    .iter_mut()
                    .find(|row| row.id == *execution)
                    .expect("a plan names what is there");
                row.replaced = matches!(change, Change::Replace { .. });
            }
        }
    }
}

#[test]
fn the_table_of_the_module() {
    let updated = |version, attempt, desired| {
        vec![Change::Update {
            execution: execution_id(1),
            version: Version(version),
            attempt: Attempt(attempt),
            desired,
        }]
    };
    let stopped = JobFacts {
        stopped: true,
        ..job(2)
    };
    let deleted = JobFacts {
        deleted: true,
        ..job(2)
    };
    use Desired::{Purge, Run, Stop};
    for (job, site, now, expected) in [
        (
            job(2),
            "a",
            None,
            vec![Change::Create {
                node: id(1),
                slot: Slot::ZERO,
                version: Version(2),
            }],
        ),
        (job(2), "b", None, vec![]),
        (job(2), "a", Some(execution(1, 2, 1, Run)), vec![]),
        (
            job(2),
            "a",
            Some(execution(1, 1, 4, Run)),
            updated(2, 1, Run),
        ),
        (
            job(2),
            "a",
            Some(execution(1, 2, 4, Stop)),
            updated(2, 5, Run),
        ),
        (
            job(2),
            "a",
            Some(execution(1, 1, 4, Stop)),
            updated(2, 1, Run),
        ),
        (
            job(2),
            "b",
            Some(execution(1, 2, 1, Run)),
            updated(2, 1, Stop),
        ),
        (job(2), "b", Some(execution(1, 1, 1, Stop)), vec![]),
        (
            stopped.clone(),
            "a",
            Some(execution(1, 2, 3, Run)),
            updated(2, 3, Stop),
        ),
        (stopped.clone(), "a", Some(execution(1, 2, 3, Stop)), vec![]),
        (stopped, "a", None, vec![]),
        (
            deleted.clone(),
            "a",
            Some(execution(1, 2, 3, Run)),
            updated(2, 3, Purge),
        ),
        (
            deleted.clone(),
            "b",
            Some(execution(1, 2, 3, Stop)),
            updated(2, 3, Purge),
        ),
        (
            deleted.clone(),
            "b",
            Some(execution(1, 2, 3, Purge)),
            vec![],
        ),
        (deleted, "a", None, vec![]),
    ] {
        let snapshot = Snapshot {
            job,
            nodes: vec![node(1, site)],
            executions: now.into_iter().collect(),
        };
        assert_eq!(plan(&snapshot).changes, expected, "{snapshot:?}");
    }
}

#[test]
fn a_rollout_says_who_gets_what() {
    use Desired::{Run, Stop};
    let created = |version| {
        vec![Change::Create {
            node: id(1),
            slot: Slot::ZERO,
            version: Version(version),
        }]
    };
    let updated = |version, attempt| {
        vec![Change::Update {
            execution: execution_id(1),
            version: Version(version),
            attempt: Attempt(attempt),
            desired: Run,
        }]
    };
    let turn = |admitted: bool, stays: bool, otherwise: Option<u64>| {
        Some(Turn {
            admitted: admitted.then_some(id(1)).into_iter().collect(),
            stays: stays.then_some(execution_id(1)).into_iter().collect(),
            otherwise: otherwise.map(Version),
            otherwise_shape: None,
        })
    };
    for (turn, now, expected) in [
        // It joins: the good version, or nothing where there is none, or its turn.
        (turn(false, false, Some(2)), None, created(2)),
        (turn(false, false, None), None, vec![]),
        (turn(true, false, Some(2)), None, created(3)),
        // It runs: on, until its turn.
        (
            turn(false, true, Some(2)),
            Some(execution(1, 2, 1, Run)),
            vec![],
        ),
        (
            turn(true, true, Some(2)),
            Some(execution(1, 2, 1, Run)),
            updated(3, 1),
        ),
        // It is back among the nodes that match.
        (
            turn(false, false, Some(2)),
            Some(execution(1, 1, 1, Stop)),
            updated(2, 1),
        ),
        (
            turn(false, false, Some(2)),
            Some(execution(1, 2, 1, Stop)),
            updated(2, 2),
        ),
        (
            turn(false, false, Some(2)),
            Some(execution(1, 3, 1, Stop)),
            vec![],
        ),
        (
            turn(true, false, Some(2)),
            Some(execution(1, 3, 1, Stop)),
            updated(3, 2),
        ),
        // The old content is back as the job's version.
        (
            turn(false, true, Some(3)),
            Some(execution(1, 1, 1, Run)),
            vec![],
        ),
        (
            turn(false, false, Some(3)),
            Some(execution(1, 2, 1, Run)),
            updated(3, 1),
        ),
    ] {
        let snapshot = Snapshot {
            job: JobFacts { turn, ..job(3) },
            nodes: vec![node(1, "a")],
            executions: now.into_iter().collect(),
        };
        assert_eq!(plan(&snapshot).changes, expected, "{snapshot:?}");
    }
}

#[test]
fn until_a_version_is_good_it_takes_no_node_away_and_brings_none() {
    let good = Shape {
        kind: Kind::Daemon,
        on_lost: OnLost::Wait,
        select: Select([("site".to_owned(), vec!["b".to_owned()])].into()),
    };
    let job = |turn| JobFacts { turn, ..job(3) };
    let turn = Turn {
        stays: [execution_id(1)].into(),
        otherwise: Some(Version(2)),
        otherwise_shape: Some(good),
        ..Turn::default()
    };
    let planned = |job: JobFacts, node: NodeFacts, executions: Vec<ExecutionFacts>| {
        let snapshot = Snapshot {
            job,
            nodes: vec![node],
            executions,
        };
        plan(&snapshot).changes
    };
    // Version 2 wants site b, version 3 site a.
    let running = || vec![execution(1, 2, 1, Desired::Run)];
    let stop = vec![Change::Update {
        execution: execution_id(1),
        version: Version(2),
        attempt: Attempt(1),
        desired: Desired::Stop,
    }];
    let open = || job(Some(turn.clone()));
    assert_eq!(planned(open(), node(1, "b"), running()), vec![]);
    assert_eq!(planned(open(), node(1, "a"), vec![]), vec![]);
    assert_eq!(planned(job(None), node(1, "b"), running()), stop);
    // Neither wants site c; and what an operator orders holds.
    assert_eq!(planned(open(), node(1, "c"), running()), stop);
    let stopped = JobFacts {
        stopped: true,
        ..open()
    };
    assert_eq!(planned(stopped, node(1, "b"), running()), stop);
    let draining = NodeFacts {
        draining: true,
        ..node(1, "b")
    };
    assert_eq!(planned(open(), draining, running()), stop);
}

/// Nodes 1, 2, ... that run version 1, and version 2 with nobody's turn yet.
fn before_its_turn(nodes: u8, good: Kind, new: Kind) -> Snapshot {
    let turn = Turn {
        stays: (1..=nodes).map(execution_id).collect(),
        otherwise: Some(Version(1)),
        otherwise_shape: Some(Shape {
            kind: good,
            on_lost: OnLost::Replace,
            select: job(1).select,
        }),
        ..Turn::default()
    };
    Snapshot {
        job: JobFacts {
            kind: new,
            on_lost: OnLost::Replace,
            turn: Some(turn),
            ..job(2)
        },
        nodes: (1..=nodes).map(|byte| node(byte, "a")).collect(),
        executions: (1..=nodes)
            .map(|byte| ExecutionFacts {
                seen_running: true,
                ..execution(byte, 1, 1, Desired::Run)
            })
            .collect(),
    }
}

#[test]
fn fewer_replicas_or_another_kind_stop_nothing_until_the_version_is_good() {
    let two = Kind::Replicas { count: 2 };
    for (good, new) in [
        (Kind::Replicas { count: 3 }, two),
        (Kind::Daemon, two),
        (Kind::Replicas { count: 3 }, Kind::Daemon),
    ] {
        let mut snapshot = before_its_turn(3, good, new);
        assert_eq!(plan(&snapshot), Plan::default(), "{good:?} -> {new:?}");
        // The first two have their turn, then it is the good one.
        let turn = snapshot.job.turn.as_mut().expect("it is open");
        turn.admitted = [id(1), id(2)].into();
        let changes = plan(&snapshot);
        apply(&mut snapshot, &changes);
        let runs = |it: &&ExecutionFacts| it.desired == Desired::Run;
        assert_eq!(snapshot.executions.iter().filter(runs).count(), 3);
        // They do not run yet, the old ones do: nobody's place goes to those, and nobody else is admitted.
        for it in snapshot.executions.iter_mut().take(2) {
            it.seen_running = false;
        }
        let turn = snapshot.job.turn.as_mut().expect("it is open");
        turn.admitted.clear();
        assert_eq!(plan(&snapshot), Plan::default(), "{good:?} -> {new:?}");
        let concerned = concerned_nodes(&snapshot);
        assert!(concerned.contains_key(&id(1)) && concerned.contains_key(&id(2)));
        snapshot.job.turn = None;
        let changes = plan(&snapshot);
        apply(&mut snapshot, &changes);
        let at_new = |it: &ExecutionFacts| it.version == Version(2);
        let left: Vec<&ExecutionFacts> = snapshot.executions.iter().filter(runs).collect();
        assert!(left.iter().all(|it| at_new(it)), "{left:?}");
        assert_eq!(left.len(), if new == two { 2 } else { 3 });
    }
}

#[test]
fn what_only_the_good_version_wants_is_started_while_the_new_one_is_tried() {
    // Version 1 wants site b, version 2 site a.
    let world = |good: Kind, new: Kind, node: NodeFacts| {
        let mut world = before_its_turn(0, good, new);
        let turn = world.job.turn.as_mut().expect("it is open");
        let shape = turn.otherwise_shape.as_mut().expect("there is a good one");
        shape.select = Select([("site".to_owned(), vec!["b".to_owned()])].into());
        world.nodes.push(node);
        world
    };
    let created = Change::Create {
        node: id(1),
        slot: Slot::ZERO,
        version: Version(1),
    };
    let one = Kind::Replicas { count: 1 };
    for (good, new) in [
        (Kind::Daemon, Kind::Daemon),
        (one, one),
        (Kind::Daemon, one),
    ] {
        let mut joined = world(good, new, node(1, "b"));
        let changes = plan(&joined);
        assert_eq!(
            changes.changes,
            std::slice::from_ref(&created),
            "{good:?} -> {new:?}"
        );
        apply(&mut joined, &changes);
        let turn = joined.job.turn.as_mut().expect("it is open");
        turn.stays = joined.executions.iter().map(|it| it.id).collect();
        assert_eq!(plan(&joined), Plan::default(), "{good:?} -> {new:?}");

        // It was moved out of what both want and is back.
        let mut back = world(good, new, node(1, "b"));
        back.executions.push(execution(1, 1, 1, Desired::Stop));
        let again = Change::Update {
            execution: execution_id(1),
            version: Version(1),
            attempt: Attempt(2),
            desired: Desired::Run,
        };
        assert_eq!(plan(&back).changes, [again], "{good:?} -> {new:?}");
        // What was stopped at the new version is not taken back to the old one.
        back.executions[0].version = Version(2);
        assert_eq!(plan(&back), Plan::default(), "{good:?} -> {new:?}");

        let cordoned = NodeFacts {
            cordoned: true,
            ..node(1, "b")
        };
        assert_eq!(plan(&world(good, new, cordoned)), Plan::default());
        assert_eq!(plan(&world(good, new, node(1, "c"))), Plan::default());
        let mut stopped = world(good, new, node(1, "b"));
        stopped.job.stopped = true;
        assert_eq!(plan(&stopped), Plan::default());
    }
    // Every node was wanted; the new version wants one, which is taken.
    let mut fewer = before_its_turn(1, Kind::Daemon, one);
    fewer.nodes.push(node(2, "a"));
    let at_node_2 = Change::Create {
        node: id(2),
        slot: Slot::ZERO,
        version: Version(1),
    };
    assert_eq!(plan(&fewer).changes, [at_node_2]);
    // What the node lacks, it lacks for the new version.
    fewer.nodes[1].lacks = Some("a stage".to_owned());
    assert_eq!(plan(&fewer).changes.len(), 1);
}

#[test]
fn more_replicas_or_every_node_start_only_when_it_is_their_turn() {
    for new in [Kind::Replicas { count: 2 }, Kind::Daemon] {
        let mut snapshot = before_its_turn(2, Kind::Replicas { count: 1 }, new);
        snapshot.executions.truncate(1);
        assert_eq!(plan(&snapshot), Plan::default(), "{new:?}");
        let turn = snapshot.job.turn.as_mut().expect("it is open");
        turn.admitted = [id(2)].into();
        let created = Change::Create {
            node: id(2),
            slot: Slot::ZERO,
            version: Version(2),
        };
        assert_eq!(plan(&snapshot).changes, [created]);
    }
}

#[test]
fn a_version_that_a_node_is_unfit_for_does_not_take_the_good_one_away() {
    let one = Kind::Replicas { count: 1 };
    let mut snapshot = before_its_turn(2, one, one);
    snapshot.executions.truncate(1);
    snapshot.nodes[0].lacks = Some("a stage".to_owned());
    assert_eq!(plan(&snapshot), Plan::default());
    assert_eq!(
        concerned_nodes(&snapshot),
        [(id(2), Concern::Wanted)].into()
    );
}

#[test]
fn a_lost_node_that_has_the_new_version_concerns_its_rollout() {
    let two = Kind::Replicas { count: 2 };
    let mut snapshot = before_its_turn(4, two, two);
    snapshot.executions.truncate(2);
    snapshot.executions[0].version = Version(2);
    for node in [0, 1] {
        snapshot.nodes[node].lost = true;
    }
    let changes = plan(&snapshot);
    apply(&mut snapshot, &changes);
    let given_away = (id(1), Concern::GivenAway);
    let wanted = [3, 4].map(|byte| (id(byte), Concern::Wanted));
    let all: BTreeMap<NodeId, Concern> = wanted.into_iter().chain([given_away]).collect();
    assert_eq!(concerned_nodes(&snapshot), all);
    // That an operator shut it out is no fault of the version.
    snapshot.nodes[0].revoked = true;
    assert_eq!(concerned_nodes(&snapshot), wanted.into());
}

#[test]
fn a_held_node_is_left_as_it_is() {
    for job in [
        job(2),
        JobFacts {
            stopped: true,
            ..job(2)
        },
        JobFacts {
            deleted: true,
            ..job(2)
        },
    ] {
        let held = NodeFacts {
            held: true,
            ..node(1, "a")
        };
        for executions in [vec![], vec![execution(1, 1, 1, Desired::Run)]] {
            let snapshot = Snapshot {
                job: job.clone(),
                nodes: vec![held.clone()],
                executions,
            };
            assert_eq!(plan(&snapshot), Plan::default());
        }
    }
}

proptest! {
    #[test]
    fn planning_twice_plans_nothing(
        version in 1u64..4,
        stopped: bool,
        deleted: bool,
        nodes in proptest::collection::vec((any::<bool>(), any::<bool>(), proptest::option::of((1u64..4, 1u64..3, 0usize..3))), 0..8),
    ) {
        let mut snapshot = Snapshot { job: JobFacts { stopped, deleted, ..job(version) }, nodes: vec![], executions: vec![] };
        for (index, (matches, held, row)) in nodes.into_iter().enumerate() {
            let byte = u8::try_from(index).expect("eight nodes") + 1;
            snapshot.nodes.push(NodeFacts { held, ..node(byte, if matches { "a" } else { "b" }) });
            if let Some((row_version, attempt, desired)) = row {
                let desired = [Desired::Run, Desired::Stop, Desired::Purge][desired];
                snapshot.executions.push(execution(byte, row_version.min(version), attempt, desired));
            }
        }
        let before = snapshot.executions.clone();
        let first = plan(&snapshot);
        apply(&mut snapshot, &first);
        prop_assert_eq!(plan(&snapshot), Plan::default());
        for old in before {
            let new = snapshot.executions.iter().find(|row| row.id == old.id).expect("rows stay");
            prop_assert!((new.version, new.attempt) >= (old.version, old.attempt));
        }
    }
}
