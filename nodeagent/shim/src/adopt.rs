//! What an agent that has just started finds of a slice: its end, its shim, or traces.
//!
//! A pid alone proves nothing, since pids are used again: with its start time and the boot id it
//! is unmistakable.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use muster_cgroup::Cgroups;
use muster_proto::shim::v1::{ExitRecord, ShimRecord};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::ShimClient;
use crate::spool::{SliceDir, SpoolError};

/// How long a shim that has claimed its slice and does not listen yet is given: it is some
/// milliseconds away from either.
const SOCKET_WAIT: Duration = Duration::from_secs(2);
const SOCKET_PAUSE: Duration = Duration::from_millis(5);
/// How long killed leftovers are waited for in one look.
const SWEEP_WAIT: Duration = Duration::from_secs(2);

/// What became of a slice.
#[derive(Debug)]
pub enum Adopted {
    /// It has ended, and how.
    Exited(ExitRecord),
    /// Its shim answers.
    Alive(ShimClient),
    /// No shim has claimed it. To launch it again is safe: should an earlier shim still come, one
    /// of the two will find the claim taken and leave.
    NotStarted,
    /// Its shim is gone without an exit record, and why we think so. Its processes may be left:
    /// [`sweep`] kills them.
    Gone(String),
}

/// Looks what became of the slice.
pub fn adopt(dir: &SliceDir) -> Result<Adopted, SpoolError> {
    let until = Instant::now() + SOCKET_WAIT;
    loop {
        if let Some(exit) = dir.read_exit()? {
            return Ok(Adopted::Exited(exit));
        }
        let Some(record) = dir.read_record()? else { return Ok(Adopted::NotStarted) };
        if let Ok(mut client) = ShimClient::connect(dir)
            && client.status().is_ok()
        {
            return Ok(Adopted::Alive(client));
        }
        if !is_alive(&record) {
            // It may have written its end between our two looks.
            return Ok(match dir.read_exit()? {
                Some(exit) => Adopted::Exited(exit),
                None => Adopted::Gone(why_gone(&record)),
            });
        }
        if Instant::now() >= until {
            return Ok(Adopted::Gone(format!("its shim, process {}, is mute", record.pid)));
        }
        sleep(SOCKET_PAUSE);
    }
}

fn why_gone(record: &ShimRecord) -> String {
    match boot_id() {
        _ if record.pid == 0 => "it was given up before it started".to_owned(),
        Ok(now) if now == record.boot_id => {
            format!("its shim, process {}, ended without an exit record", record.pid)
        }
        _ => "the node has been restarted".to_owned(),
    }
}

/// Whether the shim of the record still runs: the process, not another with its number.
pub fn is_alive(record: &ShimRecord) -> bool {
    record.pid != 0
        && boot_id().is_ok_and(|id| id == record.boot_id)
        && stat(record.pid).is_some_and(|s| s.start_ticks == record.start_ticks && s.state != 'Z')
}

/// Kills what a lost shim left behind and removes its group; says how many processes are still
/// there. The shim itself is killed too, should it only be mute.
pub fn sweep(dir: &SliceDir, cgroups: &Cgroups) -> Result<usize, SweepError> {
    let Some(record) = dir.read_record()? else { return Ok(0) };
    if record.shared && dir.read_exit()?.is_some_and(|exit| exit.unkillable == 0) {
        // Its shim and its group are another slice's now.
        return Ok(0);
    }
    if is_alive(&record) {
        let _ = kill(pid_of(record.pid), Signal::SIGKILL);
    }
    let same_boot = boot_id().is_ok_and(|id| id == record.boot_id);
    if !record.cgroup.is_empty()
        && let Some(group) = cgroups.open(&record.cgroup)?
    {
        group.kill_all()?;
        if !group.wait_empty(SWEEP_WAIT)? {
            return Ok(group.procs()?.len());
        }
        group.remove()?;
    } else if record.session != 0 && same_boot {
        return Ok(sweep_session(record.session, record.start_ticks));
    }
    Ok(0)
}

/// Leftovers could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Its record.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Its group.
    #[error(transparent)]
    Cgroup(#[from] muster_cgroup::Error),
}

/// Kills the processes of a session that began after the shim.
fn sweep_session(session: u32, shim_ticks: u64) -> usize {
    let until = Instant::now() + SWEEP_WAIT;
    loop {
        let left: Vec<u32> = all_stats()
            .filter(|s| s.session == session && s.start_ticks >= shim_ticks && s.state != 'Z')
            .map(|s| s.pid)
            .collect();
        if left.is_empty() || Instant::now() >= until {
            return left.len();
        }
        for pid in left {
            let _ = kill(pid_of(pid), Signal::SIGKILL);
        }
        sleep(SOCKET_PAUSE);
    }
}

/// A process id of a record as the kernel takes it.
pub(crate) fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

/// Some fields of /proc/<pid>/stat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) pid: u32,
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) session: u32,
    /// Clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// Clock ticks of CPU time, with those of children that were waited for.
    pub(crate) cpu_ticks: u64,
    /// Pages of memory.
    pub(crate) resident_pages: u64,
}

/// The process's stat; none when it is gone.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state ppid pgrp session ... starttime(22)`: the name may hold anything, so the
/// fields are counted from its last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let (pid, rest) = text.split_once(" (")?;
    let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        pid: pid.parse().ok()?,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        cpu_ticks: fields.get(11..15)?.iter().filter_map(|f| f.parse::<u64>().ok()).sum(),
        resident_pages: fields.get(21).and_then(|f| f.parse().ok()).unwrap_or(0),
    })
}

/// Every process there is.
pub(crate) fn all_stats() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?))
}

/// The id of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 8 9 0 -1 0 0 0 0 0 1 2 0 3 20 0 1 0 12345 0 77";
        let stat = parse_stat(line).expect("a stat line");
        assert_eq!((stat.pid, stat.state, stat.parent), (42, 'S', 7));
        assert_eq!((stat.session, stat.start_ticks), (9, 12345));
        assert_eq!((stat.cpu_ticks, stat.resident_pages), (6, 77));
    }

    #[test]
    fn a_pid_with_another_start_time_or_boot_is_another_process() {
        let me = std::process::id();
        let ticks = stat(me).expect("own stat").start_ticks;
        let boot_id = boot_id().expect("a boot id");
        let record = ShimRecord { pid: me, start_ticks: ticks, boot_id, ..Default::default() };
        assert!(is_alive(&record));
        assert!(!is_alive(&ShimRecord { start_ticks: ticks + 1, ..record.clone() }));
        assert!(!is_alive(&ShimRecord { boot_id: "another".into(), ..record }));
        assert!(!is_alive(&ShimRecord::default()));
    }
}
