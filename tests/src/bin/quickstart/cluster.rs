//! The long-running processes of the story: each is started, killed or stopped here, and none outlives it.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::watch::Watch;

/// How much of a log is shown when something went wrong.
const LOG_LINES_SHOWN: usize = 15;

/// One process.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it, in a process group of its own: an interrupt from the terminal reaches this program alone, which then
    /// stops the others in order. Its log is appended to.
    pub(crate) fn start(name: &str, command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(&log)
                .context("making a log file")
        };
        let child = command
            .process_group(0)
            .stdout(open()?)
            .stderr(open()?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// That it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("{} ended by itself ({status})", self.name))
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        ensure!(self.ended().is_none(), "{} was not running", self.name);
        self.child
            .kill()
            .with_context(|| format!("killing {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// Asks it to end, and waits until it has; returns its exit code.
    pub(crate) fn stop(mut self, watch: &Watch) -> anyhow::Result<Option<i32>> {
        let id = i32::try_from(self.child.id()).context("process ids are small")?;
        let pid = Pid::from_raw(id).context("a process has an id")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("stopping {}", self.name))?;
        let status = watch.until(&format!("{} ends when asked to", self.name), || match self
            .child
            .try_wait()
        {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(status.code())
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        format!(
            "--- the end of {}'s log\n{}",
            self.name,
            lines[from..].join("\n")
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already; what counts is that nothing stays.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
