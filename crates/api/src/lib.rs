//! The HTTP API's JSON types and paths, shared by the orchestrator and the `sluice` program. No IO.
//!
//! Field names are stable: programs outside this project read them, from the API and from `sluice --output json`, which
//! prints the same objects. A list is one array, in pages (see [`Page`]), times are RFC 3339 in UTC, counts are integers. A
//! field may be added, none is renamed; readers ignore what they do not know.

mod artifact;
mod audit;
mod context;
mod deploy;
mod error;
mod event;
mod execution;
mod explain;
mod job;
mod logs;
mod node;
mod number;
mod output;
mod page;
mod rollout;
pub mod routes;
mod run;
mod schedule;
mod status;
mod token;

pub use artifact::{
    ARTIFACT_BYTES_MAX, ArtifactInfo, MISSING_DIGESTS_MAX, MissingArtifacts, MissingReply, Plugin,
    PluginDetail, PluginFilter, StdinInfo,
};
pub use audit::{AUDIT_LIMIT_DEFAULT, AUDIT_NAME_CHARS_MAX, AuditEntry, AuditQuery};
pub use context::OperatorContext;
pub use deploy::{DeployOutcome, DeployReply, DeployRequest};
pub use error::{ErrorBody, ErrorCode};
pub use event::{Event, EventFilter, EventKind};
pub use execution::{Execution, ExecutionFilter, Observed, ReasonCode};
pub use explain::{Explain, ExplainNode};
pub use job::{
    Job, JobComponent, JobDetail, JobFilter, JobKind, JobVersion, RollbackRequest, Unplaced,
    VersionSource, job_etag,
};
pub use logs::{
    AbsentNode, LOG_TAIL_DEFAULT, LOG_TAIL_MAX, LogEvent, LogLevel, LogLine, Logs, LogsQuery,
};
pub use node::{Node, NodeDetail, NodeFilter, NodeLabels, NodeOrder, node_etag};
pub use output::{OutputState, TaskOutput};
pub use page::{Cursor, PAGE_ITEMS_MAX, Page, PageQuery, page_items};
pub use rollout::{
    Rollout, RolloutEvent, RolloutFailure, RolloutNodes, RolloutOrder, RolloutSummary,
};
pub use run::{
    IDEMPOTENCY_KEY_BYTES_MAX, RUN_JOBS_MAX, RUN_TASKS_MAX, Run, RunFilter, RunLaunch, RunTask,
};
pub use schedule::{
    CATCH_UP_DEFAULT, OVERLAP_DEFAULT, SCHEDULES_MAX, Schedule, ScheduleCreate, ScheduleDetail,
    ScheduleFilter, ScheduleTick, ScheduledRun, TICKS_KEPT, TICKS_SHOWN, TickQuery,
};
pub use status::{Status, WaitingTasks};
pub use token::{
    API_TOKEN_TTL_MS_DEFAULT, API_TOKEN_TTL_MS_MAX, API_TOKENS_MAX, TOKEN_NAME_BYTES_MAX,
    TOKEN_TTL_MS_DEFAULT, TOKEN_TTL_MS_MAX, Token, TokenCreate, TokenCreated, TokenFilter,
};
