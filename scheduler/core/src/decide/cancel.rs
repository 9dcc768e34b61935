//! Cancelling: pending jobs end at once, others are stopped.

use muster_model::{Outcome, Timestamp};

use crate::command::Target;
use crate::config::Actor;
use crate::event::{AfterCompleting, Event};
use crate::lifecycle::Phase;
use crate::rejection::Rejection;
use crate::state::{Job, State};

use super::Decision;
use super::target::{Part, each, may_touch};

pub(super) fn cancel(
    state: &State,
    actor: Actor,
    target: &Target,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let outcome = Outcome::Cancelled { by: actor.uid };
    each(state, target, |part| match part {
        Part::Job(job) => {
            may_touch(actor, job.uid(), "cancelling")?;
            end(job, &outcome, now)
        }
        Part::Rest { array, tasks, .. } => {
            may_touch(actor, array.uid(), "cancelling")?;
            let (tasks, outcome) = (tasks.clone(), outcome.clone());
            Ok(vec![Event::TasksEnded { job: array.id, tasks, outcome, at: now }])
        }
        Part::Gone(_, _, why) => Err(why.clone()),
    })
}

/// Ends a job with this outcome, whatever it is doing.
pub(super) fn end(job: &Job, outcome: &Outcome, now: Timestamp) -> Result<Vec<Event>, Rejection> {
    let (id, attempt, outcome) = (job.id, job.attempt, outcome.clone());
    let stop = |outcome| {
        let then = AfterCompleting::End;
        vec![Event::Completing { job: id, attempt, outcome, then, at: now }]
    };
    Ok(match &job.phase {
        Phase::Pending { .. } => vec![Event::Ended { job: id, attempt, outcome, at: now }],
        Phase::Launching { .. } | Phase::Running { .. } => stop(outcome),
        Phase::Completing { then: AfterCompleting::Requeue { .. }, .. } => stop(outcome),
        // It is on its way out already.
        Phase::Completing { then: AfterCompleting::End, .. } => Vec::new(),
        Phase::Ended { .. } => return Err(Rejection::AlreadyEnded(id)),
    })
}
