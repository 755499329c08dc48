//! An edge's options, and `STATE_DIR/edge.toml`, which keeps them so that later starts need only the directory.
//!
//! ```toml
//! name = "e1"
//! orchestrator = ["10.0.0.1:7443"]
//! allow-path = ["/var/log"]
//! metrics = "127.0.0.1:9464"     # only when it was asked for
//!
//! [labels]
//! site = "plant-7"
//!
//! [commands]
//! gpu-query = ["/usr/bin/nvidia-smi", "--query-gpu=index,name", "--format=csv"]
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sluice_connectors::{AllowedCommands, CommandLine};
use sluice_model::{CommandName, Labels, NodeName, check_label_key, check_label_value};
use sluice_transport::Address;
use toml_edit::{Document, Item};

use crate::error::EdgeError;
use crate::runner::Console;

/// Labels on one node: each travels in every Hello.
pub const LABELS_MAX: usize = 64;

/// The file in the state directory.
const FILE: &str = "edge.toml";

/// How to start an edge.
#[derive(Clone)]
pub struct EdgeConfig {
    /// Everything that the edge keeps.
    pub state_dir: PathBuf,
    /// The node's name; needed at the first start.
    pub name: Option<NodeName>,
    /// The join token's text; needed at the first start; later ones use it only when the node was revoked or
    /// its certificate has expired.
    pub join: Option<String>,
    /// Labels; at a later start, none means those of the last one.
    pub labels: Labels,
    /// Directories for inputs and outputs; at a later start, none means those of the last one, and at the first
    /// `STATE_DIR/files`.
    pub allow_paths: Vec<PathBuf>,
    /// Where metrics are served, in plain HTTP; at a later start, none means that of the last one.
    pub metrics: Option<SocketAddr>,
    /// Commands that `[input.exec]` may run; at a later start, none means those of the last one.
    pub commands: AllowedCommands,
    /// `dev` only: the process's standard streams.
    pub console: Option<Console>,
}

impl EdgeConfig {
    /// An edge in this directory, with nothing else said.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            name: None,
            join: None,
            labels: Labels::new(),
            allow_paths: Vec::new(),
            metrics: None,
            commands: AllowedCommands::default(),
            console: None,
        }
    }
}

impl std::fmt::Debug for EdgeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeConfig")
            .field("state_dir", &self.state_dir)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What `edge.toml` keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) name: NodeName,
    pub(crate) orchestrator: Vec<Address>,
    pub(crate) allow_paths: Vec<PathBuf>,
    pub(crate) labels: Labels,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) commands: AllowedCommands,
}

impl Kept {
    /// Reads the file; `None` when there is none.
    pub(crate) fn load(state_dir: &Path) -> Result<Option<Self>, EdgeError> {
        let path = state_dir.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).map(Some).map_err(|(at, problem)| {
                let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
                EdgeError::Config {
                    path,
                    line,
                    problem,
                }
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EdgeError::file("read", path, error)),
        }
    }

    /// Writes the file: whole or not at all, durable on return.
    pub(crate) fn save(&self, state_dir: &Path) -> Result<(), EdgeError> {
        let path = state_dir.join(FILE);
        sluice_state_dir::replace(&path, self.to_text().as_bytes())
            .map_err(|source| EdgeError::file("write", &path, source))
    }

    /// The options of this start over those that were kept: what was given wins.
    pub(crate) fn with(mut self, config: &EdgeConfig) -> Result<Self, EdgeError> {
        if let Some(name) = &config.name
            && *name != self.name
        {
            return Err(EdgeError::Usage {
                problem: format!(
                    "{} belongs to the node {}: leave --name out, or use another --state-dir for {name}",
                    config.state_dir.display(),
                    self.name
                ),
            });
        }
        if !config.labels.is_empty() {
            self.labels = config.labels.clone();
        }
        if !config.allow_paths.is_empty() {
            self.allow_paths = absolute(&config.allow_paths)?;
        }
        self.metrics = config.metrics.or(self.metrics);
        if !config.commands.is_empty() {
            self.commands = config.commands.clone();
        }
        Ok(self)
    }

    fn to_text(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let addresses = self.orchestrator.iter().map(|it| quoted(&it.to_string()));
        let paths = self
            .allow_paths
            .iter()
            .map(|it| quoted(&it.to_string_lossy()));
        let metrics = self.metrics.map(|it| format!("metrics = \"{it}\"\n"));
        let metrics = metrics.unwrap_or_default();
        let mut text = format!(
            "# The options of this edge, kept from its first start. Stop the edge before editing.\n\
             name = {}\norchestrator = [{}]\nallow-path = [{}]\n{metrics}\n[labels]\n",
            quoted(self.name.as_str()),
            list(addresses.collect()),
            list(paths.collect()),
        );
        for (key, value) in &self.labels {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} = {}", quoted(key), quoted(value));
        }
        text.push_str("\n[commands]\n");
        for (name, line) in self.commands.iter() {
            let words = line.words().iter().map(|word| quoted(word)).collect();
            let _ = writeln!(text, "{} = [{}]", quoted(name.as_str()), list(words));
        }
        text
    }
}

/// The way out when a joined edge's `edge.toml` is gone; `name` is the node's, where the store still knows it.
pub(crate) fn options_gone(state_dir: &Path, name: Option<&NodeName>) -> String {
    let file = state_dir.join(FILE);
    let name = name.map_or("NAME", NodeName::as_str);
    format!(
        "write {} with two lines, `name = \"{name}\"` and `orchestrator = [\"HOST:7443\"]`, and a third, `allow-path = \
         [\"DIR\"]`, if pipelines used DIR; or move identity.pem elsewhere and join again with a token of `sluice token \
         create --node {name}`",
        file.display()
    )
}

/// Directories as they will still be meant when the program is started from elsewhere.
pub(crate) fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, EdgeError> {
    let each = paths.iter().map(|path| {
        if path.to_str().is_none() {
            return Err(EdgeError::Usage {
                problem: format!("--allow-path {}: not a text in UTF-8", path.display()),
            });
        }
        std::path::absolute(path).map_err(|error| EdgeError::file("find", path, error))
    });
    each.collect()
}

/// A basic string; JSON's escapes are TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

type Problem = (usize, String);

fn parse(text: &str) -> Result<Kept, Problem> {
    let document = Document::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().to_owned())
    })?;
    let mut name = None;
    let mut metrics = None;
    let (mut orchestrator, mut allow_paths, mut labels) = (Vec::new(), Vec::new(), Labels::new());
    let mut commands = AllowedCommands::default();
    for (key, item) in document.iter() {
        let at = item.span().map_or(0, |span| span.start);
        match key {
            "name" => {
                let text = string(item, at)?;
                name = Some(
                    text.parse()
                        .map_err(|error| (at, format!("name: {error}")))?,
                );
            }
            "orchestrator" => {
                for (at, text) in strings(item, at)? {
                    orchestrator.push(text.parse().map_err(
                        |error: sluice_transport::AddressError| (at, error.to_string()),
                    )?);
                }
            }
            "allow-path" => {
                let paths = strings(item, at)?;
                allow_paths = paths.into_iter().map(|(_, path)| path.into()).collect();
            }
            "metrics" => {
                let address = string(item, at)?.parse();
                metrics = Some(address.map_err(|_| {
                    (
                        at,
                        "metrics: expected \"ADDR:PORT\", for example \"127.0.0.1:9464\""
                            .to_owned(),
                    )
                })?);
            }
            "labels" => labels = read_labels(item, at)?,
            "commands" => commands = read_commands(item, at)?,
            other => {
                let known = "name, orchestrator, allow-path, metrics, labels, commands";
                return Err((at, format!("unknown key `{other}`; known are {known}")));
            }
        }
    }
    let missing = |key: &str| (text.len(), format!("the key `{key}` is missing"));
    if orchestrator.is_empty() {
        return Err(missing("orchestrator"));
    }
    Ok(Kept {
        name: name.ok_or_else(|| missing("name"))?,
        orchestrator,
        allow_paths,
        labels,
        metrics,
        commands,
    })
}

fn read_commands(item: &Item, at: usize) -> Result<AllowedCommands, Problem> {
    let table = item.as_table_like().ok_or_else(|| {
        let expected = "commands: expected a table such as [commands]";
        (at, expected.to_owned())
    })?;
    let mut commands = BTreeMap::new();
    for (key, item) in table.iter() {
        let at = item.span().map_or(at, |span| span.start);
        let name: CommandName = key
            .parse()
            .map_err(|error| (at, format!("command `{key}`: {error}")))?;
        let words = strings(item, at)?.into_iter().map(|(_, word)| word);
        let line = CommandLine::new(words.collect())
            .map_err(|error| (at, format!("command `{key}`: {error}")))?;
        commands.insert(name, line);
    }
    AllowedCommands::new(commands).map_err(|error| (at, error.to_string()))
}

fn read_labels(item: &Item, at: usize) -> Result<Labels, Problem> {
    let table = item
        .as_table_like()
        .ok_or_else(|| (at, "labels: expected a table of strings".to_owned()))?;
    let mut labels = Labels::new();
    for (key, item) in table.iter() {
        let at = item.span().map_or(at, |span| span.start);
        let value = string(item, at)?;
        let wrong = |error| (at, format!("label `{key}`: {error}"));
        check_label_key(key).map_err(wrong)?;
        check_label_value(&value).map_err(wrong)?;
        labels.insert(key.to_owned(), value);
    }
    if labels.len() > LABELS_MAX {
        return Err((at, format!("more than {LABELS_MAX} labels")));
    }
    Ok(labels)
}

fn string(item: &Item, at: usize) -> Result<String, Problem> {
    item.as_str()
        .map(str::to_owned)
        .ok_or_else(|| (at, "expected a string in quotes".to_owned()))
}

fn strings(item: &Item, at: usize) -> Result<Vec<(usize, String)>, Problem> {
    let wrong = |at| (at, "expected a list of strings in quotes".to_owned());
    let array = item.as_array().ok_or_else(|| wrong(at))?;
    let each = array.iter().map(|value| {
        let at = value.span().map_or(at, |span| span.start);
        let text = value.as_str().ok_or_else(|| wrong(at))?;
        Ok((at, text.to_owned()))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn kept() -> Kept {
        Kept {
            name: "e1".parse().unwrap(),
            orchestrator: vec!["[::1]:7443".parse().unwrap(), "host:1".parse().unwrap()],
            allow_paths: vec!["/var/log".into(), "/a \"b\"\\c\n".into()],
            labels: [("site/x.y".to_owned(), "plant-7".to_owned())].into(),
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
            commands: AllowedCommands::new(
                [(
                    "gpu".parse().unwrap(),
                    CommandLine::new(vec!["/bin/x".into(), "a \"b\"\n".into()]).unwrap(),
                )]
                .into(),
            )
            .unwrap(),
        }
    }

    #[test]
    fn options_are_kept_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Kept::load(directory.path()).unwrap(), None);
        kept().save(directory.path()).unwrap();
        assert_eq!(Kept::load(directory.path()).unwrap(), Some(kept()));
    }

    #[test]
    fn a_wrong_file_names_the_line_and_what_would_be_right() {
        for (text, line, problem) in [
            ("name = 1", 1, "expected a string in quotes"),
            ("name = \"e1\"\norchestrator = [\"x\"]", 2, "no port"),
            ("name = \"e1\"\n", 2, "`orchestrator` is missing"),
            ("name = \"E\"\n", 1, "a-z"),
            (
                "orchestrator = [\"h:1\"]\nnaem = \"e1\"",
                2,
                "unknown key `naem`",
            ),
            ("metrics = \"9464\"", 1, "metrics: expected \"ADDR:PORT\""),
            ("a\nb = ", 1, ""),
            (
                "name = \"e1\"\norchestrator = [\"h:1\"]\n[commands]\ngpu = [\"nvidia-smi\"]",
                4,
                "command `gpu`: \"nvidia-smi\" is no absolute path",
            ),
            (
                "name = \"e1\"\norchestrator = [\"h:1\"]\n[labels]\n\"a b\" = \"c\"",
                4,
                "label `a b`",
            ),
        ] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(FILE), text).unwrap();
            match Kept::load(directory.path()).unwrap_err() {
                EdgeError::Config {
                    line: at,
                    problem: said,
                    ..
                } => {
                    assert_eq!(at, line, "{text}");
                    assert!(said.contains(problem), "{said}");
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn what_is_given_later_wins_but_never_the_name() {
        let mut config = EdgeConfig::new("/tmp/x");
        assert_eq!(kept().with(&config).unwrap(), kept());
        config.labels = [("a".to_owned(), "b".to_owned())].into();
        config.name = Some("e1".parse().unwrap());
        assert_eq!(kept().with(&config).unwrap().labels, config.labels);
        config.name = Some("e2".parse().unwrap());
        let error = kept().with(&config).unwrap_err();
        assert!(
            error.to_string().contains("belongs to the node e1"),
            "{error}"
        );
    }
}
