//! What an edge tells about itself in numbers: its session, its store, and each running job's records and guests.
//!
//! Everything is read when somebody asks ([`EdgeLook`]); names and units are listed in `METRICS.md`, which a test
//! compares with what comes out here. What has ended is gone from the numbers: its totals are in its reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_metrics::{Family, Kind, Labels, Timings, Value, render};
use sluice_model::{JobName, NodeName};

use crate::control::Control;
use crate::core::{EdgeCore, Event};
use crate::runner::{ERROR_KINDS, End, Metered, RunningExecution, Tally};

/// Jobs with numbers of their own: more than one machine runs at once. The rest is counted as left out.
const JOBS_MAX: usize = 1000;

/// How executions end, in the order of [`EdgeTally::ends`].
const ENDS: [&str; 5] = ["completed", "stopped", "failed", "backoff", "crashed"];

/// What the control thread counts, and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct EdgeTally {
    sessions_opened: AtomicU64,
    sessions_closed: AtomicU64,
    sessions_refused: AtomicU64,
    resyncs: AtomicU64,
    ends: [AtomicU64; ENDS.len()],
    /// Rounds of the control thread: deciding and committing what waited.
    pub(crate) rounds: Timings,
}

impl EdgeTally {
    /// Counts what the core says.
    pub(crate) fn note(&self, event: &Event) {
        let number = match event {
            Event::SessionOpen { .. } => &self.sessions_opened,
            Event::SessionClose { .. } => &self.sessions_closed,
            Event::SessionRefused { .. } => &self.sessions_refused,
            Event::LedgerResync { .. } => &self.resyncs,
            Event::SessionRenewOnly
            | Event::LedgerReceived { .. }
            | Event::LedgerObserved { .. }
            | Event::ExecutionState { .. }
            | Event::StoreTrouble { .. } => return,
        };
        number.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of an execution.
    pub(crate) fn note_end(&self, end: &End) {
        let at = match end {
            End::Completed => 0,
            End::Stopped | End::Cut => 1,
            End::Failed { .. } => 2,
            End::Backoff { .. } => 3,
            End::Crashed { .. } => 4,
        };
        self.ends[at].fetch_add(1, Ordering::Relaxed);
    }
}

/// What the control thread knows at one moment.
pub(crate) struct EdgeLook {
    pub(crate) connected: bool,
    pub(crate) disk_full: bool,
    pub(crate) desired_rev: u64,
    pub(crate) observed_rev: u64,
    pub(crate) executions: usize,
    pub(crate) running: Vec<(JobName, Arc<Tally>)>,
}

impl EdgeLook {
    /// What core and running executions say.
    pub(crate) fn of<'a>(
        core: &EdgeCore,
        running: impl Iterator<Item = &'a RunningExecution>,
    ) -> Self {
        Self {
            connected: core.session().is_some(),
            disk_full: core.waits_for_room(),
            desired_rev: core.desired_position().rev.0,
            observed_rev: core.observed_position().rev.0,
            executions: core.agent().labels().count(),
            running: running
                .map(|it| (it.plan().job.clone(), it.tally()))
                .collect(),
        }
    }
}

/// The text for one scrape; `None` when the control thread has ended.
pub(crate) async fn scrape(
    control: Control,
    tally: Arc<EdgeTally>,
    node: NodeName,
) -> Option<String> {
    let look = control.look().await?;
    Some(render(families(&look, &tally, &node)))
}

fn families(look: &EdgeLook, tally: &EdgeTally, node: &NodeName) -> Vec<Family> {
    let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let about = vec![
        ("node", node.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let mut ends = Family::new(
        "sluice_edge_execution_ends",
        Kind::Counter,
        "Ends of executions, by how they ended",
    );
    for (end, number) in ENDS.iter().zip(&tally.ends) {
        ends.push(vec![("end", (*end).to_owned())], Value::Whole(load(number)));
    }
    let mut all = vec![
        Family::new("sluice_edge_info", Kind::Gauge, "Always 1: who this is")
            .with(about, Value::Whole(1)),
        Family::gauge(
            "sluice_edge_connected",
            "1 while a session with the orchestrator lives",
            u64::from(look.connected),
        ),
        Family::counter(
            "sluice_edge_sessions_opened",
            "Sessions that began",
            load(&tally.sessions_opened),
        ),
        Family::counter(
            "sluice_edge_sessions_closed",
            "Sessions that ended",
            load(&tally.sessions_closed),
        ),
        Family::counter(
            "sluice_edge_sessions_refused",
            "Sessions that the orchestrator refused",
            load(&tally.sessions_refused),
        ),
        Family::counter(
            "sluice_edge_ledger_resyncs",
            "Times that assignments did not fit what is here and were asked for again",
            load(&tally.resyncs),
        ),
        Family::gauge(
            "sluice_edge_ledger_desired_revision",
            "Revision of the assignments on disk",
            look.desired_rev,
        ),
        Family::gauge(
            "sluice_edge_ledger_observed_revision",
            "Revision of the reports on disk",
            look.observed_rev,
        ),
        Family::gauge(
            "sluice_edge_disk_full",
            "1 while the store waits for room on the disk",
            u64::from(look.disk_full),
        ),
        Family::histogram(
            "sluice_edge_round_seconds",
            "Deciding and committing what waited together",
            tally.rounds.read(),
        ),
        Family::gauge(
            "sluice_edge_executions",
            "Executions that this edge is told of",
            look.executions as u64,
        ),
        Family::gauge(
            "sluice_edge_executions_running",
            "Executions with a live instance",
            look.running.len() as u64,
        ),
        ends,
    ];
    all.extend(job_families(look));
    all
}

/// A name without its `_total`, a kind, a help, and where the number comes from.
type Column = (&'static str, Kind, &'static str, fn(&Metered) -> Value);

const COLUMNS: [Column; 10] = [
    (
        "sluice_edge_records_in",
        Kind::Counter,
        "Records that inputs gave, rejected ones included",
        |job| Value::Whole(job.counters.records_in),
    ),
    (
        "sluice_edge_records_out",
        Kind::Counter,
        "Records that outputs accepted",
        |job| Value::Whole(job.counters.records_out),
    ),
    (
        "sluice_edge_bytes_in",
        Kind::Counter,
        "Bytes of records that inputs gave",
        |job| Value::Whole(job.bytes_in),
    ),
    (
        "sluice_edge_bytes_out",
        Kind::Counter,
        "Bytes of records that outputs accepted",
        |job| Value::Whole(job.bytes_out),
    ),
    (
        "sluice_edge_dead_letters",
        Kind::Counter,
        "Records set aside as dead letters",
        |job| Value::Whole(job.counters.dead_letters),
    ),
    (
        "sluice_edge_dead_letters_dropped",
        Kind::Counter,
        "Dead letters that made room for newer ones",
        |job| Value::Whole(job.counters.dead_letters_dropped),
    ),
    (
        "sluice_edge_retries",
        Kind::Counter,
        "Calls repeated because a stage asked for it",
        |job| Value::Whole(job.counters.retries),
    ),
    (
        "sluice_edge_log_lines_dropped",
        Kind::Counter,
        "Log lines and stdout records that found no room",
        |job| Value::Whole(job.counters.log_lines_dropped),
    ),
    (
        "sluice_edge_guest_cpu_seconds",
        Kind::Counter,
        "CPU time of guest threads in the job's stages",
        |job| Value::Real(job.guest_cpu_nanos as f64 / 1e9),
    ),
    (
        "sluice_edge_guest_memory_bytes",
        Kind::Gauge,
        "WebAssembly memory of the job's stages after their last turn",
        |job| Value::Whole(job.guest_memory_bytes),
    ),
];

/// Numbers of each job that runs here.
fn job_families(look: &EdgeLook) -> Vec<Family> {
    let mut jobs: BTreeMap<&JobName, Metered> = BTreeMap::new();
    for (job, tally) in &look.running {
        jobs.entry(job).or_default().merge(&tally.metered());
    }
    let left_out = jobs.len().saturating_sub(JOBS_MAX);
    let labels = |job: &JobName| -> Labels { vec![("job", job.to_string())] };
    let mut all = Vec::new();
    for (name, kind, help, value) in COLUMNS {
        let mut family = Family::new(name, kind, help);
        for (job, metered) in jobs.iter().take(JOBS_MAX) {
            family.push(labels(job), value(metered));
        }
        all.push(family);
    }
    let mut errors = Family::new(
        "sluice_edge_record_errors",
        Kind::Counter,
        "Dead letters since the execution's start, by what the record died of",
    );
    let mut batches = Family::new(
        "sluice_edge_batch_seconds",
        Kind::Histogram,
        "Batches through all stages of the job",
    );
    for (job, metered) in jobs.iter().take(JOBS_MAX) {
        for (kind, number) in ERROR_KINDS.iter().zip(metered.errors) {
            // Most never happen, and cost nothing until they do.
            if number > 0 {
                let mut labels = labels(job);
                labels.push(("kind", (*kind).to_owned()));
                errors.push(labels, Value::Whole(number));
            }
        }
        batches.push(labels(job), Value::Timed(metered.batches.clone()));
    }
    all.push(errors);
    all.push(batches);
    all.push(Family::gauge(
        "sluice_edge_metrics_left_out",
        "Jobs that run here and have no numbers above, because they are too many",
        left_out as u64,
    ));
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn jobs_beyond_the_bound_are_counted_and_of_one_name_added_up() {
        let tally = Arc::new(Tally::default());
        tally.resume(&crate::runner::Counters {
            records_in: 3,
            ..Default::default()
        });
        let name = |number: usize| -> JobName { format!("j{number}").parse().unwrap() };
        let mut running: Vec<_> = (0..JOBS_MAX + 2)
            .map(|number| (name(number), Arc::clone(&tally)))
            .collect();
        running.push((name(0), tally));
        let look = EdgeLook {
            connected: true,
            disk_full: false,
            desired_rev: 4,
            observed_rev: 5,
            executions: running.len(),
            running,
        };
        let text = render(families(
            &look,
            &EdgeTally::default(),
            &"e1".parse().unwrap(),
        ));
        let line = |line: &str| assert!(text.lines().any(|it| it == line), "{line}");
        line("sluice_edge_records_in_total{job=\"j0\"} 6");
        line("sluice_edge_records_in_total{job=\"j1\"} 3");
        line("sluice_edge_metrics_left_out 2");
        line("sluice_edge_execution_ends_total{end=\"crashed\"} 0");
        let series = text.matches("sluice_edge_records_in_total{").count();
        assert_eq!(series, JOBS_MAX);
    }
}
