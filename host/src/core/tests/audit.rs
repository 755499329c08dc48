//! Who may use the API, and what is written of what they did.

use std::sync::Arc;

use sluice_api::{AuditEntry, AuditQuery};
use sluice_model::Role;

use super::*;
use crate::core::{Asker, Caller, OnlyIf};
use crate::store::ApiTokenRecord;

fn asker(operation: &'static str) -> Arc<Asker> {
    Arc::new(Asker {
        caller: Caller {
            token: "t1".to_owned(),
            name: Some("ci".to_owned()),
            role: Role::Deployer,
        },
        operation,
        target: "/v1/somewhere".to_owned(),
        only_if: None,
    })
}

fn log(world: &mut World) -> Vec<AuditEntry> {
    let query = AuditQuery::default();
    match world.call(ApiCall::Audit(query)).unwrap() {
        Reply::Audit(sluice_api::Page { items: entries, .. }) => entries,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_is_recorded_with_it_and_a_look_is_not() {
    let mut world = World::new();
    let by = |call: ApiCall| ApiCall::By(asker("job.stop"), Box::new(call));
    world.call(by(ApiCall::Jobs(Default::default()))).unwrap();
    world
        .call(by(ApiCall::StopJob("nothing".parse().unwrap())))
        .unwrap_err();
    assert_eq!(log(&mut world), []);

    let token = ApiTokenRecord {
        id: TokenId::from_random([7; 16]),
        hash: [9; 32],
        role: Role::Reader,
        name: None,
        expires_at: UnixMs(i64::MAX),
    };
    world.call(by(ApiCall::CreateApiToken(token))).unwrap();
    let refused = ErrorBody::new(ErrorCode::Forbidden, "no");
    world
        .call(ApiCall::Record(asker("node.drain"), Err(refused)))
        .unwrap();
    let entries = log(&mut world);
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.operation.as_str(), entry.outcome.as_str()))
        .collect();
    assert_eq!(told, [("node.drain", "forbidden"), ("job.stop", "done")]);
    assert_eq!(entries[1].name.as_deref(), Some("ci"));
    let made = entries[1].message.as_deref().unwrap();
    assert!(
        made.contains("reader") && made.contains(&TokenId::from_random([7; 16]).to_string()),
        "{made}"
    );
    let older = AuditQuery {
        before: Some(entries[0].id),
        limit: Some(5),
        cursor: None,
    };
    assert!(
        matches!(world.call(ApiCall::Audit(older)), Ok(Reply::Audit(sluice_api::Page { items: older, .. })) if older == entries[1..])
    );
}

#[test]
fn what_was_made_is_named_where_the_path_does_not_name_it() {
    let mut world = World::new();
    world.edge("e1", 1);
    let by = |call: ApiCall| ApiCall::By(asker("some.write"), Box::new(call));
    world.call(by(deploy_call(PIPELINE))).unwrap();
    let labels = sluice_api::NodeLabels {
        set: Labels::from([("site".to_owned(), "north".to_owned())]),
        remove: vec!["old".to_owned()],
    };
    let label = ApiCall::OrderNode("e1".parse().unwrap(), sluice_api::NodeOrder::Label(labels));
    world.call(by(label)).unwrap();
    let entries = log(&mut world);
    let told: Vec<_> = entries.iter().map(|it| it.message.as_deref()).collect();
    assert_eq!(told, [Some("site=north old-"), Some("job a, version 1")]);
}

#[test]
fn a_launch_that_is_repeated_is_told_apart_whoever_repeats_it() {
    let mut world = World::new();
    world.deploy(
        "name = \"a\"\nkind = \"batch\"\n[input.generate]\ncount = 1\ntemplate = \"x\"\n[output.discard]\n",
    );
    let mut ids = Vec::new();
    for token in ["t1", "t2"] {
        let mut by = Asker::clone(&asker("run.launch"));
        by.caller.token = token.to_owned();
        let launch = sluice_api::RunLaunch {
            jobs: vec!["a".parse().unwrap()],
            ..sluice_api::RunLaunch::default()
        };
        let call = ApiCall::Launch(launch, Some("k".to_owned()), None);
        match world.call(ApiCall::By(Arc::new(by), Box::new(call))) {
            Ok(Reply::Run(run) | Reply::LaunchedBefore(run)) => ids.push(run.id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids[0], ids[1]);
    let launches: Vec<(String, Option<String>)> = log(&mut world)
        .into_iter()
        .filter(|entry| entry.operation == "run.launch")
        .map(|entry| (entry.token, entry.message))
        .collect();
    let id = ids[0];
    assert_eq!(
        launches,
        [
            (
                "t2".to_owned(),
                Some(format!(
                    "nothing: its key names run {id}, which was there already"
                ))
            ),
            ("t1".to_owned(), Some(format!("run {id} of a"))),
        ]
    );
}

#[test]
fn a_token_opens_the_api_until_it_ends_or_is_revoked() {
    let mut world = World::new();
    let who = |world: &mut World, hash: u8| match world.call(ApiCall::Authenticate([hash; 32])) {
        Ok(Reply::Caller(caller)) => caller.map(|caller| caller.role),
        other => panic!("{other:?}"),
    };
    for (byte, expires_at) in [(1, UnixMs(i64::MAX)), (2, UnixMs(0))] {
        let token = ApiTokenRecord {
            id: TokenId::from_random([byte; 16]),
            hash: [byte; 32],
            role: Role::Deployer,
            name: None,
            expires_at,
        };
        world.call(ApiCall::CreateApiToken(token)).unwrap();
    }
    assert_eq!(who(&mut world, 1), Some(Role::Deployer));
    assert_eq!(who(&mut world, 2), None, "it has ended");
    assert_eq!(who(&mut world, 3), None, "there is none");
    let id = TokenId::from_random([1; 16]);
    world.call(ApiCall::RevokeToken(id)).unwrap();
    assert_eq!(who(&mut world, 1), None, "it was revoked");
    world.call(ApiCall::RevokeToken(id)).unwrap_err();
}

#[test]
fn an_order_about_a_job_that_changed_since_it_was_seen_is_stale() {
    let mut world = World::new();
    let text = pipeline("a", "x");
    let order = |world: &mut World, call: ApiCall, only_if: OnlyIf| {
        let asker = Asker {
            only_if: Some(only_if),
            ..Asker::clone(&asker("job.deploy"))
        };
        let called = world.call(ApiCall::By(Arc::new(asker), Box::new(call)));
        called.map(|_| ()).map_err(|error| error.code)
    };
    let name = || "a".parse::<sluice_model::JobName>().unwrap();
    let etag = |world: &mut World| match world.call(ApiCall::Job(name())) {
        Ok(Reply::JobDetail(detail)) => vec![detail.job.etag()],
        other => panic!("{other:?}"),
    };
    let stop = || ApiCall::StopJob(name());
    let anything = OnlyIf::Is(Vec::new());
    assert_eq!(order(&mut world, stop(), anything), Err(ErrorCode::Stale));
    world.deploy(&text);
    let seen = etag(&mut world);
    assert_eq!(
        order(&mut world, stop(), OnlyIf::Absent),
        Err(ErrorCode::Stale)
    );
    assert_eq!(order(&mut world, stop(), OnlyIf::Is(seen.clone())), Ok(()));
    assert_eq!(
        order(&mut world, stop(), OnlyIf::Is(seen.clone())),
        Err(ErrorCode::Stale)
    );
    let now = etag(&mut world);
    assert_ne!(now, seen);
    let start = ApiCall::StartJob(name());
    assert_eq!(order(&mut world, start, OnlyIf::Is(now)), Ok(()));
    let audit = ApiCall::RevokeToken(TokenId::from_random([1; 16]));
    assert_eq!(
        order(&mut world, audit, OnlyIf::Absent),
        Err(ErrorCode::Invalid)
    );
}

#[test]
fn orders_about_a_node_and_dry_runs_heed_what_was_seen() {
    let mut world = World::new();
    world.edge("e1", 1);
    let name = || "e1".parse::<sluice_model::NodeName>().unwrap();
    let order = |world: &mut World, call: ApiCall, only_if: OnlyIf| {
        let asker = Asker {
            only_if: Some(only_if),
            ..Asker::clone(&asker("node.cordon"))
        };
        let called = world.call(ApiCall::By(Arc::new(asker), Box::new(call)));
        called.map(|_| ()).map_err(|error| error.code)
    };
    let etag = |world: &mut World| match world.call(ApiCall::Node(name())) {
        Ok(Reply::Node(detail)) => vec![detail.node.etag()],
        other => panic!("{other:?}"),
    };
    let stale = Err(ErrorCode::Stale);
    let cordon = || ApiCall::OrderNode(name(), sluice_api::NodeOrder::Cordon);
    let seen = etag(&mut world);
    assert_eq!(
        order(&mut world, cordon(), OnlyIf::Is(seen.clone())),
        Ok(())
    );
    assert_eq!(order(&mut world, cordon(), OnlyIf::Is(seen)), stale);
    let seen = etag(&mut world);
    // Ordered again: nothing changes, so what was seen is still so.
    assert_eq!(
        order(&mut world, cordon(), OnlyIf::Is(seen.clone())),
        Ok(())
    );
    let revoke = || ApiCall::RevokeNode(name());
    assert_eq!(
        order(&mut world, revoke(), OnlyIf::Is(seen.clone())),
        Ok(())
    );
    assert_eq!(order(&mut world, revoke(), OnlyIf::Is(seen)), stale);
    assert_eq!(order(&mut world, revoke(), OnlyIf::Absent), stale);

    let text = pipeline("a", "x");
    world.deploy(&text);
    let dry_run = || {
        let request = sluice_api::DeployRequest {
            pipeline: text.clone(),
            plugins: Default::default(),
            dry_run: true,
        };
        ApiCall::Deploy(request, Default::default())
    };
    assert_eq!(order(&mut world, dry_run(), OnlyIf::Absent), stale);
    let other = OnlyIf::Is(vec!["\"another\"".to_owned()]);
    assert_eq!(order(&mut world, dry_run(), other), stale);
    assert_eq!(order(&mut world, dry_run(), OnlyIf::Is(Vec::new())), Ok(()));
}
