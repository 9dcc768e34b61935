//! Putting a running job back into the queue.

use muster_model::{JobSpec, Outcome, Timestamp};

use crate::command::Target;
use crate::config::Actor;
use crate::event::{AfterCompleting, Event};
use crate::lifecycle::Phase;
use crate::rejection::Rejection;
use crate::state::State;

use super::Decision;
use super::hold::kind;
use super::target::{Part, each, key_of, may_touch};

/// Whether a job may run again from the start.
pub(super) fn enabled(state: &State, spec: &JobSpec) -> bool {
    spec.requeue.unwrap_or(state.config.limits.requeue_by_default)
}

/// When a job that is requeued now may start again.
pub(super) fn eligible_at(state: &State, now: Timestamp) -> Timestamp {
    now.plus_seconds(i64::from(state.config.limits.requeue_delay_seconds))
}

pub(super) fn requeue(
    state: &State,
    actor: Actor,
    target: &Target,
    hold: bool,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    each(state, target, |part| match part {
        Part::Job(job) => {
            may_touch(actor, job.uid(), "requeueing")?;
            if !enabled(state, &job.spec) {
                return Err(Rejection::RequeueDisabled(job.id));
            }
            let held = hold.then(|| kind(actor, false));
            match &job.phase {
                Phase::Pending { .. } => match held {
                    Some(hold) => {
                        let (id, tasks) = key_of(job);
                        Ok(vec![Event::Held { job: id, tasks, hold }])
                    }
                    None => Err(Rejection::NotRunning(job.id)),
                },
                Phase::Launching { .. } | Phase::Running { .. } => Ok(vec![Event::Completing {
                    job: job.id,
                    attempt: job.attempt,
                    outcome: Outcome::Cancelled { by: actor.uid },
                    then: AfterCompleting::Requeue {
                        hold: held,
                        eligible_at: eligible_at(state, now),
                    },
                    at: now,
                }]),
                Phase::Completing { .. } => Err(Rejection::NotRunning(job.id)),
                Phase::Ended { .. } => Err(Rejection::AlreadyEnded(job.id)),
            }
        }
        Part::Rest { array, tasks, .. } => {
            may_touch(actor, array.uid(), "requeueing")?;
            if !hold {
                return Err(Rejection::NotRunning(array.id));
            }
            let (tasks, hold) = (Some(tasks.clone()), kind(actor, false));
            Ok(vec![Event::Held { job: array.id, tasks, hold }])
        }
        Part::Gone(_, _, why) => Err(why.clone()),
    })
}
