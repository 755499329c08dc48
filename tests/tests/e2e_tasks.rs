//! Work with an end: commands as input, and the plugins that make a report of what they read.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use sluice_api::ReasonCode;
use sluice_model::{ExecutionState, PendingReason};
use sluice_tests::e2e::Cluster;

#[test]
fn a_listed_command_s_lines_are_records_and_where_it_is_not_listed_the_reason_says_so() {
    let mut cluster = Cluster::start(&[]);
    cluster.join_with(&["e1"], &["--allow-command", "count=/usr/bin/seq 100"]);
    cluster.join(&["e2"]);
    let text =
        "name = \"count\"\n[input.exec]\ncommand = \"count\"\n[output.file]\npath = \"out\"\n";
    let ran = cluster.try_deploy(text);
    assert_eq!(ran.code, 0, "{ran:?}");
    let done = cluster.wait_execution("count", "e1", "completed", |it| {
        it.state == ExecutionState::Completed
    });
    assert_eq!((done.records_in, done.records_out), (100, 100));
    let expected: Vec<String> = (1..=100).map(|number| number.to_string()).collect();
    assert_eq!(cluster.lines("e1", "out"), expected);

    let refused = cluster.wait_execution("count", "e2", "refused", |it| {
        it.reason_code == Some(ReasonCode::Pending(PendingReason::Refused))
    });
    let reason = refused.reason.unwrap_or_default();
    assert!(
        reason.contains("command") && reason.contains("count"),
        "{reason}"
    );

    // Its owner lists it.
    cluster.kill_edge("e2");
    let policy = cluster.edge_state("e2").join("edge.toml");
    let mut policy = std::fs::OpenOptions::new()
        .append(true)
        .open(policy)
        .unwrap();
    writeln!(policy, "count = [\"/usr/bin/seq\", \"3\"]").unwrap();
    drop(policy);
    cluster.start_edge("e2");
    cluster.wait_execution("count", "e2", "completed", |it| {
        it.state == ExecutionState::Completed
    });
    assert_eq!(cluster.lines("e2", "out"), ["1", "2", "3"]);
}

#[test]
fn a_command_that_is_not_installed_waits_and_says_which() {
    let mut cluster = Cluster::start(&[]);
    let missing = "gpus=/opt/nothing-here/nvidia-smi -L";
    cluster.join_with(&["e1"], &["--allow-command", missing]);
    let text = "name = \"gpus\"\n[input.exec]\ncommand = \"gpus\"\n[output.discard]\n";
    assert_eq!(cluster.try_deploy(text).code, 0);
    let waits = cluster.wait_execution("gpus", "e1", "backoff", |it| {
        it.reason_code == Some(ReasonCode::Pending(PendingReason::Backoff))
    });
    let reason = waits.reason.unwrap_or_default();
    assert!(
        reason.contains("there is no program /opt/nothing-here/nvidia-smi on this machine"),
        "{reason}"
    );
    let explained = cluster.sluice(&["explain", "gpus"]);
    assert!(explained.stdout.contains("no program"), "{explained:?}");
}
