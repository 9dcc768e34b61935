//! What a slice has used. Its group may have served others before, so what that had counted by then
//! is taken off; of processes that the shim waits for, each is counted as it ends. Once there are
//! steps beside the batch process, that one counts in a group of its own.

use std::time::Duration;

use muster_cgroup::Group;
use muster_proto::v1::Usage;
use nix::errno::Errno;

use crate::adopt::Stat;
use crate::contain::Containment;

/// A group's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) oom_kills: u64,
}

impl Counted {
    /// As they are now; nothing where nothing counts.
    pub(crate) fn of(group: &Group) -> Self {
        let (user, system) = group.cpu_time().ok().flatten().unwrap_or_default();
        Self { user, system, oom_kills: group.oom_kills().unwrap_or(0) }
    }
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
    /// The group that counts alone, and what the whole had counted before.
    apart: Option<(Group, Counted)>,
}

impl Meter {
    /// With what the group had counted before the slice.
    pub(crate) fn new(before: Counted) -> Self {
        Self { before, ended: Default::default(), max_rss_kib: 0, resident_peak: 0, apart: None }
    }

    /// From here on `part` counts alone: the processes that were there are in it.
    pub(crate) fn count_apart(&mut self, until_now: Counted, part: Group) {
        self.apart = Some((part, until_now));
    }

    /// The group that counts alone.
    pub(crate) fn part(&self) -> Option<&Group> {
        self.apart.as_ref().map(|(part, _)| part)
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
        let earlier = self.earlier();
        if let Some(group) = self.part().or(containment.group())
            && let Ok(Some(counted)) = group.usage()
        {
            cpu = self.since(counted.user + earlier.user, counted.system + earlier.system);
            self.resident_peak = self.resident_peak.max(counted.resident_bytes);
        }
        self.usage(cpu)
    }

    fn earlier(&self) -> Counted {
        self.apart.as_ref().map(|(_, counted)| *counted).unwrap_or_default()
    }

    /// The most memory at once that was seen, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.max_rss_kib.max(self.resident_peak / 1024)
    }

    /// The same at the end, when no process is left whose memory could be looked at, and the
    /// group's counters for whoever comes next.
    pub(crate) fn end(&mut self, containment: &Containment) -> (Usage, Counted) {
        let Some(group) = self.part().or(containment.group()) else {
            return (self.usage(self.ended), Counted::default());
        };
        let earlier = self.earlier();
        let now = Counted::of(group);
        let oom_kills = now.oom_kills + earlier.oom_kills;
        // The kernel takes a victim's memory before the victim can tell how much it was.
        let killed = oom_kills > self.before.oom_kills;
        let peak = killed.then(|| group.peak_bytes()).flatten();
        let counts =
            (now.user, now.system) != Default::default() || matches!(group.cpu_time(), Ok(Some(_)));
        self.resident_peak = self.resident_peak.max(peak.unwrap_or(0));
        if !counts {
            return (self.usage(self.ended), Counted { oom_kills, ..Counted::default() });
        }
        let (user, system) = (now.user + earlier.user, now.system + earlier.system);
        (self.usage(self.since(user, system)), Counted { user, system, oom_kills })
    }

    fn since(&self, user: Duration, system: Duration) -> (Duration, Duration) {
        (user.saturating_sub(self.before.user), system.saturating_sub(self.before.system))
    }

    fn usage(&self, (user, system): (Duration, Duration)) -> Usage {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Usage {
            user_cpu_ms: ms(user),
            system_cpu_ms: ms(system),
            max_rss_kib: self.peak_kib(),
            gpu: None,
        }
    }
}

/// What one process, and those it waited for, have used.
pub(crate) fn of_process(used: &libc::rusage) -> Usage {
    let ms = |time| u64::try_from(duration(time).as_millis()).unwrap_or(u64::MAX);
    Usage {
        user_cpu_ms: ms(used.ru_utime),
        system_cpu_ms: ms(used.ru_stime),
        max_rss_kib: used.ru_maxrss.cast_unsigned(),
        gpu: None,
    }
}

/// CPU time in milliseconds and memory in KiB of a process that runs.
pub(crate) fn of_stat(stat: &Stat) -> (u64, u64) {
    // SAFETY: sysconf(3) takes any number.
    let ask = |name| unsafe { libc::sysconf(name) };
    let known =
        |name, otherwise| u64::try_from(ask(name)).ok().filter(|n| *n > 0).unwrap_or(otherwise);
    let (hertz, page) = (known(libc::_SC_CLK_TCK, 100), known(libc::_SC_PAGESIZE, 4096));
    (stat.cpu_ticks * 1000 / hertz, stat.resident_pages * page / 1024)
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
