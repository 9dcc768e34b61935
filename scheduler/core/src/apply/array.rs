//! Tasks of an array: singled out, held, released, ended before they started.

use std::sync::Arc;

use muster_model::{Attempt, Hold, IndexSet, JobId, Outcome, Timestamp};

use crate::lifecycle::{Phase, Step};
use crate::state::{Array, Job, Place, State, Unstarted};

use super::job::{settle_dependents, step, terms_of};

/// Takes a pending task out of its array and makes it a job, which is not in the state yet.
pub(super) fn materialise(state: &mut State, id: JobId) -> Job {
    let array = state.array_owning(id).expect("facts name jobs or tasks that exist");
    let index = array.index_of(id).expect("an array owns its ids");
    assert!(array.pending.contains(index), "task {id} of array {} is not pending", array.id);
    let hold = match (array.held_admin.contains(index), array.held_user.contains(index)) {
        (true, _) => Some(Hold::Admin),
        (false, true) => Some(Hold::User),
        (false, false) => None,
    };
    let job = Job {
        id,
        array: Some((array.id, index)),
        spec: Arc::clone(&array.spec),
        request_id: [0; 16],
        submitted_at: array.submitted_at,
        expected: array.expected,
        attempt: Attempt(0),
        failures: 0,
        phase: Phase::Pending { eligible_at: array.eligible_at, hold },
        terms: terms_of_task(state, array, index),
        last: None,
        place: Place::Nowhere,
    };
    state.change_array(job.array.map_or(id, |(array, _)| array), |array| {
        array.pending.remove(index);
        array.held_user.remove(index);
        array.held_admin.remove(index);
    });
    job
}

/// A task's terms: the array's where they are settled.
fn terms_of_task(state: &State, array: &Array, index: u32) -> Box<[crate::state::TermState]> {
    use crate::state::TermState;
    let now = terms_of(state, &array.spec, Some(&IndexSet::one(index)));
    let pick = |(old, now): (&TermState, TermState)| match old {
        TermState::Met { .. } | TermState::Never => old.clone(),
        TermState::Each { ok, .. } if ok.contains(index) => {
            TermState::Each { ok: IndexSet::one(index), never: IndexSet::default() }
        }
        TermState::Waiting | TermState::Each { .. } => now,
    };
    array.terms.iter().zip(now).map(pick).collect()
}

/// Splits tasks into those that are jobs of their own and those of the array's rest.
fn split(state: &State, array: &Array, tasks: &IndexSet) -> (Vec<JobId>, IndexSet) {
    let own = state
        .tasks_of(array)
        .filter(|job| job.array.is_some_and(|(_, index)| tasks.contains(index)))
        .filter(|job| job.phase.is_pending())
        .map(|job| job.id)
        .collect();
    (own, tasks.intersection(&array.pending))
}

/// What a hold or release is about: jobs, and tasks of an array's rest.
fn affected(state: &State, id: JobId, tasks: Option<&IndexSet>) -> (Vec<JobId>, Option<IndexSet>) {
    match (state.arrays.get(&id), tasks) {
        (None, _) => (vec![id], None),
        (Some(array), None) => (Vec::new(), Some(array.pending.clone())),
        (Some(array), Some(tasks)) => {
            let (own, rest) = split(state, array, tasks);
            (own, Some(rest))
        }
    }
}

pub(super) fn held(state: &mut State, id: JobId, tasks: Option<&IndexSet>, hold: Hold) {
    let (own, rest) = affected(state, id, tasks);
    for job in own {
        step(state, job, Step::Hold(hold));
    }
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { return };
    state.change_array(id, |array| match hold {
        Hold::User | Hold::MaxRequeue | Hold::LaunchFailed => {
            array.held_user = array.held_user.union(&rest);
        }
        Hold::Admin => array.held_admin = array.held_admin.union(&rest),
    });
}

pub(super) fn released(state: &mut State, id: JobId, tasks: Option<&IndexSet>, at: Timestamp) {
    let (own, rest) = affected(state, id, tasks);
    for job in own {
        state.change_job(job, |job| job.failures = 0);
        step(state, job, Step::Release { at });
    }
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { return };
    state.change_array(id, |array| {
        array.held_user = array.held_user.difference(&rest);
        array.held_admin = array.held_admin.difference(&rest);
        array.eligible_at = array.eligible_at.max(at);
    });
}

pub(super) fn tasks_ended(
    state: &mut State,
    id: JobId,
    tasks: &IndexSet,
    outcome: &Outcome,
    at: Timestamp,
) {
    state.change_array(id, |array| {
        array.pending = array.pending.difference(tasks);
        array.held_user = array.held_user.difference(tasks);
        array.held_admin = array.held_admin.difference(tasks);
        array.bad = array.bad.union(tasks);
        array.unstarted.push(Unstarted { tasks: tasks.clone(), outcome: outcome.clone(), at });
        array.last_start = array.last_start.max(at);
        array.last_end = at;
    });
    // Waiters for single tasks are indexed under the tasks' own ids or the array's.
    settle_dependents(state, id);
    let ids: Vec<JobId> = {
        let array = &state.arrays[&id];
        let end = JobId(id.0.saturating_add(array.count()));
        let of_tasks = state.derived.dependents.range(JobId(id.0 + 1)..end.max(JobId(id.0 + 1)));
        of_tasks.map(|(id, _)| *id).collect()
    };
    for task in ids {
        settle_dependents(state, task);
    }
}
