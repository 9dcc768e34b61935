//! The shim's loop: one poll over the children's signal, the child's news and the socket, with the
//! next deadline as its timeout. Everything that happens to the slice happens here, in one thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use muster_proto::shim::v1::shim_request::Kind;
use muster_proto::shim::v1::{Launch, ShimReply, ShimRequest, Signal as SignalNotice, StopCause};
use muster_proto::v1::{Container, ExitStatus, Usage};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::child::{self, Batch, News, read_news};
use crate::contain::{self, Containment};
use crate::control::Control;
use crate::lines::{self, JobStderr};
use crate::slice::{BATCH_GROUP, Host, Refusal, chain, now_ms};
use crate::spool::SliceDir;
use crate::step::announce_stop;
use crate::timetable::{Course, Due, Now, Timetable, Warning};
use crate::usage::{self, Counted, Meter};
use crate::{NoticeKind, notice};

/// The descriptor that tells of ended children, from before the first of them, and deaf to what is
/// for the agent.
pub(crate) fn watch_children() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    // The agent's stop and a terminal's hang-up are not for the slice.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }?;
    }
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// An exit code above this stands for a signal.
const SIGNALLED: u32 = 128;

/// The answer to a request of a later version.
pub const UNKNOWN_REQUEST: &str = "a request of a kind that this shim does not know";

/// How a slice ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stopped: StopCause,
    pub(crate) oom_kills: u64,
    pub(crate) unkillable: u32,
    pub(crate) usage: Usage,
    pub(crate) refusal: Option<Refusal>,
    /// The user's groups, where the child has looked them up.
    pub(crate) groups: Option<Vec<u32>>,
    /// It ended by itself, nothing was left of it and nobody had touched its group: what that has
    /// counted so far. The group may serve another slice.
    pub(crate) undisturbed: Option<Counted>,
}

impl Outcome {
    /// It never began.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..Self::default() }
    }
}

/// A slice while its batch process, or what that left, is alive.
#[derive(Debug)]
pub(crate) struct Supervision<'a> {
    launch: &'a Launch,
    containment: &'a Containment,
    control: &'a mut Control,
    children: &'a SignalFd,
    slice: Slice<'a>,
}

/// The part of the supervision that requests act on.
#[derive(Debug)]
struct Slice<'a> {
    launch: &'a Launch,
    containment: &'a Containment,
    host: &'a Host,
    batch: Batch,
    /// News is still to come.
    listening: bool,
    /// The batch process could not become the script the quick way.
    failed: bool,
    stderr: Option<JobStderr>,
    groups: Option<Vec<u32>>,
    refusal: Option<Refusal>,
    /// Of the batch process, once it has ended.
    status: Option<ExitStatus>,
    timetable: Timetable,
    started: Instant,
    meter: Meter,
    /// Was ever asked to stand still.
    suspended: bool,
    /// The allocation of a `salloc` or `srun` was given back: the process that held it counts as
    /// having ended with this code.
    released: Option<u32>,
}

impl<'a> Supervision<'a> {
    pub(crate) fn new(
        host: &'a Host,
        launch: &'a Launch,
        batch: Batch,
        containment: &'a Containment,
        (control, children): (&'a mut Control, &'a SignalFd),
        before: Counted,
    ) -> Self {
        let asked = launch.spec.as_ref().and_then(|s| s.signal.as_ref());
        let warning = asked.filter(|s| s.signal != 0).map(|s| Warning {
            signal: s.signal,
            before_ms: i64::from(s.before_seconds) * 1000,
            batch_only: s.batch_only,
        });
        let unkillable_ms = i64::from(launch.unkillable_seconds.max(1)) * 1000;
        let slice = Slice {
            launch,
            containment,
            host,
            batch,
            listening: true,
            failed: false,
            stderr: None,
            groups: None,
            refusal: None,
            status: None,
            timetable: Timetable::new(launch.end_at, warning, unkillable_ms),
            started: Instant::now(),
            meter: Meter::new(before),
            suspended: false,
            released: None,
        };
        Self { launch, containment, control, children, slice }
    }

    /// Runs until no process of the slice is left, or what is left cannot be killed.
    pub(crate) fn run(mut self) -> nix::Result<Outcome> {
        loop {
            self.slice.reap();
            self.slice.follow_deadlines();
            if self.slice.is_over() {
                return Ok(self.outcome());
            }
            self.slice.wait(self.children, self.control)?;
            while let Ok(Some(_)) = self.children.read_signal() {}
            self.control.serve(|request| self.slice.answer(request));
        }
    }

    fn outcome(mut self) -> Outcome {
        self.slice.hear_all_news();
        let (usage, counted) = self.slice.meter.end(self.containment);
        let oom_kills = counted.oom_kills.saturating_sub(self.slice.meter.oom_kills_before());
        if oom_kills > 0 {
            let step = format!("{}.{BATCH_GROUP}", self.launch.job);
            self.slice.say(&lines::oom(&step, oom_kills));
        }
        let left = match self.slice.timetable.course() {
            Course::GivenUp => self.containment.procs().map_or(1, |p| p.len()),
            _ => 0,
        };
        let killed = ExitStatus { code: 0, signal: Signal::SIGKILL as u32 };
        let undisturbed = self.slice.timetable.course() == Course::Running
            && !self.slice.suspended
            && oom_kills == 0
            && self.slice.meter.part().is_none()
            && self.slice.refusal.is_none();
        let ended = self.slice.status.unwrap_or(killed);
        Outcome {
            status: self.slice.released.map_or(ended, |code| ExitStatus { code, signal: 0 }),
            stopped: self.slice.timetable.cause(),
            oom_kills,
            unkillable: u32::try_from(left).unwrap_or(u32::MAX),
            usage,
            refusal: self.slice.refusal,
            groups: self.slice.groups,
            undisturbed: undisturbed.then_some(counted),
        }
    }
}

impl Slice<'_> {
    fn now(&self) -> Now {
        let mono = i64::try_from(self.started.elapsed().as_millis()).expect("not for ages");
        Now { wall: now_ms(), mono }
    }

    /// Sleeps until something happens or is due.
    fn wait(&self, children: &SignalFd, control: &Control) -> nix::Result<()> {
        let all = std::iter::once(children.as_fd()).chain(control.fds());
        let mut fds: Vec<PollFd<'_>> =
            all.map(|fd: BorrowedFd<'_>| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An hour at most: a clock that was set must not stretch a limit further than that.
        const LONGEST_MS: i64 = 3_600_000;
        let wait = self.timetable.wait_ms(self.now()).map(|ms| ms.min(LONGEST_MS));
        let timeout = match wait {
            Some(ms) => PollTimeout::try_from(Duration::from_millis(ms.cast_unsigned()))
                .expect("an hour fits"),
            None => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Collects every ended child: the batch process, and orphans that came to the subreaper.
    fn reap(&mut self) {
        loop {
            let Some((pid, raw, used)) = usage::wait() else { return };
            self.meter.add(&used);
            if pid == self.batch.pid.as_raw() {
                self.status = Some(status_of(raw));
                self.begin_again();
            }
        }
    }

    /// Where the quick way has failed, the long one is taken, unless the end has begun.
    fn begin_again(&mut self) {
        self.batch.is_apart();
        self.hear_all_news();
        if !self.failed || self.timetable.course() != Course::Running {
            return;
        }
        let dir = SliceDir::of(&self.host.spool, self.launch.job, self.launch.attempt);
        let group = self.containment.group();
        match child::start_by_fork(self.host, &dir, self.launch, group, None) {
            Ok(batch) => {
                self.batch = batch;
                (self.listening, self.failed, self.status) = (true, false, None);
            }
            Err(e) => self.refusal = Some(Refusal::node(format!("cannot fork: {e}"))),
        }
    }

    fn follow_deadlines(&mut self) {
        self.follow_batch();
        while let Some(due) = self.timetable.due(self.now()) {
            let done = match due {
                Due::Warn(warning) => self.warn(warning),
                Due::TimeLimit => {
                    let wait = self.launch.kill_wait_seconds;
                    self.stop(StopCause::TimeLimit, wait)
                }
                Due::Kill => self.containment.kill_all(),
                Due::GiveUp => Ok(()),
            };
            complain(done);
        }
    }

    /// The batch process has ended: what it left is killed. Where SIGTERM ended a shell in the
    /// middle of a stop, the programs it had started keep the rest of their grace: they got the
    /// signal to save their work, and their shell went ahead of them.
    fn follow_batch(&mut self) {
        let Some(status) = self.status else { return };
        let stopping = matches!(self.timetable.course(), Course::Stopping { .. });
        // The process around a container ends with a code for its program's signal.
        let signal = match self.in_container() {
            true => status.code.saturating_sub(SIGNALLED).max(status.signal),
            false => status.signal,
        };
        let in_grace = stopping && signal == Signal::SIGTERM as u32;
        if !in_grace && !self.is_empty() {
            self.timetable.kill_leftovers(self.now());
        }
    }

    fn is_empty(&self) -> bool {
        self.containment.is_empty().unwrap_or(false)
    }

    fn is_over(&self) -> bool {
        let given_up = self.timetable.course() == Course::GivenUp;
        given_up || (self.status.is_some() && self.is_empty())
    }

    /// Hears what has been told by now.
    fn hear_news(&mut self) {
        while self.listening {
            let mut fds = [PollFd::new(self.batch.news.as_fd(), PollFlags::POLLIN)];
            if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0) {
                return;
            }
            match read_news(&self.batch.news) {
                News::Groups(groups) => self.groups = Some(groups),
                News::Opened(stderr) => self.stderr = Some(stderr),
                News::Refused(refusal) => self.refusal = Some(refusal),
                News::Failed => self.failed = true,
                News::Over => self.listening = false,
            }
        }
    }

    /// Hears what was told before the end. Only when the batch process has ended: the child's end
    /// of the news is closed then.
    fn hear_all_news(&mut self) {
        while self.listening && self.status.is_some() {
            self.hear_news();
        }
    }

    fn say(&self, line: &str) {
        if let Some(stderr) = &self.stderr {
            stderr.say(line);
        }
    }

    /// Signals what was asked to be. Steps are the agent's to tell; without one, each srun among
    /// our own processes passes it on to its tasks.
    fn warn(&mut self, warning: Warning) -> Result<(), muster_cgroup::Error> {
        let Warning { signal, batch_only, .. } = warning;
        let (spool, launch) = (&self.host.spool, self.launch);
        let notice = NoticeKind::Signal(SignalNotice { signal, batch_only, full: false });
        let steps_told =
            !batch_only && notice::deliver(spool, launch.job, launch.attempt, notice).is_ok();
        self.signal(signal, batch_only, false, steps_told)
    }

    /// To our own processes, not to those of steps. `steps_told`: nor to our own commands, which
    /// would pass it on to tasks that have it.
    fn signal(
        &self,
        signal: i32,
        batch_only: bool,
        full: bool,
        steps_told: bool,
    ) -> Result<(), muster_cgroup::Error> {
        let contained = self.contained();
        let script = contained.map_or(self.batch.pid, |(_, script)| script);
        if batch_only {
            if self.status.is_none() {
                // Not reaped, so the number is still this process's.
                contain::send(script, signal);
            }
            return Ok(());
        }
        let except = [contained.map(|(around, _)| around), (!full).then_some(script)];
        let procs = match self.meter.part() {
            Some(part) => part.procs(),
            None => self.containment.procs(),
        };
        let wanted = procs?.into_iter().filter(|pid| !except.contains(&Some(*pid)));
        for pid in wanted.filter(|pid| !steps_told || !contain::is_ours(*pid)) {
            contain::send(pid, signal);
        }
        Ok(())
    }

    fn in_container(&self) -> bool {
        self.launch.spec.as_ref().is_some_and(|s| Container::of_extras(&s.extras).is_some())
    }

    /// The process around a script in a container, and the script.
    fn contained(&self) -> Option<(Pid, Pid)> {
        let there = self.status.is_none() && self.in_container();
        there.then(|| contain::inside(&[self.batch.pid]).pop_first()).flatten()
    }

    /// Lets steps have groups of their own beside the batch script's processes.
    fn make_room(&mut self) -> Result<(), muster_cgroup::Error> {
        if self.meter.part().is_some() {
            return Ok(());
        }
        let Some(group) = self.containment.group() else { return Ok(()) };
        let until_now = Counted::of(group);
        if let Some(part) = self.host.cgroups.make_room(group, Some(BATCH_GROUP))? {
            self.meter.count_apart(until_now, part);
        }
        Ok(())
    }

    /// Begins the end: the line in the job's stderr, then SIGCONT and SIGTERM.
    fn stop(&mut self, cause: StopCause, kill_wait: u32) -> Result<(), muster_cgroup::Error> {
        let begun = self.timetable.stop(cause, i64::from(kill_wait) * 1000, self.now());
        if !begun {
            return Ok(());
        }
        self.hear_news();
        announce_stop(&self.host.spool, self.launch.job, self.launch.attempt, cause);
        self.say(&lines::stopped(self.launch.job, &self.launch.node, cause, now_ms()));
        if self.timetable.is_suspended() {
            self.timetable.resume(self.now());
            self.containment.thaw()?;
        }
        self.containment.signal(libc::SIGCONT, &[])?;
        let around: Vec<Pid> = self.contained().map(|(around, _)| around).into_iter().collect();
        self.containment.signal(libc::SIGTERM, &around)
    }

    fn suspend(&mut self, suspended: bool) -> Result<(), muster_cgroup::Error> {
        match suspended {
            true if self.timetable.course() == Course::Running => {
                self.suspended = true;
                self.containment.freeze()?;
                self.timetable.suspend(self.now());
            }
            true => {}
            false => {
                self.containment.thaw()?;
                self.timetable.resume(self.now());
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: ShimRequest) -> ShimReply {
        let (job, attempt) = (self.launch.job, self.launch.attempt);
        if request.job != 0 && (request.job, request.attempt) != (job, attempt) {
            return refusal_of(&request);
        }
        let done = match request.kind {
            Some(Kind::Status(_)) => Ok(()),
            Some(Kind::Stop(stop)) => self.stop(stop.cause(), stop.kill_wait_seconds),
            Some(Kind::Signal(s)) => self.signal(s.signal, s.batch_only, s.full, true),
            Some(Kind::MakeRoom(_)) => self.make_room(),
            Some(Kind::SetEnd(set)) => {
                self.timetable.set_end(set.end_at);
                Ok(())
            }
            Some(Kind::Suspend(s)) => self.suspend(s.suspended),
            Some(Kind::Release(release)) => {
                self.released = Some(release.code);
                self.containment.kill_all()
            }
            None => {
                return ShimReply { error: UNKNOWN_REQUEST.to_owned(), ..ShimReply::default() };
            }
        };
        ShimReply {
            error: done.err().map(|e| chain(&e)).unwrap_or_default(),
            running: self.status.is_none(),
            batch_pid: self.batch.pid.as_raw().cast_unsigned(),
            suspended: self.timetable.is_suspended(),
            pids: self.containment.procs().map_or(0, |p| u32::try_from(p.len()).unwrap_or(0)),
            usage: Some(self.meter.now(self.containment)),
        }
    }
}

/// The answer for a slice that this shim does not serve any more.
pub(crate) fn refusal_of(request: &ShimRequest) -> ShimReply {
    let error = format!("slice {}.{} has ended", request.job, request.attempt);
    ShimReply { error, ..ShimReply::default() }
}

fn status_of(raw: libc::c_int) -> ExitStatus {
    if libc::WIFSIGNALED(raw) {
        ExitStatus { code: 0, signal: libc::WTERMSIG(raw).cast_unsigned() }
    } else {
        ExitStatus { code: libc::WEXITSTATUS(raw).cast_unsigned(), signal: 0 }
    }
}

/// The agent's log is where the shim's stderr goes.
fn complain(done: Result<(), muster_cgroup::Error>) {
    if let Err(e) = done {
        eprintln!("muster shim: {}", chain(&e));
    }
}
