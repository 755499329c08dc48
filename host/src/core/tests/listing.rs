//! What listings cost: reads of the store, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// What a question reads, in calls of the store.
fn reads(world: &mut World, call: ApiCall) -> (Reply, usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })));
    let reply = world.call(call).unwrap();
    world.core.store_mut().set_fault_hook(None);
    (reply, count.load(Ordering::Relaxed))
}

/// A world of as many nodes and as many jobs, each job on each node.
fn square(side: u8) -> World {
    let mut world = World::new();
    for n in 0..side {
        world.edge(&format!("e{n}"), n);
    }
    for n in 0..side {
        world.deploy(&pipeline(&format!("job{n}"), "x"));
    }
    world
}

#[test]
fn one_execution_is_found_without_looking_at_the_others() {
    let (mut small, mut large) = (square(2), square(10));
    let mut costs = Vec::new();
    for world in [&mut small, &mut large] {
        let (job, node) = ("job1".parse().unwrap(), "e1".parse().unwrap());
        let (reply, at) = reads(world, ApiCall::ExecutionAt(job, node));
        let Reply::Execution(execution) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(
            (execution.job.as_str(), execution.node.as_str()),
            ("job1", "e1")
        );
        let (reply, by_id) = reads(world, ApiCall::Execution(execution.id));
        assert!(matches!(reply, Reply::Execution(shown) if *shown == *execution));
        costs.push((at, by_id));
    }
    assert_eq!(costs[0], costs[1], "independent of how many there are");
}

#[test]
fn a_listing_reads_what_it_shows_and_no_more() {
    let mut world = square(6);
    let of_node = ExecutionFilter {
        node: Some("e3".parse().unwrap()),
        ..ExecutionFilter::default()
    };
    let of_job = ExecutionFilter {
        job: Some("job3".parse().unwrap()),
        ..ExecutionFilter::default()
    };
    let (all, cost_of_all) = reads(&mut world, ApiCall::Executions(ExecutionFilter::default()));
    let Reply::Executions(sluice_api::Page { items: all, .. }) = all else {
        panic!("{all:?}");
    };
    assert_eq!(all.len(), 36);
    let names: Vec<_> = all
        .iter()
        .map(|it| (it.job.clone(), it.node.clone()))
        .collect();
    assert!(names.is_sorted());
    for filter in [of_node, of_job] {
        let (reply, cost) = reads(&mut world, ApiCall::Executions(filter.clone()));
        let Reply::Executions(sluice_api::Page { items: shown, .. }) = reply else {
            panic!("{reply:?}");
        };
        assert!(shown.len() == 6 && shown.iter().all(|it| all.contains(it)));
        assert!(
            cost * 3 < cost_of_all,
            "{filter:?}: {cost} of {cost_of_all}"
        );
    }
    let (_, status) = reads(&mut world, ApiCall::Status);
    let (_, jobs) = reads(&mut world, ApiCall::Jobs(Default::default()));
    let (_, nodes) = reads(&mut world, ApiCall::Nodes(Default::default()));
    assert!(
        status <= jobs + nodes,
        "every execution is looked at once: {status}, {jobs}, {nodes}"
    );
}

/// Every page of a list, with the most that one of them read.
fn pages<T>(
    world: &mut World,
    mut page: impl FnMut(Option<sluice_api::Cursor>) -> ApiCall,
    items: impl Fn(Reply) -> sluice_api::Page<T>,
) -> (Vec<Vec<T>>, usize) {
    let (mut pages, mut cursor, mut most) = (Vec::new(), None, 0);
    loop {
        let (reply, cost) = reads(world, page(cursor));
        let got = items(reply);
        most = most.max(cost);
        pages.push(got.items);
        cursor = got.next;
        if cursor.is_none() {
            return (pages, most);
        }
        assert!(pages.len() < 1000, "the list does not end");
    }
}

fn execution_page(reply: Reply) -> sluice_api::Page<sluice_api::Execution> {
    match reply {
        Reply::Executions(page) => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_have_every_item_once_and_cost_what_they_show() {
    let (mut costs, mut largest) = (Vec::new(), (0, 0));
    for side in [4, 9] {
        let mut world = square(side);
        let whole = ApiCall::Executions(ExecutionFilter::default());
        let (all, cost_of_all) = reads(&mut world, whole);
        let all = execution_page(all);
        assert_eq!(all.next, None);
        let (parts, cost) = pages(
            &mut world,
            |cursor| {
                ApiCall::Executions(ExecutionFilter {
                    limit: Some(5),
                    cursor,
                    ..ExecutionFilter::default()
                })
            },
            execution_page,
        );
        assert!(parts.iter().rev().skip(1).all(|part| part.len() == 5));
        let mut seen: Vec<_> = parts.concat();
        seen.sort_by(|a, b| (&a.job, &a.node).cmp(&(&b.job, &b.node)));
        assert_eq!(seen, all.items);
        let (nodes, cost_of_nodes) = pages(
            &mut world,
            |cursor| {
                ApiCall::Nodes(sluice_api::NodeFilter {
                    limit: Some(3),
                    cursor,
                    ..Default::default()
                })
            },
            |reply| match reply {
                Reply::Nodes(page) => page,
                other => panic!("{other:?}"),
            },
        );
        let names: Vec<_> = nodes.concat().into_iter().map(|node| node.name).collect();
        assert!(names.is_sorted() && names.len() == usize::from(side));
        costs.push(cost_of_nodes);
        largest = (cost, cost_of_all);
    }
    assert_eq!(costs[0], costs[1], "independent of how many there are");
    let (cost, cost_of_all) = largest;
    assert!(cost * 3 < cost_of_all, "{cost} of {cost_of_all}");
}

#[test]
fn a_list_goes_on_where_it_was_whatever_came_and_went() {
    let mut world = square(6);
    let page = |world: &mut World, cursor| {
        let filter = ExecutionFilter {
            node: Some("e2".parse().unwrap()),
            limit: Some(2),
            cursor,
            ..ExecutionFilter::default()
        };
        execution_page(world.call(ApiCall::Executions(filter)).unwrap())
    };
    let first = page(&mut world, None);
    assert_eq!(first.items.len(), 2);
    // What was shown is deleted, and something new is deployed.
    for gone in &first.items {
        world.call(ApiCall::DeleteJob(gone.job.clone())).unwrap();
    }
    world.deploy(&pipeline("job-new", "x"));
    let (mut seen, mut cursor) = (first.items.clone(), first.next);
    while cursor.is_some() {
        let next = page(&mut world, cursor);
        seen.extend(next.items);
        cursor = next.next;
    }
    let mut names: Vec<_> = seen.iter().map(|it| it.job.as_str()).collect();
    names.sort_unstable();
    names.retain(|name| *name != "job-new");
    assert_eq!(names, ["job0", "job1", "job2", "job3", "job4", "job5"]);
}

#[test]
fn filters_of_lists_are_heeded_and_wrong_ones_refused() {
    let mut world = square(3);
    let states = |world: &mut World, state| {
        let filter = ExecutionFilter {
            state: Some(state),
            ..ExecutionFilter::default()
        };
        execution_page(world.call(ApiCall::Executions(filter)).unwrap())
            .items
            .len()
    };
    assert_eq!(states(&mut world, sluice_model::ExecutionState::Pending), 9);
    assert_eq!(states(&mut world, sluice_model::ExecutionState::Running), 0);

    let labels = sluice_api::NodeLabels {
        set: [("site".to_owned(), "plant-7".to_owned())].into(),
        remove: Vec::new(),
    };
    let order = sluice_api::NodeOrder::Label(labels);
    world
        .call(ApiCall::OrderNode("e1".parse().unwrap(), order))
        .unwrap();
    let labelled = |world: &mut World, label: &str| {
        let filter = sluice_api::NodeFilter {
            label: Some(label.to_owned()),
            ..Default::default()
        };
        match world.call(ApiCall::Nodes(filter)) {
            Ok(Reply::Nodes(page)) => Ok(page.items.len()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.code),
        }
    };
    assert_eq!(labelled(&mut world, "site"), Ok(1));
    assert_eq!(labelled(&mut world, "site=plant-7"), Ok(1));
    assert_eq!(labelled(&mut world, "site=plant-8"), Ok(0));
    assert_eq!(labelled(&mut world, "=x"), Err(ErrorCode::Invalid));

    // A cursor of another list, or of nobody's, and a mark that no store can hold.
    let cursors = [
        sluice_api::Cursor::of(&["x"]),
        sluice_api::Cursor::of(&["x", "y", "z"]),
        sluice_api::Cursor::of(&["", "", ""]),
    ];
    for cursor in cursors {
        let filter = ExecutionFilter {
            cursor: Some(cursor),
            ..ExecutionFilter::default()
        };
        let refused = world.call(ApiCall::Executions(filter)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Invalid);
    }
    let ids = [
        sluice_model::JobId::from_random([9; 16]).to_string(),
        sluice_model::NodeId::from_random([9; 16]).to_string(),
    ];
    let far = sluice_api::Cursor::of(&[&ids[0], &ids[1], &u64::MAX.to_string()]);
    let filter = ExecutionFilter {
        cursor: Some(far),
        ..ExecutionFilter::default()
    };
    world.call(ApiCall::Executions(filter)).unwrap();
    let far = sluice_api::Cursor::of(&[&u64::MAX.to_string()]);
    let filter = sluice_api::RunFilter {
        cursor: Some(far),
        ..Default::default()
    };
    assert!(matches!(
        world.call(ApiCall::Runs(filter)),
        Ok(Reply::Runs(_))
    ));
}

fn run_page(reply: Reply) -> sluice_api::Page<sluice_api::Run> {
    match reply {
        Reply::Runs(page) => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_of_large_runs_ends_early_and_a_strict_filter_reads_none_of_their_tasks() {
    const RUNS: usize = 13;
    const TASKS: usize = 1_000;
    let mut world = World::new();
    world.deploy(&format!(
        "name = \"a\"\nkind = \"batch\"\ncount = {TASKS}\n[input.generate]\ncount = 1\ntemplate = \"x\"\n\
         [output.discard]\n"
    ));
    let launch = sluice_api::RunLaunch {
        jobs: vec!["a".parse().unwrap()],
        ..Default::default()
    };
    let mut launched = Vec::new();
    for _ in 0..RUNS {
        match world
            .call(ApiCall::Launch(launch.clone(), None, None))
            .unwrap()
        {
            Reply::Run(run) => launched.push(run.id),
            other => panic!("{other:?}"),
        }
    }
    launched.reverse();
    let asked = |state| {
        move |cursor| {
            ApiCall::Runs(sluice_api::RunFilter {
                state,
                cursor,
                ..Default::default()
            })
        }
    };
    let (listed, _) = pages(&mut world, asked(None), run_page);
    assert!(listed.len() > 1, "the tasks of all of them are no one page");
    for page in &listed {
        let tasks: usize = page.iter().map(|run| run.tasks.len()).sum();
        assert!(tasks <= 10_000, "{tasks} tasks in one page");
    }
    let ids: Vec<_> = listed.concat().iter().map(|run| run.id).collect();
    assert_eq!(ids, launched);

    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    world
        .core
        .store_mut()
        .set_fault_hook(Some(Box::new(move |point| {
            if point == "list a run's tasks" {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })));
    let none = world.call(asked(Some(sluice_model::RunState::Failed))(None));
    assert_eq!(run_page(none.unwrap()).items, []);
    assert_eq!(read.load(Ordering::Relaxed), 0);
    let some = world.call(asked(Some(sluice_model::RunState::Pending))(None));
    let shown = run_page(some.unwrap()).items.len();
    assert_eq!((shown, read.load(Ordering::Relaxed)), (10, 10));
}
