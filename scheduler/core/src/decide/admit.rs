//! What a spec must keep to, at submission and after an update. Fills in what was left open.

use muster_model::{
    Dependency, JobId, JobSpec, MemoryRequest, PartitionState, Reason, Request, TimeLimit,
    Timestamp,
};

use crate::config::{Actor, Role};
use crate::rejection::Rejection;
use crate::state::queue::beyond_limits;
use crate::state::{PartitionRow, State};

use super::fit;
use super::target::needs_operator;

/// Who asks.
pub(super) struct Caller<'a> {
    pub(super) actor: Actor,
    pub(super) groups: &'a [Box<str>],
}

/// A new submission.
pub(super) fn fresh(
    state: &State,
    caller: &Caller<'_>,
    spec: &mut JobSpec,
    now: Timestamp,
) -> Result<(), Rejection> {
    if spec.user.uid != caller.actor.uid && caller.actor.role < Role::Admin {
        return Err(Rejection::NotPermitted { what: "submitting as another user".to_owned() });
    }
    if spec.user.uid.0 == 0 && !state.config.limits.root_jobs {
        return Err(Rejection::RootNotAdmitted);
    }
    if spec.nice < 0 {
        needs_operator(caller.actor, "a negative nice value")?;
    }
    if spec.priority.is_some() {
        needs_operator(caller.actor, "setting a priority")?;
    }
    texts(spec)?;
    array(state, spec)?;
    partitions(state, caller, spec)?;
    dependencies(state, &spec.dependency)?;
    times(spec, now)?;
    resources(state, spec)
}

/// One line of plain text: it is printed in tables and on terminals.
fn texts(spec: &JobSpec) -> Result<(), Rejection> {
    let fields = [
        ("job name", &spec.name),
        ("comment", &spec.comment),
        ("account", &spec.account),
        ("wckey", &spec.wckey),
    ];
    for (what, text) in fields {
        if text.chars().any(char::is_control) {
            let text = text.escape_debug();
            return Err(Rejection::BadValue(format!("{what} \"{text}\" has control characters")));
        }
        if text.len() > 1024 {
            return Err(Rejection::BadValue(format!("the {what} is longer than 1024 bytes")));
        }
    }
    Ok(())
}

fn array(state: &State, spec: &JobSpec) -> Result<(), Rejection> {
    let Some(array) = &spec.array else { return Ok(()) };
    let max = state.config.limits.max_array_size;
    match array.indices.last() {
        None => Err(Rejection::BadArray("it has no tasks".to_owned())),
        Some(last) if last >= max => Err(Rejection::BadArray(format!(
            "index {last} is too high (the cluster's max_array_size is {max})"
        ))),
        Some(_) => Ok(()),
    }
}

/// Partitions exist, take jobs and admit the user; the default one stands in for none.
pub(super) fn partitions(
    state: &State,
    caller: &Caller<'_>,
    spec: &mut JobSpec,
) -> Result<(), Rejection> {
    if spec.partitions.is_empty() {
        let default = state.partitions.iter().find(|row| row.partition.default);
        let default = default.ok_or(Rejection::NoDefaultPartition)?;
        spec.partitions.push(default.partition.name.clone());
    }
    for name in &spec.partitions {
        let row = state.partition(name);
        let row = row.ok_or_else(|| Rejection::UnknownPartition(name.to_string()))?;
        open(row)?;
        access(row, caller, spec)?;
    }
    if spec.time_limit.is_none() {
        let first = state.partition(&spec.partitions[0]).map(|row| &row.partition);
        spec.time_limit = first.map(|p| p.default_time.unwrap_or(p.max_time));
    }
    Ok(())
}

fn open(row: &PartitionRow) -> Result<(), Rejection> {
    let closed = |state| {
        let partition = row.partition.name.to_string();
        Err(Rejection::PartitionClosed { partition, state })
    };
    match row.partition.state {
        PartitionState::Up | PartitionState::Down => Ok(()),
        PartitionState::Drain => closed("drain"),
        PartitionState::Inactive => closed("inactive"),
    }
}

fn access(row: &PartitionRow, caller: &Caller<'_>, spec: &JobSpec) -> Result<(), Rejection> {
    let partition = &row.partition;
    let everybody = partition.allow_users.is_empty() && partition.allow_groups.is_empty();
    let by_name = partition.allow_users.contains(&spec.user.name);
    let by_group = caller.groups.iter().any(|group| partition.allow_groups.contains(group));
    if everybody || by_name || by_group || caller.actor.role == Role::Admin {
        return Ok(());
    }
    Err(Rejection::PartitionAccess {
        partition: partition.name.to_string(),
        user: spec.user.name.to_string(),
    })
}

/// What is waited for exists.
pub(super) fn dependencies(state: &State, dependency: &Dependency) -> Result<(), Rejection> {
    for term in &dependency.terms {
        if state.dependency_target(term).is_some() {
            continue;
        }
        return Err(match (term.task, state.arrays.contains_key(&term.job)) {
            (Some(task), true) => Rejection::UnknownTask(term.job, task),
            (Some(_), false) | (None, _) => Rejection::UnknownDependency(term.job),
        });
    }
    Ok(())
}

/// A dependency that was changed may not lead back to the job.
pub(super) fn no_loop(
    state: &State,
    job: JobId,
    array: Option<JobId>,
    dependency: &Dependency,
) -> Result<(), Rejection> {
    let own = |term: &muster_model::DependencyTerm| term.job == job || Some(term.job) == array;
    if dependency.terms.iter().any(own) {
        return Err(Rejection::DependencyOnItself(job));
    }
    let of = array.unwrap_or(job);
    if state.dependency_loops(of, dependency) || state.dependency_loops(job, dependency) {
        return Err(Rejection::DependencyLoop(job));
    }
    Ok(())
}

pub(super) fn times(spec: &JobSpec, now: Timestamp) -> Result<(), Rejection> {
    let limit = spec.time_limit.and_then(TimeLimit::seconds);
    let least = spec.time_min.and_then(TimeLimit::seconds);
    if spec.time_min == Some(TimeLimit::Unlimited) && limit.is_some() {
        return Err(Rejection::BadTimeLimit(
            "the least is unlimited and the limit is not".to_owned(),
        ));
    }
    if let (Some(least), Some(limit)) = (least, limit)
        && least > limit
    {
        let text =
            format!("the least ({} min) is above the limit ({} min)", least / 60, limit / 60);
        return Err(Rejection::BadTimeLimit(text));
    }
    let Some(deadline) = spec.deadline else { return Ok(()) };
    if deadline <= now {
        return Err(Rejection::BadDeadline("it has passed already".to_owned()));
    }
    let start = spec.begin.unwrap_or(now).max(now);
    let end = start.plus_seconds(least.or(limit).unwrap_or(0));
    if end > deadline {
        let late = (end.since(deadline) + 59_999) / 60_000;
        let text = format!("the job would end {late} min after it at the earliest");
        return Err(Rejection::BadDeadline(text));
    }
    Ok(())
}

/// What it asks for exists, is allowed, and could be had by an empty cluster.
pub(super) fn resources(state: &State, spec: &JobSpec) -> Result<(), Rejection> {
    let request = &spec.request;
    numbers(request)?;
    names(state, spec)?;
    let rows: Vec<&PartitionRow> =
        spec.partitions.iter().filter_map(|name| state.partition(name)).collect();
    let mut first = None;
    for row in rows {
        let why = match limits(state, row, spec) {
            Err(why) => why,
            Ok(()) => match fit::could_ever(state, row, spec) {
                Err(why) => why,
                Ok(()) => return Ok(()),
            },
        };
        first.get_or_insert(why);
    }
    first.map_or(Err(Rejection::NoDefaultPartition), Err)
}

fn numbers(request: &Request) -> Result<(), Rejection> {
    let nodes = request.nodes;
    if nodes.min == 0 || nodes.max == Some(0) {
        return Err(Rejection::BadNodeCount("it must be 1 or more".to_owned()));
    }
    if let Some(max) = nodes.max.filter(|max| *max < nodes.min) {
        let text = format!("the least ({}) is above the most ({max})", nodes.min);
        return Err(Rejection::BadNodeCount(text));
    }
    if request.tasks == 0 || request.cpus_per_task == 0 || request.tasks_per_node == Some(0) {
        return Err(Rejection::BadCpuCount("tasks and CPUs per task must be 1 or more".to_owned()));
    }
    if request.gres.iter().any(|g| g.count > 1 << 32) {
        return Err(Rejection::BadValue("a generic resource count is too large".to_owned()));
    }
    Ok(())
}

fn names(state: &State, spec: &JobSpec) -> Result<(), Rejection> {
    let request = &spec.request;
    for name in request.required_nodes.iter().chain(&request.excluded_nodes) {
        if state.node_id(name).is_none() {
            return Err(Rejection::UnknownNode(name.to_string()));
        }
    }
    let configured = || state.nodes.iter().filter(|node| node.configured);
    for feature in request.constraint.iter().flat_map(|c| c.features()) {
        if !configured().any(|node| node.facts.has_feature(feature)) {
            return Err(Rejection::UnknownFeature(feature.to_owned()));
        }
    }
    for gres in request.gres.iter().filter(|g| g.count > 0) {
        let has = |slot: &crate::state::GresSlot| slot.kind.satisfies(&gres.kind);
        if !configured().any(|node| node.facts.slots.iter().any(has)) {
            return Err(Rejection::UnknownGres(gres.kind.to_string()));
        }
    }
    for (name, count) in &spec.licenses {
        let all = state.config.licenses.iter().find(|(known, _)| known == name);
        let (_, all) = all.ok_or_else(|| Rejection::UnknownLicense(name.to_string()))?;
        if count > all {
            let text = format!("{count} licences {name:?} are asked for, the cluster has {all}");
            return Err(Rejection::BadValue(text));
        }
    }
    reservation(state, spec)
}

/// The reservation exists and admits the user with this account.
pub(super) fn reservation(state: &State, spec: &JobSpec) -> Result<(), Rejection> {
    let Some(name) = &spec.reservation else { return Ok(()) };
    let found = state.reservations.get(name);
    let found = found.ok_or_else(|| Rejection::UnknownReservation(name.to_string()))?;
    if found.admits(&spec.user.name, &spec.account) {
        return Ok(());
    }
    Err(Rejection::ReservationAccess {
        reservation: name.to_string(),
        user: spec.user.name.to_string(),
        account: spec.account.to_string(),
    })
}

/// A partition's limits. Where they are not enforced at submission, the job waits instead.
fn limits(state: &State, row: &PartitionRow, spec: &JobSpec) -> Result<(), Rejection> {
    let partition = &row.partition;
    let (name, request) = (&partition.name, &spec.request);
    if let (Some(max), MemoryRequest::PerNode(asked)) =
        (partition.max_memory_per_node_mib, request.memory)
        && asked > max
    {
        let text = format!("{asked} MiB per node, partition {name:?} allows {max} MiB");
        return Err(Rejection::BadMemory(text));
    }
    let Some(limit) = beyond_limits(row, spec) else { return Ok(()) };
    if !state.config.limits.enforce_partition_limits {
        return Ok(());
    }
    let minutes = |limit: Option<TimeLimit>| match limit.and_then(TimeLimit::whole_minutes) {
        Some(minutes) => format!("{minutes} min"),
        None => "no limit".to_owned(),
    };
    Err(if limit == Reason::PartitionTimeLimit {
        let (asked, max) = (minutes(spec.time_limit), minutes(Some(partition.max_time)));
        Rejection::BadTimeLimit(format!("{asked} asked for, partition {name:?} allows {max}"))
    } else {
        let (min, max) = (partition.min_nodes, partition.max_nodes);
        let range = max.map_or(format!("{min} or more"), |max| format!("{min} to {max}"));
        let asked = request.nodes.min;
        Rejection::BadNodeCount(format!("{asked} asked for, partition {name:?} allows {range}"))
    })
}
