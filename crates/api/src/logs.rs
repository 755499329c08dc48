//! Logs of executions, read from the edges on demand.

use serde::{Deserialize, Serialize};
use sluice_model::{ExecutionId, NodeName, StageName, UnixMs};
use utoipa::ToSchema;

/// Lines for each execution when the question names no number.
pub const LOG_TAIL_DEFAULT: u32 = 100;

/// Most lines for each execution: one answer stays within a few MiB.
pub const LOG_TAIL_MAX: u32 = 10_000;

/// Query of `GET` [`crate::routes::JOB_LOGS`] and [`crate::routes::JOB_LOGS_FOLLOW`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// Only from this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The newest lines of each execution; [`LOG_TAIL_DEFAULT`] when absent, at most [`LOG_TAIL_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 10000)]
    pub tail: Option<u32>,
    /// Only lines that are no older than this, by each edge's own clock.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::maybe_whole"
    )]
    pub age_ms_max: Option<u64>,
    /// Only lines of this stage: not the runner's own, and no records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
}

/// One line of what `GET` [`crate::routes::JOB_LOGS_FOLLOW`] answers: JSON objects, one a line, for as long as the job
/// exists. A blank line only says that the connection lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum LogEvent {
    /// A line of an execution's log. Those of one execution come in order, those of several as they arrive.
    Line(LogLine),
    /// Lines that nobody will see: the log or the reader had no room for them.
    Dropped {
        /// Where.
        node: NodeName,
        /// Of which execution.
        execution: ExecutionId,
        /// How many.
        lines: u64,
    },
    /// A node whose lines do not come now. They follow when it is back.
    Absent(AbsentNode),
    /// Lines of a node that was absent come again.
    Back {
        /// The node.
        node: NodeName,
    },
    /// Nothing follows.
    End {
        /// Why, in words.
        why: String,
    },
}

/// What the edges in reach had, and who was not in reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Logs {
    /// By time, oldest first.
    pub lines: Vec<LogLine>,
    /// Nodes whose lines are missing.
    pub absent: Vec<AbsentNode>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// The edge's clock.
    pub at: UnixMs,
    /// Where.
    pub node: NodeName,
    /// Which execution.
    pub execution: ExecutionId,
    /// How much it matters.
    pub level: LogLevel,
    /// The stage that wrote it; null for the runner itself and for records.
    pub stage: Option<StageName>,
    /// The line.
    pub message: String,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A record that `[output.stdout]` wrote; not a message at all.
    Record,
    /// For authors of plugins.
    Debug,
    /// Something was given up or dropped.
    Warn,
    /// The execution ended or will end.
    Error,
    /// Worth knowing; what an unknown level reads as.
    #[serde(other)]
    Info,
}

impl LogLevel {
    /// The fixed spelling, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Reads the spelling; an unknown one is `info`.
    pub fn from_text(text: &str) -> Self {
        match text {
            "record" => Self::Record,
            "debug" => Self::Debug,
            "warn" => Self::Warn,
            "error" => Self::Error,
            _ => Self::Info,
        }
    }
}

/// A node whose log could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AbsentNode {
    /// The node.
    pub node: NodeName,
    /// Why, in words.
    pub why: String,
}
