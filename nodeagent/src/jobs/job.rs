//! One slice of one attempt on this node: how far it is, how far it should be, and what to do
//! about the difference. Pure: no files, no clock, no processes; times come in with the events.
//!
//! ```text
//!  Preparing --> Ready --> Launching --> Running --> Stopping
//!      |           |           |            |           |
//!      |           |           |            +-----------+--> shim gone (exit record, or lost)
//!      +-----------+-----------+---------------------------> Cleaning --> Over --> (forgotten)
//! ```
//!
//! A slice without a process (`batch` unset) goes from Ready to Running by a note in the spool and
//! from Running to Cleaning when it is told to stop. One that is to run at once, with no prolog
//! before it, is Launching from the beginning.

use muster_proto::agent::v1::{
    Finished, LaunchFailed, Lost, Preparing, Ready, Running, SliceReport, Stopping, Want,
    slice_report,
};
use muster_proto::shim::v1::{ExitRecord, StopCause};

/// Which slice: a node holds at most one per attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub job: u32,
    pub attempt: u32,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.job, self.attempt)
    }
}

/// How a slice ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// Its processes are gone; `exit` is unset where none was launched.
    Finished { exit: Option<ExitRecord>, epilog_fault: String },
    /// It could not be started.
    LaunchFailed { reason: String, node_fault: bool },
    /// Its processes vanished without an exit record.
    Lost { reason: String },
}

/// How far a slice is.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Spooled; the prolog may be running. `begun`: somebody is at it in this life of the agent.
    Preparing { begun: bool, cancelled: bool },
    /// Confined, prolog done.
    Ready,
    /// The shim is being started, or the note for a slice without a process is being written.
    Launching,
    /// It runs. Milliseconds since the epoch.
    Running { started_at: i64 },
    /// The shim was told to end it.
    Stopping,
    /// What is left is killed, waited for, and the epilog runs.
    Cleaning(End),
    /// Nothing is left; told until it may be forgotten.
    Over(End),
}

/// A slice and what is wanted of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Has a process here.
    pub batch: bool,
    pub phase: Phase,
    /// There is no prolog: what spools it may start its shim in the same go.
    straight: bool,
    run: bool,
    stop: Option<StopCause>,
    forget: bool,
    /// Wanted, and what the shim was told.
    suspended: (bool, bool),
    /// Wanted, and what the shim was told: milliseconds since the epoch, 0 is none.
    end_at: (i64, i64),
}

/// What the controller wants of one slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub want: Want,
    pub suspended: bool,
    pub cause: StopCause,
    /// Milliseconds since the epoch; 0: no limit.
    pub end_at: i64,
}

/// What happened to a slice.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Wished(Wish),
    Prepared,
    /// The launch was made; milliseconds since the epoch.
    Launched {
        started_at: i64,
    },
    /// Preparation or launch failed (or was cancelled: then as if it had finished).
    Failed(End),
    /// The shim is gone.
    Ended(End),
    /// Too long after a stop the shim is still there.
    Overdue,
    /// Nothing is left; the epilog failed with this, or went well (empty).
    Cleaned {
        epilog_fault: String,
    },
}

/// What the edge does for a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Spool, confine, run the prolog.
    Prepare,
    /// Spool and start the shim in one go.
    Begin,
    /// Stop the prolog.
    CancelPrepare,
    /// Start the shim; or note that a slice without a process runs.
    Launch,
    /// Tell the shim to end the job.
    Stop(StopCause),
    Suspend(bool),
    SetEnd(i64),
    /// The shim does not end by itself.
    KillShim,
    /// Kill what is left, wait until nothing is, run the epilog.
    Clean,
    /// Tell the controller how far it is.
    Report,
    /// Remove the spool entry and forget the slice.
    Erase,
}

impl Job {
    /// A slice that was just wanted, or that a spool was found to hold in `phase`.
    #[must_use]
    pub fn new(batch: bool, end_at: i64, phase: Phase) -> Self {
        Job {
            batch,
            phase,
            straight: false,
            run: false,
            stop: None,
            forget: false,
            suspended: (false, false),
            end_at: (end_at, end_at),
        }
    }

    /// The same, where spooling and starting need nothing between them.
    #[must_use]
    pub fn straight(self, straight: bool) -> Self {
        Job { straight, ..self }
    }

    /// Takes in what happened and says what follows.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            // Not answered by itself: what is new was told, and an end is repeated. Were every wish
            // answered, two ends that disagree would talk without pause.
            Event::Wished(wish) => self.take(wish),
            Event::Prepared => match self.phase {
                Phase::Preparing { .. } => {
                    self.phase = Phase::Ready;
                    actions.push(Action::Report);
                }
                _ => return actions,
            },
            Event::Launched { started_at } => match self.phase {
                Phase::Launching => {
                    self.phase = Phase::Running { started_at };
                    actions.push(Action::Report);
                }
                _ => return actions,
            },
            Event::Failed(end) | Event::Ended(end) => match self.phase {
                Phase::Cleaning(_) | Phase::Over(_) => return actions,
                _ => {
                    self.phase = Phase::Cleaning(end);
                    actions.push(Action::Clean);
                }
            },
            Event::Overdue => match self.phase {
                Phase::Stopping => return vec![Action::KillShim],
                _ => return actions,
            },
            Event::Cleaned { epilog_fault: fault } => {
                let Phase::Cleaning(end) = &mut self.phase else {
                    return actions;
                };
                if let End::Finished { epilog_fault, .. } = end {
                    *epilog_fault = fault;
                }
                self.phase = Phase::Over(end.clone());
                actions.push(Action::Report);
            }
        }
        self.pursue(&mut actions);
        actions
    }

    /// The wish as it stands. A stop is never taken back: what was signalled cannot be unsignalled.
    fn take(&mut self, wish: Wish) {
        match wish.want {
            Want::Prepare => (),
            Want::Run => {
                self.run = true;
                self.suspended.0 = wish.suspended;
                self.end_at.0 = wish.end_at;
            }
            Want::Stop => self.stop = self.stop.or(Some(wish.cause)),
            Want::Forget => {
                self.stop = self.stop.or(Some(wish.cause));
                self.forget = true;
            }
        }
    }

    /// The next action towards what is wanted, where it is this side's turn.
    fn pursue(&mut self, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Preparing { begun: false, .. }
                if self.stop.is_none() && self.run && self.straight =>
            {
                self.phase = Phase::Launching;
                actions.push(Action::Begin);
            }
            Phase::Preparing { begun: begun @ false, .. } if self.stop.is_none() => {
                *begun = true;
                actions.push(Action::Prepare);
            }
            Phase::Preparing { begun: true, cancelled: cancelled @ false }
                if self.stop.is_some() =>
            {
                *cancelled = true;
                actions.push(Action::CancelPrepare);
            }
            // Nothing was begun, or all that is left is to undo it.
            Phase::Preparing { begun: false, .. } | Phase::Ready if self.stop.is_some() => {
                self.clean(actions);
            }
            Phase::Ready if self.run => {
                self.phase = Phase::Launching;
                actions.push(Action::Launch);
            }
            Phase::Running { .. } => match self.stop {
                Some(cause) if self.batch => {
                    self.phase = Phase::Stopping;
                    actions.extend([Action::Stop(cause), Action::Report]);
                }
                Some(_) => self.clean(actions),
                None => self.adjust(actions),
            },
            Phase::Over(_) if self.forget => actions.push(Action::Erase),
            Phase::Preparing { .. }
            | Phase::Ready
            | Phase::Launching
            | Phase::Stopping
            | Phase::Cleaning(_)
            | Phase::Over(_) => (),
        }
    }

    fn clean(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Cleaning(End::bare());
        actions.push(Action::Clean);
    }

    /// Passes on a changed limit or suspension to the shim of a running slice. One without a shim
    /// has processes all the same: those of steps.
    fn adjust(&mut self, actions: &mut Vec<Action>) {
        if self.suspended.0 != self.suspended.1 {
            self.suspended.1 = self.suspended.0;
            actions.push(Action::Suspend(self.suspended.0));
            actions.push(Action::Report);
        }
        if self.end_at.0 != self.end_at.1 {
            self.end_at.1 = self.end_at.0;
            actions.extend(self.batch.then_some(Action::SetEnd(self.end_at.0)));
        }
    }

    /// What the shim of an adopted slice says of itself.
    pub fn adopted(&mut self, suspended: bool) {
        self.suspended = (suspended, suspended);
    }

    /// Whether the shim should have it suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspended.1
    }

    /// Why it is to be stopped; none: it is not, or ends by itself.
    #[must_use]
    pub fn cause(&self) -> StopCause {
        match &self.phase {
            Phase::Cleaning(End::Finished { exit: Some(exit), .. }) => exit.stopped(),
            _ => self.stop.unwrap_or_default(),
        }
    }

    /// How far it is, as the controller is told. `None` for what only a Hello says.
    #[must_use]
    pub fn report(&self, key: Key) -> Option<SliceReport> {
        let report = self.hello(key);
        (!matches!(report.phase, Some(slice_report::Phase::Preparing(_)))).then_some(report)
    }

    /// How far it is, as a Hello says.
    #[must_use]
    pub fn hello(&self, key: Key) -> SliceReport {
        use slice_report::Phase as Wire;
        let phase = match &self.phase {
            Phase::Preparing { .. } => Wire::Preparing(Preparing {}),
            Phase::Ready | Phase::Launching => Wire::Ready(Ready {}),
            Phase::Running { started_at } => {
                Wire::Running(Running { started_at: *started_at, suspended: self.suspended.1 })
            }
            Phase::Stopping | Phase::Cleaning(_) => Wire::Stopping(Stopping {}),
            Phase::Over(end) => end.wire(),
        };
        SliceReport { job: key.job, attempt: key.attempt, phase: Some(phase) }
    }
}

impl End {
    /// The end that an exit record tells of. A script that this node could not run is a launch
    /// that failed here, and may do better elsewhere.
    #[must_use]
    pub fn of(exit: ExitRecord) -> End {
        if exit.node_fault {
            return End::LaunchFailed { reason: exit.launch_error, node_fault: true };
        }
        End::Finished { exit: Some(exit), epilog_fault: String::new() }
    }

    /// The end of a slice without a process, or of one that never came to have one.
    #[must_use]
    pub fn bare() -> End {
        End::Finished { exit: None, epilog_fault: String::new() }
    }

    fn wire(&self) -> slice_report::Phase {
        use slice_report::Phase as Wire;
        match self.clone() {
            End::Finished { exit, epilog_fault } => Wire::Finished(Finished { exit, epilog_fault }),
            End::LaunchFailed { reason, node_fault } => {
                Wire::LaunchFailed(LaunchFailed { reason, node_fault })
            }
            End::Lost { reason } => Wire::Lost(Lost { reason }),
        }
    }

    /// The end that a report tells of; `None` when it tells of none.
    #[must_use]
    pub fn from_report(report: SliceReport) -> Option<End> {
        use slice_report::Phase as Wire;
        match report.phase? {
            Wire::Finished(Finished { exit, epilog_fault }) => {
                Some(End::Finished { exit, epilog_fault })
            }
            Wire::LaunchFailed(LaunchFailed { reason, node_fault }) => {
                Some(End::LaunchFailed { reason, node_fault })
            }
            Wire::Lost(Lost { reason }) => Some(End::Lost { reason }),
            Wire::Ready(_) | Wire::Running(_) | Wire::Stopping(_) | Wire::Preparing(_) => None,
        }
    }
}
