//! Rollouts against a hand-made edge: which counters judge a version, and what is forgotten with it.

use sluice_api::RolloutOrder;
use sluice_model::{JobName, RolloutPhase};
use sluice_protocol::Counters;

use super::*;

/// Longer than a rollout waits before it looks at the counters again.
const LOOK: Duration = Duration::from_secs(6);

fn name() -> JobName {
    "a".parse().unwrap()
}

fn judged(template: &str) -> String {
    let head =
        "name = \"a\"\nrollout = { canary = 1, min_healthy = \"1s\", error_rate_max = 0.01 }\n";
    format!("{head}[input.generate]\ntemplate = \"{template}\"\n[output.discard]\n")
}

/// An edge with one execution, whose reports have come so far.
struct Reporting {
    edge: Edge,
    conn: ConnId,
    reported: u64,
}

impl Reporting {
    fn begin(world: &mut World, name: &str, key: u8) -> Self {
        let mut edge = world.edge(name, key);
        let (conn, _) = world.begin(&mut edge);
        Self {
            edge,
            conn,
            reported: 0,
        }
    }

    /// Gets a new version, and says that it runs: with these counters in the row.
    fn runs(&mut self, world: &mut World, text: &str, counters: (u64, u64)) -> AssignmentRow {
        world.requests += 1;
        let deploy = Input::Api {
            request: RequestId(world.requests),
            call: Box::new(deploy_call(text)),
        };
        let outputs = world.handle(deploy);
        let row = world.apply(&mut self.edge, self.conn, &outputs).remove(0);
        let report = ObservedRow {
            records_in: counters.0,
            records_out: counters.0 - counters.1,
            dead_letters: counters.1,
            ..observed(&row, ObservedPhase::Running)
        };
        world.report(self.conn, &self.edge, self.reported, &report, false);
        self.reported += 1;
        row
    }

    /// Says nothing new in a heartbeat but these.
    fn counts(&self, world: &mut World, counters: &[(ExecutionId, u64, u64)]) {
        let counters = counters
            .iter()
            .map(|(execution, records_in, dead_letters)| Counters {
                execution: execution.to_bytes().to_vec(),
                records_in: *records_in,
                records_out: records_in - dead_letters,
                dead_letters: *dead_letters,
            });
        let heartbeat = Heartbeat {
            epoch: self.edge.life.0,
            desired: self.edge.desired.into(),
            observed: Position::default().into(),
            counters: counters.collect(),
            ..Heartbeat::default()
        };
        world.say(self.conn, edge_message::Kind::Heartbeat(heartbeat));
    }

    /// Time passes, in steps that are shorter than a heartbeat may be late.
    fn lives_on(&self, world: &mut World, time: Duration) {
        let end = world.now.mono.plus(time);
        while world.now.mono.0 < end.0 {
            world.pass(Duration::from_millis(500));
            self.counts(world, &[]);
        }
    }
}

impl World {
    fn rollout(&mut self) -> sluice_api::Rollout {
        match self.call(ApiCall::Rollout(name())).unwrap() {
            Reply::Rollout(rollout) => *rollout,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_version_is_not_judged_by_the_records_of_the_one_before() {
    let mut world = World::new();
    let mut edge = Reporting::begin(&mut world, "e1", 1);
    let row = edge.runs(&mut world, PIPELINE, (0, 0));
    // One in ten of the old version's records died, as a heartbeat told before its last ones were counted.
    edge.counts(&mut world, &[(row.execution, 1000, 100)]);
    edge.runs(&mut world, &judged("two"), (1010, 102));
    world.pass(Duration::from_millis(500));
    assert_eq!(world.rollout().phase, RolloutPhase::Canary);
    // What it counts itself began anew.
    edge.counts(&mut world, &[(row.execution, 200, 1)]);
    edge.lives_on(&mut world, LOOK);
    let shown = world.rollout();
    assert_eq!(shown.phase, RolloutPhase::Done, "{shown:#?}");
    // A process that has heard no heartbeat yet takes the row's totals for nothing.
    let row = edge.runs(&mut world, &judged("three"), (1010, 102));
    let fresh = World {
        now: world.now,
        requests: world.requests,
        conns: world.conns,
        ..World::new()
    };
    let store = world.core.into_store();
    let mut world = fresh.restart(store);
    world.pass(Duration::from_millis(500));
    assert_eq!(world.rollout().phase, RolloutPhase::Canary);

    let (conn, _) = world.begin(&mut edge.edge);
    edge.conn = conn;
    edge.lives_on(&mut world, 2 * LOOK);
    let waits = world.rollout();
    assert_eq!(waits.phase, RolloutPhase::Canary);
    let reason = waits.reason.unwrap();
    assert!(reason.contains("the next heartbeat tells"), "{reason}");
    edge.counts(&mut world, &[(row.execution, 90, 90)]);
    edge.lives_on(&mut world, LOOK);
    let shown = world.rollout();
    assert_eq!(shown.phase, RolloutPhase::RolledBack, "{shown:#?}");
    let reason = shown.reason.unwrap();
    assert!(reason.contains("90 of 90 records"), "{reason}");
}

#[test]
fn only_counters_of_a_nodes_own_executions_are_kept() {
    let mut world = World::new();
    let mut edge = Reporting::begin(&mut world, "e1", 1);
    let row = edge.runs(&mut world, PIPELINE, (0, 0));
    let other = Reporting::begin(&mut world, "e2", 2);
    let strange: Vec<(ExecutionId, u64, u64)> = (1..20_000_u128)
        .map(|n| (ExecutionId::from_random(n.to_be_bytes()), 1, 0))
        .collect();
    other.counts(&mut world, &strange);
    other.counts(&mut world, &[(row.execution, 9, 9)]);
    assert!(world.core.counters.is_empty(), "none of it is its own");
    edge.counts(&mut world, &[(row.execution, 7, 0), strange[0]]);
    let shown = world.executions();
    let counted: Vec<u64> = shown.iter().map(|it| it.records_in).collect();
    assert!(counted.contains(&7) && !counted.contains(&9), "{counted:?}");
    let kept: usize = world.core.counters.values().map(BTreeMap::len).sum();
    assert_eq!(kept, 1);
    // A session that comes again is known by what is on disk.
    let (conn, _) = world.begin(&mut edge.edge);
    edge.conn = conn;
    edge.counts(&mut world, &[(row.execution, 8, 0)]);
    let counted: Vec<u64> = world.executions().iter().map(|it| it.records_in).collect();
    assert!(counted.contains(&8), "{counted:?}");
}

#[test]
fn nothing_is_watched_of_a_job_that_is_stopped_or_deleted() {
    for call in [ApiCall::StopJob(name()), ApiCall::DeleteJob(name())] {
        let mut world = World::new();
        let mut edge = Reporting::begin(&mut world, "e1", 1);
        edge.runs(&mut world, &judged("one"), (0, 0));
        world
            .call(ApiCall::RolloutOrder(name(), RolloutOrder::Pause))
            .unwrap();
        assert_eq!(world.core.watches.len(), 1);
        world.call(call).unwrap();
        assert!(world.core.watches.is_empty());
        assert!(world.core.rollouts_due.is_empty());
    }
}
