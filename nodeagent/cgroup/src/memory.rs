//! memory: the limit (swap included), out-of-memory kills, and what is used.

use std::path::{Path, PathBuf};

use crate::{Error, Version, files};

/// Holds the group to `bytes` of memory and swap together.
pub(crate) fn limit(version: Version, dir: &Path, bytes: u64) -> Result<(), Error> {
    let value = bytes.to_string();
    match version {
        Version::V1 => {
            files::write(&dir.join("memory.limit_in_bytes"), &value)?;
            // The file is absent where swap accounting is off; there is nothing to hold then.
            let swap = dir.join("memory.memsw.limit_in_bytes");
            if swap.exists() { files::write(&swap, &value) } else { Ok(()) }
        }
        Version::V2 => {
            files::write(&dir.join("memory.max"), &value)?;
            let swap = dir.join("memory.swap.max");
            if swap.exists() { files::write(&swap, "0") } else { Ok(()) }
        }
    }
}

/// Where the kernel counts the processes that it has killed for memory.
pub(crate) fn oom_file(version: Version, dir: &Path) -> PathBuf {
    dir.join(match version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    })
}

/// How many those are, by the file's text.
pub(crate) fn oom_kills(text: &str) -> u64 {
    files::keyed(text, "oom_kill").unwrap_or(0)
}

/// Where the bytes are that are charged to the group now, page cache and the kernel's own included.
pub(crate) fn charged_file(version: Version, dir: &Path) -> PathBuf {
    dir.join(match version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    })
}

/// Where the most bytes are that were ever charged to the group. Version 2 has it from Linux 5.19.
pub(crate) fn peak_file(version: Version, dir: &Path) -> PathBuf {
    dir.join(match version {
        Version::V1 => "memory.max_usage_in_bytes",
        Version::V2 => "memory.peak",
    })
}

/// Bytes of anonymous memory in use now: page cache is not the job's to answer for.
pub(crate) fn resident(version: Version, dir: &Path) -> Result<u64, Error> {
    let text = files::read(&dir.join("memory.stat"))?;
    let key = match version {
        Version::V1 => "total_rss",
        Version::V2 => "anon",
    };
    Ok(files::keyed(&text, key).unwrap_or(0))
}
