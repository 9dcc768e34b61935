//! devices: which device files a group may open. Everything is denied, then a list is allowed:
//! a v1 wildcard denial cannot be re-opened for single minors, so nothing is denied piecemeal.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::{Error, files};

/// Character or block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// One allowed device or family of devices: `c 195:0 rw`, `c 136:* rwm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceRule {
    /// Character or block.
    pub kind: DeviceKind,
    /// `None`: any.
    pub major: Option<u32>,
    /// `None`: any.
    pub minor: Option<u32>,
    /// May be opened for reading.
    pub read: bool,
    /// May be opened for writing.
    pub write: bool,
    /// May be made with mknod.
    pub mknod: bool,
}

/// The devices of a group; all others are denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRules {
    /// In no order; a device is allowed when any rule allows it.
    pub allow: Vec<DeviceRule>,
}

/// Major number of NVIDIA's per-GPU device files; the minor is the GPU's.
const NVIDIA_MAJOR: u32 = 195;
/// `nvidiactl` and `nvidia-modeset`: needed by every CUDA process, give no GPU by themselves.
const NVIDIA_SHARED_MINORS: [u32; 2] = [255, 254];

/// Drivers with a dynamic major that every job may use: GPU control, and the fabrics that MPI and
/// NCCL talk over. A name ending in `*` is a prefix.
const SHARED_DRIVERS: &[&str] = &[
    "nvidia-uvm",
    "nvidia-modeset",
    "nvidia-caps-imex-channels",
    "nvidia-nvswitch",
    "nvidia-nvlink",
    "gdrdrv",
    "infiniband*",
    "ucm",
    "rdma_cm",
];

impl DeviceRule {
    /// A character device that may be opened, not made.
    pub fn char(major: u32, minor: Option<u32>) -> Self {
        Self {
            kind: DeviceKind::Char,
            major: Some(major),
            minor,
            read: true,
            write: true,
            mknod: false,
        }
    }

    /// `/dev/nvidia<minor>`.
    pub fn nvidia_gpu(minor: u32) -> Self {
        Self::char(NVIDIA_MAJOR, Some(minor))
    }
}

impl DeviceRules {
    /// What every job may open: the memory devices, terminals, and by `proc_devices` (the text of
    /// /proc/devices) the shared device files of GPUs and fabrics. No GPU is in it.
    pub fn base(proc_devices: &str) -> Self {
        let memory = [3, 5, 7, 8, 9].map(|minor| DeviceRule::char(1, Some(minor)));
        let terminals = [(5, Some(0)), (5, Some(2)), (136, None)];
        // /dev/fuse: containers without privileges mount their images by it.
        let misc = [DeviceRule::char(10, Some(229))];
        let nvidia = NVIDIA_SHARED_MINORS.map(|m| DeviceRule::char(NVIDIA_MAJOR, Some(m)));
        let mut allow: Vec<_> = memory.into_iter().chain(misc).chain(nvidia).collect();
        allow.extend(terminals.map(|(major, minor)| DeviceRule::char(major, minor)));
        allow.extend(shared_majors(proc_devices).map(|major| DeviceRule::char(major, None)));
        Self { allow }
    }

    /// [`DeviceRules::base`] of this machine.
    pub fn of_this_machine() -> Result<Self, Error> {
        Ok(Self::base(&files::read(Path::new("/proc/devices"))?))
    }
}

/// Major number of the files that open MIG instances (`nvidia-caps`). No job may open all of them.
#[must_use]
pub fn mig_caps_major() -> Option<u32> {
    let text = files::read(Path::new("/proc/devices")).ok()?;
    let mut lines = text.split("Block devices:").next()?.lines();
    lines.find_map(|line| line.trim().strip_suffix(" nvidia-caps")?.parse().ok())
}

/// Majors of [`SHARED_DRIVERS`] in the character section of /proc/devices.
fn shared_majors(proc_devices: &str) -> impl Iterator<Item = u32> {
    let section = proc_devices.split("Block devices:").next().unwrap_or_default();
    section.lines().filter_map(|line| {
        let (major, name) = line.trim().split_once(' ')?;
        let wanted = SHARED_DRIVERS.iter().any(|driver| match driver.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *driver,
        });
        let major = major.parse().ok()?;
        // nvidia-modeset shares the GPUs' major on some drivers: that would open every GPU.
        (wanted && major != NVIDIA_MAJOR).then_some(major)
    })
}

/// Holds a v1 group to the rules.
pub(crate) fn limit_v1(dir: &Path, rules: &DeviceRules) -> Result<(), Error> {
    files::write(&dir.join("devices.deny"), "a")?;
    let allow = dir.join("devices.allow");
    rules.allow.iter().try_for_each(|rule| files::write(&allow, &rule.to_string()))
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (given, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            f.write_str(if given { letter } else { "" })?;
        }
        Ok(())
    }
}

/// Not a rule of the form `c MAJOR:MINOR rwm`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no device rule: expected, for example, \"c 195:0 rw\"")]
pub struct ParseRuleError(String);

impl FromStr for DeviceRule {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseRuleError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<DeviceRule> {
    let number = |n: &str| match n {
        "*" => Some(None),
        n => n.parse().ok().map(Some),
    };
    let mut words = text.split_ascii_whitespace();
    let kind = match words.next()? {
        "c" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        _ => return None,
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let access = words.next()?;
    if words.next().is_some() || access.is_empty() || access.contains(|c| !"rwm".contains(c)) {
        return None;
    }
    let has = |letter| access.contains(letter);
    Some(DeviceRule {
        kind,
        major: number(major)?,
        minor: number(minor)?,
        read: has('r'),
        write: has('w'),
        mknod: has('m'),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROC_DEVICES: &str = "Character devices:\n  1 mem\n195 nvidia\n195 nvidia-modeset\n\
        231 infiniband_verbs\n236 nvidia-caps\n237 nvidia-caps-imex-channels\n\
        511 nvidia-uvm\n\nBlock devices:\n259 blkext\n252 nvidia-uvm\n";

    #[test]
    fn the_base_opens_shared_device_files_and_no_gpu() {
        let rules = DeviceRules::base(PROC_DEVICES).allow;
        let majors: Vec<_> = rules.iter().filter(|r| r.minor.is_none()).map(|r| r.major).collect();
        assert_eq!(majors, [136, 231, 237, 511].map(Some));
        let nvidia: Vec<_> = rules.iter().filter(|r| r.major == Some(195)).collect();
        assert!(nvidia.iter().all(|r| matches!(r.minor, Some(254 | 255))), "{nvidia:?}");
    }

    proptest! {
        #[test]
        fn a_rule_is_read_as_it_is_written(
            block: bool, major: Option<u32>, minor: Option<u32>, access in 1u8..8
        ) {
            let kind = if block { DeviceKind::Block } else { DeviceKind::Char };
            let [read, write, mknod] = [access & 1 != 0, access & 2 != 0, access & 4 != 0];
            let rule = DeviceRule { kind, major, minor, read, write, mknod };
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }

        #[test]
        fn no_text_is_read_with_a_panic(text: String) {
            let _ = text.parse::<DeviceRule>();
        }
    }
}
