//! Why a wish was refused: a value for the caller, not a fault of ours. Each text is one sentence
//! that names the thing and what to do.

use muster_model::JobId;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("job {0} is unknown")]
    UnknownJob(JobId),
    #[error("job {0} has no task {1}")]
    UnknownTask(JobId, u32),
    #[error("job {0} has already ended")]
    AlreadyEnded(JobId),
    #[error("job {0} is not pending")]
    NotPending(JobId),
    #[error("job {0} is not running")]
    NotRunning(JobId),
    #[error("job {0} is not suspended")]
    NotSuspended(JobId),
    #[error("job {0} is suspended")]
    Suspended(JobId),
    #[error("job {0} may not be requeued (submitted with --no-requeue)")]
    RequeueDisabled(JobId),
    #[error("{what} needs the operator or admin role")]
    NotPermitted { what: String },
    #[error("partition {0:?} does not exist")]
    UnknownPartition(String),
    #[error("no partition was named and the cluster has no default one")]
    NoDefaultPartition,
    #[error("partition {partition:?} does not admit user {user:?}")]
    PartitionAccess { partition: String, user: String },
    #[error("partition {partition:?} takes no new jobs (state {state})")]
    PartitionClosed { partition: String, state: &'static str },
    #[error("node {0:?} does not exist")]
    UnknownNode(String),
    #[error("node {node:?} is not in partition {partition:?}")]
    NodeNotInPartition { node: String, partition: String },
    #[error("no node has the feature {0:?}")]
    UnknownFeature(String),
    #[error("no node has the generic resource {0:?}")]
    UnknownGres(String),
    #[error("the cluster has no licence {0:?}")]
    UnknownLicense(String),
    #[error("reservation {0:?} does not exist")]
    UnknownReservation(String),
    #[error("reservation {reservation:?} does not admit user {user:?} with account {account:?}")]
    ReservationAccess { reservation: String, user: String, account: String },
    #[error("a reservation named {0:?} exists already")]
    ReservationExists(String),
    #[error(
        "reservation {reservation:?} is named by {jobs} jobs that have not ended (first: {first})"
    )]
    ReservationInUse { reservation: String, jobs: usize, first: JobId },
    #[error(
        "node {node:?} is in reservation {other:?} at that time (OVERLAP or MAINT would allow it)"
    )]
    ReservationOverlap { node: String, other: String },
    #[error("{0}")]
    NodesBusy(String),
    #[error("node {node:?} is kept for reservation {reservation:?}")]
    Reserved { node: String, reservation: String },
    #[error("reservation: {0}")]
    BadReservation(String),
    #[error("reservation: {0}")]
    BadReservationTime(String),
    #[error("dependency on job {0}, which does not exist")]
    UnknownDependency(JobId),
    #[error("dependency {term} can never hold: job {job} has ended otherwise")]
    DependencyNeverHolds { term: String, job: JobId },
    #[error("job {0} cannot depend on itself")]
    DependencyOnItself(JobId),
    #[error("these dependencies would wait for each other for ever (job {0})")]
    DependencyLoop(JobId),
    #[error("node count: {0}")]
    BadNodeCount(String),
    #[error("CPU count: {0}")]
    BadCpuCount(String),
    #[error("memory: {0}")]
    BadMemory(String),
    #[error("no set of nodes in partition {partition:?} could ever run this job: {why}")]
    NeverFits { partition: String, why: String },
    #[error("time limit: {0}")]
    BadTimeLimit(String),
    #[error("deadline: {0}")]
    BadDeadline(String),
    #[error("job array: {0}")]
    BadArray(String),
    #[error("the queue is full ({limit} jobs)")]
    QueueFull { limit: u32 },
    #[error("jobs of root are not admitted on this cluster")]
    RootNotAdmitted,
    #[error("{0}")]
    BadValue(String),
    #[error("a reason is needed to {0} a node (Reason=...)")]
    ReasonNeeded(&'static str),
}
