//! The tasks of the node: how they start and how each ends.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{ExitStatus, TaskData, TaskExit, TasksStarted};
use nix::unistd::Pid;

use super::Course;
use crate::identity::Groups;
use crate::quick::{self, Standing};
use crate::step::child::{self, Common, Quick};
use crate::step::gpus;
use crate::step::streams::{Stream, window};
use crate::step::variables;
use crate::usage;

/// One task.
pub(super) struct Task {
    pub(super) rank: u32,
    pub(super) pid: Option<Pid>,
    pub(super) exit: Option<TaskExit>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) fed: u64,
    pub(super) streams: [Stream; 2],
    pub(super) terminal: bool,
    /// It was not its program yet when the others were.
    pub(super) late: Option<Quick>,
}

impl Course<'_> {
    pub(super) fn launch(&mut self) {
        let part = self.start.part.clone().unwrap_or_default();
        self.window = window(part.tasks.len() * 2);
        let (order, start, group) = (self.order.clone(), self.start.clone(), self.group.take());
        // Without them each task finds its own way in, or says why not.
        let doors = group.as_ref().and_then(|group| group.doors().ok()).unwrap_or_default();
        let common = Common {
            host: self.host,
            environment: variables::of_node(self.host, &order, &start),
            order: &order,
            start: &start,
            group: group.as_ref(),
            groups: order.user.as_ref().and_then(|user| Groups::look_up(user).ok()),
            // What cannot be bound was refused at the beginning.
            gpus: gpus::of_tasks(&order, &start).unwrap_or_default(),
            doors: &doors,
        };
        let mut started = TasksStarted::default();
        self.standing = Standing::lay_down(self.host);
        let all = 0..part.tasks.len();
        let starting: Vec<_> = all.map(|local| child::start(&common, &self.mpi, local)).collect();
        let until = Instant::now() + quick::PATIENCE;
        let mut tasks = Vec::with_capacity(part.tasks.len());
        for ((local, rank), starting) in part.tasks.iter().copied().enumerate().zip(starting) {
            let mut task = Task {
                rank,
                pid: None,
                exit: None,
                stdin: None,
                fed: 0,
                streams: [Stream::new(rank, 1, None), Stream::new(rank, 2, None)],
                terminal: start.terminal.is_some() && rank == 0,
                late: None,
            };
            match starting.and_then(|s| s.settle(&common, &self.mpi, local, until)) {
                Ok(child) => {
                    task.late = child.late;
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
                    task.exit = Some(TaskExit { task: rank, status, ..TaskExit::default() });
                }
            }
            tasks.push(task);
        }
        (self.tasks, self.group, self.doors) = (tasks, group, doors);
        self.stand_up();
        self.mpi.launched();
        self.tell(&Said::Started(started));
        let refused: Vec<TaskExit> = self.tasks.iter().filter_map(|t| t.exit).collect();
        refused.into_iter().for_each(|exit| self.tell(&Said::Exit(exit)));
        // What goes to a file of its own, or nowhere, has ended before it began.
        let streams = self.tasks.iter().flat_map(|t| t.streams.iter());
        let ended: Vec<TaskData> = streams.flat_map(Stream::again).collect();
        ended.into_iter().for_each(|data| self.tell(&Said::Data(data)));
    }

    /// Takes up the standing that was laid down, once no task shares this process's memory.
    fn stand_up(&mut self) {
        if self.tasks.iter().all(|task| task.late.is_none())
            && let Some(standing) = self.standing.take()
        {
            standing.take_up();
        }
    }

    /// Collects every ended child: tasks, and orphans that came to the subreaper.
    pub(super) fn reap(&mut self) {
        while let Some((pid, raw, used)) = usage::wait() {
            // What is ours is no usage of the user's.
            if !self.mpi.buried(pid) {
                self.meter.add(&used);
            }
            let task = self.tasks.iter().position(|t| t.pid.map(Pid::as_raw) == Some(pid));
            let Some(at) = task else { continue };
            let late = self.tasks[at].late.take();
            self.stand_up();
            if late.is_some_and(|quick| quick.failed(Duration::ZERO) == Some(true)) {
                let rank = self.tasks[at].rank;
                self.tell(&Said::Note(format!("error: task {rank} could not become its program")));
            }
            let killed = libc::WIFSIGNALED(raw);
            let status = match killed {
                true => ExitStatus { code: 0, signal: libc::WTERMSIG(raw).cast_unsigned() },
                false => ExitStatus { code: libc::WEXITSTATUS(raw).cast_unsigned(), signal: 0 },
            };
            // A shell whose command was killed says so by its code.
            let by_kill = status.signal == libc::SIGKILL.cast_unsigned()
                || status.code == 128 + libc::SIGKILL.cast_unsigned();
            let oom = by_kill && self.was_oom();
            let exit = TaskExit {
                task: self.tasks[at].rank,
                status: Some(status),
                core: killed && libc::WCOREDUMP(raw),
                oom,
                usage: Some(usage::of_process(&used)),
            };
            self.tasks[at].exit = Some(exit);
            self.tell(&Said::Exit(exit));
            self.mpi.ended(at);
        }
    }

    /// The kernel has killed for memory in the job's group since the step began.
    fn was_oom(&self) -> bool {
        let now = self.group.as_ref().and_then(|g| g.oom_kills().ok()).unwrap_or(0);
        now > self.oom_kills
    }
}
