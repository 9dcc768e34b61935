//! What becoming a process of the user's takes, as a list of system calls (see `spawn`), in the same
//! order as the long way by fork does it. Where a look at the machine is needed first, or something
//! could be amiss that wants words, there is no quick way: `None`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use muster_proto::v1::{Rlimit, User};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;

use crate::identity::Groups;
use crate::launcher::retry;
use crate::rlimits;
use crate::slice::{Host, OOM_SCORE};
use crate::spawn::{Calls, DIGITS, Then};

/// How long a program is waited for to be there where that matters: a file system may be slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// This process's standing with the out-of-memory killer, laid down: jobs must not have it, and the
/// kernel gives all processes of one memory the same. It may be taken up when none shares ours any more.
#[derive(Debug)]
#[must_use]
pub(crate) struct Standing(String);

impl Standing {
    /// `None`: there is none, or it cannot be changed, and so not taken up again.
    pub(crate) fn lay_down(host: &Host) -> Option<Self> {
        let score = host.oom_score.clone()?;
        std::fs::write(OOM_SCORE, "0").ok().map(|()| Self(score))
    }

    pub(crate) fn take_up(self) {
        if let Err(e) = std::fs::write(OOM_SCORE, &self.0) {
            eprintln!("muster shim: write {OOM_SCORE}: {e}");
        }
    }
}

/// Whether nobody is left at the other end of `news` within `wait`: the program is there, or there
/// will be none.
pub(crate) fn is_over(news: &OwnedFd, wait: Duration) -> bool {
    // A hang-up is told without being asked for.
    let mut fds = [PollFd::new(news.as_fd(), PollFlags::empty())];
    // Up, so that a last part of a millisecond is not spun through.
    let wait = PollTimeout::try_from(wait + Duration::from_millis(1)).expect("some seconds fit");
    retry(|| poll(&mut fds, wait)).is_ok_and(|n| n > 0)
}

/// Whose process it is to be, and where.
pub(crate) struct Way<'a> {
    /// Of the group that it joins; open until it is there.
    pub(crate) doors: &'a [OwnedFd],
    pub(crate) rlimits: &'a [Rlimit],
    pub(crate) umask: u32,
    /// The CPUs it is bound to, as the kernel's mask.
    pub(crate) cpus: Option<&'a [u64]>,
    pub(crate) user: &'a User,
    pub(crate) groups: Option<&'a Groups>,
    pub(crate) workdir: &'a str,
}

/// The variable whose value only the process itself knows.
pub(crate) const TASK_PID: &str = "SLURM_TASK_PID";
const LAST_SIGNAL: usize = 64;
const MASK_BYTES: usize = 8;
/// Relative paths are looked up from the working directory.
const HERE: usize = libc::AT_FDCWD as isize as usize;

impl Way<'_> {
    /// From the clone to the working directory.
    pub(crate) fn calls(&self) -> Option<Calls> {
        let mut calls = Calls::default();
        calls.call(libc::SYS_setsid, &[], Then::Good);
        for door in self.doors {
            let (zero, door) = (calls.text("0")?, door.as_raw_fd().cast_unsigned() as usize);
            calls.call(libc::SYS_pwrite64, &[door, zero, 1, 0], Then::Good);
        }
        for (resource, soft, hard) in rlimits::wanted(self.rlimits)? {
            let limit = calls.words(vec![soft, hard]);
            calls.call(libc::SYS_prlimit64, &[0, resource, limit, 0], Then::Good);
        }
        default_signals(&mut calls);
        calls.call(libc::SYS_umask, &[self.umask as usize], Then::Any);
        if let Some(mask) = self.cpus {
            let words = mask.iter().map(|word| *word as usize).collect();
            let at = calls.words(words);
            let args = [0, size_of_val(mask), at];
            calls.call(libc::SYS_sched_setaffinity, &args, Then::Good);
        }
        self.become_user(&mut calls)?;
        let workdir = calls.text(self.workdir)?;
        calls.call(libc::SYS_chdir, &[workdir], Then::Good);
        Some(calls)
    }

    /// For good: no way back, and verified.
    fn become_user(&self, calls: &mut Calls) -> Option<()> {
        let (uid, gid) = (self.user.uid as usize, self.user.gid as usize);
        if !geteuid().is_root() {
            return (geteuid().as_raw() as usize == uid).then_some(());
        }
        let groups = self.groups.filter(|groups| groups.are_of(self.user))?;
        let gids: Vec<u8> = groups.gids().flat_map(u32::to_ne_bytes).collect();
        let count = gids.len() / size_of::<u32>();
        let gids = calls.bytes(gids);
        calls.call(libc::SYS_setgroups, &[count, gids], Then::Good);
        calls.call(libc::SYS_setresgid, &[gid, gid, gid], Then::Good);
        calls.call(libc::SYS_setresuid, &[uid, uid, uid], Then::Good);
        let (is_uid, is_gid) = (Then::Is(uid.cast_signed()), Then::Is(gid.cast_signed()));
        calls.call(libc::SYS_getuid, &[], is_uid);
        calls.call(libc::SYS_geteuid, &[], is_uid);
        calls.call(libc::SYS_getgid, &[], is_gid);
        calls.call(libc::SYS_getegid, &[], is_gid);
        if uid != 0 {
            // A way back to root would be a hole, whatever the ids say.
            calls.call(libc::SYS_setresuid, &[0, 0, 0], Then::Fails);
        }
        Some(())
    }
}

/// What the launcher blocked and what Rust or an ancestor ignores is the program's to decide again.
fn default_signals(calls: &mut Calls) {
    // The kernel's own struct sigaction and set of signals, all zero.
    let zeros = calls.words(vec![0; 4]);
    for signal in 1..=LAST_SIGNAL {
        // For SIGKILL and SIGSTOP the kernel refuses, which is as good.
        calls.call(libc::SYS_rt_sigaction, &[signal, zeros, 0, MASK_BYTES], Then::Any);
    }
    let args = [libc::SIG_SETMASK as usize, zeros, 0, MASK_BYTES];
    calls.call(libc::SYS_rt_sigprocmask, &args, Then::Good);
}

/// Opens a file as this process's `place`th.
pub(crate) fn open(calls: &mut Calls, path: &str, how: Open, place: RawFd) -> Option<()> {
    let create = libc::O_WRONLY | libc::O_CREAT | libc::O_NOCTTY;
    let flags = libc::O_CLOEXEC
        | match how {
            Open::Read => libc::O_RDONLY,
            Open::Append => create | libc::O_APPEND,
            Open::Truncate => create | libc::O_TRUNC,
        };
    let path = calls.text(path)?;
    let mode = crate::output::FILE_MODE as usize;
    calls.call(libc::SYS_openat, &[HERE, path, flags as usize, mode], Then::Place(place));
    Some(())
}

/// How a file is opened.
#[derive(Clone, Copy)]
pub(crate) enum Open {
    Read,
    Append,
    Truncate,
}

impl Open {
    /// A job's output.
    pub(crate) fn output(append: bool) -> Self {
        if append { Self::Append } else { Self::Truncate }
    }
}

/// Puts a descriptor at that place; it may be there already.
pub(crate) fn place(calls: &mut Calls, fd: RawFd, place: RawFd) {
    let args = [fd.cast_unsigned() as usize, place.cast_unsigned() as usize, 0];
    calls.call(libc::SYS_dup3, &args, Then::Good);
}

/// Executes the first of these that is there and may be executed, as execvp(3) does.
pub(crate) fn exec(calls: &mut Calls, files: Vec<Vec<u8>>, argv: usize, envp: usize) -> Option<()> {
    for file in files {
        let file = calls.text(file)?;
        calls.call(libc::SYS_execve, &[file, argv, envp], Then::Lookup);
    }
    // There was none.
    calls.call(libc::SYS_getpid, &[], Then::Fails);
    Some(())
}

/// Everything but stdin, stdout and stderr closes with the exec.
pub(crate) fn close_others(calls: &mut Calls) {
    let flag = libc::CLOSE_RANGE_CLOEXEC as usize;
    calls.call(libc::SYS_close_range, &[3, u32::MAX as usize, flag], Then::Good);
}

/// The environment for an exec, in which [`TASK_PID`] is that of the process itself.
pub(crate) fn environment(calls: &mut Calls, pairs: Vec<Vec<u8>>) -> Option<usize> {
    let own = format!("{TASK_PID}=").into_bytes();
    let mut all = Vec::with_capacity(pairs.len() + 2);
    for pair in pairs.into_iter().filter(|pair| !pair.starts_with(&own)) {
        all.push(calls.text(pair)?);
    }
    let at = calls.text([own.as_slice(), &[b' '; DIGITS]].concat())?;
    calls.call(libc::SYS_getpid, &[], Then::Digits(at + own.len()));
    all.extend([at, 0]);
    Some(calls.words(all))
}
