//! Replicas and orders of nodes, with real processes and through the CLI.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sluice_api::{JobVersion, Node, Rollout};
use sluice_model::{ExecutionState, NodeState, RolloutPhase};
use sluice_tests::e2e::pipelines::{PipelineText, plugin, seqs};
use sluice_tests::e2e::{Cluster, ClusterOptions, wait};

fn cluster(edges: &[&str]) -> Cluster {
    let options = ClusterOptions {
        lost_after: Duration::from_secs(2),
        ..ClusterOptions::default()
    };
    Cluster::start_with(options, edges)
}

fn replicas(cluster: &mut Cluster, job: &str, count: u32) {
    let text = PipelineText::steady(job).text();
    let ran = cluster.try_deploy(&format!("kind = \"replicas\"\ncount = {count}\n{text}"));
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn case_05_case_16_a_killed_node_is_replaced_and_its_return_makes_no_two() {
    let mut cluster = cluster(&["e1", "e2"]);
    replicas(&mut cluster, "one", 1);
    let detail = cluster.wait_job_running("one", 1);
    let first = detail.executions[0].node.clone();
    let other = if first.as_str() == "e1" { "e2" } else { "e1" };
    cluster.kill_edge(first.as_str());
    cluster.wait_node(first.as_str(), NodeState::Lost);
    cluster.wait_running("one", other);
    let job = cluster.api().job("one").unwrap().job;
    assert_eq!((job.desired, job.running), (1, 1), "{job:?}");
    cluster.start_edge(first.as_str());
    cluster.wait_execution("one", first.as_str(), "stopped", |it| {
        it.state == ExecutionState::Stopped
    });
    let job = cluster.wait_job_running("one", 1).job;
    assert_eq!(job.running, 1);
    cluster.wait_more_lines(other, "one.out", 3);
}

#[test]
fn more_replicas_of_the_same_restart_none_of_them() {
    let mut cluster = cluster(&["e1", "e2", "e3"]);
    replicas(&mut cluster, "few", 2);
    let detail = cluster.wait_job_running("few", 2);
    let old: Vec<String> = detail
        .executions
        .iter()
        .map(|it| it.node.to_string())
        .collect();
    let marks: Vec<_> = old
        .iter()
        .map(|name| {
            cluster.wait_more_lines(name, "few.out", 3);
            cluster.edge_log(name).mark()
        })
        .collect();

    let text = PipelineText::steady("few").rollout("canary = 1, min_healthy = '1s'");
    let text = format!("kind = \"replicas\"\ncount = 3\n{}", text.text());
    let ran = cluster.try_deploy(&text);
    assert_eq!(ran.code, 0, "{ran:?}");
    let detail = cluster.wait_job("few", "rolled out to three", |detail| {
        let phase = detail.job.rollout.as_ref().map(|it| it.phase);
        phase == Some(RolloutPhase::Done) && detail.job.running == 3
    });
    let story = cluster.sluice(&["rollout", "status", "few"]).stdout;
    assert!(story.contains("which runs the same"), "{story}");
    for (name, mark) in old.iter().zip(marks) {
        let on_it = |it: &&sluice_api::Execution| it.node.as_str() == name;
        let execution = detail.executions.iter().find(on_it).unwrap();
        assert_eq!(
            (execution.version.0, execution.attempt.0, execution.restarts),
            (2, 1, 0)
        );
        let lines = cluster.wait_more_lines(name, "few.out", 10);
        let expected: Vec<u64> = (0..lines.len() as u64).collect();
        assert_eq!(seqs("few", &lines), expected, "nothing was done twice");
        let told = cluster.edge_log(name).events_since(mark, "execution.state");
        let states: Vec<_> = told.iter().map(|it| it["state"].clone()).collect();
        assert_eq!(states, ["running"], "it went on under the new version");
    }
}

#[test]
fn case_53_a_machine_that_slept_for_longer_than_a_node_may_be_away_keeps_its_work() {
    let mut cluster = cluster(&["e1"]);
    cluster.deploy(&PipelineText::steady("kept"));
    cluster.wait_running("kept", "e1");
    cluster.wait_lines("e1", "kept.out", 3);
    let mark = cluster.log().mark();
    cluster.edge("e1").freeze();
    cluster.wait_node("e1", NodeState::Lost);
    let slept = cluster.lines("e1", "kept.out");
    cluster.edge("e1").thaw();
    cluster.wait_node("e1", NodeState::Connected);
    let opened = cluster.log().events_since(mark, "session.open");
    assert_eq!(opened.len(), 1, "its session was renewed: {opened:?}");
    let lines = cluster.wait_more_lines("e1", "kept.out", 3);
    assert!(lines.len() > slept.len());
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(seqs("kept", &lines), expected, "nothing was done twice");
    let execution = cluster.wait_running("kept", "e1");
    assert_eq!((execution.attempt.0, execution.restarts), (1, 0));
}

#[test]
fn case_90_a_drain_waits_for_its_deadline_and_names_what_did_not_stop() {
    let mut cluster = cluster(&["e1", "e2"]);
    cluster.deploy(&PipelineText::steady("all"));
    cluster.wait_job_running("all", 2);
    let drained: Node = cluster
        .sluice(&[
            "node",
            "drain",
            "e1",
            "--deadline",
            "30s",
            "--output",
            "json",
        ])
        .json();
    assert!(drained.cordoned && drained.draining && drained.executions == 0);
    assert_eq!(
        cluster.execution("all", "e1").state,
        ExecutionState::Stopped
    );
    cluster.sluice(&["node", "uncordon", "e1"]);
    cluster.wait_running("all", "e1");
    cluster.kill_edge("e2");
    cluster.wait_node("e2", NodeState::Lost);
    cluster
        .sluice(&["node", "drain", "e2", "--deadline", "500ms"])
        .fails(5, &["not everything on e2 stopped", "all:", "e2"]);
    cluster.start_edge("e2");
    let drained = cluster.sluice(&["node", "drain", "e2", "--deadline", "30s"]);
    assert_eq!(drained.code, 0, "{drained:?}");
    assert!(drained.stdout.contains("everything there has stopped"));
}

fn rollout(cluster: &Cluster, order: &str, job: &str) -> Rollout {
    let ran = cluster.sluice(&["rollout", order, job, "--output", "json"]);
    ran.json()
}

fn wait_rollout(cluster: &Cluster, job: &str, phase: RolloutPhase) -> Rollout {
    wait::until(&format!("the rollout of {job} to be {phase}"), || {
        let shown = rollout(cluster, "status", job);
        match shown.phase == phase {
            true => Ok(shown),
            false => Err(format!("{shown:#?}")),
        }
    })
}

#[test]
fn a_version_whose_records_all_die_is_rolled_back_and_the_one_that_mends_it_is_not() {
    let mut cluster = cluster(&["e1", "e2"]);
    let job = || {
        let rules = "canary = 1, min_healthy = '1s', error_rate_max = 0.01";
        PipelineText::steady("job").rollout(rules)
    };
    let good = job().stage("same", &plugin("identity"), "{}");
    cluster.deploy(&good);
    wait_rollout(&cluster, "job", RolloutPhase::Done);
    let trap = "{ do = \"trap-on\", when = \"always\" }";
    cluster.deploy(&job().stage("same", &plugin("hostile"), trap));
    let shown = wait_rollout(&cluster, "job", RolloutPhase::RolledBack);
    let reason = shown.reason.unwrap();
    assert!(
        reason.starts_with("e1: ") && reason.contains("records became dead letters"),
        "{reason}"
    );
    assert_eq!(shown.restored_by.map(|it| it.0), Some(3));
    assert_eq!(
        cluster.execution("job", "e2").version.0,
        1,
        "it had no turn"
    );
    cluster.deploy(&good.output("mended.out"));
    let shown = wait_rollout(&cluster, "job", RolloutPhase::Done);
    assert_eq!((shown.candidate.0, shown.restored_by), (4, None));
    for edge in ["e1", "e2"] {
        cluster.wait_more_lines(edge, "mended.out", 3);
    }
}

#[test]
fn a_rollout_is_paused_resumed_and_promoted() {
    let mut cluster = cluster(&["e1", "e2", "e3"]);
    let job = |healthy: &str| {
        let rules = format!("canary = 1, min_healthy = '{healthy}'");
        PipelineText::steady("job").rollout(&rules)
    };
    cluster.deploy(&job("1s"));
    wait_rollout(&cluster, "job", RolloutPhase::Done);
    // Longer than this test takes: nothing moves on by itself.
    cluster.deploy(&job("4m").output("second.out"));
    cluster.wait_execution("job", "e1", "running version 2", |it| {
        it.version.0 == 2 && it.state == ExecutionState::Running
    });
    let paused = cluster.sluice(&["rollout", "pause", "job"]);
    assert_eq!(paused.code, 0, "{paused:?}");
    assert!(
        paused.stdout.contains("an operator paused it"),
        "{paused:?}"
    );
    let shown = rollout(&cluster, "status", "job");
    assert_eq!(
        (shown.phase, shown.nodes.waiting),
        (RolloutPhase::Paused, 2)
    );
    let resumed = rollout(&cluster, "resume", "job");
    assert_eq!(resumed.phase, RolloutPhase::Canary);
    let versions = ["e1", "e2", "e3"].map(|edge| cluster.execution("job", edge).version.0);
    assert_eq!(versions, [2, 1, 1]);
    let promoted = rollout(&cluster, "promote", "job");
    assert_eq!(promoted.phase, RolloutPhase::Done);
    for edge in ["e1", "e2", "e3"] {
        cluster.wait_execution("job", edge, "running version 2", |it| {
            it.version.0 == 2 && it.state == ExecutionState::Running
        });
    }
    cluster
        .sluice(&["rollout", "resume", "job"])
        .fails(1, &["has ended: done"]);
}

#[test]
fn case_89_labels_move_a_job_and_versions_go_back() {
    let mut cluster = cluster(&["e1"]);
    cluster.deploy(&PipelineText::steady("here").select("site", "a"));
    let labelled: Node = cluster
        .sluice(&["node", "label", "e1", "site=a", "--output", "json"])
        .json();
    assert_eq!(labelled.labels["site"], "a");
    cluster.wait_running("here", "e1");
    cluster.sluice(&["node", "label", "e1", "site-"]);
    cluster.wait_execution("here", "e1", "stopped", |it| {
        it.state == ExecutionState::Stopped
    });
    cluster.sluice(&["node", "label", "e1", "site=a"]);
    cluster.wait_running("here", "e1");

    cluster.deploy(
        &PipelineText::steady("here")
            .select("site", "a")
            .output("second.out"),
    );
    cluster.wait_more_lines("e1", "second.out", 2);
    let back = cluster.sluice(&["job", "rollback", "here"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert!(back.stdout.contains("updated to version 3"), "{back:?}");
    cluster.wait_execution("here", "e1", "running version 3", |it| {
        it.version.0 == 3 && it.state == ExecutionState::Running
    });
    let history: Vec<JobVersion> = cluster
        .sluice(&["job", "history", "here", "--output", "json"])
        .json();
    let shown: Vec<_> = history
        .iter()
        .map(|it| (it.version.0, it.rolled_back_to.map(|to| to.0), it.current))
        .collect();
    assert_eq!(
        shown,
        [(3, Some(1), true), (2, None, false), (1, None, false)]
    );
    cluster
        .sluice(&["job", "rollback", "here", "--to", "9"])
        .fails(3, &["version 9 of here is not kept", "sluice job history"]);
    let restarted = cluster.sluice(&["job", "restart", "here"]);
    assert_eq!(restarted.code, 0, "{restarted:?}");
    cluster.wait_execution("here", "e1", "the next attempt", |it| {
        it.attempt.0 == 2 && it.state == ExecutionState::Running
    });
}
