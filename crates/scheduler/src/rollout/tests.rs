//! Fleets in a few lines: what their nodes say, and what the rollout does about it.

use super::*;

const SECOND_MS: u64 = 1_000;

const RUNS: Sign = Sign::Running { restarts: 0 };

/// Nodes `e00`, `e01`, ... running version 1, and a rollout of version 2.
struct Fleet {
    record: RolloutRecord,
    rules: Rules,
    members: Vec<Member>,
    watch: Watch,
    now_ms: u64,
}

impl Fleet {
    fn new(nodes: u8, rules: Rules) -> Self {
        let good = Good {
            version: Version(1),
            spec: Digest::of(b"old"),
        };
        Self {
            record: RolloutRecord::begin(Version(2), Some(good), &rules, UnixMs(0)),
            rules,
            members: (0..nodes).map(member).collect(),
            watch: Watch::default(),
            now_ms: 0,
        }
    }

    /// Every node has just told what its executions count.
    fn all_count(&mut self) {
        for member in &mut self.members {
            if let Some(execution) = &mut member.execution {
                execution.counted_at = Some(MonotonicMs(self.now_ms));
            }
        }
    }

    /// One look after so long; who gets the new version is on its way to it afterwards.
    fn look(&mut self, after_ms: u64) -> Vec<usize> {
        for member in self.members.iter_mut().filter(|it| it.connected) {
            member.heard_at = Some(MonotonicMs(self.now_ms + after_ms));
        }
        self.look_in_silence(after_ms)
    }

    /// The same, and no node was heard of since.
    fn look_in_silence(&mut self, after_ms: u64) -> Vec<usize> {
        self.now_ms += after_ms;
        let now = Clocks {
            mono: MonotonicMs(self.now_ms),
            unix: UnixMs(i64::try_from(self.now_ms).expect("small")),
        };
        let did = advance(
            &mut self.record,
            &self.rules,
            &self.members,
            &mut self.watch,
            now,
        );
        let mut admitted = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            if did.admitted.contains(&member.node) {
                admitted.push(index);
                let id = execution(u8::try_from(index).expect("few"));
                member.execution = Some(followed(id, 2, Sign::Underway("starting".to_owned())));
            }
        }
        admitted
    }

    fn say(&mut self, node: usize, sign: Sign) {
        let execution = self.members[node].execution.as_mut();
        execution.expect("an execution").sign = sign;
    }

    /// Everyone who has the new version runs it.
    fn all_run(&mut self) {
        for member in &mut self.members {
            if let Some(execution) = &mut member.execution
                && execution.version == Version(2)
            {
                execution.sign = RUNS;
            }
        }
    }

    fn having(&self, version: u64) -> usize {
        let has = |member: &&Member| {
            let execution = member.execution.as_ref();
            execution.is_some_and(|it| it.version == Version(version))
        };
        self.members.iter().filter(has).count()
    }
}

fn execution(index: u8) -> ExecutionId {
    ExecutionId::from_random([index + 1; 16])
}

fn followed(id: ExecutionId, version: u64, sign: Sign) -> Followed {
    Followed {
        id,
        version: Version(version),
        attempt: Attempt(1),
        runs: true,
        same_content: false,
        sign,
        records_in: 0,
        dead_letters: 0,
        counted_at: None,
    }
}

fn member(index: u8) -> Member {
    Member {
        node: NodeId::from_random([index + 1; 16]),
        name: format!("e{index:02}").parse().expect("a name"),
        connected: true,
        heard_at: None,
        given_away: false,
        misfit: false,
        execution: Some(followed(execution(index), 1, RUNS)),
    }
}

fn canary() -> Rules {
    Rules {
        canary: 1,
        ..Rules::default()
    }
}

fn failed(why: &str) -> Sign {
    Sign::Failed(why.to_owned())
}

#[test]
fn a_canary_then_a_tenth_at_a_time_then_all() {
    let mut fleet = Fleet::new(50, canary());
    assert_eq!(fleet.look(0), [0], "the first by name is the canary");
    assert_eq!(fleet.look(SECOND_MS), [0_usize; 0]);
    fleet.all_run();
    assert_eq!(fleet.look(0), [0_usize; 0], "it has just begun to run");
    assert_eq!(fleet.look(9 * SECOND_MS), [0_usize; 0]);
    assert_eq!(fleet.look(SECOND_MS), [1, 2, 3, 4, 5]);
    assert_eq!(fleet.record.phase, RolloutPhase::Rolling);
    let mut most = 0;
    for _ in 0..200 {
        let before = fleet.having(2);
        fleet.look(SECOND_MS);
        most = most.max(fleet.having(2) - before);
        fleet.all_run();
    }
    assert_eq!((most, fleet.having(2)), (5, 50));
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.record.reason, "50 nodes proved version 2");
}

#[test]
fn case_82_a_canary_that_fails_ends_it_and_no_other_node_ever_had_the_version() {
    for (sign, why) in [
        (
            failed("configure: no such key"),
            "e00: configure: no such key",
        ),
        (
            Sign::Unwell {
                reason: "crashed: it hit a bug".to_owned(),
                restarts: RESTARTS_MAX,
            },
            "e00: crashed: it hit a bug",
        ),
    ] {
        let mut fleet = Fleet::new(50, canary());
        fleet.look(0);
        fleet.say(0, sign);
        assert_eq!(fleet.look(SECOND_MS), [0_usize; 0]);
        assert_eq!(fleet.record.phase, RolloutPhase::RolledBack);
        assert_eq!(fleet.record.reason, why);
        assert_eq!(fleet.having(2), 1);
        assert_eq!(fleet.look(1000 * SECOND_MS), [0_usize; 0], "it has ended");
    }
}

#[test]
fn a_short_trouble_is_not_a_failure_and_a_long_one_is() {
    let unwell = || Sign::Unwell {
        reason: "the port is busy".to_owned(),
        restarts: 0,
    };
    let mut fleet = Fleet::new(3, canary());
    fleet.look(0);
    fleet.say(0, unwell());
    fleet.look(SECOND_MS);
    fleet.say(0, RUNS);
    fleet.look(SECOND_MS);
    fleet.look(10 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Rolling);
    fleet.say(0, unwell());
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Rolling);
    fleet.look(10 * SECOND_MS);
    assert_eq!(
        fleet.record.phase,
        RolloutPhase::RolledBack,
        "a proven one may still fail"
    );
}

#[test]
fn a_restart_that_no_look_saw_starts_the_time_anew() {
    let mut fleet = Fleet::new(3, canary());
    fleet.look(0);
    fleet.all_run();
    fleet.look(0);
    fleet.look(9 * SECOND_MS);
    fleet.say(0, Sign::Running { restarts: 1 });
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    fleet.look(9 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Rolling);
    // One that restarts again and again is never well, however short each time is.
    let mut fleet = Fleet::new(3, canary());
    fleet.look(0);
    for restarts in 0..60 {
        fleet.say(0, Sign::Running { restarts });
        fleet.look(5 * SECOND_MS);
    }
    fleet.look(5 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::RolledBack);
}

#[test]
fn what_is_not_healthy_in_time_has_failed() {
    let mut fleet = Fleet::new(3, canary());
    fleet.look(0);
    fleet.look(0);
    fleet.look(299 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::RolledBack);
    assert_eq!(
        fleet.record.reason,
        "e00: not healthy within 300s: starting"
    );
}

#[test]
fn too_many_dead_letters_are_a_failure() {
    let rules = Rules {
        error_rate_max: Some(0.05),
        ..canary()
    };
    for (records_in, dead_letters, after_s, expected) in [
        (1000, 50, 10, RolloutPhase::Rolling),
        (1000, 51, 1, RolloutPhase::RolledBack),
        // Few records say nothing until the time is up.
        (10, 9, 1, RolloutPhase::Canary),
        (10, 9, 10, RolloutPhase::RolledBack),
        (0, 0, 10, RolloutPhase::Rolling),
    ] {
        let mut fleet = Fleet::new(3, rules);
        fleet.look(0);
        fleet.all_run();
        fleet.look(0);
        let execution = fleet.members[0].execution.as_mut().expect("it is there");
        (execution.records_in, execution.dead_letters) = (records_in, dead_letters);
        execution.counted_at = Some(MonotonicMs(after_s * SECOND_MS));
        fleet.look(after_s * SECOND_MS);
        assert_eq!(
            fleet.record.phase, expected,
            "{records_in} {dead_letters} {after_s}"
        );
    }
}

#[test]
fn what_nobody_has_counted_proves_nothing() {
    let rules = Rules {
        error_rate_max: Some(0.01),
        min_healthy: Duration::from_secs(1),
        ..canary()
    };
    let mut fleet = Fleet::new(3, rules);
    fleet.look(0);
    fleet.all_run();
    fleet.look(0);
    // Counters from before it ran for long enough say little.
    fleet.all_count();
    assert_eq!(fleet.look(SECOND_MS), [0_usize; 0]);
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    assert_eq!(
        fleet.record.reason,
        "e00 ran version 2 for long enough; the next heartbeat tells what became of its records"
    );
    // A node that is connected is not late because its heartbeats are rare.
    fleet.look_in_silence(3_600 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    fleet.all_count();
    assert_eq!(fleet.look(0), [1]);
    assert_eq!(fleet.record.phase, RolloutPhase::Rolling);
    assert_eq!(fleet.record.reason, "");
    // Who has proved it needs not be counted again to stay so.
    fleet.members[0]
        .execution
        .as_mut()
        .expect("it is there")
        .counted_at = None;
    fleet.all_run();
    fleet.look(0);
    for _ in 0..10 {
        fleet.look(SECOND_MS);
        fleet.all_run();
        let told = Some(MonotonicMs(fleet.now_ms));
        for member in &mut fleet.members[1..] {
            member.execution.as_mut().expect("it is there").counted_at = told;
        }
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.record.reason, "3 nodes proved version 2");

    // A session that comes again has told nothing yet: it is away, then back, and waits for its counters.
    let mut fleet = Fleet::new(3, rules);
    fleet.look(0);
    fleet.all_run();
    fleet.look(0);
    fleet.members[0].connected = false;
    fleet.look(SECOND_MS);
    fleet.members[0].connected = true;
    fleet.look(SECOND_MS);
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
}

#[test]
fn case_88_nodes_that_are_away_take_no_room_and_get_nothing() {
    let rules = Rules {
        max_parallel: sluice_model::pipeline::MaxParallel::Nodes(2),
        ..Rules::default()
    };
    let mut fleet = Fleet::new(6, rules);
    for away in [0, 1, 2] {
        fleet.members[away].connected = false;
    }
    assert_eq!(fleet.look(0), [3, 4]);
    fleet.all_run();
    fleet.look(0);
    assert_eq!(fleet.look(10 * SECOND_MS), [5]);
    fleet.all_run();
    fleet.look(0);
    fleet.look(10 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.having(2), 3);
    assert!(
        fleet
            .record
            .reason
            .contains("3 that are away get it when they return")
    );
}

#[test]
fn case_88_a_share_is_one_of_the_nodes_that_can_take_part() {
    let mut fleet = Fleet::new(50, Rules::default());
    for member in &mut fleet.members[10..] {
        member.connected = false;
    }
    assert_eq!(fleet.look(0), [0], "a tenth of ten");
    for member in &mut fleet.members[10..30] {
        member.connected = true;
    }
    assert_eq!(fleet.look(0), [1, 2], "a tenth of thirty, less the first");
    // Who went away with the new version keeps its room, and its part in the share.
    fleet.members[0].connected = false;
    assert_eq!(fleet.look(0), [0_usize; 0]);
}

#[test]
fn case_75_who_lacks_something_neither_proves_a_version_nor_brings_it_down() {
    for rules in [canary(), Rules::default()] {
        let mut fleet = Fleet::new(12, rules);
        fleet.members[0].misfit = true;
        let refused = || failed("refused, e00 lacks input.kafka");
        let mut most = 0;
        for _ in 0..200 {
            let before = fleet.having(2);
            let misfit_before = fleet.look(SECOND_MS).contains(&0);
            most = most.max(fleet.having(2) - before - usize::from(misfit_before));
            fleet.all_run();
            let execution = fleet.members[0].execution.as_ref();
            if execution.is_some_and(|it| it.version == Version(2)) {
                fleet.say(0, refused());
            }
        }
        assert_eq!(fleet.record.phase, RolloutPhase::Done);
        let why = &fleet.record.reason;
        assert!(why.starts_with("11 nodes proved version 2"), "{why}");
        assert!(why.contains("e00 lacks what it needs"), "{why}");
        assert_eq!(fleet.having(2), 12, "its row is sent like any other");
        assert_eq!(most, 2, "a tenth of eleven, and it takes no room");
        assert!(fleet.record.failures.is_empty());
    }
    // One that is mended meanwhile is not held to what it said before.
    let mut fleet = Fleet::new(3, Rules::default());
    fleet.members[2].misfit = true;
    fleet.look(0);
    fleet.say(2, failed("refused, e02 lacks input.kafka"));
    fleet.look(SECOND_MS);
    fleet.members[2].misfit = false;
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Rolling);
    // What it says once it has tried again is.
    fleet.all_run();
    fleet.look(SECOND_MS);
    fleet.say(2, failed("trap"));
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::RolledBack);
}

#[test]
fn a_fleet_of_nothing_but_misfits_says_what_it_waits_for() {
    for rules in [canary(), Rules::default()] {
        let mut fleet = Fleet::new(3, rules);
        for member in &mut fleet.members {
            member.misfit = true;
        }
        for _ in 0..3 {
            fleet.look(1_000 * SECOND_MS);
            assert!(fleet.record.is_open());
            assert_eq!(fleet.record.reason, ONLY_MISFITS);
        }
        fleet.members[0].misfit = false;
        fleet.members[0].execution = Some(followed(execution(0), 1, RUNS));
        assert_eq!(fleet.look(SECOND_MS), [0]);
        assert_eq!(fleet.record.reason, "");
    }
}

#[test]
fn a_version_that_takes_machines_off_the_network_does_not_reach_the_next_ones() {
    let mut fleet = Fleet::new(50, Rules::default());
    let first = fleet.look(0);
    assert_eq!(first.len(), 5);
    fleet.all_run();
    fleet.look(0);
    for node in first {
        fleet.members[node].connected = false;
    }
    for _ in 0..299 {
        assert_eq!(fleet.look(SECOND_MS), [0_usize; 0]);
    }
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Paused);
    assert!(
        fleet.record.reason.contains("went away with version 2"),
        "{}",
        fleet.record.reason
    );
    assert_eq!(fleet.having(2), 5);
}

#[test]
fn a_node_that_fell_silent_at_once_proves_nothing_though_it_is_not_missed_yet() {
    let mut fleet = Fleet::new(50, canary());
    fleet.look(0);
    fleet.all_run();
    fleet.look(0);
    // Nothing comes from it any more; for three heartbeats it counts as connected.
    for _ in 0..14 {
        assert_eq!(fleet.look_in_silence(SECOND_MS), [0_usize; 0]);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    fleet.members[0].connected = false;
    for _ in 0..300 {
        assert_eq!(fleet.look(SECOND_MS), [0_usize; 0]);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Paused);
    let why = &fleet.record.reason;
    assert!(why.starts_with("e00 went away with version 2"), "{why}");
    assert_eq!(fleet.having(2), 1);
}

#[test]
fn who_runs_the_same_goes_on_under_the_new_version_and_has_proven_it() {
    let rules = Rules {
        canary: 2,
        max_parallel: sluice_model::pipeline::MaxParallel::Nodes(1),
        ..Rules::default()
    };
    let mut fleet = Fleet::new(6, rules);
    for index in [0, 1, 2, 3] {
        let execution = fleet.members[index].execution.as_mut();
        execution.expect("it is there").same_content = true;
    }
    // Two places more, one of the others is away, and one does not run well.
    fleet.members[4].execution = None;
    fleet.members[5].execution = None;
    fleet.members[2].connected = false;
    fleet.say(3, failed("its file is missing"));
    assert_eq!(fleet.look(0), [0, 1, 4], "and one at a time of the others");
    assert_eq!(fleet.record.phase, RolloutPhase::Rolling);
    let went_on = "e00, e01 goes on under version 2, which runs the same";
    let told = |fleet: &Fleet, what: &str| fleet.record.events.iter().any(|it| it.what == what);
    assert!(told(&fleet, went_on), "{:?}", fleet.record.events);
    // Their nodes have not said so yet, and nothing is held against them.
    for _ in 0..1_000 {
        assert_eq!(fleet.look(SECOND_MS).len(), 0);
        if fleet.record.phase != RolloutPhase::Rolling {
            break;
        }
    }
    assert_eq!(fleet.record.phase, RolloutPhase::RolledBack, "e04 is late");
    assert!(fleet.record.reason.starts_with("e04: not healthy"));

    // Where nothing is new, nothing is waited for.
    let mut fleet = Fleet::new(3, rules);
    for member in &mut fleet.members {
        member.execution.as_mut().expect("it is there").same_content = true;
    }
    assert_eq!(fleet.look(0), [0, 1, 2]);
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.record.reason, "3 nodes proved version 2");
}

#[test]
fn a_lost_node_whose_place_was_given_away_still_keeps_its_room() {
    let rules = Rules {
        max_parallel: sluice_model::pipeline::MaxParallel::Nodes(1),
        ..Rules::default()
    };
    let mut fleet = Fleet::new(4, rules);
    assert_eq!(fleet.look(0), [0]);
    fleet.members[0].connected = false;
    fleet.members[0].given_away = true;
    // Its replacement has the good version.
    fleet.members.push(member(9));
    assert_eq!(fleet.look(0), [0_usize; 0]);
    for _ in 0..300 {
        assert_eq!(fleet.look(SECOND_MS), [0_usize; 0]);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Paused);
    let why = &fleet.record.reason;
    assert!(why.starts_with("e00 went away with version 2"), "{why}");

    // One that proved it before it was lost tells nothing against it, and proves it for itself only.
    let mut fleet = Fleet::new(2, rules);
    fleet.look(0);
    fleet.all_run();
    fleet.look(0);
    fleet.look(20 * SECOND_MS);
    fleet.members[0].connected = false;
    fleet.members[0].given_away = true;
    fleet.members.push(member(9));
    for _ in 0..100 {
        fleet.all_run();
        fleet.look(SECOND_MS);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.record.reason, "2 nodes proved version 2");
}

#[test]
fn more_canaries_than_connected_nodes_say_so_and_wait_no_longer_than_the_deadline() {
    let rules = Rules {
        canary: 3,
        ..Rules::default()
    };
    let mut fleet = Fleet::new(4, rules);
    for member in &mut fleet.members {
        member.connected = false;
    }
    // Before the first has it nothing is at stake: it waits for as long as it takes.
    for _ in 0..10 {
        fleet.look(1_000 * SECOND_MS);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    let why = "no node that it could go to is connected";
    assert_eq!(fleet.record.reason, why);

    fleet.members[0].connected = true;
    fleet.members[1].connected = true;
    assert_eq!(fleet.look(0), [0, 1]);
    assert_eq!(fleet.record.reason, "");
    fleet.all_run();
    fleet.look(0);
    fleet.look(10 * SECOND_MS);
    let why =
        "2 of 3 canaries proved version 2, and no other node that it could go to is connected";
    assert_eq!(fleet.record.reason, why);
    fleet.look(299 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    // A third comes: it goes on by itself.
    fleet.members[2].connected = true;
    assert_eq!(fleet.look(0), [2]);
    assert_eq!(fleet.record.reason, "");
    fleet.members[2].connected = false;
    fleet.members[2].execution = None;
    fleet.look(0);
    assert_eq!(fleet.record.reason, why);
    fleet.look(300 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Paused);
    assert_eq!(fleet.record.reason, format!("{why}, for 300s"));
}

#[test]
fn where_no_node_takes_it_the_reason_is_not_a_missing_connection_and_it_begins_when_one_does() {
    let mut fleet = Fleet::new(0, canary());
    for _ in 0..3 {
        assert_eq!(fleet.look(3600 * SECOND_MS), [0_usize; 0]);
        assert_eq!(fleet.record.phase, RolloutPhase::Canary);
        assert!(fleet.record.reason.starts_with("no node takes it now"));
    }
    fleet.members = vec![member(0)];
    assert_eq!(fleet.look(SECOND_MS), [0]);
    fleet.all_run();
    fleet.look(0);
    assert_eq!(fleet.record.reason, "");
    // Drained before it could prove anything: nothing is left of it.
    fleet.members.clear();
    fleet.look(SECOND_MS);
    assert!(fleet.record.reason.starts_with("no node takes it now"));
}

#[test]
fn one_that_went_away_holds_its_own_room_only() {
    let mut fleet = Fleet::new(50, Rules::default());
    fleet.look(0);
    fleet.members[2].connected = false;
    for _ in 0..1_000 {
        fleet.all_run();
        fleet.look(SECOND_MS);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.having(2), 50);
}

#[test]
fn case_91_while_it_is_paused_nobody_who_comes_is_started() {
    let mut fleet = Fleet::new(20, canary());
    for away in 10..20 {
        fleet.members[away].connected = false;
    }
    fleet.look(0);
    fleet.all_run();
    fleet.look(0);
    assert!(
        fleet
            .record
            .pause("an operator paused it".to_owned(), UnixMs(1))
    );
    assert!(!fleet.record.pause("twice".to_owned(), UnixMs(1)));
    for away in 10..20 {
        fleet.members[away].connected = true;
    }
    for _ in 0..100 {
        assert_eq!(fleet.look(SECOND_MS), [0_usize; 0]);
    }
    assert_eq!(fleet.having(2), 1);
    assert!(fleet.record.resume(&fleet.rules, UnixMs(2)));
    assert_eq!(
        fleet.look(SECOND_MS),
        [1, 2],
        "the canary has proven itself meanwhile"
    );
}

#[test]
fn trouble_from_before_proves_nothing_and_goes_last() {
    let mut fleet = Fleet::new(4, Rules::default());
    fleet.say(0, failed("its file is missing"));
    assert_eq!(fleet.look(0), [1]);
    for _ in 0..100 {
        fleet.all_run();
        if fleet.having(2) == 4 {
            fleet.say(0, failed("its file is missing"));
        }
        fleet.look(SECOND_MS);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.record.reason, "3 nodes proved version 2");
}

#[test]
fn a_fleet_in_trouble_proves_nothing() {
    let mut fleet = Fleet::new(2, Rules::default());
    for node in 0..2 {
        fleet.say(node, failed("no such file"));
    }
    for _ in 0..10 {
        for node in fleet.look(SECOND_MS) {
            fleet.say(node, failed("no such file"));
        }
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Paused);
    assert!(fleet.record.promote(UnixMs(1)));
}

#[test]
fn a_first_version_stops_and_goes_on_when_a_person_says_so() {
    let rules = Rules::default();
    let mut fleet = Fleet::new(12, rules);
    fleet.record = RolloutRecord::begin(Version(2), None, &rules, UnixMs(0));
    for member in &mut fleet.members {
        member.execution = None;
    }
    assert_eq!(fleet.look(0), [0, 1]);
    fleet.say(0, failed("no such file"));
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Paused);
    assert!(
        fleet.record.reason.contains("no older version"),
        "{}",
        fleet.record.reason
    );
    assert!(!fleet.record.abort("an operator".to_owned(), UnixMs(1)));
    assert!(fleet.record.resume(&rules, UnixMs(1)));
    for _ in 0..200 {
        fleet.all_run();
        fleet.say(0, failed("no such file"));
        fleet.look(SECOND_MS);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.having(2), 12);
}

#[test]
fn the_story_stays_within_a_screen() {
    let rules = Rules {
        max_parallel: sluice_model::pipeline::MaxParallel::Nodes(1),
        ..Rules::default()
    };
    let mut fleet = Fleet::new(60, rules);
    for _ in 0..1_000 {
        fleet.all_run();
        fleet.look(SECOND_MS);
    }
    assert_eq!(fleet.record.phase, RolloutPhase::Done);
    assert_eq!(fleet.record.events.len(), EVENTS_MAX);
    assert!(fleet.record.events[0].what.starts_with("version 2 begins"));
    let json = serde_json::to_string(&fleet.record).expect("JSON");
    let back: RolloutRecord = serde_json::from_str(&json).expect("what was written");
    assert_eq!(back, fleet.record);
}

#[test]
fn it_looks_again_when_time_may_have_changed_something() {
    let mut fleet = Fleet::new(3, canary());
    fleet.look(0);
    fleet.all_run();
    let now = Clocks {
        mono: MonotonicMs(0),
        unix: UnixMs(0),
    };
    let did = advance(
        &mut fleet.record,
        &fleet.rules,
        &fleet.members,
        &mut fleet.watch,
        now,
    );
    assert_eq!(did.look_again_at, Some(MonotonicMs(10 * SECOND_MS)));
}

#[test]
fn who_runs_a_candidate_that_has_not_proven_itself_proves_nothing_for_the_next() {
    let mut fleet = Fleet::new(4, canary());
    // The last candidate had reached two nodes when the next came, which runs the same.
    fleet.record.candidate = Version(3);
    for index in [0, 1] {
        let id = execution(index);
        let execution = Followed {
            same_content: true,
            ..followed(id, 2, RUNS)
        };
        fleet.members[usize::from(index)].execution = Some(execution);
    }
    assert_eq!(fleet.look(0), [0], "a canary like any other's");
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    assert!(fleet.record.proven.is_empty());
}

#[test]
fn heartbeats_that_are_rarer_than_the_deadline_fail_no_version_that_runs() {
    let mut fleet = Fleet::new(3, canary());
    assert_eq!(fleet.look(0), [0]);
    fleet.say(0, RUNS);
    let deadline = fleet.rules.deadline.as_millis() as u64;
    for _ in 0..10 {
        assert_eq!(fleet.look_in_silence(deadline).len(), 0);
        assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    }
    assert_eq!(fleet.look(SECOND_MS), [1], "its node was heard of");
    assert_eq!(fleet.record.phase, RolloutPhase::Rolling);
}

#[test]
fn counters_that_no_heartbeat_tells_pause_it_in_the_end() {
    let rules = Rules {
        error_rate_max: Some(0.01),
        min_healthy: Duration::from_secs(1),
        ..canary()
    };
    let mut fleet = Fleet::new(3, rules);
    fleet.look(0);
    fleet.all_run();
    fleet.look(0);
    fleet.look(300 * SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Canary);
    fleet.look(SECOND_MS);
    assert_eq!(fleet.record.phase, RolloutPhase::Paused);
    assert_eq!(
        fleet.record.reason,
        "e00 ran version 2 for long enough, and for 300s no heartbeat told what became of its records"
    );
}
