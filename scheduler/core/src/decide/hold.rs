//! Holding pending jobs back, and letting them go.

use muster_model::{Hold, Timestamp};

use crate::command::Target;
use crate::config::{Actor, Role};
use crate::event::Event;
use crate::lifecycle::Phase;
use crate::rejection::Rejection;
use crate::state::State;

use super::Decision;
use super::target::{Part, each, key_of, may_touch};

/// An operator's hold is the admin's unless they ask for the user's (`uhold`).
pub(super) fn kind(actor: Actor, by_user: bool) -> Hold {
    if actor.role >= Role::Operator && !by_user { Hold::Admin } else { Hold::User }
}

pub(super) fn hold(
    state: &State,
    actor: Actor,
    target: &Target,
    by_user: bool,
) -> Result<Decision, Rejection> {
    let hold = kind(actor, by_user);
    each(state, target, |part| match part {
        Part::Job(job) => {
            may_touch(actor, job.uid(), "holding")?;
            match &job.phase {
                // An admin's hold is not weakened by the user's.
                Phase::Pending { hold: Some(Hold::Admin), .. } => Ok(Vec::new()),
                Phase::Pending { .. } => {
                    let (id, tasks) = key_of(job);
                    Ok(vec![Event::Held { job: id, tasks, hold }])
                }
                Phase::Launching { .. } | Phase::Running { .. } | Phase::Completing { .. } => {
                    Err(Rejection::NotPending(job.id))
                }
                Phase::Ended { .. } => Err(Rejection::AlreadyEnded(job.id)),
            }
        }
        Part::Rest { array, tasks, whole } => {
            may_touch(actor, array.uid(), "holding")?;
            let tasks = (!whole).then(|| tasks.clone());
            Ok(vec![Event::Held { job: array.id, tasks, hold }])
        }
        Part::Gone(_, _, why) => Err(why.clone()),
    })
}

pub(super) fn release(
    state: &State,
    actor: Actor,
    target: &Target,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let may_lift = |admin: bool| {
        if !admin || actor.role >= Role::Operator {
            return Ok(());
        }
        Err(Rejection::NotPermitted { what: "releasing a job that an operator holds".to_owned() })
    };
    each(state, target, |part| match part {
        Part::Job(job) => {
            may_touch(actor, job.uid(), "releasing")?;
            match &job.phase {
                Phase::Pending { hold: None, .. } => Ok(Vec::new()),
                Phase::Pending { hold: Some(hold), .. } => {
                    may_lift(*hold == Hold::Admin)?;
                    let (id, tasks) = key_of(job);
                    Ok(vec![Event::Released { job: id, tasks, at: now }])
                }
                Phase::Launching { .. } | Phase::Running { .. } | Phase::Completing { .. } => {
                    Err(Rejection::NotPending(job.id))
                }
                Phase::Ended { .. } => Err(Rejection::AlreadyEnded(job.id)),
            }
        }
        Part::Rest { array, tasks, whole } => {
            may_touch(actor, array.uid(), "releasing")?;
            let by_admin = tasks.intersection(&array.held_admin);
            may_lift(!by_admin.is_empty())?;
            if by_admin.is_empty() && tasks.intersection(&array.held_user).is_empty() {
                return Ok(Vec::new());
            }
            let tasks = (!whole).then(|| tasks.clone());
            Ok(vec![Event::Released { job: array.id, tasks, at: now }])
        }
        Part::Gone(_, _, why) => Err(why.clone()),
    })
}
