//! Whether a job could run on an empty cluster, and if not, why, in one sentence with the numbers.

use muster_model::{CpuBinding, JobSpec, NodeId};

use crate::plan::ask::Ask;
use crate::plan::demand::Demand;
use crate::plan::fits;
use crate::rejection::Rejection;
use crate::state::{Facts, GroupKey, PartitionRow, State};

pub(super) fn could_ever(
    state: &State,
    row: &PartitionRow,
    spec: &JobSpec,
) -> Result<(), Rejection> {
    // A job of this kind waits already, so the question was answered.
    let groups = GroupKey::all_of(&state.partitions, spec, 0);
    let here = |key: &GroupKey| {
        state.partitions[key.partition as usize].partition.name == row.partition.name
    };
    if groups.iter().any(|key| here(key) && state.derived.queue.has_kind(key)) {
        return Ok(());
    }
    let partition = row.partition.name.to_string();
    let in_partition = |name: &str| {
        let id = state.node_id(name);
        id.is_some_and(|id| row.members.binary_search(&id).is_ok())
    };
    if let Some(node) = spec.request.required_nodes.iter().find(|name| !in_partition(name)) {
        return Err(Rejection::NodeNotInPartition { node: node.to_string(), partition });
    }
    let ask = Ask::new(&spec.request, &row.partition);
    let axes = &state.derived.axes;
    let demand = Demand::new(ask.clone(), axes);
    if demand.as_ref().is_some_and(|d| fits::could_serve(d, axes, &state.nodes, &row.members)) {
        return Ok(());
    }
    let candidates: Vec<NodeId> = demand.as_ref().map_or_else(Vec::new, |demand| {
        fits::candidates(demand, &state.nodes, &row.members).collect()
    });
    Err(Rejection::NeverFits { partition, why: why(state, row, &ask, &candidates) })
}

/// The first thing that is wanting.
fn why(state: &State, row: &PartitionRow, ask: &Ask, candidates: &[NodeId]) -> String {
    let members = row.members.len();
    let facts = |id: &NodeId| &*state.nodes[id.0 as usize].facts;
    let nodes: Vec<&Facts> = candidates.iter().map(facts).collect();
    let gres = ask.node_gres.iter().chain(&ask.task_gres).chain(&ask.job_gres);
    let all = || row.members.iter().map(facts);
    let had = |kind: &muster_model::GresKind| {
        all().any(|f| f.slots.iter().any(|s| s.kind.satisfies(kind)))
    };
    if let Some((kind, wanted)) = { gres }.find(|(kind, _)| !had(kind)) {
        return format!("it needs {wanted} {kind} and none of its {members} nodes has any");
    }
    if nodes.is_empty() {
        let wish = ask.constraint.as_ref().map_or(String::new(), |c| format!(" with {c}"));
        return format!("none of its {members} nodes{wish} is admitted by the request");
    }
    if (nodes.len() as u64) < u64::from(ask.min_nodes) {
        return format!("it needs {} nodes and {} qualify", ask.min_nodes, nodes.len());
    }
    if let Some(max) = ask.max_nodes.filter(|max| *max < ask.min_nodes) {
        return format!("it needs {} nodes and at most {max} are allowed", ask.min_nodes);
    }
    let per_node = ask.tasks_per_node.unwrap_or(1);
    let ones = vec![1; ask.job_gres.len()];
    let largest = |of: fn(&Facts) -> u64| nodes.iter().map(|f| of(f)).max().unwrap_or(0);
    let (cpus, memory) =
        (largest(|f| u64::from(f.whole.cpus.len())), largest(|f| f.whole.memory_mib));
    let tasks = if ask.tasks.is_none() { per_node } else { 1 };
    let need = ask.need(tasks, &ones, 0, 0);
    if u64::from(need.cpus) > cpus {
        return format!("it needs {} CPUs on a node and the largest has {cpus}", need.cpus);
    }
    if need.memory_mib > memory {
        return format!("it needs {} MiB on a node and the largest has {memory}", need.memory_mib);
    }
    let units = |facts: &Facts, kind: &muster_model::GresKind| -> u64 {
        let slots = facts.slots.iter().zip(&facts.whole.gres);
        slots.filter(|(s, _)| s.kind.satisfies(kind)).map(|(_, u)| u.count).sum()
    };
    for (kind, wanted) in &need.gres {
        let most = nodes.iter().map(|f| units(f, kind)).max().unwrap_or(0);
        if *wanted > most {
            return format!("it needs {wanted} {kind} on a node and the largest has {most}");
        }
    }
    let gpus =
        need.gres.iter().filter(|(kind, _)| &*kind.name == "gpu").map(|(_, n)| n).sum::<u64>();
    let demand = Demand::new(ask.clone(), &state.derived.axes);
    let most = demand.as_ref().map_or(u32::MAX, |demand| {
        let named = |f: &&&Facts| ask.required.is_empty() || ask.required.contains(&f.name);
        let most = nodes.iter().filter(named).map(|f| demand.most_joined(f, None));
        most.max().unwrap_or(u32::MAX)
    });
    if gpus > u64::from(most) {
        return format!(
            "it needs {gpus} GPUs joined by NVLink on a node and at most {most} are on any"
        );
    }
    let could_bind =
        |demand: &Demand| fits::could_bind(demand, (tasks, &ones), &state.nodes, candidates);
    if ask.binding == CpuBinding::Enforced && !demand.as_ref().is_some_and(could_bind) {
        let cpus = need.cpus;
        return format!("it needs {cpus} CPUs near its {gpus} GPUs on a node and no node has them");
    }
    for (kind, wanted) in &ask.job_gres {
        let all: u64 = nodes.iter().map(|f| units(f, kind)).sum();
        if *wanted > all {
            return format!("it needs {wanted} {kind} and its nodes have {all}");
        }
    }
    let all: u64 = nodes.iter().map(|f| u64::from(f.whole.cpus.len())).sum();
    let total = u64::from(ask.tasks.unwrap_or(0)) * u64::from(ask.cpus_per_task);
    if total > all {
        return format!("it needs {total} CPUs and its {} nodes have {all}", nodes.len());
    }
    let most = ask.max_nodes.map_or(String::new(), |max| format!("{max} "));
    format!("no {most}nodes have all that it needs at once ({} qualify)", nodes.len())
}
