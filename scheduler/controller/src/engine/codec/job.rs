//! Jobs and arrays as a snapshot keeps them. Their specs are in a table beside them.

use std::sync::Arc;

use bytes::Bytes;
use muster_core::lifecycle::{Allocation, Finished, Phase};
use muster_core::state::{Array, Job, NodeParts, Place, TermState, Unstarted};
use muster_model::{Attempt, IndexSet, JobId, JobSpec, NodeHealth, NodeId, Seconds, Timestamp};
use muster_proto::store::v1 as rec;

use super::event::load_request_id;
use super::values::{hold, load_hold, load_time, time};
use super::{BadRecord, Stored, list, load_list, maybe, narrow, need};

impl Stored for NodeParts {
    type Record = rec::NodeParts;

    fn store(&self) -> Self::Record {
        rec::NodeParts {
            config: Some(self.config.store()),
            configured: self.configured,
            inventory: self.inventory.as_ref().map(|i| i.store()),
            drain: self.health.drain.as_ref().map(Stored::store),
            down: self.health.down.as_ref().map(Stored::store),
            comment: self.comment.to_string(),
            gpus_cleared: self
                .health
                .gpus_cleared
                .iter()
                .map(|(unit, at)| rec::GpuCleared { gpu: (*unit).into(), at: at.0 })
                .collect(),
            gpus: self
                .health
                .gpus
                .iter()
                .map(|(unit, mark)| rec::GpuMarked {
                    gpu: (*unit).into(),
                    mark: Some(mark.store()),
                })
                .collect(),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(NodeParts {
            config: need(r.config, "config")?,
            configured: r.configured,
            inventory: maybe(r.inventory)?.map(Arc::new),
            health: NodeHealth {
                drain: maybe(r.drain)?,
                down: maybe(r.down)?,
                gpus: r
                    .gpus
                    .into_iter()
                    .map(|m| Ok((narrow(m.gpu, "unit of a GPU")?, need(m.mark, "mark")?)))
                    .collect::<Result<_, BadRecord>>()?,
                gpus_cleared: r
                    .gpus_cleared
                    .into_iter()
                    .map(|c| Ok((narrow(c.gpu, "unit of a GPU")?, Timestamp(c.at))))
                    .collect::<Result<_, BadRecord>>()?,
            },
            comment: r.comment.into(),
        })
    }
}

fn numbers(nodes: &[NodeId]) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}

fn nodes(numbers: Vec<u32>) -> Vec<NodeId> {
    numbers.into_iter().map(NodeId).collect()
}

impl Stored for Allocation {
    type Record = rec::Allocation;

    fn store(&self) -> Self::Record {
        rec::Allocation {
            partition: self.partition.to_string(),
            placement: Some(self.placement.store()),
            allocated_at: self.allocated_at.0,
            started_at: time(self.started_at),
            end_at: time(self.end_at),
            time_limit: self.time_limit.map(|limit| limit.0),
            suspended_ms: self.suspended_ms,
            remaining: numbers(&self.remaining),
            exit: self.exit.map(|e| e.store()),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Allocation {
            partition: r.partition.into(),
            placement: need(r.placement, "placement")?,
            allocated_at: Timestamp(r.allocated_at),
            started_at: load_time(r.started_at),
            end_at: load_time(r.end_at),
            time_limit: r.time_limit.map(Seconds),
            suspended_ms: r.suspended_ms,
            remaining: nodes(r.remaining),
            exit: maybe(r.exit)?,
        })
    }
}

impl Stored for Finished {
    type Record = rec::Finished;

    fn store(&self) -> Self::Record {
        rec::Finished {
            attempt: self.attempt.0,
            partition: self.partition.to_string(),
            placement: Some(self.placement.store()),
            allocated_at: self.allocated_at.0,
            started_at: time(self.started_at),
            ended_at: self.ended_at.0,
            time_limit: self.time_limit.map(|limit| limit.0),
            suspended_ms: self.suspended_ms,
            exit: self.exit.map(|e| e.store()),
            outcome: Some(self.outcome.store()),
            before: self.before.as_ref().map(|before| Box::new(before.store())),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Finished {
            attempt: Attempt(r.attempt),
            partition: r.partition.into(),
            placement: need(r.placement, "placement")?,
            allocated_at: Timestamp(r.allocated_at),
            started_at: load_time(r.started_at),
            ended_at: Timestamp(r.ended_at),
            time_limit: r.time_limit.map(Seconds),
            suspended_ms: r.suspended_ms,
            exit: maybe(r.exit)?,
            outcome: need(r.outcome, "outcome")?,
            before: maybe(r.before.map(|before| *before))?.map(Box::new),
        })
    }
}

fn store_phase(phase: &Phase) -> rec::job::Phase {
    use rec::job::Phase as P;
    match phase {
        Phase::Pending { eligible_at, hold: held } => {
            P::Pending(rec::Pending { eligible_at: eligible_at.0, hold: hold(*held) })
        }
        Phase::Launching { held, ready } => {
            P::Launching(rec::Launching { held: Some(held.store()), ready: numbers(ready) })
        }
        Phase::Running { held, suspended } => {
            let (held, suspended) = (Some(held.store()), time(*suspended));
            P::Running(rec::RunningPhase { held, suspended })
        }
        Phase::Completing { held, outcome, then, since } => P::Completing(rec::CompletingPhase {
            held: Some(held.store()),
            outcome: Some(outcome.store()),
            then: Some(then.store()),
            since: since.0,
        }),
        Phase::Ended { outcome, at } => {
            P::Ended(rec::EndedPhase { outcome: Some(outcome.store()), at: at.0 })
        }
    }
}

fn load_phase(phase: rec::job::Phase) -> Result<Phase, BadRecord> {
    use rec::job::Phase as P;
    Ok(match phase {
        P::Pending(r) => {
            Phase::Pending { eligible_at: Timestamp(r.eligible_at), hold: load_hold(r.hold)? }
        }
        P::Launching(r) => {
            Phase::Launching { held: Box::new(need(r.held, "allocation")?), ready: nodes(r.ready) }
        }
        P::Running(r) => Phase::Running {
            held: Box::new(need(r.held, "allocation")?),
            suspended: load_time(r.suspended),
        },
        P::Completing(r) => Phase::Completing {
            held: Box::new(need(r.held, "allocation")?),
            outcome: need(r.outcome, "outcome")?,
            then: need(r.then, "aim")?,
            since: Timestamp(r.since),
        },
        P::Ended(r) => Phase::Ended { outcome: need(r.outcome, "outcome")?, at: Timestamp(r.at) },
    })
}

impl Stored for TermState {
    type Record = rec::TermState;

    fn store(&self) -> Self::Record {
        use rec::term_state::Kind;
        let kind = match self {
            TermState::Waiting => Kind::Waiting(true),
            TermState::Met { from } => Kind::Met(from.0),
            TermState::Never => Kind::Never(true),
            TermState::Each { ok, never } => {
                let (ok, never) = (Some(ok.store()), Some(never.store()));
                Kind::Each(rec::EachTask { ok, never })
            }
        };
        rec::TermState { kind: Some(kind) }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        use rec::term_state::Kind;
        Ok(match r.kind.ok_or(BadRecord::Missing("state of a dependency"))? {
            Kind::Waiting(_) => TermState::Waiting,
            Kind::Met(from) => TermState::Met { from: Timestamp(from) },
            Kind::Never(_) => TermState::Never,
            Kind::Each(r) => {
                TermState::Each { ok: need(r.ok, "tasks")?, never: need(r.never, "tasks")? }
            }
        })
    }
}

fn store_request_id(id: &[u8; 16]) -> Bytes {
    if *id == [0; 16] { Bytes::new() } else { Bytes::copy_from_slice(id) }
}

fn load_maybe_request_id(bytes: &[u8]) -> Result<[u8; 16], BadRecord> {
    if bytes.is_empty() { Ok([0; 16]) } else { load_request_id(bytes) }
}

/// A job's record, around the place of its spec in the table.
pub(in crate::engine) fn store_job(job: &Job, spec_ref: u32) -> rec::Job {
    rec::Job {
        id: job.id.0,
        array: job.array.map(|(array, _)| array.0),
        index: job.array.map_or(0, |(_, index)| index),
        spec_ref,
        request_id: store_request_id(&job.request_id),
        submitted_at: job.submitted_at.0,
        expected_seconds: job.expected,
        attempt: job.attempt.0,
        failures: job.failures,
        phase: Some(store_phase(&job.phase)),
        terms: list(&job.terms),
        last: job.last.as_ref().map(|last| last.store()),
    }
}

/// The spec at its place in the table.
fn spec_at(specs: &[Arc<JobSpec>], at: u32) -> Result<Arc<JobSpec>, BadRecord> {
    let bad = BadRecord::Value { field: "spec_ref", value: at.into() };
    specs.get(at as usize).cloned().ok_or(bad)
}

pub(in crate::engine) fn load_job(r: rec::Job, specs: &[Arc<JobSpec>]) -> Result<Job, BadRecord> {
    Ok(Job {
        id: JobId(r.id),
        array: r.array.map(|array| (JobId(array), r.index)),
        spec: spec_at(specs, r.spec_ref)?,
        request_id: load_maybe_request_id(&r.request_id)?,
        submitted_at: Timestamp(r.submitted_at),
        expected: r.expected_seconds,
        attempt: Attempt(r.attempt),
        failures: r.failures,
        phase: load_phase(r.phase.ok_or(BadRecord::Missing("phase"))?)?,
        terms: load_list::<_, Vec<_>>(r.terms)?.into(),
        last: maybe(r.last)?.map(Box::new),
        place: Place::default(),
    })
}

impl Stored for Unstarted {
    type Record = rec::Unstarted;

    fn store(&self) -> Self::Record {
        let (tasks, outcome) = (Some(self.tasks.store()), Some(self.outcome.store()));
        rec::Unstarted { tasks, outcome, at: self.at.0 }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Unstarted {
            tasks: need(r.tasks, "tasks")?,
            outcome: need(r.outcome, "outcome")?,
            at: Timestamp(r.at),
        })
    }
}

pub(in crate::engine) fn store_array(array: &Array, spec_ref: u32) -> rec::Array {
    let set = |set: &IndexSet| Some(set.store());
    rec::Array {
        id: array.id.0,
        spec_ref,
        request_id: store_request_id(&array.request_id),
        submitted_at: array.submitted_at.0,
        expected_seconds: array.expected,
        eligible_at: array.eligible_at.0,
        full: set(&array.full),
        throttle: array.throttle,
        pending: set(&array.pending),
        held_user: set(&array.held_user),
        held_admin: set(&array.held_admin),
        ok: set(&array.ok),
        bad: set(&array.bad),
        unstarted: list(&array.unstarted),
        terms: list(&array.terms),
        last_start: array.last_start.0,
        last_end: array.last_end.0,
    }
}

pub(in crate::engine) fn load_array(
    r: rec::Array,
    specs: &[Arc<JobSpec>],
) -> Result<Array, BadRecord> {
    Ok(Array {
        id: JobId(r.id),
        spec: spec_at(specs, r.spec_ref)?,
        request_id: load_maybe_request_id(&r.request_id)?,
        submitted_at: Timestamp(r.submitted_at),
        expected: r.expected_seconds,
        eligible_at: Timestamp(r.eligible_at),
        full: need(r.full, "indices")?,
        throttle: r.throttle,
        pending: need(r.pending, "pending tasks")?,
        held_user: need(r.held_user, "held tasks")?,
        held_admin: need(r.held_admin, "held tasks")?,
        ok: need(r.ok, "ended tasks")?,
        bad: need(r.bad, "ended tasks")?,
        unstarted: load_list(r.unstarted)?,
        terms: load_list::<_, Vec<_>>(r.terms)?.into(),
        last_start: Timestamp(r.last_start),
        last_end: Timestamp(r.last_end),
        place: Place::default(),
    })
}
