//! Pulls outputs that lack, from the edges that have them.
//!
//! ```text
//!   look (something was noted, a session began, a second passed) -> what lacks -> choose -> pull -> held | lost | later
//! ```
//!
//! Pulling is nobody's hurry: few at once, one of a node, below everything else on its link. One that fails waits, longer
//! each time; a new session of its node ends the wait. All of it lives in memory: what lacks is asked for anew each time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_model::{Digest, ExecutionId, NodeId};
use sluice_protocol::{OutputRequest, PullReply, decode, stream_request};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{OutputError, Outputs, OutputsConfig};
use crate::control::{Ask, Control};
use crate::core::{ApiCall, ConnId, OutputCall, OutputTarget, Reply, Tally, count};
use crate::sessions::OpenSessions;

/// Outputs pulled at once: each has a stream and a file.
const PULLS_MAX: usize = 4;

/// How often the counters of what happened are read; no question to the store.
const GLANCE_EVERY: Duration = Duration::from_millis(100);

/// How often it is looked at what lacks while something does, though nothing new was heard of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Wait after the first failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest wait between two tries on one session.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Tries that may bring something else than what was reported: the edge's file is damaged, and stays so.
const WRONG_MAX: u32 = 3;

/// How long nothing may come: longer than any link that still works is silent.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// Read from a stream at once.
const READ_BYTES: usize = 64 * 1024;

/// Time between two sweeps while outputs come, and while none does.
const SWEEP_EVERY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// Files that the store is asked about at once: some milliseconds.
const ASKED_AT_ONCE: usize = 256;

/// What pulls.
pub(crate) struct Pulling {
    pub(crate) control: Control,
    pub(crate) open: OpenSessions,
    pub(crate) outputs: Outputs,
    pub(crate) config: OutputsConfig,
    pub(crate) tally: Arc<Tally>,
    pub(crate) stop: CancellationToken,
}

/// A pull that failed, and is tried again.
#[derive(Clone, Copy, Debug)]
struct Wait {
    conn: ConnId,
    failures: u32,
    wrong: u32,
    until: Instant,
}

/// How a pull ended.
#[derive(Debug)]
enum Pulled {
    /// It is on our disk.
    Here,
    /// Its edge has it no more.
    NotThere(String),
    /// Later.
    Failed { why: String, wrong: bool },
}

impl Pulling {
    pub(crate) async fn run(self) {
        let mut glance = tokio::time::interval(GLANCE_EVERY);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulls: JoinSet<Pulled> = JoinSet::new();
        let mut started: Vec<(tokio::task::Id, ExecutionId)> = Vec::new();
        let mut busy: BTreeMap<ExecutionId, OutputTarget> = BTreeMap::new();
        let mut waits: BTreeMap<ExecutionId, Wait> = BTreeMap::new();
        let (mut seen, mut looked_at) = (None, Instant::now());
        let (mut sweep_at, mut files_at) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = glance.tick() => {}
                Some(ended) = pulls.join_next_with_id() => {
                    let (task, pulled) = ended.unwrap_or_else(|error| {
                        let why = format!("a bug in sluice: {error}");
                        (error.id(), Pulled::Failed { why, wrong: false })
                    });
                    let at = started.iter().position(|(of, _)| *of == task);
                    let id = at.map(|at| started.swap_remove(at).1);
                    if let Some(target) = id.and_then(|id| busy.remove(&id)) {
                        if matches!(pulled, Pulled::Here) {
                            sweep_at = sweep_at.min(Instant::now() + SWEEP_EVERY.0);
                        }
                        self.note(&target, pulled, &mut waits).await;
                    }
                    seen = None;
                }
            }
            let happened = (
                self.tally.outputs_noted.load(Ordering::Relaxed),
                self.tally.sessions_opened.load(Ordering::Relaxed),
            );
            let lacking = self.tally.outputs_lacking.load(Ordering::Relaxed);
            let is_due = seen != Some(happened) || (lacking && looked_at.elapsed() >= LOOK_EVERY);
            if is_due && pulls.len() < PULLS_MAX {
                looked_at = Instant::now();
                if let Some(targets) = self.look().await {
                    seen = Some(happened);
                    waits.retain(|id, _| targets.iter().any(|target| target.execution == *id));
                    for target in choose(targets, &busy, &waits, looked_at) {
                        let id = target.execution;
                        busy.insert(id, target.clone());
                        let (open, outputs) = (self.open.clone(), self.outputs.clone());
                        let work = async move { pull(&open, &outputs, &target).await };
                        started.push((pulls.spawn(work).id(), id));
                    }
                }
            }
            if sweep_at <= Instant::now() {
                sweep_at = Instant::now() + SWEEP_EVERY.1;
                let busy = busy.values().map(|target| target.facts.digest).collect();
                self.sweep(&busy).await;
                if files_at <= Instant::now() {
                    files_at = Instant::now() + SWEEP_EVERY.1;
                    self.sweep_files(&busy).await;
                }
            }
        }
    }

    async fn ask(&self, call: OutputCall) -> Option<Reply> {
        match self
            .control
            .ask(Ask::Api(Box::new(ApiCall::Output(call))))
            .await
        {
            Ok(reply) => Some(reply),
            Err(error) => {
                // A full disk, or the end: what lacks is asked for again.
                debug!(event = "output.unasked", reason = %error.message);
                None
            }
        }
    }

    async fn look(&self) -> Option<Vec<OutputTarget>> {
        match self.ask(OutputCall::Lacking).await? {
            Reply::OutputTargets(targets) => Some(targets),
            _ => None,
        }
    }

    /// Tells the store how a pull ended, or when to try again.
    async fn note(
        &self,
        target: &OutputTarget,
        pulled: Pulled,
        waits: &mut BTreeMap<ExecutionId, Wait>,
    ) {
        let id = target.execution;
        let before = waits.remove(&id);
        let (why, wrong) = match pulled {
            Pulled::Here => {
                if self.ask(OutputCall::Held(id)).await.is_some() {
                    count(&self.tally.outputs_pulled);
                    return;
                }
                ("the store does not take it".to_owned(), false)
            }
            Pulled::NotThere(why) => {
                count(&self.tally.output_pull_failures);
                self.ask(OutputCall::Lost(id, why)).await;
                return;
            }
            Pulled::Failed { why, wrong } => (why, wrong),
        };
        count(&self.tally.output_pull_failures);
        let failures = before.map_or(0, |wait| wait.failures) + 1;
        let wrong = before.map_or(0, |wait| wait.wrong) + u32::from(wrong);
        if wrong >= WRONG_MAX {
            let why = "what its edge has is not what it reported: its disk may be damaged";
            self.ask(OutputCall::Lost(id, why.to_owned())).await;
            return;
        }
        let after = retry_delay(failures);
        info!(event = "output.not_pulled", execution = %id, reason = why, after = ?after);
        let wait = Wait {
            conn: target.conn,
            failures,
            wrong,
            until: Instant::now() + after,
        };
        waits.insert(id, wait);
    }

    /// Lets old outputs go, and deletes the files that nothing names then, step by step.
    async fn sweep(&self, busy: &BTreeSet<Digest>) {
        let OutputsConfig { keep, bytes_max } = self.config;
        loop {
            let call = OutputCall::Sweep {
                keep,
                too_old: format!("it was older than {keep:?}, as --keep-outputs says"),
                bytes_max,
                too_many: format!(
                    "it made room for newer ones: --outputs-max is {bytes_max} bytes"
                ),
            };
            let Some(Reply::OutputsSwept(swept)) = self.ask(call).await else {
                return;
            };
            self.remove(swept.dropped, busy).await;
            if !swept.more || self.stop.is_cancelled() {
                return;
            }
        }
    }

    /// Deletes the files that nothing names, whatever became of whoever should have: looks at all of them.
    async fn sweep_files(&self, busy: &BTreeSet<Digest>) {
        let outputs = self.outputs.clone();
        let found = tokio::task::spawn_blocking(move || outputs.contents()).await;
        let found: Vec<Digest> = match found {
            Ok(Ok(found)) => found.into_iter().collect(),
            Ok(Err(error)) => {
                warn!(event = "output.sweep_failed", %error);
                return;
            }
            Err(_) => return,
        };
        for some in found.chunks(ASKED_AT_ONCE) {
            let call = OutputCall::Unnamed(some.to_vec());
            let Some(Reply::OutputDigests(unnamed)) = self.ask(call).await else {
                return;
            };
            self.remove(unnamed, busy).await;
        }
    }

    async fn remove(&self, mut contents: BTreeSet<Digest>, busy: &BTreeSet<Digest>) {
        contents.retain(|digest| !busy.contains(digest));
        if contents.is_empty() {
            return;
        }
        let outputs = self.outputs.clone();
        let removed = tokio::task::spawn_blocking(move || outputs.remove(&contents)).await;
        match removed {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(files)) => info!(event = "output.files_swept", files),
            Ok(Err(error)) => warn!(event = "output.sweep_failed", %error),
        }
    }
}

/// Which to pull now: as many as there is room for, one of a node, one of a content, none that waits.
fn choose(
    targets: Vec<OutputTarget>,
    busy: &BTreeMap<ExecutionId, OutputTarget>,
    waits: &BTreeMap<ExecutionId, Wait>,
    now: Instant,
) -> Vec<OutputTarget> {
    let mut nodes: BTreeSet<NodeId> = busy.values().map(|it| it.node).collect();
    let mut digests: BTreeSet<Digest> = busy.values().map(|it| it.facts.digest).collect();
    let mut chosen = Vec::new();
    // Who waited longest, or failed least, comes first: one that fails for ever keeps no node's others waiting.
    let mut targets = targets;
    targets.sort_by_key(|it| waits.get(&it.execution).map(|wait| wait.until));
    for target in targets {
        if busy.len() + chosen.len() >= PULLS_MAX {
            break;
        }
        let waits = waits
            .get(&target.execution)
            .is_some_and(|wait| wait.conn == target.conn && wait.until > now);
        if waits || nodes.contains(&target.node) || digests.contains(&target.facts.digest) {
            continue;
        }
        nodes.insert(target.node);
        digests.insert(target.facts.digest);
        chosen.push(target);
    }
    chosen
}

fn retry_delay(failures: u32) -> Duration {
    RETRY_MIN
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(RETRY_MAX)
}

/// Pulls one output, from where it was left.
async fn pull(open: &OpenSessions, outputs: &Outputs, target: &OutputTarget) -> Pulled {
    match try_pull(open, outputs, target).await {
        Ok(pulled) => pulled,
        Err(error) => Pulled::Failed {
            wrong: matches!(error, OutputError::Wrong),
            why: error.to_string(),
        },
    }
}

async fn try_pull(
    open: &OpenSessions,
    outputs: &Outputs,
    target: &OutputTarget,
) -> Result<Pulled, OutputError> {
    if outputs.has(target.facts).await {
        return Ok(Pulled::Here);
    }
    let mut part = outputs.begin(target.facts).await?;
    let request = OutputRequest {
        execution: target.execution.to_bytes().to_vec(),
        offset: part.have(),
    };
    let cut = |why: String| Ok(Pulled::Failed { why, wrong: false });
    let asked = async {
        let kind = stream_request::Kind::Output(request);
        let mut reply = open.ask(target.conn, kind).await?;
        let frame = reply.recv().await.map_err(|error| error.to_string())?;
        let answer = frame
            .as_deref()
            .and_then(|frame| decode::<PullReply>(frame).ok())
            .ok_or("its answer makes no sense")?;
        Ok::<_, String>((reply, answer))
    };
    let (mut reply, answer) = match tokio::time::timeout(SILENT_MAX, asked).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(why)) => return cut(why),
        Err(_) => return cut(format!("it did not answer within {SILENT_MAX:?}")),
    };
    match answer.reject {
        Some(reject) if reject.code == "not-here" => {
            let why = "its edge has it no more: the disk was lost, or its state was deleted";
            return Ok(Pulled::NotThere(why.to_owned()));
        }
        Some(reject) => return cut(reject.message),
        None if answer.size != target.facts.bytes => return Err(OutputError::Wrong),
        None => {}
    }
    loop {
        match tokio::time::timeout(SILENT_MAX, reply.read(READ_BYTES)).await {
            Ok(Ok(Some(bytes))) => part.write(&bytes).await?,
            Ok(Ok(None)) => break,
            Ok(Err(error)) => {
                part.pause().await?;
                return cut(error.to_string());
            }
            Err(_) => {
                part.pause().await?;
                return cut(format!("nothing came for {SILENT_MAX:?}"));
            }
        }
    }
    part.finish().await?;
    Ok(Pulled::Here)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_model::OutputFacts;

    use super::*;

    fn target(number: u8, node: u8, content: &[u8]) -> OutputTarget {
        OutputTarget {
            execution: ExecutionId::from_random([number; 16]),
            node: NodeId::from_random([node; 16]),
            conn: ConnId(u64::from(node)),
            facts: OutputFacts {
                bytes: 1,
                digest: Digest::of(content),
                dropped: 0,
            },
        }
    }

    fn chosen(
        targets: &[OutputTarget],
        busy: &[OutputTarget],
        waits: &BTreeMap<ExecutionId, Wait>,
        now: Instant,
    ) -> Vec<ExecutionId> {
        let busy = busy.iter().map(|it| (it.execution, it.clone())).collect();
        let chosen = choose(targets.to_vec(), &busy, waits, now);
        chosen.into_iter().map(|it| it.execution).collect()
    }

    #[tokio::test]
    async fn one_of_a_node_and_of_a_content_and_no_more_than_there_is_room_for() {
        let (a, b) = (target(1, 1, b"a"), target(2, 1, b"b"));
        let (c, same) = (target(3, 2, b"c"), target(4, 3, b"a"));
        let all = [a.clone(), b.clone(), c.clone(), same.clone()];
        let none = BTreeMap::new();
        let now = Instant::now();
        assert_eq!(chosen(&all, &[], &none, now), [a.execution, c.execution]);
        let left = [b.clone(), c.clone(), same];
        let busy = std::slice::from_ref(&a);
        assert_eq!(chosen(&left, busy, &none, now), [c.execution]);
        let many: Vec<_> = (10..30).map(|it| target(it, it, &[it])).collect();
        assert_eq!(chosen(&many, &[], &none, now).len(), PULLS_MAX);
    }

    #[tokio::test]
    async fn one_that_failed_waits_and_lets_others_of_its_node_pass_until_a_new_session() {
        let (bad, good) = (target(1, 1, b"a"), target(2, 1, b"b"));
        let now = Instant::now();
        let wait = Wait {
            conn: bad.conn,
            failures: 1,
            wrong: 0,
            until: now + RETRY_MIN,
        };
        let waits = BTreeMap::from([(bad.execution, wait)]);
        let both = [bad.clone(), good.clone()];
        assert_eq!(chosen(&both, &[], &waits, now), [good.execution]);
        assert_eq!(chosen(&both[..1], &[], &waits, now), []);
        let later = now + RETRY_MIN * 2;
        assert_eq!(chosen(&both, &[], &waits, later), [good.execution]);
        assert_eq!(chosen(&both[..1], &[], &waits, later), [bad.execution]);
        let back = OutputTarget {
            conn: ConnId(99),
            ..bad.clone()
        };
        assert_eq!(chosen(&[back], &[], &waits, now), [bad.execution]);
        assert_eq!(retry_delay(1), RETRY_MIN);
        assert_eq!(retry_delay(u32::MAX), RETRY_MAX);
    }
}
