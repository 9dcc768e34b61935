//! What jobs take of single nodes: the mix of sizes by which a pass knows who could use what is
//! left of a node.

use muster_model::{GresMask, MemoryRequest, Request, Slice};

use super::Asked;

/// A job's part on one node, as far as packing looks at it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Portion {
    pub gpus: u32,
    pub cpus: u32,
    pub memory_mib: u64,
}

impl Portion {
    /// What a slice holds.
    #[must_use]
    pub fn of(slice: &Slice) -> Self {
        let gpus = |g: &&GresMask| &*g.kind.name == "gpu";
        let gpus: u64 = slice.gres.iter().filter(gpus).map(|g| g.count).sum();
        Portion {
            gpus: u32::try_from(gpus).unwrap_or(u32::MAX),
            cpus: slice.cpus.len(),
            memory_mib: slice.memory_mib,
        }
    }

    /// What a request will take of each of its nodes, about, and how many those are.
    #[must_use]
    pub fn asked(request: &Request) -> (Self, u32) {
        let nodes = request.nodes.min.max(1);
        let asked = Asked::of(request);
        let (cpus, gpus) = (asked.cpus.div_ceil(nodes), asked.gpus.div_ceil(nodes));
        let memory_mib = match request.memory {
            MemoryRequest::Default => 0,
            MemoryRequest::PerNode(mib) => mib,
            MemoryRequest::PerCpu(mib) => mib.saturating_mul(cpus.into()),
            MemoryRequest::PerGpu(mib) => mib.saturating_mul(gpus.into()),
        };
        (Portion { gpus, cpus, memory_mib }, nodes)
    }
}
