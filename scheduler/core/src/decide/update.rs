//! Changing what a job asked for. What a pending job may change and a running one may not follows
//! from what its start has settled.

use muster_model::{JobSpec, TimeLimit, Timestamp};

use crate::apply::update::{changed_spec, moved};
use crate::command::{JobChange, Target, TimeChange};
use crate::config::{Actor, Role};
use crate::event::Event;
use crate::lifecycle::Phase;
use crate::rejection::Rejection;
use crate::state::State;

use super::admit::{self, Caller};
use super::target::{Part, each, key_of, may_touch, needs_operator};
use super::{Decision, hold};

pub(super) fn update(
    state: &State,
    actor: Actor,
    target: &Target,
    change: &JobChange,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    each(state, target, |part| {
        let (spec, job, array, tasks, pending) = match part {
            Part::Job(job) => {
                match &job.phase {
                    Phase::Ended { .. } => return Err(Rejection::AlreadyEnded(job.id)),
                    Phase::Pending { .. }
                    | Phase::Launching { .. }
                    | Phase::Running { .. }
                    | Phase::Completing { .. } => {}
                }
                let (id, tasks) = key_of(job);
                let array = job.array.map(|(array, _)| array);
                if !job.phase.is_pending() && settled_at_start(change) {
                    return Err(Rejection::NotPending(job.id));
                }
                (&job.spec, job.id, array, (id, tasks), job.phase.is_pending())
            }
            Part::Rest { array, tasks, whole } => {
                let tasks = (!whole).then(|| tasks.clone());
                (&array.spec, array.id, Some(array.id), (array.id, tasks), true)
            }
            Part::Gone(_, _, why) => return Err(why.clone()),
        };
        may_touch(actor, spec.user.uid, "changing")?;
        let mut change = change.clone();
        normalise(&mut change, spec, part, pending)?;
        let holds = change.priority == Some(0);
        change.priority = change.priority.filter(|p| *p > 0);
        permitted(state, actor, spec, part, &change, pending, now)?;
        if let Some(dependency) = &change.dependency {
            admit::dependencies(state, dependency)?;
            admit::no_loop(state, job, array, dependency)?;
        }
        if pending && settled_at_start(&change) || change.deadline.is_some() {
            let mut after = JobSpec::clone(&changed_spec(state, spec, &change));
            let caller = Caller { actor, groups: &[] };
            if change.partitions.is_some() {
                admit::partitions(state, &caller, &mut after)?;
            }
            admit::times(&after, now)?;
            if pending {
                admit::resources(state, &after)?;
            }
        }
        let (id, tasks) = tasks;
        let mut events = Vec::new();
        if holds && pending {
            let hold = hold::kind(actor, false);
            events.push(Event::Held { job: id, tasks: tasks.clone(), hold });
        }
        if change != JobChange::default() {
            events.push(Event::Updated { job: id, tasks, change: Box::new(change), at: now });
        }
        Ok(events)
    })
}

/// A change is logged as what it comes to, not as a step from something.
fn normalise(
    change: &mut JobChange,
    spec: &JobSpec,
    part: &Part<'_>,
    pending: bool,
) -> Result<(), Rejection> {
    match change.time_limit {
        Some(TimeChange::ByMinutes(by)) => {
            let limit = moved(spec.time_limit, by).unwrap_or(TimeLimit::Unlimited);
            change.time_limit = Some(TimeChange::To(limit));
        }
        Some(TimeChange::EndAt(at)) => {
            change.time_limit = Some(TimeChange::To(limit_until(part, at)?));
        }
        Some(TimeChange::To(_)) | None => {}
    }
    // A running job keeps its throttle in its array's record alone.
    if !pending {
        change.array_throttle = None;
    }
    Ok(())
}

/// The limit of a running job that ends then: whole minutes, not less.
fn limit_until(part: &Part<'_>, at: Timestamp) -> Result<TimeLimit, Rejection> {
    let (id, held) = match part {
        Part::Job(job) => (job.id, job.phase.allocation()),
        Part::Rest { array, .. } => (array.id, None),
        Part::Gone(_, _, why) => return Err(why.clone()),
    };
    let held = held.ok_or(Rejection::NotRunning(id))?;
    let from = held.started_at.unwrap_or(held.allocated_at);
    let minutes = (at.since(from).saturating_sub(held.suspended_ms) + 59_999) / 60_000;
    match u32::try_from(minutes) {
        Ok(minutes) if minutes > 0 => Ok(TimeLimit::minutes(minutes)),
        _ => Err(Rejection::BadTimeLimit(format!("the end is before the start of job {id}"))),
    }
}

/// What a start settles, so that it changes only before one. A time limit is not among these.
fn settled_at_start(change: &JobChange) -> bool {
    let limit_aside = JobChange {
        name: None,
        comment: None,
        account: None,
        time_limit: None,
        nice: None,
        priority: None,
        deadline: None,
        requeue: None,
        array_throttle: None,
        mail_type: None,
        mail_user: None,
        wckey: None,
        admin_comment: None,
        ..change.clone()
    };
    limit_aside != JobChange::default()
}

fn permitted(
    state: &State,
    actor: Actor,
    spec: &JobSpec,
    part: &Part<'_>,
    change: &JobChange,
    pending: bool,
    now: Timestamp,
) -> Result<(), Rejection> {
    if change.admin_comment.is_some() {
        needs_operator(actor, "setting an admin comment")?;
    }
    let texts = [&change.name, &change.comment, &change.admin_comment];
    if texts.into_iter().flatten().any(|text| text.contains(char::is_control)) {
        return Err(Rejection::BadValue("a text has control characters".to_owned()));
    }
    if let Some(TimeChange::To(limit)) = change.time_limit {
        let seconds =
            |limit: Option<TimeLimit>| limit.map_or(i64::MAX, |l| l.seconds().unwrap_or(i64::MAX));
        let raised = seconds(Some(limit)) > seconds(spec.time_limit);
        if raised && !pending {
            needs_operator(actor, "raising the time limit of a running job")?;
        }
        if pending && raised && actor.role < Role::Operator {
            let probe = JobSpec { time_limit: Some(limit), ..spec.clone() };
            admit::resources(state, &probe)?;
        }
    }
    if change.nice.is_some_and(|nice| nice < spec.nice) {
        needs_operator(actor, "lowering nice")?;
    }
    if let Some(priority) = change.priority {
        let view = match part {
            Part::Job(job) => state.find(job.id),
            Part::Rest { array, .. } => Some(crate::state::JobView::ArrayRest(array)),
            Part::Gone(..) => None,
        };
        let present = view.map_or(0, |view| state.priority(view, now));
        if priority > present {
            needs_operator(actor, "raising a priority")?;
        }
    }
    Ok(())
}
