//! Memory, load and boot of the host from `/proc`.

use std::fs;
use std::path::Path;

/// The machine's memory in MiB.
#[must_use]
pub fn total_mib(proc: &Path) -> Option<u64> {
    meminfo(proc, "MemTotal:")
}

/// Memory that new work could get, in MiB.
#[must_use]
pub fn available_mib(proc: &Path) -> Option<u64> {
    meminfo(proc, "MemAvailable:")
}

fn meminfo(proc: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(proc.join("meminfo")).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// The load average of one minute.
#[must_use]
pub fn load(proc: &Path) -> Option<f32> {
    fs::read_to_string(proc.join("loadavg")).ok()?.split(' ').next()?.parse().ok()
}

/// Changes at every boot; empty when the kernel does not say.
#[must_use]
pub fn boot_id(proc: &Path) -> String {
    line(&proc.join("sys/kernel/random/boot_id"))
}

/// When the host booted, milliseconds since the epoch; 0 when the kernel does not say.
#[must_use]
pub fn booted_at(proc: &Path) -> i64 {
    let text = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "));
    seconds.and_then(|s| s.trim().parse::<i64>().ok()).map_or(0, |s| s * 1000)
}

/// A file of one line, trimmed; empty when it cannot be read.
pub(super) fn line(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
