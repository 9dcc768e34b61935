//! Declared generic resources against what the host has. Where NVIDIA's library answers, its word
//! on GPUs counts and is what is reported; elsewhere the declaration is taken as it is, and a GPU
//! without a device file can be given to a job, but nothing binds it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use muster_model::{GresKind, NodeConfig};

use super::Host;

/// How many NVIDIA GPUs have a device file (`nvidia0`, `nvidia1`...).
#[must_use]
pub fn nvidia_devices(dev: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dev) else {
        return 0;
    };
    let is_gpu = |name: &str| name.strip_prefix("nvidia").is_some_and(|n| n.parse::<u32>().is_ok());
    let gpus = entries.flatten().filter(|e| e.file_name().to_str().is_some_and(is_gpu));
    gpus.count().try_into().unwrap_or(u64::MAX)
}

fn is_gpu(kind: &GresKind) -> bool {
    &*kind.name == "gpu"
}

/// Whether what is declared of GPUs is held against what was found: where the library answered,
/// or ought to have, since GPUs are on the bus.
fn is_checked(host: &Host) -> bool {
    host.gpus.asked || host.gpus.broken.is_some()
}

/// What the node can give: as declared, but GPUs as found.
#[must_use]
pub(super) fn given(host: &Host, node: &NodeConfig) -> BTreeMap<GresKind, u64> {
    let mut out = node.capacity.gres.clone();
    if node.auto_gpus || is_checked(host) {
        out.retain(|kind, _| !is_gpu(kind));
        out.extend(host.gpus.counted(node));
    }
    out
}

/// What a job that gets declared units, or their admin, should know about them.
pub(super) fn differences(host: &Host, node: &NodeConfig) -> Vec<String> {
    let mut out = Vec::new();
    let gpus = node.capacity.gres.iter().filter(|(kind, _)| is_gpu(kind));
    let declared: u64 = gpus.map(|(_, n)| n).sum();
    if let Some(why) = &host.gpus.broken {
        out.push(format!("gpu: NVIDIA's library does not work: {why}"));
    } else if !host.gpus.asked && host.gpus_on_pci > 0 {
        let found = host.gpus_on_pci;
        out.push(format!("gpu: {found} on the PCI bus, but NVIDIA's library was not asked"));
    }
    let found = host.gpus.units.len() as u64;
    if host.gpus.asked && !node.auto_gpus && found > declared {
        out.push(format!("gpu: {declared} declared, {found} found: the rest is not used"));
    }
    if declared > host.gpu_devices && !host.gpus.asked {
        out.push(format!(
            "gres: {declared} gpu declared, {} device files found: the rest is not bound",
            host.gpu_devices
        ));
    }
    out
}
