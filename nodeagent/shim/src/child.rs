//! From fork to exec: the steps that turn a child of the shim into the user's batch script, in an
//! order that leaves no moment in which anything of the user's runs with more than its rights or
//! outside its group.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::thread::sleep;
use std::time::Duration;

use muster_cgroup::Group;
use muster_proto::shim::v1::Launch;
use muster_proto::v1::{Container, ExitStatus, User};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid, chdir, execve, fork, getpid, setsid};

use crate::container::{self, Around};
use crate::identity::Groups;
use crate::lines::{self, JobStderr};
use crate::quick::{self, Open, Standing, TASK_PID, Way};
use crate::slice::{Host, OOM_SCORE, Refusal, chain};
use crate::spawn::{Calls, FAILED, Then};
use crate::spool::SliceDir;
use crate::{identity, output, rlimits};

/// What a batch process is looked after by.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) pid: Pid,
    /// News until the exec: see [`read_news`].
    pub(crate) news: OwnedFd,
    /// What it reads until the exec, where it shares this process's memory.
    _calls: Option<Calls>,
    /// This process's own, while that lasts.
    standing: Option<Standing>,
}

impl Batch {
    /// The batch process shares nothing with this one any more.
    pub(crate) fn is_apart(&mut self) {
        if let Some(standing) = self.standing.take() {
            standing.take_up();
        }
    }
}

/// What the child tells before it is the script.
#[derive(Debug)]
pub(crate) enum News {
    /// The job's files are open; this is its stderr.
    Opened(JobStderr),
    /// The user's groups, which it has looked up.
    Groups(Vec<u32>),
    /// It could not become the script.
    Refused(Refusal),
    /// The quick way did not lead there; the long one says why, or does.
    Failed,
    /// Nothing more: it is the script, or has ended.
    Over,
}

/// An exec may find the script open for writing: by a child that the agent was just forking when
/// it wrote the script. That lasts until that child's own exec.
const BUSY_ATTEMPTS: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Longer texts are cut: they come back in a record.
const MAX_TEXT_BYTES: usize = 4096;
/// Where a container has the script: in its own `/dev`, which no image has a part in.
const SCRIPT_INSIDE: &str = "/dev/slurm_script";
/// Where a job without its working directory goes.
const LAST_RESORT: &str = "/tmp";

/// Starts the script, the quick way where there is one: one that leads nowhere tells
/// [`News::Failed`]. `known`: groups that need not be looked up.
pub(crate) fn start(
    host: &Host,
    dir: &SliceDir,
    launch: &Launch,
    group: Option<&Group>,
    known: Option<&Groups>,
) -> io::Result<Batch> {
    // Without a group, processes are found by the session of the first one, which is on record.
    if let Some(group) = group {
        let (news, tell) = line()?;
        if let Some(mut calls) = quick(host, dir, launch, group, known, &tell) {
            let standing = Standing::lay_down(host);
            let started = calls.start(tell.as_raw_fd());
            drop(tell);
            if let Ok(pid) = started {
                let mut batch = Batch { pid, news, _calls: Some(calls), standing };
                if batch.standing.is_some() && quick::is_over(&batch.news, quick::PATIENCE) {
                    batch.is_apart();
                }
                return Ok(batch);
            }
            if let Some(standing) = standing {
                standing.take_up();
            }
        }
    }
    start_by_fork(host, dir, launch, group, known)
}

fn line() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// What [`become_script`] does, as a list of calls.
fn quick(
    host: &Host,
    dir: &SliceDir,
    launch: &Launch,
    group: &Group,
    known: Option<&Groups>,
    tell: &OwnedFd,
) -> Option<Calls> {
    let doors = group.doors().ok()?;
    // An image is looked at by the user's own process.
    let spec = launch.spec.as_ref().filter(|spec| Container::of_extras(&spec.extras).is_none())?;
    let way = Way {
        doors: &doors,
        rlimits: &spec.rlimits,
        umask: spec.umask,
        cpus: None,
        user: launch.user.as_ref()?,
        groups: known,
        workdir: &spec.workdir,
    };
    let mut calls = way.calls()?;
    calls.keep(doors);
    let output::Paths { stdin, stdout, stderr, append } = output::paths(launch);
    quick::open(&mut calls, &stdin, Open::Read, libc::STDIN_FILENO)?;
    quick::open(&mut calls, &stdout, Open::output(append), libc::STDOUT_FILENO)?;
    match stderr {
        Some(path) => {
            quick::open(&mut calls, &path, Open::output(append), libc::STDERR_FILENO)?;
        }
        None => quick::place(&mut calls, libc::STDOUT_FILENO, libc::STDERR_FILENO),
    }
    quick::close_others(&mut calls);
    tell_opened_later(&mut calls, tell);
    let path = dir.script_path().into_os_string().into_vec();
    let args = spec.args.iter().map(|arg| arg.clone().into_bytes());
    let argv = calls.texts(std::iter::once(path.clone()).chain(args).collect())?;
    let envp = quick::environment(&mut calls, environment(host, launch))?;
    let path = calls.text(path)?;
    calls.call(libc::SYS_execve, &[path, argv, envp], Then::Good);
    Some(calls)
}

/// Forks; the child goes on in [`become_script`].
pub(crate) fn start_by_fork(
    host: &Host,
    dir: &SliceDir,
    launch: &Launch,
    group: Option<&Group>,
    known: Option<&Groups>,
) -> io::Result<Batch> {
    let (news, tell) = line()?;
    // SAFETY: the shim has one thread, so the child may do anything after the fork.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            Ok(Batch { pid: child, news, _calls: None, standing: None })
        }
        ForkResult::Child => {
            drop(news);
            let Err(refusal) = become_script(host, dir, launch, group, known, &tell);
            let code = refusal.status.code.cast_signed();
            tell_refusal(&tell, &refusal);
            // SAFETY: ends this process at once; the shim's destructors are not for it.
            unsafe { libc::_exit(code) }
        }
    }
}

fn become_script(
    host: &Host,
    dir: &SliceDir,
    launch: &Launch,
    group: Option<&Group>,
    known: Option<&Groups>,
    tell: &OwnedFd,
) -> Result<Infallible, Refusal> {
    let spec = launch.spec.clone().unwrap_or_default();
    setsid().map_err(|e| Refusal::node(format!("cannot start a session: {}", e.desc())))?;
    if let Some(group) = group {
        group.join_self().map_err(|e| Refusal::node(chain(&e)))?;
    }
    if host.oom_score.is_some() {
        // Only lowering it again needs a right, so this fails nowhere that matters.
        let _ = std::fs::write(OOM_SCORE, "0");
    }
    let mut notes = rlimits::apply(&spec.rlimits);
    default_signals();
    umask(Mode::from_bits_truncate(spec.umask));
    let nobody = User::default();
    if let Some(found) = identity::become_user(launch.user.as_ref().unwrap_or(&nobody), known)? {
        tell_groups(tell, &found);
    }
    if let Err(e) = chdir(spec.workdir.as_str()) {
        notes.push(lines::no_workdir(&spec.workdir, &e.into()));
        chdir(LAST_RESORT).map_err(|e| Refusal::node(format!("{LAST_RESORT}: {}", e.desc())))?;
    }
    let stderr = install(output::open(launch)?)
        .map_err(|e| Refusal::node(format!("cannot install the job's files: {e}")))?;
    tell_opened(tell, stderr.as_raw_fd());
    let stderr = JobStderr::new(stderr);
    notes.iter().for_each(|note| stderr.say(note));
    let refusal = exec(host, dir, launch);
    stderr.say(&refusal.text);
    Err(refusal)
}

/// What the launcher blocked and what Rust or an ancestor ignores is the script's to decide again.
pub(crate) fn default_signals() {
    // The kernel's own struct sigaction, all zero: SIG_DFL. The C library's call refuses the two
    // real-time signals it keeps for itself, which an ancestor may have ignored.
    let default = [0u64; 4];
    const MASK_BYTES: usize = 8;
    const LAST_SIGNAL: libc::c_int = 64;
    for signal in 1..=LAST_SIGNAL {
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: `default` is as long as the struct; the default disposition runs no code of
        // ours. For SIGKILL and SIGSTOP the kernel refuses, which is as good.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, MASK_BYTES)
        };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Puts the files in their places and answers with a copy of stderr; everything else of the shim
/// closes with the exec.
fn install(files: output::Files) -> io::Result<OwnedFd> {
    let stderr = files.stderr.as_ref().unwrap_or(&files.stdout).as_fd().try_clone_to_owned()?;
    for (fd, place) in
        [(files.stdin.as_raw_fd(), 0), (files.stdout.as_raw_fd(), 1), (stderr.as_raw_fd(), 2)]
    {
        // SAFETY: plain descriptors of open files; 0 to 2 are owned by nothing else here.
        if unsafe { libc::dup2(fd, place) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: marks descriptors from 3 on; none is closed before the exec.
    unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    Ok(stderr)
}

/// The script's path as the first word, or those of a container around it.
fn first_words(dir: &SliceDir, launch: &Launch, env: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Refusal> {
    let path = dir.script_path();
    let spec = launch.spec.as_ref();
    let Some(container) = spec.and_then(|spec| Container::of_extras(&spec.extras)) else {
        return Ok(vec![path.into_os_string().into_vec()]);
    };
    let around = Around {
        node: &launch.node,
        home: None,
        tmp: "",
        workdir: spec.map_or("/", |spec| &spec.workdir),
        gres: &launch.gres,
        devices_held: launch.limits.as_ref().is_some_and(|limits| limits.hold_devices),
        script: Some((&path.to_string_lossy(), SCRIPT_INSIDE)),
    };
    let words = container::words(&container, &around.at_home(env));
    let mut words = words.map_err(|text| Refusal::code(1, text))?;
    words.push(SCRIPT_INSIDE.to_owned());
    Ok(words.into_iter().map(String::into_bytes).collect())
}

/// Executes the script by its `#!` line; comes back only with the reason why not.
fn exec(host: &Host, dir: &SliceDir, launch: &Launch) -> Refusal {
    let mut env = environment(host, launch);
    set(&mut env, TASK_PID, &getpid().to_string(), true);
    let first = match first_words(dir, launch, &env) {
        Ok(words) => words,
        Err(refusal) => return refusal,
    };
    let shown = String::from_utf8_lossy(&first[0]).into_owned();
    let text = |e: Errno| format!("execve(): {shown}: {}", e.desc());
    let args = launch.spec.iter().flat_map(|s| s.args.iter()).map(|a| a.as_bytes().to_vec());
    let argv = first.into_iter().chain(args).map(CString::new);
    let envp = env.into_iter().map(CString::new);
    let (Ok(argv), Ok(envp)) =
        (argv.collect::<Result<Vec<_>, _>>(), envp.collect::<Result<Vec<_>, _>>())
    else {
        return Refusal::code(1, "an argument holds a NUL character".to_owned());
    };
    let mut attempt = 0;
    loop {
        let Err(e) = execve(&argv[0], &argv, &envp);
        if e != Errno::ETXTBSY || attempt == BUSY_ATTEMPTS {
            // As Slurm does: the error's number is the exit code.
            return Refusal::code(u32::try_from(e as i32).unwrap_or(1), text(e));
        }
        attempt += 1;
        sleep(BUSY_PAUSE);
    }
}

/// The launch's environment and what only this node knows; not [`TASK_PID`].
fn environment(host: &Host, launch: &Launch) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = launch
        .environment
        .split(|byte| *byte == 0)
        .filter(|pair| !pair.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    set(&mut all, "HOSTNAME", &host.hostname, false);
    set(&mut all, "TMPDIR", LAST_RESORT, false);
    all
}

fn set(all: &mut Vec<Vec<u8>>, name: &str, value: &str, replace: bool) {
    let prefix = format!("{name}=").into_bytes();
    let there = all.iter().position(|pair| pair.starts_with(&prefix));
    let pair = [prefix.as_slice(), value.as_bytes()].concat();
    match there {
        Some(at) if replace => all[at] = pair,
        Some(_) => {}
        None => all.push(pair),
    }
}

/// Letters of the packets: `G` with the groups' numbers, `O` with a descriptor, `R` with the refusal;
/// and `spawn`'s own.
const GROUPS: u8 = b'G';
const OPENED: u8 = b'O';
const REFUSED: u8 = b'R';

fn tell_groups(tell: &OwnedFd, groups: &Groups) {
    let numbers: Vec<u8> = groups.gids().flat_map(u32::to_le_bytes).collect();
    // More than fit are looked up again by the next.
    if numbers.len() <= MAX_TEXT_BYTES {
        let bytes = [IoSlice::new(&[GROUPS]), IoSlice::new(&numbers)];
        let _ = sendmsg::<()>(tell.as_raw_fd(), &bytes, &[], MsgFlags::MSG_NOSIGNAL, None);
    }
}

fn tell_opened(tell: &OwnedFd, stderr: RawFd) {
    let fds = [stderr];
    let bytes = [IoSlice::new(&[OPENED])];
    let rights = [ControlMessage::ScmRights(&fds)];
    // Without it the shim cannot add its lines to the job's stderr; the job does not mind.
    let _ = sendmsg::<()>(tell.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None);
}

/// The same by a list of calls, in whose process the job's stderr is in its place.
fn tell_opened_later(calls: &mut Calls, tell: &OwnedFd) {
    let (fd, letter) = (libc::STDERR_FILENO, calls.bytes(vec![OPENED]));
    let part = calls.words(vec![letter, 1]);
    // One descriptor, after the length, level and type that the kernel wants before it.
    // SAFETY: plain arithmetic.
    let (space, length) = unsafe {
        let size = size_of::<RawFd>() as libc::c_uint;
        (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size) as usize)
    };
    let kind = (libc::SCM_RIGHTS as usize) << 32 | libc::SOL_SOCKET as usize;
    let rights = calls.words(vec![length, kind, fd as usize]);
    let message = calls.words(vec![0, 0, part, 1, rights, space, 0]);
    let args = [tell.as_raw_fd() as usize, message, libc::MSG_NOSIGNAL as usize];
    calls.call(libc::SYS_sendmsg, &args, Then::Any);
}

fn tell_refusal(tell: &OwnedFd, refusal: &Refusal) {
    let head = [
        REFUSED,
        u8::try_from(refusal.status.code).unwrap_or(u8::MAX),
        u8::try_from(refusal.status.signal).unwrap_or(u8::MAX),
        u8::from(refusal.node_fault),
    ];
    let text = &refusal.text.as_bytes()[..refusal.text.len().min(MAX_TEXT_BYTES)];
    let bytes = [IoSlice::new(&head), IoSlice::new(text)];
    let _ = sendmsg::<()>(tell.as_raw_fd(), &bytes, &[], MsgFlags::MSG_NOSIGNAL, None);
}

/// Reads one piece of news; to be called when the descriptor is readable. Nobody needs to be woken
/// for it: what the child has told waits until it is of use.
pub(crate) fn read_news(news: &OwnedFd) -> News {
    let mut bytes = [0u8; MAX_TEXT_BYTES + 4];
    let mut space = nix::cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(news.as_raw_fd(), &mut slices, Some(&mut space), flags);
    let Ok(message) = received else { return News::Over };
    let length = message.bytes;
    let fd = message.cmsgs().ok().into_iter().flatten().find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    match (&bytes[..length], fd) {
        // SAFETY: the kernel has just installed this descriptor for us.
        ([OPENED], Some(fd)) => News::Opened(JobStderr::new(unsafe { OwnedFd::from_raw_fd(fd) })),
        ([GROUPS, numbers @ ..], _) => {
            let numbers = numbers.chunks_exact(4);
            News::Groups(numbers.map(|n| u32::from_le_bytes(n.try_into().expect("four"))).collect())
        }
        ([FAILED, ..], _) => News::Failed,
        ([REFUSED, code, signal, node_fault, text @ ..], _) => News::Refused(Refusal {
            status: ExitStatus { code: (*code).into(), signal: (*signal).into() },
            text: String::from_utf8_lossy(text).into_owned(),
            node_fault: *node_fault != 0,
        }),
        _ => News::Over,
    }
}
