//! GPUs as a job sees them: the device files it may open, and the numbers it counts by.
//!
//! A unit of the ledger is not its device file: the driver says which minor number a GPU has.
//! The controller numbers GPUs by the node. Where a job can open its own devices only, the driver
//! shows it no others and counts those from 0: the variables by which libraries choose devices must
//! count the same way. `SLURM_JOB_GPUS` keeps the node's numbers.

use muster_cgroup::DeviceRule;
use muster_proto::v1::GresMask;

use crate::inventory::gpu::Unit;

/// Variables that choose devices by position.
const POSITIONS: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"];

/// The units of `gpu` among granted resources.
pub(crate) fn mask_of(gres: &[GresMask]) -> u64 {
    let gpus = gres.iter().filter(|g| g.kind.as_ref().is_some_and(|k| k.name == "gpu"));
    gpus.fold(0, |mask, gres| mask | gres.mask)
}

/// The device files of some units: of a GPU its own, of an instance its GPU's and those that open
/// the instance (`caps_major`). A unit of which the driver told nothing has the file of its number.
pub(crate) fn device_rules(
    units: &[Unit],
    mask: u64,
    caps_major: Option<u32>,
) -> impl Iterator<Item = DeviceRule> + Clone {
    let wanted = (0u32..64).filter(move |unit| mask >> unit & 1 == 1);
    wanted.flat_map(move |at| {
        let gpu = units.get(at as usize).map(|unit| &unit.gpu);
        let told = gpu.filter(|gpu| !gpu.uuid.is_empty());
        let minor = told.map_or(Some(at), |gpu| gpu.minor);
        let caps = told.and_then(|gpu| gpu.mig.as_ref()).map_or(&[][..], |mig| &mig.cap_minors);
        let caps =
            caps.iter().filter_map(move |cap| Some(DeviceRule::char(caps_major?, Some(*cap))));
        minor.map(DeviceRule::nvidia_gpu).into_iter().chain(caps)
    })
}

/// The environment with CUDA_VISIBLE_DEVICES naming units as the driver does; `None` where it does
/// not name all of them.
pub(super) fn by_uuid(environment: &[u8], units: &[Unit], mask: u64) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"CUDA_VISIBLE_DEVICES=";
    let wanted = (0..64).filter(|unit| mask >> unit & 1 == 1);
    let names = wanted.map(|at| Some(&*units.get(at)?.gpu.uuid).filter(|uuid| !uuid.is_empty()));
    let list = names.collect::<Option<Vec<&str>>>().filter(|list| !list.is_empty())?.join(",");
    let entries = environment.split(|byte| *byte == 0).map(|entry| match entry {
        entry if entry.starts_with(NAME) => [NAME, list.as_bytes()].concat(),
        entry => entry.to_vec(),
    });
    Some(entries.collect::<Vec<_>>().join(&0))
}

/// The environment (NUL-separated `NAME=VALUE`) with its device lists counted from 0. Lists that
/// name devices otherwise than by number (UUIDs) stay.
pub(super) fn numbered_within(environment: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(environment.len());
    for (at, entry) in environment.split(|byte| *byte == 0).enumerate() {
        if at > 0 {
            out.push(0);
        }
        match renumbered(entry) {
            Some(new) => out.extend(new.into_bytes()),
            None => out.extend(entry),
        }
    }
    out
}

fn renumbered(entry: &[u8]) -> Option<String> {
    let (name, list) = std::str::from_utf8(entry).ok()?.split_once('=')?;
    let numbers = !list.is_empty() && list.split(',').all(|word| word.parse::<u32>().is_ok());
    if !POSITIONS.contains(&name) || !numbers {
        return None;
    }
    let positions: Vec<String> =
        (0..list.split(',').count()).map(|position| position.to_string()).collect();
    Some(format!("{name}={}", positions.join(",")))
}

#[cfg(test)]
mod tests {
    use muster_model::{Gpu, MigInstance};

    use super::*;

    fn unit(uuid: &str, minor: u32, caps: &[u32]) -> Unit {
        let mig = (!caps.is_empty())
            .then(|| MigInstance { cap_minors: caps.to_vec(), ..MigInstance::default() });
        let gpu = Gpu { uuid: uuid.into(), minor: Some(minor), mig, ..Gpu::default() };
        Unit { gpu, index: Some(0) }
    }

    #[test]
    fn a_unit_opens_the_files_that_the_driver_names() {
        let units = [unit("GPU-a", 5, &[]), unit("", 0, &[]), unit("MIG-b", 2, &[12, 13])];
        let rules = |mask| -> Vec<String> {
            device_rules(&units, mask, Some(236)).map(|rule| rule.to_string()).collect()
        };
        assert_eq!(rules(0b1), ["c 195:5 rw"]);
        assert_eq!(rules(0b1010), ["c 195:1 rw", "c 195:3 rw"], "as they are numbered");
        assert_eq!(rules(0b100), ["c 195:2 rw", "c 236:12 rw", "c 236:13 rw"]);
    }

    #[test]
    fn gpus_are_named_as_the_driver_does_or_not_at_all() {
        let units = [unit("GPU-a", 5, &[]), unit("GPU-c", 1, &[]), unit("", 2, &[])];
        let env = b"A=b\0CUDA_VISIBLE_DEVICES=0,1\0Z=1\0";
        let named = by_uuid(env, &units, 0b11).unwrap();
        assert_eq!(named, b"A=b\0CUDA_VISIBLE_DEVICES=GPU-a,GPU-c\0Z=1\0");
        assert_eq!(by_uuid(env, &units, 0b101), None);
        assert_eq!(by_uuid(env, &units, 0), None);
    }

    #[track_caller]
    fn check(before: &str, after: &str) {
        let out = numbered_within(before.as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), after);
    }

    #[test]
    fn device_lists_count_from_0_and_nothing_else_changes() {
        check(
            "A=b\0CUDA_VISIBLE_DEVICES=5,7\0SLURM_JOB_GPUS=5,7\0ZE_AFFINITY_MASK=3\0",
            "A=b\0CUDA_VISIBLE_DEVICES=0,1\0SLURM_JOB_GPUS=5,7\0ZE_AFFINITY_MASK=0\0",
        );
    }

    #[test]
    fn lists_without_numbers_stay() {
        check("CUDA_VISIBLE_DEVICES=GPU-8f2a,GPU-91bc", "CUDA_VISIBLE_DEVICES=GPU-8f2a,GPU-91bc");
        check("CUDA_VISIBLE_DEVICES=\0X", "CUDA_VISIBLE_DEVICES=\0X");
        check("", "");
    }
}
