//! The launcher of step shims: a single-threaded process that the agent starts with the first step,
//! and that forks a shim per step. Apart from the launcher of slices, so that a burst of steps does
//! not hold up the start of jobs.
//!
//! A request is the step's directory and, beside it, one end of a socket pair: the shim's first
//! conversation. The answer is the shim's pid or minus an errno.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use muster_cgroup::{Cgroups, Limits, Mode};
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, send, sendmsg, socketpair,
};
use nix::unistd::{ForkResult, fork, setsid};

use super::course;
use super::dir::StepDir;
use crate::identity;
use crate::launcher::{LaunchError, LauncherConfig, SHIMS_GROUP, retry};
use crate::slice::Host;

const MAX_REQUEST_BYTES: usize = libc::PATH_MAX as usize;

/// The agent's end; starts the process when it is first needed, and again when it has died.
#[derive(Debug)]
pub struct StepLauncher {
    config: LauncherConfig,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    process: Child,
    socket: Option<OwnedFd>,
}

impl StepLauncher {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(config: LauncherConfig) -> Self {
        Self { config, running: Mutex::new(None) }
    }

    /// Launches the shim of a step whose order is written; the stream is its first conversation.
    pub fn launch(&self, dir: &StepDir) -> Result<UnixStream, LaunchError> {
        let fail = |source| LaunchError::Launch { dir: dir.path().to_owned(), source };
        let (ours, theirs) = UnixStream::pair().map_err(fail)?;
        let mut running = self.running.lock().expect("no launch panics");
        let mut asked = match running.as_ref() {
            Some(there) => there.ask(dir, &theirs),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if asked.is_err() {
            *running = Some(start(&self.config).map_err(fail)?);
            asked = running.as_ref().expect("just set").ask(dir, &theirs);
        }
        match asked.map_err(fail)? {
            pid if pid > 0 => Ok(ours),
            errno => Err(fail(io::Error::from_raw_os_error(-errno))),
        }
    }
}

fn start(config: &LauncherConfig) -> io::Result<Running> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let process = Command::new(&config.exe)
        .args(["shim", "--step-launcher"])
        .args([config.spool.as_os_str(), OsStr::new(&config.cgroup.to_string())])
        .args([config.cgroup_root.as_os_str(), OsStr::new(&config.cgroup_parent)])
        // As for the other launcher: huge pages cost its forks more than they are worth.
        .env("MIMALLOC_ALLOW_THP", "0")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Running { process, socket: Some(ours) })
}

impl Running {
    fn ask(&self, dir: &StepDir, stream: &UnixStream) -> io::Result<i32> {
        let socket = self.socket.as_ref().expect("open until dropped").as_raw_fd();
        let bytes = [IoSlice::new(dir.path().as_os_str().as_bytes())];
        let fds = [stream.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket, &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        let mut answer = [0u8; 4];
        match retry(|| recv(socket, &mut answer, MsgFlags::empty()))? {
            4 => Ok(i32::from_le_bytes(answer)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends when its stdin does; then it is reaped.
        self.socket = None;
        let _ = self.process.wait();
    }
}

/// `muster shim --step-launcher SPOOL MODE ROOT PARENT`
pub(crate) fn main(args: &[OsString]) -> i32 {
    match host(args).and_then(|host| serve(&host)) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("muster shim: step launcher: {e}");
            1
        }
    }
}

fn host(args: &[OsString]) -> io::Result<Host> {
    let [spool, mode, root, parent] = args else {
        return Err(io::Error::other("the agent starts this command"));
    };
    let mode: Mode = mode.to_string_lossy().parse().map_err(io::Error::other)?;
    let cgroups = Cgroups::detect(mode, &PathBuf::from(root), &parent.to_string_lossy())
        .map_err(io::Error::other)?;
    if let Ok(Some(group)) = cgroups.create(SHIMS_GROUP, &Limits::default()) {
        // Where this fails the shims stay in the agent's unit, which ends with KillMode=process.
        let _ = group.join_self();
    }
    identity::load_name_service();
    Host::here(PathBuf::from(spool), cgroups)
}

/// Serves requests until the agent is gone.
fn serve(host: &Host) -> io::Result<()> {
    let _ = setsid();
    // Ended shims need no burial: what they had to say is in their last words.
    // SAFETY: ignoring a signal runs no code.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    let stdin = io::stdin();
    while let Some((dir, stream)) = request(stdin.as_raw_fd())? {
        // SAFETY: this process has one thread, so the child may do anything after the fork.
        let number = match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                let code = course::run(host, &dir, stream);
                // SAFETY: ends this process at once; the launcher's destructors are not for it.
                unsafe { libc::_exit(code) }
            }
            Ok(ForkResult::Parent { child }) => child.as_raw(),
            Err(e) => -(e as i32),
        };
        drop(stream);
        match send(stdin.as_raw_fd(), &number.to_le_bytes(), MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EPIPE) => break,
            done => done.map(drop)?,
        }
    }
    Ok(())
}

fn request(socket: RawFd) -> io::Result<Option<(StepDir, UnixStream)>> {
    let mut bytes = vec![0u8; MAX_REQUEST_BYTES];
    let mut space = nix::cmsg_space!(RawFd);
    let (length, fd) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = retry(|| {
            recvmsg::<()>(socket, &mut slices, Some(&mut space), flags).map(|message| {
                let fd = message.cmsgs().ok().into_iter().flatten().find_map(|c| match c {
                    ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                });
                (message.bytes, fd)
            })
        });
        match received {
            Ok((0, _)) | Err(Errno::ECONNRESET) => return Ok(None),
            Ok(got) => got,
            Err(e) => return Err(e.into()),
        }
    };
    bytes.truncate(length);
    let Some(fd) = fd else { return Err(io::Error::other("a request without a stream")) };
    // SAFETY: the kernel has just installed this descriptor for us.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(Some((StepDir::at(PathBuf::from(OsString::from_vec(bytes))), stream)))
}
