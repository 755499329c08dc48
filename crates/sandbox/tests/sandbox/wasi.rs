//! What toolchains import unasked is there, and reaches nothing.

use std::time::{Duration, Instant};

use sluice_sandbox::{CallError, ConfigureCause, Level, StageLimits};

use crate::guests::{Rig, batch, limits, spec, text_spec, text_stage_with};

#[test]
fn a_component_with_the_usual_imports_runs_and_finds_nothing_behind_them() {
    let mut rig = Rig::new(vec![spec("wasi_usual", "{}", limits())]);
    assert_eq!(rig.run(&batch(["x", "y"])).unwrap(), ["x", "y"]);
    assert!(rig.dead().is_empty(), "{:?}", rig.dead());
    let lines = rig.lines.all();
    let (_, level, first) = &lines[0];
    assert_eq!(
        (*level, first.as_str()),
        (
            Level::Info,
            "wasi-usual: 0 arguments, 0 variables, nothing in the directory"
        )
    );
    assert_eq!(
        (lines[1].1, lines[1].2.as_str()),
        (Level::Info, "wasi-usual: 2 records of 1 lengths")
    );
    let (stage, level, last) = &lines[2];
    assert_eq!(
        (stage.as_str(), *level),
        ("wasi_usual", Level::Warn),
        "stderr"
    );
    assert!(last.starts_with("wasi-usual: took "), "{last}");
}

#[test]
fn handles_from_the_host_are_bounded() {
    let few = StageLimits {
        handles_max: 1,
        ..limits()
    };
    let error = Rig::try_new(vec![spec("wasi_usual", "{}", few)])
        .err()
        .unwrap();
    assert_eq!(
        error.cause,
        ConfigureCause::Call(CallError::HandlesExceeded { limit: 1 })
    );

    let wasm = waiting_stage("(loop $more (drop (call $subscribe (i64.const 1))) (br $more))");
    let mut rig = Rig::new(vec![text_spec(&wasm, limits())]);
    rig.run(&batch(["x"])).unwrap();
    assert_eq!(rig.dead_brief(), [(0, 0, "handles")], "{:?}", rig.dead());
}

#[test]
fn waiting_ends_with_the_deadline() {
    // An hour, in the host, where no epoch reaches.
    let wasm = waiting_stage("(call $block (call $subscribe (i64.const 3600000000000)))");
    let mut rig = Rig::new(vec![text_spec(&wasm, limits())]);
    let started = Instant::now();
    rig.run(&batch(["x"])).unwrap();
    assert_eq!(rig.dead_brief(), [(0, 0, "deadline")], "{:?}", rig.dead());
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn many_short_waits_count_together() {
    let wasm = waiting_stage(
        "(loop $more (call $block (call $subscribe (i64.const 5000000))) (br $more))",
    );
    // So that handles do not end it first.
    let many = StageLimits {
        handles_max: 1_000_000,
        ..limits()
    };
    let mut rig = Rig::new(vec![text_spec(&wasm, many)]);
    rig.run(&batch(["x"])).unwrap();
    assert_eq!(rig.dead_brief(), [(0, 0, "deadline")], "{:?}", rig.dead());
}

/// A stage that can wait: `$subscribe` takes nanoseconds and gives what `$block` takes.
fn waiting_stage(body: &str) -> Vec<u8> {
    text_stage_with(
        &format!(
            r#"(func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                 {body} (i32.const 16))"#
        ),
        r#"(import "host" "subscribe" (func $subscribe (param i64) (result i32)))
           (import "host" "block" (func $block (param i32)))"#,
        r#"(import "wasi:io/poll@0.2.0" (instance $poll
             (export "pollable" (type $pollable (sub resource)))
             (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
           (alias export $poll "pollable" (type $pollable))
           (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
             (alias outer 1 $pollable (type $outside))
             (export "pollable" (type $pollable (eq $outside)))
             (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
           (core func $subscribe (canon lower (func $clock "subscribe-duration")))
           (core func $block (canon lower (func $poll "[method]pollable.block")))"#,
        r#"(with "host" (instance (export "subscribe" (func $subscribe)) (export "block" (func $block))))"#,
    )
}
