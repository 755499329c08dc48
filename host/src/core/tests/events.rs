//! What watchers are told: each change once, after its commit, and nothing of what was undone.

use sluice_api::RunLaunch;
use sluice_model::ObservedPhase;

use super::*;
use crate::store::{CHANGES_MAX, Changed, Changes, StoreError};

fn named(thing: &Changed) -> String {
    match thing {
        Changed::Node(name) => format!("node {name}"),
        Changed::Job(name) => format!("job {name}"),
        Changed::Execution { job, node, .. } => format!("execution {job}/{node}"),
        Changed::Run { jobs, .. } => {
            let jobs: Vec<&str> = jobs.iter().map(|job| job.as_str()).collect();
            format!("run of {}", jobs.join(" "))
        }
        Changed::Schedule { name, job } => format!("schedule {name} of {job}"),
    }
}

/// The changes that were told, at most once a round, and behind everything else.
fn changes(outputs: &[Output]) -> Changes {
    let is_told = |output: &&Output| matches!(output, Output::Changed { .. });
    let told: Vec<&Output> = outputs.iter().filter(is_told).collect();
    assert!(told.len() <= 1, "{outputs:?}");
    match (told.first(), outputs.last()) {
        (None, _) => Changes::default(),
        (Some(_), Some(Output::Changed { changes, at })) => {
            assert!(at.0 > 0);
            changes.clone()
        }
        _ => panic!("told before something else: {outputs:?}"),
    }
}

fn told(outputs: &[Output]) -> Vec<String> {
    let changes = changes(outputs);
    assert!(!changes.is_everything());
    changes.things().iter().map(named).collect()
}

impl World {
    /// What an order changes.
    pub(super) fn told_of(&mut self, call: ApiCall) -> Vec<String> {
        self.requests += 1;
        let request = RequestId(self.requests);
        let call = Box::new(call);
        told(&self.handle(Input::Api { request, call }))
    }
}

#[test]
fn each_change_is_told_by_name_and_what_changes_nothing_is_not() {
    let mut world = World::new();
    let mut edge = world.edge("e1", 1);
    let (conn, outputs) = world.begin(&mut edge);
    assert_eq!(told(&outputs), ["node e1"]);

    world.requests += 1;
    let request = RequestId(world.requests);
    let call = Box::new(deploy_call(&pipeline("a", "x")));
    let outputs = world.handle(Input::Api { request, call });
    assert_eq!(told(&outputs), ["job a", "execution a/e1"]);
    let row = world.apply(&mut edge, conn, &outputs).remove(0);
    assert!(world.told_of(deploy_call(&pipeline("a", "x"))).is_empty());
    let report = observed(&row, ObservedPhase::Running);
    let outputs = world.report(conn, &edge, 0, &report, false);
    assert_eq!(told(&outputs), ["execution a/e1", "job a"]);

    assert!(world.told_of(ApiCall::Status).is_empty());
    assert!(told(&world.pass(Duration::from_millis(100))).is_empty());

    let gone = world.handle(Input::Closed { conn });
    assert_eq!(told(&gone), ["node e1"]);
    assert!(told(&world.handle(Input::Closed { conn })).is_empty());
    let stopped = world.told_of(ApiCall::StopJob("a".parse().unwrap()));
    assert_eq!(stopped, ["job a", "execution a/e1"]);
    let deleted = world.told_of(ApiCall::DeleteNode("e1".parse().unwrap()));
    assert!(deleted.contains(&"node e1".to_owned()), "{deleted:?}");
}

#[test]
fn runs_and_schedules_are_told_with_their_jobs() {
    let mut world = World::new();
    let text = "name = \"b\"\nkind = \"batch\"\n[input.generate]\ncount = 1\ntemplate = \"x\"\n[output.discard]\n";
    assert_eq!(world.told_of(deploy_call(text)), ["job b"]);
    let launch = RunLaunch {
        jobs: vec!["b".parse().unwrap()],
        ..RunLaunch::default()
    };
    let launched = world.told_of(ApiCall::Launch(launch, None, None));
    assert_eq!(launched, ["run of b", "job b"]);
    let mut edge = world.edge("e1", 1);
    world.begin(&mut edge);
    let placed = told(&world.pass(Duration::from_millis(10)));
    let expected = ["run of b", "job b", "execution b/e1"];
    assert!(
        placed.is_empty()
            || expected
                .iter()
                .all(|it| placed.iter().any(|told| told == it)),
        "{placed:?}"
    );
    let create = sluice_api::ScheduleCreate {
        name: "s".parse().unwrap(),
        job: "b".parse().unwrap(),
        cron: None,
        tz: None,
        every: Some("1h".to_owned()),
        overlap: sluice_api::OVERLAP_DEFAULT,
        catch_up: sluice_api::CATCH_UP_DEFAULT,
        jitter: None,
        params: BTreeMap::new(),
        nodes: Vec::new(),
    };
    let created = world.told_of(ApiCall::CreateSchedule(create.clone()));
    assert_eq!(created, ["schedule s of b"]);
    let again = world.told_of(ApiCall::CreateSchedule(create));
    assert!(again.is_empty(), "a refused one changes nothing: {again:?}");
    let deleted = world.told_of(ApiCall::DeleteSchedule("s".parse().unwrap()));
    assert_eq!(deleted, ["schedule s of b"]);
}

#[test]
fn nothing_is_told_of_a_step_that_was_undone() {
    let mut world = World::new();
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(|point| {
            let fails = point == "keep a job version";
            if fails {
                return Err(StoreError::Injected { point });
            }
            Ok(())
        })));
    let undone = world.told_of(deploy_call(&pipeline("a", "x")));
    assert!(undone.is_empty(), "{undone:?}");
    world.core.store_mut().set_fault_hook(None);
    assert_eq!(world.told_of(deploy_call(&pipeline("a", "x"))), ["job a"]);
}

#[test]
fn nothing_is_told_of_a_commit_that_failed_but_that_all_sessions_are_gone() {
    let mut world = World::new();
    let failing = |point| match point {
        "commit" => Err(StoreError::Injected { point }),
        _ => Ok(()),
    };
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(failing)));
    world.requests += 1;
    let request = RequestId(world.requests);
    let call = Box::new(deploy_call(&pipeline("a", "x")));
    let outputs = world.handle(Input::Api { request, call });
    assert!(changes(&outputs).is_everything());
}

#[test]
fn more_than_can_be_named_is_told_as_everything() {
    let mut world = World::new();
    let deploys = (0..=CHANGES_MAX).map(|n| Input::Api {
        request: RequestId(u64::try_from(n).unwrap()),
        call: Box::new(deploy_call(&pipeline(&format!("j{n}"), "x"))),
    });
    let outputs = world.core.handle(deploys.collect(), world.now);
    assert!(changes(&outputs).is_everything());
}
