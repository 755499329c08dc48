//! The runner against real files and real components.

#![allow(clippy::unwrap_used)]

mod ends;
mod files;
mod reports;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use sluice_connectors::{AllowedCommands, AllowedPaths, CommandLine};
use sluice_model::ObservedPhase;
use sluice_model::pipeline::{Pipeline, parse};
use tokio::sync::mpsc;

use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One edge's directories, and what its console heard.
struct Fixture {
    directory: tempfile::TempDir,
    context: RunnerContext,
    console: Option<Arc<ConsoleEnds>>,
}

#[derive(Default)]
struct ConsoleEnds {
    stdin: Vec<u8>,
    stdout: Mutex<Vec<u8>>,
    log: Mutex<Vec<LogLine>>,
    /// What writing to stdout does instead of working.
    stdout_fails: Option<StdoutFails>,
}

#[derive(Clone, Copy)]
enum StdoutFails {
    Closed,
    Panics,
}

struct Stdout(Arc<ConsoleEnds>);

impl std::io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.stdout_fails {
            Some(StdoutFails::Closed) => Err(std::io::ErrorKind::BrokenPipe.into()),
            Some(StdoutFails::Panics) => panic!("stdout fell over"),
            None => {
                self.0.stdout.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the fixture's edge lists.
fn fixture_commands(files: &std::path::Path) -> AllowedCommands {
    let mark = files.join("ran");
    let line = |script: &str| {
        CommandLine::new(vec!["/bin/sh".into(), "-c".into(), script.into()]).unwrap()
    };
    let commands = [
        ("three".parse().unwrap(), line("seq 3")),
        (
            "broken".parse().unwrap(),
            line("echo 1; echo no device >&2; exit 9"),
        ),
        ("endless".parse().unwrap(), line("echo 1; exec sleep 1000")),
        (
            "marks".parse().unwrap(),
            line(&format!("echo 1 > {}", mark.display())),
        ),
    ];
    AllowedCommands::new(commands.into()).unwrap()
}

impl Fixture {
    fn new() -> Self {
        Self::with(None)
    }

    fn with_console(stdin: &[u8]) -> Self {
        Self::with(Some(ConsoleEnds {
            stdin: stdin.to_vec(),
            ..ConsoleEnds::default()
        }))
    }

    fn with(ends: Option<ConsoleEnds>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let console = ends.map(Arc::new);
        let streams = console.clone().map(|ends| {
            let (stdin, stdout, log) = (Arc::clone(&ends), Arc::clone(&ends), ends);
            Console {
                stdin: Arc::new(move || Box::new(std::io::Cursor::new(stdin.stdin.clone()))),
                stdout: Arc::new(move || Box::new(Stdout(Arc::clone(&stdout)))),
                log: Arc::new(move |line| log.log.lock().unwrap().push(line.clone())),
            }
        });
        std::fs::create_dir(directory.path().join("files")).unwrap();
        let context = RunnerContext::open(RunnerOptions {
            // Shared by all tests: compiling the same components once is enough.
            cache_dir: dist().join("../target/test-code-cache"),
            allowed: AllowedPaths::new([directory.path().join("files")]).unwrap(),
            commands: fixture_commands(&directory.path().join("files")),
            console: streams,
            hostname: "machine".to_owned(),
        });
        Self {
            directory,
            context: context.unwrap(),
            console,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("files").join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8(std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn state_dir(&self) -> PathBuf {
        self.directory.path().join("executions/x")
    }

    /// A plan for a pipeline text without its name line; stages name components of `plugins/dist`.
    fn plan(&self, text: &str) -> ExecutionPlan {
        let text = format!("name = \"test\"\n{text}");
        let pipeline: Pipeline =
            parse(&text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        let components = pipeline
            .plugins()
            .map(|(_, plugin)| component(&plugin.to_string()))
            .collect();
        ExecutionPlan {
            execution: ExecutionId::from_random([7; 16]),
            version: Version(1),
            attempt: Attempt(1),
            content: Digest::of(text.as_bytes()),
            job: pipeline.name.clone(),
            node: "e1".parse().unwrap(),
            labels: Labels::from([("site".to_owned(), "plant-7".to_owned())]),
            stdin: None,
            params: pipeline.params(&Default::default()).unwrap(),
            pipeline,
            components,
            state_dir: self.state_dir(),
        }
    }

    async fn prepare(&self, plan: ExecutionPlan) -> Result<Prepared, PrepareError> {
        let context = self.context.clone();
        tokio::task::spawn_blocking(move || prepare(&context, plan, &mut |_| {}))
            .await
            .unwrap()
    }

    async fn start(&self, plan: ExecutionPlan) -> Started {
        let prepared = self.prepare(plan).await.unwrap();
        let (events, receiver) = mpsc::channel(4);
        let running = prepared.start(&tokio::runtime::Handle::current(), events);
        Started {
            running,
            events: receiver,
        }
    }

    /// Runs a pipeline to its end.
    async fn run(&self, text: &str) -> (End, Counters) {
        self.start(self.plan(text)).await.ended().await
    }

    /// The same where the clock jumps, which no patience survives.
    async fn run_paused(&self, text: &str) -> (End, Counters) {
        let mut started = self.start(self.plan(text)).await;
        loop {
            if let RunnerEvent::Ended { end, counters, .. } = started.events.recv().await.unwrap() {
                return (end, counters);
            }
        }
    }

    fn log(&self) -> Vec<LogLine> {
        log_tail(&self.state_dir(), 10_000).unwrap()
    }

    fn logged(&self, what: &str) -> bool {
        self.log().iter().any(|line| line.message.contains(what))
    }
}

struct Started {
    running: RunningExecution,
    events: mpsc::Receiver<RunnerEvent>,
}

impl Started {
    async fn event(&mut self) -> RunnerEvent {
        tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .unwrap()
            .unwrap()
    }

    async fn ended(&mut self) -> (End, Counters) {
        loop {
            if let RunnerEvent::Ended { end, counters, .. } = self.event().await {
                return (end, counters);
            }
        }
    }

    async fn until(&self, what: &str, mut done: impl FnMut(&Counters) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done(&self.running.counters()) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: {:?}",
                self.running.counters()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist")
}

fn component(path: &str) -> (Digest, PathBuf) {
    let file = dist().join(path.strip_prefix("./").unwrap_or(path));
    let bytes = std::fs::read(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; scripts/build-plugins makes it",
            file.display()
        )
    });
    (Digest::of(&bytes), file)
}

fn numbers(records_in: u64, records_out: u64, dead_letters: u64) -> Counters {
    Counters {
        records_in,
        records_out,
        dead_letters,
        ..Counters::default()
    }
}

fn lines(count: usize) -> String {
    (0..count)
        .map(|number| format!("line {number}\n"))
        .collect()
}

#[tokio::test]
async fn phases_are_told_in_order() {
    let fixture = Fixture::new();
    let plan = fixture.plan("[input.generate]\ncount = 1\ntemplate = \"x\"\n[output.discard]\n");
    let context = fixture.context.clone();
    let phases = tokio::task::spawn_blocking(move || {
        let mut phases = Vec::new();
        prepare(&context, plan, &mut |phase| phases.push(phase))
            .map(|_| phases)
            .unwrap()
    });
    assert_eq!(
        phases.await.unwrap(),
        [ObservedPhase::Compiling, ObservedPhase::Starting]
    );
}

#[tokio::test]
async fn a_local_run_uses_the_real_streams() {
    let fixture = Fixture::with_console(b"keep one\r\ndrop two\nkeep three");
    let plan = fixture.plan(
        "[input.stdin]\n[[stage]]\nname = \"filter\"\nplugin = \"./filter_contains.wasm\"\nconfig = { contains = \"keep\" }\n[output.stdout]\n",
    );
    let ran = run_local(
        &fixture.context,
        plan,
        tokio_util::sync::CancellationToken::new(),
    )
    .await
    .unwrap();
    assert_eq!(ran, (End::Completed, numbers(3, 2, 0)));
    let console = fixture.console.as_ref().unwrap();
    assert_eq!(*console.stdout.lock().unwrap(), b"keep one\nkeep three\n");
    let heard: Vec<_> = console
        .log
        .lock()
        .unwrap()
        .iter()
        .map(|line| line.message.clone())
        .collect();
    assert!(heard.contains(&"completed".to_owned()), "{heard:?}");
}

#[tokio::test]
async fn a_local_run_stops_when_told() {
    let fixture = Fixture::with_console(b"");
    let plan = fixture
        .plan("[input.generate]\ninterval = \"1h\"\ntemplate = \"${seq}\"\n[output.stdout]\n");
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let (context, stop) = (fixture.context.clone(), stop.clone());
        async move { run_local(&context, plan, stop).await.unwrap() }
    });
    let console = fixture.console.clone().unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while console.stdout.lock().unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.cancel();
    assert_eq!(running.await.unwrap(), (End::Stopped, numbers(1, 1, 0)));
    assert_eq!(*console.stdout.lock().unwrap(), b"0\n");
}
