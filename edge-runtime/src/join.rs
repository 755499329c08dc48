//! Becoming a node: a key made here, proved with a token, and signed by the cluster's authority.
//!
//! ```text
//!   node.key on disk -> ask -> identity.pem on disk, edge.toml on disk -> node.key gone
//! ```
//!
//! The key is kept before anything is asked, so that a start that dies on the way asks again with the same key.

use std::path::Path;
use std::time::{Duration, Instant};

use sluice_model::{Labels, NodeId, NodeName};
use sluice_protocol::{JoinReply, JoinRequest, VERSIONS};
use sluice_transport::identity::{JoinToken, NodeIdentity, NodeKey};
use sluice_transport::{Address, JoinError, Timing, join};

use crate::error::EdgeError;

/// How long an orchestrator that does not answer is asked again: longer than one that restarts needs.
const JOIN_WITHIN: Duration = Duration::from_secs(8);

/// The pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The node's key, certificate and authority.
pub(crate) const IDENTITY_FILE: &str = "identity.pem";

/// The key alone, until there is a certificate.
const KEY_FILE: &str = "node.key";

/// What joining gave.
pub(crate) struct Joined {
    pub(crate) identity: NodeIdentity,
    pub(crate) addresses: Vec<Address>,
}

/// Joins with a token's text.
pub(crate) async fn join_cluster(
    state_dir: &Path,
    token: &str,
    name: &NodeName,
    labels: &Labels,
) -> Result<Joined, EdgeError> {
    let token = JoinToken::parse(token)?;
    let key_path = state_dir.join(KEY_FILE);
    let key = match NodeKey::load(&key_path)? {
        Some(key) => key,
        None => {
            let key = NodeKey::generate()?;
            key.save(&key_path)?;
            key
        }
    };
    let request = JoinRequest {
        versions: VERSIONS.to_vec(),
        token_id: token.id.to_bytes().to_vec(),
        token_secret: token.secret.as_bytes().to_vec(),
        name: name.to_string(),
        csr: key.csr()?,
        labels: labels.clone(),
    };
    let request = sluice_protocol::encode(&request);
    let timing = Timing::default();
    let since = Instant::now();
    let answer = loop {
        match join(&token, request.clone(), &timing).await {
            Ok(answer) => break answer,
            Err(error) if may_pass(&error) && since.elapsed() < JOIN_WITHIN => {
                tracing::warn!(event = "edge.join_retry", %error);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(EdgeError::Join(error)),
        }
    };
    let nonsense = |problem| EdgeError::Answer { problem };
    let reply: JoinReply =
        sluice_protocol::decode(&answer.frame).map_err(|_| nonsense("it is not a join reply"))?;
    if let Some(reject) = reply.reject {
        return Err(EdgeError::Refused {
            code: reject.code,
            message: reject.message,
        });
    }
    let node = NodeId::from_slice(&reply.node).ok_or_else(|| nonsense("it has no node id"))?;
    let identity = NodeIdentity::new(key, reply.certificate, answer.authority_der)?;
    if identity.facts().node != node {
        return Err(nonsense("the certificate is for another node"));
    }
    let told: Vec<Address> = reply
        .addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    let addresses = if told.is_empty() {
        token.addresses
    } else {
        told
    };
    Ok(Joined {
        identity,
        addresses,
    })
}

/// Puts the identity on disk for good. The options must be there already: an identity is what makes a directory
/// joined.
pub(crate) fn keep(state_dir: &Path, joined: &Joined) -> Result<(), EdgeError> {
    joined.identity.save(&state_dir.join(IDENTITY_FILE))?;
    // The key is in the identity now; a left-over copy is only untidy.
    let _ = std::fs::remove_file(state_dir.join(KEY_FILE));
    Ok(())
}

/// Whether the same try may work in a moment.
fn may_pass(error: &JoinError) -> bool {
    match error {
        JoinError::Connect(error) => error.is_unreachable(),
        JoinError::Session(_) | JoinError::NoAnswer { .. } => true,
    }
}
