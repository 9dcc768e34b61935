//! Operators' and admins' wishes: the config, nodes, partitions, forgetting.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::node::Mark;
use muster_model::{JobId, NodeId, Timestamp};

use crate::command::{NodeChange, NodeVerb, PartitionChange};
use crate::config::{Actor, ClusterConfig, Role};
use crate::event::Event;
use crate::lifecycle::Phase;
use crate::rejection::Rejection;
use crate::state::{Array, Node, State};

use super::Decision;
use super::gpu;
use super::slice::node_failure;
use super::target::needs_operator;

/// A config that says nothing new is no fact, so that a restart does not undo what operators
/// changed since.
pub(super) fn configure(
    state: &State,
    config: &ClusterConfig,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let mut names = BTreeSet::new();
    if let Some(twice) = config.nodes.iter().find(|node| !names.insert(&node.name)) {
        return Err(Rejection::BadValue(format!("node {:?} is configured twice", twice.name)));
    }
    let mut partitions = BTreeSet::new();
    if let Some(twice) = config.partitions.iter().find(|p| !partitions.insert(&p.name)) {
        return Err(Rejection::BadValue(format!("partition {:?} is configured twice", twice.name)));
    }
    let stray = config.partitions.iter().flat_map(|p| &p.nodes).find(|n| !names.contains(n));
    if let Some(name) = stray {
        return Err(Rejection::UnknownNode(name.to_string()));
    }
    if *state.config == *config {
        return Ok(Decision::done(Vec::new()));
    }
    let config = Arc::new(config.clone());
    Ok(Decision::done(vec![Event::Configured { config, at: now }]))
}

pub(super) fn update_nodes(
    state: &State,
    actor: Actor,
    nodes: &[NodeId],
    change: &NodeChange,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    needs_operator(actor, "changing nodes")?;
    let mut events = Vec::new();
    for id in nodes {
        let node = state.node(*id).ok_or_else(|| Rejection::UnknownNode(id.0.to_string()))?;
        if let Some(verb) = &change.verb {
            events.extend(verb_events(state, actor, node, verb, now)?);
        }
        let rest = NodeChange { verb: None, ..change.clone() };
        if rest != NodeChange::default() {
            events.push(Event::NodeChanged { node: *id, change: rest });
        }
    }
    Ok(Decision::done(events))
}

fn verb_events(
    state: &State,
    actor: Actor,
    node: &Node,
    verb: &NodeVerb,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    let id = node.id;
    let mark = |reason: &str, what| {
        if reason.trim().is_empty() {
            return Err(Rejection::ReasonNeeded(what));
        }
        Ok(Some(Mark { reason: reason.into(), by: Some(actor.uid), at: now }))
    };
    let lift_drain =
        || node.health.drain.is_some().then_some(Event::NodeDrain { node: id, mark: None });
    Ok(match verb {
        NodeVerb::Drain { reason } => {
            vec![Event::NodeDrain { node: id, mark: mark(reason, "drain")? }]
        }
        NodeVerb::Down { reason } => {
            let mut events = vec![Event::NodeDown { node: id, mark: mark(reason, "take down")? }];
            // The agent is told to stop its slices; silence would clear them.
            for job in state.jobs_on(id) {
                match &job.phase {
                    Phase::Launching { .. } | Phase::Running { .. } => {
                        let (outcome, then) = node_failure(state, job, id, now);
                        let (job, attempt) = (job.id, job.attempt);
                        events.push(Event::Completing { job, attempt, outcome, then, at: now });
                    }
                    Phase::Pending { .. } | Phase::Completing { .. } | Phase::Ended { .. } => {}
                }
            }
            events
        }
        NodeVerb::Resume => {
            let up = node.health.down.is_some();
            let up = up.then_some(Event::NodeDown { node: id, mark: None });
            up.into_iter().chain(lift_drain()).chain(gpu::adopted(node)).collect()
        }
        NodeVerb::Undrain => lift_drain().into_iter().collect(),
    })
}

pub(super) fn update_partition(
    state: &State,
    actor: Actor,
    name: &str,
    change: &PartitionChange,
) -> Result<Decision, Rejection> {
    if actor.role < Role::Admin {
        return Err(Rejection::NotPermitted { what: "changing partitions".to_owned() });
    }
    if state.partition(name).is_none() {
        return Err(Rejection::UnknownPartition(name.to_owned()));
    }
    let (name, change) = (name.into(), change.clone());
    Ok(Decision::done(vec![Event::PartitionChanged { name, change }]))
}

/// Forgets ended jobs; others that are named stay.
pub(super) fn purge(state: &State, ids: &[JobId]) -> Decision {
    let ended = |id: &&JobId| match state.jobs.get(id) {
        Some(job) => job.phase.is_ended(),
        None => state.arrays.get(id).is_some_and(Array::is_over),
    };
    let jobs: Vec<JobId> = ids.iter().filter(ended).copied().collect();
    let events = if jobs.is_empty() { Vec::new() } else { vec![Event::Purged { jobs }] };
    Decision::done(events)
}
