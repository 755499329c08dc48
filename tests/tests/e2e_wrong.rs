//! Every wrong thing a person can do: the right message and exit code, nothing half-done, and what ran before runs on.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use sluice_api::{LogLine, TokenCreate, TokenCreated};
use sluice_model::{ExecutionState, JobState, NodeState};
use sluice_tests::e2e::pipelines::{PipelineText, padded_component, plugin, seqs};
use sluice_tests::e2e::{Cluster, Ran, SmallDisk, dir_text, wait};

/// A cluster in which the job `before` runs on `e1`, so that harm to it would show.
fn working_cluster() -> Cluster {
    let mut cluster = Cluster::start(&["e1"]);
    cluster.deploy(&PipelineText::steady("before").stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "before.out", 3);
    cluster
}

/// The job `before` ran on all the time, in one process.
#[track_caller]
fn assert_ran_on(cluster: &mut Cluster) {
    let lines = cluster.wait_more_lines("e1", "before.out", 5);
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(seqs("before", &lines), expected);
    assert!(cluster.edge("e1").ended().is_none());
    let execution = cluster.execution("before", "e1");
    assert_eq!(execution.state, ExecutionState::Running);
    assert_eq!((execution.version.0, execution.restarts), (1, 0));
}

/// What a refused deploy must not have touched.
#[derive(Debug, PartialEq)]
struct Footprint {
    jobs: Vec<String>,
    plugins: usize,
    revision: u64,
}

fn footprint(cluster: &Cluster) -> Footprint {
    let api = cluster.api();
    let jobs = api.jobs().unwrap();
    Footprint {
        jobs: jobs
            .iter()
            .map(|job| format!("{}@{}", job.name, job.version))
            .collect(),
        plugins: api.plugins().unwrap().len(),
        revision: api.node("e1").unwrap().desired_rev.0,
    }
}

/// Deploys and validates a text that is wrong; both refuse it in the same words.
#[track_caller]
fn refused(cluster: &Cluster, name: &str, text: &[u8], says: &[&str]) -> Ran {
    let file = cluster.root().join(format!("pipelines/{name}.toml"));
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let validated = cluster.sluice(&["pipeline", "validate", path]);
    validated.fails(2, says);
    let deployed = cluster.sluice(&["deploy", path]);
    deployed.fails(2, says);
    assert_eq!(deployed.stdout, "", "{name}");
    deployed
}

#[test]
fn wrong_pipelines_are_refused_with_every_problem_and_its_place() {
    let mut cluster = working_cluster();
    let before = footprint(&cluster);
    let good = PipelineText::steady("wrong").text();

    refused(
        &cluster,
        "syntax",
        b"name = \"a\"\n[input.generate\n",
        &["syntax.toml:2"],
    );
    let unknown = good.replace("interval", "intervall");
    refused(
        &cluster,
        "unknown",
        unknown.as_bytes(),
        &["unknown.toml:", "input.generate.intervall", "did you mean"],
    );
    let of_type = good.replace("count = 0", "count = \"many\"");
    refused(
        &cluster,
        "type",
        of_type.as_bytes(),
        &["type.toml:", "count = \"many\"", "^^^"],
    );
    let duration = good.replace("100ms", "soon");
    refused(
        &cluster,
        "duration",
        duration.as_bytes(),
        &["`soon` is not a duration"],
    );
    let reserved = format!("parallelism = 2\n{good}");
    refused(
        &cluster,
        "reserved",
        reserved.as_bytes(),
        &["not in this version"],
    );
    let variable = good.replace("${seq}", "${sequence}");
    refused(
        &cluster,
        "variable",
        variable.as_bytes(),
        &["unknown variable `${sequence}`"],
    );
    refused(&cluster, "empty", b"", &["`name`", "input", "output"]);
    let bytes = [good.as_bytes(), b"# \xff\xfe\n"].concat();
    refused(&cluster, "bytes", &bytes, &["bytes.toml", "not UTF-8"]);
    let long = format!("{good}\n# {}\n", "x".repeat(256 * 1024));
    refused(&cluster, "long", long.as_bytes(), &["long.toml", "256 KiB"]);
    let missing = PipelineText::steady("wrong").stage("s", Path::new("gone/gone.wasm"), "{}");
    refused(
        &cluster,
        "missing",
        missing.text().as_bytes(),
        &[
            "missing.toml:",
            "gone/gone.wasm",
            "relative to the pipeline file",
        ],
    );
    // All at once.
    let all = good
        .replace("name = \"wrong\"", "name = \"Wrong Name\"")
        .replace("100ms", "soon")
        .replace("[output.file]", "[output.files]");
    refused(
        &cluster,
        "all",
        all.as_bytes(),
        &["Wrong Name", "soon", "files", "3 problems"],
    );

    let ran = cluster.sluice(&["deploy", "pipelines/nowhere.toml"]);
    ran.fails(2, &["pipelines/nowhere.toml"]);
    assert_eq!(footprint(&cluster), before);
    assert_ran_on(&mut cluster);
}

#[test]
fn wrong_usage_ends_with_2_unknown_things_with_3_and_nobody_with_4() {
    let mut cluster = working_cluster();
    cluster.sluice(&["deploy"]).fails(2, &["Usage"]);
    cluster.sluice(&["jobs"]).fails(2, &["jobs"]);
    cluster
        .sluice(&["job", "describe", "No Name"])
        .fails(2, &["No Name"]);
    cluster
        .sluice(&["token", "create", "--ttl", "0s"])
        .fails(2, &["--ttl"]);
    cluster
        .sluice(&["job", "describe", "nobody"])
        .fails(3, &["nobody", "sluice job list"]);
    cluster
        .sluice(&["job", "stop", "nobody"])
        .fails(3, &["nobody"]);
    cluster
        .sluice(&["node", "describe", "nobody"])
        .fails(3, &["nobody"]);
    cluster
        .sluice(&["execution", "describe", "before/nobody"])
        .fails(3, &["nobody"]);
    cluster.sluice(&["explain", "nobody"]).fails(3, &["nobody"]);
    cluster.sluice(&["logs", "nobody"]).fails(3, &["nobody"]);
    cluster
        .sluice(&["status", "--context", "nowhere.toml"])
        .fails(2, &["nowhere.toml"]);
    assert_ran_on(&mut cluster);

    // A deploy that nobody can run yet stands, although the wait for it ends.
    let file = cluster.root().join("pipelines/later.toml");
    let text = PipelineText::steady("later").select("site", "mars").text();
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    cluster
        .sluice(&["deploy", path, "--wait=300ms"])
        .fails(5, &["later", "no node matches"]);
    let job = cluster.api().job("later").unwrap().job;
    assert_eq!((job.state, job.version.0), (JobState::Queued, 1));

    cluster.kill_orchestrator();
    for args in [&["status"][..], &["deploy", path], &["node", "list"]] {
        let ran = cluster.sluice(args);
        ran.fails(
            4,
            &[
                "cannot reach the orchestrator at https://127.0.0.1:",
                "is it running?",
            ],
        );
        assert_eq!(ran.stdout, "");
    }
    // The edge does not mind.
    let lines = cluster.wait_more_lines("e1", "before.out", 5);
    assert_eq!(
        seqs("before", &lines).last(),
        Some(&(lines.len() as u64 - 1))
    );
    cluster.start_orchestrator();
    cluster.wait_node("e1", NodeState::Connected);
    assert_ran_on(&mut cluster);
}

#[test]
fn a_stage_with_a_wrong_config_fails_and_says_what_is_wrong() {
    let mut cluster = working_cluster();
    let wrong =
        PipelineText::steady("config").stage("f", &plugin("filter_contains"), "{ has = 'x' }");
    cluster.deploy(&wrong);
    let failed = cluster.wait_execution("config", "e1", "failed", |execution| {
        execution.state == ExecutionState::Failed
    });
    assert_eq!(failed.reason_code.unwrap().as_str(), "configure");
    assert!(
        failed.reason.unwrap().contains("has"),
        "the reason names the key"
    );
    let job = cluster.wait_job("config", "failed", |detail| {
        detail.job.state == JobState::Failed
    });
    assert_eq!((job.job.desired, job.job.failed), (1, 1));
    // A path that the edge's owner did not allow.
    let outside = PipelineText::steady("outside").output("/etc/sluice-was-here");
    cluster.deploy(&outside);
    let refused = cluster.wait_execution("outside", "e1", "refused", |execution| {
        execution
            .reason_code
            .is_some_and(|code| code.as_str() == "refused")
    });
    let reason = refused.reason.unwrap();
    assert!(
        reason.contains("/etc/sluice-was-here") && reason.contains("--allow-path"),
        "{reason}"
    );
    assert!(!Path::new("/etc/sluice-was-here").exists());
    // What can come: a missing file.
    cluster.deploy(&PipelineText::steady("absent").file("not-yet.log"));
    let waiting = cluster.wait_execution("absent", "e1", "in backoff", |execution| {
        execution
            .reason_code
            .is_some_and(|code| code.as_str() == "backoff")
    });
    assert!(waiting.reason.unwrap().contains("not-yet.log"));
    assert!(waiting.next_at.is_some());
    std::fs::write(cluster.edge_file("e1", "not-yet.log"), "now\n").unwrap();
    cluster.wait_execution("absent", "e1", "completed", |execution| {
        execution.state == ExecutionState::Completed
    });
    assert_eq!(cluster.lines("e1", "absent.out"), ["now"]);
    assert_ran_on(&mut cluster);
}

#[test]
fn an_ungranted_import_is_refused_and_the_usual_ones_run() {
    let mut cluster = working_cluster();
    let before = footprint(&cluster);
    let sockets = PipelineText::steady("net").stage("talks", &plugin("wasi_sockets"), "{}");
    refused(
        &cluster,
        "net",
        sockets.text().as_bytes(),
        &[
            "net.toml:",
            "stage `talks`",
            "wasi:sockets",
            "[stage.grants]",
        ],
    );
    assert_eq!(footprint(&cluster), before);

    let usual = PipelineText::steady("usual").stage("usual", &plugin("wasi_usual"), "{}");
    cluster.deploy(&usual);
    cluster.wait_lines("e1", "usual.out", 3);
    cluster.wait_running("usual", "e1");
    // What it prints goes to the execution's log, and there is nothing behind its imports.
    wait::until("its standard output in the log", || {
        let ran = cluster.sluice(&["logs", "usual", "--tail", "1000", "--output", "json"]);
        let lines: Vec<LogLine> = ran.json();
        let said = lines.iter().find(|line| line.message.contains("arguments"));
        said.map(|line| assert!(line.message.contains("0 variables"), "{line:?}"))
            .ok_or_else(|| format!("{lines:?}"))
    });
    assert_ran_on(&mut cluster);
}

/// Runs a join that must fail, and asserts that nothing of it is left that a good token could not finish.
#[track_caller]
fn join_fails(cluster: &Cluster, name: &str, token: &str, code: i32, says: &[&str]) {
    let ran = cluster.run(&mut cluster.join_command(name, token));
    ran.fails(code, says);
    let identity = cluster.edge_state(name).join("identity.pem");
    assert!(
        !identity.exists(),
        "it joined: {}",
        dir_text(&cluster.edge_state(name))
    );
}

#[test]
fn tokens_that_are_expired_used_up_foreign_or_damaged_let_nobody_in() {
    let mut cluster = working_cluster();
    let nodes = |cluster: &Cluster| cluster.api().nodes().unwrap().len();

    let created: TokenCreated = cluster
        .api()
        .create_token(&TokenCreate {
            ttl_ms: 1,
            uses: 1,
            node: None,
            ..TokenCreate::default()
        })
        .unwrap();
    wait::until("the token to expire", || {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        wait::check(
            now.as_millis() > created.expires_at.0.unsigned_abs().into(),
            || "not yet".to_owned(),
        )
    });
    join_fails(
        &cluster,
        "e2",
        &created.token,
        1,
        &["expired", "sluice token create"],
    );

    let once = cluster.sluice(&["token", "create", "--uses", "1"]);
    assert_eq!(once.code, 0, "{once:?}");
    let once = once.stdout.trim().to_owned();
    cluster.start_joining("e2", &once, &[]);
    cluster.wait_node("e2", NodeState::Connected);
    join_fails(
        &cluster,
        "e3",
        &once,
        1,
        &["used up", "sluice token create"],
    );

    let of_e9 = cluster.token_for(Some("e9"));
    join_fails(&cluster, "e3", &of_e9, 1, &["for the node e9"]);

    let mut damaged = cluster.token();
    damaged.truncate(damaged.len() - 3);
    join_fails(&cluster, "e3", &damaged, 2, &["damaged"]);
    join_fails(&cluster, "e3", "hello", 2, &["sluice token create"]);
    let gone = ["nowhere.txt", "sluice token create > FILE"];
    join_fails(&cluster, "e3", "@nowhere.txt", 2, &gone);

    // A name in use, by a node that is alive.
    let any = cluster.token();
    let twin = cluster.root().join("twin");
    let mut command = cluster.edge_command_in(&twin);
    command.args(["--name", "e1", "--join", &any]);
    let ran = cluster.run(&mut command);
    ran.fails(
        1,
        &[
            "a node named e1 is registered already",
            "--node e1",
            "--name",
        ],
    );
    assert!(!twin.join("identity.pem").exists(), "{}", dir_text(&twin));
    assert_eq!(nodes(&cluster), 2);
    assert_eq!(
        cluster.api().node("e1").unwrap().state,
        NodeState::Connected
    );

    // The same start with a good token goes through.
    cluster.start_joining("e3", &any, &[]);
    cluster.wait_node("e3", NodeState::Connected);
    cluster.wait_running("before", "e3");
    assert_eq!(nodes(&cluster), 3);
    assert_ran_on(&mut cluster);
}

#[test]
fn a_token_of_another_cluster_lets_nobody_in() {
    let mut cluster = working_cluster();
    let foreign = cluster.token();
    // Another cluster at the same address: the directory was emptied, the ports are the same.
    cluster.kill_orchestrator();
    let dir = cluster.orchestrator_dir();
    let ports = std::fs::read(dir.join("listen.toml")).unwrap();
    std::fs::rename(&dir, cluster.root().join("orchestrator-before")).unwrap();
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("listen.toml"), ports).unwrap();
    cluster.start_orchestrator();
    join_fails(&cluster, "e2", &foreign, 4, &["belongs to another cluster"]);
    assert!(cluster.api().nodes().unwrap().is_empty());
    // The edge of the first cluster does not fall for it either, and works on.
    let lines = cluster.wait_more_lines("e1", "before.out", 5);
    assert_eq!(
        seqs("before", &lines).last(),
        Some(&(lines.len() as u64 - 1))
    );
    cluster.kill_orchestrator();
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(cluster.root().join("orchestrator-before"), &dir).unwrap();
    cluster.start_orchestrator();
    cluster.wait_node("e1", NodeState::Connected);
    assert_ran_on(&mut cluster);
}

#[test]
fn a_second_orchestrator_on_a_directory_ends_and_says_why() {
    let mut cluster = working_cluster();
    let pid = cluster.orchestrator().pid().to_string();
    let dir = cluster.orchestrator_dir();
    let context = std::fs::read(cluster.context_file()).unwrap();
    let second = cluster.run(&mut cluster.orchestrator_command());
    second.fails(1, &[dir.to_str().unwrap(), "in use", &pid]);
    assert_eq!(std::fs::read(cluster.context_file()).unwrap(), context);
    assert!(cluster.orchestrator().ended().is_none());
    cluster.wait_node("e1", NodeState::Connected);
    assert_eq!(cluster.log().events("session.open").len(), 1);
    assert_ran_on(&mut cluster);
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_half_made() {
    let cluster = Cluster::start(&[]);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp_address, tcp_address) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let (udp_text, tcp_text) = (udp_address.to_string(), tcp_address.to_string());
    let free = "127.0.0.1:0".to_owned();
    for (listen, api, taken, protocol) in [
        (&udp_text, &free, &udp_text, "UDP"),
        (&free, &tcp_text, &tcp_text, "TCP"),
    ] {
        let dir = cluster.root().join(format!("taken-{protocol}"));
        let dir_name = dir.to_str().unwrap();
        let args = [
            "orchestrator",
            "--state-dir",
            dir_name,
            "--listen",
            listen,
            "--api",
            api,
        ];
        cluster
            .sluice(&args)
            .fails(1, &["cannot listen on", protocol, taken]);
        assert!(!dir.join("operator.toml").exists(), "{}", dir_text(&dir));
        // The same directory starts once the port is free.
        let mut command = std::process::Command::new(sluice_tests::e2e::sluice_program());
        command.args([
            "orchestrator",
            "--state-dir",
            dir_name,
            "--listen",
            "127.0.0.1:0",
        ]);
        command.args(["--api", "127.0.0.1:0"]);
        let log = cluster.root().join(format!("taken-{protocol}.log"));
        let mut process = sluice_tests::e2e::Process::start("another", &mut command, &log, &log);
        wait::until("it to start", || {
            let there = dir.join("operator.toml").exists();
            wait::check(there, || std::fs::read_to_string(&log).unwrap())
        });
        assert!(process.terminate().success());
    }
}

#[test]
fn a_record_over_the_limit_is_a_dead_letter_and_its_neighbours_pass() {
    const RECORD_BYTES_MAX: usize = 16 << 20;
    let mut cluster = working_cluster();
    let path = cluster.edge_file("e1", "monster.log");
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(b"left\n").unwrap();
    file.write_all(&vec![b'm'; RECORD_BYTES_MAX + 1]).unwrap();
    file.write_all(b"\nright\n").unwrap();
    drop(file);
    let pipeline = PipelineText::steady("monster").file("monster.log").stage(
        "same",
        &plugin("identity"),
        "{}",
    );
    cluster.deploy(&pipeline);
    let done = cluster.wait_execution("monster", "e1", "completed", |execution| {
        execution.state == ExecutionState::Completed
    });
    assert_eq!(cluster.lines("e1", "monster.out"), ["left", "right"]);
    assert_eq!((done.records_out, done.dead_letters), (2, 1), "{done:?}");
    let letters = cluster
        .edge_state("e1")
        .join(format!("executions/{}/dead-letters", done.id));
    let text: String = std::fs::read_dir(&letters)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let letter: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(letter["kind"], "too-large");
    assert_eq!(letter["bytes"], RECORD_BYTES_MAX + 1);
    assert_ran_on(&mut cluster);
}

#[test]
fn a_poisonous_record_dies_alone() {
    let mut cluster = working_cluster();
    let records: Vec<String> = (0..600)
        .map(|number| match number {
            250 => "poison".to_owned(),
            number => format!("record {number}"),
        })
        .collect();
    std::fs::write(cluster.edge_file("e1", "some.log"), records.join("\n")).unwrap();
    let pipeline = PipelineText::steady("poison").file("some.log").stage(
        "traps",
        &plugin("hostile"),
        "{ do = 'trap-on' }",
    );
    cluster.deploy(&pipeline);
    let done = cluster.wait_execution("poison", "e1", "completed", |execution| {
        execution.state == ExecutionState::Completed
    });
    assert_eq!(
        (done.records_in, done.records_out, done.dead_letters),
        (600, 599, 1),
        "{done:?}"
    );
    let expected: Vec<&String> = records
        .iter()
        .filter(|record| *record != "poison")
        .collect();
    assert_eq!(
        cluster.lines("e1", "poison.out").iter().collect::<Vec<_>>(),
        expected
    );
    assert_ran_on(&mut cluster);
}

/// The edge's disk in the test of a full one: its store, its log and some components fit.
const DISK_BYTES: u64 = 24 << 20;

/// A component that needs room on the edge's disk.
const LARGE_BYTES: usize = 2 << 20;

#[test]
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must not look like one that ran"
)]
fn case_42_a_full_disk_of_the_edge_takes_no_work_and_stops_none() {
    let mut cluster = Cluster::start(&[]);
    let disk = match SmallDisk::mount(&cluster.root().join("disk"), DISK_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!(
                "SKIPPED case_42_a_full_disk_of_the_edge_takes_no_work_and_stops_none: {why}"
            );
            return;
        }
    };
    cluster.place_edge_state("e1", &disk.path().join("state"));
    cluster.join(&["e1"]);
    cluster.deploy(&PipelineText::steady("before").stage("same", &plugin("identity"), "{}"));
    cluster.wait_lines("e1", "before.out", 3);
    disk.fill_up();

    let component = std::fs::read(plugin("identity")).unwrap();
    let large = cluster.root().join("large.wasm");
    std::fs::write(&large, padded_component(&component, 42, LARGE_BYTES)).unwrap();
    cluster.deploy(&PipelineText::steady("late").stage("same", &large, "{}"));
    // What it kept in reserve lets it take the row and report on it; the component finds no room.
    let late = cluster.wait_execution("late", "e1", "waiting for room", |execution| {
        assert_ne!(execution.state, ExecutionState::Running, "{execution:?}");
        let reason = execution.reason.as_deref().unwrap_or_default();
        reason.contains("full")
    });
    assert_eq!(late.reason_code.unwrap().as_str(), "fetching", "{late:?}");
    assert!(late.received && late.next_at.is_some(), "{late:?}");
    // Without even that, it takes nothing: a row that is not on disk is not acknowledged.
    disk.fill_up();
    cluster.deploy(&PipelineText::steady("later"));
    let full = cluster.edge_log("e1").mark();
    wait::until("a row to find no room", || {
        let trouble = cluster.edge_log("e1").events_since(full, "store.trouble");
        wait::check(!trouble.is_empty(), || "no trouble".to_owned())
    });
    let later = cluster.execution("later", "e1");
    assert!(
        !later.received && later.state == ExecutionState::Pending,
        "{later:?}"
    );
    // The edge and its work go on meanwhile.
    let lines = cluster.wait_more_lines("e1", "before.out", 15);
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(seqs("before", &lines), expected);
    assert!(
        disk.free_bytes() < LARGE_BYTES as u64,
        "there was room all the time"
    );
    assert!(!cluster.execution("later", "e1").received);
    for file in ["late.out", "later.out"] {
        assert!(cluster.lines("e1", file).is_empty(), "{file}");
    }

    disk.make_room();
    cluster.wait_node("e1", NodeState::Connected);
    for job in ["late", "later"] {
        cluster.wait_lines("e1", &format!("{job}.out"), 3);
        cluster.wait_job_running(job, 1);
    }
    cluster.wait_job_running("before", 1);
    assert_ran_on(&mut cluster);
}
