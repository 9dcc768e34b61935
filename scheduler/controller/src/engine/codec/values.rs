//! Ids, times, sets, resources, outcomes.

use muster_core::event::ClearedExit;
use muster_model::node::Mark;
use muster_model::{
    Capacity, CpuSet, ExitStatus, GresKind, GresMask, GresRequest, GresScope, Hold, IndexSet,
    NodeId, Outcome, Placement, Seconds, Slice, TimeLimit, Timestamp, Uid, Usage,
};
use muster_proto::store::v1 as rec;

use super::{BadRecord, Stored, list, load_list, maybe, narrow, need};

/// Seconds; -1: unlimited.
pub(in crate::engine) fn limit(limit: TimeLimit) -> i64 {
    match limit {
        TimeLimit::Limited(seconds) => i64::from(seconds.0),
        TimeLimit::Unlimited => -1,
    }
}

pub(in crate::engine) fn load_limit(value: i64) -> Result<TimeLimit, BadRecord> {
    if value == -1 {
        return Ok(TimeLimit::Unlimited);
    }
    let seconds = u32::try_from(value).map_err(|_| BadRecord::Value { field: "limit", value })?;
    Ok(TimeLimit::Limited(Seconds(seconds)))
}

pub(in crate::engine) fn load_limit_opt(
    value: Option<i64>,
) -> Result<Option<TimeLimit>, BadRecord> {
    value.map(load_limit).transpose()
}

pub(in crate::engine) fn time(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.0)
}

pub(in crate::engine) fn load_time(at: Option<i64>) -> Option<Timestamp> {
    at.map(Timestamp)
}

pub(in crate::engine) fn hold(hold: Option<Hold>) -> i32 {
    let hold = match hold {
        None => rec::Hold::None,
        Some(Hold::User) => rec::Hold::User,
        Some(Hold::Admin) => rec::Hold::Admin,
        Some(Hold::MaxRequeue) => rec::Hold::MaxRequeue,
        Some(Hold::LaunchFailed) => rec::Hold::LaunchFailed,
    };
    hold.into()
}

pub(in crate::engine) fn load_hold(value: i32) -> Result<Option<Hold>, BadRecord> {
    let bad = BadRecord::Value { field: "hold", value: value.into() };
    Ok(match rec::Hold::try_from(value).map_err(|_| bad)? {
        rec::Hold::None => None,
        rec::Hold::User => Some(Hold::User),
        rec::Hold::Admin => Some(Hold::Admin),
        rec::Hold::MaxRequeue => Some(Hold::MaxRequeue),
        rec::Hold::LaunchFailed => Some(Hold::LaunchFailed),
    })
}

pub(in crate::engine) fn named(items: &[(Box<str>, u32)]) -> Vec<rec::Named> {
    items.iter().map(|(n, v)| rec::Named { name: n.to_string(), value: (*v).into() }).collect()
}

pub(in crate::engine) fn load_named(
    items: Vec<rec::Named>,
) -> Result<Vec<(Box<str>, u32)>, BadRecord> {
    let load = |item: rec::Named| {
        let value = i64::try_from(item.value).unwrap_or(i64::MAX);
        let bad = BadRecord::Value { field: "count", value };
        Ok((item.name.into(), u32::try_from(item.value).map_err(|_| bad)?))
    };
    items.into_iter().map(load).collect()
}

impl Stored for ExitStatus {
    type Record = rec::ExitStatus;

    fn store(&self) -> Self::Record {
        rec::ExitStatus { code: self.code.into(), signal: self.signal.into() }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(ExitStatus { code: narrow(r.code, "exit code")?, signal: narrow(r.signal, "signal")? })
    }
}

impl Stored for Usage {
    type Record = rec::Usage;

    fn store(&self) -> Self::Record {
        rec::Usage {
            user_cpu_ms: self.user_cpu_ms,
            system_cpu_ms: self.system_cpu_ms,
            max_rss_kib: self.max_rss_kib,
            gpu: self.gpu.as_ref().map(Stored::store),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Usage {
            user_cpu_ms: r.user_cpu_ms,
            system_cpu_ms: r.system_cpu_ms,
            max_rss_kib: r.max_rss_kib,
            gpu: maybe(r.gpu)?,
        })
    }
}

impl Stored for ClearedExit {
    type Record = rec::ClearedExit;

    fn store(&self) -> Self::Record {
        rec::ClearedExit {
            status: Some(self.status.store()),
            started_at: self.started_at.0,
            ended_at: self.ended_at.0,
            usage: Some(self.usage.store()),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(ClearedExit {
            status: need(r.status, "exit status")?,
            started_at: Timestamp(r.started_at),
            ended_at: Timestamp(r.ended_at),
            usage: need(r.usage, "usage")?,
        })
    }
}

impl Stored for Outcome {
    type Record = rec::Outcome;

    fn store(&self) -> Self::Record {
        use rec::OutcomeKind as Kind;
        let mut out = rec::Outcome::default();
        let kind = match self {
            Outcome::Completed => Kind::Completed,
            Outcome::Failed(status) => {
                out.exit = Some(status.store());
                Kind::Failed
            }
            Outcome::Cancelled { by } => {
                out.by = by.0;
                Kind::Cancelled
            }
            Outcome::Timeout => Kind::Timeout,
            Outcome::OutOfMemory => Kind::OutOfMemory,
            Outcome::NodeFail { node } => {
                out.node = node.to_string();
                Kind::NodeFail
            }
            Outcome::Deadline => Kind::Deadline,
            Outcome::Preempted => Kind::Preempted,
            Outcome::BootFail => Kind::BootFail,
        };
        out.set_kind(kind);
        out
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        use rec::OutcomeKind as Kind;
        let bad = BadRecord::Value { field: "outcome", value: r.kind.into() };
        Ok(match Kind::try_from(r.kind).map_err(|_| bad.clone())? {
            Kind::Unspecified => return Err(bad),
            Kind::Completed => Outcome::Completed,
            Kind::Failed => Outcome::Failed(need(r.exit, "exit status")?),
            Kind::Cancelled => Outcome::Cancelled { by: Uid(r.by) },
            Kind::Timeout => Outcome::Timeout,
            Kind::OutOfMemory => Outcome::OutOfMemory,
            Kind::NodeFail => Outcome::NodeFail { node: r.node.into() },
            Kind::Deadline => Outcome::Deadline,
            Kind::Preempted => Outcome::Preempted,
            Kind::BootFail => Outcome::BootFail,
        })
    }
}

impl Stored for Mark {
    type Record = rec::Mark;

    fn store(&self) -> Self::Record {
        let by = self.by.map(|uid| uid.0);
        rec::Mark { reason: self.reason.to_string(), by, at: self.at.0 }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Mark { reason: r.reason.into(), by: r.by.map(Uid), at: Timestamp(r.at) })
    }
}

impl Stored for IndexSet {
    type Record = rec::IndexSet;

    fn store(&self) -> Self::Record {
        rec::IndexSet { bounds: self.ranges().iter().flat_map(|(from, to)| [*from, *to]).collect() }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        let (pairs, rest) = r.bounds.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(BadRecord::Missing("last bound of an index set"));
        }
        Ok(IndexSet::from_ranges(pairs.iter().map(|[from, to]| (*from, *to)).collect()))
    }
}

impl Stored for CpuSet {
    type Record = rec::CpuSet;

    fn store(&self) -> Self::Record {
        rec::CpuSet { words: self.words().to_vec() }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(CpuSet::from_words(r.words))
    }
}

impl Stored for GresKind {
    type Record = rec::GresKind;

    fn store(&self) -> Self::Record {
        rec::GresKind { name: self.name.to_string(), of: self.of.as_deref().map(Into::into) }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(GresKind { name: r.name.into(), of: r.of.map(Into::into) })
    }
}

impl Stored for GresRequest {
    type Record = rec::GresRequest;

    fn store(&self) -> Self::Record {
        let scope = match self.scope {
            GresScope::Job => rec::GresScope::Job,
            GresScope::Node => rec::GresScope::Node,
            GresScope::Task => rec::GresScope::Task,
            GresScope::Socket => rec::GresScope::Socket,
        };
        let kind = Some(self.kind.store());
        rec::GresRequest { kind, count: self.count, scope: scope.into() }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        let bad = BadRecord::Value { field: "scope", value: r.scope.into() };
        let scope = match rec::GresScope::try_from(r.scope).map_err(|_| bad.clone())? {
            rec::GresScope::Unspecified => return Err(bad),
            rec::GresScope::Job => GresScope::Job,
            rec::GresScope::Node => GresScope::Node,
            rec::GresScope::Task => GresScope::Task,
            rec::GresScope::Socket => GresScope::Socket,
        };
        Ok(GresRequest { kind: need(r.kind, "kind of resource")?, count: r.count, scope })
    }
}

impl Stored for GresMask {
    type Record = rec::GresMask;

    fn store(&self) -> Self::Record {
        rec::GresMask { kind: Some(self.kind.store()), mask: self.mask, count: self.count }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(GresMask { kind: need(r.kind, "kind of resource")?, mask: r.mask, count: r.count })
    }
}

impl Stored for Capacity {
    type Record = rec::Capacity;

    fn store(&self) -> Self::Record {
        let gres = |(kind, count): (&GresKind, &u64)| rec::GresCount {
            kind: Some(kind.store()),
            count: *count,
        };
        rec::Capacity {
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            gres: self.gres.iter().map(gres).collect(),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        let gres = |g: rec::GresCount| Ok((need(g.kind, "kind of resource")?, g.count));
        Ok(Capacity {
            cpus: r.cpus,
            memory_mib: r.memory_mib,
            gres: r.gres.into_iter().map(gres).collect::<Result<_, BadRecord>>()?,
        })
    }
}

impl Stored for Slice {
    type Record = rec::Slice;

    fn store(&self) -> Self::Record {
        rec::Slice {
            node: self.node.0,
            cpus: Some(self.cpus.store()),
            memory_mib: self.memory_mib,
            gres: list(&self.gres),
            tasks: self.tasks,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Slice {
            node: NodeId(r.node),
            cpus: need(r.cpus, "CPUs")?,
            memory_mib: r.memory_mib,
            gres: load_list(r.gres)?,
            tasks: r.tasks,
        })
    }
}

impl Stored for Placement {
    type Record = rec::Placement;

    fn store(&self) -> Self::Record {
        rec::Placement { slices: list(&self.slices) }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Placement { slices: load_list(r.slices)? })
    }
}
