//! Changes to what a job asked for.

use std::sync::Arc;

use muster_model::{
    IndexSet, JobId, JobSpec, LaunchSpec, NodeCount, Request, Seconds, TimeLimit, Timestamp,
};

use crate::command::{JobChange, TimeChange};
use crate::lifecycle::Phase;
use crate::state::State;

use super::array::materialise;
use super::job::{task_index, terms_of};

pub(super) fn updated(state: &mut State, id: JobId, tasks: Option<&IndexSet>, change: &JobChange) {
    match (state.arrays.contains_key(&id), tasks) {
        (true, None) => array(state, id, change),
        (false, _) => job(state, id, change),
        (true, Some(tasks)) => {
            for index in tasks.iter() {
                let Some(task) = state.arrays[&id].task_id(index) else { continue };
                if !state.jobs.contains_key(&task) {
                    let own = materialise(state, task);
                    state.insert_job(own);
                }
                job(state, task, change);
            }
        }
    }
}

fn array(state: &mut State, id: JobId, change: &JobChange) {
    let clock = state.clock;
    let spec = changed_spec(state, &state.arrays[&id].spec, change);
    let terms =
        change.dependency.is_some().then(|| terms_of(state, &spec, Some(&state.arrays[&id].full)));
    state.change_array(id, |array| {
        array.spec = spec;
        if let Some(terms) = terms {
            array.terms = terms;
        }
        if let Some(throttle) = change.array_throttle {
            array.throttle = (throttle > 0).then_some(throttle);
        }
        if let Some(begin) = change.begin {
            array.eligible_at = begin.max(clock);
        }
    });
}

fn job(state: &mut State, id: JobId, change: &JobChange) {
    let clock = state.clock;
    let old = &state.jobs[&id];
    let spec = changed_spec(state, &old.spec, change);
    let own = task_index(old);
    let terms = change.dependency.is_some().then(|| terms_of(state, &spec, own.as_ref()));
    state.change_job(id, |job| {
        job.spec = spec;
        if let Some(terms) = terms {
            job.terms = terms;
        }
        match &mut job.phase {
            Phase::Pending { eligible_at, .. } => {
                if let Some(begin) = change.begin {
                    *eligible_at = begin.max(clock);
                }
            }
            Phase::Launching { held, .. } | Phase::Running { held, .. } => {
                if change.time_limit.is_some() {
                    held.time_limit = None;
                }
                if change.time_limit.is_some() || change.deadline.is_some() {
                    let from = held.started_at.unwrap_or(held.allocated_at);
                    let moved = end_of(&job.spec, held.time_limit, from, held.suspended_ms);
                    held.end_at = moved;
                }
            }
            Phase::Completing { .. } | Phase::Ended { .. } => {}
        }
    });
}

/// When a job that began at `from` must end: its limit (or the one `chosen` at its start) or its
/// deadline, whichever is first.
pub(crate) fn end_of(
    spec: &JobSpec,
    chosen: Option<Seconds>,
    from: Timestamp,
    suspended_ms: i64,
) -> Option<Timestamp> {
    let limit = chosen.map(TimeLimit::Limited).or(spec.time_limit).and_then(TimeLimit::seconds);
    let end = limit.map(|s| Timestamp(from.plus_seconds(s).0.saturating_add(suspended_ms)));
    match (end, spec.deadline) {
        (Some(end), Some(deadline)) => Some(end.min(deadline)),
        (end, deadline) => end.or(deadline),
    }
}

/// The spec with a change in it.
pub(crate) fn changed_spec(state: &State, old: &Arc<JobSpec>, change: &JobChange) -> Arc<JobSpec> {
    let mut spec = JobSpec::clone(old);
    let request = changed_request(&spec.request, change);
    if request != *spec.request {
        let request = Arc::new(request);
        spec.request = state.interned(&request).unwrap_or(request);
    }
    let to = |field: &mut Box<str>, new: &Option<Box<str>>| {
        if let Some(new) = new {
            field.clone_from(new);
        }
    };
    to(&mut spec.name, &change.name);
    to(&mut spec.comment, &change.comment);
    to(&mut spec.account, &change.account);
    to(&mut spec.qos, &change.qos);
    to(&mut spec.wckey, &change.wckey);
    let mut launch = LaunchSpec::clone(&spec.launch);
    to(&mut launch.workdir, &change.workdir);
    to(&mut launch.mail_type, &change.mail_type);
    to(&mut launch.mail_user, &change.mail_user);
    to(&mut launch.admin_comment, &change.admin_comment);
    if change.stdout.is_some() {
        launch.stdout.clone_from(&change.stdout);
    }
    if change.stderr.is_some() {
        launch.stderr.clone_from(&change.stderr);
    }
    if launch != *spec.launch {
        spec.launch = Arc::new(launch);
    }
    match change.time_limit {
        Some(TimeChange::To(limit)) => spec.time_limit = Some(limit),
        Some(TimeChange::ByMinutes(by)) => spec.time_limit = moved(spec.time_limit, by),
        // Only a decision knows of whose start: it has made a limit of it.
        Some(TimeChange::EndAt(_)) | None => {}
    }
    if let Some(partitions) = &change.partitions {
        spec.partitions.clone_from(partitions);
    }
    if let Some(nice) = change.nice {
        spec.nice = nice;
        spec.priority = None;
    }
    if change.priority.is_some() {
        spec.priority = change.priority;
    }
    if let Some(dependency) = &change.dependency {
        spec.dependency = dependency.clone();
    }
    let time = |at: Timestamp| (at != Timestamp(0)).then_some(at);
    if let Some(begin) = change.begin {
        spec.begin = time(begin);
    }
    if let Some(deadline) = change.deadline {
        spec.deadline = time(deadline);
    }
    if change.requeue.is_some() {
        spec.requeue = change.requeue;
    }
    if let Some(name) = &change.reservation {
        spec.reservation = (!name.is_empty()).then(|| name.clone());
    }
    if let Some(licenses) = &change.licenses {
        spec.licenses.clone_from(licenses);
    }
    if let Some(throttle) = change.array_throttle
        && let Some(array) = &mut spec.array
    {
        array.throttle = (throttle > 0).then_some(throttle);
    }
    Arc::new(spec)
}

/// A limit moved by minutes; never below one minute.
pub(crate) fn moved(limit: Option<TimeLimit>, by: i32) -> Option<TimeLimit> {
    match limit {
        Some(TimeLimit::Limited(seconds)) => {
            let seconds = i64::from(seconds.0) + i64::from(by) * 60;
            let seconds = u32::try_from(seconds.max(60)).unwrap_or(u32::MAX);
            Some(TimeLimit::Limited(muster_model::Seconds(seconds)))
        }
        unlimited @ (Some(TimeLimit::Unlimited) | None) => unlimited,
    }
}

/// The request with a change in it.
pub(crate) fn changed_request(old: &Request, change: &JobChange) -> Request {
    let mut request = old.clone();
    if let Some(min) = change.min_nodes {
        request.nodes = NodeCount { min, max: request.nodes.max.map(|max| max.max(min)) };
    }
    if let Some(max) = change.max_nodes {
        request.nodes.max = (max > 0).then_some(max);
    }
    if let Some(tasks) = change.tasks {
        (request.tasks, request.tasks_given) = (tasks, true);
    }
    if let Some(cpus) = change.cpus_per_task {
        request.cpus_per_task = cpus;
    }
    if let Some(memory) = change.memory {
        request.memory = memory;
    }
    if let Some(constraint) = &change.constraint {
        request.constraint.clone_from(constraint);
    }
    if let Some(gres) = &change.gres {
        request.gres.clone_from(gres);
    }
    if let Some(nodes) = &change.required_nodes {
        request.required_nodes.clone_from(nodes);
    }
    if let Some(nodes) = &change.excluded_nodes {
        request.excluded_nodes.clone_from(nodes);
    }
    if let Some(contiguous) = change.contiguous {
        request.contiguous = contiguous;
    }
    if let Some(wish) = change.switches {
        request.topology.switches = (wish.count > 0).then_some(wish);
    }
    request
}
