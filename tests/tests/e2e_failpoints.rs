//! Both programs abort at persist points by name, between a write, its commit, and what leaves after it: cases 35 to 38,
//! 40 and 41 of the failure matrix. After each death the program is started again, and everything converges: nothing is
//! lost, nothing is stuck, and nothing runs twice but what an edge's own death lets run again from its checkpoint.

#![allow(clippy::unwrap_used)]

use sluice_model::{ExecutionId, ExecutionState, NodeState, Version};
use sluice_state_dir::failpoint;
use sluice_tests::e2e::pipelines::{PipelineText, padded_component, plugin, seqs};
use sluice_tests::e2e::{Cluster, Conditions, wait};

/// Every record came, in order; it began over at most `restarts` times.
#[track_caller]
fn assert_whole(cluster: &Cluster, job: &str, restarts: usize) {
    let lines = cluster.wait_more_lines("e1", &format!("{job}.out"), 3);
    let numbers = seqs(job, &lines);
    let mut expected = 0;
    let mut over = 0;
    for &number in &numbers {
        over += usize::from(number < expected);
        assert!(number <= expected, "{job} lost a record: {numbers:?}");
        expected = number + 1;
    }
    assert!(over <= restarts, "{job} ran again: {numbers:?}");
}

/// The job runs, and as if nothing had happened to the orchestrator.
#[track_caller]
fn assert_undisturbed(cluster: &Cluster, job: &str) {
    cluster.wait_job_running(job, 1);
    let execution = cluster.execution(job, "e1");
    assert_eq!(
        (execution.attempt.0, execution.restarts),
        (1, 0),
        "{execution:?}"
    );
    assert_whole(cluster, job, 0);
}

/// Waits until nothing of an execution on e1 is left: neither with the orchestrator nor on the edge's disk.
#[track_caller]
fn wait_purged(cluster: &Cluster, point: &str, id: ExecutionId) {
    let state = cluster.edge_state("e1").join(format!("executions/{id}"));
    wait::until(&format!("{point}: {id} to be purged"), || {
        let left = cluster
            .api()
            .executions()
            .map_err(|refusal| refusal.to_string())?;
        let left = left.iter().any(|execution| execution.id == id);
        wait::check(!left && !state.exists(), || "still there".to_owned())
    });
}

#[test]
fn the_programs_of_this_build_hear_of_persist_points() {
    let mut cluster = Cluster::start(&["e1"]);
    // One that no program has, and one for a time that never comes: both live on.
    for point in ["no such step/before", "commit an assignment/before/1000000"] {
        cluster.doom_orchestrator(point);
        cluster.wait_node("e1", NodeState::Connected);
        cluster.doom_edge("e1", point);
        cluster.wait_node("e1", NodeState::Connected);
        assert_eq!(cluster.orchestrator().ended(), None);
        assert_eq!(cluster.edge("e1").ended(), None);
    }
    // The second time and not the first.
    cluster.doom_orchestrator("keep a job/before/2");
    cluster.deploy(&PipelineText::steady("first"));
    assert_ne!(
        cluster
            .try_deploy(&PipelineText::steady("second").text())
            .code,
        0
    );
    cluster.revive_orchestrator("keep a job/before/2");
    assert_eq!(failpoint::VARIABLE, "SLUICE_FAILPOINT");
    cluster.doom_edge("e1", "put_desired/before");
    cluster.deploy(&PipelineText::steady("second"));
    cluster.wait_doom("e1", "put_desired/before");
    // The small program hears of them, too.
    let mut command = std::process::Command::new(sluice_tests::e2e::edge_program());
    command
        .arg("--state-dir")
        .arg(cluster.edge_state("e1"))
        .args(["--log", "json"])
        .env(failpoint::VARIABLE, "put_desired/before");
    let ran = cluster.run(&mut command);
    assert!(
        ran.stderr
            .ends_with("failpoint put_desired/before: aborting\n"),
        "{ran:?}"
    );
    cluster.start_edge("e1");
    cluster.wait_job_running("second", 1);
}

#[test]
fn case_35_killed_before_the_commit_a_deploy_is_an_error_and_leaves_nothing() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("before"));
    cluster.wait_job_running("before", 1);
    for (at, point) in [
        "keep a job/before",
        "keep a job version/written",
        "commit an assignment/before",
        "commit an assignment/written",
    ]
    .into_iter()
    .enumerate()
    {
        let job = format!("job-{at}");
        cluster.doom_orchestrator(point);
        // The edge is back, so that its return is none of what happens next.
        cluster.wait_node("e1", NodeState::Connected);
        let deployed = cluster.try_deploy(&PipelineText::steady(&job).text());
        assert_ne!(deployed.code, 0, "{point}: {deployed:?}");
        cluster.revive_orchestrator(point);
        let mark = cluster.log().mark();
        cluster.sluice(&["job", "describe", &job]).fails(3, &[&job]);
        cluster.wait_node("e1", NodeState::Connected);
        let sent = cluster.log().events_since(mark, "ledger.sent");
        assert!(sent.is_empty(), "{point}: {sent:?}");
        cluster.deploy(&PipelineText::steady(&job));
        assert_undisturbed(&cluster, &job);
    }
    assert_undisturbed(&cluster, "before");
}

#[test]
fn case_36_killed_between_the_commit_and_the_send_a_deploy_is_sent_after_the_restart() {
    let mut cluster = Cluster::start(&["e1"]);
    for (at, point) in [
        "keep a job version/committed",
        "commit an assignment/committed",
        "move a node's desired set on/committed",
    ]
    .into_iter()
    .enumerate()
    {
        let job = format!("job-{at}");
        cluster.doom_orchestrator(point);
        cluster.wait_node("e1", NodeState::Connected);
        let deployed = cluster.try_deploy(&PipelineText::steady(&job).text());
        assert_ne!(
            deployed.code, 0,
            "{point}: nothing could be answered: {deployed:?}"
        );
        assert!(
            !cluster.edge_file("e1", &format!("{job}.out")).exists(),
            "{point}: it was sent"
        );
        let mark = cluster.log().mark();
        cluster.revive_orchestrator(point);
        assert_undisturbed(&cluster, &job);
        let sent = cluster.log().events_since(mark, "ledger.sent");
        assert!(!sent.is_empty(), "{point}: it was sent before");
        // Who asks again, because of the error, changes nothing.
        let again = cluster.deploy(&PipelineText::steady(&job));
        assert_eq!(again.version, Version(1), "{again:?}");
    }
}

#[test]
fn case_37_killed_between_the_send_and_the_ack_a_deploy_has_one_effect() {
    let mut cluster = Cluster::start(&["e1"]);
    for (at, point) in [
        // The acknowledgement has come: the row is on the edge's disk, and here nobody knows it yet.
        "forget removals/before",
        "forget removals/written",
        "forget removals/committed",
        // What the edge's runtime did has come.
        "record a report/before",
        "record a report/written",
        "record a report's position/committed",
    ]
    .into_iter()
    .enumerate()
    {
        let job = format!("job-{at}");
        cluster.doom_orchestrator(point);
        cluster.wait_node("e1", NodeState::Connected);
        // Whether its answer was faster than the acknowledgement is chance.
        cluster.try_deploy(&PipelineText::steady(&job).text());
        cluster.revive_orchestrator(point);
        assert_undisturbed(&cluster, &job);
    }
}

#[test]
fn case_37_killed_while_what_was_sent_is_lost_on_its_way_a_deploy_is_sent_again() {
    let mut cluster = Cluster::start_linked(&["e1"]);
    cluster.link().set(Conditions::default(), Conditions::CUT);
    let mark = cluster.log().mark();
    cluster.deploy(&PipelineText::steady("job"));
    let sent = |cluster: &Cluster, mark| cluster.log().events_since(mark, "ledger.sent").len();
    wait::until("the row to be sent", || {
        wait::check(sent(&cluster, mark) > 0, || cluster.log().tail())
    });
    cluster.kill_orchestrator();
    let came = cluster.edge_file("e1", "job.out").exists();
    assert!(!came, "nothing comes through");
    cluster.link().mend();
    let mark = cluster.log().mark();
    cluster.start_orchestrator();
    assert_undisturbed(&cluster, "job");
    assert!(sent(&cluster, mark) > 0, "it was there before");
}

#[test]
fn an_orchestrator_that_dies_in_its_start_or_in_a_session_s_beginning_starts_again() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("steady"));
    cluster.wait_job_running("steady", 1);
    for point in [
        "start a life/before",
        "start a life/written",
        "start a life/committed",
        // Every job is looked at soon after a start.
        "finish an evaluation/written",
        "finish an evaluation/committed",
        "begin a session/before",
        "begin a session/written",
        "begin a session/committed",
        "record an acknowledgement/committed",
    ] {
        cluster.doom_orchestrator(point);
        cluster.revive_orchestrator(point);
        cluster.wait_node("e1", NodeState::Connected);
        assert_undisturbed(&cluster, "steady");
    }
}

#[test]
fn an_orchestrator_that_dies_in_an_upload_a_join_or_a_deletion_finishes_it_when_asked_again() {
    let mut cluster = Cluster::start(&["e1"]);
    let component = std::fs::read(plugin("identity")).unwrap();
    for (mark, point) in (1..).zip(["upload/written", "upload/committed"]) {
        let path = cluster.root().join(format!("identity-{mark}.wasm"));
        std::fs::write(&path, padded_component(&component, mark, 0)).unwrap();
        let job = format!("upload-{mark}");
        let text = PipelineText::steady(&job).stage("same", &path, "{}");
        cluster.doom_orchestrator(point);
        assert_ne!(cluster.try_deploy(&text.text()).code, 0, "{point}");
        cluster.revive_orchestrator(point);
        cluster.sluice(&["job", "describe", &job]).fails(3, &[&job]);
        cluster.deploy(&text);
        assert_undisturbed(&cluster, &job);
    }
    for (number, point) in (2..).zip(["use a token/written", "record a join/committed"]) {
        let name = format!("e{number}");
        let token = cluster.token_for(Some(&name));
        cluster.doom_orchestrator(point);
        cluster.start_joining(&name, &token, &[]);
        cluster.revive_orchestrator(point);
        // Whose connection breaks early enough asks again by itself, and else it ends and says that no answer came. Asked
        // again it has the same key, and its token for one use is good for that.
        let ended = wait::until(&format!("{name} to end or to be there"), || {
            if let Some(status) = cluster.edge(&name).ended() {
                return Ok(Some(status));
            }
            let node = cluster.api().node(&name).map_err(|it| it.to_string())?;
            wait::check(node.state == NodeState::Connected, || {
                node.state.to_string()
            })?;
            Ok(None)
        });
        if let Some(status) = ended {
            assert_eq!(status.code(), Some(4));
            cluster.start_joining(&name, &token, &[]);
        }
        cluster.wait_node(&name, NodeState::Connected);
    }
    assert_eq!(cluster.api().nodes().unwrap().len(), 3);
    for point in [
        "delete a job/written",
        "delete a job/committed",
        "remove an assignment/before",
        "remove an assignment/written",
        "remove an assignment/committed",
    ] {
        cluster.deploy(
            &PipelineText::steady("gone")
                .select("node", "e1")
                .output("gone.out"),
        );
        let running = cluster.wait_running("gone", "e1");
        cluster.doom_orchestrator(point);
        cluster.wait_node("e1", NodeState::Connected);
        cluster.sluice(&["job", "delete", "gone", "--yes"]);
        cluster.revive_orchestrator(point);
        let again = cluster.sluice(&["job", "delete", "gone", "--yes"]);
        assert!([0, 3].contains(&again.code), "{point}: {again:?}");
        wait_purged(&cluster, point, running.id);
    }
}

#[test]
fn case_38_killed_after_its_ack_an_edge_starts_the_work_and_without_a_network_too() {
    let mut cluster = Cluster::start(&["e1"]);
    for (at, point) in [
        "put_desired/before",
        "put_spec/written",
        "put_desired/written",
        "put_desired/committed",
        "put_live/written",
        "put_live/committed",
        "observed_received/written",
        "observed_received/committed",
        "start/before",
    ]
    .into_iter()
    .enumerate()
    {
        let job = format!("job-{at}");
        // What it starts anew in its boot is not what is meant.
        let time = match point {
            "start/before" => format!("{point}/{}", at + 1),
            _ => point.to_owned(),
        };
        cluster.doom_edge("e1", &time);
        cluster.try_deploy(&PipelineText::steady(&job).text());
        cluster.wait_doom("e1", point);
        let alone = ["put_desired/committed", "start/before"].contains(&point);
        if alone {
            // It was on disk: it needs nobody.
            cluster.kill_orchestrator();
        }
        cluster.start_edge("e1");
        if alone {
            cluster.wait_lines("e1", &format!("{job}.out"), 3);
            cluster.start_orchestrator();
        }
        cluster.wait_job_running(&job, 1);
        let execution = cluster.execution(&job, "e1");
        assert_eq!(execution.attempt.0, 1, "{point}: {execution:?}");
        assert_whole(&cluster, &job, 1);
    }
}

#[test]
fn case_40_killed_between_the_old_version_s_stop_and_the_new_one_s_start_an_edge_rolls_forward() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("job").output("old.out"));
    cluster.wait_lines("e1", "old.out", 5);
    let point = "start/before";
    cluster.doom_edge("e1", &format!("{point}/2"));
    cluster.wait_more_lines("e1", "old.out", 3);
    cluster.deploy(&PipelineText::steady("job"));
    cluster.wait_doom("e1", point);
    let old = cluster.lines("e1", "old.out").len();
    assert!(
        !cluster.edge_file("e1", "job.out").exists(),
        "the new one ran"
    );
    cluster.start_edge("e1");
    cluster.wait_execution("job", "e1", "running at version 2", |execution| {
        execution.state == ExecutionState::Running && execution.version == Version(2)
    });
    // It goes on where the old one stopped.
    let old_ones = seqs("job", &cluster.lines("e1", "old.out"));
    let new_ones = seqs("job", &cluster.wait_lines("e1", "job.out", 3));
    let last = *old_ones.last().unwrap();
    assert!(new_ones[0] <= last + 1, "{old_ones:?}, then {new_ones:?}");
    assert!(new_ones.is_sorted_by(|a, b| a + 1 == *b), "{new_ones:?}");
    assert_eq!(
        cluster.lines("e1", "old.out").len(),
        old,
        "the old one ran again"
    );
}

#[test]
fn an_edge_that_dies_in_its_boot_a_fetch_a_checkpoint_or_a_purge_does_it_over() {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("steady"));
    cluster.wait_job_running("steady", 1);
    let mut deaths = 0;
    for point in [
        "put_meta/before",
        "put_meta/written",
        "put_meta/committed",
        "file checkpoint/written",
        "file checkpoint/committed",
    ] {
        cluster.doom_edge("e1", point);
        cluster.wait_doom("e1", point);
        cluster.start_edge("e1");
        // It was killed, and died by itself.
        deaths += 2;
        cluster.wait_job_running("steady", 1);
        assert_whole(&cluster, "steady", deaths);
    }
    let component = std::fs::read(plugin("identity")).unwrap();
    for (mark, point) in (1..).zip(["component/written", "component/committed"]) {
        let path = cluster.root().join(format!("identity-{mark}.wasm"));
        std::fs::write(&path, padded_component(&component, mark, 0)).unwrap();
        let job = format!("fetch-{mark}");
        cluster.doom_edge("e1", point);
        cluster.try_deploy(&PipelineText::steady(&job).stage("same", &path, "{}").text());
        cluster.wait_doom("e1", point);
        cluster.start_edge("e1");
        cluster.wait_job_running(&job, 1);
        assert_whole(&cluster, &job, 1);
    }
    for point in [
        "purge/before",
        "remove_live/written",
        "remove_local/committed",
        "remove_desired/written",
        "remove_desired/committed",
    ] {
        cluster.deploy(&PipelineText::steady("gone").output("gone.out"));
        let running = cluster.wait_running("gone", "e1");
        cluster.doom_edge("e1", point);
        cluster.wait_running("gone", "e1");
        let deleted = cluster.sluice(&["job", "delete", "gone", "--yes"]);
        assert_eq!(deleted.code, 0, "{point}: {deleted:?}");
        cluster.wait_doom("e1", point);
        cluster.start_edge("e1");
        wait_purged(&cluster, point, running.id);
    }
}

#[test]
fn case_41_killed_around_an_outcome_s_commit_work_is_recorded_once_and_loses_nothing() {
    let mut cluster = Cluster::start(&["e1"]);
    for (at, point) in [
        "put_outcome/before",
        "put_outcome/written",
        "put_outcome/committed",
    ]
    .into_iter()
    .enumerate()
    {
        let job = format!("short-{at}");
        cluster.doom_edge("e1", point);
        cluster.try_deploy(&PipelineText::steady(&job).generate("20ms", 20).text());
        cluster.wait_doom("e1", point);
        cluster.start_edge("e1");
        let ended = cluster.wait_execution(&job, "e1", "completed", |execution| {
            execution.state == ExecutionState::Completed
        });
        assert_eq!(ended.attempt.0, 1, "{point}: {ended:?}");
        let lines = cluster.lines("e1", &format!("{job}.out"));
        let mut numbers = seqs(&job, &lines);
        if point.ends_with("committed") {
            assert_eq!(numbers.len(), 20, "{point}: it ran again: {numbers:?}");
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.into_iter().eq(0..20), "{point}: records were lost");
    }
}
