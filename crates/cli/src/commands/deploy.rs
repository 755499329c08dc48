//! `sluice deploy`: check here, upload what is missing, deploy, say what changed, wait if asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sluice_api::{
    DeployOutcome, DeployReply, DeployRequest, JobDetail, MissingArtifacts, MissingReply,
    RollbackRequest, routes,
};
use sluice_model::{Digest, JobName, Version};

use crate::args::{DeployArgs, Format};
use crate::client::{Client, Seen};
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::pipeline_file::{CheckError, ComponentFile, PipelineFile, check};
use crate::render;
use crate::wait;

pub(super) async fn deploy(
    args: DeployArgs,
    out: &Out,
    connect: impl AsyncFnOnce() -> Result<Client, Failure>,
) -> Result<(), Failure> {
    let file = read(args.pipeline)
        .await?
        .map_err(|error| error.into_failure(out.color_err))?;
    let client = connect().await?;
    let reply = deploy_file(&client, &file, args.dry_run, args.if_version, out).await?;
    report(out, &reply)?;
    match args.wait {
        Some(_) if file.pipeline.batch.is_some() => {
            out.say(&format!(
                "{0} is a batch job and waits for a launch: `sluice run launch {0}`",
                reply.job
            ));
            Ok(())
        }
        Some(wait) => {
            let (job, nodes) = (&reply.job, &reply.matching_nodes);
            wait::for_job(&client, out, job, reply.version, nodes, wait).await
        }
        None => Ok(()),
    }
}

/// Uploads what the orchestrator lacks of a checked file and deploys it, unless the job is not at `if_version`, or
/// changes while components are uploaded.
pub(crate) async fn deploy_file(
    client: &Client,
    file: &PipelineFile,
    dry_run: bool,
    if_version: Option<u64>,
    out: &Out,
) -> Result<DeployReply, Failure> {
    let request = DeployRequest {
        pipeline: file.text.clone(),
        plugins: file
            .plugins
            .iter()
            .filter(|plugin| plugin.file.is_some())
            .map(|plugin| (plugin.stage.clone(), plugin.digest))
            .collect(),
        dry_run,
    };
    let seen = look(client, &file.pipeline.name, if_version).await?;
    let missing = missing(client, file).await?;
    // A dry run changes nothing, so it uploads nothing; the orchestrator is told what it would get.
    if dry_run {
        for (digest, component) in &missing {
            out.say(&format!(
                "would upload {} ({}, {digest})",
                component.path.display(),
                render::size(component.bytes.len() as u64)
            ));
        }
    } else {
        upload(client, out, missing).await?;
    }
    client.post_json_if(routes::DEPLOY, &request, &seen).await
}

/// How the job is now; it must be at `if_version` where that is named.
async fn look(client: &Client, job: &JobName, if_version: Option<u64>) -> Result<Seen, Failure> {
    let path = routes::fill(routes::JOB, &[job.as_str()]);
    let (seen, version) = match client.get::<JobDetail>(&path).await {
        Ok(detail) => (Seen::Is(detail.job.etag()), detail.job.version),
        Err(failure) if failure.exit == Exit::NotFound => (Seen::Absent, Version::ZERO),
        Err(failure) => return Err(failure),
    };
    if if_version.is_some_and(|asked| asked != version.0) {
        let message = match &seen {
            Seen::Is(_) => format!("{job} is at version {version}: nothing was deployed"),
            Seen::Absent => format!("there is no job {job}: nothing was deployed"),
        };
        return Err(Failure::new(Exit::Failed, message).with_help(format!(
            "`sluice job history {job}` shows what was deployed meanwhile"
        )));
    }
    Ok(seen)
}

/// Makes a new version with an older one's content.
pub(super) async fn roll_back(
    client: &Client,
    out: &Out,
    job: &JobName,
    to: Option<u64>,
) -> Result<(), Failure> {
    let request = RollbackRequest {
        to: to.map(Version),
    };
    let path = routes::fill(routes::JOB_ROLLBACK, &[job.as_str()]);
    let reply: DeployReply = client.post_json(&path, &request).await?;
    report(out, &reply)
}

/// Reads and checks the file, away from the threads that serve the network.
async fn read(path: PathBuf) -> Result<Result<PipelineFile, CheckError>, Failure> {
    tokio::task::spawn_blocking(move || check(&path))
        .await
        .map_err(|error| {
            Failure::new(crate::failure::Exit::Failed, "the check ended early").with_detail(error)
        })
}

/// What the orchestrator lacks of the pipeline's files.
async fn missing(
    client: &Client,
    file: &PipelineFile,
) -> Result<BTreeMap<Digest, ComponentFile>, Failure> {
    let mut files: BTreeMap<_, _> = file
        .plugins
        .iter()
        .filter_map(|plugin| Some((plugin.digest, plugin.file.clone()?)))
        .collect();
    if files.is_empty() {
        return Ok(files);
    }
    let question = MissingArtifacts {
        digests: files.keys().copied().collect(),
    };
    let reply: MissingReply = client
        .post_json(routes::ARTIFACTS_MISSING, &question)
        .await?;
    let missing: BTreeSet<_> = reply.missing.into_iter().collect();
    files.retain(|digest, _| missing.contains(digest));
    Ok(files)
}

async fn upload(
    client: &Client,
    out: &Out,
    missing: BTreeMap<Digest, ComponentFile>,
) -> Result<(), Failure> {
    for (digest, component) in missing {
        let name = component.path.display().to_string();
        let size = component.bytes.len() as u64;
        let bar = out.bytes_bar(&format!("uploading {name}"), size);
        let sent = client
            .upload(digest, component.bytes.to_vec(), bar.clone())
            .await;
        bar.finish_and_clear();
        sent.map_err(|mut failure| {
            failure.message = format!("uploading {name}: {}", failure.message);
            failure
        })?;
        out.say(&format!("uploaded {name} ({})", render::size(size)));
    }
    Ok(())
}

fn report(out: &Out, reply: &DeployReply) -> Result<(), Failure> {
    if out.format == Format::Json {
        return out.json(reply);
    }
    out.text(&report_text(reply))?;
    if reply.matching_nodes.is_empty() && reply.changes.is_empty() {
        out.say("no node matches now; it starts by itself on the first that does");
    }
    Ok(())
}

fn report_text(reply: &DeployReply) -> String {
    let (job, version) = (&reply.job, reply.version);
    let (would, is) = if reply.dry_run {
        ("would be ", "would be")
    } else {
        ("", "is")
    };
    let mut text = match reply.outcome {
        DeployOutcome::Created => format!("{job} {would}created at version {version}\n"),
        DeployOutcome::Updated => format!("{job} {would}updated to version {version}\n"),
        DeployOutcome::Unchanged => {
            format!("{job} is unchanged at version {version}: this is what is deployed\n")
        }
        DeployOutcome::Started => {
            format!("{job} is unchanged at version {version}, and {is} started\n")
        }
    };
    for change in &reply.changes {
        text.push_str(&format!("  {}\n", render::clean(change)));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_model::Version;

    use super::*;

    #[test]
    fn the_report_says_what_changed() {
        let mut reply = DeployReply {
            job: "field-temps".parse().unwrap(),
            id: None,
            version: Version(3),
            outcome: DeployOutcome::Updated,
            dry_run: false,
            changes: vec!["stage `drop-debug`: config\u{1b}[2J".to_owned()],
            matching_nodes: vec!["e1".parse().unwrap(), "e2".parse().unwrap()],
            rolled_back_to: None,
        };
        assert_eq!(
            report_text(&reply),
            "field-temps updated to version 3\n  stage `drop-debug`: config\\u{1b}[2J\n"
        );
        reply.dry_run = true;
        reply.changes.clear();
        assert!(report_text(&reply).starts_with("field-temps would be updated to version 3\n"));
        reply.outcome = DeployOutcome::Started;
        assert!(report_text(&reply).contains("would be started"));
    }
}
