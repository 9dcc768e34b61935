//! What a group has used: CPU time by the cpuacct controller (v1) or cpu.stat (v2).

use std::path::Path;
use std::time::Duration;

use crate::{Error, Version, files};

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

/// (user, system) CPU time of the group, the dead included.
pub(crate) fn cpu(version: Version, dir: &Path) -> Result<(Duration, Duration), Error> {
    match version {
        Version::V1 => {
            let nanos = |name: &str| -> Result<Duration, Error> {
                let text = files::read(&dir.join(name))?;
                Ok(Duration::from_nanos(text.trim().parse().unwrap_or(0)))
            };
            Ok((nanos("cpuacct.usage_user")?, nanos("cpuacct.usage_sys")?))
        }
        Version::V2 => {
            let text = files::read(&dir.join("cpu.stat"))?;
            let micros =
                |key: &str| Duration::from_micros(files::keyed(&text, key).unwrap_or_default());
            Ok((micros("user_usec"), micros("system_usec")))
        }
    }
}
