//! What a user asked for.

use std::sync::Arc;

use muster_model::{
    ArraySpec, Constraint, CpuBinding, Dependency, DependencyKind, DependencyTerm, HetPart, JobId,
    JobSpec, LaunchSpec, MemoryRequest, NodeCount, OpenMode, Request, SignalRequest, SwitchWish,
    TopologyWish, Uid, User,
};
use muster_proto::store::v1 as rec;

use super::values::{limit, load_limit_opt, load_named, load_time, named, time};
use super::{BadRecord, Stored, boxes, list, load_list, maybe, need, texts};

impl Stored for MemoryRequest {
    type Record = rec::MemoryRequest;

    fn store(&self) -> Self::Record {
        use rec::memory_request::Kind;
        rec::MemoryRequest {
            kind: match *self {
                MemoryRequest::Default => None,
                MemoryRequest::PerNode(mib) => Some(Kind::PerNode(mib)),
                MemoryRequest::PerCpu(mib) => Some(Kind::PerCpu(mib)),
                MemoryRequest::PerGpu(mib) => Some(Kind::PerGpu(mib)),
            },
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        use rec::memory_request::Kind;
        Ok(match r.kind {
            None => MemoryRequest::Default,
            Some(Kind::PerNode(mib)) => MemoryRequest::PerNode(mib),
            Some(Kind::PerCpu(mib)) => MemoryRequest::PerCpu(mib),
            Some(Kind::PerGpu(mib)) => MemoryRequest::PerGpu(mib),
        })
    }
}

impl Stored for Constraint {
    type Record = rec::Constraint;

    fn store(&self) -> Self::Record {
        use rec::constraint::Kind;
        let parts = |parts: &[Constraint]| rec::ConstraintList { parts: list(parts) };
        let kind = match self {
            Constraint::Feature(name) => Kind::Feature(name.to_string()),
            Constraint::GpuMemory(megabytes) => Kind::GpuMemoryMb(*megabytes),
            Constraint::And(all) => Kind::And(parts(all)),
            Constraint::Or(any) => Kind::Or(parts(any)),
            Constraint::SameOf(any) => Kind::SameOf(parts(any)),
            Constraint::Count(inner, count) => Kind::Count(Box::new(rec::CountedConstraint {
                inner: Some(Box::new(inner.store())),
                count: *count,
            })),
        };
        rec::Constraint { kind: Some(kind) }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        use rec::constraint::Kind;
        Ok(match r.kind.ok_or(BadRecord::Missing("kind of constraint"))? {
            Kind::Feature(name) => Constraint::Feature(name.into()),
            Kind::GpuMemoryMb(megabytes) => Constraint::GpuMemory(megabytes),
            Kind::And(all) => Constraint::And(load_list(all.parts)?),
            Kind::Or(any) => Constraint::Or(load_list(any.parts)?),
            Kind::SameOf(any) => Constraint::SameOf(load_list(any.parts)?),
            Kind::Count(counted) => {
                let inner = counted.inner.ok_or(BadRecord::Missing("counted constraint"))?;
                Constraint::Count(Box::new(Constraint::load(*inner)?), counted.count)
            }
        })
    }
}

impl Stored for Request {
    type Record = rec::Request;

    fn store(&self) -> Self::Record {
        rec::Request {
            min_nodes: self.nodes.min,
            max_nodes: self.nodes.max,
            tasks: self.tasks,
            tasks_given: self.tasks_given,
            tasks_per_node: self.tasks_per_node,
            cpus_per_task: self.cpus_per_task,
            min_cpus_per_node: self.min_cpus_per_node,
            memory: Some(self.memory.store()),
            gres: list(&self.gres),
            cpus_per_gpu: self.cpus_per_gpu,
            constraint: self.constraint.as_ref().map(Stored::store),
            required_nodes: texts(&self.required_nodes),
            excluded_nodes: texts(&self.excluded_nodes),
            exclusive: self.exclusive,
            contiguous: self.contiguous,
            threads_per_core: self.threads_per_core,
            sockets_per_node: self.sockets_per_node,
            max_switches: self.topology.switches.map(|wish| wish.count),
            switch_wait_seconds: self.topology.switches.map_or(0, |wish| wish.max_wait_seconds),
            segment: self.topology.segment,
            topology_alone: self.topology.alone,
            nvlink_required: self.topology.nvlink,
            cpu_binding: match self.topology.binding {
                CpuBinding::Preferred => rec::CpuBinding::Unspecified.into(),
                CpuBinding::Enforced => rec::CpuBinding::Enforced.into(),
                CpuBinding::Disabled => rec::CpuBinding::Disabled.into(),
            },
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        let binding = match r.cpu_binding() {
            rec::CpuBinding::Unspecified => CpuBinding::Preferred,
            rec::CpuBinding::Enforced => CpuBinding::Enforced,
            rec::CpuBinding::Disabled => CpuBinding::Disabled,
        };
        Ok(Request {
            nodes: NodeCount { min: r.min_nodes, max: r.max_nodes },
            tasks: r.tasks,
            tasks_given: r.tasks_given,
            tasks_per_node: r.tasks_per_node,
            cpus_per_task: r.cpus_per_task,
            min_cpus_per_node: r.min_cpus_per_node,
            memory: need(r.memory, "memory")?,
            gres: load_list(r.gres)?,
            cpus_per_gpu: r.cpus_per_gpu,
            constraint: maybe(r.constraint)?,
            required_nodes: boxes(r.required_nodes),
            excluded_nodes: boxes(r.excluded_nodes),
            exclusive: r.exclusive,
            contiguous: r.contiguous,
            threads_per_core: r.threads_per_core,
            sockets_per_node: r.sockets_per_node,
            topology: TopologyWish {
                switches: r
                    .max_switches
                    .map(|count| SwitchWish { count, max_wait_seconds: r.switch_wait_seconds }),
                segment: r.segment,
                alone: r.topology_alone,
                nvlink: r.nvlink_required,
                binding,
            },
        })
    }
}

impl Stored for DependencyTerm {
    type Record = rec::DependencyTerm;

    fn store(&self) -> Self::Record {
        let (kind, minutes) = match self.kind {
            DependencyKind::After { minutes } => (rec::DependencyKind::After, minutes),
            DependencyKind::AfterAny => (rec::DependencyKind::AfterAny, 0),
            DependencyKind::AfterOk => (rec::DependencyKind::AfterOk, 0),
            DependencyKind::AfterNotOk => (rec::DependencyKind::AfterNotOk, 0),
            DependencyKind::AfterCorr => (rec::DependencyKind::AfterCorr, 0),
        };
        rec::DependencyTerm { kind: kind.into(), minutes, job: self.job.0, task: self.task }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        let bad = BadRecord::Value { field: "kind of dependency", value: r.kind.into() };
        let kind = match rec::DependencyKind::try_from(r.kind).map_err(|_| bad.clone())? {
            rec::DependencyKind::Unspecified => return Err(bad),
            rec::DependencyKind::After => DependencyKind::After { minutes: r.minutes },
            rec::DependencyKind::AfterAny => DependencyKind::AfterAny,
            rec::DependencyKind::AfterOk => DependencyKind::AfterOk,
            rec::DependencyKind::AfterNotOk => DependencyKind::AfterNotOk,
            rec::DependencyKind::AfterCorr => DependencyKind::AfterCorr,
        };
        Ok(DependencyTerm { kind, job: JobId(r.job), task: r.task })
    }
}

impl Stored for Dependency {
    type Record = rec::Dependency;

    fn store(&self) -> Self::Record {
        rec::Dependency { terms: list(&self.terms), any: self.any, singleton: self.singleton }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Dependency { terms: load_list(r.terms)?, any: r.any, singleton: r.singleton })
    }
}

impl Stored for ArraySpec {
    type Record = rec::ArraySpec;

    fn store(&self) -> Self::Record {
        rec::ArraySpec { indices: Some(self.indices.store()), throttle: self.throttle }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(ArraySpec { indices: need(r.indices, "array indices")?, throttle: r.throttle })
    }
}

impl Stored for SignalRequest {
    type Record = rec::SignalRequest;

    fn store(&self) -> Self::Record {
        rec::SignalRequest {
            signal: self.signal,
            before_seconds: self.before_seconds,
            batch_only: self.batch_only,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(SignalRequest {
            signal: r.signal,
            before_seconds: r.before_seconds,
            batch_only: r.batch_only,
        })
    }
}

fn text(value: &Option<Box<str>>) -> Option<String> {
    value.as_deref().map(Into::into)
}

impl Stored for LaunchSpec {
    type Record = rec::LaunchSpec;

    fn store(&self) -> Self::Record {
        let rlimit = |(n, v): &(Box<str>, u64)| rec::Named { name: n.to_string(), value: *v };
        let pair =
            |(n, v): &(Box<str>, Box<str>)| rec::Pair { name: n.to_string(), value: v.to_string() };
        rec::LaunchSpec {
            workdir: self.workdir.to_string(),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            stdin: text(&self.stdin),
            append: self.open_mode == OpenMode::Append,
            umask: self.umask,
            rlimits: self.rlimits.iter().map(rlimit).collect(),
            args: Vec::new(),
            command: self.command.to_string(),
            submit_line: String::new(),
            submit_dir: self.submit_dir.to_string(),
            submit_host: self.submit_host.to_string(),
            signal: self.signal.map(|s| s.store()),
            no_kill: self.no_kill,
            overcommit: self.overcommit,
            mail_type: self.mail_type.to_string(),
            mail_user: self.mail_user.to_string(),
            admin_comment: self.admin_comment.to_string(),
            extras: self.extras.iter().map(pair).collect(),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(LaunchSpec {
            workdir: r.workdir.into(),
            stdout: r.stdout.map(Into::into),
            stderr: r.stderr.map(Into::into),
            stdin: r.stdin.map(Into::into),
            open_mode: if r.append { OpenMode::Append } else { OpenMode::Truncate },
            umask: r.umask,
            rlimits: r.rlimits.into_iter().map(|l| (l.name.into(), l.value)).collect(),
            command: r.command.into(),
            submit_dir: r.submit_dir.into(),
            submit_host: r.submit_host.into(),
            signal: maybe(r.signal)?,
            no_kill: r.no_kill,
            overcommit: r.overcommit,
            mail_type: r.mail_type.into(),
            mail_user: r.mail_user.into(),
            admin_comment: r.admin_comment.into(),
            extras: r.extras.into_iter().map(|p| (p.name.into(), p.value.into())).collect(),
        })
    }
}

/// A spec's record without its request and its launch, which a snapshot keeps in tables.
pub(in crate::engine) fn store_spec(spec: &JobSpec) -> rec::JobSpec {
    let User { uid, gid, name } = &spec.user;
    rec::JobSpec {
        name: spec.name.to_string(),
        user: Some(rec::User { uid: uid.0, gid: *gid, name: name.to_string() }),
        account: spec.account.to_string(),
        qos: spec.qos.to_string(),
        partitions: texts(&spec.partitions),
        request: None,
        time_limit: spec.time_limit.map(limit),
        time_min: spec.time_min.map(limit),
        begin: time(spec.begin),
        deadline: time(spec.deadline),
        dependency: (spec.dependency != Dependency::default()).then(|| spec.dependency.store()),
        kill_on_invalid_dependency: spec.kill_on_invalid_dependency,
        array: spec.array.as_ref().map(Stored::store),
        het: spec
            .het
            .map(|part| rec::HetPart { index: part.index.into(), count: part.count.into() }),
        held: spec.held,
        nice: spec.nice,
        priority: spec.priority,
        requeue: spec.requeue,
        licenses: named(&spec.licenses),
        reservation: text(&spec.reservation),
        comment: spec.comment.to_string(),
        wckey: spec.wckey.to_string(),
        launch: None,
        script_bytes: spec.script_bytes,
        env_bytes: spec.env_bytes,
        request_ref: 0,
        launch_ref: 0,
        args: texts(&spec.args),
        submit_line: spec.submit_line.to_string(),
    }
}

/// The launch inside a spec's record. What was once kept in it goes to its place in the spec.
pub(in crate::engine) fn take_launch(r: &mut rec::JobSpec) -> Option<rec::LaunchSpec> {
    let mut launch = r.launch.take()?;
    if r.args.is_empty() {
        r.args = std::mem::take(&mut launch.args);
    }
    if r.submit_line.is_empty() {
        r.submit_line = std::mem::take(&mut launch.submit_line);
    }
    Some(launch)
}

/// The spec of a record, around a request and a launch that were read before.
pub(in crate::engine) fn load_spec(
    r: rec::JobSpec,
    request: Arc<Request>,
    launch: Arc<LaunchSpec>,
) -> Result<JobSpec, BadRecord> {
    let user = r.user.ok_or(BadRecord::Missing("user"))?;
    Ok(JobSpec {
        name: r.name.into(),
        user: User { uid: Uid(user.uid), gid: user.gid, name: user.name.into() },
        account: r.account.into(),
        qos: r.qos.into(),
        partitions: boxes(r.partitions),
        request,
        time_limit: load_limit_opt(r.time_limit)?,
        time_min: load_limit_opt(r.time_min)?,
        begin: load_time(r.begin),
        deadline: load_time(r.deadline),
        dependency: maybe(r.dependency)?.unwrap_or_default(),
        kill_on_invalid_dependency: r.kill_on_invalid_dependency,
        array: maybe(r.array)?,
        het: r.het.map(load_het).transpose()?,
        held: r.held,
        nice: r.nice,
        priority: r.priority,
        requeue: r.requeue,
        licenses: load_named(r.licenses)?,
        reservation: r.reservation.map(Into::into),
        comment: r.comment.into(),
        wckey: r.wckey.into(),
        args: r.args.into_iter().map(Into::into).collect(),
        submit_line: r.submit_line.into(),
        launch,
        script_bytes: r.script_bytes,
        env_bytes: r.env_bytes,
    })
}

fn load_het(r: rec::HetPart) -> Result<HetPart, BadRecord> {
    let number =
        |n: u32| u16::try_from(n).map_err(|_| BadRecord::Value { field: "het", value: n.into() });
    Ok(HetPart { index: number(r.index)?, count: number(r.count)? })
}

impl Stored for JobSpec {
    type Record = rec::JobSpec;

    fn store(&self) -> Self::Record {
        rec::JobSpec {
            request: Some(self.request.store()),
            launch: Some(self.launch.store()),
            ..store_spec(self)
        }
    }

    fn load(mut r: Self::Record) -> Result<Self, BadRecord> {
        let request = need(r.request.take(), "request")?;
        let launch = need(take_launch(&mut r), "launch")?;
        load_spec(r, Arc::new(request), Arc::new(launch))
    }
}
