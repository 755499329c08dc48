//! What `sluice doctor` and `sluice-edge --doctor` look at on an edge's state directory. Reads only, and opens a
//! connection on which nothing is said; works whether the edge runs or not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_doctor::{
    Finding, Late, StoreCopy, clock, directory, disk, in_one_line, private, store,
};
use sluice_model::UnixMs;
use sluice_transport::identity::NodeIdentity;
use sluice_transport::{Client, Timing};

use crate::config::{Kept, options_gone};
use crate::join::IDENTITY_FILE;
use crate::link::unix_now;
use crate::renewal::due_in;
use crate::store::{FORMAT, Meta, read_facts};

/// The way out of a store that cannot be used.
const REJOIN: &str = "stop the edge, move edge.db and what begins with that name elsewhere, and start it with a token \
                      of `sluice token create --node NAME`: it comes back to its work";

/// Whether a directory is an edge's.
pub fn is_here(dir: &Path) -> bool {
    let files = [IDENTITY_FILE, "edge.toml", "edge.db"];
    files.iter().any(|name| dir.join(name).exists())
}

/// Everything that can be said of an edge's directory. Takes as long as the orchestrator needs to answer, some seconds
/// at most.
pub async fn examine(dir: PathBuf) -> Vec<Finding> {
    let looked = tokio::task::spawn_blocking(move || look(&dir)).await;
    let Ok(Looked {
        mut findings,
        kept,
        identity,
        meta,
    }) = looked
    else {
        let mend = "report it with what is in the directory";
        return vec![Finding::fail(
            "doctor",
            "looking crashed; this is a bug",
            mend,
        )];
    };
    if let (Some(kept), Some(identity)) = (kept, identity) {
        findings.push(reach(&kept, &identity, meta.server_time).await);
    }
    findings
}

struct Looked {
    findings: Vec<Finding>,
    kept: Option<Kept>,
    identity: Option<NodeIdentity>,
    meta: Meta,
}

fn look(dir: &Path) -> Looked {
    let mut looked = Looked {
        findings: vec![directory(dir)],
        kept: None,
        identity: None,
        meta: Meta::default(),
    };
    if !dir.is_dir() {
        return looked;
    }
    looked.findings.extend(disk(dir));
    let (finding, copy) = store(
        dir,
        "edge.db",
        i64::try_from(FORMAT).unwrap_or(i64::MAX),
        REJOIN,
    );
    looked.findings.push(finding);
    if let Some(StoreCopy { connection, .. }) = &copy {
        match read_facts(connection) {
            Ok(meta) => looked.meta = meta,
            Err(error) => {
                let seen = format!("edge.db is not an edge's store: {error}");
                looked.findings.push(Finding::fail("store", seen, REJOIN));
            }
        }
    }
    let path = dir.join(IDENTITY_FILE);
    looked.identity = match NodeIdentity::load(&path) {
        Ok(identity) => identity,
        Err(error) => {
            let mend = "start it with a token of `sluice token create --node NAME` after removing identity.pem: \
                        it comes back to its work with a new key";
            let seen = in_one_line(&error);
            looked
                .findings
                .push(Finding::fail("certificate", seen, mend));
            None
        }
    };
    looked.findings.push(clock_of(dir, &looked));
    looked.findings.extend(private("certificate", &path));
    if let Some(identity) = &looked.identity {
        let finding = certificate(identity, looked.meta.server_time);
        looked.findings.push(finding);
    } else if !path.exists() {
        let mend = "start it once with --name NAME --join TOKEN (`sluice token create` makes one)";
        let seen = format!("{} is not there, this edge has not joined", path.display());
        looked
            .findings
            .push(Finding::fail("certificate", seen, mend));
    }
    if let Some(why) = &looked.meta.suspended {
        let mend =
            "start it with a token of `sluice token create --node NAME`, if it should come back";
        let seen = format!("the orchestrator keeps it out: {why}");
        looked.findings.push(Finding::fail("standing", seen, mend));
    }
    match Kept::load(dir) {
        Ok(Some(kept)) => {
            looked.findings.push(paths(dir, &kept));
            looked.kept = Some(kept);
        }
        Ok(None) => {
            let seen = "edge.toml is not there";
            let mend = if looked.identity.is_some() {
                let name = looked.meta.node.as_ref().map(|(_, name)| name);
                options_gone(dir, name)
            } else {
                "start it once with --name NAME --join TOKEN: that writes it".to_owned()
            };
            looked.findings.push(Finding::fail("options", seen, mend));
        }
        Err(error) => {
            let mend = "correct that line; the edge must be stopped meanwhile";
            let seen = in_one_line(&error);
            looked.findings.push(Finding::fail("options", seen, mend));
        }
    }
    looked
}

fn clock_of(dir: &Path, looked: &Looked) -> Finding {
    let since = |at: UnixMs| Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    let mut times = Vec::new();
    if looked.meta.server_time.0 > 0 {
        times.push(Late {
            at: since(looked.meta.server_time),
            known_by: "the last time that the orchestrator told",
        });
    }
    if let Some(identity) = &looked.identity {
        times.push(Late {
            at: since(identity.facts().not_before),
            known_by: "the start of this edge's certificate",
        });
    }
    clock(&[&dir.join("edge.db"), &dir.join("edge.db-wal")], &times)
}

fn certificate(identity: &NodeIdentity, server_time: UnixMs) -> Finding {
    let check = "certificate";
    let facts = identity.facts();
    let now = unix_now().max(server_time);
    let days = |ms: i64| ms / (24 * 60 * 60 * 1000);
    if facts.is_expired(now) {
        let seen = format!(
            "it ended {} days ago; its key matches",
            days(now.0 - facts.not_after.0)
        );
        let mend = "let the edge reach its orchestrator: for a year it renews by itself; after that, start it with a \
                    token of `sluice token create --node NAME`";
        return Finding::fail(check, seen, mend);
    }
    let left = days(facts.not_after.0 - now.0);
    if due_in(facts, now).is_zero() {
        let seen = format!("it ends in {left} days, and its renewal is due; its key matches");
        let mend = "let the edge run and reach its orchestrator: it renews by itself";
        return Finding::warn(check, seen, mend);
    }
    Finding::ok(
        check,
        format!("it is good for {left} days, and its key matches"),
    )
}

fn paths(dir: &Path, kept: &Kept) -> Finding {
    let check = "allow-path";
    let files = dir.join("files");
    let allowed = match kept.allow_paths.as_slice() {
        [] => std::slice::from_ref(&files),
        allowed => allowed,
    };
    for path in allowed {
        if let Err(error) = std::fs::read_dir(path) {
            let shown = path.display();
            let mend = format!(
                "make {shown} and give it to the edge's user, or start with another --allow-path"
            );
            return Finding::fail(check, format!("{shown} cannot be used: {error}"), mend);
        }
    }
    Finding::ok(check, format!("{} directories can be used", allowed.len()))
}

async fn reach(kept: &Kept, identity: &NodeIdentity, server_time: UnixMs) -> Finding {
    let check = "orchestrator";
    let addresses = kept.orchestrator.iter().map(ToString::to_string);
    let addresses = addresses.collect::<Vec<_>>().join(", ");
    let reached = match Client::new(identity, Timing::default(), server_time) {
        Ok(client) => client
            .probe(&kept.orchestrator)
            .await
            .map_err(|error| in_one_line(&error)),
        Err(error) => Err(in_one_line(&error)),
    };
    match reached {
        Ok(took) => Finding::ok(
            check,
            format!("{addresses}: it answered in {} ms", took.as_millis()),
        ),
        Err(error) => {
            let mend = "see that the orchestrator runs, that UDP to that address is let through, and that \
                        `orchestrator` in edge.toml is right; the edge works on meanwhile";
            Finding::fail(check, format!("{addresses}: {error}"), mend)
        }
    }
}
