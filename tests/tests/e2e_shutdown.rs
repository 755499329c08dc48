//! Programs that are asked to end: they take no more in, drain, save, and are gone; and those that are asked twice.

#![allow(clippy::unwrap_used)]

use sluice_tests::e2e::pipelines::{PipelineText, plugin, seqs};
use sluice_tests::e2e::{Cluster, ClusterOptions, Process, wait};

/// What `sluice logs` asks of an edge that has stopped in its tracks, under way when the orchestrator is asked to end.
struct Reading {
    cluster: Cluster,
    reader: Process,
}

impl Reading {
    fn begin() -> Self {
        let options = ClusterOptions {
            // The edge may be silent for a while.
            heartbeat: std::time::Duration::from_secs(10),
            debug: true,
            ..ClusterOptions::default()
        };
        let mut cluster = Cluster::start_with(options, &["e1"]);
        cluster.deploy(&PipelineText::steady("ticks").stdout());
        cluster.wait_running("ticks", "e1");
        wait::until("lines to be in the log", || {
            let ran = cluster.sluice(&["logs", "ticks"]);
            wait::check(ran.stdout.contains("ticks seq "), || format!("{ran:?}"))
        });
        cluster.edge("e1").freeze();
        let mark = cluster.log().mark();
        let mut command = cluster.sluice_command(&["logs", "ticks"]);
        let (out, said) = (
            cluster.root().join("logs.out"),
            cluster.root().join("logs.err"),
        );
        let reader = Process::start("logs", &mut command, &out, &said);
        wait::until("the edge to be asked", || {
            let log = cluster.log();
            let asked = !log.events_since(mark, "logs.asked").is_empty();
            wait::check(asked, || log.tail())
        });
        let mark = cluster.log().mark();
        cluster.orchestrator().ask_to_end();
        wait::until("the orchestrator to begin to stop", || {
            let log = cluster.log();
            let begun = !log.events_since(mark, "orchestrator.stopping").is_empty();
            wait::check(begun, || log.tail())
        });
        Self { cluster, reader }
    }
}

#[test]
fn an_orchestrator_that_is_asked_to_end_lets_a_request_that_needs_an_edge_end_first() {
    let Reading {
        mut cluster,
        mut reader,
    } = Reading::begin();
    cluster.edge("e1").thaw();
    let status = reader.wait_end(wait::LONG);
    let read = |file: &str| std::fs::read_to_string(cluster.root().join(file)).unwrap();
    let (out, said) = (read("logs.out"), read("logs.err"));
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(out.contains("ticks seq "), "{out}{said}");
    assert!(!said.contains("e1"), "nobody was absent: {said}");
    let status = cluster.orchestrator().wait_end(wait::LONG);
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn an_orchestrator_that_is_asked_twice_does_not_wait_for_what_is_under_way() {
    let Reading {
        mut cluster,
        mut reader,
    } = Reading::begin();
    let status = cluster.orchestrator().terminate();
    assert_eq!(status.code(), Some(1), "it waited: {status}");
    // With what there was from others, or cut off.
    reader.wait_end(wait::LONG);
}

#[test]
fn an_orchestrator_that_is_asked_once_waits_for_no_machine_that_stands_still() {
    let Reading {
        mut cluster,
        mut reader,
    } = Reading::begin();
    let status = cluster.orchestrator().wait_end(wait::LONG);
    assert_eq!(status.code(), Some(0), "{status}");
    // With what there was from others, or cut off.
    reader.wait_end(wait::LONG);
}

fn assert_each_once(numbers: &[u64]) {
    let expected: Vec<u64> = (0..numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "records were lost or came twice");
}

#[test]
fn an_edge_that_is_asked_to_end_drains_and_repeats_nothing_afterwards() {
    let mut cluster = Cluster::start(&["e1"]);
    let busy = PipelineText::steady("busy").generate("1ms", 0);
    cluster.deploy(&busy.stage("same", &plugin("identity"), "{}"));
    for _ in 0..3 {
        cluster.wait_more_lines("e1", "busy.out", 200);
        let status = cluster.edge("e1").terminate();
        assert_eq!(status.code(), Some(0), "{status}");
        let lines = cluster.lines("e1", "busy.out");
        assert_each_once(&seqs("busy", &lines));
        cluster.start_edge("e1");
    }
    cluster.wait_more_lines("e1", "busy.out", 200);
    let lines = cluster.lines("e1", "busy.out");
    assert_each_once(&seqs("busy", &lines));
}

#[test]
fn an_orchestrator_that_is_asked_to_end_disturbs_no_edge() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("ticks"));
    let before = cluster.wait_running("ticks", "e1");
    // A reader that follows must not keep it.
    let mut follow = cluster.sluice_command(&["logs", "ticks", "--follow"]);
    let mut follow = follow
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = cluster.orchestrator().terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    wait::until("the reader to end", || {
        let ended = follow.try_wait().unwrap();
        ended.ok_or_else(|| "it still follows".to_owned())
    });
    cluster.wait_more_lines("e1", "ticks.out", 10);
    cluster.start_orchestrator();
    let after = cluster.wait_running("ticks", "e1");
    assert_eq!(
        (after.attempt, after.restarts),
        (before.attempt, before.restarts)
    );
    assert_each_once(&seqs("ticks", &cluster.lines("e1", "ticks.out")));
}

/// An edge with a stage that never comes back.
fn spinning() -> Cluster {
    let mut cluster = Cluster::start(&["e1"]);
    let spinning = PipelineText::steady("spins").generate("1ms", 0);
    let config = "{ do = \"spin\", when = \"always\" }\nlimits.deadline = \"1s\"";
    cluster.deploy(&spinning.stage("spinner", &plugin("hostile"), config));
    wait::until("records to be in the stage", || {
        let taken = cluster.execution("spins", "e1").records_in;
        wait::check(taken > 0, || format!("{taken} records"))
    });
    cluster
}

#[test]
fn an_edge_that_is_asked_once_does_not_wait_for_ever_for_a_stage_that_never_comes_back() {
    let mut cluster = spinning();
    let status = cluster.edge("e1").terminate();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn an_edge_that_is_asked_twice_does_not_wait_for_what_drains() {
    let mut cluster = spinning();
    let mark = cluster.edge_log("e1").mark();
    cluster.edge("e1").ask_to_end();
    wait::until("the session to be closed or the end to have begun", || {
        let log = cluster.edge_log("e1");
        let begun = !log.events_since(mark, "edge.stopping").is_empty();
        wait::check(begun, || log.tail())
    });
    let status = cluster.edge("e1").terminate();
    assert_eq!(status.code(), Some(1), "it drained: {status}");
}
