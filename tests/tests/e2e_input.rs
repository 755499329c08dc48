//! Real input, and every example of pipelines/, through real processes.
//!
//! The sample logs are not part of the project: SLUICE_SAMPLE_LOGS names their folder, and without it those tests say
//! that they were skipped. What they expect is computed by `tr`, `grep` and `awk`, not by our own code.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_api::Execution;
use sluice_model::ExecutionState;
use sluice_tests::e2e::pipelines::{PipelineText, plugin, repository};
use sluice_tests::e2e::{Cluster, Process, sluice_program, wait};

/// Records in each of the sample logs.
const SAMPLE_RECORDS: u64 = 2000;

/// The files of the sample logs, and a text that some of their lines contain.
const SAMPLES: [(&str, &str); 4] = [
    ("Apache_2k.log", "[error]"),
    ("HealthApp_2k.log", "onStandStepChanged"),
    ("OpenSSH_2k.log", "Failed password"),
    ("OpenStack_2k.log", "nova.compute"),
];

/// The folder of sample logs, if the machine has them.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must not look like one that ran"
)]
fn sample_logs(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SLUICE_SAMPLE_LOGS").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        eprintln!("SKIPPED {test}: SLUICE_SAMPLE_LOGS does not name a folder of sample logs");
    }
    folder.map(PathBuf::from)
}

/// What a shell prints.
fn shell(script: &str, dir: &Path) -> Vec<u8> {
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    output.stdout
}

fn shell_number(script: &str, dir: &Path) -> u64 {
    let printed = String::from_utf8(shell(script, dir)).unwrap();
    printed.trim().parse().unwrap()
}

#[track_caller]
fn wait_completed(cluster: &Cluster, job: &str, node: &str) -> Execution {
    cluster.wait_execution(job, node, "completed", |execution| {
        assert_ne!(execution.state, ExecutionState::Failed, "{execution:?}");
        execution.state == ExecutionState::Completed
    })
}

#[test]
fn real_logs_are_filtered_on_two_edges_as_grep_does() {
    let Some(logs) = sample_logs("real_logs_are_filtered_on_two_edges_as_grep_does") else {
        return;
    };
    let mut cluster = Cluster::start(&["e1", "e2"]);
    for (file, text) in SAMPLES {
        let records = shell_number(&format!("awk 'END{{print NR}}' {file}"), &logs);
        assert_eq!(
            records, SAMPLE_RECORDS,
            "{file} is not the sample that is meant"
        );
        let expected = shell(
            &format!("tr -d '\\r' < {file} | grep -F -- '{text}'"),
            &logs,
        );
        let matching = expected.iter().filter(|&&byte| byte == b'\n').count() as u64;
        assert!(
            (1..SAMPLE_RECORDS).contains(&matching),
            "{matching} lines of {file} match"
        );

        for node in ["e1", "e2"] {
            std::fs::copy(logs.join(file), cluster.edge_file(node, file)).unwrap();
        }
        let job = file.split('_').next().unwrap().to_lowercase();
        let output = format!("{job}.filtered");
        let pipeline = PipelineText::steady(&job)
            .file(file)
            .stage(
                "grep",
                &plugin("filter_contains"),
                &format!("{{ contains = \"{text}\" }}"),
            )
            .output(&output);
        cluster.deploy(&pipeline);
        for node in ["e1", "e2"] {
            let done = wait_completed(&cluster, &job, node);
            let written = std::fs::read(cluster.edge_file(node, &output)).unwrap();
            assert!(
                written == expected,
                "{file} on {node} differs from what grep prints"
            );
            assert_eq!(
                (done.records_in, done.records_out, done.dead_letters),
                (SAMPLE_RECORDS, matching, 0),
                "{file} on {node}"
            );
        }
    }
}

#[test]
fn a_real_sshd_log_becomes_events_and_dead_letters() {
    let Some(logs) = sample_logs("a_real_sshd_log_becomes_events_and_dead_letters") else {
        return;
    };
    let failed = shell_number("grep -c 'Failed password' OpenSSH_2k.log", &logs);
    assert_eq!(failed, 520, "it is not the sample that is meant");
    let mut cluster = Cluster::start(&["e1"]);
    std::fs::copy(
        logs.join("OpenSSH_2k.log"),
        cluster.edge_file("e1", "sshd.log"),
    )
    .unwrap();
    let pipeline = PipelineText::steady("sshd")
        .file("sshd.log")
        .stage("parse", &plugin("sshd_auth"), "{}")
        .output("events.jsonl");
    cluster.deploy(&pipeline);
    let done = wait_completed(&cluster, "sshd", "e1");
    assert_eq!(done.records_in, SAMPLE_RECORDS);
    assert_eq!(
        done.records_out + done.dead_letters,
        SAMPLE_RECORDS,
        "{done:?}"
    );

    let mut by_event: BTreeMap<String, u64> = BTreeMap::new();
    for line in cluster.lines("e1", "events.jsonl") {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        *by_event
            .entry(event["event"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(by_event.values().sum::<u64>(), done.records_out);
    assert_eq!(by_event["failed-password"], failed, "{by_event:?}");
    let state = cluster
        .edge_state("e1")
        .join(format!("executions/{}", done.id));
    let letters = shell_number("cat dead-letters/* 2>/dev/null | wc -l", &state);
    assert_eq!(letters, done.dead_letters);
}

/// What a pipeline of the folder does when it is run.
enum Example {
    /// It ends, and writes this file as `expected` has it.
    Ends {
        writes: &'static str,
        dead_letters: u64,
    },
    /// It reads what it is given as standard input, or by its launch, and prints `expected`.
    Reads,
    /// It goes on; each record is JSON with these keys.
    GoesOn { keys: &'static [&'static str] },
}

const EXAMPLES: [(&str, Example); 11] = [
    (
        "by-label",
        Example::GoesOn {
            keys: &["seq", "line", "node"],
        },
    ),
    (
        "canary",
        Example::GoesOn {
            keys: &["node", "seq"],
        },
    ),
    (
        "filter-file",
        Example::Ends {
            writes: "output.log",
            dead_letters: 0,
        },
    ),
    (
        "gpu-report",
        Example::Ends {
            writes: "gpu-report.json",
            dead_letters: 0,
        },
    ),
    (
        "heartbeat",
        Example::GoesOn {
            keys: &["message", "timestamp", "hostname"],
        },
    ),
    (
        "log-triage",
        Example::Ends {
            writes: "triage.out",
            dead_letters: 0,
        },
    ),
    (
        "pair",
        Example::GoesOn {
            keys: &["seq", "from"],
        },
    ),
    (
        "quickstart",
        Example::GoesOn {
            keys: &["node", "seq", "at"],
        },
    ),
    (
        "service-map",
        Example::Ends {
            writes: "service-map.out",
            dead_letters: 0,
        },
    ),
    (
        "sshd-auth",
        Example::Ends {
            writes: "output.jsonl",
            dead_letters: 2,
        },
    ),
    ("stdin-errors", Example::Reads),
];

/// Plugins that the examples use.
fn needs_plugins() {
    plugin("filter_contains");
    plugin("gpu_report");
    plugin("log_triage");
    plugin("service_map");
    plugin("sshd_auth");
}

#[test]
fn every_example_is_run_by_a_test() {
    let mut folders: Vec<String> = std::fs::read_dir(repository().join("pipelines"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let tested: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(folders, tested, "an example without a test");
}

#[test]
fn examples_that_end_write_what_is_expected_without_a_cluster() {
    needs_plugins();
    for (name, example) in &EXAMPLES {
        let Example::Ends {
            writes,
            dead_letters,
        } = example
        else {
            continue;
        };
        let folder = repository().join("pipelines").join(name);
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join("input.log"), dir.path().join("input.log")).unwrap();
        let ran = Command::new(sluice_program())
            .args(["pipeline", "run"])
            .arg(folder.join("pipeline.toml"))
            .current_dir(dir.path())
            .output()
            .unwrap();
        let talk = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{name}: {talk}");
        assert!(
            talk.contains(&format!("{dead_letters} dead letters")),
            "{name}: {talk}"
        );
        let written = std::fs::read_to_string(dir.path().join(writes)).unwrap();
        let expected = std::fs::read_to_string(folder.join("expected")).unwrap();
        assert_eq!(written, expected, "{name}");
    }
}

#[test]
fn examples_that_end_complete_on_a_cluster() {
    needs_plugins();
    let mut cluster = Cluster::start(&["e1"]);
    for (name, example) in &EXAMPLES {
        let Example::Ends {
            writes,
            dead_letters,
        } = example
        else {
            continue;
        };
        let folder = repository().join("pipelines").join(name);
        std::fs::copy(
            folder.join("input.log"),
            cluster.edge_file("e1", "input.log"),
        )
        .unwrap();
        let file = folder.join("pipeline.toml");
        let deployed = cluster.sluice(&["deploy", file.to_str().unwrap(), "--wait=60s"]);
        assert_eq!(deployed.code, 0, "{name}: {deployed:?}");
        if std::fs::read_to_string(&file)
            .unwrap()
            .contains("kind = \"batch\"")
        {
            let ran = cluster.sluice(&["run", "launch", name, "--wait=60s"]);
            assert_eq!(ran.code, 0, "{name}: {ran:?}");
        } else {
            let done = wait_completed(&cluster, name, "e1");
            assert_eq!(done.dead_letters, *dead_letters, "{done:?}");
        }
        let written = std::fs::read_to_string(cluster.edge_file("e1", writes)).unwrap();
        let expected = std::fs::read_to_string(folder.join("expected")).unwrap();
        assert_eq!(written, expected, "{name}");
    }
    let jobs = cluster.api().jobs().unwrap();
    assert!(
        jobs.iter().all(|job| job.state.as_str() == "completed"),
        "{jobs:?}"
    );
    // What only a cluster can: a second version of a file pipeline starts over, an unchanged deploy does nothing.
    let file = repository().join("pipelines/filter-file/pipeline.toml");
    let again = cluster.sluice(&["deploy", file.to_str().unwrap(), "--output", "json"]);
    let reply: sluice_api::DeployReply = again.json();
    assert_eq!(reply.outcome.as_str(), "unchanged");
    cluster.deploy(
        &PipelineText::steady("filter-file")
            .file("input.log")
            .output("second.log"),
    );
    let done = cluster.wait_execution("filter-file", "e1", "completed at version 2", |it| {
        it.version.0 == 2 && it.state == ExecutionState::Completed
    });
    assert_eq!(done.records_out, done.records_in);
}

#[test]
fn examples_that_read_what_they_are_given_print_what_is_expected_here_and_by_a_launch() {
    needs_plugins();
    let cluster = Cluster::start(&["e1"]);
    for (name, example) in &EXAMPLES {
        if !matches!(example, Example::Reads) {
            continue;
        }
        let folder = repository().join("pipelines").join(name);
        let (file, input) = (folder.join("pipeline.toml"), folder.join("input.log"));
        let (file, input) = (file.to_str().unwrap(), input.to_str().unwrap());
        let expected = std::fs::read_to_string(folder.join("expected")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for command in [&["pipeline", "run"][..], &["dev"]] {
            let ran = Command::new(sluice_program())
                .args(command)
                .arg(file)
                .env("HOME", dir.path())
                .current_dir(dir.path())
                .stdin(std::fs::File::open(input).unwrap())
                .output()
                .unwrap();
            assert!(ran.status.success(), "{name}: {ran:?}");
            assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected, "{name}");
        }
        let deployed = cluster.sluice(&["deploy", file]);
        assert_eq!(deployed.code, 0, "{name}: {deployed:?}");
        let ran = cluster.sluice(&["run", "launch", name, "--stdin", input, "--wait=60s"]);
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        let said = cluster.sluice(&["run", "output", ran.stdout.trim(), "--wait=60s"]);
        assert_eq!((said.code, said.stdout), (0, expected), "{name}");
    }
}

#[test]
fn examples_that_go_on_print_records_under_dev_until_they_are_stopped() {
    needs_plugins();
    for (name, example) in &EXAMPLES {
        let Example::GoesOn { keys } = example else {
            continue;
        };
        let dir = tempfile::tempdir().unwrap();
        let (out, log) = (dir.path().join("out"), dir.path().join("log"));
        let mut command = Command::new(sluice_program());
        command
            .arg("dev")
            .arg(
                repository()
                    .join("pipelines")
                    .join(name)
                    .join("pipeline.toml"),
            )
            .env("HOME", dir.path())
            .current_dir(dir.path());
        let mut dev = Process::start(name, &mut command, &out, &log);
        let text = wait::until(&format!("{name} to print two records"), || {
            let text = std::fs::read_to_string(&out).unwrap();
            let ended = dev.ended();
            assert!(
                ended.is_none(),
                "{ended:?}: {}",
                std::fs::read_to_string(&log).unwrap()
            );
            wait::check(text.matches('\n').count() >= 2, || format!("{text:?}")).map(|()| text)
        });
        for line in text.lines().take(2) {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let found: Vec<&str> = record
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            assert_eq!(found, keys, "{name}: {line}");
        }
        let status = dev.terminate();
        assert!(status.success(), "{name}: {status}");
    }
}

#[test]
fn examples_that_go_on_run_on_a_cluster_and_their_records_are_in_the_logs() {
    needs_plugins();
    let cluster = Cluster::start(&["e1", "e2"]);
    for (node, label) in [("e1", "line=press"), ("e2", "line=mill")] {
        assert_eq!(cluster.sluice(&["node", "label", node, label]).code, 0);
    }
    for (name, example) in &EXAMPLES {
        let Example::GoesOn { keys } = example else {
            continue;
        };
        let file = repository()
            .join("pipelines")
            .join(name)
            .join("pipeline.toml");
        let deployed = cluster.sluice(&["deploy", file.to_str().unwrap(), "--wait=60s"]);
        assert_eq!(deployed.code, 0, "{name}: {deployed:?}");
        wait::until(&format!("records of {name} from both edges"), || {
            let ran = cluster.sluice(&["logs", name, "--tail", "50", "--output", "json"]);
            let lines: Vec<sluice_api::LogLine> = ran.json();
            let records = |node: &str| {
                let is_record = |line: &&sluice_api::LogLine| {
                    line.node.as_str() == node && line.level == sluice_api::LogLevel::Record
                };
                lines
                    .iter()
                    .filter(is_record)
                    .map(|line| line.message.clone())
                    .next()
            };
            let (Some(one), Some(two)) = (records("e1"), records("e2")) else {
                return Err(format!("{:?}", lines));
            };
            for record in [one, two] {
                let record: serde_json::Value = serde_json::from_str(&record).unwrap();
                assert!(
                    keys.iter().all(|key| record.get(key).is_some()),
                    "{name}: {record}"
                );
            }
            Ok(())
        });
    }
    cluster.wait_job_running("by-label", 2);
    cluster.wait_job_running("canary", 2);
    cluster.wait_job_running("quickstart", 2);
    cluster.wait_job_running("heartbeat", 2);
    cluster.wait_job_running("pair", 2);
}
