//! Who may use what: the arrows between our crates, one table of versions and features, and libraries with one user.

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{Document, Item, TableLike};

use super::mask::{lines_with, mask};
use super::{Problem, Project, SourceFile};

/// What our crates have in their names.
const OURS: &str = "sluice-";

/// The arrows: a crate may use these of ours, in its tests too, and no others.
const ARROWS: [(&str, &[&str]); 18] = [
    ("model", &[]),
    ("record", &[]),
    ("state-dir", &[]),
    ("metrics", &[]),
    ("doctor", &[]),
    ("ledger", &["model"]),
    ("component", &["model"]),
    ("api", &["model"]),
    ("protocol", &["model", "ledger"]),
    ("scheduler", &["model", "ledger"]),
    ("agent", &["model", "ledger"]),
    ("transport", &["protocol", "model", "state-dir"]),
    ("sandbox", &["record", "component"]),
    ("buffer", &["record"]),
    ("connectors", &["record", "model"]),
    (
        "host",
        &[
            "api",
            "component",
            "doctor",
            "ledger",
            "metrics",
            "model",
            "protocol",
            "record",
            "scheduler",
            "state-dir",
            "transport",
        ],
    ),
    (
        "edge-runtime",
        &[
            "agent",
            "buffer",
            "component",
            "connectors",
            "doctor",
            "ledger",
            "metrics",
            "model",
            "protocol",
            "record",
            "sandbox",
            "state-dir",
            "transport",
        ],
    ),
    (
        "cli",
        &[
            "api",
            "component",
            "doctor",
            "edge-runtime",
            "host",
            "model",
        ],
    ),
];

/// May use everything.
const USES_ALL: &str = "tests";

/// Crates that decide and never act.
pub const NO_IO: [&str; 8] = [
    "agent",
    "api",
    "component",
    "ledger",
    "model",
    "protocol",
    "record",
    "scheduler",
];

/// What can only be used to act, so no deciding crate has it.
const IO: [&str; 15] = [
    "axum",
    "getrandom",
    "prometheus-client",
    "quinn",
    "quinn-proto",
    "rand",
    "reqwest",
    "ring",
    "rusqlite",
    "rustix",
    "rustls",
    "tokio",
    "tokio-util",
    "wasmtime",
    "wasmtime-wasi",
];

/// Libraries that few crates may know, so that changing one stays a change of one room. Tests may look behind them.
const FEW_USERS: [(&str, &[&str]); 15] = [
    ("axum", &["host"]),
    ("clap", &["cli", "edge-runtime"]),
    ("prometheus-client", &["metrics"]),
    ("quinn", &["transport"]),
    ("quinn-proto", &["transport"]),
    ("rcgen", &["transport"]),
    // How it speaks TLS, and with whom, is handed to it by the host's library.
    ("reqwest", &["cli"]),
    ("ring", &["transport"]),
    ("rusqlite", &["doctor", "edge-runtime", "host"]),
    ("rustls", &["transport"]),
    ("tokio-rustls", &["transport"]),
    ("tracing-subscriber", &["cli", "edge-runtime"]),
    ("wasmtime", &["sandbox"]),
    ("wasmtime-wasi", &["sandbox"]),
    ("wasmtime-wasi-io", &["sandbox"]),
];

/// Features that only tests switch on, and so cannot stand in the table: a clock that jumps, or a process that dies by
/// its name, is nothing for a program.
const TEST_FEATURES: [(&str, &str); 2] =
    [("sluice-state-dir", "failpoints"), ("tokio", "test-util")];

/// What every crate takes from its workspace.
const FROM_WORKSPACE: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

/// Our crates that a crate may have in it, by whatever way; itself not counted.
pub fn within_reach(of: &str) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut open = vec![of];
    while let Some(from) = open.pop() {
        let arrows = ARROWS.iter().filter(|(name, _)| *name == from);
        for &to in arrows.flat_map(|(_, to)| to.iter()) {
            if found.insert(to) {
                open.push(to);
            }
        }
    }
    found
}

/// Every problem of the manifests.
pub fn check(project: &Project) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for file in &project.files {
        if file.path.rsplit('/').next() != Some("Cargo.toml") || is_workspace(&file.path) {
            continue;
        }
        let workspace = workspace_of(&file.path);
        match Document::parse(file.text.as_str()) {
            Ok(document) => {
                let manifest = Manifest::new(file, &document);
                manifest.check_package(&mut problems);
                manifest.check_dependencies(project, &mut problems);
                let names = manifest.dependencies.iter().map(|one| one.name.to_owned());
                used.entry(workspace).or_default().extend(names);
            }
            Err(error) => problems.push(file.problem(1, format!("not TOML: {error}"))),
        }
    }
    for file in project.files.iter().filter(|file| is_workspace(&file.path)) {
        match Document::parse(file.text.as_str()) {
            Ok(document) => {
                let used = used.get(file.path.as_str()).cloned().unwrap_or_default();
                check_table(file, &document, &used, &mut problems);
            }
            Err(error) => problems.push(file.problem(1, format!("not TOML: {error}"))),
        }
    }
    problems
}

fn is_workspace(path: &str) -> bool {
    path == "Cargo.toml" || path == "plugins/Cargo.toml"
}

fn workspace_of(path: &str) -> &'static str {
    if path.starts_with("plugins/") {
        "plugins/Cargo.toml"
    } else {
        "Cargo.toml"
    }
}

/// The line of a key in a table.
fn line_of(text: &str, table: &dyn TableLike, key: &str) -> usize {
    let span = table
        .key(key)
        .and_then(toml_edit::Key::span)
        .or_else(|| table.get(key).and_then(Item::span));
    span.map_or(1, |span| super::mask::line_of(text, span.start))
}

struct Dependency<'a> {
    name: &'a str,
    item: &'a Item,
    line: usize,
    for_tests: bool,
}

struct Manifest<'a> {
    file: &'a SourceFile,
    document: &'a Document<&'a str>,
    /// The crate's name without our prefix.
    room: &'a str,
    dependencies: Vec<Dependency<'a>>,
}

impl<'a> Manifest<'a> {
    fn new(file: &'a SourceFile, document: &'a Document<&'a str>) -> Self {
        let name = document
            .as_table()
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(Item::as_str)
            .unwrap_or_default();
        let mut dependencies = Vec::new();
        collect_dependencies(&file.text, document.as_table(), &mut dependencies);
        Self {
            file,
            document,
            room: name.strip_prefix(OURS).unwrap_or(name),
            dependencies,
        }
    }

    fn directory(&self) -> &str {
        self.file
            .path
            .strip_suffix("Cargo.toml")
            .unwrap_or_default()
    }

    fn check_package(&self, problems: &mut Vec<Problem>) {
        let table = self.document.as_table();
        let Some(package) = table.get("package").and_then(Item::as_table_like) else {
            problems.push(self.file.problem(1, "no [package]"));
            return;
        };
        for key in FROM_WORKSPACE {
            if !is_from_workspace(package.get(key)) {
                let line = line_of(&self.file.text, package, key);
                let what = format!(
                    "`{key}` is not taken from the workspace: write `{key}.workspace = true`"
                );
                problems.push(self.file.problem(line, what));
            }
        }
        self.check_features(problems);
        if !is_from_workspace(table.get("lints")) {
            let what =
                "the lints are not those of the workspace: add `[lints]` with `workspace = true`";
            problems.push(self.file.problem(1, what));
        }
    }

    fn check_dependencies(&self, project: &Project, problems: &mut Vec<Problem>) {
        let in_plugins = self.file.path.starts_with("plugins/");
        let arrows = ARROWS.iter().find(|(room, _)| *room == self.room);
        if arrows.is_none() && self.room != USES_ALL && !in_plugins {
            let what = format!(
                "the crate `{}` has no entry in the table of arrows",
                self.room
            );
            problems.push(self.file.problem(1, what));
        }
        for dependency in &self.dependencies {
            self.check_table_only(dependency, problems);
            self.check_is_used(dependency, project, problems);
            let mut forbid = |what: String| {
                problems.push(self.file.problem(dependency.line, what));
            };
            if in_plugins || self.room == USES_ALL {
                continue;
            }
            let Some((_, arrows)) = arrows else { continue };
            if let Some(other) = dependency.name.strip_prefix(OURS)
                && !arrows.contains(&other)
            {
                forbid(format!("`{}` must not know `{other}`", self.room));
            }
            if NO_IO.contains(&self.room) && IO.contains(&dependency.name) {
                forbid(format!(
                    "`{}` only decides: `{}` is for crates that act",
                    self.room, dependency.name
                ));
            }
            if let Some((_, users)) = FEW_USERS.iter().find(|(name, _)| *name == dependency.name)
                && !users.contains(&self.room)
            {
                forbid(format!(
                    "`{}` is known to {} only",
                    dependency.name,
                    users.join(" and ")
                ));
            }
        }
    }

    /// No feature of a crate may bring what only tests switch on: neither its own, nor a dependency's.
    fn check_features(&self, problems: &mut Vec<Problem>) {
        let table = self.document.as_table();
        let Some(features) = table.get("features").and_then(Item::as_table_like) else {
            return;
        };
        for (name, brings) in features.iter() {
            let brings = brings.as_array().into_iter().flatten();
            for brought in brings.filter_map(toml_edit::Value::as_str) {
                let own = format!("{OURS}{}", self.room);
                let (of, feature) = brought.split_once('/').unwrap_or((&own, brought));
                let of = of.strip_suffix('?').unwrap_or(of);
                if TEST_FEATURES.contains(&(of, feature)) {
                    let line = line_of(&self.file.text, features, name);
                    let what = format!("`{name}` brings `{brought}`, which only tests switch on");
                    problems.push(self.file.problem(line, what));
                }
            }
        }
    }

    fn check_table_only(&self, dependency: &Dependency<'_>, problems: &mut Vec<Problem>) {
        let name = dependency.name;
        let mut refuse = |what: String| {
            problems.push(self.file.problem(dependency.line, what));
        };
        if !is_from_workspace(Some(dependency.item)) {
            refuse(format!(
                "`{name}` has a version of its own: name it in the workspace's table"
            ));
            return;
        }
        let Some(table) = dependency.item.as_table_like() else {
            return;
        };
        for (key, value) in table.iter() {
            let allowed = match key {
                "workspace" | "optional" => true,
                "features" => {
                    dependency.for_tests
                        && value.as_array().is_some_and(|features| {
                            features.iter().all(|feature| {
                                let feature = feature.as_str().unwrap_or_default();
                                TEST_FEATURES.contains(&(name, feature))
                            })
                        })
                }
                _ => false,
            };
            if !allowed {
                refuse(format!(
                    "`{name}` sets `{key}`: that belongs into the workspace's table"
                ));
            }
        }
    }

    fn check_is_used(
        &self,
        dependency: &Dependency<'_>,
        project: &Project,
        problems: &mut Vec<Problem>,
    ) {
        let word = dependency.name.replace('-', "_");
        // Switched on for what it does to another crate's features.
        let sets_feature = TEST_FEATURES
            .iter()
            .any(|(name, _)| *name == dependency.name);
        let is_used = sets_feature
            || project
                .files
                .iter()
                .filter(|file| file.is_rust() && file.path.starts_with(self.directory()))
                .any(|file| !lines_with(&mask(&file.text), &word).is_empty());
        if !is_used {
            let what = format!("nothing here uses `{}`", dependency.name);
            problems.push(self.file.problem(dependency.line, what));
        }
    }
}

fn is_from_workspace(item: Option<&Item>) -> bool {
    item.and_then(|item| item.get("workspace"))
        .and_then(Item::as_bool)
        == Some(true)
}

fn collect_dependencies<'a>(text: &str, table: &'a dyn TableLike, out: &mut Vec<Dependency<'a>>) {
    for (key, item) in table.iter() {
        let Some(inner) = item.as_table_like() else {
            continue;
        };
        match key {
            "dependencies" | "dev-dependencies" | "build-dependencies" => {
                out.extend(inner.iter().map(|(name, item)| Dependency {
                    name,
                    item,
                    line: line_of(text, inner, name),
                    for_tests: key == "dev-dependencies",
                }));
            }
            "target" => {
                for (_, platform) in inner.iter() {
                    if let Some(platform) = platform.as_table_like() {
                        collect_dependencies(text, platform, out);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The one table: everything in it has a version or a place, and a user.
fn check_table(
    file: &SourceFile,
    document: &Document<&str>,
    used: &BTreeSet<String>,
    problems: &mut Vec<Problem>,
) {
    let table = document
        .as_table()
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(Item::as_table_like);
    let Some(table) = table else {
        problems.push(file.problem(1, "no [workspace.dependencies]"));
        return;
    };
    for (name, item) in table.iter() {
        let line = line_of(&file.text, table, name);
        let is_versioned = item.is_str() || item.get("version").is_some();
        if !is_versioned && item.get("path").is_none() {
            problems.push(file.problem(line, format!("`{name}` has neither version nor path")));
        }
        if !used.contains(name) {
            let what = format!("`{name}` is in the table and no crate uses it");
            problems.push(file.problem(line, what));
        }
    }
}
