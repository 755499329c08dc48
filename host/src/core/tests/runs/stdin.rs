//! What a launch brings for `[input.stdin]`.

use std::collections::BTreeSet;

use sluice_api::{CATCH_UP_DEFAULT, OVERLAP_DEFAULT, RunLaunch, ScheduleCreate};
use sluice_protocol::SpecStdin;

use super::*;

const BYTES: &[u8] = b"one\ntwo\n";

fn reader(name: &str) -> String {
    format!("name = \"{name}\"\nkind = \"batch\"\n[input.stdin]\n[output.discard]\n")
}

fn bringing(jobs: &[&str]) -> RunLaunch {
    RunLaunch {
        stdin: Some(Digest::of(BYTES)),
        ..launch_of(jobs)
    }
}

impl World {
    fn bring(&mut self, jobs: &[&str]) -> Result<Reply, ErrorBody> {
        let bytes = Some(BYTES.len() as u64);
        self.call(ApiCall::Launch(bringing(jobs), None, bytes))
    }

    fn stdins(&mut self) -> BTreeSet<Digest> {
        match self.call(ApiCall::StdinUse).unwrap() {
            Reply::StdinUse(stdins) => stdins,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn launches_nothing(&mut self, call: ApiCall, says: &[&str]) {
        let error = self.call(call).unwrap_err();
        let text = format!("{} {:?}", error.message, error.help);
        for says in says {
            assert!(text.contains(says), "{text}");
        }
        assert_eq!(self.runs(), []);
    }
}

#[test]
fn each_task_that_reads_stdin_gets_the_bytes_that_the_launch_brought() {
    let mut world = World::new();
    world.deploy(&reader("a"));
    world.deploy(&reader("b"));
    world.deploy(&batch("c", ""));
    let run = the_run(world.bring(&["a", "b", "c"]).unwrap());
    assert_eq!(run.stdin, Some(Digest::of(BYTES)));
    assert_eq!(world.run(run.id).stdin, run.stdin);
    let brought = Some(SpecStdin {
        digest: Digest::of(BYTES),
        size: 8,
    });
    for task in world.tasks(run.id) {
        let stdin = world.core.spec_of(task.spec).unwrap().stdin;
        let expected = brought.filter(|_| task.job_name.as_str() != "c");
        assert_eq!(stdin, expected, "{}", task.job_name);
    }
    let (mut edge, conn) = connected(&mut world, "e1", 1);
    world.placed(&mut edge, conn);
    let may_pull =
        |world: &mut World, bytes: &[u8]| world.core.may_pull(conn, Digest::of(bytes)).unwrap();
    assert!(may_pull(&mut world, BYTES));
    assert!(!may_pull(&mut world, b"something else"));
}

#[test]
fn a_launch_without_what_its_job_reads_or_with_what_nobody_reads_is_refused() {
    let mut world = World::new();
    world.deploy(&reader("a"));
    world.deploy(&batch("c", ""));
    let without = ApiCall::Launch(launch_of(&["a"]), None, None);
    world.launches_nothing(
        without,
        &["a reads `[input.stdin]`", "--stdin FILE", "schedule"],
    );
    let both = ApiCall::Launch(launch_of(&["a", "c"]), None, None);
    world.launches_nothing(both, &["a reads `[input.stdin]`"]);
    let unread = ApiCall::Launch(bringing(&["c"]), None, Some(8));
    world.launches_nothing(unread, &["nothing of it reads that: c"]);
    let lacking = ApiCall::Launch(bringing(&["a"]), None, None);
    world.launches_nothing(lacking, &["is not on the orchestrator", "PUT /v1/stdin/"]);
    let schedule = ScheduleCreate {
        name: "s".parse().unwrap(),
        job: "a".parse().unwrap(),
        cron: None,
        tz: None,
        every: Some("1h".to_owned()),
        overlap: OVERLAP_DEFAULT,
        catch_up: CATCH_UP_DEFAULT,
        jitter: None,
        params: Default::default(),
        nodes: Vec::new(),
    };
    let call = ApiCall::CreateSchedule(schedule);
    world.launches_nothing(call, &["the schedule could not launch", "`[input.stdin]`"]);
    let daemon = "name = \"d\"\n[input.stdin]\n[output.discard]\n".to_owned();
    let request = sluice_api::DeployRequest {
        pipeline: daemon,
        plugins: Default::default(),
        dry_run: false,
    };
    world.launches_nothing(
        ApiCall::Deploy(request, Default::default()),
        &["kind = \"batch\"", "sluice run launch JOB --stdin FILE"],
    );
}

#[test]
fn what_a_launch_brings_is_part_of_what_its_key_names() {
    let mut world = World::new();
    world.deploy(&reader("a"));
    let key = Some("k".to_owned());
    let launch = |stdin: &[u8]| RunLaunch {
        stdin: Some(Digest::of(stdin)),
        ..launch_of(&["a"])
    };
    let run = the_run(
        world
            .call(ApiCall::Launch(launch(BYTES), key.clone(), Some(8)))
            .unwrap(),
    );
    // Repeated when the bytes are gone, it still is that run.
    let again = world.call(ApiCall::Launch(launch(BYTES), key.clone(), None));
    assert_eq!(the_run(again.unwrap()).id, run.id);
    let other = world
        .call(ApiCall::Launch(launch(b"x"), key, Some(1)))
        .unwrap_err();
    assert_eq!(other.code, ErrorCode::Conflict);
}

#[test]
fn what_a_launch_brought_is_kept_while_its_run_is_open() {
    let mut world = World::new();
    world.deploy(&reader("a"));
    assert_eq!(world.stdins(), BTreeSet::new());
    let first = the_run(world.bring(&["a"]).unwrap());
    let second = the_run(world.bring(&["a"]).unwrap());
    let brought = BTreeSet::from([Digest::of(BYTES)]);
    assert_eq!(world.stdins(), brought);
    world.call(ApiCall::CancelRun(first.id)).unwrap();
    assert_eq!(world.stdins(), brought, "another run reads it");
    // Active, too.
    let mut edge = world.edge("e1", 1);
    let (conn, outputs) = world.begin(&mut edge);
    let rows = world.apply(&mut edge, conn, &outputs);
    assert_eq!(world.run(second.id).state, RunState::Running);
    assert_eq!(world.stdins(), brought);
    let report = observed(&rows[0], ObservedPhase::Completed);
    world.report(conn, &edge, 0, &report, true);
    assert_eq!(world.run(second.id).state, RunState::Completed);
    assert_eq!(world.stdins(), BTreeSet::new());
}
