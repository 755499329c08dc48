//! Who an edge is, with real processes: certificates that end, nodes that are revoked or deleted, copied directories.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_api::{Node, Token, TokenCreated};
use sluice_model::{ExecutionState, NodeState};
use sluice_tests::e2e::pipelines::{PipelineText, plugin, seqs};
use sluice_tests::e2e::{Cluster, ClusterOptions, Mark, wait};

/// The shortest life that the orchestrator gives: several fit into a test.
const LIFE: Duration = Duration::from_secs(5);

fn short_lived(edges: &[&str]) -> Cluster {
    let options = ClusterOptions {
        certificate_life: Some(LIFE),
        ..ClusterOptions::default()
    };
    Cluster::start_with(options, edges)
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// Key and certificate on an edge's disk.
fn identity(cluster: &Cluster, edge: &str) -> (Vec<u8>, Vec<u8>) {
    let path = cluster.edge_state(edge).join("identity.pem");
    let blocks = pem::parse_many(std::fs::read(path).unwrap()).unwrap();
    (blocks[0].contents().to_vec(), blocks[1].contents().to_vec())
}

fn certificate_ends(cluster: &Cluster, edge: &str) -> i64 {
    let node = cluster.api().node(edge).unwrap();
    node.certificate_expires_at.unwrap().0
}

#[track_caller]
fn wait_past(at_ms: i64) {
    wait::until("a certificate to end", || {
        let left = at_ms + 1000 - now_ms();
        wait::check(left < 0, || format!("{left} ms are left"))
    });
}

/// The job ran on in one process, in one instance, without a gap.
#[track_caller]
fn assert_never_stopped(cluster: &Cluster, job: &str, edge: &str) {
    let lines = cluster.wait_more_lines(edge, &format!("{job}.out"), 3);
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(seqs(job, &lines), expected);
    let execution = cluster.execution(job, edge);
    assert_eq!(
        (execution.attempt.0, execution.restarts),
        (1, 0),
        "{execution:?}"
    );
    assert_eq!(execution.state, ExecutionState::Running);
    let started = |event: &&serde_json::Value| event["state"] == "running" && event["job"] == job;
    let events = cluster.edge_log(edge).events("execution.state");
    assert_eq!(events.iter().filter(started).count(), 1, "{events:?}");
}

#[test]
fn certificates_are_renewed_under_load_before_they_end() {
    let mut cluster = short_lived(&["e1"]);
    cluster.deploy(&PipelineText::steady("calm").stage("same", &plugin("identity"), "{}"));
    let fast = PipelineText::steady("fast").generate("1ms", 0);
    cluster.deploy(&fast.stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "calm.out", 3);
    let (key, first) = identity(&cluster, "e1");
    let first_end = certificate_ends(&cluster, "e1");

    let renewed = |count: usize| {
        let what = format!("{count} renewals");
        wait::until(&what, || {
            let done = cluster.edge_log("e1").events("identity.renewed").len();
            wait::check(done >= count, || format!("{done} so far"))
        });
        identity(&cluster, "e1")
    };
    let (same_key, second) = renewed(1);
    assert!(
        same_key == key && second != first,
        "a new certificate, the old key"
    );
    let (same_key, third) = renewed(3);
    assert!(same_key == key && third != second);
    wait_past(first_end);

    // The session that was opened with the first certificate lives on.
    assert_eq!(cluster.edge_log("e1").events("session.open").len(), 1);
    assert!(certificate_ends(&cluster, "e1") > first_end);
    assert_never_stopped(&cluster, "calm", "e1");
    assert_never_stopped(&cluster, "fast", "e1");
    assert!(cluster.log().events("session.renew_only").is_empty());

    // New sessions are opened with the newest: of the same process, and of the next.
    cluster.kill_orchestrator();
    cluster.start_orchestrator();
    cluster.wait_node("e1", NodeState::Connected);
    assert_never_stopped(&cluster, "calm", "e1");
    cluster.kill_edge("e1");
    cluster.start_edge("e1");
    cluster.wait_node("e1", NodeState::Connected);
    cluster.wait_running("calm", "e1");
    assert!(cluster.edge_log("e1").events("session.refused").is_empty());
}

#[test]
fn case_67_a_certificate_that_ended_while_offline_is_renewed_and_the_work_never_stops() {
    let mut cluster = short_lived(&["e1", "e2"]);
    cluster.deploy(&PipelineText::steady("on").stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "on.out", 3);
    cluster.wait_lines("e2", "on.out", 3);
    cluster.kill_orchestrator();
    let before = [identity(&cluster, "e1"), identity(&cluster, "e2")];
    // e1 lives through it; e2 is off, and comes up from its disk with a certificate that has ended.
    cluster.kill_edge("e2");
    wait_past(now_ms() + i64::try_from(LIFE.as_millis()).unwrap());
    cluster.start_edge("e2");
    cluster.wait_more_lines("e1", "on.out", 3);
    cluster.wait_more_lines("e2", "on.out", 3);
    assert_eq!(before, [identity(&cluster, "e1"), identity(&cluster, "e2")]);

    cluster.start_orchestrator();
    for (edge, (key, certificate)) in ["e1", "e2"].into_iter().zip(before) {
        cluster.wait_node(edge, NodeState::Connected);
        let ended = cluster.edge_log(edge).events("session.renew_only");
        assert!(!ended.is_empty(), "{edge} did come with an ended one");
        let (new_key, new_certificate) = identity(&cluster, edge);
        assert!(new_key == key && new_certificate != certificate, "{edge}");
    }
    assert!(cluster.log().events("session.renew_only").len() >= 2);
    assert_never_stopped(&cluster, "on", "e1");
    cluster.wait_running("on", "e2");
}

/// Waits until an edge is turned away with this word; what it was told.
#[track_caller]
fn wait_refused(cluster: &Cluster, edge: &str, since: Mark, code: &str) -> String {
    wait::until(&format!("{edge} to be refused as {code}"), || {
        let events = cluster
            .edge_log(edge)
            .events_since(since, "session.refused");
        let found = events.iter().find(|event| event["code"] == code);
        found
            .map(|event| event["reason"].as_str().unwrap_or_default().to_owned())
            .ok_or_else(|| format!("{events:?}"))
    })
}

/// Waits until an edge has said of a job's execution that it is in this state.
#[track_caller]
fn wait_said(cluster: &Cluster, edge: &str, since: Mark, job: &str, state: &str) {
    wait::until(&format!("{edge} to say that {job} is {state}"), || {
        let events = cluster
            .edge_log(edge)
            .events_since(since, "execution.state");
        let said = |event: &serde_json::Value| event["job"] == job && event["state"] == state;
        wait::check(events.iter().any(said), || format!("{events:?}"))
    });
}

#[test]
fn case_66_case_70_a_revoked_node_stops_keeps_its_data_and_comes_back_with_a_token_for_it() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    cluster.deploy(&PipelineText::steady("kept").stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "kept.out", 3);
    cluster.wait_lines("e2", "kept.out", 3);
    cluster.wait_running("kept", "e1");
    let id = cluster.api().node("e1").unwrap().id;
    let (key, _) = identity(&cluster, "e1");
    let sessions = |cluster: &Cluster| cluster.edge_log("e1").events("session.open").len();
    let opened = sessions(&cluster);

    cluster
        .sluice(&["node", "revoke", "nobody"])
        .fails(3, &["nobody", "sluice node list"]);
    let since = cluster.edge_log("e1").mark();
    let node: Node = cluster
        .sluice(&["node", "revoke", "e1", "--output", "json"])
        .json();
    assert!(node.revoked_at.is_some());
    assert_eq!(
        node.state,
        NodeState::Disconnected,
        "cut before it is answered"
    );
    let told = wait_refused(&cluster, "e1", since, "revoked");
    assert!(told.contains("sluice token create --node e1"), "{told}");
    wait_said(&cluster, "e1", since, "kept", "stopped");
    let explained = cluster.sluice(&["explain", "kept"]).stdout;
    assert!(explained.contains("e1 was revoked"), "{explained}");
    assert!(cluster.sluice(&["node", "list"]).stdout.contains("revoked"));

    // A restart does not help it.
    cluster.kill_edge("e1");
    let since = cluster.edge_log("e1").mark();
    let written = cluster.lines("e1", "kept.out");
    cluster.start_edge("e1");
    wait_refused(&cluster, "e1", since, "revoked");
    assert_eq!(sessions(&cluster), opened);
    let events = cluster
        .edge_log("e1")
        .events_since(since, "execution.state");
    assert!(
        !events.iter().any(|event| event["state"] == "running"),
        "{events:?}"
    );
    assert_eq!(cluster.lines("e1", "kept.out"), written);
    assert_never_stopped(&cluster, "kept", "e2");

    // With a token for it, it is the same node with another key, and its work goes on where it was.
    cluster.kill_edge("e1");
    let created: TokenCreated = cluster
        .sluice(&["token", "create", "--node", "e1", "--output", "json"])
        .json();
    cluster.start_joining("e1", &created.token, &[]);
    cluster.wait_node("e1", NodeState::Connected);
    cluster.wait_running("kept", "e1");
    let node = cluster.api().node("e1").unwrap();
    assert_eq!((node.id, node.revoked_at), (id, None));
    assert_ne!(identity(&cluster, "e1").0, key);
    let lines = cluster.wait_more_lines("e1", "kept.out", 3);
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(seqs("kept", &lines), expected);
}

#[test]
fn case_71_a_deleted_node_that_calls_stops_keeps_its_data_and_joins_as_a_new_one() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    cluster.deploy(&PipelineText::steady("job").stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "job.out", 3);
    cluster.wait_lines("e2", "job.out", 3);
    let old = cluster.api().node("e1").unwrap().id;
    cluster
        .sluice(&["node", "delete", "e1"])
        .fails(1, &["e1 is connected", "sluice node revoke e1"]);

    cluster.kill_edge("e1");
    cluster.wait_node("e1", NodeState::Disconnected);
    let gone: Node = cluster
        .sluice(&["node", "delete", "e1", "--yes", "--output", "json"])
        .json();
    assert_eq!(gone.id, old);
    cluster
        .sluice(&["node", "describe", "e1"])
        .fails(3, &["e1"]);
    cluster.wait_job_running("job", 1);

    // It boots from its disk and works, until it hears.
    let since = cluster.edge_log("e1").mark();
    cluster.start_edge("e1");
    let told = wait_refused(&cluster, "e1", since, "deleted");
    assert!(told.contains("sluice token create"), "{told}");
    wait_said(&cluster, "e1", since, "job", "stopped");
    let state = cluster.edge_state("e1");
    let executions = std::fs::read_dir(state.join("executions")).unwrap().count();
    assert_eq!(executions, 1, "its data is kept");
    let node = cluster.api().node("e1");
    assert!(node.is_err(), "it is not taken for a node of a lost store");

    cluster.kill_edge("e1");
    let created: TokenCreated = cluster
        .sluice(&["token", "create", "--uses", "2", "--output", "json"])
        .json();
    cluster.start_joining("e1", &created.token, &[]);
    cluster.wait_node("e1", NodeState::Connected);
    assert_ne!(cluster.api().node("e1").unwrap().id, old);
    assert!(state.join(format!("edge.db.{old}")).is_file());
    cluster.wait_running("job", "e1");
    cluster.wait_more_lines("e1", "job.out", 3);
    cluster.wait_job_running("job", 2);
    assert_never_stopped(&cluster, "job", "e2");

    // The token has a use left, until it is revoked.
    let tokens: Vec<Token> = cluster
        .sluice(&["token", "list", "--output", "json"])
        .json();
    let left = tokens.iter().find(|token| token.id == created.id).unwrap();
    assert_eq!(left.uses_left, Some(1));
    let id = created.id.to_string();
    let table = cluster.sluice(&["token", "list"]).stdout;
    assert!(
        table.contains(&id) && !table.contains("sluice1-"),
        "{table}"
    );
    let revoked: Token = cluster
        .sluice(&["token", "revoke", &id, "--output", "json"])
        .json();
    assert_eq!(revoked.id, created.id);
    cluster.sluice(&["token", "revoke", &id]).fails(3, &[&id]);
    let ran = cluster.run(&mut cluster.join_command("e3", &created.token));
    ran.fails(1, &["join token is unknown or has expired"]);
}

#[test]
fn case_68_of_two_copies_of_a_state_directory_one_is_fenced_and_shown() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.kill_edge("e1");
    let copy = cluster.root().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(cluster.edge_state("e1")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    cluster.start_edge("e1");
    // Not the session of the process that was killed, which still seems to be up: else the copy might come first.
    wait::until("e1 to be connected again", || {
        let node = cluster.api().node("e1").map_err(|it| it.to_string())?;
        let counter = node.boot_counter.0;
        wait::check(counter == 2, || format!("boot {counter}"))
    });
    cluster.wait_node("e1", NodeState::Connected);
    // Its boot counter is that of the one which runs: it came second, and is turned away.
    cluster.place_edge_state("copy", &copy);
    cluster.start_edge("copy");
    let told = wait_refused(&cluster, "copy", Mark::default(), "duplicate-identity");
    assert!(told.contains("a directory and a name of its own"), "{told}");
    let node = cluster.api().node("e1").unwrap();
    assert_eq!(node.state, NodeState::Connected);
    assert!(node.alarm.is_some());
    let status = cluster.sluice(&["status"]).stdout;
    assert!(status.contains("a second machine at"), "{status}");
    // The first one speaks on in its first session.
    assert_eq!(cluster.api().node("e1").unwrap().boot_counter.0, 2);
    let superseded = cluster.edge_log("e1").events("session.close");
    assert!(superseded.is_empty(), "{superseded:?}");
}
