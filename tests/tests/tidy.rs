//! The project keeps its own rules, and each rule can fail.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use sluice_tests::tidy::mask::{mask, mask_tests, test_modules};
use sluice_tests::tidy::{Problem, Project, SourceFile, check, manifests, sources, texts};

#[test]
fn the_project_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let project = Project::read(root).unwrap();
    assert!(
        project.paths.contains("crates/model/src/lib.rs"),
        "not the project: {}",
        root.display()
    );
    let problems: Vec<String> = check(&project).iter().map(Problem::to_string).collect();
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

fn project(files: &[(&str, &str)]) -> Project {
    let mut project = Project::default();
    for (path, text) in files {
        project.files.push(SourceFile::new(path, text));
        project.paths.insert((*path).to_owned());
    }
    project
}

/// The lines with problems, and what they are about.
fn found(problems: &[Problem], about: &str) -> Vec<usize> {
    problems
        .iter()
        .filter(|problem| problem.what.contains(about))
        .map(|problem| problem.line)
        .collect()
}

const GOOD_PACKAGE: &str = "[package]\nname = \"NAME\"\nversion.workspace = true\nedition.workspace = true\n\
    rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true\n";

/// The problems of one manifest whose dependencies start at line 11, when its sources use `words`.
fn manifest(name: &str, dependencies: &str, words: &str) -> Vec<Problem> {
    let text = GOOD_PACKAGE.replace("NAME", name) + "[dependencies]\n" + dependencies;
    let sources = format!("//! x\nuse {words};\n");
    manifests::check(&project(&[
        ("crates/x/Cargo.toml", &text),
        ("crates/x/src/lib.rs", &sources),
    ]))
}

#[test]
fn an_edge_is_built_without_orchestrator_and_command_line() {
    let edge = manifests::within_reach("edge-runtime");
    assert!(
        edge.contains("sandbox") && edge.contains("model"),
        "{edge:?}"
    );
    for other in ["host", "cli", "api", "scheduler"] {
        assert!(!edge.contains(other), "the edge may have {other} in it");
    }
    assert!(manifests::within_reach("cli").contains("scheduler"));
}

#[test]
fn a_forbidden_arrow_is_named_with_its_line() {
    for (name, other, is_allowed) in [
        ("sluice-ledger", "model", true),
        ("sluice-ledger", "protocol", false),
        ("sluice-component", "model", true),
        ("sluice-protocol", "ledger", true),
        ("sluice-protocol", "record", false),
        ("sluice-sandbox", "model", false),
        ("sluice-scheduler", "protocol", false),
        ("sluice-host", "sandbox", false),
        ("sluice-host", "scheduler", true),
        ("sluice-edge-runtime", "api", false),
        ("sluice-edge-runtime", "sandbox", true),
        ("sluice-cli", "transport", false),
        ("sluice-cli", "host", true),
        ("sluice-tests", "sandbox", true),
    ] {
        let dependency = format!("sluice-{other}.workspace = true\n");
        let problems = manifest(name, &dependency, &format!("sluice_{other}"));
        let expected = if is_allowed { vec![] } else { vec![11] };
        assert_eq!(
            found(&problems, "must not know"),
            expected,
            "{name} -> {other}: {problems:?}"
        );
    }
    let problems = manifest("sluice-unheard-of", "", "a");
    assert_eq!(found(&problems, "no entry in the table of arrows"), [1]);
}

#[test]
fn versions_and_features_stand_in_the_table() {
    for (dependency, is_allowed) in [
        ("bytes.workspace = true", true),
        ("bytes = { workspace = true, optional = true }", true),
        ("bytes = \"1\"", false),
        ("bytes = { version = \"1\" }", false),
        ("bytes = { path = \"../bytes\" }", false),
        ("bytes = { workspace = true, features = [\"std\"] }", false),
        (
            "bytes = { workspace = true, default-features = false }",
            false,
        ),
        (
            "tokio = { workspace = true, features = [\"test-util\"] }",
            false,
        ),
    ] {
        let problems = manifest("sluice-transport", dependency, "{bytes, tokio}");
        assert_eq!(
            !problems.is_empty(),
            !is_allowed,
            "{dependency}: {problems:?}"
        );
        assert!(problems.iter().all(|problem| problem.line == 11));
    }
    let in_tests = "[dev-dependencies]\ntokio = { workspace = true, features = [\"test-util\"] }\n";
    assert_eq!(manifest("sluice-transport", in_tests, "tokio"), []);
    let in_tests = "[dev-dependencies]\ntokio = { workspace = true, features = [\"full\"] }\n";
    assert_eq!(manifest("sluice-transport", in_tests, "tokio").len(), 1);
    let for_linux = "[target.'cfg(unix)'.dependencies]\nbytes = \"1\"\n";
    assert_eq!(
        found(&manifest("sluice-transport", for_linux, "bytes"), "own"),
        [12]
    );

    let text = GOOD_PACKAGE.replace(
        "version.workspace = true\nedition",
        "version = \"1\"\nedition",
    );
    let problems = manifests::check(&project(&[("crates/x/Cargo.toml", &text)]));
    assert_eq!(
        found(&problems, "`version` is not taken from the workspace"),
        [3]
    );
    let text = GOOD_PACKAGE.replace("[lints]\nworkspace = true\n", "");
    let problems = manifests::check(&project(&[("crates/x/Cargo.toml", &text)]));
    assert_eq!(found(&problems, "lints"), [1]);
}

#[test]
fn what_only_tests_switch_on_is_in_no_program() {
    for (dependencies, is_allowed) in [
        (
            "sluice-state-dir = { workspace = true, features = [\"failpoints\"] }\n",
            false,
        ),
        (
            "sluice-state-dir.workspace = true\n[features]\ndefault = [\"sluice-state-dir/failpoints\"]\n",
            false,
        ),
        (
            "sluice-state-dir.workspace = true\n[features]\nx = [\"sluice-state-dir?/failpoints\"]\n",
            false,
        ),
        (
            "sluice-state-dir.workspace = true\n[features]\nx = [\"y\"]\ny = []\n",
            true,
        ),
    ] {
        let problems = manifest("sluice-host", dependencies, "sluice_state_dir");
        assert_eq!(
            problems.is_empty(),
            is_allowed,
            "{dependencies}: {problems:?}"
        );
    }
    let own = manifest(
        "sluice-state-dir",
        "[features]\ndefault = [\"failpoints\"]\nfailpoints = []\n",
        "",
    );
    assert_eq!(own.len(), 1, "{own:?}");

    // And as cargo sees it: with the tests it is there, in the programs it is not.
    let features = |packages: &[&str]| {
        let output = std::process::Command::new(env!("CARGO"))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args([
                "tree",
                "--locked",
                "--offline",
                "--edges",
                "normal,build,features",
            ])
            .args(packages)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("sluice-state-dir"), "{text}");
        text.contains("feature \"failpoints\"")
    };
    assert!(!features(&[]), "the programs that `cargo build` makes");
    assert!(!features(&["--workspace"]), "the programs without tests");
    assert!(features(&["--workspace", "--edges", "all"]), "the tests");
}

#[test]
fn the_table_has_no_entry_without_a_user() {
    let root = "[workspace.dependencies]\nbytes = \"1\"\nunused = \"1\"\nempty = {}\n";
    let member = GOOD_PACKAGE.replace("NAME", "sluice-transport")
        + "[dependencies]\nbytes.workspace = true\nempty.workspace = true\n";
    let problems = manifests::check(&project(&[
        ("Cargo.toml", root),
        ("crates/transport/Cargo.toml", &member),
        ("crates/transport/src/lib.rs", "//! x\nuse {bytes, empty};"),
    ]));
    assert_eq!(found(&problems, "no crate uses it"), [3]);
    assert_eq!(found(&problems, "neither version nor path"), [4]);
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_dependency_that_nothing_uses_is_named() {
    let problems = manifest("sluice-transport", "bytes.workspace = true\n", "other");
    assert_eq!(found(&problems, "nothing here uses `bytes`"), [11]);
}

#[test]
fn libraries_with_few_users_stay_there() {
    for (name, library, is_allowed) in [
        ("sluice-transport", "quinn", true),
        ("sluice-host", "quinn", false),
        ("sluice-host", "rustls", false),
        ("sluice-cli", "ring", false),
        ("sluice-cli", "reqwest", true),
        ("sluice-sandbox", "wasmtime", true),
        ("sluice-edge-runtime", "wasmtime", false),
        ("sluice-edge-runtime", "wasmtime-wasi", false),
        ("sluice-host", "rusqlite", true),
        ("sluice-host", "tracing-subscriber", false),
        ("sluice-model", "tokio", false),
        ("sluice-agent", "rusqlite", false),
        ("sluice-api", "serde", true),
    ] {
        let dependency = format!("{library}.workspace = true\n");
        let problems = manifest(name, &dependency, &library.replace('-', "_"));
        assert_eq!(
            problems.is_empty(),
            is_allowed,
            "{name} -> {library}: {problems:?}"
        );
    }
}

/// The problems of one source file that is otherwise fine.
fn source(path: &str, code: &str) -> Vec<Problem> {
    sources::check(&project(&[(path, &format!("//! x\n{code}\n"))]))
}

#[test]
fn code_that_decides_does_not_act() {
    for code in [
        "use std::fs;",
        "use std::{collections::BTreeMap, fs::File};",
        "fn f() { std::net::TcpStream::connect(1); }",
        "fn f() { tokio::spawn(1); }",
        "fn f() { Instant::now(); }",
        "fn f() { std::time::SystemTime::now(); }",
        "fn f() { Uuid::new_v4(); }",
        "fn f(map: HashMap<u8, u8>) {}",
        "use std::collections::HashSet;",
    ] {
        for path in [
            "crates/model/src/a.rs",
            "crates/agent/src/a/b.rs",
            "host/src/core/session.rs",
            "edge-runtime/src/core.rs",
        ] {
            assert_eq!(
                found(&source(path, code), "code that decides"),
                [2],
                "{path}: {code}"
            );
        }
        for path in [
            "crates/transport/src/a.rs",
            "host/src/sessions.rs",
            "crates/model/tests/a.rs",
        ] {
            assert_eq!(
                found(&source(path, code), "code that decides"),
                [0; 0],
                "{path}: {code}"
            );
        }
        let in_test = format!("#[cfg(test)]\nmod tests {{ {code} }}");
        assert_eq!(source("crates/model/src/a.rs", &in_test), [], "{code}");
        let after_test = format!("#[cfg(test)]\nmod tests {{ }}\n{code}");
        assert_eq!(
            source("crates/model/src/a.rs", &after_test).len(),
            1,
            "{code}"
        );
    }
    for code in [
        "// std::fs",
        "const X: &str = \"Instant::now\";",
        "fn f(instant: Instant) {}",
        "use std::{fmt, collections::BTreeMap};",
    ] {
        assert_eq!(source("crates/model/src/a.rs", code), [], "{code}");
    }
}

#[test]
fn a_module_of_tests_in_a_file_of_its_own_is_a_test() {
    let files = [
        (
            "crates/model/src/lib.rs",
            "//! x\n#[cfg(test)]\nmod fixtures;\nmod real;\n",
        ),
        ("crates/model/src/fixtures.rs", "//! x\nuse std::fs;\n"),
        ("crates/model/src/real.rs", "//! x\nuse std::fs;\n"),
    ];
    let problems = sources::check(&project(&files));
    let paths: Vec<&str> = problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(paths, ["crates/model/src/real.rs"]);
}

#[test]
fn libraries_own_nothing_of_the_process() {
    for code in [
        "fn f() { tracing_subscriber::fmt().init(); }",
        "fn f() { std::process::exit(1); }",
        "async fn f() { tokio::signal::ctrl_c().await; }",
        "fn f() { std::panic::set_hook(1); }",
        "static mut COUNT: u32 = 0;",
    ] {
        for (path, is_allowed) in [
            ("host/src/http.rs", false),
            ("edge-runtime/src/lib.rs", false),
            ("crates/transport/src/lib.rs", false),
            ("edge-runtime/src/main.rs", true),
            ("crates/cli/src/logging.rs", true),
        ] {
            let problems = source(path, code);
            assert_eq!(
                found(&problems, "a library uses").is_empty(),
                is_allowed,
                "{path}: {code}"
            );
        }
    }
}

#[test]
fn every_source_says_what_it_is() {
    let problems = sources::check(&project(&[("crates/x/src/a.rs", "use a;\n")]));
    assert_eq!(found(&problems, "does not open with"), [1]);
}

#[test]
fn unsafe_code_has_one_home() {
    let code = "fn f() { unsafe { g() } }";
    assert_eq!(
        found(&source("host/src/a.rs", code), "outside the sandbox"),
        [2]
    );
    assert_eq!(source("crates/sandbox/src/a.rs", code), []);
    assert_eq!(source("host/src/a.rs", "#![forbid(unsafe_code)]"), []);
}

#[test]
fn no_test_is_switched_off_and_no_code_is_missing() {
    for code in [
        concat!("#[ign", "ore]\nfn f() {}"),
        concat!("#[ign", "ore = \"slow\"]\nfn f() {}"),
        concat!("fn f() { to", "do!() }"),
        concat!("fn f() { unimple", "mented!() }"),
    ] {
        assert_eq!(source("tests/tests/a.rs", code).len(), 1, "{code}");
    }
}

#[test]
fn tests_wait_for_something() {
    let blind = "fn f() {\n  start();\n  std::thread::sleep(SECOND);\n}";
    let looking = "fn f() {\n  let deadline = now() + PATIENCE;\n  while !done() {\n    assert!(now() < deadline);\n    \
                   std::thread::sleep(SECOND);\n  }\n}";
    for path in [
        "tests/src/cluster.rs",
        "tests/tests/a.rs",
        "crates/x/src/tests.rs",
    ] {
        assert_eq!(found(&source(path, blind), "a test sleeps"), [4], "{path}");
        assert_eq!(source(path, looking), [], "{path}");
    }
    assert_eq!(source("host/src/a.rs", blind), []);
    let in_test = format!("#[cfg(test)]\nmod tests {{\n{blind}\n}}");
    assert_eq!(
        found(&source("host/src/a.rs", &in_test), "a test sleeps"),
        [6]
    );
}

/// The problems of one text.
fn text(path: &str, text: &str) -> Vec<Problem> {
    texts::check(&project(&[(path, text)]))
}

#[test]
fn words_that_do_not_belong_are_named() {
    for word in [
        concat!("// TO", "DO: later"),
        concat!("FIX", "ME"),
        concat!("see /wo", "rk/main"),
        concat!("in ../Sha", "red/data"),
        concat!("as the design", ".md says"),
    ] {
        let problems = text("host/src/a.rs", &format!("//! x\n{word}\n"));
        assert_eq!(problems.len(), 1, "{word}: {problems:?}");
        assert_eq!(problems[0].line, 2);
    }
    assert_eq!(
        text(
            "host/src/a.rs",
            "//! a hacksaw, a todo list, a network/path\n"
        ),
        []
    );
}

#[test]
fn long_files_are_named() {
    assert_eq!(text("host/src/a/tests.rs", &"a\n".repeat(1000)), []);
    let tests = text("tests/tests/a.rs", &"a\n".repeat(1001));
    assert_eq!(found(&tests, "1001 lines"), [1000]);
    assert_eq!(text("host/src/a.rs", &"a\n".repeat(800)), []);
    assert_eq!(
        found(&text("host/src/a.rs", &"a\n".repeat(801)), "801 lines"),
        [800]
    );
    assert_eq!(
        found(&text("ARCHITECTURE.md", &"a\n".repeat(251)), "251 lines"),
        [250]
    );
}

#[test]
fn scripts_stop_at_a_failure_and_say_what_they_do() {
    let good = "#!/usr/bin/env bash\n# Does it.\nset -euo pipefail\n";
    assert_eq!(text("scripts/x", good), []);
    assert_eq!(
        text("scripts/x", &good.replace("# Does it.\n", "")).len(),
        1
    );
    assert_eq!(
        text("scripts/x", &good.replace("set -euo pipefail\n", "")).len(),
        1
    );
    assert_eq!(
        text(".ci/run", &good.replace("env bash", "env sh")).len(),
        1
    );
}

#[test]
fn white_space_and_last_lines_are_kept_clean() {
    assert_eq!(found(&text("README.md", "a \nb\n"), "white space"), [1]);
    assert_eq!(found(&text("wit/a.wit", "a\r\nb\n"), "white space"), [1]);
    assert_eq!(found(&text("README.md", "a\nb"), "no end"), [2]);
    assert_eq!(text("crates/model/tests/cases/crlf.toml", "a\r\nb"), []);
}

#[test]
fn links_lead_somewhere() {
    let files = [
        (
            "README.md",
            "[a](pipelines/README.md)\n[b](gone.md)\n[c](https://rustup.rs)\n[d](#part)\n",
        ),
        (
            "pipelines/README.md",
            "[up](../README.md#start)\n[no](README.txt)\n",
        ),
        (
            "ARCHITECTURE.md",
            "`host/src/gone.rs` and `pipelines/README.md` and `a/{b}/`\n",
        ),
    ];
    let problems = texts::check(&project(&files));
    let found: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(
        found,
        [
            "README.md:2: the link to gone.md leads nowhere",
            "pipelines/README.md:2: the link to README.txt leads nowhere",
            "ARCHITECTURE.md:1: there is no host/src/gone.rs",
        ]
    );
}

#[test]
fn masking_leaves_code_where_it_is() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("a\"b") g"#, "f(      ) g"),
        (r##"f(r#"a"b"#) g"##, "f(        ) g"),
        (r#"f(b"ab", br"cd", c"e")"#, "f(     ,       ,     )"),
        (
            "f('\"', '\\'', 'a') 'x: &'a str",
            "f(   ,     ,    ) 'x: &'a str",
        ),
        ("f(\"é\") r#type", "f(    ) r#type"),
        ("\"unclosed", "         "),
    ] {
        assert_eq!(mask(text), expected, "{text}");
    }
    let code = "a;\n#[cfg(test)]\nuse b::{c};\nd;\n#[cfg(test)]\nmod t { fn e() { [1;2] } }\nf;\n#[cfg(test)]\nmod g;\n";
    let kept: String = mask_tests(code).split_whitespace().collect();
    assert_eq!(kept, "a;d;f;");
    assert_eq!(test_modules(code), ["g"]);
}
