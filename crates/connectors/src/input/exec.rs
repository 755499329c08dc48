//! `[input.exec]`: the lines that a command of the edge's owner prints, until it ends.
//!
//! ```text
//!   leader of its own process group --stdout--> thread --> StreamInput --> records
//!        |                          --stderr--> thread --> the last bytes, for the error
//!        +--exit--> thread: kills what is left of the group, then reaps the leader
//! ```
//!
//! The group is killed when the input is dropped and when the deadline has passed. Its number is safe to use until the
//! leader is reaped, which happens under the lock that `kill` takes. A process that left the group is out of reach.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use sluice_model::CommandName;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::stream::StreamInput;
use super::{InputBatch, InputError, Next};
use crate::{CommandError, CommandLine};

/// Where a command finds other programs. It gets nothing else of the edge's environment.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// What is kept of standard error: the lines before an end say why.
const STDERR_BYTES_KEPT: usize = 2048;
/// Lines of it that an error shows.
const STDERR_LINES_SHOWN: usize = 5;
/// How long the last words may take after the end: they are in the pipe already, unless a stranger holds it.
const STDERR_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct ExecInput {
    name: CommandName,
    program: String,
    stream: StreamInput,
    exit: oneshot::Receiver<io::Result<ExitStatus>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    stderr_ended: Option<oneshot::Receiver<()>>,
    group: Arc<Group>,
    allowed: Duration,
    deadline: Instant,
}

/// The command's processes.
#[derive(Debug)]
struct Group {
    leader: Pid,
    /// Until the leader is reaped.
    alive: Mutex<bool>,
}

impl Group {
    fn kill(&self) {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if *alive {
            // Gone in this moment: then there is nothing to kill.
            let _ = kill_process_group(self.leader, Signal::KILL);
        }
    }

    /// Waits for the leader's end, and ends the others.
    fn reap(&self, child: &mut Child) -> io::Result<ExitStatus> {
        // Leaves the zombie, so that its number stays taken.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = waitid(WaitId::Pid(self.leader), options) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = kill_process_group(self.leader, Signal::KILL);
        *alive = false;
        child.wait()
    }
}

impl ExecInput {
    /// Starts the command. Blocking.
    pub(super) fn start(
        name: CommandName,
        line: &CommandLine,
        allowed: Duration,
    ) -> Result<Self, InputError> {
        let deadline = Instant::now() + allowed;
        let program = line.words()[0].clone();
        let mut command = Command::new(&program);
        command
            .args(&line.words()[1..])
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let start = |source| CommandError::Start {
            name: name.clone(),
            program: program.clone(),
            source,
        };
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CommandError::NoProgram {
                name: name.clone(),
                program: program.clone(),
            },
            _ => start(source),
        })?;
        let leader = Pid::from_child(&child);
        let group = Arc::new(Group {
            leader,
            alive: Mutex::new(true),
        });
        let stdout = child.stdout.take().expect("it is piped");
        let stderr_pipe = child.stderr.take().expect("it is piped");
        let (exited, exit) = oneshot::channel();
        let waited = Arc::clone(&group);
        let waiter = thread::Builder::new().name("input-exec".to_owned());
        let waiter = waiter.spawn(move || {
            // Nobody waits any more: the input was dropped.
            let _ = exited.send(waited.reap(&mut child));
        });
        if let Err(source) = waiter {
            group.kill();
            return Err(start(source).into());
        }
        // From here on a failure drops this, which kills the group.
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (ended, stderr_ended) = oneshot::channel();
        let kept = Arc::clone(&stderr);
        let reader = thread::Builder::new().name("input-exec".to_owned());
        let reader = reader.spawn(move || {
            keep_last(stderr_pipe, &kept);
            let _ = ended.send(());
        });
        let stream = reader
            .map_err(|source| InputError::from(start(source)))
            .and_then(|_| StreamInput::new(Box::new(stdout), format!("the command `{name}`")));
        let stream = stream.inspect_err(|_| group.kill())?;
        Ok(Self {
            name,
            program,
            stream,
            exit,
            stderr,
            stderr_ended: Some(stderr_ended),
            group,
            allowed,
            deadline,
        })
    }

    pub(super) async fn next(&mut self, into: &mut InputBatch) -> Result<Next, InputError> {
        // Also a command that never pauses ends.
        if Instant::now() >= self.deadline {
            return Err(self.late().await);
        }
        let Ok(next) = timeout_at(self.deadline, self.stream.next(into)).await else {
            return Err(self.late().await);
        };
        if next? == Next::Batch {
            return Ok(Next::Batch);
        }
        let Ok(exit) = timeout_at(self.deadline, &mut self.exit).await else {
            return Err(self.late().await);
        };
        let gone = || Err(io::Error::other("nobody waited for it"));
        let how = match exit.unwrap_or_else(|_| gone()) {
            Ok(status) if status.success() => return Ok(Next::End),
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with exit code {code}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended badly".to_owned(),
            },
            Err(error) => format!("cannot be waited for: {error}"),
        };
        Err(CommandError::Failed {
            name: self.name.clone(),
            program: self.program.clone(),
            how,
            said: self.last_words().await,
        }
        .into())
    }

    async fn late(&mut self) -> InputError {
        self.group.kill();
        CommandError::Late {
            name: self.name.clone(),
            program: self.program.clone(),
            deadline: self.allowed,
            said: self.last_words().await,
        }
        .into()
    }

    async fn last_words(&mut self) -> String {
        if let Some(ended) = self.stderr_ended.take() {
            let _ = timeout(STDERR_WAIT, ended).await;
        }
        let kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut lines: Vec<&str> = lines.collect();
        if lines.is_empty() {
            return String::new();
        }
        lines.drain(..lines.len().saturating_sub(STDERR_LINES_SHOWN));
        format!("; its last words: {}", lines.join(" / "))
    }
}

impl Drop for ExecInput {
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// Reads to the end, so that the command never waits for room, and keeps what came last.
fn keep_last(mut from: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(bytes) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..bytes]);
                let old = kept.len().saturating_sub(STDERR_BYTES_KEPT);
                kept.drain(..old);
            }
        }
    }
}
