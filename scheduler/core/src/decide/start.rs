//! A plan's choices, validated against the state as it is now. Each start stands or falls alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_model::{JobId, JobSpec, NodeId, PartitionState, Seconds, TimeLimit, Timestamp};

use crate::apply::update::end_of;
use crate::command::StartWish;
use crate::event::Event;
use crate::rejection::Rejection;
use crate::state::dependency::array_standing;
use crate::state::queue::Verdict;
use crate::state::reserved::{ReservedView, fence, reserved_view};
use crate::state::{Array, Job, Row, State};

use super::{Decision, Reply};

/// What earlier starts of the same plan took.
#[derive(Clone, Default)]
struct Draft {
    rows: BTreeMap<NodeId, Row>,
    tasks: BTreeMap<JobId, u32>,
    licenses: BTreeMap<Box<str>, u32>,
    started: BTreeSet<JobId>,
    singletons: BTreeSet<(muster_model::Uid, Box<str>)>,
    reserved: Option<Vec<ReservedView>>,
}

pub(super) fn commit(state: &State, wishes: &[StartWish], now: Timestamp) -> Decision {
    let mut draft = Draft::default();
    let (mut events, mut refused) = (Vec::new(), Vec::new());
    let mut rest = wishes;
    while let Some(first) = rest.first() {
        let count = together(state, first);
        let (wished, later) = rest.split_at(count.min(rest.len()));
        rest = later;
        match start_all(state, &mut draft, wished, count, now) {
            Ok(started) => events.extend(started),
            Err(why) => refused.extend(wished.iter().map(|wish| (wish.job, why.clone()))),
        }
    }
    let accepted = events.len();
    Decision { events, reply: Reply::Starts { accepted, refused } }
}

/// How many starts stand and fall with this one: those of a heterogeneous job's components.
fn together(state: &State, wish: &StartWish) -> usize {
    let het = state.jobs.get(&wish.job).and_then(|job| job.spec.het);
    het.filter(|het| het.index == 0).map_or(1, |het| usize::from(het.count))
}

/// All of them or none.
fn start_all(
    state: &State,
    draft: &mut Draft,
    wishes: &[StartWish],
    count: usize,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    let [first, others @ ..] = wishes else { return Ok(Vec::new()) };
    if count == 1 {
        let follows = state.jobs.get(&first.job).is_some_and(Job::follows);
        // A component does not start without its leader.
        return match follows {
            true => Err(Rejection::NotPending(first.job)),
            false => Ok(vec![start(state, draft, first, now)?]),
        };
    }
    let ids = (first.job.0 + 1..).map(JobId);
    if wishes.len() != count || !others.iter().map(|wish| wish.job).eq(ids.take(count - 1)) {
        return Err(Rejection::NotPending(first.job));
    }
    let mut trial = draft.clone();
    let started = wishes.iter().map(|wish| start(state, &mut trial, wish, now));
    let started = started.collect::<Result<Vec<Event>, Rejection>>()?;
    *draft = trial;
    Ok(started)
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
    let surroundings = state.surroundings();
    let (spec, attempt, array, verdict) = match state.jobs.get(&wish.job) {
        Some(job) if job.phase.is_pending() => {
            let array = job.array.and_then(|(id, _)| state.arrays.get(&id));
            // When it may start is its leader's business.
            let verdict = surroundings.job(state.leader_of(job));
            (&job.spec, job.attempt.next(), array, verdict)
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
    chosen_limit(spec, wish.time_limit)?;
    let end_at = end_of(spec, wish.time_limit, now, 0);
    room(state, draft, wish, spec)?;
    reservations(state, draft, wish, spec, (now, end_at))?;
    take(state, draft, wish, spec, array);
    Ok(Event::Started {
        job: wish.job,
        attempt,
        partition: wish.partition.clone(),
        placement: wish.placement.clone(),
        end_at,
        time_limit: wish.time_limit,
        at: now,
    })
}

/// A limit chosen for this start lies between the least and the one asked for.
fn chosen_limit(spec: &JobSpec, chosen: Option<Seconds>) -> Result<(), Rejection> {
    let Some(chosen) = chosen else { return Ok(()) };
    let least = spec.time_min.and_then(TimeLimit::seconds).unwrap_or(i64::MAX);
    let most = spec.time_limit.and_then(TimeLimit::seconds).unwrap_or(i64::MAX);
    if (least..=most).contains(&i64::from(chosen.0)) {
        return Ok(());
    }
    Err(Rejection::BadTimeLimit(format!("{} s were chosen, which was not asked for", chosen.0)))
}

/// Nodes and licences that are kept for others, now or before the job's end.
fn reservations(
    state: &State,
    draft: &mut Draft,
    wish: &StartWish,
    spec: &JobSpec,
    (now, end): (Timestamp, Option<Timestamp>),
) -> Result<(), Rejection> {
    if state.reservations.is_empty() {
        return Ok(());
    }
    let reserved = draft.reserved.get_or_insert_with(|| reserved_view(state, now));
    let own = spec.reservation.as_deref();
    let unknown = || Rejection::UnknownReservation(own.unwrap_or_default().to_owned());
    let fence = fence(reserved, own).ok_or_else(unknown)?;
    for node in wish.placement.nodes() {
        if let Some(by) = fence.closed_by(node, now, end) {
            let node = state.node(node).map_or_else(String::new, |n| n.config.name.to_string());
            return Err(Rejection::Reserved { node, reservation: by.to_owned() });
        }
    }
    for (name, count) in &spec.licenses {
        let all = state.config.licenses.iter().find(|(n, _)| n == name).map_or(0, |(_, n)| *n);
        let used = state.derived.licenses_used.get(name).copied().unwrap_or(0);
        let drafted = draft.licenses.get(name).copied().unwrap_or(0);
        let kept = fence.licenses_kept(name, now, end);
        if used.saturating_add(drafted).saturating_add(*count).saturating_add(kept) > all {
            return Err(Rejection::UnknownLicense(name.to_string()));
        }
    }
    Ok(())
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
        let open = node.open();
        let free = draft.rows.get(&slice.node).unwrap_or(&*open);
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
        let row = draft.rows.entry(slice.node).or_insert_with(|| Row::clone(&node.open()));
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
