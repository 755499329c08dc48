//! What a run's tasks wrote, with real processes: it comes back, whoever dies on the way.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use sluice_api::{OutputState, Run, TaskOutput};
use sluice_model::{Digest, NodeState, RunState};
use sluice_tests::e2e::pipelines::plugin;
use sluice_tests::e2e::{Cluster, wait};

/// A log of which every seventh line tells of an error.
fn sample(node: &str) -> String {
    let mut text = String::new();
    for number in 0..20_000 {
        let level = if number % 7 == 0 { "ERROR" } else { "INFO" };
        writeln!(
            text,
            "{number} {level} [{node}] request took {} ms",
            number % 97
        )
        .unwrap();
    }
    text
}

fn errors(node: &str) -> String {
    let sample = sample(node);
    let lines = sample.lines().filter(|line| line.contains("ERROR"));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

fn triage(count: usize, output: &str) -> String {
    let filter = plugin("filter_contains");
    format!(
        "name = \"triage\"\nkind = \"batch\"\ncount = {count}\nidempotent = true\n[input.file]\npath = \"app.log\"\n\
         [[stage]]\nname = \"errors\"\nplugin = {:?}\nconfig = {{ contains = \"ERROR\" }}\n[output.{output}]\n",
        filter.to_str().unwrap()
    )
}

fn launch(cluster: &Cluster, args: &[&str]) -> String {
    let ran = cluster.sluice(&[&["run", "launch"], args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.trim().to_owned()
}

fn outputs(cluster: &Cluster, id: &str) -> Vec<TaskOutput> {
    let args = ["run", "output", id, "--output", "json"];
    cluster.sluice(&args).json()
}

#[track_caller]
fn wait_completed(cluster: &Cluster, id: &str) {
    wait::until("the run to complete", || {
        let run: Run = cluster
            .sluice(&["run", "describe", id, "--output", "json"])
            .json();
        wait::check(run.state == RunState::Completed, || format!("{run:?}"))
    });
}

#[test]
fn what_tasks_wrote_comes_back_by_run_and_by_task_and_so_does_what_they_said() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    for node in ["e1", "e2"] {
        std::fs::write(cluster.edge_file(node, "app.log"), sample(node)).unwrap();
    }
    assert_eq!(cluster.try_deploy(&triage(2, "stdout")).code, 0);
    let id = launch(&cluster, &["triage", "--wait=60s"]);

    for node in ["e1", "e2"] {
        let task = format!("triage/{node}");
        let ran = cluster.sluice(&["run", "output", &id, "--task", &task, "--wait", "--quiet"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.stdout, errors(node), "{node}");
        assert_eq!(ran.stderr, "");
    }
    let known = outputs(&cluster, &id);
    let nodes: Vec<&str> = known
        .iter()
        .map(|it| it.node.as_ref().unwrap().as_str())
        .collect();
    for output in &known {
        let expected = errors(output.node.as_ref().unwrap().as_str());
        assert_eq!(output.state, OutputState::Held, "{output:?}");
        assert_eq!(output.bytes, Some(expected.len() as u64));
        assert_eq!(output.digest, Some(Digest::of(expected.as_bytes())));
        assert!(!output.truncated && output.reason.is_none());
    }
    let ran = cluster.sluice(&["run", "output", &id]);
    let expected: String = nodes.iter().map(|node| errors(node)).collect();
    assert_eq!((ran.code, ran.stdout == expected), (0, true));
    for node in ["e1", "e2"] {
        assert!(ran.stderr.contains(&format!("triage on {node}")), "{ran:?}");
    }
    // The same as without a cluster.
    let local = std::fs::read(cluster.edge_file("e1", "app.log")).unwrap();
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("app.log"), local).unwrap();
    std::fs::write(here.path().join("triage.toml"), triage(2, "stdout")).unwrap();
    let mut command = cluster.sluice_command(&["pipeline", "run", "triage.toml"]);
    let ran = cluster.run(command.current_dir(here.path()));
    assert_eq!((ran.code, ran.stdout == errors("e1")), (0, true));

    let logged = cluster.sluice(&["logs", "--run", &id, "--tail", "3"]);
    assert_eq!(logged.code, 0, "{logged:?}");
    for node in ["e1", "e2"] {
        let said = format!(" {node} info completed");
        assert!(logged.stdout.contains(&said), "{logged:?}");
    }
    let followed = cluster.sluice(&["logs", "--run", &id, "--tail", "1", "--follow"]);
    assert_eq!(followed.code, 0, "{followed:?}");
    assert!(followed.stderr.contains("has ended"), "{followed:?}");

    let nobody = "0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11";
    cluster
        .sluice(&["run", "output", nobody])
        .fails(3, &["no run"]);
    cluster
        .sluice(&["logs", "--run", nobody])
        .fails(3, &["no run"]);
    cluster
        .sluice(&["run", "output", &id, "--task", "triage/e9"])
        .fails(3, &["no task of triage on e9"]);
    assert_eq!(cluster.try_deploy(&triage(1, "discard")).code, 0);
    let silent = launch(&cluster, &["triage", "--wait=60s"]);
    cluster
        .sluice(&["run", "output", &silent])
        .fails(1, &["its pipeline has no [output.stdout]"]);
}

/// A run that has completed, whose orchestrator died while it pulled the output and is back, and whose edge is away.
fn died_in_the_pull() -> (Cluster, String) {
    let mut cluster = Cluster::start(&["e1"]);
    std::fs::write(cluster.edge_file("e1", "app.log"), sample("e1")).unwrap();
    assert_eq!(cluster.try_deploy(&triage(1, "stdout")).code, 0);
    let point = "output/written";
    cluster.doom_orchestrator(point);
    cluster.wait_node("e1", NodeState::Connected);
    let id = launch(&cluster, &["triage"]);
    cluster.wait_orchestrator_doom(point);
    cluster.kill_edge("e1");
    cluster.start_orchestrator();
    wait_completed(&cluster, &id);
    (cluster, id)
}

#[test]
fn an_output_comes_though_its_edge_and_the_orchestrator_die_right_after_the_end() {
    let (mut cluster, id) = died_in_the_pull();
    let known = outputs(&cluster, &id);
    assert_eq!(known[0].state, OutputState::Coming, "{known:?}");
    cluster.sluice(&["run", "output", &id]).fails(
        1,
        &["it is on e1, which is not connected", "when e1 connects"],
    );
    cluster
        .sluice(&["run", "output", &id, "--wait=200ms"])
        .fails(5, &["it comes all the same", "when e1 connects"]);
    cluster.start_edge("e1");
    let ran = cluster.sluice(&["run", "output", &id, "--wait=60s"]);
    assert_eq!((ran.code, ran.stdout == errors("e1")), (0, true), "{ran:?}");
    // From now on nobody needs the edge for it.
    cluster.kill_edge("e1");
    cluster.kill_orchestrator();
    cluster.start_orchestrator();
    let ran = cluster.sluice(&["run", "output", &id]);
    assert_eq!((ran.code, ran.stdout == errors("e1")), (0, true));
}

#[test]
fn what_an_edge_lost_with_its_disk_is_gone_and_says_so() {
    let (mut cluster, id) = died_in_the_pull();
    let part = cluster.orchestrator_dir().join("outputs");
    for entry in std::fs::read_dir(part).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    cluster.wipe_edge("e1");
    let token = cluster.token_for(Some("e1"));
    cluster.start_joining("e1", &token, &[]);
    let ran = cluster.sluice(&["run", "output", &id, "--wait=60s"]);
    ran.fails(1, &["triage on e1 is gone", "its edge has it no more"]);
    assert_eq!(outputs(&cluster, &id)[0].state, OutputState::Gone);
}

#[test]
fn what_an_edge_repeats_after_its_death_is_in_the_output_once() {
    let mut cluster = Cluster::start(&["e1"]);
    let text = "name = \"slow\"\nkind = \"batch\"\nidempotent = true\n[input.generate]\ninterval = \"20ms\"\n\
                count = 200\ntemplate = \"${seq}\"\n[output.stdout]\n";
    assert_eq!(cluster.try_deploy(text).code, 0);
    let id = launch(&cluster, &["slow"]);
    for seen in ["50", "120"] {
        wait::until("records to be told", || {
            let ran = cluster.sluice(&["logs", "--run", &id, "--tail", "1000"]);
            let told = ran.stdout.contains(&format!(" record {seen}\n"));
            wait::check(told, || format!("{ran:?}"))
        });
        cluster.kill_edge("e1");
        cluster.start_edge("e1");
    }
    let ran = cluster.sluice(&["run", "output", &id, "--wait=60s"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let expected: String = (0..200).map(|seq| format!("{seq}\n")).collect();
    assert_eq!(ran.stdout, expected);
}

#[test]
fn an_output_without_end_is_cut_at_a_record_and_the_work_completes() {
    let mut cluster = Cluster::start(&["e1"]);
    let filler = "x".repeat(1_000);
    let text = format!(
        "name = \"flood\"\nkind = \"batch\"\n[input.generate]\ninterval = \"\"\ncount = 20000\n\
         template = '${{seq}} {filler}'\n[output.stdout]\n"
    );
    assert_eq!(cluster.try_deploy(&text).code, 0);
    let id = launch(&cluster, &["flood", "--wait=60s"]);
    let ran = cluster.sluice(&["run", "output", &id, "--wait=60s"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let known = outputs(&cluster, &id).remove(0);
    assert!(known.truncated, "{known:?}");
    let kept = ran.stdout.lines().count() as u64;
    assert_eq!(kept + known.dropped_records, 20_000);
    assert!(ran.stdout.len() <= 16 << 20 && ran.stdout.len() > (16 << 20) - 2_000);
    for (number, line) in ran.stdout.lines().enumerate() {
        assert!(line.starts_with(&format!("{number} x")), "{number}");
    }
    let said = format!("{} records at its end found no room", known.dropped_records);
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    let run: Run = cluster
        .sluice(&["run", "describe", &id, "--output", "json"])
        .json();
    assert_eq!(run.tasks[0].records_out, 20_000);
}
