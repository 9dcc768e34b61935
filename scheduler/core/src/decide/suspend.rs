//! Stopping a running job's processes for a while. It keeps what it holds, and its time limit
//! moves by as long as it was stopped.

use muster_model::Timestamp;

use crate::command::Target;
use crate::config::Actor;
use crate::event::Event;
use crate::lifecycle::Phase;
use crate::rejection::Rejection;
use crate::state::State;

use super::Decision;
use super::target::{Part, each, needs_operator};

pub(super) fn suspend(
    state: &State,
    actor: Actor,
    target: &Target,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    needs_operator(actor, "suspending jobs")?;
    each(state, target, |part| match part {
        Part::Job(job) => match &job.phase {
            Phase::Running { suspended: None, .. } => {
                Ok(vec![Event::Suspended { job: job.id, attempt: job.attempt, at: now }])
            }
            Phase::Running { suspended: Some(_), .. } => Err(Rejection::Suspended(job.id)),
            Phase::Pending { .. } | Phase::Launching { .. } | Phase::Completing { .. } => {
                Err(Rejection::NotRunning(job.id))
            }
            Phase::Ended { .. } => Err(Rejection::AlreadyEnded(job.id)),
        },
        Part::Rest { array, .. } => Err(Rejection::NotRunning(array.id)),
        Part::Gone(_, _, why) => Err(why.clone()),
    })
}

pub(super) fn resume(
    state: &State,
    actor: Actor,
    target: &Target,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    needs_operator(actor, "resuming jobs")?;
    each(state, target, |part| match part {
        Part::Job(job) => match &job.phase {
            Phase::Running { held, suspended: Some(since) } => {
                let moved = |end: Timestamp| Timestamp(end.0.saturating_add(now.since(*since)));
                let end_at = match (held.end_at.map(moved), job.spec.deadline) {
                    (Some(end), Some(deadline)) => Some(end.min(deadline)),
                    (end, deadline) => end.or(deadline),
                };
                Ok(vec![Event::Resumed { job: job.id, attempt: job.attempt, end_at, at: now }])
            }
            Phase::Pending { .. }
            | Phase::Launching { .. }
            | Phase::Running { suspended: None, .. }
            | Phase::Completing { .. } => Err(Rejection::NotSuspended(job.id)),
            Phase::Ended { .. } => Err(Rejection::AlreadyEnded(job.id)),
        },
        Part::Rest { array, .. } => Err(Rejection::NotSuspended(array.id)),
        Part::Gone(_, _, why) => Err(why.clone()),
    })
}
