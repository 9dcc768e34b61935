//! Which hierarchies this machine has, and where the node's tree stands in them.
//!
//! Three layouts are met: pure v2 (the root is a cgroup2 mount), v1 (one mount per controller under
//! the root), and v1 with an empty cgroup2 mount beside it (`<root>/unified`), whose groups can be
//! killed, frozen, watched and given a device filter, though they limit nothing.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use crate::group::Group;
use crate::{Error, Limits, cpuset, files};

/// What an admin asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What there is: v2, else v1, else none.
    #[default]
    Auto,
    /// v2 or an error.
    V2,
    /// v1 or an error.
    V1,
    /// None: jobs are followed by descent and nothing is limited.
    None,
}

/// The interface of one hierarchy's control files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified one.
    V2,
}

/// One controller's hierarchy: which files it has, and the node's tree in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) version: Version,
    pub(crate) dir: PathBuf,
}

/// The node's tree in every hierarchy that is of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    pub(crate) cpuset: Option<Control>,
    pub(crate) memory: Option<Control>,
    pub(crate) pids: Option<Control>,
    pub(crate) devices: Option<Control>,
    pub(crate) usage: Option<Control>,
    /// Where members are listed, frozen and killed: v2 wherever there is a cgroup2 mount.
    pub(crate) tracker: Option<Control>,
}

/// The control groups of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Pure v2.
    V2(Hierarchies),
    /// v1, with or without an empty cgroup2 mount beside it.
    V1(Hierarchies),
    /// None, and why.
    None(String),
}

/// What is mounted at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mounted {
    V1,
    V2,
    Other,
}

fn mounted(path: &Path) -> Mounted {
    match statfs(path).map(|s| s.filesystem_type()) {
        Ok(CGROUP2_SUPER_MAGIC) => Mounted::V2,
        Ok(CGROUP_SUPER_MAGIC) => Mounted::V1,
        _ => Mounted::Other,
    }
}

impl Hierarchies {
    /// Pure v2: each group has one directory for all.
    pub(crate) fn is_unified(&self) -> bool {
        self.usage == self.tracker
    }
}

impl Cgroups {
    /// Finds the hierarchies under `root` and makes the node's tree `parent` (`muster/n1`, or a
    /// delegated scope's path) in each. `Auto` never fails: what stands in the way becomes the
    /// reason of [`Cgroups::None`].
    pub fn detect(mode: Mode, root: &Path, parent: &str) -> Result<Self, Error> {
        let parts = parts_of(parent)?;
        match mode {
            Mode::None => Ok(Self::None("switched off".to_owned())),
            Mode::V2 => unified(root, &parts).map(Self::V2),
            Mode::V1 => separate(root, &parts).map(Self::V1),
            Mode::Auto => {
                let found = if mounted(root) == Mounted::V2 {
                    unified(root, &parts).map(Self::V2)
                } else {
                    separate(root, &parts).map(Self::V1)
                };
                Ok(found.unwrap_or_else(|e| Self::None(chain(&e))))
            }
        }
    }

    /// Makes the group of one slice with its limits, in the hierarchies these need and no others:
    /// each costs a job some ten microseconds. A group of that name that is there is used.
    /// `None` without control groups.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Option<Group>, Error> {
        self.hierarchies().map(|h| Group::create(h, name, limits)).transpose()
    }

    /// Makes a group inside another, which must have room: see [`Cgroups::make_room`]. It holds to
    /// less where its limits say so; elsewhere the outer one's are all there is.
    pub fn create_inside(
        &self,
        outer: &Group,
        name: &str,
        limits: &Limits,
    ) -> Result<Group, Error> {
        let all = self.hierarchies().expect("a group has hierarchies");
        Group::create_inside(all, outer, name, limits)
    }

    /// The group of that name inside another, if it is there.
    pub fn open_inside(&self, outer: &Group, name: &str) -> Result<Option<Group>, Error> {
        self.hierarchies().map_or(Ok(None), |all| Group::open_inside(all, outer, name))
    }

    /// Sees to it that groups can be made inside this one. Its processes move into a group inside by
    /// the name of `inner`, which is the answer; `None`: there are none.
    pub fn make_room(&self, group: &Group, inner: Option<&str>) -> Result<Option<Group>, Error> {
        let all = self.hierarchies().expect("a group has hierarchies");
        group.make_room(all, inner)
    }

    /// Whether [`Cgroups::make_room`] has been done.
    pub fn has_room(&self, group: &Group, inner: Option<&str>) -> bool {
        self.hierarchies().is_some_and(|all| group.has_room(all, inner))
    }

    /// The group of that name, if it is there in any hierarchy.
    pub fn open(&self, name: &str) -> Result<Option<Group>, Error> {
        self.hierarchies().map_or(Ok(None), |h| Group::open(h, name))
    }

    /// Names of the groups in the node's tree.
    pub fn list(&self) -> Vec<String> {
        let Some(tracker) = self.hierarchies().and_then(|h| h.tracker.as_ref()) else {
            return Vec::new();
        };
        let entries = fs::read_dir(&tracker.dir).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// What jobs on this node are not held to, in an admin's words.
    pub fn what_cannot_be_enforced(&self) -> Vec<String> {
        let hierarchies = match self {
            Self::V2(h) | Self::V1(h) => h,
            Self::None(reason) => return vec![format!("control groups: {reason}")],
        };
        let parts = [
            ("cpuset: jobs may run on any CPU", &hierarchies.cpuset),
            ("memory: jobs may use any amount", &hierarchies.memory),
            ("pids: jobs may fork without bound", &hierarchies.pids),
            ("devices: jobs may open any GPU", &hierarchies.devices),
            ("cpuacct: CPU time is known after the end alone", &hierarchies.usage),
        ];
        parts.iter().filter(|(_, c)| c.is_none()).map(|(text, _)| (*text).to_owned()).collect()
    }

    /// Whether single devices can be withheld from a group.
    pub fn can_limit_devices(&self) -> bool {
        self.hierarchies().is_some_and(|h| h.devices.is_some())
    }

    /// Removes the node's tree where no group is left in it. Its ancestors stay: others may
    /// be making theirs in them at this moment.
    pub fn remove_tree(&self) {
        let Some(h) = self.hierarchies() else { return };
        for control in [&h.tracker, &h.cpuset, &h.memory, &h.pids, &h.devices, &h.usage] {
            // Refused while it holds groups; gone already where two share one directory.
            let _ = control.as_ref().map(|c| fs::remove_dir(&c.dir));
        }
    }

    fn hierarchies(&self) -> Option<&Hierarchies> {
        match self {
            Self::V2(h) | Self::V1(h) => Some(h),
            Self::None(_) => None,
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// The steps of a relative path that cannot leave the tree.
fn parts_of(parent: &str) -> Result<Vec<&str>, Error> {
    let refuse = || Error::Name(parent.to_owned());
    let mut parts = Vec::new();
    for part in Path::new(parent).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str().ok_or_else(refuse)?),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refuse()),
        }
    }
    if parts.is_empty() { Err(refuse()) } else { Ok(parts) }
}

/// Makes `parts` below `mount`; `each` prepares every group on the way from its parent.
fn tree(
    mount: &Path,
    parts: &[&str],
    mut each: impl FnMut(&Path, &Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let mut dir = mount.to_owned();
    for part in parts {
        let child = dir.join(part);
        files::make_dir(&child)?;
        each(&dir, &child)?;
        dir = child;
    }
    // What another user's agent has left there is no tree of ours.
    access(&dir, AccessFlags::W_OK).map_err(|e| Error::File {
        what: "write in",
        path: dir.clone(),
        source: e.into(),
    })?;
    Ok(dir)
}

/// The v1 hierarchies, and the empty v2 one beside them.
fn separate(root: &Path, parts: &[&str]) -> Result<Hierarchies, Error> {
    let find = |name: &str| -> Result<Option<Control>, Error> {
        let mount = root.join(name);
        if mounted(&mount) != Mounted::V1 {
            return Ok(None);
        }
        let dir = tree(&mount, parts, |_, child| match name {
            "cpuset" => cpuset::inherit(child),
            _ => Ok(()),
        })?;
        Ok(Some(Control { version: Version::V1, dir }))
    };
    let beside = match mounted(&root.join("unified")) {
        Mounted::V2 => {
            let dir = tree(&root.join("unified"), parts, |_, _| Ok(()))?;
            Some(Control { version: Version::V2, dir })
        }
        _ => None,
    };
    let tracker = match &beside {
        Some(unified) => Some(unified.clone()),
        None => find("freezer")?,
    };
    let found = Hierarchies {
        cpuset: find("cpuset")?,
        memory: find("memory")?,
        pids: find("pids")?,
        usage: find("cpuacct")?,
        devices: find("devices")?.or(beside),
        tracker,
    };
    if found.tracker.is_none() {
        let reason = format!("neither a freezer nor a cgroup2 mount under {}", root.display());
        return Err(Error::Mode { mode: "v1", reason });
    }
    Ok(found)
}

/// The unified hierarchy: what its ancestors hand down decides what there is.
fn unified(root: &Path, parts: &[&str]) -> Result<Hierarchies, Error> {
    if mounted(root) != Mounted::V2 {
        let reason = format!("{} is no cgroup2 mount", root.display());
        return Err(Error::Mode { mode: "v2", reason });
    }
    let hand_down = |dir: &Path| {
        for controller in ["cpuset", "memory", "pids"] {
            // Refused where an ancestor of ours has processes or is not ours to change; what is
            // handed down all the same is read back below.
            let _ = files::write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
    };
    let dir = tree(root, parts, |parent, _| {
        hand_down(parent);
        Ok(())
    })?;
    hand_down(&dir);
    let given = files::read(&dir.join("cgroup.subtree_control"))?;
    let control = || Control { version: Version::V2, dir: dir.clone() };
    let find = |name: &str| given.split_whitespace().any(|g| g == name).then(control);
    Ok(Hierarchies {
        cpuset: find("cpuset"),
        memory: find("memory"),
        pids: find("pids"),
        devices: Some(control()),
        usage: Some(control()),
        tracker: Some(control()),
    })
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "v2" => Ok(Self::V2),
            "v1" => Ok(Self::V1),
            "none" => Ok(Self::None),
            _ => Err(format!("{text:?} is none of auto, v2, v1, none")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::V2 => "v2",
            Self::V1 => "v1",
            Self::None => "none",
        })
    }
}
