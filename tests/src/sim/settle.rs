//! Whether the world is as the operators' last orders say, on every machine and on both disks (I4's end, I7).

use std::collections::{BTreeMap, BTreeSet};

use sluice_api::RolloutOrder;
use sluice_host::core::{ApiCall, Reply};
use sluice_host::store::{ExecutionRecord, NodeRecord, Store as _, VersionOrigin};
use sluice_model::{
    Desired, Digest, ExecutionId, Labels, NodeId, ObservedPhase, Revision, RolloutPhase,
};
use sluice_protocol::{ObservedRow, OutcomeKey};

use super::edge::Stage;
use super::operators::{Content, KnownJob, Order, Placing};
use super::runs::is_batch;
use super::world::World;

/// All faults are over: by then everything must have settled. Longest are a purge or a fetch that waits for its
/// longest backoff (5 min), once for the old version and once for the new one.
pub const SETTLES_WITHIN_MS: u64 = 20 * 60 * 1000;

/// Two sweeps and a bit: time for a planner that is not content to show it.
const QUIET_MS: u64 = 65_000;

impl World {
    /// Runs until the world has settled; panics when it does not.
    pub fn settle(&mut self) {
        self.rest_schedules();
        let end = self.now_ms + SETTLES_WITHIN_MS;
        loop {
            self.run_for(self.config.heartbeat_ms);
            self.promote_what_is_paused();
            self.pause_schedules();
            let Err(why) = self.settled() else {
                return;
            };
            assert!(
                self.now_ms < end,
                "I4: {SETTLES_WITHIN_MS} ms after all faults stopped: {why}"
            );
        }
    }

    /// A rollout that waits for a person gets one.
    fn promote_what_is_paused(&mut self) {
        if !self.operators.promotes {
            return;
        }
        for (name, job) in self.operators.jobs.clone() {
            let record = self.orchestrator.look(|store| store.rollout(job.id));
            let paused = record
                .ok()
                .flatten()
                .is_some_and(|it| it.phase == RolloutPhase::Paused);
            if paused && !job.stopped {
                self.order(&name, Order::Rollout(RolloutOrder::Promote));
            }
        }
    }

    /// I7: nothing is planned any more, whatever is evaluated, also by a new process.
    pub fn check_quiet(&mut self) {
        // Old tries of what ended last are purged with the next tick.
        self.run_for(2 * self.config.heartbeat_ms);
        let before = self.heads();
        self.look_at_everything();
        self.run_for(QUIET_MS);
        assert_eq!(before, self.heads(), "I7: planning twice plans something");
        self.crash_host("to see whether a new process is content", 100);
        self.run_for(QUIET_MS);
        assert_eq!(
            before,
            self.heads(),
            "I7: a new process plans something else"
        );
        if let Err(why) = self.settled() {
            panic!("it had settled, and then: {why}");
        }
        self.check_ticks();
        self.check_runs_quiet();
        self.check_outputs_quiet();
        self.check_rollouts_told();
    }

    /// I5 of rollouts: one that waits says why, and each says what comes next.
    fn check_rollouts_told(&mut self) {
        for name in self.operators.jobs.clone().into_keys() {
            let call = ApiCall::Rollout(name.parse().expect("a job's name"));
            let Ok(Reply::Rollout(rollout)) = self.ask(call) else {
                continue;
            };
            let rollout = self.mute_rollout(*rollout);
            let waits = matches!(
                rollout.phase,
                RolloutPhase::Canary | RolloutPhase::Rolling | RolloutPhase::Paused
            );
            let stopped = self.operators.jobs[&name].stopped;
            let told = rollout.reason.as_ref().is_some_and(|it| !it.is_empty());
            assert!(
                (told || !waits || stopped) && !rollout.next.is_empty(),
                "I5: a rollout that waits without its reason: {rollout:?}"
            );
        }
    }

    fn heads(&mut self) -> Vec<(NodeId, Revision)> {
        self.orchestrator
            .look(|store| store.nodes())
            .expect("readable")
            .into_iter()
            .map(|node| (node.id, node.desired.rev))
            .collect()
    }

    /// Why the world is not yet as it should be.
    pub fn settled(&mut self) -> Result<(), String> {
        if let Some((name, order)) = self.operators.open.first_key_value() {
            return Err(format!("an order is not answered: {name} {order:?}"));
        }
        let jobs = self.orchestrator.look(|store| store.jobs(true))?;
        for job in &jobs {
            let known = self.operators.jobs.get(job.name.as_str());
            let wanted = known.is_some_and(|known| known.id == job.id) && !job.deleted;
            if !wanted {
                let left = self
                    .orchestrator
                    .look(|store| store.executions_of_job(job.id))?;
                let left: Vec<_> = left
                    .iter()
                    .map(|it| (it.id, it.node, it.desired.as_str()))
                    .collect();
                return Err(format!(
                    "job {} ({}) is not forgotten, left are {left:?}",
                    job.name, job.id
                ));
            }
        }
        for edge in 0..self.edges.len() {
            let joined = self.edges[edge].disk.node;
            if joined.is_none() || joined != self.checks.nodes.get(&edge).copied() {
                return Err(format!("{} has not joined", self.edges[edge].name));
            }
            self.settled_session(edge)?;
        }
        self.settled_schedules()?;
        self.settled_runs()?;
        self.settled_outputs()?;
        let mut wanted = BTreeSet::new();
        let known = self.operators.jobs.clone();
        for (name, job) in &known {
            if is_batch(job.placing) {
                let executions = self
                    .orchestrator
                    .look(|store| store.executions_of_job(job.id))?;
                wanted.extend(self.settled_tries(&executions)?);
                continue;
            }
            let (job, kept) = &self.rolled_out(name, job)?;
            let kept = *kept;
            let executions = self
                .orchestrator
                .look(|store| store.executions_of_job(job.id))?;
            let at: BTreeMap<NodeId, ExecutionRecord> = executions
                .into_iter()
                .map(|execution| (execution.node, execution))
                .collect();
            self.settled_places(name, job, &at)
                .map_err(|why| format!("{name}: {why}"))?;
            for edge in 0..self.edges.len() {
                let node = self.checks.nodes[&edge];
                let execution = at.get(&node);
                wanted.extend(execution.map(|execution| (edge, execution.id)));
                self.settled_execution(edge, job, kept, execution)
                    .map_err(|why| format!("{name} on {}: {why}", self.edges[edge].name))?;
            }
        }
        for edge in 0..self.edges.len() {
            self.settled_machine(edge, &wanted)
                .map_err(|why| format!("{}: {why}", self.edges[edge].name))?;
        }
        Ok(())
    }

    /// The job as a rollout left it: where that went back, or finds no node that takes the new version, with the old
    /// content, whose spec comes with it.
    fn rolled_out(
        &mut self,
        name: &str,
        job: &KnownJob,
    ) -> Result<(KnownJob, Option<Digest>), String> {
        let record = self.orchestrator.look(|store| store.rollout(job.id))?;
        let current = self.restored_content(job)?;
        let Some(record) = record.filter(|it| it.candidate == job.version && !job.stopped) else {
            return Ok((job.clone(), current));
        };
        if record.phase == RolloutPhase::Paused && !self.operators.promotes {
            return Ok((job.clone(), current));
        }
        if record.is_open() {
            let (phase, reason) = (record.phase, &record.reason);
            if reason.is_empty() || self.takes_more(name, job)? {
                return Err(format!("the rollout of {name} is {phase}: {record:?}"));
            }
        }
        let back = record.is_open() || record.phase == RolloutPhase::RolledBack;
        let Some(good) = record.good.filter(|_| back) else {
            return Ok((job.clone(), current));
        };
        let (content, select, placing) = self.content_of(job.id, good.version);
        let job = KnownJob {
            content,
            select,
            placing,
            ..job.clone()
        };
        Ok((job, Some(good.spec)))
    }

    /// The spec of a job that went back: who ran that content all the time keeps an older version's number.
    fn restored_content(&mut self, job: &KnownJob) -> Result<Option<Digest>, String> {
        let Some(record) = self.orchestrator.look(|store| store.job(job.id))? else {
            return Ok(None);
        };
        let history = self.orchestrator.look(|store| store.history(job.id))?;
        let newest = history.iter().find(|it| it.version == record.version);
        let restored = newest.is_some_and(|it| matches!(it.origin, VersionOrigin::Rollback { .. }));
        Ok(restored.then_some(record.spec))
    }

    /// Whether a node is there that a rollout's new version could go to.
    fn takes_more(&mut self, name: &str, job: &KnownJob) -> Result<bool, String> {
        let executions = self
            .orchestrator
            .look(|store| store.executions_of_job(job.id))?;
        for edge in 0..self.edges.len() {
            let Some(record) = self.record_of(edge)? else {
                continue;
            };
            let runs = executions
                .iter()
                .any(|it| it.node == record.id && it.desired == Desired::Run);
            let takes = !record.orders.draining && (runs || !record.orders.cordoned);
            let labels = record.labels_in_force();
            if takes && selects(name, job, record.name.as_str(), &labels) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A machine's node, as the orchestrator's disk has it.
    fn record_of(&mut self, edge: usize) -> Result<Option<NodeRecord>, String> {
        match self.checks.nodes.get(&edge).copied() {
            Some(node) => self.orchestrator.look(|store| store.node(node)),
            None => Ok(None),
        }
    }

    fn settled_session(&mut self, edge: usize) -> Result<(), String> {
        let name = self.edges[edge].name.clone();
        let Some(process) = &self.edges[edge].process else {
            return Err(format!("{name} does not run"));
        };
        let core = &process.core;
        if core.session().is_none() {
            return Err(format!("{name} has no session"));
        }
        // An edge may not have noticed yet that the process it speaks with is gone.
        let boot = self.orchestrator.boot;
        let connection = process
            .connection
            .and_then(|id| self.network.connections.get(&id));
        if connection.is_none_or(|it| it.host_boot != boot) {
            return Err(format!("{name} has a session with a process that is gone"));
        }
        let (desired, observed) = (core.desired_position(), core.observed_position());
        let node = self.checks.nodes[&edge];
        let record = self
            .orchestrator
            .look(|store| store.node(node))?
            .ok_or_else(|| format!("{name} is not registered"))?;
        if record.desired != desired || record.received != desired.rev {
            return Err(format!(
                "{name}: desired {:?}, acknowledged {}, there {desired:?}",
                record.desired, record.received
            ));
        }
        if record.observed != observed {
            return Err(format!(
                "{name}: observed {observed:?}, known as {:?}",
                record.observed
            ));
        }
        if record.labels != self.edges[edge].labels {
            return Err(format!("{name}: its labels are not known"));
        }
        let rows = self
            .orchestrator
            .look(|store| store.executions_of_node(node))?;
        let runs = rows.iter().filter(|it| it.desired == Desired::Run).count();
        if record.executions != u64::try_from(runs).expect("few") {
            let counted = record.executions;
            return Err(format!("{name}: {runs} executions, counted {counted}"));
        }
        let kept = self.edges[edge]
            .look(sluice_edge_runtime::store::Store::outcomes)
            .ok_or("it does not run")??;
        if kept.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "{name}: {} outcomes are not acknowledged",
                kept.len()
            ))
        }
    }

    /// The rows that order `run` are on the right nodes, and as many as they should be.
    fn settled_places(
        &mut self,
        name: &str,
        job: &KnownJob,
        at: &BTreeMap<NodeId, ExecutionRecord>,
    ) -> Result<(), String> {
        let mut run = 0;
        let mut open = 0;
        for edge in 0..self.edges.len() {
            let node = self.checks.nodes[&edge];
            let record = self
                .orchestrator
                .look(|store| store.node(node))?
                .ok_or("a node is not registered")?;
            let (cordoned, draining) = self.operators.nodes.get(&edge).copied().unwrap_or_default();
            let ordered = (record.orders.cordoned, record.orders.draining);
            if ordered != (cordoned, draining) {
                return Err(format!("{} forgot what was ordered", record.name));
            }
            let labels = record.labels_in_force();
            let execution = at.get(&node);
            // A replica that has ended by itself keeps its place on a drained node: it is not done again elsewhere.
            let ended = match (execution, job.placing) {
                (Some(it), Placing::Replicas(..)) if it.desired == Desired::Run => {
                    let key = OutcomeKey {
                        execution: it.id,
                        version: it.version,
                        attempt: it.attempt,
                    };
                    self.orchestrator
                        .look(|store| store.outcome(key))?
                        .is_some()
                }
                _ => false,
            };
            let may = !job.stopped
                && (!draining || ended)
                && selects(name, job, record.name.as_str(), &labels);
            if execution.is_some_and(|it| it.replaced) {
                return Err(format!("on {} it counts as replaced", record.name));
            }
            let runs = execution.is_some_and(|it| it.desired == Desired::Run);
            if runs && !may {
                return Err(format!("it is wanted on {}", record.name));
            }
            run += u32::from(runs);
            open += u32::from(may && (runs || !cordoned));
        }
        let expected = match job.placing {
            Placing::Daemon => open,
            Placing::Replicas(count, _) => open.min(count),
            Placing::Batch(_) => run,
        };
        if run == expected {
            Ok(())
        } else {
            Err(format!(
                "it is wanted on {run} nodes, and should be on {expected}"
            ))
        }
    }

    fn settled_execution(
        &mut self,
        edge: usize,
        job: &KnownJob,
        kept: Option<Digest>,
        execution: Option<&ExecutionRecord>,
    ) -> Result<(), String> {
        // Where there should be one was checked before.
        let Some(execution) = execution else {
            return Ok(());
        };
        let live = self.live_work(edge).remove(&execution.id);
        let key = OutcomeKey {
            execution: execution.id,
            version: execution.version,
            attempt: execution.attempt,
        };
        let node = self.checks.nodes[&edge];
        let (reported, outcome) = self
            .orchestrator
            .look(|store| Ok((store.observed(node, execution.id)?, store.outcome(key)?)))?;
        if execution.desired != Desired::Run {
            if execution.desired != Desired::Stop {
                return Err(format!(
                    "it should stop, its row says {}",
                    execution.desired
                ));
            }
            if let Some(live) = live {
                return Err(format!(
                    "it should stop, and {} lives",
                    live.assignment.label
                ));
            }
            return phase_is(reported.as_ref(), execution, &[ObservedPhase::Stopped]);
        }
        // After a rollout went back, who ran the old content all the time keeps its version.
        let current = match kept {
            Some(spec) => execution.spec == spec,
            None => execution.version == job.version,
        };
        if !current {
            return Err(format!(
                "its row says {} {}, wanted is run {}",
                execution.desired, execution.version, job.version
            ));
        }
        let ended = outcome.as_ref().map(|outcome| outcome.phase);
        let may_fail = self.checks.may_have_failed.contains(&execution.id);
        let runs = live
            .as_ref()
            .is_some_and(|live| live.stage == Stage::Running && live.content == job.content);
        match (job.content, ended) {
            (Content::Steady(_) | Content::Spoils(_), None) if runs => {
                phase_is(reported.as_ref(), execution, &[ObservedPhase::Running])
            }
            (Content::Steady(_), Some(ObservedPhase::Failed)) if may_fail && live.is_none() => {
                Ok(())
            }
            (Content::Ends(_), Some(ObservedPhase::Completed)) if live.is_none() => Ok(()),
            (Content::Fails(_), Some(ObservedPhase::Failed)) if live.is_none() => Ok(()),
            // An older version may run on.
            (Content::Misconfigured(_), Some(ObservedPhase::Failed)) => Ok(()),
            // It crashes again and again, until it is left alone.
            (Content::Crashes(_), None) => phase_is(
                reported.as_ref(),
                execution,
                &[
                    ObservedPhase::Backoff,
                    ObservedPhase::Quarantined,
                    ObservedPhase::Running,
                    ObservedPhase::Starting,
                    ObservedPhase::Compiling,
                    ObservedPhase::Fetching,
                ],
            ),
            (content, ended) => Err(format!(
                "{content:?} at {} has ended {ended:?}, lives {:?}, reported {:?}",
                execution.version,
                live.map(|live| (live.assignment.label, live.content, live.stage)),
                reported.map(|it| (it.version, it.attempt, it.phase, it.reason)),
            )),
        }
    }

    /// Nothing is left on a machine, or known of it, that no row names.
    fn settled_machine(
        &mut self,
        edge: usize,
        wanted: &BTreeSet<(usize, ExecutionId)>,
    ) -> Result<(), String> {
        let is_wanted = |execution: &ExecutionId| wanted.contains(&(edge, *execution));
        if let Some(execution) = self.live_work(edge).keys().find(|it| !is_wanted(it)) {
            return Err(format!("{execution} lives, and no row names it"));
        }
        let (rows, live) = self.edges[edge]
            .look(|store| Ok((store.desired()?, store.live()?)))
            .ok_or("it does not run")??;
        let keys = rows
            .iter()
            .map(|row| &row.key)
            .chain(live.iter().map(|(key, _)| key));
        for key in keys {
            let execution = ExecutionId::from_slice(key).ok_or("a key that is none")?;
            if !is_wanted(&execution) {
                return Err(format!("{execution} is still known there"));
            }
        }
        if let Some(execution) = self.edges[edge]
            .disk
            .states
            .iter()
            .find(|it| !is_wanted(it))
        {
            return Err(format!("the state of {execution} is still there"));
        }
        Ok(())
    }
}

fn selects(name: &str, job: &KnownJob, node: &str, labels: &Labels) -> bool {
    let text = super::operators::pipeline(name, job.content, &job.select, job.placing);
    let pipeline =
        sluice_model::pipeline::parse(&text).expect("the simulator's pipelines are good");
    let node = node.parse().expect("the simulator's node names are names");
    pipeline.select.matches(&node, labels)
}

fn phase_is(
    reported: Option<&ObservedRow>,
    execution: &ExecutionRecord,
    phases: &[ObservedPhase],
) -> Result<(), String> {
    match reported {
        Some(row)
            if (row.version, row.attempt) == (execution.version, execution.attempt)
                && phases.contains(&row.phase) =>
        {
            Ok(())
        }
        Some(row) => Err(format!(
            "reported is {}.{} {} ({})",
            row.version, row.attempt, row.phase, row.reason
        )),
        None => Err("nothing is reported".to_owned()),
    }
}
