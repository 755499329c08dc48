//! Commands that ask the orchestrator one thing and show the answer.

use sluice_api::{
    API_TOKEN_TTL_MS_DEFAULT, AuditEntry, AuditQuery, Execution, ExecutionFilter, Explain, Job,
    JobDetail, JobFilter, JobVersion, Node, NodeDetail, NodeFilter, PAGE_ITEMS_MAX, Plugin,
    PluginDetail, PluginFilter, Rollout, RolloutOrder, Status, TOKEN_TTL_MS_DEFAULT, Token,
    TokenCreate, TokenCreated, TokenFilter, routes,
};
use sluice_model::{Digest, ExecutionId, JobName, NodeName, TokenId};

use crate::args::{AuditArgs, Format, Moment, TokenCreateArgs};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::render;

pub(super) async fn status(client: &Client, out: &Out) -> Result<(), Failure> {
    let status: Status = client.get(routes::STATUS).await?;
    out.show(&status, |style| render::status(style, &status))
}

pub(super) async fn nodes(client: &Client, out: &Out, filter: &NodeFilter) -> Result<(), Failure> {
    let nodes: Vec<Node> = client.list(routes::NODES, filter, usize::MAX).await?;
    let none = if *filter == NodeFilter::default() {
        "no node has joined yet"
    } else {
        "no such node"
    };
    list(out, &nodes, none, render::nodes)
}

pub(super) async fn node(client: &Client, out: &Out, name: &NodeName) -> Result<(), Failure> {
    let detail: NodeDetail = client
        .get(&routes::fill(routes::NODE, &[name.as_str()]))
        .await?;
    out.show(&detail, |style| render::node_detail(style, &detail))
}

pub(super) async fn revoke_node(
    client: &Client,
    out: &Out,
    name: &NodeName,
) -> Result<(), Failure> {
    out.confirm(&format!(
        "Revoke {name}? Its session is cut and its work stops, until it joins again with a token made for it."
    ))?;
    let path = routes::fill(routes::NODE_REVOKE, &[name.as_str()]);
    let node: Node = client.post(&path).await?;
    out.show(&node, |_| {
        format!(
            "{name} is revoked; `sluice token create --node {name}` makes a token that lets it back in\n"
        )
    })
}

pub(super) async fn delete_node(
    client: &Client,
    out: &Out,
    name: &NodeName,
) -> Result<(), Failure> {
    out.confirm(&format!(
        "Delete {name}, with its executions and all that is known of it?"
    ))?;
    let path = routes::fill(routes::NODE, &[name.as_str()]);
    let node: Node = client.delete(&path).await?;
    out.show(&node, |_| {
        format!("{name} is deleted; should its edge call again, it is told to stop its work\n")
    })
}

pub(super) async fn jobs(client: &Client, out: &Out, filter: &JobFilter) -> Result<(), Failure> {
    let jobs: Vec<Job> = client.list(routes::JOBS, filter, usize::MAX).await?;
    let none = match filter.state {
        None => "no job is deployed",
        Some(_) => "no such job",
    };
    list(out, &jobs, none, render::jobs)
}

pub(super) async fn job(client: &Client, out: &Out, name: &JobName) -> Result<(), Failure> {
    let detail: JobDetail = client.get(&job_path(routes::JOB, name)).await?;
    out.show(&detail, |style| render::job_detail(style, &detail))
}

pub(super) async fn start_job(client: &Client, out: &Out, name: &JobName) -> Result<(), Failure> {
    let job: Job = client.post(&job_path(routes::JOB_START, name)).await?;
    out.show(&job, |_| {
        format!("{name} is started, it is {}\n", job.state)
    })
}

pub(super) async fn restart_job(client: &Client, out: &Out, name: &JobName) -> Result<(), Failure> {
    let job: Job = client.post(&job_path(routes::JOB_RESTART, name)).await?;
    out.show(&job, |_| {
        format!("{name} is restarted: the next attempt of every execution is ordered\n")
    })
}

pub(super) async fn history(client: &Client, out: &Out, name: &JobName) -> Result<(), Failure> {
    let versions: Vec<JobVersion> = client.get(&job_path(routes::JOB_HISTORY, name)).await?;
    list(out, &versions, "no version is kept", render::versions)
}

pub(super) async fn stop_job(client: &Client, out: &Out, name: &JobName) -> Result<(), Failure> {
    let job: Job = client.post(&job_path(routes::JOB_STOP, name)).await?;
    out.show(&job, |_| {
        format!("{name} is stopped; its state on the edges is kept\n")
    })
}

pub(super) async fn delete_job(client: &Client, out: &Out, name: &JobName) -> Result<(), Failure> {
    out.confirm(&format!(
        "Delete {name}, with its checkpoints, dead letters and logs on every edge?"
    ))?;
    let job: Job = client.delete(&job_path(routes::JOB, name)).await?;
    out.show(&job, |_| {
        format!("{name} is deleted; edges that are away delete its state when they return\n")
    })?;
    super::schedule::left_behind(client, out, name).await;
    Ok(())
}

pub(super) async fn rollout(
    client: &Client,
    out: &Out,
    name: &JobName,
    order: Option<RolloutOrder>,
) -> Result<(), Failure> {
    let rollout: Rollout = match order {
        None => match client.get(&job_path(routes::JOB_ROLLOUT, name)).await {
            // There is none, or there is no such job.
            Err(none) if none.exit == Exit::NotFound => {
                client
                    .get::<JobDetail>(&job_path(routes::JOB, name))
                    .await?;
                if let Some(help) = &none.help
                    && out.format == Format::Table
                {
                    out.say(help);
                }
                return out.show(&None::<Rollout>, |_| format!("{}\n", none.message));
            }
            answered => answered?,
        },
        Some(order) => {
            let parts = [name.as_str(), order.as_str()];
            let path = routes::fill(routes::JOB_ROLLOUT_ORDER, &parts);
            client.post(&path).await?
        }
    };
    out.show(&rollout, |style| render::rollout(style, &rollout))
}

pub(super) async fn executions(
    client: &Client,
    out: &Out,
    filter: &ExecutionFilter,
) -> Result<(), Failure> {
    let mut executions: Vec<Execution> =
        client.list(routes::EXECUTIONS, filter, usize::MAX).await?;
    // Each page is in order, and so are pages, but by ids.
    executions.sort_by(|a, b| (&a.job, &a.node, a.slot).cmp(&(&b.job, &b.node, b.slot)));
    list(out, &executions, "no execution", render::executions)
}

/// The path that stands for `ID` or `JOB/NODE`.
pub(super) fn execution_path(text: &str) -> Result<String, Failure> {
    let wrong = || {
        Failure::invalid(format!(
            "`{text}` is neither an execution's id nor JOB/NODE"
        ))
        .with_help("`sluice execution list` shows both")
    };
    match text.split_once('/') {
        Some((job, node)) => {
            let job: JobName = job.parse().map_err(|_| wrong())?;
            let node: NodeName = node.parse().map_err(|_| wrong())?;
            let parts = [job.as_str(), node.as_str()];
            Ok(routes::fill(routes::JOB_NODE_EXECUTION, &parts))
        }
        None => {
            let id: ExecutionId = text.parse().map_err(|_| wrong())?;
            Ok(routes::fill(routes::EXECUTION, &[&id.to_string()]))
        }
    }
}

pub(super) async fn execution(client: &Client, out: &Out, path: &str) -> Result<(), Failure> {
    let execution: Execution = client.get(path).await?;
    out.show(&execution, |_| render::execution_detail(&execution))
}

pub(super) async fn explain(client: &Client, out: &Out, name: &JobName) -> Result<(), Failure> {
    let answer: Explain = client.get(&job_path(routes::JOB_EXPLAIN, name)).await?;
    out.show(&answer, |style| render::explain(style, &answer))
}

pub(super) async fn plugins(
    client: &Client,
    out: &Out,
    filter: &PluginFilter,
) -> Result<(), Failure> {
    let plugins: Vec<Plugin> = client.list(routes::PLUGINS, filter, usize::MAX).await?;
    let none = if *filter == PluginFilter::default() {
        "no component was uploaded yet"
    } else {
        "no such component"
    };
    list(out, &plugins, none, render::plugins)
}

pub(super) async fn plugin(client: &Client, out: &Out, digest: Digest) -> Result<(), Failure> {
    let path = routes::fill(routes::PLUGIN, &[&digest.to_string()]);
    let detail: PluginDetail = client.get(&path).await?;
    out.show(&detail, |_| render::plugin_detail(&detail))
}

pub(super) async fn create_token(
    client: &Client,
    out: &Out,
    args: TokenCreateArgs,
) -> Result<(), Failure> {
    let default = match args.role {
        Some(_) => API_TOKEN_TTL_MS_DEFAULT,
        None => TOKEN_TTL_MS_DEFAULT,
    };
    let request = TokenCreate {
        ttl_ms: args.ttl.map_or(default, |ttl| {
            u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
        }),
        role: args.role,
        name: args.name,
        uses: args.uses,
        node: args.node,
        rejoin: args.rejoin,
    };
    let created: TokenCreated = client.post_json(routes::TOKENS, &request).await?;
    out.show(&created, |_| format!("{}\n", created.token))
}

pub(super) async fn tokens(
    client: &Client,
    out: &Out,
    filter: &TokenFilter,
) -> Result<(), Failure> {
    let tokens: Vec<Token> = client.list(routes::TOKENS, filter, usize::MAX).await?;
    let none = if *filter == TokenFilter::default() {
        "no token can be used"
    } else {
        "no such token"
    };
    list(out, &tokens, none, render::tokens)
}

pub(super) async fn token(client: &Client, out: &Out, id: TokenId) -> Result<(), Failure> {
    let path = routes::fill(routes::TOKEN, &[&id.to_string()]);
    let token: Token = client.get(&path).await?;
    out.show(&token, |_| render::token_detail(&token))
}

/// The newest entries of the audit log that were asked for, page by page.
pub(super) async fn audit(client: &Client, out: &Out, args: AuditArgs) -> Result<(), Failure> {
    let whole = AuditQuery {
        limit: Some(args.limit.min(PAGE_ITEMS_MAX)),
        ..AuditQuery::default()
    };
    let query = AuditQuery {
        token: args.token,
        operation: args.operation,
        outcome: args.outcome,
        since: args.since.map(Moment::time),
        until: args.until.map(Moment::time),
        ..whole.clone()
    };
    let items_max = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let entries: Vec<AuditEntry> = client.list(routes::AUDIT, &query, items_max).await?;
    let none = if query == whole {
        "nothing was changed yet"
    } else {
        "nothing of that sort"
    };
    list(out, &entries, none, render::audit)
}

pub(super) async fn revoke_token(client: &Client, out: &Out, id: TokenId) -> Result<(), Failure> {
    let path = routes::fill(routes::TOKEN, &[&id.to_string()]);
    let token: Token = client.delete(&path).await?;
    out.show(&token, |_| format!("token {id} is revoked\n"))
}

fn job_path(template: &str, name: &JobName) -> String {
    routes::fill(template, &[name.as_str()])
}

/// A list: always an array in JSON, words on standard error where a table would have no row.
fn list<T: serde::Serialize>(
    out: &Out,
    rows: &[T],
    none: &str,
    table: impl FnOnce(render::Style, &[T]) -> String,
) -> Result<(), Failure> {
    if rows.is_empty() && out.format == Format::Table {
        out.say(none);
        return Ok(());
    }
    out.show(&rows, |style| table(style, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_is_named_by_id_or_by_place() {
        assert_eq!(
            execution_path("field-temps/e1"),
            Ok("/v1/jobs/field-temps/executions/e1".to_owned())
        );
        let id = "0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11";
        assert_eq!(execution_path(id), Ok(format!("/v1/executions/{id}")));
        for wrong in ["", "field-temps", "a/b/c", "/e1", "a/", "A/b", "../e1"] {
            let failure = execution_path(wrong).expect_err(wrong);
            assert_eq!(failure.exit, Exit::Invalid);
        }
    }
}
