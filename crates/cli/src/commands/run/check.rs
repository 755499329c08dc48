//! What can be said of a launch before its stdin is uploaded. The launch itself decides, and says the rest: here it is only
//! about not sending up to 256 MiB for a name that is wrong.

use std::collections::BTreeSet;

use sluice_api::{JobDetail, JobKind, NodeDetail, RunLaunch, routes};
use sluice_model::pipeline;

use crate::client::Client;
use crate::failure::{Exit, Failure};

/// Fails where the launch would be refused: an unknown job or node, a job that is no batch or stopped, parameters, and
/// jobs of which none reads stdin.
pub(super) async fn check(client: &Client, launch: &RunLaunch) -> Result<(), Failure> {
    let mut jobs: Vec<JobDetail> = Vec::new();
    for name in launch.jobs.iter().collect::<BTreeSet<_>>() {
        let path = routes::fill(routes::JOB, &[name.as_str()]);
        jobs.push(client.get(&path).await?);
    }
    for name in launch.nodes.iter().collect::<BTreeSet<_>>() {
        let path = routes::fill(routes::NODE, &[name.as_str()]);
        client.get::<NodeDetail>(&path).await?;
    }
    judge(&jobs, launch)
}

fn judge(jobs: &[JobDetail], launch: &RunLaunch) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    let mut declared = BTreeSet::new();
    let mut reads_stdin = false;
    for detail in jobs {
        let name = &detail.job.name;
        if detail.job.kind != JobKind::Batch {
            let message = format!("{name} is no batch job: it runs as long as it is deployed");
            return Err(Failure::new(Exit::Failed, message)
                .with_help("write `kind = \"batch\"` in its pipeline and deploy it"));
        }
        if detail.job.stopped {
            return Err(Failure::new(Exit::Failed, format!("{name} is stopped"))
                .with_help(format!("`sluice job start {name}` starts it again")));
        }
        // What a newer orchestrator took may hold what this program does not know.
        let Ok(pipeline) = pipeline::parse(&detail.pipeline) else {
            return Ok(());
        };
        reads_stdin |= pipeline.reads_stdin();
        if let Some(batch) = pipeline.batch {
            if let Err(problems) = batch.resolve(name.as_str(), &launch.params) {
                wrong.extend(problems.iter().map(ToString::to_string));
            }
            declared.extend(batch.params.into_keys());
        }
    }
    let unknown = launch.params.keys().filter(|it| !declared.contains(*it));
    wrong.extend(unknown.map(|name| format!("no job of the launch has a parameter `{name}`")));
    if !wrong.is_empty() {
        let message = "the launch has problems with its parameters; nothing was launched";
        return Err(Failure::invalid(message)
            .with_detail(wrong.join("\n"))
            .with_help("the pipeline's `[params]` declares them: `sluice job describe` shows it"));
    }
    if !reads_stdin {
        let names: Vec<&str> = jobs.iter().map(|it| it.job.name.as_str()).collect();
        let names = names.join(", ");
        let message = format!("the launch brings stdin, and nothing of it reads that: {names}");
        return Err(Failure::invalid(message)
            .with_help("launch it without, or give a job `[input.stdin]` and deploy it again"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_model::JobState;

    use super::*;
    use crate::render::fixtures::job_detail;

    fn batch(input: &str) -> JobDetail {
        let mut detail = job_detail();
        detail.job.kind = JobKind::Batch;
        detail.pipeline = format!(
            "name = \"field-temps\"\nkind = \"batch\"\n[params]\ntop = {{ type = \"integer\" }}\n{input}\n[output.stdout]\n"
        );
        detail
    }

    #[test]
    fn what_a_launch_would_be_refused_for_is_said_before_the_upload() {
        let launch = |params: &[(&str, &str)]| RunLaunch {
            jobs: vec!["field-temps".parse().unwrap()],
            params: params
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..RunLaunch::default()
        };
        let good = batch("[input.stdin]");
        let mut stopped = good.clone();
        stopped.job.stopped = true;
        stopped.job.state = JobState::Stopped;
        let file = batch("[input.file]\npath = \"a\"");
        let mut newer = good.clone();
        newer.pipeline.push_str("[of-tomorrow]\n");
        let alone = std::slice::from_ref(&good);
        assert_eq!(judge(alone, &launch(&[("top", "3")])), Ok(()));
        assert_eq!(
            judge(&[file.clone(), good.clone()], &launch(&[("top", "3")])),
            Ok(())
        );
        assert_eq!(judge(&[newer], &launch(&[])), Ok(()));
        for (jobs, params, exit, says) in [
            (vec![job_detail()], &[][..], Exit::Failed, "is no batch job"),
            (vec![stopped], &[("top", "3")], Exit::Failed, "is stopped"),
            (vec![good.clone()], &[], Exit::Invalid, "`--param top=...`"),
            (
                vec![good.clone()],
                &[("top", "3"), ("tip", "3")],
                Exit::Invalid,
                "has a parameter `tip`",
            ),
            (vec![good], &[("top", "x")], Exit::Invalid, "`x` is not"),
            (vec![file], &[("top", "3")], Exit::Invalid, "reads that"),
        ] {
            let failure = judge(&jobs, &launch(params)).unwrap_err();
            let all = format!("{}\n{:?}", failure.message, failure.detail);
            assert!(all.contains(says), "{says}: {failure:?}");
            assert_eq!(failure.exit, exit, "{says}");
            assert!(failure.help.is_some(), "{says}");
        }
    }
}
