//! An edge of a few lines: it joins, connects, says its Hello and its Begin, and counts heartbeats. It runs nothing. For what
//! needs a hand on single connections: two at once, one that is lost, how long each step takes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sluice_ledger::Position;
use sluice_model::{Labels, UnixMs};
use sluice_protocol::{
    Begin, EdgeMessage, Heartbeat, Hello, JoinReply, JoinRequest, OrchestratorMessage, VERSIONS,
    Welcome, decode, edge_message, encode, orchestrator_message,
};
use sluice_transport::identity::{JoinToken, NodeIdentity, NodeKey};
use sluice_transport::{
    Address, Client, CloseCode, EarlyData, Established, SessionError, Timing, join,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::e2e::wait;

/// A node that is nothing but its identity.
#[derive(Debug)]
pub struct BareEdge {
    runtime: Runtime,
    client: Client,
    addresses: Vec<Address>,
    incarnation: Vec<u8>,
    boot_nonce: Vec<u8>,
    /// The orchestrator's life, as the last Welcome told it.
    life: (u64, Vec<u8>),
}

/// A connection on which the orchestrator said Welcome.
#[derive(Debug)]
pub struct BareSession {
    established: Established,
    welcome: Welcome,
    /// From `connect()` to the Welcome.
    pub took: Duration,
    /// How the Hello travelled.
    pub early: EarlyData,
}

impl BareEdge {
    /// Joins with a token's text.
    pub fn join(token: &str, name: &str) -> Result<Self> {
        // One worker: the network must be served between two calls, too.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let token = JoinToken::parse(token)?;
        let key = NodeKey::generate()?;
        let request = JoinRequest {
            versions: VERSIONS.to_vec(),
            token_id: token.id.to_bytes().to_vec(),
            token_secret: token.secret.as_bytes().to_vec(),
            name: name.to_owned(),
            csr: key.csr()?,
            labels: Labels::new(),
        };
        let timing = Timing::default();
        let answer = runtime.block_on(join(&token, encode(&request), &timing))?;
        let reply: JoinReply = decode(&answer.frame)?;
        if let Some(reject) = reply.reject {
            bail!("the join was refused: {}", reject.message);
        }
        let identity = NodeIdentity::new(key, reply.certificate, answer.authority_der)?;
        Ok(Self {
            client: Client::new(&identity, timing, UnixMs(0))?,
            runtime,
            addresses: token.addresses,
            incarnation: random()?,
            boot_nonce: random()?,
            life: (0, Vec::new()),
        })
    }

    /// Connects and waits for the Welcome; an error when there is none.
    pub fn connect(&mut self) -> Result<BareSession> {
        let hello = Hello {
            versions: VERSIONS.to_vec(),
            program: "bare".to_owned(),
            incarnation: self.incarnation.clone(),
            boot_counter: 1,
            boot_nonce: self.boot_nonce.clone(),
            epoch: self.life.0,
            life: self.life.1.clone(),
            desired: Position::default().into(),
            observed: Position::default().into(),
            labels: Labels::new(),
            capabilities: Vec::new(),
            spec_pieces: false,
        };
        let hello = encode(&EdgeMessage {
            kind: Some(edge_message::Kind::Hello(hello)),
        });
        let (client, addresses) = (&self.client, &self.addresses);
        let (established, welcome, took) = self.runtime.block_on(async {
            let begun = Instant::now();
            let mut established = client.connect(addresses, hello).await?;
            let frame = timeout(wait::LONG, established.receiver.recv())
                .await??
                .context("the orchestrator said nothing")?;
            let took = begun.elapsed();
            let message: OrchestratorMessage = decode(&frame)?;
            match message.kind {
                Some(orchestrator_message::Kind::Welcome(welcome)) => {
                    anyhow::Ok((established, welcome, took))
                }
                other => bail!("instead of a Welcome came {other:?}"),
            }
        })?;
        self.life = (welcome.epoch, welcome.life.clone());
        let early = established.early;
        Ok(BareSession {
            established,
            welcome,
            took,
            early,
        })
    }

    /// Begins a session, and returns when the orchestrator has heard of it.
    pub fn begin(&self, session: &mut BareSession) -> Result<()> {
        let begin = edge_message::Kind::Begin(Begin {
            session: session.welcome.session,
            incarnation: self.incarnation.clone(),
        });
        self.send(session, begin)?;
        self.heartbeat(session)
    }

    /// Sends a heartbeat and waits for its answer; an error says how the session ended.
    pub fn heartbeat(&self, session: &mut BareSession) -> Result<()> {
        let heartbeat = edge_message::Kind::Heartbeat(Heartbeat {
            seq: 1,
            epoch: session.welcome.epoch,
            desired: Position::default().into(),
            observed: Position::default().into(),
            counters: Vec::new(),
        });
        self.send(session, heartbeat)?;
        let receiver = &mut session.established.receiver;
        self.runtime.block_on(async {
            loop {
                let frame = timeout(wait::LONG, receiver.recv())
                    .await??
                    .context("the orchestrator ended the session")?;
                let message: OrchestratorMessage = decode(&frame)?;
                if let Some(orchestrator_message::Kind::HeartbeatAck(_)) = message.kind {
                    return Ok(());
                }
            }
        })
    }

    /// Waits until a session is over, and says why.
    pub fn wait_end(&self, session: &BareSession) -> Result<SessionError> {
        let ended = session.established.session.closed();
        Ok(self
            .runtime
            .block_on(async { timeout(wait::LONG, ended).await })?)
    }

    /// Closes a session, and returns when the orchestrator has been told.
    pub fn close(&self, session: BareSession) {
        let connection = session.established.session;
        connection.close(CloseCode::DONE, "");
        self.runtime.block_on(connection.flushed());
    }

    fn send(&self, session: &mut BareSession, kind: edge_message::Kind) -> Result<()> {
        let frame = encode(&EdgeMessage { kind: Some(kind) });
        let sent = session.established.sender.send(frame);
        self.runtime.block_on(sent)?;
        Ok(())
    }
}

/// 16 bytes from the system.
fn random() -> Result<Vec<u8>> {
    let mut bytes = vec![0; 16];
    let mut source = std::fs::File::open("/dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut bytes)?;
    Ok(bytes)
}
