//! Groups inside a slice's: its first processes in one of their own, and one for each part that joins
//! later. v2 lets a group limit others only while it has no members, so the first processes must move
//! out of it before there can be a second part; v1 does not mind, but counts them apart only so.

use std::path::PathBuf;

use crate::detect::{Control, Hierarchies};
use crate::group::{Group, check_name, everywhere};
use crate::kept::Kept;
use crate::{Error, Limits, files};

/// Rounds of moving: each finds what the one before had still forked.
const MOVE_ROUNDS: u32 = 64;
/// From this one on the group stands still meanwhile: what forks faster than it is moved.
const FROZEN_ROUND: u32 = 8;
const CONTROLLERS: [&str; 3] = ["cpuset", "memory", "pids"];
/// By which controllers reach the groups inside.
const HANDED_DOWN: &str = "cgroup.subtree_control";

impl Group {
    pub(crate) fn create_inside(
        all: &Hierarchies,
        outer: &Group,
        name: &str,
        limits: &Limits,
    ) -> Result<Group, Error> {
        let group = Self::inside(all, outer, name, limits)?;
        match group.make(all, limits) {
            Ok(()) => Ok(group),
            Err(e) => {
                // What was made before the failure; the failure is the news.
                let _ = group.remove();
                Err(e)
            }
        }
    }

    /// The group of that name inside another, as found on disk.
    pub(crate) fn open_inside(
        all: &Hierarchies,
        outer: &Group,
        name: &str,
    ) -> Result<Option<Group>, Error> {
        Ok(Self::inside(all, outer, name, &everywhere())?.if_there())
    }

    /// The paths of a group inside another. It counts whatever is counted there, and is held to what
    /// it is limited in.
    fn inside(
        all: &Hierarchies,
        outer: &Group,
        name: &str,
        limits: &Limits,
    ) -> Result<Group, Error> {
        check_name(name)?;
        let unified = all.is_unified();
        // In v2 the one directory is there in any case; in v1 only where the outer group has one.
        let dir = |there: &Option<Control>, of: Option<&PathBuf>, wanted: bool| {
            let outer = if unified { there.as_ref().map(|_| &outer.tracker.dir) } else { of };
            outer.filter(|_| wanted).map(|dir| dir.join(name))
        };
        let control = |there: &Option<Control>, of: &Option<Control>| {
            let dir = dir(there, of.as_ref().map(|c| &c.dir), true)?;
            Some(Control { version: there.as_ref()?.version, dir })
        };
        let cpus = limits.cpus.is_some() || limits.mems.is_some();
        let mut group = Group {
            name: format!("{}/{name}", outer.name),
            cpuset: dir(&all.cpuset, outer.cpuset.as_ref(), cpus),
            memory: control(&all.memory, &outer.memory),
            pids: dir(&all.pids, outer.pids.as_ref(), limits.pids_max.is_some()),
            devices: dir(&all.devices, outer.devices.as_ref(), limits.devices.is_some()),
            usage: control(&all.usage, &outer.usage),
            tracker: Control { version: outer.tracker.version, dir: outer.tracker.dir.join(name) },
            outer: Vec::new(),
            kept: Kept::default(),
        };
        let own: Vec<PathBuf> = group.dirs().filter_map(|d| Some(d.parent()?.to_owned())).collect();
        let others = outer.dirs().filter(|dir| !own.iter().any(|own| own == dir));
        group.outer = others.map(ToOwned::to_owned).collect();
        Ok(group)
    }

    /// Whether groups can be made inside, and the processes that were here first are in `inner`.
    pub(crate) fn has_room(&self, all: &Hierarchies, inner: Option<&str>) -> bool {
        let moved = inner.is_none_or(|inner| self.tracker.dir.join(inner).is_dir());
        moved && (!all.is_unified() || self.hands_down())
    }

    fn hands_down(&self) -> bool {
        let path = self.tracker.dir.join(HANDED_DOWN);
        files::read(&path).is_ok_and(|given| !given.trim().is_empty())
    }

    /// Moves the processes into a group inside by the name of `inner`, and sees to it that more can
    /// be made beside it. `None`: there are no processes to be moved.
    pub(crate) fn make_room(
        &self,
        all: &Hierarchies,
        inner: Option<&str>,
    ) -> Result<Option<Group>, Error> {
        let first = match inner {
            Some(inner) => {
                let first = Self::create_inside(all, self, inner, &Limits::default())?;
                self.move_into(&first)?;
                Some(first)
            }
            None => None,
        };
        if all.is_unified() {
            let path = self.tracker.dir.join("cgroup.controllers");
            let given = files::read(&path)?;
            for controller in
                CONTROLLERS.iter().filter(|c| given.split_whitespace().any(|g| g == **c))
            {
                files::write(&self.tracker.dir.join(HANDED_DOWN), &format!("+{controller}"))?;
            }
        }
        Ok(first)
    }

    fn move_into(&self, inner: &Group) -> Result<(), Error> {
        let mut frozen = false;
        let mut done = Ok(());
        for round in 0..MOVE_ROUNDS {
            let members = self.members()?;
            if members.is_empty() {
                break;
            }
            if round == FROZEN_ROUND && !self.is_frozen()? {
                frozen = true;
                self.freeze()?;
            }
            for pid in members {
                match inner.join(pid) {
                    // It has ended.
                    Err(Error::File { ref source, .. })
                        if source.raw_os_error() == Some(libc::ESRCH) => {}
                    joined => done = joined,
                }
            }
            if done.is_err() {
                break;
            }
        }
        if frozen {
            self.thaw()?;
        }
        done
    }
}
