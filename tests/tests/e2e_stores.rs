//! Stores that are lost or damaged, with real processes: cases 46, 47, 49 and 87 of the failure matrix.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use sluice_model::{ExecutionState, NodeState};
use sluice_tests::e2e::pipelines::{PipelineText, padded_component, plugin, seqs};
use sluice_tests::e2e::{Cluster, wait};

/// What a program gets to refuse a store in: it only has to look.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);

/// Brings what a killed program left in the log beside its store into the store's one file.
fn checkpoint(store: &Path) {
    let connection = rusqlite::Connection::open(store).unwrap();
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
}

/// Writes a store's file whole, and what belonged to another one beside it goes.
fn put(store: &Path, bytes: &[u8]) {
    let name = store.to_str().unwrap();
    for beside in ["-wal", "-shm"] {
        // Whoever ended well left none.
        let _ = std::fs::remove_file(format!("{name}{beside}"));
    }
    std::fs::write(store, bytes).unwrap();
}

/// Flips one bit of the store's file wherever these bytes stand: pages may hold what was moved away.
fn flip(store: &Path, within: &str) {
    checkpoint(store);
    let mut bytes = std::fs::read(store).unwrap();
    let places: Vec<usize> = bytes
        .windows(within.len())
        .enumerate()
        .filter(|(_, window)| *window == within.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{within:?} is not in the store");
    for at in places {
        bytes[at + within.len() / 2] ^= 0x04;
    }
    put(store, &bytes);
}

/// A pipeline whose text is found in a store by a word that stands in no other.
fn marked(job: &str, word: &str) -> PipelineText {
    PipelineText::steady(job).template("100ms", 0, &format!("{word} seq ${{seq}}"))
}

#[test]
fn case_46_a_flipped_bit_in_a_pipelines_text_is_noticed_and_only_its_work_waits_for_it() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&marked("hurt", "wounded"));
    cluster.deploy(&marked("well", "healthy"));
    // Long enough for checkpoints.
    cluster.wait_lines("e1", "hurt.out", 25);
    cluster.wait_lines("e1", "well.out", 25);
    let before = cluster.execution("hurt", "e1");
    cluster.kill_orchestrator();
    cluster.kill_edge("e1");
    flip(&cluster.edge_state("e1").join("edge.db"), "wounded seq");

    let mark = cluster.edge_log("e1").mark();
    cluster.start_edge("e1");
    cluster.wait_more_lines("e1", "well.out", 10);
    let trouble = cluster.edge_log("e1").events_since(mark, "store.trouble");
    let reason = trouble[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("a pipeline's text is not what was written"),
        "{reason}"
    );
    let stands = cluster.lines("e1", "hurt.out").len();
    cluster.wait_more_lines("e1", "well.out", 10);
    assert_eq!(cluster.lines("e1", "hurt.out").len(), stands);

    cluster.start_orchestrator();
    cluster.wait_more_lines("e1", "hurt.out", 10);
    let after = cluster.wait_running("hurt", "e1");
    assert_eq!(
        (after.id, after.version, after.attempt),
        (before.id, before.version, before.attempt)
    );
    for (job, word) in [("hurt", "wounded"), ("well", "healthy")] {
        let lines = cluster.lines("e1", &format!("{job}.out"));
        let numbers = seqs(word, &lines);
        let begun = numbers.iter().filter(|&&number| number == 0).count();
        assert_eq!(begun, 1, "{job} started over: {numbers:?}");
        cluster.wait_job_running(job, 1);
    }
}

#[test]
fn case_47_a_flipped_bit_in_the_orchestrators_store_is_refused_with_the_way_out() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&marked("kept", "preserved"));
    cluster.wait_lines("e1", "kept.out", 5);
    cluster.kill_orchestrator();
    let store = cluster.orchestrator_dir().join("orchestrator.db");
    checkpoint(&store);
    let backup = std::fs::read(&store).unwrap();

    let refused = |cluster: &mut Cluster, says: &str| {
        let log = cluster.log();
        let mark = log.mark();
        let mut command = cluster.orchestrator_command();
        let ran = cluster.run(&mut command);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
        for part in [says, "is damaged", "from a backup", "edges be adopted"] {
            assert!(ran.stderr.contains(part), "{part:?} is not in {ran:?}");
        }
        assert!(log.events_since(mark, "orchestrator.ready").is_empty());
    };
    // The text of a pipeline.
    flip(&store, "preserved seq");
    refused(&mut cluster, "are not what was written");
    // The row of an execution.
    put(&store, &backup);
    let connection = rusqlite::Connection::open(&store).unwrap();
    let mut body: Vec<u8> = connection
        .query_row("SELECT body FROM execution", [], |row| row.get(0))
        .unwrap();
    body[3] ^= 0x10;
    let changed = connection.execute("UPDATE execution SET body = ?1", [&body]);
    assert_eq!(changed.unwrap(), 1);
    drop(connection);
    refused(&mut cluster, "the assignments of node e1");
    // Pages that are no pages of a store.
    checkpoint(&store);
    let mut bytes = backup.clone();
    bytes[4096..3 * 4096].fill(0xa5);
    put(&store, &bytes);
    refused(&mut cluster, "");

    // The edge never noticed, and the backup is the way out.
    cluster.wait_more_lines("e1", "kept.out", 10);
    put(&store, &backup);
    cluster.start_orchestrator();
    cluster.wait_node("e1", NodeState::Connected);
    cluster.wait_job_running("kept", 1);
    let numbers = seqs("preserved", &cluster.lines("e1", "kept.out"));
    let expected: Vec<u64> = (0..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "its work never stopped");
    wait::within(REFUSED_WITHIN, "deploys to work again", || {
        let ran = cluster.try_deploy(&PipelineText::steady("next").text());
        wait::check(ran.code == 0, || format!("{ran:?}"))
    });
    cluster.wait_job_running("next", 1);
}

#[test]
fn case_49_an_edge_that_lost_only_its_store_gets_all_rows_and_runs_nothing_twice() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("back").stage("same", &plugin("identity"), "{}"));
    cluster.deploy(
        &PipelineText::steady("ended")
            .generate("", 100)
            .output("ended.txt"),
    );
    let ended = cluster.wait_execution("ended", "e1", "completed", |execution| {
        execution.state == ExecutionState::Completed
    });
    cluster.wait_lines("e1", "back.out", 15);
    let before = cluster.execution("back", "e1");
    let node = cluster.api().node("e1").unwrap();
    cluster.kill_edge("e1");
    let state = cluster.edge_state("e1");
    std::fs::remove_file(state.join("edge.db")).unwrap();
    for beside in ["edge.db-wal", "edge.db-shm"] {
        // Not every start leaves one.
        let _ = std::fs::remove_file(state.join(beside));
    }

    let mark = cluster.edge_log("e1").mark();
    cluster.start_edge("e1");
    wait::until("the node to be another incarnation", || {
        let now = cluster.api().node("e1").map_err(|it| it.to_string())?;
        assert_eq!(now.id, node.id, "it must be the same node");
        let new = now.state == NodeState::Connected && now.incarnation != node.incarnation;
        wait::check(new, || format!("{now:?}"))
    });
    let after = cluster.wait_running("back", "e1");
    assert_eq!(
        (after.id, after.version, after.attempt),
        (before.id, before.version, before.attempt)
    );
    cluster.wait_more_lines("e1", "back.out", 10);
    // All its rows came at once, from nothing to the newest revision.
    let received = cluster.edge_log("e1").events_since(mark, "ledger.received");
    assert_eq!(received.len(), 1, "{received:?}");
    assert_eq!(received[0]["upserts"], 2, "{received:?}");
    assert_eq!(
        received[0]["rev"],
        cluster.api().node("e1").unwrap().desired_rev.0
    );

    // What had ended is known to have ended, and is not done again.
    let again = cluster.execution("ended", "e1");
    assert_eq!(
        (again.id, again.state, again.attempt, again.records_out),
        (ended.id, ExecutionState::Completed, ended.attempt, 100)
    );
    assert_eq!(cluster.lines("e1", "ended.txt").len(), 100);
    let opened = cluster.edge_log("e1").events_since(mark, "session.open");
    assert_eq!(opened.len(), 1, "{opened:?}");
}

#[test]
fn case_87_what_cannot_be_fetched_says_when_it_is_tried_again_and_the_old_version_runs_on() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("job").stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "job.out", 5);
    // The orchestrator loses the next version's component before the edge has it.
    cluster.kill_edge("e1");
    let component = std::fs::read(plugin("identity")).unwrap();
    let component = padded_component(&component, 87, 100);
    let digest = sluice_model::Digest::of(&component).to_hex();
    let path = cluster.root().join("identity-87.wasm");
    std::fs::write(&path, &component).unwrap();
    cluster.deploy(&PipelineText::steady("job").stage("same", &path, "{}"));
    let kept = cluster.orchestrator_dir().join("artifacts");
    let kept = kept.join(format!("{digest}.wasm"));
    std::fs::remove_file(&kept).unwrap();
    cluster.start_edge("e1");
    let waits = cluster.wait_execution("job", "e1", "unable to fetch it", |execution| {
        execution.version.0 == 2
            && execution.next_at.is_some()
            && execution
                .reason_code
                .is_some_and(|code| code.as_str() == "fetching")
    });
    assert_eq!(waits.state, ExecutionState::Pending, "{waits:?}");
    let observed = waits.observed.unwrap();
    assert_eq!(observed.version.0, 2, "{observed:?}");
    cluster.wait_more_lines("e1", "job.out", 10);

    std::fs::write(&kept, &component).unwrap();
    let runs = cluster.wait_running("job", "e1");
    assert_eq!(runs.version.0, 2);
    cluster.wait_more_lines("e1", "job.out", 5);
}
