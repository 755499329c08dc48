//! Follows the logs of a job's or a run's executions across nodes, for one reader.
//!
//! ```text
//!   edge --stream, low priority--> one task for each execution --+
//!   edge --stream, low priority--> one task for each execution --+--> bounded queue --> the reader
//!                                  Follow: looks every second who is there, and starts tasks
//! ```
//!
//! A reader that stalls fills the queue; then the tasks read no more, the streams' windows fill, and the edges wait: what
//! their logs drop meanwhile comes as a number. Each task remembers where its execution's log stood, so that after a cut it
//! goes on at the next line. Nothing here touches the control thread but one question a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sluice_api::{
    AbsentNode, ErrorBody, ErrorCode, LOG_TAIL_DEFAULT, LOG_TAIL_MAX, LogEvent, LogLevel, LogLine,
    LogsQuery,
};
use sluice_model::{ExecutionId, NodeName, UnixMs};
use sluice_protocol::{LogReply, LogRequest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::control::{Ask, Control};
use crate::core::{ApiCall, ConnId, LogTarget, LogsOf, Reply};
use crate::sessions::OpenSessions;

/// Readers at once: people in front of terminals. Each may hold some MiB that wait for it, or an answer.
const READERS_MAX: usize = 32;

/// Executions that one reader follows: each holds a stream of its edge, and a terminal shows no more anyway.
const EXECUTIONS_MAX: usize = 256;

/// Answers of edges that wait for a reader. Each has some 64 KiB: it holds up an edge soon when its reader stalls.
const QUEUED_MAX: usize = 4;

/// How often it is looked who is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the last lines of what has ended are waited for: some looks of an edge at its log.
const READ_OUT: Duration = Duration::from_secs(2);

/// How long after an edge refused it is asked again.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Bounds how many readers of logs there are at once, whether they follow or not.
#[derive(Clone, Debug)]
pub(crate) struct Readers(Arc<Semaphore>);

impl Readers {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(READERS_MAX)))
    }

    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, ErrorBody> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let message = format!("{READERS_MAX} readers of logs are served already");
            ErrorBody::new(ErrorCode::Unavailable, message).with_help("end one of them first")
        })
    }
}

/// What is needed to follow a job for one reader.
pub(crate) struct Follow {
    pub(crate) control: Control,
    pub(crate) open: OpenSessions,
    pub(crate) stop: CancellationToken,
    pub(crate) of: LogsOf,
    pub(crate) query: LogsQuery,
    /// Held for as long as the reader is served.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// One execution that is followed.
struct Followed {
    node: NodeName,
    /// Where its log stood.
    from: Option<u64>,
    /// Its lines that count as new when `from` is not known.
    tail: u32,
    /// A task reads it.
    reading: bool,
    /// What the reader was told of its absence, until lines come again.
    absent: Option<String>,
    /// Not asked before.
    pause_until: Instant,
}

/// How a task ended.
struct Ended {
    execution: ExecutionId,
    from: Option<u64>,
    why: String,
    refused: bool,
    /// Something came, so that an absence before is over.
    answered: bool,
}

impl Follow {
    /// Begins with these targets; the receiver gets everything until it is dropped or an `End` came.
    pub(crate) fn begin(
        self,
        targets: Vec<LogTarget>,
    ) -> (
        mpsc::Receiver<Vec<LogEvent>>,
        impl Future<Output = ()> + Send,
    ) {
        let (to, events) = mpsc::channel(QUEUED_MAX);
        (events, self.run(targets, to))
    }

    async fn run(self, targets: Vec<LogTarget>, to: mpsc::Sender<Vec<LogEvent>>) {
        let stop = self.stop.clone();
        let gone = to.clone();
        // What waits for a reader that stalls is dropped with it.
        tokio::select! {
            () = self.follow(targets, to) => {}
            () = stop.cancelled() => {
                let why = "the orchestrator is stopping".to_owned();
                // A full queue: the reader sees the connection end.
                let _ = gone.try_send(vec![LogEvent::End { why }]);
            }
            () = gone.closed() => {}
        }
    }

    async fn follow(&self, targets: Vec<LogTarget>, to: mpsc::Sender<Vec<LogEvent>>) {
        let mut followed = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let tail = self.query.tail.unwrap_or(LOG_TAIL_DEFAULT);
        // When nothing more will be written, this long after that everything has been read.
        let mut over_since: Option<Instant> = None;
        let mut events = self.look(targets, tail, &mut followed, &mut tasks, &to);
        look.reset();
        loop {
            if !events.is_empty() && to.send(std::mem::take(&mut events)).await.is_err() {
                return;
            }
            tokio::select! {
                _ = look.tick() => {
                    match self.targets().await {
                        Ok((targets, over)) => {
                            events = self.look(targets, LOG_TAIL_MAX, &mut followed, &mut tasks, &to);
                            let since = *over_since.get_or_insert_with(Instant::now);
                            match over {
                                None => over_since = None,
                                Some(why) if since.elapsed() >= READ_OUT => {
                                    events.push(LogEvent::End { why });
                                }
                                Some(_) => {}
                            }
                        }
                        Err(error) if error.code == ErrorCode::NotFound => {
                            let why = match &self.of {
                                LogsOf::Job(job) => format!("{job} is deleted"),
                                LogsOf::Run(run) => format!("run {run} is forgotten"),
                            };
                            events.push(LogEvent::End { why });
                        }
                        Err(error) => events.push(LogEvent::End { why: error.message }),
                    }
                }
                Some(Ok(ended)) = tasks.join_next() => {
                    events.extend(note_end(&mut followed, ended));
                }
            }
            if matches!(events.last(), Some(LogEvent::End { .. })) {
                // Nobody listens any more, or hears it: the same to us.
                let _ = to.send(events).await;
                return;
            }
        }
    }

    async fn targets(&self) -> Result<(Vec<LogTarget>, Option<String>), ErrorBody> {
        let call = ApiCall::LogTargets(self.of.clone(), self.query.node.clone());
        match self.control.ask(Ask::Api(Box::new(call))).await? {
            Reply::LogTargets(targets, over) => Ok((targets, over)),
            _ => Err(ErrorBody::new(
                ErrorCode::Internal,
                "an answer of another kind",
            )),
        }
    }

    /// Starts a task for each execution that can be read and is not, and says who is absent and who is back.
    fn look(
        &self,
        targets: Vec<LogTarget>,
        tail: u32,
        followed: &mut BTreeMap<ExecutionId, Followed>,
        tasks: &mut JoinSet<Ended>,
        to: &mpsc::Sender<Vec<LogEvent>>,
    ) -> Vec<LogEvent> {
        let (reads, events) = choose(targets, tail, followed, Instant::now());
        for (conn, target) in reads {
            let Some(it) = followed.get(&target.execution) else {
                continue;
            };
            let request = self.request(&target, it);
            let (open, to, back) = (self.open.clone(), to.clone(), it.absent.is_some());
            tasks.spawn(async move { read(open, conn, target, request, back, to).await });
        }
        events
    }

    fn request(&self, target: &LogTarget, it: &Followed) -> LogRequest {
        let stage = self.query.stage.as_ref().map(ToString::to_string);
        LogRequest {
            execution: target.execution.to_bytes().to_vec(),
            tail: it.tail,
            follow: true,
            from: it.from,
            // What a node said while it was away is wanted however old it is.
            age_ms_max: self.query.age_ms_max.filter(|_| it.from.is_none()),
            stage: stage.unwrap_or_default(),
        }
    }
}

/// Which executions are read from now on, and what the reader hears of the others. Only those that are read take one of
/// the places; who finds none is told once, and read when one is free.
fn choose(
    targets: Vec<LogTarget>,
    tail: u32,
    followed: &mut BTreeMap<ExecutionId, Followed>,
    now: Instant,
) -> (Vec<(ConnId, LogTarget)>, Vec<LogEvent>) {
    let (mut reads, mut events) = (Vec::new(), Vec::new());
    let wanted: BTreeSet<ExecutionId> = targets.iter().map(|at| at.execution).collect();
    followed.retain(|id, it| it.reading || wanted.contains(id));
    let mut reading = followed.values().filter(|it| it.reading).count();
    for target in targets {
        let known = followed.entry(target.execution);
        let it = known.or_insert_with(|| Followed {
            node: target.node.clone(),
            from: None,
            tail,
            reading: false,
            absent: None,
            pause_until: now,
        });
        if it.reading || now < it.pause_until {
            continue;
        }
        let why = match target.conn {
            Some(conn) if reading < EXECUTIONS_MAX => {
                it.reading = true;
                reading += 1;
                reads.push((conn, target));
                continue;
            }
            Some(_) => format!("more executions than {EXECUTIONS_MAX} are not followed at once"),
            None => "it is not connected".to_owned(),
        };
        // Who was told how its lines ended hears no second time that none come.
        if it.absent.is_none() {
            events.extend(it.tell_absent(why));
        }
    }
    (reads, events)
}

impl Followed {
    /// The event for the reader, unless it knows.
    fn tell_absent(&mut self, why: String) -> Option<LogEvent> {
        let known = self.absent.replace(why.clone());
        (known.as_ref() != Some(&why)).then(|| {
            let node = self.node.clone();
            LogEvent::Absent(AbsentNode { node, why })
        })
    }
}

fn note_end(followed: &mut BTreeMap<ExecutionId, Followed>, ended: Ended) -> Option<LogEvent> {
    let it = followed.get_mut(&ended.execution)?;
    it.reading = false;
    it.from = ended.from;
    if ended.answered {
        it.absent = None;
    }
    if ended.refused {
        it.pause_until = Instant::now() + REFUSED_PAUSE;
    }
    it.tell_absent(ended.why)
}

/// Reads one execution's log until its stream ends. `back`: the reader was told that nothing comes, and hears when
/// something does.
async fn read(
    open: OpenSessions,
    conn: ConnId,
    target: LogTarget,
    request: LogRequest,
    back: bool,
    to: mpsc::Sender<Vec<LogEvent>>,
) -> Ended {
    let mut ended = Ended {
        execution: target.execution,
        from: request.from,
        why: String::new(),
        refused: false,
        answered: false,
    };
    let mut replies = match open.follow(conn, request).await {
        Ok(replies) => replies,
        Err(why) => return Ended { why, ..ended },
    };
    loop {
        let reply = match replies.next().await {
            Ok(Some(reply)) => reply,
            Ok(None) => {
                ended.refused = true;
                let why = "it ended the answer; does its program know how to follow?";
                let why = why.to_owned();
                return Ended { why, ..ended };
            }
            Err(why) => return Ended { why, ..ended },
        };
        if let Some(reject) = reply.reject {
            ended.refused = true;
            let why = reject.message;
            return Ended { why, ..ended };
        }
        let next = reply.next;
        let mut events = events_of(&target, reply);
        if back && !ended.answered {
            let node = target.node.clone();
            events.insert(0, LogEvent::Back { node });
        }
        ended.answered = true;
        if !events.is_empty() && to.send(events).await.is_err() {
            return ended;
        }
        if next > 0 {
            ended.from = Some(next);
        }
    }
}

fn events_of(target: &LogTarget, reply: LogReply) -> Vec<LogEvent> {
    let mut events = Vec::with_capacity(reply.lines.len() + 1);
    if reply.dropped > 0 {
        events.push(LogEvent::Dropped {
            node: target.node.clone(),
            execution: target.execution,
            lines: reply.dropped,
        });
    }
    let lines = reply.lines.into_iter();
    events.extend(lines.map(|line| LogEvent::Line(line_of(target, line))));
    events
}

/// A line of an edge as people see it.
pub(crate) fn line_of(target: &LogTarget, line: sluice_protocol::LogLine) -> LogLine {
    LogLine {
        at: UnixMs(line.at_ms),
        node: target.node.clone(),
        execution: target.execution,
        level: LogLevel::from_text(&line.level),
        stage: line.stage.parse().ok(),
        message: line.message,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn followed() -> Followed {
        Followed {
            node: "e1".parse().unwrap(),
            from: None,
            tail: 0,
            reading: true,
            absent: None,
            pause_until: Instant::now(),
        }
    }

    #[tokio::test]
    async fn an_absent_node_is_named_once_and_its_log_goes_on_where_it_was_cut() {
        let execution = ExecutionId::from_random([7; 16]);
        let mut all = BTreeMap::from([(execution, followed())]);
        let ended = |from| Ended {
            execution,
            from,
            why: "the session is over".to_owned(),
            refused: false,
            answered: false,
        };
        let told = note_end(&mut all, ended(Some(12)));
        let node: NodeName = "e1".parse().unwrap();
        let why = "the session is over".to_owned();
        assert_eq!(told, Some(LogEvent::Absent(AbsentNode { node, why })));
        assert_eq!(note_end(&mut all, ended(Some(12))), None);
        let it = &all[&execution];
        assert_eq!((it.from, it.reading), (Some(12), false));
        assert!(it.pause_until <= Instant::now(), "asked again at once");
        // Lines came in between: the next absence is news.
        let answered = Ended {
            answered: true,
            ..ended(Some(20))
        };
        assert!(note_end(&mut all, answered).is_some());
    }

    fn targets(count: u16, connected: impl Fn(u16) -> bool) -> Vec<LogTarget> {
        let target = |index: u16| LogTarget {
            execution: ExecutionId::from_random(u128::from(index + 1).to_be_bytes()),
            node: format!("e{index}").parse().unwrap(),
            conn: connected(index).then_some(ConnId(index.into())),
        };
        (0..count).map(target).collect()
    }

    #[tokio::test]
    async fn nodes_that_are_away_take_no_place_of_those_that_can_be_read() {
        let mut all = BTreeMap::new();
        let away = || targets(300, |index| index >= 256);
        let (reads, events) = choose(away(), 0, &mut all, Instant::now());
        assert_eq!((reads.len(), events.len()), (44, 256));
        let (reads, events) = choose(away(), 0, &mut all, Instant::now());
        assert_eq!((reads.len(), events.len()), (0, 0), "they are known");
    }

    #[tokio::test]
    async fn those_beyond_the_bound_are_named_once_and_read_when_there_is_a_place() {
        let mut all = BTreeMap::new();
        let everyone = || targets(300, |_| true);
        let (reads, events) = choose(everyone(), 0, &mut all, Instant::now());
        assert_eq!((reads.len(), events.len()), (EXECUTIONS_MAX, 44));
        for _ in 0..3 {
            let (reads, events) = choose(everyone(), 0, &mut all, Instant::now());
            assert_eq!((reads.len(), events.len()), (0, 0));
        }
        // One of those that are read is purged.
        let first = everyone()[0].execution;
        all.remove(&first);
        let rest = everyone().split_off(1);
        let (reads, events) = choose(rest, 0, &mut all, Instant::now());
        assert_eq!((reads.len(), events.len()), (1, 0));
        assert_eq!(reads[0].0, ConnId(256));
    }

    #[tokio::test]
    async fn an_edge_that_refuses_is_left_alone_for_a_while() {
        let execution = ExecutionId::from_random([7; 16]);
        let mut all = BTreeMap::from([(execution, followed())]);
        let refused = || Ended {
            execution,
            from: None,
            why: "6 are followed already".to_owned(),
            refused: true,
            answered: false,
        };
        assert!(note_end(&mut all, refused()).is_some());
        assert!(all[&execution].pause_until > Instant::now());
        // However often it is asked and refuses, its reader hears of it once.
        for _ in 0..3 {
            assert_eq!(note_end(&mut all, refused()), None);
        }
    }

    #[test]
    fn readers_are_bounded_and_the_next_one_is_told() {
        let readers = Readers::new();
        let all: Vec<_> = (0..READERS_MAX).map(|_| readers.admit().unwrap()).collect();
        let refused = readers.admit().unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unavailable);
        assert!(
            refused.message.contains("32 readers"),
            "{}",
            refused.message
        );
        drop(all);
        assert!(readers.admit().is_ok());
    }
}
