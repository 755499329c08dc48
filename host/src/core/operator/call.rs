//! The questions and orders that operators and their programs have, and the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_api::{
    AuditEntry, AuditQuery, DeployReply, DeployRequest, ErrorBody, Execution, ExecutionFilter,
    Explain, Job, JobDetail, JobFilter, JobVersion, Node, NodeDetail, NodeFilter, NodeOrder, Page,
    Rollout, RolloutOrder, Run, RunFilter, RunLaunch, Schedule, ScheduleCreate, ScheduleDetail,
    ScheduleFilter, ScheduleTick, Status, TaskOutput, TickQuery, Token, TokenFilter,
};
use sluice_model::pipeline::{self};
use sluice_model::{
    Digest, ExecutionId, JobName, NodeName, RunId, ScheduleName, TokenId, Version, World,
};

use super::super::outputs::{OutputCall, OutputTarget, OutputsSwept};
use super::super::{Asker, Caller, ConnId, Joined};
use crate::store::{ApiTokenRecord, TokenRecord};

/// What is known of a component that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComponentFacts {
    /// In bytes.
    pub size: u64,
    /// What it is made for.
    pub world: World,
}

/// A question or an order.
#[derive(Clone, Debug)]
pub enum ApiCall {
    /// One of the others, on behalf of whoever asked the API for it: what it changes is recorded as theirs.
    By(Arc<Asker>, Box<ApiCall>),
    /// Who presents the token of the API with this hash?
    Authenticate([u8; 32]),
    /// Records what was refused, or done outside the store.
    Record(Arc<Asker>, Result<(), ErrorBody>),
    /// The audit log.
    Audit(AuditQuery),
    /// Keeps a token of the API.
    CreateApiToken(ApiTokenRecord),
    /// Everything on one screen.
    Status,
    /// Nodes.
    Nodes(NodeFilter),
    /// One node.
    Node(NodeName),
    /// Shuts a node out.
    RevokeNode(NodeName),
    /// Forgets a node.
    DeleteNode(NodeName),
    /// Jobs.
    Jobs(JobFilter),
    /// One job.
    Job(JobName),
    /// Executions.
    Executions(ExecutionFilter),
    /// One execution.
    Execution(ExecutionId),
    /// A job's execution on a node.
    ExecutionAt(JobName, NodeName),
    /// Why each node does or does not run a job.
    Explain(JobName),
    /// Where logs are.
    LogTargets(LogsOf, Option<NodeName>),
    /// Makes, changes or starts a job. These components were found to be there.
    Deploy(DeployRequest, BTreeMap<Digest, ComponentFacts>),
    /// How a job's newest version reaches its nodes.
    Rollout(JobName),
    /// Changes that.
    RolloutOrder(JobName, RolloutOrder),
    /// Starts a stopped job.
    StartJob(JobName),
    /// Stops a job.
    StopJob(JobName),
    /// Deletes a job.
    DeleteJob(JobName),
    /// A job's kept versions.
    History(JobName),
    /// Makes a new version with an older one's content: this one's, or that before the current.
    Rollback(JobName, Option<Version>),
    /// The next attempt of a job's executions.
    RestartJob(JobName),
    /// Orders something of a node.
    OrderNode(NodeName, NodeOrder),
    /// Keeps a token.
    CreateToken(TokenRecord),
    /// Tokens.
    Tokens(TokenFilter),
    /// One token, one that ended too.
    Token(TokenId),
    /// Makes a token worthless.
    RevokeToken(TokenId),
    /// Which components job versions name; `not-found` when there is no such job.
    ComponentUse(Option<JobName>),
    /// Which stdins open runs name.
    StdinUse,
    /// Launches batch jobs; the same key is the same run. Its stdin has so many bytes, when it was found to be there.
    Launch(RunLaunch, Option<String>, Option<u64>),
    /// Runs.
    Runs(RunFilter),
    /// One run.
    Run(RunId),
    /// Calls a run off.
    CancelRun(RunId),
    /// Creates a schedule.
    CreateSchedule(ScheduleCreate),
    /// Schedules.
    Schedules(ScheduleFilter),
    /// One schedule.
    Schedule(ScheduleName),
    /// What became of a schedule's ticks.
    Ticks(ScheduleName, TickQuery),
    /// No tick until it is resumed.
    PauseSchedule(ScheduleName),
    /// From the next tick on.
    ResumeSchedule(ScheduleName),
    /// Forgets a schedule.
    DeleteSchedule(ScheduleName),
    /// About outputs of runs.
    Output(OutputCall),
}

/// Whose logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogsOf {
    /// Those of a job's executions.
    Job(JobName),
    /// Those of the newest tries of a run's tasks.
    Run(RunId),
}

impl ApiCall {
    /// Whether it changes nothing that decides where tasks go and which are active.
    pub(in crate::core) fn is_of_runs(&self) -> bool {
        match self {
            Self::By(_, call) => call.is_of_runs(),
            Self::Authenticate(_)
            | Self::Record(..)
            | Self::Launch(..)
            | Self::Runs(_)
            | Self::Run(_) => true,
            _ => false,
        }
    }

    /// Whether it changes something, so that the audit log must name it.
    pub(in crate::core) fn writes(&self) -> bool {
        match self {
            Self::By(_, call) => call.writes(),
            Self::Deploy(request, _) => !request.dry_run,
            Self::RevokeNode(_)
            | Self::DeleteNode(_)
            | Self::RolloutOrder(..)
            | Self::StartJob(_)
            | Self::StopJob(_)
            | Self::DeleteJob(_)
            | Self::Rollback(..)
            | Self::RestartJob(_)
            | Self::OrderNode(..)
            | Self::Launch(..)
            | Self::CancelRun(_)
            | Self::CreateSchedule(_)
            | Self::PauseSchedule(_)
            | Self::ResumeSchedule(_)
            | Self::DeleteSchedule(_)
            | Self::CreateToken(_)
            | Self::CreateApiToken(_)
            | Self::RevokeToken(_) => true,
            Self::Authenticate(_)
            | Self::Record(..)
            | Self::Audit(_)
            | Self::Status
            | Self::Nodes(_)
            | Self::Node(_)
            | Self::Jobs(_)
            | Self::Job(_)
            | Self::Executions(_)
            | Self::Execution(_)
            | Self::ExecutionAt(..)
            | Self::Explain(_)
            | Self::LogTargets(..)
            | Self::Rollout(_)
            | Self::History(_)
            | Self::Tokens(_)
            | Self::Token(_)
            | Self::Runs(_)
            | Self::Run(_)
            | Self::Output(_)
            | Self::Schedules(_)
            | Self::Schedule(_)
            | Self::Ticks(..)
            | Self::ComponentUse(_)
            | Self::StdinUse => false,
        }
    }

    /// The node that it orders something of.
    pub(in crate::core) fn node(&self) -> Option<&NodeName> {
        match self {
            Self::By(_, call) => call.node(),
            Self::OrderNode(name, _) | Self::RevokeNode(name) | Self::DeleteNode(name) => {
                Some(name)
            }
            _ => None,
        }
    }

    /// The job that it orders something of; `None` too for a deploy of a text that names none.
    pub(in crate::core) fn job(&self) -> Option<JobName> {
        match self {
            Self::By(_, call) => call.job(),
            Self::Deploy(request, _) => pipeline::parse(&request.pipeline)
                .ok()
                .map(|pipeline| pipeline.name),
            Self::RolloutOrder(name, _)
            | Self::StartJob(name)
            | Self::StopJob(name)
            | Self::DeleteJob(name)
            | Self::Rollback(name, _)
            | Self::RestartJob(name) => Some(name.clone()),
            _ => None,
        }
    }
}

/// Answers, one for each sort of question.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To `Authenticate`.
    Caller(Option<Caller>),
    /// To `Audit`.
    Audit(Page<AuditEntry>),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Nodes`.
    Nodes(Page<Node>),
    /// To `Node`.
    Node(Box<NodeDetail>),
    /// To `OrderNode` and `RevokeNode`, and to `DeleteNode` as it was.
    NodeLine(Box<Node>),
    /// To `Tokens`.
    Tokens(Page<Token>),
    /// To `Token`, and to `RevokeToken` as it was.
    Token(Token),
    /// To `Jobs`.
    Jobs(Page<Job>),
    /// To `Job`.
    JobDetail(Box<JobDetail>),
    /// To orders about one job.
    Job(Box<Job>),
    /// To `Executions`.
    Executions(Page<Execution>),
    /// To `Execution` and `ExecutionAt`.
    Execution(Box<Execution>),
    /// To `Explain`.
    Explain(Box<Explain>),
    /// To `Rollout` and `RolloutOrder`.
    Rollout(Box<Rollout>),
    /// To `LogTargets`; and why no more lines will be written, when that is so.
    LogTargets(Vec<LogTarget>, Option<String>),
    /// To `History`.
    History(Vec<JobVersion>),
    /// To `Deploy` and `Rollback`.
    Deploy(Box<DeployReply>),
    /// To `ComponentUse`: every component that a job version or a row names, and the versions, as `job@version`.
    ComponentUse(BTreeMap<Digest, Vec<String>>),
    /// To `StdinUse`.
    StdinUse(BTreeSet<Digest>),
    /// To `Launch`, `Run` and `CancelRun`.
    Run(Box<Run>),
    /// To `Launch` with a key that named this run before: nothing was launched.
    LaunchedBefore(Box<Run>),
    /// To `Runs`.
    Runs(Page<Run>),
    /// To `OutputCall::OfRun`.
    TaskOutputs(Vec<TaskOutput>),
    /// To `OutputCall::Lacking`.
    OutputTargets(Vec<OutputTarget>),
    /// To `OutputCall::Sweep`.
    OutputsSwept(OutputsSwept),
    /// To `OutputCall::Unnamed`: those of them that nothing names.
    OutputDigests(BTreeSet<Digest>),
    /// To `OutputCall::Totals`.
    OutputTotals(crate::store::OutputTotals),
    /// To `CreateSchedule`, `PauseSchedule` and `ResumeSchedule`, and to `DeleteSchedule` as it was.
    Schedule(Box<Schedule>),
    /// To `Schedule`.
    ScheduleDetail(Box<ScheduleDetail>),
    /// To `Schedules`.
    Schedules(Page<Schedule>),
    /// To `Ticks`.
    Ticks(Page<ScheduleTick>),
    /// To `CreateToken`, and to what is only told.
    Done,
    /// To a join.
    Joined(Joined),
    /// To `Pull`: whether the node may.
    Pull(bool),
}

/// One execution whose log may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// Its node.
    pub node: NodeName,
    /// It.
    pub execution: ExecutionId,
    /// The node's session, when it has one.
    pub conn: Option<ConnId>,
}

pub(in crate::core) type Called = Result<Reply, ErrorBody>;
