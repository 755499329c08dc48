//! Whether a certificate's node may speak at all, and the one thing that an expired certificate still buys.

use std::time::Duration;

use sluice_ledger::Position;
use sluice_model::{Labels, Revision};
use sluice_protocol::admission::RejectCode;
use sluice_protocol::{Welcome, orchestrator_message};
use tracing::{info, warn};

use super::super::identity::{deleted_message, revoked_message};
use super::super::{ConnId, Core, Handled, Now, Output, Peer, Step};
use super::{State, send};
use crate::store::{NodeOrders, NodeRecord, Store, StoreError};

/// How long after its end a certificate still buys its own renewal: a machine may lie in a store room for a season or
/// two. After that its key has been out of sight for so long that a person must vouch for it with a token.
pub(in crate::core) const RENEWAL_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) enum Standing {
    Good(Box<NodeRecord>),
    /// Good, but for the certificate's date.
    Expired(Box<NodeRecord>),
    Refused(RejectCode, String),
}

impl<S: Store> Core<S> {
    /// Whether the certificate's node may speak at all, as of now.
    pub(super) fn standing(&mut self, peer: &Peer, now: Now) -> Result<Standing, StoreError> {
        let is_expired = peer.expires_at < now.unix;
        let out_of_grace = peer.expires_at.plus(RENEWAL_GRACE) < now.unix;
        let node = self.store.node(peer.node)?;
        if node.is_none()
            && let Some(name) = self.store.deleted_node(peer.node)?
        {
            let message = deleted_message(&name);
            return Ok(Standing::Refused(RejectCode::Deleted, message));
        }
        if let Some(node) = &node
            && (node.revoked_at.is_some() || node.key != peer.key)
            && peer.expires_at > node.certificate_expires_at
        {
            // Each certificate is recorded before it is sent, so this store is an older copy of itself, and what it says
            // against the node may be undone since. Nothing is stopped on such word; the edge asks again.
            let message = format!(
                "this orchestrator's store is older than the certificate of {0}: it was restored from a copy made before \
                 {0} joined again; what runs there runs on; join with a token made by `sluice token create --node {0}`",
                node.name
            );
            warn!(event = "node.newer_than_store", node = %node.name);
            return Ok(Standing::Refused(RejectCode::StoreOutdated, message));
        }
        if let Some(node) = node.as_ref().filter(|node| node.revoked_at.is_some()) {
            let message = revoked_message(&node.name);
            return Ok(Standing::Refused(RejectCode::Revoked, message));
        }
        if out_of_grace || (is_expired && node.is_none()) {
            let message = "the certificate has expired; join again with a token made by `sluice token create --rejoin`";
            return Ok(Standing::Refused(RejectCode::Expired, message.to_owned()));
        }
        let Some(node) = node else {
            // Our own certificate, and no record of the node: this store has lost something.
            let name = format!("unknown-{}", &peer.node.to_string()[..8]);
            return Ok(Standing::Good(Box::new(NodeRecord {
                id: peer.node,
                name: name.parse().expect("hex digits make a name"),
                labels: Labels::new(),
                key: peer.key,
                certificate_expires_at: peer.expires_at,
                boot: None,
                desired: Position::default(),
                received: Revision::ZERO,
                last_ack_at: None,
                observed: Position::default(),
                revoked_at: None,
                held: Some(
                    "it has a certificate of this cluster, and this store has no record of it"
                        .to_owned(),
                ),
                created_at: now.unix,
                last_seen_at: None,
                program: None,
                versions: Vec::new(),
                capabilities: Vec::new(),
                orders: NodeOrders::default(),
                lost_at: None,
                executions: 0,
            })));
        };
        if node.key != peer.key {
            let message = format!(
                "the certificate was revoked: {0} joined again with another key; if this machine is {0}, join with a \
                 token made by `sluice token create --node {0}`",
                node.name
            );
            return Ok(Standing::Refused(RejectCode::Revoked, message));
        }
        if is_expired {
            return Ok(Standing::Expired(Box::new(node)));
        }
        Ok(Standing::Good(Box::new(node)))
    }

    /// An expired certificate of a node in good standing buys one thing: a new one for the same key. The node's live
    /// session, its liveness and its rows are not touched.
    pub(super) fn welcome_to_renew(
        &mut self,
        conn: ConnId,
        version: u32,
        node: &NodeRecord,
        step: &mut Step,
    ) -> Handled {
        let session = self.next_session;
        self.next_session += 1;
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.state = State::Renewing { asked: false };
        }
        info!(event = "session.renew_only", node = %node.name, session);
        let welcome = Welcome {
            version,
            session,
            epoch: self.epoch.0,
            life: self.life.to_bytes().to_vec(),
            heartbeat_ms: u64::try_from(self.config.heartbeat.as_millis()).unwrap_or(u64::MAX),
            observed_acked: 0,
            server_time_ms: step.now.unix.0,
            held: false,
            new_incarnation: false,
            node_name: node.name.to_string(),
            renew_only: true,
        };
        send(step, conn, orchestrator_message::Kind::Welcome(welcome));
        Handled::Keep
    }

    pub(super) fn handle_renew(
        &mut self,
        conn: ConnId,
        csr: Vec<u8>,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        let Some(session) = self.sessions.get_mut(&conn) else {
            return Ok(Handled::Keep);
        };
        match &mut session.state {
            State::Live(_) => {}
            State::Renewing { asked } if !*asked => *asked = true,
            // Signing is work; one answer is enough.
            State::Renewing { .. } => return Ok(Handled::Keep),
            State::Opening | State::Welcomed(_) => {
                return self.violation(conn, "a renewal outside of a session", step);
            }
        }
        let (node, key) = (session.peer.node, session.peer.key);
        step.out.push(Output::Renew {
            conn,
            node,
            csr,
            key,
        });
        Ok(Handled::Keep)
    }
}
