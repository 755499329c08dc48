//! The reported failures: work deployed around nodes that are away.

use sluice_model::{ExecutionState, JobState, NodeState, PendingReason, Version};
use sluice_tests::sim::{Content, Order, Placing, World, play};

const STEADY: Content = Content::Steady(0);

fn waits_for_its_node(world: &mut World, job: &str, edge: usize) {
    let execution = world.execution(job, edge).unwrap();
    assert_eq!(execution.state, ExecutionState::Pending);
    assert_eq!(
        execution.reason_code,
        Some(PendingReason::WaitingForNode.into())
    );
    assert!(
        execution
            .next_action
            .is_some_and(|it| it.contains("connects"))
    );
}

fn await_job(world: &mut World, job: &str, state: JobState) {
    let end = world.now_ms() + 60_000;
    while world.job(job).state != state {
        assert!(
            world.now_ms() < end,
            "{job} never becomes {state}: {:?}",
            world.job(job)
        );
        world.run_for(100);
    }
}

#[test]
fn case_01_14_a_node_joins_while_a_daemon_job_runs() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        world.deploy("daemon", STEADY, "");
        world.await_running(0, "daemon", STEADY);
        world.await_running(1, "daemon", STEADY);
        let joins_at = world.now_ms();
        let third = world.add_edge("e3", &[]);
        world.await_running(third, "daemon", STEADY);
        assert!(world.now_ms() - joins_at < 5_000, "it took too long");
        await_job(world, "daemon", JobState::Running);
        assert_eq!(world.job("daemon").running, 3);
        assert_eq!(
            world.starts(0, "daemon"),
            1,
            "nothing moves because a node joined"
        );
    });
}

#[test]
fn case_02_11_pending_work_is_sent_when_its_node_returns() {
    play(&[("e1", "a")], |world| {
        world.send_away(0);
        let sent = world.rows_sent(0);
        world.deploy("late", STEADY, "");
        world.run_for(30_000);
        assert_eq!(world.rows_sent(0), sent, "there was nobody to send to");
        waits_for_its_node(world, "late", 0);
        world.bring_back(0);
        world.await_running(0, "late", STEADY);
        await_job(world, "late", JobState::Running);
        assert!(world.rows_sent(0) > sent);
    });
}

#[test]
fn case_03_a_reconnect_restarts_nothing_and_sends_nothing_again() {
    play(&[("e1", "a")], |world| {
        world.deploy("steady", STEADY, "");
        world.await_running(0, "steady", STEADY);
        world.settle();
        let sent = world.rows_sent(0);
        let before = world.connection(0).unwrap();
        world.send_away(0);
        world.bring_back(0);
        assert_ne!(
            world.connection(0),
            Some(before),
            "it is another connection"
        );
        world.run_for(60_000);
        assert_eq!(world.rows_sent(0), sent);
        assert_eq!(world.starts(0, "steady"), 1);
    });
}

#[test]
fn case_04_64_work_runs_on_whatever_the_link_does() {
    play(&[("e1", "a")], |world| {
        world.deploy("steady", STEADY, "");
        world.await_running(0, "steady", STEADY);
        world.settle();
        let (cuts, sent) = (world.checks.faults.cuts, world.rows_sent(0));
        // Every five seconds for an hour.
        for _ in 0..720 {
            if let Some(id) = world.connection(0) {
                world.cut(id);
            }
            world.run_for(5_000);
            assert_eq!(world.running(0, "steady"), Some(STEADY));
        }
        assert!(
            world.checks.faults.cuts > cuts + 500,
            "it was cut all the time"
        );
        assert_eq!(world.starts(0, "steady"), 1);
        assert_eq!(world.rows_sent(0), sent);
    });
}

#[test]
fn case_07_13_some_nodes_are_away_at_a_deploy() {
    play(&[("e1", "a"), ("e2", "a"), ("e3", "a")], |world| {
        world.send_away(1);
        world.send_away(2);
        world.deploy("half", STEADY, "");
        world.await_running(0, "half", STEADY);
        await_job(world, "half", JobState::Running);
        for edge in [1, 2] {
            waits_for_its_node(world, "half", edge);
        }
        for edge in [1, 2] {
            world.bring_back(edge);
            world.await_running(edge, "half", STEADY);
        }
        await_job(world, "half", JobState::Running);
        assert_eq!(world.job("half").running, 3);
    });
}

#[test]
fn case_08_no_node_matches_until_one_does() {
    play(&[("e1", "a")], |world| {
        world.deploy("picky", STEADY, "site = \"b\"");
        world.settle();
        assert_eq!(world.job("picky").state, JobState::Queued);
        let match_at = world.add_edge("e2", &[("site", "b")]);
        world.await_running(match_at, "picky", STEADY);
        await_job(world, "picky", JobState::Running);
        assert_eq!(world.running(0, "picky"), None);
    });
}

#[test]
fn case_09_12_five_nodes_more() {
    let names: Vec<String> = (0..15).map(|n| format!("e{n}")).collect();
    let first: Vec<(&str, &str)> = names[..10]
        .iter()
        .map(|name| (name.as_str(), "a"))
        .collect();
    play(&first, |world| {
        world.deploy("daemon", STEADY, "");
        for edge in 0..10 {
            world.await_running(edge, "daemon", STEADY);
        }
        for name in &names[10..] {
            world.add_edge(name, &[("site", "a")]);
        }
        for edge in 0..15 {
            world.await_running(edge, "daemon", STEADY);
        }
        await_job(world, "daemon", JobState::Running);
        assert_eq!(world.job("daemon").running, 15);
    });
}

#[test]
fn case_15_back_before_it_counts_as_disconnected() {
    play(&[("e1", "a")], |world| {
        world.deploy("steady", STEADY, "");
        world.await_running(0, "steady", STEADY);
        world.settle();
        let sent = world.rows_sent(0);
        let old = world.connection(0).unwrap();
        // The orchestrator would notice in 25 s; the edge is back at once.
        world.cut_noticed(old, 10, 25_000);
        world.run_for(100);
        assert_eq!(world.node(0).state, NodeState::Connected);
        world.await_connected(0);
        assert_ne!(world.connection(0), Some(old));
        world.run_for(60_000);
        assert_eq!(world.rows_sent(0), sent);
        assert_eq!(world.starts(0, "steady"), 1);
    });
}

#[test]
fn case_17_18_a_dead_node_counts_as_connected_and_three_jobs_come() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        let old = world.connection(0).unwrap();
        world.cut_noticed(old, 10, 30_000);
        world.set_link(0, false);
        world.crash_edge(0, "power cut", None);
        world.deploy("one", STEADY, "");
        world.run_for(1_000);
        assert_eq!(
            world.node(0).state,
            NodeState::Connected,
            "nobody has noticed yet"
        );
        let waiting = world.execution("one", 0).unwrap();
        assert_eq!(waiting.reason_code, Some(PendingReason::Sending.into()));
        world.await_state(0, NodeState::Disconnected, 30_000);
        for (job, content) in [("two", Content::Steady(1)), ("three", Content::Steady(2))] {
            world.deploy(job, content, "");
            world.await_running(1, job, content);
            waits_for_its_node(world, job, 0);
        }
        world.bring_back(0);
        for (job, content) in [
            ("one", STEADY),
            ("two", Content::Steady(1)),
            ("three", Content::Steady(2)),
        ] {
            world.await_running(0, job, content);
        }
    });
}

#[test]
fn case_19_completed_without_a_link_is_recorded_once() {
    play(&[("e1", "a")], |world| {
        world.deploy("ends", Content::Ends(0), "");
        world.await_running(0, "ends", Content::Ends(0));
        world.send_away(0);
        world.run_for(5_000);
        assert_eq!(world.running(0, "ends"), None, "it has ended meanwhile");
        let execution = world.execution("ends", 0).unwrap();
        assert_eq!(world.outcome(execution.id, Version(1), 1), None);
        world.bring_back(0);
        await_job(world, "ends", JobState::Completed);
        assert!(world.outcome(execution.id, Version(1), 1).is_some());
        world.settle();
        assert_eq!(world.checks.outcomes.len(), 1);
        assert_eq!(world.starts(0, "ends"), 1);
    });
}

#[test]
fn case_20_failed_without_a_link_and_updated_meanwhile() {
    play(&[("e1", "a")], |world| {
        world.deploy("job", Content::Fails(0), "");
        world.await_running(0, "job", Content::Fails(0));
        world.send_away(0);
        world.run_for(5_000);
        assert_eq!(world.running(0, "job"), None, "it has failed meanwhile");
        world.deploy("job", STEADY, "");
        world.run_for(5_000);
        world.bring_back(0);
        world.await_running(0, "job", STEADY);
        world.settle();
        let execution = world.execution("job", 0).unwrap();
        assert_eq!(execution.state, ExecutionState::Running);
        assert_eq!(execution.version, Version(2));
        let old = world.outcome(execution.id, Version(1), 1).unwrap();
        assert_eq!(old.phase.as_str(), "failed");
        assert_eq!(world.outcome(execution.id, Version(2), 1), None);
    });
}

#[test]
fn case_21_22_every_edge_dies_and_then_the_job_is_updated() {
    play(&[("e1", "a"), ("e2", "a"), ("e3", "a")], |world| {
        world.deploy("job", STEADY, "");
        for edge in 0..3 {
            world.await_running(edge, "job", STEADY);
        }
        world.settle();
        let sent: Vec<u64> = (0..3).map(|edge| world.rows_sent(edge)).collect();
        for edge in 0..3 {
            world.crash_edge(edge, "kill -9", Some(2_000));
        }
        for edge in 0..3 {
            world.await_running(edge, "job", STEADY);
            world.await_connected(edge);
            assert_eq!(world.starts(edge, "job"), 2);
        }
        let now: Vec<u64> = (0..3).map(|edge| world.rows_sent(edge)).collect();
        assert_eq!(now, sent, "they had it on their disks");
        world.deploy("job", Content::Steady(1), "");
        for edge in 0..3 {
            world.await_running(edge, "job", Content::Steady(1));
        }
    });
}

#[test]
fn case_23_one_node_is_gone_for_ever() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        world.deploy("job", STEADY, "");
        world.await_running(1, "job", STEADY);
        world.send_away(1);
        let sent = world.rows_sent(1);
        for round in 0..60u8 {
            let content = Content::Steady(round);
            world.deploy("job", content, "");
            world.await_running(0, "job", content);
            world.run_for(60_000);
        }
        assert_eq!(world.node(1).state, NodeState::Lost);
        assert_eq!(
            world.node(1).executions,
            1,
            "one row waits, however often it changed"
        );
        assert_eq!(world.rows_sent(1), sent, "nothing was sent to nobody");
        assert_eq!(world.job("job").state, JobState::Running);
        // Back after all (the scenario's end wants everybody settled): one change brings the newest.
        world.bring_back(1);
        world.await_running(1, "job", Content::Steady(59));
        assert_eq!(world.rows_sent(1), sent + 1);
    });
}

#[test]
fn case_24_an_order_is_kept_while_nobody_can_plan_it() {
    play(&[("e1", "a")], |world| {
        world.order(
            "job",
            Order::Deploy {
                content: STEADY,
                select: String::new(),
                placing: Placing::Daemon,
            },
        );
        // It dies with the commit done and nothing sent.
        world.orchestrator.dies_after_outputs = Some(0);
        world.await_running(0, "job", STEADY);
        assert_eq!(world.checks.faults.host_crashes, 1);
    });
}
