//! Starting and stopping an orchestrator: its state directory, its ports, its tasks.
//!
//! ```text
//!   STATE_DIR/            mode 0700
//!     lock                held while the process lives
//!     authority.pem       the cluster's key and certificate
//!     endpoint.keys       so that edges notice a restart at once
//!     orchestrator.db     the store
//!     resumption.db       TLS sessions, sealed; a cache
//!     artifacts/          components by digest
//!     outputs/            outputs of runs' tasks by digest
//!     listen.toml         the ports that were taken where 0 was asked for
//!     admin.hash          the operators' token, hashed
//!     operator.toml       endpoint, CA and token for the CLI; mode 0600
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_api::OperatorContext;
use sluice_metrics::MetricsPort;
use sluice_state_dir::{DirectoryLock, LockError};
use sluice_transport::identity::{ClusterAuthority, IdentityError};
use sluice_transport::{Address, EndpointKeys, Server, ServerError, Timing, TlsListener};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::artifacts::{ArtifactError, Artifacts};
use crate::control::{Clock, Control};
use crate::core::{Core, CoreConfig};
use crate::events;
use crate::follow::Readers;
use crate::http::{self, AdminToken, AdminTokenHash, ApiListener};
use crate::metrics::{Handshakes, Look};
use crate::operators::Operators;
use crate::outputs::pulling::Pulling;
use crate::outputs::{Outputs, OutputsConfig};
use crate::resumption;
use crate::sessions::{self, OpenSessions, Shared};
use crate::store::{SqliteStore, StoreError, TaskLimits};

/// Shortest life of a node's certificate: below it, edges are busy with renewing. For tests; a fleet wants days.
const CERTIFICATE_LIFE_MIN: Duration = Duration::from_secs(5);

/// Longest life of a node's certificate: one that nobody renews should end within the life of the machine.
const CERTIFICATE_LIFE_MAX: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Components that nothing names are looked for this often, and kept this long after their upload.
const ARTIFACTS_SWEEP: Duration = Duration::from_secs(60 * 60);

/// Shortest heartbeat: below it, a fleet is busy with saying that it lives.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);

/// Longest heartbeat: edges accept no more.
const HEARTBEAT_MAX: Duration = Duration::from_secs(60 * 60);

/// How long requests that are under way may take once no more are taken: the port itself cuts them a moment earlier.
const REQUESTS_TIMEOUT: Duration = Duration::from_secs(6);

/// How long tasks may take to end once they were told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct OrchestratorConfig {
    /// Where everything is kept. Made when it is not there.
    pub state_dir: PathBuf,
    /// Where edges connect (UDP). Port 0 takes a free one and remembers it.
    pub listen: SocketAddr,
    /// Where operators connect (TCP). Port 0 takes a free one and remembers it.
    pub api: SocketAddr,
    /// Where edges and operators are told to connect, `HOST:PORT`; empty: the listening address.
    pub advertise: Vec<Address>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// How long a node may be away before it counts as lost.
    pub lost_after: Duration,
    /// How long a node's certificate is good for, 5 s to 10 years; edges renew at two thirds of it.
    pub certificate_life: Duration,
    /// Where metrics are served, in plain HTTP; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Takes pipelines that run only in front of a person (`[input.stdin]`), too: for `dev`, whose edge is in this
    /// process.
    pub local_pipelines: bool,
    /// How many tasks of runs are active at once.
    pub limits: TaskLimits,
    /// How long outputs of runs are kept, and how much of them.
    pub outputs: OutputsConfig,
}

impl OrchestratorConfig {
    /// The defaults of the `sluice orchestrator` command.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7443)),
            api: SocketAddr::from(([127, 0, 0, 1], 7480)),
            advertise: Vec::new(),
            heartbeat: Duration::from_secs(5),
            lost_after: Duration::from_secs(600),
            certificate_life: Duration::from_secs(90 * 24 * 60 * 60),
            metrics: None,
            local_pipelines: false,
            limits: TaskLimits::default(),
            outputs: OutputsConfig::default(),
        }
    }
}

/// Why an orchestrator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the directory.
    #[error("the state directory {} is in use by {holder}; stop that one first, or choose another --state-dir", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Which, in words.
        holder: String,
    },
    /// A setting that cannot work.
    #[error("{problem}")]
    Config {
        /// What is wrong and the way out.
        problem: String,
    },
    /// A file or directory that cannot be used.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What came back.
        source: std::io::Error,
    },
    /// The store.
    #[error("opening the store in {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: StoreError,
    },
    /// The components.
    #[error("opening the artifacts")]
    Artifacts(#[from] ArtifactError),
    /// Keys and certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ports.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// What ends together.
#[derive(Clone, Debug, Default)]
struct Step {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Step {
    /// Tells them to end and waits for them.
    async fn end(&self, within: Duration, what: &str) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(within, self.tasks.wait())
            .await
            .is_err()
        {
            warn!(
                event = "orchestrator.cut",
                "some {what} did not end in time and are cut"
            );
        }
    }
}

/// Makes orchestrators.
#[derive(Debug)]
pub struct Orchestrator;

/// A running orchestrator. Dropping it leaves the tasks running; call [`Self::shutdown`].
#[derive(Debug)]
pub struct OrchestratorHandle {
    edges: SocketAddr,
    api: SocketAddr,
    addresses: Arc<[Address]>,
    context: PathBuf,
    operators: Operators,
    taking: Step,
    running: Step,
    /// Until it was heard of.
    ended: Option<oneshot::Receiver<Option<String>>>,
    /// Held until the handle goes.
    _lock: DirectoryLock,
}

impl Orchestrator {
    /// Starts on a state directory. Must be called inside a tokio runtime; returns when both ports are open.
    pub async fn start(config: OrchestratorConfig) -> Result<OrchestratorHandle, StartError> {
        check(&config)?;
        let dir = StateDir::open(&config.state_dir)?;
        let clock = Clock::start();
        let now = clock.now();
        // The first use of the random generator can be slow; better now than in the first handshake.
        let mut warm = [0; 16];
        getrandom::fill(&mut warm).map_err(|error| StartError::Config {
            problem: format!("this machine gives no random numbers ({error})"),
        })?;
        let authority = ClusterAuthority::load_or_create(&dir.file("authority.pem"), now.unix)?;
        let keys = EndpointKeys::load_or_create(&dir.file("endpoint.keys"))?;
        let identity = authority.issue_server(now.unix)?;
        let path = dir.file("orchestrator.db");
        let core =
            open_core(&path, &config, now).map_err(|source| StartError::Store { path, source })?;
        let artifacts = Artifacts::open(&dir.file("artifacts"))?;
        let path = dir.file("outputs");
        let outputs = Outputs::open(&path).map_err(|source| StartError::Io {
            doing: "make the directory",
            path,
            source,
        })?;

        let remembered = dir.remembered_ports();
        let timing = Timing::default();
        let listen = with_port(config.listen, remembered.0);
        let resumptions = resumption::open(&dir.file("resumption.db"), &keys, &timing)?;
        let server = Server::bind(listen, &identity, &keys, &timing, &resumptions)?;
        let listener = TlsListener::bind(with_port(config.api, remembered.1), &identity).await?;
        let (edges, api) = (server.local_addr(), listener.local_addr());
        dir.remember_ports(edges, api)?;
        let addresses: Arc<[Address]> = if config.advertise.is_empty() {
            [Address::from(edges)].into()
        } else {
            config.advertise.clone().into()
        };
        let token = dir.admin_token(api, &config, &authority.certificate_pem())?;

        let (tally, epoch) = (core.tally(), core.epoch());
        let (taking, running) = (Step::default(), Step::default());
        let Step { stop, tasks } = running.clone();
        let (teller, events, telling) = events::open(core.life(), clock, taking.stop.clone());
        taking.tasks.spawn(telling);
        let (control, ended) =
            Control::spawn(core, clock, teller).map_err(|source| StartError::Io {
                doing: "start a thread for",
                path: config.state_dir.clone(),
                source,
            })?;
        let open = OpenSessions::default();
        let operators = Operators {
            control: control.clone(),
            asker: None,
            artifacts: artifacts.clone(),
            outputs: outputs.clone(),
            open: open.clone(),
            authority_sha256: authority.certificate_sha256(),
            addresses: Arc::clone(&addresses),
            clock,
            readers: Readers::new(),
            events,
            stop: taking.stop.clone(),
            tasks: taking.tasks.clone(),
        };
        let pulling = Pulling {
            control: control.clone(),
            open: open.clone(),
            outputs,
            config: config.outputs,
            tally: Arc::clone(&tally),
            stop: stop.clone(),
        };
        tasks.spawn(pulling.run());
        let handshakes = Arc::new(Handshakes::default());
        let shared = Shared {
            control: control.clone(),
            artifacts: artifacts.clone(),
            authority: Arc::new(authority),
            certificate_life: config.certificate_life,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            clock,
            open,
            resumptions,
            handshakes: Arc::clone(&handshakes),
        };
        tasks.spawn(sessions::serve(server, shared, tasks.clone(), stop.clone()));
        tasks.spawn(tick(control, config.heartbeat / 2, stop.clone()));
        tasks.spawn(sweep(operators.clone(), stop.clone()));
        if let Some(address) = config.metrics {
            let look = Look {
                operators: operators.clone(),
                tally,
                handshakes,
                epoch,
            };
            let ended = stop.clone();
            tasks.spawn(async move {
                let opening = MetricsPort::open_when_possible(address);
                if let Some(port) = ended.run_until_cancelled(opening).await {
                    port.serve(move || look.clone().scrape(), ended).await;
                }
            });
        }
        let router = http::router(operators.clone(), artifacts, token);
        let serve_stop = taking.stop.clone();
        taking.tasks.spawn(async move {
            if let Err(error) = http::serve(ApiListener(listener), router, serve_stop).await {
                warn!(event = "api.failed", %error);
            }
        });
        info!(event = "orchestrator.ready", edges = %edges, api = %api);
        Ok(OrchestratorHandle {
            edges,
            api,
            addresses,
            context: dir.file("operator.toml"),
            operators,
            taking,
            running,
            ended: Some(ended),
            _lock: dir.lock,
        })
    }
}

impl OrchestratorHandle {
    /// Where edges connect (UDP).
    pub fn edge_address(&self) -> SocketAddr {
        self.edges
    }

    /// Where operators connect (TCP, HTTPS).
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where edges are told to connect.
    pub fn advertised(&self) -> &[Address] {
        &self.addresses
    }

    /// The file that operators need.
    pub fn context_file(&self) -> &Path {
        &self.context
    }

    /// The same answers as the HTTP API gives, for a program that hosts the orchestrator.
    pub fn api(&self) -> impl http::ControlApi + use<> {
        self.operators.clone()
    }

    /// Waits until the store breaks, and says how. Never returns on a healthy disk; may be dropped and called again.
    pub async fn broken(&mut self) -> String {
        let why = match &mut self.ended {
            Some(ended) => ended.await.unwrap_or_default(),
            None => None,
        };
        self.ended = None;
        why.unwrap_or_else(|| "the control thread ended".to_owned())
    }

    /// Stops in three steps, each with a deadline: takes no more requests and lets those under way end, which may need
    /// edges; closes every session; ends the store's thread. Sixteen seconds at most, and mostly none.
    pub async fn shutdown(self) {
        let Self {
            operators,
            taking,
            running,
            ended,
            ..
        } = self;
        info!(event = "orchestrator.stopping");
        taking.end(REQUESTS_TIMEOUT, "requests").await;
        running.end(STOP_TIMEOUT, "sessions and tasks").await;
        drop(operators);
        // Every handle is gone now, so the control thread ends after what it has; its last commit is on disk then.
        if let Some(ended) = ended
            && tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err()
        {
            warn!(
                event = "orchestrator.cut",
                "the control thread did not end in time and is cut"
            );
        }
        info!(event = "orchestrator.stop");
    }
}

fn check(config: &OrchestratorConfig) -> Result<(), StartError> {
    let problem = if config.heartbeat < HEARTBEAT_MIN {
        format!(
            "a heartbeat of {:?} is too short, the least is {HEARTBEAT_MIN:?}",
            config.heartbeat
        )
    } else if config.heartbeat > HEARTBEAT_MAX {
        format!(
            "a heartbeat of {:?} is too long, the most is {HEARTBEAT_MAX:?}",
            config.heartbeat
        )
    } else if config.lost_after < config.heartbeat {
        format!(
            "--lost-after {:?} is shorter than one heartbeat ({:?})",
            config.lost_after, config.heartbeat
        )
    } else if !(CERTIFICATE_LIFE_MIN..=CERTIFICATE_LIFE_MAX).contains(&config.certificate_life) {
        format!(
            "--certificate-life {:?} is not between {CERTIFICATE_LIFE_MIN:?} and 3650 days",
            config.certificate_life
        )
    } else if config.listen.ip().is_unspecified() && config.advertise.is_empty() {
        format!(
            "--listen {} is every address of this machine, so edges cannot be told one: add --advertise HOST:{}",
            config.listen,
            config.listen.port()
        )
    } else {
        return Ok(());
    };
    Err(StartError::Config { problem })
}

fn open_core(
    path: &Path,
    config: &OrchestratorConfig,
    now: crate::core::Now,
) -> Result<Core<SqliteStore>, StoreError> {
    let core_config = CoreConfig {
        heartbeat: config.heartbeat,
        lost_after: config.lost_after,
        worker: format!("process {}", std::process::id()),
        limits: config.limits.clone(),
    };
    let random = Box::new(|| {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the generator worked when the process started");
        bytes
    });
    let mut core = Core::start(SqliteStore::open(path)?, core_config, random, now)?;
    if config.local_pipelines {
        core.take_local_pipelines();
    }
    Ok(core)
}

fn with_port(address: SocketAddr, remembered: Option<u16>) -> SocketAddr {
    match remembered {
        Some(port) if address.port() == 0 => SocketAddr::new(address.ip(), port),
        _ => address,
    }
}

async fn tick(control: Control, every: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(every.min(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        control.tick();
    }
}

async fn sweep(operators: Operators, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(ARTIFACTS_SWEEP))
        .await
        .is_some()
    {
        match operators.sweep_artifacts(ARTIFACTS_SWEEP).await {
            Ok(0) => {}
            Ok(swept) => info!(event = "artifact.sweep", swept),
            Err(error) => warn!(event = "artifact.sweep_failed", reason = %error.message),
        }
    }
}

/// The state directory, locked.
struct StateDir {
    dir: PathBuf,
    lock: DirectoryLock,
}

impl StateDir {
    fn open(dir: &Path) -> Result<Self, StartError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Io {
                doing,
                path,
                source,
            }
        };
        sluice_state_dir::make_private(dir).map_err(io("make the directory", dir))?;
        let lock = DirectoryLock::take(dir).map_err(|error| match error {
            LockError::InUse { holder } => StartError::Locked {
                dir: dir.to_owned(),
                holder,
            },
            LockError::Io {
                action,
                path,
                source,
            } => io(action, &path)(source),
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            lock,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The ports of earlier starts, for edges and for operators.
    fn remembered_ports(&self) -> (Option<u16>, Option<u16>) {
        let port = |document: &toml_edit::DocumentMut, key: &str| {
            document
                .get(key)?
                .as_integer()
                .and_then(|port| u16::try_from(port).ok())
        };
        match fs::read_to_string(self.file("listen.toml"))
            .ok()
            .and_then(|text| text.parse().ok())
        {
            Some(document) => (port(&document, "edges"), port(&document, "api")),
            None => (None, None),
        }
    }

    fn remember_ports(&self, edges: SocketAddr, api: SocketAddr) -> Result<(), StartError> {
        let text = format!(
            "# The ports of the last start; used again where 0 is asked for.\nedges = {}\napi = {}\n\
             # Where they were, for `sluice doctor`.\nedges_ip = \"{}\"\napi_ip = \"{}\"\n",
            edges.port(),
            api.port(),
            edges.ip(),
            api.ip(),
        );
        self.replace("listen.toml", text.as_bytes())
    }

    /// The operators' token: kept as it was, or made with `operator.toml` at the first start. When only the endpoint
    /// changed, the file is written again with the same token.
    fn admin_token(
        &self,
        api: SocketAddr,
        config: &OrchestratorConfig,
        authority_pem: &str,
    ) -> Result<AdminTokenHash, StartError> {
        let host = match config.advertise.first() {
            Some(address) if config.api.ip().is_unspecified() => address.host().to_owned(),
            _ if api.ip().is_unspecified() => "127.0.0.1".to_owned(),
            _ => api.ip().to_string(),
        };
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let endpoint = format!("https://{host}:{}", api.port());
        let known = fs::read(self.file("admin.hash"))
            .ok()
            .and_then(|bytes| AdminTokenHash::from_slice(&bytes));
        let written = fs::read_to_string(self.file("operator.toml"))
            .ok()
            .and_then(|text| text.parse::<toml_edit::DocumentMut>().ok())
            .and_then(|document| Some(document.get("token")?.as_str()?.to_owned()));
        let (token, hash) = match (written, known) {
            (Some(token), Some(hash)) if hash.matches(&token) => (token, hash),
            // The file was moved away, as one should: the token stays good.
            (None, Some(hash)) => return Ok(hash),
            _ => {
                let token = AdminToken::generate().map_err(|error| StartError::Config {
                    problem: format!("this machine gives no random numbers ({error})"),
                })?;
                (token.as_str().to_owned(), token.hash())
            }
        };
        let context = OperatorContext {
            endpoint,
            ca: authority_pem.to_owned(),
            token,
        };
        self.replace("operator.toml", context.to_toml().as_bytes())?;
        self.replace("admin.hash", hash.as_bytes())?;
        Ok(hash)
    }

    /// Writes a file whole or not at all; mode 0600.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StartError> {
        let path = self.file(name);
        sluice_state_dir::replace(&path, bytes).map_err(|source| StartError::Io {
            doing: "write",
            path,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_orchestrator_whose_store_broke_says_how_and_can_be_shut_down() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = OrchestratorConfig::new(directory.path());
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.listen, config.api) = (loopback, loopback);
        let mut running = Orchestrator::start(config).await.unwrap();
        let (broke, ended) = oneshot::channel();
        running.ended = Some(ended);
        broke.send(Some("a bad sector".to_owned())).unwrap();
        assert_eq!(running.broken().await, "a bad sector");
        assert_eq!(running.broken().await, "the control thread ended");
        running.shutdown().await;
    }
}
