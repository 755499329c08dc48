//! The edge's options on a command line, the same for `sluice edge` and `sluice-edge`.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use sluice_connectors::{AllowedCommands, CommandError, CommandLine};
use sluice_model::{CommandName, Labels, NodeName, check_label_key, check_label_value};

use crate::config::{EdgeConfig, LABELS_MAX};
use crate::edge::{Edge, SHUTDOWN_WITHIN};
use crate::error::EdgeError;

/// Longest token file that is read: a token has some hundred bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

/// How to start an edge. Later starts need only the directory.
#[derive(Args, Clone, Debug)]
pub struct EdgeArgs {
    /// Directory for everything that this edge keeps
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// The node's name: a-z, 0-9 and `-` (first start)
    #[arg(long, value_name = "NAME")]
    pub name: Option<NodeName>,
    /// Token from `sluice token create`, or @FILE that holds it (first start)
    ///
    /// Later starts use it only when the node was revoked or deleted, or its certificate has expired. An edge whose
    /// certificate has expired needs none for a year: it renews it when it reaches its orchestrator.
    #[arg(
        long,
        value_name = "TOKEN|@FILE",
        env = "SLUICE_JOIN_TOKEN",
        hide_env_values = true
    )]
    pub join: Option<String>,
    /// A label that pipelines can select by; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// A directory that inputs and outputs may use; may be repeated, and relative paths resolve against the first
    /// [default: STATE_DIR/files]
    #[arg(long = "allow-path", value_name = "DIR")]
    pub allow_paths: Vec<PathBuf>,
    /// Serve metrics for Prometheus there, in plain HTTP at /metrics; kept for later starts
    ///
    /// Whoever reaches the port can read it, so let it be an address that only your monitoring reaches. Its line in
    /// STATE_DIR/edge.toml can be taken out to end it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// What `[input.exec]` may run
    #[command(flatten)]
    pub commands: CommandArgs,
}

/// The commands that `[input.exec]` may run.
#[derive(Args, Clone, Debug, Default)]
pub struct CommandArgs {
    /// A command that `[input.exec]` may run, as an absolute path and words between spaces, which no shell reads; may be
    /// repeated
    #[arg(long = "allow-command", value_name = "NAME=PATH ARG...", value_parser = parse_command)]
    pub allow_commands: Vec<(CommandName, CommandLine)>,
}

impl CommandArgs {
    /// The list; a name given twice means the last.
    pub fn into_allowed(self) -> Result<AllowedCommands, EdgeError> {
        AllowedCommands::new(self.allow_commands.into_iter().collect()).map_err(|error| {
            EdgeError::Usage {
                problem: format!("--allow-command: {error}"),
            }
        })
    }
}

fn parse_command(text: &str) -> Result<(CommandName, CommandLine), String> {
    let (name, line) = text
        .split_once('=')
        .ok_or("expected NAME=/PATH ARG..., for example gpu='/usr/bin/nvidia-smi -L'")?;
    let name = name
        .parse()
        .map_err(|error| format!("a command's name {error}"))?;
    let line = line
        .parse()
        .map_err(|error: CommandError| error.to_string())?;
    Ok((name, line))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("expected KEY=VALUE, for example site=plant-7")?;
    if key == "node" {
        return Err("`node` stands for the node's name; choose another key".to_owned());
    }
    check_label_key(key).map_err(|error| format!("the key {error}"))?;
    check_label_value(value).map_err(|error| format!("the value {error}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl EdgeArgs {
    /// The options as a configuration; reads the token's file, which may be gone once this directory has joined.
    pub fn into_config(self) -> Result<EdgeConfig, EdgeError> {
        check_directories(&self.state_dir, &self.allow_paths)?;
        let joined = self.state_dir.join(crate::join::IDENTITY_FILE).exists();
        let join = match self.join {
            Some(text) => match text.strip_prefix('@').map(|path| read_token(path.into())) {
                None => Some(text),
                Some(Err(error)) if joined => {
                    tracing::info!(event = "edge.join_ignored", %error);
                    None
                }
                Some(read) => Some(read?),
            },
            None => None,
        };
        let labels: Labels = self.labels.into_iter().collect();
        if labels.len() > LABELS_MAX {
            return Err(EdgeError::Usage {
                problem: format!("more than {LABELS_MAX} labels"),
            });
        }
        Ok(EdgeConfig {
            name: self.name,
            join,
            labels,
            allow_paths: self.allow_paths,
            metrics: self.metrics,
            commands: self.commands.into_allowed()?,
            ..EdgeConfig::new(self.state_dir)
        })
    }
}

/// What was named as a directory must be one; a state directory that is not there yet will be made.
fn check_directories(state_dir: &Path, allow_paths: &[PathBuf]) -> Result<(), EdgeError> {
    let usage = |problem| Err(EdgeError::Usage { problem });
    if state_dir.exists() && !state_dir.is_dir() {
        return usage(format!(
            "--state-dir {} is a file: name a directory, or a path where one can be made",
            state_dir.display()
        ));
    }
    match allow_paths.iter().find(|path| !path.is_dir()) {
        None => Ok(()),
        Some(path) => usage(format!(
            "--allow-path {} is no directory: make it, or name the directory that pipelines may use",
            path.display()
        )),
    }
}

fn read_token(path: PathBuf) -> Result<String, EdgeError> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| EdgeError::Usage {
            problem: format!(
                "cannot read the join token in {}: {error}; `sluice token create > FILE` makes one, `--join @FILE` reads it",
                path.display()
            ),
        })?;
    Ok(text)
}

/// Runs an edge until `stop` is ready, then shuts it down in steps; or until it breaks. Installs no signal handler and
/// no logger: that is the program's.
pub async fn run(args: EdgeArgs, stop: impl Future<Output = ()>) -> Result<(), EdgeError> {
    let config = args.into_config()?;
    tokio::pin!(stop);
    let mut handle = tokio::select! {
        started = Edge::start(config) => started?,
        () = &mut stop => return Ok(()),
    };
    tokio::select! {
        ended = handle.wait() => ended,
        () = &mut stop => handle.shutdown(SHUTDOWN_WITHIN).await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::ExitCode;

    #[test]
    fn labels_are_checked_where_they_are_written() {
        assert_eq!(
            parse_label("a/b.c=x-Y_1").unwrap(),
            ("a/b.c".to_owned(), "x-Y_1".to_owned())
        );
        assert_eq!(parse_label("a=").unwrap().1, "");
        for (wrong, said) in [
            ("site", "KEY=VALUE"),
            ("=x", "the key"),
            ("a b=x", "the key"),
            ("a=x y", "the value"),
            ("node=e1", "the node's name"),
        ] {
            let error = parse_label(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_command_is_checked_where_it_is_written() {
        let (name, line) = parse_command("gpu=/bin/x a=b").unwrap();
        assert_eq!(
            (name.as_str(), line.words()),
            ("gpu", &["/bin/x".to_owned(), "a=b".to_owned()][..])
        );
        for (wrong, said) in [
            ("/bin/x", "expected NAME="),
            ("G=/bin/x", "a command's name"),
            ("g=x", "no absolute path"),
            ("g=", "needs a program"),
        ] {
            let error = parse_command(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_named_as_a_directory_must_be_one() {
        let directory = tempfile::tempdir().unwrap();
        let (there, file) = (directory.path(), directory.path().join("file"));
        std::fs::write(&file, "").unwrap();
        assert!(check_directories(&there.join("new"), &[there.to_owned()]).is_ok());
        for (state_dir, allowed, says) in [
            (file.as_path(), there, "is a file: name a directory"),
            (there, file.as_path(), "is no directory: make it"),
            (there, &there.join("gone"), "is no directory: make it"),
        ] {
            let error = check_directories(state_dir, &[allowed.to_owned()]).unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::Usage);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_token_file_is_read_and_a_missing_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let args = |join: String| EdgeArgs {
            state_dir: directory.path().join("state"),
            name: None,
            join: Some(join),
            labels: Vec::new(),
            allow_paths: Vec::new(),
            metrics: None,
            commands: CommandArgs::default(),
        };
        let at = format!("@{}", file.display());
        let error = args(at.clone()).into_config().unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Usage);
        for part in [at.trim_start_matches('@'), "sluice token create"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        let identity = directory.path().join("state/identity.pem");
        std::fs::create_dir_all(identity.parent().unwrap()).unwrap();
        std::fs::write(&identity, "joined").unwrap();
        assert_eq!(args(at.clone()).into_config().unwrap().join, None);
        std::fs::write(&file, "sluice1-abc\n").unwrap();
        assert_eq!(
            args(at).into_config().unwrap().join.unwrap(),
            "sluice1-abc\n"
        );
    }
}
