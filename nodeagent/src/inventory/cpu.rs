//! CPUs of the host from `/sys/devices/system`: which are online, how they share cores, sockets
//! and NUMA nodes. Offline CPUs have no topology files and are left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use muster_model::CpuSet;

/// The online CPUs and their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    pub cpus: CpuSet,
    pub sockets: u32,
    /// Of the largest socket.
    pub cores_per_socket: u32,
    /// Of the core with most threads.
    pub threads_per_core: u32,
    /// NUMA nodes that have CPUs, by number.
    pub numa: Vec<CpuSet>,
}

/// Reads the topology below `sys`; `None` when the list of online CPUs cannot be read.
#[must_use]
pub fn look(sys: &Path) -> Option<Topology> {
    let folder = sys.join("devices/system/cpu");
    let cpus = parse_list(&fs::read_to_string(folder.join("online")).ok()?)?;
    let number = |cpu: u32, name: &str| -> Option<i64> {
        let path = folder.join(format!("cpu{cpu}/topology/{name}"));
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let mut sockets: Vec<(i64, BTreeSet<i64>)> = Vec::new();
    let mut threads: Vec<((i64, i64), u32)> = Vec::new();
    for cpu in cpus.iter() {
        // A virtual machine may leave the files out: each CPU is then a core of socket 0.
        let socket = number(cpu, "physical_package_id").unwrap_or(0).max(0);
        let core = number(cpu, "core_id").unwrap_or_else(|| cpu.into());
        match sockets.iter_mut().find(|(s, _)| *s == socket) {
            Some((_, cores)) => _ = cores.insert(core),
            None => sockets.push((socket, BTreeSet::from([core]))),
        }
        match threads.iter_mut().find(|(place, _)| *place == (socket, core)) {
            Some((_, count)) => *count += 1,
            None => threads.push(((socket, core), 1)),
        }
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(Topology {
        sockets: count(sockets.len()),
        cores_per_socket: count(sockets.iter().map(|(_, cores)| cores.len()).max().unwrap_or(0)),
        threads_per_core: threads.iter().map(|(_, n)| *n).max().unwrap_or(1),
        numa: numa(sys, &cpus),
        cpus,
    })
}

fn numa(sys: &Path, online: &CpuSet) -> Vec<CpuSet> {
    let Ok(entries) = fs::read_dir(sys.join("devices/system/node")) else {
        return Vec::new();
    };
    let mut nodes: Vec<(u32, CpuSet)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let cpus = parse_list(&fs::read_to_string(entry.path().join("cpulist")).ok()?)?;
            let cpus: CpuSet = cpus.iter().filter(|c| online.contains(*c)).collect();
            (!cpus.is_empty()).then_some((number, cpus))
        })
        .collect();
    nodes.sort_by_key(|(number, _)| *number);
    nodes.into_iter().map(|(_, cpus)| cpus).collect()
}

/// The kernel's list form, `0-3,8`; `None` when it is not one.
#[must_use]
pub fn parse_list(text: &str) -> Option<CpuSet> {
    let mut cpus = CpuSet::default();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        // Linux knows at most 8192 CPUs; a larger number is not a CPU.
        if from > to || to >= 8192 {
            return None;
        }
        (from..=to).for_each(|cpu| cpus.insert(cpu));
    }
    Some(cpus)
}
