//! Where the control groups of jobs stand: outside the agent's own unit, or its restart would
//! meet them (systemd answers 219/CGROUP) and its stop would end them.
//!
//! Under systemd with control groups v2 that is a scope of their own, `muster-jobs.scope`, with
//! `Delegate=yes`, so that systemd leaves it alone, and with a keeper process in a leaf, since a
//! scope ends with its last process. Elsewhere the agent makes the same tree itself.
//!
//! Several agents, and several clusters with nodes of one name, may share a host: each has a group
//! in it that is named after the node and its spool, of which there is one per agent.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The scope's unit.
const SCOPE: &str = "muster-jobs.scope";
/// How long systemd may take to make the scope.
const SCOPE_WAIT: Duration = Duration::from_secs(10);
/// How long a scope that is there may take to have its keeper.
const KEEPER_WAIT: Duration = Duration::from_secs(1);
const SCOPE_PAUSE: Duration = Duration::from_millis(20);
/// What the keeper does: it leaves the scope's own group, which must hold no process for
/// controllers to be handed down, and sleeps.
const KEEPER: &str = "dir=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup) && \
    mkdir -p $dir/keeper && echo $$ > $dir/keeper/cgroup.procs && exec sleep infinity";

/// The node's tree, relative to the root of the control groups.
#[must_use]
pub fn parent(cgroup_root: &Path, node: &str, spool: &Path, root: bool) -> String {
    let group = format!("{node}-{:08x}", fingerprint(spool.as_os_str().as_bytes()));
    let unified = cgroup_root.join("cgroup.controllers").exists();
    if root && unified && Path::new("/run/systemd/system").is_dir() {
        match scope() {
            Ok(path) => return format!("{}/{group}", path.trim_matches('/')),
            Err(fault) => {
                tracing::warn!("{SCOPE}: {fault}; jobs live in a tree that systemd does not know");
            }
        }
    }
    format!("muster/{group}")
}

/// FNV-1a: the same in every version of the agent, so that a newer one finds the groups of jobs.
fn fingerprint(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Removes the node's tree from every hierarchy, as far as no job is in it.
pub fn prune(cgroup_root: &Path, parent: &str) {
    let mounts = std::fs::read_dir(cgroup_root).into_iter().flatten().flatten();
    for mount in mounts.map(|entry| entry.path()).chain([cgroup_root.to_owned()]) {
        let tree = mount.join(parent);
        // A group that is in use, or not there, answers so and stays.
        let _ = std::fs::remove_dir(tree.join(muster_shim::SHIMS_GROUP));
        let _ = std::fs::remove_dir(tree);
    }
}

/// The control group of the scope, which is made where it is not there.
fn scope() -> Result<String, String> {
    if let Some(path) = control_group() {
        // Another agent may have made it a moment ago. A scope whose keeper was killed is as good
        // while jobs are in it.
        let until = Instant::now() + KEEPER_WAIT;
        while !has_keeper(&path) && Instant::now() < until {
            std::thread::sleep(SCOPE_PAUSE);
        }
        return Ok(path);
    }
    // Another agent of this host may be making it: whose is first does not matter.
    let mut keeper = Command::new("systemd-run")
        .args(["--scope", "--quiet", "--collect", "--unit", SCOPE])
        .args(["--slice", "system.slice", "-p", "Delegate=yes", "-p", "TasksMax=infinity"])
        .args(["--", "/bin/sh", "-c", KEEPER])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|fault| format!("systemd-run: {fault}"))?;
    let until = Instant::now() + SCOPE_WAIT;
    loop {
        if let Some(path) = control_group().filter(|path| has_keeper(path)) {
            return Ok(path);
        }
        if Instant::now() >= until {
            let ended = keeper.try_wait().ok().flatten();
            let ended =
                ended.map_or_else(String::new, |status| format!(" (systemd-run: {status})"));
            return Err(format!("not there after {} s{ended}", SCOPE_WAIT.as_secs()));
        }
        std::thread::sleep(SCOPE_PAUSE);
    }
}

fn has_keeper(path: &str) -> bool {
    let procs =
        Path::new("/sys/fs/cgroup").join(path.trim_matches('/')).join("keeper/cgroup.procs");
    std::fs::read_to_string(procs).is_ok_and(|pids| !pids.trim().is_empty())
}

/// What systemd says of the scope; `None`: there is none.
fn control_group() -> Option<String> {
    let out = Command::new("systemctl")
        .args(["show", "--value", "--property", "ControlGroup", SCOPE])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let path = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_systemd_the_tree_is_the_agents_own_and_names_the_node() {
        let root = tempfile::tempdir().unwrap();
        let tree = |node, spool: &str| parent(root.path(), node, Path::new(spool), true);
        assert_eq!(tree("n1", "/var/spool/muster/n1"), "muster/n1-6c73dfca");
        assert_ne!(tree("n1", "/a/n1"), tree("n1", "/b/n1"), "two clusters on one host");
    }

    #[test]
    fn only_an_empty_tree_is_pruned() {
        let root = tempfile::tempdir().unwrap();
        for path in ["pids/muster/n1/shims", "memory/muster/n1/7.1"] {
            std::fs::create_dir_all(root.path().join(path)).unwrap();
        }
        prune(root.path(), "muster/n1");
        assert!(!root.path().join("pids/muster/n1").exists());
        assert!(root.path().join("memory/muster/n1/7.1").exists());
    }
}
