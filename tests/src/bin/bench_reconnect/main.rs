//! How long an edge needs to be back: from `connect()` to the orchestrator's Welcome, through the proxy of the tests at 100 ms
//! round trip, against a real orchestrator that is killed and started again.
//!
//! A full handshake needs two round trips, a resumed one with its Hello as early data one; the columns beside the times say
//! how many round trips it was, and what part of a full handshake. Build it with `--release`, and the programs too.
//! Arguments: `[--runs N]`. Ends with 1 when less than 99 % of the early data was accepted, or when it takes more
//! round trips than it should.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sluice_tests::e2e::{BareEdge, BareSession, Cluster, ClusterOptions, Conditions};
use sluice_transport::{EarlyData, SessionError};

const RUNS_DEFAULT: usize = 40;
const ONE_WAY: Duration = Duration::from_millis(50);
/// Longer than a run takes, so that no heartbeat of the orchestrator's own rules has a part in it.
const HEARTBEAT: Duration = Duration::from_secs(20);
const ACCEPTED_PERCENT_MIN: usize = 99;
/// Round trips of a full handshake with a Hello behind it, and half of one for what a machine does meanwhile.
const FIRST_ROUND_TRIPS_MAX: f64 = 2.5;
/// The same where the Hello is early data.
const AGAIN_ROUND_TRIPS_MAX: f64 = 1.3;

/// All runs of one kind.
struct Row {
    what: &'static str,
    took: Vec<Duration>,
    /// Early data accepted; `None` where there is none to send.
    accepted: Option<usize>,
}

impl Row {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            took: Vec::new(),
            accepted: None,
        }
    }

    fn add(&mut self, session: &BareSession) {
        self.took.push(session.took);
        let accepted = usize::from(session.early == EarlyData::Accepted);
        self.accepted = Some(self.accepted.unwrap_or(0) + accepted);
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.took.clone();
        sorted.sort();
        let index = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted[index].as_secs_f64() * 1000.0
    }
}

fn main() -> Result<()> {
    let runs = runs(std::env::args().skip(1))?;
    let options = ClusterOptions {
        heartbeat: HEARTBEAT,
        linked: true,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(options, &[]);
    let conditions = Conditions {
        delay: ONE_WAY,
        ..Conditions::default()
    };
    cluster.link().set(conditions, conditions);
    let token = cluster.token();

    let mut join = Row::new("join with a token");
    let mut full = Row::new("first connection, full handshake");
    let mut back = None;
    for run in 0..runs {
        let begun = Instant::now();
        let mut edge = BareEdge::join(&token, &format!("bench-{run}"))?;
        join.took.push(begun.elapsed());
        let mut session = edge.connect()?;
        edge.begin(&mut session)?;
        full.took.push(session.took);
        back = Some((edge, session));
    }
    let (mut edge, mut session) = back.context("at least one run")?;

    let mut again = Row::new("reconnect, the connection was lost");
    for _ in 0..runs {
        edge.close(session);
        session = edge.connect()?;
        again.add(&session);
        edge.begin(&mut session)?;
    }

    let mut noticed = Row::new("kill -9 and restart: noticed");
    let mut restarted = Row::new("kill -9 and restart: reconnect");
    for _ in 0..runs {
        cluster.kill_orchestrator();
        cluster.start_orchestrator();
        let begun = Instant::now();
        ensure!(
            edge.heartbeat(&mut session).is_err(),
            "a new process knew the session of the old one"
        );
        noticed.took.push(begun.elapsed());
        let why = edge.wait_end(&session)?;
        ensure!(why == SessionError::Reset, "it ended otherwise: {why}");
        session = edge.connect()?;
        restarted.add(&session);
        edge.begin(&mut session)?;
    }

    let rows = [join, full, again, noticed, restarted];
    print(&rows);
    for (row, round_trips_max) in [
        (&rows[1], FIRST_ROUND_TRIPS_MAX),
        (&rows[2], AGAIN_ROUND_TRIPS_MAX),
        (&rows[4], AGAIN_ROUND_TRIPS_MAX),
    ] {
        let round_trips = row.percentile(50) / round_trip_ms();
        ensure!(
            round_trips <= round_trips_max,
            "{}: {round_trips:.2} round trips, at most {round_trips_max} are right",
            row.what
        );
    }
    for row in &rows {
        if let Some(accepted) = row.accepted {
            ensure!(
                accepted * 100 >= row.took.len() * ACCEPTED_PERCENT_MIN,
                "{}: early data was accepted {accepted} times of {}",
                row.what,
                row.took.len()
            );
        }
    }
    Ok(())
}

fn round_trip_ms() -> f64 {
    2.0 * ONE_WAY.as_secs_f64() * 1000.0
}

fn print(rows: &[Row]) {
    let round_trip = round_trip_ms();
    let full = rows[1].percentile(50);
    println!(
        "{:<36} {:>5} {:>9} {:>9} {:>12} {:>8} {:>12}",
        "what", "runs", "p50 ms", "p95 ms", "round trips", "of full", "early data"
    );
    for row in rows {
        let (half, most) = (row.percentile(50), row.percentile(95));
        let early = match row.accepted {
            Some(accepted) => format!("{accepted} of {}", row.took.len()),
            None => "-".to_owned(),
        };
        println!(
            "{:<36} {:>5} {half:>9.1} {most:>9.1} {:>12.2} {:>8.2} {early:>12}",
            row.what,
            row.took.len(),
            half / round_trip,
            half / full,
        );
    }
}

fn runs(mut arguments: impl Iterator<Item = String>) -> Result<usize> {
    match (
        arguments.next().as_deref(),
        arguments.next(),
        arguments.next(),
    ) {
        (None, ..) => Ok(RUNS_DEFAULT),
        (Some("--runs"), Some(number), None) => match number.parse() {
            Ok(0) | Err(_) => bail!("--runs wants a number from 1"),
            Ok(runs) => Ok(runs),
        },
        _ => bail!("arguments: [--runs N]"),
    }
}
