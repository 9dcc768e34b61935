//! A step's course on its node: one thread, one poll over the tasks' files, their end, and whoever
//! speaks.
//!
//! - `begin`: from the fork to the first poll
//! - `tasks`: how they start and end; `input`: what they are fed with; `figures`: what they use
//! - `speech`: whoever listens, and what is said and heard
//! - `ending`: what is left, and the last word

mod begin;
mod ending;
mod figures;
mod input;
mod speech;
mod tasks;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use muster_cgroup::Group;
use muster_proto::shim::v1::StepOrder;
use muster_proto::v1::{NodeOver, PartEnd, StartStep};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::clients::Client;
use super::feed::Feed;
use super::mpi::Mpi;
use crate::contain::Containment;
use crate::quick::Standing;
use crate::slice::Host;
use crate::usage::{Counted, Meter};
use ending::ORPHANED;
use figures::Sampling;
use tasks::Task;

pub(super) use begin::run;

/// Output that waits to be written to the asker's stream beyond this stops reading more, in bytes.
const BACKLOG: usize = 4 << 20;

pub(super) struct Course<'a> {
    host: &'a Host,
    order: StepOrder,
    start: StartStep,
    /// What the tasks join.
    group: Option<Group>,
    doors: Vec<OwnedFd>,
    /// Laid down while tasks share this process's memory.
    standing: Option<Standing>,
    /// Whose processes are the step's: its own group, or what descends from here.
    containment: Containment,
    listener: UnixListener,
    clients: Vec<Client>,
    tasks: Vec<Task>,
    mpi: Mpi,
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
    /// The user knows that it was stopped.
    announced: bool,
    /// The asker has said good-bye.
    over: bool,
    /// The last word, once no task is left, and what the agent is told where nobody hears that.
    last: Option<NodeOver>,
    end: Option<PartEnd>,
    /// When the group, of which no child is left, is looked at again.
    look_at: Option<Instant>,
    sampling: Option<Sampling>,
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
    Mpi(usize),
}

impl<'a> Course<'a> {
    fn new(
        host: &'a Host,
        order: StepOrder,
        start: StartStep,
        group: Option<Group>,
        listener: UnixListener,
        asker: Client,
        mpi: Mpi,
    ) -> Self {
        let oom_kills = group.as_ref().and_then(|g| g.oom_kills().ok()).unwrap_or(0);
        let own = group.clone().filter(|_| order.limits.is_some());
        let sampling = own.as_ref().map(|_| Sampling::new(order.sample_seconds));
        Self {
            host,
            order,
            start,
            group,
            doors: Vec::new(),
            standing: None,
            containment: Containment::new(own),
            listener,
            clients: vec![asker],
            tasks: Vec::new(),
            mpi,
            feed: Feed::default(),
            feed_closed: false,
            window: 0,
            meter: Meter::new(Counted::default()),
            oom_kills,
            kill_at: None,
            give_up_at: None,
            lonely_since: None,
            discard: false,
            announced: false,
            over: false,
            last: None,
            end: None,
            look_at: None,
            sampling: sampling.flatten(),
            buffer: Vec::new(),
        }
    }

    fn run(mut self, children: &SignalFd) {
        self.launch();
        loop {
            self.reap();
            self.sample();
            self.follow();
            self.close_feed();
            self.mpi.news().into_iter().for_each(|said| self.tell_asker(said));
            self.clients.iter_mut().for_each(Client::write);
            self.lose_clients();
            if self.is_done() {
                return self.report_orphan();
            }
            self.wait(children);
        }
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
        // What they say ends up with the asker as well.
        let unheard = if room { PollFlags::empty() } else { PollFlags::POLLIN };
        for (at, fd, flags) in self.mpi.fds() {
            what.push(Of::Mpi(at));
            fds.push((fd, flags.difference(unheard)));
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
                Of::Mpi(at) => self.mpi.hear(at),
            }
        }
    }

    fn timeout(&self) -> PollTimeout {
        let orphan = self.lonely_since.filter(|_| !self.discard).map(|at| at + ORPHANED);
        let sample = self.sampling.as_ref().filter(|_| self.last.is_none()).map(|s| s.next);
        let all =
            [self.kill_at, self.give_up_at, orphan, self.look_at, sample, self.mpi.deadline()];
        let next = all.into_iter().flatten().min();
        let Some(next) = next else { return PollTimeout::NONE };
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }
}
