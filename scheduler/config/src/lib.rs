//! The config file: one TOML file that controller, agents and commands of a host all read.
//!
//! `raw` is the file as written (serde, unknown keys refused); `resolved` is what the rest of
//! Muster reads: paths, MiB, seconds, one entry per node, partitions with their members by name.
//! Every fault names the line, or the node or partition it is about.
//!
//! Knows nothing of decisions (core), wires or sockets, and never looks users up: names of
//! operators stay names.
//!
//! - `raw`: the file's shape and the nearest-key suggestion; `resolved`: the values in force
//! - `choices`: how a pass chooses, and other words
//! - `topology`: switches and blocks, checked against the nodes
//! - `entries`: the same values under the names that `scontrol show config` prints

mod choices;
mod entries;
mod raw;
mod resolved;
mod topology;

pub use choices::{Backfill, MpiDefault, Order, Packing, Shadows};
pub use resolved::{
    Agent, CgroupMode, Config, Controller, GpuNumbering, History, NvmlLibrary, Priority, Scheduler,
    Security, Tls,
};

use std::path::{Path, PathBuf};

/// Names the config file of a process tree.
pub const CONFIG_VARIABLE: &str = "MUSTER_CONF";

/// Where an installed cluster's config lies.
pub const SYSTEM_CONFIG: &str = "/etc/muster/muster.toml";

/// Why there is no config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No place that is looked at has a file.
    #[error("no config file: set {CONFIG_VARIABLE}, or put one at {}", looked_at.join(" or "))]
    NotFound { looked_at: Vec<String> },
    /// The file could not be read.
    #[error("read config {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("config {}, line {line}: {fault}", path.display())]
    Syntax { path: PathBuf, line: usize, fault: String },
    /// The values do not make sense together.
    #[error("config {}: {fault}", path.display())]
    Invalid { path: PathBuf, fault: String },
}

impl Config {
    /// Reads and checks one file.
    ///
    /// # Errors
    /// Every fault of the file, the first one found.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(path, &text)
    }

    /// Checks a file's text; `path` is for messages and `Config::path`.
    ///
    /// # Errors
    /// Every fault of the text, the first one found.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let raw = raw::read(text).map_err(|fault| ConfigError::Syntax {
            path: path.to_owned(),
            line: fault.line,
            fault: fault.text,
        })?;
        resolved::resolve(path, raw)
            .map_err(|fault| ConfigError::Invalid { path: path.to_owned(), fault })
    }

    /// The file that this process should read: `MUSTER_CONF`, the user's own, the system's.
    ///
    /// # Errors
    /// When none of them exists. A path in `MUSTER_CONF` is taken as it is.
    pub fn find() -> Result<PathBuf, ConfigError> {
        if let Some(path) = std::env::var_os(CONFIG_VARIABLE).filter(|p| !p.is_empty()) {
            return Ok(PathBuf::from(path));
        }
        let own = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
            .map(|dir| dir.join("muster/muster.toml"));
        let places: Vec<PathBuf> = own.into_iter().chain([PathBuf::from(SYSTEM_CONFIG)]).collect();
        let found = places.iter().find(|p| p.exists()).cloned();
        found.ok_or_else(|| ConfigError::NotFound {
            looked_at: places.iter().map(|p| p.display().to_string()).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
