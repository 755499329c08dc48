//! What `sluice` shows of the API's objects, as plain text: for programs that have an object and no orchestrator to ask.

use sluice_api::{JobDetail, JobVersion, Rollout};

use crate::render::{self, Style};

const PLAIN: Style = Style {
    terminal: false,
    color: false,
};

/// `sluice rollout status JOB`.
pub fn rollout_status(rollout: &Rollout) -> String {
    render::rollout(PLAIN, rollout)
}

/// `sluice job history JOB`.
pub fn job_history(versions: &[JobVersion]) -> String {
    render::versions(PLAIN, versions)
}

/// `sluice job describe JOB`.
pub fn job_describe(detail: &JobDetail) -> String {
    render::job_detail(PLAIN, detail)
}
