//! Submission: a number for the job, or the reason why not. The components of a heterogeneous job
//! get numbers in a row.

use std::sync::Arc;

use muster_model::ids::MAX_JOB_ID;
use muster_model::{JobId, JobSpec, Timestamp};

use crate::command::Submit;
use crate::event::Event;
use crate::rejection::Rejection;
use crate::state::State;

use super::admit::{self, Caller};
use super::het;
use super::{Decision, Reply};

pub(super) fn submit(
    state: &State,
    submit: &Submit,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let uid = submit.spec.user.uid;
    if let Some(job) = state.derived.requests.get(&(uid, submit.request_id)) {
        let reply = Reply::Submitted { job: *job, repeated: true };
        return Ok(Decision { events: Vec::new(), reply });
    }
    let caller = Caller { actor: submit.actor, groups: &submit.groups };
    let mut specs = het::joined(&submit.spec, &submit.components)?;
    for spec in &mut specs {
        admit::fresh(state, &caller, spec, now)?;
    }
    het::one_limit(&mut specs);
    let tasks = submit.spec.array.as_ref().map_or(1, |array| array.indices.len());
    let count = tasks.max(specs.len() as u64);
    let limit = state.config.limits.max_jobs;
    if state.derived.live.saturating_add(count) > u64::from(limit) {
        return Err(Rejection::QueueFull { limit });
    }
    let count = u32::try_from(count).map_err(|_| Rejection::QueueFull { limit })?;
    let job = free_id(state, count).ok_or(Rejection::QueueFull { limit })?;
    let ids = (job.0..).map(JobId);
    let submitted = |(id, spec): (JobId, JobSpec)| {
        let request_id = if id == job { submit.request_id } else { [0; 16] };
        submitted(state, id, request_id, spec, now)
    };
    let events = ids.zip(specs).map(submitted).collect();
    Ok(Decision { events, reply: Reply::Submitted { job, repeated: false } })
}

fn submitted(
    state: &State,
    job: JobId,
    request_id: [u8; 16],
    mut spec: JobSpec,
    at: Timestamp,
) -> Event {
    state.share(&mut spec);
    let expected = state.habits.expected(&spec);
    Event::Submitted { job, request_id, spec: Arc::new(spec), expected, at }
}

/// The first of `count` free numbers in a row, from `next_id` on and once around.
fn free_id(state: &State, count: u32) -> Option<JobId> {
    let first = state.config.limits.first_job_id.max(1);
    let begin = state.next_id.max(first);
    search(state, begin, count).or_else(|| search(state, first, count))
}

fn search(state: &State, mut from: u32, count: u32) -> Option<JobId> {
    loop {
        let to = from.checked_add(count)?;
        if to - 1 > MAX_JOB_ID {
            return None;
        }
        let job = state.jobs.range(JobId(from)..JobId(to)).next_back().map(|(id, _)| id.0 + 1);
        let array = state
            .arrays
            .range(..JobId(to))
            .next_back()
            .map(|(id, array)| id.0.saturating_add(array.count()))
            .filter(|end| *end > from);
        match job.max(array) {
            Some(next) => from = next,
            None => return Some(JobId(from)),
        }
    }
}
