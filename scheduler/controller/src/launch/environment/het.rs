//! What the script of a heterogeneous job reads of each component: the names that describe a job,
//! with `_HET_GROUP_0`, `_HET_GROUP_1` and so on behind them.

use super::{Environment, Facts, asked_for, gpus, sizes, who_and_where};

/// Names of a component that are told with its group's number.
const TOLD: [&str; 19] = [
    "SLURM_JOB_ID",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_CPUS_PER_NODE",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_QOS",
    "SLURM_JOB_NAME",
    "SLURM_NNODES",
    "SLURM_NODELIST",
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
    "SLURM_CPUS_PER_TASK",
    "SLURM_MEM_PER_NODE",
    "SLURM_MEM_PER_CPU",
    "SLURM_GPUS_ON_NODE",
    "SLURM_JOB_GPUS",
];

/// Tells of all components; nothing where there is but one.
pub(super) fn components(env: &mut Environment, leader: &Facts<'_>, mates: &[Facts<'_>]) {
    if mates.is_empty() {
        return;
    }
    let count = u32::try_from(mates.len() + 1).expect("a job has some components");
    env.number("SLURM_HET_SIZE", count);
    for (group, facts) in std::iter::once(leader).chain(mates).enumerate() {
        let mut own = Environment { bytes: Vec::new(), has: Vec::new() };
        who_and_where(&mut own, facts);
        sizes(&mut own, facts, 0);
        asked_for(&mut own, facts);
        gpus(&mut own, facts.slices[0].1.gres.as_slice());
        for entry in own.bytes.split(|b| *b == 0) {
            let Ok(text) = std::str::from_utf8(entry) else { continue };
            let Some((name, value)) = text.split_once('=') else { continue };
            if TOLD.contains(&name) {
                env.set(&format!("{name}_HET_GROUP_{group}"), value);
            }
        }
    }
}
