//! What a group has used: CPU time by the cpuacct controller (v1) or cpu.stat (v2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Version};

/// What the processes of a group have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Bytes of anonymous memory now.
    pub resident_bytes: u64,
}

/// The files that count CPU time.
pub(crate) fn cpu_files(version: Version, dir: &Path) -> Vec<PathBuf> {
    match version {
        Version::V1 => vec![dir.join("cpuacct.usage_user"), dir.join("cpuacct.usage_sys")],
        Version::V2 => vec![dir.join("cpu.stat")],
    }
}

/// (user, system) CPU time of the group, the dead included.
pub(crate) fn cpu(
    version: Version,
    dir: &Path,
    read: impl Fn(&Path) -> Result<String, Error>,
) -> Result<(Duration, Duration), Error> {
    let files = cpu_files(version, dir);
    match version {
        Version::V1 => {
            let nanos = |file: &Path| -> Result<Duration, Error> {
                Ok(Duration::from_nanos(read(file)?.trim().parse().unwrap_or(0)))
            };
            Ok((nanos(&files[0])?, nanos(&files[1])?))
        }
        Version::V2 => {
            let text = read(&files[0])?;
            let micros = |key: &str| {
                Duration::from_micros(crate::files::keyed(&text, key).unwrap_or_default())
            };
            Ok((micros("user_usec"), micros("system_usec")))
        }
    }
}
