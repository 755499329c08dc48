//! Components built from text, and bytes that are none.

#![allow(clippy::unwrap_used)]

use sluice_model::World;

use crate::*;

fn built(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A component with these imports that exports an empty instance under each of `exports`.
fn component(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    let imports: String = imports
        .iter()
        .map(|name| format!("(import \"{name}\" (instance))\n"))
        .collect();
    let exports: String = exports
        .iter()
        .enumerate()
        .map(|(index, name)| {
            format!("(instance $e{index})\n(export \"{name}\" (instance $e{index}))\n")
        })
        .collect();
    built(&format!("(component {imports} {exports})"))
}

fn refused(imports: &[&str]) -> Vec<String> {
    let inspection = inspect(&component(imports, &[])).unwrap();
    match check_imports(&inspection, &GrantSet::none()) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn imports_and_exports_are_listed_with_their_versions() {
    let inspection = inspect(&component(
        &["wasi:io/streams@0.2.6", "sluice:pipeline/log@0.1.0"],
        &["sluice:pipeline/stage@0.1.0"],
    ))
    .unwrap();
    let names = |list: &[Import]| {
        list.iter()
            .map(|import| import.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&inspection.imports),
        ["wasi:io/streams@0.2.6", "sluice:pipeline/log@0.1.0"]
    );
    assert_eq!(inspection.exports[0].name, "sluice:pipeline/stage@0.1.0");
    assert_eq!(inspection.exports[0].kind, ExternKind::Instance);
    assert_eq!(inspection.stage_version(), Some("0.1.0"));
    assert_eq!(check_stage(&inspection), Ok(World::Transform));
}

#[test]
fn only_the_outermost_component_counts() {
    let inspection = inspect(&built(
        r#"(component
             (component $inner
               (import "wasi:sockets/tcp@0.2.0" (instance))
               (instance $e) (export "inner:thing/e@1.0.0" (instance $e)))
             (core module (memory 2 8) (table 10 funcref) (func) (func))
             (core module (memory 1)))"#,
    ))
    .unwrap();
    assert_eq!((inspection.imports.len(), inspection.exports.len()), (0, 0));
    let core = CoreFacts {
        modules: 2,
        functions: 2,
        memory_bytes_min: 3 << 16,
        table_elements_min: 10,
    };
    assert_eq!(inspection.core, core);
}

#[test]
fn any_patch_of_the_contract_is_a_stage_and_no_other_version() {
    for (exports, expected) in [
        (&["sluice:pipeline/stage@0.1.0"][..], Some("0.1.0")),
        (
            &["a:b/c@1.0.0", "sluice:pipeline/stage@0.1.27"],
            Some("0.1.27"),
        ),
        (&["sluice:pipeline/stage@0.2.0"], None),
        (&["sluice:pipeline/stage@0.1.0-rc1"], None),
        (&["sluice:pipeline/stage"], None),
        (&["sluice:pipeline/log@0.1.0"], None),
    ] {
        let inspection = inspect(&component(&[], exports)).unwrap();
        assert_eq!(inspection.stage_version(), expected, "{exports:?}");
        assert_eq!(
            check_stage(&inspection).is_ok(),
            expected.is_some(),
            "{exports:?}"
        );
    }
    let message = |exports: &[&str]| {
        check_stage(&inspect(&component(&[], exports)).unwrap())
            .unwrap_err()
            .to_string()
    };
    assert!(message(&["sluice:pipeline/stage@0.2.0"]).contains("`sluice:pipeline/stage@0.2.0`"));
    assert!(message(&["wasi:cli/run@0.2.6"]).contains("(it exports `wasi:cli/run@0.2.6`)"));
    assert!(message(&[]).contains("(it exports nothing)"));
}

#[test]
fn a_stage_with_an_ending_is_a_report_and_an_ending_of_another_version_is_refused() {
    let stage = "sluice:pipeline/stage@0.1.0";
    for (ending, expected) in [
        ("sluice:pipeline/ending@0.1.0", Ok(World::Report)),
        ("sluice:pipeline/ending@0.1.9", Ok(World::Report)),
        ("sluice:pipeline/other@0.1.0", Ok(World::Transform)),
        (
            "sluice:pipeline/ending@0.2.0",
            Err(
                "it exports `sluice:pipeline/ending@0.2.0`, and this version runs sluice:pipeline/ending@0.1.x; \
                 rebuild it against the 0.1 SDK",
            ),
        ),
    ] {
        let inspection = inspect(&component(&[], &[stage, ending])).unwrap();
        let found = check_stage(&inspection).map_err(|problem| problem.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{ending}");
    }
    let alone = inspect(&component(&[], &["sluice:pipeline/ending@0.1.0"])).unwrap();
    assert_eq!(alone.world(), None);
    assert!(check_stage(&alone).is_err(), "an ending alone is no stage");
}

#[test]
fn a_function_named_like_nothing_is_not_a_stage() {
    let inspection = inspect(&built(
        r#"(component
             (core module $m (func (export "f")))
             (core instance $i (instantiate $m))
             (func $f (canon lift (core func $i "f")))
             (export "process" (func $f)))"#,
    ))
    .unwrap();
    assert_eq!(inspection.exports[0].kind, ExternKind::Function);
    assert!(check_stage(&inspection).is_err());
}

#[test]
fn what_toolchains_import_unasked_is_linked() {
    assert_eq!(
        refused(&[
            "sluice:pipeline/log@0.1.3",
            "wasi:io/error@0.2.6",
            "wasi:io/poll@0.2.0",
            "wasi:io/streams@0.2.10",
            "wasi:clocks/monotonic-clock@0.2.6",
            "wasi:clocks/wall-clock@0.2.6",
            "wasi:random/random@0.2.6",
            "wasi:random/insecure-seed@0.2.6",
            "wasi:cli/environment@0.2.6",
            "wasi:cli/exit@0.2.6",
            "wasi:cli/terminal-stdout@0.2.6",
            "wasi:filesystem/types@0.2.6",
            "wasi:filesystem/preopens@0.2.6",
        ]),
        [] as [&str; 0]
    );
}

#[test]
fn every_other_import_is_named_with_its_way_out() {
    assert_eq!(
        refused(&[
            "wasi:io/streams@0.2.6",
            "wasi:sockets/tcp@0.2.6",
            "wasi:http/outgoing-handler@0.2.6"
        ]),
        [
            "it imports `wasi:sockets/tcp@0.2.6`, which is not granted: `[stage.grants] sockets = [\"10.0.0.5:1883\"]` \
             would grant it, but this version of Sluice cannot grant it yet",
            "it imports `wasi:http/outgoing-handler@0.2.6`, which is not granted: `[stage.grants] http = \
             [\"api.example.com\"]` would grant it, but this version of Sluice cannot grant it yet",
        ]
    );
    for (import, part) in [
        ("wasi:keyvalue/store@0.2.0-draft", "keyvalue = true"),
        ("wasi:io/streams@0.3.0", "links `wasi:io/streams` in 0.2.x"),
        ("wasi:io/streams", "links `wasi:io/streams` in 0.2.x"),
        (
            "wasi:io/invented@0.2.0",
            "no line of `[stage.grants]` would grant",
        ),
        (
            "wasi:nn/graph@0.2.0",
            "no line of `[stage.grants]` would grant",
        ),
        ("acme:lib/thing@1.0.0", "interface `acme:lib/thing@1.0.0`"),
        (
            "sluice:pipeline/log@0.2.0",
            "links `sluice:pipeline/log` in 0.1.x",
        ),
        (
            "sluice:pipeline/stage@0.1.0",
            "`sluice:pipeline/stage@0.1.0`",
        ),
    ] {
        let problems = refused(&[import]);
        assert_eq!(problems.len(), 1, "{import}");
        assert!(problems[0].contains(part), "{import}: {}", problems[0]);
        assert!(problems[0].contains(import), "{import}: {}", problems[0]);
    }
}

#[test]
fn types_and_functions_count_as_imports() {
    let inspection = inspect(&built(
        r#"(component
             (import "acme:lib/types@1.0.0" (instance (export "t" (type (sub resource)))))
             (import "t" (type (sub resource)))
             (import "f" (func)))"#,
    ))
    .unwrap();
    let problems = check_imports(&inspection, &GrantSet::none()).unwrap_err();
    let names: Vec<_> = problems.iter().map(ImportProblem::import).collect();
    assert_eq!(names, ["acme:lib/types@1.0.0", "t", "f"]);
    assert_eq!(problems[2].grant_line(), None);
}

#[test]
fn bytes_that_are_no_component_say_what_they_are() {
    let core = built("(module (func (export \"f\")))");
    assert_eq!(inspect(&core), Err(InspectError::CoreModule));
    assert!(
        InspectError::CoreModule
            .to_string()
            .contains("core module, not a component; build")
    );
    assert_eq!(inspect(b""), Err(InspectError::Empty));
    assert_eq!(
        inspect(b"\x7fELF\x02"),
        Err(InspectError::NotWasm { is_text: false })
    );
    assert_eq!(
        inspect(b" (component)"),
        Err(InspectError::NotWasm { is_text: true })
    );
    assert!(matches!(
        inspect(b"\0as"),
        Err(InspectError::Invalid { .. })
    ));
    let large = vec![0; COMPONENT_BYTES_MAX + 1];
    assert_eq!(
        inspect(&large),
        Err(InspectError::TooLarge { bytes: large.len() })
    );
}

#[test]
fn an_invalid_body_is_found_not_only_an_invalid_frame() {
    let good = built("(component (core module (func (result i32) i32.const 7)))");
    let position = good
        .windows(2)
        .position(|bytes| bytes == [0x41, 7])
        .unwrap();
    let mut bad = good.clone();
    bad[position] = 0x42; // i64.const
    assert!(inspect(&good).is_ok());
    assert!(matches!(inspect(&bad), Err(InspectError::Invalid { .. })));
}

#[test]
fn what_the_engine_lacks_is_refused() {
    for body in ["(memory 1 1 shared)", "(type (struct))", "(tag)"] {
        let bytes = built(&format!("(component (core module {body}))"));
        assert!(
            matches!(inspect(&bytes), Err(InspectError::Invalid { .. })),
            "{body}"
        );
    }
}

#[test]
fn truncated_and_flipped_bytes_never_panic() {
    let good = built(
        r#"(component
             (import "wasi:io/streams@0.2.6" (instance))
             (core module $m (memory 1) (func (export "f") (result i32) i32.const 7 i32.const 8 i32.add))
             (core instance $i (instantiate $m))
             (instance $e) (export "sluice:pipeline/stage@0.1.0" (instance $e)))"#,
    );
    assert!(inspect(&good).is_ok());
    for length in 0..good.len() {
        // A component cut between two sections is a component; anything else is an error, never a panic.
        let _: Result<Inspection, InspectError> = inspect(&good[..length]);
    }
    let mut refused_count = 0;
    for index in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[index] ^= flip;
            refused_count += usize::from(inspect(&bytes).is_err());
        }
    }
    assert!(
        refused_count > good.len(),
        "most flips are noticed: {refused_count}"
    );
}
