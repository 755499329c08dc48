//! Pipeline files and plugins that are right, missing, broken, or ask for too much.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::failure::Exit;

const STAGE: &str =
    r#"(component (instance $s) (export "sluice:pipeline/stage@0.1.0" (instance $s)))"#;
const SOCKETS: &str = r#"(component (import "wasi:sockets/tcp@0.2.3" (instance)) (instance $s)
                          (export "sluice:pipeline/stage@0.1.0" (instance $s)))"#;

const REPORT: &str = r#"(component (instance $s) (export "sluice:pipeline/stage@0.1.0" (instance $s))
                          (instance $e) (export "sluice:pipeline/ending@0.1.0" (instance $e)))"#;

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn pipeline(stages: &str) -> String {
    format!(
        "name = \"p\"\n[input.generate]\ninterval = \"1s\"\ntemplate = \"x\"\n{stages}\n[output.stdout]\n"
    )
}

fn stage(name: &str, plugin: &str) -> String {
    format!("[[stage]]\nname = \"{name}\"\nplugin = \"{plugin}\"\n")
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn failure(&self, text: &str) -> Failure {
        let path = self.put("p.toml", text);
        let failure = check(&path).unwrap_err().into_failure(false);
        assert_eq!(failure.exit, Exit::Invalid);
        failure
    }
}

#[test]
fn plugins_are_found_relative_to_the_pipeline_file_and_read_once() {
    let dir = Dir::new();
    let bytes = wasm(STAGE);
    dir.put("plugins/a.wasm", &bytes);
    let digest = Digest::of(b"elsewhere");
    let text = pipeline(&format!(
        "{}{}{}",
        stage("one", "../plugins/a.wasm"),
        stage("two", "../plugins/a.wasm"),
        stage("three", &digest.to_string())
    ));
    let path = dir.put("pipelines/p.toml", text);
    let file = check(&path).unwrap();
    let digests: Vec<_> = file.plugins.iter().map(|plugin| plugin.digest).collect();
    assert_eq!(digests, [Digest::of(&bytes), Digest::of(&bytes), digest]);
    assert_eq!(file.plugins[0].stage.as_str(), "one");
    let read = |index: usize| file.plugins[index].file.as_ref().map(|file| &file.bytes);
    assert!(Arc::ptr_eq(read(0).unwrap(), read(1).unwrap()));
    assert!(read(2).is_none());
}

#[test]
fn a_report_of_an_input_without_an_end_is_refused_at_its_line() {
    let dir = Dir::new();
    dir.put("sum.wasm", wasm(REPORT));
    let endless = pipeline(&stage("sum", "sum.wasm"));
    let detail = dir.failure(&endless).detail.unwrap();
    for part in [
        "p.toml:7:10",
        "stage `sum`: its plugin reports when the input has ended, and this input never does",
        "give `[input.generate]` a `count`",
    ] {
        assert!(detail.contains(part), "{detail}");
    }
    let path = dir.put("p.toml", endless.replace("interval", "count = 3\ninterval"));
    let file = check(&path).unwrap();
    assert_eq!(file.pipeline.stages[0].world, Some(World::Report));
}

#[test]
fn every_plugin_that_is_wrong_is_named_with_its_line() {
    let dir = Dir::new();
    dir.put("text.wasm", "hello");
    dir.put("core.wasm", wasm("(module)"));
    dir.put("other.wasm", wasm("(component)"));
    dir.put("sockets.wasm", wasm(SOCKETS));
    dir.put("cut.wasm", &wasm(STAGE)[..20]);
    dir.put("good.wasm", wasm(STAGE));
    let stages: String = [
        ("gone", "gone.wasm"),
        ("text", "text.wasm"),
        ("core", "core.wasm"),
        ("other", "other.wasm"),
        ("good", "good.wasm"),
        ("sockets", "sockets.wasm"),
        ("cut", "cut.wasm"),
        ("named", "filter@1.0"),
        ("dir", "./"),
    ]
    .iter()
    .map(|(name, plugin)| stage(name, plugin))
    .collect();
    let failure = dir.failure(&pipeline(&stages));
    assert!(
        failure.message.ends_with("p.toml has 8 problems"),
        "{}",
        failure.message
    );
    let detail = failure.detail.unwrap();
    for part in [
        "stage `gone`: the plugin file",
        "No such file",
        "p.toml:7:10",
        "stage `text`:",
        "not a Wasm file",
        "core module, not a component",
        "does not export `sluice:pipeline/stage",
        "stage `sockets`:",
        "wasi:sockets/tcp@0.2.3",
        "[stage.grants]",
        "stage `cut`:",
        "stage `named`: plugins by `name@version` are not in this version",
        "stage `dir`:",
        "plugin = \"sockets.wasm\"",
        "^^^^",
    ] {
        assert!(detail.contains(part), "{part}\n{detail}");
    }
    assert!(!detail.contains("`good`"), "{detail}");
}

#[test]
fn inline_stages_have_places_too() {
    let text = pipeline("").replace(
        "[input",
        "stage = [{ name = \"a\", plugin = \"gone.wasm\" }]\n[input",
    );
    let checked = pipeline::check(&text);
    let places: Vec<&str> = checked
        .plugins
        .iter()
        .map(|at| &text[at.span.clone()])
        .collect();
    assert_eq!(places, ["\"gone.wasm\""]);
}

#[test]
fn a_missing_plugin_is_told_together_with_what_is_wrong_in_the_text() {
    let dir = Dir::new();
    let stages = [stage("one", "gone.wasm"), stage("No Name", "lost.wasm")].concat();
    let text = format!("{}typo = 1\n", pipeline(&stages));
    let failure = dir.failure(&text);
    assert!(
        failure.message.contains("4 problems"),
        "{}",
        failure.message
    );
    let detail = failure.detail.unwrap();
    for part in [
        "stage `one`: the plugin file",
        "a stage's name may",
        "\nerror: the plugin file",
        "lost.wasm cannot be read",
        "typo",
    ] {
        assert!(detail.contains(part), "{part}\n{detail}");
    }
}

#[test]
fn a_file_that_cannot_be_read_or_is_wrong_is_invalid_input() {
    let dir = Dir::new();
    let gone = check(&dir.0.path().join("gone.toml")).unwrap_err();
    let gone = gone.into_failure(false);
    assert_eq!(gone.exit, Exit::Invalid);
    assert!(
        gone.message.contains("gone.toml: No such file"),
        "{}",
        gone.message
    );

    let path = dir.put("bytes.toml", b"name = \"\xff\"");
    let bytes = check(&path).unwrap_err().into_failure(false);
    assert!(
        bytes.message.contains("not UTF-8 text (byte 8)"),
        "{}",
        bytes.message
    );

    let failure = dir.failure("nam = \"p\"\nkind = 1\n");
    assert!(failure.message.contains("problems"), "{}", failure.message);
    assert!(failure.detail.unwrap().contains("p.toml:1:1"));

    let large = dir.failure(&"#".repeat(300 << 10));
    assert!(large.detail.unwrap().contains("262144"));
}

#[test]
fn a_path_is_shown_without_what_it_takes_back_at_once() {
    for (path, shown) in [
        ("pipelines/../plugins/dist/a.wasm", "plugins/dist/a.wasm"),
        ("./a.wasm", "a.wasm"),
        ("../../a/./b.wasm", "../../a/b.wasm"),
        ("/a/../b.wasm", "/b.wasm"),
        ("/../b.wasm", "/../b.wasm"),
    ] {
        assert_eq!(tidied(Path::new(path)), Path::new(shown));
    }
}
