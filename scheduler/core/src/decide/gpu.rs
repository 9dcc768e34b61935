//! GPUs of a node: what is found where none is declared, and GPUs that are taken out one by one.
//!
//! An agent tells all that is wrong with its GPUs, again and again. A mark that the system put on
//! goes when the agent sees nothing any more, unless the fault is of a kind that stays; a mark that
//! an operator put on or took away is the operator's. A job that was submitted with `--requeue` runs
//! again when a GPU of it fails for good; others are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::node::{GpuMark, Mark};
use muster_model::{GresKind, Inventory, JobSpec, NodeId, Request, Timestamp};

use crate::apply::GPU;
use crate::command::{GpuFault, GpuVerb, JobChange};
use crate::config::Actor;
use crate::event::Event;
use crate::lifecycle::Phase;
use crate::rejection::Rejection;
use crate::state::{Job, Node, State};

use super::Decision;
use super::fit;
use super::node::drain;
use super::slice::node_failure;
use super::target::{key_of, needs_operator};

/// So many GPUs of a node that fail for good speak against the node itself: a board, a power
/// supply, a driver.
const BAD_GPUS_OF_A_BAD_NODE: usize = 2;

pub(super) fn is_gpu(kind: &GresKind) -> bool {
    &*kind.name == GPU
}

fn gpus(gres: &BTreeMap<GresKind, u64>) -> Vec<(GresKind, u64)> {
    gres.iter().filter(|(kind, _)| is_gpu(kind)).map(|(k, n)| (k.clone(), *n)).collect()
}

/// The GPUs of a node that declares none: the first that are found, and more when more are. Fewer
/// are a fault of the node until an operator resumes it.
pub(super) fn found(node: &Node, inventory: &Inventory) -> Option<Event> {
    let (known, found) = (gpus(&node.config.capacity.gres), gpus(&inventory.capacity.gres));
    let has_all = |(kind, n): &(GresKind, u64)| found.iter().any(|(k, has)| k == kind && has >= n);
    let adopt = node.config.auto_gpus && known != found && known.iter().all(has_all);
    adopt.then_some(Event::GpusFound { node: node.id, gpus: found })
}

/// An operator who resumes a node takes its GPUs as they are.
pub(super) fn adopted(node: &Node) -> Option<Event> {
    let inventory = node.inventory.as_ref()?;
    let (known, found) = (gpus(&node.config.capacity.gres), gpus(&inventory.capacity.gres));
    let changed = node.config.auto_gpus && known != found;
    changed.then_some(Event::GpusFound { node: node.id, gpus: found })
}

pub(super) fn report(
    state: &State,
    id: NodeId,
    faults: &[GpuFault],
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let node = state.node(id).ok_or_else(|| Rejection::UnknownNode(id.0.to_string()))?;
    let mut events = Vec::new();
    let mut bad: BTreeMap<u8, &str> = BTreeMap::new();
    for (unit, mark) in &node.health.gpus {
        let ours = mark.mark.by.is_none();
        if ours && mark.lifts && !faults.iter().any(|f| f.gpu == *unit) {
            events.push(Event::GpuDrain { node: id, gpu: *unit, mark: None, at: now });
        }
        if ours && !mark.lifts {
            bad.insert(*unit, &mark.mark.reason);
        }
    }
    let (mut worse, mut lost) = (false, 0);
    for fault in faults {
        let cleared = node.health.gpus_cleared.get(&fault.gpu);
        if fault.stays && cleared.is_some_and(|at| fault.at <= *at) {
            continue;
        }
        // What stays outweighs what may pass; a mark of an operator stands as it is.
        let news = match node.health.gpus.get(&fault.gpu) {
            None => true,
            Some(old) => old.mark.by.is_none() && old.lifts && fault.stays,
        };
        if news {
            let mark = Mark { reason: fault.reason.clone(), by: None, at: now };
            let mark = Some(GpuMark { mark, lifts: !fault.stays });
            events.push(Event::GpuDrain { node: id, gpu: fault.gpu, mark, at: now });
            worse |= fault.stays;
            if fault.stays {
                bad.insert(fault.gpu, &fault.reason);
                lost |= 1u64.checked_shl(fault.gpu.into()).unwrap_or(0);
            }
        }
    }
    for job in node.jobs.iter().filter_map(|id| state.jobs.get(id)) {
        if asks_again(job) && held_of(job, id) & lost != 0 {
            events.extend(again(state, job, id, now));
        }
    }
    if worse && bad.len() >= BAD_GPUS_OF_A_BAD_NODE && node.health.drain.is_none() {
        let words: Vec<String> =
            bad.iter().map(|(gpu, reason)| format!("gpu {gpu}: {reason}")).collect();
        events.push(drain(id, format!("{} GPUs failed: {}", bad.len(), words.join("; ")), now));
    }
    Ok(Decision::done(events))
}

/// The GPUs of a node that a job holds.
fn held_of(job: &Job, node: NodeId) -> u64 {
    let slice = job.phase.allocation().and_then(|held| held.placement.slice(node));
    let gpus = slice.iter().flat_map(|slice| &slice.gres).filter(|held| is_gpu(&held.kind));
    gpus.fold(0, |all, held| all | held.mask)
}

/// Only a job that was given `--requeue` itself is stopped for a GPU that failed: the cluster's
/// default is about nodes.
fn asks_again(job: &Job) -> bool {
    job.spec.requeue == Some(true)
}

/// A job that holds a GPU which failed for good runs again, where another node can take it.
fn again(state: &State, job: &Job, node: NodeId, now: Timestamp) -> Vec<Event> {
    if !matches!(job.phase, Phase::Launching { .. } | Phase::Running { .. }) {
        return Vec::new();
    }
    let (outcome, then) = node_failure(state, job, node, now);
    let mut events: Vec<Event> = elsewhere(state, job, node, now).into_iter().collect();
    events.push(Event::Completing { job: job.id, attempt: job.attempt, outcome, then, at: now });
    events
}

/// Leaves the node out from now on, unless no other could serve the job.
pub(super) fn elsewhere(state: &State, job: &Job, node: NodeId, now: Timestamp) -> Option<Event> {
    let name = &state.node(node)?.config.name;
    let request = &job.spec.request;
    if request.required_nodes.contains(name) || request.excluded_nodes.contains(name) {
        return None;
    }
    let mut excluded = request.excluded_nodes.clone();
    excluded.push(name.clone());
    let mut other = Request::clone(request);
    other.excluded_nodes.clone_from(&excluded);
    let spec = JobSpec { request: Arc::new(other), ..JobSpec::clone(&job.spec) };
    let rows = spec.partitions.iter().filter_map(|name| state.partition(name));
    if !{ rows }.any(|row| fit::could_ever(state, row, &spec).is_ok()) {
        return None;
    }
    let (id, tasks) = key_of(job);
    let change = JobChange { excluded_nodes: Some(excluded), ..JobChange::default() };
    Some(Event::Updated { job: id, tasks, change: Box::new(change), at: now })
}

/// Whether a job that failed on this node may blame a GPU of its own, which went bad while it ran,
/// and asks to run again then.
pub(super) fn is_to_blame(state: &State, job: &Job, node: NodeId) -> bool {
    let Some(held) = job.phase.allocation().filter(|_| asks_again(job)) else { return false };
    let mine = held_of(job, node);
    let marks = state.node(node).into_iter().flat_map(|node| &node.health.gpus);
    let ours = |(unit, mark): (&u8, &GpuMark)| {
        let of_job = mine.checked_shr(u32::from(*unit)).is_some_and(|bits| bits & 1 == 1);
        of_job && mark.mark.by.is_none() && !mark.lifts && mark.mark.at >= held.allocated_at
    };
    { marks }.any(ours)
}

pub(super) fn update(
    state: &State,
    actor: Actor,
    nodes: &[NodeId],
    units: &[u8],
    verb: &GpuVerb,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    needs_operator(actor, "changing GPUs")?;
    let mut events = Vec::new();
    for id in nodes {
        let node = state.node(*id).ok_or_else(|| Rejection::UnknownNode(id.0.to_string()))?;
        let count: u64 = gpus(&node.config.capacity.gres).iter().map(|(_, n)| n).sum();
        if let Some(unit) = units.iter().find(|unit| u64::from(**unit) >= count) {
            let name = &node.config.name;
            return Err(Rejection::BadValue(format!(
                "node {name:?} has no GPU {unit}: it has {count}"
            )));
        }
        for unit in units {
            let mark = match verb {
                GpuVerb::Drain { reason } if reason.trim().is_empty() => {
                    return Err(Rejection::ReasonNeeded("drain"));
                }
                GpuVerb::Drain { reason } => {
                    let mark = Mark { reason: reason.clone(), by: Some(actor.uid), at: now };
                    Some(GpuMark { mark, lifts: false })
                }
                GpuVerb::Resume if node.health.gpus.contains_key(unit) => None,
                GpuVerb::Resume => continue,
            };
            events.push(Event::GpuDrain { node: *id, gpu: *unit, mark, at: now });
        }
    }
    Ok(Decision::done(events))
}
