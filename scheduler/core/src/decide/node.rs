//! Nodes come, fall silent, and say what is wrong with them.

use std::sync::Arc;

use muster_model::node::Mark;
use muster_model::{GresKind, Inventory, NodeId, Timestamp};

use crate::event::Event;
use crate::rejection::Rejection;
use crate::state::{Node, State};

use super::{Decision, gpu, slice};

/// Begins the reason of drains that a registration made and a better one may lift.
const MISMATCH: &str = "registered with less than configured: ";
/// The reason of nodes that are down because they were silent; a registration lifts it.
const SILENT: &str = "Not responding";

pub(super) fn register(
    state: &State,
    id: NodeId,
    inventory: &Inventory,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let unknown = || Rejection::UnknownNode(id.0.to_string());
    let node = state.node(id).filter(|node| node.configured).ok_or_else(unknown)?;
    let mut events = Vec::new();
    if node.inventory.as_deref() != Some(inventory) {
        let inventory = Arc::new(inventory.clone());
        events.push(Event::Registered { node: id, inventory, at: now });
    }
    if node.health.down.as_ref().is_some_and(|mark| mark.by.is_none() && *mark.reason == *SILENT) {
        events.push(Event::NodeDown { node: id, mark: None });
    }
    events.extend(gpu::found(node, inventory));
    let ours = |mark: &&Mark| mark.by.is_none() && mark.reason.starts_with(MISMATCH);
    let drained = node.health.drain.as_ref();
    match (shortfall(node, inventory), drained) {
        (Some(what), None) => events.push(drain(id, format!("{MISMATCH}{what}"), now)),
        (Some(what), Some(mark)) if ours(&mark) && !mark.reason.ends_with(&what) => {
            events.push(drain(id, format!("{MISMATCH}{what}"), now));
        }
        (None, Some(mark)) if ours(&mark) => {
            events.push(Event::NodeDrain { node: id, mark: None });
        }
        (Some(_) | None, _) => {}
    }
    Ok(Decision::done(events))
}

pub(super) fn drain(node: NodeId, reason: String, at: Timestamp) -> Event {
    Event::NodeDrain { node, mark: Some(Mark { reason: reason.into(), by: None, at }) }
}

/// What the host has less of than the config says.
fn shortfall(node: &Node, inventory: &Inventory) -> Option<String> {
    let (want, has) = (&node.config.capacity, &inventory.capacity);
    if has.cpus < want.cpus {
        return Some(format!("{} CPUs of {}", has.cpus, want.cpus));
    }
    if has.memory_mib < want.memory_mib {
        return Some(format!("{} MiB of {}", has.memory_mib, want.memory_mib));
    }
    want.gres.iter().find_map(|(kind, count)| {
        let found = has.gres.get(kind).copied().unwrap_or(0);
        (found < *count).then(|| format!("{found} {kind} of {count}{}", others(node, inventory)))
    })
}

/// What the driver shows instead of the GPUs that were expected.
fn others(node: &Node, inventory: &Inventory) -> String {
    let want = &node.config.capacity.gres;
    let other = |(kind, _): &(&GresKind, &u64)| gpu::is_gpu(kind) && !want.contains_key(kind);
    let found = inventory.capacity.gres.iter().filter(other);
    let words: Vec<String> = found.map(|(kind, count)| format!("{count} {kind}")).collect();
    if words.is_empty() { String::new() } else { format!(" (found: {})", words.join(", ")) }
}

/// Nobody hears of the node: its slices are given up without waiting for its agent. Should it come
/// back, it is told to end what it still has of them.
pub(super) fn lost(state: &State, id: NodeId, now: Timestamp) -> Result<Decision, Rejection> {
    let node = state.node(id).ok_or_else(|| Rejection::UnknownNode(id.0.to_string()))?;
    let mut events = Vec::new();
    if node.health.down.is_none() {
        let mark = Mark { reason: SILENT.into(), by: None, at: now };
        events.push(Event::NodeDown { node: id, mark: Some(mark) });
    }
    for job in state.jobs_on(id) {
        if let Some(held) = job.phase.allocation() {
            events.extend(slice::lost(state, job, held, id, now));
        }
    }
    Ok(Decision::done(events))
}

pub(super) fn fault(
    state: &State,
    id: NodeId,
    reason: &str,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let node = state.node(id).ok_or_else(|| Rejection::UnknownNode(id.0.to_string()))?;
    let events = match &node.health.drain {
        Some(_) => Vec::new(),
        None => vec![drain(id, reason.to_owned(), now)],
    };
    Ok(Decision::done(events))
}
