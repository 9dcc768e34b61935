//! Machines as they are wired. The link tables are those that `nvidia-smi topo -m` prints on them.

/// One GPU of a machine that is well.
#[derive(Debug, Clone)]
pub struct Gpu {
    pub name: &'static str,
    pub memory_mib: u64,
    pub minor: u32,
    pub bus: u32,
    pub domain: u32,
    pub numa: u32,
    /// First CPU near it, and how many.
    pub cpus: (u32, u32),
    /// The far end of each NVLink.
    pub links: Vec<Far>,
    /// Profile names of its MIG instances; `None`: MIG is off.
    pub mig: Option<Vec<&'static str>>,
    /// Cluster and clique of the fabric that goes beyond the machine.
    pub fabric: Option<([u8; 16], u32)>,
    pub idle_watts: u32,
}

/// What an NVLink leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Far {
    /// An NVSwitch, by its bus number.
    Switch(u32),
    /// Another GPU, by its index.
    Gpu(usize),
}

/// A whole machine.
#[derive(Debug, Clone)]
pub struct Machine {
    pub gpus: Vec<Gpu>,
    /// GPUs with the same number hang on one PCIe switch.
    pub pci_switch: Vec<u32>,
}

/// `nvmlGpuTopologyLevel_t`.
pub const SINGLE_SWITCH: u32 = 10;
pub const HOST_BRIDGE: u32 = 30;
pub const NODE: u32 = 40;
pub const SYSTEM: u32 = 50;

/// The names of all machines.
pub const LAYOUTS: [&str; 7] =
    ["dgx-h100", "dgx1-v100", "pcie-a100", "l40s-x4", "mig-a100", "nvl72-tray", "none"];

impl Machine {
    /// A machine by name; `None`: there is none such.
    #[must_use]
    pub fn named(name: &str) -> Option<Machine> {
        Some(match name {
            "dgx-h100" => dgx_h100(),
            "dgx1-v100" => dgx1_v100(),
            "pcie-a100" => pcie_a100(),
            "l40s-x4" => l40s_x4(),
            "mig-a100" => mig_a100(),
            "nvl72-tray" => nvl72_tray(),
            "none" => Machine { gpus: Vec::new(), pci_switch: Vec::new() },
            _ => return None,
        })
    }

    /// How far apart two GPUs are on PCIe.
    #[must_use]
    pub fn level(&self, one: usize, other: usize) -> u32 {
        if self.gpus[one].numa != self.gpus[other].numa {
            SYSTEM
        } else if self.pci_switch[one] == self.pci_switch[other] {
            SINGLE_SWITCH
        } else if self.gpus[one].domain == self.gpus[other].domain && self.gpus.len() > 4 {
            NODE
        } else {
            HOST_BRIDGE
        }
    }
}

impl Machine {
    /// Whether one GPU may read another's memory: those of these machines may, but not across the processors
    /// without NVLink, nor when they are cut.
    #[must_use]
    pub fn are_peers(&self, one: usize, other: usize) -> bool {
        let [a, b] = [one, other].map(|at| &self.gpus[at]);
        let switched = |gpu: &Gpu| gpu.links.iter().any(|far| matches!(far, Far::Switch(_)));
        let joined = a.links.contains(&Far::Gpu(other)) || (switched(a) && switched(b));
        a.mig.is_none() && b.mig.is_none() && (joined || a.numa == b.numa)
    }
}

fn gpu(name: &'static str, memory_mib: u64, at: u32, numa: u32, cpus_per_numa: u32) -> Gpu {
    Gpu {
        name,
        memory_mib,
        minor: at,
        bus: 0x18 + at * 8,
        domain: 0,
        numa,
        cpus: (numa * cpus_per_numa, cpus_per_numa),
        links: Vec::new(),
        mig: None,
        fabric: None,
        idle_watts: 60,
    }
}

/// Eight H100 whose 18 links each go to four NVSwitches. The device files are numbered otherwise
/// than the buses, as happens on real boards.
fn dgx_h100() -> Machine {
    const MINORS: [u32; 8] = [2, 3, 0, 1, 6, 7, 4, 5];
    let gpus = MINORS.iter().zip(0u32..).map(|(minor, at)| Gpu {
        minor: *minor,
        links: (0..18).map(|link| Far::Switch(0xc0 + link % 4)).collect(),
        ..gpu("NVIDIA H100 80GB HBM3", 81_559, at, at / 4, 56)
    });
    Machine { gpus: gpus.collect(), pci_switch: (0..8).collect() }
}

/// How many links join two GPUs of a DGX-1: a hybrid cube mesh, six links a GPU.
pub const CUBE_MESH: [[u8; 8]; 8] = [
    [0, 1, 1, 2, 2, 0, 0, 0],
    [1, 0, 2, 1, 0, 2, 0, 0],
    [1, 2, 0, 2, 0, 0, 1, 0],
    [2, 1, 2, 0, 0, 0, 0, 1],
    [2, 0, 0, 0, 0, 1, 1, 2],
    [0, 2, 0, 0, 1, 0, 2, 1],
    [0, 0, 1, 0, 1, 2, 0, 2],
    [0, 0, 0, 1, 2, 1, 2, 0],
];

fn dgx1_v100() -> Machine {
    let links = |at: usize| -> Vec<Far> {
        let to = CUBE_MESH[at].iter().enumerate();
        to.flat_map(|(peer, width)| (0..*width).map(move |_| Far::Gpu(peer))).collect()
    };
    let gpus = (0..8u32).map(|at| Gpu {
        links: links(at as usize),
        ..gpu("Tesla V100-SXM2-16GB", 16_160, at, at / 4, 20)
    });
    Machine { gpus: gpus.collect(), pci_switch: (0..8).map(|at| at / 2).collect() }
}

/// Eight A100 without links, four in each NUMA node, two on each PCIe switch.
fn pcie_a100() -> Machine {
    let gpus = (0..8).map(|at| gpu("NVIDIA A100 80GB PCIe", 81_920, at, at / 4, 32));
    Machine { gpus: gpus.collect(), pci_switch: (0..8).map(|at| at / 2).collect() }
}

fn l40s_x4() -> Machine {
    let gpus = (0..4).map(|at| gpu("NVIDIA L40S", 46_068, at, at / 2, 16));
    Machine { gpus: gpus.collect(), pci_switch: (0..4).collect() }
}

/// One A100 cut into four instances, and a whole one.
fn mig_a100() -> Machine {
    let switched = || (0..12).map(|link| Far::Switch(0xc0 + link % 6)).collect();
    let whole = |at| Gpu { links: switched(), ..gpu("NVIDIA A100-SXM4-40GB", 40_960, at, 0, 16) };
    let cut = Gpu { mig: Some(vec!["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"]), ..whole(0) };
    Machine { gpus: vec![cut, whole(1)], pci_switch: vec![0, 1] }
}

/// One compute tray of a rack whose 72 GPUs are one NVLink domain.
fn nvl72_tray() -> Machine {
    let cluster = *b"nvl72-rack-00001";
    let gpus = (0..4u32).map(|at| Gpu {
        domain: at,
        links: (0..18).map(|link| Far::Switch(0xd0 + link % 9)).collect(),
        fabric: Some((cluster, 7)),
        ..gpu("NVIDIA GB200", 189_471, at, at / 2, 72)
    });
    Machine { gpus: gpus.collect(), pci_switch: (0..4).collect() }
}
