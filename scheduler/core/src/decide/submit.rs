//! Submission: a number for the job, or the reason why not.

use std::sync::Arc;

use muster_model::ids::MAX_JOB_ID;
use muster_model::{JobId, Timestamp};

use crate::command::Submit;
use crate::event::Event;
use crate::rejection::Rejection;
use crate::state::State;

use super::admit::{self, Caller};
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
    let mut spec = submit.spec.clone();
    let caller = Caller { actor: submit.actor, groups: &submit.groups };
    admit::fresh(state, &caller, &mut spec, now)?;
    let count = spec.array.as_ref().map_or(1, |array| array.indices.len());
    let limit = state.config.limits.max_jobs;
    if state.derived.live.saturating_add(count) > u64::from(limit) {
        return Err(Rejection::QueueFull { limit });
    }
    let count = u32::try_from(count).map_err(|_| Rejection::QueueFull { limit })?;
    let job = free_id(state, count).ok_or(Rejection::QueueFull { limit })?;
    state.share(&mut spec);
    let expected = state.habits.expected(&spec);
    let (request_id, spec) = (submit.request_id, Arc::new(spec));
    let event = Event::Submitted { job, request_id, spec, expected, at: now };
    Ok(Decision { events: vec![event], reply: Reply::Submitted { job, repeated: false } })
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
