//! Partitions: queues over sets of nodes, with limits.

use crate::job::MemoryRequest;
use crate::time::TimeLimit;

/// Whether a partition takes and starts jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PartitionState {
    /// Takes and starts jobs.
    #[default]
    Up,
    /// Takes jobs, starts none.
    Down,
    /// Takes none, starts those it has.
    Drain,
    /// Neither.
    Inactive,
}

/// A partition as configured. Node membership is resolved to names by the config loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub name: Box<str>,
    /// Member nodes, by name, in natural order.
    pub nodes: Vec<Box<str>>,
    pub default: bool,
    pub state: PartitionState,
    pub max_time: TimeLimit,
    /// Given to jobs that ask for none; `None`: `max_time`.
    pub default_time: Option<TimeLimit>,
    pub min_nodes: u32,
    /// `None`: no bound.
    pub max_nodes: Option<u32>,
    /// Jobs of a higher tier are considered first.
    pub priority_tier: u16,
    /// Weight of the partition in the priority of its jobs.
    pub priority_factor: u16,
    /// Memory for jobs that ask for none, MiB; `None`: all of the node's memory.
    pub default_memory_per_node_mib: Option<u64>,
    pub default_memory_per_cpu_mib: Option<u64>,
    pub max_memory_per_node_mib: Option<u64>,
    /// Users (names) and groups who may submit; empty: everybody.
    pub allow_users: Vec<Box<str>>,
    pub allow_groups: Vec<Box<str>>,
    /// Grant whole nodes only.
    pub exclusive: bool,
}

impl Partition {
    /// What a request for memory means here. `PerNode(0)`: all of each node's.
    #[must_use]
    pub fn memory(&self, request: MemoryRequest) -> MemoryRequest {
        use MemoryRequest::{Default, PerCpu, PerGpu, PerNode};
        let some = |mib: Option<u64>| mib.filter(|mib| *mib > 0);
        match request {
            PerNode(0) | PerCpu(0) | PerGpu(0) => PerNode(0),
            PerNode(_) | PerCpu(_) | PerGpu(_) => request,
            Default => some(self.default_memory_per_cpu_mib)
                .map(PerCpu)
                .or_else(|| some(self.default_memory_per_node_mib).map(PerNode))
                .unwrap_or(PerNode(0)),
        }
    }
}
