//! Deaths, wipes, deletions and bad components, with real processes: cases 39, 48, 50, 69, 70, 78, 80, 81, 82, 85, 86 of the
//! failure matrix.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use sluice_api::{ArtifactInfo, DeployOutcome, DeployReply, DeployRequest, Execution, routes};
use sluice_model::{Digest, ExecutionState, NodeState, Version};
use sluice_tests::e2e::pipelines::{PipelineText, padded_component, plugin, seqs};
use sluice_tests::e2e::{Cluster, Conditions, JsonLog, Process, Refusal, dir_text, wait};

/// A component that takes seconds on a narrow link.
const LARGE_BYTES: usize = 3 << 20;

/// What the narrow link lets through in a second.
const NARROW_BYTES_PER_SECOND: u32 = 1 << 20;

/// Bytes of a component that must have come before the edge is killed.
const PART_BYTES: u64 = 1 << 20;

/// A variant of the identity stage with a digest of its own, written into the cluster's directory.
fn variant(cluster: &Cluster, mark: u64, padding: usize) -> (PathBuf, Digest) {
    let component = std::fs::read(plugin("identity")).unwrap();
    let bytes = padded_component(&component, mark, padding);
    let path = cluster.root().join(format!("identity-{mark}.wasm"));
    std::fs::write(&path, &bytes).unwrap();
    (path, Digest::of(&bytes))
}

/// A component in an edge's cache: whole or in parts.
fn cached(cluster: &Cluster, edge: &str, digest: Digest, ending: &str) -> PathBuf {
    let name = format!("artifacts/{}.{ending}", digest.to_hex());
    cluster.edge_state(edge).join(name)
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |facts| facts.len())
}

#[test]
fn case_39_a_download_goes_on_where_the_killed_edge_was() {
    let mut cluster = Cluster::start_linked(&["e1"]);
    let (large, digest) = variant(&cluster, 39, LARGE_BYTES);
    let narrow = Conditions {
        bytes_per_second: Some(NARROW_BYTES_PER_SECOND),
        ..Conditions::default()
    };
    cluster.link().set(Conditions::default(), narrow);
    cluster.deploy(&PipelineText::steady("large").stage("same", &large, "{}"));
    let part = cached(&cluster, "e1", digest, "part");
    let whole = cached(&cluster, "e1", digest, "wasm");
    wait::until("a third of the component to have come", || {
        assert!(!whole.exists(), "it came whole, the link was not narrow");
        wait::check(length(&part) > PART_BYTES, || {
            format!("{} bytes", length(&part))
        })
    });
    let fetching = cluster.execution("large", "e1");
    assert_eq!(
        fetching.reason_code.unwrap().as_str(),
        "fetching",
        "{fetching:?}"
    );
    cluster.kill_edge("e1");
    let left = length(&part);
    assert!(
        left > PART_BYTES && !whole.exists(),
        "{left} bytes are left"
    );

    // What was still on its way to the dead process does not count.
    cluster.link().cut();
    cluster.link().mend();
    let before = cluster.link().traffic().down.passed_bytes;
    cluster.start_edge("e1");
    cluster.wait_running("large", "e1");
    let came = cluster.link().traffic().down.passed_bytes - before;
    let missing = LARGE_BYTES as u64 - left;
    assert!(
        came < missing + PART_BYTES / 2,
        "{came} bytes came where {missing} were missing: it started over"
    );
    let bytes = std::fs::read(&whole).unwrap();
    assert_eq!(Digest::of(&bytes), digest);
    assert!(!part.exists(), "{}", dir_text(part.parent().unwrap()));
    cluster.wait_lines("e1", "large.out", 3);
    cluster.wait_job_running("large", 1);
}

#[test]
fn case_50_after_a_power_cut_an_edge_runs_its_last_work_without_a_network() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("alone").stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "alone.out", 25);
    let before = cluster.execution("alone", "e1");
    cluster.kill_orchestrator();
    cluster.kill_edge("e1");
    cluster.start_edge("e1");
    let lines = cluster.wait_more_lines("e1", "alone.out", 10);
    assert_eq!(
        cluster.sluice(&["status"]).code,
        4,
        "there was an orchestrator"
    );
    let numbers = seqs("alone", &lines);
    let zeros = numbers.iter().filter(|&&number| number == 0).count();
    assert_eq!(zeros, 1, "it started over: {numbers:?}");

    let mark = cluster.log().mark();
    cluster.start_orchestrator();
    cluster.wait_node("e1", NodeState::Connected);
    let after = cluster.wait_running("alone", "e1");
    assert_eq!((after.id, after.version), (before.id, before.version));
    let sent = cluster.log().events_since(mark, "ledger.sent");
    assert!(sent.is_empty(), "it had everything, but was sent {sent:?}");
    cluster.wait_more_lines("e1", "alone.out", 3);
    cluster.wait_job_running("alone", 1);
}

#[test]
fn case_69_a_second_process_on_an_edge_s_directory_ends_and_says_why() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("single"));
    cluster.wait_running("single", "e1");
    let pid = cluster.edge("e1").pid().to_string();
    let state = cluster.edge_state("e1");
    let second = cluster.run(&mut cluster.edge_command("e1"));
    second.fails(1, &[state.to_str().unwrap(), &pid]);

    assert!(cluster.edge("e1").ended().is_none());
    let lines = cluster.wait_more_lines("e1", "single.out", 5);
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(seqs("single", &lines), expected);
    assert_eq!(cluster.log().events("session.open").len(), 1);
    assert_eq!(cluster.execution("single", "e1").restarts, 0);
    cluster.wait_job_running("single", 1);
}

#[test]
fn case_70_a_wiped_machine_comes_back_to_its_work_with_a_token_for_it() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    cluster.deploy(&PipelineText::steady("back").stage("same", &plugin("identity"), "{}"));
    cluster.wait_job_running("back", 2);
    let node = cluster.api().node("e1").unwrap();
    let execution = cluster.execution("back", "e1");
    cluster.kill_edge("e1");
    let old = cluster.root().join("e1-before");
    copy_dir(&cluster.edge_state("e1"), &old);
    cluster.wipe_edge("e1");
    cluster.wait_node("e1", NodeState::Disconnected);

    // Any other token does not let it back in.
    let token = cluster.token();
    let refused = cluster.run(&mut cluster.join_command("e1", &token));
    refused.fails(1, &["registered already", "sluice token create --node e1"]);
    let token = cluster.token_for(Some("e1"));
    cluster.start_joining("e1", &token, &[]);
    cluster.wait_node("e1", NodeState::Connected);
    let again = cluster.wait_running("back", "e1");
    assert_eq!(again.id, execution.id);
    let back = cluster.api().node("e1").unwrap();
    assert_eq!(back.id, node.id, "it must be the same node");
    assert_ne!(back.incarnation, node.incarnation, "its store is a new one");
    cluster.wait_more_lines("e1", "back.out", 5);

    // The old key does not count any more: whoever still has it gets no session, and does not disturb the new one.
    let mark = cluster.log().mark();
    let mut command = cluster.edge_command_in(&old);
    let (out, log) = (
        cluster.root().join("ghost.out"),
        cluster.root().join("ghost.log"),
    );
    let mut ghost = Process::start("the old e1", &mut command, &out, &log);
    wait::until("the old key to be refused", || {
        let refused = cluster.log().events_since(mark, "session.refused");
        wait::check(!refused.is_empty(), || "nothing was refused".to_owned())
    });
    assert!(cluster.log().events_since(mark, "session.open").is_empty());
    let said = JsonLog::at(log);
    wait::until("the old key to go away for minutes", || {
        let redials = said.events("session.redial");
        let refused = said.events("session.refused").len();
        assert!(refused <= 1, "it dials again and again: {refused} times");
        let after_ms = redials.first().and_then(|it| it["after_ms"].as_u64());
        wait::check(after_ms >= Some(60_000), || format!("{redials:?}"))
    });
    if ghost.ended().is_none() {
        ghost.kill();
    }
    assert_eq!(
        cluster.api().node("e1").unwrap().state,
        NodeState::Connected
    );
    cluster.wait_job_running("back", 2);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn case_78_of_two_updates_while_offline_only_the_last_runs() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("job"));
    cluster.wait_lines("e1", "job.out", 3);
    cluster.kill_edge("e1");
    cluster.wait_node("e1", NodeState::Disconnected);
    let (second, second_digest) = variant(&cluster, 2, 0);
    let (third, third_digest) = variant(&cluster, 3, 0);
    let text = |component: &Path, output: &str| {
        PipelineText::steady("job")
            .stage("same", component, "{}")
            .output(output)
    };
    cluster.deploy(&text(&second, "second.out"));
    let reply = cluster.deploy(&text(&third, "third.out"));
    assert_eq!(reply.version, Version(3));
    let waiting = cluster.wait_waiting("job", "e1");
    assert_eq!(waiting.version, Version(3));

    let edge_mark = cluster.edge_log("e1").mark();
    cluster.start_edge("e1");
    cluster.wait_execution("job", "e1", "running at version 3", |execution| {
        execution.state == ExecutionState::Running && execution.version == Version(3)
    });
    cluster.wait_lines("e1", "third.out", 3);
    assert!(
        !cluster.edge_file("e1", "second.out").exists(),
        "version 2 ran"
    );
    assert!(cached(&cluster, "e1", third_digest, "wasm").exists());
    for ending in ["wasm", "part"] {
        let path = cached(&cluster, "e1", second_digest, ending);
        assert!(!path.exists(), "version 2 was fetched");
    }
    let states = cluster
        .edge_log("e1")
        .events_since(edge_mark, "execution.state");
    assert!(!states.is_empty());
    assert!(
        states.iter().all(|event| event["version"] != 2),
        "{states:?}"
    );
    cluster.wait_job_running("job", 1);
}

#[test]
fn case_80_a_job_deleted_while_its_node_is_away_is_purged_on_return() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("gone"));
    cluster.deploy(&PipelineText::steady("stays"));
    cluster.wait_lines("e1", "gone.out", 15);
    cluster.wait_running("stays", "e1");
    let execution = cluster.execution("gone", "e1");
    let state = execution_state(&cluster, &execution);
    cluster.kill_edge("e1");
    cluster.wait_node("e1", NodeState::Disconnected);

    let deleted = cluster.sluice(&["job", "delete", "gone", "--yes"]);
    assert_eq!(deleted.code, 0, "{deleted:?}");
    cluster
        .sluice(&["job", "describe", "gone"])
        .fails(3, &["gone"]);
    let names: Vec<_> = cluster
        .api()
        .jobs()
        .unwrap()
        .into_iter()
        .map(|job| job.name)
        .collect();
    assert_eq!(names, ["stays".parse().unwrap()]);
    let purging = cluster.api().executions().unwrap();
    assert!(
        purging
            .iter()
            .any(|it| it.id == execution.id && it.desired.as_str() == "purge"),
        "{purging:?}"
    );
    // The name is free at once, although the node is away.
    let free = cluster.root().join("pipelines/free.toml");
    std::fs::write(&free, PipelineText::steady("gone").text()).unwrap();
    let path = free.to_str().unwrap();
    let dry: DeployReply = cluster
        .sluice(&["deploy", path, "--dry-run", "--output", "json"])
        .json();
    assert_eq!((dry.outcome, dry.id), (DeployOutcome::Created, None));

    // It may run for a moment, as it would without a network: until the edge hears of the deletion.
    cluster.start_edge("e1");
    wait::until("the execution to be purged", || {
        let left = cluster
            .api()
            .executions()
            .map_err(|refusal| refusal.to_string())?;
        wait::check(left.len() == 1, || format!("{left:?}"))
    });
    assert!(!state.exists(), "{}", dir_text(&state));
    let length = cluster.lines("e1", "gone.out").len();
    cluster.wait_more_lines("e1", "stays.out", 5);
    assert_eq!(
        cluster.lines("e1", "gone.out").len(),
        length,
        "it runs although it was purged"
    );
    assert!(!state.exists(), "{}", dir_text(&state));
    cluster.wait_job_running("stays", 1);
}

#[test]
fn case_81_a_job_deleted_and_made_again_is_a_new_one() {
    let mut cluster = Cluster::start(&["e1"]);
    let old = cluster.deploy(&PipelineText::steady("phoenix"));
    cluster.wait_lines("e1", "phoenix.out", 25);
    let old_execution = cluster.execution("phoenix", "e1");
    let old_state = execution_state(&cluster, &old_execution);
    cluster.kill_edge("e1");
    cluster.wait_node("e1", NodeState::Disconnected);
    let deleted = cluster.sluice(&["job", "delete", "phoenix", "--yes"]);
    assert_eq!(deleted.code, 0, "{deleted:?}");
    let new = cluster.deploy(&PipelineText::steady("phoenix").output("new.out"));
    assert_eq!(
        (new.outcome, new.version),
        (DeployOutcome::Created, Version(1))
    );
    assert!(new.id.is_some() && new.id != old.id, "{new:?}");

    cluster.start_edge("e1");
    let running = cluster.wait_running("phoenix", "e1");
    assert_ne!(running.id, old_execution.id);
    assert_eq!(Some(running.job_id), new.id);
    let lines = cluster.wait_lines("e1", "new.out", 5);
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(
        seqs("phoenix", &lines),
        expected,
        "the old checkpoint came back"
    );
    wait::until("the old state to be purged", || {
        wait::check(!old_state.exists(), || dir_text(&old_state))
    });
    let detail = cluster.wait_job_running("phoenix", 1);
    assert_eq!(Some(detail.job.id), new.id);
}

/// The directory in which the edge keeps an execution's state; it must be there.
fn execution_state(cluster: &Cluster, execution: &Execution) -> PathBuf {
    let all = cluster.edge_state("e1").join("executions");
    let state = all.join(execution.id.to_string());
    assert!(state.is_dir(), "{}", dir_text(&all));
    state
}

#[test]
fn case_86_a_bad_component_is_refused_before_the_old_version_stops() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("good").stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "good.out", 3);
    let plugins = cluster.api().plugins().unwrap().len();
    let revision = cluster.api().node("e1").unwrap().desired_rev;

    let good = std::fs::read(plugin("identity")).unwrap();
    let sockets = std::fs::read(plugin("wasi_sockets")).unwrap();
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    for (name, bytes, says) in [
        ("cut", good[..good.len() / 2].to_vec(), "is not a component"),
        ("text", b"not wasm at all".to_vec(), "is not a component"),
        ("core", core_module, "is not a component"),
        ("sockets", sockets.clone(), "wasi:sockets"),
    ] {
        // The CLI refuses it before anything is sent.
        let path = cluster.root().join(format!("{name}.wasm"));
        std::fs::write(&path, &bytes).unwrap();
        let bad = PipelineText::steady("good").stage("bad", &path, "{}");
        cluster
            .try_deploy(&bad.text())
            .fails(2, &[says, "bad", name]);

        // The orchestrator refuses it from anybody: when it is sent, or when it is deployed.
        let digest = Digest::of(&bytes);
        let target = routes::fill(routes::ARTIFACT, &[&digest.to_string()]);
        let sent: Result<ArtifactInfo, _> = cluster.api().put(&target, bytes);
        let request = DeployRequest {
            pipeline: bad.text(),
            plugins: [("bad".parse().unwrap(), digest)].into(),
            dry_run: false,
        };
        let deployed: Result<DeployReply, _> = cluster.api().post(routes::DEPLOY, &request);
        assert!(sent.is_err() || name == "sockets", "{name}: {sent:?}");
        match deployed {
            Err(Refusal::Refused(422, _)) => {}
            other => panic!("{name}: {other:?}"),
        }
    }

    let kept = cluster.api().plugins().unwrap();
    assert!(
        kept.len() <= plugins + 1,
        "only what is a component may be stored: {kept:?}"
    );
    assert_eq!(
        cluster.api().node("e1").unwrap().desired_rev,
        revision,
        "something was planned"
    );
    let lines = cluster.wait_more_lines("e1", "good.out", 5);
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(seqs("good", &lines), expected);
    let execution = cluster.execution("good", "e1");
    assert_eq!((execution.version, execution.restarts), (Version(1), 0));
    cluster.wait_job_running("good", 1);
}

#[test]
fn case_48_a_damaged_component_is_noticed_and_fetched_again() {
    let mut cluster = Cluster::start(&["e1"]);
    let (component, digest) = variant(&cluster, 48, 0);
    cluster.deploy(&PipelineText::steady("job").stage("same", &component, "{}"));
    cluster.wait_lines("e1", "job.out", 3);
    let file = cached(&cluster, "e1", digest, "wasm");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    cluster.wait_more_lines("e1", "job.out", 3);

    // Without a link it is not run, and not forgotten either.
    cluster.kill_orchestrator();
    cluster.kill_edge("e1");
    let mark = cluster.edge_log("e1").mark();
    cluster.start_edge("e1");
    wait::until("the damage to be noticed", || {
        let noticed = cluster
            .edge_log("e1")
            .events_since(mark, "artifact.damaged");
        wait::check(!noticed.is_empty(), || "nothing is noticed".to_owned())
    });
    let lines = cluster.lines("e1", "job.out").len();
    cluster.start_orchestrator();
    cluster.wait_running("job", "e1");
    cluster.wait_lines("e1", "job.out", lines + 3);
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(Digest::of(&whole), digest);
    cluster.wait_job_running("job", 1);
}

/// Makes an execution's opening last for ever: its checkpoint is a pipe that nobody writes to.
fn open_for_ever(state: &Path) {
    let checkpoint = state.join("checkpoint");
    if checkpoint.exists() {
        std::fs::remove_file(&checkpoint).unwrap();
    }
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &checkpoint, kind, mode, 0).unwrap();
}

#[test]
fn case_85_what_three_processes_died_of_is_left_out_and_the_edge_stays_in_reach() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("deadly").stage("same", &plugin("identity"), "{}"));
    cluster.deploy(&PipelineText::steady("good"));
    cluster.wait_lines("e1", "deadly.out", 3);
    cluster.wait_lines("e1", "good.out", 3);
    let deadly = cluster.execution("deadly", "e1");
    let state = execution_state(&cluster, &deadly);
    cluster.kill_edge("e1");
    open_for_ever(&state);

    // Each process is killed at the same point, as one that runs out of memory there would be.
    for _ in 0..3 {
        let mark = cluster.edge_log("e1").mark();
        cluster.start_edge("e1");
        wait::until("the deadly one to be opened beside the good one", || {
            let states = cluster.edge_log("e1").events_since(mark, "execution.state");
            let is = |job: &str, state: &str, reason: &str| {
                states.iter().any(|event| {
                    event["job"] == job && event["state"] == state && event["reason"] == reason
                })
            };
            let there =
                is("deadly", "starting", "opening input and output") && is("good", "running", "");
            wait::check(there, || format!("{states:?}"))
        });
        cluster.kill_edge("e1");
    }

    let mark = cluster.edge_log("e1").mark();
    cluster.start_edge("e1");
    let left_out = cluster.wait_execution("deadly", "e1", "left out", |execution| {
        let code = execution.reason_code.map(|code| code.as_str());
        execution.state == ExecutionState::Pending && code == Some("backoff")
    });
    let reason = left_out.reason.unwrap();
    assert!(reason.contains("died 3 times in a row"), "{reason}");
    assert!(left_out.next_at.is_some());
    cluster.wait_running("good", "e1");
    cluster.wait_more_lines("e1", "good.out", 3);
    let opened = cluster.edge_log("e1").events_since(mark, "execution.state");
    let tried = opened
        .iter()
        .any(|event| event["job"] == "deadly" && event["state"] != "backoff");
    assert!(!tried, "it was tried again: {opened:?}");

    // The edge is in reach, so it can be told a version that works.
    std::fs::remove_file(state.join("checkpoint")).unwrap();
    cluster.deploy(
        &PipelineText::steady("deadly")
            .stage("same", &plugin("identity"), "{}")
            .output("mended.out"),
    );
    cluster.wait_lines("e1", "mended.out", 3);
    cluster.wait_job_running("deadly", 1);
}

#[test]
fn case_82_a_version_that_cannot_be_configured_is_rolled_back_by_itself() {
    let cluster = Cluster::start(&["e1", "e2", "e3"]);
    let rules = "canary = 1, min_healthy = '1s'";
    let good = PipelineText::steady("job")
        .rollout(rules)
        .stage("same", &plugin("identity"), "{}");
    let file = cluster.root().join("job.toml");
    std::fs::write(&file, good.text()).unwrap();
    let path = file.to_str().unwrap().to_owned();
    let deployed = cluster.sluice(&["deploy", &path, "--wait=60s"]);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    cluster.wait_job_running("job", 3);

    let bad = PipelineText::steady("job").rollout(rules).stage(
        "same",
        &plugin("filter_contains"),
        "{ has = 'x' }",
    );
    std::fs::write(&file, bad.text()).unwrap();
    cluster.sluice(&["deploy", &path, "--wait=60s"]).fails(
        1,
        &[
            "job version 2 failed",
            "e1: failed/configure",
            "it was rolled back: version 3 is version 1 again",
            "sluice rollout status job",
        ],
    );
    let report = cluster.sluice(&["rollout", "status", "job"]);
    assert_eq!(report.code, 0, "{report:?}");
    for part in [
        "version 1 -> version 2 -> version 3, the old content again",
        "rolled-back",
        "e1 failed: failed/configure",
    ] {
        assert!(report.stdout.contains(part), "{part}: {}", report.stdout);
    }
    assert!(
        report.stdout.lines().count() <= 40,
        "more than a screen: {}",
        report.stdout
    );
    cluster.wait_job_running("job", 3);
    for (edge, version) in [("e1", 3), ("e2", 1), ("e3", 1)] {
        let execution = cluster.execution("job", edge);
        assert_eq!((execution.version.0, execution.restarts), (version, 0));
        cluster.wait_more_lines(edge, "job.out", 3);
    }
    cluster
        .sluice(&["rollout", "abort", "job"])
        .fails(1, &["has ended: rolled-back"]);
    cluster
        .sluice(&["rollout", "status", "none"])
        .fails(3, &["no job none"]);
}
