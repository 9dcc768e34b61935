//! What a slice has used. Its group may have served others before, so what that had counted by then
//! is taken off; of processes that the shim waits for, each is counted as it ends.

use std::time::Duration;

use muster_proto::v1::Usage;
use nix::errno::Errno;

use crate::contain::Containment;

/// A group's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) oom_kills: u64,
}

/// Counts for one slice.
#[derive(Debug)]
pub(crate) struct Meter {
    before: Counted,
    /// Of ended children and theirs.
    ended: (Duration, Duration),
    max_rss_kib: u64,
    /// Bytes, the most seen when somebody asked.
    resident_peak: u64,
}

impl Meter {
    /// With what the group had counted before the slice.
    pub(crate) fn new(before: Counted) -> Self {
        Self { before, ended: Default::default(), max_rss_kib: 0, resident_peak: 0 }
    }

    pub(crate) fn oom_kills_before(&self) -> u64 {
        self.before.oom_kills
    }

    /// Adds a process that has ended.
    pub(crate) fn add(&mut self, used: &libc::rusage) {
        self.ended.0 += duration(used.ru_utime);
        self.ended.1 += duration(used.ru_stime);
        self.max_rss_kib = self.max_rss_kib.max(used.ru_maxrss.cast_unsigned());
    }

    /// CPU time by the group where it counts, else of the children that have ended. The peak of
    /// memory is the larger of the group's, as far as anybody looked, and the largest process's.
    pub(crate) fn now(&mut self, containment: &Containment) -> Usage {
        let mut cpu = self.ended;
        if let Containment::Group(group) = containment
            && let Ok(Some(counted)) = group.usage()
        {
            cpu = self.since(counted.user, counted.system);
            self.resident_peak = self.resident_peak.max(counted.resident_bytes);
        }
        self.usage(cpu)
    }

    /// The same at the end, when no process is left whose memory could be looked at, and the
    /// group's counters for whoever comes next.
    pub(crate) fn end(&mut self, containment: &Containment) -> (Usage, Counted) {
        let Containment::Group(group) = containment else {
            return (self.usage(self.ended), Counted::default());
        };
        let oom_kills = group.oom_kills().unwrap_or(0);
        match group.cpu_time() {
            Ok(Some((user, system))) => {
                (self.usage(self.since(user, system)), Counted { user, system, oom_kills })
            }
            _ => (self.usage(self.ended), Counted { oom_kills, ..Counted::default() }),
        }
    }

    fn since(&self, user: Duration, system: Duration) -> (Duration, Duration) {
        (user.saturating_sub(self.before.user), system.saturating_sub(self.before.system))
    }

    fn usage(&self, (user, system): (Duration, Duration)) -> Usage {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Usage {
            user_cpu_ms: ms(user),
            system_cpu_ms: ms(system),
            max_rss_kib: self.max_rss_kib.max(self.resident_peak / 1024),
            gpu: None,
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// Collects an ended child: its number, its raw status, what it and its own children have used.
/// `None`: none has ended.
pub(crate) fn wait() -> Option<(libc::pid_t, libc::c_int, libc::rusage)> {
    loop {
        let mut raw = 0;
        // SAFETY: plain numbers, for which all zero is a value.
        let mut used: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both are live. nix's own call loses an end by a signal it has no name for.
        match unsafe { libc::wait4(-1, &mut raw, libc::WNOHANG, &mut used) } {
            0 => return None,
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return None,
            pid => return Some((pid, raw, used)),
        }
    }
}
