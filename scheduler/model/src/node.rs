//! Nodes: what the config promises, what the agent found, and whether work may go there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gpu::Gpu;
use crate::ids::Uid;
use crate::links::GpuLinks;
use crate::resources::Capacity;
use crate::time::Timestamp;

/// A node as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    pub name: Box<str>,
    pub capacity: Capacity,
    pub sockets: u32,
    pub cores_per_socket: u32,
    pub threads_per_core: u32,
    pub features: Vec<Box<str>>,
    /// The GPUs are those that the agent finds; `capacity` names none, or what was found so far.
    pub auto_gpus: bool,
    /// Lighter nodes are filled first.
    pub weight: u32,
}

/// What an agent found on its host (or was told to declare).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub capacity: Capacity,
    pub sockets: u32,
    pub cores_per_socket: u32,
    pub threads_per_core: u32,
    /// NUMA nodes as the CPUs of each.
    pub numa: Vec<crate::resources::CpuSet>,
    pub arch: Box<str>,
    pub os: Box<str>,
    pub version: Box<str>,
    pub hostname: Box<str>,
    pub address: Box<str>,
    /// Changes at every boot of the host.
    pub boot_id: Box<str>,
    pub booted_at: Timestamp,
    /// What this agent cannot enforce, in words for the admin (no cgroups, not root, ...).
    pub unenforced: Vec<Box<str>>,
    /// GPUs that the driver told of, in the order of the units of `gpu`; empty: it told of none.
    pub gpus: Vec<Gpu>,
    /// How they hang together.
    pub links: Option<Arc<GpuLinks>>,
}

/// Whether work may go to a node. `NOT_RESPONDING` is the session's business and not kept here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeHealth {
    /// No new work (drain), with who, why, when.
    pub drain: Option<Mark>,
    /// Out of service, with who, why, when.
    pub down: Option<Mark>,
    /// GPUs that take no new work while the others do, by their unit.
    pub gpus: BTreeMap<u8, GpuMark>,
    /// When the last mark of a GPU was taken away: what was seen before counts no more.
    pub gpus_cleared: BTreeMap<u8, Timestamp>,
}

/// A mark on one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuMark {
    pub mark: Mark,
    /// Whether it goes by itself when the agent sees nothing wrong any more.
    pub lifts: bool,
}

/// A mark on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub reason: Box<str>,
    /// `None`: the system itself.
    pub by: Option<Uid>,
    pub at: Timestamp,
}

impl NodeHealth {
    /// Whether new work may go there.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.drain.is_none() && self.down.is_none()
    }

    /// Units of `gpu` that take no new work, as a mask.
    #[must_use]
    pub fn drained_gpus(&self) -> u64 {
        self.gpus.keys().filter(|unit| **unit < 64).fold(0, |mask, unit| mask | 1 << unit)
    }
}
