//! Why a job waits, as a message.

use muster_core::plan::why::{Change, Filter, Funnel, Removed, Suggestion, Why};
use muster_core::state::State;
use muster_model::{GresKind, GresScope, Hostlist, JobId, NodeId, PartitionState, Timestamp};
use muster_proto::v1;
use muster_proto::v1::why_reply as wire;

use super::node_name;

/// Jobs named one by one; of the rest only the number is told.
const NAMED: usize = 8;

/// The reply but for the job itself.
#[must_use]
pub fn reply(state: &State, why: &Why) -> v1::WhyReply {
    let ending = |(job, end): &(JobId, Option<Timestamp>)| wire::Ending {
        job: job.0,
        shown: shown(state, *job),
        end: end.map_or(0, |end| end.0),
    };
    let start = why.start.as_ref();
    v1::WhyReply {
        job: None,
        reason: why.reason.text().to_owned(),
        funnels: why.funnels.iter().map(|f| funnel(state, f)).collect(),
        waits_for: why.waits_for.iter().take(NAMED).map(ending).collect(),
        waits_for_more: beyond(why.waits_for.len()),
        ahead: why.ahead.iter().take(NAMED).map(|job| job.0).collect(),
        ahead_more: beyond(why.ahead.len()),
        start: start.map_or(0, |s| s.at.0),
        partition: start.map_or_else(String::new, |s| s.partition.to_string()),
        nodes: start.map_or_else(String::new, |s| hosts(state, &s.nodes)),
        changes: why.changes.iter().map(|c| change(state, c)).collect(),
    }
}

fn beyond(count: usize) -> u32 {
    u32::try_from(count.saturating_sub(NAMED)).unwrap_or(u32::MAX)
}

fn shown(state: &State, job: JobId) -> String {
    match state.jobs.get(&job).and_then(|job| job.array) {
        Some((array, index)) => format!("{array}_{index}"),
        None => job.to_string(),
    }
}

fn hosts(state: &State, nodes: &[NodeId]) -> String {
    let names = nodes.iter().map(|node| node_name(state, *node));
    names.collect::<Hostlist>().sorted().to_string()
}

fn funnel(state: &State, of: &Funnel) -> wire::Funnel {
    let starts = match of.state {
        PartitionState::Up | PartitionState::Drain => true,
        PartitionState::Down | PartitionState::Inactive => false,
    };
    wire::Funnel {
        partition: of.partition.to_string(),
        starts,
        members: of.members,
        wanted: of.wanted,
        removed: of.removed.iter().map(|r| removed(state, r)).collect(),
        left: of.left,
        network: of.network.map_or_else(String::new, |rejected| rejected.to_string()),
    }
}

fn removed(state: &State, of: &Removed) -> wire::Removed {
    let (filter, detail) = match &of.by {
        Filter::OutOfService => ("out-of-service", ""),
        Filter::Features => ("features", ""),
        Filter::Build => ("build", ""),
        Filter::Named => ("named", ""),
        Filter::Reservation(name) => ("reservation", &**name),
        Filter::WholeCpus => ("whole-cpus", ""),
        Filter::WholeMemory => ("whole-memory", ""),
        Filter::WholeGres(kind) => ("whole-gres", &**kind),
        Filter::WholeLinks => ("whole-links", ""),
        Filter::WholeNear => ("whole-near", ""),
        Filter::InUse => ("in-use", ""),
        Filter::FreeCpus => ("free-cpus", ""),
        Filter::FreeMemory => ("free-memory", ""),
        Filter::FreeGres(kind) => ("free-gres", &**kind),
        Filter::FreeLinks => ("free-links", ""),
        Filter::FreeNear => ("free-near", ""),
        Filter::Promised => ("promised", ""),
    };
    wire::Removed {
        filter: filter.to_owned(),
        detail: detail.to_owned(),
        count: u32::try_from(of.nodes.len()).unwrap_or(u32::MAX),
        nodes: hosts(state, &of.nodes),
    }
}

fn change(state: &State, of: &Suggestion) -> wire::Change {
    let (option, update) = words(&of.change);
    let (partition, nodes) = (of.partition.to_string(), hosts(state, &of.nodes));
    wire::Change { option, update, partition, nodes }
}

/// A change as options of `sbatch`, and as words for `scontrol update`.
fn words(change: &Change) -> (String, String) {
    match change {
        Change::Partition(name) => (format!("--partition={name}"), format!("Partition={name}")),
        Change::Limit(limit) => {
            let limit = muster_model::time::Clock(i64::from(limit.0));
            (format!("--time={limit}"), format!("TimeLimit={limit}"))
        }
        Change::CpusPerTask(cpus) => {
            (format!("--cpus-per-task={cpus}"), format!("CPUsPerTask={cpus}"))
        }
        Change::Gres { kind, count, scope } => {
            let update = format!("Gres={kind}:{count}");
            let update = if *scope == GresScope::Node { update } else { String::new() };
            (gres(kind, *count, *scope), update)
        }
        Change::Nodes { nodes, tasks, gres: whole } => {
            let tasks_option = tasks.map(|n| format!(" --ntasks={n}")).unwrap_or_default();
            let mut option = format!("--nodes={nodes}{tasks_option}");
            for (kind, count) in whole {
                option.push_str(&format!(" {}", gres(kind, *count, GresScope::Job)));
            }
            let tasks = tasks.map(|n| format!(" NumTasks={n}")).unwrap_or_default();
            let update = format!("NumNodes={nodes}{tasks}");
            (option, if whole.is_empty() { update } else { String::new() })
        }
    }
}

fn gres(kind: &GresKind, count: u64, scope: GresScope) -> String {
    let option = match scope {
        GresScope::Node => return format!("--gres={kind}:{count}"),
        GresScope::Job => "--gpus",
        GresScope::Task => "--gpus-per-task",
        GresScope::Socket => "--gpus-per-socket",
    };
    match &kind.of {
        Some(of) => format!("{option}={of}:{count}"),
        None => format!("{option}={count}"),
    }
}
