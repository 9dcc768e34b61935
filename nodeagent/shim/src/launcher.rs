//! The launcher: a small single-threaded process, made once by re-executing the binary, that forks
//! one shim per request. An exec of the whole binary per job would cost more than most of the rest
//! of a launch, and the agent has threads, so it must not fork itself.
//!
//! Requests and answers are packets on a socket pair that is the launcher's stdin: the path of a
//! slice's directory one way, the shim's pid (or minus an errno) the other. When the agent dies
//! the launcher ends with it; shims are in sessions of their own and stay.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use muster_cgroup::{Cgroups, Limits, Mode};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use crate::series::Pool;
use crate::slice::{self, Host};
use crate::spool::{SliceDir, shims};
use crate::{NoticeKind, identity, notice};

/// The group that shims move to, beside those of the slices: out of the agent's unit, so that
/// stopping that unit does not take them along.
pub const SHIMS_GROUP: &str = "shims";
/// A request is a path, and behind a NUL the series that the slice belongs to.
pub(crate) const MAX_REQUEST_BYTES: usize = libc::PATH_MAX as usize;

/// What a launcher must know.
#[derive(Clone, Debug)]
pub struct LauncherConfig {
    /// The `muster` binary.
    pub exe: PathBuf,
    /// The spool that holds the slices and [`crate::notice_socket`].
    pub spool: PathBuf,
    /// Which control groups to use.
    pub cgroup: Mode,
    /// Where they are mounted.
    pub cgroup_root: PathBuf,
    /// The node's tree in them.
    pub cgroup_parent: String,
}

/// The launcher could not be started, or did not launch.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No launcher.
    #[error("cannot start the launcher {}", exe.display())]
    Start {
        /// The binary.
        exe: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No shim.
    #[error("cannot launch a shim for {}", dir.display())]
    Launch {
        /// The slice.
        dir: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The agent's end of a launcher; restarts it when it has died.
#[derive(Debug)]
pub struct Launcher {
    config: LauncherConfig,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    process: Child,
    socket: Option<OwnedFd>,
}

impl Launcher {
    /// Starts the launcher process.
    pub fn start(config: LauncherConfig) -> Result<Self, LaunchError> {
        let running = start(&config)
            .map_err(|source| LaunchError::Start { exe: config.exe.clone(), source })?;
        Ok(Self { config, running: Mutex::new(running) })
    }

    /// Launches the shim of a slice whose launch record is written; answers with its pid some
    /// hundred microseconds later. What becomes of it comes as notices.
    pub fn launch(&self, dir: &SliceDir) -> Result<u32, LaunchError> {
        self.launch_in_series(dir, "")
    }

    /// The same for one of many slices of a kind, as the tasks of one array are: a shim that has
    /// served another slice of the series may serve this one. A series belongs to one user.
    pub fn launch_in_series(&self, dir: &SliceDir, series: &str) -> Result<u32, LaunchError> {
        let order = [(dir.clone(), series.to_owned())];
        self.launch_all(&order).pop().expect("an answer for an order")
    }

    /// The same for several slices, each with its series or none (empty): they are asked for before
    /// the first answer is waited for. Some ten at most: nobody reads the answers meanwhile.
    pub fn launch_all(&self, orders: &[(SliceDir, String)]) -> Vec<Result<u32, LaunchError>> {
        let mut running = self.running.lock().expect("no launch panics");
        let (mut answers, mut died) = running.ask(orders);
        if died.is_some() {
            // Before or after the forks: the claim in a slice keeps a second shim away.
            match start(&self.config) {
                Ok(started) => {
                    *running = started;
                    let (more, fault) = running.ask(&orders[answers.len()..]);
                    answers.extend(more);
                    died = fault;
                }
                Err(fault) => died = Some(fault),
            }
        }
        let fault = died.map_or(libc::EIO, |fault| fault.raw_os_error().unwrap_or(libc::EIO));
        answers.resize(orders.len(), -fault);
        let read = |((dir, _), answer): (&(SliceDir, String), i32)| {
            u32::try_from(answer).map_err(|_| LaunchError::Launch {
                dir: dir.path().to_owned(),
                source: io::Error::from_raw_os_error(-answer),
            })
        };
        orders.iter().zip(answers).map(read).collect()
    }

    /// The launcher's process id.
    pub fn pid(&self) -> u32 {
        self.running.lock().expect("no launch panics").process.id()
    }
}

fn start(config: &LauncherConfig) -> io::Result<Running> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let process = Command::new(&config.exe)
        .args(["shim", "--launcher"])
        .args([OsStr::new("--spool"), config.spool.as_os_str()])
        .args(["--cgroup", &config.cgroup.to_string()])
        .args([OsStr::new("--cgroup-root"), config.cgroup_root.as_os_str()])
        .args(["--cgroup-parent", &config.cgroup_parent])
        // For its allocator: huge pages are faulted in whole, split by the first write after a
        // fork, and then copied, page by page, by every fork to come. Jobs do not inherit this.
        .env("MIMALLOC_ALLOW_THP", "0")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Running { process, socket: Some(ours) })
}

impl Running {
    /// The answers, in order, as far as they came, and why there are no more.
    fn ask(&self, orders: &[(SliceDir, String)]) -> (Vec<i32>, Option<io::Error>) {
        let socket = self.socket.as_ref().expect("open until dropped").as_raw_fd();
        let asked = orders.iter().try_for_each(|(dir, series)| {
            let request = [dir.path().as_os_str().as_bytes(), series.as_bytes()].join(&0);
            retry(|| send(socket, &request, MsgFlags::MSG_NOSIGNAL)).map(drop)
        });
        let mut answers = Vec::with_capacity(orders.len());
        if let Err(fault) = asked {
            return (answers, Some(fault.into()));
        }
        while answers.len() < orders.len() {
            let mut answer = [0u8; 4];
            match retry(|| recv(socket, &mut answer, MsgFlags::empty())) {
                Ok(4) => answers.push(i32::from_le_bytes(answer)),
                Ok(_) => return (answers, Some(io::ErrorKind::UnexpectedEof.into())),
                Err(fault) => return (answers, Some(fault.into())),
            }
        }
        (answers, None)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends when its stdin does; then it is reaped.
        self.socket = None;
        let _ = self.process.wait();
    }
}

pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// `muster shim --launcher ...`
pub(crate) fn main(args: &[OsString]) -> i32 {
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("muster shim: {reason}");
            return 2;
        }
    };
    match options.host().and_then(|host| serve(&host)) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("muster shim: launcher: {e}");
            1
        }
    }
}

struct Options {
    spool: PathBuf,
    cgroup: Mode,
    cgroup_root: PathBuf,
    cgroup_parent: String,
}

impl Options {
    fn parse(args: &[OsString]) -> Result<Self, String> {
        let (mut launcher, mut spool, mut cgroup) = (false, None, Mode::Auto);
        let mut root = PathBuf::from(muster_cgroup::DEFAULT_ROOT);
        let mut parent = "muster".to_owned();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg:?} wants a value"));
            match arg.to_str() {
                Some("--launcher") => launcher = true,
                Some("--spool") => spool = Some(PathBuf::from(value()?)),
                Some("--cgroup") => cgroup = value()?.to_string_lossy().parse()?,
                Some("--cgroup-root") => root = PathBuf::from(value()?),
                Some("--cgroup-parent") => parent = value()?.to_string_lossy().into_owned(),
                _ => return Err(format!("{arg:?} is not known; the agent starts this command")),
            }
        }
        match spool {
            Some(spool) if launcher => {
                Ok(Self { spool, cgroup, cgroup_root: root, cgroup_parent: parent })
            }
            _ => Err("--launcher and --spool are needed; the agent starts this command".to_owned()),
        }
    }

    /// Looks at the machine once, for every shim to come.
    fn host(&self) -> io::Result<Host> {
        let cgroups = Cgroups::detect(self.cgroup, &self.cgroup_root, &self.cgroup_parent)
            .map_err(io::Error::other)?;
        if let Ok(Some(group)) = cgroups.create(SHIMS_GROUP, &Limits::default()) {
            // Where this fails the shims stay where the agent is, which ends them with its unit
            // at worst: the unit says KillMode=process for this.
            let _ = group.join_self();
        }
        identity::load_name_service();
        Host::here(self.spool.clone(), cgroups)
    }
}

/// Serves requests until the agent is gone.
fn serve(host: &Host) -> io::Result<()> {
    // Refused to a process group leader, whom a terminal's Ctrl-C reaches all the same.
    let _ = setsid();
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let stdin = io::stdin();
    clear_after_others(host);
    let mut shims = Shims { serving: HashMap::new(), pool: Pool::new()? };
    loop {
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            PollFd::new(shims.pool.fd(), PollFlags::POLLIN),
        ];
        retry(|| poll(&mut fds, shims.pool.timeout()))?;
        let asked = fds[0].any() == Some(true);
        if fds[1].any() == Some(true) {
            while let Ok(Some(_)) = children.read_signal() {}
            reap(host, &mut shims);
        }
        shims.pool.hear();
        shims.pool.release();
        if asked && !answer(host, stdin.as_fd(), &mut shims)? {
            return Ok(());
        }
    }
}

/// The launcher's shims.
struct Shims {
    /// Which slice each serves or has served last.
    serving: HashMap<Pid, SliceDir>,
    pool: Pool,
}

impl Shims {
    fn launch(&mut self, host: &Host, dir: SliceDir, series: &str) -> io::Result<Pid> {
        if let Some(pid) = self.pool.order(series, &dir) {
            self.serving.insert(pid, dir);
            return Ok(pid);
        }
        let ends = (!series.is_empty()).then(|| self.pool.ends()).transpose()?;
        // SAFETY: this process has one thread, so the child may do anything after the fork.
        match unsafe { fork() }? {
            ForkResult::Child => {
                // Held here, the launcher's ends would keep other shims from seeing theirs close.
                self.pool.close();
                let orders = ends.map(|(_, orders)| orders);
                let code = match &orders {
                    None => slice::run(host, &dir),
                    Some(orders) => slice::run_series(host, dir, orders),
                };
                // SAFETY: ends this process at once; the launcher's own destructors are not for it.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => {
                self.serving.insert(child, dir);
                if let Some((orders, _)) = ends {
                    self.pool.add(child, series.to_owned(), orders);
                }
                Ok(child)
            }
        }
    }
}

/// Answers one request; false when there will be no more.
fn answer(host: &Host, socket: BorrowedFd<'_>, shims: &mut Shims) -> io::Result<bool> {
    let mut request = vec![0u8; MAX_REQUEST_BYTES];
    let length = match retry(|| recv(socket.as_raw_fd(), &mut request, MsgFlags::empty())) {
        Ok(0) | Err(Errno::ECONNRESET) => return Ok(false),
        Ok(length) => length,
        Err(e) => return Err(e.into()),
    };
    request.truncate(length);
    let mut series = String::new();
    if let Some(at) = request.iter().position(|byte| *byte == 0) {
        series = String::from_utf8_lossy(&request[at + 1..]).into_owned();
        request.truncate(at);
    }
    let dir = SliceDir::at(PathBuf::from(OsString::from_vec(request)));
    let number = match shims.launch(host, dir, &series) {
        Ok(pid) => pid.as_raw(),
        Err(e) => -e.raw_os_error().unwrap_or(libc::EIO),
    };
    match send(socket.as_raw_fd(), &number.to_le_bytes(), MsgFlags::MSG_NOSIGNAL) {
        Err(Errno::EPIPE) => Ok(false),
        done => done.map(|_| true).map_err(io::Error::from),
    }
}

/// Collects ended shims and tells of those that were killed before they could leave a record.
fn reap(host: &Host, shims: &mut Shims) {
    loop {
        let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, 0)) => (pid, None),
            Ok(WaitStatus::Exited(pid, code)) => (pid, Some(format!("with exit code {code}"))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Some(format!("by {signal}"))),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => continue,
        };
        shims.pool.remove(pid);
        let dir = shims.serving.remove(&pid);
        if let (Some(dir), Some(how)) = (dir, how) {
            tell_gone(host, &dir, format!("its shim, process {pid}, ended {how}"));
            clear_after(host, pid);
        }
    }
}

/// What an idle shim of a series left behind when it was killed. A group with processes in it is
/// its slice's, and stays for the agent to sweep.
fn clear_after(host: &Host, pid: Pid) {
    let pid = pid.as_raw().cast_unsigned();
    let _ = std::fs::remove_file(shims(&host.spool).join(pid.to_string()));
    if let Ok(Some(group)) = host.cgroups.open(&slice::shared_group_name(pid))
        && group.is_empty().unwrap_or(false)
    {
        let _ = group.remove();
    }
}

/// The same for shims that outlived an earlier launcher and were killed since.
fn clear_after_others(host: &Host) {
    let entries = std::fs::read_dir(shims(&host.spool)).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids.filter(|pid| !std::path::Path::new("/proc").join(pid.to_string()).exists()) {
        clear_after(host, Pid::from_raw(pid));
    }
}

fn tell_gone(host: &Host, dir: &SliceDir, why: String) {
    let Some((job, attempt)) = dir.ids() else { return };
    if matches!(dir.read_exit(), Ok(None)) {
        // An agent that misses it finds the shim gone when it looks.
        let _ = notice::send(&host.spool, job, attempt, NoticeKind::Gone(why));
    }
}
