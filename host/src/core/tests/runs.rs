//! Runs: launched whole or not at all, each task claimed by one, executed once, ended once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_api::{Run, RunLaunch};
use sluice_model::{Desired, FailReason, Fence, JobState, RunId, RunState, TaskState};

use super::*;
use crate::store::{Kept, RunStore as _, TaskClaim, TaskEnd, TaskPhase, TaskRecord};

mod claims;
mod placing;
mod stdin;

fn batch(name: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nkind = \"batch\"\n{more}\n[input.generate]\ncount = 1\ntemplate = \"x\"\n[output.discard]\n"
    )
}

fn launch_of(jobs: &[&str]) -> RunLaunch {
    RunLaunch {
        jobs: jobs.iter().map(|job| job.parse().unwrap()).collect(),
        ..RunLaunch::default()
    }
}

fn kept(runs: usize) -> Kept {
    let tasks = usize::MAX;
    Kept { runs, tasks }
}

fn the_run(reply: Reply) -> Run {
    match reply {
        Reply::Run(run) | Reply::LaunchedBefore(run) => *run,
        other => panic!("{other:?}"),
    }
}

impl World {
    fn launch(&mut self, jobs: &[&str]) -> Run {
        the_run(
            self.call(ApiCall::Launch(launch_of(jobs), None, None))
                .unwrap(),
        )
    }

    fn run(&mut self, id: RunId) -> Run {
        the_run(self.call(ApiCall::Run(id)).unwrap())
    }

    fn runs(&mut self) -> Vec<Run> {
        match self.call(ApiCall::Runs(Default::default())).unwrap() {
            Reply::Runs(sluice_api::Page { items: runs, .. }) => runs,
            other => panic!("{other:?}"),
        }
    }

    fn tasks(&mut self, run: RunId) -> Vec<TaskRecord> {
        self.core.store_mut().tasks_of_run(run).unwrap()
    }

    fn job_state(&mut self, name: &str) -> JobState {
        match self.call(ApiCall::Job(name.parse().unwrap())).unwrap() {
            Reply::JobDetail(detail) => detail.job.state,
            other => panic!("{other:?}"),
        }
    }

    /// Places what waits: what the next tick's outputs say to an edge, applied there.
    fn placed(&mut self, edge: &mut Edge, conn: ConnId) -> Vec<AssignmentRow> {
        let outputs = self.pass(Duration::from_millis(10));
        self.apply(edge, conn, &outputs)
    }
}

/// An edge, connected, that has what was ordered before.
fn connected(world: &mut World, name: &str, key: u8) -> (Edge, ConnId) {
    let mut edge = world.edge(name, key);
    let (conn, outputs) = world.begin(&mut edge);
    world.apply(&mut edge, conn, &outputs);
    (edge, conn)
}

#[test]
fn case_24_27_a_launch_is_kept_until_it_can_run_and_each_task_is_executed_once() {
    let mut world = World::new();
    world.deploy(&batch("a", ""));
    world.deploy(&batch("b", ""));
    assert_eq!(world.job_state("a"), JobState::Queued);
    assert_eq!(world.executions().len(), 0, "deploying launches nothing");
    let run = world.launch(&["a", "b"]);
    assert_eq!((run.state, run.tasks.len()), (RunState::Pending, 2));
    for task in &run.tasks {
        assert_eq!(task.state, TaskState::Pending);
        assert!(
            task.reason
                .as_ref()
                .unwrap()
                .contains("no node has joined yet")
        );
        assert!(task.next_action.is_some());
    }
    // The process dies; what was answered is there.
    let store = world.core.store_mut().fork().unwrap();
    let mut world = world.restart(store);
    assert_eq!(world.run(run.id).tasks.len(), 2);
    let (mut edge, conn) = connected(&mut world, "e1", 1);
    world.placed(&mut edge, conn);
    assert_eq!(world.executions().len(), 2);
    let run = world.run(run.id);
    assert_eq!(run.state, RunState::Running);
    assert!(run.claimed_by.is_some() && run.claimed_until.is_some());
    let executions = world.executions();
    assert!(executions.iter().all(|it| it.desired == Desired::Run));
    for _ in 0..3 {
        world.pass(Duration::from_secs(31));
    }
    assert_eq!(
        world.executions().len(),
        2,
        "looking again makes nothing anew"
    );
}

/// The store fails at these of its calls from now on; whether it has.
fn fail_at(world: &mut World, calls: std::ops::Range<u64>) -> Arc<AtomicBool> {
    let was_hit = Arc::new(AtomicBool::new(false));
    let (mut count, noted) = (0, Arc::clone(&was_hit));
    let hook = move |point: &'static str| {
        count += 1;
        if calls.contains(&(count - 1)) {
            noted.store(true, Ordering::Relaxed);
            return Err(StoreError::Injected { point });
        }
        Ok(())
    };
    world.core.store_mut().set_fault_hook(Some(Box::new(hook)));
    was_hit
}

#[test]
fn case_25_a_launch_that_fails_at_any_call_of_its_store_leaves_nothing() {
    let mut faults = 0;
    for call in 0.. {
        let mut world = World::new();
        world.deploy(&batch("a", "count = 3"));
        world.deploy(&batch("b", ""));
        let was_hit = fail_at(&mut world, call..call + 1);
        let launched = world.call(ApiCall::Launch(launch_of(&["a", "b"]), None, None));
        world.core.store_mut().set_fault_hook(None);
        // What memory says, and what a crash would leave.
        let disk = world.core.store_mut().fork().unwrap();
        let after = World::new().restart(disk);
        for mut world in [world, after] {
            let tasks = if launched.is_ok() { 4 } else { 0 };
            let runs = world.runs();
            assert_eq!(runs.len(), usize::from(tasks > 0), "at call {call}");
            assert!(
                runs.iter().all(|run| run.tasks.len() == 4),
                "at call {call}"
            );
            let store = world.core.store_mut();
            assert_eq!(store.open_tasks().unwrap(), tasks, "at call {call}");
            let groups = store.waiting_groups(None, 10).unwrap();
            assert_eq!(
                groups.len(),
                if tasks > 0 { 2 } else { 0 },
                "at call {call}"
            );
        }
        if !was_hit.load(Ordering::Relaxed) {
            assert!(launched.is_ok());
            break;
        }
        faults += 1;
    }
    assert!(faults > 10, "{faults} calls");
}

#[test]
fn case_25_a_launch_that_is_repeated_is_one_run() {
    let mut world = World::new();
    world.deploy(&batch("a", "count = 3"));
    let key = Some("once".to_owned());
    // The same launch, asked again, is one run, however often.
    let first = the_run(
        world
            .call(ApiCall::Launch(launch_of(&["a"]), key.clone(), None))
            .unwrap(),
    );
    let again = the_run(
        world
            .call(ApiCall::Launch(launch_of(&["a"]), key.clone(), None))
            .unwrap(),
    );
    assert_eq!((first.id, first.tasks.len()), (again.id, 3));
    assert_eq!(world.runs().len(), 1);
    world.deploy(&batch("b", ""));
    let other = world
        .call(ApiCall::Launch(launch_of(&["b"]), key, None))
        .unwrap_err();
    assert_eq!(other.code, ErrorCode::Conflict);
}

#[test]
fn a_key_holds_while_its_run_is_kept_and_for_a_day_at_least() {
    let mut world = World::new();
    for job in ["a", "b"] {
        world.deploy(&batch(job, ""));
    }
    let launch = |world: &mut World, job: &str| {
        let key = Some("once".to_owned());
        world.call(ApiCall::Launch(launch_of(&[job]), key, None))
    };
    let first = match launch(&mut world, "a").unwrap() {
        Reply::Run(run) => run,
        other => panic!("{other:?}"),
    };
    assert!(
        matches!(launch(&mut world, "a"), Ok(Reply::LaunchedBefore(run)) if run.id == first.id)
    );
    world.call(ApiCall::CancelRun(first.id)).unwrap();
    world.core.store_mut().sweep_runs(0, kept(0), 100).unwrap();
    assert_eq!(world.runs(), []);
    // The run is forgotten, and the launch is not made again.
    let spent = launch(&mut world, "a").unwrap_err();
    assert_eq!(spent.code, ErrorCode::Conflict);
    assert!(
        spent.message.contains(&first.id.to_string()),
        "{}",
        spent.message
    );
    let other = launch(&mut world, "b").unwrap_err();
    assert!(
        other.message.contains("another launch"),
        "{}",
        other.message
    );
    // A clock that is ahead for one look makes it no older.
    let real = world.now.unix;
    world.now.unix = real.plus(Duration::from_secs(60 * 86_400));
    world.pass(Duration::from_secs(31));
    world.now.unix = real;
    world.pass(Duration::from_secs(31));
    launch(&mut world, "a").unwrap_err();
    assert_eq!(world.runs(), []);
    world.pass(Duration::from_secs(86_400));
    let second = the_run(launch(&mut world, "b").unwrap());
    assert_ne!(first.id, second.id);
}

#[test]
fn of_keys_whose_runs_are_forgotten_the_newest_are_kept() {
    let mut world = World::new();
    world.deploy(&batch("a", ""));
    for n in 0..5 {
        let key = Some(format!("key {n}"));
        let call = ApiCall::Launch(launch_of(&["a"]), key, None);
        let run = the_run(world.call(call).unwrap());
        world.call(ApiCall::CancelRun(run.id)).unwrap();
    }
    let store = world.core.store_mut();
    store.sweep_runs(0, kept(0), 100).unwrap();
    let known = |store: &mut SqliteStore| {
        let known = |n: &u32| store.spent_key(&format!("key {n}")).unwrap().is_some();
        (0..5).filter(known).collect::<Vec<_>>()
    };
    assert_eq!(known(store), [0, 1, 2, 3, 4]);
    assert!(store.sweep_keys(UnixMs(0), 2, 1).unwrap());
    assert_eq!(known(store), [1, 2, 3, 4]);
    assert!(!store.sweep_keys(UnixMs(0), 2, 100).unwrap());
    assert_eq!(known(store), [3, 4]);
}

/// One waiting task in a store, and a node for it.
fn one_task() -> (World, TaskRecord, Edge) {
    let mut world = World::new();
    let edge = world.edge("e1", 1);
    world.deploy(&batch("a", ""));
    let run = world.launch(&["a"]);
    let task = world.tasks(run.id).remove(0);
    assert_eq!(task.phase, TaskPhase::Waiting, "its node is not connected");
    (world, task, edge)
}

fn claim(world: &mut World, seq: u64, node: NodeId, worker: &str, now: i64) -> Option<TaskRecord> {
    let name = "e1".parse().unwrap();
    let claim = TaskClaim {
        seq,
        worker,
        now: UnixMs(now),
        until: UnixMs(now + 30_000),
        node: (node, &name),
        execution: ExecutionId::from_random([7; 16]),
        exposed: false,
        deadline: None,
        limits: &TaskLimits::default(),
    };
    world.core.store_mut().claim_task(&claim).unwrap()
}

fn completed(now: i64) -> TaskEnd {
    TaskEnd {
        state: Some(TaskState::Completed),
        ..TaskEnd::waiting(UnixMs(now))
    }
}

#[test]
fn a_list_of_runs_filters_by_the_state_that_it_shows() {
    let (mut world, _, edge) = one_task();
    world.deploy(&batch("pair", "count = 2"));
    let now = world.now.unix.0;
    let ends = [
        ("a", Some(TaskState::Completed)),
        ("a", Some(TaskState::Failed)),
        ("a", Some(TaskState::Cancelled)),
        ("a", Some(TaskState::TimedOut)),
        // Its other task waits.
        ("pair", Some(TaskState::Completed)),
        ("a", None),
    ];
    for (job, state) in ends {
        let run = world.launch(&[job]);
        let task = world.tasks(run.id).remove(0);
        let claimed = claim(&mut world, task.seq, edge.node, "w", now).unwrap();
        if state.is_some() {
            let at = UnixMs(now);
            let end = TaskEnd {
                state,
                ..TaskEnd::waiting(at)
            };
            let store = world.core.store_mut();
            assert!(store.end_try(task.seq, "w", claimed.fence, &end).unwrap());
        }
    }
    let all = world.runs();
    assert_eq!(all.len(), 7);
    for (state, count) in [
        (RunState::Pending, 1),
        (RunState::Running, 2),
        (RunState::Completed, 1),
        (RunState::Failed, 1),
        (RunState::Cancelled, 1),
        (RunState::TimedOut, 1),
    ] {
        let filter = sluice_api::RunFilter {
            state: Some(state),
            ..Default::default()
        };
        let Ok(Reply::Runs(page)) = world.call(ApiCall::Runs(filter)) else {
            panic!("no list of what is {state}");
        };
        let shown: Vec<Run> = all.iter().filter(|it| it.state == state).cloned().collect();
        assert_eq!(page.items, shown, "{state}");
        assert_eq!(shown.len(), count, "{state}");
    }
}

#[test]
fn case_26_of_two_schedulers_one_claims() {
    let (mut world, task, edge) = one_task();
    let now = world.now.unix.0;
    let won = claim(&mut world, task.seq, edge.node, "first", now).unwrap();
    assert_eq!((won.fence, won.attempt), (Fence(1), Attempt(1)));
    assert_eq!(claim(&mut world, task.seq, edge.node, "second", now), None);
}

#[test]
fn case_28_29_a_claim_that_ran_out_is_taken_over_and_its_late_owner_is_refused() {
    let (mut world, task, edge) = one_task();
    let now = world.now.unix.0;
    let old = claim(&mut world, task.seq, edge.node, "dead", now).unwrap();
    let store = world.core.store_mut();
    let until = UnixMs(now + 90_000);
    assert_eq!(
        store.reclaim_tasks("next", UnixMs(now + 1), until).unwrap(),
        0
    );
    assert_eq!(
        store
            .reclaim_tasks("next", UnixMs(now + 40_000), until)
            .unwrap(),
        1
    );
    let new = store.tasks_of_run(task.run).unwrap().remove(0);
    assert_eq!(
        (new.fence, new.attempt),
        (Fence(2), Attempt(1)),
        "the work is the same"
    );
    let late = store.end_try(task.seq, "dead", old.fence, &completed(now));
    assert!(!late.unwrap(), "it lost its claim");
    let wrong = store.end_try(task.seq, "next", old.fence, &completed(now));
    assert!(!wrong.unwrap(), "an older fence");
    assert!(
        store
            .end_try(task.seq, "next", new.fence, &completed(now))
            .unwrap()
    );
    let twice = store.end_try(task.seq, "next", new.fence, &completed(now));
    assert!(!twice.unwrap(), "what has ended has ended");
}

#[test]
fn case_31_at_every_write_a_crash_leaves_a_task_that_is_executed_once() {
    let mut faults = 0;
    for write in 0.. {
        let mut world = World::new();
        world.deploy(&batch("a", ""));
        let (edge, _) = connected(&mut world, "e1", 1);
        let was_hit = fail_at(&mut world, write..u64::MAX);
        let launched = world.call(ApiCall::Launch(launch_of(&["a"]), None, None));
        world.pass(Duration::from_secs(1));
        // A crash: what was committed is what there is.
        let store = world.core.store_mut().fork().unwrap();
        let mut world = world.restart(store);
        let mut edge = Edge::new(edge.node, 1);
        edge.boot = (2, [2; 16]);
        let (conn, outputs) = world.begin(&mut edge);
        world.apply(&mut edge, conn, &outputs);
        world.pass(Duration::from_secs(1));
        let runs = world.runs();
        assert!(runs.len() <= 1);
        assert!(launched.is_err() || runs.len() == 1, "an answer was given");
        assert_eq!(world.executions().len(), runs.len(), "at write {write}");
        for run in &runs {
            assert_eq!(run.tasks[0].attempt, Attempt(1));
        }
        if !was_hit.load(Ordering::Relaxed) {
            assert_eq!((launched.is_ok(), runs.len()), (true, 1));
            break;
        }
        faults += 1;
    }
    assert!(faults > 20, "{faults} writes");
}

#[test]
fn case_41_an_edge_that_lost_its_store_does_not_run_a_task_twice_unless_that_does_no_harm() {
    for idempotent in [false, true] {
        let mut world = World::new();
        world.deploy(&batch("a", &format!("idempotent = {idempotent}")));
        let (mut edge, conn) = connected(&mut world, "e1", 1);
        let run = world.launch(&["a"]);
        world.placed(&mut edge, conn);
        world.handle(Input::Closed { conn });
        edge.incarnation = [9; 16];
        edge.desired = Position::default();
        edge.boot = (1, [3; 16]);
        world.pass(Duration::from_secs(5));
        let (_, outputs) = world.begin(&mut edge);
        let sent: Vec<Desired> = rows(&outputs)
            .iter()
            .flat_map(|rows| &rows.upserts)
            .map(|row| AssignmentRow::decode(&row.body).unwrap().desired)
            .collect();
        let run = world.run(run.id);
        if idempotent {
            assert_eq!(sent, [Desired::Run]);
            assert_eq!(run.state, RunState::Running);
        } else {
            assert_eq!(sent, [Desired::Stop]);
            assert_eq!(run.state, RunState::Failed);
            assert_eq!(run.tasks[0].reason_code, Some(FailReason::Indeterminate));
        }
    }
}

#[test]
fn parameters_are_checked_before_anything_is_stored() {
    let mut world = World::new();
    world.deploy(&batch(
        "a",
        "[params]\nday = { type = \"string\" }\ntop = { type = \"integer\", default = 3 }",
    ));
    let mut launch = launch_of(&["a"]);
    launch.params.insert("top".to_owned(), "many".to_owned());
    launch.params.insert("dya".to_owned(), "x".to_owned());
    let error = world
        .call(ApiCall::Launch(launch.clone(), None, None))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    let detail = error.detail.unwrap();
    for problem in [
        "needs the parameter `day`",
        "`many` is not",
        "no parameter `dya`",
    ] {
        assert!(detail.contains(problem), "{detail}");
    }
    assert_eq!(world.runs(), []);
    launch.params = BTreeMap::from([("day".to_owned(), "monday".to_owned())]);
    let run = the_run(world.call(ApiCall::Launch(launch, None, None)).unwrap());
    assert_eq!(run.params["day"], "monday");
    world.deploy(PIPELINE.replace("\"a\"", "\"d\"").as_str());
    let error = world
        .call(ApiCall::Launch(launch_of(&["d"]), None, None))
        .unwrap_err();
    assert!(
        error.message.contains("d is no batch job"),
        "{}",
        error.message
    );
}

#[test]
fn a_run_that_is_called_off_ends_and_a_deleted_job_leaves_nothing_on_its_edges() {
    let mut world = World::new();
    world.deploy(&batch("a", "concurrency = 1"));
    let (mut edge, conn) = connected(&mut world, "e1", 1);
    let first = world.launch(&["a"]);
    let second = world.launch(&["a"]);
    world.placed(&mut edge, conn);
    let cancelled = the_run(world.call(ApiCall::CancelRun(second.id)).unwrap());
    assert_eq!(cancelled.state, RunState::Cancelled);
    let stopping = the_run(world.call(ApiCall::CancelRun(first.id)).unwrap());
    assert_eq!(
        stopping.state,
        RunState::Running,
        "the edge has not stopped it yet"
    );
    assert_eq!(world.executions()[0].desired, Desired::Stop);
    world.handle(Input::Closed { conn });
    world.pass(Duration::from_secs(1));
    assert_eq!(
        world.run(first.id).state,
        RunState::Running,
        "it may run there"
    );
    for _ in 0..70 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.run(first.id).state, RunState::Cancelled, "it is lost");
    world
        .call(ApiCall::DeleteJob("a".parse().unwrap()))
        .unwrap();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.executions()[0].desired, Desired::Purge);
    assert_eq!(world.runs().len(), 2, "what happened is kept");
}

#[test]
fn old_runs_are_forgotten_a_few_rows_at_a_time_and_none_that_is_under_way() {
    let mut world = World::new();
    world.deploy(&batch(
        "a",
        "count = 2\n[params]\nn = { type = \"string\" }",
    ));
    let runs: Vec<RunId> = (0..8)
        .map(|n| {
            let mut launch = launch_of(&["a"]);
            launch.params.insert("n".to_owned(), format!("text {n}"));
            the_run(world.call(ApiCall::Launch(launch, None, None)).unwrap()).id
        })
        .collect();
    for run in &runs[1..] {
        world.call(ApiCall::CancelRun(*run)).unwrap();
    }
    let left = |world: &mut World| {
        let mut left: Vec<RunId> = world.runs().into_iter().map(|run| run.id).collect();
        left.reverse();
        left
    };
    // The first is open, the second goes with its two tasks, and that is enough.
    let (after, more) = world.core.store_mut().sweep_runs(0, kept(2), 4).unwrap();
    assert!(more);
    let expected: Vec<RunId> = [&runs[..1], &runs[2..]].concat();
    assert_eq!(left(&mut world), expected);
    assert_eq!(world.tasks(runs[1]), []);
    let (after, more) = world
        .core
        .store_mut()
        .sweep_runs(after, kept(2), 100)
        .unwrap();
    assert!(!more);
    let expected: Vec<RunId> = [&runs[..1], &runs[6..]].concat();
    assert_eq!(left(&mut world), expected, "the newest two stay");
    assert_eq!(
        world
            .core
            .store_mut()
            .sweep_runs(after, kept(2), 1)
            .unwrap(),
        (after, false)
    );
    // What ended behind it is found by a look at all.
    world.call(ApiCall::CancelRun(runs[0])).unwrap();
    world.core.store_mut().sweep_runs(0, kept(2), 100).unwrap();
    assert_eq!(left(&mut world), runs[6..]);
    // Their specs go as well, but for the job's own.
    let store = world.core.store_mut();
    assert_eq!(store.specs_in_use().unwrap().len(), 9);
    let mut after = None;
    for _ in 0..9 {
        after = store.sweep_specs(after, 1).unwrap();
    }
    assert!(after.is_some());
    assert_eq!(store.sweep_specs(after, 1).unwrap(), None);
    assert_eq!(store.specs_in_use().unwrap().len(), 1);
}

#[test]
fn old_runs_are_forgotten_for_their_tasks_too_and_each_is_kept_whole() {
    let mut world = World::new();
    world.deploy(&batch("a", "count = 3"));
    let runs: Vec<RunId> = (0..4).map(|_| world.launch(&["a"]).id).collect();
    for run in &runs {
        world.call(ApiCall::CancelRun(*run)).unwrap();
    }
    // Of twelve tasks, the newest so many are kept: the runs that have some of these.
    for (tasks, left) in [(12, 4), (10, 4), (9, 3), (4, 2), (3, 1), (1, 1)] {
        let kept = Kept { runs: 20, tasks };
        let (_, more) = world.core.store_mut().sweep_runs(0, kept, 100).unwrap();
        assert!(!more);
        let ids: Vec<RunId> = world.runs().iter().rev().map(|run| run.id).collect();
        assert_eq!(ids, runs[4 - left..], "{tasks} tasks");
        assert_eq!(world.tasks(runs[3]).len(), 3);
    }
    let fewer = Kept {
        runs: 0,
        tasks: 100,
    };
    world.core.store_mut().sweep_runs(0, fewer, 100).unwrap();
    assert_eq!(world.runs(), [], "the stricter of both");
}
