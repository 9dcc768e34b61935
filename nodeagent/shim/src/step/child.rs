//! From fork to exec: a child of the step's shim becomes a task of the user's, in the same order as a
//! batch script does, so that nothing of the user's runs with more than its rights or outside its
//! group.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use muster_cgroup::Group;
use muster_proto::shim::v1::StepOrder;
use muster_proto::v1::{StartStep, User};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, chdir, fork, pipe2, setsid};

use super::cpus;
use super::mpi::Mpi;
use super::program::{self, Program};
use crate::child::default_signals;
use crate::launcher::retry;
use crate::pattern::{Names, expand};
use crate::quick::{self, Open, Way};
use crate::slice::{Host, OOM_SCORE};
use crate::spawn::{Calls, FAILED};
use crate::{identity, lines, rlimits};

/// Where a task without its working directory goes.
const LAST_RESORT: &str = "/tmp";
/// Before the umask.
const FILE_MODE: u32 = 0o666;
const NULL: &str = "/dev/null";

/// What all tasks of the node have in common.
pub(super) struct Common<'a> {
    pub(super) host: &'a Host,
    pub(super) order: &'a StepOrder,
    pub(super) start: &'a StartStep,
    pub(super) group: Option<&'a Group>,
    pub(super) environment: Vec<Vec<u8>>,
    /// The user's, looked up once for all tasks; none: each looks, and says what is wrong.
    pub(super) groups: Option<identity::Groups>,
    /// Those of each task, as bits.
    pub(super) gpus: Vec<u64>,
    /// Of the group; open as long as the step lasts. None: each task finds its own way in.
    pub(super) doors: &'a [OwnedFd],
}

/// A task that was started, and this end of its files.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// It has not become its program yet.
    pub(super) late: Option<Quick>,
}

/// A task on its way to its program.
pub(super) struct Starting {
    started: Started,
    /// On the quick way, which may lead nowhere: what the long one needs.
    quick: Option<(Quick, Ends)>,
}

/// The quick way, until the program is there.
#[derive(Debug)]
pub(super) struct Quick {
    news: OwnedFd,
    /// What the task reads until then.
    _calls: Calls,
}

impl Quick {
    /// Whether it leads nowhere; `None`: that is not known within `wait`.
    pub(super) fn failed(&self, wait: Duration) -> Option<bool> {
        if !quick::is_over(&self.news, wait) {
            return None;
        }
        let mut told = [0u8; 3];
        let length = retry(|| recv(self.news.as_raw_fd(), &mut told, MsgFlags::empty()));
        Some(length.is_ok_and(|length| length > 0 && told[0] == FAILED))
    }
}

/// The task's end of its files; `None`: by its own name or nothing.
#[derive(Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: bool,
}

/// Why a task is none: its exit code, and the line in its stderr.
pub(super) struct Refusal {
    code: i32,
    text: String,
}

impl Refusal {
    pub(super) fn of(code: i32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Starts a task, the quick way where there is one.
pub(super) fn start(common: &Common<'_>, mpi: &Mpi, local: usize) -> io::Result<Starting> {
    let (mut started, ends) = files(common.start, local)?;
    if let Some(mut calls) = quick(common, mpi, local, &ends) {
        let (news, tell) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        if let Ok(pid) = calls.start(tell.as_raw_fd()) {
            started.pid = pid;
            return Ok(Starting { started, quick: Some((Quick { news, _calls: calls }, ends)) });
        }
    }
    let started = start_by_fork(common, mpi, local, started, ends)?;
    Ok(Starting { started, quick: None })
}

impl Starting {
    /// Waits for the program to be there, and goes the long way where the quick one led nowhere.
    pub(super) fn settle(
        self,
        common: &Common<'_>,
        mpi: &Mpi,
        local: usize,
        until: Instant,
    ) -> io::Result<Started> {
        let Self { mut started, quick } = self;
        let Some((quick, ends)) = quick else { return Ok(started) };
        match quick.failed(until.saturating_duration_since(Instant::now())) {
            Some(false) => Ok(started),
            Some(true) => {
                // It has ended, or is about to.
                let _ = retry(|| waitpid(started.pid, None));
                start_by_fork(common, mpi, local, started, ends)
            }
            None => {
                started.late = Some(quick);
                Ok(started)
            }
        }
    }
}

/// What [`become_task`] does, as a list of calls.
fn quick(common: &Common<'_>, mpi: &Mpi, local: usize, ends: &Ends) -> Option<Calls> {
    let start = common.start;
    let told = start.gpu_bind.as_ref().is_some_and(|bind| bind.verbose);
    let in_group = !common.doors.is_empty() || common.group.is_none();
    if ends.terminal || mpi.keeps() || told || !in_group {
        return None;
    }
    // Its command line is found by a look at the user's files: as the user, and not from here.
    if start.container.is_some() {
        return None;
    }
    let cpus = common.order.bind.then(|| cpus::of_task(start, local)).flatten();
    let cpus = cpus.map(|cpus| cpus::bits(&cpus));
    let way = Way {
        doors: common.doors,
        rlimits: &start.rlimits,
        umask: start.umask,
        cpus: cpus.as_ref().map(|bits| &bits[..]),
        user: common.order.user.as_ref()?,
        groups: common.groups.as_ref(),
        workdir: &start.workdir,
    };
    let mut calls = way.calls()?;
    let paths = paths(common, local);
    match (&ends.stdin, paths.stdin) {
        (Some(fd), _) => quick::place(&mut calls, fd.as_raw_fd(), 0),
        (None, path) => {
            let path = path.as_deref().unwrap_or(NULL);
            quick::open(&mut calls, path, Open::Read, 0)?;
        }
    }
    let output = Open::output(start.append);
    match (&ends.stdout, &paths.stdout) {
        (Some(fd), _) => quick::place(&mut calls, fd.as_raw_fd(), 1),
        (None, path) => quick::open(&mut calls, path.as_deref().unwrap_or(NULL), output, 1)?,
    }
    match (&ends.stderr, paths.stderr) {
        (Some(fd), _) => quick::place(&mut calls, fd.as_raw_fd(), 2),
        (None, Some(path)) => quick::open(&mut calls, &path, output, 2)?,
        (None, None) => quick::place(&mut calls, 1, 2),
    }
    quick::close_others(&mut calls);
    let Program { line, env } = program::program(common, mpi, local).ok()?;
    let command = line.first()?.clone();
    let path = program::path_of(&env);
    let argv = calls.texts(line.into_iter().map(String::into_bytes).collect())?;
    let envp = quick::environment(&mut calls, env)?;
    quick::exec(&mut calls, program::candidates(&command, &path), argv, envp)?;
    Some(calls)
}

/// Forks; the child goes on in [`become_task`].
fn start_by_fork(
    common: &Common<'_>,
    mpi: &Mpi,
    local: usize,
    mut started: Started,
    ends: Ends,
) -> io::Result<Started> {
    // SAFETY: the shim has one thread, so the child may do anything after the fork.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            started.pid = child;
            Ok(started)
        }
        ForkResult::Child => {
            drop(started);
            let Err(refusal) = become_task(common, mpi, local, ends);
            let line = format!("slurmstepd: error: {}\n", refusal.text);
            let _ = nix::unistd::write(io::stderr(), line.as_bytes());
            // SAFETY: ends this process at once; the shim's destructors are not for it.
            unsafe { libc::_exit(refusal.code) }
        }
    }
}

fn ours(fd: OwnedFd) -> io::Result<OwnedFd> {
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}

fn files(start: &StartStep, local: usize) -> io::Result<(Started, Ends)> {
    let mut started =
        Started { pid: Pid::from_raw(0), stdin: None, stdout: None, stderr: None, late: None };
    let mut ends = Ends::default();
    let rank = start.part.as_ref().and_then(|p| p.tasks.get(local)).copied();
    if let Some(size) = start.terminal.as_ref().filter(|_| rank == Some(0)) {
        let size = winsize(size.rows, size.columns);
        let pair = openpty(Some(&size), None)?;
        for fd in [&pair.master, &pair.slave] {
            fcntl(fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        }
        ends.stdin = Some(pair.slave.try_clone()?);
        ends.stdout = Some(pair.slave.try_clone()?);
        ends.stderr = Some(pair.slave);
        ends.terminal = true;
        started.stdin = Some(pair.master.try_clone()?);
        started.stdout = Some(ours(pair.master)?);
        return Ok((started, ends));
    }
    let by_name = |name: &Option<String>| name.as_ref().is_some_and(|n| !n.is_empty());
    let fed = start.stdin_task.is_none_or(|only| Some(only) == rank);
    if !start.no_stdin && !by_name(&start.stdin) && fed {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        (ends.stdin, started.stdin) = (Some(read), Some(ours(write)?));
    }
    if !by_name(&start.stdout) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        (ends.stdout, started.stdout) = (Some(write), Some(ours(read)?));
    }
    if !start.join_stderr && !by_name(&start.stderr) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        (ends.stderr, started.stderr) = (Some(write), Some(ours(read)?));
    }
    Ok((started, ends))
}

pub(super) fn winsize(rows: u32, columns: u32) -> Winsize {
    let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize { ws_row: cells(rows), ws_col: cells(columns), ws_xpixel: 0, ws_ypixel: 0 }
}

fn become_task(
    common: &Common<'_>,
    mpi: &Mpi,
    local: usize,
    ends: Ends,
) -> Result<Infallible, Refusal> {
    let start = common.start;
    // So that a refusal is read where the task's errors would be.
    let early = ends.stderr.as_ref().or(ends.stdout.as_ref());
    if let Some(fd) = early {
        // SAFETY: both descriptors are open.
        unsafe { libc::dup2(fd.as_raw_fd(), 2) };
    }
    setsid().map_err(|e| Refusal::of(1, format!("cannot start a session: {}", e.desc())))?;
    if let Some(group) = common.group {
        let gone = |e| Refusal::of(1, format!("the job is over: {}", crate::slice::chain(&e)));
        group.join_self().map_err(gone)?;
    }
    if common.host.oom_score.is_some() {
        // Only lowering it again needs a right, so this fails nowhere that matters.
        let _ = std::fs::write(OOM_SCORE, "0");
    }
    let mut notes = rlimits::apply(&start.rlimits);
    default_signals();
    umask(Mode::from_bits_truncate(start.umask));
    if common.order.bind
        && let Some(cpus) = cpus::of_task(start, local)
        && let Err(e) = cpus::bind(&cpus)
    {
        notes.push(format!("cannot bind to CPUs {}: {e}", cpus::mask(&cpus)));
    }
    let nobody = User::default();
    let user = common.order.user.as_ref().unwrap_or(&nobody);
    identity::become_user(user, common.groups.as_ref()).map_err(|r| Refusal::of(1, r.text))?;
    if let Err(e) = chdir(start.workdir.as_str()) {
        notes.push(lines::no_workdir(&start.workdir, &e.into()));
        chdir(LAST_RESORT).map_err(|e| Refusal::of(1, format!("{LAST_RESORT}: {}", e.desc())))?;
    }
    install(common, local, ends)?;
    mpi.keep(local).map_err(|e| Refusal::of(1, format!("files: {e}")))?;
    for note in notes {
        let line = format!("slurmstepd: error: {note}\n");
        let _ = nix::unistd::write(io::stderr(), line.as_bytes());
    }
    Err(program::exec(common, mpi, local))
}

/// Puts the files in their places; opens those that have a name, as the user.
fn install(common: &Common<'_>, local: usize, ends: Ends) -> Result<(), Refusal> {
    let start = common.start;
    let Paths { stdin, stdout: out_name, stderr } = paths(common, local);
    let null = || File::open(NULL).map(OwnedFd::from);
    let stdin = match (ends.stdin, stdin) {
        (Some(fd), _) => fd,
        (None, Some(path)) => File::open(&path).map_err(|e| refused("stdin", &path, &e))?.into(),
        (None, None) => null().map_err(|e| refused("stdin", NULL, &e))?,
    };
    let stdout: OwnedFd = match (ends.stdout, &out_name) {
        (Some(fd), _) => fd,
        (None, path) => {
            let path = path.as_deref().unwrap_or(NULL);
            create(path, start.append).map_err(|e| refused("stdout", path, &e))?.into()
        }
    };
    let stderr = match (ends.stderr, stderr) {
        (Some(fd), _) => fd,
        (None, Some(path)) => {
            create(&path, start.append).map_err(|e| refused("stderr", &path, &e))?.into()
        }
        (None, None) => {
            stdout.as_fd().try_clone_to_owned().map_err(|e| refused("stderr", "", &e))?
        }
    };
    for (fd, place) in [(stdin.as_raw_fd(), 0), (stdout.as_raw_fd(), 1), (stderr.as_raw_fd(), 2)] {
        // SAFETY: plain descriptors of open files; 0 to 2 are owned by nothing else here.
        if unsafe { libc::dup2(fd, place) } == -1 {
            return Err(Refusal::of(1, format!("files: {}", io::Error::last_os_error())));
        }
    }
    if ends.terminal {
        // SAFETY: stdin is the terminal, and this process leads a session without one.
        unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    }
    // SAFETY: marks descriptors from 3 on; none is closed before the exec.
    unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    Ok(())
}

/// The names of a task's files; `None`: it has none of its own.
struct Paths {
    stdin: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
}

fn paths(common: &Common<'_>, local: usize) -> Paths {
    let start = common.start;
    let rank = start.part.as_ref().and_then(|p| p.tasks.get(local)).copied().unwrap_or(0);
    let name = |pattern: &Option<String>| {
        pattern.as_deref().filter(|p| !p.is_empty()).map(|p| expand(p, &names(common, rank)))
    };
    let stdout = name(&start.stdout);
    // Opened twice, one would overwrite the other.
    let stderr = name(&start.stderr).filter(|path| stdout.as_ref() != Some(path));
    Paths { stdin: name(&start.stdin), stdout, stderr }
}

fn names<'a>(common: &'a Common<'_>, rank: u32) -> Names<'a> {
    let (order, start) = (common.order, common.start);
    Names {
        job: start.job,
        array: order.array_task.map(|index| (order.array_job, index)),
        node: &order.node,
        node_index: start.part.as_ref().map_or(0, |p| p.index),
        restarts: order.restarts,
        user: order.user.as_ref().map_or("", |u| u.name.as_str()),
        job_name: &order.job_name,
        task: Some((start.step, rank)),
    }
}

fn create(path: &str, append: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).mode(FILE_MODE).custom_flags(libc::O_NOCTTY);
    match append {
        true => options.append(true),
        false => options.write(true).truncate(true),
    };
    options.open(path)
}

fn refused(which: &str, path: &str, error: &io::Error) -> Refusal {
    Refusal::of(1, format!("Could not open {which} file {path}: {}", lines::reason(error)))
}
