//! Which deadline does what: the warning, the time limit, the kill after the stop, giving up.
//!
//! Pure: the time comes in. The limit is wall-clock time, as the controller promised it; waits that
//! begin here count on the monotonic clock, which nobody sets. Both in milliseconds.
//!
//! ```text
//! Running --stop / time limit--> Stopping --kill_wait--> Killing --unkillable--> GivenUp
//!    +------------- the batch process has ended -----------^
//! ```

use muster_proto::shim::v1::StopCause;

/// Both clocks, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since the epoch.
    pub(crate) wall: i64,
    /// Since some fixed moment.
    pub(crate) mono: i64,
}

/// A signal asked for ahead of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) signal: i32,
    pub(crate) before_ms: i64,
    pub(crate) batch_only: bool,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    Running,
    /// SIGTERM is sent; SIGKILL follows at `kill_at`.
    Stopping {
        kill_at: i64,
    },
    /// SIGKILL is sent, and again at `again_at`, until `give_up_at`.
    Killing {
        again_at: i64,
        give_up_at: i64,
    },
    /// What is left cannot be killed.
    GivenUp,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Warn(Warning),
    TimeLimit,
    Kill,
    GiveUp,
}

/// Between one SIGKILL to all and the next: a process may have been forking at the first.
const KILL_AGAIN_MS: i64 = 100;

/// The deadlines of one slice.
#[derive(Clone, Debug)]
pub(crate) struct Timetable {
    end_at: i64,
    warning: Option<Warning>,
    suspended_at: Option<i64>,
    end_set_while_suspended: bool,
    unkillable_ms: i64,
    course: Course,
    cause: StopCause,
}

impl Timetable {
    /// `end_at` 0: no limit.
    pub(crate) fn new(end_at: i64, warning: Option<Warning>, unkillable_ms: i64) -> Self {
        Self {
            end_at,
            warning,
            suspended_at: None,
            end_set_while_suspended: false,
            unkillable_ms,
            course: Course::Running,
            cause: StopCause::None,
        }
    }

    pub(crate) fn course(&self) -> Course {
        self.course
    }

    /// Why the slice was stopped; `None` while it was not.
    pub(crate) fn cause(&self) -> StopCause {
        self.cause
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended_at.is_some()
    }

    pub(crate) fn set_end(&mut self, end_at: i64) {
        self.end_at = end_at;
        self.end_set_while_suspended = self.is_suspended();
    }

    /// The limit rests from here.
    pub(crate) fn suspend(&mut self, now: Now) {
        if self.suspended_at.is_none() {
            self.suspended_at = Some(now.mono);
            self.end_set_while_suspended = false;
        }
    }

    /// The limit goes on, later by the time of rest unless the controller has said when.
    pub(crate) fn resume(&mut self, now: Now) {
        if let Some(since) = self.suspended_at.take()
            && self.end_at != 0
            && !self.end_set_while_suspended
        {
            self.end_at += now.mono - since;
        }
    }

    /// Begins the stop, or shortens its wait; true when it begins here and SIGTERM is due.
    pub(crate) fn stop(&mut self, cause: StopCause, kill_wait_ms: i64, now: Now) -> bool {
        let kill_at = now.mono + kill_wait_ms;
        match self.course {
            Course::Running => {
                self.cause = cause;
                self.course = Course::Stopping { kill_at };
                true
            }
            Course::Stopping { kill_at: before } => {
                self.course = Course::Stopping { kill_at: before.min(kill_at) };
                false
            }
            Course::Killing { .. } | Course::GivenUp => false,
        }
    }

    /// The batch process has ended; what it left is killed now.
    pub(crate) fn kill_leftovers(&mut self, now: Now) {
        if matches!(self.course, Course::Running | Course::Stopping { .. }) {
            self.course = self.killing(now);
        }
    }

    /// A first kill is due at once.
    fn killing(&self, now: Now) -> Course {
        Course::Killing { again_at: now.mono, give_up_at: now.mono + self.unkillable_ms }
    }

    /// The next kill is due at `at`.
    fn again(&mut self, at: i64) {
        if let Course::Killing { again_at, .. } = &mut self.course {
            *again_at = at;
        }
    }

    /// What is due, once each; to be asked until it answers `None`.
    pub(crate) fn due(&mut self, now: Now) -> Option<Due> {
        match self.course {
            Course::Running => {
                if self.is_suspended() || self.end_at == 0 {
                    return None;
                }
                if self.end_at <= now.wall {
                    return Some(Due::TimeLimit);
                }
                let warning = self.warning.take_if(|w| self.end_at - w.before_ms <= now.wall);
                warning.map(Due::Warn)
            }
            Course::Stopping { kill_at } if kill_at <= now.mono => {
                self.course = self.killing(now);
                self.again(now.mono + KILL_AGAIN_MS);
                Some(Due::Kill)
            }
            Course::Killing { give_up_at, .. } if give_up_at <= now.mono => {
                self.course = Course::GivenUp;
                Some(Due::GiveUp)
            }
            Course::Killing { again_at, .. } if again_at <= now.mono => {
                self.again(now.mono + KILL_AGAIN_MS);
                Some(Due::Kill)
            }
            Course::Stopping { .. } | Course::Killing { .. } | Course::GivenUp => None,
        }
    }

    /// Milliseconds until something may be due; `None`: never by itself.
    pub(crate) fn wait_ms(&self, now: Now) -> Option<i64> {
        let wait = match self.course {
            Course::Running => {
                if self.is_suspended() || self.end_at == 0 {
                    return None;
                }
                let first = self.end_at - self.warning.map_or(0, |w| w.before_ms);
                first - now.wall
            }
            Course::Stopping { kill_at } => kill_at - now.mono,
            Course::Killing { again_at, give_up_at } => again_at.min(give_up_at) - now.mono,
            Course::GivenUp => return None,
        };
        Some(wait.max(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIDNIGHT: i64 = 1_800_000_000_000;
    const UNKILLABLE: i64 = 5000;

    fn at(mono: i64) -> Now {
        Now { wall: MIDNIGHT + mono, mono }
    }

    /// Tells a story as (time, what is due), following time limits with a stop of 1 s.
    fn check(mut table: Timetable, until: i64, expected: &[(i64, Due)]) {
        let (mut told, mut time) = (Vec::new(), 0);
        while time <= until {
            while let Some(due) = table.due(at(time)) {
                if due == Due::TimeLimit {
                    assert!(table.stop(StopCause::TimeLimit, 1000, at(time)));
                }
                told.push((time, due));
            }
            let Some(wait) = table.wait_ms(at(time)) else { break };
            assert!(wait > 0, "something is due and was not told");
            time += wait;
        }
        told.dedup_by_key(|(_, due)| *due);
        assert_eq!(told, expected);
    }

    #[test]
    fn warning_limit_kill_and_giving_up_follow_one_another() {
        let warning = Warning { signal: 10, before_ms: 300, batch_only: true };
        let table = Timetable::new(MIDNIGHT + 1000, Some(warning), UNKILLABLE);
        let expected = [
            (700, Due::Warn(warning)),
            (1000, Due::TimeLimit),
            (2000, Due::Kill),
            (7000, Due::GiveUp),
        ];
        check(table, 20_000, &expected);
    }

    #[test]
    fn without_a_limit_nothing_is_ever_due() {
        check(Timetable::new(0, None, UNKILLABLE), 1_000_000, &[]);
    }

    #[test]
    fn leftovers_are_killed_at_once_and_again() {
        let mut table = Timetable::new(0, None, UNKILLABLE);
        table.kill_leftovers(at(0));
        assert_eq!(table.due(at(0)), Some(Due::Kill));
        assert_eq!((table.due(at(0)), table.wait_ms(at(0))), (None, Some(KILL_AGAIN_MS)));
        table.kill_leftovers(at(10));
        assert_eq!(table.due(at(10)), None, "begun once");
        assert_eq!(table.due(at(KILL_AGAIN_MS)), Some(Due::Kill));
    }

    #[test]
    fn the_first_cause_stands_and_a_wait_can_only_shrink() {
        let mut table = Timetable::new(0, None, UNKILLABLE);
        assert!(table.stop(StopCause::Preempted, 30_000, at(0)));
        assert!(!table.stop(StopCause::Cancelled, 60_000, at(1)));
        assert_eq!(table.course(), Course::Stopping { kill_at: 30_000 });
        assert!(!table.stop(StopCause::Cancelled, 0, at(2)));
        assert_eq!((table.due(at(2)), table.cause()), (Some(Due::Kill), StopCause::Preempted));
    }

    #[test]
    fn a_rest_moves_the_limit_unless_the_controller_has_said_where_to() {
        let suspended = || {
            let mut table = Timetable::new(MIDNIGHT + 1000, None, UNKILLABLE);
            table.suspend(at(500));
            assert_eq!((table.due(at(2000)), table.wait_ms(at(2000))), (None, None));
            table
        };
        let mut table = suspended();
        table.resume(at(2000));
        assert_eq!(table.wait_ms(at(2000)), Some(500));

        let mut table = suspended();
        table.set_end(MIDNIGHT + 9000);
        table.resume(at(2000));
        assert_eq!(table.wait_ms(at(2000)), Some(7000));
    }

    proptest! {
        #[test]
        fn whatever_is_awaited_is_due_then(
            end in 0i64..5000, before in 0i64..9000, stop_at in 0i64..9000, wait in 0i64..3000
        ) {
            let warning = Warning { signal: 10, before_ms: before, batch_only: false };
            let end = if end == 0 { 0 } else { MIDNIGHT + end };
            let mut table = Timetable::new(end, Some(warning), UNKILLABLE);
            let (mut time, mut stopped) = (0, false);
            for _ in 0..1000 {
                let due = table.due(at(time));
                if due == Some(Due::TimeLimit) || (!stopped && time >= stop_at) {
                    table.stop(StopCause::Cancelled, wait, at(time));
                    stopped = true;
                }
                if due.is_none() {
                    match table.wait_ms(at(time)) {
                        Some(ms) => {
                            time += ms.max(1);
                            prop_assert!(stopped || table.due(at(time)).is_some());
                        }
                        None if table.course() == Course::GivenUp => return Ok(()),
                        None => time = stop_at,
                    }
                }
            }
            prop_assert!(false, "no end is reached");
        }
    }
}
