//! How a step's part ends: what is left of it goes, what was written is read to its end, and the last
//! word is said.

use std::io;
use std::time::{Duration, Instant};

use muster_proto::shim::v1::StopCause;
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{ExitStatus, NodeOver, PartEnd, PartFigures};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Course;
use crate::slice::{chain, now_ms};
use crate::step::streams::Stream;
use crate::{NoticeKind, lines, notice};

/// An asker who is away longer than this does not come back: the tasks end. An agent that restarts
/// takes a second or two.
pub(super) const ORPHANED: Duration = Duration::from_secs(30);
/// After SIGKILL, until what is left counts as unkillable.
const UNKILLABLE: Duration = Duration::from_secs(60);
/// Between looks at a group that empties.
const LOOK: Duration = Duration::from_millis(5);

impl Course<'_> {
    /// Says, once for the step, that and why it is stopped.
    pub(super) fn announce(&mut self, cause: StopCause) {
        let first = self.start.part.as_ref().is_some_and(|part| part.index == 0);
        if first && self.last.is_none() && !std::mem::replace(&mut self.announced, true) {
            let id = format!("{}.{}", self.start.job, self.start.step);
            let line = lines::step_stopped(&id, &self.order.node, cause, now_ms());
            self.tell(&Said::Note(line));
        }
    }

    pub(super) fn terminate(&mut self, grace: Duration) {
        let _ = self.containment.signal(libc::SIGCONT, &[]);
        if !grace.is_zero() {
            self.signal_programs(libc::SIGTERM);
        }
        let at = Instant::now() + grace;
        self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
    }

    /// Deadlines, and the end.
    pub(super) fn follow(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            let _ = self.containment.kill_all();
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
        if !self.mpi.close() {
            return;
        }
        // Every task has ended: what they left behind goes too.
        self.look_at = None;
        let left = has_children();
        if left || !self.containment.is_empty().unwrap_or(true) {
            if self.give_up_at.is_some_and(|at| at <= now) {
                self.give_up();
                return;
            }
            if self.give_up_at.is_none() {
                let _ = self.containment.kill_all();
                self.give_up_at = Some(now + UNKILLABLE);
            }
            // Of what is no child of ours nobody tells the end.
            self.look_at = (!left).then(|| now + LOOK);
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
        let left = self.containment.procs().map_or(1, |procs| procs.len());
        self.finish(u32::try_from(left).unwrap_or(u32::MAX));
    }

    fn finish(&mut self, unkillable: u32) {
        let tasks = self.figures().tasks;
        let (usage, counted) = self.meter.end(&self.containment);
        let own = self.containment.group().is_some();
        let oom_kills = if own { counted.oom_kills.saturating_sub(self.oom_kills) } else { 0 };
        if oom_kills > 0 {
            let id = format!("{}.{}", self.start.job, self.start.step);
            let line = lines::of_step(&lines::oom(&id, oom_kills));
            self.tell(&Said::Note(line));
        }
        let oom_kills = u32::try_from(oom_kills).unwrap_or(u32::MAX);
        let last = NodeOver { usage: Some(usage), unkillable, oom_kills };
        if unkillable == 0
            && let Some(group) = self.containment.group()
            && let Err(e) = group.remove()
        {
            // It goes with the slice's.
            eprintln!("muster shim: {}", chain(&e));
        }
        self.last = Some(last);
        let (job, step) = (self.start.job, self.start.step);
        let figures = PartFigures { usage: Some(usage), tasks, ..PartFigures::default() };
        self.end = Some(PartEnd {
            job,
            attempt: self.start.attempt,
            step,
            figures: Some(figures),
            status: Some(self.worst()),
            oom: oom_kills > 0,
        });
        self.give_up_at = None;
        self.tell(&Said::Over(last));
    }

    /// The highest end of the tasks here; a signal outranks codes.
    fn worst(&self) -> ExitStatus {
        let ends = || self.tasks.iter().filter_map(|task| task.exit?.status);
        let signal = ends().map(|status| status.signal).max().unwrap_or(0);
        let code = ends().map(|status| status.code).max().unwrap_or(0);
        ExitStatus { code: if signal > 0 { 0 } else { code }, signal }
    }

    /// Nobody was there to hear how it went: the agent is.
    pub(super) fn report_orphan(self) {
        let Some(end) = self.end.filter(|_| !self.over) else { return };
        let (job, attempt) = (end.job, end.attempt);
        let told = notice::send(&self.host.spool, job, attempt, NoticeKind::StepEnded(end));
        if let Err(fault) = told {
            eprintln!("muster shim: tell the end of step {job}.{}: {fault}", self.start.step);
        }
    }

    pub(super) fn is_done(&self) -> bool {
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
