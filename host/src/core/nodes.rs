//! What operators order of nodes: cordon, uncordon, drain, label.

use sluice_api::{ErrorBody, ErrorCode, NodeLabels, NodeOrder};
use tracing::info;

use super::join::check_label_map;
use super::operator::{Called, Reply};
use super::{Core, Step};
use crate::store::{NodeOrders, NodeRecord, Store, StoreError};

impl<S: Store> Core<S> {
    pub(super) fn order_node(
        &mut self,
        node: NodeRecord,
        order: &NodeOrder,
        step: &mut Step,
    ) -> Result<Called, StoreError> {
        let mut orders = node.orders.clone();
        match order {
            NodeOrder::Cordon => orders.cordoned = true,
            NodeOrder::Uncordon => (orders.cordoned, orders.draining) = (false, false),
            NodeOrder::Drain => (orders.cordoned, orders.draining) = (true, true),
            NodeOrder::Label(labels) => {
                if let Err(problem) = relabel(&node, &mut orders, labels) {
                    return Ok(Err(ErrorBody::new(ErrorCode::Invalid, problem)));
                }
            }
        }
        let changed = orders != node.orders;
        orders.count += u64::from(changed);
        let node = NodeRecord { orders, ..node };
        if changed {
            self.store.set_orders(node.id, &node.orders)?;
            self.evaluate_all_jobs(step.now.unix)?;
            info!(event = "node.order", node = %node.name, order = order.as_str());
        }
        Ok(Ok(Reply::NodeLine(Box::new(self.show_node(&node)))))
    }
}

/// Sets and takes away labels; the problem in words.
fn relabel(node: &NodeRecord, orders: &mut NodeOrders, labels: &NodeLabels) -> Result<(), String> {
    check_label_map(&labels.set)?;
    for key in &labels.remove {
        if labels.set.contains_key(key) {
            return Err(format!("the label {key} is set and taken away at once"));
        }
        // What the edge does not say needs no word against it.
        if node.labels.contains_key(key) {
            orders.labels.insert(key.clone(), None);
        } else {
            orders.labels.remove(key);
        }
    }
    for (key, value) in &labels.set {
        orders.labels.insert(key.clone(), Some(value.clone()));
    }
    let all = NodeRecord {
        orders: orders.clone(),
        ..node.clone()
    };
    check_label_map(&all.labels_in_force())
}
