//! GPU numbers as a job sees them.
//!
//! The controller numbers GPUs by the node. Where a job can open its own devices only, the driver
//! shows it no others and counts those from 0: the variables by which libraries choose devices must
//! count the same way. `SLURM_JOB_GPUS` keeps the node's numbers.

/// Variables that choose devices by position.
const POSITIONS: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"];

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
    use super::numbered_within;

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
