//! The state as callers see it: messages built from the core's values.
//!
//! Everything here is a pure function of the state, a moment and the last pass's opinions; it
//! runs inside the engine's short reads, so it allocates what it returns and nothing more.
//!
//! - `job`: jobs, array tasks and the pending rest of an array
//! - `node`: nodes and partitions
//! - `topology`: switches and blocks; `why`: why a job waits
//! - `history`: rows of finished attempts
//! - `filter`: which jobs a listing or a verb means

pub mod filter;
pub mod gpu;
pub mod history;
pub mod job;
pub mod node;
pub mod topology;
pub mod why;

use muster_core::state::State;
use muster_model::{Hostlist, NodeId};

/// The name of a node that the state knows.
#[must_use]
pub fn node_name(state: &State, node: NodeId) -> &str {
    state.node(node).map_or("(unknown)", |n| &n.config.name)
}

/// A hostlist of nodes, in the order given.
#[must_use]
pub fn host_list(state: &State, nodes: impl Iterator<Item = NodeId>) -> String {
    nodes.map(|node| node_name(state, node)).collect::<Hostlist>().to_string()
}
