//! GPUs as an agent found them. Unit `i` of the name `gpu` on a node is the `i`-th of its
//! inventory: a whole GPU, or an instance that one was cut into.

use crate::resources::CpuSet;

/// One unit that a job can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gpu {
    /// The driver's name for it (`GPU-...`, `MIG-...`); empty where it did not answer.
    pub uuid: Box<str>,
    /// The type that jobs ask for: `h100`, `a100_3g.20gb`.
    pub of: Box<str>,
    pub memory_mib: u64,
    /// `/dev/nvidia<minor>`; an instance has its GPU's. Not its place among the units.
    pub minor: Option<u32>,
    /// `00000000:18:00.0`.
    pub pci: Box<str>,
    pub numa: Option<u32>,
    /// CPUs near it, as the host numbers them.
    pub cpus: CpuSet,
    /// It is an instance of a GPU that was cut.
    pub mig: Option<MigInstance>,
    /// The NVLink domain beyond the node, where there is one.
    pub fabric: Option<Fabric>,
}

impl Gpu {
    /// Its memory as products are named by it: in 10^6 bytes.
    #[must_use]
    pub const fn megabytes(&self) -> u64 {
        self.memory_mib.saturating_mul(1 << 20) / 1_000_000
    }
}

/// A part of a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigInstance {
    /// The uuid of the GPU it is cut from.
    pub parent: Box<str>,
    pub gpu_instance: u32,
    pub compute_instance: u32,
    /// `/dev/nvidia-caps/nvidia-cap<minor>` that give access to it.
    pub cap_minors: Vec<u32>,
}

/// Where a GPU is in an NVLink fabric that joins several nodes: GPUs with the same cluster and
/// clique reach each other over NVLink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fabric {
    /// 32 hexadecimal digits.
    pub cluster: Box<str>,
    pub clique: u32,
}
