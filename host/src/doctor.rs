//! What `sluice doctor` looks at on an orchestrator's state directory. Reads only; works whether one runs or not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_doctor::{
    Finding, Running, StoreCopy, clock, directory, disk, in_one_line, private, running, store,
};
use sluice_model::UnixMs;
use sluice_transport::identity::ClusterAuthority;

use crate::store::{FORMAT, damages};

/// The way out of a store that cannot be used.
const RESTORE: &str = "stop the orchestrator, keep the directory, and put a backup of the whole directory in its \
                       place; edges run on meanwhile, and what the backup does not know is held for you to decide";

/// Whether a directory is an orchestrator's.
pub fn is_here(dir: &Path) -> bool {
    let files = [
        "authority.pem",
        "orchestrator.db",
        "admin.hash",
        "endpoint.keys",
    ];
    files.iter().any(|name| dir.join(name).exists())
}

/// Everything that can be said of an orchestrator's directory. Blocks for the disk.
pub fn examine(dir: &Path) -> Vec<Finding> {
    let mut findings = vec![directory(dir)];
    if !dir.is_dir() {
        return findings;
    }
    let holder = running(dir);
    findings.extend(disk(dir));
    let (finding, copy) = store(dir, "orchestrator.db", FORMAT, RESTORE);
    findings.push(finding);
    if let Some(copy) = copy {
        findings.push(content(&copy));
    }
    let database = dir.join("orchestrator.db");
    let authority = dir.join("authority.pem");
    findings.push(clock(
        &[&database, &dir.join("orchestrator.db-wal"), &authority],
        &[],
    ));
    findings.extend(private("authority", &authority));
    findings.push(authority_of(&authority));
    for name in ["endpoint.keys", "operator.toml", "admin.hash"] {
        findings.extend(private("secrets", &dir.join(name)));
    }
    findings.extend(ports(dir, &holder));
    findings
}

/// That assignments and pipelines are what their digests say: what the next start looks at, too.
fn content(copy: &StoreCopy) -> Finding {
    let check = "content";
    match damages(&copy.connection) {
        Ok(damages) if damages.is_empty() => {
            Finding::ok(check, "assignments and kept pipelines are what was written")
        }
        Ok(damages) => {
            let seen = format!("{}: the next start refuses it", damages.join("; "));
            Finding::fail(check, seen, RESTORE)
        }
        Err(error) => Finding::fail(check, in_one_line(&error), RESTORE),
    }
}

fn authority_of(path: &Path) -> Finding {
    let check = "certificate";
    let mend = "put authority.pem back from a backup: with another one, every edge must join again";
    let authority = match ClusterAuthority::load(path) {
        Ok(Some(authority)) => authority,
        Ok(None) => return Finding::fail(check, format!("{} is not there", path.display()), mend),
        Err(error) => return Finding::fail(check, in_one_line(&error), mend),
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let now = UnixMs(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    // Loading compares key and certificate; that it signs for today, issuing shows.
    match authority.issue_server(now) {
        Ok(_) => {
            let seen = format!(
                "the authority of cluster {} signs with its key",
                authority.cluster()
            );
            Finding::ok(check, seen)
        }
        Err(error) => Finding::fail(check, in_one_line(&error), mend),
    }
}

/// That the ports of the last start are open while it runs, and free while it does not.
fn ports(dir: &Path, holder: &Running) -> Vec<Finding> {
    let path = dir.join("listen.toml");
    let document = match std::fs::read_to_string(&path) {
        Ok(text) => match text.parse::<toml_edit::DocumentMut>() {
            Ok(document) => document,
            Err(error) => {
                let seen = format!("{} cannot be read: {}", path.display(), error.message());
                let mend = "remove it; with a port 0, the next start takes another, which edges do not know";
                return vec![Finding::fail("ports", seen, mend)];
            }
        },
        Err(_) => {
            let seen = "no ports are known here, it never started";
            let mend = "start it with `sluice orchestrator --state-dir DIR`";
            return vec![Finding::warn("ports", seen, mend)];
        }
    };
    let port = |key: &str| {
        let port = document.get(key)?.as_integer()?;
        u16::try_from(port).ok()
    };
    let at = |key: &str, port| {
        let ip = document.get(key).and_then(|ip| ip.as_str()?.parse().ok());
        SocketAddr::new(ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)
    };
    let mut findings = Vec::new();
    if let Some(edges) = port("edges") {
        let address = at("edges_ip", edges);
        let bound = UdpSocket::bind(address).map(drop);
        let shown = format!("UDP {address}");
        findings.push(port_finding("port-edges", &shown, bound, holder));
    }
    if let Some(api) = port("api") {
        let address = at("api_ip", api);
        let bound = TcpListener::bind(address).map(drop);
        let shown = format!("TCP {address}");
        findings.push(port_finding("port-api", &shown, bound, holder));
    }
    findings
}

fn port_finding(
    check: &'static str,
    port: &str,
    bound: io::Result<()>,
    holder: &Running,
) -> Finding {
    let free = match bound {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => false,
        Err(error) => {
            let mend = match error.kind() {
                io::ErrorKind::AddrNotAvailable => {
                    "give this machine that address, or start with --listen or --api for one that it has"
                }
                io::ErrorKind::PermissionDenied => {
                    "run this as the user that the program runs as, or choose a port from 1024 on"
                }
                _ => "start with another --listen or --api",
            };
            return Finding::fail(check, format!("{port} cannot be opened: {error}"), mend);
        }
    };
    match (holder, free) {
        (Running::Yes(who), false) => Finding::ok(check, format!("{port} is open, {who} runs")),
        (Running::No, true) => Finding::ok(check, format!("{port} is free for the next start")),
        (Running::Yes(who), true) => Finding::fail(
            check,
            format!("{who} runs, and nobody listens on {port}"),
            "look into its log, and start it again",
        ),
        (Running::No, false) => Finding::fail(
            check,
            format!("it does not run, and another program has {port}"),
            "stop that program (`ss -lntup` names it), or start with another --listen or --api",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_doctor::Verdict;

    use super::*;

    #[test]
    fn a_port_is_tried_where_it_was_and_only_one_in_use_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let api = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = api.local_addr().unwrap().port();
        let seen = |ip: &str| {
            let text = format!("api = {port}\napi_ip = \"{ip}\"\n");
            std::fs::write(dir.join("listen.toml"), text).unwrap();
            ports(dir, &Running::No).remove(0)
        };
        let taken = seen("127.0.0.1");
        assert_eq!(taken.verdict, Verdict::Fail);
        assert!(taken.seen.contains("another program has"), "{taken:?}");
        // Another address of this machine is another place.
        assert_eq!(seen("127.0.0.2").verdict, Verdict::Ok);
        // One that no machine has.
        let elsewhere = seen("192.0.2.1");
        assert_eq!(elsewhere.verdict, Verdict::Fail);
        assert!(elsewhere.seen.contains("cannot be opened"), "{elsewhere:?}");
    }
}
