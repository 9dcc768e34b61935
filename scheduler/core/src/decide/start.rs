//! A plan's choices, validated against the state as it is now. Each start stands or falls alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::{JobId, JobSpec, NodeId, PartitionState, Timestamp};

use crate::apply::update::end_of;
use crate::command::StartWish;
use crate::event::Event;
use crate::rejection::Rejection;
use crate::state::dependency::array_standing;
use crate::state::queue::{Surroundings, Verdict};
use crate::state::{Array, Row, State};

use super::{Decision, Reply};

/// What earlier starts of the same plan took.
#[derive(Default)]
struct Draft {
    rows: BTreeMap<NodeId, Row>,
    tasks: BTreeMap<JobId, u32>,
    licenses: BTreeMap<Box<str>, u32>,
    started: BTreeSet<JobId>,
    singletons: BTreeSet<(muster_model::Uid, Box<str>)>,
}

pub(super) fn commit(state: &State, wishes: &[StartWish], now: Timestamp) -> Decision {
    let mut draft = Draft::default();
    let (mut events, mut refused) = (Vec::new(), Vec::new());
    for wish in wishes {
        match start(state, &mut draft, wish, now) {
            Ok(event) => events.push(event),
            Err(why) => refused.push((wish.job, why)),
        }
    }
    let accepted = events.len();
    Decision { events, reply: Reply::Starts { accepted, refused } }
}

fn start(
    state: &State,
    draft: &mut Draft,
    wish: &StartWish,
    now: Timestamp,
) -> Result<Event, Rejection> {
    if draft.started.contains(&wish.job) {
        return Err(Rejection::NotPending(wish.job));
    }
    let surroundings = Surroundings { partitions: &state.partitions, derived: &state.derived };
    let (spec, attempt, array, verdict) = match state.jobs.get(&wish.job) {
        Some(job) if job.phase.is_pending() => {
            let array = job.array.and_then(|(id, _)| state.arrays.get(&id));
            (&job.spec, job.attempt.next(), array, surroundings.job(job))
        }
        Some(job) => return Err(Rejection::NotPending(job.id)),
        None => {
            let array = task(state, wish.job)?;
            let first = muster_model::Attempt(0).next();
            (&array.spec, first, Some(array), surroundings.array(array))
        }
    };
    match verdict {
        Verdict::From { at, .. } if at <= now => {}
        Verdict::From { .. } | Verdict::Blocked(_) => return Err(Rejection::NotPending(wish.job)),
    }
    if let Some(array) = array {
        let used = draft.tasks.get(&array.id).copied().unwrap_or(0);
        if used >= state.throttle_left(array) {
            return Err(Rejection::BadArray(format!("{} is at its task limit", array.id)));
        }
    }
    // Two of a name in one plan: the first takes the turn.
    let name = (spec.user.uid, spec.name.clone());
    if spec.dependency.singleton && draft.singletons.contains(&name) {
        return Err(Rejection::NotPending(wish.job));
    }
    room(state, draft, wish, spec)?;
    take(state, draft, wish, spec, array);
    Ok(Event::Started {
        job: wish.job,
        attempt,
        partition: wish.partition.clone(),
        placement: wish.placement.clone(),
        end_at: end_of(spec, now, 0),
        at: now,
    })
}

/// The array of a task that is no job yet, if the task may start.
fn task(state: &State, id: JobId) -> Result<&Array, Rejection> {
    let array = state.array_owning(id).ok_or(Rejection::UnknownJob(id))?;
    let index = array.index_of(id).ok_or(Rejection::UnknownJob(id))?;
    let held = array.held_user.contains(index) || array.held_admin.contains(index);
    let standing = array_standing(&array.spec.dependency, &array.terms);
    let waits = standing.only.is_some_and(|only| !only.contains(index));
    if !array.pending.contains(index) || held || waits {
        return Err(Rejection::NotPending(id));
    }
    Ok(array)
}

fn room(state: &State, draft: &Draft, wish: &StartWish, spec: &JobSpec) -> Result<(), Rejection> {
    let unknown = || Rejection::UnknownPartition(wish.partition.to_string());
    let row = state.partition(&wish.partition).ok_or_else(unknown)?;
    if !spec.partitions.contains(&wish.partition) {
        return Err(unknown());
    }
    let closed =
        |state| Rejection::PartitionClosed { partition: wish.partition.to_string(), state };
    match row.partition.state {
        PartitionState::Up | PartitionState::Drain => {}
        PartitionState::Down => return Err(closed("down")),
        PartitionState::Inactive => return Err(closed("inactive")),
    }
    let slices = &wish.placement.slices;
    if slices.is_empty() || (slices.len() as u64) < u64::from(spec.request.nodes.min) {
        return Err(Rejection::BadNodeCount(format!("{} were chosen", slices.len())));
    }
    let mut seen = BTreeSet::new();
    for slice in slices {
        let node = state.node(slice.node).filter(|_| seen.insert(slice.node));
        let node = node.ok_or_else(|| Rejection::UnknownNode(slice.node.0.to_string()))?;
        let free = draft.rows.get(&slice.node).unwrap_or(&node.free);
        let member = row.members.binary_search(&slice.node).is_ok();
        if !member || !node.usable() || slice.cpus.is_empty() || !free.covers(&node.facts, slice) {
            return Err(Rejection::NeverFits {
                partition: wish.partition.to_string(),
                why: format!("node {:?} has no longer what was chosen", node.config.name),
            });
        }
    }
    for (name, count) in &spec.licenses {
        let all = state.config.licenses.iter().find(|(n, _)| n == name).map_or(0, |(_, n)| *n);
        let used = state.derived.licenses_used.get(name).copied().unwrap_or(0);
        let drafted = draft.licenses.get(name).copied().unwrap_or(0);
        if used.saturating_add(drafted).saturating_add(*count) > all {
            return Err(Rejection::UnknownLicense(name.to_string()));
        }
    }
    Ok(())
}

fn take(
    state: &State,
    draft: &mut Draft,
    wish: &StartWish,
    spec: &Arc<JobSpec>,
    array: Option<&Array>,
) {
    draft.started.insert(wish.job);
    for slice in &wish.placement.slices {
        let node = &state.nodes[slice.node.0 as usize];
        let row = draft.rows.entry(slice.node).or_insert_with(|| node.free.clone());
        row.take(&node.facts, slice);
    }
    if let Some(array) = array {
        *draft.tasks.entry(array.id).or_default() += 1;
    }
    for (name, count) in &spec.licenses {
        *draft.licenses.entry(name.clone()).or_default() += count;
    }
    draft.singletons.insert((spec.user.uid, spec.name.clone()));
}
