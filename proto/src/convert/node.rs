//! Inventories and CPU lists.

use std::sync::Arc;

use muster_model::{Capacity, CpuSet, Fabric, Gpu, GpuLinks, Inventory, MigInstance, Timestamp};

use super::BadField;
use super::values::{count_out, kind_in};
use crate::agent::v1 as agent;

/// CPUs beyond this number are refused: above any machine, below any harm.
const MAX_CPU: u32 = 65_536;

/// An agent's inventory from the wire.
///
/// # Errors
/// An invalid generic resource or CPU list.
pub fn inventory_in(wire: &agent::Inventory, version: &str) -> Result<Inventory, BadField> {
    let mut capacity =
        Capacity { cpus: wire.cpus, memory_mib: wire.memory_mib, ..Capacity::default() };
    for gres in &wire.gres {
        *capacity.gres.entry(kind_in(gres.kind.as_ref())?).or_default() += gres.count;
    }
    let gpus = wire.gpus.iter().map(gpu_in).collect::<Result<Vec<_>, _>>()?;
    Ok(Inventory {
        capacity,
        sockets: wire.sockets,
        cores_per_socket: wire.cores_per_socket,
        threads_per_core: wire.threads_per_core,
        numa: wire.numa_cpus.iter().map(|list| cpus_in(list)).collect::<Result<_, _>>()?,
        arch: wire.arch.as_str().into(),
        os: wire.os.as_str().into(),
        version: version.into(),
        hostname: wire.hostname.as_str().into(),
        address: wire.address.as_str().into(),
        boot_id: wire.boot_id.as_str().into(),
        booted_at: Timestamp(wire.booted_at),
        unenforced: wire.unenforced.iter().map(|u| u.as_str().into()).collect(),
        links: links_in(&gpus, &wire.gpu_links)?,
        gpus,
    })
}

/// An inventory for the wire.
#[must_use]
pub fn inventory_out(inventory: &Inventory) -> agent::Inventory {
    agent::Inventory {
        cpus: inventory.capacity.cpus,
        memory_mib: inventory.capacity.memory_mib,
        gres: inventory.capacity.gres.iter().map(|(kind, n)| count_out(kind, *n)).collect(),
        sockets: inventory.sockets,
        cores_per_socket: inventory.cores_per_socket,
        threads_per_core: inventory.threads_per_core,
        numa_cpus: inventory.numa.iter().map(ToString::to_string).collect(),
        arch: inventory.arch.to_string(),
        os: inventory.os.to_string(),
        hostname: inventory.hostname.to_string(),
        address: inventory.address.to_string(),
        boot_id: inventory.boot_id.to_string(),
        booted_at: inventory.booted_at.0,
        unenforced: inventory.unenforced.iter().map(|u| u.to_string()).collect(),
        gpus: inventory.gpus.iter().map(gpu_out).collect(),
        gpu_links: links_out(inventory.links.as_deref()),
    }
}

fn gpu_in(wire: &agent::Gpu) -> Result<Gpu, BadField> {
    Ok(Gpu {
        uuid: wire.uuid.as_str().into(),
        of: wire.of.as_str().into(),
        memory_mib: wire.memory_mib,
        minor: wire.minor,
        pci: wire.pci.as_str().into(),
        numa: wire.numa,
        cpus: cpus_in(&wire.cpus)?,
        mig: wire.mig.as_ref().map(|mig| MigInstance {
            parent: mig.parent.as_str().into(),
            gpu_instance: mig.gpu_instance,
            compute_instance: mig.compute_instance,
            cap_minors: mig.cap_minors.clone(),
        }),
        fabric: wire
            .fabric
            .as_ref()
            .map(|f| Fabric { cluster: f.cluster.as_str().into(), clique: f.clique }),
    })
}

/// A GPU for the wire.
#[must_use]
pub fn gpu_out(gpu: &Gpu) -> agent::Gpu {
    agent::Gpu {
        uuid: gpu.uuid.to_string(),
        of: gpu.of.to_string(),
        memory_mib: gpu.memory_mib,
        minor: gpu.minor,
        pci: gpu.pci.to_string(),
        numa: gpu.numa,
        cpus: gpu.cpus.to_string(),
        mig: gpu.mig.as_ref().map(|mig| agent::MigInstance {
            parent: mig.parent.to_string(),
            gpu_instance: mig.gpu_instance,
            compute_instance: mig.compute_instance,
            cap_minors: mig.cap_minors.clone(),
        }),
        fabric: gpu
            .fabric
            .as_ref()
            .map(|f| agent::Fabric { cluster: f.cluster.to_string(), clique: f.clique }),
    }
}

/// Link scores for the wire.
#[must_use]
pub fn links_out(links: Option<&GpuLinks>) -> bytes::Bytes {
    links.map_or_else(Default::default, |links| links.class.clone().into())
}

/// The link matrix of these GPUs; their NUMA nodes are the GPUs' own.
fn links_in(gpus: &[Gpu], scores: &[u8]) -> Result<Option<Arc<GpuLinks>>, BadField> {
    if scores.is_empty() {
        return Ok(None);
    }
    let numa = |gpu: &Gpu| gpu.numa.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    let links = u8::try_from(gpus.len()).ok().and_then(|count| {
        GpuLinks::from_parts(count, scores.to_vec(), gpus.iter().map(numa).collect())
    });
    let fault = || BadField::new("gpu_links", format!("no matrix of {} GPUs", gpus.len()));
    links.map(|links| Some(Arc::new(links))).ok_or_else(fault)
}

/// Reads the kernel's list form: `0-3,8`.
///
/// # Errors
/// Anything else, and CPUs beyond any machine's.
pub fn cpus_in(list: &str) -> Result<CpuSet, BadField> {
    let fault = || BadField::new("cpus", format!("invalid CPU list {list:?}"));
    let mut set = CpuSet::default();
    for item in list.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        let (from, to) = item.split_once('-').unwrap_or((item, item));
        let (from, to): (u32, u32) =
            (from.parse().map_err(|_| fault())?, to.parse().map_err(|_| fault())?);
        if from > to || to >= MAX_CPU {
            return Err(fault());
        }
        (from..=to).for_each(|cpu| set.insert(cpu));
    }
    Ok(set)
}
