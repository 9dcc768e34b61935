//! What operators and users want changed, from the wire.

use muster_core::command::{GpuVerb, JobChange, NodeChange, NodeVerb, PartitionChange, TimeChange};
use muster_model::{Constraint, Dependency, Hostlist, SwitchWish, Timestamp};
use muster_proto::convert::values::{gres_in, limit_in, memory_in};
use muster_proto::convert::{BadField, check};
use muster_proto::v1;

use crate::show::node::state_of;

/// `scontrol update job`.
///
/// # Errors
/// The first field that makes no sense.
pub fn job(wire: &v1::UpdateJobRequest) -> Result<JobChange, BadField> {
    let name = |field, value: &Option<String>| -> Result<Option<Box<str>>, BadField> {
        let Some(value) = value else { return Ok(None) };
        check::text(field, value)?;
        Ok(Some(value.as_str().into()))
    };
    Ok(JobChange {
        name: name("job name", &wire.name)?,
        comment: name("comment", &wire.comment)?,
        time_limit: time(wire)?,
        partitions: wire.partitions.as_ref().map(|p| p.split(',').map(Into::into).collect()),
        account: name("account", &wire.account)?,
        qos: name("qos", &wire.qos)?,
        nice: wire.nice,
        priority: wire.priority,
        dependency: wire.dependency.as_deref().map(dependency).transpose()?,
        begin: wire.begin.map(Timestamp),
        deadline: wire.deadline.map(Timestamp),
        requeue: wire.requeue,
        min_nodes: wire.min_nodes,
        max_nodes: wire.max_nodes,
        tasks: wire.tasks.or(wire.num_cpus),
        cpus_per_task: wire.cpus_per_task,
        memory: wire.memory.as_ref().map(|memory| memory_in(Some(memory))),
        constraint: wire.constraint.as_deref().map(constraint).transpose()?,
        gres: gres(wire)?,
        required_nodes: hosts(wire.required_nodes.as_deref())?,
        excluded_nodes: hosts(wire.excluded_nodes.as_deref())?,
        array_throttle: wire.array_throttle,
        stdout: name("output", &wire.stdout)?,
        stderr: name("error", &wire.stderr)?,
        workdir: name("working directory", &wire.workdir)?,
        mail_type: name("mail type", &wire.mail_type)?,
        mail_user: name("mail user", &wire.mail_user)?,
        wckey: name("wckey", &wire.wckey)?,
        licenses: wire.licenses.as_deref().map(licenses).transpose()?,
        reservation: name("reservation", &wire.reservation)?,
        admin_comment: name("admin comment", &wire.admin_comment)?,
        contiguous: wire.contiguous,
        switches: wire
            .max_switches
            .map(|count| SwitchWish { count, max_wait_seconds: wire.switch_wait_seconds }),
    })
}

fn time(wire: &v1::UpdateJobRequest) -> Result<Option<TimeChange>, BadField> {
    use v1::update_job_request::Time;
    Ok(match &wire.time {
        None => None,
        Some(Time::TimeDeltaMinutes(minutes)) => Some(TimeChange::ByMinutes(*minutes)),
        Some(Time::End(at)) => Some(TimeChange::EndAt(Timestamp(*at))),
        Some(Time::TimeLimit(limit)) => {
            let limit = limit_in(limit).ok_or_else(|| BadField::new("time limit", "is missing"))?;
            Some(TimeChange::To(limit))
        }
    })
}

fn dependency(text: &str) -> Result<Dependency, BadField> {
    if text.is_empty() {
        return Ok(Dependency::default());
    }
    Dependency::parse(text).map_err(|f| BadField::new("dependency", f))
}

fn constraint(text: &str) -> Result<Option<Constraint>, BadField> {
    if text.is_empty() {
        return Ok(None);
    }
    Constraint::parse(text).map(Some).map_err(|f| BadField::new("constraint", f))
}

fn gres(wire: &v1::UpdateJobRequest) -> Result<Option<Vec<muster_model::GresRequest>>, BadField> {
    let list = wire.gres.iter().map(gres_in).collect::<Result<Vec<_>, _>>()?;
    Ok((wire.gres_set || !list.is_empty()).then_some(list))
}

fn hosts(list: Option<&str>) -> Result<Option<Vec<Box<str>>>, BadField> {
    let Some(list) = list else { return Ok(None) };
    let hosts = Hostlist::parse(list).map_err(|f| BadField::new("node list", f))?;
    Ok(Some(hosts.0.into_iter().map(Into::into).collect()))
}

/// `name:2,other`.
///
/// # Errors
/// A count that is no number.
pub fn licenses(text: &str) -> Result<Vec<(Box<str>, u32)>, BadField> {
    let one = |item: &str| {
        let (name, count) = item.split_once([':', '*']).unwrap_or((item, "1"));
        let count = count.parse().map_err(|_| BadField::new("licenses", format!("{item:?}")))?;
        Ok((name.into(), count))
    };
    text.split(',').filter(|item| !item.is_empty()).map(one).collect()
}

/// The GPUs that a change of nodes is about, and what of them; `None`: it is about the nodes.
///
/// # Errors
/// Another verb than DRAIN, RESUME and UNDRAIN; numbers that no GPU has.
pub fn gpus(wire: &v1::UpdateNodesRequest) -> Result<Option<(Vec<u8>, GpuVerb)>, BadField> {
    if wire.gpus.is_empty() {
        return Ok(None);
    }
    let verb = match v1::NodeVerb::try_from(wire.verb) {
        Ok(v1::NodeVerb::Drain) => GpuVerb::Drain { reason: wire.reason.as_str().into() },
        Ok(v1::NodeVerb::Resume | v1::NodeVerb::Undrain) => GpuVerb::Resume,
        _ => return Err(BadField::new("state", "a GPU takes DRAIN, RESUME or UNDRAIN")),
    };
    let units = wire.gpus.iter().map(|unit| u8::try_from(*unit));
    let units = units.collect::<Result<Vec<u8>, _>>();
    let units = units.map_err(|_| BadField::new("gpu", "no node has so many GPUs"))?;
    Ok(Some((units, verb)))
}

/// `scontrol update node`.
///
/// # Errors
/// An unknown verb, or a reason with control characters.
pub fn node(wire: &v1::UpdateNodesRequest) -> Result<NodeChange, BadField> {
    check::text("reason", &wire.reason)?;
    let reason = || wire.reason.as_str().into();
    let verb = match v1::NodeVerb::try_from(wire.verb) {
        Ok(v1::NodeVerb::None) => None,
        Ok(v1::NodeVerb::Drain) => Some(NodeVerb::Drain { reason: reason() }),
        Ok(v1::NodeVerb::Down) => Some(NodeVerb::Down { reason: reason() }),
        Ok(v1::NodeVerb::Resume) => Some(NodeVerb::Resume),
        Ok(v1::NodeVerb::Undrain) => Some(NodeVerb::Undrain),
        Err(_) => return Err(BadField::new("state", "unknown verb")),
    };
    let features = wire.features.as_deref().map(|list| {
        list.split(',').filter(|f| !f.is_empty()).map(Into::into).collect::<Vec<Box<str>>>()
    });
    if let Some(comment) = &wire.comment {
        check::text("comment", comment)?;
    }
    let comment = wire.comment.as_deref().map(Into::into);
    Ok(NodeChange { verb, weight: wire.weight, features, comment })
}

/// `scontrol update partition`.
///
/// # Errors
/// An unknown state or a tier that is too high.
pub fn partition(wire: &v1::UpdatePartitionRequest) -> Result<PartitionChange, BadField> {
    let state = match wire.state.as_deref() {
        None => None,
        Some(text) => Some(state_of(text).ok_or_else(|| {
            BadField::new("state", format!("{text:?}: use UP, DOWN, DRAIN or INACTIVE"))
        })?),
    };
    let tier = wire.priority_tier.map(u16::try_from).transpose();
    Ok(PartitionChange {
        state,
        max_time: wire.max_time.as_ref().and_then(limit_in),
        default_time: wire.default_time.as_ref().and_then(limit_in),
        max_nodes: wire.max_nodes,
        priority_tier: tier.map_err(|_| BadField::new("priority tier", "exceeds 65535"))?,
    })
}
