//! What this host has, and what of the declared node it can really give and enforce.
//!
//! The config declares a node's capacity and the declaration is what is reported: the controller
//! plans with it. What was measured is set beside it, and every difference that a job could feel
//! is said in words (`unenforced`). Roots of `/sys`, `/proc` and `/dev` are arguments, so that a
//! recorded host can be looked at.
//!
//! - `cpu`: sockets, cores, threads, NUMA nodes from `/sys`
//! - `memory`: `/proc/meminfo`, load, boot
//! - `gres`: declared units against the device files of the host
//! - `gpu`: GPUs as NVIDIA's library tells of them; `nvlink`: how they hang together; `library`: how
//!   long it is waited for
//! - `print`: the inventory for people and scripts

pub mod cpu;
pub mod gpu;
pub mod gres;
pub mod library;
pub mod memory;
pub(crate) mod nvlink;
pub mod print;

use std::path::{Path, PathBuf};

use muster_model::NodeConfig;
use muster_proto::agent::v1::Inventory;
use muster_proto::convert::node::{gpu_out, links_out};
use muster_proto::convert::values::count_out;

/// Where the kernel's files are found.
#[derive(Debug, Clone)]
pub struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

impl Roots {
    /// All three below one folder, as a recorded host has them.
    #[must_use]
    pub fn below(folder: &Path) -> Self {
        Roots { sys: folder.join("sys"), proc: folder.join("proc"), dev: folder.join("dev") }
    }
}

/// What was found; `None` where the host does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    pub cpus: Option<cpu::Topology>,
    pub memory_mib: Option<u64>,
    /// NVIDIA device files (`/dev/nvidia0`...).
    pub gpu_devices: u64,
    /// NVIDIA GPUs on the PCI bus, with or without a driver.
    pub gpus_on_pci: u64,
    /// What NVIDIA's library told.
    pub gpus: gpu::Found,
    pub hostname: String,
    pub arch: String,
    pub os: String,
    pub boot_id: String,
    /// Milliseconds since the epoch.
    pub booted_at: i64,
}

impl Host {
    /// Looks at the host. What cannot be read is left out, never guessed.
    #[must_use]
    pub fn look(roots: &Roots, driver: &gpu::Driver) -> Self {
        Host::with(roots, gpu::Found::look(driver, roots))
    }

    /// The same, where the library was asked already.
    fn with(roots: &Roots, gpus: gpu::Found) -> Self {
        Host {
            cpus: cpu::look(&roots.sys),
            memory_mib: memory::total_mib(&roots.proc),
            gpu_devices: gres::nvidia_devices(&roots.dev),
            gpus_on_pci: gpu::on_pci(&roots.sys),
            gpus,
            hostname: memory::line(&roots.proc.join("sys/kernel/hostname")),
            arch: std::env::consts::ARCH.to_owned(),
            os: format!(
                "{} {}",
                memory::line(&roots.proc.join("sys/kernel/ostype")),
                memory::line(&roots.proc.join("sys/kernel/osrelease"))
            ),
            boot_id: memory::boot_id(&roots.proc),
            booted_at: memory::booted_at(&roots.proc),
        }
    }
}

/// The inventory of a node that is declared as `node` on the host that was found.
///
/// `limits` are sentences about what this agent cannot enforce (no cgroups, not root); they go
/// into `unenforced` before the differences between declared and found.
#[must_use]
pub fn report(host: &Host, node: &NodeConfig, limits: &[String]) -> Inventory {
    let mut unenforced = limits.to_vec();
    unenforced.extend(differences(host, node));
    let (units, links) = host.gpus.assigned(node);
    let told = units.iter().filter(|_| host.gpus.asked);
    let gpus: Vec<_> = told.map(|unit| gpu_out(&unit.gpu)).collect();
    let gres = gres::given(host, node).into_iter().map(|(kind, n)| count_out(&kind, n));
    Inventory {
        cpus: node.capacity.cpus,
        memory_mib: node.capacity.memory_mib,
        gres: gres.collect(),
        sockets: node.sockets,
        cores_per_socket: node.cores_per_socket,
        threads_per_core: node.threads_per_core,
        numa_cpus: numa(host, node),
        arch: host.arch.clone(),
        os: host.os.clone(),
        hostname: host.hostname.clone(),
        address: host.hostname.clone(),
        boot_id: host.boot_id.clone(),
        booted_at: host.booted_at,
        unenforced,
        gpu_links: links_out((!gpus.is_empty()).then_some(&links)),
        gpus,
    }
}

/// NUMA nodes of a host that has at least the declared CPUs; a larger declaration has no true
/// places to name.
fn numa(host: &Host, node: &NodeConfig) -> Vec<String> {
    match &host.cpus {
        Some(found) if found.cpus.len() >= node.capacity.cpus => {
            found.numa.iter().map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether jobs can be bound to the CPUs that the controller names: only where they exist.
#[must_use]
pub fn cpus_exist(host: &Host, node: &NodeConfig) -> bool {
    host.cpus.as_ref().is_some_and(|found| (0..node.capacity.cpus).all(|c| found.cpus.contains(c)))
}

fn differences(host: &Host, node: &NodeConfig) -> Vec<String> {
    let mut out = Vec::new();
    let declared = node.capacity.cpus;
    match &host.cpus {
        None => out.push(format!("cpus: {declared} declared, the host's could not be read")),
        Some(found) if !cpus_exist(host, node) => out.push(format!(
            "cpus: {declared} declared, {} found ({}): jobs are not bound to CPUs",
            found.cpus.len(),
            found.cpus
        )),
        Some(_) => (),
    }
    let declared = node.capacity.memory_mib;
    match host.memory_mib {
        None => out.push(format!("memory: {declared} MiB declared, the host's could not be read")),
        Some(found) if found < declared => out.push(format!(
            "memory: {declared} MiB declared, {found} MiB found: jobs may run out together"
        )),
        Some(_) => (),
    }
    out.extend(gres::differences(host, node));
    out
}

#[cfg(test)]
mod tests;
