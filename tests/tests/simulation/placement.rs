//! Where jobs go when nodes are lost, cordoned, drained and labelled.

use sluice_api::{NodeLabels, NodeOrder};
use sluice_host::core::{ApiCall, Reply};
use sluice_model::{Desired, ExecutionState, JobState, NodeState, OnLost, PendingReason, Version};
use sluice_tests::sim::{Content, Order, Placing, World, play};

const STEADY: Content = Content::Steady(0);
const NEXT: Content = Content::Steady(1);

/// More than it takes until a node is disconnected and then lost.
const LOST_WITHIN_MS: u64 = 700_000;

const FOUR: &[(&str, &str)] = &[("e1", "a"), ("e2", "a"), ("e3", "a"), ("e4", "a")];

fn replicas(world: &mut World, count: u32, on_lost: OnLost) -> Vec<usize> {
    world.deploy_placed("job", STEADY, "", Placing::Replicas(count, on_lost));
    let placed = world.placed("job");
    assert_eq!(placed.len(), usize::try_from(count).unwrap());
    for &edge in &placed {
        world.await_running(edge, "job", STEADY);
    }
    // The orchestrator hears of it, too.
    world.run_for(1_000);
    placed
}

fn lose(world: &mut World, edge: usize) {
    world.set_link(edge, false);
    world.await_state(edge, NodeState::Lost, LOST_WITHIN_MS);
}

fn label(set: &[(&str, &str)], remove: &[&str]) -> NodeOrder {
    NodeOrder::Label(NodeLabels {
        set: set
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        remove: remove.iter().map(|key| (*key).to_owned()).collect(),
    })
}

#[test]
fn case_05_a_lost_node_is_replaced_waited_for_or_a_failure() {
    for on_lost in [OnLost::Replace, OnLost::Wait, OnLost::Fail] {
        play(FOUR, |world| {
            let before = replicas(world, 2, on_lost);
            let gone = before[0];
            lose(world, gone);
            let job = world.job("job");
            let execution = world.execution("job", gone).unwrap();
            assert!(
                execution.reason.is_some() && execution.next_action.is_some(),
                "never silent: {execution:?}"
            );
            let now = world.placed("job");
            match on_lost {
                OnLost::Replace => {
                    assert_eq!(execution.state, ExecutionState::Lost);
                    assert!(!now.contains(&gone) && now.contains(&before[1]));
                    let new = *now.iter().find(|edge| !before.contains(edge)).unwrap();
                    world.await_running(new, "job", STEADY);
                    world.run_for(1_000);
                    let job = world.job("job");
                    assert_eq!((job.desired, job.running), (2, 2));
                }
                OnLost::Wait => {
                    assert_eq!(now, before);
                    assert_eq!(execution.state, ExecutionState::Lost);
                    assert_eq!((job.running, job.waiting), (1, 1));
                }
                OnLost::Fail => {
                    assert_eq!(now, before);
                    assert_eq!(execution.state, ExecutionState::Failed);
                    assert_eq!((job.running, job.failed), (1, 1));
                    assert_eq!(job.state, JobState::Degraded);
                }
            }
            world.bring_back(gone);
            world.settle();
            let job = world.job("job");
            assert_eq!((job.desired, job.running), (2, 2));
        });
    }
}

#[test]
fn case_05_lost_is_on_disk_and_a_new_orchestrator_loses_nobody_at_once() {
    play(FOUR, |world| {
        let before = replicas(world, 2, OnLost::Replace);
        lose(world, before[0]);
        let after = world.placed("job");
        world.crash_host("kill -9", 10);
        world.run_for(2_000);
        assert_eq!(world.node(before[0]).state, NodeState::Lost);
        assert_eq!(world.placed("job"), after, "and nothing is placed anew");
        for &edge in &after {
            assert_ne!(world.node(edge).state, NodeState::Lost);
        }
        world.bring_back(before[0]);
    });
}

#[test]
fn case_10_nodes_go_and_the_job_runs_on_the_rest() {
    let names: Vec<String> = (1..=10).map(|number| format!("e{number}")).collect();
    let edges: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "a")).collect();
    play(&edges, |world| {
        world.deploy("daemon", STEADY, "");
        for edge in 0..10 {
            world.await_running(edge, "daemon", STEADY);
        }
        for edge in 5..10 {
            world.order_node(edge, NodeOrder::Drain);
        }
        world.settle();
        let job = world.job("daemon");
        assert_eq!(
            (job.state, job.desired, job.running),
            (JobState::Running, 5, 5)
        );
        for edge in 0..5 {
            assert_eq!(world.starts(edge, "daemon"), 1, "nothing moved there");
        }
        for edge in 5..10 {
            assert_eq!(world.running(edge, "daemon"), None);
            assert_eq!(world.node(edge).executions, 0);
        }
    });
}

#[test]
fn case_16_the_replacement_runs_so_the_old_instance_is_stopped() {
    play(FOUR, |world| {
        let before = replicas(world, 1, OnLost::Replace);
        let old = before[0];
        lose(world, old);
        let new = world.placed("job")[0];
        world.await_running(new, "job", STEADY);
        world.run_for(10_000);
        assert_eq!(world.running(old, "job"), Some(STEADY), "nobody told it");
        assert_eq!(world.job("job").running, 1, "and it is not counted");
        world.bring_back(old);
        world.settle();
        assert_eq!(world.placed("job"), [new]);
        assert_eq!(world.running(old, "job"), None);
        assert_eq!(world.starts(new, "job"), 1);
    });
}

#[test]
fn case_16_the_replacement_does_not_run_yet_so_the_old_instance_is_adopted() {
    // The two others are away when the first is lost: what is placed there waits.
    play(&[("e1", "a"), ("e2", "a")], |world| {
        world.order_node(1, NodeOrder::Cordon);
        let before = replicas(world, 1, OnLost::Replace);
        assert_eq!(before, [0]);
        world.order_node(1, NodeOrder::Uncordon);
        world.set_link(0, false);
        world.run_for(500_000);
        world.set_link(1, false);
        world.await_state(0, NodeState::Lost, LOST_WITHIN_MS);
        assert_eq!(world.placed("job"), [1]);
        assert_eq!(world.job("job").running, 0);
        world.bring_back(0);
        world.run_for(5_000);
        assert_eq!(world.placed("job"), [0]);
        assert_eq!(world.starts(0, "job"), 1, "adopted, not restarted");
        world.bring_back(1);
        world.settle();
        assert_eq!(world.starts(1, "job"), 0, "it never started");
    });
}

#[test]
fn replicas_without_a_node_wait_for_one_and_scale_with_their_versions() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        world.deploy_placed("job", STEADY, "", Placing::Replicas(3, OnLost::Replace));
        world.settle();
        let job = world.job("job");
        assert_eq!((job.desired, job.running, job.waiting), (3, 2, 1));
        let explained = match world.ask(ApiCall::Explain("job".parse().unwrap())) {
            Ok(Reply::Explain(explained)) => explained.unplaced.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (explained.count, explained.reason_code.as_str()),
            (1, "no-node")
        );
        assert_eq!(
            explained.reason,
            "of 2 nodes: 2 taken by its other replicas"
        );
        world.add_edge("e3", &[("site", "a")]);
        world.await_running(2, "job", STEADY);
        world.add_edge("e4", &[("site", "a")]);
        world.settle();
        assert_eq!(world.placed("job"), [0, 1, 2], "nothing moves for a node");
        world.deploy_placed("job", STEADY, "", Placing::Replicas(1, OnLost::Replace));
        world.settle();
        assert_eq!(world.placed("job").len(), 1);
    });
}

#[test]
fn case_89_an_operators_label_moves_a_node_out_and_back_and_outlives_its_restart() {
    play(&[("e1", "a"), ("e2", "b")], |world| {
        world.deploy("job", STEADY, "site = \"a\"");
        world.await_running(0, "job", STEADY);
        world.order_node(1, label(&[("site", "a")], &[]));
        world.await_running(1, "job", STEADY);
        world.crash_edge(1, "kill -9", Some(1_000));
        world.await_connected(1);
        world.await_running(1, "job", STEADY);
        assert_eq!(world.node(1).labels["site"], "a", "whatever it says itself");
        world.order_node(0, label(&[], &["site"]));
        world.settle();
        assert_eq!(world.running(0, "job"), None);
        assert!(world.node(0).labels.is_empty());
        world.order_node(0, label(&[("site", "a")], &[]));
        world.await_running(0, "job", STEADY);
        // What the edge does not say leaves no trace when it is taken away.
        world.order_node(0, label(&[("line", "3")], &[]));
        world.order_node(0, label(&[], &["line"]));
        assert_eq!(world.node(0).labels.len(), 1);
    });
}

#[test]
fn case_90_drained_while_away_it_waits_visibly_and_stops_on_return() {
    play(FOUR, |world| {
        let placed = replicas(world, 2, OnLost::Wait);
        let away = placed[0];
        world.send_away(away);
        world.order_node(away, NodeOrder::Drain);
        let node = world.node(away);
        assert!(node.cordoned && node.draining);
        let stopping = world.execution("job", away).unwrap();
        assert_eq!(stopping.desired, Desired::Stop);
        assert_ne!(
            stopping.state,
            ExecutionState::Stopped,
            "it is not known to"
        );
        assert!(
            stopping.reason.is_some() && stopping.next_action.is_some(),
            "{stopping:?}"
        );
        let now = world.placed("job");
        assert_eq!(now.len(), 2, "its place went to another node");
        for edge in now {
            world.await_running(edge, "job", STEADY);
        }
        assert_eq!(world.running(away, "job"), Some(STEADY));
        world.bring_back(away);
        world.settle();
        assert_eq!(world.running(away, "job"), None);
        let explained = match world.ask(ApiCall::Explain("job".parse().unwrap())) {
            Ok(Reply::Explain(explained)) => explained,
            other => panic!("{other:?}"),
        };
        let name = world.edges[away].name.clone();
        let line = explained.nodes.iter().find(|it| it.node == name).unwrap();
        assert!(line.why.contains("drained"), "{}", line.why);
    });
}

#[test]
fn case_90_drained_while_an_update_is_on_its_way() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        world.deploy("job", STEADY, "");
        world.await_running(0, "job", STEADY);
        world.deploy("job", NEXT, "");
        world.order_node(0, NodeOrder::Drain);
        world.settle();
        assert_eq!(world.running(0, "job"), None);
        assert_eq!(world.running(1, "job"), Some(NEXT));
        world.order_node(0, NodeOrder::Uncordon);
        world.await_running(0, "job", NEXT);
    });
}

#[test]
fn a_cordoned_node_keeps_and_updates_what_it_has_and_takes_nothing_new() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        world.deploy("old", STEADY, "");
        world.await_running(0, "old", STEADY);
        world.order_node(0, NodeOrder::Cordon);
        world.deploy("new", STEADY, "");
        world.deploy("old", NEXT, "");
        world.await_running(1, "new", STEADY);
        world.await_running(0, "old", NEXT);
        world.settle();
        assert_eq!(world.execution("new", 0), None);
        world.order_node(0, NodeOrder::Uncordon);
        world.await_running(0, "new", STEADY);
    });
}

#[test]
fn a_restart_is_the_next_attempt_everywhere_at_once() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        world.deploy("job", STEADY, "");
        for edge in 0..2 {
            world.await_running(edge, "job", STEADY);
        }
        world.send_away(1);
        world.give("job", Order::Restart);
        world.run_until("it starts again", 60_000, |world| {
            world.starts(0, "job") == 2
        });
        assert_eq!(world.starts(1, "job"), 1, "it is away, and blocks nobody");
        world.bring_back(1);
        world.settle();
        assert_eq!(world.starts(1, "job"), 2);
        assert_eq!(world.execution("job", 0).unwrap().attempt.0, 2);
        // One that has failed for good runs once more.
        world.deploy("job", Content::Fails(0), "");
        world.settle();
        assert_eq!(world.job("job").state, JobState::Failed);
        world.give("job", Order::Restart);
        world.settle();
        let id = world.execution("job", 0).unwrap().id;
        assert!(world.outcome(id, Version(2), 2).is_some());
    });
}

#[test]
fn a_rollback_is_a_new_version_with_old_content() {
    play(&[("e1", "a")], |world| {
        world.deploy("job", STEADY, "");
        world.deploy("job", NEXT, "");
        world.await_running(0, "job", NEXT);
        let back = |world: &mut World, to| {
            let call = ApiCall::Rollback("job".parse().unwrap(), to);
            world.ask(call)
        };
        for (to, version, content) in [
            (None, 3, STEADY),
            (Some(Version(2)), 4, NEXT),
            (Some(Version(1)), 5, STEADY),
        ] {
            match back(world, to) {
                Ok(Reply::Deploy(reply)) => assert_eq!(reply.version, Version(version)),
                other => panic!("{other:?}"),
            }
            world.await_running(0, "job", content);
        }
        let none = back(world, None);
        assert!(
            none.is_err(),
            "what was given up is not met by chance: {none:?}"
        );
        match back(world, Some(Version(3))) {
            Ok(Reply::Deploy(reply)) => {
                assert_eq!(reply.outcome.as_str(), "unchanged");
                assert_eq!(reply.version, Version(5));
            }
            other => panic!("{other:?}"),
        }
        assert!(back(world, Some(Version(9))).is_err());
        let history = match world.ask(ApiCall::History("job".parse().unwrap())) {
            Ok(Reply::History(history)) => history,
            other => panic!("{other:?}"),
        };
        let versions: Vec<u64> = history.iter().map(|it| it.version.0).collect();
        assert_eq!(versions, [5, 4, 3, 2, 1]);
        assert!(history[0].current && history[0].rolled_back_to == Some(Version(1)));
        assert_eq!(history[0].spec_digest, history[4].spec_digest);
        // The operators of the simulator know nothing of rollbacks.
        world.give("job", Order::Delete);
    });
}

#[test]
fn case_75_a_node_that_lacks_a_connector_is_refused_by_name_and_the_others_run() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        let able = |connectors: &[&str]| {
            let connectors = connectors.iter().map(|it| format!("connector:{it}"));
            connectors
                .chain(["world:transform@0.1".to_owned()])
                .collect::<Vec<_>>()
        };
        let all = able(&["input.generate", "output.discard"]);
        world.edges[0].capabilities = able(&["output.discard"]);
        world.edges[1].capabilities = all.clone();
        for edge in 0..2 {
            world.crash_edge(edge, "another program", Some(1_000));
            world.run_for(2_000);
            world.await_connected(edge);
        }
        world.deploy_placed("pair", STEADY, "", Placing::Replicas(2, OnLost::Replace));
        world.await_running(1, "pair", STEADY);
        world.run_for(1_000);
        assert_eq!(world.placed("pair"), [1]);
        assert_eq!(world.job("pair").waiting, 1);
        world.send_away(0);
        world.deploy("daemon", STEADY, "");
        world.await_running(1, "daemon", STEADY);
        let refused = world.execution("daemon", 0).unwrap();
        assert_eq!(refused.reason_code, Some(PendingReason::Refused.into()));
        assert_eq!(
            refused.reason.as_deref(),
            Some("e1 lacks connector:input.generate")
        );
        // A newer program has it.
        world.edges[0].capabilities = all;
        world.crash_edge(0, "an upgrade", None);
        world.bring_back(0);
        world.await_running(0, "daemon", STEADY);
        world.await_running(0, "pair", STEADY);
    });
}
