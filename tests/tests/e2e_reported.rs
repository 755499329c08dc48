//! The failures that were reported, with real processes and `kill -9`: cases 1 to 22 of the failure matrix.
//!
//! Each test proves that its fault happened, and ends on what the API says. "Not restarted" is seen three ways: the
//! `restarts` counter, the numbers that `generate` gives its records (a restarted one would repeat or start over), and
//! the edge's process id. "Not sent again" is seen in the orchestrator's `ledger.sent` events.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use sluice_api::Execution;
use sluice_model::{ExecutionState, JobState, NodeState, ObservedPhase, Version};
use sluice_tests::e2e::pipelines::{PipelineText, plugin, seqs};
use sluice_tests::e2e::{Cluster, ClusterOptions, Conditions, Rule, wait};

/// Records that a killed edge may repeat: checkpoints are saved once a second, ten records come in that time, and a
/// busy machine may be two seconds late.
const REPEATED_MAX: u64 = 30;

/// Heartbeats so slow that a dead edge counts as connected for the whole test.
const SLOW: ClusterOptions = ClusterOptions {
    heartbeat: Duration::from_secs(30),
    lost_after: Duration::from_secs(600),
    certificate_life: None,
    linked: false,
    metrics: false,
    debug: false,
};

/// The numbers go 0, 1, 2, ...: one process wrote them all, and nothing was lost or done twice.
#[track_caller]
fn assert_uninterrupted(seqs: &[u64]) {
    let expected: Vec<u64> = (0..seqs.len() as u64).collect();
    assert_eq!(
        seqs, expected,
        "something restarted, was lost or was done twice"
    );
}

/// Nothing is missing, and after a kill only the newest records come again.
#[track_caller]
fn assert_continued(seqs: &[u64]) {
    assert_eq!(seqs.first(), Some(&0));
    for pair in seqs.windows(2) {
        let (last, next) = (pair[0], pair[1]);
        assert!(
            next <= last + 1,
            "records between {last} and {next} are missing"
        );
        assert!(
            next > 0 && next + REPEATED_MAX > last,
            "it went from {last} back to {next} rather than to its checkpoint"
        );
    }
}

/// Kills an edge that runs, and waits until the orchestrator has noticed.
#[track_caller]
fn kill_and_notice(cluster: &mut Cluster, name: &str) {
    cluster.kill_edge(name);
    cluster.wait_node(name, NodeState::Disconnected);
}

/// It ran from its first start on, at its first attempt.
#[track_caller]
fn assert_never_restarted(execution: &Execution) {
    assert_eq!(execution.state, ExecutionState::Running, "{execution:?}");
    assert_eq!(
        (execution.restarts, execution.attempt.0),
        (0, 1),
        "{execution:?}"
    );
}

#[test]
fn case_01_a_new_node_joins_and_gets_the_running_daemon() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("daemon").stage("same", &plugin("identity"), "{}"));
    cluster.wait_job_running("daemon", 1);
    assert!(cluster.sent("e2").is_empty());

    cluster.join(&["e2"]);
    let joined = Instant::now();
    let execution = cluster.wait_running("daemon", "e2");
    assert!(
        joined.elapsed() < Duration::from_secs(5),
        "{:?}",
        joined.elapsed()
    );
    assert!(execution.received);
    cluster.wait_lines("e2", "daemon.out", 3);

    let old = cluster.wait_lines("e1", "daemon.out", 10);
    assert_uninterrupted(&seqs("daemon", &old));
    assert_never_restarted(&cluster.execution("daemon", "e1"));
    cluster.wait_job_running("daemon", 2);
}

#[test]
fn case_02_a_pending_execution_runs_when_its_node_reconnects() {
    let mut cluster = Cluster::start(&["e1"]);
    kill_and_notice(&mut cluster, "e1");
    cluster.deploy(&PipelineText::steady("pending"));
    let waiting = cluster.wait_waiting("pending", "e1");
    assert!(
        !waiting.received && waiting.observed.is_none(),
        "{waiting:?}"
    );

    cluster.start_edge("e1");
    let running = cluster.wait_running("pending", "e1");
    assert_eq!(running.id, waiting.id);
    assert_eq!(cluster.sent("e1"), [waiting.rev.0]);
    cluster.wait_lines("e1", "pending.out", 3);
    cluster.wait_job_running("pending", 1);
}

#[test]
fn case_03_a_running_execution_is_left_alone_when_its_node_reconnects() {
    let mut cluster = Cluster::start_linked(&["e1"]);
    cluster.deploy(&PipelineText::steady("kept"));
    cluster.wait_running("kept", "e1");
    let pid = cluster.edge("e1").pid();
    let mark = cluster.log().mark();

    let before = cluster.link().traffic();
    cluster.link().cut();
    cluster.wait_node("e1", NodeState::Disconnected);
    let after = cluster.link().traffic();
    assert!(
        after.up.dropped > before.up.dropped,
        "nothing was lost: {after:?}"
    );
    cluster.wait_more_lines("e1", "kept.out", 3);
    cluster.link().mend();
    cluster.wait_node("e1", NodeState::Connected);

    let lines = cluster.wait_more_lines("e1", "kept.out", 10);
    assert_uninterrupted(&seqs("kept", &lines));
    assert_eq!(cluster.edge("e1").pid(), pid);
    let log = cluster.log();
    assert!(
        !log.events_since(mark, "session.open").is_empty(),
        "it never reconnected"
    );
    assert!(
        log.events_since(mark, "ledger.sent").is_empty(),
        "it was sent again"
    );
    assert_never_restarted(&cluster.execution("kept", "e1"));
    cluster.wait_job_running("kept", 1);
}

#[test]
fn case_04_whatever_the_link_does_the_work_runs_on() {
    let mut cluster = Cluster::start_linked(&["e1"]);
    cluster.deploy(&PipelineText::steady("tough"));
    cluster.wait_running("tough", "e1");
    let mark = cluster.log().mark();

    let open = Conditions::default();
    let held = Conditions {
        rule: Rule::Hold,
        ..open
    };
    let slow = Conditions {
        delay: Duration::from_millis(400),
        ..open
    };
    for (what, up, down) in [
        ("both lost", Conditions::CUT, Conditions::CUT),
        ("to the orchestrator lost", Conditions::CUT, open),
        ("to the edge lost", open, Conditions::CUT),
        ("both frozen", held, held),
        ("slow", slow, slow),
    ] {
        let before = cluster.link().traffic();
        cluster.link().set(up, down);
        wait::until(&format!("the fault to bite: {what}"), || {
            let now = cluster.link().traffic();
            let bitten = [(up, before.up, now.up), (down, before.down, now.down)]
                .into_iter()
                .all(|(conditions, before, now)| match conditions.rule {
                    Rule::Drop => now.dropped >= before.dropped + 2,
                    Rule::Hold => now.waiting > 0,
                    Rule::Pass => now.passed >= before.passed + 2,
                });
            wait::check(bitten, || format!("{before:?}, then {now:?}"))
        });
        cluster.wait_more_lines("e1", "tough.out", 5);
        cluster.link().mend();
        cluster.wait_node("e1", NodeState::Connected);
    }

    let lines = cluster.wait_more_lines("e1", "tough.out", 5);
    assert_uninterrupted(&seqs("tough", &lines));
    assert!(
        cluster.log().events_since(mark, "ledger.sent").is_empty(),
        "it was sent again"
    );
    cluster.wait_job_running("tough", 1);
    assert_never_restarted(&cluster.execution("tough", "e1"));
}

#[test]
fn case_06_with_all_nodes_online_a_deploy_runs_on_all() {
    let mut cluster = Cluster::start(&["e1", "e2", "e3"]);
    let reply = cluster.deploy(&PipelineText::steady("all"));
    assert_eq!(reply.matching_nodes.len(), 3);
    let detail = cluster.wait_job_running("all", 3);
    for execution in &detail.executions {
        assert!(execution.received, "{execution:?}");
        assert_eq!(
            execution.observed.as_ref().unwrap().state,
            ObservedPhase::Running
        );
        let node = execution.node.as_str();
        assert_eq!(cluster.sent(node), [execution.rev.0], "{node}");
        cluster.wait_lines(node, "all.out", 2);
    }
    let received = cluster.log().events("ledger.received");
    for node in ["e1", "e2", "e3"] {
        let of_node = |event: &&serde_json::Value| cluster.names_node(event, node);
        assert_eq!(received.iter().filter(of_node).count(), 1, "{node}");
    }
}

#[test]
fn case_07_offline_nodes_wait_with_a_reason_and_hold_nobody_up() {
    let mut cluster = Cluster::start(&["e1", "e2", "e3"]);
    kill_and_notice(&mut cluster, "e3");
    cluster.deploy(&PipelineText::steady("some"));
    cluster.wait_running("some", "e1");
    cluster.wait_running("some", "e2");
    cluster.wait_waiting("some", "e3");
    let detail = cluster.wait_job("some", "running on two, waiting on one", |detail| {
        let job = &detail.job;
        (job.desired, job.running, job.waiting) == (3, 2, 1)
    });
    assert_eq!(detail.job.state, JobState::Running);
    assert!(cluster.lines("e3", "some.out").is_empty());

    cluster.start_edge("e3");
    cluster.wait_lines("e3", "some.out", 2);
    cluster.wait_job_running("some", 3);
    assert_never_restarted(&cluster.execution("some", "e1"));
}

#[test]
fn case_08_a_job_without_a_matching_node_starts_by_itself_on_the_first() {
    let mut cluster = Cluster::start(&["e1"]);
    let reply = cluster.deploy(&PipelineText::steady("early").select("site", "plant-7"));
    assert!(reply.matching_nodes.is_empty());
    let queued = cluster.wait_job("early", "queued", |detail| {
        detail.job.state == JobState::Queued
    });
    assert!(queued.executions.is_empty());
    let explained = cluster.api().explain("early").unwrap();
    assert!(!explained.nodes[0].matches, "{explained:?}");
    assert!(explained.nodes[0].why.contains("site"), "{explained:?}");

    cluster.join_with(&["e2"], &["--label", "site=plant-7"]);
    cluster.wait_running("early", "e2");
    cluster.wait_lines("e2", "early.out", 2);
    cluster.wait_job_running("early", 1);
    assert!(cluster.api().execution("early", "e1").is_err());
}

#[test]
fn case_09_five_more_nodes_are_five_more_executions() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("more"));
    cluster.wait_job_running("more", 1);
    let added = ["e2", "e3", "e4", "e5", "e6"];
    cluster.join(&added);
    cluster.wait_job_running("more", 6);
    for name in added {
        cluster.wait_lines(name, "more.out", 2);
        assert_never_restarted(&cluster.execution("more", name));
    }
    assert_never_restarted(&cluster.execution("more", "e1"));
}

#[test]
fn case_11_a_job_deployed_while_its_node_is_away_runs_on_its_return() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    kill_and_notice(&mut cluster, "e1");
    cluster.deploy(&PipelineText::steady("away").select("node", "e1"));
    cluster.wait_waiting("away", "e1");
    // The orchestrator forgets what it had in memory, too.
    cluster.kill_orchestrator();
    cluster.start_orchestrator();
    let waiting = cluster.wait_waiting("away", "e1");
    assert!(cluster.sent("e1").is_empty(), "nothing was ever dispatched");
    let job = cluster.api().job("away").unwrap().job;
    assert_ne!(job.state, JobState::Running, "{job:?}");

    cluster.start_edge("e1");
    cluster.wait_job_running("away", 1);
    assert_eq!(cluster.execution("away", "e1").id, waiting.id);
    assert_eq!(cluster.sent("e1"), [waiting.rev.0]);
    cluster.wait_lines("e1", "away.out", 3);
}

#[test]
fn case_12_a_daemon_on_ten_nodes_follows_five_more() {
    let names: Vec<String> = (1..=15).map(|number| format!("n{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut cluster = Cluster::start(&names[..10]);
    cluster.deploy(&PipelineText::steady("fleet").generate("1s", 0));
    cluster.wait_job_running("fleet", 10);
    cluster.join(&names[10..]);
    let detail = cluster.wait_job_running("fleet", 15);
    for execution in &detail.executions {
        assert_never_restarted(execution);
        cluster.wait_lines(execution.node.as_str(), "fleet.out", 1);
    }
}

#[test]
fn case_13_deploy_while_a_node_is_away() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    kill_and_notice(&mut cluster, "e2");
    cluster.deploy(&PipelineText::steady("both").stage("same", &plugin("identity"), "{}"));
    cluster.wait_running("both", "e1");
    let waiting = cluster.wait_waiting("both", "e2");
    cluster.wait_lines("e1", "both.out", 5);

    cluster.start_edge("e2");
    let running = cluster.wait_running("both", "e2");
    assert_eq!((running.id, running.attempt), (waiting.id, waiting.attempt));
    cluster.wait_lines("e2", "both.out", 3);
    let lines = cluster.lines("e1", "both.out");
    assert_uninterrupted(&seqs("both", &lines));
    cluster.wait_job_running("both", 2);
}

#[test]
fn case_14_a_third_node_joins_a_job_that_runs_on_two() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    cluster.deploy(&PipelineText::steady("three"));
    cluster.wait_job_running("three", 2);
    let mark = cluster.log().mark();
    cluster.join(&["e3"]);
    cluster.wait_lines("e3", "three.out", 2);
    cluster.wait_job_running("three", 3);
    let sent = cluster.log().events_since(mark, "ledger.sent");
    assert!(
        sent.iter().all(|event| cluster.names_node(event, "e3")),
        "the others were sent something, too: {sent:?}"
    );
    for name in ["e1", "e2"] {
        assert_never_restarted(&cluster.execution("three", name));
    }
}

#[test]
fn case_15_back_before_the_disconnect_timeout_nothing_happens() {
    let options = ClusterOptions {
        heartbeat: Duration::from_secs(2),
        linked: true,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(options, &["e1"]);
    cluster.deploy(&PipelineText::steady("blip"));
    cluster.wait_running("blip", "e1");
    let mark = cluster.log().mark();

    let before = cluster.link().traffic();
    cluster.link().cut();
    wait::until("a heartbeat to be lost", || {
        let now = cluster.link().traffic();
        wait::check(now.up.dropped > before.up.dropped, || format!("{now:?}"))
    });
    assert_eq!(
        cluster.api().node("e1").unwrap().state,
        NodeState::Connected
    );
    cluster.link().mend();
    let mended = cluster.link().traffic();
    wait::until("the edge to be heard again", || {
        let now = cluster.link().traffic();
        let heard =
            now.up.passed > mended.up.passed + 1 && now.down.passed > mended.down.passed + 1;
        wait::check(heard, || format!("{mended:?}, then {now:?}"))
    });

    let log = cluster.log();
    for event in [
        "session.open",
        "session.close",
        "ledger.sent",
        "ledger.resync",
    ] {
        assert!(log.events_since(mark, event).is_empty(), "{event}");
    }
    // The same session still takes work.
    cluster.deploy(&PipelineText::steady("next"));
    cluster.wait_job_running("next", 1);
    assert!(log.events_since(mark, "session.open").is_empty());
    assert_uninterrupted(&seqs("blip", &cluster.lines("e1", "blip.out")));
    assert_never_restarted(&cluster.execution("blip", "e1"));
}

#[test]
fn case_17_work_sent_to_a_dead_session_is_sent_again_in_the_next() {
    let mut cluster = Cluster::start_with(SLOW, &["e1"]);
    cluster.kill_edge("e1");
    assert_eq!(
        cluster.api().node("e1").unwrap().state,
        NodeState::Connected
    );
    cluster.deploy(&PipelineText::steady("resent"));
    let sending = cluster.wait_execution("resent", "e1", "on its way", |execution| {
        execution
            .reason_code
            .is_some_and(|code| code.as_str() == "sending")
    });
    wait::until("it to be sent into the dead session", || {
        wait::check(cluster.sent("e1") == [sending.rev.0], || {
            "nothing was sent".to_owned()
        })
    });
    assert_eq!(
        cluster.api().node("e1").unwrap().state,
        NodeState::Connected
    );

    cluster.start_edge("e1");
    let running = cluster.wait_running("resent", "e1");
    assert_eq!(running.id, sending.id);
    let rev = sending.rev.0;
    assert_eq!(cluster.sent("e1"), [rev, rev], "once in each session");
    let opened = cluster.log().events("session.open");
    assert_eq!(opened.len(), 2, "{opened:?}");
    cluster.wait_lines("e1", "resent.out", 3);
    cluster.wait_job_running("resent", 1);
}

#[test]
fn case_18_three_jobs_deployed_to_a_dead_node_all_run_on_its_return() {
    let mut cluster = Cluster::start_with(SLOW, &["e1", "e2"]);
    cluster.kill_edge("e1");
    let jobs = ["first", "second", "third"];
    for job in jobs {
        assert_eq!(
            cluster.api().node("e1").unwrap().state,
            NodeState::Connected
        );
        cluster.deploy(&PipelineText::steady(job));
        // What waits on one node blocks nothing on another.
        cluster.wait_running(job, "e2");
        let waiting = cluster.execution(job, "e1");
        assert_eq!(waiting.state, ExecutionState::Pending, "{waiting:?}");
    }
    assert!(
        !cluster.sent("e1").is_empty(),
        "nothing was sent into the dead session"
    );

    cluster.start_edge("e1");
    for job in jobs {
        cluster.wait_running(job, "e1");
        cluster.wait_lines("e1", &format!("{job}.out"), 2);
        cluster.wait_job_running(job, 2);
        assert_never_restarted(&cluster.execution(job, "e2"));
    }
}

#[test]
fn case_19_a_completion_while_the_link_is_down_is_reported_once_on_return() {
    let mut cluster = Cluster::start_linked(&["e1"]);
    cluster.deploy(&PipelineText::steady("ends").generate("100ms", 30));
    let running = cluster.wait_running("ends", "e1");
    cluster.link().cut();
    cluster.wait_lines("e1", "ends.out", 30);
    cluster.wait_node("e1", NodeState::Disconnected);
    wait::until("the edge to have recorded the end", || {
        let ended = states(
            &cluster.edge_log("e1").events("execution.state"),
            "completed",
        );
        wait::check(ended == 1, || format!("{ended} times"))
    });
    assert_eq!(
        cluster.execution("ends", "e1").state,
        ExecutionState::Running
    );
    // Not even the edge's death loses the report.
    cluster.kill_edge("e1");
    cluster.link().mend();
    cluster.start_edge("e1");

    let done = cluster.wait_execution("ends", "e1", "completed", |execution| {
        execution.state == ExecutionState::Completed
    });
    assert_eq!(
        (done.id, done.attempt, done.restarts),
        (running.id, running.attempt, 0)
    );
    assert_eq!((done.records_in, done.records_out), (30, 30));
    cluster.wait_job("ends", "completed", |detail| {
        detail.job.state == JobState::Completed
    });
    // Later reconnects say nothing new.
    cluster.kill_edge("e1");
    cluster.wait_node("e1", NodeState::Disconnected);
    cluster.start_edge("e1");
    cluster.wait_node("e1", NodeState::Connected);
    let recorded = states(&cluster.log().events("execution.state"), "completed");
    assert_eq!(recorded, 1, "the end was recorded more than once");
    assert_uninterrupted(&seqs("ends", &cluster.lines("e1", "ends.out")));
    assert_eq!(cluster.lines("e1", "ends.out").len(), 30);
    let done = cluster.execution("ends", "e1");
    assert_eq!(
        (done.state, done.records_out),
        (ExecutionState::Completed, 30)
    );
}

/// How many `execution.state` events say this state.
fn states(events: &[serde_json::Value], state: &str) -> usize {
    events
        .iter()
        .filter(|event| event["state"] == state)
        .count()
}

#[test]
fn case_20_a_failure_while_the_link_is_down_is_recorded_under_its_own_version() {
    let mut cluster = Cluster::start_linked(&["e1"]);
    // Runs for four seconds, then a stage says `fatal`.
    let fails = PipelineText::steady("fails")
        .stage(
            "late",
            &plugin("filter_contains"),
            "{ matches = 'seq 40$' }",
        )
        .stage("fatal", &plugin("hostile"), "{ do = 'fatal' }");
    cluster.deploy(&fails);
    let old = cluster.wait_running("fails", "e1");
    cluster.link().cut();
    let reply = cluster.deploy(&PipelineText::steady("fails"));
    assert_eq!(reply.version, Version(2));
    wait::until("the edge to have recorded the failure", || {
        let ended = states(&cluster.edge_log("e1").events("execution.state"), "failed");
        wait::check(ended == 1, || format!("{ended} times"))
    });
    cluster.wait_node("e1", NodeState::Disconnected);
    let recorded = states(&cluster.log().events("execution.state"), "failed");
    assert_eq!(recorded, 0, "the link was not down");
    cluster.link().mend();

    let new = cluster.wait_execution("fails", "e1", "running at version 2", |execution| {
        execution.state == ExecutionState::Running && execution.version == Version(2)
    });
    assert_eq!(new.id, old.id);
    let events = cluster.log().events("execution.state");
    let failed: Vec<_> = events
        .iter()
        .filter(|event| event["state"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(
        (&failed[0]["version"], &failed[0]["attempt"]),
        (&1.into(), &1.into())
    );
    assert!(
        failed[0]["reason"]
            .as_str()
            .unwrap()
            .contains("stopped, as asked"),
        "{failed:?}"
    );
    cluster.wait_lines("e1", "fails.out", 2);
    cluster.wait_job_running("fails", 1);
    assert_eq!(
        cluster.execution("fails", "e1").observed.unwrap().version,
        Version(2)
    );
}

/// Two edges run two jobs, all edges are killed, noticed and started again.
fn killed_and_restarted() -> Cluster {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    cluster.deploy(&PipelineText::steady("one"));
    cluster.deploy(&PipelineText::steady("two").stage("same", &plugin("identity"), "{}"));
    for name in ["e1", "e2"] {
        for job in ["one", "two"] {
            // Long enough for a checkpoint.
            cluster.wait_lines(name, &format!("{job}.out"), 25);
        }
    }
    let before = cluster.api().executions().unwrap();
    let mark = cluster.log().mark();
    cluster.kill_edge("e1");
    cluster.kill_edge("e2");
    cluster.wait_node("e1", NodeState::Disconnected);
    cluster.wait_node("e2", NodeState::Disconnected);
    let written = |cluster: &Cluster, execution: &Execution| {
        let file = format!("{}.out", execution.job);
        cluster.lines(execution.node.as_str(), &file)
    };
    let lengths: Vec<usize> = before
        .iter()
        .map(|it| written(&cluster, it).len())
        .collect();
    cluster.start_edge("e1");
    cluster.start_edge("e2");
    cluster.wait_job_running("one", 2);
    cluster.wait_job_running("two", 2);
    for (execution, length) in before.iter().zip(lengths) {
        let (job, node) = (execution.job.as_str(), execution.node.as_str());
        let lines = cluster.wait_lines(node, &format!("{job}.out"), length + 10);
        assert_continued(&seqs(job, &lines));
        let now = cluster.execution(job, node);
        assert_eq!(
            (now.id, now.version, now.attempt),
            (execution.id, execution.version, execution.attempt)
        );
    }
    let log = cluster.log();
    assert_eq!(log.events_since(mark, "session.open").len(), 2);
    let sent = log.events_since(mark, "ledger.sent");
    assert!(
        sent.is_empty(),
        "the edges have it on disk, but were sent {sent:?}"
    );
    cluster
}

#[test]
fn case_21_the_same_work_resumes_after_all_edges_were_killed() {
    let cluster = killed_and_restarted();
    cluster.wait_job_running("one", 2);
    cluster.wait_job_running("two", 2);
}

#[test]
fn case_22_an_update_after_all_edges_were_killed_runs() {
    let mut cluster = killed_and_restarted();
    let reply = cluster.deploy(&PipelineText::steady("one").output("one-v2.out"));
    assert_eq!(reply.version, Version(2));
    for name in ["e1", "e2"] {
        cluster.wait_execution("one", name, "running at version 2", |execution| {
            execution.state == ExecutionState::Running && execution.version == Version(2)
        });
        cluster.wait_lines(name, "one-v2.out", 3);
    }
    cluster.wait_job_running("one", 2);
    cluster.wait_job_running("two", 2);
}
