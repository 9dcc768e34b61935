//! cpuset: which CPUs and NUMA nodes a group may use. The files have the same names and formats in
//! both versions; v1 starts a group empty and refuses members until both are set.

use std::path::Path;

use crate::{Error, files};

/// Sets CPUs and memory nodes; what is not given is taken from the parent, as v1 requires.
pub(crate) fn limit(dir: &Path, cpus: Option<&str>, mems: Option<&str>) -> Result<(), Error> {
    set(dir, "cpuset.mems", mems)?;
    set(dir, "cpuset.cpus", cpus)
}

/// Fills an intermediate v1 group from its parent; one that is filled stays as it is.
pub(crate) fn inherit(dir: &Path) -> Result<(), Error> {
    for name in ["cpuset.mems", "cpuset.cpus"] {
        if files::read(&dir.join(name))?.trim().is_empty() {
            set(dir, name, None)?;
        }
    }
    Ok(())
}

fn set(dir: &Path, name: &str, value: Option<&str>) -> Result<(), Error> {
    match value {
        Some(value) => files::write(&dir.join(name), value),
        None => {
            let parent = dir.parent().expect("a group has a parent directory");
            // In v2 the parent's own file may be empty, which means all: so it is here.
            let value = files::read(&parent.join(name))?;
            match value.trim() {
                "" => Ok(()),
                value => files::write(&dir.join(name), value),
            }
        }
    }
}
