//! What a launch brings for `[input.stdin]`, with real processes: each task reads exactly these bytes, whoever dies.
//!
//! The bytes are a real log where SLUICE_SAMPLE_LOGS names the folder of sample logs, and a generated one elsewhere.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sluice_api::{Run, RunLaunch, StdinInfo, routes};
use sluice_model::{Digest, NodeState, RunState};
use sluice_tests::e2e::pipelines::plugin;
use sluice_tests::e2e::{Cluster, wait};

/// What the jobs look for, in the sample log and in the generated one.
const WORD: &str = "Failed password";

fn generated(lines: usize) -> String {
    let mut text = String::new();
    for number in 0..lines {
        let what = if number % 7 == 0 {
            WORD
        } else {
            "Accepted key"
        };
        writeln!(
            text,
            "Dec 10 06:55:46 LabSZ sshd[{number}]: {what} for root"
        )
        .unwrap();
    }
    text
}

/// A log in `dir`.
fn log(dir: &Path) -> PathBuf {
    let folder = std::env::var_os("SLUICE_SAMPLE_LOGS").filter(|folder| !folder.is_empty());
    if let Some(folder) = folder {
        return Path::new(&folder).join("OpenSSH_2k.log");
    }
    let path = dir.join("ssh.log");
    std::fs::write(&path, generated(20_000)).unwrap();
    path
}

/// What `grep` finds of it.
fn grep(path: &Path) -> String {
    let found = Command::new("grep").args(["-F", WORD]).arg(path).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    assert!(
        !found.is_empty(),
        "{} has what is looked for",
        path.display()
    );
    // The output of a run ends its lines alike.
    found.replace("\r\n", "\n")
}

/// A job that finds the lines with [`WORD`] in its stdin.
fn job(name: &str, more: &str) -> String {
    let filter = plugin("filter_contains");
    format!(
        "name = \"{name}\"\nkind = \"batch\"\nidempotent = true\n{more}\n[input.stdin]\n[[stage]]\nname = \"found\"\n\
         plugin = {:?}\nconfig = {{ contains = \"{WORD}\" }}\n[output.stdout]\n",
        filter.to_str().unwrap()
    )
}

fn launch(cluster: &Cluster, args: &[&str]) -> String {
    let ran = cluster.sluice(&[&["run", "launch"], args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.trim().to_owned()
}

fn describe(cluster: &Cluster, id: &str) -> Run {
    let args = ["run", "describe", id, "--output", "json"];
    cluster.sluice(&args).json()
}

#[track_caller]
fn output(cluster: &Cluster, id: &str, task: &str) -> String {
    let ran = cluster.sluice(&["run", "output", id, "--task", task, "--wait=60s"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout
}

fn stdins(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".stdin"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_launch_brings_its_stdin_from_a_file_from_a_pipe_and_over_http() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    let here = tempfile::tempdir().unwrap();
    let path = log(here.path());
    let (file, expected) = (path.to_str().unwrap(), grep(&path));
    assert_eq!(cluster.try_deploy(&job("triage", "count = 2")).code, 0);
    assert_eq!(cluster.try_deploy(&job("again", "")).code, 0);

    // Each task of each job reads the same bytes.
    let id = launch(
        &cluster,
        &["triage", "again", "--stdin", file, "--wait=60s"],
    );
    let run = describe(&cluster, &id);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(run.stdin, Some(Digest::of(&bytes)));
    assert_eq!((run.state, run.tasks.len()), (RunState::Completed, 3));
    for task in &run.tasks {
        let at = format!("{}/{}", task.job, task.node.as_ref().unwrap());
        assert_eq!(output(&cluster, &id, &at), expected, "{at}");
    }

    let mut piped = cluster.sluice_command(&[
        "run",
        "launch",
        "again",
        "--node",
        "e2",
        "--stdin",
        "-",
        "--wait=60s",
    ]);
    piped
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut piped = piped.spawn().unwrap();
    piped.stdin.take().unwrap().write_all(&bytes).unwrap();
    let ended = piped.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let id = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(output(&cluster, id.trim(), "again/e2"), expected);

    // Without the command line: an upload, and a launch that names it.
    let digest = Digest::of(&bytes);
    let path = routes::fill(routes::STDIN, &[&digest.to_string()]);
    let info: StdinInfo = cluster.api().put(&path, bytes.clone()).unwrap();
    assert_eq!((info.digest, info.size), (digest, bytes.len() as u64));
    let launch = RunLaunch {
        jobs: vec!["again".parse().unwrap()],
        nodes: vec!["e1".parse().unwrap()],
        stdin: Some(digest),
        ..RunLaunch::default()
    };
    let run: Run = cluster.api().post(routes::RUNS, &launch).unwrap();
    assert_eq!(output(&cluster, &run.id.to_string(), "again/e1"), expected);
}

#[test]
fn a_launch_that_brings_nothing_too_much_or_what_nobody_reads_says_the_way_out() {
    let mut cluster = Cluster::start(&["e1"]);
    let here = tempfile::tempdir().unwrap();
    let path = |name: &str| here.path().join(name).to_str().unwrap().to_owned();
    assert_eq!(cluster.try_deploy(&job("triage", "")).code, 0);
    cluster
        .sluice(&["run", "launch", "triage"])
        .fails(2, &["triage reads `[input.stdin]`", "--stdin FILE"]);
    cluster
        .sluice(&[
            "schedule", "create", "s", "--job", "triage", "--every", "1h",
        ])
        .fails(2, &["the schedule could not launch", "`[input.file]`"]);
    let daemon = job("always", "").replace("kind = \"batch\"\nidempotent = true\n", "");
    cluster
        .try_deploy(&daemon)
        .fails(2, &["kind = \"batch\"", "run launch JOB --stdin FILE"]);
    let unread = "name = \"unread\"\nkind = \"batch\"\n[input.generate]\ncount = 1\ntemplate = \"x\"\n[output.discard]\n";
    assert_eq!(cluster.try_deploy(unread).code, 0);
    std::fs::write(path("empty"), b"").unwrap();
    cluster
        .sluice(&["run", "launch", "unread", "--stdin", &path("empty")])
        .fails(2, &["nothing of it reads that: unread"]);
    let large = std::fs::File::create(path("large")).unwrap();
    large.set_len((256 << 20) + 1).unwrap();
    cluster
        .sluice(&["run", "launch", "triage", "--stdin", &path("large")])
        .fails(2, &["256 MiB", "`[input.file]`"]);
    cluster
        .sluice(&["run", "launch", "triage", "--stdin", &path("nowhere")])
        .fails(2, &["nowhere", "No such file"]);
    // What can be told before the upload is told before the upload.
    let said: [(&[&str], i32, &str); 3] = [
        (&["nobody"], 3, "no job nobody"),
        (&["triage", "--param", "top=1"], 2, "parameter `top`"),
        (&["triage", "--node", "nowhere"], 3, "nowhere"),
    ];
    for (args, code, says) in said {
        let empty = path("empty");
        let args = [&["run", "launch", "--stdin", &empty][..], args].concat();
        cluster.sluice(&args).fails(code, &[says]);
    }
    let kept = stdins(&cluster.orchestrator_dir().join("artifacts"));
    assert_eq!(kept, [""; 0], "nothing was uploaded");
    let lacking = RunLaunch {
        jobs: vec!["triage".parse().unwrap()],
        stdin: Some(Digest::of(b"never uploaded")),
        ..RunLaunch::default()
    };
    let refused = cluster.api().post::<Run>(routes::RUNS, &lacking);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("is not on the orchestrator"), "{refused}");
    let runs: Vec<Run> = cluster.sluice(&["run", "list", "--output", "json"]).json();
    assert_eq!(runs, [], "nothing was launched");

    // Nothing is something to bring.
    let id = launch(
        &cluster,
        &["triage", "--stdin", &path("empty"), "--wait=60s"],
    );
    assert_eq!(output(&cluster, &id, "triage/e1"), "");
    assert_eq!(describe(&cluster, &id).tasks[0].records_in, 0);
}

#[test]
fn case_41_a_launchs_stdin_outlives_the_edge_its_disk_and_the_orchestrator() {
    let mut cluster = Cluster::start(&["e1"]);
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("large.log");
    std::fs::write(&path, generated(400_000)).unwrap();
    let (file, expected) = (path.to_str().unwrap(), grep(&path));
    assert_eq!(cluster.try_deploy(&job("triage", "")).code, 0);

    // The edge dies when it has pulled the stdin and not named it, then when it has saved how far it has read; the
    // orchestrator dies in between.
    let (pulled, saved) = ("component/written/2", "file checkpoint/committed");
    cluster.doom_edge("e1", pulled);
    cluster.wait_node("e1", NodeState::Connected);
    let id = launch(&cluster, &["triage", "--stdin", file]);
    cluster.wait_doom("e1", "component/written");
    cluster.kill_orchestrator();
    cluster.start_edge("e1");
    cluster.doom_edge("e1", saved);
    cluster.start_orchestrator();
    cluster.wait_doom("e1", saved);
    cluster.start_edge("e1");
    assert_eq!(output(&cluster, &id, "triage/e1"), expected);
    let run = describe(&cluster, &id);
    assert_eq!(run.state, RunState::Completed, "{run:?}");

    // A machine that lost its disk before the end pulls it again.
    cluster.doom_edge("e1", "start/before");
    cluster.wait_node("e1", NodeState::Connected);
    let id = launch(&cluster, &["triage", "--stdin", file]);
    cluster.wait_doom("e1", "start/before");
    assert_eq!(stdins(&cluster.edge_state("e1").join("artifacts")).len(), 1);
    cluster.wipe_edge("e1");
    let token = cluster.token_for(Some("e1"));
    cluster.start_joining("e1", &token, &[]);
    assert_eq!(output(&cluster, &id, "triage/e1"), expected);
    // What is kept is kept once.
    let kept = stdins(&cluster.orchestrator_dir().join("artifacts"));
    assert_eq!(kept.len(), 1, "{kept:?}");
    wait::until("the run to complete", || {
        let run = describe(&cluster, &id);
        wait::check(run.state == RunState::Completed, || format!("{run:?}"))
    });
}
