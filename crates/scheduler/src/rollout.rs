//! How a new version reaches a job's nodes: a few first, then so many at a time, and back by itself when it is bad.
//!
//! ```text
//!   deploy --> canary --proven--> rolling --all proven--> done      (the new version is the good one)
//!                 |  \             /  |
//!                 |   pause, resume   |
//!                 +----- failed ------+--> rolled-back              (the old content again, as a newer version)
//! ```
//!
//! Who has no turn yet keeps what it runs; who runs nothing, joins or returns gets the good version. A node that is away
//! is never given the new version and takes no room; one that went away *with* it keeps its room, since a version that
//! takes machines off the network must not thereby reach the next ones. For the same reason only a node that was heard
//! of after it ran for long enough proves anything: one that fell silent meanwhile may not have been missed yet.
//!
//! Who lacks something that the new version needs can neither prove it nor speak against it: while it rolls it gets its
//! row with the others, so that it runs once it is mended, and counts for nothing.
//!
//! Who runs what the new version runs too, since that changes only where the job is wanted, restarts nothing: it gets the
//! version at once, takes no room, and has proven it.
//!
//! The record is durable; how long something has run is known to [`Watch`] only, by a monotonic clock, and starts over
//! with the process.

mod misfits;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_model::pipeline::Rollout as Rules;
use sluice_model::{
    Attempt, Digest, ExecutionId, MonotonicMs, NodeId, NodeName, RolloutPhase, UnixMs, Version,
};

use self::words::{names, short_of};
use crate::plan::{Shape, Turn};

/// Restarts after which something that waits to try again counts as failed: the first may be chance.
const RESTARTS_MAX: u64 = 2;

/// How long something may wait to try again before it counts as failed: the edge's first four tries.
const UNWELL_MAX: Duration = Duration::from_secs(10);

/// Records below which a rate of errors says nothing before the time is up.
const RECORDS_MIN: u64 = 100;

/// How often a node that has run for long enough is looked at until it is heard of: a part of the edges' default
/// heartbeat.
const HEARD_EVERY: Duration = Duration::from_secs(1);

/// How often errors are counted: the edges' default heartbeat, which brings the counters.
const ERRORS_EVERY: Duration = Duration::from_secs(5);

/// Failures that are kept with their reasons; a screen.
const FAILURES_MAX: usize = 20;

/// Events that are kept; with the head of the report and its failures a screen.
const EVENTS_MAX: usize = 20;

/// What a rollout waits for that has nobody to look at: not for a connection.
pub const NO_MEMBERS: &str =
    "no node takes it now: none matches, or those that match are drained or cordoned";

/// What a rollout waits for when each of its nodes lacks something.
pub const ONLY_MISFITS: &str = "no node can run it: each that it could go to lacks something";

/// How the reason ends of a rollout that waits for counters.
pub const UNCOUNTED: &str = "the next heartbeat tells what became of its records";

/// A rollout as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// The new version.
    pub candidate: Version,
    /// What runs where the new version is not yet, and everywhere when that fails; `None` when there is nothing older.
    pub good: Option<Good>,
    /// Where it stands.
    pub phase: RolloutPhase,
    /// Why it stands there, or what it waits for, in words; empty while it goes on.
    pub reason: String,
    /// The version that brought the old content back.
    pub restored_by: Option<Version>,
    /// Executions that proved the new version.
    pub proven: BTreeSet<ExecutionId>,
    /// Executions that were in trouble before they got the new version, or that an operator let pass: they prove nothing.
    pub excused: BTreeSet<ExecutionId>,
    /// Executions of nodes that lacked what the new version needs, until they have tried it again.
    pub lacking: BTreeSet<ExecutionId>,
    /// Where the new version failed: the first of them.
    pub failures: Vec<NodeFailure>,
    /// What happened, oldest first.
    pub events: Vec<RolloutEvent>,
    /// When the new version was deployed.
    pub started_at: UnixMs,
    /// When `phase` last changed.
    pub changed_at: UnixMs,
}

/// A version that is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Good {
    /// The version.
    pub version: Version,
    /// Its content.
    pub spec: Digest,
}

/// Where a new version failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFailure {
    /// The node.
    pub node: NodeName,
    /// The execution there.
    pub execution: ExecutionId,
    /// Why, in words.
    pub reason: String,
    /// When it was noticed.
    pub at: UnixMs,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutEvent {
    /// When.
    pub at: UnixMs,
    /// What, in words.
    pub what: String,
}

/// A node that should run the job.
#[derive(Clone, Debug)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// It has a session.
    pub connected: bool,
    /// When it was last heard of in that session.
    pub heard_at: Option<MonotonicMs>,
    /// It is lost and its place was given to another node: it is looked at, and counts no longer.
    pub given_away: bool,
    /// It lacks something that the new version needs.
    pub misfit: bool,
    /// The job's execution there.
    pub execution: Option<Followed>,
}

/// An execution as a rollout looks at it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// It.
    pub id: ExecutionId,
    /// Its row's version.
    pub version: Version,
    /// Its row's attempt.
    pub attempt: Attempt,
    /// Its row orders `run`.
    pub runs: bool,
    /// Its row's version runs what the new one runs too.
    pub same_content: bool,
    /// How it stands at that version and attempt.
    pub sign: Sign,
    /// Records taken in since it runs at that version and attempt.
    pub records_in: u64,
    /// Records set aside since then.
    pub dead_letters: u64,
    /// When its node last told what it counts, at that version and attempt; `None` when it has not.
    pub counted_at: Option<MonotonicMs>,
}

/// How an execution stands at its row's version and attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// On its way: in words.
    Underway(String),
    /// It runs.
    Running {
        /// How often the edge has restarted it.
        restarts: u64,
    },
    /// It ended well.
    Completed,
    /// It waits to try again.
    Unwell {
        /// Why.
        reason: String,
        /// How often the edge has restarted it.
        restarts: u64,
    },
    /// Failed, refused or quarantined: in words.
    Failed(String),
}

/// What was seen of the executions at the new version, and since when.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    candidate: Version,
    seen: BTreeMap<ExecutionId, Seen>,
    /// Since when no node is left that could be the next canary.
    short_since: Option<MonotonicMs>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    attempt: Attempt,
    since: MonotonicMs,
    running_since: Option<MonotonicMs>,
    /// Restarts at that time: one more, and it has not run since then, though no look saw it down.
    restarts: u64,
    unwell_since: Option<MonotonicMs>,
}

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// For deciding that time is up.
    pub mono: MonotonicMs,
    /// For the record.
    pub unix: UnixMs,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// Nodes that get the new version now.
    pub admitted: BTreeSet<NodeId>,
    /// When to look again even if nothing happens.
    pub look_again_at: Option<MonotonicMs>,
}

/// What an execution at the new version tells.
enum Judgement {
    Proven,
    Failing(String),
    /// Neither; `gone`: its time is up, and it is away.
    Open {
        gone: bool,
    },
    /// It ran for long enough, and nobody knows yet what became of its records; `late`: nobody said in time.
    Uncounted {
        late: bool,
    },
}

impl RolloutRecord {
    /// A rollout that begins.
    pub fn begin(candidate: Version, good: Option<Good>, rules: &Rules, now: UnixMs) -> Self {
        let phase = first_phase(rules);
        let mut record = Self {
            candidate,
            good,
            phase,
            reason: String::new(),
            restored_by: None,
            proven: BTreeSet::new(),
            excused: BTreeSet::new(),
            lacking: BTreeSet::new(),
            failures: Vec::new(),
            events: Vec::new(),
            started_at: now,
            changed_at: now,
        };
        let first = match rules.canary {
            0 => String::new(),
            1 => "1 canary first, then ".to_owned(),
            count => format!("{count} canaries first, then "),
        };
        let back = match good {
            Some(good) => format!("version {} is the good one", good.version),
            None => "there is no older version to go back to".to_owned(),
        };
        record.note(
            now,
            format!(
                "version {candidate} begins: {first}{} at a time; {back}",
                rules.max_parallel
            ),
        );
        record
    }

    /// It has not ended.
    pub fn is_open(&self) -> bool {
        matches!(
            self.phase,
            RolloutPhase::Canary | RolloutPhase::Rolling | RolloutPhase::Paused
        )
    }

    /// Adds a line to the story. The first line stays; in the middle the oldest goes.
    pub fn note(&mut self, at: UnixMs, what: String) {
        if self.events.len() >= EVENTS_MAX {
            self.events.remove(1);
        }
        self.events.push(RolloutEvent { at, what });
    }

    /// Nothing more is started; `false` when it has ended or is paused already.
    pub fn pause(&mut self, why: String, now: UnixMs) -> bool {
        if !self.is_open() || self.phase == RolloutPhase::Paused {
            return false;
        }
        self.note(now, format!("paused: {why}"));
        self.enter(RolloutPhase::Paused, why, now);
        true
    }

    /// Goes on after a pause, in spite of the failures so far; `false` when it is not paused.
    pub fn resume(&mut self, rules: &Rules, now: UnixMs) -> bool {
        if self.phase != RolloutPhase::Paused {
            return false;
        }
        let passed: Vec<ExecutionId> = self.failures.iter().map(|it| it.execution).collect();
        let told = match passed.len() {
            0 => "resumed by an operator".to_owned(),
            count => format!("resumed by an operator, in spite of {count} failures"),
        };
        self.excused.extend(passed);
        self.failures.clear();
        self.note(now, told);
        self.enter(first_phase(rules), String::new(), now);
        true
    }

    /// The new version goes to every node at once; `false` when the rollout has ended.
    pub fn promote(&mut self, now: UnixMs) -> bool {
        let why = "an operator promoted it: every node gets it now".to_owned();
        self.is_open() && self.end(RolloutPhase::Done, why, now)
    }

    /// Goes back; `false` when it has ended, or when there is nothing to go back to.
    pub fn abort(&mut self, why: String, now: UnixMs) -> bool {
        self.is_open() && self.good.is_some() && self.end(RolloutPhase::RolledBack, why, now)
    }

    fn end(&mut self, phase: RolloutPhase, why: String, now: UnixMs) -> bool {
        self.note(now, format!("{phase}: {why}"));
        self.enter(phase, why, now);
        true
    }

    fn enter(&mut self, phase: RolloutPhase, reason: String, now: UnixMs) {
        self.phase = phase;
        self.reason = reason;
        self.changed_at = now;
    }

    /// What a plan may do while this stands. `version` and `spec` are the job's newest; `admitted` get it now,
    /// `good_shape` is the good version's.
    pub fn turn<'a>(
        &self,
        version: Version,
        spec: Digest,
        admitted: BTreeSet<NodeId>,
        good_shape: Option<Shape>,
        running: impl IntoIterator<Item = (&'a ExecutionId, Digest)>,
    ) -> Option<Turn> {
        let running = running.into_iter();
        if self.is_open() {
            return Some(Turn {
                admitted,
                stays: running.map(|(id, _)| *id).collect(),
                otherwise: self.good.map(|good| good.version),
                otherwise_shape: good_shape,
            });
        }
        // The old content is back: who ran it all the time runs on, under the version that it knows.
        (self.phase == RolloutPhase::RolledBack).then(|| Turn {
            admitted: BTreeSet::new(),
            stays: running
                .filter(|(_, content)| *content == spec)
                .map(|(id, _)| *id)
                .collect(),
            otherwise: Some(version),
            otherwise_shape: None,
        })
    }
}

fn first_phase(rules: &Rules) -> RolloutPhase {
    if rules.canary > 0 {
        RolloutPhase::Canary
    } else {
        RolloutPhase::Rolling
    }
}

/// Looks at an open rollout: moves its record on and says who gets the new version now. Going back is phase
/// `rolled-back` in the record; the caller makes the version.
pub fn advance(
    record: &mut RolloutRecord,
    rules: &Rules,
    members: &[Member],
    watch: &mut Watch,
    now: Clocks,
) -> Advance {
    let mut advance = Advance::default();
    if !record.is_open() {
        return advance;
    }
    watch.follow(record.candidate);
    watch.forget_others(members);
    let candidate = record.candidate;
    let is_there = |member: &&Member| {
        let at = |it: &Followed| it.runs && it.version == candidate;
        member.execution.as_ref().is_some_and(at)
    };
    record.note_misfits(members);
    let fit = |member: &&Member| !member.misfit && !member.given_away;
    let places = members.iter().filter(fit).count();
    let takes_part = |member: &&Member| member.connected || is_there(member);
    let present = members.iter().filter(fit).filter(takes_part).count();
    let (mut proven, mut open, mut gone, mut uncounted) = (0, 0, Vec::new(), Vec::new());
    let mut untold = Vec::new();
    let (mut news, mut failures) = (Vec::new(), Vec::new());
    let judged = |member: &&Member| is_there(member) && !member.misfit;
    for member in members.iter().filter(judged) {
        let Some(followed) = &member.execution else {
            continue;
        };
        let was_proven = record.proven.contains(&followed.id);
        let excused = record.is_excused(followed.id);
        match watch.judge(member, followed, was_proven, rules, now.mono) {
            Judgement::Failing(_) if excused => {}
            Judgement::Failing(reason) => failures.push(NodeFailure {
                node: member.name.clone(),
                execution: followed.id,
                reason,
                at: now.unix,
            }),
            Judgement::Proven => {
                proven += 1;
                if record.proven.insert(followed.id) {
                    news.push(&member.name);
                }
            }
            Judgement::Open { .. } if was_proven => proven += usize::from(!member.given_away),
            Judgement::Open { gone: false } => open += 1,
            Judgement::Uncounted { late: true } if excused => {}
            Judgement::Uncounted { late } => {
                open += 1;
                uncounted.push(&member.name);
                untold.extend(late.then_some(&member.name));
            }
            Judgement::Open { gone: true } if excused => {}
            Judgement::Open { gone: true } => gone.push(&member.name),
        }
    }
    if !news.is_empty() {
        let what = format!(
            "{} proved version {candidate}: {proven} of {places} nodes",
            names(&news),
        );
        record.note(now.unix, what);
    }
    if record.handle_failures(failures, now.unix) {
        return advance;
    }
    if record.phase == RolloutPhase::Paused {
        return advance;
    }
    if !untold.is_empty() {
        let why = format!(
            "{} ran version {candidate} for long enough, and for {:?} no heartbeat told what became of its records",
            names(&untold),
            rules.deadline
        );
        record.pause(why, now.unix);
        return advance;
    }
    advance.admitted = record.adopt(members, now.unix);
    proven += advance.admitted.len();
    let canaries = usize::try_from(rules.canary).unwrap_or(usize::MAX);
    if record.phase == RolloutPhase::Canary && proven > 0 && proven >= canaries.min(places) {
        record.note(now.unix, "the canaries are good".to_owned());
        record.enter(RolloutPhase::Rolling, String::new(), now.unix);
    }
    let at_once = match record.phase {
        RolloutPhase::Canary => canaries.saturating_sub(proven),
        // A share is one of those that can take part: who is away takes no room, and lends none either.
        _ => rules.max_parallel.of(present),
    };
    if !gone.is_empty() && gone.len() >= at_once.min(places) {
        let why = format!(
            "{} went away with version {candidate} and did not prove it within {:?}",
            names(&gone),
            rules.deadline
        );
        record.pause(why, now.unix);
        return advance;
    }
    let (misfits, mut waiting): (Vec<&Member>, Vec<&Member>) = members
        .iter()
        .filter(|member| member.connected && !is_there(member))
        .partition(|member| member.misfit);
    if record.phase == RolloutPhase::Rolling {
        record.send_to_misfits(&misfits, &mut advance, now.unix);
    }
    waiting.retain(|member| !advance.admitted.contains(&member.node));
    // Who runs well shows most: it goes first. The order by name makes the canary known beforehand.
    waiting.sort_by_key(|member| (trouble(member), member.name.clone()));
    let room = at_once.saturating_sub(open + gone.len());
    let admitted: Vec<&Member> = waiting.iter().copied().take(room).collect();
    for member in &admitted {
        advance.admitted.insert(member.node);
        if let Some(followed) = &member.execution
            && trouble(member) > 1
        {
            record.excused.insert(followed.id);
        }
    }
    if !admitted.is_empty() {
        let admitted: Vec<&NodeName> = admitted.iter().map(|member| &member.name).collect();
        let what = format!("{} gets version {candidate}", names(&admitted));
        record.note(now.unix, what);
    }
    let over = waiting.is_empty() && open == 0 && proven > 0;
    if record.phase == RolloutPhase::Rolling && over {
        let absent = members.iter().filter(fit).filter(|it| !it.connected);
        let misfits = members.iter().filter(|it| it.misfit);
        let mut why = format!("{proven} nodes proved version {candidate}");
        match absent.count() {
            0 => {}
            count => why.push_str(&format!("; {count} that are away get it when they return")),
        }
        let misfits: Vec<&NodeName> = misfits.map(|it| &it.name).collect();
        if !misfits.is_empty() {
            why.push_str(&format!("; {} lacks what it needs", names(&misfits)));
        }
        record.end(RolloutPhase::Done, why, now.unix);
        return advance;
    }
    let idle = waiting.is_empty() && open == 0;
    let begun = proven > 0 || members.iter().any(|member| judged(&member));
    if idle && begun && proven == 0 && gone.is_empty() {
        let why =
            format!("no node proves version {candidate}: all that have it were in trouble before");
        record.pause(why, now.unix);
        return advance;
    }
    record.reason = match (idle, begun) {
        (false, _) if !uncounted.is_empty() && uncounted.len() == open => format!(
            "{} ran version {candidate} for long enough; {UNCOUNTED}",
            names(&uncounted)
        ),
        (false, _) => String::new(),
        (true, false) if members.is_empty() => NO_MEMBERS.to_owned(),
        (true, false) if members.iter().all(|it| it.misfit) => ONLY_MISFITS.to_owned(),
        (true, false) => "no node that it could go to is connected".to_owned(),
        (true, true) => short_of(record, proven, at_once),
    };
    if !(idle && begun) {
        watch.short_since = None;
    } else if watch.is_short_for(rules.deadline, now.mono) {
        let why = format!("{}, for {:?}", record.reason, rules.deadline);
        record.pause(why, now.unix);
        return advance;
    }
    advance.look_again_at = watch.look_again_at(record, rules, now.mono);
    advance
}

impl RolloutRecord {
    /// Nodes that run what the new version runs too: they have proven it, and nothing restarts there.
    fn adopt(&mut self, members: &[Member], now: UnixMs) -> BTreeSet<NodeId> {
        let mut adopted = BTreeSet::new();
        let mut news = Vec::new();
        // What was a candidate itself has proven nothing yet, and takes its turn.
        let Some(good) = self.good.map(|good| good.version) else {
            return adopted;
        };
        let there = |it: &&Member| it.connected && !it.given_away && !it.misfit;
        for member in members.iter().filter(there) {
            let running = member.execution.as_ref().filter(|it| {
                let runs = it.runs && matches!(it.sign, Sign::Running { .. });
                runs && it.same_content && it.version <= good
            });
            if let Some(followed) = running {
                adopted.insert(member.node);
                news.push(&member.name);
                self.proven.insert(followed.id);
            }
        }
        if !news.is_empty() {
            let what = format!(
                "{} goes on under version {}, which runs the same",
                names(&news),
                self.candidate
            );
            self.note(now, what);
        }
        adopted
    }

    /// Whether it ends here: it has failed, or is paused for want of an older version.
    fn handle_failures(&mut self, failures: Vec<NodeFailure>, now: UnixMs) -> bool {
        let known: BTreeSet<ExecutionId> = self.failures.iter().map(|it| it.execution).collect();
        let count = failures.len();
        let Some(first) = failures.first() else {
            return false;
        };
        let mut why = format!("{}: {}", first.node, first.reason);
        if count > 1 {
            why.push_str(&format!(" (and {} more nodes)", count - 1));
        }
        for failure in failures {
            if !known.contains(&failure.execution) && self.failures.len() < FAILURES_MAX {
                let what = format!("{} failed: {}", failure.node, failure.reason);
                self.note(failure.at, what);
                self.failures.push(failure);
            }
        }
        if self.phase == RolloutPhase::Paused {
            return false;
        }
        if self.good.is_some() {
            self.end(RolloutPhase::RolledBack, why, now);
        } else {
            self.pause(
                format!("{why}; there is no older version to go back to"),
                now,
            );
        }
        true
    }
}

impl Watch {
    /// Forgets executions that the rollout has nothing to do with any more.
    fn forget_others(&mut self, members: &[Member]) {
        let followed = members.iter().filter_map(|it| it.execution.as_ref());
        let ids: BTreeSet<ExecutionId> = followed.map(|it| it.id).collect();
        self.seen.retain(|id, _| ids.contains(id));
    }

    fn follow(&mut self, candidate: Version) {
        if self.candidate != candidate {
            *self = Self {
                candidate,
                ..Self::default()
            };
        }
    }

    fn judge(
        &mut self,
        member: &Member,
        followed: &Followed,
        was_proven: bool,
        rules: &Rules,
        now: MonotonicMs,
    ) -> Judgement {
        let new = Seen {
            attempt: followed.attempt,
            since: now,
            running_since: None,
            restarts: 0,
            unwell_since: None,
        };
        let seen = self.seen.entry(followed.id).or_insert(new);
        if seen.attempt != followed.attempt {
            *seen = new;
        }
        let too_many_errors = rules.error_rate_max.and_then(|max| errors(followed, max));
        let underway = match &followed.sign {
            Sign::Failed(reason) => return Judgement::Failing(reason.clone()),
            Sign::Completed => {
                return too_many_errors.map_or(Judgement::Proven, Judgement::Failing);
            }
            Sign::Unwell { reason, restarts } => {
                seen.running_since = None;
                let since = *seen.unwell_since.get_or_insert(now);
                if *restarts >= RESTARTS_MAX || now.since(since) >= UNWELL_MAX {
                    return Judgement::Failing(reason.clone());
                }
                reason.clone()
            }
            Sign::Running { restarts } if member.connected => {
                seen.unwell_since = None;
                if std::mem::replace(&mut seen.restarts, *restarts) != *restarts {
                    seen.running_since = None;
                }
                let since = *seen.running_since.get_or_insert(now);
                let heard_at = member.heard_at.unwrap_or(since);
                let long_enough = was_proven || heard_at.since(since) >= rules.min_healthy;
                match too_many_errors {
                    Some(why) if long_enough || followed.records_in >= RECORDS_MIN => {
                        return Judgement::Failing(why);
                    }
                    _ if was_proven => return Judgement::Proven,
                    // Of records that nobody has counted yet, none is known to have died.
                    _ if long_enough && !is_counted(followed, rules, since) => {
                        // Heartbeats may be rare; one that came so much later and did not tell is none to wait for.
                        let late = heard_at.since(since) >= rules.min_healthy + rules.deadline;
                        return Judgement::Uncounted { late };
                    }
                    _ if long_enough => return Judgement::Proven,
                    // It ran for long enough, and its node's next heartbeat says so; without one its session ends.
                    _ if now.since(since) >= rules.min_healthy => {
                        return Judgement::Open { gone: false };
                    }
                    _ => "it has not run for long enough".to_owned(),
                }
            }
            Sign::Running { .. } => {
                seen.running_since = None;
                "it is away".to_owned()
            }
            Sign::Underway(what) => {
                seen.running_since = None;
                what.clone()
            }
        };
        let late = now.since(seen.since) >= rules.deadline;
        if late && member.connected && !was_proven {
            return Judgement::Failing(format!(
                "not healthy within {:?}: {underway}",
                rules.deadline
            ));
        }
        Judgement::Open { gone: late }
    }

    /// Whether no node was left to go to for that long.
    fn is_short_for(&mut self, time: Duration, now: MonotonicMs) -> bool {
        now.since(*self.short_since.get_or_insert(now)) >= time
    }

    fn look_again_at(
        &self,
        record: &RolloutRecord,
        rules: &Rules,
        now: MonotonicMs,
    ) -> Option<MonotonicMs> {
        let open = self
            .seen
            .iter()
            .filter(|(id, _)| !record.proven.contains(id) && !record.is_excused(**id));
        let times = open.flat_map(|(_, seen)| {
            [
                Some(seen.since.plus(rules.deadline)),
                seen.running_since
                    .map(|since| since.plus(rules.min_healthy)),
                seen.unwell_since.map(|since| since.plus(UNWELL_MAX)),
            ]
        });
        let unheard = self.seen.iter().any(|(id, seen)| {
            let is_open = !record.proven.contains(id) && !record.is_excused(*id);
            let since = seen.running_since.filter(|_| is_open);
            since.is_some_and(|since| now.since(since) >= rules.min_healthy)
        });
        let unheard = unheard.then(|| now.plus(HEARD_EVERY));
        let errors = rules.error_rate_max.map(|_| now.plus(ERRORS_EVERY));
        let short = self.short_since.map(|since| since.plus(rules.deadline));
        times
            .flatten()
            .chain(short)
            .filter(|at| *at > now)
            .chain(errors)
            .chain(unheard)
            .min_by_key(|at| at.0)
    }
}

/// Whether its counters are known as of the time when it had run for long enough, if they matter.
fn is_counted(followed: &Followed, rules: &Rules, running_since: MonotonicMs) -> bool {
    let enough = running_since.plus(rules.min_healthy);
    rules.error_rate_max.is_none() || followed.counted_at.is_some_and(|at| at >= enough)
}

/// What is wrong with the records of an execution, if too many of them became dead letters.
fn errors(followed: &Followed, max: f64) -> Option<String> {
    let (dead, taken) = (followed.dead_letters, followed.records_in);
    // Both are far below 2^53.
    let rate = dead as f64 / (taken.max(dead).max(1)) as f64;
    (rate > max).then(|| {
        format!(
            "{dead} of {taken} records became dead letters, {:.1} %, allowed are {:.1} %",
            rate * 100.0,
            max * 100.0
        )
    })
}

/// 0 runs well, 1 runs nothing or is on its way, 2 is in trouble.
fn trouble(member: &Member) -> u8 {
    match member.execution.as_ref().map(|it| (&it.sign, it.runs)) {
        Some((Sign::Running { .. } | Sign::Completed, true)) => 0,
        Some((Sign::Unwell { .. } | Sign::Failed(_), true)) => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
