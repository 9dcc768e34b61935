//! The environment of a task: what srun sends for all, then what only this node and this task know.

use muster_proto::shim::v1::StepOrder;
use muster_proto::v1::{CpuBind, StartStep};

use super::cpus;
use super::gpus::{self, bits};
use crate::slice::Host;

/// Names that are set here and nowhere else.
const OURS: &[&str] = &[
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_GTIDS",
    "SLURM_TASK_PID",
    "SLURMD_NODENAME",
    "SLURM_TOPOLOGY_ADDR",
    "SLURM_TOPOLOGY_ADDR_PATTERN",
    "SLURM_CPUS_ON_NODE",
    "SLURM_GPUS_ON_NODE",
    "SLURM_STEP_GPUS",
    "SLURM_CPU_BIND",
    "SLURM_CPU_BIND_TYPE",
    "SLURM_CPU_BIND_LIST",
    "SLURM_CPU_BIND_VERBOSE",
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "ENVIRONMENT",
    // What the process around srun was told of its own step is nothing to a step in it.
    "PMI_FD",
    "PMI_RANK",
    "PMI_SIZE",
    "PMI_JOBID",
    "PMI_SPAWNED",
    "PMIX_NAMESPACE",
    "PMIX_RANK",
    "PMIX_HOSTNAME",
    "PMIX_VERSION",
    "PMIX_SECURITY_MODE",
    "PMIX_PTL_MODULE",
    "PMIX_GDS_MODULE",
    "PMIX_BFROP_BUFFER_TYPE",
    "PMIX_SERVER_TMPDIR",
    "PMIX_SYSTEM_TMPDIR",
];
/// The same, by how they begin.
const OURS_BEGIN: &str = "PMIX_SERVER_URI";

const VISIBLE: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"];

fn join(numbers: impl Iterator<Item = u32>) -> String {
    numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(",")
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

/// What all tasks of the node share: NAME=VALUE.
pub(super) fn of_node(host: &Host, order: &StepOrder, start: &StartStep) -> Vec<Vec<u8>> {
    let part = start.part.clone().unwrap_or_default();
    let inherited = start.environment.split(|byte| *byte == 0).filter(|pair| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let ours = OURS.iter().any(|ours| ours.as_bytes() == name);
        !pair.is_empty() && !ours && !name.starts_with(OURS_BEGIN.as_bytes())
    });
    let mut all: Vec<Vec<u8>> = inherited.map(<[u8]>::to_vec).collect();
    let mut set = |name: &str, value: &str| all.push(format!("{name}={value}").into_bytes());
    set("SLURM_NODEID", &part.index.to_string());
    set("SLURM_GTIDS", &join(part.tasks.iter().map(|rank| rank + start.first_rank)));
    set("SLURMD_NODENAME", &order.node);
    set("SLURM_TOPOLOGY_ADDR", or(&order.topology_address, &order.node));
    set("SLURM_TOPOLOGY_ADDR_PATTERN", or(&order.topology_pattern, "node"));
    set("SLURM_CPUS_ON_NODE", &cpus::list(&part.cpus).len().max(1).to_string());
    let gpus = gpus::of_step(start);
    if gpus != 0 {
        set("SLURM_GPUS_ON_NODE", &gpus.count_ones().to_string());
        set("SLURM_STEP_GPUS", &join(bits(gpus)));
    }
    let has = |all: &[Vec<u8>], name: &str| {
        all.iter()
            .any(|pair| pair.starts_with(name.as_bytes()) && pair.get(name.len()) == Some(&b'='))
    };
    for (name, value) in [("HOSTNAME", host.hostname.as_str()), ("TMPDIR", "/tmp")] {
        if !has(&all, name) {
            all.push(format!("{name}={value}").into_bytes());
        }
    }
    all
}

/// What one task has of its own; `gpus`: those that it is to see.
pub(super) fn of_task(
    order: &StepOrder,
    start: &StartStep,
    local: usize,
    gpus: u64,
) -> Vec<(String, String)> {
    let part = start.part.clone().unwrap_or_default();
    let rank = part.tasks.get(local).copied().unwrap_or_default();
    let mut all = vec![
        ("SLURM_PROCID".to_owned(), (rank + start.first_rank).to_string()),
        ("SLURM_LOCALID".to_owned(), local.to_string()),
    ];
    if let Some(list) = visible(order, gpus::of_step(start), gpus) {
        all.extend(VISIBLE.iter().map(|name| ((*name).to_owned(), list.clone())));
    }
    // Set later, it counts.
    all.extend(by_name(order, gpus).map(|names| (VISIBLE[0].to_owned(), names)));
    if start.cpu_bind() != CpuBind::Auto
        && let Some(cpus) = cpus::of_task(start, local).filter(|_| order.bind)
    {
        let (mask, verbose) =
            (cpus::mask(&cpus), if start.cpu_bind_verbose { "verbose" } else { "quiet" });
        let mut set = |name: &str, value: String| all.push((name.to_owned(), value));
        set("SLURM_CPU_BIND", format!("{verbose},mask_cpu:{mask}"));
        set("SLURM_CPU_BIND_TYPE", "mask_cpu:".to_owned());
        set("SLURM_CPU_BIND_LIST", mask);
        set("SLURM_CPU_BIND_VERBOSE", verbose.to_owned());
    }
    all
}

/// The GPUs of a task as its libraries count them; `None` where the job has none.
fn visible(order: &StepOrder, of_step: u64, mine: u64) -> Option<String> {
    // Under a device filter the driver shows the step's own GPUs alone, counted from 0.
    let held = if order.limits.is_some() { of_step } else { order.gpus_of_slice };
    let number = |unit: u32| match order.devices_held {
        true => gpus::position(held, unit),
        false => unit,
    };
    (order.gpus_of_slice != 0).then(|| join(bits(mine).map(number)))
}

/// The GPUs of a task by the driver's names; `None` where they are counted, or one has no name.
fn by_name(order: &StepOrder, mine: u64) -> Option<String> {
    let name = |unit: u32| order.gpu_names.get(unit as usize).filter(|name| !name.is_empty());
    let names: Option<Vec<&str>> = bits(mine).map(|unit| name(unit).map(String::as_str)).collect();
    names.filter(|names| !names.is_empty()).map(|names| names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::shim::v1::SliceLimits;

    #[test]
    fn gpus_with_names_are_named_all_of_them_or_none() {
        let names = ["GPU-a", "GPU-b", ""].map(str::to_owned).to_vec();
        let order = StepOrder { gpu_names: names, ..StepOrder::default() };
        assert_eq!(by_name(&order, 0b11).as_deref(), Some("GPU-a,GPU-b"));
        assert_eq!((by_name(&order, 0b110), by_name(&order, 0)), (None, None));
        assert_eq!(by_name(&StepOrder::default(), 0b11), None);
    }

    #[test]
    fn a_task_sees_its_own_gpus_as_its_libraries_count_them() {
        let order = |held| StepOrder {
            gpus_of_slice: 0b1111_0000,
            devices_held: held,
            limits: Some(SliceLimits::default()),
            ..StepOrder::default()
        };
        let see = |held, step, mine| visible(&order(held), step, mine).unwrap();
        assert_eq!(see(false, 0b1111_0000, 0b1111_0000), "4,5,6,7");
        assert_eq!(see(true, 0b1111_0000, 0b1111_0000), "0,1,2,3");
        assert_eq!(see(true, 0b1100_0000, 0b1100_0000), "0,1", "of the step's, not of the job's");
        assert_eq!(see(true, 0b1100_0000, 0b1000_0000), "1");
        assert_eq!(see(true, 0b1111_0000, 0b1100_0000), "2,3");
        assert_eq!(see(true, 0, 0), "", "a step without GPUs sees none");
        assert_eq!(visible(&StepOrder::default(), 0, 0), None);
    }
}
