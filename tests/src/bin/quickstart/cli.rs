//! The `sluice` command as a program outside the project uses it: arguments in, an exit code, tables or JSON out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::watch::Watch;

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cli {
    program: PathBuf,
    context: PathBuf,
    /// Where a command's output goes, so that no pipe can fill up.
    scratch: PathBuf,
}

impl Cli {
    pub(crate) fn new(program: &Path, context: &Path, scratch: &Path) -> Self {
        Self {
            program: program.to_owned(),
            context: context.to_owned(),
            scratch: scratch.to_owned(),
        }
    }

    /// Where the program lies.
    pub(crate) fn directory(&self) -> &Path {
        self.program.parent().unwrap_or(&self.program)
    }

    /// A command of this cluster's, not started.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("SLUICE_CONTEXT", &self.context)
            .env_remove("SLUICE_JOIN_TOKEN")
            .env_remove("SLUICE_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, watch: &Watch, args: &[&str]) -> anyhow::Result<Ran> {
        let out = self.scratch.join("stdout");
        let err = self.scratch.join("stderr");
        let mut child = self
            .command()
            .args(args)
            .stdout(File::create(&out).context("making a file for its output")?)
            .stderr(File::create(&err).context("making a file for its talk")?)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let ended = watch.until(&format!("`sluice {}` ends", args.join(" ")), || match child
            .try_wait()
        {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                // It may have ended by itself just now; either way nothing of it stays.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Ran {
            code: status.code(),
            stdout: std::fs::read_to_string(&out).context("reading its output")?,
            stderr: std::fs::read_to_string(&err).context("reading its talk")?,
        })
    }

    /// Runs a command that must end well, and reads its JSON.
    pub(crate) fn json(&self, watch: &Watch, args: &[&str]) -> anyhow::Result<Value> {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let ran = self.run(watch, &all)?;
        ensure!(
            ran.code == Some(0),
            "`sluice {}` ended with {:?}: {}",
            all.join(" "),
            ran.code,
            ran.stderr.trim()
        );
        serde_json::from_str(&ran.stdout)
            .with_context(|| format!("`sluice {}` printed no JSON", all.join(" ")))
    }
}

/// The element of a list whose field has this text.
pub(crate) fn find<'a>(list: &'a Value, key: &str, text: &str) -> Option<&'a Value> {
    list.as_array()?
        .iter()
        .find(|element| element[key].as_str() == Some(text))
}

/// A field's text; empty when it has none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A field's count; 0 when it has none.
pub(crate) fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}
