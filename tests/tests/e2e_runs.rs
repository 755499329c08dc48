//! Runs with real processes and `kill -9`: what was answered is executed, once. `scripts/scenarios/launch` runs these.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use sluice_api::{Run, routes};
use sluice_model::{FailReason, NodeState, RunState, TaskState};
use sluice_tests::e2e::{Cluster, overlap, wait};

/// Records of one task: at 20 a second there is time to kill something in the middle.
const RECORDS: usize = 60;

fn batch(name: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nkind = \"batch\"\ncount = 3\n{more}\n[params]\ntag = {{ type = \"string\", default = \"none\" }}\n\
         [input.generate]\ncount = {RECORDS}\ninterval = \"50ms\"\ntemplate = '${{param.tag}} ${{seq}}'\n\
         [output.file]\npath = \"{name}.out\"\n"
    )
}

fn launch(cluster: &Cluster, args: &[&str]) -> String {
    let ran = cluster.sluice(&[&["run", "launch"], args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let id = ran.stdout.trim().to_owned();
    assert_eq!(id.len(), 36, "the id alone: {ran:?}");
    id
}

fn describe(cluster: &Cluster, id: &str) -> Run {
    cluster
        .sluice(&["run", "describe", id, "--output", "json"])
        .json()
}

#[track_caller]
fn ended(cluster: &Cluster, id: &str) -> Run {
    wait::until("the run to end", || {
        let run = describe(cluster, id);
        match run.state {
            RunState::Pending | RunState::Running => Err(format!("{run:?}")),
            _ => Ok(run),
        }
    })
}

fn numbered(tag: &str) -> Vec<String> {
    (0..RECORDS).map(|seq| format!("{tag} {seq}")).collect()
}

#[test]
fn case_24_what_was_answered_is_executed_once_though_the_orchestrator_dies_right_after() {
    let mut cluster = Cluster::start(&["e1", "e2", "e3"]);
    cluster
        .try_deploy(&batch("triple", ""))
        .json::<serde_json::Value>();
    let id = launch(&cluster, &["triple", "--param", "tag=first"]);
    cluster.kill_orchestrator();
    cluster.start_orchestrator();
    let run = ended(&cluster, &id);
    assert_eq!(run.state, RunState::Completed, "{run:?}");
    assert_eq!(run.tasks.len(), 3);
    let listed: Vec<Value> = cluster.sluice(&["run", "list", "--output", "json"]).json();
    assert_eq!(listed.len(), 1);
    // The names that scripts rely on, null or not.
    let described: Value = cluster
        .sluice(&["run", "describe", &id, "--output", "json"])
        .json();
    for told in [&listed[0], &described] {
        for key in [
            "id",
            "jobs",
            "state",
            "tasks",
            "launched_at",
            "started_at",
            "ended_at",
            "claimed_by",
            "claimed_until",
        ] {
            assert!(told.as_object().unwrap().contains_key(key), "{key}: {told}");
        }
        assert_eq!(
            (&told["id"], &told["state"]),
            (&Value::from(id.as_str()), &Value::from("completed"))
        );
        assert_eq!(told["jobs"], serde_json::json!(["triple"]));
        assert!(told["tasks"].as_array().unwrap().len() == 3);
        for task in told["tasks"].as_array().unwrap() {
            for key in ["job", "node", "state", "attempt", "execution"] {
                assert!(!task[key].is_null(), "{key}: {task}");
            }
            assert_eq!(task["attempt"], 1);
        }
        for key in ["launched_at", "started_at", "ended_at"] {
            let time = told[key].as_str().unwrap();
            assert!(time.ends_with('Z') && time.contains('T'), "{key}: {time}");
        }
    }
    for node in ["e1", "e2", "e3"] {
        let on = |name: &str| {
            run.tasks
                .iter()
                .filter(|it| it.node.as_ref().unwrap().as_str() == name)
                .count()
        };
        assert_eq!(on(node), 1);
        assert_eq!(
            cluster.lines(node, "triple.out"),
            numbered("first"),
            "{node}"
        );
    }
    let waited = cluster.sluice(&[
        "run",
        "launch",
        "triple",
        "--node",
        "e1",
        "--param",
        "tag=second",
        "--wait=40s",
    ]);
    assert_eq!(waited.code, 0, "{waited:?}");
    cluster
        .sluice(&["run", "launch", "triple", "--param", "tga=x"])
        .fails(2, &["no parameter `tga`"]);
    let keyed = ["triple", "--key", "k", "--node", "e1"];
    let first = launch(&cluster, &keyed);
    assert_eq!(launch(&cluster, &keyed), first, "the same launch");
    let other = [&["run", "launch"], &keyed[..], &["--param", "tag=third"]].concat();
    cluster
        .sluice(&other)
        .fails(1, &["this Idempotency-Key was used for another launch"]);
    let runs: Vec<Run> = cluster.sluice(&["run", "list", "--output", "json"]).json();
    assert_eq!(runs.len(), 3);
    cluster
        .sluice(&["run", "describe", "0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11"])
        .fails(3, &["no run"]);
}

#[test]
fn case_41_an_edge_that_is_killed_midway_runs_again_only_what_is_idempotent() {
    let mut cluster = Cluster::start(&["e1", "e2", "e3"]);
    cluster
        .try_deploy(&batch("single", ""))
        .json::<serde_json::Value>();
    cluster
        .try_deploy(&batch("again", "idempotent = true"))
        .json::<serde_json::Value>();
    let id = launch(&cluster, &["single"]);
    let other = launch(&cluster, &["again"]);
    cluster.wait_lines("e2", "single.out", 3);
    cluster.wait_lines("e2", "again.out", 3);
    cluster.kill_edge("e2");
    cluster.start_edge("e2");
    cluster.wait_node("e2", NodeState::Connected);
    let run = ended(&cluster, &id);
    assert_eq!(run.state, RunState::Failed, "{run:?}");
    for task in &run.tasks {
        if task.node.as_ref().unwrap().as_str() == "e2" {
            assert_eq!(
                (task.state, task.reason_code),
                (TaskState::Failed, Some(FailReason::Indeterminate))
            );
        } else {
            assert_eq!(task.state, TaskState::Completed, "{task:?}");
        }
    }
    let run = ended(&cluster, &other);
    assert_eq!(run.state, RunState::Completed, "{run:?}");
    let mut lines = cluster.lines("e2", "again.out");
    lines.sort_by_key(|line| line.trim_start_matches("none ").parse::<usize>().unwrap());
    lines.dedup();
    assert_eq!(lines, numbered("none"), "nothing is missing");
}

#[test]
fn case_30_a_limit_holds_as_the_edges_see_it() {
    const LAUNCHES: usize = 24;
    const LIMIT: usize = 3;
    let edges = ["e1", "e2"];
    let mut cluster = Cluster::start(&edges);
    cluster
        .try_deploy(&overlap::pipeline(LIMIT, "100ms"))
        .json::<Value>();
    let bodies = (0..LAUNCHES)
        .map(|n| serde_json::json!({ "jobs": ["tick"], "params": { "n": n.to_string() } }));
    let answers = cluster
        .api()
        .post_all::<Run>(routes::RUNS, bodies.collect(), 8);
    for (_, answer) in answers {
        let run = answer.unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(
            ended(&cluster, &run.id.to_string()).state,
            RunState::Completed
        );
    }
    let executed = overlap::executed(&cluster, &edges, LAUNCHES).unwrap();
    assert_eq!(executed.tasks, LAUNCHES);
    assert!(executed.most_at_once <= LIMIT, "{executed:?}");
}

#[test]
fn a_command_does_not_outlive_its_edge_however_that_ends() {
    let mut cluster = Cluster::start(&[]);
    let pid_file = cluster.edge_file("e1", "pid");
    let script = cluster.root().join("endless");
    let text = format!(
        "#!/bin/sh\necho $$ > {}\nexec sleep 1000\n",
        pid_file.display()
    );
    std::fs::write(&script, text).unwrap();
    let listed = format!("endless=/bin/sh {}", script.display());
    cluster.join_with(&["e1"], &["--allow-command", &listed]);
    let pipeline = "name = \"runs-on\"\nkind = \"batch\"\n[input.exec]\ncommand = \"endless\"\ndeadline = \"600s\"\n\
                    [output.discard]\n";
    cluster.try_deploy(pipeline).json::<serde_json::Value>();
    let id = launch(&cluster, &["runs-on"]);
    let pid = cluster.wait_lines("e1", "pid", 1).remove(0);
    cluster.kill_edge("e1");
    wait::until("the command to be gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie is gone; whoever reaps orphans here takes its time.
        let gone = stat.is_empty() || stat.contains(") Z ");
        wait::check(gone, || stat)
    });
    cluster.start_edge("e1");
    let run = ended(&cluster, &id);
    assert_eq!(run.tasks[0].reason_code, Some(FailReason::Indeterminate));
}
