//! How often a task is tried that cannot open what it needs.

use super::*;
use crate::{TRIES_MAX, TRIES_TIME_MAX};

impl World {
    /// Brings it to where it opens what it needs, as far as that takes no waiting; whether it opens.
    fn opens(&mut self) -> bool {
        while !self.fetching.is_empty() {
            self.take(&Step::Fetched {
                which: 0,
                works: true,
            });
        }
        self.take(&Step::Prepared { which: 0, how: 5 });
        !self.running.is_empty()
    }

    /// Tries until it ends or was tried so often, with nothing there; how often.
    fn try_in_vain(&mut self, most: u64) -> u64 {
        let mut tried = 0;
        while tried < most && self.outcomes.is_empty() {
            if self.opens() {
                self.take(&Step::Ended { which: 0, how: 2 });
                tried += 1;
                continue;
            }
            let due = self.agent.next_deadline().expect("it is tried again");
            self.now = self.now.plus(due.since(self.now.mono));
            self.take(&Step::Pass { seconds: 0 });
        }
        tried
    }
}

#[test]
fn a_task_is_tried_ten_times_within_five_minutes_and_has_failed() {
    let mut world = World::new();
    world.order(0, BATCH, Desired::Run);
    world.carry_out();
    let begun = world.now.mono;
    assert_eq!(world.try_in_vain(u64::MAX), TRIES_MAX);
    assert_eq!(world.now.mono.since(begun), TRIES_TIME_MAX);
    let seen = &world.live[&id(0)];
    assert_eq!(seen.fail, Some(FailReason::Retries));
    assert_eq!(
        seen.reason,
        "not there; tried 10 times within 300 s, and a task does not wait for ever"
    );
    assert_eq!(world.agent.next_deadline(), None);
    assert_eq!(world.locals[&id(0)].tries, None, "its end says it all");
    // Another attempt has tries of its own.
    world.outcomes.clear();
    world.order(0, BATCH, Desired::Run);
    world.carry_out();
    assert_eq!(world.try_in_vain(u64::MAX), TRIES_MAX);
}

#[test]
fn a_restart_gives_a_task_no_tries_anew() {
    let mut world = World::new();
    world.order(0, BATCH, Desired::Run);
    world.carry_out();
    assert_eq!(world.try_in_vain(7), 7);
    for left in [2, 1, 0] {
        world.restart();
        world.carry_out();
        assert_eq!(world.try_in_vain(1), 1);
        assert_eq!(world.outcomes.len(), usize::from(left == 0));
    }
}

#[test]
fn what_ran_well_for_a_while_is_tried_as_if_anew_and_a_daemon_for_ever() {
    for (content, ends) in [(BATCH, false), (3, false), (BATCH, true)] {
        let mut world = World::new();
        world.order(0, content, Desired::Run);
        world.carry_out();
        assert_eq!(world.try_in_vain(9), 9);
        while !world.opens() {
            let due = world.agent.next_deadline().expect("it is tried again");
            world.now = world.now.plus(due.since(world.now.mono));
            world.take(&Step::Pass { seconds: 0 });
        }
        if !ends {
            world.take(&Step::Pass { seconds: 60 });
        }
        world.take(&Step::Ended { which: 0, how: 2 });
        assert_eq!(world.outcomes.is_empty(), !ends);
        if content != BATCH {
            assert_eq!(world.try_in_vain(40), 40);
        }
    }
}
