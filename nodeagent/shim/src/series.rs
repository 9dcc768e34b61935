//! Shims that serve the tasks of one array, one after another: a fork, a socket and a group are
//! most of what a short task costs. The launcher owns who is idle; an idle shim waits for an order
//! on a socket of its own and ends when the launcher lets go of that.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::Pid;

use crate::control::Control;
use crate::launcher::{MAX_REQUEST_BYTES, retry};
use crate::spool::SliceDir;
use crate::supervise::refusal_of;

/// How long a shim without work is kept: the next task of a busy array comes in milliseconds.
const LINGER: Duration = Duration::from_secs(1);

/// The shim's end: where it says that it is idle, and where the next slice comes from.
#[derive(Debug)]
pub(crate) struct Orders {
    idle: OwnedFd,
    orders: OwnedFd,
}

impl Orders {
    /// Waits for the next slice; `None`: there will be none. Whoever asks for a slice that is over
    /// gets an answer meanwhile.
    pub(crate) fn next(&self, control: &mut Option<Control>) -> Option<SliceDir> {
        let pid = std::process::id().to_le_bytes();
        send(self.idle.as_raw_fd(), &pid, MsgFlags::MSG_NOSIGNAL).ok()?;
        loop {
            let asked = control.iter().flat_map(Control::fds);
            let all = std::iter::once(self.orders.as_fd()).chain(asked);
            let mut fds: Vec<PollFd<'_>> =
                all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            retry(|| poll(&mut fds, PollTimeout::NONE)).ok()?;
            let ordered = fds[0].any() == Some(true);
            if let Some(control) = control {
                control.serve(|request| refusal_of(&request));
            }
            if ordered {
                let mut path = vec![0u8; MAX_REQUEST_BYTES];
                let length =
                    retry(|| recv(self.orders.as_raw_fd(), &mut path, MsgFlags::empty())).ok()?;
                path.truncate(length);
                return (length > 0).then(|| SliceDir::at(PathBuf::from(OsString::from_vec(path))));
            }
        }
    }
}

/// The launcher's end of all series.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Shims say here that they are idle.
    told: OwnedFd,
    tell: OwnedFd,
    shims: HashMap<Pid, Shim>,
    idle: HashMap<String, Vec<(Pid, Instant)>>,
}

#[derive(Debug)]
struct Shim {
    series: String,
    orders: OwnedFd,
}

impl Pool {
    pub(crate) fn new() -> io::Result<Self> {
        let (told, tell) = pair(SockType::SeqPacket)?;
        Ok(Self { told, tell, shims: HashMap::new(), idle: HashMap::new() })
    }

    /// Closes the launcher's ends of the shims' sockets, in a shim that was forked with them.
    pub(crate) fn close(&mut self) {
        self.shims.clear();
        self.idle.clear();
    }

    /// What to poll for reading.
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.told.as_fd()
    }

    /// How long to sleep before shims without work are to be let go.
    pub(crate) fn timeout(&self) -> PollTimeout {
        if self.idle.values().all(Vec::is_empty) {
            return PollTimeout::NONE;
        }
        PollTimeout::try_from(LINGER).expect("a second fits")
    }

    /// Takes in who is idle.
    pub(crate) fn hear(&mut self) {
        let mut pid = [0u8; 4];
        while let Ok(4) = recv(self.told.as_raw_fd(), &mut pid, MsgFlags::MSG_DONTWAIT) {
            let pid = Pid::from_raw(i32::from_le_bytes(pid));
            if let Some(shim) = self.shims.get(&pid) {
                self.idle.entry(shim.series.clone()).or_default().push((pid, Instant::now()));
            }
        }
    }

    /// Lets go of shims that have been idle for long; they end.
    pub(crate) fn release(&mut self) {
        let shims = &mut self.shims;
        self.idle.retain(|_, idle| {
            idle.retain(|(pid, since)| {
                let stays = since.elapsed() < LINGER;
                if !stays {
                    shims.remove(pid);
                }
                stays
            });
            !idle.is_empty()
        });
    }

    /// Gives the slice to an idle shim of the series, if there is one.
    pub(crate) fn order(&mut self, series: &str, dir: &SliceDir) -> Option<Pid> {
        let idle = self.idle.get_mut(series)?;
        while let Some((pid, _)) = idle.pop() {
            let Some(shim) = self.shims.get(&pid) else { continue };
            let path = dir.path().as_os_str().as_bytes();
            match retry(|| send(shim.orders.as_raw_fd(), path, MsgFlags::MSG_NOSIGNAL)) {
                Ok(_) => return Some(pid),
                // It was killed.
                Err(_) => _ = self.shims.remove(&pid),
            }
        }
        None
    }

    /// The two ends of a shim that is about to be forked.
    pub(crate) fn ends(&self) -> io::Result<(OwnedFd, Orders)> {
        let (ours, theirs) = pair(SockType::SeqPacket)?;
        Ok((ours, Orders { idle: self.tell.try_clone()?, orders: theirs }))
    }

    pub(crate) fn add(&mut self, pid: Pid, series: String, orders: OwnedFd) {
        self.shims.insert(pid, Shim { series, orders });
    }

    /// Forgets a shim that has ended.
    pub(crate) fn remove(&mut self, pid: Pid) {
        self.shims.remove(&pid);
        self.idle.values_mut().for_each(|idle| idle.retain(|(p, _)| *p != pid));
    }
}

fn pair(kind: SockType) -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
}
