//! One orchestrator and its edges as real processes in a temporary directory.
//!
//! ```text
//!   ROOT/orchestrator/       its --state-dir
//!   ROOT/orchestrator.log    its log, over all starts
//!   ROOT/e1/state, e1.log    an edge's --state-dir and log
//!   ROOT/e1/files            what its owner allows pipelines to read and write
//!   ROOT/pipelines/          what was deployed
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use sluice_api::{DeployReply, Execution, JobDetail, TOKEN_TTL_MS_DEFAULT, TokenCreate};
use sluice_model::{ExecutionState, JobState, NodeState};
use tempfile::TempDir;

use crate::e2e::pipelines::PipelineText;
use crate::e2e::{Api, JsonLog, Link, Process, edge_program, sluice_program, wait};

/// How a cluster is set up.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    /// Time between heartbeats; three missed ones disconnect a node.
    pub heartbeat: Duration,
    /// When an absent node is lost.
    pub lost_after: Duration,
    /// How long certificates are good for; `None` is the program's own default.
    pub certificate_life: Option<Duration>,
    /// Edges connect through a [`Link`] rather than directly.
    pub linked: bool,
    /// The orchestrator serves metrics.
    pub metrics: bool,
    /// The orchestrator logs what it does for each request, too.
    pub debug: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            lost_after: Duration::from_secs(600),
            certificate_life: None,
            linked: false,
            metrics: false,
            debug: false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: processes before the directory they write to.
    edges: BTreeMap<String, Edge>,
    orchestrator: Option<Process>,
    link: Option<Link>,
    api: Option<Api>,
    options: ClusterOptions,
    deploys: usize,
    root: TempDir,
}

#[derive(Debug)]
struct Edge {
    process: Option<Process>,
    dir: PathBuf,
    state: PathBuf,
    log: JsonLog,
}

/// What a run of the CLI came to.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    /// The printed JSON.
    ///
    /// # Panics
    ///
    /// When it did not end well or did not print that type.
    #[track_caller]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        assert_eq!(self.code, 0, "{self:?}");
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error} in what was printed: {self:?}"),
        }
    }

    /// Asserts the exit code and that the talk contains each of these.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        for part in says {
            assert!(
                self.stderr.contains(part),
                "{part:?} is not in: {}",
                self.stderr
            );
        }
    }
}

impl Cluster {
    /// An orchestrator with fast heartbeats, and edges with these names, joined and connected.
    #[track_caller]
    pub fn start(edges: &[&str]) -> Self {
        Self::start_with(ClusterOptions::default(), edges)
    }

    /// [`Self::start`] with a [`Link`] between.
    #[track_caller]
    pub fn start_linked(edges: &[&str]) -> Self {
        let options = ClusterOptions {
            linked: true,
            ..ClusterOptions::default()
        };
        Self::start_with(options, edges)
    }

    /// [`Self::start`] with options.
    ///
    /// # Panics
    ///
    /// When anything of it does not come up.
    #[track_caller]
    pub fn start_with(options: ClusterOptions, edges: &[&str]) -> Self {
        let root = TempDir::with_prefix("sluice-e2e-").expect("a temporary directory can be made");
        std::fs::create_dir(root.path().join("pipelines")).expect("a new directory is empty");
        let mut cluster = Self {
            edges: BTreeMap::new(),
            orchestrator: None,
            link: options.linked.then(Link::open),
            api: None,
            options,
            deploys: 0,
            root,
        };
        cluster.start_orchestrator();
        cluster.join(edges);
        cluster
    }

    /// The directory of everything.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The orchestrator's state directory.
    pub fn orchestrator_dir(&self) -> PathBuf {
        self.root().join("orchestrator")
    }

    /// What operators need to reach the orchestrator.
    pub fn context_file(&self) -> PathBuf {
        self.orchestrator_dir().join("operator.toml")
    }

    /// The orchestrator's log.
    pub fn log(&self) -> JsonLog {
        JsonLog::at(self.root().join("orchestrator.log"))
    }

    /// An edge's log.
    pub fn edge_log(&self, name: &str) -> JsonLog {
        JsonLog::at(self.root().join(format!("{name}.log")))
    }

    /// The network between, of a linked cluster.
    ///
    /// # Panics
    ///
    /// When it is not a linked one.
    pub fn link(&self) -> &Link {
        self.link.as_ref().expect("a linked cluster was asked for")
    }

    /// The API.
    ///
    /// # Panics
    ///
    /// When the orchestrator was never started.
    pub fn api(&self) -> &Api {
        self.api.as_ref().expect("the orchestrator was started")
    }

    /// The orchestrator's process.
    ///
    /// # Panics
    ///
    /// When it was not started.
    pub fn orchestrator(&mut self) -> &mut Process {
        self.orchestrator
            .as_mut()
            .expect("the orchestrator was started")
    }

    /// Whether the orchestrator's process is there and has not ended.
    pub(super) fn orchestrator_runs(&mut self) -> bool {
        let process = self.orchestrator.as_mut();
        process.is_some_and(|process| process.ended().is_none())
    }

    /// The command that starts the orchestrator on its directory.
    pub fn orchestrator_command(&self) -> Command {
        let mut command = Command::new(sluice_program());
        self.environment(&mut command);
        command
            .arg("orchestrator")
            .arg("--state-dir")
            .arg(self.orchestrator_dir())
            .args([
                "--listen",
                "127.0.0.1:0",
                "--api",
                "127.0.0.1:0",
                "--log",
                "json",
            ])
            .arg(format!(
                "--heartbeat={}ms",
                self.options.heartbeat.as_millis()
            ))
            .arg(format!(
                "--lost-after={}ms",
                self.options.lost_after.as_millis()
            ));
        if let Some(life) = self.options.certificate_life {
            command.arg(format!("--certificate-life={}s", life.as_secs()));
        }
        if self.options.debug {
            command.env("SLUICE_LOG", "info,sluice_host=debug");
        }
        if self.options.metrics {
            command.arg("--metrics=127.0.0.1:0");
        }
        if let Some(link) = &self.link {
            command.arg(format!("--advertise={}", link.front()));
        }
        command
    }

    /// Starts the orchestrator, at first or again, and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn start_orchestrator(&mut self) {
        let mut command = self.orchestrator_command();
        self.start_orchestrator_by(&mut command)
            .unwrap_or_else(|status| panic!("the orchestrator ended at its start: {status}"));
    }

    /// Starts the orchestrator by a command, and waits until it answers or has ended.
    pub(super) fn start_orchestrator_by(
        &mut self,
        command: &mut Command,
    ) -> Result<(), ExitStatus> {
        let mark = self.log().mark();
        let stdout = self.root().join("orchestrator.out");
        let mut process = Process::start("orchestrator", command, &stdout, self.log().path());
        wait::until("the orchestrator to be ready", || {
            if let Some(status) = process.ended() {
                return Ok(Err(status));
            }
            let ready = !self
                .log()
                .events_since(mark, "orchestrator.ready")
                .is_empty();
            wait::check(ready, || "it starts".to_owned()).map(Ok)
        })?;
        if let Some(link) = &self.link {
            link.lead_to(self.edge_address());
        }
        self.orchestrator = Some(process);
        self.api = Some(Api::open(&self.context_file()));
        Ok(())
    }

    /// `kill -9`s the orchestrator.
    #[track_caller]
    pub fn kill_orchestrator(&mut self) {
        self.orchestrator().kill();
    }

    /// Where the orchestrator itself takes edges.
    ///
    /// # Panics
    ///
    /// When it never started.
    pub fn edge_address(&self) -> SocketAddr {
        let text = std::fs::read_to_string(self.orchestrator_dir().join("listen.toml"))
            .expect("the orchestrator remembers its ports");
        let document: toml_edit::DocumentMut = text.parse().expect("listen.toml is TOML");
        let port = document["edges"]
            .as_integer()
            .expect("it has the edges' port");
        let port = u16::try_from(port).expect("it is a port");
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// A token that lets any number of edges join.
    #[track_caller]
    pub fn token(&self) -> String {
        self.token_for(None)
    }

    /// A token that lets one edge join as this node, or again as it.
    ///
    /// # Panics
    ///
    /// When the API makes none.
    #[track_caller]
    pub fn token_for(&self, node: Option<&str>) -> String {
        let request = TokenCreate {
            ttl_ms: TOKEN_TTL_MS_DEFAULT,
            uses: u64::from(node.is_some()),
            node: node.map(|name| name.parse().expect("tests use good names")),
            ..TokenCreate::default()
        };
        match self.api().create_token(&request) {
            Ok(created) => created.token,
            Err(refusal) => panic!("no token: {refusal}"),
        }
    }

    /// Starts new edges, and waits until all are connected.
    #[track_caller]
    pub fn join(&mut self, names: &[&str]) {
        self.join_with(names, &[]);
    }

    /// [`Self::join`] with more arguments, for example labels.
    #[track_caller]
    pub fn join_with(&mut self, names: &[&str], more: &[&str]) {
        if names.is_empty() {
            return;
        }
        let token = self.token();
        for name in names {
            self.start_joining(name, &token, more);
        }
        for name in names {
            self.wait_node(name, NodeState::Connected);
        }
    }

    /// Starts a new edge with a token, and waits for nothing.
    #[track_caller]
    pub fn start_joining(&mut self, name: &str, token: &str, more: &[&str]) {
        let mut command = self.join_command(name, token);
        command.args(more);
        self.spawn_edge(name, &mut command);
    }

    /// The command that joins an edge.
    ///
    /// # Panics
    ///
    /// When its directories cannot be made.
    pub fn join_command(&self, name: &str, token: &str) -> Command {
        let dir = self.root().join(name);
        let files = dir.join("files");
        std::fs::create_dir_all(&files).expect("directories can be made");
        let mut command = self.edge_command(name);
        command.args(["--name", name, "--join", token, "--allow-path"]);
        command.arg(files);
        command
    }

    /// The command that starts an edge that has joined.
    pub fn edge_command(&self, name: &str) -> Command {
        self.edge_command_in(&self.edge_state(name))
    }

    /// The command that starts an edge on a directory.
    pub fn edge_command_in(&self, state: &Path) -> Command {
        let mut command = Command::new(sluice_program());
        self.environment(&mut command);
        command.arg("edge").arg("--state-dir").arg(state);
        command.args(["--log", "json"]);
        command
    }

    /// Starts an edge again, and waits for nothing.
    #[track_caller]
    pub fn start_edge(&mut self, name: &str) {
        let mut command = self.edge_command(name);
        self.spawn_edge(name, &mut command);
    }

    /// Starts an edge again as the small program `sluice-edge`, and waits for nothing.
    #[track_caller]
    pub fn start_small_edge(&mut self, name: &str) {
        let mut command = Command::new(edge_program());
        self.environment(&mut command);
        command.arg("--state-dir").arg(self.edge_state(name));
        self.spawn_edge(name, &mut command);
    }

    /// `kill -9`s an edge.
    #[track_caller]
    pub fn kill_edge(&mut self, name: &str) {
        self.edge(name).kill();
    }

    /// Removes an edge's state directory, as a container that lost its disk.
    ///
    /// # Panics
    ///
    /// When the edge runs, or the directory is not there.
    #[track_caller]
    pub fn wipe_edge(&mut self, name: &str) {
        assert!(self.edge(name).ended().is_some(), "{name} still runs");
        let state = self.edge_state(name);
        std::fs::remove_dir_all(&state).expect("the edge's state directory was there");
    }

    /// An edge's process.
    ///
    /// # Panics
    ///
    /// When it was never started.
    #[track_caller]
    pub fn edge(&mut self, name: &str) -> &mut Process {
        let edge = self.edges.get_mut(name);
        match edge.and_then(|edge| edge.process.as_mut()) {
            Some(process) => process,
            None => panic!("{name} was never started"),
        }
    }

    /// An edge's state directory.
    pub fn edge_state(&self, name: &str) -> PathBuf {
        match self.edges.get(name) {
            Some(edge) => edge.state.clone(),
            None => self.root().join(name).join("state"),
        }
    }

    /// Puts an edge's state somewhere else, for example on a small disk; before it joins.
    pub fn place_edge_state(&mut self, name: &str, state: &Path) {
        let edge = self.new_edge(name);
        let state = state.to_owned();
        self.edges.insert(name.to_owned(), Edge { state, ..edge });
    }

    /// A path in the directory that an edge's pipelines may use.
    pub fn edge_file(&self, name: &str, file: &str) -> PathBuf {
        self.root().join(name).join("files").join(file)
    }

    /// The whole lines of a file in that directory; none when it is not there.
    pub fn lines(&self, name: &str, file: &str) -> Vec<String> {
        let bytes = std::fs::read(self.edge_file(name, file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        // A line without its end is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits until a file of an edge has at least `count` lines.
    #[track_caller]
    pub fn wait_lines(&self, name: &str, file: &str, count: usize) -> Vec<String> {
        wait::until(&format!("{count} lines in {name}'s {file}"), || {
            let lines = self.lines(name, file);
            let length = lines.len();
            wait::check(length >= count, || format!("{length} lines")).map(|()| lines)
        })
    }

    /// Waits until a file of an edge has `count` more lines than now: what writes it is alive.
    #[track_caller]
    pub fn wait_more_lines(&self, name: &str, file: &str, count: usize) -> Vec<String> {
        let now = self.lines(name, file).len();
        self.wait_lines(name, file, now + count)
    }

    /// Deploys with the CLI.
    #[track_caller]
    pub fn deploy(&mut self, pipeline: &PipelineText) -> DeployReply {
        self.try_deploy(&pipeline.text()).json()
    }

    /// Tries to deploy a text with the CLI.
    ///
    /// # Panics
    ///
    /// When the CLI cannot be run.
    #[track_caller]
    pub fn try_deploy(&mut self, text: &str) -> Ran {
        self.deploys += 1;
        let file = self.root().join(format!("pipelines/{}.toml", self.deploys));
        std::fs::write(&file, text).expect("a file can be written");
        let file = file.to_str().expect("our paths are text");
        self.sluice(&["deploy", file, "--output", "json"])
    }

    /// Runs the CLI against this cluster.
    #[track_caller]
    pub fn sluice(&self, args: &[&str]) -> Ran {
        run(&mut self.sluice_command(args))
    }

    /// The CLI against this cluster, not run yet.
    pub fn sluice_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(sluice_program());
        self.environment(&mut command);
        command
            .env("SLUICE_CONTEXT", self.context_file())
            .args(args);
        command
    }

    /// Runs a command of this cluster's to its end.
    #[track_caller]
    pub fn run(&self, command: &mut Command) -> Ran {
        run(command)
    }

    /// Waits for a node's state.
    #[track_caller]
    pub fn wait_node(&self, name: &str, state: NodeState) {
        wait::until(&format!("node {name} to be {state}"), || {
            let node = self
                .api()
                .node(name)
                .map_err(|refusal| refusal.to_string())?;
            wait::check(node.state == state, || format!("it is {}", node.state))
        });
    }

    /// An execution now; nobody waits without a reason.
    ///
    /// # Panics
    ///
    /// When there is none, or when it waits without a reason.
    #[track_caller]
    pub fn execution(&self, job: &str, node: &str) -> Execution {
        match self.api().execution(job, node) {
            Ok(execution) => {
                assert_reasons(&execution);
                execution
            }
            Err(refusal) => panic!("the execution {job}/{node}: {refusal}"),
        }
    }

    /// Waits until an execution is as wanted.
    #[track_caller]
    pub fn wait_execution(
        &self,
        job: &str,
        node: &str,
        what: &str,
        wanted: impl Fn(&Execution) -> bool,
    ) -> Execution {
        wait::until(&format!("{job}/{node} to be {what}"), || {
            let execution = self.api().execution(job, node);
            let execution = execution.map_err(|refusal| refusal.to_string())?;
            assert_reasons(&execution);
            if wanted(&execution) {
                Ok(execution)
            } else {
                Err(format!("{execution:?}"))
            }
        })
    }

    /// Waits until an execution runs at its newest version.
    #[track_caller]
    pub fn wait_running(&self, job: &str, node: &str) -> Execution {
        self.wait_execution(job, node, "running", |execution| {
            execution.state == ExecutionState::Running
        })
    }

    /// Waits until an execution waits for its absent node.
    #[track_caller]
    pub fn wait_waiting(&self, job: &str, node: &str) -> Execution {
        let execution = self.wait_execution(job, node, "waiting for its node", |execution| {
            execution.state == ExecutionState::Pending
                && execution
                    .reason_code
                    .is_some_and(|code| code.as_str() == "waiting-for-node")
        });
        let next = execution.next_action.as_deref().unwrap_or_default();
        assert_eq!(next, format!("when {node} connects"), "{execution:?}");
        execution
    }

    /// Waits until a job is as wanted.
    #[track_caller]
    pub fn wait_job(
        &self,
        job: &str,
        what: &str,
        wanted: impl Fn(&JobDetail) -> bool,
    ) -> JobDetail {
        wait::until(&format!("{job} to be {what}"), || {
            let detail = self.api().job(job).map_err(|refusal| refusal.to_string())?;
            detail.executions.iter().for_each(assert_reasons);
            if wanted(&detail) {
                Ok(detail)
            } else {
                Err(format!("{detail:#?}"))
            }
        })
    }

    /// Waits until a job's state is `running` with this many running executions, and no other.
    #[track_caller]
    pub fn wait_job_running(&self, job: &str, executions: u64) -> JobDetail {
        self.wait_job(job, &format!("running {executions} times"), |detail| {
            let job = &detail.job;
            job.state == JobState::Running
                && (job.desired, job.running, job.waiting) == (executions, executions, 0)
        })
    }

    /// The revisions that went to a node in sessions, by the orchestrator's log.
    pub fn sent(&self, node: &str) -> Vec<u64> {
        self.log()
            .events("ledger.sent")
            .iter()
            .filter(|event| self.names_node(event, node))
            .filter_map(|event| event["rev"].as_u64())
            .collect()
    }

    /// Whether an event is about a node: some name it, some only have its id.
    pub fn names_node(&self, event: &serde_json::Value, node: &str) -> bool {
        let id = self.api().node(node).map(|node| node.id.to_string());
        event["node"] == node || id.is_ok_and(|id| event["node"] == id.as_str())
    }

    fn new_edge(&self, name: &str) -> Edge {
        let dir = self.root().join(name);
        Edge {
            process: None,
            state: dir.join("state"),
            dir,
            log: self.edge_log(name),
        }
    }

    #[track_caller]
    pub(super) fn spawn_edge(&mut self, name: &str, command: &mut Command) {
        let edge = self.edges.remove(name);
        let mut edge = edge.unwrap_or_else(|| self.new_edge(name));
        if let Some(process) = &mut edge.process {
            assert!(process.ended().is_some(), "{name} still runs");
        }
        std::fs::create_dir_all(&edge.dir).expect("directories can be made");
        let stdout = edge.dir.join("out");
        edge.process = Some(Process::start(name, command, &stdout, edge.log.path()));
        self.edges.insert(name.to_owned(), edge);
    }

    /// Nothing of the person's who runs the tests gets in.
    fn environment(&self, command: &mut Command) {
        command
            .env_remove("SLUICE_CONTEXT")
            .env_remove("SLUICE_JOIN_TOKEN")
            .env_remove("SLUICE_LOG")
            .env("HOME", self.root())
            .env("NO_COLOR", "1")
            .current_dir(self.root());
    }
}

impl Drop for Cluster {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what its processes said"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log().tail());
            for edge in self.edges.values() {
                eprintln!("{}", edge.log.tail());
            }
        }
    }
}

/// What lies in a directory, for messages: one name a line.
pub fn dir_text(dir: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return format!("{} is not there", dir.display());
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| {
            let bytes = entry.metadata().map_or(0, |facts| facts.len());
            format!("{} ({bytes} bytes)", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    names.join("\n")
}

#[track_caller]
fn run(command: &mut Command) -> Ran {
    match command.stdin(std::process::Stdio::null()).output() {
        Ok(output) => Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Err(error) => panic!("cannot run {command:?}: {error}"),
    }
}

/// Case 99, at every look: nothing is pending without a reason, a next action and a time or event.
#[track_caller]
fn assert_reasons(execution: &Execution) {
    if execution.state != ExecutionState::Pending {
        return;
    }
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let event = execution
        .next_action
        .as_ref()
        .is_some_and(|action| action.starts_with("when "));
    assert!(
        execution.reason_code.is_some()
            && filled(&execution.reason)
            && filled(&execution.next_action)
            && (execution.next_at.is_some() || event),
        "it waits without saying why or for what: {execution:?}"
    );
}
