//! Whether a job could run on an empty cluster, and if not, why, in one sentence with the numbers.

use muster_model::{JobSpec, NodeId};

use crate::plan::ask::Ask;
use crate::plan::place::{Pool, Search};
use crate::rejection::Rejection;
use crate::state::{Facts, GroupKey, PartitionRow, Row, State};

/// The cluster as configured, whoever uses it and whatever is down.
struct Whole<'a>(&'a State);

impl Pool for Whole<'_> {
    fn free(&self, node: NodeId) -> &Row {
        &self.0.nodes[node.0 as usize].facts.whole
    }
    fn facts(&self, node: NodeId) -> &Facts {
        &self.0.nodes[node.0 as usize].facts
    }
    fn open(&self, _: NodeId) -> bool {
        true
    }
}

pub(super) fn could_ever(
    state: &State,
    row: &PartitionRow,
    spec: &JobSpec,
) -> Result<(), Rejection> {
    // A job of this kind waits already, so the question was answered.
    let groups = GroupKey::all_of(&state.partitions, spec);
    let here = |key: &GroupKey| {
        state.partitions[key.partition as usize].partition.name == row.partition.name
    };
    if groups.iter().any(|key| here(key) && state.derived.queue.groups.contains_key(key)) {
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
    let pool = Whole(state);
    let mut search = Search::new(ask, row.members.iter().copied(), &pool);
    if search.place(&pool, &mut u64::MAX.clone()).is_some() {
        return Ok(());
    }
    Err(Rejection::NeverFits { partition, why: why(state, row, &search) })
}

/// The first thing that is wanting.
fn why(state: &State, row: &PartitionRow, search: &Search) -> String {
    let ask = search.ask();
    let members = row.members.len();
    let nodes: Vec<&Facts> =
        search.candidates().map(|id| &*state.nodes[id.0 as usize].facts).collect();
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
    let most = ask.max_nodes.map_or("any number of".to_owned(), |max| max.to_string());
    format!("no {most} nodes have all that it needs at once ({} qualify)", nodes.len())
}
