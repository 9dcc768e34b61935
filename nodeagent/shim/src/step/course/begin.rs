//! From the launcher's fork to a step that listens: its order is read, its socket is there, its group
//! is known. What cannot begin says why to whoever asked.

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use muster_cgroup::Group;
use muster_proto::shim::v1::{StepOrder, StepShim};
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{StartStep, StepFailed};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::setsid;

use super::Course;
use crate::adopt::stat;
use crate::client::reachable;
use crate::slice::{Host, chain, limits_of};
use crate::step::child::Common;
use crate::step::clients::Client;
use crate::step::dir::{StepDir, group_name};
use crate::step::gpus;
use crate::step::mpi::Mpi;
use crate::step::variables;

/// Runs a step's part; the answer is the shim's exit code.
pub(in crate::step) fn run(host: &Host, dir: &StepDir, first: UnixStream) -> i32 {
    let mut asker = match Client::new(first, true) {
        Ok(client) => client,
        Err(_) => return 1,
    };
    let begun = begin(host, dir);
    let code = match begun {
        Ok((order, listener, children)) => {
            let start = order.start.clone().unwrap_or_default();
            let ready = group(host, &order, &start).and_then(|group| {
                meet(host, &order, &start, group.as_ref()).map(|mpi| (group, mpi))
            });
            match ready {
                Ok((group, mpi)) => {
                    Course::new(host, order, start, group, listener, asker, mpi).run(&children);
                    0
                }
                Err(text) => {
                    refuse(&mut asker, text);
                    1
                }
            }
        }
        Err(text) => {
            refuse(&mut asker, text);
            1
        }
    };
    dir.remove();
    code
}

/// The group that the tasks are to join: their step's own inside the slice's, or the slice's.
fn group(host: &Host, order: &StepOrder, start: &StartStep) -> Result<Option<Group>, String> {
    if order.cgroup.is_empty() {
        return Ok(None);
    }
    let slice = host.cgroups.open(&order.cgroup).map_err(|e| chain(&e))?;
    let slice = slice.ok_or_else(|| format!("job {} is over", start.job))?;
    let Some(limits) = &order.limits else { return Ok(Some(slice)) };
    let limits = limits_of(Some(limits))?;
    let name = group_name(start.step);
    host.cgroups.create_inside(&slice, &name, &limits).map(Some).map_err(|e| chain(&e))
}

/// Prepares how the tasks find each other.
fn meet(
    host: &Host,
    order: &StepOrder,
    start: &StartStep,
    group: Option<&Group>,
) -> Result<Mpi, String> {
    if start.mpi.is_none() {
        return Ok(Mpi::none());
    }
    let environment = variables::of_node(host, order, start);
    let gpus = gpus::of_tasks(order, start)?;
    let common = Common { host, order, start, group, environment, groups: None, gpus, doors: &[] };
    Mpi::begin(&common)
}

fn refuse(asker: &mut Client, text: String) {
    asker.say(Said::Failed(StepFailed { text, gone: false }));
    // A socket pair has room for some lines.
    asker.write();
}

fn begin(host: &Host, dir: &StepDir) -> Result<(StepOrder, UnixListener, SignalFd), String> {
    let fail = |what: &str, e: &dyn std::error::Error| format!("{what}: {}", chain(e));
    setsid().map_err(|e| fail("start a session", &e))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| fail("become the subreaper", &e))?;
    umask(Mode::from_bits_truncate(0o077));
    let null = std::fs::File::open("/dev/null").map_err(|e| fail("open /dev/null", &e))?;
    // The launcher's socket must not outlive it here.
    // SAFETY: both descriptors are open, and nothing in this process reads stdin any more.
    unsafe { libc::dup2(null.as_raw_fd(), 0) };
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).map_err(|e| fail("block", &e))?;
    for (number, how) in [
        (Signal::SIGCHLD, SigHandler::SigDfl),
        (Signal::SIGTERM, SigHandler::SigIgn),
        (Signal::SIGINT, SigHandler::SigIgn),
        (Signal::SIGHUP, SigHandler::SigIgn),
        (Signal::SIGPIPE, SigHandler::SigIgn),
    ] {
        // SAFETY: neither disposition runs code of ours.
        unsafe { signal(number, how) }.map_err(|e| fail("set signals", &e))?;
    }
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let children = SignalFd::with_flags(&mask, flags).map_err(|e| fail("watch children", &e))?;
    let order = dir.read_order().map_err(|e| fail("order", &e))?;
    gpus::of_tasks(&order, &order.start.clone().unwrap_or_default())?;
    let pid = std::process::id();
    let start_ticks = stat(pid).map_or(0, |stat| stat.start_ticks);
    let shim = StepShim { pid, start_ticks, boot_id: host.boot_id.clone() };
    dir.claim(&shim).map_err(|e| fail("claim", &e))?;
    let socket = dir.socket_path();
    let (path, _dir) = reachable(&socket).map_err(|e| fail("socket", &e))?;
    let listener = UnixListener::bind(path).map_err(|e| fail("listen in the spool", &e))?;
    listener.set_nonblocking(true).map_err(|e| fail("socket", &e))?;
    Ok((order, listener, children))
}
