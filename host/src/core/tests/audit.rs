//! Who may use the API, and what is written of what they did.

use std::sync::Arc;

use sluice_api::{AuditEntry, AuditQuery};
use sluice_model::Role;

use super::*;
use crate::core::{Asker, Caller, OnlyIf};
use crate::store::{ApiTokenRecord, TokenStore as _};

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
        created_at: UnixMs(0),
        created_by: None,
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
        ..AuditQuery::default()
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
            created_at: UnixMs(0),
            created_by: None,
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

/// Every page of what fits `query`, the newest first, and how many rows the largest page read.
fn all_of(world: &mut World, mut query: AuditQuery) -> (Vec<AuditEntry>, u64) {
    let (mut entries, mut most) = (Vec::new(), 0);
    loop {
        let before = world.core.store_mut().work();
        let page = match world.call(ApiCall::Audit(query.clone())).unwrap() {
            Reply::Audit(page) => page,
            other => panic!("{other:?}"),
        };
        most = most.max(world.core.store_mut().work() - before);
        entries.extend(page.items);
        query.cursor = page.next;
        if query.cursor.is_none() {
            return (entries, most);
        }
    }
}

#[test]
fn the_log_is_filtered_by_who_what_when_and_how_it_ended() {
    let mut world = World::new();
    let start = world.now.unix;
    let mut written = Vec::new();
    let outcomes = [None, Some(ErrorCode::Forbidden), Some(ErrorCode::Conflict)];
    for n in 0..60_usize {
        // A clock that is set back for a while: the order is that of the entries.
        let seconds = if (20..30).contains(&n) { 5 } else { n };
        world.now.unix = start.plus(Duration::from_secs(seconds as u64));
        let token = ["t1", "t2"][n % 2];
        let operation = ["job.stop", "job.start", "token.list"][n % 3];
        let asker = Asker {
            caller: Caller {
                token: token.to_owned(),
                ..asker(operation).caller.clone()
            },
            ..Asker::clone(&asker(operation))
        };
        let outcome = outcomes[n / 2 % 3];
        let refused = outcome.map_or(Ok(()), |code| Err(ErrorBody::new(code, "no")));
        world
            .call(ApiCall::Record(Arc::new(asker), refused))
            .unwrap();
        let outcome = outcome.map_or("done", ErrorCode::as_str);
        written.push((world.now.unix, token, operation, outcome));
    }
    written.reverse();
    let (five, forty) = (Duration::from_secs(5), Duration::from_secs(40));
    let (five, forty) = (start.plus(five), start.plus(forty));
    let text = |text: &str| Some(text.to_owned());
    let mut asked = 0;
    for token in [None, Some("t1"), Some("t9")] {
        for operation in [None, Some("job.start")] {
            for outcome in [None, Some("done"), Some("refused"), Some("forbidden")] {
                for (since, until) in [(None, None), (Some(five), Some(forty)), (Some(forty), None)]
                {
                    let query = AuditQuery {
                        token: token.and_then(text),
                        operation: operation.and_then(text),
                        outcome: outcome.and_then(text),
                        since,
                        until,
                        limit: Some(7),
                        ..AuditQuery::default()
                    };
                    let fits = |it: &&(UnixMs, &str, &str, &str)| {
                        token.is_none_or(|token| it.1 == token)
                            && operation.is_none_or(|operation| it.2 == operation)
                            && since.is_none_or(|since| it.0 >= since)
                            && until.is_none_or(|until| it.0 < until)
                            && outcome.is_none_or(|outcome| {
                                it.3 == outcome || outcome == "refused" && it.3 != "done"
                            })
                    };
                    let wanted: Vec<_> = written.iter().filter(fits).cloned().collect();
                    let (got, _) = all_of(&mut world, query.clone());
                    let got: Vec<_> = got
                        .iter()
                        .map(|it| {
                            let [token, operation, outcome] =
                                [&it.token, &it.operation, &it.outcome].map(String::as_str);
                            (it.at, token, operation, outcome)
                        })
                        .collect();
                    assert_eq!(got, wanted, "{query:?}");
                    asked += usize::from(!wanted.is_empty());
                }
            }
        }
    }
    assert!(asked > 20, "{asked}");
    let long = AuditQuery {
        operation: text(&"x".repeat(65)),
        ..AuditQuery::default()
    };
    let error = world.call(ApiCall::Audit(long)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    let wrong = AuditQuery {
        outcome: text("well"),
        ..AuditQuery::default()
    };
    let error = world.call(ApiCall::Audit(wrong)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(error.message.contains("well"), "{error:?}");
}

#[test]
fn a_page_of_the_filtered_log_costs_the_same_however_long_the_log_is() {
    let mut costs = Vec::new();
    for entries in [3_000, 9_000] {
        let mut world = World::new();
        for n in 0..entries {
            let rare = n % 1_000 == 0;
            let operation = if rare { "node.drain" } else { "job.stop" };
            let token = if rare { "t2" } else { "t1" };
            let entry = AuditEntry {
                at: UnixMs(n),
                token: token.to_owned(),
                ..asker(operation).entry(UnixMs(n), Ok(None))
            };
            world.core.store_mut().insert_audit(&entry).unwrap();
        }
        let mut cost = |query: AuditQuery| all_of(&mut world, query).1;
        let limit = Some(2);
        let text = |text: &str| Some(text.to_owned());
        costs.push([
            cost(AuditQuery {
                operation: text("node.drain"),
                limit,
                ..AuditQuery::default()
            }),
            cost(AuditQuery {
                token: text("t2"),
                limit,
                ..AuditQuery::default()
            }),
            // The oldest ones: found by the index of times, at once.
            cost(AuditQuery {
                until: Some(UnixMs(2)),
                limit,
                ..AuditQuery::default()
            }),
            // None fits, and no index says so: page by page, each of them bounded.
            cost(AuditQuery {
                token: text("t1"),
                operation: text("node.drain"),
                limit,
                ..AuditQuery::default()
            }),
        ]);
    }
    for (few, many) in costs[0].iter().zip(&costs[1]) {
        assert!(*many < few * 3 / 2 + 50, "{costs:?}");
    }
}

#[test]
fn one_token_cannot_push_out_what_was_refused_to_another() {
    let mut world = World::new();
    let refuse = |world: &mut World, token: &str| {
        let mut asker = Asker::clone(&asker("token.list"));
        asker.caller.token = token.to_owned();
        let refused = Err(ErrorBody::new(ErrorCode::Forbidden, "no"));
        world
            .call(ApiCall::Record(Arc::new(asker), refused))
            .unwrap();
    };
    refuse(&mut world, "t2");
    for _ in 0..1_500 {
        refuse(&mut world, "t1");
    }
    world.pass(Duration::from_secs(60));
    world.handle(Input::Tick);
    let mut count = |token: &str| {
        let query = AuditQuery {
            token: Some(token.to_owned()),
            ..AuditQuery::default()
        };
        all_of(&mut world, query).0.len()
    };
    assert_eq!((count("t1"), count("t2")), (1_000, 1));
}
