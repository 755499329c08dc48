//! Which imports are there for a component: what is linked for every stage, and what a grant would add.

use crate::{ExternKind, Import, Inspection, InterfaceName};

/// Interfaces of WASI 0.2 that are linked for every stage, since toolchains import them unasked. They reach nothing:
/// no arguments, an empty environment, no directory; what is printed goes to the execution's log.
const WASI_LINKED: &[(&str, &[&str])] = &[
    ("io", &["error", "poll", "streams"]),
    ("clocks", &["monotonic-clock", "wall-clock"]),
    ("random", &["random", "insecure", "insecure-seed"]),
    (
        "cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("filesystem", &["types", "preopens"]),
];

/// Packages that a grant opens, and the line that would.
const GRANTABLE: &[(&str, &str)] = &[
    ("sockets", "sockets = [\"10.0.0.5:1883\"]"),
    ("http", "http = [\"api.example.com\"]"),
    ("keyvalue", "keyvalue = true"),
];

/// What a stage was granted beyond what everyone has. Nothing can be granted in this version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantSet {}

impl GrantSet {
    /// No grant at all.
    pub fn none() -> Self {
        Self {}
    }
}

/// An import that nothing answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportProblem {
    /// A grant would answer it.
    #[error(
        "it imports `{import}`, which is not granted: `[stage.grants] {line}` would grant it, but this version of Sluice cannot grant it yet"
    )]
    NotGranted {
        /// The import's full name.
        import: String,
        /// The line below `[stage.grants]`.
        line: &'static str,
    },
    /// The interface is known, in another version.
    #[error(
        "it imports `{import}`, and this version of Sluice links `{path}` in {versions}; rebuild it against that"
    )]
    Version {
        /// The import's full name.
        import: String,
        /// The name without its version.
        path: String,
        /// What is linked.
        versions: &'static str,
    },
    /// Nothing answers it, and no grant would.
    #[error("it imports {} `{import}`, which Sluice does not have and no line of `[stage.grants]` would grant; build it without", kind.as_str())]
    Unknown {
        /// The import's full name.
        import: String,
        /// What it is.
        kind: ExternKind,
    },
}

impl ImportProblem {
    /// The full name of the import.
    pub fn import(&self) -> &str {
        match self {
            Self::NotGranted { import, .. }
            | Self::Version { import, .. }
            | Self::Unknown { import, .. } => import,
        }
    }

    /// The line below `[stage.grants]` that would answer the import, if there is one.
    pub fn grant_line(&self) -> Option<&'static str> {
        match self {
            Self::NotGranted { line, .. } => Some(line),
            Self::Version { .. } | Self::Unknown { .. } => None,
        }
    }
}

/// Checks that every import is linked for everyone or granted; otherwise names each one that is not.
pub fn check_imports(inspection: &Inspection, grants: &GrantSet) -> Result<(), Vec<ImportProblem>> {
    let GrantSet {} = grants;
    let problems: Vec<_> = inspection.imports.iter().filter_map(problem_of).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn problem_of(import: &Import) -> Option<ImportProblem> {
    let unknown = || ImportProblem::Unknown {
        import: import.name.clone(),
        kind: import.kind,
    };
    let version = |name: InterfaceName<'_>, versions| ImportProblem::Version {
        import: import.name.clone(),
        path: name.path().to_owned(),
        versions,
    };
    let Some(name) = InterfaceName::parse(&import.name) else {
        return Some(unknown());
    };
    if import.kind != ExternKind::Instance {
        return Some(unknown());
    }
    if name.path() == "sluice:pipeline/log" {
        return (!name.is_release_of("0.1.")).then(|| version(name, "0.1.x"));
    }
    if name.namespace != "wasi" {
        return Some(unknown());
    }
    let linked = WASI_LINKED.iter().any(|(package, interfaces)| {
        *package == name.package && interfaces.contains(&name.interface)
    });
    if linked {
        return (!name.is_release_of("0.2.")).then(|| version(name, "0.2.x"));
    }
    let line = GRANTABLE
        .iter()
        .find(|(package, _)| *package == name.package)
        .map(|(_, line)| *line);
    Some(match line {
        Some(line) => ImportProblem::NotGranted {
            import: import.name.clone(),
            line,
        },
        None => unknown(),
    })
}
