//! Versions and content: updates, going back, deletes, wiped machines, around nodes that are away.

use sluice_model::{ExecutionState, PendingReason, Version};
use sluice_tests::sim::{Content, Order, component, play};

const OLD: Content = Content::Steady(0);

#[test]
fn case_78_two_updates_while_away_and_only_the_last_runs() {
    play(&[("e1", "a")], |world| {
        world.deploy("job", OLD, "");
        world.await_running(0, "job", OLD);
        world.send_away(0);
        world.deploy("job", Content::Steady(1), "");
        world.deploy("job", Content::Steady(2), "");
        world.run_for(10_000);
        assert_eq!(world.running(0, "job"), Some(OLD), "it runs on meanwhile");
        world.bring_back(0);
        world.await_running(0, "job", Content::Steady(2));
        world.settle();
        assert_eq!(world.starts(0, "job"), 2);
        assert!(world.checks.asked_for.contains(&(0, component(2))));
        assert!(
            !world.checks.asked_for.contains(&(0, component(1))),
            "what never ran was never fetched"
        );
    });
}

#[test]
fn case_79_updated_and_back_to_the_same_content_while_away() {
    play(&[("e1", "a")], |world| {
        world.deploy("job", OLD, "");
        world.await_running(0, "job", OLD);
        world.send_away(0);
        world.deploy("job", Content::Steady(1), "");
        world.deploy("job", OLD, "");
        assert_eq!(world.job("job").version, Version(3));
        world.bring_back(0);
        world.settle();
        let execution = world.execution("job", 0).unwrap();
        assert_eq!(execution.state, ExecutionState::Running);
        assert_eq!(execution.version, Version(3));
        assert_eq!(world.starts(0, "job"), 1, "nothing restarted");
    });
}

#[test]
fn case_80_deleted_while_away() {
    play(&[("e1", "a")], |world| {
        world.deploy("job", OLD, "");
        world.await_running(0, "job", OLD);
        world.send_away(0);
        world.give("job", Order::Delete);
        world.run_for(1_000);
        assert_eq!(world.running(0, "job"), Some(OLD), "nobody has told it yet");
        assert_eq!(world.edges[0].disk.states.len(), 1);
        world.bring_back(0);
        world.settle();
        assert_eq!(world.running(0, "job"), None);
        assert!(world.edges[0].disk.states.is_empty(), "its state is gone");
    });
}

#[test]
fn case_81_deleted_and_made_again_under_its_name() {
    play(&[("e1", "a")], |world| {
        world.deploy("job", OLD, "");
        world.await_running(0, "job", OLD);
        let first = world.execution("job", 0).unwrap();
        world.send_away(0);
        world.give("job", Order::Delete);
        world.deploy("job", OLD, "");
        world.run_for(1_000);
        let second = world.execution("job", 0).unwrap();
        assert_ne!(first.job_id, second.job_id);
        assert_ne!(first.id, second.id);
        assert_eq!(second.version, Version(1));
        world.bring_back(0);
        world.settle();
        let states = &world.edges[0].disk.states;
        assert!(states.contains(&second.id) && !states.contains(&first.id));
        assert_eq!(world.starts(0, "job"), 2, "the old one was not taken over");
    });
}

#[test]
fn case_83_a_new_version_fails_and_the_old_one_runs_on() {
    play(&[("e1", "a")], |world| {
        world.deploy("job", OLD, "");
        world.await_running(0, "job", OLD);
        world.deploy("job", Content::Misconfigured(1), "");
        world.settle();
        let execution = world.execution("job", 0).unwrap();
        assert_eq!(execution.state, ExecutionState::Failed);
        let observed = execution.observed.unwrap();
        assert_eq!(
            (observed.version, observed.running_version),
            (Version(2), Some(Version(1)))
        );
        for reason in [execution.reason, observed.reason] {
            assert!(reason.is_some_and(|it| !it.is_empty()), "it says why");
        }
        assert_eq!(world.running(0, "job"), Some(OLD));
        assert_eq!(world.starts(0, "job"), 1);
        assert_eq!(world.job("job").state.as_str(), "degraded");
    });
}

#[test]
fn case_84_a_crash_loop_is_left_alone_and_disturbs_nobody() {
    play(&[("e1", "a")], |world| {
        world.deploy("steady", OLD, "");
        world.deploy("crashes", Content::Crashes(1), "");
        world.run_for(20 * 60 * 1_000);
        let execution = world.execution("crashes", 0).unwrap();
        assert_eq!(execution.state, ExecutionState::Quarantined);
        assert_eq!(world.starts(0, "crashes"), 10);
        assert_eq!(world.starts(0, "steady"), 1);
    });
}

#[test]
fn case_70_a_wiped_machine_comes_back_to_its_work() {
    play(&[("e1", "a"), ("e2", "a")], |world| {
        world.deploy("job", OLD, "");
        world.await_running(0, "job", OLD);
        let before = world.node(0);
        world.wipe_edge(0, 1_000);
        world.await_running(0, "job", OLD);
        let after = world.node(0);
        assert_eq!(before.id, after.id);
        assert_ne!(before.incarnation, after.incarnation);
        assert_eq!(world.starts(1, "job"), 1);
    });
}

#[test]
fn case_70_a_recorded_completion_is_kept_when_the_machine_is_wiped() {
    play(&[("e1", "a")], |world| {
        world.deploy("ends", Content::Ends(0), "");
        world.settle();
        assert_eq!(world.job("ends").state.as_str(), "completed");
        world.wipe_edge(0, 1_000);
        world.run_for(60_000);
        assert_eq!(world.starts(0, "ends"), 1, "it is not run again");
        assert_eq!(world.job("ends").state.as_str(), "completed");
    });
}

#[test]
fn case_85_work_that_kills_the_process_does_not_keep_the_edge_away() {
    play(&[("e1", "a")], |world| {
        world.deploy("steady", OLD, "");
        world.deploy("job", Content::Steady(1), "");
        world.await_running(0, "job", Content::Steady(1));
        world.settle();
        world.deploy("job", Content::Deadly(2), "");
        world.run_for(60_000);
        assert_eq!(world.checks.faults.edge_crashes, 3, "and then no more");
        assert!(world.is_connected(0));
        assert_eq!(world.running(0, "steady"), Some(OLD));
        assert_eq!(
            world.running(0, "job"),
            Some(Content::Steady(1)),
            "the old version runs on"
        );
        let execution = world.execution("job", 0).unwrap();
        assert_eq!(execution.state, ExecutionState::Pending);
        assert_eq!(execution.reason_code, Some(PendingReason::Backoff.into()));
        assert!(execution.reason.unwrap().contains("died 3 times in a row"));
        assert!(execution.next_at.is_some());
        assert_eq!(world.job("job").state.as_str(), "degraded");
        world.run_for(15 * 60_000);
        assert_eq!(
            world.checks.faults.edge_crashes, 4,
            "tried once in ten minutes"
        );
        world.deploy("job", Content::Steady(3), "");
        world.await_running(0, "job", Content::Steady(3));
    });
}
