//! `[input.exec]`: the lines that a command of the edge's owner prints, until it ends.
//!
//! ```text
//!   leader of its own process group --stdout--> thread --> StreamInput --> records
//!        |                          --stderr--> thread --> the last bytes, for the error
//!        +--exit--> thread: kills what is left of the group, then reaps the leader
//!        +--late--> thread: kills the group at its deadline, whether anybody takes records or not
//!        +--the edge's process is gone--> guard: a shell whose standard input ends then; kills the group
//! ```
//!
//! The group is killed when the input is dropped, too. Its number is safe to use until the leader is reaped, which happens
//! under the lock that `kill` takes, after the guard was sent home. A process that left the group is out of reach.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
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
/// Waits for a line, which says that all is well, or for the end of whoever could have written it.
const GUARD: &str = "read -r _ || kill -s KILL -- -\"$1\"";
/// Runs the guard.
const SHELL: &str = "/bin/sh";
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
    /// It was killed since its time was up.
    late: AtomicBool,
}

/// Kills the group when this process does not live to do it.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    /// `None` on a machine without a shell: there the group outlives an edge that was killed.
    fn start(leader: Pid) -> io::Result<Option<Self>> {
        let mut command = Command::new(SHELL);
        command
            .args(["-c", GUARD, "sh", &leader.as_raw_nonzero().to_string()])
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What is sent to the edge's own group is not for it.
            .process_group(0);
        match command.spawn() {
            Ok(guard) => Ok(Some(Self(guard))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends it, with nothing killed.
    fn send_home(mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            // Gone already: then there is nobody to tell.
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.0.wait();
    }
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
    fn reap(&self, child: &mut Child, guard: Option<Guard>) -> io::Result<ExitStatus> {
        // Leaves the zombie, so that its number stays taken.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let waited = loop {
            match waitid(WaitId::Pid(self.leader), options) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => break Err(error),
                Ok(_) => break Ok(()),
            }
        };
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if waited.is_ok() {
            let _ = kill_process_group(self.leader, Signal::KILL);
        }
        // Without a wait that works nobody can tell whose the number is, and nothing is killed by it any more.
        *alive = false;
        if let Some(guard) = guard {
            guard.send_home();
        }
        waited?;
        child.wait()
    }

    /// Its time is up; what has ended before is not late.
    fn kill_late(&self) {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if *alive {
            self.late.store(true, Ordering::Relaxed);
            let _ = kill_process_group(self.leader, Signal::KILL);
        }
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
            late: AtomicBool::new(false),
        });
        let guard = Guard::start(leader).map_err(|source| {
            group.kill();
            // Nothing is left of it, so this ends at once.
            let _ = child.wait();
            start(source)
        })?;
        let stdout = child.stdout.take().expect("it is piped");
        let stderr_pipe = child.stderr.take().expect("it is piped");
        let (exited, exit) = oneshot::channel();
        let (over, ends) = mpsc::channel::<()>();
        let waited = Arc::clone(&group);
        let waiter = thread::Builder::new().name("input-exec".to_owned());
        let waiter = waiter.spawn(move || {
            // Nobody waits any more: the input was dropped.
            let _ = exited.send(waited.reap(&mut child, guard));
            drop(over);
        });
        if let Err(source) = waiter {
            group.kill();
            return Err(start(source).into());
        }
        let timed = Arc::clone(&group);
        let timer = thread::Builder::new().name("input-exec".to_owned());
        let timer = timer.spawn(move || {
            if ends.recv_timeout(allowed) == Err(RecvTimeoutError::Timeout) {
                timed.kill_late();
            }
        });
        if let Err(source) = timer {
            group.kill();
            return Err(start(source).into());
        }
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
        if self.is_late() {
            return Err(self.late().await);
        }
        let Ok(next) = timeout_at(self.deadline, self.stream.next(into)).await else {
            return Err(self.late().await);
        };
        if next? == Next::Batch {
            return Ok(Next::Batch);
        }
        if self.is_late() {
            return Err(self.late().await);
        }
        let Ok(exit) = timeout_at(self.deadline, &mut self.exit).await else {
            return Err(self.late().await);
        };
        let gone = || Err(io::Error::other("nobody waited for it"));
        let how = match exit.unwrap_or_else(|_| gone()) {
            Ok(status) if status.success() => return Ok(Next::End),
            _ if self.is_late() => return Err(self.late().await),
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

    fn is_late(&self) -> bool {
        self.group.late.load(Ordering::Relaxed)
    }

    async fn late(&mut self) -> InputError {
        self.group.kill_late();
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
