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
    let Reply::Executions(all) = all else {
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
        let Reply::Executions(shown) = reply else {
            panic!("{reply:?}");
        };
        assert!(shown.len() == 6 && shown.iter().all(|it| all.contains(it)));
        assert!(
            cost * 3 < cost_of_all,
            "{filter:?}: {cost} of {cost_of_all}"
        );
    }
    let (_, status) = reads(&mut world, ApiCall::Status);
    let (_, jobs) = reads(&mut world, ApiCall::Jobs);
    let (_, nodes) = reads(&mut world, ApiCall::Nodes);
    assert!(
        status <= jobs + nodes,
        "every execution is looked at once: {status}, {jobs}, {nodes}"
    );
}
