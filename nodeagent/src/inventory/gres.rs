//! Declared generic resources against the device files of the host. Units are declared in the
//! config; a GPU without its device file can be given to a job, but nothing binds it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use muster_model::GresKind;

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

/// What a job that gets declared units should know about them.
pub(super) fn differences(declared: &BTreeMap<GresKind, u64>, found: u64) -> Option<String> {
    let gpus: u64 = declared.iter().filter(|(k, _)| &*k.name == "gpu").map(|(_, n)| n).sum();
    (gpus > found).then(|| {
        format!("gres: {gpus} gpu declared, {found} device files found: the rest is not bound")
    })
}
