//! Versions that were good and versions that never were; and once more from the start.

use sluice_api::{NodeOrder, RolloutOrder};
use sluice_model::{Desired, JobName};

use super::*;

fn name() -> JobName {
    "a".parse().unwrap()
}

fn text(head: &str, template: &str) -> String {
    format!("name = \"a\"\n{head}[input.generate]\ntemplate = \"{template}\"\n[output.discard]\n")
}

const CANARY: &str = "[rollout]\ncanary = 1\n";

impl World {
    fn roll_back(&mut self, to: Option<u64>) -> Result<(u64, u64, String), ErrorBody> {
        let reply = self.call(ApiCall::Rollback(name(), to.map(Version)))?;
        let Reply::Deploy(reply) = reply else {
            panic!("{reply:?}")
        };
        let back_to = reply.rolled_back_to.unwrap().0;
        Ok((reply.version.0, back_to, reply.changes[0].clone()))
    }

    fn order_rollout(&mut self, order: RolloutOrder) -> sluice_api::Rollout {
        match self.call(ApiCall::RolloutOrder(name(), order)).unwrap() {
            Reply::Rollout(rollout) => *rollout,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_rollback_goes_to_what_was_good_and_says_to_which() {
    let mut world = World::new();
    world.deploy(&text("", "one"));
    world.deploy(&text(CANARY, "two"));
    // A version that a person gave up is not brought back by the next who asks for the version before.
    let shown = world.order_rollout(RolloutOrder::Abort);
    assert_eq!(shown.canary, 1, "the rules are those of the new version");
    let error = world.roll_back(None).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("--to VERSION"), "{}", error.message);
    // Who names it gets it.
    let said = "version 4 is version 2 again".to_owned();
    assert_eq!(world.roll_back(Some(2)).unwrap(), (4, 2, said));
    world.order_rollout(RolloutOrder::Promote);

    // While one is on its way, the one before is the good one.
    world.deploy(&text(CANARY, "three"));
    assert_eq!(world.roll_back(None).unwrap().1, 4);
    // One that was promoted is good from then on.
    world.deploy(&text(CANARY, "four"));
    world.order_rollout(RolloutOrder::Promote);
    world.deploy(&text(CANARY, "five"));
    let (version, back_to, _) = world.roll_back(None).unwrap();
    assert_eq!((version, back_to), (9, 7));
}

#[test]
fn who_goes_back_twice_never_meets_what_was_given_up() {
    let mut world = World::new();
    for template in ["one", "two", "three"] {
        world.deploy(&text("", template));
    }
    // The third reached every node and was bad all the same.
    assert_eq!(world.roll_back(None).unwrap().1, 2);
    assert_eq!(world.roll_back(None).unwrap().1, 1, "not the third");
    let error = world.roll_back(None).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict, "nothing is older");
    // What came after is counted from where it stands: version 5, which has the first one's content.
    world.deploy(&text("", "six"));
    assert_eq!(world.roll_back(None).unwrap().1, 5);
    world.roll_back(Some(6)).unwrap();
    assert_eq!(world.roll_back(None).unwrap().1, 5, "it was named");
    // The same content is no version before.
    for template in ["ten", "one", "ten"] {
        world.deploy(&text("", template));
    }
    let said = "version 13 is version 11 again".to_owned();
    assert_eq!(world.roll_back(None).unwrap(), (13, 11, said));
}

#[test]
fn a_version_that_never_was_good_has_to_prove_itself_when_it_is_brought_back() {
    let mut world = World::new();
    for (name, key) in [("e1", 1), ("e2", 2), ("e3", 3)] {
        let mut edge = world.edge(name, key);
        world.begin(&mut edge);
    }
    world.deploy(&text("", "one"));
    world.deploy(&text(CANARY, "bad"));
    world.order_rollout(RolloutOrder::Abort);
    world.roll_back(Some(2)).unwrap();
    let mut versions: Vec<u64> = world.executions().iter().map(|it| it.version.0).collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 1, 4], "the canary alone has it");
    let shown = world.order_rollout(RolloutOrder::Pause);
    let known = (shown.candidate.0, shown.good.map(|it| it.0));
    assert_eq!(known, (4, Some(3)));
    let job = world
        .core
        .store_mut()
        .job_by_name(&name())
        .unwrap()
        .unwrap();
    let history = world.core.store_mut().history(job.id).unwrap();
    let good: Vec<u64> = history
        .iter()
        .filter(|it| it.good)
        .map(|it| it.version.0)
        .collect();
    assert_eq!(good, [3, 1], "nothing says that it is good");
    // And it is undone like any other.
    world.order_rollout(RolloutOrder::Abort);
    assert_eq!(world.roll_back(None).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn what_keeps_a_rollout_and_what_it_waits_for_is_said_wherever_the_job_is_shown() {
    let mut world = World::new();
    world.deploy(&text("", "one"));
    world.edge("e1", 1);
    world.deploy(&text(CANARY, "two"));
    let reason = "no node that it could go to is connected";
    let next = "when a node that it could go to connects";
    let described = match world.call(ApiCall::Job(name())).unwrap() {
        Reply::JobDetail(detail) => detail.job,
        other => panic!("{other:?}"),
    };
    let listed = match world.call(ApiCall::Status).unwrap() {
        Reply::Status(status) => status.jobs.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    };
    for job in [described, listed] {
        let rollout = job.rollout.unwrap();
        assert_eq!(rollout.reason.as_deref(), Some(reason));
        assert_eq!(rollout.next_action.as_deref(), Some(next));
    }
    let why = match world.call(ApiCall::Explain(name())).unwrap() {
        Reply::Explain(explain) => explain.why,
        other => panic!("{other:?}"),
    };
    assert!(why.contains(reason) && why.contains(next), "{why}");
    for (order, next) in [
        (RolloutOrder::Pause, "sluice rollout resume a"),
        (RolloutOrder::Abort, "nothing"),
    ] {
        let shown = world.order_rollout(order);
        assert!(shown.next.contains(next), "{}", shown.next);
    }
}

#[test]
fn a_restart_does_nothing_on_a_drained_node_and_what_ended_there_is_done_elsewhere() {
    let mut world = World::new();
    let mut first = world.edge("e1", 1);
    let (conn, _) = world.begin(&mut first);
    world.deploy(&text("kind = \"replicas\"\ncount = 1\n", "x"));
    let outputs = world.pass(Duration::from_millis(1));
    let outputs = if rows(&outputs).is_empty() {
        let (_, outputs) = world.begin(&mut first);
        outputs
    } else {
        outputs
    };
    let conn = ConnId(conn.0.max(world.conns));
    let given = world.apply(&mut first, conn, &outputs);
    let [row] = given.as_slice() else {
        panic!("{given:?}")
    };
    let ended = observed(row, ObservedPhase::Completed);
    world.report(conn, &first, 0, &ended, true);
    let drain = ApiCall::OrderNode("e1".parse().unwrap(), NodeOrder::Drain);
    world.call(drain).unwrap();
    let mut second = world.edge("e2", 2);
    world.begin(&mut second);
    assert_eq!(
        world.executions().len(),
        1,
        "what has ended keeps its place"
    );

    world.call(ApiCall::RestartJob(name())).unwrap();
    let executions = world.executions();
    let shown: Vec<(&str, Desired, u64)> = executions
        .iter()
        .map(|it| (it.node.as_str(), it.desired, it.attempt.0))
        .collect();
    assert_eq!(
        shown,
        [("e1", Desired::Stop, 1), ("e2", Desired::Run, 1)],
        "in the same round, not at the next sweep"
    );
}

#[test]
fn case_97_a_thousand_updates_in_one_round_trip_are_one_more_message() {
    const UPDATES: u64 = 1_000;
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, outputs) = world.begin(&mut edge);
    world.apply(&mut edge, conn, &outputs);
    let mut sent = Vec::new();
    for n in 1..=UPDATES {
        let outputs = world.handle(Input::Api {
            request: RequestId(n),
            call: Box::new(deploy_call(&text("", &format!("x{n}")))),
        });
        sent.extend(rows(&outputs));
    }
    assert_eq!(sent.len(), 1, "its ack is on its way");
    let revision = |world: &mut World| {
        let position = world.core.store_mut().desired_position(edge.node);
        position.unwrap().rev.0
    };
    assert!(revision(&mut world) >= UPDATES, "each of them was ordered");
    // The acks come: what follows the first is the newest version, once.
    let mut versions = Vec::new();
    while let Some(last) = sent.pop() {
        let received = Received {
            epoch: edge.life.0,
            rev: last.to.rev,
        };
        sent = rows(&world.say(conn, edge_message::Kind::Received(received)));
        let upserts = sent.iter().flat_map(|rows| &rows.upserts);
        versions.extend(upserts.map(|row| AssignmentRow::decode(&row.body).unwrap().version));
    }
    assert_eq!(versions, [Version(UPDATES)]);
}
