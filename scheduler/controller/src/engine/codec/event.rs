//! Every fact.

use std::sync::Arc;

use bytes::Bytes;
use muster_core::event::{AfterCompleting, Event};
use muster_model::node::Mark;
use muster_model::{Attempt, GresKind, JobId, NodeId, Seconds, Timestamp};
use muster_proto::store::v1 as rec;
use rec::event::Kind;

use super::values::{hold, load_hold, load_time, time};
use super::{BadRecord, Stored, maybe, narrow, need};

impl Stored for AfterCompleting {
    type Record = rec::AfterCompleting;

    fn store(&self) -> Self::Record {
        match *self {
            AfterCompleting::End => rec::AfterCompleting::default(),
            AfterCompleting::Requeue { hold: held, eligible_at } => {
                rec::AfterCompleting { requeue: true, hold: hold(held), eligible_at: eligible_at.0 }
            }
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        if !r.requeue {
            return Ok(AfterCompleting::End);
        }
        let hold = load_hold(r.hold)?;
        Ok(AfterCompleting::Requeue { hold, eligible_at: Timestamp(r.eligible_at) })
    }
}

impl Stored for Event {
    type Record = rec::Event;

    /// One match over every fact, so that a new one cannot be forgotten here.
    fn store(&self) -> Self::Record {
        let kind = match self {
            Event::Configured { config, at } => {
                Kind::Configured(rec::Configured { config: Some(config.store()), at: at.0 })
            }
            Event::Submitted { job, request_id, spec, expected, at } => {
                Kind::Submitted(rec::Submitted {
                    job: job.0,
                    request_id: Bytes::copy_from_slice(request_id),
                    spec: Some(spec.store()),
                    at: at.0,
                    expected_seconds: *expected,
                })
            }
            Event::Started { job, attempt, partition, placement, end_at, time_limit, at } => {
                Kind::Started(rec::Started {
                    time_limit: time_limit.map(|limit| limit.0),
                    job: job.0,
                    attempt: attempt.0,
                    partition: partition.to_string(),
                    placement: Some(placement.store()),
                    end_at: time(*end_at),
                    at: at.0,
                })
            }
            Event::SliceReady { job, attempt, node } => {
                Kind::SliceReady(rec::SliceReady { job: job.0, attempt: attempt.0, node: node.0 })
            }
            Event::Running { job, attempt, started_at, end_at } => Kind::Running(rec::Running {
                job: job.0,
                attempt: attempt.0,
                started_at: started_at.0,
                end_at: time(*end_at),
            }),
            Event::Completing { job, attempt, outcome, then, at } => {
                Kind::Completing(rec::Completing {
                    job: job.0,
                    attempt: attempt.0,
                    outcome: Some(outcome.store()),
                    then: Some(then.store()),
                    at: at.0,
                })
            }
            Event::SliceCleared { job, attempt, node, exit } => {
                let exit = exit.as_ref().map(Stored::store);
                let (job, attempt, node) = (job.0, attempt.0, node.0);
                Kind::SliceCleared(rec::SliceCleared { job, attempt, node, exit })
            }
            Event::Ended { job, attempt, outcome, at } => {
                let outcome = Some(outcome.store());
                Kind::Ended(rec::Ended { job: job.0, attempt: attempt.0, outcome, at: at.0 })
            }
            Event::Requeued { job, attempt, outcome, hold: held, eligible_at, at } => {
                Kind::Requeued(rec::Requeued {
                    job: job.0,
                    attempt: attempt.0,
                    outcome: Some(outcome.store()),
                    hold: hold(*held),
                    eligible_at: eligible_at.0,
                    at: at.0,
                })
            }
            Event::Held { job, tasks, hold: held } => {
                let tasks = tasks.as_ref().map(Stored::store);
                Kind::Held(rec::Held { job: job.0, tasks, hold: hold(Some(*held)) })
            }
            Event::Released { job, tasks, at } => {
                let tasks = tasks.as_ref().map(Stored::store);
                Kind::Released(rec::Released { job: job.0, tasks, at: at.0 })
            }
            Event::TasksEnded { job, tasks, outcome, at } => {
                let (tasks, outcome) = (Some(tasks.store()), Some(outcome.store()));
                Kind::TasksEnded(rec::TasksEnded { job: job.0, tasks, outcome, at: at.0 })
            }
            Event::Updated { job, tasks, change, at } => {
                let tasks = tasks.as_ref().map(Stored::store);
                let change = Some(change.store());
                Kind::Updated(rec::Updated { job: job.0, tasks, change, at: at.0 })
            }
            Event::Suspended { job, attempt, at } => {
                Kind::Suspended(rec::Suspended { job: job.0, attempt: attempt.0, at: at.0 })
            }
            Event::Resumed { job, attempt, end_at, at } => Kind::Resumed(rec::Resumed {
                job: job.0,
                attempt: attempt.0,
                end_at: time(*end_at),
                at: at.0,
            }),
            Event::Registered { node, inventory, at } => {
                let inventory = Some(inventory.store());
                Kind::Registered(rec::Registered { node: node.0, inventory, at: at.0 })
            }
            Event::NodeDrain { node, mark } => Kind::NodeDrain(store_mark(*node, mark)),
            Event::NodeDown { node, mark } => Kind::NodeDown(store_mark(*node, mark)),
            Event::GpuDrain { node, gpu, mark, at } => {
                let mark = mark.as_ref().map(Stored::store);
                let gpu = Some(rec::GpuMarked { gpu: (*gpu).into(), mark });
                Kind::GpuDrain(rec::GpuDrain { node: node.0, gpu, at: at.0 })
            }
            Event::GpusFound { node, gpus } => {
                let count = |(kind, count): &(GresKind, u64)| rec::GresCount {
                    kind: Some(kind.store()),
                    count: *count,
                };
                let gpus = gpus.iter().map(count).collect();
                Kind::GpusFound(rec::GpusFound { node: node.0, gpus })
            }
            Event::NodeChanged { node, change } => {
                let change = Some(change.store());
                Kind::NodeChanged(rec::NodeChanged { node: node.0, change })
            }
            Event::PartitionChanged { name, change } => {
                let (name, change) = (name.to_string(), Some(change.store()));
                Kind::PartitionChanged(rec::PartitionChanged { name, change })
            }
            Event::Purged { jobs } => {
                Kind::Purged(rec::Purged { jobs: jobs.iter().map(|job| job.0).collect() })
            }
            Event::ReservationSet { reservation, at } => {
                let reservation = Some(reservation.store());
                Kind::ReservationSet(rec::ReservationSet { reservation, at: at.0 })
            }
            Event::ReservationGone { name, at } => {
                Kind::ReservationGone(rec::ReservationGone { name: name.to_string(), at: at.0 })
            }
        };
        rec::Event { kind: Some(kind) }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(match r.kind.ok_or(BadRecord::UnknownKind)? {
            Kind::Configured(r) => {
                let config = Arc::new(need(r.config, "config")?);
                Event::Configured { config, at: Timestamp(r.at) }
            }
            Kind::Submitted(r) => Event::Submitted {
                job: JobId(r.job),
                request_id: load_request_id(&r.request_id)?,
                spec: Arc::new(need(r.spec, "spec")?),
                expected: r.expected_seconds,
                at: Timestamp(r.at),
            },
            Kind::Started(r) => Event::Started {
                job: JobId(r.job),
                attempt: Attempt(r.attempt),
                partition: r.partition.into(),
                placement: need(r.placement, "placement")?,
                end_at: load_time(r.end_at),
                time_limit: r.time_limit.map(Seconds),
                at: Timestamp(r.at),
            },
            Kind::SliceReady(r) => {
                let (job, attempt, node) = (JobId(r.job), Attempt(r.attempt), NodeId(r.node));
                Event::SliceReady { job, attempt, node }
            }
            Kind::Running(r) => Event::Running {
                job: JobId(r.job),
                attempt: Attempt(r.attempt),
                started_at: Timestamp(r.started_at),
                end_at: load_time(r.end_at),
            },
            Kind::Completing(r) => Event::Completing {
                job: JobId(r.job),
                attempt: Attempt(r.attempt),
                outcome: need(r.outcome, "outcome")?,
                then: need(r.then, "aim")?,
                at: Timestamp(r.at),
            },
            Kind::SliceCleared(r) => Event::SliceCleared {
                job: JobId(r.job),
                attempt: Attempt(r.attempt),
                node: NodeId(r.node),
                exit: maybe(r.exit)?,
            },
            Kind::Ended(r) => Event::Ended {
                job: JobId(r.job),
                attempt: Attempt(r.attempt),
                outcome: need(r.outcome, "outcome")?,
                at: Timestamp(r.at),
            },
            Kind::Requeued(r) => Event::Requeued {
                job: JobId(r.job),
                attempt: Attempt(r.attempt),
                outcome: need(r.outcome, "outcome")?,
                hold: load_hold(r.hold)?,
                eligible_at: Timestamp(r.eligible_at),
                at: Timestamp(r.at),
            },
            Kind::Held(r) => {
                let hold = load_hold(r.hold)?.ok_or(BadRecord::Missing("hold"))?;
                Event::Held { job: JobId(r.job), tasks: maybe(r.tasks)?, hold }
            }
            Kind::Released(r) => {
                let (job, at) = (JobId(r.job), Timestamp(r.at));
                Event::Released { job, tasks: maybe(r.tasks)?, at }
            }
            Kind::TasksEnded(r) => Event::TasksEnded {
                job: JobId(r.job),
                tasks: need(r.tasks, "tasks")?,
                outcome: need(r.outcome, "outcome")?,
                at: Timestamp(r.at),
            },
            Kind::Updated(r) => Event::Updated {
                job: JobId(r.job),
                tasks: maybe(r.tasks)?,
                change: Box::new(need(r.change, "change")?),
                at: Timestamp(r.at),
            },
            Kind::Suspended(r) => {
                let (job, attempt, at) = (JobId(r.job), Attempt(r.attempt), Timestamp(r.at));
                Event::Suspended { job, attempt, at }
            }
            Kind::Resumed(r) => Event::Resumed {
                job: JobId(r.job),
                attempt: Attempt(r.attempt),
                end_at: load_time(r.end_at),
                at: Timestamp(r.at),
            },
            Kind::Registered(r) => Event::Registered {
                node: NodeId(r.node),
                inventory: Arc::new(need(r.inventory, "inventory")?),
                at: Timestamp(r.at),
            },
            Kind::NodeDrain(r) => Event::NodeDrain { node: NodeId(r.node), mark: maybe(r.mark)? },
            Kind::NodeDown(r) => Event::NodeDown { node: NodeId(r.node), mark: maybe(r.mark)? },
            Kind::GpuDrain(r) => {
                let marked = r.gpu.ok_or(BadRecord::Missing("GPU"))?;
                Event::GpuDrain {
                    node: NodeId(r.node),
                    gpu: narrow(marked.gpu, "unit of a GPU")?,
                    mark: maybe(marked.mark)?,
                    at: Timestamp(r.at),
                }
            }
            Kind::GpusFound(r) => {
                let count = |g: rec::GresCount| Ok((need(g.kind, "kind of GPU")?, g.count));
                let gpus = r.gpus.into_iter().map(count).collect::<Result<_, BadRecord>>()?;
                Event::GpusFound { node: NodeId(r.node), gpus }
            }
            Kind::NodeChanged(r) => {
                Event::NodeChanged { node: NodeId(r.node), change: need(r.change, "change")? }
            }
            Kind::PartitionChanged(r) => {
                let change = need(r.change, "change")?;
                Event::PartitionChanged { name: r.name.into(), change }
            }
            Kind::Purged(r) => Event::Purged { jobs: r.jobs.into_iter().map(JobId).collect() },
            Kind::ReservationSet(r) => Event::ReservationSet {
                reservation: Arc::new(need(r.reservation, "reservation")?),
                at: Timestamp(r.at),
            },
            Kind::ReservationGone(r) => {
                Event::ReservationGone { name: r.name.into(), at: Timestamp(r.at) }
            }
        })
    }
}

fn store_mark(node: NodeId, mark: &Option<Mark>) -> rec::NodeMark {
    rec::NodeMark { node: node.0, mark: mark.as_ref().map(Stored::store) }
}

pub(in crate::engine) fn load_request_id(bytes: &[u8]) -> Result<[u8; 16], BadRecord> {
    bytes.try_into().map_err(|_| BadRecord::Missing("whole request id"))
}
