//! A job's life, step by step.

use std::sync::Arc;

use muster_model::ids::MAX_JOB_ID;
use muster_model::{
    Attempt, Hold, IndexSet, JobId, JobSpec, NodeId, Outcome, Placement, Seconds, Timestamp,
};

use crate::event::ClearedExit;
use crate::lifecycle::{Allocation, Phase, Step};
use crate::state::dependency::{ArrayStanding, array_standing, standing};
use crate::state::{Array, Entry, Job, Place, Standing, State, TermState};

use super::array::materialise;

pub(super) fn submitted(
    state: &mut State,
    id: JobId,
    request_id: [u8; 16],
    (spec, expected): (&Arc<JobSpec>, u32),
    at: Timestamp,
) {
    let spec = &mut Arc::clone(spec);
    state.derived.interned.keep(spec);
    let eligible_at = spec.begin.map_or(at, |begin| begin.max(at));
    let full = spec.array.as_ref().map(|array| array.indices.clone());
    let terms = terms_of(state, spec, full.as_ref());
    let held = spec.held;
    let count = full.as_ref().map_or(1, IndexSet::len);
    match full {
        None => state.insert_job(Job {
            id,
            array: None,
            spec: Arc::clone(spec),
            request_id,
            submitted_at: at,
            expected,
            attempt: Attempt(0),
            failures: 0,
            phase: Phase::Pending { eligible_at, hold: held.then_some(Hold::User) },
            terms,
            last: None,
            place: Place::Nowhere,
        }),
        Some(full) => state.insert_array(Array {
            id,
            spec: Arc::clone(spec),
            request_id,
            submitted_at: at,
            expected,
            eligible_at,
            throttle: spec.array.as_ref().and_then(|array| array.throttle),
            pending: full.clone(),
            held_user: if held { full.clone() } else { IndexSet::default() },
            held_admin: IndexSet::default(),
            full,
            ok: IndexSet::default(),
            bad: IndexSet::default(),
            unstarted: Vec::new(),
            terms,
            last_start: Timestamp(0),
            last_end: Timestamp(0),
            place: Place::Nowhere,
        }),
    }
    let next = u64::from(id.0) + count;
    state.next_id = match u32::try_from(next) {
        Ok(next) if next <= MAX_JOB_ID => next,
        _ => state.config.limits.first_job_id.max(1),
    };
}

/// How far each term of a spec is now. `full`: the indices of the array that waits.
pub(super) fn terms_of(state: &State, spec: &JobSpec, full: Option<&IndexSet>) -> Box<[TermState]> {
    let now = |term| state.evaluate(term, full).unwrap_or(TermState::Waiting);
    spec.dependency.terms.iter().map(now).collect()
}

pub(super) fn started(
    state: &mut State,
    id: JobId,
    attempt: Attempt,
    partition: &str,
    placement: &Placement,
    (end_at, time_limit): (Option<Timestamp>, Option<Seconds>),
    at: Timestamp,
) {
    let task = (!state.jobs.contains_key(&id)).then(|| materialise(state, id));
    if let Some(job) = task.as_ref().or_else(|| state.jobs.get(&id))
        && let Some(ms) = waited(state, job, at)
    {
        state.habits.waited(ms);
    }
    for slice in &placement.slices {
        state.nodes[slice.node.0 as usize].hold(id, slice);
    }
    let held = Box::new(Allocation {
        partition: partition.into(),
        remaining: placement.nodes().collect(),
        placement: placement.clone(),
        allocated_at: at,
        started_at: None,
        end_at,
        time_limit,
        suspended_ms: 0,
        exit: None,
    });
    match task {
        Some(mut job) => {
            job.attempt = attempt;
            take_step(&mut job, Step::Start(held));
            state.insert_job(job);
        }
        None => state.change_job(id, |job| {
            job.attempt = attempt;
            take_step(job, Step::Start(held));
        }),
    }
    if let Some((array, _)) = state.jobs[&id].array
        && state.arrays.contains_key(&array)
    {
        state.change_array(array, |array| array.last_start = at);
    }
}

/// How long a job waited for its turn; `None`: it waited for something else as well, such as the
/// end of other tasks of its array, and says nothing about the queue.
fn waited(state: &State, job: &Job, at: Timestamp) -> Option<i64> {
    let Phase::Pending { eligible_at, .. } = &job.phase else { return None };
    let array = job.array.and_then(|(array, _)| state.arrays.get(&array));
    let bounded = array.is_some_and(|array| array.throttle.is_some());
    let free = !bounded && !job.spec.dependency.singleton && job.spec.reservation.is_none();
    free.then(|| at.since(*eligible_at).max(0))
}

pub(super) fn running(
    state: &mut State,
    id: JobId,
    started_at: Timestamp,
    end_at: Option<Timestamp>,
) {
    state.change_job(id, |job| {
        job.failures = 0;
        take_step(job, Step::Run { started_at, end_at });
    });
    settle_dependents(state, id);
}

/// A step that changes nothing but the job itself.
pub(super) fn step(state: &mut State, id: JobId, step: Step) {
    let starts_waiting = matches!(step, Step::Complete { .. });
    state.change_job(id, |job| take_step(job, step));
    if starts_waiting {
        settle_dependents(state, id);
    }
}

pub(super) fn slice_cleared(state: &mut State, id: JobId, node: NodeId, exit: Option<ClearedExit>) {
    release(state, id, Some(node));
    state.change_job(id, |job| take_step(job, Step::Clear { node, exit }));
}

/// Gives back what a job still holds, on one node or on all.
fn release(state: &mut State, id: JobId, only: Option<NodeId>) {
    let State { jobs, nodes, .. } = state;
    let Some(held) = jobs.get(&id).and_then(|job| job.phase.allocation()) else { return };
    for node in held.remaining.iter().filter(|n| only.is_none_or(|only| only == **n)) {
        if let Some(slice) = held.placement.slice(*node) {
            nodes[node.0 as usize].release(id, slice);
        }
    }
}

pub(super) fn ended(state: &mut State, id: JobId, outcome: &Outcome, at: Timestamp) {
    release(state, id, None);
    let ran = state.jobs[&id].phase.is_active();
    state.change_job(id, |job| {
        keep_record(job, outcome);
        take_step(job, Step::End { outcome: outcome.clone(), at });
    });
    let job = &state.jobs[&id];
    if let Some(attempt) = job.last.as_ref().filter(|_| ran) {
        state.habits.ended(&job.spec, attempt);
    }
    if let Some((array, index)) = state.jobs[&id].array
        && state.arrays.contains_key(&array)
    {
        state.change_array(array, |array| {
            let ended = if *outcome == Outcome::Completed { &mut array.ok } else { &mut array.bad };
            ended.insert(index);
            array.last_end = at;
        });
    }
    settle_dependents(state, id);
}

pub(super) fn requeued(
    state: &mut State,
    id: JobId,
    outcome: &Outcome,
    hold: Option<Hold>,
    eligible_at: Timestamp,
) {
    release(state, id, None);
    state.change_job(id, |job| {
        keep_record(job, outcome);
        if *outcome == Outcome::BootFail {
            job.failures += 1;
        }
        take_step(job, Step::Requeue { hold, eligible_at });
    });
}

fn keep_record(job: &mut Job, outcome: &Outcome) {
    if let Phase::Completing { held, since, .. } = &job.phase {
        let ended = held.finished(job.attempt, outcome.clone(), *since);
        job.last = Some(Box::new(ended.after(job.last.take())));
    }
}

fn take_step(job: &mut Job, step: Step) {
    let nothing = Phase::Ended { outcome: Outcome::Completed, at: Timestamp(0) };
    job.phase = std::mem::replace(&mut job.phase, nothing).after(step);
}

/// Looks again at everybody who waits for this job, or for its array.
pub(super) fn settle_dependents(state: &mut State, id: JobId) {
    if state.derived.dependents.is_empty() {
        return;
    }
    let array = state.array_owning(id).map(|array| array.id);
    let of_array = array.filter(|array| *array != id);
    let mut entries = state.dependents_of(id);
    entries.extend(of_array.into_iter().flat_map(|array| state.dependents_of(array)));
    for entry in entries {
        settle(state, entry);
    }
}

fn settle(state: &mut State, entry: Entry) {
    let (spec, terms, full) = if entry.is_job {
        let Some(job) = state.jobs.get(&entry.id) else { return };
        (&job.spec, &job.terms, task_index(job))
    } else {
        let Some(array) = state.arrays.get(&entry.id) else { return };
        (&array.spec, &array.terms, Some(array.full.clone()))
    };
    let now = |(term, old): (&muster_model::DependencyTerm, &TermState)| match old {
        TermState::Met { .. } | TermState::Never => old.clone(),
        TermState::Waiting | TermState::Each { .. } => {
            state.evaluate(term, full.as_ref()).unwrap_or_else(|| old.clone())
        }
    };
    let new: Box<[TermState]> = spec.dependency.terms.iter().zip(terms).map(now).collect();
    if new == *terms {
        return;
    }
    let clock = state.clock;
    if entry.is_job {
        state.change_job(entry.id, |job| {
            job.terms = new;
            let index = job.array.map(|(_, index)| index);
            let met = standing(&job.spec.dependency, &job.terms, index);
            if let (Standing::Met { .. }, Phase::Pending { eligible_at, .. }) =
                (met, &mut job.phase)
            {
                *eligible_at = (*eligible_at).max(clock);
            }
        });
    } else {
        state.change_array(entry.id, |array| {
            array.terms = new;
            let ArrayStanding { standing, only, .. } =
                array_standing(&array.spec.dependency, &array.terms);
            if matches!(standing, Standing::Met { .. }) && only.is_none() {
                array.eligible_at = array.eligible_at.max(clock);
            }
        });
    }
}

/// For a task that waits: its own index, so that `aftercorr` goes by it.
pub(super) fn task_index(job: &Job) -> Option<IndexSet> {
    job.array.map(|(_, index)| IndexSet::one(index))
}

pub(super) fn purged(state: &mut State, ids: &[JobId]) {
    for id in ids {
        let array = match state.jobs.get(id) {
            Some(job) => {
                let array = job.array.map(|(array, _)| array);
                state.remove_job(*id);
                array
            }
            None => Some(*id),
        };
        let done = |id: &JobId| {
            let childless = state.derived.tasks.get(id).is_none_or(|c| c.jobs == 0);
            childless && state.arrays.get(id).is_some_and(Array::is_over)
        };
        if let Some(array) = array.filter(done) {
            state.remove_array(array);
        }
    }
    state.derived.interned.prune(ids.len());
}
