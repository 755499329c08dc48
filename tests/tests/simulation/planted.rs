//! The simulator can fail: a world with a planted defect is caught, by the invariant that is there for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sluice_host::store::{ExecutionRecord, Store as _};
use sluice_model::{Desired, Revision};
use sluice_protocol::AssignmentRow;
use sluice_tests::sim::{Batch, Content, Order, Placing, Planted, World, play, words_of};

const STEADY: Content = Content::Steady(0);

/// Plays a scenario in which `job` runs on one edge, and asserts that it is broken off by this.
#[track_caller]
fn caught(by: &str, script: impl FnOnce(&mut World)) {
    let played = catch_unwind(AssertUnwindSafe(|| {
        play(&[("e1", "a")], |world| {
            world.deploy("job", STEADY, "");
            world.await_running(0, "job", STEADY);
            script(world);
        });
    }));
    let Err(panic) = played else {
        panic!("nobody noticed, and it breaks {by:?}");
    };
    let story = words_of(&*panic);
    let problem = story.lines().rfind(|line| line.contains(by));
    assert!(problem.is_some(), "{by:?} did not catch it, but: {story}");
}

#[test]
fn rows_that_leave_before_they_are_on_disk_break_i1() {
    caught("I1: rows are sent that are not committed", |world| {
        world.plant_lying_host_disk();
        world.deploy("second", Content::Steady(1), "");
    });
}

#[test]
fn an_ack_before_the_disk_has_it_breaks_i2() {
    caught("I2: the orchestrator acknowledges", |world| {
        world.plant_lying_host_disk();
        world.crash_edge(0, "so that it has something to report", Some(100));
        world.run_for(30_000);
    });
}

#[test]
fn an_orchestrator_whose_disk_loses_a_commit_breaks_i3() {
    caught("I3: a node's desired set goes back", |world| {
        world.plant_forgetful_host_disk();
        world.deploy("second", Content::Steady(1), "");
        world.await_running(0, "second", Content::Steady(1));
        world.crash_host("power", 100);
    });
}

#[test]
fn an_edge_whose_disk_loses_a_commit_after_its_ack_breaks_i3() {
    caught("I3: e1 goes back from", |world| {
        world.plant_forgetful_edge_disk(0);
        world.await_connected(0);
        world.deploy("second", Content::Steady(1), "");
        world.await_running(0, "second", Content::Steady(1));
        world.crash_edge(0, "power", Some(100));
    });
}

#[test]
fn rows_that_never_arrive_break_i4() {
    caught("I4: ", |world| {
        world.planted = Some(Planted::LostRows);
        world.deploy("second", Content::Steady(1), "");
    });
}

#[test]
fn case_99_a_wait_without_its_reason_breaks_i5() {
    caught("I5: a state without its reason", |world| {
        world.planted = Some(Planted::MutedReasons);
        world.send_away(0);
        world.deploy("second", Content::Steady(1), "");
        world.look_at_everything();
        world.run_for(1_000);
    });
}

#[test]
fn an_instance_that_only_says_that_it_stopped_breaks_i6() {
    caught("I6: e1 starts job", |world| {
        world.planted = Some(Planted::DeafInstances);
        world.deploy("job", Content::Steady(1), "");
    });
}

#[test]
fn a_change_that_nobody_ordered_breaks_i7() {
    caught("I7: planning twice plans something", |world| {
        world.planted = Some(Planted::SecretOrders);
    });
}

#[test]
fn an_outcome_that_its_edge_forgets_too_early_is_missed() {
    caught("and the orchestrator has none", |world| {
        world.deploy("ends", Content::Ends(1), "");
        world.await_running(0, "ends", Content::Ends(1));
        world.set_link(0, false);
        world.run_until("it has ended", 600_000, |world| {
            let kept = world.edges[0].look(|store| store.outcomes());
            kept.is_some_and(|kept| !kept.unwrap().is_empty())
        });
        let forgotten = world.edges[0].look(|store| {
            store.begin()?;
            store.observed_received(Revision(u64::MAX >> 1))?;
            store.commit()
        });
        forgotten.unwrap().unwrap();
        world.set_link(0, true);
    });
}

#[test]
fn a_row_that_vanishes_from_an_edges_disk_is_missed() {
    caught("the desired rows on its disk are not those", |world| {
        let dropped = world.edges[0].look(|store| {
            store.begin()?;
            let row = store.desired()?.remove(0);
            store.remove_desired(&row.key)?;
            store.commit()
        });
        dropped.unwrap().unwrap();
        // A new row of the job would put it right: it is looked at now and then.
        world.run_for(600_000);
    });
}

#[test]
fn a_begin_that_is_played_again_is_an_accusation() {
    caught("the orchestrator accuses an edge", |world| {
        world.replay_begin(0);
        world.run_for(1_000);
    });
}

#[test]
fn an_edge_with_an_older_boot_counter_is_fenced_off() {
    caught("a node is", |world| {
        // Nothing that it reports gives it away.
        world.give("job", Order::Delete);
        world.settle();
        world.plant_forgetful_edge_disk(0);
        world.await_connected(0);
        // It comes back as the one before last, with another nonce.
        world.crash_edge(0, "power", Some(100));
        world.run_for(60_000);
    });
}

#[test]
fn a_rollout_that_waits_without_its_reason_breaks_i5() {
    caught("I5: a rollout that waits", |world| {
        world.planted = Some(Planted::MutedReasons);
        // It waits for a node that matches.
        world.deploy("new", STEADY, "site = \"b\"\n[rollout]\ncanary = 1");
    });
}

#[test]
fn a_revoked_node_that_is_let_in_again_breaks_n1() {
    caught("N1: e1 was shut out", |world| {
        world.plant_forgetful_host_disk();
        world.give("node 0", Order::Revoke { edge: 0 });
        world.crash_host("power", 100);
        world.run_for(600_000);
    });
}

#[test]
fn a_node_that_vanishes_breaks_n2() {
    caught("N2: e2 is not registered", |world| {
        world.plant_forgetful_host_disk();
        let edge = world.add_edge("e2", &[("site", "a")]);
        world.await_connected(edge);
        world.crash_host("power", 100);
        world.run_for(60_000);
    });
}

/// Launches a task that writes something; its execution, when it has ended.
fn ended_task(world: &mut World) -> ExecutionRecord {
    let placing = Placing::Batch(Batch::once(1));
    world.deploy_placed("batch", Content::Ends(0), "", placing);
    loop {
        world.launch("batch", &[]);
        world.await_runs();
        let id = world.job("batch").id;
        let tries = world
            .orchestrator
            .look(|store| store.executions_of_job(id))
            .unwrap();
        let wrote = tries.into_iter().find(|it| {
            let outputs = &world.edges[0].disk.outputs;
            outputs.get(&it.id).is_some_and(|bytes| !bytes.is_empty())
        });
        if let Some(wrote) = wrote {
            return wrote;
        }
    }
}

#[test]
fn an_output_that_nobody_pulls_breaks_o1() {
    caught("O1: the output of", |world| {
        world.planted = Some(Planted::NoPulls);
        ended_task(world);
    });
}

#[test]
fn an_output_that_is_held_and_is_something_else_breaks_o2() {
    caught("O2: held is something else", |world| {
        world.planted = Some(Planted::NoPulls);
        let wrote = ended_task(world);
        world.rot_output(0, wrote.id);
        world.planted = Some(Planted::BlindPulls);
    });
}

#[test]
fn a_purge_before_its_output_came_breaks_o3() {
    caught("O3: ", |world| {
        world.planted = Some(Planted::NoPulls);
        let wrote = ended_task(world);
        let purged = ExecutionRecord {
            desired: Desired::Purge,
            ..wrote.clone()
        };
        let row = AssignmentRow {
            execution: wrote.id,
            job: wrote.job,
            job_name: "batch".parse().unwrap(),
            version: wrote.version,
            attempt: wrote.attempt,
            desired: Desired::Purge,
            slot: wrote.slot,
            spec: wrote.spec,
            once: wrote.once,
        };
        let ordered = world.orchestrator.look(|store| {
            store.begin()?;
            store.put_assignment(&purged, &row.encode())?;
            store.commit()
        });
        ordered.unwrap();
        world.run_for(60_000);
    });
}
