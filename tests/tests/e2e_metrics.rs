//! The numbers of both programs, read as Prometheus reads them.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use sluice_api::Execution;
use sluice_tests::e2e::pipelines::{PipelineText, plugin, repository};
use sluice_tests::e2e::{Cluster, ClusterOptions, JsonLog, wait};

/// One scrape: the kinds by family, and the numbers by name with labels.
struct Scraped {
    kinds: BTreeMap<String, String>,
    numbers: BTreeMap<String, f64>,
}

impl Scraped {
    fn of(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let (_, text) = answer.split_once("\r\n\r\n").unwrap();
        let (mut kinds, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(facts) = line.strip_prefix("# TYPE ") {
                let (name, kind) = facts.split_once(' ').unwrap();
                kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, number) = line.rsplit_once(' ').unwrap();
                let before = numbers.insert(name.to_owned(), number.parse().unwrap());
                assert_eq!(before, None, "{name} is there twice");
            }
        }
        Self { kinds, numbers }
    }

    #[track_caller]
    fn number(&self, name: &str) -> f64 {
        match self.numbers.get(name) {
            Some(number) => *number,
            None => panic!("no {name} in {:#?}", self.numbers),
        }
    }
}

fn address(log: &JsonLog) -> SocketAddr {
    let events = log.events("metrics.ready");
    let last = events.last().unwrap();
    last["address"].as_str().unwrap().parse().unwrap()
}

/// Name and kind of each row of a table in `METRICS.md`.
fn documented(section: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(repository().join("METRICS.md")).unwrap();
    let (_, after) = text.split_once(&format!("\n## {section}\n")).unwrap();
    let section = after.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    });
    rows.collect()
}

fn listed(cluster: &Cluster, job: &str) -> Execution {
    let listed = cluster.sluice(&["execution", "list", "--job", job, "--output", "json"]);
    let mut listed: Vec<Execution> = listed.json();
    assert_eq!(listed.len(), 1);
    listed.remove(0)
}

#[test]
fn both_programs_tell_what_the_document_lists_and_what_the_command_line_shows() {
    let options = ClusterOptions {
        metrics: true,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(options, &[]);
    cluster.join_with(&["e1"], &["--metrics", "127.0.0.1:0"]);
    let orchestrator = address(&cluster.log());
    let edge = address(&cluster.edge_log("e1"));

    let ended = PipelineText::steady("ended")
        .generate("", 1000)
        .output("ended.txt");
    cluster.deploy(&ended);
    cluster.wait_execution("ended", "e1", "completed", |execution| {
        execution.state.as_str() == "completed"
    });
    let steady = PipelineText::steady("steady")
        .generate("1ms", 0)
        .stage("all", &plugin("filter_contains"), r#"{ contains = "seq" }"#)
        .output("steady.txt");
    cluster.deploy(&steady);
    cluster.wait_running("steady", "e1");
    cluster.wait_lines("e1", "steady.txt", 100);

    // Every family of both programs is in the document, and the other way round.
    let (here, there) = (Scraped::of(orchestrator), Scraped::of(edge));
    assert_eq!(here.kinds, documented("Orchestrator"));
    assert_eq!(there.kinds, documented("Edge"));

    // What has ended: the same numbers as the command line's, and none on the edge.
    let shown = listed(&cluster, "ended");
    assert_eq!(shown.records_in, 1000);
    for (name, number) in [
        ("records_in", shown.records_in),
        ("records_out", shown.records_out),
        ("dead_letters", shown.dead_letters),
    ] {
        let name = format!("sluice_execution_{name}_total{{job=\"ended\",node=\"e1\"}}");
        wait::until(&format!("{name} to be {number}"), || {
            let seen = Scraped::of(orchestrator).number(&name);
            wait::check(seen == number as f64, || seen.to_string())
        });
    }
    assert!(!there.numbers.keys().any(|name| name.contains("\"ended\"")));
    assert_eq!(
        there.number("sluice_edge_execution_ends_total{end=\"completed\"}"),
        1.0
    );

    // What runs: the edge is ahead of the command line, which catches up; everything only grows.
    let mut before = listed(&cluster, "steady").records_in as f64;
    for _ in 0..2 {
        wait::until("both sides to go on", || {
            let seen = Scraped::of(edge).number("sluice_edge_records_in_total{job=\"steady\"}");
            wait::check(seen > before, || format!("{seen} after {before}"))?;
            let told = Scraped::of(orchestrator)
                .number("sluice_execution_records_in_total{job=\"steady\",node=\"e1\"}");
            wait::check(told > before, || format!("{told} after {before}"))?;
            before = told;
            Ok(())
        });
        assert!(listed(&cluster, "steady").records_in as f64 >= before);
    }
    let (here, there) = (Scraped::of(orchestrator), Scraped::of(edge));
    for positive in [
        "sluice_edge_bytes_in_total{job=\"steady\"}",
        "sluice_edge_bytes_out_total{job=\"steady\"}",
        "sluice_edge_guest_cpu_seconds_total{job=\"steady\"}",
        "sluice_edge_guest_memory_bytes{job=\"steady\"}",
        "sluice_edge_batch_seconds_count{job=\"steady\"}",
        "sluice_edge_round_seconds_count",
    ] {
        assert!(there.number(positive) > 0.0, "{positive}");
    }
    assert_eq!(there.number("sluice_edge_connected"), 1.0);
    assert_eq!(there.number("sluice_edge_executions_running"), 1.0);
    for (name, number) in [
        ("sluice_nodes{state=\"connected\"}", 1.0),
        ("sluice_node_connected{node=\"e1\"}", 1.0),
        ("sluice_node_ledger_lag_revisions{node=\"e1\"}", 0.0),
        ("sluice_executions{job=\"steady\",state=\"running\"}", 1.0),
        ("sluice_joins_total", 1.0),
        ("sluice_sessions_opened_total", 1.0),
        ("sluice_store_disk_full", 0.0),
    ] {
        assert_eq!(here.number(name), number, "{name}");
    }
    for positive in [
        "sluice_evaluations_total",
        "sluice_plan_changes_total",
        "sluice_assignment_ack_seconds_count",
        "sluice_round_seconds_count",
        "sluice_node_certificate_expiry_timestamp_seconds{node=\"e1\"}",
    ] {
        assert!(here.number(positive) > 0.0, "{positive}");
    }

    // An output of a task is pulled, and counted.
    let deployed = cluster.try_deploy(
        "name = \"report\"\nkind = \"batch\"\n[input.generate]\ncount = 1\ntemplate = \"text\"\n[output.stdout]\n",
    );
    assert_eq!(deployed.code, 0, "{deployed:?}");
    let launched = cluster.sluice(&["run", "launch", "report"]);
    assert_eq!(launched.code, 0, "{launched:?}");
    wait::until("its output to be held", || {
        let held = Scraped::of(orchestrator).number("sluice_outputs{state=\"held\"}");
        wait::check(held == 1.0, || held.to_string())
    });
    for (name, number) in [
        ("sluice_outputs{state=\"lacking\"}", 0.0),
        ("sluice_outputs{state=\"gone\"}", 0.0),
        ("sluice_outputs_held_bytes", 5.0),
        ("sluice_output_pull_failures_total", 0.0),
    ] {
        assert_eq!(Scraped::of(orchestrator).number(name), number, "{name}");
    }
    wait::until("its pull to be counted", || {
        let pulls = Scraped::of(orchestrator).number("sluice_output_pulls_total");
        wait::check(pulls == 1.0, || pulls.to_string())
    });

    // What is gone has no numbers.
    cluster.sluice(&["job", "delete", "steady", "--yes"]);
    wait::until("the job's numbers to be gone", || {
        let left = |scraped: &Scraped| -> BTreeSet<String> {
            let names = scraped.numbers.keys();
            names
                .filter(|name| name.contains("\"steady\""))
                .cloned()
                .collect()
        };
        let (here, there) = (Scraped::of(orchestrator), Scraped::of(edge));
        let left: BTreeSet<String> = left(&here).union(&left(&there)).cloned().collect();
        wait::check(left.is_empty(), || format!("{left:?}"))
    });

    // The edge keeps where it tells them, and what it was not told of meanwhile shows as a lag.
    cluster.kill_edge("e1");
    cluster.deploy(&PipelineText::steady("later"));
    wait::until("the ledger to lag", || {
        let lag = "sluice_node_ledger_lag_revisions{node=\"e1\"}";
        let lag = Scraped::of(orchestrator).number(lag);
        wait::check(lag > 0.0, || lag.to_string())
    });
    let mark = cluster.edge_log("e1").mark();
    cluster.start_edge("e1");
    wait::until("the edge to tell its numbers again", || {
        let ready = cluster.edge_log("e1").events_since(mark, "metrics.ready");
        wait::check(!ready.is_empty(), || "not yet".to_owned())
    });
}

#[test]
fn what_goes_wrong_with_records_is_counted_by_its_kind() {
    let mut cluster = Cluster::start(&[]);
    cluster.join_with(&["e1"], &["--metrics", "127.0.0.1:0"]);
    let edge = address(&cluster.edge_log("e1"));
    let hostile = |job: &str, config: &str| {
        PipelineText::steady(job)
            .template("10ms", 0, "poison ${seq}")
            .stage("bad", &plugin("hostile"), config)
    };
    cluster.deploy(&hostile("rejects", "{ do = \"reject-all\" }"));
    cluster.deploy(&hostile("traps", "{ do = \"trap-on\" }"));
    cluster.deploy(&hostile("retries", "{ do = \"retry\", count = 1 }"));
    for name in [
        "sluice_edge_record_errors_total{job=\"rejects\",kind=\"reject\"}",
        "sluice_edge_dead_letters_total{job=\"rejects\"}",
        "sluice_edge_record_errors_total{job=\"traps\",kind=\"trap\"}",
        "sluice_edge_dead_letters_total{job=\"traps\"}",
        "sluice_edge_retries_total{job=\"retries\"}",
    ] {
        wait::until(&format!("{name} to count"), || {
            let seen = Scraped::of(edge).numbers.get(name).copied();
            wait::check(seen.is_some_and(|seen| seen > 0.0), || format!("{seen:?}"))
        });
    }
}
