//! `--print-inventory`: what this node would register with. It looks and starts nothing.

use std::path::{Path, PathBuf};

use muster_config::Config;
use muster_model::{GpuLinks, LinkClass};
use muster_proto::agent::v1::{Gpu, Inventory};

use super::gpu::{Driver, Versions};
use super::{Roots, library, report};
use crate::jobs::edge::chain;
use crate::start::{StartError, node_of};

/// `muster agent --print-inventory`: what this node would register with. The answer is the exit
/// code.
#[must_use]
pub fn print_inventory(config: PathBuf, node: String, json: bool) -> i32 {
    match look(&config, &node) {
        Ok((inventory, driver)) if json => println!("{}", as_json(&node, &inventory, &driver)),
        Ok((inventory, driver)) => print!("{}", as_text(&node, &inventory, &driver)),
        Err(fault) => {
            eprintln!("muster agent: {}", chain(&fault));
            return 1;
        }
    }
    0
}

/// The inventory without a tree or a scope being made for it: what cannot be enforced is what
/// follows from who asks.
fn look(config: &Path, node: &str) -> Result<(Inventory, Driver), StartError> {
    let config = Config::load(config)?;
    let node = node_of(&config, node)?;
    let uid = nix::unistd::geteuid().as_raw();
    let limits = if uid == 0 {
        Vec::new()
    } else {
        vec![format!("as uid {uid} the agent serves that user alone")]
    };
    let library = config.nvml_library(&node.name);
    let asked = library::ask(library, &Roots::default(), library::Bound::once());
    Ok((report(&asked.host, node, &limits), asked.driver))
}

/// NVIDIA's driver in one line; empty: there is none.
fn driver_words(driver: &Driver) -> String {
    match driver.versions() {
        None => String::new(),
        Some(Err(why)) => format!("cannot be used: {why}"),
        Some(Ok(Versions { driver, library, cuda })) => {
            format!("{driver} (NVML {library}, CUDA {cuda})")
        }
    }
}

fn driver_json(driver: &Driver) -> serde_json::Value {
    match driver.versions() {
        None => serde_json::Value::Null,
        Some(Err(why)) => serde_json::json!({ "fault": why }),
        Some(Ok(Versions { driver, library, cuda })) => {
            serde_json::json!({ "version": driver, "nvml": library, "cuda": cuda })
        }
    }
}

fn gres_words(inventory: &Inventory) -> Vec<String> {
    let word = |gres: &muster_proto::v1::GresCount| {
        let kind = gres.kind.clone().unwrap_or_default();
        match kind.of.as_str() {
            "" => format!("{}:{}", kind.name, gres.count),
            of => format!("{}:{of}:{}", kind.name, gres.count),
        }
    };
    inventory.gres.iter().map(word).collect()
}

/// A GPU in one line.
fn gpu_words(gpu: &Gpu) -> String {
    if gpu.uuid.is_empty() {
        return format!("{} does not answer", gpu.of);
    }
    let number = |n: Option<u32>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let mut text = format!(
        "{} {} MiB, /dev/nvidia{}, {}, NUMA {}, CPUs {}, {}",
        gpu.of,
        gpu.memory_mib,
        number(gpu.minor),
        gpu.pci,
        number(gpu.numa),
        gpu.cpus,
        gpu.uuid
    );
    if let Some(fabric) = &gpu.fabric {
        text.push_str(&format!(", fabric {} clique {}", fabric.cluster, fabric.clique));
    }
    text
}

fn gpu_json((at, gpu): (usize, &Gpu)) -> serde_json::Value {
    serde_json::json!({
        "index": at,
        "type": gpu.of,
        "uuid": gpu.uuid,
        "memory_mib": gpu.memory_mib,
        "minor": gpu.minor,
        "pci": gpu.pci,
        "numa": gpu.numa,
        "cpus": gpu.cpus,
        "mig": gpu.mig.as_ref().map(|mig| serde_json::json!({
            "parent": mig.parent,
            "gpu_instance": mig.gpu_instance,
            "compute_instance": mig.compute_instance,
            "cap_minors": mig.cap_minors,
        })),
        "fabric": gpu.fabric.as_ref().map(|fabric| serde_json::json!({
            "cluster": fabric.cluster,
            "clique": fabric.clique,
        })),
    })
}

/// The way from each GPU to each, in the words of `nvidia-smi topo -m`.
fn link_rows(inventory: &Inventory) -> Vec<Vec<String>> {
    let word = |score: &u8| match LinkClass::of_score(*score) {
        LinkClass::Unknown => "?".to_owned(),
        LinkClass::System => "SYS".to_owned(),
        LinkClass::Numa => "NODE".to_owned(),
        LinkClass::HostBridge => "PHB".to_owned(),
        LinkClass::PciSwitch => "PIX".to_owned(),
        LinkClass::NvLink(width) => format!("NV{width}"),
        LinkClass::Same => "X".to_owned(),
    };
    let rows = inventory.gpu_links.chunks(inventory.gpus.len().max(1));
    rows.map(|row| row.iter().map(word).collect()).collect()
}

/// Of each GPU, those whose memory it reaches by itself (`nvidia-smi topo -p2p r`).
fn peers(inventory: &Inventory) -> Vec<Vec<u8>> {
    let count = u8::try_from(inventory.gpus.len()).unwrap_or(GpuLinks::MAX_GPUS);
    let numa = vec![0; usize::from(count)];
    let links = GpuLinks::from_parts(count, inventory.gpu_links.to_vec(), numa).unwrap_or_default();
    let of = |one| (0..count).filter(|other| links.are_peers(one, *other)).collect();
    (0..count).map(of).collect()
}

fn as_json(node: &str, inventory: &Inventory, driver: &Driver) -> String {
    let value = serde_json::json!({
        "node": node,
        "cpus": inventory.cpus,
        "sockets": inventory.sockets,
        "cores_per_socket": inventory.cores_per_socket,
        "threads_per_core": inventory.threads_per_core,
        "numa_cpus": inventory.numa_cpus,
        "memory_mib": inventory.memory_mib,
        "gres": gres_words(inventory),
        "hostname": inventory.hostname,
        "arch": inventory.arch,
        "os": inventory.os,
        "boot_id": inventory.boot_id,
        "booted_at": inventory.booted_at,
        "unenforced": inventory.unenforced,
        "driver": driver_json(driver),
        "gpus": inventory.gpus.iter().enumerate().map(gpu_json).collect::<Vec<_>>(),
        "gpu_links": link_rows(inventory),
        "gpu_peers": peers(inventory),
    });
    format!("{value:#}")
}

fn as_text(node: &str, inventory: &Inventory, driver: &Driver) -> String {
    let shape = format!(
        "{} ({} sockets x {} cores x {} threads)",
        inventory.cpus, inventory.sockets, inventory.cores_per_socket, inventory.threads_per_core
    );
    let mut lines = vec![
        ("node", node.to_owned()),
        ("cpus", shape),
        ("numa", inventory.numa_cpus.join(" | ")),
        ("memory", format!("{} MiB", inventory.memory_mib)),
        ("gres", gres_words(inventory).join(",")),
        ("host", format!("{} ({}, {})", inventory.hostname, inventory.os, inventory.arch)),
        ("boot", inventory.boot_id.clone()),
        ("driver", driver_words(driver)),
    ];
    let index: Vec<String> = (0..inventory.gpus.len()).map(|at| format!("gpu {at}")).collect();
    let around = link_rows(inventory).into_iter().zip(peers(inventory));
    for ((name, gpu), (links, peers)) in index.iter().zip(&inventory.gpus).zip(around) {
        lines.push((name, gpu_words(gpu)));
        lines.push(("  links", links.join(" ")));
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        lines.push(("  peers", peers.join(" ")));
    }
    lines.extend(inventory.unenforced.iter().map(|text| ("unenforced", text.clone())));
    let shown = lines.into_iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:<12}{value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use muster_config::NvmlLibrary;
    use nvidia_ml::kit::Double;

    use super::*;

    #[test]
    fn the_driver_is_told_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let line = |library: NvmlLibrary| {
            let driver = Driver::load(&library);
            let text = as_text("n1", &Inventory::default(), &driver);
            let line = text.lines().find_map(|line| line.strip_prefix("driver      "));
            (line.map(str::to_owned), driver_json(&driver)["version"].clone())
        };
        let double = Double::new(folder.path(), "dgx-h100");
        assert_eq!(
            line(NvmlLibrary::Path(double.path())),
            (Some("570.86.15 (NVML 12.570.86.15, CUDA 12.8)".to_owned()), "570.86.15".into())
        );
        assert_eq!(line(NvmlLibrary::None), (None, serde_json::Value::Null));
        let (told, _) = line(NvmlLibrary::Path(folder.path().join("nowhere.so")));
        assert!(told.is_some_and(|told| told.starts_with("cannot be used: load ")));
    }
}
