//! What agents report of slices. A report about an older attempt, or about a slice that is
//! cleared, tells nothing new and leads to no fact.

use muster_model::node::Mark;
use muster_model::{Attempt, JobId, NodeId, Outcome, Timestamp};

use crate::apply::update::end_of;
use crate::command::{SliceExit, SliceReport};
use crate::event::{AfterCompleting, ClearedExit, Event};
use crate::lifecycle::{Allocation, Phase};
use crate::state::{Job, State};

use super::Decision;
use super::gpu;
use super::requeue::{eligible_at, enabled};

pub(super) fn report(
    state: &State,
    job: JobId,
    attempt: Attempt,
    node: NodeId,
    report: &SliceReport,
    now: Timestamp,
) -> Decision {
    let current = state.jobs.get(&job).filter(|job| job.attempt == attempt);
    let held = current.and_then(|job| job.phase.allocation().map(|held| (job, held)));
    let live = held.filter(|(_, held)| held.remaining.contains(&node));
    let mut events = drained(state, node, report, now);
    if let Some((job, held)) = live {
        events.extend(told(state, job, held, node, report, now));
    }
    Decision::done(events)
}

/// A node that says it is at fault is drained, whatever became of the job meanwhile.
fn drained(state: &State, node: NodeId, report: &SliceReport, now: Timestamp) -> Vec<Event> {
    match report {
        SliceReport::LaunchFailed { reason, node_fault: true } => {
            let free = state.node(node).is_some_and(|n| n.health.drain.is_none());
            let mark = Mark { reason: reason.clone(), by: None, at: now };
            free.then_some(Event::NodeDrain { node, mark: Some(mark) }).into_iter().collect()
        }
        SliceReport::LaunchFailed { node_fault: false, .. }
        | SliceReport::Ready
        | SliceReport::Running { .. }
        | SliceReport::Finished { .. }
        | SliceReport::Lost { .. } => Vec::new(),
    }
}

fn told(
    state: &State,
    job: &Job,
    held: &Allocation,
    node: NodeId,
    report: &SliceReport,
    now: Timestamp,
) -> Vec<Event> {
    let batch = held.batch_node() == Some(node) && !job.follows();
    match (report, &job.phase) {
        (SliceReport::Ready, Phase::Launching { ready, .. }) if !ready.contains(&node) => {
            vec![Event::SliceReady { job: job.id, attempt: job.attempt, node }]
        }
        (SliceReport::Ready, _) => Vec::new(),
        (SliceReport::Running { started_at }, Phase::Launching { .. }) if batch => {
            vec![running(job, held, *started_at, now)]
        }
        (SliceReport::Running { .. }, _) => Vec::new(),
        (SliceReport::Finished { exit }, Phase::Completing { .. }) => {
            clear(job, held, node, exit.filter(|_| batch).map(kept), now)
        }
        (SliceReport::Finished { exit: Some(exit) }, _) if batch => {
            finished(state, job, held, node, *exit, now)
        }
        (SliceReport::Finished { .. }, _) => lost(state, job, held, node, now),
        (SliceReport::LaunchFailed { .. } | SliceReport::Lost { .. }, Phase::Completing { .. }) => {
            clear(job, held, node, None, now)
        }
        (SliceReport::LaunchFailed { node_fault, .. }, _) => {
            let then = after_failed_launch(state, job, *node_fault, now);
            give_up(job, held, node, Outcome::BootFail, then, now)
        }
        (SliceReport::Lost { .. }, _) => lost(state, job, held, node, now),
    }
}

/// An agent's clock may be off: a start lies between the allocation and now.
fn running(job: &Job, held: &Allocation, started_at: Timestamp, now: Timestamp) -> Event {
    let started_at = started_at.min(now).max(held.allocated_at);
    let end_at = end_of(&job.spec, held.time_limit, started_at, 0);
    Event::Running { job: job.id, attempt: job.attempt, started_at, end_at }
}

fn finished(
    state: &State,
    job: &Job,
    held: &Allocation,
    node: NodeId,
    exit: SliceExit,
    now: Timestamp,
) -> Vec<Event> {
    let mut events = Vec::new();
    match &job.phase {
        Phase::Launching { .. } => events.push(running(job, held, exit.started_at, now)),
        Phase::Pending { .. }
        | Phase::Running { .. }
        | Phase::Completing { .. }
        | Phase::Ended { .. } => {}
    }
    let mut outcome = outcome_of(&exit);
    let mut then = AfterCompleting::End;
    // A program whose GPU is gone ends by itself, often before anybody ends it.
    if matches!(outcome, Outcome::Failed(_)) && gpu::is_to_blame(state, job, node) {
        (outcome, then) = node_failure(state, job, node, now);
        events.extend(gpu::elsewhere(state, job, node, now));
    }
    let (id, attempt) = (job.id, job.attempt);
    events.push(Event::Completing { job: id, attempt, outcome: outcome.clone(), then, at: now });
    let exit = Some(kept(exit));
    events.push(Event::SliceCleared { job: id, attempt, node, exit });
    events.extend(over(job, held, node, &outcome, then, now));
    events
}

fn outcome_of(exit: &SliceExit) -> Outcome {
    let clean = exit.status.code == 0 && exit.status.signal == 0;
    match (exit.timed_out, exit.oom, clean) {
        (true, _, _) => Outcome::Timeout,
        (false, true, _) => Outcome::OutOfMemory,
        (false, false, true) => Outcome::Completed,
        (false, false, false) => Outcome::Failed(exit.status),
    }
}

fn kept(exit: SliceExit) -> ClearedExit {
    let SliceExit { status, started_at, ended_at, usage, oom: _, timed_out: _ } = exit;
    ClearedExit { status, started_at, ended_at, usage }
}

/// A slice is gone without an end of its own.
pub(super) fn lost(
    state: &State,
    job: &Job,
    held: &Allocation,
    node: NodeId,
    now: Timestamp,
) -> Vec<Event> {
    let others = held.remaining.iter().any(|n| *n != node);
    let goes_on = match &job.phase {
        Phase::Completing { .. } => return clear(job, held, node, None, now),
        Phase::Running { .. } => {
            job.spec.launch.no_kill && others && held.batch_node() != Some(node)
        }
        Phase::Pending { .. } | Phase::Launching { .. } | Phase::Ended { .. } => false,
    };
    if goes_on {
        return vec![Event::SliceCleared { job: job.id, attempt: job.attempt, node, exit: None }];
    }
    let (outcome, then) = node_failure(state, job, node, now);
    give_up(job, held, node, outcome, then, now)
}

/// What a job comes to when one of its nodes fails it.
pub(super) fn node_failure(
    state: &State,
    job: &Job,
    node: NodeId,
    now: Timestamp,
) -> (Outcome, AfterCompleting) {
    let name = state.node(node).map(|n| n.config.name.clone()).unwrap_or_default();
    let then = match enabled(state, &job.spec) {
        true => AfterCompleting::Requeue { hold: None, eligible_at: eligible_at(state, now) },
        false => AfterCompleting::End,
    };
    (Outcome::NodeFail { node: name }, then)
}

/// Nothing of the job ran: it is tried again, unless that failed too often, or the fault is its
/// own and it was not to be requeued.
fn after_failed_launch(
    state: &State,
    job: &Job,
    node_fault: bool,
    now: Timestamp,
) -> AfterCompleting {
    let too_often = job.failures + 1 >= state.config.limits.max_requeues.max(1);
    if !node_fault && !enabled(state, &job.spec) {
        return AfterCompleting::End;
    }
    let hold = too_often.then_some(muster_model::Hold::MaxRequeue);
    AfterCompleting::Requeue { hold, eligible_at: eligible_at(state, now) }
}

/// Ends the attempt on account of one slice, which is clear.
fn give_up(
    job: &Job,
    held: &Allocation,
    node: NodeId,
    outcome: Outcome,
    then: AfterCompleting,
    now: Timestamp,
) -> Vec<Event> {
    let (id, attempt) = (job.id, job.attempt);
    let mut events = vec![
        Event::Completing { job: id, attempt, outcome: outcome.clone(), then, at: now },
        Event::SliceCleared { job: id, attempt, node, exit: None },
    ];
    events.extend(over(job, held, node, &outcome, then, now));
    events
}

/// A slice of a completing job is clear.
fn clear(
    job: &Job,
    held: &Allocation,
    node: NodeId,
    exit: Option<ClearedExit>,
    now: Timestamp,
) -> Vec<Event> {
    let Phase::Completing { outcome, then, .. } = &job.phase else { return Vec::new() };
    let cleared = Event::SliceCleared { job: job.id, attempt: job.attempt, node, exit };
    let mut events = vec![cleared];
    events.extend(over(job, held, node, outcome, *then, now));
    events
}

/// The end of the attempt, if `node` was the last.
fn over(
    job: &Job,
    held: &Allocation,
    node: NodeId,
    outcome: &Outcome,
    then: AfterCompleting,
    at: Timestamp,
) -> Option<Event> {
    if held.remaining.iter().any(|n| *n != node) {
        return None;
    }
    let (job, attempt, outcome) = (job.id, job.attempt, outcome.clone());
    Some(match then {
        AfterCompleting::End => Event::Ended { job, attempt, outcome, at },
        AfterCompleting::Requeue { hold, eligible_at } => {
            Event::Requeued { job, attempt, outcome, hold, eligible_at, at }
        }
    })
}
