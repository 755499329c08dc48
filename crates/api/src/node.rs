//! Nodes: registered edges.

use serde::{Deserialize, Serialize};
use sluice_model::{
    BootCounter, Incarnation, Labels, NodeId, NodeName, NodeState, Revision, UnixMs,
};
use utoipa::ToSchema;
use utoipa::openapi::{Object, ObjectBuilder, Schema, Type};

use crate::{Cursor, Execution};

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its id; survives a wiped machine.
    pub id: NodeId,
    /// Where it stands.
    pub state: NodeState,
    /// Takes no new executions.
    pub cordoned: bool,
    /// Takes none and stops those it has.
    pub draining: bool,
    /// Its labels: those that operators set or took away, and else those that the edge says it has. What an operator
    /// ordered of a key holds over reconnects, restarts and wiped disks, whatever the edge says; taking away a key
    /// that the edge does not say ends the order on it. Jobs are placed by these; `${node.labels.KEY}` in a pipeline is
    /// filled in on the edge, with the edge's own.
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Executions that are desired to run there.
    pub executions: u64,
    /// With state `held`: what proves that the orchestrator lost something, and the way out.
    pub held_reason: Option<String>,
    /// Since when an operator keeps it out; null when it may speak.
    #[serde(default)]
    pub revoked_at: Option<UnixMs>,
    /// What needs a person at once: a second machine says that it is this node; null when nothing does.
    #[serde(default)]
    pub alarm: Option<String>,
    /// Counts what operators ordered of it: labels, cordon, drain, revoke.
    #[serde(default)]
    pub orders: u64,
    /// When it joined.
    pub created_at: UnixMs,
    /// When it was last heard; null when it never connected.
    pub last_seen_at: Option<UnixMs>,
    /// Since when its session lives; null when it has none.
    pub connected_since: Option<UnixMs>,
    /// Where its session comes from, `IP:PORT`; null when it has none.
    pub address: Option<String>,
    /// The life of its store; null until it connects.
    pub incarnation: Option<Incarnation>,
    /// Counts its process starts on that store.
    pub boot_counter: BootCounter,
    /// The program's version as it says; null until it connects.
    pub program: Option<String>,
    /// The dialects it speaks; empty until it connects.
    pub versions: Vec<u32>,
    /// The newest revision of what it should do.
    pub desired_rev: Revision,
    /// The newest of those that it has on disk.
    pub received_rev: Revision,
    /// The newest revision of its reports that is on our disk.
    pub observed_rev: Revision,
    /// When it last acknowledged a revision; null when it never did.
    pub last_ack_at: Option<UnixMs>,
    /// When its certificate ends.
    pub certificate_expires_at: Option<UnixMs>,
}

impl Node {
    /// Its `ETag`: another one after everything that operators ordered of it.
    pub fn etag(&self) -> String {
        node_etag(self.id, self.orders)
    }
}

/// [`Node::etag`] from its parts.
pub fn node_etag(id: NodeId, orders: u64) -> String {
    format!("\"{id}-{orders}\"")
}

/// Query of `GET` [`crate::routes::NODES`]; every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeFilter {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// With this label: `KEY=VALUE`, or `KEY` with any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9._/-]{1,63}(=[A-Za-z0-9._/-]{0,63})?$")]
    pub label: Option<String>,
    /// Most items in a page; 1 to [`crate::PAGE_ITEMS_MAX`], which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// The answer of `node describe`: a [`Node`] and what runs there, in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    /// The node.
    #[serde(flatten)]
    pub node: Node,
    /// What it has: `connector:file`, `arch:x86_64`, `world:transform@0.1`.
    pub capabilities: Vec<String>,
    /// Its executions, by job; the ones that are being stopped too.
    pub execution_list: Vec<Execution>,
}

/// `POST` [`crate::routes::NODE_LABELS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeLabels {
    /// Set these.
    #[serde(default)]
    #[schema(schema_with = label_map)]
    pub set: Labels,
    /// Take these away.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// Keys and values as the model's checks have them.
fn label_map() -> Object {
    let text = |pattern: &str| {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.pattern(Some(pattern)).build()
    };
    ObjectBuilder::new()
        .description(Some("Set these."))
        .property_names(Some(text("^[A-Za-z0-9._/-]{1,63}$")))
        .additional_properties(Some(Schema::Object(text("^[A-Za-z0-9._/-]{0,63}$"))))
        .build()
}

/// What an operator orders of a node; ordering it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeOrder {
    /// Take no new executions.
    Cordon,
    /// Take executions again; ends a drain too.
    Uncordon,
    /// Take no new executions, and stop all.
    Drain,
    /// Set and take away labels.
    Label(NodeLabels),
}

impl NodeOrder {
    /// The order in one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
            Self::Drain => "drain",
            Self::Label(_) => "label",
        }
    }
}
