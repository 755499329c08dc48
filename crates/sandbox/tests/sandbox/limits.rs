//! Every limit ends the call with its own name, the instance is replaced, and the next batch passes.

use std::sync::Arc;
use std::time::Duration;

use sluice_sandbox::{
    CallError, Chain, ChainFault, ChainOutput, ConfigureCause, Engine, EngineConfig,
    InProcessChain, Level, OnRetry, StageLimits, StageSpec, Turn,
};

use crate::guests::{
    Lines, Rig, batch, digest, hostile, hostile_with, limits, poisoned, spec, text_spec,
    text_stage, text_stage_with,
};

/// One record through a stage that misbehaves for it: a dead letter of this kind, whose reason says so.
fn dies(rig: &mut Rig, record: &str, kind: &str, reason: &str) {
    let input = batch([record]);
    assert_eq!(rig.run(&input).unwrap(), Vec::<String>::new());
    assert_eq!(rig.dead_brief(), [(0, 0, kind)], "{:?}", rig.dead());
    let letter = &rig.dead()[0];
    assert_eq!(letter.attempts, 2, "once more on a fresh instance");
    assert!(letter.reason.contains(reason), "{:?}", letter.reason);
}

/// A stage that works again after what it died of.
fn lives(rig: &mut Rig) {
    assert_eq!(rig.run(&batch(["fine"])).unwrap(), ["fine"]);
    assert!(rig.dead().is_empty());
}

#[test]
fn a_panic_is_a_trap() {
    let mut rig = Rig::new(vec![hostile("trap-on")]);
    dies(
        &mut rig,
        "poison",
        "trap",
        // The functions of the plugin, without those that end a program that panics.
        "wasm `unreachable` instruction executed in hostile::Hostile::act < <hostile::Hostile as sluice_sdk::stage::BatchStage>::process <",
    );
    lives(&mut rig);
}

#[test]
fn a_trap_names_the_functions_that_have_names() {
    let wasm = text_stage(
        r#"(func $deep_inside unreachable)
           (func $outside (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
             (call $deep_inside) (i32.const 16))"#,
    );
    let mut rig = Rig::new(vec![text_spec(&wasm, limits())]);
    dies(&mut rig, "x", "trap", "executed in deep_inside < outside");
}

#[test]
fn an_overflown_stack_is_a_trap() {
    let mut rig = Rig::new(vec![hostile_with(
        r#"{"do":"overflow-stack","when":"poison"}"#,
    )]);
    dies(&mut rig, "poison", "trap", "");
    lives(&mut rig);
}

#[test]
fn a_loop_ends_at_the_deadline() {
    let mut rig = Rig::new(vec![hostile("spin")]);
    dies(&mut rig, "poison", "deadline", "deadline of 100ms");
    lives(&mut rig);
}

#[test]
fn a_deadline_holds_after_the_engines_owner_has_let_go_of_it() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let wasm = text_stage(
        r#"(func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
             (loop $more (br $more)) (unreachable))"#,
    );
    let spec = StageSpec {
        compiled: engine.load(&digest(&wasm), || Ok(&wasm)).unwrap(),
        ..hostile("keep")
    };
    let mut chain = InProcessChain::new(&engine, vec![spec], Arc::new(Lines::default())).unwrap();
    drop(engine);
    let (input, mut output) = (batch(["x"]), ChainOutput::new());
    while chain.process(&input, &mut output, OnRetry::Report).unwrap() == Turn::Again {}
    assert_eq!(output.dead_letters[0].kind.as_str(), "deadline");
}

#[test]
fn memory_is_bounded() {
    let mut stage = hostile_with(r#"{"do":"grow-memory","when":"poison"}"#);
    // Touching that much memory takes a busy machine longer than a moment, and the deadline is not what is tested here.
    stage.limits.deadline = Duration::from_secs(30);
    let mut rig = Rig::new(vec![stage]);
    dies(&mut rig, "poison", "memory", "67108864 bytes");
    lives(&mut rig);
}

#[test]
fn memory_is_summed_over_the_instance() {
    // Two memories of 20 MiB each, one page at a time in turn; each alone would fit.
    let wasm = text_stage(
        r#"(memory $other 0)
           (func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
             (local $pages i32)
             (loop $more
               (drop (memory.grow $other (i32.const 1)))
               (drop (memory.grow 0 (i32.const 1)))
               (local.set $pages (i32.add (local.get $pages) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $pages) (i32.const 320))))
             (i32.const 16))"#,
    );
    let small = StageLimits {
        memory_bytes_max: 32 << 20,
        ..limits()
    };
    let mut rig = Rig::new(vec![text_spec(&wasm, small)]);
    dies(&mut rig, "x", "memory", "33554432 bytes");
    let mut rig = Rig::new(vec![text_spec(&wasm, limits())]);
    lives(&mut rig);
}

#[test]
fn a_guests_own_maximum_is_not_our_limit() {
    let wasm = text_stage(
        r#"(memory $own 0 4)
           (func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
             (if (i32.ne (memory.grow $own (i32.const 5)) (i32.const -1)) (then (unreachable)))
             (if (i32.ne (memory.grow $own (i32.const 4)) (i32.const 0)) (then (unreachable)))
             (i32.const 16))"#,
    );
    lives(&mut Rig::new(vec![text_spec(&wasm, limits())]));
}

#[test]
fn tables_are_bounded() {
    let wasm = text_stage(
        r#"(table $t 1 funcref)
           (func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
             (loop $more
               (drop (table.grow $t (ref.null func) (i32.const 1000)))
               (br $more))
             (unreachable))"#,
    );
    dies(
        &mut Rig::new(vec![text_spec(&wasm, limits())]),
        "x",
        "table",
        "100000",
    );
}

#[test]
fn instances_are_bounded() {
    let few = StageLimits {
        instances_max: 0,
        ..limits()
    };
    let error = Rig::try_new(vec![spec("hostile", r#"{"do":"keep"}"#, few)])
        .err()
        .unwrap();
    assert_eq!(error.stage, "hostile");
    assert_eq!(
        error.cause,
        ConfigureCause::Call(CallError::InstancesExceeded { limit: 0 })
    );
}

#[test]
fn handles_of_the_guests_own_are_bounded() {
    let wasm = text_stage_with(
        r#"(func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
             (loop $more (drop (call $new (i32.const 1))) (br $more))
             (unreachable))"#,
        r#"(import "host" "new" (func $new (param i32) (result i32)))"#,
        r#"(type $r (resource (rep i32))) (core func $new (canon resource.new $r))"#,
        r#"(with "host" (instance (export "new" (func $new))))"#,
    );
    dies(
        &mut Rig::new(vec![text_spec(&wasm, limits())]),
        "x",
        "handles",
        "1024",
    );
}

#[test]
fn a_host_call_is_bounded() {
    let config = r#"{"do":"long-log-line","bytes":2000000,"when":"poison"}"#;
    let mut rig = Rig::new(vec![hostile_with(config)]);
    dies(&mut rig, "poison", "host-call", "1048576 bytes");
    assert!(rig.lines.all().is_empty());
    lives(&mut rig);
    // Past what may be returned as well, wasmtime itself ends the call.
    let tight = StageLimits {
        output_bytes_max: 1 << 20,
        ..limits()
    };
    let mut rig = Rig::new(vec![spec("hostile", config, tight)]);
    dies(&mut rig, "poison", "host-call", "bytes");
}

#[test]
fn output_is_bounded_in_bytes_and_records() {
    let mut rig = Rig::new(vec![hostile_with(
        r#"{"do":"huge-output","when":"poison"}"#,
    )]);
    dies(&mut rig, "poison", "output", "20971520 bytes");
    lives(&mut rig);
    let mut rig = Rig::new(vec![hostile_with(
        r#"{"do":"record-flood","when":"poison"}"#,
    )]);
    dies(&mut rig, "poison", "output", "65536 records");
    lives(&mut rig);
}

#[test]
fn every_broken_output_is_refused() {
    for act in [
        "descending-ends",
        "ends-outside",
        "trailing-bytes",
        "select-out-of-range",
        "select-descending",
        "select-repeated",
        "select-rejected",
        "reject-out-of-range",
        "reject-descending",
        "reject-repeated",
        "origin-out-of-range",
        "origin-descending",
        "origin-length",
        "origin-missing",
        "times-length",
        "attributes-length",
    ] {
        let mut rig = Rig::new(vec![hostile_with(&format!(
            r#"{{"do":"{act}","when":"poison"}}"#
        ))]);
        // Some need two records; alone, those two do no harm.
        let passed = rig.run(&batch(["poison", "poison"])).unwrap();
        let dead = rig.dead_brief();
        match act {
            "select-descending" | "reject-descending" | "origin-descending" => {
                assert_eq!(
                    (
                        passed.len() + dead.len(),
                        dead.iter().all(|letter| letter.2 != "trap")
                    ),
                    (2, true),
                    "{act}"
                );
            }
            "origin-length" => assert!(
                dead.iter().all(|letter| letter.2 == "invalid-output"),
                "{act}: {dead:?}"
            ),
            _ => assert_eq!(
                dead,
                [(0, 0, "invalid-output"), (1, 0, "invalid-output")],
                "{act}"
            ),
        }
        lives(&mut rig);
    }
}

#[test]
fn a_pointer_outside_memory_is_invalid_output() {
    let wasm = text_stage(
        r#"(func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 0x7ffffff0))"#,
    );
    let mut rig = Rig::new(vec![text_spec(&wasm, limits())]);
    dies(&mut rig, "x", "invalid-output", "pointer");
}

#[test]
fn log_lines_are_cut_and_their_rate_is_bounded() {
    let mut rig = Rig::new(vec![hostile("log-flood")]);
    rig.run(&batch(["x"])).unwrap();
    let lines = rig.lines.clone();
    drop(rig);
    let texts = lines.texts();
    assert!((101..=400).contains(&texts.len()), "{} lines", texts.len());
    let dropped: u64 = texts
        .iter()
        .filter_map(|text| {
            text.strip_suffix(" log lines dropped: more than 100 a second")?
                .parse::<u64>()
                .ok()
        })
        .sum();
    let told = texts.iter().filter(|text| text.contains("dropped")).count();
    assert_eq!(texts.len() - told + dropped as usize, 10_000);

    let mut rig = Rig::new(vec![hostile("long-log-line")]);
    rig.run(&batch(["x"])).unwrap();
    assert_eq!(
        rig.lines.all(),
        [("hostile".to_owned(), Level::Warn, "x".repeat(8192))]
    );
}

#[test]
fn a_reason_is_cut() {
    let mut rig = Rig::new(vec![hostile("long-reason")]);
    rig.run(&batch(["x"])).unwrap();
    assert_eq!(rig.dead()[0].reason, "r".repeat(1024));
}

#[test]
fn configure_is_held_to_the_same_limits() {
    let cause = |act: &str| {
        Rig::try_new(vec![hostile("keep"), hostile(act)])
            .err()
            .unwrap()
            .cause
    };
    assert!(
        matches!(cause("configure-error"), ConfigureCause::Refused(reason) if reason.contains("as asked"))
    );
    assert!(matches!(
        cause("configure-trap"),
        ConfigureCause::Call(CallError::Trapped { .. })
    ));
    assert!(matches!(
        cause("configure-spin"),
        ConfigureCause::Call(CallError::DeadlineExceeded { .. })
    ));
    let error = Rig::try_new(vec![spec("hostile", "{}", limits())])
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .starts_with("stage \"hostile\": refused its config: "),
        "{error}"
    );
    let tiny = StageLimits {
        memory_bytes_max: 65536,
        ..limits()
    };
    let error = Rig::try_new(vec![spec("hostile", r#"{"do":"keep"}"#, tiny)])
        .err()
        .unwrap();
    assert_eq!(
        error.cause,
        ConfigureCause::Call(CallError::MemoryExceeded { limit_bytes: 65536 })
    );
    let tables = StageLimits {
        table_elements_max: 0,
        ..limits()
    };
    let error = Rig::try_new(vec![spec("hostile", r#"{"do":"keep"}"#, tables)])
        .err()
        .unwrap();
    assert_eq!(
        error.cause,
        ConfigureCause::Call(CallError::TableExceeded { limit: 0 })
    );
}

#[test]
fn memory_that_a_stage_keeps_ends_with_its_instance() {
    // 1 MiB a call: the limit is reached some 60 calls on, then again, and no record is lost for it.
    let mut rig = Rig::new(vec![hostile("leak")]);
    for _ in 0..200 {
        lives(&mut rig);
    }
}

#[test]
fn a_fresh_instance_starts_over_and_a_reused_one_goes_on() {
    let mut rig = Rig::new(vec![hostile("stateful-counter")]);
    assert_eq!(rig.run(&batch(["a", "b"])).unwrap(), ["1", "2"]);
    assert_eq!(rig.run(&batch(["c"])).unwrap(), ["3"]);

    // What replaces an instance: the record that trapped, not the ones before it.
    let mut rig = Rig::new(vec![hostile("trap-on"), hostile("stateful-counter")]);
    assert_eq!(rig.run(&batch(["a", "b"])).unwrap(), ["1", "2"]);
    assert_eq!(rig.run(&poisoned(3, &[1])).unwrap(), ["3", "4"]);
}

#[test]
fn fatal_stops_and_retry_is_reported() {
    let mut rig = Rig::new(vec![hostile("keep"), hostile("fatal")]);
    let fault = rig.run(&batch(["x"])).unwrap_err();
    assert_eq!(
        fault,
        ChainFault::Fatal {
            stage: "hostile".into(),
            reason: "stopped, as asked".into()
        }
    );
    assert!(
        rig.output.view(&batch(["x"])).is_empty(),
        "nothing passes with a fault"
    );

    let mut rig = Rig::new(vec![hostile_with(r#"{"do":"retry","count":2}"#)]);
    for failure in 1..=2 {
        let fault = rig.run(&batch(["x"])).unwrap_err();
        let reason = format!("failure {failure}, as asked");
        assert_eq!(
            fault,
            ChainFault::Retry {
                stage: "hostile".into(),
                reason
            },
            "the instance is kept"
        );
    }
    lives(&mut rig);
}
