//! A step's course on its node: one thread, one poll over the tasks' files, their end, and whoever
//! speaks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use muster_cgroup::Group;
use muster_proto::shim::v1::{StepOrder, StepShim};
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{
    AttachStep, ExitStatus, NodeOver, StartStep, StdinTaken, StepFailed, TaskData, TaskExit,
    TaskSignal, TasksStarted, WindowSize, step_input,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, setsid};

use super::child::{self, Common};
use super::clients::Client;
use super::dir::StepDir;
use super::feed::Feed;
use super::streams::{Stream, window};
use super::variables;
use crate::adopt::stat;
use crate::client::reachable;
use crate::contain::Containment;
use crate::slice::{Host, chain};
use crate::usage::{self, Counted, Meter};

/// An asker who is away longer than this does not come back: the tasks end. An agent that restarts
/// takes a second or two.
const ORPHANED: Duration = Duration::from_secs(30);
/// After SIGKILL, until what is left counts as unkillable.
const UNKILLABLE: Duration = Duration::from_secs(60);
/// Onlookers at most; each costs a backlog.
const MAX_CLIENTS: usize = 32;
/// Output that waits to be written to the asker's stream beyond this stops reading more, in bytes.
const BACKLOG: usize = 4 << 20;

/// Runs a step's part; the answer is the shim's exit code.
pub(super) fn run(host: &Host, dir: &StepDir, first: UnixStream) -> i32 {
    let mut asker = match Client::new(first, true) {
        Ok(client) => client,
        Err(_) => return 1,
    };
    let begun = begin(host, dir);
    let code = match begun {
        Ok((order, listener, children)) => {
            let start = order.start.clone().unwrap_or_default();
            let group = match order.cgroup.as_str() {
                "" => Ok(None),
                name => host.cgroups.open(name).map_err(|e| chain(&e)).and_then(|group| {
                    group.map(Some).ok_or_else(|| format!("job {} is over", start.job))
                }),
            };
            match group {
                Ok(group) => {
                    Course::new(host, order, start, group, listener, asker).run(&children);
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

/// One task.
struct Task {
    rank: u32,
    pid: Option<Pid>,
    exit: Option<TaskExit>,
    stdin: Option<OwnedFd>,
    fed: u64,
    streams: [Stream; 2],
    terminal: bool,
}

struct Course<'a> {
    host: &'a Host,
    order: StepOrder,
    start: StartStep,
    group: Option<Group>,
    listener: UnixListener,
    clients: Vec<Client>,
    tasks: Vec<Task>,
    feed: Feed,
    feed_closed: bool,
    window: usize,
    meter: Meter,
    oom_kills: u64,
    /// When what is left is killed, and given up.
    kill_at: Option<Instant>,
    give_up_at: Option<Instant>,
    lonely_since: Option<Instant>,
    /// Nobody will ask for output any more.
    discard: bool,
    /// The asker has said good-bye.
    over: bool,
    /// The last word, once no task is left.
    last: Option<NodeOver>,
    buffer: Vec<u8>,
}

/// What a descriptor of the poll belongs to.
#[derive(Clone, Copy)]
enum Of {
    Children,
    Listener,
    Client(usize),
    Stream(usize, usize),
    Stdin(usize),
}

impl<'a> Course<'a> {
    fn new(
        host: &'a Host,
        order: StepOrder,
        start: StartStep,
        group: Option<Group>,
        listener: UnixListener,
        asker: Client,
    ) -> Self {
        let oom_kills = group.as_ref().and_then(|g| g.oom_kills().ok()).unwrap_or(0);
        Self {
            host,
            order,
            start,
            group,
            listener,
            clients: vec![asker],
            tasks: Vec::new(),
            feed: Feed::default(),
            feed_closed: false,
            window: 0,
            meter: Meter::new(Counted::default()),
            oom_kills,
            kill_at: None,
            give_up_at: None,
            lonely_since: None,
            discard: false,
            over: false,
            last: None,
            buffer: Vec::new(),
        }
    }

    fn run(mut self, children: &SignalFd) {
        self.launch();
        loop {
            self.reap();
            self.follow();
            self.close_feed();
            self.clients.iter_mut().for_each(Client::write);
            self.lose_clients();
            if self.is_done() {
                return;
            }
            self.wait(children);
        }
    }

    fn launch(&mut self) {
        let part = self.start.part.clone().unwrap_or_default();
        self.window = window(part.tasks.len() * 2);
        let (order, start, group) = (self.order.clone(), self.start.clone(), self.group.take());
        let common = Common {
            host: self.host,
            environment: variables::of_node(self.host, &order, &start),
            order: &order,
            start: &start,
            group: group.as_ref(),
        };
        let mut started = TasksStarted::default();
        for (local, rank) in part.tasks.iter().copied().enumerate() {
            let mut task = Task {
                rank,
                pid: None,
                exit: None,
                stdin: None,
                fed: 0,
                streams: [Stream::new(rank, 1, None), Stream::new(rank, 2, None)],
                terminal: start.terminal.is_some() && rank == 0,
            };
            match child::start(&common, local) {
                Ok(child) => {
                    started.tasks.push(rank);
                    started.pids.push(child.pid.as_raw().cast_unsigned());
                    task.pid = Some(child.pid);
                    task.stdin = child.stdin;
                    task.streams =
                        [Stream::new(rank, 1, child.stdout), Stream::new(rank, 2, child.stderr)];
                }
                Err(e) => {
                    let note = format!("error: task {rank} cannot be started: {e}");
                    self.tell(&Said::Note(note));
                    let status = Some(ExitStatus { code: 1, signal: 0 });
                    task.exit = Some(TaskExit { task: rank, status, core: false, oom: false });
                }
            }
            self.tasks.push(task);
        }
        self.group = group;
        self.tell(&Said::Started(started));
        let refused: Vec<TaskExit> = self.tasks.iter().filter_map(|t| t.exit).collect();
        refused.into_iter().for_each(|exit| self.tell(&Said::Exit(exit)));
        // What goes to a file of its own, or nowhere, has ended before it began.
        let streams = self.tasks.iter().flat_map(|t| t.streams.iter());
        let ended: Vec<TaskData> = streams.flat_map(Stream::again).collect();
        ended.into_iter().for_each(|data| self.tell(&Said::Data(data)));
    }

    fn tell(&mut self, kind: &Said) {
        for client in self.clients.iter_mut().filter(|c| !c.fresh) {
            client.say(kind.clone());
        }
    }

    fn asker(&mut self) -> Option<&mut Client> {
        self.clients.iter_mut().find(|c| c.asker && !c.is_gone())
    }

    /// Sleeps until something happens or is due.
    fn wait(&mut self, children: &SignalFd) {
        let room = self.discard || self.clients.iter().all(|c| !c.asker || c.backlog() < BACKLOG);
        let mut what = vec![Of::Children, Of::Listener];
        let mut fds: Vec<(BorrowedFd<'_>, PollFlags)> =
            vec![(children.as_fd(), PollFlags::POLLIN), (self.listener.as_fd(), PollFlags::POLLIN)];
        for (at, client) in self.clients.iter().enumerate() {
            let write =
                if client.wants_to_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
            what.push(Of::Client(at));
            fds.push((client.fd(), PollFlags::POLLIN | write));
        }
        for (at, task) in self.tasks.iter().enumerate() {
            for (which, stream) in task.streams.iter().enumerate() {
                if let Some(fd) = stream.wanted(self.window, self.discard).filter(|_| room) {
                    what.push(Of::Stream(at, which));
                    fds.push((fd, PollFlags::POLLIN));
                }
            }
            if let Some(fd) = task.stdin.as_ref().filter(|_| !self.feed.at(task.fed).is_empty()) {
                what.push(Of::Stdin(at));
                fds.push((fd.as_fd(), PollFlags::POLLOUT));
            }
        }
        let mut fds: Vec<PollFd<'_>> =
            fds.into_iter().map(|(fd, flags)| PollFd::new(fd, flags)).collect();
        let timeout = self.timeout();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        let ready: Vec<(Of, PollFlags)> = what
            .into_iter()
            .zip(&fds)
            .filter_map(|(of, fd)| fd.revents().filter(|r| !r.is_empty()).map(|r| (of, r)))
            .collect();
        drop(fds);
        for (of, events) in ready {
            match of {
                Of::Children => while let Ok(Some(_)) = children.read_signal() {},
                Of::Listener => self.accept(),
                Of::Client(at) => {
                    if events
                        .intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR)
                    {
                        self.hear(at);
                    }
                }
                Of::Stream(at, which) => {
                    let mut buffer = std::mem::take(&mut self.buffer);
                    let data = self.tasks[at].streams[which].read(&mut buffer, self.discard);
                    self.buffer = buffer;
                    self.pass_on(data);
                }
                Of::Stdin(at) => self.write_stdin(at),
            }
        }
    }

    fn pass_on(&mut self, data: Option<TaskData>) {
        if let Some(data) = data {
            self.tell(&Said::Data(data));
        }
    }

    fn timeout(&self) -> PollTimeout {
        let orphan = self.lonely_since.filter(|_| !self.discard).map(|at| at + ORPHANED);
        let next = [self.kill_at, self.give_up_at, orphan].into_iter().flatten().min();
        let Some(next) = next else { return PollTimeout::NONE };
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS
                && let Ok(client) = Client::new(stream, false)
            {
                self.clients.push(client);
            }
        }
    }

    fn hear(&mut self, at: usize) {
        for message in self.clients[at].hear() {
            let asker = self.clients[at].asker;
            match message.kind {
                Some(step_input::Kind::Attach(attach)) => self.attach(at, &attach),
                Some(step_input::Kind::Signal(signal)) => self.signal(&signal),
                Some(step_input::Kind::Stdin(input)) => self.feed.add(input),
                Some(step_input::Kind::Window(size)) => self.resize(size),
                Some(step_input::Kind::Taken(taken)) if asker => {
                    let streams = self.tasks.iter_mut().flat_map(|t| t.streams.iter_mut());
                    streams
                        .filter(|s| s.is(taken.task, taken.stream))
                        .for_each(|s| s.take(taken.offset));
                }
                Some(step_input::Kind::Over(_)) if asker => self.over = true,
                _ => {}
            }
        }
    }

    /// Somebody comes to look, or the asker comes back.
    fn attach(&mut self, at: usize, attach: &AttachStep) {
        if attach.resume {
            for other in &mut self.clients {
                other.asker = false;
            }
            self.clients[at].asker = true;
            self.lonely_since = None;
            for taken in &attach.taken {
                let streams = self.tasks.iter_mut().flat_map(|t| t.streams.iter_mut());
                streams
                    .filter(|s| s.is(taken.task, taken.stream))
                    .for_each(|s| s.take(taken.offset));
            }
        }
        let client = &mut self.clients[at];
        client.fresh = false;
        let mut started = TasksStarted::default();
        for task in &self.tasks {
            started.tasks.push(task.rank);
            started.pids.push(task.pid.map_or(0, |pid| pid.as_raw().cast_unsigned()));
        }
        client.say(Said::Started(started));
        if attach.resume {
            let kept = self.tasks.iter().flat_map(|t| t.streams.iter()).flat_map(Stream::again);
            kept.for_each(|data| client.say(Said::Data(data)));
        }
        for exit in self.tasks.iter().filter_map(|t| t.exit) {
            client.say(Said::Exit(exit));
        }
        if let Some(last) = &self.last {
            client.say(Said::Over(*last));
        }
    }

    fn lose_clients(&mut self) {
        self.clients.retain(|c| !c.is_gone());
        if self.asker().is_some() {
            self.lonely_since = None;
        } else if self.lonely_since.is_none() {
            self.lonely_since = Some(Instant::now());
        }
    }

    fn signal(&mut self, wish: &TaskSignal) {
        if wish.terminate {
            self.terminate(Duration::from_millis(wish.kill_after_ms.into()));
            return;
        }
        if wish.tasks.is_empty() {
            let _ = Containment::Descent.signal(wish.signal, None);
            return;
        }
        for task in self.tasks.iter().filter(|t| wish.tasks.contains(&t.rank) && t.exit.is_none()) {
            if let Some(pid) = task.pid {
                // SAFETY: kill(2) takes any numbers; each task leads its own process group.
                unsafe { libc::kill(-pid.as_raw(), wish.signal) };
            }
        }
    }

    fn terminate(&mut self, grace: Duration) {
        let _ = Containment::Descent.signal(libc::SIGCONT, None);
        if !grace.is_zero() {
            let _ = Containment::Descent.signal(libc::SIGTERM, None);
        }
        let at = Instant::now() + grace;
        self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
    }

    fn resize(&mut self, size: WindowSize) {
        let size = child::winsize(size.rows, size.columns);
        let terminals = self.tasks.iter().filter(|t| t.terminal);
        for fd in terminals.filter_map(|t| t.streams[0].fd()) {
            // SAFETY: the descriptor is a terminal's, and the kernel reads one struct.
            unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        }
    }

    fn write_stdin(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        let Some(fd) = &task.stdin else { return };
        match nix::unistd::write(fd, self.feed.at(task.fed)) {
            Ok(length) => task.fed += length as u64,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => task.stdin = None,
        }
    }

    /// Ends the input of tasks that had all of it, and tells how far the slowest is.
    fn close_feed(&mut self) {
        let mut slowest: Option<u64> = None;
        for task in &mut self.tasks {
            if task.stdin.is_some() && (task.exit.is_some() || self.feed.is_over(task.fed)) {
                if let (true, Some(fd), None) = (task.terminal, &task.stdin, &task.exit) {
                    // The end of a terminal's input is a character.
                    let _ = nix::unistd::write(fd, &[4]);
                }
                task.stdin = None;
            }
            if task.stdin.is_some() {
                slowest = Some(slowest.map_or(task.fed, |least| least.min(task.fed)));
            }
        }
        let told = match slowest {
            Some(offset) => {
                self.feed.pass(offset).map(|offset| StdinTaken { offset, closed: false })
            }
            None => {
                self.feed.drop_all();
                let first = !std::mem::replace(&mut self.feed_closed, true);
                first.then_some(StdinTaken { offset: 0, closed: true })
            }
        };
        if let (Some(taken), Some(asker)) = (told, self.asker()) {
            asker.say(Said::StdinTaken(taken));
        }
    }

    /// Collects every ended child: tasks, and orphans that came to the subreaper.
    fn reap(&mut self) {
        while let Some((pid, raw, used)) = usage::wait() {
            self.meter.add(&used);
            let task = self.tasks.iter().position(|t| t.pid.map(Pid::as_raw) == Some(pid));
            let Some(at) = task else { continue };
            let killed = libc::WIFSIGNALED(raw);
            let status = match killed {
                true => ExitStatus { code: 0, signal: libc::WTERMSIG(raw).cast_unsigned() },
                false => ExitStatus { code: libc::WEXITSTATUS(raw).cast_unsigned(), signal: 0 },
            };
            let oom = status.signal == libc::SIGKILL.cast_unsigned() && self.was_oom();
            let exit = TaskExit {
                task: self.tasks[at].rank,
                status: Some(status),
                core: killed && libc::WCOREDUMP(raw),
                oom,
            };
            self.tasks[at].exit = Some(exit);
            self.tell(&Said::Exit(exit));
        }
    }

    /// The kernel has killed for memory in the job's group since the step began.
    fn was_oom(&self) -> bool {
        let now = self.group.as_ref().and_then(|g| g.oom_kills().ok()).unwrap_or(0);
        now > self.oom_kills
    }

    /// Deadlines, and the end.
    fn follow(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            let _ = Containment::Descent.kill_all();
            self.give_up_at = Some(now + UNKILLABLE);
        }
        if !self.discard && self.lonely_since.is_some_and(|at| at + ORPHANED <= now) {
            self.discard = true;
            self.terminate(Duration::from_secs(self.order.kill_wait_seconds.into()));
        }
        if self.last.is_some() || self.tasks.iter().any(|t| t.exit.is_none()) {
            if self.give_up_at.is_some_and(|at| at <= now) && self.last.is_none() {
                self.give_up();
            }
            return;
        }
        // Every task has ended: what they left behind goes too.
        if has_children() {
            if self.give_up_at.is_some_and(|at| at <= now) {
                self.give_up();
            } else if self.give_up_at.is_none() {
                let _ = Containment::Descent.kill_all();
                self.give_up_at = Some(now + UNKILLABLE);
            }
            return;
        }
        // A pipe that somebody outside holds open says nothing more of ours once it is empty.
        if self.tasks.iter().flat_map(|t| &t.streams).all(Stream::is_over) {
            self.finish(0);
        } else {
            self.drain();
        }
    }

    /// Reads what is left in pipes whose writers may live elsewhere, as far as the window allows.
    fn drain(&mut self) {
        let (window, discard) = (self.window, self.discard);
        for at in 0..self.tasks.len() {
            for which in 0..2 {
                let stream = &mut self.tasks[at].streams[which];
                let Some(fd) = stream.wanted(window, discard) else { continue };
                let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
                let quiet = poll(&mut fds, PollTimeout::ZERO) == Ok(0);
                if quiet {
                    let end = stream.close();
                    self.pass_on(end);
                }
            }
        }
        if self.tasks.iter().flat_map(|t| &t.streams).all(Stream::is_over) {
            self.finish(0);
        }
    }

    fn give_up(&mut self) {
        let left = Containment::Descent.procs().map_or(1, |procs| procs.len());
        self.finish(u32::try_from(left).unwrap_or(u32::MAX));
    }

    fn finish(&mut self, unkillable: u32) {
        let (usage, _) = self.meter.end(&Containment::Descent);
        let last = NodeOver { usage: Some(usage), unkillable };
        self.last = Some(last);
        self.give_up_at = None;
        self.tell(&Said::Over(last));
    }

    fn is_done(&self) -> bool {
        self.last.is_some()
            && ((self.over && self.clients.iter().all(|c| !c.wants_to_write())) || self.discard)
    }
}

/// Whether any child is left, ended or not.
fn has_children() -> bool {
    // SAFETY: all zero is a value of the struct, which the kernel fills in.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the struct is live.
    let done = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    !(done == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD))
}
