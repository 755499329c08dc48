//! `--wait` and its like with real processes: what is waited for comes about while the orchestrator is killed and started
//! again in between, and at the deadline everybody says what is missing.

#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::thread::JoinHandle;

use sluice_api::Run;
use sluice_model::NodeState;
use sluice_tests::e2e::{Cluster, Ran, wait};

/// A command that waits, in a thread of its own.
struct Waiting(JoinHandle<Ran>);

impl Waiting {
    fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let mut command = cluster.sluice_command(args);
        command.stdin(Stdio::null());
        Self(std::thread::spawn(move || {
            let output = command.output().unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            Ran {
                code: output.status.code().unwrap(),
                stdout: text(output.stdout),
                stderr: text(output.stderr),
            }
        }))
    }

    #[track_caller]
    fn ends(self, code: i32) -> Ran {
        let ran = self.0.join().unwrap();
        assert_eq!(ran.code, code, "{ran:?}");
        ran
    }
}

/// A daemon that never ends, or a batch job of some seconds.
fn pipeline(cluster: &Cluster, name: &str, node: &str, kind: &str) -> String {
    let count = match kind {
        "batch" => 100,
        _ => 0,
    };
    let text = format!(
        "name = \"{name}\"\nkind = \"{kind}\"\n[select]\nnode = \"{node}\"\n[input.generate]\ninterval = \"50ms\"\n\
         count = {count}\ntemplate = \"x\"\n[output.file]\npath = \"{name}.out\"\n"
    );
    let path = cluster.root().join(format!("pipelines/{name}.toml"));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn waits_outlive_a_restart_of_the_orchestrator() {
    let mut cluster = Cluster::start(&["e1", "e2", "e3"]);
    let batch = pipeline(&cluster, "once", "e1", "batch");
    assert_eq!(cluster.sluice(&["deploy", &batch]).code, 0);
    let drained = pipeline(&cluster, "leaves", "e3", "daemon");
    assert_eq!(cluster.sluice(&["deploy", &drained, "--wait"]).code, 0);
    cluster.kill_edge("e2");
    cluster.kill_edge("e3");
    cluster.wait_node("e2", NodeState::Disconnected);
    cluster.wait_node("e3", NodeState::Disconnected);

    let run = Waiting::start(&cluster, &["run", "launch", "once", "--wait"]);
    let comes = pipeline(&cluster, "comes", "e2", "daemon");
    let deploy = Waiting::start(&cluster, &["deploy", &comes, "--wait"]);
    let drain = Waiting::start(&cluster, &["node", "drain", "e3", "--deadline", "2m"]);
    cluster.wait_lines("e1", "once.out", 2);
    wait::until("all orders to be given", || {
        let (job, node) = (cluster.api().job("comes"), cluster.api().node("e3"));
        let draining = node.map_err(|refusal| refusal.to_string())?.draining;
        job.map_err(|refusal| refusal.to_string())?;
        wait::check(draining, || "e3 is not draining".to_owned())
    });

    cluster.kill_orchestrator();
    cluster.start_orchestrator();
    cluster.start_edge("e2");
    cluster.start_edge("e3");

    let run = run.ends(0);
    assert_eq!(run.stdout.trim().len(), 36, "the id alone: {run:?}");
    assert!(run.stderr.contains("waiting for run"), "{run:?}");
    let end = format!(
        "run {} is completed: 1 of 1 task completed, ",
        run.stdout.trim()
    );
    assert_eq!(run.stderr.matches(&end).count(), 1, "{run:?}");
    let deploy = deploy.ends(0);
    assert!(
        deploy.stderr.contains("comes version 1 is running"),
        "{deploy:?}"
    );
    let drain = drain.ends(0);
    assert!(drain.stdout.contains("e3 is drained"), "{drain:?}");
    assert!(drain.stderr.contains("leaves: "), "{drain:?}");

    // What went to its one node at once has no rollout, which is an answer.
    let status = ["rollout", "status", "comes"];
    let said = cluster.sluice(&status);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("comes has no rollout"), "{said:?}");
    let said = cluster.sluice(&[&status[..], &["--output", "json"]].concat());
    assert_eq!((said.code, said.stdout.as_str()), (0, "null\n"));
}

#[test]
fn at_the_deadline_a_wait_says_what_is_missing_and_what_was_asked_stands() {
    let mut cluster = Cluster::start(&["e1"]);
    let path = pipeline(&cluster, "once", "e1", "batch");
    assert_eq!(cluster.sluice(&["deploy", &path]).code, 0);
    let runs = pipeline(&cluster, "runs", "e1", "daemon");
    assert_eq!(cluster.sluice(&["deploy", &runs, "--wait"]).code, 0);
    cluster.kill_edge("e1");
    cluster.wait_node("e1", NodeState::Disconnected);
    for (args, says) in [
        (
            &["run", "launch", "once", "--wait=300ms", "--quiet"][..],
            &[
                "has not ended within 300ms; it goes on",
                "once on no node: pending",
                "when e1 connects",
            ][..],
        ),
        (
            &["deploy", &runs, "--wait=300ms"],
            &["no matching node is connected", "running (last known)"],
        ),
        (
            &["node", "drain", "e1", "--deadline", "300ms"],
            &["not everything on e1 stopped within 300ms", "runs: "],
        ),
    ] {
        let ran = cluster.sluice(args);
        ran.fails(5, says);
        assert_eq!(
            ran.stderr.contains("for at most 300ms"),
            !args.contains(&"--quiet"),
            "{ran:?}"
        );
    }
    let runs: Vec<Run> = cluster.sluice(&["run", "list", "--output", "json"]).json();
    let id = runs[0].id.to_string();
    cluster.kill_orchestrator();
    // It may be restarting: that is waited for, too.
    cluster
        .sluice(&["run", "output", &id, "--wait=300ms"])
        .fails(
            5,
            &[
                "it comes all the same",
                "no answer: cannot reach the orchestrator",
            ],
        );
}
