//! The processes of the slice as one thing: by their control group, or, without any, by descent:
//! the shim is the subreaper, so whatever daemonises stays its descendant.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use muster_cgroup::{Error, Group};
use nix::unistd::Pid;

use crate::adopt::{Stat, all_stats, pid_of};

/// Rounds of stopping by descent: each finds what the one before had still forked.
const STOP_ROUNDS: u32 = 16;
/// How long a freeze may take to be complete before the answer says otherwise.
const FREEZE_WAIT: Duration = Duration::from_secs(1);

/// Who belongs to the slice.
#[derive(Debug)]
pub(crate) enum Containment {
    /// The members of a control group.
    Group(Box<Group>),
    /// The descendants of this process.
    Descent,
}

impl Containment {
    pub(crate) fn new(group: Option<Group>) -> Self {
        group.map_or(Self::Descent, |group| Self::Group(Box::new(group)))
    }

    pub(crate) fn group(&self) -> Option<&Group> {
        match self {
            Self::Group(group) => Some(group),
            Self::Descent => None,
        }
    }

    /// The living processes; zombies have ended.
    pub(crate) fn procs(&self) -> Result<Vec<Pid>, Error> {
        match self {
            Self::Group(group) => group.procs(),
            Self::Descent => Ok(descendants(std::process::id())),
        }
    }

    pub(crate) fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.procs()?.is_empty())
    }

    /// Sends a signal to all but those excepted.
    pub(crate) fn signal(&self, signal: i32, except: &[Pid]) -> Result<(), Error> {
        for pid in self.procs()?.into_iter().filter(|pid| !except.contains(pid)) {
            send(pid, signal);
        }
        Ok(())
    }

    /// Kills all; does not wait.
    pub(crate) fn kill_all(&self) -> Result<(), Error> {
        match self {
            Self::Group(group) => group.kill_all(),
            Self::Descent => {
                // Standing still first: a fork bomb would outrun the list otherwise.
                stop_all();
                self.signal(libc::SIGKILL, &[])
            }
        }
    }

    /// Stops all where they stand.
    pub(crate) fn freeze(&self) -> Result<(), Error> {
        match self {
            Self::Group(group) => {
                group.freeze()?;
                let until = std::time::Instant::now() + FREEZE_WAIT;
                while !group.is_frozen()? && std::time::Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
            Self::Descent => {
                stop_all();
                Ok(())
            }
        }
    }

    /// Lets all go on.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        match self {
            Self::Group(group) => group.thaw(),
            Self::Descent => self.signal(libc::SIGCONT, &[]),
        }
    }
}

/// Sends a signal by its number, for which there may be no name. A process that has just ended
/// needs none, and a number that is no signal's is the asker's to have checked.
pub(crate) fn send(pid: Pid, signal: i32) {
    // SAFETY: kill(2) takes any numbers.
    unsafe { libc::kill(pid.as_raw(), signal) };
}

/// Whether a process runs this very program: a command of ours in the job, which passes signals on
/// by itself.
pub(crate) fn is_ours(pid: Pid) -> bool {
    let program = |of: &str| std::fs::metadata(format!("/proc/{of}/exe")).ok();
    match (program(&pid.to_string()), program("self")) {
        (Some(its), Some(mine)) => (its.dev(), its.ino()) == (mine.dev(), mine.ino()),
        _ => false,
    }
}

/// The programs inside containers, by the processes around them. Those pass no signal on, and would die
/// of one that is meant for the program.
pub(crate) fn inside(around: &[Pid]) -> BTreeMap<Pid, Pid> {
    if around.is_empty() {
        return BTreeMap::new();
    }
    let pair = |stat: Stat| (pid_of(stat.parent), pid_of(stat.pid));
    all_stats().map(pair).filter(|(parent, _)| around.contains(parent)).collect()
}

/// A process and what it has started.
pub(crate) fn family(of: Pid) -> Vec<Pid> {
    let mut all = descendants(of.as_raw().cast_unsigned());
    all.push(of);
    all
}

/// SIGSTOP to every descendant until a round finds no new one.
fn stop_all() {
    let mut stopped = BTreeSet::new();
    for _ in 0..STOP_ROUNDS {
        let before = stopped.len();
        for pid in descendants(std::process::id()) {
            send(pid, libc::SIGSTOP);
            stopped.insert(pid);
        }
        if stopped.len() == before {
            return;
        }
    }
}

/// The living descendants of a process.
fn descendants(of: u32) -> Vec<Pid> {
    let mut children: BTreeMap<u32, Vec<(u32, bool)>> = BTreeMap::new();
    for stat in all_stats() {
        children.entry(stat.parent).or_default().push((stat.pid, stat.state != 'Z'));
    }
    let (mut found, mut open) = (Vec::new(), vec![of]);
    while let Some(parent) = open.pop() {
        for (pid, alive) in children.remove(&parent).unwrap_or_default() {
            open.push(pid);
            if alive {
                found.push(pid_of(pid));
            }
        }
    }
    found
}
