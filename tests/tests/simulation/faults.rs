//! Faults of network, disks and processes, one at a time and at the worst moment.

use sluice_host::store::Store as _;
use sluice_model::{NodeState, Version};
use sluice_protocol::{Received, edge_message::Kind};
use sluice_tests::sim::{Content, Fault, Order, Placing, Way, World, WorldConfig, play, play_with};

const STEADY: Content = Content::Steady(0);

fn running(world: &mut World) {
    world.deploy("job", STEADY, "");
    world.await_running(0, "job", STEADY);
    world.settle();
}

#[test]
fn case_35_36_the_orchestrator_dies_around_a_commit() {
    play(&[("e1", "a")], |world| {
        // Before: the order's commit never happens; it is given again.
        let deploy = Order::Deploy {
            content: STEADY,
            select: String::new(),
            placing: Placing::Daemon,
        };
        world.arm_host_at("commit an assignment", Fault::Crash);
        world.order("job", deploy);
        world.run_until("it dies", 60_000, |world| {
            world.checks.faults.host_crashes == 1
        });
        let jobs = world.orchestrator.look(|store| store.jobs(true)).unwrap();
        assert!(jobs.is_empty(), "what was written is undone: {jobs:?}");
        let open = world.operators.open.contains_key("job");
        assert!(open, "nobody was told that it is done");
        world.await_running(0, "job", STEADY);
        assert_eq!(world.checks.faults.host_crashes, 1);
        // After: committed, nothing sent, and the new process sends it.
        let update = Order::Deploy {
            content: Content::Steady(1),
            select: String::new(),
            placing: Placing::Daemon,
        };
        world.order("job", update);
        world.orchestrator.dies_after_outputs = Some(0);
        world.await_running(0, "job", Content::Steady(1));
        assert_eq!(world.checks.faults.host_crashes, 2);
    });
}

#[test]
fn case_37_the_orchestrator_dies_between_a_send_and_its_ack() {
    play(&[("e1", "a")], |world| {
        let sent = world.rows_sent(0);
        world.deploy("job", STEADY, "");
        assert_eq!(world.rows_sent(0), sent + 1, "it is on its way");
        // What is on its way is lost with the connection.
        world.set_link(0, false);
        world.crash_host("kill -9", 2_000);
        world.set_link(0, true);
        world.await_running(0, "job", STEADY);
        world.await_connected(0);
        world.settle();
        assert!(world.rows_sent(0) > sent + 1, "it was sent again");
        assert_eq!(world.starts(0, "job"), 1, "sent twice, it runs once");
    });
}

#[test]
fn case_38_50_an_edge_dies_after_its_ack_and_boots_without_a_network() {
    play(&[("e1", "a")], |world| {
        running(world);
        world.deploy("second", Content::Steady(3), "");
        let execution = world.execution("second", 0).unwrap();
        world.run_until("the edge has it on disk", 5_000, |world| {
            world.edges[0].process.as_ref().is_some_and(|process| {
                process
                    .core
                    .agent()
                    .labels()
                    .any(|(id, _)| id == execution.id)
            })
        });
        assert_eq!(world.starts(0, "second"), 0);
        world.set_link(0, false);
        world.crash_edge(0, "power cut", Some(5_000));
        // Its component is here (both jobs name the same one), so nothing is missing.
        world.await_running(0, "job", STEADY);
        world.await_running(0, "second", Content::Steady(3));
        assert!(!world.is_connected(0), "nobody has told it again");
        world.bring_back(0);
    });
}

#[test]
fn case_40_an_edge_dies_between_two_versions() {
    play(&[("e1", "a")], |world| {
        running(world);
        world.deploy("job", Content::Steady(1), "");
        world.run_until(
            "the old one has ended, the new one not begun",
            10_000,
            |world| world.live_work(0).is_empty(),
        );
        world.crash_edge(0, "kill -9", Some(500));
        world.await_running(0, "job", Content::Steady(1));
    });
}

#[test]
fn case_42_the_disk_of_an_edge_is_full() {
    play(&[("e1", "a")], |world| {
        running(world);
        let received = world.node(0).received_rev;
        // Far more calls than there will be: it stays full until room is made.
        world.arm_edge(0, 0, Fault::Full { calls: 1_000_000 });
        world.deploy("second", Content::Steady(1), "");
        world.run_for(60_000);
        assert!(world.checks.faults.store_faults > 0);
        assert_eq!(
            world.node(0).received_rev,
            received,
            "nothing was acknowledged"
        );
        assert_eq!(world.running(0, "job"), Some(STEADY), "what runs runs on");
        assert_eq!(world.running(0, "second"), None);
        world.edges[0].faults.disarm();
        world.await_running(0, "second", Content::Steady(1));
        assert_eq!(world.starts(0, "job"), 1);
    });
}

#[test]
fn case_43_the_disk_of_the_orchestrator_is_full() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        running(world);
        world.await_connected(1);
        world.settle();
        let sessions = [world.connection(0), world.connection(1)];
        world.deploy("ends", Content::Ends(0), "");
        world.await_running(0, "ends", Content::Ends(0));
        let ends = world.execution("ends", 0).unwrap();
        world.arm_host(0, Fault::NoRoom);
        let deploy = |content| Order::Deploy {
            content,
            select: String::new(),
            placing: Placing::Daemon,
        };
        world.order("second", deploy(Content::Steady(1)));
        // Its end is reported while there is no room for it.
        world.run_for(120_000);
        assert!(world.live_work(0).len() == 1, "it has ended");
        assert_eq!(world.outcome(ends.id, Version(1), 1), None);
        assert!(
            world.operators.open.contains_key("second"),
            "it was refused"
        );
        assert!(world.checks.faults.store_faults > 0);
        assert_eq!(
            [world.connection(0), world.connection(1)],
            sessions,
            "no session ended"
        );
        assert_eq!(world.running(0, "job"), Some(STEADY));
        assert_eq!(world.running(1, "job"), Some(STEADY));
        world.orchestrator.faults.disarm();
        world.await_running(0, "second", Content::Steady(1));
        world.await_running(1, "second", Content::Steady(1));
        world.settle();
        assert!(world.outcome(ends.id, Version(1), 1).is_some());
        assert_eq!([world.connection(0), world.connection(1)], sessions);
        assert_eq!(
            world.checks.faults.host_crashes, 0,
            "a full disk ends no program"
        );
    });
}

#[test]
fn case_44_a_broken_disk_ends_the_program_and_the_next_one_reads_what_is_there() {
    play(&[("e1", "a")], |world| {
        running(world);
        world.order(
            "second",
            Order::Deploy {
                content: Content::Steady(1),
                select: String::new(),
                placing: Placing::Daemon,
            },
        );
        world.arm_host(9, Fault::Broken);
        world.await_running(0, "second", Content::Steady(1));
        world.arm_edge(0, 2, Fault::Broken);
        world.deploy("third", Content::Steady(2), "");
        world.await_running(0, "third", Content::Steady(2));
        assert!(world.checks.faults.store_faults >= 2);
        assert!(world.checks.faults.edge_crashes >= 1);
    });
}

#[test]
fn case_51_52_clocks_are_wrong_by_years() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        let years = 10 * 365 * 24 * 3_600 * 1_000;
        world.edges[0].clock_skew_ms = years;
        world.edges[1].clock_skew_ms = -years;
        running(world);
        let starts = (world.starts(0, "job"), world.starts(1, "job"));
        let connection = world.connection(0);
        world.run_for(120_000);
        assert_eq!(world.connection(0), connection, "no session ended for it");
        assert_eq!((world.starts(0, "job"), world.starts(1, "job")), starts);
    });
}

#[test]
fn case_54_the_orchestrator_stalls_for_a_minute() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        running(world);
        world.stall_host(60_000);
        world.run_for(60_100);
        for edge in [0, 1] {
            // The edges cannot know why nobody answers, and dial again; nobody counts as away for it.
            world.await_connected(edge);
            assert_eq!(world.node(edge).state, NodeState::Connected);
            assert_eq!(world.starts(edge, "job"), 1);
        }
        assert_eq!(world.checks.faults.stalls, 1);
    });
}

#[test]
fn case_56_nothing_reaches_the_edge() {
    play(&[("e1", "a")], |world| {
        running(world);
        let old = world.connection(0).unwrap();
        world.kill_way(old, Way::Down, 600_000);
        world.deploy("second", Content::Steady(1), "");
        world.run_until("it dials again", 60_000, |world| {
            world.connection(0).is_some_and(|id| id != old)
        });
        world.await_running(0, "second", Content::Steady(1));
        assert_eq!(world.starts(0, "job"), 1);
    });
}

#[test]
fn case_57_nothing_comes_from_the_edge() {
    play(&[("e1", "a")], |world| {
        running(world);
        let old = world.connection(0).unwrap();
        world.kill_way(old, Way::Up, 600_000);
        world.await_state(0, NodeState::Disconnected, 60_000);
        assert_eq!(world.running(0, "job"), Some(STEADY), "its work runs on");
        world.await_connected(0);
        assert_ne!(world.connection(0), Some(old));
        assert_eq!(world.starts(0, "job"), 1);
    });
}

#[test]
fn case_58_everything_twice_and_out_of_order() {
    let config = WorldConfig {
        mangled: true,
        ..WorldConfig::default()
    };
    play_with(config, &[("e1", "a"), ("e2", "b")], |world| {
        world.begin_chaos(0);
        for round in 0..20u8 {
            for job in ["one", "two"] {
                world.deploy(job, Content::Steady(round), "");
                if round % 3 == 0 {
                    world.give(job, Order::Stop);
                    world.give(job, Order::Start);
                }
            }
            world.run_for(3_000);
        }
        world.give("two", Order::Delete);
        world.run_for(10_000);
        let faults = world.checks.faults;
        assert!(faults.doubled > 10 && faults.overtaken > 10, "{faults:?}");
        world.end_chaos();
    });
}

#[test]
fn case_59_one_change_is_lost_and_the_next_arrives() {
    play(&[("e1", "a")], |world| {
        running(world);
        let id = world.connection(0).unwrap();
        let rev = world.node(0).desired_rev;
        let resyncs = world.checks.faults.resyncs;
        // 7 -> 8 is held back for ever; somebody claims that it was received; so 8 -> 9 follows, and arrives.
        world.kill_way(id, Way::Down, 600_000);
        world.deploy("second", Content::Steady(1), "");
        world.run_for(50);
        world.network.get(id).unwrap().down.held.clear();
        world.network.get(id).unwrap().down.dead = false;
        let epoch = world.orchestrator.core.as_ref().unwrap().epoch().0;
        let acked = rev.next().0;
        world.forge_from_edge(id, Kind::Received(Received { epoch, rev: acked }));
        world.deploy("third", Content::Steady(2), "");
        world.await_running(0, "second", Content::Steady(1));
        world.await_running(0, "third", Content::Steady(2));
        assert_eq!(world.connection(0), Some(id), "in the same session");
        assert_eq!(world.checks.faults.resyncs, resyncs + 1, "it asked once");
        assert_eq!(world.starts(0, "job"), 1);
    });
}

#[test]
fn case_63_the_old_session_closes_after_the_new_one_opened() {
    play(&[("e1", "a")], |world| {
        running(world);
        let old = world.connection(0).unwrap();
        world.cut_noticed(old, 10, 12_000);
        world.run_until("a new session is there", 5_000, |world| {
            world.is_connected(0) && world.connection(0) != Some(old)
        });
        let new = world.connection(0);
        world.run_for(20_000);
        assert_eq!(world.connection(0), new, "it stays");
        assert_eq!(world.node(0).state, NodeState::Connected);
        world.deploy("second", Content::Steady(1), "");
        world.await_running(0, "second", Content::Steady(1));
    });
}

#[test]
fn case_65_a_recorded_hello_is_played_again() {
    play(&[("e1", "a")], |world| {
        running(world);
        let live = world.connection(0);
        let before = world.node(0);
        for _ in 0..5 {
            assert!(world.replay_hello(0));
            world.run_for(3_000);
        }
        assert_eq!(world.connection(0), live);
        assert_eq!(world.node(0).connected_since, before.connected_since);
        assert_eq!(world.starts(0, "job"), 1);
    });
}

#[test]
fn case_89_a_label_change_moves_a_node_out_and_back() {
    play(&[("e1", "a")], |world| {
        world.deploy("job", STEADY, "site = \"a\"");
        world.await_running(0, "job", STEADY);
        for (site, runs) in [("b", None), ("a", Some(STEADY))] {
            world.crash_edge(0, "its configuration changes", Some(100));
            world.edges[0]
                .labels
                .insert("site".to_owned(), site.to_owned());
            world.run_until("the labels are known", 30_000, |world| {
                world.is_connected(0)
            });
            world.settle();
            assert_eq!(world.running(0, "job"), runs);
        }
    });
}

#[test]
fn case_96_a_node_returns_from_before_what_removals_are_remembered() {
    play(&[("e1", "a")], |world| {
        running(world);
        let snapshots = world.checks.faults.snapshots;
        let id = world.connection(0).unwrap();
        world.give("job", Order::Delete);
        world.run_until("it is purged there", 10_000, |world| {
            world.edges[0].disk.states.is_empty()
        });
        // The removal never arrives, and the orchestrator comes to believe that nobody needs it any more.
        let before = world.rows_sent(0);
        world.run_until("the removal is on its way", 5_000, |world| {
            world.rows_sent(0) > before
        });
        world.kill_way(id, Way::Down, 600_000);
        world.cut_noticed(id, 2_000, 2_000);
        let (epoch, rev) = (
            world.orchestrator.core.as_ref().unwrap().epoch().0,
            world.node(0).desired_rev.0,
        );
        world.forge_from_edge(id, Kind::Received(Received { epoch, rev }));
        world.run_for(1_500);
        let process = world.edges[0].process.as_ref().unwrap();
        assert_eq!(
            process.core.agent().labels().count(),
            1,
            "it still has the row"
        );
        world.settle();
        assert!(
            world.checks.faults.snapshots > snapshots,
            "only the whole set helps"
        );
        let process = world.edges[0].process.as_ref().unwrap();
        assert_eq!(process.core.agent().labels().count(), 0, "no zombie");
    });
}
