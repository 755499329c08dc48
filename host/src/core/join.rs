//! Joining: a token and a key become a registered node.

use sluice_api::{ErrorBody, ErrorCode};
use sluice_ledger::Position;
use sluice_model::{
    Digest, NodeId, NodeName, Revision, TokenId, check_label_key, check_label_value,
};
use sluice_protocol::admission::RejectCode;
use sluice_protocol::{JoinRequest, VERSIONS};
use tracing::info;

use super::identity::revoked_message;
use super::tally::count;
use super::{Absent, CloseWhy, Core, Handled, Output, Reply, RequestId, Step};
use crate::store::{NodeOrders, NodeRecord, Store, StoreError, TokenRecord};

/// Most labels of a node: they travel in every Hello and stand in every listing.
const LABELS_MAX: usize = 64;

/// A join that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The node it is from now on.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
}

/// Why not, on the wire and for people.
pub(super) struct Refused {
    code: RejectCode,
    message: String,
}

fn refused(code: RejectCode, message: impl Into<String>) -> Refused {
    Refused {
        code,
        message: message.into(),
    }
}

impl<S: Store> Core<S> {
    pub(super) fn handle_join(
        &mut self,
        request: RequestId,
        message: &JoinRequest,
        key: [u8; 32],
        step: &mut Step,
    ) -> Result<Handled, StoreError> {
        match self.join(message, key, step)? {
            Ok(joined) => {
                count(&self.tally.joins);
                info!(event = "node.join", node = %joined.name, id = %joined.node);
                step.reply(request, Ok(Reply::Joined(joined)));
                Ok(Handled::Keep)
            }
            Err(Refused { code, message }) => {
                count(&self.tally.refusals);
                info!(event = "session.refused", code = code.as_str(), reason = %message);
                let body = ErrorBody::new(ErrorCode::Forbidden, message).with_detail(code.as_str());
                step.reply(request, Err(body));
                Ok(Handled::Undo)
            }
        }
    }

    fn join(
        &mut self,
        message: &JoinRequest,
        key: [u8; 32],
        step: &mut Step,
    ) -> Result<Result<Joined, Refused>, StoreError> {
        let now = step.now.unix;
        if !message
            .versions
            .iter()
            .any(|version| VERSIONS.contains(version))
        {
            return Ok(Err(refused(
                RejectCode::Version,
                "this edge and this orchestrator have no dialect in common; upgrade the orchestrator first",
            )));
        }
        let name: NodeName = match message.name.parse() {
            Ok(name) => name,
            Err(error) => {
                return Ok(Err(refused(
                    RejectCode::Malformed,
                    format!(
                        "the node name {:?} {error}; choose another with --name",
                        message.name
                    ),
                )));
            }
        };
        if let Err(problem) = check_label_map(&message.labels) {
            return Ok(Err(refused(RejectCode::Malformed, problem)));
        }
        let unknown = || {
            refused(
                RejectCode::Token,
                "this join token is unknown or has expired; make a new one with `sluice token create`",
            )
        };
        let Some(id) = TokenId::from_slice(&message.token_id) else {
            return Ok(Err(unknown()));
        };
        let Some(token) = self.store.token(id)? else {
            return Ok(Err(unknown()));
        };
        let proven = *Digest::of(&message.token_secret).as_bytes() == token.secret_hash;
        if !proven || token.expires_at < now {
            return Ok(Err(unknown()));
        }
        // The same key with the same token again: the first answer got lost on its way.
        if let Some(node) = self.store.joined_with(id, key)?
            && let Some(record) = self.store.node(node)?
            && record.key == key
            && record.name == name
        {
            return Ok(Ok(Joined {
                node,
                name: record.name,
            }));
        }
        if token.uses_left == Some(0) {
            return Ok(Err(refused(
                RejectCode::Token,
                "this join token has been used up; make a new one with `sluice token create`",
            )));
        }
        if let Some(only) = token.node.as_ref().filter(|only| **only != name) {
            return Ok(Err(refused(
                RejectCode::Token,
                format!(
                    "this join token is for the node {only}, not for {name}; make one with `sluice token create --node {name}`"
                ),
            )));
        }
        let node = match self.store.node_by_name(&name)? {
            Some(known) => match self.rejoin(&known, &token, key, step)? {
                Ok(node) => node,
                Err(refusal) => return Ok(Err(refusal)),
            },
            None => {
                let node = NodeId::from_random((self.random)());
                self.store.insert_node(&NodeRecord {
                    id: node,
                    name: name.clone(),
                    labels: message.labels.clone(),
                    key,
                    certificate_expires_at: now,
                    boot: None,
                    desired: Position::default(),
                    received: Revision::ZERO,
                    last_ack_at: None,
                    observed: Position::default(),
                    held: None,
                    revoked_at: None,
                    created_at: now,
                    last_seen_at: None,
                    program: None,
                    versions: Vec::new(),
                    capabilities: Vec::new(),
                    orders: NodeOrders::default(),
                    lost_at: None,
                    executions: 0,
                })?;
                let since = step.now.mono;
                self.absent.insert(node, Absent { since, lost: false });
                node
            }
        };
        self.store.use_token(id)?;
        self.store.record_join(id, key, node, now)?;
        self.evaluate_all_jobs(now)?;
        Ok(Ok(Joined { node, name }))
    }

    /// A registered name with a new key: a machine that lost its disk comes back to its work.
    fn rejoin(
        &mut self,
        known: &NodeRecord,
        token: &TokenRecord,
        key: [u8; 32],
        step: &mut Step,
    ) -> Result<Result<NodeId, Refused>, StoreError> {
        let name = &known.name;
        let for_this_node = token.node.as_ref() == Some(name);
        // Whoever revoked it decides that it comes back, not a token that may lie on the machine itself.
        if known.revoked_at.is_some() && !for_this_node {
            return Ok(Err(refused(RejectCode::NameInUse, revoked_message(name))));
        }
        if !for_this_node && !token.rejoin {
            return Ok(Err(refused(
                RejectCode::NameInUse,
                format!(
                    "a node named {name} is registered already; if this machine is that node and lost its state, join \
                     with a token made by `sluice token create --node {name}`, else choose another --name"
                ),
            )));
        }
        let live = self.live.get(&known.id).copied();
        if live.is_some() && !for_this_node {
            return Ok(Err(refused(
                RejectCode::NameInUse,
                format!(
                    "the node {name} is connected right now; if it should be replaced all the same, join with a token \
                     made by `sluice token create --node {name}`"
                ),
            )));
        }
        if let Some(conn) = live {
            self.drop_session(conn, step.now);
            step.out.push(Output::Close {
                conn,
                why: CloseWhy::Refused,
                reason: format!("the node {name} joined again with a new key"),
            });
        }
        self.forget_counters(known.id);
        self.rivals.remove(&known.id);
        self.store.rekey_node(known.id, key, step.now.unix)?;
        Ok(Ok(known.id))
    }
}

/// Checks a node's labels; the problem in words.
pub(super) fn check_label_map(labels: &sluice_model::Labels) -> Result<(), String> {
    if labels.len() > LABELS_MAX {
        return Err(format!(
            "a node has at most {LABELS_MAX} labels, these are {}",
            labels.len()
        ));
    }
    for (key, value) in labels {
        check_label_key(key).map_err(|error| format!("the label key {key:?} {error}"))?;
        check_label_value(value)
            .map_err(|error| format!("the value {value:?} of label {key} {error}"))?;
    }
    Ok(())
}
