//! Inventories of machines with GPUs, told by the double of NVIDIA's library.

use std::path::Path;

use muster_config::NvmlLibrary;
use muster_model::{Capacity, GresKind, LinkClass, NodeConfig};
use muster_proto::agent::v1::Inventory;
use muster_proto::convert::node::inventory_in;
use nvidia_ml::kit::Double;
use nvidia_ml::machine::CUBE_MESH;

use super::super::{Host, Roots, gpu, report};

/// A node that declares these GPUs; none: it takes what is found.
fn node(gpus: &[(Option<&str>, u64)]) -> NodeConfig {
    let gres = gpus.iter().map(|(of, n)| (GresKind::new("gpu", *of), *n)).collect();
    NodeConfig {
        name: "n1".into(),
        capacity: Capacity { cpus: 4, memory_mib: 1000, gres },
        sockets: 1,
        cores_per_socket: 4,
        threads_per_core: 1,
        features: Vec::new(),
        auto_gpus: gpus.is_empty(),
        weight: 1,
    }
}

fn look(folder: &Path, double: &Double, node: &NodeConfig) -> Inventory {
    let driver = gpu::Driver::load(&NvmlLibrary::Path(double.path()));
    report(&Host::look(&Roots::below(folder), &driver), node, &[])
}

/// What a machine shows: its GPUs in lines (type, MiB, device file, NUMA node, CPUs), its links
/// in rows.
#[track_caller]
fn check(layout: &str, gres: &[(&str, u64)], gpus: &[&str], links: impl Fn(u8, u8) -> LinkClass) {
    let folder = tempfile::tempdir().unwrap();
    let double = Double::new(folder.path(), layout);
    let inventory = look(folder.path(), &double, &node(&[]));
    let found = inventory_in(&inventory, "1").unwrap();
    let counted: Vec<(String, u64)> =
        found.capacity.gres.iter().map(|(kind, n)| (kind.to_string(), *n)).collect();
    let expected: Vec<(String, u64)> = gres.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
    assert_eq!(counted, expected);
    let line = |g: &muster_model::Gpu| {
        let (minor, numa) = (g.minor.expect("told"), g.numa.expect("told"));
        format!("{} {} nvidia{minor} numa{numa} {}", g.of, g.memory_mib, g.cpus)
    };
    let lines: Vec<String> = found.gpus.iter().map(line).collect();
    assert_eq!(lines, gpus);
    let matrix = found.links.expect("GPUs have links");
    for one in 0..matrix.count {
        for other in (0..matrix.count).filter(|other| *other != one) {
            assert_eq!(matrix.class_of(one, other), links(one, other), "{one} to {other}");
        }
    }
}

/// GPUs that reach each other's memory, as the driver says it, of all pairs in the order of the units.
#[test]
fn peers_are_those_that_the_driver_names() {
    let shown = |layout: &str| -> Vec<(u8, u8)> {
        let folder = tempfile::tempdir().unwrap();
        let double = Double::new(folder.path(), layout);
        let inventory = look(folder.path(), &double, &node(&[]));
        let links = inventory_in(&inventory, "1").unwrap().links.expect("GPUs have links");
        let pairs =
            (0..links.count).flat_map(|one| (one + 1..links.count).map(move |two| (one, two)));
        pairs.filter(|(one, two)| links.are_peers(*one, *two)).collect()
    };
    assert_eq!(shown("dgx-h100").len(), 28, "all over the switches");
    assert_eq!(shown("l40s-x4"), [(0, 1), (2, 3)], "not across the processors");
    assert_eq!(shown("mig-a100"), [], "instances have no peers");
    let mesh = shown("dgx1-v100");
    assert!(mesh.contains(&(0, 4)) && !mesh.contains(&(0, 5)), "NVLink or one processor: {mesh:?}");
}

#[test]
fn eight_h100_on_switches_are_all_joined_and_have_the_device_files_that_the_driver_says() {
    check(
        "dgx-h100",
        &[("gpu:h100", 8)],
        &[
            "h100 81559 nvidia2 numa0 0-55",
            "h100 81559 nvidia3 numa0 0-55",
            "h100 81559 nvidia0 numa0 0-55",
            "h100 81559 nvidia1 numa0 0-55",
            "h100 81559 nvidia6 numa1 56-111",
            "h100 81559 nvidia7 numa1 56-111",
            "h100 81559 nvidia4 numa1 56-111",
            "h100 81559 nvidia5 numa1 56-111",
        ],
        |_, _| LinkClass::NvLink(18),
    );
}

#[test]
fn a_cube_mesh_is_read_link_by_link_with_pcie_in_between() {
    let gpu = |at: u32| {
        let numa = at / 4;
        format!("v100 16160 nvidia{at} numa{numa} {}-{}", numa * 20, numa * 20 + 19)
    };
    let lines: Vec<String> = (0..8).map(gpu).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    check("dgx1-v100", &[("gpu:v100", 8)], &lines, |one, other| {
        match CUBE_MESH[usize::from(one)][usize::from(other)] {
            0 => LinkClass::System,
            width => LinkClass::NvLink(width),
        }
    });
}

#[test]
fn without_nvlink_the_way_over_pcie_counts() {
    let gpu = |at: u32| {
        let numa = at / 4;
        format!("a100 81920 nvidia{at} numa{numa} {}-{}", numa * 32, numa * 32 + 31)
    };
    let lines: Vec<String> = (0..8).map(gpu).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    check("pcie-a100", &[("gpu:a100", 8)], &lines, |one, other| {
        match (one / 4 == other / 4, one / 2 == other / 2) {
            (false, _) => LinkClass::System,
            (true, true) => LinkClass::PciSwitch,
            (true, false) => LinkClass::Numa,
        }
    });
    check(
        "l40s-x4",
        &[("gpu:l40s", 4)],
        &[
            "l40s 46068 nvidia0 numa0 0-15",
            "l40s 46068 nvidia1 numa0 0-15",
            "l40s 46068 nvidia2 numa1 16-31",
            "l40s 46068 nvidia3 numa1 16-31",
        ],
        |one, other| match one / 2 == other / 2 {
            true => LinkClass::HostBridge,
            false => LinkClass::System,
        },
    );
}

#[test]
fn instances_are_units_of_their_own_type_counted_as_the_ledger_counts_them() {
    check(
        "mig-a100",
        &[
            ("gpu:a100", 1),
            ("gpu:a100_1g.5gb", 2),
            ("gpu:a100_2g.10gb", 1),
            ("gpu:a100_3g.20gb", 1),
        ],
        &[
            "a100 40960 nvidia1 numa0 0-15",
            "a100_1g.5gb 4608 nvidia0 numa0 0-15",
            "a100_1g.5gb 4608 nvidia0 numa0 0-15",
            "a100_2g.10gb 9728 nvidia0 numa0 0-15",
            "a100_3g.20gb 19968 nvidia0 numa0 0-15",
        ],
        |one, other| match one.min(other) {
            0 => LinkClass::HostBridge,
            _ => LinkClass::PciSwitch,
        },
    );
}

#[test]
fn an_instance_names_its_gpu_and_the_files_that_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let caps = folder.path().join("proc/driver/nvidia-caps");
    std::fs::create_dir_all(&caps).unwrap();
    let list = "gpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\ngpu0/gi2/access 21\n";
    std::fs::write(caps.join("mig-minors"), list).unwrap();
    let double = Double::new(folder.path(), "mig-a100");
    let inventory = look(folder.path(), &double, &node(&[]));
    let big = inventory.gpus.last().unwrap();
    let mig = big.mig.as_ref().unwrap();
    assert!(big.uuid.starts_with("MIG-") && mig.parent.starts_with("GPU-00000000"));
    assert_eq!((mig.gpu_instance, mig.cap_minors.as_slice()), (1, [12, 13].as_slice()));
}

#[test]
fn a_tray_of_a_rack_tells_its_fabric_by_old_drivers_and_new() {
    for one_clique in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut double = Double::new(folder.path(), "nvl72-tray");
        double.change(|scene| scene.one_clique = one_clique);
        let inventory = look(folder.path(), &double, &node(&[]));
        assert_eq!(inventory.gpus.len(), 4);
        for gpu in &inventory.gpus {
            let fabric = gpu.fabric.as_ref().expect("joined");
            assert_eq!((gpu.of.as_str(), fabric.clique), ("gb200", 7));
            assert_eq!(fabric.cluster, "6e766c37322d7261636b2d3030303031");
        }
    }
}

/// What a declaration comes to on a DGX H100: the GRES reported, and what is said.
#[track_caller]
fn declared(gpus: &[(Option<&str>, u64)], gres: &[(&str, u64)], units: usize, said: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let double = Double::new(folder.path(), "dgx-h100");
    let inventory = look(folder.path(), &double, &node(gpus));
    let found = inventory_in(&inventory, "1").unwrap();
    let counted: Vec<(String, u64)> =
        found.capacity.gres.iter().map(|(kind, n)| (kind.to_string(), *n)).collect();
    let expected: Vec<(String, u64)> = gres.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
    assert_eq!((counted, found.gpus.len()), (expected, units));
    let about = |text: &&String| text.starts_with("gpu");
    assert_eq!(inventory.unenforced.iter().filter(about).collect::<Vec<_>>(), said);
}

#[test]
fn a_declaration_is_checked_against_what_is_there() {
    declared(&[(Some("h100"), 8)], &[("gpu:h100", 8)], 8, &[]);
    declared(&[(None, 8)], &[("gpu", 8)], 8, &[]);
    declared(&[(Some("a100"), 8)], &[("gpu:h100", 8)], 8, &[]);
    let rest = "gpu: 4 declared, 8 found: the rest is not used";
    declared(&[(Some("h100"), 4)], &[("gpu:h100", 8)], 4, &[rest]);
    declared(&[(Some("h100"), 9)], &[("gpu:h100", 8)], 9, &[]);
}

#[test]
fn a_gpu_that_is_lost_keeps_its_place_and_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let mut double = Double::new(folder.path(), "dgx-h100");
    double.change(|scene| scene.trouble_mut(3).lost = true);
    let inventory = look(folder.path(), &double, &node(&[(Some("h100"), 8)]));
    assert_eq!(inventory.gpus.len(), 8);
    assert_eq!((inventory.gpus[3].of.as_str(), inventory.gpus[3].uuid.as_str()), ("h100", ""));
    assert_eq!(inventory.gpus[4].minor, Some(6));
}

#[test]
fn a_library_that_does_not_start_is_said_and_shows_no_gpus() {
    let folder = tempfile::tempdir().unwrap();
    let mut double = Double::new(folder.path(), "dgx-h100");
    double.change(|scene| scene.init_fails = 9);
    let inventory = look(folder.path(), &double, &node(&[(Some("h100"), 8)]));
    assert!(inventory.gres.is_empty(), "the node drains for it: {:?}", inventory.gres);
    assert!(
        inventory.unenforced.iter().any(|text| text.contains("NVIDIA's library does not work")),
        "{:?}",
        inventory.unenforced
    );
}

#[test]
fn a_host_without_the_library_takes_the_declaration_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::look(&Roots::below(folder.path()), &gpu::Driver::Absent);
    let inventory = report(&host, &node(&[(Some("h100"), 8)]), &[]);
    assert_eq!((inventory.gres[0].count, inventory.gpus.len()), (8, 0));
}
