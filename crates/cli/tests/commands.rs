//! The real program: exit codes, messages, and every command against a real orchestrator and edge on loopback.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine of one core.
const PATIENCE: Duration = Duration::from_secs(60);

const GENERATE: &str = "name = \"ticks\"\n[input.generate]\ninterval = \"50ms\"\n\
                        template = \"tick ${seq} on ${node.name}\"\n[output.stdout]\n";

fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command
        .env_remove("SLUICE_CONTEXT")
        .env_remove("SLUICE_JOIN_TOKEN")
        .env_remove("SLUICE_LOG")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Said {
    Said::of(command.output().unwrap())
}

#[derive(Debug)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ends(self, code: i32, says: &str) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(all.contains(says), "no {says:?} in {self:#?}");
        self
    }

    #[track_caller]
    fn json(self) -> Value {
        assert_eq!(self.code, 0, "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A long-running `sluice`; ended with the value.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    /// Asks it to stop as an operator would, and waits.
    fn stop(mut self) -> i32 {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Cluster {
    dir: TempDir,
    orchestrator: Option<Running>,
}

impl Cluster {
    fn start() -> Self {
        let mut cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            orchestrator: None,
        };
        cluster.start_orchestrator();
        cluster
    }

    fn start_orchestrator(&mut self) {
        let mut command = sluice();
        command
            .args([
                "orchestrator",
                "--listen",
                "127.0.0.1:0",
                "--api",
                "127.0.0.1:0",
            ])
            .args(["--heartbeat", "200ms", "--state-dir"])
            .arg(self.dir.path().join("orchestrator"));
        self.orchestrator = Some(Running::start(&mut command));
        until("the orchestrator answers", || {
            (self.context().exists() && self.cli(&["status"]).code == 0).then_some(())
        });
    }

    fn context(&self) -> PathBuf {
        self.dir.path().join("orchestrator/operator.toml")
    }

    fn cli(&self, args: &[&str]) -> Said {
        run(sluice().arg("--context").arg(self.context()).args(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        run(sluice()
            .arg("--context")
            .arg(self.context())
            .args(args)
            .args(["--output", "json"]))
        .json()
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn edge(&self, name: &str) -> Running {
        let token = self.cli(&["token", "create"]).ends(0, "sluice1-");
        assert_eq!(token.stdout.lines().count(), 1, "{token:?}");
        Running::start(
            sluice()
                .args(["edge", "--name", name, "--label", "site=lab", "--state-dir"])
                .arg(self.dir.path().join(name))
                .env("SLUICE_JOIN_TOKEN", token.stdout.trim()),
        )
    }
}

#[test]
fn wrong_usage_and_input_end_with_2() {
    run(&mut sluice()).ends(2, "Usage");
    run(sluice().arg("jobs")).ends(2, "unrecognized subcommand");
    run(sluice().args(["node", "banish", "e1"])).ends(2, "unrecognized subcommand");
    run(sluice().arg("--version")).ends(0, "sluice 0.1.0");
    run(sluice().arg("status"))
        .ends(2, "no context")
        .ends(2, "--context FILE");
    run(sluice().args(["status", "--context", "/nonexistent/c.toml"]))
        .ends(2, "/nonexistent/c.toml");
    run(sluice().args([
        "execution",
        "describe",
        "x/y/z",
        "--context",
        "/nonexistent",
    ]))
    .ends(2, "JOB/NODE");
    run(sluice().args(["deploy", "/nonexistent/p.toml"])).ends(2, "cannot read the pipeline file");
    run(sluice().args(["edge", "--state-dir", "/tmp/x", "--label", "nothing"]))
        .ends(2, "KEY=VALUE");
    run(sluice().args(["plugin", "inspect", "/nonexistent.wasm"])).ends(2, "No such file");
    run(sluice().args(["pipeline", "schema"]).env("SLUICE_LOG", "")).json();
    run(sluice().args(["completions", "bash"])).ends(0, "_sluice()");
}

/// Each command that takes a file or a directory, with one that is not there or not of its kind: 2, which it is, and a way
/// out.
#[test]
fn files_that_are_missing_or_of_another_kind_are_wrong_input_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("text", "hello there\n");
    file("open.toml", "name = \"a\"\n[input.generate\n");
    file("good.toml", GENERATE);
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    std::fs::write(dir.path().join("bytes"), [0xff, 0xfe, 0]).unwrap();

    let read = "help: name a pipeline file";
    let syntax = "= help: ";
    let component = "help: name a component's file";
    let wasm = "help: name the `.wasm` file";
    let validate = "`sluice pipeline validate good.toml`";
    let token = "`sluice token create > FILE` makes one";
    let context = "help: the orchestrator writes operator.toml";
    let state = "name a directory, or a path where one can be made";
    let mut table = vec![
        ("plugin inspect gone", "gone: No such file", component),
        ("plugin inspect dir", "dir: is a directory", component),
        ("plugin inspect text", "text is not a component", wasm),
        ("plugin inspect good.toml", "good.toml is not a", validate),
        ("edge --name e --join @gone", "gone: No such file", token),
        ("edge --name e --join @dir", "dir: Is a directory", token),
        ("edge --name e --join @bytes", "bytes: ", token),
        ("edge --name e --join @text", "token", "sluice token create"),
        (
            "edge --name e --join x --allow-path gone",
            "gone is no",
            "make it",
        ),
        ("edge --name e --state-dir text", "text is a file", state),
        ("orchestrator --state-dir text", "text is a file", state),
        ("dev good.toml --state-dir text", "text is a file", state),
        ("status --context gone", "gone: No such file", context),
        ("status --context dir", "dir: Is a directory", context),
        ("status --context text", "text is not TOML", context),
        ("deploy good.toml --context gone", "gone: No such", context),
        (
            "run launch a --stdin text --context gone",
            "gone: No such",
            context,
        ),
    ];
    for command in ["deploy", "dev", "pipeline validate", "pipeline run"] {
        for (name, says, help) in [
            ("gone", "gone: No such file", read),
            ("dir", "dir: Is a directory", read),
            ("bytes", "bytes: it is not UTF-8", read),
            ("text", "text:1:7", syntax),
            ("open.toml", "open.toml:2:16", syntax),
        ] {
            let line: &str = Box::leak(format!("{command} {name}").into_boxed_str());
            table.push((line, says, help));
        }
    }
    for (line, says, help) in table {
        let mut command = sluice();
        command.args(line.split(' ')).current_dir(dir.path());
        if line.starts_with("edge") && !line.contains("--state-dir") {
            command.args(["--state-dir", "edge"]);
        }
        let said = run(&mut command).ends(2, says).ends(2, help);
        assert_eq!(said.stdout, "", "{line}");
    }
    // A usable place that this machine does not give is no wrong input.
    run(sluice().args(["orchestrator", "--state-dir", "/proc/sluice"]))
        .ends(1, "/proc/sluice")
        .ends(1, "help: see to the rights");
    run(sluice().args(["doctor", "--state-dir", "gone"]))
        .ends(1, "gone is not there")
        .ends(1, "to mend it: name the directory");
}

#[test]
fn a_pipeline_is_checked_without_any_orchestrator() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let good = file("good.toml", GENERATE.as_bytes());
    run(sluice().args(["pipeline", "validate"]).arg(&good)).ends(0, "is valid");
    file("core.wasm", &wat::parse_str("(module)").unwrap());
    let bad = file(
        "bad.toml",
        b"name = \"p\"\n[input.generate]\ntemplate = \"x\"\ninterval = \"1s\"\n\
          [[stage]]\nname = \"a\"\nplugin = \"core.wasm\"\n[[stage]]\nname = \"b\"\nplugin = \"gone.wasm\"\n\
          [output.discard]\n",
    );
    for command in [
        ["pipeline", "validate"],
        ["pipeline", "run"],
        ["deploy", "--dry-run"],
    ] {
        let said = run(sluice().args(command).arg(&bad)).ends(2, "bad.toml has 2 problems");
        assert!(said.stderr.contains("bad.toml:7:10"), "{}", said.stderr);
        assert!(said.stderr.contains("core module"), "{}", said.stderr);
        assert!(said.stderr.contains("stage `b`"), "{}", said.stderr);
        assert!(
            !said.stderr.contains('\u{1b}'),
            "colours without a terminal"
        );
    }
    let said = run(sluice()
        .args(["pipeline", "validate", "--output", "json"])
        .arg(&bad))
    .ends(2, "");
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (&json["valid"], &json["problems"][1]["line"]),
        (&Value::Bool(false), &10.into())
    );
}

#[test]
fn a_pipeline_runs_here_with_and_without_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    std::fs::write(&path, "name = \"copy\"\n[input.stdin]\n[output.stdout]\n").unwrap();
    for command in ["pipeline run", "dev"] {
        let mut child = sluice()
            .args(command.split(' '))
            .arg(&path)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"one\r\ntwo\nthree")
            .unwrap();
        let said = Said::of(child.wait_with_output().unwrap()).ends(0, "3 records in, 3 out");
        assert_eq!(
            said.stdout, "one\ntwo\nthree\n",
            "{command}: {}",
            said.stderr
        );
    }
    std::fs::write(
        &path,
        "name = \"p\"\n[input.file]\npath = \"/etc/hostname\"\n[output.discard]\n",
    )
    .unwrap();
    let mut command = sluice();
    command
        .args(["pipeline", "run"])
        .arg(&path)
        .current_dir(dir.path());
    run(&mut command).ends(1, "/etc/hostname");
}

#[test]
fn a_batch_runs_here_with_parameters_and_what_is_piped_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    // What comes in by standard input goes into the file that the parameter names.
    std::fs::write(
        &path,
        "name = \"keep\"\nkind = \"batch\"\n[params]\ninto = { type = \"string\" }\ntop = { type = \"integer\", default = 1 }\n\
         [input.stdin]\n[output.file]\npath = \"${param.into}-${param.top}\"\n",
    )
    .unwrap();
    for command in ["pipeline run", "dev"] {
        let into = command.replace(' ', "-");
        let mut child = sluice()
            .args(command.split(' '))
            .arg(&path)
            .args(["--param", &format!("into={into}"), "--param", "top=7"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").unwrap();
        drop(stdin);
        Said::of(child.wait_with_output().unwrap()).ends(0, "2 records in, 2 out");
        let written = std::fs::read_to_string(dir.path().join(format!("{into}-7"))).unwrap();
        assert_eq!(written, "one\ntwo\n", "{command}");
        for (params, says) in [
            (&[][..], "keep needs the parameter `into` (a string)"),
            (&["--param", "into=a", "--param", "top=x"], "`x` is not"),
            (
                &["--param", "into=a", "--param", "tip=1"],
                "it has into, top",
            ),
            (&["--param", "into=a", "--param", "into=b"], "there twice"),
        ] {
            let mut command = sluice();
            command.args(into.split('-')).arg(&path).args(params);
            run(command.current_dir(dir.path())).ends(2, says);
        }
    }
    std::fs::write(&path, GENERATE).unwrap();
    run(sluice().arg("dev").arg(&path).args(["--param", "a=b"]))
        .ends(2, "ticks has no parameter `a`")
        .ends(2, "kind = \"batch\"");
}

#[test]
fn every_command_against_a_real_cluster() {
    let cluster = Cluster::start();
    assert_eq!(cluster.json(&["node", "list"]), Value::Array(vec![]));
    cluster
        .cli(&["node", "list"])
        .ends(0, "no node has joined yet");
    let pipeline = cluster.file("p.toml", GENERATE);

    // Nobody is there yet: it is deployed, waits, and is not forgotten.
    let dry = cluster.json(&["deploy", &pipeline, "--dry-run"]);
    assert_eq!(
        (&dry["outcome"], &dry["id"]),
        (&"created".into(), &Value::Null)
    );
    cluster.cli(&["job", "describe", "ticks"]).ends(3, "ticks");
    cluster
        .cli(&["deploy", &pipeline, "--wait=300ms"])
        .ends(5, "ticks created at version 1")
        .ends(5, "no node matches yet");
    assert_eq!(cluster.json(&["job", "list"])[0]["state"], "queued");
    cluster
        .cli(&["deploy", &pipeline])
        .ends(0, "is unchanged at version 1");

    let edge = cluster.edge("e1");
    cluster
        .cli(&["deploy", &pipeline, "--wait"])
        .ends(0, "ticks version 1 is running");
    let node = &cluster.json(&["node", "list"])[0];
    assert_eq!(
        (&node["name"], &node["state"]),
        (&"e1".into(), &"connected".into())
    );
    assert_eq!(
        (&node["labels"]["site"], &node["executions"]),
        (&"lab".into(), &1.into())
    );
    let job = cluster.json(&["job", "describe", "ticks"]);
    assert_eq!(
        (&job["running"], &job["pipeline"]),
        (&1.into(), &GENERATE.into())
    );
    let execution = cluster.json(&["execution", "describe", "ticks/e1"]);
    let id = execution["id"].as_str().unwrap();
    assert_eq!(
        cluster.json(&["execution", "describe", id])["id"],
        execution["id"]
    );
    assert_eq!(execution["observed"]["state"], "running");
    assert_eq!(
        cluster.json(&["execution", "list", "--job", "ticks", "--node", "e1"])[0]["id"],
        *id
    );
    assert_eq!(
        cluster.json(&["explain", "ticks"])["nodes"][0]["matches"],
        true
    );
    assert_eq!(
        cluster.json(&["node", "describe", "e1"])["execution_list"][0]["id"],
        *id
    );
    assert_eq!(cluster.json(&["status"])["jobs"][0]["name"], "ticks");
    for table in [
        &["status"][..],
        &["explain", "ticks"],
        &["node", "describe", "e1"],
        &["job", "describe", "ticks"],
        &["execution", "list"],
        &["execution", "describe", "ticks/e1"],
    ] {
        cluster.cli(table).ends(0, "running");
    }
    let lines = until("records in the log", || {
        let lines = cluster.json(&["logs", "ticks", "--tail", "3"]);
        (lines.as_array().unwrap().len() == 3).then_some(lines)
    });
    assert_eq!(
        (&lines[0]["node"], &lines[2]["level"]),
        (&"e1".into(), &"record".into())
    );
    assert!(
        lines[2]["message"].as_str().unwrap().starts_with("tick "),
        "{lines}"
    );

    cluster
        .cli(&["job", "stop", "ticks"])
        .ends(0, "ticks is stopped");
    assert_eq!(
        cluster.json(&["job", "describe", "ticks"])["state"],
        "stopped"
    );
    cluster
        .cli(&["job", "start", "ticks"])
        .ends(0, "ticks is started");
    cluster
        .cli(&["deploy", &pipeline, "--wait", "--quiet"])
        .ends(0, "unchanged");
    cluster
        .cli(&["job", "delete", "ticks"])
        .ends(0, "ticks is deleted");
    for (args, says) in [
        (&["job", "describe", "ticks"][..], "ticks"),
        (&["job", "stop", "ticks"], "ticks"),
        (&["job", "delete", "ticks"], "ticks"),
        (&["explain", "ticks"], "ticks"),
        (&["logs", "ticks"], "ticks"),
        (&["execution", "list", "--job", "ticks"], "ticks"),
        (&["execution", "describe", "ticks/e1"], "ticks"),
        (&["node", "describe", "e9"], "e9"),
    ] {
        cluster.cli(args).ends(3, says);
    }
    assert_eq!(edge.stop(), 0);
}

#[test]
fn components_are_uploaded_once() {
    let cluster = Cluster::start();
    let stage = r#"(component (instance $s) (export "sluice:pipeline/stage@0.1.0" (instance $s)))"#;
    cluster.file("s.wasm", wat::parse_str(stage).unwrap());
    let pipeline = GENERATE.replace(
        "[output",
        "[[stage]]\nname = \"s\"\nplugin = \"s.wasm\"\n[output",
    );
    let path = cluster.file("p.toml", pipeline);
    cluster
        .cli(&["deploy", &path, "--dry-run"])
        .ends(0, "would upload");
    assert_eq!(cluster.json(&["plugin", "list"]), Value::Array(vec![]));
    cluster.cli(&["deploy", &path]).ends(0, "uploaded");
    let again = cluster.cli(&["deploy", &path]).ends(0, "unchanged");
    assert!(!again.stderr.contains("uploaded"), "{again:?}");
    let plugins = cluster.json(&["plugin", "list"]);
    assert_eq!(plugins[0]["used_by"][0], "ticks@1");
    let file = cluster.dir.path().join("s.wasm");
    let inspected = run(sluice()
        .args(["plugin", "inspect", "--output", "json"])
        .arg(file))
    .json();
    assert_eq!(inspected["digest"], plugins[0]["digest"]);
}

#[test]
fn who_may_not_or_cannot_be_reached_is_told_apart() {
    let mut cluster = Cluster::start();
    let other = Cluster::start();
    let text = std::fs::read_to_string(cluster.context()).unwrap();
    let line = |text: &str, key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .unwrap()
            .to_owned()
    };
    let foreign = std::fs::read_to_string(other.context()).unwrap();

    // Another cluster's token, then another cluster's address.
    let wrong = text.replace(&line(&text, "token"), &line(&foreign, "token"));
    let wrong = cluster.file("wrong-token.toml", wrong);
    run(sluice().args(["status", "--context", &wrong])).ends(1, "does not accept the token");
    let wrong = text.replace(&line(&text, "endpoint"), &line(&foreign, "endpoint"));
    let wrong = cluster.file("wrong-endpoint.toml", wrong);
    run(sluice().args(["status", "--context", &wrong])).ends(4, "cannot reach the orchestrator");

    // The same directory twice, a port that is taken.
    let dir = cluster.dir.path().join("orchestrator");
    run(sluice().args(["orchestrator", "--state-dir"]).arg(&dir)).ends(1, "is in use by process");
    let taken = line(&text, "endpoint");
    let taken = taken.trim_end_matches('"').rsplit('/').next().unwrap();
    run(sluice()
        .args([
            "orchestrator",
            "--listen",
            "127.0.0.1:0",
            "--api",
            taken,
            "--state-dir",
        ])
        .arg(cluster.dir.path().join("second")))
    .ends(1, taken);
    run(sluice()
        .args(["orchestrator", "--listen", "0.0.0.0:0", "--state-dir"])
        .arg(cluster.dir.path().join("third")))
    .ends(2, "--advertise");

    // An edge without, or with somebody else's, token.
    let edge_dir = cluster.dir.path().join("e1");
    let edge = |token: Option<&str>| {
        let mut command = sluice();
        command
            .args(["edge", "--name", "e1", "--state-dir"])
            .arg(&edge_dir);
        if let Some(token) = token {
            command.args(["--join", token]);
        }
        run(&mut command)
    };
    edge(None).ends(2, "sluice token create");
    edge(Some("sluice1-abc")).ends(2, "token");

    // Gone, then back on the same ports with everything it knew.
    let pipeline = cluster.file("p.toml", GENERATE);
    cluster.cli(&["deploy", &pipeline]).ends(0, "created");
    assert_eq!(cluster.orchestrator.take().unwrap().stop(), 0);
    cluster
        .cli(&["status"])
        .ends(4, "cannot reach the orchestrator at https://127.0.0.1:");
    cluster
        .cli(&["deploy", &pipeline])
        .ends(4, "is it running?");
    cluster.start_orchestrator();
    assert_eq!(cluster.json(&["job", "list"])[0]["name"], "ticks");
    assert_eq!(std::fs::read_to_string(cluster.context()).unwrap(), text);
}
