//! Inventories of recorded hosts.

use std::fs;
use std::path::Path;

mod gpus;

use muster_model::{Capacity, GresKind, NodeConfig};

use super::*;

/// Two sockets of 4 cores with 2 threads, one NUMA node each, 8 GPUs, 512 GiB; CPU 15 offline.
fn two_sockets_eight_gpus(root: &Path) {
    let write = |path: String, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("sys/devices/system/cpu/online".into(), "0-14\n");
    for cpu in 0..15 {
        let core = cpu % 8;
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        write(format!("{topology}/physical_package_id"), &format!("{}\n", core / 4));
        write(format!("{topology}/core_id"), &format!("{}\n", core % 4));
    }
    write("sys/devices/system/node/node1/cpulist".into(), "4-7,12-15\n");
    write("sys/devices/system/node/node0/cpulist".into(), "0-3,8-11\n");
    write("sys/devices/system/node/node2/cpulist".into(), "\n");
    write("proc/meminfo".into(), "MemTotal: 536870912 kB\nMemAvailable: 1048576 kB\n");
    write("proc/loadavg".into(), "1.50 0.75 0.10 1/300 999\n");
    write("proc/stat".into(), "cpu 1 2 3\nbtime 1790000000\n");
    write("proc/sys/kernel/random/boot_id".into(), "0e5c-4b\n");
    write("proc/sys/kernel/hostname".into(), "gpu17\n");
    write("proc/sys/kernel/ostype".into(), "Linux\n");
    write("proc/sys/kernel/osrelease".into(), "6.18.0\n");
    for gpu in 0..8 {
        write(format!("dev/nvidia{gpu}"), "");
    }
    write("dev/nvidiactl".into(), "");
}

fn declared(cpus: u32, memory_mib: u64, gpus: u64) -> NodeConfig {
    let gres = (gpus > 0).then(|| (GresKind::new("gpu", Some("h100")), gpus));
    NodeConfig {
        name: "n1".into(),
        capacity: Capacity { cpus, memory_mib, gres: gres.into_iter().collect() },
        sockets: 1,
        cores_per_socket: cpus,
        threads_per_core: 1,
        features: Vec::new(),
        auto_gpus: false,
        weight: 1,
    }
}

fn check(node: &NodeConfig, unenforced: &[&str]) -> Inventory {
    let root = tempfile::tempdir().unwrap();
    two_sockets_eight_gpus(root.path());
    let host = Host::look(&Roots::below(root.path()), &gpu::Driver::Absent);
    let inventory = report(&host, node, &["not root".into()]);
    assert_eq!(inventory.unenforced[0], "not root");
    assert_eq!(inventory.unenforced[1..], *unenforced);
    assert_eq!(inventory.cpus, node.capacity.cpus, "the declaration is what is reported");
    assert_eq!(inventory.memory_mib, node.capacity.memory_mib);
    inventory
}

#[test]
fn a_host_with_all_that_is_declared_enforces_it() {
    let inventory = check(&declared(15, 512 * 1024, 8), &[]);
    assert_eq!(inventory.numa_cpus, ["0-3,8-11", "4-7,12-14"]);
    assert_eq!((inventory.hostname.as_str(), inventory.os.as_str()), ("gpu17", "Linux 6.18.0"));
    assert_eq!((inventory.boot_id.as_str(), inventory.booted_at), ("0e5c-4b", 1_790_000_000_000));
    let gres = &inventory.gres[0];
    let kind = gres.kind.as_ref().unwrap();
    assert_eq!((kind.name.as_str(), kind.of.as_str(), gres.count), ("gpu", "h100", 8));
}

#[test]
fn what_is_declared_beyond_the_host_is_said() {
    let inventory = check(
        &declared(64, 1024 * 1024, 9),
        &[
            "cpus: 64 declared, 15 found (0-14): jobs are not bound to CPUs",
            "memory: 1048576 MiB declared, 524288 MiB found: jobs may run out together",
            "gres: 9 gpu declared, 8 device files found: the rest is not bound",
        ],
    );
    assert!(inventory.numa_cpus.is_empty(), "CPUs that do not exist have no place");
}

#[test]
fn the_topology_is_read_as_the_kernel_shows_it() {
    let root = tempfile::tempdir().unwrap();
    two_sockets_eight_gpus(root.path());
    let roots = Roots::below(root.path());
    let found = cpu::look(&roots.sys).unwrap();
    assert_eq!((found.sockets, found.cores_per_socket, found.threads_per_core), (2, 4, 2));
    assert_eq!(found.cpus.to_string(), "0-14");
    assert_eq!(memory::available_mib(&roots.proc), Some(1024));
    assert_eq!(memory::load(&roots.proc), Some(1.5));
}

#[test]
fn a_host_that_says_nothing_is_reported_so() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::look(&Roots::below(root.path()), &gpu::Driver::Absent);
    let inventory = report(&host, &declared(4, 1000, 0), &[]);
    assert_eq!(
        inventory.unenforced,
        [
            "cpus: 4 declared, the host's could not be read",
            "memory: 1000 MiB declared, the host's could not be read"
        ]
    );
    assert!(!cpus_exist(&host, &declared(4, 1000, 0)));
}

#[test]
fn lists_that_are_none_are_refused() {
    for (text, expected) in
        [("0-3,8", Some("0-3,8")), ("\n", Some("")), ("3-1", None), ("a", None), ("0-99999", None)]
    {
        assert_eq!(cpu::parse_list(text).map(|c| c.to_string()).as_deref(), expected, "{text}");
    }
}
