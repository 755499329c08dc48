//! Logs that are followed across nodes, with real processes.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_api::{LogEvent, LogLevel, LogLine};
use sluice_tests::e2e::pipelines::{PipelineText, plugin};
use sluice_tests::e2e::{Cluster, Process, wait};

/// A `sluice logs --follow --output json` that runs.
struct Follower {
    _process: Process,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Follower {
    fn start(cluster: &Cluster, name: &str, args: &[&str]) -> Self {
        let (stdout, stderr) = (
            cluster.root().join(format!("{name}.out")),
            cluster.root().join(format!("{name}.err")),
        );
        let mut command = cluster.sluice_command(&["logs", "--follow", "--output", "json"]);
        command.args(args);
        Self {
            _process: Process::start(name, &mut command, &stdout, &stderr),
            stdout,
            stderr,
        }
    }

    fn events(&self) -> Vec<LogEvent> {
        let text = std::fs::read_to_string(&self.stdout).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let events = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        events.collect()
    }

    /// Every line of a node.
    fn lines(&self, node: &str) -> Vec<LogLine> {
        let of_node = |event| match event {
            LogEvent::Line(line) if line.node.as_str() == node => Some(line),
            _ => None,
        };
        self.events().into_iter().filter_map(of_node).collect()
    }

    /// What records each node wrote, in the order in which they came.
    fn records(&self) -> BTreeMap<String, Vec<u64>> {
        let mut records: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for event in self.events() {
            if let LogEvent::Line(line) = event
                && line.level == LogLevel::Record
            {
                let number = line.message.rsplit(' ').next().unwrap().parse().unwrap();
                let node = records.entry(line.node.to_string()).or_default();
                node.push(number);
            }
        }
        records
    }

    /// Waits until that many records of the node came, and returns them.
    fn wait_records(&self, node: &str, count: usize) -> Vec<u64> {
        wait::until(&format!("{count} followed records of {node}"), || {
            let records = self.records().remove(node).unwrap_or_default();
            if records.len() >= count {
                return Ok(records);
            }
            let said = std::fs::read_to_string(&self.stderr).unwrap();
            Err(format!("{} records; it said: {said}", records.len()))
        })
    }

    fn wait_said(&self, text: &str) {
        wait::until(&format!("{text:?} to be said"), || {
            let said = std::fs::read_to_string(&self.stderr).unwrap();
            wait::check(said.contains(text), || said.clone())
        });
    }
}

/// What `sluice logs ticks` prints with these options, too.
fn logged(cluster: &Cluster, more: &[&str]) -> Vec<LogLine> {
    let args = ["logs", "ticks", "--tail", "10000", "--output", "json"];
    cluster.sluice(&[&args, more].concat()).json()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn assert_every_number_once(numbers: &[u64]) {
    let expected: Vec<u64> = (numbers[0]..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "lines were lost or came twice");
}

#[test]
fn a_node_that_comes_back_is_followed_again_without_a_line_lost_or_repeated() {
    let mut cluster = Cluster::start(&["e1", "e2"]);
    cluster.deploy(&PipelineText::steady("ticks").stdout());
    cluster.wait_job_running("ticks", 2);
    let follower = Follower::start(&cluster, "follower", &["ticks", "--tail", "10000"]);
    follower.wait_records("e1", 10);
    follower.wait_records("e2", 10);

    cluster.kill_edge("e2");
    follower.wait_said("nothing from e2");
    let others = follower.records()["e1"].len();
    follower.wait_records("e1", others + 10);
    let seen = follower.records()["e2"].len();
    cluster.start_edge("e2");
    follower.wait_said("e2 is back");
    follower.wait_records("e2", seen + 20);
    assert_every_number_once(&follower.records()["e1"]);
    // Its process was killed, so the pipeline may repeat records; what it logged came as it is in the log.
    let followed = follower.lines("e2");
    let args = [
        "logs", "ticks", "--node", "e2", "--tail", "10000", "--output", "json",
    ];
    let logged: Vec<LogLine> = cluster.sluice(&args).json();
    assert_eq!(followed, logged[..followed.len()]);

    // Following ends with the job.
    assert_eq!(cluster.sluice(&["job", "delete", "ticks", "--yes"]).code, 0);
    follower.wait_said("nothing follows: ticks is deleted");
}

#[test]
fn a_follower_of_an_edge_whose_link_was_cut_sees_every_line_once() {
    let mut cluster = Cluster::start_linked(&["e1"]);
    cluster.deploy(&PipelineText::steady("ticks").stdout());
    cluster.wait_job_running("ticks", 1);
    let follower = Follower::start(&cluster, "follower", &["ticks", "--tail", "10000"]);
    follower.wait_records("e1", 10);
    cluster.link().cut();
    follower.wait_said("nothing from e1");
    let seen = follower.records()["e1"].len();
    cluster.link().mend();
    follower.wait_said("e1 is back");
    let numbers = follower.wait_records("e1", seen + 20);
    assert_every_number_once(&numbers);
}

/// Time on a processor of the thread of this edge that reads logs.
fn read_ns(edge: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{edge}/task")).unwrap();
    let of_task = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ran: u64 = times.split(' ').next()?.parse().ok()?;
        (name.trim() == "log-reader").then_some(ran)
    };
    tasks.filter_map(Result::ok).filter_map(of_task).sum()
}

/// The job has told so many times how far it is: a look at a log is due in every second of them.
fn await_counts(cluster: &Cluster, job: &str, times: usize) {
    for _ in 0..times {
        let before = cluster.execution(job, "e1").records_in;
        wait::until("the next count", || {
            let now = cluster.execution(job, "e1").records_in;
            wait::check(now > before, || format!("{now} records"))
        });
    }
}

#[test]
fn a_reader_that_stalls_is_told_what_it_missed_and_delays_nothing() {
    let mut cluster = Cluster::start(&["e1"]);
    // As fast as it goes: the log turns over many times a minute.
    let flood = PipelineText::steady("flood").template("", 0, "flood ${seq}");
    cluster.deploy(&flood.stdout());
    cluster.wait_job_running("flood", 1);
    let mut stalled = cluster.sluice_command(&["logs", "flood", "--follow", "--output", "json"]);
    let mut stalled = stalled
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();

    // Control traffic goes on beside it.
    cluster.deploy(&PipelineText::steady("beside"));
    cluster.wait_lines("e1", "beside.out", 20);
    // Once all between them is full, nothing more is read for it.
    let edge = cluster.edge("e1").pid();
    let still = wait::until("the log not to be read", || {
        let before = read_ns(edge);
        await_counts(&cluster, "flood", 5);
        let now = read_ns(edge);
        wait::check(now == before && now > 0, || format!("{before} -> {now} ns")).map(|()| now)
    });
    let before = cluster.execution("flood", "e1").records_in;
    wait::until("the flood to go on", || {
        let now = cluster.execution("flood", "e1").records_in;
        wait::check(now > before + 500_000, || format!("{before} -> {now}"))
    });
    await_counts(&cluster, "flood", 10);
    assert_eq!(read_ns(edge), still, "it was read");
    assert!(stalled.try_wait().unwrap().is_none(), "it waits for us");
    let closes = cluster.log().events("session.close");
    assert!(closes.is_empty(), "{closes:?}");

    // Now it reads again.
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stalled.stdout.take().unwrap()));
    let mut lines = lines.map(|line| serde_json::from_str::<LogEvent>(&line.unwrap()).unwrap());
    let dropped = lines.find_map(|event| match event {
        LogEvent::Dropped { lines, .. } => Some(lines),
        _ => None,
    });
    assert!(dropped.unwrap() > 0);
    stalled.kill().unwrap();
    stalled.wait().unwrap();
}

#[test]
fn stages_ages_and_nodes_choose_lines_and_one_too_many_is_refused() {
    let mut cluster = Cluster::start(&["e1"]);
    let hostile = plugin("hostile");
    let text = PipelineText::steady("ticks").stdout();
    cluster.deploy(&text.stage(
        "talker",
        &hostile,
        "{ do = \"log-flood\", when = \"always\", count = 1 }",
    ));
    cluster.wait_job_running("ticks", 1);
    let of_stage = Follower::start(&cluster, "of-stage", &["ticks", "--stage", "talker"]);
    let lines = wait::until("lines of the stage", || {
        let lines = of_stage.lines("e1");
        wait::check(lines.len() >= 5, || format!("{lines:?}")).map(|()| lines)
    });
    let talks = |line: &LogLine| {
        line.stage
            .as_ref()
            .is_some_and(|it| it.as_str() == "talker")
    };
    assert!(lines.iter().all(talks), "{lines:?}");
    let (all, of_stage) = (
        logged(&cluster, &[]),
        logged(&cluster, &["--stage", "talker"]),
    );
    assert!(all.iter().any(|line| !talks(line)), "{all:?}");
    assert!(of_stage.len() >= 5 && of_stage.iter().all(talks));
    assert!(logged(&cluster, &["--stage", "nobody"]).is_empty());
    // A trap is told with where it happened.
    let poison = PipelineText::steady("traps").template("100ms", 0, "poison ${seq}");
    cluster.deploy(
        &poison
            .stage("trapper", &hostile, "{ do = \"trap-on\" }")
            .stdout(),
    );
    let trap = Follower::start(&cluster, "trap", &["traps", "--stage", "trapper"]);
    wait::until("the trap to be told", || {
        let events = trap.events();
        let told = events.iter().any(|event| match event {
            // The panic's own message, before the trap's, which names functions.
            LogEvent::Line(line) => {
                line.message.contains("lib.rs:") && line.message.contains("as asked")
            }
            _ => false,
        });
        wait::check(told, || format!("{events:?}"))
    });
    drop(trap);

    // An age leaves out what is older, and nothing else.
    wait::until("lines that are older than two seconds", || {
        let (first, now) = (logged(&cluster, &[])[0].at.0, now_ms());
        wait::check(first < now - 2_000, || format!("{first}, it is {now}"))
    });
    let begun = now_ms();
    let (recent, all) = (
        logged(&cluster, &["--since", "1s"]),
        logged(&cluster, &["--since", "1h"]),
    );
    assert!(!recent.is_empty() && all.len() > recent.len());
    assert!(all[0].at.0 < begun - 1_000 && recent[0].at.0 >= begun - 1_000);
    let followed = Follower::start(
        &cluster,
        "recent",
        &["ticks", "--since", "1s", "--tail", "10000"],
    );
    followed.wait_records("e1", 5);
    assert!(followed.lines("e1")[0].at.0 >= begun - 1_000);
    drop(followed);
    cluster
        .sluice(&["logs", "none", "--follow"])
        .fails(3, &["none"]);
    cluster
        .sluice(&["logs", "ticks", "--follow", "--node", "e9"])
        .fails(3, &["e9"]);

    let more: Vec<Follower> = (2..=6)
        .map(|number| Follower::start(&cluster, &format!("more{number}"), &["ticks"]))
        .collect();
    more.iter().for_each(|follower| {
        follower.wait_records("e1", 1);
    });
    let refused = Follower::start(&cluster, "refused", &["ticks"]);
    refused.wait_said("nothing from e1: 6 logs of this node are followed already");
    drop(more);
    refused.wait_records("e1", 1);
    // It was asked again meanwhile, and refused: its reader hears of that once, and that it is back once.
    let said = std::fs::read_to_string(&refused.stderr).unwrap();
    let told = said.matches("nothing from e1").count();
    assert_eq!((told, said.matches("e1 is back").count()), (1, 1), "{said}");
}
