//! Case 98: the process dies, or its disk fails, at every single call of its store; everything else stays as it was.

use std::collections::BTreeSet;

use sluice_tests::sim::{Content, Fault, Order, Placing, World, play};

/// Calls tried of each side in a normal run; `SLUICE_SIM_EVERY_CALL=1` tries them all.
const CALLS: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Orchestrator,
    Edge,
}

/// A job's whole life. An order that is refused or lost is given again, so a fault anywhere must not matter.
fn live(world: &mut World) {
    let deploy = |content| Order::Deploy {
        content,
        select: String::new(),
        placing: Placing::Daemon,
    };
    for order in [
        deploy(Content::Steady(0)),
        deploy(Content::Steady(1)),
        Order::Stop,
        Order::Start,
        deploy(Content::Ends(2)),
        deploy(Content::Fails(0)),
        Order::Delete,
    ] {
        world.order("job", order);
        world.settle();
    }
}

/// Lives with a fault at this call; the calls that there were, the calls' names, and where it was.
fn live_with(side: Side, fault: Option<(u64, Fault)>) -> (u64, BTreeSet<&'static str>) {
    let mut seen = (0, BTreeSet::new());
    play(&[("e1", "a")], |world| {
        let faults = match side {
            Side::Orchestrator => world.orchestrator.faults.clone(),
            Side::Edge => world.edges[0].faults.clone(),
        };
        let before = faults.calls();
        if let Some((after, fault)) = fault {
            faults.arm(after, fault);
        }
        live(world);
        seen = (faults.calls() - before, faults.points());
        assert_eq!(
            faults.hits(),
            u64::from(fault.is_some()),
            "the fault has happened"
        );
    });
    seen
}

fn every_call(side: Side) {
    let (calls, points) = live_with(side, None);
    assert!(calls > 100 && points.len() > 8, "{calls} calls, {points:?}");
    let all = std::env::var_os("SLUICE_SIM_EVERY_CALL").is_some();
    let stride = if all { 1 } else { (calls / CALLS).max(1) };
    let faults = [
        Fault::Crash,
        Fault::Full { calls: 3 },
        Fault::Error,
        Fault::Broken,
    ];
    let mut tried = 0;
    let mut at = 0;
    while at < calls {
        if all {
            for fault in faults {
                live_with(side, Some((at, fault)));
            }
        } else {
            // Most of them crashes; the others take turns.
            let turn = usize::try_from(tried % 6).unwrap();
            live_with(side, Some((at, *faults.get(turn).unwrap_or(&Fault::Crash))));
        }
        tried += 1;
        at += stride;
    }
    assert!(tried >= CALLS.min(calls));
}

#[test]
fn case_98_a_fault_at_every_store_call_of_the_orchestrator() {
    every_call(Side::Orchestrator);
}

#[test]
fn case_98_a_fault_at_every_store_call_of_an_edge() {
    every_call(Side::Edge);
}
