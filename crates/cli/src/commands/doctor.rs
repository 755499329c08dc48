//! `sluice doctor`: what is wrong with a state directory, and how to mend it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sluice_doctor::{Finding, Verdict, directory};

use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::render;

/// Whose directory it is.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Orchestrator,
    Edge,
    Unknown,
}

#[derive(Serialize)]
struct Examined {
    state_dir: PathBuf,
    side: Side,
    verdict: Verdict,
    checks: Vec<Finding>,
}

/// Looks, and fails when a check did.
pub(super) async fn doctor(state_dir: PathBuf, out: &Out) -> Result<(), Failure> {
    let (side, checks) = examine(&state_dir).await?;
    let worst = checks.iter().map(|finding| finding.verdict).max();
    let examined = Examined {
        state_dir,
        side,
        verdict: worst.unwrap_or(Verdict::Ok),
        checks,
    };
    out.show(&examined, |_| render::findings(&examined.checks))?;
    let failed = examined
        .checks
        .iter()
        .filter(|it| it.verdict == Verdict::Fail)
        .count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Failed, "one check failed")),
        more => Err(Failure::new(Exit::Failed, format!("{more} checks failed"))),
    }
}

async fn examine(dir: &Path) -> Result<(Side, Vec<Finding>), Failure> {
    if sluice_edge_runtime::doctor::is_here(dir) {
        let checks = sluice_edge_runtime::doctor::examine(dir.to_owned()).await;
        return Ok((Side::Edge, checks));
    }
    let dir = dir.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        if sluice_host::doctor::is_here(&dir) {
            return (Side::Orchestrator, sluice_host::doctor::examine(&dir));
        }
        let mut checks = vec![directory(&dir)];
        if dir.is_dir() {
            let seen = "there is nothing of an orchestrator or an edge in it";
            let mend = "name the directory that the program was started with (--state-dir); of `dev`, its \
                        orchestrator/ or edge/";
            checks.push(Finding::fail("side", seen, mend));
        }
        (Side::Unknown, checks)
    });
    looked.await.map_err(|error| {
        Failure::new(Exit::Failed, "looking crashed; this is a bug").with_detail(error)
    })
}
