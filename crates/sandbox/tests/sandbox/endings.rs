//! What a stage says at the end of its input, and what becomes of one that gathers when something goes wrong.

use sluice_record::Batch;
use sluice_sandbox::{Chain, ChainFault, OnRetry, Turn};

use crate::guests::{Rig, batch, hostile, limits, spec};

fn report(config: &str) -> sluice_sandbox::StageSpec {
    spec("hostile_report", config, limits())
}

#[test]
fn only_what_exports_an_ending_has_one() {
    assert_eq!(Rig::new(vec![hostile("keep")]).chain.endings(), 0);
    let rig = Rig::new(vec![
        report(r#"{"name":"one"}"#),
        hostile("keep"),
        report(r#"{"name":"two"}"#),
    ]);
    assert_eq!(rig.chain.endings(), 2);
}

#[test]
fn an_ending_s_batch_goes_through_the_stages_behind_it_only() {
    let mut rig = Rig::new(vec![
        hostile("reject-every-other"),
        report(r#"{"name":"pass"}"#),
        hostile("uppercase"),
    ]);
    assert!(rig.run(&batch(["a", "b", "c"])).unwrap().is_empty());
    let mut said = Batch::new();
    rig.chain.finish(0, &mut said).unwrap();
    assert_eq!(said.record(0), b"pass counted 2");
    let turn = rig
        .chain
        .process_report(0, &said, &mut rig.output, OnRetry::Report);
    assert_eq!(turn, Ok(Turn::Done));
    let view = rig.output.view(&said);
    assert_eq!(view.records().collect::<Vec<_>>(), [b"PASS COUNTED 2"]);
}

#[test]
fn a_stage_that_gathers_sees_a_batch_once_though_a_later_one_asks_for_it_again() {
    let mut rig = Rig::new(vec![
        report(r#"{"name":"pass"}"#),
        hostile("reject-every-other"),
        hostile("retry"),
    ]);
    let input = batch(["a", "pass one", "pass two", "b"]);
    let fault = rig.run(&input).unwrap_err();
    assert!(matches!(fault, ChainFault::Retry { stage, .. } if stage == "hostile"));
    assert_eq!(rig.run(&input).unwrap(), ["pass one"]);
    assert_eq!(rig.dead_brief(), [(2, 1, "reject")]);
    let mut said = Batch::new();
    rig.chain.finish(0, &mut said).unwrap();
    assert_eq!(said.record(0), b"pass counted 2");
}

#[test]
fn a_stage_that_gathers_and_traps_is_fatal_at_once() {
    let mut rig = Rig::new(vec![report(r#"{"name":"x"}"#)]);
    let fault = rig.run(&batch(["a", "poison"])).unwrap_err();
    let ChainFault::Fatal { stage, reason } = fault else {
        panic!("{fault:?}")
    };
    assert_eq!(stage, "hostile_report");
    assert!(
        reason.starts_with("what it had gathered of its input is lost: trapped"),
        "{reason}"
    );
    let mut said = Batch::new();
    let fault = rig.chain.finish(0, &mut said).unwrap_err();
    assert!(
        matches!(fault, ChainFault::Fatal { .. }),
        "a fresh instance has nothing to say"
    );
}
