//! Nodes, partitions and the config.

use std::sync::Arc;

use muster_model::node::GpuMark;
use muster_model::{GresKind, Inventory, NodeId, Timestamp};

use crate::command::{NodeChange, PartitionChange};
use crate::config::ClusterConfig;
use crate::state::{GresSlot, Node, PartitionRow, State};

/// The name of the resource whose units agents find.
pub(crate) const GPU: &str = "gpu";

pub(super) fn of(state: &mut State, id: NodeId) -> &mut Node {
    state.nodes.get_mut(id.0 as usize).expect("facts name nodes that exist")
}

/// Nodes keep their ids for ever; a node that the config names no more stays known, since old
/// facts speak of it.
pub(super) fn configured(state: &mut State, config: &Arc<ClusterConfig>) {
    for node in &mut state.nodes {
        node.configured = false;
    }
    for node in &config.nodes {
        match state.derived.node_names.get(&node.name) {
            Some(id) => {
                let known = &mut state.nodes[id.0 as usize];
                let mut before = std::mem::take(&mut known.config.capacity.gres);
                if !known.config.auto_gpus {
                    // Declared so far: what its agent found counts from now on.
                    let found = known.inventory.as_ref().map(|i| i.capacity.gres.clone());
                    before = found.unwrap_or_default();
                }
                known.config = node.clone();
                if node.auto_gpus {
                    let gpus = before.into_iter().filter(|(kind, _)| &*kind.name == GPU);
                    known.config.capacity.gres.extend(gpus);
                }
                known.configured = true;
            }
            None => {
                let id = u32::try_from(state.nodes.len()).expect("node numbers fit in 32 bits");
                state.derived.node_names.insert(node.name.clone(), NodeId(id));
                state.nodes.push(Node::new(NodeId(id), node.clone()));
            }
        }
    }
    let row = |partition: &muster_model::Partition| PartitionRow {
        partition: partition.clone(),
        members: Vec::new(),
    };
    state.partitions = config.partitions.iter().map(row).collect();
    state.next_id = state.next_id.max(config.limits.first_job_id).max(1);
    state.config = Arc::clone(config);
    state.rebuild_indices();
}

pub(super) fn registered(state: &mut State, id: NodeId, inventory: &Arc<Inventory>) {
    let node = of(state, id);
    node.inventory = Some(Arc::clone(inventory));
    let before = Arc::clone(&node.facts);
    node.look_up();
    let after = Arc::clone(&node.facts);
    state.rewire(id);
    // Thousands register at once, and most tell nothing new of what GPUs are cut into.
    let is_new = |slot: &GresSlot| slot.cut && !state.derived.axes.is_cut(&slot.kind);
    let is_gone = |slot: &GresSlot| slot.cut && !after.slots.contains(slot);
    if after.slots.iter().any(is_new) || before.slots.iter().any(is_gone) {
        state.derived.lay_axes(&state.nodes);
    }
}

pub(super) fn gpu_drained(
    state: &mut State,
    id: NodeId,
    gpu: u8,
    mark: Option<&GpuMark>,
    at: Timestamp,
) {
    let health = &mut of(state, id).health;
    match mark {
        Some(mark) => _ = health.gpus.insert(gpu, mark.clone()),
        None => {
            health.gpus.remove(&gpu);
            health.gpus_cleared.insert(gpu, at);
        }
    }
    state.keep_back(id);
}

/// What jobs hold there is theirs by its kind and unit, so the ledger is filled anew.
pub(super) fn gpus_found(state: &mut State, id: NodeId, gpus: &[(GresKind, u64)]) {
    let gres = &mut of(state, id).config.capacity.gres;
    gres.retain(|kind, _| &*kind.name != GPU);
    gres.extend(gpus.iter().cloned());
    state.rebuild_indices();
}

pub(super) fn changed(state: &mut State, id: NodeId, change: &NodeChange) {
    let node = of(state, id);
    if let Some(weight) = change.weight {
        node.config.weight = weight;
    }
    if let Some(features) = &change.features {
        node.config.features.clone_from(features);
    }
    if let Some(comment) = &change.comment {
        node.comment.clone_from(comment);
    }
    // Capacity does not change here, so the ledger stands.
    node.look_up();
}

pub(super) fn partition_changed(state: &mut State, name: &str, change: &PartitionChange) {
    let row = state.partitions.iter_mut().find(|row| *row.partition.name == *name);
    let partition = &mut row.expect("facts name partitions that exist").partition;
    if let Some(to) = change.state {
        partition.state = to;
    }
    if let Some(max_time) = change.max_time {
        partition.max_time = max_time;
    }
    if let Some(default_time) = change.default_time {
        partition.default_time = Some(default_time);
    }
    if let Some(max_nodes) = change.max_nodes {
        partition.max_nodes = (max_nodes > 0).then_some(max_nodes);
    }
    if let Some(tier) = change.priority_tier {
        partition.priority_tier = tier;
    }
    // Limits and tiers decide where jobs stand in the queue; admins change them seldom.
    state.rebuild_indices();
}
