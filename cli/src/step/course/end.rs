//! What ends a step before its tasks do: signals, limits, faults.

use std::time::Duration;

use muster_proto::shim::v1::StopCause;
use muster_proto::v1::step_input::Kind as Ask;
use muster_proto::v1::{MpiKind, TaskSignal};
use tokio::time::Instant;

use super::Course;
use crate::exit;
use crate::step::report::ranges;
use crate::step::terminal;

/// Between the two interrupts that end a step.
const TWICE: Duration = Duration::from_secs(1);
/// Beyond the tasks' grace, until srun stops waiting for a node.
const SLACK: Duration = Duration::from_secs(75);

/// SIGTERM now, SIGKILL when the grace is over.
pub(super) fn terminate(grace: Duration, cause: StopCause) -> TaskSignal {
    let kill_after_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
    let cause = cause.into();
    TaskSignal { terminate: true, kill_after_ms, signal: 15, cause, ..TaskSignal::default() }
}

impl Course {
    pub(super) async fn terminate(&mut self, grace: Duration) {
        if !std::mem::replace(&mut self.terminating, true) {
            let seconds = self.kill_wait.as_secs() + 2;
            self.say(&format!(
                "Job step aborted: Waiting up to {seconds} seconds for job step to finish."
            ));
            if self.wish.mpi.is_some_and(|kind| kind != MpiKind::None) {
                // What is left of a world waits for the rest of it.
                self.place.end_others();
            }
        }
        self.ask_all(&Ask::Signal(terminate(grace, self.cause))).await;
        self.give_up_at = self.give_up_at.or(Some(Instant::now() + grace + SLACK));
    }

    pub(super) async fn signal(&mut self, signal: i32) {
        use nix::libc::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
        match signal {
            SIGWINCH => {
                if let Some(size) = terminal::size().filter(|_| self.wish.pty) {
                    self.ask_all(&Ask::Window(size)).await;
                }
            }
            SIGINT => self.interrupt().await,
            SIGTERM | SIGHUP if self.terminating => self.terminate(Duration::ZERO).await,
            SIGTERM | SIGHUP => {
                self.say(&format!("forcing termination of StepId={}", self.id()));
                self.cancelled = true;
                self.terminate(self.kill_wait).await;
            }
            signal => {
                self.ask_all(&Ask::Signal(TaskSignal { signal, ..TaskSignal::default() })).await;
            }
        }
    }

    /// One asks, two end, three kill.
    async fn interrupt(&mut self) {
        let now = Instant::now();
        let again = self.interrupted_at.is_some_and(|at| now - at < TWICE);
        self.interrupted_at = Some(now);
        if self.terminating {
            self.terminate(Duration::ZERO).await;
            return;
        }
        if again || self.wish.quit_on_interrupt || self.wish.silent_on_interrupt {
            self.say(&format!("sending Ctrl-C to StepId={}", self.id()));
            let signal = nix::libc::SIGINT;
            self.ask_all(&Ask::Signal(TaskSignal { signal, ..TaskSignal::default() })).await;
            self.cancelled = true;
            self.terminate(self.kill_wait).await;
            return;
        }
        exit::say("srun", "interrupt (one more within 1 sec to abort)");
        self.say_states();
    }

    pub(super) fn say_states(&self) {
        let id = self.id();
        let all = || self.nodes.iter().flat_map(|n| n.part.tasks.iter().copied());
        let running: Vec<u32> = all().filter(|t| !self.report.has_ended(*t)).collect();
        let ended: Vec<u32> = all().filter(|t| self.report.has_ended(*t)).collect();
        for (tasks, word) in [(running, "running"), (ended, "exited")] {
            if !tasks.is_empty() {
                let noun = if tasks.len() == 1 { "task" } else { "tasks" };
                exit::say("srun", &format!("StepId={id} {noun} {}: {word}", ranges(tasks)));
            }
        }
    }

    /// The next moment at which something is due.
    pub(in crate::step) fn deadline(&self) -> Option<Instant> {
        let own = [self.tell_at, self.wait_until, self.limit_at, self.give_up_at];
        own.into_iter().chain([self.notice_at()]).flatten().min()
    }

    /// Does what is due.
    pub(in crate::step) async fn due(&mut self) {
        let now = Instant::now();
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.tell_at) {
            self.tell();
        }
        self.name_away();
        if passed(self.wait_until) {
            // Far off instead of unset: the first end is told once.
            self.wait_until = Some(now + Duration::from_secs(86_400 * 365));
            if self.report.ended() < self.grant.tasks as usize {
                let seconds = self.wish.wait.unwrap_or_default().as_secs();
                self.say(&format!("First task exited {seconds}s ago"));
                self.say_states();
                self.say(&format!("Terminating StepId={}", self.id()));
                self.terminate(self.kill_wait).await;
            }
        }
        if passed(self.limit_at) {
            self.limit_at = None;
            if !self.cancelled {
                let text = format!("StepId={} exceeded its time limit", self.id());
                exit::error("srun", &text);
                self.cause = StopCause::TimeLimit;
            }
            self.cancelled = true;
            self.terminate(self.kill_wait).await;
        }
        if passed(self.give_up_at) {
            self.give_up_at = None;
            for at in 0..self.nodes.len() {
                if !self.nodes[at].over {
                    let node = self.nodes[at].part.node.clone();
                    exit::error("srun", &format!("{node}: the tasks do not end; given up"));
                    self.report.fault();
                    self.nodes[at].over = true;
                }
            }
            self.progress.values_mut().for_each(|p| {
                p.end = true;
                p.written = p.received;
            });
        }
    }

    pub(super) fn fail(&mut self, text: &str) {
        exit::error("srun", text);
        self.report.fault();
        let now = Instant::now();
        // Due at once: the loop ends the tasks.
        self.limit_at = Some(now);
        self.cancelled = true;
    }
}
