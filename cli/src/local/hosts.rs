//! Names of nodes that resolve. Launchers meet at the first node's name, and on a site every node has
//! one; nodes of a cluster on one machine are names of agents. So that scripts run here as they run
//! there, agents and what they start see an `/etc/hosts` with these names at this machine's own
//! address, in a mount namespace of their own. The machine's file stays as it is.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use muster_config::Config;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::layout::{Layout, write_whole};

const HOSTS: &str = "/etc/hosts";

/// The file for the agents; none where the machine's own knows the nodes, or has no such file, or
/// where only root could lay another over it.
pub(super) fn prepare(layout: &Layout, config: &Config) -> anyhow::Result<Option<Hosts>> {
    let Ok(own) = fs::read_to_string(HOSTS) else { return Ok(None) };
    let names: Vec<String> = config.nodes.iter().map(|node| node.name.to_string()).collect();
    let Some(text) = with_names(&own, &names).filter(|_| nix::unistd::geteuid().is_root()) else {
        return Ok(None);
    };
    let path = layout.dir().join("run/hosts");
    write_whole(&path, text.as_bytes())?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .with_context(|| format!("let everybody read {}", path.display()))?;
    Ok(Some(Hosts::of(&path)?))
}

/// The machine's file with the names that it lacks; `None`: it has them all.
fn with_names(own: &str, names: &[String]) -> Option<String> {
    let known = |name: &&String| {
        let words = |line: &str| line.split('#').next().unwrap_or_default().to_owned();
        own.lines().any(|line| words(line).split_whitespace().skip(1).any(|word| word == *name))
    };
    let lacking: Vec<&str> = names.iter().filter(|n| !known(n)).map(String::as_str).collect();
    (!lacking.is_empty()).then(|| format!("127.0.0.1 {}\n{own}", lacking.join(" ")))
}

/// A hosts file to be laid over the machine's.
#[derive(Debug, Clone)]
pub(super) struct Hosts(CString);

impl Hosts {
    fn of(path: &Path) -> anyhow::Result<Hosts> {
        CString::new(path.as_os_str().as_bytes()).map(Hosts).context("a path with a NUL")
    }

    /// For this process and what it starts. Between fork and exec: nothing is allocated. Where the
    /// kernel does not let us (a container), names stay as they are.
    pub(super) fn lay(&self) {
        const NONE: Option<&str> = None;
        // What is mounted on the machine later is to be seen here, and not the other way round: a
        // file that is laid without that would be laid over the machine's own.
        let apart = || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
            mount(Some(self.0.as_c_str()), HOSTS, NONE, MsFlags::MS_BIND, NONE)
        };
        let _ = apart();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_machine_does_not_know_are_added() {
        let names = ["n1".to_owned(), "n2".to_owned()];
        let own = "127.0.0.1 localhost\n10.0.0.9 n1 other # n2\n";
        assert_eq!(with_names(own, &names).unwrap(), format!("127.0.0.1 n2\n{own}"));
        assert_eq!(with_names("::1 n2 n1\n", &names), None);
    }
}
