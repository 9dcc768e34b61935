//! Control groups: one tree per node, one group per slice, on cgroup v1, v2, or neither.
//!
//! Knows files and numbers. It does not know what a job is, who may run one, or what a GPU is: a
//! device is a kind and two numbers here.
//!
//! - `detect`: which hierarchies this machine has and where the node's tree stands in them
//! - `group`: one slice's group: join, signal, freeze, kill, wait, remove
//! - `inner`: groups inside a slice's: one for its first processes, one for each later part
//! - `cpuset`, `memory`, `pids`, `devices`, `freezer`, `usage`: one controller each, both versions
//! - `device_program`: the v2 device filter, assembled by hand and attached through bpf(2)
//! - `kept`: files of one group that stay open
//! - `files`: reading and writing control files with the path in every error
//!
//! A limit that the host cannot give (CPUs beyond the machine) is the caller's to leave out; a
//! controller that the host does not have is named by [`Cgroups::what_cannot_be_enforced`].

mod cpuset;
mod detect;
mod device_program;
mod devices;
mod files;
mod freezer;
mod group;
mod inner;
mod kept;
mod memory;
mod pids;
mod usage;

pub use detect::{Cgroups, Hierarchies, Mode, Version};
pub use devices::{DeviceKind, DeviceRule, DeviceRules, ParseRuleError, mig_caps_major};
pub use group::Group;
pub use usage::Usage;

use std::io;
use std::path::PathBuf;

/// The root that every Linux distribution mounts control groups at.
pub const DEFAULT_ROOT: &str = "/sys/fs/cgroup";

/// What one group is held to; `None` leaves that part open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The CPUs, as the kernel writes lists: `0-3,8`.
    pub cpus: Option<String>,
    /// The NUMA nodes memory may come from; `None` takes the parent's.
    pub mems: Option<String>,
    /// Bytes of memory, swap included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads together.
    pub pids_max: Option<u64>,
    /// Devices that may be opened; `None` opens every device the user may.
    pub devices: Option<DeviceRules>,
}

/// A control file could not be used, or this machine has no such control.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a control file failed.
    #[error("cannot {what} {}", path.display())]
    File {
        /// The verb: "write", "create", ...
        what: &'static str,
        /// The control file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused the device filter.
    #[error("cannot {what} the device filter of {}", path.display())]
    DeviceProgram {
        /// "load" or "attach".
        what: &'static str,
        /// The group it is for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The mode asked for cannot be had on this machine.
    #[error("control groups {mode} cannot be used: {reason}")]
    Mode {
        /// What was asked for: "v1" or "v2".
        mode: &'static str,
        /// Why not.
        reason: String,
    },
    /// A name that would leave the tree.
    #[error("{0:?} is no name for a control group")]
    Name(String),
    /// Processes were left when the time for them was over.
    #[error("{left} processes of {name} are still there")]
    Busy {
        /// The group.
        name: String,
        /// How many.
        left: usize,
    },
}
