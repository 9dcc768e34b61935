//! A job's phases and the one exhaustive match over what may happen in each.
//!
//! ```text
//!              Start               Run              Complete            End
//!   Pending ----------> Launching ------> Running ----------> Completing ----> Ended
//!      ^  \                 |               ^ |                 |   |  ^         ^
//!      |   \                +-- Complete ---|-|-----------------+   +--+ Complete|
//!      |    \                               +-+ Suspend/Resume  | (a new aim)    |
//!      |     \------------------------- End ----------------------------------- -+
//!      +---------------------------- Requeue -------------------+
//! ```
//!
//! Data lives in the phase that it belongs to: only a job that holds resources has an
//! [`Allocation`]. A step that a phase does not allow is a fault of ours, since `decide` refuses
//! it before it becomes a fact.

use muster_model::{Attempt, Hold, NodeId, Outcome, Placement, Seconds, Timestamp};

use crate::event::{AfterCompleting, ClearedExit};

/// Where a job is in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    Pending {
        /// Not to start before; age counts from here.
        eligible_at: Timestamp,
        hold: Option<Hold>,
    },
    /// Holds its placement; nothing of the user's runs yet. A gang waits here until every slice
    /// is in `ready`.
    Launching {
        held: Box<Allocation>,
        ready: Vec<NodeId>,
    },
    Running {
        held: Box<Allocation>,
        /// Since when it is stopped, if it is.
        suspended: Option<Timestamp>,
    },
    /// The outcome is known; slices are being cleared.
    Completing {
        held: Box<Allocation>,
        outcome: Outcome,
        then: AfterCompleting,
        since: Timestamp,
    },
    Ended {
        outcome: Outcome,
        at: Timestamp,
    },
}

/// What an attempt holds, and how far it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    pub partition: Box<str>,
    pub placement: Placement,
    pub allocated_at: Timestamp,
    /// When the batch process began.
    pub started_at: Option<Timestamp>,
    /// End of the time limit; `None`: unlimited.
    pub end_at: Option<Timestamp>,
    /// Shorter than the job's own limit, as chosen at its start; `None`: the job's.
    pub time_limit: Option<Seconds>,
    /// Time spent suspended, ended suspensions only; milliseconds.
    pub suspended_ms: i64,
    /// Nodes whose slice is not cleared yet, in rank order.
    pub remaining: Vec<NodeId>,
    /// How the batch process ended, once told.
    pub exit: Option<ClearedExit>,
}

/// An attempt that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    pub attempt: Attempt,
    pub partition: Box<str>,
    pub placement: Placement,
    pub allocated_at: Timestamp,
    pub started_at: Option<Timestamp>,
    /// The process's own end where known, else when the attempt was given up.
    pub ended_at: Timestamp,
    /// As in [`Allocation`].
    pub time_limit: Option<Seconds>,
    pub suspended_ms: i64,
    pub exit: Option<ClearedExit>,
    pub outcome: Outcome,
    /// The attempt before it, whose history row may not be written yet: two short attempts can
    /// end before the history hears of the first.
    pub before: Option<Box<Finished>>,
}

/// Attempts of a job that are kept: a job requeued for ever must not grow for ever. The history
/// is behind by seconds, and not by so many attempts.
const ATTEMPTS_KEPT: usize = 16;

impl Finished {
    /// This attempt and those before it, the last first.
    pub fn chain(&self) -> impl Iterator<Item = &Finished> {
        std::iter::successors(Some(self), |attempt| attempt.before.as_deref())
    }

    /// Links the attempt that came before, and forgets the oldest beyond the bound.
    pub(crate) fn after(mut self, before: Option<Box<Finished>>) -> Finished {
        self.before = before;
        let mut last = &mut self;
        for _ in 1..ATTEMPTS_KEPT {
            match last.before {
                Some(ref mut before) => last = before,
                None => return self,
            }
        }
        last.before = None;
        self
    }
}

/// What may happen to a phase.
#[derive(Debug)]
pub(crate) enum Step {
    Start(Box<Allocation>),
    Ready(NodeId),
    Run { started_at: Timestamp, end_at: Option<Timestamp> },
    Complete { outcome: Outcome, then: AfterCompleting, at: Timestamp },
    Clear { node: NodeId, exit: Option<ClearedExit> },
    End { outcome: Outcome, at: Timestamp },
    Requeue { hold: Option<Hold>, eligible_at: Timestamp },
    Hold(Hold),
    Release { at: Timestamp },
    Suspend { at: Timestamp },
    Resume { end_at: Option<Timestamp>, at: Timestamp },
}

impl Phase {
    /// What the job holds, if anything.
    #[must_use]
    pub fn allocation(&self) -> Option<&Allocation> {
        match self {
            Phase::Launching { held, .. }
            | Phase::Running { held, .. }
            | Phase::Completing { held, .. } => Some(held),
            Phase::Pending { .. } | Phase::Ended { .. } => None,
        }
    }

    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Phase::Pending { .. })
    }

    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self, Phase::Ended { .. })
    }

    /// Whether the job holds resources.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.allocation().is_some()
    }

    fn name(&self) -> &'static str {
        match self {
            Phase::Pending { .. } => "Pending",
            Phase::Launching { .. } => "Launching",
            Phase::Running { .. } => "Running",
            Phase::Completing { .. } => "Completing",
            Phase::Ended { .. } => "Ended",
        }
    }

    /// The phase after `step`.
    ///
    /// # Panics
    /// When the phase does not allow the step: a fact that `decide` should have refused.
    pub(crate) fn after(self, step: Step) -> Phase {
        use Phase::{Completing, Ended, Launching, Pending, Running};
        match (self, step) {
            (Pending { .. }, Step::Start(held)) => Launching { held, ready: Vec::new() },
            (Pending { eligible_at, .. }, Step::Hold(hold)) => {
                Pending { eligible_at, hold: Some(hold) }
            }
            (Pending { eligible_at, .. }, Step::Release { at }) => {
                Pending { eligible_at: eligible_at.max(at), hold: None }
            }
            (Pending { .. }, Step::End { outcome, at }) => Ended { outcome, at },

            (Launching { held, mut ready }, Step::Ready(node)) => {
                if !ready.contains(&node) {
                    ready.push(node);
                }
                Launching { held, ready }
            }
            (Launching { mut held, .. }, Step::Run { started_at, end_at }) => {
                held.started_at = Some(started_at);
                held.end_at = end_at;
                Running { held, suspended: None }
            }
            (Launching { held, .. }, Step::Complete { outcome, then, at }) => {
                Completing { held, outcome, then, since: at }
            }
            (Launching { mut held, ready }, Step::Clear { node, exit }) => {
                held.clear(node, exit);
                Launching { held, ready }
            }

            (Running { mut held, suspended }, Step::Complete { outcome, then, at }) => {
                if let Some(since) = suspended {
                    held.suspended_ms += at.since(since).max(0);
                }
                Completing { held, outcome, then, since: at }
            }
            (Running { mut held, suspended }, Step::Clear { node, exit }) => {
                held.clear(node, exit);
                Running { held, suspended }
            }
            (Running { held, .. }, Step::Suspend { at }) => Running { held, suspended: Some(at) },
            (Running { mut held, suspended }, Step::Resume { end_at, at }) => {
                if let Some(since) = suspended {
                    held.suspended_ms += at.since(since).max(0);
                }
                held.end_at = end_at;
                Running { held, suspended: None }
            }

            (Completing { held, since, .. }, Step::Complete { outcome, then, .. }) => {
                Completing { held, outcome, then, since }
            }
            (Completing { mut held, outcome, then, since }, Step::Clear { node, exit }) => {
                held.clear(node, exit);
                Completing { held, outcome, then, since }
            }
            (Completing { .. }, Step::End { outcome, at }) => Ended { outcome, at },
            (Completing { .. }, Step::Requeue { hold, eligible_at }) => {
                Pending { eligible_at, hold }
            }

            (
                phase @ (Pending { .. }
                | Launching { .. }
                | Running { .. }
                | Completing { .. }
                | Ended { .. }),
                step @ (Step::Start(_)
                | Step::Ready(_)
                | Step::Run { .. }
                | Step::Complete { .. }
                | Step::Clear { .. }
                | Step::End { .. }
                | Step::Requeue { .. }
                | Step::Hold(_)
                | Step::Release { .. }
                | Step::Suspend { .. }
                | Step::Resume { .. }),
            ) => panic!("a job that is {} cannot take the step {step:?}", phase.name()),
        }
    }
}

impl Allocation {
    fn clear(&mut self, node: NodeId, exit: Option<ClearedExit>) {
        self.remaining.retain(|n| *n != node);
        if exit.is_some() {
            self.exit = exit;
        }
    }

    /// The node that runs the batch script.
    #[must_use]
    pub fn batch_node(&self) -> Option<NodeId> {
        self.placement.slices.first().map(|s| s.node)
    }

    /// The record of this attempt, given up at `since`.
    pub(crate) fn finished(
        &self,
        attempt: Attempt,
        outcome: Outcome,
        since: Timestamp,
    ) -> Finished {
        Finished {
            attempt,
            partition: self.partition.clone(),
            placement: self.placement.clone(),
            allocated_at: self.allocated_at,
            started_at: self.exit.map(|e| e.started_at).or(self.started_at),
            ended_at: self.exit.map_or(since, |e| e.ended_at),
            time_limit: self.time_limit,
            suspended_ms: self.suspended_ms,
            exit: self.exit,
            outcome,
            before: None,
        }
    }
}
