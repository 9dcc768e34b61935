//! From fork to exec: a child of the step's shim becomes a task of the user's, in the same order as a
//! batch script does, so that nothing of the user's runs with more than its rights or outside its
//! group.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use muster_cgroup::Group;
use muster_proto::shim::v1::StepOrder;
use muster_proto::v1::{StartStep, User};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    AccessFlags, ForkResult, Pid, access, chdir, execve, fork, getpid, pipe2, setsid,
};

use super::mpi::Mpi;
use super::{container, cpus, gpus, variables};
use crate::child::default_signals;
use crate::pattern::{Names, expand};
use crate::slice::{Host, OOM_SCORE};
use crate::{identity, lines, rlimits};

/// Where a task without its working directory goes.
const LAST_RESORT: &str = "/tmp";
/// Before the umask.
const FILE_MODE: u32 = 0o666;
/// Where programs are looked for when the environment does not say.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What all tasks of the node have in common.
pub(super) struct Common<'a> {
    pub(super) host: &'a Host,
    pub(super) order: &'a StepOrder,
    pub(super) start: &'a StartStep,
    pub(super) group: Option<&'a Group>,
    pub(super) environment: Vec<Vec<u8>>,
    /// The user's, looked up once for all tasks; none: each looks, and says what is wrong.
    pub(super) groups: Option<identity::Groups>,
}

/// A task that was started, and this end of its files.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
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
struct Refusal {
    code: i32,
    text: String,
}

impl Refusal {
    fn of(code: i32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Forks; the child goes on in [`become_task`].
pub(super) fn start(common: &Common<'_>, mpi: &Mpi, local: usize) -> io::Result<Started> {
    let (mut started, ends) = files(common.start, local)?;
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
    let mut started = Started { pid: Pid::from_raw(0), stdin: None, stdout: None, stderr: None };
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
    if common.host.reset_oom_score {
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
    Err(exec(common, mpi, local))
}

/// Puts the files in their places; opens those that have a name, as the user.
fn install(common: &Common<'_>, local: usize, ends: Ends) -> Result<(), Refusal> {
    let start = common.start;
    let rank = start.part.as_ref().and_then(|p| p.tasks.get(local)).copied().unwrap_or(0);
    let name = |pattern: &Option<String>| {
        pattern.as_deref().filter(|p| !p.is_empty()).map(|p| expand(p, &names(common, rank)))
    };
    let null = || File::open("/dev/null").map(OwnedFd::from);
    let stdin = match (ends.stdin, name(&start.stdin)) {
        (Some(fd), _) => fd,
        (None, Some(path)) => File::open(&path).map_err(|e| refused("stdin", &path, &e))?.into(),
        (None, None) => null().map_err(|e| refused("stdin", "/dev/null", &e))?,
    };
    let out_name = name(&start.stdout);
    let stdout: OwnedFd = match (ends.stdout, &out_name) {
        (Some(fd), _) => fd,
        (None, path) => {
            let path = path.as_deref().unwrap_or("/dev/null");
            create(path, start.append).map_err(|e| refused("stdout", path, &e))?.into()
        }
    };
    let stderr = match (ends.stderr, name(&start.stderr)) {
        (Some(fd), _) => fd,
        // Opened twice, one would overwrite the other.
        (None, Some(path)) if out_name.as_ref() != Some(&path) => {
            create(&path, start.append).map_err(|e| refused("stderr", &path, &e))?.into()
        }
        (None, _) => stdout.as_fd().try_clone_to_owned().map_err(|e| refused("stderr", "", &e))?,
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

/// Executes the program; comes back only with the reason why not.
fn exec(common: &Common<'_>, mpi: &Mpi, local: usize) -> Refusal {
    let start = common.start;
    let programs = &start.programs;
    let Some(program) = programs.get(local).or(programs.first()) else {
        return Refusal::of(1, "no command was given");
    };
    let mut env = common.environment.clone();
    // What cannot be bound was refused before the first task.
    let of_tasks = gpus::of_tasks(common.order, start).unwrap_or_default();
    let mine = of_tasks.get(local).copied().unwrap_or_default();
    if start.gpu_bind.as_ref().is_some_and(|bind| bind.verbose) {
        let line = gpus::verbose_line(common.order, start, mine);
        let _ = nix::unistd::write(io::stderr(), line.as_bytes());
    }
    let mut own = variables::of_task(common.order, start, local, mine);
    own.push(("SLURM_TASK_PID".to_owned(), getpid().to_string()));
    env.extend(own.into_iter().map(|(name, value)| format!("{name}={value}").into_bytes()));
    env.extend(mpi.environment(local));
    let path = env.iter().find_map(|pair| pair.strip_prefix(b"PATH=")).map(<[u8]>::to_vec);
    let mut line = program.argv.clone();
    if let Some(wish) = &start.container {
        let home = env.iter().find_map(|pair| pair.strip_prefix(b"HOME="));
        let home = home.and_then(|home| std::str::from_utf8(home).ok());
        match container::words(common.order, start, wish, home) {
            Ok(words) => drop(line.splice(0..0, words)),
            Err(text) => return Refusal::of(1, text),
        }
    }
    let command = line.first().map_or("", String::as_str);
    let argv: Result<Vec<_>, _> = line.iter().map(|a| CString::new(a.as_bytes())).collect();
    let env: Result<Vec<_>, _> = env.into_iter().map(CString::new).collect();
    let (Ok(argv), Ok(env)) = (argv, env) else {
        return Refusal::of(1, "an argument holds a NUL character");
    };
    let path = path.unwrap_or_else(|| PATH.as_bytes().to_vec());
    let mut fault = Errno::ENOENT;
    for file in candidates(command, &path) {
        // As execvp(3): a file that may not be executed does not end the search.
        let Err(e) = execve(&file, &argv, &env);
        match e {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => fault = e,
            other => {
                fault = other;
                break;
            }
        }
    }
    // As Slurm does: the error's number is the exit code.
    Refusal::of(fault as i32, format!("execve(): {command}: {}", fault.desc()))
}

fn candidates(command: &str, path: &[u8]) -> Vec<CString> {
    let c = |bytes: Vec<u8>| CString::new(bytes).ok();
    if command.contains('/') {
        return c(command.as_bytes().to_vec()).into_iter().collect();
    }
    let places = path.split(|byte| *byte == b':').map(|place| match place {
        [] => b".".to_vec(),
        place => place.to_vec(),
    });
    places
        .map(|place| [place.as_slice(), b"/", command.as_bytes()].concat())
        .filter(|file| {
            let path = Path::new(std::ffi::OsStr::from_bytes(file));
            access(path, AccessFlags::F_OK).is_ok()
        })
        .filter_map(c)
        .collect()
}
