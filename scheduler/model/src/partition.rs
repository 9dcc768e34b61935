//! Partitions: queues over sets of nodes, with limits.

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
