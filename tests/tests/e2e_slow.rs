//! Links that are slow or lose much, with real processes: cases 55 and 62 of the failure matrix.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::time::Duration;

use sluice_model::{Digest, ExecutionState};
use sluice_tests::e2e::pipelines::{PipelineText, padded_component, plugin};
use sluice_tests::e2e::{Cluster, ClusterOptions, Conditions, wait};

/// 8 kbit/s and a heartbeat every 5 s, three times as fast.
const SLOW_BYTES_PER_SECOND: u32 = 3000;
const HEARTBEAT: Duration = Duration::from_millis(1667);

/// A component that takes 16 s over it, and a text that takes 10: each longer than three heartbeats.
const PADDING_BYTES: usize = 32_000;
const TEXT_BYTES: usize = 30_000;

#[test]
fn case_62_neither_a_component_nor_a_long_text_starves_the_heartbeats_of_a_slow_link() {
    let options = ClusterOptions {
        heartbeat: HEARTBEAT,
        linked: true,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(options, &["e1"]);
    let component = std::fs::read(plugin("identity")).unwrap();
    let component = padded_component(&component, 62, PADDING_BYTES);
    let path = cluster.root().join("identity-62.wasm");
    std::fs::write(&path, &component).unwrap();
    let digest = Digest::of(&component);

    let slow = Conditions {
        bytes_per_second: Some(SLOW_BYTES_PER_SECOND),
        ..Conditions::default()
    };
    cluster.link().set(slow, slow);
    let mark = cluster.edge_log("e1").mark();
    let mut text = PipelineText::steady("slow").stage("s", &path, "{}").text();
    while text.len() < TEXT_BYTES {
        let length = text.len();
        writeln!(text, "# a comment at {length}, which is sent with the rest").unwrap();
    }
    assert_eq!(cluster.try_deploy(&text).code, 0);

    let limit = Duration::from_secs(120);
    let told = wait::within(limit, "the download's progress", || {
        let reason = cluster.execution("slow", "e1").reason.unwrap_or_default();
        let told = reason.contains("fetching ") && reason.contains(" %");
        wait::check(told, || reason.clone()).map(|()| reason)
    });
    wait::within(limit, "the work to run", || {
        let now = cluster.execution("slow", "e1");
        wait::check(now.state == ExecutionState::Running, || format!("{now:?}"))
    });
    assert!(told.contains("still to come: 1"), "{told}");
    let pulled = format!("artifacts/{}.wasm", digest.to_hex());
    assert!(cluster.edge_state("e1").join(pulled).is_file());
    for log in [cluster.log(), cluster.edge_log("e1")] {
        let closed = log.events("session.close");
        assert!(closed.is_empty(), "{closed:?}");
    }
    let opened = cluster.edge_log("e1").events_since(mark, "session.open");
    assert!(opened.is_empty(), "the session lived on: {opened:?}");
}

#[test]
fn case_55_with_a_third_of_the_packets_lost_both_ends_become_equal() {
    let options = ClusterOptions {
        heartbeat: Duration::from_secs(5),
        linked: true,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(options, &["e1"]);
    let bad = Conditions {
        delay: Duration::from_millis(100),
        lost_percent: 30,
        ..Conditions::default()
    };
    cluster.link().set(bad, bad);
    for job in ["one", "two", "three"] {
        cluster.deploy(&PipelineText::steady(job));
    }
    wait::within(Duration::from_secs(30), "both ends to be equal", || {
        let node = cluster.api().node("e1").map_err(|it| it.to_string())?;
        let jobs = cluster.api().jobs().map_err(|it| it.to_string())?;
        let equal = node.received_rev == node.desired_rev && node.desired_rev.0 >= 3;
        let run = jobs.iter().filter(|job| job.running == 1).count();
        wait::check(equal && run == 3, || format!("{run} run, {node:?}"))
    });
    let traffic = cluster.link().traffic();
    assert!(
        traffic.up.dropped > 0 && traffic.down.dropped > 0,
        "nothing was lost: {traffic:?}"
    );
}
