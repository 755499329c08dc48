//! Coming back: in one round trip, over another address, beside an old session, and never for somebody who only has a copy of
//! the packets. With real processes; cases 60, 63 and 65 of the failure matrix.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use sluice_model::NodeState;
use sluice_tests::e2e::pipelines::{PipelineText, plugin};
use sluice_tests::e2e::{BareEdge, Cluster, ClusterOptions, NewSockets, wait};
use sluice_transport::{CloseCode, EarlyData, SessionError};

/// Sessions that the orchestrator's disk remembers.
fn remembered(cluster: &Cluster) -> Vec<Vec<u8>> {
    let path = cluster.orchestrator_dir().join("resumption.db");
    let file = rusqlite::Connection::open(path).unwrap();
    let mut statement = file.prepare("SELECT id FROM session").unwrap();
    let ids = statement.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

/// With heartbeats so long that no silence of a restart counts for anything.
fn calm(seconds: u64) -> ClusterOptions {
    ClusterOptions {
        heartbeat: Duration::from_secs(seconds),
        linked: true,
        ..ClusterOptions::default()
    }
}

fn wait_remembered(cluster: &Cluster, count: usize) -> Vec<Vec<u8>> {
    wait::until("the sessions to be on disk", || {
        let ids = remembered(cluster);
        wait::check(ids.len() == count, || format!("{} are", ids.len())).map(|()| ids)
    })
}

/// How an edge's newest dial went.
fn newest_dial(cluster: &Cluster, edge: &str) -> String {
    let dials = cluster.edge_log(edge).events("session.dialled");
    dials.last().unwrap()["early"].as_str().unwrap().to_owned()
}

#[test]
fn an_edge_notices_a_restart_and_is_back_with_its_first_packets() {
    let mut cluster = Cluster::start_with(calm(3), &["e1"]);
    cluster.deploy(&PipelineText::steady("on").stage("same", &plugin("identity"), "{}"));
    cluster.wait_running("on", "e1");
    assert_eq!(newest_dial(&cluster, "e1"), "Unused");
    let mut kept = wait_remembered(&cluster, 1);
    for _ in 0..3 {
        let mark = cluster.edge_log("e1").mark();
        cluster.kill_orchestrator();
        cluster.start_orchestrator();
        cluster.wait_node("e1", NodeState::Connected);
        let closes = cluster.edge_log("e1").events_since(mark, "session.close");
        let why = closes[0]["reason"].as_str().unwrap();
        assert!(why.contains("restarted"), "noticed otherwise: {closes:?}");
        assert_eq!(newest_dial(&cluster, "e1"), "Accepted");
        kept = wait::until("the next session to be on disk", || {
            let ids = remembered(&cluster);
            let next = ids.len() == 1 && ids != kept;
            wait::check(next, || format!("{} are, or the old one", ids.len())).map(|()| ids)
        });
    }
    assert_eq!(cluster.execution("on", "e1").restarts, 0);
}

#[test]
fn case_60_a_new_address_keeps_the_session() {
    let mut cluster = Cluster::start_with(calm(2), &["e1"]);
    cluster.deploy(&PipelineText::steady("first"));
    cluster.wait_running("first", "e1");
    for round in 0..3 {
        cluster.link().rebind();
        let name = format!("after-{round}");
        cluster.deploy(&PipelineText::steady(&name));
        cluster.wait_running(&name, "e1");
    }
    assert_eq!(cluster.log().events("session.open").len(), 1);
    assert!(cluster.edge_log("e1").events("session.close").is_empty());
}

/// The flow of e1's session dies, and of the ways out these are open.
fn stranded(pass: NewSockets) -> Cluster {
    let mut cluster = Cluster::start_with(calm(2), &["e1"]);
    cluster.deploy(&PipelineText::steady("before"));
    cluster.wait_running("before", "e1");
    cluster.link().strand(pass);
    cluster.deploy(&PipelineText::steady("after"));
    cluster.wait_running("after", "e1");
    assert!(!cluster.edge_log("e1").events("session.silent").is_empty());
    assert_eq!(cluster.execution("before", "e1").restarts, 0);
    cluster
}

#[test]
fn case_60_a_flow_that_died_on_the_way_is_left_for_a_new_connection() {
    let cluster = stranded(NewSockets::Dials);
    // It was not for the three heartbeats that end a session.
    let closes = cluster.edge_log("e1").events("session.close");
    assert_eq!(closes.len(), 1, "{closes:?}");
    assert_eq!(closes[0]["reason"], "a newer connection is up");
    assert_eq!(cluster.log().events("session.open").len(), 2);
}

#[test]
fn case_60_a_flow_that_died_on_the_way_is_left_by_moving_to_another_socket() {
    let cluster = stranded(NewSockets::Moved);
    assert!(cluster.edge_log("e1").events("session.close").is_empty());
    assert_eq!(cluster.log().events("session.open").len(), 1);
}

#[test]
fn case_63_the_old_connection_s_end_takes_nothing_from_the_new_one() {
    let cluster = Cluster::start_with(calm(20), &[]);
    let mut edge = BareEdge::join(&cluster.token(), "bare").unwrap();
    let mut old = edge.connect().unwrap();
    edge.begin(&mut old).unwrap();
    // A second attempt that loses: its Hello was read and answered, and it goes without a Begin.
    let loser = edge.connect().unwrap();
    assert_eq!(loser.early, EarlyData::Accepted);
    edge.close(loser);
    edge.heartbeat(&mut old).unwrap();

    let mut new = edge.connect().unwrap();
    edge.begin(&mut new).unwrap();
    match edge.wait_end(&old).unwrap() {
        SessionError::Closed { code, .. } => assert_eq!(code, CloseCode::SUPERSEDED),
        other => panic!("the old session ended otherwise: {other}"),
    }
    edge.close(old);
    for _ in 0..3 {
        edge.heartbeat(&mut new).unwrap();
    }
    let node = cluster.api().node("bare").unwrap();
    assert_eq!(node.state, NodeState::Connected);
    assert_eq!(cluster.log().events("session.open").len(), 2);
}

#[test]
fn case_65_a_first_flight_that_is_played_again_changes_nothing() {
    let mut cluster = Cluster::start_with(calm(3), &["e1"]);
    cluster.deploy(&PipelineText::steady("kept"));
    cluster.wait_running("kept", "e1");
    wait_remembered(&cluster, 1);
    let mark = cluster.log().mark();
    cluster.link().record();
    cluster.kill_orchestrator();
    cluster.start_orchestrator();
    cluster.wait_node("e1", NodeState::Connected);
    assert_eq!(newest_dial(&cluster, "e1"), "Accepted");
    // It has the end of the old session in it, the first flight of the new one, and more.
    let packets = cluster.link().recorded();
    assert!(!packets.is_empty());
    let before = cluster.api().node("e1").unwrap();
    for _ in 0..3 {
        cluster.link().replay(&packets);
    }
    wait::until("the orchestrator to have answered a replay", || {
        let traffic = cluster.link().traffic();
        wait::check(traffic.to_replays > 0, || format!("{traffic:?}"))
    });
    // The session that it would have replaced is alive: it still brings news in both directions.
    cluster.deploy(&PipelineText::steady("later"));
    cluster.wait_running("later", "e1");
    assert_eq!(cluster.api().node("e1").unwrap().id, before.id);
    assert_eq!(cluster.log().events_since(mark, "session.open").len(), 1);
    assert!(cluster.log().events_since(mark, "session.close").is_empty());
    assert_eq!(cluster.edge_log("e1").events("session.dialled").len(), 2);
}

#[test]
fn case_65_a_session_that_a_crash_revived_is_good_for_a_welcome_only() {
    let mut cluster = Cluster::start_with(calm(3), &["e1"]);
    cluster.deploy(&PipelineText::steady("kept"));
    cluster.wait_running("kept", "e1");
    let old = wait_remembered(&cluster, 1);
    // What the disk would hold if the machine had died before it heard that the session was taken.
    cluster.kill_orchestrator();
    let copy = cluster.root().join("revived");
    copy_file(&cluster, &copy);
    cluster.link().record();
    cluster.start_orchestrator();
    cluster.wait_node("e1", NodeState::Connected);
    assert_eq!(newest_dial(&cluster, "e1"), "Accepted");
    let packets = cluster.link().recorded();
    cluster.kill_orchestrator();
    cluster.link().cut();
    cluster.kill_edge("e1");
    restore_file(&cluster, &copy);
    let mark = cluster.log().mark();
    cluster.start_orchestrator();
    assert_eq!(remembered(&cluster), old);

    cluster.link().replay(&packets);
    // Taken, so the Hello was early data that counted, and was read; and what then?
    wait_remembered(&cluster, 0);
    wait::until("the orchestrator to have answered the replay", || {
        let traffic = cluster.link().traffic();
        wait::check(traffic.to_replays > 0, || format!("{traffic:?}"))
    });
    let node = cluster.api().node("e1").unwrap();
    assert_eq!(node.state, NodeState::Disconnected);
    assert!(cluster.log().events_since(mark, "session.open").is_empty());

    cluster.link().mend();
    cluster.start_edge("e1");
    cluster.wait_node("e1", NodeState::Connected);
    cluster.wait_running("kept", "e1");
    assert_eq!(cluster.log().events_since(mark, "session.open").len(), 1);
}

/// The sessions' file of an orchestrator that was killed, with what SQLite keeps beside it.
fn copy_file(cluster: &Cluster, to: &Path) {
    std::fs::create_dir(to).unwrap();
    move_files(&cluster.orchestrator_dir(), to);
}

fn restore_file(cluster: &Cluster, from: &Path) {
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(
            cluster
                .orchestrator_dir()
                .join(format!("resumption.db{ending}")),
        );
    }
    move_files(from, &cluster.orchestrator_dir());
}

fn move_files(from: &Path, to: &Path) {
    for ending in ["", "-wal", "-shm"] {
        let name = format!("resumption.db{ending}");
        if from.join(&name).exists() {
            std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

#[test]
fn case_66_a_revoked_node_s_ticket_buys_a_refusal() {
    let cluster = Cluster::start_with(calm(20), &[]);
    let mut edge = BareEdge::join(&cluster.token(), "bare").unwrap();
    let mut session = edge.connect().unwrap();
    edge.begin(&mut session).unwrap();
    edge.close(session);
    // Its ticket was never used, and it works: nothing of the revoking reached the machine.
    assert_eq!(cluster.sluice(&["node", "revoke", "bare"]).code, 0);
    let opened = cluster.log().events("session.open").len();
    let refusal = edge.connect().unwrap_err().to_string();
    assert!(refusal.contains("Reject"), "{refusal}");
    let refused = cluster.log().events("session.refused");
    assert_eq!(refused.last().unwrap()["code"], "revoked", "{refused:?}");
    assert_eq!(cluster.log().events("session.open").len(), opened);
}

#[test]
fn a_resumed_session_with_an_old_key_is_refused() {
    let cluster = Cluster::start_with(calm(20), &[]);
    let mut edge = BareEdge::join(&cluster.token(), "bare").unwrap();
    let mut session = edge.connect().unwrap();
    edge.begin(&mut session).unwrap();
    // The same node joins again with a new key: what the first holds is a ticket that works, for a key that does not.
    let mut renewed = BareEdge::join(&cluster.token_for(Some("bare")), "bare").unwrap();
    edge.close(session);
    let refusal = edge.connect().unwrap_err().to_string();
    assert!(refusal.contains("Reject"), "{refusal}");
    let refused = cluster.log().events("session.refused");
    assert_eq!(refused.last().unwrap()["code"], "revoked", "{refused:?}");
    let mut session = renewed.connect().unwrap();
    assert_eq!(session.early, EarlyData::Unused);
    renewed.begin(&mut session).unwrap();
}
