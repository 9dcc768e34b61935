//! Heterogeneous jobs: components that are jobs of their own, with numbers in a row, and share one
//! fate. They start in one commit, run when every slice of each is ready, and what befalls one of
//! them (its end, a hold, a requeue) befalls all.

use muster_model::{Dependency, HetPart, JobSpec, TimeLimit, Timestamp};

use crate::apply::update::end_of;
use crate::event::{AfterCompleting, Event};
use crate::lifecycle::Phase;
use crate::rejection::Rejection;
use crate::state::{Job, State};

use super::cancel;

/// The specs of a submission, in the order of their numbers. When a job may start is said of the
/// whole, by its first component; the others ask for their own resources.
pub(super) fn joined(first: &JobSpec, others: &[JobSpec]) -> Result<Vec<JobSpec>, Rejection> {
    if others.is_empty() {
        return Ok(vec![JobSpec { het: None, ..first.clone() }]);
    }
    let total = others.len() + 1;
    if total > HetPart::MAX_COMPONENTS {
        let most = HetPart::MAX_COMPONENTS;
        let text = format!("a heterogeneous job has at most {most} components, not {total}");
        return Err(Rejection::BadValue(text));
    }
    if first.array.is_some() || others.iter().any(|spec| spec.array.is_some()) {
        let text = "a heterogeneous job cannot be an array".to_owned();
        return Err(Rejection::BadArray(text));
    }
    let count = u16::try_from(total).expect("the bound is below 65,536");
    let part = |index| Some(HetPart { index, count });
    let mut out = vec![JobSpec { het: part(0), ..first.clone() }];
    out.extend((1..).zip(others).map(|(index, spec)| JobSpec {
        het: part(index),
        user: first.user.clone(),
        begin: first.begin,
        deadline: None,
        dependency: Dependency::default(),
        held: first.held,
        nice: first.nice,
        priority: first.priority,
        requeue: first.requeue,
        ..spec.clone()
    }));
    Ok(out)
}

/// Components end together, so the longest limit is everybody's.
pub(super) fn one_limit(specs: &mut [JobSpec]) {
    if specs.len() < 2 {
        return;
    }
    let longer = |a: TimeLimit, b: TimeLimit| match (a.seconds(), b.seconds()) {
        (Some(x), Some(y)) if x < y => b,
        (Some(_), None) => b,
        (Some(_), Some(_)) | (None, _) => a,
    };
    let longest = specs.iter().filter_map(|spec| spec.time_limit).reduce(longer);
    for spec in specs {
        spec.time_limit = longest;
        spec.time_min = None;
    }
}

/// Adds what the facts about one component mean for the others.
pub(super) fn shared_fate(state: &State, mut events: Vec<Event>, now: Timestamp) -> Vec<Event> {
    let of = |event: &Event| touched(event).and_then(|id| state.jobs.get(&id));
    if !events.iter().any(|event| of(event).is_some_and(|job| job.spec.het.is_some())) {
        return events;
    }
    // Where several are hit at once, as by the loss of a node: all are on their way out before one
    // of them is over.
    let moves = |event: &Event| matches!(event, Event::Running { .. } | Event::Completing { .. });
    events.sort_by_key(|event| {
        !(moves(event) && of(event).is_some_and(|job| job.spec.het.is_some()))
    });
    let mut out: Vec<Event> = Vec::with_capacity(events.len());
    for event in &events {
        out.push(event.clone());
        let Some(job) = of(event).filter(|job| job.spec.het.is_some()) else { continue };
        for mate in state.mates_of(job) {
            for new in followed(event, mate, now) {
                if !out.iter().chain(&events).any(|old| same_kind(old, &new)) {
                    out.push(new);
                }
            }
        }
    }
    out
}

/// The job that a fact changes, where that concerns its mates.
fn touched(event: &Event) -> Option<muster_model::JobId> {
    match event {
        Event::Running { job, .. }
        | Event::Completing { job, .. }
        | Event::Ended { job, .. }
        | Event::Held { job, .. }
        | Event::Released { job, .. }
        | Event::Suspended { job, .. }
        | Event::Resumed { job, .. } => Some(*job),
        Event::Configured { .. }
        | Event::Submitted { .. }
        | Event::Started { .. }
        | Event::SliceReady { .. }
        | Event::SliceCleared { .. }
        | Event::Requeued { .. }
        | Event::TasksEnded { .. }
        | Event::Updated { .. }
        | Event::Registered { .. }
        | Event::NodeDrain { .. }
        | Event::NodeDown { .. }
        | Event::GpuDrain { .. }
        | Event::GpusFound { .. }
        | Event::NodeChanged { .. }
        | Event::PartitionChanged { .. }
        | Event::Purged { .. }
        | Event::ReservationSet { .. }
        | Event::ReservationGone { .. } => None,
    }
}

fn same_kind(old: &Event, new: &Event) -> bool {
    touched(old) == touched(new) && std::mem::discriminant(old) == std::mem::discriminant(new)
}

/// What a fact about one component means for another.
fn followed(event: &Event, mate: &Job, now: Timestamp) -> Vec<Event> {
    let (job, attempt) = (mate.id, mate.attempt);
    match (event, &mate.phase) {
        (Event::Running { started_at, .. }, Phase::Launching { held, .. }) => {
            let started_at = (*started_at).max(held.allocated_at);
            let end_at = end_of(&mate.spec, held.time_limit, started_at, 0);
            vec![Event::Running { job, attempt, started_at, end_at }]
        }
        (
            Event::Completing { outcome, then: then @ AfterCompleting::Requeue { .. }, .. },
            Phase::Launching { .. } | Phase::Running { .. },
        ) => {
            vec![Event::Completing { job, attempt, outcome: outcome.clone(), then: *then, at: now }]
        }
        (
            Event::Completing { outcome, then: AfterCompleting::End, .. }
            | Event::Ended { outcome, .. },
            _,
        ) => cancel::end(mate, outcome, now).unwrap_or_default(),
        (Event::Held { hold, .. }, Phase::Pending { .. }) => {
            vec![Event::Held { job, tasks: None, hold: *hold }]
        }
        (Event::Released { .. }, Phase::Pending { hold: Some(_), .. }) => {
            vec![Event::Released { job, tasks: None, at: now }]
        }
        (Event::Suspended { .. }, Phase::Running { suspended: None, .. }) => {
            vec![Event::Suspended { job, attempt, at: now }]
        }
        (Event::Resumed { end_at, .. }, Phase::Running { suspended: Some(_), .. }) => {
            vec![Event::Resumed { job, attempt, end_at: *end_at, at: now }]
        }
        (_, _) => Vec::new(),
    }
}
