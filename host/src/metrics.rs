//! What an orchestrator tells about itself in numbers: sessions, decisions, its store, and each node and execution as
//! the API shows them.
//!
//! Everything is read when somebody asks; names and units are listed in `METRICS.md`, which a test compares with what
//! comes out here. Nodes and executions that are gone are gone from the numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_api::{Execution, ExecutionFilter, Node, NodeFilter};
use sluice_metrics::{Family, Kind, Labels, Value, render};
use sluice_model::{Epoch, ExecutionState, NodeState, UnixMs};
use sluice_transport::EarlyData;

use crate::core::Tally;
use crate::http::ControlApi as _;
use crate::operators::Operators;
use crate::store::OutputTotals;

/// Nodes with numbers of their own: 6 series of 100 bytes each. The rest is counted as left out.
const NODES_MAX: usize = 2000;

/// Executions with numbers of their own, for the same reason.
const EXECUTIONS_MAX: usize = 5000;

/// Jobs whose executions are counted by state, for the same reason.
const JOBS_MAX: usize = 1000;

/// Handshakes of edges that were completed.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    early: AtomicU64,
    full: AtomicU64,
}

impl Handshakes {
    /// Counts one.
    pub(crate) fn note(&self, early: EarlyData) {
        let number = match early {
            EarlyData::Accepted => &self.early,
            EarlyData::Refused | EarlyData::Unused => &self.full,
        };
        number.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a scrape looks at.
#[derive(Clone)]
pub(crate) struct Look {
    pub(crate) operators: Operators,
    pub(crate) tally: Arc<Tally>,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) epoch: Epoch,
}

impl Look {
    /// The text for one scrape; `None` when the control thread cannot be asked.
    pub(crate) async fn scrape(self) -> Option<String> {
        // Page by page, so that others have their turn between them.
        let nodes = self.nodes().await?;
        let executions = self.executions().await?;
        let outputs = self.operators.output_totals().await.ok()?;
        let mut families = self.own();
        families.extend(output_families(outputs));
        families.extend(node_families(&nodes));
        families.extend(execution_families(&executions));
        families.push(left_out(&nodes, &executions));
        Some(render(families))
    }

    async fn nodes(&self) -> Option<Vec<Node>> {
        let (mut filter, mut nodes) = (NodeFilter::default(), Vec::new());
        loop {
            let page = self.operators.nodes(filter.clone()).await.ok()?;
            nodes.extend(page.items);
            filter.cursor = page.next;
            if filter.cursor.is_none() {
                return Some(nodes);
            }
        }
    }

    async fn executions(&self) -> Option<Vec<Execution>> {
        let (mut filter, mut executions) = (ExecutionFilter::default(), Vec::new());
        loop {
            let page = self.operators.executions(filter.clone()).await.ok()?;
            executions.extend(page.items);
            filter.cursor = page.next;
            if filter.cursor.is_none() {
                return Some(executions);
            }
        }
    }

    fn own(&self) -> Vec<Family> {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let tally = &self.tally;
        let counter = |name, help, number| Family::counter(name, help, load(number));
        let early = |word: &str| -> Labels { vec![("early_data", word.to_owned())] };
        vec![
            Family::new(
                "sluice_orchestrator_info",
                Kind::Gauge,
                "Always 1: which program this is",
            )
            .with(
                vec![("version", env!("CARGO_PKG_VERSION").to_owned())],
                Value::Whole(1),
            ),
            Family::gauge(
                "sluice_orchestrator_epoch",
                "Counts the orchestrator's lives",
                self.epoch.0,
            ),
            counter(
                "sluice_sessions_opened",
                "Sessions of edges that began",
                &tally.sessions_opened,
            ),
            counter(
                "sluice_sessions_closed",
                "Sessions of edges that ended",
                &tally.sessions_closed,
            ),
            counter(
                "sluice_refusals",
                "Hellos and joins that were refused",
                &tally.refusals,
            ),
            counter(
                "sluice_joins",
                "Machines that joined or came back with a token",
                &tally.joins,
            ),
            Family::new(
                "sluice_handshakes",
                Kind::Counter,
                "TLS handshakes of edges: resumed ones with the Hello as early data, and others",
            )
            .with(
                early("accepted"),
                Value::Whole(load(&self.handshakes.early)),
            )
            .with(early("none"), Value::Whole(load(&self.handshakes.full))),
            counter("sluice_evaluations", "Looks at a job", &tally.evaluations),
            [
                ("launched", &tally.ticks_launched),
                ("queued", &tally.ticks_queued),
                ("skipped", &tally.ticks_skipped),
                ("refused", &tally.ticks_refused),
            ]
            .into_iter()
            .fold(
                Family::new(
                    "sluice_schedule_ticks",
                    Kind::Counter,
                    "Ticks of schedules that were decided",
                ),
                |family, (outcome, ticks)| {
                    let labels = vec![("outcome", outcome.to_owned())];
                    family.with(labels, Value::Whole(load(ticks)))
                },
            ),
            counter(
                "sluice_output_pulls",
                "Outputs of tasks that were pulled from their edges",
                &tally.outputs_pulled,
            ),
            counter(
                "sluice_output_pull_failures",
                "Pulls of outputs that failed, for now or for good",
                &tally.output_pull_failures,
            ),
            counter(
                "sluice_runs_launched",
                "Runs that were launched",
                &tally.runs_launched,
            ),
            counter(
                "sluice_tasks_launched",
                "Tasks of the runs that were launched",
                &tally.tasks_launched,
            ),
            [
                ("completed", &tally.tasks_completed),
                ("failed", &tally.tasks_failed),
                ("cancelled", &tally.tasks_cancelled),
                ("timed-out", &tally.tasks_timed_out),
                ("again", &tally.tasks_again),
            ]
            .into_iter()
            .fold(
                Family::new(
                    "sluice_task_ends",
                    Kind::Counter,
                    "Tasks that ended, by state; `again` are tries with another one to come",
                ),
                |family, (state, ends)| {
                    let labels = vec![("state", state.to_owned())];
                    family.with(labels, Value::Whole(load(ends)))
                },
            ),
            Family::gauge(
                "sluice_tasks_active",
                "Tasks of runs that have a node",
                load(&tally.tasks_active),
            ),
            Family::gauge(
                "sluice_tasks_waiting",
                "Tasks of runs that wait for a place or their next try",
                load(&tally.tasks_open).saturating_sub(load(&tally.tasks_active)),
            ),
            counter(
                "sluice_task_claims_taken_over",
                "Claims on tasks that were an earlier process's, or had run out",
                &tally.claims_taken_over,
            ),
            counter(
                "sluice_plan_changes",
                "Assignments that plans changed",
                &tally.plan_changes,
            ),
            counter(
                "sluice_ledger_resyncs",
                "Sets that did not add up and were sent again, either way",
                &tally.resyncs,
            ),
            Family::histogram(
                "sluice_assignment_ack_seconds",
                "From sending assignments to an edge's word that they are on its disk",
                tally.acks.read(),
            ),
            Family::histogram(
                "sluice_round_seconds",
                "Deciding and committing what waited together",
                tally.rounds.read(),
            ),
            counter(
                "sluice_store_failures",
                "Steps and rounds that the store did not take, a full disk not counted",
                &tally.store_failures,
            ),
            Family::gauge(
                "sluice_store_disk_full",
                "1 while the store waits for room on the disk",
                u64::from(tally.disk_full.load(Ordering::Relaxed)),
            ),
        ]
    }
}

fn output_families(totals: OutputTotals) -> [Family; 2] {
    let state = |word: &str| -> Labels { vec![("state", word.to_owned())] };
    let outputs = Family::new(
        "sluice_outputs",
        Kind::Gauge,
        "Outputs of the tasks of kept runs, by where they are",
    );
    let outputs = outputs
        .with(state("held"), Value::Whole(totals.held))
        .with(state("lacking"), Value::Whole(totals.lacking))
        .with(state("gone"), Value::Whole(totals.gone));
    let bytes = Family::gauge(
        "sluice_outputs_held_bytes",
        "Bytes of held outputs, equal content counted once",
        totals.held_bytes,
    );
    [outputs, bytes]
}

fn seconds(at: UnixMs) -> Value {
    Value::Real(at.0 as f64 / 1000.0)
}

fn node_families(nodes: &[Node]) -> Vec<Family> {
    let states = [
        NodeState::Connected,
        NodeState::Disconnected,
        NodeState::Lost,
        NodeState::Held,
    ];
    let mut by_state = Family::new("sluice_nodes", Kind::Gauge, "Registered nodes, by state");
    for state in states {
        let count = nodes.iter().filter(|node| node.state == state).count();
        by_state.push(
            vec![("state", state.to_string())],
            Value::Whole(count as u64),
        );
    }
    let mut connected = Family::new(
        "sluice_node_connected",
        Kind::Gauge,
        "1 while the node has a session",
    );
    let mut executions = Family::new(
        "sluice_node_executions",
        Kind::Gauge,
        "Executions that are desired to run on the node",
    );
    let mut lag = Family::new(
        "sluice_node_ledger_lag_revisions",
        Kind::Gauge,
        "Revisions of its assignments that the node does not have on its disk yet",
    );
    let mut seen = Family::new(
        "sluice_node_last_seen_timestamp_seconds",
        Kind::Gauge,
        "When the node was last heard; none when it never was",
    );
    let mut expires = Family::new(
        "sluice_node_certificate_expiry_timestamp_seconds",
        Kind::Gauge,
        "When the node's certificate ends",
    );
    for node in nodes.iter().take(NODES_MAX) {
        let labels = || -> Labels { vec![("node", node.name.to_string())] };
        let behind = node.desired_rev.0.saturating_sub(node.received_rev.0);
        let has_session = u64::from(node.connected_since.is_some());
        connected.push(labels(), Value::Whole(has_session));
        executions.push(labels(), Value::Whole(node.executions));
        lag.push(labels(), Value::Whole(behind));
        if let Some(at) = node.last_seen_at {
            seen.push(labels(), seconds(at));
        }
        if let Some(at) = node.certificate_expires_at {
            expires.push(labels(), seconds(at));
        }
    }
    vec![by_state, connected, executions, lag, seen, expires]
}

/// A name without its `_total`, a help, and where the number comes from.
type Column = (&'static str, &'static str, fn(&Execution) -> u64);

const COLUMNS: [Column; 4] = [
    (
        "sluice_execution_records_in",
        "Records that the execution took in, as its edge last said",
        |execution| execution.records_in,
    ),
    (
        "sluice_execution_records_out",
        "Records that its output accepted",
        |execution| execution.records_out,
    ),
    (
        "sluice_execution_dead_letters",
        "Records that it set aside",
        |execution| execution.dead_letters,
    ),
    (
        "sluice_execution_restarts",
        "Restarts at its version and attempt",
        |execution| execution.restarts,
    ),
];

fn execution_families(executions: &[Execution]) -> Vec<Family> {
    let mut states: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for execution in executions {
        let job = states.entry(execution.job.as_str()).or_default();
        *job.entry(state_word(execution.state)).or_default() += 1;
    }
    let mut by_state = Family::new(
        "sluice_executions",
        Kind::Gauge,
        "Executions that are desired to run, by job and state",
    );
    for (job, counts) in states.iter().take(JOBS_MAX) {
        for (state, count) in counts {
            let labels = vec![("job", (*job).to_owned()), ("state", (*state).to_owned())];
            by_state.push(labels, Value::Whole(*count));
        }
    }
    let mut all = vec![by_state];
    for (name, help, value) in COLUMNS {
        // Of several on one node, the sum.
        let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for execution in executions.iter().take(EXECUTIONS_MAX) {
            let key = (execution.job.as_str(), execution.node.as_str());
            *sums.entry(key).or_default() += value(execution);
        }
        let mut family = Family::new(name, Kind::Counter, help);
        for ((job, node), sum) in sums {
            let labels = vec![("job", job.to_owned()), ("node", node.to_owned())];
            family.push(labels, Value::Whole(sum));
        }
        all.push(family);
    }
    all
}

fn state_word(state: ExecutionState) -> &'static str {
    match state {
        ExecutionState::Pending => "pending",
        ExecutionState::Running => "running",
        ExecutionState::Completed => "completed",
        ExecutionState::Failed => "failed",
        ExecutionState::Stopped => "stopped",
        ExecutionState::Lost => "lost",
        ExecutionState::Quarantined => "quarantined",
    }
}

fn left_out(nodes: &[Node], executions: &[Execution]) -> Family {
    let what = |word: &str| -> Labels { vec![("what", word.to_owned())] };
    let beyond = |count: usize, max: usize| Value::Whole(count.saturating_sub(max) as u64);
    Family::new(
        "sluice_metrics_left_out",
        Kind::Gauge,
        "Nodes and executions that have no numbers of their own, because they are too many",
    )
    .with(what("nodes"), beyond(nodes.len(), NODES_MAX))
    .with(what("executions"), beyond(executions.len(), EXECUTIONS_MAX))
}
