//! The story, chapter by chapter: act, show what an operator would see, check what is claimed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{Cli, count, find, text};
use crate::cluster::Program;
use crate::watch::Watch;

/// The job of the first chapters, in `pipelines/quickstart`.
const FIRST: &str = "quickstart";
/// The jobs that are deployed while an edge is dead.
const LATER: [&str; 2] = ["heartbeat", "third"];
/// All of them.
const JOBS: [&str; 3] = [FIRST, LATER[0], LATER[1]];
/// The edges.
const NODES: [&str; 2] = ["e1", "e2"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Story {
    cli: Cli,
    watch: Watch,
    checks: usize,
    chapter: usize,
    color: bool,
    /// Dropped before the directory that they write to. Looked at while something is waited for.
    programs: RefCell<BTreeMap<String, Program>>,
    project: PathBuf,
    pipelines: PathBuf,
    root: TempDir,
}

impl Story {
    /// Makes the directory of everything. `project` is where the pipelines are.
    pub(crate) fn begin(project: &Path, program: &Path, watch: Watch) -> anyhow::Result<Self> {
        let root = TempDir::with_prefix("sluice-quickstart-").context("making a directory")?;
        let context = root.path().join("orchestrator/operator.toml");
        Ok(Self {
            cli: Cli::new(program, &context, root.path()),
            watch,
            checks: 0,
            chapter: 0,
            color: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            programs: RefCell::default(),
            project: project.to_owned(),
            pipelines: project.join("pipelines"),
            root,
        })
    }

    pub(crate) fn checks(&self) -> usize {
        self.checks
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.watch.is_stopped()
    }

    /// What the programs said last, for whoever wants to know why the story stopped.
    pub(crate) fn print_logs(&self) {
        for program in self.programs.borrow().values() {
            println!("{}", program.log_tail());
        }
    }

    /// All of it. At the end nothing runs any more.
    pub(crate) fn tell(&mut self) -> anyhow::Result<()> {
        println!(
            "Sluice in a minute: an orchestrator and two edges, as processes of their own on this machine.\n\
             Everything lies in one directory, which goes away at the end:\n   \
             DIR={}",
            self.root.path().display()
        );
        self.start_a_cluster()?;
        let executions = self.deploy_a_pipeline()?;
        self.read_records()?;
        self.kill_an_edge(&executions)?;
        self.deploy_meanwhile()?;
        self.bring_it_back(&executions)?;
        self.lose_its_disk()?;
        self.stop_everything()?;
        self.say_what_next();
        Ok(())
    }

    fn start_a_cluster(&mut self) -> anyhow::Result<()> {
        self.chapter("An orchestrator and two edges");
        let state = self.dir("orchestrator");
        // Fast heartbeats, so that nobody has to wait for a dead edge to be noticed; the default is 5 s.
        let args = [
            "orchestrator",
            "--state-dir",
            &state,
            "--listen",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
            "--heartbeat",
            "250ms",
        ];
        self.start("orchestrator", &args, &[])?;
        self.claim("the orchestrator answers", |story| {
            let status = story.json(&["status"])?;
            let nodes = status["nodes"].as_array().map_or(1, Vec::len);
            expect(nodes == 0, || format!("{nodes} nodes"))
        })?;

        let token = self.token(&["token", "create", "--uses", "0"])?;
        for node in NODES {
            let state = self.dir(node);
            let args = [
                "edge",
                "--state-dir",
                &state,
                "--name",
                node,
                "--join",
                &token,
            ];
            self.start(node, &args, &[(&token, "TOKEN")])?;
        }
        for node in NODES {
            self.claim(&format!("{node} has joined and is connected"), |story| {
                story.node_is(node, "connected").map(drop)
            })?;
        }
        self.show(&["node", "list"])
    }

    /// Returns the first job's execution ids by node.
    fn deploy_a_pipeline(&mut self) -> anyhow::Result<BTreeMap<&'static str, String>> {
        self.chapter("A pipeline with a WebAssembly stage, on both");
        let file = self.pipelines.join("quickstart/pipeline.toml");
        let file = file.to_string_lossy().into_owned();
        self.deploy(&file, &["--wait=60s"])?;
        self.claim("the job runs on both nodes", |story| {
            let jobs = story.json(&["job", "list"])?;
            let job = find(&jobs, "name", FIRST).ok_or("no such job")?;
            let as_told = text(job, "state") == "running"
                && count(job, "desired") == 2
                && count(job, "running") == 2
                && count(job, "version") == 1;
            expect(as_told, || job.to_string())
        })?;
        self.show(&["job", "list"])?;
        let mut ids = BTreeMap::new();
        for node in NODES {
            let id = self.claim(
                &format!("{node} took in records and sent half of them on"),
                |story| {
                    let execution = story.runs_on(FIRST, node)?;
                    let (taken, sent) = (
                        count(&execution, "records_in"),
                        count(&execution, "records_out"),
                    );
                    let is_half = taken >= 2 && sent >= 1 && sent <= taken / 2 + 1;
                    expect(is_half, || format!("{taken} in, {sent} out"))?;
                    Ok(text(&execution, "id").to_owned())
                },
            )?;
            ids.insert(node, id);
        }
        self.show(&["execution", "list"])?;
        Ok(ids)
    }

    fn read_records(&mut self) -> anyhow::Result<()> {
        self.chapter("What the stage let through");
        for node in NODES {
            self.claim(
                &format!("the records of {node} name it, and only even numbers passed"),
                |story| {
                    let lines = story.json(&["logs", FIRST, "--node", node, "--tail", "5"])?;
                    let records = records(&lines)?;
                    expect(records.len() >= 2, || format!("{} records", records.len()))?;
                    let all = records.iter().all(|record| {
                        text(record, "node") == node && count(record, "seq").is_multiple_of(2)
                    });
                    expect(all, || format!("{records:?}"))
                },
            )?;
        }
        self.show(&["logs", FIRST, "--tail", "3"])
    }

    fn kill_an_edge(&mut self, executions: &BTreeMap<&'static str, String>) -> anyhow::Result<()> {
        self.chapter("One edge dies");
        self.kill("e2")?;
        self.claim("the orchestrator notices that e2 is gone", |story| {
            story.node_is("e2", "disconnected").map(drop)
        })?;
        self.claim(
            "e1 never noticed: the same execution runs on and was not restarted",
            |story| {
                let execution = story.runs_on(FIRST, "e1")?;
                let untouched = text(&execution, "id") == executions["e1"]
                    && count(&execution, "restarts") == 0
                    && count(&execution, "attempt") == 1;
                expect(untouched, || execution.to_string())
            },
        )?;
        self.show(&["node", "list"])
    }

    fn deploy_meanwhile(&mut self) -> anyhow::Result<()> {
        self.chapter("Two more jobs are deployed while it is dead");
        let heartbeat = self.pipelines.join("heartbeat/pipeline.toml");
        let heartbeat = heartbeat.to_string_lossy().into_owned();
        let third = self.third_pipeline()?;
        self.deploy(&heartbeat, &[])?;
        self.deploy(&third, &[])?;
        for job in LATER {
            self.claim(
                &format!("{job} runs on e1: what waits for e2 holds nothing up"),
                |story| story.runs_on(job, "e1").map(drop),
            )?;
            self.claim(
                &format!("{job} waits for e2, and says so with what happens next"),
                |story| {
                    let answer = story.json(&["explain", job])?;
                    let node = find(&answer["nodes"], "node", "e2").ok_or("e2 is not explained")?;
                    let as_told = node["matches"] == Value::Bool(true)
                        && text(node, "state") == "pending"
                        && text(node, "reason_code") == "waiting-for-node"
                        && !text(node, "reason").is_empty()
                        && !text(node, "next_action").is_empty();
                    expect(as_told, || node.to_string())
                },
            )?;
            self.show(&["explain", job])?;
        }
        Ok(())
    }

    fn bring_it_back(&mut self, executions: &BTreeMap<&'static str, String>) -> anyhow::Result<()> {
        self.chapter("It comes back");
        let state = self.dir("e2");
        self.start("e2", &["edge", "--state-dir", &state], &[])?;
        for job in JOBS {
            self.claim(&format!("{job} runs on e2"), |story| {
                story.runs_on(job, "e2").map(drop)
            })?;
        }
        self.claim(
            "it is the same execution of the first job, in its first attempt",
            |story| {
                let execution = story.runs_on(FIRST, "e2")?;
                let same =
                    text(&execution, "id") == executions["e2"] && count(&execution, "attempt") == 1;
                expect(same, || execution.to_string())
            },
        )?;
        self.claim("nothing waits any more", |story| {
            let status = story.json(&["status"])?;
            expect(
                status["waiting"].as_array().is_some_and(Vec::is_empty),
                || status["waiting"].to_string(),
            )
        })?;
        self.show(&["execution", "list"])
    }

    fn lose_its_disk(&mut self) -> anyhow::Result<()> {
        self.chapter("It loses its disk, too");
        let before = self.executions_on("e2")?;
        let id = self
            .node_is("e2", "connected")
            .map_err(anyhow::Error::msg)?;
        self.kill("e2")?;
        let state = self.dir("e2");
        println!("   $ rm -r {}", self.shorten(&state));
        std::fs::remove_dir_all(&state).context("removing e2's directory")?;

        let stranger = self.token(&["token", "create"])?;
        let args = [
            "edge",
            "--state-dir",
            &state,
            "--name",
            "e2",
            "--join",
            &stranger,
        ];
        self.say_command(&args, &[(&stranger, "ANOTHER-TOKEN")]);
        let refused = self.cli.run(&self.watch, &args)?;
        self.claim(
            "nobody becomes e2 with a token that was not made for e2",
            |_| {
                let as_told = refused.code == Some(1) && refused.stderr.contains("--node e2");
                expect(as_told, || {
                    format!("exit code {:?}, {}", refused.code, refused.stderr)
                })
            },
        )?;
        std::fs::remove_dir_all(&state).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;

        let token = self.token(&["token", "create", "--node", "e2"])?;
        let args = [
            "edge",
            "--state-dir",
            &state,
            "--name",
            "e2",
            "--join",
            &token,
        ];
        self.start("e2", &args, &[(&token, "TOKEN")])?;
        self.claim("with one it is the same node again", |story| {
            let now = story.node_is("e2", "connected")?;
            expect(now == id, || format!("{now} instead of {id}"))
        })?;
        for (job, execution) in before {
            self.claim(
                &format!("its work is back: {job}, the same execution"),
                |story| {
                    let now = story.runs_on(&job, "e2")?;
                    expect(text(&now, "id") == execution, || now.to_string())
                },
            )?;
        }
        self.claim("and it makes records again", |story| {
            let lines = story.json(&["logs", FIRST, "--node", "e2", "--tail", "3"])?;
            let records = records(&lines)?;
            expect(!records.is_empty(), || "no record yet".to_owned())
        })?;
        self.show(&["status"])
    }

    fn stop_everything(&mut self) -> anyhow::Result<()> {
        self.chapter("The end");
        for name in ["e1", "e2", "orchestrator"] {
            let program = self.programs.borrow_mut().remove(name);
            let program = program.with_context(|| format!("{name} was started"))?;
            let log = program.log_tail();
            let code = program.stop(&self.watch)?;
            if code != Some(0) {
                println!("{log}");
            }
            self.claim(&format!("{name} stops when it is asked to"), |_| {
                expect(code == Some(0), || format!("exit code {code:?}"))
            })?;
        }
        Ok(())
    }

    fn say_what_next(&self) {
        println!(
            "\nTry next, from the project's directory:\n   \
             export PATH=\"{}:$PATH\"\n   \
             sluice dev pipelines/heartbeat/pipeline.toml     # orchestrator, edge and pipeline in one process\n   \
             (cd pipelines/sshd-auth && sluice pipeline run pipeline.toml && head -3 output.jsonl)     # no cluster at all\n\
             README.md goes on from here: your own pipeline, your own plugin, your own cluster.",
            self.cli.directory().display()
        );
    }

    // What the chapters are made of.

    fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        let (bold, plain) = if self.color {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        println!("\n{bold}{}. {title}{plain}", self.chapter);
    }

    /// Waits until `look` finds that the claim holds, and counts it.
    fn claim<T>(
        &mut self,
        claim: &str,
        mut look: impl FnMut(&Self) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let found = self.watch.until(claim, || {
            look(self).map(Ok).or_else(|instead| match self.dead() {
                // Nothing comes of waiting for it.
                Some(dead) => Ok(Err(dead)),
                None => Err(instead),
            })
        })?;
        let found = found
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("this cannot come true: {claim}"))?;
        self.checks += 1;
        let (green, plain) = if self.color {
            ("\x1b[32m", "\x1b[0m")
        } else {
            ("", "")
        };
        println!("   {green}✓{plain} {claim}");
        Ok(found)
    }

    /// A process that ended by itself.
    fn dead(&self) -> Option<String> {
        self.programs
            .borrow_mut()
            .values_mut()
            .find_map(Program::ended)
    }

    fn dir(&self, name: &str) -> String {
        self.root.path().join(name).to_string_lossy().into_owned()
    }

    /// Prints a command as one would type it; secrets under their replacement.
    fn say_command(&self, args: &[&str], hidden: &[(&str, &str)]) {
        let words = args.iter().map(|arg| {
            hidden
                .iter()
                .find(|(secret, _)| secret == arg)
                .map_or(*arg, |(_, name)| name)
        });
        let words = words.collect::<Vec<_>>().join(" ");
        println!("   $ sluice {}", self.shorten(&words));
    }

    /// Long paths under the names that a reader knows.
    fn shorten(&self, text: &str) -> String {
        let project = format!("{}/", self.project.display());
        text.replace(&*self.root.path().to_string_lossy(), "$DIR")
            .replace(&project, "")
    }

    fn start(&mut self, name: &str, args: &[&str], hidden: &[(&str, &str)]) -> anyhow::Result<()> {
        self.say_command(args, hidden);
        let log = self.root.path().join(format!("{name}.log"));
        let program = Program::start(name, self.cli.command().args(args), log)?;
        println!("     process {}", program.id());
        self.programs.borrow_mut().insert(name.to_owned(), program);
        Ok(())
    }

    fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let program = self.programs.borrow_mut().remove(name);
        let program = program.with_context(|| format!("{name} was started"))?;
        println!("   $ kill -9 {}", program.id());
        program.kill()
    }

    /// Runs a command and prints what an operator sees of it.
    fn show(&self, args: &[&str]) -> anyhow::Result<()> {
        self.say_command(args, &[]);
        let ran = self.cli.run(&self.watch, args)?;
        for line in ran.stdout.lines().chain(ran.stderr.lines()) {
            println!("     {}", self.shorten(line).trim_end());
        }
        ensure!(ran.code == Some(0), "it ended with {:?}", ran.code);
        Ok(())
    }

    fn deploy(&self, file: &str, more: &[&str]) -> anyhow::Result<()> {
        let mut args = vec!["deploy", file];
        args.extend(more);
        self.show(&args)
    }

    fn token(&self, args: &[&str]) -> anyhow::Result<String> {
        self.say_command(args, &[]);
        let ran = self.cli.run(&self.watch, args)?;
        ensure!(ran.code == Some(0), "no token: {}", ran.stderr.trim());
        Ok(ran.stdout.trim().to_owned())
    }

    fn json(&self, args: &[&str]) -> Result<Value, String> {
        self.cli
            .json(&self.watch, args)
            .map_err(|error| format!("{error:#}"))
    }

    /// The node's id, once it has that state.
    fn node_is(&self, name: &str, state: &str) -> Result<String, String> {
        let nodes = self.json(&["node", "list"])?;
        let node = find(&nodes, "name", name).ok_or("it is not registered")?;
        expect(text(node, "state") == state, || {
            text(node, "state").to_owned()
        })?;
        Ok(text(node, "id").to_owned())
    }

    /// The execution, once it runs: in the orchestrator's view and in the edge's own report.
    fn runs_on(&self, job: &str, node: &str) -> Result<Value, String> {
        let place = format!("{job}/{node}");
        let execution = self.json(&["execution", "describe", &place])?;
        let observed = &execution["observed"];
        let runs = text(&execution, "state") == "running"
            && text(observed, "state") == "running"
            && observed["version"] == execution["version"];
        expect(runs, || {
            format!(
                "{} {}",
                text(&execution, "state"),
                text(&execution, "reason")
            )
        })?;
        let nodes = self.json(&["node", "list"])?;
        let node = find(&nodes, "name", node).ok_or("its node is gone")?;
        expect(text(node, "state") == "connected", || {
            format!("its node is {}", text(node, "state"))
        })?;
        Ok(execution)
    }

    /// Ids of a node's executions by job.
    fn executions_on(&self, node: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let list = self
            .json(&["execution", "list", "--node", node])
            .map_err(anyhow::Error::msg)?;
        let list = list.as_array().context("executions are a list")?;
        ensure!(
            list.len() == JOBS.len(),
            "{} executions on {node}",
            list.len()
        );
        Ok(list
            .iter()
            .map(|one| (text(one, "job").to_owned(), text(one, "id").to_owned()))
            .collect())
    }

    /// The quickstart's pipeline under another name, in a file of its own.
    fn third_pipeline(&self) -> anyhow::Result<String> {
        let folder = self.pipelines.join("quickstart");
        let original = std::fs::read_to_string(folder.join("pipeline.toml"))
            .context("reading the quickstart's pipeline")?;
        let plugins = self.pipelines.join("../plugins/dist");
        let changed = original
            .replace("name = \"quickstart\"", &format!("name = \"{}\"", LATER[1]))
            .replace("../../plugins/dist", &plugins.to_string_lossy());
        ensure!(
            changed != original,
            "the quickstart's pipeline is not as expected"
        );
        let file = self.root.path().join("third.toml");
        std::fs::write(&file, changed).context("writing a pipeline")?;
        Ok(file.to_string_lossy().into_owned())
    }
}

/// The records among log lines, parsed.
fn records(lines: &Value) -> Result<Vec<Value>, String> {
    let lines = lines.as_array().ok_or("no list of lines")?;
    lines
        .iter()
        .filter(|line| text(line, "level") == "record")
        .map(|line| serde_json::from_str(text(line, "message")).map_err(|error| error.to_string()))
        .collect()
}

fn expect(holds: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(instead()) }
}
