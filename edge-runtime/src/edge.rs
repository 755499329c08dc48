//! Starting and stopping a whole edge.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_connectors::{AllowedCommands, AllowedPaths};
use sluice_doctor::in_one_line;
use sluice_metrics::MetricsPort;
use sluice_model::{NodeId, NodeName, World};
use sluice_state_dir::DirectoryLock;
use sluice_transport::identity::NodeIdentity;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::artifacts::Artifacts;
use crate::config::{EdgeConfig, Kept, absolute, options_gone};
use crate::control::{Clock, Control, RESERVES, Surroundings};
use crate::core::{CoreOptions, EdgeCore};
use crate::error::EdgeError;
use crate::join::{IDENTITY_FILE, join_cluster, keep};
use crate::link::{Link, unix_now};
use crate::metrics::{EdgeTally, scrape};
use crate::runner::{RunnerContext, RunnerOptions};
use crate::store::{Meta, Store, StoreError};

/// How long a shutdown may take: executions drain for at most 10 s, and then save their checkpoints.
pub const SHUTDOWN_WITHIN: Duration = Duration::from_secs(15);

/// How long the link may take to say goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(4);

/// The edge's store.
const STORE_FILE: &str = "edge.db";

/// An edge that can be started.
#[derive(Debug)]
pub enum Edge {}

impl Edge {
    /// Starts an edge on the current tokio runtime (multi-threaded): takes the directory, joins if that has not been
    /// done, loads what is on disk, starts what should run, and dials the orchestrator for ever. It does not wait for
    /// a session: a joined edge starts without an orchestrator in reach.
    pub async fn start(config: EdgeConfig) -> Result<EdgeHandle, EdgeError> {
        let state_dir = std::path::absolute(&config.state_dir)
            .map_err(|error| EdgeError::file("find", &config.state_dir, error))?;
        sluice_state_dir::make_private(&state_dir)
            .map_err(|error| EdgeError::file("make", &state_dir, error))?;
        let lock =
            DirectoryLock::take(&state_dir).map_err(|error| EdgeError::lock(&state_dir, error))?;
        let (kept, identity) = identify(&state_dir, &config).await?;

        let allowed = allowed_paths(&state_dir, &kept)?;
        let runner = RunnerContext::open(RunnerOptions {
            cache_dir: state_dir.join("compiled"),
            allowed,
            commands: kept.commands.clone(),
            console: config.console.clone(),
            hostname: crate::hostname(),
        })?;
        let artifacts = Artifacts::open(&state_dir)?;

        let node = identity.facts().node;
        let clock = Clock::start();
        let options = CoreOptions {
            boot_nonce: random()?,
            seed: random()?,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            labels: kept.labels.clone(),
            capabilities: capabilities(&kept.commands),
            node: Some((node, kept.name.clone())),
        };
        let (core, first) = with_room(&state_dir, || {
            let store = Store::open(&state_dir.join(STORE_FILE))?;
            EdgeCore::open(store, options.clone(), clock.now())
        })?;
        let time_floor = core.meta().server_time;
        let tally = Arc::new(EdgeTally::default());
        let around = Surroundings {
            runtime: tokio::runtime::Handle::current(),
            runner,
            artifacts,
            state_dir: state_dir.clone(),
            node: kept.name.clone(),
            labels: kept.labels,
            tally: Arc::clone(&tally),
        };
        let (control, ended) =
            Control::spawn(core, first, clock, around).map_err(|source| EdgeError::Machine {
                what: "start a thread",
                source,
            })?;
        let stop = CancellationToken::new();
        if let Some(address) = kept.metrics {
            let (control, node) = (control.clone(), kept.name.clone());
            let look = move || scrape(control.clone(), Arc::clone(&tally), node.clone());
            // Ends with the token, which goes with the handle.
            let ended = stop.clone();
            tokio::spawn(async move {
                let opened = ended
                    .run_until_cancelled(MetricsPort::open_when_possible(address))
                    .await;
                if let Some(port) = opened {
                    port.serve(look, ended).await;
                }
            });
        }
        let link = Link {
            control: control.clone(),
            identity,
            addresses: kept.orchestrator,
            time_floor,
            state_dir,
            stop: stop.clone(),
        };
        Ok(EdgeHandle {
            node,
            name: kept.name,
            control,
            parts: Parts {
                control: Some(ended),
                link: Some(tokio::spawn(link.run())),
            },
            stop: stop.drop_guard(),
            _lock: lock,
        })
    }
}

/// A running edge. Dropping it ends it as a crash would.
pub struct EdgeHandle {
    node: NodeId,
    name: NodeName,
    control: Control,
    parts: Parts,
    stop: DropGuard,
    _lock: DirectoryLock,
}

/// What an edge consists of, each until its end was heard of.
struct Parts {
    control: Option<oneshot::Receiver<Result<(), EdgeError>>>,
    link: Option<JoinHandle<Result<(), EdgeError>>>,
}

impl Parts {
    /// Waits until one of them ends by itself.
    async fn ended(&mut self) -> Result<(), EdgeError> {
        let link_failed = async {
            let ended = match &mut self.link {
                Some(link) => link.await,
                None => std::future::pending().await,
            };
            self.link = None;
            match ended {
                Ok(Err(error)) => error,
                Err(_) => EdgeError::Broken,
                // It ends by itself only when the control thread is gone, which says why.
                Ok(Ok(())) => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = control_ended(&mut self.control) => ended,
            error = link_failed => Err(error),
        }
    }
}

/// How the control thread ended; nothing is wrong with what was told before.
async fn control_ended(
    control: &mut Option<oneshot::Receiver<Result<(), EdgeError>>>,
) -> Result<(), EdgeError> {
    let Some(ended) = control else { return Ok(()) };
    let how = ended.await.unwrap_or(Err(EdgeError::Broken));
    *control = None;
    how
}

impl EdgeHandle {
    /// This edge's node id.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// This edge's name, as it joined.
    pub fn node_name(&self) -> &NodeName {
        &self.name
    }

    /// Waits until the edge ends by itself, which it does only when it cannot go on.
    pub async fn wait(&mut self) -> Result<(), EdgeError> {
        self.parts.ended().await
    }

    /// Stops in steps: nothing new is started, what runs drains and saves its state within `within`, the session is
    /// closed, and what is left is cut. May follow [`Self::wait`]: what that told is not told again.
    pub async fn shutdown(self, within: Duration) -> Result<(), EdgeError> {
        tracing::info!(event = "edge.stopping", node = %self.name, "what runs drains");
        let Parts { mut control, link } = self.parts;
        let ending = async {
            self.control.stop(within).await;
            control_ended(&mut control).await
        };
        // Its own deadline is `within`; one that hangs on its disk is not waited for.
        let ended = tokio::time::timeout(within + GOODBYE_WITHIN, ending).await;
        if ended.is_err() {
            tracing::warn!(event = "edge.cut", node = %self.name, "the control thread did not end in time and is cut");
        }
        drop(self.stop);
        if let Some(mut link) = link
            && tokio::time::timeout(GOODBYE_WITHIN, &mut link)
                .await
                .is_err()
        {
            link.abort();
        }
        ended.unwrap_or_else(|late| {
            Err(EdgeError::Machine {
                what: "finish what it writes to its disk",
                source: std::io::Error::new(std::io::ErrorKind::TimedOut, late),
            })
        })
    }
}

impl std::fmt::Debug for EdgeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeHandle")
            .field("node", &self.node)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Who this edge is: from its directory, or by joining.
async fn identify(
    state_dir: &Path,
    config: &EdgeConfig,
) -> Result<(Kept, NodeIdentity), EdgeError> {
    if let Some(identity) = NodeIdentity::load(&state_dir.join(IDENTITY_FILE))? {
        let Some(kept) = Kept::load(state_dir)? else {
            let name = facts_kept(state_dir).node.map(|(_, name)| name);
            let mend = options_gone(state_dir, name.as_ref());
            return Err(EdgeError::Usage {
                problem: format!("edge.toml is not there, and this edge has joined: {mend}"),
            });
        };
        let current = kept.clone().with(config)?;
        if current != kept {
            current.save(state_dir)?;
        }
        let Some(token) = &config.join else {
            return Ok((current, identity));
        };
        let Some(why) = needs_to_join_again(state_dir, &identity) else {
            tracing::info!(
                event = "edge.join_ignored",
                node = %current.name,
                "this directory has joined already, so --join is not used"
            );
            return Ok((current, identity));
        };
        tracing::info!(event = "edge.join_again", node = %current.name, why);
        return match join_as(state_dir, token, current.clone(), Before::Joined).await {
            Ok(joined) => Ok(joined),
            Err(error) => {
                // A joined edge starts without an orchestrator in reach, and a used token may stand in a unit file.
                let error = in_one_line(&error);
                tracing::error!(event = "edge.join_failed", node = %current.name, error);
                Ok((current, identity))
            }
        };
    }
    let Some(token) = &config.join else {
        let path = state_dir.to_owned();
        return Err(EdgeError::NotJoined { path });
    };
    let Some(name) = &config.name else {
        let problem = "the first start needs --name NAME, the node's name in the cluster";
        return Err(EdgeError::Usage {
            problem: problem.to_owned(),
        });
    };
    let allow_paths = absolute(&config.allow_paths)?;
    let kept = Kept {
        name: name.clone(),
        orchestrator: Vec::new(),
        allow_paths,
        labels: config.labels.clone(),
        metrics: config.metrics,
        commands: config.commands.clone(),
    };
    join_as(state_dir, token, kept, Before::New).await
}

/// What a directory was before it joined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    New,
    Joined,
}

/// Joins, and keeps what that gives. A store that is there already must be this node's, unless the node that it was
/// exists no more: then the store is put aside.
async fn join_as(
    state_dir: &Path,
    token: &str,
    mut kept: Kept,
    before: Before,
) -> Result<(Kept, NodeIdentity), EdgeError> {
    let joined = join_cluster(state_dir, token, &kept.name, &kept.labels).await?;
    let node = joined.identity.facts().node;
    if let Some((known, name)) = facts_kept(state_dir).node
        && known != node
    {
        if before == Before::New {
            let node = format!("{name} ({known})");
            return Err(StoreError::OtherNode { node }.into());
        }
        put_store_aside(state_dir, known)?;
    }
    kept.orchestrator.clone_from(&joined.addresses);
    kept.save(state_dir)?;
    keep(state_dir, &joined)?;
    tracing::info!(event = "edge.joined", node = %joined.identity.facts().node, name = %kept.name);
    Ok((kept, joined.identity))
}

/// A deleted node that joins again is another node: what the old one had stays in the directory under another name.
fn put_store_aside(state_dir: &Path, node: NodeId) -> Result<(), EdgeError> {
    for suffix in ["-wal", "-shm", ""] {
        let from = state_dir.join(format!("{STORE_FILE}{suffix}"));
        let to = state_dir.join(format!("{STORE_FILE}.{node}{suffix}"));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            done => done.map_err(|error| EdgeError::file("put aside", &from, error))?,
        }
    }
    let kept = format!("{STORE_FILE}.{node}");
    tracing::warn!(
        event = "edge.store_aside",
        store = kept,
        reason = "this machine is another node now; the old one's checkpoints and logs stay in executions/"
    );
    Ok(())
}

/// Why this identity is of no use any more, if so. Joining again makes a fresh key and leaves the store as it is.
fn needs_to_join_again(state_dir: &Path, identity: &NodeIdentity) -> Option<String> {
    let meta = facts_kept(state_dir);
    let now = unix_now().max(meta.server_time);
    if identity.facts().is_expired(now) {
        return Some("its certificate has expired".to_owned());
    }
    meta.suspended
}

/// The small facts of a store, if there is one; what is wrong with it is said when it is opened for good.
fn facts_kept(state_dir: &Path) -> Meta {
    let path = state_dir.join(STORE_FILE);
    if !path.exists() {
        return Meta::default();
    }
    Store::open(&path)
        .and_then(|mut store| store.meta())
        .unwrap_or_default()
}

/// Opens the store. A start on a full disk gives up the reserves and tries once more: what the edge has must run.
fn with_room<T>(
    state_dir: &Path,
    mut open: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match open() {
        Err(error) if error.is_full() => {
            tracing::warn!(event = "store.trouble", %error, "the reserves are given up");
            for name in RESERVES {
                // Gone already, or not to be had: the second try tells.
                let _ = std::fs::remove_file(state_dir.join(name));
            }
            open()
        }
        done => done,
    }
}

fn allowed_paths(state_dir: &Path, kept: &Kept) -> Result<AllowedPaths, EdgeError> {
    let mut directories = kept.allow_paths.clone();
    if directories.is_empty() {
        let files = state_dir.join("files");
        std::fs::create_dir_all(&files).map_err(|error| EdgeError::file("make", &files, error))?;
        directories.push(files);
    }
    AllowedPaths::new(directories.clone()).map_err(|source| {
        let path = directories.iter().find(|path| !path.is_dir());
        let path = path.or(directories.first()).cloned().unwrap_or_default();
        EdgeError::file("allow (--allow-path)", path, source)
    })
}

/// What this program can run, as Hello tells it.
fn capabilities(commands: &AllowedCommands) -> Vec<String> {
    let connectors = [
        "input.generate",
        "input.file",
        "input.exec",
        "input.stdin",
        "output.stdout",
        "output.file",
        "output.discard",
    ];
    let mut all: Vec<String> = connectors
        .iter()
        .map(|it| format!("connector:{it}"))
        .collect();
    all.extend(commands.iter().map(|(name, _)| format!("command:{name}")));
    for world in [World::Transform, World::Report] {
        all.push(world.capability().to_owned());
    }
    all.push(format!("arch:{}", std::env::consts::ARCH));
    all
}

fn random<const N: usize>() -> Result<[u8; N], EdgeError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| EdgeError::Machine {
        what: "draw random numbers",
        source: std::io::Error::other(error),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_model::UnixMs;
    use sluice_transport::identity::{ClusterAuthority, NodeKey, VerifiedKey};

    use super::*;

    fn joined(state_dir: &Path, life: Duration) -> NodeIdentity {
        let now = UnixMs(unix_now().0 - 3_600_000);
        let authority = ClusterAuthority::load_or_create(&state_dir.join("ca.pem"), now).unwrap();
        let key = NodeKey::generate().unwrap();
        let verified = VerifiedKey::from_csr(&key.csr().unwrap()).unwrap();
        let node = NodeId::from_random([3; 16]);
        let issued = authority.issue_node(node, &verified, now, life).unwrap();
        let der = authority.certificate_der().to_vec();
        NodeIdentity::new(key, issued.der, der).unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_expired_or_a_revoked_identity_joins_again_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let good = joined(path, HOUR * 48);
        assert_eq!(needs_to_join_again(path, &good), None);
        assert!(!path.join(STORE_FILE).exists(), "looking makes no store");
        let expired = joined(path, HOUR / 2);
        let why = needs_to_join_again(path, &expired).unwrap();
        assert!(why.contains("expired"), "{why}");
        let mut store = Store::open(&path.join(STORE_FILE)).unwrap();
        let revoked = Meta {
            suspended: Some("revoked: stolen".to_owned()),
            ..Meta::default()
        };
        store.put_meta(&Meta::default(), &revoked).unwrap();
        drop(store);
        let why = needs_to_join_again(path, &good).unwrap();
        assert_eq!(why, "revoked: stolen");
    }

    #[tokio::test]
    async fn an_edge_that_cannot_join_again_goes_on_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let expired = joined(path, HOUR / 2);
        expired.save(&path.join(IDENTITY_FILE)).unwrap();
        let kept = Kept {
            name: "e1".parse().unwrap(),
            orchestrator: vec!["127.0.0.1:1".parse().unwrap()],
            allow_paths: Vec::new(),
            labels: sluice_model::Labels::new(),
            metrics: None,
            commands: AllowedCommands::default(),
        };
        kept.save(path).unwrap();
        let mut config = EdgeConfig::new(path);
        config.join = Some("no token at all".to_owned());
        let (current, identity) = identify(path, &config).await.unwrap();
        assert_eq!(current, kept);
        assert_eq!(identity.facts(), expired.facts());
    }

    #[tokio::test]
    async fn each_part_of_an_edge_is_heard_of_once() {
        let (end, control) = oneshot::channel();
        let mut parts = Parts {
            control: Some(control),
            link: Some(tokio::spawn(async { Err(EdgeError::Broken) })),
        };
        assert!(matches!(parts.ended().await, Err(EdgeError::Broken)));
        assert!(parts.link.is_none(), "nobody waits for it again");
        end.send(Err(EdgeError::Broken)).unwrap();
        assert!(matches!(parts.ended().await, Err(EdgeError::Broken)));
        assert!(control_ended(&mut parts.control).await.is_ok());
    }

    #[test]
    fn a_start_on_a_full_disk_gives_up_the_reserves_and_tries_once_more() {
        let directory = tempfile::tempdir().unwrap();
        let reserves = RESERVES.map(|name| directory.path().join(name));
        for reserve in &reserves {
            std::fs::write(reserve, b"kept free").unwrap();
        }
        let full = || reserves.iter().any(|reserve| reserve.exists());
        let opened = with_room(directory.path(), || match full() {
            true => Err(StoreError::Full),
            false => Ok(7),
        });
        assert_eq!(opened.unwrap(), 7);
        let mut tries = 0;
        let opened = with_room(directory.path(), || {
            tries += 1;
            Err::<(), _>(StoreError::Full)
        });
        assert!(opened.unwrap_err().is_full());
        assert_eq!(tries, 2, "a disk that stays full is no reason to spin");
    }
}
