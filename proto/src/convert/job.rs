//! Job specs.

use std::sync::Arc;

use muster_model::{
    ArraySpec, Constraint, CpuBinding, Dependency, JobSpec, LaunchSpec, NodeCount, OpenMode,
    Request, SwitchWish, TopologyWish, Uid, User,
};

use super::BadField;
use super::values::{
    gres_in, gres_out, limit_in, limit_out, memory_in, memory_out, signal_in, signal_out, time_in,
    time_out, user_in, user_out,
};
use crate::v1;

/// No array index on the wire reaches this, whatever the cluster's own bound is.
pub const MAX_ARRAY_SIZE: u32 = 4_000_001;

/// A spec for the wire.
#[must_use]
pub fn spec_out(spec: &JobSpec) -> v1::JobSpec {
    v1::JobSpec { launch: Some(launch_out(spec)), ..brief_out(spec) }
}

/// The same without how it is launched.
#[must_use]
pub fn brief_out(spec: &JobSpec) -> v1::JobSpec {
    let words = |list: &[Box<str>]| list.iter().map(|s| s.to_string()).collect();
    v1::JobSpec {
        name: spec.name.to_string(),
        user: Some(user_out(&spec.user)),
        account: spec.account.to_string(),
        qos: spec.qos.to_string(),
        partitions: words(&spec.partitions),
        request: Some(request_out(&spec.request)),
        time_limit: spec.time_limit.map(limit_out),
        time_min: spec.time_min.map(limit_out),
        begin: time_out(spec.begin),
        deadline: time_out(spec.deadline),
        dependency: dependency_text(&spec.dependency),
        kill_on_invalid_dependency: spec.kill_on_invalid_dependency,
        array: spec.array.as_ref().map(array_text).unwrap_or_default(),
        het: spec
            .het
            .map(|part| v1::HetPart { index: part.index.into(), count: part.count.into() }),
        held: spec.held,
        nice: spec.nice,
        priority: spec.priority,
        requeue: spec.requeue,
        licenses: spec
            .licenses
            .iter()
            .map(|(name, count)| v1::License { name: name.to_string(), count: *count })
            .collect(),
        reservation: spec.reservation.as_deref().unwrap_or_default().to_owned(),
        comment: spec.comment.to_string(),
        wckey: spec.wckey.to_string(),
        launch: None,
    }
}

/// A spec from the wire. The user is taken as it stands: a submission must overwrite it with the
/// authenticated caller. Array indices must lie below `max_array_size`.
///
/// # Errors
/// The first field that makes no sense.
pub fn spec_in(wire: &v1::JobSpec, max_array_size: u32) -> Result<JobSpec, BadField> {
    let dependency = match wire.dependency.as_str() {
        "" => Dependency::default(),
        text => Dependency::parse(text).map_err(|f| BadField::new("dependency", f))?,
    };
    let array = match wire.array.as_str() {
        "" => None,
        text => Some(
            ArraySpec::parse(text, max_array_size.min(MAX_ARRAY_SIZE))
                .map_err(|f| BadField::new("array", f))?,
        ),
    };
    let nobody = User { uid: Uid(u32::MAX), gid: u32::MAX, name: "".into() };
    Ok(JobSpec {
        name: text(&wire.name),
        user: wire.user.as_ref().map_or(nobody, user_in),
        account: text(&wire.account),
        qos: text(&wire.qos),
        partitions: wire.partitions.iter().map(|p| text(p)).collect(),
        request: Arc::new(request_in(wire.request.as_ref())?),
        time_limit: wire.time_limit.as_ref().and_then(limit_in),
        time_min: wire.time_min.as_ref().and_then(limit_in),
        begin: time_in(wire.begin),
        deadline: time_in(wire.deadline),
        dependency,
        kill_on_invalid_dependency: wire.kill_on_invalid_dependency,
        array,
        het: None,
        held: wire.held,
        nice: wire.nice,
        priority: wire.priority,
        requeue: wire.requeue,
        licenses: wire.licenses.iter().map(|l| (text(&l.name), l.count)).collect(),
        reservation: optional(&wire.reservation),
        comment: text(&wire.comment),
        wckey: text(&wire.wckey),
        args: wire.launch.iter().flat_map(|l| &l.args).map(|a| text(a)).collect(),
        submit_line: text(wire.launch.as_ref().map_or("", |l| &l.submit_line)),
        launch: Arc::new(wire.launch.as_ref().map(launch_in).transpose()?.unwrap_or_default()),
        script_bytes: 0,
        env_bytes: 0,
    })
}

/// A request for the wire.
#[must_use]
pub fn request_out(request: &Request) -> v1::Request {
    let words = |list: &[Box<str>]| list.iter().map(|s| s.to_string()).collect();
    v1::Request {
        min_nodes: request.nodes.min,
        max_nodes: request.nodes.max,
        tasks: request.tasks,
        tasks_given: request.tasks_given,
        tasks_per_node: request.tasks_per_node,
        cpus_per_task: request.cpus_per_task,
        min_cpus_per_node: request.min_cpus_per_node,
        memory: memory_out(request.memory),
        gres: request.gres.iter().map(gres_out).collect(),
        cpus_per_gpu: request.cpus_per_gpu,
        constraint: request.constraint.as_ref().map(ToString::to_string).unwrap_or_default(),
        required_nodes: words(&request.required_nodes),
        excluded_nodes: words(&request.excluded_nodes),
        exclusive: request.exclusive,
        contiguous: request.contiguous,
        threads_per_core: request.threads_per_core,
        sockets_per_node: request.sockets_per_node,
        max_switches: request.topology.switches.map(|wish| wish.count),
        switch_wait_seconds: request.topology.switches.map_or(0, |wish| wish.max_wait_seconds),
        segment: request.topology.segment,
        topology_alone: request.topology.alone,
        nvlink_required: request.topology.nvlink,
        cpu_binding: match request.topology.binding {
            CpuBinding::Preferred => v1::CpuBinding::Unspecified.into(),
            CpuBinding::Enforced => v1::CpuBinding::Enforced.into(),
            CpuBinding::Disabled => v1::CpuBinding::Disabled.into(),
        },
    }
}

/// A request from the wire; counts of 0 are "not given" and become 1.
///
/// # Errors
/// The first field that makes no sense.
pub fn request_in(wire: Option<&v1::Request>) -> Result<Request, BadField> {
    let default = v1::Request::default();
    let wire = wire.unwrap_or(&default);
    let constraint = match wire.constraint.as_str() {
        "" => None,
        text => Some(Constraint::parse(text).map_err(|f| BadField::new("constraint", f))?),
    };
    let nodes = NodeCount { min: wire.min_nodes.max(1), max: wire.max_nodes };
    if let Some(max) = nodes.max.filter(|max| *max < nodes.min) {
        let fault = format!("the maximum {max} is less than the minimum {}", nodes.min);
        return Err(BadField::new("node count", fault));
    }
    if wire.tasks_per_node == Some(0) || wire.cpus_per_gpu == Some(0) {
        return Err(BadField::new("tasks per node or CPUs per GPU", "0 is no count"));
    }
    Ok(Request {
        nodes,
        tasks: wire.tasks.max(1),
        tasks_given: wire.tasks_given,
        tasks_per_node: wire.tasks_per_node,
        cpus_per_task: wire.cpus_per_task.max(1),
        min_cpus_per_node: wire.min_cpus_per_node,
        memory: memory_in(wire.memory.as_ref()),
        gres: wire.gres.iter().map(gres_in).collect::<Result<_, _>>()?,
        cpus_per_gpu: wire.cpus_per_gpu,
        constraint,
        required_nodes: wire.required_nodes.iter().map(|n| text(n)).collect(),
        excluded_nodes: wire.excluded_nodes.iter().map(|n| text(n)).collect(),
        exclusive: wire.exclusive,
        contiguous: wire.contiguous,
        threads_per_core: wire.threads_per_core,
        sockets_per_node: wire.sockets_per_node,
        topology: topology_in(wire)?,
    })
}

fn topology_in(wire: &v1::Request) -> Result<TopologyWish, BadField> {
    if wire.segment == Some(0) || wire.max_switches == Some(0) {
        return Err(BadField::new("segment or switches", "0 is no count"));
    }
    let max_wait_seconds = wire.switch_wait_seconds;
    let switches = wire.max_switches.map(|count| SwitchWish { count, max_wait_seconds });
    Ok(TopologyWish {
        switches,
        segment: wire.segment,
        alone: wire.topology_alone,
        nvlink: wire.nvlink_required,
        binding: match wire.cpu_binding() {
            v1::CpuBinding::Unspecified => CpuBinding::Preferred,
            v1::CpuBinding::Enforced => CpuBinding::Enforced,
            v1::CpuBinding::Disabled => CpuBinding::Disabled,
        },
    })
}

/// How a job is launched, for the wire.
#[must_use]
pub fn launch_out(spec: &JobSpec) -> v1::LaunchSpec {
    let launch = &spec.launch;
    let own = |text: &Option<Box<str>>| text.as_ref().map(|t| t.to_string());
    v1::LaunchSpec {
        workdir: launch.workdir.to_string(),
        stdout: own(&launch.stdout),
        stderr: own(&launch.stderr),
        stdin: own(&launch.stdin),
        append: launch.open_mode == OpenMode::Append,
        umask: launch.umask,
        rlimits: launch
            .rlimits
            .iter()
            .map(|(name, soft)| v1::Rlimit { name: name.to_string(), soft: *soft })
            .collect(),
        args: spec.args.iter().map(|a| a.to_string()).collect(),
        command: launch.command.to_string(),
        submit_line: spec.submit_line.to_string(),
        submit_dir: launch.submit_dir.to_string(),
        submit_host: launch.submit_host.to_string(),
        signal: launch.signal.map(signal_out),
        no_kill: launch.no_kill,
        overcommit: launch.overcommit,
        mail_type: launch.mail_type.to_string(),
        mail_user: launch.mail_user.to_string(),
        admin_comment: launch.admin_comment.to_string(),
        extras: launch
            .extras
            .iter()
            .map(|(name, value)| v1::Pair { name: name.to_string(), value: value.to_string() })
            .collect(),
    }
}

/// A launch spec from the wire, but for arguments and submit line.
///
/// # Errors
/// A signal that is none, or an umask with more than permission bits.
pub fn launch_in(wire: &v1::LaunchSpec) -> Result<LaunchSpec, BadField> {
    let own = |field: &Option<String>| field.as_deref().map(Into::into);
    if wire.umask > 0o777 {
        return Err(BadField::new("umask", format!("{:o} is no umask", wire.umask)));
    }
    Ok(LaunchSpec {
        workdir: text(&wire.workdir),
        stdout: own(&wire.stdout),
        stderr: own(&wire.stderr),
        stdin: own(&wire.stdin),
        open_mode: if wire.append { OpenMode::Append } else { OpenMode::Truncate },
        umask: wire.umask,
        rlimits: wire.rlimits.iter().map(|r| (text(&r.name), r.soft)).collect(),
        command: text(&wire.command),
        submit_dir: text(&wire.submit_dir),
        submit_host: text(&wire.submit_host),
        signal: wire.signal.as_ref().map(signal_in).transpose()?,
        no_kill: wire.no_kill,
        overcommit: wire.overcommit,
        mail_type: text(&wire.mail_type),
        mail_user: text(&wire.mail_user),
        admin_comment: Box::default(),
        extras: wire.extras.iter().map(|p| (text(&p.name), text(&p.value))).collect(),
    })
}

/// As a user would write it: `afterok:12,afterany:13_4`.
#[must_use]
pub fn dependency_text(dependency: &Dependency) -> String {
    let terms = dependency.terms.iter().map(ToString::to_string);
    let singleton = dependency.singleton.then(|| "singleton".to_owned());
    let separator = if dependency.any { "?" } else { "," };
    terms.chain(singleton).collect::<Vec<_>>().join(separator)
}

/// As a user would write it: `0-3,8%2`.
#[must_use]
pub fn array_text(array: &ArraySpec) -> String {
    match array.throttle {
        Some(throttle) => format!("{}%{throttle}", array.indices),
        None => array.indices.to_string(),
    }
}

fn text(text: &str) -> Box<str> {
    text.into()
}

fn optional(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}
