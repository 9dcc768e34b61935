//! Which jobs a verb is about, and whether the caller may touch them.

use muster_model::{IndexSet, JobId, Uid};

use crate::command::Target;
use crate::config::{Actor, Role};
use crate::event::Event;
use crate::rejection::Rejection;
use crate::state::{Array, Job, State};

use super::{Decision, JobResult, Reply};

/// One thing that a verb is about.
pub(super) enum Part<'a> {
    Job(&'a Job),
    /// Pending tasks that are no jobs of their own; `whole`: all that the array has.
    Rest {
        array: &'a Array,
        tasks: IndexSet,
        whole: bool,
    },
    /// Asked for and not there.
    Gone(JobId, Option<IndexSet>, Rejection),
}

/// How facts name a job that may be an array's task.
pub(super) fn key_of(job: &Job) -> (JobId, Option<IndexSet>) {
    job.array.map_or((job.id, None), |(array, index)| (array, Some(IndexSet::one(index))))
}

/// Operators may do anything to anybody's jobs, others what they like to their own.
pub(super) fn may_touch(actor: Actor, uid: Uid, what: &str) -> Result<(), Rejection> {
    if actor.uid == uid || actor.role >= Role::Operator {
        return Ok(());
    }
    Err(Rejection::NotPermitted { what: format!("{what} another user's job") })
}

pub(super) fn needs_operator(actor: Actor, what: &str) -> Result<(), Rejection> {
    if actor.role >= Role::Operator {
        return Ok(());
    }
    Err(Rejection::NotPermitted { what: what.to_owned() })
}

/// Resolves a target. An array's id means all its tasks.
pub(super) fn parts<'a>(state: &'a State, target: &Target) -> Result<Vec<Part<'a>>, Rejection> {
    match target {
        Target::Job(id) => match (state.arrays.get(id), state.jobs.get(id)) {
            (Some(array), _) => whole_array(state, array),
            (None, Some(job)) => Ok(vec![Part::Job(job)]),
            (None, None) => {
                let array = state.array_owning(*id).ok_or(Rejection::UnknownJob(*id))?;
                let index = array.index_of(*id).ok_or(Rejection::UnknownJob(*id))?;
                Ok(some_tasks(state, array, &IndexSet::one(index)))
            }
        },
        Target::Tasks(id, tasks) => match state.arrays.get(id) {
            Some(array) => Ok(some_tasks(state, array, tasks)),
            None if state.jobs.contains_key(id) => {
                Err(Rejection::UnknownTask(*id, tasks.first().unwrap_or(0)))
            }
            None => Err(Rejection::UnknownJob(*id)),
        },
    }
}

fn whole_array<'a>(state: &'a State, array: &'a Array) -> Result<Vec<Part<'a>>, Rejection> {
    let live = state.tasks_of(array).filter(|job| !job.phase.is_ended());
    let mut out: Vec<Part<'a>> = live.map(Part::Job).collect();
    if !array.pending.is_empty() {
        out.push(Part::Rest { array, tasks: array.pending.clone(), whole: true });
    }
    if out.is_empty() { Err(Rejection::AlreadyEnded(array.id)) } else { Ok(out) }
}

fn some_tasks<'a>(state: &'a State, array: &'a Array, tasks: &IndexSet) -> Vec<Part<'a>> {
    let wanted = |job: &&Job| job.array.is_some_and(|(_, index)| tasks.contains(index));
    let own: Vec<&Job> = state.tasks_of(array).filter(wanted).collect();
    let own_set = IndexSet::from_ranges(
        own.iter().filter_map(|job| job.array.map(|(_, i)| (i, i))).collect(),
    );
    let rest = tasks.intersection(&array.pending);
    let unknown = tasks.difference(&array.full);
    let ended = tasks.intersection(&array.full).difference(&array.pending).difference(&own_set);
    let mut out: Vec<Part<'a>> = own.into_iter().map(Part::Job).collect();
    if !rest.is_empty() {
        out.push(Part::Rest { array, tasks: rest, whole: false });
    }
    if let Some(first) = unknown.first() {
        let why = Rejection::UnknownTask(array.id, first);
        out.push(Part::Gone(array.id, Some(unknown), why));
    }
    if !ended.is_empty() {
        out.push(Part::Gone(array.id, Some(ended), Rejection::AlreadyEnded(array.id)));
    }
    out
}

/// Runs a verb over all parts of a target and gathers facts and answers.
pub(super) fn each<'a>(
    state: &'a State,
    target: &Target,
    mut verb: impl FnMut(&Part<'a>) -> Result<Vec<Event>, Rejection>,
) -> Result<Decision, Rejection> {
    let (mut events, mut results) = (Vec::new(), Vec::new());
    for part in parts(state, target)? {
        let (job, tasks) = match &part {
            Part::Job(job) => key_of(job),
            Part::Rest { array, tasks, .. } => (array.id, Some(tasks.clone())),
            Part::Gone(job, tasks, _) => (*job, tasks.clone()),
        };
        let result = match &part {
            Part::Gone(_, _, why) => Err(why.clone()),
            Part::Job(_) | Part::Rest { .. } => verb(&part).map(|mut new| events.append(&mut new)),
        };
        results.push(JobResult { job, tasks, result });
    }
    Ok(Decision { events, reply: Reply::Jobs(results) })
}
