//! What a request comes to in one partition: defaults filled in, wishes sorted by what they are
//! counted per.

use muster_model::{
    Constraint, CpuBinding, GresKind, GresScope, MemoryRequest, Partition, Request, SwitchWish,
};
use smallvec::SmallVec;

use crate::state::Facts;

/// Memory on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    Whole,
    PerNode(u64),
    PerCpu(u64),
    PerGpu(u64),
}

/// Wishes for GRES. There is seldom more than one.
pub type Wants = SmallVec<[(GresKind, u64); 1]>;

/// A request as the placement works with it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub min_nodes: u32,
    pub max_nodes: Option<u32>,
    /// Tasks over all nodes; `None`: `tasks_per_node` on each.
    pub tasks: Option<u32>,
    pub tasks_per_node: Option<u32>,
    pub cpus_per_task: u32,
    pub min_cpus: u32,
    pub cpus_per_gpu: u32,
    pub memory: Memory,
    pub exclusive: bool,
    pub contiguous: bool,
    pub switches: Option<SwitchWish>,
    pub segment: Option<u32>,
    /// Nobody else in the part of the network that it gets.
    pub alone: bool,
    /// A node's GPUs of the job are joined by NVLink.
    pub nvlink: bool,
    /// How its CPUs on a node are bound to its GPUs there.
    pub binding: CpuBinding,
    /// On every node.
    pub node_gres: Wants,
    /// For every task.
    pub task_gres: Wants,
    /// Over the whole job, at least one on every node.
    pub job_gres: Wants,
    pub required: Vec<Box<str>>,
    pub excluded: Vec<Box<str>>,
    pub threads_per_core: Option<u32>,
    pub sockets_per_node: Option<u32>,
    /// What every node must have.
    pub constraint: Option<Constraint>,
    /// One of these must be what all nodes have.
    pub alternatives: Vec<Constraint>,
    /// This many nodes must have this.
    pub counts: Vec<(Constraint, u32)>,
}

/// What a job takes of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub cpus: u32,
    pub memory_mib: u64,
    pub gres: Wants,
}

impl Ask {
    #[must_use]
    pub fn new(request: &Request, partition: &Partition) -> Self {
        let scoped = |scope| -> Wants {
            let wanted = request.gres.iter().filter(|g| g.scope == scope && g.count > 0);
            wanted.map(|g| (g.kind.clone(), g.count)).collect()
        };
        let mut node_gres = scoped(GresScope::Node);
        let sockets = u64::from(request.sockets_per_node.unwrap_or(1));
        node_gres.extend(scoped(GresScope::Socket).into_iter().map(|(k, n)| (k, n * sockets)));
        let has_gpus = request.gres.iter().any(|g| g.count > 0 && &*g.kind.name == "gpu");
        let (constraint, alternatives, counts) = split_constraint(request.constraint.as_ref());
        let required = u32::try_from(request.required_nodes.len()).unwrap_or(u32::MAX);
        let counted = counts.iter().map(|(_, n)| *n).sum();
        let min_nodes =
            request.nodes.min.max(required).max(counted).max(partition.min_nodes).max(1);
        let cap = partition.max_nodes.map(|max| max.max(min_nodes));
        Ask {
            min_nodes,
            max_nodes: match (request.nodes.max.map(|max| max.max(min_nodes)), cap) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            tasks: request.tasks_given.then_some(request.tasks.max(1)),
            tasks_per_node: request.tasks_per_node.filter(|n| *n > 0),
            cpus_per_task: request.cpus_per_task.max(1),
            min_cpus: request.min_cpus_per_node,
            cpus_per_gpu: request.cpus_per_gpu.unwrap_or(0),
            memory: memory(request.memory, partition),
            exclusive: request.exclusive || partition.exclusive,
            contiguous: request.contiguous,
            switches: request.topology.switches,
            segment: request.topology.segment,
            alone: request.topology.alone,
            nvlink: request.topology.nvlink,
            binding: match has_gpus && !(request.exclusive || partition.exclusive) {
                true => request.topology.binding,
                // Whoever has the whole node has all of its CPUs.
                false => CpuBinding::Preferred,
            },
            node_gres,
            task_gres: scoped(GresScope::Task),
            job_gres: scoped(GresScope::Job),
            required: request.required_nodes.clone(),
            excluded: request.excluded_nodes.clone(),
            threads_per_core: request.threads_per_core,
            sockets_per_node: request.sockets_per_node,
            constraint,
            alternatives,
            counts,
        }
    }

    /// The kinds of GPUs asked for.
    #[must_use]
    pub fn gpu_kinds(&self) -> Vec<&GresKind> {
        let all = self.node_gres.iter().chain(&self.task_gres).chain(&self.job_gres);
        all.map(|(kind, _)| kind).filter(|kind| &*kind.name == "gpu").collect()
    }

    /// Whether GPUs of any type will do.
    #[must_use]
    pub fn takes_any_gpu(&self) -> bool {
        self.gpu_kinds().iter().any(|kind| kind.of.is_none())
    }

    /// Whether amounts alone do not tell if a node serves: which GPUs and CPUs matters.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        self.nvlink || self.binding == CpuBinding::Enforced
    }

    /// Whether a node has what a constraint of this request names.
    #[must_use]
    pub fn finds(&self, constraint: &Constraint, facts: &Facts) -> bool {
        let kinds = self.gpu_kinds();
        constraint.admits(&|term| facts.has(term, &kinds))
    }

    /// Whether a node given to a job with a range of nodes is worth having beyond the least.
    #[must_use]
    pub fn takes_more_nodes(&self) -> bool {
        self.tasks.is_none() && self.job_gres.is_empty()
    }

    /// What `tasks` tasks and these shares of the job's own gres take of a node with `all_cpus`
    /// CPUs and `all_memory` MiB.
    #[must_use]
    pub fn need(&self, tasks: u32, shares: &[u64], all_cpus: u32, all_memory: u64) -> Need {
        let mut gres = self.node_gres.clone();
        gres.extend(self.task_gres.iter().map(|(k, n)| (k.clone(), n * u64::from(tasks))));
        gres.extend(self.job_gres.iter().zip(shares).map(|((k, _), n)| (k.clone(), *n)));
        let gpus = gres.iter().filter(|(k, _)| &*k.name == "gpu").map(|(_, n)| *n).sum::<u64>();
        let by_gpus = u32::try_from(gpus).unwrap_or(u32::MAX).saturating_mul(self.cpus_per_gpu);
        let by_tasks = tasks.saturating_mul(self.cpus_per_task);
        let cpus = match self.exclusive {
            true => all_cpus.max(by_tasks).max(by_gpus).max(self.min_cpus),
            false => by_tasks.max(by_gpus).max(self.min_cpus).max(1),
        };
        let memory_mib = match self.memory {
            Memory::Whole => all_memory,
            Memory::PerNode(mib) => mib,
            Memory::PerCpu(mib) => mib.saturating_mul(u64::from(cpus)),
            Memory::PerGpu(mib) => mib.saturating_mul(gpus),
        };
        Need { cpus, memory_mib, gres }
    }
}

fn memory(request: MemoryRequest, partition: &Partition) -> Memory {
    match partition.memory(request) {
        MemoryRequest::PerNode(0) | MemoryRequest::Default => Memory::Whole,
        MemoryRequest::PerNode(mib) => Memory::PerNode(mib),
        MemoryRequest::PerCpu(mib) => Memory::PerCpu(mib),
        MemoryRequest::PerGpu(mib) => Memory::PerGpu(mib),
    }
}

/// Sorts a constraint into what each node must have, alternatives and counts.
fn split_constraint(
    constraint: Option<&Constraint>,
) -> (Option<Constraint>, Vec<Constraint>, Vec<(Constraint, u32)>) {
    let (mut alternatives, mut counts) = (Vec::new(), Vec::new());
    let parts = match constraint {
        Some(Constraint::And(parts)) => parts.as_slice(),
        Some(other) => std::slice::from_ref(other),
        None => &[],
    };
    for part in parts {
        match part {
            Constraint::SameOf(options) if alternatives.is_empty() => {
                alternatives.clone_from(options);
            }
            Constraint::Count(inner, n) => counts.push(((**inner).clone(), *n)),
            Constraint::SameOf(_)
            | Constraint::Feature(_)
            | Constraint::GpuMemory(_)
            | Constraint::And(_)
            | Constraint::Or(_) => {}
        }
    }
    (constraint.cloned(), alternatives, counts)
}

#[cfg(test)]
impl Ask {
    /// So many tasks of one CPU each on one node, and nothing else.
    pub(super) fn of_tasks(tasks: u32) -> Self {
        Ask {
            min_nodes: 1,
            max_nodes: Some(1),
            tasks: Some(tasks),
            tasks_per_node: None,
            cpus_per_task: 1,
            min_cpus: 0,
            cpus_per_gpu: 0,
            memory: Memory::PerNode(1),
            exclusive: false,
            contiguous: false,
            switches: None,
            segment: None,
            alone: false,
            nvlink: false,
            binding: CpuBinding::Preferred,
            node_gres: Wants::new(),
            task_gres: Wants::new(),
            job_gres: Wants::new(),
            required: Vec::new(),
            excluded: Vec::new(),
            threads_per_core: None,
            sockets_per_node: None,
            constraint: None,
            alternatives: Vec::new(),
            counts: Vec::new(),
        }
    }
}
