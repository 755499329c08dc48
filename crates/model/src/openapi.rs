//! Schemas of the nouns for the document of the HTTP API: what their JSON looks like, so that a program can know before it
//! asks.

use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema, openapi::RefOr};

use crate::{
    Attempt, BootCounter, CatchUp, Desired, Digest, ExecutionId, ExecutionState, FailReason,
    Incarnation, JobId, JobName, JobState, NodeId, NodeName, NodeState, ObservedPhase, OnLost,
    Overlap, PendingReason, Revision, Role, RolloutPhase, RunId, RunState, ScheduleId,
    ScheduleName, Slot, StageName, TaskState, TickOutcome, TokenId, TokenKind, TokenState, UnixMs,
    Version,
};

/// Names are DNS labels.
const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
}

fn id(description: &str) -> Object {
    let format = SchemaFormat::Custom("uuid".to_owned());
    text(description).format(Some(format)).build()
}

fn name(description: &str) -> Object {
    text(description).pattern(Some(NAME_PATTERN)).build()
}

fn counter(description: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0_u64))
        .description(Some(description))
        .build()
}

fn spelled(description: &str, spellings: &[&str]) -> Object {
    text(description)
        .enum_values(Some(spellings.iter().copied()))
        .build()
}

macro_rules! schemas {
    ($($name:ident: $schema:expr;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object($schema))
            }
        }

        impl ToSchema for $name {}
    )*};
}

schemas! {
    NodeId: id("A registered edge's id.");
    JobId: id("A job's id.");
    ExecutionId: id("An execution's id.");
    TokenId: id("A token's public name.");
    RunId: id("A run's id.");
    ScheduleId: id("A schedule's id.");
    Incarnation: id("One life of an edge's store.");
    NodeName: name("A node's name.");
    JobName: name("A job's name.");
    ScheduleName: name("A schedule's name.");
    StageName: name("A stage's name.");
    Revision: counter("Counts the changes of one node's set.");
    Version: counter("Counts a job's versions, from 1.");
    Attempt: counter("Counts the tries that were ordered at one version, from 1.");
    Slot: counter("Which of several executions of one job on one node.");
    BootCounter: counter("Counts an edge store's process starts.");
    Digest: text("A sha256.").pattern(Some("^sha256:[0-9a-f]{64}$")).build();
    UnixMs: text("A time in UTC, as in RFC 3339.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .build();
}

macro_rules! spellings {
    ($($name:ident: $description:literal;)*) => {$(
        schemas! { $name: spelled($description, $name::SPELLINGS); }
    )*};
}

spellings! {
    Overlap: "What becomes of a tick while the run of an earlier one is under way.";
    TickOutcome: "What became of a tick.";
    CatchUp: "What becomes of the ticks that nobody was there for.";
    Role: "What a token may do; each role may do what those before it may.";
    TokenKind: "What a token is for: joining, or this API.";
    TokenState: "Whether a token opens anything.";
    Desired: "What an assignment orders.";
    ObservedPhase: "What an edge's runtime reports of an execution.";
    ExecutionState: "An execution's state, speaking of its desired version and attempt.";
    PendingReason: "Why an execution is pending.";
    FailReason: "Why an execution failed.";
    OnLost: "What becomes of an execution whose node is lost.";
    NodeState: "A node's state.";
    RolloutPhase: "Where a rollout stands.";
    RunState: "A run's state, derived from its tasks.";
    TaskState: "The state of one task of a run.";
    JobState: "A job's state.";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_schema_says_what_is_read() {
        let json = |schema: RefOr<Schema>| serde_json::to_value(schema).unwrap();
        let role = json(Role::schema());
        assert_eq!(
            role["enum"],
            serde_json::json!(["reader", "deployer", "admin"])
        );
        assert_eq!(json(JobName::schema())["pattern"], NAME_PATTERN);
        assert_eq!(json(Version::schema())["minimum"], 0);
        assert_eq!(json(RunId::schema())["format"], "uuid");
        assert_eq!(Digest::name(), "Digest");
    }
}
