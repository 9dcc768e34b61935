//! Duties outside, derived from facts and from the state; nothing is queued that could be lost.

use std::collections::BTreeSet;

use muster_model::{Attempt, JobId, NodeId};

use crate::effect::{Desired, Effect, StopCause};
use crate::event::{AfterCompleting, Event};
use crate::lifecycle::Phase;
use crate::state::{Job, State};

/// What follows from a fact that was just applied. The slices that an effect names are looked up
/// with [`desired_of`] when they are told, so that nothing stale is ever sent.
#[must_use]
pub fn effects(state: &State, event: &Event) -> Vec<Effect> {
    let wake = vec![Effect::WakePass];
    match event {
        Event::Submitted { job, .. } => vec![Effect::Notify { job: *job }, Effect::WakePass],
        Event::Started { job, placement, attempt, .. } => {
            let mut out: Vec<Effect> = placement
                .nodes()
                .map(|node| Effect::Desire { node, job: *job, attempt: *attempt })
                .collect();
            out.push(Effect::Notify { job: *job });
            out
        }
        Event::SliceReady { job, attempt, .. } => match state.jobs.get(job) {
            Some(j) if barrier_open(state, j) => {
                let mut out = desire_all(j, *attempt);
                out.extend(state.mates_of(j).flat_map(|mate| desire_all(mate, mate.attempt)));
                out
            }
            Some(_) | None => Vec::new(),
        },
        Event::Running { job, .. } => vec![Effect::Notify { job: *job }],
        Event::Completing { job, attempt, .. }
        | Event::Suspended { job, attempt, .. }
        | Event::Resumed { job, attempt, .. } => {
            let mut out = state.jobs.get(job).map_or_else(Vec::new, |j| desire_all(j, *attempt));
            out.push(Effect::Notify { job: *job });
            out
        }
        Event::SliceCleared { job, attempt, node, .. } => {
            vec![Effect::Desire { node: *node, job: *job, attempt: *attempt }, Effect::WakePass]
        }
        Event::Ended { job, attempt, .. } | Event::Requeued { job, attempt, .. } => vec![
            Effect::Record { job: *job, attempt: *attempt },
            Effect::Notify { job: *job },
            Effect::WakePass,
        ],
        Event::TasksEnded { job, .. } => vec![
            Effect::Record { job: *job, attempt: Attempt(0) },
            Effect::Notify { job: *job },
            Effect::WakePass,
        ],
        Event::Held { job, .. } => vec![Effect::Notify { job: *job }],
        Event::Released { job, .. } => vec![Effect::Notify { job: *job }, Effect::WakePass],
        Event::Updated { job, tasks, .. } => {
            let mut out = Vec::new();
            let ids: Vec<JobId> = match (state.arrays.get(job), tasks) {
                (Some(array), Some(tasks)) => {
                    tasks.iter().filter_map(|index| array.task_id(index)).collect()
                }
                (Some(_), None) => Vec::new(),
                (None, _) => vec![*job],
            };
            for j in ids.iter().filter_map(|id| state.jobs.get(id)) {
                out.extend(desire_all(j, j.attempt));
            }
            out.push(Effect::Notify { job: *job });
            out.push(Effect::WakePass);
            out
        }
        Event::Configured { .. }
        | Event::Registered { .. }
        | Event::NodeDrain { .. }
        | Event::NodeDown { .. }
        | Event::GpuDrain { .. }
        | Event::GpusFound { .. }
        | Event::NodeChanged { .. }
        | Event::PartitionChanged { .. }
        | Event::ReservationSet { .. }
        | Event::ReservationGone { .. } => wake,
        Event::Purged { .. } => Vec::new(),
    }
}

/// Every duty that is open: what a restarted controller has to see to. Records may have been
/// written before; they are keyed, so writing them again is harmless.
#[must_use]
pub fn outstanding(state: &State) -> Vec<Effect> {
    let mut out = Vec::new();
    for job in state.jobs.values() {
        out.extend(desire_all(job, job.attempt));
        let kept = job.last.iter().flat_map(|last| last.chain()).map(|ended| ended.attempt);
        // A job that never started ends without an attempt to keep.
        let own = job.phase.is_ended().then_some(job.attempt);
        let attempts: BTreeSet<Attempt> = kept.chain(own).collect();
        out.extend(attempts.into_iter().map(|attempt| Effect::Record { job: job.id, attempt }));
    }
    for array in state.arrays.values().filter(|array| !array.unstarted.is_empty()) {
        out.push(Effect::Record { job: array.id, attempt: Attempt(0) });
    }
    out.push(Effect::WakePass);
    out
}

/// How far each slice on a node should be; slices not in it are to end.
#[must_use]
pub fn desired(state: &State, node: NodeId) -> Vec<(JobId, Attempt, Desired)> {
    let of = |job: &Job| (job.id, job.attempt, desired_of(state, node, job.id, job.attempt));
    state.jobs_on(node).map(of).collect()
}

/// How far one slice should be. `Forget` is the answer for a slice whose end the log has; an agent
/// that still has processes of it ends them before it forgets.
#[must_use]
pub fn desired_of(state: &State, node: NodeId, job: JobId, attempt: Attempt) -> Desired {
    let Some(job) = state.jobs.get(&job) else {
        // A number that was given out and is gone belongs to a job that ended long ago.
        let pending = state.find(job).is_some();
        let given = job.0 < state.next_id;
        let forget = given && !pending;
        return if forget { Desired::Forget } else { Desired::Stop(StopCause::Unknown) };
    };
    if attempt > job.attempt {
        return Desired::Stop(StopCause::Unknown);
    }
    let held = job
        .phase
        .allocation()
        .filter(|held| attempt == job.attempt && held.remaining.contains(&node));
    if held.is_none() {
        return Desired::Forget;
    }
    match &job.phase {
        Phase::Launching { .. } if !barrier_open(state, job) => Desired::Prepare,
        Phase::Launching { .. } => Desired::Run { suspended: false },
        Phase::Running { suspended, .. } => Desired::Run { suspended: suspended.is_some() },
        Phase::Completing { outcome, then, .. } => Desired::Stop(stop_cause(outcome, *then)),
        Phase::Pending { .. } | Phase::Ended { .. } => Desired::Forget,
    }
}

/// Whether a launching job may run: a single node needs no barrier, a gang needs all its slices,
/// a heterogeneous job those of all its components.
#[must_use]
pub fn barrier_open(state: &State, job: &Job) -> bool {
    if job.spec.het.is_some() {
        return all_ready(job) && state.mates_of(job).all(all_ready);
    }
    match &job.phase {
        Phase::Launching { held, .. } if held.placement.slices.len() == 1 => true,
        Phase::Launching { .. }
        | Phase::Running { .. }
        | Phase::Pending { .. }
        | Phase::Completing { .. }
        | Phase::Ended { .. } => all_ready(job),
    }
}

/// Whether every slice of a job is prepared.
fn all_ready(job: &Job) -> bool {
    match &job.phase {
        Phase::Launching { held, ready } => ready.len() == held.placement.slices.len(),
        Phase::Running { .. } => true,
        Phase::Pending { .. } | Phase::Completing { .. } | Phase::Ended { .. } => false,
    }
}

fn desire_all(job: &Job, attempt: Attempt) -> Vec<Effect> {
    let held = job.phase.allocation().into_iter().flat_map(|held| held.remaining.iter());
    held.map(|node| Effect::Desire { node: *node, job: job.id, attempt }).collect()
}

fn stop_cause(outcome: &muster_model::Outcome, then: AfterCompleting) -> StopCause {
    use muster_model::Outcome;
    match outcome {
        Outcome::Cancelled { .. } => match then {
            AfterCompleting::End => StopCause::Cancelled,
            AfterCompleting::Requeue { .. } => StopCause::Requeued,
        },
        Outcome::Timeout | Outcome::Deadline => StopCause::TimeLimit,
        Outcome::Preempted => StopCause::Preempted,
        Outcome::NodeFail { .. } => StopCause::NodeFailure,
        Outcome::Completed | Outcome::Failed(_) | Outcome::OutOfMemory | Outcome::BootFail => {
            StopCause::Cancelled
        }
    }
}
