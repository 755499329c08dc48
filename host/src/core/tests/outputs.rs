//! Outputs of runs: what lacks is known however often anybody dies, and is kept on its edge until it is here.

use sluice_api::{OutputState, Run, RunLaunch, TaskOutput};
use sluice_model::{Desired, OutputFacts, RunId};

use super::machine::Machine;
use super::*;
use crate::store::{OutputStore as _, OutputWhere};

fn batch(name: &str, output: &str) -> String {
    format!(
        "name = \"{name}\"\nkind = \"batch\"\nretries = 1\nidempotent = true\n[input.generate]\ncount = 1\n\
         template = \"x\"\n[output.{output}]\n"
    )
}

fn facts(text: &str) -> OutputFacts {
    OutputFacts {
        bytes: text.len() as u64,
        digest: Digest::of(text.as_bytes()),
        dropped: 0,
    }
}

impl World {
    fn launch_one(&mut self, job: &str) -> Run {
        let launch = RunLaunch {
            jobs: vec![job.parse().unwrap()],
            ..RunLaunch::default()
        };
        let Reply::Run(run) = self.call(ApiCall::Launch(launch, None, None)).unwrap() else {
            panic!("a run");
        };
        self.pass(Duration::from_millis(10));
        self.run_now(run.id)
    }

    fn run_now(&mut self, id: RunId) -> Run {
        match self.call(ApiCall::Run(id)).unwrap() {
            Reply::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    fn output(&mut self, call: OutputCall) -> Reply {
        self.call(ApiCall::Output(call)).unwrap()
    }

    fn lacking(&mut self) -> Vec<OutputTarget> {
        match self.output(OutputCall::Lacking) {
            Reply::OutputTargets(targets) => targets,
            other => panic!("{other:?}"),
        }
    }

    fn the_output(&mut self, run: RunId) -> TaskOutput {
        match self.output(OutputCall::OfRun(run)) {
            Reply::TaskOutputs(mut outputs) => outputs.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Launches and ends a task with this output.
    fn wrote(&mut self, edge: &mut Machine, text: &str) -> (RunId, ExecutionId) {
        let run = self.launch_one("a");
        let id = run.tasks[0].execution.expect("it is placed");
        edge.end(self, id, ObservedPhase::Completed, Some(facts(text)));
        (run.id, id)
    }
}

#[test]
fn what_lacks_is_asked_for_again_after_every_death_until_it_is_held() {
    let mut world = World::new();
    world.deploy(&batch("a", "stdout"));
    let mut edge = Machine::connect(&mut world, "e1", 1);
    assert_eq!(world.lacking(), []);
    let run = world.launch_one("a");
    let before = world.the_output(run.id);
    assert_eq!(before.state, OutputState::Pending);
    assert!(before.next_action.is_some());
    let id = run.tasks[0].execution.unwrap();
    edge.end(
        &mut world,
        id,
        ObservedPhase::Completed,
        Some(facts("report")),
    );
    let target = OutputTarget {
        execution: id,
        node: edge.edge.node,
        conn: edge.conn,
        facts: facts("report"),
    };
    assert_eq!(world.lacking(), std::slice::from_ref(&target));
    assert_eq!(world.the_output(run.id).state, OutputState::Coming);

    let store = world.core.store_mut().fork().unwrap();
    let mut world = world.restart(store);
    assert_eq!(world.lacking(), [], "its edge is away");
    let away = world.the_output(run.id);
    assert_eq!(away.state, OutputState::Coming);
    assert!(away.reason.unwrap().contains("e1, which is not connected"));
    assert_eq!(away.next_action.as_deref(), Some("when e1 connects"));
    edge.again(&mut world);
    let conn = edge.conn;
    assert_eq!(world.lacking(), [OutputTarget { conn, ..target }]);
    let told = world.told_of(ApiCall::Output(OutputCall::Held(id)));
    assert_eq!(told, ["run of a", "job a"]);
    assert_eq!(world.lacking(), []);
    let held = world.the_output(run.id);
    assert_eq!(held.state, OutputState::Held);
    assert_eq!((held.bytes, held.truncated), (Some(6), false));
    assert_eq!(held.digest, Some(Digest::of(b"report")));
    // What is told late changes nothing.
    let late = OutputCall::Lost(id, "too late".to_owned());
    assert!(world.told_of(ApiCall::Output(late)).is_empty());
    assert_eq!(world.the_output(run.id).state, OutputState::Held);
}

#[test]
fn case_43_a_full_disk_keeps_what_lacks_for_later() {
    let mut world = World::new();
    world.deploy(&batch("a", "stdout"));
    let mut edge = Machine::connect(&mut world, "e1", 1);
    let (run, id) = world.wrote(&mut edge, "report");
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(|point| match point {
            "note that an output is here" | "look for room" => Err(StoreError::Full),
            _ => Ok(()),
        })));
    let refused = world.call(ApiCall::Output(OutputCall::Held(id)));
    assert_eq!(refused.unwrap_err().code, ErrorCode::DiskFull);
    assert_eq!(world.lacking().len(), 1, "it is asked for again");
    world.core.store_mut().set_fault_hook(None);
    world.pass(Duration::from_secs(1));
    world.output(OutputCall::Held(id));
    assert_eq!(world.the_output(run).state, OutputState::Held);
}

#[test]
fn an_edge_keeps_old_tries_while_their_output_lacks_and_no_more_than_a_few() {
    let mut world = World::new();
    world.deploy(&batch("a", "stdout"));
    let mut edge = Machine::connect(&mut world, "e1", 1);
    let purged = |world: &mut World| {
        let executions = world.executions();
        let purged = executions.iter().filter(|it| it.desired == Desired::Purge);
        purged.map(|it| it.id).collect::<Vec<_>>()
    };
    let all: Vec<_> = (0..8)
        .map(|number| world.wrote(&mut edge, &format!("report {number}")).1)
        .collect();
    assert_eq!(purged(&mut world), [], "5 are kept anyway, 3 wait");
    world.output(OutputCall::Held(all[1]));
    assert_eq!(purged(&mut world), [all[1]]);
    world.output(OutputCall::Lost(all[0], "gone".to_owned()));
    assert_eq!(purged(&mut world).len(), 2);
    world.output(OutputCall::Held(all[7]));
    assert_eq!(purged(&mut world).len(), 2, "the newest ones are kept");
    let more: Vec<_> = (8..30)
        .map(|number| world.wrote(&mut edge, &format!("report {number}")))
        .collect();
    let gone = purged(&mut world);
    assert!(gone.contains(&all[2]), "its edge cannot keep them all");
    assert!(!gone.contains(&more[0].1));
    let oldest = world.core.store_mut().output(all[2]).unwrap().unwrap();
    let OutputWhere::Gone { reason } = oldest.held else {
        panic!("{oldest:?}");
    };
    assert!(reason.contains("ordered to purge it"), "{reason}");
}

#[test]
fn of_a_task_s_tries_only_the_last_one_s_output_counts_and_it_may_be_of_one_that_failed() {
    let mut world = World::new();
    world.deploy(&batch("a", "stdout"));
    let mut edge = Machine::connect(&mut world, "e1", 1);
    let run = world.launch_one("a");
    let first = run.tasks[0].execution.unwrap();
    edge.end(&mut world, first, ObservedPhase::Failed, Some(facts("one")));
    assert_eq!(world.lacking(), [], "there is another try");
    world.pass(Duration::from_secs(2));
    let second = world.run_now(run.id).tasks[0].execution.unwrap();
    assert_ne!(first, second);
    edge.end(
        &mut world,
        second,
        ObservedPhase::Failed,
        Some(facts("two")),
    );
    let lacking = world.lacking();
    assert_eq!(lacking.len(), 1);
    assert_eq!(lacking[0].execution, second);
    assert_eq!(world.the_output(run.id).bytes, Some(3));
}

#[test]
fn an_output_that_cannot_come_is_gone_and_says_why() {
    let mut world = World::new();
    world.deploy(&batch("a", "stdout"));
    world.deploy(&batch("silent", "discard"));
    let mut edge = Machine::connect(&mut world, "e1", 1);
    let (first, _) = world.wrote(&mut edge, "one");
    let (empty, _) = world.wrote(&mut edge, "");
    assert_eq!(world.the_output(empty).state, OutputState::Held);
    let silent = world.launch_one("silent");
    let id = silent.tasks[0].execution.unwrap();
    edge.end(&mut world, id, ObservedPhase::Completed, None);
    let none = world.the_output(silent.id);
    assert_eq!(none.state, OutputState::None);
    assert!(none.reason.unwrap().contains("no [output.stdout]"));

    world
        .call(ApiCall::DeleteJob("a".parse().unwrap()))
        .unwrap();
    world.pass(Duration::from_secs(1));
    let gone = world.the_output(first);
    assert_eq!(gone.state, OutputState::Gone);
    assert!(gone.reason.unwrap().contains("ordered to purge it"));

    world.deploy(&batch("a", "stdout"));
    let (second, _) = world.wrote(&mut edge, "two");
    world.handle(Input::Closed { conn: edge.conn });
    world
        .call(ApiCall::DeleteNode("e1".parse().unwrap()))
        .unwrap();
    let gone = world.the_output(second);
    assert_eq!(gone.state, OutputState::Gone);
    assert!(gone.reason.unwrap().contains("node e1 was deleted"));

    // What its pipeline said is forgotten with the last that names it.
    let reason = world.the_output(silent.id).reason.unwrap();
    assert!(reason.contains("no [output.stdout]"), "{reason}");
    world
        .call(ApiCall::DeleteJob("silent".parse().unwrap()))
        .unwrap();
    for _ in 0..3 {
        world.pass(Duration::from_secs(31));
    }
    let none = world.the_output(silent.id);
    assert_eq!(none.state, OutputState::None);
    let reason = none.reason.unwrap();
    assert!(
        reason.contains("its pipeline cannot be read any more"),
        "{reason}"
    );
}

#[test]
fn what_is_too_old_or_too_much_goes_oldest_first_and_equal_content_counts_once() {
    let mut world = World::new();
    world.deploy(&batch("a", "stdout"));
    let mut edge = Machine::connect(&mut world, "e1", 1);
    let mut runs = Vec::new();
    for text in ["old", "same", "four", "same", "five5"] {
        let (run, id) = world.wrote(&mut edge, text);
        world.output(OutputCall::Held(id));
        runs.push(run);
        world.pass(Duration::from_secs(10));
    }
    // A clock that was seen for a shorter time deletes nothing.
    world.pass(Duration::from_secs(300));
    let sweep = |world: &mut World, age: u64, bytes_max| {
        let call = OutputCall::Sweep {
            keep: Duration::from_secs(age),
            too_old: "too old".to_owned(),
            bytes_max,
            too_many: "too many".to_owned(),
        };
        match world.output(call) {
            Reply::OutputsSwept(swept) => {
                assert!(!swept.more);
                swept.dropped.into_iter().collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    let of = |text: &str| facts(text).digest;
    let totals = |world: &mut World| {
        let totals = world.core.store_mut().output_totals().unwrap();
        (totals.held, totals.gone, totals.held_bytes)
    };
    assert_eq!(totals(&mut world), (5, 0, 16));
    let states = |world: &mut World| {
        let outputs = runs.iter().map(|run| world.the_output(*run));
        let reasons = outputs.map(|it| it.reason.unwrap_or_default());
        reasons.collect::<Vec<_>>()
    };
    // A clock that is ahead for one look makes nothing older.
    let real = world.now.unix;
    world.now.unix = real.plus(Duration::from_secs(60 * 86_400));
    assert_eq!(sweep(&mut world, 1_000, 1_000), []);
    world.now.unix = real;
    assert_eq!(sweep(&mut world, 1_000, 1_000), []);
    assert_eq!(states(&mut world), ["", "", "", "", ""]);
    assert_eq!(sweep(&mut world, 345, 1_000), [of("old")]);
    assert_eq!(states(&mut world), ["too old", "", "", "", ""]);
    // 5 + 4 of the newest two contents; the third has 4 more.
    assert_eq!(totals(&mut world), (4, 1, 13));
    assert_eq!(sweep(&mut world, 345, 12), [of("four")]);
    assert_eq!(states(&mut world), ["too old", "", "too many", "", ""]);
    let mut dropped = [of("same"), of("five5")];
    dropped.sort();
    assert_eq!(sweep(&mut world, 345, 1), dropped);
    assert_eq!(totals(&mut world), (0, 5, 0));
    let all = ["old", "same"].map(of).to_vec();
    match world.output(OutputCall::Unnamed(all.clone())) {
        Reply::OutputDigests(unnamed) => assert_eq!(unnamed, all.into_iter().collect()),
        other => panic!("{other:?}"),
    }
    let all = ["too old", "too many", "too many", "too many", "too many"];
    assert_eq!(states(&mut world), all);
}
