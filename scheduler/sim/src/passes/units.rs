//! `muster bench pass --units`: what it costs to choose GPUs and CPUs inside a node, by how the
//! node's GPUs are joined.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context as _;
use muster_core::plan::units::{UnitTable, near, pick_cpus};
use muster_model::{CpuSet, GpuLinks, LinkClass};

use super::cpu;

/// CPUs that a job of the benchmark takes with each GPU.
const CPUS_PER_GPU: u32 = 6;
const CPUS: u32 = 64;
/// Choices timed together: the clock is too coarse for one.
const TOGETHER: u32 = 200;

/// One kind of node and one number of GPUs.
#[derive(Debug, serde::Serialize)]
struct Row {
    node: &'static str,
    gpus: u32,
    /// Sets of free GPUs that were tried: all that have so many.
    free_sets: u32,
    mean_us: f64,
    /// With the set of free GPUs with which it took longest.
    worst_us: f64,
    /// Making the node's table, once for all nodes that are alike.
    table_us: f64,
    aim_us: f64,
}

pub(super) fn run(json: bool) -> anyhow::Result<()> {
    let kinds = [
        ("DGX H100, NVSwitch", nvswitch()),
        ("DGX-1, cube mesh", cube_mesh()),
        ("PCIe, two NUMA nodes", pcie()),
    ];
    if !json {
        println!(
            "CPU time of one choice of GPUs and {CPUS_PER_GPU} CPUs for each, near them; {CPUS} CPUs, \
             any set of free GPUs"
        );
        println!(
            "{:<22} {:>5} {:>10} {:>9} {:>9} {:>9} {:>9}",
            "node", "GPUs", "free sets", "mean us", "worst us", "aim us", "table us"
        );
    }
    let mut rows = Vec::new();
    for (node, links) in kinds {
        for gpus in [1, 2, 4, 8] {
            let row = measure(node, &links, gpus);
            if !json {
                println!(
                    "{:<22} {:>5} {:>10} {:>9.2} {:>9.2} {:>9} {:>9.0}",
                    row.node,
                    row.gpus,
                    row.free_sets,
                    row.mean_us,
                    row.worst_us,
                    row.aim_us,
                    row.table_us
                );
            }
            rows.push(row);
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&rows).context("rows are plain data")?);
    }
    Ok(())
}

fn measure(node: &'static str, links: &GpuLinks, gpus: u32) -> Row {
    let began = cpu();
    let table = UnitTable::new(links.clone());
    let table_us = us(cpu() - began);
    let (numa, cpus) = (numa(CPUS), CpuSet::first(CPUS));
    let (mut sets, mut sum, mut worst) = (0, 0.0, 0.0f64);
    for free in (0u64..256).filter(|free| free.count_ones() >= gpus) {
        let began = cpu();
        for _ in 0..TOGETHER {
            let chosen = table.choose(black_box(free), gpus).expect("there are enough");
            let near = near(table.links(), chosen, &numa);
            black_box(pick_cpus(&cpus, gpus * CPUS_PER_GPU, &near, 1));
        }
        let each = us(cpu() - began) / f64::from(TOGETHER);
        sets += 1;
        sum += each;
        worst = worst.max(each);
    }
    let round = |value: f64| (value * 100.0).round() / 100.0;
    Row {
        node,
        gpus,
        free_sets: sets,
        mean_us: round(sum / f64::from(sets)),
        worst_us: round(worst),
        table_us,
        aim_us: 10.0,
    }
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Two NUMA nodes with half of the CPUs each.
pub(super) fn numa(cpus: u32) -> Vec<CpuSet> {
    vec![(0..cpus / 2).collect(), (cpus / 2..cpus).collect()]
}

const HALVES: [u8; 8] = [0, 0, 0, 0, 1, 1, 1, 1];

/// Eight GPUs of which all are equally near.
pub(super) fn nvswitch() -> GpuLinks {
    GpuLinks::from_pairs(&HALVES, LinkClass::NvLink(LinkClass::MAX_WIDTH), &[])
}

/// Two rings of four with double links, joined GPU by GPU.
fn cube_mesh() -> GpuLinks {
    let double = [(0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)];
    let single = [(0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)];
    let link = |width| move |(a, b): (u8, u8)| (a, b, LinkClass::NvLink(width));
    let pairs: Vec<_> =
        double.into_iter().map(link(2)).chain(single.into_iter().map(link(1))).collect();
    GpuLinks::from_pairs(&HALVES, LinkClass::System, &pairs)
}

/// Two PCIe switches of two GPUs on each of two NUMA nodes.
fn pcie() -> GpuLinks {
    let pairs = (0..8u8).flat_map(|a| (0..a).map(move |b| (a, b)));
    let link = |(a, b): (u8, u8)| {
        let link = if a / 2 == b / 2 { LinkClass::PciSwitch } else { LinkClass::Numa };
        (a / 4 == b / 4).then_some((a, b, link))
    };
    let pairs: Vec<_> = pairs.filter_map(link).collect();
    GpuLinks::from_pairs(&HALVES, LinkClass::System, &pairs)
}
