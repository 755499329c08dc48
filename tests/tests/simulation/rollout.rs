//! Rollouts: a bad version stops at its first nodes and is undone by itself; nodes that are away take no room.

use std::collections::BTreeMap;

use sluice_api::{NodeOrder, RolloutOrder};
use sluice_host::core::{ApiCall, Reply};
use sluice_host::store::Store as _;
use sluice_model::{Desired, NodeState, RolloutPhase};
use sluice_tests::sim::{Content, World, play};

/// The longest that any rollout here may take.
const ROLLED_WITHIN_MS: u64 = 20 * 60_000;

const OLD: Content = Content::Steady(1);
const NEW: Content = Content::Steady(2);

/// What stands behind `[select]` in a pipeline: every node of the site, and these rules.
fn on_site(rules: &str) -> String {
    format!("site = \"a\"\n[rollout]\n{rules}")
}

fn canary() -> String {
    on_site("canary = 1")
}

/// Lines of the smallest usual terminal.
const SCREEN_LINES: usize = 24;

/// What an operator sees of a job's rollout: the report of it, and with what else there is. `scripts/scenarios/rollout` prints it.
#[allow(clippy::print_stderr, reason = "it is what the scenario shows")]
fn show(world: &mut World, job: &str) -> (String, String) {
    let rollout = sluice_cli::screens::rollout_status(&world.rollout(job));
    let history = match world.ask(ApiCall::History(job.parse().unwrap())) {
        Ok(Reply::History(versions)) => sluice_cli::screens::job_history(&versions),
        other => panic!("{other:?}"),
    };
    let detail = match world.ask(ApiCall::Job(job.parse().unwrap())) {
        Ok(Reply::JobDetail(detail)) => sluice_cli::screens::job_describe(&detail),
        other => panic!("{other:?}"),
    };
    // The rest lists its executions and its text.
    let head = detail.split("\n\n").next().unwrap_or_default();
    let told = format!(
        "$ sluice rollout status {job}\n{rollout}\n$ sluice job history {job}\n{history}\n$ sluice job describe {job}\n{head}\n..."
    );
    eprintln!("\n{told}\n");
    (rollout, told)
}

fn await_phase(world: &mut World, job: &str, phase: RolloutPhase) {
    let end = world.now_ms() + ROLLED_WITHIN_MS;
    loop {
        let rollout = world.rollout(job);
        if rollout.phase == phase {
            return;
        }
        assert!(world.now_ms() < end, "never {phase}: {rollout:#?}");
        world.run_for(1_000);
    }
}

/// How many rows of a job stand at each version.
fn rows(world: &mut World, job: &str) -> BTreeMap<u64, usize> {
    let id = world.job(job).id;
    let executions = world
        .orchestrator
        .look(|store| store.executions_of_job(id))
        .unwrap();
    let mut rows = BTreeMap::new();
    for execution in executions {
        *rows.entry(execution.version.0).or_default() += 1;
    }
    rows
}

fn fleet(nodes: usize) -> Vec<String> {
    (0..nodes).map(|n| format!("e{n:02}")).collect()
}

fn on_fleet(nodes: usize, script: impl FnOnce(&mut World)) {
    let names = fleet(nodes);
    let edges: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "a")).collect();
    play(&edges, script);
}

#[test]
fn case_82_a_bad_version_on_fifty_edges_stops_at_the_canary_and_is_undone() {
    on_fleet(50, |world| {
        world.deploy("job", OLD, &canary());
        await_phase(world, "job", RolloutPhase::Done);
        let starts: Vec<u64> = (0..50).map(|edge| world.starts(edge, "job")).collect();
        assert_eq!(starts, [1; 50]);
        for away in 40..45 {
            world.send_away(away);
        }
        let sent: Vec<u64> = (0..50).map(|edge| world.rows_sent(edge)).collect();

        // It starts, and crashes again and again.
        world.deploy("job", Content::Crashes(2), &canary());
        let mut most = 0;
        while world.rollout("job").phase != RolloutPhase::RolledBack {
            most = most.max(rows(world, "job").get(&2).copied().unwrap_or(0));
            world.run_for(1_000);
            assert!(world.now_ms() < 2 * ROLLED_WITHIN_MS, "it is never undone");
        }
        assert_eq!(most, 1, "one node had the bad version");
        assert_eq!(rows(world, "job"), BTreeMap::from([(1, 49), (3, 1)]));
        world.await_running(0, "job", OLD);
        for (edge, &sent) in sent.iter().enumerate().skip(1) {
            assert_eq!(world.starts(edge, "job"), 1, "e{edge:02} ran on");
            assert_eq!(world.rows_sent(edge), sent, "e{edge:02} was told nothing");
        }

        // The report is one screen, and says where, why, and what came of it.
        let report = world.rollout("job");
        assert_eq!(report.reason.as_deref(), Some("e00: crashed: it hit a bug"));
        assert_eq!(
            (report.failures.len(), report.restored_by.unwrap().0),
            (1, 3)
        );
        let story: Vec<&str> = report
            .events
            .iter()
            .map(|event| event.what.as_str())
            .collect();
        assert_eq!(
            story,
            [
                "version 2 begins: 1 canary first, then 10% at a time; version 1 is the good one",
                "e00 gets version 2",
                "e00 failed: crashed: it hit a bug",
                "rolled-back: e00: crashed: it hit a bug",
                "version 3 is version 1 again",
            ]
        );
        assert_eq!(world.job("job").version.0, 3);
        let (report, told) = show(world, "job");
        assert!(report.lines().count() <= SCREEN_LINES, "{report}");
        for part in [
            "version 1 -> version 2 -> version 3, the old content again",
            "e00 failed: crashed: it hit a bug",
            "rollback to 1: the rollout of version 2: e00: crashed: it hit a bug",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }

        // Who was away never hears of it.
        for away in 40..45 {
            world.bring_back(away);
        }
        world.run_for(60_000);
        assert_eq!(rows(world, "job"), BTreeMap::from([(1, 49), (3, 1)]));
        for away in 40..45 {
            assert_eq!(world.starts(away, "job"), 1);
        }

        // What cannot even be configured stops there too, and a good version gets everywhere.
        world.deploy("job", Content::Misconfigured(3), &canary());
        await_phase(world, "job", RolloutPhase::RolledBack);
        let report = world.rollout("job");
        assert!(
            report
                .reason
                .as_deref()
                .unwrap()
                .starts_with("e00: failed/configure"),
            "{report:#?}"
        );
        assert_eq!(world.running(0, "job"), Some(OLD));
        world.deploy("job", NEW, &canary());
        await_phase(world, "job", RolloutPhase::Done);
        for edge in 0..50 {
            world.await_running(edge, "job", NEW);
        }
    });
}

#[test]
fn a_version_that_spoils_its_records_is_undone_and_the_one_that_mends_it_is_not() {
    on_fleet(3, |world| {
        // Who looks at no records takes the spoiler for good.
        world.deploy("job", Content::Spoils(1), &canary());
        await_phase(world, "job", RolloutPhase::Done);
        let rules = on_site("canary = 1\nmin_healthy = \"1s\"\nerror_rate_max = 0.01");
        // The one that mends it is not judged by the records of the one before.
        world.deploy("job", OLD, &rules);
        await_phase(world, "job", RolloutPhase::Done);
        for edge in 0..3 {
            assert_eq!(world.running(edge, "job"), Some(OLD));
        }
        // One whose records all die is undone by its canary, however soon the others would follow.
        world.deploy("job", Content::Spoils(2), &rules);
        await_phase(world, "job", RolloutPhase::RolledBack);
        let report = world.rollout("job");
        let reason = report.reason.as_deref().unwrap();
        assert!(reason.contains("records became dead letters"), "{reason}");
        assert_eq!(rows(world, "job"), BTreeMap::from([(2, 2), (4, 1)]));
        world.await_running(0, "job", OLD);
        world.deploy("job", NEW, &rules);
        // The orchestrator that comes back in its middle has heard no counters, and takes none for all.
        world.await_running(0, "job", NEW);
        world.crash_host("to see what it judges without its memory", 1_000);
        world.run_for(2_000);
        await_phase(world, "job", RolloutPhase::Done);
        for edge in 0..3 {
            world.await_running(edge, "job", NEW);
        }
    });
}

#[test]
fn more_than_ten_nodes_are_never_reached_at_once() {
    on_fleet(12, |world| {
        world.deploy("job", OLD, "");
        let mut most = 0;
        let mut before = 0;
        while world.rollout("job").phase != RolloutPhase::Done {
            let now: usize = rows(world, "job").values().sum();
            most = most.max(now - before);
            before = now;
            world.run_for(200);
            assert!(world.now_ms() < ROLLED_WITHIN_MS, "it never ends");
        }
        assert_eq!((most, before), (2, 12));
        // The first version of all has nothing to go back to: it stops, and a better one goes on.
        world.deploy("other", Content::Misconfigured(1), "");
        await_phase(world, "other", RolloutPhase::Paused);
        world.run_for(600_000);
        assert_eq!(rows(world, "other"), BTreeMap::from([(1, 2)]));
        world.deploy("other", NEW, "");
        await_phase(world, "other", RolloutPhase::Done);
        assert_eq!(rows(world, "other"), BTreeMap::from([(2, 12)]));
    });
}

#[test]
fn case_88_nodes_that_are_away_take_no_room() {
    on_fleet(5, |world| {
        let rules = on_site("max_parallel = 1");
        world.deploy("job", OLD, &rules);
        await_phase(world, "job", RolloutPhase::Done);
        for away in 0..3 {
            world.send_away(away);
        }
        world.deploy("job", NEW, &rules);
        await_phase(world, "job", RolloutPhase::Done);
        for edge in 0..3 {
            assert_eq!(
                world.running(edge, "job"),
                Some(OLD),
                "it is away, and runs on"
            );
        }
        for edge in 3..5 {
            assert_eq!(world.running(edge, "job"), Some(NEW));
        }
        for away in 0..3 {
            world.bring_back(away);
            world.await_running(away, "job", NEW);
        }
    });
}

#[test]
fn case_91_paused_then_edges_reconnect_and_nothing_starts() {
    on_fleet(6, |world| {
        let rules = on_site("canary = 1\nmax_parallel = 2");
        world.deploy("job", OLD, &rules);
        await_phase(world, "job", RolloutPhase::Done);
        for away in 3..6 {
            world.send_away(away);
        }
        world.deploy("job", NEW, &rules);
        world.await_running(0, "job", NEW);
        world.order_rollout("job", RolloutOrder::Pause);
        for away in 3..6 {
            world.bring_back(away);
        }
        world.crash_host("to see whether it remembers the pause", 1_000);
        world.run_for(600_000);
        assert_eq!(rows(world, "job"), BTreeMap::from([(1, 5), (2, 1)]));
        let starts: Vec<u64> = (0..6).map(|edge| world.starts(edge, "job")).collect();
        assert_eq!(starts, [2, 1, 1, 1, 1, 1]);
        let waits = world.execution("job", 4).unwrap();
        assert_eq!(
            waits.reason.as_deref(),
            Some("on version 1, waits for its turn in the rollout of version 2")
        );
        assert_eq!(
            waits.next_action.as_deref(),
            Some("when an operator resumes the rollout")
        );
        world.order_rollout("job", RolloutOrder::Resume);
        await_phase(world, "job", RolloutPhase::Done);
        assert_eq!(rows(world, "job"), BTreeMap::from([(2, 6)]));
    });
}

#[test]
fn an_operator_ends_a_rollout_either_way() {
    on_fleet(4, |world| {
        world.deploy("job", OLD, &canary());
        await_phase(world, "job", RolloutPhase::Done);
        world.deploy("job", NEW, &canary());
        world.await_running(0, "job", NEW);
        world.order_rollout("job", RolloutOrder::Abort);
        world.await_running(0, "job", OLD);
        assert_eq!(rows(world, "job"), BTreeMap::from([(1, 3), (3, 1)]));
        world.deploy("job", Content::Steady(3), &canary());
        world.order_rollout("job", RolloutOrder::Promote);
        for edge in 0..4 {
            world.await_running(edge, "job", Content::Steady(3));
        }
        assert_eq!(rows(world, "job"), BTreeMap::from([(4, 4)]));
    });
}

#[test]
fn a_node_that_joins_meanwhile_gets_the_good_version_and_then_its_turn() {
    on_fleet(3, |world| {
        let rules = on_site("canary = 1\nmin_healthy = \"60s\"");
        world.deploy("job", OLD, &rules);
        await_phase(world, "job", RolloutPhase::Done);
        world.deploy("job", NEW, &rules);
        world.await_running(0, "job", NEW);
        let late = world.add_edge("late", &[("site", "a")]);
        world.await_running(late, "job", OLD);
        await_phase(world, "job", RolloutPhase::Done);
        world.await_running(late, "job", NEW);
    });
}

#[test]
fn a_newer_version_takes_over_and_the_proven_one_stays_the_good_one() {
    on_fleet(3, |world| {
        world.deploy("job", OLD, &canary());
        await_phase(world, "job", RolloutPhase::Done);
        world.deploy("job", NEW, &canary());
        world.await_running(0, "job", NEW);
        // Until it has said so it is not known to be better than the others.
        world.run_for(1_000);
        world.deploy("job", Content::Misconfigured(3), &canary());
        await_phase(world, "job", RolloutPhase::RolledBack);
        // Nothing has proven version 2: all go back to version 1's content.
        for edge in 0..3 {
            world.await_running(edge, "job", OLD);
        }
        assert_eq!(world.node(0).state, NodeState::Connected);
        assert_eq!(rows(world, "job"), BTreeMap::from([(1, 2), (4, 1)]));
    });
}

#[test]
fn case_90_a_drain_during_a_rollout_and_while_a_node_is_away() {
    on_fleet(4, |world| {
        world.deploy("job", OLD, &canary());
        await_phase(world, "job", RolloutPhase::Done);
        world.send_away(3);
        world.deploy("job", NEW, &canary());
        world.await_running(0, "job", NEW);
        // The canary is drained before it proved anything: the next node is the canary.
        world.order_node(0, NodeOrder::Drain);
        world.order_node(3, NodeOrder::Drain);
        world.await_running(1, "job", NEW);
        assert_eq!(world.running(2, "job"), Some(OLD));
        await_phase(world, "job", RolloutPhase::Done);
        world.await_running(2, "job", NEW);
        assert_eq!(world.running(0, "job"), None, "it is drained");
        assert_eq!(world.rollout("job").nodes.matching, 2);
        // Who is away stops when it returns, and says so until then.
        let waits = world.execution("job", 3).unwrap();
        assert_eq!(waits.desired, Desired::Stop);
        assert_eq!(
            waits.next_action.as_deref(),
            Some("when e03 connects"),
            "{waits:?}"
        );
        assert_eq!(world.running(3, "job"), Some(OLD));
        world.bring_back(3);
        world.run_until("it stops", 60_000, |world| {
            world.running(3, "job").is_none()
        });
        for edge in [0, 3] {
            world.order_node(edge, NodeOrder::Uncordon);
            world.await_running(edge, "job", NEW);
        }
    });
}

#[test]
fn a_selector_that_forgets_nodes_stops_nothing_until_the_version_is_good() {
    on_fleet(3, |world| {
        world.deploy("job", OLD, &canary());
        await_phase(world, "job", RolloutPhase::Done);
        let only_first = "node = \"e00\"\n[rollout]\ncanary = 1";
        world.deploy("job", Content::Misconfigured(2), only_first);
        await_phase(world, "job", RolloutPhase::RolledBack);
        assert_eq!([0, 1, 2].map(|edge| world.starts(edge, "job")), [1; 3]);
        world.deploy("job", NEW, only_first);
        world.await_running(0, "job", NEW);
        assert_eq!(world.running(1, "job"), Some(OLD));
        await_phase(world, "job", RolloutPhase::Done);
        world.run_until("the others stop", 60_000, |world| {
            world.running(1, "job").is_none() && world.running(2, "job").is_none()
        });
    });
}

#[test]
fn case_75_a_node_that_lacks_something_neither_ends_a_rollout_nor_counts_for_it() {
    play(&[("e1", "a"), ("e2", "a"), ("e3", "a")], |world| {
        let able = |connectors: &[&str]| {
            let connectors = connectors.iter().map(|it| format!("connector:{it}"));
            let world = ["world:transform@0.1".to_owned()];
            connectors.chain(world).collect::<Vec<_>>()
        };
        world.edges[0].capabilities = able(&["output.discard"]);
        world.crash_edge(0, "another program", Some(1_000));
        world.run_for(2_000);
        world.await_connected(0);
        world.deploy("job", OLD, &canary());
        await_phase(world, "job", RolloutPhase::Done);
        let rollout = world.rollout("job");
        let why = rollout.reason.unwrap_or_default();
        assert_eq!(why, "2 nodes proved version 1; e1 lacks what it needs");
        assert_eq!(rollout.failures, []);
        // A newer program has it.
        world.edges[0].capabilities = able(&["input.generate", "output.discard"]);
        world.crash_edge(0, "an upgrade", None);
        world.bring_back(0);
        world.await_running(0, "job", OLD);
    });
}
