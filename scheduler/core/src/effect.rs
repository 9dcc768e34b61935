//! Duties outside that follow from facts. They are derived from the state, never stored: after a
//! restart `outstanding(&State)` names all that are open.

use muster_model::{Attempt, JobId, NodeId};

/// A duty outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// What this node should have for this attempt changed: tell its agent.
    Desire { node: NodeId, job: JobId, attempt: Attempt },
    /// The attempt is over (ended or requeued): write its history row. Rows are keyed by
    /// (job, attempt), so that writing one twice is harmless.
    Record { job: JobId, attempt: Attempt },
    /// The job changed: tell those who watch.
    Notify { job: JobId },
    /// Something may start now: wake the pass.
    WakePass,
}

/// How far a slice should be, as the state wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    Prepare,
    Run {
        suspended: bool,
    },
    Stop(StopCause),
    /// The log has its end: the agent may forget it.
    Forget,
}

/// Why an attempt is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    Cancelled,
    TimeLimit,
    Preempted,
    NodeFailure,
    Requeued,
    /// The state does not know it.
    Unknown,
}
