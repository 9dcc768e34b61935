//! What users read in their job's stderr, word for word as Slurm's step daemon writes it: people
//! and scripts search logs for these lines.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use muster_proto::shim::v1::StopCause;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

const PREFIX: &str = "slurmstepd: error: ";

/// The job's stderr, as the user has opened it.
#[derive(Debug)]
pub(crate) struct JobStderr(OwnedFd);

impl JobStderr {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Adds a line. What cannot be written at once is dropped: a full pipe or disk of the user's
    /// must not hold up the end of the job.
    pub(crate) fn say(&self, line: &str) {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
        let ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
        if ready && fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLOUT)) {
            let _ = write(&self.0, format!("{PREFIX}{line}\n").as_bytes());
        }
    }
}

/// Why and when the job was stopped.
pub(crate) fn stopped(job: u32, node: &str, cause: StopCause, at_ms: i64) -> String {
    cancelled(&format!("JOB {job}"), node, cause, at_ms)
}

/// The same of a step, as it comes to whoever ran it.
pub(crate) fn step_stopped(id: &str, node: &str, cause: StopCause, at_ms: i64) -> String {
    of_step(&cancelled(&format!("STEP {id}"), node, cause, at_ms))
}

fn cancelled(what: &str, node: &str, cause: StopCause, at_ms: i64) -> String {
    let due = match cause {
        StopCause::TimeLimit => " DUE TO TIME LIMIT",
        StopCause::Preempted => " DUE TO PREEMPTION",
        StopCause::NodeFailure => " DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS",
        StopCause::Requeued => " DUE TO JOB REQUEUE",
        StopCause::None | StopCause::Cancelled | StopCause::UnknownToController => "",
    };
    format!("*** {what} ON {node} CANCELLED AT {}{due} ***", local_time(at_ms))
}

/// Processes were killed for memory.
pub(crate) fn oom(step: &str, kills: u64) -> String {
    let events = if kills == 1 { "event" } else { "events" };
    format!(
        "Detected {kills} oom_kill {events} in StepId={step}. \
         Some of the step tasks have been OOM Killed."
    )
}

/// As it comes to whoever ran the step.
pub(crate) fn of_step(line: &str) -> String {
    format!("{PREFIX}{line}")
}

/// The working directory is not there.
pub(crate) fn no_workdir(dir: &str, error: &io::Error) -> String {
    format!("couldn't chdir to `{dir}': {}: going to /tmp instead", reason(error))
}

/// The system's words without Rust's number behind them.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// `2026-11-23T17:00:00` in the node's time zone.
fn local_time(at_ms: i64) -> String {
    let seconds: libc::time_t = at_ms.div_euclid(1000);
    // SAFETY: tm is plain numbers (and a pointer that localtime_r sets); both pointers are live.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut tm);
        tm
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_line() {
        let check = |cause, end: &str| {
            let line = stopped(12, "n1", cause, 0);
            assert!(line.starts_with("*** JOB 12 ON n1 CANCELLED AT 19"), "{line}");
            assert!(line.ends_with(end), "{line}");
        };
        check(StopCause::TimeLimit, " DUE TO TIME LIMIT ***");
        check(StopCause::Preempted, " DUE TO PREEMPTION ***");
        check(StopCause::Requeued, " DUE TO JOB REQUEUE ***");
        check(StopCause::NodeFailure, " DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***");
        assert!(!stopped(12, "n1", StopCause::Cancelled, 0).contains("DUE"));
        let of_step = step_stopped("12.0", "n1", StopCause::TimeLimit, 0);
        assert!(of_step.starts_with("slurmstepd: error: *** STEP 12.0 ON n1 CANCELLED AT "));
        assert!(of_step.ends_with(" DUE TO TIME LIMIT ***"), "{of_step}");
    }

    #[test]
    fn a_missing_directory_is_named_with_the_systems_reason() {
        assert_eq!(
            no_workdir("/x", &io::Error::from_raw_os_error(libc::ENOENT)),
            "couldn't chdir to `/x': No such file or directory: going to /tmp instead"
        );
    }

    #[test]
    fn one_kill_is_one_event() {
        assert!(
            oom("12.batch", 1).starts_with("Detected 1 oom_kill event in StepId=12.batch. Some of")
        );
        assert!(oom("12.0", 2).starts_with("Detected 2 oom_kill events in "));
    }
}
