//! Outputs of runs' tasks in the simulator: what edges wrote, and the orchestrator's shell that pulls it, over links that
//! are cut and with processes that die between any two steps.
//!
//! O1 when all is quiet, an output that an edge reported is held, or gone with a reason. O2 what is held is on the
//! orchestrator's disk, byte for byte what its task wrote. O3 no try is ordered to be purged while its output lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_api::OutputState;
use sluice_host::core::{ApiCall, Input, OutputCall, OutputTarget, Reply};
use sluice_host::store::{OutputStore as _, OutputWhere, Store as _, TaskPhase};
use sluice_model::{Attempt, Digest, ExecutionId, OutputFacts, RunId};
use sluice_protocol::OutcomeKey;

use super::orchestrator::Asker;
use super::planted::Planted;
use super::world::{Event, Mood, World};

/// Pulled at once.
const PULLS_MAX: usize = 4;

/// Pulls that may bring something else than what was reported.
const WRONG_MAX: u32 = 3;

/// A sweep of the chaos keeps what is newer than this, and so many bytes.
const SWEPT: (Duration, u64) = (Duration::from_secs(60), 400);

/// What was seen of outputs.
#[derive(Debug, Default)]
pub struct OutputsSeen {
    /// What tries wrote.
    written: BTreeMap<ExecutionId, Digest>,
    /// What the orchestrator's process is pulling.
    busy: BTreeMap<ExecutionId, Digest>,
    /// Pulls that brought something else.
    wrong: BTreeMap<ExecutionId, u32>,
    /// It has asked what lacks, and has no answer yet.
    asked: bool,
}

/// What a try writes: the same each time it is done; nothing now and then, and now and then what others write.
fn text_of(execution: ExecutionId) -> String {
    let [first, second, ..] = execution.to_bytes();
    match (first % 6, second % 4) {
        (0, _) => String::new(),
        (_, 0) => "what many write\n".to_owned(),
        _ => format!("{execution} wrote this\n").repeat(usize::from(first % 4) + 1),
    }
}

impl World {
    /// A try has ended: its output is on its edge's disk. What of it is told.
    pub(super) fn write_output(&mut self, edge: usize, execution: ExecutionId) -> OutputFacts {
        let bytes = text_of(execution).into_bytes();
        let facts = OutputFacts {
            bytes: bytes.len() as u64,
            digest: Digest::of(&bytes),
            dropped: 0,
        };
        self.outputs.written.insert(execution, facts.digest);
        self.edges[edge].disk.outputs.insert(execution, bytes);
        facts
    }

    /// A process of the orchestrator begins, and knows of no pull.
    pub(super) fn forget_pulls(&mut self) {
        self.outputs.busy.clear();
        self.outputs.asked = false;
    }

    /// The shell asks what lacks.
    pub(super) fn look_for_outputs(&mut self) {
        let idle = self.outputs.written.is_empty() || self.outputs.asked;
        if idle || self.planted == Some(Planted::NoPulls) {
            return;
        }
        self.outputs.asked = true;
        self.ask_about_outputs(OutputCall::Lacking);
        if self.mood == Mood::Chaotic && self.random.one_in(12) {
            self.ask_about_outputs(OutputCall::Sweep {
                keep: SWEPT.0,
                too_old: "it was too old".to_owned(),
                bytes_max: SWEPT.1,
                too_many: "it made room for newer ones".to_owned(),
            });
        }
    }

    fn ask_about_outputs(&mut self, call: OutputCall) {
        let request = self.orchestrator.ask(Asker::Outputs);
        let call = Box::new(ApiCall::Output(call));
        self.feed_host(Input::Api { request, call });
    }

    /// The core answered the shell; `None`: it could not, and is asked again.
    pub(super) fn handle_outputs_reply(&mut self, reply: Option<Reply>) {
        match reply {
            Some(Reply::OutputTargets(targets)) => {
                self.outputs.asked = false;
                for target in targets {
                    self.begin_pull(target);
                }
            }
            Some(Reply::OutputsSwept(swept)) => {
                let busy: BTreeSet<Digest> = self.outputs.busy.values().copied().collect();
                self.orchestrator
                    .files
                    .retain(|digest, _| !swept.dropped.contains(digest) || busy.contains(digest));
            }
            Some(Reply::Done) => {}
            None => self.outputs.asked = false,
            Some(other) => panic!("asked about outputs, got {other:?}"),
        }
    }

    fn begin_pull(&mut self, target: OutputTarget) {
        let busy = &mut self.outputs.busy;
        let taken = busy.contains_key(&target.execution)
            || busy.values().any(|it| *it == target.facts.digest);
        if taken || busy.len() >= PULLS_MAX {
            return;
        }
        busy.insert(target.execution, target.facts.digest);
        let after = match self.mood {
            Mood::Calm => 20,
            Mood::Chaotic => self.random.delay(5, 15_000),
        };
        let boot = self.orchestrator.boot;
        self.schedule(after, Event::PullEnd { boot, target });
    }

    pub(super) fn end_pull(&mut self, boot: u64, target: &OutputTarget) {
        if self.orchestrator.boot != boot || self.orchestrator.core.is_none() {
            return;
        }
        let id = target.execution;
        self.outputs.busy.remove(&id);
        if let Some(bytes) = self.orchestrator.files.get(&target.facts.digest) {
            assert_eq!(Digest::of(bytes), target.facts.digest, "O2: on the disk");
            self.ask_about_outputs(OutputCall::Held(id));
            return;
        }
        let chaotic = self.mood == Mood::Chaotic;
        let cut = chaotic && self.random.one_in(8);
        let Some(edge) = self.reached_by(target.conn.0).filter(|_| !cut) else {
            self.checks.faults.failed_pulls += 1;
            return;
        };
        if chaotic && self.random.one_in(25) {
            self.rot_output(edge, id);
        }
        let Some(bytes) = self.edges[edge].disk.outputs.get(&id).cloned() else {
            self.note("O", format_args!("the output of {id} is nowhere"));
            let why = "its edge has it no more".to_owned();
            self.ask_about_outputs(OutputCall::Lost(id, why));
            return;
        };
        let blind = self.planted == Some(Planted::BlindPulls);
        if Digest::of(&bytes) != target.facts.digest && !blind {
            let wrong = self.outputs.wrong.entry(id).or_default();
            *wrong += 1;
            if *wrong >= WRONG_MAX {
                let why = "what its edge has is not what it reported".to_owned();
                self.ask_about_outputs(OutputCall::Lost(id, why));
            }
            return;
        }
        if chaotic && self.random.one_in(20) {
            let after = self.restart_delay();
            self.crash_host("before an output has its name", after);
            return;
        }
        self.orchestrator.files.insert(target.facts.digest, bytes);
        if chaotic && self.random.one_in(20) {
            let after = self.restart_delay();
            self.crash_host("when an output has its name, and nobody knows", after);
            return;
        }
        self.checks.faults.pulls += 1;
        self.ask_about_outputs(OutputCall::Held(id));
    }

    /// The edge at the other end of a session, if it is in reach.
    fn reached_by(&mut self, connection: u64) -> Option<usize> {
        let boot = self.orchestrator.boot;
        let connection = self.network.get(connection)?;
        let well = connection.is_well() && connection.host_boot == boot;
        let (edge, edge_boot) = (connection.edge, connection.edge_boot);
        (well && self.process(edge, edge_boot).is_some()).then_some(edge)
    }

    /// An edge's disk loses a bit of an output.
    pub fn rot_output(&mut self, edge: usize, execution: ExecutionId) {
        if let Some(byte) = (self.edges[edge].disk.outputs)
            .get_mut(&execution)
            .and_then(|bytes| bytes.first_mut())
        {
            *byte ^= 1;
        }
    }

    /// O3.
    pub(super) fn check_purge_order(&mut self, execution: ExecutionId) {
        let output = self
            .orchestrator
            .look(|store| store.output(execution))
            .expect("readable");
        assert!(
            output.is_none_or(|it| it.held != OutputWhere::Lacking),
            "O3: {execution} is to be purged, and its output lacks"
        );
    }

    /// O2.
    pub(super) fn check_held(&mut self, run: RunId) {
        let outputs = self
            .orchestrator
            .look(|store| store.outputs_of_run(run))
            .expect("readable");
        for output in outputs {
            let wrote = self.outputs.written.get(&output.execution).copied();
            assert_eq!(
                wrote,
                Some(output.facts.digest),
                "O2: nobody wrote {output:?}"
            );
            if output.held != OutputWhere::Held || output.facts.bytes == 0 {
                continue;
            }
            let file = self.orchestrator.files.get(&output.facts.digest);
            let is = file.map(|bytes| Digest::of(bytes));
            assert_eq!(is, wrote, "O2: held is something else: {output:?}");
        }
    }

    /// O1's first half: nothing is still to come.
    pub(super) fn settled_outputs(&mut self) -> Result<(), String> {
        for run in self.runs.known() {
            let outputs = self.orchestrator.look(|store| store.outputs_of_run(run))?;
            let lacking = |held: &OutputWhere| *held == OutputWhere::Lacking;
            if let Some(output) = outputs.iter().find(|it| lacking(&it.held)) {
                return Err(format!("O1: the output of {} lacks", output.execution));
            }
        }
        Ok(())
    }

    /// O1's second half, when everything is quiet.
    pub(super) fn check_outputs_quiet(&mut self) {
        for run in self.runs.known() {
            self.check_held(run);
            let shown = match self.ask(ApiCall::Output(OutputCall::OfRun(run))) {
                Ok(Reply::TaskOutputs(shown)) => shown,
                other => panic!("outputs of {run}: {other:?}"),
            };
            let tasks = self
                .orchestrator
                .look(|store| sluice_host::store::RunStore::tasks_of_run(store, run))
                .expect("readable");
            for (task, shown) in tasks.iter().zip(shown) {
                let told = shown.reason.as_ref().is_some_and(|it| !it.is_empty());
                let well = match shown.state {
                    OutputState::Held => true,
                    OutputState::Gone | OutputState::None => told,
                    OutputState::Pending => task.phase != TaskPhase::Ended && told,
                    OutputState::Coming => false,
                };
                assert!(well, "O1: {shown:?}");
                let Some(execution) = task.execution.filter(|_| task.phase == TaskPhase::Ended)
                else {
                    continue;
                };
                let key = OutcomeKey {
                    execution,
                    version: task.version,
                    attempt: Attempt(1),
                };
                let reported = self
                    .orchestrator
                    .look(|store| store.outcome(key))
                    .expect("readable")
                    .and_then(|row| row.output);
                if let Some(facts) = reported {
                    assert_eq!(
                        (shown.bytes, shown.digest),
                        (Some(facts.bytes), Some(facts.digest)),
                        "O1: what was reported is not known: {shown:?}"
                    );
                }
            }
        }
    }
}
