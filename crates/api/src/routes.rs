//! The API's paths, as templates for a router; [`fill`] makes one to ask for. What is written `[...]` is one page of a
//! list: [`crate::Page`].

/// `GET` -> the document of all these, in the OpenAPI format.
pub const OPENAPI: &str = "/v1/openapi.json";
/// `GET` -> [`crate::Status`].
pub const STATUS: &str = "/v1/status";
/// `GET`, query [`crate::NodeFilter`] -> `[`[`crate::Node`]`]`.
pub const NODES: &str = "/v1/nodes";
/// `GET` -> [`crate::NodeDetail`]; `DELETE` -> [`crate::Node`] as it was.
pub const NODE: &str = "/v1/nodes/{name}";
/// `POST` -> [`crate::Node`]: no new executions.
pub const NODE_CORDON: &str = "/v1/nodes/{name}/cordon";
/// `POST` -> [`crate::Node`]: new executions again; ends a drain.
pub const NODE_UNCORDON: &str = "/v1/nodes/{name}/uncordon";
/// `POST` -> [`crate::Node`]: no new executions, and all are stopped.
pub const NODE_DRAIN: &str = "/v1/nodes/{name}/drain";
/// `POST` [`crate::NodeLabels`] -> [`crate::Node`].
pub const NODE_LABELS: &str = "/v1/nodes/{name}/labels";
/// `POST` -> [`crate::Node`].
pub const NODE_REVOKE: &str = "/v1/nodes/{name}/revoke";
/// `GET`, query [`crate::JobFilter`] -> `[`[`crate::Job`]`]`.
pub const JOBS: &str = "/v1/jobs";
/// `GET` -> [`crate::JobDetail`]; `DELETE` -> [`crate::Job`] as it was.
pub const JOB: &str = "/v1/jobs/{name}";
/// `POST` -> [`crate::Job`].
pub const JOB_START: &str = "/v1/jobs/{name}/start";
/// `POST` -> [`crate::Job`].
pub const JOB_STOP: &str = "/v1/jobs/{name}/stop";
/// `POST` -> [`crate::Job`]: the next attempt of every execution; a stopped job is started.
pub const JOB_RESTART: &str = "/v1/jobs/{name}/restart";
/// `GET` -> `[`[`crate::JobVersion`]`]`, newest first.
pub const JOB_HISTORY: &str = "/v1/jobs/{name}/history";
/// `POST` [`crate::RollbackRequest`] -> [`crate::DeployReply`].
pub const JOB_ROLLBACK: &str = "/v1/jobs/{name}/rollback";
/// `GET` -> [`crate::Explain`].
pub const JOB_EXPLAIN: &str = "/v1/jobs/{name}/explain";
/// `GET` -> [`crate::Rollout`].
pub const JOB_ROLLOUT: &str = "/v1/jobs/{name}/rollout";
/// `POST` -> [`crate::Rollout`]; the order is that of [`crate::RolloutOrder`].
pub const JOB_ROLLOUT_ORDER: &str = "/v1/jobs/{name}/rollout/{order}";
/// `GET`, query [`crate::LogsQuery`] -> [`crate::Logs`].
pub const JOB_LOGS: &str = "/v1/jobs/{name}/logs";
/// `GET`, query [`crate::LogsQuery`] -> [`crate::LogEvent`]s, one a line, without an end.
pub const JOB_LOGS_FOLLOW: &str = "/v1/jobs/{name}/logs/follow";
/// `GET` -> [`crate::Execution`], of a job's name and a node's name.
pub const JOB_NODE_EXECUTION: &str = "/v1/jobs/{name}/executions/{node}";
/// `GET`, query [`crate::ExecutionFilter`] -> `[`[`crate::Execution`]`]`.
pub const EXECUTIONS: &str = "/v1/executions";
/// `GET` -> [`crate::Execution`].
pub const EXECUTION: &str = "/v1/executions/{id}";
/// `GET`, query [`crate::RunFilter`] -> `[`[`crate::Run`]`]`, newest first; `POST` [`crate::RunLaunch`] -> [`crate::Run`],
/// with status 201, also when an `Idempotency-Key` named it before. A key is the same for all tokens; it holds as long as its
/// run is kept, and for a day after the launch at least, when a run that is not kept any more is a conflict that names it.
pub const RUNS: &str = "/v1/runs";
/// `GET` -> [`crate::Run`].
pub const RUN: &str = "/v1/runs/{id}";
/// `POST` -> [`crate::Run`]: what waits ends, what runs is stopped.
pub const RUN_CANCEL: &str = "/v1/runs/{id}/cancel";
/// `GET` -> `[`[`crate::TaskOutput`]`]`, in the order of the run's tasks.
pub const RUN_OUTPUT: &str = "/v1/runs/{id}/output";
/// `GET` -> the raw bytes of one task's output, with its digest as `ETag`; `conflict` while it is not there yet,
/// `not-found` when it will not be.
pub const RUN_TASK_OUTPUT: &str = "/v1/runs/{id}/output/{job}/{node}";
/// As [`JOB_LOGS`], of the executions of a run's tasks.
pub const RUN_LOGS: &str = "/v1/runs/{id}/logs";
/// As [`JOB_LOGS_FOLLOW`], of the executions of a run's tasks; ends when the run has.
pub const RUN_LOGS_FOLLOW: &str = "/v1/runs/{id}/logs/follow";
/// `GET`, query [`crate::ScheduleFilter`] -> `[`[`crate::Schedule`]`]`, by name; `POST` [`crate::ScheduleCreate`] ->
/// [`crate::Schedule`], with status 201.
pub const SCHEDULES: &str = "/v1/schedules";
/// `GET` -> [`crate::ScheduleDetail`]; `DELETE` -> [`crate::Schedule`] as it was.
pub const SCHEDULE: &str = "/v1/schedules/{name}";
/// `POST` -> [`crate::Schedule`]: no tick until it is resumed; those that wait are skipped.
pub const SCHEDULE_PAUSE: &str = "/v1/schedules/{name}/pause";
/// `POST` -> [`crate::Schedule`]: from the next tick on.
pub const SCHEDULE_RESUME: &str = "/v1/schedules/{name}/resume";
/// `GET`, query [`crate::TickQuery`] -> `[`[`crate::ScheduleTick`]`]`, newest first.
pub const SCHEDULE_HISTORY: &str = "/v1/schedules/{name}/history";
/// `GET`, query [`crate::EventFilter`] -> server-sent events without an end: each has the kind as its type and an
/// [`crate::Event`] as its data; `Last-Event-ID` goes on behind an earlier one.
pub const EVENTS: &str = "/v1/events";
/// `POST` [`crate::DeployRequest`] -> [`crate::DeployReply`].
pub const DEPLOY: &str = "/v1/deploy";
/// `GET`, query [`crate::TokenFilter`] -> `[`[`crate::Token`]`]`; `POST` [`crate::TokenCreate`] -> [`crate::TokenCreated`].
pub const TOKENS: &str = "/v1/tokens";
/// `GET` -> [`crate::Token`], one that ended too; `DELETE` -> [`crate::Token`] as it was.
pub const TOKEN: &str = "/v1/tokens/{id}";
/// `GET`, query [`crate::AuditQuery`] -> `[`[`crate::AuditEntry`]`]`, newest first.
pub const AUDIT: &str = "/v1/audit";
/// `GET`, query [`crate::PluginFilter`] -> `[`[`crate::Plugin`]`]`.
pub const PLUGINS: &str = "/v1/plugins";
/// `GET` -> [`crate::PluginDetail`]; the digest as `sha256:...`.
pub const PLUGIN: &str = "/v1/plugins/{digest}";
/// `POST` [`crate::MissingArtifacts`] -> [`crate::MissingReply`].
pub const ARTIFACTS_MISSING: &str = "/v1/artifacts/missing";
/// `PUT` raw bytes -> [`crate::ArtifactInfo`]; the digest as `sha256:...`.
pub const ARTIFACT: &str = "/v1/artifacts/{digest}";

/// `PUT` raw bytes, at most [`sluice_model::STDIN_BYTES_MAX`] -> [`crate::StdinInfo`]; the digest as `sha256:...`. What no
/// open run names is forgotten after an hour.
pub const STDIN: &str = "/v1/stdin/{digest}";

/// `template` with its `{...}` parts replaced, in order. What is not a letter, digit or one of `-_.:` is
/// percent-encoded, so that a name can never become another path.
pub fn fill(template: &str, parts: &[&str]) -> String {
    let mut out = String::with_capacity(template.len() + 64);
    let mut parts = parts.iter();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        for &byte in parts.next().copied().unwrap_or_default().as_bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_never_leave_their_place() {
        assert_eq!(fill(NODES, &[]), "/v1/nodes");
        assert_eq!(
            fill(JOB_NODE_EXECUTION, &["a", "b"]),
            "/v1/jobs/a/executions/b"
        );
        assert_eq!(fill(JOB, &["../x y?é"]), "/v1/jobs/..%2Fx%20y%3F%C3%A9");
        assert_eq!(fill(ARTIFACT, &["sha256:ab"]), "/v1/artifacts/sha256:ab");
    }
}
