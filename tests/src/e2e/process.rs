//! A child process: its log, its death by `kill -9`, and its end with the test.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::e2e::wait;

/// SIGKILL, which no program can handle.
const KILL: i32 = 9;

/// SIGABRT, by which a program ends itself on the spot.
const ABORT: i32 = 6;

/// The `sluice` program of this build.
///
/// # Panics
///
/// When it has not been built.
pub fn sluice_program() -> PathBuf {
    program("sluice")
}

/// The `sluice-edge` program of this build.
///
/// # Panics
///
/// When it has not been built.
pub fn edge_program() -> PathBuf {
    program("sluice-edge")
}

fn program(name: &str) -> PathBuf {
    // A test is target/PROFILE/deps/NAME-HASH, a bench target/PROFILE/NAME.
    let this = std::env::current_exe().expect("a running program has a path");
    let dir = this.parent().expect("a program lies in a directory");
    let dir = if dir.ends_with("deps") {
        dir.parent().expect("deps lies in target/PROFILE")
    } else {
        dir
    };
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace` before the end-to-end tests, or scripts/test, which does",
        path.display()
    );
    path
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program with nothing to read. What it writes is appended to `stdout` and `stderr`.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn start(name: &str, command: &mut Command, stdout: &Path, stderr: &Path) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(append(stdout))
            .stderr(append(stderr))
            .spawn();
        match child {
            Ok(child) => Self {
                name: name.to_owned(),
                child,
                ended: None,
            },
            Err(error) => panic!("cannot start {name} ({command:?}): {error}"),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .expect("our own child can be waited for");
        }
        self.ended
    }

    /// `kill -9`: it must have been alive, and nothing in it gets a word in.
    ///
    /// # Panics
    ///
    /// When it had ended before.
    #[track_caller]
    pub fn kill(&mut self) {
        if let Some(status) = self.ended() {
            panic!(
                "{} was to be killed, but had ended before: {status}",
                self.name
            );
        }
        self.child.kill().expect("a live child can be killed");
        let status = self.child.wait().expect("our own child can be waited for");
        self.ended = Some(status);
        assert_eq!(
            status.signal(),
            Some(KILL),
            "{} was killed, but ended otherwise: {status}",
            self.name
        );
    }

    /// Asks it to end (SIGTERM) and returns how it did.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait_end(wait::LONG)
    }

    /// Asks it to end (SIGTERM), and waits for nothing.
    pub fn ask_to_end(&mut self) {
        if self.ended().is_none() {
            self.signal(rustix::process::Signal::TERM);
        }
    }

    /// It stands still from now on, as on a machine that sleeps (SIGSTOP): it lives, and does nothing.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// It goes on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a live child can be signalled");
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// When it does not within `limit`.
    #[track_caller]
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        wait::within(limit, &format!("{name} to end"), || {
            self.ended().ok_or_else(|| "it runs".to_owned())
        })
    }
}

/// Asserts that this is the end of a process that aborted.
///
/// # Panics
///
/// When it ended otherwise.
#[track_caller]
pub(super) fn assert_aborted(name: &str, status: ExitStatus) {
    assert_eq!(
        status.signal(),
        Some(ABORT),
        "{name} was to abort at its persist point, but ended otherwise: {status}"
    );
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either may fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn append(path: &Path) -> File {
    match OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) => panic!("cannot open {}: {error}", path.display()),
    }
}
