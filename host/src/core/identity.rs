//! Which nodes may speak at all: revoking and deleting them, the tokens that let machines in, and two machines that
//! both say that they are one node.

use std::time::Duration;

use sluice_api::{API_TOKENS_MAX, ErrorBody, ErrorCode};
use sluice_model::{BootNonce, MonotonicMs, NodeId, NodeName, TokenId, UnixMs};
use sluice_protocol::admission::{Caller, RejectCode};
use tracing::{info, warn};

use super::operator::no_node;
use super::session::{RENEWAL_GRACE, Session};
use super::{ConnId, Core, Handled, MISSED_HEARTBEATS_MAX, Now, Reply, RequestId, Step};
use crate::store::{ApiTokenRecord, NodeRecord, Store, StoreError};

mod tokens;

use tokens::no_token;

/// How long after its last call a rival is shown: one that is turned away calls every 10 to 40 s.
const RIVAL_SHOWN_FOR: Duration = Duration::from_secs(120);

/// A certificate that was signed and has not left yet.
#[derive(Clone, Copy, Debug)]
pub struct NewCertificate {
    /// Where the reply goes.
    pub request: RequestId,
    /// Whose it is.
    pub node: NodeId,
    /// When it ends.
    pub expires_at: UnixMs,
}

/// A process that was turned away because another one speaks as its node.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    address: String,
    boot: BootNonce,
    first_at: MonotonicMs,
    at: MonotonicMs,
    certain: bool,
}

/// What a revoked node is told, and its edge's owner reads.
pub(super) fn revoked_message(name: &NodeName) -> String {
    format!(
        "{name} was revoked by an operator: its work is stopped and its data is kept; to let it back in, make a token \
         with `sluice token create --node {name}` and start the edge with `--join TOKEN`"
    )
}

/// What a deleted node is told, and its edge's owner reads.
pub(super) fn deleted_message(name: &NodeName) -> String {
    format!(
        "{name} was deleted by an operator: its work is stopped and its data is kept; to use this machine as a new \
         node, make a token with `sluice token create` and start the edge with `--join TOKEN`"
    )
}

type Called = Result<Reply, ErrorBody>;

impl<S: Store> Core<S> {
    /// Records when a certificate ends. The reply lets it go: one that is out and not on record would stand for an older
    /// store later, and a revoked node would not be told so.
    pub(super) fn handle_certificate(
        &mut self,
        issued: &NewCertificate,
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        // One of a node that was deleted meanwhile leaves too: its first Hello is told so, and how to join again.
        self.store
            .record_certificate(issued.node, issued.expires_at)?;
        step.reply(issued.request, Ok(Reply::Done));
        Ok(Handled::Keep)
    }

    /// Shuts a node out, now and at every later Hello, until it joins again with a token for it. Its rows stay.
    pub(super) fn revoke_node(
        &mut self,
        name: &NodeName,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        let Some(node) = self.store.node_by_name(name)? else {
            return Ok(Err(no_node(name)));
        };
        self.store.revoke_node(node.id, step.now.unix)?;
        let session = self
            .live
            .get(&node.id)
            .and_then(|conn| self.sessions.get(conn));
        if let Some(seen_at) = session.and_then(Session::last_heard_at) {
            self.store.record_seen(node.id, seen_at)?;
        }
        if node.revoked_at.is_none() {
            warn!(event = "node.revoke", node = %name);
        }
        self.cut_off(&node, RejectCode::Revoked, &revoked_message(name), step);
        self.evaluate_all_jobs(step.now.unix)?;
        let node = self.store.node(node.id)?.unwrap_or(node);
        Ok(Ok(Reply::NodeLine(Box::new(self.show_node(&node)))))
    }

    /// Forgets a node and all it had. One that is connected is refused: a name that was mistyped must not stop a
    /// machine that works.
    pub(super) fn delete_node(
        &mut self,
        name: &NodeName,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        let Some(node) = self.store.node_by_name(name)? else {
            return Ok(Err(no_node(name)));
        };
        if self.live.contains_key(&node.id) {
            let message = format!("{name} is connected, and a connected node is not deleted");
            let help =
                format!("stop its edge first, or shut it out with `sluice node revoke {name}`");
            return Ok(Err(
                ErrorBody::new(ErrorCode::Conflict, message).with_help(help)
            ));
        }
        let shown = self.show_node(&node);
        let until = node.certificate_expires_at.max(step.now.unix);
        let lost = format!("its node {name} was deleted before it came");
        self.store
            .lose_outputs_of_node(node.id, &lost, step.now.unix)?;
        self.store.delete_node(node.id, until.plus(RENEWAL_GRACE))?;
        self.cut_off(&node, RejectCode::Deleted, &deleted_message(name), step);
        self.absent.remove(&node.id);
        self.end_tasks_of_node(&node, step)?;
        self.evaluate_all_jobs(step.now.unix)?;
        info!(event = "node.delete", node = %name, id = %node.id);
        Ok(Ok(Reply::NodeLine(Box::new(shown))))
    }

    /// Tells every connection of a node why, and closes it.
    fn cut_off(&mut self, node: &NodeRecord, code: RejectCode, message: &str, step: &mut Step) {
        let conns: Vec<ConnId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.peer.node == node.id)
            .map(|(&conn, _)| conn)
            .collect();
        for conn in conns {
            self.refuse(conn, code, message.to_owned(), step);
        }
        self.forget_counters(node.id);
        self.rivals.remove(&node.id);
    }

    /// Keeps a token of the API, unless there are too many. One that has expired takes no room.
    pub(super) fn create_api_token(
        &mut self,
        token: &ApiTokenRecord,
        now: Now,
    ) -> Result<Called, StoreError> {
        let known = self.store.api_tokens()?;
        let open = known.iter().filter(|it| it.expires_at > now.unix).count();
        let reached = |count: usize, max| u64::try_from(count).is_ok_and(|count| count >= max);
        // The expired are kept for a day, though not any number of them.
        if reached(open, API_TOKENS_MAX) || reached(known.len(), 2 * API_TOKENS_MAX) {
            let message = format!(
                "there are {open} tokens of the API already, and {} that expired within a day",
                known.len() - open
            );
            return Ok(Err(ErrorBody::new(ErrorCode::Conflict, message)
                .with_help("revoke some with `sluice token revoke`")));
        }
        self.store.insert_api_token(token)?;
        Ok(Ok(Reply::Done))
    }

    /// Makes a token of either sort worthless. Who joined with it stays.
    pub(super) fn revoke_token(&mut self, id: TokenId, now: UnixMs) -> Result<Called, StoreError> {
        let Some(shown) = self.find_token(id, now)? else {
            return Ok(Err(no_token(id)));
        };
        if shown.ended_at.is_some() {
            let message = format!("token {id} is {} already", shown.state);
            return Ok(Err(ErrorBody::new(ErrorCode::NotFound, message).with_help(
                format!("`sluice token describe {id}` says since when"),
            )));
        }
        self.store.revoke_token(id, now)?;
        info!(event = "token.revoke", token = %id);
        Ok(Ok(Reply::Token(shown)))
    }

    /// Another process speaks as this node, and this one was turned away. One Hello may be the delayed word of a process
    /// that is dead, or of an edge that has just lost its store; who still calls after the time in which the connected
    /// process would have been found dead is a second machine, and so is one that counted the same start.
    pub(super) fn note_rival(
        &mut self,
        node: &NodeRecord,
        caller: &Caller,
        address: &str,
        at: MonotonicMs,
    ) {
        let same_start = node.boot.is_some_and(|(incarnation, counter, _)| {
            (incarnation, counter) == (caller.incarnation, caller.boot_counter)
        });
        let before = self.rivals.get(&node.id);
        let known = before.filter(|rival| rival.boot == caller.boot_nonce);
        let first_at = known.map_or(at, |rival| rival.first_at);
        let silence_max = self.config.heartbeat * MISSED_HEARTBEATS_MAX;
        let certain = same_start
            || known.is_some_and(|rival| rival.certain || at.since(first_at) > silence_max);
        if certain {
            warn!(event = "session.rival", node = %node.name, address, "two processes speak as one node");
        }
        let rival = Rival {
            address: address.to_owned(),
            boot: caller.boot_nonce,
            first_at,
            at,
            certain,
        };
        self.rivals.insert(node.id, rival);
    }

    /// What an operator must know of a node at once.
    pub(super) fn alarm(&self, node: &NodeRecord) -> Option<String> {
        let rival = self.rivals.get(&node.id)?;
        let shown = rival.certain && self.last_tick.since(rival.at) <= RIVAL_SHOWN_FOR;
        shown.then(|| {
            format!(
                "a second machine at {} says that it is {} and is turned away: two copies of one state directory; give \
                 it a directory of its own and join it under another name",
                rival.address, node.name
            )
        })
    }
}
