//! Loading: the cache, and everything that is no stage.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;

use sluice_sandbox::{Compiled, Engine, EngineConfig, EngineError, LoadError};

use crate::guests::{digest, plugin, text_stage};

fn keep_all() -> Vec<u8> {
    text_stage(
        r#"(func (export "process") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))"#,
    )
}

fn engine_in(dir: &std::path::Path) -> Engine {
    Engine::new(EngineConfig {
        cache_dir: Some(dir.to_owned()),
    })
    .unwrap()
}

/// Loads and says whether the bytes were asked for.
fn load(engine: &Engine, wasm: &[u8]) -> (Compiled, bool) {
    let asked = Cell::new(false);
    let compiled = engine.load(&digest(wasm), || {
        asked.set(true);
        Ok(wasm)
    });
    (compiled.unwrap(), asked.get())
}

#[test]
fn bytes_are_asked_for_only_when_nothing_is_compiled() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = keep_all();
    let engine = engine_in(dir.path());
    let (first, asked) = load(&engine, &wasm);
    assert!(asked);
    let (_, asked) = load(&engine, &wasm);
    assert!(!asked, "it is loaded");
    drop(first);
    let (_, asked) = load(&engine, &wasm);
    assert!(!asked, "it is in the cache");
    let next_start = engine_in(dir.path());
    assert!(
        !load(&next_start, &wasm).1,
        "it is in the cache of the next start"
    );
    next_start.forget(&digest(&wasm));
    assert!(load(&engine_in(dir.path()), &wasm).1, "it was forgotten");
}

#[test]
fn a_damaged_file_is_noticed_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = keep_all();
    load(&engine_in(dir.path()), &wasm);
    let file = std::fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let sound = std::fs::read(&file).unwrap();
    let middle = sound.len() / 2;
    let mut flipped = sound.clone();
    flipped[middle] ^= 1;
    for damaged in [&flipped[..], &sound[..middle], b""] {
        std::fs::write(&file, damaged).unwrap();
        assert!(load(&engine_in(dir.path()), &wasm).1, "compiled again");
        assert_eq!(
            std::fs::read(&file).unwrap().len(),
            sound.len(),
            "and stored again"
        );
        assert!(!load(&engine_in(dir.path()), &wasm).1);
    }
}

#[test]
fn a_cache_that_cannot_be_a_directory_is_an_error_and_one_that_vanishes_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Engine::new(EngineConfig {
        cache_dir: Some(file),
    })
    .unwrap_err();
    assert!(matches!(error, EngineError::Cache { .. }), "{error}");

    let gone = dir.path().join("gone");
    let engine = engine_in(&gone);
    std::fs::remove_dir_all(&gone).unwrap();
    assert!(load(&engine, &keep_all()).1);
}

fn refused(wasm: &[u8]) -> LoadError {
    crate::guests::engine()
        .load(&digest(wasm), || Ok(wasm))
        .unwrap_err()
}

#[test]
fn what_is_no_stage_is_refused_with_a_reason() {
    assert!(matches!(refused(b"not wasm at all"), LoadError::Inspect(_)));
    let module = wat::parse_str("(module)").unwrap();
    assert!(matches!(refused(&module), LoadError::Inspect(_)));
    let empty = wat::parse_str("(component)").unwrap();
    assert!(matches!(refused(&empty), LoadError::NotAStage(_)));
    let mut broken = keep_all();
    broken.truncate(broken.len() - 10);
    assert!(matches!(refused(&broken), LoadError::Inspect(_)));
    // The right name, and nothing of the right shape behind it.
    let hollow =
        r#"(component (instance $i) (export "sluice:pipeline/stage@0.1.0" (instance $i)))"#;
    let error = refused(&wat::parse_str(hollow).unwrap());
    assert!(
        matches!(&error, LoadError::Compile(text) if text.contains("configure") || text.contains("process")),
        "{error}"
    );
}

#[test]
fn other_patch_versions_of_the_contract_are_accepted() {
    let wasm = keep_all();
    let (from, to) = (
        b"sluice:pipeline/stage@0.1.0",
        b"sluice:pipeline/stage@0.1.7",
    );
    let at = wasm
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    let mut newer = wasm.clone();
    newer[at..at + to.len()].copy_from_slice(to);
    crate::guests::compiled(&newer);
    newer[at..at + to.len()].copy_from_slice(b"sluice:pipeline/stage@0.2.0");
    assert!(matches!(refused(&newer), LoadError::NotAStage(_)));
}

#[test]
fn an_import_that_nobody_answers_is_named() {
    let error = refused(&plugin("wasi_sockets"));
    assert!(matches!(error, LoadError::Imports(_)), "{error}");
    assert!(error.to_string().contains("wasi:sockets/"), "{error}");
}

#[test]
fn bytes_must_be_what_the_digest_says_and_readable() {
    let engine = crate::guests::engine();
    let error = engine.load(&[0; 32], || Ok(keep_all())).unwrap_err();
    assert!(matches!(error, LoadError::Digest { .. }), "{error}");
    let gone = || Err::<Vec<u8>, _>(io::Error::from(io::ErrorKind::NotFound));
    assert!(matches!(
        engine.load(&[1; 32], gone).unwrap_err(),
        LoadError::Read(_)
    ));
}

/// A component is known by its digest, so it must not depend on where it was built.
#[test]
fn no_component_carries_a_path_of_the_machine_that_built_it() {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = repository.canonicalize().unwrap();
    let mut looked_at = 0;
    for entry in std::fs::read_dir(repository.join("plugins/dist")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() != Some("wasm".as_ref()) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&*repository.to_string_lossy()), "{path:?}");
        for (place, _) in text.match_indices("registry/src/") {
            assert!(
                text[..place].ends_with("/cargo/"),
                "{path:?} names where cargo keeps its crates; run scripts/build-plugins again"
            );
        }
        looked_at += 1;
    }
    assert!(looked_at > 0, "run scripts/build-plugins first");
}
