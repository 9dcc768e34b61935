//! Nodes: what the config promises, what the agent found, and whether work may go there.

use crate::ids::Uid;
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
}

/// Whether work may go to a node. `NOT_RESPONDING` is the session's business and not kept here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeHealth {
    /// No new work (drain), with who, why, when.
    pub drain: Option<Mark>,
    /// Out of service, with who, why, when.
    pub down: Option<Mark>,
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
}
