//! Whoever speaks with the step: one asker, who is obeyed and for whom output is kept, and onlookers.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use muster_proto::shim::v1::StopCause;
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{AttachStep, TaskData, TaskSignal, TasksStarted, WindowSize, step_input};

use nix::unistd::Pid;

use super::Course;
use super::tasks::Task;
use crate::contain;
use crate::step::child;
use crate::step::clients::Client;
use crate::step::streams::Stream;

/// Onlookers at most; each costs a backlog.
const MAX_CLIENTS: usize = 32;

impl Course<'_> {
    pub(super) fn tell(&mut self, kind: &Said) {
        for client in self.clients.iter_mut().filter(|c| !c.fresh) {
            client.say(kind.clone());
        }
    }

    /// What is between the nodes is no onlooker's.
    pub(super) fn tell_asker(&mut self, kind: Said) {
        if let Some(asker) = self.asker() {
            asker.say(kind);
        }
    }

    pub(super) fn asker(&mut self) -> Option<&mut Client> {
        self.clients.iter_mut().find(|c| c.asker && !c.is_gone())
    }

    pub(super) fn pass_on(&mut self, data: Option<TaskData>) {
        if let Some(data) = data {
            self.tell(&Said::Data(data));
        }
    }

    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS
                && let Ok(client) = Client::new(stream, false)
            {
                self.clients.push(client);
                // What is said already counts before the ends of tasks that follow from it.
                self.hear(self.clients.len() - 1);
            }
        }
    }

    pub(super) fn hear(&mut self, at: usize) {
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
                Some(step_input::Kind::Look(_)) => {
                    let figures = self.figures();
                    self.clients[at].say(Said::Figures(figures));
                }
                Some(other) if asker => self.mpi.take(other),
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
            self.mpi.again().into_iter().for_each(|said| client.say(said));
        }
        for exit in self.tasks.iter().filter_map(|t| t.exit) {
            client.say(Said::Exit(exit));
        }
        if let Some(last) = &self.last {
            client.say(Said::Over(*last));
        }
    }

    pub(super) fn lose_clients(&mut self) {
        self.clients.retain(|c| !c.is_gone());
        if self.asker().is_some() {
            self.lonely_since = None;
        } else if self.lonely_since.is_none() {
            self.lonely_since = Some(Instant::now());
        }
    }

    fn signal(&mut self, wish: &TaskSignal) {
        if wish.terminate || wish.announce {
            self.announce(StopCause::try_from(wish.cause).unwrap_or_default());
        }
        if wish.terminate {
            return self.terminate(Duration::from_millis(wish.kill_after_ms.into()));
        }
        if wish.announce {
            return;
        }
        if wish.tasks.is_empty() {
            self.signal_all(wish.signal);
            return;
        }
        let inside = contain::inside(&self.around());
        for task in self.tasks.iter().filter(|t| wish.tasks.contains(&t.rank) && t.exit.is_none()) {
            let Some(pid) = task.pid else { continue };
            match inside.get(&pid) {
                Some(program) => {
                    contain::family(*program)
                        .into_iter()
                        .for_each(|p| contain::send(p, wish.signal));
                }
                // SAFETY: kill(2) takes any numbers; each task leads its own process group.
                None => drop(unsafe { libc::kill(-pid.as_raw(), wish.signal) }),
            }
        }
    }

    /// The tasks' processes that may be around containers.
    fn around(&self) -> Vec<Pid> {
        let there = |task: &Task| task.pid.filter(|_| task.exit.is_none());
        match self.start.container {
            Some(_) => self.tasks.iter().filter_map(there).collect(),
            None => Vec::new(),
        }
    }

    /// To every process of the step but those around containers.
    pub(super) fn signal_programs(&self, signal: i32) {
        let around: Vec<Pid> = contain::inside(&self.around()).into_keys().collect();
        let _ = self.containment.signal(signal, &around);
    }

    /// To every process of the step. Without a group of its own a stop must not be outrun.
    fn signal_all(&self, signal: i32) {
        match (signal, self.containment.group()) {
            (libc::SIGSTOP, None) => drop(self.containment.freeze()),
            _ => self.signal_programs(signal),
        }
    }

    fn resize(&mut self, size: WindowSize) {
        let size = child::winsize(size.rows, size.columns);
        let terminals = self.tasks.iter().filter(|t| t.terminal);
        for fd in terminals.filter_map(|t| t.streams[0].fd()) {
            // SAFETY: the descriptor is a terminal's, and the kernel reads one struct.
            unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        }
    }
}
